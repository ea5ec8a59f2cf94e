package strategy

import (
	"context"

	"github.com/latchkey-go/latchkey/internal/ctxkey"
)

// sessionContext is a context that carries a session.
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

// ContextWithSession returns a context that carries a session. The Gin plugin does this for
// every request that a guard admits; jobs and tests can do it too.
func ContextWithSession[U any](ctx context.Context, s Session[U]) context.Context {
	return &sessionContext[U]{ctx, s}
}

// SessionFromContext returns a copy of the session that ctx carries, for code below the
// handlers. ok is false if ctx carries no session of this user type.
func SessionFromContext[U any](ctx context.Context) (s Session[U], ok bool) {
	found, ok := ctx.Value(ctxkey.Session[U]{}).(*Session[U])
	if ok {
		s = found.own()
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

// SessionInfoFromContext is [SessionFromContext] for code that does not know the user type.
func SessionInfoFromContext(ctx context.Context) (s SessionInfo, ok bool) {
	found, ok := ctx.Value(ctxkey.SessionInfo{}).(*SessionInfo)
	if ok {
		s = found.own()
	}
	return s, ok
}

// UserIDFromContext returns the ID of the user whose session ctx carries. ok is false if ctx
// carries no session, or if the ID is of another type.
func UserIDFromContext[ID comparable](ctx context.Context) (id ID, ok bool) {
	found, _ := ctx.Value(ctxkey.SessionInfo{}).(*SessionInfo)
	if found == nil {
		return id, false
	}
	id, ok = found.UserID.(ID)
	return id, ok
}
