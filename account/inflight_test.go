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

// occupy starts an attempt on Ann's account, which stays in flight until its look-up is
// released.
func (r *limitedRig) occupy(wg *sync.WaitGroup, password string) {
	wg.Go(func() { _, _, _ = r.Authenticate(from(home), annsAddress, password, "") })
	synctest.Wait()
}

// The wait ends after 3 seconds, by the clock of the synctest bubble.
func TestWaitForAttemptsInFlightIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		device := r.newDevice(t)
		release := r.blockLookups()
		var wg sync.WaitGroup
		r.occupy(&wg, password)

		r.takeEvents()
		start := time.Now()
		_, _, err := r.Authenticate(from(elsewhere(0)), annsAddress, password, "")
		if took := time.Since(start); took != 3*time.Second || !errors.Is(err, account.ErrBusy) {
			t.Errorf("a second attempt: got %v after %v, want ErrBusy after 3 s", err, took)
		}
		if got := kinds(r.takeEvents()); !slices.Equal(got, []event.Kind{event.Overloaded}) {
			t.Errorf("got the events %v, want login.overloaded", got)
		}
		// Attempts on other accounts, from the account's devices, and with a session do not
		// wait.
		start = time.Now()
		r.store.byEmail = r.store.Users.ByEmail
		r.expect(t, "another account", home, strangers(0), "wrong", denied)
		r.expectDevice(t, "a device", device, home, password, in)
		if _, err := r.Reauthenticate(from(home), r.ann, password); err != nil {
			t.Errorf("Reauthenticate: got %v, want nil", err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("they waited for %v, want 0", took)
		}
		close(release)
		wg.Wait()
		if left := r.attempts.left(t); !reflect.DeepEqual(left, []int{1, 1}) {
			t.Errorf("afterwards the counters are at %v, want only the stranger's failure", left)
		}
	})
}

func TestWaitingAttemptContinuesWhenAnotherFinishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		r.fail(t, 9, always(home), always(annsAddress))
		release := r.blockLookups()
		var wg sync.WaitGroup
		r.occupy(&wg, password)
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
				r.occupy(&wg, "wrong")
				r.store.byEmail = good
				r.attempts.since(func(ctx context.Context, _ string, _ int) error {
					select {
					case <-time.After(10 * time.Millisecond): // a database's latency
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				})
				r.takeEvents()
				got := make(chan error, 20)
				for range 20 {
					wg.Go(func() {
						_, _, err := r.Authenticate(from(home), annsAddress, "wrong", "")
						got <- err
					})
				}
				time.Sleep(3*time.Second - before)
				close(release)
				wg.Wait()
				close(got)
				n := 0
				for err := range got {
					switch {
					case outcome(err) == denied:
						n++
					case !errors.Is(err, account.ErrBusy) && outcome(err) != wait(time.Minute):
						t.Errorf("got %v, want %q, ErrBusy or a wait of a minute", err, denied)
					}
				}
				if n > 10 || r.lookups.Load() != int64(n) {
					t.Errorf("%d attempts were denied and %d accounts looked up, want the same number, at most 10", n, r.lookups.Load())
				}
				if slices.Contains(kinds(r.takeEvents()), event.LimiterFailed) {
					t.Error("got an event login.limiter_failed, want none")
				}
			})
		})
	}
}

func TestAbandonedAttemptStopsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		release := r.blockLookups()
		var wg sync.WaitGroup
		r.occupy(&wg, password)
		r.takeEvents()
		for range 10 {
			ctx, cancel := context.WithTimeout(from(home), time.Second)
			start := time.Now()
			_, _, err := r.Authenticate(ctx, annsAddress, password, "")
			if took := time.Since(start); took != time.Second || !errors.Is(err, account.ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v after %v, want ErrBusy and the deadline after 1 s", err, took)
			}
			cancel()
		}
		if got, want := kinds(r.takeEvents()), slices.Repeat([]event.Kind{event.Overloaded}, 10); !slices.Equal(got, want) {
			t.Errorf("got the events %v, want %v", got, want)
		}
		for range 10 {
			ctx, cancel := context.WithCancel(from(home))
			time.AfterFunc(time.Second, cancel)
			start := time.Now()
			_, _, err := r.Authenticate(ctx, annsAddress, password, "")
			if took := time.Since(start); took != time.Second || !errors.Is(err, context.Canceled) {
				t.Errorf("got %v after %v, want context.Canceled after 1 s", err, took)
			}
		}
		if got := r.takeEvents(); got != nil {
			t.Errorf("after clients have gone, got the events %+v, want none", got)
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
		r.occupy(&wg, password)
		for range 255 {
			wg.Go(func() { r.expect(t, "a waiting attempt", home, annsAddress, password, in) })
		}
		synctest.Wait()
		start := time.Now()
		for range 10 {
			if _, _, err := r.Authenticate(from(home), annsAddress, password, ""); !errors.Is(err, account.ErrBusy) {
				t.Errorf("one too many: got %v, want ErrBusy", err)
			}
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
		_, _, _ = r.Authenticate(from(home), annsAddress, p, "")
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
		if left := r.attempts.left(t); !slices.Equal(left, []int{3, 3}) || r.Queues() != 0 {
			t.Errorf("the counters are at %v and there are %d queues, want [3 3] and 0", left, r.Queues())
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
		{"Counters", 1, password}, {"Add", 1, password}, {"Add", 2, password},
		{"Clear", 1, password}, {"Withdraw", 1, password}, {"Remember", 1, password}, {"Add", 2, "wrong"},
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
				if n := r.Queues(); n != 0 {
					t.Errorf("there are %d queues, want 0", n)
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
					r.fail(t, 10, always(home), always(annsAddress))
					r.clock.advance(time.Minute)
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
					_, _, err := r.Authenticate(from(home), annsAddress, p, "")
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
					var want []int
					if after {
						want = []int{10} // the failures before, in the network's counter
					}
					if got, left := run(t, 64, all, after); got[in] != 64 || !slices.Equal(left, want) {
						t.Errorf("right passwords, after a wait %v: got %v and the counters %v, want all in and %v", after, got, left, want)
					}
				}
				if got, left := run(t, 250, none, false); got[denied] != 10 || got["wait"] != 240 || !slices.Equal(left, []int{10, 10}) {
					t.Errorf("wrong passwords: got %v and the counters %v, want 10 denied and [10 10]", got, left)
				}
				got, left := run(t, 250, func(i int) bool { return i%60 == 30 }, false)
				if got[denied] > 10*(got[in]+1) || got[in]+got[denied]+got["wait"] != 250 {
					t.Errorf("both: got %v and the counters %v, want at most ten denied for each login and ten more", got, left)
				}
			}
		})
	}
}
