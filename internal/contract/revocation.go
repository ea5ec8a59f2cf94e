package contract

import (
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/strategy"
)

var revocationRows = rows{"revocation", []row{
	{"a change of the password ends every session", passwordEndsSessions},
	{"a change of the password keeps the session that is renewed", passwordKeepsThisSession},
	{"a renewal fails", renewalFails},
	{"the clean-up after a renewal fails", renewalWithoutCleanUp},
	{"a session begun with the old password during the change", loginDuringTheChange},
	{"a session renewed with the old password during the change", reauthenticateDuringTheChange},
	{"revoking a user's tokens", revokeTokens},
	{"a deactivated user's tokens stay dead", deactivationIsForGood},
	{"a time before which nothing is valid", configuredNotBefore},
}}

// changedPassword changes a user's password as an administrator's tool would.
func (a *app) changedPassword(user Member) {
	a.t.Helper()
	changed, err := a.users.ChangePassword(a.t.Context(), user.ID, password, newPassword)
	if err != nil {
		a.t.Fatalf("change the password: %v", err)
	}
	a.events.hide(string(changed.HashedPassword))
}

func passwordEndsSessions(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	tokens := a.loginNTimes(user, 3)
	ci := a.scopedToken(user, strategy.WithScopes("deploy:write")) // in the millisecond of the change, too
	a.changedPassword(user)
	a.expectAlive("afterwards", user, tokens)
	a.expect("a token with scopes", a.get("/deploy", a.carry(ci)), a.unauthorized("invalid_token"))
	a.expectSessions(user, 4) // without touching them
	a.expect("the old password", a.tryLogin(user), badCredentials())
	got := a.post("/auth/login", asForm("username", user.Email, "password", newPassword))
	a.expect("the new password", a.get("/guarded", a.carry(a.deliveredToken(got))), welcome(user))
}

func passwordKeepsThisSession(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	tokens := a.loginNTimes(user, 3)
	before := a.current(tokens[1])
	const later = maxAge + time.Minute
	a.clock.advance(later)
	left := before.ExpiresAt.Sub(a.clock.now())
	change := asForm("current", password, "new", newPassword)
	got := a.post("/password", change, a.carry(tokens[1]))
	tokens = append(tokens, a.delivered(t, got, left))
	a.hide(tokens[3])
	if c, p := got.header.Get("Cache-Control"), got.header.Get("Pragma"); c != "no-store" || p != "no-cache" {
		t.Errorf("got Cache-Control %q and Pragma %q, want no-store and no-cache", c, p)
	}
	a.expectAlive("afterwards", user, tokens, 3)
	a.expect("the session is fresh", a.get("/fresh", a.carry(tokens[3])), welcome(user))
	listing := a.sessions(tokens[3], "")
	if len(listing.Sessions) != 1 || listing.Sessions[0].ID != before.ID || !listing.Sessions[0].ExpiresAt.Equal(*before.ExpiresAt) {
		t.Errorf("got %+v, want the session %+v alone", listing, before)
	}
	a.expectSessions(user, 1)
	a.expectEnd("its end is where it was", user, tokens[3], left)
}

// renewalWithoutCleanUp: the rows of the other sessions are dead as they are.
func renewalWithoutCleanUp(t *testing.T, w world) {
	for _, failure := range failures {
		a := w.app(t)
		user, token := a.loggedIn()
		tokens := []string{token, a.login(user)}
		a.db.fail(deleteTokens, failure.err)
		got := a.post("/password", asForm("current", password, "new", newPassword), a.carry(token))
		tokens = append(tokens, a.delivered(t, got, lifetime))
		a.hide(tokens[2])
		a.db.mend()
		a.expectSessions(user, 2)
		a.expectAlive(failure.name, user, tokens, 2)
		if n := len(a.sessions(tokens[2], "").Sessions); n != 1 {
			t.Errorf("%s: got %d sessions listed, want 1", failure.name, n)
		}
	}
}

func renewalFails(t *testing.T, w world) {
	for _, failure := range failures {
		a := w.app(t)
		user, token := a.loggedIn()
		a.db.fail(rotateToken, failure.err)
		got := a.post("/password", asForm("current", password, "new", newPassword), a.carry(token))
		a.expect(failure.name, got, unavailable())
		a.db.mend()
		// The password is changed; so what was issued before is dead.
		a.expectAlive(failure.name, user, []string{token})
	}
}

// loginDuringTheChange: who gave the old password while it was being changed
// does not get a session that outlives the change.
func loginDuringTheChange(t *testing.T, w world) {
	for what, during := range map[string]func(*database, func()){
		"while it was checked":       func(db *database, do func()) { db.then(findAccount, do) },
		"before the token was there": func(db *database, do func()) { db.before(insertToken, do) },
	} {
		a := w.app(t)
		user := a.user(active)
		during(a.db, func() {
			a.changedPassword(user)
			a.clock.advance(time.Second)
		})
		token := a.deliveredToken(a.tryLogin(user))
		a.expect(what, a.get("/guarded", a.carry(token)), a.unauthorized("invalid_token"))
	}
}

func reauthenticateDuringTheChange(t *testing.T, w world) {
	a := w.app(t)
	user, old := a.loggedIn()
	a.db.before(rotateToken, func() {
		a.changedPassword(user)
		a.clock.advance(time.Second)
	})
	got := a.post("/auth/reauthenticate", asForm("password", password), a.carry(old))
	token := a.delivered(t, got, lifetime-time.Second)
	a.hide(token)
	a.expectAlive("afterwards", user, []string{old, token})
}

func revokeTokens(t *testing.T, w world) {
	a := w.app(t)
	bob, bobs := a.loggedIn()
	user := a.user(active)
	tokens := a.loginNTimes(user, 2)
	if err := a.users.RevokeTokens(t.Context(), user.ID); err != nil {
		t.Fatal(err)
	}
	tokens = append(tokens, a.login(user)) // in the same millisecond: it is new
	a.expectAlive("afterwards", user, tokens, 2)
	a.expect("another user", a.get("/guarded", a.carry(bobs)), welcome(bob))
	a.expect("log out with a dead one", a.logout(a.carry(tokens[0])), a.notLoggedOut())
}

func deactivationIsForGood(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	tokens := a.loginNTimes(user, 2)
	if err := a.users.Deactivate(t.Context(), user.ID); err != nil {
		t.Fatal(err)
	}
	a.expectAlive("deactivated", user, tokens)
	a.expect("log in", a.tryLogin(user), badCredentials())
	if err := a.users.Activate(t.Context(), user.ID); err != nil {
		t.Fatal(err)
	}
	a.expectAlive("activated again", user, tokens)
	a.expectAlive("a new login", user, []string{a.login(user)}, 0)
}

func configuredNotBefore(t *testing.T, w world) {
	for _, c := range []struct {
		what  string
		after time.Duration
		want  bool
	}{
		{"a millisecond before the login", -time.Millisecond, true},
		{"at the login", 0, true},
		{"a millisecond after it", time.Millisecond, false},
	} {
		a := w.app(t)
		user, token := a.loggedIn()
		restarted := w.app(t, tokens(func(cfg *strategy.Config) { cfg.NotBefore = a.clock.now().Add(c.after) }))
		restarted.clock.set(a.clock.now())
		want := a.unauthorized("invalid_token")
		if c.want {
			want = welcome(user)
		}
		restarted.expect(c.what, restarted.get("/guarded", a.carry(token)), want)
		restarted.clock.advance(time.Second)
		restarted.expect(c.what+", a new login", restarted.get("/guarded", a.carry(restarted.login(user))), welcome(user))
	}
}
