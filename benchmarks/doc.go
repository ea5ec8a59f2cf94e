// Package benchmarks measures what guarding a Gin route costs: with Latchkey, with other libraries, and with look-ups
// written by hand.
//
//	go test -run '^$' -bench . -benchmem ./benchmarks/...   # in one process: ns, bytes and allocations a request
//	go run ./benchmarks/report                              # all measurements; writes docs/benchmarks.md
//
// Where no MongoDB is to be had, a server with an index on tokens is, for report -tokens: FerretDB on PostgreSQL.
// postgresql.sql makes the index as soon as there is the collection; other fields than the token are scanned for.
//
//	psql URL -f benchmarks/postgresql.sql
//	go run ./integration/devmongo/cmd/devmongo -postgresql URL
//
// The database is the one that LATCHKEY_TEST_MONGODB_URI names, or else package wirestub, which is none.
package benchmarks
