package sqlstore_test

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/sqlstore"
	"github.com/latchkey-go/latchkey/storetest"
	"github.com/latchkey-go/latchkey/strategy"
)

// usersTable is the table of users as a mapper makes it.
type usersTable struct{ id, text, flag, time, version string }

func (u usersTable) create() string {
	return fmt.Sprintf(`CREATE TABLE users (id %s NOT NULL PRIMARY KEY, email %s NOT NULL UNIQUE, hashed_password %s, is_active %s, is_verified %s,
		is_superuser %s, created_at %s, token_version %s, other INTEGER DEFAULT 42)`, u.id, u.text, u.text, u.flag, u.flag, u.flag, u.time, u.version)
}

// mappers are tables for users with a UUID: the first of each dialect is the one that most mappers
// make.
var mappers = map[sqlstore.Dialect][]usersTable{
	sqlstore.PostgreSQL: {
		{"UUID", "VARCHAR(320) COLLATE \"C\"", "BOOLEAN", "TIMESTAMPTZ", "INTEGER"},
		{"CHAR(36)", "TEXT", "BOOLEAN", "TIMESTAMP", "SMALLINT"},
		{"VARCHAR(40)", "TEXT", "BOOLEAN", "TIMESTAMP(3) WITH TIME ZONE", "NUMERIC"},
	},
	sqlstore.MySQL: {
		{"CHAR(36)", "VARCHAR(320) COLLATE utf8mb4_bin", "TINYINT(1)", "DATETIME(6)", "INT UNSIGNED"},
		{"VARCHAR(40) CHARACTER SET latin1", "VARCHAR(320) CHARACTER SET latin1", "BIT(1)", "TIMESTAMP(3)", "BIGINT UNSIGNED"},
		{"CHAR(36) CHARACTER SET ascii", "VARCHAR(320)", "BOOLEAN", "DATETIME(3)", "SMALLINT"},
	},
	sqlstore.SQLite: {
		{"CHAR(36)", "VARCHAR(320)", "NUMERIC", "DATETIME", "BIGINT"},
		{"UUID", "TEXT", "BOOLEAN", "TIMESTAMP", "INTEGER"},
		{"TEXT", "TEXT", "TINYINT", "TEXT", "NUMERIC"},
	},
}

func TestUsersInATableWithNativeDates(t *testing.T) {
	eachDialect(t, func(t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB) {
		storetest.RunUsers(t, newMember(uuid.New), func(t testing.TB) account.Store[member[uuid.UUID], uuid.UUID] {
			db := open(t)
			table := mappers[dialect][0]
			table.version = "BIGINT"
			execute(t, db, table.create())
			addMemberColumns(t, db, dialect, "users")
			users, err := sqlstore.NewUsers[member[uuid.UUID]](db, dialect, sqlstore.UsersConfig{})
			if err != nil {
				t.Fatal(err)
			}
			return users
		})
	})
}

// newPlain returns a user with every field set.
func newPlain(email string) account.User[uuid.UUID] {
	return account.User[uuid.UUID]{
		ID: uuid.New(), Email: email, HashedPassword: account.NewPasswordHash("hash"), Active: true, Verified: true, Superuser: true,
		CreatedAt: time.UnixMilli(1790000000123).UTC(), Version: 3,
	}
}

func TestTypesOfMappers(t *testing.T) {
	eachDialect(t, func(t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB) {
		for _, table := range mappers[dialect] {
			t.Run(table.time+" "+table.flag, func(t *testing.T) { testMapper(t, dialect, open(t), table) })
		}
	})
}

func TestTypesOnMySQLWithParsedTimes(t *testing.T) {
	for _, s := range servers(t) {
		if s.dialect != sqlstore.MySQL {
			continue
		}
		dsn, err := mysql.ParseDSN(s.dsn)
		if err != nil {
			t.Fatal(err)
		}
		dsn.ParseTime = true
		s.dsn = dsn.FormatDSN()
		testMapper(t, s.dialect, s.open(t), mappers[s.dialect][0])
		db := s.open(t)
		var version string
		if err := db.QueryRowContext(t.Context(), "SELECT VERSION()").Scan(&version); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(version, "MariaDB") {
			testMapper(t, s.dialect, db, usersTable{"UUID", "VARCHAR(320)", "BOOLEAN", "DATETIME(3)", "BIGINT"})
		}
	}
}

