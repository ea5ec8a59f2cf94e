package faults_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

// clockRig is stores and one user, for several instances with different clocks.
type clockRig struct {
	t        *testing.T
	tokens   tokenStore
	users    userStore
	attempts account.AttemptStore
	user     member
	password string
	// noLimiter is for tests with many concurrent logins that fail.
	noLimiter bool
	caches    caches
}

// clockInstance is an instance of an application with its own clock, over the stores of
// a clockRig.
type clockInstance struct {
	*strategy.Database[member, uuid.UUID]
	rig      *clockRig
	t        *testing.T
	clock    *fakeClock
	accounts *account.Manager[member, uuid.UUID]
}

func newClockRig(t *testing.T, stores func() storeSet) *clockRig {
	t.Helper()
	s := stores()
	attempts, err := memstore.NewAttempts(0)
	if err != nil {
		t.Fatal(err)
	}
	return &clockRig{t: t, tokens: s.tokens, users: s.users, attempts: attempts}
}

// at returns an instance whose clock has a time. The first instance registers the user.
func (c *clockRig) at(at time.Time, cfg strategy.Config) *clockInstance {
	c.t.Helper()
	i := &clockInstance{rig: c, t: c.t, clock: &fakeClock{at: at}}
	var err error
	i.accounts, err = account.NewManager(c.users, nil, c.attempts, uuid.New, account.Config{
		Argon2: account.Argon2{MemoryKiB: 8, Iterations: 1, Parallelism: 1}, InsecureArgon2: true,
		InsecureNoLimiter: c.noLimiter, Now: i.clock.now,
	}, &c.caches)
	if err == nil && c.password == "" {
		c.password = modelPassword
		c.user, err = i.accounts.Register(c.t.Context(), newMember(uuid.NewString()+"@example.com"), c.password)
	}
	if err == nil {
		cfg.Now = i.clock.now
		i.Database, err = strategy.NewDatabase(c.tokens, strategy.UserSource[member, uuid.UUID](c.users), cfg)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(i.Close)
	c.caches = append(c.caches, i)
	return i
}

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// apart returns two instances whose clocks differ.
func apart(t *testing.T, by time.Duration, cfg strategy.Config) (slow, fast *clockInstance) {
	t.Helper()
	c := newClockRig(t, inMemory)
	return c.at(noon, cfg), c.at(noon.Add(by), cfg)
}

// advance moves the clocks of instances.
func advance(d time.Duration, instances ...*clockInstance) {
	for _, i := range instances {
		i.clock.advance(d)
	}
}

// login logs in with the password and returns the token.
func (i *clockInstance) login(opts ...strategy.TokenOption) string {
	i.t.Helper()
	token, err := i.tryLogin(i.rig.password, opts...)
	if err != nil {
		i.t.Fatal(err)
	}
	return token
}

func (i *clockInstance) tryLogin(password string, opts ...strategy.TokenOption) (string, error) {
	at := i.clock.now()
	user, _, err := i.accounts.Authenticate(i.t.Context(), i.rig.user.Email, password, "")
	if err != nil {
		return "", err
	}
	secret, _, err := i.WriteToken(i.t.Context(), user, append([]strategy.TokenOption{strategy.WithAuthenticatedAt(at)}, opts...)...)
	return secret.Reveal(), err
}

// accepts reports whether a token is valid.
func (i *clockInstance) accepts(token string) bool {
	i.t.Helper()
	_, err := i.ReadToken(i.t.Context(), token)
	if err != nil && !errors.Is(err, strategy.ErrInvalidToken) {
		i.t.Fatal(err)
	}
	return err == nil
}

func (i *clockInstance) want(accepted bool, token, when string) {
	i.t.Helper()
	if got := i.accepts(token); got != accepted {
		i.t.Errorf("%s: accepted %v, want %v", when, got, accepted)
	}
}

// failLogin tries a wrong password. It returns how long to wait if the limiter rejected
// the attempt, else 0.
func (i *clockInstance) failLogin() time.Duration {
	i.t.Helper()
	_, _, err := i.accounts.Authenticate(i.t.Context(), i.rig.user.Email, i.rig.password+"?", "")
	if wait, ok := errors.AsType[*account.TooManyAttemptsError](err); ok {
		return wait.RetryAfter
	}
	if !errors.Is(err, account.ErrBadCredentials) {
		i.t.Fatal(err)
	}
	return 0
}

// changes are the changes of an account that invalidate every token issued earlier.
var changes = map[string]func(context.Context, *clockInstance) error{
	"password change": func(ctx context.Context, i *clockInstance) error {
		_, err := i.changePassword(ctx)
		return err
	},
	"deactivation": func(ctx context.Context, i *clockInstance) error {
		return errors.Join(i.accounts.Deactivate(ctx, i.rig.user.ID), i.accounts.Activate(ctx, i.rig.user.ID))
	},
	"revocation": func(ctx context.Context, i *clockInstance) error {
		return i.accounts.RevokeTokens(ctx, i.rig.user.ID)
	},
}

func (i *clockInstance) changePassword(ctx context.Context) (member, error) {
	next := i.rig.password + "!"
	user, err := i.accounts.ChangePassword(ctx, i.rig.user.ID, i.rig.password, next)
	if err == nil {
		i.rig.password = next
	}
	return user, err
}

func (i *clockInstance) change(name string) {
	i.t.Helper()
	if err := changes[name](i.t.Context(), i); err != nil {
		i.t.Fatal(err)
	}
}

// eachStore runs a test on stores in memory and on each server.
func eachStore(t *testing.T, test func(t *testing.T, stores func() storeSet)) {
	t.Run("memory", func(t *testing.T) { test(t, inMemory) })
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) { test(t, onServer(t, b.start(t))) })
	}
}

