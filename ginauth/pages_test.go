package ginauth_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/internal/sameuser"
	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// verdicts are the errors that an application's own pages tell apart.
var verdicts = []error{
	account.ErrEmailTaken, account.ErrInvalidEmail, account.ErrInvalidPassword, account.ErrConflict, account.ErrUserNotFound,
	account.ErrBadOneTimeToken, account.ErrAlreadyVerified,

	ginauth.ErrNoCredentials, ginauth.ErrNotFresh, ginauth.ErrCrossOrigin, ginauth.ErrNotVerified,
	strategy.ErrInvalidToken, strategy.ErrSessionNotFound, strategy.ErrUserInactive,
	account.ErrBadCredentials, account.ErrTooManyAttempts,
}

// errFailure stands for any error that is not a verdict.
var errFailure = errors.New("a failure")

// wantVerdict checks an error: it is nil, the wanted verdict and no other, errFailure for
// any other error, or wraps want.
func wantVerdict(t testing.TB, what string, got, want error) {
	t.Helper()
	if (got == nil) != (want == nil) || want != errFailure && !errors.Is(got, want) {
		t.Errorf("%s: got the error %v, want %v", what, got, want)
	}
	for _, verdict := range verdicts {
		if verdict != want && errors.Is(got, verdict) {
			t.Errorf("%s: got the error %v, which is the verdict %q, want %v", what, got, verdict, want)
		}
	}
}

var transportsByName = map[string]ginauth.Transport{"bearer": ginauth.Bearer{}, "cookie": ginauth.Cookie{}}

// by carries a token by a transport.
func by(transport ginauth.Transport, token string) option {
	if transport == (ginauth.Cookie{}) {
		return inCookie(token)
	}
	return inHeader(token)
}

// faults is a token store whose calls fail with these errors.
type faults struct {
	*memstore.Tokens[uuid.UUID]
	find, write, end error
}

func (s *faults) ByToken(ctx context.Context, digest string) (strategy.AccessToken[uuid.UUID], error) {
	if s.find != nil {
		return strategy.AccessToken[uuid.UUID]{}, s.find
	}
	return s.Tokens.ByToken(ctx, digest)
}

func (s *faults) Insert(ctx context.Context, token strategy.AccessToken[uuid.UUID]) error {
	if s.write != nil {
		return s.write
	}
	return s.Tokens.Insert(ctx, token)
}

func (s *faults) Rotate(ctx context.Context, digest string, to strategy.Rotation) (strategy.AccessToken[uuid.UUID], error) {
	if s.write != nil {
		return strategy.AccessToken[uuid.UUID]{}, s.write
	}
	return s.Tokens.Rotate(ctx, digest, to)
}

func (s *faults) DeleteSession(ctx context.Context, userID, id uuid.UUID) (strategy.AccessToken[uuid.UUID], error) {
	if s.end != nil {
		return strategy.AccessToken[uuid.UUID]{}, s.end
	}
	return s.Tokens.DeleteSession(ctx, userID, id)
}

// pages is a rig with pages of its own. A page keeps the error that a method returned, and
// answers it with 418.
type pages struct {
	*rig
	*gin.Engine
	faults *faults
	err    error
	now    time.Time
}

