package ginauth_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/internal/secretscan"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// scripts is a rig with API tokens.
type scripts struct {
	*rig
	now  time.Time
	api  *strategy.Database[member, uuid.UUID]
	auth *ginauth.Auth[member]
	r    *gin.Engine
}

func newScripts(t *testing.T, cfg strategy.Config) *scripts {
	t.Helper()
	h := &scripts{rig: newRig(t), now: time.Now()}
	clock := func() time.Time { return h.now }
	cfg.TokenPrefix, cfg.Now = "lkp_", clock
	var err error
	if h.api, err = strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), h.users, cfg); err != nil {
		t.Fatal(err)
	}
	attempts, err := memstore.NewAttempts(0)
	if err != nil {
		t.Fatal(err)
	}
	h.accounts, err = account.NewManager(h.users, nil, attempts, uuid.New, account.Config{
		Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true,
	}, h.sessions, h.api)
	if err != nil {
		t.Fatal(err)
	}
	h.auth, err = h.rig.auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}}, Now: clock}).
		WithAPITokens(h.api, ginauth.APITokensConfig{Scopes: []string{"read", "write"}, MaxPerUser: 3})
	if err != nil {
		t.Fatal(err)
	}
	h.r = engine(h.auth)
	h.auth.APITokenRoutes(h.r.Group("/tokens"))
	h.r.GET("/read", h.auth.RequireUser(ginauth.Scopes("read")), welcome)
	h.r.GET("/any", h.auth.RequireUser(ginauth.Scopes()), welcome)
	return h
}

func body(content string) option {
	return func(r *http.Request) {
		r.Body, r.ContentLength = http.NoBody, 0
		*r = *r.WithContext(r.Context())
		next := httptest.NewRequest(r.Method, r.URL.String(), strings.NewReader(content))
		r.Body, r.ContentLength = next.Body, next.ContentLength
		r.Header.Set("Content-Type", "application/json")
	}
}

// create makes an API token for the user of a login.
func (h *scripts) create(t *testing.T, login, content string) (token, id string) {
	t.Helper()
	w := request(h.r, "POST", "/tokens", inHeader(login), body(content))
	wantCode(t, "create", w, http.StatusCreated)
	var made struct{ ID, Token string }
	if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil || !strings.HasPrefix(made.Token, "lkp_") {
		t.Fatalf("create: got no token, %v", err)
	}
	secretscan.Record(made.Token)
	return made.Token, made.ID
}

func TestAPITokens(t *testing.T) {
	h := newScripts(t, strategy.Config{Lifetime: 90 * 24 * time.Hour})
	login := h.token(t)
	token, id := h.create(t, login, `{"name":"build server","scopes":["read"],"expires_in":3600}`)

	for _, c := range []struct {
		what, path string
		with       option
		code       int
	}{
		{"a route that names its scope", "/read", inHeader(token), 200},
		{"a route that names no scope", "/me", inHeader(token), 403},
		{"the token as a cookie", "/read", inCookie(token), 401},
		{"the user's sessions", "/sessions", inHeader(token), 403},
		{"the user's tokens", "/tokens", inHeader(token), 403},
		{"a login on a route with scopes", "/read", inHeader(login), 200},
		{"a login in a cookie", "/read", inCookie(login), 200},
	} {
		wantCode(t, c.what, request(h.r, "GET", c.path, c.with), c.code)
	}
	wantCode(t, "a token cannot make tokens", request(h.r, "POST", "/tokens", inHeader(token), body(`{"name":"x","scopes":["read"]}`)), 403)

	list := func() string {
		w := request(h.r, "GET", "/tokens", inHeader(login))
		wantCode(t, "list", w, 200)
		return w.Body.String()
	}
	if got := list(); !strings.Contains(got, `"name":"build server"`) || !strings.Contains(got, id) || strings.Contains(got, token) || strings.Contains(got, `"token"`) {
		t.Error("the list does not have the token's name and ID alone")
	}
	wantCode(t, "rename", request(h.r, "PATCH", "/tokens/"+id, inHeader(login), body(`{"name":"laptop"}`)), 204)
	if !strings.Contains(list(), `"name":"laptop"`) {
		t.Error("the token was not renamed")
	}
	wantCode(t, "the sessions have no API token", request(h.r, "DELETE", "/sessions/"+id, inHeader(login)), 404)
	wantCode(t, "the token is valid", request(h.r, "GET", "/read", inHeader(token)), 200)
	h.now = h.now.Add(time.Hour + time.Millisecond)
	wantCode(t, "expired", request(h.r, "GET", "/read", inHeader(token)), 401)
}

