package ginauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/internal/reported"
	"github.com/latchkey-go/latchkey/strategy"
)

// RequireUser returns a guard for a route or a group of routes: it admits requests with a
// valid token of an active user who passes all checks, and answers all others. Handlers
// behind it call [Auth.CurrentUser]. Stacked guards read the token once.
//
// An unsafe request, or a WebSocket handshake, that a cookie authenticates must come from the
// application's own origin or a trusted one; see [Cookie] and [InsecureAnyWebSocketOrigin].
//
// The answer gets a Vary header with what the guard looked at (Authorization, Cookie, Origin and
// Sec-Fetch-Site), and "Cache-Control: private, no-store" unless one is set before the guard or
// by the handler. Handlers add to Vary; they should not replace it.
//
// The guard sets the context of *c.Request in place. Do not share the request with another
// goroutine before the guard, and do not send one *http.Request through it twice in a test.
func (a *Auth[U]) RequireUser(checks ...Check) gin.HandlerFunc {
	return func(c *gin.Context) {
		id := a.identityOf(c)
		defer id.discard()
		err := a.admit(id, c.Request, checks)
		a.keepPrivate(c.Writer, c.Request, id)
		if err != nil {
			a.reject(c, id, err)
			return
		}
		a.boundIgnoredBody(c.Writer, c.Request)
	}
}

// OptionalUser returns a guard that admits every request: with its user if its token is
// valid and the user passes all checks, else without one. If the strategy fails, it
// answers 503, because it cannot tell which. A user admitted by an earlier guard stays. It sets
// the same headers as [Auth.RequireUser], also without a user.
func (a *Auth[U]) OptionalUser(checks ...Check) gin.HandlerFunc {
	return func(c *gin.Context) {
		id := a.identityOf(c)
		defer id.discard()
		err := a.admit(id, c.Request, checks)
		a.keepPrivate(c.Writer, c.Request, id)
		if err != nil && status(err).code == http.StatusServiceUnavailable {
			a.Refuse(c, err)
			return
		}
		a.boundIgnoredBody(c.Writer, c.Request)
	}
}

// reject answers a request that a guard does not admit.
func (a *Auth[U]) reject(c *gin.Context, id *identity[U], err error) {
	a.denied(id, id.info(), err)
	a.Refuse(c, err)
}

// identityOf returns the identity that an earlier guard attached to the request, or a new
// one.
func (a *Auth[U]) identityOf(c *gin.Context) *identity[U] {
	if id := a.identity(c.Request); id != nil {
		return id
	}
	return a.newIdentity(c.Request.Context(), c)
}

// admit identifies the request, checks the session and attaches the identity to the
// request.
func (a *Auth[U]) admit(id *identity[U], r *http.Request, checks []Check) error {
	known := id.session != nil
	if !known {
		if err := a.identify(id, r); err != nil {
			return err
		}
	}
	// Also for a known identity: the method may have changed since the last guard.
	if a.forged(id.by, r) && !(isWebSocket(r) && slices.ContainsFunc(checks, func(check Check) bool { return check.anyOrigin })) {
		return ErrCrossOrigin
	}
	if id.session.Scoped() && !slices.ContainsFunc(checks, func(check Check) bool { return check.scoped }) {
		return &scopeError{}
	}
	var ctx context.Context
	if len(checks) > 0 {
		reading := id.reading
		if known { // the reading of the guard before has ended
			reading = a.bounded(&id.client)
			defer reading.end()
		}
		ctx = &checking{reading, id}
	}
	for _, check := range checks {
		if check.pass == nil {
			return a.checkFailed(id, errors.New("the zero Check"))
		}
		s := subject{user: id.session.User, info: &id.session.SessionInfo, now: a.cfg.Now(), session: id.session}
		if err := check.pass(ctx, s); err != nil {
			if reason(err) == "" {
				err = a.checkFailed(id, err)
			}
			return err
		}
	}
	if !known {
		id.attach(r)
	}
	return nil
}

// checking is the context of a guard's checks: bounded in time, with the session.
type checking struct {
	*bound
	id interface{ own(key any) any }
}

