package faults_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/sqlstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// sqlServer is a PostgreSQL, MySQL or MariaDB server, or SQLite in this process. The DSN of
// PostgreSQL is a URL, that of SQLite a directory.
type sqlServer struct {
	dialect sqlstore.Dialect
	dsn     string
}

// named returns the server of a dialect that LATCHKEY_TEST_SQL_DSN names: a list, separated
// by spaces, of postgres://… and mysql://USER:PASSWORD@tcp(HOST:PORT)/.
func named(dialect sqlstore.Dialect) (s sqlServer, ok bool) {
	for _, dsn := range strings.Fields(os.Getenv("LATCHKEY_TEST_SQL_DSN")) {
		s := sqlServer{sqlstore.PostgreSQL, dsn}
		if rest, ok := strings.CutPrefix(dsn, "mysql://"); ok {
			s = sqlServer{sqlstore.MySQL, rest}
		}
		if s.dialect == dialect {
			return s, true
		}
	}
	return s, false
}

// onPostgreSQL returns the server of LATCHKEY_TEST_SQL_DSN, or else the suite's own.
func onPostgreSQL(tb testing.TB) backend {
	tb.Helper()
	if s, ok := named(sqlstore.PostgreSQL); ok {
		return s
	}
	p, err := suitePostgreSQL()
	if err != nil {
		skipPostgreSQL(tb, err)
	}
	return p.sqlServer
}

var errNoPostgreSQL = errors.New("LATCHKEY_TEST_SQL_DSN names no PostgreSQL server, and its programs were not found here (apt-get install postgresql)")

// skipPostgreSQL skips a test, or fails it if LATCHKEY_TEST_REQUIRE_POSTGRESQL is 1.
func skipPostgreSQL(tb testing.TB, reason error) {
	tb.Helper()
	if os.Getenv("LATCHKEY_TEST_REQUIRE_POSTGRESQL") == "1" || !errors.Is(reason, errNoPostgreSQL) {
		tb.Fatal(reason)
	}
	tb.Skip(reason)
}

func onMySQL(tb testing.TB) backend {
	tb.Helper()
	s, ok := named(sqlstore.MySQL)
	if !ok {
		tb.Skip("LATCHKEY_TEST_SQL_DSN names no MySQL or MariaDB server")
	}
	return s
}

func onSQLite(tb testing.TB) backend {
	return sqlServer{sqlstore.SQLite, tb.TempDir()}
}

func (s sqlServer) address() string {
	if s.dialect == sqlstore.MySQL {
		cfg, err := mysql.ParseDSN(s.dsn)
		if err != nil {
			return err.Error()
		}
		return cfg.Addr
	}
	u, err := url.Parse(s.dsn)
	if err != nil {
		return err.Error()
	}
	return u.Host
}

// open opens a database; "" is the one that the DSN names. The way is the address of a proxy,
// or "".
func (s sqlServer) open(database, way string) (db *sql.DB, err error) {
	switch s.dialect {
	case sqlstore.SQLite:
		return sql.Open("sqlite", "file:"+filepath.Join(s.dsn, database)+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=foreign_keys(1)&_txlock=immediate")
	case sqlstore.MySQL:
		cfg, err := mysql.ParseDSN(s.dsn)
		if err != nil {
			return nil, err
		}
		if way != "" {
			cfg.Addr = way
		}
		if database != "" {
			cfg.DBName = database
		}
		return sql.Open("mysql", cfg.FormatDSN())
	}
	u, err := url.Parse(s.dsn)
	if err != nil {
		return nil, err
	}
	if way != "" {
		u.Host = way
	}
	q := u.Query()
	if database != "" {
		q.Set("search_path", database)
	}
	u.RawQuery = q.Encode()
	return sql.Open("pgx", u.String())
}

// exec executes a statement in a connection of its own.
func (s sqlServer) exec(ctx context.Context, database, statement string) error {
	db, err := s.open(database, "")
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, statement)
	return errors.Join(err, db.Close())
}

