package contract

import (
	"net/http"
	"strings"
	"testing"

	"github.com/latchkey-go/latchkey/ginauth"
)

var bearerRows = rows{"header", []row{
	{"two Authorization headers", twoHeaders},
	{"Bearer with no token or with spaces in it", malformedHeader},
	{"another scheme is as no credentials", otherScheme},
	{"the scheme has no case", schemeHasNoCase},
	{"the realm is the application's", realm},
	{"a cookie is not taken", cookieNotTaken},
}}

func twoHeaders(t *testing.T, w world) {
	a := w.app(t)
	user, token := a.loggedIn()
	good := "Bearer " + token
	for _, headers := range [][]string{{good, good}, {good, "Basic eA=="}, {"Basic eA==", good}, {good, ""}, {"", ""}} {
		both := strings.Join(headers, " and ")
		a.expect("guard: "+both, a.get("/guarded", authorization(headers...)), a.badRequest())
		a.expect("log out: "+both, a.logout(authorization(headers...)), a.badRequest())
	}
	a.expect("use the token afterwards", a.get("/guarded", a.carry(token)), welcome(user))
}

func malformedHeader(t *testing.T, w world) {
	a := w.app(t)
	_, token := a.loggedIn()
	for _, header := range []string{
		"Bearer", "Bearer ", "bearer", "Bearer a b", "Bearer " + token + " x", "Bearer x " + token, "Bearer a\tb",
		"Bearer " + token + ", Bearer " + token,
	} {
		a.expect("guard: "+header, a.get("/guarded", authorization(header)), a.badRequest())
		a.expect("log out: "+header, a.logout(authorization(header)), a.badRequest())
		a.expect("optional: "+header, a.get("/optional", authorization(header)), visitor())
	}
}

func otherScheme(t *testing.T, w world) {
	a := w.app(t)
	_, token := a.loggedIn()
	for _, header := range []string{"Basic YW5uOnNlY3JldA==", "Basic " + token, "Bearers " + token, "DPoP " + token, token, "", "Token a b"} {
		a.expect("guard: "+header, a.get("/guarded", authorization(header)), a.unauthorized(noToken))
		a.expect("log out: "+header, a.logout(authorization(header)), a.unauthorized(noToken))
	}
}

func schemeHasNoCase(t *testing.T, w world) {
	a := w.app(t)
	user, token := a.loggedIn()
	for _, scheme := range []string{"bearer", "BEARER", "bEaReR"} {
		a.expect(scheme, a.get("/guarded", authorization(scheme+" "+token)), welcome(user))
	}
}

func realm(t *testing.T, w world) {
	a := w.app(t, transports(ginauth.Bearer{Realm: "my app, (v2)"}))
	want := a.unauthorized(noToken)
	want.WWWAuthenticate = `Bearer realm="my app, (v2)"`
	a.expect("no credentials", a.get("/guarded"), want)
	want.WWWAuthenticate += `, error="invalid_token"`
	a.expect("malformed token", a.get("/guarded", a.carry("malformed")), want)
}

func cookieNotTaken(t *testing.T, w world) {
	a := w.app(t)
	user, token := a.loggedIn()
	a.expect("guard", a.get("/guarded", cookie.carry(token)), a.unauthorized(noToken))
	a.expect("log out", a.logout(cookie.carry(token)), a.unauthorized(noToken))
	a.expect("use the token afterwards", a.get("/guarded", a.carry(token)), welcome(user))
}

var cookieRows = rows{"cookie", []row{
	{"the guard sends no WWW-Authenticate", noChallenge},
	{"two cookies of one name with different values", plantedCookie},
	{"two cookies of one name with one value", sameCookieTwice},
	{"an empty cookie", emptyCookie},
	{"an Authorization header is not taken", headerNotTaken},
	{"a cookie is cleared with the attributes that it was set with", clearedAsSet},
}}

func noChallenge(t *testing.T, w world) {
	a := w.app(t)
	for what, got := range map[string]reply{
		"no credentials":  a.get("/guarded"),
		"malformed token": a.get("/guarded", a.carry("malformed")),
		"another scheme":  a.get("/guarded", authorization("Bearer a b")),
		"log out":         a.logout(),
	} {
		if values := got.header.Values("WWW-Authenticate"); len(values) > 0 {
			t.Errorf("%s: got WWW-Authenticate %q, want none", what, values)
		}
	}
}

