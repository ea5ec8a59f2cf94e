package mongostore_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/mongostore"
)

// forgetful answers deletes and updates of one counter as DocumentDB does beside a concurrent
// update: that nothing matched, although the counter is there.
type forgetful struct {
	failures int  // of the counter
	there    bool // the counter exists
	denials  int  // how many more writes match nothing
}

func (f *forgetful) answer(c command) bson.D {
	switch c.name {
	case "find":
		if !f.there {
			return found()
		}
		return found(bson.D{{Key: "_id", Value: "key"}})
	case "update", "delete":
		filter := c.docs[0].Lookup("q").Document()
		matches := f.there
		if more, err := filter.LookupErr("failures", "$gt"); err == nil {
			matches = matches && f.failures > int(more.AsInt64())
		}
		if most, err := filter.LookupErr("failures", "$lte"); err == nil {
			matches = matches && f.failures <= int(most.AsInt64())
		}
		if !matches {
			return updated(0)
		}
		if f.denials--; f.denials >= 0 {
			return updated(0)
		}
		if c.name == "delete" {
			f.there = false
		} else {
			f.failures += int(c.docs[0].Lookup("u", "$inc", "failures").AsInt64())
		}
		return updated(1)
	}
	return nil
}

func TestWritesOfCountersAreRepeatedWhileTheCounterIsThere(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name           string
		failures, left int // left -1: the counter is removed
		write          func(context.Context, *mongostore.Attempts) error
	}{
		{"Clear", 3, -1, func(ctx context.Context, a *mongostore.Attempts) error { return a.Clear(ctx, "key") }},
		{"Withdraw of some failures", 3, 1, func(ctx context.Context, a *mongostore.Attempts) error { return a.Withdraw(ctx, now, "key", 2) }},
		{"Withdraw of all failures", 2, -1, func(ctx context.Context, a *mongostore.Attempts) error { return a.Withdraw(ctx, now, "key", 2) }},
		{"Withdraw of more failures", 1, -1, func(ctx context.Context, a *mongostore.Attempts) error { return a.Withdraw(ctx, now, "key", 2) }},
	} {
		for denials := range 5 {
			server := &forgetful{failures: c.failures, there: true, denials: denials}
			attempts, err := mongostore.NewAttempts(newRig(t, server.answer).Database, mongostore.AttemptsConfig{})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.write(t.Context(), attempts); err != nil {
				t.Errorf("%s after %d denials: got %v, want nil", c.name, denials, err)
			}
			if c.left < 0 && server.there || c.left >= 0 && (!server.there || server.failures != c.left) {
				t.Errorf("%s after %d denials: the counter is at %d, there: %v, want %d", c.name, denials, server.failures, server.there, c.left)
			}
		}
		// A counter that never changes is an error, never "not found".
		server := &forgetful{failures: c.failures, there: true, denials: 1 << 30}
		rig := newRig(t, server.answer)
		attempts, err := mongostore.NewAttempts(rig.Database, mongostore.AttemptsConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.write(t.Context(), attempts); err == nil || !strings.Contains(err.Error(), "did not match") {
			t.Errorf("%s, denied for ever: got %v, want an error", c.name, err)
		}
		if n := len(rig.sent()); n > 50 {
			t.Errorf("%s, denied for ever: sent %d commands, want at most 50", c.name, n)
		}
		// A missing counter costs one look.
		server.there = false
		if err := c.write(t.Context(), attempts); err != nil {
			t.Errorf("%s without a counter: got %v, want nil", c.name, err)
		}
		if n := len(rig.sent()); n > 3 {
			t.Errorf("%s without a counter: sent %d commands, want at most 3", c.name, n)
		}
	}
}

// The removal of an expired counter, in the way of a new one, is a delete too.
func TestExpiredCounterIsRemovedBeforeANewOne(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	taken := bson.D{{Key: "ok", Value: 0}, {Key: "code", Value: 11000}, {Key: "errmsg", Value: "E11000 duplicate key error"}}
	for name, call := range map[string]func(*mongostore.Attempts) error{
		"Add": func(a *mongostore.Attempts) error {
			_, err := a.Add(t.Context(), "key", now, now.Add(time.Hour), true)
			return err
		},
		"Remember": func(a *mongostore.Attempts) error { return a.Remember(t.Context(), "key", now, now.Add(time.Hour)) },
	} {
		for denials := range 5 {
			server := &forgetful{failures: 3, there: true, denials: denials}
			rig := newRig(t, func(c command) bson.D {
				switch {
				case c.name == "findAndModify" && server.there:
					return taken
				case c.name == "findAndModify":
					return bson.D{{Key: "value", Value: bson.D{{Key: "_id", Value: "key"}, {Key: "failures", Value: 1}, {Key: "last", Value: now}}}}
				case c.name == "update" && server.there:
					return refused(11000, "E11000 duplicate key error")
				case c.name == "update":
					return updated(1)
				}
				return server.answer(c)
			})
			attempts, err := mongostore.NewAttempts(rig.Database, mongostore.AttemptsConfig{})
			if err != nil {
				t.Fatal(err)
			}
			if err := call(attempts); err != nil || server.there {
				t.Errorf("%s after %d denials: got %v, the expired counter is there: %v, want nil and false", name, denials, err, server.there)
			}
		}
	}
}
