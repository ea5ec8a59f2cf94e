package account

import (
	"context"
	"sync"
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

const (
	// queueWait is the longest time that an attempt waits for earlier ones on the same
	// account.
	queueWait = 3 * time.Second
	// maxQueued is the number of attempts that can wait for one on the same account.
	maxQueued = 255
)

// queues has a queue for each key: calls with the same key run one at a time.
type queues struct {
	mu    sync.Mutex
	byKey map[string]*queue
}

type queue struct {
	*semaphore
	users int // calls that run or wait
}

// run calls f when it is the call's turn; see semaphore.run for its errors.
func (q *queues) run(ctx context.Context, key string, f func()) error {
	own := q.join(key)
	defer q.leave(key, own)
	return own.run(ctx, f)
}

func (q *queues) join(key string) *queue {
	q.mu.Lock()
	defer q.mu.Unlock()
	own := q.byKey[key]
	if own == nil {
		own = &queue{semaphore: newSemaphore(1, maxQueued, queueWait)}
		q.byKey[key] = own
	}
	own.users++
	return own
}

func (q *queues) leave(key string, own *queue) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if own.users--; own.users == 0 {
		delete(q.byKey, key)
	}
}
