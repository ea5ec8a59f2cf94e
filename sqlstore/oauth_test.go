package sqlstore_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/sqlstore"
	"github.com/latchkey-go/latchkey/storetest"
)

func TestOAuthAccountsKeepTheContract(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		t.Run("uuid", func(t *testing.T) { testOAuthAccounts(t, s, uuid.New) })
		t.Run("int64", func(t *testing.T) { testOAuthAccounts(t, s, newInt) })
		t.Run("string", func(t *testing.T) { testOAuthAccounts(t, s, newString) })
	})
}

func testOAuthAccounts[ID sqlstore.UserID](t *testing.T, s server, newID func() ID) {
	db := serverDB[ID](t, s, elsewhere)
	storetest.RunOAuthAccounts(t, newID, func(t testing.TB) account.OAuthAccountStore[ID] {
		t.Helper()
		empty(t, db, "oauth_accounts")
		links, err := sqlstore.NewOAuthAccounts[ID](db, s.dialect, sqlstore.OAuthAccountsConfig{Tables: elsewhere})
		if err != nil {
			t.Fatal(err)
		}
		return links
	})
}

func TestDeletedUserHasNoOAuthAccounts(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		tables := sqlstore.Tables{Users: "members", OAuthAccounts: "links"}
		db := serverDB[int64](t, s, tables)
		users, err := sqlstore.NewUsers[account.User[int64]](db, s.dialect, sqlstore.UsersConfig{Tables: tables})
		if err != nil {
			t.Fatal(err)
		}
		links, err := sqlstore.NewOAuthAccounts[int64](db, s.dialect, sqlstore.OAuthAccountsConfig{Tables: tables})
		if err != nil {
			t.Fatal(err)
		}
		if err := users.Insert(t.Context(), account.User[int64]{ID: 7, Email: "ann@example.com", CreatedAt: time.UnixMilli(1)}); err != nil {
			t.Fatal(err)
		}
		link := account.OAuthAccount[int64]{Issuer: "https://a.example.com", Subject: "1", UserID: 7, CreatedAt: time.UnixMilli(1)}
		if err := links.Insert(t.Context(), link); err != nil {
			t.Fatal(err)
		}
		if err := users.Delete(t.Context(), 7); err != nil {
			t.Fatal(err)
		}
		if _, err := links.Find(t.Context(), link.Issuer, link.Subject); !errors.Is(err, account.ErrOAuthAccountNotFound) {
			t.Errorf("Find returned the error %v, want ErrOAuthAccountNotFound", err)
		}
	})
}

func TestOAuthAccountThatCannotBeReadIsAnErrorAndNotListed(t *testing.T) {
	db := migrated[int64](t, elsewhere)
	var events []event.Event
	links, err := sqlstore.NewOAuthAccounts[int64](db, sqlstore.SQLite, sqlstore.OAuthAccountsConfig{
		Tables: elsewhere, OnEvent: func(_ context.Context, e event.Event) { events = append(events, e) },
	})
	if err != nil {
		t.Fatal(err)
	}
	link := account.OAuthAccount[int64]{Issuer: "https://a.example.com", Subject: "248289761001", UserID: 7, CreatedAt: time.UnixMilli(1)}
	if err := links.Insert(t.Context(), link); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "UPDATE oauth_accounts SET created_at = 'yesterday'"); err != nil {
		t.Fatal(err)
	}
	if _, err := links.Find(t.Context(), link.Issuer, link.Subject); err == nil || errors.Is(err, account.ErrOAuthAccountNotFound) {
		t.Errorf("Find returned the error %v, want another one than ErrOAuthAccountNotFound", err)
	}
	if list, err := links.ListByUser(t.Context(), 7); err != nil || len(list) > 0 {
		t.Errorf("ListByUser returned %d links and the error %v, want none", len(list), err)
	}
	if len(events) != 2 || events[0].Kind != event.InvalidDocument || events[0].UserID != int64(7) || strings.Contains(events[0].Err.Error(), link.Subject) {
		t.Errorf("got the events %+v, want two of the kind %s with the user, without the subject", events, event.InvalidDocument)
	}
}
