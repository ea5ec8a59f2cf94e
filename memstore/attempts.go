package memstore

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/account"
)

// Attempts is an account.AttemptStore in memory. Its counters are those of one
// process, and end with it. Make one with [NewAttempts]. It is safe for concurrent
// use.
type Attempts struct{ account.AttemptStore }

type attempts struct {
	most     int
	mu       sync.Mutex
	counters map[string]counter
}

type counter struct {
	account.AttemptCounter
	expires time.Time
}

// NewAttempts returns an empty store that holds at most the given number of counters,
// about 250 bytes each; 0 means 50,000. When it is full, a new counter replaces one
// with few failures. It returns an error if most is negative.
func NewAttempts(most int) (*Attempts, error) {
	if most < 0 {
		return nil, fmt.Errorf("memstore: the maximum number of counters is negative: %d", most)
	}
	if most == 0 {
		most = 50_000
	}
	return &Attempts{&attempts{most: most, counters: make(map[string]counter)}}, nil
}

// live returns the counter under a key, if it has not expired.
func (s *attempts) live(key string, now time.Time) (counter, bool) {
	c, ok := s.counters[key]
	if ok && !c.expires.After(now) {
		delete(s.counters, key)
		return counter{}, false
	}
	return c, ok
}

// lessUseful reports whether c should be evicted rather than other. A flood of made-up
// names creates counters with few failures; it must not evict counters with many
// failures, or the known devices of an account.
func (c counter) lessUseful(other counter) bool {
	worth := func(c counter) int {
		if c.Failures == 0 { // made by Remember
			return 4
		}
		return c.Failures
	}
	if a, b := worth(c), worth(other); a != b {
		return a < b
	}
	return c.expires.Before(other.expires)
}

// put stores a counter and evicts another one if the store is full.
func (s *attempts) put(key string, c counter) {
	if _, exists := s.counters[key]; !exists && len(s.counters) >= s.most {
		// The victim is the least useful of eight random counters (map order is
		// random). Comparing all of them would make a flood of names expensive.
		victim, seen := "", 0
		for k, v := range s.counters {
			if victim == "" || v.lessUseful(s.counters[victim]) {
				victim = k
			}
			if seen++; seen == 8 {
				break
			}
		}
		delete(s.counters, victim)
	}
	s.counters[key] = c
}

func (s *attempts) Counters(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := make([]account.AttemptCounter, len(keys))
	for i, key := range keys {
		c, _ := s.live(key, now)
		found[i] = c.AttemptCounter
	}
	return found, nil
}

func (s *attempts) Add(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
	if err := ctx.Err(); err != nil {
		return account.AttemptCounter{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.live(key, now)
	if !ok || postpone && expires.After(c.expires) {
		c.expires = expires
	}
	c.Failures++
	if now.After(c.Last) {
		c.Last = now
	}
	s.put(key, c)
	return c.AttemptCounter, nil
}

func (s *attempts) Withdraw(ctx context.Context, now time.Time, key string, n int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch c, ok := s.live(key, now); {
	case ok && c.Failures > n:
		c.Failures -= n
		s.counters[key] = c
	case ok:
		delete(s.counters, key)
	}
	return nil
}

func (s *attempts) Clear(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.counters, key)
	return nil
}

func (s *attempts) Remember(ctx context.Context, key string, now, expires time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(key, counter{account.AttemptCounter{Last: now}, expires})
	return nil
}
