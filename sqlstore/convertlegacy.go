package sqlstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// A legacy token is converted by one statement, which inserts the copy from the row of
// fastapi-users and locks that row. Whatever revokes a token deletes that row first, and the
// copy in the same transaction. So a revocation either comes first, and there is nothing to
// copy, or waits for the copy and deletes it. Should a copy remain all the same, for example
// because fastapi-users deleted the row, then it does not count: every read of a copy looks for
// the row too.
//
// The rows of fastapi-users stay, so that conversion can be undone.

// insertCopy copies a row of fastapi-users into Latchkey's table. It reports whether the row was
// still there.
func (l *LegacyTokens[ID]) insertCopy(ctx context.Context, row legacyRow[ID]) (inserted bool, err error) {
	values := tokenValues(row.AccessToken)
	condition, args := l.bySecret(row.secret)
	statement := l.insertInto() + "SELECT " + placeholders(len(values)) + " FROM " + l.old + " WHERE " + condition + l.forUpdate()
	err = l.transact(ctx, func(ctx context.Context, tx querier) error {
		n, err := l.exec(ctx, tx, statement, append(values, args...)...)
		inserted = n > 0
		return err
	})
	return inserted, err
}

// forUpdate locks what a SELECT reads. On SQLite there is one writer at a time anyway.
func (l *LegacyTokens[ID]) forUpdate() string {
	if l.dialect == SQLite {
		return ""
	}
	return " FOR UPDATE"
}

// ConvertConfig configures [LegacyTokens.ConvertAll].
type ConvertConfig struct {
	// DryRun changes nothing, and reports what would be converted. Default false.
	DryRun bool

	// Progress is called after each batch with the number of legacy tokens that were read, and
	// an estimate of all. nil means no progress.
	Progress func(done, total int64)
}

// Converted is what [LegacyTokens.ConvertAll] did.
type Converted struct {
	// Converted is the number of tokens that were copied into Latchkey's table.
	Converted int64
	// Already is the number of tokens that were there before.
	Already int64
	// Expired is the number of tokens that were left out because they have expired.
	Expired int64
	// Orphaned is the number of tokens that were left out because their user does not exist.
	// SQLite keeps such tokens unless its foreign keys are switched on. A dry run counts them
	// among Converted.
	Orphaned int64
	// Unreadable is the number of rows that are no token. They are left as they are.
	Unreadable int64
}

// convertBatch is how many tokens ConvertAll copies in one transaction.
const convertBatch = 200

// ConvertAll copies all valid tokens of fastapi-users into Latchkey's table, in batches. It is
// safe while applications run that have LegacyConfig.Convert set, or no Latchkey at all. It can
// be stopped at any time, even by a kill, and begun again. Clients notice nothing. Only ctx
// bounds its time; the Timeout bounds each batch.
func (l *LegacyTokens[ID]) ConvertAll(ctx context.Context, cfg ConvertConfig) (Converted, error) {
	var result Converted
	var done, total int64
	if cfg.Progress != nil {
		rows, err := l.readBatch(ctx, "SELECT COUNT(*) FROM "+l.old)
		if err != nil {
			return result, wrap("count the legacy tokens", err)
		}
		total, _ = toInt(rows[0][0])
	}
	for last := any(""); ; {
		batch, err := l.readBatch(ctx, "SELECT "+l.oldColumns()+" FROM "+l.old+" WHERE token > ? ORDER BY token LIMIT ?", last, convertBatch)
		if err != nil {
			return result, wrap("read the legacy tokens", err)
		}
		var rows []legacyRow[ID]
		for _, values := range batch {
			last = textOf(values[0])
			row, err := l.parseOld(slices.Clone(values))
			switch {
			case err != nil:
				result.Unreadable++
			case l.expired(&row.AccessToken):
				result.Expired++
			default:
				rows = append(rows, row)
			}
		}
		if err := l.convertRows(ctx, rows, cfg.DryRun, &result); err != nil {
			return result, wrap("convert legacy tokens", err)
		}
		done += int64(len(batch))
		if cfg.Progress != nil {
			cfg.Progress(done, max(done, total))
		}
		if len(batch) < convertBatch {
			return result, nil
		}
	}
}

// readBatch is query, bounded in time.
func (l *LegacyTokens[ID]) readBatch(ctx context.Context, query string, args ...any) ([][]any, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	return l.query(ctx, l.db, query, args...)
}

