package wirestub_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/FerretDB/wire"
	"github.com/FerretDB/wire/wirebson"
	mongov1 "go.mongodb.org/mongo-driver/mongo"
	optionsv1 "go.mongodb.org/mongo-driver/mongo/options"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/benchmarks/wirestub"
)

func start(tb testing.TB) *wirestub.Server {
	tb.Helper()
	server, err := wirestub.Start("")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(server.Close)
	return server
}

// people returns a collection with three documents and a unique index.
func people(t *testing.T, server *wirestub.Server) *mongo.Collection {
	t.Helper()
	ctx := t.Context()
	client, err := mongo.Connect(options.Client().ApplyURI(server.URI()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Disconnect(ctx) })
	coll := client.Database("test").Collection("people")
	_, err = coll.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: bson.D{{Key: "email", Value: 1}}, Options: options.Index().SetUnique(true)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = coll.InsertMany(ctx, []any{person(1, "ada", 36), person(2, "ben", 40), person(3, "cy", 40)})
	if err != nil {
		t.Fatal(err)
	}
	return coll
}

func person(id int, name string, age int) bson.D {
	return bson.D{
		{Key: "_id", Value: id}, {Key: "email", Value: name + "@example.com"}, {Key: "age", Value: age},
		{Key: "born", Value: time.Date(2026-age, 1, 1, 0, 0, 0, 0, time.UTC)},
	}
}

func ids(t *testing.T, coll *mongo.Collection, filter any) (found []int) {
	t.Helper()
	cur, err := coll.Find(t.Context(), filter)
	if err != nil {
		t.Fatal(err)
	}
	var docs []struct {
		ID int `bson:"_id"`
	}
	if err := cur.All(t.Context(), &docs); err != nil {
		t.Fatal(err)
	}
	for _, doc := range docs {
		found = append(found, doc.ID)
	}
	return found
}

func TestFind(t *testing.T) {
	coll := people(t, start(t))
	date := time.Date(1986, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name   string
		filter bson.M
		want   int // number of documents
	}{
		{"by ID", bson.M{"_id": 2}, 1},
		{"by an ID of another number type", bson.M{"_id": int64(2)}, 1},
		{"by a field", bson.M{"email": "ada@example.com"}, 1},
		{"by a field that two documents share", bson.M{"age": 40}, 2},
		{"by two fields", bson.M{"age": 40, "email": "cy@example.com"}, 1},
		{"by a missing field", bson.M{"name": "ada"}, 0},
		{"by a date", bson.M{"born": date}, 2},
		{"from a date", bson.M{"email": "ben@example.com", "born": bson.M{"$gte": date}}, 1},
		{"from a later date", bson.M{"email": "ben@example.com", "born": bson.M{"$gte": date.Add(time.Millisecond)}}, 0},
		{"in a range", bson.M{"age": bson.M{"$gt": 30, "$lt": 40}}, 1},
		{"by either of two IDs", bson.M{"$or": bson.A{bson.M{"_id": 1}, bson.M{"_id": 3}}}, 2},
		{"by either of two fields' values", bson.M{"email": bson.M{"$in": bson.A{"ada@example.com", "cy@example.com", "ada@example.com"}}}, 2},
		{"not equal", bson.M{"age": bson.M{"$ne": 40}}, 1},
		{"not less", bson.M{"age": bson.M{"$not": bson.M{"$lt": 40}}}, 2},
		{"not less than, of a missing field", bson.M{"name": bson.M{"$not": bson.M{"$lt": 40}}}, 3},
		{"none of", bson.M{"$nor": bson.A{bson.M{"age": 40}, bson.M{"_id": 7}}}, 1},
		{"not in", bson.M{"_id": bson.M{"$nin": bson.A{1, 2}}}, 1},
		{"without a field", bson.M{"name": bson.M{"$exists": false}}, 3},
		{"all", bson.M{}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			if found := ids(t, coll, c.filter); len(found) != c.want {
				t.Errorf("found %v, want %d", found, c.want)
			}
		})
	}
}

