package main

import (
	"io"
	"os"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	for dsn := range strings.FieldsSeq(os.Getenv("LATCHKEY_TEST_SQL_DSN")) {
		if !strings.HasPrefix(dsn, "postgres") {
			continue
		}
		var out strings.Builder
		if err := run(t.Context(), []string{"-rounds", "1", "-slot", "20ms", "-warmup", "0", "-users", "10", "-sizes", "10,100", dsn}, &out, io.Discard); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"\n10 tokens", "\n100 tokens", "| Latchkey, token and user |", "p99 at 100 tokens, relative to that at 10"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("the report does not contain %q:\n%s", want, out.String())
			}
		}
		return
	}
	if os.Getenv("LATCHKEY_TEST_REQUIRE_SQL") != "" {
		t.Fatal("LATCHKEY_TEST_SQL_DSN names no PostgreSQL server")
	}
	t.Skip("LATCHKEY_TEST_SQL_DSN names no PostgreSQL server")
}

func TestReportRefusesArguments(t *testing.T) {
	for name, args := range map[string][]string{
		"no server":        nil,
		"two servers":      {"postgres://one", "postgres://two"},
		"fewer than users": {"-sizes", "5", "postgres://one"},
		"sizes in words":   {"-sizes", "many", "postgres://one"},
		"no rounds":        {"-rounds", "0", "postgres://one"},
		"a malformed URL":  {"-sizes", "1000", "postgres://%zz"},
	} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
