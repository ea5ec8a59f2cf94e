package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/sqlstore"
)

// Accounts whose address another program stored are found, whatever its spelling.
func TestAddressesInAnyCaseAreFound(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		testAnyCase(t, migrated[uuid.UUID](t, sqlstore.Tables{}), sqlstore.SQLite)
	})
}

func TestAddressesInAnyCaseAreFoundOnServers(t *testing.T) {
	for _, s := range servers(t) {
		t.Run(s.dialect.String(), func(t *testing.T) {
			testAnyCase(t, serverDB[uuid.UUID](t, s, sqlstore.Tables{}), s.dialect)
		})
	}
}

func testAnyCase(t *testing.T, db *sql.DB, dialect sqlstore.Dialect) {
	ctx := t.Context()
	var events atomic.Int64
	cfg := sqlstore.UsersConfig{OnEvent: func(_ context.Context, e event.Event) {
		if e.Kind == event.InvalidDocument {
			events.Add(1)
		}
	}}
	exact, err := sqlstore.NewUsers[account.User[uuid.UUID]](db, dialect, cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.AnyCase = true
	users, err := sqlstore.NewUsers[account.User[uuid.UUID]](db, dialect, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]uuid.UUID{}
	for _, email := range []string{"John@Example.com", "plain@example.com", "bob@BÜCHER.example", "Twice@example.com", "TWICE@example.com", "Exact@example.com", "exact@example.com", "strasse@example.com"} {
		ids[email] = uuid.New()
		if err := exact.Insert(ctx, account.User[uuid.UUID]{ID: ids[email], Email: email, Active: true}); err != nil {
			t.Fatal(err)
		}
	}
	for email, stored := range map[string]string{
		"john@example.com": "John@Example.com", "plain@example.com": "plain@example.com", "bob@xn--bcher-kva.example": "bob@BÜCHER.example",
		"exact@example.com": "exact@example.com", "strasse@example.com": "strasse@example.com",
		"twice@example.com": "", "straße@example.com": "", "jo%n@example.com": "", "nobody@example.com": "",
	} {
		user, err := users.ByEmail(ctx, email)
		if stored == "" {
			if !errors.Is(err, account.ErrUserNotFound) {
				t.Errorf("%s: got %v, %v, want ErrUserNotFound", email, user.ID, err)
			}
			continue
		}
		if err != nil || user.ID != ids[stored] || user.Email != stored {
			t.Errorf("%s: got %+v, %v, want the account of %s", email, user, err, stored)
		}
	}
	if n := events.Load(); n != 2 {
		t.Errorf("got %d events of accounts with the same address, want 2", n)
	}
	if _, err := exact.ByEmail(ctx, "john@example.com"); !errors.Is(err, account.ErrUserNotFound) {
		t.Errorf("without AnyCase: got %v, want ErrUserNotFound", err)
	}
	if err := users.Insert(ctx, account.User[uuid.UUID]{ID: uuid.New(), Email: "john@example.com"}); !errors.Is(err, account.ErrEmailTaken) {
		t.Errorf("an address that is taken in another spelling: got %v, want ErrEmailTaken", err)
	}
	to := "john@example.com"
	if err := users.Apply(ctx, ids["plain@example.com"], account.Change{Email: &to}); !errors.Is(err, account.ErrEmailTaken) {
		t.Errorf("a change to an address that is taken in another spelling: got %v, want ErrEmailTaken", err)
	}
	if err := users.Apply(ctx, ids["John@Example.com"], account.Change{Email: &to}); err != nil {
		t.Errorf("a change to another spelling of the account's own address: got %v", err)
	}
}

// A table of the application can have a collation to which "é" is "e". They are two addresses.
func TestCollationDoesNotMixUpAddresses(t *testing.T) {
	for _, s := range servers(t) {
		if s.dialect != sqlstore.MySQL {
			continue
		}
		db := serverDB[uuid.UUID](t, s, sqlstore.Tables{})
		if _, err := db.ExecContext(t.Context(), "ALTER TABLE users MODIFY email VARCHAR(320) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL"); err != nil {
			t.Fatal(err)
		}
		for _, anyCase := range []bool{false, true} {
			users, err := sqlstore.NewUsers[account.User[uuid.UUID]](db, s.dialect, sqlstore.UsersConfig{AnyCase: anyCase})
			if err != nil {
				t.Fatal(err)
			}
			if !anyCase {
				if err := users.Insert(t.Context(), account.User[uuid.UUID]{ID: uuid.New(), Email: "rené@example.com"}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := users.ByEmail(t.Context(), "rene@example.com"); !errors.Is(err, account.ErrUserNotFound) {
				t.Errorf("AnyCase %v: the address without the accent: got %v, want ErrUserNotFound", anyCase, err)
			}
			if _, err := users.ByEmail(t.Context(), "rené@example.com"); err != nil {
				t.Errorf("AnyCase %v: the address itself: %v", anyCase, err)
			}
		}
	}
}
