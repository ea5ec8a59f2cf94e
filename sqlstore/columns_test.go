package sqlstore_test

import (
	"database/sql"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/sqlstore"
	"github.com/latchkey-go/latchkey/storetest"
	"github.com/latchkey-go/latchkey/strategy"
)

// eachDialect runs a test on SQLite, and on the servers of LATCHKEY_TEST_SQL_DSN. open returns an
// empty database.
func eachDialect(t *testing.T, test func(t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { test(t, sqlstore.SQLite, sqlite) })
	if os.Getenv("LATCHKEY_TEST_SQL_DSN") == "" {
		return
	}
	for _, s := range servers(t) {
		t.Run(s.dialect.String(), func(t *testing.T) { test(t, s.dialect, s.open) })
	}
}

// execute executes statements.
func execute(t testing.TB, db *sql.DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%v\n%s", err, s)
		}
	}
}

// renamed are the names of another program's table of users. One begins like the default name of
// the table, one is the default name of another column, and one is a word of SQL.
var renamed = sqlstore.Tables{Users: "user", UserColumns: sqlstore.Columns{
	ID: "users_id", Email: "id", HashedPassword: "Password", Active: "enabled", Verified: "confirmed", Superuser: "admin",
	CreatedAt: "order", TokenVersion: "generation",
}}

func TestUsersWithOtherNamesOfColumns(t *testing.T) {
	eachDialect(t, func(t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB) {
		storetest.RunUsers(t, newMember(uuid.New), func(t testing.TB) account.Store[member[uuid.UUID], uuid.UUID] {
			db := open(t)
			if err := sqlstore.Migrate[uuid.UUID](t.Context(), db, dialect, renamed); err != nil {
				t.Fatal(err)
			}
			if err := sqlstore.VerifySchema[uuid.UUID](t.Context(), db, dialect, renamed); err != nil {
				t.Fatal(err)
			}
			addMemberColumns(t, db, dialect, "user")
			users, err := sqlstore.NewUsers[member[uuid.UUID]](db, dialect, sqlstore.UsersConfig{Tables: renamed})
			if err != nil {
				t.Fatal(err)
			}
			return users
		})
	})
}

// addMemberColumns adds the columns of the struct member.
func addMemberColumns(t testing.TB, db *sql.DB, dialect sqlstore.Dialect, table string) {
	t.Helper()
	bytes := map[sqlstore.Dialect]string{sqlstore.PostgreSQL: "BYTEA", sqlstore.MySQL: "BLOB", sqlstore.SQLite: "BLOB"}[dialect]
	for _, column := range []string{
		"display_name TEXT", "years INTEGER", "balance DOUBLE PRECISION", "referrer TEXT", "avatar " + bytes, "labels TEXT", "team CHAR(36)",
	} {
		execute(t, db, "ALTER TABLE "+quoted(dialect, table)+" ADD COLUMN "+column)
	}
}

func quoted(dialect sqlstore.Dialect, name string) string {
	if dialect == sqlstore.PostgreSQL {
		return `"` + name + `"`
	}
	return "`" + name + "`"
}

func TestTokensGoWithTheirUserInATableOfAnotherProgram(t *testing.T) {
	eachDialect(t, func(t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB) {
		db := open(t)
		tables := sqlstore.Tables{Users: "members", UserColumns: sqlstore.Columns{ID: "uid", HashedPassword: "pw", Active: "enabled", TokenVersion: "version"}}
		execute(t, db, `CREATE TABLE members (uid BIGINT NOT NULL PRIMARY KEY, email VARCHAR(200) NOT NULL UNIQUE, pw TEXT, enabled BOOLEAN,
			is_verified BOOLEAN, is_superuser BOOLEAN, created_at BIGINT, version BIGINT, nickname TEXT)`,
			"INSERT INTO members (uid, email, nickname) VALUES (7, 'ann@example.com', 'Annie')")
		if err := sqlstore.Migrate[int64](t.Context(), db, dialect, tables); err != nil {
			t.Fatal(err)
		}
		if err := sqlstore.VerifySchema[int64](t.Context(), db, dialect, tables); err != nil {
			t.Fatal(err)
		}
		users, err := sqlstore.NewUsers[account.User[int64]](db, dialect, sqlstore.UsersConfig{Tables: tables})
		if err != nil {
			t.Fatal(err)
		}
		ann, err := users.ByEmail(t.Context(), "ann@example.com")
		if want := (account.User[int64]{ID: 7, Email: "ann@example.com", Active: true}); err != nil || !sameUser(ann, want) {
			t.Errorf("an account with NULL in its columns is %+v (error %v), want %+v", ann, err, want)
		}
		none, hash, zero := account.NewPasswordHash(""), account.NewPasswordHash("hash"), int64(0)
		for _, change := range []account.Change{
			{IfVersion: &zero, RevokeTokens: true}, {IfPassword: &none, Password: &hash}, {Active: new(false), Verified: new(true), Superuser: new(true)},
		} {
			if err := users.Apply(t.Context(), 7, change); err != nil {
				t.Errorf("Apply: %v", err)
			}
		}
		ann, err = users.ByID(t.Context(), 7)
		want := account.User[int64]{ID: 7, Email: "ann@example.com", HashedPassword: hash, Verified: true, Superuser: true, Version: 1}
		if err != nil || !sameUser(ann, want) {
			t.Errorf("after the changes, the account is %+v (error %v), want %+v", ann, err, want)
		}
		var nickname string
		if err := db.QueryRowContext(t.Context(), "SELECT nickname FROM members").Scan(&nickname); err != nil || nickname != "Annie" {
			t.Errorf("the application's column is %q (error %v), want Annie", nickname, err)
		}
		tokens, err := sqlstore.NewTokens[int64](db, dialect, sqlstore.TokensConfig{Tables: tables})
		if err != nil {
			t.Fatal(err)
		}
		token := strategy.AccessToken[int64]{ID: uuid.Must(uuid.NewV7()), Digest: "digest", UserID: 7, CreatedAt: time.UnixMilli(1)}
		if err := tokens.Insert(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		execute(t, db, "DELETE FROM members")
		if list, err := tokens.ByUser(t.Context(), 7, strategy.Position{}, 10); err != nil || len(list) > 0 {
			t.Errorf("the deleted user has %d tokens (error %v), want 0", len(list), err)
		}
	})
}

// sameUser compares users, whose hashes cannot be compared with ==.
func sameUser(a, b account.User[int64]) bool {
	if a.HashedPassword.Reveal() != b.HashedPassword.Reveal() {
		return false
	}
	a.HashedPassword, b.HashedPassword = account.PasswordHash{}, account.PasswordHash{}
	return reflect.DeepEqual(a, b)
}

func TestColumnsThatCannotBeUsed(t *testing.T) {
	type user struct {
		account.User[int64]
		Handle string `db:"Login"`
	}
	db := sqlite(t)
	for name, test := range map[string]struct {
		columns sqlstore.Columns
		want    string
	}{
		"no identifier":                 {sqlstore.Columns{CreatedAt: "created at"}, `Tables.UserColumns.CreatedAt is "created at"`},
		"twice":                         {sqlstore.Columns{Email: "ID"}, `Tables.UserColumns.ID and Tables.UserColumns.Email are both "ID"`},
		"the column of the application": {sqlstore.Columns{Email: "login"}, `the field Handle of sqlstore_test.user has the column "Login"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sqlstore.NewUsers[user](db, sqlstore.SQLite, sqlstore.UsersConfig{Tables: sqlstore.Tables{UserColumns: test.columns}})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("NewUsers returned the error %v, want one with %q", err, test.want)
			}
		})
	}
}
