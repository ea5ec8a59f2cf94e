package sqlpage

import (
	"context"
	"database/sql"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/go-sql-driver/mysql"
	"github.com/golang-migrate/migrate/v4/database"
	mysqlmigrate "github.com/golang-migrate/migrate/v4/database/mysql"
	pgxmigrate "github.com/golang-migrate/migrate/v4/database/pgx/v5"
	sqlitemigrate "github.com/golang-migrate/migrate/v4/database/sqlite"
	"github.com/google/uuid"
	"github.com/pressly/goose/v3"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/examples/internal/sqlrig"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/sqlstore"
)

const pageFile = "../../../docs/sql.md"

// readPage returns the page, and the blocks of Go in it.
func readPage(t *testing.T) (page string, blocks []string) {
	t.Helper()
	content, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(content), -1) {
		blocks = append(blocks, block[1])
	}
	return string(content), blocks
}

// Every block of Go in the page is in a file that is compiled.
func TestPageHasThisCode(t *testing.T) {
	_, blocks := readPage(t)
	var code strings.Builder
	for _, name := range []string{"page_test.go", "../../gormapp/app.go", "../../gormapp/main.go", "../../bunapp/main.go"} {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(content)
	}
	if len(blocks) < 5 {
		t.Errorf("the page has %d blocks of Go", len(blocks))
	}
	for _, block := range blocks {
		for part := range strings.SplitSeq(strings.TrimSuffix(block, "\n"), "\n\n") {
			if !strings.Contains(code.String(), part) {
				t.Errorf("this code of the page is not in the tests or the examples:\n%s", part)
			}
		}
	}
}

// dsnInPage returns a data source of the page that begins like this, for the file of a test.
func dsnInPage(t *testing.T, beginning, file string) string {
	t.Helper()
	page, _ := readPage(t)
	_, rest, found := strings.Cut(page, beginning)
	rest, _, _ = strings.Cut(rest, "\n")
	if !found {
		t.Fatalf("the page has no %q", beginning)
	}
	return file + rest
}

