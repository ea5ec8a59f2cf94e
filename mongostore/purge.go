package mongostore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// purger makes and verifies the indexes of a collection whose documents expire. With an
// interval, on a server without TTL indexes, it accepts a plain index and purges the
// collection at this interval until it is closed.
type purger struct {
	coll     *mongo.Collection
	spec     indexSpec
	interval time.Duration // 0 means no substitute for a TTL index
	purge    func(context.Context) (int64, error)
	failed   func(context.Context, error)

	started sync.Once
	closing context.Context
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// newPurger returns a purger that does nothing yet. onEvent, unless nil, receives the
// failures of the periodic purge.
func newPurger(coll *mongo.Collection, spec indexSpec, interval time.Duration, purge func(context.Context) (int64, error), now func() time.Time, onEvent func(context.Context, event.Event)) *purger {
	p := &purger{coll: coll, spec: spec, interval: interval, purge: purge}
	p.failed = func(ctx context.Context, err error) {
		if onEvent != nil {
			onEvent(ctx, event.Event{Kind: event.StoreFailed, Time: now().UTC(), Err: err})
		}
	}
	p.closing, p.cancel = context.WithCancel(context.Background())
	return p
}

// ensureIndexes makes the indexes. It makes the substitute if an interval is set.
func (p *purger) ensureIndexes(ctx context.Context) error {
	ctx, cancel := bounded(ctx, indexTimeout)
	defer cancel()
	admin := mongoIndexes{p.coll}
	err := reconcile(ctx, admin, p.coll.Name(), p.spec)
	if errors.Is(err, ErrTTLUnsupported) && p.interval > 0 {
		if err = reconcile(ctx, admin, p.coll.Name(), p.spec.withoutTTL()); err == nil {
			p.start()
		}
	}
	if err != nil {
		return fmt.Errorf("mongostore: ensure indexes: %w", err)
	}
	return nil
}

// verifyIndexes checks the indexes. It accepts the substitute if an interval is set.
func (p *purger) verifyIndexes(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := bounded(ctx, timeout)
	defer cancel()
	admin := mongoIndexes{p.coll}
	err := verify(ctx, admin, p.coll.Name(), p.spec)
	if errors.Is(err, ErrIndexMismatch) && p.interval > 0 && p.spec.ttl.ttl != noTTL {
		if verify(ctx, admin, p.coll.Name(), p.spec.withoutTTL()) == nil {
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

// close ends the periodic purge and waits until it has ended.
func (p *purger) close() {
	p.cancel()
	p.done.Wait()
}
