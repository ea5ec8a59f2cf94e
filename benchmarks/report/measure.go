package main

import (
	"context"
	"fmt"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/benchmarks/internal/candidate"
	"github.com/latchkey-go/latchkey/benchmarks/internal/lab"
	"github.com/latchkey-go/latchkey/benchmarks/internal/load"
)

// results are all that a report tells.
type results struct {
	settings *settings
	machine  machine
	server   string
	stub     bool

	inProcess []benchmark
	inMemory  []benchmark
	loopback  []loopback
	delays    []delayed
	logins    []besideLogins
	tokens    []manyTokens // empty where it was skipped

	tokensServer string
	tokensOnStub bool
	tokensUsers  int

	revocations []revocations
}

// benchmark is a candidate in this process. Single figures are medians over the rounds.
type benchmark struct {
	candidate     candidate.Candidate
	ns            []float64 // by round
	bytes, allocs float64
	commands      float64 // to the database, a request
}

// latencies are what a load came to. Single figures are medians over the rounds.
type latencies struct {
	rates         []float64 // by round
	p50, p95, p99 time.Duration
	rounds99      []time.Duration // p99, by round
}

// loopback is a candidate's server under load.
type loopback struct {
	candidate candidate.Candidate
	conns     int
	latencies
}

func measure(ctx context.Context, s *settings) (*results, error) {
	r := &results{settings: s, machine: thisMachine()}
	for _, part := range []struct {
		wanted bool
		run    func(context.Context) error
	}{
		{s.all(), r.compare},
		{s.all() || s.delay, r.measureDelays},
		{s.all() || s.logins, r.measureLogins},
		{s.all() || s.tokens, r.measureTokens},
		{s.all() || s.revocations, r.measureRevocations},
	} {
		if !part.wanted {
			continue
		}
		if err := part.run(ctx); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *results) say(format string, args ...any) {
	_, _ = fmt.Fprintf(r.settings.progress, "report: "+format+"\n", args...)
}

// open sets the data up, and notes on what server.
func (r *results) open(ctx context.Context, users, tokens int) (*lab.Lab, error) {
	l, err := lab.Open(ctx, users, tokens, r.settings.stub)
	if err != nil {
		return nil, err
	}
	r.stub, r.server = l.Stub, l.Server
	return l, nil
}

// compare measures all candidates in the process and under load.
func (r *results) compare(ctx context.Context) error {
	l, err := r.open(ctx, r.settings.users, r.settings.users)
	if err != nil {
		return err
	}
	defer l.Close()
	r.say("in one process")
	if r.inProcess, err = r.benchmark(ctx, l, candidate.All()); err != nil {
		return err
	}
	if r.inMemory, err = r.benchmark(ctx, l, candidate.InMemory()); err != nil {
		return err
	}
	r.loopback, err = r.measureLoopback(ctx, l, candidate.UnderLoad())
	return err
}

// benchmark measures candidates in this process. They take turns.
func (r *results) benchmark(ctx context.Context, l *lab.Lab, candidates []candidate.Candidate) ([]benchmark, error) {
	sites := make([]*candidate.Site, len(candidates))
	all := make([]benchmark, len(candidates))
	for i, c := range candidates {
		commands, err := countCommands(ctx, l, c)
		if err != nil {
			return nil, err
		}
		all[i] = benchmark{candidate: c, commands: commands}
		db, err := candidate.Open(ctx, l.Data, nil)
		if err != nil {
			return nil, err
		}
		defer func() { _ = db.Close(context.WithoutCancel(ctx)) }()
		if sites[i], err = c.Build(ctx, db); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
	}
	bytes, allocs := make([][]float64, len(all)), make([][]float64, len(all))
	for range r.settings.rounds {
		for i, site := range sites {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			b := testing.Benchmark(func(b *testing.B) { candidate.Bench(b, site, 1) })
			if b.N == 0 {
				return nil, fmt.Errorf("%s: the benchmark failed", candidates[i].Name)
			}
			all[i].ns = append(all[i].ns, float64(b.T.Nanoseconds())/float64(b.N))
			bytes[i] = append(bytes[i], float64(b.AllocedBytesPerOp()))
			allocs[i] = append(allocs[i], float64(b.AllocsPerOp()))
		}
	}
	for i := range all {
		all[i].bytes, all[i].allocs = load.Median(bytes[i]), load.Median(allocs[i])
	}
	return all, nil
}

// countCommands returns how many commands a guarded request sends to the database. It is no measurement of time: those
// have no monitor.
func countCommands(ctx context.Context, l *lab.Lab, c candidate.Candidate) (float64, error) {
	var n atomic.Int64
	db, err := candidate.Open(ctx, l.Data, func() { n.Add(1) })
	if err != nil {
		return 0, err
	}
	defer func() { _ = db.Close(context.WithoutCancel(ctx)) }()
	site, err := c.Build(ctx, db)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", c.Name, err)
	}
	sessions := site.Sessions[:min(100, len(site.Sessions))]
	use := func() {
		for _, session := range sessions {
			site.Handler.ServeHTTP(httptest.NewRecorder(), candidate.Request(session))
		}
	}
	if c.Remembers {
		use()
	}
	before := n.Load()
	use()
	return float64(n.Load()-before) / float64(len(sessions)), nil
}

