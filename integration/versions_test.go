package integration_test

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/integration/internal/wireproxy"
	"github.com/latchkey-go/latchkey/internal/contract"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

// missing stands for a field that a document does not have.
type missing struct{}

// validVersions are the values of a token version that count as a number.
var validVersions = []struct {
	name  string
	value any
	want  int64
}{
	{"int32", int32(3), 3},
	{"int64", int64(3), 3},
	{"double", float64(3), 3},
	{"decimal128", bson.NewDecimal128(0x3040000000000000, 3), 3},
	{"decimal128 with a zero fraction", bson.NewDecimal128(0x303e000000000000, 30), 3}, // 3.0
	{"null", nil, 0},
	{"missing", missing{}, 0},
}

// invalidVersions are values of a token version that are an error, with the type that the error
// names.
var invalidVersions = []struct {
	name  string
	value any
	kind  string
	inc   bool // whether the server can increment it
}{
	{"string", "3", "string", false},
	{"boolean", true, "boolean", false},
	{"document", bson.D{{Key: "version", Value: 3}}, "embedded document", false},
	{"date", bson.DateTime(3), "UTC datetime", false},
	{"double with a fraction", 1.5, "double", true},
}

// eachValidVersion runs a test for each valid version that the server can store.
func eachValidVersion(t *testing.T, test func(t *testing.T, value any, want int64)) {
	for _, c := range validVersions {
		t.Run(c.name, func(t *testing.T) {
			if _, ok := c.value.(bson.Decimal128); ok {
				testserver.Require(t, server.Capabilities.Decimal128, "decimal128")
			}
			test(t, c.value, c.want)
		})
	}
}

// setVersion sets or removes token_version in the only document of a collection.
func setVersion(t *testing.T, db *mongo.Database, coll string, value any) {
	t.Helper()
	update := bson.D{{Key: "$set", Value: bson.D{{Key: "token_version", Value: value}}}}
	if _, ok := value.(missing); ok {
		update = bson.D{{Key: "$unset", Value: bson.D{{Key: "token_version", Value: ""}}}}
	}
	res, err := db.Collection(coll).UpdateMany(t.Context(), bson.D{}, update)
	if err != nil {
		t.Fatal(err)
	}
	if res.MatchedCount != 1 {
		t.Fatalf("%s has %d documents, want 1", coll, res.MatchedCount)
	}
}

// wantVersion checks token_version in the only document of a collection. A missing field and null
// are 0.
func wantVersion(t *testing.T, db *mongo.Database, coll string, want int64, when string) {
	t.Helper()
	doc, err := db.Collection(coll).FindOne(t.Context(), bson.D{}).Raw()
	if err != nil {
		t.Fatal(err)
	}
	got, err := doc.LookupErr("token_version")
	switch {
	case err != nil || got.Type == bson.TypeNull:
		if want != 0 {
			t.Errorf("%s: %s has no token_version, want %d", when, coll, want)
		}
	case got.Type == bson.TypeDecimal128:
		if d := got.Decimal128(); d.String() != bson.NewDecimal128(0x3040000000000000, uint64(want)).String() &&
			d.String() != bson.NewDecimal128(0x303e000000000000, uint64(10*want)).String() {
			t.Errorf("%s: token_version of %s is %v, want %d", when, coll, d, want)
		}
	case !got.IsNumber() || got.AsInt64() != want:
		t.Errorf("%s: token_version of %s is %v, want %d", when, coll, got, want)
	}
}

// versionsOnly returns a manager that leaves the rows of ended sessions alone, so that only the
// versions end them.
func versionsOnly(t *testing.T, db *mongo.Database) *account.Manager[contract.Member, uuid.UUID] {
	return newManager(t, newUsers[contract.Member](t, db, mongostore.UsersConfig{}), account.Config{})
}

func TestTokenVersionOfAUserMayBeAnyNumber(t *testing.T) {
	eachValidVersion(t, func(t *testing.T, value any, want int64) {
		db := database(t)
		r := newRig(t, db, 0, strategy.Config{Lifetime: time.Hour})
		accounts := versionsOnly(t, db)
		setVersion(t, db, "users", value)
		token := r.login()
		wantVersion(t, db, "access_tokens", want, "after the login")
		r.want(http.StatusOK, http.MethodGet, "/me", token, "after the login")
		for _, change := range []struct {
			name string
			make func() error
		}{
			{"RevokeTokens", func() error { return accounts.RevokeTokens(t.Context(), r.member.ID) }},
			{"ChangePassword", func() error {
				_, err := accounts.ChangePassword(t.Context(), r.member.ID, password, password+"!")
				return err
			}},
			{"Deactivate", func() error { return accounts.Deactivate(t.Context(), r.member.ID) }},
		} {
			setVersion(t, db, "users", value)
			r.want(http.StatusOK, http.MethodGet, "/me", token, "before "+change.name)
			if err := change.make(); err != nil {
				t.Fatalf("%s: %v", change.name, err)
			}
			wantVersion(t, db, "users", want+1, "after "+change.name)
			r.want(http.StatusUnauthorized, http.MethodGet, "/me", token, "after "+change.name)
		}
		if err := accounts.Activate(t.Context(), r.member.ID); err != nil {
			t.Fatal(err)
		}
		wantVersion(t, db, "users", want+1, "after Activate")
		r.want(http.StatusUnauthorized, http.MethodGet, "/me", token, "after Activate")
	})
}

