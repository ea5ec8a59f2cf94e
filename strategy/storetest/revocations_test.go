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

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
	"github.com/latchkey-go/latchkey/strategy/memstore"
	"github.com/latchkey-go/latchkey/strategy/storetest"
)

type revocation = strategy.Revocation[uuid.UUID]

// revocations is a good log, but for what a test replaces.
type revocations struct {
	good    *memstore.Tokens[uuid.UUID]
	publish func(context.Context, revocation) error
	follow  func() strategy.RevocationFollower[uuid.UUID]
}

func newRevocations() *revocations {
	good := memstore.NewTokens[uuid.UUID]()
	return &revocations{good, good.PublishRevocation, good.FollowRevocations}
}

func (l *revocations) PublishRevocation(ctx context.Context, r revocation) error {
	return l.publish(ctx, r)
}
func (l *revocations) FollowRevocations() strategy.RevocationFollower[uuid.UUID] { return l.follow() }

// next is a follower's Next.
type next func(context.Context) ([]revocation, error)

func (f next) Next(ctx context.Context) ([]revocation, error) { return f(ctx) }

// following makes a log's followers do something else with what good ones return.
func following(f func(good next) next) func(*revocations) {
	return func(l *revocations) {
		l.follow = func() strategy.RevocationFollower[uuid.UUID] { return f(l.good.FollowRevocations().Next) }
	}
}

