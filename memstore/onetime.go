package memstore

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/latchkey-go/latchkey/account"
)

// OneTimeTokens is an account.OneTimeTokenStore in memory. Make one with [NewOneTimeTokens]. It
// is safe for concurrent use.
type OneTimeTokens[ID comparable] struct {
	account.OneTimeTokenStore[ID]
}

// NewOneTimeTokens returns an empty store. It holds expired tokens until newer ones of their
// user push them out.
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
	s.byDigest[token.Digest] = token
	var own []account.OneTimeToken[ID]
	for _, t := range s.byDigest {
		if t.UserID == token.UserID && t.Purpose == token.Purpose {
			own = append(own, t)
		}
	}
	slices.SortFunc(own, func(a, b account.OneTimeToken[ID]) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.Digest, b.Digest))
	})
	for _, old := range own[min(keep, len(own)):] {
		delete(s.byDigest, old.Digest)
	}
	return nil
}

func (s *oneTimeTokens[ID]) Find(ctx context.Context, purpose account.Purpose, digest string) (account.OneTimeToken[ID], error) {
	return s.find(ctx, purpose, digest, false)
}

func (s *oneTimeTokens[ID]) Take(ctx context.Context, purpose account.Purpose, digest string) (account.OneTimeToken[ID], error) {
	return s.find(ctx, purpose, digest, true)
}

func (s *oneTimeTokens[ID]) find(ctx context.Context, purpose account.Purpose, digest string, take bool) (none account.OneTimeToken[ID], err error) {
	if err := ctx.Err(); err != nil {
		return none, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	token, ok := s.byDigest[digest]
	if !ok || token.Purpose != purpose {
		return none, account.ErrOneTimeTokenNotFound
	}
	if take {
		delete(s.byDigest, digest)
	}
	return token, nil
}

func (s *oneTimeTokens[ID]) DeleteByUser(ctx context.Context, userID ID, purpose account.Purpose) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for digest, t := range s.byDigest {
		if t.UserID == userID && (purpose == "" || t.Purpose == purpose) {
			delete(s.byDigest, digest)
		}
	}
	return nil
}
