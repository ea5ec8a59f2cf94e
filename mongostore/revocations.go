package mongostore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/strategy"
)

const (
	// revocationsKept is how long a revocation is stored: far longer than a cache may
	// hold an entry.
	revocationsKept = 10 * time.Minute
	// revocationsOverlap is how far before its latest revocation a follower reads again.
	// Concurrent writes can become visible later, and after a failover the times come
	// from another server's clock.
	revocationsOverlap = 10 * time.Second
	// maxClockSkew is the largest difference between the server's clock and this
	// process's clock.
	maxClockSkew = time.Hour
)

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

// FollowRevocations implements strategy.RevocationLog.
func (t *Tokens[ID]) FollowRevocations() (next func(context.Context) ([]strategy.Revocation[ID], error)) {
	return (&revocationFollower[ID]{tokens: t, seen: make(map[string]time.Time)}).next
}

// revocationFollower polls for new revocations. On a replica set, a change stream could
// replace it.
type revocationFollower[ID comparable] struct {
	tokens   *Tokens[ID]
	began    bool
	latest   time.Time                 // the time of the latest revocation read
	latestAt time.Time                 // when it was read, by the monotonic clock
	seen     map[string]time.Time      // times of the revocations read, by their _id
	pending  []strategy.Revocation[ID] // read, but not returned yet
}

// next returns one error for a document that it cannot decode; the following call returns
// the other revocations. A cache then notices the undecoded revocation when its entries
// expire, after MaxStaleness.
func (f *revocationFollower[ID]) next(ctx context.Context) ([]strategy.Revocation[ID], error) {
	ctx, cancel := f.tokens.bounded(ctx)
	defer cancel()
	from, opts := f.from(), options.Find().SetSort(bson.D{{Key: "at", Value: 1}})
	if !f.began { // the latest revocation shows the server's time
		opts = options.Find().SetSort(bson.D{{Key: "at", Value: -1}}).SetLimit(1)
	}
	// This does not find documents without a date, which Latchkey did not write.
	cur, err := f.tokens.revocations.Find(ctx, bson.D{{Key: "at", Value: bson.D{{Key: "$gte", Value: from}}}}, opts)
	var docs []bson.Raw
	if err == nil {
		err = cur.All(ctx, &docs)
	}
	if err != nil {
		return nil, wrap("read the revocations", err)
	}
	var undecoded error
	tooLate := f.tokens.now().Add(maxClockSkew)
	for _, doc := range docs {
		id := doc.Lookup("_id")
		key := string(append([]byte{byte(id.Type)}, id.Value...))
		if _, seen := f.seen[key]; seen {
			continue
		}
		ms, _ := doc.Lookup("at").DateTimeOK()
		at := time.UnixMilli(ms).UTC()
		f.seen[key] = at
		if at.After(f.latest) && at.Before(tooLate) {
			f.latest, f.latestAt = at, time.Now()
		}
		r, err := parseRevocation[ID](doc, f.tokens.registry)
		if err == nil {
			f.pending = append(f.pending, r)
		} else if f.began { // at the beginning, nothing is cached
			undecoded = fmt.Errorf("mongostore: read the revocation %v: %w", id, err)
		}
	}
	f.began = true
	for key, at := range f.seen {
		if at.Before(from) {
			delete(f.seen, key)
		}
	}
	if undecoded != nil {
		return nil, undecoded
	}
	revocations := f.pending
	f.pending = nil
	return revocations, nil
}

// from returns the time from which next reads: the overlap before the latest revocation.
// Late writes arrive within the overlap, so it shrinks as time passes. Without new
// revocations, next therefore stops reading the old ones again.
func (f *revocationFollower[ID]) from() time.Time {
	if f.latest.IsZero() {
		return time.UnixMilli(0)
	}
	from := f.latest.Add(-max(0, revocationsOverlap-time.Since(f.latestAt)))
	// If the server's clock was ahead and has been set back, new revocations have
	// earlier times than the latest one.
	if now := f.tokens.now().Add(-revocationsOverlap); now.Before(from) {
		return now
	}
	return from
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
	old := t.now().Add(-revocationsKept - maxClockSkew)
	return t.purge(ctx, t.revocations, bson.D{{Key: "at", Value: bson.D{{Key: "$lt", Value: old}}}})
}
