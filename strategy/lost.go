package strategy

import (
	"context"
	"errors"
	"time"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/deadline"
)

// A store's answer can be lost after the store has done what it was asked to. This file
// finds out, where a client would otherwise be left without a valid token.

// recoveryTimeout bounds what follows a lost answer if the context has no deadline.
const recoveryTimeout = 3 * time.Second

// firstTry returns ctx with half of the time until its deadline, so that the other half is
// left to find out what happened.
func firstTry(ctx context.Context) (context.Context, context.CancelFunc) {
	if end, ok := ctx.Deadline(); ok {
		return context.WithTimeout(ctx, time.Until(end)/2)
	}
	return ctx, func() {}
}

// secondTry returns a context for finding out. It is not cancelled with ctx: if the client
// has gone, the session still gets into a known state.
func secondTry(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := deadline.Uncancelled(ctx)
	if _, ok := ctx.Deadline(); ok {
		return ctx, cancel
	}
	return context.WithTimeout(ctx, recoveryTimeout)
}

// rotate is Store.Rotate. If the answer is lost, it rotates again, which changes nothing
// unless the row still has the old digest, and looks for the new one.
func (d *Database[U, ID]) rotate(ctx context.Context, old presented, to Rotation) (AccessToken[ID], error) {
	once := func(ctx context.Context) (AccessToken[ID], error) {
		if old.legacy != "" {
			return d.legacy.RotateLegacyToken(ctx, old.legacy, to)
		}
		return d.tokens.Rotate(ctx, old.digest, to)
	}
	first, cancel := firstTry(ctx)
	row, lost := once(first)
	cancel()
	if lost == nil || errors.Is(lost, ErrTokenNotFound) {
		return row, lost
	}
	second, cancel := secondTry(ctx)
	defer cancel()
	err := lost
	if !gone(ctx) { // a client that has gone would not get the new token
		if row, err = once(second); err == nil {
			return row, nil
		}
	}
	row, notFound := d.tokens.ByToken(second, to.Digest)
	switch {
	case notFound == nil:
		return row, nil
	case errors.Is(notFound, ErrTokenNotFound) && errors.Is(err, ErrTokenNotFound):
		return row, err // a concurrent request rotated or revoked the token
	}
	return AccessToken[ID]{}, lost
}

// end ends a session for a login, by its ID, because a rotation can give it another token
// meanwhile. A session that has ended already is a success. The delete is repeated once: if
// only its answer was lost, failing the login would leave the client without any session.
func (d *Database[U, ID]) end(ctx context.Context, row AccessToken[ID], why event.Reason) error {
	first, cancel := firstTry(ctx)
	err := d.deleteSession(first, row.UserID, row.ID)
	cancel()
	lost := err != nil && !errors.Is(err, ErrTokenNotFound)
	if lost && !gone(ctx) {
		second, cancel := secondTry(ctx)
		defer cancel()
		err = d.deleteSession(second, row.UserID, row.ID)
	}
	if lost && errors.Is(err, ErrTokenNotFound) {
		err = nil // the first delete ended it
	}
	err = d.sessionDestroyed(ctx, row.UserID, row.ID, why, err)
	if errors.Is(err, ErrSessionNotFound) {
		return nil
	}
	return err
}

// finish calls do, which must be done although the operation fails. If the operation's time
// is over, it calls do behind the answer.
func (d *Database[U, ID]) finish(ctx context.Context, doing string, do func(context.Context) error) {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		bounded, cancel := deadline.Uncancelled(ctx)
		err := do(bounded)
		late := errors.Is(bounded.Err(), context.DeadlineExceeded)
		cancel()
		switch {
		case err == nil || errors.Is(err, ErrTokenNotFound):
			return
		case !late:
			_ = d.failed(ctx, doing, err)
			return
		}
	}
	d.behind(ctx, doing, do)
}

// behind calls do behind the answer, in the time that the store allows. Close waits for it.
func (d *Database[U, ID]) behind(ctx context.Context, doing string, do func(context.Context) error) {
	ctx = context.WithoutCancel(ctx)
	waited := d.finishing.TryRLock() // fails only while Close waits
	go func() {
		if waited {
			defer d.finishing.RUnlock()
		}
		if err := do(ctx); err != nil && !errors.Is(err, ErrTokenNotFound) {
			_ = d.failed(ctx, doing, err)
		}
	}()
}
