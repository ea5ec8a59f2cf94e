package storetest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
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
	clear    func(ctx context.Context, now time.Time, key string) (account.AttemptCounter, error)
	remember func(ctx context.Context, key string, networks []string, now, expires time.Time) error
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
func (s *attempts) Clear(ctx context.Context, now time.Time, key string) (account.AttemptCounter, error) {
	return s.clear(ctx, now, key)
}
func (s *attempts) Remember(ctx context.Context, key string, networks []string, now, expires time.Time) error {
	return s.remember(ctx, key, networks, now, expires)
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
		s.clear = func(ctx context.Context, now time.Time, key string) (account.AttemptCounter, error) {
			return s.Attempts.Clear(ctx, now, fold(key))
		}
		s.remember = func(ctx context.Context, key string, networks []string, now, expires time.Time) error {
			return s.Attempts.Remember(ctx, fold(key), networks, now, expires)
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
		withdraws    = "withdrawing subtracts, also below zero, and creates no counter"
		withdrawRace = "concurrent withdrawals and failures add up"
		clears       = "clearing returns the counter once"
		clearRace    = "one of many concurrent clears gets the counter"
		clearAddRace = "failures concurrent with a clear are cleared or stay"
		remembers    = "a list of networks replaces the counter and keeps its order"
		rememberRace = "concurrent calls of Remember succeed"
		notShared    = "lists share no memory with the caller"
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
				c, err := s.Attempts.Clear(ctx, now, key)
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
		{"returns an expired counter when it clears it", expired, func(s *attempts) {
			s.clear = func(ctx context.Context, _ time.Time, key string) (account.AttemptCounter, error) {
				return s.Attempts.Clear(ctx, past, key)
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
					if _, err := s.Attempts.Clear(ctx, past, key); err != nil {
						return account.AttemptCounter{}, err
					}
				} else {
					pause()
				}
				return s.Attempts.Add(ctx, key, now, expires, postpone)
			}
			s.remember = func(ctx context.Context, key string, networks []string, now, expires time.Time) error {
				mu.Lock()
				defer mu.Unlock()
				ends[key] = expires
				return s.Attempts.Remember(ctx, key, networks, now, expires)
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
		{"stops at zero", withdraws, func(s *attempts) {
			s.withdraw = func(ctx context.Context, now time.Time, key string, n int) error {
				return s.Attempts.Withdraw(ctx, now, key, max(0, min(n, s.read(ctx, now, key).Failures)))
			}
		}},
		{"creates a counter to withdraw from", withdraws, func(s *attempts) {
			s.withdraw = func(ctx context.Context, now time.Time, key string, n int) error {
				if s.read(ctx, now, key).Last.IsZero() {
					if _, err := s.Attempts.Add(ctx, key, now, now.AddDate(1, 0, 0), false); err != nil {
						return err
					}
					n++
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
		{"does not return the cleared counter", clears, func(s *attempts) {
			s.clear = func(ctx context.Context, now time.Time, key string) (account.AttemptCounter, error) {
				_, err := s.Attempts.Clear(ctx, now, key)
				return account.AttemptCounter{}, err
			}
		}},
		{"returns a counter without clearing it", clears, func(s *attempts) {
			s.clear = func(ctx context.Context, now time.Time, key string) (account.AttemptCounter, error) {
				return s.read(ctx, now, key), ctx.Err()
			}
		}},
		{"sets the number to zero and keeps the rest", clears, func(s *attempts) {
			s.clear = func(ctx context.Context, now time.Time, key string) (account.AttemptCounter, error) {
				c := s.read(ctx, now, key)
				return c, s.Attempts.Withdraw(ctx, now, key, c.Failures)
			}
		}},
		{"returns an error if there is nothing to clear", clears, func(s *attempts) {
			s.clear = func(ctx context.Context, now time.Time, key string) (account.AttemptCounter, error) {
				c, err := s.Attempts.Clear(ctx, now, key)
				if err == nil && c.Last.IsZero() {
					err = errors.New("no documents in result")
				}
				return c, err
			}
		}},
		{"reads a counter, then clears it", clearRace, func(s *attempts) {
			s.clear = func(ctx context.Context, now time.Time, key string) (account.AttemptCounter, error) {
				c := s.read(ctx, now, key)
				pause()
				_, err := s.Attempts.Clear(ctx, now, key)
				return c, err
			}
		}},
		{"loses failures counted while it clears", clearAddRace, func(s *attempts) {
			var mu sync.Mutex
			clearing := make(map[string]bool)
			s.clear = func(ctx context.Context, now time.Time, key string) (account.AttemptCounter, error) {
				mu.Lock()
				busy := clearing[key]
				clearing[key] = true
				mu.Unlock()
				if busy {
					return account.AttemptCounter{}, ctx.Err()
				}
				c := s.read(ctx, now, key)
				pause()
				_, err := s.Attempts.Clear(ctx, now, key)
				mu.Lock()
				defer mu.Unlock()
				delete(clearing, key)
				return c, err
			}
		}},
		{"sorts the networks", remembers, func(s *attempts) {
			s.remember = func(ctx context.Context, key string, networks []string, now, expires time.Time) error {
				return s.Attempts.Remember(ctx, key, slices.Sorted(slices.Values(networks)), now, expires)
			}
		}},
		{"appends to the networks", remembers, func(s *attempts) {
			s.remember = func(ctx context.Context, key string, networks []string, now, expires time.Time) error {
				return s.Attempts.Remember(ctx, key, append(s.read(ctx, now, key).Networks, networks...), now, expires)
			}
		}},
		{"keeps only ten networks", remembers, func(s *attempts) {
			s.remember = func(ctx context.Context, key string, networks []string, now, expires time.Time) error {
				return s.Attempts.Remember(ctx, key, networks[:min(len(networks), 10)], now, expires)
			}
		}},
		{"keeps the failures with a list", remembers, func(s *attempts) {
			s.remember = func(ctx context.Context, key string, networks []string, now, expires time.Time) error {
				before := s.read(ctx, now, key).Failures
				return errors.Join(s.Attempts.Remember(ctx, key, networks, now, expires), s.Attempts.Withdraw(ctx, now, key, -before))
			}
		}},
		{"always remembers for an hour", remembers, func(s *attempts) {
			s.remember = func(ctx context.Context, key string, networks []string, now, _ time.Time) error {
				return s.Attempts.Remember(ctx, key, networks, now, now.Add(time.Hour))
			}
		}},
		{"returns an error if another call remembers", rememberRace, func(s *attempts) {
			var mu sync.Mutex
			s.remember = func(ctx context.Context, key string, networks []string, now, expires time.Time) error {
				insert := s.read(ctx, now, key).Last.IsZero()
				pause()
				mu.Lock()
				defer mu.Unlock()
				if insert && !s.read(ctx, now, key).Last.IsZero() {
					return errors.New("duplicate key")
				}
				return s.Attempts.Remember(ctx, key, networks, now, expires)
			}
		}},
		{"shares a list with its readers", notShared, func(s *attempts) {
			lists := make(map[string][]string)
			var mu sync.Mutex
			s.remember = func(ctx context.Context, key string, networks []string, now, expires time.Time) error {
				mu.Lock()
				defer mu.Unlock()
				lists[key] = slices.Clone(networks)
				return s.Attempts.Remember(ctx, key, networks, now, expires)
			}
			s.counters = func(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
				mu.Lock()
				defer mu.Unlock()
				found, err := s.Attempts.Counters(ctx, now, keys...)
				for i := range found {
					if found[i].Networks != nil {
						found[i].Networks = lists[keys[i]]
					}
				}
				return found, err
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
			s.clear = func(ctx context.Context, now time.Time, key string) (account.AttemptCounter, error) {
				return s.Attempts.Clear(context.WithoutCancel(ctx), now, key)
			}
		}},
		{"remembers despite a cancelled context", cancelled, func(s *attempts) {
			s.remember = func(ctx context.Context, key string, networks []string, now, expires time.Time) error {
				return s.Attempts.Remember(context.WithoutCancel(ctx), key, networks, now, expires)
			}
		}},
	})
}
