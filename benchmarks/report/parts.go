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
	"github.com/latchkey-go/latchkey/benchmarks/internal/load"
)

const (
	// latchkeyName is the candidate that the parts about Latchkey alone measure.
	latchkeyName = "Latchkey, token and user"

	delayConns = 16
	tokenConns = 16

	// Guarded requests beside logins come at a rate that leaves the processor idle for most of the time: it is the
	// logins that are to be seen.
	loginConns = 4
	loginPause = 5 * time.Millisecond
)

// delayed is a candidate with a delay on the way to the database.
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
	type key struct {
		candidate string
		delay     time.Duration
	}
	delays := []time.Duration{0, 500 * time.Microsecond, 2 * time.Millisecond}
	var candidates []candidate.Candidate
	servers, all := make(map[key]*server), make(map[key]*slots)
	for _, c := range candidate.All() {
		if c.Work == candidate.Session || c.Work == candidate.User {
			candidates = append(candidates, c)
		}
	}
	for _, d := range delays {
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
			servers[key{c.Name, d}] = s
		}
	}
	for round := range r.settings.rounds {
		r.say("with a delay, round %d of %d", round+1, r.settings.rounds)
		for _, d := range delays {
			for _, c := range candidates {
				k := key{c.Name, d}
				if err := slotsOf(all, k).add(ctx, servers[k], r.settings.options(delayConns)); err != nil {
					return fmt.Errorf("%s: %w", c.Name, err)
				}
			}
		}
	}
	for _, d := range delays {
		for _, c := range candidates {
			r.delays = append(r.delays, delayed{c, d, all[key{c.Name, d}].median()})
		}
	}
	return nil
}

// besideLogins is Latchkey's guard while users log in.
type besideLogins struct {
	candidate candidate.Candidate
	logins    int // at a time
	latencies
	loginRate float64
	loginP50  time.Duration
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
	candidates := candidate.Logins()
	servers := make([]*server, len(candidates))
	for i, c := range candidates {
		if servers[i], err = serve(l, c.Name, ""); err != nil {
			return err
		}
		defer servers[i].Close()
	}
	form := url.Values{"username": {email}, "password": {password}}.Encode()
	opts := r.settings.options(loginConns)
	opts.Pause = loginPause

	type key struct{ candidate, logins int }
	counts := []int{0, 1, 4}
	guarded, rates, took := make(map[key]*slots), make(map[key][]float64), make(map[key][]time.Duration)
	for round := range r.settings.rounds {
		r.say("beside logins, round %d of %d", round+1, r.settings.rounds)
		for i, s := range servers {
			for _, n := range counts {
				k := key{i, n}
				logins := startLogins(ctx, "http://"+s.Addr+"/auth/login", form, n)
				began := time.Now()
				err := slotsOf(guarded, k).add(ctx, s, opts)
				elapsed := time.Since(began)
				all, failed := logins.stop()
				if err := errors.Join(err, failed); err != nil {
					return err
				}
				rates[k] = append(rates[k], float64(len(all))/elapsed.Seconds())
				took[k] = append(took[k], all...)
			}
		}
	}
	for i, c := range candidates {
		for _, n := range counts {
			k := key{i, n}
			r.logins = append(r.logins, besideLogins{c, n, guarded[k].median(), load.Median(rates[k]), load.Median(took[k])})
		}
	}
	return nil
}

// logins are users who log in without end.
type logins struct {
	cancel context.CancelFunc
	group  sync.WaitGroup
	mu     sync.Mutex
	took   []time.Duration
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
					l.took = append(l.took, took)
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

// stop returns how long each login took.
func (l *logins) stop() ([]time.Duration, error) {
	l.cancel()
	l.group.Wait()
	return l.took, l.err
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
		return fmt.Errorf("a login was answered with status %d", res.StatusCode)
	}
	return nil
}

// manyTokens is Latchkey with a number of tokens in the collection.
type manyTokens struct {
	candidate candidate.Candidate
	tokens    int
	latencies
}

// measureTokens needs a server with indexes: the stub looks everything up in maps, and shows only that this works. With
// -stub, the whole report has this part alone on the server that the environment names.
func (r *results) measureTokens(ctx context.Context) error {
	r.tokensOnStub = r.settings.stub && !(r.settings.all() && lab.HasServer())
	switch {
	case r.tokensOnStub && r.settings.all():
		return nil
	case !r.tokensOnStub && !lab.HasServer():
		r.say("%s is not set: few and many tokens are skipped (-stub runs this on the stub)", lab.URIVariable)
		return nil
	}
	r.tokensUsers = min(r.settings.users, slices.Min(r.settings.sizes)) // the same with all
	c, err := candidate.ByName(latchkeyName)
	if err != nil {
		return err
	}
	servers, all := make(map[int]*server), make(map[int]*slots) // by the number of tokens
	for _, n := range r.settings.sizes {
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
		servers[n] = s
	}
	for round := range r.settings.rounds {
		r.say("few and many tokens, round %d of %d", round+1, r.settings.rounds)
		for i := range r.settings.sizes {
			n := r.settings.sizes[(i+round)%len(r.settings.sizes)]
			if err := slotsOf(all, n).add(ctx, servers[n], r.settings.options(tokenConns)); err != nil {
				return fmt.Errorf("%s, with %d tokens: %w", latchkeyName, n, err)
			}
		}
	}
	for _, n := range r.settings.sizes {
		r.tokens = append(r.tokens, manyTokens{c, n, all[n].median()})
	}
	return nil
}
