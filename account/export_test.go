package account

import (
	"context"
)

// Verify checks a password against a stored hash as a login does. Hashes with other than
// its cheap parameters are outdated.
func Verify(password, hash string) (ok, outdated bool, err error) {
	h, err := newHasher(Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, true)
	if err != nil {
		return false, false, err
	}
	return h.verify(password, PasswordHash(hash))
}

// Semaphore, NewSemaphore and Run give tests the semaphore around hashes.
type Semaphore = semaphore

var NewSemaphore = newSemaphore

func (s *Semaphore) Run(ctx context.Context, f func()) error { return s.run(ctx, f) }

// NetworkOf returns the network that the limiter counts an IP address by.
var NetworkOf = networkOf

// InFlight returns the number of accounts, and of pairs of account and network, that
// have attempts in flight.
func (m *Manager[U, ID]) InFlight() int {
	n := 0
	for _, s := range []*inFlight{&m.limiter.accounts, &m.limiter.pairs} {
		s.mu.Lock()
		n += len(s.groups)
		s.mu.Unlock()
	}
	return n
}
