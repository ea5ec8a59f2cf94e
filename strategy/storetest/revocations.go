package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// RunRevocations checks a strategy.RevocationLog and its followers, each line of
// their contract on a log that open returns empty. newID makes user IDs, as for
// [Run].
func RunRevocations[ID comparable](t *testing.T, newID func() ID, open func(testing.TB) strategy.RevocationLog[ID]) {
	t.Helper()
	for _, c := range revocationChecks[ID]() {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			if err := c.run(ctx, revocationLog[ID]{open(t), newID}); err != nil {
				t.Error(err)
			}
		})
	}
}

type revocationCheck[ID comparable] struct {
	name string
	run  func(context.Context, revocationLog[ID]) error
}

func revocationChecks[ID comparable]() []revocationCheck[ID] {
	return []revocationCheck[ID]{
		{"a revocation of each kind comes as it was published", eachKind[ID]},
		{"what is published comes with the next Next", nextComes[ID]},
		{"a follower begins at the present at the latest", beginsNow[ID]},
		{"many at once come with one Next", manyInOne[ID]},
		{"what is published again comes again", again[ID]},
		{"followers are independent", independent[ID]},
		{"of many publishers at once none is left out", publishRace[ID]},
		{"a Next that fails loses nothing", failedNext[ID]},
		{"a cancelled context stops both methods", revocationsCancelled[ID]},
	}
}

// revocationLog is the log under test.
type revocationLog[ID comparable] struct {
	strategy.RevocationLog[ID]
	newID func() ID
}

// one returns a revocation of one of the three kinds.
func (l revocationLog[ID]) one(kind int) strategy.Revocation[ID] {
	switch kind % 3 {
	case 0:
		return strategy.Revocation[ID]{Digest: digest()}
	case 1:
		return strategy.Revocation[ID]{SessionID: uuid.Must(uuid.NewV7())}
	}
	return strategy.Revocation[ID]{UserID: l.newID()}
}

// publish publishes n revocations, of all kinds by turns.
func (l revocationLog[ID]) publish(ctx context.Context, n int) ([]strategy.Revocation[ID], error) {
	var all []strategy.Revocation[ID]
	for kind := range n {
		r := l.one(kind)
		if err := l.PublishRevocation(ctx, r); err != nil {
			return nil, fmt.Errorf("PublishRevocation: %w", err)
		}
		all = append(all, r)
	}
	return all, nil
}

// begun returns a follower that has found out where to begin.
func (l revocationLog[ID]) begun(ctx context.Context) (strategy.RevocationFollower[ID], error) {
	f := l.FollowRevocations()
	if _, err := f.Next(ctx); err != nil {
		return nil, fmt.Errorf("the first Next: %w", err)
	}
	return f, nil
}

// comes says what is missing where the next Next does not return all of these.
func comes[ID comparable](ctx context.Context, f strategy.RevocationFollower[ID], want ...strategy.Revocation[ID]) error {
	got, err := f.Next(ctx)
	if err != nil {
		return fmt.Errorf("Next: %w", err)
	}
	missing := 0
	for _, r := range want {
		if !slices.Contains(got, r) {
			missing++
		}
	}
	if missing > 0 {
		return fmt.Errorf("Next returned %d revocations, without %d of %d that were published", len(got), missing, len(want))
	}
	return nil
}

func eachKind[ID comparable](ctx context.Context, l revocationLog[ID]) error {
	f, err := l.begun(ctx)
	if err != nil {
		return err
	}
	for kind, name := range []string{"a token", "a session", "a user"} {
		r := l.one(kind)
		if err := l.PublishRevocation(ctx, r); err != nil {
			return fmt.Errorf("PublishRevocation of %s: %w", name, err)
		}
		got, err := f.Next(ctx)
		if err != nil {
			return fmt.Errorf("Next: %w", err)
		}
		if !slices.Contains(got, r) {
			return fmt.Errorf("Next returned %+v, want the revocation of %s, %+v", got, name, r)
		}
	}
	return nil
}

func nextComes[ID comparable](ctx context.Context, l revocationLog[ID]) error {
	f, err := l.begun(ctx)
	if err != nil {
		return err
	}
	for _, n := range []int{1, 1, 0, 2, 0, 0, 7, 1} {
		published, err := l.publish(ctx, n)
		if err := errors.Join(err, comes(ctx, f, published...)); err != nil {
			return err
		}
	}
	return nil
}

func beginsNow[ID comparable](ctx context.Context, l revocationLog[ID]) error {
	// The log is empty, then has some, then more.
	for range 3 {
		f, err := l.begun(ctx)
		if err != nil {
			return err
		}
		published, err := l.publish(ctx, 5)
		if err := errors.Join(err, comes(ctx, f, published...)); err != nil {
			return err
		}
	}
	return nil
}

