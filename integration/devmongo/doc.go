// Package devmongo runs a MongoDB-compatible server inside the process: FerretDB v1 on SQLite, ready in a few
// milliseconds, with nothing to install. It is for demos, tests and small data.
//
// It speaks MongoDB's wire protocol, has unique indexes, and applies one write at a time, so that conditional updates
// are as atomic as MongoDB's. But it is no MongoDB:
//
//   - it scans the whole collection for every filter but one on _id, whatever the indexes;
//   - it has no TTL indexes, no $lookup, no transactions and no change streams;
//   - it asks nobody for a password.
//
// A few hundred documents are fine. Never benchmark on it, and never put load on it: the numbers would say nothing
// about MongoDB.
//
// With the data in PostgreSQL it looks strings up by index, where somebody has made the indexes that FerretDB's queries
// can use, which are not those that it makes itself: see package benchmarks.
package devmongo