func TestFindInOrder(t *testing.T) {
	ctx := t.Context()
	coll := people(t, start(t)).Database().Collection("events")
	day := func(n int) time.Time { return time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC) }
	add := func(id int, at any) {
		t.Helper()
		if _, err := coll.InsertOne(ctx, bson.M{"_id": id, "at": at, "even": id%2 == 0}); err != nil {
			t.Fatal(err)
		}
	}
	find := func(filter bson.M, direction, limit int) string {
		t.Helper()
		cur, err := coll.Find(ctx, filter, options.Find().SetSort(bson.M{"at": direction}).SetLimit(int64(limit)))
		if err != nil {
			t.Fatal(err)
		}
		var docs []struct {
			ID int `bson:"_id"`
		}
		if err := cur.All(ctx, &docs); err != nil {
			t.Fatal(err)
		}
		var ids []int
		for _, doc := range docs {
			ids = append(ids, doc.ID)
		}
		return strings.Trim(fmt.Sprint(ids), "[]")
	}
	if got := find(bson.M{}, 1, 0); got != "" {
		t.Errorf("in an empty collection, found %s", got)
	}
	for _, id := range []int{3, 1, 5, 2, 4} { // two before the first sort, three after it
		add(id, day(id))
		if id == 1 {
			find(bson.M{}, 1, 0)
		}
	}
	for _, c := range []struct {
		name             string
		filter           bson.M
		direction, limit int
		want             string
	}{
		{"all", bson.M{}, 1, 0, "1 2 3 4 5"},
		{"newest first", bson.M{}, -1, 0, "5 4 3 2 1"},
		{"the newest", bson.M{}, -1, 1, "5"},
		{"from a date", bson.M{"at": bson.M{"$gte": day(3)}}, 1, 0, "3 4 5"},
		{"in a range", bson.M{"at": bson.M{"$gte": day(2), "$lt": day(4)}}, -1, 0, "3 2"},
		{"from a later date", bson.M{"at": bson.M{"$gte": day(6)}}, 1, 0, ""},
		{"with another condition", bson.M{"at": bson.M{"$gte": day(2)}, "even": true}, 1, 1, "2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := find(c.filter, c.direction, c.limit); got != c.want {
				t.Errorf("found %s, want %s", got, c.want)
			}
		})
	}

	add(6, day(3)) // after the other document of that date
	if _, err := coll.DeleteOne(ctx, bson.M{"_id": 3}); err != nil {
		t.Fatal(err)
	}
	if _, err := coll.UpdateByID(ctx, 1, bson.M{"$set": bson.M{"at": day(9)}}); err != nil {
		t.Fatal(err)
	}
	if got := find(bson.M{}, 1, 0); got != "2 6 4 5 1" {
		t.Errorf("after the writes, found %s", got)
	}
	res, err := coll.DeleteMany(ctx, bson.M{"at": bson.M{"$lt": day(5)}})
	if err != nil || res.DeletedCount != 3 {
		t.Errorf("deleted %+v, %v, want 3", res, err)
	}
	if got := find(bson.M{}, 1, 0); got != "5 1" {
		t.Errorf("after the deletion, found %s", got)
	}
	add(7, "not a date")
	var e mongo.ServerError
	if _, err := coll.Find(ctx, bson.M{}, options.Find().SetSort(bson.M{"at": 1})); !errors.As(err, &e) || !e.HasErrorCode(238) {
		t.Errorf("with a string in the sorted field: got %v, want code 238", err)
	}
}

func TestCurrentDate(t *testing.T) {
	coll := people(t, start(t))
	before := time.Now().Truncate(time.Millisecond)
	for _, id := range []int{1, 9} { // one document exists, the other does not
		_, err := coll.UpdateByID(t.Context(), id, bson.M{"$currentDate": bson.M{"at": true}}, options.UpdateOne().SetUpsert(true))
		if err != nil {
			t.Fatal(err)
		}
		var doc struct{ At time.Time }
		if err := coll.FindOne(t.Context(), bson.M{"_id": id}).Decode(&doc); err != nil || doc.At.Before(before) || doc.At.After(time.Now()) {
			t.Errorf("document %d has %v, error %v; want the current time", id, doc.At, err)
		}
	}
}

func TestDuplicateKeys(t *testing.T) {
	coll := people(t, start(t))
	for _, c := range []struct {
		name string
		doc  bson.D
	}{
		{"same ID", person(1, "dee", 20)},
		{"same key of a unique index", person(4, "ada", 20)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := coll.InsertOne(t.Context(), c.doc); !mongo.IsDuplicateKeyError(err) {
				t.Errorf("got %v, want a duplicate key", err)
			}
		})
	}
	_, err := coll.UpdateByID(t.Context(), 2, bson.M{"$set": bson.M{"email": "ada@example.com"}})
	if !mongo.IsDuplicateKeyError(err) {
		t.Errorf("an update returned %v, want a duplicate key", err)
	}
	if found := ids(t, coll, bson.M{"email": "ben@example.com"}); len(found) != 1 {
		t.Errorf("after a failed update, found %v", found)
	}
}

