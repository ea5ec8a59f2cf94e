package account_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/sameuser"
)

// reversed is a VerifyHash for hashes that are "rev:" and the reversed password.
func reversed(_ context.Context, hash, password string) (bool, error) {
	r, ok := strings.CutPrefix(hash, "rev:")
	switch {
	case !ok:
		return false, fmt.Errorf("%w: not of the form rev:…", account.ErrUnusableHash)
	case password == "": // of ImportHash
		return false, nil
	}
	return r == reverse(password), nil
}

func reverse(s string) string {
	runes := []rune(s)
	slices.Reverse(runes)
	return string(runes)
}

func TestHashOfTheApplicationsSchemeIsVerifiedAndReplaced(t *testing.T) {
	for _, c := range []struct{ name, stored, typed string }{
		{"ASCII", password, password},
		{"composed, typed decomposed", "caf\u00e9-crème", "cafe\u0301-crème"},
		{"decomposed, as typed", "cafe\u0301-creme", "cafe\u0301-creme"},
		{"100 bytes", strings.Repeat("x", 100), strings.Repeat("x", 100)},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, account.Config{VerifyHash: reversed})
			old := "rev:" + reverse(c.stored)
			ann := r.withHash(t, old)
			r.authenticate(t, "a wrong password", ann.Email, c.typed+"x", account.ErrBadCredentials)
			if got := r.takeEvents(); len(got) != 1 || got[0].Reason != event.ReasonWrongPassword || r.hash(t, ann.ID) != old {
				t.Errorf("a wrong password: got the events %+v, the hash kept: %v, want wrong_password, true", got, r.hash(t, ann.ID) == old)
			}
			r.authenticate(t, "the right password", ann.Email, c.typed, nil)
			if got := kinds(r.takeEvents()); !slices.Equal(got, []event.Kind{event.PasswordRehashed, event.LoginSucceeded}) {
				t.Errorf("got the events %v, want a rehash and a login", got)
			}
			if got := r.hash(t, ann.ID); !strings.HasPrefix(got, cheapHash) {
				t.Errorf("the stored hash begins with %.10q, want %q", got, cheapHash)
			}
			r.authenticate(t, "with the new hash", ann.Email, c.typed, nil)
		})
	}
}

// A hash that begins like one of a built-in scheme is checked in the scheme's bounds, or not
// at all.
func TestVerifyHashGetsNoHashOfABuiltInScheme(t *testing.T) {
	var asked []string
	r := newRig(t, account.Config{VerifyHash: func(_ context.Context, hash, _ string) (bool, error) {
		asked = append(asked, hash)
		return false, account.ErrUnusableHash
	}})
	prefixes := []string{
		"$argon2id$", "$argon2i$", "$2a$", "$2b$", "$2y$", "$bcrypt-sha256$", "$scrypt$", "$pbkdf2$", "$pbkdf2-sha256$", "$pbkdf2-sha512$",
		"argon2$", "bcrypt$", "bcrypt_sha256$", "scrypt$", "pbkdf2_sha1$", "pbkdf2_sha256$",
	}
	for _, prefix := range prefixes {
		for _, hash := range []string{prefix, prefix + "x", prefix + "$$$"} {
			if _, err := r.ImportHash(hash); !errors.Is(err, account.ErrUnusableHash) {
				t.Errorf("ImportHash of %q: got %v, want ErrUnusableHash", hash, err)
			}
		}
	}
	ann := r.withHash(t, "$pbkdf2-sha256$8000001$c2FsdHNhbHQ$Y11AchqV4b0sUisdZd0Xr97KWoymNE0LNNrnEgY4H9M")
	r.authenticate(t, "with a hash that costs too much", ann.Email, password, account.ErrBadCredentials)
	r.change(t, ann.ID, func(m *member) { m.HashedPassword = account.PasswordHash{} })
	r.authenticate(t, "without a password", ann.Email, password, account.ErrBadCredentials)
	if _, err := r.ImportHash(""); !errors.Is(err, account.ErrUnusableHash) {
		t.Errorf("ImportHash of nothing: got %v, want ErrUnusableHash", err)
	}
	if len(asked) != 0 {
		t.Errorf("VerifyHash got %q, want nothing", asked)
	}
	others := []string{"$argon2d$v=19", "$2x$12$", "$7$C6", "sha1$salt$key", "!", "$", "$$", "scrypt", "$scrypt", "pbkdf2-sha256$1", " $2b$"}
	for _, hash := range others {
		_, _ = r.ImportHash(hash)
	}
	if !slices.Equal(asked, others) {
		t.Errorf("VerifyHash got %q, want %q", asked, others)
	}
}

