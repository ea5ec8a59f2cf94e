package storetest_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/storetest"
	"github.com/latchkey-go/latchkey/strategy"
)

type revocation = strategy.Revocation[uuid.UUID]

// revocations is a log without a fault, until a test replaces a method.
type revocations struct {
	good    *memstore.Tokens[uuid.UUID]
	publish func(context.Context, revocation) error
	follow  func() next
}

func newRevocations(testing.TB) *revocations {
	good := memstore.NewTokens[uuid.UUID]()
	return &revocations{good, good.PublishRevocation, good.FollowRevocations}
}

func (l *revocations) PublishRevocation(ctx context.Context, r revocation) error {
	return l.publish(ctx, r)
}
func (l *revocations) FollowRevocations() next { return l.follow() }

// next is what FollowRevocations returns.
type next = func(context.Context) ([]revocation, error)

// following replaces each follower by f of it.
func following(f func(good next) next) func(*revocations) {
	return func(l *revocations) {
		l.follow = func() next { return f(l.good.FollowRevocations()) }
	}
}

// publishing makes PublishRevocation publish f of the revocation, or nothing if that is zero.
func publishing(f func(revocation) revocation) func(*revocations) {
	return func(l *revocations) {
		l.publish = func(ctx context.Context, r revocation) error {
			if r = f(r); r == (revocation{}) {
				return ctx.Err()
			}
			return l.good.PublishRevocation(ctx, r)
		}
	}
}

