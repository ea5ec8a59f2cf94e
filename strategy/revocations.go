package strategy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/deadline"
)

// Revocation tells a [Cache] what it must read again. Exactly one field is set.
type Revocation[ID comparable] struct {
	// Digest is the digest of a token that was revoked or rotated.
	Digest string
	// SessionID is the ID of a session that was ended.
	SessionID uuid.UUID
	// UserID is the ID of a user who was changed, or all of whose sessions were ended.
	UserID ID
}

// RevocationLog is an optional interface of a [Store]. With it, processes that have a
// [Cache] learn what other processes revoke. It is optional because an application without a
// cache, or with a single process, does not need it. It must be safe for concurrent use.
type RevocationLog[ID comparable] interface {
	// PublishRevocation appends a revocation to the log. Once it has returned nil, the next
	// call of every function that FollowRevocations returned, in every process, must return
	// the revocation. The log may drop it some minutes later. PublishRevocation must be
	// bounded in time even if the context is not.
	PublishRevocation(ctx context.Context, r Revocation[ID]) error

	// FollowRevocations returns a function, next, that reads the log from its end on. It does
	// no I/O itself. Each next has its own position and is called by one goroutine.
	//
	// next returns the revocations that were published since its last successful call. Its
	// first call may only find the end of the log. next may return a revocation more than
	// once and must leave none out. It must be bounded in time and honour cancellation.
	FollowRevocations() (next func(context.Context) ([]Revocation[ID], error))
}

// announce removes what was revoked from the cache and publishes the revocation, after the
// store was asked to carry it out. err is the store's result; "not found" is published too,
// because an earlier attempt may have half succeeded. Another failure is not published: the
// caller has to try again. announce returns err, or why the revocation was not published.
func (d *Database[U, ID]) announce(ctx context.Context, r Revocation[ID], err error) error {
	var nobody ID
	return d.announceBy(ctx, nobody, r, err)
}

// announceBy is announce for a session that a user, by, was to end by its ID.
func (d *Database[U, ID]) announceBy(ctx context.Context, by ID, r Revocation[ID], err error) error {
	defer d.watches.check(r) // after the cache has forgotten it
	if d.cache == nil && d.log == nil {
		return err
	}
	unknown := errors.Is(err, ErrTokenNotFound)
	if unknown {
		published, ok := d.unknown.admit(time.Now(), unknownRevocation[ID]{by, r})
		switch {
		case published:
			return err
		case !ok:
			return errTooManyUnknown
		}
	}
	if d.cache != nil {
		d.cache.forget(r)
	}
	if d.log != nil && (err == nil || unknown) {
		if failure := d.publish(ctx, r); failure != nil {
			return fmt.Errorf("publish the revocation: %w", failure)
		}
	}
	if unknown {
		d.unknown.published(unknownRevocation[ID]{by, r})
	}
	return err
}

// publish publishes a revocation that took place, even if the client has gone. If the
// operation's time is over before that, it returns an error and goes on behind the answer.
func (d *Database[U, ID]) publish(ctx context.Context, r Revocation[ID]) error {
	bounded, cancel := deadline.Uncancelled(ctx)
	defer cancel()
	err := d.log.PublishRevocation(bounded, r)
	if err != nil && errors.Is(bounded.Err(), context.DeadlineExceeded) {
		d.behind(ctx, "publish the revocation", func(ctx context.Context) error { return d.log.PublishRevocation(ctx, r) })
	}
	return err
}

// maxUnknown caps the published revocations of unknown tokens per second. Anybody can make
// up well-formed tokens and log out with them, and each such revocation is a document in the
// log and invalidates a few entries of every cache. Beyond the cap a revocation fails,
// because nothing then proves that no process accepts the token.
//
// maxUnknownOfUser is the cap for each user who ends sessions by their IDs. Users have caps
// of their own, so that one cannot make another's revocation fail.
const (
	maxUnknown       = 500
	maxUnknownOfUser = 50
)

var errTooManyUnknown = errors.New("too many revocations of unknown tokens in a second")

// unknownQuota enforces maxUnknown and maxUnknownOfUser. It remembers what was published
// within the second, so that repeated revocations of one token count once. The zero value is
// ready.
type unknownQuota[ID comparable] struct {
	mu       sync.Mutex
	since    time.Time
	admitted map[ID]int // by user; the zero ID counts revocations by token
	done     map[unknownRevocation[ID]]bool
}

// unknownRevocation is a revocation of what the store did not find, by the user who asked
// for it: what one user tried in vain is not what another did, perhaps with success.
type unknownRevocation[ID comparable] struct {
	by ID // the zero ID if the token was presented
	Revocation[ID]
}

