package strategy

import (
	"errors"
	"fmt"

	"github.com/latchkey-go/latchkey/event"
)

// Errors that callers distinguish with [errors.Is]. Stores and user sources wrap theirs with
// %w; any other error counts as a failure of the store.
var (
	// ErrInvalidToken means that a token is malformed, unknown, revoked, expired, idle or
	// superseded, or that its user is gone or inactive. Do not tell the client which; the
	// [event.Reason] tells the application.
	ErrInvalidToken = errors.New("invalid token")

	// ErrTokenNotFound is returned by a [Store] that has no such token.
	ErrTokenNotFound = errors.New("token not found")

	// ErrDuplicateToken is returned by a [Store] that already has a token with the digest or
	// the session ID that it was asked to insert.
	ErrDuplicateToken = errors.New("duplicate token")

	// ErrUserNotFound is returned by a [UserSource] that has no such user.
	ErrUserNotFound = errors.New("user not found")

	// ErrSessionNotFound means that a user has no session with this ID; another user may.
	ErrSessionNotFound = errors.New("session not found")

	// ErrInvalidOption is returned by [Database.WriteToken] and [Database.RotateToken] for an
	// option that they cannot honour. The message names the option.
	ErrInvalidOption = errors.New("invalid option")

	// ErrInvalidCursor means that [Page.After] is not the Next of a page.
	ErrInvalidCursor = errors.New("invalid cursor")

	// ErrUserInactive is returned by [Database.WriteToken] for an inactive user. It also ends a
	// [Database.Watch] whose user was deactivated or deleted.
	ErrUserInactive = errors.New("user is inactive")

	// ErrSessionRevoked ends a [Database.Watch] whose token was revoked, rotated or superseded.
	ErrSessionRevoked = errors.New("session was revoked")

	// ErrSessionExpired ends a [Database.Watch] whose session is over by its lifetime or its
	// idle timeout.
	ErrSessionExpired = errors.New("session expired")

	// ErrSessionUnverified ends a [Database.Watch] after the store has failed for
	// [Config.WatchGrace]: the session may still be valid, and the client should try again.
	ErrSessionUnverified = errors.New("session could not be verified")

	// ErrClosed ends a [Database.Watch] when the Database is closed.
	ErrClosed = errors.New("closed")
)

// denial is an [ErrInvalidToken] with its reason. Each reason has one value, so that a flood
// of invalid tokens allocates nothing.
type denial struct {
	reason event.Reason
	err    error
}

func (d *denial) Error() string { return d.err.Error() }
func (d *denial) Unwrap() error { return d.err }

func newDenial(reason event.Reason) *denial {
	return &denial{reason, fmt.Errorf("%w: %s", ErrInvalidToken, reason)}
}

var (
	denyMalformed    = newDenial(event.ReasonMalformed)
	denyUnknown      = newDenial(event.ReasonUnknown)
	denyExpired      = newDenial(event.ReasonExpired)
	denyIdle         = newDenial(event.ReasonIdle)
	denySuperseded   = newDenial(event.ReasonSuperseded)
	denyUserGone     = newDenial(event.ReasonUserGone)
	denyUserInactive = newDenial(event.ReasonUserInactive)
)