// openDatabase opens a database with the parameters that the page recommends.
func openDatabase(t *testing.T, database sqlrig.Database) *sql.DB {
	t.Helper()
	var db *sql.DB
	var err error
	switch database.Dialect {
	case sqlstore.PostgreSQL:
		db, err = open(database.DSN)
	case sqlstore.MySQL:
		dsn := strings.Split(dsnInPage(t, "app:PASSWORD@tcp(db.example.com)/app", ""), "&tls=true")[0]
		db, err = sql.Open("mysql", database.DSN+dsn)
	default:
		db, err = sql.Open("sqlite", dsnInPage(t, "file:app.db", "file:"+database.File))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// cheap makes passwords cheap to hash.
func cheap(cfg latchkey.Config) latchkey.Config {
	cfg.Argon2, cfg.InsecureArgon2 = account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, true
	cfg.OnEvent = func(context.Context, event.Event) {}
	return cfg
}

// login logs an account in, and out.
func login[U any](t *testing.T, h http.Handler) {
	t.Helper()
	do := func(method, path, token, body string, want int) string {
		t.Helper()
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+token)
		if token == "" {
			r.Header.Set("Content-Type", "application/json")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Fatalf("%s %s answered %d, want %d", method, path, w.Code, want)
		}
		return w.Body.String()
	}
	var issued struct {
		AccessToken string `json:"access_token"`
	}
	answer := do(http.MethodPost, "/auth/login", "", `{"username":"ann@example.com","password":"correct horse battery staple"}`, http.StatusOK)
	if err := json.Unmarshal([]byte(answer), &issued); err != nil {
		t.Fatal(err)
	}
	if name := do(http.MethodGet, "/me", issued.AccessToken, "", http.StatusOK); name != "Ann" {
		t.Errorf("/me answered %q", name)
	}
	do(http.MethodPost, "/auth/logout", issued.AccessToken, "", http.StatusNoContent)
	do(http.MethodGet, "/me", issued.AccessToken, "", http.StatusUnauthorized)
}

// addAnn adds the column of Member and an account.
func addAnn(t *testing.T, db *sql.DB, dialect sqlstore.Dialect) *latchkey.Latchkey[Member, uuid.UUID] {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), "ALTER TABLE users ADD COLUMN name VARCHAR(100) NOT NULL DEFAULT ''"); err != nil {
		t.Fatal(err)
	}
	lk, err := sqlstore.New[Member](db, dialect, uuid.New, cheap(latchkey.Config{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lk.Close)
	ann := Member{User: account.User[uuid.UUID]{Email: "ann@example.com", Active: true}, Name: "Ann"}
	if _, err := lk.Accounts.Create(t.Context(), ann, "correct horse battery staple"); err != nil {
		t.Fatal(err)
	}
	return lk
}

func app(lk *latchkey.Latchkey[Member, uuid.UUID]) http.Handler {
	gin.SetMode(gin.TestMode)
	r := gin.New()
	lk.Auth.Routes(r.Group("/auth"))
	r.GET("/me", lk.Auth.RequireUser(), func(c *gin.Context) {
		me, _ := lk.Auth.CurrentUser(c)
		c.String(http.StatusOK, me.Name)
	})
	return r
}

func TestQuickStart(t *testing.T) {
	gin.SetMode(gin.TestMode)
	sqlrig.OnAll(t, func(t *testing.T, database sqlrig.Database) {
		if database.Dialect != sqlstore.PostgreSQL {
			t.Skip("the program of the page uses PostgreSQL")
		}
		db := openDatabase(t, database)
		if err := sqlstore.Migrate[uuid.UUID](t.Context(), db, database.Dialect, sqlstore.Tables{}); err != nil {
			t.Fatal(err)
		}
		addAnn(t, db, database.Dialect)
		h, err := serve(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		login[Member](t, h)
	})
}

func TestDataSourcesOfThePage(t *testing.T) {
	sqlrig.OnAll(t, func(t *testing.T, database sqlrig.Database) {
		db := openDatabase(t, database)
		if err := sqlstore.Migrate[uuid.UUID](t.Context(), db, database.Dialect, sqlstore.Tables{}); err != nil {
			t.Fatal(err)
		}
		login[Member](t, app(addAnn(t, db, database.Dialect)))
		if database.Dialect == sqlstore.SQLite {
			for pragma, want := range map[string]string{"busy_timeout": "5000", "journal_mode": "wal", "foreign_keys": "1", "synchronous": "2"} {
				var got string
				if err := db.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
					t.Errorf("%s is %s (error %v), want %s", pragma, got, err, want)
				}
			}
		}
	})
}

// pgx's ways to execute statements: the last ones are for poolers without prepared statements.
func TestModesOfPgx(t *testing.T) {
	sqlrig.OnAll(t, func(t *testing.T, database sqlrig.Database) {
		if database.Dialect != sqlstore.PostgreSQL {
			t.Skip("pgx is for PostgreSQL")
		}
		for i, mode := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"} {
			dsn, err := url.Parse(database.DSN)
			if err != nil {
				t.Fatal(err)
			}
			query := dsn.Query()
			query.Set("default_query_exec_mode", mode)
			dsn.RawQuery = query.Encode()
			database.DSN = dsn.String()
			db := openDatabase(t, database)
			var lk *latchkey.Latchkey[Member, uuid.UUID]
			if i == 0 {
				if err := sqlstore.Migrate[uuid.UUID](t.Context(), db, database.Dialect, sqlstore.Tables{}); err != nil {
					t.Fatal(err)
				}
				lk = addAnn(t, db, database.Dialect)
			} else {
				lk, err = sqlstore.New[Member](db, database.Dialect, uuid.New, cheap(latchkey.Config{}))
				if err != nil {
					t.Fatal(err)
				}
				defer lk.Close()
			}
			if err := lk.EnsureIndexes(t.Context()); err != nil {
				t.Fatalf("%s: %v", mode, err)
			}
			login[Member](t, app(lk))
		}
	})
}

