package contract

import (
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/strategy"
)

var revocationRows = section{"revocation", []row{
	{"a change of the password ends every session", passwordChangeEndsSessions},
	{"a change of the password keeps the renewed session", passwordChangeKeepsRenewedSession},
	{"a failed renewal leaves no valid session", renewalFails},
	{"a failed clean-up after a renewal does not matter", renewalWithoutCleanUp},
	{"a login with the old password during the change is invalid", loginDuringPasswordChange},
	{"a reauthentication with the old password during the change is invalid", reauthenticationDuringPasswordChange},
	{"revoking a user's tokens ends every session", revokeTokens},
	{"a deactivated user's tokens stay invalid after activation", deactivationRevokesTokens},
	{"NotBefore rejects logins before it", configuredNotBefore},
}}

// changedPassword changes a user's password outside of HTTP.
func (r *rig) changedPassword(user Member) {
	r.t.Helper()
	changed, err := r.accounts.ChangePassword(r.t.Context(), user.ID, password, newPassword)
	if err != nil {
		r.t.Fatalf("change the password: %v", err)
	}
	r.events.keepSecret(changed.HashedPassword.Reveal())
}

func passwordChangeEndsSessions(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	tokens := r.loginNTimes(user, 3)
	ci := r.scopedToken(user, strategy.WithScopes("deploy:write")) // in the millisecond of the change
	r.changedPassword(user)
	r.expectValid("afterwards", user, tokens)
	r.expect("a scoped token", r.get("/deploy", r.withToken(ci)), r.unauthorized("invalid_token"))
	r.expectRows(user, 4) // the change deletes no rows
	r.expect("the old password", r.tryLogin(user), badCredentials())
	got := r.loginWith(user.Email, newPassword)
	r.expect("the new password", r.get("/guarded", r.withToken(r.issuedToken(got))), welcome(user))
}

func passwordChangeKeepsRenewedSession(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	tokens := r.loginNTimes(user, 3)
	before := r.currentSession(tokens[1])
	const later = maxAge + time.Minute
	r.clock.advance(later)
	left := before.ExpiresAt.Sub(r.clock.now())
	got := r.tryChangePassword(r.withToken(tokens[1]))
	tokens = append(tokens, r.tokenIn(got, left))
	if c, p := got.header.Get("Cache-Control"), got.header.Get("Pragma"); c != "no-store" || p != "no-cache" {
		t.Errorf("got Cache-Control %q and Pragma %q, want no-store and no-cache", c, p)
	}
	r.expectValid("afterwards", user, tokens, 3)
	r.expect("the session is fresh", r.get("/fresh", r.withToken(tokens[3])), welcome(user))
	list := r.listSessions(tokens[3], "")
	if len(list.Sessions) != 1 || list.Sessions[0].ID != before.ID || !list.Sessions[0].ExpiresAt.Equal(*before.ExpiresAt) {
		t.Errorf("got %+v, want only the session %+v", list, before)
	}
	r.expectRows(user, 1)
	r.expectExpiry("its expiry is unchanged", user, tokens[3], left)
}

// renewalWithoutCleanUp checks that the other sessions are invalid although their rows remain.
func renewalWithoutCleanUp(t *testing.T, env environment) {
	for _, failure := range failures {
		r := env.rig(t)
		user, token := r.loggedIn()
		tokens := []string{token, r.login(user)}
		r.db.fail(deleteTokens, failure.err)
		got := r.tryChangePassword(r.withToken(token))
		tokens = append(tokens, r.tokenIn(got, lifetime))
		r.db.repair()
		r.expectRows(user, 2)
		r.expectValid(failure.name, user, tokens, 2)
		if n := len(r.listSessions(tokens[2], "").Sessions); n != 1 {
			t.Errorf("%s: got %d sessions listed, want 1", failure.name, n)
		}
	}
}

func renewalFails(t *testing.T, env environment) {
	for _, failure := range failures {
		r := env.rig(t)
		user, token := r.loggedIn()
		r.db.fail(rotateToken, failure.err)
		got := r.tryChangePassword(r.withToken(token))
		r.expect(failure.name, got, unavailable())
		r.db.repair()
		// The password has changed, so the earlier token is invalid.
		r.expectValid(failure.name, user, []string{token})
	}
}

// loginDuringPasswordChange checks that a session does not outlive the change of its password.
func loginDuringPasswordChange(t *testing.T, env environment) {
	for what, during := range map[string]func(*database, func()){
		"change during the check of the password": func(db *database, do func()) { db.then(findAccount, do) },
		"change before the insert of the token":   func(db *database, do func()) { db.before(insertToken, do) },
	} {
		r := env.rig(t)
		user := r.user(active)
		during(r.db, func() {
			r.changedPassword(user)
			r.clock.advance(time.Second)
		})
		token := r.issuedToken(r.tryLogin(user))
		r.expect(what, r.get("/guarded", r.withToken(token)), r.unauthorized("invalid_token"))
	}
}

func reauthenticationDuringPasswordChange(t *testing.T, env environment) {
	r := env.rig(t)
	user, old := r.loggedIn()
	r.db.before(rotateToken, func() {
		r.changedPassword(user)
		r.clock.advance(time.Second)
	})
	got := r.tryReauthenticate(password, r.withToken(old))
	token := r.tokenIn(got, lifetime-time.Second)
	r.expectValid("afterwards", user, []string{old, token})
}

func revokeTokens(t *testing.T, env environment) {
	r := env.rig(t)
	bob, bobToken := r.loggedIn()
	user := r.user(active)
	tokens := r.loginNTimes(user, 2)
	if err := r.accounts.RevokeTokens(t.Context(), user.ID); err != nil {
		t.Fatal(err)
	}
	tokens = append(tokens, r.login(user)) // valid, although in the millisecond of the revocation
	r.expectValid("afterwards", user, tokens, 2)
	r.expect("another user", r.get("/guarded", r.withToken(bobToken)), welcome(bob))
	r.expect("log out with a revoked token", r.logout(r.withToken(tokens[0])), r.notLoggedOut())
}

func deactivationRevokesTokens(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	tokens := r.loginNTimes(user, 2)
	if err := r.accounts.Deactivate(t.Context(), user.ID); err != nil {
		t.Fatal(err)
	}
	r.expectValid("deactivated", user, tokens)
	r.expect("log in", r.tryLogin(user), badCredentials())
	if err := r.accounts.Activate(t.Context(), user.ID); err != nil {
		t.Fatal(err)
	}
	r.expectValid("activated again", user, tokens)
	r.expectValid("a new login", user, []string{r.login(user)}, 0)
}

func configuredNotBefore(t *testing.T, env environment) {
	for _, c := range []struct {
		what  string
		after time.Duration
		want  bool
	}{
		{"NotBefore a millisecond before the login", -time.Millisecond, true},
		{"NotBefore at the login", 0, true},
		{"NotBefore a millisecond after the login", time.Millisecond, false},
	} {
		r := env.rig(t)
		user, token := r.loggedIn()
		restarted := env.rig(t, withStrategy(func(cfg *strategy.Config) { cfg.NotBefore = r.clock.now().Add(c.after) }))
		restarted.clock.set(r.clock.now())
		want := r.unauthorized("invalid_token")
		if c.want {
			want = welcome(user)
		}
		restarted.expect(c.what, restarted.get("/guarded", r.withToken(token)), want)
		restarted.clock.advance(time.Second)
		restarted.expect(c.what+", a new login", restarted.get("/guarded", r.withToken(restarted.login(user))), welcome(user))
	}
}
