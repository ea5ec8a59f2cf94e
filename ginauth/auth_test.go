package ginauth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/internal/sameuser"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// callback serves a handler that logs a user in without a password, and answers.
func callback(t testing.TB, auth *ginauth.Auth[member], user member, wantErr error) http.Handler {
	r := gin.New()
	r.GET("/callback", func(c *gin.Context) {
		issued, err := auth.Login(c, user)
		if (wantErr == nil) != sameuser.Equal(issued.Session.User, user) {
			t.Errorf("Login: got the session %+v, want the error %v", issued.Session, wantErr)
		}
		wantVerdict(t, "Login", err, wantErr)
		if c.Writer.Written() || c.Writer.Status() != http.StatusOK {
			t.Errorf("Login: got the status %d written, want none", c.Writer.Status())
		}
		if err != nil {
			auth.Refuse(c, err)
			return
		}
		auth.Answer(c, issued)
	})
	r.GET("/me", auth.RequireUser(), welcome)
	return r
}

func TestLoginIssuesABearerToken(t *testing.T) {
	h := newRig(t)
	r := callback(t, h.auth(t, ginauth.Config{}), h.ann, nil)
	w := request(r, "GET", "/callback")
	wantCode(t, "callback", w, http.StatusOK)
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("got Cache-Control %q, want no-store", got)
	}
	token := accessToken(t, w)
	wantCode(t, "use the token", request(r, "GET", "/me", inHeader(token)), http.StatusOK)
}

func TestLoginSetsACookie(t *testing.T) {
	h := newRig(t)
	r := callback(t, h.auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Cookie{}}}), h.ann, nil)
	w := request(r, "GET", "/callback")
	wantCode(t, "callback", w, http.StatusNoContent)
	token := cookieValue(t, w.Header().Get("Set-Cookie"), "__Host-latchkey")
	if w.Body.Len() > 0 {
		t.Errorf("got the body %q, want none", w.Body)
	}
	wantCode(t, "use the cookie", request(r, "GET", "/me", inCookie(token)), http.StatusOK)
}

func TestLoginThenRedirect(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Cookie{}}})
	r := gin.New()
	r.GET("/callback", func(c *gin.Context) {
		if _, err := auth.Login(c, h.ann); err != nil {
			t.Errorf("got the error %v, want none", err)
		}
		c.Redirect(http.StatusSeeOther, "/home")
	})
	r.GET("/me", auth.RequireUser(), welcome)
	w := request(r, "GET", "/callback")
	wantCode(t, "callback", w, http.StatusSeeOther)
	if got := w.Header().Get("Location"); got != "/home" {
		t.Errorf("got Location %q, want /home", got)
	}
	token := cookieValue(t, w.Header().Get("Set-Cookie"), "__Host-latchkey")
	if strings.Contains(w.Body.String(), token) {
		t.Errorf("got the body %q, want the token in the cookie alone", w.Body)
	}
	wantCode(t, "use the cookie", request(r, "GET", "/me", inCookie(token)), http.StatusOK)
}

func TestRefusedLoginIssuesNothing(t *testing.T) {
	for _, transport := range []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}} {
		h := newRig(t)
		auth := h.auth(t, ginauth.Config{Transports: []ginauth.Transport{transport}})
		inactive := h.ann
		inactive.Active = false
		refused := request(callback(t, auth, inactive, strategy.ErrUserInactive), "GET", "/callback")
		wantCode(t, "inactive user", refused, http.StatusBadRequest)

		h.tokens.full = true
		failed := request(callback(t, auth, h.ann, errDown), "GET", "/callback")
		wantCode(t, "store fails", failed, http.StatusServiceUnavailable)
		if got := failed.Header().Get("Retry-After"); got != "1" {
			t.Errorf("store fails: got Retry-After %q, want 1", got)
		}
		for _, w := range []*httptest.ResponseRecorder{refused, failed} {
			if got := w.Header().Values("Set-Cookie"); len(got) > 0 {
				t.Errorf("%d: got Set-Cookie %q, want none", w.Code, got)
			}
		}
	}
}

