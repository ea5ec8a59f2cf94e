package account_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
)

// blockLookups makes look-ups of accounts block until release is closed.
func (r *limitedRig) blockLookups() (release chan struct{}) {
	release = make(chan struct{})
	good := r.store.byEmail
	r.store.byEmail = func(ctx context.Context, email string) (member, error) {
		m, err := good(ctx, email)
		<-release
		return m, err
	}
	return release
}

// startFive starts five attempts on Ann's account from home, which is the number of free
// failures.
func (r *limitedRig) startFive(wg *sync.WaitGroup, password string) {
	for range 5 {
		wg.Go(func() { _, _ = r.Authenticate(from(home), annsAddress, password) })
	}
	synctest.Wait()
}

// The wait ends after 3 seconds, by the clock of the synctest bubble.
func TestWaitForAttemptsInFlightIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		release := r.blockLookups()
		var wg sync.WaitGroup
		r.startFive(&wg, password)

		start := time.Now()
		r.expect(t, "a sixth", home, annsAddress, password, wait(30*time.Second))
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("it waited for %v, want 3 s", took)
		}
		// Attempts on other accounts, and attempts with a session, do not wait.
		start = time.Now()
		r.store.byEmail = r.store.Users.ByEmail
		r.expect(t, "another account", home, strangers(0), "wrong", denied)
		if _, err := r.Reauthenticate(from(home), r.ann, password); err != nil {
			t.Errorf("Reauthenticate: got %v, want nil", err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("they waited for %v, want 0", took)
		}
		close(release)
		wg.Wait()
		if left := r.attempts.left(t); !reflect.DeepEqual(left, []int{1, 1, 1}) {
			t.Errorf("afterwards the counters are at %v, want only the stranger's failure", left)
		}
	})
}

func TestWaitingAttemptContinuesWhenAnotherFinishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		release := r.blockLookups()
		var wg sync.WaitGroup
		r.startFive(&wg, password)
		for _, p := range []string{password, "wrong"} {
			wg.Go(func() {
				want, start := in, time.Now()
				if p == "wrong" {
					want = denied
				}
				r.expect(t, "a waiting attempt", home, annsAddress, p, want)
				if took := time.Since(start); took != time.Second {
					t.Errorf("it waited for %v, want 1 s", took)
				}
			})
		}
		time.Sleep(time.Second)
		close(release)
		wg.Wait()
	})
}

// An attempt must not be admitted because its wait left no time to count it.
func TestAttemptsAreLimitedAfterTheWait(t *testing.T) {
	for before := time.Duration(0); before < 100*time.Millisecond; before += 5*time.Millisecond - 1 {
		t.Run(fmt.Sprint(before), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newLimitedRig(t, account.LimiterConfig{})
				good, release := r.store.byEmail, make(chan struct{})
				r.store.byEmail = func(context.Context, string) (member, error) {
					<-release
					return member{}, account.ErrBusy
				}
				var wg sync.WaitGroup
				r.startFive(&wg, "wrong")
				r.store.byEmail = good
				r.attempts.since(func(ctx context.Context, _ string, _ int) error {
					select {
					case <-time.After(10 * time.Millisecond): // a database's latency
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				})
				got := make(chan string, 20)
				for range 20 {
					wg.Go(func() { got <- r.login(home, annsAddress, "wrong") })
				}
				time.Sleep(3*time.Second - before)
				close(release)
				wg.Wait()
				close(got)
				n := 0
				for o := range got {
					if o == denied {
						n++
					} else if o != wait(30*time.Second) {
						t.Errorf("got %q, want %q or a wait of 30 s", o, denied)
					}
				}
				if n > 5 || r.lookups.Load() != int64(n) {
					t.Errorf("%d attempts were denied and %d accounts looked up, want the same number, at most 5", n, r.lookups.Load())
				}
				if slices.Contains(kinds(r.takeEvents()), event.LimiterFailed) {
					t.Error("got an event login.limiter_failed, want none")
				}
			})
		})
	}
}

func TestCancelledAttemptStopsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		release := r.blockLookups()
		var wg sync.WaitGroup
		r.startFive(&wg, password)
		for range 10 {
			ctx, cancel := context.WithTimeout(from(home), time.Second)
			defer cancel()
			start := time.Now()
			_, err := r.Authenticate(ctx, annsAddress, password)
			if took := time.Since(start); took != time.Second || err == nil || errors.Is(err, account.ErrBadCredentials) {
				t.Errorf("got %v after %v, want an error other than ErrBadCredentials after 1 s", err, took)
			}
		}
		close(release)
		wg.Wait()
		if left := r.attempts.left(t); left != nil {
			t.Errorf("afterwards the counters are at %v, want none", left)
		}
		r.expect(t, "a login", home, annsAddress, password, in)
	})
}

