package storetest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/storetest"
)

// attempts is a store without a fault, until a test replaces one of its methods.
type attempts struct {
	*memstore.Attempts
	counters func(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error)
	add      func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error)
	withdraw func(ctx context.Context, now time.Time, key string, n int) error
	clear    func(ctx context.Context, key string) error
	remember func(ctx context.Context, key string, now, expires time.Time) error
}

func newAttempts(t testing.TB) *attempts {
	good, err := memstore.NewAttempts(0)
	if err != nil {
		t.Fatal(err)
	}
	return &attempts{good, good.Counters, good.Add, good.Withdraw, good.Clear, good.Remember}
}

func (s *attempts) Counters(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
	return s.counters(ctx, now, keys...)
}
func (s *attempts) Add(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
	return s.add(ctx, key, now, expires, postpone)
}
func (s *attempts) Withdraw(ctx context.Context, now time.Time, key string, n int) error {
	return s.withdraw(ctx, now, key, n)
}
func (s *attempts) Clear(ctx context.Context, key string) error { return s.clear(ctx, key) }
func (s *attempts) Remember(ctx context.Context, key string, now, expires time.Time) error {
	return s.remember(ctx, key, now, expires)
}

// read returns the counter under one key.
func (s *attempts) read(ctx context.Context, now time.Time, key string) account.AttemptCounter {
	found, err := s.Attempts.Counters(ctx, now, key)
	if err != nil {
		return account.AttemptCounter{}
	}
	return found[0]
}

// readingCounter makes Counters change the counters that it returns.
func readingCounter(change func(*account.AttemptCounter)) func(*attempts) {
	return func(s *attempts) {
		s.counters = func(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
			found, err := s.Attempts.Counters(ctx, now, keys...)
			for i := range found {
				change(&found[i])
			}
			return found, err
		}
	}
}

// expiring makes Add change the time at which a counter expires.
func expiring(change func(now, expires time.Time) time.Time) func(*attempts) {
	return func(s *attempts) {
		s.add = func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
			return s.Attempts.Add(ctx, key, now, change(now, expires), postpone)
		}
	}
}

// folding makes a store confuse keys for which fold returns the same key.
func folding(fold func(string) string) func(*attempts) {
	return func(s *attempts) {
		s.counters = func(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
			folded := make([]string, len(keys))
			for i, key := range keys {
				folded[i] = fold(key)
			}
			return s.Attempts.Counters(ctx, now, folded...)
		}
		s.add = func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
			return s.Attempts.Add(ctx, fold(key), now, expires, postpone)
		}
		s.withdraw = func(ctx context.Context, now time.Time, key string, n int) error {
			return s.Attempts.Withdraw(ctx, now, fold(key), n)
		}
		s.clear = func(ctx context.Context, key string) error { return s.Attempts.Clear(ctx, fold(key)) }
		s.remember = func(ctx context.Context, key string, now, expires time.Time) error {
			return s.Attempts.Remember(ctx, fold(key), now, expires)
		}
	}
}

