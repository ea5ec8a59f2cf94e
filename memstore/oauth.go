package memstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/latchkey-go/latchkey/account"
)

// OAuthAccounts is an account.OAuthAccountStore in memory. Make one with [NewOAuthAccounts]. It is
// safe for concurrent use.
type OAuthAccounts[ID comparable] struct {
	account.OAuthAccountStore[ID]
}

// NewOAuthAccounts returns an empty store.
func NewOAuthAccounts[ID comparable]() *OAuthAccounts[ID] {
	return &OAuthAccounts[ID]{&oauthAccounts[ID]{links: make(map[oauthKey]account.OAuthAccount[ID])}}
}

type oauthKey struct{ issuer, subject string }

type oauthAccounts[ID comparable] struct {
	mu    sync.Mutex
	links map[oauthKey]account.OAuthAccount[ID]
}

func (s *oauthAccounts[ID]) Insert(ctx context.Context, link account.OAuthAccount[ID]) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := oauthKey{link.Issuer, link.Subject}
	if _, taken := s.links[key]; taken {
		return fmt.Errorf("memstore: %w", account.ErrOAuthAccountTaken)
	}
	s.links[key] = link
	return nil
}

func (s *oauthAccounts[ID]) Find(ctx context.Context, issuer, subject string) (account.OAuthAccount[ID], error) {
	if err := ctx.Err(); err != nil {
		return account.OAuthAccount[ID]{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	link, ok := s.links[oauthKey{issuer, subject}]
	if !ok {
		return link, fmt.Errorf("memstore: %w", account.ErrOAuthAccountNotFound)
	}
	return link, nil
}

func (s *oauthAccounts[ID]) ListByUser(ctx context.Context, userID ID) ([]account.OAuthAccount[ID], error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var links []account.OAuthAccount[ID]
	for _, link := range s.links {
		if link.UserID == userID {
			links = append(links, link)
		}
	}
	slices.SortFunc(links, func(a, b account.OAuthAccount[ID]) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.Issuer, b.Issuer), strings.Compare(a.Subject, b.Subject))
	})
	return links, nil
}

func (s *oauthAccounts[ID]) Delete(ctx context.Context, userID ID, issuer, subject string, keep []string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := oauthKey{issuer, subject}
	if link, ok := s.links[key]; !ok || link.UserID != userID {
		return fmt.Errorf("memstore: %w", account.ErrOAuthAccountNotFound)
	}
	if len(keep) > 0 && !s.another(userID, key, keep) {
		return fmt.Errorf("memstore: %w", account.ErrLastOAuthAccount)
	}
	delete(s.links, key)
	return nil
}

// another reports whether the account has a link besides one, to one of the issuers. The caller
// holds the lock.
func (s *oauthAccounts[ID]) another(userID ID, besides oauthKey, issuers []string) bool {
	for key, link := range s.links {
		if key != besides && link.UserID == userID && slices.Contains(issuers, link.Issuer) {
			return true
		}
	}
	return false
}

func (s *oauthAccounts[ID]) DeleteByUser(ctx context.Context, userID ID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, link := range s.links {
		if link.UserID == userID {
			delete(s.links, key)
		}
	}
	return nil
}
