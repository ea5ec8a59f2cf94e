package main

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/latchkey-go/latchkey/benchmarks/internal/candidate"
	"github.com/latchkey-go/latchkey/benchmarks/internal/lab"
	"github.com/latchkey-go/latchkey/benchmarks/internal/load"
)

// page is a Markdown text in the making.
type page struct{ strings.Builder }

func (p *page) line(format string, args ...any) { _, _ = fmt.Fprintf(p, format+"\n", args...) }

// para is a paragraph.
func (p *page) para(format string, args ...any) { p.line(format+"\n", args...) }

// table begins a table: the first column is text, the others are numbers.
func (p *page) table(columns ...string) {
	p.row(columns...)
	p.line("|---|%s", strings.Repeat("---:|", len(columns)-1))
}

func (p *page) row(cells ...string) { p.line("| %s |", strings.Join(cells, " | ")) }

func (r *results) markdown() string {
	var p page
	p.para("# Benchmarks")
	p.para("What guarding a Gin route costs: with Latchkey, with other libraries, and written by hand. `go run ./benchmarks/report` measures and writes this page; `benchmarks/` has the code.")
	r.conditions(&p)
	if r.inProcess != nil {
		r.candidates(&p)
		r.underLoad(&p)
		r.inOneProcess(&p)
		r.ownCode(&p)
	}
	if r.delays != nil {
		r.withDelay(&p)
	}
	if r.logins != nil {
		r.besideLogins(&p)
	}
	if r.settings.all() || r.settings.tokens {
		r.manyTokens(&p)
	}
	if r.revocations != nil {
		r.acrossInstances(&p)
	}
	return strings.TrimRight(p.String(), "\n") + "\n"
}

func (r *results) conditions(p *page) {
	s := r.settings
	p.para("## Conditions")
	switch {
	case r.server == "":
	case r.stub:
		p.para("**There is no database in these figures.** Where one would be stands `benchmarks/wirestub`, a program that answers MongoDB's wire protocol from maps in memory, on the same machine. So they show what a candidate itself costs, with its driver and its round trips. With a database, and a network before it, every look-up takes longer, and the candidates that do the same look-ups are closer together.")
	default:
		p.para("The database is %s, where `%s` says.", r.server, lab.URIVariable)
	}
	p.line("- %s, %d cores, %s, %s, %s", r.machine.cpu, r.machine.cores, r.machine.system, runtime.Version(), r.machine.date.Format(time.DateOnly))
	p.line("- Client, candidate and database are processes of their own **on these cores**, and take them from each other.")
	p.line("- %d users with a session each, asked for in turn. All figures are medians over the rounds, %d of them; the candidates take turns in each.", s.users, s.rounds)
	p.line("- Load: closed loop, each connection sends its next request when it has its answer; %v a candidate and round, after %v of warm-up. Keep-alive, no TLS.", s.slot, s.warmup)
	p.para("- Behind a rate stands half of the distance between its best and its worst round. Differences below that are noise. A ratio is the median of the rounds' ratios.")
}

func (r *results) candidates(p *page) {
	p.para("## Candidates")
	p.para("Only candidates that do the same work are alike. Every one is set up as in production: Gin in release mode with `Recovery`, sessions of %.0f hours, and the handler answers with a small JSON of the user, or of their ID where nothing else was read.", candidate.Lifetime.Hours())
	p.line("| | version | checks | reads a request | revocable at once | refuses a deactivated user at once | |")
	p.line("|---|---|---|---|---|---|---|")
	for _, b := range r.inProcess {
		c := b.candidate
		p.row(c.Name, r.version(c), string(c.Work), c.Reads, c.Revocable, c.Deactivated, c.Notes)
	}
	p.line("")
	p.para("MongoDB drivers: v2 %s, v1 %s.", r.moduleVersion("go.mongodb.org/mongo-driver/v2"), r.moduleVersion("go.mongodb.org/mongo-driver"))
}

func (r *results) version(c candidate.Candidate) string {
	if c.Module == "" {
		return "this"
	}
	return r.moduleVersion(c.Module)
}

func (r *results) moduleVersion(module string) string {
	if v := r.machine.versions[module]; v != "" {
		return v
	}
	return "?"
}

