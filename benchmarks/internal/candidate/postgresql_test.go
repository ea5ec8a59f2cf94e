package candidate_test

import (
	"os"
	"strings"
	"testing"

	"github.com/latchkey-go/latchkey/benchmarks/internal/candidate"
)

// openPostgreSQL returns a schema of the server that LATCHKEY_TEST_SQL_DSN names.
func openPostgreSQL(t testing.TB, users, tokens int) *candidate.PostgreSQL {
	t.Helper()
	for dsn := range strings.FieldsSeq(os.Getenv("LATCHKEY_TEST_SQL_DSN")) {
		if !strings.HasPrefix(dsn, "postgres") {
			continue
		}
		p, err := candidate.OpenPostgreSQL(t.Context(), dsn, users, tokens)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
		return p
	}
	if os.Getenv("LATCHKEY_TEST_REQUIRE_SQL") != "" {
		t.Fatal("LATCHKEY_TEST_SQL_DSN names no PostgreSQL server")
	}
	t.Skip("LATCHKEY_TEST_SQL_DSN names no PostgreSQL server")
	return nil
}

func TestCandidatesOnPostgreSQL(t *testing.T) {
	p := openPostgreSQL(t, 10, 30)
	for _, c := range candidate.OnPostgreSQL() {
		t.Run(c.Name, func(t *testing.T) {
			site, err := c.Build(p)
			if err != nil {
				t.Fatal(err)
			}
			checkGuard(t, candidate.Candidate{Work: candidate.User}, site, candidate.Data{UserIDs: p.Users})
		})
	}
}

// BenchmarkGuardOnPostgreSQL measures a guarded request through ServeHTTP. The server's work counts
// in the time, and not in the allocations.
func BenchmarkGuardOnPostgreSQL(b *testing.B) {
	p := openPostgreSQL(b, 1000, 1000)
	for _, c := range candidate.OnPostgreSQL() {
		b.Run(c.Name, func(b *testing.B) {
			site, err := c.Build(p)
			if err != nil {
				b.Fatal(err)
			}
			candidate.Bench(b, site, 1000)
		})
	}
}
