// Package fastapiusers stands in for a running fastapi-users application in tests: it writes,
// reads and deletes users and tokens in MongoDB as its database strategy does with the Motor
// adapter and with the Beanie adapter.
package fastapiusers

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/crypto/bcrypt"

	"github.com/latchkey-go/latchkey/mongostore"
)

// App is an application with fastapi-users. ID is the type of its user IDs. It is safe for
// concurrent use.
type App[ID comparable] struct {
	Users, Tokens *mongo.Collection
	// UserID is the name of the field with a user's ID: "id" with Motor, "_id" with Beanie.
	UserID string
	// Lifetime is the lifetime of tokens.
	Lifetime time.Duration
	// Now is the clock.
	Now func() time.Time

	newID func() ID
}

// Motor returns an application with the Motor adapter.
func Motor(db *mongo.Database, lifetime time.Duration, now func() time.Time) *App[uuid.UUID] {
	return &App[uuid.UUID]{collection(db, "users"), collection(db, "access_tokens"), "id", lifetime, now, uuid.New}
}

// Beanie returns an application with the Beanie adapter.
func Beanie(db *mongo.Database, lifetime time.Duration, now func() time.Time) *App[bson.ObjectID] {
	return &App[bson.ObjectID]{collection(db, "User"), collection(db, "AccessToken"), "_id", lifetime, now, bson.NewObjectID}
}

func collection(db *mongo.Database, name string) *mongo.Collection {
	return db.Collection(name, options.Collection().SetRegistry(mongostore.NewRegistry()))
}

// EnsureIndexes makes the indexes that the adapters make, without those that need a collation.
func (a *App[ID]) EnsureIndexes(ctx context.Context) error {
	unique := options.Index().SetUnique(true)
	if _, err := a.Tokens.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: bson.D{{Key: "token", Value: 1}}, Options: unique}); err != nil {
		return err
	}
	if _, err := a.Tokens.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: bson.D{{Key: "created_at", Value: 1}}}); err != nil {
		return err
	}
	if a.UserID == "_id" {
		return nil
	}
	_, err := a.Users.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: bson.D{{Key: a.UserID, Value: 1}}, Options: unique})
	return err
}

// User returns the document of a new user, and its ID.
func (a *App[ID]) User(email, hash string) (bson.D, ID) {
	id := a.newID()
	doc := bson.D{
		{Key: a.UserID, Value: id}, {Key: "email", Value: email}, {Key: "hashed_password", Value: hash},
		{Key: "is_active", Value: true}, {Key: "is_superuser", Value: false}, {Key: "is_verified", Value: false},
	}
	return doc, id
}

// Hash returns the bcrypt hash of a password, at the least cost.
func Hash(password string) string {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		panic(err) // a password of a test is too long
	}
	return string(hash)
}

// NewToken returns a new token: secrets.token_urlsafe().
func NewToken() string {
	var b [32]byte
	_, _ = rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Token returns the document of a token.
func (a *App[ID]) Token(token string, userID ID, createdAt time.Time) bson.D {
	return bson.D{{Key: "token", Value: token}, {Key: "user_id", Value: userID}, {Key: "created_at", Value: createdAt}}
}

// Login issues a token.
func (a *App[ID]) Login(ctx context.Context, userID ID) (string, error) {
	token := NewToken()
	_, err := a.Tokens.InsertOne(ctx, a.Token(token, userID, a.Now()))
	return token, err
}

// Logout deletes a token.
func (a *App[ID]) Logout(ctx context.Context, token string) error {
	_, err := a.Tokens.DeleteOne(ctx, bson.D{{Key: "token", Value: token}})
	return err
}

// Accepts reports whether a token is one of an active user.
func (a *App[ID]) Accepts(ctx context.Context, token string) (bool, error) {
	oldest := a.Now().Add(-a.Lifetime)
	filter := bson.D{{Key: "token", Value: token}, {Key: "created_at", Value: bson.D{{Key: "$gte", Value: oldest}}}}
	var row struct {
		UserID bson.RawValue `bson:"user_id"`
	}
	if err := a.Tokens.FindOne(ctx, filter).Decode(&row); err != nil {
		return false, missing(err)
	}
	var user struct {
		Active bool `bson:"is_active"`
	}
	err := a.Users.FindOne(ctx, bson.D{{Key: a.UserID, Value: row.UserID}}).Decode(&user)
	return user.Active, missing(err)
}

func missing(err error) error {
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil
	}
	return err
}