func manyInOne[ID comparable](ctx context.Context, l revocationLog[ID]) error {
	f, err := l.begun(ctx)
	if err != nil {
		return err
	}
	published, err := l.publish(ctx, 150)
	return errors.Join(err, comes(ctx, f, published...))
}

func again[ID comparable](ctx context.Context, l revocationLog[ID]) error {
	f, err := l.begun(ctx)
	if err != nil {
		return err
	}
	for kind := range 3 {
		r := l.one(kind)
		for range 3 {
			if err := l.PublishRevocation(ctx, r); err != nil {
				return fmt.Errorf("PublishRevocation: %w", err)
			}
			if err := comes(ctx, f, r); err != nil {
				return fmt.Errorf("of a revocation that is published again: %w", err)
			}
		}
	}
	return nil
}

func independent[ID comparable](ctx context.Context, l revocationLog[ID]) error {
	quick, err := l.begun(ctx)
	if err != nil {
		return err
	}
	slow, err := l.begun(ctx)
	if err != nil {
		return err
	}
	var all []strategy.Revocation[ID]
	for range 4 {
		published, err := l.publish(ctx, 3)
		if err := errors.Join(err, comes(ctx, quick, published...)); err != nil {
			return fmt.Errorf("a follower that asks often: %w", err)
		}
		all = append(all, published...)
	}
	if err := comes(ctx, slow, all...); err != nil {
		return fmt.Errorf("a follower that asks seldom: %w", err)
	}
	return nil
}

func publishRace[ID comparable](ctx context.Context, l revocationLog[ID]) error {
	const publishers, each = 8, 6
	var followers [publishers]strategy.RevocationFollower[ID]
	var published, seen [publishers][]strategy.Revocation[ID]
	for i := range followers {
		var err error
		if followers[i], err = l.begun(ctx); err != nil {
			return err
		}
	}
	err := atOnce(publishers, func(i int) error {
		for n := range each {
			r := l.one(i + n)
			if err := l.PublishRevocation(ctx, r); err != nil {
				return fmt.Errorf("PublishRevocation: %w", err)
			}
			published[i] = append(published[i], r)
			got, err := followers[i].Next(ctx)
			if err != nil {
				return fmt.Errorf("Next: %w", err)
			}
			if !slices.Contains(got, r) {
				return fmt.Errorf("Next beside other publishers returned %d revocations, without the one that was published before", len(got))
			}
			seen[i] = append(seen[i], got...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	// A revocation may become visible after a later one: it must not be passed over.
	all := slices.Concat(published[:]...)
	for i, f := range followers {
		got, err := f.Next(ctx)
		if err != nil {
			return fmt.Errorf("Next: %w", err)
		}
		got = append(got, seen[i]...)
		missing := 0
		for _, r := range all {
			if !slices.Contains(got, r) {
				missing++
			}
		}
		if missing > 0 {
			return fmt.Errorf("a follower that asked while %d published has never seen %d of %d revocations", publishers, missing, len(all))
		}
	}
	return nil
}

func failedNext[ID comparable](ctx context.Context, l revocationLog[ID]) error {
	gone, cancel := context.WithCancel(ctx)
	cancel()
	f := l.FollowRevocations()
	got, err := f.Next(gone) // it has not begun then
	if err := wantError("Next", got, err, context.Canceled); err != nil {
		return err
	}
	if _, err := f.Next(ctx); err != nil {
		return fmt.Errorf("Next: %w", err)
	}
	var all []strategy.Revocation[ID]
	for range 3 {
		published, err := l.publish(ctx, 3)
		if err != nil {
			return err
		}
		all = append(all, published...)
		got, err := f.Next(gone)
		if err := wantError("Next", got, err, context.Canceled); err != nil {
			return err
		}
	}
	if err := comes(ctx, f, all...); err != nil {
		return fmt.Errorf("after a Next that failed: %w", err)
	}
	return nil
}

func revocationsCancelled[ID comparable](ctx context.Context, l revocationLog[ID]) error {
	f, err := l.begun(ctx)
	if err != nil {
		return err
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := wantError("PublishRevocation", nil, l.PublishRevocation(gone, l.one(0)), context.Canceled); err != nil {
		return err
	}
	got, err := f.Next(gone)
	return wantError("Next", got, err, context.Canceled)
}

// NotifyingStore is an account.Store that tells of changes.
type NotifyingStore[U any, ID comparable] interface {
	account.Store[U, ID]
	strategy.UserNotifier[ID]
}

// RunUserNotifier checks the strategy.UserNotifier that an account.Store is. newUser
// makes users, as for [RunUsers].
func RunUserNotifier[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]](t *testing.T, newUser func(email string) U, open func(testing.TB) NotifyingStore[U, ID]) {
	t.Helper()
	of := func(u *U) *account.User[ID] { return P(u).Account() }
	for _, c := range notifierChecks[U, ID]() {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			store := open(t)
			if err := c.run(ctx, notifier[U, ID]{userStore[U, ID]{store, newUser, of}, store}); err != nil {
				t.Error(err)
			}
		})
	}
}

type notifierCheck[U any, ID comparable] struct {
	name string
	run  func(context.Context, notifier[U, ID]) error
}

func notifierChecks[U any, ID comparable]() []notifierCheck[U, ID] {
	return []notifierCheck[U, ID]{
		{"each kind of change is told after it was made, to all who listen", told[U, ID]},
		{"an error of who is told comes back, and the others are told too", tellingFails[U, ID]},
		{"who has stopped is not told any more, and the others are", stopped[U, ID]},
		{"changes at once are all told", tellRace[U, ID]},
	}
}

// notifier is the store under test.
type notifier[U any, ID comparable] struct {
	userStore[U, ID]
	strategy.UserNotifier[ID]
}

// changes are the changes that can end sessions, each of an account of its own.
func (n notifier[U, ID]) changes(ctx context.Context) (changes []change[U, ID], err error) {
	no := false
	at := instant.AddDate(1, 0, 0)
	for i, c := range []change[U, ID]{
		{"ReplacePassword", func(id ID, old account.PasswordHash) error { return n.ReplacePassword(ctx, id, old, "new", at) }, nil, func(a *account.User[ID]) bool {
			return a.HashedPassword == "new" && a.NotBefore.Equal(at)
		}},
		{"Apply of inactive", func(id ID, _ account.PasswordHash) error {
			return n.Apply(ctx, id, account.Change{Active: &no})
		}, nil, func(a *account.User[ID]) bool { return !a.Active }},
		{"Apply of a not-before", func(id ID, _ account.PasswordHash) error {
			return n.Apply(ctx, id, account.Change{NotBefore: at})
		}, nil, func(a *account.User[ID]) bool { return a.NotBefore.Equal(at) }},
		{"Apply of both", func(id ID, _ account.PasswordHash) error {
			return n.Apply(ctx, id, account.Change{Active: &no, NotBefore: at})
		}, nil, func(a *account.User[ID]) bool { return !a.Active && a.NotBefore.Equal(at) }},
	} {
		user := n.newUser(fmt.Sprintf("somebody%d@example.com", i))
		n.of(&user).Active, n.of(&user).NotBefore = true, instant
		if err := n.Insert(ctx, user); err != nil {
			return nil, fmt.Errorf("Insert: %w", err)
		}
		c.user = n.of(&user)
		changes = append(changes, c)
	}
	return changes, nil
}

type change[U any, ID comparable] struct {
	name string
	do   func(id ID, old account.PasswordHash) error
	user *account.User[ID]
	// made reports whether an account has the change.
	made func(*account.User[ID]) bool
}

func (c change[U, ID]) make() error { return c.do(c.user.ID, c.user.HashedPassword) }

func told[U any, ID comparable](ctx context.Context, n notifier[U, ID]) error {
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
				wrong = fmt.Errorf("ByID by who is told: %w", err)
			} else if !made(n.of(&user)) {
				wrong = errors.New("who is told reads the account as it was before")
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
				return fmt.Errorf("%s: told of %v, want %v", c.name, ids, c.user.ID)
			}
		}
		if wrong != nil {
			return fmt.Errorf("%s: %w", c.name, wrong)
		}
	}
	return nil
}

