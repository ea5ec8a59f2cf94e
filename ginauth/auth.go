package ginauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// User is what the plugin must know of the application's user. Every
// strategy.User is one.
type User interface {
	// IsActive reports whether the user may log in and use tokens.
	IsActive() bool
	// IsVerified is what [Verified] asks for.
	IsVerified() bool
	// IsSuperuser is what [Superuser] asks for.
	IsSuperuser() bool
}

// Authenticator finds out who is logging in. account.Manager is one.
type Authenticator[U any] interface {
	// Authenticate returns the user with this name and password. It must return
	// an error wrapping account.ErrBadCredentials for an unknown user, a wrong
	// password and an inactive user, in equal time; any other error is a failure
	// to find out, and answered as one. It must be safe for concurrent use.
	Authenticate(ctx context.Context, username, password string) (U, error)
}

// Config configures an [Auth]. The zero value is safe: bearer tokens.
type Config struct {
	// Transports are the ways by which tokens come, in the order in which guards
	// try them; the first that yields a user wins. Logins are answered by the
	// first of them. Default: Bearer{} alone.
	//
	// To let one application log in both ways, make two Auths over the same
	// strategy, each with its own transport first, and call Routes on both.
	Transports []Transport

	// RequireVerified turns users away at login who are not verified. Default
	// false. Routes can ask for it one by one instead, with [Verified].
	RequireVerified bool

	// BriefLifetime is the lifetime of a login that does not ask to be remembered
	// (remember in its body); its cookie is one that browsers forget when they
	// close. A login that asks has the strategy's lifetime, which is longer. 0
	// means that all have that, and that remember is not heeded.
	BriefLifetime time.Duration

	// TrustedOrigins are other origins (scheme://host[:port]) whose pages may send
	// unsafe requests that a cookie authenticates; see http.CrossOriginProtection.
	// Default none. Add the application's own where a proxy changes the Host that
	// requests name.
	TrustedOrigins []string

	// OmitUserAgent and OmitClientAddr keep the client's user agent, and its
	// address by Gin's rules for trusted proxies, out of the session. Default
	// false: users see them in the list of their sessions.
	OmitUserAgent, OmitClientAddr bool

	// Now is the clock, for [Fresh] and for events; give the strategy the same.
	// Default [time.Now].
	Now func() time.Time

	// OnEvent is told of what only the plugin sees: requests that a guard turned
	// away without asking the strategy, or although their token was good. See
	// strategy.Config.OnEvent. nil means that nobody listens.
	OnEvent func(context.Context, strategy.Event)
}

// Auth is the plugin. Make one with [New]. It is safe for concurrent use.
type Auth[U User] struct {
	strategy   strategy.Strategy[U]
	manager    strategy.SessionManager[U] // nil where the strategy is none
	login      Authenticator[U]
	transports []transport
	realm      string // of the bearer transport; "" where there is none
	origins    *http.CrossOriginProtection
	cfg        Config
}

// New returns the plugin over a strategy. login checks the passwords of the
// login route; nil leaves that route out, for an application whose users log in
// by other means (see [Auth.Login]). It returns an error that names the field
// where the configuration is wrong.
func New[U User](s strategy.Strategy[U], login Authenticator[U], cfg Config) (*Auth[U], error) {
	if s == nil {
		return nil, errors.New("ginauth: strategy is nil")
	}
	if len(cfg.Transports) == 0 {
		cfg.Transports = []Transport{Bearer{}}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.BriefLifetime < 0 {
		return nil, fmt.Errorf("ginauth: Config.BriefLifetime is negative: %v", cfg.BriefLifetime)
	}
	if l, ok := s.(interface{ Lifetime() time.Duration }); ok && l.Lifetime() > 0 && cfg.BriefLifetime >= l.Lifetime() {
		return nil, fmt.Errorf("ginauth: Config.BriefLifetime is %v, want less than the strategy's lifetime of %v", cfg.BriefLifetime, l.Lifetime())
	}
	a := &Auth[U]{strategy: s, login: login, origins: http.NewCrossOriginProtection(), cfg: cfg}
	for _, origin := range cfg.TrustedOrigins {
		if err := a.origins.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("ginauth: Config.TrustedOrigins: %w", err)
		}
	}
	a.manager, _ = s.(strategy.SessionManager[U])
	names := make(map[string]bool)
	for i, t := range cfg.Transports {
		if t == nil {
			return nil, fmt.Errorf("ginauth: Config.Transports[%d] is nil", i)
		}
		ready, err := t.prepare()
		if err != nil {
			return nil, fmt.Errorf("ginauth: Config.Transports[%d]: %w", i, err)
		}
		if names[ready.String()] {
			return nil, fmt.Errorf("ginauth: Config.Transports[%d]: %v is there already", i, ready)
		}
		names[ready.String()] = true
		if b, ok := ready.(bearer); ok {
			a.realm = b.realm
		}
		a.transports = append(a.transports, ready)
	}
	return a, nil
}

