package openapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
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

type user = account.User[uuid.UUID]

const password = "correct-horse-battery"

// app is an application in memory with every route, and a client whose answers are checked.
type app struct {
	t      *testing.T
	url    string
	client *http.Client
	auth   *ginauth.Auth[user]
	// token is that of a superuser with a fresh login.
	token string
	// down makes the database fail.
	down bool
}

var errDown = errors.New("the database is down")

// The stores of an application fail while down is set.
type (
	tokenStore struct {
		strategy.Store[uuid.UUID]
		down *bool
	}
	userStore struct {
		account.Store[user, uuid.UUID]
		down *bool
	}
)

func (s tokenStore) ByToken(ctx context.Context, digest string) (strategy.AccessToken[uuid.UUID], error) {
	if *s.down {
		return strategy.AccessToken[uuid.UUID]{}, errDown
	}
	return s.Store.ByToken(ctx, digest)
}

func (s userStore) ByEmail(ctx context.Context, email string) (user, error) {
	if *s.down {
		return user{}, errDown
	}
	return s.Store.ByEmail(ctx, email)
}

func (s userStore) Insert(ctx context.Context, u user) error {
	if *s.down {
		return errDown
	}
	return s.Store.Insert(ctx, u)
}

// newApp starts an application. Without a Mailer, the routes that need one fail.
func newApp(t *testing.T, c *checker, cfg ginauth.Config, mail account.MailConfig) *app {
	t.Helper()
	a := &app{t: t}
	var oneTime account.OneTimeTokenStore[uuid.UUID]
	if mail.Mailer != nil {
		oneTime = memstore.NewOneTimeTokens[uuid.UUID]()
	}
	users := userStore{memstore.NewUsers[user](), &a.down}
	attempts, err := memstore.NewAttempts(0)
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := strategy.NewDatabase(tokenStore{memstore.NewTokens[uuid.UUID](), &a.down}, users, strategy.Config{Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	api, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), users, strategy.Config{Lifetime: time.Hour, TokenPrefix: "lkp_"})
	if err != nil {
		t.Fatal(err)
	}
	accounts, err := account.NewManager(users, oneTime, attempts, uuid.New, account.Config{
		Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true, Mail: mail,
	}, sessions, api)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(accounts.Close)
	cfg.Transports = []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}}
	if a.auth, err = ginauth.New(sessions, accounts, cfg); err == nil {
		a.auth, err = ginauth.WithAccounts(a.auth, accounts)
	}
	if err == nil {
		a.auth, err = a.auth.WithAPITokens(api, ginauth.APITokensConfig{Scopes: []string{"read"}, MaxPerUser: 1})
	}
	if err != nil {
		t.Fatal(err)
	}
	engine := gin.New()
	a.auth.Routes(engine.Group("/auth"))
	a.auth.RegisterRoutes(engine.Group("/auth"))
	a.auth.VerifyRoutes(engine.Group("/auth"))
	a.auth.ResetPasswordRoutes(engine.Group("/auth"))
	a.auth.UserRoutes(engine.Group("/auth/users"))
	a.auth.APITokenRoutes(engine.Group("/auth/tokens"))
	if err := a.auth.Introspection(engine.Group("/auth"), ginauth.Superuser); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(engine)
	t.Cleanup(server.Close)
	a.url, a.client = server.URL, server.Client()
	a.client.Transport = c.watch(t, a.auth.OpenAPI(), a.client.Transport)

	ann, err := accounts.Create(t.Context(), user{Email: "ann@example.com", Active: true, Superuser: true}, password)
	if err != nil {
		t.Fatal(err)
	}
	secret, _, err := sessions.WriteToken(t.Context(), ann)
	if err != nil {
		t.Fatal(err)
	}
	secretscan.Record(secret.Reveal())
	a.token = secret.Reveal()
	return a
}

