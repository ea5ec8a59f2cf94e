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
	// revocationsKept is for how long revocations can be read by those who follow
	// them: far longer than a cache may hold anything.
	revocationsKept = 10 * time.Minute
	// revocationsOverlap is how far a follower looks back behind the latest that it
	// knows: what was written at the same time can become visible later, and after a
	// failover the clock is another server's.
	revocationsOverlap = 10 * time.Second
	// clocksApart is how far apart the server's clock and this process's may be.
	clocksApart = time.Hour
)

var _ strategy.RevocationLog[int64] = (*Tokens[int64])(nil)

// PublishRevocation implements strategy.RevocationLog: it inserts a small document
// into a collection, which goes after 10 minutes:
//
//	revocations
//	  _id          UUIDv7
//	  at           date, by the server's clock      TTL index
//	  token        a digest, or in its place session_id or user_id
func (t *Tokens[ID]) PublishRevocation(ctx context.Context, r strategy.Revocation[ID]) error {
	ctx, cancel := bounded(ctx, t.cfg.Timeout)
	defer cancel()
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
	// The time has to be the server's: the clocks of applications differ.
	update := bson.D{{Key: "$currentDate", Value: bson.D{{Key: "at", Value: true}}}, {Key: "$set", Value: set}}
	err = retryDeadlock(ctx, func() error {
		_, err := t.revocations.UpdateOne(ctx, bson.D{{Key: "_id", Value: id}}, update, options.UpdateOne().SetUpsert(true))
		return err
	})
	if err != nil {
		return fmt.Errorf("mongostore: publish the revocation: %w", err)
	}
	return nil
}

// FollowRevocations implements strategy.RevocationLog.
func (t *Tokens[ID]) FollowRevocations() strategy.RevocationFollower[ID] {
	return &revocationFollower[ID]{tokens: t}
}

// revocationFollower asks for what is new. On a replica set, a change stream could
// take its place.
type revocationFollower[ID comparable] struct {
	tokens *Tokens[ID]
	began  bool
	latest time.Time                 // of those that were read
	since  time.Time                 // when that was found, by the monotonic clock
	known  map[string]time.Time      // by their _id
	found  []strategy.Revocation[ID] // not returned yet
}

// Next implements strategy.RevocationFollower. A document that cannot be read is an
// error, once: a cache knows of what it says when its entries are too old, after
// MaxStaleness. All else is returned by the next Next.
func (f *revocationFollower[ID]) Next(ctx context.Context) ([]strategy.Revocation[ID], error) {
	ctx, cancel := bounded(ctx, f.tokens.cfg.Timeout)
	defer cancel()
	from, opts := f.from(), options.Find().SetSort(bson.D{{Key: "at", Value: 1}})
	if !f.began { // the latest one tells the server's time
		opts = options.Find().SetSort(bson.D{{Key: "at", Value: -1}}).SetLimit(1)
	}
	// What has no date is none of ours, and not found by one.
	cur, err := f.tokens.revocations.Find(ctx, bson.D{{Key: "at", Value: bson.D{{Key: "$gte", Value: from}}}}, opts)
	if err != nil {
		return nil, fmt.Errorf("mongostore: read the revocations: %w", err)
	}
	var docs []bson.Raw
	if err := cur.All(ctx, &docs); err != nil {
		return nil, fmt.Errorf("mongostore: read the revocations: %w", err)
	}
	if f.known == nil {
		f.known = make(map[string]time.Time)
	}
	var unread error
	farAhead := f.tokens.cfg.Now().Add(clocksApart)
	for _, doc := range docs {
		id := doc.Lookup("_id")
		key := string(append([]byte{byte(id.Type)}, id.Value...))
		if _, known := f.known[key]; known {
			continue
		}
		at, _ := timeOf(doc.Lookup("at"))
		f.known[key] = at
		if at.After(f.latest) && at.Before(farAhead) {
			f.latest, f.since = at, time.Now()
		}
		r, err := parseRevocation[ID](doc, f.tokens.cfg.Registry)
		if err == nil {
			f.found = append(f.found, r)
		} else if f.began { // before that, nothing was cached
			unread = fmt.Errorf("mongostore: read the revocation %v: %w", id, err)
		}
	}
	f.began = true
	for key, at := range f.known {
		if at.Before(from) {
			delete(f.known, key)
		}
	}
	if unread != nil {
		return nil, unread
	}
	found := f.found
	f.found = nil
	return found, nil
}

// from is the time from which on there may be something new. What is as late as
// the overlap allows has come when that has passed: so where nothing is published
// any more, nothing is read again and again.
func (f *revocationFollower[ID]) from() time.Time {
	if f.latest.IsZero() {
		return time.UnixMilli(0)
	}
	from := f.latest.Add(-max(0, revocationsOverlap-time.Since(f.since)))
	// A server's clock that was ahead, and was set right, would have us wait until
	// it is as late again.
	if now := f.tokens.cfg.Now().Add(-revocationsOverlap); now.Before(from) {
		return now
	}
	return from
}

// parseRevocation reads a document of the collection.
func parseRevocation[ID comparable](doc bson.Raw, reg *bson.Registry) (r strategy.Revocation[ID], err error) {
	if v := doc.Lookup("token"); !v.IsZero() {
		digest, ok := v.StringValueOK()
		if !ok || digest == "" {
			return r, fmt.Errorf("decode the field token: it is of the type %v, or empty", v.Type)
		}
		return strategy.Revocation[ID]{Digest: digest}, nil
	}
	if v := doc.Lookup("session_id"); !v.IsZero() {
		id, ok := uuidOf(v)
		if !ok {
			return r, fmt.Errorf("decode the field session_id: it is of the type %v", v.Type)
		}
		return strategy.Revocation[ID]{SessionID: id}, nil
	}
	v := doc.Lookup("user_id")
	if v.IsZero() {
		return r, errors.New("it has neither token nor session_id nor user_id")
	}
	var id ID
	if err := parseID(v, reg, &id); err != nil {
		return r, fmt.Errorf("decode the field user_id: %w", err)
	}
	return strategy.Revocation[ID]{UserID: id}, nil
}

// purgeRevocations is the substitute for the TTL index.
func (t *Tokens[ID]) purgeRevocations(ctx context.Context) (int64, error) {
	ctx, cancel := bounded(ctx, t.cfg.Timeout)
	defer cancel()
	// By this process's clock, which may be ahead of the server's.
	old := bson.D{{Key: "at", Value: bson.D{{Key: "$lt", Value: t.cfg.Now().Add(-revocationsKept - clocksApart)}}}}
	res, err := t.revocations.DeleteMany(ctx, old)
	if err != nil {
		return 0, fmt.Errorf("mongostore: purge revocations: %w", err)
	}
	return res.DeletedCount, nil
}
