package sqlstore

import (
	"context"
	"time"
)

// For the tests.
var (
	IsDuplicate = Dialect.isDuplicate
	IsConflict  = Dialect.isConflict
	Bind        = Dialect.bind
	Now         = Dialect.now
)

// PurgeOnce does what a Purger does at each interval.
func (p *Purger) PurgeOnce(ctx context.Context) { p.purgeOnce(ctx) }

// PurgeBatch is how many rows a batch has at most.
const PurgeBatch = purgeBatch

// PurgeBatchOf returns the statement of a batch with its arguments, for EXPLAIN.
func PurgeBatchOf(dialect Dialect, table, column string, before time.Time) (string, []any) {
	statement, args := purgeBatchOf(dialect, dialect.quote(table), column, before)
	return dialect.bind(statement), args
}
