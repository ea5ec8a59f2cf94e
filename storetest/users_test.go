package storetest_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/storetest"
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
			ID: uuid.New(), Email: email, HashedPassword: account.NewPasswordHash("old"), Active: true, Verified: true, Superuser: true,
			CreatedAt: time.Date(2026, 3, 29, 1, 59, 59, 987e6, time.UTC),
			Version:   3,
		},
		Name:  "Ann",
		Roles: []string{"editor"},
	}
}

// users is a store without a fault, until a test replaces one of its methods.
type users struct {
	*memstore.Users[member, uuid.UUID]
	insert          func(context.Context, member) error
	byID            func(context.Context, uuid.UUID) (member, error)
	byEmail         func(context.Context, string) (member, error)
	replacePassword func(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, revoke bool) error
	apply           func(context.Context, uuid.UUID, account.Change) error
}

func newUsers(testing.TB) *users {
	good := memstore.NewUsers[member]()
	return &users{good, good.Insert, good.ByID, good.ByEmail, good.ReplacePassword, good.Apply}
}

func (s *users) Insert(ctx context.Context, m member) error             { return s.insert(ctx, m) }
func (s *users) ByID(ctx context.Context, id uuid.UUID) (member, error) { return s.byID(ctx, id) }
func (s *users) ByEmail(ctx context.Context, email string) (member, error) {
	return s.byEmail(ctx, email)
}
func (s *users) ReplacePassword(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, revoke bool) error {
	return s.replacePassword(ctx, id, old, new, revoke)
}
func (s *users) Apply(ctx context.Context, id uuid.UUID, change account.Change) error {
	return s.apply(ctx, id, change)
}

// replacing replaces ReplacePassword by f.
func replacing(f func(s *users, ctx context.Context, id uuid.UUID, old, new account.PasswordHash, revoke bool) error) func(*users) {
	return func(s *users) {
		s.replacePassword = func(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, revoke bool) error {
			return f(s, ctx, id, old, new, revoke)
		}
	}
}

// applyingBy replaces Apply by f.
func applyingBy(f func(s *users, ctx context.Context, id uuid.UUID, change account.Change) error) func(*users) {
	return func(s *users) {
		s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error { return f(s, ctx, id, change) }
	}
}

// delayReads makes reads wait, so that they run between the steps of a change.
func (s *users) delayReads() {
	s.byID = func(ctx context.Context, id uuid.UUID) (member, error) {
		pause()
		return s.Users.ByID(ctx, id)
	}
	s.byEmail = func(ctx context.Context, email string) (member, error) {
		pause()
		return s.Users.ByEmail(ctx, email)
	}
}

// missingIsConflict returns the error of ReplacePassword for an error of ByID.
func missingIsConflict(err error) error {
	if errors.Is(err, account.ErrUserNotFound) {
		return account.ErrConflict
	}
	return err
}

// betweenReads waits while reads that [users.delayReads] delays happen.
func betweenReads() { time.Sleep(5 * time.Millisecond / 2) }

// set replaces a hash, whatever the old one is.
func (s *users) set(ctx context.Context, id uuid.UUID, hash account.PasswordHash, revoke bool) error {
	return s.Update(ctx, id, func(m *member) {
		m.HashedPassword = hash
		if revoke {
			m.Version++
		}
	})
}

