package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/account"
)

// RunAttempts checks an account.AttemptStore. Each subtest calls open, which must return an
// empty store. A store with a maximum number of counters must hold at least 100.
//
// The checks' times are a hundred years ahead, so that a server with a clock of its own does
// not remove counters that have not expired by the checks' times.
func RunAttempts(t *testing.T, open func(testing.TB) account.AttemptStore) {
	t.Helper()
	attemptSuite(open).run(t)
}

func attemptSuite(open func(testing.TB) account.AttemptStore) suite[attemptStore] {
	return suite[attemptStore]{
		open: func(t testing.TB) attemptStore { return attemptStore{open(t)} },
		checks: []check[attemptStore]{
			{"a counter is returned as it was counted", attemptRoundTrip},
			{"counters are returned in the order of their keys", attemptOrder},
			{"each of many concurrent failures gets a number of its own", attemptAddRace},
			{"the time of the last failure is never lowered", attemptForwards},
			{"a counter's expiry is postponed only on request, and is never brought forward", attemptPostpone},
			{"an expired counter counts as missing", attemptExpired},
			{"many concurrent failures restart an expired counter once", attemptExpiredRace},
			{"withdrawing subtracts, removes a counter without failures and creates none", attemptWithdraw},
			{"concurrent withdrawals and failures add up", attemptWithdrawRace},
			{"concurrent withdrawals and failures leave no counter without failures", attemptWithdrawLastRace},
			{"clearing removes the counter", attemptClear},
			{"failures concurrent with a clear are removed or begin a new counter", attemptClearAddRace},
			{"remembering replaces the counter", attemptRemember},
			{"concurrent calls of Remember succeed", attemptRememberRace},
			{"keys are independent", attemptSeparate},
			{"a cancelled context stops every method", attemptCancelled},
		},
	}
}

// attemptStore is the store under test.
type attemptStore struct {
	account.AttemptStore
}

// future is the checks' time. It is so late that no server's clock takes a counter for expired.
var future = time.Date(2126, 3, 29, 1, 59, 59, 987e6, time.UTC)

// add counts a failure and checks the counter that Add returns.
func (s attemptStore) add(ctx context.Context, key string, now, expires time.Time, postpone bool, want account.AttemptCounter) error {
	got, err := s.Add(ctx, key, now, expires, postpone)
	if err != nil {
		return fmt.Errorf("Add: %w", err)
	}
	return sameCounter("Add", got, want)
}

// addN counts n failures at the time future; the counter expires an hour later.
func (s attemptStore) addN(ctx context.Context, key string, n int) error {
	for range n {
		if _, err := s.Add(ctx, key, future, future.Add(time.Hour), true); err != nil {
			return fmt.Errorf("Add: %w", err)
		}
	}
	return nil
}

func (s attemptStore) withdraw(ctx context.Context, now time.Time, key string, n int) error {
	if err := s.Withdraw(ctx, now, key, n); err != nil {
		return fmt.Errorf("Withdraw: %w", err)
	}
	return nil
}

func (s attemptStore) clear(ctx context.Context, key string) error {
	if err := s.Clear(ctx, key); err != nil {
		return fmt.Errorf("Clear: %w", err)
	}
	return nil
}

func (s attemptStore) remember(ctx context.Context, key string, now, expires time.Time) error {
	if err := s.Remember(ctx, key, now, expires); err != nil {
		return fmt.Errorf("Remember: %w", err)
	}
	return nil
}

// holds returns an error unless the store has exactly this counter under the key.
func (s attemptStore) holds(ctx context.Context, now time.Time, key string, want account.AttemptCounter) error {
	return s.hold(ctx, now, []string{key}, want)
}

// hold is holds for many keys.
func (s attemptStore) hold(ctx context.Context, now time.Time, keys []string, want ...account.AttemptCounter) error {
	got, err := s.Counters(ctx, now, keys...)
	if err != nil {
		return fmt.Errorf("Counters: %w", err)
	}
	if len(got) != len(want) {
		return fmt.Errorf("Counters of %d keys returned %d", len(keys), len(got))
	}
	for i := range want {
		if err := sameCounter("Counters", got[i], want[i]); err != nil {
			return fmt.Errorf("key %d: %w", i, err)
		}
	}
	return nil
}

var noCounter account.AttemptCounter

// failed returns a counter of n failures, the last of them at the given time.
func failed(n int, last time.Time) account.AttemptCounter {
	return account.AttemptCounter{Failures: n, Last: last}
}

