package strategy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/internal/reported"
)

const (
	// watchReads is how many checks of watched tokens a Database makes at once.
	watchReads = 16
	// watchTimeout bounds a check, with its wait for others.
	watchTimeout = 3 * time.Second
	// watchRetry is the longest wait after a failed check.
	watchRetry = 5 * time.Second
	// watchGap is the shortest time between two checks of a token, however often its session,
	// or another one of its user, is changed.
	watchGap = 100 * time.Millisecond
)

// Watch returns a context that ends with ctx, and as soon as ReadToken would refuse the token:
// for requests that stay open, such as a WebSocket. session is what ReadToken returned for the
// token. The caller must call the CancelFunc when it is done, or end ctx.
//
// [context.Cause] tells why the context has ended. It wraps
//
//   - [ErrSessionExpired] if the lifetime or the idle timeout is over. Both hold to the
//     millisecond. A watch is no use of the session.
//   - [ErrSessionRevoked] if the token was revoked, rotated or superseded, for example by a change
//     of the password.
//   - [ErrUserInactive] if the user was deactivated or deleted.
//   - [ErrSessionUnverified] if the store has failed for [Config.WatchGrace].
//   - [ErrClosed] after [Database.Close].
//
// The first three wrap [ErrInvalidToken] too.
//
// What this process revokes after the call ends the context within 100 milliseconds. What another
// process revokes, a change of a row by hand and, without a [Cache], a revocation between ReadToken
// and the call end it within [Config.WatchInterval]; with a [Cache]
// whose Store is a [RevocationLog], a revocation ends it within Cache.FollowInterval and 100
// milliseconds. To these comes the time of the look-up.
//
// Each watched token is looked up, with its user, once in WatchInterval, however many watches it
// has, and at a revocation at most every 100 milliseconds. At most 16 tokens are looked up at
// once.
func (d *Database[U, ID]) Watch(ctx context.Context, token string, session SessionInfo) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	w, err := d.attach(token, session)
	if err != nil {
		cancel(err)
		return ctx, func() {}
	}
	forget := context.AfterFunc(w.ctx, func() { cancel(context.Cause(w.ctx)) })
	release := sync.OnceFunc(func() {
		forget()
		d.watches.release(w)
	})
	done := context.AfterFunc(ctx, release)
	return ctx, func() {
		done()
		cancel(context.Canceled)
		release()
	}
}

// watches are the watched tokens of a Database.
type watches[ID comparable] struct {
	mu     sync.Mutex
	closed bool
	// by finds the tokens that a revocation concerns.
	by map[Revocation[ID]]map[*watched[ID]]struct{}
	// slots bound the checks in flight.
	slots chan struct{}
	// failing is set if a failure was reported and no check has succeeded since.
	failing atomic.Bool
}

// watched is a token that is watched.
type watched[ID comparable] struct {
	token    presented
	userID   ID
	keys     [3]Revocation[ID] // the revocations that concern it
	watchers int               // guarded by watches.mu
	wake     chan struct{}     // asks for a check
	ctx      context.Context   // its cause says why the watch has ended
	end      context.CancelCauseFunc
}

// attach returns the watched token of a session for another watcher, which must release it.
func (d *Database[U, ID]) attach(token string, session SessionInfo) (*watched[ID], error) {
	p, ok := d.parse(token)
	if !ok {
		return nil, endOfWatch(denyMalformed)
	}
	userID, ok := session.UserID.(ID)
	if !ok || session.ID == uuid.Nil {
		return nil, errors.New("strategy: Watch: the session is not one of this Database: pass the SessionInfo that ReadToken returned")
	}
	all := &d.watches
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.closed {
		return nil, fmt.Errorf("strategy: %w", ErrClosed)
	}
	keys := [3]Revocation[ID]{{Digest: p.digest}, {SessionID: session.ID}, {UserID: userID}}
	for w := range all.by[keys[0]] {
		w.watchers++
		return w, nil
	}
	w := &watched[ID]{token: p, userID: userID, keys: keys, watchers: 1, wake: make(chan struct{}, 1)}
	w.ctx, w.end = context.WithCancelCause(d.running)
	if all.by == nil {
		all.by, all.slots = make(map[Revocation[ID]]map[*watched[ID]]struct{}), make(chan struct{}, watchReads)
	}
	for _, key := range keys {
		if all.by[key] == nil {
			all.by[key] = make(map[*watched[ID]]struct{})
		}
		all.by[key][w] = struct{}{}
	}
	if d.cache != nil && p.legacy == "" {
		// A revocation after ReadToken and before this moment is not announced again.
		if key, _ := d.format.Key(token); d.cached(key, d.cfg.Now()) == nil {
			w.wake <- struct{}{}
		}
	}
	d.background.Go(func() { d.watch(w, session) })
	return w, nil
}

// release ends the watch of a token after its last watcher.
func (all *watches[ID]) release(w *watched[ID]) {
	all.mu.Lock()
	w.watchers--
	last := w.watchers == 0
	if last {
		all.remove(w)
	}
	all.mu.Unlock()
	if last {
		w.end(context.Canceled)
	}
}

// finish ends the watch of a token. A later Watch of the token begins anew.
func (all *watches[ID]) finish(w *watched[ID], cause error) {
	all.mu.Lock()
	all.remove(w)
	all.mu.Unlock()
	w.end(cause)
}

func (all *watches[ID]) remove(w *watched[ID]) {
	for _, key := range w.keys {
		delete(all.by[key], w)
		if len(all.by[key]) == 0 {
			delete(all.by, key)
		}
	}
}

// check makes the watches that a revocation concerns look at their tokens.
func (all *watches[ID]) check(r Revocation[ID]) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for w := range all.by[r] {
		select {
		case w.wake <- struct{}{}:
		default: // it will look anyway
		}
	}
}

