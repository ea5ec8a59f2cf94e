package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// UserID are the types that a user's ID can have.
type UserID interface{ uuid.UUID | int64 | string }

// Tables are the names of the tables. The zero value is usable: an empty name means the
// default. Names consist of letters, digits and underscores.
type Tables struct {
	// AccessTokens has the access tokens. Default "access_tokens".
	AccessTokens string
	// APITokens has the tokens of scripts. Default "api_tokens".
	APITokens string
	// Revocations has the revocations that processes publish to each other. Default
	// "revocations".
	Revocations string
	// Leases has the lease of the [Purger] that purges. Default "leases".
	Leases string
	// Users has the accounts. It can be the application's own table, with columns of its own.
	// Default "users".
	Users string
	// UserColumns are the names of an account's columns in the table Users.
	UserColumns Columns
	// LoginAttempts has the counters of the login limiter. Default "login_attempts".
	LoginAttempts string
	// OneTimeTokens has the tokens that are mailed to users. Default "one_time_tokens".
	OneTimeTokens string
	// OAuthAccounts has the links of accounts to users of identity providers. Default
	// "oauth_accounts".
	OAuthAccounts string
	// UsersElsewhere means that the accounts are in another database: there is no table of
	// users, and no foreign key to it.
	UsersElsewhere bool
}

// withDefaults returns t with the default names filled in, or an error if a name is invalid.
func (t Tables) withDefaults() (Tables, error) {
	t.AccessTokens = cmp.Or(t.AccessTokens, "access_tokens")
	t.APITokens = cmp.Or(t.APITokens, "api_tokens")
	t.Revocations = cmp.Or(t.Revocations, "revocations")
	t.Leases = cmp.Or(t.Leases, "leases")
	t.Users = cmp.Or(t.Users, "users")
	t.LoginAttempts = cmp.Or(t.LoginAttempts, "login_attempts")
	t.OneTimeTokens = cmp.Or(t.OneTimeTokens, "one_time_tokens")
	t.OAuthAccounts = cmp.Or(t.OAuthAccounts, "oauth_accounts")
	seen := make(map[string]string)
	for _, f := range []struct{ field, name string }{
		{"AccessTokens", t.AccessTokens}, {"APITokens", t.APITokens}, {"Revocations", t.Revocations}, {"Leases", t.Leases}, {"Users", t.Users},
		{"LoginAttempts", t.LoginAttempts}, {"OneTimeTokens", t.OneTimeTokens}, {"OAuthAccounts", t.OAuthAccounts},
	} {
		if err := checkName("Tables."+f.field, f.name); err != nil {
			return t, err
		}
		if other, taken := seen[strings.ToLower(f.name)]; taken {
			return t, fmt.Errorf("sqlstore: Tables.%s and Tables.%s are both %q: give each table a name of its own", other, f.field, f.name)
		}
		seen[strings.ToLower(f.name)] = f.field
	}
	var err error
	t.UserColumns, err = t.UserColumns.withDefaults()
	return t, err
}

// validName leaves room for the ends of the indexes' names: PostgreSQL cuts names after 63
// bytes.
var validName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,39}$`)

// checkName returns an error if a configured name is not usable as an identifier.
func checkName(field, name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("sqlstore: %s is %q: use at most 40 letters, digits and underscores, and no digit first", field, name)
	}
	return nil
}

//go:embed schema
var schemaFiles embed.FS

// Schema returns the embedded schema files of a dialect, for tools like goose, golang-migrate
// or atlas: in each directory the files are in the order of their names. They are written for
// the default names of tables and for user IDs of the type uuid.UUID; see [SchemaSQL] for
// others.
func Schema(dialect Dialect) (fs.FS, error) {
	if err := dialect.check(); err != nil {
		return nil, err
	}
	return fs.Sub(schemaFiles, "schema/"+dialect.String())
}

// SchemaSQL returns the statements that [Migrate] executes, as text.
func SchemaSQL[ID UserID](dialect Dialect, tables Tables) (string, error) {
	tables, err := tables.withDefaults()
	if err != nil {
		return "", err
	}
	return schemaSQL(dialect, tables, userIDType[ID](dialect))
}

// schemaSQL is SchemaSQL for user IDs of a type of the database.
func schemaSQL(dialect Dialect, tables Tables, idType string) (string, error) {
	files, err := Schema(dialect)
	if err != nil {
		return "", err
	}
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for _, name := range names { // in lexical order
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return "", err
		}
		all.WriteString(render(string(text), dialect, tables, idType))
	}
	return all.String(), nil
}

var (
	userIDMark     = regexp.MustCompile(`/\* user ID \*/ .*? /\* end \*/`)
	foreignKeyMark = regexp.MustCompile(`,?\s*/\* foreign key \*/ .*? /\* end \*/`)
	usersTable     = regexp.MustCompile("(?s)CREATE TABLE IF NOT EXISTS [\"`]users[\"`] .*?;\n")
	quotedName     = regexp.MustCompile("[\"`][a-z_]+[\"`]")
)

