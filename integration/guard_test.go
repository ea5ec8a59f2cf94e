package integration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/internal/contract"
	"github.com/latchkey-go/latchkey/internal/secretscan"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

const (
	memberEmail = "member@example.com"
	password    = "correct horse battery staple"
)

// rig is an application on the database under test, behind a listener, with one user.
type rig struct {
	t        testing.TB
	url      string
	handler  http.Handler
	sessions *strategy.Database[contract.Member, uuid.UUID]
	accounts *account.Manager[contract.Member, uuid.UUID]
	member   contract.Member
}

// newRig returns a rig. timeout is the time bound of the stores and of the operations; 0 means
// the default.
func newRig(t testing.TB, db *mongo.Database, timeout time.Duration, cfg strategy.Config) *rig {
	t.Helper()
	return newRigOn(t, db, timeout, newTokens[uuid.UUID](t, db, mongostore.TokensConfig{Lifetime: cfg.Lifetime, Timeout: timeout, OnEvent: cfg.OnEvent}), cfg)
}

// newRigOn is newRig with a token store of the test.
func newRigOn(t testing.TB, db *mongo.Database, timeout time.Duration, tokens strategy.Store[uuid.UUID], cfg strategy.Config) *rig {
	t.Helper()
	users := newUsers[contract.Member](t, db, mongostore.UsersConfig{Timeout: timeout, OnEvent: cfg.OnEvent})
	sessions, err := strategy.NewDatabase(tokens, users, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sessions.Close)
	accounts := newManager(t, users, account.Config{Now: cfg.Now, OnEvent: cfg.OnEvent}, sessions)
	member, err := accounts.Register(t.Context(), contract.Member{User: account.User[uuid.UUID]{Email: memberEmail}}, password)
	if err != nil {
		t.Fatal(err)
	}
	auth, err := ginauth.New(sessions, accounts, ginauth.Config{
		Transports: []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}}, Timeout: timeout, Now: cfg.Now, OnEvent: cfg.OnEvent,
	})
	if err != nil {
		t.Fatal(err)
	}
	router := gin.New()
	auth.Routes(router.Group("/auth"))
	router.GET("/me", auth.RequireUser(), func(c *gin.Context) {
		user, _ := auth.CurrentUser(c)
		c.JSON(http.StatusOK, gin.H{"user": user.Email})
	})
	srv := httptest.NewServer(router)
	t.Cleanup(srv.Close)
	return &rig{t: t, url: srv.URL, handler: router, sessions: sessions, accounts: accounts, member: member}
}

func (r *rig) login() (token string) {
	r.t.Helper()
	token, status := r.tryLogin()
	if status != http.StatusOK {
		r.t.Fatalf("login answered %d", status)
	}
	secretscan.Record(token)
	return token
}

func (r *rig) tryLogin() (token string, status int) {
	r.t.Helper()
	resp, err := http.PostForm(r.url+"/auth/login", url.Values{"username": {memberEmail}, "password": {password}})
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var body struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		r.t.Fatal(err)
	}
	return body.AccessToken, resp.StatusCode
}

// call sends a request with a token, and returns the status of the answer.
func (r *rig) call(method, path, token string) int {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}

func (r *rig) want(status int, method, path, token, when string) {
	r.t.Helper()
	if got := r.call(method, path, token); got != status {
		r.t.Errorf("%s %s %s answered %d, want %d", method, path, when, got, status)
	}
}

func TestMalformedTokensSendNoCommand(t *testing.T) {
	client, sent := connect(t)
	r := newRig(t, testserver.Database(t, client), 0, strategy.Config{Lifetime: time.Hour})
	valid := r.login()
	sent.reset()

	// These have the right length, but a wrong prefix, alphabet or checksum.
	alphabet := "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-"
	seen := make(map[string]bool)
	for i := 0; len(seen) < 100_000; i++ {
		b := []byte(valid)
		pos, c := i%len(b), alphabet[(i/len(b))%len(alphabet)]
		b[pos] = c
		b[(pos+1+i/(len(b)*len(alphabet)))%len(b)] = '_'
		token := string(b)
		if token == valid || seen[token] {
			continue
		}
		seen[token] = true
		req := httptest.NewRequest(http.MethodGet, "/me", nil)
		req.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		r.handler.ServeHTTP(w, req)
		if w.Code != http.StatusUnauthorized {
			t.Fatalf("%s was answered with %d", token, w.Code)
		}
	}
	if got := sent.all(); len(got) > 0 {
		t.Errorf("%d commands were sent, want none; the first: %v", len(got), got[0])
	}
	r.want(http.StatusOK, http.MethodGet, "/me", valid, "with a valid token")
	if got := len(sent.named("find")); got != 2 {
		t.Errorf("a valid token sent %d finds, want 2: the token and the user", got)
	}
}

func TestExpiryIsExactWhileTheRowExists(t *testing.T) {
	client, _ := connect(t)
	db := testserver.Database(t, client)
	issued := time.Now().UTC().Truncate(time.Millisecond)
	now := issued
	r := newRig(t, db, 0, strategy.Config{Lifetime: time.Hour, Now: func() time.Time { return now }})
	token := r.login()
	for _, c := range []struct {
		age    time.Duration
		status int
	}{
		{0, http.StatusOK},
		{time.Hour - time.Millisecond, http.StatusOK},
		{time.Hour, http.StatusOK},
		{time.Hour + 999*time.Microsecond, http.StatusOK}, // less than a millisecond
		{time.Hour + time.Millisecond, http.StatusUnauthorized},
		{24 * time.Hour, http.StatusUnauthorized},
	} {
		now = issued.Add(c.age)
		r.want(c.status, http.MethodGet, "/me", token, "at the age of "+c.age.String())
	}
	// Neither a TTL index nor a purge has deleted it.
	if n, err := db.Collection("access_tokens").CountDocuments(t.Context(), bson.D{}); err != nil || n != 1 {
		t.Errorf("%d rows (error %v), want 1", n, err)
	}
}

