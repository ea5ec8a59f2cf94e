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
	"github.com/latchkey-go/latchkey/strategy/storetest"
)

// attempts is a good store, but for the methods that a test replaces.
type attempts struct {
	*account.MemoryAttempts
	counters func(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error)
	add      func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error)
	withdraw func(ctx context.Context, now time.Time, key string, n int) error
	clear    func(ctx context.Context, now time.Time, key string) (account.AttemptCounter, error)
	remember func(ctx context.Context, key string, networks []string, now, expires time.Time) error
}

func newAttempts(t *testing.T) *attempts {
	good, err := account.NewMemoryAttempts(0)
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
	found, err := s.MemoryAttempts.Counters(ctx, now, key)
	if err != nil {
		return account.AttemptCounter{}
	}
	return found[0]
}

// reading makes a store return other counters than there are.
func reading(change func(*account.AttemptCounter)) func(*attempts) {
	return func(s *attempts) {
		s.counters = func(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
			found, err := s.MemoryAttempts.Counters(ctx, now, keys...)
			for i := range found {
				change(&found[i])
			}
			return found, err
		}
	}
}

// expiring makes a store take other ends for its counters than it is given.
func expiring(change func(now, expires time.Time) time.Time) func(*attempts) {
	return func(s *attempts) {
		s.add = func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
			return s.MemoryAttempts.Add(ctx, key, now, change(now, expires), postpone)
		}
	}
}

// folding makes a store take keys for the same that a function maps to one.
func folding(fold func(string) string) func(*attempts) {
	return func(s *attempts) {
		s.counters = func(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
			folded := make([]string, len(keys))
			for i, key := range keys {
				folded[i] = fold(key)
			}
			return s.MemoryAttempts.Counters(ctx, now, folded...)
		}
		s.add = func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
			return s.MemoryAttempts.Add(ctx, fold(key), now, expires, postpone)
		}
		s.withdraw = func(ctx context.Context, now time.Time, key string, n int) error {
			return s.MemoryAttempts.Withdraw(ctx, now, fold(key), n)
		}
		s.clear = func(ctx context.Context, now time.Time, key string) (account.AttemptCounter, error) {
			return s.MemoryAttempts.Clear(ctx, now, fold(key))
		}
		s.remember = func(ctx context.Context, key string, networks []string, now, expires time.Time) error {
			return s.MemoryAttempts.Remember(ctx, fold(key), networks, now, expires)
		}
	}
}