// Routes adds the routes of the plugin to a router or a group of routes, whose
// path is their prefix:
//
//	POST   login
//	POST   logout
//	GET    sessions         those of the user
//	DELETE sessions/{id}
//	POST   logout-all
//	POST   reauthenticate   the password again
//
// login is there if New was given an Authenticator, reauthenticate if that is a
// [Reauthenticator] too, and all from sessions on if the strategy is a
// strategy.SessionManager.
func (a *Auth[U]) Routes(r gin.IRouter) {
	if a.login != nil {
		r.POST("/login", noStore, a.handleLogin)
	}
	r.POST("/logout", noStore, a.handleLogout)
	if a.manager != nil {
		a.sessionRoutes(r)
	}
}

// noStore keeps answers of the auth routes out of every cache (RFC 6749 §5.1).
func noStore(c *gin.Context) {
	c.Header("Cache-Control", "no-store")
	c.Header("Pragma", "no-cache")
}

func (a *Auth[U]) handleLogin(c *gin.Context) {
	if a.forged(a.transports[0], c.Request) {
		// Another site must not log its visitors in as somebody else (login CSRF).
		a.emit(c.Request.Context(), strategy.Event{Kind: strategy.EventLoginDenied, Reason: strategy.ReasonCrossOrigin})
		a.refuse(c, errCrossOrigin)
		return
	}
	form, err := readLogin(c.Writer, c.Request)
	if err != nil {
		a.refuse(c, err)
		return
	}
	ctx := c.Request.Context()
	at := a.cfg.Now() // before the password is checked: see strategy.WithAuthenticatedAt
	user, err := a.login.Authenticate(ctx, form.username, form.password)
	if err != nil {
		a.refuse(c, expected(err, account.ErrBadCredentials))
		return
	}
	if a.cfg.RequireVerified && !user.IsVerified() {
		a.emit(ctx, strategy.Event{Kind: strategy.EventLoginDenied, Reason: strategy.ReasonUserUnverified})
		a.refuse(c, errNotVerified)
		return
	}
	_, _ = a.start(c, user, form.remember, strategy.WithAuthenticatedAt(at)) // has answered
}

// Login issues a token for a user whom the application has authenticated by
// other means (an OAuth callback, a passkey), and answers as the login route
// does. It does not ask whether the user is verified. A session whose cookie came
// with the request is ended. Options change the token, for example its name; with
// a BriefLifetime, strategy.WithLifetime makes it longer.
//
// With a cookie, only the header and the status 204 are set: the handler may go
// on to redirect. After an error, Login has answered with it (400 for an
// inactive user, 409 for one with too many sessions, 503), and the handler should
// return.
func (a *Auth[U]) Login(c *gin.Context, user U, opts ...strategy.TokenOption) (strategy.Session[U], error) {
	return a.start(c, user, false, opts...)
}

// start begins a session and answers with its token.
func (a *Auth[U]) start(c *gin.Context, user U, remember bool, opts ...strategy.TokenOption) (strategy.Session[U], error) {
	noStore(c)
	ctx := c.Request.Context()
	secret, session, err := a.strategy.WriteToken(ctx, user, a.options(c, remember, opts)...)
	if err != nil {
		switch {
		case errors.Is(err, strategy.ErrUserInactive):
			a.emit(ctx, strategy.Event{Kind: strategy.EventLoginDenied, Reason: strategy.ReasonUserInactive})
		case errors.Is(err, strategy.ErrTooManySessions):
			a.emit(ctx, strategy.Event{Kind: strategy.EventLoginDenied, Reason: strategy.ReasonOverLimit})
		}
		a.refuse(c, expected(err, strategy.ErrUserInactive, strategy.ErrTooManySessions))
		return strategy.Session[U]{}, err
	}
	a.deliver(c, a.transports[0], secret, session, session.CreatedAt)
	return session, nil
}

// options are those of a new session's token; the caller's come last and win.
func (a *Auth[U]) options(c *gin.Context, remember bool, opts []strategy.TokenOption) (all []strategy.TokenOption) {
	if a.cfg.BriefLifetime > 0 && !remember {
		all = append(all, strategy.WithLifetime(a.cfg.BriefLifetime))
	}
	// The session of the browser's cookie ends with this one's beginning. One in a
	// header does not: a script may send its token with every request.
	for _, t := range a.transports {
		if t.ambient() && !a.forged(t, c.Request) {
			all = append(all, strategy.Replacing(t.presented(c.Request)...))
		}
	}
	if !a.cfg.OmitUserAgent {
		all = append(all, strategy.WithUserAgent(c.Request.UserAgent()))
	}
	if !a.cfg.OmitClientAddr {
		all = append(all, strategy.WithClientAddr(c.ClientIP()))
	}
	return append(all, opts...)
}

