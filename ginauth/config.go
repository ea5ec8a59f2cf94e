package ginauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/strategy"
)

// User is the application's user type as this package sees it. Every strategy.User
// is a User.
type User interface {
	// IsActive reports whether the user may log in and use tokens.
	IsActive() bool
	// IsVerified reports whether the user passes [Verified].
	IsVerified() bool
	// IsSuperuser reports whether the user passes [Superuser].
	IsSuperuser() bool
}

// Strategy issues, reads and revokes access tokens. strategy.Database is one; its
// methods say what each method must do. A Strategy must be safe for concurrent use.
type Strategy[U any] interface {
	// WriteToken issues a token for the user. It must return an error wrapping
	// strategy.ErrUserInactive for an inactive user.
	WriteToken(ctx context.Context, user U, opts ...strategy.TokenOption) (strategy.Secret, strategy.Session[U], error)
	// ReadToken returns the session of a valid token, with its user. The session may
	// be shared by concurrent requests: it must not be changed. ReadToken must
	// return an error wrapping strategy.ErrInvalidToken if, and only if, the token is
	// certainly not valid.
	ReadToken(ctx context.Context, token string) (*strategy.Session[U], error)
	// WellFormed reports, without I/O, whether a string can be a token.
	WellFormed(token string) bool
	// RotateToken replaces the token of a valid session. It must return an error
	// wrapping strategy.ErrInvalidToken if, and only if, the token is certainly not
	// valid.
	RotateToken(ctx context.Context, token string, opts ...strategy.RotateOption) (strategy.Secret, strategy.Session[U], error)
	// DestroyToken revokes a token. It must return nil for an unknown token.
	DestroyToken(ctx context.Context, token string) error
	// Watch returns a context that ends with ctx, or when ReadToken would refuse the token,
	// with the reason as its cause. session is what ReadToken returned for the token. The
	// caller calls the CancelFunc at the end.
	Watch(ctx context.Context, token string, session strategy.SessionInfo) (context.Context, context.CancelFunc)
	// Of returns the sessions of a user.
	Of(user U) strategy.UserSessions
	// Lifetime returns how long tokens are valid; 0 means without end.
	Lifetime() time.Duration
	// Prefix returns the characters with which every token begins.
	Prefix() string
}

// Authenticator checks passwords. account.Manager is one.
//
// Both methods must return an error wrapping account.ErrBadCredentials for an unknown
// user, a wrong password and an inactive user, in equal time, and one wrapping
// account.ErrTooManyAttempts (a *account.TooManyAttemptsError says for how long) where
// the password was not looked at because of earlier attempts. Any other error is a
// failure, answered with 503. An Authenticator must be safe for concurrent use.
type Authenticator[U any] interface {
	// Authenticate returns the user with this name and password. device is the device
	// token that an earlier login gave to this client, or "". Authenticate returns the
	// device token that the client must present next time: the same, a new one, or "" for
	// none. See account.LimiterConfig.
	Authenticate(ctx context.Context, username, password, device string) (U, string, error)
	// Reauthenticate checks the password of a user who is logged in, and returns the
	// user as they are now.
	Reauthenticate(ctx context.Context, user U, password string) (U, error)
}

