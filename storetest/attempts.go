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
			{"withdrawing subtracts, also below zero, and creates no counter", attemptWithdraw},
			{"concurrent withdrawals and failures add up", attemptWithdrawRace},
			{"clearing returns the counter once", attemptClear},
			{"one of many concurrent clears gets the counter", attemptClearRace},
			{"failures concurrent with a clear are cleared or stay", attemptClearAddRace},
			{"a list of networks replaces the counter and keeps its order", attemptRemember},
			{"concurrent calls of Remember succeed", attemptRememberRace},
			{"lists share no memory with the caller", attemptNotShared},
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

// clear clears a counter and checks what Clear returns.
func (s attemptStore) clear(ctx context.Context, now time.Time, key string, want account.AttemptCounter) error {
	got, err := s.Clear(ctx, now, key)
	if err != nil {
		return fmt.Errorf("Clear: %w", err)
	}
	return sameCounter("Clear", got, want)
}

func (s attemptStore) remember(ctx context.Context, key string, networks []string, now, expires time.Time) error {
	if err := s.Remember(ctx, key, networks, now, expires); err != nil {
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
	case !slices.Equal(got.Networks, want.Networks):
		return fmt.Errorf("%s: Networks is %q, want %q", op, got.Networks, want.Networks)
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
	networks := []string{newDigest(), newDigest()}
	if err := s.remember(ctx, known, networks, future, future.Add(time.Hour)); err != nil {
		return err
	}
	return errors.Join(
		s.hold(ctx, future, keys, failed(1, future), failed(2, future), failed(3, future), failed(4, future), failed(5, future)),
		s.hold(ctx, future, []string{keys[3], stranger, keys[0], known, keys[3], stranger, keys[2]},
			failed(4, future), noCounter, failed(1, future), account.AttemptCounter{Last: future, Networks: networks},
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
		"Clear":    func(key string, now time.Time) error { return s.clear(ctx, now, key, noCounter) },
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
			return errors.Join(s.remember(ctx, key, []string{"a network"}, now, fresh),
				s.holds(ctx, now, key, account.AttemptCounter{Last: now, Networks: []string{"a network"}}),
				s.add(ctx, key, now, fresh, true, account.AttemptCounter{Failures: 1, Last: now, Networks: []string{"a network"}}))
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
	// The same holds for a list of networks.
	key := newDigest()
	if err := s.remember(ctx, key, []string{"a network"}, future, end); err != nil {
		return err
	}
	if err := s.add(ctx, key, end, fresh, true, failed(1, end)); err != nil {
		return fmt.Errorf("after a list expired: %w", err)
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
	if err := errors.Join(s.addN(ctx, key, 3), s.withdraw(ctx, future, stranger, 2)); err != nil {
		return err
	}
	now := future.Add(time.Second) // Last must stay future
	for _, c := range []struct{ n, left int }{{1, 2}, {2, 0}, {2, -2}} {
		if err := s.withdraw(ctx, now, key, c.n); err != nil {
			return err
		}
		if err := s.holds(ctx, now, key, failed(c.left, future)); err != nil {
			return fmt.Errorf("after a Withdraw of %d: %w", c.n, err)
		}
	}
	// The counter's expiry must stay too.
	return errors.Join(
		s.add(ctx, key, now, future.Add(time.Hour), false, failed(-1, now)),
		s.holdsUntil(ctx, future.Add(time.Hour), key, failed(-1, now)),
		s.holds(ctx, future, stranger, noCounter),
		s.clear(ctx, future, stranger, noCounter),
		s.add(ctx, stranger, future, future.Add(time.Hour), true, failed(1, future)),
	)
}

func attemptWithdrawRace(ctx context.Context, s attemptStore) error {
	for range rounds {
		key := newDigest()
		if err := s.addN(ctx, key, 1); err != nil {
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
		if err := s.holds(ctx, future, key, failed(-3, future)); err != nil {
			return fmt.Errorf("after 5 failures and 4 withdrawals of 2: %w", err)
		}
	}
	return nil
}

func attemptClear(ctx context.Context, s attemptStore) error {
	key, known := newDigest(), newDigest()
	networks := []string{"one", "two"}
	err := errors.Join(s.addN(ctx, key, 4), s.remember(ctx, known, networks, future, future.Add(time.Hour)))
	if err != nil {
		return err
	}
	return errors.Join(
		s.clear(ctx, future.Add(time.Second), key, failed(4, future)),
		s.hold(ctx, future, []string{key, known}, noCounter, account.AttemptCounter{Last: future, Networks: networks}),
		s.clear(ctx, future, key, noCounter),
		s.clear(ctx, future, known, account.AttemptCounter{Last: future, Networks: networks}),
		s.hold(ctx, future, []string{key, known}, noCounter, noCounter),
		// A new counter has nothing of the cleared one.
		s.add(ctx, key, future.Add(-time.Second), future.Add(time.Hour), true, failed(1, future.Add(-time.Second))),
	)
}

func attemptClearRace(ctx context.Context, s attemptStore) error {
	for range rounds {
		key := newDigest()
		if err := s.addN(ctx, key, 3); err != nil {
			return err
		}
		var mu sync.Mutex
		var cleared []int
		err := concurrently(8, func(int) error {
			got, err := s.Clear(ctx, future, key)
			if got.Failures != 0 {
				mu.Lock()
				defer mu.Unlock()
				cleared = append(cleared, got.Failures)
			}
			return err
		})
		if err != nil {
			return err
		}
		if !slices.Equal(cleared, []int{3}) {
			return fmt.Errorf("8 concurrent calls of Clear returned the failures %v, want 3 once", cleared)
		}
	}
	return nil
}

func attemptClearAddRace(ctx context.Context, s attemptStore) error {
	for range rounds {
		key := newDigest()
		var mu sync.Mutex
		sum := 0
		err := concurrently(8, func(i int) error {
			if i%2 == 0 {
				return s.addN(ctx, key, 2)
			}
			got, err := s.Clear(ctx, future, key)
			mu.Lock()
			defer mu.Unlock()
			sum += got.Failures
			return err
		})
		if err != nil {
			return err
		}
		left, err := s.Clear(ctx, future, key)
		if err != nil {
			return fmt.Errorf("Clear: %w", err)
		}
		if sum += left.Failures; sum != 8 {
			return fmt.Errorf("Clear returned %d of 8 failures", sum)
		}
	}
	return nil
}

func attemptRemember(ctx context.Context, s attemptStore) error {
	key, long := newDigest(), make([]string, 20)
	for i := range long {
		long[i] = newDigest()
	}
	var want account.AttemptCounter
	var end time.Time
	for i, networks := range [][]string{{"b", "a", "c"}, {"c", "b"}, {"b", "b"}, long, {}, {"a"}, nil, {"d"}} {
		// Each list expires sooner than the one before.
		now := future.Add(time.Duration(i) * time.Millisecond)
		end, want = future.Add(time.Duration(10-i)*time.Hour), account.AttemptCounter{Last: now, Networks: networks}
		if err := errors.Join(s.remember(ctx, key, networks, now, end), s.holds(ctx, now, key, want)); err != nil {
			return fmt.Errorf("after Remember of %q: %w", networks, err)
		}
	}
	if err := s.holdsUntil(ctx, end, key, want); err != nil {
		return err
	}
	counted := newDigest()
	now := future.Add(-time.Minute)
	if err := errors.Join(s.addN(ctx, counted, 3), s.remember(ctx, counted, []string{"a"}, now, future.Add(time.Minute))); err != nil {
		return err
	}
	if err := s.holdsUntil(ctx, future.Add(time.Minute), counted, account.AttemptCounter{Last: now, Networks: []string{"a"}}); err != nil {
		return fmt.Errorf("after Remember replaced failures: %w", err)
	}
	return nil
}

func attemptRememberRace(ctx context.Context, s attemptStore) error {
	for range rounds {
		key := newDigest()
		err := concurrently(8, func(i int) error {
			return s.remember(ctx, key, []string{fmt.Sprint(i), "between", fmt.Sprint(i)}, future, future.Add(time.Hour))
		})
		if err != nil {
			return err
		}
		got, err := s.Counters(ctx, future, key)
		if err != nil {
			return fmt.Errorf("Counters: %w", err)
		}
		if n := got[0].Networks; len(n) != 3 || n[0] != n[2] {
			return fmt.Errorf("after concurrent calls of Remember: Networks is %q, want one of the lists", n)
		}
	}
	return nil
}

func attemptNotShared(ctx context.Context, s attemptStore) error {
	key, networks := newDigest(), []string{"a", "b"}
	if err := s.remember(ctx, key, networks, future, future.Add(time.Hour)); err != nil {
		return err
	}
	want := account.AttemptCounter{Last: future, Networks: []string{"a", "b"}}
	networks[0] = "changed"
	if err := s.holds(ctx, future, key, want); err != nil {
		return fmt.Errorf("after a change to the list given to Remember: %w", err)
	}
	got, err := s.Counters(ctx, future, key, key)
	if err != nil {
		return fmt.Errorf("Counters: %w", err)
	}
	got[0].Networks[0] = "changed"
	if err := s.holds(ctx, future, key, want); err != nil {
		return fmt.Errorf("after a change to the list that Counters returned: %w", err)
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
	if err := errors.Join(s.clear(ctx, future, keys[2], three), hold("Clear", one, one, noCounter, four, five)); err != nil {
		return err
	}
	list := account.AttemptCounter{Last: future, Networks: []string{"a"}}
	return errors.Join(s.remember(ctx, keys[3], list.Networks, future, future.Add(time.Hour)), hold("Remember", one, one, noCounter, list, five))
}

func attemptCancelled(ctx context.Context, s attemptStore) error {
	key, known, other := newDigest(), newDigest(), newDigest()
	list := account.AttemptCounter{Last: future, Networks: []string{"a"}}
	if err := errors.Join(s.addN(ctx, key, 3), s.remember(ctx, known, list.Networks, future, future.Add(time.Hour))); err != nil {
		return err
	}
	dead := cancelledContext(ctx)
	_, counters := s.Counters(dead, future, key)
	_, add := s.Add(dead, key, future, future.Add(time.Hour), true)
	_, first := s.Add(dead, other, future, future.Add(time.Hour), false)
	_, clear := s.Clear(dead, future, key)
	for op, err := range map[string]error{
		"Counters":                 counters,
		"Add":                      add,
		"Add of the first failure": first,
		"Withdraw":                 s.Withdraw(dead, future, key, 1),
		"Clear":                    clear,
		"Remember":                 s.Remember(dead, known, []string{"b"}, future, future.Add(time.Hour)),
	} {
		if err := wantError(op, nil, err, context.Canceled); err != nil {
			return err
		}
	}
	return s.hold(ctx, future, []string{key, known, other}, failed(3, future), list, noCounter)
}
