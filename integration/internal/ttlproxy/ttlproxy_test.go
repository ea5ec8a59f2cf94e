package ttlproxy_test

import (
	"context"
	"errors"
	"net"
	"reflect"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/integration/devmongo"
	"github.com/latchkey-go/latchkey/integration/internal/ttlproxy"
)

// through returns a database of a devmongo behind a proxy.
func through(t *testing.T) *mongo.Database {
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
	return client.Database("proxied")
}

func TestJoin(t *testing.T) {
	db := through(t)
	tokens, users := db.Collection("tokens"), db.Collection("users")
	_, err := tokens.InsertMany(t.Context(), bson.A{
		bson.D{{Key: "_id", Value: "t1"}, {Key: "of", Value: "u1"}, {Key: "user", Value: "of another meaning"}},
		bson.D{{Key: "_id", Value: "t2"}, {Key: "of", Value: "u2"}},
		bson.D{{Key: "_id", Value: "t3"}, {Key: "of", Value: "u1"}},
	})
	if err == nil {
		_, err = users.InsertOne(t.Context(), bson.D{{Key: "_id", Value: "u1"}, {Key: "name", Value: "Ann"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	match := func(id any) bson.D { return bson.D{{Key: "$match", Value: bson.D{{Key: "_id", Value: id}}}} }
	lookup := func(more ...bson.E) bson.D {
		return bson.D{{Key: "$lookup", Value: append(bson.D{
			{Key: "from", Value: "users"}, {Key: "localField", Value: "of"}, {Key: "foreignField", Value: "_id"}, {Key: "as", Value: "user"},
		}, more...)}}
	}
	ann := bson.A{bson.D{{Key: "_id", Value: "u1"}, {Key: "name", Value: "Ann"}}}
	for _, c := range []struct {
		name     string
		pipeline bson.A
		want     []bson.D
		refused  bool // by the server: it was passed on
	}{
		{"a token with its user", bson.A{match("t3"), lookup()},
			[]bson.D{{{Key: "_id", Value: "t3"}, {Key: "of", Value: "u1"}, {Key: "user", Value: ann}}}, false},
		{"a field of the same name is replaced", bson.A{match("t1"), lookup()},
			[]bson.D{{{Key: "_id", Value: "t1"}, {Key: "of", Value: "u1"}, {Key: "user", Value: ann}}}, false},
		{"a token without its user", bson.A{match("t2"), lookup()},
			[]bson.D{{{Key: "_id", Value: "t2"}, {Key: "of", Value: "u2"}, {Key: "user", Value: bson.A{}}}}, false},
		{"no token", bson.A{match("none"), lookup()}, nil, false},
		{"several", bson.A{match(bson.D{{Key: "$in", Value: bson.A{"t2", "t3"}}}), lookup()}, []bson.D{
			{{Key: "_id", Value: "t2"}, {Key: "of", Value: "u2"}, {Key: "user", Value: bson.A{}}},
			{{Key: "_id", Value: "t3"}, {Key: "of", Value: "u1"}, {Key: "user", Value: ann}},
		}, false},
		{"what the server knows is passed on", bson.A{match("t2")}, []bson.D{{{Key: "_id", Value: "t2"}, {Key: "of", Value: "u2"}}}, false},
		{"a join alone is passed on", bson.A{lookup()}, nil, true},
		{"a third stage is passed on", bson.A{match("t3"), lookup(), bson.D{{Key: "$limit", Value: 1}}}, nil, true},
		{"another join is passed on", bson.A{match("t3"), lookup(bson.E{Key: "pipeline", Value: bson.A{}})}, nil, true},
		{"a filter that is wrong is refused", bson.A{match(bson.D{{Key: "$nothing", Value: 1}}), lookup()}, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cursor, err := tokens.Aggregate(t.Context(), c.pipeline)
			if c.refused {
				if answer := (mongo.CommandError{}); !errors.As(err, &answer) {
					t.Errorf("got %v, want the server's refusal", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []bson.D
			if err := cursor.All(t.Context(), &got); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}
