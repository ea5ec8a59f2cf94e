package contract

import (
	"net/http"
	"testing"
	"time"
)

var freshRows = section{"fresh", []row{
	{"a login is fresh up to the route's maximum age, to the millisecond", freshUntilMaxAge},
	{"guards without Fresh accept an old login", otherGuardsIgnoreAge},
	{"no credentials or an invalid token", freshWithoutCredentials},
	{"optional guard", optionalFresh},
}}

func freshUntilMaxAge(t *testing.T, env environment) {
	r := env.rig(t)
	user, token := r.loggedIn()
	r.expect("at once", r.get("/fresh", r.withToken(token)), welcome(user))
	r.clock.advance(maxAge - time.Millisecond)
	r.expect("a millisecond before", r.get("/fresh", r.withToken(token)), welcome(user))
	r.clock.advance(time.Millisecond)
	r.expect("at the maximum age", r.get("/fresh", r.withToken(token)), welcome(user))
	r.clock.advance(time.Millisecond)
	r.expect("a millisecond later", r.get("/fresh", r.withToken(token)), r.stale(600))
}

func otherGuardsIgnoreAge(t *testing.T, env environment) {
	r := env.rig(t)
	user, token := r.loggedIn()
	r.clock.advance(maxAge + time.Millisecond)
	for _, path := range []string{"/guarded", "/deploy", "/any"} {
		r.expect(path, r.get(path, r.withToken(token)), welcome(user))
	}
	r.expect("a new login is fresh", r.get("/fresh", r.withToken(r.login(user))), welcome(user))
	r.expect("the old login is not", r.get("/fresh", r.withToken(token)), r.stale(600))
}

func freshWithoutCredentials(t *testing.T, env environment) {
	r := env.rig(t)
	r.expect("none", r.get("/fresh"), r.unauthorized(noToken))
	r.expect("malformed", r.get("/fresh", r.withToken("malformed")), r.unauthorized("invalid_token"))
	r.expect("unknown", r.get("/fresh", r.withToken(r.unknownToken())), r.unauthorized("invalid_token"))
}

func optionalFresh(t *testing.T, env environment) {
	r := env.rig(t)
	user, token := r.loggedIn()
	r.expect("fresh", r.get("/optional/fresh", r.withToken(token)), welcome(user))
	r.clock.advance(maxAge + time.Millisecond)
	r.expect("stale", r.get("/optional/fresh", r.withToken(token)), anonymous())
}

var reauthenticateRows = section{"reauthenticate", []row{
	{"the session gets a new token and is fresh again", reauthenticate},
	{"the body is urlencoded, multipart or JSON", reauthenticateEncodings},
	{"a brief session stays brief", reauthenticateBriefSession},
	{"success in the last second of the session", reauthenticateAtExpiry},
	{"success where tokens never expire", reauthenticateWithoutExpiry},
	{"wrong password", reauthenticateWrongPassword},
	{"missing password and malformed body", reauthenticateBadBody},
	{"the rotation was not acknowledged", reauthenticateNotAcknowledged},
	{"the old token is invalid", reauthenticateTwice},
}}

// reauthenticated reauthenticates a session and returns its new token, which must have this
// remaining lifetime.
func (r *rig) reauthenticated(token string, remaining time.Duration) string {
	r.t.Helper()
	return r.tokenIn(r.tryReauthenticate(password, r.withToken(token)), remaining)
}

func reauthenticate(t *testing.T, env environment) {
	r := env.rig(t)
	user, old := r.loggedIn()
	before := r.currentSession(old)
	const later = maxAge + time.Minute
	r.clock.advance(later)
	r.expect("stale", r.get("/fresh", r.withToken(old)), r.stale(600))
	token := r.reauthenticated(old, lifetime-later)
	if token == old {
		t.Errorf("got the old token %q, want a new one", token)
	}
	r.expect("the old token", r.get("/guarded", r.withToken(old)), r.unauthorized("invalid_token"))
	r.expect("fresh again", r.get("/fresh", r.withToken(token)), welcome(user))
	r.expectRows(user, 1)

	after := r.currentSession(token)
	if after.ID != before.ID || !after.CreatedAt.Equal(before.CreatedAt) || !after.ExpiresAt.Equal(*before.ExpiresAt) || after.UserAgent != before.UserAgent {
		t.Errorf("got %+v, want the session %+v", after, before)
	}
	if !after.AuthenticatedAt.Equal(r.clock.now()) {
		t.Errorf("got authenticated_at %v, want %v", after.AuthenticatedAt, r.clock.now())
	}
	r.clock.advance(maxAge)
	r.expect("at the maximum age", r.get("/fresh", r.withToken(token)), welcome(user))
	r.clock.advance(time.Millisecond)
	r.expect("a millisecond later", r.get("/fresh", r.withToken(token)), r.stale(600))
	r.expectExpiry("the expiry is unchanged", user, token, lifetime-later-maxAge-time.Millisecond)
}

func reauthenticateEncodings(t *testing.T, env environment) {
	r := env.rig(t)
	_, token := r.loggedIn()
	for _, enc := range encodings {
		token = r.tokenIn(r.post("/auth/reauthenticate", enc.of("password", password), r.withToken(token)), lifetime)
	}
}

