package contract

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/strategy"
)

var introspectRows = section{"introspect", []row{
	{"valid token", introspectValid},
	{"all invalid tokens get the same answer", introspectInvalid},
	{"the caller must pass the check", introspectRequiresCheck},
	{"malformed body", introspectBadBody},
	{"the database fails or times out", introspectWithoutDatabase},
}}

// introspector logs a superuser in and returns a function that introspects a token as that user.
func (r *rig) introspector() func(token string) reply {
	r.t.Helper()
	own := r.login(r.user(flags{active: true, superuser: true}))
	return func(token string) reply {
		r.t.Helper()
		return r.post("/auth/introspect", asForm("token", token), r.withToken(own))
	}
}

func introspectValid(t *testing.T, env environment) {
	r := env.rig(t)
	introspect := r.introspector()
	user := r.user(active)
	iat := r.clock.now().Unix()
	token := r.scoped(user, strategy.WithScopes("deploy:write", "tag:write"), strategy.WithLifetime(time.Minute))
	r.clock.advance(time.Minute)
	valid := func(exp time.Duration, scope string) answer {
		return answer{Code: http.StatusOK, ContentType: inJSON,
			Body: fmt.Sprintf(`{"active":true,"exp":%d,"iat":%d,%s"sub":%q}`, iat+int64(exp.Seconds()), iat, scope, user.ID)}
	}
	r.expect("login", introspect(token.login), valid(lifetime, ""))
	r.expect("scoped token", introspect(token.token), valid(time.Minute, `"scope":"deploy:write tag:write",`))
	r.clock.advance(time.Millisecond)
	r.expect("scoped token, a millisecond later", introspect(token.token), inactiveToken())

	own := r.login(r.user(flags{active: true, superuser: true}))
	for _, enc := range encodings {
		got := r.post("/auth/introspect", enc.of("token", token.login, "token_type_hint", "access_token"), r.withToken(own))
		r.expect(enc.name, got, valid(lifetime, ""))
	}

	r = env.rig(t, neverExpires)
	user, forever := r.loggedIn()
	r.expect("without expiry", r.introspector()(forever), answer{Code: http.StatusOK, ContentType: inJSON,
		Body: fmt.Sprintf(`{"active":true,"iat":%d,"sub":%q}`, r.clock.now().Unix(), user.ID)})
}

func introspectInvalid(t *testing.T, env environment) {
	r := env.rig(t)
	replies := make(map[string]reply)
	for _, bad := range badTokens {
		token := bad.make(r)
		replies[bad.name] = r.introspector()(token)
		r.expect(bad.name, replies[bad.name], inactiveToken())
	}
	introspect := r.introspector()
	for _, token := range []string{" ", "Bearer x", "\x00", "{}"} {
		replies[token] = introspect(token)
		r.expect(token, replies[token], inactiveToken())
	}
	r.expectAlike(replies)
}

func introspectRequiresCheck(t *testing.T, env environment) {
	r := env.rig(t)
	_, token := r.loggedIn()
	body := asForm("token", token)
	r.expect("no credentials", r.post("/auth/introspect", body), r.unauthorized(noToken))
	r.expect("invalid token", r.post("/auth/introspect", body, r.withToken("x")), r.unauthorized("invalid_token"))
	r.expect("not a superuser", r.post("/auth/introspect", body, r.withToken(token)), forbidden())
}

func introspectBadBody(t *testing.T, env environment) {
	r := env.rig(t)
	own := r.login(r.user(flags{active: true, superuser: true}))
	post := func(b body) reply { return r.post("/auth/introspect", b, r.withToken(own)) }
	for _, enc := range encodings {
		r.expectInvalid(enc.name+": missing", post(enc.of("access_token", own)), missing, "body.token")
		r.expectInvalid(enc.name+": empty", post(enc.of("token", "")), missing, "body.token")
		r.expectInvalid(enc.name+": duplicate", post(enc.of("token", own, "token", own)), anyType, "body.token")
	}
	r.expectInvalid("an operator", post(rawJSON(`{"token": {"$ne": null}}`)), anyType, "body.token")
	r.expectInvalid("in the URL", r.post("/auth/introspect?token="+own, asForm(), r.withToken(own)), missing, "body.token")
	r.expect("no body", post(nothing), unsupported())
}

// introspectWithoutDatabase checks a database that fails for the introspected token, after it
// has read the caller's token.
func introspectWithoutDatabase(t *testing.T, env environment) {
	r := env.rig(t)
	introspect := r.introspector()
	_, token := r.loggedIn()
	for _, failure := range failures {
		for _, what := range []call{findToken, findUser} {
			r.db.failAfter(1, what, failure.err)
			r.expect(string(what), introspect(token), unavailable())
			r.db.repair()
		}
	}
}
