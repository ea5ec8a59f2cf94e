package memstore

import (
	"context"
	"errors"
	"sync"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/internal/onetime"
)

// OneTimeTokens is an account.OneTimeTokenStore in memory. Make one with [NewOneTimeTokens].
// It is safe for concurrent use. Expired tokens stay until they are deleted.
type OneTimeTokens[ID comparable] struct {
	account.OneTimeTokenStore[ID]
}

// NewOneTimeTokens returns an empty store.
func NewOneTimeTokens[ID comparable]() *OneTimeTokens[ID] {
	return &OneTimeTokens[ID]{&oneTimeTokens[ID]{byDigest: make(map[string]account.OneTimeToken[ID])}}
}

type oneTimeTokens[ID comparable] struct {
	mu       sync.Mutex
	byDigest map[string]account.OneTimeToken[ID]
}

func (s *oneTimeTokens[ID]) Insert(ctx context.Context, token account.OneTimeToken[ID], keep int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.byDigest[token.Digest]; taken {
		return errors.New("memstore: the digest is taken")
	}
	s.byDigest[token.Digest] = token
	var stored []onetime.Token
	for digest, t := range s.byDigest {
		if t.UserID == token.UserID && t.Purpose == token.Purpose {
			stored = append(stored, onetime.Token{Digest: digest, CreatedAt: t.CreatedAt})
		}
	}
	for _, digest := range onetime.Surplus(stored, token.CreatedAt, keep) {
		delete(s.byDigest, digest)
	}
	return nil
}

func (s *oneTimeTokens[ID]) Find(ctx context.Context, purpose account.Purpose, digest string) (account.OneTimeToken[ID], error) {
	if err := ctx.Err(); err != nil {
		return account.OneTimeToken[ID]{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(purpose, digest)
}

func (s *oneTimeTokens[ID]) Take(ctx context.Context, purpose account.Purpose, digest string) (account.OneTimeToken[ID], error) {
	if err := ctx.Err(); err != nil {
		return account.OneTimeToken[ID]{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	token, err := s.find(purpose, digest)
	if err == nil {
		delete(s.byDigest, digest)
	}
	return token, err
}

// find returns a token. The caller holds the lock.
func (s *oneTimeTokens[ID]) find(purpose account.Purpose, digest string) (account.OneTimeToken[ID], error) {
	token, ok := s.byDigest[digest]
	if !ok || token.Purpose != purpose {
		return account.OneTimeToken[ID]{}, account.ErrOneTimeTokenNotFound
	}
	return token, nil
}

func (s *oneTimeTokens[ID]) DeleteByUser(ctx context.Context, userID ID, purpose account.Purpose) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for digest, token := range s.byDigest {
		if token.UserID == userID && (purpose == "" || token.Purpose == purpose) {
			delete(s.byDigest, digest)
		}
	}
	return nil
}
