package sqlstore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/sqlstore"
	"github.com/latchkey-go/latchkey/strategy"
)

func TestTokenThatCannotBeReadIsNoTokenButIsDeleted(t *testing.T) {
	db := migrated[int64](t, elsewhere)
	var events []event.Event
	tokens, err := sqlstore.NewTokens[int64](db, sqlstore.SQLite, sqlstore.TokensConfig{
		Tables: elsewhere, OnEvent: func(_ context.Context, e event.Event) { events = append(events, e) },
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, digest := range []string{"oldest", "older", "unreadable"} {
		token := strategy.AccessToken[int64]{ID: uuid.Must(uuid.NewV7()), Digest: digest, UserID: 7, CreatedAt: time.UnixMilli(int64(i + 1))}
		if err := tokens.Insert(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.ExecContext(t.Context(), "UPDATE access_tokens SET scopes = 'deploy' WHERE token = 'unreadable'"); err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.ByToken(t.Context(), "unreadable"); !errors.Is(err, strategy.ErrTokenNotFound) {
		t.Errorf("ByToken returned the error %v, want ErrTokenNotFound", err)
	}
	list, err := tokens.ByUser(t.Context(), 7, strategy.Position{}, 2)
	if err != nil || len(list) != 2 || list[0].Digest != "older" || list[1].Digest != "oldest" {
		t.Errorf("ByUser returned %d tokens and the error %v, want the two that can be read", len(list), err)
	}
	if len(events) != 2 {
		t.Fatalf("got %d events, want 2", len(events))
	}
	for _, e := range events {
		if e.Kind != event.InvalidDocument || e.UserID != int64(7) || e.Err == nil {
			t.Errorf("got the event %+v, want one of the kind %s with the user and the cause", e, event.InvalidDocument)
		}
	}
	if _, err := tokens.Delete(t.Context(), "unreadable"); err != nil {
		t.Errorf("Delete returned the error %v", err)
	}
}

func TestAccountThatCannotBeReadIsAnErrorAndNotListed(t *testing.T) {
	db := migrated[int64](t, sqlstore.Tables{})
	var events []event.Event
	users, err := sqlstore.NewUsers[account.User[int64]](db, sqlstore.SQLite, sqlstore.UsersConfig{
		OnEvent: func(_ context.Context, e event.Event) { events = append(events, e) },
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, email := range []string{"ann@example.com", "bob@example.com", "eve@example.com"} {
		user := account.User[int64]{ID: int64(i + 1), Email: email, CreatedAt: time.UnixMilli(1)}
		if err := users.Insert(t.Context(), user); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.ExecContext(t.Context(), "UPDATE users SET token_version = 'first' WHERE id = 1"); err != nil {
		t.Fatal(err)
	}
	if _, err := users.ByID(t.Context(), 1); err == nil || errors.Is(err, account.ErrUserNotFound) {
		t.Errorf("ByID returned the error %v, want another one than ErrUserNotFound", err)
	}
	list, err := users.List(t.Context(), "", "", 2)
	if err != nil || len(list) != 2 || list[0].ID != 2 || list[1].ID != 3 {
		t.Errorf("List returned %d accounts and the error %v, want the two that can be read", len(list), err)
	}
	if len(events) != 2 || events[0].Kind != event.InvalidDocument || events[0].UserID != int64(1) {
		t.Errorf("got the events %+v, want two of the kind %s with the user", events, event.InvalidDocument)
	}
}
