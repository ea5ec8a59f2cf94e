package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// idTypes are the values of the flag -id.
var idTypes = []string{"uuid", "objectid", "string", "int64"}

// ids are the IDs of a type.
type ids[ID comparable] struct {
	parse func(string) (ID, error)
	new   func() ID // nil if the application makes IDs in a way of its own
}

func parseInt(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }

// findIDType returns the flag -id or, without it, the type of the accounts' IDs.
func (e *environment) findIDType(ctx context.Context, db *mongo.Database) (string, error) {
	if e.id != "" {
		return e.id, nil
	}
	field := e.fields.ID
	if field == "" {
		field = "_id"
	}
	docs, err := sample(ctx, db.Collection(e.usersName()), field)
	if err != nil {
		return "", fmt.Errorf("find out the type of the IDs: %w", err)
	}
	types := typesOf(docs, field)
	const choose = "name the type with -id: uuid, objectid, string or int64"
	switch {
	case len(types) == 0 && strings.HasPrefix(e.command.name, "indexes "):
		return idTypes[0], nil // the indexes are the same for all types
	case len(types) == 0:
		return "", usageError("%s in the database %s has no accounts with the field %s that show the type of the IDs: check -db and -users, or %s", e.usersName(), e.db, field, choose)
	case len(types) > 1:
		return "", usageError("the IDs in the field %s of %s have several types, %s: %s", field, e.usersName(), strings.Join(types, " and "), choose)
	case e.fields.ID == "" && types[0] == "objectid" && slices.Contains(typesOf(docs, "id"), "uuid"):
		// With the wrong ID, a command would find no sessions, and say that it has ended them all.
		return "", usageError("the accounts in %s have ObjectIDs in the field _id and UUIDs in the field id, as those of fastapi-users' Motor adapter: if their ID is id, add -fields id=id; if it is _id, add -id objectid", e.usersName())
	case !slices.Contains(idTypes, types[0]):
		return "", usageError("the IDs in the field %s of %s have the type %s, which is none of an account's IDs: %s, or another field with -fields id=…", field, e.usersName(), types[0], choose)
	}
	return types[0], nil
}

// sample returns the documents with the least and the greatest values of a field: the values,
// and those of the field id. Servers sort values by their types first.
func sample(ctx context.Context, coll *mongo.Collection, field string) (docs []bson.Raw, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	const size = 50
	shown := bson.M{field: 1, "id": 1}
	for _, direction := range []int{1, -1} {
		opts := options.Find().SetLimit(size).SetSort(bson.D{{Key: field, Value: direction}}).SetProjection(shown)
		cur, err := coll.Find(ctx, bson.D{{Key: field, Value: bson.D{{Key: "$ne", Value: nil}}}}, opts)
		if err != nil {
			return nil, err
		}
		var found []bson.Raw
		if err := cur.All(ctx, &found); err != nil {
			return nil, err
		}
		docs = append(docs, found...)
	}
	return docs, nil
}

// typesOf returns the types of a field's values, without those of documents that lack it.
func typesOf(docs []bson.Raw, field string) []string {
	types := make(map[string]bool)
	for _, doc := range docs {
		if v, err := doc.LookupErr(field); err == nil {
			types[typeOf(v)] = true
		}
	}
	return slices.Sorted(maps.Keys(types))
}

// typeOf returns the type of an ID, as the flag -id names it.
func typeOf(v bson.RawValue) string {
	switch v.Type {
	case bson.TypeString:
		return "string"
	case bson.TypeObjectID:
		return "objectid"
	case bson.TypeInt32, bson.TypeInt64:
		return "int64"
	case bson.TypeBinary:
		if subtype, data := v.Binary(); subtype != bson.TypeBinaryUUID || len(data) != len(uuid.UUID{}) {
			return fmt.Sprintf("binary of subtype %d and %d bytes", subtype, len(data))
		}
		return "uuid"
	}
	return v.Type.String()
}

// shown returns an ID as reports show it: a string or a number.
func shown(id any) any {
	switch id := id.(type) {
	case uuid.UUID:
		return id.String()
	case bson.ObjectID:
		return id.Hex()
	case bson.Binary:
		if id.Subtype == bson.TypeBinaryUUID && len(id.Data) == len(uuid.UUID{}) {
			return uuid.UUID(id.Data).String()
		}
	case string, int32, int64:
		return id
	}
	text, err := bson.MarshalExtJSON(bson.D{{Key: "id", Value: id}}, false, false)
	if err != nil {
		return fmt.Sprint(id)
	}
	var doc struct {
		ID json.RawMessage `json:"id"`
	}
	if json.Unmarshal(text, &doc) != nil {
		return fmt.Sprint(id)
	}
	return doc.ID
}