// A flood of attempts must not fill the memory.
func TestNumberOfWaitingAttemptsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		release := r.blockLookups()
		var wg sync.WaitGroup
		r.startFive(&wg, password)
		const most = 256
		for range most - 5 {
			wg.Go(func() { r.expect(t, "a waiting attempt", home, annsAddress, password, in) })
		}
		synctest.Wait()
		start := time.Now()
		for range 10 {
			r.expect(t, "one too many", home, annsAddress, password, wait(30*time.Second))
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("the rejected attempts waited for %v, want 0", took)
		}
		close(release)
		wg.Wait()
	})
}

// After a panic in a store, other attempts do not wait for the one that panicked.
func TestPanicLeavesNoAttemptInFlight(t *testing.T) {
	login := func(r *limitedRig, p string) (panicked any) {
		defer func() { panicked = recover() }()
		_, _ = r.Authenticate(from(home), annsAddress, p)
		return nil
	}
	t.Run("in the store of accounts", func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		r.fail(t, 3, always(home), always(annsAddress))
		good := r.store.byEmail
		r.store.byEmail = func(context.Context, string) (member, error) { panic("a bug") }
		for range 20 {
			if login(r, password) == nil {
				t.Fatal("the panic was recovered")
			}
		}
		r.store.byEmail = good
		if left := r.attempts.left(t); !slices.Equal(left, []int{3, 3, 3}) || r.InFlight() != 0 {
			t.Errorf("the counters are at %v and %d groups in flight, want [3 3 3] and 0", left, r.InFlight())
		}
		if n := r.attempts.since(nil)["Remember"]; n != 0 {
			t.Errorf("Remember was called %d times, want 0", n)
		}
		r.expect(t, "a login", home, annsAddress, password, in)
	})
	for _, c := range []struct {
		call     string
		n        int
		password string
	}{
		{"Counters", 1, password}, {"Add", 1, password}, {"Add", 2, password}, {"Add", 3, password},
		{"Clear", 1, password}, {"Withdraw", 1, password}, {"Withdraw", 2, password}, {"Remember", 1, password}, {"Add", 3, "wrong"},
	} {
		t.Run(fmt.Sprintf("in the store of attempts, %s %d, %s", c.call, c.n, c.password), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newLimitedRig(t, account.LimiterConfig{})
				for range 20 {
					r.attempts.since(func(_ context.Context, call string, n int) error {
						if call == c.call && n == c.n {
							panic("a bug")
						}
						return nil
					})
					start := time.Now()
					if login(r, c.password) == nil {
						break // rejected: an attempt that panics can stay counted
					}
					if took := time.Since(start); took != 0 {
						t.Errorf("an attempt waited for %v, want 0", took)
					}
				}
				r.attempts.since(nil)
				if n := r.InFlight(); n != 0 {
					t.Errorf("%d groups are in flight, want 0", n)
				}
			})
		})
	}
}

// With a latency, the store's calls of concurrent attempts interleave. Still all right
// passwords must succeed, and no more wrong ones be checked than are free.
func TestLimitsHoldWithLatency(t *testing.T) {
	for name, latency := range map[string]func() time.Duration{
		"constant": func() time.Duration { return 2 * time.Millisecond },
		"random":   func() time.Duration { return time.Duration(rand.IntN(5000)) * time.Microsecond },
	} {
		run := func(t *testing.T, n int, right func(i int) bool, after bool) (got map[string]int, left []int) {
			t.Helper()
			synctest.Test(t, func(t *testing.T) {
				r := newLimitedRig(t, account.LimiterConfig{})
				if after {
					r.fail(t, 5, always(home), always(annsAddress))
					r.clock.advance(30 * time.Second)
				}
				r.attempts.since(func(context.Context, string, int) error { time.Sleep(latency()); return nil })
				good := r.store.byEmail
				r.store.byEmail = func(ctx context.Context, email string) (member, error) {
					time.Sleep(latency())
					return good(ctx, email)
				}
				got = concurrently(n, func(i int) error {
					p := "wrong"
					if right(i) {
						p = password
					}
					_, err := r.Authenticate(from(home), annsAddress, p)
					return err
				})
				r.attempts.since(nil)
				left = r.attempts.left(t)
			})
			return got, left
		}
		t.Run(name, func(t *testing.T) {
			all, none := func(int) bool { return true }, func(int) bool { return false }
			for range 5 {
				for _, after := range []bool{false, true} {
					if got, left := run(t, 64, all, after); got[in] != 64 || left != nil {
						t.Errorf("right passwords, after a wait %v: got %v and the counters %v, want all in and 0", after, got, left)
					}
				}
				if got, left := run(t, 250, none, false); got[denied] != 5 || got["wait"] != 245 || !slices.Equal(left, []int{5, 5, 5}) {
					t.Errorf("wrong passwords: got %v and the counters %v, want 5 denied and [5 5 5]", got, left)
				}
				got, left := run(t, 250, func(i int) bool { return i%60 == 30 }, false)
				if got[denied] > 5*(got[in]+1) || got[in]+got[denied]+got["wait"] != 250 || len(left) > 0 && slices.Min(left) < 0 {
					t.Errorf("both: got %v and the counters %v, want at most five denied for each login and five more, and no counter below 0", got, left)
				}
			}
		})
	}
}
