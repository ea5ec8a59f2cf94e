package sqlstore_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/sqlstore"
	"github.com/latchkey-go/latchkey/storetest"
	"github.com/latchkey-go/latchkey/strategy"
)

var _ strategy.Joiner[appUser, uuid.UUID] = (*sqlstore.Users[appUser, uuid.UUID])(nil)

func TestJoiner(t *testing.T) {
	runJoiner(t, sqlstore.SQLite, func(t testing.TB) *sql.DB { return migrated[uuid.UUID](t, sqlstore.Tables{}) })
}

func TestJoinerOnServers(t *testing.T) {
	for _, s := range servers(t) {
		t.Run(s.dialect.String(), func(t *testing.T) {
			runJoiner(t, s.dialect, func(t testing.TB) *sql.DB { return serverDB[uuid.UUID](t, s, sqlstore.Tables{}) })
		})
	}
}

func runJoiner(t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB) {
	newUser := func(email string) account.User[uuid.UUID] {
		return account.User[uuid.UUID]{ID: uuid.New(), Email: email, Active: true, CreatedAt: time.UnixMilli(5).UTC()}
	}
	storetest.RunJoiner(t, newUser, func(t testing.TB) storetest.Joined[account.User[uuid.UUID], uuid.UUID] {
		db := open(t)
		users, err := sqlstore.NewUsers[account.User[uuid.UUID]](db, dialect, sqlstore.UsersConfig{})
		if err != nil {
			t.Fatal(err)
		}
		tokens, err := sqlstore.NewTokens[uuid.UUID](db, dialect, sqlstore.TokensConfig{})
		if err != nil {
			t.Fatal(err)
		}
		return storetest.Joined[account.User[uuid.UUID], uuid.UUID]{Users: users, Tokens: tokens}
	})
}

func TestJoin(t *testing.T) {
	testJoin(t, migrated[uuid.UUID](t, sqlstore.Tables{}), sqlstore.SQLite)
}

func TestJoinOnServers(t *testing.T) {
	for _, s := range servers(t) {
		t.Run(s.dialect.String(), func(t *testing.T) {
			testJoin(t, serverDB[uuid.UUID](t, s, sqlstore.Tables{}), s.dialect)
		})
	}
}