// expect sends a request, checks the status and the code of the answer, and returns its body.
func (a *app) expect(what, method, path string, header http.Header, body io.Reader, status int, code string) []byte {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.url+path, body)
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header = header
	resp, err := a.client.Do(req)
	if err != nil {
		a.t.Fatalf("%s: %s %s: %v", what, method, path, err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	if resp.StatusCode != status || codeOf(content) != code {
		a.t.Errorf("%s: %s %s: got %d %s, want %d %s", what, method, path, resp.StatusCode, codeOf(content), status, code)
	}
	return content
}

// expectJSON is expect for the superuser and a JSON body.
func (a *app) expectJSON(what, method, path, body string, status int, code string) []byte {
	a.t.Helper()
	return a.expect(what, method, path, a.loggedIn("application/json"), strings.NewReader(body), status, code)
}

func (a *app) loggedIn(contentType string) http.Header {
	h := http.Header{"Authorization": {"Bearer " + a.token}}
	if contentType != "" {
		h.Set("Content-Type", contentType)
	}
	return h
}

// each calls check for every described operation.
func (a *app) each(check func(method, path string, secured, hasBody bool)) {
	for path, item := range a.auth.OpenAPI()["paths"].(map[string]any) {
		for method, operation := range item.(map[string]any) {
			operation := operation.(map[string]any)
			check(strings.ToUpper(method), strings.Replace(path, "{id}", uuid.NewString(), 1),
				len(operation["security"].([]any)) > 0, operation["requestBody"] != nil)
		}
	}
}

// Every route answers as described to what a guard refuses, and to bodies that cannot be read.
func testGuardsAndBodies(t *testing.T, c *checker) {
	a := newApp(t, c, ginauth.Config{BodyTimeout: 250 * time.Millisecond}, account.MailConfig{Mailer: noMailer})
	a.each(func(method, path string, secured, hasBody bool) {
		if secured {
			a.expect("no token", method, path, http.Header{}, nil, 401, "Unauthorized")
			a.expect("two headers", method, path, http.Header{"Authorization": {"Bearer a", "Bearer b"}}, nil, 400, "Bad Request")
			if method != http.MethodGet {
				a.expect("another origin", method, path, http.Header{
					"Cookie": {"__Host-latchkey=" + a.token}, "Sec-Fetch-Site": {"cross-site"},
				}, nil, 403, "CROSS_ORIGIN_REQUEST")
			}
		}
		if hasBody {
			a.expect("plain text", method, path, a.loggedIn("text/plain"), strings.NewReader("x"), 415, "UNSUPPORTED_MEDIA_TYPE")
			a.expect("a large body", method, path, a.loggedIn("application/json"), strings.NewReader(strings.Repeat(" ", 16<<10+1)), 413, "BODY_TOO_LARGE")
			a.expect("an array", method, path, a.loggedIn("application/json"), strings.NewReader("[]"), 422, "")
			body, end := io.Pipe()
			a.expect("a slow body", method, path, a.loggedIn("application/json"), body, 408, "REQUEST_TIMEOUT")
			_ = end.Close() // no error: it closes a pipe
		}
	})
}

// Every route answers as described if the database fails.
func testDown(t *testing.T, c *checker) {
	a := newApp(t, c, ginauth.Config{}, account.MailConfig{})
	a.down = true
	fields := `{"username":"ann@example.com","email":"jo@example.com","password":"` + password + `","token":"x"}`
	a.each(func(method, path string, _, hasBody bool) {
		var body io.Reader
		if hasBody {
			body = strings.NewReader(fields)
		}
		a.expect("the database is down", method, path, a.loggedIn("application/json"), body, 503, "SERVICE_UNAVAILABLE")
	})
}

// The routes of API tokens answer as described; the contract suite does not have them.
func testAPITokens(t *testing.T, c *checker) {
	a := newApp(t, c, ginauth.Config{}, account.MailConfig{})
	const tokens = "/auth/tokens"
	var created struct{ ID, Token string }
	body := a.expectJSON("create", "POST", tokens, `{"name":"build","scopes":["read"],"expires_in":60}`, 201, "")
	if err := json.Unmarshal(body, &created); err != nil {
		t.Fatal(err)
	}
	secretscan.Record(created.Token)
	a.expectJSON("one too many", "POST", tokens, `{"name":"build","scopes":["read"]}`, 409, "TOO_MANY_API_TOKENS")
	a.expectJSON("another scope", "POST", tokens, `{"name":"build","scopes":["x"]}`, 422, "")
	a.expect("list", "GET", tokens+"?limit=1", a.loggedIn(""), nil, 200, "")
	a.expect("a bad limit", "GET", tokens+"?limit=0", a.loggedIn(""), nil, 422, "")
	a.expectJSON("rename", "PATCH", tokens+"/"+created.ID, `{"name":"deploy"}`, 204, "")
	a.expectJSON("rename another", "PATCH", tokens+"/"+uuid.NewString(), `{"name":"deploy"}`, 404, "NOT_FOUND")

	script := http.Header{"Authorization": {"Bearer " + created.Token}}
	for _, route := range []string{"GET " + tokens, "POST " + tokens, "PATCH " + tokens + "/x", "DELETE " + tokens + "/x"} {
		method, path, _ := strings.Cut(route, " ")
		a.expect("an API token", method, path, script, nil, 403, "Forbidden")
	}
	a.expect("revoke", "DELETE", tokens+"/"+created.ID, a.loggedIn(""), nil, 204, "")
	a.expect("revoke again", "DELETE", tokens+"/"+created.ID, a.loggedIn(""), nil, 404, "NOT_FOUND")

	late := newApp(t, c, ginauth.Config{Now: func() time.Time { return time.Now().Add(20 * time.Minute) }}, account.MailConfig{})
	late.expectJSON("an old login", "POST", tokens, `{"name":"build","scopes":["read"]}`, 401, "INSUFFICIENT_USER_AUTHENTICATION")
}

// PATCH me limits wrong passwords; the contract suite does not go that far.
func testTooManyPasswords(t *testing.T, c *checker) {
	a := newApp(t, c, ginauth.Config{}, account.MailConfig{})
	const wrong = `{"password":"another-horse-battery","current_password":"wrong-horse-battery"}`
	for range 5 {
		a.expectJSON("a wrong password", "PATCH", "/auth/users/me", wrong, 400, "LOGIN_BAD_CREDENTIALS")
	}
	a.expectJSON("one too many", "PATCH", "/auth/users/me", wrong, 429, "TOO_MANY_ATTEMPTS")
}

var noMailer = account.MailerFunc(func(context.Context, account.Message) error { return nil })
