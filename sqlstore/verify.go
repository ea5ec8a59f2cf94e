package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// ErrSchemaMismatch means that a table, a column, an index or a key is missing or differs, for
// [errors.Is]. The message names it, and what to do.
var ErrSchemaMismatch = errors.New("schema mismatch")

// VerifySchema changes nothing, and returns an error wrapping [ErrSchemaMismatch] that names every
// problem of the tables with its remedy, mostly a statement to execute: for an application whose
// database user may not make tables, and for tables that another program made. It compares
//
//   - the tables, the columns and the kinds of their types. Wider types are fine, and so are more
//     columns; see [Users] for the table of users;
//   - the unique keys, and the columns of the indexes, whatever the names of the indexes;
//   - the foreign keys, which delete the tokens of a user with the account. SQLite must enforce
//     them;
//   - on MySQL, the sql_mode, which must be strict: otherwise MySQL cuts values that are too long.
func VerifySchema[ID UserID](ctx context.Context, db *sql.DB, dialect Dialect, tables Tables) error {
	tables, err := tables.withDefaults()
	if err == nil {
		err = dialect.check()
	}
	if err != nil {
		return err
	}
	ctx, cancel := bounded(ctx, defaultTimeout)
	defer cancel()
	idType, err := existingIDType(ctx, db, dialect, tables)
	if err != nil {
		return wrap("verify the schema", err)
	}
	own := userIDType[ID](dialect)
	if dialect == SQLite && reflect.TypeFor[ID]() == reflect.TypeFor[uuid.UUID]() {
		own = "CHAR(36)" // its name for a text that is long enough for UUIDs with hyphens
	}
	if idType == "" || !dialect.accepts(own, idType, true) {
		idType = own
	}
	text, err := schemaSQL(dialect, tables, idType)
	if err != nil {
		return err
	}
	v := &verifier{store: store{db: db, dialect: dialect, tables: tables}, found: make(map[string]*table)}
	wanted := parseSchema(text)
	if err := v.read(ctx, wanted); err != nil {
		return wrap("verify the schema", err)
	}
	for _, t := range wanted {
		v.compare(t)
	}
	if dialect == MySQL {
		rows, err := v.query(ctx, db, "SELECT 1 FROM (SELECT 1) one WHERE @@sql_mode LIKE '%STRICT_%'")
		if err != nil {
			return wrap("verify the schema", err)
		}
		if len(rows) == 0 {
			v.problem("MySQL cuts values that are too long, because the sql_mode is not strict: add sql_mode=%%27STRICT_TRANS_TABLES%%27 to the data source of go-sql-driver/mysql, or set it on the server")
		}
	}
	return errors.Join(v.problems...)
}

// table is a table, either as Migrate makes it or as it is.
type table struct {
	name    string
	columns []column
	indexes []index
	keys    []foreignKey
}

type column struct {
	name, typ string
	fallback  string // what follows DEFAULT, or ""
}

// index is an index, or a unique or primary key.
type index struct {
	name    string
	columns []string
	unique  bool
}

// foreignKey is a foreign key to the table of users.
type foreignKey struct {
	column, to string // to is "" for the primary key
	cascade    bool
}

var (
	sqlComment = regexp.MustCompile(`--[^\n]*\n| */\*.*?\*/`)
	endOfType  = regexp.MustCompile(` (NOT NULL|PRIMARY KEY|UNIQUE|DEFAULT|REFERENCES)( |$)`)
	ofDefault  = regexp.MustCompile(` DEFAULT (\S+)`)
)

// parseSchema returns the tables of the text that schemaSQL returns.
func parseSchema(text string) (tables []*table) {
	for _, statement := range statements(sqlComment.ReplaceAllString(text, "")) {
		statement = strings.TrimSpace(statement)
		names := unquoted(statement)
		if strings.HasPrefix(statement, "CREATE TABLE ") {
			t := &table{name: names[0]}
			for line := range strings.Lines(statement) {
				t.parseLine(strings.TrimSuffix(strings.TrimSpace(line), ","))
			}
			tables = append(tables, t)
			continue
		}
		// CREATE INDEX name ON table (columns)
		for _, t := range tables {
			if len(names) > 2 && t.name == names[1] {
				t.indexes = append(t.indexes, index{names[0], names[2:], strings.HasPrefix(statement, "CREATE UNIQUE ")})
			}
		}
	}
	return tables
}

