package strategy

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// AccessToken is a token as a [Store] holds it. The secret is not in it. Times
// are by the application's clock, in UTC and whole milliseconds. All fields from
// LastUsedAt on are optional: zero means that they are not used.
type AccessToken[ID comparable] struct {
	// ID is the session's public handle, a UUIDv7.
	ID uuid.UUID
	// Digest is the SHA-256 of the token in base64url, 43 characters. It is
	// unique. A rotation replaces it.
	Digest string
	// UserID is the user that the token belongs to.
	UserID ID
	// CreatedAt is when the session began.
	CreatedAt time.Time

	// LastUsedAt is when the token was last seen, up to [Config.TouchInterval]
	// ago.
	LastUsedAt time.Time
	// AuthenticatedAt is when the user last gave their credentials, where that
	// is not when the session began.
	AuthenticatedAt time.Time
	// SeenNotBefore is the user's TokensNotBefore (see [NotBefore]) when they last
	// gave their credentials, the Unix epoch for none. Zero means that it is not
	// known: the row is of an older version, or the user has no such time.
	SeenNotBefore time.Time
	// ExpiresAt is the last moment at which the token is accepted, where it is
	// earlier than the lifetime of all tokens says.
	ExpiresAt time.Time
	// Scopes are what the token may be used for. nil means everything: a login.
	Scopes []string
	// Name, UserAgent and ClientAddr help users to recognise their sessions.
	Name, UserAgent, ClientAddr string
}

// authenticatedAt is AuthenticatedAt with its default.
func (t *AccessToken[ID]) authenticatedAt() time.Time {
	if t.AuthenticatedAt.IsZero() {
		return t.CreatedAt
	}
	return t.AuthenticatedAt
}

// usedAt is when the session is known to have been in use. AuthenticatedAt does
// not count: it can be by a clock that is ahead.
func (t *AccessToken[ID]) usedAt() time.Time { return latest(t.CreatedAt, t.LastUsedAt) }

func latest(times ...time.Time) (last time.Time) {
	for _, t := range times {
		if t.After(last) {
			last = t
		}
	}
	return last
}

// Rotation is what a [Store] changes when a session gets a new secret.
type Rotation struct {
	// Digest is the new secret's.
	Digest string
	// LastUsedAt, AuthenticatedAt and SeenNotBefore are set to these times, unless
	// they are later already; the zero time leaves them as they are.
	LastUsedAt, AuthenticatedAt, SeenNotBefore time.Time
}

// Position is a place in a user's sessions, newest first: behind the session
// with this time of creation and ID. The zero Position is before the newest.
type Position struct {
	// CreatedAt is the session's, in UTC and whole milliseconds.
	CreatedAt time.Time
	// ID is the session's, among those of the same time.
	ID uuid.UUID
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

	// Touch sets LastUsedAt of the token with this digest, unless it is later
	// already, and changes nothing else. A token that is not there is no error,
	// and must not be made.
	Touch(ctx context.Context, digest string, at time.Time) error

	// Rotate gives the session with this digest another one, and returns it as it
	// is then. Where there is none, it must return an error wrapping
	// [ErrTokenNotFound] and make none. It must be atomic: of several rotations
	// of one digest at once, one succeeds, and from then on ByToken does not find
	// the old digest.
	Rotate(ctx context.Context, digest string, to Rotation) (AccessToken[ID], error)

	// ByUser returns a user's tokens behind a position: newest first, by CreatedAt
	// and then by ID. It returns limit of them, which is more than 0; fewer only
	// where there are no more.
	ByUser(ctx context.Context, userID ID, after Position, limit int) ([]AccessToken[ID], error)

	// Delete removes the token with this digest for good and returns it. Where
	// there is none, it must return an error wrapping [ErrTokenNotFound]. Once it
	// has returned, nothing that was under way may bring the token back, not even
	// after a failover of the database. This holds for the other deletes too.
	Delete(ctx context.Context, digest string) (AccessToken[ID], error)

	// DeleteSession removes the session with this ID, whatever its digest is by
	// now, if it is this user's, and returns it. Where the user has none such, it
	// must return an error wrapping [ErrTokenNotFound].
	DeleteSession(ctx context.Context, userID ID, id uuid.UUID) (AccessToken[ID], error)

	// DeleteByUser removes all sessions of a user but those with these IDs. It
	// returns their number.
	DeleteByUser(ctx context.Context, userID ID, except ...uuid.UUID) (int64, error)
}

// JoinedSource is an optional capability of a [UserSource]: to read a token and its
// user at once, which [Database] then does wherever it needs both. It takes the place
// of the Store's ByToken and of ByID there: a type that embeds a JoinedSource and has
// a ByID of its own needs a ByToken of its own too. storetest checks it
// (RunJoined).
type JoinedSource[U User[ID], ID comparable] interface {
	UserSource[U, ID]

	// ByToken returns what the Store's ByToken returns, with its errors, and the
	// user whose token it is, as ByID does. Where there is the token and not the
	// user, it must return the token beside an error wrapping [ErrUserNotFound].
	// The user must be as after every change that was acknowledged before it began.
	ByToken(ctx context.Context, digest string, createdAfter time.Time) (AccessToken[ID], U, error)
}

// Retainer is an optional capability of a [Store] that removes old tokens by
// itself. [NewDatabase] uses it to refuse a store that would remove tokens which
// are still live.
type Retainer interface {
	// Retention returns for how long the store keeps a token after its creation;
	// 0 means for ever.
	Retention() time.Duration
}
