package contract

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/strategy"
)

var introspectRows = rows{"introspect", []row{
	{"a live token", introspectLive},
	{"a token that is no good", introspectDead},
	{"only for those who pass the check", introspectWantsCheck},
	{"a body that is none", introspectBadBody},
	{"the database fails or times out", introspectWithoutDatabase},
}}

// gateway logs a superuser in, who may introspect, and returns how they do.
func (a *app) gateway() func(token string) reply {
	a.t.Helper()
	own := a.login(a.user(flags{active: true, superuser: true}))
	return func(token string) reply {
		a.t.Helper()
		return a.post("/auth/introspect", asForm("token", token), a.carry(own))
	}
}

func introspectLive(t *testing.T, w world) {
	a := w.app(t)
	introspect := a.gateway()
	user := a.user(active)
	iat := a.clock.now().Unix()
	token := a.scoped(user, strategy.WithScopes("deploy:write", "tag:write"), strategy.WithLifetime(time.Minute))
	a.clock.advance(time.Minute)
	live := func(exp time.Duration, scope string) answer {
		return answer{Code: http.StatusOK, ContentType: inJSON,
			Body: fmt.Sprintf(`{"active":true,"exp":%d,"iat":%d,%s"sub":%q}`, iat+int64(exp.Seconds()), iat, scope, user.ID)}
	}
	a.expect("login", introspect(token.login), live(lifetime, ""))
	a.expect("token with scopes", introspect(token.token), live(time.Minute, `"scope":"deploy:write tag:write",`))
	a.clock.advance(time.Millisecond)
	a.expect("token with scopes, a millisecond later", introspect(token.token), inactive())

	own := a.login(a.user(flags{active: true, superuser: true}))
	for _, enc := range encodings {
		got := a.post("/auth/introspect", enc.of("token", token.login, "token_type_hint", "access_token"), a.carry(own))
		a.expect(enc.name, got, live(lifetime, ""))
	}

	a = w.app(t, neverExpires)
	user, forever := a.loggedIn()
	a.expect("without expiry", a.gateway()(forever), answer{Code: http.StatusOK, ContentType: inJSON,
		Body: fmt.Sprintf(`{"active":true,"iat":%d,"sub":%q}`, a.clock.now().Unix(), user.ID)})
}

func introspectDead(t *testing.T, w world) {
	a := w.app(t)
	replies := make(map[string]reply)
	for _, bad := range badTokens {
		token := bad.make(a)
		replies[bad.name] = a.gateway()(token)
		a.expect(bad.name, replies[bad.name], inactive())
	}
	introspect := a.gateway()
	for _, token := range []string{" ", "Bearer x", "\x00", "{}"} {
		replies[token] = introspect(token)
		a.expect(token, replies[token], inactive())
	}
	a.expectAlike(replies)
}

func introspectWantsCheck(t *testing.T, w world) {
	a := w.app(t)
	_, token := a.loggedIn()
	body := asForm("token", token)
	a.expect("nobody", a.post("/auth/introspect", body), a.unauthorized(noToken))
	a.expect("a bad token", a.post("/auth/introspect", body, a.carry("x")), a.unauthorized("invalid_token"))
	a.expect("no superuser", a.post("/auth/introspect", body, a.carry(token)), forbidden())
}

func introspectBadBody(t *testing.T, w world) {
	a := w.app(t)
	own := a.login(a.user(flags{active: true, superuser: true}))
	post := func(b body) reply { return a.post("/auth/introspect", b, a.carry(own)) }
	for _, enc := range encodings {
		a.expectInvalid(enc.name+": none", post(enc.of("access_token", own)), missing, "body.token")
		a.expectInvalid(enc.name+": empty", post(enc.of("token", "")), missing, "body.token")
		a.expectInvalid(enc.name+": twice", post(enc.of("token", own, "token", own)), anyType, "body.token")
	}
	a.expectInvalid("an operator", post(rawJSON(`{"token": {"$ne": null}}`)), anyType, "body.token")
	a.expectInvalid("in the URL", a.post("/auth/introspect?token="+own, asForm(), a.carry(own)), missing, "body.token")
	a.expect("no body", post(nothing), refused(http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE"))
}

// introspectWithoutDatabase: a database that fails for the token that is asked
// about, and not for the one that asks, says nothing about it either.
func introspectWithoutDatabase(t *testing.T, w world) {
	a := w.app(t)
	introspect := a.gateway()
	_, token := a.loggedIn()
	for _, failure := range failures {
		for _, what := range []call{findToken, findUser} {
			a.db.failAfter(1, what, failure.err)
			a.expect(string(what), introspect(token), unavailable())
			a.db.mend()
		}
	}
}
