package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/strategy"
)

// UsersConfig configures [Users]. The zero value is usable.
type UsersConfig struct {
	// Tables are the names of the tables.
	Tables Tables

	// AnyCase finds accounts whose address is stored in another spelling than
	// account.NormalizeEmail's, such as John@Example.com: for a table that another program has
	// filled. Every look-up then compares LOWER(email), for which the table should have an index.
	// Of several accounts whose addresses have the same normal form, only the one that is stored
	// in this form is found, or none. Letters outside ASCII must be all small or all capital,
	// except where the database's LOWER knows them. List compares addresses as they are stored.
	// Default false: only the same spelling is found, also in a table whose collation ignores
	// case or accents.
	AnyCase bool

	// Timeout bounds every call whose context has no deadline. Default 3 seconds.
	Timeout time.Duration

	// Now is the clock of events. Default [time.Now].
	Now func() time.Time

	// OnEvent receives an event for every account that cannot be read; see
	// strategy.Config.OnEvent. nil means no events.
	OnEvent func(context.Context, event.Event)
}

// Users stores accounts in a SQL table, as rows of the application's user struct U. Each field
// of U outside account.User has a column. Its name is that of the tag `db`, or else the field's
// name in snake case; the tag `db:"-"` means that it has none. Slices, maps and structs that
// database/sql cannot store are stored as JSON. No update touches a column that is not in U.
//
// Make it with [NewUsers]. [Migrate] makes a table without columns of the application; add them,
// or make the table before. It is safe for concurrent use.
//
// Another program may have made the table. Its creation times may be milliseconds since 1970 or
// have a type for dates; MySQL's driver must use UTC for them, its default. On MySQL, a field of the
// type time.Time needs the driver's parseTime. UUIDs have the type UUID, or are text with hyphens
// in lower case. Flags have the type BOOLEAN, or are integers on MySQL and SQLite.
//
// An account that cannot be read, because a column has a value of another type, is an error of
// ByID, ByEmail and Edit, and is left out by List, each time with an event of the kind
// event.InvalidDocument.
type Users[U strategy.User[ID], ID UserID] struct {
	store
	of      func(*U) *account.User[ID]
	own     []ownField
	table   string  // quoted
	col     Columns // quoted
	columns string  // of the account: their names, not quoted, separated by ", "

	anyCase bool

	mu        sync.Mutex
	createdAt timeForm // of the column; 0 until it is known
}

// NewUsers returns a store of accounts. Call NewUsers[Member](db, dialect, cfg) for a struct
// Member that embeds account.User; the other type parameters are inferred. It does no I/O. It
// returns an error if a field of cfg is invalid, or if two fields have the same column.
func NewUsers[U strategy.User[ID], ID UserID, P account.Embeds[U, ID]](db *sql.DB, dialect Dialect, cfg UsersConfig) (*Users[U, ID], error) {
	s, err := newStore(db, dialect, "UsersConfig", cfg.Tables, cfg.Timeout, cfg.Now, cfg.OnEvent)
	if err != nil {
		return nil, err
	}
	if s.tables.UsersElsewhere {
		return nil, errors.New("sqlstore: UsersConfig.Tables.UsersElsewhere is true: set it to false, as the accounts are in this database")
	}
	own, err := ownFields(reflect.TypeFor[U](), reflect.TypeFor[account.User[ID]](), s.tables.UserColumns)
	if err != nil {
		return nil, err
	}
	return &Users[U, ID]{
		store: s, of: func(u *U) *account.User[ID] { return P(u).Account() }, own: own,
		table: dialect.quote(s.tables.Users), col: s.tables.UserColumns.quoted(dialect),
		columns: strings.Join(s.tables.UserColumns.list(), ", "), anyCase: cfg.AnyCase,
	}, nil
}

func accountValues[ID UserID](a *account.User[ID], createdAt timeForm) []any {
	return []any{userIDValue(a.ID), a.Email, a.HashedPassword.Reveal(), a.Active, a.Verified, a.Superuser, createdAt.value(a.CreatedAt), a.Version}
}

// timeForm is the form in which a column has times.
type timeForm int

const (
	asMillis timeForm = iota + 1 // milliseconds since 1970
	asDate                       // a type for dates
	asText                       // text like sqliteTime
)

