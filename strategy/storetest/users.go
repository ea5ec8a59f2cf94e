package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"
	"testing"

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
	for op, got := range map[string]U{"ByID": byID, "ByEmail": byEmail} {
		if string(s.of(&got).HashedPassword) != string(s.of(&want).HashedPassword) {
			return fmt.Errorf("%s: HashedPassword is another", op)
		}
		if !reflect.DeepEqual(got, want) {
			return fmt.Errorf("%s returned\n%+v, want\n%+v", op, got, want)
		}
	}
	return nil
}

func userRoundTrip[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	first, err := s.insert(ctx, somebody)
	if err != nil {
		return err
	}
	second, err := s.insert(ctx, "älter.o'neill+tag@bücher.example")
	if err != nil {
		return err
	}
	return errors.Join(s.holds(ctx, first), s.holds(ctx, second))
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
	if err := s.ReplacePassword(ctx, a.ID, a.HashedPassword, "new"); err != nil {
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
		s.ReplacePassword(ctx, s.of(&user).ID, "another", "new"), account.ErrConflict); err != nil {
		return err
	}
	stranger := s.newUser("stranger@example.com")
	if err := wantError("ReplacePassword of no account", nil,
		s.ReplacePassword(ctx, s.of(&stranger).ID, "another", "new"), account.ErrConflict); err != nil {
		return err
	}
	got, err := s.ByID(ctx, s.of(&stranger).ID)
	return errors.Join(s.holds(ctx, user), wantError("ByID of no account", got, err, account.ErrUserNotFound))
}

func replaceRace[U any, ID comparable](ctx context.Context, s userStore[U, ID]) error {
	user, err := s.insert(ctx, somebody)
	if err != nil {
		return err
	}
	a := s.of(&user)
	old := a.HashedPassword
	var replaced atomic.Int64
	var last atomic.Pointer[account.PasswordHash]
	err = atOnce(8, func(i int) error {
		hash := account.PasswordHash(fmt.Sprint("new ", i))
		err := s.ReplacePassword(ctx, a.ID, old, hash)
		if errors.Is(err, account.ErrConflict) {
			return nil
		}
		if err == nil {
			replaced.Add(1)
			last.Store(&hash)
		}
		return err
	})
	if err != nil {
		return err
	}
	if n := replaced.Load(); n != 1 {
		return fmt.Errorf("%d replacements of one hash succeeded, want 1", n)
	}
	a.HashedPassword = *last.Load()
	return s.holds(ctx, user)
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
		"ReplacePassword": s.ReplacePassword(gone, a.ID, a.HashedPassword, "new"),
	} {
		if err := wantError(op, nil, err, context.Canceled); err != nil {
			return err
		}
	}
	got, err := s.ByEmail(ctx, "late@example.com")
	return errors.Join(s.holds(ctx, user), wantError("ByEmail", got, err, account.ErrUserNotFound))
}