func TestOtherNames(t *testing.T) {
	db := openDatabase(t, sqlrig.Database{Dialect: sqlstore.SQLite, File: filepath.Join(t.TempDir(), "app.db")})
	if _, err := db.ExecContext(t.Context(), `CREATE TABLE people (id INTEGER PRIMARY KEY, mail TEXT NOT NULL UNIQUE, password TEXT, enabled BOOLEAN,
		is_verified BOOLEAN, is_superuser BOOLEAN, joined DATETIME, token_version BIGINT, name TEXT, nick TEXT, roles TEXT, picture BLOB, kept TEXT DEFAULT 'kept')`); err != nil {
		t.Fatal(err)
	}
	lk, err := otherNames(db, sqlstore.SQLite)
	if err != nil {
		t.Fatal(err)
	}
	defer lk.Close()
	if err := lk.EnsureIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
	nick := "annie"
	bob := Person{User: account.User[int64]{Email: "bob@example.com", Active: true}, Name: "Bob", Nickname: &nick, Roles: []string{"editor"}, Avatar: []byte{1, 2}}
	bob, err = lk.Accounts.CreateWithHash(t.Context(), bob, account.NewPasswordHash(""))
	if err != nil {
		t.Fatal(err)
	}
	got, err := lk.Accounts.ByID(t.Context(), bob.ID)
	if err != nil || got.Name != "Bob" || *got.Nickname != "annie" || !slices.Equal(got.Roles, bob.Roles) || !slices.Equal(got.Avatar, bob.Avatar) || !got.loaded.IsZero() {
		t.Errorf("the person has other fields than were stored (error %v)", err)
	}
	var joined, roles, kept string
	if err := db.QueryRowContext(t.Context(), "SELECT CAST(joined AS TEXT), roles, kept FROM people WHERE id = ?", bob.ID).Scan(&joined, &roles, &kept); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(joined, "20") || !strings.Contains(joined, ":") || roles != `["editor"]` || kept != "kept" {
		t.Errorf("the row has joined %q, roles %q and kept %q", joined, roles, kept)
	}
}

func TestMigrationTools(t *testing.T) {
	sqlrig.OnAll(t, func(t *testing.T, source sqlrig.Database) {
		dialect := source.Dialect
		t.Run("goose", func(t *testing.T) {
			db := openDatabase(t, source)
			gooseDialect := map[sqlstore.Dialect]goose.Dialect{
				sqlstore.PostgreSQL: goose.DialectPostgres, sqlstore.MySQL: goose.DialectMySQL, sqlstore.SQLite: goose.DialectSQLite3,
			}[dialect]
			for range 2 { // the second time there is nothing to do
				if err := withGoose(t.Context(), db, gooseDialect, dialect); err != nil {
					t.Fatal(err)
				}
			}
			lk := addAnn(t, db, dialect)
			if err := lk.VerifyIndexes(t.Context()); err != nil {
				t.Fatal(err)
			}
			login[Member](t, app(lk))
			if _, err := db.ExecContext(t.Context(), "DROP TABLE access_tokens"); err != nil {
				t.Fatal(err)
			}
		})
		t.Run("golang-migrate", func(t *testing.T) {
			// Statements are CREATE … IF NOT EXISTS, so the other tool's tables can stay.
			for range 2 {
				if err := withGolangMigrate(target(t, source), dialect); err != nil {
					t.Fatal(err)
				}
			}
			lk, err := sqlstore.New[Member](openDatabase(t, source), dialect, uuid.New, cheap(latchkey.Config{}))
			if err != nil {
				t.Fatal(err)
			}
			defer lk.Close()
			if err := lk.VerifyIndexes(t.Context()); err != nil {
				t.Fatal(err)
			}
			login[Member](t, app(lk))
		})
	})
}

// target returns a database for golang-migrate, which uses one of its own.
func target(t *testing.T, source sqlrig.Database) (target database.Driver) {
	t.Helper()
	var db *sql.DB
	var err error
	switch source.Dialect {
	case sqlstore.PostgreSQL:
		db = openDatabase(t, source)
		target, err = pgxmigrate.WithInstance(db, &pgxmigrate.Config{})
	case sqlstore.MySQL:
		var cfg *mysql.Config
		if cfg, err = mysql.ParseDSN(source.DSN); err != nil {
			t.Fatal(err)
		}
		cfg.MultiStatements = true
		if db, err = sql.Open("mysql", cfg.FormatDSN()); err != nil {
			t.Fatal(err)
		}
		target, err = mysqlmigrate.WithInstance(db, &mysqlmigrate.Config{})
	default:
		db = openDatabase(t, source)
		target, err = sqlitemigrate.WithInstance(db, &sqlitemigrate.Config{})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = target.Close() })
	return target
}

func TestSchemaAsAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "0002_latchkey.up.sql")
	cfg := latchkey.Config{
		Collections: latchkey.Collections{Users: "people", AccessTokens: "sessions"},
		UserFields:  mongostore.Fields{ID: "number"},
	}
	if err := writeMigration(file, cfg); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"sessions"`, `REFERENCES "people" ("number")`, "BIGINT"} {
		if !strings.Contains(string(text), part) {
			t.Errorf("the file has no %s", part)
		}
	}
}