func newPages(t *testing.T, cfg ginauth.Config, tokens strategy.Config) *pages {
	t.Helper()
	p := &pages{rig: newRig(t), Engine: gin.New(), now: time.Now()}
	p.faults = &faults{Tokens: p.tokens.Tokens}
	cfg.Now = func() time.Time { return p.now }
	tokens.Now = cfg.Now
	var err error
	if p.sessions, err = strategy.NewDatabase(p.faults, p.users, tokens); err != nil {
		t.Fatal(err)
	}
	auth := p.auth(t, cfg)
	wantNoAnswer := func(c *gin.Context) {
		if c.Writer.Written() || c.Writer.Status() != http.StatusOK {
			t.Errorf("%s: got the status %d written by the method, want none", c.Request.URL.Path, c.Writer.Status())
		}
	}
	answer := func(c *gin.Context, issued ginauth.Issued[member], err error) {
		wantNoAnswer(c)
		p.err = err
		if (err == nil) != sameuser.Equal(issued.Session.User, p.ann) || (err == nil) != (issued.Token.Reveal() != "") {
			t.Errorf("%s: got %+v and the error %v, want Ann's session or the error", c.Request.URL.Path, issued, err)
		}
		switch {
		case err != nil:
			c.String(http.StatusTeapot, "sorry")
		case c.Writer.Header().Get("Set-Cookie") != "":
			c.Redirect(http.StatusSeeOther, "/home")
		default:
			auth.Answer(c, issued)
		}
	}
	p.POST("/in", func(c *gin.Context) {
		issued, err := auth.LoginWithPassword(c, c.PostForm("name"), c.PostForm("secret"), c.PostForm("keep") != "")
		answer(c, issued, err)
	})
	p.POST("/out", func(c *gin.Context) {
		p.err = auth.Logout(c)
		wantNoAnswer(c)
		if p.err != nil {
			c.String(http.StatusTeapot, "sorry")
			return
		}
		c.Redirect(http.StatusSeeOther, "/home")
	})
	sudo := func(c *gin.Context) {
		issued, err := auth.Reauthenticate(c, c.PostForm("secret"))
		answer(c, issued, err)
	}
	p.POST("/sudo", auth.RequireUser(), sudo)
	p.POST("/sudo/unguarded", sudo)
	p.GET("/me", auth.RequireUser(), welcome)
	return p
}

func (p *pages) logIn(name, secret string, options ...option) *httptest.ResponseRecorder {
	p.err = nil
	return post(p, "/in", "name="+name+"&secret="+secret, options...)
}

// refused checks the error that a page got, and that the page alone wrote the answer.
func (p *pages) refused(t *testing.T, what string, w *httptest.ResponseRecorder, want error) {
	t.Helper()
	wantVerdict(t, what, p.err, want)
	wantCode(t, what, w, http.StatusTeapot)
	if got := w.Body.String(); got != "sorry" {
		t.Errorf("%s: got the body %q, want the page's", what, got)
	}
	for _, name := range []string{"Retry-After", "WWW-Authenticate"} {
		if got := w.Header().Get(name); got != "" {
			t.Errorf("%s: got %s %q, want none", what, name, got)
		}
	}
}

func wantSetCookie(t *testing.T, what string, w *httptest.ResponseRecorder, set bool) {
	t.Helper()
	if got := w.Header().Values("Set-Cookie"); (len(got) > 0) != set {
		t.Errorf("%s: got Set-Cookie %q, want it there: %v", what, got, set)
	}
}

const crossSite = "cross-site"

func fromAnotherSite(r *http.Request) { r.Header.Set("Sec-Fetch-Site", crossSite) }

func TestLoginPage(t *testing.T) {
	p := newPages(t, ginauth.Config{}, strategy.Config{})
	w := p.logIn("ann@example.com", password)
	wantVerdict(t, "bearer", p.err, nil)
	wantCode(t, "bearer", w, http.StatusOK)
	wantCode(t, "use the token", request(p, "GET", "/me", inHeader(accessToken(t, w))), http.StatusOK)

	p = newPages(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Cookie{}}, BriefLifetime: time.Minute}, strategy.Config{Lifetime: time.Hour})
	w = p.logIn("ann@example.com", password)
	wantVerdict(t, "cookie", p.err, nil)
	wantCode(t, "cookie", w, http.StatusSeeOther)
	set := w.Header().Get("Set-Cookie")
	token := cookieValue(t, set, "__Host-latchkey")
	if strings.Contains(w.Body.String(), token) || strings.Contains(set, "Max-Age") || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("got %v %s, want the token in a session cookie alone, and no-store", w.Header(), w.Body)
	}
	wantCode(t, "use the cookie", request(p, "GET", "/me", inCookie(token)), http.StatusOK)

	w = post(p, "/in", "name=ann@example.com&keep=1&secret="+password, inCookie(token))
	if set := w.Header().Get("Set-Cookie"); !strings.Contains(set, "Max-Age=3600;") {
		t.Errorf("remembered: got Set-Cookie %q, want it for an hour", set)
	}
	wantCode(t, "the cookie sent with the login", request(p, "GET", "/me", inCookie(token)), http.StatusUnauthorized)
}