func TestClockEachInstanceUsesItsOwnForLifetimes(t *testing.T) {
	slow, fast := apart(t, 30*time.Second, strategy.Config{Lifetime: time.Hour})
	ofSlow, ofFast := slow.login(), fast.login()
	advance(time.Hour-30*time.Second, slow, fast)
	fast.want(true, ofSlow, "the slow instance's token on the fast one, after an hour by its clock")
	advance(time.Millisecond, slow, fast)
	fast.want(false, ofSlow, "the slow instance's token on the fast one, a millisecond later")
	slow.want(true, ofSlow, "the slow instance's token where it was issued")
	advance(30*time.Second, slow, fast)
	slow.want(false, ofSlow, "the slow instance's token where it was issued, after an hour")
	fast.want(false, ofFast, "the fast instance's token where it was issued, after an hour")
	slow.want(true, ofFast, "the fast instance's token on the slow one, after an hour")
	advance(30*time.Second, slow, fast)
	slow.want(false, ofFast, "the fast instance's token on the slow one, half a minute later")

	short := slow.login(strategy.WithLifetime(10 * time.Second))
	slow.want(true, short, "a token of 10 seconds where it was issued")
	fast.want(false, short, "a token of 10 seconds on the fast instance")
}

func TestClockDifferencesDoNotAffectRevocations(t *testing.T) {
	revoke := map[string]func(i *clockInstance, token string) error{
		"a token": func(i *clockInstance, token string) error { return i.DestroyToken(i.t.Context(), token) },
		"a rotated token": func(i *clockInstance, token string) error {
			_, _, err := i.RotateToken(i.t.Context(), token)
			return err
		},
		"a session": func(i *clockInstance, token string) error {
			s, err := i.ReadToken(i.t.Context(), token)
			if err != nil {
				return err
			}
			return i.DestroySession(i.t.Context(), i.rig.user.ID, s.ID)
		},
		"all sessions": func(i *clockInstance, _ string) error { return i.DestroyAll(i.t.Context(), i.rig.user.ID) },
	}
	eachStore(t, func(t *testing.T, stores func() storeSet) {
		for _, by := range []time.Duration{30 * time.Second, time.Hour} {
			t.Run(fmt.Sprintf("%v apart", by), func(t *testing.T) {
				c := newClockRig(t, stores)
				// Longer than the difference of the clocks, so that no token expires.
				cfg := strategy.Config{Lifetime: 24 * time.Hour, IdleTimeout: 12 * time.Hour}
				slow, fast := c.at(noon, cfg), c.at(noon.Add(by), cfg)
				for name, revoke := range revoke {
					for _, from := range []*clockInstance{slow, fast} {
						for _, on := range []*clockInstance{slow, fast} {
							token := from.login()
							slow.want(true, token, "before the revocation")
							fast.want(true, token, "before the revocation")
							if err := revoke(on, token); err != nil {
								t.Fatal(err)
							}
							slow.want(false, token, name+" revoked, on the slow instance")
							fast.want(false, token, name+" revoked, on the fast instance")
						}
					}
				}
			})
		}
	})
}

