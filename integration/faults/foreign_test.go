package faults_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/strategy"
)

// Foreign documents are documents that Latchkey did not write: a field has another type, or
// is missing.

// absent is the value of a missing field.
const absent = "absent"

// with returns a document with another value of a field.
func with(doc bson.D, key string, value any) bson.D {
	out := slices.DeleteFunc(slices.Clone(doc), func(e bson.E) bool { return e.Key == key })
	if value == absent {
		return out
	}
	return append(out, bson.E{Key: key, Value: value})
}

// change is a field with a foreign value, in a document that Latchkey wrote.
type change struct {
	field string
	value any
}

func (c change) String() string {
	if c.value == absent {
		return "without " + c.field
	}
	return fmt.Sprintf("%s is %T(%v)", c.field, c.value, c.value)
}

// foreignRig is a rig with one user whose documents a test changes, and another user who must
// not be affected.
type foreignRig struct {
	*rig
	token, other string
}

func newForeignRig(t *testing.T, cfg rigConfig) foreignRig {
	t.Helper()
	cfg.sessions.Lifetime = time.Hour
	r := newRig(t, newDatabase(t).Name(), cfg)
	r.mustRegister(t, "jo@example.com", "other@example.com")
	return foreignRig{r, r.mustLogin(t, "jo@example.com"), r.mustLogin(t, "other@example.com")}
}

// replace changes one document of a collection. It can change the _id.
func (r foreignRig) replace(t *testing.T, collection string, filter bson.D, c change) {
	t.Helper()
	coll := r.mongo.db.Collection(collection)
	var doc bson.D
	if err := coll.FindOneAndDelete(t.Context(), filter).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	if _, err := coll.InsertOne(t.Context(), with(doc, c.field, c.value)); err != nil {
		t.Fatal(err)
	}
}

// checkOther checks that the other user is not affected.
func (r foreignRig) checkOther(t *testing.T) {
	t.Helper()
	r.want(t, http.StatusOK, r.other, "another user")
	token := r.mustLogin(t, "other@example.com")
	if got := r.logout(token); got.status != http.StatusNoContent {
		t.Errorf("another user's log-out: %v, want 204", got)
	}
	r.want(t, http.StatusUnauthorized, token, "another user, after a log-out")
}

// oneOf reports whether the status of an answer is 503 or one of some others.
func oneOf(got answer, statuses ...int) bool {
	return slices.Contains(append(statuses, http.StatusServiceUnavailable), got.status)
}

func TestForeignTokens(t *testing.T) {
	r := newForeignRig(t, rigConfig{sessions: strategy.Config{MaxSessions: 5}})
	withoutLifetime := newRig(t, r.mongo.db.Name(), rigConfig{indexes: func(context.Context, *rig) error { return nil }})
	for _, c := range []change{
		{"_id", "a string"}, {"_id", int32(7)}, {"_id", bson.NewObjectID()}, {"_id", bson.Binary{Data: []byte("short")}},
		{"user_id", absent}, {"user_id", "a string"}, {"user_id", int64(7)}, {"user_id", nil}, {"user_id", bson.D{{Key: "a", Value: 1}}},
		{"created_at", absent}, {"created_at", "2026-01-01T00:00:00Z"}, {"created_at", int64(4e12)}, {"created_at", nil},
		{"token", 12345}, {"token", absent},
		{"scopes", "admin"}, {"scopes", bson.A{1, 2}}, {"scopes", bson.D{}},
		{"expires_at", "tomorrow"}, {"expires_at", int64(4e12)}, {"last_used_at", "yesterday"}, {"authenticated_at", 7.5},
		{"token_version", "1"}, {"token_version", 0.5}, {"token_version", true}, {"token_version", bson.D{}}, {"token_version", int64(7)},
		{"name", 7}, {"user_agent", bson.A{}}, {"client_ip", true},
	} {
		t.Run(c.String(), func(t *testing.T) {
			token := r.mustLogin(t, "jo@example.com")
			r.want(t, http.StatusOK, token, "before the change")
			jo, err := r.users.ByEmail(t.Context(), "jo@example.com")
			if err != nil {
				t.Fatal(err)
			}
			page, err := r.sessions.Sessions(t.Context(), jo.ID, strategy.Page{Limit: 1})
			if err != nil || len(page.Sessions) != 1 {
				t.Fatalf("%d sessions (error %v), want 1", len(page.Sessions), err)
			}
			r.replace(t, "access_tokens", bson.D{{Key: "_id", Value: bson.Binary{Subtype: bson.TypeBinaryUUID, Data: page.Sessions[0].ID[:]}}}, c)
			for _, on := range []*rig{r.rig, withoutLifetime} {
				if got := on.guarded(token); got.status != http.StatusUnauthorized {
					t.Errorf("a guarded request: %v, want 401", got)
				}
				if got := on.send(http.MethodGet, "/auth/sessions", token); got.status != http.StatusUnauthorized {
					t.Errorf("the list of sessions: %v, want 401", got)
				}
			}
			next := r.mustLogin(t, "jo@example.com")
			if got := r.send(http.MethodGet, "/auth/sessions", next); got.status != http.StatusOK {
				t.Errorf("the list of sessions after the next login: %v, want 200", got)
			}
			r.checkOther(t)
			if _, err := r.mongo.tokens.Purge(t.Context()); err != nil {
				t.Errorf("Purge: %v", err)
			}
			if got := r.logout(token); got.status != http.StatusUnauthorized {
				t.Errorf("the log-out: %v, want 401", got)
			}
			if err := r.sessions.DestroyAll(t.Context(), jo.ID); err != nil {
				t.Errorf("DestroyAll: %v", err)
			}
			if _, err := r.mongo.db.Collection("access_tokens").DeleteMany(t.Context(), bson.D{{Key: "token", Value: bson.D{{Key: "$exists", Value: false}}}}); err != nil {
				t.Fatal(err)
			}
			r.mustLogin(t, "jo@example.com")
		})
	}
}

