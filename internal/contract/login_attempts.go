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

var loginAttemptRows = section{"attempts", []row{
	{"after ten failures the next has to wait", eleventhFailureWaits},
	{"Retry-After is exact, and rounded up", retryAfterIsExact},
	{"each further failure doubles the wait", waitsDouble},
	{"failures are forgotten after a day", failuresAreForgotten},
	{"a login that succeeds clears them", successClears},
	{"an unknown account behaves alike", unknownAccountIsLimited},
	{"the name's spelling does not matter", spellingIsLimited},
	{"a body that is none does not count", badBodiesDoNotCount},
	{"addresses of one network share a limit", anotherNetwork},
	{"a known device is not affected", knownDevice},
	{"a device token is valid for its account alone", deviceOfAnotherAccount},
	{"failures on a known device are limited apart", deviceIsLimitedApart},
	{"what an untrusted X-Forwarded-For says changes nothing", untrustedForwarding},
	{"one account from many networks", accountFromManyNetworks},
	{"many accounts from one network", networkOnManyAccounts},
	{"guards and log-out are not affected", onlyLoginIsLimited},
	{"giving the password again is limited apart", reauthenticateIsLimitedApart},
	{"the counters fail", attemptsFail},
}}

// The first limits: failures that are free, and the wait after them.
const (
	freeOfAccount  = 10
	freeOfNetwork  = 100
	freeOfDevice   = 5
	waitForAccount = time.Minute
	waitForDevice  = 30 * time.Second
)

// tooManyAttempts is the answer to an attempt that has to wait so many seconds.
func tooManyAttempts(seconds int) answer {
	a := refused(http.StatusTooManyRequests, "TOO_MANY_ATTEMPTS")
	a.RetryAfter = strconv.Itoa(seconds)
	return a
}

func behindProxy(s *settings) { s.trustedProxies = []string{"127.0.0.1"} }

// from is what a proxy says about where a request comes from.
func forwardedFor(addr string) option { return header("X-Forwarded-For", addr) }

func (r *rig) failLogin(name string, options ...option) reply {
	r.t.Helper()
	return r.loginWith(name, wrongPassword, options...)
}

// failLogins fails to log in until that is no longer free.
func (r *rig) failLogins(name string, options ...option) {
	r.t.Helper()
	for i := range freeOfAccount {
		r.expect(fmt.Sprintf("failure %d", i+1), r.failLogin(name, options...), badCredentials())
	}
}

func eleventhFailureWaits(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	r.failLogins(user.Email)
	calls := r.db.callsDuring(func() {
		r.expect("a wrong password", r.failLogin(user.Email), tooManyAttempts(60))
		r.expect("the right password", r.tryLogin(user), tooManyAttempts(60))
	})
	if calls != 0 {
		t.Errorf("got %d calls of the database, want none: the passwords are not looked at", calls)
	}
	r.clock.advance(waitForAccount)
	r.login(user)
}

func retryAfterIsExact(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	r.failLogins(user.Email)
	startCall := r.clock.now()
	for _, c := range []struct {
		after   time.Duration
		seconds int
	}{
		{0, 60}, {time.Millisecond, 60}, {999 * time.Millisecond, 60}, {time.Second, 59}, {1001 * time.Millisecond, 59},
		{59 * time.Second, 1}, {59*time.Second + 500*time.Millisecond, 1}, {waitForAccount - time.Millisecond, 1},
	} {
		r.clock.set(startCall.Add(c.after))
		r.expect("after "+c.after.String(), r.tryLogin(user), tooManyAttempts(c.seconds))
	}
	r.clock.set(startCall.Add(waitForAccount))
	r.login(user)
}

func waitsDouble(t *testing.T, env environment) {
	r := env.rig(t, behindProxy)
	user := r.user(active)
	here := forwardedFor("203.0.113.7")
	r.failLogins(user.Email, here)
	for _, wait := range []int{60, 120, 240, 480, 960, 1920, 3600, 3600} {
		r.expect("at once", r.tryLogin(user, here), tooManyAttempts(wait))
		r.clock.advance(time.Duration(wait)*time.Second - time.Millisecond)
		r.expect("a millisecond before", r.tryLogin(user, here), tooManyAttempts(1))
		r.clock.advance(time.Millisecond)
		r.expect("then", r.failLogin(user.Email, here), badCredentials())
	}
}

