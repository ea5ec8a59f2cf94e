package contract

import (
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/strategy"
)

var idleRows = section{"idle", []row{
	{"a session is accepted for the idle timeout and not after", idleTimeoutIsExact},
	{"a session in use goes on, to its absolute end", useExtendsSession},
	{"within an interval, one use is written down", touchesAreRare},
	{"the touch fails", touchFails},
	{"giving the password again is a use", reauthenticateIsAUse},
	{"an idle session cannot be renewed", idleCannotReauthenticate},
}}

const (
	idleTimeout   = 10 * time.Minute
	touchInterval = time.Minute
)

var withIdleTimeout = withStrategy(func(cfg *strategy.Config) { cfg.IdleTimeout, cfg.TouchInterval = idleTimeout, touchInterval })

// expectIdleExpiry checks that tokens which were in use just now are accepted for a
// time, and not for a millisecond more. A use puts the end off: so it takes one
// token for each moment.
func (r *rig) expectIdleExpiry(what string, user Member, tokens []string, in time.Duration) {
	r.t.Helper()
	r.clock.advance(in - time.Millisecond)
	r.expect(what+": a millisecond before", r.get("/guarded", r.withToken(tokens[0])), welcome(user))
	r.clock.advance(time.Millisecond)
	r.expect(what+": at its end", r.get("/guarded", r.withToken(tokens[1])), welcome(user))
	r.clock.advance(time.Millisecond)
	r.expect(what+": a millisecond later", r.get("/guarded", r.withToken(tokens[2])), r.unauthorized("invalid_token"))
}

func idleTimeoutIsExact(t *testing.T, env environment) {
	for _, first := range []time.Duration{0, touchInterval, idleTimeout - time.Millisecond, idleTimeout} {
		r := env.rig(t, withIdleTimeout)
		user := r.user(active)
		tokens := []string{r.login(user), r.login(user), r.login(user)}
		r.clock.advance(first)
		r.expectValid("the first use", user, tokens, 0, 1, 2)
		r.expectIdleExpiry("used after "+first.String(), user, tokens, idleTimeout)
	}
}

func useExtendsSession(t *testing.T, env environment) {
	r := env.rig(t, withIdleTimeout)
	user, token := r.loggedIn()
	for range lifetime / idleTimeout {
		r.clock.advance(idleTimeout)
		r.expect("in use", r.get("/guarded", r.withToken(token)), welcome(user))
	}
	r.clock.advance(time.Millisecond)
	r.expect("at the absolute end", r.get("/guarded", r.withToken(token)), r.unauthorized("invalid_token"))
}

func touchesAreRare(t *testing.T, env environment) {
	r := env.rig(t, withIdleTimeout)
	user, token := r.loggedIn()
	use := func() { r.expect("in use", r.get("/guarded", r.withToken(token)), welcome(user)) }
	r.clock.advance(touchInterval - time.Millisecond)
	if n := r.db.callsDuring(use, touchToken); n != 0 {
		t.Errorf("before the interval has passed: got %d writes, want 0", n)
	}
	r.clock.advance(time.Millisecond)
	if n := r.db.callsDuring(func() {
		for range 10 {
			use()
		}
	}, touchToken); n != 1 {
		t.Errorf("when it has: got %d writes, want 1", n)
	}
	if used := r.currentSession(token).LastUsedAt; used == nil || !used.Equal(r.clock.now()) {
		t.Errorf("got last_used_at %v, want %v", used, r.clock.now())
	}
	without := env.rig(t)
	user, token = without.loggedIn()
	without.clock.advance(lifetime)
	if n := without.db.callsDuring(func() {
		without.expect("in use", without.get("/guarded", without.withToken(token)), welcome(user))
	}, touchToken); n != 0 {
		t.Errorf("without an idle timeout: got %d writes, want 0", n)
	}
}

func touchFails(t *testing.T, env environment) {
	for _, failure := range failures {
		r := env.rig(t, withIdleTimeout)
		user, token := r.loggedIn()
		r.clock.advance(2 * touchInterval)
		r.db.fail(touchToken, failure.err)
		r.expect(failure.name, r.get("/guarded", r.withToken(token)), welcome(user))
		if r.currentSession(token).LastUsedAt != nil {
			t.Errorf("%s: got a last use, want none written down", failure.name)
		}
		r.expectExpiry(failure.name, user, token, idleTimeout-2*touchInterval)
	}
}

func reauthenticateIsAUse(t *testing.T, env environment) {
	r := env.rig(t, withIdleTimeout)
	user := r.user(active)
	tokens := []string{r.login(user), r.login(user), r.login(user)}
	r.clock.advance(touchInterval / 2) // too early for a touch
	for i, token := range tokens {
		tokens[i] = r.reauthenticated(token, lifetime-touchInterval/2)
	}
	r.expectIdleExpiry("after the password", user, tokens, idleTimeout)
}

func idleCannotReauthenticate(t *testing.T, env environment) {
	r := env.rig(t, withIdleTimeout)
	_, token := r.loggedIn()
	r.clock.advance(idleTimeout + time.Millisecond)
	got := r.tryReauthenticate(password, r.withToken(token))
	r.expect("too late", got, r.unauthorized("invalid_token"))
}
