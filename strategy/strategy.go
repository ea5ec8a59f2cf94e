package strategy

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// User is what a strategy must know of the application's user: its ID, and
// whether it is active, verified, superuser. account.User is a ready one to
// embed.
type User[ID comparable] interface {
	UserID() ID
	IsActive() bool
	IsVerified() bool
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

// Session is a live access token with its user, as a guard sees it.
type Session[U any] struct {
	// ID is the session's public handle. It is safe to show and to log, and it
	// is not a credential.
	ID uuid.UUID
	// User is the user as it was read for this request.
	User U
	// CreatedAt is when the token was issued.
	CreatedAt time.Time
	// ExpiresAt is the last moment at which the token is accepted; zero means
	// that it does not expire.
	ExpiresAt time.Time
}

// Strategy issues, reads and destroys access tokens: all that the Gin plugin
// needs. Implementations must be safe for concurrent use. [Database] is the one
// that this library brings.
type Strategy[U any] interface {
	// WriteToken issues a new token for a user. It returns an error wrapping
	// [ErrUserInactive] for an inactive one. After any error no token was handed
	// out.
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

// TokenOption changes a token as it is issued.
type TokenOption func(*tokenOptions)

type tokenOptions struct{}