func TestTokenVersionOfARowMayBeAnyNumber(t *testing.T) {
	eachValidVersion(t, func(t *testing.T, value any, want int64) {
		db := database(t)
		r := newRig(t, db, 0, strategy.Config{Lifetime: time.Hour, IdleTimeout: time.Hour, TouchInterval: time.Nanosecond})
		accounts := versionsOnly(t, db)
		setVersion(t, db, "users", want)
		token := r.login()
		setVersion(t, db, "access_tokens", value)
		r.want(http.StatusOK, http.MethodGet, "/me", token, "with the user's version")
		if page, err := r.sessions.Sessions(t.Context(), r.member.ID, strategy.Page{}); err != nil || len(page.Sessions) != 1 {
			t.Errorf("listed %d sessions (error %v), want 1", len(page.Sessions), err)
		}
		if err := accounts.RevokeTokens(t.Context(), r.member.ID); err != nil {
			t.Fatal(err)
		}
		r.want(http.StatusUnauthorized, http.MethodGet, "/me", token, "with an earlier version")

		// A rotation to the new version keeps the session, as after a change of password.
		member := r.member
		member.Version = want + 1
		secret, _, err := r.sessions.RotateToken(t.Context(), token, strategy.WithReauthentication(member, time.Now()))
		if err != nil {
			t.Fatal(err)
		}
		wantVersion(t, db, "access_tokens", want+1, "after the rotation")
		r.want(http.StatusOK, http.MethodGet, "/me", secret.Reveal(), "with the user's version")
	})
}

// Servers that cannot store decimals get them from a proxy.
func TestTokenVersionIsReadFromADecimal(t *testing.T) {
	client, _ := connectThrough(t, func(request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
		reply, err := send(request)
		if err != nil || request.Command() != "find" {
			return reply, err
		}
		var doc bson.D
		if err := bson.Unmarshal(reply.Body(), &doc); err != nil {
			return nil, err
		}
		return reply.WithBody(withDecimals(doc))
	})
	r := newRig(t, testserver.Database(t, client), 0, strategy.Config{Lifetime: time.Hour})
	if err := r.accounts.RevokeTokens(t.Context(), r.member.ID); err != nil {
		t.Fatal(err)
	}
	token := r.login()
	r.want(http.StatusOK, http.MethodGet, "/me", token, "with the user's version")
	if err := r.accounts.RevokeTokens(t.Context(), r.member.ID); err != nil {
		t.Fatal(err)
	}
	r.want(http.StatusUnauthorized, http.MethodGet, "/me", token, "with an earlier version")
}

// withDecimals returns a value in which each token_version is a decimal.
func withDecimals(v any) any {
	switch v := v.(type) {
	case bson.D:
		for i, e := range v {
			if n, ok := e.Value.(int64); ok && e.Key == "token_version" {
				v[i].Value = bson.NewDecimal128(0x3040000000000000, uint64(n))
			} else {
				v[i].Value = withDecimals(e.Value)
			}
		}
	case bson.A:
		for i := range v {
			v[i] = withDecimals(v[i])
		}
	}
	return v
}

// wantVersionError checks that an error names the field, and the type if one is given.
func wantVersionError(t *testing.T, err error, kind, where string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), "token_version") || !strings.Contains(err.Error(), kind) {
		t.Errorf("%s: got the error %v, want one that names token_version and %q", where, err, kind)
	}
	for _, sentinel := range []error{strategy.ErrInvalidToken, account.ErrUserNotFound, account.ErrConflict, account.ErrBadCredentials} {
		if errors.Is(err, sentinel) {
			t.Errorf("%s: the error %v wraps %v", where, err, sentinel)
		}
	}
}

// wantVersionFailure checks that there is an event store.failed with an error as in
// wantVersionError, and removes all events.
func (l *events) wantVersionFailure(t *testing.T, kind, where string) {
	t.Helper()
	l.wantVersionEvent(t, event.StoreFailed, kind, where)
}

// wantVersionEvent is wantVersionFailure for an event of another kind.
func (l *events) wantVersionEvent(t *testing.T, of event.Kind, kind, where string) {
	t.Helper()
	failed := l.all(of)
	l.mu.Lock()
	l.list = nil
	l.mu.Unlock()
	if len(failed) == 0 {
		t.Errorf("%s: no event %s", where, of)
		return
	}
	wantVersionError(t, failed[0].Err, kind, where+", event")
}