func reauthenticateBriefSession(t *testing.T, env environment) {
	r := env.rig(t, withBriefLifetime)
	user, token := r.loggedIn()
	r.clock.advance(time.Minute)
	token = r.checkBriefLogin(t, r.tryReauthenticate(password, r.withToken(token)), brief-time.Minute)
	r.keepSecret(token)
	r.expectExpiry("not remembered", user, token, brief-time.Minute)

	token = r.tokenIn(r.post("/auth/login", rememberMe(user, "true", "true")["JSON true"]), lifetime)
	r.clock.advance(time.Minute)
	r.expectExpiry("remembered", user, r.reauthenticated(token, lifetime-time.Minute), lifetime-time.Minute)
}

// reauthenticateAtExpiry checks that the answer never promises an endless token, nor a longer
// lifetime than the token has, apart from the resolution of a cookie, which is a second.
func reauthenticateAtExpiry(t *testing.T, env environment) {
	for _, left := range []time.Duration{0, time.Millisecond, 999 * time.Millisecond} {
		r := env.rig(t)
		user, token := r.loggedIn()
		r.clock.advance(lifetime - left)
		got := r.tryReauthenticate(password, r.withToken(token))
		switch r.transport {
		case bearer.transport:
			token = between(got.Body, `"access_token":"`, `"`)
			want := answer{Code: http.StatusOK, ContentType: inJSON, Body: `{"access_token":"` + token + `","expires_in":0,"token_type":"bearer"}`}
			r.expect(left.String(), got, want)
		default:
			token = r.checkLogin(t, got, time.Second)
		}
		r.keepSecret(token)
		r.expectExpiry(left.String(), user, token, left)
	}
}

func reauthenticateWithoutExpiry(t *testing.T, env environment) {
	r := env.rig(t, neverExpires)
	user, token := r.loggedIn()
	r.clock.advance(24 * 365 * time.Hour)
	r.expect("use the token", r.get("/fresh", r.withToken(r.reauthenticated(token, 0))), welcome(user))
}

func reauthenticateWrongPassword(t *testing.T, env environment) {
	r := env.rig(t)
	user, token := r.loggedIn()
	r.clock.advance(maxAge + time.Millisecond)
	for _, wrong := range []string{wrongPassword, password + " ", " ", string(make([]byte, 2000))} {
		got := r.tryReauthenticate(wrong, r.withToken(token))
		r.expect("wrong password", got, badCredentials())
	}
	r.expect("the token is still valid", r.get("/guarded", r.withToken(token)), welcome(user))
	r.expect("the token is not fresh", r.get("/fresh", r.withToken(token)), r.stale(600))
}

func reauthenticateBadBody(t *testing.T, env environment) {
	r := env.rig(t)
	user, token := r.loggedIn()
	post := func(b body) reply { return r.post("/auth/reauthenticate", b, r.withToken(token)) }
	for _, enc := range encodings {
		r.expectInvalid(enc.name+": no password", post(enc.of("username", user.Email)), missing, "body.password")
		r.expectInvalid(enc.name+": empty", post(enc.of("password", "")), missing, "body.password")
		r.expectInvalid(enc.name+": duplicate", post(enc.of("password", password, "password", password)), anyType, "body.password")
	}
	for _, value := range []string{`{"$ne": null}`, `1`, `["x"]`, `null`, `true`} {
		r.expectInvalid("JSON "+value, post(rawJSON(`{"password": `+value+`}`)), anyType, "body.password")
	}
	r.expect("no body", post(nothing), unsupported())
	large := filledUp(asJSON("password", password), "", maxBody+1)
	r.expect("large", post(large), tooLarge())
	inURL := r.post("/auth/reauthenticate?password="+password, asForm(), r.withToken(token))
	r.expectInvalid("in the URL", inURL, missing, "body.password")
	r.expect("the token is still valid", r.get("/guarded", r.withToken(token)), welcome(user))
}

func reauthenticateNotAcknowledged(t *testing.T, env environment) {
	r := env.rig(t)
	user, token := r.loggedIn()
	for _, failure := range failures {
		r.db.fail(rotateToken, failure.err)
		got := r.tryReauthenticate(password, r.withToken(token))
		r.expect(failure.name, got, unavailable())
		got = r.tryReauthenticate(wrongPassword, r.withToken(token))
		r.expect(failure.name+", wrong password", got, badCredentials())
		r.db.repair()
		r.expect("the token is still valid", r.get("/guarded", r.withToken(token)), welcome(user))
	}
	r.reauthenticated(token, lifetime)
}

func reauthenticateTwice(t *testing.T, env environment) {
	r := env.rig(t)
	user, old := r.loggedIn()
	token := r.reauthenticated(old, lifetime)
	got := r.tryReauthenticate(password, r.withToken(old))
	r.expect("again", got, r.unauthorized("invalid_token"))
	r.expect("the new token is valid", r.get("/guarded", r.withToken(token)), welcome(user))
	r.expect("log out with the new token", r.logout(r.withToken(token)), r.loggedOut())
	r.expectRows(user, 0)
}
