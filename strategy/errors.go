package strategy

import (
	"errors"
	"fmt"
)

// The errors that callers tell apart with [errors.Is]. Stores and user sources
// wrap them with %w; any other error counts as a failure of the store.
var (
	// ErrInvalidToken means that the token is malformed, unknown, revoked or
	// expired, or that its user is gone or inactive. A client must not learn
	// which; an [Event] tells the application.
	ErrInvalidToken = errors.New("invalid token")

	// ErrTokenNotFound is wrapped by a [Store] that holds no such token.
	ErrTokenNotFound = errors.New("token not found")

	// ErrDuplicateToken is wrapped by a [Store] that already holds the token or
	// the session ID that it was asked to insert.
	ErrDuplicateToken = errors.New("duplicate token")

	// ErrUserNotFound is wrapped by a [UserSource] that has no such user.
	ErrUserNotFound = errors.New("user not found")

	// ErrSessionNotFound means that a user has no session with this ID. Another
	// user's session is none of theirs.
	ErrSessionNotFound = errors.New("session not found")

	// ErrTooManySessions is returned by [Strategy.WriteToken] for a user who has
	// as many sessions as [Config.MaxSessions] allows, under [RefuseNew].
	ErrTooManySessions = errors.New("too many sessions")

	// ErrInvalidOption is returned by [Strategy.WriteToken] for a [TokenOption]
	// that it cannot honour. The message says which.
	ErrInvalidOption = errors.New("invalid option")

	// ErrInvalidCursor means that a [Page] begins at no place that this library
	// named.
	ErrInvalidCursor = errors.New("invalid cursor")

	// ErrUserInactive is returned by [Strategy.WriteToken] for a user that is
	// not active.
	ErrUserInactive = errors.New("user is inactive")
)

// denial is an [ErrInvalidToken] with its reason. The few there are exist once:
// a flood of bad tokens costs no allocation.
type denial struct {
	reason Reason
	err    error
}

func (d *denial) Error() string { return d.err.Error() }
func (d *denial) Unwrap() error { return d.err }

func newDenial(reason Reason) *denial {
	return &denial{reason, fmt.Errorf("%w: %s", ErrInvalidToken, reason)}
}

var (
	denyMalformed    = newDenial(ReasonMalformed)
	denyUnknown      = newDenial(ReasonUnknown)
	denyExpired      = newDenial(ReasonExpired)
	denyIdle         = newDenial(ReasonIdle)
	denySuperseded   = newDenial(ReasonSuperseded)
	denyUserGone     = newDenial(ReasonUserGone)
	denyUserInactive = newDenial(ReasonUserInactive)
)
