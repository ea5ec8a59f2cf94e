package mongostore

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
)

// AttemptsConfig configures [Attempts]. The zero value is usable.
type AttemptsConfig struct {
	// Collection is the collection's name. Default "login_attempts".
	Collection string

	// PurgeInterval is a substitute on servers without TTL indexes (FerretDB v1):
	// EnsureIndexes and VerifyIndexes then accept a plain index, and start a goroutine
	// that calls Purge at this interval until Close. If it is 0, such a server is an
	// error, [ErrTTLUnsupported]. It has no effect on servers with TTL indexes.
	PurgeInterval time.Duration

	// Timeout bounds every call whose context has no deadline. Default 3 seconds.
	// EnsureIndexes has 5 minutes instead.
	Timeout time.Duration

	// Now is the clock of Purge. Default [time.Now].
	Now func() time.Time

	// OnEvent receives an event for every failure of the periodic purge; see
	// strategy.Config.OnEvent. nil means no events.
	OnEvent func(context.Context, event.Event)
}

// Attempts stores the counters of the login limiter (see account.LimiterConfig) in a
// MongoDB collection, so that all instances of an application share them:
//
//	login_attempts
//	  _id          the counter's key, a digest: it reveals no name and no address
//	  failures     number of failed attempts; 0 if the key is that of a known device
//	  last         date of the latest attempt, or of the last login from the device
//	  expires_at   date of the counter's expiry      TTL index {expires_at: 1}, 5 minutes later
//
// Make it with [NewAttempts], call EnsureIndexes (or VerifyIndexes) when the application
// starts, and Close when it ends. Shard the collection by {_id: "hashed"}. It is safe for
// concurrent use.
type Attempts struct {
	store
}

var _ account.AttemptStore = (*Attempts)(nil)

// attemptsDoc is a document of the collection.
type attemptsDoc struct {
	Key      string    `bson:"_id"`
	Failures int       `bson:"failures"`
	Last     time.Time `bson:"last"`
}

func (d attemptsDoc) counter() account.AttemptCounter {
	return account.AttemptCounter{Failures: d.Failures, Last: utc(d.Last)}
}

// NewAttempts returns a store of login attempts in a database. It does no I/O. It returns
// an error that names the field if a field of cfg is invalid.
func NewAttempts(db *mongo.Database, cfg AttemptsConfig) (*Attempts, error) {
	a := &Attempts{store{purgeInterval: cfg.PurgeInterval, timeout: cfg.Timeout, now: cfg.Now, onEvent: cfg.OnEvent}}
	if err := a.open(db, "AttemptsConfig", cmp.Or(cfg.Collection, "login_attempts")); err != nil {
		return nil, err
	}
	a.indexed(a.coll, indexSpec{ttl: expiryIndex()}, a.Purge)
	return a, nil
}

// liveFilter matches the counter of a key unless it has expired.
func liveFilter(key string, now time.Time) bson.D {
	return bson.D{{Key: "_id", Value: key}, {Key: "expires_at", Value: bson.D{{Key: "$gt", Value: now}}}}
}

// Counters implements account.AttemptStore. It sends one query.
func (a *Attempts) Counters(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	in := bson.A{} // without keys, $in needs an empty array instead of null
	for _, key := range keys {
		in = append(in, key)
	}
	cur, err := a.coll.Find(ctx, bson.D{
		{Key: "_id", Value: bson.D{{Key: "$in", Value: in}}},
		{Key: "expires_at", Value: bson.D{{Key: "$gt", Value: now}}},
	})
	var docs []attemptsDoc
	if err == nil {
		err = cur.All(ctx, &docs)
	}
	if err != nil {
		return nil, wrap("find the counters", err)
	}
	counters := make([]account.AttemptCounter, len(keys))
	for i, key := range keys {
		for _, doc := range docs {
			if doc.Key == key {
				counters[i] = doc.counter()
			}
		}
	}
	return counters, nil
}

