package ginauth

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// The errors that the methods of an [Auth] return and a [Refusal] wraps,
// beside those of strategy and account.
var (
	// ErrNoCredentials means that the request carries no token.
	ErrNoCredentials = errors.New("no credentials")
	// ErrNotFresh means that the route requires a more recent login; see [Fresh].
	ErrNotFresh = errors.New("the login is too old")
	// ErrCrossOrigin means that a page of another origin may have made a browser send
	// the request; see Config.TrustedOrigins.
	ErrCrossOrigin = errors.New("cross-origin request")
	// ErrNotVerified means that the password was right but the user is not verified;
	// see Config.RequireVerified.
	ErrNotVerified = errors.New("user is not verified")
)

// CodeError is a rejection with a code of its own, for routes that this package does not have,
// such as the callback of an OAuth login. [Auth.Refuse] answers it with the status and the code,
// whatever Err wraps.
type CodeError struct {
	// Status is the HTTP status, 400 to 499. Default 400.
	Status int
	// Code is the answer's detail: letters, digits and underscores.
	Code string
	// Err is the cause, for the application alone. It can be nil.
	Err error
}

// Error implements error.
func (e *CodeError) Error() string {
	if e.Err == nil {
		return e.Code
	}
	return e.Code + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *CodeError) Unwrap() error { return e.Err }

// status returns the status of the answer. ok is false for one that is no rejection, or for a
// code that cannot stand in JSON as it is.
func (e *CodeError) status() (status int, ok bool) {
	plain := func(r rune) bool {
		return r == '_' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
	}
	status = cmp.Or(e.Status, http.StatusBadRequest)
	return status, status >= 400 && status < 500 && e.Code != "" && strings.TrimFunc(e.Code, plain) == ""
}

var (
	errBadRequest   = errors.New("malformed credentials")
	errForbidden    = errors.New("forbidden")
	errMediaType    = errors.New("unsupported media type")
	errBodyTooLarge = errors.New("body too large")
	errBodyTooSlow  = errors.New("body too slow")
	errUnavailable  = errors.New("unavailable")
	errTooMany      = errors.New("too many")
	errMisuse       = errors.New("ginauth: wrong use") // of a method, by a handler
	errSeveralUsers = fmt.Errorf("%w: cookies of several users", strategy.ErrInvalidToken)
)

// verdicts are the errors that decide something about a request or a login.
var verdicts = []error{
	ErrNoCredentials, ErrNotFresh, ErrCrossOrigin, ErrNotVerified, errBadRequest, errForbidden,
	strategy.ErrInvalidToken, strategy.ErrSessionNotFound, strategy.ErrUserInactive,
	account.ErrBadCredentials, account.ErrTooManyAttempts,
	account.ErrBadOneTimeToken, account.ErrAlreadyVerified,
	account.ErrEmailTaken, account.ErrInvalidEmail, account.ErrInvalidPassword, account.ErrConflict, account.ErrUserNotFound,
}

// staleError means that the route requires a more recent login (RFC 9470).
type staleError struct{ maxAgeSeconds int64 }

func (e *staleError) Error() string { return ErrNotFresh.Error() }
func (e *staleError) Unwrap() error { return ErrNotFresh }

// scopeError means that the token's scopes do not cover the route (RFC 6750 §3.1).
// Without scopes, the route accepts no scoped token.
type scopeError struct{ scopes []string }

func (e *scopeError) Error() string { return "insufficient scope" }

// routeError is an error whose code depends on the route.
type routeError struct {
	error
	code string
}

func (e *routeError) Unwrap() error { return e.error }

// expected returns the reason that err wraps, of those that a call may give. Any other
// error becomes unavailable: a failure of the application's database, service or check
// decides nothing, whatever it wraps.
func expected(err error, reasons ...error) error {
	for _, reason := range reasons {
		if errors.Is(err, reason) {
			return reason
		}
	}
	return &unavailable{err}
}

// passwordRefused is expected for the errors of an [Authenticator].
func passwordRefused(err error) error {
	var tooMany *account.TooManyAttemptsError
	switch {
	case errors.As(err, &tooMany):
		return tooMany
	case errors.Is(err, account.ErrTooManyAttempts):
		return &account.TooManyAttemptsError{} // the time to wait is unknown
	}
	return expected(err, account.ErrBadCredentials)
}

// unavailable is a failure. errors.Is finds what its cause wraps, except verdicts.
type unavailable struct{ cause error }

func (e *unavailable) Error() string { return e.cause.Error() }

func (e *unavailable) Is(target error) bool {
	return target == errUnavailable || !slices.Contains(verdicts, target) && errors.Is(e.cause, target)
}

// cause returns the error that an unavailable hides.
func cause(err error) error {
	if u, ok := err.(*unavailable); ok {
		return u.cause
	}
	return err
}
