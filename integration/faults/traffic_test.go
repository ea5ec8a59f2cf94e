package faults_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The states of a token, as its client knows them. A state only moves forward.
const (
	held    int32 = iota // the answer of a login had it
	leaving              // a log-out began
	gone                 // a log-out was acknowledged, or the token was refused after one began
)

// holding is a token of a client.
type holding struct {
	token   string
	state   atomic.Int32
	goneAt  atomic.Int64 // UnixNano; set before the state
	logouts atomic.Int64 // log-outs begun
}

func (h *holding) end(at time.Time) {
	if h.goneAt.CompareAndSwap(0, at.UnixNano()) {
		h.state.Store(gone)
	}
}

// traffic is clients that use several rigs at random, and check each answer against what
// earlier answers said.
type traffic struct {
	emails []string // one client, and one account, each
	// most is about how many tokens the clients hold.
	most int
	// bounds are the longest times for an answer, by kind of request.
	bounds [requestKinds]time.Duration
	// think is the longest pause of a client between two requests. Default 0.
	think time.Duration
	// extra is another action that clients take now and then, or nil.
	extra func(ctx context.Context, r *rig, rng *rand.Rand)

	replacing sync.RWMutex // read-locked while a client uses rigs
	rigs      []*rig

	mu       sync.Mutex
	holdings []*holding
	ended    []*holding // the latest ones
	mistakes []string
	mistaken int

	// dark is the time from which the database cannot be reached, UnixNano; 0 means that
	// it can.
	dark   atomic.Int64
	counts [requestKinds][600]atomic.Int64
	times  [requestKinds]*histogram
}

// The kinds of requests.
const (
	doGuarded = iota
	doLogin
	doLogout
	requestKinds
)

var requestNames = [requestKinds]string{"guarded requests", "logins", "log-outs"}

func newTraffic(rigs []*rig, clients, most int) *traffic {
	t := &traffic{rigs: rigs, most: most, bounds: [requestKinds]time.Duration{guardBound, loginBound, logoutBound}}
	for i := range t.times {
		t.times[i] = &histogram{}
	}
	for i := range clients {
		t.emails = append(t.emails, fmt.Sprintf("member%d@example.com", i))
	}
	return t
}

func (t *traffic) mistake(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mistaken++; t.mistaken <= 10 {
		t.mistakes = append(t.mistakes, fmt.Sprintf(format, args...))
	}
}

// report fails the test if an answer was wrong.
func (t *traffic) report(tb testing.TB) {
	tb.Helper()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.mistakes {
		tb.Error(m)
	}
	if t.mistaken > len(t.mistakes) {
		tb.Errorf("… and %d more", t.mistaken-len(t.mistakes))
	}
	for _, r := range t.rigs {
		if n := r.panics.Load(); n > 0 {
			tb.Errorf("%d panics", n)
		}
	}
}

// String sums up the answers.
func (t *traffic) String() string {
	var b strings.Builder
	for kind, name := range requestNames {
		fmt.Fprintf(&b, "%s:", name)
		for status := range t.counts[kind] {
			if n := t.counts[kind][status].Load(); n > 0 {
				fmt.Fprintf(&b, " %d×%d", n, status)
			}
		}
		fmt.Fprintf(&b, " (p50 %v, p99 %v); ", t.times[kind].quantile(0.5), t.times[kind].quantile(0.99))
	}
	return strings.TrimSuffix(b.String(), "; ")
}

func (t *traffic) count(kind, status int) int64 { return t.counts[kind][status].Load() }

// tally counts an answer, checks that it came in time, and reports whether it came.
func (t *traffic) tally(kind int, got answer) bool {
	t.times[kind].add(got.took)
	if got.took > t.bounds[kind] {
		t.mistake("%s: %v, want an answer within %v", requestNames[kind], got, t.bounds[kind])
	}
	if got.status == 0 {
		t.mistake("%s: %v", requestNames[kind], got)
		return false
	}
	t.counts[kind][got.status].Add(1)
	return true
}

// settling is how long a fault takes to reach every connection.
const settling = 100 * time.Millisecond

