package contract

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/strategy"
)

var scopeRows = section{"scopes", []row{
	{"a token with the route's scopes and a login are accepted", scopesCover},
	{"a token that lacks a scope is refused", scopesDoNotCover},
	{"a guard without Scopes refuses every scoped token", guardWithoutScopes},
	{"a guard with Scopes() accepts every scoped token", anyScope},
	{"a scoped token cannot manage sessions", scopedTokenCannotManage},
	{"a scoped token is never fresh", scopedIsNeverFresh},
	{"a scoped token can log out", scopedLogout},
	{"a scoped token has its own lifetime", scopedLifetime},
	{"optional guard", optionalScopes},
	{"no credentials, an invalid token, an inactive user", invalidScopedTokens},
}}

// scopedToken issues a token as an application would.
func (r *rig) scopedToken(user Member, opts ...strategy.TokenOption) string {
	r.t.Helper()
	token, _ := r.issue(user, opts...)
	return token
}

func (r *rig) issue(user Member, opts ...strategy.TokenOption) (token string, id uuid.UUID) {
	r.t.Helper()
	secret, session, err := r.sessions.WriteToken(r.t.Context(), user, opts...)
	if err != nil {
		r.t.Fatalf("issue a token: %v", err)
	}
	r.keepSecret(secret.Reveal())
	return secret.Reveal(), session.ID
}

// scoped is a scoped token with its session's ID, and the token of a login of the same user.
type scoped struct {
	token string
	id    uuid.UUID
	login string
}

func (r *rig) scoped(user Member, opts ...strategy.TokenOption) scoped {
	r.t.Helper()
	token, id := r.issue(user, opts...)
	return scoped{token, id, r.login(user)}
}

func scopesCover(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	one := r.scoped(user, strategy.WithScopes("deploy:write"))
	two := r.scopedToken(user, strategy.WithScopes("tag:write", "x", "deploy:write"))
	for what, token := range map[string]string{"one scope": one.token, "three scopes": two, "login": one.login} {
		r.expect(what, r.get("/deploy", r.withToken(token)), welcome(user))
	}
	r.expect("two scopes at a route with two", r.get("/release", r.withToken(two)), welcome(user))
	r.expect("login at a route with two", r.get("/release", r.withToken(one.login)), welcome(user))
}

func scopesDoNotCover(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(flags{active: true, verified: true, superuser: true})
	for _, scope := range []string{"deploy:read", "deploy", "deploy:write:more", "DEPLOY:WRITE", "*", "deploy:*"} {
		token := r.scopedToken(user, strategy.WithScopes(scope))
		r.expect(scope, r.get("/deploy", r.withToken(token)), r.insufficientScope("deploy:write"))
	}
	one := r.scopedToken(user, strategy.WithScopes("deploy:write"))
	r.expect("one of two", r.get("/release", r.withToken(one)), r.insufficientScope("deploy:write tag:write"))
}

func guardWithoutScopes(t *testing.T, env environment) {
	r := env.rig(t)
	token := r.scopedToken(r.user(flags{active: true, verified: true, superuser: true}), strategy.WithScopes("deploy:write"))
	for _, path := range []string{"/guarded", "/verified", "/superuser", "/checked", "/fresh", "/nested/deeper/still"} {
		r.expect(path, r.get(path, r.withToken(token)), r.insufficientScope(""))
	}
}

func anyScope(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	token := r.scoped(user, strategy.WithScopes("anything"))
	r.expect("scoped", r.get("/any", r.withToken(token.token)), welcome(user))
	r.expect("login", r.get("/any", r.withToken(token.login)), welcome(user))
	r.expect("no credentials", r.get("/any"), r.unauthorized(noToken))
}

func scopedTokenCannotManage(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(flags{active: true, verified: true, superuser: true})
	token := r.scoped(user, strategy.WithScopes("deploy:write", "sessions", "introspect"))
	for what, request := range managementRoutes {
		r.expect(what, request(r, r.withToken(token.token)), r.insufficientScope(""))
	}
	r.expect("end its own session", r.delete("/auth/sessions/"+token.id.String(), r.withToken(token.token)), r.insufficientScope(""))
	r.expect("change the password", r.tryChangePassword(r.withToken(token.token)), r.insufficientScope(""))
	r.expect("the login is still valid", r.get("/guarded", r.withToken(token.login)), welcome(user))
	r.expect("the scoped token is still valid", r.get("/deploy", r.withToken(token.token)), welcome(user))
}

func scopedIsNeverFresh(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	token := r.scoped(user, strategy.WithScopes("deploy:write"))
	r.expect("scoped", r.get("/deploy/fresh", r.withToken(token.token)), r.stale(600))
	r.expect("login", r.get("/deploy/fresh", r.withToken(token.login)), welcome(user))
}

func scopedLogout(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	token := r.scoped(user, strategy.WithScopes("deploy:write"))
	r.expect("log out", r.logout(r.withToken(token.token)), r.loggedOut())
	r.expect("use the token afterwards", r.get("/deploy", r.withToken(token.token)), r.unauthorized("invalid_token"))
	r.expect("the login is still valid", r.get("/guarded", r.withToken(token.login)), welcome(user))
}

func scopedLifetime(t *testing.T, env environment) {
	r := env.rig(t, withIdleTimeout)
	user := r.user(active)
	const short = 30 * time.Minute
	if short <= idleTimeout {
		t.Fatal("the idle timeout is too long for this check")
	}
	token := r.scopedToken(user, strategy.WithScopes("deploy:write"), strategy.WithLifetime(short))
	r.clock.advance(short)
	r.expect("unused, at its lifetime", r.get("/deploy", r.withToken(token)), welcome(user))
	r.clock.advance(time.Millisecond)
	r.expect("a millisecond later", r.get("/deploy", r.withToken(token)), r.unauthorized("invalid_token"))
}

func optionalScopes(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	token := r.scopedToken(user, strategy.WithScopes("deploy:write"))
	other := r.scopedToken(user, strategy.WithScopes("deploy:read"))
	r.expect("covered", r.get("/optional/deploy", r.withToken(token)), welcome(user))
	r.expect("not covered", r.get("/optional/deploy", r.withToken(other)), anonymous())
	r.expect("a guard without Scopes", r.get("/optional", r.withToken(token)), anonymous())
}

func invalidScopedTokens(t *testing.T, env environment) {
	r := env.rig(t)
	r.expect("no credentials", r.get("/deploy"), r.unauthorized(noToken))
	r.expect("malformed", r.get("/deploy", r.withToken("malformed")), r.unauthorized("invalid_token"))
	r.expect("unknown", r.get("/deploy", r.withToken(r.unknownToken())), r.unauthorized("invalid_token"))
	user := r.user(active)
	token := r.scopedToken(user, strategy.WithScopes("deploy:write"))
	r.setFlags(user, flags{})
	r.expect("inactive user", r.get("/deploy", r.withToken(token)), r.unauthorized("invalid_token"))
}