func TestUpdate(t *testing.T) {
	coll := people(t, start(t))
	for _, c := range []struct {
		name   string
		filter bson.M
		update bson.M
		upsert bool
		want   mongo.UpdateResult
		age    int // of the document that the filter finds afterwards
	}{
		{"sets a field", bson.M{"_id": 1}, bson.M{"$set": bson.M{"age": 37}}, false, mongo.UpdateResult{MatchedCount: 1, ModifiedCount: 1}, 37},
		{"$max keeps a larger value", bson.M{"_id": 1}, bson.M{"$max": bson.M{"age": 5}}, false, mongo.UpdateResult{MatchedCount: 1, ModifiedCount: 1}, 37},
		{"$max raises a smaller value", bson.M{"_id": 1}, bson.M{"$max": bson.M{"age": 50}}, false, mongo.UpdateResult{MatchedCount: 1, ModifiedCount: 1}, 50},
		{"adds to a number", bson.M{"_id": 1}, bson.M{"$inc": bson.M{"age": 2}}, false, mongo.UpdateResult{MatchedCount: 1, ModifiedCount: 1}, 52},
		{"adds to a missing number", bson.M{"email": "fay@example.com"}, bson.M{"$inc": bson.M{"age": 2}}, true, mongo.UpdateResult{UpsertedCount: 1}, 2},
		{"matches nothing", bson.M{"_id": 9}, bson.M{"$set": bson.M{"age": 1}}, false, mongo.UpdateResult{}, 0},
		{"upsert inserts", bson.M{"_id": 9}, bson.M{"$set": bson.M{"age": 1}}, true, mongo.UpdateResult{UpsertedCount: 1}, 1},
		{"upsert updates", bson.M{"_id": 9}, bson.M{"$set": bson.M{"age": 2}}, true, mongo.UpdateResult{MatchedCount: 1, ModifiedCount: 1}, 2},
		{"upsert makes an ID", bson.M{"email": "eve@example.com"}, bson.M{"$set": bson.M{"age": 3}}, true, mongo.UpdateResult{UpsertedCount: 1}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, err := coll.UpdateOne(t.Context(), c.filter, c.update, options.UpdateOne().SetUpsert(c.upsert))
			if err != nil {
				t.Fatal(err)
			}
			if res.MatchedCount != c.want.MatchedCount || res.ModifiedCount != c.want.ModifiedCount || res.UpsertedCount != c.want.UpsertedCount {
				t.Errorf("got %+v, want %+v", *res, c.want)
			}
			var doc struct{ Age int }
			if err := coll.FindOne(t.Context(), c.filter).Decode(&doc); err != nil && !errors.Is(err, mongo.ErrNoDocuments) {
				t.Fatal(err)
			}
			if doc.Age != c.age {
				t.Errorf("the age is %d, want %d", doc.Age, c.age)
			}
		})
	}
}

func TestDelete(t *testing.T) {
	coll := people(t, start(t))
	if ids(t, coll, bson.M{"age": 40}) == nil {
		t.Fatal("found none")
	}
	one, err := coll.DeleteOne(t.Context(), bson.M{"age": 40})
	if err != nil || one.DeletedCount != 1 {
		t.Fatalf("one: %+v, %v", one, err)
	}
	if found := ids(t, coll, bson.M{"age": 40}); len(found) != 1 {
		t.Errorf("found %v after the deletion, want 1", found)
	}
	many, err := coll.DeleteMany(t.Context(), bson.M{})
	if err != nil || many.DeletedCount != 2 {
		t.Errorf("many: %+v, %v", many, err)
	}
	if _, err := coll.InsertOne(t.Context(), person(1, "ada", 36)); err != nil {
		t.Errorf("the unique keys are still taken: %v", err)
	}
}

