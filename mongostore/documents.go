package mongostore

import (
	"context"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey/event"
)

// reporter emits the events of a collection.
type reporter struct {
	collection string
	now        func() time.Time
	onEvent    func(context.Context, event.Event) // nil means no events
}

func (r reporter) emit(ctx context.Context, e event.Event) {
	if r.onEvent != nil {
		e.Time, e.ClientIP = r.now().UTC(), event.ClientIP(ctx)
		r.onEvent(ctx, e)
	}
}

// invalid reports a document that cannot be read. userID is nil if it is unknown.
func (r reporter) invalid(ctx context.Context, doc bson.Raw, userID any, cause error) {
	id := doc.Lookup("_id").String()
	const most = 100
	if len(id) > most {
		id = id[:most] + "…"
	}
	r.emit(ctx, event.Event{Kind: event.InvalidDocument, UserID: userID, Err: fmt.Errorf("mongostore: the document of %s with the _id %s is invalid: %w", r.collection, id, cause)})
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
func checkDocuments(ctx context.Context, coll *mongo.Collection, r reporter, queries []documentQuery, read func(bson.Raw) error) {
	reported := make(map[string]bool) // by _id
	for _, q := range queries {
		docs, err := query(ctx, coll, q)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !mongo.IsTimeout(err) && !isUnsupported(err):
			r.emit(ctx, event.Event{Kind: event.StoreFailed, Err: fmt.Errorf("mongostore: look for invalid documents in %s: %w", r.collection, err)})
			return
		}
		for _, doc := range docs {
			err := read(doc)
			if id := doc.Lookup("_id"); err != nil && !reported[id.String()] {
				reported[id.String()] = true
				r.invalid(ctx, doc, nil, err)
			}
		}
	}
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