func TestLoginRoutesNeedAnAuthenticator(t *testing.T) {
	h := newRig(t)
	for what, c := range map[string]struct {
		login ginauth.Authenticator[member]
		want  bool
	}{"with an Authenticator": {h.accounts, true}, "without": {nil, false}} {
		auth, err := ginauth.New(h.sessions, c.login, ginauth.Config{})
		if err != nil {
			t.Fatal(err)
		}
		r := engine(auth)
		for _, route := range []struct {
			method, path string
			want         bool
		}{
			{"POST", "/login", c.want}, {"POST", "/reauthenticate", c.want},
			{"POST", "/logout", true}, {"GET", "/sessions", true}, {"DELETE", "/sessions/x", true}, {"POST", "/logout-all", true},
			{"POST", "/introspect", false},
		} {
			if got := request(r, route.method, route.path).Code != http.StatusNotFound; got != route.want {
				t.Errorf("%s: got %s %s registered: %v, want %v", what, route.method, route.path, got, route.want)
			}
		}
		wantCode(t, "log out", request(r, "POST", "/logout", inHeader(h.token(t))), http.StatusNoContent)
	}
}

func TestUnanswerableChecksAre503(t *testing.T) {
	h := newRig(t)
	var heard []event.Event
	auth := h.auth(t, ginauth.Config{OnEvent: func(_ context.Context, e event.Event) { heard = append(heard, e) }})
	other, err := ginauth.New(otherStrategy{}, nil, ginauth.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for what, check := range map[string]ginauth.Check{
		"a check of another user type": other.CheckUser(func(context.Context, strategy.Session[account.User[int64]]) (bool, error) { return true, nil }),
		"the zero Check":               {},
		"a nil function":               auth.CheckUser(nil),
	} {
		for _, guard := range []gin.HandlerFunc{auth.RequireUser(check), auth.OptionalUser(check)} {
			heard = nil
			wantCode(t, what, request(guarded(guard), "GET", "/", inHeader(h.token(t))), http.StatusServiceUnavailable)
			if len(heard) != 1 || heard[0].Kind != event.StoreFailed || heard[0].UserID != h.ann.ID {
				t.Errorf("%s: got the events %+v, want %q of Ann", what, heard, event.StoreFailed)
			}
		}
	}
}

// otherStrategy is of another user type.
type otherStrategy struct {
	ginauth.Strategy[account.User[int64]]
}

func (otherStrategy) Lifetime() time.Duration { return 0 }

func (otherStrategy) WellFormed(string) bool { return false }

func TestCheckErrorsAre503WhateverTheyWrap(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{})
	for _, sentinel := range append(slices.Clone(verdicts), errDown) {
		fails := auth.CheckUser(func(context.Context, strategy.Session[member]) (bool, error) {
			return false, fmt.Errorf("ask another service: %w", sentinel)
		})
		w := request(guarded(auth.RequireUser(fails)), "GET", "/", inHeader(h.token(t)))
		wantCode(t, sentinel.Error(), w, http.StatusServiceUnavailable)
	}
}

func TestChecksRunInOrderUntilOneRejects(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{})
	var ran []string
	check := func(name string, pass bool) ginauth.Check {
		return auth.CheckUser(func(_ context.Context, s strategy.Session[member]) (bool, error) {
			if !sameuser.Equal(s.User, h.ann) || s.ID == uuid.Nil {
				t.Errorf("the check %s: got the session %+v, want one of %+v", name, s, h.ann)
			}
			ran = append(ran, name)
			return pass, nil
		})
	}
	r := guarded(auth.RequireUser(check("first", true), check("second", false), check("third", true)))
	wantCode(t, "guard", request(r, "GET", "/", inHeader(h.token(t))), http.StatusForbidden)
	if want := []string{"first", "second"}; !slices.Equal(ran, want) {
		t.Errorf("got the checks %q, want %q", ran, want)
	}
}

func TestNoUserWithoutAGuard(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{})
	r := guarded(func(c *gin.Context) {
		if user, ok := auth.CurrentUser(c); ok {
			t.Errorf("got the user %+v, want none", user)
		}
	})
	wantCode(t, "valid token", request(r, "GET", "/", inHeader(h.token(t))), http.StatusOK)

	c, _ := gin.CreateTestContext(httptest.NewRecorder())
	if session, ok := auth.CurrentSession(c); ok {
		t.Errorf("without a request: got the session %+v, want none", session)
	}
}

