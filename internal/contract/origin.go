package contract

import (
	"net/http"
	"testing"

	"github.com/latchkey-go/latchkey/ginauth"
)

// What browsers say of where a request comes from. Old ones send no
// Sec-Fetch-Site; programs send neither.
var (
	fromElsewhere = map[string][]option{
		"of another site":                   {header("Sec-Fetch-Site", "cross-site"), header("Origin", "https://evil.example")},
		"of another host of the site":       {header("Sec-Fetch-Site", "same-site"), header("Origin", "https://other.example.com")},
		"of another origin, by its Origin":  {header("Origin", "https://evil.example")},
		"of an opaque origin, by its null":  {header("Origin", "null")},
		"of a site that forges the referer": {header("Sec-Fetch-Site", "cross-site"), header("Referer", "https://app.example.com/")},
	}
	fromHome = map[string][]option{
		"of the same origin": {header("Sec-Fetch-Site", "same-origin")},
		"of the user's own":  {header("Sec-Fetch-Site", "none")},
		"of no browser":      nil,
	}
)

const trusted = "https://app.example.com"

func crossOrigin() answer { return refused(http.StatusForbidden, "CROSS_ORIGIN_REQUEST") }

// originRows are of pages of other origins, which make browsers send cookies.
var originRows = rows{"cross origin", []row{
	{"an unsafe request that a cookie authenticates", cookieFromElsewhere},
	{"a login for a cookie", loginFromElsewhere},
	{"a safe request", safeFromElsewhere},
	{"a trusted origin", trustedOrigin},
	{"a bearer token, with a cookie beside it", bearerFromElsewhere},
	{"both, and the cookie yields the user", bothFromElsewhere},
	{"a login for a bearer token leaves the cookie's session alone", bearerLoginFromElsewhere},
}}

func cookieFromElsewhere(t *testing.T, w world) {
	w.way = cookie
	a := w.app(t)
	user, token := a.loggedIn()
	for what, from := range fromElsewhere {
		from = append(from, a.carry(token))
		a.expect("log out "+what, a.logout(from...), crossOrigin())
		a.expect("log out everywhere "+what, a.post("/auth/logout-all", asForm(), from...), crossOrigin())
		a.expect("give the password again "+what, a.post("/auth/reauthenticate", asForm("password", password), from...), crossOrigin())
		a.expect("end a session "+what, a.delete("/auth/sessions/x", from...), crossOrigin())
	}
	a.expect("the session lives", a.get("/guarded", a.carry(token)), welcome(user))
	for what, from := range fromHome {
		token := a.login(user)
		a.expect("log out "+what, a.logout(append(from, a.carry(token))...), a.loggedOut())
	}
}

func loginFromElsewhere(t *testing.T, w world) {
	w.way = cookie
	a := w.app(t)
	user := a.user(active)
	for what, from := range fromElsewhere {
		a.expect("log in "+what, a.tryLogin(user, from...), crossOrigin())
	}
	a.expectSessions(user, 0)
	for _, from := range fromHome {
		a.deliveredToken(a.tryLogin(user, from...))
	}
}

func safeFromElsewhere(t *testing.T, w world) {
	w.way = cookie
	a := w.app(t)
	user, token := a.loggedIn()
	for what, from := range fromElsewhere {
		a.expect(what, a.get("/guarded", append(from, a.carry(token))...), welcome(user))
	}
}

func trustedOrigin(t *testing.T, w world) {
	w.way = cookie
	a := w.app(t, plugin(func(cfg *ginauth.Config) { cfg.TrustedOrigins = []string{trusted} }))
	user := a.user(active)
	from := []option{header("Sec-Fetch-Site", "same-site"), header("Origin", trusted)}
	token := a.deliveredToken(a.tryLogin(user, from...))
	a.expect("log out", a.logout(append(from, a.carry(token))...), a.loggedOut())
	other := []option{header("Sec-Fetch-Site", "same-site"), header("Origin", trusted+":8443")}
	a.expect("log in from another port", a.tryLogin(user, other...), crossOrigin())
}

func bearerFromElsewhere(t *testing.T, w world) {
	a := w.app(t, bearerFirst)
	user, token := a.loggedIn()
	for what, from := range fromElsewhere {
		beside := a.login(user)
		a.expect("log out "+what, a.logout(append(from, bearer.carry(beside), cookie.carry(token))...), a.loggedOut())
	}
	a.expect("the cookie's session lives", a.get("/guarded", cookie.carry(token)), welcome(user))
}

func bothFromElsewhere(t *testing.T, w world) {
	w.way = cookie
	a := w.app(t, cookieFirst)
	user, token := a.loggedIn()
	for what, from := range fromElsewhere {
		a.expect("cookie first: "+what, a.logout(append(from, bearer.carry(token), cookie.carry(token))...), crossOrigin())
	}
	a.expect("the session lives", a.get("/guarded", cookie.carry(token)), welcome(user))
}

func bearerLoginFromElsewhere(t *testing.T, w world) {
	a := w.app(t, bearerFirst)
	user, token := a.loggedIn()
	for _, from := range fromElsewhere {
		a.deliveredToken(a.tryLogin(user, append(from, cookie.carry(token))...))
	}
	a.expect("the cookie's session lives", a.get("/guarded", cookie.carry(token)), welcome(user))
}
