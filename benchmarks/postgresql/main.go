// Command postgresql measures the candidates on PostgreSQL under load, and prints tables in
// Markdown:
//
//	go run ./benchmarks/postgresql postgres://USER@127.0.0.1/DATABASE
//
// The client and the candidate are this process. Each candidate is measured once in each round, so
// that a busy machine slows all of them down; ratios are medians of the ratios in each round.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/latchkey-go/latchkey/benchmarks/internal/candidate"
	"github.com/latchkey-go/latchkey/benchmarks/internal/load"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "postgresql:", err)
		os.Exit(1)
	}
}

// settings are the values of the flags.
type settings struct {
	dsn           string
	users, rounds int
	conns         int
	slot, warmup  time.Duration
	sizes         []int
}

func parse(args []string, output io.Writer) (s settings, err error) {
	flags := flag.NewFlagSet("postgresql", flag.ContinueOnError)
	flags.SetOutput(output)
	flags.IntVar(&s.users, "users", 1000, "number of users with a measured session")
	flags.IntVar(&s.rounds, "rounds", 7, "number of rounds")
	flags.IntVar(&s.conns, "conns", 16, "number of connections of the client")
	flags.DurationVar(&s.slot, "slot", time.Second, "duration of a measurement")
	flags.DurationVar(&s.warmup, "warmup", 200*time.Millisecond, "duration of the load before each measurement")
	sizes := flags.String("sizes", "1000,1000000", "numbers of tokens in the table, separated by commas")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if s.dsn = flags.Arg(0); flags.NArg() != 1 {
		return s, errors.New("want one argument, the URL of a PostgreSQL server")
	}
	for field := range strings.SplitSeq(*sizes, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < s.users {
			return s, fmt.Errorf("-sizes: %q is not a number of at least %d", field, s.users)
		}
		s.sizes = append(s.sizes, n)
	}
	if s.users < 1 || s.rounds < 1 || s.conns < 1 || s.slot <= 0 {
		return s, errors.New("-users, -rounds, -conns and -slot must be positive")
	}
	return s, nil
}

// site is a candidate's server on a table of a size, with what was measured in each round.
type site struct {
	candidate.SQLCandidate
	addr       string
	requests   [][]byte
	rates      []float64
	p50s, p99s []time.Duration
}

func run(ctx context.Context, args []string, stdout, progress io.Writer) (err error) {
	s, err := parse(args, progress)
	if err != nil {
		return err
	}
	tables := make([][]*site, len(s.sizes))
	for i, size := range s.sizes {
		_, _ = fmt.Fprintf(progress, "%d tokens\n", size)
		p, err := candidate.OpenPostgreSQL(ctx, s.dsn, s.users, size)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.Close()) }()
		for _, c := range candidate.OnPostgreSQL() {
			site, stop, err := serve(c, p)
			if err != nil {
				return fmt.Errorf("%s: %w", c.Name, err)
			}
			defer stop()
			tables[i] = append(tables[i], site)
		}
	}
	for round := range s.rounds {
		_, _ = fmt.Fprintf(progress, "round %d\n", round+1)
		for c := range tables[0] {
			for _, sites := range tables {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := sites[c].measure(s); err != nil {
					return err
				}
			}
		}
	}
	for i, size := range s.sizes {
		printTable(stdout, size, tables[i])
	}
	if len(s.sizes) > 1 {
		printSizes(stdout, s.sizes[0], s.sizes[len(s.sizes)-1], tables[0], tables[len(tables)-1])
	}
	return nil
}

// serve starts a candidate's server. stop ends it.
func serve(c candidate.SQLCandidate, p *candidate.PostgreSQL) (_ *site, stop func(), err error) {
	built, err := c.Build(p)
	if err != nil {
		return nil, nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	server := &http.Server{Handler: built.Handler, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	s := &site{SQLCandidate: c, addr: listener.Addr().String()}
	for _, session := range built.Sessions {
		s.requests = append(s.requests, fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n%s: %s\r\n\r\n", candidate.Path, s.addr, session.Name, session.Value))
	}
	return s, func() { _ = server.Close(); <-done }, nil
}

func (s *site) measure(cfg settings) error {
	result, err := load.Run(s.addr, s.requests, load.Options{Conns: cfg.conns, Warmup: cfg.warmup, Duration: cfg.slot})
	if err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	s.rates = append(s.rates, result.Rate)
	s.p50s = append(s.p50s, load.Percentile(result.Latencies, 50))
	s.p99s = append(s.p99s, load.Percentile(result.Latencies, 99))
	return nil
}

// ratio returns the median of the ratios of two measurements in each round.
func ratio[T ~int64 | ~float64](of, to []T) float64 {
	var ratios []float64
	for i := range of {
		ratios = append(ratios, float64(of[i])/float64(to[i]))
	}
	return load.Median(ratios)
}

func printTable(w io.Writer, size int, sites []*site) {
	head, line := "| | reads | requests/s |", "|---|---|---:|"
	for _, s := range sites {
		if s.ByHand {
			head += " of " + s.Name + " |"
			line += "---:|"
		}
	}
	_, _ = fmt.Fprintf(w, "\n%d tokens:\n\n%s p50 | p99 |\n%s---:|---:|\n", size, head, line)
	for _, s := range sites {
		_, _ = fmt.Fprintf(w, "| %s | %s | %.0f |", s.Name, s.Reads, load.Median(s.rates))
		for _, other := range sites {
			if other.ByHand {
				_, _ = fmt.Fprintf(w, " %.2f |", ratio(s.rates, other.rates))
			}
		}
		_, _ = fmt.Fprintf(w, " %v | %v |\n", load.Median(s.p50s).Round(10*time.Microsecond), load.Median(s.p99s).Round(10*time.Microsecond))
	}
}

func printSizes(w io.Writer, few, many int, before, after []*site) {
	_, _ = fmt.Fprintf(w, "\n| | p99 at %d tokens, relative to that at %d |\n|---|---:|\n", many, few)
	for i, s := range after {
		_, _ = fmt.Fprintf(w, "| %s | %.2f |\n", s.Name, ratio(s.p99s, before[i].p99s))
	}
}