func TestAPITokensAreRevoked(t *testing.T) {
	revoke := map[string]func(t *testing.T, h *scripts, login, token, id string){
		"by its ID": func(t *testing.T, h *scripts, login, _, id string) {
			wantCode(t, "DELETE", request(h.r, "DELETE", "/tokens/"+id, inHeader(login)), 204)
			wantCode(t, "again", request(h.r, "DELETE", "/tokens/"+id, inHeader(login)), 404)
		},
		"by its own log-out": func(t *testing.T, h *scripts, login, token, _ string) {
			wantCode(t, "log out", request(h.r, "POST", "/logout", inHeader(token)), 204)
			wantCode(t, "the login", request(h.r, "GET", "/me", inHeader(login)), 200)
		},
		"by RevokeTokens": func(t *testing.T, h *scripts, _, _, _ string) {
			must(t, h.accounts.RevokeTokens(t.Context(), h.ann.ID))
		},
		"by a deactivation, also after the account is active again": func(t *testing.T, h *scripts, _, _, _ string) {
			must(t, h.accounts.Deactivate(t.Context(), h.ann.ID))
			must(t, h.accounts.Activate(t.Context(), h.ann.ID))
		},
		"by the deletion of the account": func(t *testing.T, h *scripts, _, _, _ string) { must(t, h.accounts.Delete(t.Context(), h.ann.ID)) },
		"by a new password": func(t *testing.T, h *scripts, _, _, _ string) {
			_, err := h.accounts.ChangePassword(t.Context(), h.ann.ID, password, "another-good-password")
			must(t, err)
		},
	}
	for _, survive := range []bool{false, true} {
		for how, do := range revoke {
			t.Run(fmt.Sprintf("%s, SurvivePasswordChange %v", how, survive), func(t *testing.T) {
				h := newScripts(t, strategy.Config{SurvivePasswordChange: survive})
				login := h.token(t)
				token, id := h.create(t, login, `{"name":"a","scopes":["read","write"]}`)
				do(t, h, login, token, id)
				want := 401
				if survive && how == "by a new password" {
					want = 200
				}
				wantCode(t, "the token", request(h.r, "GET", "/read", inHeader(token)), want)
			})
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAPITokensThatCannotBeMade(t *testing.T) {
	h := newScripts(t, strategy.Config{Lifetime: time.Hour})
	login := h.token(t)
	for content, field := range map[string]string{
		`{"scopes":["read"]}`:                                             "name",
		`{"name":"","scopes":["read"]}`:                                   "name",
		`{"name":"` + strings.Repeat("x", 101) + `","scopes":["read"]}`:   "name",
		`{"name":"a"}`:                                                    "scopes",
		`{"name":"a","scopes":[]}`:                                        "scopes",
		`{"name":"a","scopes":["admin"]}`:                                 "scopes",
		`{"name":"a","scopes":["read","READ"]}`:                           "scopes",
		`{"name":"a","scopes":"read"}`:                                    "scopes",
		`{"name":"a","scopes":["read"],"expires_in":3601}`:                "expires_in",
		`{"name":"a","scopes":["read"],"expires_in":0}`:                   "expires_in",
		`{"name":"a","scopes":["read"],"expires_in":-1}`:                  "expires_in",
		`{"name":"a","scopes":["read"],"expires_in":9223372036854775807}`: "expires_in",
		`{"name":"a","scopes":["read"],"expires_in":1.5}`:                 "expires_in",
	} {
		w := request(h.r, "POST", "/tokens", inHeader(login), body(content))
		if wantCode(t, content, w, 422); !strings.Contains(w.Body.String(), `["body","`+field+`"]`) {
			t.Errorf("%s: got %s, want an error of %s", content, w.Body, field)
		}
	}
	for range 3 {
		h.create(t, login, `{"name":"a","scopes":["read"]}`)
	}
	w := request(h.r, "POST", "/tokens", inHeader(login), body(`{"name":"a","scopes":["read"]}`))
	if wantCode(t, "the fourth", w, 409); !strings.Contains(w.Body.String(), "TOO_MANY_API_TOKENS") {
		t.Errorf("got %s", w.Body)
	}
	wantCode(t, "of another user", request(h.r, "DELETE", "/tokens/"+uuid.NewString(), inHeader(login)), 404)
	wantCode(t, "an ID that is none", request(h.r, "PATCH", "/tokens/x", inHeader(login), body(`{"name":"a"}`)), 404)
	h.now = h.now.Add(10*time.Minute + time.Second)
	wantCode(t, "not fresh", request(h.r, "POST", "/tokens", inHeader(login), body(`{"name":"a","scopes":["read"]}`)), 401)
	wantCode(t, "the list needs no fresh login", request(h.r, "GET", "/tokens", inHeader(login)), 200)
}

func TestWrongAPITokensConfigIsAnError(t *testing.T) {
	h := newRig(t)
	other, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), h.users, strategy.Config{TokenPrefix: "lkp_"})
	must(t, err)
	good := ginauth.APITokensConfig{Scopes: []string{"read"}}
	for _, c := range []struct {
		name     string
		of       *ginauth.Auth[member]
		strategy ginauth.Strategy[member]
		cfg      ginauth.APITokensConfig
		contains string
	}{
		{"no strategy", h.auth(t, ginauth.Config{}), nil, good, "strategy is nil"},
		{"the same prefix", h.auth(t, ginauth.Config{}), h.sessions, good, "TokenPrefix"},
		{"no scopes", h.auth(t, ginauth.Config{}), other, ginauth.APITokensConfig{}, "Scopes"},
		{"no scope", h.auth(t, ginauth.Config{}), other, ginauth.APITokensConfig{Scopes: []string{"a b"}}, "Scopes"},
		{"too many tokens", h.auth(t, ginauth.Config{}), other, ginauth.APITokensConfig{Scopes: []string{"a"}, MaxPerUser: 201}, "MaxPerUser"},
		{"cookies alone", h.auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Cookie{}}}), other, good, "Bearer"},
	} {
		if _, err := c.of.WithAPITokens(c.strategy, c.cfg); err == nil || !strings.Contains(err.Error(), c.contains) {
			t.Errorf("%s: got %v, want an error that names %s", c.name, err, c.contains)
		}
	}
	r := gin.New()
	h.auth(t, ginauth.Config{}).APITokenRoutes(r)
	if n := len(r.Routes()); n != 0 {
		t.Errorf("without WithAPITokens: got %d routes, want none", n)
	}
}
