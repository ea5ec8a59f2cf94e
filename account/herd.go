package account

import (
	"context"
	"sync"
	"time"
)

const (
	// herdWait is how long an attempt waits for others on the same account to end.
	herdWait = 3 * time.Second
	// maxHerd is how many may wait for that.
	maxHerd = 256
)

// herds are the attempts of this process that are under way, by account. One that
// the limiter refuses only because others are under way, which count as failures
// until they end, waits for that: a program that logs in many times at once with
// the right password has not failed.
type herds struct {
	mu sync.Mutex
	of map[string]*herd
}

type herd struct {
	present  int           // under way, trying or waiting
	underWay int           // let through by the limiter
	ends     int           // how many of those have ended
	changed  chan struct{} // closed when the next of them ends
	turn     chan struct{} // full while it is somebody's turn
	cleared  int           // how often a success cleared the counter, known in turn
}

// join returns the herd of an account. Every join wants a leave.
func (s *herds) join(account string) *herd {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.of[account]
	if h == nil {
		h = &herd{changed: make(chan struct{}), turn: make(chan struct{}, 1)}
		if s.of == nil {
			s.of = make(map[string]*herd)
		}
		s.of[account] = h
	}
	h.present++
	return h
}

func (s *herds) leave(account string, h *herd) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.present--; h.present == 0 {
		delete(s.of, account)
	}
}

// begun and ended enclose an attempt that the limiter let through.
func (s *herds) begun(h *herd) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.underWay++
}

func (s *herds) ended(h *herd) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.underWay--
	h.ends++
	close(h.changed)
	h.changed = make(chan struct{})
}

// soFar is how many have ended.
func (s *herds) soFar(h *herd) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return h.ends
}

// wait waits until more have ended than that. It reports whether there is
// anything new: nothing is where nobody is under way.
func (s *herds) wait(ctx context.Context, h *herd, ends int) bool {
	s.mu.Lock()
	changed, news, hope := h.changed, h.ends > ends, h.underWay > 0 && h.present <= maxHerd
	s.mu.Unlock()
	if news || !hope {
		return news && ctx.Err() == nil
	}
	select {
	case <-changed:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
