package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/latchkey-go/latchkey/account"
)

// cheap are small hashes: the tests check the tool, not the times.
var cheap = account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}

func TestEveryKindIsMeasured(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-n", "25", "-seed", "1"}, &out, cheap); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| unknown user | 25 |", "| wrong password | 25 |", "| inactive user, right password | 25 |",
		"| locked, known user | 25 |", "| locked, unknown user | 25 |",
		"| unknown user / wrong password | ", "| wrong password / inactive user, right password | ",
		"| unknown user / inactive user, right password | ", "| locked, known user / locked, unknown user | ",
	} {
		if strings.Count(out.String(), want) != 1 {
			t.Errorf("got no %q in\n%s", want, out.String())
		}
	}
}

func TestEveryKindOfAccountRequestIsMeasured(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-accounts", "-n", "5", "-seed", "1", "-pause", "0"}, &out, cheap); err != nil {
		t.Fatal(err)
	}
	for _, route := range []string{"request-verify-token", "forgot-password", "register"} {
		for _, address := range []string{"unknown", "unverified", "verified", "inactive"} {
			want := []string{"| " + route + ", " + address + " | 5 |"}
			if address != "unknown" {
				want = append(want, "| "+route+", unknown / "+route+", "+address+" | ")
			}
			for _, want := range want {
				if strings.Count(out.String(), want) != 1 {
					t.Errorf("got no %q in\n%s", want, out.String())
				}
			}
		}
	}
}

func TestFloodIsMeasured(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-flood", "-clients", "5", "-length", "200ms"}, &out, cheap); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| no other requests | ", "| 5 clients logging in | ", "by status: map[400:"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got no %q in\n%s", want, out.String())
		}
	}
}

func TestInvalidFlagsAreErrors(t *testing.T) {
	for _, args := range [][]string{{"-n", "1"}, {"-max-hashes", "-1"}, {"-n", "many"}, {"-clients", "0", "-flood"}, {"-length", "0s"}, {"-accounts", "-flood"}, {"-accounts", "-pause", "-1s"}, {"extra"}, {"-mongodb-uri", "nonsense"}} {
		if err := run(t.Context(), args, new(bytes.Buffer), cheap); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
