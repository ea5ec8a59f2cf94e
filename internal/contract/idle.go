package contract

import (
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/strategy"
)

var idleRows = section{"idle", []row{
	{"an unused session is valid up to the idle timeout, to the millisecond", idleTimeoutIsExact},
	{"a session in use is valid up to its lifetime", useExtendsSession},
	{"the last use is stored once in a touch interval", touchesAreRare},
	{"a failed update of the last use does not fail the request", touchFails},
	{"reauthentication is a use", reauthenticateIsAUse},
	{"an idle session cannot be reauthenticated", idleCannotReauthenticate},
}}

const (
	idleTimeout   = 10 * time.Minute
	touchInterval = time.Minute
)

var withIdleTimeout = withStrategy(func(cfg *strategy.Config) { cfg.IdleTimeout, cfg.TouchInterval = idleTimeout, touchInterval })

// expectIdleExpiry checks that tokens used just now are valid for a time and not a millisecond
// longer. A use extends the time, so the check needs one token for each moment.
func (r *rig) expectIdleExpiry(what string, user Member, tokens []string, in time.Duration) {
	r.t.Helper()
	r.clock.advance(in - time.Millisecond)
	r.expect(what+": a millisecond before", r.get("/guarded", r.withToken(tokens[0])), welcome(user))
	r.clock.advance(time.Millisecond)
	r.expect(what+": at the timeout", r.get("/guarded", r.withToken(tokens[1])), welcome(user))
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
	r.expect("after the lifetime", r.get("/guarded", r.withToken(token)), r.unauthorized("invalid_token"))
}

func touchesAreRare(t *testing.T, env environment) {
	r := env.rig(t, withIdleTimeout)
	user, token := r.loggedIn()
	use := func() { r.expect("in use", r.get("/guarded", r.withToken(token)), welcome(user)) }
	r.clock.advance(touchInterval - time.Millisecond)
	if n := r.db.callsDuring(use, touchToken); n != 0 {
		t.Errorf("within the interval: got %d writes, want 0", n)
	}
	r.clock.advance(time.Millisecond)
	if n := r.db.callsDuring(func() {
		for range 10 {
			use()
		}
	}, touchToken); n != 1 {
		t.Errorf("after the interval: got %d writes, want 1", n)
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
			t.Errorf("%s: got a last use in the store, want none", failure.name)
		}
		r.expectExpiry(failure.name, user, token, idleTimeout-2*touchInterval)
	}
}

func reauthenticateIsAUse(t *testing.T, env environment) {
	r := env.rig(t, withIdleTimeout)
	user := r.user(active)
	tokens := []string{r.login(user), r.login(user), r.login(user)}
	r.clock.advance(touchInterval / 2) // within the touch interval
	for i, token := range tokens {
		tokens[i] = r.reauthenticated(token, lifetime-touchInterval/2)
	}
	r.expectIdleExpiry("after the reauthentication", user, tokens, idleTimeout)
}

func idleCannotReauthenticate(t *testing.T, env environment) {
	r := env.rig(t, withIdleTimeout)
	_, token := r.loggedIn()
	r.clock.advance(idleTimeout + time.Millisecond)
	got := r.tryReauthenticate(password, r.withToken(token))
	r.expect("idle session", got, r.unauthorized("invalid_token"))
}
