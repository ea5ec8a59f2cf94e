package ginauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/strategy"
)

func TestIntrospectionByAScopedToken(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{})
	r := gin.New()
	// A login has all scopes: every user could inspect every token.
	if err := auth.Introspection(r, ginauth.Scopes("introspect"), ginauth.Verified); err == nil {
		t.Error("got no error without a check that rejects ordinary users")
	}
	service := auth.CheckUser(func(_ context.Context, s strategy.Session[member]) (bool, error) { return s.Scoped(), nil })
	if err := auth.Introspection(r, ginauth.Scopes("introspect"), service); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "a login", post(r, "/introspect", "token="+h.token(t), inHeader(h.token(t))), http.StatusForbidden)
	for scope, want := range map[string]int{"introspect": http.StatusOK, "deploy:write": http.StatusForbidden} {
		secret, _, err := h.sessions.WriteToken(t.Context(), h.ann, strategy.WithScopes(scope))
		if err != nil {
			t.Fatal(err)
		}
		wantCode(t, scope, post(r, "/introspect", "token="+h.token(t), inHeader(secret.Reveal())), want)
	}
}

func TestRenewNeedsAGuard(t *testing.T) {
	h := newRig(t)
	auth, other := h.auth(t, ginauth.Config{}), h.auth(t, ginauth.Config{})
	renew := func(c *gin.Context) {
		issued, err := auth.Renew(c, h.ann)
		if err == nil || issued.Token.Reveal() != "" {
			t.Errorf("got %+v and the error %v, want an error alone", issued, err)
		}
		auth.Refuse(c, err)
	}
	for what, handlers := range map[string][]gin.HandlerFunc{
		"no guard":              {renew},
		"guard of another Auth": {other.RequireUser(), renew},
		"optional guard":        {auth.OptionalUser(ginauth.Superuser), renew},
		"stale session":         {auth.OptionalUser(ginauth.Fresh(-1)), renew},
	} {
		token := h.token(t)
		wantCode(t, what, request(guarded(handlers...), "GET", "/", inHeader(token)), http.StatusServiceUnavailable)
		if _, err := h.sessions.ReadToken(t.Context(), token); err != nil {
			t.Errorf("%s: read the token afterwards: got %v, want it valid", what, err)
		}
	}
}

func TestRenewFollowsTheTransportOfTheRequest(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}}})
	r := gin.New()
	r.GET("/", auth.RequireUser(), func(c *gin.Context) {
		issued, err := auth.Renew(c, h.ann)
		if err != nil || issued.Session.User != h.ann {
			t.Errorf("got %+v and the error %v, want Ann's session", issued, err)
		}
		if c.Writer.Written() || c.Writer.Status() != http.StatusOK {
			t.Errorf("got the status %d written, want none", c.Writer.Status())
		}
		if session, _ := auth.CurrentSession(c); session.ID != issued.Session.ID {
			t.Errorf("got the current session %v, want %v", session.ID, issued.Session.ID)
		}
		if c.Query("redirect") != "" {
			c.Redirect(http.StatusSeeOther, "/home")
			return
		}
		auth.Answer(c, issued)
	})
	other := h.token(t)
	w := request(r, "GET", "/", inHeader(h.token(t)))
	token := accessToken(t, w)
	if got := w.Header().Values("Set-Cookie"); len(got) > 0 {
		t.Errorf("bearer: got Set-Cookie %q, want none", got)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("bearer: got Cache-Control %q, want no-store", got)
	}
	if _, err := h.sessions.ReadToken(t.Context(), token); err != nil {
		t.Errorf("bearer: read the new token: %v", err)
	}
	if _, err := h.sessions.ReadToken(t.Context(), other); !errors.Is(err, strategy.ErrInvalidToken) {
		t.Errorf("bearer: read the token of another session: got %v, want %v", err, strategy.ErrInvalidToken)
	}
	w = request(r, "GET", "/", inCookie(h.token(t)))
	wantCode(t, "cookie", w, http.StatusNoContent)
	w = request(r, "GET", "/?redirect=1", inCookie(h.token(t)))
	wantCode(t, "cookie and redirect", w, http.StatusSeeOther)
	token = cookieValue(t, w.Header().Get("Set-Cookie"), "__Host-latchkey")
	if strings.Contains(w.Body.String(), token) {
		t.Errorf("got the body %q, want the token in the cookie alone", w.Body)
	}
}