// convertRows converts the rows that are not converted yet, and counts.
func (l *LegacyTokens[ID]) convertRows(ctx context.Context, rows []legacyRow[ID], dryRun bool, result *Converted) error {
	if len(rows) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	copies, err := l.secondOf(ctx, l.db, "SELECT id, token FROM "+l.table+" WHERE token IN", "", rows, func(row legacyRow[ID]) any { return row.Digest })
	if err != nil {
		return err
	}
	var missing []legacyRow[ID]
	for _, row := range rows {
		if copies[row.Digest] {
			result.Already++
		} else {
			missing = append(missing, row)
		}
	}
	if dryRun || len(missing) == 0 {
		result.Converted += int64(len(missing))
		return nil
	}
	var n int64
	err = l.transact(ctx, func(ctx context.Context, tx querier) error {
		n, err = l.insertCopies(ctx, tx, missing)
		return err
	})
	if !l.dialect.isForeignKey(err) && !l.dialect.isDuplicate(err) {
		if err == nil {
			result.Converted += n
		}
		return err
	}
	// One of them cannot be inserted. Find out which.
	for _, row := range missing {
		inserted, err := l.insertCopy(ctx, row)
		switch {
		case l.dialect.isForeignKey(err):
			result.Orphaned++
		case l.dialect.isDuplicate(err): // converted meanwhile
			result.Already++
		case err != nil:
			return err
		case inserted:
			result.Converted++
		}
	}
	return nil
}

// insertCopies inserts the copies of the rows that are still there, and returns their number.
func (l *LegacyTokens[ID]) insertCopies(ctx context.Context, tx querier, rows []legacyRow[ID]) (int64, error) {
	there, err := l.secondOf(ctx, tx, "SELECT user_id, token FROM "+l.old+" WHERE token IN", l.forUpdate(), rows, func(row legacyRow[ID]) any { return row.secret })
	if err != nil {
		return 0, err
	}
	var n int64
	var args []any
	for _, row := range rows {
		if there[row.secret] {
			args = append(args, tokenValues(row.AccessToken)...)
			n++
		}
	}
	if n == 0 {
		return 0, nil
	}
	one := "(" + placeholders(len(args)/int(n)) + ")"
	_, err = l.exec(ctx, tx, l.insertInto()+"VALUES "+strings.TrimSuffix(strings.Repeat(one+", ", int(n)), ", "), args...)
	return n, err
}

// secondOf returns the second columns of what a query finds by a list of values, as a set.
func (l *LegacyTokens[ID]) secondOf(ctx context.Context, q querier, query, end string, rows []legacyRow[ID], value func(legacyRow[ID]) any) (map[string]bool, error) {
	args := make([]any, len(rows))
	for i, row := range rows {
		args[i] = value(row)
	}
	found, err := l.query(ctx, q, query+" ("+placeholders(len(args))+")"+end, args...)
	if err != nil {
		return nil, err
	}
	set := make(map[string]bool, len(found))
	for _, values := range found {
		if s, ok := textOf(values[1]).(string); ok {
			set[s] = true
		}
	}
	return set, nil
}

// UndoConversion deletes the copies of legacy tokens, and returns their number. The legacy
// tokens themselves remain. Call it before an application goes back from conversion to
// fastapi-users; and after the last legacy token has expired, to remove sessions that nobody can
// use any more. Sessions that have got a token of Latchkey's are no copies. Only ctx bounds its
// time.
func (l *LegacyTokens[ID]) UndoConversion(ctx context.Context) (n int64, err error) {
	err = retry(ctx, l.dialect, func() error {
		n, err = l.exec(ctx, l.db, "DELETE FROM "+l.table+" WHERE legacy = ?", true)
		return err
	})
	return n, wrap("delete the copies of legacy tokens", err)
}

// Migrate makes an index on the user's ID in the table of fastapi-users, if missing, which
// listings and revocations need. It does not disturb fastapi-users. Building it holds writes up
// in that table: if it is large, make the index before, under the name TABLE_latchkey_user. MySQL
// has such an index already, since the column has a foreign key. Without a deadline Migrate
// fails after 5 minutes.
func (l *LegacyTokens[ID]) Migrate(ctx context.Context) error {
	if l.dialect == MySQL {
		return nil
	}
	ctx, cancel := bounded(ctx, migrateTimeout)
	defer cancel()
	statement := "CREATE INDEX IF NOT EXISTS " + l.dialect.quote(l.name+"_latchkey_user") + " ON " + l.old + " (user_id)"
	return wrap("make the index on legacy tokens", retry(ctx, l.dialect, func() error {
		_, err := l.exec(ctx, l.db, statement)
		if l.dialect == PostgreSQL && sqlState(err) == "23505" { // another instance made it at the same time
			return nil
		}
		return err
	}))
}

// VerifySchema changes nothing, and returns an error wrapping [ErrSchemaMismatch] if the table
// of fastapi-users is missing or lacks a column. It does not look at the index.
func (l *LegacyTokens[ID]) VerifySchema(ctx context.Context) error {
	ctx, cancel := bounded(ctx, defaultTimeout)
	defer cancel()
	if err := l.db.PingContext(ctx); err != nil {
		return wrap("verify the schema of legacy tokens", err)
	}
	_, err := l.query(ctx, l.db, "SELECT "+l.oldColumns()+" FROM "+l.old+" WHERE 1 = 0")
	if err == nil || ctx.Err() != nil {
		return wrap("verify the schema of legacy tokens", err)
	}
	return fmt.Errorf("sqlstore: the table %q of LegacyConfig: %w: %w", l.name, ErrSchemaMismatch, err)
}
