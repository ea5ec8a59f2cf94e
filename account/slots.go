package account

import (
	"context"
	"time"
)

// slots bounds how many hashes are computed at once, and how many wait for that:
// each takes its memory and a processor, and a flood of logins must not take them
// all.
type slots struct {
	running chan struct{}
	waiting chan struct{} // those running are among them
	wait    time.Duration
}

func newSlots(atOnce, queued int, wait time.Duration) *slots {
	return &slots{make(chan struct{}, atOnce), make(chan struct{}, atOnce+queued), wait}
}

// run calls f when it is its turn. It returns ErrBusy, without calling f, where
// too many wait already or the wait is too long, and the context's error where
// nobody waits for the answer any more.
func (s *slots) run(ctx context.Context, f func()) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s.waiting <- struct{}{}:
		defer func() { <-s.waiting }()
	default:
		return ErrBusy
	}
	if err := s.turn(ctx); err != nil {
		return err
	}
	defer func() { <-s.running }()
	f()
	return nil
}

// turn waits for a free slot and takes it.
func (s *slots) turn(ctx context.Context) error {
	select {
	case s.running <- struct{}{}:
		return nil
	default:
	}
	timeout := time.NewTimer(s.wait)
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