func TestFindAndModify(t *testing.T) {
	coll := people(t, start(t))
	var doc struct{ Age int }
	after := options.FindOneAndUpdate().SetReturnDocument(options.After)
	err := coll.FindOneAndUpdate(t.Context(), bson.M{"_id": 1}, bson.M{"$set": bson.M{"age": 1}}, after).Decode(&doc)
	if err != nil || doc.Age != 1 {
		t.Errorf("update: %+v, %v", doc, err)
	}
	if err := coll.FindOneAndDelete(t.Context(), bson.M{"_id": 1, "email": "ben@example.com"}).Err(); !errors.Is(err, mongo.ErrNoDocuments) {
		t.Errorf("delete with a filter that matches only in part: %v", err)
	}
	if err := coll.FindOneAndDelete(t.Context(), bson.M{"_id": 1, "email": "ada@example.com"}).Decode(&doc); err != nil || doc.Age != 1 {
		t.Errorf("delete: %+v, %v", doc, err)
	}
	if err := coll.FindOneAndDelete(t.Context(), bson.M{"_id": 1}).Err(); !errors.Is(err, mongo.ErrNoDocuments) {
		t.Errorf("delete again: %v", err)
	}

	upsert := options.FindOneAndUpdate().SetUpsert(true)
	add := bson.M{"$inc": bson.M{"age": 1}}
	if err := coll.FindOneAndUpdate(t.Context(), bson.M{"_id": 8}, add, upsert).Err(); !errors.Is(err, mongo.ErrNoDocuments) {
		t.Errorf("upsert that inserts: %v, want no document from before", err)
	}
	err = coll.FindOneAndUpdate(t.Context(), bson.M{"_id": 8}, add, upsert.SetReturnDocument(options.After)).Decode(&doc)
	if err != nil || doc.Age != 2 {
		t.Errorf("upsert that updates: %+v, %v", doc, err)
	}
	err = coll.FindOneAndUpdate(t.Context(), bson.M{"_id": 8, "age": 1}, add, upsert).Err()
	if !mongo.IsDuplicateKeyError(err) {
		t.Errorf("upsert of an existing ID: %v, want a duplicate key", err)
	}
}