// One query returns what the two of ByToken and ByID return.
func testJoin(t *testing.T, db *sql.DB, dialect sqlstore.Dialect) {
	ctx := t.Context()
	if _, err := db.ExecContext(ctx, "ALTER TABLE users ADD COLUMN name TEXT"); err != nil {
		t.Fatal(err)
	}
	var unreadable []event.Event
	onEvent := func(_ context.Context, e event.Event) { unreadable = append(unreadable, e) }
	users, err := sqlstore.NewUsers[appUser](db, dialect, sqlstore.UsersConfig{OnEvent: onEvent})
	if err != nil {
		t.Fatal(err)
	}
	access, err := sqlstore.NewTokens[uuid.UUID](db, dialect, sqlstore.TokensConfig{OnEvent: onEvent})
	if err != nil {
		t.Fatal(err)
	}
	api, err := sqlstore.NewAPITokens[uuid.UUID](db, dialect, sqlstore.TokensConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ann := appUser{Name: "Ann"}
	ann.ID, ann.Email, ann.Active, ann.Version, ann.CreatedAt = uuid.New(), "ann@example.com", true, 3, time.UnixMilli(5).UTC()
	if err := users.Insert(ctx, ann); err != nil {
		t.Fatal(err)
	}
	for name, tokens := range map[string]*sqlstore.Tokens[uuid.UUID]{"access tokens": access, "API tokens": api} {
		row := strategy.AccessToken[uuid.UUID]{
			ID: uuid.Must(uuid.NewV7()), Digest: "the digest of " + name, UserID: ann.ID, CreatedAt: time.UnixMilli(1_000).UTC(), LastUsedAt: time.UnixMilli(2_000).UTC(),
			TokenVersion: 3, Scopes: []string{"read"}, Name: "laptop", UserAgent: "agent", ClientIP: "192.0.2.1",
		}
		if err := tokens.Insert(ctx, row); err != nil {
			t.Fatal(err)
		}
		join := users.Join(tokens)
		if join == nil {
			t.Fatalf("%s: Join returned nil", name)
		}
		gotRow, gotUser, err := join(ctx, row.Digest)
		wantRow, errToken := tokens.ByToken(ctx, row.Digest)
		wantUser, errUser := users.ByID(ctx, ann.ID)
		if err := errors.Join(err, errToken, errUser); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(gotRow, wantRow) || !reflect.DeepEqual(gotUser, wantUser) {
			t.Errorf("%s: the join returned %+v and %+v, want %+v and %+v", name, gotRow, gotUser, wantRow, wantUser)
		}
		if _, _, err := join(ctx, "another digest"); !errors.Is(err, strategy.ErrTokenNotFound) || errors.Is(err, strategy.ErrUserNotFound) {
			t.Errorf("%s: an unknown digest: got %v, want ErrTokenNotFound", name, err)
		}
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		if _, _, err := join(cancelled, row.Digest); !errors.Is(err, context.Canceled) || errors.Is(err, strategy.ErrTokenNotFound) {
			t.Errorf("%s: with a cancelled context: got %v, want context.Canceled", name, err)
		}
	}

	other, err := sqlstore.NewTokens[uuid.UUID](db, dialect, sqlstore.TokensConfig{Tables: elsewhere})
	if err != nil {
		t.Fatal(err)
	}
	if users.Join(other) != nil {
		t.Error("Join did not return nil for a store with other tables")
	}

	legacy, err := sqlstore.NewLegacyTokens(access, sqlstore.LegacyConfig{Table: "accesstoken"})
	if err != nil {
		t.Fatal(err)
	}
	if users.Join(legacy) != nil {
		t.Error("Join did not return nil for tokens of two tables")
	}

	if dialect != sqlstore.SQLite { // the others do not let wrong rows in
		return
	}
	conn, err := db.Conn(ctx) // its foreign keys are off
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	join := users.Join(access)
	for _, statement := range []string{
		"PRAGMA foreign_keys = 0",
		"INSERT INTO access_tokens (id, token, user_id, created_at) VALUES ('" + uuid.NewString() + "', 'of nobody', '" + uuid.NewString() + "', 1)",
		"INSERT INTO access_tokens (id, token, user_id, created_at) VALUES ('no UUID', 'unreadable', '" + ann.ID.String() + "', 1)",
	} {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	if row, _, err := join(ctx, "of nobody"); !errors.Is(err, strategy.ErrUserNotFound) || row.Digest != "of nobody" {
		t.Errorf("a token without a user: got %+v, %v, want the row and ErrUserNotFound", row, err)
	}
	if _, _, err := join(ctx, "unreadable"); !errors.Is(err, strategy.ErrTokenNotFound) || len(unreadable) != 1 {
		t.Errorf("a token that cannot be read: got %v and %d events, want ErrTokenNotFound and 1", err, len(unreadable))
	}
	if _, err := conn.ExecContext(ctx, "UPDATE users SET token_version = 'three'"); err != nil {
		t.Fatal(err)
	}
	_, _, err = join(ctx, "the digest of access tokens")
	if err == nil || errors.Is(err, strategy.ErrTokenNotFound) || errors.Is(err, strategy.ErrUserNotFound) || !strings.Contains(err.Error(), "token_version") || len(unreadable) != 2 {
		t.Errorf("a user that cannot be read: got %v and %d events, want an error that names the column, and 2", err, len(unreadable))
	}
}

// A context that ends between the row's arrival and its reading does not make a valid token look
// unknown: that would log the user out.
func TestContextThatEndsInALookUpIsNotAnUnknownToken(t *testing.T) {
	rows := &endingRows{}
	db := sql.OpenDB(rows)
	defer func() { _ = db.Close() }()
	onEvent := func(_ context.Context, e event.Event) { t.Errorf("an event: %v", e.Err) }
	users, err := sqlstore.NewUsers[account.User[uuid.UUID]](db, sqlstore.PostgreSQL, sqlstore.UsersConfig{OnEvent: onEvent})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := sqlstore.NewTokens[uuid.UUID](db, sqlstore.PostgreSQL, sqlstore.TokensConfig{OnEvent: onEvent})
	if err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func(context.Context) error{
		"the join": func(ctx context.Context) error {
			_, _, err := users.Join(tokens)(ctx, "digest")
			return err
		},
		"ByToken": func(ctx context.Context) error {
			_, err := tokens.ByToken(ctx, "digest")
			return err
		},
		"ByID": func(ctx context.Context) error {
			_, err := users.ByID(ctx, uuid.New())
			return err
		},
	} {
		for range 20 {
			ctx, cancel := context.WithCancel(t.Context())
			rows.cancel = cancel
			if err := call(ctx); err == nil || errors.Is(err, strategy.ErrTokenNotFound) || errors.Is(err, strategy.ErrUserNotFound) {
				t.Errorf("%s: got %v, want the context's error", name, err)
			}
		}
	}
}

// endingRows is a database whose every query has one row, of NULLs. The query's context is cancelled
// before the row can be read.
type endingRows struct {
	driver.Rows
	cancel func()
}

func (r *endingRows) Connect(context.Context) (driver.Conn, error) { return r, nil }
func (r *endingRows) Driver() driver.Driver                        { return nil }
func (r *endingRows) Prepare(string) (driver.Stmt, error)          { return nil, errors.ErrUnsupported }
func (r *endingRows) Begin() (driver.Tx, error)                    { return nil, errors.ErrUnsupported }
func (r *endingRows) Close() error                                 { return nil }

func (r *endingRows) QueryContext(_ context.Context, query string, _ []driver.NamedValue) (driver.Rows, error) {
	columns, _, _ := strings.Cut(query, " FROM ")
	return &endingRow{r, strings.Split(columns, ", ")}, nil
}

type endingRow struct {
	*endingRows
	columns []string
}

func (r *endingRow) Columns() []string { return r.columns }

func (r *endingRow) Next([]driver.Value) error {
	r.cancel()
	for range 10_000 {
		runtime.Gosched() // until database/sql waits to close the rows
	}
	return nil
}
