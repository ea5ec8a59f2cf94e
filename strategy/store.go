package strategy

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// AccessToken is a token as a [Store] holds it. The secret is not in it.
type AccessToken[ID comparable] struct {
	// ID is the session's public handle, a UUIDv7.
	ID uuid.UUID
	// Digest is the SHA-256 of the token in base64url, 43 characters. It is
	// unique.
	Digest string
	// UserID is the user that the token belongs to.
	UserID ID
	// CreatedAt is when the token was issued, by the application's clock, in UTC
	// and whole milliseconds.
	CreatedAt time.Time
}

// Store keeps access tokens. It decides nothing: [Database] does.
//
// Every method must be safe for concurrent use, must honour the cancellation of
// its context, and must be bounded in time, by a timeout of its own where the
// context has no deadline. An error that wraps none of the sentinels named here
// means that the store could not do what it was asked.
//
// The package storetest checks each line of this contract.
type Store[ID comparable] interface {
	// Insert stores a new token. Where the digest or the ID is taken, it must
	// return an error wrapping [ErrDuplicateToken] and change nothing. Once it
	// has returned nil, ByToken finds the token, and every field as it was given.
	Insert(ctx context.Context, token AccessToken[ID]) error

	// ByToken returns the token with this digest that was created at or after
	// the given time, to the millisecond; the zero time means no limit. Where
	// there is none, it must return an error wrapping [ErrTokenNotFound]. It must
	// see every Insert and Delete that was acknowledged before it began, by
	// whatever process.
	ByToken(ctx context.Context, digest string, createdAfter time.Time) (AccessToken[ID], error)

	// Delete removes the token with this digest for good and returns it. Where
	// there is none, it must return an error wrapping [ErrTokenNotFound]. Once it
	// has returned, nothing that was under way may bring the token back, not even
	// after a failover of the database.
	Delete(ctx context.Context, digest string) (AccessToken[ID], error)
}

// Retainer is an optional capability of a [Store] that removes old tokens by
// itself. [NewDatabase] uses it to refuse a store that would remove tokens which
// are still live.
type Retainer interface {
	// Retention returns for how long the store keeps a token after its creation;
	// 0 means for ever.
	Retention() time.Duration
}
