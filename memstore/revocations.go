package memstore

import (
	"context"
	"errors"
	"slices"
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

func (s *tokens[ID]) PublishRevocation(ctx context.Context, r strategy.Revocation[ID]) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.revoked.publish(r)
	return nil
}

// FollowRevocations keeps at least the last 32,768 revocations for followers; one that
// missed an older revocation fails.
func (s *tokens[ID]) FollowRevocations() (next func(context.Context) ([]strategy.Revocation[ID], error)) {
	return s.revoked.follow()
}

func (s *revocations[ID]) publish(r strategy.Revocation[ID]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) == maxRevocations {
		half := maxRevocations / 2
		s.kept = slices.Clone(s.kept[half:])
		s.dropped += half
	}
	s.kept = append(s.kept, r)
}

var errBehind = errors.New("memstore: the follower missed revocations that are no longer kept")

func (s *revocations[ID]) follow() func(context.Context) ([]strategy.Revocation[ID], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	read := s.dropped + len(s.kept) // number of revocations published so far
	return func(ctx context.Context) ([]strategy.Revocation[ID], error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if read < s.dropped {
			return nil, errBehind
		}
		found := slices.Clone(s.kept[read-s.dropped:])
		read += len(found)
		return found, nil
	}
}
