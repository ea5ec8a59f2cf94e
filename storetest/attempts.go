package storetest

import (
	"context"
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
		open: func(ctx context.Context, t testing.TB) attemptStore { return attemptStore{open(t), ctx} },
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
	ctx context.Context
}

// future is the checks' time. It is so late that no server's clock takes a counter for expired.
var future = time.Date(2126, 3, 29, 1, 59, 59, 987e6, time.UTC)

// add counts a failure and checks the counter that Add returns.
func (s attemptStore) add(key string, now, expires time.Time, postpone bool, want account.AttemptCounter) {
	got, err := s.Add(s.ctx, key, now, expires, postpone)
	must("Add", err)
	sameCounter("Add", got, want)
}

// addN counts n failures at the time future; the counter expires an hour later.
func (s attemptStore) addN(key string, n int) {
	for range n {
		_, err := s.Add(s.ctx, key, future, future.Add(time.Hour), true)
		must("Add", err)
	}
}

func (s attemptStore) withdraw(now time.Time, key string, n int) {
	must("Withdraw", s.Withdraw(s.ctx, now, key, n))
}

func (s attemptStore) clear(key string) { must("Clear", s.Clear(s.ctx, key)) }

func (s attemptStore) remember(key string, now, expires time.Time) {
	must("Remember", s.Remember(s.ctx, key, now, expires))
}

// holds fails unless the store has exactly this counter under the key.
func (s attemptStore) holds(now time.Time, key string, want account.AttemptCounter) {
	s.hold(now, []string{key}, want)
}

// hold is holds for many keys.
func (s attemptStore) hold(now time.Time, keys []string, want ...account.AttemptCounter) {
	for i, got := range s.counters(now, keys...) {
		sameCounter(fmt.Sprintf("Counters, key %d", i), got, want[i])
	}
}

// counters returns one counter for each key.
func (s attemptStore) counters(now time.Time, keys ...string) []account.AttemptCounter {
	got, err := s.Counters(s.ctx, now, keys...)
	must("Counters", err)
	if len(got) != len(keys) {
		fail("Counters of %d keys returned %d", len(keys), len(got))
	}
	return got
}

var noCounter account.AttemptCounter

// failed returns a counter of n failures, the last of them at the given time.
func failed(n int, last time.Time) account.AttemptCounter {
	return account.AttemptCounter{Failures: n, Last: last}
}

func sameCounter(op string, got, want account.AttemptCounter) {
	switch {
	case got.Failures != want.Failures:
		fail("%s: Failures is %d, want %d", op, got.Failures, want.Failures)
	case !got.Last.Equal(want.Last):
		fail("%s: Last is %v, want %v", op, got.Last, want.Last)
	case got.Last.Location() != time.UTC:
		fail("%s: Last is in %v, want UTC", op, got.Last.Location())
	}
}

func attemptRoundTrip(s attemptStore) {
	for _, postpone := range []bool{true, false} {
		for _, at := range []time.Time{future, future.Truncate(time.Second), future.Add(time.Millisecond)} {
			key := newDigest()
			in("before the first failure", func() { s.holds(at, key, noCounter) })
			for n := 1; n <= 3; n++ {
				now := at.Add(time.Duration(n) * time.Millisecond)
				s.add(key, now, at.Add(time.Hour), postpone, failed(n, now))
				s.holds(now, key, failed(n, now))
			}
		}
	}
}

func attemptOrder(s attemptStore) {
	var keys []string
	for i := range 5 {
		keys = append(keys, newDigest())
		s.addN(keys[i], i+1)
	}
	known, stranger := newDigest(), newDigest()
	s.remember(known, future, future.Add(time.Hour))
	s.hold(future, keys, failed(1, future), failed(2, future), failed(3, future), failed(4, future), failed(5, future))
	s.hold(future, []string{keys[3], stranger, keys[0], known, keys[3], stranger, keys[2]},
		failed(4, future), noCounter, failed(1, future), failed(0, future), failed(4, future), noCounter, failed(3, future))
	s.hold(future, nil)
}

