package contract

import (
	"net/http"
	"strings"
	"testing"

	"github.com/latchkey-go/latchkey/ginauth"
)

var bearerRows = section{"header", []row{
	{"two Authorization headers", twoHeaders},
	{"Bearer with no token or with spaces in it", malformedHeader},
	{"another scheme is as no credentials", otherScheme},
	{"the scheme has no case", schemeHasNoCase},
	{"the realm is the application's", realm},
	{"a cookie is not taken", cookieNotTaken},
}}

func twoHeaders(t *testing.T, env environment) {
	r := env.rig(t)
	user, token := r.loggedIn()
	good := "Bearer " + token
	for _, headers := range [][]string{{good, good}, {good, "Basic eA=="}, {"Basic eA==", good}, {good, ""}, {"", ""}} {
		both := strings.Join(headers, " and ")
		r.expect("guard: "+both, r.get("/guarded", authorization(headers...)), r.badRequest())
		r.expect("log out: "+both, r.logout(authorization(headers...)), r.badRequest())
	}
	r.expect("use the token afterwards", r.get("/guarded", r.withToken(token)), welcome(user))
}

func malformedHeader(t *testing.T, env environment) {
	r := env.rig(t)
	_, token := r.loggedIn()
	for _, header := range []string{
		"Bearer", "Bearer ", "bearer", "Bearer a b", "Bearer " + token + " x", "Bearer x " + token, "Bearer a\tb",
		"Bearer " + token + ", Bearer " + token,
	} {
		r.expect("guard: "+header, r.get("/guarded", authorization(header)), r.badRequest())
		r.expect("log out: "+header, r.logout(authorization(header)), r.badRequest())
		r.expect("optional: "+header, r.get("/optional", authorization(header)), anonymous())
	}
}

func otherScheme(t *testing.T, env environment) {
	r := env.rig(t)
	_, token := r.loggedIn()
	for _, header := range []string{"Basic YW5uOnNlY3JldA==", "Basic " + token, "Bearers " + token, "DPoP " + token, token, "", "Token a b"} {
		r.expect("guard: "+header, r.get("/guarded", authorization(header)), r.unauthorized(noToken))
		r.expect("log out: "+header, r.logout(authorization(header)), r.unauthorized(noToken))
	}
}

func schemeHasNoCase(t *testing.T, env environment) {
	r := env.rig(t)
	user, token := r.loggedIn()
	for _, scheme := range []string{"bearer", "BEARER", "bEaReR"} {
		r.expect(scheme, r.get("/guarded", authorization(scheme+" "+token)), welcome(user))
	}
}

func realm(t *testing.T, env environment) {
	r := env.rig(t, withTransports(ginauth.Bearer{Realm: "my app, (v2)"}))
	want := r.unauthorized(noToken)
	want.WWWAuthenticate = `Bearer realm="my app, (v2)"`
	r.expect("no credentials", r.get("/guarded"), want)
	want.WWWAuthenticate += `, error="invalid_token"`
	r.expect("malformed token", r.get("/guarded", r.withToken("malformed")), want)
}

func cookieNotTaken(t *testing.T, env environment) {
	r := env.rig(t)
	user, token := r.loggedIn()
	r.expect("guard", r.get("/guarded", cookie.withToken(token)), r.unauthorized(noToken))
	r.expect("log out", r.logout(cookie.withToken(token)), r.unauthorized(noToken))
	r.expect("use the token afterwards", r.get("/guarded", r.withToken(token)), welcome(user))
}

var cookieRows = section{"cookie", []row{
	{"the guard sends no WWW-Authenticate", noChallenge},
	{"two cookies of one name with different values", twoDifferentCookies},
	{"two cookies of one name with one value", sameCookieTwice},
	{"an empty cookie", emptyCookie},
	{"an Authorization header is not taken", headerNotTaken},
	{"a cookie is cleared with the attributes that it was set with", clearedAsSet},
}}

func noChallenge(t *testing.T, env environment) {
	r := env.rig(t)
	for what, got := range map[string]reply{
		"no credentials":  r.get("/guarded"),
		"malformed token": r.get("/guarded", r.withToken("malformed")),
		"another scheme":  r.get("/guarded", authorization("Bearer a b")),
		"log out":         r.logout(),
	} {
		if values := got.header.Values("WWW-Authenticate"); len(values) > 0 {
			t.Errorf("%s: got WWW-Authenticate %q, want none", what, values)
		}
	}
}

