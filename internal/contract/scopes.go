package contract

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/strategy"
)

var scopeRows = rows{"scopes", []row{
	{"a token that has them, and a login", scopesCover},
	{"a token that lacks one", scopesDoNotCover},
	{"a guard that does not ask for scopes takes no token with scopes", scopesWantARoute},
	{"a guard that takes any", anyScope},
	{"a token with scopes cannot reach session management", scopedCannotManage},
	{"a token with scopes is never fresh", scopedIsNeverFresh},
	{"a token with scopes can log out", scopedLogout},
	{"a token with scopes has its own lifetime", scopedLifetime},
	{"optional guard", optionalScopes},
	{"bad tokens", badScopedTokens},
}}

// scopedToken issues a token as an application does.
func (a *app) scopedToken(user Member, opts ...strategy.TokenOption) string {
	a.t.Helper()
	token, _ := a.issue(user, opts...)
	return token
}

func (a *app) issue(user Member, opts ...strategy.TokenOption) (token string, id uuid.UUID) {
	a.t.Helper()
	secret, session, err := a.tokens.WriteToken(a.t.Context(), user, opts...)
	if err != nil {
		a.t.Fatalf("issue a token: %v", err)
	}
	a.hide(secret.Reveal())
	return secret.Reveal(), session.ID
}

// scoped is a token with scopes and its session's ID, and a login of its user.
type scoped struct {
	token string
	id    uuid.UUID
	login string
}

func (a *app) scoped(user Member, opts ...strategy.TokenOption) scoped {
	a.t.Helper()
	token, id := a.issue(user, opts...)
	return scoped{token, id, a.login(user)}
}

func scopesCover(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	one := a.scoped(user, strategy.WithScopes("deploy:write"))
	two := a.scopedToken(user, strategy.WithScopes("tag:write", "x", "deploy:write"))
	for what, token := range map[string]string{"one": one.token, "two": two, "login": one.login} {
		a.expect(what, a.get("/deploy", a.carry(token)), welcome(user))
	}
	a.expect("two at a route that asks for both", a.get("/release", a.carry(two)), welcome(user))
	a.expect("login at a route that asks for both", a.get("/release", a.carry(one.login)), welcome(user))
}

func scopesDoNotCover(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(flags{active: true, verified: true, superuser: true})
	for _, scope := range []string{"deploy:read", "deploy", "deploy:write:more", "DEPLOY:WRITE", "*", "deploy:*"} {
		token := a.scopedToken(user, strategy.WithScopes(scope))
		a.expect(scope, a.get("/deploy", a.carry(token)), a.insufficientScope("deploy:write"))
	}
	one := a.scopedToken(user, strategy.WithScopes("deploy:write"))
	a.expect("one of two", a.get("/release", a.carry(one)), a.insufficientScope("deploy:write tag:write"))
}

func scopesWantARoute(t *testing.T, w world) {
	a := w.app(t)
	token := a.scopedToken(a.user(flags{active: true, verified: true, superuser: true}), strategy.WithScopes("deploy:write"))
	for _, path := range []string{"/guarded", "/verified", "/superuser", "/checked", "/fresh", "/nested/deeper/still"} {
		a.expect(path, a.get(path, a.carry(token)), a.insufficientScope(""))
	}
}

func anyScope(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	token := a.scoped(user, strategy.WithScopes("anything"))
	a.expect("scoped", a.get("/any", a.carry(token.token)), welcome(user))
	a.expect("login", a.get("/any", a.carry(token.login)), welcome(user))
	a.expect("nobody", a.get("/any"), a.unauthorized(noToken))
}

func scopedCannotManage(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(flags{active: true, verified: true, superuser: true})
	token := a.scoped(user, strategy.WithScopes("deploy:write", "sessions", "introspect"))
	for what, request := range managed {
		a.expect(what, request(a, a.carry(token.token)), a.insufficientScope(""))
	}
	a.expect("end its own session", a.delete("/auth/sessions/"+token.id.String(), a.carry(token.token)), a.insufficientScope(""))
	a.expect("change the password", a.post("/password", asForm("current", password, "new", newPassword), a.carry(token.token)), a.insufficientScope(""))
	a.expect("the login lives", a.get("/guarded", a.carry(token.login)), welcome(user))
	a.expect("the token lives", a.get("/deploy", a.carry(token.token)), welcome(user))
}

func scopedIsNeverFresh(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	token := a.scoped(user, strategy.WithScopes("deploy:write"))
	a.expect("scoped", a.get("/deploy/fresh", a.carry(token.token)), a.stale(600))
	a.expect("login", a.get("/deploy/fresh", a.carry(token.login)), welcome(user))
}

func scopedLogout(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	token := a.scoped(user, strategy.WithScopes("deploy:write"))
	a.expect("log out", a.logout(a.carry(token.token)), a.loggedOut())
	a.expect("use the token afterwards", a.get("/deploy", a.carry(token.token)), a.unauthorized("invalid_token"))
	a.expect("the login lives", a.get("/guarded", a.carry(token.login)), welcome(user))
}

func scopedLifetime(t *testing.T, w world) {
	a := w.app(t, idle)
	user := a.user(active)
	const short = 30 * time.Minute
	if short <= idleTimeout {
		t.Fatal("the idle timeout is too long to tell")
	}
	token := a.scopedToken(user, strategy.WithScopes("deploy:write"), strategy.WithLifetime(short))
	a.clock.advance(short)
	a.expect("at its end, never used", a.get("/deploy", a.carry(token)), welcome(user))
	a.clock.advance(time.Millisecond)
	a.expect("a millisecond later", a.get("/deploy", a.carry(token)), a.unauthorized("invalid_token"))
}

func optionalScopes(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	token := a.scopedToken(user, strategy.WithScopes("deploy:write"))
	other := a.scopedToken(user, strategy.WithScopes("deploy:read"))
	a.expect("covered", a.get("/optional/deploy", a.carry(token)), welcome(user))
	a.expect("not covered", a.get("/optional/deploy", a.carry(other)), visitor())
	a.expect("not asked for", a.get("/optional", a.carry(token)), visitor())
}

func badScopedTokens(t *testing.T, w world) {
	a := w.app(t)
	a.expect("nobody", a.get("/deploy"), a.unauthorized(noToken))
	a.expect("malformed", a.get("/deploy", a.carry("malformed")), a.unauthorized("invalid_token"))
	a.expect("unknown", a.get("/deploy", a.carry(a.unknownToken())), a.unauthorized("invalid_token"))
	user := a.user(active)
	token := a.scopedToken(user, strategy.WithScopes("deploy:write"))
	a.setFlags(user, flags{})
	a.expect("its user is inactive", a.get("/deploy", a.carry(token)), a.unauthorized("invalid_token"))
}
