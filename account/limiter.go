package account

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/reported"
	"github.com/latchkey-go/latchkey/internal/token"
)

// Limit says how many failed attempts are free, and how long each further attempt must
// wait after the last failure: Delay at first, twice as long after each further failure,
// at most MaxDelay. A zero field has its default, which [LimiterConfig] names.
type Limit struct {
	// Failures is the number of free failures, at least 1.
	Failures int
	// Delay is the wait after that many failures, at least 1 second.
	Delay time.Duration
	// MaxDelay is the longest wait. In the limits Account and Device it must be at least 15
	// minutes.
	MaxDelay time.Duration
	// Window is how long failures count. It must be longer than MaxDelay. In the limits
	// Account and Device it begins with the last failure, in the limit Network with the
	// first.
	Window time.Duration
}

// delay returns the wait after a number of failures.
func (l Limit) delay(failures int) time.Duration {
	if failures < l.Failures {
		return 0
	}
	d := l.Delay
	for ; failures > l.Failures && d < l.MaxDelay; failures-- {
		d += min(d, l.MaxDelay-d)
	}
	return d
}

// setDefaults sets the fields that are zero.
func (l *Limit) setDefaults(defaults Limit) {
	if l.Failures == 0 {
		l.Failures = defaults.Failures
	}
	if l.Delay == 0 {
		l.Delay = defaults.Delay
	}
	if l.MaxDelay == 0 {
		l.MaxDelay = max(defaults.MaxDelay, l.Delay)
	}
	if l.Window == 0 {
		l.Window = defaults.Window
	}
}

// quick returns the number of failures until every attempt must wait for MaxDelay. It
// stops counting above maxConsecutive.
func (l Limit) quick() int {
	n := min(l.Failures, maxConsecutive+1)
	for n <= maxConsecutive && l.delay(n) < l.MaxDelay {
		n++
	}
	return n
}

// LimiterConfig configures how a [Manager] limits failed logins. The zero value is safe.
//
// A login returns a device token, which the client presents with its next login on the
// same account. Attempts with a valid device token are counted by that device alone
// (Device). All other attempts are counted by the account (Account) and by the network
// that they come from (Network). So attackers cannot lock out a user who has logged in on
// the device before, and learn nothing from the answers: see OWASP, "Slow Down Online
// Guessing Attacks with Device Cookies". A device token is no credential.
//
// After the free failures each attempt must wait, twice as long every time. An attempt
// that comes too early fails with [ErrTooManyAttempts], and its password is not looked at.
// Unknown accounts are limited like known ones. A success clears the failures of the
// device, or without a device token those of the account.
//
// An attempt counts as a failure until its password has been checked, so concurrent
// attempts cannot exceed the limits. In one process, attempts on the same account or from
// the same device therefore take turns: each waits up to 3 seconds for earlier ones, and
// then fails with [ErrBusy]. At most 255 wait.
//
// With the default limits, 40 attempts on an account can fail in a row, with a stolen
// device token and a stolen session among them, before each further attempt must wait for
// MaxDelay, 1 hour. NewManager rejects limits that allow more than 100 (NIST SP 800-63B-4
// §3.2.2).
type LimiterConfig struct {
	// Account limits the attempts on one account without a valid device token. Default:
	// 10 failures are free, then 1 minute, doubling up to 1 hour; the window is 24 hours.
	Account Limit

	// Network limits the attempts without a valid device token from one network, on all
	// accounts: the /24 of an IPv4 address, the /64 of an IPv6 address, and with ten times
	// the free failures its /48. An IPv4 address inside an IPv6 address counts as such.
	// The client IP is that of event.ContextWithClientIP; without one, only Account
	// counts. Many people can share a network, and behind a proxy all users do unless Gin
	// knows the proxy (SetTrustedProxies). Default: 100 failures are free, then 1 second,
	// doubling up to 5 minutes; the window is 1 hour.
	Network Limit

	// Device limits the attempts on one account with one valid device token, and those of
	// a user with a session (see [Manager.Reauthenticate]). Default: 5 failures are free,
	// then 30 seconds, doubling up to 1 hour; the window is 24 hours.
	Device Limit

	// DeviceLifetime is how long a device token is valid after the last login with it.
	// Each login without a valid one stores a new one, of about 100 bytes. Default 90 days.
	DeviceLifetime time.Duration

	// FailClosed makes logins fail while the AttemptStore fails. Default false: they are
	// not limited then, and each emits an event.
	FailClosed bool
}