func twoDifferentCookies(t *testing.T, env environment) {
	r := env.rig(t)
	ann, anns, bob, bobs := r.twoUsers()
	for _, c := range []struct {
		what   string
		values [2]string
		guard  answer
		visit  answer
	}{
		{"two users", [2]string{anns, bobs}, r.unauthorized("invalid_token"), anonymous()},
		{"two users, the other way", [2]string{bobs, anns}, r.unauthorized("invalid_token"), anonymous()},
		{"junk second", [2]string{anns, "x"}, welcome(ann), welcome(ann)},
		{"junk first", [2]string{"x", bobs}, welcome(bob), welcome(bob)},
		{"an empty one", [2]string{"", anns}, welcome(ann), welcome(ann)},
		{"a dead one", [2]string{r.unknownToken(), anns}, welcome(ann), welcome(ann)},
		{"two sessions of one user", [2]string{r.login(ann), anns}, welcome(ann), welcome(ann)},
	} {
		both := header("Cookie", "__Host-latchkey="+c.values[0]+"; __Host-latchkey="+c.values[1])
		r.expect("guard: "+c.what, r.get("/guarded", both), c.guard)
		r.expect("optional: "+c.what, r.get("/optional", both), c.visit)
		inTwoHeaders := header("Cookie", "__Host-latchkey="+c.values[0], "__Host-latchkey="+c.values[1])
		r.expect("in two headers: "+c.what, r.get("/guarded", inTwoHeaders), c.guard)
	}
	r.expect("log out", r.logout(header("Cookie", "__Host-latchkey="+anns+"; __Host-latchkey="+bobs)), r.loggedOut())
	r.expectValid("Ann", ann, []string{anns})
	r.expectValid("Bob", bob, []string{bobs})
}

func sameCookieTwice(t *testing.T, env environment) {
	r := env.rig(t)
	user, token := r.loggedIn()
	both := header("Cookie", "__Host-latchkey="+token+"; __Host-latchkey="+token)
	r.expect("guard", r.get("/guarded", both), welcome(user))
}

func emptyCookie(t *testing.T, env environment) {
	r := env.rig(t)
	r.expect("guard", r.get("/guarded", r.withToken("")), r.unauthorized(noToken))
	want := r.unauthorized(noToken)
	want.SetCookie = r.cleared
	r.expect("log out", r.logout(r.withToken("")), want)
}

func headerNotTaken(t *testing.T, env environment) {
	r := env.rig(t)
	user, token := r.loggedIn()
	r.expect("guard", r.get("/guarded", bearer.withToken(token)), r.unauthorized(noToken))
	r.expect("log out", r.logout(bearer.withToken(token)), r.unauthorized(noToken))
	r.expect("two headers", r.get("/guarded", r.withToken(token), authorization("Bearer a", "Bearer b")), welcome(user))
	r.expect("use the token afterwards", r.get("/guarded", r.withToken(token)), welcome(user))
}

func clearedAsSet(t *testing.T, env environment) {
	r := env.rig(t, withTransports(ginauth.Cookie{Name: "app", Path: "/api", Domain: "example.com", InsecureHTTP: true, SameSite: http.SameSiteStrictMode}))
	user := r.user(active)
	const attributes = "; HttpOnly; SameSite=Strict"
	got := r.tryLogin(user)
	token := between(got.SetCookie, "app=", ";")
	r.keepSecret(token)
	want := noContent()
	want.SetCookie = "app=" + token + "; Path=/api; Domain=example.com; Max-Age=3600" + attributes
	r.expect("log in", got, want)
	var gone []string // also in the scopes of the defaults: the settings may have changed
	for _, scope := range []string{"Path=/api; Domain=example.com", "Path=/; Domain=example.com", "Path=/api", "Path=/"} {
		gone = append(gone, "app=; "+scope+"; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0"+attributes)
	}
	want.SetCookie = strings.Join(gone, "\n")
	r.expect("log out", r.logout(header("Cookie", "app="+token)), want)
}

var orderRows = section{"order", []row{
	{"the first that yields a user wins", firstUserWins},
	{"a bad credential gives way to a good one", validTokenBesideInvalid},
	{"where none yields a user, the gravest reason is told", mostSevereReason},
	{"a failing database is not passed over", databaseFailureIsNotSkipped},
	{"the login is answered by the first", firstAnswersLogin},
	{"log-out destroys the token that authenticated", logoutEndsAuthenticatingToken},
	{"log-out with a bearer token leaves the cookie alone", logoutByBearer},
	{"log-out clears a cookie that is no good", logoutClearsBadCookie},
}}

var (
	bearerFirst = withTransports(ginauth.Bearer{}, ginauth.Cookie{})
	cookieFirst = withTransports(ginauth.Cookie{}, ginauth.Bearer{})
)

// twoUsers logs two users in and returns them, each with their token.
func (r *rig) twoUsers() (ann Member, annToken string, bob Member, bobToken string) {
	r.t.Helper()
	ann, annToken = r.loggedIn()
	bob, bobToken = r.loggedIn()
	return ann, annToken, bob, bobToken
}

