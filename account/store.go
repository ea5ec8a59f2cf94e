package account

import "context"

// Store keeps accounts. The Manager normalises e-mail addresses before it calls a Store.
//
// Every method must be safe for concurrent use, must honour the cancellation of its
// context, and must be bounded in time, by its own timeout if the context has no deadline.
// An error that wraps none of the errors named here means that the store could not do
// what it was asked, or does not know whether it did.
//
// storetest.RunUsers checks each line of this contract. A Store is also a
// strategy.UserSource.
type Store[U any, ID comparable] interface {
	// Insert stores a new account. It must return an error wrapping [ErrEmailTaken] if
	// another account has its e-mail address, or [ErrConflict] if another account has its
	// ID, and change nothing.
	Insert(ctx context.Context, user U) error

	// ByID returns the account with this ID, or an error wrapping [ErrUserNotFound].
	ByID(ctx context.Context, id ID) (U, error)

	// ByEmail returns the account with this address, or an error wrapping
	// [ErrUserNotFound].
	ByEmail(ctx context.Context, email string) (U, error)

	// ReplacePassword replaces the account's password hash if it equals old. If revoke is
	// set, the same update adds 1 to the token version. If there is no such account or its
	// hash is not old, it must return an error wrapping [ErrConflict] and change nothing:
	// only one of several concurrent changes may succeed.
	ReplacePassword(ctx context.Context, id ID, old, new PasswordHash, revoke bool) error

	// Apply changes an account in one update, which leaves all other fields as they are.
	// If there is no such account, it must return an error wrapping [ErrUserNotFound].
	Apply(ctx context.Context, id ID, change Change) error
}

// Change is a change to an account. The zero value changes nothing.
type Change struct {
	// Active sets User.Active, unless it is nil.
	Active *bool
	// RevokeTokens adds 1 to User.Version, which invalidates every token issued earlier.
	RevokeTokens bool
}

// Sessions are the sessions of the accounts' users. strategy.Database is one.
type Sessions[ID comparable] interface {
	// UserChanged is called after every change to an account that can end its sessions.
	// revoked is set if the change invalidated all tokens of the account; their rows can be
	// deleted then. It is not set if the store failed, as nothing may have changed. The
	// context has the values of the request, but is not cancelled with it.
	//
	// UserChanged must be safe for concurrent use and bounded in time. Its error is returned
	// by the method of the [Manager] that made the change.
	UserChanged(ctx context.Context, id ID, revoked bool) error
}
