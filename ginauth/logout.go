package ginauth

import (
	"context"
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/strategy"
)

func (a *Auth[U]) handleLogout(c *gin.Context) {
	if err := a.Logout(c); err != nil {
		a.Refuse(c, err)
		return
	}
	c.Writer.WriteHeader(http.StatusNoContent)
}

// Logout ends the session of the request's token and, with the cookie transport, clears
// its cookie. It writes no status and no body. It needs no guard before it.
//
// The error wraps [ErrNoCredentials] or strategy.ErrInvalidToken if there was no valid
// session to end; the cookie is cleared then too. It wraps [ErrCrossOrigin] if a page of
// another origin sent the request. Any other error is a failure: the session may still be
// valid, and the cookie stays, so that the client can try again. [Auth.Refuse] answers
// all of them.
func (a *Auth[U]) Logout(c *gin.Context) error {
	w, r := c.Writer, c.Request
	noStore(w)
	a.boundBody(w, r)
	id := a.newIdentity(r.Context(), c)
	defer id.discard()
	// The log-out goes on if the client goes away; the store bounds its time.
	id.client.Context = context.WithoutCancel(id.client.Context)
	var ctx context.Context = &id.client
	err := a.identify(id, r)
	switch {
	case err == nil && a.forged(id.by.transport, r):
		err = ErrCrossOrigin
	case err == nil:
		if err = a.end(ctx, id.session); err == nil {
			id.by.transport.clear(w)
			return nil
		}
	case errors.Is(err, strategy.ErrInvalidToken) || errors.Is(err, ErrNoCredentials):
		err = a.forget(ctx, w, r, err)
	}
	a.denied(ctx, id.info(), err)
	return err
}

// end ends a session by its ID: a concurrent request may have rotated its token.
func (a *Auth[U]) end(ctx context.Context, session *strategy.Session[U]) error {
	err := a.strategy.Of(session.User).Destroy(ctx, session.ID)
	if err == nil || errors.Is(err, strategy.ErrSessionNotFound) {
		return nil
	}
	return expected(err)
}

// forget cleans up after a log-out without a valid token, and returns invalid. It
// destroys the tokens all the same: a token may be unknown because an earlier delete was
// not acknowledged by a majority, and this delete waits for that. Then it clears the
// cookie, unless the database fails.
func (a *Auth[U]) forget(ctx context.Context, w http.ResponseWriter, r *http.Request, invalid error) error {
	for _, t := range a.cfg.transports {
		// Several cookies: one was planted, and it is unknown which.
		for _, token := range t.presented(r) {
			if err := a.strategy.DestroyToken(ctx, token); err != nil {
				return expected(err)
			}
		}
	}
	for _, t := range a.cfg.transports {
		if len(t.presented(r)) > 0 {
			t.clear(w)
		}
	}
	return invalid
}