func TestLoginPageGetsTheError(t *testing.T) {
	for name, transport := range transportsByName {
		t.Run(name, func(t *testing.T) {
			cfg := ginauth.Config{Transports: []ginauth.Transport{transport}}
			p := newPages(t, cfg, strategy.Config{})
			refused := func(what string, w *httptest.ResponseRecorder, want error) {
				t.Helper()
				p.refused(t, what, w, want)
				wantSetCookie(t, what, w, false)
			}
			refused("a wrong password", p.logIn("ann@example.com", "wrong"), account.ErrBadCredentials)
			refused("an unknown user", p.logIn("bob@example.com", password), account.ErrBadCredentials)
			refused("no password", p.logIn("ann@example.com", ""), account.ErrBadCredentials)
			refused("a password that is too long", p.logIn("ann@example.com", strings.Repeat("a", 1025)), account.ErrBadCredentials)
			if transport == (ginauth.Cookie{}) {
				refused("from another site", p.logIn("ann@example.com", password, fromAnotherSite), ginauth.ErrCrossOrigin)
			}
			p.faults.write = errDown
			refused("the store fails", p.logIn("ann@example.com", password), errFailure)
			p.faults.write = strategy.ErrInvalidToken // not for an insert
			refused("the store fails with a verdict", p.logIn("ann@example.com", password), errFailure)
			p.faults.write = nil

			p.logIn("ann@example.com", password)
			wantVerdict(t, "the right password", p.err, nil)
			for range 10 {
				refused("a wrong password", p.logIn("ann@example.com", "wrong"), account.ErrBadCredentials)
			}
			refused("too many", p.logIn("ann@example.com", password), account.ErrTooManyAttempts)
			var tooMany *account.TooManyAttemptsError
			if !errors.As(p.err, &tooMany) || tooMany.RetryAfter <= 59*time.Second || tooMany.RetryAfter > time.Minute {
				t.Errorf("too many: got %#v, want the time to wait, a minute", p.err)
			}

			cfg.RequireVerified = true
			p = newPages(t, cfg, strategy.Config{})
			refused("not verified", p.logIn("ann@example.com", password), ginauth.ErrNotVerified)
			refused("a wrong password, not verified", p.logIn("ann@example.com", "wrong"), account.ErrBadCredentials)
		})
	}
}

func TestLoginWithPasswordNeedsAnAuthenticator(t *testing.T) {
	h := newRig(t)
	auth, err := ginauth.New(h.sessions, nil, ginauth.Config{})
	if err != nil {
		t.Fatal(err)
	}
	r := guarded(func(c *gin.Context) {
		_, err := auth.LoginWithPassword(c, "ann@example.com", password, false)
		wantVerdict(t, "log in", err, errFailure)
	})
	wantCode(t, "the page goes on", request(r, "GET", "/"), http.StatusOK)
}

func TestLogoutPage(t *testing.T) {
	for name, transport := range transportsByName {
		t.Run(name, func(t *testing.T) {
			p := newPages(t, ginauth.Config{Transports: []ginauth.Transport{transport}}, strategy.Config{})
			inBrowser := transport == (ginauth.Cookie{})
			out := func(options ...option) *httptest.ResponseRecorder {
				p.err = nil
				return request(p, "POST", "/out", options...)
			}
			token := p.token(t)
			good := by(transport, token)

			w := out()
			p.refused(t, "no token", w, ginauth.ErrNoCredentials)
			wantSetCookie(t, "no token", w, false)
			for what, bad := range map[string]string{"a malformed token": "x", "an unknown token": p.unknown(t)} {
				w = out(by(transport, bad))
				p.refused(t, what, w, strategy.ErrInvalidToken)
				wantSetCookie(t, what, w, inBrowser)
			}
			if inBrowser {
				w = out(good, fromAnotherSite)
				p.refused(t, "from another site", w, ginauth.ErrCrossOrigin)
				wantSetCookie(t, "from another site", w, false)
				w = out(header("Cookie", "__Host-latchkey="))
				p.refused(t, "an empty cookie", w, ginauth.ErrNoCredentials)
				wantSetCookie(t, "an empty cookie", w, true)
			}
			for what, fault := range map[string]faults{"the look-up fails": {find: errDown}, "the delete fails": {end: errDown}} {
				p.faults.find, p.faults.end = fault.find, fault.end
				w = out(good)
				p.refused(t, what, w, errFailure)
				wantSetCookie(t, what, w, false)
				p.faults.find, p.faults.end = nil, nil
				wantCode(t, what+", and the session lives", request(p, "GET", "/me", good), http.StatusOK)
			}

			w = out(good)
			wantVerdict(t, "log out", p.err, nil)
			wantCode(t, "log out", w, http.StatusSeeOther)
			wantSetCookie(t, "log out", w, inBrowser)
			if got := w.Header().Get("Set-Cookie"); inBrowser && !strings.HasPrefix(got, "__Host-latchkey=; ") {
				t.Errorf("log out: got Set-Cookie %q, want it cleared", got)
			}
			if got := w.Header().Get("Cache-Control"); got != "no-store" {
				t.Errorf("log out: got Cache-Control %q, want no-store", got)
			}
			wantCode(t, "afterwards", request(p, "GET", "/me", good), http.StatusUnauthorized)
			p.refused(t, "again", out(good), strategy.ErrInvalidToken)
		})
	}
}

