package sqlstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/sqlstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// appUser is the user of an application.
type appUser struct {
	account.User[uuid.UUID]
	Name string
}

// cheap makes passwords cheap to hash.
func cheap(cfg latchkey.Config) latchkey.Config {
	cfg.Argon2, cfg.InsecureArgon2 = account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, true
	if cfg.OnEvent == nil {
		cfg.OnEvent = func(context.Context, event.Event) {}
	}
	return cfg
}

func TestNewConnectsEverything(t *testing.T) {
	db := sqlite(t)
	cfg := cheap(latchkey.Config{
		Lifetime: time.Hour, APITokens: latchkey.APITokens{Scopes: []string{"read"}},
		Collections: latchkey.Collections{Users: "members", AccessTokens: "sessions"},
	})
	lk, err := sqlstore.New[appUser](db, sqlstore.SQLite, uuid.New, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer lk.Close()
	ctx := t.Context()
	if err := lk.Ping(ctx); !errors.Is(err, sqlstore.ErrSchemaMismatch) {
		t.Errorf("Ping of an empty database returned %v, want ErrSchemaMismatch", err)
	}
	if err := lk.EnsureIndexes(ctx); err == nil || !strings.Contains(err.Error(), `"members" lacks the column of the field Name of sqlstore_test.appUser`) {
		t.Errorf("EnsureIndexes without the column of the application returned %v, want an error that names the table", err)
	}
	if _, err := db.ExecContext(ctx, "ALTER TABLE members ADD COLUMN name TEXT NOT NULL DEFAULT ''"); err != nil {
		t.Fatal(err)
	}
	if err := lk.EnsureIndexes(ctx); err != nil {
		t.Fatal(err)
	}
	if err := lk.Ping(ctx); err != nil {
		t.Error(err)
	}
	if err := lk.VerifyIndexes(ctx); err != nil {
		t.Error(err)
	}
	if _, err := lk.AuditUsers(ctx); err == nil {
		t.Error("AuditUsers returned no error")
	}

	ann := appUser{Name: "Ann"}
	ann.Email = "ann@example.com"
	if ann, err = lk.Accounts.Register(ctx, ann, "correct horse battery staple"); err != nil {
		t.Fatal(err)
	}
	gin.SetMode(gin.TestMode)
	r := gin.New()
	lk.Auth.Routes(r.Group("/auth"))
	r.GET("/me", lk.Auth.RequireUser(), func(c *gin.Context) {
		me, _ := lk.Auth.CurrentUser(c)
		c.String(http.StatusOK, me.Name)
	})
	login := httptest.NewRequest(http.MethodPost, "/auth/login", strings.NewReader("username=ann@example.com&password=correct+horse+battery+staple"))
	login.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer := httptest.NewRecorder()
	r.ServeHTTP(answer, login)
	if answer.Code != http.StatusOK {
		t.Fatalf("the login answered %d", answer.Code)
	}
	var body struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(answer.Body.Bytes(), &body); err != nil {
		t.Fatal(err)
	}
	get := func() *httptest.ResponseRecorder {
		me := httptest.NewRequest(http.MethodGet, "/me", nil)
		me.Header.Set("Authorization", "Bearer "+body.AccessToken)
		answer := httptest.NewRecorder()
		r.ServeHTTP(answer, me)
		return answer
	}
	if answer := get(); answer.Code != http.StatusOK || answer.Body.String() != "Ann" {
		t.Errorf("the guarded route answered %d %q, want 200 Ann", answer.Code, answer.Body)
	}
	secret, _, err := lk.APITokens.WriteToken(ctx, ann, strategy.WithScopes("read"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lk.APITokens.ReadToken(ctx, secret.Reveal()); err != nil {
		t.Error(err)
	}
	if err := lk.Accounts.RevokeTokens(ctx, ann.ID); err != nil {
		t.Fatal(err)
	}
	if answer := get(); answer.Code != http.StatusUnauthorized {
		t.Errorf("with a revoked token, the guarded route answered %d, want 401", answer.Code)
	}
	lk.Close()
	if err := lk.Ping(ctx); err == nil {
		t.Error("Ping after Close returned no error")
	}
}

func TestNewRefusesConfigurations(t *testing.T) {
	db := sqlite(t)
	for name, test := range map[string]struct {
		cfg  latchkey.Config
		want string
	}{
		"a registry of BSON":            {latchkey.Config{Registry: bson.NewRegistry()}, "Config.Registry"},
		"an audit trail":                {latchkey.Config{AuditRetention: time.Hour}, "Config.AuditRetention is 1h0m0s"},
		"legacy tokens without a table": {latchkey.Config{Legacy: mongostore.LegacyConfig{Lifetime: 1}}, "LegacyConfig.Table"},
		"a negative purge interval":     {latchkey.Config{PurgeInterval: -1}, "Config.PurgeInterval is -1ns"},
		"a negative lifetime":           {latchkey.Config{Lifetime: -1}, "Lifetime is -1ns"},
		"a negative timeout":            {latchkey.Config{Timeout: -1}, "Config.Timeout is -1ns"},
		"two tables of one name":        {latchkey.Config{Collections: latchkey.Collections{Users: "sessions", AccessTokens: "sessions"}}, "AccessTokens"},
		"a table with an odd name":      {latchkey.Config{Collections: latchkey.Collections{Users: "a b"}}, `Users is "a b"`},
		"an invalid number of sessions": {latchkey.Config{MaxSessions: -1}, "MaxSessions"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sqlstore.New[appUser](db, sqlstore.SQLite, uuid.New, cheap(test.cfg))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("New returned %v, want an error with %q", err, test.want)
			}
		})
	}
	t.Run("no database", func(t *testing.T) {
		if _, err := sqlstore.New[appUser](nil, sqlstore.SQLite, uuid.New, latchkey.Config{}); err == nil {
			t.Error("New returned no error")
		}
	})
	t.Run("no dialect", func(t *testing.T) {
		if _, err := sqlstore.New[appUser](db, 0, uuid.New, latchkey.Config{}); err == nil {
			t.Error("New returned no error")
		}
	})
}

func TestNewInt64ID(t *testing.T) {
	seen := make(map[int64]bool)
	for range 10_000 {
		id := sqlstore.NewInt64ID()
		if id < 1 || id >= 1<<53 || seen[id] {
			t.Fatalf("NewInt64ID returned %d", id)
		}
		seen[id] = true
	}
}

// Expired rows go without a call of the application's, and Close ends it.
func TestNewPurges(t *testing.T) {
	db := sqlite(t)
	purged := make(chan event.Event, 1)
	cfg := cheap(latchkey.Config{Lifetime: time.Hour, PurgeInterval: time.Millisecond, OnEvent: func(_ context.Context, e event.Event) {
		if e.Kind == event.Purged {
			purged <- e
		}
	}})
	lk, err := sqlstore.New[account.User[uuid.UUID]](db, sqlstore.SQLite, uuid.New, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer lk.Close()
	if err := lk.EnsureIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
	ann, err := lk.Accounts.Create(t.Context(), account.User[uuid.UUID]{Email: "ann@example.com"}, "correct horse battery staple")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "INSERT INTO access_tokens (id, token, user_id, created_at) VALUES (?, 'old', ?, 1)", uuid.NewString(), ann.ID.String()); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-purged:
		if e.Count != 1 {
			t.Errorf("the event counts %d rows, want 1", e.Count)
		}
	case <-time.After(30 * time.Second):
		t.Error("the expired token was not removed within 30 seconds")
	}
}

// Two applications with users of their own share a database.
func TestTwoApplicationsInOneDatabase(t *testing.T) {
	db := sqlite(t)
	for _, names := range []latchkey.Collections{{}, {
		Users: "b_users", AccessTokens: "b_access_tokens", LoginAttempts: "b_login_attempts", Revocations: "b_revocations",
		OneTimeTokens: "b_one_time_tokens", APITokens: "b_api_tokens", OAuthAccounts: "b_oauth_accounts", Leases: "b_leases",
	}} {
		lk, err := sqlstore.New[account.User[uuid.UUID]](db, sqlstore.SQLite, uuid.New, cheap(latchkey.Config{Collections: names}))
		if err != nil {
			t.Fatal(err)
		}
		defer lk.Close()
		if err := lk.EnsureIndexes(t.Context()); err != nil {
			t.Fatal(err)
		}
		ann := account.User[uuid.UUID]{Email: "ann@example.com"}
		if _, err := lk.Accounts.Create(t.Context(), ann, "correct horse battery staple"); err != nil {
			t.Error(err)
		}
	}
}
