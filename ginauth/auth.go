package ginauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/internal/ctxkey"
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

	// OnUnauthorized answers a request that a guard turns away with 401, in the place
	// of the JSON of the contract: for pages, which go to a login page instead. The
	// status is set to 401 already, and no further handler runs. err wraps
	// [ErrNoCredentials], strategy.ErrInvalidToken, or [ErrNotFresh] where the
	// password has to be given again. nil means the contract's answer. What a guard
	// turns away with another status (403, 503) it answers itself. The guards of the
	// plugin's own routes, such as sessions, use it too.
	OnUnauthorized func(c *gin.Context, err error)

	// BodyTimeout bounds how long the body of a request to the routes of the plugin
	// may take, and of one that a guard turns away, where http.Server.ReadTimeout does
	// not: 408 is the answer to a slower one that has to be read. Default 10 seconds.
	BodyTimeout time.Duration

	// OmitUserAgent and OmitClientAddr keep the client's user agent, and its
	// address by Gin's rules for trusted proxies, out of the session. Default
	// false: users see them in the list of their sessions. Events name the address
	// either way.
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
	sessions   sessionReader[U]           // likewise
	tokens     strategy.TokenReader       // likewise
	login      Authenticator[U]
	transports []transport
	realm      string              // of the bearer transport; "" where there is none
	challenges map[string][]string // of a flood, by their params
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
	if cfg.BodyTimeout < 0 {
		return nil, fmt.Errorf("ginauth: Config.BodyTimeout is negative: %v", cfg.BodyTimeout)
	}
	if cfg.BodyTimeout == 0 {
		cfg.BodyTimeout = 10 * time.Second
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
	a.sessions = readerOf(s)
	a.tokens, _ = s.(strategy.TokenReader)
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
	a.challenges = map[string][]string{"": a.challenge(""), invalidToken: a.challenge(invalidToken), invalidRequest: a.challenge(invalidRequest)}
	return a, nil
}

// sessionReader is strategy.Database: it reads a token without copying what it knows.
type sessionReader[U any] interface {
	ReadSession(ctx context.Context, token string) (*strategy.Session[U], error)
}

// readerOf returns the strategy itself if it is a sessionReader; nil for a type that
// embeds one: its ReadToken may be its own, and is the one to ask.
func readerOf[U any](s strategy.Strategy[U]) sessionReader[U] {
	own := reflect.TypeFor[strategy.Config]().PkgPath()
	if t := reflect.TypeOf(s); t.Kind() != reflect.Pointer || t.Elem().PkgPath() != own {
		return nil
	}
	reader, _ := s.(sessionReader[U])
	return reader
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
	// Before the body is read: another site has nothing to say here.
	if err := a.sameOrigin(c); err != nil {
		a.refuse(c, err)
		return
	}
	form, err := a.readLogin(c)
	if err != nil {
		a.refuse(c, err)
		return
	}
	if _, err := a.logIn(c, form.username, form.password, form.remember); err != nil {
		a.refuse(c, err)
	}
}

// LoginWithPassword does what the login route does, but leaves the answer to a
// refusal to the caller: for an application's own login page. On success it has
// answered as the login route does; with a cookie, the handler may go on to
// redirect.
//
// The error wraps account.ErrBadCredentials, account.ErrTooManyAttempts (it is a
// *account.TooManyAttemptsError then), [ErrCrossOrigin], [ErrNotVerified] or
// strategy.ErrTooManySessions; any other is a failure, to be answered with 503.
// New must have been given an Authenticator.
func (a *Auth[U]) LoginWithPassword(c *gin.Context, username, password string, remember bool) (strategy.Session[U], error) {
	if a.login == nil {
		return strategy.Session[U]{}, errors.New("ginauth: LoginWithPassword wants an Authenticator")
	}
	if err := a.sameOrigin(c); err != nil {
		return strategy.Session[U]{}, err
	}
	return a.logIn(c, username, password, remember)
}

