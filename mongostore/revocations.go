package mongostore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/internal/follow"
	"github.com/latchkey-go/latchkey/strategy"
)

// revocationsKept is how long a revocation is stored: far longer than a cache may hold an entry.
const revocationsKept = 10 * time.Minute

var _ strategy.RevocationLog[int64] = (*Tokens[int64])(nil)

// PublishRevocation implements strategy.RevocationLog. It inserts a small document, which
// the server removes after 10 minutes:
//
//	revocations
//	  _id          UUIDv7
//	  at           date, by the server's clock      TTL index
//	  token        a digest; or instead session_id or user_id
func (t *Tokens[ID]) PublishRevocation(ctx context.Context, r strategy.Revocation[ID]) error {
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("mongostore: make an ID: %w", err)
	}
	var noUser ID
	var set bson.D
	switch {
	case r.Digest != "":
		set = bson.D{{Key: "token", Value: r.Digest}}
	case r.SessionID != uuid.Nil:
		set = bson.D{{Key: "session_id", Value: r.SessionID}}
	case r.UserID != noUser:
		set = bson.D{{Key: "user_id", Value: r.UserID}}
	default:
		return nil
	}
	// The server sets the time, as the clocks of applications differ.
	update := bson.D{{Key: "$currentDate", Value: bson.D{{Key: "at", Value: true}}}, {Key: "$set", Value: set}}
	return t.write(ctx, "publish the revocation", func(ctx context.Context) error {
		_, err := t.revocations.UpdateOne(ctx, bson.D{{Key: "_id", Value: id}}, update, options.UpdateOne().SetUpsert(true))
		return err
	})
}

// FollowRevocations implements strategy.RevocationLog. It polls; on a replica set, a change stream
// could replace it.
func (t *Tokens[ID]) FollowRevocations() (next func(context.Context) ([]strategy.Revocation[ID], error)) {
	follower := follow.New[string, strategy.Revocation[ID]](t.now)
	return func(ctx context.Context) ([]strategy.Revocation[ID], error) {
		ctx, cancel := t.bounded(ctx)
		defer cancel()
		return follower.Next(func(from time.Time, last bool) ([]follow.Row[string, strategy.Revocation[ID]], error) {
			return t.revocationsFrom(ctx, from, last)
		})
	}
}

// revocationsFrom returns the revocations from a time on, or only the latest of them. It does not
// find documents without a date, which Latchkey did not write.
func (t *Tokens[ID]) revocationsFrom(ctx context.Context, from time.Time, last bool) (rows []follow.Row[string, strategy.Revocation[ID]], err error) {
	opts := options.Find().SetSort(bson.D{{Key: "at", Value: 1}})
	if last {
		opts = options.Find().SetSort(bson.D{{Key: "at", Value: -1}}).SetLimit(1)
	}
	cur, err := t.revocations.Find(ctx, bson.D{{Key: "at", Value: bson.D{{Key: "$gte", Value: from}}}}, opts)
	var docs []bson.Raw
	if err == nil {
		err = cur.All(ctx, &docs)
	}
	if err != nil {
		return nil, wrap("read the revocations", err)
	}
	for _, doc := range docs {
		id := doc.Lookup("_id")
		ms, _ := doc.Lookup("at").DateTimeOK()
		r, err := parseRevocation[ID](doc, t.registry)
		if err != nil {
			err = fmt.Errorf("mongostore: read the revocation %v: %w", id, err)
		}
		rows = append(rows, follow.Row[string, strategy.Revocation[ID]]{
			Key: string(append([]byte{byte(id.Type)}, id.Value...)), At: time.UnixMilli(ms).UTC(), Revocation: r, Err: err,
		})
	}
	return rows, nil
}

// parseRevocation reads a document of the collection.
func parseRevocation[ID comparable](doc bson.Raw, reg *bson.Registry) (r strategy.Revocation[ID], err error) {
	if v := doc.Lookup("token"); !v.IsZero() {
		digest, ok := v.StringValueOK()
		if !ok || digest == "" {
			return r, fmt.Errorf("decode the field token: unexpected type %v, or empty", v.Type)
		}
		return strategy.Revocation[ID]{Digest: digest}, nil
	}
	if v := doc.Lookup("session_id"); !v.IsZero() {
		id, ok := uuidOf(v)
		if !ok {
			return r, fmt.Errorf("decode the field session_id: unexpected type %v", v.Type)
		}
		return strategy.Revocation[ID]{SessionID: id}, nil
	}
	v := doc.Lookup("user_id")
	if v.IsZero() {
		return r, errors.New("it has no token, session_id or user_id")
	}
	var id ID
	if err := parseID(v, reg, &id); err != nil {
		return r, fmt.Errorf("decode the field user_id: %w", err)
	}
	return strategy.Revocation[ID]{UserID: id}, nil
}

// purgeRevocations removes old revocations on servers without TTL indexes.
func (t *Tokens[ID]) purgeRevocations(ctx context.Context) (int64, error) {
	// This process's clock may be ahead of the server's.
	old := t.now().Add(-revocationsKept - follow.MaxClockSkew)
	return t.purge(ctx, t.revocations, bson.D{{Key: "at", Value: bson.D{{Key: "$lt", Value: old}}}})
}
