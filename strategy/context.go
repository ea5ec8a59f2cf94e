package strategy

import (
	"context"

	"github.com/latchkey-go/latchkey/internal/ctxkey"
)

// sessionContext carries a session with its user.
type sessionContext[U any] struct {
	context.Context
	session Session[U]
}

func (c *sessionContext[U]) Value(key any) any {
	switch key {
	case ctxkey.Session[U]{}:
		return &c.session
	case ctxkey.SessionInfo{}:
		return &c.session.SessionInfo
	}
	return c.Context.Value(key)
}

// ContextWithSession returns a context that carries a session. The Gin plugin
// does this for every request that it lets through; jobs and tests can do the
// same.
func ContextWithSession[U any](ctx context.Context, s Session[U]) context.Context {
	return &sessionContext[U]{ctx, s}
}

// SessionFromContext returns the session of the request that ctx belongs to, for
// code below the handlers. ok is false where there is none, or none of this
// user type, also where a guard did not read the user.
func SessionFromContext[U any](ctx context.Context) (s Session[U], ok bool) {
	found, ok := ctx.Value(ctxkey.Session[U]{}).(*Session[U])
	if ok {
		s = found.own()
	}
	return s, ok
}

// UserFromContext returns the user of the request that ctx belongs to, like
// [SessionFromContext].
func UserFromContext[U any](ctx context.Context) (user U, ok bool) {
	found, ok := ctx.Value(ctxkey.Session[U]{}).(*Session[U])
	if ok {
		user = found.User
	}
	return user, ok
}

// SessionInfoFromContext returns what is known of the session of the request that
// ctx belongs to, whether or not the user was read. ok is false where there is
// none.
func SessionInfoFromContext(ctx context.Context) (s SessionInfo, ok bool) {
	found, ok := ctx.Value(ctxkey.SessionInfo{}).(*SessionInfo)
	if ok {
		s = found.own()
	}
	return s, ok
}

// UserIDFromContext returns the ID of the user whose request ctx belongs to, whether
// or not the user was read. ok is false where there is none, or none of this type.
func UserIDFromContext[ID comparable](ctx context.Context) (id ID, ok bool) {
	found, _ := ctx.Value(ctxkey.SessionInfo{}).(*SessionInfo)
	if found == nil {
		return id, false
	}
	id, ok = found.UserID.(ID)
	return id, ok
}

// ContextWithClientAddr returns a context that carries the address of the client
// that a request came from: events name it, and account.Limiter counts by it. The
// Gin plugin does this for every request that it handles, by Gin's rules for
// trusted proxies. Never take the address from a header that anybody can set.
func ContextWithClientAddr(ctx context.Context, addr string) context.Context {
	return ctxkey.WithClient(ctx, addr)
}

// ClientAddr returns the address of the client that ctx belongs to; "" where it
// is not known.
func ClientAddr(ctx context.Context) string {
	if addr, ok := ctx.Value(ctxkey.ClientAddr{}).(*string); ok {
		return *addr
	}
	return ""
}