// unknown returns a well-formed token that was never issued.
func (p *pages) unknown(t *testing.T) string {
	t.Helper()
	unknown, _ := token.Default.New()
	return unknown
}

func TestReauthenticationPage(t *testing.T) {
	for name, transport := range transportsByName {
		t.Run(name, func(t *testing.T) {
			p := newPages(t, ginauth.Config{Transports: []ginauth.Transport{transport}}, strategy.Config{})
			sudo := func(path, secret string, options ...option) *httptest.ResponseRecorder {
				p.err = nil
				return post(p, path, "secret="+secret, options...)
			}
			good := by(transport, p.token(t))
			refused := func(what string, w *httptest.ResponseRecorder, want error) {
				t.Helper()
				p.refused(t, what, w, want)
				wantSetCookie(t, what, w, false)
			}
			refused("a wrong password", sudo("/sudo", "wrong", good), account.ErrBadCredentials)
			refused("no password", sudo("/sudo", "", good), account.ErrBadCredentials)
			refused("no guard", sudo("/sudo/unguarded", password, good), errFailure)
			p.faults.write = errDown
			refused("the store fails", sudo("/sudo", password, good), errFailure)
			p.faults.write = strategy.ErrTokenNotFound
			refused("the session ended meanwhile", sudo("/sudo", password, good), strategy.ErrInvalidToken)
			p.faults.write = nil

			w := sudo("/sudo", password, good)
			wantVerdict(t, "the right one", p.err, nil)
			var token string
			if transport == (ginauth.Cookie{}) {
				wantCode(t, "the right one", w, http.StatusSeeOther)
				token = cookieValue(t, w.Header().Get("Set-Cookie"), "__Host-latchkey")
			} else {
				wantCode(t, "the right one", w, http.StatusOK)
				token = accessToken(t, w)
			}
			wantCode(t, "the old token", request(p, "GET", "/me", good), http.StatusUnauthorized)
			good = by(transport, token)
			wantCode(t, "the new token", request(p, "GET", "/me", good), http.StatusOK)

			for range 5 {
				refused("a wrong password", sudo("/sudo", "wrong", good), account.ErrBadCredentials)
			}
			refused("too many", sudo("/sudo", password, good), account.ErrTooManyAttempts)
			var tooMany *account.TooManyAttemptsError
			if !errors.As(p.err, &tooMany) || tooMany.RetryAfter <= 0 {
				t.Errorf("too many: got %#v, want the time to wait", p.err)
			}
		})
	}
}

