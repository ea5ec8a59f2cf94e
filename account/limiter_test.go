package account_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/memstore"
)

// clock is a clock that moves only when it is advanced.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: now.UTC().Truncate(time.Millisecond)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// recorder is an AttemptStore in memory that records calls and keys.
type recorder struct {
	*memstore.Attempts
	clock *clock
	// before is called before each call, with the method's name and the number of its
	// calls so far. If it returns an error, the call fails with it.
	before func(ctx context.Context, call string, n int) error

	mu    sync.Mutex
	calls map[string]int
	keys  map[string]bool
}

func newRecorder(t testing.TB, c *clock) *recorder {
	t.Helper()
	return &recorder{Attempts: newAttempts(t), clock: c, calls: map[string]int{}, keys: map[string]bool{}}
}

func (r *recorder) record(ctx context.Context, call string, keys ...string) error {
	r.mu.Lock()
	r.calls[call]++
	n, before := r.calls[call], r.before
	for _, key := range keys {
		r.keys[key] = true
	}
	r.mu.Unlock()
	if before == nil {
		return nil
	}
	return before(ctx, call, n)
}

// since returns the number of calls of each method since the last since, and sets before.
func (r *recorder) since(before func(ctx context.Context, call string, n int) error) map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := r.calls
	r.calls, r.before = map[string]int{}, before
	return calls
}

// counters returns all counters that exist now.
func (r *recorder) counters(t testing.TB) (found []account.AttemptCounter) {
	t.Helper()
	r.mu.Lock()
	keys := slices.Collect(maps.Keys(r.keys))
	r.mu.Unlock()
	all, err := r.Attempts.Counters(context.Background(), r.clock.now(), keys...)
	if err != nil {
		t.Fatalf("Counters: %v", err)
	}
	return slices.DeleteFunc(all, func(c account.AttemptCounter) bool { return c.Last.IsZero() })
}

// left returns the failures of all counters but those of devices, in ascending order.
func (r *recorder) left(t testing.TB) (left []int) {
	t.Helper()
	for _, c := range r.counters(t) {
		if c.Failures != 0 {
			left = append(left, c.Failures)
		}
	}
	slices.Sort(left)
	return left
}

func (r *recorder) Counters(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
	if err := r.record(ctx, "Counters", keys...); err != nil {
		return nil, err
	}
	return r.Attempts.Counters(ctx, now, keys...)
}

func (r *recorder) Add(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
	if err := r.record(ctx, "Add", key); err != nil {
		return account.AttemptCounter{}, err
	}
	return r.Attempts.Add(ctx, key, now, expires, postpone)
}

func (r *recorder) Withdraw(ctx context.Context, now time.Time, key string, n int) error {
	if err := r.record(ctx, "Withdraw", key); err != nil {
		return err
	}
	return r.Attempts.Withdraw(ctx, now, key, n)
}

func (r *recorder) Clear(ctx context.Context, key string) error {
	if err := r.record(ctx, "Clear", key); err != nil {
		return err
	}
	return r.Attempts.Clear(ctx, key)
}

func (r *recorder) Remember(ctx context.Context, key string, now, expires time.Time) error {
	if err := r.record(ctx, "Remember", key); err != nil {
		return err
	}
	return r.Attempts.Remember(ctx, key, now, expires)
}

// limitedRig is a rig with a limiter, a clock to advance and one account, Ann's.
type limitedRig struct {
	*rig
	attempts *recorder
	clock    *clock
	ann      member
	lookups  atomic.Int64 // number of calls of ByEmail
}

const (
	annsAddress = "ann@example.com"
	home        = "192.0.2.7"
)

// tiny makes hashing as cheap as argon2 allows.
var tiny = account.Argon2{MemoryKiB: 8, Iterations: 1, Parallelism: 1}

func newLimitedRig(t testing.TB, cfg account.LimiterConfig) *limitedRig {
	t.Helper()
	// The semaphore must not limit the tests' concurrent attempts.
	return newLimitedRigWith(t, cfg, account.Config{Argon2: tiny, MaxConcurrentHashes: 100})
}

func newLimitedRigWith(t testing.TB, cfg account.LimiterConfig, managers account.Config) *limitedRig {
	t.Helper()
	r := &limitedRig{clock: newClock()}
	r.attempts = newRecorder(t, r.clock)
	managers.Limiter, managers.Now = cfg, r.clock.now
	r.rig = newRigWith(t, r.attempts, managers)
	r.ann = r.register(t)
	r.store.byEmail = func(ctx context.Context, email string) (member, error) {
		r.lookups.Add(1)
		return r.store.Users.ByEmail(ctx, email)
	}
	t.Cleanup(func() {
		if n := r.Queues(); n != 0 {
			t.Errorf("at the end there are %d queues, want 0", n)
		}
	})
	return r
}

// from returns the context of a request from an IP address, "" for an unknown one.
func from(addr string) context.Context {
	if addr == "" {
		return context.Background()
	}
	return event.ContextWithClientIP(context.Background(), addr)
}

// elsewhere returns an IP address in a different network for each n from 0 to 65,535.
func elsewhere(n int) string { return fmt.Sprintf("10.%d.%d.9", n>>8&255, n&255) }

func wait(d time.Duration) string { return fmt.Sprint("wait ", d) }

const (
	in     = "in"
	denied = "denied"
)

// outcome describes the error of an attempt: in, denied, a wait or a failure.
func outcome(err error) string {
	var tooMany *account.TooManyAttemptsError
	bad, refused := errors.Is(err, account.ErrBadCredentials), errors.Is(err, account.ErrTooManyAttempts)
	switch {
	case err == nil:
		return in
	case bad && !refused:
		return denied
	case refused && !bad && errors.As(err, &tooMany):
		return wait(tooMany.RetryAfter)
	default:
		return "failed: " + err.Error()
	}
}

// login logs in without a device token.
func (r *limitedRig) login(addr, email, password string) string {
	_, _, err := r.Authenticate(from(addr), email, password, "")
	return outcome(err)
}

