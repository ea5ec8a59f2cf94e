package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/latchkey-go/latchkey/event"
)

const (
	// defaultTimeout bounds a call whose context has no deadline.
	defaultTimeout = 3 * time.Second
	// maxAttempts is how often a write is tried while the database reports a conflict.
	maxAttempts = 10
)

// store is what all stores have in common.
type store struct {
	db      *sql.DB
	dialect Dialect
	tables  Tables
	timeout time.Duration
	now     func() time.Time
	onEvent func(context.Context, event.Event)
}

// newStore checks what all configurations have in common. config names the Config in errors.
func newStore(db *sql.DB, dialect Dialect, config string, tables Tables, timeout time.Duration, now func() time.Time, onEvent func(context.Context, event.Event)) (store, error) {
	if db == nil {
		return store{}, errors.New("sqlstore: the *sql.DB is nil: open it with sql.Open")
	}
	if err := dialect.check(); err != nil {
		return store{}, err
	}
	tables, err := tables.withDefaults()
	if err != nil {
		return store{}, err
	}
	if timeout < 0 {
		return store{}, fmt.Errorf("sqlstore: %s.Timeout is %v: it must not be negative; 0 means %v", config, timeout, defaultTimeout)
	}
	if timeout == 0 {
		timeout = defaultTimeout
	}
	if now == nil {
		now = time.Now
	}
	return store{db, dialect, tables, timeout, now, onEvent}, nil
}

// wrap says what failed. It returns nil for nil.
func wrap(doing string, err error) error {
	if err != nil {
		return fmt.Errorf("sqlstore: %s: %w", doing, err)
	}
	return nil
}

// invalid reports a row that cannot be read. key identifies the row. userID is the zero value if
// it is not known.
func invalid[ID UserID](ctx context.Context, s *store, table string, key any, userID ID, cause error) {
	if s.onEvent == nil {
		return
	}
	e := event.Event{
		Kind: event.InvalidDocument, Time: s.now().UTC(), ClientIP: event.ClientIP(ctx),
		Err: fmt.Errorf("sqlstore: the table %q, the row %v: %w", table, key, cause),
	}
	var unknown ID
	if userID != unknown {
		e.UserID = userID
	}
	s.onEvent(ctx, e)
}

// bounded returns ctx with a deadline, unless it already has one.
func bounded(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
}

// retry runs a statement or a transaction again while the database refuses it because of concurrent
// ones. It then changed nothing.
func retry(ctx context.Context, dialect Dialect, write func() error) error {
	for attempt := 1; ; attempt++ {
		err := write()
		if err == nil || attempt == maxAttempts || !dialect.isConflict(err) {
			return err
		}
		if pause(ctx, time.Duration(attempt)*5*time.Millisecond) != nil {
			return ended(ctx, err)
		}
	}
}

// ended makes an error wrap that of its context, if that has ended. Drivers return other errors
// too: that a connection could not be opened in time, or is closed.
func ended(ctx context.Context, err error) error {
	cause := ctx.Err()
	if deadline, ok := ctx.Deadline(); ok && cause == nil && !time.Now().Before(deadline) {
		cause = context.DeadlineExceeded // a connection's own timer can be the first
	}
	if err == nil || cause == nil || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w: %w", cause, err)
}

// pause waits for d, or returns the context's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// discard makes the pool close a connection instead of using it again.
func discard(conn *sql.Conn) {
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })
}

