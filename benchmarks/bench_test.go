package benchmarks_test

import (
	"testing"

	"github.com/latchkey-go/latchkey/benchmarks/internal/candidate"
	"github.com/latchkey-go/latchkey/benchmarks/internal/lab"
)

const benchUsers = 10_000

// BenchmarkGuard measures a guarded request through ServeHTTP. The database or stub is
// another process: its work counts in the time, and not in the allocations.
func BenchmarkGuard(b *testing.B) {
	l := open(b)
	name := "server"
	if l.Stub {
		name = "stub"
	}
	b.Run(name, func(b *testing.B) { bench(b, l, candidate.All(), 1) })
}

// BenchmarkInMemory measures Latchkey's own code, and the same written by hand: maps stand in
// for the database.
func BenchmarkInMemory(b *testing.B) { bench(b, open(b), candidate.InMemory(), 1) }

// BenchmarkInMemoryManyUsers is BenchmarkInMemory with requests that cycle through all users,
// so that their sessions are not in the processor's cache.
func BenchmarkInMemoryManyUsers(b *testing.B) { bench(b, open(b), candidate.InMemory(), benchUsers) }

func open(b *testing.B) *lab.Lab {
	b.Helper()
	l, err := lab.Open(b.Context(), benchUsers, benchUsers, false)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(l.Close)
	return l
}

func bench(b *testing.B, l *lab.Lab, candidates []candidate.Candidate, users int) {
	for _, c := range candidates {
		b.Run(c.Name, func(b *testing.B) {
			db, err := candidate.Open(b.Context(), l.Data, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = db.Close(b.Context()) }()
			site, err := c.Build(b.Context(), db)
			if err != nil {
				b.Fatal(err)
			}
			candidate.Bench(b, site, users)
		})
	}
}
