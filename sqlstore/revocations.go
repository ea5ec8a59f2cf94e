package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/internal/follow"
	"github.com/latchkey-go/latchkey/strategy"
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
	follower := follow.New[uuid.UUID, strategy.Revocation[ID]](t.now)
	return func(ctx context.Context) ([]strategy.Revocation[ID], error) {
		ctx, cancel := bounded(ctx, t.timeout)
		defer cancel()
		return follower.Next(func(from time.Time, last bool) ([]follow.Row[uuid.UUID, strategy.Revocation[ID]], error) {
			return t.revocationsFrom(ctx, from, last)
		})
	}
}

// revocationsFrom returns the revocations from a time on, or only the latest of them.
func (t *Tokens[ID]) revocationsFrom(ctx context.Context, from time.Time, last bool) (all []follow.Row[uuid.UUID, strategy.Revocation[ID]], err error) {
	order := " ORDER BY at"
	if last {
		order = " ORDER BY at DESC LIMIT 1"
	}
	rows, err := t.query(ctx, t.db, "SELECT "+t.dialect.columns(revocationColumns)+" FROM "+t.revocations+" WHERE at >= ?"+order, from.UnixMilli())
	if err != nil {
		return nil, wrap("read the revocations", err)
	}
	for _, values := range rows {
		id, at, r, err := parseRevocation[ID](values)
		if err != nil {
			err = fmt.Errorf("sqlstore: read the revocation %v: %w", id, err)
		}
		all = append(all, follow.Row[uuid.UUID, strategy.Revocation[ID]]{Key: id, At: at, Revocation: r, Err: err})
	}
	return all, nil
}

// parseRevocation reads a row.
func parseRevocation[ID UserID](values []any) (id uuid.UUID, at time.Time, revocation strategy.Revocation[ID], err error) {
	r := &row{columns: revocationColumns, values: values}
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
