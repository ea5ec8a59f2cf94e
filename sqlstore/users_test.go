package sqlstore_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/sqlstore"
	"github.com/latchkey-go/latchkey/storetest"
	"github.com/latchkey-go/latchkey/strategy"
)

// member is an application's user.
type member[ID comparable] struct {
	account.User[ID]
	DisplayName string
	Age         int `db:"years"`
	Balance     float64
	Referrer    *string
	Avatar      []byte
	Labels      map[string]string
	Team        uuid.UUID
}

func TestUsers(t *testing.T) {
	t.Run("uuid", func(t *testing.T) { testUsers(t, uuid.New) })
	t.Run("int64", func(t *testing.T) { testUsers(t, newInt) })
	t.Run("string", func(t *testing.T) { testUsers(t, newString) })
}

// newMember returns a function that makes users with every field set.
func newMember[ID sqlstore.UserID](newID func() ID) func(email string) member[ID] {
	return func(email string) member[ID] {
		return member[ID]{
			User: account.User[ID]{
				ID: newID(), Email: email, HashedPassword: account.NewPasswordHash("hash of " + email), Active: true, Verified: true,
				Superuser: true, CreatedAt: time.UnixMilli(1790000000123).UTC(), Version: 3,
			},
			DisplayName: "Ann", Age: 42, Balance: 1.5, Referrer: new("Bob"), Avatar: []byte{0, 1, 255},
			Labels: map[string]string{"a": "b"}, Team: uuid.New(),
		}
	}
}

func testUsers[ID sqlstore.UserID](t *testing.T, newID func() ID) {
	t.Parallel()
	storetest.RunUsers(t, newMember(newID), func(t testing.TB) account.Store[member[ID], ID] {
		db := migrated[ID](t, sqlstore.Tables{})
		for _, column := range []string{
			"display_name TEXT", "years INTEGER", "balance REAL", "referrer TEXT", "avatar BLOB", "labels TEXT", "team TEXT",
		} {
			if _, err := db.ExecContext(t.Context(), "ALTER TABLE users ADD COLUMN "+column); err != nil {
				t.Fatal(err)
			}
		}
		users, err := sqlstore.NewUsers[member[ID]](db, sqlstore.SQLite, sqlstore.UsersConfig{})
		if err != nil {
			t.Fatal(err)
		}
		var _ strategy.UserSource[member[ID], ID] = users
		return users
	})
}

// Requests can have text that PostgreSQL cannot store. No account has it.
func TestTextThatTheDatabaseCannotStoreIsNotFound(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		users, err := sqlstore.NewUsers[account.User[int64]](serverDB[int64](t, s, sqlstore.Tables{}), s.dialect, sqlstore.UsersConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if err := users.Insert(t.Context(), account.User[int64]{ID: 1, Email: "ann@example.com", CreatedAt: time.UnixMilli(1)}); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"ann@example.com\x00", "\x00", "ann\xff@example.com"} {
			if _, err := users.ByEmail(t.Context(), text); !errors.Is(err, account.ErrUserNotFound) {
				t.Errorf("ByEmail(%q) returned %v, want ErrUserNotFound", text, err)
			}
			if list, err := users.List(t.Context(), text, "", 10); err != nil || len(list) > 0 {
				t.Errorf("List with the prefix %q returned %d accounts and the error %v, want none", text, len(list), err)
			}
		}
	})
}

// A value of the application that is taken is named by its key, and not shown.
func TestConflictDoesNotShowTheValue(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := serverDB[uuid.UUID](t, s, sqlstore.Tables{})
		for _, statement := range []string{"ALTER TABLE users ADD COLUMN name VARCHAR(50)", "CREATE UNIQUE INDEX users_name ON users (name)"} {
			if _, err := db.ExecContext(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		users, err := sqlstore.NewUsers[appUser](db, s.dialect, sqlstore.UsersConfig{})
		if err != nil {
			t.Fatal(err)
		}
		for i, email := range []string{"ann@example.com", "bob@example.com"} {
			user := appUser{Name: "a private name for key x"}
			user.ID, user.Email = uuid.New(), email
			err := users.Insert(t.Context(), user)
			if i == 0 && err != nil {
				t.Fatal(err)
			}
			if i == 1 && (!errors.Is(err, account.ErrConflict) || strings.Contains(err.Error(), "private") || !strings.Contains(err.Error(), "name")) {
				t.Errorf("got %v, want ErrConflict with the name of the key, and without the value", err)
			}
		}
		bob := appUser{Name: "Bob"}
		bob.ID, bob.Email = uuid.New(), "bob@example.com"
		if err := users.Insert(t.Context(), bob); err != nil {
			t.Fatal(err)
		}
		_, err = users.Edit(t.Context(), bob.ID, func(u *appUser) error { u.Name = "a private name for key x"; return nil })
		if !errors.Is(err, account.ErrConflict) || strings.Contains(err.Error(), "private") {
			t.Errorf("Edit returned %v, want ErrConflict without the value", err)
		}
	})
}
