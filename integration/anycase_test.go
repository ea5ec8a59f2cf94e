package integration_test

import (
	"errors"
	"testing"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/mongostore"
)

// Accounts whose address another program stored are found, whatever its spelling.
func TestAddressesInAnyCaseAreFound(t *testing.T) {
	db := database(t)
	log := new(events)
	users := newUsers[person[uuid.UUID], uuid.UUID](t, db, mongostore.UsersConfig{AnyCase: true, OnEvent: log.add})
	ids := map[string]uuid.UUID{}
	coll := db.Collection("users", options.Collection().SetRegistry(mongostore.NewRegistry()))
	for _, email := range []string{"John@Example.com", "plain@example.com", "bob@BÜCHER.example", "Twice@example.com", "TWICE@example.com", "Exact@example.com", "exact@example.com", "strasse@example.com"} {
		ids[email] = uuid.New()
		if _, err := coll.InsertOne(t.Context(), bson.D{{Key: "_id", Value: ids[email]}, {Key: "email", Value: email}}); err != nil {
			t.Fatal(err)
		}
	}
	for email, stored := range map[string]string{
		"john@example.com": "John@Example.com", "plain@example.com": "plain@example.com", "bob@xn--bcher-kva.example": "bob@BÜCHER.example",
		"exact@example.com": "exact@example.com", "strasse@example.com": "strasse@example.com",
		"twice@example.com": "", "straße@example.com": "", "jo*n@example.com": "", "nobody@example.com": "",
	} {
		user, err := users.ByEmail(t.Context(), email)
		if stored == "" {
			if !errors.Is(err, account.ErrUserNotFound) {
				t.Errorf("%s: got %v, %v, want ErrUserNotFound", email, user.ID, err)
			}
			continue
		}
		if err != nil || user.ID != ids[stored] || user.Email != stored || !user.Active {
			t.Errorf("%s: got %+v, %v, want the active account of %s", email, user.User, err, stored)
		}
	}
	if n := log.count(event.InvalidDocument); n != 2 {
		t.Errorf("got %d events of accounts with the same address, want 2", n)
	}
	if err := users.Insert(t.Context(), newPerson(uuid.New)("john@example.com")); !errors.Is(err, account.ErrEmailTaken) {
		t.Errorf("an address that is taken in another spelling: got %v, want ErrEmailTaken", err)
	}
	to := "john@example.com"
	if err := users.Apply(t.Context(), ids["plain@example.com"], account.Change{Email: &to}); !errors.Is(err, account.ErrEmailTaken) {
		t.Errorf("a change to an address that is taken in another spelling: got %v, want ErrEmailTaken", err)
	}
	if err := users.Apply(t.Context(), ids["John@Example.com"], account.Change{Email: &to}); err != nil {
		t.Errorf("a change to another spelling of the account's own address: got %v", err)
	}
}
