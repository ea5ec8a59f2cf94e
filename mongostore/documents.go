package mongostore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey/event"
)

// invalid reports a document that cannot be read. userID is nil if it is unknown.
func (s *store) invalid(ctx context.Context, doc bson.Raw, userID any, cause error) {
	id, most := doc.Lookup("_id").String(), 100
	if _, ok := doc.Lookup("_id").StringValueOK(); ok && s.digestIDs {
		most = 9 // a quotation mark and 8 characters
	}
	if len(id) > most {
		id = id[:most] + "…"
	}
	s.emit(ctx, event.Event{Kind: event.InvalidDocument, UserID: userID, Err: fmt.Errorf("mongostore: the document of %s with the _id %s is invalid: %w", s.coll.Name(), id, cause)})
}

// known returns a user's ID, or nil for the zero ID.
func known[ID comparable](userID ID) any {
	var none ID
	if userID == none {
		return nil
	}
	return userID
}

const (
	// checkTimeout bounds each query for invalid documents, on the server too.
	checkTimeout = time.Second
	// checkLimit is the maximum number of documents that such a query returns.
	checkLimit = 3
)

// documentQuery selects documents that may be invalid.
type documentQuery struct {
	filter bson.D
	// sort, unless empty, must be that of an index.
	sort bson.D
}

// ends returns queries for the first and the last documents by a field. BSON sorts by type
// first, so documents in which the field has another type than in the others are at an end.
// The field must have an index: each query then reads a few documents.
func ends(field string) []documentQuery {
	return []documentQuery{
		{bson.D{}, bson.D{{Key: field, Value: 1}}},
		{bson.D{}, bson.D{{Key: field, Value: -1}}},
	}
}

// checkDocuments reports documents that read cannot read, of those that the queries select.
// It is a help for operators: it reports a few documents, and ends without a result where
// the server does not answer in time.
func (s *store) checkDocuments(ctx context.Context, queries []documentQuery, read func(bson.Raw) error) {
	reported := make(map[string]bool) // by _id
	for _, q := range queries {
		docs, err := query(ctx, s.coll, q)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !mongo.IsTimeout(err) && !isUnsupported(err):
			s.emit(ctx, event.Event{Kind: event.StoreFailed, Err: fmt.Errorf("mongostore: look for invalid documents in %s: %w", s.coll.Name(), err)})
			return
		}
		for _, doc := range docs {
			err := read(doc)
			if id := doc.Lookup("_id"); err != nil && !reported[id.String()] {
				reported[id.String()] = true
				s.invalid(ctx, doc, nil, err)
			}
		}
	}
}

// checkTokens looks for invalid tokens by the indexes on _id, token and created_at.
func (t *Tokens[ID]) checkTokens(ctx context.Context) {
	queries := append(ends("_id"), ends("token")...)
	if t.lifetime > 0 { // otherwise there is no index on created_at
		queries = append(queries, ends("created_at")...)
	}
	t.checkDocuments(ctx, queries, func(doc bson.Raw) error {
		_, err := parseToken[ID](doc, t.registry)
		return err
	})
}

// checkForeign returns an error if the collection has tokens of fastapi-users, whose rows have an
// ObjectID: a TTL index would let the server remove them by another lifetime than theirs.
func (t *Tokens[ID]) checkForeign(ctx context.Context) error {
	theirs := bson.D{
		{Key: "_id", Value: bson.D{{Key: "$type", Value: int32(bson.TypeObjectID)}}},
		{Key: "token", Value: bson.D{{Key: "$regex", Value: "^[A-Za-z0-9_-]{43}$"}}},
	}
	there, err := exists(ctx, t.coll, theirs)
	switch {
	case isUnsupported(err):
		return nil
	case err != nil:
		return wrap("look for tokens of another program", err)
	case there:
		return fmt.Errorf("mongostore: %s has tokens of another program, with ObjectIDs for _id: set TokensConfig.Collection (Collections.AccessTokens) to another name, and accept those tokens by LegacyConfig", t.coll.Name())
	}
	return nil
}

// checkAccounts looks for invalid accounts: by the indexes on _id and email, and by the
// types of the account's other fields. The latter reads the collection until it has found a
// few, or until checkTimeout has passed.
func (u *Users[U, ID]) checkAccounts(ctx context.Context) {
	// The driver reads numbers as flags. A version may be any number.
	others := []bson.Type{
		bson.TypeEmbeddedDocument, bson.TypeArray, bson.TypeBinary, bson.TypeObjectID, bson.TypeDateTime, bson.TypeRegex, bson.TypeTimestamp,
	}
	var wrong bson.A
	for _, f := range []struct {
		name  string
		types []bson.Type // besides others
	}{
		{u.fields.HashedPassword, []bson.Type{bson.TypeBoolean, bson.TypeInt32, bson.TypeInt64, bson.TypeDouble}},
		{u.fields.Active, []bson.Type{bson.TypeString}},
		{u.fields.Verified, []bson.Type{bson.TypeString}},
		{u.fields.Superuser, []bson.Type{bson.TypeString}},
		{u.fields.TokenVersion, []bson.Type{bson.TypeString, bson.TypeBoolean}},
	} {
		var codes bson.A
		for _, t := range slices.Concat(others, f.types) {
			codes = append(codes, int32(t))
		}
		wrong = append(wrong, bson.D{{Key: f.name, Value: bson.D{{Key: "$type", Value: codes}}}})
	}
	queries := append(ends(u.fields.ID), ends(u.fields.Email)...)
	queries = append(queries, documentQuery{filter: bson.D{{Key: "$or", Value: wrong}}})
	u.checkDocuments(ctx, queries, func(doc bson.Raw) error {
		ctx, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		_, invalid, _ := u.read(ctx, "_id", doc.Lookup("_id"))
		if invalid == nil {
			return nil
		}
		return invalid.cause
	})
}

// query runs a query as a command: the driver sends the server a time limit with it.
func query(ctx context.Context, coll *mongo.Collection, q documentQuery) (docs []bson.Raw, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	command := bson.D{
		{Key: "find", Value: coll.Name()}, {Key: "filter", Value: q.filter},
		{Key: "limit", Value: checkLimit}, {Key: "singleBatch", Value: true},
	}
	if len(q.sort) > 0 {
		command = append(command, bson.E{Key: "sort", Value: q.sort})
	}
	var answer struct {
		Cursor struct {
			FirstBatch []bson.Raw `bson:"firstBatch"`
		} `bson:"cursor"`
	}
	err = coll.Database().RunCommand(ctx, command).Decode(&answer)
	return answer.Cursor.FirstBatch, err
}

// isUnsupported reports whether a server lacks what a query uses.
func isUnsupported(err error) bool {
	return hasCode(err, codeBadValue, codeNotImplemented, codeCommandNotFound, codeCommandNotSupported)
}
