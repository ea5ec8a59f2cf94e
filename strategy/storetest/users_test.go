package storetest_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy/memstore"
	"github.com/latchkey-go/latchkey/strategy/storetest"
)

// member is an application's user.
type member struct {
	account.User[uuid.UUID]
	Name  string
	Roles []string
}

func newMember(email string) member {
	return member{
		User: account.User[uuid.UUID]{
			ID: uuid.New(), Email: email, HashedPassword: "old", Active: true, Verified: true, Superuser: true,
			CreatedAt: time.Date(2026, 3, 29, 1, 59, 59, 987e6, time.UTC),
			NotBefore: time.Date(2026, 3, 28, 0, 0, 0, 1e6, time.UTC),
		},
		Name:  "Ann",
		Roles: []string{"editor"},
	}
}

// users is a good store, but for the methods that a test replaces.
type users struct {
	*memstore.Users[member, uuid.UUID]
	insert          func(context.Context, member) error
	byID            func(context.Context, uuid.UUID) (member, error)
	byEmail         func(context.Context, string) (member, error)
	replacePassword func(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, notBefore time.Time) error
	apply           func(context.Context, uuid.UUID, account.Change) error
}

func newUsers() *users {
	good := memstore.NewUsers[member]()
	return &users{good, good.Insert, good.ByID, good.ByEmail, good.ReplacePassword, good.Apply}
}

func (s *users) Insert(ctx context.Context, m member) error             { return s.insert(ctx, m) }
func (s *users) ByID(ctx context.Context, id uuid.UUID) (member, error) { return s.byID(ctx, id) }
func (s *users) ByEmail(ctx context.Context, email string) (member, error) {
	return s.byEmail(ctx, email)
}
func (s *users) ReplacePassword(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, notBefore time.Time) error {
	return s.replacePassword(ctx, id, old, new, notBefore)
}
func (s *users) Apply(ctx context.Context, id uuid.UUID, change account.Change) error {
	return s.apply(ctx, id, change)
}

// set replaces a hash whatever it was.
func (s *users) set(ctx context.Context, id uuid.UUID, hash account.PasswordHash, notBefore time.Time) error {
	return s.Update(ctx, id, func(m *member) {
		m.HashedPassword = hash
		if notBefore.After(m.NotBefore) {
			m.NotBefore = notBefore
		}
	})
}

// inserting makes a store insert another account than it was given.
func inserting(change func(*member)) func(*users) {
	return func(s *users) {
		s.insert = func(ctx context.Context, m member) error {
			change(&m)
			return s.Users.Insert(ctx, m)
		}
	}
}

