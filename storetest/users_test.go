package storetest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
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
	insert  func(context.Context, member) error
	byID    func(context.Context, uuid.UUID) (member, error)
	byEmail func(context.Context, string) (member, error)
	apply   func(context.Context, uuid.UUID, account.Change) error
	delete  func(context.Context, uuid.UUID) error
	edit    func(context.Context, uuid.UUID, func(*member) error) (member, error)
	list    func(ctx context.Context, prefix, after string, limit int) ([]member, error)
}

func newUsers(testing.TB) *users {
	good := memstore.NewUsers[member]()
	return &users{good, good.Insert, good.ByID, good.ByEmail, good.Apply, good.Delete, good.Edit, good.List}
}

func (s *users) Insert(ctx context.Context, m member) error             { return s.insert(ctx, m) }
func (s *users) ByID(ctx context.Context, id uuid.UUID) (member, error) { return s.byID(ctx, id) }
func (s *users) ByEmail(ctx context.Context, email string) (member, error) {
	return s.byEmail(ctx, email)
}
func (s *users) Apply(ctx context.Context, id uuid.UUID, change account.Change) error {
	return s.apply(ctx, id, change)
}
func (s *users) Delete(ctx context.Context, id uuid.UUID) error { return s.delete(ctx, id) }

func (s *users) Edit(ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error) {
	return s.edit(ctx, id, edit)
}
func (s *users) List(ctx context.Context, prefix, after string, limit int) ([]member, error) {
	return s.list(ctx, prefix, after, limit)
}

// editingBy replaces Edit by f.
func editingBy(f func(s *users, ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error)) func(*users) {
	return func(s *users) {
		s.edit = func(ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error) {
			return f(s, ctx, id, edit)
		}
	}
}

