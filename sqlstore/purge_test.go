package sqlstore_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/sqlstore"
	"github.com/latchkey-go/latchkey/strategy"
)

func TestPurgeRemovesExpiredTokensOnly(t *testing.T) {
	now := time.UnixMilli(1790000000000).UTC()
	db := migrated[int64](t, elsewhere)
	tokens, err := sqlstore.NewTokens[int64](db, sqlstore.SQLite, sqlstore.TokensConfig{
		Tables: elsewhere, Lifetime: time.Hour, Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	ends := now.Add(-time.Hour - 5*time.Minute) // of the grace
	insert := func(name string, created, expires time.Time) {
		t.Helper()
		token := strategy.AccessToken[int64]{ID: uuid.Must(uuid.NewV7()), Digest: name, UserID: 1, CreatedAt: created, ExpiresAt: expires}
		if err := tokens.Insert(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 1200 { // more than a batch
		insert(fmt.Sprint("old ", i), ends.Add(-time.Millisecond), time.Time{})
	}
	insert("in the grace", ends, time.Time{})
	insert("expired by itself", now, now.Add(-5*time.Minute-time.Millisecond))
	insert("expired by itself, in the grace", now, now.Add(-5*time.Minute))
	if n, err := tokens.Purge(t.Context()); err != nil || n != 1201 {
		t.Errorf("Purge returned %d and the error %v, want 1201 and none", n, err)
	}
	for name, kept := range map[string]bool{"old 0": false, "old 1199": false, "expired by itself": false, "in the grace": true, "expired by itself, in the grace": true} {
		_, err := tokens.ByToken(t.Context(), name)
		if found := !errors.Is(err, strategy.ErrTokenNotFound); found != kept {
			t.Errorf("the token %q: found %v (error %v), want %v", name, found, err, kept)
		}
	}
}

func TestDeletedAccountTakesItsTokensWithIt(t *testing.T) {
	db := migrated[int64](t, sqlstore.Tables{})
	users, err := sqlstore.NewUsers[account.User[int64]](db, sqlstore.SQLite, sqlstore.UsersConfig{})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := sqlstore.NewTokens[int64](db, sqlstore.SQLite, sqlstore.TokensConfig{})
	if err != nil {
		t.Fatal(err)
	}
	token := strategy.AccessToken[int64]{ID: uuid.Must(uuid.NewV7()), Digest: "digest", UserID: 7, CreatedAt: time.UnixMilli(1)}
	if err := tokens.Insert(t.Context(), token); err == nil {
		t.Error("Insert stored a token of a user who does not exist")
	}
	if err := users.Insert(t.Context(), account.User[int64]{ID: 7, Email: "ann@example.com", CreatedAt: time.UnixMilli(1)}); err != nil {
		t.Fatal(err)
	}
	if err := tokens.Insert(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	if err := users.Delete(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.ByToken(t.Context(), "digest"); !errors.Is(err, strategy.ErrTokenNotFound) {
		t.Errorf("ByToken returned the error %v, want ErrTokenNotFound", err)
	}
}

func TestEditLeavesColumnsThatTheStructDoesNotHave(t *testing.T) {
	db := migrated[int64](t, sqlstore.Tables{})
	for _, statement := range []string{
		"ALTER TABLE users ADD COLUMN nickname TEXT", "ALTER TABLE users ADD COLUMN other TEXT DEFAULT 'kept'",
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	type user struct {
		account.User[int64]
		Nickname string
	}
	users, err := sqlstore.NewUsers[user](db, sqlstore.SQLite, sqlstore.UsersConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := users.Insert(t.Context(), user{User: account.User[int64]{ID: 7, Email: "ann@example.com", CreatedAt: time.UnixMilli(1)}}); err != nil {
		t.Fatal(err)
	}
	if _, err := users.Edit(t.Context(), 7, func(u *user) error { u.Nickname = "Annie"; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := users.Apply(t.Context(), 7, account.Change{RevokeTokens: true}); err != nil {
		t.Fatal(err)
	}
	var nickname, other string
	if err := db.QueryRowContext(t.Context(), "SELECT nickname, other FROM users WHERE id = 7").Scan(&nickname, &other); err != nil || nickname != "Annie" || other != "kept" {
		t.Errorf("the columns are %q and %q (error %v), want Annie and kept", nickname, other, err)
	}
}
