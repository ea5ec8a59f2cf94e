package sqlstore_test

import (
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/sqlstore"
)

// Each error of a constructor names the field, its value, and what to do.
func TestConstructorsRefuseConfigurations(t *testing.T) {
	type (
		tables  = sqlstore.Tables
		dialect = sqlstore.Dialect
	)
	constructors := map[string]func(*sql.DB, dialect, tables, time.Duration) error{
		"TokensConfig": func(db *sql.DB, d dialect, tables tables, timeout time.Duration) error {
			_, err := sqlstore.NewTokens[int64](db, d, sqlstore.TokensConfig{Tables: tables, Timeout: timeout})
			return err
		},
		"UsersConfig": func(db *sql.DB, d dialect, tables tables, timeout time.Duration) error {
			_, err := sqlstore.NewUsers[account.User[int64]](db, d, sqlstore.UsersConfig{Tables: tables, Timeout: timeout})
			return err
		},
		"AttemptsConfig": func(db *sql.DB, d dialect, tables tables, timeout time.Duration) error {
			_, err := sqlstore.NewAttempts(db, d, sqlstore.AttemptsConfig{Tables: tables, Timeout: timeout})
			return err
		},
		"OneTimeTokensConfig": func(db *sql.DB, d dialect, tables tables, timeout time.Duration) error {
			_, err := sqlstore.NewOneTimeTokens[int64](db, d, sqlstore.OneTimeTokensConfig{Tables: tables, Timeout: timeout})
			return err
		},
		"OAuthAccountsConfig": func(db *sql.DB, d dialect, tables tables, timeout time.Duration) error {
			_, err := sqlstore.NewOAuthAccounts[int64](db, d, sqlstore.OAuthAccountsConfig{Tables: tables, Timeout: timeout})
			return err
		},
		"PurgerConfig": func(db *sql.DB, d dialect, tables tables, timeout time.Duration) error {
			_, err := sqlstore.NewPurger(db, d, sqlstore.PurgerConfig{Tables: tables, Timeout: timeout})
			return err
		},
	}
	db := sqlite(t)
	for config, open := range constructors {
		t.Run(config, func(t *testing.T) {
			if err := open(db, sqlstore.SQLite, tables{}, 0); err != nil {
				t.Fatalf("the zero value: %v", err)
			}
			for name, test := range map[string]struct {
				err  error
				want []string
			}{
				"no database":           {open(nil, sqlstore.SQLite, tables{}, 0), []string{"*sql.DB is nil", "sql.Open"}},
				"no dialect":            {open(db, 0, tables{}, 0), []string{"Dialect(0)", "use PostgreSQL, MySQL or SQLite"}},
				"a dialect of no kind":  {open(db, 4, tables{}, 0), []string{"Dialect(4)", "use PostgreSQL, MySQL or SQLite"}},
				"a negative timeout":    {open(db, sqlstore.SQLite, tables{}, -1), []string{config + ".Timeout is -1ns", "must not be negative", "0 means 3s"}},
				"a name with a quote":   {open(db, sqlstore.SQLite, tables{Users: `a"b`}, 0), []string{`Tables.Users is "a\"b"`, "letters, digits and underscores"}},
				"a name that is long":   {open(db, sqlstore.SQLite, tables{OAuthAccounts: strings.Repeat("a", 41)}, 0), []string{"Tables.OAuthAccounts is", "at most 40"}},
				"two tables of a name":  {open(db, sqlstore.SQLite, tables{Users: "a", AccessTokens: "A"}, 0), []string{"Tables.AccessTokens and Tables.Users are both", "name of its own"}},
				"an odd name of column": {open(db, sqlstore.SQLite, tables{UserColumns: sqlstore.Columns{Email: "e-mail"}}, 0), []string{"UserColumns.Email", `"e-mail"`, "letters, digits and underscores"}},
			} {
				if test.err == nil {
					t.Errorf("%s: got no error", name)
					continue
				}
				for _, want := range append(test.want, "sqlstore: ") {
					if !strings.Contains(test.err.Error(), want) {
						t.Errorf("%s: got the error %q, want it with %q", name, test.err, want)
					}
				}
			}
		})
	}
	for want, cfg := range map[string]sqlstore.TokensConfig{
		"TokensConfig.Lifetime is -1ns: it must not be negative; 0 means that tokens do not expire": {Lifetime: -1},
		"TokensConfig.Grace is -1ns: it must not be negative; 0 means 5 minutes":                    {Grace: -1},
	} {
		if _, err := sqlstore.NewTokens[int64](db, sqlstore.SQLite, cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got the error %v, want %q", err, want)
		}
	}
	_, err := sqlstore.NewUsers[account.User[int64]](db, sqlstore.SQLite, sqlstore.UsersConfig{Tables: elsewhere})
	if err == nil || !strings.Contains(err.Error(), "UsersElsewhere is true: set it to false") {
		t.Errorf("got the error %v, want one that names UsersElsewhere", err)
	}
	_, err = sqlstore.NewPurger(db, sqlstore.SQLite, sqlstore.PurgerConfig{Interval: -1})
	if err == nil || !strings.Contains(err.Error(), "PurgerConfig.Interval is -1ns: it must not be negative") {
		t.Errorf("got the error %v, want one that names Interval", err)
	}
}
