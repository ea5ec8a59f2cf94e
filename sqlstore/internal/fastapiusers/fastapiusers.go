// Package fastapiusers stands in for a running fastapi-users application in tests: it makes the
// tables of its SQLAlchemy adapter, and sends the statements that SQLAlchemy sends for it. These
// were taken from SQLAlchemy with the adapter's models, compiled for each dialect, and seen
// running on SQLite and MariaDB.
package fastapiusers

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/sqlstore"
)

// App is an application with fastapi-users. ID is the type of its user IDs: uuid.UUID, or int64
// for a primary key of the application. It is safe for concurrent use.
type App[ID uuid.UUID | int64] struct {
	DB      *sql.DB
	Dialect sqlstore.Dialect
	// Lifetime is the lifetime of tokens.
	Lifetime time.Duration
	// Now is the clock.
	Now func() time.Time
	// Fraction keeps the microseconds of times on MySQL, as an application's own column does.
	// The adapter's TIMESTAMP has whole seconds.
	Fraction bool
	// Elsewhere makes a table of tokens without a foreign key.
	Elsewhere bool
}

const user = "INSERT INTO %[1]s (%[2]semail, hashed_password, is_active, is_superuser, is_verified) VALUES (%[3]s?, ?, ?, ?, ?)"

// CreateTables is Base.metadata.create_all.
func (a *App[ID]) CreateTables(ctx context.Context) error {
	type types struct{ uuid, integer, serial, boolean, timestamp string }
	t := map[sqlstore.Dialect]types{
		sqlstore.PostgreSQL: {"UUID", "INTEGER", "SERIAL NOT NULL", "BOOLEAN", "TIMESTAMP WITH TIME ZONE"},
		sqlstore.MySQL:      {"CHAR(36)", "INTEGER", "INTEGER NOT NULL AUTO_INCREMENT", "BOOL", "TIMESTAMP"},
		sqlstore.SQLite:     {"CHAR(36)", "INTEGER", "INTEGER NOT NULL", "BOOLEAN", "TIMESTAMP"},
	}[a.Dialect]
	if a.Fraction && a.Dialect == sqlstore.MySQL {
		t.timestamp = "DATETIME(6)"
	}
	key, reference := t.uuid+" NOT NULL", t.uuid
	var id ID
	if _, ok := any(id).(int64); ok {
		key, reference = t.serial, t.integer
	}
	foreign := ",\n\tFOREIGN KEY(user_id) REFERENCES " + a.users() + " (id) ON DELETE cascade"
	if a.Elsewhere {
		foreign = ""
	}
	statements := []string{
		"CREATE TABLE accesstoken (\n\ttoken VARCHAR(43) NOT NULL,\n\tcreated_at " + t.timestamp + " NOT NULL,\n\tuser_id " + reference +
			" NOT NULL,\n\tPRIMARY KEY (token)" + foreign + "\n)",
		"CREATE INDEX ix_accesstoken_created_at ON accesstoken (created_at)",
	}
	if !a.Elsewhere {
		b := " " + t.boolean + " NOT NULL,\n\t"
		statements = append([]string{
			"CREATE TABLE " + a.users() + " (\n\tid " + key + ",\n\temail VARCHAR(320) NOT NULL,\n\thashed_password VARCHAR(1024) NOT NULL,\n\t" +
				"is_active" + b + "is_superuser" + b + "is_verified" + b + "PRIMARY KEY (id)\n)",
			"CREATE UNIQUE INDEX ix_user_email ON " + a.users() + " (email)",
		}, statements...)
	}
	for _, s := range statements {
		if _, err := a.DB.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// users is the table of users: PostgreSQL reserves the word, and SQLAlchemy quotes it there.
func (a *App[ID]) users() string {
	if a.Dialect == sqlstore.PostgreSQL {
		return `"user"`
	}
	return "user"
}

// bind writes the placeholders of the dialect.
func (a *App[ID]) bind(query string) string {
	if a.Dialect != sqlstore.PostgreSQL {
		return query
	}
	parts := strings.Split(query, "?")
	for i := range parts[1:] {
		parts[i] += "$" + strconv.Itoa(i+1)
	}
	return strings.Join(parts, "")
}

func (a *App[ID]) exec(ctx context.Context, query string, args ...any) (int64, error) {
	result, err := a.DB.ExecContext(ctx, a.bind(query), args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// time is a bound datetime. Python's clock has microseconds; text has no zone.
func (a *App[ID]) time(t time.Time) any {
	t = t.UTC().Truncate(time.Microsecond)
	if a.Dialect == sqlstore.PostgreSQL {
		return t
	}
	return t.Format("2006-01-02 15:04:05.000000")
}

// id is a bound ID.
func (a *App[ID]) id(id ID) any {
	if u, ok := any(id).(uuid.UUID); ok {
		return u.String()
	}
	return any(id)
}

// User makes a user.
func (a *App[ID]) User(ctx context.Context, email, hash string, active bool) (id ID, err error) {
	values := []any{email, hash, active, false, false}
	switch to := any(&id).(type) {
	case *uuid.UUID:
		*to = uuid.New()
		_, err = a.exec(ctx, fmt.Sprintf(user, a.users(), "id, ", "?, "), append([]any{a.id(id)}, values...)...)
	case *int64:
		query := fmt.Sprintf(user, a.users(), "", "")
		if a.Dialect == sqlstore.PostgreSQL {
			err = a.DB.QueryRowContext(ctx, a.bind(query+" RETURNING "+a.users()+".id"), values...).Scan(to)
			return id, err
		}
		var result sql.Result
		if result, err = a.DB.ExecContext(ctx, query, values...); err == nil {
			*to, err = result.LastInsertId()
		}
	}
	return id, err
}

// NewToken returns a new token: secrets.token_urlsafe().
func NewToken() string {
	var b [32]byte
	_, _ = rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Login issues a token.
func (a *App[ID]) Login(ctx context.Context, userID ID) (string, error) {
	token := NewToken()
	return token, a.Insert(ctx, token, a.Now(), userID)
}

// Insert inserts a token.
func (a *App[ID]) Insert(ctx context.Context, token string, createdAt time.Time, userID ID) error {
	_, err := a.exec(ctx, "INSERT INTO accesstoken (token, created_at, user_id) VALUES (?, ?, ?)", token, a.time(createdAt), a.id(userID))
	return err
}

// Row is a row of a token.
type Row[ID uuid.UUID | int64] struct {
	Token     string
	CreatedAt time.Time
	UserID    ID
}

// InsertAll inserts many tokens.
func (a *App[ID]) InsertAll(ctx context.Context, rows []Row[ID]) error {
	for batch := range slices.Chunk(rows, 200) {
		var args []any
		for _, r := range batch {
			args = append(args, r.Token, a.time(r.CreatedAt), a.id(r.UserID))
		}
		values := strings.TrimSuffix(strings.Repeat("(?, ?, ?), ", len(batch)), ", ")
		if _, err := a.exec(ctx, "INSERT INTO accesstoken (token, created_at, user_id) VALUES "+values, args...); err != nil {
			return err
		}
	}
	return nil
}

// Logout deletes a token that is valid: the strategy reads it before.
func (a *App[ID]) Logout(ctx context.Context, token string) error {
	if _, found, err := a.read(ctx, token); err != nil || !found {
		return err
	}
	_, err := a.exec(ctx, "DELETE FROM accesstoken WHERE accesstoken.token = ?", token)
	return err
}

// read returns the user of a token.
func (a *App[ID]) read(ctx context.Context, token string) (userID string, found bool, err error) {
	row := a.DB.QueryRowContext(ctx, a.bind("SELECT accesstoken.token, accesstoken.user_id FROM accesstoken WHERE accesstoken.token = ? AND accesstoken.created_at >= ?"),
		token, a.time(a.Now().Add(-a.Lifetime)))
	var got string
	err = row.Scan(&got, &userID)
	if errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	return userID, err == nil, err
}

// Accepts reports whether a token is one of an active user.
func (a *App[ID]) Accepts(ctx context.Context, token string) (active bool, err error) {
	userID, found, err := a.read(ctx, token)
	if err != nil || !found {
		return false, err
	}
	var id any = userID
	var none ID
	if _, ok := any(none).(int64); ok {
		if id, err = strconv.ParseInt(userID, 10, 64); err != nil {
			return false, err
		}
	}
	err = a.DB.QueryRowContext(ctx, a.bind("SELECT u.is_active FROM "+a.users()+" u WHERE u.id = ?"), id).Scan(&active)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return active, err
}

// Patch changes a user: SQLAlchemy writes the columns that have changed, and no others.
func (a *App[ID]) Patch(ctx context.Context, userID ID, verified bool) error {
	_, err := a.exec(ctx, "UPDATE "+a.users()+" SET is_verified=? WHERE "+a.users()+".id = ?", verified, a.id(userID))
	return err
}

// Delete deletes a user.
func (a *App[ID]) Delete(ctx context.Context, userID ID) error {
	_, err := a.exec(ctx, "DELETE FROM "+a.users()+" WHERE "+a.users()+".id = ?", a.id(userID))
	return err
}
