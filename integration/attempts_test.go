package integration_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/integration/internal/wireproxy"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

// addExpiring stores a counter that expires at a time and returns its key.
func addExpiring(t *testing.T, attempts *mongostore.Attempts, expires time.Time) (key string) {
	t.Helper()
	key = uuid.NewString()
	expires = expires.UTC().Truncate(time.Millisecond)
	if _, err := attempts.Add(t.Context(), key, expires.Add(-time.Hour), expires, true); err != nil {
		t.Fatal(err)
	}
	return key
}

// stored reports whether there is a counter's document, whether or not it has
// expired.
func stored(t *testing.T, db *mongo.Database, key string) bool {
	t.Helper()
	err := db.Collection("login_attempts").FindOne(t.Context(), bson.D{{Key: "_id", Value: key}}).Err()
	if err != nil && !errors.Is(err, mongo.ErrNoDocuments) {
		t.Fatal(err)
	}
	return err == nil
}

func wantAttemptIndexes(t *testing.T, db *mongo.Database) {
	t.Helper()
	want := "_id_, expires_at_1"
	if server.Capabilities.TTL {
		want += " ttl"
		if got := ttlSeconds(t, db.Collection("login_attempts")); got != 300 {
			t.Errorf("the TTL is %d s, want 300", got)
		}
	}
	if got := names(indexes(t, db.Collection("login_attempts"))); got != want {
		t.Errorf("login_attempts has %s, want %s", got, want)
	}
}