func TestInvalidTokenVersionOfAUserIsAnError(t *testing.T) {
	const bound = 2 * time.Second
	for _, c := range invalidVersions {
		t.Run(c.name, func(t *testing.T) {
			client, sent := connect(t)
			db := testserver.Database(t, client)
			log := new(events)
			r := newRig(t, db, bound, strategy.Config{Lifetime: time.Hour, OnEvent: log.add})
			token := r.login()
			setVersion(t, db, "users", c.value)
			read := func() (doc bson.M) {
				if err := db.Collection("users").FindOne(t.Context(), bson.D{}).Decode(&doc); err != nil {
					t.Fatal(err)
				}
				return doc
			}
			before := read()
			// quickly checks that a call ends within the time bound, with at most a few commands.
			quickly := func(where string, call func()) {
				t.Helper()
				sent.reset()
				begin := time.Now()
				call()
				if took := time.Since(begin); took > bound {
					t.Errorf("%s took %v, want at most %v", where, took, bound)
				}
				if n := len(sent.all()); n > 8 {
					t.Errorf("%s sent %d commands, want at most 8", where, n)
				}
			}

			log.list = nil
			quickly("the guard", func() {
				r.want(http.StatusServiceUnavailable, http.MethodGet, "/me", token, "with the version "+c.name)
			})
			log.wantVersionFailure(t, c.kind, "the guard")
			quickly("a login", func() {
				if _, status := r.tryLogin(); status != http.StatusServiceUnavailable {
					t.Errorf("a login answered %d, want 503", status)
				}
			})
			log.wantVersionFailure(t, c.kind, "a login")
			quickly("ChangePassword", func() {
				_, err := r.accounts.ChangePassword(t.Context(), r.member.ID, password, password+"!")
				wantVersionError(t, err, c.kind, "ChangePassword")
			})
			log.wantVersionFailure(t, c.kind, "ChangePassword")
			if !c.inc {
				for name, call := range map[string]func() error{
					"RevokeTokens": func() error { return r.accounts.RevokeTokens(t.Context(), r.member.ID) },
					"Deactivate":   func() error { return r.accounts.Deactivate(t.Context(), r.member.ID) },
				} {
					quickly(name, func() { wantVersionError(t, call(), "", name) })
					log.wantVersionFailure(t, "", name)
				}
			}
			if after := read(); !reflect.DeepEqual(before, after) {
				t.Errorf("the user was changed from\n%v to\n%v", before, after)
			}

			// The failure was no logout.
			setVersion(t, db, "users", missing{})
			r.want(http.StatusOK, http.MethodGet, "/me", token, "with a valid version again")
		})
	}
}

func TestRowWithAnInvalidTokenVersionIsNoSession(t *testing.T) {
	for _, c := range invalidVersions {
		t.Run(c.name, func(t *testing.T) {
			db := database(t)
			log := new(events)
			r := newRig(t, db, 0, strategy.Config{Lifetime: time.Hour, OnEvent: log.add})
			token := r.login()
			setVersion(t, db, "access_tokens", c.value)
			log.list = nil
			r.want(http.StatusUnauthorized, http.MethodGet, "/me", token, "with the version "+c.name)
			if failed := log.all(event.StoreFailed); len(failed) > 0 {
				t.Errorf("got the failure %v, want none", failed[0].Err)
			}
			log.wantVersionEvent(t, event.InvalidDocument, c.kind, "the guard")

			// Other sessions work, and all are revoked as usual.
			other := r.login()
			r.want(http.StatusOK, http.MethodGet, "/me", other, "with another session")
			if err := r.sessions.DestroyAll(t.Context(), r.member.ID); err != nil {
				t.Errorf("DestroyAll: %v", err)
			}
			for name, token := range map[string]string{"the session": token, "the other session": other} {
				r.want(http.StatusUnauthorized, http.MethodGet, "/me", token, "after DestroyAll, with "+name)
			}
		})
	}
}

func TestConcurrentRevocationsAllCount(t *testing.T) {
	const revocations = 20
	eachValidVersion(t, func(t *testing.T, value any, want int64) {
		db := database(t)
		r := newRig(t, db, 30*time.Second, strategy.Config{Lifetime: time.Hour})
		setVersion(t, db, "users", value)
		token := r.login()
		begin := make(chan struct{})
		errs := make([]error, revocations)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				<-begin
				errs[i] = r.accounts.RevokeTokens(context.Background(), r.member.ID)
			})
		}
		close(begin)
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		wantVersion(t, db, "users", want+revocations, "after 20 revocations")
		r.want(http.StatusUnauthorized, http.MethodGet, "/me", token, "after the revocations")
		r.want(http.StatusOK, http.MethodGet, "/me", r.login(), "after a new login")
	})
}
