package ginauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
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

func init() { gin.SetMode(gin.TestMode) }

type member = account.User[uuid.UUID]

const password = "correct-horse-battery"

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// rig is everything that an Auth needs, in memory, with a user called Ann.
type rig struct {
	sessions *strategy.Database[member, uuid.UUID]
	accounts *account.Manager[member, uuid.UUID]
	tokens   *faultyTokens
	users    *memstore.Users[member, uuid.UUID]
	ann      member
}

func newRig(t testing.TB) *rig {
	t.Helper()
	h := &rig{
		tokens: &faultyTokens{Tokens: memstore.NewTokens[uuid.UUID]()},
		users:  memstore.NewUsers[member](),
	}
	attempts, err := memstore.NewAttempts(0)
	if err != nil {
		t.Fatal(err)
	}
	h.sessions, err = strategy.NewDatabase(h.tokens, h.users, strategy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	h.accounts, err = newManager(h, attempts)
	if err != nil {
		t.Fatal(err)
	}
	h.ann, err = h.accounts.Create(t.Context(), member{Email: "ann@example.com", Active: true}, password)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// newManager returns a manager of the rig's users and sessions.
func newManager(h *rig, attempts *memstore.Attempts) (*account.Manager[member, uuid.UUID], error) {
	return account.NewManager(h.users, nil, attempts, uuid.New, account.Config{
		Argon2:         account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1},
		InsecureArgon2: true,
	}, h.sessions)
}

// auth returns an Auth over the rig.
func (h *rig) auth(t testing.TB, cfg ginauth.Config) *ginauth.Auth[member] {
	t.Helper()
	auth, err := ginauth.New(h.sessions, h.accounts, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return auth
}

// token issues a token for Ann.
func (h *rig) token(t testing.TB, opts ...strategy.TokenOption) string {
	t.Helper()
	secret, _, err := h.sessions.WriteToken(t.Context(), h.ann, opts...)
	if err != nil {
		t.Fatal(err)
	}
	secretscan.Record(secret.Reveal())
	return secret.Reveal()
}

var errDown = errors.New("the database is down")

// faultyTokens fails to insert tokens while full is set.
type faultyTokens struct {
	*memstore.Tokens[uuid.UUID]
	full bool
}

func (s *faultyTokens) Insert(ctx context.Context, token strategy.AccessToken[uuid.UUID]) error {
	if s.full {
		return errDown
	}
	return s.Tokens.Insert(ctx, token)
}

// engine serves the routes of an Auth, and /me behind a guard.
func engine(auth *ginauth.Auth[member]) *gin.Engine {
	r := gin.New()
	auth.Routes(r)
	r.GET("/me", auth.RequireUser(), welcome)
	return r
}

// guarded serves the route / behind handlers.
func guarded(handlers ...gin.HandlerFunc) *gin.Engine {
	r := gin.New()
	r.GET("/", append(handlers, welcome)...)
	return r
}

func welcome(c *gin.Context) { c.String(http.StatusOK, "welcome") }

type option func(*http.Request)

func header(name, value string) option {
	return func(r *http.Request) { r.Header.Add(name, value) }
}

func inHeader(token string) option { return header("Authorization", "Bearer "+token) }

func inCookie(token string) option { return header("Cookie", "__Host-latchkey="+token) }

func request(h http.Handler, method, path string, options ...option) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, nil)
	for _, option := range options {
		option(req)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

// logIn logs Ann in by POST /login.
func logIn(h http.Handler) *httptest.ResponseRecorder {
	form := url.Values{"username": {"ann@example.com"}, "password": {password}}
	return post(h, "/login", form.Encode())
}

// post sends a form.
func post(h http.Handler, path, form string, options ...option) *httptest.ResponseRecorder {
	req := httptest.NewRequest("POST", path, strings.NewReader(form))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, option := range options {
		option(req)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

// accessToken returns the token in the JSON of a login's answer.
func accessToken(t testing.TB, w *httptest.ResponseRecorder) string {
	t.Helper()
	var body struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body.AccessToken == "" {
		t.Fatalf("got %d %s, want a token", w.Code, w.Body)
	}
	return body.AccessToken
}

// cookieValue returns the value in a Set-Cookie header, which must have this name.
func cookieValue(t testing.TB, set, name string) string {
	t.Helper()
	cookie, err := http.ParseSetCookie(set)
	if err != nil || cookie.Name != name {
		t.Fatalf("got Set-Cookie %q, want one of %s", set, name)
	}
	return cookie.Value
}

func wantCode(t testing.TB, what string, got *httptest.ResponseRecorder, want int) {
	t.Helper()
	if got.Code != want {
		t.Errorf("%s: got %d %s, want %d", what, got.Code, got.Body, want)
	}
}
