package contract

import (
	"net/http"
	"testing"
	"time"
)

var freshRows = rows{"fresh", []row{
	{"a login is fresh for as long as the route says", freshnessIsExact},
	{"a guard without it does not care", onlyFreshAsks},
	{"no or bad credentials", freshWithoutCredentials},
	{"optional guard", optionalFresh},
}}

func freshnessIsExact(t *testing.T, w world) {
	a := w.app(t)
	user, token := a.loggedIn()
	a.expect("at once", a.get("/fresh", a.carry(token)), welcome(user))
	a.clock.advance(maxAge - time.Millisecond)
	a.expect("a millisecond before", a.get("/fresh", a.carry(token)), welcome(user))
	a.clock.advance(time.Millisecond)
	a.expect("at its age", a.get("/fresh", a.carry(token)), welcome(user))
	a.clock.advance(time.Millisecond)
	a.expect("a millisecond later", a.get("/fresh", a.carry(token)), a.stale(600))
}

func onlyFreshAsks(t *testing.T, w world) {
	a := w.app(t)
	user, token := a.loggedIn()
	a.clock.advance(maxAge + time.Millisecond)
	for _, path := range []string{"/guarded", "/deploy", "/any"} {
		a.expect(path, a.get(path, a.carry(token)), welcome(user))
	}
	a.expect("another login is fresh", a.get("/fresh", a.carry(a.login(user))), welcome(user))
	a.expect("this one still is not", a.get("/fresh", a.carry(token)), a.stale(600))
}

func freshWithoutCredentials(t *testing.T, w world) {
	a := w.app(t)
	a.expect("none", a.get("/fresh"), a.unauthorized(noToken))
	a.expect("malformed", a.get("/fresh", a.carry("malformed")), a.unauthorized("invalid_token"))
	a.expect("unknown", a.get("/fresh", a.carry(a.unknownToken())), a.unauthorized("invalid_token"))
}

func optionalFresh(t *testing.T, w world) {
	a := w.app(t)
	user, token := a.loggedIn()
	a.expect("fresh", a.get("/optional/fresh", a.carry(token)), welcome(user))
	a.clock.advance(maxAge + time.Millisecond)
	a.expect("stale", a.get("/optional/fresh", a.carry(token)), visitor())
}

var reauthenticateRows = rows{"reauthenticate", []row{
	{"a new token for the same session, and it is fresh again", reauthenticate},
	{"the body is urlencoded, multipart or JSON", reauthenticateEncodings},
	{"a brief session stays one", reauthenticateBriefly},
	{"at the last moment", reauthenticateAtTheLastMoment},
	{"where tokens never expire", reauthenticateWithoutExpiry},
	{"wrong password", reauthenticateWrongly},
	{"missing password and other bodies that are none", reauthenticateBadBody},
	{"the rotation was not acknowledged", reauthenticateNotAcknowledged},
	{"the second time with the old token", reauthenticateTwice},
}}

// reauthenticated gives the password again and returns the new token, which has
// so much of its lifetime left.
func (a *app) reauthenticated(token string, left time.Duration) string {
	a.t.Helper()
	got := a.post("/auth/reauthenticate", asForm("password", password), a.carry(token))
	next := a.delivered(a.t, got, left)
	a.hide(next)
	return next
}

func reauthenticate(t *testing.T, w world) {
	a := w.app(t)
	user, old := a.loggedIn()
	before := a.current(old)
	const later = maxAge + time.Minute
	a.clock.advance(later)
	a.expect("stale", a.get("/fresh", a.carry(old)), a.stale(600))
	token := a.reauthenticated(old, lifetime-later)
	if token == old {
		t.Errorf("got the token %q again, want another", token)
	}
	a.expect("the old token", a.get("/guarded", a.carry(old)), a.unauthorized("invalid_token"))
	a.expect("fresh again", a.get("/fresh", a.carry(token)), welcome(user))
	a.expectSessions(user, 1)

	after := a.current(token)
	if after.ID != before.ID || !after.CreatedAt.Equal(before.CreatedAt) || !after.ExpiresAt.Equal(*before.ExpiresAt) || after.UserAgent != before.UserAgent {
		t.Errorf("got %+v, want the session %+v", after, before)
	}
	if !after.AuthenticatedAt.Equal(a.clock.now()) {
		t.Errorf("got authenticated_at %v, want %v", after.AuthenticatedAt, a.clock.now())
	}
	a.clock.advance(maxAge)
	a.expect("fresh for as long as before", a.get("/fresh", a.carry(token)), welcome(user))
	a.clock.advance(time.Millisecond)
	a.expect("and no longer", a.get("/fresh", a.carry(token)), a.stale(600))
	a.expectEnd("the end is where it was", user, token, lifetime-later-maxAge-time.Millisecond)
}

func reauthenticateEncodings(t *testing.T, w world) {
	a := w.app(t)
	_, token := a.loggedIn()
	for _, enc := range encodings {
		token = a.delivered(t, a.post("/auth/reauthenticate", enc.of("password", password), a.carry(token)), lifetime)
		a.hide(token)
	}
}

