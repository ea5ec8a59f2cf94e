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

// Limit says how many failed attempts are free, and how long one has to wait
// after each of those that follow: Delay after the first, twice as long after
// each further one, and never longer than MaxDelay.
type Limit struct {
	// Failures is how many failures are free.
	Failures int
	// Delay is the wait after that many failures.
	Delay time.Duration
	// MaxDelay is the longest wait.
	MaxDelay time.Duration
	// Window is when failures are forgotten, longer than MaxDelay: of an account,
	// and of an account from a network, that long after the last of them; of a
	// network, that long after the first.
	Window time.Duration
}

// delay is how long one has to wait after so many failures.
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

// fill sets what is zero to its default. A default that contradicts what is set
// follows it.
func (l *Limit) fill(byDefault Limit) {
	if l.Failures == 0 {
		l.Failures = byDefault.Failures
	}
	if l.Delay == 0 {
		l.Delay = byDefault.Delay
	}
	if l.MaxDelay == 0 {
		l.MaxDelay = max(byDefault.MaxDelay, l.Delay)
	}
	if l.Window == 0 {
		l.Window = byDefault.Window
	}
}

// quick is how many failures there can be before one has to wait for MaxDelay
// after each; more than maxConsecutive are as bad as any.
func (l Limit) quick() int {
	n := min(l.Failures, maxConsecutive+1)
	for n <= maxConsecutive && l.delay(n) < l.MaxDelay {
		n++
	}
	return n
}

// LimiterConfig configures a [Limiter]. The zero value is safe. Each field of a
// Limit that is zero has its default.
type LimiterConfig struct {
	// Pair limits the attempts on one account from one network: the /24 of an
	// IPv4 address, the /64 of an IPv6 one. Default: 5 failures are free, then 30
	// seconds, doubling up to 1 hour; forgotten after 24 hours.
	Pair Limit

	// Account limits the attempts on one account from all networks that its user
	// has not logged in from. Default: 10 failures are free, then 1 minute,
	// doubling up to 1 hour; forgotten after 24 hours.
	Account Limit

	// Network limits the attempts from one network on all accounts whose users
	// have not logged in from it. Many people can share one, all of them where
	// Gin's trusted proxies are not set up. Default: 100 failures an hour are free,
	// then 1 second, doubling up to 5 minutes.
	Network Limit

	// KnownNetworks is how many networks are remembered from which an account's
	// user has logged in, the latest. Default 3. A login from one of them has to do
	// with Pair alone: so nobody can lock a user out from elsewhere.
	KnownNetworks int

	// KnownFor is how long an account's networks are remembered after the latest
	// login from one of them, written down once a day. Default 90 days.
	KnownFor time.Duration

	// FailClosed refuses logins while the store of attempts fails. Default false:
	// they go on without a limit, each with an event.
	FailClosed bool
}

const (
	// maxConsecutive is how many attempts on an account may fail in a row without
	// the longest of delays after each: NIST SP 800-63B-4 §3.2.2 asks for a limit
	// of at most 100.
	maxConsecutive = 100
	// leastMaxDelay is the least for that delay.
	leastMaxDelay = 15 * time.Minute
)

// Limiter bounds how often passwords can be guessed. It counts the failed
// attempts on an account from a network, on an account, and from a network, and
// from a number on makes each wait that the last one was long enough ago; see
// [LimiterConfig]. It tells accounts that do not exist no different from those
// that do. An attempt counts from before its password is looked at: many at once
// are no way around. Those that are too many at once wait for the others' end.
//
// Nobody can lock a user out who comes from a network from which they logged in
// before: what others do elsewhere does not count there. Where the client's
// address is not known (see event.ContextWithClientIP), only the account's
// failures count.
//
// After at most 100 attempts on an account that failed in a row (with the default
// limits, 64), every network has to wait for MaxDelay, 1 hour by default, before
// each further one (NIST SP 800-63B-4 §3.2.2). NewLimiter refuses limits that add
// up to more.
//
// Make one with [NewLimiter], or leave it to [NewManager]. It is safe for
// concurrent use.
type limiter struct {
	store   AttemptStore
	herds   herds // by account
	turns   herds // by account and network
	cfg     LimiterConfig
	clock   func() time.Time
	onEvent func(context.Context, event.Event)
}