func tellingFails[U any, ID comparable](ctx context.Context, n notifier[U, ID]) error {
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
			return fmt.Errorf("%s: %d of %d were told", c.name, calls, len(failures))
		}
		user, err := n.ByID(ctx, c.user.ID)
		if err != nil {
			return fmt.Errorf("ByID: %w", err)
		}
		if !c.made(n.of(&user)) {
			return fmt.Errorf("%s, of which telling failed, was not made", c.name)
		}
	}
	return nil
}

func stopped[U any, ID comparable](ctx context.Context, n notifier[U, ID]) error {
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
			if told := calls[j] > before[j]; told != (j > i) {
				return fmt.Errorf("%s, when %d of %d have stopped: the one at %d was told: %v, want %v", c.name, i+1, len(calls), j+1, told, j > i)
			}
		}
	}
	return nil
}

func tellRace[U any, ID comparable](ctx context.Context, n notifier[U, ID]) error {
	return atOnce(6, func(i int) error {
		user, err := n.limited(ctx, fmt.Sprintf("somebody%d@example.com", i), instant)
		if err != nil {
			return err
		}
		mine := n.of(&user).ID
		for k := range 4 {
			var calls atomic.Int64
			stop := n.OnUserChange(func(_ context.Context, id ID) error {
				if id == mine {
					calls.Add(1)
				}
				return nil
			})
			err := n.Apply(ctx, mine, account.Change{NotBefore: instant.AddDate(0, 0, k+1)})
			stop()
			if err != nil {
				return fmt.Errorf("Apply: %w", err)
			}
			if calls.Load() == 0 {
				return errors.New("a change beside others was not told when it was acknowledged")
			}
		}
		return nil
	})
}