// parseLine parses a line of a CREATE TABLE.
func (t *table) parseLine(line string) {
	names := unquoted(line)
	switch {
	case len(names) == 0 || strings.HasPrefix(line, "CREATE TABLE "):
	case strings.HasPrefix(line, "INDEX "):
		t.indexes = append(t.indexes, index{names[0], names[1:], false})
	case strings.HasPrefix(line, "FOREIGN KEY "):
		t.keys = append(t.keys, foreignKey{names[0], names[2], true})
	case strings.HasPrefix(line, "PRIMARY KEY ") || strings.HasPrefix(line, "UNIQUE ("):
		t.indexes = append(t.indexes, index{strings.Join(names, "_") + "_key", names, true})
	case strings.HasPrefix(line, "UNIQUE "):
		t.indexes = append(t.indexes, index{names[0], names[1:], true})
	default:
		c := column{name: names[0]}
		_, c.typ, _ = strings.Cut(line, " ")
		rest := ""
		if at := endOfType.FindStringIndex(c.typ); at != nil {
			c.typ, rest = c.typ[:at[0]], c.typ[at[0]:]
		}
		if m := ofDefault.FindStringSubmatch(rest); m != nil {
			c.fallback = m[1]
		}
		t.columns = append(t.columns, c)
		if strings.Contains(rest, "PRIMARY KEY") || strings.Contains(rest, "UNIQUE") {
			t.indexes = append(t.indexes, index{t.name + "_" + c.name + "_key", names[:1], true})
		}
		if strings.Contains(rest, "REFERENCES") {
			t.keys = append(t.keys, foreignKey{names[0], names[2], true})
		}
	}
}

var anyQuotedName = regexp.MustCompile("[\"`](\\w+)[\"`]")

// unquoted returns the quoted names in a text.
func unquoted(text string) (names []string) {
	for _, m := range anyQuotedName.FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	return names
}

// verifier compares the tables of a database with those that Migrate makes.
type verifier struct {
	store
	found    map[string]*table // by name; without the missing ones
	unforced bool              // the database does not enforce foreign keys
	problems []error
}

// verifyQueries read the tables t. The columns are those that read uses. In the queries for keys, the
// parameter is the table of users.
var verifyQueries = map[Dialect]struct{ columns, indexes, keys string }{
	PostgreSQL: {
		`SELECT t.name, CAST(a.attname AS TEXT), format_type(CASE WHEN y.typtype = 'd' THEN y.typbasetype ELSE a.atttypid END, a.atttypmod)
			FROM t JOIN pg_attribute a ON a.attrelid = to_regclass(quote_ident(t.name)) JOIN pg_type y ON y.oid = a.atttypid
			WHERE a.attnum > 0 AND NOT a.attisdropped`,
		`SELECT t.name, CAST(CAST(i.indexrelid AS BIGINT) AS TEXT), i.indisunique, CAST(a.attname AS TEXT)
			FROM t JOIN pg_index i ON i.indrelid = to_regclass(quote_ident(t.name))
			CROSS JOIN LATERAL unnest(CAST(i.indkey AS INT2[])) WITH ORDINALITY AS k(attnum, n)
			LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
			WHERE i.indpred IS NULL AND i.indisvalid AND k.n <= i.indnkeyatts ORDER BY t.name, i.indexrelid, k.n`,
		`SELECT t.name, CAST(a.attname AS TEXT), CAST(f.attname AS TEXT), c.confdeltype = 'c'
			FROM t JOIN pg_constraint c ON c.contype = 'f' AND c.conrelid = to_regclass(quote_ident(t.name)) AND c.confrelid = to_regclass(quote_ident(?))
			JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1] JOIN pg_attribute f ON f.attrelid = c.confrelid AND f.attnum = c.confkey[1]
			WHERE cardinality(c.conkey) = 1`,
	},
	MySQL: {
		`SELECT t.name, c.COLUMN_NAME, c.COLUMN_TYPE
			FROM t JOIN information_schema.COLUMNS c ON c.TABLE_SCHEMA = DATABASE() AND ` + sameName("c.TABLE_NAME", "t.name"),
		`SELECT t.name, s.INDEX_NAME, s.NON_UNIQUE = 0, s.COLUMN_NAME
			FROM t JOIN information_schema.STATISTICS s ON s.TABLE_SCHEMA = DATABASE() AND ` + sameName("s.TABLE_NAME", "t.name") + `
			ORDER BY t.name, s.INDEX_NAME, s.SEQ_IN_INDEX`,
		`SELECT t.name, k.COLUMN_NAME, k.REFERENCED_COLUMN_NAME, r.DELETE_RULE = 'CASCADE'
			FROM t JOIN information_schema.KEY_COLUMN_USAGE k ON k.TABLE_SCHEMA = DATABASE() AND ` + sameName("k.TABLE_NAME", "t.name") + `
			JOIN information_schema.REFERENTIAL_CONSTRAINTS r
			ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME AND r.TABLE_NAME = k.TABLE_NAME
			JOIN (SELECT ? AS name) u ON ` + sameName("k.REFERENCED_TABLE_NAME", "u.name"),
	},
	SQLite: {
		"SELECT t.name, c.name, c.type FROM t, pragma_table_info(t.name) c",
		"SELECT t.name AS a, l.name AS b, l.`unique`, i.name, i.seqno AS n FROM t, pragma_index_list(t.name) l, pragma_index_info(l.name) i WHERE l.partial = 0 " +
			"UNION ALL SELECT t.name, 'PRIMARY KEY', 1, c.name, c.pk FROM t, pragma_table_info(t.name) c WHERE c.pk > 0 ORDER BY 1, 2, 5",
		"SELECT t.name, k.`from`, k.`to`, k.on_delete = 'CASCADE' FROM t, pragma_foreign_key_list(t.name) k WHERE LOWER(k.`table`) = LOWER(?)",
	},
}

