package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/strategy"
)

const (
	// revocationsOverlap is how far before its latest revocation a follower reads again.
	// Concurrent writes can become visible later, and after a failover the times come
	// from another server's clock.
	revocationsOverlap = 10 * time.Second
	// maxClockSkew is the largest difference between the server's clock and this
	// process's clock.
	maxClockSkew = time.Hour
)

// revocationColumns are the columns of a revocation. at is by the server's clock, as the
// clocks of applications differ. One of the last three is not NULL.
const revocationColumns = "id, at, token, session_id, user_id"

// PublishRevocation implements strategy.RevocationLog. It inserts a small row, which Purge
// removes after 10 minutes at the earliest.
func (t *Tokens[ID]) PublishRevocation(ctx context.Context, r strategy.Revocation[ID]) error {
	id, err := uuid.NewV7()
	if err != nil {
		return wrap("make an ID", err)
	}
	var noUser ID
	var column string
	var value any
	switch {
	case r.Digest != "":
		column, value = "token", r.Digest
	case r.SessionID != uuid.Nil:
		column, value = "session_id", r.SessionID.String()
	case r.UserID != noUser:
		column, value = "user_id", userIDValue(r.UserID)
	default:
		return nil
	}
	_, err = t.write(ctx, "INSERT INTO "+t.revocations+" (id, at, "+column+") VALUES (?, "+t.dialect.now()+", ?)", id.String(), value)
	return wrap("publish the revocation", err)
}

// FollowRevocations implements strategy.RevocationLog.
func (t *Tokens[ID]) FollowRevocations() (next func(context.Context) ([]strategy.Revocation[ID], error)) {
	return (&revocationFollower[ID]{tokens: t, seen: make(map[uuid.UUID]time.Time)}).next
}

// revocationFollower polls for new revocations.
type revocationFollower[ID UserID] struct {
	tokens   *Tokens[ID]
	began    bool
	latest   time.Time                 // the time of the latest revocation read
	latestAt time.Time                 // when it was read, by the monotonic clock
	seen     map[uuid.UUID]time.Time   // times of the revocations read, by their IDs
	pending  []strategy.Revocation[ID] // read, but not returned yet
}

// next returns one error for a row that it cannot read; the following call returns the other
// revocations. A cache then notices the unread revocation when its entries expire, after
// MaxStaleness.
func (f *revocationFollower[ID]) next(ctx context.Context) ([]strategy.Revocation[ID], error) {
	t := f.tokens
	ctx, cancel := bounded(ctx, t.timeout)
	defer cancel()
	from, order := f.from(), " ORDER BY at"
	if !f.began { // the latest revocation shows the server's time
		order = " ORDER BY at DESC LIMIT 1"
	}
	rows, err := t.query(ctx, t.db, "SELECT "+t.dialect.columns(revocationColumns)+" FROM "+t.revocations+" WHERE at >= ?"+order, from.UnixMilli())
	if err != nil {
		return nil, wrap("read the revocations", err)
	}
	var unread error
	tooLate := t.now().Add(maxClockSkew)
	for _, values := range rows {
		id, at, r, err := parseRevocation[ID](values)
		if _, seen := f.seen[id]; seen {
			continue
		}
		f.seen[id] = at
		if at.After(f.latest) && at.Before(tooLate) {
			f.latest, f.latestAt = at, time.Now()
		}
		if err == nil {
			f.pending = append(f.pending, r)
		} else if f.began { // at the beginning, nothing is cached
			unread = fmt.Errorf("sqlstore: read the revocation %v: %w", id, err)
		}
	}
	f.began = true
	for id, at := range f.seen {
		if at.Before(from) {
			delete(f.seen, id)
		}
	}
	if unread != nil {
		return nil, unread
	}
	revocations := f.pending
	f.pending = nil
	return revocations, nil
}

// from returns the time from which next reads: the overlap before the latest revocation.
// Late writes arrive within the overlap, so it shrinks as time passes. Without new
// revocations, next therefore stops reading the old ones again.
func (f *revocationFollower[ID]) from() time.Time {
	if f.latest.IsZero() {
		return time.UnixMilli(0)
	}
	from := f.latest.Add(-max(0, revocationsOverlap-time.Since(f.latestAt)))
	// If the server's clock was ahead and has been set back, new revocations have
	// earlier times than the latest one.
	if now := f.tokens.now().Add(-revocationsOverlap); now.Before(from) {
		return now
	}
	return from
}

// parseRevocation reads a row.
func parseRevocation[ID UserID](values []any) (id uuid.UUID, at time.Time, revocation strategy.Revocation[ID], err error) {
	r := &row{columns: strings.Split(revocationColumns, ", "), values: values}
	id, at = r.uuid(), r.time()
	for _, read := range []func(){
		func() { revocation.Digest = r.string() },
		func() { revocation.SessionID = r.uuid() },
		func() { revocation.UserID = userID[ID](r) },
	} {
		if r.values[0] != nil {
			read()
			return id, at, revocation, r.err
		}
		r.next()
	}
	return id, at, revocation, errors.New("it has no token, session_id or user_id")
}
