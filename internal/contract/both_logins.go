package contract

import (
	"testing"
	"time"
)

// bothLoginsRows are about an application that mounts its routes twice: at /auth with logins
// answered by the first transport, and at /second/auth, by [ginauth.Auth.AnswerLoginsWith], with
// logins answered by the second.
var bothLoginsRows = section{"logins with bearer token and cookie", []row{
	{"each login route answers with its transport", eachLoginRouteAnswers},
	{"the guards of both accept tokens of both logins", guardsAcceptBothLogins},
	{"behind a guard of one, the other knows the user", bothKnowTheUser},
	{"the lists of sessions of both have the logins of both", bothListSessions},
	{"both log out by the transport of the request", bothLogOut},
	{"both reauthenticate by the transport of the request", bothReauthenticate},
	{"both renew a session by the transport of the request", bothRenew},
	{"a login for a cookie checks the origin, a login for a bearer token does not", bothCheckOrigins},
	{"each login ends the session of the cookie", eachLoginReplacesCookie},
}}

// bothLogins starts an application with both logins and returns each login with its transport's
// protocol. The order of the transports decides which of them is at /auth.
func bothLogins(t *testing.T, env environment, check func(t *testing.T, r *rig, first, second login)) {
	for _, c := range []struct {
		name          string
		order         func(*settings)
		first, second protocol
	}{
		{"bearer first", bearerFirst, bearer, cookie},
		{"cookie first", cookieFirst, cookie, bearer},
	} {
		t.Run(c.name, func(t *testing.T) {
			env.protocol = c.first
			r := env.rig(t, c.order)
			check(t, r, login{r, "/auth", c.first}, login{r, "/second/auth", c.second})
		})
	}
}

// login is one of two groups of routes, and the protocol of its logins.
type login struct {
	r     *rig
	group string
	protocol
}

// try sends a user's right password to the login route.
func (l login) try(user Member, options ...option) reply {
	l.r.t.Helper()
	return l.r.post(l.group+"/login", asForm("username", user.Email, "password", password), options...)
}

// token logs a user in, checks the answer and returns the token.
func (l login) token(user Member, options ...option) string {
	l.r.t.Helper()
	token := l.checkLogin(l.r.t, l.try(user, options...), lifetime)
	l.r.keepSecret(token)
	return token
}

func eachLoginRouteAnswers(t *testing.T, env environment) {
	bothLogins(t, env, func(t *testing.T, r *rig, first, second login) {
		user := r.user(active)
		first.token(user)
		second.token(user)
		for _, l := range []login{first, second} {
			wrong := r.post(l.group+"/login", asForm("username", user.Email, "password", wrongPassword))
			r.expect("wrong password at "+l.group, wrong, badCredentials())
		}
	})
}

func guardsAcceptBothLogins(t *testing.T, env environment) {
	bothLogins(t, env, func(t *testing.T, r *rig, first, second login) {
		user := r.user(active)
		for _, l := range []login{first, second} {
			token := l.token(user)
			for _, path := range []string{"/guarded", "/second/guarded"} {
				r.expect("bearer at "+path, r.get(path, bearer.withToken(token)), welcome(user))
				r.expect("cookie at "+path, r.get(path, cookie.withToken(token)), welcome(user))
			}
		}
	})
}

func bothKnowTheUser(t *testing.T, env environment) {
	bothLogins(t, env, func(t *testing.T, r *rig, first, second login) {
		user := r.user(active)
		for _, l := range []login{first, second} {
			r.expect(l.group, r.get("/second/mixed", l.withToken(l.token(user))), welcome(user))
		}
		r.expect("anonymous", r.get("/second/mixed"), bearer.unauthorized(noToken))
	})
}

func bothListSessions(t *testing.T, env environment) {
	bothLogins(t, env, func(t *testing.T, r *rig, first, second login) {
		user := r.user(active)
		first.token(user)
		token := second.token(user)
		for _, l := range []login{first, second} {
			got := r.get(l.group+"/sessions", bearer.withToken(token))
			if n := len(r.decodeSessions(got).Sessions); n != 2 {
				t.Errorf("%s: got %d sessions, want 2", l.group, n)
			}
		}
	})
}

func bothLogOut(t *testing.T, env environment) {
	bothLogins(t, env, func(t *testing.T, r *rig, first, second login) {
		user := r.user(active)
		for _, l := range []login{first, second} {
			for _, p := range []protocol{bearer, cookie} {
				token := l.token(user)
				r.expect(l.group, r.post(l.group+"/logout", nothing, p.withToken(token)), p.loggedOut())
				r.expect("use the token afterwards", r.get("/guarded", p.withToken(token)), bearer.unauthorized("invalid_token"))
			}
		}
	})
}

func bothReauthenticate(t *testing.T, env environment) {
	bothLogins(t, env, func(t *testing.T, r *rig, first, second login) {
		user := r.user(active)
		for _, l := range []login{first, second} {
			for _, p := range []protocol{bearer, cookie} {
				token := l.token(user)
				r.clock.advance(time.Minute)
				got := r.post(l.group+"/reauthenticate", asForm("password", password), p.withToken(token))
				next := p.checkLogin(t, got, lifetime-time.Minute)
				r.keepSecret(next)
				r.expect("use the new token", r.get("/fresh", p.withToken(next)), welcome(user))
			}
		}
	})
}

// bothRenew also checks that a guard of the first can precede a Renew of the second.
func bothRenew(t *testing.T, env environment) {
	bothLogins(t, env, func(t *testing.T, r *rig, first, second login) {
		for _, path := range []string{"/password", "/second/password"} {
			for _, p := range []protocol{bearer, cookie} {
				user := r.user(active)
				token := second.token(user)
				other := first.token(user)
				got := r.post(path, asForm("current", password, "new", newPassword), p.withToken(token))
				next := p.checkLogin(t, got, lifetime)
				r.keepSecret(next)
				r.expect("use the new token", r.get("/guarded", p.withToken(next)), welcome(user))
				r.expect("use the other session", r.get("/guarded", p.withToken(other)), bearer.unauthorized("invalid_token"))
			}
		}
	})
}

func bothCheckOrigins(t *testing.T, env environment) {
	bothLogins(t, env, func(t *testing.T, r *rig, first, second login) {
		user := r.user(active)
		for what, headers := range crossOriginHeaders {
			for _, l := range []login{first, second} {
				if l.transport == cookie.transport {
					r.expect(what, l.try(user, headers...), crossOrigin())
				} else {
					l.token(user, headers...)
				}
			}
		}
	})
}

func eachLoginReplacesCookie(t *testing.T, env environment) {
	bothLogins(t, env, func(t *testing.T, r *rig, first, second login) {
		user := r.user(active)
		for _, l := range []login{first, second} {
			old := first.token(user)
			next := l.token(user, cookie.withToken(old))
			r.expect("the old token", r.get("/guarded", bearer.withToken(old)), bearer.unauthorized("invalid_token"))
			r.expect("the new token", r.get("/guarded", bearer.withToken(next)), welcome(user))
			if l.transport == bearer.transport {
				kept := l.token(user, bearer.withToken(next))
				r.expect("a header's session is kept", r.get("/guarded", bearer.withToken(next)), welcome(user))
				r.expect("and the new one", r.get("/guarded", bearer.withToken(kept)), welcome(user))
			}
		}
	})
}