func TestRunUsersCatchesBrokenStores(t *testing.T) {
	const (
		roundTrip = "every field comes back as it was stored"
		missing   = "a missing account is ErrUserNotFound"
		taken     = "a taken address is ErrEmailTaken and changes nothing"
		takenID   = "a taken ID is ErrConflict and changes nothing"
		untouched = "replacing a password touches nothing else"
		conflict  = "replacing a password that has changed is ErrConflict"
		postpones = "replacing a password moves not-before on in the same update"
		applies   = "a change is made and touches nothing else"
		forwards  = "not-before is moved on by a millisecond at least"
		noAccount = "a change to a missing account is ErrUserNotFound and makes none"
		atOnce    = "changes at once do not undo each other"
		cancelled = "a cancelled context stops every method"
	)
	// applying makes a store make another change than it was given.
	applying := func(f func(*account.Change)) func(*users) {
		return func(s *users) {
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				f(&change)
				return s.Users.Apply(ctx, id, change)
			}
		}
	}
	// also makes a store do something more to an account that it has changed.
	also := func(f func(*member)) func(*users) {
		return func(s *users) {
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				return errors.Join(s.Users.Apply(ctx, id, change), unless(s.Update(ctx, id, f), account.ErrUserNotFound))
			}
		}
	}
	mustCatch(t, func(t *testing.T, breakIt func(*users)) map[string]error {
		return storetest.UserResults(t.Context(), t, newMember, func(testing.TB) account.Store[member, uuid.UUID] {
			s := newUsers()
			breakIt(s)
			return s
		})
	}, []broken[*users]{
		{"forgets the application's fields", roundTrip, inserting(func(m *member) { m.Roles = nil })},
		{"forgets the flags", roundTrip, inserting(func(m *member) { m.Verified = false })},
		{"forgets the password", roundTrip, inserting(func(m *member) { m.HashedPassword = "" })},
		{"forgets the milliseconds", roundTrip, inserting(func(m *member) { m.CreatedAt = m.CreatedAt.Truncate(time.Second) })},
		{"keeps local time", roundTrip, inserting(func(m *member) { m.CreatedAt = m.CreatedAt.In(time.FixedZone("here", 7200)) })},
		{"finds less by address than by ID", roundTrip, func(s *users) {
			s.byEmail = func(ctx context.Context, email string) (member, error) {
				m, err := s.Users.ByEmail(ctx, email)
				m.Name = ""
				return m, err
			}
		}},
		{"returns no error for a missing ID", missing, func(s *users) {
			s.byID = func(ctx context.Context, id uuid.UUID) (member, error) {
				m, err := s.Users.ByID(ctx, id)
				return m, unless(err, account.ErrUserNotFound)
			}
		}},
		{"returns an error of its own for a missing address", missing, func(s *users) {
			s.byEmail = func(ctx context.Context, email string) (member, error) {
				m, err := s.Users.ByEmail(ctx, email)
				if errors.Is(err, account.ErrUserNotFound) {
					err = errors.New("no documents in result")
				}
				return m, err
			}
		}},
		{"overwrites a taken address", taken, func(s *users) {
			var mu sync.Mutex
			s.insert = func(ctx context.Context, m member) error {
				mu.Lock()
				defer mu.Unlock()
				if old, err := s.Users.ByEmail(ctx, m.Email); err == nil {
					_ = s.Delete(ctx, old.ID)
				}
				return s.Users.Insert(ctx, m)
			}
		}},
		{"ignores a taken address", taken, func(s *users) {
			s.insert = func(ctx context.Context, m member) error {
				return unless(s.Users.Insert(ctx, m), account.ErrEmailTaken)
			}
		}},
		{"takes a taken address for a taken ID", taken, func(s *users) {
			s.insert = func(ctx context.Context, m member) error {
				err := s.Users.Insert(ctx, m)
				if errors.Is(err, account.ErrEmailTaken) {
					err = account.ErrConflict
				}
				return err
			}
		}},
		{"overwrites a taken ID", takenID, func(s *users) {
			s.insert = func(ctx context.Context, m member) error {
				if _, err := s.Users.ByEmail(ctx, m.Email); errors.Is(err, account.ErrUserNotFound) {
					_ = s.Delete(ctx, m.ID)
				}
				return s.Users.Insert(ctx, m)
			}
		}},
		{"takes a taken ID for a taken address", takenID, func(s *users) {
			s.insert = func(ctx context.Context, m member) error {
				err := s.Users.Insert(ctx, m)
				if errors.Is(err, account.ErrConflict) {
					err = account.ErrEmailTaken
				}
				return err
			}
		}},
		{"looks whether an address is taken, then inserts", "one of many that take an address at once succeeds", func(s *users) {
			var mu sync.Mutex
			s.insert = func(ctx context.Context, m member) error {
				if _, err := s.Users.ByEmail(ctx, m.Email); err == nil {
					return account.ErrEmailTaken
				}
				pause()
				mu.Lock()
				defer mu.Unlock()
				if old, err := s.Users.ByEmail(ctx, m.Email); err == nil {
					_ = s.Delete(ctx, old.ID)
				}
				return s.Users.Insert(ctx, m)
			}
		}},
		{"loses a field with the password", untouched, func(s *users) {
			s.replacePassword = func(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, notBefore time.Time) error {
				err := s.Users.ReplacePassword(ctx, id, old, new, notBefore)
				if err == nil {
					err = s.Update(ctx, id, func(m *member) { m.Name = "" })
				}
				return err
			}
		}},
		{"says that it replaces a password, and does not", untouched, func(s *users) {
			s.replacePassword = func(ctx context.Context, id uuid.UUID, old, _ account.PasswordHash, notBefore time.Time) error {
				return s.Users.ReplacePassword(ctx, id, old, old, notBefore)
			}
		}},
		{"ignores the old password", conflict, func(s *users) {
			s.replacePassword = func(ctx context.Context, id uuid.UUID, _, new account.PasswordHash, notBefore time.Time) error {
				if err := s.set(ctx, id, new, notBefore); !errors.Is(err, account.ErrUserNotFound) {
					return err
				}
				return account.ErrConflict
			}
		}},
		{"ignores that there is no account", conflict, func(s *users) {
			s.replacePassword = func(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, notBefore time.Time) error {
				err := s.Users.ReplacePassword(ctx, id, old, new, notBefore)
				if _, none := s.Users.ByID(ctx, id); errors.Is(none, account.ErrUserNotFound) {
					return nil
				}
				return err
			}
		}},
		{"makes an account that is not there", conflict, func(s *users) {
			s.replacePassword = func(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, notBefore time.Time) error {
				err := s.Users.ReplacePassword(ctx, id, old, new, notBefore)
				if _, none := s.Users.ByID(ctx, id); errors.Is(none, account.ErrUserNotFound) {
					_ = s.Users.Insert(ctx, member{User: account.User[uuid.UUID]{ID: id, HashedPassword: new}})
				}
				return err
			}
		}},
		{"looks at the old password, then replaces it", "one of many that replace a password at once succeeds", func(s *users) {
			s.replacePassword = func(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, notBefore time.Time) error {
				if m, err := s.Users.ByID(ctx, id); err == nil && m.HashedPassword == old {
					pause()
					return s.set(ctx, id, new, notBefore)
				}
				return s.Users.ReplacePassword(ctx, id, old, new, notBefore)
			}
		}},
		{"forgets not-before", roundTrip, inserting(func(m *member) { m.NotBefore = time.Time{} })},
		{"takes no not-before for the epoch", roundTrip, inserting(func(m *member) {
			if m.NotBefore.IsZero() {
				m.NotBefore = time.UnixMilli(0).UTC()
			}
		})},
		{"makes every account active", roundTrip, inserting(func(m *member) { m.Active = true })},
		{"forgets not-before with the password", postpones, func(s *users) {
			s.replacePassword = func(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, _ time.Time) error {
				return s.Users.ReplacePassword(ctx, id, old, new, time.Time{})
			}
		}},
		{"sets not-before back with the password", postpones, func(s *users) {
			s.replacePassword = func(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, notBefore time.Time) error {
				err := s.Users.ReplacePassword(ctx, id, old, new, notBefore)
				if err == nil && !notBefore.IsZero() {
					err = s.Update(ctx, id, func(m *member) { m.NotBefore = notBefore })
				}
				return err
			}
		}},
		{"leaves not-before with the password where it is as late", postpones, func(s *users) {
			s.replacePassword = func(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, notBefore time.Time) error {
				if m, err := s.Users.ByID(ctx, id); err == nil && !notBefore.After(m.NotBefore) {
					notBefore = time.Time{}
				}
				return s.Users.ReplacePassword(ctx, id, old, new, notBefore)
			}
		}},
		{"removes not-before with the password", postpones, func(s *users) {
			s.replacePassword = func(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, notBefore time.Time) error {
				err := s.Users.ReplacePassword(ctx, id, old, new, notBefore)
				if err == nil && notBefore.IsZero() {
					err = s.Update(ctx, id, func(m *member) { m.NotBefore = time.Time{} })
				}
				return err
			}
		}},
		{"postpones although the password has changed", conflict, func(s *users) {
			s.replacePassword = func(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, notBefore time.Time) error {
				_ = s.Users.Apply(ctx, id, account.Change{NotBefore: notBefore})
				return s.Users.ReplacePassword(ctx, id, old, new, notBefore)
			}
		}},
		{"forgets to deactivate", applies, applying(func(c *account.Change) { c.Active = nil })},
		{"only deactivates", applies, applying(func(c *account.Change) {
			if c.Active != nil && *c.Active {
				c.Active = nil
			}
		})},
		{"deactivates where it is not told to", applies, applying(func(c *account.Change) {
			if c.Active == nil {
				c.Active = new(bool)
			}
		})},
		{"forgets not-before with a change", applies, applying(func(c *account.Change) { c.NotBefore = time.Time{} })},
		{"forgets not-before when it deactivates", applies, applying(func(c *account.Change) {
			if c.Active != nil {
				c.NotBefore = time.Time{}
			}
		})},
		{"cuts the milliseconds off not-before", applies, applying(func(c *account.Change) { c.NotBefore = c.NotBefore.Truncate(time.Second) })},
		{"loses a field with a change", applies, also(func(m *member) { m.Roles = nil })},
		{"loses the password with a change", applies, also(func(m *member) { m.HashedPassword = "" })},
		{"sets not-before back", forwards, func(s *users) {
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				err := s.Users.Apply(ctx, id, change)
				if err == nil && !change.NotBefore.IsZero() {
					err = s.Update(ctx, id, func(m *member) { m.NotBefore = change.NotBefore })
				}
				return err
			}
		}},
		{"leaves not-before where it is as late", forwards, func(s *users) {
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				if m, err := s.Users.ByID(ctx, id); err == nil && !change.NotBefore.After(m.NotBefore) {
					change.NotBefore = time.Time{}
				}
				return s.Users.Apply(ctx, id, change)
			}
		}},
		{"looks how late not-before is, then sets it", atOnce, func(s *users) {
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				m, err := s.Users.ByID(ctx, id)
				if err != nil || change.NotBefore.IsZero() {
					return s.Users.Apply(ctx, id, change)
				}
				pause()
				if !change.NotBefore.After(m.NotBefore) {
					change.NotBefore = m.NotBefore.Add(time.Millisecond)
				}
				return s.Update(ctx, id, func(m *member) {
					m.NotBefore = change.NotBefore
					if change.Active != nil {
						m.Active = *change.Active
					}
				})
			}
		}},
		{"drops a change whose not-before is earlier", forwards, func(s *users) {
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				if m, err := s.Users.ByID(ctx, id); err == nil && change.NotBefore.Before(m.NotBefore) && !change.NotBefore.IsZero() {
					return nil
				}
				return s.Users.Apply(ctx, id, change)
			}
		}},
		{"returns no error for a change to no account", noAccount, func(s *users) {
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				return unless(s.Users.Apply(ctx, id, change), account.ErrUserNotFound)
			}
		}},
		{"does not look for the account where there is nothing to change", noAccount, func(s *users) {
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				if change == (account.Change{}) {
					return nil
				}
				return s.Users.Apply(ctx, id, change)
			}
		}},
		{"makes an account that it is to change", noAccount, func(s *users) {
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				err := s.Users.Apply(ctx, id, change)
				if errors.Is(err, account.ErrUserNotFound) {
					_ = s.Users.Insert(ctx, member{User: account.User[uuid.UUID]{ID: id, NotBefore: change.NotBefore}})
				}
				return err
			}
		}},
		// Like one that saves the whole account that it has read.
		{"reads an account, then writes all of it", atOnce, func(s *users) {
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				read, err := s.Users.ByID(ctx, id)
				if err != nil || ctx.Err() != nil {
					return err
				}
				pause()
				if change.Active != nil {
					read.Active = *change.Active
				}
				if change.NotBefore.After(read.NotBefore) {
					read.NotBefore = change.NotBefore
				}
				return s.Update(ctx, id, func(m *member) { *m = read })
			}
		}},
		{"applies changes in spite of the context", cancelled, func(s *users) {
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				return s.Users.Apply(context.WithoutCancel(ctx), id, change)
			}
		}},
		{"inserts in spite of the context", cancelled, func(s *users) {
			s.insert = func(ctx context.Context, m member) error { return s.Users.Insert(context.WithoutCancel(ctx), m) }
		}},
		{"reads IDs in spite of the context", cancelled, func(s *users) {
			s.byID = func(ctx context.Context, id uuid.UUID) (member, error) {
				return s.Users.ByID(context.WithoutCancel(ctx), id)
			}
		}},
		{"reads addresses in spite of the context", cancelled, func(s *users) {
			s.byEmail = func(ctx context.Context, email string) (member, error) {
				return s.Users.ByEmail(context.WithoutCancel(ctx), email)
			}
		}},
		{"replaces passwords in spite of the context", cancelled, func(s *users) {
			s.replacePassword = func(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, notBefore time.Time) error {
				return s.Users.ReplacePassword(context.WithoutCancel(ctx), id, old, new, notBefore)
			}
		}},
	})
}
