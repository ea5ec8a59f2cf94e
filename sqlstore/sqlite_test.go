package sqlstore_test

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	_ "modernc.org/sqlite"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/sqlstore"
	"github.com/latchkey-go/latchkey/storetest"
	"github.com/latchkey-go/latchkey/strategy"
)

// elsewhere are tables without a foreign key: the users of the tokens do not exist.
var elsewhere = sqlstore.Tables{UsersElsewhere: true}

// sqlite returns an empty database in a file.
func sqlite(t testing.TB) *sql.DB {
	t.Helper()
	return openDB(t, sqliteFile(t))
}

// sqliteFile returns how to connect to an empty database in a file.
func sqliteFile(t testing.TB) source {
	t.Helper()
	file := filepath.Join(t.TempDir(), "test.db")
	return source{"sqlite", "file:" + file + "?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=foreign_keys(1)&_txlock=immediate"}
}

// migrated returns a database with Latchkey's tables.
func migrated[ID sqlstore.UserID](t testing.TB, tables sqlstore.Tables) *sql.DB {
	t.Helper()
	db := sqlite(t)
	if err := sqlstore.Migrate[ID](t.Context(), db, sqlstore.SQLite, tables); err != nil {
		t.Fatal(err)
	}
	if err := sqlstore.VerifySchema[ID](t.Context(), db, sqlstore.SQLite, tables); err != nil {
		t.Fatal(err)
	}
	return db
}

func newTokens[ID sqlstore.UserID](t testing.TB) *sqlstore.Tokens[ID] {
	t.Helper()
	tokens, err := sqlstore.NewTokens[ID](migrated[ID](t, elsewhere), sqlstore.SQLite, sqlstore.TokensConfig{Tables: elsewhere})
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

var lastID atomic.Int64

func newInt() int64     { return lastID.Add(1) }
func newString() string { return fmt.Sprint("user ", lastID.Add(1)) }

func TestTokens(t *testing.T) {
	t.Run("uuid", func(t *testing.T) { testTokens(t, uuid.New) })
	t.Run("int64", func(t *testing.T) { testTokens(t, newInt) })
	t.Run("string", func(t *testing.T) { testTokens(t, newString) })
}

func testTokens[ID sqlstore.UserID](t *testing.T, newID func() ID) {
	t.Parallel()
	storetest.Run(t, newID, func(t testing.TB) strategy.Store[ID] { return newTokens[ID](t) })
	storetest.RunRevocations(t, newID, func(t testing.TB) strategy.RevocationLog[ID] { return newTokens[ID](t) })
}

func TestAttempts(t *testing.T) {
	storetest.RunAttempts(t, func(t testing.TB) account.AttemptStore {
		attempts, err := sqlstore.NewAttempts(migrated[int64](t, elsewhere), sqlstore.SQLite, sqlstore.AttemptsConfig{Tables: elsewhere})
		if err != nil {
			t.Fatal(err)
		}
		return attempts
	})
}

func TestOneTimeTokens(t *testing.T) {
	t.Run("uuid", func(t *testing.T) { testOneTimeTokens(t, uuid.New) })
	t.Run("int64", func(t *testing.T) { testOneTimeTokens(t, newInt) })
	t.Run("string", func(t *testing.T) { testOneTimeTokens(t, newString) })
}

func testOneTimeTokens[ID sqlstore.UserID](t *testing.T, newID func() ID) {
	t.Parallel()
	storetest.RunOneTimeTokens(t, newID, func(t testing.TB) account.OneTimeTokenStore[ID] {
		tokens, err := sqlstore.NewOneTimeTokens[ID](migrated[ID](t, elsewhere), sqlstore.SQLite, sqlstore.OneTimeTokensConfig{Tables: elsewhere})
		if err != nil {
			t.Fatal(err)
		}
		return tokens
	})
}

// Twenty instances migrate at once, also over a table of users that exists.
func TestMigrateConcurrently(t *testing.T) {
	db := sqlite(t)
	tables := sqlstore.Tables{AccessTokens: "sessions", Users: "members"}
	if _, err := db.ExecContext(t.Context(), `CREATE TABLE members (id TEXT PRIMARY KEY, email TEXT UNIQUE, hashed_password TEXT, is_active BOOLEAN,
		is_verified BOOLEAN, is_superuser BOOLEAN, created_at INTEGER, token_version INTEGER, nickname TEXT)`); err != nil {
		t.Fatal(err)
	}
	if err := sqlstore.VerifySchema[uuid.UUID](t.Context(), db, sqlstore.SQLite, tables); !errors.Is(err, sqlstore.ErrSchemaMismatch) {
		t.Errorf("VerifySchema of an empty database returned %v, want ErrSchemaMismatch", err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := sqlstore.Migrate[uuid.UUID](t.Context(), db, sqlstore.SQLite, tables); err != nil {
				t.Errorf("Migrate: %v", err)
			}
		})
	}
	wg.Wait()
	if err := sqlstore.VerifySchema[uuid.UUID](t.Context(), db, sqlstore.SQLite, tables); err != nil {
		t.Error(err)
	}
}
