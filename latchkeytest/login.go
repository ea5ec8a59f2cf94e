package latchkeytest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/internal/testhook"
	"github.com/latchkey-go/latchkey/strategy"
)

// Option changes a login of [Kit.As] or [ContextAs].
type Option func(*options)

type options struct {
	verified, superuser bool
	age                 time.Duration
	scopes              []string
}

// The flags of the user, for this login only: the account stays as it is.
var (
	// Verified makes the user verified.
	Verified Option = func(o *options) { o.verified = true }
	// Superuser makes the user a superuser.
	Superuser Option = func(o *options) { o.superuser = true }
)

// LoginAge says how long ago the user entered the password. Default 0, so that the login is fresh.
func LoginAge(age time.Duration) Option { return func(o *options) { o.age = age } }

// Scopes makes an API token with these scopes instead of a login, which has every scope.
func Scopes(scopes ...string) Option {
	return func(o *options) { o.scopes = append([]string{}, scopes...) } // not nil
}

func collect(opts []Option) (o options) {
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	return o
}

// raise sets the flags of an account.
func raise[ID comparable](a *account.User[ID], o options) {
	a.Verified = a.Verified || o.verified
	a.Superuser = a.Superuser || o.superuser
}

// Login is a user's session, for requests to the application. Make one with [Kit.As]. It is safe
// for concurrent use.
type Login[U any] struct {
	// Session is the session, with its user.
	Session strategy.Session[U]
	// Token is the access token, or the API token.
	Token strategy.Secret

	t      testing.TB
	cookie http.Cookie
}

// As logs a user in without a password, as a login that does not ask to be remembered: each call
// makes a new session. The user must have an account, by [Kit.NewUser] or by the application's own means;
// As uses the account as it is stored. If the user is unknown or not active, the test ends.
//
// The events of the login are not in [Events].
func (k *Kit[U, ID]) As(t testing.TB, user U, opts ...Option) *Login[U] {
	check(t)
	t.Helper()
	l, err := k.logIn(user, collect(opts))
	if err != nil {
		t.Fatalf("latchkeytest: As: %v", err)
	}
	l.t = t
	return l
}

func (k *Kit[U, ID]) logIn(user U, o options) (*Login[U], error) {
	id := user.UserID()
	user, err := k.Accounts.ByID(quiet(), id)
	switch {
	case errors.Is(err, account.ErrUserNotFound):
		return nil, fmt.Errorf("no account has the ID %v: make one with NewUser, or let the application register it", id)
	case err != nil:
		return nil, err
	case !user.IsActive():
		return nil, fmt.Errorf("the account %v is not active, so that its user cannot log in", id)
	}
	tokens, token := k.Sessions, []strategy.TokenOption{strategy.WithAuthenticatedAt(k.Now().Add(-o.age))}
	switch {
	case o.scopes != nil:
		token = []strategy.TokenOption{strategy.WithScopes(o.scopes...)}
		if k.APITokens != nil {
			tokens = k.APITokens
		}
	case k.brief > 0:
		token = append(token, strategy.WithLifetime(k.brief))
	}
	secret, session, err := tokens.WriteToken(quiet(), user, token...)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	k.flags[session.ID] = o
	k.mu.Unlock()
	raise(k.Accounts.Account(&session.User), o)
	l := &Login[U]{Session: session, Token: secret, cookie: k.cookie}
	l.cookie.Value = secret.Reveal()
	return l, nil
}

// flagged returns a strategy whose sessions have the flags of their logins.
func (k *Kit[U, ID]) flagged(s ginauth.Strategy[U]) ginauth.Strategy[U] { return flagged[U, ID]{s, k} }

type flagged[U strategy.User[ID], ID comparable] struct {
	ginauth.Strategy[U]
	k *Kit[U, ID]
}