// sameName compares names of tables as the MySQL server does.
func sameName(a, b string) string {
	normal := func(name string) string {
		return "BINARY IF(@@lower_case_table_names = 0, " + name + ", LOWER(" + name + "))"
	}
	return normal(a) + " = " + normal(b)
}

// read reads the wanted tables as they are.
func (v *verifier) read(ctx context.Context, wanted []*table) error {
	var names []string
	var args []any
	for _, t := range wanted {
		name := "CAST(? AS TEXT)"
		if v.dialect == MySQL {
			name = "?"
		}
		names, args = append(names, "SELECT "+name), append(args, t.name)
	}
	with := "WITH t(name) AS (" + strings.Join(names, " UNION ALL ") + ") "
	queries := verifyQueries[v.dialect]
	rows, err := v.query(ctx, v.db, with+queries.columns, args...)
	if err != nil {
		return err
	}
	for _, values := range rows {
		r := &row{columns: "table, column, type", values: values}
		name := r.string()
		if v.found[name] == nil {
			v.found[name] = &table{name: name}
		}
		t := v.found[name]
		t.columns = append(t.columns, column{name: r.string(), typ: r.string()})
		if r.err != nil {
			return r.err
		}
	}
	if rows, err = v.query(ctx, v.db, with+queries.indexes, args...); err != nil {
		return err
	}
	for _, values := range rows {
		if values[3] == nil {
			values[3] = "" // an expression
		}
		r := &row{columns: "table, index, unique, column, position", values: values}
		t := v.found[r.string()]
		i := index{name: r.string(), unique: r.bool(), columns: []string{r.string()}}
		if r.err != nil {
			return r.err
		}
		if t == nil { // made since the columns were read
			continue
		}
		if n := len(t.indexes); n > 0 && t.indexes[n-1].name == i.name {
			t.indexes[n-1].columns = append(t.indexes[n-1].columns, i.columns...)
		} else {
			t.indexes = append(t.indexes, i)
		}
	}
	if v.tables.UsersElsewhere {
		return nil
	}
	if rows, err = v.query(ctx, v.db, with+queries.keys, append(args, v.tables.Users)...); err != nil {
		return err
	}
	for _, values := range rows {
		if values[2] == nil {
			values[2] = ""
		}
		r := &row{columns: "table, column, to, cascade", values: values}
		t := v.found[r.string()]
		key := foreignKey{r.string(), r.string(), r.bool()}
		if r.err != nil {
			return r.err
		}
		if t != nil { // otherwise it was made since the columns were read
			t.keys = append(t.keys, key)
		}
	}
	if v.dialect == SQLite {
		rows, err := v.query(ctx, v.db, "SELECT foreign_keys FROM pragma_foreign_keys WHERE foreign_keys = 1")
		v.unforced = len(rows) == 0
		return err
	}
	return nil
}

func (v *verifier) problem(format string, args ...any) {
	v.problems = append(v.problems, fmt.Errorf("sqlstore: %w: "+format, append([]any{ErrSchemaMismatch}, args...)...))
}

// same compares names of columns. In the table of users, PostgreSQL distinguishes capital letters.
func (v *verifier) same(a, b string) bool {
	return a == b || v.dialect != PostgreSQL && strings.EqualFold(a, b)
}

