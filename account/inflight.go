package account

import (
	"context"
	"sync"
	"time"
)

const (
	// inFlightWait is the longest time that an attempt waits for others on the same
	// account to finish.
	inFlightWait = 3 * time.Second
	// maxInFlight is the number of attempts on an account at which no more may wait.
	maxInFlight = 256
)

// inFlight tracks this process's attempts in flight, in groups by key.
//
// An attempt counts as a failure until it finishes. If the limiter rejects an attempt
// while others on the account are in flight, the attempt waits for one of them to finish:
// a program that logs in many times concurrently with the right password has not failed.
type inFlight struct {
	mu     sync.Mutex
	groups map[string]*group
}

// group is the attempts in flight with the same key.
type group struct {
	present  int           // attempts that wait or were admitted
	admitted int           // attempts that were admitted and have not finished
	finished int           // attempts that were admitted and have finished
	changed  chan struct{} // closed when the next attempt finishes
	lock     chan struct{} // a mutex for the counters; holds a value while locked
	cleared  int           // number of successes that cleared the counters; guarded by lock
}

// join adds an attempt to the group of a key. The caller must call leave.
func (s *inFlight) join(key string) *group {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[key]
	if g == nil {
		g = &group{changed: make(chan struct{}), lock: make(chan struct{}, 1)}
		if s.groups == nil {
			s.groups = make(map[string]*group)
		}
		s.groups[key] = g
	}
	g.present++
	return g
}

// leave removes an attempt from its group, and the last one removes the group.
func (s *inFlight) leave(key string, g *group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.present--; g.present == 0 {
		delete(s.groups, key)
	}
}

// admit records that the limiter admitted an attempt. The caller must call finish.
func (s *inFlight) admit(g *group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.admitted++
}

// finish records the end of an admitted attempt.
func (s *inFlight) finish(g *group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.admitted--
	g.finished++
	close(g.changed)
	g.changed = make(chan struct{})
}

// finished returns the number of attempts that have finished.
func (s *inFlight) finished(g *group) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return g.finished
}

// wait waits until more than the given number of attempts have finished, and reports
// whether they have. It returns false at once if no attempt is in flight, or too many
// are waiting.
func (s *inFlight) wait(ctx context.Context, g *group, finished int) bool {
	s.mu.Lock()
	changed, done, worthwhile := g.changed, g.finished > finished, g.admitted > 0 && g.present <= maxInFlight
	s.mu.Unlock()
	if done || !worthwhile {
		return done && ctx.Err() == nil
	}
	select {
	case <-changed:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
