package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/benchmarks/internal/lab"
)

func TestMain(m *testing.M) {
	lab.Main()
	// With the race detector, each child process would otherwise take a second to exit.
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0")
	os.Exit(m.Run())
}

// report runs the command on the stub with the smallest settings that give figures.
func report(t *testing.T, args ...string) (stdout, progress string) {
	t.Helper()
	var out, errs strings.Builder
	args = append([]string{"-stub", "-users", "5", "-rounds", "1", "-slot", "50ms", "-warmup", "10ms", "-benchtime", "1x", "-conns", "1,2"}, args...)
	if err := run(t.Context(), args, &out, &errs); err != nil {
		t.Fatal(err)
	}
	return out.String(), errs.String()
}

func TestReportHasAllParts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "docs")
	stdout, _ := report(t, "-out", dir)
	text, err := os.ReadFile(filepath.Join(dir, "benchmarks.md"))
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != stdout {
		t.Error("the printed and the written report differ")
	}
	for _, want := range []string{
		"measured without a database", "v1.1.0", "v2.9.0", "v3.5.1", "2 connections", "benchmarks.svg",
		"| Latchkey, token and user |", "| by hand, in memory |", "## With a network", "## Beside logins", "Not measured",
		"## Revocations across instances", "| under load |",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the report does not mention %q", want)
		}
	}
	svg, err := os.Open(filepath.Join(dir, "benchmarks.svg"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = svg.Close() }()
	for d := xml.NewDecoder(svg); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestManyTokensOnTheStub(t *testing.T) {
	stdout, _ := report(t, "-tokens", "-sizes", "10,2000")
	for _, want := range []string{"maps in place of indexes", "| 10 |", "| 2000 |", "| 1.00 |"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the report does not mention %q", want)
		}
	}
}

func TestManyTokensWithoutADatabase(t *testing.T) {
	t.Setenv(lab.URIVariable, "")
	var out, progress strings.Builder
	if err := run(t.Context(), []string{"-tokens"}, &out, &progress); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{out.String(), progress.String()} {
		if !strings.Contains(text, lab.URIVariable) {
			t.Errorf("%q does not name the missing variable", text)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		ok   bool
	}{
		{"no flags", nil, true},
		{"numbers of connections", []string{"-conns", "1,2,3"}, true},
		{"a word as a number of connections", []string{"-conns", "1,x"}, false},
		{"no connections", []string{"-conns", "0"}, false},
		{"no users", []string{"-users", "0"}, false},
		{"no duration", []string{"-slot", "0s"}, false},
		{"an argument", []string{"delay"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := parse(c.args, io.Discard); (err == nil) != c.ok {
				t.Errorf("got error %v, want success: %v", err, c.ok)
			}
		})
	}
}

func TestRate(t *testing.T) {
	for _, c := range []struct {
		name   string
		rounds []float64
		want   string
	}{
		{"one round", []float64{100}, "100"},
		{"several rounds", []float64{90, 100, 130}, "100 ±20 %"},
		{"no requests", []float64{0, 0}, "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := rate(c.rounds); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestRatio(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b []float64
		want string
	}{
		{"to missing figures", []float64{1}, nil, "—"},
		{"to itself", []float64{3, 5}, []float64{3, 5}, "1.00"},
		{"round by round", []float64{1, 20, 300}, []float64{2, 40, 300}, "0.50"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ratio(c.a, c.b); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestShort(t *testing.T) {
	for _, c := range []struct {
		d    time.Duration
		want string
	}{
		{0, "0 µs"},
		{999 * time.Microsecond, "999 µs"},
		{1234 * time.Microsecond, "1.23 ms"},
		{123 * time.Millisecond, "123 ms"},
	} {
		t.Run(c.want, func(t *testing.T) {
			if got := short(c.d); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
