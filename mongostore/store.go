package mongostore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey/event"
)

// store is what all stores have: a collection, the settings of their Configs, and the
// indexes. Stores embed it.
type store struct {
	coll          *mongo.Collection
	purgeInterval time.Duration // 0 means no substitute for TTL indexes
	timeout       time.Duration // of a call whose context has no deadline
	registry      *bson.Registry
	now           func() time.Time
	onEvent       func(context.Context, event.Event) // nil means no events
	digestIDs     bool                               // the _id is a token's digest, which no event may show

	purgers []*purger                   // one for each collection of the store
	check   func(ctx context.Context)   // reports invalid documents; can be nil
	foreign func(context.Context) error // returns an error if the collection is another program's; can be nil

	closing context.Context
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// open opens the store's collection in a database, fills in the defaults and checks the
// settings. config names the Config in errors.
func (s *store) open(db *mongo.Database, config, name string) error {
	if db == nil {
		return errors.New("mongostore: db is nil")
	}
	if err := notNegative(config, duration{"PurgeInterval", s.purgeInterval}, duration{"Timeout", s.timeout}); err != nil {
		return err
	}
	if err := checkName(config+".Collection", name); err != nil {
		return err
	}
	s.timeout = cmp.Or(s.timeout, defaultTimeout)
	if s.registry == nil {
		s.registry = defaultRegistry
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.coll = collection(db, name, s.registry)
	s.closing, s.cancel = context.WithCancel(context.Background())
	return nil
}

// checkName returns an error if a field of a Config is not the name of a collection that
// MongoDB lets applications write to.
func checkName(field, name string) error {
	if strings.ContainsAny(name, "$\x00") || strings.HasPrefix(name, "system.") || strings.HasPrefix(name, ".") {
		return fmt.Errorf("mongostore: %s is %q, want a name without $ and NUL that does not begin with \"system.\" or a dot", field, name)
	}
	return nil
}

// duration is a field of a Config.
type duration struct {
	name  string
	value time.Duration
}

func notNegative(config string, fields ...duration) error {
	for _, f := range fields {
		if f.value < 0 {
			return fmt.Errorf("mongostore: %s.%s is negative: %v", config, f.name, f.value)
		}
	}
	return nil
}

// bounded returns ctx with a deadline, unless it already has one.
func (s *store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return bounded(ctx, s.timeout)
}

// indexed adds the indexes of a collection. purge removes its expired documents.
func (s *store) indexed(coll *mongo.Collection, spec indexSpec, purge func(context.Context) (int64, error)) {
	s.purgers = append(s.purgers, &purger{store: s, coll: coll, spec: spec, purge: purge})
}

func (s *store) emit(ctx context.Context, e event.Event) {
	if s.onEvent != nil {
		e.Time, e.ClientIP = s.now().UTC(), event.ClientIP(ctx)
		s.onEvent(ctx, e)
	}
}

// write runs a write in the time of a call, repeats it after a deadlock, and says in its
// error what the store was doing.
func (s *store) write(ctx context.Context, doing string, do func(context.Context) error) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	return wrap(doing, retryDeadlock(ctx, func() error { return do(ctx) }))
}

// purge deletes the documents that a filter matches, and returns their number.
func (s *store) purge(ctx context.Context, coll *mongo.Collection, filter bson.D) (n int64, err error) {
	err = s.write(ctx, "purge "+coll.Name(), func(ctx context.Context) error {
		res, err := coll.DeleteMany(ctx, filter)
		if err == nil {
			n = res.DeletedCount
		}
		return err
	})
	return n, err
}

// expiryGrace is how long an expired counter or one-time token is kept: the server removes
// them by its own clock.
const expiryGrace = 5 * time.Minute

// purgeExpired deletes the documents that the TTL index of expiryIndex would remove, and
// returns their number.
func (s *store) purgeExpired(ctx context.Context) (int64, error) {
	expired := s.now().Add(-expiryGrace)
	return s.purge(ctx, s.coll, bson.D{{Key: "expires_at", Value: bson.D{{Key: "$lt", Value: expired}}}})
}

// EnsureIndexes makes the indexes of the store's collections, if missing; the package's
// documentation lists them. Call it whenever the application starts: it is idempotent, and
// safe from many instances at once. It fails within 10 seconds if no server answers.
//
// It sets a TTL index of another lifetime to that of the Config with collMod, and drops it
// if tokens do not expire. A much shorter lifetime lets the server remove many documents at
// once. It does not change any other index that differs (the same name with other keys, an
// index that is not unique), and returns an error wrapping [ErrIndexMismatch]. If documents
// share a value that must be unique, it returns the server's duplicate key error. On a
// server without TTL indexes it returns [ErrTTLUnsupported], or starts the purge; see the
// Config's PurgeInterval.
//
// It also looks for tokens, one-time tokens and accounts that cannot be read, and reports each
// as an event of the kind event.InvalidDocument; that is no error. It finds, a few at a time,
// documents in which an indexed field has another type, and accounts in which another field
// has. The latter have no index, so it looks for them for at most 1 second.
func (s *store) EnsureIndexes(ctx context.Context) error {
	return s.eachIndex(ctx, indexTimeout, func(p *purger, ctx context.Context) error {
		if s.foreign != nil && p.coll == s.coll {
			if err := s.foreign(ctx); err != nil {
				return err
			}
		}
		return p.ensureIndexes(ctx)
	})
}

// VerifyIndexes changes nothing, and returns an error wrapping [ErrIndexMismatch] that
// names every index that is missing or differs: for an application whose database user
// may not manage indexes. It fails within 10 seconds if no server answers. With a
// PurgeInterval it accepts a plain index instead of a TTL index, and starts the purge. It
// reports documents that cannot be read, as EnsureIndexes does.
func (s *store) VerifyIndexes(ctx context.Context) error {
	return s.eachIndex(ctx, s.timeout, (*purger).verifyIndexes)
}

// CheckIndexes is VerifyIndexes for readiness checks: it only lists the indexes. It does not
// look for documents that cannot be read, and does not start the purge.
func (s *store) CheckIndexes(ctx context.Context) error {
	return s.onIndexes(ctx, s.timeout, func(p *purger, ctx context.Context) error {
		_, err := p.inspect(ctx)
		return err
	})
}

// Ping returns an error that names the server's address if no primary answers within the
// Config's Timeout, or within the context's deadline if that is earlier.
func (s *store) Ping(ctx context.Context) error {
	return ping(ctx, s.coll.Database().Client(), s.timeout)
}

// onIndexes calls do for the indexes of each collection.
func (s *store) onIndexes(ctx context.Context, timeout time.Duration, do func(*purger, context.Context) error) error {
	var problems []error
	for _, p := range s.purgers {
		bounded, cancel := bounded(ctx, timeout)
		problems = append(problems, do(p, bounded))
		cancel()
	}
	return errors.Join(problems...)
}

func (s *store) eachIndex(ctx context.Context, timeout time.Duration, do func(*purger, context.Context) error) error {
	if err := ping(ctx, s.coll.Database().Client(), pingTimeout); err != nil {
		return err
	}
	if err := s.onIndexes(ctx, timeout, do); err != nil {
		return err
	}
	if s.check != nil {
		s.check(ctx)
	}
	return nil
}

// Close ends the periodic purge, if one runs, and waits until it has ended. It is
// idempotent. The store remains usable. Close does not disconnect the MongoDB client.
func (s *store) Close() {
	s.cancel()
	s.done.Wait()
}

// purger makes and verifies the indexes of a collection. With a purge interval, on a server
// without TTL indexes, it accepts a plain index and purges the collection at this interval
// until the store is closed.
type purger struct {
	store   *store
	coll    *mongo.Collection
	spec    indexSpec
	purge   func(context.Context) (int64, error)
	started sync.Once
}

// ensureIndexes makes the indexes. It makes the substitute if an interval is set.
func (p *purger) ensureIndexes(ctx context.Context) error {
	admin := mongoIndexes{p.coll}
	spec, err := p.spec.on(ctx, p.coll)
	if err != nil {
		return err
	}
	err = reconcile(ctx, admin, p.coll.Name(), spec)
	if errors.Is(err, ErrTTLUnsupported) && p.store.purgeInterval > 0 {
		if err = reconcile(ctx, admin, p.coll.Name(), spec.withoutTTL()); err == nil {
			p.start()
		}
	}
	return wrap("ensure indexes", err)
}

// verifyIndexes checks the indexes, and starts the purge if the substitute is there.
func (p *purger) verifyIndexes(ctx context.Context) error {
	substitute, err := p.inspect(ctx)
	if substitute {
		p.start()
	}
	return err
}

// inspect compares the indexes with the spec. It accepts the substitute if an interval is set.
func (p *purger) inspect(ctx context.Context) (substitute bool, err error) {
	admin := mongoIndexes{p.coll}
	spec, err := p.spec.on(ctx, p.coll)
	if err != nil {
		return false, err
	}
	err = verify(ctx, admin, p.coll.Name(), spec)
	if errors.Is(err, ErrIndexMismatch) && p.store.purgeInterval > 0 && spec.ttl.ttl != noTTL {
		if verify(ctx, admin, p.coll.Name(), spec.withoutTTL()) == nil {
			return true, nil
		}
	}
	return false, wrap("verify indexes", err)
}

// start starts the periodic purge, once.
func (p *purger) start() {
	p.started.Do(func() {
		p.store.done.Go(func() {
			closing := p.store.closing
			tick := time.NewTicker(p.store.purgeInterval)
			defer tick.Stop()
			for {
				select {
				case <-closing.Done():
					return
				case <-tick.C:
				}
				if _, err := p.purge(closing); err != nil && closing.Err() == nil {
					p.store.emit(closing, event.Event{Kind: event.StoreFailed, Err: err})
				}
			}
		})
	})
}