func sameCounter(op string, got, want account.AttemptCounter) error {
	switch {
	case got.Failures != want.Failures:
		return fmt.Errorf("%s: Failures is %d, want %d", op, got.Failures, want.Failures)
	case !got.Last.Equal(want.Last):
		return fmt.Errorf("%s: Last is %v, want %v", op, got.Last, want.Last)
	case got.Last.Location() != time.UTC:
		return fmt.Errorf("%s: Last is in %v, want UTC", op, got.Last.Location())
	}
	return nil
}

func attemptRoundTrip(ctx context.Context, s attemptStore) error {
	for _, postpone := range []bool{true, false} {
		for _, at := range []time.Time{future, future.Truncate(time.Second), future.Add(time.Millisecond)} {
			key := newDigest()
			if err := s.holds(ctx, at, key, noCounter); err != nil {
				return fmt.Errorf("before the first failure: %w", err)
			}
			for n := 1; n <= 3; n++ {
				now := at.Add(time.Duration(n) * time.Millisecond)
				if err := s.add(ctx, key, now, at.Add(time.Hour), postpone, failed(n, now)); err != nil {
					return err
				}
				if err := s.holds(ctx, now, key, failed(n, now)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func attemptOrder(ctx context.Context, s attemptStore) error {
	var keys []string
	for i := range 5 {
		key := newDigest()
		keys = append(keys, key)
		if err := s.addN(ctx, key, i+1); err != nil {
			return err
		}
	}
	known, stranger := newDigest(), newDigest()
	if err := s.remember(ctx, known, future, future.Add(time.Hour)); err != nil {
		return err
	}
	return errors.Join(
		s.hold(ctx, future, keys, failed(1, future), failed(2, future), failed(3, future), failed(4, future), failed(5, future)),
		s.hold(ctx, future, []string{keys[3], stranger, keys[0], known, keys[3], stranger, keys[2]},
			failed(4, future), noCounter, failed(1, future), failed(0, future),
			failed(4, future), noCounter, failed(3, future)),
		s.hold(ctx, future, nil),
	)
}

// addConcurrently counts n concurrent failures and returns the numbers that Add returned, in
// ascending order.
func (s attemptStore) addConcurrently(ctx context.Context, key string, n int, now time.Time, postpone bool) ([]int, error) {
	numbers := make([]int, n)
	err := concurrently(n, func(i int) error {
		got, err := s.Add(ctx, key, now, now.Add(time.Hour), postpone)
		numbers[i] = got.Failures
		return err
	})
	slices.Sort(numbers)
	return numbers, err
}

// upTo returns the numbers from 1 to n.
func upTo(n int) []int {
	numbers := make([]int, n)
	for i := range numbers {
		numbers[i] = i + 1
	}
	return numbers
}

func attemptAddRace(ctx context.Context, s attemptStore) error {
	const n = 16
	for _, postpone := range []bool{true, false} {
		key := newDigest()
		got, err := s.addConcurrently(ctx, key, n, future, postpone)
		if err != nil {
			return err
		}
		if !slices.Equal(got, upTo(n)) {
			return fmt.Errorf("%d concurrent calls of Add returned %v, want each number from 1 to %d once", n, got, n)
		}
		if err := s.holds(ctx, future, key, failed(n, future)); err != nil {
			return err
		}
	}
	return nil
}

func attemptForwards(ctx context.Context, s attemptStore) error {
	for _, postpone := range []bool{true, false} {
		key, latest := newDigest(), time.Time{}
		for i, d := range []time.Duration{0, time.Millisecond, -time.Hour, time.Second, 0, time.Second - time.Millisecond} {
			now := future.Add(d)
			if now.After(latest) {
				latest = now
			}
			want := failed(i+1, latest)
			if err := s.add(ctx, key, now, future.Add(time.Hour), postpone, want); err != nil {
				return fmt.Errorf("at %v: %w", now, err)
			}
			if err := s.holds(ctx, latest, key, want); err != nil {
				return fmt.Errorf("after Add at %v: %w", now, err)
			}
		}
	}
	return nil
}

// holdsUntil is holds for a counter that must expire exactly at end.
func (s attemptStore) holdsUntil(ctx context.Context, end time.Time, key string, want account.AttemptCounter) error {
	if err := s.holds(ctx, end.Add(-time.Millisecond), key, want); err != nil {
		return fmt.Errorf("a millisecond before it expires: %w", err)
	}
	if err := s.holds(ctx, end, key, noCounter); err != nil {
		return fmt.Errorf("when it expires: %w", err)
	}
	return nil
}

func attemptPostpone(ctx context.Context, s attemptStore) error {
	for _, c := range []struct {
		name     string
		expires  time.Duration
		postpone bool
		ends     time.Duration
	}{
		{"later, with postpone", 2 * time.Hour, true, 2 * time.Hour},
		{"a millisecond later, with postpone", time.Hour + time.Millisecond, true, time.Hour + time.Millisecond},
		{"earlier, with postpone", time.Minute, true, time.Hour},
		{"later, without postpone", 2 * time.Hour, false, time.Hour},
		{"earlier, without postpone", time.Minute, false, time.Hour},
	} {
		for _, first := range []bool{true, false} {
			key := newDigest()
			if err := s.add(ctx, key, future, future.Add(time.Hour), first, failed(1, future)); err != nil {
				return err
			}
			if err := s.add(ctx, key, future, future.Add(c.expires), c.postpone, failed(2, future)); err != nil {
				return err
			}
			if err := s.holdsUntil(ctx, future.Add(c.ends), key, failed(2, future)); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	return nil
}

// expired returns the key of a counter with three failures that expires at end.
func (s attemptStore) expired(ctx context.Context, end time.Time) (key string, err error) {
	key = newDigest()
	for n := 1; n <= 3; n++ {
		if _, err := s.Add(ctx, key, future, end, true); err != nil {
			return key, fmt.Errorf("Add: %w", err)
		}
	}
	return key, s.holds(ctx, end.Add(-time.Millisecond), key, failed(3, future))
}

func attemptExpired(ctx context.Context, s attemptStore) error {
	end := future.Add(time.Minute)
	fresh := end.Add(time.Hour)
	// Nothing of an expired counter may appear in its successor. Each method gets a counter of its
	// own, because the first call may remove it.
	for name, f := range map[string]func(key string, now time.Time) error{
		"Counters": func(key string, now time.Time) error { return s.holds(ctx, now, key, noCounter) },
		"Clear": func(key string, now time.Time) error {
			return errors.Join(s.clear(ctx, key), s.holds(ctx, now, key, noCounter), s.add(ctx, key, now, fresh, true, failed(1, now)))
		},
		"Withdraw": func(key string, now time.Time) error {
			return errors.Join(s.withdraw(ctx, now, key, 2), s.holds(ctx, now, key, noCounter),
				s.add(ctx, key, now, fresh, true, failed(1, now)))
		},
		"Add": func(key string, now time.Time) error {
			return errors.Join(s.add(ctx, key, now, fresh, false, failed(1, now)),
				s.add(ctx, key, now, fresh, false, failed(2, now)),
				s.holdsUntil(ctx, fresh, key, failed(2, now)))
		},
		"Add with postpone": func(key string, now time.Time) error {
			return errors.Join(s.add(ctx, key, now, fresh, true, failed(1, now)),
				s.holdsUntil(ctx, fresh, key, failed(1, now)))
		},
		"Remember": func(key string, now time.Time) error {
			return errors.Join(s.remember(ctx, key, now, fresh),
				s.holdsUntil(ctx, fresh, key, failed(0, now)))
		},
	} {
		for _, late := range []time.Duration{0, time.Millisecond, time.Minute} {
			key, err := s.expired(ctx, end)
			if err != nil {
				return err
			}
			if err := f(key, end.Add(late)); err != nil {
				return fmt.Errorf("%s, %v after a counter expired: %w", name, late, err)
			}
		}
	}
	// The same holds for a counter that Remember made.
	key := newDigest()
	if err := s.remember(ctx, key, future, end); err != nil {
		return err
	}
	if err := s.add(ctx, key, end, fresh, true, failed(1, end)); err != nil {
		return fmt.Errorf("after a remembered counter expired: %w", err)
	}
	return s.holds(ctx, end, key, failed(1, end))
}

func attemptExpiredRace(ctx context.Context, s attemptStore) error {
	const n = 8
	end := future.Add(time.Minute)
	for round := range rounds {
		key, err := s.expired(ctx, end)
		if err != nil {
			return err
		}
		got, err := s.addConcurrently(ctx, key, n, end, round%2 == 0)
		if err != nil {
			return err
		}
		if !slices.Equal(got, upTo(n)) {
			return fmt.Errorf("%d concurrent calls of Add returned %v, want each number from 1 to %d once", n, got, n)
		}
		if err := s.holds(ctx, end, key, failed(n, end)); err != nil {
			return err
		}
	}
	return nil
}

func attemptWithdraw(ctx context.Context, s attemptStore) error {
	key, stranger := newDigest(), newDigest()
	if err := errors.Join(s.addN(ctx, key, 7), s.withdraw(ctx, future, stranger, 2)); err != nil {
		return err
	}
	now := future.Add(time.Second) // Last must stay future
	for _, c := range []struct{ n, left int }{{1, 6}, {2, 4}, {3, 1}} {
		if err := s.withdraw(ctx, now, key, c.n); err != nil {
			return err
		}
		if err := s.holds(ctx, now, key, failed(c.left, future)); err != nil {
			return fmt.Errorf("after a Withdraw of %d: %w", c.n, err)
		}
	}
	// The counter's expiry must stay too.
	err := errors.Join(
		s.add(ctx, key, now, future.Add(time.Hour), false, failed(2, now)),
		s.holdsUntil(ctx, future.Add(time.Hour), key, failed(2, now)),
		s.holds(ctx, future, stranger, noCounter),
		s.add(ctx, stranger, future, future.Add(time.Hour), true, failed(1, future)),
	)
	if err != nil {
		return err
	}
	for _, c := range []struct{ failures, n int }{{1, 1}, {1, 2}, {3, 3}, {3, 9}} {
		key := newDigest()
		if err := errors.Join(s.addN(ctx, key, c.failures), s.withdraw(ctx, future, key, c.n), s.holds(ctx, future, key, noCounter)); err != nil {
			return fmt.Errorf("after a Withdraw of %d from %d: %w", c.n, c.failures, err)
		}
		// A new counter has nothing of the removed one.
		earlier := future.Add(-time.Second)
		if err := s.add(ctx, key, earlier, future.Add(time.Minute), true, failed(1, earlier)); err != nil {
			return err
		}
		if err := s.holdsUntil(ctx, future.Add(time.Minute), key, failed(1, earlier)); err != nil {
			return err
		}
	}
	return nil
}

func attemptWithdrawRace(ctx context.Context, s attemptStore) error {
	for range rounds {
		key := newDigest()
		if err := s.addN(ctx, key, 12); err != nil {
			return err
		}
		err := concurrently(8, func(i int) error {
			if i%2 == 0 {
				return s.withdraw(ctx, future, key, 2)
			}
			return s.addN(ctx, key, 1)
		})
		if err != nil {
			return err
		}
		if err := s.holds(ctx, future, key, failed(8, future)); err != nil {
			return fmt.Errorf("after 16 failures and 4 withdrawals of 2: %w", err)
		}
	}
	return nil
}

// Each call adds a failure and withdraws it, so that the counter falls to 0 at any time.
func attemptWithdrawLastRace(ctx context.Context, s attemptStore) error {
	for range rounds {
		key := newDigest()
		err := concurrently(8, func(int) error {
			return errors.Join(s.addN(ctx, key, 1), s.withdraw(ctx, future, key, 1))
		})
		if err != nil {
			return err
		}
		if err := s.holds(ctx, future, key, noCounter); err != nil {
			return fmt.Errorf("after 8 failures and 8 withdrawals of 1: %w", err)
		}
	}
	return nil
}

func attemptClear(ctx context.Context, s attemptStore) error {
	key, known := newDigest(), newDigest()
	return errors.Join(
		s.addN(ctx, key, 4), s.remember(ctx, known, future, future.Add(time.Hour)),
		s.clear(ctx, key),
		s.hold(ctx, future, []string{key, known}, noCounter, failed(0, future)),
		s.clear(ctx, key),
		s.clear(ctx, known),
		s.hold(ctx, future, []string{key, known}, noCounter, noCounter),
		// A new counter has nothing of the cleared one.
		s.add(ctx, key, future.Add(-time.Second), future.Add(time.Hour), true, failed(1, future.Add(-time.Second))),
	)
}

func attemptClearAddRace(ctx context.Context, s attemptStore) error {
	for range rounds {
		key := newDigest()
		var mu sync.Mutex
		var numbers []int
		err := concurrently(8, func(i int) error {
			if i == 3 {
				return s.clear(ctx, key)
			}
			got, err := s.Add(ctx, key, future, future.Add(time.Hour), true)
			mu.Lock()
			defer mu.Unlock()
			numbers = append(numbers, got.Failures)
			return err
		})
		if err != nil {
			return err
		}
		found, err := s.Counters(ctx, future, key)
		if err != nil {
			return fmt.Errorf("Counters: %w", err)
		}
		// The failures before the clear, and those after it, were counted from 1.
		after := found[0].Failures
		want := append(upTo(max(0, len(numbers)-after)), upTo(after)...)
		slices.Sort(numbers)
		slices.Sort(want)
		if !slices.Equal(numbers, want) {
			return fmt.Errorf("7 concurrent calls of Add beside one of Clear returned %v and left %d failures, want %v", numbers, after, want)
		}
	}
	return nil
}

func attemptRemember(ctx context.Context, s attemptStore) error {
	key := newDigest()
	for i := range 3 {
		// Each time it expires sooner than before.
		now := future.Add(time.Duration(i) * time.Millisecond)
		if err := errors.Join(s.remember(ctx, key, now, future.Add(time.Duration(10-i)*time.Hour)), s.holds(ctx, now, key, failed(0, now))); err != nil {
			return fmt.Errorf("after Remember %d: %w", i+1, err)
		}
	}
	last := failed(0, future.Add(2*time.Millisecond))
	if err := s.holdsUntil(ctx, future.Add(8*time.Hour), key, last); err != nil {
		return err
	}
	// It can expire later too.
	if err := s.remember(ctx, key, future, future.Add(2000*time.Hour)); err != nil {
		return err
	}
	if err := s.holdsUntil(ctx, future.Add(2000*time.Hour), key, failed(0, future)); err != nil {
		return err
	}
	counted := newDigest()
	now := future.Add(-time.Minute)
	if err := errors.Join(s.addN(ctx, counted, 3), s.remember(ctx, counted, now, future.Add(time.Minute))); err != nil {
		return err
	}
	if err := s.holdsUntil(ctx, future.Add(time.Minute), counted, failed(0, now)); err != nil {
		return fmt.Errorf("after Remember replaced failures: %w", err)
	}
	return nil
}

func attemptRememberRace(ctx context.Context, s attemptStore) error {
	for range rounds {
		key := newDigest()
		err := concurrently(8, func(int) error { return s.remember(ctx, key, future, future.Add(time.Hour)) })
		if err != nil {
			return err
		}
		if err := s.holdsUntil(ctx, future.Add(time.Hour), key, failed(0, future)); err != nil {
			return fmt.Errorf("after concurrent calls of Remember: %w", err)
		}
	}
	return nil
}

func attemptSeparate(ctx context.Context, s attemptStore) error {
	// Digests that differ in the case of a letter, or in their beginning or end.
	digest := strings.Repeat("aZ-_", 11)[:43]
	keys := []string{digest, strings.ToLower(digest), strings.ToUpper(digest), digest[:42] + "_", "A" + digest[1:]}
	for i, key := range keys {
		if err := s.addN(ctx, key, i+1); err != nil {
			return err
		}
	}
	hold := func(after string, want ...account.AttemptCounter) error {
		if err := s.hold(ctx, future, keys, want...); err != nil {
			return fmt.Errorf("after %s: %w", after, err)
		}
		return nil
	}
	one, two, three, four, five := failed(1, future), failed(2, future), failed(3, future), failed(4, future), failed(5, future)
	if err := hold("Add", one, two, three, four, five); err != nil {
		return err
	}
	if err := errors.Join(s.withdraw(ctx, future, keys[1], 1), hold("Withdraw", one, one, three, four, five)); err != nil {
		return err
	}
	if err := errors.Join(s.clear(ctx, keys[2]), hold("Clear", one, one, noCounter, four, five)); err != nil {
		return err
	}
	return errors.Join(s.remember(ctx, keys[3], future, future.Add(time.Hour)), hold("Remember", one, one, noCounter, failed(0, future), five))
}

func attemptCancelled(ctx context.Context, s attemptStore) error {
	key, known, other := newDigest(), newDigest(), newDigest()
	if err := errors.Join(s.addN(ctx, key, 3), s.remember(ctx, known, future, future.Add(time.Hour))); err != nil {
		return err
	}
	dead := cancelledContext(ctx)
	_, counters := s.Counters(dead, future, key)
	_, add := s.Add(dead, key, future, future.Add(time.Hour), true)
	_, first := s.Add(dead, other, future, future.Add(time.Hour), false)
	for op, err := range map[string]error{
		"Counters":                 counters,
		"Add":                      add,
		"Add of the first failure": first,
		"Withdraw":                 s.Withdraw(dead, future, key, 1),
		"Clear":                    s.Clear(dead, key),
		"Remember":                 s.Remember(dead, known, future.Add(time.Second), future.Add(time.Hour)),
	} {
		if err := wantError(op, nil, err, context.Canceled); err != nil {
			return err
		}
	}
	return s.hold(ctx, future, []string{key, known, other}, failed(3, future), failed(0, future), noCounter)
}
