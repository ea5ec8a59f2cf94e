package ginauth

import (
	"context"
	"fmt"

	"github.com/latchkey-go/latchkey/strategy"
)

// Check is a condition that [Auth.RequireUser] adds: [Verified], [Superuser], or
// one of the application's own, made by [CheckUser].
type Check[U User] interface {
	// pass reports whether the user may pass; an error means that this could not
	// be found out.
	pass(ctx context.Context, s subject) (bool, error)
}

// subject is whom a Check looks at: the flags, which the ready checks ask for,
// and the strategy.Session[U], which the application's own do.
type subject struct {
	user    User
	session any
}

// Flag is a [Check] of one of the user's flags.
type Flag uint8

// The flags.
const (
	// Verified lets verified users pass.
	Verified Flag = iota + 1
	// Superuser lets superusers pass.
	Superuser
)

func (f Flag) pass(_ context.Context, s subject) (bool, error) {
	switch f {
	case Verified:
		return s.user.IsVerified(), nil
	case Superuser:
		return s.user.IsSuperuser(), nil
	}
	return false, fmt.Errorf("no such flag: %d", f)
}

// CheckUser makes a [Check] of a function that reports whether a session's user
// may pass: false is answered with 403, an error with 503. The function must be
// safe for concurrent use. U must be the user type of the Auth; with another one
// every request is answered with 503.
func CheckUser[U User](pass func(ctx context.Context, s strategy.Session[U]) (bool, error)) Check[U] {
	return userCheck[U](pass)
}

type userCheck[U User] func(context.Context, strategy.Session[U]) (bool, error)

func (f userCheck[U]) pass(ctx context.Context, s subject) (bool, error) {
	session, ok := s.session.(strategy.Session[U])
	if !ok {
		return false, fmt.Errorf("the check is of sessions of %T, not %T", session.User, s.user)
	}
	return f(ctx, session)
}
