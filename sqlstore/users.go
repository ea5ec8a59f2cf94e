package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"strings"
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
// An account that cannot be read, because a column has a value of another type, is an error of
// ByID, ByEmail and Edit, and is left out by List, each time with an event of the kind
// event.InvalidDocument.
type Users[U strategy.User[ID], ID UserID] struct {
	store
	of    func(*U) *account.User[ID]
	own   []ownField
	table string // quoted
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
	own, err := ownFields(reflect.TypeFor[U](), reflect.TypeFor[account.User[ID]]())
	if err != nil {
		return nil, err
	}
	return &Users[U, ID]{s, func(u *U) *account.User[ID] { return P(u).Account() }, own, dialect.quote(s.tables.Users)}, nil
}

// userColumns are the columns of an account, in the order of accountValues and parseAccount.
const userColumns = "id, email, hashed_password, is_active, is_verified, is_superuser, created_at, token_version"

func accountValues[ID UserID](a *account.User[ID]) []any {
	return []any{userIDValue(a.ID), a.Email, a.HashedPassword.Reveal(), a.Active, a.Verified, a.Superuser, a.CreatedAt.UnixMilli(), a.Version}
}

// parseAccount reads the columns of an account. NULL counts as the zero value.
func parseAccount[ID UserID](values []any) (account.User[ID], error) {
	for i, zero := range []any{nil, nil, "", false, false, false, nil, int64(0)} {
		if values[i] == nil {
			values[i] = zero
		}
	}
	r := &row{columns: strings.Split(userColumns, ", "), values: values}
	a := account.User[ID]{
		ID: userID[ID](r), Email: r.string(), HashedPassword: account.NewPasswordHash(r.string()), Active: r.bool(), Verified: r.bool(),
		Superuser: r.bool(), CreatedAt: r.time(), Version: r.int64(),
	}
	return a, r.err
}

// columnList returns the quoted names of all columns.
func (u *Users[U, ID]) columnList() string {
	names := []string{userColumns}
	for _, f := range u.own {
		names = append(names, f.column)
	}
	return u.dialect.columns(strings.Join(names, ", "))
}

// checkColumns returns an error wrapping ErrSchemaMismatch if the table lacks a column of U.
func (u *Users[U, ID]) checkColumns(ctx context.Context) error {
	ctx, cancel := bounded(ctx, u.timeout)
	defer cancel()
	_, err := u.query(ctx, u.db, "SELECT "+u.columnList()+" FROM "+u.table+" WHERE 1 = 0")
	if err != nil && ctx.Err() == nil {
		var none U
		err = fmt.Errorf("%w: the table %q must have a column for each field of %T: %w", ErrSchemaMismatch, u.tables.Users, none, err)
	}
	return wrap("verify the schema", err)
}

