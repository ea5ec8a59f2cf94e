package account

import (
	"context"

	"github.com/latchkey-go/latchkey/strategy"
)

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

	// Apply changes an account in one update, which leaves all other fields as they are. It
	// must change nothing and return an error wrapping
	//
	//   - [ErrUserNotFound] if there is no such account;
	//   - [ErrConflict] if a condition of the change does not hold;
	//   - [ErrEmailTaken] if another account has the new address.
	//
	// The conditions are compared in the same update: of several concurrent changes with a
	// condition that each of them makes false, only one may succeed. So may only one of
	// several accounts that take the same address.
	Apply(ctx context.Context, id ID, change Change) error

	// Edit changes the application's own fields of an account: it calls edit with the account
	// and stores what edit changed, in one update that leaves all other fields as they are.
	// What edit changes in the fields of [User] must not be stored. Edit returns the account
	// as it is then.
	//
	// If edit returns an error, Edit must return that error and change nothing. If there is no
	// such account, Edit must return an error wrapping [ErrUserNotFound], and must not create
	// it. Edit may call edit more than once, and may hold a lock meanwhile. Of concurrent edits
	// of the same field, one survives; edits of different fields must not undo each other.
	Edit(ctx context.Context, id ID, edit func(*U) error) (U, error)

	// List returns the accounts whose address begins with prefix, which can be "", and comes
	// after the address after, or from the first one if after is "". They are ordered by
	// address, byte by byte. It must return limit accounts, which is more than 0, or all if
	// there are fewer.
	List(ctx context.Context, prefix, after string, limit int) ([]U, error)

	// Delete removes an account. Its address is free then. If there is no such account, it
	// must return an error wrapping [ErrUserNotFound]: only one of several concurrent calls
	// may succeed. No concurrent change may bring the account back.
	Delete(ctx context.Context, id ID) error
}

// Change is a change to an account. The zero value has no conditions and changes nothing.
type Change struct {
	// Conditions: the change is made only if the account has these values. A nil field is
	// not compared.

	IfEmail    *string
	IfPassword *PasswordHash // the zero PasswordHash: the account has no password
	IfVersion  *int64

	// New values. A nil field leaves the value as it is.

	Email     *string       // unique and normalised
	Password  *PasswordHash // the zero PasswordHash: the account has no password any more
	Active    *bool
	Verified  *bool
	Superuser *bool

	// RevokeTokens adds 1 to User.Version, which invalidates every token issued earlier.
	RevokeTokens bool
}

// Sessions are the sessions of the accounts' users. strategy.Database is one.
type Sessions[ID comparable] interface {
	// UserChanged is called after every change to an account that can end its sessions.
	// revoked says which tokens of the account the change invalidated; their rows can be
	// deleted then. It is RevokedNone if the store failed, as nothing may have changed. The
	// context has the values and the deadline of the operation, but is not cancelled with the
	// request. The deadline can have passed; what must be done goes on behind the answer then.
	//
	// UserChanged must be safe for concurrent use and bounded in time. Its error is returned
	// by the method of the [Manager] that made the change.
	UserChanged(ctx context.Context, id ID, revoked strategy.Revoked) error
}
