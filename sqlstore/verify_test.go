package sqlstore_test

import (
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/sqlstore"
)

// damage is a change of the schema that VerifySchema must notice. The statements are by dialect,
// or for all of them under 0. SQLite cannot change a column, so a table is made again there.
type damage struct {
	statements map[sqlstore.Dialect][]string
	want       string                      // a part of the error
	remedy     map[sqlstore.Dialect]string // by dialect; it is executed, and must work
}

// again makes a table of SQLite again with a replacement in its statement.
func again(t *testing.T, db *sql.DB, table, old, replacement string) {
	t.Helper()
	var statement string
	if err := db.QueryRowContext(t.Context(), "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", table).Scan(&statement); err != nil {
		t.Fatal(err)
	}
	statement = strings.ReplaceAll(statement, "`", `"`)
	if !strings.Contains(statement, old) {
		t.Fatalf("the table is not made with %q:\n%s", old, statement)
	}
	execute(t, db, "DROP TABLE "+table, strings.Replace(statement, old, replacement, 1))
	if err := sqlstore.Migrate[uuid.UUID](t.Context(), db, sqlstore.SQLite, sqlstore.Tables{}); err != nil { // the indexes
		t.Fatal(err)
	}
}

func TestVerifySchemaNamesEachProblem(t *testing.T) {
	const pg, my, lite = sqlstore.PostgreSQL, sqlstore.MySQL, sqlstore.SQLite
	for name, d := range map[string]damage{
		"a table is missing": {map[sqlstore.Dialect][]string{0: {"DROP TABLE revocations"}}, `the table "revocations" is missing: call EnsureIndexes`, nil},
		"a column is missing": {map[sqlstore.Dialect][]string{0: {"ALTER TABLE access_tokens DROP COLUMN client_ip"}}, `the table "access_tokens" has no column "client_ip"`,
			map[sqlstore.Dialect]string{
				pg: `ALTER TABLE "access_tokens" ADD COLUMN "client_ip" TEXT COLLATE "C" NOT NULL DEFAULT ''`, lite: "ALTER TABLE `access_tokens` ADD COLUMN `client_ip` TEXT NOT NULL DEFAULT ''",
				my: "ALTER TABLE `access_tokens` ADD COLUMN `client_ip` VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT ''",
			}},
		"the token version is missing": {map[sqlstore.Dialect][]string{0: {"ALTER TABLE users DROP COLUMN token_version"}}, `the table "users" has no column "token_version"`,
			map[sqlstore.Dialect]string{
				pg: `ALTER TABLE "users" ADD COLUMN "token_version" BIGINT NOT NULL DEFAULT 0`, lite: "ALTER TABLE `users` ADD COLUMN `token_version` INTEGER NOT NULL DEFAULT 0",
				my: "ALTER TABLE `users` ADD COLUMN `token_version` BIGINT NOT NULL DEFAULT 0",
			}},
		"the creation time is missing": {map[sqlstore.Dialect][]string{0: {"ALTER TABLE users DROP COLUMN created_at"}}, `the table "users" has no column "created_at"`,
			map[sqlstore.Dialect]string{
				pg: `ALTER TABLE "users" ADD COLUMN "created_at" BIGINT`, lite: "ALTER TABLE `users` ADD COLUMN `created_at` INTEGER", my: "ALTER TABLE `users` ADD COLUMN `created_at` BIGINT",
			}},
		"a time is too small": {map[sqlstore.Dialect][]string{
			pg: {"ALTER TABLE access_tokens ALTER COLUMN last_used_at TYPE INTEGER"}, my: {"ALTER TABLE access_tokens MODIFY COLUMN last_used_at INTEGER"},
			lite: {"access_tokens", `"last_used_at" INTEGER`, "last_used_at TEXT"},
		}, `the column "last_used_at" of the table "access_tokens" has the type `,
			map[sqlstore.Dialect]string{pg: `ALTER TABLE "access_tokens" ALTER COLUMN "last_used_at" TYPE BIGINT`, my: "ALTER TABLE `access_tokens` MODIFY COLUMN `last_used_at` BIGINT"}},
		"a flag is text": {map[sqlstore.Dialect][]string{
			pg: {"ALTER TABLE users ALTER COLUMN is_superuser DROP DEFAULT", "ALTER TABLE users ALTER COLUMN is_superuser TYPE TEXT"},
			my: {"ALTER TABLE users MODIFY COLUMN is_superuser TEXT"}, lite: {"users", `"is_superuser" BOOLEAN`, `"is_superuser" TEXT`},
		}, `the column "is_superuser" of the table "users" has the type `, nil},
		"an ID has no room for hyphens": {map[sqlstore.Dialect][]string{
			my: {"ALTER TABLE access_tokens MODIFY COLUMN id CHAR(32)"}, lite: {"users", `"id" TEXT`, `"id" CHAR(32)`},
		}, `has the type `, nil},
		"the token is not unique": {map[sqlstore.Dialect][]string{
			pg: {"ALTER TABLE access_tokens DROP CONSTRAINT access_tokens_token_key"}, my: {"ALTER TABLE access_tokens DROP INDEX token"},
			lite: {"access_tokens", `"token" TEXT NOT NULL UNIQUE`, `"token" TEXT NOT NULL`},
		}, `the table "access_tokens" has no unique key on token`, map[sqlstore.Dialect]string{
			pg: `CREATE UNIQUE INDEX "access_tokens_token_key" ON "access_tokens" ("token")`, my: "CREATE UNIQUE INDEX `access_tokens_token_key` ON `access_tokens` (`token`)",
			lite: "CREATE UNIQUE INDEX `access_tokens_token_key` ON `access_tokens` (`token`)",
		}},
		"the address is unique together with another column": {map[sqlstore.Dialect][]string{
			pg: {"ALTER TABLE users DROP CONSTRAINT users_email_key", "CREATE UNIQUE INDEX u ON users (email, is_active)"},
			my: {"ALTER TABLE users DROP INDEX email", "CREATE UNIQUE INDEX u ON users (email, is_active)"}, lite: {"users", `"email" TEXT NOT NULL UNIQUE`, `"email" TEXT NOT NULL`},
		}, `the table "users" has no unique key on email`, nil},
		"the address is unique in some rows": {map[sqlstore.Dialect][]string{
			pg: {"ALTER TABLE users DROP CONSTRAINT users_email_key", "CREATE UNIQUE INDEX u ON users (email) WHERE is_active"},
		}, `the table "users" has no unique key on email`, nil},
		"a primary key is missing": {map[sqlstore.Dialect][]string{
			pg: {"ALTER TABLE login_attempts DROP CONSTRAINT login_attempts_pkey"}, my: {"ALTER TABLE login_attempts DROP PRIMARY KEY"},
			lite: {"login_attempts", "PRIMARY KEY", ""},
		}, `the table "login_attempts" has no unique key on id`, nil},
		"an index is missing": {map[sqlstore.Dialect][]string{
			0: {"DROP INDEX access_tokens_created_at"}, my: {"DROP INDEX access_tokens_created_at ON access_tokens"},
		}, `the table "access_tokens" has no index on created_at`, map[sqlstore.Dialect]string{
			pg: `CREATE INDEX "access_tokens_created_at" ON "access_tokens" ("created_at")`, my: "CREATE INDEX `access_tokens_created_at` ON `access_tokens` (`created_at`)",
			lite: "CREATE INDEX `access_tokens_created_at` ON `access_tokens` (`created_at`)",
		}},
		"an index has another order": {map[sqlstore.Dialect][]string{
			0:  {"DROP INDEX access_tokens_user", "CREATE INDEX access_tokens_user ON access_tokens (created_at, user_id, id)"},
			my: {"CREATE INDEX other ON access_tokens (user_id)", "DROP INDEX access_tokens_user ON access_tokens"},
		}, `the table "access_tokens" has no index on user_id, created_at, id`, nil},
		"a foreign key is missing": {map[sqlstore.Dialect][]string{
			pg: {"ALTER TABLE access_tokens DROP CONSTRAINT access_tokens_user_id_fkey"}, my: {"ALTER TABLE access_tokens DROP FOREIGN KEY access_tokens_ibfk_1"},
			lite: {"access_tokens", `REFERENCES "users" ("id") ON DELETE CASCADE`, ""},
		}, `the column "user_id" of the table "access_tokens" has no foreign key`, map[sqlstore.Dialect]string{
			pg: `ALTER TABLE "access_tokens" ADD FOREIGN KEY ("user_id") REFERENCES "users" ("id") ON DELETE CASCADE`,
			my: "ALTER TABLE `access_tokens` ADD FOREIGN KEY (`user_id`) REFERENCES `users` (`id`) ON DELETE CASCADE",
		}},
		"a foreign key refuses the deletion of a user": {map[sqlstore.Dialect][]string{
			pg:   {"ALTER TABLE one_time_tokens DROP CONSTRAINT one_time_tokens_user_id_fkey", "ALTER TABLE one_time_tokens ADD FOREIGN KEY (user_id) REFERENCES users (id)"},
			my:   {"ALTER TABLE one_time_tokens DROP FOREIGN KEY one_time_tokens_ibfk_1", "ALTER TABLE one_time_tokens ADD FOREIGN KEY (user_id) REFERENCES users (id)"},
			lite: {"one_time_tokens", "ON DELETE CASCADE", ""},
		}, `the column "user_id" of the table "one_time_tokens" has a foreign key without ON DELETE CASCADE`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			eachDialect(t, func(t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB) {
				statements, of := d.statements[dialect]
				all, ofAll := d.statements[0]
				if !of && !ofAll {
					t.Skip("it is not possible here")
				}
				db := open(t)
				if err := sqlstore.Migrate[uuid.UUID](t.Context(), db, dialect, sqlstore.Tables{}); err != nil {
					t.Fatal(err)
				}
				switch {
				case of && dialect == lite:
					again(t, db, statements[0], statements[1], statements[2])
				case of:
					execute(t, db, statements...)
				default:
					execute(t, db, all...)
				}
				err := sqlstore.VerifySchema[uuid.UUID](t.Context(), db, dialect, sqlstore.Tables{})
				if !errors.Is(err, sqlstore.ErrSchemaMismatch) || !strings.Contains(err.Error(), d.want) {
					t.Fatalf("VerifySchema returned the error %v, want ErrSchemaMismatch with %q", err, d.want)
				}
				if lines := strings.Split(err.Error(), "\n"); len(lines) > 1 {
					t.Errorf("VerifySchema found %d problems, want one:\n%v", len(lines), err)
				}
				remedy, ok := d.remedy[dialect]
				if !ok {
					return
				}
				if !strings.Contains(err.Error(), "execute "+remedy) {
					t.Fatalf("VerifySchema returned the error %v, want the remedy %s", err, remedy)
				}
				execute(t, db, remedy)
				if err := sqlstore.VerifySchema[uuid.UUID](t.Context(), db, dialect, sqlstore.Tables{}); err != nil {
					t.Errorf("after the remedy, VerifySchema returned the error %v", err)
				}
			})
		})
	}
}

