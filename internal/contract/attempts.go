package contract

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/account"
)

var attemptRows = rows{"attempts", []row{
	{"after five failures the next has to wait", tooManyFail},
	{"Retry-After is exact, and rounded up", retryAfterIsExact},
	{"each further failure doubles the wait", waitsDouble},
	{"failures are forgotten after a day", failuresAreForgotten},
	{"a login that succeeds clears them", successClears},
	{"an unknown account behaves alike", unknownAccountIsLimited},
	{"the name's spelling does not matter", spellingIsLimited},
	{"a body that is none does not count", badBodiesDoNotCount},
	{"another network is not affected", anotherNetwork},
	{"what an untrusted X-Forwarded-For says changes nothing", untrustedForwarding},
	{"one account from many networks", accountFromManyNetworks},
	{"many accounts from one network", networkOnManyAccounts},
	{"guards and log-out are not affected", onlyLoginIsLimited},
	{"giving the password again is limited apart", reauthenticateIsLimitedApart},
	{"the counters fail", attemptsFail},
}}

// The first limits: failures that are free, and the wait after them.
const (
	freeOfPair     = 5
	freeOfAccount  = 10
	freeOfNetwork  = 100
	waitForPair    = 30 * time.Second
	waitForAccount = time.Minute
)

// tooManyAttempts is the answer to an attempt that has to wait so many seconds.
func tooManyAttempts(seconds int) answer {
	a := refused(http.StatusTooManyRequests, "TOO_MANY_ATTEMPTS")
	a.RetryAfter = strconv.Itoa(seconds)
	return a
}

func behindProxy(s *settings) { s.trustedProxies = []string{"127.0.0.1"} }

// from is what a proxy says about where a request comes from.
func from(addr string) option { return header("X-Forwarded-For", addr) }

func (a *app) failLogin(name string, options ...option) reply {
	a.t.Helper()
	return a.post("/auth/login", asForm("username", name, "password", wrongPassword), options...)
}

// failLogins fails to log in until that is no longer free.
func (a *app) failLogins(name string, options ...option) {
	a.t.Helper()
	for i := range freeOfPair {
		a.expect(fmt.Sprintf("failure %d", i+1), a.failLogin(name, options...), badCredentials())
	}
}

func tooManyFail(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	a.failLogins(user.Email)
	calls := a.db.callsDuring(func() {
		a.expect("a wrong password", a.failLogin(user.Email), tooManyAttempts(30))
		a.expect("the right password", a.tryLogin(user), tooManyAttempts(30))
	})
	if calls != 0 {
		t.Errorf("got %d calls of the database, want none: the passwords are not looked at", calls)
	}
	a.clock.advance(waitForPair)
	a.login(user)
}

func retryAfterIsExact(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	a.failLogins(user.Email)
	begin := a.clock.now()
	for _, c := range []struct {
		after   time.Duration
		seconds int
	}{
		{0, 30}, {time.Millisecond, 30}, {999 * time.Millisecond, 30}, {time.Second, 29}, {1001 * time.Millisecond, 29},
		{29 * time.Second, 1}, {29*time.Second + 500*time.Millisecond, 1}, {waitForPair - time.Millisecond, 1},
	} {
		a.clock.set(begin.Add(c.after))
		a.expect("after "+c.after.String(), a.tryLogin(user), tooManyAttempts(c.seconds))
	}
	a.clock.set(begin.Add(waitForPair))
	a.login(user)
}

func waitsDouble(t *testing.T, w world) {
	a := w.app(t, behindProxy)
	user := a.user(active)
	here := from("203.0.113.7")
	a.deliveredToken(a.tryLogin(user, here)) // a network that is known has to do with its own failures alone
	a.failLogins(user.Email, here)
	for _, wait := range []int{30, 60, 120, 240, 480, 960, 1920, 3600, 3600} {
		a.expect("at once", a.tryLogin(user, here), tooManyAttempts(wait))
		a.clock.advance(time.Duration(wait)*time.Second - time.Millisecond)
		a.expect("a millisecond before", a.tryLogin(user, here), tooManyAttempts(1))
		a.clock.advance(time.Millisecond)
		a.expect("then", a.failLogin(user.Email, here), badCredentials())
	}
}