// The token version orders logins and changes, not the clocks.
func TestClockAheadDoesNotLetTokensOutliveAChange(t *testing.T) {
	for _, by := range []time.Duration{0, 30 * time.Second, time.Hour} {
		for _, cached := range []bool{false, true} {
			// Longer than the difference of the clocks, so that no token expires.
			cfg := strategy.Config{Lifetime: 24 * time.Hour}
			if cached {
				cfg.Cache.MaxStaleness = time.Minute
			}
			for name := range changes {
				t.Run(fmt.Sprintf("%s, %v apart, cached %v", name, by, cached), func(t *testing.T) {
					slow, fast := apart(t, by, cfg)
					for _, from := range []*clockInstance{slow, fast} {
						for _, on := range []*clockInstance{slow, fast} {
							var before []string
							for range 3 { // long before the change, and just before it
								before = append(before, from.login(), from.login(strategy.WithScopes("read")))
								advance(11*time.Second, slow, fast)
							}
							before = append(before, from.login())
							for _, token := range before {
								slow.want(true, token, "before the change")
								fast.want(true, token, "before the change")
							}
							on.change(name)
							after := []string{slow.login(), fast.login()}
							for _, i := range []*clockInstance{slow, fast} {
								for _, token := range before {
									i.want(false, token, "a token from before the change")
								}
								for _, token := range after {
									i.want(true, token, "a token from after the change")
								}
							}
						}
					}
				})
			}
		}
	}
}

// The same on the server, where the change is one update.
func TestClockAheadDoesNotLetTokensOutliveAChangeOnTheServer(t *testing.T) {
	for _, by := range []time.Duration{30 * time.Second, time.Hour} {
		t.Run(fmt.Sprintf("%v apart", by), func(t *testing.T) {
			c := newClockRig(t, onServer(t, onMongoDB(t)))
			cfg := strategy.Config{Lifetime: 24 * time.Hour}
			slow, fast := c.at(noon, cfg), c.at(noon.Add(by), cfg)
			for name := range changes {
				for _, on := range []*clockInstance{slow, fast} {
					before := fast.login()
					slow.want(true, before, "before the change")
					on.change(name)
					after := slow.login()
					for _, i := range []*clockInstance{slow, fast} {
						i.want(false, before, name+", a token from before it")
						i.want(true, after, name+", a token from after it")
					}
				}
			}
		})
	}
}

// interrupted runs a function once, just before a change is stored.
type interrupted struct {
	userStore
	do func()
}

func (s *interrupted) interrupt() {
	if do := s.do; do != nil {
		s.do = nil
		do()
	}
}

func (s *interrupted) Apply(ctx context.Context, id uuid.UUID, change account.Change) error {
	s.interrupt()
	return s.userStore.Apply(ctx, id, change)
}