func TestOnRefusalRendersEveryRefusal(t *testing.T) {
	for name, transport := range transportsByName {
		t.Run(name, func(t *testing.T) {
			var told []*ginauth.Refusal
			var heard []event.Event
			h := newRig(t)
			now := time.Now()
			clock := func() time.Time { return now }
			tokens := &faults{Tokens: h.tokens.Tokens}
			sessions, err := strategy.NewDatabase(tokens, h.users, strategy.Config{Lifetime: time.Hour, Now: clock})
			if err != nil {
				t.Fatal(err)
			}
			h.sessions = sessions
			auth := h.auth(t, ginauth.Config{
				Transports: []ginauth.Transport{transport},
				Now:        clock,
				OnEvent:    func(_ context.Context, e event.Event) { heard = append(heard, e) },
				OnRefusal:  func(_ *gin.Context, refusal *ginauth.Refusal) { told = append(told, refusal) },
			})
			fails := auth.CheckUser(func(context.Context, strategy.Session[member]) (bool, error) { return true, errDown })
			r := engine(auth)
			ran := 0
			page := func(path string, handlers ...gin.HandlerFunc) {
				r.GET(path, append(handlers, func(c *gin.Context) { ran++; welcome(c) })...)
				r.POST(path, append(handlers, func(c *gin.Context) { ran++; welcome(c) })...)
			}
			page("/page", auth.RequireUser())
			page("/twice", auth.RequireUser(), auth.RequireUser())
			page("/fresh", auth.RequireUser(ginauth.Fresh(time.Minute)))
			page("/verified", auth.RequireUser(ginauth.Verified))
			page("/scoped", auth.RequireUser(ginauth.Scopes("deploy:write")))
			page("/fails", auth.RequireUser(fails))
			page("/optional", auth.OptionalUser())
			page("/optional/fresh", auth.OptionalUser(ginauth.Fresh(time.Minute)))

			old := by(transport, h.token(t))
			now = now.Add(time.Hour)
			stale := by(transport, h.token(t))
			now = now.Add(time.Minute + time.Millisecond)
			good := by(transport, h.token(t))
			unknown := by(transport, (&pages{}).unknown(t))
			secret, _, err := h.sessions.WriteToken(t.Context(), h.ann, strategy.WithScopes("deploy:read"))
			if err != nil {
				t.Fatal(err)
			}
			scoped := by(transport, secret.Reveal())

			for _, c := range []struct {
				what, method, path string
				with               []option
				want               error // nil: not checked
				code               int
			}{
				{"no token", "GET", "/page", nil, ginauth.ErrNoCredentials, 401},
				{"no token, and two guards", "GET", "/twice", nil, ginauth.ErrNoCredentials, 401},
				{"no token for a form", "POST", "/page", nil, ginauth.ErrNoCredentials, 401},
				{"a malformed token", "GET", "/page", []option{by(transport, "x")}, strategy.ErrInvalidToken, 401},
				{"an unknown token", "GET", "/page", []option{unknown}, strategy.ErrInvalidToken, 401},
				{"an expired token", "GET", "/page", []option{old}, strategy.ErrInvalidToken, 401},
				{"not fresh", "GET", "/fresh", []option{stale}, ginauth.ErrNotFresh, 401},
				{"no token where it has to be fresh", "GET", "/fresh", nil, ginauth.ErrNoCredentials, 401},
				{"a route of the package", "GET", "/sessions", nil, ginauth.ErrNoCredentials, 401},

				{"a valid token", "GET", "/page", []option{good}, nil, 200},
				{"not verified", "GET", "/verified", []option{good}, nil, 403},
				{"another scope", "GET", "/scoped", []option{scoped}, nil, 403},
				{"a scoped token without Scopes", "GET", "/page", []option{scoped}, nil, 403},
				{"a check fails", "GET", "/fails", []option{good}, nil, 503},
				{"no token, optional", "GET", "/optional", nil, nil, 200},
				{"an unknown token, optional", "GET", "/optional", []option{unknown}, nil, 200},
				{"not fresh, optional", "GET", "/optional/fresh", []option{stale}, nil, 200},
				{"log out, which has no guard", "POST", "/logout", nil, nil, 401},
			} {
				told, heard, ran = nil, nil, 0
				w := request(r, c.method, c.path, c.with...)
				wantCode(t, c.what, w, c.code)
				switch {
				case c.code == 200 && len(told) > 0:
					t.Errorf("%s: the hook was called with %v", c.what, told)
				case c.code != 200 && (len(told) != 1 || told[0].Status != c.code || w.Body.Len() > 0 || ran > 0):
					t.Errorf("%s: the hook was called with %v, the body is %s, and %d handlers ran; want one call alone", c.what, told, w.Body, ran)
				case c.want != nil:
					wantVerdict(t, c.what, told[0].Err, c.want)
				}
				if challenge := w.Header().Get("WWW-Authenticate"); transport == (ginauth.Bearer{}) && c.code == 401 && challenge == "" {
					t.Errorf("%s: no WWW-Authenticate", c.what)
				}
				if (c.want == ginauth.ErrNoCredentials || c.want == ginauth.ErrNotFresh) && len(heard) != 1 {
					t.Errorf("%s: got the events %v, want one", c.what, heard)
				}
			}

			refused := func(what string, code int, name string, w *httptest.ResponseRecorder) {
				t.Helper()
				wantCode(t, what, w, code)
				if len(told) != 1 || told[0].Status != code || told[0].Code != name || w.Body.Len() > 0 {
					t.Errorf("%s: the hook was called with %+v, the body is %s, want one call with %s", what, told, w.Body, name)
				}
				told = nil
			}
			told, tokens.find = nil, errDown
			w := request(r, "GET", "/page", good)
			if w.Header().Get("Retry-After") != "1" || len(told) == 1 && told[0].RetryAfter != time.Second {
				t.Errorf("the store fails: got Retry-After %q, want 1", w.Header().Get("Retry-After"))
			}
			refused("the store fails", http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE", w)
			tokens.find = nil
			switch transport {
			case ginauth.Bearer{}:
				refused("two headers", http.StatusBadRequest, "Bad Request", request(r, "GET", "/page", inHeader("a"), inHeader("b")))
			default:
				refused("from another site", http.StatusForbidden, "CROSS_ORIGIN_REQUEST", request(r, "POST", "/page", good, fromAnotherSite))
			}
		})
	}
}

// What the hook can write with WriteJSON is what the client gets without a hook.
func TestRefusalsWriteTheContractsAnswer(t *testing.T) {
	h := newRig(t)
	var hook func(c *gin.Context, refusal *ginauth.Refusal)
	plain := engine(h.auth(t, ginauth.Config{}))
	hooked := engine(h.auth(t, ginauth.Config{OnRefusal: func(c *gin.Context, refusal *ginauth.Refusal) { hook(c, refusal) }}))
	errs := map[string]error{
		"a missing field":     nil,
		"no credentials":      ginauth.ErrNoCredentials,
		"a rejected password": fmt.Errorf("%w: %w: less than 8 characters", account.ErrInvalidPassword, account.ErrPasswordTooShort),
		"too many attempts":   &account.TooManyAttemptsError{RetryAfter: time.Minute},
		"a failure":           errDown,
	}
	for name, err := range errs {
		t.Run(name, func(t *testing.T) {
			answer := func(r *gin.Engine, auth *ginauth.Auth[member]) *httptest.ResponseRecorder {
				if err == nil {
					return post(r, "/login", "")
				}
				w := httptest.NewRecorder()
				c, _ := gin.CreateTestContext(w)
				c.Request = httptest.NewRequest("GET", "/", nil)
				auth.Refuse(c, err)
				c.Writer.WriteHeaderNow()
				return w
			}
			hook = func(c *gin.Context, refusal *ginauth.Refusal) { refusal.WriteJSON(c.Writer) }
			want, got := answer(plain, h.auth(t, ginauth.Config{})), answer(hooked, h.auth(t, ginauth.Config{OnRefusal: hook}))
			if got.Code != want.Code || got.Body.String() != want.Body.String() || !maps.EqualFunc(got.Header(), want.Header(), slices.Equal) {
				t.Errorf("got %d %s %v, want %d %s %v", got.Code, got.Body, got.Header(), want.Code, want.Body, want.Header())
			}
		})
	}
}

func TestOnRefusalCanRedirect(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{
		Transports: []ginauth.Transport{ginauth.Cookie{}},
		OnRefusal: func(c *gin.Context, refusal *ginauth.Refusal) {
			to := "/login"
			if errors.Is(refusal, ginauth.ErrNotFresh) {
				to = "/password"
			}
			c.Redirect(http.StatusSeeOther, to)
		},
	})
	var order []string
	r := gin.New()
	r.Use(func(c *gin.Context) { c.Next(); order = append(order, "after") })
	r.GET("/", auth.RequireUser(ginauth.Fresh(-1)), welcome)
	for what, c := range map[string]struct {
		with []option
		to   string
	}{
		"no token":  {nil, "/login"},
		"not fresh": {[]option{inCookie(h.token(t))}, "/password"},
	} {
		w := request(r, "GET", "/", c.with...)
		wantCode(t, what, w, http.StatusSeeOther)
		if got := w.Header().Get("Location"); got != c.to || strings.Contains(w.Body.String(), "welcome") || strings.Contains(w.Body.String(), "detail") {
			t.Errorf("%s: got Location %q and the body %s, want %s", what, got, w.Body, c.to)
		}
	}
	if !slices.Equal(order, []string{"after", "after"}) {
		t.Errorf("got %q, want the middleware around the guard to run to its end", order)
	}
}

