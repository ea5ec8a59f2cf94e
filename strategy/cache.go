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
	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/maypok86/otter/v2"
)

// Cache keeps valid sessions in the memory of this process, so that most requests need no
// database. The zero value disables it.
//
// Lifetimes and idle timeouts hold to the millisecond, as without a cache. When this process
// revokes or rotates a token, or calls [Database.UserChanged], the next request reads the
// database. When another process does so, requests read it within FollowInterval if the Store
// is a [RevocationLog]. Any other change (a user's row edited by hand, say) takes effect
// within MaxStaleness.
//
// Invalid tokens are not cached; concurrent look-ups of one token share a single read.
// Requests share the cached session, and everything that the fields of its user point to:
// handlers must not change them. An entry takes about 800 bytes for a user type that is an
// account.User[uuid.UUID] and a name, and more for a larger user.
type Cache struct {
	// MaxStaleness enables the cache. It is the longest a cached session is used before it
	// is read again, from 1 millisecond to 1 minute; entries expire up to 25 % early so that
	// they do not expire together. If the process cannot read revocations for MaxStaleness,
	// it stops using its cache until it can, and reports [event.CacheSuspended].
	MaxStaleness time.Duration

	// MaxEntries is the maximum number of cached sessions; the least used are evicted.
	// Default 100,000.
	MaxEntries int

	// FollowInterval is how often this process reads the revocations of other processes, at
	// most half of MaxStaleness. Default 1 second, or a quarter of MaxStaleness if that is
	// less.
	FollowInterval time.Duration
}

// The limits of Cache.MaxStaleness.
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

// cache holds the sessions of valid tokens by the tokens' digests.
type cache[U User[ID], ID comparable] struct {
	cfg     Cache
	entries *otter.Cache[token.Key, *entry[U, ID]]
	stripes stripes
	flights flights[U, ID]
	// needsLog is set if the cache may only be used while the revocation log is read.
	needsLog bool
	// logReadAt is when the last successful read of the log began; nil before the first.
	logReadAt atomic.Pointer[time.Time]
	closed    atomic.Bool
}

// entry is a session that was valid when it was read.
type entry[U User[ID], ID comparable] struct {
	readAt    time.Time // when the read began
	seq       uint64    // the number of the last revocation before the read began
	stripes   [3]uint32 // the stripes of the digest, the session ID and the user ID
	expiresAt int64     // the last valid moment, in Unix milliseconds
	// session is shared by requests, and therefore replaced when it changes. It first
	// points to read, so that an entry is one allocation.
	session atomic.Pointer[Session[U]]
	read    Session[U]
}

// set sets the session of a new entry.
func (e *entry[U, ID]) set(s Session[U]) {
	e.expiresAt = math.MaxInt64
	if !s.ExpiresAt.IsZero() {
		e.expiresAt = s.ExpiresAt.UnixMilli()
	}
	e.read = s
	e.session.Store(&e.read)
}

// touched records that the store was told of a use of the session.
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

// distance returns the time between a and b: the larger of the monotonic and the wall-clock
// distance. The monotonic clock stops while a machine is suspended; the wall clock can be
// set.
func distance(a, b time.Time) time.Duration {
	return max(a.Sub(b).Abs(), time.Duration(a.UnixNano()-b.UnixNano()).Abs())
}

func newCache[U User[ID], ID comparable](cfg Cache) (*cache[U, ID], error) {
	entries, err := otter.New(&otter.Options[token.Key, *entry[U, ID]]{MaximumSize: cfg.MaxEntries})
	if err != nil {
		return nil, fmt.Errorf("strategy: make the cache: %w", err)
	}
	c := &cache[U, ID]{cfg: cfg, entries: entries}
	c.stripes.seed = maphash.MakeSeed()
	return c, nil
}

// get returns the entry of a token, or nil if there is none, if it is too old, or if it may
// have been revoked since it was read.
func (c *cache[U, ID]) get(key token.Key, now time.Time) *entry[U, ID] {
	if !c.usable(now) {
		return nil
	}
	e, ok := c.entries.GetIfPresent(key)
	if !ok || distance(e.readAt, now) > c.maxAge(e) || c.stripes.changed(e.seq, &e.stripes) {
		return nil
	}
	return e
}

// usable reports whether the cache may be read and filled. While revocations are unknown, a
// new entry could be one that the log will not mention again.
func (c *cache[U, ID]) usable(now time.Time) bool { return !c.closed.Load() && c.logIsCurrent(now) }