func TestErrorsOfVerifyHash(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name   string
		verify func(context.Context, string, string) (bool, error)
		want   error
		event  event.Event
	}{
		{"it does not know the hash", func(context.Context, string, string) (bool, error) {
			return true, fmt.Errorf("%w: never seen", account.ErrUnusableHash)
		}, account.ErrBadCredentials, event.Event{Kind: event.LoginDenied, Reason: event.ReasonUnusableHash, Err: account.ErrUnusableHash}},
		{"it fails", func(context.Context, string, string) (bool, error) { return true, broken }, broken, event.Event{Kind: event.StoreFailed, Err: broken}},
		{"there is none", nil, account.ErrBadCredentials, event.Event{Kind: event.LoginDenied, Reason: event.ReasonUnusableHash, Err: account.ErrUnusableHash}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, account.Config{VerifyHash: c.verify})
			ann := r.withHash(t, "rev:x")
			r.authenticate(t, "a login", ann.Email, password, c.want)
			got := r.takeEvents()
			if len(got) != 1 || got[0].Kind != c.event.Kind || got[0].Reason != c.event.Reason || !errors.Is(got[0].Err, c.event.Err) {
				t.Errorf("got the events %+v, want %+v", got, c.event)
			}
			if r.hash(t, ann.ID) != "rev:x" {
				t.Error("the hash was replaced")
			}
		})
	}
}

// An account that VerifyHash cannot check takes the time of one hash, like an unknown one.
func TestHashThatVerifyHashDoesNotKnowTakesTheWorkOfAHash(t *testing.T) {
	r := newRig(t, account.Config{Argon2: counted, VerifyHash: reversed})
	ann := r.withHash(t, "unknown")
	if n := hashes(func() { r.authenticate(t, "a login", ann.Email, password, account.ErrBadCredentials) }); n != 1 {
		t.Errorf("the login took the work of %d hashes, want 1", n)
	}
}

func TestImportHashAsksVerifyHash(t *testing.T) {
	r := newRig(t, account.Config{VerifyHash: reversed})
	hash, err := r.ImportHash("rev:x")
	if err != nil || hash.Reveal() != "rev:x" {
		t.Errorf("a hash that it knows: got %v, want nil", err)
	}
	if hash, err := r.ImportHash("unknown"); !hash.IsZero() || !errors.Is(err, account.ErrUnusableHash) {
		t.Errorf("another: got %v, want ErrUnusableHash", err)
	}
	ann := newMember("ann@example.com")
	ann.Active = true
	if _, err := r.CreateWithHash(t.Context(), ann, account.NewPasswordHash("rev:"+reverse(password))); err != nil {
		t.Fatalf("CreateWithHash: %v", err)
	}
	r.authenticate(t, "a login", ann.Email, password, nil)
	if got, err := r.CreateWithHash(t.Context(), newMember("bob@example.com"), account.NewPasswordHash("unknown")); !errors.Is(err, account.ErrUnusableHash) || !sameuser.Equal(got, member{}) {
		t.Errorf("CreateWithHash of another: got %v, want only ErrUnusableHash", err)
	}
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		ok   bool
		err  error
		want error
	}{
		"it fails":                       {false, broken, broken},
		"the empty password matches all": {true, nil, account.ErrUnusableHash},
	} {
		r := newRig(t, account.Config{VerifyHash: func(ctx context.Context, hash, password string) (bool, error) {
			if _, bounded := ctx.Deadline(); password != "" || hash != "rev:x" || !bounded {
				t.Errorf("%s: VerifyHash got a password of %d bytes, the hash %q, a deadline: %v", name, len(password), hash, bounded)
			}
			return c.ok, c.err
		}})
		if hash, err := r.ImportHash("rev:x"); !hash.IsZero() || !errors.Is(err, c.want) {
			t.Errorf("%s: got a hash: %v, %v, want %v", name, !hash.IsZero(), err, c.want)
		}
	}
}

// VerifyHash takes a turn like any other hash.
func TestVerifyHashIsBoundedLikeOtherHashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int32
		r := newRig(t, account.Config{MaxConcurrentHashes: 2, VerifyHash: func(ctx context.Context, _, _ string) (bool, error) {
			n := running.Add(1)
			defer running.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(time.Second)
			return false, ctx.Err()
		}})
		ann := r.withHash(t, "rev:x")
		var busy atomic.Int32
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				_, _, err := r.Authenticate(t.Context(), ann.Email, password, "")
				switch {
				case errors.Is(err, account.ErrBusy):
					busy.Add(1)
				case !errors.Is(err, account.ErrBadCredentials):
					t.Errorf("got %v, want ErrBusy or ErrBadCredentials", err)
				}
			})
		}
		wg.Wait()
		if most.Load() != 2 || busy.Load() == 0 {
			t.Errorf("%d ran at once and %d were busy, want 2 and some", most.Load(), busy.Load())
		}
	})
}

func TestPanicInVerifyHashReachesOnlyItsCaller(t *testing.T) {
	buggy := true
	r := newLimitedRigWith(t, account.LimiterConfig{}, account.Config{MaxConcurrentHashes: 1, VerifyHash: func(context.Context, string, string) (bool, error) {
		if buggy {
			panic("a bug")
		}
		return true, nil
	}})
	r.change(t, r.ann.ID, func(m *member) { m.HashedPassword = account.NewPasswordHash("rev:x") })
	for range 20 {
		func() {
			defer func() {
				if recover() == nil {
					t.Fatal("the panic was recovered")
				}
			}()
			_, _, _ = r.Authenticate(from(home), annsAddress, password, "")
		}()
	}
	if left := r.attempts.left(t); len(left) != 0 || r.Queues() != 0 {
		t.Errorf("the counters are at %v and there are %d queues, want none", left, r.Queues())
	}
	buggy = false
	r.expect(t, "a login", home, annsAddress, password, in)
}
