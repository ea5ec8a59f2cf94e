package sqlstore

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"github.com/latchkey-go/latchkey/account"
)

// AttemptsConfig configures [Attempts]. The zero value is usable.
type AttemptsConfig struct {
	// Tables are the names of the tables.
	Tables Tables

	// Timeout bounds every call whose context has no deadline. Default 3 seconds.
	Timeout time.Duration

	// Now is the clock of Purge. Default [time.Now].
	Now func() time.Time
}

// Attempts stores the counters of the login limiter (see account.LimiterConfig) in a SQL
// table, so that all instances of an application share them. The keys are digests: they
// reveal no name and no address. Make it with [NewAttempts], and the table with [Migrate]. It
// is safe for concurrent use.
type Attempts struct {
	store
	table string // quoted
}

var _ account.AttemptStore = (*Attempts)(nil)

// NewAttempts returns a store of login attempts. It does no I/O. It returns an error if a
// field of cfg is invalid.
func NewAttempts(db *sql.DB, dialect Dialect, cfg AttemptsConfig) (*Attempts, error) {
	s, err := newStore(db, dialect, "AttemptsConfig", cfg.Tables, cfg.Timeout, cfg.Now, nil)
	if err != nil {
		return nil, err
	}
	return &Attempts{s, dialect.quote(s.tables.LoginAttempts)}, nil
}

// attemptColumns are the columns of a counter. failures is 0 if the key is that of a known
// device.
const attemptColumns = "id, failures, last_at, expires_at"

// parseAttempt reads a counter and its key.
func parseAttempt(values []any) (key string, c account.AttemptCounter, err error) {
	r := &row{columns: attemptColumns, values: values}
	key = r.string()
	c = account.AttemptCounter{Failures: int(r.int64()), Last: r.time()}
	return key, c, r.err
}

// Counters implements account.AttemptStore. It sends one query.
func (a *Attempts) Counters(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
	ctx, cancel := bounded(ctx, a.timeout)
	defer cancel()
	counters := make([]account.AttemptCounter, len(keys))
	if len(keys) == 0 {
		return counters, wrap("find the counters", ctx.Err())
	}
	args := []any{now.UnixMilli()}
	for _, key := range keys {
		args = append(args, key)
	}
	rows, err := a.query(ctx, a.db, "SELECT "+attemptColumns+" FROM "+a.table+" WHERE expires_at > ? AND id IN ("+placeholders(len(keys))+")", args...)
	if err != nil {
		return nil, wrap("find the counters", err)
	}
	for _, values := range rows {
		found, counter, err := parseAttempt(values)
		if err != nil {
			return nil, wrap("read a counter", err)
		}
		for i, key := range keys {
			if key == found {
				counters[i] = counter
			}
		}
	}
	return counters, nil
}

// Add implements account.AttemptStore.
func (a *Attempts) Add(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
	at, until := now.UnixMilli(), expires.UnixMilli()
	// c is the counter that exists. An expired one begins again. MySQL assigns from left to
	// right, so expires_at, which the others read, is the last.
	set := "failures = CASE WHEN c.expires_at > ? THEN c.failures + 1 ELSE 1 END, " +
		"last_at = CASE WHEN c.expires_at > ? AND c.last_at > ? THEN c.last_at ELSE ? END, "
	args := []any{key, at, until, at, at, at, at}
	if postpone {
		set += "expires_at = CASE WHEN c.expires_at > ? AND c.expires_at > ? THEN c.expires_at ELSE ? END"
		args = append(args, at, until, until)
	} else {
		set += "expires_at = CASE WHEN c.expires_at > ? THEN c.expires_at ELSE ? END"
		args = append(args, at, until)
	}
	const insert = " (" + attemptColumns + ") VALUES (?, 1, ?, ?) "
	var rows [][]any
	var err error
	if a.dialect.returning() {
		rows, err = a.writeReturning(ctx, attemptColumns, "INSERT INTO "+a.table+" AS c"+insert+"ON CONFLICT (id) DO UPDATE SET "+set, args...)
	} else {
		set = strings.ReplaceAll(set, "c.", a.table+".")
		err = a.transact(ctx, func(ctx context.Context, tx querier) error {
			if _, err := a.exec(ctx, tx, "INSERT INTO "+a.table+insert+"ON DUPLICATE KEY UPDATE "+set, args...); err != nil {
				return err
			}
			rows, err = a.query(ctx, tx, "SELECT "+attemptColumns+" FROM "+a.table+" WHERE id = ?", key)
			return err
		})
	}
	if err != nil {
		return account.AttemptCounter{}, wrap("count the attempt", err)
	}
	_, counter, err := parseAttempt(rows[0])
	return counter, wrap("read the counter", err)
}

// Withdraw implements account.AttemptStore.
func (a *Attempts) Withdraw(ctx context.Context, now time.Time, key string, n int) error {
	return wrap("withdraw attempts", a.transact(ctx, func(ctx context.Context, tx querier) error {
		// The update locks the row until the transaction ends.
		_, err := a.exec(ctx, tx, "UPDATE "+a.table+" SET failures = failures - ? WHERE id = ? AND expires_at > ?", n, key, now.UnixMilli())
		if err != nil {
			return err
		}
		_, err = a.exec(ctx, tx, "DELETE FROM "+a.table+" WHERE id = ? AND expires_at > ? AND failures <= 0", key, now.UnixMilli())
		return err
	}))
}

// Clear implements account.AttemptStore.
func (a *Attempts) Clear(ctx context.Context, key string) error {
	_, err := a.write(ctx, "DELETE FROM "+a.table+" WHERE id = ?", key)
	return wrap("clear the counter", err)
}

// Remember implements account.AttemptStore.
func (a *Attempts) Remember(ctx context.Context, key string, now, expires time.Time) error {
	at, until := now.UnixMilli(), expires.UnixMilli()
	upsert := "ON CONFLICT (id) DO UPDATE"
	if a.dialect == MySQL {
		upsert = "ON DUPLICATE KEY UPDATE"
	} else {
		upsert += " SET"
	}
	_, err := a.write(ctx, "INSERT INTO "+a.table+" ("+attemptColumns+") VALUES (?, 0, ?, ?) "+upsert+" failures = 0, last_at = ?, expires_at = ?", key, at, until, at, until)
	return wrap("remember the device", err)
}
