package strategy

import (
	"context"
	"fmt"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/maypok86/otter/v2"
)

// Cache keeps the sessions that were read in the memory of this process, so that
// most requests need no database. The zero value is no cache.
//
// Every request is checked as without a cache, lifetimes to the millisecond. What
// is revoked, rotated or changed through this process is seen at once: by the
// Database itself, and by a UserSource that is a [UserNotifier]. What other
// processes revoke is seen within FollowInterval where the Store is a
// [RevocationLog]; what is changed in any other way (a user's row, by hand) is
// seen within MaxStaleness, or after [Database.ForgetUser].
//
// Only good tokens are kept; of several requests at once with one that is not, one
// reads it. What the fields of a user point to is shared by all requests of the
// session: handlers must not change it. An entry takes about 800 bytes where the
// user is an account.User[uuid.UUID] and a name; a larger user takes more.
type Cache struct {
	// MaxStaleness turns the cache on. It is how old what is accepted may be: after
	// that, or up to a quarter sooner, a session is read again. It is 1 millisecond to
	// 1 minute. Where revocations
	// cannot be followed for that long, nothing from the cache is accepted, until they
	// can.
	MaxStaleness time.Duration

	// MaxEntries is how many sessions are kept, those in use most. Default 100,000.
	MaxEntries int

	// FollowInterval is how often this process asks for the revocations of others.
	// Default 1 second, or a quarter of MaxStaleness where that is less; at most half
	// of it.
	FollowInterval time.Duration
}

// What Cache.MaxStaleness may be.
const minStaleness, maxStaleness = time.Millisecond, time.Minute

func (c *Cache) prepare() error {
	switch {
	case *c == Cache{}:
		return nil
	case c.MaxStaleness < minStaleness || c.MaxStaleness > maxStaleness:
		return fmt.Errorf("strategy: Config.Cache.MaxStaleness is %v, want %v to %v", c.MaxStaleness, minStaleness, maxStaleness)
	case c.MaxEntries < 0:
		return fmt.Errorf("strategy: Config.Cache.MaxEntries is negative: %d", c.MaxEntries)
	case c.FollowInterval < 0 || c.FollowInterval > c.MaxStaleness/2:
		return fmt.Errorf("strategy: Config.Cache.FollowInterval is %v, want 0 (for the default) to half of MaxStaleness, %v", c.FollowInterval, c.MaxStaleness/2)
	}
	if c.MaxEntries == 0 {
		c.MaxEntries = 100_000
	}
	if c.FollowInterval == 0 {
		c.FollowInterval = min(time.Second, c.MaxStaleness/4)
	}
	return nil
}

// cache holds what was read of good tokens, by the tokens' digests.
type cache[U User[ID], ID comparable] struct {
	cfg     Cache
	entries *otter.Cache[tokenKey, *entry[U, ID]]
	marks   marks
	flights flights[U, ID]
	// follows is set where what is cached is good only as long as the revocations
	// of others are known; followed is until when they are, nil before they first
	// were.
	follows  bool
	followed atomic.Pointer[time.Time]
	closed   atomic.Bool
}

// entry is a token that was good when it was read.
type entry[U User[ID], ID comparable] struct {
	// readAt is when the reading began, and seq what had been revoked by then.
	readAt  time.Time
	seq     uint64
	slots   [3]uint32
	hasUser bool  // else the token alone was read
	until   int64 // UnixMilli of the last moment at which it is good by its lifetimes
	// session is given to requests as it is, and so replaced when it changes. It
	// begins as read: one object, for whose second half the processor does not wait.
	session atomic.Pointer[Session[U]]
	read    Session[U]
}

// keep makes the session that of the entry.
func (e *entry[U, ID]) keep(s Session[U]) {
	e.until = math.MaxInt64
	if !s.ExpiresAt.IsZero() {
		e.until = s.ExpiresAt.UnixMilli()
	}
	e.read = s
	e.session.Store(&e.read)
}

// touched notes that the session was written down as used.
func (e *entry[U, ID]) touched(now time.Time) {
	for {
		old := e.session.Load()
		s := *old
		s.LastUsedAt = latest(s.LastUsedAt, now)
		if e.session.CompareAndSwap(old, &s) {
			return
		}
	}
}

// apart returns how far two times are from each other: by the monotonic clock, which
// stands still while a machine is suspended, or by the wall clock, which may be set;
// by the one that says more.
func apart(a, b time.Time) time.Duration {
	return max(a.Sub(b).Abs(), time.Duration(a.UnixNano()-b.UnixNano()).Abs())
}

func newCache[U User[ID], ID comparable](cfg Cache) (*cache[U, ID], error) {
	entries, err := otter.New(&otter.Options[tokenKey, *entry[U, ID]]{MaximumSize: cfg.MaxEntries})
	if err != nil {
		return nil, fmt.Errorf("strategy: make the cache: %w", err)
	}
	c := &cache[U, ID]{cfg: cfg, entries: entries}
	c.marks.seed = maphash.MakeSeed()
	return c, nil
}

