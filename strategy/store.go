package strategy

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// AccessToken is a row of a [Store]: a token without its secret. Times are in UTC and whole
// milliseconds, by [Config.Now]. The fields from LastUsedAt on are optional: the zero value
// means that they are not used.
type AccessToken[ID comparable] struct {
	// ID is the session's public handle, a UUIDv7.
	ID uuid.UUID
	// Digest is the SHA-256 of the token in base64url, 43 characters. It is unique. A
	// rotation replaces it.
	Digest string
	// UserID is the ID of the token's user.
	UserID ID
	// CreatedAt is when the session began.
	CreatedAt time.Time

	// LastUsedAt is when the token was last used, up to [Config.TouchInterval] ago.
	LastUsedAt time.Time
	// AuthenticatedAt is when the user last gave the credentials. Zero means CreatedAt.
	AuthenticatedAt time.Time
	// TokenVersion is the token version of the user when they last gave the credentials; see
	// [User].
	TokenVersion int64
	// ExpiresAt is the last moment at which the token is valid, if that is earlier than
	// [Config.Lifetime] says.
	ExpiresAt time.Time
	// Legacy means that the token was issued by a former system; see [LegacyStore]. Its
	// TokenVersion is not compared with the user's.
	Legacy bool
	// Scopes are the scopes of the token. nil means a login, which may do everything.
	Scopes []string
	// Name, UserAgent and ClientIP help users to recognise their sessions.
	Name, UserAgent, ClientIP string
}

// authenticatedAt returns AuthenticatedAt or its default.
func (t *AccessToken[ID]) authenticatedAt() time.Time {
	if t.AuthenticatedAt.IsZero() {
		return t.CreatedAt
	}
	return t.AuthenticatedAt
}

// usedAt returns when the session was last known to be in use. AuthenticatedAt does not
// count, because it can be by a clock that is ahead.
func (t *AccessToken[ID]) usedAt() time.Time { return latest(t.CreatedAt, t.LastUsedAt) }

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Rotation is what [Store.Rotate] changes in a row.
type Rotation struct {
	// Digest is the digest of the new token.
	Digest string
	// LastUsedAt replaces that of the row if it is later.
	LastUsedAt time.Time
	// AuthenticatedAt replaces that of the row, unless it is zero.
	AuthenticatedAt time.Time
	// TokenVersion replaces that of the row if it is greater.
	TokenVersion int64
}

// Position is a place in a list of sessions, newest first: after the session with this
// creation time and ID. The zero Position is before the newest session.
type Position struct {
	// CreatedAt is the session's creation time, in UTC and whole milliseconds.
	CreatedAt time.Time
	// ID orders sessions with the same creation time.
	ID uuid.UUID
}

// Store keeps access tokens. It does not judge them: [Database] does.
//
// Every method must be safe for concurrent use, honour cancellation, and be bounded in time,
// by a timeout of its own if the context has no deadline. An error that wraps none of the
// errors named here means that the store could not do what it was asked to.
//
// Package storetest checks each line of this contract.
//
// A row that the store cannot read, because another program wrote it, is no token: ByToken
// and Rotate do not find it, and ByUser leaves it out and still returns as many tokens as it
// was asked for. The deletes remove it like any other and return what is known of it.
// (storetest cannot write such a row.)
type Store[ID comparable] interface {
	// Insert stores a new token. If the digest or the ID is taken, it must return an error
	// wrapping [ErrDuplicateToken] and change nothing. Once it has returned nil, ByToken must
	// return the token with every field as given.
	Insert(ctx context.Context, token AccessToken[ID]) error

	// ByToken returns the token with this digest, whatever its age. If there is none, it must
	// return an error wrapping [ErrTokenNotFound]. It must see every write that was
	// acknowledged, to any process, before the call began.
	ByToken(ctx context.Context, digest string) (AccessToken[ID], error)

	// Touch sets LastUsedAt of the token with this digest, unless it is later already, and
	// changes nothing else. If there is no such token, Touch must not create it and must
	// return nil.
	Touch(ctx context.Context, digest string, at time.Time) error

	// Rename sets the name of the session with this ID, if it is this user's, and changes
	// nothing else. Otherwise it must return an error wrapping [ErrTokenNotFound], and must not
	// create a row.
	Rename(ctx context.Context, userID ID, id uuid.UUID, name string) error

	// Rotate applies a [Rotation] to the token with this digest and returns the changed row.
	// If there is none, it must return an error wrapping [ErrTokenNotFound] and create none.
	// It must be atomic: one of several concurrent rotations of a digest succeeds, and from
	// then on ByToken does not find the old digest.
	Rotate(ctx context.Context, digest string, to Rotation) (AccessToken[ID], error)

	// ByUser returns a user's tokens after a position, newest first by CreatedAt and then by
	// ID. It must return limit tokens, which is more than 0, or all if there are fewer.
	ByUser(ctx context.Context, userID ID, after Position, limit int) ([]AccessToken[ID], error)

	// Delete removes the token with this digest and returns it. If there is none, it must
	// return an error wrapping [ErrTokenNotFound]. That must be certain, also beside other
	// writes: some databases answer that nothing was deleted while another command updates
	// the row, so their stores have to read it then. Once it has returned, no write in flight
	// may bring the token back, not even after a failover of the database. This holds for
	// the other deletes too.
	Delete(ctx context.Context, digest string) (AccessToken[ID], error)

	// DeleteSession removes the session with this ID, whatever its current digest, if it is
	// this user's, and returns it. Otherwise it must return an error wrapping
	// [ErrTokenNotFound].
	DeleteSession(ctx context.Context, userID ID, id uuid.UUID) (AccessToken[ID], error)

	// DeleteByUser removes all sessions of a user except those with the given IDs. It returns
	// the number of removed sessions.
	DeleteByUser(ctx context.Context, userID ID, except ...uuid.UUID) (int64, error)

	// Retention returns how long after its creation the store removes a token by itself; 0
	// means never. [NewDatabase] rejects a store that would remove valid tokens.
	Retention() time.Duration
}
