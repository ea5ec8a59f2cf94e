package contract

import (
	"fmt"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/ginauth"
)

var rememberRows = section{"remember", []row{
	{"a login that asks to be remembered has the whole lifetime", loginIsRemembered},
	{"any other has the brief one, and a cookie without Max-Age", loginIsBrief},
	{"a value that is no boolean", rememberIsNoBoolean},
	{"a field twice", rememberTwice},
	{"without a brief lifetime it is ignored", rememberIsIgnored},
	{"where tokens never expire, the brief ones do", briefWhereNothingExpires},
	{"a part of a second", briefIsExact},
	{"wrong credentials", rememberDoesNotHelp},
}}

const brief = 10 * time.Minute

var withBriefLifetime = withPlugin(func(cfg *ginauth.Config) { cfg.BriefLifetime = brief })

// rememberMe returns the bodies of a login with a value of remember, in every
// encoding; inJSON is what JSON has instead of the string.
func rememberMe(user Member, value, inJSON string) map[string]body {
	login := []string{"username", user.Email, "password", password, "remember", value}
	literal := fmt.Sprintf(`{"username": %q, "password": %q, "remember": %s}`, user.Email, password, inJSON)
	return map[string]body{
		"urlencoded " + value: asForm(login...),
		"multipart " + value:  asMultipart(login...),
		"JSON " + inJSON:      rawJSON(literal),
	}
}

// expectExpiry checks that a token that was issued just now is accepted for a
// lifetime, and not for a millisecond more.
func (r *rig) expectExpiry(what string, user Member, token string, lifetime time.Duration) {
	r.t.Helper()
	r.clock.advance(lifetime)
	r.expect(what+": at its end", r.get("/guarded", r.withToken(token)), welcome(user))
	r.clock.advance(time.Millisecond)
	r.expect(what+": a millisecond later", r.get("/guarded", r.withToken(token)), r.unauthorized("invalid_token"))
}

func loginIsRemembered(t *testing.T, env environment) {
	r := env.rig(t, withBriefLifetime)
	user := r.user(active)
	for _, value := range []string{"true", "on", "1", "yes", "TRUE"} {
		for what, b := range rememberMe(user, value, "true") {
			token := r.tokenIn(r.post("/auth/login", b), lifetime)
			r.expectExpiry(what, user, token, lifetime)
		}
	}
}

func loginIsBrief(t *testing.T, env environment) {
	r := env.rig(t, withBriefLifetime)
	user := r.user(active)
	bodies := make(map[string]body)
	for _, enc := range encodings {
		bodies[enc.name+" without it"] = enc.of("username", user.Email, "password", password)
	}
	for _, value := range []string{"false", "off", "0", "no", ""} {
		for what, b := range rememberMe(user, value, "false") {
			bodies[what] = b
		}
	}
	for what, b := range bodies {
		r.expectExpiry(what, user, r.issuedToken(r.post("/auth/login", b)), brief)
	}
}

func rememberIsNoBoolean(t *testing.T, env environment) {
	r := env.rig(t, withBriefLifetime)
	user := r.user(active)
	for _, value := range [][2]string{{"maybe", `"maybe"`}, {"2", `2`}, {"true ", `"true "`}, {"\xff", `{}`}, {"null", `[true]`}} {
		for what, b := range rememberMe(user, value[0], value[1]) {
			r.expectInvalid(what, r.post("/auth/login", b), "bool_parsing", "body.remember")
		}
	}
	r.expectRows(user, 0)
}

func rememberTwice(t *testing.T, env environment) {
	r := env.rig(t, withBriefLifetime)
	user := r.user(active)
	for _, enc := range encodings {
		b := enc.of("username", user.Email, "password", password, "remember", "true", "remember", "true")
		r.expectInvalid(enc.name, r.post("/auth/login", b), anyType, "body.remember")
	}
}

func rememberIsIgnored(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	for _, value := range []string{"true", "false"} {
		for what, b := range rememberMe(user, value, value) {
			token := r.tokenIn(r.post("/auth/login", b), lifetime)
			r.expectExpiry(what, user, token, lifetime)
		}
	}
}

func briefWhereNothingExpires(t *testing.T, env environment) {
	r := env.rig(t, neverExpires, withBriefLifetime)
	user := r.user(active)
	for what, b := range rememberMe(user, "true", "true") {
		token := r.checkEndlessLogin(t, r.post("/auth/login", b))
		r.keepSecret(token)
		r.clock.advance(24 * 365 * time.Hour)
		r.expect(what, r.get("/guarded", r.withToken(token)), welcome(user))
	}
	r.expectExpiry("not remembered", user, r.login(user), brief)
}

func briefIsExact(t *testing.T, env environment) {
	const odd = 90*time.Second + 7*time.Millisecond
	r := env.rig(t, withPlugin(func(cfg *ginauth.Config) { cfg.BriefLifetime = odd }))
	user, token := r.loggedIn() // says 90 seconds: never more than it is
	r.expectExpiry("90.007 seconds", user, token, odd)
}

func rememberDoesNotHelp(t *testing.T, env environment) {
	r := env.rig(t, withBriefLifetime)
	user := r.user(active)
	got := r.post("/auth/login", asForm("username", user.Email, "password", wrongPassword, "remember", "true"))
	r.expect("wrong password", got, badCredentials())
	got = r.post("/auth/login", body{})
	r.expect("no body", got, unsupported())
}