func TestAttemptsIndexesAreMadeAndVerified(t *testing.T) {
	client, sent := connect(t)
	db := testserver.Database(t, client)
	attempts, err := mongostore.NewAttempts(db, mongostore.AttemptsConfig{PurgeInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(attempts.Close)
	sent.reset()
	err = attempts.VerifyIndexes(t.Context())
	if !errors.Is(err, mongostore.ErrIndexMismatch) || !strings.Contains(err.Error(), "login_attempts lacks expires_at_1") {
		t.Errorf("before: got the error %v, want ErrIndexMismatch that names what is lacking", err)
	}
	for _, c := range sent.all() {
		if name := c.Index(0).Key(); name != "listIndexes" {
			t.Errorf("to verify, %s was sent, want listIndexes only", name)
		}
	}
	for range 2 {
		if err := attempts.EnsureIndexes(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantAttemptIndexes(t, db)
		if err := attempts.VerifyIndexes(t.Context()); err != nil {
			t.Errorf("after: %v", err)
		}
	}
}

func TestAttemptsIndexesAreMadeByManyInstancesAtOnce(t *testing.T) {
	db := database(t)
	var wg sync.WaitGroup
	begin := make(chan struct{})
	errs := make([]error, 10)
	for i := range errs {
		client, _ := connect(t)
		attempts, err := mongostore.NewAttempts(client.Database(db.Name()), mongostore.AttemptsConfig{PurgeInterval: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(attempts.Close)
		wg.Go(func() {
			<-begin
			errs[i] = attempts.EnsureIndexes(t.Context())
		})
	}
	close(begin)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	wantAttemptIndexes(t, db)
}

func TestAttemptsIndexesAreMended(t *testing.T) {
	testserver.Require(t, server.Capabilities.TTL, "ttl")
	for name, opts := range map[string]*options.IndexOptionsBuilder{
		"of another duration": options.Index().SetExpireAfterSeconds(7),
		"that is a plain one": options.Index(),
	} {
		t.Run("an index "+name, func(t *testing.T) {
			db := database(t)
			old := mongo.IndexModel{Keys: bson.D{{Key: "expires_at", Value: 1}}, Options: opts}
			if _, err := db.Collection("login_attempts").Indexes().CreateOne(t.Context(), old); err != nil {
				t.Fatal(err)
			}
			newAttempts(t, db, mongostore.AttemptsConfig{})
			wantAttemptIndexes(t, db)
		})
	}
}

// As TestTTLIsNotReplacedUnasked, and TestAnIndexInTheWayIsAClearError.
func TestAttemptsIndexesThatCannotBeMade(t *testing.T) {
	t.Run("without TTL indexes, and the substitute not asked for", func(t *testing.T) {
		attempts, err := mongostore.NewAttempts(database(t), mongostore.AttemptsConfig{})
		if err != nil {
			t.Fatal(err)
		}
		var wantEnsure, wantVerify error
		if !server.Capabilities.TTL {
			wantEnsure, wantVerify = mongostore.ErrTTLUnsupported, mongostore.ErrIndexMismatch
		}
		if err := attempts.EnsureIndexes(t.Context()); !errors.Is(err, wantEnsure) {
			t.Errorf("EnsureIndexes returned %v, want %v", err, wantEnsure)
		}
		if err := attempts.VerifyIndexes(t.Context()); !errors.Is(err, wantVerify) {
			t.Errorf("VerifyIndexes returned %v, want %v", err, wantVerify)
		}
	})
	t.Run("with another index in the way", func(t *testing.T) {
		db := database(t)
		coll := db.Collection("login_attempts")
		if _, err := coll.Indexes().CreateOne(t.Context(), mongo.IndexModel{
			Keys: bson.D{{Key: "something", Value: 1}}, Options: options.Index().SetName("expires_at_1"),
		}); err != nil {
			t.Fatal(err)
		}
		before := indexes(t, coll)
		attempts, err := mongostore.NewAttempts(db, mongostore.AttemptsConfig{PurgeInterval: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(attempts.Close)
		err = attempts.EnsureIndexes(t.Context())
		if !errors.Is(err, mongostore.ErrIndexMismatch) || !strings.Contains(err.Error(), "expires_at_1 {something: 1}") {
			t.Errorf("got the error %v, want ErrIndexMismatch that names the index", err)
		}
		if after := indexes(t, coll); !slices.Equal(before, after) {
			t.Errorf("the indexes were %v and are %v", before, after)
		}
	})
}

// As TestPurge.
func TestPurgeOfAttempts(t *testing.T) {
	now := time.Now()
	db := database(t)
	attempts, err := mongostore.NewAttempts(db, mongostore.AttemptsConfig{
		PurgeInterval: time.Millisecond, Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	old := addExpiring(t, attempts, now.Add(-6*time.Minute))
	inGrace := addExpiring(t, attempts, now.Add(-4*time.Minute))
	live := addExpiring(t, attempts, now.Add(time.Minute))
	if err := attempts.EnsureIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !server.Capabilities.TTL {
		eventually(t, 10*time.Second, "a goroutine purges", purging)
	} else {
		if purging() {
			t.Error("a goroutine purges although the server has TTL indexes")
		}
		if _, err := attempts.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 10*time.Second, "the old counter is purged", func() bool { return !stored(t, db, old) })
	if !stored(t, db, inGrace) || !stored(t, db, live) {
		t.Error("a counter was purged too soon")
	}
	attempts.Close()
	attempts.Close()
	if purging() {
		t.Error("the goroutine that purges outlives Close")
	}
	// The store goes on.
	if n, err := attempts.Purge(t.Context()); n != 0 || err != nil {
		t.Errorf("Purge after Close: %d, %v, want 0 and no error", n, err)
	}
}

// Servers differ in what they answer to an upsert that another one was faster than.
func TestAnAddThatWasTooSlowIsTriedAgain(t *testing.T) {
	for _, c := range []struct {
		name string
		code int
		text string
	}{
		{"a duplicate key", 11000, "E11000 duplicate key error collection: login_attempts index: _id_"},
		{"an internal error, of FerretDB v2", 1, "duplicate key value violates unique constraint"},
		{"a deadlock, of DocumentDB", 16908292, "deadlock detected"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var failing atomic.Int64 // how many are to fail
			client, _ := connectThrough(t, func(request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
				if request.Command() != "findAndModify" || failing.Add(-1) < 0 {
					return send(request)
				}
				return wireproxy.Instead(bson.D{{Key: "ok", Value: 0.0}, {Key: "code", Value: c.code}, {Key: "errmsg", Value: c.text}}, request, send)
			})
			attempts := newAttempts(t, testserver.Database(t, client), mongostore.AttemptsConfig{})
			key, now := uuid.NewString(), time.Now().UTC().Truncate(time.Millisecond)
			add := func() (account.AttemptCounter, error) {
				return attempts.Add(t.Context(), key, now, now.Add(time.Hour), true)
			}
			for n := 1; n <= 2; n++ {
				failing.Store(2)
				if got, err := add(); got.Failures != n || err != nil {
					t.Errorf("got the number %d and the error %v, want %d and none", got.Failures, err, n)
				}
			}
			const many = 1000
			failing.Store(many)
			if got, err := add(); err == nil {
				t.Errorf("got the number %d of a server that never counts, want an error", got.Failures)
			}
			if sent := many - failing.Load(); sent > 50 {
				t.Errorf("tried %d times, want a few", sent)
			}
		})
	}
}

// instance is one of an application's that limits logins by counters that it shares
// with the others.
type instance struct {
	*account.Manager[person[uuid.UUID], uuid.UUID]
	wrong, failures *atomic.Int64 // passwords looked at, and found wrong; failures of the limiter's store
}

const (
	jo         = "jo@example.com"
	joPassword = "correct horse battery"
)

// newInstance returns an instance on a client of its own, with a clock that stands
// where now is.
func newInstance(t *testing.T, name string, now *time.Time) instance {
	t.Helper()
	client, _ := connect(t)
	db := client.Database(name)
	in := instance{wrong: new(atomic.Int64), failures: new(atomic.Int64)}
	clock := func() time.Time { return *now }
	limiter, err := account.NewLimiter(newAttempts(t, db, mongostore.AttemptsConfig{}), account.LimiterConfig{
		Now: clock, FailClosed: true,
		OnEvent: func(_ context.Context, e strategy.Event) {
			in.failures.Add(1)
			t.Logf("the limiter: %v", e.Err)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	in.Manager, err = account.NewManager(newUsers[person[uuid.UUID]](t, db), uuid.New, account.Config{
		Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true,
		Limiter: limiter, Now: clock,
		OnEvent: func(_ context.Context, e strategy.Event) {
			if e.Kind == strategy.EventLoginDenied && e.Reason == strategy.ReasonWrongPassword {
				in.wrong.Add(1)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func (in instance) register(t *testing.T) {
	t.Helper()
	if _, err := in.Register(t.Context(), person[uuid.UUID]{User: account.User[uuid.UUID]{Email: jo}}, joPassword); err != nil {
		t.Fatal(err)
	}
}

// login logs in from an address.
func (in instance) login(t *testing.T, addr, password string) error {
	_, err := in.Authenticate(strategy.ContextWithClientAddr(t.Context(), addr), jo, password)
	return err
}

func TestInstancesShareTheAttempts(t *testing.T) {
	const here = "203.0.113.7"
	now := time.Now()
	db := database(t)
	one, other := newInstance(t, db.Name(), &now), newInstance(t, db.Name(), &now)
	one.register(t)
	for i := range 5 {
		if err := one.login(t, here, "wrong password"); !errors.Is(err, account.ErrBadCredentials) {
			t.Fatalf("failure %d: got %v, want ErrBadCredentials", i+1, err)
		}
	}
	var wait *account.TooManyAttemptsError
	err := other.login(t, "203.0.113.99", joPassword) // of the same network
	if !errors.Is(err, account.ErrTooManyAttempts) || !errors.As(err, &wait) || wait.RetryAfter != 30*time.Second {
		t.Fatalf("on the other instance: got %v, want ErrTooManyAttempts for 30s", err)
	}
	if err := other.login(t, "198.51.100.7", joPassword); err != nil {
		t.Errorf("from another network: got %v, want nil", err)
	}
	now = now.Add(30 * time.Second)
	if err := other.login(t, here, joPassword); err != nil {
		t.Fatalf("after the wait: got %v, want nil", err)
	}
	if err := one.login(t, here, "wrong password"); !errors.Is(err, account.ErrBadCredentials) {
		t.Errorf("after the success, on the first instance: got %v, want ErrBadCredentials", err)
	}
}

func TestWrongLoginsAtOnceOverTwoInstances(t *testing.T) {
	now := time.Now()
	db := database(t)
	instances := []instance{newInstance(t, db.Name(), &now), newInstance(t, db.Name(), &now)}
	instances[0].register(t)
	const attempts, free = 40, 5
	var wg sync.WaitGroup
	begin := make(chan struct{})
	errs := make([]error, attempts)
	for i := range errs {
		wg.Go(func() {
			<-begin
			errs[i] = instances[i%2].login(t, "2001:db8::7", fmt.Sprint("wrong password ", i))
		})
	}
	close(begin)
	wg.Wait()
	looked := instances[0].wrong.Load() + instances[1].wrong.Load()
	bad, refused := 0, 0
	for _, err := range errs {
		switch {
		case errors.Is(err, account.ErrBadCredentials):
			bad++
		case errors.Is(err, account.ErrTooManyAttempts):
			refused++
		default:
			t.Errorf("got %v, want ErrBadCredentials or ErrTooManyAttempts", err)
		}
	}
	if looked < 1 || looked > free || int(looked) != bad || bad+refused != attempts {
		t.Errorf("%d passwords were looked at, %d were bad, %d attempts refused; want 1 to %d looked at, and the rest of %d refused", looked, bad, refused, free, attempts)
	}
	// What was refused was taken back.
	for _, doc := range documents(t, db) {
		if n := lookup(doc, "failures"); n != looked {
			t.Errorf("a counter is at %v, want %d: %v", n, looked, doc)
		}
	}
}

func documents(t *testing.T, db *mongo.Database) []bson.Raw {
	t.Helper()
	cur, err := db.Collection("login_attempts").Find(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	var docs []bson.Raw
	if err := cur.All(t.Context(), &docs); err != nil {
		t.Fatal(err)
	}
	return docs
}

// As other programs read them; and nothing in them tells who it was.
func TestDocumentsOfAttemptsAreAsDocumented(t *testing.T) {
	now := time.Now()
	at := now.UTC().Truncate(time.Millisecond)
	db := database(t)
	in := newInstance(t, db.Name(), &now)
	in.register(t)
	// check reads all documents, and returns how many there are by what is in them.
	check := func() (failures []int64, lists int) {
		t.Helper()
		for _, doc := range documents(t, db) {
			fields := []string{"_id", "expires_at", "failures", "last"}
			_, err := doc.LookupErr("networks")
			list := err == nil
			if list {
				fields = []string{"_id", "expires_at", "failures", "last", "networks"}
				lists++
				digests, err := doc.Lookup("networks").Array().Values()
				if err != nil || len(digests) != 1 || len(digests[0].StringValue()) != 43 {
					t.Errorf("networks is %v, want one digest", doc.Lookup("networks"))
				}
			}
			var got []string
			elems, err := doc.Elements()
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range elems {
				got = append(got, e.Key())
			}
			slices.Sort(got)
			if !slices.Equal(got, fields) {
				t.Errorf("the document has the fields %q, want %q", got, fields)
			}
			if key, ok := doc.Lookup("_id").StringValueOK(); !ok || len(key) != 43 {
				t.Errorf("_id is %v, want a digest", doc.Lookup("_id"))
			}
			if last, ok := doc.Lookup("last").TimeOK(); !ok || !last.Equal(at) {
				t.Errorf("last is %v, want the date %v", doc.Lookup("last"), at)
			}
			if end, ok := doc.Lookup("expires_at").TimeOK(); !ok || !end.After(at) {
				t.Errorf("expires_at is %v, want a later date", doc.Lookup("expires_at"))
			} else if list && !end.Equal(at.Add(90*24*time.Hour)) {
				t.Errorf("a list of networks expires at %v, want in 90 days", end)
			}
			if !doc.Lookup("failures").IsNumber() {
				t.Errorf("failures is %v, want a number", doc.Lookup("failures"))
			} else if !list {
				failures = append(failures, doc.Lookup("failures").AsInt64())
			}
			for _, secret := range []string{"jo@", "example", "203.0.113", "correct horse", "wrong", "password"} {
				if strings.Contains(string(doc), secret) {
					t.Errorf("the document tells %q: %v", secret, doc)
				}
			}
		}
		return failures, lists
	}
	const here = "203.0.113.7"
	if err := in.login(t, here, "wrong password"); !errors.Is(err, account.ErrBadCredentials) {
		t.Fatalf("got %v, want ErrBadCredentials", err)
	}
	if failures, lists := check(); !slices.Equal(failures, []int64{1, 1, 1}) || lists != 0 {
		t.Errorf("after a failed login there are counters of %v and %d lists, want three of 1 and none", failures, lists)
	}
	if err := in.login(t, here, joPassword); err != nil {
		t.Fatal(err)
	}
	if failures, lists := check(); !slices.Equal(failures, []int64{0, 0}) || lists != 1 {
		t.Errorf("after a login there are counters of %v and %d lists, want two of 0 and one", failures, lists)
	}
}
