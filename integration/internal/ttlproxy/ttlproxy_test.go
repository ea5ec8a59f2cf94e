package ttlproxy_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/integration/devmongo"
	"github.com/latchkey-go/latchkey/integration/internal/ttlproxy"
)

// through returns a collection of a devmongo behind a proxy.
func through(t *testing.T) *mongo.Collection {
	t.Helper()
	server, err := devmongo.Start(devmongo.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := ttlproxy.Start(listener, server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://" + listener.Addr().String() + "/?directConnection=true"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	return client.Database("proxied").Collection("docs")
}

func create(t *testing.T, coll *mongo.Collection, field string, opts *options.IndexOptionsBuilder) error {
	t.Helper()
	_, err := coll.Indexes().CreateOne(t.Context(), mongo.IndexModel{Keys: bson.D{{Key: field, Value: 1}}, Options: opts})
	return err
}

// setSeconds changes the expireAfterSeconds of an index with collMod.
func setSeconds(t *testing.T, coll *mongo.Collection, index string, seconds int) error {
	t.Helper()
	return coll.Database().RunCommand(t.Context(), bson.D{
		{Key: "collMod", Value: coll.Name()},
		{Key: "index", Value: bson.D{{Key: "name", Value: index}, {Key: "expireAfterSeconds", Value: seconds}}},
	}).Err()
}

func wantSeconds(t *testing.T, coll *mongo.Collection, index string, want int32) {
	t.Helper()
	specs, err := coll.Indexes().ListSpecifications(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := int32(-1)
	for _, s := range specs {
		if s.Name == index && s.ExpireAfterSeconds != nil {
			got = *s.ExpireAfterSeconds
		}
	}
	if got != want {
		t.Errorf("expireAfterSeconds of %s is %d, want %d", index, got, want)
	}
}

func wantCode(t *testing.T, err error, code int) {
	t.Helper()
	var refused mongo.CommandError
	if !errors.As(err, &refused) || int(refused.Code) != code {
		t.Errorf("got the error %v, want code %d", err, code)
	}
}

func TestTTLIndexIsListedChangedAndDropped(t *testing.T) {
	coll := through(t)
	if err := create(t, coll, "at", options.Index().SetExpireAfterSeconds(60)); err != nil {
		t.Fatal(err)
	}
	wantSeconds(t, coll, "at_1", 60)
	wantCode(t, create(t, coll, "at", options.Index().SetExpireAfterSeconds(61)), 85)
	wantCode(t, create(t, coll, "at", options.Index()), 85)
	if err := setSeconds(t, coll, "at_1", 120); err != nil {
		t.Fatal(err)
	}
	wantSeconds(t, coll, "at_1", 120)
	if err := coll.Indexes().DropOne(t.Context(), "at_1"); err != nil {
		t.Fatal(err)
	}
	if err := create(t, coll, "at", options.Index()); err != nil {
		t.Fatal(err)
	}
	wantSeconds(t, coll, "at_1", -1)
	wantCode(t, setSeconds(t, coll, "at_1", 60), 72) // a plain index stays plain
	if err := coll.Database().Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := create(t, coll, "at", options.Index().SetExpireAfterSeconds(7)); err != nil {
		t.Fatal(err)
	}
	wantSeconds(t, coll, "at_1", 7)
}

func TestExpiredDocumentsAreDeleted(t *testing.T) {
	coll := through(t)
	now := time.Now()
	if _, err := coll.InsertMany(t.Context(), bson.A{
		bson.D{{Key: "_id", Value: "expired"}, {Key: "at", Value: now.Add(-2 * time.Minute)}},
		bson.D{{Key: "_id", Value: "live"}, {Key: "at", Value: now}},
		bson.D{{Key: "_id", Value: "no date"}},
	}); err != nil {
		t.Fatal(err)
	}
	if err := create(t, coll, "at", options.Index().SetExpireAfterSeconds(60)); err != nil {
		t.Fatal(err)
	}
	for deadline := now.Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		n, err := coll.CountDocuments(t.Context(), bson.D{})
		if err != nil {
			t.Fatal(err)
		}
		if n == 2 {
			break
		}
		if n < 2 || time.Now().After(deadline) {
			t.Fatalf("%d documents are left, want 2", n)
		}
	}
	if err := coll.FindOne(t.Context(), bson.D{{Key: "_id", Value: "expired"}}).Err(); !errors.Is(err, mongo.ErrNoDocuments) {
		t.Errorf("the expired document is still there (error %v)", err)
	}
}
