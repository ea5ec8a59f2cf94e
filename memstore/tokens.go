package memstore

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/strategy"
)

// Tokens is a strategy.Store and a strategy.RevocationLog in memory. Make one with
// [NewTokens]. It is safe for concurrent use. Expired tokens stay until they are deleted.
type Tokens[ID comparable] struct {
	strategy.Store[ID]
	strategy.RevocationLog[ID]
}

// NewTokens returns an empty store.
func NewTokens[ID comparable]() *Tokens[ID] {
	s := &tokens[ID]{
		byDigest: make(map[string]strategy.AccessToken[ID]),
		digests:  make(map[uuid.UUID]string),
	}
	return &Tokens[ID]{Store: s, RevocationLog: s}
}

// tokens implements both interfaces of Tokens.
type tokens[ID comparable] struct {
	revoked  revocations[ID]
	mu       sync.RWMutex
	byDigest map[string]strategy.AccessToken[ID]
	digests  map[uuid.UUID]string // by session ID
}

// clone returns a copy that shares no memory with token.
func clone[ID comparable](token strategy.AccessToken[ID]) strategy.AccessToken[ID] {
	token.Scopes = slices.Clone(token.Scopes)
	return token
}

func (s *tokens[ID]) Insert(ctx context.Context, token strategy.AccessToken[ID]) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, digestTaken := s.byDigest[token.Digest]
	_, idTaken := s.digests[token.ID]
	if digestTaken || idTaken {
		return strategy.ErrDuplicateToken
	}
	s.byDigest[token.Digest] = clone(token)
	s.digests[token.ID] = token.Digest
	return nil
}

func (s *tokens[ID]) ByToken(ctx context.Context, digest string) (strategy.AccessToken[ID], error) {
	if err := ctx.Err(); err != nil {
		return strategy.AccessToken[ID]{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	token, ok := s.byDigest[digest]
	if !ok {
		return strategy.AccessToken[ID]{}, strategy.ErrTokenNotFound
	}
	return clone(token), nil
}

func (s *tokens[ID]) Touch(ctx context.Context, digest string, at time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if token, ok := s.byDigest[digest]; ok && at.After(token.LastUsedAt) {
		token.LastUsedAt = at
		s.byDigest[digest] = token
	}
	return nil
}

func (s *tokens[ID]) Rename(ctx context.Context, userID ID, id uuid.UUID, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	digest, ok := s.digests[id]
	token := s.byDigest[digest]
	if !ok || token.UserID != userID {
		return strategy.ErrTokenNotFound
	}
	token.Name = name
	s.byDigest[digest] = token
	return nil
}

func (s *tokens[ID]) Rotate(ctx context.Context, digest string, to strategy.Rotation) (strategy.AccessToken[ID], error) {
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
	token.Digest = to.Digest
	if to.LastUsedAt.After(token.LastUsedAt) {
		token.LastUsedAt = to.LastUsedAt
	}
	if !to.AuthenticatedAt.IsZero() {
		token.AuthenticatedAt = to.AuthenticatedAt
	}
	token.TokenVersion = max(token.TokenVersion, to.TokenVersion)
	s.byDigest[token.Digest] = token
	s.digests[token.ID] = token.Digest
	return clone(token), nil
}

func (s *tokens[ID]) ByUser(ctx context.Context, userID ID, after strategy.Position, limit int) ([]strategy.AccessToken[ID], error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var tokens []strategy.AccessToken[ID]
	for _, token := range s.byDigest {
		if token.UserID == userID && (after == strategy.Position{} || newestFirst(position(token), after) > 0) {
			tokens = append(tokens, clone(token))
		}
	}
	slices.SortFunc(tokens, func(a, b strategy.AccessToken[ID]) int { return newestFirst(position(a), position(b)) })
	return tokens[:min(limit, len(tokens))], nil
}

func position[ID comparable](token strategy.AccessToken[ID]) strategy.Position {
	return strategy.Position{CreatedAt: token.CreatedAt, ID: token.ID}
}

func newestFirst(a, b strategy.Position) int {
	return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), bytes.Compare(b.ID[:], a.ID[:]))
}

func (s *tokens[ID]) Delete(ctx context.Context, digest string) (strategy.AccessToken[ID], error) {
	if err := ctx.Err(); err != nil {
		return strategy.AccessToken[ID]{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	token, ok := s.byDigest[digest]
	if !ok {
		return strategy.AccessToken[ID]{}, strategy.ErrTokenNotFound
	}
	s.remove(token)
	return token, nil
}

func (s *tokens[ID]) DeleteSession(ctx context.Context, userID ID, id uuid.UUID) (strategy.AccessToken[ID], error) {
	if err := ctx.Err(); err != nil {
		return strategy.AccessToken[ID]{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	digest, ok := s.digests[id]
	if !ok || s.byDigest[digest].UserID != userID {
		return strategy.AccessToken[ID]{}, strategy.ErrTokenNotFound
	}
	token := s.byDigest[digest]
	s.remove(token)
	return token, nil
}

func (s *tokens[ID]) DeleteByUser(ctx context.Context, userID ID, except ...uuid.UUID) (n int64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, token := range s.byDigest {
		if token.UserID == userID && !slices.Contains(except, token.ID) {
			s.remove(token)
			n++
		}
	}
	return n, nil
}

// remove deletes a token. The caller holds the lock.
func (s *tokens[ID]) remove(token strategy.AccessToken[ID]) {
	delete(s.byDigest, token.Digest)
	delete(s.digests, token.ID)
}

// Retention returns 0: tokens stay until they are deleted.
func (s *tokens[ID]) Retention() time.Duration { return 0 }