func failuresAreForgotten(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	for range freeOfAccount - 1 {
		r.expect("wrong", r.failLogin(user.Email), badCredentials())
	}
	r.clock.advance(24 * time.Hour)
	r.failLogins(user.Email)
	r.expect("the eleventh of today", r.failLogin(user.Email), tooManyAttempts(60))
}

func successClears(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	for range 4 {
		for range freeOfAccount - 1 {
			r.expect("wrong", r.failLogin(user.Email), badCredentials())
		}
		r.login(user)
	}
	r.failLogins(user.Email)
	r.expect("the eleventh in a row", r.failLogin(user.Email), tooManyAttempts(60))
}

func unknownAccountIsLimited(t *testing.T, env environment) {
	r := env.rig(t)
	user, inactiveUser := r.user(active), r.user(flags{})
	names := map[string]string{
		"an account": user.Email, "an inactive one": inactiveUser.Email,
		"an unknown one": "nobody." + user.Email, "a name that is no address": "nobody",
	}
	for i := range 2 * freeOfAccount {
		if i > freeOfAccount {
			r.clock.advance(19 * time.Second) // in the middle of a wait, and beyond it
		}
		replies := make(map[string]reply)
		for what, name := range names {
			replies[fmt.Sprintf("attempt %d on %s", i+1, what)] = r.failLogin(name)
		}
		r.expectAlike(replies)
	}
}

func spellingIsLimited(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	name, _ := account.NormalizeEmail(user.Email)
	for _, spelling := range []string{name, " " + name, name + "\t", "ANN" + name[3:], "Ann" + name[3:]} {
		r.expect(spelling, r.failLogin(spelling), badCredentials())
		r.expect(spelling, r.failLogin(spelling), badCredentials())
	}
	r.expect("once more", r.tryLogin(user), tooManyAttempts(60))
}

func badBodiesDoNotCount(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	for range 2 * freeOfAccount {
		r.expectInvalid("an operator", r.post("/auth/login", rawJSON(`{"username": `+quoted(user.Email)+`, "password": {"$ne": null}}`)), anyType, "body.password")
		tooLong := asForm("username", user.Email, "password", string(make([]byte, account.MaxPasswordBytes+1)))
		r.expect("a password that nobody has", r.post("/auth/login", tooLong), badCredentials())
	}
	r.failLogins(user.Email)
	r.expect("once more", r.tryLogin(user), tooManyAttempts(60))
}

func anotherNetwork(t *testing.T, env environment) {
	for _, c := range []struct{ here, near, elsewhere string }{
		{"203.0.113.7", "203.0.113.250", "203.0.114.7"},
		{"2001:db8:1:2::7", "2001:db8:1:2:ffff::", "2001:db8:1:3::7"},
		{"203.0.115.7", "::ffff:203.0.115.9", "::203.0.115.7"},
		{"203.0.116.7", "64:ff9b::203.0.116.9", "64:ff9b::203.0.117.9"},
	} {
		r := env.rig(t, behindProxy, func(s *settings) { s.limiter.Network.Failures = 3 })
		user := r.user(active)
		for i := range 3 {
			r.expect(c.here, r.failLogin(fmt.Sprint(i, user.Email), forwardedFor(c.here)), badCredentials())
		}
		r.expect(c.here, r.tryLogin(user, forwardedFor(c.here)), tooManyAttempts(1))
		r.expect(c.near, r.tryLogin(user, forwardedFor(c.near)), tooManyAttempts(1))
		r.issuedToken(r.tryLogin(user, forwardedFor(c.elsewhere)))
		r.expect(c.here+" still", r.tryLogin(user, forwardedFor(c.here)), tooManyAttempts(1))
	}
}

