package contract

import (
	"net/http"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/strategy"
)

var sessionLimitRows = section{"session limit", []row{
	{"a login at the limit ends the oldest session", oldestSessionEnds},
	{"invalid sessions do not count", invalidSessionsDoNotCount},
	{"a session of exactly its lifetime counts", expiringSessionCounts},
	{"scoped tokens do not count", scopedTokensDoNotCount},
	{"sessions of other users do not count", otherUsersDoNotCount},
	{"a login fails if the oldest session cannot be ended", limitFails},
}}

func maxSessions(n int) func(*settings) {
	return withStrategy(func(cfg *strategy.Config) { cfg.MaxSessions = n })
}

func oldestSessionEnds(t *testing.T, env environment) {
	r := env.rig(t, maxSessions(2))
	user := r.user(active)
	tokens := r.loginNTimes(user, 5)
	r.expectValid("after five logins", user, tokens, 3, 4)
	r.expectRows(user, 2)
}

func invalidSessionsDoNotCount(t *testing.T, env environment) {
	r := env.rig(t, maxSessions(2))
	user := r.user(active)
	r.login(user)
	r.clock.advance(lifetime + time.Millisecond)
	tokens := r.loginNTimes(user, 2)
	r.expectValid("beside an expired session", user, tokens, 0, 1)
	r.clock.advance(time.Millisecond)
	if err := r.accounts.RevokeTokens(t.Context(), user.ID); err != nil {
		t.Fatal(err)
	}
	tokens = r.loginNTimes(user, 2)
	r.expectValid("beside revoked sessions", user, tokens, 0, 1)
}

// expiringSessionCounts checks that the limit and the expiry agree to the millisecond.
func expiringSessionCounts(t *testing.T, env environment) {
	r := env.rig(t, maxSessions(2))
	user := r.user(active)
	tokens := []string{r.login(user)}
	r.clock.advance(time.Millisecond)
	tokens = append(tokens, r.login(user))
	r.clock.advance(lifetime - time.Millisecond)
	tokens = append(tokens, r.login(user))
	r.expectValid("afterwards", user, tokens, 1, 2)
}

func scopedTokensDoNotCount(t *testing.T, env environment) {
	r := env.rig(t, maxSessions(1))
	user := r.user(active)
	ci := r.scoped(user, strategy.WithScopes("deploy:write"))
	another := r.scopedToken(user, strategy.WithScopes("deploy:write"))
	for _, token := range []string{ci.token, ci.login, another} {
		r.expect("use the token", r.get("/deploy", r.withToken(token)), welcome(user))
	}
}

func otherUsersDoNotCount(t *testing.T, env environment) {
	r := env.rig(t, maxSessions(1))
	ann, annToken, bob, bobToken := r.twoUsers()
	r.expect("Ann", r.get("/guarded", r.withToken(annToken)), welcome(ann))
	r.expect("Bob", r.get("/guarded", r.withToken(bobToken)), welcome(bob))
}

func limitFails(t *testing.T, env environment) {
	for _, failure := range failures {
		r := env.rig(t, maxSessions(1))
		user := r.user(active)
		token := r.login(user)
		r.clock.advance(time.Second)
		r.db.fail(listTokens, failure.err)
		r.expect("listing the sessions "+failure.name, r.tryLogin(user), unavailable())
		r.db.repair()
		r.expectRows(user, 1)
		r.db.fail(deleteToken, failure.err)
		r.expect("the delete "+failure.name, r.tryLogin(user), unavailable())
		r.db.repair()
		r.expect("the first session", r.get("/guarded", r.withToken(token)), welcome(user))
	}
}

// replacedSessionRows are about logins that carry the token of an earlier session.
var replacedSessionRows = section{"replaced session", []row{
	{"a login ends the session of its cookie and no other", loginReplacesOwnSession},
	{"a login ends another user's session of its cookie", loginReplacesOtherUsersSession},
	{"a failed login ends no session", failedLoginReplacesNothing},
	{"a login does not end the session of a header", headerIsNotReplaced},
	{"a login for a bearer token ends the session of a cookie", cookieBesideBearerIsReplaced},
	{"a login with two cookies of one name ends both sessions", twoCookiesAreReplaced},
	{"the delete was not acknowledged", replaceNotAcknowledged},
	{"a replaced session does not count for the limit", replacedSessionDoesNotCount},
}}

