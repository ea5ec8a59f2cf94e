package contract

import (
	"net/http"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/strategy"
)

var limitRows = rows{"limit", []row{
	{"beyond the limit the oldest go", oldestGo},
	{"what is dead does not count", deadDoNotCount},
	{"tokens with scopes do not count", scopedDoNotCount},
	{"one's own sessions count, and nobody else's", othersDoNotCount},
	{"the limit cannot be kept", limitFails},
}}

func atMost(n int) func(*settings) {
	return tokens(func(cfg *strategy.Config) { cfg.MaxSessions = n })
}

func (a *app) tryLogin(user Member, options ...option) reply {
	a.t.Helper()
	return a.post("/auth/login", asForm("username", user.Email, "password", password), options...)
}

func oldestGo(t *testing.T, w world) {
	a := w.app(t, atMost(2))
	user := a.user(active)
	tokens := a.loginNTimes(user, 5)
	a.expectAlive("after five logins", user, tokens, 3, 4)
	a.expectSessions(user, 2)
}

func deadDoNotCount(t *testing.T, w world) {
	a := w.app(t, atMost(2))
	user := a.user(active)
	a.login(user)
	a.clock.advance(lifetime + time.Millisecond)
	tokens := a.loginNTimes(user, 2)
	a.expectAlive("beside an expired session", user, tokens, 0, 1)
	a.clock.advance(time.Millisecond)
	if err := a.users.RevokeTokens(t.Context(), user.ID); err != nil {
		t.Fatal(err)
	}
	tokens = a.loginNTimes(user, 2)
	a.expectAlive("beside revoked sessions", user, tokens, 0, 1)
}

func scopedDoNotCount(t *testing.T, w world) {
	a := w.app(t, atMost(1))
	user := a.user(active)
	ci := a.scoped(user, strategy.WithScopes("deploy:write"))
	another := a.scopedToken(user, strategy.WithScopes("deploy:write"))
	for _, token := range []string{ci.token, ci.login, another} {
		a.expect("use the token", a.get("/deploy", a.carry(token)), welcome(user))
	}
}

func othersDoNotCount(t *testing.T, w world) {
	a := w.app(t, atMost(1))
	ann, anns, bob, bobs := a.twoUsers()
	a.expect("Ann", a.get("/guarded", a.carry(anns)), welcome(ann))
	a.expect("Bob", a.get("/guarded", a.carry(bobs)), welcome(bob))
}

func limitFails(t *testing.T, w world) {
	for _, failure := range failures {
		a := w.app(t, atMost(1))
		user := a.user(active)
		token := a.login(user)
		a.clock.advance(time.Second)
		a.db.fail(listTokens, failure.err)
		a.expect("the list "+failure.name, a.tryLogin(user), unavailable())
		a.db.mend()
		a.expectSessions(user, 1)
		a.db.fail(deleteToken, failure.err)
		a.expect("the delete "+failure.name, a.tryLogin(user), unavailable())
		a.db.mend()
		a.expect("the first session", a.get("/guarded", a.carry(token)), welcome(user))
	}
}

// replaceRows are of a login that comes with a session's token.
var replaceRows = rows{"login ends the session that came with the request", []row{
	{"the user's own, and no other", loginReplacesOwn},
	{"another user's", loginReplacesAnothers},
	{"not if the login fails", failedLoginReplacesNothing},
	{"not that of a header", headerIsNotReplaced},
	{"a cookie where the answer is a bearer token", cookieBesideBearerIsReplaced},
	{"both of two cookies of one name", plantedCookiesAreReplaced},
	{"the delete was not acknowledged", replaceNotAcknowledged},
	{"a replaced session does not count", replacedDoesNotCount},
}}

func loginReplacesOwn(t *testing.T, w world) {
	w.way = cookie
	a := w.app(t)
	user := a.user(active)
	tokens := a.loginNTimes(user, 2)
	tokens = append(tokens, a.deliveredToken(a.tryLogin(user, a.carry(tokens[0]))))
	a.expectAlive("afterwards", user, tokens, 1, 2)
	a.expectSessions(user, 2)
}