// guarded makes a guarded request and checks the answer.
func (t *traffic) guarded(r *rig, h *holding) answer {
	dark, goneAt := t.dark.Load(), h.goneAt.Load()
	got := r.guarded(h.token)
	if !t.tally(doGuarded, got) {
		return got
	}
	after := func(since int64) bool { return since != 0 && got.began.UnixNano()-since > int64(r.staleness) }
	switch got.status {
	case http.StatusOK:
		if after(goneAt) {
			t.mistake("a token was accepted %v after its log-out was acknowledged", time.Duration(got.began.UnixNano()-goneAt))
		}
		// The proxy's connections take a fault on one after the other, within milliseconds.
		if after(dark) && t.dark.Load() == dark && got.began.UnixNano()-dark > int64(r.staleness+settling) {
			t.mistake("a token was accepted after the database could not be reached for %v", time.Duration(got.began.UnixNano()-dark))
		}
	case http.StatusUnauthorized:
		if h.state.Load() == held {
			t.mistake("a token was refused before any log-out: %v", got)
		}
		h.end(time.Now()) // whatever the answer to its log-out was
	case http.StatusServiceUnavailable:
	default:
		t.mistake("a guarded request: %v", got)
	}
	return got
}

// acknowledged reports a mistake if a change was acknowledged while the database could
// not be reached.
func (t *traffic) acknowledged(dark int64, what string) {
	if dark != 0 && t.dark.Load() == dark {
		t.mistake("%s was acknowledged while the database could not be reached", what)
	}
}

// login logs in, checks the answer, and keeps the token.
func (t *traffic) login(r *rig, email string) (*holding, answer) {
	dark := t.dark.Load()
	got := r.login(email)
	if !t.tally(doLogin, got) {
		return nil, got
	}
	switch got.status {
	case http.StatusOK:
		t.acknowledged(dark, "a login")
		h := &holding{token: got.token}
		t.mu.Lock()
		t.holdings = append(t.holdings, h)
		t.mu.Unlock()
		return h, got
	case http.StatusServiceUnavailable:
	default:
		t.mistake("a login: %v", got)
	}
	return nil, got
}

// logout logs out and checks the answer.
func (t *traffic) logout(r *rig, h *holding) answer {
	h.logouts.Add(1)
	h.state.CompareAndSwap(held, leaving)
	dark, goneAt := t.dark.Load(), h.goneAt.Load()
	got := r.logout(h.token)
	if !t.tally(doLogout, got) {
		return got
	}
	switch got.status {
	case http.StatusNoContent:
		t.acknowledged(dark, "a log-out")
		if goneAt != 0 && got.began.UnixNano()-goneAt > int64(r.staleness) {
			t.mistake("a token was logged out again after its log-out was acknowledged")
		}
		h.end(time.Now())
	case http.StatusUnauthorized:
		if h.logouts.Load() == 1 {
			t.mistake("the first log-out of a token was refused: %v", got)
		}
		h.end(time.Now())
	case http.StatusServiceUnavailable:
	default:
		t.mistake("a log-out: %v", got)
	}
	return got
}

// pick returns a token that may be valid, or now and then one that is gone; nil if there
// is none.
func (t *traffic) pick(rng *rand.Rand) *holding {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.holdings) > 0 && (len(t.ended) == 0 || rng.IntN(8) > 0) {
		i := rng.IntN(len(t.holdings))
		h := t.holdings[i]
		if h.state.Load() != gone {
			return h
		}
		t.holdings[i] = t.holdings[len(t.holdings)-1]
		t.holdings = t.holdings[:len(t.holdings)-1]
		const remembered = 64
		if t.ended = append(t.ended, h); len(t.ended) > remembered {
			t.ended = t.ended[1:]
		}
	}
	if len(t.ended) == 0 {
		return nil
	}
	return t.ended[rng.IntN(len(t.ended))]
}

func (t *traffic) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.holdings)
}

// run runs all clients until the context ends, and waits for their last answers.
func (t *traffic) run(ctx context.Context, seed uint64) {
	var clients sync.WaitGroup
	for i, email := range t.emails {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		clients.Go(func() {
			for ctx.Err() == nil {
				t.step(ctx, rng, email)
				if t.think > 0 {
					time.Sleep(time.Duration(rng.Int64N(int64(t.think))))
				}
			}
		})
	}
	clients.Wait()
}