// Value implements context.Context.
func (c *checking) Value(key any) any {
	if own := c.id.own(key); own != nil {
		return own
	}
	return c.bound.Value(key)
}

// checkFailed reports a check that could not decide.
func (a *Auth[U]) checkFailed(id *identity[U], err error) error {
	err = fmt.Errorf("ginauth: check the user: %w", cause(err))
	a.failed(id, id.info(), err)
	return &unavailable{reported.Mark(err)}
}

// identify reads the tokens that a request carries until one is valid. If none is, it
// returns the gravest of the reasons.
func (a *Auth[U]) identify(id *identity[U], r *http.Request) error {
	why := ErrNoCredentials
	for _, t := range a.cfg.transports {
		sent, err := t.carried(r, a.cfg.wellFormed)
		if err == nil && (sent.n == 0 || sent.values[0] == "") {
			continue
		}
		if err == nil {
			if err = a.read(id, t, sent); err == nil {
				return nil
			}
		}
		if err = expected(err, errSeveralUsers, strategy.ErrInvalidToken, errBadRequest); errors.Is(err, errUnavailable) {
			return err
		}
		if why != errSeveralUsers && !errors.Is(why, errBadRequest) {
			why = err
		}
	}
	return why
}

// read reads what a request carries by one transport. The first valid token wins. Valid
// tokens of different users contradict each other: one was planted, for example by a
// subdomain, and it is unknown which.
func (a *Auth[U]) read(id *identity[U], t transport, sent carried) error {
	var valid *strategy.Session[U]
	var why error
	var token string
	for _, s := range sent.list() {
		session, err := a.strategyOf(t, s).ReadToken(id.reading, s)
		switch {
		case errors.Is(err, strategy.ErrInvalidToken):
			why = err
		case err != nil:
			return err
		case valid == nil:
			valid, token = session, s
		case session.UserID != valid.UserID:
			return errSeveralUsers
		}
	}
	if valid == nil {
		return why
	}
	id.session, id.by, *id.tokens = valid, t, tokens{sent, token}
	return nil
}

// forged reports whether a page of another origin may have made a browser send this unsafe
// request, or this WebSocket handshake, with the transport's token.
func (a *Auth[U]) forged(t transport, r *http.Request) bool {
	if !t.ambient() || !checksOrigin(r) {
		return false
	}
	if isSafe(r) {
		// CrossOriginProtection accepts every safe method.
		r = &http.Request{Method: http.MethodPost, URL: r.URL, Host: r.Host, Header: r.Header}
	}
	return a.cfg.origins.Check(r) != nil
}

// checksOrigin reports whether a guard looks at the origin of a request whose token came in a
// cookie.
func checksOrigin(r *http.Request) bool { return !isSafe(r) || isWebSocket(r) }

// isSafe reports whether the method of a request is safe (RFC 9110 §9.2.1).
func isSafe(r *http.Request) bool {
	return r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions
}

// isWebSocket reports whether a request asks for a WebSocket (RFC 6455 §4.1). It matches more
// than WebSocket libraries accept.
func isWebSocket(r *http.Request) bool {
	return slices.ContainsFunc(r.Header["Upgrade"], func(value string) bool {
		return strings.Contains(strings.ToLower(value), "websocket")
	})
}

// CurrentUser returns the user of a request that a guard admitted. ok is false without
// one, as behind [Auth.OptionalUser].
func (a *Auth[U]) CurrentUser(c *gin.Context) (user U, ok bool) {
	if c.Request == nil {
		return user, false
	}
	return strategy.UserFromContext[U](c.Request.Context())
}

// CurrentSession returns the session of a request that a guard admitted, like
// [Auth.CurrentUser]. Code without a gin.Context finds both in the request's context,
// with strategy.SessionFromContext and strategy.UserFromContext.
func (a *Auth[U]) CurrentSession(c *gin.Context) (session strategy.Session[U], ok bool) {
	if c.Request == nil {
		return session, false
	}
	return strategy.SessionFromContext[U](c.Request.Context())
}
