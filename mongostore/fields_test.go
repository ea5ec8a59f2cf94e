package mongostore_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/mongostore"
)

// legacy are the names of a collection that another program has made.
var legacy = mongostore.Fields{
	ID: "id", Email: "mail", HashedPassword: "password_hash", Active: "enabled", Verified: "confirmed", Superuser: "admin",
	CreatedAt: "since", TokenVersion: "tv",
}

func marshal(t testing.TB, doc any) bson.Raw {
	t.Helper()
	raw, err := bson.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestDocumentsAreReadByTheFieldsOfTheCollection(t *testing.T) {
	type d = bson.D
	for _, c := range []struct {
		name      string
		fields    mongostore.Fields
		doc, want d
	}{
		{"nothing to change", mongostore.Fields{}, d{{Key: "_id", Value: "a"}, {Key: "is_active", Value: false}}, d{{Key: "_id", Value: "a"}, {Key: "is_active", Value: false}}},
		{"no is_active", mongostore.Fields{}, d{{Key: "_id", Value: "a"}}, d{{Key: "_id", Value: "a"}, {Key: "is_active", Value: true}}},
		{"is_active is null", mongostore.Fields{}, d{{Key: "is_active", Value: nil}, {Key: "_id", Value: "a"}}, d{{Key: "_id", Value: "a"}, {Key: "is_active", Value: true}}},
		{"other names", legacy,
			d{{Key: "_id", Value: bson.NilObjectID}, {Key: "id", Value: "a"}, {Key: "mail", Value: "m"}, {Key: "password_hash", Value: "h"}, {Key: "enabled", Value: false}, {Key: "confirmed", Value: true}, {Key: "admin", Value: true}, {Key: "since", Value: 1}, {Key: "tv", Value: 2}, {Key: "name", Value: "Ann"}},
			d{{Key: "_id", Value: "a"}, {Key: "email", Value: "m"}, {Key: "hashed_password", Value: "h"}, {Key: "is_active", Value: false}, {Key: "is_verified", Value: true}, {Key: "is_superuser", Value: true}, {Key: "created_at", Value: 1}, {Key: "token_version", Value: int64(2)}, {Key: "name", Value: "Ann"}}},
		{"fields that have the account's names but mean something else", legacy,
			d{{Key: "id", Value: "a"}, {Key: "email", Value: "another"}, {Key: "is_active", Value: false}, {Key: "is_superuser", Value: true}, {Key: "token_version", Value: 9}},
			d{{Key: "_id", Value: "a"}, {Key: "is_active", Value: true}}},
		{"one other name", mongostore.Fields{Active: "on"}, d{{Key: "_id", Value: "a"}, {Key: "on", Value: false}}, d{{Key: "_id", Value: "a"}, {Key: "is_active", Value: false}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := mongostore.CanonicalBy(c.fields, marshal(t, c.doc))
			if want := marshal(t, c.want); err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %v, %v, want %v", got, err, want)
			}
		})
	}
}

func TestFieldNamesAreChecked(t *testing.T) {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Disconnect(t.Context()) })
	type plain struct {
		account.User[uuid.UUID] `bson:",inline"`
		Name                    string `bson:"name"`
	}
	type withMail struct {
		account.User[uuid.UUID] `bson:",inline"`
		Mail                    string `bson:"mail"`
	}
	for name, c := range map[string]struct {
		fields   mongostore.Fields
		ofMail   bool // the user has a field mail of its own
		contains string
	}{
		"defaults":                      {},
		"all of them":                   {fields: legacy},
		"a path":                        {fields: mongostore.Fields{Email: "contact.mail"}, contains: "Email"},
		"an operator":                   {fields: mongostore.Fields{ID: "$id"}, contains: "ID"},
		"a name twice":                  {fields: mongostore.Fields{Active: "x", Verified: "x"}, contains: "Verified"},
		"the name of another's default": {fields: mongostore.Fields{Active: "is_verified"}, contains: "is_verified"},
		"_id":                           {fields: mongostore.Fields{Email: "_id"}, contains: "Email"},
		"an own field of the user":      {fields: legacy, ofMail: true, contains: "mail"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := mongostore.UsersConfig{Fields: c.fields}
			var err error
			if c.ofMail {
				_, err = mongostore.NewUsers[withMail](client.Database("test"), cfg)
			} else {
				_, err = mongostore.NewUsers[plain](client.Database("test"), cfg)
			}
			if c.contains == "" && err != nil || c.contains != "" && (err == nil || !strings.Contains(err.Error(), c.contains)) {
				t.Errorf("got %v, want an error that contains %q", err, c.contains)
			}
		})
	}
}

// A document of any shape is read or refused, and never with the ID of another field.
func FuzzCanonical(f *testing.F) {
	for _, doc := range []bson.D{{}, {{Key: "id", Value: "a"}, {Key: "tv", Value: true}}, {{Key: "_id", Value: "x"}, {Key: "enabled", Value: nil}, {Key: "tv", Value: 1.0}}} {
		f.Add([]byte(marshal(f, doc)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		doc := bson.Raw(data)
		if doc.Validate() != nil {
			return
		}
		for _, fields := range []mongostore.Fields{{}, legacy} {
			got, err := mongostore.CanonicalBy(fields, doc)
			if err != nil {
				continue
			}
			if err := got.Validate(); err != nil {
				t.Fatalf("%v became an invalid document: %v", doc, err)
			}
			id := "_id"
			if fields == legacy {
				id = "id"
			}
			if want, is := doc.Lookup(id), got.Lookup("_id"); !is.Equal(want) {
				t.Fatalf("the ID of %v is read as %v", doc, is)
			}
		}
	})
}

func BenchmarkCanonical(b *testing.B) {
	doc := marshal(b, bson.D{{Key: "_id", Value: "a"}, {Key: "email", Value: "ann@example.com"}, {Key: "hashed_password", Value: strings.Repeat("x", 97)},
		{Key: "is_active", Value: true}, {Key: "is_verified", Value: true}, {Key: "is_superuser", Value: false}, {Key: "token_version", Value: int64(1)}})
	renamed := marshal(b, bson.D{{Key: "id", Value: "a"}, {Key: "mail", Value: "ann@example.com"}, {Key: "password_hash", Value: strings.Repeat("x", 97)},
		{Key: "enabled", Value: true}, {Key: "confirmed", Value: true}, {Key: "admin", Value: false}, {Key: "tv", Value: int64(1)}})
	for _, c := range []struct {
		name string
		doc  bson.Raw
		read func(bson.Raw) (bson.Raw, error)
	}{{"as account.User", doc, mongostore.CanonicalReader(mongostore.Fields{})}, {"other names", renamed, mongostore.CanonicalReader(legacy)}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.read(c.doc); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