// get returns what is known of a token, if that is recent and nothing of it has
// been revoked since.
func (c *cache[U, ID]) get(key tokenKey, now time.Time, wantUser bool) *entry[U, ID] {
	if !c.usable(now) {
		return nil
	}
	e, ok := c.entries.GetIfPresent(key)
	if !ok || apart(e.readAt, now) > c.patience(e) || c.marks.after(e.seq, &e.slots) || wantUser && !e.hasUser {
		return nil
	}
	return e
}

// usable reports whether entries may be used at all, and new ones kept: what is
// read while revocations are not followed may be what they do not mention.
func (c *cache[U, ID]) usable(now time.Time) bool { return !c.closed.Load() && c.following(now) }

// following reports whether the revocations of others are known, where they must be.
func (c *cache[U, ID]) following(now time.Time) bool {
	if !c.follows {
		return true
	}
	at := c.followed.Load()
	return at != nil && apart(*at, now) <= c.cfg.MaxStaleness
}

// patience is how old an entry may be: MaxStaleness, or up to a quarter less, so that
// what was read at once after a start is not read again at once.
func (c *cache[U, ID]) patience(e *entry[U, ID]) time.Duration {
	return c.cfg.MaxStaleness - c.cfg.MaxStaleness/4/time.Duration(len(c.marks.last))*time.Duration(e.slots[0])
}

// put keeps what was read of a good token.
func (c *cache[U, ID]) put(key tokenKey, e *entry[U, ID]) { c.entries.Set(key, e) }

// forget makes what is known of a token, a session or a user unusable, also what
// is being read at this time.
func (c *cache[U, ID]) forget(r Revocation[ID]) {
	var noUser ID
	if r.Digest != "" {
		c.marks.set(c.marks.digest(r.Digest))
	}
	if r.SessionID != uuid.Nil {
		c.marks.set(c.marks.session(r.SessionID))
	}
	if r.UserID != noUser {
		c.marks.set(user(&c.marks, r.UserID))
	}
}

// marks remember that something was revoked, and when: one of the slots that its
// digest, its session and its user fall into then has a number which is greater
// than that of any reading which began before. Others share the slots: what is
// read once more than it had to be does no harm.
type marks struct {
	seed maphash.Seed
	seq  atomic.Uint64
	last [1 << 16]atomic.Uint64
}

func (m *marks) slot(kind byte, sum uint64) uint32 {
	return uint32((sum ^ uint64(kind)*0x9e3779b97f4a7c15) % uint64(len(m.last)))
}

func (m *marks) digest(d string) uint32      { return m.slot(1, maphash.String(m.seed, d)) }
func (m *marks) session(id uuid.UUID) uint32 { return m.slot(2, maphash.Bytes(m.seed, id[:])) }

func user[ID comparable](m *marks, id ID) uint32 {
	return m.slot(3, maphash.Comparable(m.seed, id))
}

func (m *marks) set(slot uint32) {
	n := m.seq.Add(1)
	for {
		old := m.last[slot].Load()
		if old >= n || m.last[slot].CompareAndSwap(old, n) {
			return
		}
	}
}

// after reports whether something was revoked after seq.
func (m *marks) after(seq uint64, slots *[3]uint32) bool {
	if m.seq.Load() == seq { // nothing at all was
		return false
	}
	return m.last[slots[0]].Load() > seq || m.last[slots[1]].Load() > seq || m.last[slots[2]].Load() > seq
}

// flights are the readings under way, so that one of many at once does it for all.
type flights[U User[ID], ID comparable] struct {
	mu sync.Mutex
	of map[flightKey]*flight[U, ID]
}

type flightKey struct {
	token    tokenKey
	withUser bool
	// seq is what had been revoked: a reading that began before the last revocation
	// knows too little for who comes after it.
	seq uint64
}

type flight[U User[ID], ID comparable] struct {
	done  chan struct{}
	entry *entry[U, ID]
	row   AccessToken[ID] // that was found, beside an error
	err   error
	// gone is set where the reading ended because its own request did.
	gone bool
}

// do returns what read finds, or what another call that is under way does. own
// reports which.
func (f *flights[U, ID]) do(ctx context.Context, key flightKey, read func(*flight[U, ID]) error) (found *flight[U, ID], own bool, err error) {
	for {
		f.mu.Lock()
		running := f.of[key]
		if running == nil {
			break
		}
		f.mu.Unlock()
		select {
		case <-running.done:
			if !running.gone {
				return running, false, running.err
			}
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
	mine := &flight[U, ID]{done: make(chan struct{}), gone: true}
	if f.of == nil {
		f.of = make(map[flightKey]*flight[U, ID])
	}
	f.of[key] = mine
	f.mu.Unlock()
	defer func() { // also where a store panics
		f.mu.Lock()
		delete(f.of, key)
		f.mu.Unlock()
		close(mine.done)
	}()
	mine.err = read(mine)
	mine.gone = mine.err != nil && ctx.Err() != nil
	return mine, true, mine.err
}
