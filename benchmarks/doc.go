// Package benchmarks measures what guarding a Gin route costs: with Latchkey, with other libraries, and with look-ups
// written by hand.
//
//	go test -run '^$' -bench . -benchmem ./benchmarks/...   # in one process: ns, bytes and allocations a request
//	go run ./benchmarks/report                              # all measurements; writes docs/benchmarks.md
//
// The database is the one that LATCHKEY_TEST_MONGODB_URI names, or else package wirestub, which is none.
package benchmarks