func (r *results) underLoad(p *page) {
	p.para("## Under load")
	p.para("Over loopback. \"Of bare\" is the rate as a part of the bare route's, \"of the floor\" as a part of that of the look-up by hand which reads the same, one FindOne for each collection. The commands are those of a request; a cache sends another one a second, whatever the load. The last line is no way to guard a route: two maps that never change, so that nothing can be revoked. It shows what of a bare route's rate is left where each user is looked up at all.")
	p.para("![Latencies of the candidates](benchmarks.svg)")
	for _, conns := range r.settings.conns {
		rates := make(map[string][]float64)
		for _, l := range r.loopback {
			if l.conns == conns {
				rates[l.candidate.Name] = l.rates
			}
		}
		p.para("%s:", connections(conns))
		p.table("", "requests/s", "of bare", "of the floor", "p50", "p95", "p99", "commands to the database")
		for _, l := range r.loopback {
			if l.conns == conns {
				p.row(l.candidate.Name, rate(l.rates), ratio(l.rates, rates[bareName]), ratio(l.rates, rates[floorOf(l.candidate)]),
					short(l.p50), short(l.p95), short(l.p99), r.commandsOf(l.candidate))
			}
		}
		p.line("")
	}
}

// commandsOf is how many commands a request took where they were counted, which was not under load: a monitor takes time.
func (r *results) commandsOf(c candidate.Candidate) string {
	for _, b := range slices.Concat(r.inProcess, r.inMemory) {
		if b.candidate.Name == c.Name {
			return commands(b.commands)
		}
	}
	return "—"
}

func commands(n float64) string { return fmt.Sprintf("%.2g", n) }

func (r *results) inOneProcess(p *page) {
	p.para("## In one process")
	p.para("`ServeHTTP` with prepared requests, one after the other: no HTTP connection. The database is another process, so that the allocations are those of the candidate and its driver. \"Of the floor\" is the time as a multiple of that of the look-up by hand which reads the same, one FindOne for each collection.")
	r.benchmarkTable(p, r.inProcess)
}

func (r *results) ownCode(p *page) {
	p.para("## Latchkey's own code")
	p.para("The same with both look-ups in maps, so that there is no driver in the figures: the difference between Latchkey in memory and what is written by hand is what its checks, contexts and types take of the processor.")
	r.benchmarkTable(p, r.inMemory)
	ns := make(map[string][]float64)
	for _, b := range r.inMemory {
		ns[b.candidate.Name] = b.ns
	}
	over := func(name, than string) float64 { return load.Median(ns[name]) - load.Median(ns[than]) }
	p.para("Latchkey takes %.1f µs more than what is written by hand. Over the bare route, a guard with the cache takes %.2f µs, and gin-jwt's verification %.2f µs, %.1f times as much.",
		over("Latchkey, in memory", "by hand, in memory")/1000, over("Latchkey, cached, in memory", bareName)/1000, over("gin-jwt", bareName)/1000,
		over("gin-jwt", bareName)/over("Latchkey, cached, in memory", bareName))
}

func (r *results) benchmarkTable(p *page, benchmarks []benchmark) {
	ns := make(map[string][]float64)
	for _, b := range benchmarks {
		ns[b.candidate.Name] = b.ns
	}
	p.table("", "µs", "of the floor", "bytes", "allocations", "commands to the database")
	for _, b := range benchmarks {
		floor := floorOf(b.candidate)
		if ns[floor] == nil && b.candidate.Work == candidate.User {
			floor = "by hand, in memory"
		}
		p.row(b.candidate.Name, fmt.Sprintf("%.2f", load.Median(b.ns)/1000), ratio(b.ns, ns[floor]), fmt.Sprintf("%.0f", b.bytes),
			fmt.Sprintf("%.0f", b.allocs), commands(b.commands))
	}
	p.line("")
}

func (r *results) withDelay(p *page) {
	p.para("## With a network")
	p.para("%s, through a proxy on the way to the database that holds up every request: what a network takes for a round trip. The proxy itself takes some time too: see the lines without delay.", connections(delayConns))
	p.table("", "delay", "requests/s", "of the floor", "p50", "p95", "p99")
	for _, d := range r.delays {
		var floor []float64
		for _, other := range r.delays {
			if other.delay == d.delay && other.candidate.Name == floorOf(d.candidate) {
				floor = other.rates
			}
		}
		delayed := "none"
		if d.delay > 0 {
			delayed = short(d.delay)
		}
		p.row(d.candidate.Name, delayed, rate(d.rates), ratio(d.rates, floor), short(d.p50), short(d.p95), short(d.p99))
	}
	p.line("")
}

