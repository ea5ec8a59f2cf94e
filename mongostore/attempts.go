package mongostore

import (
	"context"
	"errors"
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

// attemptsGrace is how long an expired counter is kept: the server removes counters by its
// own clock.
const attemptsGrace = 5 * time.Minute

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
	coll   *mongo.Collection
	cfg    AttemptsConfig
	purger *purger
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
	if db == nil {
		return nil, errors.New("mongostore: db is nil")
	}
	if cfg.Collection == "" {
		cfg.Collection = "login_attempts"
	}
	if cfg.PurgeInterval < 0 {
		return nil, fmt.Errorf("mongostore: AttemptsConfig.PurgeInterval is negative: %v", cfg.PurgeInterval)
	}
	if cfg.Timeout < 0 {
		return nil, fmt.Errorf("mongostore: AttemptsConfig.Timeout is negative: %v", cfg.Timeout)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	a := &Attempts{coll: collection(db, cfg.Collection, defaultRegistry), cfg: cfg}
	a.purger = newPurger(a.coll, attemptsIndexSpec(), cfg.PurgeInterval, a.Purge, cfg.Now, cfg.OnEvent)
	return a, nil
}

// liveFilter matches the counter of a key unless it has expired.
func liveFilter(key string, now time.Time) bson.D {
	return bson.D{{Key: "_id", Value: key}, {Key: "expires_at", Value: bson.D{{Key: "$gt", Value: now}}}}
}

// Counters implements account.AttemptStore. It sends one query.
func (a *Attempts) Counters(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
	ctx, cancel := bounded(ctx, a.cfg.Timeout)
	defer cancel()
	in := bson.A{} // without keys, $in needs an empty array instead of null
	for _, key := range keys {
		in = append(in, key)
	}
	cur, err := a.coll.Find(ctx, bson.D{
		{Key: "_id", Value: bson.D{{Key: "$in", Value: in}}},
		{Key: "expires_at", Value: bson.D{{Key: "$gt", Value: now}}},
	})
	if err != nil {
		return nil, fmt.Errorf("mongostore: find the counters: %w", err)
	}
	var docs []attemptsDoc
	if err := cur.All(ctx, &docs); err != nil {
		return nil, fmt.Errorf("mongostore: find the counters: %w", err)
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
	ctx, cancel := bounded(ctx, a.cfg.Timeout)
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
	if err != nil {
		return account.AttemptCounter{}, fmt.Errorf("mongostore: count the attempt: %w", err)
	}
	return doc.counter(), nil
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
	ctx, cancel := bounded(ctx, a.cfg.Timeout)
	defer cancel()
	having := func(op string) bson.D {
		return append(liveFilter(key, now), bson.E{Key: "failures", Value: bson.D{{Key: op, Value: n}}})
	}
	// No upsert and no negative number: what is left is either subtracted from or removed,
	// whatever other instances do in between.
	err := a.untilGone(ctx, liveFilter(key, now), func() (bool, error) {
		res, err := a.coll.UpdateOne(ctx, having("$gt"), bson.D{{Key: "$inc", Value: bson.D{{Key: "failures", Value: -n}}}})
		if err != nil || res.MatchedCount > 0 {
			return true, err
		}
		deleted, err := a.coll.DeleteOne(ctx, having("$lte"))
		return err != nil || deleted.DeletedCount > 0, err
	})
	if err != nil {
		return fmt.Errorf("mongostore: withdraw attempts: %w", err)
	}
	return nil
}

// Clear implements account.AttemptStore.
func (a *Attempts) Clear(ctx context.Context, key string) error {
	ctx, cancel := bounded(ctx, a.cfg.Timeout)
	defer cancel()
	if err := a.remove(ctx, bson.D{{Key: "_id", Value: key}}); err != nil {
		return fmt.Errorf("mongostore: clear the counter: %w", err)
	}
	return nil
}

// remove deletes the document that a filter matches, if there is one.
func (a *Attempts) remove(ctx context.Context, filter bson.D) error {
	return a.untilGone(ctx, filter, func() (bool, error) {
		res, err := a.coll.DeleteOne(ctx, filter)
		return err != nil || res.DeletedCount > 0, err
	})
}

// untilGone calls write until it has done something, or no document matches the filter.
// DocumentDB answers that nothing matched if another command updates the document at that
// moment, so only a read tells whether it is gone.
func (a *Attempts) untilGone(ctx context.Context, filter bson.D, write func() (done bool, err error)) error {
	const most = 10
	for try := 1; ; try++ {
		done := false
		err := retryDeadlock(ctx, func() (err error) {
			done, err = write()
			return err
		})
		if err != nil || done {
			return err
		}
		err = a.coll.FindOne(ctx, filter, options.FindOne().SetProjection(bson.D{{Key: "_id", Value: 1}})).Err()
		switch {
		case errors.Is(err, mongo.ErrNoDocuments):
			return nil
		case err != nil:
			return err
		case try == most:
			return fmt.Errorf("the server did not change the document in %d tries", most)
		}
		if err := pause(ctx, time.Duration(try)*time.Millisecond); err != nil {
			return err
		}
	}
}

// Remember implements account.AttemptStore.
func (a *Attempts) Remember(ctx context.Context, key string, now, expires time.Time) error {
	ctx, cancel := bounded(ctx, a.cfg.Timeout)
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
	if err != nil {
		return fmt.Errorf("mongostore: remember the device: %w", err)
	}
	return nil
}

// attemptsIndexSpec returns the index of login_attempts.
func attemptsIndexSpec() indexSpec {
	return indexSpec{ttl: index{
		name: "expires_at_1", keys: bson.D{{Key: "expires_at", Value: 1}}, ttl: int64(attemptsGrace / time.Second),
	}}
}

// EnsureIndexes makes the TTL index of login_attempts, if missing. Call it whenever the
// application starts: it is idempotent, and safe from many instances at once. It fails
// within 10 seconds if no server answers.
//
// It sets a TTL index of another duration with collMod. It does not change any other index
// that differs, and returns an error wrapping [ErrIndexMismatch]. On a server without TTL
// indexes it returns [ErrTTLUnsupported], or starts the purge; see
// AttemptsConfig.PurgeInterval.
func (a *Attempts) EnsureIndexes(ctx context.Context) error {
	if err := ping(ctx, a.coll.Database().Client(), pingTimeout); err != nil {
		return err
	}
	return a.purger.ensureIndexes(ctx)
}

// VerifyIndexes changes nothing, and returns an error wrapping [ErrIndexMismatch] if the
// index is missing or differs. It fails within 10 seconds if no server answers. With
// AttemptsConfig.PurgeInterval it accepts a plain index instead of the TTL index, and
// starts the purge.
func (a *Attempts) VerifyIndexes(ctx context.Context) error {
	if err := ping(ctx, a.coll.Database().Client(), pingTimeout); err != nil {
		return err
	}
	return a.purger.verifyIndexes(ctx, a.cfg.Timeout)
}

// Purge removes the counters that a TTL index would remove, those that expired more than 5
// minutes ago. It returns their number.
func (a *Attempts) Purge(ctx context.Context) (int64, error) {
	ctx, cancel := bounded(ctx, a.cfg.Timeout)
	defer cancel()
	ended := a.cfg.Now().Add(-attemptsGrace)
	res, err := a.coll.DeleteMany(ctx, bson.D{{Key: "expires_at", Value: bson.D{{Key: "$lt", Value: ended}}}})
	if err != nil {
		return 0, fmt.Errorf("mongostore: purge attempts: %w", err)
	}
	return res.DeletedCount, nil
}

// Close ends the periodic purge, if one runs, and waits until it has ended. It is
// idempotent. The store remains usable. Close does not disconnect the MongoDB client.
func (a *Attempts) Close() { a.purger.close() }
