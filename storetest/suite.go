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
	open   func(testing.TB) S
}

// check is one line of a contract. run returns nil, or how the store breaks that line.
type check[S any] struct {
	name string
	run  func(ctx context.Context, store S) error
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

func (s suite[S]) result(t testing.TB, c check[S]) error {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	return c.run(ctx, s.open(t))
}

// concurrently runs n calls that start together and joins their errors.
func concurrently(n int, call func(i int) error) error {
	begin := make(chan struct{})
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-begin
			errs[i] = call(i)
		})
	}
	close(begin)
	wg.Wait()
	return errors.Join(errs...)
}

// wantError returns nil if err wraps want.
func wantError(op string, got any, err, want error) error {
	if err == nil {
		return fmt.Errorf("%s returned %+v, want an error wrapping %q", op, got, want)
	}
	if !errors.Is(err, want) {
		return fmt.Errorf("%s returned the error %q, want one wrapping %q", op, err, want)
	}
	return nil
}

// cancelledContext returns a context that is cancelled already.
func cancelledContext(parent context.Context) context.Context {
	ctx, cancel := context.WithCancel(parent)
	cancel()
	return ctx
}

// oneWins makes n concurrent calls. Exactly one must succeed, and the others must return an
// error wrapping lost. It returns the index of the call that succeeded.
func oneWins(op string, n int, lost error, call func(i int) error) (winner int, err error) {
	won := make([]bool, n)
	err = concurrently(n, func(i int) error {
		err := call(i)
		if errors.Is(err, lost) {
			return nil
		}
		won[i] = err == nil
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", op, err)
	}
	winners := 0
	for i := range won {
		if won[i] {
			winner = i
			winners++
		}
	}
	if winners != 1 {
		return 0, fmt.Errorf("%s: %d of %d concurrent calls succeeded, want 1", op, winners, n)
	}
	return winner, nil
}