const (
	// maxConsecutive is how many attempts on an account may fail in a row before each
	// further one must wait for the longest delay (NIST SP 800-63B-4 §3.2.2).
	maxConsecutive = 100
	// minMaxDelay is the least value of that delay.
	minMaxDelay = 15 * time.Minute
)

// limiter limits failed logins; see LimiterConfig. It is safe for concurrent use.
type limiter struct {
	store   AttemptStore
	queues  queues // by the key of the first rule
	cfg     LimiterConfig
	clock   func() time.Time
	onEvent func(context.Context, event.Event) // can be nil
}

// newLimiter returns a limiter. It returns an error that names the field if the
// configuration is invalid.
func newLimiter(store AttemptStore, cfg LimiterConfig, clock func() time.Time, onEvent func(context.Context, event.Event)) (*limiter, error) {
	const day = 24 * time.Hour
	for _, l := range []struct {
		name     string
		limit    *Limit
		defaults Limit
		long     bool // MaxDelay must be long
	}{
		{"Account", &cfg.Account, Limit{10, time.Minute, time.Hour, day}, true},
		{"Network", &cfg.Network, Limit{100, time.Second, 5 * time.Minute, time.Hour}, false},
		{"Device", &cfg.Device, Limit{5, 30 * time.Second, time.Hour, day}, true},
	} {
		l.limit.setDefaults(l.defaults)
		switch c := *l.limit; {
		case c.Failures < 1:
			return nil, fmt.Errorf("account: Config.Limiter.%s.Failures is %d, want at least 1", l.name, c.Failures)
		case c.Delay < time.Second:
			return nil, fmt.Errorf("account: Config.Limiter.%s.Delay is %v, want at least 1s", l.name, c.Delay)
		case c.MaxDelay < c.Delay:
			return nil, fmt.Errorf("account: Config.Limiter.%s.MaxDelay is %v, want at least Delay, %v", l.name, c.MaxDelay, c.Delay)
		case l.long && c.MaxDelay < minMaxDelay:
			return nil, fmt.Errorf("account: Config.Limiter.%s.MaxDelay is %v, want at least %v", l.name, c.MaxDelay, minMaxDelay)
		case c.Window <= c.MaxDelay:
			return nil, fmt.Errorf("account: Config.Limiter.%s.Window is %v, want longer than MaxDelay, %v", l.name, c.Window, c.MaxDelay)
		}
	}
	switch {
	case cfg.DeviceLifetime < 0:
		return nil, fmt.Errorf("account: Config.Limiter.DeviceLifetime is negative: %v", cfg.DeviceLifetime)
	case cfg.DeviceLifetime == 0:
		cfg.DeviceLifetime = 90 * day
	}
	// Failures in a row can come from elsewhere, from a device and from a session.
	if n := cfg.Account.quick() + 2*cfg.Device.quick(); n > maxConsecutive {
		return nil, fmt.Errorf("account: Config.Limiter.Account and Device allow %d failures in a row on an account before MaxDelay is reached, want at most %d (NIST SP 800-63B-4 §3.2.2)", n, maxConsecutive)
	}
	return &limiter{store: store, queues: queues{byKey: make(map[string]*queue)}, cfg: cfg, clock: clock, onEvent: onEvent}, nil
}

// TooManyAttemptsError is [ErrTooManyAttempts] with the time to wait.
type TooManyAttemptsError struct {
	// RetryAfter is how long the next attempt must wait.
	RetryAfter time.Duration
}

// Error implements error.
func (e *TooManyAttemptsError) Error() string {
	return fmt.Sprintf("%v: retry in %v", ErrTooManyAttempts, e.RetryAfter)
}

// Is reports whether target is [ErrTooManyAttempts].
func (e *TooManyAttemptsError) Is(target error) bool { return target == ErrTooManyAttempts }

// rule is a limit on the failures that a counter holds.
type rule struct {
	key      string
	limit    Limit
	postpone bool // the window begins anew with each failure
}

// attempt is a login, or another check of a password.
type attempt struct {
	*limiter
	rules  []rule
	device string // the key of the device to remember after a success; "" for none
	known  bool   // the device must be known already

	at         time.Time
	counted    []rule      // the rules whose counters include the attempt
	remembered atomic.Bool // atomic, as finish may go on behind the answer
}

