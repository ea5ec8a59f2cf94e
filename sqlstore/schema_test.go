package sqlstore_test

import (
	"errors"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/sqlstore"
)

var dialects = []sqlstore.Dialect{sqlstore.PostgreSQL, sqlstore.MySQL, sqlstore.SQLite}

var (
	schemaTable  = regexp.MustCompile("(?s)CREATE TABLE IF NOT EXISTS [\"`](\\w+)[\"`] \\(\n(.*?)\n\\)")
	schemaColumn = regexp.MustCompile("(?m)^    [\"`](\\w+)[\"`] ")
)

// columnsOf returns the names of the tables in a schema, each with its columns.
func columnsOf(text string) (all []string) {
	for _, table := range schemaTable.FindAllStringSubmatch(text, -1) {
		all = append(all, table[1])
		for _, column := range schemaColumn.FindAllStringSubmatch(table[2], -1) {
			all = append(all, table[1]+"."+column[1])
		}
	}
	return all
}

func TestSchemasOfTheDialectsHaveTheSameColumns(t *testing.T) {
	var first []string
	for _, dialect := range dialects {
		files, err := sqlstore.Schema(dialect)
		if err != nil {
			t.Fatal(err)
		}
		text, err := fs.ReadFile(files, "0001_latchkey.up.sql")
		if err != nil {
			t.Fatal(err)
		}
		rendered, err := sqlstore.SchemaSQL[uuid.UUID](dialect, sqlstore.Tables{})
		if err != nil {
			t.Fatal(err)
		}
		columns := columnsOf(string(text))
		if first == nil {
			first = columns
		}
		if len(columns) < 30 || !slices.Equal(columns, first) {
			t.Errorf("%v: the columns of the file are\n%v, want\n%v", dialect, columns, first)
		}
		if got := columnsOf(rendered); !slices.Equal(got, first) {
			t.Errorf("%v: the columns that Migrate makes are\n%v, want\n%v", dialect, got, first)
		}
	}
}

func TestSchemaHasTheConfiguredNamesAndUserID(t *testing.T) {
	for _, dialect := range dialects {
		text, err := sqlstore.SchemaSQL[int64](dialect, sqlstore.Tables{AccessTokens: "sessions", Users: "members"})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"access_tokens", "users", "user ID"} {
			if strings.Contains(text, name) {
				t.Errorf("%v: the schema still has %q:\n%s", dialect, name, text)
			}
		}
		if n := strings.Count(text, "REFERENCES"); n != 4 {
			t.Errorf("%v: %d foreign keys, want 4", dialect, n)
		}
		text, err = sqlstore.SchemaSQL[int64](dialect, elsewhere)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(text, "REFERENCES") || strings.Contains(text, "hashed_password") {
			t.Errorf("%v: with the users elsewhere, the schema still refers to them:\n%s", dialect, text)
		}
	}
}

func TestInvalidNamesOfTablesAreRefused(t *testing.T) {
	for _, tables := range []sqlstore.Tables{
		{AccessTokens: `tokens"; DROP TABLE users`}, {Users: "1st"}, {Revocations: "schema.revocations"},
		{LoginAttempts: strings.Repeat("a", 41)}, {Users: "same", OneTimeTokens: "SAME"},
	} {
		_, err := sqlstore.SchemaSQL[string](sqlstore.SQLite, tables)
		if err == nil || !strings.Contains(err.Error(), "Tables.") {
			t.Errorf("%+v: got the error %v, want one that names the field", tables, err)
		}
	}
}

func TestVerifySchemaNamesTheTableThatLacksAColumn(t *testing.T) {
	db := migrated[string](t, sqlstore.Tables{})
	if _, err := db.ExecContext(t.Context(), "ALTER TABLE access_tokens DROP COLUMN client_ip"); err != nil {
		t.Fatal(err)
	}
	err := sqlstore.VerifySchema[string](t.Context(), db, sqlstore.SQLite, sqlstore.Tables{})
	if !errors.Is(err, sqlstore.ErrSchemaMismatch) || !strings.Contains(err.Error(), "access_tokens") || !strings.Contains(err.Error(), "client_ip") {
		t.Errorf("got the error %v, want ErrSchemaMismatch with the table and the column", err)
	}
}
