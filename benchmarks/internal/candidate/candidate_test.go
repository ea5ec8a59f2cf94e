package candidate_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/benchmarks/internal/candidate"
	"github.com/latchkey-go/latchkey/benchmarks/wirestub"
)

func seed(t *testing.T, users, tokens int) candidate.Data {
	t.Helper()
	server, err := wirestub.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	data, err := candidate.Seed(t.Context(), candidate.Data{URI: server.URI(), Database: "test"}, users, tokens)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func get(site *candidate.Site, session candidate.Header) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	site.Handler.ServeHTTP(w, candidate.Request(session))
	return w
}

// invalid returns a session header that does not authenticate anybody.
func invalid(session candidate.Header) candidate.Header {
	last := session.Value[len(session.Value)-5:]
	session.Value = strings.TrimSuffix(session.Value, last) + strings.Repeat("A", len(last))
	return session
}

func TestCandidatesOnTheDatabase(t *testing.T) {
	data := seed(t, 10, 30)
	for _, c := range candidate.All() {
		t.Run(c.Name, func(t *testing.T) {
			var n atomic.Int64
			db, err := candidate.Open(t.Context(), data, func() { n.Add(1) })
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = db.Close(t.Context()) }()
			site, err := c.Build(t.Context(), db)
			if err != nil {
				t.Fatal(err)
			}
			checkGuard(t, c, site, data)

			want := commands(c)
			// A cache is not used before its first read of the revocations, which is counted too.
			got, deadline := int64(-1), time.Now().Add(10*time.Second)
			for got != want && time.Now().Before(deadline) {
				n.Store(0)
				get(site, site.Sessions[0])
				got = n.Load()
			}
			if got != want {
				t.Errorf("a request sent %d commands, want %d", got, want)
			}
		})
	}
}

// commands returns the number of commands that a guarded request sends.
func commands(c candidate.Candidate) int64 {
	switch {
	case strings.HasPrefix(c.Reads, "nothing"):
		return 0
	case c.Work == candidate.Session:
		return 1
	case c.Work == candidate.User:
		return 2
	default:
		return 0
	}
}

// All candidates that refuse deactivated users at once also refuse other ended sessions.
func TestEndedSessionsAreRefused(t *testing.T) {
	cases := []struct {
		name   string
		change func(ctx context.Context, users, tokens *mongo.Collection, user any) error
	}{
		{"the user was deactivated", func(ctx context.Context, users, _ *mongo.Collection, user any) error {
			_, err := users.UpdateByID(ctx, user, bson.M{"$set": bson.M{"is_active": false}})
			return err
		}},
		{"the user was deleted", func(ctx context.Context, users, _ *mongo.Collection, user any) error {
			_, err := users.DeleteOne(ctx, bson.M{"_id": user})
			return err
		}},
		{"the token was revoked", func(ctx context.Context, _, tokens *mongo.Collection, user any) error {
			_, err := tokens.DeleteOne(ctx, bson.M{"user_id": user})
			return err
		}},
		{"the token has expired", func(ctx context.Context, _, tokens *mongo.Collection, user any) error {
			old := time.Now().Add(-candidate.Lifetime - time.Second)
			_, err := tokens.UpdateOne(ctx, bson.M{"user_id": user}, bson.M{"$set": bson.M{"created_at": old}})
			return err
		}},
	}
	for _, c := range candidate.All() {
		if c.Deactivated != "yes" {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			data := seed(t, len(cases), len(cases))
			db, err := candidate.Open(t.Context(), data, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = db.Close(t.Context()) }()
			site, err := c.Build(t.Context(), db)
			if err != nil {
				t.Fatal(err)
			}
			client, err := mongo.Connect(options.Client().ApplyURI(data.URI))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = client.Disconnect(t.Context()) }()
			users, tokens := client.Database(data.Database).Collection("users"), client.Database(data.Database).Collection("access_tokens")
			for i, change := range cases {
				if w := get(site, site.Sessions[i]); w.Code != http.StatusOK {
					t.Errorf("before %s: status %d, want 200", change.name, w.Code)
				}
				user := bson.Binary{Subtype: bson.TypeBinaryUUID, Data: data.UserIDs[i][:]}
				if err := change.change(t.Context(), users, tokens, user); err != nil {
					t.Fatal(err)
				}
				if w := get(site, site.Sessions[i]); w.Code != http.StatusUnauthorized {
					t.Errorf("%s: status %d, want 401", change.name, w.Code)
				}
			}
		})
	}
}

func TestCandidatesInMemory(t *testing.T) {
	data := seed(t, 10, 10)
	db, err := candidate.Open(t.Context(), data, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close(t.Context()) }()
	for _, c := range candidate.InMemory() {
		t.Run(c.Name, func(t *testing.T) {
			site, err := c.Build(t.Context(), db)
			if err != nil {
				t.Fatal(err)
			}
			checkGuard(t, c, site, data)
		})
	}
}

// checkGuard checks that a site admits each user's session as that user, and no others.
func checkGuard(t *testing.T, c candidate.Candidate, site *candidate.Site, data candidate.Data) {
	t.Helper()
	if len(site.Sessions) != len(data.UserIDs) {
		t.Fatalf("%d sessions, want %d", len(site.Sessions), len(data.UserIDs))
	}
	for i, session := range site.Sessions {
		w := get(site, session)
		if c.Refuses {
			if w.Code != http.StatusUnauthorized {
				t.Fatalf("user %d: status %d, want 401", i, w.Code)
			}
			continue
		}
		if w.Code != http.StatusOK {
			t.Fatalf("user %d: status %d, want 200", i, w.Code)
		}
		if c.Work != candidate.NoGuard && !strings.Contains(w.Body.String(), data.UserIDs[i].String()) {
			t.Errorf("user %d: the answer is %s", i, w.Body)
		}
	}
	want := http.StatusUnauthorized
	if c.Work == candidate.NoGuard {
		want = http.StatusOK
	}
	for name, session := range map[string]candidate.Header{"no session": {}, "an invalid session": invalid(site.Sessions[0])} {
		if w := get(site, session); w.Code != want {
			t.Errorf("%s: status %d, want %d", name, w.Code, want)
		}
	}
}

func TestSeedNeedsATokenForEachUser(t *testing.T) {
	if _, err := candidate.Seed(t.Context(), candidate.Data{}, 2, 1); err == nil {
		t.Error("no error")
	}
}

func TestByName(t *testing.T) {
	for _, c := range append(candidate.All(), candidate.InMemory()...) {
		if got, err := candidate.ByName(c.Name); err != nil || got.Name != c.Name {
			t.Errorf("%s: got %q, %v", c.Name, got.Name, err)
		}
	}
	if _, err := candidate.ByName("unknown"); err == nil {
		t.Error("no error for an unknown name")
	}
}
