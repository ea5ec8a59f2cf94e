package sqlstore_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/sqlstore"
)

// Two applications in one database, each with its own tables: both are purged.
func TestTwoApplicationsThatShareTheTableOfLeasesArePurged(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := s.open(t)
		var purgers []*sqlstore.Purger
		names := []string{"tokens_of_a", "tokens_of_b"}
		for _, name := range names {
			tables := sqlstore.Tables{UsersElsewhere: true, AccessTokens: name}
			if err := sqlstore.Migrate[int64](t.Context(), db, s.dialect, tables); err != nil {
				t.Fatal(err)
			}
			tokens, err := sqlstore.NewTokens[int64](db, s.dialect, sqlstore.TokensConfig{Tables: tables, Lifetime: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.ExecContext(t.Context(), "INSERT INTO "+name+" (id, token, user_id, created_at) VALUES ('"+uuid.NewString()+"', 'a digest', 1, 1)"); err != nil {
				t.Fatal(err)
			}
			purger, err := sqlstore.NewPurger(db, s.dialect, sqlstore.PurgerConfig{Tables: tables}, tokens)
			if err != nil {
				t.Fatal(err)
			}
			purgers = append(purgers, purger)
		}
		for _, purger := range purgers {
			purger.PurgeOnce(t.Context())
		}
		for _, name := range names {
			var n int
			if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM "+name).Scan(&n); err != nil || n != 0 {
				t.Errorf("the table %s has %d expired tokens (%v), want 0", name, n, err)
			}
		}
	})
}

// pointed embeds its account by a pointer, which is nil in a new value.
type pointed struct{ *account.User[uuid.UUID] }

// profile is embedded by a pointer.
type profile struct{ Nickname string }

type withProfile struct {
	account.User[uuid.UUID]
	*profile
}

func TestNewUsersRefusesEmbeddedPointers(t *testing.T) {
	db := sqlite(t)
	if _, err := sqlstore.NewUsers[pointed](db, sqlstore.SQLite, sqlstore.UsersConfig{}); err == nil || !strings.Contains(err.Error(), "*account.User") {
		t.Errorf("NewUsers of a struct with a pointer to the account returned %v, want an error that names it", err)
	}
	if _, err := sqlstore.NewUsers[withProfile](db, sqlstore.SQLite, sqlstore.UsersConfig{}); err == nil || !strings.Contains(err.Error(), "*sqlstore_test.profile") {
		t.Errorf("NewUsers of a struct with an embedded pointer returned %v, want an error that names it", err)
	}
}

// The application's tables are in the second schema of the search_path: new ones in the first would
// hide them, and all accounts would seem to be gone.
func TestMigrateHidesNoTableOfAnotherSchema(t *testing.T) {
	for _, s := range servers(t) {
		if s.dialect != sqlstore.PostgreSQL {
			continue
		}
		first, second := s.create(t), s.create(t)
		db := openDB(t, second)
		if _, err := db.ExecContext(t.Context(), "CREATE TABLE users (id BIGINT PRIMARY KEY, email TEXT NOT NULL UNIQUE, hashed_password TEXT, is_active BOOLEAN, "+
			"is_verified BOOLEAN, is_superuser BOOLEAN, created_at BIGINT, token_version BIGINT)"); err != nil {
			t.Fatal(err)
		}
		path := func(from source) string {
			u, err := url.Parse(from.dsn)
			if err != nil {
				t.Fatal(err)
			}
			return u.Query().Get("search_path")
		}
		both := source{first.driver, strings.Replace(first.dsn, path(first), path(first)+","+path(second), 1)}
		if err := sqlstore.Migrate[int64](t.Context(), openDB(t, both), s.dialect, sqlstore.Tables{}); err != nil {
			t.Fatal(err)
		}
		after := openDB(t, both) // without cached plans
		for table, want := range map[string]string{"users": path(second), "access_tokens": path(first)} {
			var schema string
			if err := after.QueryRowContext(t.Context(), "SELECT CAST(relnamespace AS regnamespace)::text FROM pg_class WHERE oid = to_regclass($1)", table).Scan(&schema); err != nil || schema != want {
				t.Errorf("the table %s is in the schema %q (%v), want %q", table, schema, err, want)
			}
		}
		if err := sqlstore.VerifySchema[int64](t.Context(), after, s.dialect, sqlstore.Tables{}); err != nil {
			t.Error(err)
		}
	}
}

// meanwhile is a connector that calls do before the second query of its connections.
type meanwhile struct {
	*recorder
	queries *int
	do      func()
}

func (m meanwhile) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := m.recorder.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return meanwhileConn{conn.(recordedConn), m}, nil
}

type meanwhileConn struct {
	recordedConn
	m meanwhile
}

func (c meanwhileConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if *c.m.queries++; *c.m.queries == 2 {
		c.m.do()
	}
	return c.recordedConn.QueryContext(ctx, query, args)
}