func plantedCookie(t *testing.T, w world) {
	a := w.app(t)
	_, token := a.loggedIn()
	_, planted := a.loggedIn()
	for _, values := range [][2]string{{token, planted}, {planted, token}, {token, "x"}, {"", token}} {
		both := header("Cookie", "__Host-latchkey="+values[0]+"; __Host-latchkey="+values[1])
		what := values[0] + " and " + values[1]
		a.expect("guard: "+what, a.get("/guarded", both), a.unauthorized("invalid_token"))
		a.expect("optional: "+what, a.get("/optional", both), visitor())
		a.expect("log out: "+what, a.logout(both), a.notLoggedOut())
	}
	inTwoHeaders := header("Cookie", "__Host-latchkey="+token, "__Host-latchkey="+planted)
	a.expect("in two headers", a.get("/guarded", inTwoHeaders), a.unauthorized("invalid_token"))
}

func sameCookieTwice(t *testing.T, w world) {
	a := w.app(t)
	user, token := a.loggedIn()
	both := header("Cookie", "__Host-latchkey="+token+"; __Host-latchkey="+token)
	a.expect("guard", a.get("/guarded", both), welcome(user))
}

func emptyCookie(t *testing.T, w world) {
	a := w.app(t)
	a.expect("guard", a.get("/guarded", a.carry("")), a.unauthorized(noToken))
	want := a.unauthorized(noToken)
	want.SetCookie = a.cleared
	a.expect("log out", a.logout(a.carry("")), want)
}

func headerNotTaken(t *testing.T, w world) {
	a := w.app(t)
	user, token := a.loggedIn()
	a.expect("guard", a.get("/guarded", bearer.carry(token)), a.unauthorized(noToken))
	a.expect("log out", a.logout(bearer.carry(token)), a.unauthorized(noToken))
	a.expect("two headers", a.get("/guarded", a.carry(token), authorization("Bearer a", "Bearer b")), welcome(user))
	a.expect("use the token afterwards", a.get("/guarded", a.carry(token)), welcome(user))
}

func clearedAsSet(t *testing.T, w world) {
	a := w.app(t, transports(ginauth.Cookie{Name: "app", Path: "/api", Domain: "example.com", InsecureHTTP: true, SameSite: http.SameSiteStrictMode}))
	user := a.user(active)
	const attributes = "; HttpOnly; SameSite=Strict"
	got := a.post("/auth/login", asForm("username", user.Email, "password", password))
	token := between(got.SetCookie, "app=", ";")
	a.hide(token)
	want := noContent()
	want.SetCookie = "app=" + token + "; Path=/api; Domain=example.com; Max-Age=3600" + attributes
	a.expect("log in", got, want)
	want.SetCookie = "app=; Path=/api; Domain=example.com; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0" + attributes
	a.expect("log out", a.logout(header("Cookie", "app="+token)), want)
}

var orderRows = rows{"order", []row{
	{"the first that yields a user wins", firstUserWins},
	{"a bad credential gives way to a good one", badGivesWayToGood},
	{"where none yields a user, the gravest reason is told", gravestReason},
	{"a failing database is not passed over", failureIsNotPassedOver},
	{"the login is answered by the first", firstAnswersLogin},
	{"log-out destroys the token that authenticated", logoutOfTheOneThatAuthenticated},
	{"log-out with a bearer token leaves the cookie alone", logoutByBearer},
	{"log-out clears a cookie that is no good", logoutClearsBadCookie},
}}

var (
	bearerFirst = transports(ginauth.Bearer{}, ginauth.Cookie{})
	cookieFirst = transports(ginauth.Cookie{}, ginauth.Bearer{})
)

// twoUsers logs two users in and returns them, each with their token.
func (a *app) twoUsers() (ann Member, anns string, bob Member, bobs string) {
	a.t.Helper()
	ann, anns = a.loggedIn()
	bob, bobs = a.loggedIn()
	return ann, anns, bob, bobs
}

func firstUserWins(t *testing.T, w world) {
	a := w.app(t, bearerFirst)
	ann, anns, bob, bobs := a.twoUsers()
	a.expect("bearer first", a.get("/guarded", bearer.carry(anns), cookie.carry(bobs)), welcome(ann))
	a.expect("bearer alone", a.get("/guarded", bearer.carry(anns)), welcome(ann))
	a.expect("cookie alone", a.get("/guarded", cookie.carry(bobs)), welcome(bob))

	w.way = cookie
	a = w.app(t, cookieFirst)
	ann, anns, bob, bobs = a.twoUsers()
	a.expect("cookie first", a.get("/guarded", bearer.carry(anns), cookie.carry(bobs)), welcome(bob))
	a.expect("bearer alone", a.get("/guarded", bearer.carry(anns)), welcome(ann))
}