// A change reads the account and then writes it. In between, another instance, whose clock
// is ahead, can revoke all tokens, and a login can see the version of that revocation.
func TestChangeEndsALoginThatSawAConcurrentRevocation(t *testing.T) {
	eachStore(t, func(t *testing.T, stores func() storeSet) {
		for name := range changes {
			for _, by := range []time.Duration{0, time.Second, time.Hour} {
				t.Run(fmt.Sprintf("%s, %v apart", name, by), func(t *testing.T) {
					c := newClockRig(t, stores)
					users := &interrupted{userStore: c.users}
					cfg := strategy.Config{Lifetime: 24 * time.Hour}
					fast := c.at(noon.Add(by), cfg)
					c.users = users
					slow := c.at(noon, cfg)
					var between string
					users.do = func() {
						fast.change("revocation")
						between = fast.login()
						slow.want(true, between, "before the change is stored")
					}
					slow.change(name)
					for _, i := range []*clockInstance{slow, fast} {
						i.want(false, between, "a token from before the change was stored")
						i.want(true, slow.login(), "a token from after the change")
					}
				})
			}
		}
	})
}

// Logins run on both instances while one of them changes the account. A login whose
// password was checked before the change began, and a login with the old password, must not
// outlive it.
func TestLoginsConcurrentWithAChangeDoNotOutliveIt(t *testing.T) {
	const rounds, concurrent = 24, 6
	eachStore(t, func(t *testing.T, stores func() storeSet) {
		for name := range changes {
			t.Run(name, func(t *testing.T) {
				c := newClockRig(t, stores)
				c.noLimiter = true
				cfg := strategy.Config{Lifetime: 24 * time.Hour}
				instances := []*clockInstance{c.at(noon, cfg), c.at(noon.Add(time.Hour), cfg)}
				var succeeded, valid int
				for round := range rounds {
					c.concurrentLogins(instances, name, instances[round%2], concurrent, &succeeded, &valid)
				}
				t.Logf("%d concurrent logins succeeded; %d of them saw the change and are valid", succeeded, valid)
				if name == "password change" && valid > 0 {
					t.Errorf("%d logins with the old password are valid after the change", valid)
				}
			})
		}
	})
}