// Patch replaces the document of a user by the fields that the Python model knows, as an update
// there does: every other field is dropped.
func (a *App[ID]) Patch(ctx context.Context, userID ID) error {
	filter := bson.D{{Key: a.UserID, Value: userID}}
	var doc bson.D
	if err := a.Users.FindOne(ctx, filter).Decode(&doc); err != nil {
		return err
	}
	var known bson.D
	for _, e := range doc {
		switch e.Key {
		case a.UserID, "email", "hashed_password", "is_active", "is_superuser", "is_verified":
			known = append(known, e)
		}
	}
	_, err := a.Users.ReplaceOne(ctx, filter, known)
	return err
}

// Sample is what Fill has written: tokens, and whether each must be accepted.
type Sample[ID comparable] struct {
	UserIDs []ID
	Tokens  []SampleToken
}

// SampleToken is a token of a Sample.
type SampleToken struct {
	Kind  string // such as "valid" or "expired"
	Token string
	Valid bool
	// Readable means that the row is a token, valid or not.
	Readable bool
}

// Fill writes users and tokens. hash is the hash of all passwords. Of each kind of dirt there is
// one in a hundred users or tokens, and at least one.
func (a *App[ID]) Fill(ctx context.Context, users, tokens int, hash string) (s Sample[ID], err error) {
	inactive := make(map[int]bool)
	docs := make([]any, users)
	for i := range users {
		email := fmt.Sprintf("user%d@example.com", i)
		every := func(n int) bool { return i%100 == n }
		if every(1) {
			email = fmt.Sprintf("User.%d@example.com", i)
		}
		doc, id := a.User(email, hash)
		switch {
		case every(2): // the flags are missing
			doc = doc[:3]
		case every(3): // the flags are null
			doc[3].Value, doc[4].Value, doc[5].Value = nil, nil, nil
		case every(4):
			doc[3].Value, inactive[i] = false, true
		case every(5):
			doc = append(doc, bson.E{Key: "oauth_accounts", Value: bson.A{bson.D{{Key: "oauth_name", Value: "google"}}}}, bson.E{Key: "nickname", Value: "Nick"})
		}
		docs[i], s.UserIDs = doc, append(s.UserIDs, id)
	}
	if err := insert(ctx, a.Users, docs); err != nil {
		return s, err
	}
	now := a.Now()
	docs = make([]any, tokens)
	for i := range tokens {
		u := i % users
		x := SampleToken{Kind: "valid", Token: NewToken(), Valid: true, Readable: true}
		age := time.Duration(i) * (a.Lifetime - time.Minute) / time.Duration(tokens)
		doc := a.Token(x.Token, s.UserIDs[u], now.Add(-age))
		dirt := func(kind string, readable bool) { x.Kind, x.Valid, x.Readable = kind, false, readable }
		switch i % 100 {
		case 10:
			dirt("expired", true)
			doc[2].Value = now.Add(-a.Lifetime - time.Second)
		case 11:
			dirt("of a deleted user", true)
			doc[1].Value = a.newID()
		case 12:
			dirt("without a creation time", false)
			doc = doc[:2]
		case 13:
			dirt("with a text for a creation time", false)
			doc[2].Value = now.Format(time.RFC3339)
		case 14:
			dirt("without a user", false)
			doc = bson.D{doc[0], doc[2]}
		case 15:
			dirt("with a text for a user", false)
			doc[1].Value = "carl"
		case 16:
			dirt("too short", false)
			x.Token = x.Token[:42]
			doc[0].Value = x.Token
		case 17:
			dirt("with a text for its _id", false)
			doc = append(bson.D{{Key: "_id", Value: fmt.Sprint("row ", i)}}, doc...)
		case 18:
			x.Kind = "with fields of the application"
			doc = append(doc, bson.E{Key: "device", Value: "phone"})
		default:
			if inactive[u] {
				dirt("of an inactive user", true)
			}
		}
		docs[i], s.Tokens = doc, append(s.Tokens, x)
	}
	return s, insert(ctx, a.Tokens, docs)
}

func insert(ctx context.Context, coll *mongo.Collection, docs []any) error {
	const batch = 1000
	for len(docs) > 0 {
		n := min(batch, len(docs))
		if _, err := coll.InsertMany(ctx, docs[:n]); err != nil {
			return err
		}
		docs = docs[n:]
	}
	return nil
}
