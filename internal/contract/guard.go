package contract

import (
	"fmt"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

var guardRows = rows{"guard", []row{
	{"no credentials", guardWithoutCredentials},
	{"bad token", guardWithBadToken},
	{"all bad tokens look the same", badTokensLookTheSame},
	{"a malformed token causes no call of the database", malformedTokenIsCheap},
	{"a token is accepted at the age of its lifetime and not after", lifetimeIsExact},
	{"user not verified", guardOfTheVerified},
	{"user not superuser", guardOfSuperusers},
	{"the application's own check says no", ownCheckSaysNo},
	{"the application's own check fails", ownCheckFails},
	{"the database fails or times out", guardWithoutDatabase},
	{"optional guard", optionalGuard},
	{"optional guard with a check", optionalGuardWithCheck},
	{"a token in the URL or the body is never read", guardWithTokenInURL},
	{"stacked guards read the token once", stackedGuards},
	{"a new flag holds from the next request on", flagsAreFresh},
}}

func guardWithoutCredentials(t *testing.T, w world) {
	a := w.app(t)
	a.expect("no header", a.get("/guarded"), a.unauthorized(noToken))
	a.expect("another scheme", a.get("/guarded", authorization("Basic YW5uOnNlY3JldA==")), a.unauthorized(noToken))
	a.expect("another cookie", a.get("/guarded", header("Cookie", "latchkey="+a.unknownToken())), a.unauthorized(noToken))
	a.expect("a guard that asks for more", a.get("/superuser"), a.unauthorized(noToken))
}

func guardWithBadToken(t *testing.T, w world) {
	for _, bad := range badTokens {
		t.Run(bad.name, func(t *testing.T) {
			a := w.app(t)
			token := bad.make(a)
			for _, path := range []string{"/guarded", "/verified", "/superuser", "/checked", "/nested/deeper/still"} {
				a.expect(path, a.get(path, a.carry(token)), a.unauthorized("invalid_token"))
			}
		})
	}
}

func badTokensLookTheSame(t *testing.T, w world) {
	a := w.app(t)
	replies := make(map[string]reply)
	for _, bad := range badTokens {
		token := bad.make(a)
		replies[bad.name] = a.get("/guarded", a.carry(token))
	}
	a.expectAlike(replies)
}

func malformedTokenIsCheap(t *testing.T, w world) {
	a := w.app(t)
	calls := a.db.callsDuring(func() {
		a.expect("guard", a.get("/guarded", a.carry("lk_malformed")), a.unauthorized("invalid_token"))
		a.expect("log out", a.logout(a.carry("lk_malformed")), a.notLoggedOut())
	})
	if calls != 0 {
		t.Errorf("got %d calls of the database, want 0", calls)
	}
}

func lifetimeIsExact(t *testing.T, w world) {
	a := w.app(t)
	user, token := a.loggedIn()
	a.clock.advance(lifetime)
	a.expect("at the age of lifetime", a.get("/guarded", a.carry(token)), welcome(user))
	a.clock.advance(time.Millisecond)
	a.expect("a millisecond later", a.get("/guarded", a.carry(token)), a.unauthorized("invalid_token"))
}

func guardOfTheVerified(t *testing.T, w world) {
	a := w.app(t)
	unverified, verified := a.user(flags{active: true, superuser: true}), a.user(flags{active: true, verified: true})
	a.expect("unverified", a.get("/verified", a.carry(a.login(unverified))), forbidden())
	a.expect("verified", a.get("/verified", a.carry(a.login(verified))), welcome(verified))
}

func guardOfSuperusers(t *testing.T, w world) {
	a := w.app(t)
	user, superuser := a.user(flags{active: true, verified: true}), a.user(flags{active: true, superuser: true})
	a.expect("user", a.get("/superuser", a.carry(a.login(user))), forbidden())
	a.expect("superuser", a.get("/superuser", a.carry(a.login(superuser))), welcome(superuser))
}

func ownCheckSaysNo(t *testing.T, w world) {
	a := w.app(t, ownCheck(false, nil))
	_, token := a.loggedIn()
	a.expect("checked", a.get("/checked", a.carry(token)), forbidden())

	a = w.app(t, ownCheck(true, nil))
	user, token := a.loggedIn()
	a.expect("passes", a.get("/checked", a.carry(token)), welcome(user))
}

// ownCheckFails: no error of a check is a log-out, whatever it wraps.
func ownCheckFails(t *testing.T, w world) {
	for _, err := range []error{
		failures[0].err,
		failures[1].err,
		fmt.Errorf("ask another service: %w", strategy.ErrInvalidToken),
		fmt.Errorf("ask another service: %w", account.ErrBadCredentials),
	} {
		t.Run(err.Error(), func(t *testing.T) {
			a := w.app(t, ownCheck(true, err))
			user, token := a.loggedIn()
			a.expect("checked", a.get("/checked", a.carry(token)), unavailable())
			a.expect("optional", a.get("/optional/checked", a.carry(token)), unavailable())
			a.expect("a route without the check", a.get("/guarded", a.carry(token)), welcome(user))
		})
	}
}

func guardWithoutDatabase(t *testing.T, w world) {
	for _, failure := range failures {
		t.Run(failure.name, func(t *testing.T) {
			a := w.app(t)
			user, token := a.loggedIn()
			for _, what := range []call{findToken, findUser} {
				a.db.fail(what, failure.err)
				for _, path := range []string{"/guarded", "/superuser", "/checked", "/optional", "/optional/verified"} {
					a.expect(string(what)+" at "+path, a.get(path, a.carry(token)), unavailable())
				}
				a.db.mend()
				a.expect("use the token afterwards", a.get("/guarded", a.carry(token)), welcome(user))
			}
		})
	}
}

func optionalGuard(t *testing.T, w world) {
	a := w.app(t)
	user, token := a.loggedIn()
	a.expect("no credentials", a.get("/optional"), visitor())
	a.expect("two headers", a.get("/optional", authorization("Bearer a", "Bearer b")), visitor())
	a.expect("valid token", a.get("/optional", a.carry(token)), welcome(user))
	for _, bad := range badTokens {
		token := bad.make(a)
		a.expect(bad.name, a.get("/optional", a.carry(token)), visitor())
	}
}

func optionalGuardWithCheck(t *testing.T, w world) {
	a := w.app(t, ownCheck(false, nil))
	user, token := a.loggedIn()
	a.expect("unverified", a.get("/optional/verified", a.carry(token)), visitor())
	a.expect("own check says no", a.get("/optional/checked", a.carry(token)), visitor())
	a.setFlags(user, flags{active: true, verified: true})
	user.Verified = true
	a.expect("verified", a.get("/optional/verified", a.carry(token)), welcome(user))
}

func guardWithTokenInURL(t *testing.T, w world) {
	a := w.app(t)
	_, token := a.loggedIn()
	query := "?access_token=" + token + "&token=" + token
	a.expect("in the URL", a.get("/guarded"+query), a.unauthorized(noToken))
	a.expect("in the body", a.post("/guarded", asForm("access_token", token, "token", token)), a.unauthorized(noToken))
	a.expect("optional", a.get("/optional"+query), visitor())
}

func stackedGuards(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(flags{active: true, verified: true, superuser: true})
	token := a.login(user)
	one := a.db.callsDuring(func() { a.expect("one guard", a.get("/guarded", a.carry(token)), welcome(user)) })
	five := a.db.callsDuring(func() { a.expect("five guards", a.get("/nested/deeper/still", a.carry(token)), welcome(user)) })
	if one != 2 || five != 2 {
		t.Errorf("got %d calls of the database for one guard and %d for five, want 2: one for the token, one for its user", one, five)
	}
	a.setFlags(user, flags{active: true, verified: true})
	a.expect("the innermost says no", a.get("/nested/deeper/still", a.carry(token)), forbidden())
}

func flagsAreFresh(t *testing.T, w world) {
	a := w.app(t)
	user, token := a.loggedIn()
	a.expect("before", a.get("/superuser", a.carry(token)), forbidden())
	a.setFlags(user, flags{active: true, superuser: true})
	a.expect("promoted", a.get("/superuser", a.carry(token)), welcome(user))
	a.setFlags(user, flags{})
	a.expect("disabled", a.get("/guarded", a.carry(token)), a.unauthorized("invalid_token"))
	a.setFlags(user, active)
	a.expect("enabled again", a.get("/guarded", a.carry(token)), welcome(user))
}
