package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/event"
)

const (
	// defaultPurgeInterval is the time between two purges.
	defaultPurgeInterval = time.Minute
	// leaseMargin is how long after its next purge a purger still has the lease.
	leaseMargin = 30 * time.Second
	// purgeLease is the beginning of the name of the lease. The table of access tokens follows:
	// several applications can share a database and its table of leases.
	purgeLease = "purge "
	// leaseColumns are the columns of a lease. until_at is by the server's clock.
	leaseColumns = "name, holder, until_at"
)

// PurgerConfig configures a [Purger]. The zero value is usable.
type PurgerConfig struct {
	// Tables are the names of the tables.
	Tables Tables

	// Interval is the time between two purges. Default 1 minute.
	Interval time.Duration

	// Timeout bounds every statement. Default 3 seconds.
	Timeout time.Duration

	// Now is the clock of events. Default [time.Now].
	Now func() time.Time

	// OnEvent receives an event of the kind event.Purged with the number of rows after every
	// purge that deleted some, and one of the kind event.StoreFailed for every failure. nil means
	// no events.
	OnEvent func(context.Context, event.Event)
}

// purgeable is a store that deletes its expired rows.
type purgeable = interface {
	Purge(ctx context.Context) (int64, error)
}

// Purger deletes expired rows periodically. Of all instances of an application that share a
// database, one purges: it takes a lease in the table of leases, which it renews as long as it runs.
// Applications with access tokens in different tables have different leases.
// If it ends without a Close, another instance takes the lease when it expires, 30 seconds after the
// next purge was due.
//
// Make it with [NewPurger], and the table with [Migrate]. It is safe for concurrent use.
type Purger struct {
	store
	interval time.Duration
	stores   []purgeable
	name     string // of the lease
	holder   string // names this instance in the lease
	table    string // quoted

	start, release sync.Once
	closing        context.Context
	cancel         context.CancelFunc
	done           sync.WaitGroup
}

// NewPurger returns a Purger for stores of this package: [Tokens], [Attempts] and [OneTimeTokens].
// It does no I/O; call Start. It returns an error if a field of cfg is invalid.
func NewPurger(db *sql.DB, dialect Dialect, cfg PurgerConfig, stores ...purgeable) (*Purger, error) {
	s, err := newStore(db, dialect, "PurgerConfig", cfg.Tables, cfg.Timeout, cfg.Now, cfg.OnEvent)
	if err != nil {
		return nil, err
	}
	if cfg.Interval < 0 {
		return nil, fmt.Errorf("sqlstore: PurgerConfig.Interval is %v: it must not be negative; 0 means %v", cfg.Interval, defaultPurgeInterval)
	}
	p := &Purger{store: s, interval: cfg.Interval, stores: stores, name: purgeLease + s.tables.AccessTokens, holder: uuid.NewString(), table: dialect.quote(s.tables.Leases)}
	if p.interval == 0 {
		p.interval = defaultPurgeInterval
	}
	p.closing, p.cancel = context.WithCancel(context.Background())
	return p, nil
}

// Start starts the periodic purge, unless it runs already or Close was called. The first purge is
// after one interval.
func (p *Purger) Start() {
	p.start.Do(func() {
		p.done.Go(func() {
			tick := time.NewTicker(p.interval)
			defer tick.Stop()
			for {
				select {
				case <-p.closing.Done():
					return
				case <-tick.C:
					p.purgeOnce(p.closing)
				}
			}
		})
	})
}

// Close ends the periodic purge, waits until it has ended, and releases the lease. It is
// idempotent. Call it before the database is closed. If the lease cannot be released, it expires.
func (p *Purger) Close() {
	p.cancel()
	started := true
	p.start.Do(func() { started = false })
	p.done.Wait()
	p.release.Do(func() {
		if started {
			// Without a connection, the lease expires.
			_, _ = p.write(context.Background(), "UPDATE "+p.table+" SET until_at = 0 WHERE name = ? AND holder = ?", p.name, p.holder)
		}
	})
}

// purgeOnce purges the stores if this instance has the lease.
func (p *Purger) purgeOnce(ctx context.Context) {
	switch held, err := p.lease(ctx); {
	case err != nil:
		p.failed(ctx, wrap("take the lease for the purge", err))
		return
	case !held:
		return
	}
	renewing, end := context.WithCancel(ctx)
	var renewal sync.WaitGroup
	renewal.Go(func() { p.renew(renewing) })
	var total int64
	for _, s := range p.stores {
		n, err := s.Purge(ctx)
		total += n
		if err != nil {
			p.failed(ctx, err)
		}
	}
	end()
	renewal.Wait()
	if total > 0 {
		p.emit(ctx, event.Event{Kind: event.Purged, Count: total})
	}
}

// renew renews the lease at each interval until the context ends. Without the lease, another
// instance may purge too, which does no harm.
func (p *Purger) renew(ctx context.Context) {
	for pause(ctx, p.interval) == nil {
		_, _ = p.lease(ctx)
	}
}

// lease takes or renews the lease, and reports whether this instance has it.
func (p *Purger) lease(ctx context.Context) (held bool, err error) {
	ms := (p.interval + leaseMargin).Milliseconds()
	now := p.dialect.now()
	insert := "INSERT INTO " + p.table + " (" + leaseColumns + ") VALUES (?, ?, " + now + " + ?) "
	free := p.table + ".holder = ? OR " + p.table + ".until_at <= " + now
	if p.dialect != MySQL {
		n, err := p.write(ctx, insert+"ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until_at = excluded.until_at WHERE "+free, p.name, p.holder, ms, p.holder)
		return n > 0, err
	}
	// MySQL assigns from left to right, so until_at changes if the new holder is this instance.
	_, err = p.write(ctx, insert+"ON DUPLICATE KEY UPDATE holder = IF("+free+", ?, holder), until_at = IF(holder = ?, "+now+" + ?, until_at)",
		p.name, p.holder, ms, p.holder, p.holder, p.holder, ms)
	if err != nil {
		return false, err
	}
	ctx, cancel := bounded(ctx, p.timeout)
	defer cancel()
	rows, err := p.query(ctx, p.db, "SELECT 1 FROM "+p.table+" WHERE name = ? AND holder = ?", p.name, p.holder)
	return len(rows) > 0, err
}

// failed reports a failure, unless Close caused it.
func (p *Purger) failed(ctx context.Context, err error) {
	if p.closing.Err() == nil {
		p.emit(ctx, event.Event{Kind: event.StoreFailed, Err: err})
	}
}

func (p *Purger) emit(ctx context.Context, e event.Event) {
	if p.onEvent != nil {
		e.Time = p.now().UTC()
		p.onEvent(ctx, e)
	}
}
