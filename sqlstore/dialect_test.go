package sqlstore_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/latchkey-go/latchkey/sqlstore"
)

// These errors have the shape of the drivers' errors.
type (
	pgError    struct{ code string }              // pgx and lib/pq
	MySQLError struct{ Number uint16 }            // go-sql-driver/mysql
	modernc    struct{ code int }                 // modernc.org/sqlite
	ErrNo      int                                // mattn/go-sqlite3
	Error      struct{ Code, ExtendedCode ErrNo } // mattn/go-sqlite3
)

func (e *pgError) Error() string    { return "ERROR: " + e.code }
func (e *pgError) SQLState() string { return e.code }
func (e *MySQLError) Error() string { return fmt.Sprint("Error ", e.Number) }
func (e *modernc) Error() string    { return "sqlite error" }
func (e *modernc) Code() int        { return e.code }
func (e Error) Error() string       { return "sqlite3 error" }

func TestErrorsAreRecognisedByCode(t *testing.T) {
	for _, c := range []struct {
		name                string
		dialect             sqlstore.Dialect
		err                 error
		duplicate, conflict bool
	}{
		{"no error", sqlstore.PostgreSQL, nil, false, false},
		{"another error", sqlstore.MySQL, errors.New("Error 1062: Duplicate entry"), false, false},
		{"PostgreSQL unique violation", sqlstore.PostgreSQL, &pgError{"23505"}, true, false},
		{"PostgreSQL foreign key violation", sqlstore.PostgreSQL, &pgError{"23503"}, false, false},
		{"PostgreSQL serialization failure", sqlstore.PostgreSQL, &pgError{"40001"}, false, true},
		{"PostgreSQL deadlock", sqlstore.PostgreSQL, &pgError{"40P01"}, false, true},
		{"MySQL duplicate", sqlstore.MySQL, &MySQLError{1062}, true, false},
		{"MySQL deadlock", sqlstore.MySQL, &MySQLError{1213}, false, true},
		{"MySQL lock wait timeout", sqlstore.MySQL, &MySQLError{1205}, false, false},
		{"SQLite unique, by a method", sqlstore.SQLite, &modernc{2067}, true, false},
		{"SQLite primary key, by a field", sqlstore.SQLite, Error{19, 1555}, true, false},
		{"SQLite busy, by a method", sqlstore.SQLite, &modernc{5}, false, true},
		{"SQLite busy snapshot, by a field", sqlstore.SQLite, Error{5, 517}, false, true},
		{"SQLite not null", sqlstore.SQLite, &modernc{1299}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			errs := []error{c.err}
			if c.err != nil {
				errs = append(errs, fmt.Errorf("wrapped: %w", c.err), errors.Join(errors.New("another"), c.err))
			}
			for _, err := range errs {
				if got := sqlstore.IsDuplicate(c.dialect, err); got != c.duplicate {
					t.Errorf("a duplicate: %v, want %v, for %v", got, c.duplicate, err)
				}
				if got := sqlstore.IsConflict(c.dialect, err); got != c.conflict {
					t.Errorf("a conflict: %v, want %v, for %v", got, c.conflict, err)
				}
			}
		})
	}
}

func TestPlaceholders(t *testing.T) {
	const query = "a = ? AND b IN (?, ?)"
	if got := sqlstore.Bind(sqlstore.PostgreSQL, query); got != "a = $1 AND b IN ($2, $3)" {
		t.Errorf("PostgreSQL: %s", got)
	}
	if got := sqlstore.Bind(sqlstore.MySQL, query); got != query {
		t.Errorf("MySQL: %s", got)
	}
}