// Config configures an [Auth]. The zero value is safe: bearer tokens.
type Config struct {
	// Transports are the ways by which clients send tokens, in the order in which
	// guards try them; the first that yields a user wins. The first also answers
	// logins; see [Auth.AnswerLoginsWith] for the others. Default: Bearer{} alone.
	Transports []Transport

	// RequireVerified refuses the login of users who are not verified. Default
	// false. A single route can ask for it with [Verified] instead.
	RequireVerified bool

	// BriefLifetime is the lifetime of a login that does not ask to be remembered
	// (the field remember of its body). The browser forgets its cookie when it
	// closes. A remembered login has the strategy's lifetime, which must be longer.
	// Default 0: every login has the strategy's lifetime, and remember is ignored.
	BriefLifetime time.Duration

	// TrustedOrigins are further origins (scheme://host[:port]) whose pages may send
	// unsafe requests and open WebSockets that a cookie authenticates; see
	// http.CrossOriginProtection.
	// Default none. Add the application's own origin if a proxy changes the Host
	// header. Case, a default port and a host in Unicode do not matter. New returns an
	// error for an entry that no browser sends as an origin, such as one with a wildcard,
	// a path or a trailing dot.
	TrustedOrigins []string

	// OnRefusal writes the body of every refusal (400, 401, 403, 404, 408, 409, 413, 415,
	// 422, 429, 503) in place of the contract's JSON: an API can have its own envelope, and a
	// website its own pages. It can also redirect, for example a 401 to the login page. The
	// status and the headers WWW-Authenticate and Retry-After are already set, and no further
	// handler runs. [Refusal.WriteJSON] writes the contract's answer. The error of the refusal
	// wraps [ErrNotFresh] where the user must enter the password again. Default nil: JSON.
	OnRefusal func(c *gin.Context, refusal *Refusal)

	// Accounts configures the routes of accounts; see [WithAccounts].
	Accounts AccountsConfig

	// BodyTimeout bounds how long the body of a request may take: of requests to the
	// package's routes, which answer 408 after it, of requests that a guard rejects, and
	// of GET and HEAD requests that it admits. It has no effect where
	// http.Server.ReadTimeout is set. Default 10 seconds.
	BodyTimeout time.Duration

	// Timeout bounds how long an operation waits for the database and for its turn to hash:
	// a login, a log-out, or what a guard has to read and to check. An operation that takes
	// longer fails, and is answered with 503. The handler behind a guard is not bounded, nor
	// is the reading of a body. What must be taken back goes on behind the answer. Default 3
	// seconds.
	Timeout time.Duration

	// OmitUserAgent and OmitClientIP keep the client's user agent and IP out of the
	// session. Default false: users see both in the list of their sessions. Events
	// name the client IP either way. The IP is Gin's ClientIP: behind a proxy, call
	// SetTrustedProxies.
	OmitUserAgent, OmitClientIP bool

	// Now is the clock for [Fresh] and for events. It must be the strategy's clock.
	// Default [time.Now].
	Now func() time.Time

	// OnEvent receives what only this package sees: requests that a guard rejected
	// without asking the strategy, or although their token was valid, and logins
	// that were denied after the password was checked. See strategy.Config.OnEvent.
	// Default nil: no events.
	OnEvent func(context.Context, event.Event)
}

// Auth adds login, logout and guards to Gin. Make one with [New]. It is safe for
// concurrent use.
type Auth[U User] struct {
	strategy Strategy[U]
	login    Authenticator[U] // nil: no login by password
	cfg      *settings        // shared by all Auths that AnswerLoginsWith derives
	answers  transport        // of logins
	accounts accounts[U]      // nil without WithAccounts
	api      *apiTokens[U]    // nil without WithAPITokens
	hooks    Hooks[U]
}

// settings is a validated Config.
type settings struct {
	Config
	transports []transport
	realm      string              // of the bearer transport; "" without one
	challenges map[string][]string // ready WWW-Authenticate values, by their parameters
	wellFormed func(token string) bool

	proxyWarned atomic.Bool // see checkProxy
	mounted     mounted     // the routes, for OpenAPI
	origins     *http.CrossOriginProtection
}

