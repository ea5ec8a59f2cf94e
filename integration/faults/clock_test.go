package faults_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/internal/contract"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

// clocked is an instance of an application with a clock of its own.
type clocked struct {
	*strategy.Database[contract.Member, uuid.UUID]
	t        *testing.T
	clock    *fakeClock
	accounts *account.Manager[contract.Member, uuid.UUID]
	user     contract.Member
	password *string
}

// clocks are instances over the same stores.
type clocks struct {
	t        *testing.T
	tokens   tokenStore
	users    userStore
	attempts account.AttemptStore
	user     contract.Member
	password string
}

func newClocks(t *testing.T, stores func() (tokenStore, userStore, func(time.Duration, func() time.Time) error)) *clocks {
	t.Helper()
	c := &clocks{t: t}
	c.tokens, c.users, _ = stores()
	attempts, err := account.NewMemoryAttempts(0)
	if err != nil {
		t.Fatal(err)
	}
	c.attempts = attempts
	return c
}

// at returns an instance whose clock says something. The first one registers the
// user.
func (c *clocks) at(at time.Time, cfg strategy.Config) *clocked {
	c.t.Helper()
	i := &clocked{t: c.t, clock: &fakeClock{at: at}, password: &c.password}
	limiter, err := account.NewLimiter(c.attempts, account.LimiterConfig{Now: i.clock.now})
	if err == nil {
		i.accounts, err = account.NewManager(c.users, uuid.New, account.Config{
			Argon2: account.Argon2{MemoryKiB: 8, Iterations: 1, Parallelism: 1}, InsecureArgon2: true, Limiter: limiter, Now: i.clock.now,
		})
	}
	if err == nil && c.password == "" {
		c.password = modelPassword
		c.user, err = i.accounts.Register(c.t.Context(), contract.Member{User: account.User[uuid.UUID]{Email: uuid.NewString() + "@example.com"}}, c.password)
	}
	if err == nil {
		i.user = c.user
		cfg.Now = i.clock.now
		i.Database, err = strategy.NewDatabase(c.tokens, strategy.UserSource[contract.Member, uuid.UUID](c.users), cfg)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(i.Close)
	return i
}

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// apart returns two instances whose clocks are some time apart.
func apart(t *testing.T, by time.Duration, cfg strategy.Config) (slow, fast *clocked) {
	t.Helper()
	c := newClocks(t, inMemory)
	return c.at(noon, cfg), c.at(noon.Add(by), cfg)
}

// pass lets time pass for all.
func pass(d time.Duration, all ...*clocked) {
	for _, i := range all {
		i.clock.pass(d)
	}
}

// login logs in and returns the token.
func (i *clocked) login(opts ...strategy.TokenOption) string {
	i.t.Helper()
	at := i.clock.now()
	user, err := i.accounts.Authenticate(i.t.Context(), i.user.Email, *i.password)
	if err != nil {
		i.t.Fatal(err)
	}
	secret, _, err := i.WriteToken(i.t.Context(), user, append([]strategy.TokenOption{strategy.WithAuthenticatedAt(at)}, opts...)...)
	if err != nil {
		i.t.Fatal(err)
	}
	return secret.Reveal()
}

// accepts reports whether a token is good.
func (i *clocked) accepts(token string) bool {
	i.t.Helper()
	_, err := i.ReadToken(i.t.Context(), token)
	if err != nil && !errors.Is(err, strategy.ErrInvalidToken) {
		i.t.Fatal(err)
	}
	return err == nil
}

func (i *clocked) want(accepted bool, token, when string) {
	i.t.Helper()
	if got := i.accepts(token); got != accepted {
		i.t.Errorf("%s: accepted %v, want %v", when, got, accepted)
	}
}

// fails tries a wrong password, and returns how long to wait where it was not
// looked at.
func (i *clocked) fails() time.Duration {
	i.t.Helper()
	_, err := i.accounts.Authenticate(i.t.Context(), i.user.Email, *i.password+"?")
	if wait, ok := errors.AsType[*account.TooManyAttemptsError](err); ok {
		return wait.RetryAfter
	}
	if !errors.Is(err, account.ErrBadCredentials) {
		i.t.Fatal(err)
	}
	return 0
}

// changes end all tokens of before.
var changes = map[string]func(context.Context, *clocked) error{
	"password": func(ctx context.Context, i *clocked) error {
		next := *i.password + "!"
		_, err := i.accounts.ChangePassword(ctx, i.user.ID, *i.password, next)
		if err == nil {
			*i.password = next
		}
		return err
	},
	"deactivated and activated": func(ctx context.Context, i *clocked) error {
		return errors.Join(i.accounts.Deactivate(ctx, i.user.ID), i.accounts.Activate(ctx, i.user.ID))
	},
	"revoked": func(ctx context.Context, i *clocked) error { return i.accounts.RevokeTokens(ctx, i.user.ID) },
}

func (i *clocked) change(name string) {
	i.t.Helper()
	if err := changes[name](i.t.Context(), i); err != nil {
		i.t.Fatal(err)
	}
}

func TestClockEachInstanceGoesByItsOwnForLifetimes(t *testing.T) {
	slow, fast := apart(t, 30*time.Second, strategy.Config{Lifetime: time.Hour})
	ofSlow, ofFast := slow.login(), fast.login()
	pass(time.Hour-30*time.Second, slow, fast)
	fast.want(true, ofSlow, "on the fast one, an hour by its clock")
	pass(time.Millisecond, slow, fast)
	fast.want(false, ofSlow, "on the fast one, a millisecond later")
	slow.want(true, ofSlow, "where it was issued")
	pass(30*time.Second, slow, fast)
	slow.want(false, ofSlow, "where it was issued, after an hour")
	fast.want(false, ofFast, "where it was issued, after an hour")
	slow.want(true, ofFast, "on the slow one, after an hour")
	pass(30*time.Second, slow, fast)
	slow.want(false, ofFast, "on the slow one, half a minute later")

	short := slow.login(strategy.WithLifetime(10 * time.Second))
	slow.want(true, short, "a short one where it was issued")
	fast.want(false, short, "a short one on the fast one")
}

func TestClockRevocationsHoldWhateverItSays(t *testing.T) {
	ends := map[string]func(i *clocked, token string) error{
		"token":    func(i *clocked, token string) error { return i.DestroyToken(i.t.Context(), token) },
		"rotation": func(i *clocked, token string) error { _, _, err := i.RotateToken(i.t.Context(), token); return err },
		"session": func(i *clocked, token string) error {
			s, err := i.ReadTokenInfo(i.t.Context(), token)
			return errors.Join(err, i.DestroySession(i.t.Context(), i.user.ID, s.ID))
		},
		"all": func(i *clocked, _ string) error { return i.DestroyAll(i.t.Context(), i.user.ID) },
	}
	for _, by := range []time.Duration{30 * time.Second, time.Hour} {
		for _, stores := range []struct {
			name string
			new  func() (tokenStore, userStore, func(time.Duration, func() time.Time) error)
		}{{"memory", inMemory}, {"MongoDB", onServer(t)}} {
			t.Run(fmt.Sprintf("%s, %v apart", stores.name, by), func(t *testing.T) {
				c := newClocks(t, stores.new)
				// Longer than the clocks are apart: else lifetimes would hide something.
				cfg := strategy.Config{Lifetime: 24 * time.Hour, IdleTimeout: 12 * time.Hour}
				slow, fast := c.at(noon, cfg), c.at(noon.Add(by), cfg)
				for name, end := range ends {
					for _, from := range []*clocked{slow, fast} {
						for _, on := range []*clocked{slow, fast} {
							token := from.login()
							slow.want(true, token, "before")
							fast.want(true, token, "before")
							if err := end(on, token); err != nil {
								t.Fatal(err)
							}
							slow.want(false, token, name+", on the slow one")
							fast.want(false, token, name+", on the fast one")
						}
					}
				}
			})
		}
	}
}

// A login is ordered with changes by what it saw of the account, not by the clocks.
func TestClockAChangeEndsLoginsOfClocksThatAreFarAhead(t *testing.T) {
	for _, by := range []time.Duration{0, 10*time.Second - time.Millisecond, 30 * time.Second, time.Hour} {
		for _, cached := range []bool{false, true} {
			// Longer than the clocks are apart: else lifetimes would hide something.
			cfg := strategy.Config{Lifetime: 24 * time.Hour}
			if cached {
				cfg.Cache.MaxStaleness = time.Minute
			}
			for name := range changes {
				t.Run(fmt.Sprintf("%s, %v apart, cached %v", name, by, cached), func(t *testing.T) {
					slow, fast := apart(t, by, cfg)
					for _, from := range []*clocked{slow, fast} {
						for _, on := range []*clocked{slow, fast} {
							var before []string
							for range 3 { // long before, and just before
								before = append(before, from.login(), from.login(strategy.WithScopes("read")))
								pass(11*time.Second, slow, fast)
							}
							before = append(before, from.login())
							for _, token := range before {
								slow.want(true, token, "before")
								fast.want(true, token, "before")
							}
							on.change(name)
							after := []string{slow.login(), fast.login()}
							for _, i := range []*clocked{slow, fast} {
								for _, token := range before {
									i.want(false, token, "a token of before")
								}
								for _, token := range after {
									i.want(true, token, "a token of afterwards")
								}
							}
						}
					}
				})
			}
		}
	}
}

// The same over MongoDB, where the change is one update.
func TestClockAChangeEndsLoginsOfClocksThatAreFarAheadOnAServer(t *testing.T) {
	c := newClocks(t, onServer(t))
	cfg := strategy.Config{Lifetime: 24 * time.Hour}
	slow, fast := c.at(noon, cfg), c.at(noon.Add(time.Hour), cfg)
	for name := range changes {
		for _, on := range []*clocked{slow, fast} {
			before := fast.login()
			slow.want(true, before, "before")
			on.change(name)
			after := slow.login()
			for _, i := range []*clocked{slow, fast} {
				i.want(false, before, name+", a token of before")
				i.want(true, after, name+", a token of afterwards")
			}
		}
	}
}

// besides runs something once, before a change is written.
type besides struct {
	userStore
	do func()
}

func (s *besides) before() {
	if do := s.do; do != nil {
		s.do = nil
		do()
	}
}

func (s *besides) ReplacePassword(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, notBefore time.Time) error {
	s.before()
	return s.userStore.ReplacePassword(ctx, id, old, new, notBefore)
}

func (s *besides) Apply(ctx context.Context, id uuid.UUID, change account.Change) error {
	s.before()
	return s.userStore.Apply(ctx, id, change)
}

// Another change can come between the look at an account and the write of a change,
// by a clock that is ahead, and a login that has seen it: nobody stays in with an old
// password.
func TestClockAChangeEndsLoginsThatSawAnotherBesideIt(t *testing.T) {
	for _, stores := range []struct {
		name string
		new  func() (tokenStore, userStore, func(time.Duration, func() time.Time) error)
	}{{"memory", inMemory}, {"MongoDB", onServer(t)}} {
		for name := range changes {
			for _, by := range []time.Duration{0, time.Second, time.Hour} {
				t.Run(fmt.Sprintf("%s, %s, %v apart", stores.name, name, by), func(t *testing.T) {
					c := newClocks(t, stores.new)
					users := &besides{userStore: c.users}
					cfg := strategy.Config{Lifetime: 24 * time.Hour}
					fast := c.at(noon.Add(by), cfg)
					c.users = users
					slow := c.at(noon, cfg)
					var beside string
					users.do = func() {
						fast.change("revoked")
						beside = fast.login()
						slow.want(true, beside, "before the change is written")
					}
					slow.change(name)
					for _, i := range []*clocked{slow, fast} {
						i.want(false, beside, "of beside the change")
						i.want(true, slow.login(), "of afterwards")
					}
				})
			}
		}
	}
}

// Whoever changes the password keeps the session, on whichever instance.
func TestClockARenewedSessionOutlivesTheChange(t *testing.T) {
	for _, by := range []time.Duration{0, time.Hour} {
		slow, fast := apart(t, by, strategy.Config{Lifetime: 24 * time.Hour})
		for _, from := range []*clocked{slow, fast} {
			for _, on := range []*clocked{slow, fast} {
				own, other := from.login(), from.login()
				at := on.clock.now()
				user, err := on.accounts.ChangePassword(t.Context(), on.user.ID, *on.password, *on.password+"!")
				if err != nil {
					t.Fatal(err)
				}
				*on.password += "!"
				renewed, _, err := on.RotateToken(t.Context(), own, strategy.Reauthenticated(user, at))
				if err != nil {
					t.Fatal(err)
				}
				for _, i := range []*clocked{slow, fast} {
					i.want(true, renewed.Reveal(), "the session that was renewed")
					i.want(false, other, "another one")
				}
			}
		}
	}
}

// Rows that do not say what the login saw, of a version that did not write it, go
// by the clocks: those of instances that are less than 10 seconds ahead of the one
// that makes the change are ended.
func TestClockRowsOfOlderVersionsGoByIt(t *testing.T) {
	for name := range changes {
		for by, survives := range map[time.Duration]bool{
			0: false, 10*time.Second - time.Millisecond: false, 10 * time.Second: true, 30 * time.Second: true,
		} {
			t.Run(fmt.Sprint(name, " ", by), func(t *testing.T) {
				c := newClocks(t, inMemory)
				now := c.tokens
				cfg := strategy.Config{Lifetime: time.Hour}
				c.tokens = forgetsSeen{now}
				old := c.at(noon.Add(by), cfg)
				c.tokens = now
				slow := c.at(noon, cfg)
				before := old.login()
				slow.change(name)
				slow.want(survives, before, "a row of an older version")
				old.want(survives, before, "a row of an older version, where it was written")
				after := old.login()
				slow.want(true, after, "one of afterwards")
				// Which one gets who gives the password again.
				user, err := slow.accounts.Reauthenticate(t.Context(), slow.user, *slow.password)
				if err != nil {
					t.Fatal(err)
				}
				renewed, _, err := slow.RotateToken(t.Context(), after, strategy.Reauthenticated(user, slow.clock.now()))
				if err != nil {
					t.Fatal(err)
				}
				slow.change(name)
				slow.want(false, renewed.Reveal(), "one that was renewed by this version")
			})
		}
	}
}

func TestClockDifferencesTakeFromTheIdleTimeout(t *testing.T) {
	for _, c := range []struct {
		idle     time.Duration
		accepted bool // on the fast one, of what is in use on the slow one
	}{{30 * time.Second, false}, {40 * time.Second, true}} {
		t.Run(c.idle.String(), func(t *testing.T) {
			slow, fast := apart(t, 30*time.Second, strategy.Config{IdleTimeout: c.idle})
			token := slow.login()
			for range 20 {
				pass(2*time.Second, slow, fast)
				slow.want(true, token, "in use")
			}
			pass(time.Millisecond, slow, fast)
			fast.want(c.accepted, token, "on the fast one")
			slow.want(true, token, "a refusal ends nothing")
		})
	}
	slow, fast := apart(t, 30*time.Second, strategy.Config{IdleTimeout: time.Minute})
	token := fast.login()
	pass(time.Minute+time.Millisecond, slow, fast)
	fast.want(false, token, "where it was used")
	pass(30*time.Second-time.Millisecond, slow, fast)
	slow.want(true, token, "on the slow one, half a minute longer")
	pass(time.Minute+time.Millisecond, slow)
	slow.want(false, token, "idle there too")
}

func TestClockANewLoginIsNotTheFirstToGo(t *testing.T) {
	for _, by := range []time.Duration{5 * time.Second, 30 * time.Second, time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			slow, fast := apart(t, by, strategy.Config{Lifetime: 24 * time.Hour, MaxSessions: 2})
			for range 3 {
				for _, i := range []*clocked{fast, fast, slow, slow, slow, fast} {
					token := i.login()
					slow.want(true, token, "just logged in")
					fast.want(true, token, "just logged in")
					page, err := slow.Sessions(t.Context(), slow.user.ID, strategy.Page{})
					if err != nil || len(page.Sessions) > 2 {
						t.Errorf("%d sessions (error %v), want 2 at most", len(page.Sessions), err)
					}
					pass(time.Second, slow, fast)
				}
			}
		})
	}
}

