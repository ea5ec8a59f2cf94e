package memstore

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/strategy"
)

// Tokens is a strategy.Store in memory. Make one with [NewTokens]. It is safe
// for concurrent use.
type Tokens[ID comparable] struct {
	mu       sync.RWMutex
	byDigest map[string]strategy.AccessToken[ID]
	ids      map[uuid.UUID]struct{}
}

var _ strategy.Store[int64] = (*Tokens[int64])(nil)

// NewTokens returns an empty store.
func NewTokens[ID comparable]() *Tokens[ID] {
	return &Tokens[ID]{
		byDigest: make(map[string]strategy.AccessToken[ID]),
		ids:      make(map[uuid.UUID]struct{}),
	}
}

// Insert implements strategy.Store.
func (s *Tokens[ID]) Insert(ctx context.Context, token strategy.AccessToken[ID]) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, digestTaken := s.byDigest[token.Digest]
	_, idTaken := s.ids[token.ID]
	if digestTaken || idTaken {
		return strategy.ErrDuplicateToken
	}
	s.byDigest[token.Digest] = token
	s.ids[token.ID] = struct{}{}
	return nil
}

// ByToken implements strategy.Store.
func (s *Tokens[ID]) ByToken(ctx context.Context, digest string, createdAfter time.Time) (strategy.AccessToken[ID], error) {
	if err := ctx.Err(); err != nil {
		return strategy.AccessToken[ID]{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	token, ok := s.byDigest[digest]
	if !ok || token.CreatedAt.Before(createdAfter) {
		return strategy.AccessToken[ID]{}, strategy.ErrTokenNotFound
	}
	return token, nil
}

// Delete implements strategy.Store.
func (s *Tokens[ID]) Delete(ctx context.Context, digest string) (strategy.AccessToken[ID], error) {
	if err := ctx.Err(); err != nil {
		return strategy.AccessToken[ID]{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	token, ok := s.byDigest[digest]
	if !ok {
		return strategy.AccessToken[ID]{}, strategy.ErrTokenNotFound
	}
	delete(s.byDigest, digest)
	delete(s.ids, token.ID)
	return token, nil
}