// expect makes one attempt without a device token and checks its outcome.
func (r *limitedRig) expect(t *testing.T, what, addr, email, password, want string) {
	t.Helper()
	if got := r.login(addr, email, password); got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// newDevice logs Ann in and returns her device token.
func (r *limitedRig) newDevice(t testing.TB) string {
	t.Helper()
	_, device, err := r.Authenticate(from("203.0.113.1"), annsAddress, password, "")
	if err != nil || device == "" {
		t.Fatalf("got the device token %q and %v, want one", device, err)
	}
	return device
}

// expectDevice makes one attempt on Ann's account with a device token and checks its
// outcome.
func (r *limitedRig) expectDevice(t *testing.T, what, device, addr, password, want string) {
	t.Helper()
	_, got, err := r.Authenticate(from(addr), annsAddress, password, device)
	if outcome(err) != want {
		t.Errorf("%s: got %q, want %q", what, outcome(err), want)
	}
	if err == nil && got != device {
		t.Errorf("%s: got another device token, want the one presented", what)
	}
}

// failDevice makes n attempts with a device token and a wrong password.
func (r *limitedRig) failDevice(t *testing.T, n int, device string) {
	t.Helper()
	for i := range n {
		r.expectDevice(t, fmt.Sprintf("wrong attempt %d with a device token", i+1), device, elsewhere(3000+i), "wrong", denied)
	}
}

// fail makes n attempts with a wrong password, which must be denied and not limited.
func (r *limitedRig) fail(t *testing.T, n int, addr func(int) string, email func(int) string) {
	t.Helper()
	for i := range n {
		if got := r.login(addr(i), email(i), "wrong"); got != denied {
			t.Fatalf("wrong attempt %d from %s: got %q, want %q", i+1, addr(i), got, denied)
		}
	}
}

func always(s string) func(int) string { return func(int) string { return s } }

func strangers(n int) string { return fmt.Sprintf("stranger%d@example.com", n) }

// exhaust makes the free failures of an account from many networks.
func (r *limitedRig) exhaust(t *testing.T, email string) {
	t.Helper()
	r.fail(t, 10, elsewhere, always(email))
	r.expect(t, "the control, from one more network", elsewhere(999), email, password, wait(time.Minute))
}

func doubling(d, longest time.Duration, more int) (waits []time.Duration) {
	for ; d < longest; d *= 2 {
		waits = append(waits, d)
	}
	for range more {
		waits = append(waits, longest)
	}
	return waits
}

func TestDelayDoublesAfterFreeFailures(t *testing.T) {
	reauthenticate := func(r *limitedRig, n int, password string) error {
		_, err := r.Reauthenticate(from(elsewhere(n)), r.ann, password)
		return err
	}
	authenticate := func(addr, email func(int) string) func(*limitedRig, int, string) error {
		return func(r *limitedRig, n int, password string) error {
			name := email(n)
			if password != "wrong" {
				name = annsAddress
			}
			_, _, err := r.Authenticate(from(addr(n)), name, password, "")
			return err
		}
	}
	var device string
	for _, c := range []struct {
		name  string
		try   func(r *limitedRig, n int, password string) error
		free  int
		waits []time.Duration
		id    bool // the event names the account
	}{
		{"one account from one network", authenticate(always(home), always(annsAddress)), 10, doubling(time.Minute, time.Hour, 4), false},
		{"one account from a new network each time", authenticate(elsewhere, always(annsAddress)), 10, doubling(time.Minute, time.Hour, 4), false},
		{"one account without a client IP", authenticate(always(""), always(annsAddress)), 10, doubling(time.Minute, time.Hour, 4), false},
		{"a new account from one network each time", authenticate(always(home), strangers), 100, doubling(time.Second, 5*time.Minute, 3), false},
		{"a new account from a new /64 of one /48 each time", authenticate(func(n int) string { return fmt.Sprintf("2001:db8:1:%x::1", n) }, strangers),
			1000, doubling(time.Second, 5*time.Minute, 3), false},
		{"one device, from anywhere", func(r *limitedRig, n int, password string) error {
			if n == 0 && device == "" {
				device = r.newDevice(t)
				r.takeEvents()
			}
			_, _, err := r.Authenticate(from(elsewhere(n)), annsAddress, password, device)
			return err
		}, 5, doubling(30*time.Second, time.Hour, 4), false},
		{"Reauthenticate, from anywhere", reauthenticate, 5, doubling(30*time.Second, time.Hour, 4), true},
		{"ChangePassword, from anywhere", func(r *limitedRig, n int, password string) error {
			_, err := r.ChangePassword(from(elsewhere(n)), r.ann.ID, password, "a better password")
			return err
		}, 5, doubling(30*time.Second, time.Hour, 4), true},
		{"Reauthenticate and ChangePassword alternately", func(r *limitedRig, n int, password string) error {
			if n%2 == 0 {
				return reauthenticate(r, n, password)
			}
			_, err := r.ChangePassword(from(home), r.ann.ID, password, "a better password")
			return err
		}, 5, doubling(30*time.Second, time.Hour, 4), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newLimitedRig(t, account.LimiterConfig{})
			n := 0
			fails := func(what string) {
				t.Helper()
				if got := outcome(c.try(r, n, "wrong")); got != denied {
					t.Fatalf("%s: got %q, want %q", what, got, denied)
				}
				n++
			}
			for i := range c.free {
				fails(fmt.Sprintf("free failure %d", i+1))
			}
			for i, d := range c.waits {
				for _, p := range []string{"wrong", password} {
					for left, after := range map[time.Duration]time.Duration{d: 0, time.Millisecond: d - time.Millisecond} {
						r.clock.advance(after)
						looked := r.lookups.Load()
						r.takeEvents()
						r.attempts.since(nil)
						if got := outcome(c.try(r, n, p)); got != wait(left) {
							t.Errorf("wait %d, %v before its end, password %q: got %q, want %q", i+1, left, p, got, wait(left))
						}
						if got, want := r.attempts.since(nil), map[string]int{"Counters": 1}; r.lookups.Load() != looked || !reflect.DeepEqual(got, want) {
							t.Errorf("wait %d: %d accounts were looked up and the store of attempts got %v, want 0 and %v", i+1, r.lookups.Load()-looked, got, want)
						}
						want := event.Event{Kind: event.LoginDenied, Reason: event.ReasonTooMany}
						if c.id {
							want.UserID = r.ann.ID
						}
						if got := r.takeEvents(); len(got) != 1 || got[0].Kind != want.Kind || got[0].Reason != want.Reason || got[0].UserID != want.UserID {
							t.Errorf("wait %d: got the events %+v, want %+v", i+1, got, want)
						}
						r.clock.advance(-after)
					}
				}
				r.clock.advance(d)
				fails(fmt.Sprintf("the attempt after wait %d", i+1))
			}
			r.clock.advance(c.waits[len(c.waits)-1])
			if got := outcome(c.try(r, n, password)); got != in {
				t.Errorf("the right password after the last wait: got %q, want %q", got, in)
			}
		})
	}
}

// A rejected attempt must cost the server no hash.
func TestRejectedAttemptIsNotHashed(t *testing.T) {
	r := newLimitedRigWith(t, account.LimiterConfig{}, account.Config{Argon2: counted})
	for i, name := range []string{annsAddress, strangers(0), "not an address"} {
		r.fail(t, 10, always(elsewhere(i)), always(name))
		for _, p := range []string{password, "wrong", "cafe\u0301"} {
			if got := hashes(func() { r.expect(t, name, elsewhere(i), name, p, wait(time.Minute)) }); got != 0 {
				t.Errorf("%s: a rejected attempt took the work of %d hashes, want 0", name, got)
			}
		}
	}
	r = newLimitedRigWith(t, account.LimiterConfig{}, account.Config{Argon2: counted})
	for range 5 {
		_, _ = r.Reauthenticate(from(home), r.ann, "wrong")
	}
	var reauthenticate, change error
	if got := hashes(func() {
		_, reauthenticate = r.Reauthenticate(from(home), r.ann, password)
		_, change = r.ChangePassword(from(home), r.ann.ID, password, "a better password")
	}); got != 0 || outcome(reauthenticate) != wait(30*time.Second) || outcome(change) != wait(30*time.Second) {
		t.Errorf("Reauthenticate: %v, ChangePassword: %v, with the work of %d hashes, want a wait and 0", reauthenticate, change, got)
	}
}

// The limiter must not reveal whether an account exists.
func TestUnknownAccountsAreLimitedLikeKnownOnes(t *testing.T) {
	script := func(name string) (got []string) {
		r := newLimitedRig(t, account.LimiterConfig{})
		try := func(addr string) {
			r.takeEvents()
			o := r.login(addr, name, "wrong")
			got = append(got, fmt.Sprint(o, " ", kinds(r.takeEvents())))
		}
		for range 12 {
			try(home)
		}
		for _, d := range []time.Duration{30 * time.Second, time.Second, time.Minute, time.Hour} {
			r.clock.advance(d)
			try(home)
			try(home)
		}
		for i := range 12 {
			try(elsewhere(i))
		}
		try("")
		r.clock.advance(24 * time.Hour)
		try(home)
		return got
	}
	want := script(annsAddress)
	if !slices.ContainsFunc(want, func(s string) bool { return strings.HasPrefix(s, wait(time.Minute)) }) {
		t.Fatalf("the control contains no wait: %q", want)
	}
	for _, name := range []string{
		"ANN@example.com\n", strangers(0), "not an address", "", "\xff", "Ann <ann@example.com>", strings.Repeat("x", 1<<20) + "@example.com",
	} {
		if got := script(name); !reflect.DeepEqual(got, want) {
			t.Errorf("%.40q:\ngot  %q\nwant %q", name, got, want)
		}
	}
}

// Another spelling of an address must not avoid the limit.
func TestSpellingsOfAnAddressShareOneCounter(t *testing.T) {
	r := newLimitedRig(t, account.LimiterConfig{})
	for i, name := range []string{"ann@example.com", "ANN@EXAMPLE.COM", " ann@example.com", "Ann@Example.com\r\n", "aNN@example.com\t"} {
		r.expect(t, name, elsewhere(i), name, "wrong", denied)
		r.expect(t, name, elsewhere(i), name, "wrong", denied)
	}
	r.expect(t, "one more spelling", home, "ann@Example.Com", password, wait(time.Minute))
}

