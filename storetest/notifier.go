package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// NotifyingStore is an account.Store that is a strategy.UserNotifier too.
type NotifyingStore[U any, ID comparable] interface {
	account.Store[U, ID]
	strategy.UserNotifier[ID]
}

// RunUserNotifier checks an account.Store as a strategy.UserNotifier. Each subtest calls open,
// which must return an empty store. newUser makes users, as for [RunUsers].
func RunUserNotifier[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]](t *testing.T, newUser func(email string) U, open func(testing.TB) NotifyingStore[U, ID]) {
	t.Helper()
	userNotifierSuite[U, ID, P](newUser, open).run(t)
}

func userNotifierSuite[U any, ID comparable, P account.Embeds[U, ID]](newUser func(email string) U, open func(testing.TB) NotifyingStore[U, ID]) suite[notifier[U, ID]] {
	return suite[notifier[U, ID]]{
		open: func(t testing.TB) notifier[U, ID] {
			store := open(t)
			return notifier[U, ID]{newUserStore[U, ID, P](store, newUser), store}
		},
		checks: []check[notifier[U, ID]]{
			{"every listener is called after each kind of change", listenersCalled[U, ID]},
			{"a listener's error is returned, and the other listeners are called too", listenerFails[U, ID]},
			{"a stopped listener is not called any more, and the others are", listenerStopped[U, ID]},
			{"listeners are called for each of many concurrent changes", notifyRace[U, ID]},
		},
	}
}

// notifier is the store under test.
type notifier[U any, ID comparable] struct {
	userStore[U, ID]
	strategy.UserNotifier[ID]
}

// change is a change to an account.
type change[ID comparable] struct {
	name string
	user *account.User[ID]
	make func() error
	// made reports whether an account has the change.
	made func(*account.User[ID]) bool
}

// changes returns one change of each kind that can end sessions, each to an account of its own.
func (n notifier[U, ID]) changes(ctx context.Context) (changes []change[ID], err error) {
	inactive := func(a *account.User[ID]) bool { return !a.Active }
	revoked := func(a *account.User[ID]) bool { return a.Version == 1 }
	no := false
	for i, kind := range []struct {
		name string
		make func(id ID, old account.PasswordHash) error
		made func(*account.User[ID]) bool
	}{
		{
			"ReplacePassword",
			func(id ID, old account.PasswordHash) error { return n.ReplacePassword(ctx, id, old, "new", true) },
			func(a *account.User[ID]) bool { return a.HashedPassword == "new" && revoked(a) },
		},
		{
			"Apply of Active",
			func(id ID, _ account.PasswordHash) error { return n.Apply(ctx, id, account.Change{Active: &no}) },
			inactive,
		},
		{
			"Apply of RevokeTokens",
			func(id ID, _ account.PasswordHash) error {
				return n.Apply(ctx, id, account.Change{RevokeTokens: true})
			},
			revoked,
		},
		{
			"Apply of Active and RevokeTokens",
			func(id ID, _ account.PasswordHash) error {
				return n.Apply(ctx, id, account.Change{Active: &no, RevokeTokens: true})
			},
			func(a *account.User[ID]) bool { return inactive(a) && revoked(a) },
		},
	} {
		user, err := n.insertVersion(ctx, fmt.Sprintf("ann%d@example.com", i), 0)
		if err != nil {
			return nil, err
		}
		a := n.of(&user)
		changes = append(changes, change[ID]{kind.name, a, func() error { return kind.make(a.ID, a.HashedPassword) }, kind.made})
	}
	return changes, nil
}

func listenersCalled[U any, ID comparable](ctx context.Context, n notifier[U, ID]) error {
	changes, err := n.changes(ctx)
	if err != nil {
		return err
	}
	var calls [2][]ID
	var wrong error
	var made func(*account.User[ID]) bool
	for i := range calls {
		defer n.OnUserChange(func(ctx context.Context, id ID) error {
			calls[i] = append(calls[i], id)
			user, err := n.ByID(ctx, id)
			if err != nil {
				wrong = fmt.Errorf("ByID in a listener: %w", err)
			} else if !made(n.of(&user)) {
				wrong = errors.New("a listener read the account without the change")
			}
			return nil
		})()
	}
	for _, c := range changes {
		clear(calls[:])
		wrong, made = nil, c.made
		if err := c.make(); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		for _, ids := range calls {
			if !slices.Contains(ids, c.user.ID) {
				return fmt.Errorf("%s: a listener was called with %v, want %v", c.name, ids, c.user.ID)
			}
		}
		if wrong != nil {
			return fmt.Errorf("%s: %w", c.name, wrong)
		}
	}
	return nil
}

func listenerFails[U any, ID comparable](ctx context.Context, n notifier[U, ID]) error {
	changes, err := n.changes(ctx)
	if err != nil {
		return err
	}
	var failures [3]error
	var calls int
	for i := range failures {
		failures[i] = fmt.Errorf("failure %d", i)
		defer n.OnUserChange(func(context.Context, ID) error { calls++; return failures[i] })()
	}
	for _, c := range changes {
		calls = 0
		err := c.make()
		for _, failure := range failures {
			if err := wantError(c.name, nil, err, failure); err != nil {
				return err
			}
		}
		if calls < len(failures) {
			return fmt.Errorf("%s: %d of %d listeners were called", c.name, calls, len(failures))
		}
		user, err := n.ByID(ctx, c.user.ID)
		if err != nil {
			return fmt.Errorf("ByID: %w", err)
		}
		if !c.made(n.of(&user)) {
			return fmt.Errorf("%s was not made although only its listeners failed", c.name)
		}
	}
	return nil
}

func listenerStopped[U any, ID comparable](ctx context.Context, n notifier[U, ID]) error {
	changes, err := n.changes(ctx)
	if err != nil {
		return err
	}
	var calls [4]int
	stops := make([]func(), len(calls))
	for i := range calls {
		stops[i] = n.OnUserChange(func(context.Context, ID) error { calls[i]++; return nil })
	}
	for i, c := range changes {
		stops[i]()
		before := calls
		if err := c.make(); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		for j := range calls {
			if called := calls[j] > before[j]; called != (j > i) {
				return fmt.Errorf("%s, when %d of %d listeners are stopped: listener %d was called: %v, want %v", c.name, i+1, len(calls), j+1, called, j > i)
			}
		}
	}
	return nil
}

func notifyRace[U any, ID comparable](ctx context.Context, n notifier[U, ID]) error {
	return concurrently(6, func(i int) error {
		user, err := n.insert(ctx, fmt.Sprintf("ann%d@example.com", i))
		if err != nil {
			return err
		}
		own := n.of(&user).ID
		for range 4 {
			var calls atomic.Int64
			stop := n.OnUserChange(func(_ context.Context, id ID) error {
				if id == own {
					calls.Add(1)
				}
				return nil
			})
			err := n.Apply(ctx, own, account.Change{RevokeTokens: true})
			stop()
			if err != nil {
				return fmt.Errorf("Apply: %w", err)
			}
			if calls.Load() == 0 {
				return errors.New("a concurrent change was acknowledged before its listener was called")
			}
		}
		return nil
	})
}