// publishing makes a log publish something else.
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
		kinds     = "a revocation of each kind comes as it was published"
		comes     = "what is published comes with the next Next"
		begins    = "a follower begins at the present at the latest"
		many      = "many at once come with one Next"
		again     = "what is published again comes again"
		alone     = "followers are independent"
		race      = "of many publishers at once none is left out"
		failed    = "a Next that fails loses nothing"
		cancelled = "a cancelled context stops both methods"
	)
	results := func(t *testing.T, breakIt func(*revocations)) map[string]error {
		return storetest.RevocationResults(t.Context(), t, uuid.New, func(testing.TB) strategy.RevocationLog[uuid.UUID] {
			l := newRevocations()
			breakIt(l)
			return l
		})
	}
	// without makes Next leave some out.
	without := func(out func(i int, r revocation) bool) func(*revocations) {
		return following(func(good next) next {
			i := 0
			return func(ctx context.Context) ([]revocation, error) {
				got, err := good(ctx)
				return slices.DeleteFunc(got, func(r revocation) bool { i++; return out(i, r) }), err
			}
		})
	}
	mustCatch(t, results, []broken[*revocations]{
		{"publishes no tokens", kinds, publishing(func(r revocation) revocation { r.Digest = ""; return r })},
		{"publishes no sessions", kinds, publishing(func(r revocation) revocation { r.SessionID = uuid.Nil; return r })},
		{"publishes no users", kinds, publishing(func(r revocation) revocation { r.UserID = uuid.Nil; return r })},
		{"takes the session for the user", kinds, publishing(func(r revocation) revocation {
			r.SessionID, r.UserID = r.UserID, r.SessionID
			return r
		})},
		{"follows no tokens", kinds, without(func(_ int, r revocation) bool { return r.Digest != "" })},
		{"cuts digests", kinds, publishing(func(r revocation) revocation { r.Digest = r.Digest[:min(20, len(r.Digest))]; return r })},
		{"leaves one of ten out", comes, without(func(i int, _ revocation) bool { return i%10 == 7 })},
		{"returns what comes one Next late", comes, following(func(good next) next {
			var before []revocation
			return func(ctx context.Context) ([]revocation, error) {
				got, err := good(ctx)
				got, before = before, got
				return got, err
			}
		})},
		{"returns one at a time", comes, following(func(good next) next {
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
		{"sleeps a Next over where there was nothing", comes, following(func(good next) next {
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
		{"begins at its second Next", begins, func(l *revocations) {
			l.follow = func() strategy.RevocationFollower[uuid.UUID] {
				var f strategy.RevocationFollower[uuid.UUID]
				calls := 0
				return next(func(ctx context.Context) ([]revocation, error) {
					if calls++; calls <= 2 {
						f = l.good.FollowRevocations()
					}
					return f.Next(ctx)
				})
			}
		}},
		{"follows only from an empty log", begins, func(l *revocations) {
			var published atomic.Bool
			l.publish = func(ctx context.Context, r revocation) error {
				published.Store(true)
				return l.good.PublishRevocation(ctx, r)
			}
			l.follow = func() strategy.RevocationFollower[uuid.UUID] {
				if published.Load() {
					return next(func(ctx context.Context) ([]revocation, error) { return nil, ctx.Err() })
				}
				return l.good.FollowRevocations()
			}
		}},
		{"returns a batch of 101", many, following(func(good next) next {
			return func(ctx context.Context) ([]revocation, error) {
				got, err := good(ctx)
				return got[:min(101, len(got))], err
			}
		})},
		{"returns what it knows once", again, following(func(good next) next {
			known := make(map[revocation]bool)
			return func(ctx context.Context) ([]revocation, error) {
				got, err := good(ctx)
				return slices.DeleteFunc(got, func(r revocation) bool {
					defer func() { known[r] = true }()
					return known[r]
				}), err
			}
		})},
		{"publishes what it knows once", again, func(l *revocations) {
			var known sync.Map
			l.publish = func(ctx context.Context, r revocation) error {
				if _, is := known.LoadOrStore(r, true); is {
					return ctx.Err()
				}
				return l.good.PublishRevocation(ctx, r)
			}
		}},
		{"has one place for all followers", alone, func(l *revocations) {
			var mu sync.Mutex
			one := l.good.FollowRevocations()
			l.follow = func() strategy.RevocationFollower[uuid.UUID] {
				return next(func(ctx context.Context) ([]revocation, error) {
					mu.Lock()
					defer mu.Unlock()
					return one.Next(ctx)
				})
			}
		}},
		{"keeps the last nine only", alone, following(func(good next) next {
			return func(ctx context.Context) ([]revocation, error) {
				got, err := good(ctx)
				if len(got) < 100 { // what the other checks want
					got = got[max(0, len(got)-9):]
				}
				return got, err
			}
		})},
		// Like one that goes by numbers which are given before they can be seen.
		{"numbers first, then shows", race, numbering},
		{"publishes with the next one", race, func(l *revocations) {
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
		{"goes on although it failed", failed, following(func(good next) next {
			return func(ctx context.Context) ([]revocation, error) {
				got, err := good(context.WithoutCancel(ctx))
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				return got, err
			}
		})},
		{"begins anew after a failure", failed, func(l *revocations) {
			l.follow = func() strategy.RevocationFollower[uuid.UUID] {
				f := l.good.FollowRevocations()
				return next(func(ctx context.Context) ([]revocation, error) {
					got, err := f.Next(ctx)
					if err != nil {
						f = l.good.FollowRevocations()
					}
					return got, err
				})
			}
		}},
		{"publishes in spite of the context", cancelled, func(l *revocations) {
			l.publish = func(ctx context.Context, r revocation) error {
				return l.good.PublishRevocation(context.WithoutCancel(ctx), r)
			}
		}},
		{"follows in spite of the context", cancelled, following(func(good next) next {
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

// numbering gives numbers to revocations before they can be seen; its followers ask
// for what is behind the greatest number that they have seen.
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
	l.follow = func() strategy.RevocationFollower[uuid.UUID] {
		seen := 0
		return next(func(ctx context.Context) (got []revocation, err error) {
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
		})
	}
}

// notifying is a good store, but for the methods that a test replaces.
type notifying struct {
	*users
	onUserChange func(func(context.Context, uuid.UUID) error) func()
}

func (s *notifying) OnUserChange(f func(context.Context, uuid.UUID) error) func() {
	return s.onUserChange(f)
}

func TestRunUserNotifierCatchesBrokenStores(t *testing.T) {
	const (
		told    = "each kind of change is told after it was made, to all who listen"
		failing = "an error of who is told comes back, and the others are told too"
		stopped = "who has stopped is not told any more, and the others are"
		atOnce  = "changes at once are all told"
	)
	results := func(t *testing.T, breakIt func(*notifying)) map[string]error {
		return storetest.NotifierResults(t.Context(), t, newMember, func(testing.TB) storetest.NotifyingStore[member, uuid.UUID] {
			s := &notifying{users: newUsers()}
			s.onUserChange = s.Users.OnUserChange
			breakIt(s)
			return s
		})
	}
	// listening makes a store register another function than it was given.
	listening := func(g func(s *notifying, f func(context.Context, uuid.UUID) error) func(context.Context, uuid.UUID) error) func(*notifying) {
		return func(s *notifying) {
			s.onUserChange = func(f func(context.Context, uuid.UUID) error) func() { return s.Users.OnUserChange(g(s, f)) }
		}
	}
	type listener = func(context.Context, uuid.UUID) error
	// withheld makes a store able to change something without a word.
	withheld := func(s *notifying) (silent *atomic.Bool) {
		silent = new(atomic.Bool)
		listening(func(_ *notifying, f listener) listener {
			return func(ctx context.Context, id uuid.UUID) error {
				if silent.Load() {
					return nil
				}
				return f(ctx, id)
			}
		})(s)
		return silent
	}
	mustCatch(t, results, []broken[*notifying]{
		{"tells nobody", told, listening(func(*notifying, listener) listener {
			return func(context.Context, uuid.UUID) error { return nil }
		})},
		{"does not tell of passwords", told, func(s *notifying) {
			silent := withheld(s)
			s.replacePassword = func(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, notBefore time.Time) error {
				silent.Store(true)
				defer silent.Store(false)
				return s.Users.ReplacePassword(ctx, id, old, new, notBefore)
			}
		}},
		{"does not tell of who becomes inactive", told, func(s *notifying) {
			silent := withheld(s)
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				silent.Store(change.Active != nil)
				defer silent.Store(false)
				return s.Users.Apply(ctx, id, change)
			}
		}},
		{"tells of who becomes inactive only", told, func(s *notifying) {
			silent := withheld(s)
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				silent.Store(change.Active == nil)
				defer silent.Store(false)
				return s.Users.Apply(ctx, id, change)
			}
		}},
		{"tells of another account", told, listening(func(_ *notifying, f listener) listener {
			return func(ctx context.Context, _ uuid.UUID) error { return f(ctx, uuid.New()) }
		})},
		{"tells before the change is made", told, func(s *notifying) {
			var mu sync.Mutex
			var all []listener
			s.onUserChange = func(f func(context.Context, uuid.UUID) error) func() {
				mu.Lock()
				defer mu.Unlock()
				all = append(all, f)
				return func() {}
			}
			s.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				mu.Lock()
				listeners := slices.Clone(all)
				mu.Unlock()
				for _, f := range listeners {
					_ = f(ctx, id)
				}
				return s.Users.Apply(ctx, id, change)
			}
		}},
		{"tells the last who listens", told, func(s *notifying) {
			var mu sync.Mutex
			stop := func() {}
			s.onUserChange = func(f func(context.Context, uuid.UUID) error) func() {
				mu.Lock()
				defer mu.Unlock()
				stop()
				stop = s.Users.OnUserChange(f)
				return stop
			}
		}},
		{"hides failures", failing, listening(func(_ *notifying, f listener) listener {
			return func(ctx context.Context, id uuid.UUID) error { _ = f(ctx, id); return nil }
		})},
		{"ends at the first failure", failing, func(s *notifying) {
			var failed atomic.Bool
			listening(func(_ *notifying, f listener) listener {
				return func(ctx context.Context, id uuid.UUID) error {
					if failed.Load() {
						return nil
					}
					err := f(ctx, id)
					failed.Store(err != nil)
					return err
				}
			})(s)
		}},
		{"does not stop", stopped, func(s *notifying) {
			s.onUserChange = func(f func(context.Context, uuid.UUID) error) func() {
				s.Users.OnUserChange(f)
				return func() {}
			}
		}},
		{"stops all", stopped, func(s *notifying) {
			var mu sync.Mutex
			var stops []func()
			s.onUserChange = func(f func(context.Context, uuid.UUID) error) func() {
				mu.Lock()
				defer mu.Unlock()
				stops = append(stops, s.Users.OnUserChange(f))
				return func() {
					mu.Lock()
					defer mu.Unlock()
					for _, stop := range stops {
						stop()
					}
				}
			}
		}},
		{"tells with the next change", atOnce, listening(func(_ *notifying, f listener) listener {
			var mu sync.Mutex
			var waiting []uuid.UUID
			return func(ctx context.Context, id uuid.UUID) (err error) {
				mu.Lock()
				defer mu.Unlock()
				for _, id := range waiting {
					err = f(ctx, id)
				}
				waiting = []uuid.UUID{id}
				return err
			}
		})},
	})
}
