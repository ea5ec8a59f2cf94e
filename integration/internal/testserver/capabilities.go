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

// Capabilities are the optional features of a server. A probe tries each of them.
type Capabilities struct {
	Version string // the MongoDB version that the server reports: "8.0.4", or "7.0.42 (FerretDB)"

	TTL           bool // indexes with expireAfterSeconds
	Transactions  bool
	ChangeStreams bool
	Explain       bool // explain shows the winning plan, which names the index
	Decimal128    bool // values of the type decimal128
}

// String is "version 8.0.4: ttl, explain, decimal128, no transactions, no changestreams".
func (c Capabilities) String() string {
	var has, lacks []string
	for _, capability := range []struct {
		name string
		have bool
	}{
		{"ttl", c.TTL},
		{"transactions", c.Transactions},
		{"changestreams", c.ChangeStreams},
		{"explain", c.Explain},
		{"decimal128", c.Decimal128},
	} {
		if capability.have {
			has = append(has, capability.name)
		} else {
			lacks = append(lacks, "no "+capability.name)
		}
	}
	return fmt.Sprintf("version %s: %s", c.Version, strings.Join(append(has, lacks...), ", "))
}

// probe tries the features of a server, in a new database that it drops.
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
	if found.Explain, err = can(explain(ctx, docs)); err != nil {
		return found, fmt.Errorf("probe: explain: %w", err)
	}
	if found.Decimal128, err = can(decimal128(ctx, docs)); err != nil {
		return found, fmt.Errorf("probe: decimal128: %w", err)
	}
	replicated, err := can(replicated(ctx, db))
	if err != nil {
		return found, fmt.Errorf("probe: hello: %w", err)
	}
	// FerretDB can be configured to name a replica set, but ignores transactions without an error.
	found.Transactions = replicated && !ferret
	found.ChangeStreams = replicated && !ferret
	return found, nil
}

// errLacks means that the server ran the command, but its answer shows that it lacks the feature.
var errLacks = errors.New("not supported")

// can reports whether a probe found the feature. It returns the probe's error if the server was not
// reached, or refused the command because of missing permission.
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

// version returns the version in buildInfo, and whether the server is FerretDB.
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

func explain(ctx context.Context, docs *mongo.Collection) error {
	plan, err := docs.Database().RunCommand(ctx, bson.D{
		{Key: "explain", Value: bson.D{{Key: "find", Value: docs.Name()}, {Key: "filter", Value: bson.D{}}}},
		{Key: "verbosity", Value: "queryPlanner"},
	}).Raw()
	if err != nil {
		return err
	}
	// FerretDB v1 has a queryPlanner too, but with SQLite's plan in it.
	if _, err := plan.LookupErr("queryPlanner", "winningPlan"); err != nil {
		return errLacks
	}
	return nil
}

// decimal128 stores a decimal. FerretDB v1 closes the connection instead of refusing it.
func decimal128(ctx context.Context, docs *mongo.Collection) error {
	_, err := docs.InsertOne(ctx, bson.M{"number": bson.NewDecimal128(0, 1)})
	if mongo.IsNetworkError(err) && docs.Database().Client().Ping(ctx, nil) == nil {
		return errLacks
	}
	return err
}

// replicated looks for a replica set, or a mongos in front of one. Transactions and change streams
// need it.
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
