package ginauth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/strategy"
)

// Check is a condition of a guard: [Verified], [Superuser], [Fresh], [Scopes], or an
// [Auth.CheckUser] of the application. [InsecureAnyWebSocketOrigin] lifts a condition. A guard
// with the zero Check answers 503.
type Check struct {
	// pass returns nil for a session that passes, or why it does not: errForbidden, a
	// staleError or a scopeError. Any other error means that the check failed.
	pass func(ctx context.Context, s subject) error
	// scoped: a guard with this check accepts scoped tokens.
	scoped bool
	// anyOrigin: a guard with this check accepts WebSocket handshakes from any origin.
	anyOrigin bool
	// restricts: the check can reject ordinary users. Verified, Fresh and Scopes admit them.
	restricts bool
	// fresh: the check can answer that the login is too old.
	fresh bool
}

// subject is the session that a Check looks at.
type subject struct {
	user    User
	info    *strategy.SessionInfo
	now     time.Time
	session any // *strategy.Session[U], for CheckUser
}

// The checks of the user's flags. Other users get 403.
var (
	// Verified admits verified users.
	Verified = Check{pass: func(_ context.Context, s subject) error { return allow(s.user.IsVerified()) }}
	// Superuser admits superusers.
	Superuser = Check{pass: func(_ context.Context, s subject) error { return allow(s.user.IsSuperuser()) }, restricts: true}
)

// InsecureAnyWebSocketOrigin makes a guard accept WebSocket handshakes with a cookie from pages
// of any origin. Without it, they must come from the application's own origin, from
// Config.TrustedOrigins or from a client that is not a browser; others get 403. A handshake is a
// GET that the browser sends with the cookie, and the page can then read and write as the user.
// With this check on every guard of the route, the handler must check the Origin header itself.
var InsecureAnyWebSocketOrigin = Check{pass: func(context.Context, subject) error { return nil }, anyOrigin: true}

func allow(ok bool) error {
	if !ok {
		return errForbidden
	}
	return nil
}

// maxAhead is the largest difference expected between the clocks of instances.
const maxAhead = 10 * time.Second

// Fresh admits users who entered their password at most maxAge ago, by the login or by
// POST reauthenticate. Others get 401 with error="insufficient_user_authentication" (RFC
// 9470). With 0, only a login of the same millisecond is fresh; with a negative maxAge,
// none is. A scoped token is not a login and never fresh.
//
// A time that is more than 10 seconds ahead of Config.Now is not fresh either: the clock of
// the instance that wrote it is or was wrong, and the login may be old.
func Fresh(maxAge time.Duration) Check {
	return Check{fresh: true, pass: func(_ context.Context, s subject) error {
		at := s.info.AuthenticatedAt
		age := s.now.Truncate(time.Millisecond).Sub(at)
		if at.IsZero() || age > maxAge || age < -maxAhead {
			return &staleError{max(0, int64(maxAge/time.Second))}
		}
		return nil
	}}
}

// Scopes admits logins, and scoped tokens that have all these scopes. Other tokens get 403
// with error="insufficient_scope" (RFC 6750 §3.1). Guards reject scoped tokens unless Scopes
// is given. Scopes() without arguments accepts every scoped token.
func Scopes(scopes ...string) Check {
	scopes = slices.Clone(scopes)
	return Check{scoped: true, pass: func(_ context.Context, s subject) error {
		for _, scope := range scopes {
			if !token.ValidScope(scope) {
				return fmt.Errorf("%q is not a scope", scope)
			}
		}
		if !s.info.HasScopes(scopes...) {
			return &scopeError{scopes}
		}
		return nil
	}}
}

// CheckUser returns a [Check] that calls pass: false is answered with 403, an error with
// 503, whatever it wraps. pass must be safe for concurrent use. The Check is for guards of
// this Auth, and of others with the same user type: elsewhere every request gets 503.
func (*Auth[U]) CheckUser(pass func(ctx context.Context, s strategy.Session[U]) (bool, error)) Check {
	return Check{restricts: true, pass: func(ctx context.Context, s subject) error {
		if pass == nil {
			return errors.New("CheckUser: the function is nil")
		}
		session, ok := s.session.(*strategy.Session[U])
		if !ok {
			var other U
			return fmt.Errorf("CheckUser of %T is used for %T", other, s.user)
		}
		own := *session
		own.Scopes = slices.Clone(own.Scopes) // requests share the session
		ok, err := pass(ctx, own)
		if err != nil {
			return &unavailable{err}
		}
		return allow(ok)
	}}
}
