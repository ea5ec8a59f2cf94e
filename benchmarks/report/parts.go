package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/benchmarks/internal/candidate"
	"github.com/latchkey-go/latchkey/benchmarks/internal/lab"
)

const (
	// latchkeyName is the candidate that is measured with few and many tokens.
	latchkeyName = "Latchkey, token and user"

	delayConns = 16
	tokenConns = 16

	// The load beside logins is low, so that the effect of the logins shows: without
	// them, the processor is idle for most of the time.
	loginConns = 4
	loginPause = 5 * time.Millisecond
)

// delayed is a candidate with a delay between it and the database.
type delayed struct {
	candidate candidate.Candidate
	delay     time.Duration
	latencies
}

func (r *results) measureDelays(ctx context.Context) error {
	users := min(r.settings.users, 1000)
	l, err := r.open(ctx, users, users)
	if err != nil {
		return err
	}
	defer l.Close()
	var candidates []candidate.Candidate
	for _, c := range candidate.All() {
		if c.Work == candidate.Session || c.Work == candidate.User {
			candidates = append(candidates, c)
		}
	}
	delays := []time.Duration{0, 500 * time.Microsecond, 2 * time.Millisecond}
	groups := make([][]target, len(delays))
	for i, d := range delays {
		proxy, err := l.Delay(d)
		if err != nil {
			return err
		}
		defer proxy.Close()
		for _, c := range candidates {
			s, err := serve(l, c.Name, proxy.URI)
			if err != nil {
				return err
			}
			defer s.Close()
			groups[i] = append(groups[i], target{s, delayConns})
		}
	}
	measured, err := r.measureTargets(ctx, "with a delay", groups...)
	if err != nil {
		return err
	}
	for i, d := range delays {
		for j, c := range candidates {
			r.delays = append(r.delays, delayed{c, d, measured[i][j]})
		}
	}
	return nil
}

// besideLogins is Latchkey's guard while users log in.
type besideLogins struct {
	candidate candidate.Candidate
	logins    int // concurrent
	latencies
	loginRates []float64       // by round
	loginTimes []time.Duration // of all logins
}

func (r *results) measureLogins(ctx context.Context) error {
	users := min(r.settings.users, 1000)
	l, err := r.open(ctx, users, users)
	if err != nil {
		return err
	}
	defer l.Close()
	const email, password = "mona@example.com", "correct horse battery staple"
	if err := candidate.Register(ctx, l.Data, email, password); err != nil {
		return err
	}
	form := url.Values{"username": {email}, "password": {password}}.Encode()
	servers := make(map[string]*server)
	for _, c := range candidate.Logins() {
		if servers[c.Name], err = serve(l, c.Name, ""); err != nil {
			return err
		}
		defer servers[c.Name].Close()
		for _, n := range []int{0, 1, 4} {
			r.logins = append(r.logins, besideLogins{candidate: c, logins: n})
		}
	}
	opts := r.settings.options(loginConns)
	opts.Pause = loginPause
	for round := range r.settings.rounds {
		r.say("beside logins, round %d of %d", round+1, r.settings.rounds)
		for i := range r.logins {
			b := &r.logins[i]
			s := servers[b.candidate.Name]
			logins := startLogins(ctx, "http://"+s.Addr+"/auth/login", form, b.logins)
			began := time.Now()
			err := b.measure(ctx, s, opts)
			elapsed := time.Since(began)
			times, failed := logins.stop()
			if err := errors.Join(err, failed); err != nil {
				return err
			}
			b.loginRates = append(b.loginRates, float64(len(times))/elapsed.Seconds())
			b.loginTimes = append(b.loginTimes, times...)
		}
	}
	return nil
}

// logins are users who log in again and again.
type logins struct {
	cancel context.CancelFunc
	group  sync.WaitGroup
	mu     sync.Mutex
	times  []time.Duration
	err    error
}

func startLogins(ctx context.Context, address, form string, n int) *logins {
	ctx, cancel := context.WithCancel(ctx)
	l := &logins{cancel: cancel}
	for range n {
		l.group.Go(func() {
			for ctx.Err() == nil {
				start := time.Now()
				err := login(ctx, address, form)
				took := time.Since(start)
				if ctx.Err() != nil {
					return
				}
				l.mu.Lock()
				if err != nil {
					l.err = err
				} else {
					l.times = append(l.times, took)
				}
				l.mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	return l
}

// stop ends the logins and returns how long each took.
func (l *logins) stop() ([]time.Duration, error) {
	l.cancel()
	l.group.Wait()
	return l.times, l.err
}

func login(ctx context.Context, address, form string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("report: login answered with status %d", res.StatusCode)
	}
	return nil
}

// manyTokens is Latchkey with a number of tokens in the collection.
type manyTokens struct {
	tokens int
	latencies
}

// measureTokens measures Latchkey with few and with many tokens. This needs a database with
// indexes. On the stub, which has maps, it shows only that the measurement works. The whole
// report with -stub uses the database for this part, if the environment names one.
func (r *results) measureTokens(ctx context.Context) error {
	r.tokensOnStub = r.settings.stub && !(r.settings.all() && lab.HasServer())
	switch {
	case r.tokensOnStub && r.settings.all():
		return nil
	case !r.tokensOnStub && !lab.HasServer():
		r.say("few and many tokens are not measured: %s is not set (-stub measures them on the stub)", lab.URIVariable)
		return nil
	}
	sizes := r.settings.sizes
	r.tokensUsers = min(r.settings.users, slices.Min(sizes)) // the same for all sizes
	var targets []target
	for _, n := range sizes {
		r.say("inserting %d tokens", n)
		l, err := lab.Open(ctx, r.tokensUsers, n, r.tokensOnStub)
		if err != nil {
			return err
		}
		defer l.Close()
		r.tokensServer = l.Server
		s, err := serve(l, latchkeyName, "")
		if err != nil {
			return err
		}
		defer s.Close()
		targets = append(targets, target{s, tokenConns})
	}
	measured, err := r.measureTargets(ctx, "few and many tokens", targets)
	if err != nil {
		return err
	}
	for i, n := range sizes {
		r.tokens = append(r.tokens, manyTokens{n, measured[0][i]})
	}
	return nil
}