func TestRetryAfterIsWholeSeconds(t *testing.T) {
	h := newRig(t)
	for wait, want := range map[time.Duration]string{
		0: "1", 1: "1", time.Millisecond: "1", time.Second - 1: "1", time.Second: "1", time.Second + 1: "2",
		29*time.Second + time.Millisecond: "30", 30 * time.Second: "30", time.Hour - 1: "3600", -time.Second: "1",
	} {
		auth, err := ginauth.New(h.sessions, passwords{&account.TooManyAttemptsError{RetryAfter: wait}}, ginauth.Config{})
		if err != nil {
			t.Fatal(err)
		}
		w := logIn(engine(auth))
		wantCode(t, wait.String(), w, http.StatusTooManyRequests)
		if got := w.Header().Get("Retry-After"); got != want {
			t.Errorf("%v: got Retry-After %q, want %q", wait, got, want)
		}
	}
	auth, err := ginauth.New(h.sessions, passwords{account.ErrTooManyAttempts}, ginauth.Config{})
	if err != nil {
		t.Fatal(err)
	}
	w := logIn(engine(auth))
	wantCode(t, "unknown time to wait", w, http.StatusTooManyRequests)
	if got := w.Header().Get("Retry-After"); got != "1" {
		t.Errorf("unknown time to wait: got Retry-After %q, want 1", got)
	}
}

