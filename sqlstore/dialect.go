package sqlstore

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Dialect is the kind of a SQL database.
type Dialect int

// The dialects.
const (
	// PostgreSQL is PostgreSQL 13 or later, by any driver whose errors have the method
	// SQLState, like pgx and lib/pq. It cannot store text with a NUL: a field of the application
	// that has one is an error.
	PostgreSQL Dialect = iota + 1
	// MySQL is MySQL 8 or MariaDB 10.5 or later, by the driver go-sql-driver/mysql. User IDs
	// that are strings must not differ in trailing spaces alone.
	MySQL
	// SQLite is SQLite 3.35 or later, by the driver modernc.org/sqlite or mattn/go-sqlite3.
	// The database must be a file. Its data source should set the pragmas busy_timeout, and
	// foreign_keys to 1; synchronous must stay FULL, the default, or a loss of power can bring
	// a revoked token back.
	SQLite
)

// String returns the dialect's name in lower case, which is also the name of its directory
// of schema files.
func (d Dialect) String() string {
	switch d {
	case PostgreSQL:
		return "postgresql"
	case MySQL:
		return "mysql"
	case SQLite:
		return "sqlite"
	}
	return "Dialect(" + strconv.Itoa(int(d)) + ")"
}

// check returns an error unless d is one of the dialects.
func (d Dialect) check() error {
	if d < PostgreSQL || d > SQLite {
		return fmt.Errorf("sqlstore: the dialect is %v: use PostgreSQL, MySQL or SQLite", d)
	}
	return nil
}

// returning reports whether UPDATE and DELETE can return the rows that they changed. On the
// others, a transaction reads and locks a row before it changes it.
func (d Dialect) returning() bool { return d != MySQL }

// quote quotes a name. Names are checked by checkName, so they contain no quotes. SQLite takes a
// name in double quotes for a string if there is no such column, and a string would then be
// read instead of an error.
func (d Dialect) quote(name string) string {
	if d == PostgreSQL {
		return `"` + name + `"`
	}
	return "`" + name + "`"
}

// bind replaces each ? of a query by the dialect's placeholder. Queries contain no other
// question mark.
func (d Dialect) bind(query string) string {
	if d != PostgreSQL {
		return query
	}
	var b strings.Builder
	for n := 1; ; n++ {
		before, after, found := strings.Cut(query, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString("$" + strconv.Itoa(n))
		query = after
	}
}

// now is an expression for the server's time, in milliseconds since 1970. On MySQL, it must not pass
// through the local time, which is ambiguous for an hour when summer time ends.
func (d Dialect) now() string {
	switch d {
	case PostgreSQL:
		return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"
	case MySQL:
		return "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000)"
	default:
		return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
	}
}

// isDuplicate reports whether err is the database's answer that a value which must be unique
// is taken.
func (d Dialect) isDuplicate(err error) bool {
	switch d {
	case PostgreSQL:
		return sqlState(err) == "23505" // unique_violation
	case MySQL:
		n := mysqlNumber(err)
		return n == 1062 || n == 1586 // ER_DUP_ENTRY, ER_DUP_ENTRY_WITH_KEY_NAME
	default:
		n := sqliteCode(err)
		return n == 2067 || n == 1555 // SQLITE_CONSTRAINT_UNIQUE, SQLITE_CONSTRAINT_PRIMARYKEY
	}
}

// isForeignKey reports whether err is the database's answer that the row to which a new row
// refers does not exist.
func (d Dialect) isForeignKey(err error) bool {
	switch d {
	case PostgreSQL:
		return sqlState(err) == "23503" // foreign_key_violation
	case MySQL:
		n := mysqlNumber(err)
		return n == 1452 || n == 1216 // ER_NO_REFERENCED_ROW_2, ER_NO_REFERENCED_ROW
	default:
		return sqliteCode(err) == 787 // SQLITE_CONSTRAINT_FOREIGNKEY
	}
}

// withoutValue returns an error like that of a duplicate, without the value, which MySQL's message
// shows: it can be a person's.
func (d Dialect) withoutValue(duplicate error) error {
	if d != MySQL {
		return duplicate
	}
	key := ""
	if i := strings.LastIndex(duplicate.Error(), " for key "); i >= 0 {
		key = duplicate.Error()[i:]
	}
	return errors.New("duplicate entry" + key)
}

// isConflict reports whether the database refused a write because of concurrent ones, and
// changed nothing, so that the write can be repeated.
func (d Dialect) isConflict(err error) bool {
	switch d {
	case PostgreSQL:
		s := sqlState(err)
		return s == "40001" || s == "40P01" // serialization_failure, deadlock_detected
	case MySQL:
		n := mysqlNumber(err)
		// ER_LOCK_DEADLOCK, and ER_CHECKREAD, MariaDB's "record has changed since last read"
		return n == 1213 || n == 1020
	default:
		n := sqliteCode(err) & 0xff
		return n == 5 || n == 6 // SQLITE_BUSY, SQLITE_LOCKED
	}
}

// isImpossible reports whether err is the database's answer that no text of it can have a value:
// on PostgreSQL, one with a NUL, or one that is not UTF-8.
func (d Dialect) isImpossible(err error) bool {
	return d == PostgreSQL && sqlState(err) == "22021" // character_not_in_repertoire
}

// sqlState returns the SQLSTATE of an error of pgx or lib/pq, or "".
func sqlState(err error) string {
	var e interface{ SQLState() string }
	if errors.As(err, &e) {
		return e.SQLState()
	}
	return ""
}

// mysqlNumber returns the number of a MySQL server's error, or 0. The driver's type
// MySQLError has it in a field, Number.
func mysqlNumber(err error) int {
	n, _ := field(err, "MySQLError", "Number")
	return n
}

// sqliteCode returns the extended result code of a SQLite error, or 0. modernc.org/sqlite has
// a method for it, mattn/go-sqlite3 fields.
func sqliteCode(err error) int {
	var e interface{ Code() int }
	if errors.As(err, &e) {
		return e.Code()
	}
	if n, ok := field(err, "Error", "ExtendedCode"); ok && n != 0 {
		return n
	}
	n, _ := field(err, "Error", "Code")
	return n
}

// field returns an integer field of the first error in err's tree that is a struct, or a
// pointer to one, of a type with this name which has the field.
func field(err error, typeName, name string) (int, bool) {
	if err == nil {
		return 0, false
	}
	v := reflect.ValueOf(err)
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() == reflect.Struct && v.Type().Name() == typeName {
		switch f := v.FieldByName(name); {
		case !f.IsValid():
		case f.CanInt():
			return int(f.Int()), true
		case f.CanUint():
			return int(f.Uint()), true
		}
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return field(e.Unwrap(), typeName, name)
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			if n, ok := field(err, typeName, name); ok {
				return n, true
			}
		}
	}
	return 0, false
}
