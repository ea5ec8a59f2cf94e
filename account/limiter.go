package account

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/latchkey-go/latchkey/event"
)

// Limit says how many failed attempts are free, and how long each further attempt must
// wait after the last failure: Delay at first, twice as long after each further failure,
// at most MaxDelay. A zero field has its default, which [LimiterConfig] names.
type Limit struct {
	// Failures is the number of free failures, at least 1.
	Failures int
	// Delay is the wait after that many failures, at least 1 second.
	Delay time.Duration
	// MaxDelay is the longest wait. In the limits Pair and Account it must be at least 15
	// minutes.
	MaxDelay time.Duration
	// Window is how long failures count. It must be longer than MaxDelay. In the limits
	// Pair and Account it begins with the last failure, in the limit Network with the
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
// The limiter counts failed attempts on an account from one network (Pair), on an account
// (Account), and from one network (Network). After the free failures each attempt must
// wait, twice as long every time. An attempt that comes too early fails with
// [ErrTooManyAttempts], and its password is not looked at. Unknown accounts are limited
// like known ones. A success clears the failures of the account from that network.
//
// A user on a known network cannot be locked out by attackers elsewhere: logins from a
// network where the user has logged in before are limited by Pair alone. If the client IP
// is unknown (see event.ContextWithClientIP), only Account counts.
//
// An attempt counts as a failure until its password has been checked, so concurrent
// attempts cannot exceed the limits. An attempt that would exceed them only because of
// others in flight waits up to 3 seconds for those to finish.
//
// With the default limits, 64 attempts on an account can fail in a row before every
// network must wait for MaxDelay, 1 hour, before each further attempt. NewManager rejects
// limits that allow more than 100 (NIST SP 800-63B-4 §3.2.2).
type LimiterConfig struct {
	// Pair limits the attempts on one account from one network: the /24 of an IPv4
	// address, the /64 of an IPv6 address. Default: 5 failures are free, then 30 seconds,
	// doubling up to 1 hour; the window is 24 hours.
	Pair Limit

	// Account limits the attempts on one account from all networks where its user has not
	// logged in. Default: 10 failures are free, then 1 minute, doubling up to 1 hour; the
	// window is 24 hours.
	Account Limit

	// Network limits the attempts from one network on all accounts whose users have not
	// logged in there. Many people can share a network, and behind a proxy all users do
	// unless Gin knows the proxy (SetTrustedProxies). Default: 100 failures are free, then
	// 1 second, doubling up to 5 minutes; the window is 1 hour.
	Network Limit

	// KnownNetworks is the number of known networks of an account: the last ones where
	// its user has logged in. Default 3.
	KnownNetworks int

	// KnownFor is how long an account's networks are known after the last login from one
	// of them, which is stored once a day. Default 90 days.
	KnownFor time.Duration

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
	store    AttemptStore
	accounts inFlight // by account
	pairs    inFlight // by account and network
	cfg      LimiterConfig
	clock    func() time.Time
	onEvent  func(context.Context, event.Event) // can be nil
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
		{"Pair", &cfg.Pair, Limit{5, 30 * time.Second, time.Hour, day}, true},
		{"Account", &cfg.Account, Limit{10, time.Minute, time.Hour, day}, true},
		{"Network", &cfg.Network, Limit{100, time.Second, 5 * time.Minute, time.Hour}, false},
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
	case cfg.KnownNetworks < 0:
		return nil, fmt.Errorf("account: Config.Limiter.KnownNetworks is negative: %d", cfg.KnownNetworks)
	case cfg.KnownNetworks == 0:
		cfg.KnownNetworks = 3
	}
	switch {
	case cfg.KnownFor < 0:
		return nil, fmt.Errorf("account: Config.Limiter.KnownFor is negative: %v", cfg.KnownFor)
	case cfg.KnownFor == 0:
		cfg.KnownFor = 90 * day
	}
	// Failures in a row can come from unknown networks, from each known network, and from
	// a session.
	if n := cfg.Account.quick() + (min(cfg.KnownNetworks, maxConsecutive)+1)*cfg.Pair.quick(); n > maxConsecutive {
		return nil, fmt.Errorf("account: Config.Limiter.Account, Pair and KnownNetworks allow %d failures in a row on an account before MaxDelay is reached, want at most %d (NIST SP 800-63B-4 §3.2.2)", n, maxConsecutive)
	}
	return &limiter{store: store, cfg: cfg, clock: clock, onEvent: onEvent}, nil
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

// attempt is a login, or another check of a password. Once the limiter has admitted it, it
// counts as a failure until end is called.
type attempt struct {
	limiter    *limiter
	accountKey string // attempts with the same key can wait for each other to finish
	account    *group
	pairKey    string // attempts with the same key use the counters one at a time
	pair       *group
	at         time.Time
	counted    []rule
	cleared    int    // pair.cleared when the attempt was counted
	knownKey   string // the key of the account's known networks; "" to remember none
	network    string
	known      AttemptCounter // the account's known networks
}

// rule is a limit that applies to an attempt, and its counter before the attempt.
type rule struct {
	key   string
	limit Limit
	// postpone makes the window begin anew with each failure.
	postpone bool
	found    AttemptCounter
}

// begin counts an attempt on the account with this name as a failure, before its password
// is checked. If the attempt comes too early, begin returns a *TooManyAttemptsError and
// counts nothing. With FailClosed it can return an error of the store.
func (l *limiter) begin(ctx context.Context, name string) (*attempt, error) {
	a := &attempt{limiter: l, accountKey: digest("account", name)}
	a.pairKey = a.accountKey
	homeKey, keys := "", []string{a.accountKey}
	if network := networkOf(event.ClientIP(ctx)); network != "" {
		a.network = digest("network", network)
		a.knownKey = digest("known", a.accountKey)
		a.pairKey = digest("pair", a.accountKey, a.network)
		// A known network has a key of its own: a success then takes back from the account
		// and the network only what was counted there.
		homeKey = digest("home", a.accountKey, a.network)
		keys = append(keys, a.pairKey, a.network, a.knownKey, homeKey)
	}
	return a, a.begin(ctx, func() ([]rule, error) {
		found, err := l.store.Counters(ctx, a.at, keys...)
		if err != nil {
			return nil, err
		}
		byAccount := rule{a.accountKey, l.cfg.Account, true, found[0]}
		if a.network == "" {
			return []rule{byAccount}, nil
		}
		a.known = found[3]
		if slices.Contains(a.known.Networks, a.network) {
			return []rule{{homeKey, l.cfg.Pair, true, found[4]}}, nil
		}
		return []rule{{a.pairKey, l.cfg.Pair, true, found[1]}, byAccount, {a.network, l.cfg.Network, false, found[2]}}, nil
	})
}

// beginWithSession is begin for a user who has a session. The attempt has a counter of its
// own, which attackers without a session cannot exhaust.
func (l *limiter) beginWithSession(ctx context.Context, name string) (*attempt, error) {
	a := &attempt{limiter: l, accountKey: digest("session", digest("account", name))}
	a.pairKey = a.accountKey
	return a, a.begin(ctx, func() ([]rule, error) {
		found, err := l.store.Counters(ctx, a.at, a.accountKey)
		if err != nil {
			return nil, err
		}
		return []rule{{a.accountKey, l.cfg.Pair, true, found[0]}}, nil
	})
}

// begin tries until the attempt is admitted, or no other attempt is left to wait for.
func (a *attempt) begin(ctx context.Context, look func() ([]rule, error)) error {
	l := a.limiter
	// The timeout is for the wait only. If it bounded the store's calls too, an attempt
	// could be admitted because there was no time left to count it.
	waitCtx, cancel := context.WithTimeout(ctx, inFlightWait)
	defer cancel()
	a.account, a.pair = l.accounts.join(a.accountKey), l.pairs.join(a.pairKey)
	admitted := false
	defer func() {
		if !admitted {
			a.leave()
		}
	}()
	for {
		finished := l.accounts.finished(a.account)
		a.at = l.now()
		err := a.locked(ctx, func() error {
			err := a.try(ctx, look)
			if err == nil {
				l.accounts.admit(a.account)
				admitted = true
			}
			return err
		})
		if err == nil {
			return nil
		}
		if !errors.Is(err, ErrTooManyAttempts) || !l.accounts.wait(waitCtx, a.account, finished) {
			return err
		}
	}
}

// try counts the attempt as a failure, or returns a *TooManyAttemptsError if one of the
// rules rejects it. look returns the rules that apply.
func (a *attempt) try(ctx context.Context, look func() ([]rule, error)) error {
	l := a.limiter
	a.cleared = a.pair.cleared
	rules, err := look()
	if err != nil {
		return l.failed(ctx, "read the counters", err)
	}
	var wait time.Duration
	for _, r := range rules {
		// While failures are free, Last does not matter: it can be later than a.at, by
		// another instance's clock.
		if d := r.limit.delay(r.found.Failures); d > 0 {
			wait = max(wait, min(d, d-a.at.Sub(r.found.Last)))
		}
	}
	for _, r := range rules {
		if wait > 0 {
			break
		}
		now, err := l.store.Add(ctx, r.key, a.at, a.at.Add(r.limit.Window), r.postpone)
		if err != nil {
			a.takeBack(ctx)
			return l.failed(ctx, "count the attempt", err)
		}
		a.counted = append(a.counted, r)
		// If another attempt was counted since we looked, it takes the slot and we wait.
		// The counter can include more attempts that are about to be taken back; they do
		// not make the wait longer.
		if before := now.Failures - 1; before != r.found.Failures && r.limit.delay(before) > 0 {
			wait = r.limit.delay(max(r.found.Failures+1, r.limit.Failures))
		}
	}
	if wait > 0 {
		a.takeBack(ctx)
		return &TooManyAttemptsError{wait}
	}
	return nil
}

// end ends an admitted attempt. outcome is nil for a success, and wraps ErrBadCredentials
// for a failure; after any other error the attempt does not count.
func (a *attempt) end(ctx context.Context, outcome error) {
	defer func() {
		a.limiter.accounts.finish(a.account)
		a.leave()
	}()
	ctx = context.WithoutCancel(ctx)
	_ = a.locked(ctx, func() error {
		switch {
		case outcome == nil:
			a.succeeded(ctx)
		case !errors.Is(outcome, ErrBadCredentials):
			a.takeBack(ctx)
		}
		return nil
	})
}

func (a *attempt) leave() {
	a.limiter.accounts.leave(a.accountKey, a.account)
	a.limiter.pairs.leave(a.pairKey, a.pair)
}

// locked calls f while no other attempt on the account from the network uses the
// counters: what an attempt counts and then takes back must not be seen, or cleared, by
// another one. Attempts from different networks do not wait for each other.
func (a *attempt) locked(ctx context.Context, f func() error) error {
	select {
	case a.pair.lock <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("account: limit attempts: wait for concurrent attempts: %w", ctx.Err())
	}
	defer func() { <-a.pair.lock }()
	return f()
}

// succeeded clears the failures of the account from this network.
func (a *attempt) succeeded(ctx context.Context) {
	if len(a.counted) == 0 {
		return // the store failed in begin
	}
	cleared, err := a.limiter.store.Clear(ctx, a.at, a.counted[0].key)
	if err == nil {
		a.pair.cleared++
		err = a.forgive(ctx, cleared.Failures)
	}
	if err == nil && a.knownKey != "" {
		err = a.remember(ctx)
	}
	if err != nil {
		_ = a.limiter.failed(ctx, "clear the counters", err)
	}
}

// forgive subtracts the failures of the account from this network from the counters of
// the account and of the network. NIST SP 800-63B-4 §3.2.2 allows that for failures from
// the same IP address.
func (a *attempt) forgive(ctx context.Context, failures int) error {
	before := a.counted[0].found
	for _, r := range a.counted[1:] {
		n := failures
		if a.at.Sub(before.Last) >= r.limit.Window {
			n -= min(n, max(0, before.Failures)) // that counter no longer includes these
		}
		if err := a.withdraw(ctx, []rule{r}, n); err != nil {
			return err
		}
	}
	return nil
}

// remember moves the network to the front of the account's known networks. If it is the
// first one already, remember writes it once a day.
func (a *attempt) remember(ctx context.Context) error {
	networks, cfg := a.known.Networks, a.limiter.cfg
	if len(networks) > 0 && networks[0] == a.network && a.at.Sub(a.known.Last) < min(24*time.Hour, cfg.KnownFor/2) {
		return nil
	}
	networks = slices.DeleteFunc(slices.Clone(networks), func(n string) bool { return n == a.network })
	networks = slices.Insert(networks, 0, a.network)
	networks = networks[:min(len(networks), cfg.KnownNetworks)]
	return a.limiter.store.Remember(ctx, a.knownKey, networks, a.at, a.at.Add(cfg.KnownFor))
}

// takeBack makes the attempt not count as a failure.
func (a *attempt) takeBack(ctx context.Context) {
	if a.pair.cleared != a.cleared {
		return // a concurrent success has cleared it
	}
	ctx = context.WithoutCancel(ctx)
	if err := a.withdraw(ctx, a.counted, 1); err != nil {
		_ = a.limiter.failed(ctx, "take the attempt back", err)
	}
	a.counted = nil
}

func (a *attempt) withdraw(ctx context.Context, from []rule, n int) error {
	for _, r := range from {
		if n == 0 {
			break
		}
		if err := a.limiter.store.Withdraw(ctx, a.at, r.key, n); err != nil {
			return err
		}
	}
	return nil
}

// failed reports a failure of the store. It returns it with FailClosed, and nil otherwise.
func (l *limiter) failed(ctx context.Context, doing string, err error) error {
	err = fmt.Errorf("account: limit attempts: %s: %w", doing, err)
	if l.onEvent != nil && ctx.Err() == nil { // a client that goes away is no failure
		l.onEvent(ctx, event.Event{Kind: event.LimiterFailed, Time: l.now(), ClientIP: event.ClientIP(ctx), Err: err})
	}
	if l.cfg.FailClosed {
		return err
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

// networkOf returns the network of an IP address: the /24 of an IPv4 address, the /64 of
// an IPv6 address, or "" if addr is not an IP address.
func networkOf(addr string) string {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return ""
	}
	ip = ip.Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 24
	}
	network, err := ip.Prefix(bits)
	if err != nil {
		return ""
	}
	return network.String()
}
