package sqlstore

import (
	"context"
	"time"

	"github.com/latchkey-go/latchkey/internal/follow"
)

const (
	// purgeBatch is how many rows one DELETE of a purge removes at most, so that no lock is
	// held for long.
	purgeBatch = 1000
	// expiredKept is how long expired counters and one-time tokens are kept: the clocks of
	// applications differ.
	expiredKept = 5 * time.Minute
	// revocationsKept is how long a revocation is stored: far longer than a cache may hold an
	// entry.
	revocationsKept = 10 * time.Minute
)

// purge deletes the rows in which a column has a time before another, in batches, and returns
// their number. The Timeout bounds each batch.
func (s *store) purge(ctx context.Context, table, column string, before time.Time) (total int64, err error) {
	statement, args := purgeBatchOf(s.dialect, table, column, before)
	for {
		n, err := s.write(ctx, statement, args...)
		total += n
		if err != nil {
			return total, wrap("purge the table "+table, err)
		}
		// Another instance can purge at the same time and make a batch smaller.
		if n == 0 {
			return total, nil
		}
	}
}

// purgeBatchOf returns the statement of a batch with its arguments.
func purgeBatchOf(dialect Dialect, table, column string, before time.Time) (statement string, args []any) {
	condition := column + " < ?"
	ms := before.UnixMilli()
	statement = "DELETE FROM " + table + " WHERE " + condition
	if dialect == MySQL {
		return statement + " ORDER BY " + column + " LIMIT ?", []any{ms, purgeBatch}
	}
	// The condition stands twice, because a row can change between the two.
	return statement + " AND id IN (SELECT id FROM " + table + " WHERE " + condition + " ORDER BY " + column + " LIMIT ?)", []any{ms, ms, purgeBatch}
}

// Purge removes the tokens that are older than Lifetime plus Grace, those whose own expiry was
// longer ago than Grace, and old revocations. It returns the number of tokens. It deletes at
// most 1,000 rows at a time, by an index. Call it periodically, in one instance or in all.
func (t *Tokens[ID]) Purge(ctx context.Context) (int64, error) {
	ended := t.now().Add(-t.grace)
	total, err := t.purge(ctx, t.table, "expires_at", ended)
	if err == nil && t.lifetime > 0 {
		var n int64
		n, err = t.purge(ctx, t.table, "created_at", ended.Add(-t.lifetime))
		total += n
	}
	if err == nil {
		// This process's clock may be ahead of the server's.
		_, err = t.purge(ctx, t.revocations, "at", t.now().Add(-revocationsKept-follow.MaxClockSkew))
	}
	return total, err
}

// Purge removes the counters that expired more than 5 minutes ago. It returns their number. See
// [Tokens.Purge].
func (a *Attempts) Purge(ctx context.Context) (int64, error) {
	return a.purge(ctx, a.table, "expires_at", a.now().Add(-expiredKept))
}

// Purge removes the tokens that expired more than 5 minutes ago. It returns their number. See
// [Tokens.Purge].
func (o *OneTimeTokens[ID]) Purge(ctx context.Context) (int64, error) {
	return o.purge(ctx, o.table, "expires_at", o.now().Add(-expiredKept))
}
