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

// page is a Markdown text under construction.
type page struct{ strings.Builder }

func (p *page) line(format string, args ...any) { _, _ = fmt.Fprintf(p, format+"\n", args...) }

// para adds a paragraph.
func (p *page) para(format string, args ...any) { p.line(format+"\n", args...) }

// table begins a table. The first column is text, the others are numbers.
func (p *page) table(columns ...string) {
	p.row(columns...)
	p.line("|---|%s", strings.Repeat("---:|", len(columns)-1))
}

func (p *page) row(cells ...string) { p.line("| %s |", strings.Join(cells, " | ")) }

func (r *results) markdown() string {
	var p page
	p.para("# Benchmarks")
	p.para("These benchmarks measure what it costs to guard a Gin route: with Latchkey, with other libraries, and with code written by hand. `go run ./benchmarks/report` runs them and writes this page. The code is in `benchmarks/`.")
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
		p.para("**These figures are measured without a database.** Its place is taken by `benchmarks/wirestub`, a program on the same machine that answers MongoDB's wire protocol from maps in memory. So the figures show what each candidate costs with its driver and its round trips. With a real database behind a network, every look-up takes longer, and candidates with the same look-ups are closer together.")
	default:
		p.para("The database is %s (`%s`).", r.server, lab.URIVariable)
	}
	p.line("- Machine: %s, %d cores, %s, %s. Date: %s.", r.machine.cpu, r.machine.cores, r.machine.system, runtime.Version(), r.machine.date.Format(time.DateOnly))
	p.line("- The client, the candidate and the database are separate processes **on the same cores**, so they compete for processor time.")
	p.line("- There are %d users with one session each, and the requests cycle through them. All figures are medians of %d rounds. Each round measures every candidate once.", s.users, s.rounds)
	p.line("- The load is closed-loop: each connection sends its next request as soon as it has the answer. Each measurement takes %v, after %v of warm-up. Connections are persistent and without TLS.", s.slot, s.warmup)
	p.para("- The ± after a rate is half the distance between its best and its worst round; smaller differences are noise. A ratio is the median of the ratios in each round.")
}

func (r *results) candidates(p *page) {
	p.para("## Candidates")
	p.para("Compare only candidates that check the same. Each is set up as in production: Gin in release mode with `Recovery`, and sessions of %.0f hours. The handler answers with a small JSON object of the user, or with the user's ID if the guard does not load the user.", candidate.Lifetime.Hours())
	p.line("| | version | checks | reads per request | revocable at once | refuses deactivated users at once | notes |")
	p.line("|---|---|---|---|---|---|---|")
	for _, b := range r.inProcess {
		c := b.candidate
		p.row(c.Name, r.version(c), string(c.Work), c.Reads, c.Revocable, c.Deactivated, c.Notes)
	}
	p.line("")
	p.para("MongoDB drivers: v2 is %s, v1 is %s.", r.moduleVersion("go.mongodb.org/mongo-driver/v2"), r.moduleVersion("go.mongodb.org/mongo-driver"))
}

func (r *results) version(c candidate.Candidate) string {
	if c.Module == "" {
		return "this repository"
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
	p.para("Requests over loopback. \"Of bare\" is the rate relative to the bare route. \"Of the floor\" is the rate relative to the guard by hand that looks up the same, with one FindOne for each collection. \"Commands\" are sent to the database for each request; a cache sends one more per second, at any load. The last row is a reference and not a usable guard: its two maps never change, so nothing can be revoked. It shows how much of the bare route's rate remains if every request looks up its user.")
	p.para("![Latencies of the candidates](benchmarks.svg)")
	for _, conns := range r.settings.conns {
		rates := make(map[string][]float64)
		for _, l := range r.loopback {
			if l.conns == conns {
				rates[l.candidate.Name] = l.rates
			}
		}
		p.para("%s:", connections(conns))
		p.table("", "requests/s", "of bare", "of the floor", "p50", "p95", "p99", "commands")
		for _, l := range r.loopback {
			if l.conns == conns {
				p.row(l.candidate.Name, rate(l.rates), ratio(l.rates, rates[bareName]), ratio(l.rates, rates[floorOf(l.candidate)]),
					middle(l.p50), middle(l.p95), middle(l.p99), r.commandsOf(l.candidate))
			}
		}
		p.line("")
	}
}

// commandsOf returns the number of commands that a request of a candidate sends. They were
// counted in this process and not under load.
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
	p.para("`ServeHTTP` with prepared requests, one at a time, without HTTP connections. The database is another process, so bytes and allocations are those of the candidate and its driver. \"Of the floor\" is the time relative to the guard by hand that looks up the same.")
	r.benchmarkTable(p, r.inProcess)
}