func TestAddressesOfOneNetworkShareOneCounter(t *testing.T) {
	for _, c := range []struct {
		name, one, other string
		same             bool
	}{
		{"the same address", "192.0.2.7", "192.0.2.7", true},
		{"the first and the last of a /24", "192.0.2.0", "192.0.2.255", true},
		{"neighbours in two /24", "192.0.2.255", "192.0.3.0", false},
		{"an IPv4 address and the same in IPv6", "192.0.2.7", "::ffff:192.0.2.200", true},
		{"the same in hexadecimal", "192.0.2.7", "::ffff:c000:2ff", true},
		{"the same with a zone", "192.0.2.7", "::ffff:192.0.2.200%eth0", true},
		{"two /24 in IPv6 notation", "::ffff:192.0.2.7", "::ffff:192.0.3.7", false},
		{"the first and the last of a /64", "2001:db8::", "2001:db8::ffff:ffff:ffff:ffff", true},
		{"two spellings of one address", "2001:db8::1", "2001:0DB8:0:0:0::1", true},
		{"two /64 of one /48", "2001:db8::1", "2001:db8:0:1::1", false},
		{"a zone and none", "fe80::1", "fe80::2%eth0", true},
		{"two zones", "fe80::1%eth0", "fe80::1%eth1", true},
		{"an IPv4 address and an IPv6 one", "192.0.2.7", "2001:db8::1", false},
		{"with a port", "192.0.2.7", "192.0.2.8:443", true},
		{"in brackets with a port", "2001:db8::1", "[2001:db8::2]:443", true},
		{"in brackets", "2001:db8::1", "[2001:db8::2]", true},
		{"the same through NAT64", "192.0.2.7", "64:ff9b::192.0.2.200", true},
		{"two clients of a NAT64", "64:ff9b::192.0.2.7", "64:ff9b::192.0.3.7", false},
		{"the same through 6to4", "192.0.2.7", "2002:c000:2c8::1", true},
		{"two /64 of one client of 6to4", "2002:c000:207:1::1", "2002:c000:207:2::1", true},
		{"two clients of 6to4", "2002:c000:207::1", "2002:c000:307::1", false},
		{"the same through Teredo", "192.0.2.7", "2001:0:4136:e378:8000:63bf:3fff:fdd2", true},
		{"two clients of a Teredo server", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:0:4136:e378:8000:63bf:3fff:fcd2", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newLimitedRig(t, account.LimiterConfig{Network: account.Limit{Failures: 5}})
			r.fail(t, 5, always(c.one), strangers)
			want := denied
			if c.same {
				want = wait(time.Second)
			}
			r.expect(t, "from "+c.other, c.other, annsAddress, "wrong", want)
		})
	}
}

// A malformed client IP is treated as unknown.
func TestWithoutClientIPOnlyTheAccountCounts(t *testing.T) {
	for _, addr := range []string{"", "unknown", "192.0.2.7, 10.0.0.1", "192.0.2.7:", ":443"} {
		r := newLimitedRig(t, account.LimiterConfig{})
		for i := range 200 {
			r.expect(t, "of another account", addr, strangers(i), "wrong", denied)
		}
		r.attempts.since(nil)
		r.expect(t, "a login", addr, annsAddress, password, in)
		if got, want := r.attempts.since(nil), (map[string]int{"Counters": 1, "Add": 1, "Clear": 1, "Remember": 1}); !reflect.DeepEqual(got, want) {
			t.Errorf("from %q: a login made the calls %v, want %v", addr, got, want)
		}
		r.fail(t, 10, always(addr), always(annsAddress))
		r.expect(t, "after 10 failures", addr, annsAddress, password, wait(time.Minute))
		r.expect(t, "from an address", home, annsAddress, password, wait(time.Minute))
		r.clock.advance(time.Minute)
		r.expect(t, "after the wait", addr, annsAddress, password, in)
		r.fail(t, 10, always(addr), always(annsAddress))
	}
}

func TestAttackersCannotLockAUserOut(t *testing.T) {
	t.Run("the account's limit is reached from elsewhere", func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		device := r.newDevice(t)
		r.exhaust(t, annsAddress)
		n := 1000
		for _, d := range doubling(time.Minute, time.Hour, 30) {
			r.expectDevice(t, "Ann at home", device, home, password, in)
			r.expectDevice(t, "Ann on a new network", device, elsewhere(n), password, in)
			r.expectDevice(t, "Ann without an address", device, "", password, in)
			r.expect(t, "Ann on a new device", home, annsAddress, password, wait(d))
			r.clock.advance(d)
			r.expect(t, "the attacker", elsewhere(n), annsAddress, "wrong", denied)
			n++
		}
		// Failures on the device count there.
		r.failDevice(t, 4, device)
		r.expectDevice(t, "Ann after four mistakes", device, home, password, in)
		r.failDevice(t, 5, device)
		r.expectDevice(t, "Ann after five mistakes", device, home, password, wait(30*time.Second))
		r.clock.advance(30 * time.Second)
		r.expectDevice(t, "Ann after the wait", device, home, password, in)
	})
	t.Run("the network's limit is reached by others", func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		device := r.newDevice(t)
		r.fail(t, 100, always("192.0.2.66"), strangers)
		r.expect(t, "another user there", "192.0.2.66", strangers(0), "wrong", wait(time.Second))
		r.expectDevice(t, "Ann there", device, home, password, in)
		r.failDevice(t, 4, device)
		r.expectDevice(t, "Ann there, after mistakes", device, home, password, in)
		r.expect(t, "another user there, again", "192.0.2.66", strangers(0), "wrong", wait(time.Second))
	})
	t.Run("both limits are reached", func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		device := r.newDevice(t)
		r.fail(t, 100, always("192.0.2.66"), strangers)
		r.exhaust(t, annsAddress)
		r.expectDevice(t, "Ann there", device, home, password, in)
	})
	t.Run("another device of the account is at its limit", func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		device, stolen := r.newDevice(t), r.newDevice(t)
		r.failDevice(t, 5, stolen)
		r.expectDevice(t, "the stolen device", stolen, home, password, wait(30*time.Second))
		r.expectDevice(t, "Ann", device, home, password, in)
		r.expect(t, "Ann on a new device", home, annsAddress, password, in)
	})
	t.Run("failed logins do not limit a session", func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		r.exhaust(t, annsAddress)
		r.fail(t, 5, always(home), always(strangers(0)))
		if _, err := r.Reauthenticate(from(elsewhere(0)), r.ann, password); err != nil {
			t.Errorf("Reauthenticate: got %v, want nil", err)
		}
		if _, err := r.ChangePassword(from(elsewhere(0)), r.ann.ID, password, password); err != nil {
			t.Errorf("ChangePassword: got %v, want nil", err)
		}
		r.expect(t, "a login, still", elsewhere(999), annsAddress, password, wait(time.Minute))
	})
	t.Run("failures of a session do not limit logins", func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		for i, want := range []string{denied, denied, denied, denied, denied, wait(30 * time.Second)} {
			if _, err := r.Reauthenticate(from(home), r.ann, "wrong"); outcome(err) != want {
				t.Errorf("Reauthenticate %d: got %v, want %q", i+1, err, want)
			}
		}
		device := r.newDevice(t)
		r.failDevice(t, 4, device)
		r.expectDevice(t, "a login on a device", device, home, password, in)
		r.exhaust(t, annsAddress)
		// A login does not clear the failures of a session.
		if _, err := r.Reauthenticate(from(home), r.ann, password); outcome(err) != wait(30*time.Second) {
			t.Errorf("Reauthenticate: got %v, want a wait", err)
		}
	})
}

// After the failures of a network have used up its limit, the answers must not tell whose
// owner has logged in there, or anywhere, or whether there is an account.
func TestLimiterDoesNotRevealAccounts(t *testing.T) {
	r := newLimitedRig(t, account.LimiterConfig{})
	if _, err := r.Register(t.Context(), newMember("bob@example.com"), password); err != nil {
		t.Fatal(err)
	}
	r.expect(t, "Ann there", home, annsAddress, password, in)
	device := r.newDevice(t)
	r.fail(t, 100, always("192.0.2.66"), strangers)
	for name, why := range map[string]string{annsAddress: "has logged in there", "bob@example.com": "has never logged in", strangers(5000): "does not exist"} {
		r.expect(t, why, "192.0.2.66", name, "wrong", wait(time.Second))
	}
	// A device token of another account is as good as none.
	for _, name := range []string{"bob@example.com", strangers(5000)} {
		if _, _, err := r.Authenticate(from("192.0.2.66"), name, "wrong", device); outcome(err) != wait(time.Second) {
			t.Errorf("%s with Ann's device token: got %v, want a wait", name, err)
		}
	}
	r.exhaust(t, "bob@example.com")
	if _, _, err := r.Authenticate(from(home), "bob@example.com", password, device); outcome(err) != wait(time.Minute) {
		t.Errorf("Bob's account with Ann's device token: got %v, want a wait", err)
	}
}