// value returns what is stored for a time.
func (f timeForm) value(t time.Time) any {
	switch f {
	case asDate:
		return t.UTC()
	case asText:
		return t.UTC().Format(sqliteTime)
	}
	return t.UnixMilli()
}

// createdAtForm returns the form of the creation times. It asks the database once.
func (u *Users[U, ID]) createdAtForm(ctx context.Context) (_ timeForm, err error) {
	u.mu.Lock()
	form := u.createdAt
	u.mu.Unlock()
	if form != 0 {
		return form, nil
	}
	defer func() { err = ended(ctx, err) }()
	rows, err := u.db.QueryContext(ctx, "SELECT "+u.col.CreatedAt+" FROM "+u.table+" WHERE 1 = 0")
	if err != nil {
		return 0, err
	}
	types, err := rows.ColumnTypes()
	if err = errors.Join(err, rows.Err(), rows.Close()); err != nil {
		return 0, err
	}
	switch u.dialect.kindOf(types[0].DatabaseTypeName()) {
	case kindTime:
		form = asDate
	case kindText:
		form = asText
	default:
		form = asMillis
	}
	if u.dialect == SQLite && form == asDate {
		form = asText
	}
	u.mu.Lock()
	u.createdAt = form
	u.mu.Unlock()
	return form, nil
}

// parseAccount reads the columns of an account. See Columns about NULL.
func parseAccount[ID UserID](columns string, values []any) (account.User[ID], error) {
	for i, null := range []any{nil, nil, "", true, false, false, nil, int64(0)} {
		if values[i] == nil {
			values[i] = null
		}
	}
	r := &row{columns: columns, values: values}
	a := account.User[ID]{
		ID: userID[ID](r), Email: r.string(), HashedPassword: account.NewPasswordHash(r.string()), Active: r.bool(), Verified: r.bool(),
		Superuser: r.bool(), CreatedAt: r.time(), Version: r.int64(),
	}
	return a, r.err
}

// columnList returns the quoted names of all columns.
func (u *Users[U, ID]) columnList() string {
	names := u.col.list()
	for _, f := range u.own {
		names = append(names, u.dialect.quote(f.column))
	}
	return strings.Join(names, ", ")
}

// checkColumns returns an error wrapping ErrSchemaMismatch that names each field of U whose column
// the table lacks.
func (u *Users[U, ID]) checkColumns(ctx context.Context) error {
	ctx, cancel := bounded(ctx, u.timeout)
	defer cancel()
	_, err := u.query(ctx, u.db, "SELECT "+u.columnList()+" FROM "+u.table+" WHERE 1 = 0")
	if err == nil || ctx.Err() != nil {
		return wrap("verify the schema", err)
	}
	var missing []error
	for _, f := range u.own {
		column := u.dialect.quote(f.column)
		if _, err := u.query(ctx, u.db, "SELECT "+column+" FROM "+u.table+" WHERE 1 = 0"); err != nil && ctx.Err() == nil {
			field := reflect.TypeFor[U]().FieldByIndex(f.index)
			missing = append(missing, fmt.Errorf("sqlstore: %w: the table %q lacks the column of the field %s of %v: ALTER TABLE %s ADD COLUMN %s with a type for %v, or name another column in the field's db tag",
				ErrSchemaMismatch, u.tables.Users, field.Name, reflect.TypeFor[U](), u.table, column, f.typ))
		}
	}
	if len(missing) == 0 { // VerifySchema names those of the account
		missing = append(missing, fmt.Errorf("sqlstore: %w: the table %q: %w", ErrSchemaMismatch, u.tables.Users, err))
	}
	return errors.Join(missing...)
}

// Insert implements account.Store.
func (u *Users[U, ID]) Insert(ctx context.Context, user U) error {
	ctx, cancel := bounded(ctx, u.timeout)
	defer cancel()
	a := u.of(&user)
	if err := u.taken(ctx, nil, a.Email); err != nil {
		return err
	}
	form, err := u.createdAtForm(ctx)
	if err != nil {
		return wrap("find the type of the column "+u.tables.UserColumns.CreatedAt, err)
	}
	values := accountValues(a, form)
	own, err := ownValues(u.own, reflect.ValueOf(user))
	if err != nil {
		return err
	}
	values = append(values, own...)
	_, err = u.write(ctx, "INSERT INTO "+u.table+" ("+u.columnList()+") VALUES ("+placeholders(len(values))+")", values...)
	if u.dialect.isDuplicate(err) {
		return u.duplicate(ctx, err, u.col.Email+" = ?", a.Email)
	}
	return wrap("insert the account", err)
}