// listingUsers makes List return f of all accounts, ordered by address.
func listingUsers(f func(all []member, prefix, after string, limit int) []member) func(*users) {
	return func(s *users) {
		s.list = func(ctx context.Context, prefix, after string, limit int) ([]member, error) {
			all, err := s.Users.List(ctx, "", "", 1000)
			return f(all, prefix, after, limit), err
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

// deletingBy replaces Delete by f.
func deletingBy(f func(s *users, ctx context.Context, id uuid.UUID) error) func(*users) {
	return func(s *users) {
		s.delete = func(ctx context.Context, id uuid.UUID) error { return f(s, ctx, id) }
	}
}

// meets reports whether an account meets the conditions of a change.
func (m member) meets(c account.Change) bool {
	return (c.IfEmail == nil || *c.IfEmail == m.Email) && (c.IfVersion == nil || *c.IfVersion == m.Version) &&
		(c.IfPassword == nil || c.IfPassword.Reveal() == m.HashedPassword.Reveal())
}

// without returns a change without its conditions.
func without(c account.Change) account.Change {
	c.IfEmail, c.IfPassword, c.IfVersion = nil, nil, nil
	return c
}

// isRehash reports whether a change replaces the password and keeps the tokens.
func isRehash(c account.Change) bool { return c.Password != nil && !c.RevokeTokens }

// betweenReads waits while reads that [users.delayReads] delays happen.
func betweenReads() { time.Sleep(5 * time.Millisecond / 2) }

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
		applies       = "a change is made and changes nothing else"
		condition     = "a change whose conditions hold is made"
		conflict      = "a change with a condition that does not hold is ErrConflict and changes nothing"
		conditionRace = "one of many concurrent changes with the same condition succeeds"
		newEmail      = "a new address replaces the old one, which is free then"
		takenEmail    = "a change to a taken address is ErrEmailTaken and changes nothing"
		emailRace     = "one of many accounts that take an address concurrently gets it"
		applyAdds     = "revoking adds exactly 1 to the token version"
		applyAtomic   = "all parts of a change become visible together"
		noAccount     = "a change to a missing account is ErrUserNotFound and creates none"
		changeRace    = "concurrent changes do not undo each other"
		revokeRace    = "concurrent revocations add up"
		deletes       = "a deleted account is gone, and its address is free"
		deleteMissing = "deleting a missing account is ErrUserNotFound and changes nothing"
		deleteRace    = "one of many concurrent deletes of an account succeeds"
		resurrection  = "a concurrent change does not bring a deleted account back"
		cancelled     = "a cancelled context stops every method"
		edits         = "an edit changes the application's field, and nothing else"
		editAccount   = "an edit of the account's fields is not stored"
		editRefused   = "an edit that returns an error changes nothing"
		editMissing   = "an edit of a missing account is ErrUserNotFound and creates none"
		editRace      = "concurrent edits and changes do not undo each other"
		editEnd       = "a concurrent edit does not bring a deleted account back"
		list          = "a list has the accounts of a prefix, ordered by address, in pages without gaps"
	)
	// written reads an account, edits it, waits if asked to, and writes all of it.
	written := func(wait bool) func(s *users, ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error) {
		return func(s *users, ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error) {
			m, err := s.Users.ByID(ctx, id)
			if err != nil {
				return m, err
			}
			own := m.User
			if err := edit(&m); err != nil {
				return m, err
			}
			m.User = own
			if wait {
				pause()
			}
			return m, s.Users.Update(ctx, id, func(stored *member) { *stored = m })
		}
	}
	// filtered returns the accounts that List asks for, by these rules.
	filtered := func(keep func(email, prefix string) bool, beyond func(email, after string) bool) func(all []member, prefix, after string, limit int) []member {
		return func(all []member, prefix, after string, limit int) (page []member) {
			for _, m := range all {
				if keep(m.Email, prefix) && beyond(m.Email, after) && len(page) < limit {
					page = append(page, m)
				}
			}
			return page
		}
	}
	later := func(email, after string) bool { return email > after }
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
	// onErrorOf makes Apply call f if it fails with an error, and return what f returns.
	onErrorOf := func(cause error, f func(s *users, ctx context.Context, id uuid.UUID, change account.Change) error) func(*users) {
		return applyingBy(func(s *users, ctx context.Context, id uuid.UUID, change account.Change) error {
			err := s.Users.Apply(ctx, id, change)
			if errors.Is(err, cause) {
				return f(s, ctx, id, change)
			}
			return err
		})
	}
	// byReading makes Apply read the account and check the conditions before it makes the change.
	byReading := func(condition func(account.Change) bool) func(*users) {
		return applyingBy(func(s *users, ctx context.Context, id uuid.UUID, change account.Change) error {
			if m, err := s.Users.ByID(ctx, id); err == nil && m.meets(change) && condition(change) {
				pause()
				change = without(change)
			}
			return s.Users.Apply(ctx, id, change)
		})
	}
	mustCatch(t, newUsers, func(open func(testing.TB) *users) storetest.Suite {
		return storetest.Users(newMember, func(t testing.TB) account.Store[member, uuid.UUID] { return open(t) })
	}, []broken[*users]{
		{"edits nothing", edits, editingBy(func(s *users, ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error) {
			m, err := s.Users.ByID(ctx, id)
			if err == nil {
				err = edit(&m)
			}
			return m, err
		})},
		{"returns the account before the edit", edits, editingBy(func(s *users, ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error) {
			before, _ := s.Users.ByID(ctx, id)
			_, err := s.Users.Edit(ctx, id, edit)
			return before, err
		})},
		{"forgets a field when it edits", edits, editingBy(func(s *users, ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error) {
			return s.Users.Edit(ctx, id, func(m *member) error { m.Roles = nil; return edit(m) })
		})},
		{"stores edited flags", editAccount, editingBy(func(s *users, ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error) {
			var refused error
			err := s.Users.Update(ctx, id, func(m *member) { refused = edit(m) })
			if err == nil {
				err = refused
			}
			m, _ := s.Users.ByID(ctx, id)
			return m, err
		})},
		{"returns edited flags", editAccount, editingBy(func(s *users, ctx context.Context, id uuid.UUID, edit func(*member) error) (edited member, _ error) {
			_, err := s.Users.Edit(ctx, id, func(m *member) error {
				err := edit(m)
				edited = *m
				return err
			})
			return edited, err
		})},
		{"stores a refused edit", editRefused, editingBy(func(s *users, ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error) {
			var refused error
			m, err := s.Users.Edit(ctx, id, func(m *member) error { refused = edit(m); return nil })
			if err == nil {
				err = refused
			}
			return m, err
		})},
		{"returns no error for a refused edit", editRefused, editingBy(func(s *users, ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error) {
			m, err := s.Users.Edit(ctx, id, edit)
			if !errors.Is(err, account.ErrUserNotFound) {
				err = nil
			}
			return m, err
		})},
		{"creates the account that it edits", editMissing, editingBy(func(s *users, ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error) {
			m, err := s.Users.Edit(ctx, id, edit)
			if errors.Is(err, account.ErrUserNotFound) {
				m = newMember("stranger@example.com")
				m.ID = id
				_ = s.Users.Insert(ctx, m)
			}
			return m, err
		})},
		{"reads an account, then writes it", editRace, editingBy(written(true))},
		{"writes all fields of the application", editRace, editingBy(func(s *users, ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error) {
			read, err := s.Users.ByID(ctx, id)
			if err != nil {
				return read, err
			}
			pause()
			return s.Users.Edit(ctx, id, func(m *member) error {
				edited := read
				edited.User = m.User
				err := edit(&edited)
				if err == nil {
					*m = edited
				}
				return err
			})
		})},
		{"writes the token version back with an edit", editRace, editingBy(func(s *users, ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error) {
			read, err := s.Users.ByID(ctx, id)
			if err != nil {
				return read, err
			}
			pause()
			m, err := s.Users.Edit(ctx, id, edit)
			if err == nil {
				m.Version = read.Version
				err = s.Update(ctx, id, func(stored *member) { stored.Version = read.Version })
			}
			return m, err
		})},
		{"writes a deleted account back with an edit", editEnd, editingBy(func(s *users, ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error) {
			m, err := written(false)(s, ctx, id, edit)
			if err != nil {
				return m, err
			}
			pause()
			if _, err := s.Users.ByID(ctx, id); err != nil {
				_ = s.Users.Insert(ctx, m)
			}
			return m, nil
		})},
		{"creates the account that it edits, without an address", editMissing, editingBy(func(s *users, ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error) {
			m, err := s.Users.Edit(ctx, id, edit)
			if errors.Is(err, account.ErrUserNotFound) {
				_ = s.Users.Insert(ctx, member{User: account.User[uuid.UUID]{ID: id}})
			}
			return m, err
		})},
		{"returns no error for an edit of a missing account", editMissing, editingBy(func(s *users, ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error) {
			m, err := s.Users.Edit(ctx, id, edit)
			return m, unless(err, account.ErrUserNotFound)
		})},
		{"reads an account, then writes it, even if it is gone", editEnd, editingBy(func(s *users, ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error) {
			m, err := s.Users.ByID(ctx, id)
			if err != nil {
				return m, err
			}
			pause()
			got, err := s.Users.Edit(ctx, id, edit)
			if errors.Is(err, account.ErrUserNotFound) {
				return m, s.Users.Insert(ctx, m)
			}
			return got, err
		})},
		{"edits despite a cancelled context", cancelled, editingBy(func(s *users, ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error) {
			return s.Users.Edit(context.WithoutCancel(ctx), id, edit)
		})},
		{"lists without a prefix", list, listingUsers(filtered(func(string, string) bool { return true }, later))},
		{"lists what contains the prefix", list, listingUsers(filtered(strings.Contains, later))},
		{"lists from the position on", list, listingUsers(filtered(strings.HasPrefix, func(email, after string) bool { return email >= after }))},
		{"lists the first page again", list, listingUsers(filtered(strings.HasPrefix, func(string, string) bool { return true }))},
		{"lists backwards", list, listingUsers(func(all []member, prefix, after string, limit int) []member {
			slices.Reverse(all)
			return filtered(strings.HasPrefix, later)(all, prefix, after, limit)
		})},
		{"lists in the order of a language", list, listingUsers(func(all []member, prefix, after string, limit int) []member {
			slices.SortFunc(all, func(a, b member) int { // as a collation does: without punctuation
				plain := strings.NewReplacer(".", "", "+", "", "ä", "a")
				return strings.Compare(plain.Replace(a.Email), plain.Replace(b.Email))
			})
			return filtered(strings.HasPrefix, later)(all, prefix, after, limit)
		})},
		{"lists one account less", list, listingUsers(func(all []member, prefix, after string, limit int) []member {
			return filtered(strings.HasPrefix, later)(all, prefix, after, limit-1)
		})},
		{"lists deleted accounts", list, func(s *users) {
			var mu sync.Mutex
			var deleted []member
			s.delete = func(ctx context.Context, id uuid.UUID) error {
				mu.Lock()
				defer mu.Unlock()
				if m, err := s.Users.ByID(ctx, id); err == nil {
					deleted = append(deleted, m)
				}
				return s.Users.Delete(ctx, id)
			}
			s.list = func(ctx context.Context, prefix, after string, limit int) ([]member, error) {
				all, err := s.Users.List(ctx, "", "", 1000)
				mu.Lock()
				all = append(all, deleted...)
				mu.Unlock()
				slices.SortFunc(all, func(a, b member) int { return strings.Compare(a.Email, b.Email) })
				return filtered(strings.HasPrefix, later)(all, prefix, after, limit), err
			}
		}},
		{"lists accounts by their first address", list, func(s *users) {
			var mu sync.Mutex
			first := make(map[uuid.UUID]string)
			s.insert = func(ctx context.Context, m member) error {
				mu.Lock()
				first[m.ID] = m.Email
				mu.Unlock()
				return s.Users.Insert(ctx, m)
			}
			s.list = func(ctx context.Context, prefix, after string, limit int) (page []member, _ error) {
				all, err := s.Users.List(ctx, "", "", 1000)
				mu.Lock()
				defer mu.Unlock()
				slices.SortFunc(all, func(a, b member) int { return strings.Compare(first[a.ID], first[b.ID]) })
				for _, m := range all {
					if strings.HasPrefix(first[m.ID], prefix) && first[m.ID] > after && len(page) < limit {
						page = append(page, m)
					}
				}
				return page, err
			}
		}},
		{"lists one account more", list, listingUsers(func(all []member, prefix, after string, limit int) []member {
			return filtered(strings.HasPrefix, later)(all, prefix, after, limit+1)
		})},
		{"lists accounts despite a cancelled context", cancelled, func(s *users) {
			s.list = func(ctx context.Context, prefix, after string, limit int) ([]member, error) {
				return s.Users.List(context.WithoutCancel(ctx), prefix, after, limit)
			}
		}},
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
		{"makes every account active", roundTrip, inserting(func(m *member) { m.Active = true })},
		{"forgets the token version", roundTrip, inserting(func(m *member) { m.Version = 0 })},
		{"keeps 32 bits of the token version", roundTrip, inserting(func(m *member) { m.Version = int64(int32(m.Version)) })},
		{"keeps the token version as a float", roundTrip, inserting(func(m *member) { m.Version = int64(float64(m.Version)) })},
		{"starts the token version at 1", roundTrip, inserting(func(m *member) { m.Version = max(1, m.Version) })},

		{"ignores IfEmail", conflict, applying(func(c *account.Change) { c.IfEmail = nil })},
		{"ignores IfPassword", conflict, applying(func(c *account.Change) { c.IfPassword = nil })},
		{"ignores IfVersion", conflict, applying(func(c *account.Change) { c.IfVersion = nil })},
		{"ignores the condition that an account has no password", conflict, applying(func(c *account.Change) {
			if c.IfPassword != nil && c.IfPassword.IsZero() {
				c.IfPassword = nil
			}
		})},
		{"ignores the conditions of an empty change", conflict, applying(func(c *account.Change) {
			if without(*c) == (account.Change{}) {
				*c = account.Change{}
			}
		})},
		{"finds no account without a password", condition, applying(func(c *account.Change) {
			if c.IfPassword != nil && c.IfPassword.IsZero() {
				c.IfPassword = new(account.NewPasswordHash("none"))
			}
		})},
		{"finds no version 0", condition, applying(func(c *account.Change) {
			if c.IfVersion != nil && *c.IfVersion == 0 {
				c.IfVersion = new(int64(-1))
			}
		})},
		{"compares versions in 32 bits", condition, applying(func(c *account.Change) {
			if c.IfVersion != nil {
				c.IfVersion = new(int64(int32(*c.IfVersion)))
			}
		})},
		{"accepts a version that is at least that of the condition", conflict, applyingBy(func(s *users, ctx context.Context, id uuid.UUID, change account.Change) error {
			if m, err := s.Users.ByID(ctx, id); err == nil && change.IfVersion != nil && m.Version >= *change.IfVersion {
				change.IfVersion = nil
			}
			return s.Users.Apply(ctx, id, change)
		})},
		{"takes any one condition for all", conflict, applyingBy(func(s *users, ctx context.Context, id uuid.UUID, change account.Change) error {
			m, err := s.Users.ByID(ctx, id)
			for _, one := range []account.Change{{IfEmail: change.IfEmail}, {IfPassword: change.IfPassword}, {IfVersion: change.IfVersion}} {
				if err == nil && one != (account.Change{}) && m.meets(one) {
					change = without(change)
				}
			}
			return s.Users.Apply(ctx, id, change)
		})},
		{"returns no error for a conflict", conflict, onErrorOf(account.ErrConflict, func(*users, context.Context, uuid.UUID, account.Change) error { return nil })},
		{"reports a conflict as a missing account", conflict, onErrorOf(account.ErrConflict, func(*users, context.Context, uuid.UUID, account.Change) error {
			return account.ErrUserNotFound
		})},
		{"revokes in spite of a conflict", conflict, onErrorOf(account.ErrConflict, func(s *users, ctx context.Context, id uuid.UUID, _ account.Change) error {
			_ = s.Users.Apply(ctx, id, account.Change{RevokeTokens: true})
			return account.ErrConflict
		})},
		{"reports a conflict as a taken address", conflict, applyingBy(func(s *users, ctx context.Context, id uuid.UUID, change account.Change) error {
			if change.Email != nil {
				if other, err := s.Users.ByEmail(ctx, *change.Email); err == nil && other.ID != id {
					return account.ErrEmailTaken
				}
			}
			return s.Users.Apply(ctx, id, change)
		})},
		{"reads the password, then replaces it", conditionRace, byReading(func(c account.Change) bool { return c.IfPassword != nil })},
		{"reads the version, then raises it", conditionRace, byReading(func(c account.Change) bool { return c.IfVersion != nil })},
		{"reads the address, then replaces it", conditionRace, byReading(func(c account.Change) bool { return c.IfEmail != nil })},

		{"does not change the address", applies, applying(func(c *account.Change) { c.Email = nil })},
		{"keeps the old address taken", newEmail, func(s *users) {
			var mu sync.Mutex
			old := make(map[string]bool)
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				before, _ := s.Users.ByID(ctx, id)
				err := s.Users.Apply(ctx, id, change)
				if err == nil && change.Email != nil && *change.Email != before.Email {
					mu.Lock()
					defer mu.Unlock()
					old[before.Email] = true
				}
				return err
			}
			s.insert = func(ctx context.Context, m member) error {
				mu.Lock()
				defer mu.Unlock()
				if old[m.Email] {
					return account.ErrEmailTaken
				}
				return s.Users.Insert(ctx, m)
			}
		}},
		{"finds an account by its old address too", newEmail, func(s *users) {
			var mu sync.Mutex
			old := make(map[string]uuid.UUID)
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				before, _ := s.Users.ByID(ctx, id)
				err := s.Users.Apply(ctx, id, change)
				if err == nil && change.Email != nil && *change.Email != before.Email {
					mu.Lock()
					defer mu.Unlock()
					old[before.Email] = id
				}
				return err
			}
			s.byEmail = func(ctx context.Context, email string) (member, error) {
				m, err := s.Users.ByEmail(ctx, email)
				mu.Lock()
				defer mu.Unlock()
				if id, ok := old[email]; err != nil && ok {
					return s.Users.ByID(ctx, id)
				}
				return m, err
			}
		}},
		{"takes an account's own address for taken", newEmail, applyingBy(func(s *users, ctx context.Context, id uuid.UUID, change account.Change) error {
			if change.Email != nil {
				if _, err := s.Users.ByEmail(ctx, *change.Email); err == nil {
					return account.ErrEmailTaken
				}
			}
			return s.Users.Apply(ctx, id, change)
		})},
		{"returns no error for a change to a taken address", takenEmail, onErrorOf(account.ErrEmailTaken, func(*users, context.Context, uuid.UUID, account.Change) error { return nil })},
		{"reports a change to a taken address as a conflict", takenEmail, onErrorOf(account.ErrEmailTaken, func(*users, context.Context, uuid.UUID, account.Change) error {
			return account.ErrConflict
		})},
		{"takes an address from another account", takenEmail, onErrorOf(account.ErrEmailTaken, func(s *users, ctx context.Context, id uuid.UUID, change account.Change) error {
			if other, err := s.Users.ByEmail(ctx, *change.Email); err == nil {
				_ = s.Users.Delete(ctx, other.ID)
			}
			return s.Users.Apply(ctx, id, change)
		})},
		{"makes the rest of a change to a taken address", takenEmail, onErrorOf(account.ErrEmailTaken, func(s *users, ctx context.Context, id uuid.UUID, change account.Change) error {
			change.Email = nil
			_ = s.Users.Apply(ctx, id, change)
			return account.ErrEmailTaken
		})},
		{"checks whether an address is taken, then takes it", emailRace, applyingBy(func(s *users, ctx context.Context, id uuid.UUID, change account.Change) error {
			if change.Email == nil {
				return s.Users.Apply(ctx, id, change)
			}
			if other, err := s.Users.ByEmail(ctx, *change.Email); err == nil && other.ID != id {
				return account.ErrEmailTaken
			}
			pause()
			return unless(s.Users.Apply(ctx, id, change), account.ErrEmailTaken)
		})},

		{"does not change the password", applies, applying(func(c *account.Change) { c.Password = nil })},
		{"does not remove the password", applies, applying(func(c *account.Change) {
			if c.Password != nil && c.Password.IsZero() {
				c.Password = nil
			}
		})},
		{"does not verify", applies, applying(func(c *account.Change) { c.Verified = nil })},
		{"does not make superusers", applies, applying(func(c *account.Change) { c.Superuser = nil })},
		{"verifies with every change", applies, also(func(m *member, _ account.Change) { m.Verified = true })},
		{"verifies a new address", applies, also(func(m *member, c account.Change) { m.Verified = m.Verified || c.Email != nil })},
		{"changes the password of all accounts without one", applies, also(func(m *member, _ account.Change) {
			if m.HashedPassword.IsZero() {
				m.HashedPassword = account.NewPasswordHash("changed")
			}
		})},
		{"does not revoke with the password", applyAdds, applying(func(c *account.Change) { c.RevokeTokens = c.RevokeTokens && c.Password == nil })},
		{"revokes with a rehash", applyAdds, applying(func(c *account.Change) { c.RevokeTokens = c.RevokeTokens || c.Password != nil })},
		{"removes the token version with a rehash", applyAdds, also(func(m *member, c account.Change) {
			if isRehash(c) {
				m.Version = 0
			}
		})},
		{"replaces the password, then revokes", applyAtomic, func(s *users) {
			s.delayReads()
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				revoke := change.RevokeTokens
				change.RevokeTokens = false
				err := s.Users.Apply(ctx, id, change)
				if err == nil && revoke {
					betweenReads()
					err = s.Users.Apply(ctx, id, account.Change{RevokeTokens: true})
				}
				return err
			}
		}},
		{"revokes, then replaces the password", applyAtomic, func(s *users) {
			s.delayReads()
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				if m, err := s.Users.ByID(ctx, id); err == nil && m.meets(change) && change.RevokeTokens {
					if err := s.Users.Apply(ctx, id, account.Change{RevokeTokens: true}); err != nil {
						return err
					}
					betweenReads()
					change.RevokeTokens, change.IfVersion = false, nil
				}
				return s.Users.Apply(ctx, id, change)
			}
		}},
		{"changes the address, then the rest", applyAtomic, func(s *users) {
			s.delayReads()
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				if change.Email == nil {
					return s.Users.Apply(ctx, id, change)
				}
				if err := s.Users.Apply(ctx, id, account.Change{IfEmail: change.IfEmail, Email: change.Email}); err != nil {
					return err
				}
				betweenReads()
				change.Email, change.IfEmail = nil, nil
				return s.Users.Apply(ctx, id, change)
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
		{"reads the token version, then writes it with the password", changeRace, applyingBy(func(s *users, ctx context.Context, id uuid.UUID, change account.Change) error {
			read, err := s.Users.ByID(ctx, id)
			if err != nil {
				return err
			}
			if change.Password == nil || !change.RevokeTokens {
				return s.Users.Apply(ctx, id, change)
			}
			pause()
			change.RevokeTokens = false
			if err := s.Users.Apply(ctx, id, change); err != nil {
				return err
			}
			return s.Update(ctx, id, func(m *member) { m.Version = read.Version + 1 })
		})},
		{"writes the token version back with a rehash", revokeRace, applyingBy(func(s *users, ctx context.Context, id uuid.UUID, change account.Change) error {
			read, err := s.Users.ByID(ctx, id)
			if err != nil {
				return err
			}
			if !isRehash(change) {
				return s.Users.Apply(ctx, id, change)
			}
			pause()
			if err := s.Users.Apply(ctx, id, change); err != nil {
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
		{"deletes despite a cancelled context", cancelled, deletingBy(func(s *users, ctx context.Context, id uuid.UUID) error {
			return s.Users.Delete(context.WithoutCancel(ctx), id)
		})},
		{"accepts an empty change despite a cancelled context", cancelled, applyingBy(func(s *users, ctx context.Context, id uuid.UUID, change account.Change) error {
			if change == (account.Change{}) {
				ctx = context.WithoutCancel(ctx)
			}
			return s.Users.Apply(ctx, id, change)
		})},

		{"reports a deletion without making it", deletes, deletingBy(func(s *users, ctx context.Context, id uuid.UUID) error {
			_, err := s.Users.ByID(ctx, id)
			return err
		})},
		{"deactivates instead of deleting", deletes, deletingBy(func(s *users, ctx context.Context, id uuid.UUID) error {
			return s.Users.Apply(ctx, id, account.Change{Active: new(false), RevokeTokens: true})
		})},
		{"keeps the address of a deleted account taken", deletes, func(s *users) {
			var mu sync.Mutex
			deleted := make(map[string]bool)
			s.delete = func(ctx context.Context, id uuid.UUID) error {
				m, _ := s.Users.ByID(ctx, id)
				err := s.Users.Delete(ctx, id)
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					deleted[m.Email] = true
				}
				return err
			}
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				mu.Lock()
				defer mu.Unlock()
				if change.Email != nil && deleted[*change.Email] {
					return account.ErrEmailTaken
				}
				return s.Users.Apply(ctx, id, change)
			}
		}},
		{"hides a deleted ID forever", deletes, func(s *users) {
			var mu sync.Mutex
			deleted := make(map[uuid.UUID]bool)
			s.delete = func(ctx context.Context, id uuid.UUID) error {
				err := s.Users.Delete(ctx, id)
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					deleted[id] = true
				}
				return err
			}
			s.insert = func(ctx context.Context, m member) error {
				mu.Lock()
				defer mu.Unlock()
				if deleted[m.ID] {
					return account.ErrConflict
				}
				return s.Users.Insert(ctx, m)
			}
		}},
		{"reports success for the deletion of a missing account", deleteMissing, deletingBy(func(s *users, ctx context.Context, id uuid.UUID) error {
			return unless(s.Users.Delete(ctx, id), account.ErrUserNotFound)
		})},
		{"deletes the account with the address of one that is gone", deleteMissing, func(s *users) {
			var mu sync.Mutex
			emails := make(map[uuid.UUID]string)
			s.insert = func(ctx context.Context, m member) error {
				mu.Lock()
				defer mu.Unlock()
				emails[m.ID] = m.Email
				return s.Users.Insert(ctx, m)
			}
			s.delete = func(ctx context.Context, id uuid.UUID) error {
				mu.Lock()
				defer mu.Unlock()
				err := s.Users.Delete(ctx, id)
				if m, gone := s.Users.ByEmail(ctx, emails[id]); err != nil && gone == nil {
					_ = s.Users.Delete(ctx, m.ID)
				}
				return err
			}
		}},
		{"reads an account, then deletes it", deleteRace, deletingBy(func(s *users, ctx context.Context, id uuid.UUID) error {
			if _, err := s.Users.ByID(ctx, id); err != nil {
				return err
			}
			pause()
			return unless(s.Users.Delete(ctx, id), account.ErrUserNotFound)
		})},
		{"writes a deleted account back with a change", resurrection, applyingBy(func(s *users, ctx context.Context, id uuid.UUID, change account.Change) error {
			read, err := s.Users.ByID(ctx, id)
			if err != nil {
				return err
			}
			pause()
			err = s.Users.Apply(ctx, id, change)
			if errors.Is(err, account.ErrUserNotFound) {
				return s.Users.Insert(ctx, read)
			}
			return err
		})},
	})
}
