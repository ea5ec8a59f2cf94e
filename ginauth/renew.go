package ginauth

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/internal/deadline"
	"github.com/latchkey-go/latchkey/strategy"
)

func (a *Auth[U]) handleReauthenticate(w http.ResponseWriter, r *http.Request) error {
	f, err := readForm(w, r)
	if err != nil {
		return err
	}
	password := f.required("password")
	if err := f.done(); err != nil {
		return err
	}
	issued, err := a.reauthenticate(r.Context(), w, r, password)
	if err != nil {
		return err
	}
	a.answer(w, issued)
	return nil
}

// Reauthenticate checks the password of the current user, makes the session a fresh login
// with a new token and, if the request's token came in a cookie, sets the new cookie. It
// follows the request's transport, not that of logins. It writes no status and no body:
// for an application's own page, behind a guard. See [Fresh].
//
// The error wraps account.ErrBadCredentials, account.ErrTooManyAttempts (and is an
// *account.TooManyAttemptsError then), or strategy.ErrInvalidToken if the session ended
// meanwhile. Any other error is a failure; answer it with 503. [Auth.Refuse] answers all
// of them. New must have been given an Authenticator.
func (a *Auth[U]) Reauthenticate(c *gin.Context, password string) (Issued[U], error) {
	ctx := a.bounded(c.Request.Context())
	defer ctx.end()
	return a.reauthenticate(ctx, c.Writer, c.Request, password)
}

func (a *Auth[U]) reauthenticate(ctx context.Context, w http.ResponseWriter, r *http.Request, password string) (Issued[U], error) {
	noStore(w)
	current := a.identity(r)
	if a.login == nil || current == nil {
		return Issued[U]{}, fmt.Errorf("%w: Reauthenticate needs a guard before it, and an Authenticator", errMisuse)
	}
	at := a.cfg.Now() // before the password is checked: see strategy.WithReauthentication
	user, err := a.login.Reauthenticate(ctx, current.session.User, password)
	if err != nil {
		return Issued[U]{}, passwordRefused(err)
	}
	return a.rotate(ctx, w, r, current, user, at)
}

// Renew keeps the session of a user who has just changed their password: it gives the
// session a new token, ends all other sessions of the user and, if the request's token
// came in a cookie, sets the new cookie. It follows the request's transport, not that of
// logins. It writes no status and no body. Call it behind a guard, with the user that the
// change returned.
//
// The change has invalidated all tokens: the session goes on as a fresh login, and the
// rows of the others are only cleaned up, so a failure to do that is not an error. The
// error wraps strategy.ErrInvalidToken if the session ended meanwhile. Any other error is
// a failure; answer it with 503. [Auth.Refuse] answers both.
func (a *Auth[U]) Renew(c *gin.Context, user U) (Issued[U], error) {
	w, r := c.Writer, c.Request
	noStore(w)
	current := a.identity(r)
	if current == nil {
		return Issued[U]{}, fmt.Errorf("%w: Renew needs a guard before it", errMisuse)
	}
	ctx := a.bounded(r.Context())
	defer ctx.end()
	return a.renew(ctx, w, r, current, user)
}

func (a *Auth[U]) renew(ctx context.Context, w http.ResponseWriter, r *http.Request, current *identity[U], user U) (Issued[U], error) {
	issued, err := a.rotate(ctx, w, r, current, user, a.cfg.Now())
	if err != nil {
		return Issued[U]{}, err
	}
	// The strategy reports a failure.
	free, cancel := deadline.Uncancelled(ctx)
	defer cancel()
	_ = a.strategy.Of(user).DestroyAll(free, issued.Session.ID)
	return issued, nil
}

// rotate gives the session a new token after its user was authenticated again.
func (a *Auth[U]) rotate(ctx context.Context, w http.ResponseWriter, r *http.Request, current *identity[U], user U, at time.Time) (Issued[U], error) {
	// The old token is invalid once the database has rotated it: finish, even if the
	// client goes away.
	ctx, cancel := deadline.Uncancelled(ctx)
	defer cancel()
	secret, session, err := a.strategy.RotateToken(ctx, current.tokens.valid, strategy.WithReauthentication(user, at))
	if err != nil {
		return Issued[U]{}, expected(err, strategy.ErrInvalidToken)
	}
	// Concurrent readers of the old identity keep it.
	next := a.newIdentity(r.Context(), nil)
	next.session, next.by, *next.tokens = &session, current.by, tokens{current.tokens.sent, secret.Reveal()}
	next.attach(r)
	return a.issue(w, next.by, secret, session, a.cfg.Now()), nil
}