func loginReplacesAnothers(t *testing.T, w world) {
	w.way = cookie
	a := w.app(t)
	_, anns := a.loggedIn()
	bob := a.user(active)
	bobs := a.deliveredToken(a.tryLogin(bob, a.carry(anns)))
	a.expect("Ann", a.get("/guarded", a.carry(anns)), a.unauthorized("invalid_token"))
	a.expect("Bob", a.get("/guarded", a.carry(bobs)), welcome(bob))
}

func failedLoginReplacesNothing(t *testing.T, w world) {
	w.way = cookie
	a := w.app(t, requireVerified)
	user, unverified, out := a.user(flags{active: true, verified: true}), a.user(active), a.user(flags{verified: true})
	token := a.login(user)
	wrong := asForm("username", user.Email, "password", wrongPassword)
	a.expect("wrong password", a.post("/auth/login", wrong, a.carry(token)), badCredentials())
	a.expect("unverified", a.tryLogin(unverified, a.carry(token)), refused(http.StatusBadRequest, "LOGIN_USER_NOT_VERIFIED"))
	a.expect("inactive", a.tryLogin(out, a.carry(token)), badCredentials())
	a.expectInvalid("missing field", a.post("/auth/login", asForm("username", user.Email), a.carry(token)), missing, "body.password")
	a.expect("the session lives", a.get("/guarded", a.carry(token)), welcome(user))
}

// headerIsNotReplaced: a script may send its token with every request.
func headerIsNotReplaced(t *testing.T, w world) {
	a := w.app(t)
	user, token := a.loggedIn()
	next := a.deliveredToken(a.tryLogin(user, a.carry(token)))
	a.expectAlive("afterwards", user, []string{token, next}, 0, 1)
	a.deliveredToken(a.tryLogin(user, cookie.carry(token)))
	a.expect("in a cookie that is not read", a.get("/guarded", a.carry(token)), welcome(user))
}

func cookieBesideBearerIsReplaced(t *testing.T, w world) {
	a := w.app(t, bearerFirst)
	user, token := a.loggedIn()
	next := a.deliveredToken(a.tryLogin(user, cookie.carry(token)))
	a.expect("the old one", a.get("/guarded", cookie.carry(token)), a.unauthorized("invalid_token"))
	a.expect("the new one", a.get("/guarded", bearer.carry(next)), welcome(user))
}

// plantedCookiesAreReplaced: nobody can tell which of them was planted.
func plantedCookiesAreReplaced(t *testing.T, w world) {
	w.way = cookie
	a := w.app(t)
	ann, anns, bob, bobs := a.twoUsers()
	next := a.deliveredToken(a.tryLogin(ann, a.carry(anns+"; __Host-latchkey="+bobs)))
	a.expectAlive("Ann", ann, []string{anns, next}, 1)
	a.expectAlive("Bob", bob, []string{bobs})
}

func replaceNotAcknowledged(t *testing.T, w world) {
	w.way = cookie
	a := w.app(t)
	user, token := a.loggedIn()
	bob := a.user(active)
	for _, failure := range failures {
		a.db.fail(deleteToken, failure.err)
		for _, who := range []Member{user, bob} {
			a.expect(failure.name, a.tryLogin(who, a.carry(token)), unavailable())
		}
		a.db.mend()
	}
	// Rows of the refused logins may be left, with secrets that nobody has.
	a.expect("the session lives", a.get("/guarded", a.carry(token)), welcome(user))
}

func replacedDoesNotCount(t *testing.T, w world) {
	w.way = cookie
	a := w.app(t, atMost(2))
	user := a.user(active)
	tokens := a.loginNTimes(user, 2)
	tokens = append(tokens, a.deliveredToken(a.tryLogin(user, a.carry(tokens[1]))))
	a.expectAlive("afterwards", user, tokens, 0, 2)
}
