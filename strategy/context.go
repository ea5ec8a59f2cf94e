package strategy

import (
	"context"
	"slices"

	"github.com/latchkey-go/latchkey/internal/ctxkey"
)

// ContextWithSession returns a context that carries a session. The Gin plugin does this for
// every request that a guard admits; jobs and tests can do it too. It is no credential: guards
// ignore it, except that of latchkeytest in a test.
func ContextWithSession[U any](ctx context.Context, s Session[U]) context.Context {
	return context.WithValue(ctx, ctxkey.Session[U]{}, &s)
}

// SessionFromContext returns a copy of the session that ctx carries, for code below the
// handlers. ok is false if ctx carries no session of this user type.
func SessionFromContext[U any](ctx context.Context) (s Session[U], ok bool) {
	found, ok := ctx.Value(ctxkey.Session[U]{}).(*Session[U])
	if ok {
		s = *found
		s.Scopes = slices.Clone(s.Scopes) // requests share the session
	}
	return s, ok
}

// UserFromContext returns the user of the session that ctx carries. ok is false if ctx
// carries no session of this user type.
func UserFromContext[U any](ctx context.Context) (user U, ok bool) {
	found, ok := ctx.Value(ctxkey.Session[U]{}).(*Session[U])
	if ok {
		user = found.User
	}
	return user, ok
}