// render adapts a schema file to the type of the user IDs and to the names of the tables and of
// the users' columns.
func render(text string, dialect Dialect, tables Tables, idType string) string {
	if tables.UsersElsewhere {
		text = foreignKeyMark.ReplaceAllString(text, "")
		text = usersTable.ReplaceAllString(text, "")
	}
	text = userIDMark.ReplaceAllLiteralString(text, idType)
	names := map[string]string{
		"access_tokens": tables.AccessTokens, "api_tokens": tables.APITokens, "revocations": tables.Revocations, "leases": tables.Leases, "users": tables.Users,
		"login_attempts": tables.LoginAttempts, "one_time_tokens": tables.OneTimeTokens, "oauth_accounts": tables.OAuthAccounts,
	}
	text = quotedName.ReplaceAllStringFunc(text, func(quoted string) string {
		name := strings.Trim(quoted, "\"`")
		for table, to := range names {
			if name == table {
				return dialect.quote(to)
			}
			if end, index := strings.CutPrefix(name, table+"_"); index { // the name of an index
				return dialect.quote(to + "_" + end)
			}
		}
		return quoted
	})
	users := dialect.quote(tables.Users)
	ofUsers := regexp.MustCompile("(?s)CREATE TABLE IF NOT EXISTS " + users + " .*?;\n|REFERENCES " + users + " \\(.*?\\)")
	return ofUsers.ReplaceAllStringFunc(text, func(text string) string {
		columns, names := defaultColumns.list(), tables.UserColumns.list()
		return quotedName.ReplaceAllStringFunc(text, func(quoted string) string {
			if i := slices.Index(columns, strings.Trim(quoted, "\"`")); i >= 0 && quoted != users {
				return dialect.quote(names[i])
			}
			return quoted
		})
	})
}

// userIDType returns the SQL type of user IDs.
func userIDType[ID UserID](dialect Dialect) string {
	var id ID
	types := map[Dialect][3]string{
		PostgreSQL: {"UUID", "BIGINT", "TEXT"},
		MySQL:      {"CHAR(36) CHARACTER SET ascii COLLATE ascii_bin", "BIGINT", "VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"},
		SQLite:     {"TEXT", "INTEGER", "TEXT"},
	}[dialect]
	switch any(id).(type) {
	case uuid.UUID:
		return types[0]
	case int64:
		return types[1]
	default:
		return types[2]
	}
}

const (
	// migrateTimeout bounds Migrate if the context has no deadline.
	migrateTimeout = 5 * time.Minute
	// migrationLock is the key of the advisory lock on PostgreSQL: the ASCII codes of "latchkey".
	migrationLock = 0x6c617463686b6579
	// migrationLockName is the name of the lock on MySQL.
	migrationLockName = "latchkey_migrate"
)

// Migrate makes the tables and their indexes, if missing. Call it whenever the application
// starts: it is idempotent, and safe from many instances at once, of which one migrates while
// the others wait. It changes no table that exists; [VerifySchema] tells whether it fits.
// Without a deadline it fails after 5 minutes.
//
// If the table of users exists, the columns that refer to it get the type of its ID, which the
// foreign keys need.
func Migrate[ID UserID](ctx context.Context, db *sql.DB, dialect Dialect, tables Tables) error {
	tables, err := tables.withDefaults()
	if err == nil {
		err = dialect.check()
	}
	if err != nil {
		return err
	}
	ctx, cancel := bounded(ctx, migrateTimeout)
	defer cancel()
	conn, err := db.Conn(ctx)
	if err != nil {
		return wrap("connect to migrate", err)
	}
	defer func() { _ = conn.Close() }()
	return wrap("migrate", retry(ctx, dialect, func() error {
		return locked(ctx, conn, dialect, func(exec func(string) error) error {
			idType, err := existingIDType(ctx, conn, dialect, tables)
			if err != nil {
				return fmt.Errorf("find the type of the users' ID: %w", err)
			}
			text, err := schemaSQL(dialect, tables, cmp.Or(idType, userIDType[ID](dialect)))
			if err != nil {
				return err
			}
			for _, statement := range statements(text) {
				switch there, err := visible(ctx, conn, dialect, statement); {
				case err != nil:
					return err
				case there:
					continue
				}
				if err := exec(statement); err != nil {
					return err
				}
			}
			return nil
		})
	}))
}

