package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"testing"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// RunUsers checks an account.Store. Each subtest calls open, which must return an empty store.
//
// newUser makes users to store. It must be safe for concurrent use. Each user must have
//
//   - an ID of its own and the given e-mail address,
//   - a value in every other field of account.User and of the application's type,
//   - times in UTC and whole milliseconds,
//
// and must be equal by [reflect.DeepEqual] to what the store returns for it.
func RunUsers[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]](t *testing.T, newUser func(email string) U, open func(testing.TB) account.Store[U, ID]) {
	t.Helper()
	userSuite[U, ID, P](newUser, open).run(t)
}

func userSuite[U any, ID comparable, P account.Embeds[U, ID]](newUser func(email string) U, open func(testing.TB) account.Store[U, ID]) suite[userStore[U, ID]] {
	return suite[userStore[U, ID]]{
		open: func(t testing.TB) userStore[U, ID] { return newUserStore[U, ID, P](open(t), newUser) },
		checks: []check[userStore[U, ID]]{
			{"every field is returned as it was stored", userRoundTrip[U, ID]},
			{"a missing account is ErrUserNotFound", userMissing[U, ID]},
			{"a taken address is ErrEmailTaken and changes nothing", emailTaken[U, ID]},
			{"a taken ID is ErrConflict and changes nothing", userIDTaken[U, ID]},
			{"one of many concurrent inserts of an address succeeds", emailRace[U, ID]},
			{"replacing a password changes nothing else", replacePassword[U, ID]},
			{"replacing a password that has changed is ErrConflict", replaceConflict[U, ID]},
			{"one of many concurrent replacements of a password succeeds", replaceRace[U, ID]},
			{"replacing a password adds 1 to the token version if it revokes", replaceRevokes[U, ID]},
			{"a new password and its token version become visible together", replaceAtomic[U, ID]},
			{"a change is made and changes nothing else", apply[U, ID]},
			{"revoking adds exactly 1 to the token version", applyRevokes[U, ID]},
			{"an inactive account and its token version become visible together", applyAtomic[U, ID]},
			{"a change to a missing account is ErrUserNotFound and creates none", applyMissing[U, ID]},
			{"concurrent changes do not undo each other", applyRace[U, ID]},
			{"concurrent revocations add up", revokeRace[U, ID]},
			{"a cancelled context stops every method", userCancelled[U, ID]},
		},
	}
}

// userStore is the store under test.
type userStore[U any, ID comparable] struct {
	account.Store[U, ID]
	newUser func(email string) U
	of      func(*U) *account.User[ID]
}

func newUserStore[U any, ID comparable, P account.Embeds[U, ID]](store account.Store[U, ID], newUser func(email string) U) userStore[U, ID] {
	return userStore[U, ID]{store, newUser, func(u *U) *account.User[ID] { return P(u).Account() }}
}

const ann = "ann@example.com"

// insert stores a new user.
func (s userStore[U, ID]) insert(ctx context.Context, email string) (U, error) {
	user := s.newUser(email)
	if err := s.Insert(ctx, user); err != nil {
		return user, fmt.Errorf("Insert: %w", err)
	}
	return user, nil
}

// insertVersion stores a new, active user with a token version.
func (s userStore[U, ID]) insertVersion(ctx context.Context, email string, version int64) (U, error) {
	user := s.newUser(email)
	s.of(&user).Active, s.of(&user).Version = true, version
	if err := s.Insert(ctx, user); err != nil {
		return user, fmt.Errorf("Insert: %w", err)
	}
	return user, nil
}

// holds returns an error unless the store finds exactly this user, by ID and by address.
func (s userStore[U, ID]) holds(ctx context.Context, want U) error {
	byID, err := s.ByID(ctx, s.of(&want).ID)
	if err != nil {
		return fmt.Errorf("ByID: %w", err)
	}
	byEmail, err := s.ByEmail(ctx, s.of(&want).Email)
	if err != nil {
		return fmt.Errorf("ByEmail: %w", err)
	}
	return errors.Join(s.same("ByID", byID, want), s.same("ByEmail", byEmail, want))
}

func (s userStore[U, ID]) same(op string, got, want U) error {
	if string(s.of(&got).HashedPassword) != string(s.of(&want).HashedPassword) {
		return fmt.Errorf("%s: HashedPassword is not the one that was stored", op)
	}
	if got, want := s.of(&got).Version, s.of(&want).Version; got != want {
		return fmt.Errorf("%s: Version is %d, want %d", op, got, want)
	}
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("%s returned\n%+v, want\n%+v", op, got, want)
	}
	return nil
}

