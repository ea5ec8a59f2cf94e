package latchkey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// indexesVerified is how long Ping remembers that the indexes were right.
const indexesVerified = time.Minute

// readiness is what Ping remembers.
type readiness struct {
	timeout    time.Duration
	now        func() time.Time
	verifiedAt atomic.Pointer[time.Time] // when the indexes were last found to be right
	closed     atomic.Bool
}

func (r *readiness) set(cfg Config) {
	r.timeout, r.now = cmp.Or(cfg.Timeout, 3*time.Second), cfg.Now
	if r.now == nil {
		r.now = time.Now
	}
}

// Ping returns nil if this instance is ready to serve requests, or else an error that says
// what is not ready: the database does not answer, an index is missing or differs
// (mongostore.ErrIndexMismatch; on SQL sqlstore.ErrSchemaMismatch), the process cannot read the revocations of others for its
// Cache, or Close was called. It is for readiness checks, as often as every second:
//
//	r.GET("/readyz", func(c *gin.Context) {
//		if err := lk.Ping(c.Request.Context()); err != nil {
//			_ = c.AbortWithError(http.StatusServiceUnavailable, err) // gin.Logger writes it
//		}
//	})
//
// A call costs the database one ping. If the indexes were right, Ping looks at them again
// after a minute; otherwise at every call. It changes nothing and emits no event. It takes at
// most Config.Timeout if ctx has no deadline.
func (lk *Latchkey[U, ID]) Ping(ctx context.Context) error {
	if lk.ready.closed.Load() {
		return errors.New("latchkey: not ready: Close was called")
	}
	var err error
	if lk.ping != nil { // a latchkeytest.Kit has no database
		err = lk.pingDatabase(ctx)
	}
	if err := errors.Join(err, lk.Sessions.Ready()); err != nil {
		return fmt.Errorf("latchkey: not ready: %w", err)
	}
	return nil
}

func (lk *Latchkey[U, ID]) pingDatabase(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lk.ready.timeout)
		defer cancel()
	}
	if err := lk.ping(ctx); err != nil {
		return err
	}
	return lk.checkIndexes(ctx)
}

// checkIndexes looks at the indexes, unless they were right within the last minute.
func (lk *Latchkey[U, ID]) checkIndexes(ctx context.Context) error {
	now := lk.ready.now()
	if at := lk.ready.verifiedAt.Load(); at != nil && now.Sub(*at).Abs() < indexesVerified {
		return nil
	}
	err := lk.inTurn(func(s store) error { return s.CheckIndexes(ctx) })
	if err == nil {
		lk.ready.verifiedAt.Store(&now)
	}
	return err
}