// deliver answers with a session's token.
func (a *Auth[U]) deliver(c *gin.Context, t transport, secret strategy.Secret, session strategy.Session[U], now time.Time) {
	d := delivery{token: secret.Reveal()}
	switch {
	case !session.ExpiresAt.IsZero():
		d.remaining = max(session.ExpiresAt.Sub(now), 1) // 0 would say that it does not expire
		d.forget = a.cfg.BriefLifetime > 0 && session.ExpiresAt.Sub(session.CreatedAt) <= a.cfg.BriefLifetime
	case a.cfg.BriefLifetime == 0:
		d.forget = true
	}
	t.deliver(c, d)
}

func (a *Auth[U]) handleLogout(c *gin.Context) {
	// A log-out goes through even where the client has gone: the store bounds it.
	ctx := context.WithoutCancel(c.Request.Context())
	session, by, err := a.identify(c.Request)
	if err == nil {
		if err = a.end(ctx, session, by); err == nil {
			by.transport.clear(c)
			c.Status(http.StatusNoContent)
			return
		}
		err = errUnavailable
	} else if errors.Is(err, strategy.ErrInvalidToken) || errors.Is(err, errNoCredentials) {
		err = a.forget(ctx, c, err)
	}
	a.denied(ctx, strategy.Session[U]{}, err)
	a.refuse(c, err)
}

// end ends a session: by its ID, because a request that runs beside this one may
// have given it another token by now.
func (a *Auth[U]) end(ctx context.Context, session strategy.Session[U], by credential) error {
	if a.manager == nil {
		return a.strategy.DestroyToken(ctx, by.token)
	}
	err := a.manager.Of(session.User).Destroy(ctx, session.ID)
	if errors.Is(err, strategy.ErrSessionNotFound) {
		return nil
	}
	return err
}

// forget ends what a log-out without a token that is good can end. A bad
// token is destroyed all the same: perhaps it is unknown because an earlier
// attempt deleted it without a majority's acknowledgement, and this one waits
// for that. Its cookie is cleared, unless the database fails.
func (a *Auth[U]) forget(ctx context.Context, c *gin.Context, invalid error) error {
	if err := a.destroyPresented(ctx, c.Request); err != nil {
		return errUnavailable
	}
	for _, t := range a.transports {
		if len(t.presented(c.Request)) > 0 {
			t.clear(c)
		}
	}
	return invalid
}

// destroyPresented destroys every token that a request carries. Where one of
// several cookies was planted, nobody can tell which.
func (a *Auth[U]) destroyPresented(ctx context.Context, r *http.Request) error {
	for _, t := range a.transports {
		for _, token := range t.presented(r) {
			if err := a.strategy.DestroyToken(ctx, token); err != nil {
				return err
			}
		}
	}
	return nil
}

// RequireUser guards a route, or a group of routes: the handlers behind it run
// for an active user with a live token who passes all checks, and for nobody
// else. Guards can be stacked: the token is read once.
func (a *Auth[U]) RequireUser(checks ...Check[U]) gin.HandlerFunc {
	return func(c *gin.Context) {
		session, err := a.admit(c, checks)
		if err != nil {
			a.denied(c.Request.Context(), session, err)
			a.refuse(c, err)
		}
	}
}

// OptionalUser lets every request through, with the user of its token if there
// is one who is active and passes all checks. Only a failing database stops it:
// then nobody knows who is asking. It takes no user back whom a guard before it
// let through.
func (a *Auth[U]) OptionalUser(checks ...Check[U]) gin.HandlerFunc {
	return func(c *gin.Context) {
		if _, err := a.admit(c, checks); err != nil && status(err).code == http.StatusServiceUnavailable {
			a.refuse(c, err)
		}
	}
}

// identity is what a guard found out about a request. It is kept with the
// request for the guards that follow, and only for those of the same Auth:
// another one may take other transports.
type identity[U User] struct {
	auth    *Auth[U]
	session strategy.Session[U]
	by      credential
}

type identityKey struct{}

// identity returns what a guard of this Auth found out, or nil.
func (a *Auth[U]) identity(c *gin.Context) *identity[U] {
	v, _ := c.Get(identityKey{})
	known, _ := v.(*identity[U])
	if known == nil || known.auth != a {
		return nil
	}
	return known
}