func loginReplacesOwnSession(t *testing.T, env environment) {
	env.protocol = cookie
	r := env.rig(t)
	user := r.user(active)
	tokens := r.loginNTimes(user, 2)
	tokens = append(tokens, r.issuedToken(r.tryLogin(user, r.withToken(tokens[0]))))
	r.expectValid("afterwards", user, tokens, 1, 2)
	r.expectRows(user, 2)
}

func loginReplacesOtherUsersSession(t *testing.T, env environment) {
	env.protocol = cookie
	r := env.rig(t)
	_, annToken := r.loggedIn()
	bob := r.user(active)
	bobToken := r.issuedToken(r.tryLogin(bob, r.withToken(annToken)))
	r.expect("Ann", r.get("/guarded", r.withToken(annToken)), r.unauthorized("invalid_token"))
	r.expect("Bob", r.get("/guarded", r.withToken(bobToken)), welcome(bob))
}

func failedLoginReplacesNothing(t *testing.T, env environment) {
	env.protocol = cookie
	r := env.rig(t, requireVerified)
	user, unverified, inactiveUser := r.user(flags{active: true, verified: true}), r.user(active), r.user(flags{verified: true})
	token := r.login(user)
	r.expect("wrong password", r.loginWith(user.Email, wrongPassword, r.withToken(token)), badCredentials())
	r.expect("unverified", r.tryLogin(unverified, r.withToken(token)), refused(http.StatusBadRequest, "LOGIN_USER_NOT_VERIFIED"))
	r.expect("inactive", r.tryLogin(inactiveUser, r.withToken(token)), badCredentials())
	r.expectInvalid("missing field", r.post("/auth/login", asForm("username", user.Email), r.withToken(token)), missing, "body.password")
	r.expect("the session is still valid", r.get("/guarded", r.withToken(token)), welcome(user))
}

// headerIsNotReplaced checks that a script can send its token with every request.
func headerIsNotReplaced(t *testing.T, env environment) {
	r := env.rig(t)
	user, token := r.loggedIn()
	next := r.issuedToken(r.tryLogin(user, r.withToken(token)))
	r.expectValid("afterwards", user, []string{token, next}, 0, 1)
	r.issuedToken(r.tryLogin(user, cookie.withToken(token)))
	r.expect("the token in a cookie that is not read", r.get("/guarded", r.withToken(token)), welcome(user))
}

func cookieBesideBearerIsReplaced(t *testing.T, env environment) {
	r := env.rig(t, bearerFirst)
	user, token := r.loggedIn()
	next := r.issuedToken(r.tryLogin(user, cookie.withToken(token)))
	r.expect("the old token", r.get("/guarded", cookie.withToken(token)), r.unauthorized("invalid_token"))
	r.expect("the new token", r.get("/guarded", bearer.withToken(next)), welcome(user))
}

// twoCookiesAreReplaced checks both sessions: an attacker may have planted either cookie.
func twoCookiesAreReplaced(t *testing.T, env environment) {
	env.protocol = cookie
	r := env.rig(t)
	ann, annToken, bob, bobToken := r.twoUsers()
	next := r.issuedToken(r.tryLogin(ann, r.withToken(annToken+"; __Host-latchkey="+bobToken)))
	r.expectValid("Ann", ann, []string{annToken, next}, 1)
	r.expectValid("Bob", bob, []string{bobToken})
}

func replaceNotAcknowledged(t *testing.T, env environment) {
	env.protocol = cookie
	r := env.rig(t)
	user, token := r.loggedIn()
	bob := r.user(active)
	for _, failure := range failures {
		r.db.fail(deleteToken, failure.err)
		for _, u := range []Member{user, bob} {
			r.expect(failure.name, r.tryLogin(u, r.withToken(token)), unavailable())
		}
		r.db.repair()
	}
	// Rows of the refused logins may remain. Their tokens were never sent to a client.
	r.expect("the session is still valid", r.get("/guarded", r.withToken(token)), welcome(user))
}

func replacedSessionDoesNotCount(t *testing.T, env environment) {
	env.protocol = cookie
	r := env.rig(t, maxSessions(2))
	user := r.user(active)
	tokens := r.loginNTimes(user, 2)
	tokens = append(tokens, r.issuedToken(r.tryLogin(user, r.withToken(tokens[1]))))
	r.expectValid("afterwards", user, tokens, 0, 2)
	_, otherToken := r.loggedIn()
	tokens = append(tokens, r.issuedToken(r.tryLogin(user, r.withToken(otherToken))))
	r.expectValid("with another user's cookie", user, tokens, 2, 3)
}