// newDatabase implements backend. On PostgreSQL, it makes a schema.
func (s sqlServer) newDatabase(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("lk_%x", rand.Uint64())
	kind, how := "SCHEMA", " CASCADE"
	if s.dialect == sqlstore.MySQL {
		kind, how = "DATABASE", ""
	}
	if s.dialect != sqlstore.SQLite {
		if err := s.exec(tb.Context(), "", "CREATE "+kind+" "+name); err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := s.exec(ctx, "", "DROP "+kind+" "+name+how); err != nil {
				tb.Error(err)
			}
		})
	}
	db, err := s.open(name, "")
	if err == nil {
		err = sqlstore.Migrate[uuid.UUID](tb.Context(), db, s.dialect, sqlstore.Tables{})
	}
	if err == nil {
		_, err = db.ExecContext(tb.Context(), "ALTER TABLE users ADD COLUMN name TEXT")
	}
	if err = errors.Join(err, db.Close()); err != nil {
		tb.Fatal(err)
	}
	return name
}

// sqlConnections is the limit of a rig's connections.
const sqlConnections = 16

func (s sqlServer) connect(ctx context.Context, r *rig, database string, cfg rigConfig) error {
	db, err := s.open(database, cfg.way)
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(sqlConnections)
	db.SetMaxIdleConns(sqlConnections)
	r.sql = db
	r.disconnect = func(context.Context) error { return db.Close() }
	r.connections = func() (open, out int64) {
		stats := db.Stats()
		return int64(stats.OpenConnections), int64(stats.InUse)
	}
	r.closers = append(r.closers, func() { _ = db.Close() })
	if err := sqlstore.Migrate[uuid.UUID](ctx, db, s.dialect, sqlstore.Tables{}); err != nil {
		return err
	}
	unread := func(_ context.Context, e event.Event) {
		if e.Kind == event.InvalidDocument {
			r.unread.Add(1)
		}
	}
	if r.tokens, err = sqlstore.NewTokens[uuid.UUID](db, s.dialect, sqlstore.TokensConfig{
		Lifetime: cfg.sessions.Lifetime, Timeout: cfg.timeout, Now: cfg.sessions.Now, OnEvent: unread,
	}); err != nil {
		return err
	}
	if r.users, err = sqlstore.NewUsers[member](db, s.dialect, sqlstore.UsersConfig{Timeout: cfg.timeout, OnEvent: unread}); err != nil {
		return err
	}
	r.attempts, err = sqlstore.NewAttempts(db, s.dialect, sqlstore.AttemptsConfig{Timeout: cfg.timeout})
	return err
}

// inspect reads every account and every token. The schema guards against rows that are half
// written.
func (s sqlServer) inspect(t *testing.T, r *rig) {
	t.Helper()
	var read, rows int
	for after := ""; ; {
		users, err := r.users.List(t.Context(), "", after, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range users {
			tokens, err := r.tokens.ByUser(t.Context(), u.ID, strategy.Position{}, 1_000_000)
			if err != nil {
				t.Fatal(err)
			}
			read += len(tokens)
			after = u.Email
		}
		if len(users) < 100 {
			break
		}
	}
	if err := r.sql.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM access_tokens").Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if n := r.unread.Load(); n > 0 || read != rows {
		t.Errorf("%d events for rows that cannot be read; %d of %d tokens belong to a user, want all", n, read, rows)
	}
}

func (s sqlServer) deleteTokens(t *testing.T, r *rig) {
	t.Helper()
	if _, err := r.sql.ExecContext(t.Context(), "DELETE FROM access_tokens"); err != nil {
		t.Fatal(err)
	}
}

func (s sqlServer) stores(t *testing.T) storeSet {
	t.Helper()
	db, err := s.open(s.newDatabase(t), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(sqlConnections)
	db.SetMaxIdleConns(sqlConnections)
	var set storeSet
	if set.tokens, err = sqlstore.NewTokens[uuid.UUID](db, s.dialect, sqlstore.TokensConfig{}); err != nil {
		t.Fatal(err)
	}
	if set.users, err = sqlstore.NewUsers[member](db, s.dialect, sqlstore.UsersConfig{}); err != nil {
		t.Fatal(err)
	}
	set.purge = func(lifetime time.Duration, now func() time.Time) error {
		tokens, err := sqlstore.NewTokens[uuid.UUID](db, s.dialect, sqlstore.TokensConfig{Lifetime: lifetime, Grace: time.Millisecond, Now: now})
		if err != nil {
			return err
		}
		_, err = tokens.Purge(context.Background())
		return err
	}
	return set
}