func reauthenticateBriefly(t *testing.T, w world) {
	a := w.app(t, remembers)
	user, token := a.loggedIn()
	a.clock.advance(time.Minute)
	token = a.deliveredBriefly(t, a.post("/auth/reauthenticate", asForm("password", password), a.carry(token)), brief-time.Minute)
	a.hide(token)
	a.expectEnd("not remembered", user, token, brief-time.Minute)

	token = a.delivered(t, a.post("/auth/login", rememberMe(user, "true", "true")["JSON true"]), lifetime)
	a.hide(token)
	a.clock.advance(time.Minute)
	a.expectEnd("remembered", user, a.reauthenticated(token, lifetime-time.Minute), lifetime-time.Minute)
}

// reauthenticateAtTheLastMoment: nothing may say that the token lives for ever,
// or longer than it does but for a cookie's second.
func reauthenticateAtTheLastMoment(t *testing.T, w world) {
	for _, left := range []time.Duration{0, time.Millisecond, 999 * time.Millisecond} {
		a := w.app(t)
		user, token := a.loggedIn()
		a.clock.advance(lifetime - left)
		got := a.post("/auth/reauthenticate", asForm("password", password), a.carry(token))
		switch a.transport {
		case bearer.transport:
			token = between(got.Body, `"access_token":"`, `"`)
			want := answer{Code: http.StatusOK, ContentType: inJSON, Body: `{"access_token":"` + token + `","expires_in":0,"token_type":"bearer"}`}
			a.expect(left.String(), got, want)
		default:
			token = a.delivered(t, got, time.Second)
		}
		a.hide(token)
		a.expectEnd(left.String(), user, token, left)
	}
}

func reauthenticateWithoutExpiry(t *testing.T, w world) {
	a := w.app(t, neverExpires)
	user, token := a.loggedIn()
	a.clock.advance(24 * 365 * time.Hour)
	a.expect("use the token", a.get("/fresh", a.carry(a.reauthenticated(token, 0))), welcome(user))
}

func reauthenticateWrongly(t *testing.T, w world) {
	a := w.app(t)
	user, token := a.loggedIn()
	a.clock.advance(maxAge + time.Millisecond)
	for _, wrong := range []string{wrongPassword, password + " ", " ", string(make([]byte, 2000))} {
		got := a.post("/auth/reauthenticate", asForm("password", wrong), a.carry(token))
		a.expect("wrong password", got, badCredentials())
	}
	a.expect("the token still works", a.get("/guarded", a.carry(token)), welcome(user))
	a.expect("and is not fresh", a.get("/fresh", a.carry(token)), a.stale(600))
}

func reauthenticateBadBody(t *testing.T, w world) {
	a := w.app(t)
	user, token := a.loggedIn()
	post := func(b body) reply { return a.post("/auth/reauthenticate", b, a.carry(token)) }
	for _, enc := range encodings {
		a.expectInvalid(enc.name+": none", post(enc.of("username", user.Email)), missing, "body.password")
		a.expectInvalid(enc.name+": empty", post(enc.of("password", "")), missing, "body.password")
		a.expectInvalid(enc.name+": twice", post(enc.of("password", password, "password", password)), anyType, "body.password")
	}
	for _, value := range []string{`{"$ne": null}`, `1`, `["x"]`, `null`, `true`} {
		a.expectInvalid("JSON "+value, post(rawJSON(`{"password": `+value+`}`)), anyType, "body.password")
	}
	a.expect("no body", post(nothing), refused(http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE"))
	large := filledUp(asJSON("password", password), "", maxBody+1)
	a.expect("large", post(large), refused(http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE"))
	inURL := a.post("/auth/reauthenticate?password="+password, asForm(), a.carry(token))
	a.expectInvalid("in the URL", inURL, missing, "body.password")
	a.expect("the token still works", a.get("/guarded", a.carry(token)), welcome(user))
}

func reauthenticateNotAcknowledged(t *testing.T, w world) {
	a := w.app(t)
	user, token := a.loggedIn()
	for _, failure := range failures {
		a.db.fail(rotateToken, failure.err)
		got := a.post("/auth/reauthenticate", asForm("password", password), a.carry(token))
		a.expect(failure.name, got, unavailable())
		got = a.post("/auth/reauthenticate", asForm("password", wrongPassword), a.carry(token))
		a.expect(failure.name+", wrong password", got, badCredentials())
		a.db.mend()
		a.expect("the token still works", a.get("/guarded", a.carry(token)), welcome(user))
	}
	a.reauthenticated(token, lifetime)
}

func reauthenticateTwice(t *testing.T, w world) {
	a := w.app(t)
	user, old := a.loggedIn()
	token := a.reauthenticated(old, lifetime)
	got := a.post("/auth/reauthenticate", asForm("password", password), a.carry(old))
	a.expect("again", got, a.unauthorized("invalid_token"))
	a.expect("the new token still works", a.get("/guarded", a.carry(token)), welcome(user))
	a.expect("log out with the new one", a.logout(a.carry(token)), a.loggedOut())
	a.expectSessions(user, 0)
}