// Add implements account.AttemptStore.
func (a *Attempts) Add(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	latest := bson.D{{Key: "last", Value: now}}
	update := bson.D{{Key: "$inc", Value: bson.D{{Key: "failures", Value: 1}}}}
	if postpone {
		latest = append(latest, bson.E{Key: "expires_at", Value: expires})
	} else {
		update = append(update, bson.E{Key: "$setOnInsert", Value: bson.D{{Key: "expires_at", Value: expires}}})
	}
	update = append(update, bson.E{Key: "$max", Value: latest})
	opts := options.FindOneAndUpdate().SetUpsert(true).SetReturnDocument(options.After)
	var doc attemptsDoc
	err := a.upsert(ctx, key, now, func() error {
		return a.coll.FindOneAndUpdate(ctx, liveFilter(key, now), update, opts).Decode(&doc)
	})
	return doc.counter(), wrap("count the attempt", err)
}

// upsert runs an upsert, up to five times if its insert finds the key taken. Then another
// instance was faster, or an expired counter has not been removed yet: upsert removes that
// one, unless another instance has renewed it meanwhile.
func (a *Attempts) upsert(ctx context.Context, key string, now time.Time, write func() error) error {
	expired := bson.D{{Key: "_id", Value: key}, {Key: "expires_at", Value: bson.D{{Key: "$lte", Value: now}}}}
	for attempt := 1; ; attempt++ {
		err := retryDeadlock(ctx, write)
		if attempt == 5 || !isKeyTaken(err) {
			return err
		}
		if err := a.remove(ctx, expired); err != nil {
			return fmt.Errorf("remove the expired counter: %w", err)
		}
	}
}

// isKeyTaken reports whether an upsert found its key taken. FerretDB v2 answers a
// findAndModify with an internal error then.
func isKeyTaken(err error) bool {
	return mongo.IsDuplicateKeyError(err) || hasCode(err, codeInternalError)
}

// Withdraw implements account.AttemptStore.
func (a *Attempts) Withdraw(ctx context.Context, now time.Time, key string, n int) error {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	having := func(op string) bson.D {
		return append(liveFilter(key, now), bson.E{Key: "failures", Value: bson.D{{Key: op, Value: n}}})
	}
	// No upsert and no negative number: what is left is either subtracted from or removed,
	// whatever other instances do in between.
	err := untilGone(ctx, a.coll, liveFilter(key, now), func() (bool, error) {
		res, err := a.coll.UpdateOne(ctx, having("$gt"), bson.D{{Key: "$inc", Value: bson.D{{Key: "failures", Value: -n}}}})
		if err != nil || res.MatchedCount > 0 {
			return true, err
		}
		deleted, err := a.coll.DeleteOne(ctx, having("$lte"))
		return err != nil || deleted.DeletedCount > 0, err
	})
	return wrap("withdraw attempts", err)
}

// Clear implements account.AttemptStore.
func (a *Attempts) Clear(ctx context.Context, key string) error {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	return wrap("clear the counter", a.remove(ctx, bson.D{{Key: "_id", Value: key}}))
}

// remove deletes the document that a filter matches, if there is one.
func (a *Attempts) remove(ctx context.Context, filter bson.D) error {
	return untilGone(ctx, a.coll, filter, func() (bool, error) {
		res, err := a.coll.DeleteOne(ctx, filter)
		return err != nil || res.DeletedCount > 0, err
	})
}

// Remember implements account.AttemptStore.
func (a *Attempts) Remember(ctx context.Context, key string, now, expires time.Time) error {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	update := bson.D{{Key: "$set", Value: bson.D{
		{Key: "failures", Value: 0},
		{Key: "last", Value: now},
		{Key: "expires_at", Value: expires},
	}}}
	err := a.upsert(ctx, key, now, func() error {
		_, err := a.coll.UpdateOne(ctx, bson.D{{Key: "_id", Value: key}}, update, options.UpdateOne().SetUpsert(true))
		return err
	})
	return wrap("remember the device", err)
}

// Purge removes the counters that a TTL index would remove, those that expired more than 5
// minutes ago. It returns their number.
func (a *Attempts) Purge(ctx context.Context) (int64, error) { return a.purgeExpired(ctx) }