func TestLoginReturnsADeviceToken(t *testing.T) {
	r := newLimitedRig(t, account.LimiterConfig{})
	seen := map[string]bool{}
	// A login without a valid token gets a new one.
	other, _ := token.Device.New()
	for _, presented := range []string{"", "lkd_", "nonsense", other, strings.Repeat("x", 1<<20)} {
		_, device, err := r.Authenticate(from(home), annsAddress, password, presented)
		if _, ok := token.Device.Digest(device); err != nil || !ok || seen[device] || device == presented {
			t.Errorf("with %.60q: got the device token %q and %v, want a new one", presented, device, err)
		}
		seen[device] = true
	}
	// All are valid, and each login returns the one presented.
	r.exhaust(t, annsAddress)
	for device := range seen {
		r.expectDevice(t, "with a device token", device, home, password, in)
	}
	// A failure returns none.
	for device := range seen {
		if _, got, err := r.Authenticate(from(home), annsAddress, "wrong", device); got != "" || !errors.Is(err, account.ErrBadCredentials) {
			t.Errorf("a wrong password: got the device token %q and %v, want none and ErrBadCredentials", got, err)
		}
	}
	for key := range r.attempts.keys {
		for device := range seen {
			if digest, _ := token.Device.Digest(device); key == device || key == digest {
				t.Errorf("the key %q is a device token, or its digest without the account", key)
			}
		}
	}
	// Without a limiter there is none.
	plain := newRig(t, account.Config{})
	plain.register(t)
	if _, device, err := plain.Authenticate(t.Context(), annsAddress, password, other); device != "" || err != nil {
		t.Errorf("without a limiter: got the device token %q and %v, want none", device, err)
	}
}

// Reading a malformed device token must not cost a call of the store.
func TestMalformedDeviceTokenCostsNothing(t *testing.T) {
	r := newLimitedRig(t, account.LimiterConfig{})
	device := r.newDevice(t)
	r.exhaust(t, annsAddress)
	for malformed, want := range map[string]int{"": 1, "x": 1, device + "x": 1, device[:len(device)-1] + "_": 1, strings.Replace(device, "lkd_", "lk_", 1): 1} {
		r.attempts.since(nil)
		if _, _, err := r.Authenticate(from(home), annsAddress, password, malformed); outcome(err) != wait(time.Minute) {
			t.Errorf("with %q: got %v, want a wait", malformed, err)
		}
		if got := r.attempts.since(nil); !reflect.DeepEqual(got, map[string]int{"Counters": want}) {
			t.Errorf("with %q the store got %v, want %d Counters", malformed, got, want)
		}
	}
}

func TestDeviceTokensExpire(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name     string
		lifetime time.Duration
		after    time.Duration
		want     string
	}{
		{"by default until 90 days", 0, 90*day - time.Millisecond, in},
		{"by default after 90 days", 0, 90 * day, wait(time.Minute)},
		{"until the time set", 10 * day, 10*day - time.Millisecond, in},
		{"after the time set", 10 * day, 10 * day, wait(time.Minute)},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, renewed := range []bool{false, true} {
				r := newLimitedRig(t, account.LimiterConfig{DeviceLifetime: c.lifetime})
				device := r.newDevice(t)
				if renewed { // each login with it renews it
					r.clock.advance(9 * day)
					r.expectDevice(t, "a login", device, home, password, in)
				}
				r.clock.advance(c.after - time.Minute)
				r.failDevice(t, 1, device) // a failure does not renew it
				r.clock.advance(time.Minute)
				r.exhaust(t, annsAddress)
				r.expectDevice(t, "with the device token", device, home, password, c.want)
			}
		})
	}
}

func TestSuccessClearsFailures(t *testing.T) {
	t.Run("of the account", func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		for i := range 10 {
			r.fail(t, 9, elsewhere, always(annsAddress))
			r.expect(t, "the right password", home, annsAddress, password, in)
			// The networks' counters keep the failures there.
			if left, want := r.attempts.left(t), slices.Repeat([]int{i + 1}, 9); !slices.Equal(left, want) {
				t.Errorf("after a login the counters are at %v, want %v", left, want)
			}
		}
		r.exhaust(t, annsAddress)
	})
	t.Run("after waits", func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		r.fail(t, 10, always(home), always(annsAddress))
		for _, d := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute} {
			r.clock.advance(d)
			r.expect(t, "after a wait", home, annsAddress, "wrong", denied)
		}
		r.clock.advance(8 * time.Minute)
		r.expect(t, "the right password", home, annsAddress, password, in)
		if left := r.attempts.left(t); !slices.Equal(left, []int{13}) {
			t.Errorf("after a login the counters are at %v, want only the network's 13", left)
		}
		r.fail(t, 10, always(home), always(annsAddress))
		r.expect(t, "after ten failures", home, annsAddress, password, wait(time.Minute))
	})
	t.Run("of the device, and no others", func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		device, other := r.newDevice(t), r.newDevice(t)
		r.fail(t, 7, elsewhere, always(annsAddress))
		r.failDevice(t, 4, other)
		for range 3 {
			r.failDevice(t, 4, device)
			r.expectDevice(t, "a login on the device", device, home, password, in)
		}
		r.failDevice(t, 1, other)
		r.expectDevice(t, "the other device", other, home, password, wait(30*time.Second))
		r.fail(t, 3, func(i int) string { return elsewhere(100 + i) }, always(annsAddress))
		r.expect(t, "after ten failures from elsewhere", elsewhere(200), annsAddress, password, wait(time.Minute))
	})
	t.Run("not those of other devices", func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		device := r.newDevice(t)
		r.failDevice(t, 5, device)
		r.expect(t, "a login without a device token", home, annsAddress, password, in)
		r.expectDevice(t, "the device", device, home, password, wait(30*time.Second))
	})
	t.Run("not those of other accounts from the network", func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		r.fail(t, 97, always(home), strangers)
		r.expect(t, "a login", home, annsAddress, password, in)
		r.fail(t, 3, always(home), func(i int) string { return strangers(1000 + i) })
		r.expect(t, "after a hundred failures of others", home, strangers(2000), password, wait(time.Second))
	})
	t.Run("with a session", func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		for range 5 {
			for range 4 {
				if _, err := r.Reauthenticate(from(home), r.ann, "wrong"); outcome(err) != denied {
					t.Fatalf("Reauthenticate: got %v, want %q", err, denied)
				}
			}
			if _, err := r.ChangePassword(from(home), r.ann.ID, password, password); err != nil {
				t.Fatalf("ChangePassword: %v", err)
			}
			if left := r.attempts.left(t); left != nil {
				t.Errorf("the counters are at %v, want none", left)
			}
		}
	})
}

func TestFailuresExpire(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name        string
		addr, email func(int) string
		device      bool
		free        int
		window      time.Duration
		first, next time.Duration // the waits after the free failures
		last        bool          // the window begins with the last failure
	}{
		{"of a device, a day after the last", elsewhere, always(annsAddress), true, 5, day, 30 * time.Second, time.Minute, true},
		{"of an account, a day after the last", elsewhere, always(annsAddress), false, 10, day, time.Minute, 2 * time.Minute, true},
		{"of a network, an hour after the first", always(home), strangers, false, 100, time.Hour, time.Second, 2 * time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := func(before, after time.Duration, forgotten bool) {
				t.Helper()
				r := newLimitedRig(t, account.LimiterConfig{})
				device, n := "", 0
				if c.device {
					device = r.newDevice(t)
				}
				try := func() string {
					_, _, err := r.Authenticate(from(c.addr(n)), c.email(n), "wrong", device)
					n++
					return outcome(err)
				}
				fail := func(times int) {
					t.Helper()
					for range times {
						if got := try(); got != denied {
							t.Fatalf("wrong attempt %d: got %q, want %q", n, got, denied)
						}
					}
				}
				fail(c.free - 1)
				r.clock.advance(before)
				fail(1)
				r.clock.advance(after)
				if !forgotten {
					fail(1)
					if got := try(); got != wait(c.next) {
						t.Errorf("%v after the first and %v after the last failure: got %q after one more, want %q", before+after, after, got, wait(c.next))
					}
					return
				}
				fail(c.free)
				if got := try(); got != wait(c.first) {
					t.Errorf("%v after the first and %v after the last failure: got %q after %d more, want %q", before+after, after, got, c.free, wait(c.first))
				}
			}
			run(0, c.window-time.Millisecond, false)
			run(0, c.window, true)
			half := c.window / 2
			if c.last {
				run(half, half, false)
				run(c.window-time.Minute, c.window-time.Millisecond, false)
				run(half, c.window, true)
			} else {
				run(half, half-time.Millisecond, false)
				run(half, half, true)
				run(c.window-time.Millisecond, time.Millisecond, true)
			}
		})
	}
}

