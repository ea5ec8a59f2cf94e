package integration_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

// facadeUser is the user type of the tests of the root package.
type facadeUser struct {
	account.User[uuid.UUID] `bson:",inline"`
	Name                    string `bson:"name" json:"name"`
}

// facade is an application that was built with latchkey.New.
type facade struct {
	*latchkey.Latchkey[facadeUser, uuid.UUID]
	t      *testing.T
	db     *mongo.Database
	routes http.Handler

	mu     sync.Mutex
	events []event.Kind
}

func newFacade(t *testing.T, db *mongo.Database, cfg latchkey.Config) *facade {
	t.Helper()
	f := &facade{t: t, db: db}
	cfg.Argon2, cfg.InsecureArgon2 = account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, true
	cfg.PurgeInterval = time.Hour // for a server without TTL indexes
	cfg.OnEvent = func(_ context.Context, e event.Event) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.events = append(f.events, e.Kind)
	}
	var err error
	if f.Latchkey, err = latchkey.New[facadeUser](db, uuid.New, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	if err := f.EnsureIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := gin.New()
	f.Auth.Routes(r.Group("/auth"))
	f.Web.Routes(r.Group("/web"))
	r.GET("/me", f.Auth.RequireUser(), func(c *gin.Context) {
		user, _ := f.Auth.CurrentUser(c)
		c.JSON(http.StatusOK, user)
	})
	r.POST("/password", f.Auth.RequireUser(), func(c *gin.Context) {
		user, _ := f.Auth.CurrentUser(c)
		changed, err := f.Accounts.ChangePassword(c.Request.Context(), user.ID, password, c.PostForm("new"))
		if err != nil {
			f.Auth.Refuse(c, err)
			return
		}
		issued, err := f.Auth.Renew(c, changed)
		if err != nil {
			f.Auth.Refuse(c, err)
			return
		}
		f.Auth.Answer(c, issued)
	})
	f.routes = r
	return f
}

// register creates an account.
func (f *facade) register(email string) facadeUser {
	f.t.Helper()
	user, err := f.Accounts.Register(f.t.Context(), facadeUser{User: account.User[uuid.UUID]{Email: email}, Name: "Ann"}, password)
	if err != nil {
		f.t.Fatal(err)
	}
	return user
}

// call sends a request with a form, and a bearer token or cookies.
func (f *facade) call(method, path string, form url.Values, credentials ...any) *httptest.ResponseRecorder {
	f.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, c := range credentials {
		switch c := c.(type) {
		case string:
			r.Header.Set("Authorization", "Bearer "+c)
		case *http.Cookie:
			r.AddCookie(c)
		}
	}
	w := httptest.NewRecorder()
	f.routes.ServeHTTP(w, r)
	return w
}

// login logs in and returns the bearer token.
func (f *facade) login(email string) string {
	f.t.Helper()
	w := f.call(http.MethodPost, "/auth/login", url.Values{"username": {email}, "password": {password}})
	return f.tokenOf(w)
}

// tokenOf returns the bearer token of an answer.
func (f *facade) tokenOf(w *httptest.ResponseRecorder) string {
	f.t.Helper()
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusOK || answer.AccessToken == "" {
		f.t.Fatalf("got %d %s, want 200 and a token", w.Code, w.Body)
	}
	return answer.AccessToken
}