// duplicate returns the error of a write that the database refused because a value is taken:
// ErrEmailTaken if a row meets the condition, otherwise ErrConflict, as it is the ID or a
// unique value of the application.
func (u *Users[U, ID]) duplicate(ctx context.Context, cause error, condition string, args ...any) error {
	switch taken, err := u.exists(ctx, u.db, condition, args...); {
	case err != nil:
		return wrap("find the account", err)
	case taken:
		return fmt.Errorf("sqlstore: %w", account.ErrEmailTaken)
	}
	return fmt.Errorf("sqlstore: %w: %w", account.ErrConflict, u.dialect.withoutValue(cause))
}

func (u *Users[U, ID]) exists(ctx context.Context, q querier, condition string, args ...any) (bool, error) {
	rows, err := u.query(ctx, q, "SELECT 1 FROM "+u.table+" WHERE "+condition, args...)
	return len(rows) > 0, err
}

// ByID implements account.Store and strategy.UserSource.
func (u *Users[U, ID]) ByID(ctx context.Context, id ID) (U, error) {
	return u.find(ctx, u.col.ID+" = ?", userIDValue(id))
}

// ByEmail implements account.Store.
func (u *Users[U, ID]) ByEmail(ctx context.Context, email string) (U, error) {
	if u.anyCase {
		return u.findAnyCase(ctx, email)
	}
	user, err := u.find(ctx, u.col.Email+" = ?", email)
	if err == nil && u.of(&user).Email != email { // the collation of an application's table may ignore case or accents
		var none U
		return none, wrap("find the account", account.ErrUserNotFound)
	}
	return user, err
}

func (u *Users[U, ID]) find(ctx context.Context, condition string, args ...any) (user U, err error) {
	ctx, cancel := bounded(ctx, u.timeout)
	defer cancel()
	users, invalid, err := u.read(ctx, condition, args...)
	switch {
	case u.dialect.isImpossible(err):
		err = account.ErrUserNotFound
	case err != nil:
	case len(invalid) > 0:
		u.report(ctx, invalid)
		err = invalid[0].cause
	case len(users) == 0:
		err = account.ErrUserNotFound
	default:
		return users[0], nil
	}
	return user, wrap("find the account", err)
}

// invalidAccount is a row that cannot be read. Its ID is the zero value if that cannot be read
// either.
type invalidAccount[ID UserID] struct {
	id    ID
	cause error
}

func (u *Users[U, ID]) report(ctx context.Context, rows []invalidAccount[ID]) {
	for _, row := range rows {
		invalid(ctx, &u.store, u.tables.Users, row.id, row.id, row.cause)
	}
}

// read returns the accounts that meet a condition, and separates those that cannot be read. It
// repeats the query on conflicts.
func (u *Users[U, ID]) read(ctx context.Context, condition string, args ...any) (users []U, invalid []invalidAccount[ID], err error) {
	err = retry(ctx, u.dialect, func() error {
		users, invalid, err = u.readOnce(ctx, condition, args...)
		return err
	})
	return users, invalid, err
}

func (u *Users[U, ID]) readOnce(ctx context.Context, condition string, args ...any) (users []U, invalid []invalidAccount[ID], err error) {
	defer func() { err = ended(ctx, err) }()
	rows, err := u.db.QueryContext(ctx, u.dialect.bind("SELECT "+u.columnList()+" FROM "+u.table+" WHERE "+condition), args...)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		user, err := u.scan(rows)
		if errors.Is(err, errNotRead) {
			return nil, nil, err
		}
		if err != nil {
			invalid = append(invalid, invalidAccount[ID]{u.of(&user).ID, err})
			continue
		}
		users = append(users, user)
	}
	return users, invalid, rows.Err()
}

// errNotRead means that the database's answer could not be read, whatever is in it.
var errNotRead = errors.New("the row was not read")

// scan reads a row. If it cannot, it returns an error and a user with the ID, if that is known.
func (u *Users[U, ID]) scan(rows *sql.Rows) (user U, err error) {
	user, _, err = u.scanInto(rows, nil)
	return user, err
}