// An attempt that ends before its password was checked does not count.
func TestAttemptWithoutPasswordCheckIsTakenBack(t *testing.T) {
	for _, cause := range []error{account.ErrBusy, errors.New("down"), context.Canceled, context.DeadlineExceeded} {
		r := newLimitedRig(t, account.LimiterConfig{})
		good, goodByID := r.store.byEmail, r.store.byID
		for range 20 {
			r.store.byEmail = func(context.Context, string) (member, error) { return member{}, cause }
			if _, _, err := r.Authenticate(from(home), annsAddress, password, ""); !errors.Is(err, cause) {
				t.Fatalf("got %v, want %v", err, cause)
			}
			if left := r.attempts.left(t); left != nil {
				t.Fatalf("after %v the counters are at %v, want none", cause, left)
			}
		}
		// The client cancels after the attempt was counted.
		for range 20 {
			ctx, cancel := context.WithCancel(from(home))
			r.store.byEmail = func(ctx context.Context, email string) (member, error) {
				cancel()
				return good(context.WithoutCancel(ctx), email)
			}
			if _, _, err := r.Authenticate(ctx, annsAddress, "wrong", ""); !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v, want context.Canceled", err)
			}
			if _, _, err := r.Authenticate(ctx, annsAddress, "wrong", ""); !errors.Is(err, context.Canceled) {
				t.Fatalf("with a context that is over: got %v, want context.Canceled", err)
			}
			within, cancel := context.WithCancel(from(home))
			r.attempts.since(func(_ context.Context, call string, _ int) error {
				if call == "Add" {
					cancel()
				}
				return nil
			})
			if _, err := r.Reauthenticate(within, r.ann, "wrong"); !errors.Is(err, context.Canceled) {
				t.Fatalf("Reauthenticate: got %v, want context.Canceled", err)
			}
			r.attempts.since(nil)
		}
		if left := r.attempts.left(t); left != nil {
			t.Errorf("after cancelled attempts the counters are at %v, want none", left)
		}
		// Earlier failures stay.
		r.store.byEmail, r.store.byID = good, goodByID
		r.fail(t, 4, always(home), always(annsAddress))
		r.store.byEmail = func(context.Context, string) (member, error) { return member{}, cause }
		_ = r.login(home, annsAddress, password)
		r.store.byEmail = good
		if left := r.attempts.left(t); !reflect.DeepEqual(left, []int{4, 4}) {
			t.Errorf("the counters are at %v, want [4 4]", left)
		}
		r.fail(t, 6, always(home), always(annsAddress))
		r.expect(t, "after ten failures", home, annsAddress, password, wait(time.Minute))
	}
}

// An empty or too long password is denied without a call of the store.
func TestImpossiblePasswordsAreNotCounted(t *testing.T) {
	r := newLimitedRig(t, account.LimiterConfig{})
	for range 20 {
		for _, p := range []string{"", strings.Repeat("x", account.MaxPasswordBytes+1)} {
			r.expect(t, "an impossible password", home, annsAddress, p, denied)
		}
	}
	if calls := r.attempts.since(nil); len(calls) != 0 {
		t.Errorf("the store of attempts got %v, want nothing", calls)
	}
}

// concurrently makes n concurrent attempts and counts their outcomes.
func concurrently(n int, attempt func(i int) error) map[string]int {
	start, outcomes := make(chan struct{}), make([]string, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			outcomes[i] = outcome(attempt(i))
		})
	}
	close(start)
	wg.Wait()
	sums := map[string]int{}
	for _, o := range outcomes {
		if strings.HasPrefix(o, "wait ") {
			o = "wait"
		}
		sums[o]++
	}
	return sums
}

func TestConcurrentWrongAttemptsAreLimited(t *testing.T) {
	wrong := func(r *limitedRig, addr, email func(int) string) func(int) error {
		return func(i int) error {
			_, _, err := r.Authenticate(from(addr(i)), email(i), "wrong", "")
			return err
		}
	}
	for _, c := range []struct {
		name        string
		addr, email func(int) string
		free        int
		wait        time.Duration
	}{
		{"on one account from one network", always(home), always(annsAddress), 10, time.Minute},
		{"on an unknown account", always(home), always(strangers(0)), 10, time.Minute},
		{"on one account from many networks", elsewhere, always(annsAddress), 10, time.Minute},
		{"on one account without a client IP", always(""), always(annsAddress), 10, time.Minute},
		{"on many accounts from one network", always(home), strangers, 100, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newLimitedRig(t, account.LimiterConfig{})
			got := concurrently(200, wrong(r, c.addr, c.email))
			if want := map[string]int{denied: c.free, "wait": 200 - c.free}; !reflect.DeepEqual(got, want) || r.lookups.Load() != int64(c.free) {
				t.Errorf("concurrently: got %v and %d look-ups, want %v", got, r.lookups.Load(), want)
			}
			// After each wait, one attempt is admitted.
			for d := c.wait; d < 10*c.wait; d *= 2 {
				r.clock.advance(d)
				r.lookups.Store(0)
				got := concurrently(100, wrong(r, c.addr, c.email))
				if want := map[string]int{denied: 1, "wait": 99}; !reflect.DeepEqual(got, want) || r.lookups.Load() != 1 {
					t.Errorf("after a wait of %v: got %v and %d look-ups, want %v", d, got, r.lookups.Load(), want)
				}
			}
		})
	}
	t.Run("with a session", func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		wrong := func(int) error { _, err := r.Reauthenticate(from(home), r.ann, "wrong"); return err }
		if got, want := concurrently(200, wrong), (map[string]int{denied: 5, "wait": 195}); !reflect.DeepEqual(got, want) {
			t.Errorf("concurrently: got %v, want %v", got, want)
		}
		r.clock.advance(30 * time.Second)
		if got, want := concurrently(100, wrong), (map[string]int{denied: 1, "wait": 99}); !reflect.DeepEqual(got, want) {
			t.Errorf("after the wait: got %v, want %v", got, want)
		}
	})
}

