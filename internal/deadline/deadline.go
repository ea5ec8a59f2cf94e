// Package deadline has contexts for work that must be finished in the time of a request,
// whether or not its client is still there.
package deadline

import "context"

// Uncancelled returns a context that is not cancelled with ctx, but has its deadline and its
// values.
func Uncancelled(ctx context.Context) (context.Context, context.CancelFunc) {
	free := context.WithoutCancel(ctx)
	if deadline, ok := ctx.Deadline(); ok {
		return context.WithDeadline(free, deadline)
	}
	return free, func() {}
}