func userRoundTrip[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	users := []U{s.newUser(ann), s.newUser("älter.o'neill+tag@bücher.example")}
	opposite := s.newUser("opposite@example.com")
	a := s.of(&opposite)
	a.Active, a.Verified, a.Superuser, a.HashedPassword = !a.Active, !a.Verified, !a.Superuser, ""
	users = append(users, opposite)
	for _, version := range []int64{0, 1, math.MaxInt32 + 1, 1<<53 + 1, math.MaxInt64} {
		user := s.newUser(fmt.Sprintf("version%d@example.com", version))
		s.of(&user).Version = version
		users = append(users, user)
	}
	for _, user := range users {
		if err := s.Insert(ctx, user); err != nil {
			return fmt.Errorf("Insert: %w", err)
		}
	}
	for _, user := range users {
		if err := s.holds(ctx, user); err != nil {
			return err
		}
	}
	return nil
}

func userMissing[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	if _, err := s.insert(ctx, ann); err != nil {
		return err
	}
	stranger := s.newUser("stranger@example.com")
	got, err := s.ByID(ctx, s.of(&stranger).ID)
	if err := wantError("ByID", got, err, account.ErrUserNotFound); err != nil {
		return err
	}
	got, err = s.ByEmail(ctx, s.of(&stranger).Email)
	return wantError("ByEmail", got, err, account.ErrUserNotFound)
}

func emailTaken[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	first, err := s.insert(ctx, ann)
	if err != nil {
		return err
	}
	second := s.newUser(ann)
	if err := wantError("Insert of a taken address", nil, s.Insert(ctx, second), account.ErrEmailTaken); err != nil {
		return err
	}
	got, err := s.ByID(ctx, s.of(&second).ID)
	return errors.Join(s.holds(ctx, first), wantError("ByID of the refused account", got, err, account.ErrUserNotFound))
}

func userIDTaken[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	first, err := s.insert(ctx, ann)
	if err != nil {
		return err
	}
	second := s.newUser("second@example.com")
	s.of(&second).ID = s.of(&first).ID
	if err := wantError("Insert of a taken ID", nil, s.Insert(ctx, second), account.ErrConflict); err != nil {
		return err
	}
	got, err := s.ByEmail(ctx, "second@example.com")
	return errors.Join(s.holds(ctx, first), wantError("ByEmail of the refused account", got, err, account.ErrUserNotFound))
}

func emailRace[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	var users []U
	for range 16 {
		users = append(users, s.newUser(ann))
	}
	winner, err := oneWins("Insert of an address", len(users), account.ErrEmailTaken, func(i int) error {
		return s.Insert(ctx, users[i])
	})
	if err != nil {
		return err
	}
	return s.holds(ctx, users[winner])
}

func replacePassword[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	user, err := s.insert(ctx, ann)
	if err != nil {
		return err
	}
	other, err := s.insert(ctx, "other@example.com")
	if err != nil {
		return err
	}
	a := s.of(&user)
	if err := s.ReplacePassword(ctx, a.ID, a.HashedPassword, "new", false); err != nil {
		return fmt.Errorf("ReplacePassword: %w", err)
	}
	a.HashedPassword = "new"
	return errors.Join(s.holds(ctx, user), s.holds(ctx, other))
}

func replaceConflict[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	user, err := s.insert(ctx, ann)
	if err != nil {
		return err
	}
	if err := wantError("ReplacePassword of a hash that is not the account's", nil,
		s.ReplacePassword(ctx, s.of(&user).ID, "another", "new", true), account.ErrConflict); err != nil {
		return err
	}
	stranger := s.newUser("stranger@example.com")
	if err := wantError("ReplacePassword of a missing account", nil,
		s.ReplacePassword(ctx, s.of(&stranger).ID, "another", "new", true), account.ErrConflict); err != nil {
		return err
	}
	got, err := s.ByID(ctx, s.of(&stranger).ID)
	return errors.Join(s.holds(ctx, user), wantError("ByID of a missing account", got, err, account.ErrUserNotFound))
}

func replaceRace[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	user, err := s.insert(ctx, ann)
	if err != nil {
		return err
	}
	a := s.of(&user)
	id, old := a.ID, a.HashedPassword
	hash := func(i int) account.PasswordHash { return account.PasswordHash(fmt.Sprint("new ", i)) }
	winner, err := oneWins("ReplacePassword", 8, account.ErrConflict, func(i int) error {
		return s.ReplacePassword(ctx, id, old, hash(i), i%2 == 0)
	})
	if err != nil {
		return err
	}
	a.HashedPassword = hash(winner)
	if winner%2 == 0 {
		a.Version++
	}
	return s.holds(ctx, user)
}