// inserting makes Insert change the account before it stores it.
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
		roundTrip     = "every field is returned as it was stored"
		missing       = "a missing account is ErrUserNotFound"
		taken         = "a taken address is ErrEmailTaken and changes nothing"
		takenID       = "a taken ID is ErrConflict and changes nothing"
		insertRace    = "one of many concurrent inserts of an address succeeds"
		replaces      = "replacing a password changes nothing else"
		conflict      = "replacing a password that has changed is ErrConflict"
		replaceRace   = "one of many concurrent replacements of a password succeeds"
		replaceAdds   = "replacing a password adds 1 to the token version if it revokes"
		replaceAtomic = "a new password and its token version become visible together"
		applies       = "a change is made and changes nothing else"
		applyAdds     = "revoking adds exactly 1 to the token version"
		applyAtomic   = "an inactive account and its token version become visible together"
		noAccount     = "a change to a missing account is ErrUserNotFound and creates none"
		changeRace    = "concurrent changes do not undo each other"
		revokeRace    = "concurrent revocations add up"
		cancelled     = "a cancelled context stops every method"
	)
	// applying makes Apply change the change before it makes it.
	applying := func(f func(*account.Change)) func(*users) {
		return applyingBy(func(s *users, ctx context.Context, id uuid.UUID, change account.Change) error {
			f(&change)
			return s.Users.Apply(ctx, id, change)
		})
	}
	// also makes Apply change the account by f as well.
	also := func(f func(*member, account.Change)) func(*users) {
		return applyingBy(func(s *users, ctx context.Context, id uuid.UUID, change account.Change) error {
			if err := s.Users.Apply(ctx, id, change); err != nil {
				return err
			}
			return s.Update(ctx, id, func(m *member) { f(m, change) })
		})
	}
	// alsoReplacing makes ReplacePassword change the account by f as well.
	alsoReplacing := func(f func(m *member, revoke bool)) func(*users) {
		return replacing(func(s *users, ctx context.Context, id uuid.UUID, old, new account.PasswordHash, revoke bool) error {
			if err := s.Users.ReplacePassword(ctx, id, old, new, revoke); err != nil {
				return err
			}
			return s.Update(ctx, id, func(m *member) { f(m, revoke) })
		})
	}
	mustCatch(t, newUsers, func(open func(testing.TB) *users) storetest.Suite {
		return storetest.Users(newMember, func(t testing.TB) account.Store[member, uuid.UUID] { return open(t) })
	}, []broken[*users]{
		{"forgets the application's fields", roundTrip, inserting(func(m *member) { m.Roles = nil })},
		{"forgets the flags", roundTrip, inserting(func(m *member) { m.Verified = false })},
		{"forgets the password", roundTrip, inserting(func(m *member) { m.HashedPassword = account.PasswordHash{} })},
		{"forgets the milliseconds", roundTrip, inserting(func(m *member) { m.CreatedAt = m.CreatedAt.Truncate(time.Second) })},
		{"keeps local time", roundTrip, inserting(func(m *member) { m.CreatedAt = m.CreatedAt.In(time.FixedZone("here", 7200)) })},
		{"forgets a field when it reads by address", roundTrip, func(s *users) {
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
		{"reports a taken address as a taken ID", taken, func(s *users) {
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
		{"reports a taken ID as a taken address", takenID, func(s *users) {
			s.insert = func(ctx context.Context, m member) error {
				err := s.Users.Insert(ctx, m)
				if errors.Is(err, account.ErrConflict) {
					err = account.ErrEmailTaken
				}
				return err
			}
		}},
		{"checks whether an address is taken, then inserts", insertRace, func(s *users) {
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
		{"loses a field with the password", replaces, alsoReplacing(func(m *member, _ bool) { m.Name = "" })},
		{"reports a replacement without making it", replaces, replacing(func(s *users, ctx context.Context, id uuid.UUID, old, _ account.PasswordHash, revoke bool) error {
			return s.Users.ReplacePassword(ctx, id, old, old, revoke)
		})},
		{"ignores the old password", conflict, replacing(func(s *users, ctx context.Context, id uuid.UUID, _, new account.PasswordHash, revoke bool) error {
			if err := s.set(ctx, id, new, revoke); !errors.Is(err, account.ErrUserNotFound) {
				return err
			}
			return account.ErrConflict
		})},
		{"returns no error for the password of a missing account", conflict, replacing(func(s *users, ctx context.Context, id uuid.UUID, old, new account.PasswordHash, revoke bool) error {
			err := s.Users.ReplacePassword(ctx, id, old, new, revoke)
			if _, none := s.Users.ByID(ctx, id); errors.Is(none, account.ErrUserNotFound) {
				return nil
			}
			return err
		})},
		{"creates a missing account with the password", conflict, replacing(func(s *users, ctx context.Context, id uuid.UUID, old, new account.PasswordHash, revoke bool) error {
			err := s.Users.ReplacePassword(ctx, id, old, new, revoke)
			if _, none := s.Users.ByID(ctx, id); errors.Is(none, account.ErrUserNotFound) {
				_ = s.Users.Insert(ctx, member{User: account.User[uuid.UUID]{ID: id, HashedPassword: new}})
			}
			return err
		})},
		{"reads the old password, then replaces it", replaceRace, replacing(func(s *users, ctx context.Context, id uuid.UUID, old, new account.PasswordHash, revoke bool) error {
			if m, err := s.Users.ByID(ctx, id); err == nil && m.HashedPassword.Reveal() == old.Reveal() {
				pause()
				return s.set(ctx, id, new, revoke)
			}
			return s.Users.ReplacePassword(ctx, id, old, new, revoke)
		})},
		{"makes every account active", roundTrip, inserting(func(m *member) { m.Active = true })},
		{"forgets the token version", roundTrip, inserting(func(m *member) { m.Version = 0 })},
		{"keeps 32 bits of the token version", roundTrip, inserting(func(m *member) { m.Version = int64(int32(m.Version)) })},
		{"keeps the token version as a float", roundTrip, inserting(func(m *member) { m.Version = int64(float64(m.Version)) })},
		{"starts the token version at 1", roundTrip, inserting(func(m *member) { m.Version = max(1, m.Version) })},

		{"does not revoke with the password", replaceAdds, replacing(func(s *users, ctx context.Context, id uuid.UUID, old, new account.PasswordHash, _ bool) error {
			return s.Users.ReplacePassword(ctx, id, old, new, false)
		})},
		{"revokes with a rehash", replaceAdds, replacing(func(s *users, ctx context.Context, id uuid.UUID, old, new account.PasswordHash, _ bool) error {
			return s.Users.ReplacePassword(ctx, id, old, new, true)
		})},
		{"adds 2 to the token version with the password", replaceAdds, alsoReplacing(func(m *member, revoke bool) {
			if revoke {
				m.Version++
			}
		})},
		{"sets the token version to 1 with the password", replaceAdds, alsoReplacing(func(m *member, revoke bool) {
			if revoke {
				m.Version = 1
			}
		})},
		{"removes the token version with a rehash", replaceAdds, alsoReplacing(func(m *member, revoke bool) {
			if !revoke {
				m.Version = 0
			}
		})},
		{"does not revoke with the password of an account without a token version", replaceAdds, alsoReplacing(func(m *member, revoke bool) {
			if revoke && m.Version == 1 {
				m.Version = 0
			}
		})},
		{"counts passwords in 32 bits", replaceAdds, alsoReplacing(func(m *member, _ bool) { m.Version = int64(int32(m.Version)) })},
		{"revokes with a password that has changed", conflict, replacing(func(s *users, ctx context.Context, id uuid.UUID, old, new account.PasswordHash, revoke bool) error {
			err := s.Users.ReplacePassword(ctx, id, old, new, revoke)
			if errors.Is(err, account.ErrConflict) && revoke {
				_ = s.Users.Apply(ctx, id, account.Change{RevokeTokens: true})
			}
			return err
		})},
		{"replaces the password, then revokes", replaceAtomic, func(s *users) {
			s.delayReads()
			s.replacePassword = func(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, revoke bool) error {
				err := s.Users.ReplacePassword(ctx, id, old, new, false)
				if err == nil && revoke {
					betweenReads()
					err = s.Users.Apply(ctx, id, account.Change{RevokeTokens: true})
				}
				return err
			}
		}},
		{"revokes, then replaces the password", replaceAtomic, func(s *users) {
			s.delayReads()
			s.replacePassword = func(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, revoke bool) error {
				if m, err := s.Users.ByID(ctx, id); err == nil && m.HashedPassword.Reveal() == old.Reveal() && revoke {
					if err := s.Users.Apply(ctx, id, account.Change{RevokeTokens: true}); err != nil {
						return err
					}
					betweenReads()
				}
				return s.Users.ReplacePassword(ctx, id, old, new, false)
			}
		}},

		{"does not deactivate", applies, applying(func(c *account.Change) { c.Active = nil })},
		{"does not activate", applies, applying(func(c *account.Change) {
			if c.Active != nil && *c.Active {
				c.Active = nil
			}
		})},
		{"deactivates with every change", applies, applying(func(c *account.Change) {
			if c.Active == nil {
				c.Active = new(bool)
			}
		})},
		{"does not revoke", applyAdds, applying(func(c *account.Change) { c.RevokeTokens = false })},
		{"does not revoke when it sets Active", applies, applying(func(c *account.Change) { c.RevokeTokens = c.RevokeTokens && c.Active == nil })},
		{"revokes with every change", applyAdds, applying(func(c *account.Change) { c.RevokeTokens = true })},
		{"revokes when it deactivates", applies, applying(func(c *account.Change) { c.RevokeTokens = c.RevokeTokens || c.Active != nil && !*c.Active })},
		{"revokes only the first time", applyAdds, also(func(m *member, c account.Change) {
			if c.RevokeTokens {
				m.Version = min(1, m.Version)
			}
		})},
		{"adds 2 to the token version", applyAdds, also(func(m *member, c account.Change) {
			if c.RevokeTokens {
				m.Version++
			}
		})},
		{"lowers the token version", applyAdds, also(func(m *member, c account.Change) {
			if c.RevokeTokens {
				m.Version -= 2
			}
		})},
		{"sets the token version to the time", applyAdds, also(func(m *member, c account.Change) {
			if c.RevokeTokens {
				m.Version = time.Now().UnixMilli()
			}
		})},
		{"does not revoke without a token version", applyAdds, also(func(m *member, c account.Change) {
			if c.RevokeTokens && m.Version == 1 {
				m.Version = 0
			}
		})},
		{"counts revocations in 32 bits", applyAdds, also(func(m *member, _ account.Change) { m.Version = int64(int32(m.Version)) })},
		{"revokes the tokens of all accounts", applies, func(s *users) {
			var mu sync.Mutex
			var ids []uuid.UUID
			s.insert = func(ctx context.Context, m member) error {
				mu.Lock()
				defer mu.Unlock()
				ids = append(ids, m.ID)
				return s.Users.Insert(ctx, m)
			}
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				if err := s.Users.Apply(ctx, id, change); err != nil || !change.RevokeTokens {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				for _, other := range ids {
					if other != id {
						_ = s.Users.Apply(ctx, other, account.Change{RevokeTokens: true})
					}
				}
				return nil
			}
		}},
		{"loses a field with a change", applies, also(func(m *member, _ account.Change) { m.Roles = nil })},
		{"loses the password with a change", applies, also(func(m *member, _ account.Change) { m.HashedPassword = account.PasswordHash{} })},
		{"deactivates, then revokes", applyAtomic, func(s *users) {
			s.delayReads()
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				err := s.Users.Apply(ctx, id, account.Change{Active: change.Active})
				if err == nil && change.RevokeTokens {
					betweenReads()
					err = s.Users.Apply(ctx, id, account.Change{RevokeTokens: true})
				}
				return err
			}
		}},
		{"reads the token version, then writes the next", revokeRace, applyingBy(func(s *users, ctx context.Context, id uuid.UUID, change account.Change) error {
			m, err := s.Users.ByID(ctx, id)
			if err != nil {
				return err
			}
			if !change.RevokeTokens {
				return s.Users.Apply(ctx, id, change)
			}
			pause()
			next := m.Version + 1
			return s.Update(ctx, id, func(m *member) {
				m.Version = next
				if change.Active != nil {
					m.Active = *change.Active
				}
			})
		})},
		{"reads the token version, then writes it with the password", changeRace, replacing(func(s *users, ctx context.Context, id uuid.UUID, old, new account.PasswordHash, revoke bool) error {
			read, err := s.Users.ByID(ctx, id)
			if err != nil {
				return missingIsConflict(err)
			}
			pause()
			if err := s.Users.ReplacePassword(ctx, id, old, new, false); err != nil || !revoke {
				return err
			}
			return s.Update(ctx, id, func(m *member) { m.Version = read.Version + 1 })
		})},
		{"writes the token version back with a rehash", revokeRace, replacing(func(s *users, ctx context.Context, id uuid.UUID, old, new account.PasswordHash, revoke bool) error {
			read, err := s.Users.ByID(ctx, id)
			if err != nil {
				return missingIsConflict(err)
			}
			pause()
			if err := s.Users.ReplacePassword(ctx, id, old, new, revoke); err != nil || revoke {
				return err
			}
			return s.Update(ctx, id, func(m *member) { m.Version = read.Version })
		})},
		{"revokes once for all concurrent revocations", revokeRace, func(s *users) {
			var mu sync.Mutex
			revoking := make(map[uuid.UUID]bool)
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				if !change.RevokeTokens {
					return s.Users.Apply(ctx, id, change)
				}
				mu.Lock()
				busy := revoking[id]
				revoking[id] = true
				mu.Unlock()
				if busy {
					change.RevokeTokens = false
					return s.Users.Apply(ctx, id, change)
				}
				pause()
				err := s.Users.Apply(ctx, id, change)
				mu.Lock()
				defer mu.Unlock()
				delete(revoking, id)
				return err
			}
		}},
		{"revokes with a retry that counts twice", revokeRace, applyingBy(func(s *users, ctx context.Context, id uuid.UUID, change account.Change) error {
			before, err := s.Users.ByID(ctx, id)
			if err != nil {
				return err
			}
			if err := s.Users.Apply(ctx, id, change); err != nil || !change.RevokeTokens {
				return err
			}
			pause()
			if m, err := s.Users.ByID(ctx, id); err == nil && m.Version != before.Version+1 {
				return s.Users.Apply(ctx, id, account.Change{RevokeTokens: true})
			}
			return nil
		})},
		{"returns no error for a change to a missing account", noAccount, func(s *users) {
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				return unless(s.Users.Apply(ctx, id, change), account.ErrUserNotFound)
			}
		}},
		{"returns no error for an empty change to a missing account", noAccount, func(s *users) {
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				if change == (account.Change{}) {
					return nil
				}
				return s.Users.Apply(ctx, id, change)
			}
		}},
		{"creates a missing account with a change", noAccount, func(s *users) {
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				err := s.Users.Apply(ctx, id, change)
				if errors.Is(err, account.ErrUserNotFound) {
					_ = s.Users.Insert(ctx, member{User: account.User[uuid.UUID]{ID: id}})
				}
				return err
			}
		}},
		{"reads an account, then writes all of it", changeRace, func(s *users) {
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				read, err := s.Users.ByID(ctx, id)
				if err != nil || ctx.Err() != nil {
					return err
				}
				pause()
				if change.Active != nil {
					read.Active = *change.Active
				}
				if change.RevokeTokens {
					read.Version++
				}
				return s.Update(ctx, id, func(m *member) { *m = read })
			}
		}},
		{"changes despite a cancelled context", cancelled, func(s *users) {
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				return s.Users.Apply(context.WithoutCancel(ctx), id, change)
			}
		}},
		{"inserts despite a cancelled context", cancelled, func(s *users) {
			s.insert = func(ctx context.Context, m member) error { return s.Users.Insert(context.WithoutCancel(ctx), m) }
		}},
		{"reads by ID despite a cancelled context", cancelled, func(s *users) {
			s.byID = func(ctx context.Context, id uuid.UUID) (member, error) {
				return s.Users.ByID(context.WithoutCancel(ctx), id)
			}
		}},
		{"reads by address despite a cancelled context", cancelled, func(s *users) {
			s.byEmail = func(ctx context.Context, email string) (member, error) {
				return s.Users.ByEmail(context.WithoutCancel(ctx), email)
			}
		}},
		{"replaces passwords despite a cancelled context", cancelled, func(s *users) {
			s.replacePassword = func(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, revoke bool) error {
				return s.Users.ReplacePassword(context.WithoutCancel(ctx), id, old, new, revoke)
			}
		}},
	})
}