func (r *results) besideLogins(p *page) {
	p.para("## Beside logins")
	p.para("Guarded requests to Latchkey over %s, each with a pause of %v after an answer, while users log in one after the other with the default parameters of argon2id (64 MiB, 3 passes, 4 lanes). Guarded requests wait for no login, but hashing takes the processor from them, and here the logins, the client and the database share %d cores with it. `account.Config.MaxConcurrentHashes` bounds how many passwords are hashed at once: each of them has 4 threads, and by default there are as many as processors for these, and at least 1.",
		connections(loginConns), loginPause, r.machine.cores)
	p.table("", "logins at a time", "guarded requests/s", "p50", "p95", "p99", "logins/s", "p50 of a login")
	for _, l := range r.logins {
		logins := []string{"—", "—"}
		if l.logins > 0 {
			logins = []string{fmt.Sprintf("%.1f", l.loginRate), short(l.loginP50)}
		}
		p.row(append([]string{l.candidate.Name, fmt.Sprint(l.logins), rate(l.rates), short(l.p50), short(l.p95), short(l.p99)}, logins...)...)
	}
	p.line("")
}

func (r *results) manyTokens(p *page) {
	p.para("## Few and many tokens")
	if len(r.tokens) == 0 {
		p.para("Not measured: this needs a server with indexes, and `%s` named none. `go run ./benchmarks/report -tokens` measures it there.", lab.URIVariable)
		return
	}
	if r.tokensOnStub {
		p.para("**On the stub, which has no indexes but maps: this shows that the measurement runs, and nothing about MongoDB.**")
	} else {
		p.para("**On %s.**%s", r.tokensServer, spaced(r.settings.note))
	}
	p.para("With %s, %d users, and their sessions asked for in turn. The other tokens are further sessions of theirs. Behind p99 stands the median of the rounds' ratios to p99 with the fewest tokens.", connections(tokenConns), r.tokensUsers)
	p.table("", "tokens in the collection", "requests/s", "p50", "p95", "p99", "of p99 with the fewest")
	fewest := make(map[string][]time.Duration)
	for _, t := range r.tokens {
		if fewest[t.candidate.Name] == nil {
			fewest[t.candidate.Name] = t.rounds99
		}
		p.row(t.candidate.Name, fmt.Sprint(t.tokens), rate(t.rates), short(t.p50), short(t.p95), short(t.p99), ratio(t.rounds99, fewest[t.candidate.Name]))
	}
	p.line("")
}

// spaced is a sentence behind another, if there is one.
func spaced(sentence string) string {
	if sentence == "" {
		return ""
	}
	return " " + sentence
}

const bareName = "bare Gin route"

// floorOf is the candidate that does a candidate's look-ups and no more; "" where it does none.
func floorOf(c candidate.Candidate) string {
	switch c.Work {
	case candidate.Session:
		return "by hand, one FindOne"
	case candidate.User:
		return "by hand, two FindOnes"
	default:
		return ""
	}
}

func connections(n int) string {
	if n == 1 {
		return "1 connection"
	}
	return fmt.Sprintf("%d connections", n)
}

// rate is the median, and how far the rounds are from their middle.
func rate(rounds []float64) string {
	median := load.Median(rounds)
	if len(rounds) < 2 || median == 0 {
		return fmt.Sprintf("%.0f", median)
	}
	return fmt.Sprintf("%.0f ±%.0f %%", median, 100*(slices.Max(rounds)-slices.Min(rounds))/2/median)
}

// ratio is the median of the rounds' ratios: what disturbs a round disturbs both.
func ratio[N float64 | time.Duration](a, b []N) string {
	if len(b) != len(a) {
		return "—"
	}
	ratios := make([]float64, len(a))
	for i := range ratios {
		ratios[i] = float64(a[i]) / float64(b[i])
	}
	return fmt.Sprintf("%.2f", load.Median(ratios))
}

// short is a duration with three digits or so.
func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
	default:
		return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond))
	}
}
