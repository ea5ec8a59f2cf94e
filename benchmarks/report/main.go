// Command report measures the candidates and writes docs/benchmarks.md and a plot. Run it in
// the root of the repository:
//
//	go run ./benchmarks/report
//
// With -delay, -logins, -tokens or -revocations it measures only these parts, prints them
// and writes no files.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/benchmarks/internal/lab"
)

func main() {
	lab.Main()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// settings are the values of the flags.
type settings struct {
	users, rounds         int
	slot, warmup          time.Duration
	benchtime             string
	conns, sizes          []int
	stub                  bool
	delay, logins, tokens bool
	revocations           bool
	out, note             string

	progress io.Writer
}

// all reports whether all parts are measured and written.
func (s *settings) all() bool { return !s.delay && !s.logins && !s.tokens && !s.revocations }

func parse(args []string, output io.Writer) (*settings, error) {
	var s settings
	flags := flag.NewFlagSet("report", flag.ContinueOnError)
	flags.SetOutput(output)
	flags.IntVar(&s.users, "users", 10_000, "number of users, each with one session")
	flags.IntVar(&s.rounds, "rounds", 5, "number of rounds; the report shows medians over the rounds")
	flags.DurationVar(&s.slot, "slot", time.Second, "duration of a measurement under load")
	flags.DurationVar(&s.warmup, "warmup", 200*time.Millisecond, "duration of the load before each measurement")
	flags.StringVar(&s.benchtime, "benchtime", "300ms", "duration of a measurement in this process, as in go test")
	flags.Var((*ints)(&s.conns), "conns", "numbers of connections, separated by commas (default 1,16,64)")
	flags.Var((*ints)(&s.sizes), "sizes", "numbers of tokens in the collection, separated by commas (default 1000,1000000)")
	flags.BoolVar(&s.stub, "stub", false, "use the stub even if "+lab.URIVariable+" names a database; without -tokens, few and many tokens are still measured on that database")
	flags.StringVar(&s.note, "note", "", "`sentence` about the database, which the report adds to the part on few and many tokens")
	flags.BoolVar(&s.delay, "delay", false, "measure only the candidates with a delayed database")
	flags.BoolVar(&s.logins, "logins", false, "measure only guarded requests beside logins")
	flags.BoolVar(&s.tokens, "tokens", false, "measure only Latchkey with few and many tokens")
	flags.BoolVar(&s.revocations, "revocations", false, "measure only how soon one instance refuses what another has revoked")
	flags.StringVar(&s.out, "out", "docs", "`directory` of benchmarks.md and benchmarks.svg")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("report: unexpected argument %q", flags.Arg(0))
	}
	if s.conns == nil {
		s.conns = []int{1, 16, 64}
	}
	if s.sizes == nil {
		s.sizes = []int{1_000, 1_000_000}
	}
	if s.users < 1 || s.rounds < 1 || s.slot <= 0 {
		return nil, errors.New("report: -users, -rounds and -slot must be positive")
	}
	return &s, nil
}

// ints is a flag with positive numbers, separated by commas.
type ints []int

func (l *ints) String() string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(*l), " ", ","), "[]")
}

func (l *ints) Set(value string) error {
	*l = nil
	for field := range strings.SplitSeq(value, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is not a positive number", field)
		}
		*l = append(*l, n)
	}
	return nil
}

func run(ctx context.Context, args []string, stdout, progress io.Writer) error {
	s, err := parse(args, progress)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	s.progress = progress
	testing.Init() // defines test.benchtime
	if err := flag.Set("test.benchtime", s.benchtime); err != nil {
		return err
	}
	r, err := measure(ctx, s)
	if err != nil {
		return err
	}
	text := r.markdown()
	if _, err := io.WriteString(stdout, text); err != nil {
		return err
	}
	if !s.all() {
		return nil
	}
	if err := os.MkdirAll(s.out, 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(s.out, "benchmarks.md"), []byte(text), 0o644),
		os.WriteFile(filepath.Join(s.out, "benchmarks.svg"), []byte(r.svg()), 0o644),
	)
}
