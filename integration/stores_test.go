package integration_test

import (
	"context"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/internal/contract"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
	"github.com/latchkey-go/latchkey/strategy/storetest"
)

// newTokens returns a store with its indexes, on whatever the server is.
func newTokens[ID comparable](tb testing.TB, db *mongo.Database, cfg mongostore.TokensConfig) *mongostore.Tokens[ID] {
	tb.Helper()
	if cfg.PurgeInterval == 0 {
		cfg.PurgeInterval = time.Hour
	}
	tokens, err := mongostore.NewTokens[ID](db, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(tokens.Close)
	if err := tokens.EnsureIndexes(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return tokens
}

func newUsers[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]](tb testing.TB, db *mongo.Database) *mongostore.Users[U, ID] {
	tb.Helper()
	users, err := mongostore.NewUsers[U, ID, P](db, mongostore.UsersConfig{})
	if err != nil {
		tb.Fatal(err)
	}
	if err := users.EnsureIndexes(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return users
}

// newAttempts returns a store with its index, on whatever the server is.
func newAttempts(tb testing.TB, db *mongo.Database, cfg mongostore.AttemptsConfig) *mongostore.Attempts {
	tb.Helper()
	if cfg.PurgeInterval == 0 {
		cfg.PurgeInterval = time.Hour
	}
	attempts, err := mongostore.NewAttempts(db, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(attempts.Close)
	if err := attempts.EnsureIndexes(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return attempts
}

func counter() func() int64 {
	var n atomic.Int64
	return func() int64 { return n.Add(1) }
}

func TestTokens(t *testing.T) {
	t.Run("uuid.UUID", func(t *testing.T) { testTokens(t, uuid.New) })
	t.Run("bson.ObjectID", func(t *testing.T) { testTokens(t, bson.NewObjectID) })
	t.Run("string", func(t *testing.T) { testTokens(t, uuid.NewString) })
	t.Run("int64", func(t *testing.T) { testTokens(t, counter()) })
}

func testTokens[ID comparable](t *testing.T, newID func() ID) {
	storetest.Run(t, newID, func(tb testing.TB) strategy.Store[ID] {
		return newTokens[ID](tb, database(tb), mongostore.TokensConfig{})
	})
}

// person has fields of its own of many kinds, and another ID type.
type person[ID comparable] struct {
	account.User[ID] `bson:",inline"`
	Name             string            `bson:"name"`
	Tags             []string          `bson:"tags"`
	Settings         map[string]string `bson:"settings"`
	Born             time.Time         `bson:"born"`
	Team             uuid.UUID         `bson:"team"`
}

func TestUsers(t *testing.T) {
	t.Run("uuid.UUID", func(t *testing.T) { testUsers(t, uuid.New) })
	t.Run("bson.ObjectID", func(t *testing.T) { testUsers(t, bson.NewObjectID) })
	t.Run("string", func(t *testing.T) { testUsers(t, uuid.NewString) })
	t.Run("int64", func(t *testing.T) { testUsers(t, counter()) })
}

func testUsers[ID comparable](t *testing.T, newID func() ID) {
	storetest.RunUsers(t, newPerson(newID), func(tb testing.TB) account.Store[person[ID], ID] {
		return newUsers[person[ID], ID](tb, database(tb))
	})
}

// newPerson makes people with all their fields set.
func newPerson[ID comparable](newID func() ID) func(email string) person[ID] {
	return func(email string) person[ID] {
		return person[ID]{
			User: account.User[ID]{
				ID: newID(), Email: email, HashedPassword: "$argon2id$…", Active: true, Verified: true, Superuser: true,
				CreatedAt: time.Date(2026, 11, 23, 12, 0, 0, 5e6, time.UTC),
				NotBefore: time.Date(2026, 11, 23, 12, 30, 0, 7e6, time.UTC),
			},
			Name:     "Jo",
			Tags:     []string{"a", "b"},
			Settings: map[string]string{"theme": "dark"},
			Born:     time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC),
			Team:     uuid.New(),
		}
	}
}

func TestAttempts(t *testing.T) {
	storetest.RunAttempts(t, func(tb testing.TB) account.AttemptStore {
		return newAttempts(tb, database(tb), mongostore.AttemptsConfig{})
	})
}

// The HTTP contract, over a real listener, on the real database.
func TestContract(t *testing.T) {
	contract.Run(t, func(tb testing.TB) contract.Backend { return newBackend(tb, database(tb)) })
}

func newBackend(tb testing.TB, db *mongo.Database) contract.Backend {
	return contract.Backend{
		Tokens: newTokens[uuid.UUID](tb, db, mongostore.TokensConfig{}),
		Users:  newUsers[contract.Member](tb, db),
		SetFlags: func(ctx context.Context, id uuid.UUID, active, verified, superuser bool) error {
			_, err := db.Collection("users").UpdateByID(ctx, id4(id), bson.D{{Key: "$set", Value: bson.D{
				{Key: "is_active", Value: active}, {Key: "is_verified", Value: verified}, {Key: "is_superuser", Value: superuser},
			}}})
			return err
		},
		DeleteUser: func(ctx context.Context, id uuid.UUID) error {
			_, err := db.Collection("users").DeleteOne(ctx, bson.D{{Key: "_id", Value: id4(id)}})
			return err
		},
	}
}

// id4 is a UUID as a client without Latchkey's registry writes it.
func id4(id uuid.UUID) bson.Binary {
	return bson.Binary{Subtype: bson.TypeBinaryUUID, Data: id[:]}
}

// What the application's struct does not know (a field of another service, of
// an older or newer version) survives an update too.
func TestAnUpdateTouchesOnlyWhatItChanges(t *testing.T) {
	db := database(t)
	users := newUsers[person[uuid.UUID]](t, db)
	p := person[uuid.UUID]{User: account.User[uuid.UUID]{ID: uuid.New(), Email: "jo@example.com", HashedPassword: "old"}}
	if err := users.Insert(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	coll := db.Collection("users")
	if _, err := coll.UpdateByID(t.Context(), id4(p.ID), bson.D{{Key: "$set", Value: bson.D{
		{Key: "legacy", Value: bson.D{{Key: "deep", Value: bson.A{1, "two"}}}}, {Key: "name", Value: 7},
	}}}); err != nil {
		t.Fatal(err)
	}
	read := func() (doc bson.M) {
		if err := coll.FindOne(t.Context(), bson.D{{Key: "_id", Value: id4(p.ID)}}).Decode(&doc); err != nil {
			t.Fatal(err)
		}
		return doc
	}
	want := read()
	want["hashed_password"] = "new"
	if err := users.ReplacePassword(t.Context(), p.ID, "old", "new", time.Time{}); err != nil {
		t.Fatal(err)
	}
	if got := read(); !reflect.DeepEqual(got, want) {
		t.Errorf("the document is\n%v, want\n%v", got, want)
	}
}

// The documents are as documented, so that other programs can read them.
func TestDocumentsAreAsDocumented(t *testing.T) {
	db := database(t)
	tokens := newTokens[uuid.UUID](t, db, mongostore.TokensConfig{})
	at := func(minute int) time.Time { return time.Date(2026, 11, 23, 12, minute, 0, 123e6, time.UTC) }
	date := func(minute int) bson.DateTime { return bson.NewDateTimeFromTime(at(minute)) }
	row := strategy.AccessToken[uuid.UUID]{ID: uuid.Must(uuid.NewV7()), Digest: "digest", UserID: uuid.New(), CreatedAt: at(0)}
	full := strategy.AccessToken[uuid.UUID]{
		ID: uuid.Must(uuid.NewV7()), Digest: "another", UserID: uuid.New(), CreatedAt: at(0),
		LastUsedAt: at(1), AuthenticatedAt: at(2), SeenNotBefore: at(3), ExpiresAt: at(4),
		Scopes: []string{"read"}, Name: "ci", UserAgent: "curl", ClientAddr: "192.0.2.1",
	}
	for _, c := range []struct {
		row  strategy.AccessToken[uuid.UUID]
		want bson.M // and nothing that is not used
	}{
		{row, bson.M{"_id": id4(row.ID), "token": "digest", "user_id": id4(row.UserID), "created_at": date(0)}},
		{full, bson.M{
			"_id": id4(full.ID), "token": "another", "user_id": id4(full.UserID), "created_at": date(0),
			"last_used_at": date(1), "authenticated_at": date(2), "seen_not_before": date(3), "expires_at": date(4),
			"scopes": bson.A{"read"}, "name": "ci", "user_agent": "curl", "client_addr": "192.0.2.1",
		}},
	} {
		if err := tokens.Insert(t.Context(), c.row); err != nil {
			t.Fatal(err)
		}
		var got bson.M
		if err := db.Collection("access_tokens").FindOne(t.Context(), bson.D{{Key: "token", Value: c.row.Digest}}).Decode(&got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("the document is\n%#v, want\n%#v", got, c.want)
		}
	}
}
