package strategy

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
)

// User is what a strategy must know of the application's user: its ID, and
// whether it is active, verified, superuser. account.User is a ready one to
// embed.
//
// The methods are called on every request, by many goroutines: they only return
// what the user was read with.
type User[ID comparable] interface {
	// UserID returns the user's ID. The zero ID is no user's.
	UserID() ID
	// IsActive reports whether the user may log in and use tokens.
	IsActive() bool
	// IsVerified reports whether the user is verified, by whatever the
	// application means by that.
	IsVerified() bool
	// IsSuperuser reports whether the user passes guards that ask for one.
	IsSuperuser() bool
}

// UserSource finds the user that a token belongs to. It is consulted on every
// request with a live token.
type UserSource[U User[ID], ID comparable] interface {
	// ByID returns the user. It must return an error wrapping [ErrUserNotFound]
	// where there is none, and no such error for any other reason. It must be
	// bounded in time, honour cancellation and be safe for concurrent use.
	ByID(ctx context.Context, id ID) (U, error)
}

// NotBefore is an optional capability of a user: whenever the time moves on, all
// tokens of before are invalid, at once and without being touched. Those are the
// tokens that were issued for the user as they were with an earlier time, whatever
// the clocks of the instances said. Of tokens that do not know it, of older versions
// of this library, those are invalid for which the user gave their credentials
// earlier than the time. account.User has it.
type NotBefore interface {
	// TokensNotBefore returns the time; the zero time means that there is none.
	// Every change that is to end tokens must move it on, by a millisecond at least.
	TokensNotBefore() time.Time
}

// SessionInfo is what is known of a session. Nothing in it is a credential.
type SessionInfo struct {
	// Scopes are what the token may be used for. nil means everything: a login.
	Scopes []string
	// ID is the session's public handle. It is safe to show and to log.
	ID uuid.UUID
	// UserID is the ID of the user whose session it is, of the application's ID
	// type.
	UserID any
	// CreatedAt is when the session began.
	CreatedAt time.Time
	// LastUsedAt is when it was last used, up to [Config.TouchInterval] ago. Zero
	// where that is not written down.
	LastUsedAt time.Time
	// AuthenticatedAt is when the user last gave their credentials. Zero for a
	// token with scopes: it is no login.
	AuthenticatedAt time.Time
	// ExpiresAt is the last moment at which the token is accepted, however often
	// it is used; zero means that it does not expire.
	ExpiresAt time.Time
	// Name, UserAgent and ClientAddr are as they were given at the login; ""
	// where they were not.
	Name, UserAgent, ClientAddr string
}

// Scoped reports whether this is a token for certain scopes only, and no login.
func (s SessionInfo) Scoped() bool { return s.Scopes != nil }

// usedAt is when the session is known to have been in use.
func (s *SessionInfo) usedAt() time.Time { return latest(s.CreatedAt, s.LastUsedAt) }

// own returns a copy whose fields are the caller's to change.
func (s *SessionInfo) own() SessionInfo {
	info := *s
	info.Scopes = slices.Clone(s.Scopes)
	return info
}

// HasScopes reports whether the session may do what all these scopes name. A
// login may do everything.
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

// Session is a live access token with its user, as a guard sees it.
type Session[U any] struct {
	// User is the user as it was read for this request.
	User U
	SessionInfo
}

// own returns a copy for the caller alone, but for what fields of the user point to.
func (s *Session[U]) own() Session[U] {
	return Session[U]{User: s.User, SessionInfo: s.SessionInfo.own()}
}

// Strategy issues, reads and destroys access tokens: all that the Gin plugin
// needs. Implementations must be safe for concurrent use. [Database] is the one
// that this library brings.
type Strategy[U any] interface {
	// WriteToken issues a new token for a user, as they were read when their
	// credentials were checked: of a user with a time before which tokens are invalid
	// (see [NotBefore]), it is invalid if the time has moved on since. It returns an error wrapping
	// [ErrUserInactive] for an inactive one, [ErrTooManySessions] for one who may
	// have no more, [ErrInvalidOption] for an option that cannot be honoured.
	// After any error no token was handed out.
	WriteToken(ctx context.Context, user U, opts ...TokenOption) (Secret, Session[U], error)

	// ReadToken returns the session of a token. It returns an error wrapping
	// [ErrInvalidToken] if, and only if, it is certain that the token is not
	// good; any other error is a failure to find out.
	ReadToken(ctx context.Context, token string) (Session[U], error)

	// DestroyToken revokes a token: once it has returned nil, the token is never
	// accepted again. It is idempotent: a token that does not exist, or is no
	// token at all, is a success. After an error the token may still be live.
	DestroyToken(ctx context.Context, token string) error
}

// TokenReader is the optional capability of a [Strategy] to read a token without
// its user. [Database] has it. A type that embeds one and has a ReadToken of its own
// needs a ReadTokenInfo of its own too.
type TokenReader interface {
	// ReadTokenInfo returns what is known of a token's session, with the errors of
	// ReadToken. The user is not read: that they are gone, inactive, or accept only
	// later logins (see [NotBefore]) is not noticed.
	ReadTokenInfo(ctx context.Context, token string) (SessionInfo, error)
}

// SessionManager is the optional capability of a [Strategy] whose sessions can be
// rotated, listed and ended. [Database] has it.
type SessionManager[U any] interface {
	// RotateToken gives a live session a new secret; the old one is dead at once.
	// The session keeps its ID and its end. It returns an error wrapping
	// [ErrInvalidToken] if the token is not good, also where another rotation
	// came first.
	RotateToken(ctx context.Context, token string, opts ...RotateOption) (Secret, Session[U], error)

	// Of returns the sessions of a user.
	Of(user U) UserSessions
}

// UserSessions are the sessions of one user. They are safe for concurrent use.
type UserSessions interface {
	// Subject is the user's ID as a string.
	Subject() string
	// List returns a page of the live sessions, newest first. It returns an error
	// wrapping [ErrInvalidCursor] for a page that does not exist.
	List(ctx context.Context, page Page) (SessionPage, error)
	// Destroy ends a session. It returns an error wrapping [ErrSessionNotFound]
	// where the user has none with this ID.
	Destroy(ctx context.Context, id uuid.UUID) error
	// DestroyAll ends all sessions but those with these IDs.
	DestroyAll(ctx context.Context, except ...uuid.UUID) error
}
