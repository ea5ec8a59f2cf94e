package sqlstore_test

import (
	"errors"
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
