package ginauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

func TestRefuseAnswersAndAborts(t *testing.T) {
	auth := newRig(t).auth(t, ginauth.Config{})
	for _, c := range []struct {
		err       error
		code      int
		body      string
		challenge string
	}{
		{ginauth.ErrNoCredentials, 401, "Unauthorized", `Bearer realm="latchkey"`},
		{strategy.ErrInvalidToken, 401, "Unauthorized", `Bearer realm="latchkey", error="invalid_token"`},
		{ginauth.ErrCrossOrigin, 403, "CROSS_ORIGIN_REQUEST", ""},
		{ginauth.ErrNotVerified, 400, "LOGIN_USER_NOT_VERIFIED", ""},
		{account.ErrBadCredentials, 400, "LOGIN_BAD_CREDENTIALS", ""},
		{strategy.ErrUserInactive, 400, "LOGIN_BAD_CREDENTIALS", ""},
		{strategy.ErrSessionNotFound, 404, "NOT_FOUND", ""},
		{&account.TooManyAttemptsError{RetryAfter: time.Minute}, 429, "TOO_MANY_ATTEMPTS", ""},
		{fmt.Errorf("my page: %w", account.ErrBadCredentials), 400, "LOGIN_BAD_CREDENTIALS", ""},
		{account.ErrEmailTaken, 400, "REGISTER_USER_ALREADY_EXISTS", ""},
		{account.ErrUserNotFound, 404, "NOT_FOUND", ""},
		{account.ErrConflict, 409, "CONFLICT", ""},
		{account.ErrBusy, 503, "SERVICE_UNAVAILABLE", ""},
		{&ginauth.CodeError{Code: "OAUTH_INVALID_STATE"}, 400, "OAUTH_INVALID_STATE", ""},
		{fmt.Errorf("my page: %w", &ginauth.CodeError{Status: 404, Code: "NO_LINK", Err: strategy.ErrInvalidToken}), 404, "NO_LINK", ""},
		{&ginauth.CodeError{Code: `"}`}, 503, "SERVICE_UNAVAILABLE", ""},
		{&ginauth.CodeError{Code: "", Err: strategy.ErrInvalidToken}, 503, "SERVICE_UNAVAILABLE", ""},
		{&ginauth.CodeError{Code: "OK", Status: 200}, 503, "SERVICE_UNAVAILABLE", ""},
		{errDown, 503, "SERVICE_UNAVAILABLE", ""},
		{nil, 503, "SERVICE_UNAVAILABLE", ""},
	} {
		r := guarded(func(c2 *gin.Context) { auth.Refuse(c2, c.err) }, func(*gin.Context) { t.Errorf("%v: the next handler ran", c.err) })
		w := request(r, "GET", "/")
		wantCode(t, fmt.Sprint(c.err), w, c.code)
		if got, want := w.Body.String(), `{"detail":"`+c.body+`"}`; got != want {
			t.Errorf("%v: got the body %s, want %s", c.err, got, want)
		}
		if got := w.Header().Get("WWW-Authenticate"); got != c.challenge {
			t.Errorf("%v: got WWW-Authenticate %q, want %q", c.err, got, c.challenge)
		}
		if got := w.Header().Get("Content-Type"); got != "application/json; charset=utf-8" {
			t.Errorf("%v: got Content-Type %q, want JSON", c.err, got)
		}
	}
}

