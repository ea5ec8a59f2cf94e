package contract

import (
	"fmt"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/ginauth"
)

var rememberRows = section{"remember", []row{
	{"a login with remember has the whole lifetime", loginIsRemembered},
	{"a login without remember has the brief lifetime and a cookie without Max-Age", loginIsBrief},
	{"a value that is not a boolean gets 422", malformedRemember},
	{"duplicate field", duplicateRemember},
	{"remember is ignored where BriefLifetime is not set", rememberIsIgnored},
	{"brief logins expire where tokens never expire", briefWithoutExpiry},
	{"the brief lifetime is exact to the millisecond", briefIsExact},
	{"remember does not change the answer to wrong credentials", rememberWithWrongCredentials},
}}

const brief = 10 * time.Minute

var withBriefLifetime = withPlugin(func(cfg *ginauth.Config) { cfg.BriefLifetime = brief })

// rememberMe returns the bodies of a login with a value of remember, in every encoding. The JSON
// body has the literal inJSON instead of the string.
func rememberMe(user Member, value, inJSON string) map[string]body {
	login := []string{"username", user.Email, "password", password, "remember", value}
	literal := fmt.Sprintf(`{"username": %q, "password": %q, "remember": %s}`, user.Email, password, inJSON)
	return map[string]body{
		"urlencoded " + value: asForm(login...),
		"multipart " + value:  asMultipart(login...),
		"JSON " + inJSON:      rawJSON(literal),
	}
}

// expectExpiry checks that a token is valid for this time from now and not a millisecond longer.
func (r *rig) expectExpiry(what string, user Member, token string, remaining time.Duration) {
	r.t.Helper()
	r.clock.advance(remaining)
	r.expect(what+": at the expiry", r.get("/guarded", r.withToken(token)), welcome(user))
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
		bodies[enc.name+" without remember"] = enc.of("username", user.Email, "password", password)
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

func malformedRemember(t *testing.T, env environment) {
	r := env.rig(t, withBriefLifetime)
	user := r.user(active)
	for _, value := range [][2]string{{"maybe", `"maybe"`}, {"2", `2`}, {"true ", `"true "`}, {"\xff", `{}`}, {"null", `[true]`}} {
		for what, b := range rememberMe(user, value[0], value[1]) {
			r.expectInvalid(what, r.post("/auth/login", b), "bool_parsing", "body.remember")
		}
	}
	r.expectRows(user, 0)
}

func duplicateRemember(t *testing.T, env environment) {
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

func briefWithoutExpiry(t *testing.T, env environment) {
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
	user, token := r.loggedIn() // the answer says 90 seconds, never more than the lifetime
	r.expectExpiry("90.007 seconds", user, token, odd)
}

func rememberWithWrongCredentials(t *testing.T, env environment) {
	r := env.rig(t, withBriefLifetime)
	user := r.user(active)
	got := r.post("/auth/login", asForm("username", user.Email, "password", wrongPassword, "remember", "true"))
	r.expect("wrong password", got, badCredentials())
	got = r.post("/auth/login", nothing)
	r.expect("no body", got, unsupported())
}