func TestClockARefusedLoginIsRefusedOnAllInstances(t *testing.T) {
	slow, fast := apart(t, 30*time.Second, strategy.Config{Lifetime: time.Hour, MaxSessions: 1, WhenFull: strategy.RefuseNew})
	token := fast.login()
	if _, _, err := slow.WriteToken(t.Context(), slow.user); !errors.Is(err, strategy.ErrTooManySessions) {
		t.Errorf("on the slow one: %v", err)
	}
	fast.want(true, token, "the session that was there")
}

// The limiter's default for an account is a minute after ten failures.
func TestClockDifferencesChangeTheLimitersWaits(t *testing.T) {
	const failures, delay = 10, time.Minute
	for name, c := range map[string]struct {
		ahead, wait time.Duration
		said        time.Duration
	}{
		// Never told to wait for longer than the delay, however far ahead.
		"failures on the fast one, asked on the slow one": {30 * time.Second, delay + 30*time.Second, delay},
		"failures on the slow one, asked on the fast one": {-30 * time.Second, delay - 30*time.Second, delay - 30*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			cs := newClocks(t, inMemory)
			there, here := cs.at(noon.Add(c.ahead), strategy.Config{}), cs.at(noon, strategy.Config{})
			for range failures {
				if wait := there.fails(); wait != 0 {
					t.Fatalf("a wait of %v", wait)
				}
			}
			if wait := here.fails(); wait != c.said {
				t.Errorf("the wait is said to be %v, want %v", wait, c.said)
			}
			pass(c.wait-time.Millisecond, here, there)
			if wait := here.fails(); wait != time.Millisecond {
				t.Errorf("just before its end, the wait is %v", wait)
			}
			pass(time.Millisecond, here, there)
			if wait := here.fails(); wait != 0 {
				t.Errorf("at its end, the wait is %v", wait)
			}
		})
	}
}

