package sqlstore_test

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/sqlstore"
	"github.com/latchkey-go/latchkey/storetest"
	"github.com/latchkey-go/latchkey/strategy"
)

// server is a PostgreSQL, MySQL or MariaDB server.
type server struct {
	dialect sqlstore.Dialect
	dsn     string
}

// servers returns the servers of LATCHKEY_TEST_SQL_DSN: a list, separated by spaces, of
// postgres://… and mysql://USER:PASSWORD@tcp(HOST:PORT)/. The test's user must be allowed to make
// schemas, or databases on MySQL.
func servers(t *testing.T) (all []server) {
	t.Helper()
	list := strings.Fields(os.Getenv("LATCHKEY_TEST_SQL_DSN"))
	if len(list) == 0 {
		if os.Getenv("LATCHKEY_TEST_REQUIRE_SQL") != "" {
			t.Fatal("LATCHKEY_TEST_REQUIRE_SQL is set, and LATCHKEY_TEST_SQL_DSN names no server")
		}
		t.Skip("LATCHKEY_TEST_SQL_DSN names no server; the other tests run on SQLite")
	}
	for _, dsn := range list {
		if rest, ok := strings.CutPrefix(dsn, "mysql://"); ok {
			all = append(all, server{sqlstore.MySQL, rest})
		} else {
			all = append(all, server{sqlstore.PostgreSQL, dsn})
		}
	}
	return all
}

// open returns an empty schema or database, which is dropped when the test ends.
func (s server) open(t testing.TB) *sql.DB {
	t.Helper()
	return openDB(t, s.create(t))
}

// create makes an empty schema or database, which is dropped when the test ends, and returns how
// to connect to it.
func (s server) create(t testing.TB) source {
	t.Helper()
	if s.dialect == sqlstore.SQLite {
		return sqliteFile(t)
	}
	name := fmt.Sprintf("lk_%x", rand.Uint64())
	from, create, drop := source{driver: "pgx"}, "CREATE SCHEMA "+name, "DROP SCHEMA "+name+" CASCADE"
	if s.dialect == sqlstore.MySQL {
		cfg, err := mysql.ParseDSN(s.dsn)
		if err != nil {
			t.Fatal(err)
		}
		cfg.DBName = name
		from, create, drop = source{"mysql", cfg.FormatDSN()}, "CREATE DATABASE "+name, "DROP DATABASE "+name
	} else {
		u, err := url.Parse(s.dsn)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		q.Set("search_path", name)
		u.RawQuery = q.Encode()
		from.dsn = u.String()
	}
	admin, err := sql.Open(from.driver, s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.ExecContext(t.Context(), create); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := admin.Exec(drop); err != nil {
			t.Error(err)
		}
		_ = admin.Close()
	})
	return from
}

// source is how to connect to a database: the name of a driver, and its data source name.
type source struct{ driver, dsn string }

// openDB connects to a database until the test ends.
func openDB(t testing.TB, from source) *sql.DB {
	t.Helper()
	db, err := sql.Open(from.driver, from.dsn)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16) // a new connection is slow
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// onEach runs a test on SQLite, and on each server of LATCHKEY_TEST_SQL_DSN.
func onEach(t *testing.T, test func(*testing.T, server)) {
	t.Helper()
	all := []server{{dialect: sqlstore.SQLite}}
	if os.Getenv("LATCHKEY_TEST_SQL_DSN") != "" {
		all = append(all, servers(t)...)
	}
	for _, s := range all {
		t.Run(s.dialect.String(), func(t *testing.T) { test(t, s) })
	}
}

// serverDB returns a database with Latchkey's tables.
func serverDB[ID sqlstore.UserID](t testing.TB, s server, tables sqlstore.Tables) *sql.DB {
	t.Helper()
	db := s.open(t)
	if err := sqlstore.Migrate[ID](t.Context(), db, s.dialect, tables); err != nil {
		t.Fatal(err)
	}
	if err := sqlstore.VerifySchema[ID](t.Context(), db, s.dialect, tables); err != nil {
		t.Fatal(err)
	}
	return db
}

