// Package follow polls a log of revocations for new ones. It decides from which time to read, and
// knows which revocations it has returned, so that none is missed and none is returned twice.
package follow

import "time"

const (
	// Overlap is how far before its latest revocation a follower reads again. Concurrent writes
	// can become visible later, and after a failover the times come from another server's clock.
	Overlap = 10 * time.Second
	// MaxClockSkew is the largest difference between the server's clock and this process's clock.
	MaxClockSkew = time.Hour
)

// Row is a revocation of the log.
type Row[K comparable, R any] struct {
	Key        K         // identifies the row
	At         time.Time // by the server's clock
	Revocation R
	Err        error // why the row cannot be read; nil otherwise
}

// Follower is a place in a log. It is not safe for concurrent use.
type Follower[K comparable, R any] struct {
	now      func() time.Time
	began    bool
	latest   time.Time       // the time of the latest revocation read
	latestAt time.Time       // when it was read, by the monotonic clock
	seen     map[K]time.Time // times of the revocations read
	pending  []R             // read, but not returned yet
}

// New returns a Follower at the end of the log. now is the process's clock.
func New[K comparable, R any](now func() time.Time) *Follower[K, R] {
	return &Follower[K, R]{now: now, seen: make(map[K]time.Time)}
}

// Next calls read, and returns the revocations that are new. read returns the rows from a time on,
// or if last is true, only the latest of them, which shows the server's time. Next returns an error
// of read as it is. It returns one error for a row that cannot be read; the following call returns
// the other revocations. A cache then notices the unread revocation when its entries expire, after
// MaxStaleness.
func (f *Follower[K, R]) Next(read func(from time.Time, last bool) ([]Row[K, R], error)) ([]R, error) {
	from := f.from()
	rows, err := read(from, !f.began)
	if err != nil {
		return nil, err
	}
	var unread error
	tooLate := f.now().Add(MaxClockSkew)
	for _, row := range rows {
		if _, seen := f.seen[row.Key]; seen {
			continue
		}
		f.seen[row.Key] = row.At
		if row.At.After(f.latest) && row.At.Before(tooLate) {
			f.latest, f.latestAt = row.At, time.Now()
		}
		if row.Err == nil {
			f.pending = append(f.pending, row.Revocation)
		} else if f.began { // at the beginning, nothing is cached
			unread = row.Err
		}
	}
	f.began = true
	for key, at := range f.seen {
		if at.Before(from) {
			delete(f.seen, key)
		}
	}
	if unread != nil {
		return nil, unread
	}
	revocations := f.pending
	f.pending = nil
	return revocations, nil
}

// from returns the time from which Next reads: the overlap before the latest revocation. Late
// writes arrive within the overlap, so it shrinks as time passes. Without new revocations, Next
// therefore stops reading the old ones again.
func (f *Follower[K, R]) from() time.Time {
	if f.latest.IsZero() {
		return time.UnixMilli(0)
	}
	from := f.latest.Add(-max(0, Overlap-time.Since(f.latestAt)))
	// If the server's clock was ahead and has been set back, new revocations have earlier times
	// than the latest one.
	if now := f.now().Add(-Overlap); now.Before(from) {
		return now
	}
	return from
}
