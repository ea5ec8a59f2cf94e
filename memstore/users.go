package memstore

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// Users is an account.Store and a strategy.UserSource in memory. Make one with [NewUsers].
// It is safe for concurrent use. It copies users by assignment, so the copies share slices,
// maps and pointers.
type Users[U strategy.User[ID], ID comparable] struct {
	account.Store[U, ID]
	users *users[U, ID]
}

// NewUsers returns an empty store. Call NewUsers[Member]() for a struct Member that embeds
// account.User; the other type parameters are inferred.
func NewUsers[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]]() *Users[U, ID] {
	s := &users[U, ID]{
		of:      func(u *U) *account.User[ID] { return P(u).Account() },
		byID:    make(map[ID]U),
		byEmail: make(map[string]ID),
	}
	return &Users[U, ID]{Store: s, users: s}
}

type users[U strategy.User[ID], ID comparable] struct {
	of      func(*U) *account.User[ID]
	mu      sync.RWMutex
	byID    map[ID]U
	byEmail map[string]ID
}

func (s *users[U, ID]) Insert(ctx context.Context, user U) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	a := s.of(&user)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.byEmail[a.Email]; taken {
		return account.ErrEmailTaken
	}
	if _, taken := s.byID[a.ID]; taken {
		return account.ErrConflict
	}
	s.byID[a.ID] = user
	s.byEmail[a.Email] = a.ID
	return nil
}

func (s *users[U, ID]) ByID(ctx context.Context, id ID) (U, error) {
	var none U
	if err := ctx.Err(); err != nil {
		return none, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	user, ok := s.byID[id]
	if !ok {
		return none, account.ErrUserNotFound
	}
	return user, nil
}

func (s *users[U, ID]) ByEmail(ctx context.Context, email string) (U, error) {
	var none U
	if err := ctx.Err(); err != nil {
		return none, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	id, ok := s.byEmail[email]
	if !ok {
		return none, account.ErrUserNotFound
	}
	return s.byID[id], nil
}

func (s *users[U, ID]) Apply(ctx context.Context, id ID, change account.Change) error {
	return s.change(ctx, id, func(user *U) error {
		a := s.of(user)
		if !holds(change, a.Email, a.HashedPassword, a.Version) {
			return account.ErrConflict
		}
		if change.Email != nil && *change.Email != a.Email {
			if _, taken := s.byEmail[*change.Email]; taken {
				return account.ErrEmailTaken
			}
			delete(s.byEmail, a.Email)
			s.byEmail[*change.Email] = id
		}
		set(&a.Email, change.Email)
		set(&a.HashedPassword, change.Password)
		set(&a.Active, change.Active)
		set(&a.Verified, change.Verified)
		set(&a.Superuser, change.Superuser)
		if change.RevokeTokens {
			a.Version++
		}
		return nil
	})
}

// holds reports whether an account with these values meets the conditions of a change.
func holds(c account.Change, email string, password account.PasswordHash, version int64) bool {
	return (c.IfEmail == nil || *c.IfEmail == email) &&
		(c.IfPassword == nil || c.IfPassword.Reveal() == password.Reveal()) &&
		(c.IfVersion == nil || *c.IfVersion == version)
}

// set sets a field to a new value, unless that is nil.
func set[T any](field, value *T) {
	if value != nil {
		*field = *value
	}
}

func (s *users[U, ID]) Edit(ctx context.Context, id ID, edit func(*U) error) (edited U, err error) {
	err = s.change(ctx, id, func(user *U) error {
		own := *s.of(user)
		if err := edit(user); err != nil {
			return err
		}
		*s.of(user) = own
		edited = *user
		return nil
	})
	return edited, err
}

func (s *users[U, ID]) List(ctx context.Context, prefix, after string, limit int) ([]U, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var emails []string
	for email := range s.byEmail {
		if strings.HasPrefix(email, prefix) && email > after {
			emails = append(emails, email)
		}
	}
	slices.Sort(emails)
	var users []U
	for _, email := range emails[:min(limit, len(emails))] {
		users = append(users, s.byID[s.byEmail[email]])
	}
	return users, nil
}

func (s *users[U, ID]) Delete(ctx context.Context, id ID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	user, ok := s.byID[id]
	if !ok {
		return account.ErrUserNotFound
	}
	delete(s.byEmail, s.of(&user).Email)
	delete(s.byID, id)
	return nil
}

// change calls f with a copy of an account and stores the result unless f returns an error.
func (s *users[U, ID]) change(ctx context.Context, id ID, f func(*U) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	user, ok := s.byID[id]
	if !ok {
		return account.ErrUserNotFound
	}
	if err := f(&user); err != nil {
		return err
	}
	s.byID[id] = user
	return nil
}

// Update changes an account, as an application or an administrator would directly in its
// database: for example, the application's own fields. Update keeps the ID and the e-mail address. It returns
// an error wrapping account.ErrUserNotFound if there is no such account.
func (u *Users[U, ID]) Update(ctx context.Context, id ID, change func(*U)) error {
	s := u.users
	return s.change(ctx, id, func(user *U) error {
		email := s.of(user).Email
		change(user)
		s.of(user).ID, s.of(user).Email = id, email
		return nil
	})
}