func firstUserWins(t *testing.T, env environment) {
	r := env.rig(t, bearerFirst)
	ann, annToken, bob, bobToken := r.twoUsers()
	r.expect("bearer first", r.get("/guarded", bearer.withToken(annToken), cookie.withToken(bobToken)), welcome(ann))
	r.expect("bearer alone", r.get("/guarded", bearer.withToken(annToken)), welcome(ann))
	r.expect("cookie alone", r.get("/guarded", cookie.withToken(bobToken)), welcome(bob))

	env.protocol = cookie
	r = env.rig(t, cookieFirst)
	ann, annToken, bob, bobToken = r.twoUsers()
	r.expect("cookie first", r.get("/guarded", bearer.withToken(annToken), cookie.withToken(bobToken)), welcome(bob))
	r.expect("bearer alone", r.get("/guarded", bearer.withToken(annToken)), welcome(ann))
}

func validTokenBesideInvalid(t *testing.T, env environment) {
	r := env.rig(t, bearerFirst)
	user, token := r.loggedIn()
	for _, header := range [][]string{{"Bearer malformed"}, {"Bearer " + r.unknownToken()}, {"Bearer"}, {"Basic x"}, {"Bearer a", "Bearer b"}} {
		what := strings.Join(header, " and ")
		r.expect(what, r.get("/guarded", authorization(header...), cookie.withToken(token)), welcome(user))
		r.expect(what+", optional", r.get("/optional", authorization(header...), cookie.withToken(token)), welcome(user))
	}
	env.protocol = cookie
	r = env.rig(t, cookieFirst)
	user, token = r.loggedIn()
	for _, value := range []string{"", "malformed", r.unknownToken(), "x; __Host-latchkey=y"} {
		r.expect("cookie "+value, r.get("/guarded", bearer.withToken(token), cookie.withToken(value)), welcome(user))
	}
}

func mostSevereReason(t *testing.T, env environment) {
	for _, order := range []func(*settings){bearerFirst, cookieFirst} {
		r := env.rig(t, order)
		r.expect("nothing", r.get("/guarded"), r.unauthorized(noToken))
		r.expect("a bad cookie", r.get("/guarded", cookie.withToken("x")), r.unauthorized("invalid_token"))
		r.expect("a bad header", r.get("/guarded", bearer.withToken("x")), r.unauthorized("invalid_token"))
		r.expect("a bad cookie and another scheme", r.get("/guarded", cookie.withToken("x"), authorization("Basic x")), r.unauthorized("invalid_token"))
		r.expect("both bad", r.get("/guarded", bearer.withToken("x"), cookie.withToken("x")), r.unauthorized("invalid_token"))
		r.expect("an unreadable header and a bad cookie", r.get("/guarded", authorization("Bearer"), cookie.withToken("x")), r.badRequest())
	}
}

func databaseFailureIsNotSkipped(t *testing.T, env environment) {
	r := env.rig(t, bearerFirst)
	_, token := r.loggedIn()
	for _, failure := range failures {
		r.db.fail(findToken, failure.err)
		r.expect("both", r.get("/guarded", bearer.withToken(r.unknownToken()), cookie.withToken("malformed")), unavailable())
		r.expect("a malformed header and a good cookie", r.get("/guarded", bearer.withToken("malformed"), cookie.withToken(token)), unavailable())
		r.db.repair()
	}
}

func firstAnswersLogin(t *testing.T, env environment) {
	env.rig(t, bearerFirst).loggedIn() // checks the answer
	env.protocol = cookie
	env.rig(t, cookieFirst).loggedIn()
}

func logoutEndsAuthenticatingToken(t *testing.T, env environment) {
	r := env.rig(t, bearerFirst)
	_, annToken, bob, bobToken := r.twoUsers()
	r.expect("log out with both", r.logout(bearer.withToken(annToken), cookie.withToken(bobToken)), bearer.loggedOut())
	r.expect("the first is gone", r.get("/guarded", bearer.withToken(annToken)), r.unauthorized("invalid_token"))
	r.expect("the second is not", r.get("/guarded", cookie.withToken(bobToken)), welcome(bob))
	r.expect("log out with a dead one and a good one", r.logout(bearer.withToken(annToken), cookie.withToken(bobToken)), cookie.loggedOut())
	r.expect("the second is gone too", r.get("/guarded", cookie.withToken(bobToken)), r.unauthorized("invalid_token"))
}

func logoutByBearer(t *testing.T, env environment) {
	env.protocol = cookie
	r := env.rig(t, cookieFirst)
	_, token := r.loggedIn()
	r.expect("log out", r.logout(bearer.withToken(token)), bearer.loggedOut())
	r.expect("use the token afterwards", r.get("/guarded", cookie.withToken(token)), bearer.unauthorized("invalid_token"))
}

func logoutClearsBadCookie(t *testing.T, env environment) {
	r := env.rig(t, bearerFirst)
	want := r.unauthorized("invalid_token")
	want.SetCookie = cookie.cleared
	for _, bad := range badTokens {
		token := bad.make(r)
		r.expect(bad.name, r.logout(cookie.withToken(token)), want)
		r.expect(bad.name+", in the header too", r.logout(bearer.withToken(token), cookie.withToken(token)), want)
	}
	r.expect("no cookie", r.logout(bearer.withToken("malformed")), r.unauthorized("invalid_token"))
}
