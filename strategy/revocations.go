package strategy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Revocation says what must not be taken from a [Cache] any more. One of its
// fields is set.
type Revocation[ID comparable] struct {
	// Digest is that of a token which was revoked or rotated.
	Digest string
	// SessionID is that of a session which was ended.
	SessionID uuid.UUID
	// UserID is that of a user who was changed, or all of whose sessions were ended.
	UserID ID
}

// RevocationLog is an optional capability of a [Store]: it lets processes that have
// a [Cache] learn what others revoke. It must be safe for concurrent use.
type RevocationLog[ID comparable] interface {
	// PublishRevocation makes a revocation known. Once it has returned nil, every
	// follower's next Next returns it, by whatever process, unless that is minutes
	// later. It must be bounded in time where its context is not.
	PublishRevocation(ctx context.Context, r Revocation[ID]) error

	// FollowRevocations returns a follower that begins at the present. It does no I/O.
	FollowRevocations() RevocationFollower[ID]
}

// RevocationFollower reads a [RevocationLog]. It is used by one goroutine.
type RevocationFollower[ID comparable] interface {
	// Next returns what was published since the Next before that succeeded; the
	// first one finds out where to begin. It may return a revocation more than once,
	// and must leave none out. It must be bounded in time and honour cancellation.
	Next(ctx context.Context) ([]Revocation[ID], error)
}

// UserNotifier is an optional capability of a [UserSource] whose users can be
// changed through it. It must be safe for concurrent use.
type UserNotifier[ID comparable] interface {
	// OnUserChange registers a function that is called after every change to a user
	// that can end their sessions, whether or not it succeeded. An error of it is
	// returned by the method that made the change. stop ends that.
	OnUserChange(f func(ctx context.Context, id ID) error) (stop func())
}

// revoked makes a revocation known, to this process and to others, after the store
// was asked to carry it out. err is what it said: nil, what says that there was
// nothing to revoke (then too, because an attempt before this one can have failed
// halfway), or a failure, of which others need not know: the client tries again.
func (d *Database[U, ID]) revoked(ctx context.Context, r Revocation[ID], err error) error {
	if d.cache == nil && d.log == nil {
		return err
	}
	unfound := errors.Is(err, ErrTokenNotFound)
	if unfound {
		known, ok := d.unfound.admit(time.Now(), r)
		switch {
		case known:
			return err
		case !ok:
			return errTooManyUnfound
		}
	}
	if d.cache != nil {
		d.cache.forget(r)
	}
	if d.log != nil && (err == nil || unfound) {
		// It is done, also where nobody waits for it any more.
		if published := d.log.PublishRevocation(context.WithoutCancel(ctx), r); published != nil {
			return fmt.Errorf("publish the revocation: %w", published)
		}
	}
	if unfound {
		d.unfound.done(r)
	}
	return err
}

// maxUnfound is how many revocations of what is not there are made known in a
// second. Anybody can make tokens up and log out with them: each such revocation is
// a document, and some entries of every cache. More of them are failures: that a
// token is nowhere accepted is not known then.
const maxUnfound = 500

var errTooManyUnfound = fmt.Errorf("more than %d revocations a second of what is not there", maxUnfound)

// unfound bounds these, and remembers which were made known within the second: who
// revokes something again and again has no need of more. The zero value is ready.
type unfound[ID comparable] struct {
	mu       sync.Mutex
	since    time.Time
	admitted int
	known    map[Revocation[ID]]bool
}

// admit reports whether a revocation is known already, and else whether it may be
// made known.
func (u *unfound[ID]) admit(now time.Time, r Revocation[ID]) (known, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now.Sub(u.since) >= time.Second {
		u.since, u.admitted, u.known = now, 0, make(map[Revocation[ID]]bool)
	}
	if u.known[r] {
		return true, true
	}
	u.admitted++
	return false, u.admitted <= maxUnfound
}

// done says that a revocation was made known.
func (u *unfound[ID]) done(r Revocation[ID]) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.known[r] = true
}

// ForgetUser makes a [Cache] read a user again, here and in other processes: call
// it after a user was changed in another way than through account.Manager. Without
// a cache it does nothing.
func (d *Database[U, ID]) ForgetUser(ctx context.Context, userID ID) error {
	if err := d.revoked(ctx, Revocation[ID]{UserID: userID}, nil); err != nil {
		return d.failed(ctx, "forget the user", err)
	}
	return nil
}

// listen connects the cache with those who know of revocations.
func (d *Database[U, ID]) listen() {
	if n, ok := d.users.(UserNotifier[ID]); ok && (d.cache != nil || d.log != nil) {
		d.closers = append(d.closers, n.OnUserChange(d.ForgetUser))
	}
	if d.cache == nil || d.log == nil {
		return
	}
	d.cache.follows = true
	ctx, cancel := context.WithCancel(context.Background())
	follower := d.log.FollowRevocations()
	d.background.Go(func() { d.follow(ctx, follower) })
	d.closers = append(d.closers, cancel)
}

// follow learns of the revocations of others, until ctx is done.
func (d *Database[U, ID]) follow(ctx context.Context, follower RevocationFollower[ID]) {
	tick := time.NewTicker(d.cache.cfg.FollowInterval)
	defer tick.Stop()
	var failing, suspended bool
	for {
		// What was published before this is known afterwards.
		asked := d.cfg.Now()
		revocations, err := d.next(ctx, follower)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			for _, r := range revocations {
				d.cache.forget(r)
			}
			d.cache.followed.Store(&asked)
			if suspended {
				d.emit(ctx, Event{Kind: EventCacheResumed})
			}
			failing, suspended = false, false
		default:
			if !failing {
				_ = d.failed(ctx, "follow the revocations", err)
			}
			failing = true
			if !suspended && !d.cache.following(d.cfg.Now()) {
				suspended = true
				d.emit(ctx, Event{Kind: EventCacheSuspended, Err: fmt.Errorf("strategy: follow the revocations: %w", err)})
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// next is Next with a bound that lets a store which hangs be noticed in time.
func (d *Database[U, ID]) next(ctx context.Context, follower RevocationFollower[ID]) ([]Revocation[ID], error) {
	ctx, cancel := context.WithTimeout(ctx, max(d.cache.cfg.FollowInterval, d.cache.cfg.MaxStaleness/2))
	defer cancel()
	return follower.Next(ctx)
}

// Close ends what [NewDatabase] started for a [Cache], and waits for its end. It is
// idempotent. The Database goes on working, without the cache; the store is the
// application's to close.
func (d *Database[U, ID]) Close() {
	d.closing.Do(func() {
		if d.cache != nil {
			d.cache.closed.Store(true)
		}
		for _, c := range d.closers {
			c()
		}
	})
	d.background.Wait()
}