// past is a time at which no counter has expired.
var past = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func TestRunAttemptsCatchesBrokenStores(t *testing.T) {
	const (
		roundTrip    = "a counter is returned as it was counted"
		order        = "counters are returned in the order of their keys"
		addRace      = "each of many concurrent failures gets a number of its own"
		forwards     = "the time of the last failure is never lowered"
		postpones    = "a counter's expiry is postponed only on request, and is never brought forward"
		expired      = "an expired counter counts as missing"
		expiredRace  = "many concurrent failures restart an expired counter once"
		withdraws    = "withdrawing subtracts, removes a counter without failures and creates none"
		withdrawRace = "concurrent withdrawals and failures add up"
		lastRace     = "concurrent withdrawals and failures leave no counter without failures"
		clears       = "clearing removes the counter"
		clearAddRace = "failures concurrent with a clear are removed or begin a new counter"
		remembers    = "remembering replaces the counter"
		rememberRace = "concurrent calls of Remember succeed"
		separate     = "keys are independent"
		cancelled    = "a cancelled context stops every method"
	)
	mustCatch(t, newAttempts, func(open func(testing.TB) *attempts) storetest.Suite {
		return storetest.Attempts(func(t testing.TB) account.AttemptStore { return open(t) })
	}, []broken[*attempts]{
		{"forgets the milliseconds", roundTrip, readingCounter(func(c *account.AttemptCounter) { c.Last = c.Last.Truncate(time.Second) })},
		{"returns local time", roundTrip, readingCounter(func(c *account.AttemptCounter) { c.Last = c.Last.In(time.FixedZone("here", 7200)) })},
		{"takes a missing time for the epoch", roundTrip, readingCounter(func(c *account.AttemptCounter) {
			if c.Last.IsZero() {
				c.Last = time.UnixMilli(0).UTC()
			}
		})},
		{"returns the counter as it was before the failure", roundTrip, func(s *attempts) {
			s.add = func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
				before := s.read(ctx, now, key)
				_, err := s.Attempts.Add(ctx, key, now, expires, postpone)
				return before, err
			}
		}},
		{"returns counters in an order of its own", order, func(s *attempts) {
			s.counters = func(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
				sorted := slices.Sorted(slices.Values(keys))
				slices.Reverse(sorted)
				return s.Attempts.Counters(ctx, now, sorted...)
			}
		}},
		{"leaves missing counters out", order, func(s *attempts) {
			s.counters = func(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
				found, err := s.Attempts.Counters(ctx, now, keys...)
				return slices.DeleteFunc(found, func(c account.AttemptCounter) bool { return c.Last.IsZero() }), err
			}
		}},
		{"returns the counter of a repeated key once", order, func(s *attempts) {
			s.counters = func(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
				found, err := s.Attempts.Counters(ctx, now, keys...)
				for i, key := range keys {
					if slices.Contains(keys[:i], key) {
						found[i] = account.AttemptCounter{}
					}
				}
				return found, err
			}
		}},
		{"returns an error for no keys", order, func(s *attempts) {
			s.counters = func(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
				if len(keys) == 0 {
					return nil, errors.New("$in needs an array")
				}
				return s.Attempts.Counters(ctx, now, keys...)
			}
		}},
		{"counts, then reads the number", addRace, func(s *attempts) {
			s.add = func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
				if _, err := s.Attempts.Add(ctx, key, now, expires, postpone); err != nil {
					return account.AttemptCounter{}, err
				}
				pause()
				return s.read(ctx, now, key), nil
			}
		}},
		{"reads the number, then writes the next", addRace, func(s *attempts) {
			s.add = func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
				want := s.read(ctx, now, key).Failures + 1
				pause()
				c, err := s.Attempts.Add(ctx, key, now, expires, postpone)
				if err == nil {
					err = s.Attempts.Withdraw(ctx, now, key, c.Failures-want)
					c.Failures = want
				}
				return c, err
			}
		}},
		{"keeps the time of the first failure", forwards, func(s *attempts) {
			s.add = func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
				if last := s.read(ctx, now, key).Last; !last.IsZero() {
					now = last
				}
				return s.Attempts.Add(ctx, key, now, expires, postpone)
			}
		}},
		{"always returns now as the time of the last failure", forwards, func(s *attempts) {
			s.add = func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
				c, err := s.Attempts.Add(ctx, key, now, expires, postpone)
				if err == nil {
					c.Last = now
				}
				return c, err
			}
		}},
		{"always postpones", postpones, func(s *attempts) {
			s.add = func(ctx context.Context, key string, now, expires time.Time, _ bool) (account.AttemptCounter, error) {
				return s.Attempts.Add(ctx, key, now, expires, true)
			}
		}},
		{"never postpones", postpones, func(s *attempts) {
			s.add = func(ctx context.Context, key string, now, expires time.Time, _ bool) (account.AttemptCounter, error) {
				return s.Attempts.Add(ctx, key, now, expires, false)
			}
		}},
		{"brings the expiry forward", postpones, func(s *attempts) {
			s.add = func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
				if !postpone {
					return s.Attempts.Add(ctx, key, now, expires, false)
				}
				c := s.read(ctx, now, key)
				err := s.Attempts.Clear(ctx, key)
				for range c.Failures + 1 {
					if err == nil {
						c, err = s.Attempts.Add(ctx, key, now, expires, true)
					}
				}
				return c, err
			}
		}},
		{"cuts the milliseconds off the expiry", postpones, expiring(func(_, expires time.Time) time.Time { return expires.Truncate(time.Second) })},
		{"expires a counter after a year", expired, expiring(func(now, _ time.Time) time.Time { return now.AddDate(1, 0, 0) })},
		{"expires a counter a millisecond late", expired, expiring(func(_, expires time.Time) time.Time { return expires.Add(time.Millisecond) })},
		{"continues an expired counter", expired, func(s *attempts) {
			s.add = func(ctx context.Context, key string, _, expires time.Time, postpone bool) (account.AttemptCounter, error) {
				return s.Attempts.Add(ctx, key, past, expires, postpone)
			}
		}},
		{"checks whether a counter has expired, then removes it", expiredRace, func(s *attempts) {
			ends := make(map[string]time.Time)
			var mu sync.Mutex
			s.add = func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
				mu.Lock()
				end := ends[key]
				ends[key] = expires
				mu.Unlock()
				if !end.IsZero() && !end.After(now) {
					pause()
					pause()
					if err := s.Attempts.Clear(ctx, key); err != nil {
						return account.AttemptCounter{}, err
					}
				} else {
					pause()
				}
				return s.Attempts.Add(ctx, key, now, expires, postpone)
			}
			s.remember = func(ctx context.Context, key string, now, expires time.Time) error {
				mu.Lock()
				defer mu.Unlock()
				ends[key] = expires
				return s.Attempts.Remember(ctx, key, now, expires)
			}
		}},
		{"withdraws nothing", withdraws, func(s *attempts) {
			s.withdraw = func(ctx context.Context, _ time.Time, _ string, _ int) error { return ctx.Err() }
		}},
		{"always withdraws 1", withdraws, func(s *attempts) {
			s.withdraw = func(ctx context.Context, now time.Time, key string, _ int) error {
				return s.Attempts.Withdraw(ctx, now, key, 1)
			}
		}},
		{"keeps a counter without failures", withdraws, func(s *attempts) {
			s.withdraw = func(ctx context.Context, now time.Time, key string, n int) error {
				before := s.read(ctx, now, key)
				if err := s.Attempts.Withdraw(ctx, now, key, n); err != nil || before.Failures == 0 || before.Failures > n {
					return err
				}
				return s.Attempts.Remember(ctx, key, before.Last, before.Last.Add(time.Hour))
			}
		}},
		{"keeps a counter with fewer failures than are withdrawn", withdraws, func(s *attempts) {
			s.withdraw = func(ctx context.Context, now time.Time, key string, n int) error {
				if s.read(ctx, now, key).Failures < n {
					return ctx.Err()
				}
				return s.Attempts.Withdraw(ctx, now, key, n)
			}
		}},
		{"creates a counter to withdraw from", withdraws, func(s *attempts) {
			s.withdraw = func(ctx context.Context, now time.Time, key string, n int) error {
				if s.read(ctx, now, key).Last.IsZero() {
					return s.Attempts.Remember(ctx, key, now, now.AddDate(1, 0, 0))
				}
				return s.Attempts.Withdraw(ctx, now, key, n)
			}
		}},
		{"takes the time of a withdrawal for that of a failure", withdraws, func(s *attempts) {
			s.withdraw = func(ctx context.Context, now time.Time, key string, n int) error {
				if s.read(ctx, now, key).Last.IsZero() {
					return ctx.Err()
				}
				if _, err := s.Attempts.Add(ctx, key, now, now, false); err != nil {
					return err
				}
				return s.Attempts.Withdraw(ctx, now, key, n+1)
			}
		}},
		{"reads the number, then writes the difference", withdrawRace, func(s *attempts) {
			s.withdraw = func(ctx context.Context, now time.Time, key string, n int) error {
				before := s.read(ctx, now, key).Failures
				pause()
				return s.Attempts.Withdraw(ctx, now, key, s.read(ctx, now, key).Failures-(before-n))
			}
		}},
		{"subtracts, then removes a counter that had no failures left", lastRace, func(s *attempts) {
			s.withdraw = func(ctx context.Context, now time.Time, key string, n int) error {
				left := s.read(ctx, now, key).Failures - n
				pause()
				if left > 0 {
					return ctx.Err() // another call will remove it
				}
				return s.Attempts.Withdraw(ctx, now, key, n)
			}
		}},
		{"clears nothing", clears, func(s *attempts) {
			s.clear = func(ctx context.Context, _ string) error { return ctx.Err() }
		}},
		{"sets the number to zero and keeps the rest", clears, func(s *attempts) {
			s.clear = func(ctx context.Context, key string) error {
				last := s.read(ctx, past, key).Last
				if last.IsZero() {
					return ctx.Err()
				}
				return s.Attempts.Remember(ctx, key, last, last.Add(time.Hour))
			}
		}},
		{"returns an error if there is nothing to clear", clears, func(s *attempts) {
			s.clear = func(ctx context.Context, key string) error {
				if s.read(ctx, past, key).Last.IsZero() {
					return errors.New("no documents in result")
				}
				return s.Attempts.Clear(ctx, key)
			}
		}},
		{"clears only what it has read", clearAddRace, func(s *attempts) {
			var calls atomic.Int64
			s.add = func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
				if calls.Add(1)%2 == 0 {
					pause()
					pause()
				}
				return s.Attempts.Add(ctx, key, now, expires, postpone)
			}
			s.clear = func(ctx context.Context, key string) error {
				pause()
				n := s.read(ctx, past, key).Failures
				pause()
				pause()
				return s.Attempts.Withdraw(ctx, past, key, n)
			}
		}},
		{"keeps the failures", remembers, func(s *attempts) {
			s.remember = func(ctx context.Context, key string, now, expires time.Time) error {
				n := s.read(ctx, past, key).Failures
				err := s.Attempts.Remember(ctx, key, now, expires)
				for range n {
					if err == nil {
						_, err = s.Attempts.Add(ctx, key, now, expires, false)
					}
				}
				return err
			}
		}},
		{"keeps the later time", remembers, func(s *attempts) {
			s.remember = func(ctx context.Context, key string, now, expires time.Time) error {
				if last := s.read(ctx, past, key).Last; last.After(now) {
					now = last
				}
				return s.Attempts.Remember(ctx, key, now, expires)
			}
		}},
		{"always remembers for an hour", remembers, func(s *attempts) {
			s.remember = func(ctx context.Context, key string, now, _ time.Time) error {
				return s.Attempts.Remember(ctx, key, now, now.Add(time.Hour))
			}
		}},
		{"returns an error if another call remembers", rememberRace, func(s *attempts) {
			var mu sync.Mutex
			s.remember = func(ctx context.Context, key string, now, expires time.Time) error {
				insert := s.read(ctx, now, key).Last.IsZero()
				pause()
				mu.Lock()
				defer mu.Unlock()
				if insert && !s.read(ctx, now, key).Last.IsZero() {
					return errors.New("duplicate key")
				}
				return s.Attempts.Remember(ctx, key, now, expires)
			}
		}},
		{"ignores case", separate, folding(strings.ToLower)},
		{"shortens keys", separate, folding(func(key string) string { return key[:min(len(key), 42)] })},
		{"reads despite a cancelled context", cancelled, func(s *attempts) {
			s.counters = func(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
				return s.Attempts.Counters(context.WithoutCancel(ctx), now, keys...)
			}
		}},
		{"counts despite a cancelled context", cancelled, func(s *attempts) {
			s.add = func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
				return s.Attempts.Add(context.WithoutCancel(ctx), key, now, expires, postpone)
			}
		}},
		{"counts, then returns the context's error", cancelled, func(s *attempts) {
			s.add = func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
				c, err := s.Attempts.Add(context.WithoutCancel(ctx), key, now, expires, postpone)
				return c, errors.Join(err, ctx.Err())
			}
		}},
		{"withdraws despite a cancelled context", cancelled, func(s *attempts) {
			s.withdraw = func(ctx context.Context, now time.Time, key string, n int) error {
				return s.Attempts.Withdraw(context.WithoutCancel(ctx), now, key, n)
			}
		}},
		{"clears despite a cancelled context", cancelled, func(s *attempts) {
			s.clear = func(ctx context.Context, key string) error {
				return s.Attempts.Clear(context.WithoutCancel(ctx), key)
			}
		}},
		{"remembers despite a cancelled context", cancelled, func(s *attempts) {
			s.remember = func(ctx context.Context, key string, now, expires time.Time) error {
				return s.Attempts.Remember(context.WithoutCancel(ctx), key, now, expires)
			}
		}},
	})
}
