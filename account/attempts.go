package account

import (
	"context"
	"time"
)

// AttemptCounter is what an [AttemptStore] holds under a key.
type AttemptCounter struct {
	// Failures is how many attempts have failed, or are under way.
	Failures int
	// Last is when the latest of them was, in UTC and whole milliseconds.
	Last time.Time
	// Networks are a list of the [Limiter]'s; see Remember.
	Networks []string
}

// AttemptStore keeps the counters of a [Limiter]. It decides nothing. Keys are
// digests, of 43 characters, in which case matters. Times are in UTC and whole
// milliseconds. A counter is there until it expires, and no longer there at that
// very millisecond, by the time that a method is given: what has expired counts as
// not there, whether or not it was removed.
//
// Every method must be safe for concurrent use, also from other processes, must
// honour the cancellation of its context, and must be bounded in time, by a
// timeout of its own where the context has no deadline. Any error means that the
// store could not do what it was asked, or does not know whether it did.
//
// storetest.RunAttempts checks each line of this contract.
type AttemptStore interface {
	// Counters returns what is there under each of the keys, in their order; the
	// zero AttemptCounter where there is nothing. A key may be there twice. It need
	// not see all keys at one instant.
	Counters(ctx context.Context, now time.Time, keys ...string) ([]AttemptCounter, error)

	// Add counts one failure under a key and returns the counter as it is then:
	// atomically, so that of many at once each gets another number. It sets Last to
	// now, unless it is later already. A counter that is not there begins at one
	// and expires at the given time; one that is there is postponed to it where
	// postpone says so, and is never brought forward.
	Add(ctx context.Context, key string, now, expires time.Time, postpone bool) (AttemptCounter, error)

	// Withdraw takes n failures back, atomically, and changes nothing else. Nothing
	// happens where there is no counter. It may fall below zero.
	Withdraw(ctx context.Context, now time.Time, key string, n int) error

	// Clear removes what is under a key, and returns the counter as it was,
	// atomically, so that one of many at once gets it; the zero AttemptCounter where
	// there was none.
	Clear(ctx context.Context, now time.Time, key string) (AttemptCounter, error)

	// Remember puts a list of networks under a key, in place of what was there:
	// Failures becomes zero, Last now. It expires at the given time, also where that
	// is sooner than before. The list is the caller's to change afterwards, as is
	// one that Counters returned.
	Remember(ctx context.Context, key string, networks []string, now, expires time.Time) error
}
