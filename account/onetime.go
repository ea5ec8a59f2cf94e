package account

import (
	"context"
	"time"
)

// Purpose says what a one-time token is for.
type Purpose string

// The purposes of one-time tokens.
const (
	PurposeVerification  Purpose = "verification"
	PurposePasswordReset Purpose = "password_reset"
	PurposeEmailChange   Purpose = "email_change"
)

// OneTimeToken is a one-time token as a store keeps it. Times are in UTC and whole
// milliseconds.
type OneTimeToken[ID comparable] struct {
	// Digest is the digest of the token, 43 characters.
	Digest  string
	Purpose Purpose
	// UserID is the ID of the token's account.
	UserID ID
	// SentTo is the address to which the token was sent.
	SentTo string
	// Email is the account's address when the token was issued. It differs from SentTo for a
	// change of address.
	Email string
	// TokenVersion is the account's token version when the token was issued.
	TokenVersion int64
	// CreatedAt is when the token was issued.
	CreatedAt time.Time
	// ExpiresAt is when the token expires.
	ExpiresAt time.Time
}

// OneTimeTokenStore keeps one-time tokens. It does not judge them: the [Manager] does.
//
// Every method must be safe for concurrent use, must honour the cancellation of its context,
// and must be bounded in time, by its own timeout if the context has no deadline. An error
// that wraps none of the errors named here means that the store could not do what it was
// asked, or does not know whether it did. A store may delete a token some time after its
// expiry.
//
// storetest.RunOneTimeTokens checks each line of this contract.
type OneTimeTokenStore[ID comparable] interface {
	// Insert stores a new token. Then it deletes the oldest tokens of the same user and
	// purpose beyond the keep newest by CreatedAt: concurrent calls leave at most keep.
	Insert(ctx context.Context, token OneTimeToken[ID], keep int) error

	// Find returns the token with this purpose and digest, with every field as it was given
	// to Insert, expired or not. If there is none, it must return an error wrapping
	// [ErrOneTimeTokenNotFound].
	Find(ctx context.Context, purpose Purpose, digest string) (OneTimeToken[ID], error)

	// Take deletes the token with this purpose and digest, and returns it. It must be atomic:
	// one of several concurrent calls succeeds. If there is no such token, it must return an
	// error wrapping [ErrOneTimeTokenNotFound].
	Take(ctx context.Context, purpose Purpose, digest string) (OneTimeToken[ID], error)

	// DeleteByUser deletes a user's tokens of a purpose, or of all purposes if it is "". It
	// succeeds if there are none.
	DeleteByUser(ctx context.Context, userID ID, purpose Purpose) error
}
