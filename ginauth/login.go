package ginauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/strategy"
)

// Issued is a session with its new token. With the cookie transport, the response header
// already sets the cookie. With the bearer transport, the handler must send the token to
// the client: with [Auth.Answer], or in a format of its own.
type Issued[U any] struct {
	// Session is the session, with its user.
	Session strategy.Session[U]
	// Token is the access token.
	Token strategy.Secret

	transport transport
	remaining time.Duration   // until the token expires; 0: never
	device    strategy.Secret // the client's new device token; zero for none
}

// Answer writes the contract's answer to a successful login: 200 and the token in JSON with
// the bearer transport, 204 with the cookie transport. It answers 503 if issued is the zero
// value.
func (a *Auth[U]) Answer(c *gin.Context, issued Issued[U]) {
	if issued.transport == nil {
		a.Refuse(c, fmt.Errorf("%w: Answer got the zero Issued", errMisuse))
		return
	}
	a.answer(c.Writer, issued)
}

// AnswersWithCookie reports whether logins are answered with a cookie, so that the answer can also
// be a redirect.
func (a *Auth[U]) AnswersWithCookie() bool { return a.answers.ambient() }

// RequiresVerified returns Config.RequireVerified, for logins by other means, which
// [Auth.Login] does not check.
func (a *Auth[U]) RequiresVerified() bool { return a.cfg.RequireVerified }

func (a *Auth[U]) answer(w http.ResponseWriter, issued Issued[U]) {
	issued.transport.answer(w, issued.Token.Reveal(), issued.remaining, issued.device.Reveal())
}

func (a *Auth[U]) handleLogin(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	// Check the origin before reading the body of a forged request.
	if err := a.sameOrigin(ctx, r); err != nil {
		return err
	}
	form, err := readLogin(w, r)
	if err != nil {
		return err
	}
	issued, err := a.logIn(ctx, w, r, form)
	if err != nil {
		return err
	}
	a.answer(w, issued)
	return nil
}

// LoginWithPassword checks a name and a password, begins a session and, with the cookie
// transport, sets its cookie. It writes no status and no body: for an application's own
// login page. remember matters with Config.BriefLifetime.
//
// The error wraps account.ErrBadCredentials, account.ErrTooManyAttempts (and is an
// *account.TooManyAttemptsError then), [ErrCrossOrigin] or [ErrNotVerified]. Any other
// error is a failure; answer it with 503. [Auth.Refuse] answers all of them. New must
// have been given an Authenticator.
//
// With the cookie transport, a second cookie carries the device token that keeps attackers
// elsewhere from locking the user out; see account.LimiterConfig.
func (a *Auth[U]) LoginWithPassword(c *gin.Context, username, password string, remember bool) (Issued[U], error) {
	noStore(c.Writer)
	if a.login == nil {
		return Issued[U]{}, fmt.Errorf("%w: LoginWithPassword needs an Authenticator", errMisuse)
	}
	a.checkProxy(c)
	ctx := a.bounded(requestContext(c))
	defer ctx.end()
	if err := a.sameOrigin(ctx, c.Request); err != nil {
		return Issued[U]{}, err
	}
	return a.logIn(ctx, c.Writer, c.Request, loginForm{username: username, password: password, remember: remember})
}

// sameOrigin rejects a login that a page of another site sent, which would log the
// browser's user in as somebody else (login CSRF).
func (a *Auth[U]) sameOrigin(ctx context.Context, r *http.Request) error {
	if !a.forged(a.answers, r) {
		return nil
	}
	a.emit(ctx, event.Event{Kind: event.LoginDenied, Reason: event.ReasonCrossOrigin})
	return ErrCrossOrigin
}

// logIn checks a password and begins a session.
func (a *Auth[U]) logIn(ctx context.Context, w http.ResponseWriter, r *http.Request, form loginForm) (Issued[U], error) {
	at := a.cfg.Now() // before the password is checked: see strategy.WithAuthenticatedAt
	presented := a.answers.device(r, form.device)
	user, device, err := a.login.Authenticate(ctx, form.username, form.password, presented)
	if err != nil {
		return Issued[U]{}, passwordRefused(err)
	}
	if a.cfg.RequireVerified && !user.IsVerified() {
		a.emit(ctx, event.Event{Kind: event.LoginDenied, UserID: a.userID(user), Reason: event.ReasonUserUnverified})
		return Issued[U]{}, ErrNotVerified
	}
	issued, err := a.begin(ctx, w, r, user, form.remember, strategy.WithAuthenticatedAt(at))
	if err == nil && device != "" {
		a.answers.deliverDevice(w, device)
		if device != presented {
			issued.device = strategy.NewSecret(device)
		}
	}
	return issued, err
}