// never is a time that has not come when a counter expires.
var never = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func TestRunAttemptsCatchesBrokenStores(t *testing.T) {
	const (
		roundTrip    = "a counter comes back as it was counted"
		order        = "counters come back in the order of their keys"
		addRace      = "each of many that count at once gets another number"
		forwards     = "the last failure never goes backwards"
		postpones    = "a counter is postponed where that is asked for, and never brought forward"
		expired      = "what has expired counts as not there"
		expiredRace  = "many that count at once on what has expired begin at one"
		withdraws    = "withdrawing takes back, also below zero, and makes nothing"
		withdrawRace = "withdrawing and counting at once do not undo each other"
		clears       = "clearing returns the counter once and is idempotent"
		clearRace    = "one of many that clear at once gets the counter"
		clearAddRace = "each failure is in one counter that is cleared, or in what is left"
		remembers    = "a list of networks replaces what was there, in its order"
		rememberRace = "many that remember at once succeed"
		notShared    = "what a caller does to a list changes nothing"
		separate     = "keys do not affect each other"
		cancelled    = "a cancelled context stops every method"
	)
	mustCatch(t, func(t *testing.T, breakIt func(*attempts)) map[string]error {
		return storetest.AttemptResults(t.Context(), t, func(testing.TB) account.AttemptStore {
			s := newAttempts(t)
			breakIt(s)
			return s
		})
	}, []broken[*attempts]{
		{"forgets the milliseconds", roundTrip, reading(func(c *account.AttemptCounter) { c.Last = c.Last.Truncate(time.Second) })},
		{"keeps local time", roundTrip, reading(func(c *account.AttemptCounter) { c.Last = c.Last.In(time.FixedZone("here", 7200)) })},
		{"takes no time for the epoch", roundTrip, reading(func(c *account.AttemptCounter) {
			if c.Last.IsZero() {
				c.Last = time.UnixMilli(0).UTC()
			}
		})},
		{"returns the counter as it was before", roundTrip, func(s *attempts) {
			s.add = func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
				before := s.read(ctx, now, key)
				_, err := s.MemoryAttempts.Add(ctx, key, now, expires, postpone)
				return before, err
			}
		}},
		{"returns counters in the order in which it finds them", order, func(s *attempts) {
			s.counters = func(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
				sorted := slices.Sorted(slices.Values(keys))
				slices.Reverse(sorted)
				return s.MemoryAttempts.Counters(ctx, now, sorted...)
			}
		}},
		{"leaves out what is not there", order, func(s *attempts) {
			s.counters = func(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
				found, err := s.MemoryAttempts.Counters(ctx, now, keys...)
				return slices.DeleteFunc(found, func(c account.AttemptCounter) bool { return c.Last.IsZero() }), err
			}
		}},
		{"returns a counter once, though asked twice", order, func(s *attempts) {
			s.counters = func(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
				found, err := s.MemoryAttempts.Counters(ctx, now, keys...)
				for i, key := range keys {
					if slices.Contains(keys[:i], key) {
						found[i] = account.AttemptCounter{}
					}
				}
				return found, err
			}
		}},
		{"fails where it is asked for nothing", order, func(s *attempts) {
			s.counters = func(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
				if len(keys) == 0 {
					return nil, errors.New("$in needs an array")
				}
				return s.MemoryAttempts.Counters(ctx, now, keys...)
			}
		}},
		{"counts, then reads the number", addRace, func(s *attempts) {
			s.add = func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
				if _, err := s.MemoryAttempts.Add(ctx, key, now, expires, postpone); err != nil {
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
				c, err := s.MemoryAttempts.Add(ctx, key, now, expires, postpone)
				if err == nil {
					err = s.MemoryAttempts.Withdraw(ctx, now, key, c.Failures-want)
					c.Failures = want
				}
				return c, err
			}
		}},
		{"does not postpone the last failure", forwards, func(s *attempts) {
			s.add = func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
				if last := s.read(ctx, now, key).Last; !last.IsZero() {
					now = last
				}
				return s.MemoryAttempts.Add(ctx, key, now, expires, postpone)
			}
		}},
		{"says that the last failure was now", forwards, func(s *attempts) {
			s.add = func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
				c, err := s.MemoryAttempts.Add(ctx, key, now, expires, postpone)
				if err == nil {
					c.Last = now
				}
				return c, err
			}
		}},
		{"postpones unasked", postpones, func(s *attempts) {
			s.add = func(ctx context.Context, key string, now, expires time.Time, _ bool) (account.AttemptCounter, error) {
				return s.MemoryAttempts.Add(ctx, key, now, expires, true)
			}
		}},
		{"never postpones", postpones, func(s *attempts) {
			s.add = func(ctx context.Context, key string, now, expires time.Time, _ bool) (account.AttemptCounter, error) {
				return s.MemoryAttempts.Add(ctx, key, now, expires, false)
			}
		}},
		{"brings forward what it is to postpone", postpones, func(s *attempts) {
			s.add = func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
				if !postpone {
					return s.MemoryAttempts.Add(ctx, key, now, expires, false)
				}
				c, err := s.MemoryAttempts.Clear(ctx, now, key)
				for range c.Failures + 1 {
					if err == nil {
						c, err = s.MemoryAttempts.Add(ctx, key, now, expires, true)
					}
				}
				return c, err
			}
		}},
		{"counts in whole seconds until the end", postpones, expiring(func(_, expires time.Time) time.Time { return expires.Truncate(time.Second) })},
		{"forgets when a counter ends", expired, expiring(func(now, _ time.Time) time.Time { return now.AddDate(1, 0, 0) })},
		{"lets a counter live for its last millisecond", expired, expiring(func(_, expires time.Time) time.Time { return expires.Add(time.Millisecond) })},
		{"goes on from what has expired", expired, func(s *attempts) {
			s.add = func(ctx context.Context, key string, _, expires time.Time, postpone bool) (account.AttemptCounter, error) {
				return s.MemoryAttempts.Add(ctx, key, never, expires, postpone)
			}
		}},
		{"clears what has expired and returns it", expired, func(s *attempts) {
			s.clear = func(ctx context.Context, _ time.Time, key string) (account.AttemptCounter, error) {
				return s.MemoryAttempts.Clear(ctx, never, key)
			}
		}},
		{"looks whether it has expired, then removes it", expiredRace, func(s *attempts) {
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
					if _, err := s.MemoryAttempts.Clear(ctx, never, key); err != nil {
						return account.AttemptCounter{}, err
					}
				} else {
					pause()
				}
				return s.MemoryAttempts.Add(ctx, key, now, expires, postpone)
			}
			s.remember = func(ctx context.Context, key string, networks []string, now, expires time.Time) error {
				mu.Lock()
				defer mu.Unlock()
				ends[key] = expires
				return s.MemoryAttempts.Remember(ctx, key, networks, now, expires)
			}
		}},
		{"withdraws nothing", withdraws, func(s *attempts) {
			s.withdraw = func(ctx context.Context, _ time.Time, _ string, _ int) error { return ctx.Err() }
		}},
		{"withdraws one, whatever it is told", withdraws, func(s *attempts) {
			s.withdraw = func(ctx context.Context, now time.Time, key string, _ int) error {
				return s.MemoryAttempts.Withdraw(ctx, now, key, 1)
			}
		}},
		{"stops at zero", withdraws, func(s *attempts) {
			s.withdraw = func(ctx context.Context, now time.Time, key string, n int) error {
				return s.MemoryAttempts.Withdraw(ctx, now, key, max(0, min(n, s.read(ctx, now, key).Failures)))
			}
		}},
		{"makes a counter to withdraw from", withdraws, func(s *attempts) {
			s.withdraw = func(ctx context.Context, now time.Time, key string, n int) error {
				if s.read(ctx, now, key).Last.IsZero() {
					if _, err := s.MemoryAttempts.Add(ctx, key, now, now.AddDate(1, 0, 0), false); err != nil {
						return err
					}
					n++
				}
				return s.MemoryAttempts.Withdraw(ctx, now, key, n)
			}
		}},
		{"takes a withdrawal for a failure", withdraws, func(s *attempts) {
			s.withdraw = func(ctx context.Context, now time.Time, key string, n int) error {
				if s.read(ctx, now, key).Last.IsZero() {
					return ctx.Err()
				}
				if _, err := s.MemoryAttempts.Add(ctx, key, now, now, false); err != nil {
					return err
				}
				return s.MemoryAttempts.Withdraw(ctx, now, key, n+1)
			}
		}},
		{"reads the number, then writes what is left", withdrawRace, func(s *attempts) {
			s.withdraw = func(ctx context.Context, now time.Time, key string, n int) error {
				before := s.read(ctx, now, key).Failures
				pause()
				return s.MemoryAttempts.Withdraw(ctx, now, key, s.read(ctx, now, key).Failures-(before-n))
			}
		}},
		{"clears and returns nothing", clears, func(s *attempts) {
			s.clear = func(ctx context.Context, now time.Time, key string) (account.AttemptCounter, error) {
				_, err := s.MemoryAttempts.Clear(ctx, now, key)
				return account.AttemptCounter{}, err
			}
		}},
		{"does not clear what it returns", clears, func(s *attempts) {
			s.clear = func(ctx context.Context, now time.Time, key string) (account.AttemptCounter, error) {
				return s.read(ctx, now, key), ctx.Err()
			}
		}},
		{"sets the number to zero, and keeps the rest", clears, func(s *attempts) {
			s.clear = func(ctx context.Context, now time.Time, key string) (account.AttemptCounter, error) {
				c := s.read(ctx, now, key)
				return c, s.MemoryAttempts.Withdraw(ctx, now, key, c.Failures)
			}
		}},
		{"fails where there is nothing to clear", clears, func(s *attempts) {
			s.clear = func(ctx context.Context, now time.Time, key string) (account.AttemptCounter, error) {
				c, err := s.MemoryAttempts.Clear(ctx, now, key)
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
				_, err := s.MemoryAttempts.Clear(ctx, now, key)
				return c, err
			}
		}},
		{"loses what is counted while it clears", clearAddRace, func(s *attempts) {
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
				_, err := s.MemoryAttempts.Clear(ctx, now, key)
				mu.Lock()
				defer mu.Unlock()
				delete(clearing, key)
				return c, err
			}
		}},
		{"sorts the networks", remembers, func(s *attempts) {
			s.remember = func(ctx context.Context, key string, networks []string, now, expires time.Time) error {
				return s.MemoryAttempts.Remember(ctx, key, slices.Sorted(slices.Values(networks)), now, expires)
			}
		}},
		{"adds to the networks", remembers, func(s *attempts) {
			s.remember = func(ctx context.Context, key string, networks []string, now, expires time.Time) error {
				return s.MemoryAttempts.Remember(ctx, key, append(s.read(ctx, now, key).Networks, networks...), now, expires)
			}
		}},
		{"keeps ten networks", remembers, func(s *attempts) {
			s.remember = func(ctx context.Context, key string, networks []string, now, expires time.Time) error {
				return s.MemoryAttempts.Remember(ctx, key, networks[:min(len(networks), 10)], now, expires)
			}
		}},
		{"keeps the number of failures", remembers, func(s *attempts) {
			s.remember = func(ctx context.Context, key string, networks []string, now, expires time.Time) error {
				before := s.read(ctx, now, key).Failures
				return errors.Join(s.MemoryAttempts.Remember(ctx, key, networks, now, expires), s.MemoryAttempts.Withdraw(ctx, now, key, -before))
			}
		}},
		{"remembers for an hour", remembers, func(s *attempts) {
			s.remember = func(ctx context.Context, key string, networks []string, now, _ time.Time) error {
				return s.MemoryAttempts.Remember(ctx, key, networks, now, now.Add(time.Hour))
			}
		}},
		{"fails where another remembers", rememberRace, func(s *attempts) {
			var mu sync.Mutex
			s.remember = func(ctx context.Context, key string, networks []string, now, expires time.Time) error {
				insert := s.read(ctx, now, key).Last.IsZero()
				pause()
				mu.Lock()
				defer mu.Unlock()
				if insert && !s.read(ctx, now, key).Last.IsZero() {
					return errors.New("duplicate key")
				}
				return s.MemoryAttempts.Remember(ctx, key, networks, now, expires)
			}
		}},
		{"shares a list with who reads it", notShared, func(s *attempts) {
			lists := make(map[string][]string)
			var mu sync.Mutex
			s.remember = func(ctx context.Context, key string, networks []string, now, expires time.Time) error {
				mu.Lock()
				defer mu.Unlock()
				lists[key] = slices.Clone(networks)
				return s.MemoryAttempts.Remember(ctx, key, networks, now, expires)
			}
			s.counters = func(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
				mu.Lock()
				defer mu.Unlock()
				found, err := s.MemoryAttempts.Counters(ctx, now, keys...)
				for i := range found {
					if found[i].Networks != nil {
						found[i].Networks = lists[keys[i]]
					}
				}
				return found, err
			}
		}},
		{"ignores case", separate, folding(strings.ToLower)},
		{"cuts keys off", separate, folding(func(key string) string { return key[:min(len(key), 42)] })},
		{"reads in spite of the context", cancelled, func(s *attempts) {
			s.counters = func(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
				return s.MemoryAttempts.Counters(context.WithoutCancel(ctx), now, keys...)
			}
		}},
		{"counts in spite of the context", cancelled, func(s *attempts) {
			s.add = func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
				return s.MemoryAttempts.Add(context.WithoutCancel(ctx), key, now, expires, postpone)
			}
		}},
		{"counts, and then looks at the context", cancelled, func(s *attempts) {
			s.add = func(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
				c, err := s.MemoryAttempts.Add(context.WithoutCancel(ctx), key, now, expires, postpone)
				return c, errors.Join(err, ctx.Err())
			}
		}},
		{"withdraws in spite of the context", cancelled, func(s *attempts) {
			s.withdraw = func(ctx context.Context, now time.Time, key string, n int) error {
				return s.MemoryAttempts.Withdraw(context.WithoutCancel(ctx), now, key, n)
			}
		}},
		{"clears in spite of the context", cancelled, func(s *attempts) {
			s.clear = func(ctx context.Context, now time.Time, key string) (account.AttemptCounter, error) {
				return s.MemoryAttempts.Clear(context.WithoutCancel(ctx), now, key)
			}
		}},
		{"remembers in spite of the context", cancelled, func(s *attempts) {
			s.remember = func(ctx context.Context, key string, networks []string, now, expires time.Time) error {
				return s.MemoryAttempts.Remember(context.WithoutCancel(ctx), key, networks, now, expires)
			}
		}},
	})
}
