package storetest_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/storetest"
)

// notifying is a store without a fault, until a test replaces one of its methods.
type notifying struct {
	*users
	onUserChange func(listener) (stop func())
}

type listener = func(ctx context.Context, id uuid.UUID) error

func newNotifying(t testing.TB) *notifying {
	s := &notifying{users: newUsers(t)}
	s.onUserChange = s.Users.OnUserChange
	return s
}

func (s *notifying) OnUserChange(f listener) (stop func()) { return s.onUserChange(f) }

// listening makes OnUserChange register g of a listener in its place.
func listening(g func(listener) listener) func(*notifying) {
	return func(s *notifying) {
		s.onUserChange = func(f listener) func() { return s.Users.OnUserChange(g(f)) }
	}
}

// silenced makes a store call no listeners while silent is true.
func (s *notifying) silenced() (silent *atomic.Bool) {
	silent = new(atomic.Bool)
	listening(func(f listener) listener {
		return func(ctx context.Context, id uuid.UUID) error {
			if silent.Load() {
				return nil
			}
			return f(ctx, id)
		}
	})(s)
	return silent
}

func TestRunUserNotifierCatchesBrokenStores(t *testing.T) {
	const (
		called  = "every listener is called after each kind of change"
		fails   = "a listener's error is returned, and the other listeners are called too"
		stopped = "a stopped listener is not called any more, and the others are"
		race    = "listeners are called for each of many concurrent changes"
	)
	mustCatch(t, newNotifying, func(open func(testing.TB) *notifying) storetest.Suite {
		return storetest.UserNotifier(newMember, func(t testing.TB) storetest.NotifyingStore[member, uuid.UUID] { return open(t) })
	}, []broken[*notifying]{
		{"calls no listener", called, listening(func(listener) listener {
			return func(context.Context, uuid.UUID) error { return nil }
		})},
		{"does not call listeners for passwords", called, func(s *notifying) {
			silent := s.silenced()
			s.replacePassword = func(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, revoke bool) error {
				silent.Store(true)
				defer silent.Store(false)
				return s.Users.ReplacePassword(ctx, id, old, new, revoke)
			}
		}},
		{"does not call listeners for a change of Active", called, func(s *notifying) {
			silent := s.silenced()
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				silent.Store(change.Active != nil)
				defer silent.Store(false)
				return s.Users.Apply(ctx, id, change)
			}
		}},
		{"calls listeners only for a change of Active", called, func(s *notifying) {
			silent := s.silenced()
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				silent.Store(change.Active == nil)
				defer silent.Store(false)
				return s.Users.Apply(ctx, id, change)
			}
		}},
		{"calls listeners with another account", called, listening(func(f listener) listener {
			return func(ctx context.Context, _ uuid.UUID) error { return f(ctx, uuid.New()) }
		})},
		{"calls listeners before the change is made", called, func(s *notifying) {
			var mu sync.Mutex
			var listeners []listener
			s.onUserChange = func(f listener) func() {
				mu.Lock()
				defer mu.Unlock()
				listeners = append(listeners, f)
				return func() {}
			}
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				mu.Lock()
				current := slices.Clone(listeners)
				mu.Unlock()
				for _, f := range current {
					_ = f(ctx, id)
				}
				return s.Users.Apply(ctx, id, change)
			}
		}},
		{"calls only the last listener", called, func(s *notifying) {
			var mu sync.Mutex
			stop := func() {}
			s.onUserChange = func(f listener) func() {
				mu.Lock()
				defer mu.Unlock()
				stop()
				stop = s.Users.OnUserChange(f)
				return stop
			}
		}},
		{"hides the errors of listeners", fails, listening(func(f listener) listener {
			return func(ctx context.Context, id uuid.UUID) error { _ = f(ctx, id); return nil }
		})},
		{"stops at the first error", fails, func(s *notifying) {
			var failed atomic.Bool
			listening(func(f listener) listener {
				return func(ctx context.Context, id uuid.UUID) error {
					if failed.Load() {
						return nil
					}
					err := f(ctx, id)
					failed.Store(err != nil)
					return err
				}
			})(s)
		}},
		{"does not stop listeners", stopped, func(s *notifying) {
			s.onUserChange = func(f listener) func() {
				s.Users.OnUserChange(f)
				return func() {}
			}
		}},
		{"stops all listeners", stopped, func(s *notifying) {
			var mu sync.Mutex
			var stops []func()
			s.onUserChange = func(f listener) func() {
				mu.Lock()
				defer mu.Unlock()
				stops = append(stops, s.Users.OnUserChange(f))
				return func() {
					mu.Lock()
					defer mu.Unlock()
					for _, stop := range stops {
						stop()
					}
				}
			}
		}},
		{"calls listeners with the next change", race, listening(func(f listener) listener {
			var mu sync.Mutex
			var waiting []uuid.UUID
			return func(ctx context.Context, id uuid.UUID) (err error) {
				mu.Lock()
				defer mu.Unlock()
				for _, id := range waiting {
					err = f(ctx, id)
				}
				waiting = []uuid.UUID{id}
				return err
			}
		})},
	})
}
