package mongostore_test

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/mongostore"
)

// database returns the handle of a database on a closed port.
func database(t *testing.T) *mongo.Database {
	t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Disconnect(t.Context()) })
	return client.Database("none")
}

type member struct {
	account.User[uuid.UUID] `bson:",inline"`
	Name                    string `bson:"name"`
}

type nested struct {
	account.User[uuid.UUID]
	Name string
}

func wantErrorNaming(t *testing.T, err error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Errorf("got the error %v, want one that contains %q", err, part)
	}
}

func TestTokensConfigErrorsNameTheField(t *testing.T) {
	for field, cfg := range map[string]mongostore.TokensConfig{
		"Lifetime is negative":                               {Lifetime: -1},
		"TTLGrace is negative":                               {TTLGrace: -1},
		"PurgeInterval is negative":                          {PurgeInterval: -1},
		"Timeout is negative":                                {Timeout: -1},
		"TokensConfig.Lifetime and TTLGrace together exceed": {Lifetime: math.MaxInt32 * time.Second, TTLGrace: time.Nanosecond},
		"TokensConfig.Registry":                              {Registry: bson.NewRegistry()},
		"TokensConfig.Collection is \"a$b\"":                 {Collection: "a$b"},
		"TokensConfig.Collection is \"system.tokens\"":       {Collection: "system.tokens"},
		"TokensConfig.Revocations is \"a\\x00b\"":            {Revocations: "a\x00b"},
	} {
		t.Run(field, func(t *testing.T) {
			_, err := mongostore.NewTokens[string](database(t), cfg)
			wantErrorNaming(t, err, field)
		})
	}
	t.Run("db is nil", func(t *testing.T) {
		_, err := mongostore.NewTokens[string](nil, mongostore.TokensConfig{})
		wantErrorNaming(t, err, "db is nil")
	})
	t.Run("an ID type without a codec", func(t *testing.T) {
		_, err := mongostore.NewTokens[complex128](database(t), mongostore.TokensConfig{})
		wantErrorNaming(t, err, "the ID type complex128")
	})
	t.Run("the longest lifetime is valid", func(t *testing.T) {
		_, err := mongostore.NewTokens[string](database(t), mongostore.TokensConfig{Lifetime: (math.MaxInt32 - 1) * time.Second, TTLGrace: time.Second})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestUsersConfigErrorsNameTheField(t *testing.T) {
	_, err := mongostore.NewUsers[member](nil, mongostore.UsersConfig{})
	wantErrorNaming(t, err, "db is nil")
	_, err = mongostore.NewUsers[member](database(t), mongostore.UsersConfig{Timeout: -1})
	wantErrorNaming(t, err, "UsersConfig.Timeout")
	_, err = mongostore.NewUsers[member](database(t), mongostore.UsersConfig{Registry: bson.NewRegistry()})
	wantErrorNaming(t, err, "UsersConfig.Registry")
	_, err = mongostore.NewUsers[nested](database(t), mongostore.UsersConfig{})
	wantErrorNaming(t, err, `bson:",inline"`)
	if _, err = mongostore.NewUsers[member](database(t), mongostore.UsersConfig{}); err != nil {
		t.Error(err)
	}
}

func TestAttemptsConfigErrorsNameTheField(t *testing.T) {
	for field, cfg := range map[string]mongostore.AttemptsConfig{
		"AttemptsConfig.PurgeInterval is negative": {PurgeInterval: -1},
		"AttemptsConfig.Timeout is negative":       {Timeout: -1},
	} {
		t.Run(field, func(t *testing.T) {
			_, err := mongostore.NewAttempts(database(t), cfg)
			wantErrorNaming(t, err, field)
		})
	}
	t.Run("db is nil", func(t *testing.T) {
		_, err := mongostore.NewAttempts(nil, mongostore.AttemptsConfig{})
		wantErrorNaming(t, err, "db is nil")
	})
	t.Run("the zero value is valid", func(t *testing.T) {
		attempts, err := mongostore.NewAttempts(database(t), mongostore.AttemptsConfig{})
		if err != nil {
			t.Fatal(err)
		}
		attempts.Close() // no purge runs; a second call is allowed
		attempts.Close()
	})
}

func TestRegistryWritesAndReadsUUIDs(t *testing.T) {
	type doc struct {
		ID  uuid.UUID
		Ptr *uuid.UUID
		All []uuid.UUID
	}
	id := uuid.New()
	in := doc{id, &id, []uuid.UUID{id, uuid.Nil}}
	var buf bytes.Buffer
	enc := bson.NewEncoder(bson.NewDocumentWriter(&buf))
	enc.SetRegistry(mongostore.NewRegistry())
	if err := enc.Encode(in); err != nil {
		t.Fatal(err)
	}
	raw := bson.Raw(buf.Bytes())
	for _, path := range [][]string{{"id"}, {"ptr"}, {"all", "0"}, {"all", "1"}} {
		if subtype, b, ok := raw.Lookup(path...).BinaryOK(); !ok || subtype != bson.TypeBinaryUUID || len(b) != 16 {
			t.Errorf("%v is written as %v, want binary of subtype 4", path, raw.Lookup(path...))
		}
	}
	decode := func(b []byte, v any) error {
		dec := bson.NewDecoder(bson.NewDocumentReader(bytes.NewReader(b)))
		dec.SetRegistry(mongostore.NewRegistry())
		return dec.Decode(v)
	}
	var out doc
	if err := decode(buf.Bytes(), &out); err != nil {
		t.Fatal(err)
	}
	if out.ID != id || *out.Ptr != id || len(out.All) != 2 || out.All[0] != id {
		t.Errorf("got %v, want %v", out, in)
	}
	for name, wrong := range map[string]any{
		"a string":            id.String(),
		"binary of subtype 0": bson.Binary{Data: id[:]},
		"binary of 15 bytes":  bson.Binary{Subtype: bson.TypeBinaryUUID, Data: id[:15]},
		"an ObjectID":         bson.NewObjectID(),
		"binary of no bytes":  bson.Binary{Subtype: bson.TypeBinaryUUID},
		"a document":          bson.D{},
		"a number":            7,
	} {
		b, err := bson.Marshal(bson.D{{Key: "id", Value: wrong}})
		if err != nil {
			t.Fatal(err)
		}
		if err := decode(b, &doc{}); err == nil {
			t.Errorf("%s was read as a UUID", name)
		}
	}
}
