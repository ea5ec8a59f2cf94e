package ginauth

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// bound is the context of one operation, which bounds its time by Config.Timeout. The time
// begins when the context is first asked for its deadline or its end, that is with the first
// call of a store: reading the body of a request is not part of it, and a session in a cache
// needs no timer.
type bound struct {
	context.Context // the request's
	timeout         time.Duration

	once   sync.Once
	timed  context.Context
	cancel context.CancelFunc
	begun  atomic.Bool
	spent  time.Duration // until end
}

// bounded returns the context of an operation. The caller must call end.
func (a *Auth[U]) bounded(ctx context.Context) *bound {
	return &bound{Context: ctx, timeout: a.cfg.Timeout}
}

// begin begins the time, if it has not begun, and returns the context that ends with it.
func (b *bound) begin() context.Context {
	b.once.Do(func() {
		b.timed, b.cancel = context.WithTimeout(b.Context, b.timeout)
		b.begun.Store(true)
	})
	return b.timed
}

// end releases the timer. The context is cancelled from then on.
func (b *bound) end() {
	b.once.Do(func() {
		b.timed, b.cancel = ended, func() {}
		b.begun.Store(true)
	})
	if at, ok := b.timed.Deadline(); ok {
		b.spent = b.timeout - time.Until(at)
	}
	b.cancel()
}

// ended is a context that is cancelled.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// String returns a fixed text; see Format.
func (b *bound) String() string { return "ginauth.bound" }

// Format implements fmt.Formatter: fmt would otherwise read the fields while another goroutine
// changes them.
func (b *bound) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, b.String()) }

// Deadline and Done implement context.Context.
func (b *bound) Deadline() (time.Time, bool) { return b.begin().Deadline() }
func (b *bound) Done() <-chan struct{}       { return b.begin().Done() }

// Value implements context.Context. Once the time has begun, package context finds the timer by
// it, so that contexts derived from this one need no goroutine.
func (b *bound) Value(key any) any {
	if b.begun.Load() && b.timed != ended {
		return b.timed.Value(key)
	}
	return b.Context.Value(key)
}

// Err implements context.Context. It does not begin the time.
func (b *bound) Err() error {
	if b.begun.Load() {
		return b.timed.Err()
	}
	return b.Context.Err()
}