// The limits hold although all attempts have read the counters before any of them is counted,
// as instances that share a store do: only counting can tell the attempts apart.
func TestAttemptsThatReadTheSameCountersAreLimited(t *testing.T) {
	for _, c := range []struct {
		name        string
		addr, email func(int) string
		free        int
	}{
		{"on one account", elsewhere, always(annsAddress), 10},
		{"on many accounts from one network", always(home), strangers, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newLimitedRig(t, account.LimiterConfig{})
			attempts := c.free + 20
			instances := make([]*rig, attempts)
			for i := range instances {
				instances[i] = newRigWith(t, r.attempts, account.Config{Argon2: tiny, Now: r.clock.now})
			}
			var read sync.WaitGroup
			read.Add(attempts)
			r.attempts.since(func(_ context.Context, call string, n int) error {
				if call == "Add" && n <= attempts {
					read.Done()
					read.Wait()
				}
				return nil
			})
			got := concurrently(attempts, func(i int) error {
				_, _, err := instances[i].Authenticate(from(c.addr(i)), c.email(i), "wrong", "")
				return err
			})
			if want := map[string]int{denied: c.free, "wait": 20}; !reflect.DeepEqual(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// A program that logs in many times concurrently with the right password has not failed.
func TestConcurrentRightLoginsAllSucceed(t *testing.T) {
	const n = 64
	right := func(r *limitedRig) func(int) error {
		return func(int) error { _, _, err := r.Authenticate(from(home), annsAddress, password, ""); return err }
	}
	all := map[string]int{in: n}
	t.Run("from one network", func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		for range 3 {
			if got := concurrently(n, right(r)); !reflect.DeepEqual(got, all) {
				t.Errorf("got %v, want %v", got, all)
			}
			if left := r.attempts.left(t); left != nil {
				t.Errorf("afterwards the counters are at %v, want none", left)
			}
		}
	})
	t.Run("after failures, and after a wait", func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		r.fail(t, 9, always(home), always(annsAddress))
		if got := concurrently(n, right(r)); !reflect.DeepEqual(got, all) {
			t.Errorf("after nine failures: got %v, want %v", got, all)
		}
		r.fail(t, 10, always(home), always(annsAddress))
		if got, want := concurrently(n, right(r)), (map[string]int{"wait": n}); !reflect.DeepEqual(got, want) {
			t.Errorf("after ten: got %v, want %v", got, want)
		}
		r.clock.advance(time.Minute)
		if got := concurrently(n, right(r)); !reflect.DeepEqual(got, all) {
			t.Errorf("after the wait: got %v, want %v", got, all)
		}
	})
	t.Run("from many networks and without a client IP", func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		got := concurrently(n, func(i int) error {
			addr := elsewhere(i)
			if i%4 == 0 {
				addr = ""
			}
			_, _, err := r.Authenticate(from(addr), annsAddress, password, "")
			return err
		})
		if !reflect.DeepEqual(got, all) {
			t.Errorf("got %v, want %v", got, all)
		}
	})
	t.Run("with a device token, while the account is at its limit", func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		device := r.newDevice(t)
		r.exhaust(t, annsAddress)
		if got := concurrently(n, func(i int) error {
			_, _, err := r.Authenticate(from(elsewhere(i)), annsAddress, password, device)
			return err
		}); !reflect.DeepEqual(got, all) {
			t.Errorf("got %v, want %v", got, all)
		}
	})
	t.Run("with a session", func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		if got := concurrently(n, func(int) error { _, err := r.Reauthenticate(from(home), r.ann, password); return err }); !reflect.DeepEqual(got, all) {
			t.Errorf("got %v, want %v", got, all)
		}
	})
	t.Run("among a few wrong passwords", func(t *testing.T) {
		r := newLimitedRig(t, account.LimiterConfig{})
		got := concurrently(n+4, func(i int) error {
			p := password
			if i%17 == 3 {
				p = "wrong"
			}
			_, _, err := r.Authenticate(from(home), annsAddress, p, "")
			return err
		})
		if want := map[string]int{in: n, denied: 4}; !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
	// Each login clears the failures before it, and ten are free after it. However the
	// attempts interleave, no more wrong passwords are checked.
	t.Run("among many wrong passwords", func(t *testing.T) {
		for range 5 {
			r := newLimitedRig(t, account.LimiterConfig{})
			got := concurrently(250, func(i int) error {
				p := "wrong"
				if i%60 == 30 {
					p = password
				}
				_, _, err := r.Authenticate(from(home), annsAddress, p, "")
				return err
			})
			if got[denied] > 10*(got[in]+1) || got[in]+got[denied]+got["wait"] != 250 {
				t.Errorf("got %v, want at most ten denied for each login and ten more", got)
			}
		}
	})
}

// An attacker makes each attempt as early as possible: from new networks, with a stolen
// device token, and with a stolen session. With the default limits, 40 passwords are checked
// before each way takes an hour per attempt; then one an hour for each of the three ways.
// NewManager rejects limits that allow more than 100.
func TestPersistentAttackerIsLimited(t *testing.T) {
	for _, c := range []struct {
		name  string
		cfg   account.LimiterConfig
		quick int
	}{
		{"the default limits", account.LimiterConfig{}, 40},
		{"the weakest limits allowed", account.LimiterConfig{
			Account: account.Limit{Failures: 30, Delay: time.Hour, MaxDelay: time.Hour, Window: 24 * time.Hour},        // 30
			Device:  account.Limit{Failures: 34, Delay: 30 * time.Minute, MaxDelay: time.Hour, Window: 24 * time.Hour}, // 35
		}, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newLimitedRig(t, c.cfg)
			type way struct {
				name   string
				try    func() error
				next   time.Time
				told   bool // next is what the last rejection said
				slow   bool // a rejection has said an hour
				failed int
			}
			device := r.newDevice(t)
			ways := []*way{{name: "new networks"}, {name: "a stolen session"}, {name: "a stolen device token"}}
			n := 0
			ways[0].try = func() error {
				addr := elsewhere(n)
				if n++; n%7 == 0 {
					addr = ""
				}
				_, _, err := r.Authenticate(from(addr), annsAddress, "wrong", "")
				return err
			}
			ways[1].try = func() error {
				n++
				if n%2 == 0 {
					_, err := r.Reauthenticate(from(elsewhere(n)), r.ann, "wrong")
					return err
				}
				_, err := r.ChangePassword(from(elsewhere(n)), r.ann.ID, "wrong", "a better password")
				return err
			}
			ways[2].try = func() error {
				n++
				_, _, err := r.Authenticate(from(elsewhere(n)), annsAddress, "wrong", device)
				return err
			}
			// step makes the earliest possible attempt of the given ways.
			step := func(ways []*way) {
				w := slices.MinFunc(ways, func(a, b *way) int { return a.next.Compare(b.next) })
				if d := w.next.Sub(r.clock.now()); d > 0 {
					r.clock.advance(d)
				}
				err := w.try()
				var tooMany *account.TooManyAttemptsError
				switch errors.As(err, &tooMany) {
				case true:
					if w.told || w.slow && tooMany.RetryAfter != time.Hour {
						t.Fatalf("%s: got %v, at the time that the last rejection said: %v, after a wait of an hour: %v", w.name, err, w.told, w.slow)
					}
					w.told, w.slow, w.next = true, tooMany.RetryAfter == time.Hour, r.clock.now().Add(tooMany.RetryAfter)
				case false:
					if outcome(err) != denied || w.slow && !w.told {
						t.Fatalf("%s: got %v, after a wait of an hour: %v", w.name, err, w.slow)
					}
					w.failed++
					w.told, w.next = false, r.clock.now()
				}
			}
			failed := func() (n int) {
				for _, w := range ways {
					n += w.failed
				}
				return n
			}
			for failed() <= 100 {
				var quick []*way
				for _, w := range ways {
					if !w.slow {
						quick = append(quick, w)
					}
				}
				if quick == nil {
					break
				}
				step(quick)
			}
			if got := failed(); got != c.quick {
				t.Errorf("%d attempts failed before each way took an hour, want %d", got, c.quick)
			}
			before, until := failed(), r.clock.now().Add(20*time.Hour)
			for r.clock.now().Before(until) {
				step(ways)
			}
			if got, want := failed()-before, 20*len(ways); got < want-len(ways) || got > want+len(ways) {
				t.Errorf("%d attempts failed in the next 20 hours, want one an hour for each of the %d ways", got, len(ways))
			}
		})
	}
}

func TestFailingCounters(t *testing.T) {
	down := errors.New("down")
	nth := func(call string, nth int) func(context.Context, string, int) error {
		return func(_ context.Context, c string, n int) error {
			if c == call && n == nth {
				return down
			}
			return nil
		}
	}
	for _, c := range []struct {
		name   string
		fail   func(context.Context, string, int) error
		begins bool // it fails before the password is checked
		wrong  bool // it fails also if the password is wrong
		events int
		device bool // with a device token
		left   []int
	}{
		{"Counters", nth("Counters", 1), true, true, 1, false, nil},
		{"the account's Add", nth("Add", 1), true, true, 1, false, nil},
		{"the network's Add", nth("Add", 2), true, true, 1, false, nil},
		{"Counters of a device", nth("Counters", 1), true, true, 1, true, nil},
		{"Add of a device", nth("Add", 1), true, true, 1, true, nil},
		{"all calls", func(context.Context, string, int) error { return down }, true, true, 1, false, nil},
		{"the network's Add and all later calls", func(_ context.Context, c string, n int) error {
			if c == "Add" && n < 2 || c == "Counters" {
				return nil
			}
			return down
		}, true, true, 2, false, []int{1}},
		{"Clear", nth("Clear", 1), false, false, 1, false, []int{1, 1}},
		{"Clear of a device", nth("Clear", 1), false, false, 1, true, []int{1}},
		{"the network's Withdraw", nth("Withdraw", 1), false, false, 1, false, []int{1}},
		{"Remember", nth("Remember", 1), false, false, 1, false, nil},
		{"Remember of a device", nth("Remember", 1), false, false, 1, true, nil},
	} {
		for _, closed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, fail closed %v", c.name, closed), func(t *testing.T) {
				for _, p := range []string{password, "wrong"} {
					r := newLimitedRig(t, account.LimiterConfig{FailClosed: closed})
					presented := ""
					if c.device {
						presented = r.newDevice(t)
					}
					r.takeEvents()
					r.lookups.Store(0)
					r.attempts.since(c.fail)
					_, device, err := r.Authenticate(from(home), annsAddress, p, presented)
					r.attempts.since(nil)
					if err == nil && device != presented {
						t.Errorf("got the device token %q, want %q", device, presented)
					}
					fails := p == password || c.wrong
					want := in
					if p != password {
						want = denied
					}
					events := r.takeEvents()
					var failures []event.Event
					for _, e := range events {
						if e.Kind == event.LimiterFailed {
							failures = append(failures, e)
						}
					}
					if !fails && len(failures) != 0 || fails && len(failures) != c.events {
						t.Errorf("password %q: got the events %+v, want %d of the kind login.limiter_failed", p, events, c.events)
					}
					for _, e := range failures {
						if !errors.Is(e.Err, down) || e.ClientIP != home || !e.Time.Equal(r.clock.now()) {
							t.Errorf("got the event %+v, want the failure, the client IP and the time", e)
						}
					}
					if closed && c.begins {
						if !errors.Is(err, down) || errors.Is(err, account.ErrBadCredentials) || errors.Is(err, account.ErrTooManyAttempts) {
							t.Errorf("password %q: got %v, want only the store's failure", p, err)
						}
						if n := r.lookups.Load(); n != 0 || len(events) != c.events {
							t.Errorf("password %q: %d accounts were looked up and the events are %+v, want none", p, n, events)
						}
					} else {
						if outcome(err) != want || r.lookups.Load() != 1 || len(events)-len(failures) != 1 {
							t.Errorf("password %q: got %q, %d look-ups, the events %+v, want %q, 1 and one more event", p, outcome(err), r.lookups.Load(), events, want)
						}
					}
					if fails {
						if left := r.attempts.left(t); !reflect.DeepEqual(left, c.left) {
							t.Errorf("password %q: the counters are at %v, want %v", p, left, c.left)
						}
					}
				}
			})
		}
	}
}