// step is one action of a client.
func (t *traffic) step(ctx context.Context, rng *rand.Rand, email string) {
	t.replacing.RLock()
	defer t.replacing.RUnlock()
	r := t.rigs[rng.IntN(len(t.rigs))]
	if t.extra != nil && rng.IntN(20) == 0 {
		t.extra(ctx, r, rng)
		return
	}
	switch n := rng.IntN(100); {
	case n < 14 && t.size() < t.most:
		if h, _ := t.login(r, email); h != nil {
			t.guarded(t.rigs[rng.IntN(len(t.rigs))], h)
		}
	case n >= 14 && n < 28 && t.size() > t.most/2:
		if h := t.pick(rng); h != nil {
			t.logout(r, h)
		}
	default:
		if h := t.pick(rng); h != nil {
			t.guarded(r, h)
			return
		}
		t.login(r, email)
	}
}

// replace changes the rigs while no request is in flight.
func (t *traffic) replace(change func(rigs []*rig)) {
	t.replacing.Lock()
	defer t.replacing.Unlock()
	change(t.rigs)
}

// background runs all clients until the returned function is called.
func (t *traffic) background(ctx context.Context, seed uint64) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var ended sync.WaitGroup
	ended.Go(func() { t.run(ctx, seed) })
	return func() {
		cancel()
		ended.Wait()
	}
}

// awaitRecovery waits until a login, a guarded request and a log-out succeed on every rig,
// and returns how long that took.
func (t *traffic) awaitRecovery(within time.Duration) (time.Duration, error) {
	begin := time.Now()
	for _, r := range t.rigs {
		for {
			h, got := t.login(r, t.emails[0])
			if h != nil {
				if got = t.guarded(r, h); got.status == http.StatusOK {
					if got = t.logout(r, h); got.status == http.StatusNoContent {
						break
					}
				}
			}
			if took := time.Since(begin); took > within {
				return took, fmt.Errorf("no recovery after %v: the last answer was %v", took, got)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return time.Since(begin), nil
}

// settle checks, without faults, that every rig agrees with what the clients know of
// every token. Then it logs all tokens out and checks again.
func (t *traffic) settle() {
	all := t.all()
	t.agree("in the end", all)
	for i, h := range all {
		for deadline := time.Now().Add(2 * busy); h.state.Load() != gone; {
			if t.logout(t.rigs[i%len(t.rigs)], h); time.Now().After(deadline) {
				t.mistake("a token cannot be logged out")
				break
			}
		}
	}
	t.agree("after all log-outs", all)
	t.mu.Lock()
	t.holdings, t.ended = nil, nil
	t.mu.Unlock()
}

func (t *traffic) all() []*holding {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append(append([]*holding(nil), t.holdings...), t.ended...)
}

// agree checks that every rig agrees with what the clients know of tokens, after the
// staleness of the caches.
func (t *traffic) agree(when string, tokens []*holding) {
	for _, r := range t.rigs {
		time.Sleep(r.staleness)
	}
	for _, h := range tokens {
		for _, r := range t.rigs {
			want := map[int32]int{held: http.StatusOK, gone: http.StatusUnauthorized}[h.state.Load()]
			got := t.guarded(r, h)
			for deadline := time.Now().Add(busy); got.status == http.StatusServiceUnavailable && time.Now().Before(deadline); {
				got = t.guarded(r, h) // a busy machine
			}
			if want != 0 && got.status != want || got.status == http.StatusServiceUnavailable {
				t.mistake("%s: the answer for a token is %v, want %d (0 means 200 or 401)", when, got, want)
			}
		}
	}
}

// histogram counts durations in buckets, each a fifth wider than the last. It takes
// little memory.
type histogram struct{ buckets [128]atomic.Int64 }

const histogramBase = 10 * time.Microsecond

func (h *histogram) add(d time.Duration) {
	i := 0
	for limit := histogramBase; d > limit && i < len(h.buckets)-1; i++ {
		limit += limit / 5
	}
	h.buckets[i].Add(1)
}

// quantile returns the upper end of the quantile's bucket.
func (h *histogram) quantile(q float64) time.Duration {
	var all int64
	for i := range h.buckets {
		all += h.buckets[i].Load()
	}
	limit, seen := histogramBase, int64(0)
	for i := range h.buckets {
		if seen += h.buckets[i].Load(); all > 0 && float64(seen) >= q*float64(all) {
			break
		}
		limit += limit / 5
	}
	return limit.Round(10 * time.Microsecond)
}