func (r *results) ownCode(p *page) {
	p.para("## Latchkey's own code")
	p.para("The same, with maps in place of the driver and the database. The difference between `Latchkey, in memory` and `by hand, in memory` is the cost of Latchkey's checks, contexts and types.")
	r.benchmarkTable(p, r.inMemory)
	ns := make(map[string]float64)
	for _, b := range r.inMemory {
		ns[b.candidate.Name] = load.Median(b.ns)
	}
	cached, jwt := ns["Latchkey, cached, in memory"]-ns[bareName], ns["gin-jwt"]-ns[bareName]
	p.para("Latchkey takes %.1f µs longer than the guard by hand. A guard with the cache takes %.2f µs longer than the bare route; gin-jwt takes %.2f µs longer, which is %.1f times as much.",
		(ns["Latchkey, in memory"]-ns["by hand, in memory"])/1000, cached/1000, jwt/1000, jwt/cached)
}

func (r *results) benchmarkTable(p *page, benchmarks []benchmark) {
	ns := make(map[string][]float64)
	for _, b := range benchmarks {
		ns[b.candidate.Name] = b.ns
	}
	p.table("", "µs", "of the floor", "bytes", "allocations", "commands")
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
	p.para("%s. A proxy delays every request to the database, by as much as a network would take for the round trip. The proxy itself takes time too; the rows without delay include it.", connections(delayConns))
	p.table("", "delay", "requests/s", "of the floor", "p50", "p95", "p99")
	for _, d := range r.delays {
		var floor []float64
		for _, other := range r.delays {
			if other.delay == d.delay && other.candidate.Name == floorOf(d.candidate) {
				floor = other.rates
			}
		}
		delay := "none"
		if d.delay > 0 {
			delay = short(d.delay)
		}
		p.row(d.candidate.Name, delay, rate(d.rates), ratio(d.rates, floor), middle(d.p50), middle(d.p95), middle(d.p99))
	}
	p.line("")
}

func (r *results) besideLogins(p *page) {
	p.para("## Beside logins")
	p.para("%s send guarded requests to Latchkey, each with a pause of %v after an answer, while a number of users log in again and again. Passwords are hashed with the default parameters of argon2id (64 MiB, 3 passes, 4 lanes). Guarded requests do not wait for logins, but hashing takes processor time, and here the logins, the client and the database share %d cores with the guard. `MaxConcurrentHashes` bounds how many passwords are hashed at once. Each hash has 4 threads; the default is one hash for every 4 processors, and at least 1.",
		connections(loginConns), loginPause, r.machine.cores)
	p.table("", "concurrent logins", "guarded requests/s", "p50", "p95", "p99", "logins/s", "p50 of a login")
	for _, l := range r.logins {
		loginRate, loginTime := "—", "—"
		if l.logins > 0 {
			loginRate, loginTime = fmt.Sprintf("%.1f", load.Median(l.loginRates)), middle(l.loginTimes)
		}
		p.row(l.candidate.Name, fmt.Sprint(l.logins), rate(l.rates), middle(l.p50), middle(l.p95), middle(l.p99), loginRate, loginTime)
	}
	p.line("")
}

func (r *results) manyTokens(p *page) {
	p.para("## Few and many tokens")
	switch {
	case len(r.tokens) == 0:
		p.para("Not measured: this part needs a database with indexes. Set `%s` and run `go run ./benchmarks/report -tokens`.", lab.URIVariable)
		return
	case r.tokensOnStub:
		p.para("**Measured on the stub, which has maps in place of indexes.** This shows that the measurement works, and nothing about MongoDB.")
	default:
		p.para("%s", strings.TrimSpace(fmt.Sprintf("**Measured on %s.** %s", r.tokensServer, r.settings.note)))
	}
	p.para("`%s` with %s and %d users. The requests cycle through one session of each user; the other tokens are further sessions of theirs. The last column is p99 relative to the first row.", latchkeyName, connections(tokenConns), r.tokensUsers)
	p.table("tokens in the collection", "requests/s", "p50", "p95", "p99", "of the first p99")
	for _, t := range r.tokens {
		p.row(fmt.Sprint(t.tokens), rate(t.rates), middle(t.p50), middle(t.p95), middle(t.p99), ratio(t.p99, r.tokens[0].p99))
	}
	p.line("")
}

const bareName = "bare Gin route"

// floorOf returns the name of the guard by hand that looks up the same as a candidate, or ""
// if the candidate looks up nothing.
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

// rate formats the median, with half the distance between the best and the worst round in
// percent.
func rate(rounds []float64) string {
	median := load.Median(rounds)
	if len(rounds) < 2 || median == 0 {
		return fmt.Sprintf("%.0f", median)
	}
	return fmt.Sprintf("%.0f ±%.0f %%", median, 100*(slices.Max(rounds)-slices.Min(rounds))/2/median)
}

// ratio formats the median of the ratios in each round: a disturbance of the machine affects
// both figures of a round.
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

// middle formats the median of durations.
func middle(d []time.Duration) string { return short(load.Median(d)) }

// short formats a duration with about three digits.
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
