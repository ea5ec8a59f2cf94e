package memstore

import (
	"context"
	"errors"
	"sync"

	"github.com/latchkey-go/latchkey/strategy"
)

// maxRevocations is the number of revocations that are kept for followers.
const maxRevocations = 1 << 16

// revocations is a log of revocations. The zero value is an empty log.
type revocations[ID comparable] struct {
	mu      sync.Mutex
	dropped int // number of revocations dropped from the front
	kept    []strategy.Revocation[ID]
}

// PublishRevocation implements strategy.RevocationLog.
func (s *Tokens[ID]) PublishRevocation(ctx context.Context, r strategy.Revocation[ID]) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.revoked.publish(r)
	return nil
}

// FollowRevocations implements strategy.RevocationLog. The store keeps at least the last
// 32,768 revocations; Next fails for a follower that missed an older one.
func (s *Tokens[ID]) FollowRevocations() strategy.RevocationFollower[ID] { return s.revoked.follow() }

func (s *revocations[ID]) publish(r strategy.Revocation[ID]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) == maxRevocations {
		half := maxRevocations / 2
		s.kept = append([]strategy.Revocation[ID](nil), s.kept[half:]...)
		s.dropped += half
	}
	s.kept = append(s.kept, r)
}

func (s *revocations[ID]) follow() *follower[ID] {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &follower[ID]{s, s.dropped + len(s.kept)}
}

type follower[ID comparable] struct {
	log  *revocations[ID]
	next int // number of revocations published before the next one
}

var errBehind = errors.New("memstore: the follower missed revocations that are no longer kept")

// Next implements strategy.RevocationFollower.
func (f *follower[ID]) Next(ctx context.Context) ([]strategy.Revocation[ID], error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f.log.mu.Lock()
	defer f.log.mu.Unlock()
	if f.next < f.log.dropped {
		return nil, errBehind
	}
	found := append([]strategy.Revocation[ID](nil), f.log.kept[f.next-f.log.dropped:]...)
	f.next += len(found)
	return found, nil
}
