package account_test

import (
	"context"
	"errors"
	"github.com/latchkey-go/latchkey/strategy"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/bcrypt"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
)

// hang waits until a context ends, as a call of a database that is away does.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// timeoutRig returns a rig whose store and sessions hang, and a limiter that does not.
func timeoutRig(t *testing.T) *limitedRig {
	t.Helper()
	r := &limitedRig{clock: newClock()}
	r.attempts = newRecorder(t, r.clock)
	sessions := sessionsFunc(func(ctx context.Context, _ uuid.UUID, _ strategy.Revoked) error { return hang(ctx) })
	r.rig = newRigWith(t, r.attempts, account.Config{Argon2: tiny, Now: r.clock.now, Timeout: 3 * time.Second}, sessions)
	r.ann = r.register(t)
	r.store.insert = func(ctx context.Context, _ member) error { return hang(ctx) }
	r.store.byID = func(ctx context.Context, _ uuid.UUID) (member, error) { return member{}, hang(ctx) }
	r.store.byEmail = func(ctx context.Context, _ string) (member, error) { return member{}, hang(ctx) }
	r.store.apply = func(ctx context.Context, _ uuid.UUID, _ account.Change) error { return hang(ctx) }
	return r
}

func TestOperationWithTheDatabaseAwayTakesOneTimeout(t *testing.T) {
	for name, do := range map[string]func(r *limitedRig) error{
		"Authenticate": func(r *limitedRig) error {
			_, _, err := r.Authenticate(from(home), annsAddress, password, "")
			return err
		},
		"Reauthenticate": func(r *limitedRig) error {
			_, err := r.Reauthenticate(from(home), r.ann, password)
			return err
		},
		"Register": func(r *limitedRig) error {
			_, err := r.Register(from(home), newMember("bob@example.com"), password)
			return err
		},
		"ChangePassword": func(r *limitedRig) error {
			_, err := r.ChangePassword(from(home), r.ann.ID, password, "a better password")
			return err
		},
		"SetPassword": func(r *limitedRig) error {
			_, err := r.SetPassword(from(home), r.ann.ID, "a better password")
			return err
		},
		"RevokeTokens": func(r *limitedRig) error { return r.RevokeTokens(from(home), r.ann.ID) },
		"Deactivate":   func(r *limitedRig) error { return r.Deactivate(from(home), r.ann.ID) },
		"Activate":     func(r *limitedRig) error { return r.Activate(from(home), r.ann.ID) },
		"RevokeTokens, only the sessions are away": func(r *limitedRig) error {
			r.store.apply = r.store.Users.Apply
			return r.RevokeTokens(from(home), r.ann.ID)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := timeoutRig(t)
				start := time.Now()
				err := do(r)
				if took := time.Since(start); took != 3*time.Second || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got the error %v after %v, want the deadline after 3 s", err, took)
				}
			})
		})
	}
}

func TestCountedAttemptIsTakenBackBehindTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := timeoutRig(t)
		release := make(chan struct{})
		r.attempts.since(func(ctx context.Context, call string, _ int) error {
			if call == "Withdraw" {
				<-release
				return ctx.Err()
			}
			return nil
		})
		start := time.Now()
		_, _, err := r.Authenticate(from(home), annsAddress, password, "")
		if took := time.Since(start); took != 3*time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got the error %v after %v, want the deadline after 3 s", err, took)
		}
		if left := r.attempts.left(t); !slices.Equal(left, []int{1, 1}) {
			t.Errorf("before it is taken back, the counters are at %v, want [1 1]", left)
		}
		close(release)
		synctest.Wait()
		if left := r.attempts.left(t); left != nil {
			t.Errorf("afterwards the counters are at %v, want none", left)
		}
	})
}

func TestFailuresAreClearedBehindTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := timeoutRig(t)
		outdated, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		r.store.byEmail = func(ctx context.Context, email string) (member, error) {
			ann, err := r.store.Users.ByEmail(ctx, email)
			ann.HashedPassword = account.NewPasswordHash(string(outdated))
			return ann, err
		}
		start := time.Now()
		_, _, err = r.Authenticate(from(home), annsAddress, password, "")
		if took := time.Since(start); took != 3*time.Second || err != nil {
			t.Errorf("got the error %v after %v, want none after 3 s", err, took)
		}
		synctest.Wait()
		if left := r.attempts.left(t); left != nil {
			t.Errorf("afterwards the counters are at %v, want none", left)
		}
	})
}

