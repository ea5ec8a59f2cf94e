package contract

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/strategy"
)

var guardRows = section{"guard", []row{
	{"no credentials", guardWithoutCredentials},
	{"malformed, unknown, revoked or expired token", guardWithBadToken},
	{"all invalid tokens get the same answer", badTokensLookTheSame},
	{"a malformed token causes no database call", malformedTokenIsCheap},
	{"a token is valid up to its lifetime, to the millisecond", lifetimeIsExact},
	{"user not verified", guardRequiresVerified},
	{"user not superuser", guardRequiresSuperuser},
	{"the application's own check refuses", ownCheckRefuses},
	{"the application's own check fails", ownCheckFails},
	{"the database fails or times out", guardWithoutDatabase},
	{"optional guard", optionalGuard},
	{"optional guard with a check", optionalGuardWithCheck},
	{"a token in the URL or the body is never read", guardWithTokenInURL},
	{"stacked guards read the token once", stackedGuards},
	{"a changed flag applies to the next request", flagsAreFresh},
	{"every answer varies by the credentials and is private", guardedAnswersArePrivate},
}}

func guardWithoutCredentials(t *testing.T, env environment) {
	r := env.rig(t)
	r.expect("no header", r.get("/guarded"), r.unauthorized(noToken))
	r.expect("another scheme", r.get("/guarded", authorization("Basic YW5uOnNlY3JldA==")), r.unauthorized(noToken))
	r.expect("another cookie", r.get("/guarded", header("Cookie", "latchkey="+r.unknownToken())), r.unauthorized(noToken))
	r.expect("a guard with a check", r.get("/superuser"), r.unauthorized(noToken))
}

func guardWithBadToken(t *testing.T, env environment) {
	for _, bad := range badTokens {
		t.Run(bad.name, func(t *testing.T) {
			r := env.rig(t)
			token := bad.make(r)
			for _, path := range []string{"/guarded", "/verified", "/superuser", "/checked", "/nested/deeper/still"} {
				r.expect(path, r.get(path, r.withToken(token)), r.unauthorized("invalid_token"))
			}
		})
	}
}

func badTokensLookTheSame(t *testing.T, env environment) {
	r := env.rig(t)
	replies := make(map[string]reply)
	for _, bad := range badTokens {
		token := bad.make(r)
		replies[bad.name] = r.get("/guarded", r.withToken(token))
	}
	r.expectAlike(replies)
}

func malformedTokenIsCheap(t *testing.T, env environment) {
	r := env.rig(t)
	calls := r.db.callsDuring(func() {
		r.expect("guard", r.get("/guarded", r.withToken("lk_malformed")), r.unauthorized("invalid_token"))
		r.expect("log out", r.logout(r.withToken("lk_malformed")), r.notLoggedOut())
	})
	if calls != 0 {
		t.Errorf("got %d database calls, want 0", calls)
	}
}

func lifetimeIsExact(t *testing.T, env environment) {
	r := env.rig(t)
	user, token := r.loggedIn()
	r.clock.advance(lifetime)
	r.expect("at its lifetime", r.get("/guarded", r.withToken(token)), welcome(user))
	r.clock.advance(time.Millisecond)
	r.expect("a millisecond later", r.get("/guarded", r.withToken(token)), r.unauthorized("invalid_token"))
}

func guardRequiresVerified(t *testing.T, env environment) {
	r := env.rig(t)
	unverified, verified := r.user(flags{active: true, superuser: true}), r.user(flags{active: true, verified: true})
	r.expect("unverified", r.get("/verified", r.withToken(r.login(unverified))), forbidden())
	r.expect("verified", r.get("/verified", r.withToken(r.login(verified))), welcome(verified))
}

func guardRequiresSuperuser(t *testing.T, env environment) {
	r := env.rig(t)
	user, superuser := r.user(flags{active: true, verified: true}), r.user(flags{active: true, superuser: true})
	r.expect("user", r.get("/superuser", r.withToken(r.login(user))), forbidden())
	r.expect("superuser", r.get("/superuser", r.withToken(r.login(superuser))), welcome(superuser))
}

func ownCheckRefuses(t *testing.T, env environment) {
	r := env.rig(t, ownCheck(false, nil))
	_, token := r.loggedIn()
	r.expect("checked", r.get("/checked", r.withToken(token)), forbidden())

	r = env.rig(t, ownCheck(true, nil))
	user, token := r.loggedIn()
	r.expect("passes", r.get("/checked", r.withToken(token)), welcome(user))
}

// ownCheckFails checks that an error of the check is a failure, whatever it wraps.
func ownCheckFails(t *testing.T, env environment) {
	for _, err := range []error{
		failures[0].err,
		failures[1].err,
		fmt.Errorf("ask another service: %w", strategy.ErrInvalidToken),
		fmt.Errorf("ask another service: %w", account.ErrBadCredentials),
	} {
		t.Run(err.Error(), func(t *testing.T) {
			r := env.rig(t, ownCheck(true, err))
			user, token := r.loggedIn()
			r.expect("checked", r.get("/checked", r.withToken(token)), unavailable())
			r.expect("optional", r.get("/optional/checked", r.withToken(token)), unavailable())
			r.expect("a route without the check", r.get("/guarded", r.withToken(token)), welcome(user))
		})
	}
}