// sameOrigin refuses a login that another site makes its visitors' browsers send,
// to log them in as somebody else (login CSRF).
func (a *Auth[U]) sameOrigin(c *gin.Context) error {
	if !a.forged(a.transports[0], c.Request) {
		return nil
	}
	a.emit(a.context(c), strategy.Event{Kind: strategy.EventLoginDenied, Reason: strategy.ReasonCrossOrigin})
	return ErrCrossOrigin
}

// logIn begins a session for whoever has this name and password.
func (a *Auth[U]) logIn(c *gin.Context, username, password string, remember bool) (strategy.Session[U], error) {
	ctx := a.context(c)
	at := a.cfg.Now() // before the password is checked: see strategy.WithAuthenticatedAt
	user, err := a.login.Authenticate(ctx, username, password)
	if err != nil {
		return strategy.Session[U]{}, passwordRefused(err)
	}
	if a.cfg.RequireVerified && !user.IsVerified() {
		a.emit(ctx, strategy.Event{Kind: strategy.EventLoginDenied, UserID: a.userID(user), Reason: strategy.ReasonUserUnverified})
		return strategy.Session[U]{}, ErrNotVerified
	}
	return a.start(c, user, remember, strategy.WithAuthenticatedAt(at))
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
	session, err := a.start(c, user, false, opts...)
	if err != nil {
		a.refuse(c, err)
	}
	return session, cause(err)
}

// start begins a session and answers with its token, unless there is an error.
func (a *Auth[U]) start(c *gin.Context, user U, remember bool, opts ...strategy.TokenOption) (strategy.Session[U], error) {
	noStore(c)
	ctx := a.context(c)
	secret, session, err := a.strategy.WriteToken(ctx, user, a.options(ctx, c.Request, remember, opts)...)
	if err != nil {
		denied := strategy.Event{Kind: strategy.EventLoginDenied, UserID: a.userID(user)}
		switch {
		case errors.Is(err, strategy.ErrUserInactive):
			denied.Reason = strategy.ReasonUserInactive
			a.emit(ctx, denied)
		case errors.Is(err, strategy.ErrTooManySessions):
			denied.Reason = strategy.ReasonOverLimit
			a.emit(ctx, denied)
		}
		return strategy.Session[U]{}, expected(err, strategy.ErrUserInactive, strategy.ErrTooManySessions)
	}
	a.deliver(c, a.transports[0], secret, session, session.CreatedAt)
	return session, nil
}

// options are those of a new session's token; the caller's come last and win.
func (a *Auth[U]) options(ctx context.Context, r *http.Request, remember bool, opts []strategy.TokenOption) (all []strategy.TokenOption) {
	if a.cfg.BriefLifetime > 0 && !remember {
		all = append(all, strategy.WithLifetime(a.cfg.BriefLifetime))
	}
	// The session of the browser's cookie ends with this one's beginning. One in a
	// header does not: a script may send its token with every request.
	for _, t := range a.transports {
		if t.ambient() && !a.forged(t, r) {
			all = append(all, strategy.Replacing(t.presented(r)...))
		}
	}
	if !a.cfg.OmitUserAgent {
		all = append(all, strategy.WithUserAgent(r.UserAgent()))
	}
	if !a.cfg.OmitClientAddr {
		all = append(all, strategy.WithClientAddr(strategy.ClientAddr(ctx)))
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
	if err := a.Logout(c); err != nil {
		a.refuse(c, err)
	}
}

// Logout does what the logout route does, but leaves the answer to an error to the
// caller: for an application's own page. On success the status is set to 204 and
// the cookie is cleared; the handler may go on to redirect.
//
// The error wraps [ErrNoCredentials] or strategy.ErrInvalidToken where there was
// no live session to end (the cookie is cleared then too), or [ErrCrossOrigin];
// any other is a failure: the session may still live, and 503 is the answer.
func (a *Auth[U]) Logout(c *gin.Context) error {
	noStore(c)
	a.boundBody(c)
	// A log-out goes through even where the client has gone: the store bounds it.
	id := a.visitor(c)
	defer id.leave()
	id.client.Context = context.WithoutCancel(id.client.Context)
	var ctx context.Context = &id.client
	err := a.identify(id, c.Request, true)
	if err == nil {
		if err = a.end(ctx, id.session, id.by); err == nil {
			id.by.transport.clear(c)
			c.Status(http.StatusNoContent)
			return nil
		}
		err = expected(err)
	} else if errors.Is(err, strategy.ErrInvalidToken) || errors.Is(err, ErrNoCredentials) {
		err = a.forget(ctx, c, err)
	}
	a.denied(ctx, id.info(), err)
	return err
}

// end ends a session: by its ID, because a request that runs beside this one may
// have given it another token by now.
func (a *Auth[U]) end(ctx context.Context, session *strategy.Session[U], by credential) error {
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
		return expected(err)
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
		if id, err := admit(a, c, true, checks); err != nil {
			a.turnAway(c, id, err)
		}
	}
}