// tryDevice logs in with a device token, as a cookie or in the body.
func (r *rig) tryDevice(name, password, device string, options ...option) reply {
	r.t.Helper()
	options = append(options, header("Cookie", "__Host-latchkey-device="+device))
	return r.post("/auth/login", asForm("username", name, "password", password, "device_token", device), options...)
}

func knownDevice(t *testing.T, env environment) {
	r := env.rig(t, behindProxy)
	user := r.user(active)
	device := r.tryLogin(user).device
	for i := range freeOfAccount {
		botnet := fmt.Sprintf("198.51.%d.7", i)
		r.expect(botnet, r.failLogin(user.Email, forwardedFor(botnet)), badCredentials())
	}
	for i := range freeOfNetwork {
		_ = r.failLogin(fmt.Sprint(i, user.Email), forwardedFor("203.0.113.7"))
	}
	r.expect("on a new device", r.tryLogin(user, forwardedFor("203.0.113.7")), tooManyAttempts(60))
	got := r.tryDevice(user.Email, password, device, forwardedFor("203.0.113.7"))
	r.issuedToken(got)
	if got.device != "" && got.device != device {
		t.Errorf("got another device token with the login")
	}
	r.clock.advance(90*24*time.Hour - time.Millisecond)
	r.failLogins(user.Email)
	r.issuedToken(r.tryDevice(user.Email, password, device))
	r.clock.advance(90 * 24 * time.Hour)
	r.failLogins(user.Email)
	r.expect("after 90 days", r.tryDevice(user.Email, password, device), tooManyAttempts(60))
}

func deviceOfAnotherAccount(t *testing.T, env environment) {
	r := env.rig(t)
	user, other := r.user(active), r.user(active)
	device := r.tryLogin(other).device
	r.failLogins(user.Email)
	for _, d := range []string{device, device + "0", "lkd_", "nonsense"} {
		r.expect("with "+d, r.tryDevice(user.Email, password, d), tooManyAttempts(60))
	}
}

func deviceIsLimitedApart(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	device := r.tryLogin(user).device
	for range freeOfDevice {
		r.expect("wrong", r.tryDevice(user.Email, wrongPassword, device), badCredentials())
	}
	r.expect("the right one", r.tryDevice(user.Email, password, device), tooManyAttempts(30))
	r.login(user) // on a new device
	r.clock.advance(waitForDevice - time.Millisecond)
	r.expect("a millisecond before", r.tryDevice(user.Email, password, device), tooManyAttempts(1))
	r.clock.advance(time.Millisecond)
	r.issuedToken(r.tryDevice(user.Email, password, device))
}

func untrustedForwarding(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	for i := range freeOfAccount {
		claim := fmt.Sprintf("198.51.%d.7", i)
		r.expect(claim, r.failLogin(user.Email, forwardedFor(claim), header("X-Real-IP", claim)), badCredentials())
	}
	r.expect("from yet another", r.tryLogin(user, forwardedFor("203.0.113.7")), tooManyAttempts(60))
	r.expect("from where it came", r.tryLogin(user), tooManyAttempts(60))

	// A trusted proxy appends to what the client claims.
	r = env.rig(t, behindProxy)
	user = r.user(active)
	for i := range freeOfAccount {
		claim := fmt.Sprintf("198.51.%d.7, 203.0.113.7", i)
		r.expect(claim, r.failLogin(user.Email, forwardedFor(claim)), badCredentials())
	}
	r.expect("from yet another", r.tryLogin(user, forwardedFor("192.0.2.1, 203.0.113.7")), tooManyAttempts(60))
}

func accountFromManyNetworks(t *testing.T, env environment) {
	r := env.rig(t, behindProxy)
	user := r.user(active)
	for i := range freeOfAccount {
		botnet := fmt.Sprintf("198.51.%d.7", i)
		r.expect(botnet, r.failLogin(user.Email, forwardedFor(botnet)), badCredentials())
	}
	r.expect("from a further one", r.tryLogin(user, forwardedFor("192.0.2.1")), tooManyAttempts(60))
	r.clock.advance(waitForAccount)
	r.expect("a minute later", r.failLogin(user.Email, forwardedFor("192.0.2.1")), badCredentials())
	r.expect("and again", r.failLogin(user.Email, forwardedFor("192.0.2.1")), tooManyAttempts(120))
}

