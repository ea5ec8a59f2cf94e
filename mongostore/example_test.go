package mongostore_test

import (
	"bytes"
	"fmt"
	"log"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

// Author is an application's own user type. Its IDs are ObjectIDs.
type Author struct {
	account.User[bson.ObjectID] `bson:",inline"`
	PenName                     string `bson:"pen_name"`
}

// The stores of tokens and accounts on one database. Connect and the constructors do no
// I/O. When the application starts, it calls EnsureIndexes on each store.
func Example() {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
	if err != nil {
		log.Fatal(err)
	}
	db := client.Database("app")

	tokens, err := mongostore.NewTokens[bson.ObjectID](db, mongostore.TokensConfig{Lifetime: 12 * time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	defer tokens.Close()
	users, err := mongostore.NewUsers[Author](db, mongostore.UsersConfig{})
	if err != nil {
		log.Fatal(err)
	}

	sessions, err := strategy.NewDatabase(tokens, users, strategy.Config{Lifetime: 12 * time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	defer sessions.Close()
	fmt.Println(sessions.Lifetime())
	// Output: 12h0m0s
}

// A user type with ObjectIDs and a field of its own. The account's fields and the
// application's are in one document.
func ExampleNewUsers() {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
	if err != nil {
		log.Fatal(err)
	}
	users, err := mongostore.NewUsers[Author](client.Database("app"), mongostore.UsersConfig{Collection: "authors"})
	if err != nil {
		log.Fatal(err)
	}
	_ = users // users.EnsureIndexes(ctx), account.NewManager(users, nil, …)

	id, err := bson.ObjectIDFromHex("65a1b2c3d4e5f60718293a4b")
	if err != nil {
		log.Fatal(err)
	}
	created := time.Date(2027, 1, 15, 8, 0, 0, 0, time.UTC)
	var doc, indented bytes.Buffer
	enc := bson.NewEncoder(bson.NewExtJSONValueWriter(&doc, false, false))
	enc.SetRegistry(mongostore.NewRegistry()) // the driver's own does not write password hashes
	err = enc.Encode(Author{
		User:    account.User[bson.ObjectID]{ID: id, Email: "jo@example.com", Active: true, CreatedAt: created, Version: 2},
		PenName: "J. O.",
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := bson.IndentExtJSON(&indented, doc.Bytes(), "", "  "); err != nil {
		log.Fatal(err)
	}
	fmt.Println(indented.String())
	// Output:
	// {
	//   "_id": {
	//     "$oid": "65a1b2c3d4e5f60718293a4b"
	//   },
	//   "email": "jo@example.com",
	//   "hashed_password": "",
	//   "is_active": true,
	//   "is_verified": false,
	//   "is_superuser": false,
	//   "created_at": {
	//     "$date": "2027-01-15T08:00:00Z"
	//   },
	//   "token_version": 2,
	//   "pen_name": "J. O."
	// }
}

// A login limiter whose counters all instances of the application share.
func ExampleNewAttempts() {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
	if err != nil {
		log.Fatal(err)
	}
	db := client.Database("app")
	users, err := mongostore.NewUsers[Author](db, mongostore.UsersConfig{})
	if err != nil {
		log.Fatal(err)
	}
	attempts, err := mongostore.NewAttempts(db, mongostore.AttemptsConfig{})
	if err != nil {
		log.Fatal(err)
	}
	defer attempts.Close()

	accounts, err := account.NewManager(users, nil, attempts, bson.NewObjectID, account.Config{})
	if err != nil {
		log.Fatal(err)
	}
	_ = accounts // accounts.Authenticate(ctx, email, password, "")
	fmt.Println("ready")
	// Output: ready
}

// The store of the tokens in mails, for all instances of an application. It needs indexes of
// its own: call EnsureIndexes when the application starts.
func ExampleNewOneTimeTokens() {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
	if err != nil {
		log.Fatal(err)
	}
	mails, err := mongostore.NewOneTimeTokens[bson.ObjectID](client.Database("app"), mongostore.OneTimeTokensConfig{})
	if err != nil {
		log.Fatal(err)
	}
	defer mails.Close()
	var store account.OneTimeTokenStore[bson.ObjectID] = mails
	_ = store // mails.EnsureIndexes(ctx)
	fmt.Println("ready")
	// Output: ready
}

// An audit trail is a listener for events: it goes beside the one that logs.
func ExampleNewAuditTrail() {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
	if err != nil {
		log.Fatal(err)
	}
	logEvents := event.Log(nil)
	trail, err := mongostore.NewAuditTrail[bson.ObjectID](client.Database("app"), mongostore.AuditTrailConfig{
		Retention: 365 * 24 * time.Hour,
		OnEvent:   logEvents, // what the trail drops is logged
	})
	if err != nil {
		log.Fatal(err)
	}
	defer trail.Close()
	// When the application starts: trail.EnsureIndexes(ctx)
	onEvent := event.Join(logEvents, trail.Record) // the OnEvent of every other Config
	_ = onEvent
	fmt.Println("ready")
	// Output: ready
}
