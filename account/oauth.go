package account

import (
	"context"
	"errors"
	"time"
)

// The errors of an [OAuthAccountStore].
var (
	// ErrOAuthAccountNotFound means that there is no such link.
	ErrOAuthAccountNotFound = errors.New("OAuth account not found")

	// ErrOAuthAccountTaken means that the user of the provider is linked to an account already.
	ErrOAuthAccountTaken = errors.New("the OAuth account is linked already")

	// ErrLastOAuthAccount means that the link was kept, because the account has no other one.
	ErrLastOAuthAccount = errors.New("the account has no other OAuth account")
)

// OAuthAccount links an account to a user of an identity provider, who can log in to the account
// through the provider.
type OAuthAccount[ID comparable] struct {
	// Issuer and Subject name the user of the provider, as in an ID token of OpenID Connect.
	// Both are compared byte by byte.
	Issuer, Subject string
	// UserID is the account's ID.
	UserID ID
	// Email is the address that the provider named when the link was made, to show to the user;
	// "" if it named none.
	Email string
	// CreatedAt is when the link was made, in UTC and whole milliseconds.
	CreatedAt time.Time
}

// OAuthAccountStore keeps the links of accounts to users of identity providers. contrib/oidc uses
// it. mongostore.OAuthAccounts, sqlstore.OAuthAccounts and memstore.OAuthAccounts are implementations.
//
// Every method must be safe for concurrent use, must honour the cancellation of its context, and
// must be bounded in time, by its own timeout if the context has no deadline. An error that wraps
// none of the errors named here means that the store could not do what it was asked, or does not
// know whether it did.
//
// storetest.RunOAuthAccounts checks each line of this contract.
type OAuthAccountStore[ID comparable] interface {
	// Insert stores a link. If the issuer and the subject are linked already, to whatever
	// account, it must return an error wrapping [ErrOAuthAccountTaken] and change nothing: only
	// one of several concurrent calls may succeed.
	Insert(ctx context.Context, link OAuthAccount[ID]) error

	// Find returns the link of a user of a provider, or an error wrapping
	// [ErrOAuthAccountNotFound].
	Find(ctx context.Context, issuer, subject string) (OAuthAccount[ID], error)

	// ListByUser returns all links of an account, oldest first. Those of one time are ordered by
	// issuer, then by subject, byte by byte.
	ListByUser(ctx context.Context, userID ID) ([]OAuthAccount[ID], error)

	// Delete removes a link of an account. If the account has no such link, it must return an
	// error wrapping [ErrOAuthAccountNotFound]: only one of several concurrent calls may succeed.
	//
	// If keep is not empty, it names issuers, and the account must keep a link to one of them:
	// without another one, Delete must change nothing and return an error wrapping
	// [ErrLastOAuthAccount]. Concurrent calls must not remove the last two links; they may both
	// fail.
	Delete(ctx context.Context, userID ID, issuer, subject string, keep []string) error

	// DeleteByUser removes all links of an account. It returns nil if there are none.
	DeleteByUser(ctx context.Context, userID ID) error
}