// scanInto is scan for a row that has other columns before, which are read into others. there is false
// if the account's ID is NULL.
func (u *Users[U, ID]) scanInto(rows *sql.Rows, others []any) (user U, there bool, err error) {
	values := make([]any, accountColumns)
	into := others
	for i := range values {
		into = append(into, &values[i])
	}
	holders := make([]reflect.Value, len(u.own))
	for i, f := range u.own {
		holders[i] = f.holder()
		into = append(into, holders[i].Interface())
	}
	scanned := rows.Scan(into...)
	if first := *into[0].(*any); scanned != nil && first == nil { // the context has ended, and the rows are closed
		return user, false, fmt.Errorf("%w: %w", errNotRead, scanned)
	}
	if scanned == nil && values[0] == nil {
		return user, false, errors.New("the account's ID is NULL")
	}
	a, err := parseAccount[ID](u.columns, values)
	*u.of(&user) = a
	if err = cmp.Or(scanned, err); err != nil {
		return user, true, err
	}
	for i, f := range u.own {
		if err := f.set(reflect.ValueOf(&user).Elem(), holders[i]); err != nil {
			return user, true, err
		}
	}
	return user, true, nil
}

// where collects the parts of a WHERE or a SET with their arguments.
type where struct {
	parts []string
	args  []any
}

func (w *where) add(part string, args ...any) {
	w.parts = append(w.parts, part)
	w.args = append(w.args, args...)
}

// conditionsOf returns the condition for the account with an ID that meets the conditions of a
// change. NULL counts as the zero value.
func (u *Users[U, ID]) conditionsOf(id ID, c account.Change) (w where) {
	w.add(u.col.ID+" = ?", userIDValue(id))
	if c.IfEmail != nil {
		w.add(u.col.Email+" = ?", *c.IfEmail)
	}
	if c.IfPassword != nil {
		w.add("COALESCE("+u.col.HashedPassword+", '') = ?", c.IfPassword.Reveal())
	}
	if c.IfVersion != nil {
		w.add("COALESCE("+u.col.TokenVersion+", 0) = ?", *c.IfVersion)
	}
	return w
}

// assignmentsOf returns the assignments of a change.
func (u *Users[U, ID]) assignmentsOf(c account.Change) (set where) {
	if c.Email != nil {
		set.add(u.col.Email+" = ?", *c.Email)
	}
	if c.Password != nil {
		set.add(u.col.HashedPassword+" = ?", c.Password.Reveal())
	}
	if c.Active != nil {
		set.add(u.col.Active+" = ?", *c.Active)
	}
	if c.Verified != nil {
		set.add(u.col.Verified+" = ?", *c.Verified)
	}
	if c.Superuser != nil {
		set.add(u.col.Superuser+" = ?", *c.Superuser)
	}
	if c.RevokeTokens {
		set.add(u.col.TokenVersion + " = COALESCE(" + u.col.TokenVersion + ", 0) + 1")
	}
	return set
}

// Apply implements account.Store.
func (u *Users[U, ID]) Apply(ctx context.Context, id ID, change account.Change) error {
	ctx, cancel := bounded(ctx, u.timeout)
	defer cancel()
	conditions, key := u.conditionsOf(id, change), userIDValue(id)
	if change.Email != nil {
		err := u.taken(ctx, &id, *change.Email)
		if errors.Is(err, account.ErrEmailTaken) {
			if there, failed := u.exists(ctx, u.db, strings.Join(conditions.parts, " AND "), conditions.args...); failed == nil && !there {
				err = nil // the update says why
			}
		}
		if err != nil {
			return err
		}
	}
	matched, err := u.update(ctx, conditions, u.assignmentsOf(change))
	switch {
	case u.dialect.isDuplicate(err) && change.Email != nil:
		return u.duplicate(ctx, err, u.col.Email+" = ? AND "+u.col.ID+" <> ?", *change.Email, key)
	case err != nil:
		return wrap("change the account", err)
	case matched:
		return nil
	}
	there := false
	if len(conditions.parts) > 1 {
		if there, err = u.exists(ctx, u.db, u.col.ID+" = ?", key); err != nil {
			return wrap("find the account", err)
		}
	}
	if there {
		return fmt.Errorf("sqlstore: %w", account.ErrConflict)
	}
	return fmt.Errorf("sqlstore: %w", account.ErrUserNotFound)
}