// addConcurrently counts n concurrent failures of a new or expired counter.
func (s attemptStore) addConcurrently(key string, n int, now time.Time, postpone bool) {
	numbers := make([]int, n)
	concurrently(n, func(i int) {
		got, err := s.Add(s.ctx, key, now, now.Add(time.Hour), postpone)
		must("Add", err)
		numbers[i] = got.Failures
	})
	slices.Sort(numbers)
	if !slices.Equal(numbers, upTo(n)) {
		fail("%d concurrent calls of Add returned %v, want each number from 1 to %d once", n, numbers, n)
	}
	s.holds(now, key, failed(n, now))
}

// upTo returns the numbers from 1 to n.
func upTo(n int) []int {
	numbers := make([]int, n)
	for i := range numbers {
		numbers[i] = i + 1
	}
	return numbers
}

func attemptAddRace(s attemptStore) {
	for _, postpone := range []bool{true, false} {
		s.addConcurrently(newDigest(), 16, future, postpone)
	}
}

func attemptForwards(s attemptStore) {
	for _, postpone := range []bool{true, false} {
		key, latest := newDigest(), time.Time{}
		for i, d := range []time.Duration{0, time.Millisecond, -time.Hour, time.Second, 0, time.Second - time.Millisecond} {
			now := future.Add(d)
			if now.After(latest) {
				latest = now
			}
			in(fmt.Sprintf("a failure at %v", now), func() {
				s.add(key, now, future.Add(time.Hour), postpone, failed(i+1, latest))
				s.holds(latest, key, failed(i+1, latest))
			})
		}
	}
}

// holdsUntil is holds for a counter that must expire exactly at end.
func (s attemptStore) holdsUntil(end time.Time, key string, want account.AttemptCounter) {
	in("a millisecond before it expires", func() { s.holds(end.Add(-time.Millisecond), key, want) })
	in("when it expires", func() { s.holds(end, key, noCounter) })
}

func attemptPostpone(s attemptStore) {
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
			s.add(key, future, future.Add(time.Hour), first, failed(1, future))
			s.add(key, future, future.Add(c.expires), c.postpone, failed(2, future))
			in(c.name, func() { s.holdsUntil(future.Add(c.ends), key, failed(2, future)) })
		}
	}
}

// expired returns the key of a counter with three failures that expires at end.
func (s attemptStore) expired(end time.Time) (key string) {
	key = newDigest()
	for n := 1; n <= 3; n++ {
		_, err := s.Add(s.ctx, key, future, end, true)
		must("Add", err)
	}
	s.holds(end.Add(-time.Millisecond), key, failed(3, future))
	return key
}

func attemptExpired(s attemptStore) {
	end := future.Add(time.Minute)
	fresh := end.Add(time.Hour)
	// Nothing of an expired counter may appear in its successor. Each method gets a counter of its
	// own, because the first call may remove it.
	for name, f := range map[string]func(key string, now time.Time){
		"Counters": func(key string, now time.Time) { s.holds(now, key, noCounter) },
		"Clear": func(key string, now time.Time) {
			s.clear(key)
			s.holds(now, key, noCounter)
			s.add(key, now, fresh, true, failed(1, now))
		},
		"Withdraw": func(key string, now time.Time) {
			s.withdraw(now, key, 2)
			s.holds(now, key, noCounter)
			s.add(key, now, fresh, true, failed(1, now))
		},
		"Add": func(key string, now time.Time) {
			s.add(key, now, fresh, false, failed(1, now))
			s.add(key, now, fresh, false, failed(2, now))
			s.holdsUntil(fresh, key, failed(2, now))
		},
		"Add with postpone": func(key string, now time.Time) {
			s.add(key, now, fresh, true, failed(1, now))
			s.holdsUntil(fresh, key, failed(1, now))
		},
		"Remember": func(key string, now time.Time) {
			s.remember(key, now, fresh)
			s.holdsUntil(fresh, key, failed(0, now))
		},
	} {
		for _, late := range []time.Duration{0, time.Millisecond, time.Minute} {
			key := s.expired(end)
			in(fmt.Sprintf("%s, %v after a counter expired", name, late), func() { f(key, end.Add(late)) })
		}
	}
	// The same holds for a counter that Remember made.
	key := newDigest()
	s.remember(key, future, end)
	in("after a remembered counter expired", func() { s.add(key, end, fresh, true, failed(1, end)) })
	s.holds(end, key, failed(1, end))
}

