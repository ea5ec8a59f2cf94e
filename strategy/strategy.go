package strategy

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
)

// User is what a strategy needs to know of the application's user type. account.User is a
// ready one to embed.
//
// The methods are called on every request, concurrently. They must only return values that
// were read with the user.
type User[ID comparable] interface {
	// UserID returns the user's ID. No user has the zero ID.
	UserID() ID
	// IsActive reports whether the user may log in and use tokens.
	IsActive() bool
	// IsVerified reports whether the user is verified, whatever that means in the
	// application.
	IsVerified() bool
	// IsSuperuser reports whether the user passes guards for superusers.
	IsSuperuser() bool
	// TokenVersion returns the user's token version, which every change that ends the user's
	// sessions raises. It begins at 0 and is never negative. A token is valid only while it
	// has the user's version: raising the version invalidates every token issued earlier.
	TokenVersion() int64
}

// UserSource finds the user of a token. It is asked on every request with a valid token,
// unless there is a [Cache].
type UserSource[U User[ID], ID comparable] interface {
	// ByID returns the user. It must return an error wrapping [ErrUserNotFound] if, and only
	// if, there is no such user. It must be bounded in time, honour cancellation and be safe
	// for concurrent use.
	ByID(ctx context.Context, id ID) (U, error)
}

// Joiner is an optional interface of a [UserSource] whose database can read a token together with
// its user, in one round trip instead of two. It is optional because not every database can. Package
// storetest checks each line of this contract.
type Joiner[U User[ID], ID comparable] interface {
	UserSource[U, ID]

	// Join returns a function that reads the row of a token in the store together with its user, or
	// nil if it cannot for this store. The function is bounded in time, honours cancellation and is
	// safe for concurrent use. Its results are those of [Store.ByToken] and of ByID for the row's
	// UserID, as they were at one moment: an error wraps [ErrTokenNotFound] if, and only if, there
	// is no such row, and [ErrUserNotFound], with the row, if, and only if, there is a row but no
	// such user.
	Join(tokens Store[ID]) func(ctx context.Context, digest string) (AccessToken[ID], U, error)
}

// SessionInfo describes a session. It contains no credentials.
type SessionInfo struct {
	// Scopes are the scopes of the token. nil means a login, which may do everything.
	Scopes []string
	// ID is the session's public handle. It is safe to show and to log.
	ID uuid.UUID
	// UserID is the ID of the session's user, of the application's ID type.
	UserID any
	// CreatedAt is when the session began.
	CreatedAt time.Time
	// LastUsedAt is when the session was last used, up to [Config.TouchInterval] ago. Zero
	// if that is not stored.
	LastUsedAt time.Time
	// AuthenticatedAt is when the user last gave the credentials. Zero for a token with
	// scopes, which is not a login.
	AuthenticatedAt time.Time
	// ExpiresAt is the last moment at which the token is valid, however often it is used.
	// Zero means that it does not expire.
	ExpiresAt time.Time
	// Name, UserAgent and ClientIP are the values given at the login; "" means none.
	Name, UserAgent, ClientIP string
}

// Scoped reports whether the token is restricted to scopes, and is therefore not a login.
func (s SessionInfo) Scoped() bool { return s.Scopes != nil }

// usedAt returns when the session was last known to be in use.
func (s *SessionInfo) usedAt() time.Time { return latest(s.CreatedAt, s.LastUsedAt) }

// HasScopes reports whether the session has all the given scopes. A login has every scope.
func (s SessionInfo) HasScopes(scopes ...string) bool {
	if !s.Scoped() {
		return true
	}
	for _, scope := range scopes {
		if !slices.Contains(s.Scopes, scope) {
			return false
		}
	}
	return true
}

// Session is a valid session with its user.
type Session[U any] struct {
	// User is the user as read for this request, or as cached.
	User U
	SessionInfo
}

// Revoked says which tokens of a user a change has invalidated.
type Revoked int

const (
	// RevokedNone: the change invalidated no tokens by itself.
	RevokedNone Revoked = iota
	// RevokedByPassword: a new password invalidated all tokens, except those of a strategy with
	// [Config.SurvivePasswordChange].
	RevokedByPassword
	// RevokedAll: the change invalidated all tokens: the user was deactivated, deleted, or
	// logged out everywhere.
	RevokedAll
)

// String returns a name for logs and tests.
func (r Revoked) String() string {
	switch r {
	case RevokedNone:
		return "none"
	case RevokedByPassword:
		return "by password"
	case RevokedAll:
		return "all"
	}
	return "unknown"
}

// UserSessions are the sessions of one user; see [Database.Of]. They are safe for concurrent
// use.
type UserSessions interface {
	// UserID returns the user's ID, of the application's ID type.
	UserID() any
	// Subject returns the user's ID as a string.
	Subject() string
	// List is [Database.Sessions].
	List(ctx context.Context, page Page) (SessionPage, error)
	// Rename is [Database.RenameSession].
	Rename(ctx context.Context, id uuid.UUID, name string) error
	// Destroy is [Database.DestroySession].
	Destroy(ctx context.Context, id uuid.UUID) error
	// DestroyAll is [Database.DestroyAll].
	DestroyAll(ctx context.Context, except ...uuid.UUID) error
}