// admit finds the request's session, checks it, and puts it into the request's
// context. It returns the session also where the session may not pass.
func (a *Auth[U]) admit(c *gin.Context, checks []Check[U]) (strategy.Session[U], error) {
	ctx := c.Request.Context()
	known := a.identity(c)
	first := known == nil
	if first {
		session, by, err := a.identify(c.Request)
		if err != nil {
			return session, err
		}
		known = &identity[U]{a, session, by}
	}
	session := known.session
	if session.Scoped() && !takesScopes(checks) {
		return session, &scopeError{}
	}
	for _, check := range checks {
		if check == nil {
			return session, a.verdict(ctx, session, errors.New("a check is nil"))
		}
		if err := check.pass(ctx, subject{session.User, session.SessionInfo, a.cfg.Now(), session}); err != nil {
			return session, a.verdict(ctx, session, err)
		}
	}
	if first {
		c.Set(identityKey{}, known)
		c.Request = c.Request.WithContext(strategy.ContextWithSession(ctx, session))
	}
	return session, nil
}

// verdict returns the reason of a check that a session does not pass, or reports
// that the check failed.
func (a *Auth[U]) verdict(ctx context.Context, session strategy.Session[U], err error) error {
	if reason(err) != "" {
		return err
	}
	err = fmt.Errorf("ginauth: check the user: %w", err)
	a.emit(ctx, strategy.Event{Kind: strategy.EventStoreFailed, SessionID: session.ID, Err: err})
	return errUnavailable
}

// credential is a token and the way by which it came.
type credential struct {
	token     string
	transport transport
}

// identify reads the tokens that a request carries until one yields a user.
// Where none does, it returns the gravest of the reasons.
func (a *Auth[U]) identify(r *http.Request) (strategy.Session[U], credential, error) {
	why := errNoCredentials
	for _, t := range a.transports {
		token, err := t.token(r)
		if err == nil && token == "" {
			continue
		}
		if err == nil {
			var session strategy.Session[U]
			if session, err = a.strategy.ReadToken(r.Context(), token); err == nil {
				if a.forged(t, r) {
					return session, credential{}, errCrossOrigin
				}
				return session, credential{token, t}, nil
			}
		}
		if err = expected(err, strategy.ErrInvalidToken, errBadRequest); err == errUnavailable {
			return strategy.Session[U]{}, credential{}, err
		}
		if !errors.Is(why, errBadRequest) {
			why = err
		}
	}
	return strategy.Session[U]{}, credential{}, why
}

// forged reports whether a page of another origin may have made a browser send
// this request, with an unsafe method and what the transport takes for a token.
func (a *Auth[U]) forged(t transport, r *http.Request) bool {
	return t.ambient() && a.origins.Check(r) != nil
}

// CurrentUser returns the user whom a guard let through. ok is false where none
// did: behind [Auth.OptionalUser] that is a visitor.
func (a *Auth[U]) CurrentUser(c *gin.Context) (user U, ok bool) {
	s, ok := a.CurrentSession(c)
	return s.User, ok
}

// CurrentSession returns the session of the user whom a guard let through. Code
// below the handlers finds both in the request's context, with
// strategy.SessionFromContext and strategy.UserFromContext.
func (a *Auth[U]) CurrentSession(c *gin.Context) (session strategy.Session[U], ok bool) {
	if c.Request == nil {
		return session, false
	}
	return strategy.SessionFromContext[U](c.Request.Context())
}

// denied reports a request that a guard turned away although the strategy had
// nothing against it, or was not asked. The strategy reports the others itself.
func (a *Auth[U]) denied(ctx context.Context, session strategy.Session[U], err error) {
	if why := reason(err); why != "" {
		a.emit(ctx, strategy.Event{Kind: strategy.EventAccessDenied, SessionID: session.ID, Reason: why})
	}
}

// reason is why a guard, or a check of it, turned a request away; "" for errors
// that are no such verdict.
func reason(err error) strategy.Reason {
	var stale *staleError
	var scope *scopeError
	switch {
	case errors.As(err, &stale):
		return strategy.ReasonNotFresh
	case errors.As(err, &scope):
		return strategy.ReasonScope
	case errors.Is(err, errForbidden):
		return strategy.ReasonForbidden
	case errors.Is(err, errCrossOrigin):
		return strategy.ReasonCrossOrigin
	case errors.Is(err, errNoCredentials):
		return strategy.ReasonNoCredentials
	case errors.Is(err, errBadRequest):
		return strategy.ReasonBadRequest
	}
	return ""
}

func (a *Auth[U]) emit(ctx context.Context, e strategy.Event) {
	if a.cfg.OnEvent == nil {
		return
	}
	e.Time = a.cfg.Now().UTC()
	a.cfg.OnEvent(ctx, e)
}

var (
	_ User                               = account.User[uuid.UUID]{}
	_ Authenticator[account.User[int64]] = (*account.Manager[account.User[int64], int64])(nil)
)