// errUnknownDevice means that a device token is not valid for the account.
var errUnknownDevice = errors.New("unknown device")

// login calls check, which checks a password for the account with this name, unless the
// limiter rejects the attempt. It returns check's error, or its own: a
// *TooManyAttemptsError, ErrBusy, the context's error, or with FailClosed an error of the
// store. After a success it returns the device token to present next time.
func (l *limiter) login(ctx context.Context, name, device string, check func() error) (string, error) {
	account := digest("account", name)
	if d, ok := token.Device.Digest(device); ok {
		key := digest("device", account, d)
		a := &attempt{limiter: l, rules: []rule{{digest("failures", key), l.cfg.Device, true}}, device: key, known: true}
		if err := a.run(ctx, check); !errors.Is(err, errUnknownDevice) {
			return device, err
		}
	}
	newDevice, d := token.Device.New()
	a := &attempt{limiter: l, rules: []rule{{account, l.cfg.Account, true}}, device: digest("device", account, d)}
	limit := l.cfg.Network
	for _, network := range networksOf(event.ClientIP(ctx)) {
		a.rules = append(a.rules, rule{digest("network", network), limit, false})
		limit.Failures = 10 * min(limit.Failures, math.MaxInt/10)
	}
	if err := a.run(ctx, check); err != nil || !a.remembered.Load() {
		return "", err
	}
	return newDevice, nil
}

// loginWithSession is login for a user who has a session. Its counter is its own, which
// attackers without a session cannot exhaust.
func (l *limiter) loginWithSession(ctx context.Context, name string, check func() error) error {
	a := &attempt{limiter: l, rules: []rule{{digest("session", digest("account", name)), l.cfg.Device, true}}}
	return a.run(ctx, check)
}

// run calls check when it is the attempt's turn, unless one of the rules rejects it.
func (a *attempt) run(ctx context.Context, check func() error) (err error) {
	busy := a.queues.run(ctx, a.rules[0].key, func() {
		a.at = a.now()
		if err = a.begin(ctx); err != nil {
			return
		}
		err = errors.New("account: the store panicked") // the outcome if check does not return
		defer func() { a.end(ctx, err) }()
		err = check()
	})
	switch {
	case busy == nil:
		return err
	case errors.Is(busy, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrBusy, busy)
	default:
		return busy
	}
}

// begin counts the attempt as a failure, or returns an error and counts nothing.
func (a *attempt) begin(ctx context.Context) error {
	var keys []string
	for _, r := range a.rules {
		keys = append(keys, r.key)
	}
	if a.known {
		keys = append(keys, a.device)
	}
	found, err := a.store.Counters(ctx, a.at, keys...)
	switch {
	case err != nil:
		return a.failed(ctx, "read the counters", err)
	case a.known && found[len(a.rules)].Last.IsZero():
		return errUnknownDevice
	}
	var wait time.Duration
	for i, r := range a.rules {
		// While failures are free, Last does not matter: it can be later than a.at, by
		// another instance's clock.
		if d := r.limit.delay(found[i].Failures); d > 0 {
			wait = max(wait, min(d, d-a.at.Sub(found[i].Last)))
		}
	}
	for i, r := range a.rules {
		if wait > 0 {
			break
		}
		now, err := a.store.Add(ctx, r.key, a.at, a.at.Add(r.limit.Window), r.postpone)
		if err != nil {
			a.takeBack(ctx)
			return a.failed(ctx, "count the attempt", err)
		}
		a.counted = append(a.counted, r)
		// If another attempt was counted since we looked, it takes the slot and we wait.
		// The counter can include more attempts that are about to be taken back; they do
		// not make the wait longer.
		if before := now.Failures - 1; before != found[i].Failures && r.limit.delay(before) > 0 {
			wait = r.limit.delay(max(found[i].Failures+1, r.limit.Failures))
		}
	}
	if wait > 0 {
		a.takeBack(ctx)
		return &TooManyAttemptsError{wait}
	}
	return nil
}

// end ends an attempt that was begun, also if the client has gone. outcome is nil for a
// success, and wraps ErrBadCredentials for a failure; after any other error the attempt does
// not count.
func (a *attempt) end(ctx context.Context, outcome error) {
	switch {
	case outcome != nil && !errors.Is(outcome, ErrBadCredentials):
		a.takeBack(ctx)
	case outcome == nil && len(a.counted) > 0: // else the store failed in begin
		finish(ctx, func(ctx context.Context) {
			if err := a.succeeded(ctx); err != nil {
				_ = a.failed(ctx, "clear the counters", err)
			}
		})
	}
}

