package account

import (
	"context"
)

// AnswerLead is how long a message waits before it is made.
const AnswerLead = answerLead

// Verify checks a password against a stored hash as a login does. Hashes with other than
// its cheap parameters are outdated.
func Verify(password, hash string) (ok, outdated bool, err error) {
	h, err := newHasher(Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, true)
	if err != nil {
		return false, false, err
	}
	return h.verify(context.Background(), password, NewPasswordHash(hash))
}

// Usable returns why Verify cannot verify a hash, or nil.
func Usable(hash string) error {
	h, err := newHasher(Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, true)
	if err == nil {
		_, err = h.parse(hash)
	}
	return err
}

// Semaphore, NewSemaphore and Run give tests the semaphore around hashes.
type Semaphore = semaphore

var NewSemaphore = newSemaphore

func (s *Semaphore) Run(ctx context.Context, f func()) error { return s.run(ctx, f) }

// NetworksOf returns the networks that the limiter counts an IP address by.
var NetworksOf = networksOf

// Queues returns the number of accounts and devices that have attempts in flight.
func (m *Manager[U, ID]) Queues() int {
	m.limiter.queues.mu.Lock()
	defer m.limiter.queues.mu.Unlock()
	return len(m.limiter.queues.byKey)
}

// RunHash calls f in the semaphore around hashes.
func (m *Manager[U, ID]) RunHash(ctx context.Context, f func()) error { return m.semaphore.run(ctx, f) }
