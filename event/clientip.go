package event

import (
	"context"

	"github.com/latchkey-go/latchkey/internal/ctxkey"
)

// ContextWithClientIP returns a context that carries the IP address of the client. Events
// name it, and account.Manager limits logins by it. The Gin plugin does this for every
// request that it handles, with c.ClientIP(). Never take the IP from a header that any client
// can set.
func ContextWithClientIP(ctx context.Context, ip string) context.Context {
	return context.WithValue(ctx, ctxkey.ClientIP{}, &ip)
}

// ClientIP returns the client IP that ctx carries, or "".
func ClientIP(ctx context.Context) string {
	if ip, ok := ctx.Value(ctxkey.ClientIP{}).(*string); ok {
		return *ip
	}
	return ""
}
