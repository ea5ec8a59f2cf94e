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

// slow makes look-ups of accounts take until release is closed.
func (r *limitedRig) slow() (release chan struct{}) {
	release = make(chan struct{})
	good := r.store.byEmail
	r.store.byEmail = func(ctx context.Context, email string) (member, error) {
		m, err := good(ctx, email)
		<-release
		return m, err
	}
	return release
}

// fill starts five attempts on Ann's account from home: as many as are free.
func (r *limitedRig) fill(wg *sync.WaitGroup, password string) {
	for range 5 {
		wg.Go(func() { _, _ = r.Authenticate(from(home), annsAddress, password) })
	}
	synctest.Wait()
}

// Waiting for others has an end: here, by a bubble's clock.
func TestAnAttemptDoesNotWaitForOthersForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		release := r.slow()
		var wg sync.WaitGroup
		r.fill(&wg, password)

		start := time.Now()
		r.expect(t, "a sixth", home, annsAddress, password, wait(30*time.Second))
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("it waited %v for the others, want 3 s", took)
		}
		// Other accounts and whoever is behind a session do not wait for those.
		start = time.Now()
		r.store.byEmail = r.store.Users.ByEmail
		r.expect(t, "another account", home, strangers(0), "wrong", denied)
		if _, err := r.Reauthenticate(from(home), r.ann, password); err != nil {
			t.Errorf("Reauthenticate: got %v, want nil", err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("others waited for %v, want 0", took)
		}
		close(release)
		wg.Wait()
		if left := r.attempts.left(t); !reflect.DeepEqual(left, []int{1, 1, 1}) {
			t.Errorf("afterwards the counters are at %v, want the stranger's failure alone", left)
		}
	})
}

func TestAnAttemptGoesOnWhenAnotherEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		release := r.slow()
		var wg sync.WaitGroup
		r.fill(&wg, password)
		for _, p := range []string{password, "wrong"} {
			wg.Go(func() {
				want, start := in, time.Now()
				if p == "wrong" {
					want = denied
				}
				r.expect(t, "one that waits", home, annsAddress, p, want)
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

// Attempts whose wait ends late must be decided on all the same: not let through
// because there was no time left to count them.
func TestAttemptsThatHaveWaitedAreStillLimited(t *testing.T) {
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
				r.fill(&wg, "wrong")
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
					t.Errorf("%d were denied and %d accounts looked up, want at most 5", n, r.lookups.Load())
				}
				if slices.Contains(kinds(r.takeEvents()), event.LimiterFailed) {
					t.Error("an event says that the limiter failed, want none: it did not")
				}
			})
		})
	}
}

func TestWhoeverHangsUpDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		release := r.slow()
		var wg sync.WaitGroup
		r.fill(&wg, password)
		for range 10 {
			ctx, cancel := context.WithTimeout(from(home), time.Second)
			defer cancel()
			start := time.Now()
			_, err := r.Authenticate(ctx, annsAddress, password)
			if took := time.Since(start); took != time.Second || err == nil || errors.Is(err, account.ErrBadCredentials) {
				t.Errorf("got %v after %v, want a failure that is no denial after 1 s", err, took)
			}
		}
		close(release)
		wg.Wait()
		if left := r.attempts.left(t); left != nil {
			t.Errorf("afterwards the counters are at %v, want all at 0", left)
		}
		r.expect(t, "a login", home, annsAddress, password, in)
	})
}

// A flood must not pile up.
func TestOnlySoManyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		release := r.slow()
		var wg sync.WaitGroup
		r.fill(&wg, password)
		const most = 256
		for range most - 5 {
			wg.Go(func() { r.expect(t, "one that waits", home, annsAddress, password, in) })
		}
		synctest.Wait()
		start := time.Now()
		for range 10 {
			r.expect(t, "one too many", home, annsAddress, password, wait(30*time.Second))
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("those too many waited for %v, want 0", took)
		}
		close(release)
		wg.Wait()
	})
}

// Whatever panics, nobody waits for it afterwards.
func TestNothingIsLeftOfAPanic(t *testing.T) {
	login := func(r *limitedRig, p string) (panicked any) {
		defer func() { panicked = recover() }()
		_, _ = r.Authenticate(from(home), annsAddress, p)
		return nil
	}
	t.Run("the accounts' store", func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		r.fail(t, 3, always(home), always(annsAddress))
		good := r.store.byEmail
		r.store.byEmail = func(context.Context, string) (member, error) { panic("a bug") }
		for range 20 {
			if login(r, password) == nil {
				t.Fatal("the panic was swallowed")
			}
		}
		r.store.byEmail = good
		if left := r.attempts.left(t); !slices.Equal(left, []int{3, 3, 3}) || r.InFlight() != 0 {
			t.Errorf("the counters are at %v and %d accounts have attempts under way, want [3 3 3] as before, and none", left, r.InFlight())
		}
		if n := r.attempts.since(nil)["Remember"]; n != 0 {
			t.Errorf("the network was remembered %d times, want 0", n)
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
		t.Run(fmt.Sprintf("the counters' store, %s %d, %s", c.call, c.n, c.password), func(t *testing.T) {
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
						break // refused before: what a panic interrupts can stay counted
					}
					if took := time.Since(start); took != 0 {
						t.Errorf("an attempt waited for %v for those that are no more", took)
					}
				}
				r.attempts.since(nil)
				if n := r.InFlight(); n != 0 {
					t.Errorf("%d accounts have attempts under way, want 0", n)
				}
			})
		})
	}
}

// With a database's latency there is time for attempts to come between each
// other's calls. It changes nothing: all right ones get in, and of the wrong ones
// no more than are free.
func TestLatencyChangesNothing(t *testing.T) {
	for name, latency := range map[string]func() time.Duration{
		"always the same": func() time.Duration { return 2 * time.Millisecond },
		"at random":       func() time.Duration { return time.Duration(rand.IntN(5000)) * time.Microsecond },
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
				got = crowd(n, func(i int) error {
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
						t.Errorf("right ones, after a wait %v: got %v and the counters %v, want all in and 0", after, got, left)
					}
				}
				if got, left := run(t, 250, none, false); got[denied] != 5 || got["wait"] != 245 || !slices.Equal(left, []int{5, 5, 5}) {
					t.Errorf("wrong ones: got %v and the counters %v, want 5 denied and [5 5 5]", got, left)
				}
				got, left := run(t, 250, func(i int) bool { return i%60 == 30 }, false)
				if got[denied] > 5*(got[in]+1) || got[in]+got[denied]+got["wait"] != 250 || len(left) > 0 && slices.Min(left) < 0 {
					t.Errorf("both: got %v and the counters %v, want at most five denied for each login, and five more, and none below 0", got, left)
				}
			}
		})
	}
}