func TestFindSortsByTwoFieldsInBatches(t *testing.T) {
	coll := people(t, start(t)).Database().Collection("numbers")
	var docs []any
	for i := range 25 {
		docs = append(docs, bson.M{"_id": i, "tens": i / 10})
	}
	if _, err := coll.InsertMany(t.Context(), docs); err != nil {
		t.Fatal(err)
	}
	find := options.Find().SetSort(bson.D{{Key: "tens", Value: -1}, {Key: "_id", Value: 1}}).SetBatchSize(4).SetLimit(20)
	cur, err := coll.Find(t.Context(), bson.M{}, find)
	if err != nil {
		t.Fatal(err)
	}
	var got []struct {
		ID int `bson:"_id"`
	}
	if err := cur.All(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 20 || got[0].ID != 20 || got[4].ID != 24 || got[5].ID != 10 || got[19].ID != 4 {
		t.Errorf("got %v, want 20 to 24, 10 to 19, 0 to 4", got)
	}
	if n, err := coll.CountDocuments(t.Context(), bson.M{"tens": 1}); n != 10 || err != nil {
		t.Errorf("count: got %d, %v, want 10", n, err)
	}
	if n, err := coll.CountDocuments(t.Context(), bson.M{"tens": 7}); n != 0 || err != nil {
		t.Errorf("count of nothing: got %d, %v", n, err)
	}
	if n, err := coll.EstimatedDocumentCount(t.Context()); n != 25 || err != nil {
		t.Errorf("count of all: got %d, %v, want 25", n, err)
	}
	if _, err := coll.UpdateMany(t.Context(), bson.M{"tens": 2}, bson.M{"$unset": bson.M{"tens": ""}}); err != nil {
		t.Error(err)
	}
	if n, err := coll.CountDocuments(t.Context(), bson.M{"tens": bson.M{"$exists": false}}); n != 5 || err != nil {
		t.Errorf("count of unset fields: got %d, %v, want 5", n, err)
	}
}

func TestUnsupportedCommandsAreErrors(t *testing.T) {
	server := start(t)
	coll := people(t, server)
	for _, c := range []struct {
		name string
		run  func() error
		code int
	}{
		{"an unknown command", func() error {
			return coll.Database().RunCommand(t.Context(), bson.D{{Key: "frobnicate", Value: 1}}).Err()
		}, 59},
		{"a sort by values of several kinds", func() error {
			if _, err := coll.InsertOne(t.Context(), bson.M{"_id": 9, "email": "d@example.com", "age": "old"}); err != nil {
				return err
			}
			_, err := coll.Find(t.Context(), bson.M{}, options.Find().SetSort(bson.M{"age": 1}))
			return err
		}, 238},
		{"a pipeline", func() error {
			_, err := coll.Aggregate(t.Context(), bson.A{bson.M{"$sortByCount": "$age"}})
			return err
		}, 238},
		{"a timestamp", func() error {
			_, err := coll.UpdateByID(t.Context(), 1, bson.M{"$currentDate": bson.M{"at": bson.M{"$type": "timestamp"}}})
			return err
		}, 238},
		{"an unknown operator", func() error { return coll.FindOne(t.Context(), bson.M{"email": bson.M{"$regex": "a"}}).Err() }, 238},
		{"an unknown update operator", func() error {
			_, err := coll.UpdateByID(t.Context(), 1, bson.M{"$rename": bson.M{"age": "years"}})
			return err
		}, 238},
	} {
		t.Run(c.name, func(t *testing.T) {
			var e mongo.ServerError
			if err := c.run(); !errors.As(err, &e) || !e.HasErrorCode(c.code) {
				t.Errorf("got %v, want code %d", err, c.code)
			}
		})
	}
}

func TestIndexesAreListed(t *testing.T) {
	coll := people(t, start(t))
	specs, err := coll.Indexes().ListSpecifications(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, spec := range specs {
		names = append(names, spec.Name)
	}
	if got := strings.Join(names, " "); got != "_id_ email_1" {
		t.Errorf("got %s", got)
	}
}

func TestDriverV1(t *testing.T) {
	server := start(t)
	client, err := mongov1.Connect(t.Context(), optionsv1.Client().ApplyURI(server.URI()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Disconnect(t.Context()) }()
	coll := client.Database("test").Collection("people")
	before := server.Commands()
	if _, err := coll.InsertOne(t.Context(), bson.M{"_id": 1, "email": "ada@example.com"}); err != nil {
		t.Fatal(err)
	}
	if err := coll.FindOne(t.Context(), bson.M{"email": "ada@example.com"}).Err(); err != nil {
		t.Error(err)
	}
	if n := server.Commands() - before; n != 2 {
		t.Errorf("%d commands were counted, want 2", n)
	}
}

func TestCloseEndsConnections(t *testing.T) {
	server := start(t)
	coll := people(t, server)
	server.Close()
	server.Close()
	if err := coll.Database().Client().Ping(t.Context(), nil); err == nil {
		t.Error("a closed stub still answers")
	}
}

// BenchmarkFind measures a find by one field among 10,000 documents, over loopback and
// without a driver.
func BenchmarkFind(b *testing.B) {
	server := start(b)
	conn, err := net.Dial("tcp", strings.Split(strings.TrimPrefix(server.URI(), "mongodb://"), "/")[0])
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	r, w := bufio.NewReader(conn), bufio.NewWriter(conn)
	send := func(doc *wirebson.Document) {
		msg, err := wire.NewOpMsg(doc)
		if err != nil {
			b.Fatal(err)
		}
		raw, err := msg.MarshalBinary()
		if err != nil {
			b.Fatal(err)
		}
		header := &wire.MsgHeader{MessageLength: int32(wire.MsgHeaderLen + len(raw)), RequestID: 1, OpCode: wire.OpCodeMsg}
		if err := errors.Join(wire.WriteMessage(w, header, msg), w.Flush()); err != nil {
			b.Fatal(err)
		}
		if _, _, err := wire.ReadMessage(r); err != nil {
			b.Fatal(err)
		}
	}
	tokens := wirebson.MakeArray(0)
	for i := range 10_000 {
		token := wirebson.MustDocument("_id", int32(i), "token", fmt.Sprint("token", i), "user_id", int32(i), "created_at", time.Now())
		if err := tokens.Add(token); err != nil {
			b.Fatal(err)
		}
	}
	send(wirebson.MustDocument("insert", "tokens", "$db", "test", "documents", tokens))
	find := wirebson.MustDocument("find", "tokens", "$db", "test", "filter", wirebson.MustDocument("token", "token9"), "limit", int64(1))
	b.ReportAllocs()
	for b.Loop() {
		send(find)
	}
}
