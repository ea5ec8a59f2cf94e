package event

import "context"

// ClientIPKey is the context key of the client IP. Its value is a *string, which is "" if the
// IP is unknown. Use [ContextWithClientIP] and [ClientIP]; only an adapter that determines
// the IP on demand needs the key itself.
type ClientIPKey struct{}

// ContextWithClientIP returns a context that carries the IP address of the client. Events
// name it, and account.Manager limits logins by it. The Gin plugin does this for every
// request that it handles, with c.ClientIP(). Never take the IP from a header that any client
// can set.
func ContextWithClientIP(ctx context.Context, ip string) context.Context {
	return context.WithValue(ctx, ClientIPKey{}, &ip)
}

// ClientIP returns the client IP that ctx carries, or "".
func ClientIP(ctx context.Context) string {
	if ip, ok := ctx.Value(ClientIPKey{}).(*string); ok {
		return *ip
	}
	return ""
}
