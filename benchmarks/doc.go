// Package benchmarks measures what it costs to guard a Gin route: with Latchkey, with other
// libraries, and with code written by hand.
//
//	go test -run '^$' -bench . -benchmem ./benchmarks/...   # in one process: time, bytes and allocations
//	go run ./benchmarks/report                              # all measurements; writes docs/benchmarks.md
//	go run ./benchmarks/postgresql URL                      # guards on PostgreSQL, by hand and with libraries
//
// They use the database that LATCHKEY_TEST_MONGODB_URI names, or else package wirestub, which
// is not a database.
//
// report -tokens needs a database with an index on tokens. Without MongoDB, use FerretDB on
// PostgreSQL: postgresql.sql makes that index when the collection is created. FerretDB scans
// for all other fields.
//
//	psql URL -f benchmarks/postgresql.sql
//	go run ./integration/devmongo/cmd/devmongo -postgresql URL
package benchmarks