func TestForeignUsers(t *testing.T) {
	for _, c := range []struct {
		change
		login int // the status of a login, beside 503
	}{
		{change{"_id", "a string"}, 0}, {change{"_id", int32(7)}, 0}, {change{"_id", bson.NewObjectID()}, 0},
		{change{"email", absent}, http.StatusBadRequest}, {change{"email", 7}, http.StatusBadRequest}, {change{"email", bson.A{}}, http.StatusBadRequest},
		{change{"hashed_password", absent}, http.StatusBadRequest}, {change{"hashed_password", 7}, 0}, {change{"hashed_password", "plain"}, http.StatusBadRequest},
		{change{"is_active", absent}, http.StatusOK}, {change{"is_active", "yes"}, 0}, {change{"is_active", nil}, http.StatusOK}, {change{"is_active", false}, http.StatusBadRequest},
		{change{"created_at", "long ago"}, 0}, {change{"is_superuser", "no"}, 0}, {change{"name", 7}, 0},
		{change{"token_version", "1"}, 0}, {change{"token_version", 0.5}, 0}, {change{"token_version", true}, 0}, {change{"token_version", bson.D{}}, 0},
	} {
		t.Run(c.String(), func(t *testing.T) {
			r := newForeignRig(t, rigConfig{})
			r.replace(t, "users", bson.D{{Key: "email", Value: "jo@example.com"}}, c.change)
			if got := r.login("jo@example.com"); !oneOf(got, c.login) {
				t.Errorf("the login: %v, want %d or 503", got, c.login)
			}
			got := r.guarded(r.token)
			// A guard needs neither the address nor the password.
			// An account without is_active is active.
			lenient := c.login == http.StatusOK || c.field == "email" && c.value == absent || c.field == "hashed_password" && c.value != 7
			if !oneOf(got, http.StatusUnauthorized) && !(lenient && got.status == http.StatusOK) {
				t.Errorf("a guarded request: %v, want 401 or 503", got)
			}
			if got := r.logout(r.token); !oneOf(got, http.StatusUnauthorized, http.StatusNoContent) {
				t.Errorf("the log-out: %v, want 204, 401 or 503", got)
			}
			r.checkOther(t)
		})
	}
}

