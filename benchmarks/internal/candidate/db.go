package candidate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	mongov1 "go.mongodb.org/mongo-driver/mongo"
	optionsv1 "go.mongodb.org/mongo-driver/mongo/options"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	eventv1 "go.mongodb.org/mongo-driver/event"
	"go.mongodb.org/mongo-driver/v2/event"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/mongostore"
)

// Lifetime is the lifetime of every candidate's sessions.
const Lifetime = 12 * time.Hour

// Member is the application's user.
type Member struct {
	account.User[uuid.UUID] `bson:",inline"`
	Name                    string `bson:"name" json:"name"`
}

// Data names a database and its users, with a token for each. Latchkey and the guards by hand
// accept the tokens.
type Data struct {
	URI, Database string
	UserIDs       []uuid.UUID
	Tokens        []string // Tokens[i] is the token of UserIDs[i]
}

// DB is a candidate's connection to the data.
type DB struct {
	Data
	count   func() // called for each command; nil while time is measured
	driver2 *mongo.Database
	driver1 *mongov1.Database
	closers []func()
}

// Open connects to the database. It calls count, unless it is nil, for each command that is
// sent.
func Open(ctx context.Context, data Data, count func()) (*DB, error) {
	opts := options.Client().ApplyURI(data.URI)
	if count != nil {
		opts.SetMonitor(&event.CommandMonitor{Started: func(context.Context, *event.CommandStartedEvent) { count() }})
	}
	client, err := mongo.Connect(opts)
	if err != nil {
		return nil, err
	}
	return &DB{data, count, client.Database(data.Database), nil, nil}, client.Ping(ctx, nil)
}

// Driver1 connects with version 1 of the driver, for libraries that need it.
func (db *DB) Driver1(ctx context.Context) (*mongov1.Database, error) {
	if db.driver1 == nil {
		opts := optionsv1.Client().ApplyURI(db.URI)
		if count := db.count; count != nil {
			opts.SetMonitor(&eventv1.CommandMonitor{Started: func(context.Context, *eventv1.CommandStartedEvent) { count() }})
		}
		client, err := mongov1.Connect(ctx, opts)
		if err != nil {
			return nil, err
		}
		db.driver1 = client.Database(db.Database)
	}
	return db.driver1, nil
}

// Close stops the candidates' background work and disconnects.
func (db *DB) Close(ctx context.Context) error {
	for _, c := range db.closers {
		c()
	}
	err := db.driver2.Client().Disconnect(ctx)
	if db.driver1 != nil {
		err = errors.Join(err, db.driver1.Client().Disconnect(ctx))
	}
	return err
}

// Drop drops the database.
func (db *DB) Drop(ctx context.Context) error { return db.driver2.Drop(ctx) }

// ServerVersion returns the server's name and version.
func ServerVersion(ctx context.Context, data Data) (string, error) {
	db, err := Open(ctx, data, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = db.Close(ctx) }()
	var info struct {
		Version  string `bson:"version"`
		FerretDB string `bson:"ferretdbVersion"`
	}
	err = db.driver2.RunCommand(ctx, bson.D{{Key: "buildInfo", Value: 1}}).Decode(&info)
	switch info.FerretDB {
	case "":
		return "MongoDB " + info.Version, err
	case "unknown": // built from its Go module
		return "FerretDB", err
	default:
		return "FerretDB " + info.FerretDB, err
	}
}

// Seed inserts users, and tokens that are spread evenly over them. It returns the data with
// one token for each user.
func Seed(ctx context.Context, data Data, users, tokens int) (Data, error) {
	if tokens < users {
		return data, fmt.Errorf("candidate: %d tokens are too few for %d users", tokens, users)
	}
	db, err := Open(ctx, data, nil)
	if err != nil {
		return data, err
	}
	defer func() { _ = db.Close(ctx) }()
	lk, err := newLatchkey(db, latchkey.Config{})
	if err != nil {
		return data, err
	}
	if err := lk.EnsureIndexes(ctx); err != nil {
		return data, err
	}
	reg := options.Collection().SetRegistry(mongostore.NewRegistry())
	now := time.Now().UTC().Truncate(time.Millisecond)
	err = insertMany(ctx, db.driver2.Collection("users", reg), users, func(i int) any {
		m := member(i, now)
		data.UserIDs = append(data.UserIDs, m.ID)
		return m
	})
	if err != nil {
		return data, err
	}
	err = insertMany(ctx, db.driver2.Collection("access_tokens", reg), tokens, func(i int) any {
		secret, digest := token.Default.New()
		user := data.UserIDs[i%users]
		// The measured tokens are spread over the whole collection.
		if n := len(data.Tokens); n < users && i == n*(tokens/users) {
			data.Tokens = append(data.Tokens, secret)
			user = data.UserIDs[n]
		}
		return bson.D{
			{Key: "_id", Value: uuid.Must(uuid.NewV7())},
			{Key: "token", Value: digest},
			{Key: "user_id", Value: user},
			{Key: "created_at", Value: now},
			{Key: "user_agent", Value: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
			{Key: "client_ip", Value: "192.0.2.1"},
		}
	})
	return data, err
}

func insertMany(ctx context.Context, coll *mongo.Collection, n int, doc func(i int) any) error {
	const batch = 1000
	for start := 0; start < n; start += batch {
		docs := make([]any, 0, batch)
		for i := start; i < min(start+batch, n); i++ {
			docs = append(docs, doc(i))
		}
		if _, err := coll.InsertMany(ctx, docs); err != nil {
			return err
		}
	}
	return nil
}

// member returns a user whose password is unknown.
func member(i int, now time.Time) Member {
	return Member{
		User: account.User[uuid.UUID]{
			ID:             uuid.New(),
			Email:          fmt.Sprintf("member%d@example.com", i),
			HashedPassword: account.NewPasswordHash("$argon2id$v=19$m=65536,t=3,p=4$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
			Active:         true,
			CreatedAt:      now,
		},
		Name: fmt.Sprintf("Member %d", i),
	}
}