func attemptExpiredRace(s attemptStore) {
	end := future.Add(time.Minute)
	for round := range rounds {
		s.addConcurrently(s.expired(end), 8, end, round%2 == 0)
	}
}

func attemptWithdraw(s attemptStore) {
	key, stranger := newDigest(), newDigest()
	s.addN(key, 7)
	s.withdraw(future, stranger, 2)
	now := future.Add(time.Second) // Last must stay future
	for _, c := range []struct{ n, left int }{{1, 6}, {2, 4}, {3, 1}} {
		s.withdraw(now, key, c.n)
		in(fmt.Sprintf("after a Withdraw of %d", c.n), func() { s.holds(now, key, failed(c.left, future)) })
	}
	// The counter's expiry must stay too.
	s.add(key, now, future.Add(time.Hour), false, failed(2, now))
	s.holdsUntil(future.Add(time.Hour), key, failed(2, now))
	s.holds(future, stranger, noCounter)
	s.add(stranger, future, future.Add(time.Hour), true, failed(1, future))

	for _, c := range []struct{ failures, n int }{{1, 1}, {1, 2}, {3, 3}, {3, 9}} {
		key := newDigest()
		s.addN(key, c.failures)
		s.withdraw(future, key, c.n)
		in(fmt.Sprintf("after a Withdraw of %d from %d", c.n, c.failures), func() { s.holds(future, key, noCounter) })
		// A new counter has nothing of the removed one.
		earlier := future.Add(-time.Second)
		s.add(key, earlier, future.Add(time.Minute), true, failed(1, earlier))
		s.holdsUntil(future.Add(time.Minute), key, failed(1, earlier))
	}
}

func attemptWithdrawRace(s attemptStore) {
	for range rounds {
		key := newDigest()
		s.addN(key, 12)
		concurrently(8, func(i int) {
			if i%2 == 0 {
				s.withdraw(future, key, 2)
			} else {
				s.addN(key, 1)
			}
		})
		in("after 16 failures and 4 withdrawals of 2", func() { s.holds(future, key, failed(8, future)) })
	}
}

// Each call adds a failure and withdraws it, so that the counter falls to 0 at any time.
func attemptWithdrawLastRace(s attemptStore) {
	for range rounds {
		key := newDigest()
		concurrently(8, func(int) {
			s.addN(key, 1)
			s.withdraw(future, key, 1)
		})
		in("after 8 failures and 8 withdrawals of 1", func() { s.holds(future, key, noCounter) })
	}
}

func attemptClear(s attemptStore) {
	key, known := newDigest(), newDigest()
	s.addN(key, 4)
	s.remember(known, future, future.Add(time.Hour))
	s.clear(key)
	s.hold(future, []string{key, known}, noCounter, failed(0, future))
	s.clear(key)
	s.clear(known)
	s.hold(future, []string{key, known}, noCounter, noCounter)
	// A new counter has nothing of the cleared one.
	s.add(key, future.Add(-time.Second), future.Add(time.Hour), true, failed(1, future.Add(-time.Second)))
}