// Login begins a session for a user and, with the cookie transport, sets its cookie. It
// writes no status and no body. It is for users whom the application has authenticated by
// other means (an OAuth callback, a passkey), and does not look at Config.RequireVerified.
// If the request carries a session's cookie, that session ends.
//
// Options change the token, for example its name; with Config.BriefLifetime,
// strategy.WithLifetime makes it longer. The error wraps strategy.ErrUserInactive, or
// [ErrCrossOrigin] if a page of another origin may have made the browser send an unsafe
// request; see [Auth.LoginCrossOrigin]. Any other error is a failure; answer it with 503.
// [Auth.Refuse] answers all of them.
func (a *Auth[U]) Login(c *gin.Context, user U, opts ...strategy.TokenOption) (Issued[U], error) {
	ctx := a.bounded(requestContext(c))
	defer ctx.end()
	if err := a.sameOrigin(ctx, c.Request); err != nil {
		noStore(c.Writer)
		return Issued[U]{}, err
	}
	return a.begin(ctx, c.Writer, c.Request, user, false, opts...)
}

// LoginCrossOrigin is [Auth.Login] without the check of the origin: for callbacks that a
// page of an identity provider posts, as OAuth's response_mode=form_post and SAML do. The
// handler must first check by other means, such as OAuth's state, that this browser began
// the login; otherwise other sites can log its user in as somebody else. Callbacks by GET
// do not need it. The session of a cookie that the request carries does not end.
func (a *Auth[U]) LoginCrossOrigin(c *gin.Context, user U, opts ...strategy.TokenOption) (Issued[U], error) {
	ctx := a.bounded(requestContext(c))
	defer ctx.end()
	return a.begin(ctx, c.Writer, c.Request, user, false, opts...)
}

// begin begins a session and issues its token.
func (a *Auth[U]) begin(ctx context.Context, w http.ResponseWriter, r *http.Request, user U, remember bool, opts ...strategy.TokenOption) (Issued[U], error) {
	noStore(w)
	secret, session, err := a.strategy.WriteToken(ctx, user, a.options(ctx, r, remember, opts)...)
	if err != nil {
		if errors.Is(err, strategy.ErrUserInactive) {
			a.emit(ctx, event.Event{Kind: event.LoginDenied, UserID: a.userID(user), Reason: event.ReasonUserInactive})
		}
		return Issued[U]{}, expected(err, strategy.ErrUserInactive)
	}
	return a.issue(w, a.answers, secret, session, session.CreatedAt), nil
}

// options returns the options of a new session. The caller's come last and win.
func (a *Auth[U]) options(ctx context.Context, r *http.Request, remember bool, opts []strategy.TokenOption) (all []strategy.TokenOption) {
	if a.cfg.BriefLifetime > 0 && !remember {
		all = append(all, strategy.WithLifetime(a.cfg.BriefLifetime))
	}
	// The new cookie takes the old one's place, so the old session ends. A token in a
	// header stays valid: a script may send its token with every request.
	for _, t := range a.cfg.transports {
		if t.ambient() && !a.forged(t, r) {
			sent, _ := t.carried(r, a.cfg.wellFormed)
			all = append(all, strategy.WithReplaced(sent.list()...))
		}
	}
	if !a.cfg.OmitUserAgent {
		all = append(all, strategy.WithUserAgent(r.UserAgent()))
	}
	if !a.cfg.OmitClientIP {
		all = append(all, strategy.WithClientIP(event.ClientIP(ctx)))
	}
	return append(all, opts...)
}

// issue returns a new token, and sets its cookie if t has one.
func (a *Auth[U]) issue(w http.ResponseWriter, t transport, secret strategy.Secret, session strategy.Session[U], now time.Time) Issued[U] {
	brief := a.cfg.BriefLifetime
	var remaining time.Duration
	var untilClosed bool
	if session.ExpiresAt.IsZero() {
		untilClosed = brief == 0
	} else {
		remaining = max(session.ExpiresAt.Sub(now), 1) // 0 means that it does not expire
		untilClosed = brief > 0 && session.ExpiresAt.Sub(session.CreatedAt) <= brief
	}
	t.deliver(w, secret.Reveal(), remaining, untilClosed)
	return Issued[U]{Session: session, Token: secret, transport: t, remaining: remaining}
}
