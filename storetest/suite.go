package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

const (
	// timeout bounds every check: a store that hangs fails.
	timeout = 60 * time.Second
	// rounds is how often a race is repeated.
	rounds = 10
)

// suite is the checks of one contract, and how to open an empty store for each.
type suite[S any] struct {
	checks []check[S]
	open   func(context.Context, testing.TB) S
}

// check is one line of a contract. run calls fail if the store breaks that line.
type check[S any] struct {
	name string
	run  func(store S)
}

// run runs each check as a subtest.
func (s suite[S]) run(t *testing.T) {
	t.Helper()
	for _, c := range s.checks {
		t.Run(c.name, func(t *testing.T) {
			if err := s.result(t, c); err != nil {
				t.Error(err)
			}
		})
	}
}

// result returns nil, or how the store breaks a line of the contract.
func (s suite[S]) result(t testing.TB, c check[S]) error {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	store := s.open(ctx, t)
	return try(func() { c.run(store) })
}

// failure is what fail panics with.
type failure struct{ error }

// fail ends the function that try, in, or concurrently runs.
func fail(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }

// try calls f and returns the error with which it failed.
func try(f func()) (err error) {
	defer func() {
		switch v := recover().(type) {
		case nil:
		case failure:
			err = v.error
		default:
			panic(v)
		}
	}()
	f()
	return nil
}

// must fails if an operation returned an error.
func must(op string, err error) {
	if err != nil {
		fail("%s: %w", op, err)
	}
}

// in calls f and says where it failed.
func in(where string, f func()) { must(where, try(f)) }

// concurrently runs n calls that start together, and fails with the errors of all of them.
func concurrently(n int, call func(i int)) {
	begin := make(chan struct{})
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-begin
			errs[i] = try(func() { call(i) })
		})
	}
	close(begin)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		fail("%w", err)
	}
}

// wantError fails unless err wraps want.
func wantError(op string, got any, err, want error) {
	if err == nil {
		fail("%s returned %+v, want an error wrapping %q", op, got, want)
	}
	if !errors.Is(err, want) {
		fail("%s returned the error %q, want one wrapping %q", op, err, want)
	}
}

// wantErrors fails unless the errors of all operations wrap want.
func wantErrors(want error, errs map[string]error) {
	for op, err := range errs {
		wantError(op, nil, err, want)
	}
}

// cancelled returns a context that is cancelled already.
func cancelled(parent context.Context) context.Context {
	ctx, cancel := context.WithCancel(parent)
	cancel()
	return ctx
}

// oneWins makes n concurrent calls. Exactly one must succeed, and the others must return an
// error wrapping lost. It returns the index of the call that succeeded.
func oneWins(op string, n int, lost error, call func(i int) error) (winner int) {
	won := make([]bool, n)
	concurrently(n, func(i int) {
		err := call(i)
		if !errors.Is(err, lost) {
			must(op, err)
			won[i] = true
		}
	})
	winners := 0
	for i := range won {
		if won[i] {
			winner = i
			winners++
		}
	}
	if winners != 1 {
		fail("%s: %d of %d concurrent calls succeeded, want 1", op, winners, n)
	}
	return winner
}