// columns quotes a list of columns.
func (d Dialect) columns(list string) string {
	names := strings.Split(list, ", ")
	for i, name := range names {
		names[i] = d.quote(name)
	}
	return strings.Join(names, ", ")
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// query returns the rows of a query, each with the values as the driver returns them. Outside of a
// transaction, it repeats the query on conflicts.
func (s *store) query(ctx context.Context, q querier, query string, args ...any) (rows [][]any, err error) {
	if q != querier(s.db) {
		return s.queryOnce(ctx, q, query, args...)
	}
	err = retry(ctx, s.dialect, func() error {
		rows, err = s.queryOnce(ctx, q, query, args...)
		return err
	})
	return rows, err
}

// queryOnce reads to the end, where a database reports that a write failed.
func (s *store) queryOnce(ctx context.Context, q querier, query string, args ...any) (all [][]any, err error) {
	defer func() { err = ended(ctx, err) }()
	rows, err := q.QueryContext(ctx, s.dialect.bind(query), args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		values, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		all = append(all, values)
	}
	return all, rows.Err()
}

// exec executes a write and returns the number of rows that it changed. On MySQL, rows that
// have the new values already may not count.
func (s *store) exec(ctx context.Context, q querier, query string, args ...any) (int64, error) {
	result, err := q.ExecContext(ctx, s.dialect.bind(query), args...)
	if err != nil {
		return 0, ended(ctx, err)
	}
	return result.RowsAffected()
}

// write is exec in a statement of its own, with a deadline, repeated on conflicts.
func (s *store) write(ctx context.Context, query string, args ...any) (n int64, err error) {
	ctx, cancel := bounded(ctx, s.timeout)
	defer cancel()
	err = retry(ctx, s.dialect, func() error {
		n, err = s.exec(ctx, s.db, query, args...)
		return err
	})
	return n, err
}

// transact calls do in a transaction, again if the database reports a conflict.
func (s *store) transact(ctx context.Context, do func(context.Context, querier) error) error {
	ctx, cancel := bounded(ctx, s.timeout)
	defer cancel()
	return retry(ctx, s.dialect, func() error {
		if s.dialect == MySQL {
			return s.transactOnConn(ctx, do)
		}
		tx, err := s.db.BeginTx(ctx, nil)
		if err != nil {
			return ended(ctx, err)
		}
		defer func() { _ = tx.Rollback() }()
		if err := do(ctx, tx); err != nil {
			return err
		}
		return ended(ctx, tx.Commit())
	})
}

// transactOnConn is a transaction without a *sql.Tx. MySQL's driver knows no context in the Commit and
// the Rollback of one: on a connection that is half open, they would wait for ever.
func (s *store) transactOnConn(ctx context.Context, do func(context.Context, querier) error) error {
	conn, err := s.begin(ctx)
	if err != nil {
		return err
	}
	done := false // the transaction has ended
	defer func() {
		if !done {
			discard(conn) // the server then rolls back
		}
		_ = conn.Close()
	}()
	if err = do(ctx, conn); err == nil {
		err = execOn(ctx, conn, "COMMIT")
		done = err == nil
	} else {
		done = execOn(ctx, conn, "ROLLBACK") == nil
	}
	return err
}

// begin returns a connection of MySQL in a new transaction.
func (s *store) begin(ctx context.Context) (*sql.Conn, error) {
	for attempt := 1; ; attempt++ {
		conn, err := s.db.Conn(ctx)
		if err != nil {
			return nil, ended(ctx, err)
		}
		err = execOn(ctx, conn, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED") // fewer locks between the rows
		if err == nil {
			err = execOn(ctx, conn, "START TRANSACTION")
		}
		if err == nil {
			return conn, nil
		}
		discard(conn)
		_ = conn.Close()
		// The server had closed an idle connection. database/sql itself tries as often.
		if attempt == 3 || !errors.Is(err, driver.ErrBadConn) {
			return nil, err
		}
	}
}

func execOn(ctx context.Context, conn *sql.Conn, statement string) error {
	_, err := conn.ExecContext(ctx, statement)
	return ended(ctx, err)
}

// writeReturning executes a write and returns these columns of the rows that it changed. The
// dialect must be able to.
func (s *store) writeReturning(ctx context.Context, columns, write string, args ...any) ([][]any, error) {
	ctx, cancel := bounded(ctx, s.timeout)
	defer cancel()
	return s.query(ctx, s.db, write+" RETURNING "+s.dialect.columns(columns), args...)
}

// take deletes the row that a condition finds, at most one, and returns its columns. The first
// column must be the primary key. Of concurrent calls one returns the row.
func (s *store) take(ctx context.Context, table, columns, condition string, args ...any) (rows [][]any, err error) {
	if s.dialect.returning() {
		return s.writeReturning(ctx, columns, "DELETE FROM "+table+" WHERE "+condition, args...)
	}
	err = s.transact(ctx, func(ctx context.Context, tx querier) error {
		rows, err = s.takeIn(ctx, tx, table, columns, condition, args...)
		return err
	})
	return rows, err
}

// takeIn is take in a transaction.
func (s *store) takeIn(ctx context.Context, tx querier, table, columns, condition string, args ...any) ([][]any, error) {
	remove := "DELETE FROM " + table + " WHERE "
	if s.dialect.returning() {
		return s.query(ctx, tx, remove+condition+" RETURNING "+s.dialect.columns(columns), args...)
	}
	key, _, _ := strings.Cut(columns, ", ")
	rows, err := s.query(ctx, tx, "SELECT "+s.dialect.columns(columns)+" FROM "+table+" WHERE "+condition+" FOR UPDATE", args...)
	if err != nil || len(rows) == 0 {
		return rows, err
	}
	_, err = s.exec(ctx, tx, remove+key+" = ?", textOf(rows[0][0]))
	return rows, err
}