// startVersions are token versions before a revocation: missing, present, and close to the
// limit of 32 bits.
var startVersions = []int64{0, 1, 41, math.MaxInt32 - 1}

func replaceRevokes[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	other, err := s.insertVersion(ctx, "other@example.com", 5)
	if err != nil {
		return err
	}
	for _, version := range startVersions {
		user, err := s.insertVersion(ctx, fmt.Sprintf("version%d@example.com", version), version)
		if err != nil {
			return err
		}
		a := s.of(&user)
		for i, revoke := range []bool{false, true, true, false, true} {
			hash := account.PasswordHash(fmt.Sprint("new ", i))
			if err := s.ReplacePassword(ctx, a.ID, a.HashedPassword, hash, revoke); err != nil {
				return fmt.Errorf("ReplacePassword: %w", err)
			}
			a.HashedPassword = hash
			if revoke {
				a.Version++
			}
			if err := s.holds(ctx, user); err != nil {
				return fmt.Errorf("after ReplacePassword that revokes: %v: %w", revoke, err)
			}
		}
		if err := wantError("ReplacePassword of a hash that is not the account's", nil,
			s.ReplacePassword(ctx, a.ID, "another", "new", true), account.ErrConflict); err != nil {
			return err
		}
		if err := errors.Join(s.holds(ctx, user), s.holds(ctx, other)); err != nil {
			return fmt.Errorf("after a conflict: %w", err)
		}
	}
	return nil
}

// becomesVisibleAtOnce makes a change to an account while other goroutines read it. Each read
// must return the account before or after the change, never with a part of it.
func (s userStore[U, ID]) becomesVisibleAtOnce(ctx context.Context, before, after U, change func() error) error {
	id, email := s.of(&before).ID, s.of(&before).Email
	err := concurrently(5, func(i int) error {
		if i == 0 {
			return change()
		}
		for n := range 8 {
			var got U
			var err error
			if n%2 == 0 {
				got, err = s.ByID(ctx, id)
			} else {
				got, err = s.ByEmail(ctx, email)
			}
			if err != nil {
				return err
			}
			if s.same("", got, before) != nil && s.same("", got, after) != nil {
				return fmt.Errorf("a concurrent read returned\n%+v, want the account before the change\n%+v, or after it\n%+v", got, before, after)
			}
		}
		return nil
	})
	return errors.Join(err, s.holds(ctx, after))
}