var createTable = regexp.MustCompile("CREATE TABLE IF NOT EXISTS (\"[^\"]+\")")

// visible reports whether a statement makes a table that exists in another schema of PostgreSQL's
// search_path than the first: there, IF NOT EXISTS is about the first schema alone, and the new
// table would hide the one with the rows.
func visible(ctx context.Context, conn *sql.Conn, dialect Dialect, statement string) (there bool, err error) {
	if dialect != PostgreSQL {
		return false, nil
	}
	if m := createTable.FindStringSubmatch(statement); m != nil {
		err = conn.QueryRowContext(ctx, "SELECT to_regclass($1) IS NOT NULL", m[1]).Scan(&there)
	}
	return there, err
}

// existingIDType returns the type of the users' ID if their table exists, and otherwise "". SQLite
// does not compare the types of a foreign key.
func existingIDType(ctx context.Context, db interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}, dialect Dialect, tables Tables) (idType string, err error) {
	if tables.UsersElsewhere || dialect == SQLite {
		return "", nil
	}
	id := tables.UserColumns.ID
	if dialect == PostgreSQL {
		err = db.QueryRowContext(ctx, "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = $2 AND NOT attisdropped",
			dialect.quote(tables.Users), id).Scan(&idType)
	} else {
		var charset, collation sql.NullString
		err = db.QueryRowContext(ctx, "SELECT COLUMN_TYPE, CHARACTER_SET_NAME, COLLATION_NAME FROM information_schema.COLUMNS "+
			"WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? AND COLUMN_NAME = ?", tables.Users, id).Scan(&idType, &charset, &collation)
		if charset.Valid && collation.Valid {
			idType += " CHARACTER SET " + charset.String + " COLLATE " + collation.String
		}
	}
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return idType, err
}

// statements splits a file at the semicolons that end a line.
func statements(text string) []string {
	var all []string
	for s := range strings.SplitSeq(text, ";\n") {
		if strings.TrimSpace(s) != "" {
			all = append(all, s)
		}
	}
	return all
}

// locked calls do while no other instance migrates, and in one transaction where the database
// can do so. The connection is discarded if it may still hold the lock.
func locked(ctx context.Context, conn *sql.Conn, dialect Dialect, do func(exec func(string) error) error) error {
	exec := func(statement string) error {
		_, err := conn.ExecContext(ctx, statement)
		return err
	}
	end := func(statement string) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), defaultTimeout)
		defer cancel()
		_, err := conn.ExecContext(ctx, statement)
		if err != nil {
			discard(conn)
		}
		return err
	}
	if dialect == MySQL { // its CREATE TABLE ends a transaction
		var got sql.NullInt64
		if err := conn.QueryRowContext(ctx, "SELECT GET_LOCK('"+migrationLockName+"', 300)").Scan(&got); err != nil {
			discard(conn)
			return err
		}
		if got.Int64 != 1 {
			return errors.New("another instance has been migrating for 5 minutes")
		}
		return errors.Join(do(exec), end("DO RELEASE_LOCK('"+migrationLockName+"')"))
	}
	begin := "BEGIN"
	if dialect == SQLite {
		begin = "BEGIN IMMEDIATE"
	}
	if err := exec(begin); err != nil {
		return err
	}
	var err error
	if dialect == PostgreSQL {
		err = exec(fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", migrationLock))
	}
	if err == nil {
		err = do(exec)
	}
	if err == nil {
		err = exec("COMMIT")
	}
	if err != nil {
		_ = end("ROLLBACK")
	}
	return err
}