// concurrentLogins makes one change on an instance, and logins on all of them.
func (c *clockRig) concurrentLogins(instances []*clockInstance, change string, on *clockInstance, n int, succeeded, valid *int) {
	c.t.Helper()
	var (
		logins                   sync.WaitGroup
		mu                       sync.Mutex
		before, inFlight, during []string
		password                 = c.password
	)
	pause := func() { // so that logins begin and end before, during and after the change
		time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
	}
	for _, i := range instances {
		before = append(before, i.login())
		user, _, err := i.accounts.Authenticate(c.t.Context(), c.user.Email, password, "")
		if err != nil {
			c.t.Fatal(err)
		}
		logins.Go(func() {
			pause()
			secret, _, err := i.WriteToken(c.t.Context(), user)
			if err != nil {
				c.t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			inFlight = append(inFlight, secret.Reveal())
		})
	}
	for k := range n {
		logins.Go(func() {
			pause()
			token, err := instances[k%len(instances)].tryLogin(password)
			switch {
			case err == nil:
				mu.Lock()
				defer mu.Unlock()
				during = append(during, token)
			case !errors.Is(err, account.ErrBadCredentials): // the old password, or an inactive account
				c.t.Error(err)
			}
		})
	}
	pause()
	on.change(change)
	logins.Wait()
	after := on.login()
	for _, i := range instances {
		for _, token := range before {
			i.want(false, token, "a login before the change")
		}
		for _, token := range inFlight {
			i.want(false, token, "a login in flight when the change began")
		}
		i.want(true, after, "a login after the change")
	}
	for _, token := range during {
		*succeeded++
		accepted := on.accepts(token)
		if accepted {
			*valid++
		}
		for _, i := range instances {
			i.want(accepted, token, "a concurrent login, as on the other instance")
		}
	}
	if err := on.DestroyAll(c.t.Context(), c.user.ID); err != nil { // for the next round
		c.t.Fatal(err)
	}
}

// The user who changes the password keeps the session, on any instance.
func TestRenewedSessionOutlivesThePasswordChange(t *testing.T) {
	for _, by := range []time.Duration{0, 30 * time.Second, time.Hour} {
		slow, fast := apart(t, by, strategy.Config{Lifetime: 24 * time.Hour})
		for _, from := range []*clockInstance{slow, fast} {
			for _, on := range []*clockInstance{slow, fast} {
				own, other := from.login(), from.login()
				at := on.clock.now()
				user, err := on.changePassword(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				renewed, _, err := on.RotateToken(t.Context(), own, strategy.WithReauthentication(user, at))
				if err != nil {
					t.Fatal(err)
				}
				for _, i := range []*clockInstance{slow, fast} {
					i.want(true, renewed.Reveal(), "the renewed session")
					i.want(false, other, "another session")
				}
			}
		}
	}
}

// The password change returns the version that it read plus 1. With a revocation in
// between, that is not the account's version.
func TestSessionIsNotRenewedAfterAConcurrentRevocation(t *testing.T) {
	c := newClockRig(t, inMemory)
	users := &interrupted{userStore: c.users}
	c.users = users
	i := c.at(noon, strategy.Config{Lifetime: 24 * time.Hour})
	token := i.login()
	users.do = func() { i.change("revocation") }
	user, err := i.changePassword(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = i.RotateToken(t.Context(), token, strategy.WithReauthentication(user, i.clock.now()))
	if !errors.Is(err, strategy.ErrInvalidToken) {
		t.Errorf("the renewal: %v, want ErrInvalidToken", err)
	}
}

// A row without a version has the version 0.
func TestRowWithoutAVersionIsInvalidAfterAChange(t *testing.T) {
	for name := range changes {
		t.Run(name, func(t *testing.T) {
			c := newClockRig(t, inMemory)
			tokens := c.tokens
			c.tokens = dropsVersion{tokens}
			cfg := strategy.Config{Lifetime: time.Hour}
			without := c.at(noon.Add(30*time.Second), cfg)
			c.tokens = tokens
			i := c.at(noon, cfg)
			before := without.login()
			i.want(true, before, "before any change")
			i.change(name)
			i.want(false, before, "after the change")
			i.want(false, without.login(), "a later login without a version")
			after := i.login()
			i.want(true, after, "a later login with a version")
			user, err := i.accounts.Reauthenticate(t.Context(), c.user, c.password)
			if err != nil {
				t.Fatal(err)
			}
			renewed, _, err := i.RotateToken(t.Context(), after, strategy.WithReauthentication(user, i.clock.now()))
			if err != nil {
				t.Fatal(err)
			}
			i.change(name)
			i.want(false, renewed.Reveal(), "a session renewed before the second change")
		})
	}
}

func TestClockDifferencesShortenTheIdleTimeout(t *testing.T) {
	for _, c := range []struct {
		idle     time.Duration
		accepted bool // on the fast instance, while the session is used on the slow one
	}{{30 * time.Second, false}, {40 * time.Second, true}} {
		t.Run(c.idle.String(), func(t *testing.T) {
			slow, fast := apart(t, 30*time.Second, strategy.Config{IdleTimeout: c.idle})
			token := slow.login()
			for range 20 {
				advance(2*time.Second, slow, fast)
				slow.want(true, token, "in use")
			}
			advance(time.Millisecond, slow, fast)
			fast.want(c.accepted, token, "on the fast instance")
			slow.want(true, token, "on the slow instance, after that")
		})
	}
	slow, fast := apart(t, 30*time.Second, strategy.Config{IdleTimeout: time.Minute})
	token := fast.login()
	advance(time.Minute+time.Millisecond, slow, fast)
	fast.want(false, token, "idle, where it was used")
	advance(30*time.Second-time.Millisecond, slow, fast)
	slow.want(true, token, "idle, on the slow instance half a minute later")
	advance(time.Minute+time.Millisecond, slow)
	slow.want(false, token, "idle on the slow instance too")
}

func TestClockBehindDoesNotEvictTheNewLogin(t *testing.T) {
	for _, by := range []time.Duration{5 * time.Second, 30 * time.Second, time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			slow, fast := apart(t, by, strategy.Config{Lifetime: 24 * time.Hour, MaxSessions: 2})
			for range 3 {
				for _, i := range []*clockInstance{fast, fast, slow, slow, slow, fast} {
					token := i.login()
					slow.want(true, token, "a new login")
					fast.want(true, token, "a new login")
					page, err := slow.Sessions(t.Context(), i.rig.user.ID, strategy.Page{})
					if err != nil || len(page.Sessions) > 2 {
						t.Errorf("%d sessions (error %v), want at most 2", len(page.Sessions), err)
					}
					advance(time.Second, slow, fast)
				}
			}
		})
	}
}

// The limiter's default for an account is a wait of a minute after ten failures.
func TestClockDifferencesChangeTheWaitsOfTheLimiter(t *testing.T) {
	const failures, delay = 10, time.Minute
	for name, c := range map[string]struct {
		ahead      time.Duration
		wait       time.Duration
		retryAfter time.Duration
	}{
		// RetryAfter is at most the delay, however far ahead the clock is.
		"failures on the fast instance, a login on the slow one": {30 * time.Second, delay + 30*time.Second, delay},
		"failures on the slow instance, a login on the fast one": {-30 * time.Second, delay - 30*time.Second, delay - 30*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			rig := newClockRig(t, inMemory)
			other, i := rig.at(noon.Add(c.ahead), strategy.Config{}), rig.at(noon, strategy.Config{})
			for range failures {
				if wait := other.failLogin(); wait != 0 {
					t.Fatalf("a free failure must wait for %v", wait)
				}
			}
			if wait := i.failLogin(); wait != c.retryAfter {
				t.Errorf("RetryAfter is %v, want %v", wait, c.retryAfter)
			}
			advance(c.wait-time.Millisecond, i, other)
			if wait := i.failLogin(); wait != time.Millisecond {
				t.Errorf("a millisecond before its end, the wait is %v", wait)
			}
			advance(time.Millisecond, i, other)
			if wait := i.failLogin(); wait != 0 {
				t.Errorf("at its end, the wait is %v", wait)
			}
		})
	}
}

