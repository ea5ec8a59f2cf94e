package integration_test

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.uber.org/goleak"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

// trailKinds lists a user's events in pages of two, newest first.
func trailKinds(t *testing.T, trail *mongostore.AuditTrail[uuid.UUID], user uuid.UUID) (kinds []event.Kind) {
	t.Helper()
	var page strategy.Page
	for page.Limit = 2; ; {
		got, err := trail.ByUser(t.Context(), user, page)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range got.Events {
			if e.UserID != user || e.Time.IsZero() {
				t.Errorf("got the event %+v, want one of the user with a time", e)
			}
			kinds = append(kinds, e.Kind)
		}
		if page.After = got.Next; page.After == "" {
			return kinds
		}
	}
}

func TestAuditTrailShowsWhatAUserDid(t *testing.T) {
	db := database(t)
	f := newFacade(t, db, latchkey.Config{Lifetime: time.Hour, AuditRetention: time.Hour})
	ann, bob := f.register("ann@example.com"), f.register("bob@example.com")
	token := f.login("ann@example.com")
	f.call(http.MethodPost, "/auth/login", url.Values{"username": {"ann@example.com"}, "password": {"wrong password"}})
	renewed := f.tokenOf(f.call(http.MethodPost, "/password", url.Values{"new": {"another good password"}}, token))
	f.call(http.MethodPost, "/auth/logout", nil, renewed)
	f.wantStatus("/me", http.StatusUnauthorized, renewed) // token.denied is not in the trail
	f.Close()                                             // writes what waits

	got := trailKinds(t, f.AuditTrail, ann.ID)
	slices.Reverse(got)
	for _, want := range []event.Kind{event.AccountRegistered, event.LoginSucceeded, event.TokenIssued, event.LoginDenied, event.PasswordChanged, event.TokenRevoked} {
		if !slices.Contains(got, want) {
			t.Errorf("got %v, which lacks %s", got, want)
		}
	}
	if slices.Contains(got, event.TokenDenied) || got[0] != event.AccountRegistered || got[len(got)-1] != event.TokenRevoked {
		t.Errorf("got %v, want the events from %s to %s without %s", got, event.AccountRegistered, event.TokenRevoked, event.TokenDenied)
	}
	if got := trailKinds(t, f.AuditTrail, bob.ID); !slices.Equal(got, []event.Kind{event.AccountRegistered}) {
		t.Errorf("another user: got %v, want only %s", got, event.AccountRegistered)
	}
	if n := f.AuditTrail.Dropped(); n != 0 {
		t.Errorf("got %d dropped events, want 0", n)
	}

	// No secret is in any document.
	secrets := []string{password, "another good password", "wrong password"}
	for _, s := range []string{token, renewed} {
		_, body, _ := strings.Cut(s, "_")
		secrets = append(secrets, body)
	}
	cur, err := db.Collection("access_tokens").Find(t.Context(), bson.D{})
	var rows, docs []bson.Raw
	if err == nil {
		err = cur.All(t.Context(), &rows)
	}
	if err == nil {
		cur, err = db.Collection("audit").Find(t.Context(), bson.D{})
	}
	if err == nil {
		err = cur.All(t.Context(), &docs)
	}
	if err != nil || len(docs) == 0 {
		t.Fatalf("got %d documents and the error %v", len(docs), err)
	}
	for _, row := range rows {
		secrets = append(secrets, row.Lookup("token").StringValue())
	}
	for _, doc := range docs {
		for _, s := range secrets {
			if strings.Contains(doc.String(), s) {
				t.Error("a document of the audit trail has a secret")
			}
		}
		elems, err := doc.Elements()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range elems {
			if !slices.Contains([]string{"_id", "at", "kind", "user_id", "session_id", "client_ip", "reason"}, e.Key()) {
				t.Errorf("a document has the field %s", e.Key())
			}
		}
	}
}