func TestLoginTakesOptions(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{BriefLifetime: time.Minute, Transports: []ginauth.Transport{ginauth.Cookie{}}})
	logIn := func(opts ...strategy.TokenOption) (session strategy.Session[member], set string) {
		r := guarded(func(c *gin.Context) {
			issued, err := auth.Login(c, h.ann, opts...)
			if err != nil {
				t.Errorf("got the error %v, want none", err)
			}
			session = issued.Session
			c.Abort()
		})
		set = request(r, "GET", "/", header("User-Agent", "Browser/1.0")).Header().Get("Set-Cookie")
		return session, set
	}
	s, set := logIn(strategy.WithName("laptop"))
	if got := s.ExpiresAt.Sub(s.CreatedAt); got != time.Minute || strings.Contains(set, "Max-Age") {
		t.Errorf("got a session of %v with the cookie %q, want a brief one", got, set)
	}
	if s.Name != "laptop" || s.UserAgent != "Browser/1.0" {
		t.Errorf("got %+v, want the given name and the request's user agent", s.SessionInfo)
	}
	s, set = logIn(strategy.WithLifetime(time.Hour), strategy.WithUserAgent("app"))
	if got := s.ExpiresAt.Sub(s.CreatedAt); got != time.Hour || !strings.Contains(set, "Max-Age=3600;") || s.UserAgent != "app" {
		t.Errorf("got %+v with the cookie %q, want an hour and the given user agent", s.SessionInfo, set)
	}
}

func TestLoginWithAnInvalidOptionIs503(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{})
	r := guarded(func(c *gin.Context) {
		_, err := auth.Login(c, h.ann, strategy.WithScopes())
		if !errors.Is(err, strategy.ErrInvalidOption) || !strings.Contains(err.Error(), "WithScopes") {
			t.Errorf("got the error %v, want %v that names WithScopes", err, strategy.ErrInvalidOption)
		}
		auth.Refuse(c, err)
	})
	wantCode(t, "log in", request(r, "GET", "/"), http.StatusServiceUnavailable)
}