// admit reports whether r was already published within the second, and if not, whether it
// may be.
func (q *unknownQuota[ID]) admit(now time.Time, r unknownRevocation[ID]) (published, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now.Sub(q.since) >= time.Second {
		q.since, q.admitted, q.done = now, make(map[ID]int), make(map[unknownRevocation[ID]]bool)
	}
	if q.done[r] {
		return true, true
	}
	var nobody ID
	most := maxUnknownOfUser
	if r.by == nobody {
		most = maxUnknown
	}
	q.admitted[r.by]++
	return false, q.admitted[r.by] <= most
}

// published records that r was published.
func (q *unknownQuota[ID]) published(r unknownRevocation[ID]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.done[r] = true
}

// UserChanged makes the caches of this process and of others read a user again. An
// account.Manager calls it; applications call it, with [RevokedNone], after they changed a
// user's row by other means.
//
// revoked says which tokens the change has invalidated, as raising the token version does.
// UserChanged then deletes their rows too, except that of the session in ctx, which ginauth's
// Renew may keep. That is a clean-up: a failure is an event, not an error. With
// [Config.SurvivePasswordChange], it deletes the rows only for [RevokedAll]; that is what revokes
// the tokens, so a failure is an error. A failure is an error too if the store is a [LegacyStore],
// since legacy tokens have no token version. Then RevokedAll deletes the row of the session in ctx
// as well, and after RevokedByPassword a legacy token of that session is valid until its rotation.
func (d *Database[U, ID]) UserChanged(ctx context.Context, userID ID, revoked Revoked) error {
	if d.cfg.SurvivePasswordChange && revoked == RevokedAll {
		return d.DestroyAll(ctx, userID)
	}
	if err := d.announce(ctx, Revocation[ID]{UserID: userID}, nil); err != nil {
		return d.failed(ctx, "announce the change of the user", err)
	}
	if revoked == RevokedNone || d.cfg.SurvivePasswordChange {
		return nil
	}
	var current []uuid.UUID
	keep := revoked != RevokedAll || d.legacy == nil // a legacy token that is kept stays valid
	if s, ok := SessionFromContext[U](ctx); ok && s.User.UserID() == userID && keep {
		current = append(current, s.ID)
	}
	n, err := d.tokens.DeleteByUser(ctx, userID, current...)
	if err = d.destroyedAll(ctx, userID, n, err); d.legacy != nil {
		return err
	}
	return nil
}

// follow applies the revocations of other processes to the cache until ctx is done.
func (d *Database[U, ID]) follow(ctx context.Context, next func(context.Context) ([]Revocation[ID], error)) {
	tick := time.NewTicker(d.cache.cfg.FollowInterval)
	defer tick.Stop()
	var failing, suspended bool
	for {
		began := d.cfg.Now() // what is published later may be missing from the answer
		// A store that hangs must be noticed before MaxStaleness has passed.
		bounded, cancel := context.WithTimeout(ctx, max(d.cache.cfg.FollowInterval, d.cache.cfg.MaxStaleness/2))
		revocations, err := next(bounded)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			for _, r := range revocations {
				d.cache.forget(r)
				d.watches.check(r)
			}
			d.cache.logReadAt.Store(&began)
			if suspended {
				d.emit(ctx, event.Event{Kind: event.CacheResumed})
			}
			failing, suspended = false, false
		default:
			if !failing {
				_ = d.failed(ctx, "follow the revocations", err)
			}
			failing = true
			if !suspended && !d.cache.logIsCurrent(d.cfg.Now()) {
				suspended = true
				d.emit(ctx, event.Event{Kind: event.CacheSuspended, Err: fmt.Errorf("strategy: follow the revocations: %w", err)})
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Ready returns nil while this process uses its [Cache], or has none. It returns an error
// before the revocations of other processes have first been read, which takes some
// milliseconds after [NewDatabase], when they have not been read for MaxStaleness, and after
// Close. Reads of tokens work all the same, without the cache. Ready does no I/O.
func (d *Database[U, ID]) Ready() error {
	switch {
	case d.cache == nil:
		return nil
	case d.cache.closed.Load():
		return errors.New("strategy: the Database is closed")
	case d.cache.needsLog && d.cache.logReadAt.Load() == nil:
		return errors.New("strategy: the revocations of other processes have not been read yet")
	case !d.cache.logIsCurrent(d.cfg.Now()):
		return fmt.Errorf("strategy: the revocations of other processes have not been read for %v, Cache.MaxStaleness", d.cache.cfg.MaxStaleness)
	}
	return nil
}

// Close stops what [NewDatabase] started for a [Cache], ends every [Database.Watch], and waits
// until both have stopped and until failed operations have taken back what they began. It is
// idempotent. The Database can still be used afterwards, without its cache and without watches:
// it still publishes revocations. Close does not close the store.
func (d *Database[U, ID]) Close() {
	if d.cache != nil {
		d.cache.closed.Store(true)
	}
	d.watches.close()
	d.stop(fmt.Errorf("strategy: %w", ErrClosed))
	d.background.Wait()
	d.finishing.Lock()   // waits for the readers
	d.finishing.Unlock() //lint:ignore SA2001 the wait is all that is wanted
}
