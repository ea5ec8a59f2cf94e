package sqlstore_test

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/internal/contract"
	"github.com/latchkey-go/latchkey/internal/secretscan"
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

// TestContract checks every row of the HTTP contract, also with hostile requests, and what they send
// to the database. All rows share the tables: each makes its own users. Only the counters of logins
// are by address.
func TestContract(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		secrets := recordedSecrets(t)
		db, sent := openRecorded(t, s.create(t))
		b := backend(t, db, s.dialect)
		sent.reset() // input does not reach the statements of Migrate
		contract.Run(t, func(tb testing.TB) contract.Backend {
			tb.Helper()
			if _, err := db.ExecContext(tb.Context(), "DELETE FROM login_attempts"); err != nil {
				tb.Fatal(err)
			}
			return b
		})
		checkSent(t, sent.sent, secrets())
	})
}

// recordedSecrets returns a function that returns the secrets which were recorded since.
func recordedSecrets(t *testing.T) func() []string {
	t.Helper()
	outer, name := os.Getenv(secretscan.Variable), filepath.Join(t.TempDir(), "secrets")
	t.Setenv(secretscan.Variable, name)
	return func() []string {
		t.Helper()
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		secrets, err := secretscan.ReadSecrets(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv(secretscan.Variable, outer)
		secretscan.Record(secrets...)
		return secrets
	}
}

// digest matches the digest of a token.
var digest = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// constantSQL matches statements that have no values but NULL, numbers and the empty string.
var constantSQL = regexp.MustCompile("^(?:[A-Za-z0-9_ ,.()=<>*+?$-]|'')*$")

// checkSent checks that input reached the database as arguments only, and that it was sent no token
// and no password: digests and hashes only.
func checkSent(t *testing.T, sent []statement, secrets []string) {
	t.Helper()
	secrets = slices.DeleteFunc(secrets, func(s string) bool { return digest.MatchString(s) || strings.HasPrefix(s, "$argon2id$") })
	texts, values := make(map[string]bool), make(map[string]bool)
	for _, s := range sent {
		texts[s.text] = true
		for _, arg := range s.args {
			switch v := arg.Value.(type) {
			case string:
				values[v] = true
			case nil, int64, int, bool:
			default:
				t.Errorf("got an argument of the type %T, want text, numbers and booleans only: %s", v, s.text)
			}
		}
	}
	for text := range texts {
		if !constantSQL.MatchString(strings.NewReplacer("`", "", `"`, "").Replace(text)) {
			t.Errorf("got a statement with more than names and placeholders: %s", text)
		}
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("got a statement with a secret: %s", text)
			}
		}
	}
	if len(texts) > 100 {
		t.Errorf("got %d different statements, want at most 100: they must not depend on the input", len(texts))
	}
	for value := range values {
		for _, secret := range secrets {
			if strings.Contains(value, secret) {
				t.Errorf("got an argument with a secret: %q", value)
			}
		}
	}
	for _, want := range []string{contract.HostileUsername, contract.HostileUserAgent, "ann\x00@example.com", "$where"} {
		if !values[want] {
			t.Errorf("%q did not reach the database as an argument", want)
		}
	}
	t.Logf("%d statements, %d different; %d texts; %d secrets", len(sent), len(texts), len(values), len(secrets))
}