// jumped is an instance whose clock jumps, with a session from before.
func jumped(t *testing.T, cfg strategy.Config) (i *clocked, token string) {
	t.Helper()
	i = newClocks(t, inMemory).at(noon, cfg)
	return i, i.login()
}

func TestClockSetBackAnHour(t *testing.T) {
	cfg := strategy.Config{Lifetime: 2 * time.Hour, IdleTimeout: 30 * time.Minute}
	t.Run("tokens of before live an hour longer", func(t *testing.T) {
		i, token := jumped(t, strategy.Config{Lifetime: cfg.Lifetime})
		pass(-time.Hour, i)
		i.want(true, token, "at once")
		pass(3*time.Hour, i)
		i.want(true, token, "after the lifetime and an hour")
		pass(time.Millisecond, i)
		i.want(false, token, "a millisecond later")
	})
	t.Run("sessions that are not used end an hour later", func(t *testing.T) {
		i, token := jumped(t, cfg)
		pass(-time.Hour, i)
		pass(90*time.Minute, i)
		session, err := i.ReadToken(t.Context(), token)
		if err != nil || !session.LastUsedAt.Equal(i.clock.now()) {
			t.Errorf("used %v (error %v): want now, %v", session.LastUsedAt, err, i.clock.now())
		}
	})
	t.Run("sessions in use stay so", func(t *testing.T) {
		i, token := jumped(t, strategy.Config{IdleTimeout: 30 * time.Minute})
		pass(-time.Hour, i)
		for range 40 { // far beyond the time of the jump
			pass(5*time.Minute, i)
			i.want(true, token, "in use")
		}
	})
	t.Run("revoked tokens stay so", func(t *testing.T) {
		i, token := jumped(t, cfg)
		if err := i.DestroyToken(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		pass(-time.Hour, i)
		i.want(false, token, "revoked")
	})
	for name := range changes {
		t.Run("a change before the jump holds, "+name, func(t *testing.T) {
			i, token := jumped(t, cfg)
			i.change(name)
			pass(-time.Hour, i)
			i.want(false, token, "of before the change")
			later := i.login()
			i.want(true, later, "of after the jump")
			i.change(name)
			i.want(false, later, "of before the second change")
			i.want(true, i.login(), "of after it")
		})
		t.Run("a change after the jump ends logins of before, "+name, func(t *testing.T) {
			i, token := jumped(t, cfg)
			pass(-time.Hour, i)
			i.change(name)
			i.want(false, token, "of before the jump")
			i.want(true, i.login(), "of after the change")
		})
		t.Run("so does one after changes before the jump, "+name, func(t *testing.T) {
			i, _ := jumped(t, cfg)
			i.change(name)
			i.change(name) // in the same millisecond
			token := i.login()
			i.want(true, token, "of before the jump")
			pass(-time.Hour, i)
			i.change(name)
			i.want(false, token, "of before the jump, after it")
			i.want(true, i.login(), "of after the change")
		})
	}
	t.Run("logins go on at the limit", func(t *testing.T) {
		i, _ := jumped(t, strategy.Config{MaxSessions: 1})
		pass(-time.Hour, i)
		for range 3 {
			token := i.login()
			i.want(true, token, "just logged in")
			pass(time.Minute, i)
		}
	})
	t.Run("who has to wait waits until the hour has passed again", func(t *testing.T) {
		i, _ := jumped(t, cfg)
		for range 10 {
			i.fails()
		}
		pass(-time.Hour, i)
		for range 60 {
			if wait := i.fails(); wait != time.Minute {
				t.Fatalf("%v to wait, want a minute", wait)
			}
			pass(time.Minute, i)
		}
		pass(time.Minute, i)
		if wait := i.fails(); wait != 0 {
			t.Errorf("an hour and a minute later there are %v to wait", wait)
		}
	})
	t.Run("failures that are free stay so", func(t *testing.T) {
		i, _ := jumped(t, cfg)
		for range 5 {
			i.fails()
		}
		pass(-time.Hour, i)
		i.login()
	})
}

func TestClockSetForwardAnHourAndBack(t *testing.T) {
	cfg := strategy.Config{Lifetime: 50 * time.Minute, IdleTimeout: 20 * time.Minute}
	t.Run("what was refused meanwhile is accepted again", func(t *testing.T) {
		i, token := jumped(t, cfg)
		pass(time.Hour, i)
		i.want(false, token, "meanwhile")
		page, err := i.Sessions(t.Context(), i.user.ID, strategy.Page{})
		if err != nil || len(page.Sessions) > 0 {
			t.Errorf("%d sessions are listed meanwhile (error %v), want none", len(page.Sessions), err)
		}
		pass(-time.Hour, i)
		i.want(true, token, "afterwards")
	})
	t.Run("a login meanwhile lives on", func(t *testing.T) {
		i, _ := jumped(t, cfg)
		pass(time.Hour, i)
		token := i.login()
		pass(-time.Hour, i)
		i.want(true, token, "afterwards")
		pass(110*time.Minute, i)
		i.want(false, token, "an hour after its end")
	})
	t.Run("a limit of one session holds again with the next login", func(t *testing.T) {
		i, first := jumped(t, strategy.Config{Lifetime: cfg.Lifetime, MaxSessions: 1})
		pass(time.Hour, i)
		second := i.login()
		pass(-time.Hour, i)
		third := i.login()
		for name, c := range map[string]struct {
			token    string
			accepted bool
		}{"the first": {first, false}, "the second": {second, false}, "the third": {third, true}} {
			i.want(c.accepted, c.token, name)
		}
	})
	t.Run("a change meanwhile holds", func(t *testing.T) {
		i, token := jumped(t, cfg)
		pass(time.Hour, i)
		i.change("password")
		pass(-time.Hour, i)
		i.want(false, token, "of before")
		i.want(true, i.login(), "of afterwards")
	})
	t.Run("waits end", func(t *testing.T) {
		i, _ := jumped(t, cfg)
		for range 10 {
			i.fails()
		}
		pass(time.Hour, i)
		if wait := i.fails(); wait != 0 {
			t.Errorf("%v to wait", wait)
		}
		if wait := i.fails(); wait != 2*time.Minute {
			t.Errorf("after one failure more, %v to wait, want 2 minutes: nothing is forgotten", wait)
		}
	})
}

// Only collecting cannot be taken back: a clock that is ahead by more than the
// grace removes what others still accept.
func TestClockFarAheadPurgesTokensThatAreLive(t *testing.T) {
	db := modelDatabase(t)
	tokens := modelTokens(t, db)
	users := modelUsers(t, db)
	c := newClocks(t, func() (tokenStore, userStore, func(time.Duration, func() time.Time) error) { return tokens, users, nil })
	i := c.at(noon, strategy.Config{Lifetime: time.Hour})
	token := i.login()
	for _, p := range []struct {
		ahead    time.Duration
		accepted bool
	}{{30 * time.Second, true}, {time.Hour + 5*time.Minute, true}, {time.Hour + 5*time.Minute + time.Millisecond, false}} {
		purges, err := mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{
			Lifetime: time.Hour, Now: func() time.Time { return i.clock.now().Add(p.ahead) },
		})
		if err == nil {
			_, err = purges.Purge(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		i.want(p.accepted, token, fmt.Sprintf("%v old by the clock that purges", p.ahead))
	}
}

// What a cache holds is good for MaxStaleness by a clock that goes on; one that was
// set makes it read again, at once.
func TestClockThatIsSetKeepsNothingInTheCache(t *testing.T) {
	const stale = 30 * time.Second
	for _, set := range []time.Duration{0, -time.Hour, time.Hour, -stale - time.Millisecond, stale + time.Millisecond} {
		t.Run(set.String(), func(t *testing.T) {
			c := newClocks(t, inMemory)
			c.tokens = countingTokens{c.tokens, new(atomic.Int64)} // which tells nobody of revocations
			cfg := strategy.Config{Lifetime: 24 * time.Hour}
			other := c.at(noon, cfg)
			cfg.Cache.MaxStaleness = stale
			i := c.at(noon, cfg)
			token := i.login()
			i.want(true, token, "and kept")
			if err := other.DestroyToken(t.Context(), token); err != nil {
				t.Fatal(err)
			}
			pass(set, i)
			i.want(set == 0, token, "revoked by another instance, just after the clock was set")
			// It works on.
			token = i.login()
			i.want(true, token, "another, and kept")
			if err := other.DestroyToken(t.Context(), token); err != nil {
				t.Fatal(err)
			}
			i.want(true, token, "from the cache again")
			pass(stale+time.Millisecond, i)
			i.want(false, token, "after MaxStaleness")
		})
	}
}

// Revocations are dated by the server: caches follow each other whatever their own
// clocks say.
func TestClockDifferencesDoNotKeepCachesFromFollowing(t *testing.T) {
	c := newClocks(t, onServer(t))
	cfg := strategy.Config{Lifetime: 24 * time.Hour, Cache: strategy.Cache{MaxStaleness: time.Minute, FollowInterval: 10 * time.Millisecond}}
	slow, fast := c.at(noon, cfg), c.at(noon.Add(time.Hour), cfg)
	for _, on := range []*clocked{slow, fast} {
		token := slow.login()
		slow.want(true, token, "and kept")
		fast.want(true, token, "and kept")
		if err := on.DestroyToken(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		for _, i := range []*clocked{slow, fast} {
			deadline := time.Now().Add(20 * time.Second)
			for i.accepts(token) {
				if time.Now().After(deadline) {
					t.Fatal("the revocation does not arrive")
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
	}
}

// Lines are counted by real time: an event's own time opens no new minute.
func TestClockJumpsGiveTheLogNoMoreLines(t *testing.T) {
	var out bytes.Buffer
	log := strategy.LogEvents(slog.New(slog.NewTextHandler(&out, nil)))
	c := newClocks(t, inMemory)
	i := c.at(noon, strategy.Config{OnEvent: log})
	token := strings.Repeat("no token", 3)
	for n := range 300 {
		pass([]time.Duration{time.Hour, -time.Hour, 2 * time.Minute, -2 * time.Minute}[n%4], i)
		i.want(false, token, "no token")
	}
	if lines := strings.Count(out.String(), "\n"); lines != 100 {
		t.Errorf("%d lines were written, want 100", lines)
	}
}