func badGivesWayToGood(t *testing.T, w world) {
	a := w.app(t, bearerFirst)
	user, token := a.loggedIn()
	for _, header := range [][]string{{"Bearer malformed"}, {"Bearer " + a.unknownToken()}, {"Bearer"}, {"Basic x"}, {"Bearer a", "Bearer b"}} {
		what := strings.Join(header, " and ")
		a.expect(what, a.get("/guarded", authorization(header...), cookie.carry(token)), welcome(user))
		a.expect(what+", optional", a.get("/optional", authorization(header...), cookie.carry(token)), welcome(user))
	}
	w.way = cookie
	a = w.app(t, cookieFirst)
	user, token = a.loggedIn()
	for _, value := range []string{"", "malformed", a.unknownToken(), "x; __Host-latchkey=y"} {
		a.expect("cookie "+value, a.get("/guarded", bearer.carry(token), cookie.carry(value)), welcome(user))
	}
}

func gravestReason(t *testing.T, w world) {
	for _, order := range []func(*settings){bearerFirst, cookieFirst} {
		a := w.app(t, order)
		a.expect("nothing", a.get("/guarded"), a.unauthorized(noToken))
		a.expect("a bad cookie", a.get("/guarded", cookie.carry("x")), a.unauthorized("invalid_token"))
		a.expect("a bad header", a.get("/guarded", bearer.carry("x")), a.unauthorized("invalid_token"))
		a.expect("a bad cookie and another scheme", a.get("/guarded", cookie.carry("x"), authorization("Basic x")), a.unauthorized("invalid_token"))
		a.expect("both bad", a.get("/guarded", bearer.carry("x"), cookie.carry("x")), a.unauthorized("invalid_token"))
		a.expect("an unreadable header and a bad cookie", a.get("/guarded", authorization("Bearer"), cookie.carry("x")), a.badRequest())
	}
}

func failureIsNotPassedOver(t *testing.T, w world) {
	a := w.app(t, bearerFirst)
	_, token := a.loggedIn()
	for _, failure := range failures {
		a.db.fail(findToken, failure.err)
		a.expect("both", a.get("/guarded", bearer.carry(a.unknownToken()), cookie.carry("malformed")), unavailable())
		a.expect("a malformed header and a good cookie", a.get("/guarded", bearer.carry("malformed"), cookie.carry(token)), unavailable())
		a.db.mend()
	}
}

func firstAnswersLogin(t *testing.T, w world) {
	w.app(t, bearerFirst).loggedIn() // checks the answer
	w.way = cookie
	w.app(t, cookieFirst).loggedIn()
}

func logoutOfTheOneThatAuthenticated(t *testing.T, w world) {
	a := w.app(t, bearerFirst)
	_, anns, bob, bobs := a.twoUsers()
	a.expect("log out with both", a.logout(bearer.carry(anns), cookie.carry(bobs)), bearer.loggedOut())
	a.expect("the first is gone", a.get("/guarded", bearer.carry(anns)), a.unauthorized("invalid_token"))
	a.expect("the second is not", a.get("/guarded", cookie.carry(bobs)), welcome(bob))
	a.expect("log out with a dead one and a good one", a.logout(bearer.carry(anns), cookie.carry(bobs)), cookie.loggedOut())
	a.expect("the second is gone too", a.get("/guarded", cookie.carry(bobs)), a.unauthorized("invalid_token"))
}

func logoutByBearer(t *testing.T, w world) {
	w.way = cookie
	a := w.app(t, cookieFirst)
	_, token := a.loggedIn()
	a.expect("log out", a.logout(bearer.carry(token)), bearer.loggedOut())
	a.expect("use the token afterwards", a.get("/guarded", cookie.carry(token)), bearer.unauthorized("invalid_token"))
}

func logoutClearsBadCookie(t *testing.T, w world) {
	a := w.app(t, bearerFirst)
	want := a.unauthorized("invalid_token")
	want.SetCookie = cookie.cleared
	for _, bad := range badTokens {
		token := bad.make(a)
		a.expect(bad.name, a.logout(cookie.carry(token)), want)
		a.expect(bad.name+", in the header too", a.logout(bearer.carry(token), cookie.carry(token)), want)
	}
	a.expect("no cookie", a.logout(bearer.carry("malformed")), a.unauthorized("invalid_token"))
}