func TestContractsOnServers(t *testing.T) {
	for _, s := range servers(t) {
		t.Run(s.dialect.String(), func(t *testing.T) {
			t.Run("uuid", func(t *testing.T) { contracts(t, s, uuid.New) })
			t.Run("int64", func(t *testing.T) { contracts(t, s, newInt) })
			t.Run("string", func(t *testing.T) { contracts(t, s, newString) })
		})
	}
}

func contracts[ID sqlstore.UserID](t *testing.T, s server, newID func() ID) {
	t.Helper()
	// All checks share the tables: to make them takes longer than a check.
	db := serverDB[ID](t, s, elsewhere)
	emptied := func(t testing.TB) *sql.DB {
		t.Helper()
		empty(t, db, "access_tokens", "revocations", "one_time_tokens", "login_attempts")
		return db
	}
	tokens := func(t testing.TB) *sqlstore.Tokens[ID] {
		t.Helper()
		tokens, err := sqlstore.NewTokens[ID](emptied(t), s.dialect, sqlstore.TokensConfig{Tables: elsewhere})
		if err != nil {
			t.Fatal(err)
		}
		return tokens
	}
	t.Run("tokens", func(t *testing.T) {
		storetest.Run(t, newID, func(t testing.TB) strategy.Store[ID] { return tokens(t) })
	})
	t.Run("revocations", func(t *testing.T) {
		storetest.RunRevocations(t, newID, func(t testing.TB) strategy.RevocationLog[ID] { return tokens(t) })
	})
	t.Run("one-time tokens", func(t *testing.T) {
		storetest.RunOneTimeTokens(t, newID, func(t testing.TB) account.OneTimeTokenStore[ID] {
			tokens, err := sqlstore.NewOneTimeTokens[ID](emptied(t), s.dialect, sqlstore.OneTimeTokensConfig{Tables: elsewhere})
			if err != nil {
				t.Fatal(err)
			}
			return tokens
		})
	})
	t.Run("users", func(t *testing.T) {
		db := serverDB[ID](t, s, sqlstore.Tables{})
		bytes := map[sqlstore.Dialect]string{sqlstore.PostgreSQL: "BYTEA", sqlstore.MySQL: "BLOB"}[s.dialect]
		for _, column := range []string{
			"display_name TEXT", "years INTEGER", "balance DOUBLE PRECISION", "referrer TEXT", "avatar " + bytes, "labels TEXT", "team CHAR(36)",
		} {
			if _, err := db.ExecContext(t.Context(), "ALTER TABLE users ADD COLUMN "+column); err != nil {
				t.Fatal(err)
			}
		}
		storetest.RunUsers(t, newMember(newID), func(t testing.TB) account.Store[member[ID], ID] {
			empty(t, db, "users")
			users, err := sqlstore.NewUsers[member[ID]](db, s.dialect, sqlstore.UsersConfig{})
			if err != nil {
				t.Fatal(err)
			}
			return users
		})
	})
	t.Run("attempts", func(t *testing.T) {
		storetest.RunAttempts(t, func(t testing.TB) account.AttemptStore {
			attempts, err := sqlstore.NewAttempts(emptied(t), s.dialect, sqlstore.AttemptsConfig{Tables: elsewhere})
			if err != nil {
				t.Fatal(err)
			}
			return attempts
		})
	})
}

// empty deletes all rows of tables.
func empty(t testing.TB, db *sql.DB, tables ...string) {
	t.Helper()
	for _, table := range tables {
		if _, err := db.ExecContext(t.Context(), "DELETE FROM "+table); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMigrateConcurrentlyOnServers(t *testing.T) {
	for _, s := range servers(t) {
		t.Run(s.dialect.String(), func(t *testing.T) {
			db := s.open(t)
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if err := sqlstore.Migrate[uuid.UUID](t.Context(), db, s.dialect, sqlstore.Tables{}); err != nil {
						t.Errorf("Migrate: %v", err)
					}
				})
			}
			wg.Wait()
			if err := sqlstore.VerifySchema[uuid.UUID](t.Context(), db, s.dialect, sqlstore.Tables{}); err != nil {
				t.Error(err)
			}
		})
	}
}
