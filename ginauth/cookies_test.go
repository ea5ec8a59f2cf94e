package ginauth_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/strategy"
)

// inCookies sends several cookies of one name.
func inCookies(tokens ...string) option {
	return header("Cookie", "__Host-latchkey="+strings.Join(tokens, "; __Host-latchkey="))
}

// unknownToken returns a well-formed token that was never issued.
func unknownToken(t testing.TB) string {
	t.Helper()
	unknown, _ := token.Default.New()
	return unknown
}

// tokenOfBob issues a token for a second user.
func (h *rig) tokenOfBob(t testing.TB) string {
	t.Helper()
	bob, err := h.accounts.Create(t.Context(), member{Email: "bob@example.com", Active: true}, password)
	if err != nil {
		t.Fatal(err)
	}
	secret, _, err := h.sessions.WriteToken(t.Context(), bob)
	if err != nil {
		t.Fatal(err)
	}
	return secret.Reveal()
}

// wantLive checks whether tokens are valid.
func (h *rig) wantLive(t testing.TB, what string, want bool, tokens ...string) {
	t.Helper()
	for i, token := range tokens {
		if _, err := h.sessions.ReadToken(t.Context(), token); (err == nil) != want || err != nil && !errors.Is(err, strategy.ErrInvalidToken) {
			t.Errorf("%s: read token %d: got the error %v, want it valid: %v", what, i, err, want)
		}
	}
}

var onlyCookie = ginauth.Config{Transports: []ginauth.Transport{ginauth.Cookie{}}}

func TestLiveCookieWins(t *testing.T) {
	h := newRig(t)
	r := engine(h.auth(t, onlyCookie))
	live, junk := h.token(t), []string{"x", "", "lk_", strings.Repeat("x", 52), "y"}
	unknown := []string{unknownToken(t), unknownToken(t), unknownToken(t), unknownToken(t)}
	for what, c := range map[string]struct {
		tokens []string
		code   int
	}{
		"one":                        {[]string{live}, 200},
		"twice the same":             {[]string{live, live}, 200},
		"unknown first":              {append(unknown[:3:3], live), 200},
		"unknown last":               {append([]string{live}, unknown[:3]...), 200},
		"unknown often":              {append(slices.Repeat(unknown[:1], 9), live), 200},
		"junk first":                 {append(junk, live), 200},
		"junk last":                  {append([]string{live}, junk...), 200},
		"fifth of well-formed ones":  {append(unknown, live), 401},
		"unknown ones alone":         {unknown, 401},
		"junk alone":                 {junk, 401},
		"empty and junk":             {[]string{"", "x"}, 401},
		"two sessions of one user":   {[]string{live, h.token(t)}, 200},
		"four sessions and one more": {[]string{live, h.token(t), h.token(t), h.token(t), h.token(t)}, 200},
	} {
		wantCode(t, what, request(r, "GET", "/me", inCookies(c.tokens...)), c.code)
	}
	separate := request(r, "GET", "/me", inCookie("x"), inCookie(unknown[0]), inCookie(live))
	wantCode(t, "separate headers", separate, http.StatusOK)
}

func TestMalformedCookiesCostNoLookUp(t *testing.T) {
	h := newRig(t)
	tokens := &lookUps{faultyTokens: h.tokens}
	var err error
	if h.sessions, err = strategy.NewDatabase(tokens, h.users, strategy.Config{}); err != nil {
		t.Fatal(err)
	}
	r := engine(h.auth(t, onlyCookie))
	live := h.token(t)
	for what, c := range map[string]struct {
		sent []string
		want int
	}{
		"junk":             {[]string{"a", "b", "c", "d", "e"}, 0},
		"junk and a token": {[]string{"a", "b", "c", "d", "e", live}, 1},
		"many tokens":      {[]string{live, unknownToken(t), unknownToken(t), unknownToken(t), unknownToken(t), unknownToken(t)}, 4},
	} {
		tokens.n = 0
		request(r, "GET", "/me", inCookies(c.sent...))
		if tokens.n != c.want {
			t.Errorf("%s: got %d look-ups, want %d", what, tokens.n, c.want)
		}
	}
}

// lookUps counts look-ups of tokens.
type lookUps struct {
	*faultyTokens
	n int
}

func (s *lookUps) ByToken(ctx context.Context, digest string) (strategy.AccessToken[uuid.UUID], error) {
	s.n++
	return s.faultyTokens.ByToken(ctx, digest)
}