func (f flagged[U, ID]) ReadToken(ctx context.Context, token string) (*strategy.Session[U], error) {
	session, err := f.Strategy.ReadToken(ctx, token)
	if err != nil {
		return nil, err
	}
	f.k.mu.Lock()
	o := f.k.flags[session.ID]
	f.k.mu.Unlock()
	if o.verified || o.superuser {
		own := *session // requests share the session
		raise(f.k.Accounts.Account(&own.User), o)
		session = &own
	}
	return session, nil
}

// Request returns a request that a router can serve, with the token in the Authorization header. Its
// context ends with the test. Make a new request for each call of the router.
func (l *Login[U]) Request(method, target string, body io.Reader) *http.Request {
	r := httptest.NewRequestWithContext(l.t.Context(), method, target, body)
	r.Header.Set("Authorization", "Bearer "+l.Token.Reveal())
	return r
}

// Client returns a client of a server that is logged in as a browser is: with a cookie. An API token
// is in the Authorization header instead.
func (l *Login[U]) Client(srv *httptest.Server) *http.Client {
	l.t.Helper()
	if srv == nil || srv.Client() == nil {
		l.t.Fatal("latchkeytest: Client: the server was not started")
	}
	client := *srv.Client()
	if l.Session.Scoped() {
		client.Transport = bearer{client.Transport, l.Token}
	} else {
		client.Jar = l.Jar(srv.URL)
	}
	return &client
}

// Jar returns a cookie jar with the cookie of the login for a URL, such as https://app.example.com. If
// clients would not send the cookie there, because of its attributes, the test ends.
func (l *Login[U]) Jar(rawURL string) http.CookieJar {
	l.t.Helper()
	if l.Session.Scoped() {
		l.t.Fatal("latchkeytest: Jar: API tokens are no cookies: use Request or Client")
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		l.t.Fatalf("latchkeytest: Jar: %v", err)
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		l.t.Fatalf("latchkeytest: Jar: %v", err)
	}
	jar.SetCookies(u, []*http.Cookie{&l.cookie})
	to := *u
	to.Path = l.cookie.Path
	if len(jar.Cookies(&to)) == 0 {
		l.t.Fatalf("latchkeytest: Jar: clients do not send the cookie %s (Secure %v, Domain %q) to %s: use an https URL of its domain, or one of localhost if it has none", l.cookie.Name, l.cookie.Secure, l.cookie.Domain, rawURL)
	}
	return jar
}

// bearer sends requests with a token.
type bearer struct {
	next  http.RoundTripper
	token strategy.Secret
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token.Reveal())
	return b.next.RoundTrip(r)
}

// ContextAs returns the context of a test, which carries a session of a user: guards admit a request
// that has it, and handlers find the user, with any ginauth.Auth of the user type. The user needs no
// account and no password, and counts as active. Guards do all their checks. Only the token is
// missing: the routes that end or renew the session of a request have nothing to end or renew.
//
//	r := httptest.NewRequestWithContext(latchkeytest.ContextAs(t, ann), "GET", "/notes", nil)
//
// Outside of programs that "go test" has built it panics, and no guard looks for such a context.
func ContextAs[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]](t testing.TB, user U, opts ...Option) context.Context {
	check(t)
	t.Helper()
	o := collect(opts)
	a := P(&user).Account()
	a.Active = true
	raise(a, o)
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatalf("latchkeytest: ContextAs: %v", err)
	}
	// The guard's clock can be another one than the kit's or the machine's.
	session := func(now time.Time) *strategy.Session[U] {
		at := now.UTC().Truncate(time.Millisecond).Add(-o.age)
		s := &strategy.Session[U]{User: user, SessionInfo: strategy.SessionInfo{ID: id, UserID: user.UserID(), CreatedAt: at, AuthenticatedAt: at, Scopes: slices.Clone(o.scopes)}}
		if s.Scoped() {
			s.AuthenticatedAt = time.Time{}
		}
		return s
	}
	return testhook.WithSession(strategy.ContextWithSession(t.Context(), *session(time.Now())), session)
}
