// Package wirestub answers MongoDB's wire protocol from maps in memory. Benchmarks use it
// in place of a database, so that their figures show the driver and the code above it and
// next to nothing else. It is not a database: it stores nothing on disk and replicates
// nothing.
//
// Every field that a filter compares for equality gets a map at its first use, and every
// date that is sorted by gets an ordered list, so that no client is faster because of an
// index. Filters support equality, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists, $not, $and, $or and $nor;
// updates support $set, $unset, $setOnInsert, $max, $inc and $currentDate; finds sort by fields
// with values of one kind. Unique indexes are enforced; TTL indexes delete nothing. The stub
// answers anything else with an error.
package wirestub
