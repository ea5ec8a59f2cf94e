package account

import "context"

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

	// ReplacePassword sets the account's password hash to new, if it is still old.
	// With revoke, it adds 1 to the token version in the same update. Where there is
	// no such account, or its hash is not old, it must return an error wrapping
	// [ErrConflict] and change nothing: of concurrent changes only one succeeds.
	ReplacePassword(ctx context.Context, id ID, old, new PasswordHash, revoke bool) error

	// Apply makes a change to an account in one update that touches no other
	// field. Where there is no such account, it must return an error wrapping
	// [ErrUserNotFound].
	Apply(ctx context.Context, id ID, change Change) error
}

// Change is a change to an account.
type Change struct {
	// Active sets the flag; nil leaves it as it is.
	Active *bool
	// RevokeTokens adds 1 to the token version, which invalidates every token issued
	// earlier; see [User].
	RevokeTokens bool
}