func TestFacadeMakesTheIndexesOfTheAuditTrail(t *testing.T) {
	db := database(t)
	lk, err := latchkey.New[facadeUser](db, uuid.New, latchkey.Config{AuditRetention: time.Hour, PurgeInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer lk.Close()
	if err := lk.VerifyIndexes(t.Context()); !errors.Is(err, mongostore.ErrIndexMismatch) || !strings.Contains(err.Error(), "audit lacks") {
		t.Errorf("before EnsureIndexes: got %v, want an index mismatch of audit", err)
	}
	if err := lk.EnsureIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := lk.VerifyIndexes(t.Context()); err != nil {
		t.Errorf("after EnsureIndexes: %v", err)
	}
	want := "_id_, at_1, user_id_1_at_-1__id_-1"
	if server.Capabilities.TTL {
		want = "_id_, at_1 ttl, user_id_1_at_-1__id_-1"
		if got := ttlSeconds(t, db.Collection("audit")); got != 3600 {
			t.Errorf("got the expiry %d s, want 3600", got)
		}
	}
	if got := names(indexes(t, db.Collection("audit"))); got != want {
		t.Errorf("got the indexes %s, want %s", got, want)
	}
}

func TestFacadeWithoutAuditRetentionHasNoTrail(t *testing.T) {
	db := database(t)
	f := newFacade(t, db, latchkey.Config{})
	f.register("ann@example.com")
	f.Close()
	if n, err := db.Collection("audit").CountDocuments(t.Context(), bson.D{}); err != nil || n != 0 || f.AuditTrail != nil {
		t.Errorf("got %d documents, %v and the trail %v, want none", n, err, f.AuditTrail)
	}
}

func newTrail(t *testing.T, cfg mongostore.AuditTrailConfig) *mongostore.AuditTrail[uuid.UUID] {
	t.Helper()
	cfg.PurgeInterval = time.Hour
	trail, err := mongostore.NewAuditTrail[uuid.UUID](database(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(trail.Close)
	if err := trail.EnsureIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
	return trail
}

// recordAged records an event of a user and waits until it is stored.
func recordAged(t *testing.T, trail *mongostore.AuditTrail[uuid.UUID], at time.Time) uuid.UUID {
	t.Helper()
	user := uuid.New()
	trail.Record(t.Context(), event.Event{Kind: event.LoginSucceeded, Time: at, UserID: user})
	eventually(t, 10*time.Second, "the event is stored", func() bool { return len(trailKinds(t, trail, user)) == 1 })
	return user
}

func TestAuditTrailPurgesOldEvents(t *testing.T) {
	now := time.Now()
	var clock = now
	trail := newTrail(t, mongostore.AuditTrailConfig{Retention: time.Hour, Now: func() time.Time { return clock }})
	old, recent := recordAged(t, trail, now), recordAged(t, trail, now.Add(time.Second))
	clock = now.Add(time.Hour + 500*time.Millisecond)
	if n, err := trail.Purge(t.Context()); err != nil || n != 1 {
		t.Errorf("got %d, %v, want 1 removed event", n, err)
	}
	if len(trailKinds(t, trail, old)) != 0 || len(trailKinds(t, trail, recent)) != 1 {
		t.Error("want only the recent event to remain")
	}
}

func TestServerDeletesOldAuditEvents(t *testing.T) {
	testserver.Require(t, server.Capabilities.TTL, "ttl")
	t.Parallel()
	trail := newTrail(t, mongostore.AuditTrailConfig{Retention: time.Hour})
	old, recent := recordAged(t, trail, time.Now().Add(-time.Hour+5*time.Second)), recordAged(t, trail, time.Now())
	eventually(t, server.TTLWait()+5*time.Second, "the old event is deleted", func() bool { return len(trailKinds(t, trail, old)) == 0 })
	if len(trailKinds(t, trail, recent)) != 1 {
		t.Error("the recent event was deleted")
	}
}

func TestCloseEndsTheAuditTrailsGoroutine(t *testing.T) {
	db := database(t)
	if err := db.Client().Ping(t.Context(), nil); err != nil { // starts the client's goroutines
		t.Fatal(err)
	}
	before := goleak.IgnoreCurrent()
	trail, err := mongostore.NewAuditTrail[uuid.UUID](db, mongostore.AuditTrailConfig{})
	if err != nil {
		t.Fatal(err)
	}
	trail.Close()
	if _, err := latchkey.New[facadeUser](db, uuid.New, latchkey.Config{AuditRetention: time.Hour, MaxSessions: -1}); err == nil {
		t.Error("a negative MaxSessions is valid")
	}
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
}