func TestFailingCountersWithASession(t *testing.T) {
	down := errors.New("down")
	for _, closed := range []bool{false, true} {
		r := newLimitedRig(t, account.LimiterConfig{FailClosed: closed})
		for _, call := range []string{"Counters", "Add", "Clear", "Withdraw"} {
			r.attempts.since(func(_ context.Context, c string, _ int) error {
				if c == call {
					return down
				}
				return nil
			})
			r.takeEvents()
			_, err := r.Reauthenticate(from(home), r.ann, password)
			got := slices.Contains(kinds(r.takeEvents()), event.LimiterFailed)
			if got != (call != "Withdraw") { // Withdraw is not called
				t.Errorf("%s fails, closed %v: got an event: %v", call, closed, got)
			}
			if wantErr := closed && (call == "Counters" || call == "Add"); (err != nil) != wantErr || wantErr && !errors.Is(err, down) {
				t.Errorf("%s fails, closed %v: got %v, want an error: %v", call, closed, err, wantErr)
			}
		}
		r.attempts.since(nil)
	}
}

// While the store of attempts fails, attempts are neither limited nor counted.
func TestAttemptsAreNotLimitedWhileCountersFail(t *testing.T) {
	r := newLimitedRig(t, account.LimiterConfig{})
	down := errors.New("down")
	r.attempts.since(func(context.Context, string, int) error { return down })
	for range 30 {
		r.expect(t, "a wrong attempt", home, annsAddress, "wrong", denied)
	}
	r.expect(t, "the right password", home, annsAddress, password, in)
	r.attempts.since(nil)
	r.fail(t, 10, always(home), always(annsAddress))
	r.expect(t, "when the store works again", home, annsAddress, password, wait(time.Minute))
}

// While failures are free, a Last in the future must not cause a wait. It can be by another
// instance's clock, or of an attempt that began later and was faster.
func TestFreeFailuresDoNotWaitWithClocksApart(t *testing.T) {
	r := newLimitedRig(t, account.LimiterConfig{})
	r.clock.advance(time.Minute)
	r.expect(t, "a failure by a clock that is ahead", home, annsAddress, "wrong", denied)
	r.expect(t, "a stranger's", home, strangers(0), "wrong", denied)
	r.clock.advance(-time.Minute)
	r.expect(t, "another stranger's, by this clock", home, strangers(1), "wrong", denied)
	r.expect(t, "the right password, by this clock", home, annsAddress, password, in)

	r = newLimitedRig(t, account.LimiterConfig{})
	r.attempts.since(func(_ context.Context, call string, n int) error {
		if call == "Counters" && n == 1 {
			// Another attempt overtakes this one.
			r.clock.advance(time.Millisecond)
			r.expect(t, "the faster", home, strangers(1), "wrong", denied)
		}
		return nil
	})
	r.expect(t, "the slower", home, strangers(0), "wrong", denied)
	r.attempts.since(nil)
}

// Keys are digests, so that the store contains no names, no addresses, and no
// passwords typed into the wrong field.
func TestCountersContainNoPersonalData(t *testing.T) {
	r := newLimitedRig(t, account.LimiterConfig{})
	const typed = "correct horse battery staple"
	names := []string{annsAddress, strangers(0), typed, "", "not an address"}
	for i, name := range names {
		for _, addr := range []string{home, "2001:db8::1", ""} {
			_ = r.login(addr, name, "wrong")
			_ = r.login(addr, name, password)
			_ = r.login(elsewhere(i), name, password)
		}
	}
	_, _ = r.Reauthenticate(from(home), r.ann, "wrong")
	if len(r.attempts.keys) < 3*len(names) {
		t.Fatalf("the store got only %d keys", len(r.attempts.keys))
	}
	for key := range r.attempts.keys {
		if raw, err := base64.RawURLEncoding.DecodeString(key); len(key) != 43 || err != nil || len(raw) != 32 {
			t.Errorf("the key %q: %v, want a digest of 43 characters", key, err)
		}
		for _, secret := range append(names, "ann", "example", "stranger", "192.0.2", "2001:db8", "horse", r.ann.ID.String()) {
			if secret != "" && strings.Contains(strings.ToLower(key), secret) {
				t.Errorf("the key %q contains %q", key, secret)
			}
		}
	}
}

func TestTooManyAttemptsErrorTellsTheWait(t *testing.T) {
	err := error(&account.TooManyAttemptsError{RetryAfter: 90 * time.Second})
	wrapped := fmt.Errorf("account: %w", err)
	if !errors.Is(wrapped, account.ErrTooManyAttempts) || errors.Is(wrapped, account.ErrBadCredentials) || !strings.Contains(wrapped.Error(), "1m30s") {
		t.Errorf("got %v, want only ErrTooManyAttempts, with the time", wrapped)
	}
}