func TestRequireUserBehindOptionalUser(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{})
	r := guarded(auth.OptionalUser(), auth.RequireUser())
	wantCode(t, "no token", request(r, "GET", "/"), http.StatusUnauthorized)
	wantCode(t, "malformed token", request(r, "GET", "/", inHeader("malformed")), http.StatusUnauthorized)
	wantCode(t, "valid token", request(r, "GET", "/", inHeader(h.token(t))), http.StatusOK)

	r = guarded(auth.OptionalUser(ginauth.Superuser), auth.RequireUser())
	wantCode(t, "user who fails the optional check", request(r, "GET", "/", inHeader(h.token(t))), http.StatusOK)
}

// leavingClient cancels the request's context once the user was read, as a client that
// hangs up does.
type leavingClient struct {
	strategy.UserSource[member, uuid.UUID]
	hangUp context.CancelFunc
}

func (s leavingClient) ByID(ctx context.Context, id uuid.UUID) (member, error) {
	defer s.hangUp()
	return s.UserSource.ByID(ctx, id)
}

// deletes records the error of the context of each delete.
type deletes struct {
	*memstore.Tokens[uuid.UUID]
	withErr []error
}

func (s *deletes) Delete(ctx context.Context, digest string) (strategy.AccessToken[uuid.UUID], error) {
	s.withErr = append(s.withErr, ctx.Err())
	return s.Tokens.Delete(ctx, digest)
}

func (s *deletes) DeleteSession(ctx context.Context, userID, id uuid.UUID) (strategy.AccessToken[uuid.UUID], error) {
	s.withErr = append(s.withErr, ctx.Err())
	return s.Tokens.DeleteSession(ctx, userID, id)
}

func TestLogoutOutlivesTheClient(t *testing.T) {
	h := newRig(t)
	ctx, hangUp := context.WithCancel(t.Context())
	tokens := &deletes{Tokens: h.tokens.Tokens}
	sessions, err := strategy.NewDatabase(tokens, leavingClient{h.users, hangUp}, strategy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	auth, err := ginauth.New(sessions, nil, ginauth.Config{})
	if err != nil {
		t.Fatal(err)
	}
	token := h.token(t)
	w := request(engine(auth), "POST", "/logout", inHeader(token), func(r *http.Request) { *r = *r.WithContext(ctx) })
	wantCode(t, "log out", w, http.StatusNoContent)
	if ctx.Err() == nil {
		t.Fatal("the client did not hang up")
	}
	if want := []error{nil}; !slices.Equal(tokens.withErr, want) {
		t.Errorf("got deletes with the context errors %v, want %v", tokens.withErr, want)
	}
	if _, err := h.sessions.ReadToken(t.Context(), token); !errors.Is(err, strategy.ErrInvalidToken) {
		t.Errorf("read the token afterwards: got %v, want %v", err, strategy.ErrInvalidToken)
	}
}

func TestGuardsWorkBehindLoggerAndRecovery(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{})
	panics := auth.CheckUser(func(context.Context, strategy.Session[member]) (bool, error) { panic("the check is broken") })
	var log bytes.Buffer
	r := gin.New()
	r.Use(gin.LoggerWithWriter(&log), gin.RecoveryWithWriter(&log))
	auth.Routes(r)
	r.GET("/me", auth.RequireUser(), welcome)
	r.GET("/panic", auth.RequireUser(panics), welcome)

	token := h.token(t)
	wantCode(t, "no token", request(r, "GET", "/me"), http.StatusUnauthorized)
	wantCode(t, "Ann", request(r, "GET", "/me", inHeader(token)), http.StatusOK)
	wantCode(t, "check that panics", request(r, "GET", "/panic", inHeader(token)), http.StatusInternalServerError)
	wantCode(t, "log in", logIn(r), http.StatusOK)
	wantCode(t, "log out", request(r, "POST", "/logout", inHeader(token)), http.StatusNoContent)
	wantCode(t, "Ann, logged out", request(r, "GET", "/me", inHeader(token)), http.StatusUnauthorized)
	for _, secret := range []string{token, password} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("got the log %s, want %q not in it", &log, secret)
		}
	}
}