func TestRunRevocationsCatchesBrokenLogs(t *testing.T) {
	const (
		kinds     = "a revocation of each kind is returned as it was published"
		returns   = "a follower returns everything published since its last call"
		begins    = "a follower begins no later than its first call"
		many      = "one call returns many revocations"
		again     = "a revocation that is published again is returned again"
		alone     = "followers are independent"
		race      = "no revocation of concurrent publishers is lost"
		failed    = "a call that fails loses nothing"
		cancelled = "a cancelled context stops publishers and followers"
	)
	// without makes followers leave out the revocations that out reports.
	without := func(out func(i int, r revocation) bool) func(*revocations) {
		return following(func(good next) next {
			i := 0
			return func(ctx context.Context) ([]revocation, error) {
				got, err := good(ctx)
				return slices.DeleteFunc(got, func(r revocation) bool { i++; return out(i, r) }), err
			}
		})
	}
	mustCatch(t, newRevocations, func(open func(testing.TB) *revocations) storetest.Suite {
		return storetest.Revocations(uuid.New, func(t testing.TB) strategy.RevocationLog[uuid.UUID] { return open(t) })
	}, []broken[*revocations]{
		{"publishes no tokens", kinds, publishing(func(r revocation) revocation { r.Digest = ""; return r })},
		{"publishes no sessions", kinds, publishing(func(r revocation) revocation { r.SessionID = uuid.Nil; return r })},
		{"publishes no users", kinds, publishing(func(r revocation) revocation { r.UserID = uuid.Nil; return r })},
		{"confuses sessions and users", kinds, publishing(func(r revocation) revocation {
			r.SessionID, r.UserID = r.UserID, r.SessionID
			return r
		})},
		{"returns no tokens", kinds, without(func(_ int, r revocation) bool { return r.Digest != "" })},
		{"shortens digests", kinds, publishing(func(r revocation) revocation { r.Digest = r.Digest[:min(20, len(r.Digest))]; return r })},
		{"leaves out one in ten", returns, without(func(i int, _ revocation) bool { return i%10 == 7 })},
		{"returns revocations one call late", returns, following(func(good next) next {
			var before []revocation
			return func(ctx context.Context) ([]revocation, error) {
				got, err := good(ctx)
				got, before = before, got
				return got, err
			}
		})},
		{"returns one revocation at a time", returns, following(func(good next) next {
			var rest []revocation
			return func(ctx context.Context) ([]revocation, error) {
				got, err := good(ctx)
				rest = append(rest, got...)
				if err != nil || len(rest) == 0 {
					return nil, err
				}
				one := rest[:1]
				rest = rest[1:]
				return one, nil
			}
		})},
		{"skips the call after an empty one", returns, following(func(good next) next {
			var rest []revocation
			idle := false
			return func(ctx context.Context) ([]revocation, error) {
				got, err := good(ctx)
				rest = append(rest, got...)
				if idle {
					idle = false
					return nil, err
				}
				idle = len(rest) == 0
				got, rest = rest, nil
				return got, err
			}
		})},
		{"begins at the second call", begins, func(l *revocations) {
			l.follow = func() next {
				var f next
				calls := 0
				return func(ctx context.Context) ([]revocation, error) {
					if calls++; calls <= 2 {
						f = l.good.FollowRevocations()
					}
					return f(ctx)
				}
			}
		}},
		{"follows only a log that is empty at first", begins, func(l *revocations) {
			var published atomic.Bool
			l.publish = func(ctx context.Context, r revocation) error {
				published.Store(true)
				return l.good.PublishRevocation(ctx, r)
			}
			l.follow = func() next {
				if published.Load() {
					return func(ctx context.Context) ([]revocation, error) { return nil, ctx.Err() }
				}
				return l.good.FollowRevocations()
			}
		}},
		{"returns at most 101 revocations", many, following(func(good next) next {
			return func(ctx context.Context) ([]revocation, error) {
				got, err := good(ctx)
				return got[:min(101, len(got))], err
			}
		})},
		{"returns each revocation once", again, following(func(good next) next {
			known := make(map[revocation]bool)
			return func(ctx context.Context) ([]revocation, error) {
				got, err := good(ctx)
				return slices.DeleteFunc(got, func(r revocation) bool {
					defer func() { known[r] = true }()
					return known[r]
				}), err
			}
		})},
		{"publishes each revocation once", again, func(l *revocations) {
			var known sync.Map
			l.publish = func(ctx context.Context, r revocation) error {
				if _, is := known.LoadOrStore(r, true); is {
					return ctx.Err()
				}
				return l.good.PublishRevocation(ctx, r)
			}
		}},
		{"has one position for all followers", alone, func(l *revocations) {
			var mu sync.Mutex
			one := l.good.FollowRevocations()
			l.follow = func() next {
				return func(ctx context.Context) ([]revocation, error) {
					mu.Lock()
					defer mu.Unlock()
					return one(ctx)
				}
			}
		}},
		{"keeps only the last nine", alone, following(func(good next) next {
			return func(ctx context.Context) ([]revocation, error) {
				got, err := good(ctx)
				if len(got) < 100 { // so that the check of many revocations passes
					got = got[max(0, len(got)-9):]
				}
				return got, err
			}
		})},
		// Logs do this if they take their numbers from a counter.
		{"numbers revocations before they are visible", race, numbering},
		{"publishes each revocation with the next one", race, func(l *revocations) {
			var mu sync.Mutex
			var waiting []revocation
			l.publish = func(ctx context.Context, r revocation) error {
				mu.Lock()
				defer mu.Unlock()
				for _, r := range waiting {
					_ = l.good.PublishRevocation(ctx, r)
				}
				waiting = []revocation{r}
				return ctx.Err()
			}
		}},
		{"moves on when it fails", failed, following(func(good next) next {
			return func(ctx context.Context) ([]revocation, error) {
				got, err := good(context.WithoutCancel(ctx))
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				return got, err
			}
		})},
		{"begins at the present after a failure", failed, func(l *revocations) {
			l.follow = func() next {
				f := l.good.FollowRevocations()
				return func(ctx context.Context) ([]revocation, error) {
					got, err := f(ctx)
					if err != nil {
						f = l.good.FollowRevocations()
					}
					return got, err
				}
			}
		}},
		{"publishes despite a cancelled context", cancelled, func(l *revocations) {
			l.publish = func(ctx context.Context, r revocation) error {
				return l.good.PublishRevocation(context.WithoutCancel(ctx), r)
			}
		}},
		{"follows despite a cancelled context", cancelled, following(func(good next) next {
			return func(ctx context.Context) ([]revocation, error) { return good(context.WithoutCancel(ctx)) }
		})},
		{"hides the context's error", cancelled, following(func(good next) next {
			return func(ctx context.Context) ([]revocation, error) {
				got, err := good(ctx)
				if err != nil {
					err = errors.New("connection pool was cleared")
				}
				return got, err
			}
		})},
	})
}

// numbering numbers revocations before they are visible. Its followers read after the greatest
// number that they have seen, so they miss a smaller number that becomes visible later.
func numbering(l *revocations) {
	var mu sync.Mutex
	last := 0
	shown := make(map[int]revocation)
	l.publish = func(ctx context.Context, r revocation) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		mu.Lock()
		last++
		n := last
		mu.Unlock()
		time.Sleep(time.Duration(n%3) * time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		shown[n] = r
		return nil
	}
	l.follow = func() next {
		seen := 0
		return func(ctx context.Context) (got []revocation, err error) {
			mu.Lock()
			defer mu.Unlock()
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			greatest := seen
			for n, r := range shown {
				if n > seen {
					got, greatest = append(got, r), max(greatest, n)
				}
			}
			seen = greatest
			return got, nil
		}
	}
}
