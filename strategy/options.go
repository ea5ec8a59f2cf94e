package strategy

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/latchkey-go/latchkey/internal/token"
)

// TokenOption changes a token when it is issued.
type TokenOption func(*tokenOptions)

type tokenOptions struct {
	lifetime        time.Duration
	hasLifetime     bool
	authenticatedAt time.Time
	scopes          []string
	hasScopes       bool
	name            string
	userAgent       string
	clientIP        string
	replaces        []string
}

// WithLifetime makes a token expire earlier than [Config.Lifetime]: d must be at least 1
// millisecond and at most [Config.Lifetime].
func WithLifetime(d time.Duration) TokenOption {
	return func(o *tokenOptions) { o.lifetime, o.hasLifetime = d, true }
}

// WithAuthenticatedAt sets when the user gave the credentials. Default: now. Take the time
// before the credentials are checked.
func WithAuthenticatedAt(t time.Time) TokenOption {
	return func(o *tokenOptions) { o.authenticatedAt = t }
}

// WithScopes restricts a token to at least one scope, for a script or a service. A scope is
// one or more printable ASCII characters other than space, double quote and backslash (RFC
// 6749 §3.3). Such a token is not a login: [Config.IdleTimeout] and [Config.MaxSessions] do
// not apply to it.
func WithScopes(scopes ...string) TokenOption {
	return func(o *tokenOptions) { o.scopes, o.hasScopes = scopes, true }
}

// WithName names a session, so that its user recognises it. Names are cut to 100 bytes.
func WithName(name string) TokenOption {
	return func(o *tokenOptions) { o.name = bound(name, maxName) }
}

const maxName = 100 // bytes

// WithUserAgent stores the client's user agent with the session, cut to 256 bytes.
func WithUserAgent(userAgent string) TokenOption {
	return func(o *tokenOptions) { o.userAgent = bound(userAgent, 256) }
}

// WithClientIP stores the client's IP address with the session, cut to 64 bytes.
func WithClientIP(ip string) TokenOption {
	return func(o *tokenOptions) { o.clientIP = bound(ip, 64) }
}

// WithReplaced ends the sessions of the given tokens once the new token is stored, such as
// those that the client sent with its login (OWASP ASVS 5.0, 7.2.4). They do not count
// against [Config.MaxSessions]. Malformed and unknown tokens are ignored. If a session cannot
// be ended, WriteToken returns an error and issues no token.
func WithReplaced(tokens ...string) TokenOption {
	return func(o *tokenOptions) { o.replaces = append(o.replaces, tokens...) }
}

// bound returns valid UTF-8 of at most n bytes, without NULs, which PostgreSQL cannot store.
func bound(s string, n int) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "�"), "\x00", "�")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// check returns an error wrapping ErrInvalidOption if an option is invalid.
func (o *tokenOptions) check(longest time.Duration) error {
	if o.hasLifetime && (o.lifetime < time.Millisecond || longest > 0 && o.lifetime > longest) {
		return fmt.Errorf("%w: WithLifetime(%v), want 1 ms to Config.Lifetime, %v (0 means no limit)", ErrInvalidOption, o.lifetime, longest)
	}
	if o.hasScopes && len(o.scopes) == 0 {
		return fmt.Errorf("%w: WithScopes wants at least one scope", ErrInvalidOption)
	}
	for _, scope := range o.scopes {
		if !token.ValidScope(scope) {
			return fmt.Errorf("%w: WithScopes: %q is not a scope", ErrInvalidOption, scope)
		}
	}
	return nil
}

// RotateOption changes a session when it gets a new secret.
type RotateOption func(*rotateOptions)

type rotateOptions struct {
	reauthenticated bool
	user            any
	at              time.Time
}

// WithReauthentication says that the user has given the credentials again: user is the value
// that the check of the credentials returned, and at is the time before that check. From then
// on the session counts as a fresh login and has the user's token version, so users who
// changed their password can keep the session. RotateToken returns an error wrapping
// [ErrInvalidOption] if user is not the session's user.
func WithReauthentication(user any, at time.Time) RotateOption {
	return func(o *rotateOptions) { *o = rotateOptions{reauthenticated: true, user: user, at: at} }
}