func TestAuthsOverOneStrategyKeepTheirTransports(t *testing.T) {
	h := newRig(t)
	api := h.auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}}})
	web := h.auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Cookie{}}})
	r := gin.New()
	api.Routes(r.Group("/api"))
	web.Routes(r.Group("/web"))
	r.GET("/me", api.RequireUser(), welcome)
	r.GET("/page", web.RequireUser(), welcome)
	r.GET("/both", api.RequireUser(), web.RequireUser(), welcome)

	token := h.token(t)
	wantCode(t, "header at the API", request(r, "GET", "/me", inHeader(token)), http.StatusOK)
	wantCode(t, "cookie at the API", request(r, "GET", "/me", inCookie(token)), http.StatusOK)
	wantCode(t, "header on the web", request(r, "GET", "/page", inHeader(token)), http.StatusUnauthorized)
	wantCode(t, "cookie on the web", request(r, "GET", "/page", inCookie(token)), http.StatusOK)
	// Each Auth asks for its own transport.
	wantCode(t, "header at both", request(r, "GET", "/both", inHeader(token)), http.StatusUnauthorized)
	wantCode(t, "cookie at both", request(r, "GET", "/both", inCookie(token)), http.StatusOK)

	wantCode(t, "log out on the web", request(r, "POST", "/web/logout", inCookie(token)), http.StatusNoContent)
	wantCode(t, "header at the API, logged out", request(r, "GET", "/me", inHeader(token)), http.StatusUnauthorized)
}

// strangeStrategy knows one token, "good", and fails otherwise with an error of the test's
// choice.
type strangeStrategy struct{ err error }

func (s strangeStrategy) WriteToken(context.Context, member, ...strategy.TokenOption) (strategy.Secret, strategy.Session[member], error) {
	return strategy.Secret{}, strategy.Session[member]{}, s.err
}

func (s strangeStrategy) ReadToken(_ context.Context, token string) (*strategy.Session[member], error) {
	if token == "good" {
		return &strategy.Session[member]{User: member{Active: true}}, nil
	}
	return nil, s.err
}

func (strangeStrategy) WellFormed(string) bool { return true }

func (s strangeStrategy) RotateToken(context.Context, string, ...strategy.RotateOption) (strategy.Secret, strategy.Session[member], error) {
	return strategy.Secret{}, strategy.Session[member]{}, s.err
}

func (s strangeStrategy) DestroyToken(context.Context, string) error { return s.err }

func (s strangeStrategy) Watch(ctx context.Context, _ string, _ strategy.SessionInfo) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	cancel(s.err)
	return ctx, func() {}
}

func (s strangeStrategy) Of(member) strategy.UserSessions { return strangeSessions(s) }

func (s strangeStrategy) Lifetime() time.Duration { return 0 }

func (s strangeStrategy) Prefix() string { return "lk_" }

// strangeSessions fails like strangeStrategy.
type strangeSessions struct{ err error }

func (strangeSessions) UserID() any { return nil }

func (strangeSessions) Subject() string { return "" }

func (s strangeSessions) List(context.Context, strategy.Page) (strategy.SessionPage, error) {
	return strategy.SessionPage{}, s.err
}

func (s strangeSessions) Rename(context.Context, uuid.UUID, string) error { return s.err }

func (s strangeSessions) Destroy(context.Context, uuid.UUID) error { return s.err }

func (s strangeSessions) DestroyAll(context.Context, ...uuid.UUID) error { return s.err }

// passwords accepts every password, or fails with an error.
type passwords struct{ err error }

func (p passwords) Authenticate(context.Context, string, string, string) (member, string, error) {
	return member{Active: true}, "", p.err
}

func (p passwords) Reauthenticate(context.Context, member, string) (member, error) {
	return member{Active: true}, p.err
}

