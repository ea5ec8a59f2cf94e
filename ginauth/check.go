package ginauth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/latchkey-go/latchkey/strategy"
)

// Check is a condition that [Auth.RequireUser] adds: [Verified], [Superuser],
// [Fresh], [Scopes], or one of the application's own, made by [CheckUser].
type Check[U User] interface {
	// pass returns nil for a session that may pass, or why it may not:
	// errForbidden, a staleError or a scopeError. Any other error means that this
	// could not be found out.
	pass(ctx context.Context, s subject) error
}

// subject is whom a Check looks at: what the ready checks ask for, and the
// *strategy.Session[U], which the application's own do.
type subject struct {
	user    User
	info    *strategy.SessionInfo
	now     time.Time
	session any
}

func allow(ok bool) error {
	if !ok {
		return errForbidden
	}
	return nil
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

func (f Flag) pass(_ context.Context, s subject) error {
	switch f {
	case Verified:
		return allow(s.user.IsVerified())
	case Superuser:
		return allow(s.user.IsSuperuser())
	}
	return fmt.Errorf("no such flag: %d", f)
}

// Freshness is a [Check] of how long ago the user gave their credentials; see
// [Fresh].
type Freshness time.Duration

// Fresh lets those pass who gave their credentials at most maxAge ago, by the
// login or since then by POST reauthenticate. Others are answered with 401 and
// error="insufficient_user_authentication" (RFC 9470). 0 lets only logins of the
// same millisecond pass, less than 0 none. A token with scopes is no
// login, and never fresh.
func Fresh(maxAge time.Duration) Freshness { return Freshness(maxAge) }

func (f Freshness) pass(_ context.Context, s subject) error {
	at := s.info.AuthenticatedAt
	if at.IsZero() || s.now.Truncate(time.Millisecond).Sub(at) > time.Duration(f) {
		return &staleError{max(0, int64(time.Duration(f)/time.Second))}
	}
	return nil
}

// RequiredScopes is a [Check] of a token's scopes; see [Scopes].
type RequiredScopes []string

// Scopes lets logins pass, and tokens that have all these scopes. Others are
// answered with 403 and error="insufficient_scope" (RFC 6750 §3.1). Without this
// check a guard lets no token with scopes pass: Scopes() lets them all.
func Scopes(scopes ...string) RequiredScopes { return slices.Clone(scopes) }

func (r RequiredScopes) pass(_ context.Context, s subject) error {
	for _, scope := range r {
		if !strategy.ValidScope(scope) {
			return fmt.Errorf("%q is no scope", scope)
		}
	}
	if !s.info.HasScopes(r...) {
		return &scopeError{r}
	}
	return nil
}

// restricts reports whether a check keeps ordinary users away: the others pass
// logins of all kinds.
func restricts[U User](check Check[U]) bool {
	_, own := check.(userCheck[U])
	return own || check == Check[U](Superuser)
}

// takesScopes reports whether a guard with these checks takes tokens with scopes.
func takesScopes[U User](checks []Check[U]) bool {
	for _, check := range checks {
		if _, ok := check.(RequiredScopes); ok {
			return true
		}
	}
	return false
}

// CheckUser makes a [Check] of a function that reports whether a session's user
// may pass: false is answered with 403, an error with 503. The function must be
// safe for concurrent use. U must be the user type of the Auth; with another one
// every request is answered with 503.
func CheckUser[U User](pass func(ctx context.Context, s strategy.Session[U]) (bool, error)) Check[U] {
	return userCheck[U](pass)
}

type userCheck[U User] func(context.Context, strategy.Session[U]) (bool, error)

func (f userCheck[U]) pass(ctx context.Context, s subject) error {
	if f == nil {
		return errors.New("the function of a CheckUser is nil")
	}
	session, ok := s.session.(*strategy.Session[U])
	if !ok {
		var other U
		return fmt.Errorf("the check is of sessions of %T, not %T", other, s.user)
	}
	own := *session
	own.Scopes = slices.Clone(own.Scopes) // the rest are values
	ok, err := f(ctx, own)
	if err != nil {
		return &unavailable{err} // whatever it wraps
	}
	return allow(ok)
}