// deadlines records the read deadlines of the connection.
type deadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

func (d *deadlines) SetReadDeadline(at time.Time) error {
	d.set = append(d.set, at)
	return nil
}

func TestBodyTimeoutYieldsToTheServers(t *testing.T) {
	auth := newRig(t).auth(t, ginauth.Config{BodyTimeout: time.Hour})
	r := engine(auth)
	r.POST("/me", auth.RequireUser(), welcome)
	send := func(path string, server *http.Server, contentType string) []time.Time {
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		req := httptest.NewRequest("POST", path, strings.NewReader("username=ann"))
		req.Header.Set("Content-Type", contentType)
		if server != nil {
			req = req.WithContext(context.WithValue(req.Context(), http.ServerContextKey, server))
		}
		r.ServeHTTP(w, req)
		return w.set
	}
	const form = "application/x-www-form-urlencoded"
	for what, server := range map[string]*http.Server{"no server": nil, "a server without a timeout": {WriteTimeout: 1}} {
		set := send("/login", server, form)
		if len(set) != 2 || time.Until(set[0]) < 59*time.Minute || time.Until(set[0]) > time.Hour || !set[1].IsZero() {
			t.Errorf("%s: got the deadlines %v, want one in an hour, and then none", what, set)
		}
		for of, send := range map[string]func() []time.Time{
			"of a type that is not read":        func() []time.Time { return send("/login", server, "text/plain") },
			"of a log-out":                      func() []time.Time { return send("/logout", server, form) },
			"of a request that a guard rejects": func() []time.Time { return send("/me", server, form) },
		} {
			if set := send(); len(set) == 0 || time.Until(set[len(set)-1]) < 59*time.Minute {
				t.Errorf("%s: got the deadlines %v for a body %s, want the last in an hour", what, set, of)
			}
		}
	}
	if set := send("/login", &http.Server{ReadTimeout: time.Minute}, form); len(set) > 0 {
		t.Errorf("a server with a timeout: got the deadlines %v, want none", set)
	}
}