// An error decides something only where the call may return it. Elsewhere it is a failure,
// whatever it wraps, and logs nobody out.
func TestErrorsOutOfPlaceAre503(t *testing.T) {
	for _, sentinel := range []error{
		strategy.ErrInvalidToken, strategy.ErrTokenNotFound, strategy.ErrDuplicateToken,
		strategy.ErrUserNotFound, strategy.ErrUserInactive, account.ErrBadCredentials,
		strategy.ErrSessionNotFound, strategy.ErrInvalidCursor, strategy.ErrInvalidOption,
		ginauth.ErrNoCredentials, ginauth.ErrNotFresh, ginauth.ErrCrossOrigin, ginauth.ErrNotVerified,
		account.ErrEmailTaken, account.ErrInvalidEmail, account.ErrInvalidPassword, account.ErrConflict,
		context.Canceled, context.DeadlineExceeded, http.ErrNoCookie,
	} {
		t.Run(sentinel.Error(), func(t *testing.T) {
			wrapped := fmt.Errorf("ask another service: %w", sentinel)
			serve := func(login error) (*gin.Engine, *ginauth.Auth[member]) {
				auth, err := ginauth.New(strangeStrategy{wrapped}, passwords{login}, ginauth.Config{})
				if err != nil {
					t.Fatal(err)
				}
				r := engine(auth)
				if err := auth.Introspection(r, ginauth.Scopes(), auth.CheckUser(anybody)); err != nil {
					t.Fatal(err)
				}
				return r, auth
			}
			r, auth := serve(wrapped)
			rightPassword, _ := serve(nil)
			good, bad, want := inHeader("good"), inHeader("bad"), codeOf(sentinel)

			wantCode(t, "guard", request(r, "GET", "/me", bad), want(strategy.ErrInvalidToken, http.StatusUnauthorized))
			wantCode(t, "log in", logIn(r), want(account.ErrBadCredentials, http.StatusBadRequest))
			wantCode(t, "log in with the right password", logIn(rightPassword), want(strategy.ErrUserInactive, http.StatusBadRequest))
			wantCode(t, "log out", request(r, "POST", "/logout", good), want(strategy.ErrSessionNotFound, http.StatusNoContent))
			wantCode(t, "log out with a bad token", request(r, "POST", "/logout", bad), http.StatusServiceUnavailable)
			wantCode(t, "list", request(r, "GET", "/sessions", good), want(strategy.ErrInvalidCursor, http.StatusUnprocessableEntity))
			wantCode(t, "end", request(r, "DELETE", "/sessions/"+uuid.NewString(), good), want(strategy.ErrSessionNotFound, http.StatusNotFound))
			wantCode(t, "log out everywhere", request(r, "POST", "/logout-all", good), http.StatusServiceUnavailable)
			wantCode(t, "check the password", post(r, "/reauthenticate", "password=x", good), want(account.ErrBadCredentials, http.StatusBadRequest))
			wantCode(t, "rotate", post(rightPassword, "/reauthenticate", "password=x", good), want(strategy.ErrInvalidToken, http.StatusUnauthorized))
			wantCode(t, "introspect", post(r, "/introspect", "token=bad", good), want(strategy.ErrInvalidToken, http.StatusOK))

			// Login hides a verdict that it may not return, and keeps other errors.
			wantErr := sentinel
			if sentinel != strategy.ErrUserInactive && slices.Contains(verdicts, sentinel) {
				wantErr = errFailure
			}
			issued := request(callback(t, auth, member{Active: true}, wantErr), "GET", "/callback")
			wantCode(t, "issue", issued, want(strategy.ErrUserInactive, http.StatusBadRequest))
		})
	}
}

func anybody(context.Context, strategy.Session[member]) (bool, error) { return true, nil }

// codeOf returns a function for the expected status: otherwise, if the sentinel is the
// error that the call may return, else 503.
func codeOf(sentinel error) func(allowed error, otherwise int) int {
	return func(allowed error, otherwise int) int {
		if sentinel == allowed {
			return otherwise
		}
		return http.StatusServiceUnavailable
	}
}