func TestCookiesOfTwoUsersAreRejected(t *testing.T) {
	h := newRig(t)
	cfg := onlyCookie
	var heard []event.Event
	var told []error
	cfg.OnEvent = func(_ context.Context, e event.Event) { heard = append(heard, e) }
	cfg.OnRefusal = func(_ *gin.Context, refusal *ginauth.Refusal) { told = append(told, refusal) }
	auth := h.auth(t, cfg)
	r := engine(auth)
	anns, bobs := h.token(t), h.tokenOfBob(t)
	for _, sent := range [][]string{{anns, bobs}, {bobs, anns}, {"x", unknownToken(t), bobs, anns}} {
		heard, told = nil, nil
		wantCode(t, "guard", request(r, "GET", "/me", inCookies(sent...)), http.StatusUnauthorized)
		if len(heard) != 1 || heard[0].Kind != event.AccessDenied || heard[0].Reason != event.ReasonBadRequest || heard[0].UserID != nil {
			t.Errorf("got the events %+v, want %q with the reason %q and no user", heard, event.AccessDenied, event.ReasonBadRequest)
		}
		if len(told) != 1 {
			t.Fatalf("got the errors %v, want one", told)
		}
		wantVerdict(t, "the hook", told[0], strategy.ErrInvalidToken)
	}
	optional := guarded(auth.OptionalUser(), func(c *gin.Context) {
		if user, ok := auth.CurrentUser(c); ok {
			t.Errorf("got the user %v, want none", user.Email)
		}
	})
	wantCode(t, "optional", request(optional, "GET", "/", inCookies(anns, bobs)), http.StatusOK)

	both := ginauth.Config{Transports: []ginauth.Transport{ginauth.Cookie{}, ginauth.Bearer{}}}
	wantCode(t, "beside a header", request(engine(h.auth(t, both)), "GET", "/me", inCookies(anns, bobs), inHeader(anns)), http.StatusOK)
	h.wantLive(t, "afterwards", true, anns, bobs)
}

// If a look-up fails, it is unknown whether the cookies are of one user.
func TestFailedLookUpOfASecondCookieIs503(t *testing.T) {
	h := newRig(t)
	live := h.token(t)
	r := engine(h.auth(t, onlyCookie))
	wantCode(t, "before", request(r, "GET", "/me", inCookies(live, unknownToken(t))), http.StatusOK)
	tokens := &secondFails{faultyTokens: h.tokens}
	var err error
	if h.sessions, err = strategy.NewDatabase(tokens, h.users, strategy.Config{}); err != nil {
		t.Fatal(err)
	}
	r = engine(h.auth(t, onlyCookie))
	wantCode(t, "guard", request(r, "GET", "/me", inCookies(live, unknownToken(t))), http.StatusServiceUnavailable)
	tokens.n = 0
	w := request(r, "POST", "/logout", inCookies(live, unknownToken(t)))
	wantCode(t, "log out", w, http.StatusServiceUnavailable)
	wantSetCookie(t, "log out", w, false)
}

// secondFails fails every look-up but the first.
type secondFails struct {
	*faultyTokens
	n int
}

func (s *secondFails) ByToken(ctx context.Context, digest string) (strategy.AccessToken[uuid.UUID], error) {
	if s.n++; s.n > 1 {
		return strategy.AccessToken[uuid.UUID]{}, errDown
	}
	return s.faultyTokens.ByToken(ctx, digest)
}

func TestLogoutEndsTheSessionsOfAllCookies(t *testing.T) {
	for _, c := range []struct {
		what string
		sent func(t *testing.T, h *rig) (sent, live []string)
		code int
	}{
		{"junk first", func(t *testing.T, h *rig) ([]string, []string) {
			token := h.token(t)
			return []string{"a", "b", "c", "d", token}, []string{token}
		}, 204},
		{"a dead one first", func(t *testing.T, h *rig) ([]string, []string) {
			token := h.token(t)
			return []string{unknownToken(t), token}, []string{token}
		}, 204},
		{"sessions of one user", func(t *testing.T, h *rig) ([]string, []string) {
			tokens := []string{h.token(t), h.token(t), h.token(t), h.token(t)}
			return tokens, tokens
		}, 204},
		{"sessions of two users", func(t *testing.T, h *rig) ([]string, []string) {
			tokens := []string{h.token(t), h.tokenOfBob(t)}
			return tokens, tokens
		}, 204},
		{"dead ones alone", func(t *testing.T, h *rig) ([]string, []string) {
			return []string{unknownToken(t), unknownToken(t)}, nil
		}, 401},
		{"junk alone", func(*testing.T, *rig) ([]string, []string) { return []string{"a", "b"}, nil }, 401},
	} {
		t.Run(c.what, func(t *testing.T) {
			h := newRig(t)
			sent, live := c.sent(t, h)
			other := h.token(t)
			w := request(engine(h.auth(t, onlyCookie)), "POST", "/logout", inCookies(sent...))
			wantCode(t, "log out", w, c.code)
			wantSetCookie(t, "log out", w, true)
			h.wantLive(t, "afterwards", false, live...)
			h.wantLive(t, "a session elsewhere", true, other)
		})
	}
}

// browser keeps the cookies of sessions as browsers do: by name, domain and path.
type browser struct {
	h       http.Handler
	cookies []*http.Cookie
}

