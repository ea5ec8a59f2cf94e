package sqlstore_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/internal/contract"
	"github.com/latchkey-go/latchkey/sqlstore"
)

// backend returns the stores of the HTTP contract on a database without tables.
func backend(t testing.TB, db *sql.DB, dialect sqlstore.Dialect) contract.Backend {
	t.Helper()
	if err := sqlstore.Migrate[uuid.UUID](t.Context(), db, dialect, sqlstore.Tables{}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "ALTER TABLE users ADD COLUMN name VARCHAR(100) NOT NULL DEFAULT ''"); err != nil {
		t.Fatal(err)
	}
	tokens, err := sqlstore.NewTokens[uuid.UUID](db, dialect, sqlstore.TokensConfig{})
	if err != nil {
		t.Fatal(err)
	}
	users, err := sqlstore.NewUsers[contract.Member](db, dialect, sqlstore.UsersConfig{})
	if err != nil {
		t.Fatal(err)
	}
	attempts, err := sqlstore.NewAttempts(db, dialect, sqlstore.AttemptsConfig{})
	if err != nil {
		t.Fatal(err)
	}
	oneTime, err := sqlstore.NewOneTimeTokens[uuid.UUID](db, dialect, sqlstore.OneTimeTokensConfig{})
	if err != nil {
		t.Fatal(err)
	}
	setFlags := sqlstore.Bind(dialect, "UPDATE users SET is_active = ?, is_verified = ?, is_superuser = ? WHERE id = ?")
	return contract.Backend{
		Tokens: tokens, Users: users, Attempts: attempts, OneTime: oneTime,
		SetFlags: func(ctx context.Context, id uuid.UUID, active, verified, superuser bool) error {
			_, err := db.ExecContext(ctx, setFlags, active, verified, superuser, id.String())
			return err
		},
		DeleteUser: users.Delete,
	}
}

var _ account.Store[contract.Member, uuid.UUID] = (*sqlstore.Users[contract.Member, uuid.UUID])(nil)

// TestContract checks every row of the HTTP contract. All rows share the tables: each makes its own
// users. Only the counters of logins are by address.
func TestContract(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := s.open(t)
		b := backend(t, db, s.dialect)
		contract.Run(t, func(tb testing.TB) contract.Backend {
			tb.Helper()
			if _, err := db.ExecContext(tb.Context(), "DELETE FROM login_attempts"); err != nil {
				tb.Fatal(err)
			}
			return b
		})
	})
}