// logIsCurrent reports whether the revocations of other processes are known, if they have to
// be.
func (c *cache[U, ID]) logIsCurrent(now time.Time) bool {
	if !c.needsLog {
		return true
	}
	at := c.logReadAt.Load()
	return at != nil && distance(*at, now) <= c.cfg.MaxStaleness
}

// maxAge returns how long an entry is used: MaxStaleness, or up to a quarter less, depending
// on its digest. Entries that were read together after a start then expire one by one.
func (c *cache[U, ID]) maxAge(e *entry[U, ID]) time.Duration {
	return c.cfg.MaxStaleness - c.cfg.MaxStaleness/4/time.Duration(len(c.stripes.last))*time.Duration(e.stripes[0])
}

func (c *cache[U, ID]) put(key token.Key, e *entry[U, ID]) { c.entries.Set(key, e) }

// forget invalidates the entries of a token, a session or a user, and the reads of them that
// are in flight.
func (c *cache[U, ID]) forget(r Revocation[ID]) {
	var noUser ID
	if r.Digest != "" {
		c.stripes.mark(c.stripes.ofDigest(r.Digest))
	}
	if r.SessionID != uuid.Nil {
		c.stripes.mark(c.stripes.ofSession(r.SessionID))
	}
	if r.UserID != noUser {
		c.stripes.mark(stripeOfUser(&c.stripes, r.UserID))
	}
}

// stripes record the last revocation of every token, session and user. Each of these hashes
// to a stripe, which holds the sequence number of its last revocation. An entry is invalid
// if the number of one of its three stripes is greater than the number at which its read
// began. Several tokens, sessions and users can share a stripe; that costs a read at most.
type stripes struct {
	seed maphash.Seed
	seq  atomic.Uint64
	last [1 << 16]atomic.Uint64
}

// index maps the hash of a value of some kind to a stripe.
func (s *stripes) index(kind byte, hash uint64) uint32 {
	return uint32((hash ^ uint64(kind)*0x9e3779b97f4a7c15) % uint64(len(s.last)))
}

func (s *stripes) ofDigest(d string) uint32      { return s.index(1, maphash.String(s.seed, d)) }
func (s *stripes) ofSession(id uuid.UUID) uint32 { return s.index(2, maphash.Bytes(s.seed, id[:])) }

func stripeOfUser[ID comparable](s *stripes, id ID) uint32 {
	return s.index(3, maphash.Comparable(s.seed, id))
}

// mark records a revocation.
func (s *stripes) mark(stripe uint32) {
	n := s.seq.Add(1)
	for {
		old := s.last[stripe].Load()
		if old >= n || s.last[stripe].CompareAndSwap(old, n) {
			return
		}
	}
}

// changed reports whether one of the stripes was marked after seq.
func (s *stripes) changed(seq uint64, of *[3]uint32) bool {
	if s.seq.Load() == seq { // no stripe was
		return false
	}
	return s.last[of[0]].Load() > seq || s.last[of[1]].Load() > seq || s.last[of[2]].Load() > seq
}

// flights are the reads in flight. Concurrent requests with one token share a read.
type flights[U User[ID], ID comparable] struct {
	mu      sync.Mutex
	running map[flightKey]*flight[U, ID]
}

type flightKey struct {
	token token.Key
	// seq is the number of the last revocation before the read began. A request must not
	// join a read that began before a revocation which the request has to see.
	seq uint64
}

// flight is a read in flight. Its other fields may be read once done is closed.
type flight[U User[ID], ID comparable] struct {
	done  chan struct{}
	entry *entry[U, ID]
	row   AccessToken[ID] // the row, if it was found, also beside an error
	err   error
	// abandoned is set if the read failed because the request that made it was cancelled,
	// or because it panicked. Another request then reads again.
	abandoned bool
}

// do calls read, or waits for the result of the same read by another request. own reports
// which of the two happened.
func (f *flights[U, ID]) do(ctx context.Context, key flightKey, read func(*flight[U, ID]) error) (result *flight[U, ID], own bool, err error) {
	for {
		f.mu.Lock()
		other := f.running[key]
		if other == nil {
			break
		}
		f.mu.Unlock()
		select {
		case <-other.done:
			if !other.abandoned {
				return other, false, other.err
			}
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
	mine := &flight[U, ID]{done: make(chan struct{}), abandoned: true}
	if f.running == nil {
		f.running = make(map[flightKey]*flight[U, ID])
	}
	f.running[key] = mine
	f.mu.Unlock()
	defer func() { // deferred because a store can panic
		f.mu.Lock()
		delete(f.running, key)
		f.mu.Unlock()
		close(mine.done)
	}()
	mine.err = read(mine)
	mine.abandoned = mine.err != nil && ctx.Err() != nil
	return mine, true, mine.err
}