// withSession returns an instance and a session on it, for tests that set the clock.
func withSession(t *testing.T, cfg strategy.Config) (i *clockInstance, token string) {
	t.Helper()
	i = newClockRig(t, inMemory).at(noon, cfg)
	return i, i.login()
}

func TestClockSetBackAnHour(t *testing.T) {
	cfg := strategy.Config{Lifetime: 2 * time.Hour, IdleTimeout: 30 * time.Minute}
	t.Run("earlier tokens live an hour longer", func(t *testing.T) {
		i, token := withSession(t, strategy.Config{Lifetime: cfg.Lifetime})
		advance(-time.Hour, i)
		i.want(true, token, "at once")
		advance(3*time.Hour, i)
		i.want(true, token, "after the lifetime and an hour")
		advance(time.Millisecond, i)
		i.want(false, token, "a millisecond later")
	})
	t.Run("idle sessions end an hour later", func(t *testing.T) {
		i, token := withSession(t, cfg)
		advance(-time.Hour, i)
		advance(90*time.Minute, i)
		session, err := i.ReadToken(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		if !session.LastUsedAt.Equal(i.clock.now()) {
			t.Errorf("last used at %v, want now, %v", session.LastUsedAt, i.clock.now())
		}
	})
	t.Run("used sessions stay valid", func(t *testing.T) {
		i, token := withSession(t, strategy.Config{IdleTimeout: 30 * time.Minute})
		advance(-time.Hour, i)
		for range 40 { // far beyond the time at which the clock was set back
			advance(5*time.Minute, i)
			i.want(true, token, "in use")
		}
	})
	t.Run("revoked tokens stay revoked", func(t *testing.T) {
		i, token := withSession(t, cfg)
		if err := i.DestroyToken(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		advance(-time.Hour, i)
		i.want(false, token, "revoked")
	})
	for name := range changes {
		t.Run("an earlier "+name+" still holds", func(t *testing.T) {
			i, token := withSession(t, cfg)
			i.change(name)
			advance(-time.Hour, i)
			i.want(false, token, "from before the change")
			later := i.login()
			i.want(true, later, "from after the clock was set")
			i.change(name)
			i.want(false, later, "from before the second change")
			i.want(true, i.login(), "from after the second change")
		})
		t.Run("a later "+name+" ends earlier logins", func(t *testing.T) {
			i, token := withSession(t, cfg)
			advance(-time.Hour, i)
			i.change(name)
			i.want(false, token, "from before the clock was set")
			i.want(true, i.login(), "from after the change")
		})
		t.Run("a later "+name+" ends logins after earlier changes", func(t *testing.T) {
			i, _ := withSession(t, cfg)
			i.change(name)
			i.change(name) // in the same millisecond
			token := i.login()
			i.want(true, token, "before the clock is set")
			advance(-time.Hour, i)
			i.change(name)
			i.want(false, token, "from before the last change")
			i.want(true, i.login(), "from after the last change")
		})
	}
	t.Run("logins succeed at the session limit", func(t *testing.T) {
		i, _ := withSession(t, strategy.Config{MaxSessions: 1})
		advance(-time.Hour, i)
		for range 3 {
			token := i.login()
			i.want(true, token, "a new login")
			advance(time.Minute, i)
		}
	})
	t.Run("a wait of the limiter lasts an hour longer", func(t *testing.T) {
		i, _ := withSession(t, cfg)
		for range 10 {
			i.failLogin()
		}
		advance(-time.Hour, i)
		for range 60 {
			if wait := i.failLogin(); wait != time.Minute {
				t.Fatalf("the wait is %v, want a minute", wait)
			}
			advance(time.Minute, i)
		}
		advance(time.Minute, i)
		if wait := i.failLogin(); wait != 0 {
			t.Errorf("an hour and a minute later the wait is %v, want none", wait)
		}
	})
	t.Run("free failures stay free", func(t *testing.T) {
		i, _ := withSession(t, cfg)
		for range 5 {
			i.failLogin()
		}
		advance(-time.Hour, i)
		i.login()
	})
}

func TestClockSetForwardAnHourAndBack(t *testing.T) {
	cfg := strategy.Config{Lifetime: 50 * time.Minute, IdleTimeout: 20 * time.Minute}
	t.Run("tokens expire, and are valid again", func(t *testing.T) {
		i, token := withSession(t, cfg)
		advance(time.Hour, i)
		i.want(false, token, "an hour ahead")
		page, err := i.Sessions(t.Context(), i.rig.user.ID, strategy.Page{})
		if err != nil || len(page.Sessions) > 0 {
			t.Errorf("%d sessions are listed an hour ahead (error %v), want none", len(page.Sessions), err)
		}
		advance(-time.Hour, i)
		i.want(true, token, "back")
	})
	t.Run("a login an hour ahead lives an hour longer", func(t *testing.T) {
		i, _ := withSession(t, cfg)
		advance(time.Hour, i)
		token := i.login()
		advance(-time.Hour, i)
		i.want(true, token, "back")
		advance(110*time.Minute, i)
		i.want(false, token, "an hour after its lifetime")
	})
	t.Run("the next login enforces the session limit", func(t *testing.T) {
		i, first := withSession(t, strategy.Config{Lifetime: cfg.Lifetime, MaxSessions: 1})
		advance(time.Hour, i)
		second := i.login()
		advance(-time.Hour, i)
		third := i.login()
		i.want(false, first, "the first login")
		i.want(false, second, "the second login, an hour ahead")
		i.want(true, third, "the third login")
	})
	for name := range changes {
		t.Run("a "+name+" an hour ahead holds", func(t *testing.T) {
			i, token := withSession(t, cfg)
			advance(time.Hour, i)
			i.change(name)
			advance(-time.Hour, i)
			i.want(false, token, "from before the change")
			i.want(true, i.login(), "from after the change")
		})
	}
	t.Run("waits of the limiter end", func(t *testing.T) {
		i, _ := withSession(t, cfg)
		for range 10 {
			i.failLogin()
		}
		advance(time.Hour, i)
		if wait := i.failLogin(); wait != 0 {
			t.Errorf("the wait is %v, want none", wait)
		}
		if wait := i.failLogin(); wait != 2*time.Minute {
			t.Errorf("after one more failure the wait is %v, want 2 minutes: the failures still count", wait)
		}
	})
}

// A purge cannot be undone: an instance whose clock is ahead by more than the grace deletes
// tokens that other instances still accept.
func TestClockFarAheadPurgesLiveTokens(t *testing.T) {
	db := newDatabase(t)
	tokens, users := modelTokens(t, db), modelUsers(t, db)
	c := newClockRig(t, func() storeSet { return storeSet{tokens: tokens, users: users} })
	i := c.at(noon, strategy.Config{Lifetime: time.Hour})
	token := i.login()
	for _, p := range []struct {
		ahead    time.Duration
		accepted bool
	}{{30 * time.Second, true}, {time.Hour + 5*time.Minute, true}, {time.Hour + 5*time.Minute + time.Millisecond, false}} {
		purging, err := mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{
			Lifetime: time.Hour, Now: func() time.Time { return i.clock.now().Add(p.ahead) },
		})
		if err == nil {
			_, err = purging.Purge(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		i.want(p.accepted, token, fmt.Sprintf("after a purge by a clock %v ahead", p.ahead))
	}
}

// A cached session is used for MaxStaleness by a steady clock. If the clock was set, it is
// read again at once.
func TestSettingTheClockEmptiesTheCache(t *testing.T) {
	const stale = 30 * time.Second
	for _, set := range []time.Duration{0, -time.Hour, time.Hour, -stale - time.Millisecond, stale + time.Millisecond} {
		t.Run(set.String(), func(t *testing.T) {
			c := newClockRig(t, inMemory)
			c.tokens = countingTokens{c.tokens, new(atomic.Int64)} // hides the RevocationLog
			cfg := strategy.Config{Lifetime: 24 * time.Hour}
			other := c.at(noon, cfg)
			cfg.Cache.MaxStaleness = stale
			i := c.at(noon, cfg)
			token := i.login()
			i.want(true, token, "the first read")
			if err := other.DestroyToken(t.Context(), token); err != nil {
				t.Fatal(err)
			}
			advance(set, i)
			i.want(set == 0, token, "revoked by another instance, after the clock was set")
			// The cache still works.
			token = i.login()
			i.want(true, token, "the first read of the next session")
			if err := other.DestroyToken(t.Context(), token); err != nil {
				t.Fatal(err)
			}
			i.want(true, token, "from the cache")
			advance(stale+time.Millisecond, i)
			i.want(false, token, "after MaxStaleness")
		})
	}
}

// The server sets the times of revocations, so the clocks of instances do not matter.
func TestClockDifferencesDoNotAffectRevocationsBetweenCaches(t *testing.T) {
	c := newClockRig(t, onServer(t, onMongoDB(t)))
	cfg := strategy.Config{Lifetime: 24 * time.Hour, Cache: strategy.Cache{MaxStaleness: time.Minute, FollowInterval: 10 * time.Millisecond}}
	slow, fast := c.at(noon, cfg), c.at(noon.Add(time.Hour), cfg)
	for _, on := range []*clockInstance{slow, fast} {
		token := slow.login()
		slow.want(true, token, "before the revocation")
		fast.want(true, token, "before the revocation")
		if err := on.DestroyToken(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		for _, i := range []*clockInstance{slow, fast} {
			eventuallyTrue(t, 20*time.Second, "the revoked token is refused", func() bool { return !i.accepts(token) })
		}
	}
}

// The log counts lines a minute by real time, not by the times of events.
func TestSettingTheClockDoesNotRaiseTheLogLimit(t *testing.T) {
	var out bytes.Buffer
	log := event.Log(slog.New(slog.NewTextHandler(&out, nil)))
	i := newClockRig(t, inMemory).at(noon, strategy.Config{OnEvent: log})
	malformed := strings.Repeat("no token", 3)
	for n := range 300 {
		advance([]time.Duration{time.Hour, -time.Hour, 2 * time.Minute, -2 * time.Minute}[n%4], i)
		i.want(false, malformed, "a malformed token")
	}
	if lines := strings.Count(out.String(), "\n"); lines != 100 {
		t.Errorf("%d lines were written, want 100", lines)
	}
}