func TestInvalidScopesAre503(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{})
	for _, scope := range []string{"", "a b", `a"`, `a\`, "a\r\nX: y", "é"} {
		r := guarded(auth.RequireUser(ginauth.Scopes(scope)))
		wantCode(t, scope, request(r, "GET", "/", inHeader(h.token(t))), http.StatusServiceUnavailable)
	}
}

func TestFreshUsesConfigNow(t *testing.T) {
	h := newRig(t)
	now := time.Now()
	auth := h.auth(t, ginauth.Config{Now: func() time.Time { return now }})
	r := guarded(auth.RequireUser(ginauth.Fresh(90*time.Second + 500*time.Millisecond)))
	token := inHeader(h.token(t))
	wantCode(t, "at once", request(r, "GET", "/", token), http.StatusOK)
	now = now.Add(2 * time.Minute)
	w := request(r, "GET", "/", token)
	wantCode(t, "two minutes later", w, http.StatusUnauthorized)
	const want = `Bearer realm="latchkey", error="insufficient_user_authentication", max_age="90"`
	if got := w.Header().Get("WWW-Authenticate"); got != want {
		t.Errorf("got WWW-Authenticate %q, want %q", got, want)
	}
}

func TestLoginFarAheadOfTheClockIsNotFresh(t *testing.T) {
	h := newRig(t)
	now := time.Now()
	auth := h.auth(t, ginauth.Config{Now: func() time.Time { return now }})
	r := guarded(auth.RequireUser(ginauth.Fresh(time.Minute)))
	for ahead, want := range map[time.Duration]int{
		0:                                 http.StatusOK,
		10 * time.Second:                  http.StatusOK,
		10*time.Second + time.Millisecond: http.StatusUnauthorized,
		time.Hour:                         http.StatusUnauthorized,
	} {
		at := strategy.WithAuthenticatedAt(now.Add(ahead))
		wantCode(t, fmt.Sprint(ahead, " ahead"), request(r, "GET", "/", inHeader(h.token(t, at))), want)
	}
}

func TestEventsNameTheCheckThatRejected(t *testing.T) {
	h := newRig(t)
	var heard []event.Event
	sessions, err := strategy.NewDatabase(h.tokens, h.users, strategy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	auth, err := ginauth.New(sessions, h.accounts, ginauth.Config{
		Now:     func() time.Time { return noon },
		OnEvent: func(_ context.Context, e event.Event) { heard = append(heard, e) },
	})
	if err != nil {
		t.Fatal(err)
	}
	r := engine(auth)
	r.GET("/fresh", auth.RequireUser(ginauth.Fresh(-1<<62)), welcome) // never
	r.GET("/deploy", auth.RequireUser(ginauth.Scopes("deploy:write")), welcome)
	issue := func(opts ...strategy.TokenOption) (option, uuid.UUID) {
		secret, session, err := sessions.WriteToken(t.Context(), h.ann, opts...)
		if err != nil {
			t.Fatal(err)
		}
		return inHeader(secret.Reveal()), session.ID
	}
	login, loginID := issue()
	scoped, scopedID := issue(strategy.WithScopes("deploy:read"))
	for _, c := range []struct {
		what string
		do   func() *httptest.ResponseRecorder
		want event.Event
	}{
		{"not fresh", func() *httptest.ResponseRecorder { return request(r, "GET", "/fresh", login) },
			event.Event{Kind: event.AccessDenied, Reason: event.ReasonNotFresh, SessionID: loginID, UserID: h.ann.ID, ClientIP: "192.0.2.1", Time: noon}},
		{"another scope", func() *httptest.ResponseRecorder { return request(r, "GET", "/deploy", scoped) },
			event.Event{Kind: event.AccessDenied, Reason: event.ReasonScope, SessionID: scopedID, UserID: h.ann.ID, ClientIP: "192.0.2.1", Time: noon}},
		{"a scoped token without Scopes", func() *httptest.ResponseRecorder { return request(r, "GET", "/sessions", scoped) },
			event.Event{Kind: event.AccessDenied, Reason: event.ReasonScope, SessionID: scopedID, UserID: h.ann.ID, ClientIP: "192.0.2.1", Time: noon}},
	} {
		heard = nil
		c.do()
		if !slices.Equal(heard, []event.Event{c.want}) {
			t.Errorf("%s:\n got %+v\nwant %+v", c.what, heard, c.want)
		}
	}
}

// A session ID has one spelling, in either case, so that a log shows what a client sent.
func FuzzSessionID(f *testing.F) {
	id := uuid.Must(uuid.NewV7()).String()
	for _, seed := range []string{
		id, strings.ToUpper(id), "{" + id + "}", "urn:uuid:" + id, strings.ReplaceAll(id, "-", ""), "", "x", id + "x",
		"x" + id[1:] + "x", strings.Repeat("-", 36), uuid.Nil.String(), "\x00", strings.Repeat("é", 18),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, ok := ginauth.ParseSessionID(s)
		if ok && strings.ToLower(s) != id.String() {
			t.Errorf("got %q accepted as %v", s, id)
		}
		if want, err := uuid.Parse(s); !ok && err == nil && want.String() == s {
			t.Errorf("got %q refused, want it accepted", s)
		}
		if ok {
			if again, ok := ginauth.ParseSessionID(id.String()); !ok || again != id {
				t.Errorf("got %v, %v for the spelling of %v", again, ok, id)
			}
		}
	})
}