func TestVerifySchemaAcceptsMoreAndWider(t *testing.T) {
	statements := map[sqlstore.Dialect][]string{
		sqlstore.PostgreSQL: {
			"ALTER TABLE access_tokens ALTER COLUMN last_used_at TYPE NUMERIC", "ALTER TABLE access_tokens ALTER COLUMN id TYPE TEXT",
			"DROP INDEX access_tokens_created_at", "CREATE INDEX another ON access_tokens (created_at, name)", "ALTER TABLE users ALTER COLUMN email TYPE VARCHAR(1000)",
		},
		sqlstore.MySQL: {
			"ALTER TABLE access_tokens MODIFY COLUMN last_used_at DECIMAL(30)", "ALTER TABLE access_tokens MODIFY COLUMN id VARCHAR(100)",
			"CREATE INDEX another ON access_tokens (created_at, id)", "DROP INDEX access_tokens_created_at ON access_tokens", "ALTER TABLE users MODIFY COLUMN email VARCHAR(700) NOT NULL",
		},
		sqlstore.SQLite: {"DROP INDEX access_tokens_created_at", "CREATE INDEX another ON access_tokens (CREATED_AT, name)"},
	}
	eachDialect(t, func(t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB) {
		db := open(t)
		if err := sqlstore.Migrate[uuid.UUID](t.Context(), db, dialect, sqlstore.Tables{}); err != nil {
			t.Fatal(err)
		}
		execute(t, db, append(statements[dialect], "ALTER TABLE access_tokens ADD COLUMN more INTEGER", "CREATE INDEX more ON access_tokens (more)")...)
		if err := sqlstore.VerifySchema[uuid.UUID](t.Context(), db, dialect, sqlstore.Tables{}); err != nil {
			t.Error(err)
		}
	})
}

