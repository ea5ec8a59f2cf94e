package account

import (
	"context"
	"time"
)

// Store keeps accounts. E-mail addresses reach it normalised.
//
// Every method must be safe for concurrent use, must honour the cancellation of
// its context, and must be bounded in time, by a timeout of its own where the
// context has no deadline. An error that wraps none of the sentinels named here
// means that the store could not do what it was asked.
//
// storetest.RunUsers checks each line of this contract. A Store is also a
// strategy.UserSource.
type Store[U any, ID comparable] interface {
	// Insert stores a new account. Where another has its e-mail address, it must
	// return an error wrapping [ErrEmailTaken], where another has its ID,
	// [ErrConflict], and change nothing.
	Insert(ctx context.Context, user U) error

	// ByID returns the account with this ID, or an error wrapping
	// [ErrUserNotFound].
	ByID(ctx context.Context, id ID) (U, error)

	// ByEmail returns the account with this address, or an error wrapping
	// [ErrUserNotFound].
	ByEmail(ctx context.Context, email string) (U, error)

	// ReplacePassword sets the password hash of the account where it still is
	// old, and NotBefore as Apply does, in one update. Where there is no such
	// account, or its hash is another by now, it must return an error wrapping
	// [ErrConflict] and change nothing: two changes at once must not both succeed.
	ReplacePassword(ctx context.Context, id ID, old, new PasswordHash, notBefore time.Time) error

	// Apply makes a change to an account in one update that touches no other
	// field, or returns an error wrapping [ErrUserNotFound].
	Apply(ctx context.Context, id ID, change Change) error
}

// Change is a change to an account.
type Change struct {
	// Active sets the flag; nil leaves it as it is.
	Active *bool
	// NotBefore moves [User].NotBefore on: to this time, or by a millisecond where it
	// is as late already, so that logins which have seen that end too. The zero time
	// leaves it as it is.
	NotBefore time.Time
}
