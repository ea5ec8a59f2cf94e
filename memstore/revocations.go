package memstore

import (
	"context"
	"errors"
	"sync"

	"github.com/latchkey-go/latchkey/strategy"
)

// maxRevocations is how many revocations are kept for followers.
const maxRevocations = 1 << 16

// revocations are what was published. The zero value is empty.
type revocations[ID comparable] struct {
	mu      sync.Mutex
	dropped int
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

// FollowRevocations implements strategy.RevocationLog. A follower that is more than
// 32,768 revocations behind is refused.
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
	next int
}

var errBehind = errors.New("memstore: the follower is too far behind")

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