// New returns an Auth over a strategy. login checks passwords; nil leaves out the
// routes that take one, for an application whose users log in by other means (see
// [Auth.Login]). New returns an error that names the field where the configuration is
// wrong.
func New[U User](s Strategy[U], login Authenticator[U], cfg Config) (*Auth[U], error) {
	if s == nil {
		return nil, errors.New("ginauth: the strategy is nil")
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
	if cfg.Timeout < 0 {
		return nil, fmt.Errorf("ginauth: Config.Timeout is negative: %v", cfg.Timeout)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 3 * time.Second
	}
	if cfg.Accounts.MaxAge < 0 {
		return nil, fmt.Errorf("ginauth: Config.Accounts.MaxAge is negative: %v", cfg.Accounts.MaxAge)
	}
	if cfg.Accounts.MaxAge == 0 {
		cfg.Accounts.MaxAge = 10 * time.Minute
	}
	if cfg.BriefLifetime < 0 {
		return nil, fmt.Errorf("ginauth: Config.BriefLifetime is negative: %v", cfg.BriefLifetime)
	}
	if lifetime := s.Lifetime(); lifetime > 0 && cfg.BriefLifetime >= lifetime {
		return nil, fmt.Errorf("ginauth: Config.BriefLifetime is %v, want less than the strategy's lifetime of %v", cfg.BriefLifetime, lifetime)
	}
	set := &settings{Config: cfg, wellFormed: s.WellFormed, origins: http.NewCrossOriginProtection()}
	for _, origin := range cfg.TrustedOrigins {
		canonical, err := canonicalOrigin(origin)
		if err == nil {
			err = set.origins.AddTrustedOrigin(canonical)
		}
		if err != nil {
			return nil, fmt.Errorf("ginauth: Config.TrustedOrigins: %q: %w", origin, err)
		}
	}
	for i, t := range cfg.Transports {
		if t == nil {
			return nil, fmt.Errorf("ginauth: Config.Transports[%d] is nil", i)
		}
		ready, err := t.prepare()
		if err != nil {
			return nil, fmt.Errorf("ginauth: Config.Transports[%d]: %w", i, err)
		}
		if set.transport(ready.String()) != nil {
			return nil, fmt.Errorf("ginauth: Config.Transports[%d]: %v is listed twice", i, ready)
		}
		if b, ok := ready.(bearer); ok {
			set.realm = b.realm
		}
		set.transports = append(set.transports, ready)
	}
	set.challenges = make(map[string][]string)
	for _, params := range []string{"", invalidToken, invalidRequest} {
		set.challenges[params] = set.challenge(params)
	}
	return &Auth[U]{strategy: s, login: login, cfg: set, answers: set.transports[0]}, nil
}

// AnswerLoginsWith returns an Auth that answers logins by t, so that one application
// can serve bearer and cookie logins: call Routes on both. t must be of the kind, and a
// [Cookie] of the name, of one of Config.Transports, whose other settings apply. Both
// Auths are otherwise the same: behind a guard of one, the methods of the other work.
func (a *Auth[U]) AnswerLoginsWith(t Transport) (*Auth[U], error) {
	if t == nil {
		return nil, errors.New("ginauth: AnswerLoginsWith: the transport is nil")
	}
	ready, err := t.prepare()
	if err != nil {
		return nil, fmt.Errorf("ginauth: AnswerLoginsWith: %w", err)
	}
	other := *a
	if other.answers = a.cfg.transport(ready.String()); other.answers == nil {
		return nil, fmt.Errorf("ginauth: AnswerLoginsWith: %v is not in Config.Transports", ready)
	}
	return &other, nil
}

// transport returns the transport of a kind and name, or nil.
func (s *settings) transport(name string) transport {
	for _, t := range s.transports {
		if t.String() == name {
			return t
		}
	}
	return nil
}

// challenge returns the value of a WWW-Authenticate header (RFC 6750 §3).
func (s *settings) challenge(params string) []string {
	if ready := s.challenges[params]; ready != nil {
		return ready
	}
	value := `Bearer realm="` + s.realm + `"`
	if params != "" {
		value += ", " + params
	}
	return []string{value}
}

var (
	_ User                               = account.User[uuid.UUID]{}
	_ Strategy[account.User[int64]]      = (*strategy.Database[account.User[int64], int64])(nil)
	_ Authenticator[account.User[int64]] = (*account.Manager[account.User[int64], int64])(nil)
)
