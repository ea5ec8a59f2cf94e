package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// RunUsers checks an account.Store, each line of its contract on a store that
// open returns empty. newUser makes users to store: each call another ID and the
// given e-mail address, every field of account.User and of the application's own
// set, times in UTC and whole milliseconds, and comparable by reflect.DeepEqual
// after a round trip. It must be safe for concurrent use.
func RunUsers[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]](t *testing.T, newUser func(email string) U, open func(testing.TB) account.Store[U, ID]) {
	t.Helper()
	of := func(u *U) *account.User[ID] { return P(u).Account() }
	for _, c := range userChecks[U, ID]() {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			if err := c.run(ctx, userStore[U, ID]{open(t), newUser, of}); err != nil {
				t.Error(err)
			}
		})
	}
}

type userCheck[U any, ID comparable] struct {
	name string
	run  func(context.Context, userStore[U, ID]) error
}

func userChecks[U any, ID comparable]() []userCheck[U, ID] {
	return []userCheck[U, ID]{
		{"every field comes back as it was stored", userRoundTrip[U, ID]},
		{"a missing account is ErrUserNotFound", userMissing[U, ID]},
		{"a taken address is ErrEmailTaken and changes nothing", emailTaken[U, ID]},
		{"a taken ID is ErrConflict and changes nothing", userIDTaken[U, ID]},
		{"one of many that take an address at once succeeds", emailRace[U, ID]},
		{"replacing a password touches nothing else", replacePassword[U, ID]},
		{"replacing a password that has changed is ErrConflict", replaceConflict[U, ID]},
		{"one of many that replace a password at once succeeds", replaceRace[U, ID]},
		{"replacing a password moves not-before on in the same update", replacePostpones[U, ID]},
		{"a change is made and touches nothing else", apply[U, ID]},
		{"not-before is moved on by a millisecond at least", applyForwards[U, ID]},
		{"a change to a missing account is ErrUserNotFound and makes none", applyMissing[U, ID]},
		{"changes at once do not undo each other", applyRace[U, ID]},
		{"a cancelled context stops every method", userCancelled[U, ID]},
	}
}

// userStore is the store under test.
type userStore[U any, ID comparable] struct {
	account.Store[U, ID]
	newUser func(email string) U
	of      func(*U) *account.User[ID]
}

const somebody = "somebody@example.com"

func (s userStore[U, ID]) insert(ctx context.Context, email string) (U, error) {
	user := s.newUser(email)
	if err := s.Insert(ctx, user); err != nil {
		return user, fmt.Errorf("Insert: %w", err)
	}
	return user, nil
}

// holds says what is wrong where the store does not return exactly this user,
// by its ID and by its address.
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
		return fmt.Errorf("%s: HashedPassword is another", op)
	}
	if got, want := s.of(&got).NotBefore, s.of(&want).NotBefore; !got.Equal(want) {
		return fmt.Errorf("%s: NotBefore is %v, want %v", op, got, want)
	}
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("%s returned\n%+v, want\n%+v", op, got, want)
	}
	return nil
}

// variety returns users that differ in which of their fields are set.
func (s userStore[U, ID]) variety() []U {
	third := s.newUser("third@example.com")
	// No limit, and the other values of the flags, come back as such too.
	a := s.of(&third)
	a.Active, a.Verified, a.Superuser, a.HashedPassword, a.NotBefore = !a.Active, !a.Verified, !a.Superuser, "", time.Time{}
	return []U{s.newUser(somebody), s.newUser("älter.o'neill+tag@bücher.example"), third}
}