// RequireToken is RequireUser by the token alone: the user is not read, and only
// the user's ID is known, to strategy.UserIDFromContext and
// strategy.SessionInfoFromContext. It saves a read of the database.
//
// A user who is gone or inactive, or whose older tokens are no longer valid
// (account.Manager's Deactivate, RevokeTokens and ChangePassword), is let through
// until their tokens are revoked: call the strategy's DestroyAll beside those. The
// strategy must be a strategy.TokenReader: all requests are answered with 503
// otherwise.
func (a *Auth[U]) RequireToken(checks ...TokenCheck) gin.HandlerFunc {
	return func(c *gin.Context) {
		if id, err := admit(a, c, false, checks); err != nil {
			a.turnAway(c, id, err)
		}
	}
}

// turnAway answers a request that may not pass.
func (a *Auth[U]) turnAway(c *gin.Context, id *identity[U], err error) {
	a.denied(id, id.info(), err)
	id.leave()
	if a.cfg.OnUnauthorized != nil && status(err).code == http.StatusUnauthorized {
		a.boundBody(c)
		c.Abort()
		c.Status(http.StatusUnauthorized) // where the hook sets none
		a.cfg.OnUnauthorized(c, err)
		return
	}
	a.refuse(c, err)
}

// OptionalUser lets every request through, with the user of its token if there
// is one who is active and passes all checks. Only a failing database stops it:
// then nobody knows who is asking. It takes no user back whom a guard before it
// let through.
func (a *Auth[U]) OptionalUser(checks ...Check[U]) gin.HandlerFunc {
	return func(c *gin.Context) {
		id, err := admit(a, c, true, checks)
		if err == nil {
			return
		}
		id.leave()
		if status(err).code == http.StatusServiceUnavailable {
			a.refuse(c, err)
		}
	}
}

// passer is a Check or a TokenCheck.
type passer interface {
	pass(ctx context.Context, s subject) error
}

// admit finds the request's session, with its user where one is asked for, checks
// it, and puts it into the request's context. It returns what it knows also where
// the session may not pass.
func admit[U User, C passer](a *Auth[U], c *gin.Context, withUser bool, checks []C) (*identity[U], error) {
	id := a.identity(c)
	first := id == nil || withUser && !id.hasUser
	if first {
		id = a.visitor(c)
		if err := a.identify(id, c.Request, withUser); err != nil {
			return id, err
		}
	}
	if id.session.Scoped() && !takesScopes(checks) {
		return id, &scopeError{}
	}
	for _, check := range checks {
		if any(check) == nil {
			return id, a.verdict(id, errors.New("a check is nil"))
		}
		s := subject{info: &id.session.SessionInfo, now: a.cfg.Now()}
		if withUser {
			s.user, s.session = id.session.User, id.session
		}
		if err := check.pass(id, s); err != nil {
			return id, a.verdict(id, err)
		}
	}
	if first {
		id.enter(c)
	}
	return id, nil
}

