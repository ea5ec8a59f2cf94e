package integration_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/internal/contract"
	"github.com/latchkey-go/latchkey/internal/fastapiusers"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/storetest"
	"github.com/latchkey-go/latchkey/strategy"
)

// newTokens returns a store with its indexes. On a server without TTL indexes it purges once an
// hour.
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

// newUsers returns a store with its index.
func newUsers[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]](tb testing.TB, db *mongo.Database, cfg mongostore.UsersConfig) *mongostore.Users[U, ID] {
	tb.Helper()
	users, err := mongostore.NewUsers[U, ID, P](db, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	if err := users.EnsureIndexes(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return users
}

// newAttempts returns a store with its index. On a server without TTL indexes it purges once an
// hour.
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

// newManager returns a manager with cheap hashes and login limits of its own.
func newManager[U strategy.User[uuid.UUID], P account.Embeds[U, uuid.UUID]](tb testing.TB, users account.Store[U, uuid.UUID], cfg account.Config, sessions ...account.Sessions[uuid.UUID]) *account.Manager[U, uuid.UUID] {
	tb.Helper()
	attempts, err := memstore.NewAttempts(0)
	if err != nil {
		tb.Fatal(err)
	}
	return newManagerOn[U, P](tb, users, attempts, cfg, sessions...)
}

// newManagerOn is newManager with a store of attempts.
func newManagerOn[U strategy.User[uuid.UUID], P account.Embeds[U, uuid.UUID]](tb testing.TB, users account.Store[U, uuid.UUID], attempts account.AttemptStore, cfg account.Config, sessions ...account.Sessions[uuid.UUID]) *account.Manager[U, uuid.UUID] {
	tb.Helper()
	cfg.Argon2, cfg.InsecureArgon2 = account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, true
	accounts, err := account.NewManager[U, uuid.UUID, P](users, nil, attempts, uuid.New, cfg, sessions...)
	if err != nil {
		tb.Fatal(err)
	}
	return accounts
}

// counter returns a function that counts from 1. It is safe for concurrent use.
func counter() func() int64 {
	var n atomic.Int64
	return func() int64 { return n.Add(1) }
}

func TestTokensKeepTheContract(t *testing.T) {
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

// person is a user with fields of many types and with any ID type.
type person[ID comparable] struct {
	account.User[ID] `bson:",inline"`
	Name             string            `bson:"name"`
	Tags             []string          `bson:"tags"`
	Settings         map[string]string `bson:"settings"`
	Born             time.Time         `bson:"born"`
	Team             uuid.UUID         `bson:"team"`
}

func TestUsersKeepTheContract(t *testing.T) {
	t.Run("uuid.UUID", func(t *testing.T) { testUsers(t, uuid.New) })
	t.Run("bson.ObjectID", func(t *testing.T) { testUsers(t, bson.NewObjectID) })
	t.Run("string", func(t *testing.T) { testUsers(t, uuid.NewString) })
	t.Run("int64", func(t *testing.T) { testUsers(t, counter()) })
	t.Run("other names of the fields", func(t *testing.T) {
		testUsersBy(t, uuid.New, mongostore.UsersConfig{Fields: mongostore.Fields{
			ID: "id", Email: "mail", HashedPassword: "password_hash", Active: "enabled", Verified: "confirmed", Superuser: "admin",
			CreatedAt: "since", TokenVersion: "version",
		}})
	})
	t.Run("addresses in any case", func(t *testing.T) { testUsersBy(t, uuid.New, mongostore.UsersConfig{AnyCase: true}) })
}

func testUsers[ID comparable](t *testing.T, newID func() ID) {
	testUsersBy(t, newID, mongostore.UsersConfig{})
}

func testUsersBy[ID comparable](t *testing.T, newID func() ID, cfg mongostore.UsersConfig) {
	storetest.RunUsers(t, newPerson(newID), func(tb testing.TB) account.Store[person[ID], ID] {
		return newUsers[person[ID], ID](tb, database(tb), cfg)
	})
}

// newPerson returns a function that makes persons with every field set.
func newPerson[ID comparable](newID func() ID) func(email string) person[ID] {
	return func(email string) person[ID] {
		return person[ID]{
			User: account.User[ID]{
				ID: newID(), Email: email, HashedPassword: account.NewPasswordHash("$argon2id$…"), Active: true, Verified: true, Superuser: true,
				CreatedAt: time.Date(2026, 11, 23, 12, 0, 0, 5e6, time.UTC),
				Version:   7,
			},
			Name:     "Jo",
			Tags:     []string{"a", "b"},
			Settings: map[string]string{"theme": "dark", "lang": "en", "zone": "UTC", "font": "small"},
			Born:     time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC),
			Team:     uuid.New(),
		}
	}
}

func TestAttemptsKeepTheContract(t *testing.T) {
	storetest.RunAttempts(t, func(tb testing.TB) account.AttemptStore {
		return newAttempts(tb, database(tb), mongostore.AttemptsConfig{})
	})
}

func TestOneTimeTokensKeepTheContract(t *testing.T) {
	t.Run("uuid.UUID", func(t *testing.T) { testOneTimeTokens(t, uuid.New) })
	t.Run("bson.ObjectID", func(t *testing.T) { testOneTimeTokens(t, bson.NewObjectID) })
	t.Run("string", func(t *testing.T) { testOneTimeTokens(t, uuid.NewString) })
	t.Run("int64", func(t *testing.T) { testOneTimeTokens(t, counter()) })
}

func testOneTimeTokens[ID comparable](t *testing.T, newID func() ID) {
	storetest.RunOneTimeTokens(t, newID, func(tb testing.TB) account.OneTimeTokenStore[ID] {
		return newOneTimeTokens[ID](tb, database(tb), mongostore.OneTimeTokensConfig{})
	})
}

func TestRevocationsKeepTheContract(t *testing.T) {
	storetest.RunRevocations(t, uuid.New, func(tb testing.TB) strategy.RevocationLog[uuid.UUID] {
		return newTokens[uuid.UUID](tb, database(tb), mongostore.TokensConfig{})
	})
}

// TestContract checks the HTTP contract over a listener, on the database under test.
func TestContract(t *testing.T) {
	contract.Run(t, func(tb testing.TB) contract.Backend { return newBackend(tb, database(tb)) })
}

func newBackend(tb testing.TB, db *mongo.Database) contract.Backend { return newBackendOf(tb, db, db) }

// newBackendOf is newBackend with another handle of the database for the test's own writes.
func newBackendOf(tb testing.TB, db, own *mongo.Database) contract.Backend {
	return contract.Backend{
		Tokens:  newTokens[uuid.UUID](tb, db, mongostore.TokensConfig{}),
		Users:   newUsers[contract.Member](tb, db, mongostore.UsersConfig{}),
		OneTime: newOneTimeTokens[uuid.UUID](tb, db, mongostore.OneTimeTokensConfig{}),
		SetFlags: func(ctx context.Context, id uuid.UUID, active, verified, superuser bool) error {
			_, err := own.Collection("users").UpdateByID(ctx, id4(id), bson.D{{Key: "$set", Value: bson.D{
				{Key: "is_active", Value: active}, {Key: "is_verified", Value: verified}, {Key: "is_superuser", Value: superuser},
			}}})
			return err
		},
		DeleteUser: func(ctx context.Context, id uuid.UUID) error {
			_, err := own.Collection("users").DeleteOne(ctx, bson.D{{Key: "_id", Value: id4(id)}})
			return err
		},
	}
}

// id4 returns a UUID as binary of subtype 4, for clients without Latchkey's registry.
func id4(id uuid.UUID) bson.Binary {
	return bson.Binary{Subtype: bson.TypeBinaryUUID, Data: id[:]}
}

// Fields that the application's struct does not have, and fields with a value of another type,
// survive an update.
func TestUpdateChangesNoOtherField(t *testing.T) {
	db := database(t)
	users := newUsers[person[uuid.UUID]](t, db, mongostore.UsersConfig{})
	p := person[uuid.UUID]{User: account.User[uuid.UUID]{ID: uuid.New(), Email: "jo@example.com", HashedPassword: account.NewPasswordHash("old")}}
	if err := users.Insert(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	coll := db.Collection("users")
	if _, err := coll.UpdateByID(t.Context(), id4(p.ID), bson.D{{Key: "$set", Value: bson.D{
		{Key: "foreign", Value: bson.D{{Key: "deep", Value: bson.A{1, "two"}}}}, {Key: "name", Value: 7},
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
	hash := func(s string) *account.PasswordHash { return new(account.NewPasswordHash(s)) }
	for _, c := range []struct {
		name   string
		change account.Change
		want   bson.M // the changed fields
	}{
		{"no change", account.Change{}, nil},
		{"a rehash", account.Change{IfPassword: hash("old"), Password: hash("rehashed")}, bson.M{"hashed_password": "rehashed"}},
		{"a change of password", account.Change{IfPassword: hash("rehashed"), Password: hash("new"), RevokeTokens: true},
			bson.M{"hashed_password": "new", "token_version": int64(1)}},
		{"a revocation", account.Change{RevokeTokens: true}, bson.M{"token_version": int64(2)}},
		{"a deactivation", account.Change{Active: new(false), RevokeTokens: true}, bson.M{"is_active": false, "token_version": int64(3)}},
		{"a verification", account.Change{IfEmail: new("jo@example.com"), Verified: new(true)}, bson.M{"is_verified": true}},
		{"a change of address", account.Change{IfEmail: new("jo@example.com"), IfVersion: new(int64(3)), Email: new("joe@example.com")},
			bson.M{"email": "joe@example.com"}},
		{"other flags", account.Change{Active: new(true), Superuser: new(true)}, bson.M{"is_active": true, "is_superuser": true}},
	} {
		if err := users.Apply(t.Context(), p.ID, c.change); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		maps.Copy(want, c.want)
		if got := read(); !reflect.DeepEqual(got, want) {
			t.Errorf("after %s the document is\n%v, want\n%v", c.name, got, want)
		}
	}
}

// Other programs write accounts without a password or a token version, or with null. These
// count as no password and version 0.
func TestConditionsOnMissingFieldsHold(t *testing.T) {
	db := database(t)
	users := newUsers[account.User[string]](t, db, mongostore.UsersConfig{})
	coll := db.Collection("users")
	some := account.NewPasswordHash("some")
	for i, fields := range []bson.D{
		nil,
		{{Key: "hashed_password", Value: nil}, {Key: "token_version", Value: nil}},
		{{Key: "hashed_password", Value: ""}, {Key: "token_version", Value: int32(0)}},
		{{Key: "hashed_password", Value: ""}, {Key: "token_version", Value: float64(0)}},
	} {
		id := fmt.Sprint("user ", i)
		doc := append(bson.D{{Key: "_id", Value: id}, {Key: "email", Value: fmt.Sprintf("user%d@example.com", i)}}, fields...)
		if _, err := coll.InsertOne(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
		read, err := users.ByID(t.Context(), id)
		if err != nil || !read.HashedPassword.IsZero() || read.Version != 0 {
			t.Fatalf("%v is read as %+v, %v, want no password and version 0", fields, read, err)
		}
		for _, wrong := range []account.Change{{IfPassword: &some}, {IfVersion: new(int64(1))}, {IfPassword: &read.HashedPassword, IfVersion: new(int64(1))}} {
			wrong.RevokeTokens, wrong.Password = true, &some
			if err := users.Apply(t.Context(), id, wrong); !errors.Is(err, account.ErrConflict) {
				t.Errorf("%v, a condition that does not hold: got %v, want ErrConflict", fields, err)
			}
		}
		all := account.Change{IfEmail: &read.Email, IfPassword: &read.HashedPassword, IfVersion: &read.Version}
		if err := users.Apply(t.Context(), id, all); err != nil {
			t.Errorf("%v, no change: got %v, want nil", fields, err)
		}
		all.Password, all.RevokeTokens = &some, true
		if err := users.Apply(t.Context(), id, all); err != nil {
			t.Errorf("%v: got %v, want nil", fields, err)
		}
		if got, err := users.ByID(t.Context(), id); err != nil || got.HashedPassword.Reveal() != some.Reveal() || got.Version != 1 {
			t.Errorf("%v: got %+v, %v, want the new password and version 1", fields, got, err)
		}
		if err := users.Apply(t.Context(), id, all); !errors.Is(err, account.ErrConflict) {
			t.Errorf("%v, again: got %v, want ErrConflict", fields, err)
		}
	}
}

// An account that cannot be read can be deleted, and its address is not free until then.
func TestUnreadableAccountIsDeleted(t *testing.T) {
	db := database(t)
	users := newUsers[account.User[string]](t, db, mongostore.UsersConfig{})
	broken := bson.D{{Key: "_id", Value: "broken"}, {Key: "email", Value: "jo@example.com"}, {Key: "token_version", Value: "seven"}}
	if _, err := db.Collection("users").InsertOne(t.Context(), broken); err != nil {
		t.Fatal(err)
	}
	jo := account.User[string]{ID: "jo", Email: "jo@example.com"}
	if err := users.Insert(t.Context(), jo); !errors.Is(err, account.ErrEmailTaken) {
		t.Errorf("Insert: got %v, want ErrEmailTaken", err)
	}
	if err := users.Delete(t.Context(), "broken"); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if err := users.Insert(t.Context(), jo); err != nil {
		t.Errorf("Insert of the freed address: %v", err)
	}
}

// Other programs can read the documents.
func TestDocumentsAreAsDocumented(t *testing.T) {
	db := database(t)
	tokens := newTokens[uuid.UUID](t, db, mongostore.TokensConfig{})
	at := func(minute int) time.Time { return time.Date(2026, 11, 23, 12, minute, 0, 123e6, time.UTC) }
	date := func(minute int) bson.DateTime { return bson.NewDateTimeFromTime(at(minute)) }
	row := strategy.AccessToken[uuid.UUID]{ID: uuid.Must(uuid.NewV7()), Digest: "digest", UserID: uuid.New(), CreatedAt: at(0)}
	full := strategy.AccessToken[uuid.UUID]{
		ID: uuid.Must(uuid.NewV7()), Digest: "another", UserID: uuid.New(), CreatedAt: at(0),
		LastUsedAt: at(1), AuthenticatedAt: at(2), TokenVersion: 3, ExpiresAt: at(4),
		Scopes: []string{"read"}, Name: "ci", UserAgent: "curl", ClientIP: "192.0.2.1",
	}
	for _, c := range []struct {
		row  strategy.AccessToken[uuid.UUID]
		want bson.M // no other field
	}{
		{row, bson.M{"_id": id4(row.ID), "token": "digest", "user_id": id4(row.UserID), "created_at": date(0)}},
		{full, bson.M{
			"_id": id4(full.ID), "token": "another", "user_id": id4(full.UserID), "created_at": date(0),
			"last_used_at": date(1), "authenticated_at": date(2), "token_version": int64(3), "expires_at": date(4),
			"scopes": bson.A{"read"}, "name": "ci", "user_agent": "curl", "client_ip": "192.0.2.1",
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

// A store that accepts legacy tokens keeps the contract in both stages, of all tokens and of the
// legacy ones.
func TestLegacyTokensKeepTheContract(t *testing.T) {
	for _, convert := range []bool{false, true} {
		stage := map[bool]string{false: "beside", true: "convert"}[convert]
		// The ID type makes no difference to the other tokens, so each stage checks them once.
		t.Run(stage+"/uuid.UUID", func(t *testing.T) { testLegacyTokens(t, uuid.New, convert, !convert) })
		t.Run(stage+"/bson.ObjectID", func(t *testing.T) { testLegacyTokens(t, bson.NewObjectID, convert, convert) })
	}
}

func testLegacyTokens[ID comparable](t *testing.T, newID func() ID, convert, others bool) {
	open := func(tb testing.TB) (strategy.LegacyStore[ID], storetest.Issue[ID]) {
		tb.Helper()
		db := database(tb)
		tokens := newTokens[ID](tb, db, mongostore.TokensConfig{})
		legacy, err := mongostore.NewLegacyTokens(tokens, mongostore.LegacyConfig{Collection: "old_tokens", Convert: convert})
		if err == nil {
			err = tokens.EnsureIndexes(tb.Context())
		}
		if err != nil {
			tb.Fatal(err)
		}
		old := db.Collection("old_tokens", options.Collection().SetRegistry(mongostore.NewRegistry()))
		return legacy, func(ctx context.Context, userID ID, createdAt time.Time) (string, error) {
			secret := fastapiusers.NewToken()
			_, err := old.InsertOne(ctx, bson.D{{Key: "token", Value: secret}, {Key: "user_id", Value: userID}, {Key: "created_at", Value: createdAt}})
			return secret, err
		}
	}
	storetest.RunLegacy(t, newID, open)
	if !others {
		return
	}
	storetest.Run(t, newID, func(tb testing.TB) strategy.Store[ID] {
		store, _ := open(tb)
		return store
	})
}