func failuresAreForgotten(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	for range freeOfPair - 1 {
		a.expect("wrong", a.failLogin(user.Email), badCredentials())
	}
	a.clock.advance(24 * time.Hour)
	a.failLogins(user.Email)
	a.expect("the sixth of today", a.failLogin(user.Email), tooManyAttempts(30))
}

func successClears(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	for range 4 {
		for range freeOfPair - 1 {
			a.expect("wrong", a.failLogin(user.Email), badCredentials())
		}
		a.login(user)
	}
	a.failLogins(user.Email)
	a.expect("the sixth in a row", a.failLogin(user.Email), tooManyAttempts(30))
}

func unknownAccountIsLimited(t *testing.T, w world) {
	a := w.app(t)
	user, inactive := a.user(active), a.user(flags{})
	names := map[string]string{
		"an account": user.Email, "an inactive one": inactive.Email,
		"an unknown one": "nobody." + user.Email, "a name that is no address": "nobody",
	}
	for i := range 3 * freeOfPair {
		if i > freeOfPair {
			a.clock.advance(9 * time.Second) // in the middle of a wait, and beyond it
		}
		replies := make(map[string]reply)
		for what, name := range names {
			replies[fmt.Sprintf("attempt %d on %s", i+1, what)] = a.failLogin(name)
		}
		a.expectAlike(replies)
	}
}

func spellingIsLimited(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	name, _ := account.NormalizeEmail(user.Email)
	for _, spelling := range []string{name, " " + name, name + "\t", "ANN" + name[3:], "Ann" + name[3:]} {
		a.expect(spelling, a.failLogin(spelling), badCredentials())
	}
	a.expect("once more", a.tryLogin(user), tooManyAttempts(30))
}

func badBodiesDoNotCount(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	for range 2 * freeOfPair {
		a.expectInvalid("an operator", a.post("/auth/login", rawJSON(`{"username": `+quoted(user.Email)+`, "password": {"$ne": null}}`)), anyType, "body.password")
		tooLong := asForm("username", user.Email, "password", string(make([]byte, account.MaxPasswordBytes+1)))
		a.expect("a password that nobody has", a.post("/auth/login", tooLong), badCredentials())
	}
	a.failLogins(user.Email)
	a.expect("once more", a.tryLogin(user), tooManyAttempts(30))
}

func anotherNetwork(t *testing.T, w world) {
	for _, c := range []struct{ here, near, elsewhere string }{
		{"203.0.113.7", "203.0.113.250", "203.0.114.7"},
		{"2001:db8:1:2::7", "2001:db8:1:2:ffff::", "2001:db8:1:3::7"},
		{"203.0.113.7", "::ffff:203.0.113.9", "::203.0.113.7"},
	} {
		a := w.app(t, behindProxy)
		user := a.user(active)
		a.failLogins(user.Email, from(c.here))
		a.expect(c.here, a.tryLogin(user, from(c.here)), tooManyAttempts(30))
		a.expect(c.near, a.tryLogin(user, from(c.near)), tooManyAttempts(30))
		a.deliveredToken(a.tryLogin(user, from(c.elsewhere)))
		a.expect(c.here+" still", a.tryLogin(user, from(c.here)), tooManyAttempts(30))
	}
}

func untrustedForwarding(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	for i := range freeOfPair {
		claim := fmt.Sprintf("198.51.%d.7", i)
		a.expect(claim, a.failLogin(user.Email, from(claim), header("X-Real-IP", claim)), badCredentials())
	}
	a.expect("from yet another", a.tryLogin(user, from("203.0.113.7")), tooManyAttempts(30))
	a.expect("from where it came", a.tryLogin(user), tooManyAttempts(30))

	// A trusted proxy appends to what the client claims.
	a = w.app(t, behindProxy)
	user = a.user(active)
	for i := range freeOfPair {
		claim := fmt.Sprintf("198.51.%d.7, 203.0.113.7", i)
		a.expect(claim, a.failLogin(user.Email, from(claim)), badCredentials())
	}
	a.expect("from yet another", a.tryLogin(user, from("192.0.2.1, 203.0.113.7")), tooManyAttempts(30))
}

