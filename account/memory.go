package account

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// MemoryAttempts is an [AttemptStore] in memory: for one process, and until that
// ends. Make one with [NewMemoryAttempts]. It is safe for concurrent use.
type MemoryAttempts struct {
	most int
	mu   sync.Mutex
	held map[string]heldAttempts
}

type heldAttempts struct {
	AttemptCounter
	expires time.Time
}

// NewMemoryAttempts returns an empty store that holds at most so many counters,
// of some 250 bytes each; 0 means 50,000. Beyond that, counters of few failures give
// way to new ones.
func NewMemoryAttempts(most int) (*MemoryAttempts, error) {
	if most < 0 {
		return nil, fmt.Errorf("account: the most counters are negative: %d", most)
	}
	if most == 0 {
		most = 50_000
	}
	return &MemoryAttempts{most: most, held: make(map[string]heldAttempts)}, nil
}

// at returns what is under a key and has not expired.
func (s *MemoryAttempts) at(key string, now time.Time) (heldAttempts, bool) {
	h, ok := s.held[key]
	if ok && !h.expires.After(now) {
		delete(s.held, key)
		return heldAttempts{}, false
	}
	return h, ok
}

// dispensable reports whether one should go rather than another: a flood of names
// makes counters of few failures, and must push out neither those of many nor the
// networks of those who logged in.
func (h heldAttempts) dispensable(other heldAttempts) bool {
	worth := func(h heldAttempts) int {
		if len(h.Networks) > 0 {
			return 4
		}
		return h.Failures
	}
	if a, b := worth(h), worth(other); a != b {
		return a < b
	}
	return h.expires.Before(other.expires)
}

// put keeps a counter, and makes room for it.
func (s *MemoryAttempts) put(key string, h heldAttempts) {
	if _, there := s.held[key]; !there && len(s.held) >= s.most {
		// Of a few, which a map's order makes random: looking at all would make a
		// flood of names expensive.
		victim, seen := "", 0
		for k, v := range s.held {
			if victim == "" || v.dispensable(s.held[victim]) {
				victim = k
			}
			if seen++; seen == 8 {
				break
			}
		}
		delete(s.held, victim)
	}
	s.held[key] = h
}

// Counters implements [AttemptStore].
func (s *MemoryAttempts) Counters(ctx context.Context, now time.Time, keys ...string) ([]AttemptCounter, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := make([]AttemptCounter, len(keys))
	for i, key := range keys {
		h, _ := s.at(key, now)
		found[i] = h.AttemptCounter
		found[i].Networks = slices.Clone(h.Networks)
	}
	return found, nil
}

// Add implements [AttemptStore].
func (s *MemoryAttempts) Add(ctx context.Context, key string, now, expires time.Time, postpone bool) (AttemptCounter, error) {
	if err := ctx.Err(); err != nil {
		return AttemptCounter{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.at(key, now)
	if !ok || postpone && expires.After(h.expires) {
		h.expires = expires
	}
	h.Failures++
	if now.After(h.Last) {
		h.Last = now
	}
	s.put(key, h)
	h.Networks = slices.Clone(h.Networks)
	return h.AttemptCounter, nil
}

// Withdraw implements [AttemptStore].
func (s *MemoryAttempts) Withdraw(ctx context.Context, now time.Time, key string, n int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if h, ok := s.at(key, now); ok {
		h.Failures -= n
		s.held[key] = h
	}
	return nil
}

// Clear implements [AttemptStore].
func (s *MemoryAttempts) Clear(ctx context.Context, now time.Time, key string) (AttemptCounter, error) {
	if err := ctx.Err(); err != nil {
		return AttemptCounter{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h, _ := s.at(key, now)
	delete(s.held, key)
	return h.AttemptCounter, nil
}

// Remember implements [AttemptStore].
func (s *MemoryAttempts) Remember(ctx context.Context, key string, networks []string, now, expires time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(key, heldAttempts{AttemptCounter{Last: now, Networks: slices.Clone(networks)}, expires})
	return nil
}