func TestWriteConcernAndReadPreferenceOfTheClientAreOverridden(t *testing.T) {
	client, sent := connect(t, options.Client().SetWriteConcern(writeconcern.W1()).SetReadPreference(readpref.SecondaryPreferred()))
	r := newRig(t, testserver.Database(t, client), 0, strategy.Config{Lifetime: time.Hour})
	sent.reset()
	token := r.login()
	r.want(http.StatusOK, http.MethodGet, "/me", token, "after the login")
	r.want(http.StatusNoContent, http.MethodPost, "/auth/logout", token, "")
	for _, name := range []string{"insert", "findAndModify"} {
		commands := sent.named(name)
		if len(commands) == 0 {
			t.Errorf("no %s was sent", name)
		}
		for _, c := range commands {
			if got := lookup(c, "writeConcern.w"); got != "majority" {
				t.Errorf("%s was sent with the write concern %v, want majority", name, c.Lookup("writeConcern"))
			}
		}
	}
	for _, c := range sent.named("find") {
		if mode := lookup(c, "$readPreference.mode"); mode == "secondaryPreferred" {
			t.Errorf("a find was sent to a secondary: %v", c)
		}
	}
	for _, c := range sent.all() {
		if strings.Contains(c.String(), token) {
			t.Errorf("the secret was sent to the database: %v", c)
		}
	}
}

func TestEveryCallHasATimeBound(t *testing.T) {
	// Nothing listens at this address. The driver's default is to wait 30 s for a server.
	client, _ := connectTo(t, "mongodb://127.0.0.1:1")
	tokens, err := mongostore.NewTokens[uuid.UUID](client.Database("none"), mongostore.TokensConfig{Lifetime: time.Hour, Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	users, err := mongostore.NewUsers[contract.Member](client.Database("none"), mongostore.UsersConfig{Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	mails, err := mongostore.NewOneTimeTokens[uuid.UUID](client.Database("none"), mongostore.OneTimeTokensConfig{Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	// Index calls wait 10 s for a server, but no longer than the context's deadline.
	within := func(call func(context.Context) error) func() error {
		return func() error {
			ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			return call(ctx)
		}
	}
	for name, call := range map[string]func() error{
		"Insert":        func() error { return tokens.Insert(ctx, strategy.AccessToken[uuid.UUID]{}) },
		"ByToken":       func() error { _, err := tokens.ByToken(ctx, "x"); return err },
		"Touch":         func() error { return tokens.Touch(ctx, "x", time.Now()) },
		"Rotate":        func() error { _, err := tokens.Rotate(ctx, "x", strategy.Rotation{Digest: "y"}); return err },
		"ByUser":        func() error { _, err := tokens.ByUser(ctx, uuid.New(), strategy.Position{}, 1); return err },
		"Delete":        func() error { _, err := tokens.Delete(ctx, "x"); return err },
		"DeleteSession": func() error { _, err := tokens.DeleteSession(ctx, uuid.New(), uuid.New()); return err },
		"DeleteByUser":  func() error { _, err := tokens.DeleteByUser(ctx, uuid.New()); return err },
		"Purge":         func() error { _, err := tokens.Purge(ctx); return err },
		"EnsureIndexes": within(tokens.EnsureIndexes),
		"VerifyIndexes": within(tokens.VerifyIndexes),
		"Users.Insert":  func() error { return users.Insert(ctx, contract.Member{}) },
		"ByID":          func() error { _, err := users.ByID(ctx, uuid.New()); return err },
		"Apply":         func() error { return users.Apply(ctx, uuid.New(), account.Change{RevokeTokens: true}) },
		"ByEmail":       func() error { _, err := users.ByEmail(ctx, "x"); return err },
		"Users.Delete":  func() error { return users.Delete(ctx, uuid.New()) },

		"OneTimeTokens.Insert":       func() error { return mails.Insert(ctx, oneTimeToken(uuid.New(), time.Now()), 3) },
		"OneTimeTokens.Find":         func() error { _, err := mails.Find(ctx, "x", "x"); return err },
		"OneTimeTokens.Take":         func() error { _, err := mails.Take(ctx, "x", "x"); return err },
		"OneTimeTokens.DeleteByUser": func() error { return mails.DeleteByUser(ctx, uuid.New(), "") },
		"OneTimeTokens.Purge":        func() error { _, err := mails.Purge(ctx); return err },
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			if err := call(); err == nil {
				t.Error("no error without a server")
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("took %v, want about 50 ms", took)
			}
		})
	}
}

func Example_mongostore() {
	client, err := mongo.Connect(options.Client().ApplyURI(server.URI))
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	defer func() { _ = client.Disconnect(ctx) }()
	db := client.Database("latchkey_example")
	defer func() { _ = db.Drop(ctx) }()

	tokens, err := mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{
		Lifetime:      24 * time.Hour,
		PurgeInterval: time.Minute, // for a server without TTL indexes
	})
	if err != nil {
		panic(err)
	}
	defer tokens.Close()
	if err := tokens.EnsureIndexes(ctx); err != nil {
		panic(err)
	}
	fmt.Println("indexes:", tokens.VerifyIndexes(ctx))
	// Output: indexes: <nil>
}
