package strategy

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	// touchTimeout bounds a touch: a database that reads but does not write must
	// not hold requests up.
	touchTimeout = time.Second
	// touchRetry is how soon after a failed touch another request tries again.
	touchRetry = time.Second
)

// touchDue reports whether it falls to the caller to write down that a session is
// in use: nobody did within the interval.
func (d *Database[U, ID]) touchDue(s *SessionInfo, now time.Time) bool {
	return d.cfg.TouchInterval > 0 && now.Sub(s.usedAt()) >= d.cfg.TouchInterval && d.touches.claim(s.ID, now, d.cfg.TouchInterval)
}

// touch writes down that a session is in use, and reports whether it did. A failure
// is an event, and no more: the session then ends sooner than it might, never later.
//
// now is the time at which the session was found alive: a later one could bring it
// back after another request found it idle.
func (d *Database[U, ID]) touch(ctx context.Context, s *SessionInfo, digest string, now time.Time) bool {
	ctx, cancel := context.WithTimeout(ctx, touchTimeout)
	defer cancel()
	if err := d.tokens.Touch(ctx, digest, now); err != nil {
		d.touches.release(s.ID, d.now(), d.cfg.TouchInterval) // a touch that hung took its time
		d.emit(ctx, Event{Kind: EventTouchFailed, UserID: s.UserID, SessionID: s.ID, Err: fmt.Errorf("strategy: touch the token: %w", err)})
		return false
	}
	return true
}

// touches remembers which sessions this instance has touched within the
// interval: the many requests that read a row before the touch of one of them
// need not write it again. The zero value is ready.
type touches struct {
	mu    sync.Mutex
	last  map[uuid.UUID]time.Time
	swept time.Time
}

// claim reports whether it falls to the caller to touch a session.
func (t *touches) claim(id uuid.UUID, now time.Time, interval time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	// Requests at the same time can come here in another order than they read
	// the clock.
	if now.Sub(t.last[id]).Abs() < interval {
		return false
	}
	if t.last == nil {
		t.last = make(map[uuid.UUID]time.Time)
	}
	// What is older than an interval tells nothing any more.
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

// release lets another request try after a failure, soon.
func (t *touches) release(id uuid.UUID, now time.Time, interval time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last[id] = now.Add(min(touchRetry, interval) - interval)
}
