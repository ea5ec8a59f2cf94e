// Package wirestub answers MongoDB's wire protocol from maps in memory. It is no database: it keeps nothing on disk,
// replicates nothing, and looks every document up in a map. It stands where a database would in benchmarks of what is in
// front of one, so that their figures show the driver and the code above it and next to nothing else.
//
// Every field that a filter or a $lookup asks for by equality gets a map when it is first asked for, and every date that
// is sorted by an ordered list, so that no client is faster because it thought of an index. Filters know equality, $gt,
// $gte, $lt, $lte, $in, $nin, $exists, $and and $or; updates know $set, $setOnInsert, $max and $currentDate; finds sort by
// one field, where it is a date in all documents; pipelines are a $match, and behind it $lookup by fields and $limit.
// Unique indexes are kept, TTL indexes collect nothing. What it does not know it refuses with an error; it never passes
// over it.
package wirestub