func TestEventsOfRejectedRequests(t *testing.T) {
	h := newRig(t)
	var heard []event.Event
	auth := h.auth(t, ginauth.Config{
		RequireVerified: true,
		Now:             func() time.Time { return noon.In(time.FixedZone("", 3600)) },
		OnEvent:         func(_ context.Context, e event.Event) { heard = append(heard, e) },
	})
	r := engine(auth)
	fails := auth.CheckUser(func(context.Context, strategy.Session[member]) (bool, error) { return false, errDown })
	r.GET("/verified", auth.RequireUser(ginauth.Verified), welcome)
	r.GET("/checked", auth.RequireUser(fails), welcome)
	r.GET("/optional", auth.OptionalUser(ginauth.Verified), welcome)
	inactive := h.ann
	inactive.Active = false
	r.GET("/inactive", func(c *gin.Context) { _, _ = auth.Login(c, inactive) })

	secret, session, err := h.sessions.WriteToken(t.Context(), h.ann)
	if err != nil {
		t.Fatal(err)
	}
	good := inHeader(secret.Reveal())
	denied := func(kind event.Kind, reason event.Reason, user any, id uuid.UUID) []event.Event {
		return []event.Event{{Kind: kind, Reason: reason, UserID: user, SessionID: id, ClientIP: "192.0.2.1", Time: noon}}
	}
	access, login := event.AccessDenied, event.LoginDenied
	for _, c := range []struct {
		what string
		do   func() *httptest.ResponseRecorder
		want []event.Event
	}{
		{"no token", func() *httptest.ResponseRecorder { return request(r, "GET", "/me") },
			denied(access, event.ReasonNoCredentials, nil, uuid.Nil)},
		{"malformed header", func() *httptest.ResponseRecorder { return request(r, "GET", "/me", inHeader("a b")) },
			denied(access, event.ReasonBadRequest, nil, uuid.Nil)},
		{"check rejects", func() *httptest.ResponseRecorder { return request(r, "GET", "/verified", good) },
			denied(access, event.ReasonForbidden, h.ann.ID, session.ID)},
		{"log out without a token", func() *httptest.ResponseRecorder { return request(r, "POST", "/logout") },
			denied(access, event.ReasonNoCredentials, nil, uuid.Nil)},
		{"log in unverified", func() *httptest.ResponseRecorder { return logIn(r) },
			denied(login, event.ReasonUserUnverified, h.ann.ID, uuid.Nil)},
		{"log an inactive user in", func() *httptest.ResponseRecorder { return request(r, "GET", "/inactive") },
			denied(login, event.ReasonUserInactive, h.ann.ID, uuid.Nil)},

		{"invalid token, which the strategy reports", func() *httptest.ResponseRecorder { return request(r, "GET", "/me", inHeader("x")) }, nil},
		{"valid token", func() *httptest.ResponseRecorder { return request(r, "GET", "/me", good) }, nil},
		{"optional guard without a token", func() *httptest.ResponseRecorder { return request(r, "GET", "/optional") }, nil},
		{"optional guard with a rejected user", func() *httptest.ResponseRecorder { return request(r, "GET", "/optional", good) }, nil},
	} {
		heard = nil
		c.do()
		if !slices.Equal(heard, c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", c.what, heard, c.want)
		}
	}

	heard = nil
	wantCode(t, "check fails", request(r, "GET", "/checked", good), http.StatusServiceUnavailable)
	if len(heard) != 1 || heard[0].Kind != event.StoreFailed || heard[0].SessionID != session.ID || !errors.Is(heard[0].Err, errDown) {
		t.Errorf("check fails: got %+v, want %q of session %v with the error %q", heard, event.StoreFailed, session.ID, errDown)
	}
}

func TestNoRequestIsAcceptedAfterLogout(t *testing.T) {
	h := newRig(t)
	r := engine(h.auth(t, ginauth.Config{}))
	for range 20 {
		token := h.token(t)
		var answered atomic.Bool
		var accepted, clients sync.WaitGroup
		for range 8 {
			accepted.Add(1)
			clients.Go(func() {
				once := sync.OnceFunc(accepted.Done)
				for {
					after := answered.Load()
					got := request(r, "GET", "/me", inHeader(token)).Code
					switch {
					case got == http.StatusOK && after:
						t.Error("after the log-out was answered: got 200, want 401")
					case got != http.StatusOK && got != http.StatusUnauthorized:
						t.Errorf("around the log-out: got %d, want 200 or 401", got)
					}
					once()
					if after {
						return
					}
				}
			})
		}
		accepted.Wait() // each client has had an answer
		wantCode(t, "log out", request(r, "POST", "/logout", inHeader(token)), http.StatusNoContent)
		answered.Store(true)
		clients.Wait()
	}
}

// In a synctest bubble, a leaked goroutine is a deadlock.
func TestNoGoroutineIsStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRig(t)
		r := engine(h.auth(t, ginauth.Config{}))
		token := accessToken(t, logIn(r))
		wantCode(t, "guard", request(r, "GET", "/me", inHeader(token)), http.StatusOK)
		wantCode(t, "log out", request(r, "POST", "/logout", inHeader(token)), http.StatusNoContent)
	})
}
