package strategy

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/event"
)

const (
	// touchTimeout bounds a touch, so that a database which can read but not write does not
	// hold requests up.
	touchTimeout = time.Second
	// touchRetry is how soon another request tries again after a failed touch.
	touchRetry = time.Second
)

// touchDue reports whether the caller must touch the session: nobody did within the
// interval, and no concurrent request does.
func (d *Database[U, ID]) touchDue(s *SessionInfo, now time.Time) bool {
	return d.cfg.TouchInterval > 0 && now.Sub(s.usedAt()) >= d.cfg.TouchInterval && d.touches.claim(s.ID, now, d.cfg.TouchInterval)
}

// touch stores that a session was used, and reports whether it did. A failure is only an
// event: the session may then end earlier, but never later.
//
// now must be the time at which the session was found valid. A later time could revive a
// session that a concurrent request found idle.
func (d *Database[U, ID]) touch(ctx context.Context, s *SessionInfo, digest string, now time.Time) bool {
	ctx, cancel := context.WithTimeout(ctx, touchTimeout)
	defer cancel()
	if err := d.tokens.Touch(ctx, digest, now); err != nil {
		d.touches.release(s.ID, d.now(), d.cfg.TouchInterval) // d.now: the touch may have hung
		if !gone(ctx) {
			d.emit(ctx, event.Event{Kind: event.TouchFailed, UserID: s.UserID, SessionID: s.ID, Err: fmt.Errorf("strategy: touch the token: %w", err)})
		}
		return false
	}
	return true
}

// touches remembers the sessions that this process touched within the interval. Concurrent
// requests that read a row before it was touched then write once. The zero value is ready.
type touches struct {
	mu    sync.Mutex
	last  map[uuid.UUID]time.Time
	swept time.Time
}

// claim reports whether the caller must touch a session. If so, it records the touch.
func (t *touches) claim(id uuid.UUID, now time.Time, interval time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	// Abs, because concurrent requests can lock the mutex in another order than they read
	// the clock.
	if now.Sub(t.last[id]).Abs() < interval {
		return false
	}
	if t.last == nil {
		t.last = make(map[uuid.UUID]time.Time)
	}
	// Touches older than an interval prevent no write, so drop them.
	if now.Sub(t.swept).Abs() >= interval {
		for id, at := range t.last {
			if now.Sub(at).Abs() >= interval {
				delete(t.last, id)
			}
		}
		t.swept = now
	}
	t.last[id] = now
	return true
}

// release lets another request touch the session soon after a failure.
func (t *touches) release(id uuid.UUID, now time.Time, interval time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last[id] = now.Add(min(touchRetry, interval) - interval)
}