// measureLoopback measures candidates' servers. They take turns, and each round begins with another.
func (r *results) measureLoopback(ctx context.Context, l *lab.Lab, candidates []candidate.Candidate) (all []loopback, err error) {
	servers := make([]*server, len(candidates))
	for i, c := range candidates {
		if servers[i], err = serve(l, c.Name, ""); err != nil {
			return nil, err
		}
		defer servers[i].Close()
	}
	slots := make(map[loadKey]*slots)
	for round := range r.settings.rounds {
		r.say("under load, round %d of %d", round+1, r.settings.rounds)
		for _, conns := range r.settings.conns {
			for i := range candidates {
				i = (i + round) % len(candidates)
				if err := slotsOf(slots, loadKey{i, conns}).add(ctx, servers[i], r.settings.options(conns)); err != nil {
					return nil, fmt.Errorf("%s: %w", candidates[i].Name, err)
				}
			}
		}
	}
	for _, conns := range r.settings.conns {
		for i, c := range candidates {
			all = append(all, loopback{c, conns, slots[loadKey{i, conns}].median()})
		}
	}
	return all, nil
}

type loadKey struct{ candidate, conns int }

func slotsOf[K comparable](all map[K]*slots, key K) *slots {
	if all[key] == nil {
		all[key] = new(slots)
	}
	return all[key]
}

func (s *settings) options(conns int) load.Options {
	return load.Options{Conns: conns, Warmup: s.warmup, Duration: s.slot}
}

// server is a candidate's server, with the requests for it.
type server struct {
	*lab.Site
	requests  [][]byte
	remembers bool
}

func serve(l *lab.Lab, name, uri string) (*server, error) {
	c, err := candidate.ByName(name)
	if err != nil {
		return nil, err
	}
	site, err := l.Serve(name, uri)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s := &server{Site: site, remembers: c.Remembers}
	for _, session := range site.Sessions {
		s.requests = append(s.requests, fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n%s: %s\r\n\r\n", candidate.Path, site.Addr, session.Name, session.Value))
	}
	return s, nil
}

// slots are the measurements of one thing, one a round.
type slots struct {
	rates         []float64
	p50, p95, p99 []time.Duration
}

// add puts a server under load for one slot.
func (s *slots) add(ctx context.Context, server *server, opts load.Options) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if server.remembers {
		if err := load.Sweep(server.Addr, server.requests); err != nil {
			return err
		}
	}
	result, err := load.Run(server.Addr, server.requests, opts)
	if err != nil {
		return err
	}
	s.rates = append(s.rates, result.Rate)
	s.p50 = append(s.p50, load.Percentile(result.Latencies, 50))
	s.p95 = append(s.p95, load.Percentile(result.Latencies, 95))
	s.p99 = append(s.p99, load.Percentile(result.Latencies, 99))
	return nil
}

func (s *slots) median() latencies {
	return latencies{s.rates, load.Median(s.p50), load.Median(s.p95), load.Median(s.p99), s.p99}
}
