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

// results are the measurements of a report. A part that was not measured is empty.
type results struct {
	settings *settings
	machine  machine
	server   string // the database's name and version
	stub     bool

	inProcess []benchmark
	inMemory  []benchmark
	loopback  []loopback
	delays    []delayed
	logins    []besideLogins
	tokens    []manyTokens

	tokensServer string
	tokensOnStub bool
	tokensUsers  int

	revocations []revocations
}

// benchmark is a candidate measured in this process. Single figures are medians over the
// rounds.
type benchmark struct {
	candidate     candidate.Candidate
	ns            []float64 // by round
	bytes, allocs float64
	commands      float64 // sent to the database per request
}

// latencies are the rates and latencies of a server under load, by round.
type latencies struct {
	rates         []float64
	p50, p95, p99 []time.Duration
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

// open opens a lab and records its server.
func (r *results) open(ctx context.Context, users, tokens int) (*lab.Lab, error) {
	l, err := lab.Open(ctx, users, tokens, r.settings.stub)
	if err != nil {
		return nil, err
	}
	r.stub, r.server = l.Stub, l.Server
	return l, nil
}

// compare measures all candidates in this process and under load.
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

// benchmark measures candidates in this process, each once a round.
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

// countCommands returns how many commands a guarded request sends to the database. They are
// not counted while time is measured, because the driver's command monitor takes time.
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

// measureLoopback measures candidates' servers over loopback.
func (r *results) measureLoopback(ctx context.Context, l *lab.Lab, candidates []candidate.Candidate) ([]loopback, error) {
	groups := make([][]target, len(r.settings.conns))
	for _, c := range candidates {
		s, err := serve(l, c.Name, "")
		if err != nil {
			return nil, err
		}
		defer s.Close()
		for i, conns := range r.settings.conns {
			groups[i] = append(groups[i], target{s, conns})
		}
	}
	measured, err := r.measureTargets(ctx, "under load", groups...)
	if err != nil {
		return nil, err
	}
	var all []loopback
	for i, conns := range r.settings.conns {
		for j, c := range candidates {
			all = append(all, loopback{c, conns, measured[i][j]})
		}
	}
	return all, nil
}

// target is a server to put under load, with a number of connections.
type target struct {
	server *server
	conns  int
}

// measureTargets puts every target under load once a round. The targets of a group are
// measured one after the other, because they are compared with each other. Each round
// starts every group with the next target, so that none is always the first.
func (r *results) measureTargets(ctx context.Context, title string, groups ...[]target) ([][]latencies, error) {
	all := make([][]latencies, len(groups))
	for i, targets := range groups {
		all[i] = make([]latencies, len(targets))
	}
	for round := range r.settings.rounds {
		r.say("%s, round %d of %d", title, round+1, r.settings.rounds)
		for i, targets := range groups {
			for j := range targets {
				j = (j + round) % len(targets)
				if err := all[i][j].measure(ctx, targets[j].server, r.settings.options(targets[j].conns)); err != nil {
					return nil, err
				}
			}
		}
	}
	return all, nil
}

func (s *settings) options(conns int) load.Options {
	return load.Options{Conns: conns, Warmup: s.warmup, Duration: s.slot}
}

// measure puts a server under load and adds the result.
func (l *latencies) measure(ctx context.Context, server *server, opts load.Options) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if server.candidate.Remembers {
		if err := load.Sweep(server.Addr, server.requests); err != nil {
			return fmt.Errorf("%s: %w", server.candidate.Name, err)
		}
	}
	result, err := load.Run(server.Addr, server.requests, opts)
	if err != nil {
		return fmt.Errorf("%s: %w", server.candidate.Name, err)
	}
	l.rates = append(l.rates, result.Rate)
	l.p50 = append(l.p50, load.Percentile(result.Latencies, 50))
	l.p95 = append(l.p95, load.Percentile(result.Latencies, 95))
	l.p99 = append(l.p99, load.Percentile(result.Latencies, 99))
	return nil
}

// server is a candidate's server with the requests for it.
type server struct {
	*lab.Site
	candidate candidate.Candidate
	requests  [][]byte
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
	s := &server{Site: site, candidate: c}
	for _, session := range site.Sessions {
		s.requests = append(s.requests, rawRequest(site.Addr, session))
	}
	return s, nil
}

// rawRequest returns a request for the guarded route, as it is sent.
func rawRequest(addr string, session candidate.Header) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n%s: %s\r\n\r\n", candidate.Path, addr, session.Name, session.Value)
}
