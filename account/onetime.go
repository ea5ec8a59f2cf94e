package account

import (
	"context"
	"time"
)

// Purpose says what a one-time token is for.
type Purpose string

const (
	// PurposeVerification proves that the account's e-mail address is the user's.
	PurposeVerification Purpose = "verification"
	// PurposePasswordReset allows a new password without the old one.
	PurposePasswordReset Purpose = "password_reset"
	// PurposeEmailChange proves that the new address of an account is the user's.
	PurposeEmailChange Purpose = "email_change"
)

// OneTimeToken is what a [OneTimeTokenStore] keeps of a token that was mailed to a user. The
// token itself is not stored.
type OneTimeToken[ID comparable] struct {
	// Digest is the digest of the token, 43 characters. It is case-sensitive.
	Digest  string
	Purpose Purpose
	UserID  ID
	// SentTo is the address to which the token was mailed.
	SentTo string
	// Email is the account's address at the time of issue. It equals SentTo, except for a
	// change of address.
	Email string
	// TokenVersion is the account's token version at the time of issue.
	TokenVersion int64
	// CreatedAt and ExpiresAt are in UTC and whole milliseconds.
	CreatedAt, ExpiresAt time.Time
}

// OneTimeTokenStore keeps one-time tokens. It does not judge them: the [Manager] compares
// the expiry, the address and the token version.
//
// Every method must be safe for concurrent use, must honour the cancellation of its
// context, and must be bounded in time, by its own timeout if the context has no deadline.
// An error that wraps none of the errors named here means that the store could not do
// what it was asked, or does not know whether it did.
//
// Tokens have no empty field, apart from a token version of 0. A store may remove a token
// that expired more than 5 minutes ago by the store's clock. It must not hide or remove one
// earlier.
//
// storetest.RunOneTimeTokens checks each line of this contract.
type OneTimeTokenStore[ID comparable] interface {
	// Insert stores a token and then removes the user's oldest tokens of its purpose, so
	// that at most keep remain; keep is 1 or more. Tokens are ordered by CreatedAt, and by
	// Digest where that is equal. Tokens that were created more than 10 seconds after the
	// given one count as the oldest, because they come from a wrong clock.
	//
	// Concurrent calls must leave the newest tokens, neither more nor fewer. (Count after
	// the insert: two calls that count before it can both find room.) If the digest is
	// taken, Insert must return an error and change nothing.
	Insert(ctx context.Context, token OneTimeToken[ID], keep int) error

	// Find returns the token with this digest and this purpose. If there is none, it must
	// return an error wrapping [ErrOneTimeTokenNotFound]. It must see every write that was
	// acknowledged, to any process, before the call began.
	Find(ctx context.Context, purpose Purpose, digest string) (OneTimeToken[ID], error)

	// Take removes the token with this digest and this purpose and returns it. If there is
	// none, it must return an error wrapping [ErrOneTimeTokenNotFound], and a token of
	// another purpose must stay. It must be atomic: only one of several concurrent calls
	// may succeed. A removed token must not come back, unless it is inserted again.
	Take(ctx context.Context, purpose Purpose, digest string) (OneTimeToken[ID], error)

	// DeleteByUser removes the user's tokens of a purpose, or of every purpose if it is "".
	// It is no error if there are none.
	DeleteByUser(ctx context.Context, userID ID, purpose Purpose) error
}