func replaceAtomic[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	for round := range rounds {
		before, err := s.insertVersion(ctx, fmt.Sprintf("ann%d@example.com", round), int64(round))
		if err != nil {
			return err
		}
		after := before
		a := s.of(&after)
		old := a.HashedPassword
		a.HashedPassword = "new"
		a.Version++
		err = s.becomesVisibleAtOnce(ctx, before, after, func() error {
			return s.ReplacePassword(ctx, a.ID, old, "new", true)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func applyAtomic[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	for round := range rounds {
		before, err := s.insertVersion(ctx, fmt.Sprintf("ann%d@example.com", round), int64(round))
		if err != nil {
			return err
		}
		after, no := before, false
		a := s.of(&after)
		a.Active = false
		a.Version++
		err = s.becomesVisibleAtOnce(ctx, before, after, func() error {
			return s.Apply(ctx, a.ID, account.Change{Active: &no, RevokeTokens: true})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// applyAll makes changes one after the other. After each, the account must have the change,
// and nothing else may be different.
func (s userStore[U, ID]) applyAll(ctx context.Context, user U, changes ...account.Change) error {
	a := s.of(&user)
	for _, change := range changes {
		op := fmt.Sprintf("Apply of RevokeTokens: %v", change.RevokeTokens)
		if change.Active != nil {
			a.Active = *change.Active
			op = fmt.Sprintf("%s, Active: %v", op, a.Active)
		}
		if change.RevokeTokens {
			a.Version++
		}
		if err := s.Apply(ctx, a.ID, change); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
		if err := s.holds(ctx, user); err != nil {
			return fmt.Errorf("after %s: %w", op, err)
		}
	}
	return nil
}

func apply[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	other, err := s.insertVersion(ctx, "other@example.com", 5)
	if err != nil {
		return err
	}
	yes, no := true, false
	for _, version := range []int64{0, 41} {
		user, err := s.insertVersion(ctx, fmt.Sprintf("version%d@example.com", version), version)
		if err != nil {
			return err
		}
		err = s.applyAll(ctx, user,
			account.Change{},
			account.Change{Active: &no},
			account.Change{Active: &no},
			account.Change{Active: &yes},
			account.Change{RevokeTokens: true},
			account.Change{Active: &no, RevokeTokens: true},
			account.Change{RevokeTokens: true},
			account.Change{Active: &yes, RevokeTokens: true},
			account.Change{},
		)
		if err := errors.Join(err, s.holds(ctx, other)); err != nil {
			return err
		}
	}
	return nil
}

func applyRevokes[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	for _, version := range startVersions {
		user, err := s.insertVersion(ctx, fmt.Sprintf("version%d@example.com", version), version)
		if err != nil {
			return err
		}
		revoke := account.Change{RevokeTokens: true}
		if err := s.applyAll(ctx, user, revoke, revoke, revoke, account.Change{}, revoke); err != nil {
			return fmt.Errorf("from version %d: %w", version, err)
		}
	}
	return nil
}

func applyMissing[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	user, err := s.insert(ctx, ann)
	if err != nil {
		return err
	}
	stranger := s.newUser("stranger@example.com")
	id, yes := s.of(&stranger).ID, true
	for _, change := range []account.Change{{Active: &yes, RevokeTokens: true}, {Active: &yes}, {RevokeTokens: true}, {}} {
		if err := wantError("Apply to a missing account", nil, s.Apply(ctx, id, change), account.ErrUserNotFound); err != nil {
			return err
		}
		got, err := s.ByID(ctx, id)
		if err := wantError("ByID of a missing account", got, err, account.ErrUserNotFound); err != nil {
			return err
		}
	}
	return s.holds(ctx, user)
}

func applyRace[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	for round := range rounds {
		user, err := s.insertVersion(ctx, fmt.Sprintf("ann%d@example.com", round), int64(round))
		if err != nil {
			return err
		}
		a := s.of(&user)
		id, old, no := a.ID, a.HashedPassword, false
		err = concurrently(6, func(i int) error {
			switch i {
			case 0:
				return s.Apply(ctx, id, account.Change{Active: &no})
			case 1:
				return s.ReplacePassword(ctx, id, old, "new", true)
			default:
				return s.Apply(ctx, id, account.Change{RevokeTokens: true})
			}
		})
		if err != nil {
			return err
		}
		a.Active, a.HashedPassword = false, "new"
		a.Version += 5
		if err := s.holds(ctx, user); err != nil {
			return fmt.Errorf("after concurrent changes: %w", err)
		}
	}
	return nil
}

func revokeRace[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	const revocations = 8
	for round := range rounds {
		user, err := s.insertVersion(ctx, fmt.Sprintf("ann%d@example.com", round), int64(round))
		if err != nil {
			return err
		}
		a := s.of(&user)
		id, old := a.ID, a.HashedPassword
		err = concurrently(revocations+1, func(i int) error {
			if i == 0 { // a rehash, which revokes nothing
				return s.ReplacePassword(ctx, id, old, "rehashed", false)
			}
			return s.Apply(ctx, id, account.Change{RevokeTokens: true})
		})
		if err != nil {
			return err
		}
		a.HashedPassword = "rehashed"
		a.Version += revocations
		if err := s.holds(ctx, user); err != nil {
			return fmt.Errorf("after %d concurrent revocations: %w", revocations, err)
		}
	}
	return nil
}

func userCancelled[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	user, err := s.insert(ctx, ann)
	if err != nil {
		return err
	}
	dead := cancelledContext(ctx)
	a := s.of(&user)
	_, byID := s.ByID(dead, a.ID)
	_, byEmail := s.ByEmail(dead, a.Email)
	for op, err := range map[string]error{
		"ByID":            byID,
		"ByEmail":         byEmail,
		"Insert":          s.Insert(dead, s.newUser("late@example.com")),
		"ReplacePassword": s.ReplacePassword(dead, a.ID, a.HashedPassword, "new", true),
		"Apply":           s.Apply(dead, a.ID, account.Change{RevokeTokens: true}),
	} {
		if err := wantError(op, nil, err, context.Canceled); err != nil {
			return err
		}
	}
	got, err := s.ByEmail(ctx, "late@example.com")
	return errors.Join(s.holds(ctx, user), wantError("ByEmail", got, err, account.ErrUserNotFound))
}
