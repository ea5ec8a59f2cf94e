package integration_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/mongostore"
)

// dirty are documents as other programs leave them, and what the audit calls them.
var dirty = []struct {
	doc                                      bson.D
	notNormal, collides, unreadable, badHash bool
}{
	{doc: bson.D{{Key: "_id", Value: "plain"}, {Key: "email", Value: "plain@example.com"}, {Key: "hashed_password", Value: "good"}}},
	{doc: bson.D{{Key: "_id", Value: "no password"}, {Key: "email", Value: "none@example.com"}}},
	{doc: bson.D{{Key: "_id", Value: "upper"}, {Key: "email", Value: "John@Example.com"}}, notNormal: true},
	{doc: bson.D{{Key: "_id", Value: "unicode"}, {Key: "email", Value: "bob@bücher.example"}}, notNormal: true},
	{doc: bson.D{{Key: "_id", Value: "space"}, {Key: "email", Value: " eve@example.com"}}, notNormal: true},
	{doc: bson.D{{Key: "_id", Value: "one"}, {Key: "email", Value: "Twice@example.com"}}, notNormal: true, collides: true},
	{doc: bson.D{{Key: "_id", Value: "two"}, {Key: "email", Value: "TWICE@example.com"}}, notNormal: true, collides: true},
	{doc: bson.D{{Key: "_id", Value: "exact"}, {Key: "email", Value: "exact@example.com"}}},
	{doc: bson.D{{Key: "_id", Value: "near"}, {Key: "email", Value: "Exact@example.com"}}, notNormal: true, collides: true},
	{doc: bson.D{{Key: "_id", Value: "hash"}, {Key: "email", Value: "hash@example.com"}, {Key: "hashed_password", Value: "bad"}}, badHash: true},
	{doc: bson.D{{Key: "_id", Value: "no address"}}, unreadable: true},
	{doc: bson.D{{Key: "_id", Value: "no text"}, {Key: "email", Value: 7}}, unreadable: true},
	{doc: bson.D{{Key: "_id", Value: "no mail"}, {Key: "email", Value: "carl"}}, unreadable: true},
	{doc: bson.D{{Key: "_id", Value: "flag"}, {Key: "email", Value: "flag@example.com"}, {Key: "is_active", Value: "yes"}}, unreadable: true},
	{doc: bson.D{{Key: "_id", Value: 7}, {Key: "email", Value: "seven@example.com"}}, unreadable: true},
}

func TestAuditAndNormalizeUsers(t *testing.T) {
	db := database(t)
	coll := db.Collection("users", options.Collection().SetRegistry(mongostore.NewRegistry()))
	for _, d := range dirty {
		if _, err := coll.InsertOne(t.Context(), d.doc); err != nil {
			t.Fatal(err)
		}
	}
	users, err := mongostore.NewUsers[person[string]](db, mongostore.UsersConfig{AnyCase: true})
	if err != nil {
		t.Fatal(err)
	}
	audit := func() mongostore.Audit {
		t.Helper()
		got, err := users.AuditUsers(t.Context(), mongostore.AuditConfig{CheckHash: func(hash string) error {
			if hash != "good" {
				return errors.New("bad")
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	want := func(which func(i int) bool) (f mongostore.Findings) {
		for i, d := range dirty {
			if which(i) {
				f.Count++
				id := d.doc[0].Value
				if n, ok := id.(int); ok {
					id = int32(n)
				}
				f.IDs = append(f.IDs, id)
			}
		}
		return f
	}
	collisions, unreadable := want(func(i int) bool { return dirty[i].collides }), want(func(i int) bool { return dirty[i].unreadable })
	before := mongostore.Audit{
		Accounts: int64(len(dirty)), NotNormal: want(func(i int) bool { return dirty[i].notNormal }),
		Collisions: collisions, Unreadable: unreadable, UnusableHashes: want(func(i int) bool { return dirty[i].badHash }),
	}
	sameAudit(t, "before", audit(), before)

	normalize := func(what string, cfg mongostore.NormalizeConfig, changed int64) {
		t.Helper()
		got, err := users.NormalizeUsers(t.Context(), cfg)
		if err != nil || got.Changed != changed || got.Collisions.Count != collisions.Count {
			t.Errorf("%s: got %+v, %v, want %d changed and %d collisions", what, got, err, changed, collisions.Count)
		}
	}
	normalize("a dry run", mongostore.NormalizeConfig{DryRun: true}, 3)
	sameAudit(t, "after a dry run", audit(), before)
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if _, err := users.NormalizeUsers(stopped, mongostore.NormalizeConfig{}); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: got %v, want context.Canceled", err)
	}
	normalize("for good", mongostore.NormalizeConfig{KeepAs: "email_as_typed"}, 3)
	normalize("again", mongostore.NormalizeConfig{KeepAs: "email_as_typed"}, 0)
	after := before
	after.NotNormal = collisions
	sameAudit(t, "after", audit(), after)
	var doc struct {
		Email string `bson:"email"`
		Typed string `bson:"email_as_typed"`
	}
	if err := coll.FindOne(t.Context(), bson.D{{Key: "_id", Value: "unicode"}}).Decode(&doc); err != nil || doc.Email != "bob@xn--bcher-kva.example" || doc.Typed != "bob@bücher.example" {
		t.Errorf("got %+v, %v, want both spellings", doc, err)
	}
}

// sameAudit compares audits, whatever the order of the documents.
func sameAudit(t *testing.T, when string, got, want mongostore.Audit) {
	t.Helper()
	sorted := func(a mongostore.Audit) string {
		var all []map[string]bool
		for _, f := range []mongostore.Findings{a.NotNormal, a.Collisions, a.Unreadable, a.UnusableHashes} {
			set := map[string]bool{fmt.Sprint("count ", f.Count): true}
			for _, id := range f.IDs {
				set[fmt.Sprint(id)] = true
			}
			all = append(all, set)
		}
		return fmt.Sprint(a.Accounts, all)
	}
	if sorted(got) != sorted(want) {
		t.Errorf("%s: got  %+v\nwant %+v", when, got, want)
	}
}

func TestNormalizeUsersChecksTheFieldToKeep(t *testing.T) {
	users := newUsers[person[uuid.UUID], uuid.UUID](t, database(t), mongostore.UsersConfig{})
	for _, name := range []string{"email", "_id", "is_active", "$x", "a.b"} {
		if got, err := users.NormalizeUsers(t.Context(), mongostore.NormalizeConfig{KeepAs: name}); err == nil || !reflect.DeepEqual(got, mongostore.Normalized{}) {
			t.Errorf("KeepAs %s: got %+v, %v, want an error", name, got, err)
		}
	}
}