// NewLimiter returns a Limiter with its counters in a store: mongostore.Attempts,
// which all instances share, or [MemoryAttempts]. It returns an error that names
// the field where the configuration is wrong.
func newLimiter(store AttemptStore, cfg LimiterConfig, clock func() time.Time, onEvent func(context.Context, event.Event)) (*limiter, error) {
	const day = 24 * time.Hour
	for _, l := range []struct {
		name    string
		limit   *Limit
		byDflt  Limit
		longest bool // must end with a long delay
	}{
		{"Pair", &cfg.Pair, Limit{5, 30 * time.Second, time.Hour, day}, true},
		{"Account", &cfg.Account, Limit{10, time.Minute, time.Hour, day}, true},
		{"Network", &cfg.Network, Limit{100, time.Second, 5 * time.Minute, time.Hour}, false},
	} {
		l.limit.fill(l.byDflt)
		switch c := *l.limit; {
		case c.Failures < 1:
			return nil, fmt.Errorf("account: Config.Limiter.%s.Failures is %d, want at least 1", l.name, c.Failures)
		case c.Delay < time.Second:
			return nil, fmt.Errorf("account: Config.Limiter.%s.Delay is %v, want at least 1s", l.name, c.Delay)
		case c.MaxDelay < c.Delay:
			return nil, fmt.Errorf("account: Config.Limiter.%s.MaxDelay is %v, want at least Delay, %v", l.name, c.MaxDelay, c.Delay)
		case l.longest && c.MaxDelay < leastMaxDelay:
			return nil, fmt.Errorf("account: Config.Limiter.%s.MaxDelay is %v, want at least %v", l.name, c.MaxDelay, leastMaxDelay)
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
	// What can fail in a row: from networks that are not known, from each that is,
	// and behind a session.
	if n := cfg.Account.quick() + (min(cfg.KnownNetworks, maxConsecutive)+1)*cfg.Pair.quick(); n > maxConsecutive {
		return nil, fmt.Errorf("account: Config.Limiter.Account, Pair and KnownNetworks allow %d attempts on an account to fail in a row before MaxDelay is reached, want at most %d (NIST SP 800-63B-4 §3.2.2)", n, maxConsecutive)
	}
	return &limiter{store: store, cfg: cfg, clock: clock, onEvent: onEvent}, nil
}

// TooManyAttemptsError is [ErrTooManyAttempts] with the time to wait.
type TooManyAttemptsError struct {
	// RetryAfter is how long the next attempt has to wait.
	RetryAfter time.Duration
}

// Error implements error.
func (e *TooManyAttemptsError) Error() string {
	return fmt.Sprintf("%v: the next in %v", ErrTooManyAttempts, e.RetryAfter)
}

// Is reports whether target is [ErrTooManyAttempts].
func (e *TooManyAttemptsError) Is(target error) bool { return target == ErrTooManyAttempts }

// attempt is a login, or another use of a password, that the limiter let through
// and has counted as a failure, for now. It ends with one of its methods.
type attempt struct {
	limiter *limiter
	account string // the key under which others at the same time find it
	herd    *herd
	pair    string // the key under which it takes turns with others
	turn    *herd
	at      time.Time
	counted []rule
	cleared int    // the turn's, when this attempt was counted
	known   string // the key of the account's networks; "" where there is nothing to remember
	network string
	before  AttemptCounter // what was remembered
}

// rule is a counter that an attempt goes by, as it was found.
type rule struct {
	key   string
	limit Limit
	// postpone says that the counter expires that long after its last failure.
	postpone bool
	found    AttemptCounter
}

// begin counts an attempt on an account by its name, before its password is looked
// at. It returns a *TooManyAttemptsError where too many have failed, and counts
// nothing then; an error of the store with FailClosed.
func (l *limiter) begin(ctx context.Context, name string) (*attempt, error) {
	a := &attempt{limiter: l, account: digest("account", name)}
	a.pair = a.account
	atHome, keys := "", []string{a.account}
	if network := networkOf(event.ClientIP(ctx)); network != "" {
		a.network = digest("network", network)
		a.known = digest("known", a.account)
		a.pair = digest("pair", a.account, a.network)
		// Apart, so that a success withdraws from the account and the network what
		// was counted there, and no more.
		atHome = digest("home", a.account, a.network)
		keys = append(keys, a.pair, a.network, a.known, atHome)
	}
	return a, a.begin(ctx, func() ([]rule, error) {
		found, err := l.store.Counters(ctx, a.at, keys...)
		if err != nil {
			return nil, err
		}
		byAccount := rule{a.account, l.cfg.Account, true, found[0]}
		if a.network == "" {
			return []rule{byAccount}, nil
		}
		a.before = found[3]
		if slices.Contains(a.before.Networks, a.network) {
			return []rule{{atHome, l.cfg.Pair, true, found[4]}}, nil
		}
		return []rule{{a.pair, l.cfg.Pair, true, found[1]}, byAccount, {a.network, l.cfg.Network, false, found[2]}}, nil
	})
}

// beginWithin is begin for somebody who has a session of the account: nobody else
// can exhaust its counter.
func (l *limiter) beginWithin(ctx context.Context, name string) (*attempt, error) {
	a := &attempt{limiter: l, account: digest("session", digest("account", name))}
	a.pair = a.account
	return a, a.begin(ctx, func() ([]rule, error) {
		found, err := l.store.Counters(ctx, a.at, a.account)
		if err != nil {
			return nil, err
		}
		return []rule{{a.account, l.cfg.Pair, true, found[0]}}, nil
	})
}

// begin tries until the attempt may go, or has nobody to wait for.
func (a *attempt) begin(ctx context.Context, look func() ([]rule, error)) error {
	l := a.limiter
	// Only the wait ends then: an attempt must not pass because the store had no
	// time left to count it.
	patience, cancel := context.WithTimeout(ctx, herdWait)
	defer cancel()
	a.herd, a.turn = l.herds.join(a.account), l.turns.join(a.pair)
	begun := false
	defer func() {
		if !begun {
			a.leave()
		}
	}()
	for {
		ends := l.herds.soFar(a.herd)
		a.at = l.now()
		err := a.inTurn(ctx, func() error {
			err := a.try(ctx, look)
			if err == nil {
				l.herds.begun(a.herd)
				begun = true
			}
			return err
		})
		if err == nil {
			return nil
		}
		if !errors.Is(err, ErrTooManyAttempts) || !l.herds.wait(patience, a.herd, ends) {
			return err
		}
	}
}

// try decides on the attempt by the rules for it.
func (a *attempt) try(ctx context.Context, look func() ([]rule, error)) error {
	l := a.limiter
	a.cleared = a.turn.cleared
	rules, err := look()
	if err != nil {
		return l.failed(ctx, "read the counters", err)
	}
	var wait time.Duration
	for _, r := range rules {
		// While failures are free, Last is of no interest: it can be ahead of at.
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
		// Of several that have waited, the first one goes. Those that come too late
		// are in the counter too, for a moment, and do not make the wait longer.
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

// end ends an attempt that was let through, by how it went.
func (a *attempt) end(ctx context.Context, outcome error) {
	defer func() {
		a.limiter.herds.ended(a.herd)
		a.leave()
	}()
	ctx = context.WithoutCancel(ctx)
	_ = a.inTurn(ctx, func() error {
		switch {
		case outcome == nil:
			a.succeeded(ctx)
		case !errors.Is(outcome, ErrBadCredentials):
			a.takeBack(ctx) // its password was not looked at
		}
		return nil
	})
}

func (a *attempt) leave() {
	a.limiter.herds.leave(a.account, a.herd)
	a.limiter.turns.leave(a.pair, a.turn)
}

// inTurn does something with the counters while no other attempt on the account
// from the network does: what one counts for a moment, and takes back, must be
// neither among what another finds nor among what it clears. Attempts from other
// networks hold nobody up.
func (a *attempt) inTurn(ctx context.Context, do func() error) error {
	select {
	case a.turn.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("account: limit attempts: wait for others: %w", ctx.Err())
	}
	defer func() { <-a.turn.turn }()
	return do()
}

// succeeded clears what failed on this account from this network.
func (a *attempt) succeeded(ctx context.Context) {
	if len(a.counted) == 0 {
		return // the store failed
	}
	cleared, err := a.limiter.store.Clear(ctx, a.at, a.counted[0].key)
	if err == nil {
		a.turn.cleared++
		err = a.disregard(ctx, cleared.Failures)
	}
	if err == nil && a.known != "" {
		err = a.remember(ctx)
	}
	if err != nil {
		_ = a.limiter.failed(ctx, "clear the counters", err)
	}
}

// disregard takes what failed on the account from the network out of the counters of
// both: NIST SP 800-63B-4 §3.2.2 allows that for failures from the same address.
func (a *attempt) disregard(ctx context.Context, failures int) error {
	before := a.counted[0].found
	for _, r := range a.counted[1:] {
		n := failures
		if a.at.Sub(before.Last) >= r.limit.Window {
			n -= min(n, max(0, before.Failures)) // they are forgotten there
		}
		if err := a.withdraw(ctx, []rule{r}, n); err != nil {
			return err
		}
	}
	return nil
}

// remember puts the network first in the account's list, once a day if it is there
// already.
func (a *attempt) remember(ctx context.Context) error {
	networks, cfg := a.before.Networks, a.limiter.cfg
	if len(networks) > 0 && networks[0] == a.network && a.at.Sub(a.before.Last) < min(24*time.Hour, cfg.KnownFor/2) {
		return nil
	}
	networks = slices.DeleteFunc(slices.Clone(networks), func(n string) bool { return n == a.network })
	networks = slices.Insert(networks, 0, a.network)
	networks = networks[:min(len(networks), cfg.KnownNetworks)]
	return a.limiter.store.Remember(ctx, a.known, networks, a.at, a.at.Add(cfg.KnownFor))
}

// takeBack makes an attempt count no more.
func (a *attempt) takeBack(ctx context.Context) {
	if a.turn.cleared != a.cleared {
		return // a success has taken it back with its own
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

// failed reports a failure of the store, and returns it only where logins are to
// fail with it.
func (l *limiter) failed(ctx context.Context, doing string, err error) error {
	err = fmt.Errorf("account: limit attempts: %s: %w", doing, err)
	if l.onEvent != nil && ctx.Err() == nil { // else the client has gone
		l.onEvent(ctx, event.Event{Kind: event.LimiterFailed, Time: l.now(), ClientIP: event.ClientIP(ctx), Err: err})
	}
	if l.cfg.FailClosed {
		return err
	}
	return nil
}

func (l *limiter) now() time.Time { return l.clock().UTC().Truncate(time.Millisecond) }

// digest makes a key. The names of accounts that do not exist are people's
// addresses too, or passwords typed into the wrong field: they are not kept.
func digest(kind string, parts ...string) string {
	h := sha256.New()
	fmt.Fprintf(h, "latchkey login attempts %s", kind)
	for _, part := range parts {
		fmt.Fprintf(h, " %d %s", len(part), part)
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// networkOf returns the network of a client's address: the /24 of an IPv4 address,
// the /64 of an IPv6 one, "" of what is no address.
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