func (b *browser) do(method, path, form string) *httptest.ResponseRecorder {
	w := sendForm(b.h, method, path, form, b.header())
	for _, line := range w.Header()["Set-Cookie"] {
		set, err := http.ParseSetCookie(line)
		if err != nil {
			panic(err)
		}
		b.cookies = slices.DeleteFunc(b.cookies, func(old *http.Cookie) bool {
			return old.Name == set.Name && old.Domain == set.Domain && old.Path == set.Path
		})
		if set.MaxAge >= 0 && !strings.HasSuffix(set.Name, "-device") {
			b.cookies = append(b.cookies, set)
		}
	}
	return w
}

func (b *browser) header() option {
	return func(r *http.Request) {
		for _, c := range b.cookies {
			if strings.HasPrefix(r.URL.Path, c.Path) {
				r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
			}
		}
	}
}

// sendForm sends a form by any method.
func sendForm(h http.Handler, method, path, form string, options ...option) *httptest.ResponseRecorder {
	return post(h, path, form, append(options, func(r *http.Request) { r.Method = method })...)
}

func TestChangeOfDomainOrPathLocksNobodyOut(t *testing.T) {
	const name = "session"
	plain := ginauth.Cookie{Name: name}
	domain := ginauth.Cookie{Name: name, Domain: "example.com"}
	path := ginauth.Cookie{Name: name, Path: "/app"}
	both := ginauth.Cookie{Name: name, Domain: "example.com", Path: "/app"}
	for what, change := range map[string][2]ginauth.Cookie{
		"a domain":            {plain, domain},
		"no domain":           {domain, plain},
		"a path":              {plain, path},
		"no path":             {path, plain},
		"domain and path":     {plain, both},
		"path, with a domain": {domain, both},
		"domain, with a path": {path, both},
	} {
		t.Run(what, func(t *testing.T) {
			h := newRig(t)
			serve := func(cookie ginauth.Cookie) http.Handler {
				auth := h.auth(t, ginauth.Config{Transports: []ginauth.Transport{cookie}})
				r := gin.New()
				app := r.Group("/app")
				auth.Routes(app)
				app.GET("/me", auth.RequireUser(), welcome)
				return r
			}
			const login = "username=ann@example.com&password=" + password
			b := &browser{h: serve(change[0])}
			wantCode(t, "log in", b.do("POST", "/app/login", login), http.StatusNoContent)
			before := b.cookies[0].Value

			b.h = serve(change[1])
			wantCode(t, "the old cookie after the change", b.do("GET", "/app/me", ""), http.StatusOK)
			wantCode(t, "log in after the change", b.do("POST", "/app/login", login), http.StatusNoContent)
			wantCode(t, "guard after the login", b.do("GET", "/app/me", ""), http.StatusOK)
			wantCode(t, "reauthenticate", b.do("POST", "/app/reauthenticate", "password="+password), http.StatusNoContent)
			wantCode(t, "guard after the reauthentication", b.do("GET", "/app/me", ""), http.StatusOK)
			h.wantLive(t, "the old session", false, before)

			var live []string
			for _, c := range b.cookies {
				live = append(live, c.Value)
			}
			wantCode(t, "log out", b.do("POST", "/app/logout", ""), http.StatusNoContent)
			h.wantLive(t, "after the log-out", false, live...)
			wantCode(t, "guard after the log-out", b.do("GET", "/app/me", ""), http.StatusUnauthorized)
			if c := change[1]; c != plain && len(b.cookies) > 0 {
				t.Errorf("got the cookies %v after the log-out, want none", b.cookies)
			}
		})
	}
}

func TestLogoutClearsEveryScope(t *testing.T) {
	const gone = "=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; HttpOnly; Secure; SameSite=Lax"
	for what, c := range map[string]struct {
		cookie ginauth.Cookie
		want   []string // Path and Domain
	}{
		"default":         {ginauth.Cookie{Name: "a"}, []string{"Path=/"}},
		"domain":          {ginauth.Cookie{Name: "a", Domain: "example.com"}, []string{"Path=/; Domain=example.com", "Path=/"}},
		"path":            {ginauth.Cookie{Name: "a", Path: "/app"}, []string{"Path=/app", "Path=/"}},
		"domain and path": {ginauth.Cookie{Name: "a", Domain: "example.com", Path: "/app"}, []string{"Path=/app; Domain=example.com", "Path=/; Domain=example.com", "Path=/app", "Path=/"}},
	} {
		h := newRig(t)
		w := request(engine(h.auth(t, ginauth.Config{Transports: []ginauth.Transport{c.cookie}})), "POST", "/logout", header("Cookie", "a="+h.token(t)))
		wantCode(t, what, w, http.StatusNoContent)
		var want []string
		for _, scope := range c.want {
			want = append(want, strings.Replace("a"+gone, "=; ", "=; "+scope+"; ", 1))
		}
		if got := w.Header()["Set-Cookie"]; !slices.Equal(got, want) {
			t.Errorf("%s:\n got %q\nwant %q", what, got, want)
		}
	}
}
