package mongostore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey/strategy"
)

// purger makes and verifies the indexes of a collection whose documents expire.
// Where the server has no TTL indexes, and an interval is set, it settles for a
// plain index and purges the collection once an interval, until it is closed.
type purger struct {
	coll     *mongo.Collection
	wanted   wanted
	interval time.Duration // 0: no substitute for a TTL index
	purge    func(context.Context) (int64, error)
	failed   func(context.Context, error)

	started sync.Once
	closing context.Context
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// newPurger returns a purger that does nothing yet. onEvent, unless nil, is told
// when the periodic purge fails.
func newPurger(coll *mongo.Collection, want wanted, interval time.Duration, purge func(context.Context) (int64, error), now func() time.Time, onEvent func(context.Context, strategy.Event)) *purger {
	p := &purger{coll: coll, wanted: want, interval: interval, purge: purge}
	p.failed = func(ctx context.Context, err error) {
		if onEvent != nil {
			onEvent(ctx, strategy.Event{Kind: strategy.EventStoreFailed, Time: now().UTC(), Err: err})
		}
	}
	p.closing, p.cancel = context.WithCancel(context.Background())
	return p
}

// ensureIndexes makes the indexes, or the substitute where it is asked for.
func (p *purger) ensureIndexes(ctx context.Context) error {
	ctx, cancel := bounded(ctx, indexTimeout)
	defer cancel()
	admin := mongoIndexes{p.coll}
	err := reconcile(ctx, admin, p.coll.Name(), p.wanted)
	if errors.Is(err, ErrTTLUnsupported) && p.interval > 0 {
		if err = reconcile(ctx, admin, p.coll.Name(), p.wanted.withoutTTL()); err == nil {
			p.start()
		}
	}
	if err != nil {
		return fmt.Errorf("mongostore: ensure indexes: %w", err)
	}
	return nil
}

// verifyIndexes only looks, and accepts the substitute where it is asked for.
func (p *purger) verifyIndexes(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := bounded(ctx, timeout)
	defer cancel()
	admin := mongoIndexes{p.coll}
	err := verify(ctx, admin, p.coll.Name(), p.wanted)
	if errors.Is(err, ErrIndexMismatch) && p.interval > 0 && p.wanted.ttl.ttl != noTTL {
		if verify(ctx, admin, p.coll.Name(), p.wanted.withoutTTL()) == nil {
			p.start()
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("mongostore: verify indexes: %w", err)
	}
	return nil
}

// start starts the periodic purge, once.
func (p *purger) start() {
	p.started.Do(func() {
		p.done.Go(func() {
			tick := time.NewTicker(p.interval)
			defer tick.Stop()
			for {
				select {
				case <-p.closing.Done():
					return
				case <-tick.C:
				}
				if _, err := p.purge(p.closing); err != nil && p.closing.Err() == nil {
					p.failed(p.closing, err)
				}
			}
		})
	})
}

// close ends the periodic purge, and waits until it has ended.
func (p *purger) close() {
	p.cancel()
	p.done.Wait()
}
