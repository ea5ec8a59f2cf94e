package ginauth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/latchkey-go/latchkey/strategy"
)

// Check is a condition of a guard: [Verified], [Superuser], [Fresh], [Scopes], or a
// [CheckUser] of the application.
type Check[U User] interface {
	// pass returns nil for a session that passes, or why it does not: errForbidden, a
	// staleError or a scopeError. Any other error means that the check failed.
	pass(ctx context.Context, s subject) error
}

// subject is the session that a Check looks at.
type subject struct {
	user    User
	info    *strategy.SessionInfo
	now     time.Time
	session any // *strategy.Session[U], for CheckUser
}

func allow(ok bool) error {
	if !ok {
		return errForbidden
	}
	return nil
}

// Flag is a [Check] of one of the user's flags. Other users get 403.
type Flag uint8

// The flags.
const (
	// Verified admits verified users.
	Verified Flag = iota + 1
	// Superuser admits superusers.
	Superuser
)

func (f Flag) pass(_ context.Context, s subject) error {
	switch f {
	case Verified:
		return allow(s.user.IsVerified())
	case Superuser:
		return allow(s.user.IsSuperuser())
	}
	return fmt.Errorf("unknown flag: %d", f)
}

// Freshness is a [Check] of the age of the login; see [Fresh].
type Freshness time.Duration

// Fresh admits users who entered their password at most maxAge ago, by the login or by
// POST reauthenticate. Others get 401 with error="insufficient_user_authentication" (RFC
// 9470). With 0, only a login of the same millisecond is fresh; with a negative maxAge,
// none is. A scoped token is not a login and never fresh.
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

// Scopes admits logins, and scoped tokens that have all these scopes. Other tokens get 403
// with error="insufficient_scope" (RFC 6750 §3.1). Guards reject scoped tokens unless Scopes
// is given. Scopes() without arguments accepts every scoped token.
func Scopes(scopes ...string) RequiredScopes { return slices.Clone(scopes) }

func (r RequiredScopes) pass(_ context.Context, s subject) error {
	for _, scope := range r {
		if !strategy.ValidScope(scope) {
			return fmt.Errorf("%q is not a scope", scope)
		}
	}
	if !s.info.HasScopes(r...) {
		return &scopeError{r}
	}
	return nil
}

// restricts reports whether a check can reject ordinary users: Verified, Fresh and Scopes
// admit them.
func restricts[U User](check Check[U]) bool {
	_, own := check.(userCheck[U])
	return own || check == Check[U](Superuser)
}

// takesScopes reports whether a guard with these checks accepts scoped tokens.
func takesScopes[U User](checks []Check[U]) bool {
	for _, check := range checks {
		if _, ok := check.(RequiredScopes); ok {
			return true
		}
	}
	return false
}

// CheckUser returns a [Check] that calls pass: false is answered with 403, an error with
// 503, whatever it wraps. pass must be safe for concurrent use. U must be the user type of
// the [Auth]; with another type every request gets 503.
func CheckUser[U User](pass func(ctx context.Context, s strategy.Session[U]) (bool, error)) Check[U] {
	return userCheck[U](pass)
}

type userCheck[U User] func(context.Context, strategy.Session[U]) (bool, error)

func (f userCheck[U]) pass(ctx context.Context, s subject) error {
	if f == nil {
		return errors.New("CheckUser: the function is nil")
	}
	session, ok := s.session.(*strategy.Session[U])
	if !ok {
		var other U
		return fmt.Errorf("CheckUser of %T is used for %T", other, s.user)
	}
	own := *session
	own.Scopes = slices.Clone(own.Scopes) // requests share the session
	ok, err := f(ctx, own)
	if err != nil {
		return &unavailable{err}
	}
	return allow(ok)
}
