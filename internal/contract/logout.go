package contract

import (
	"testing"
	"time"
)

var logoutRows = section{"logout", []row{
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

func (r *rig) logout(options ...option) reply {
	r.t.Helper()
	return r.post("/auth/logout", nothing, options...)
}

func logoutSucceeds(t *testing.T, env environment) {
	r := env.rig(t)
	_, token := r.loggedIn()
	r.expect("log out", r.logout(r.withToken(token)), r.loggedOut())
	r.expect("use the token afterwards", r.get("/guarded", r.withToken(token)), r.unauthorized("invalid_token"))
}

func logoutSparesOtherSessions(t *testing.T, env environment) {
	r := env.rig(t)
	user, token := r.loggedIn()
	another := r.login(user)
	r.expect("log out", r.logout(r.withToken(token)), r.loggedOut())
	r.expect("use the user's other token", r.get("/guarded", r.withToken(another)), welcome(user))
}

func logoutWithoutToken(t *testing.T, env environment) {
	r := env.rig(t)
	r.expect("log out", r.logout(), r.unauthorized(noToken))
}

func logoutWithBadToken(t *testing.T, env environment) {
	for _, bad := range badTokens {
		t.Run(bad.name, func(t *testing.T) {
			r := env.rig(t)
			token := bad.make(r)
			r.expect("log out", r.logout(r.withToken(token)), r.notLoggedOut())
		})
	}
}

func logoutTwice(t *testing.T, env environment) {
	r := env.rig(t)
	_, token := r.loggedIn()
	r.expect("log out", r.logout(r.withToken(token)), r.loggedOut())
	r.expect("log out again", r.logout(r.withToken(token)), r.notLoggedOut())
}

func inactiveLogoutIsForGood(t *testing.T, env environment) {
	r := env.rig(t)
	user, token := r.loggedIn()
	r.setFlags(user, flags{active: false})
	r.expect("log out", r.logout(r.withToken(token)), r.notLoggedOut())
	r.setFlags(user, active)
	r.expect("use the token as an active user", r.get("/guarded", r.withToken(token)), r.unauthorized("invalid_token"))
}

func unverifiedLogout(t *testing.T, env environment) {
	r := env.rig(t, requireVerified)
	user := r.user(flags{active: true, verified: true})
	token := r.login(user)
	r.setFlags(user, flags{active: true, verified: false})
	r.expect("log out", r.logout(r.withToken(token)), r.loggedOut())
}

func logoutAtTheLastMoment(t *testing.T, env environment) {
	r := env.rig(t)
	_, token := r.loggedIn()
	r.clock.advance(lifetime)
	r.expect("log out at the age of lifetime", r.logout(r.withToken(token)), r.loggedOut())

	_, token = r.loggedIn()
	r.clock.advance(lifetime + time.Millisecond)
	r.expect("log out a millisecond later", r.logout(r.withToken(token)), r.notLoggedOut())
}

func logoutNotAcknowledged(t *testing.T, env environment) {
	for _, failure := range failures {
		t.Run(failure.name, func(t *testing.T) {
			r := env.rig(t)
			user, token := r.loggedIn()
			r.db.fail(deleteToken, failure.err)
			r.expect("log out", r.logout(r.withToken(token)), unavailable())
			r.db.repair()
			r.expect("use the token afterwards", r.get("/guarded", r.withToken(token)), welcome(user))
			r.expect("try again", r.logout(r.withToken(token)), r.loggedOut())
		})
	}
}

// logoutAnswerLost: the row may be gone without a majority's word for it. Until
// the database gives that word, no log-out says that it is over.
func logoutAnswerLost(t *testing.T, env environment) {
	for _, failure := range failures {
		t.Run(failure.name, func(t *testing.T) {
			r := env.rig(t)
			_, token := r.loggedIn()
			r.db.loseAnswer(deleteToken, failure.err)
			r.expect("log out", r.logout(r.withToken(token)), unavailable())
			r.expect("try again too early", r.logout(r.withToken(token)), unavailable())
			r.db.repair()
			r.expect("try again", r.logout(r.withToken(token)), r.notLoggedOut())
		})
	}
}

func logoutWithoutLookup(t *testing.T, env environment) {
	for _, failure := range failures {
		t.Run(failure.name, func(t *testing.T) {
			r := env.rig(t)
			user, token := r.loggedIn()
			for _, what := range []call{findToken, findUser} {
				r.db.fail(what, failure.err)
				r.expect(string(what), r.logout(r.withToken(token)), unavailable())
				r.db.repair()
				r.expect("use the token afterwards", r.get("/guarded", r.withToken(token)), welcome(user))
			}
		})
	}
}

func badLogoutWithoutDatabase(t *testing.T, env environment) {
	r := env.rig(t)
	token := r.unknownToken()
	for _, failure := range failures {
		for _, what := range []call{findToken, deleteToken} {
			r.db.fail(what, failure.err)
			r.expect(string(what), r.logout(r.withToken(token)), unavailable())
			r.db.repair()
		}
	}
	r.db.fail(findToken, failures[0].err)
	r.expect("a malformed token", r.logout(r.withToken("malformed")), r.notLoggedOut())
}

func logoutWithTokenInURL(t *testing.T, env environment) {
	r := env.rig(t)
	user, token := r.loggedIn()
	r.expect("in the URL", r.post("/auth/logout?access_token="+token+"&token="+token, nothing), r.unauthorized(noToken))
	r.expect("in the body", r.post("/auth/logout", asForm("access_token", token, "token", token)), r.unauthorized(noToken))
	r.expect("use the token afterwards", r.get("/guarded", r.withToken(token)), welcome(user))
}
