package account

import (
	"context"
	"time"
)

// semaphore limits concurrent hashes and the queue in front of them. Each hash takes
// memory and a processor; without the limit, a flood of logins could take all of them.
type semaphore struct {
	running chan struct{}
	present chan struct{} // running or in the queue
	maxWait time.Duration
}

func newSemaphore(concurrent, queued int, maxWait time.Duration) *semaphore {
	return &semaphore{
		running: make(chan struct{}, concurrent),
		present: make(chan struct{}, concurrent+queued),
		maxWait: maxWait,
	}
}

// run calls f when the semaphore has a free slot. It returns ErrBusy without calling f if
// the queue is full or the wait is too long, and the context's error if that is done
// first.
func (s *semaphore) run(ctx context.Context, f func()) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s.present <- struct{}{}:
		defer func() { <-s.present }()
	default:
		return ErrBusy
	}
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer func() { <-s.running }()
	f()
	return nil
}

func (s *semaphore) acquire(ctx context.Context) error {
	select {
	case s.running <- struct{}{}:
		return nil
	default:
	}
	timeout := time.NewTimer(s.maxWait)
	defer timeout.Stop()
	select {
	case s.running <- struct{}{}:
		return nil
	case <-timeout.C:
		return ErrBusy
	case <-ctx.Done():
		return ctx.Err()
	}
}
