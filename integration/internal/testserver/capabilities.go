package testserver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Capabilities is what a server can do, as it was seen to do, beyond the commands that every server has.
type Capabilities struct {
	Version string // "8.0.4", or "7.0.42 (FerretDB)": the MongoDB it says it is

	TTL           bool // indexes with expireAfterSeconds
	Lookup        bool // a $lookup behind a $match, as a token is read with its user
	Transactions  bool
	ChangeStreams bool
	Explain       bool // explain shows the winning plan, and so the index
}

// String is "version 8.0.4: ttl, lookup, explain, no transactions, no changestreams".
func (c Capabilities) String() string {
	var has, lacks []string
	for _, capability := range []struct {
		name string
		have bool
	}{
		{"ttl", c.TTL},
		{"lookup", c.Lookup},
		{"transactions", c.Transactions},
		{"changestreams", c.ChangeStreams},
		{"explain", c.Explain},
	} {
		if capability.have {
			has = append(has, capability.name)
		} else {
			lacks = append(lacks, "no "+capability.name)
		}
	}
	return fmt.Sprintf("version %s: %s", c.Version, strings.Join(append(has, lacks...), ", "))
}

// probe finds out what the server can do, on a database of its own that it drops.
func probe(ctx context.Context, client *mongo.Client) (found Capabilities, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	db := client.Database(databaseName())
	defer func() { err = errors.Join(err, drop(ctx, db)) }()

	docs := db.Collection("probe")
	if _, err := docs.InsertOne(ctx, bson.M{"created_at": time.Now()}); err != nil {
		return found, fmt.Errorf("probe: insert: %w", err)
	}

	ferret := false
	if found.Version, ferret, err = version(ctx, db); err != nil {
		return found, fmt.Errorf("probe: version: %w", err)
	}
	if found.TTL, err = can(ttl(ctx, docs)); err != nil {
		return found, fmt.Errorf("probe: TTL index: %w", err)
	}
	if found.Lookup, err = can(lookup(ctx, docs)); err != nil {
		return found, fmt.Errorf("probe: $lookup: %w", err)
	}
	if found.Explain, err = can(explain(ctx, docs)); err != nil {
		return found, fmt.Errorf("probe: explain: %w", err)
	}
	replicated, err := can(replicated(ctx, db))
	if err != nil {
		return found, fmt.Errorf("probe: hello: %w", err)
	}
	// FerretDB can be told to name a replica set, and ignores transactions silently all the same.
	found.Transactions = replicated && !ferret
	found.ChangeStreams = replicated && !ferret
	return found, nil
}

// errLacks is the answer of a server that ran the command, and showed that it cannot do what it was probed for.
var errLacks = errors.New("not supported")

// can tells a server that says no from one that could not be asked, or did not let us.
func can(err error) (bool, error) {
	const unauthorized = 13
	var answer mongo.CommandError
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, errLacks), errors.As(err, &answer) && answer.Code != unauthorized && !mongo.IsNetworkError(err):
		return false, nil
	default:
		return false, err
	}
}

// version is buildInfo's, and whether it is FerretDB that says so.
func version(ctx context.Context, db *mongo.Database) (v string, ferret bool, err error) {
	info, err := db.RunCommand(ctx, bson.D{{Key: "buildInfo", Value: 1}}).Raw()
	if err != nil {
		return "", false, err
	}
	v, _ = info.Lookup("version").StringValueOK()
	for _, field := range []string{"ferretdb", "ferretdbVersion"} { // v2, v1
		if _, err := info.LookupErr(field); err == nil {
			return v + " (FerretDB)", true, nil
		}
	}
	return v, false, nil
}

func ttl(ctx context.Context, docs *mongo.Collection) error {
	_, err := docs.Indexes().CreateOne(ctx, mongo.IndexModel{
		Keys:    bson.D{{Key: "created_at", Value: 1}},
		Options: options.Index().SetExpireAfterSeconds(3600),
	})
	return err
}

func lookup(ctx context.Context, docs *mongo.Collection) error {
	cursor, err := docs.Aggregate(ctx, bson.A{
		bson.D{{Key: "$match", Value: bson.D{{Key: "created_at", Value: bson.D{{Key: "$gte", Value: time.UnixMilli(0)}}}}}},
		bson.D{{Key: "$lookup", Value: bson.D{
			{Key: "from", Value: docs.Name()},
			{Key: "localField", Value: "_id"},
			{Key: "foreignField", Value: "_id"},
			{Key: "as", Value: "same"},
		}}},
	})
	if err != nil {
		return err
	}
	var found []struct {
		ID   bson.ObjectID `bson:"_id"`
		Same []struct {
			ID bson.ObjectID `bson:"_id"`
		} `bson:"same"`
	}
	if err := cursor.All(ctx, &found); err != nil {
		return err
	}
	if len(found) != 1 || len(found[0].Same) != 1 || found[0].Same[0].ID != found[0].ID {
		return errLacks
	}
	return nil
}

func explain(ctx context.Context, docs *mongo.Collection) error {
	plan, err := docs.Database().RunCommand(ctx, bson.D{
		{Key: "explain", Value: bson.D{{Key: "find", Value: docs.Name()}, {Key: "filter", Value: bson.D{}}}},
		{Key: "verbosity", Value: "queryPlanner"},
	}).Raw()
	if err != nil {
		return err
	}
	// FerretDB v1 has a queryPlanner too, but puts SQLite's words in it.
	if _, err := plan.LookupErr("queryPlanner", "winningPlan"); err != nil {
		return errLacks
	}
	return nil
}

// replicated asks for a replica set, or a mongos in front of some: transactions and change streams need one.
func replicated(ctx context.Context, db *mongo.Database) error {
	hello, err := db.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Raw()
	if err != nil {
		return err
	}
	_, err = hello.LookupErr("setName")
	msg, _ := hello.Lookup("msg").StringValueOK()
	if err != nil && msg != "isdbgrid" {
		return errLacks
	}
	return nil
}