func userRoundTrip[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	users := s.variety()
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
	if _, err := s.insert(ctx, somebody); err != nil {
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
	first, err := s.insert(ctx, somebody)
	if err != nil {
		return err
	}
	second := s.newUser(somebody)
	if err := wantError("Insert of a taken address", nil, s.Insert(ctx, second), account.ErrEmailTaken); err != nil {
		return err
	}
	got, err := s.ByID(ctx, s.of(&second).ID)
	return errors.Join(s.holds(ctx, first), wantError("ByID of the refused", got, err, account.ErrUserNotFound))
}

func userIDTaken[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	first, err := s.insert(ctx, somebody)
	if err != nil {
		return err
	}
	second := s.newUser("second@example.com")
	s.of(&second).ID = s.of(&first).ID
	if err := wantError("Insert of a taken ID", nil, s.Insert(ctx, second), account.ErrConflict); err != nil {
		return err
	}
	got, err := s.ByEmail(ctx, "second@example.com")
	return errors.Join(s.holds(ctx, first), wantError("ByEmail of the refused", got, err, account.ErrUserNotFound))
}

func emailRace[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	var stored atomic.Int64
	err := atOnce(16, func(int) error {
		err := s.Insert(ctx, s.newUser(somebody))
		if errors.Is(err, account.ErrEmailTaken) {
			return nil
		}
		if err == nil {
			stored.Add(1)
		}
		return err
	})
	if err != nil {
		return err
	}
	if n := stored.Load(); n != 1 {
		return fmt.Errorf("%d inserts of one address succeeded, want 1", n)
	}
	return nil
}

func replacePassword[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	user, err := s.insert(ctx, somebody)
	if err != nil {
		return err
	}
	other, err := s.insert(ctx, "other@example.com")
	if err != nil {
		return err
	}
	a := s.of(&user)
	if err := s.ReplacePassword(ctx, a.ID, a.HashedPassword, "new", time.Time{}); err != nil {
		return fmt.Errorf("ReplacePassword: %w", err)
	}
	a.HashedPassword = "new"
	return errors.Join(s.holds(ctx, user), s.holds(ctx, other))
}

func replaceConflict[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	user, err := s.insert(ctx, somebody)
	if err != nil {
		return err
	}
	if err := wantError("ReplacePassword of another hash", nil,
		s.ReplacePassword(ctx, s.of(&user).ID, "another", "new", instant), account.ErrConflict); err != nil {
		return err
	}
	stranger := s.newUser("stranger@example.com")
	if err := wantError("ReplacePassword of no account", nil,
		s.ReplacePassword(ctx, s.of(&stranger).ID, "another", "new", instant), account.ErrConflict); err != nil {
		return err
	}
	got, err := s.ByID(ctx, s.of(&stranger).ID)
	return errors.Join(s.holds(ctx, user), wantError("ByID of no account", got, err, account.ErrUserNotFound))
}

func replaceRace[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	user, err := s.limited(ctx, somebody, time.Time{})
	if err != nil {
		return err
	}
	a := s.of(&user)
	old := a.HashedPassword
	var replaced atomic.Int64
	var last atomic.Pointer[account.PasswordHash]
	var notBefore atomic.Pointer[time.Time]
	err = atOnce(8, func(i int) error {
		hash := account.PasswordHash(fmt.Sprint("new ", i))
		at := instant.AddDate(0, 0, i)
		err := s.ReplacePassword(ctx, a.ID, old, hash, at)
		if errors.Is(err, account.ErrConflict) {
			return nil
		}
		if err == nil {
			replaced.Add(1)
			last.Store(&hash)
			notBefore.Store(&at)
		}
		return err
	})
	if err != nil {
		return err
	}
	if n := replaced.Load(); n != 1 {
		return fmt.Errorf("%d replacements of one hash succeeded, want 1", n)
	}
	a.HashedPassword, a.NotBefore = *last.Load(), *notBefore.Load()
	return s.holds(ctx, user)
}

// limited stores an account with a not-before, or with none for the zero time.
func (s userStore[U, ID]) limited(ctx context.Context, email string, notBefore time.Time) (U, error) {
	user := s.newUser(email)
	s.of(&user).NotBefore = notBefore
	if err := s.Insert(ctx, user); err != nil {
		return user, fmt.Errorf("Insert: %w", err)
	}
	return user, nil
}

// movedOn is a not-before after a change to another one.
func movedOn(from, to time.Time) time.Time {
	switch {
	case to.IsZero():
		return from
	case !to.After(from):
		return from.Add(time.Millisecond)
	}
	return to
}

func replacePostpones[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	user, err := s.limited(ctx, somebody, time.Time{})
	if err != nil {
		return err
	}
	a := s.of(&user)
	for i, at := range []time.Time{{}, instant, instant, instant.Add(2 * time.Millisecond), instant.Add(-time.Hour), {}, instant.Add(time.Hour)} {
		hash := account.PasswordHash(fmt.Sprint("new ", i))
		if err := s.ReplacePassword(ctx, a.ID, a.HashedPassword, hash, at); err != nil {
			return fmt.Errorf("ReplacePassword: %w", err)
		}
		a.HashedPassword, a.NotBefore = hash, movedOn(a.NotBefore, at)
		if err := s.holds(ctx, user); err != nil {
			return fmt.Errorf("after ReplacePassword with the not-before %v: %w", at, err)
		}
	}
	// Where nothing is replaced, nothing is postponed.
	if err := wantError("ReplacePassword of another hash", nil,
		s.ReplacePassword(ctx, a.ID, "another", "new", instant.AddDate(1, 0, 0)), account.ErrConflict); err != nil {
		return err
	}
	if err := s.holds(ctx, user); err != nil {
		return fmt.Errorf("after a conflict: %w", err)
	}
	return nil
}

func apply[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	other, err := s.limited(ctx, "other@example.com", instant)
	if err != nil {
		return err
	}
	yes, no := true, false
	for i, at := range []time.Time{{}, instant.Add(-time.Hour)} {
		user, err := s.limited(ctx, fmt.Sprintf("somebody%d@example.com", i), at)
		if err != nil {
			return err
		}
		a := s.of(&user)
		for _, change := range []account.Change{
			{},
			{Active: &no},
			{Active: &no},
			{Active: &yes},
			{NotBefore: instant},
			{Active: &no, NotBefore: instant.Add(time.Hour + time.Millisecond)},
			{NotBefore: instant.Add(2 * time.Hour)},
			{Active: &yes},
			{},
		} {
			if err := s.Apply(ctx, a.ID, change); err != nil {
				return fmt.Errorf("Apply: %w", err)
			}
			op := fmt.Sprintf("Apply of the not-before %v", change.NotBefore)
			if change.Active != nil {
				a.Active = *change.Active
				op = fmt.Sprintf("%s and active: %v", op, a.Active)
			}
			if !change.NotBefore.IsZero() {
				a.NotBefore = change.NotBefore
			}
			if err := errors.Join(s.holds(ctx, user), s.holds(ctx, other)); err != nil {
				return fmt.Errorf("after %s: %w", op, err)
			}
		}
	}
	return nil
}

func applyForwards[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	user, err := s.limited(ctx, somebody, instant)
	if err != nil {
		return err
	}
	a := s.of(&user)
	no := false
	for _, change := range []account.Change{
		{NotBefore: instant.Add(-time.Millisecond)},
		{NotBefore: instant},
		{NotBefore: instant.Add(time.Millisecond)},
		{NotBefore: instant.Add(-time.Hour), Active: &no}, // the rest of a change is made
	} {
		if err := s.Apply(ctx, a.ID, change); err != nil {
			return fmt.Errorf("Apply: %w", err)
		}
		if change.Active != nil {
			a.Active = *change.Active
		}
		a.NotBefore = movedOn(a.NotBefore, change.NotBefore)
		if err := s.holds(ctx, user); err != nil {
			return fmt.Errorf("after Apply of the not-before %v: %w", change.NotBefore, err)
		}
	}
	return nil
}

func applyMissing[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	user, err := s.insert(ctx, somebody)
	if err != nil {
		return err
	}
	stranger := s.newUser("stranger@example.com")
	id, yes := s.of(&stranger).ID, true
	for _, change := range []account.Change{{Active: &yes, NotBefore: instant}, {Active: &yes}, {NotBefore: instant}, {}} {
		if err := wantError("Apply to no account", nil, s.Apply(ctx, id, change), account.ErrUserNotFound); err != nil {
			return err
		}
		got, err := s.ByID(ctx, id)
		if err := wantError("ByID of no account", got, err, account.ErrUserNotFound); err != nil {
			return err
		}
	}
	return s.holds(ctx, user)
}

func applyRace[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	for round := range rounds {
		user := s.newUser(fmt.Sprintf("somebody%d@example.com", round))
		a := s.of(&user)
		a.Active, a.NotBefore = true, time.Time{}
		if err := s.Insert(ctx, user); err != nil {
			return fmt.Errorf("Insert: %w", err)
		}
		old, no := a.HashedPassword, false
		err := atOnce(6, func(i int) error {
			switch i {
			case 0:
				return s.Apply(ctx, a.ID, account.Change{Active: &no})
			case 1:
				return s.ReplacePassword(ctx, a.ID, old, "new", instant)
			default:
				return s.Apply(ctx, a.ID, account.Change{NotBefore: instant})
			}
		})
		if err != nil {
			return err
		}
		a.Active, a.HashedPassword, a.NotBefore = false, "new", instant.Add(4*time.Millisecond) // each of the 5 moved it on
		if err := s.holds(ctx, user); err != nil {
			return fmt.Errorf("after changes at once: %w", err)
		}
	}
	return nil
}

func userCancelled[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	user, err := s.insert(ctx, somebody)
	if err != nil {
		return err
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	a := s.of(&user)
	_, byID := s.ByID(gone, a.ID)
	_, byEmail := s.ByEmail(gone, a.Email)
	for op, err := range map[string]error{
		"ByID":            byID,
		"ByEmail":         byEmail,
		"Insert":          s.Insert(gone, s.newUser("late@example.com")),
		"ReplacePassword": s.ReplacePassword(gone, a.ID, a.HashedPassword, "new", instant.AddDate(1, 0, 0)),
		"Apply":           s.Apply(gone, a.ID, account.Change{NotBefore: instant.AddDate(1, 0, 0)}),
	} {
		if err := wantError(op, nil, err, context.Canceled); err != nil {
			return err
		}
	}
	got, err := s.ByEmail(ctx, "late@example.com")
	return errors.Join(s.holds(ctx, user), wantError("ByEmail", got, err, account.ErrUserNotFound))
}