// rows counts a user's rows in access_tokens.
func (f *facade) rows(id uuid.UUID) int64 {
	f.t.Helper()
	n, err := f.db.Collection("access_tokens").CountDocuments(f.t.Context(), bson.D{{Key: "user_id", Value: bson.Binary{Subtype: bson.TypeBinaryUUID, Data: id[:]}}})
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

// wantStatus checks the status of a GET request.
func (f *facade) wantStatus(path string, want int, credentials ...any) {
	f.t.Helper()
	if w := f.call(http.MethodGet, path, nil, credentials...); w.Code != want {
		f.t.Errorf("GET %s: got %d %s, want %d", path, w.Code, w.Body, want)
	}
}

func TestFacadeServesBearerAndCookieLogins(t *testing.T) {
	f := newFacade(t, database(t), latchkey.Config{Lifetime: time.Hour})
	f.register("ann@example.com")
	credentials := url.Values{"username": {"ann@example.com"}, "password": {password}}

	token := f.login("ann@example.com")
	f.wantStatus("/me", http.StatusOK, token)

	w := f.call(http.MethodPost, "/web/login", credentials)
	if w.Code != http.StatusNoContent || w.Body.Len() != 0 || len(w.Result().Cookies()) != 2 {
		t.Fatalf("POST /web/login: got %d %q with %d cookies, want 204 with two cookies, of the session and of the device, and no body", w.Code, w.Body, len(w.Result().Cookies()))
	}
	cookie := w.Result().Cookies()[0]
	f.wantStatus("/me", http.StatusOK, cookie)

	// Each logout ends the session of its request, in either group of routes.
	if w := f.call(http.MethodPost, "/auth/logout", nil, cookie); w.Code != http.StatusNoContent {
		t.Errorf("logout by cookie: got %d, want 204", w.Code)
	}
	f.wantStatus("/me", http.StatusUnauthorized, cookie)
	f.wantStatus("/me", http.StatusOK, token)
	if w := f.call(http.MethodPost, "/web/logout", nil, token); w.Code != http.StatusNoContent {
		t.Errorf("logout by token: got %d, want 204", w.Code)
	}
	f.wantStatus("/me", http.StatusUnauthorized, token)
}

func TestFacadeDeletesTheRowsOfRevokedTokens(t *testing.T) {
	f := newFacade(t, database(t), latchkey.Config{Lifetime: time.Hour})
	for name, end := range map[string]func(context.Context, uuid.UUID) error{
		"Deactivate":   f.Accounts.Deactivate,
		"RevokeTokens": f.Accounts.RevokeTokens,
		"ChangePassword": func(ctx context.Context, id uuid.UUID) error {
			_, err := f.Accounts.ChangePassword(ctx, id, password, "another good password")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			email := strings.ToLower(name) + "@example.com"
			user := f.register(email)
			token := f.login(email)
			f.login(email)
			if n := f.rows(user.ID); n != 2 {
				t.Fatalf("got %d rows after two logins, want 2", n)
			}
			if err := end(t.Context(), user.ID); err != nil {
				t.Fatal(err)
			}
			f.wantStatus("/me", http.StatusUnauthorized, token)
			if n := f.rows(user.ID); n != 0 {
				t.Errorf("got %d rows, want 0", n)
			}
		})
	}
}

func TestFacadeKeepsTheSessionThatChangedThePassword(t *testing.T) {
	for name, cache := range map[string]strategy.Cache{"without a cache": {}, "with a cache": {MaxStaleness: 10 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			f := newFacade(t, database(t), latchkey.Config{Lifetime: time.Hour, Cache: cache})
			user := f.register("ann@example.com")
			mine, other := f.login("ann@example.com"), f.login("ann@example.com")
			f.wantStatus("/me", http.StatusOK, mine)
			f.wantStatus("/me", http.StatusOK, other)

			renewed := f.tokenOf(f.call(http.MethodPost, "/password", url.Values{"new": {"another good password"}}, mine))
			f.wantStatus("/me", http.StatusOK, renewed)
			f.wantStatus("/me", http.StatusUnauthorized, mine)
			f.wantStatus("/me", http.StatusUnauthorized, other)
			if n := f.rows(user.ID); n != 1 {
				t.Errorf("got %d rows, want 1", n)
			}
		})
	}
}

func TestFacadeSharesLoginLimitsBetweenInstances(t *testing.T) {
	db := database(t)
	limits := latchkey.Config{Limiter: account.LimiterConfig{Account: account.Limit{Failures: 2}}}
	one, two := newFacade(t, db, limits), newFacade(t, db, limits)
	one.register("ann@example.com")
	wrong := url.Values{"username": {"ann@example.com"}, "password": {"wrong password"}}
	for i, c := range []struct {
		on   *facade
		want int
	}{{one, http.StatusBadRequest}, {two, http.StatusBadRequest}, {one, http.StatusTooManyRequests}, {two, http.StatusTooManyRequests}} {
		if w := c.on.call(http.MethodPost, "/auth/login", wrong); w.Code != c.want {
			t.Errorf("attempt %d: got %d %s, want %d", i+1, w.Code, w.Body, c.want)
		}
	}
}