// update makes assignments in one UPDATE. It reports whether a row met the conditions.
func (u *Users[U, ID]) update(ctx context.Context, conditions, set where) (matched bool, err error) {
	condition := strings.Join(conditions.parts, " AND ")
	if len(set.parts) == 0 {
		return u.exists(ctx, u.db, condition, conditions.args...)
	}
	statement := "UPDATE " + u.table + " SET " + strings.Join(set.parts, ", ") + " WHERE " + condition
	args := append(set.args[:len(set.args):len(set.args)], conditions.args...)
	if u.dialect != MySQL {
		n, err := u.write(ctx, statement, args...)
		return n > 0, err
	}
	// MySQL does not count a row that has the values already.
	err = u.transact(ctx, func(ctx context.Context, tx querier) error {
		if matched, err = u.exists(ctx, tx, condition+" FOR UPDATE", conditions.args...); err != nil || !matched {
			return err
		}
		_, err := u.exec(ctx, tx, statement, args...)
		return err
	})
	return matched && err == nil, err
}

// Edit implements account.Store: it sets the columns that edit changed.
func (u *Users[U, ID]) Edit(ctx context.Context, id ID, edit func(*U) error) (U, error) {
	ctx, cancel := bounded(ctx, u.timeout)
	defer cancel()
	var none U
	user, err := u.ByID(ctx, id)
	if err != nil {
		return none, err
	}
	before, err := ownValues(u.own, reflect.ValueOf(user))
	if err != nil {
		return none, err
	}
	was := *u.of(&user)
	if err := edit(&user); err != nil {
		return none, err
	}
	*u.of(&user) = was
	after, err := ownValues(u.own, reflect.ValueOf(user))
	if err != nil {
		return none, err
	}
	var set where
	for i, f := range u.own {
		if !reflect.DeepEqual(before[i], after[i]) {
			set.add(u.dialect.quote(f.column)+" = ?", after[i])
		}
	}
	if len(set.parts) == 0 {
		return user, nil
	}
	matched, err := u.update(ctx, u.conditionsOf(id, account.Change{}), set)
	if u.dialect.isDuplicate(err) { // of a unique value of the application
		err = fmt.Errorf("%w: %w", account.ErrConflict, u.dialect.withoutValue(err))
	}
	if err == nil && !matched {
		err = account.ErrUserNotFound
	}
	if err != nil {
		return none, wrap("edit the account", err)
	}
	return user, nil
}

// List implements account.Store.
func (u *Users[U, ID]) List(ctx context.Context, prefix, after string, limit int) ([]U, error) {
	ctx, cancel := bounded(ctx, u.timeout)
	defer cancel()
	email := u.col.Email
	if u.dialect == PostgreSQL {
		email += ` COLLATE "C"` // byte by byte, also in a table of the application
	}
	var w where
	w.add(email+" > ?", after)
	if prefix != "" {
		w.add(email+" >= ?", prefix)
		w.add(email+" < ?", prefix+string(utf8.MaxRune))
	}
	condition := strings.Join(w.parts, " AND ") + " ORDER BY " + email + " LIMIT ?"
	for ask := limit; ; ask *= 2 {
		users, invalid, err := u.read(ctx, condition, append(w.args[:len(w.args):len(w.args)], ask)...)
		if u.dialect.isImpossible(err) {
			return nil, nil
		}
		if err != nil {
			return nil, wrap("list the accounts", err)
		}
		// Accounts that cannot be read took places, so ask for more.
		if len(users) < limit && len(users)+len(invalid) == ask {
			continue
		}
		u.report(ctx, invalid)
		return users[:min(limit, len(users))], nil
	}
}

// Delete implements account.Store. By the foreign keys, the database deletes the tokens of the
// user with the account.
func (u *Users[U, ID]) Delete(ctx context.Context, id ID) error {
	n, err := u.write(ctx, "DELETE FROM "+u.table+" WHERE "+u.col.ID+" = ?", userIDValue(id))
	if err == nil && n == 0 {
		err = account.ErrUserNotFound
	}
	return wrap("delete the account", err)
}
