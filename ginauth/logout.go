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
	// The log-out goes on if the client goes away.
	id.client.Context = context.WithoutCancel(id.client.Context)
	ctx := id.reading
	err := a.identify(id, r)
	switch {
	case err == nil && a.forged(id.by, r):
		err = ErrCrossOrigin
	case err == nil:
		if err = a.end(ctx, id); err == nil {
			id.by.clear(w)
			return nil
		}
	case errors.Is(err, strategy.ErrInvalidToken) || errors.Is(err, ErrNoCredentials):
		if err = a.forget(ctx, w, r, err); err == errSeveralUsers {
			return nil // all their sessions have ended
		}
	}
	a.denied(ctx, id.info(), err)
	return err
}

// end ends the session by its ID, because a concurrent request may have rotated its token,
// and the sessions of the other tokens that came with it.
func (a *Auth[U]) end(ctx context.Context, id *identity[U]) error {
	err := a.strategyOf(id.by, id.tokens.valid).Of(id.session.User).Destroy(ctx, id.session.ID)
	if err != nil && !errors.Is(err, strategy.ErrSessionNotFound) {
		return expected(err)
	}
	for _, token := range id.tokens.sent.list() {
		if token == id.tokens.valid {
			continue
		}
		if err := a.strategyOf(id.by, token).DestroyToken(ctx, token); err != nil {
			return expected(err)
		}
	}
	return nil
}

// forget cleans up after a log-out without a valid token, and returns invalid. It
// destroys the tokens all the same: a token may be unknown because an earlier delete was
// not acknowledged by a majority, and this delete waits for that. Then it clears the
// cookie, unless the database fails. It does nothing for a page of another origin.
func (a *Auth[U]) forget(ctx context.Context, w http.ResponseWriter, r *http.Request, invalid error) error {
	for _, t := range a.cfg.transports {
		if sent, _ := t.carried(r, a.cfg.wellFormed); sent.n > 0 && a.forged(t, r) {
			return ErrCrossOrigin
		}
	}
	for _, t := range a.cfg.transports {
		sent, _ := t.carried(r, a.cfg.wellFormed)
		for _, token := range sent.list() {
			if err := a.strategyOf(t, token).DestroyToken(ctx, token); err != nil {
				return expected(err)
			}
		}
	}
	for _, t := range a.cfg.transports {
		if sent, _ := t.carried(r, a.cfg.wellFormed); sent.n > 0 {
			t.clear(w)
		}
	}
	return invalid
}
