package ginauth

import (
	"context"
	"fmt"

	"github.com/gin-gonic/gin"
)

// Watch returns a context for a handler whose answer stays open: server-sent events, a
// WebSocket, a long poll. It ends with the request's context, and when a guard would refuse the
// request's token: the session was revoked or has expired, or its user was deactivated. Call the
// CancelFunc when the handler returns:
//
//	ctx, stop := auth.Watch(c)
//	defer stop()
//
// [context.Cause] tells why the context has ended; its error wraps one of
// strategy.ErrSessionExpired, ErrSessionRevoked, ErrUserInactive, ErrSessionUnverified and
// ErrClosed, see strategy.Database.Watch, which also says how soon. Before the handler has
// written anything, [Auth.Refuse] answers the cause: with 401 or 503.
//
// A handler that reads from a WebSocket must close it when the context ends, to unblock the
// read. The checks of the guard are not repeated: a user who loses a flag keeps the answer.
// A token that is rotated, by [Auth.Reauthenticate] or [Auth.Renew], ends the context too; the
// client reconnects with its new token.
//
// A request that no guard of this Auth has admitted with a user gets a context that has ended.
// Behind [Auth.OptionalUser], call Watch only if [Auth.CurrentUser] returns a user.
func (a *Auth[U]) Watch(c *gin.Context) (context.Context, context.CancelFunc) {
	ctx := c.Request.Context()
	id := a.identity(c.Request)
	if id == nil {
		ended, cancel := context.WithCancelCause(ctx)
		cancel(fmt.Errorf("%w: Watch needs a guard before it that has admitted a user", errMisuse))
		return ended, func() {}
	}
	return a.strategyOf(id.by, id.tokens.valid).Watch(ctx, id.tokens.valid, id.session.SessionInfo)
}