func TestLimiterConfigErrorsNameTheField(t *testing.T) {
	const hour, day = time.Hour, 24 * time.Hour
	good := account.Limit{Failures: 5, Delay: 30 * time.Second, MaxDelay: hour, Window: day} // 12 failures before an hour
	with := func(change func(*account.Limit)) account.Limit {
		l := good
		change(&l)
		return l
	}
	type config = account.LimiterConfig
	type test struct {
		name string
		cfg  config
		want string // part of the error; "" for none
	}
	tests := []test{
		{"the zero value", config{}, ""},
		{"all limits set", config{Account: good, Network: good, Device: good}, ""},
		{"a negative DeviceLifetime", config{DeviceLifetime: -1}, "Config.Limiter.DeviceLifetime"},
		{"a network's short delay", config{Network: account.Limit{Failures: 1, Delay: time.Second, MaxDelay: time.Second, Window: 2 * time.Second}}, ""},
		{"any number of failures of a network", config{Network: account.Limit{Failures: math.MaxInt}}, ""},

		// Account.Failures + 6 + 2 * 12
		{"70 free failures of an account", config{Account: account.Limit{Failures: 70, Delay: time.Minute, MaxDelay: hour, Window: day}}, ""}, // 100
		{"71 free failures of an account", config{Account: account.Limit{Failures: 71, Delay: time.Minute, MaxDelay: hour, Window: day}}, "Config.Limiter.Account"},
		{"any number of failures of an account", config{Account: with(func(l *account.Limit) { l.Failures = math.MaxInt })}, "Config.Limiter.Account"},
		// 16 + 2 * (Device.Failures + 7)
		{"35 free failures of a device", config{Device: with(func(l *account.Limit) { l.Failures = 35 })}, ""}, // 100
		{"36 free failures of a device", config{Device: with(func(l *account.Limit) { l.Failures = 36 })}, "Device"},
		{"any number of failures of a device", config{Device: with(func(l *account.Limit) { l.Failures = math.MaxInt })}, "Device"},
		{"a number of failures of a device that overflows", config{Device: with(func(l *account.Limit) { l.Failures = 1 << 62 })}, "Device"},
		// Device.Failures + 29 each
		{"a device's delay that doubles up to the longest duration", config{
			Device: with(func(l *account.Limit) { l.Failures, l.MaxDelay, l.Window = 13, math.MaxInt64-1, math.MaxInt64 }),
		}, ""},
		{"the same with one more free failure", config{
			Device: with(func(l *account.Limit) { l.Failures, l.MaxDelay, l.Window = 14, math.MaxInt64-1, math.MaxInt64 }),
		}, "100"},
		{"an account's delay that doubles up to the longest duration", config{
			Account: with(func(l *account.Limit) { l.MaxDelay, l.Window = math.MaxInt64-1, math.MaxInt64 }),
		}, ""},
		// Only failures before MaxDelay are bounded, whatever MaxDelay is.
		{"98 quick failures of an account, and one of a device and a session", config{
			Account: account.Limit{Failures: 98, Delay: 15 * time.Minute, MaxDelay: 15 * time.Minute, Window: hour},
			Device:  account.Limit{Failures: 1, Delay: 15 * time.Minute, MaxDelay: 15 * time.Minute, Window: hour},
		}, ""},
		{"99 quick failures of an account, and one of a device and a session", config{
			Account: account.Limit{Failures: 99, Delay: 15 * time.Minute, MaxDelay: 15 * time.Minute, Window: hour},
			Device:  account.Limit{Failures: 1, Delay: 15 * time.Minute, MaxDelay: 15 * time.Minute, Window: hour},
		}, "100"},
	}
	for name, set := range map[string]func(account.Limit) config{
		"Device":  func(l account.Limit) config { return config{Device: l} },
		"Account": func(l account.Limit) config { return config{Account: l} },
		"Network": func(l account.Limit) config { return config{Network: l} },
	} {
		field := "Config.Limiter." + name
		tests = append(tests,
			test{name + " without Failures", set(with(func(l *account.Limit) { l.Failures = 0 })), ""},
			test{name + " with negative Failures", set(with(func(l *account.Limit) { l.Failures = -1 })), field + ".Failures"},
			test{name + " with Failures only", set(account.Limit{Failures: 5}), ""},
			test{name + " with a MaxDelay beyond the default Window", set(account.Limit{MaxDelay: 48 * time.Hour}), field + ".Window"},
			test{name + " without Delay", set(with(func(l *account.Limit) { l.Delay = 0 })), ""},
			test{name + " with a Delay below a second", set(with(func(l *account.Limit) { l.Delay = time.Second - 1 })), field + ".Delay"},
			test{name + " without MaxDelay", set(with(func(l *account.Limit) { l.MaxDelay = 0 })), ""},
			test{name + " with a MaxDelay below Delay", set(with(func(l *account.Limit) { l.Delay, l.MaxDelay = hour, hour-1 })), field + ".MaxDelay"},
			test{name + " without Window", set(with(func(l *account.Limit) { l.Window = 0 })), ""},
			test{name + " with a Window of MaxDelay", set(with(func(l *account.Limit) { l.Window = hour })), field + ".Window"},
			test{name + " with a Window a bit longer", set(with(func(l *account.Limit) { l.Window = hour + time.Millisecond })), ""},
		)
		if name == "Network" { // the default Window equals this MaxDelay
			tests[len(tests)-3].want = field + ".Window"
		}
		short := test{name + " with a MaxDelay below 15 minutes", set(with(func(l *account.Limit) { l.MaxDelay = 15*time.Minute - 1 })), field + ".MaxDelay"}
		if name == "Network" {
			short.want = ""
		}
		tests = append(tests, short, test{name + " with a MaxDelay of 15 minutes", set(with(func(l *account.Limit) { l.MaxDelay = 15 * time.Minute })), ""})
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			m, err := account.NewManager(memstore.NewUsers[member](), nil, newAttempts(t), uuid.New, account.Config{Limiter: c.cfg})
			if c.want == "" {
				if m == nil || err != nil {
					t.Errorf("got %v, %v, want a Manager", m, err)
				}
			} else if m != nil || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v, want an error that names %s", m, err, c.want)
			}
		})
	}
}

func TestLongDelaysDoNotOverflow(t *testing.T) {
	const year = 365 * 24 * time.Hour
	r := newLimitedRig(t, account.LimiterConfig{Account: account.Limit{Failures: 1, Delay: 100 * year, MaxDelay: 290 * year, Window: 291 * year}})
	for _, d := range []time.Duration{100 * year, 200 * year, 290 * year, 290 * year} {
		r.expect(t, "an attempt", "", annsAddress, "wrong", denied)
		r.expect(t, "the next", "", annsAddress, "wrong", wait(d))
		r.clock.advance(d)
	}
}

// The zero Config limits logins, by the Manager's clock.
func TestLimiterIsOnByDefault(t *testing.T) {
	register := func(t *testing.T, attempts account.AttemptStore, cfg account.Config) *account.Manager[member, uuid.UUID] {
		t.Helper()
		cfg.Argon2, cfg.InsecureArgon2 = tiny, true
		m, err := account.NewManager(memstore.NewUsers[member](), nil, attempts, uuid.New, cfg)
		if err != nil {
			t.Fatalf("NewManager: %v", err)
		}
		if _, err := m.Register(t.Context(), newMember(annsAddress), password); err != nil {
			t.Fatalf("Register: %v", err)
		}
		return m
	}
	c := newClock()
	m := register(t, newAttempts(t), account.Config{Now: c.now})
	for i, want := range append(slices.Repeat([]string{denied}, 10), wait(time.Minute)) {
		if _, _, err := m.Authenticate(from(home), annsAddress, "wrong", ""); outcome(err) != want {
			t.Errorf("wrong attempt %d: got %v, want %q", i+1, err, want)
		}
	}
	c.advance(time.Minute)
	if _, _, err := m.Authenticate(from(home), annsAddress, password, ""); err != nil {
		t.Errorf("after the wait: got %v, want nil", err)
	}

	m = register(t, nil, account.Config{InsecureNoLimiter: true})
	for i := range 200 {
		if _, _, err := m.Authenticate(from(home), annsAddress, "wrong", ""); outcome(err) != denied {
			t.Fatalf("without a limiter, wrong attempt %d: got %v, want %q", i+1, err, denied)
		}
	}
	if _, err := m.Reauthenticate(from(home), member{}, "wrong"); outcome(err) != denied {
		t.Errorf("without a limiter, Reauthenticate: got %v, want %q", err, denied)
	}
}

func TestEachFieldOfALimitHasItsDefault(t *testing.T) {
	r := newLimitedRig(t, account.LimiterConfig{Account: account.Limit{Failures: 2}})
	r.fail(t, 2, always(home), always(annsAddress))
	r.expect(t, "after two failures", home, annsAddress, password, wait(time.Minute))
}

// Refused and abandoned attempts, and those that end in a failure of the store, must leave
// no counter: a flood of them would fill the database.
func TestAttemptsWithoutResultLeaveNoCounter(t *testing.T) {
	r := newLimitedRig(t, account.LimiterConfig{})
	device := r.newDevice(t)
	before := r.attempts.counters(t) // the device alone
	if len(before) != 1 {
		t.Fatalf("there are the counters %v, want the device's", before)
	}
	good := r.store.byEmail
	addrs := []string{home, "2001:db8::1", ""}
	for name, cause := range map[string]error{"busy": account.ErrBusy, "down": errors.New("down"), "gone": context.Canceled, "late": context.DeadlineExceeded} {
		r.store.byEmail = func(context.Context, string) (member, error) { return member{}, cause }
		for i, addr := range addrs {
			for _, d := range []string{"", device, "nonsense"} {
				for _, email := range []string{annsAddress, strangers(i)} {
					if _, _, err := r.Authenticate(from(addr), email, password, d); !errors.Is(err, cause) {
						t.Errorf("%s: got %v, want %v", name, err, cause)
					}
				}
			}
		}
		r.store.byEmail = good
		if got := r.attempts.counters(t); !slices.Equal(got, before) {
			t.Errorf("%s: the counters are %v, want %v", name, got, before)
		}
	}
	r.exhaust(t, annsAddress)
	before = r.attempts.counters(t)
	for i := range 50 {
		r.expect(t, "a refused attempt", elsewhere(4000+i), annsAddress, password, wait(time.Minute))
	}
	if got := r.attempts.counters(t); len(got) != len(before) {
		t.Errorf("after refused attempts there are %d counters, want %d", len(got), len(before))
	}

	// An attempt that another instance overtakes between its look and its count.
	r = newLimitedRig(t, account.LimiterConfig{})
	other := newRigWith(t, r.attempts.Attempts, account.Config{Argon2: tiny, Now: r.clock.now})
	r.fail(t, 9, always(home), always(annsAddress))
	r.attempts.since(func(_ context.Context, call string, n int) error {
		if call == "Add" && n == 1 {
			if _, _, err := other.Authenticate(from(home), annsAddress, "wrong", ""); outcome(err) != denied {
				t.Errorf("the faster attempt: got %v, want %q", err, denied)
			}
		}
		return nil
	})
	r.expect(t, "the slower attempt", elsewhere(0), annsAddress, password, wait(time.Minute))
	r.attempts.since(nil)
	if left := r.attempts.left(t); !slices.Equal(left, []int{10, 10}) || len(r.attempts.counters(t)) != 2 {
		t.Errorf("the counters are at %v, want [10 10]", left)
	}
}