func TestForeignAttempts(t *testing.T) {
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprintf("FailClosed %v", closed), func(t *testing.T) {
			for _, c := range []change{
				{"failures", "many"}, {"failures", absent}, {"last", "yesterday"}, {"last", absent}, {"expires_at", "tomorrow"},
				{"expires_at", absent}, {"networks", "home"}, {"networks", bson.A{1}},
			} {
				t.Run(c.String(), func(t *testing.T) {
					r := newForeignRig(t, rigConfig{limiter: &account.LimiterConfig{FailClosed: closed}})
					if got := r.loginWith("jo@example.com", "not the password"); got.status != http.StatusBadRequest {
						t.Fatalf("a wrong password: %v, want 400", got)
					}
					cur, err := r.mongo.db.Collection("login_attempts").Find(t.Context(), bson.D{})
					if err != nil {
						t.Fatal(err)
					}
					var docs []bson.D
					if err := cur.All(t.Context(), &docs); err != nil || len(docs) == 0 {
						t.Fatalf("%d counters (error %v), want some", len(docs), err)
					}
					for _, doc := range docs {
						r.replace(t, "login_attempts", bson.D{{Key: "_id", Value: doc[0].Value}}, c)
					}
					if got := r.login("jo@example.com"); !oneOf(got, http.StatusOK) {
						t.Errorf("the login: %v, want 200 or 503", got)
					} else if !closed && got.status != http.StatusOK {
						t.Errorf("the login: %v, want 200: without FailClosed, a failing limiter rejects no login", got)
					}
					if got := r.loginWith("jo@example.com", "not the password"); !oneOf(got, http.StatusBadRequest) {
						t.Errorf("a wrong password: %v, want 400 or 503", got)
					}
					if _, err := r.mongo.attempts.Purge(t.Context()); err != nil {
						t.Errorf("Purge: %v", err)
					}
					r.want(t, http.StatusOK, r.other, "another user")
				})
			}
		})
	}
}

// EnsureIndexes fails if the documents of a collection violate a unique index.
func TestEnsureIndexesOnForeignDocuments(t *testing.T) {
	for collection, docs := range map[string][]any{
		"access_tokens":  {bson.D{{Key: "token", Value: "same"}}, bson.D{{Key: "token", Value: "same"}}},
		"users":          {bson.D{{Key: "email", Value: 7}}, bson.D{{Key: "email", Value: 7}}},
		"login_attempts": {bson.D{{Key: "expires_at", Value: "x"}}, bson.D{{Key: "expires_at", Value: 7}}},
		"revocations":    {bson.D{{Key: "at", Value: "x"}}, bson.D{{Key: "at", Value: 7}}, bson.D{}},
	} {
		t.Run(collection, func(t *testing.T) {
			db := newDatabase(t)
			if _, err := db.Collection(collection).InsertMany(t.Context(), docs); err != nil {
				t.Fatal(err)
			}
			r, err := startRig(t.Context(), db.Name(), rigConfig{sessions: strategy.Config{Lifetime: time.Hour}})
			t.Cleanup(r.close)
			var answered mongo.ServerError // not its code: FerretDB v1 has another one for duplicate keys
			switch unique := collection == "access_tokens" || collection == "users"; {
			case unique && (!errors.As(err, &answered) || !strings.Contains(err.Error(), "mongostore: ensure indexes: create the index")):
				t.Errorf("got %v, want the server's error and the failed step", err)
			case !unique && err != nil:
				t.Error(err)
			}
		})
	}
}

// followerRig is two instances that share a database. The second one has a cache, in which a
// session would stay valid for a minute if it did not follow the revocations.
type followerRig struct {
	plain, cached *rig
	// suspended counts the events cache.suspended, and undecoded the events store.failed for
	// a revocation that could not be decoded.
	suspended, undecoded atomic.Int64
}

// followerConfig configures an instance with a cache. It has time for a busy server: these
// tests are not about timeouts.
func followerConfig(onEvent func(context.Context, event.Event)) rigConfig {
	return rigConfig{timeout: 10 * time.Second, sessions: strategy.Config{
		Lifetime: time.Hour, Cache: strategy.Cache{MaxStaleness: time.Minute, FollowInterval: 50 * time.Millisecond},
		OnEvent: onEvent,
	}}
}

func newFollowerRig(t *testing.T) *followerRig {
	t.Helper()
	f := &followerRig{}
	db := newDatabase(t)
	f.plain = newRig(t, db.Name(), rigConfig{timeout: 10 * time.Second, sessions: strategy.Config{Lifetime: time.Hour}})
	f.cached = newRig(t, db.Name(), followerConfig(func(_ context.Context, e event.Event) {
		switch {
		case e.Kind == event.CacheSuspended:
			f.suspended.Add(1)
		case e.Kind == event.StoreFailed && strings.Contains(e.Err.Error(), "read the revocation "):
			f.undecoded.Add(1)
		}
	}))
	f.plain.mustRegister(t, "jo@example.com")
	// The first read finds out where to begin, and does not report undecoded revocations.
	// When the second one begins, the first has ended.
	eventuallyTrue(t, 10*time.Second, "the cache follows the revocations", func() bool { return f.cached.mongo.polls.Load() >= 2 })
	return f
}

