package sqlstore_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"testing"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/sqlstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// conflicts is a driver without rows. A number of its queries fail as PostgreSQL's do with
// SERIALIZABLE, the first at its execution and the others at the end of the rows.
type conflicts struct {
	left, sent int
}

func (c *conflicts) Connect(context.Context) (driver.Conn, error) { return c, nil }
func (c *conflicts) Driver() driver.Driver                        { return nil }
func (c *conflicts) Prepare(string) (driver.Stmt, error)          { return nil, errors.ErrUnsupported }
func (c *conflicts) Begin() (driver.Tx, error)                    { return nil, errors.ErrUnsupported }
func (c *conflicts) Close() error                                 { return nil }

func (c *conflicts) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	c.sent++
	c.left--
	if c.left >= 0 && c.sent == 1 {
		return nil, &pgError{"40001"}
	}
	return &conflictRows{failed: c.left >= 0}, nil
}

type conflictRows struct{ failed bool }

func (r *conflictRows) Columns() []string { return []string{"id"} }
func (r *conflictRows) Close() error      { return nil }
func (r *conflictRows) Next([]driver.Value) error {
	if r.failed {
		return &pgError{"40001"}
	}
	return io.EOF
}

func TestReadsAreRepeatedOnConflicts(t *testing.T) {
	for name, c := range map[string]struct {
		read func(ctx context.Context, db *sql.DB) error
		want error
	}{
		"a token": {func(ctx context.Context, db *sql.DB) error {
			tokens, err := sqlstore.NewTokens[int64](db, sqlstore.PostgreSQL, sqlstore.TokensConfig{})
			if err != nil {
				return err
			}
			_, err = tokens.ByToken(ctx, "digest")
			return err
		}, strategy.ErrTokenNotFound},
		"a deletion that returns its row": {func(ctx context.Context, db *sql.DB) error {
			tokens, err := sqlstore.NewTokens[int64](db, sqlstore.PostgreSQL, sqlstore.TokensConfig{})
			if err != nil {
				return err
			}
			_, err = tokens.Delete(ctx, "digest")
			return err
		}, strategy.ErrTokenNotFound},
		"an account": {func(ctx context.Context, db *sql.DB) error {
			users, err := sqlstore.NewUsers[account.User[int64]](db, sqlstore.PostgreSQL, sqlstore.UsersConfig{})
			if err != nil {
				return err
			}
			_, err = users.ByID(ctx, 1)
			return err
		}, account.ErrUserNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			for _, failures := range []int{0, 1, 3} {
				server := &conflicts{left: failures}
				db := sql.OpenDB(server)
				err := c.read(t.Context(), db)
				_ = db.Close()
				if !errors.Is(err, c.want) || server.sent != failures+1 {
					t.Errorf("after %d conflicts the call returned %v with %d queries, want %v with %d", failures, err, server.sent, c.want, failures+1)
				}
			}
			server := &conflicts{left: 100}
			db := sql.OpenDB(server)
			defer func() { _ = db.Close() }()
			if err := c.read(t.Context(), db); !sqlstore.IsConflict(sqlstore.PostgreSQL, err) || server.sent != 10 {
				t.Errorf("with conflicts only, the call returned %v after %d queries, want the conflict after 10", err, server.sent)
			}
		})
	}
}
