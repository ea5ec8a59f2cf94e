// Package notify lets stores of users be strategy.UserNotifiers.
package notify

import (
	"context"
	"errors"
	"sync"
)

// Users are those who want to know of changes to users. The zero value has none.
// It is safe for concurrent use.
type Users[ID comparable] struct {
	mu   sync.Mutex
	next int
	of   map[int]func(context.Context, ID) error
}

// Listen registers a function; see strategy.UserNotifier.
func (u *Users[ID]) Listen(f func(ctx context.Context, id ID) error) (stop func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.of == nil {
		u.of = make(map[int]func(context.Context, ID) error)
	}
	n := u.next
	u.next++
	u.of[n] = f
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.of, n)
	}
}

// Tell tells all of a change to a user, which ended with err, and returns err
// together with what they return.
func (u *Users[ID]) Tell(ctx context.Context, id ID, err error) error {
	u.mu.Lock()
	all := make([]func(context.Context, ID) error, 0, len(u.of))
	for _, f := range u.of {
		all = append(all, f)
	}
	u.mu.Unlock()
	// The change is made, also where nobody waits for it any more.
	ctx = context.WithoutCancel(ctx)
	for _, f := range all {
		if told := f(ctx, id); told != nil {
			err = errors.Join(err, told)
		}
	}
	return err
}
