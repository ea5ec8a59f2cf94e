package contract

import (
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/strategy"
)

var idleRows = rows{"idle", []row{
	{"a session is accepted for the idle timeout and not after", idleTimeoutIsExact},
	{"a session in use goes on, to its absolute end", idleIsPutOff},
	{"within an interval, one use is written down", touchesAreFew},
	{"the touch fails", touchFails},
	{"giving the password again is a use", reauthenticateIsAUse},
	{"an idle session cannot be renewed", idleCannotReauthenticate},
}}

const (
	idleTimeout   = 10 * time.Minute
	touchInterval = time.Minute
)

var idle = tokens(func(cfg *strategy.Config) { cfg.IdleTimeout, cfg.TouchInterval = idleTimeout, touchInterval })

// expectIdleEnd checks that tokens which were in use just now are accepted for a
// time, and not for a millisecond more. A use puts the end off: so it takes one
// token for each moment.
func (a *app) expectIdleEnd(what string, user Member, tokens []string, in time.Duration) {
	a.t.Helper()
	a.clock.advance(in - time.Millisecond)
	a.expect(what+": a millisecond before", a.get("/guarded", a.carry(tokens[0])), welcome(user))
	a.clock.advance(time.Millisecond)
	a.expect(what+": at its end", a.get("/guarded", a.carry(tokens[1])), welcome(user))
	a.clock.advance(time.Millisecond)
	a.expect(what+": a millisecond later", a.get("/guarded", a.carry(tokens[2])), a.unauthorized("invalid_token"))
}

func idleTimeoutIsExact(t *testing.T, w world) {
	for _, first := range []time.Duration{0, touchInterval, idleTimeout - time.Millisecond, idleTimeout} {
		a := w.app(t, idle)
		user := a.user(active)
		tokens := []string{a.login(user), a.login(user), a.login(user)}
		a.clock.advance(first)
		a.expectAlive("the first use", user, tokens, 0, 1, 2)
		a.expectIdleEnd("used after "+first.String(), user, tokens, idleTimeout)
	}
}

func idleIsPutOff(t *testing.T, w world) {
	a := w.app(t, idle)
	user, token := a.loggedIn()
	for range lifetime / idleTimeout {
		a.clock.advance(idleTimeout)
		a.expect("in use", a.get("/guarded", a.carry(token)), welcome(user))
	}
	a.clock.advance(time.Millisecond)
	a.expect("at the absolute end", a.get("/guarded", a.carry(token)), a.unauthorized("invalid_token"))
}

func touchesAreFew(t *testing.T, w world) {
	a := w.app(t, idle)
	user, token := a.loggedIn()
	use := func() { a.expect("in use", a.get("/guarded", a.carry(token)), welcome(user)) }
	a.clock.advance(touchInterval - time.Millisecond)
	if n := a.db.callsDuring(use, touchToken); n != 0 {
		t.Errorf("before the interval has passed: got %d writes, want 0", n)
	}
	a.clock.advance(time.Millisecond)
	if n := a.db.callsDuring(func() {
		for range 10 {
			use()
		}
	}, touchToken); n != 1 {
		t.Errorf("when it has: got %d writes, want 1", n)
	}
	if used := a.current(token).LastUsedAt; used == nil || !used.Equal(a.clock.now()) {
		t.Errorf("got last_used_at %v, want %v", used, a.clock.now())
	}
	without := w.app(t)
	user, token = without.loggedIn()
	without.clock.advance(lifetime)
	if n := without.db.callsDuring(func() {
		without.expect("in use", without.get("/guarded", without.carry(token)), welcome(user))
	}, touchToken); n != 0 {
		t.Errorf("without an idle timeout: got %d writes, want 0", n)
	}
}

func touchFails(t *testing.T, w world) {
	for _, failure := range failures {
		a := w.app(t, idle)
		user, token := a.loggedIn()
		a.clock.advance(2 * touchInterval)
		a.db.fail(touchToken, failure.err)
		a.expect(failure.name, a.get("/guarded", a.carry(token)), welcome(user))
		if a.current(token).LastUsedAt != nil {
			t.Errorf("%s: got a last use, want none written down", failure.name)
		}
		a.expectEnd(failure.name, user, token, idleTimeout-2*touchInterval)
	}
}

func reauthenticateIsAUse(t *testing.T, w world) {
	a := w.app(t, idle)
	user := a.user(active)
	tokens := []string{a.login(user), a.login(user), a.login(user)}
	a.clock.advance(touchInterval / 2) // too early for a touch
	for i, token := range tokens {
		tokens[i] = a.reauthenticated(token, lifetime-touchInterval/2)
	}
	a.expectIdleEnd("after the password", user, tokens, idleTimeout)
}

func idleCannotReauthenticate(t *testing.T, w world) {
	a := w.app(t, idle)
	_, token := a.loggedIn()
	a.clock.advance(idleTimeout + time.Millisecond)
	got := a.post("/auth/reauthenticate", asForm("password", password), a.carry(token))
	a.expect("too late", got, a.unauthorized("invalid_token"))
}
