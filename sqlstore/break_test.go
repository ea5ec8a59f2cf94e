package sqlstore_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/sqlstore"
)

// Two applications in one database, each with its own tables: both are purged.
func TestTwoApplicationsThatShareTheTableOfLeasesArePurged(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := s.open(t)
		var purgers []*sqlstore.Purger
		names := []string{"tokens_of_a", "tokens_of_b"}
		for _, name := range names {
			tables := sqlstore.Tables{UsersElsewhere: true, AccessTokens: name}
			if err := sqlstore.Migrate[int64](t.Context(), db, s.dialect, tables); err != nil {
				t.Fatal(err)
			}
			tokens, err := sqlstore.NewTokens[int64](db, s.dialect, sqlstore.TokensConfig{Tables: tables, Lifetime: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.ExecContext(t.Context(), "INSERT INTO "+name+" (id, token, user_id, created_at) VALUES ('"+uuid.NewString()+"', 'a digest', 1, 1)"); err != nil {
				t.Fatal(err)
			}
			purger, err := sqlstore.NewPurger(db, s.dialect, sqlstore.PurgerConfig{Tables: tables}, tokens)
			if err != nil {
				t.Fatal(err)
			}
			purgers = append(purgers, purger)
		}
		for _, purger := range purgers {
			purger.PurgeOnce(t.Context())
		}
		for _, name := range names {
			var n int
			if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM "+name).Scan(&n); err != nil || n != 0 {
				t.Errorf("the table %s has %d expired tokens (%v), want 0", name, n, err)
			}
		}
	})
}

// pointed embeds its account by a pointer, which is nil in a new value.
type pointed struct{ *account.User[uuid.UUID] }

// profile is embedded by a pointer.
type profile struct{ Nickname string }

type withProfile struct {
	account.User[uuid.UUID]
	*profile
}

func TestNewUsersRefusesEmbeddedPointers(t *testing.T) {
	db := sqlite(t)
	if _, err := sqlstore.NewUsers[pointed](db, sqlstore.SQLite, sqlstore.UsersConfig{}); err == nil || !strings.Contains(err.Error(), "*account.User") {
		t.Errorf("NewUsers of a struct with a pointer to the account returned %v, want an error that names it", err)
	}
	if _, err := sqlstore.NewUsers[withProfile](db, sqlstore.SQLite, sqlstore.UsersConfig{}); err == nil || !strings.Contains(err.Error(), "*sqlstore_test.profile") {
		t.Errorf("NewUsers of a struct with an embedded pointer returned %v, want an error that names it", err)
	}
}