// verdict returns the reason of a check that a session does not pass, or reports
// that the check failed.
func (a *Auth[U]) verdict(id *identity[U], err error) error {
	if reason(err) != "" {
		return err
	}
	err = fmt.Errorf("ginauth: check the user: %w", err)
	a.emit(id, strategy.Event{Kind: strategy.EventStoreFailed, UserID: id.session.UserID, SessionID: id.session.ID, Err: err})
	return errUnavailable
}

// identify reads the tokens that a request carries until one yields a user, or a
// session where no user is asked for. Where none does, it returns the gravest of
// the reasons.
func (a *Auth[U]) identify(id *identity[U], r *http.Request, withUser bool) error {
	why := ErrNoCredentials
	for _, t := range a.transports {
		token, err := t.token(r)
		if err == nil && token == "" {
			continue
		}
		if err == nil {
			if err = a.read(id, token, withUser); err == nil {
				if a.forged(t, r) {
					return ErrCrossOrigin
				}
				id.by = credential{token, t}
				return nil
			}
		}
		if err = expected(err, strategy.ErrInvalidToken, errBadRequest); errors.Is(err, errUnavailable) {
			return err
		}
		if !errors.Is(why, errBadRequest) {
			why = err
		}
	}
	return why
}

// read asks the strategy about a token.
func (a *Auth[U]) read(id *identity[U], token string, withUser bool) (err error) {
	if withUser && a.sessions != nil {
		id.session, err = a.sessions.ReadSession(&id.client, token)
	} else {
		id.session, err = a.readCopy(&id.client, token, withUser)
	}
	id.hasUser = err == nil && withUser
	return err
}

// readCopy is read by what every strategy has.
func (a *Auth[U]) readCopy(ctx context.Context, token string, withUser bool) (*strategy.Session[U], error) {
	var s strategy.Session[U]
	var err error
	switch {
	case withUser:
		s, err = a.strategy.ReadToken(ctx, token)
	case a.tokens != nil:
		s.SessionInfo, err = a.tokens.ReadTokenInfo(ctx, token)
	default:
		err = errors.New("ginauth: RequireToken wants a strategy that is a strategy.TokenReader")
	}
	return &s, err
}

// forged reports whether a page of another origin may have made a browser send
// this request, with an unsafe method and what the transport takes for a token.
func (a *Auth[U]) forged(t transport, r *http.Request) bool {
	return t.ambient() && a.origins.Check(r) != nil
}

// CurrentUser returns the user whom a guard let through. ok is false where none
// did: behind [Auth.OptionalUser] that is a visitor.
func (a *Auth[U]) CurrentUser(c *gin.Context) (user U, ok bool) {
	if c.Request == nil {
		return user, false
	}
	return strategy.UserFromContext[U](c.Request.Context())
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
func (a *Auth[U]) denied(ctx context.Context, session strategy.SessionInfo, err error) {
	if a.cfg.OnEvent == nil {
		return
	}
	if why := reason(err); why != "" {
		a.emit(ctx, strategy.Event{Kind: strategy.EventAccessDenied, UserID: session.UserID, SessionID: session.ID, Reason: why})
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
	case errors.Is(err, ErrCrossOrigin):
		return strategy.ReasonCrossOrigin
	case errors.Is(err, ErrNoCredentials):
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
	e.Time, e.ClientAddr = a.cfg.Now().UTC(), strategy.ClientAddr(ctx)
	a.cfg.OnEvent(ctx, e)
}

// context returns the context of a request with the address of its client: what the
// context knows already, or by Gin's rules for trusted proxies, never what a header
// says that anybody can set.
func (a *Auth[U]) context(c *gin.Context) context.Context {
	client := ctxkey.ClientOf(c.Request.Context(), c)
	client.Know()
	return &client
}

// userID returns the ID of a user, for events; nil where the strategy does not
// tell.
func (a *Auth[U]) userID(user U) any {
	if s, ok := a.strategy.(interface{ UserID(U) any }); ok {
		return s.UserID(user)
	}
	return nil
}

var (
	_ User                               = account.User[uuid.UUID]{}
	_ Authenticator[account.User[int64]] = (*account.Manager[account.User[int64], int64])(nil)
)
