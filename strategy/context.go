package strategy

import "context"

type sessionKey[U any] struct{}

// ContextWithSession returns a context that carries a session. The Gin plugin
// does this for every request that it lets through; jobs and tests can do the
// same.
func ContextWithSession[U any](ctx context.Context, s Session[U]) context.Context {
	return context.WithValue(ctx, sessionKey[U]{}, s)
}

// SessionFromContext returns the session of the request that ctx belongs to, for
// code below the handlers. ok is false where there is none, or none of this
// user type.
func SessionFromContext[U any](ctx context.Context) (s Session[U], ok bool) {
	s, ok = ctx.Value(sessionKey[U]{}).(Session[U])
	return s, ok
}

// UserFromContext returns the user of the request that ctx belongs to, like
// [SessionFromContext].
func UserFromContext[U any](ctx context.Context) (user U, ok bool) {
	s, ok := SessionFromContext[U](ctx)
	return s.User, ok
}

type clientAddrKey struct{}

// ContextWithClientAddr returns a context that carries the address of the client
// that a request came from: events name it, and account.Limiter counts by it. The
// Gin plugin does this for every request that it handles, by Gin's rules for
// trusted proxies. Never take the address from a header that anybody can set.
func ContextWithClientAddr(ctx context.Context, addr string) context.Context {
	return context.WithValue(ctx, clientAddrKey{}, addr)
}

// ClientAddr returns the address of the client that ctx belongs to; "" where it
// is not known.
func ClientAddr(ctx context.Context) string {
	addr, _ := ctx.Value(clientAddrKey{}).(string)
	return addr
}
