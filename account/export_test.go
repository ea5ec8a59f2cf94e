package account

import (
	"context"
)

// Verify checks a password against a stored hash as a login does, with cheap
// parameters of the day.
func Verify(password, hash string) (ok, outdated bool, err error) {
	h, err := newHasher(Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, true)
	if err != nil {
		return false, false, err
	}
	return h.verify(password, PasswordHash(hash))
}

// Slots are those that hashes run in.
type Slots = slots

// NewSlots makes them.
var NewSlots = newSlots

// Run runs f in a slot.
func (s *Slots) Run(ctx context.Context, f func()) error { return s.run(ctx, f) }

// NetworkOf is the network that an address is counted by.
var NetworkOf = networkOf

// InFlight returns the number of accounts, and of pairs of account and network, that
// have attempts in flight.
func (m *Manager[U, ID]) InFlight() int {
	n := 0
	for _, s := range []*herds{&m.limiter.herds, &m.limiter.turns} {
		s.mu.Lock()
		n += len(s.of)
		s.mu.Unlock()
	}
	return n
}
