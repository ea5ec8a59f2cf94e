// Package devmongo runs a MongoDB-compatible server inside the process: FerretDB v1 on SQLite. It
// starts in a few milliseconds and needs no installation. It is for demos, tests and small data.
//
// It speaks MongoDB's wire protocol, has unique indexes, and applies one write at a time, so that
// conditional updates are atomic as in MongoDB. It differs from MongoDB:
//
//   - it scans the whole collection for every filter except one on _id, whatever the indexes;
//   - it has no TTL indexes, no transactions and no change streams;
//   - it cannot store values of the type decimal128;
//   - it does not authenticate its clients.
//
// It is made for a few hundred documents. Benchmarks and load tests on it say nothing about
// MongoDB.
//
// With its data in PostgreSQL it can look up strings by index, if the database has indexes that
// FerretDB's queries can use. FerretDB does not create those itself; package benchmarks shows
// how.
package devmongo