// Another instance makes the tables while VerifySchema has read only their columns.
func TestVerifySchemaWhileAnotherInstanceMigrates(t *testing.T) {
	from := sqliteFile(t)
	db, r := openRecorded(t, from)
	verified := sql.OpenDB(meanwhile{r, new(int), func() {
		if err := sqlstore.Migrate[int64](t.Context(), db, sqlstore.SQLite, sqlstore.Tables{}); err != nil {
			t.Error(err)
		}
	}})
	defer func() { _ = verified.Close() }()
	if err := sqlstore.VerifySchema[int64](t.Context(), verified, sqlstore.SQLite, sqlstore.Tables{}); !errors.Is(err, sqlstore.ErrSchemaMismatch) {
		t.Errorf("VerifySchema returned %v, want ErrSchemaMismatch", err)
	}
}

// Without a strict sql_mode, MySQL stores the beginning of an address or ID that is too long, which can be
// the one of another user.
func TestVerifySchemaRefusesAnSQLModeThatCutsValues(t *testing.T) {
	for _, s := range servers(t) {
		if s.dialect != sqlstore.MySQL {
			continue
		}
		from := s.create(t)
		if err := sqlstore.Migrate[int64](t.Context(), openDB(t, from), s.dialect, sqlstore.Tables{}); err != nil {
			t.Fatal(err)
		}
		for _, mode := range []string{"", "NO_ENGINE_SUBSTITUTION", "STRICT_TRANS_TABLES", "STRICT_ALL_TABLES", "TRADITIONAL"} {
			cfg, err := mysql.ParseDSN(from.dsn)
			if err != nil {
				t.Fatal(err)
			}
			cfg.Params = map[string]string{"sql_mode": "'" + mode + "'"}
			err = sqlstore.VerifySchema[int64](t.Context(), openDB(t, source{from.driver, cfg.FormatDSN()}), s.dialect, sqlstore.Tables{})
			strict := mode == "TRADITIONAL" || strings.HasPrefix(mode, "STRICT_")
			if strict && err != nil || !strict && (!errors.Is(err, sqlstore.ErrSchemaMismatch) || !strings.Contains(err.Error(), "sql_mode")) {
				t.Errorf("with the sql_mode %q, VerifySchema returned %v", mode, err)
			}
		}
	}
}

// In such a table no account could be stored.
func TestVerifySchemaFindsColumnsThatAreTooSmall(t *testing.T) {
	for _, s := range servers(t) {
		db := s.open(t)
		if _, err := db.ExecContext(t.Context(), "CREATE TABLE users (id INTEGER PRIMARY KEY, email VARCHAR(254) NOT NULL UNIQUE, hashed_password VARCHAR(60), "+
			"is_active BOOLEAN, is_verified BOOLEAN, is_superuser BOOLEAN, created_at INTEGER, token_version INTEGER)"); err != nil {
			t.Fatal(err)
		}
		if err := sqlstore.Migrate[int64](t.Context(), db, s.dialect, sqlstore.Tables{}); err != nil {
			t.Fatal(err)
		}
		err := sqlstore.VerifySchema[int64](t.Context(), db, s.dialect, sqlstore.Tables{})
		if !errors.Is(err, sqlstore.ErrSchemaMismatch) || !strings.Contains(err.Error(), `"created_at"`) || !strings.Contains(err.Error(), `"hashed_password"`) {
			t.Errorf("%v: VerifySchema returned %v, want an error that names created_at and hashed_password", s.dialect, err)
			continue
		}
		if n := strings.Count(err.Error(), "\n") + 1; n != 2 {
			t.Errorf("%v: VerifySchema found %d problems, want 2: %v", s.dialect, n, err)
		}
	}
}

// At the end of summer time, the local time of a MySQL server goes back by an hour, but the times of
// revocations and leases do not.
func TestServerTimeOnMySQLHasNoTimeZone(t *testing.T) {
	for _, s := range servers(t) {
		if s.dialect != sqlstore.MySQL {
			continue
		}
		conn, err := s.open(t).Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// Only servers with the tables of time zones know the name.
		if _, err := conn.ExecContext(t.Context(), "SET time_zone = 'Europe/Berlin'"); err != nil {
			t.Log("the server does not know Europe/Berlin, so the session has another time zone: ", err)
		}
		const first = 1792888200 // 02:30 in summer time; an hour later it is 02:30 again
		for _, at := range []int64{first, first + 3600} {
			var got int64
			if _, err := conn.ExecContext(t.Context(), fmt.Sprintf("SET timestamp = %d.25", at)); err != nil {
				t.Fatal(err)
			}
			if err := conn.QueryRowContext(t.Context(), "SELECT "+sqlstore.Now(s.dialect)).Scan(&got); err != nil || got != at*1000+250 {
				t.Errorf("got %d (%v), want %d", got, err, at*1000+250)
			}
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}