// checkFollowing checks that an instance with a cache learns of the log-outs on another one.
func checkFollowing(t *testing.T, plain, cached *rig) {
	t.Helper()
	for range 3 {
		token := plain.mustLogin(t, "jo@example.com")
		cached.want(t, http.StatusOK, token, "on the instance with a cache")
		if got := plain.logout(token); got.status != http.StatusNoContent {
			t.Fatalf("the log-out: %v, want 204", got)
		}
		// Much sooner than MaxStaleness.
		eventuallyTrue(t, 10*time.Second, "the cache learns of a log-out on another instance", func() bool {
			return cached.guarded(token).status == http.StatusUnauthorized
		})
	}
}

// A revocation that cannot be decoded is reported once, and the follower goes on. A
// revocation with a date in the future does not hide those after it.
func TestForeignRevocationsDoNotStopFollowers(t *testing.T) {
	id := bson.Binary{Subtype: bson.TypeBinaryUUID, Data: slices.Repeat([]byte{7}, 16)}
	now := time.Now()
	// Earlier than the overlap of two reads, so that it is read only once.
	at := bson.NewDateTimeFromTime(now.Add(-30 * time.Second))
	soon := bson.NewDateTimeFromTime(now.Add(30 * time.Minute))
	farFuture := bson.NewDateTimeFromTime(time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC))
	for _, c := range []struct {
		name      string
		doc       bson.D
		undecoded int64
	}{
		{"an _id that is a string", bson.D{{Key: "_id", Value: "x"}, {Key: "at", Value: at}, {Key: "token", Value: "y"}}, 0},
		{"an _id that is an ObjectID", bson.D{{Key: "at", Value: at}, {Key: "token", Value: "y"}}, 0},
		{"an _id that is a document", bson.D{{Key: "_id", Value: bson.D{{Key: "a", Value: 1}}}, {Key: "at", Value: at}, {Key: "token", Value: "y"}}, 0},
		{"a token that is a number", bson.D{{Key: "_id", Value: id}, {Key: "at", Value: at}, {Key: "token", Value: 7}}, 1},
		{"a session that is a string", bson.D{{Key: "_id", Value: id}, {Key: "at", Value: at}, {Key: "session_id", Value: "x"}}, 1},
		{"a user of another type", bson.D{{Key: "_id", Value: id}, {Key: "at", Value: at}, {Key: "user_id", Value: int64(7)}}, 1},
		{"only a date", bson.D{{Key: "_id", Value: id}, {Key: "at", Value: at}}, 1},
		{"a date that is a string", bson.D{{Key: "_id", Value: id}, {Key: "at", Value: "today"}, {Key: "token", Value: "y"}}, 0},
		{"a date that is a document", bson.D{{Key: "_id", Value: id}, {Key: "at", Value: bson.D{}}, {Key: "token", Value: "y"}}, 0},
		{"a date that is a regex", bson.D{{Key: "_id", Value: id}, {Key: "at", Value: bson.Regex{Pattern: "x"}}, {Key: "token", Value: "y"}}, 0},
		{"a timestamp in the far future", bson.D{{Key: "_id", Value: id}, {Key: "at", Value: bson.Timestamp{T: 4e9}}, {Key: "token", Value: "y"}}, 0},
		{"no date", bson.D{{Key: "_id", Value: id}, {Key: "token", Value: "y"}}, 0},
		{"a date half an hour ahead", bson.D{{Key: "_id", Value: id}, {Key: "at", Value: soon}, {Key: "token", Value: "y"}}, 0},
		{"a date in the far future", bson.D{{Key: "_id", Value: id}, {Key: "at", Value: farFuture}, {Key: "token", Value: "y"}}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFollowerRig(t)
			if _, err := f.plain.mongo.db.Collection("revocations").InsertOne(t.Context(), c.doc); err != nil {
				t.Fatal(err)
			}
			checkFollowing(t, f.plain, f.cached)
			late := newRig(t, f.plain.mongo.db.Name(), followerConfig(nil)) // starts after the foreign revocation
			checkFollowing(t, f.plain, late)
			if n := f.suspended.Load(); n > 0 {
				t.Errorf("the cache was suspended %d times, want never", n)
			}
			if n := f.undecoded.Load(); n != c.undecoded {
				t.Errorf("undecoded revocations were reported %d times, want %d", n, c.undecoded)
			}
		})
	}
}
