package contract

import (
	"testing"
	"time"
)

var logoutRows = rows{"logout", []row{
	{"success", logoutSucceeds},
	{"only the token that authenticated is destroyed", logoutSparesOtherSessions},
	{"missing token", logoutWithoutToken},
	{"bad token", logoutWithBadToken},
	{"the second time", logoutTwice},
	{"an inactive user's token stays dead", inactiveLogoutIsForGood},
	{"an unverified user can log out", unverifiedLogout},
	{"a token of exactly its lifetime can log out", logoutAtTheLastMoment},
	{"the delete was not acknowledged", logoutNotAcknowledged},
	{"the delete went through but was not acknowledged", logoutAnswerLost},
	{"the lookup fails", logoutWithoutLookup},
	{"a bad token while the database fails", badLogoutWithoutDatabase},
	{"a token in the URL or the body is never read", logoutWithTokenInURL},
}}

func (a *app) logout(options ...option) reply {
	a.t.Helper()
	return a.post("/auth/logout", nothing, options...)
}

func logoutSucceeds(t *testing.T, w world) {
	a := w.app(t)
	_, token := a.loggedIn()
	a.expect("log out", a.logout(a.carry(token)), a.loggedOut())
	a.expect("use the token afterwards", a.get("/guarded", a.carry(token)), a.unauthorized("invalid_token"))
}

func logoutSparesOtherSessions(t *testing.T, w world) {
	a := w.app(t)
	user, token := a.loggedIn()
	another := a.login(user)
	a.expect("log out", a.logout(a.carry(token)), a.loggedOut())
	a.expect("use the user's other token", a.get("/guarded", a.carry(another)), welcome(user))
}

func logoutWithoutToken(t *testing.T, w world) {
	a := w.app(t)
	a.expect("log out", a.logout(), a.unauthorized(noToken))
}

func logoutWithBadToken(t *testing.T, w world) {
	for _, bad := range badTokens {
		t.Run(bad.name, func(t *testing.T) {
			a := w.app(t)
			token := bad.make(a)
			a.expect("log out", a.logout(a.carry(token)), a.notLoggedOut())
		})
	}
}

func logoutTwice(t *testing.T, w world) {
	a := w.app(t)
	_, token := a.loggedIn()
	a.expect("log out", a.logout(a.carry(token)), a.loggedOut())
	a.expect("log out again", a.logout(a.carry(token)), a.notLoggedOut())
}

func inactiveLogoutIsForGood(t *testing.T, w world) {
	a := w.app(t)
	user, token := a.loggedIn()
	a.setFlags(user, flags{active: false})
	a.expect("log out", a.logout(a.carry(token)), a.notLoggedOut())
	a.setFlags(user, active)
	a.expect("use the token as an active user", a.get("/guarded", a.carry(token)), a.unauthorized("invalid_token"))
}

func unverifiedLogout(t *testing.T, w world) {
	a := w.app(t, requireVerified)
	user := a.user(flags{active: true, verified: true})
	token := a.login(user)
	a.setFlags(user, flags{active: true, verified: false})
	a.expect("log out", a.logout(a.carry(token)), a.loggedOut())
}

func logoutAtTheLastMoment(t *testing.T, w world) {
	a := w.app(t)
	_, token := a.loggedIn()
	a.clock.advance(lifetime)
	a.expect("log out at the age of lifetime", a.logout(a.carry(token)), a.loggedOut())

	_, token = a.loggedIn()
	a.clock.advance(lifetime + time.Millisecond)
	a.expect("log out a millisecond later", a.logout(a.carry(token)), a.notLoggedOut())
}

func logoutNotAcknowledged(t *testing.T, w world) {
	for _, failure := range failures {
		t.Run(failure.name, func(t *testing.T) {
			a := w.app(t)
			user, token := a.loggedIn()
			a.db.fail(deleteToken, failure.err)
			a.expect("log out", a.logout(a.carry(token)), unavailable())
			a.db.mend()
			a.expect("use the token afterwards", a.get("/guarded", a.carry(token)), welcome(user))
			a.expect("try again", a.logout(a.carry(token)), a.loggedOut())
		})
	}
}

// logoutAnswerLost: the row may be gone without a majority's word for it. Until
// the database gives that word, no log-out says that it is over.
func logoutAnswerLost(t *testing.T, w world) {
	for _, failure := range failures {
		t.Run(failure.name, func(t *testing.T) {
			a := w.app(t)
			_, token := a.loggedIn()
			a.db.loseAnswer(deleteToken, failure.err)
			a.expect("log out", a.logout(a.carry(token)), unavailable())
			a.expect("try again too early", a.logout(a.carry(token)), unavailable())
			a.db.mend()
			a.expect("try again", a.logout(a.carry(token)), a.notLoggedOut())
		})
	}
}

func logoutWithoutLookup(t *testing.T, w world) {
	for _, failure := range failures {
		t.Run(failure.name, func(t *testing.T) {
			a := w.app(t)
			user, token := a.loggedIn()
			for _, what := range []call{findToken, findUser} {
				a.db.fail(what, failure.err)
				a.expect(string(what), a.logout(a.carry(token)), unavailable())
				a.db.mend()
				a.expect("use the token afterwards", a.get("/guarded", a.carry(token)), welcome(user))
			}
		})
	}
}

func badLogoutWithoutDatabase(t *testing.T, w world) {
	a := w.app(t)
	token := a.unknownToken()
	for _, failure := range failures {
		for _, what := range []call{findToken, deleteToken} {
			a.db.fail(what, failure.err)
			a.expect(string(what), a.logout(a.carry(token)), unavailable())
			a.db.mend()
		}
	}
	a.db.fail(findToken, failures[0].err)
	a.expect("a malformed token", a.logout(a.carry("malformed")), a.notLoggedOut())
}

func logoutWithTokenInURL(t *testing.T, w world) {
	a := w.app(t)
	user, token := a.loggedIn()
	a.expect("in the URL", a.post("/auth/logout?access_token="+token+"&token="+token, nothing), a.unauthorized(noToken))
	a.expect("in the body", a.post("/auth/logout", asForm("access_token", token, "token", token)), a.unauthorized(noToken))
	a.expect("use the token afterwards", a.get("/guarded", a.carry(token)), welcome(user))
}
