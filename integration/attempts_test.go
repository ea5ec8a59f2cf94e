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
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/integration/internal/wireproxy"
	"github.com/latchkey-go/latchkey/mongostore"
)

// addExpiring stores a counter that expires at a time, and returns its key.
func addExpiring(t *testing.T, attempts *mongostore.Attempts, expires time.Time) (key string) {
	t.Helper()
	key = uuid.NewString()
	expires = expires.UTC().Truncate(time.Millisecond)
	if _, err := attempts.Add(t.Context(), key, expires.Add(-time.Hour), expires, true); err != nil {
		t.Fatal(err)
	}
	return key
}

// stored reports whether the document of a counter exists, expired or not.
func stored(t *testing.T, db *mongo.Database, key string) bool {
	t.Helper()
	err := db.Collection("login_attempts").FindOne(t.Context(), bson.D{{Key: "_id", Value: key}}).Err()
	if err != nil && !errors.Is(err, mongo.ErrNoDocuments) {
		t.Fatal(err)
	}
	return err == nil
}

// wantAttemptIndexes checks the indexes of login_attempts.
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

func TestAttemptsIndexesAreCreatedAndVerified(t *testing.T) {
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
		t.Errorf("before: got the error %v, want ErrIndexMismatch that names the missing index", err)
	}
	for _, c := range sent.all() {
		if name := c.Index(0).Key(); name != "listIndexes" && name != "ping" {
			t.Errorf("VerifyIndexes sent %s, want ping and listIndexes only", name)
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

func TestAttemptsIndexesAreSafeFromManyInstances(t *testing.T) {
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

func TestAttemptsIndexesAreChanged(t *testing.T) {
	testserver.Require(t, server.Capabilities.TTL, "ttl")
	for name, opts := range map[string]*options.IndexOptionsBuilder{
		"a TTL index of another duration": options.Index().SetExpireAfterSeconds(7),
		"a plain index":                   options.Index(),
	} {
		t.Run(name, func(t *testing.T) {
			db := database(t)
			existing := mongo.IndexModel{Keys: bson.D{{Key: "expires_at", Value: 1}}, Options: opts}
			if _, err := db.Collection("login_attempts").Indexes().CreateOne(t.Context(), existing); err != nil {
				t.Fatal(err)
			}
			newAttempts(t, db, mongostore.AttemptsConfig{})
			wantAttemptIndexes(t, db)
		})
	}
}

func TestAttemptsIndexesThatCannotBeCreated(t *testing.T) {
	t.Run("without TTL indexes and without PurgeInterval", func(t *testing.T) {
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
	t.Run("with a conflicting index", func(t *testing.T) {
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

func TestPurgeDeletesExpiredAttempts(t *testing.T) {
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
	// The store still works after Close.
	if n, err := attempts.Purge(t.Context()); n != 0 || err != nil {
		t.Errorf("Purge after Close: %d, %v, want 0 and no error", n, err)
	}
}

// Servers answer differently to an upsert that lost a race with another one.
func TestAddIsRetriedAfterALostRace(t *testing.T) {
	for _, c := range []struct {
		name string
		code int
		text string
	}{
		{"a duplicate key", 11000, "E11000 duplicate key error collection: login_attempts index: _id_"},
		{"an internal error of FerretDB v2", 1, "duplicate key value violates unique constraint"},
		{"a deadlock of DocumentDB", 16908292, "deadlock detected"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var failing atomic.Int64 // the number of commands that still fail
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
					t.Errorf("got %d failures and the error %v, want %d and no error", got.Failures, err, n)
				}
			}
			const many = 1000
			failing.Store(many)
			if got, err := add(); err == nil {
				t.Errorf("got %d failures although every command fails, want an error", got.Failures)
			}
			if sent := many - failing.Load(); sent > 50 {
				t.Errorf("tried %d times, want at most 50", sent)
			}
		})
	}
}

// loginNode is one of several instances of an application that share the counters of failed logins.
type loginNode struct {
	*account.Manager[person[uuid.UUID], uuid.UUID]
	wrong *atomic.Int64 // passwords that were checked and found wrong
}

const (
	jo         = "jo@example.com"
	joPassword = "correct horse battery"
)

// newLoginNode returns an instance with a client of its own. Its clock stands still at *now.
func newLoginNode(t *testing.T, name string, now *time.Time) loginNode {
	t.Helper()
	client, _ := connect(t)
	db := client.Database(name)
	n := loginNode{wrong: new(atomic.Int64)}
	users, attempts := newUsers[person[uuid.UUID]](t, db, mongostore.UsersConfig{}), newAttempts(t, db, mongostore.AttemptsConfig{})
	n.Manager = newManagerOn(t, users, attempts, account.Config{
		Limiter: account.LimiterConfig{FailClosed: true},
		Now:     func() time.Time { return *now },
		OnEvent: func(_ context.Context, e event.Event) {
			switch {
			case e.Kind == event.LoginDenied && e.Reason == event.ReasonWrongPassword:
				n.wrong.Add(1)
			case e.Kind == event.LimiterFailed:
				t.Logf("the limiter failed: %v", e.Err)
			}
		},
	})
	return n
}

func (n loginNode) register(t *testing.T) {
	t.Helper()
	if _, err := n.Register(t.Context(), person[uuid.UUID]{User: account.User[uuid.UUID]{Email: jo}}, joPassword); err != nil {
		t.Fatal(err)
	}
}

// login logs in from a client IP, with a device token if device is not "".
func (n loginNode) login(t *testing.T, ip, password, device string) (string, error) {
	_, device, err := n.Authenticate(event.ContextWithClientIP(t.Context(), ip), jo, password, device)
	return device, err
}

func TestInstancesShareLoginLimits(t *testing.T) {
	const here = "203.0.113.7"
	now := time.Now()
	db := database(t)
	one, other := newLoginNode(t, db.Name(), &now), newLoginNode(t, db.Name(), &now)
	one.register(t)
	device, err := one.login(t, here, joPassword, "")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, err := one.login(t, here, "wrong password", ""); !errors.Is(err, account.ErrBadCredentials) {
			t.Fatalf("failure %d: got %v, want ErrBadCredentials", i+1, err)
		}
	}
	var wait *account.TooManyAttemptsError
	_, err = other.login(t, "198.51.100.7", joPassword, "")
	if !errors.Is(err, account.ErrTooManyAttempts) || !errors.As(err, &wait) || wait.RetryAfter != time.Minute {
		t.Fatalf("on the other instance: got %v, want ErrTooManyAttempts for 1m", err)
	}
	if got, err := other.login(t, "198.51.100.7", joPassword, device); err != nil || got != device {
		t.Errorf("with the device token of the first instance: got %q, %v, want the same and nil", got, err)
	}
	now = now.Add(time.Minute)
	if _, err := other.login(t, here, joPassword, ""); err != nil {
		t.Fatalf("after the wait: got %v, want nil", err)
	}
	if _, err := one.login(t, here, "wrong password", ""); !errors.Is(err, account.ErrBadCredentials) {
		t.Errorf("after the success, on the first instance: got %v, want ErrBadCredentials", err)
	}
}

func TestConcurrentWrongLoginsOnTwoInstancesAreLimited(t *testing.T) {
	now := time.Now()
	db := database(t)
	nodes := []loginNode{newLoginNode(t, db.Name(), &now), newLoginNode(t, db.Name(), &now)}
	nodes[0].register(t)
	const attempts, free = 40, 10
	var wg sync.WaitGroup
	begin := make(chan struct{})
	errs := make([]error, attempts)
	for i := range errs {
		wg.Go(func() {
			<-begin
			_, errs[i] = nodes[i%2].login(t, "2001:db8::7", fmt.Sprint("wrong password ", i), "")
		})
	}
	close(begin)
	wg.Wait()
	checked := nodes[0].wrong.Load() + nodes[1].wrong.Load()
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
	if checked < 1 || checked > free || int(checked) != bad || bad+refused != attempts {
		t.Errorf("%d passwords were checked, %d were bad and %d attempts refused; want 1 to %d checked, and the rest of %d refused", checked, bad, refused, free, attempts)
	}
	// Refused attempts are not counted.
	for _, doc := range documents(t, db) {
		if n := lookup(doc, "failures"); n != checked {
			t.Errorf("a counter is %v, want %d: %v", n, checked, doc)
		}
	}
}

// documents returns all counters.
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

// Other programs can read the documents, which identify neither the user nor the client.
func TestDocumentsOfAttemptsAreAsDocumented(t *testing.T) {
	now := time.Now()
	at := now.UTC().Truncate(time.Millisecond)
	db := database(t)
	node := newLoginNode(t, db.Name(), &now)
	node.register(t)
	// check checks all documents. It returns the counters' numbers of failures, in ascending
	// order, and the number of devices.
	check := func() (failures []int64, devices int) {
		t.Helper()
		for _, doc := range documents(t, db) {
			var got []string
			elems, err := doc.Elements()
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range elems {
				got = append(got, e.Key())
			}
			slices.Sort(got)
			if want := []string{"_id", "expires_at", "failures", "last"}; !slices.Equal(got, want) {
				t.Errorf("the document has the fields %q, want %q", got, want)
			}
			if key, ok := doc.Lookup("_id").StringValueOK(); !ok || len(key) != 43 {
				t.Errorf("_id is %v, want a digest", doc.Lookup("_id"))
			}
			if last, ok := doc.Lookup("last").TimeOK(); !ok || !last.Equal(at) {
				t.Errorf("last is %v, want the date %v", doc.Lookup("last"), at)
			}
			n, ok := doc.Lookup("failures").AsInt64OK()
			if !ok {
				t.Errorf("failures is %v, want a number", doc.Lookup("failures"))
			}
			end, ok := doc.Lookup("expires_at").TimeOK()
			switch {
			case !ok || !end.After(at):
				t.Errorf("expires_at is %v, want a later date", doc.Lookup("expires_at"))
			case n != 0:
				failures = append(failures, n)
			case !end.Equal(at.Add(90 * 24 * time.Hour)):
				t.Errorf("a device expires at %v, want in 90 days", end)
			default:
				devices++
			}
			for _, secret := range []string{"jo@", "example", "203.0.113", "correct horse", "wrong", "password", "lkd_"} {
				if strings.Contains(string(doc), secret) {
					t.Errorf("the document contains %q: %v", secret, doc)
				}
			}
		}
		slices.Sort(failures)
		return failures, devices
	}
	const here = "203.0.113.7"
	for range 2 {
		if _, err := node.login(t, here, "wrong password", ""); !errors.Is(err, account.ErrBadCredentials) {
			t.Fatalf("got %v, want ErrBadCredentials", err)
		}
	}
	if failures, devices := check(); !slices.Equal(failures, []int64{2, 2}) || devices != 0 {
		t.Errorf("after two failed logins the counters are %v, with %d devices; want two of 2 and no device", failures, devices)
	}
	device, err := node.login(t, here, joPassword, "")
	if err != nil {
		t.Fatal(err)
	}
	if failures, devices := check(); !slices.Equal(failures, []int64{2}) || devices != 1 {
		t.Errorf("after a login the counters are %v, with %d devices; want the network's 2 and one device", failures, devices)
	}
	if _, err := node.login(t, here, "wrong password", device); !errors.Is(err, account.ErrBadCredentials) {
		t.Fatalf("got %v, want ErrBadCredentials", err)
	}
	if failures, devices := check(); !slices.Equal(failures, []int64{1, 2}) || devices != 1 {
		t.Errorf("after a failure on the device the counters are %v, with %d devices; want 1, 2 and one device", failures, devices)
	}
	if _, err := node.login(t, here, joPassword, device); err != nil {
		t.Fatal(err)
	}
	if failures, devices := check(); !slices.Equal(failures, []int64{2}) || devices != 1 {
		t.Errorf("after a login on the device the counters are %v, with %d devices; want 2 and one device", failures, devices)
	}
}