func guardWithoutDatabase(t *testing.T, env environment) {
	for _, failure := range failures {
		t.Run(failure.name, func(t *testing.T) {
			r := env.rig(t)
			user, token := r.loggedIn()
			for _, what := range []call{findToken, findUser} {
				r.db.fail(what, failure.err)
				for _, path := range []string{"/guarded", "/superuser", "/checked", "/optional", "/optional/verified"} {
					r.expect(string(what)+" at "+path, r.get(path, r.withToken(token)), unavailable())
				}
				r.db.repair()
				r.expect("use the token afterwards", r.get("/guarded", r.withToken(token)), welcome(user))
			}
		})
	}
}

func optionalGuard(t *testing.T, env environment) {
	r := env.rig(t)
	user, token := r.loggedIn()
	r.expect("no credentials", r.get("/optional"), anonymous())
	r.expect("two headers", r.get("/optional", authorization("Bearer a", "Bearer b")), anonymous())
	r.expect("valid token", r.get("/optional", r.withToken(token)), welcome(user))
	for _, bad := range badTokens {
		token := bad.make(r)
		r.expect(bad.name, r.get("/optional", r.withToken(token)), anonymous())
	}
}

func optionalGuardWithCheck(t *testing.T, env environment) {
	r := env.rig(t, ownCheck(false, nil))
	user, token := r.loggedIn()
	r.expect("unverified", r.get("/optional/verified", r.withToken(token)), anonymous())
	r.expect("the own check refuses", r.get("/optional/checked", r.withToken(token)), anonymous())
	r.setFlags(user, flags{active: true, verified: true})
	user.Verified = true
	r.expect("verified", r.get("/optional/verified", r.withToken(token)), welcome(user))
}

func guardWithTokenInURL(t *testing.T, env environment) {
	r := env.rig(t)
	_, token := r.loggedIn()
	query := "?access_token=" + token + "&token=" + token
	r.expect("in the URL", r.get("/guarded"+query), r.unauthorized(noToken))
	r.expect("in the body", r.post("/guarded", asForm("access_token", token, "token", token)), r.unauthorized(noToken))
	r.expect("optional", r.get("/optional"+query), anonymous())
}

func stackedGuards(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(flags{active: true, verified: true, superuser: true})
	token := r.login(user)
	one := r.db.callsDuring(func() { r.expect("one guard", r.get("/guarded", r.withToken(token)), welcome(user)) })
	five := r.db.callsDuring(func() { r.expect("five guards", r.get("/nested/deeper/still", r.withToken(token)), welcome(user)) })
	if one != 2 || five != 2 {
		t.Errorf("got %d database calls for one guard and %d for five, want 2: one for the token, one for its user", one, five)
	}
	r.setFlags(user, flags{active: true, verified: true})
	r.expect("the innermost guard refuses", r.get("/nested/deeper/still", r.withToken(token)), forbidden())
}

func flagsAreFresh(t *testing.T, env environment) {
	r := env.rig(t)
	user, token := r.loggedIn()
	r.expect("before", r.get("/superuser", r.withToken(token)), forbidden())
	r.setFlags(user, flags{active: true, superuser: true})
	r.expect("promoted", r.get("/superuser", r.withToken(token)), welcome(user))
	r.setFlags(user, flags{})
	r.expect("disabled", r.get("/guarded", r.withToken(token)), r.unauthorized("invalid_token"))
	r.setFlags(user, active)
	r.expect("enabled again", r.get("/guarded", r.withToken(token)), welcome(user))
}

// guardedAnswersArePrivate checks the answers of a route whose handler sets no Cache-Control.
func guardedAnswersArePrivate(t *testing.T, env environment) {
	r := env.rig(t)
	_, token := r.loggedIn()
	name := "Authorization"
	if _, ok := env.transport.(ginauth.Cookie); ok {
		name = "Cookie"
	}
	r.db.fail(findUser, failures[0].err)
	answers := map[string]reply{"the database fails": r.get("/guarded", r.withToken(token))}
	r.db.repair()
	answers["valid token"] = r.get("/guarded", r.withToken(token))
	answers["no token"] = r.get("/guarded")
	answers["malformed token"] = r.get("/guarded", r.withToken("malformed"))
	answers["optional, valid token"] = r.get("/optional", r.withToken(token))
	answers["optional, no token"] = r.get("/optional")
	answers["not verified"] = r.get("/verified", r.withToken(token))
	for what, got := range answers {
		if vary, control := got.header.Values("Vary"), got.header.Values("Cache-Control"); !slices.Equal(vary, []string{name}) || !slices.Equal(control, []string{"private, no-store"}) {
			t.Errorf("%s: got Vary %q and Cache-Control %q, want %s and private, no-store", what, vary, control, name)
		}
	}
}
