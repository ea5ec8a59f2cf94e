package account

import (
	"context"
	"time"

	"github.com/latchkey-go/latchkey/internal/deadline"
)

// bounded returns the context of an operation: ctx, ended after Config.Timeout unless it has
// a deadline.
func (m *Manager[U, ID]) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, m.cfg.Timeout)
}

// finish calls do, which must be done even if the client has gone. If the operation's time is
// over, it calls do behind the answer, in the time that the store allows.
func finish(ctx context.Context, do func(context.Context)) {
	bounded, cancel := deadline.Uncancelled(ctx)
	defer cancel()
	if end, ok := bounded.Deadline(); ok && time.Until(end) <= 0 {
		go do(context.WithoutCancel(ctx))
		return
	}
	do(bounded)
}
