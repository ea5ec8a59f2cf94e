package contract

import (
	"net/http"
	"testing"

	"github.com/latchkey-go/latchkey/ginauth"
)

// Browsers send the origin of a request in these headers. Old ones send no Sec-Fetch-Site;
// programs send neither.
var (
	crossOriginHeaders = map[string][]option{
		"cross-site":                        {header("Sec-Fetch-Site", "cross-site"), header("Origin", "https://evil.example")},
		"another host of the site":          {header("Sec-Fetch-Site", "same-site"), header("Origin", "https://other.example.com")},
		"Origin alone":                      {header("Origin", "https://evil.example")},
		"opaque origin":                     {header("Origin", "null")},
		"cross-site with a trusted Referer": {header("Sec-Fetch-Site", "cross-site"), header("Referer", "https://app.example.com/")},
	}
	sameOriginHeaders = map[string][]option{
		"same origin":       {header("Sec-Fetch-Site", "same-origin")},
		"typed by the user": {header("Sec-Fetch-Site", "none")},
		"no browser":        nil,
	}
)

const trustedOrigin = "https://app.example.com"

func crossOrigin() answer { return refused(http.StatusForbidden, "CROSS_ORIGIN_REQUEST") }

// crossOriginRows are about pages of other origins, which can make browsers send cookies.
var crossOriginRows = section{"cross-origin request", []row{
	{"an unsafe request with a cookie is refused", crossOriginCookieRequest},
	{"a login for a cookie is refused", crossOriginCookieLogin},
	{"a safe request is accepted", crossOriginSafeRequest},
	{"a WebSocket handshake with a cookie is refused", crossOriginWebSocket},
	{"a WebSocket handshake with a bearer token is accepted", crossOriginBearerWebSocket},
	{"a trusted origin is accepted", trustedOriginIsAccepted},
	{"a bearer token is accepted, with a cookie beside it", crossOriginBearerRequest},
	{"an unsafe request is refused if the cookie comes first", crossOriginBothTokens},
	{"a login for a bearer token does not end the cookie's session", crossOriginBearerLogin},
}}

func crossOriginCookieRequest(t *testing.T, env environment) {
	env.protocol = cookie
	r := env.rig(t)
	user, token := r.loggedIn()
	for what, headers := range crossOriginHeaders {
		headers = append(headers, r.withToken(token))
		r.expect("log out: "+what, r.logout(headers...), crossOrigin())
		r.expect("log out of all sessions: "+what, r.post("/auth/logout-all", asForm(), headers...), crossOrigin())
		r.expect("reauthenticate: "+what, r.tryReauthenticate(password, headers...), crossOrigin())
		r.expect("end a session: "+what, r.delete("/auth/sessions/x", headers...), crossOrigin())
	}
	r.expect("the session is still valid", r.get("/guarded", r.withToken(token)), welcome(user))
	for what, headers := range sameOriginHeaders {
		token := r.login(user)
		r.expect("log out: "+what, r.logout(append(headers, r.withToken(token))...), r.loggedOut())
	}
}

func crossOriginCookieLogin(t *testing.T, env environment) {
	env.protocol = cookie
	r := env.rig(t)
	user := r.user(active)
	for what, headers := range crossOriginHeaders {
		r.expect("log in: "+what, r.tryLogin(user, headers...), crossOrigin())
	}
	r.expectRows(user, 0)
	for _, headers := range sameOriginHeaders {
		r.issuedToken(r.tryLogin(user, headers...))
	}
}

func crossOriginSafeRequest(t *testing.T, env environment) {
	env.protocol = cookie
	r := env.rig(t)
	user, token := r.loggedIn()
	for what, headers := range crossOriginHeaders {
		r.expect(what, r.get("/guarded", append(headers, r.withToken(token))...), welcome(user))
	}
}

// handshake makes a request a WebSocket handshake. The routes of the suite answer it like any
// other GET.
func handshake(r *http.Request) {
	r.Header.Set("Connection", "keep-alive, Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

func crossOriginWebSocket(t *testing.T, env environment) {
	env.protocol = cookie
	r := env.rig(t)
	user, token := r.loggedIn()
	for what, headers := range crossOriginHeaders {
		headers = append(headers, handshake, r.withToken(token))
		r.expect(what, r.get("/guarded", headers...), crossOrigin())
		r.expect("optional: "+what, r.get("/optional", headers...), anonymous())
	}
	for what, headers := range sameOriginHeaders {
		r.expect(what, r.get("/guarded", append(headers, handshake, r.withToken(token))...), welcome(user))
	}
}

func crossOriginBearerWebSocket(t *testing.T, env environment) {
	r := env.rig(t, bearerFirst)
	user, token := r.loggedIn()
	for what, headers := range crossOriginHeaders {
		headers = append(headers, handshake, bearer.withToken(token), cookie.withToken(token))
		r.expect(what, r.get("/guarded", headers...), welcome(user))
	}
}

func trustedOriginIsAccepted(t *testing.T, env environment) {
	env.protocol = cookie
	r := env.rig(t, withPlugin(func(cfg *ginauth.Config) { cfg.TrustedOrigins = []string{trustedOrigin} }))
	user := r.user(active)
	headers := []option{header("Sec-Fetch-Site", "same-site"), header("Origin", trustedOrigin)}
	token := r.issuedToken(r.tryLogin(user, headers...))
	r.expect("WebSocket", r.get("/guarded", append(headers, handshake, r.withToken(token))...), welcome(user))
	r.expect("log out", r.logout(append(headers, r.withToken(token))...), r.loggedOut())
	other := []option{header("Sec-Fetch-Site", "same-site"), header("Origin", trustedOrigin+":8443")}
	r.expect("log in from another port", r.tryLogin(user, other...), crossOrigin())
}

func crossOriginBearerRequest(t *testing.T, env environment) {
	r := env.rig(t, bearerFirst)
	user, token := r.loggedIn()
	for what, headers := range crossOriginHeaders {
		beside := r.login(user)
		r.expect("log out: "+what, r.logout(append(headers, bearer.withToken(beside), cookie.withToken(token))...), r.loggedOut())
	}
	r.expect("the cookie's session is still valid", r.get("/guarded", cookie.withToken(token)), welcome(user))
}

func crossOriginBothTokens(t *testing.T, env environment) {
	env.protocol = cookie
	r := env.rig(t, cookieFirst)
	user, token := r.loggedIn()
	for what, headers := range crossOriginHeaders {
		r.expect("cookie first: "+what, r.logout(append(headers, bearer.withToken(token), cookie.withToken(token))...), crossOrigin())
	}
	r.expect("the session is still valid", r.get("/guarded", cookie.withToken(token)), welcome(user))
}

func crossOriginBearerLogin(t *testing.T, env environment) {
	r := env.rig(t, bearerFirst)
	user, token := r.loggedIn()
	for _, headers := range crossOriginHeaders {
		r.issuedToken(r.tryLogin(user, append(headers, cookie.withToken(token))...))
	}
	r.expect("the cookie's session is still valid", r.get("/guarded", cookie.withToken(token)), welcome(user))
}