// succeeded clears the failures of the account or device, takes the attempt back from the
// other counters, and remembers the device.
func (a *attempt) succeeded(ctx context.Context) error {
	if err := a.store.Clear(ctx, a.counted[0].key); err != nil {
		return err
	}
	if err := a.withdraw(ctx, a.counted[1:]); err != nil {
		return err
	}
	if a.device != "" {
		if err := a.store.Remember(ctx, a.device, a.at, a.at.Add(a.cfg.DeviceLifetime)); err != nil {
			return err
		}
		a.remembered.Store(true)
	}
	return nil
}

// takeBack makes the attempt not count as a failure. If the time of the login is over, it goes
// on behind the answer, in the time that the store allows.
func (a *attempt) takeBack(ctx context.Context) {
	counted := a.counted
	a.counted = nil
	if len(counted) == 0 {
		return
	}
	finish(ctx, func(ctx context.Context) {
		if err := a.withdraw(ctx, counted); err != nil {
			_ = a.failed(ctx, "take the attempt back", err)
		}
	})
}

// withdraw subtracts the attempt from the counters. It goes on if one of them fails.
func (a *attempt) withdraw(ctx context.Context, from []rule) error {
	var errs []error
	for _, r := range from {
		errs = append(errs, a.store.Withdraw(ctx, a.at, r.key, 1))
	}
	return errors.Join(errs...)
}

// failed reports a failure of the store. It returns it with FailClosed, or if the operation's
// time is over, so that no attempt goes on unlimited because it waited too long. Otherwise it
// returns nil.
func (l *limiter) failed(ctx context.Context, doing string, err error) error {
	err = fmt.Errorf("limit attempts: %s: %w", doing, err)
	if l.onEvent != nil && !abandoned(ctx) {
		l.onEvent(ctx, event.Event{Kind: event.LimiterFailed, Time: l.now(), ClientIP: event.ClientIP(ctx), Err: fmt.Errorf("account: %w", err)})
	}
	if l.cfg.FailClosed || ctx.Err() != nil {
		return reported.Mark(err)
	}
	return nil
}

func (l *limiter) now() time.Time { return l.clock().UTC().Truncate(time.Millisecond) }

// digest returns a key. Keys are digests because users type e-mail addresses, and now and
// then passwords, as the name of an account: the store must not hold them.
func digest(kind string, parts ...string) string {
	h := sha256.New()
	fmt.Fprintf(h, "latchkey login attempts %s", kind)
	for _, part := range parts {
		fmt.Fprintf(h, " %d %s", len(part), part)
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// networksOf returns the networks of an IP address, with or without a port: the /24 of an
// IPv4 address; the /64 and the /48 of an IPv6 address; none if addr is something else.
func networksOf(addr string) []string {
	ip, err := netip.ParseAddr(strings.Trim(addr, "[]"))
	if err != nil {
		withPort, err := netip.ParseAddrPort(addr)
		if err != nil {
			return nil
		}
		ip = withPort.Addr()
	}
	ip = embedded(ip.Unmap().WithZone(""))
	if ip.Is4() {
		return []string{netip.PrefixFrom(ip, 24).Masked().String()}
	}
	return []string{netip.PrefixFrom(ip, 64).Masked().String(), netip.PrefixFrom(ip, 48).Masked().String()}
}

// embedded returns the IPv4 address of a client behind an IPv6 transition mechanism, which
// the IPv6 address contains, and other addresses as they are. Without it, all clients of a
// NAT64 would be one network, and one client of 6to4 or Teredo could have many.
func embedded(ip netip.Addr) netip.Addr {
	b := ip.As16()
	switch {
	case nat64.Contains(ip):
		return netip.AddrFrom4([4]byte(b[12:]))
	case sixToFour.Contains(ip):
		return netip.AddrFrom4([4]byte(b[2:6]))
	case teredo.Contains(ip):
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})
	}
	return ip
}

var (
	nat64     = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052 §2.1
	sixToFour = netip.MustParsePrefix("2002::/16")    // RFC 3056 §2
	teredo    = netip.MustParsePrefix("2001::/32")    // RFC 4380 §4
)
