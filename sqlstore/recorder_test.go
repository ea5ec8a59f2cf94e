package sqlstore_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync"
	"testing"

	"github.com/latchkey-go/latchkey/sqlstore"
)

// recorder is a connector that keeps what its connections send, and the errors of the database. It
// is safe for concurrent use.
type recorder struct {
	driver.Connector
	mu     sync.Mutex
	sent   []statement
	failed []error
}

// statement is a statement with its arguments.
type statement struct {
	text string
	args []driver.NamedValue
}

// openRecorded is open with a recorder.
func openRecorded(t testing.TB, from source) (*sql.DB, *recorder) {
	t.Helper()
	db := openDB(t, from) // it does not connect
	var connector driver.Connector = dsnConnector{from.dsn, db.Driver()}
	if d, ok := db.Driver().(driver.DriverContext); ok {
		var err error
		if connector, err = d.OpenConnector(from.dsn); err != nil {
			t.Fatal(err)
		}
	}
	r := &recorder{Connector: connector}
	recorded := sql.OpenDB(r)
	recorded.SetMaxOpenConns(16)
	recorded.SetMaxIdleConns(16)
	t.Cleanup(func() {
		if err := recorded.Close(); err != nil {
			t.Error(err)
		}
	})
	return recorded, r
}

// dsnConnector is a connector of a driver that has none.
type dsnConnector struct {
	dsn    string
	driver driver.Driver
}

func (c dsnConnector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }
func (c dsnConnector) Driver() driver.Driver                        { return c.driver }

func (r *recorder) note(text string, args []driver.NamedValue, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = append(r.sent, statement{text, append([]driver.NamedValue(nil), args...)})
	if err != nil && !errors.Is(err, driver.ErrSkip) {
		r.failed = append(r.failed, err)
	}
}

func (r *recorder) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent, r.failed = nil, nil
}

func (r *recorder) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := r.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return recordedConn{conn, r}, nil
}

// recordedConn passes everything on to a connection. The drivers differ in what they implement.
type recordedConn struct {
	driver.Conn
	*recorder
}

func (c recordedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	result, err := c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
	c.note(query, args, err)
	return result, err
}

func (c recordedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
	c.note(query, args, err)
	return rows, err
}

func (c recordedConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	stmt, err := c.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, query)
	c.note(query, nil, err)
	if err != nil {
		return nil, err
	}
	return recordedStmt{stmt, c, query}, nil
}

func (c recordedConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	return c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
}

func (c recordedConn) Ping(ctx context.Context) error { return c.Conn.(driver.Pinger).Ping(ctx) }

func (c recordedConn) ResetSession(ctx context.Context) error {
	if r, ok := c.Conn.(driver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}

func (c recordedConn) IsValid() bool {
	v, ok := c.Conn.(driver.Validator)
	return !ok || v.IsValid()
}

func (c recordedConn) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := c.Conn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

type recordedStmt struct {
	driver.Stmt
	conn recordedConn
	text string
}

func (s recordedStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	result, err := s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
	s.conn.note(s.text, args, err)
	return result, err
}

func (s recordedStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
	s.conn.note(s.text, args, err)
	return rows, err
}

func (s recordedStmt) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := s.Stmt.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return s.conn.CheckNamedValue(v)
}

// The recorder's own test: with it, the stores work as before, and it sees every statement.
func TestRecorderSeesStatementsAndArguments(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db, sent := openRecorded(t, s.create(t))
		if err := sqlstore.Migrate[int64](t.Context(), db, s.dialect, elsewhere); err != nil {
			t.Fatal(err)
		}
		sent.reset()
		attempts, err := sqlstore.NewAttempts(db, s.dialect, sqlstore.AttemptsConfig{Tables: elsewhere})
		if err != nil {
			t.Fatal(err)
		}
		if err := attempts.Clear(t.Context(), "a key"); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, s := range sent.sent {
			for _, arg := range s.args {
				if arg.Value == "a key" {
					n++
				}
			}
		}
		if n == 0 {
			t.Errorf("the argument was not recorded: %v", sent.sent)
		}
	})
}