func TestVerifySchemaWithOtherNames(t *testing.T) {
	eachDialect(t, func(t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB) {
		for name, tables := range map[string]sqlstore.Tables{
			"a column of the users in capitals": {Users: "Members", UserColumns: sqlstore.Columns{ID: "MemberID"}},
			"users elsewhere":                   {UsersElsewhere: true, AccessTokens: "sessions"},
		} {
			t.Run(name, func(t *testing.T) {
				db := open(t)
				migrate(t, db, dialect, tables)
				if err := sqlstore.VerifySchema[int64](t.Context(), db, dialect, tables); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

func TestVerifySchemaComparesTheTypeOfTheID(t *testing.T) {
	eachDialect(t, func(t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB) {
		db := open(t)
		migrate(t, db, dialect, sqlstore.Tables{}) // for int64
		err := sqlstore.VerifySchema[uuid.UUID](t.Context(), db, dialect, sqlstore.Tables{})
		if want := `the column "id" of the table "users" has the type `; !errors.Is(err, sqlstore.ErrSchemaMismatch) || !strings.Contains(err.Error(), want) {
			t.Errorf("VerifySchema returned the error %v, want ErrSchemaMismatch with %q", err, want)
		}
	})
}

func TestVerifySchemaOfSQLiteWithoutForeignKeys(t *testing.T) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "test.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	migrate(t, db, sqlstore.SQLite, sqlstore.Tables{})
	err = sqlstore.VerifySchema[int64](t.Context(), db, sqlstore.SQLite, sqlstore.Tables{})
	if want := "_pragma=foreign_keys(1)"; !errors.Is(err, sqlstore.ErrSchemaMismatch) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("VerifySchema returned the error %v, want one ErrSchemaMismatch with %q", err, want)
	}
}

// Migrate adds what is missing to an older schema; what it does not change, VerifySchema names.
func TestMigrateOfAPartialSchema(t *testing.T) {
	eachDialect(t, func(t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB) {
		db := open(t)
		migrate(t, db, dialect, sqlstore.Tables{})
		execute(t, db, "DROP TABLE one_time_tokens", "DROP TABLE leases", "ALTER TABLE access_tokens DROP COLUMN name")
		migrate(t, db, dialect, sqlstore.Tables{})
		err := sqlstore.VerifySchema[int64](t.Context(), db, dialect, sqlstore.Tables{})
		if want := `the table "access_tokens" has no column "name"`; err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("VerifySchema returned the error %v, want only %q", err, want)
		}
	})
}
