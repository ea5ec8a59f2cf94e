package strategy

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// TokenOption changes a token as it is issued.
type TokenOption func(*tokenOptions)

type tokenOptions struct {
	lifetime        time.Duration
	hasLifetime     bool
	authenticatedAt time.Time
	scopes          []string
	hasScopes       bool
	name            string
	userAgent       string
	clientAddr      string
	replaces        []string
}

// WithLifetime makes a token expire sooner than [Config.Lifetime] says. It is
// more than 0 and at most [Config.Lifetime].
func WithLifetime(d time.Duration) TokenOption {
	return func(o *tokenOptions) { o.lifetime, o.hasLifetime = d, true }
}

// WithAuthenticatedAt says when the user gave their credentials. Default: now.
// Take the time before the credentials are checked.
func WithAuthenticatedAt(t time.Time) TokenOption {
	return func(o *tokenOptions) { o.authenticatedAt = t }
}

// WithScopes makes a token for certain scopes only, for a script or a service:
// at least one, each of the characters of RFC 6749 §3.3. Such a token is no
// login. [Config.IdleTimeout] and [Config.MaxSessions] do not apply to it.
func WithScopes(scopes ...string) TokenOption {
	return func(o *tokenOptions) { o.scopes, o.hasScopes = scopes, true }
}

// WithName gives a session a name for its user to recognise. What is over 100
// bytes is cut off; so are 256 bytes of a user agent and 64 of an address.
func WithName(name string) TokenOption {
	return func(o *tokenOptions) { o.name = bound(name, 100) }
}

// WithUserAgent keeps the client's user agent with the session.
func WithUserAgent(userAgent string) TokenOption {
	return func(o *tokenOptions) { o.userAgent = bound(userAgent, 256) }
}

// WithClientAddr keeps the client's address with the session.
func WithClientAddr(addr string) TokenOption {
	return func(o *tokenOptions) { o.clientAddr = bound(addr, 64) }
}

// Replacing ends the sessions of other tokens when the new one stands, not before:
// those that came with the login (ASVS 7.2.4). They do not count against
// [Config.MaxSessions]. What is no token is ignored. If they cannot be ended, no
// token is issued.
func Replacing(tokens ...string) TokenOption {
	return func(o *tokenOptions) { o.replaces = append(o.replaces, tokens...) }
}

// bound returns valid UTF-8 of at most n bytes.
func bound(s string, n int) string {
	s = strings.ToValidUTF8(s, "�")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// check returns an error wrapping ErrInvalidOption for options that contradict
// the configuration or themselves.
func (o *tokenOptions) check(atMost time.Duration) error {
	if o.hasLifetime && (o.lifetime < time.Millisecond || atMost > 0 && o.lifetime > atMost) {
		return fmt.Errorf("%w: WithLifetime(%v), want 1 ms to Config.Lifetime, %v (0 means no limit)", ErrInvalidOption, o.lifetime, atMost)
	}
	if o.hasScopes && len(o.scopes) == 0 {
		return fmt.Errorf("%w: WithScopes wants at least one scope", ErrInvalidOption)
	}
	for _, scope := range o.scopes {
		if !ValidScope(scope) {
			return fmt.Errorf("%w: WithScopes: %q is no scope", ErrInvalidOption, scope)
		}
	}
	return nil
}

// ValidScope reports whether a string is a scope: one or more printable ASCII
// characters without space, quote and backslash (RFC 6749 §3.3).
func ValidScope(scope string) bool {
	for i := range len(scope) {
		if c := scope[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return scope != ""
}

// RotateOption changes a session as it gets a new secret.
type RotateOption func(*rotateOptions)

type rotateOptions struct {
	reauthenticatedAt time.Time
	user              any
}

// Reauthenticated says that the user has just given their credentials again: the
// user as the check of the credentials returned it, and the time before that
// check. The session counts as a fresh login from then on. It is accepted although
// it was from before what that user accepts (see [NotBefore]): so whoever has just
// changed the password can keep the session. Another user than the session's
// is [ErrInvalidOption].
func Reauthenticated(user any, at time.Time) RotateOption {
	return func(o *rotateOptions) { o.reauthenticatedAt, o.user = latest(at, notBefore(user)), user }
}

// notBefore returns from when on a user accepts tokens, in whole milliseconds as
// tokens are; the zero time where there is no such limit.
func notBefore(user any) time.Time {
	u, ok := user.(NotBefore)
	if !ok {
		return time.Time{}
	}
	return ceil(u.TokensNotBefore())
}

// seenNotBefore returns notBefore as a row keeps it, where the zero time means that
// it is not known.
func seenNotBefore(user any) time.Time {
	if _, ok := user.(NotBefore); !ok {
		return time.Time{}
	}
	return latest(time.UnixMilli(0).UTC(), notBefore(user))
}

// ceil rounds up to the millisecond.
func ceil(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Add(time.Millisecond - 1).Truncate(time.Millisecond)
}