func TestAttemptThatCannotBeCountedInTimeIsNotMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLimitedRigWith(t, account.LimiterConfig{}, account.Config{Argon2: tiny, Timeout: 3 * time.Second})
		r.takeEvents()
		r.attempts.since(func(ctx context.Context, _ string, _ int) error { return hang(ctx) })
		_, _, err := r.Authenticate(from(home), annsAddress, "wrong", "")
		if !errors.Is(err, context.DeadlineExceeded) || r.lookups.Load() != 0 {
			t.Errorf("got the error %v and %d look-ups, want the deadline and none", err, r.lookups.Load())
		}
		if got := kinds(r.takeEvents()); !slices.Equal(got, []event.Kind{event.LimiterFailed}) {
			t.Errorf("got the events %v, want one of the limiter", got)
		}
	})
}

func TestCallsOfOneOperationShareOneDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &limitedRig{clock: newClock()}
		r.attempts = newRecorder(t, r.clock)
		var mu sync.Mutex
		var seen []time.Time
		see := func(ctx context.Context) {
			mu.Lock()
			defer mu.Unlock()
			deadline, _ := ctx.Deadline()
			seen = append(seen, deadline)
		}
		told := sessionsFunc(func(ctx context.Context, _ uuid.UUID, _ strategy.Revoked) error { see(ctx); return nil })
		r.rig = newRigWith(t, r.attempts, account.Config{Argon2: tiny, Now: r.clock.now, Timeout: time.Minute}, told)
		r.ann = r.register(t)
		r.attempts.since(func(ctx context.Context, _ string, _ int) error { see(ctx); return nil })
		r.store.byEmail = func(ctx context.Context, email string) (member, error) {
			see(ctx)
			return r.store.Users.ByEmail(ctx, email)
		}
		r.store.byID = func(ctx context.Context, id uuid.UUID) (member, error) {
			see(ctx)
			return r.store.Users.ByID(ctx, id)
		}
		r.store.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
			see(ctx)
			return r.store.Users.Apply(ctx, id, change)
		}
		if _, _, err := r.Authenticate(from(home), annsAddress, password, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := r.ChangePassword(from(home), r.ann.ID, password, "a better password"); err != nil {
			t.Fatal(err)
		}
		want := time.Now().Add(time.Minute) // the clock of the test stands still
		for i, deadline := range seen {
			if !deadline.Equal(want) {
				t.Errorf("call %d: got the deadline %v, want %v", i, deadline, want)
			}
		}
		if len(seen) < 10 {
			t.Errorf("got %d calls, want those of a login and of a change", len(seen))
		}
	})
}

// slowTake answers once the operation's time is over.
type slowTake struct {
	account.OneTimeTokenStore[uuid.UUID]
	slow *bool
}

func (s slowTake) Take(ctx context.Context, purpose account.Purpose, digest string) (account.OneTimeToken[uuid.UUID], error) {
	if *s.slow {
		_ = hang(ctx)
	}
	return s.OneTimeTokenStore.Take(context.WithoutCancel(ctx), purpose, digest)
}

func (s slowTake) Insert(ctx context.Context, row account.OneTimeToken[uuid.UUID], most int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.OneTimeTokenStore.Insert(ctx, row, most)
}

func TestOneTimeTokenIsRestoredBehindTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := false
		r := newMailRig(t, account.MailConfig{}, func(s account.OneTimeTokenStore[uuid.UUID]) account.OneTimeTokenStore[uuid.UUID] {
			return slowTake{s, &slow}
		})
		r.want("request", r.RequestVerification(t.Context(), annsAddress), nil)
		secret := r.one(account.MessageVerification, annsAddress).Token.Reveal()
		slow = true
		start := time.Now()
		_, err := r.Verify(t.Context(), secret)
		r.want("verify while the store is slow", err, context.DeadlineExceeded)
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("it took %v, want 3 s", took)
		}
		synctest.Wait()
		slow = false
		_, err = r.Verify(t.Context(), secret)
		r.want("verify again", err, nil)
	})
}