// testMapper uses the table with a user of Latchkey and one of the application.
func testMapper(t *testing.T, dialect sqlstore.Dialect, db *sql.DB, table usersTable) {
	execute(t, db, table.create())
	if err := sqlstore.Migrate[uuid.UUID](t.Context(), db, dialect, sqlstore.Tables{}); err != nil {
		t.Fatal(err)
	}
	if err := sqlstore.VerifySchema[uuid.UUID](t.Context(), db, dialect, sqlstore.Tables{}); err != nil {
		t.Fatal(err)
	}
	users, err := sqlstore.NewUsers[account.User[uuid.UUID]](db, dialect, sqlstore.UsersConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ann := newPlain("ann@example.com")
	if err := users.Insert(t.Context(), ann); err != nil {
		t.Fatal(err)
	}
	if got, err := users.ByID(t.Context(), ann.ID); err != nil || !got.Active || !got.CreatedAt.Equal(ann.CreatedAt) || got.Version != 3 {
		t.Errorf("the account is %+v (error %v), want %+v", got, err, ann)
	}
	if err := users.Apply(t.Context(), ann.ID, account.Change{Active: new(false), RevokeTokens: true}); err != nil {
		t.Fatal(err)
	}
	if got, err := users.ByEmail(t.Context(), ann.Email); err != nil || got.Active || got.Version != 4 {
		t.Errorf("the changed account is %+v (error %v), want an inactive one of the version 4", got, err)
	}
	var stored, other string
	query := "SELECT CAST(created_at AS CHAR(23)), other FROM users"
	if err := db.QueryRowContext(t.Context(), query).Scan(&stored, &other); err != nil || other != "42" || !strings.HasPrefix(stored, "2026-09-21 ") {
		t.Errorf("the columns are %q and %q (error %v), want a date and 42", stored, other, err)
	}

	tokens, err := sqlstore.NewTokens[uuid.UUID](db, dialect, sqlstore.TokensConfig{})
	if err != nil {
		t.Fatal(err)
	}
	token := strategy.AccessToken[uuid.UUID]{ID: uuid.Must(uuid.NewV7()), Digest: "digest", UserID: ann.ID, CreatedAt: time.UnixMilli(1)}
	if err := tokens.Insert(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	if list, err := tokens.ByUser(t.Context(), ann.ID, strategy.Position{}, 10); err != nil || len(list) != 1 || list[0].UserID != ann.ID {
		t.Errorf("the user's tokens are %+v (error %v), want one", list, err)
	}
	if err := users.Delete(t.Context(), ann.ID); err != nil {
		t.Fatal(err)
	}
	if list, err := tokens.ByUser(t.Context(), ann.ID, strategy.Position{}, 10); err != nil || len(list) > 0 {
		t.Errorf("the deleted user has %d tokens (error %v), want 0", len(list), err)
	}

	// The application's own rows.
	bob := uuid.New()
	execute(t, db, "INSERT INTO users (id, email, created_at) VALUES ('"+bob.String()+"', 'bob@example.com', '2026-09-21 13:33:20.123')")
	want := time.Date(2026, 9, 21, 13, 33, 20, 123e6, time.UTC)
	if got, err := users.ByID(t.Context(), bob); err != nil || !got.Active || !got.CreatedAt.Equal(want) {
		t.Errorf("the application's user is %+v (error %v), want an active one of %v", got, err, want)
	}
}

func TestIDInAnUnsupportedFormIsAnError(t *testing.T) {
	db := sqlite(t)
	execute(t, db, mappers[sqlstore.SQLite][0].create(), "INSERT INTO users (id, email) VALUES ('0199e0f07d5b7c3e8a1f2b3c4d5e6f70', 'ann@example.com')")
	users, err := sqlstore.NewUsers[account.User[uuid.UUID]](db, sqlstore.SQLite, sqlstore.UsersConfig{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = users.ByEmail(t.Context(), "ann@example.com")
	if want := `the column "id" has a UUID in a form that is not supported`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("ByEmail returned the error %v, want one with %q", err, want)
	}
}