// compare notes the problems of a table.
func (v *verifier) compare(want *table) {
	is := v.found[want.name]
	if is == nil {
		v.problem("the table %q is missing: call EnsureIndexes of the Latchkey or sqlstore.Migrate, or execute its statement of SchemaSQL", want.name)
		return
	}
	ofUsers := !v.tables.UsersElsewhere && want.name == v.tables.Users
	name := v.dialect.quote(want.name)
	missing := make(map[string]bool)
	for _, c := range want.columns {
		i := slices.IndexFunc(is.columns, func(other column) bool { return v.same(c.name, other.name) })
		if i < 0 {
			missing[c.name] = true
			fallback := ""
			if c.fallback != "" {
				fallback = " NOT NULL DEFAULT " + c.fallback
			}
			v.problem("the table %q has no column %q: execute ALTER TABLE %s ADD COLUMN %s %s%s", want.name, c.name, name, v.dialect.quote(c.name), c.typ, fallback)
			continue
		}
		typ := is.columns[i].typ
		if ofUsers && !v.wideEnough(want.name, c, typ) {
			continue
		}
		if v.dialect.accepts(c.typ, typ, ofUsers) || ofUsers && c.name == v.tables.UserColumns.CreatedAt && v.acceptsDates(typ) {
			continue
		}
		v.problem("the column %q of the table %q has the type %s: %s", c.name, want.name, typ, v.changeType(want.name, c))
	}
	for _, i := range want.indexes {
		if slices.ContainsFunc(i.columns, func(c string) bool { return missing[c] }) || slices.ContainsFunc(is.indexes, func(other index) bool { return v.serves(other, i) }) {
			continue
		}
		unique, kind := "", "index"
		if i.unique {
			unique, kind = "UNIQUE ", "unique key"
		}
		columns := strings.Join(i.columns, ", ")
		v.problem("the table %q has no %s on %s: execute CREATE %sINDEX %s ON %s (%s)",
			want.name, kind, columns, unique, v.dialect.quote(i.name), name, v.dialect.columns(columns))
	}
	for _, key := range want.keys {
		if !missing[key.column] {
			v.compareKey(want.name, is, key)
		}
	}
}

// hashLength is the length of a password hash of argon2id with the default parameters.
const hashLength = 97

// wideEnough notes if a column of the table of users is too narrow for what every account has. The
// widths of the other tables are those of Migrate.
func (v *verifier) wideEnough(table string, c column, typ string) bool {
	n := length(typ)
	switch {
	case c.name == v.tables.UserColumns.CreatedAt && v.dialect.kindOf(typ) == kindSmall,
		c.name == v.tables.UserColumns.HashedPassword && v.dialect != SQLite && v.dialect.kindOf(typ) == kindText && n > 0 && n < hashLength:
		v.problem("the column %q of the table %q has the type %s, which is too small: %s", c.name, table, typ, v.changeType(table, c))
		return false
	}
	return true
}

// acceptsDates reports whether the creation times of users may have a type.
func (v *verifier) acceptsDates(typ string) bool {
	kind := v.dialect.kindOf(typ)
	return kind == kindTime || v.dialect == SQLite && (kind == kindText || kind == kindNumber)
}

// changeType returns how to change the type of a column.
func (v *verifier) changeType(table string, c column) string {
	name, column := v.dialect.quote(table), v.dialect.quote(c.name)
	switch v.dialect {
	case PostgreSQL:
		return "execute ALTER TABLE " + name + " ALTER COLUMN " + column + " TYPE " + c.typ + ", with USING if its values need a conversion"
	case MySQL:
		return "execute ALTER TABLE " + name + " MODIFY COLUMN " + column + " " + c.typ
	}
	return "make the table again with the type " + c.typ + ", as SQLite cannot change it"
}

// serves reports whether an index has the properties that are wanted.
func (v *verifier) serves(is, want index) bool {
	if len(is.columns) < len(want.columns) || want.unique && (!is.unique || len(is.columns) > len(want.columns)) {
		return false
	}
	for i, c := range want.columns {
		if !v.same(c, is.columns[i]) {
			return false
		}
	}
	return true
}

// compareKey notes if a table lacks a foreign key to the users.
func (v *verifier) compareKey(table string, is *table, want foreignKey) {
	id := v.tables.UserColumns.ID
	found := false
	for _, key := range is.keys {
		if v.same(key.column, want.column) && (key.to == "" || v.same(key.to, id)) {
			found = true
			if key.cascade {
				if v.unforced {
					v.unforced = false // one problem for all tables
					v.problem("SQLite does not enforce foreign keys: add _pragma=foreign_keys(1) to the data source of modernc.org/sqlite, or _foreign_keys=1 to that of mattn/go-sqlite3")
				}
				return
			}
		}
	}
	what, remedy := "has no foreign key", ""
	if found {
		what, remedy = "has a foreign key without ON DELETE CASCADE", "drop it, and "
	}
	if v.dialect == SQLite {
		remedy = "make the table again as SchemaSQL does, as SQLite cannot add a foreign key"
	} else {
		remedy += fmt.Sprintf("execute ALTER TABLE %s ADD FOREIGN KEY (%s) REFERENCES %s (%s) ON DELETE CASCADE",
			v.dialect.quote(table), v.dialect.quote(want.column), v.dialect.quote(v.tables.Users), v.dialect.quote(id))
	}
	v.problem("the column %q of the table %q %s: %s", want.column, table, what, remedy)
}