func TestFacadeCreatesAndVerifiesAllIndexes(t *testing.T) {
	db := database(t)
	lk, err := latchkey.New[facadeUser](db, uuid.New, latchkey.Config{Lifetime: time.Hour, PurgeInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer lk.Close()
	err = lk.VerifyIndexes(t.Context())
	for _, collection := range []string{"users", "access_tokens", "login_attempts", "one_time_tokens", "revocations"} {
		if err == nil || !strings.Contains(err.Error(), collection) {
			t.Errorf("before EnsureIndexes: got the error %v, want one that names %s", err, collection)
		}
	}
	if err := lk.EnsureIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := lk.VerifyIndexes(t.Context()); err != nil {
		t.Errorf("after EnsureIndexes: %v", err)
	}
	tokens, attempts, revocations := withoutTTL, "_id_, expires_at_1", "_id_, at_1"
	if server.Capabilities.TTL {
		tokens, attempts, revocations = withTTL, attempts+" ttl", revocations+" ttl"
	}
	for collection, want := range map[string]string{
		"users": "_id_, email_1 unique", "access_tokens": tokens, "login_attempts": attempts, "revocations": revocations,
		"one_time_tokens": attempts + ", user_id_1_purpose_1_created_at_-1",
	} {
		if got := names(indexes(t, db.Collection(collection))); got != want {
			t.Errorf("%s has the indexes %s, want %s", collection, got, want)
		}
	}
	lk.Close() // idempotent
}

func TestFacadeGuardsOfBothLoginsAreOne(t *testing.T) {
	f := newFacade(t, database(t), latchkey.Config{Lifetime: time.Hour})
	f.register("ann@example.com")
	token := f.login("ann@example.com")

	r := gin.New()
	r.Use(f.Auth.RequireUser())
	r.POST("/reauthenticate", f.Web.RequireUser(ginauth.Fresh(time.Hour)), func(c *gin.Context) {
		issued, err := f.Web.Reauthenticate(c, password)
		if err != nil {
			f.Web.Refuse(c, err)
			return
		}
		f.Web.Answer(c, issued) // by the transport of the request: bearer
	})
	f.routes = r
	renewed := f.tokenOf(f.call(http.MethodPost, "/reauthenticate", nil, token))
	if _, err := f.Sessions.ReadToken(t.Context(), renewed); err != nil {
		t.Error(err)
	}
	if _, err := f.Sessions.ReadToken(t.Context(), token); !errors.Is(err, strategy.ErrInvalidToken) {
		t.Errorf("the earlier token: got the error %v, want %v", err, strategy.ErrInvalidToken)
	}
}

// clock is a clock that tests set. It is safe for concurrent use.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func TestPingReportsMissingIndexesAndIsCheap(t *testing.T) {
	client, sent := connect(t)
	db := testserver.Database(t, client)
	var at clock
	lk, err := latchkey.New[facadeUser](db, uuid.New, latchkey.Config{
		Lifetime: time.Hour, PurgeInterval: time.Hour, AuditRetention: time.Hour, APITokens: latchkey.APITokens{Scopes: []string{"read"}},
		Now: at.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer lk.Close()
	err = lk.Ping(t.Context())
	for _, collection := range []string{"users", "access_tokens", "login_attempts", "one_time_tokens", "api_tokens", "audit"} {
		if !errors.Is(err, mongostore.ErrIndexMismatch) || !strings.Contains(err.Error(), collection+" lacks") {
			t.Errorf("before EnsureIndexes: got the error %v, want one that names %s", err, collection)
		}
	}
	if err := lk.EnsureIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
	ready := func(when string) {
		t.Helper()
		if err := lk.Ping(t.Context()); err != nil {
			t.Errorf("%s: got %v, want nil", when, err)
		}
	}
	ready("after EnsureIndexes")
	sent.reset()
	ready("again")
	if all := sent.all(); len(all) != 1 || len(sent.named("ping")) != 1 {
		t.Errorf("sent %v, want one ping", all)
	}
	if err := db.Collection("users").Indexes().DropOne(t.Context(), "email_1"); err != nil {
		t.Fatal(err)
	}
	at.ahead.Store(int64(59 * time.Second))
	ready("within a minute")
	at.ahead.Store(int64(61 * time.Second))
	if err := lk.Ping(t.Context()); !errors.Is(err, mongostore.ErrIndexMismatch) || !strings.Contains(err.Error(), "users lacks email_1") {
		t.Errorf("after a minute: got the error %v, want one that names the index", err)
	}
	if err := lk.EnsureIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
	ready("after the repair")
}

func TestPingFollowsTheCache(t *testing.T) {
	f := newFacade(t, database(t), latchkey.Config{Lifetime: time.Hour, Cache: strategy.Cache{MaxStaleness: 10 * time.Second}})
	eventually(t, 10*time.Second, "Ping returns nil", func() bool { return f.Ping(t.Context()) == nil })
	f.Sessions.Close() // ends the follower
	if err := f.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "latchkey: not ready: strategy:") {
		t.Errorf("without a follower: got the error %v, want one of the package strategy", err)
	}
	f.Close()
	if err := f.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "Close was called") {
		t.Errorf("after Close: got the error %v", err)
	}
}