// The accounts reject input with errors that say why.
func TestRefuseSaysWhatIsInvalid(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{})
	for _, c := range []struct {
		name, email, password string
		code                  int
		body                  string
	}{
		{"a short password", "bob@example.com", "short", 400, `{"detail":{"code":"REGISTER_INVALID_PASSWORD","reason":"too short: less than 8 characters","reason_code":"PASSWORD_TOO_SHORT"}}`},
		{"no address", "bob", password, 422, `{"detail":[{"loc":["body","email"],"msg":"Input should be an e-mail address","type":"value_error"}]}`},
		{"a taken address", "ann@example.com", password, 400, `{"detail":"REGISTER_USER_ALREADY_EXISTS"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := h.accounts.Register(t.Context(), member{Email: c.email}, c.password)
			w := request(guarded(func(g *gin.Context) { auth.Refuse(g, err) }), "GET", "/")
			wantCode(t, c.name, w, c.code)
			if got := w.Body.String(); got != c.body {
				t.Errorf("got the body %s, want %s", got, c.body)
			}
		})
	}
}

func TestWrongUseIsAnEvent(t *testing.T) {
	h := newRig(t)
	var heard []event.Event
	auth := h.auth(t, ginauth.Config{OnEvent: func(_ context.Context, e event.Event) { heard = append(heard, e) }})
	for name, handler := range map[string]gin.HandlerFunc{
		"Renew":          func(c *gin.Context) { _, err := auth.Renew(c, h.ann); auth.Refuse(c, err) },
		"Reauthenticate": func(c *gin.Context) { _, err := auth.Reauthenticate(c, password); auth.Refuse(c, err) },
		"Answer":         func(c *gin.Context) { auth.Answer(c, ginauth.Issued[member]{}) },
	} {
		heard = nil
		wantCode(t, name, request(guarded(handler), "GET", "/"), http.StatusServiceUnavailable)
		if len(heard) != 1 || heard[0].Kind != event.StoreFailed || !strings.Contains(fmt.Sprint(heard[0].Err), name) {
			t.Errorf("%s: got the events %+v, want one that names the method", name, heard)
		}
	}
}

func TestFailuresAreReportedOnce(t *testing.T) {
	h := newRig(t)
	var heard []event.Event
	hear := func(_ context.Context, e event.Event) { heard = append(heard, e) }
	sessions, err := strategy.NewDatabase(&faults{Tokens: h.tokens.Tokens, write: errDown}, h.users, strategy.Config{OnEvent: hear})
	if err != nil {
		t.Fatal(err)
	}
	auth, err := ginauth.New(sessions, h.accounts, ginauth.Config{OnEvent: hear})
	if err != nil {
		t.Fatal(err)
	}
	accounts, err := account.NewManager(downUsers{h.users}, nil, nil, uuid.New, account.Config{InsecureNoLimiter: true, OnEvent: hear})
	if err != nil {
		t.Fatal(err)
	}
	for name, fail := range map[string]func(c *gin.Context) error{
		"an unknown error": func(*gin.Context) error { return errDown },
		"no error":         func(*gin.Context) error { return nil },
		"an option that the strategy rejects": func(c *gin.Context) error {
			_, err := auth.Login(c, h.ann, strategy.WithScopes())
			return err
		},
		"a failure that the strategy reported": func(c *gin.Context) error {
			_, err := auth.Login(c, h.ann)
			return fmt.Errorf("my page: %w", err)
		},
		"a failure that the accounts reported": func(c *gin.Context) error {
			return accounts.RevokeTokens(c.Request.Context(), h.ann.ID)
		},
		"a failure that a check got from the accounts": func(c *gin.Context) error {
			auth.RequireUser(auth.CheckUser(func(ctx context.Context, s strategy.Session[member]) (bool, error) {
				return true, accounts.RevokeTokens(ctx, s.User.ID)
			}))(c)
			return context.Canceled // the guard has answered
		},
	} {
		t.Run(name, func(t *testing.T) {
			heard = nil
			r := guarded(func(c *gin.Context) {
				if err := fail(c); !c.IsAborted() {
					auth.Refuse(c, err)
				}
			})
			wantCode(t, "the answer", request(r, "GET", "/", inHeader(h.token(t))), http.StatusServiceUnavailable)
			if len(heard) != 1 || heard[0].Kind != event.StoreFailed || heard[0].Err == nil {
				t.Errorf("got the events %+v, want one %s with the error", heard, event.StoreFailed)
			}
		})
	}
}

// downUsers cannot change accounts.
type downUsers struct {
	*memstore.Users[member, uuid.UUID]
}

func (downUsers) Apply(context.Context, uuid.UUID, account.Change) error { return errDown }

// A client that goes away while a check reads the database is no failure of the database.
func TestAbandonedCheckIsNoFailure(t *testing.T) {
	h := newRig(t)
	var heard []event.Event
	auth := h.auth(t, ginauth.Config{OnEvent: func(_ context.Context, e event.Event) { heard = append(heard, e) }})
	ctx, leave := context.WithCancel(t.Context())
	r := guarded(auth.RequireUser(auth.CheckUser(func(ctx context.Context, _ strategy.Session[member]) (bool, error) {
		leave()
		return false, ctx.Err()
	})))
	req := httptest.NewRequestWithContext(ctx, "GET", "/", nil)
	req.Header.Set("Authorization", "Bearer "+h.token(t))
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	wantCode(t, "abandoned", w, http.StatusServiceUnavailable)
	if len(heard) != 0 {
		t.Errorf("got the events %+v, want none", heard)
	}
}

func TestAnswerOfNothingIssuedIs503(t *testing.T) {
	auth := newRig(t).auth(t, ginauth.Config{})
	r := guarded(func(c *gin.Context) { auth.Answer(c, ginauth.Issued[member]{}) })
	wantCode(t, "answer", request(r, "GET", "/"), http.StatusServiceUnavailable)
}

func TestIssuedDoesNotPrintItsToken(t *testing.T) {
	h := newRig(t)
	for _, transport := range transportsByName {
		auth := h.auth(t, ginauth.Config{Transports: []ginauth.Transport{transport}})
		r := guarded(func(c *gin.Context) {
			issued, err := auth.Login(c, h.ann)
			if err != nil {
				t.Fatal(err)
			}
			encoded, err := json.Marshal(issued)
			if err != nil {
				t.Fatal(err)
			}
			for _, printed := range []string{fmt.Sprintf("%v %+v %#v", issued, issued, issued), string(encoded)} {
				if strings.Contains(printed, issued.Token.Reveal()) {
					t.Errorf("got the token in %s", printed)
				}
			}
		})
		wantCode(t, "log in", request(r, "GET", "/"), http.StatusOK)
	}
}

func TestOneApplicationAnswersLoginsBothWays(t *testing.T) {
	h := newRig(t)
	api := h.auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{SameSite: http.SameSiteStrictMode}}})
	web, err := api.AnswerLoginsWith(ginauth.Cookie{})
	if err != nil {
		t.Fatal(err)
	}
	again, err := web.AnswerLoginsWith(ginauth.Bearer{})
	if err != nil {
		t.Fatal(err)
	}
	r := gin.New()
	api.Routes(r.Group("/api"))
	web.Routes(r.Group("/web"))
	again.Routes(r.Group("/again"))
	// Guards of one, methods of the other.
	renew := func(auth *ginauth.Auth[member]) gin.HandlerFunc {
		return func(c *gin.Context) {
			user, _ := auth.CurrentUser(c)
			issued, err := auth.Renew(c, user)
			if err != nil {
				auth.Refuse(c, err)
				return
			}
			auth.Answer(c, issued)
		}
	}
	r.GET("/api/renew", web.RequireUser(), renew(api))
	r.GET("/web/renew", api.RequireUser(), renew(web))
	r.GET("/both", api.RequireUser(), web.RequireUser(), welcome)

	const form = "username=ann@example.com&password=" + password
	w := post(r, "/api/login", form)
	token := accessToken(t, w)
	wantSetCookie(t, "API login", w, false)
	for _, path := range []string{"/api/renew", "/web/renew", "/api/renew"} {
		w = request(r, "GET", path, inHeader(token))
		wantCode(t, path, w, http.StatusOK)
		token = accessToken(t, w)
		wantSetCookie(t, path, w, false)
	}
	wantCode(t, "both guards", request(r, "GET", "/both", inHeader(token)), http.StatusOK)
	accessToken(t, post(r, "/again/login", form))

	w = post(r, "/web/login", form)
	wantCode(t, "web login", w, http.StatusNoContent)
	set := w.Header().Get("Set-Cookie")
	if !strings.Contains(set, "SameSite=Strict") {
		t.Errorf("web login: got Set-Cookie %q, want the settings of Config.Transports", set)
	}
	cookie := cookieValue(t, set, "__Host-latchkey")
	for _, path := range []string{"/api/renew", "/web/renew"} {
		w = request(r, "GET", path, inCookie(cookie))
		wantCode(t, path+" by cookie", w, http.StatusNoContent)
		cookie = cookieValue(t, w.Header().Get("Set-Cookie"), "__Host-latchkey")
	}
	wantCode(t, "both guards by cookie", request(r, "GET", "/both", inCookie(cookie)), http.StatusOK)
	wantCode(t, "API log-out of the cookie", request(r, "POST", "/api/logout", inCookie(cookie)), http.StatusNoContent)

	// Each Auth checks the origin of the logins that it answers with a cookie.
	wantCode(t, "API login from another site", post(r, "/api/login", form, fromAnotherSite), http.StatusOK)
	wantCode(t, "web login from another site", post(r, "/web/login", form, fromAnotherSite), http.StatusForbidden)
}

func TestAnswerLoginsWithNeedsAConfiguredTransport(t *testing.T) {
	auth := newRig(t).auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Cookie{}}})
	for what, c := range map[string]struct {
		transport ginauth.Transport
		names     string
	}{
		"nil":                    {nil, "nil"},
		"not configured":         {ginauth.Bearer{}, "Config.Transports"},
		"cookie of another name": {ginauth.Cookie{Name: "__Host-other"}, "__Host-other"},
		"invalid cookie":         {ginauth.Cookie{Domain: "example.com"}, "Cookie.Name"},
	} {
		if _, err := auth.AnswerLoginsWith(c.transport); err == nil || !strings.Contains(err.Error(), c.names) {
			t.Errorf("%s: got the error %v, want one that names %s", what, err, c.names)
		}
	}
}

// A login that fails for a reason of the store must not look like a wrong password.
func TestFailureKeepsItsCauseButNoVerdict(t *testing.T) {
	h := newRig(t)
	auth, err := ginauth.New(h.sessions, passwords{fmt.Errorf("%w: %w", errDown, strategy.ErrInvalidToken)}, ginauth.Config{})
	if err != nil {
		t.Fatal(err)
	}
	r := guarded(func(c *gin.Context) {
		_, err := auth.LoginWithPassword(c, "ann@example.com", password, false)
		wantVerdict(t, "log in", err, errDown)
		if !errors.Is(err, errDown) || !strings.Contains(err.Error(), errDown.Error()) {
			t.Errorf("got the error %v, want its cause", err)
		}
		auth.Refuse(c, err)
	})
	wantCode(t, "log in", request(r, "GET", "/"), http.StatusServiceUnavailable)
}

func TestAnswerUserAnswersAsTheRouteDoes(t *testing.T) {
	h := newRig(t)
	auth, err := ginauth.WithAccounts(h.auth(t, ginauth.Config{}), h.accounts)
	if err != nil {
		t.Fatal(err)
	}
	auth = auth.WithHooks(ginauth.Hooks[member]{View: func(member) map[string]any { return map[string]any{"name": "Ann"} }})
	w := request(guarded(func(c *gin.Context) { auth.AnswerUser(c, h.ann); c.Abort() }), "GET", "/")
	wantCode(t, "with accounts", w, 200)
	want := fmt.Sprintf(`{"email":"ann@example.com","id":%q,"is_active":true,"is_superuser":false,"is_verified":false,"name":"Ann"}`, h.ann.ID)
	if got := w.Body.String(); got != want {
		t.Errorf("got the body %s, want %s", got, want)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("got Cache-Control %q, want no-store", got)
	}
	w = request(guarded(func(c *gin.Context) { h.auth(t, ginauth.Config{}).AnswerUser(c, h.ann) }), "GET", "/")
	wantCode(t, "without accounts", w, 503)
}

func TestAuthTellsHowItAnswersLogins(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{RequireVerified: true, Transports: []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}}})
	web, err := auth.AnswerLoginsWith(ginauth.Cookie{})
	if err != nil {
		t.Fatal(err)
	}
	if auth.AnswersWithCookie() || !web.AnswersWithCookie() {
		t.Errorf("got a cookie: %v with the bearer transport, %v with the cookie transport; want false, true", auth.AnswersWithCookie(), web.AnswersWithCookie())
	}
	if !web.RequiresVerified() || h.auth(t, ginauth.Config{}).RequiresVerified() {
		t.Error("RequiresVerified is not Config.RequireVerified")
	}
}
