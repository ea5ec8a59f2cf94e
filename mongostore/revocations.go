package mongostore

import (
	"context"
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
)

// revocationDoc is a document of the collection of revocations. One of the last
// three is there.
type revocationDoc[ID comparable] struct {
	ID        uuid.UUID `bson:"_id"`
	At        time.Time `bson:"at"` // by the server's clock
	Token     string    `bson:"token"`
	SessionID uuid.UUID `bson:"session_id"`
	UserID    ID        `bson:"user_id"`
}

var _ strategy.RevocationLog[int64] = (*Tokens[int64])(nil)

// PublishRevocation implements strategy.RevocationLog: it inserts a small document
// into a collection, which goes after 10 minutes.
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
	latest time.Time // of those that were returned
	since  time.Time // when that was found, by the monotonic clock
	known  map[uuid.UUID]time.Time
}

// Next implements strategy.RevocationFollower.
func (f *revocationFollower[ID]) Next(ctx context.Context) ([]strategy.Revocation[ID], error) {
	ctx, cancel := bounded(ctx, f.tokens.cfg.Timeout)
	defer cancel()
	filter, opts := bson.D{}, options.Find().SetSort(bson.D{{Key: "at", Value: 1}})
	switch {
	case !f.began: // the latest one tells the server's time
		opts = options.Find().SetSort(bson.D{{Key: "at", Value: -1}}).SetLimit(1)
	case !f.latest.IsZero():
		filter = bson.D{{Key: "at", Value: bson.D{{Key: "$gte", Value: f.from()}}}}
	}
	cur, err := f.tokens.revocations.Find(ctx, filter, opts)
	if err != nil {
		return nil, fmt.Errorf("mongostore: read the revocations: %w", err)
	}
	var docs []revocationDoc[ID]
	if err := cur.All(ctx, &docs); err != nil {
		return nil, fmt.Errorf("mongostore: read the revocations: %w", err)
	}
	if f.known == nil {
		f.known = make(map[uuid.UUID]time.Time)
	}
	f.began = true
	var found []strategy.Revocation[ID]
	for _, doc := range docs {
		if _, known := f.known[doc.ID]; known {
			continue
		}
		f.known[doc.ID] = doc.At
		if doc.At.After(f.latest) {
			f.latest, f.since = doc.At, time.Now()
		}
		found = append(found, strategy.Revocation[ID]{Digest: doc.Token, SessionID: doc.SessionID, UserID: doc.UserID})
	}
	for id, at := range f.known {
		if at.Before(f.from()) {
			delete(f.known, id)
		}
	}
	return found, nil
}

// from is the time from which on there may be something new. What is as late as
// the overlap allows has come when that has passed: so where nothing is published
// any more, nothing is read again and again.
func (f *revocationFollower[ID]) from() time.Time {
	return f.latest.Add(-max(0, revocationsOverlap-time.Since(f.since)))
}

// purgeRevocations is the substitute for the TTL index.
func (t *Tokens[ID]) purgeRevocations(ctx context.Context) (int64, error) {
	ctx, cancel := bounded(ctx, t.cfg.Timeout)
	defer cancel()
	// By this process's clock, which may be ahead of the server's.
	const ahead = time.Hour
	old := bson.D{{Key: "at", Value: bson.D{{Key: "$lt", Value: t.cfg.Now().Add(-revocationsKept - ahead)}}}}
	res, err := t.revocations.DeleteMany(ctx, old)
	if err != nil {
		return 0, fmt.Errorf("mongostore: purge revocations: %w", err)
	}
	return res.DeletedCount, nil
}
