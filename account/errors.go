package account

import (
	"errors"

	"github.com/latchkey-go/latchkey/strategy"
)

// The errors that callers distinguish with [errors.Is]. Any other error is a failure of
// the store.
var (
	// ErrBadCredentials means that the account does not exist, the password is wrong, or
	// the account is not active. Clients must not learn which; an event tells the
	// application.
	ErrBadCredentials = errors.New("bad credentials")

	// ErrInvalidEmail means that a string is not an e-mail address.
	ErrInvalidEmail = errors.New("invalid e-mail address")

	// ErrInvalidPassword means that a new password was rejected: it is too short, too
	// long, not valid UTF-8, or was rejected by Config.CheckPassword. The message says why.
	ErrInvalidPassword = errors.New("invalid password")

	// ErrPasswordTooShort and ErrPasswordTooLong are the errors of a new password that wrap
	// [ErrInvalidPassword] together with the limit.
	ErrPasswordTooShort = errors.New("too short")
	ErrPasswordTooLong  = errors.New("too long")

	// ErrBusy means that too many passwords are being hashed, or that too many attempts on
	// the account are in flight. Nothing was decided; the caller can retry.
	ErrBusy = errors.New("too many passwords are being checked")

	// ErrTooManyAttempts means that the limiter rejected an attempt after too many
	// failures; the password was not checked. The error is a *[TooManyAttemptsError],
	// which says when to retry.
	ErrTooManyAttempts = errors.New("too many attempts")

	// ErrUnusableHash means that a password hash cannot be verified: its scheme is unknown,
	// it is malformed, or it would take too much memory or time. The message says why.
	ErrUnusableHash = errors.New("unusable password hash")

	// ErrEmailTaken is returned by a [Store] that already has an account with this e-mail
	// address.
	ErrEmailTaken = errors.New("e-mail address is taken")

	// ErrConflict is returned by a [Store] if a condition of a [Change] does not hold, as
	// after a concurrent change, or if the ID of a new account is taken.
	ErrConflict = errors.New("the account was changed concurrently, or its ID is taken")

	// ErrBadOneTimeToken means that a one-time token is malformed, unknown, used or expired, or
	// that the account has changed since it was issued. Clients must not learn which; an event
	// tells the application.
	ErrBadOneTimeToken = errors.New("bad one-time token")

	// ErrAlreadyVerified means that the account is verified already.
	ErrAlreadyVerified = errors.New("the account is verified already")

	// ErrNoMailer means that a method needs a Mailer and a store of one-time tokens, but
	// Config.Mail has none.
	ErrNoMailer = errors.New("Config.Mail has no Mailer")

	// ErrUserNotFound is returned by a [Store] that has no such account. It is the same
	// error as strategy.ErrUserNotFound, because a Store is also a strategy.UserSource.
	ErrUserNotFound = strategy.ErrUserNotFound

	// ErrOneTimeTokenNotFound is returned by a [OneTimeTokenStore] that has no such token:
	// it was never issued, or it was used, replaced or removed.
	ErrOneTimeTokenNotFound = errors.New("one-time token not found")
)