// Insert implements account.Store.
func (u *Users[U, ID]) Insert(ctx context.Context, user U) error {
	ctx, cancel := bounded(ctx, u.timeout)
	defer cancel()
	a := u.of(&user)
	values := accountValues(a)
	own, err := ownValues(u.own, reflect.ValueOf(user))
	if err != nil {
		return err
	}
	values = append(values, own...)
	_, err = u.write(ctx, "INSERT INTO "+u.table+" ("+u.columnList()+") VALUES ("+placeholders(len(values))+")", values...)
	if u.dialect.isDuplicate(err) {
		return u.duplicate(ctx, err, "email = ?", a.Email)
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
	return fmt.Errorf("sqlstore: %w: %w", account.ErrConflict, cause)
}

func (u *Users[U, ID]) exists(ctx context.Context, q querier, condition string, args ...any) (bool, error) {
	rows, err := u.query(ctx, q, "SELECT 1 FROM "+u.table+" WHERE "+condition, args...)
	return len(rows) > 0, err
}

// ByID implements account.Store and strategy.UserSource.
func (u *Users[U, ID]) ByID(ctx context.Context, id ID) (U, error) {
	return u.find(ctx, "id = ?", userIDValue(id))
}

// ByEmail implements account.Store.
func (u *Users[U, ID]) ByEmail(ctx context.Context, email string) (U, error) {
	return u.find(ctx, "email = ?", email)
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

// read returns the accounts that meet a condition, and separates those that cannot be read.
func (u *Users[U, ID]) read(ctx context.Context, condition string, args ...any) (users []U, invalid []invalidAccount[ID], err error) {
	rows, err := u.db.QueryContext(ctx, u.dialect.bind("SELECT "+u.columnList()+" FROM "+u.table+" WHERE "+condition), args...)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		user, err := u.scan(rows)
		if err != nil {
			invalid = append(invalid, invalidAccount[ID]{u.of(&user).ID, err})
			continue
		}
		users = append(users, user)
	}
	return users, invalid, rows.Err()
}

// scan reads a row. If it cannot, it returns an error and a user with the ID, if that is known.
func (u *Users[U, ID]) scan(rows *sql.Rows) (user U, err error) {
	values := make([]any, strings.Count(userColumns, ",")+1)
	var into []any
	for i := range values {
		into = append(into, &values[i])
	}
	holders := make([]reflect.Value, len(u.own))
	for i, f := range u.own {
		holders[i] = f.holder()
		into = append(into, holders[i].Interface())
	}
	scanned := rows.Scan(into...)
	a, err := parseAccount[ID](values)
	*u.of(&user) = a
	if err = cmp.Or(scanned, err); err != nil {
		return user, err
	}
	for i, f := range u.own {
		if err := f.set(reflect.ValueOf(&user).Elem(), holders[i]); err != nil {
			return user, err
		}
	}
	return user, nil
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
func conditionsOf[ID UserID](id ID, c account.Change) (w where) {
	w.add("id = ?", userIDValue(id))
	if c.IfEmail != nil {
		w.add("email = ?", *c.IfEmail)
	}
	if c.IfPassword != nil {
		w.add("COALESCE(hashed_password, '') = ?", c.IfPassword.Reveal())
	}
	if c.IfVersion != nil {
		w.add("COALESCE(token_version, 0) = ?", *c.IfVersion)
	}
	return w
}

// assignmentsOf returns the assignments of a change.
func assignmentsOf(c account.Change) (set where) {
	if c.Email != nil {
		set.add("email = ?", *c.Email)
	}
	if c.Password != nil {
		set.add("hashed_password = ?", c.Password.Reveal())
	}
	if c.Active != nil {
		set.add("is_active = ?", *c.Active)
	}
	if c.Verified != nil {
		set.add("is_verified = ?", *c.Verified)
	}
	if c.Superuser != nil {
		set.add("is_superuser = ?", *c.Superuser)
	}
	if c.RevokeTokens {
		set.add("token_version = COALESCE(token_version, 0) + 1")
	}
	return set
}

// Apply implements account.Store.
func (u *Users[U, ID]) Apply(ctx context.Context, id ID, change account.Change) error {
	ctx, cancel := bounded(ctx, u.timeout)
	defer cancel()
	conditions, key := conditionsOf(id, change), userIDValue(id)
	matched, err := u.update(ctx, conditions, assignmentsOf(change))
	switch {
	case u.dialect.isDuplicate(err) && change.Email != nil:
		return u.duplicate(ctx, err, "email = ? AND id <> ?", *change.Email, key)
	case err != nil:
		return wrap("change the account", err)
	case matched:
		return nil
	}
	there := false
	if len(conditions.parts) > 1 {
		if there, err = u.exists(ctx, u.db, "id = ?", key); err != nil {
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
	err = u.transact(ctx, func(ctx context.Context, tx *sql.Tx) error {
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
	matched, err := u.update(ctx, conditionsOf(id, account.Change{}), set)
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
	email := "email"
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
	n, err := u.write(ctx, "DELETE FROM "+u.table+" WHERE id = ?", userIDValue(id))
	if err == nil && n == 0 {
		err = account.ErrUserNotFound
	}
	return wrap("delete the account", err)
}