func attemptClearAddRace(s attemptStore) {
	for range rounds {
		key := newDigest()
		var mu sync.Mutex
		var numbers []int
		concurrently(8, func(i int) {
			if i == 3 {
				s.clear(key)
				return
			}
			got, err := s.Add(s.ctx, key, future, future.Add(time.Hour), true)
			must("Add", err)
			mu.Lock()
			defer mu.Unlock()
			numbers = append(numbers, got.Failures)
		})
		// The failures before the clear, and those after it, were counted from 1.
		after := s.counters(future, key)[0].Failures
		want := append(upTo(max(0, len(numbers)-after)), upTo(after)...)
		slices.Sort(numbers)
		slices.Sort(want)
		if !slices.Equal(numbers, want) {
			fail("7 concurrent calls of Add beside one of Clear returned %v and left %d failures, want %v", numbers, after, want)
		}
	}
}

func attemptRemember(s attemptStore) {
	key := newDigest()
	for i := range 3 {
		// Each time it expires sooner than before.
		now := future.Add(time.Duration(i) * time.Millisecond)
		in(fmt.Sprintf("Remember %d", i+1), func() {
			s.remember(key, now, future.Add(time.Duration(10-i)*time.Hour))
			s.holds(now, key, failed(0, now))
		})
	}
	s.holdsUntil(future.Add(8*time.Hour), key, failed(0, future.Add(2*time.Millisecond)))
	// It can expire later too.
	s.remember(key, future, future.Add(2000*time.Hour))
	s.holdsUntil(future.Add(2000*time.Hour), key, failed(0, future))

	counted, now := newDigest(), future.Add(-time.Minute)
	s.addN(counted, 3)
	s.remember(counted, now, future.Add(time.Minute))
	in("after Remember replaced failures", func() { s.holdsUntil(future.Add(time.Minute), counted, failed(0, now)) })
}

func attemptRememberRace(s attemptStore) {
	for range rounds {
		key := newDigest()
		concurrently(8, func(int) { s.remember(key, future, future.Add(time.Hour)) })
		in("after concurrent calls of Remember", func() { s.holdsUntil(future.Add(time.Hour), key, failed(0, future)) })
	}
}

func attemptSeparate(s attemptStore) {
	// Digests that differ in the case of a letter, or in their beginning or end.
	digest := strings.Repeat("aZ-_", 11)[:43]
	keys := []string{digest, strings.ToLower(digest), strings.ToUpper(digest), digest[:42] + "_", "A" + digest[1:]}
	for i, key := range keys {
		s.addN(key, i+1)
	}
	one, two, three, four, five := failed(1, future), failed(2, future), failed(3, future), failed(4, future), failed(5, future)
	in("after Add", func() { s.hold(future, keys, one, two, three, four, five) })
	s.withdraw(future, keys[1], 1)
	in("after Withdraw", func() { s.hold(future, keys, one, one, three, four, five) })
	s.clear(keys[2])
	in("after Clear", func() { s.hold(future, keys, one, one, noCounter, four, five) })
	s.remember(keys[3], future, future.Add(time.Hour))
	in("after Remember", func() { s.hold(future, keys, one, one, noCounter, failed(0, future), five) })
}

func attemptCancelled(s attemptStore) {
	key, known, other := newDigest(), newDigest(), newDigest()
	s.addN(key, 3)
	s.remember(known, future, future.Add(time.Hour))
	dead := cancelled(s.ctx)
	_, counters := s.Counters(dead, future, key)
	_, add := s.Add(dead, key, future, future.Add(time.Hour), true)
	_, first := s.Add(dead, other, future, future.Add(time.Hour), false)
	wantErrors(context.Canceled, map[string]error{
		"Counters":                 counters,
		"Add":                      add,
		"Add of the first failure": first,
		"Withdraw":                 s.Withdraw(dead, future, key, 1),
		"Clear":                    s.Clear(dead, key),
		"Remember":                 s.Remember(dead, known, future.Add(time.Second), future.Add(time.Hour)),
	})
	s.hold(future, []string{key, known, other}, failed(3, future), failed(0, future), noCounter)
}