func accountFromManyNetworks(t *testing.T, w world) {
	a := w.app(t, behindProxy)
	user := a.user(active)
	home := from("203.0.113.7")
	a.deliveredToken(a.tryLogin(user, home))
	for i := range freeOfAccount {
		botnet := fmt.Sprintf("198.51.%d.7", i)
		a.expect(botnet, a.failLogin(user.Email, from(botnet)), badCredentials())
	}
	a.expect("from a further one", a.tryLogin(user, from("192.0.2.1")), tooManyAttempts(60))
	a.deliveredToken(a.tryLogin(user, home)) // nobody locks the user out
	a.clock.advance(waitForAccount)
	a.expect("a minute later", a.failLogin(user.Email, from("192.0.2.1")), badCredentials())
	a.expect("and again", a.failLogin(user.Email, from("192.0.2.1")), tooManyAttempts(120))
}

func networkOnManyAccounts(t *testing.T, w world) {
	a := w.app(t, behindProxy)
	user, colleague := a.user(active), a.user(active)
	office := from("203.0.113.7")
	a.deliveredToken(a.tryLogin(colleague, office))
	for i := range freeOfNetwork {
		name := fmt.Sprintf("nobody.%d.%s", i, user.Email)
		if got := a.failLogin(name, office); got.answer != badCredentials() {
			t.Fatalf("failure %d:\n got %+v\nwant %+v", i+1, got.answer, badCredentials())
		}
	}
	a.expect("on one more", a.tryLogin(user, office), tooManyAttempts(1))
	a.deliveredToken(a.tryLogin(colleague, office)) // who is known there
	a.deliveredToken(a.tryLogin(user, from("198.51.100.7")))
	a.clock.advance(time.Hour)
	a.deliveredToken(a.tryLogin(a.user(active), office))
}

func onlyLoginIsLimited(t *testing.T, w world) {
	a := w.app(t)
	user, token := a.loggedIn()
	a.failLogins(user.Email)
	a.expect("log in", a.tryLogin(user), tooManyAttempts(30))
	a.expect("log in, with the session", a.tryLogin(user, a.carry(token)), tooManyAttempts(30))
	a.expect("guard", a.get("/guarded", a.carry(token)), welcome(user))
	a.expectSessions(user, 1)
	a.expect("log out", a.logout(a.carry(token)), a.loggedOut())
}

func reauthenticateIsLimitedApart(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	token := a.login(user)
	reauthenticate := func(token, password string) reply {
		return a.post("/auth/reauthenticate", asForm("password", password), a.carry(token))
	}
	a.failLogins(user.Email)
	a.expect("log in", a.tryLogin(user), tooManyAttempts(30))
	a.reauthenticated(token, lifetime)

	a.clock.advance(24 * time.Hour) // the failed logins are forgotten, and the sessions over
	token, another := a.login(user), a.login(user)
	for range freeOfPair {
		a.expect("wrong", reauthenticate(token, wrongPassword), badCredentials())
	}
	a.expect("the right one", reauthenticate(token, password), tooManyAttempts(30))
	a.expect("the right one in another session", reauthenticate(another, password), tooManyAttempts(30))
	a.expect("guard", a.get("/guarded", a.carry(token)), welcome(user))
	a.login(user)
	a.clock.advance(waitForPair - time.Millisecond)
	a.expect("a millisecond before", reauthenticate(token, password), tooManyAttempts(1))
	a.clock.advance(time.Millisecond)
	a.reauthenticated(token, lifetime-waitForPair)
}

// brokenAttempts are counters that cannot be had.
type brokenAttempts struct{ account.AttemptStore }

func (brokenAttempts) Counters(context.Context, time.Time, ...string) ([]account.AttemptCounter, error) {
	return nil, errors.New("the counters are down")
}

func attemptsFail(t *testing.T, w world) {
	for _, failClosed := range []bool{false, true} {
		a := w.app(t, func(s *settings) { s.attempts, s.limit.FailClosed = brokenAttempts{}, failClosed })
		user := a.user(active)
		wrong, got := a.failLogin(user.Email), a.tryLogin(user)
		if failClosed {
			a.expect("a wrong password", wrong, unavailable())
			a.expect("the right one", got, unavailable())
			continue
		}
		a.expect("a wrong password", wrong, badCredentials())
		a.deliveredToken(got)
	}
}