func (all *watches[ID]) close() {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.closed = true
}

// watch checks a token until its watch ends.
func (d *Database[U, ID]) watch(w *watched[ID], s SessionInfo) {
	var (
		checked time.Time // when the last check began
		failure error     // of the last check
	)
	verified := time.Now() // when the last check that succeeded began
	due := verified.Add(early(d.cfg.WatchInterval))
	idle := d.idleAfter(&s)
	for {
		wait := time.Until(due)
		switch {
		case failure != nil:
			wait = min(wait, time.Until(verified.Add(d.cfg.WatchGrace)))
		case !idle.IsZero():
			wait = min(wait, d.untilAfter(idle))
		}
		if !s.ExpiresAt.IsZero() {
			wait = min(wait, d.untilAfter(s.ExpiresAt))
		}
		timer := time.NewTimer(wait)
		select {
		case <-w.ctx.Done():
			timer.Stop()
			return
		case <-w.wake:
			timer.Stop()
			if soonest := checked.Add(watchGap); soonest.Before(due) {
				due = soonest
			}
		case <-timer.C:
		}
		switch {
		case d.isAfter(s.ExpiresAt):
			d.watches.finish(w, endOfWatch(denyExpired))
			return
		case failure != nil && time.Since(verified) >= d.cfg.WatchGrace:
			d.watches.finish(w, failure)
			return
		case time.Now().Before(due) && (failure != nil || !d.isAfter(idle)):
			continue
		}
		checked = time.Now()
		row, why, err := d.checkWatched(w, s.ExpiresAt)
		switch {
		case w.ctx.Err() != nil:
			return
		case why != nil:
			d.watches.finish(w, endOfWatch(why))
			return
		case d.isAfter(s.ExpiresAt): // the check had only until then
			d.watches.finish(w, endOfWatch(denyExpired))
			return
		case err != nil:
			failure = d.watchFailed(w.ctx, err)
			due = time.Now().Add(early(min(d.cfg.WatchInterval, watchRetry)))
		default:
			d.watches.failing.Store(false)
			s, failure, verified = d.info(row), nil, checked
			due = checked.Add(early(d.cfg.WatchInterval))
			if idle = d.idleAfter(&s); d.isAfter(idle) {
				idle = time.Time{} // a legacy token, whose uses were not stored
			}
		}
	}
}

// checkWatched reads a watched token, until it expires at the latest. It returns its row, why it
// is refused, or the failure of a store.
func (d *Database[U, ID]) checkWatched(w *watched[ID], expires time.Time) (row AccessToken[ID], why *denial, err error) {
	timeout := watchTimeout
	if !expires.IsZero() {
		timeout = min(timeout, d.untilAfter(expires))
	}
	ctx, cancel := context.WithTimeout(w.ctx, timeout)
	defer cancel()
	select {
	case d.watches.slots <- struct{}{}:
		defer func() { <-d.watches.slots }()
	case <-ctx.Done():
		return row, nil, fmt.Errorf("wait for other checks: %w", ctx.Err())
	}
	row, err = d.byToken(ctx, w.token)
	unknown := errors.Is(err, ErrTokenNotFound)
	switch {
	case err != nil && !unknown:
		return row, nil, fmt.Errorf("look up the token: %w", err)
	case !unknown:
		if why = d.invalid(&row, d.now()); why != nil {
			return row, why, nil
		}
	}
	user, err := d.users.ByID(ctx, w.userID)
	why = d.refusal(&row, user, err)
	switch {
	case unknown && why != denyUserGone && why != denyUserInactive: // the sessions of such a user are deleted too
		return row, denyUnknown, nil
	case why == nil && err != nil:
		return row, nil, fmt.Errorf("look up the user: %w", err)
	}
	return row, why, nil
}

// watchFailed reports the first of consecutive failures. It returns the cause that the watch
// ends with unless a later check succeeds.
func (d *Database[U, ID]) watchFailed(ctx context.Context, err error) error {
	if !d.watches.failing.Swap(true) {
		_ = d.failed(ctx, "check a watched token", err)
	}
	return reported.Mark(fmt.Errorf("strategy: %w: %v", ErrSessionUnverified, err)) // not %w: a failure must not look like a verdict
}

// endOfWatch returns the cause with which the watch of a refused token ends.
func endOfWatch(why *denial) error {
	cause := ErrSessionRevoked
	switch why {
	case denyExpired, denyIdle:
		cause = ErrSessionExpired
	case denyUserGone, denyUserInactive:
		cause = ErrUserInactive
	}
	return fmt.Errorf("strategy: %w: %w", cause, why)
}

// idleAfter returns the last moment at which a session is not idle, by its last known use. It is
// zero without an idle timeout.
func (d *Database[U, ID]) idleAfter(s *SessionInfo) time.Time {
	if d.cfg.IdleTimeout == 0 || s.Scoped() {
		return time.Time{}
	}
	return s.usedAt().Add(d.cfg.IdleTimeout)
}

// isAfter reports whether a last moment has passed. The zero time never passes.
func (d *Database[U, ID]) isAfter(last time.Time) bool {
	return !last.IsZero() && d.now().After(last)
}

// untilAfter returns how long to wait until a last moment has passed: at least a millisecond, in
// case the clock of Config.Now is behind that of the timers.
func (d *Database[U, ID]) untilAfter(last time.Time) time.Duration {
	return max(wholeMS(last).Add(time.Millisecond).Sub(d.cfg.Now()), time.Millisecond)
}

// early returns a duration or up to a quarter less, so that checks that began together do not
// stay together.
func early(d time.Duration) time.Duration { return d - rand.N(d/4+1) }
