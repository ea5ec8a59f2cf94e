package contract

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/ginauth"
)

var rememberRows = rows{"remember", []row{
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

var remembers = plugin(func(cfg *ginauth.Config) { cfg.BriefLifetime = brief })

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

// expectEnd checks that a token that was issued just now is accepted for a
// lifetime, and not for a millisecond more.
func (a *app) expectEnd(what string, user Member, token string, lifetime time.Duration) {
	a.t.Helper()
	a.clock.advance(lifetime)
	a.expect(what+": at its end", a.get("/guarded", a.carry(token)), welcome(user))
	a.clock.advance(time.Millisecond)
	a.expect(what+": a millisecond later", a.get("/guarded", a.carry(token)), a.unauthorized("invalid_token"))
}

func loginIsRemembered(t *testing.T, w world) {
	a := w.app(t, remembers)
	user := a.user(active)
	for _, value := range []string{"true", "on", "1", "yes", "TRUE"} {
		for what, b := range rememberMe(user, value, "true") {
			token := a.delivered(t, a.post("/auth/login", b), lifetime)
			a.hide(token)
			a.expectEnd(what, user, token, lifetime)
		}
	}
}

func loginIsBrief(t *testing.T, w world) {
	a := w.app(t, remembers)
	user := a.user(active)
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
		a.expectEnd(what, user, a.deliveredToken(a.post("/auth/login", b)), brief)
	}
}

func rememberIsNoBoolean(t *testing.T, w world) {
	a := w.app(t, remembers)
	user := a.user(active)
	for _, value := range [][2]string{{"maybe", `"maybe"`}, {"2", `2`}, {"true ", `"true "`}, {"\xff", `{}`}, {"null", `[true]`}} {
		for what, b := range rememberMe(user, value[0], value[1]) {
			a.expectInvalid(what, a.post("/auth/login", b), "bool_parsing", "body.remember")
		}
	}
	a.expectSessions(user, 0)
}

func rememberTwice(t *testing.T, w world) {
	a := w.app(t, remembers)
	user := a.user(active)
	for _, enc := range encodings {
		b := enc.of("username", user.Email, "password", password, "remember", "true", "remember", "true")
		a.expectInvalid(enc.name, a.post("/auth/login", b), anyType, "body.remember")
	}
}

func rememberIsIgnored(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	for _, value := range []string{"true", "false"} {
		for what, b := range rememberMe(user, value, value) {
			token := a.delivered(t, a.post("/auth/login", b), lifetime)
			a.hide(token)
			a.expectEnd(what, user, token, lifetime)
		}
	}
}

func briefWhereNothingExpires(t *testing.T, w world) {
	a := w.app(t, neverExpires, remembers)
	user := a.user(active)
	for what, b := range rememberMe(user, "true", "true") {
		token := a.deliveredForGood(t, a.post("/auth/login", b))
		a.hide(token)
		a.clock.advance(24 * 365 * time.Hour)
		a.expect(what, a.get("/guarded", a.carry(token)), welcome(user))
	}
	a.expectEnd("not remembered", user, a.login(user), brief)
}

func briefIsExact(t *testing.T, w world) {
	const odd = 90*time.Second + 7*time.Millisecond
	a := w.app(t, plugin(func(cfg *ginauth.Config) { cfg.BriefLifetime = odd }))
	user, token := a.loggedIn() // says 90 seconds: never more than it is
	a.expectEnd("90.007 seconds", user, token, odd)
}

func rememberDoesNotHelp(t *testing.T, w world) {
	a := w.app(t, remembers)
	user := a.user(active)
	got := a.post("/auth/login", asForm("username", user.Email, "password", wrongPassword, "remember", "true"))
	a.expect("wrong password", got, badCredentials())
	got = a.post("/auth/login", body{})
	a.expect("no body", got, refused(http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE"))
}