func networkOnManyAccounts(t *testing.T, env environment) {
	r := env.rig(t, behindProxy)
	user, colleague := r.user(active), r.user(active)
	office := forwardedFor("203.0.113.7")
	r.issuedToken(r.tryLogin(colleague, office)) // which reveals nothing below
	for i := range freeOfNetwork {
		name := fmt.Sprintf("nobody.%d.%s", i, user.Email)
		if got := r.failLogin(name, office); got.answer != badCredentials() {
			t.Fatalf("failure %d:\n got %+v\nwant %+v", i+1, got.answer, badCredentials())
		}
	}
	r.expect("on one more", r.tryLogin(user, office), tooManyAttempts(1))
	r.expect("on a colleague's", r.tryLogin(colleague, office), tooManyAttempts(1))
	r.expect("on an unknown one", r.failLogin("nobody."+user.Email, office), tooManyAttempts(1))
	r.issuedToken(r.tryLogin(user, forwardedFor("198.51.100.7")))
	r.clock.advance(time.Hour)
	r.issuedToken(r.tryLogin(r.user(active), office))
}

func onlyLoginIsLimited(t *testing.T, env environment) {
	r := env.rig(t)
	user, token := r.loggedIn()
	r.failLogins(user.Email)
	r.expect("log in", r.tryLogin(user), tooManyAttempts(60))
	r.expect("log in, with the session", r.tryLogin(user, r.withToken(token)), tooManyAttempts(60))
	r.expect("guard", r.get("/guarded", r.withToken(token)), welcome(user))
	r.expectRows(user, 1)
	r.expect("log out", r.logout(r.withToken(token)), r.loggedOut())
}

func reauthenticateIsLimitedApart(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	token := r.login(user)
	reauthenticate := func(token, password string) reply {
		return r.tryReauthenticate(password, r.withToken(token))
	}
	r.failLogins(user.Email)
	r.expect("log in", r.tryLogin(user), tooManyAttempts(60))
	r.reauthenticated(token, lifetime)

	r.clock.advance(24 * time.Hour) // the failed logins are forgotten, and the sessions over
	token, another := r.login(user), r.login(user)
	for range freeOfDevice {
		r.expect("wrong", reauthenticate(token, wrongPassword), badCredentials())
	}
	r.expect("the right one", reauthenticate(token, password), tooManyAttempts(30))
	r.expect("the right one in another session", reauthenticate(another, password), tooManyAttempts(30))
	r.expect("guard", r.get("/guarded", r.withToken(token)), welcome(user))
	r.login(user)
	r.clock.advance(waitForDevice - time.Millisecond)
	r.expect("a millisecond before", reauthenticate(token, password), tooManyAttempts(1))
	r.clock.advance(time.Millisecond)
	r.reauthenticated(token, lifetime-waitForDevice)
}

// brokenAttempts are counters that cannot be had.
type brokenAttempts struct{ account.AttemptStore }

func (brokenAttempts) Counters(context.Context, time.Time, ...string) ([]account.AttemptCounter, error) {
	return nil, errors.New("the counters are down")
}

func attemptsFail(t *testing.T, env environment) {
	for _, failClosed := range []bool{false, true} {
		r := env.rig(t, func(s *settings) { s.attempts, s.limiter.FailClosed = brokenAttempts{}, failClosed })
		user := r.user(active)
		wrong, got := r.failLogin(user.Email), r.tryLogin(user)
		if failClosed {
			r.expect("a wrong password", wrong, unavailable())
			r.expect("the right one", got, unavailable())
			continue
		}
		r.expect("a wrong password", wrong, badCredentials())
		r.issuedToken(got)
	}
}
