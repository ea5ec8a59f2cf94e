// Package notify implements strategy.UserNotifier for stores of users.
package notify

import (
	"context"
	"errors"
	"sync"
)

// Users holds the functions to call after a change to a user. The zero value is ready. It is
// safe for concurrent use.
type Users[ID comparable] struct {
	mu        sync.Mutex
	next      int
	listeners map[int]func(context.Context, ID) error
}

// Listen registers a function, as strategy.UserNotifier requires.
func (u *Users[ID]) Listen(f func(ctx context.Context, id ID) error) (stop func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.listeners == nil {
		u.listeners = make(map[int]func(context.Context, ID) error)
	}
	n := u.next
	u.next++
	u.listeners[n] = f
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.listeners, n)
	}
}

// Tell calls all registered functions after a change to a user. err is the result of the
// change; Tell returns it, joined with the errors of the functions.
func (u *Users[ID]) Tell(ctx context.Context, id ID, err error) error {
	u.mu.Lock()
	listeners := make([]func(context.Context, ID) error, 0, len(u.listeners))
	for _, f := range u.listeners {
		listeners = append(listeners, f)
	}
	u.mu.Unlock()
	// The change was made, so call the functions even if the request was cancelled.
	ctx = context.WithoutCancel(ctx)
	for _, f := range listeners {
		if failure := f(ctx, id); failure != nil {
			err = errors.Join(err, failure)
		}
	}
	return err
}
