package account

import (
	"context"
	"time"
)

// AttemptCounter is the value of a key in an [AttemptStore].
type AttemptCounter struct {
	// Failures is the number of attempts that failed or are in flight.
	Failures int
	// Last is the time of the last Add or Remember, in UTC and whole milliseconds. It is
	// zero if there is no counter.
	Last time.Time
}

// AttemptStore keeps the counters of the login limiter; see [LimiterConfig]. It makes no
// decisions.
//
// Keys are case-sensitive digests of 43 characters. Times are in UTC and whole
// milliseconds. A counter expires at its expiry time exactly, by the time that a method is
// given. An expired counter does not exist, whether or not it has been removed.
//
// Every method must be safe for concurrent use, also by several processes, must honour
// the cancellation of its context, and must be bounded in time, by its own timeout if the
// context has no deadline. Any error means that the store could not do what it was asked,
// or does not know whether it did.
//
// storetest.RunAttempts checks each line of this contract.
type AttemptStore interface {
	// Counters returns the counters of the keys, in their order, and the zero
	// AttemptCounter for a key without one. A key can occur twice. The counters need not
	// be a snapshot of one instant.
	Counters(ctx context.Context, now time.Time, keys ...string) ([]AttemptCounter, error)

	// Add adds one failure to a key's counter and returns the new counter. It must be
	// atomic: concurrent calls return different numbers. It sets Last to now unless Last
	// is later. A missing counter begins at 1 and expires at the given time. The expiry of
	// an existing counter is moved to that time if postpone is set and the time is later.
	Add(ctx context.Context, key string, now, expires time.Time, postpone bool) (AttemptCounter, error)

	// Withdraw subtracts n failures from a key's counter, atomically, and changes nothing
	// else. It removes a counter with n failures or fewer, and does nothing if there is no
	// counter.
	Withdraw(ctx context.Context, now time.Time, key string, n int) error

	// Clear removes a key's counter, if there is one. A failure that is counted at the
	// same time is removed, or begins a new counter.
	Clear(ctx context.Context, key string) error

	// Remember replaces a key's counter, if there is one, by one with no failures and a
	// Last of now. It expires at the given time, even if the replaced one expired later.
	Remember(ctx context.Context, key string, now, expires time.Time) error
}
