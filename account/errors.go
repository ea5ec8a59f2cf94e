package account

import (
	"errors"

	"github.com/latchkey-go/latchkey/strategy"
)

// The errors that callers tell apart with [errors.Is]. Any other error is a
// failure of the store.
var (
	// ErrBadCredentials means that there is no such account, that the password
	// is wrong, or that the account is not active. Nobody outside may learn
	// which; an event tells the application.
	ErrBadCredentials = errors.New("bad credentials")

	// ErrInvalidEmail means that a string is not an e-mail address.
	ErrInvalidEmail = errors.New("invalid e-mail address")

	// ErrInvalidPassword means that a new password is refused: too short, too
	// long, or turned down by Config.CheckPassword. The message says which.
	ErrInvalidPassword = errors.New("invalid password")

	// ErrBusy means that too many passwords are being hashed already. Nothing was
	// decided: try again in a moment.
	ErrBusy = errors.New("too many passwords are being hashed")

	// ErrTooManyAttempts means that too many attempts failed before, and that this
	// one was not looked at. It is a *[TooManyAttemptsError], which says when to
	// try again.
	ErrTooManyAttempts = errors.New("too many attempts")

	// ErrEmailTaken is wrapped by a [Store] that already holds an account with
	// this e-mail address.
	ErrEmailTaken = errors.New("e-mail address is taken")

	// ErrConflict is wrapped by a [Store] where an account is no longer as the
	// caller saw it.
	ErrConflict = errors.New("the account has changed meanwhile")

	// ErrUserNotFound is wrapped by a [Store] that has no such account. It is
	// strategy.ErrUserNotFound, so that an account store is a user source too.
	ErrUserNotFound = strategy.ErrUserNotFound
)
