package strategy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// These tests run in synctest bubbles: a goroutine of a watch that does not end fails them.

const (
	interval = 5 * time.Second // the default of Config.WatchInterval
	grace    = time.Minute     // the default of Config.WatchGrace
)

// slowTokens is a store of tokens that counts its look-ups and can fail, hang or take time.
type slowTokens struct {
	*memstore.Tokens[uuid.UUID]
	reads, now, most atomic.Int64
	takes            time.Duration
	fail             atomic.Pointer[func(context.Context) error] // called first if not nil
}

func (s *slowTokens) ByToken(ctx context.Context, digest string) (row, error) {
	s.reads.Add(1)
	s.most.Store(max(s.most.Load(), s.now.Add(1)))
	defer s.now.Add(-1)
	if s.takes > 0 {
		time.Sleep(s.takes)
	}
	if fail := s.fail.Load(); fail != nil {
		if err := (*fail)(ctx); err != nil {
			return row{}, err
		}
	}
	return s.Tokens.ByToken(ctx, digest)
}

func (s *slowTokens) breaks(fail func(context.Context) error) { s.fail.Store(&fail) }
func (s *slowTokens) repaired()                               { s.fail.Store(nil) }

func hang(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// watchRig is one process with slowTokens, and another process on the same stores.
type watchRig struct {
	*cluster
	*strategy.Database[user, uuid.UUID]
	slow   *slowTokens
	events recorder
	other  *strategy.Database[user, uuid.UUID]
}

func newWatchRig(t testing.TB, cfg strategy.Config) *watchRig {
	t.Helper()
	r := &watchRig{cluster: newCluster(t)}
	r.slow = &slowTokens{Tokens: r.cluster.tokens}
	var err error
	if r.other, err = strategy.NewDatabase(r.cluster.tokens, r.users, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.other.Close)
	cfg.OnEvent = r.events.record
	if r.Database, err = strategy.NewDatabase(r.slow, r.users, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// login issues a token.
func (r *watchRig) login(t testing.TB, opts ...strategy.TokenOption) (token string, s strategy.SessionInfo) {
	t.Helper()
	secret, session, err := r.WriteToken(t.Context(), r.ann, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return secret.Reveal(), session.SessionInfo
}

// watched issues a token and watches it.
func (r *watchRig) watched(t testing.TB, opts ...strategy.TokenOption) (token string, s strategy.SessionInfo, ctx context.Context) {
	t.Helper()
	token, s = r.login(t, opts...)
	ctx, stop := r.Watch(t.Context(), token, s)
	t.Cleanup(stop)
	return token, s, ctx
}

// wantEnd waits for the end of a watch and checks its cause and how long it took.
func wantEnd(t testing.TB, ctx context.Context, cause error, atLeast, atMost time.Duration) {
	t.Helper()
	began := time.Now()
	select {
	case <-ctx.Done():
	case <-time.After(atMost + time.Minute):
		t.Fatalf("the watch goes on after %v, want it to end with %v within %v", atMost+time.Minute, cause, atMost)
	}
	if took := time.Since(began); took < atLeast || took > atMost {
		t.Errorf("the watch ended after %v, want %v to %v", took, atLeast, atMost)
	}
	if got := context.Cause(ctx); !errors.Is(got, cause) {
		t.Errorf("the watch ended with %v, want %v", got, cause)
	}
	got, refused := context.Cause(ctx), errors.Is(cause, strategy.ErrSessionExpired) || errors.Is(cause, strategy.ErrSessionRevoked) || errors.Is(cause, strategy.ErrUserInactive)
	if errors.Is(got, strategy.ErrInvalidToken) != refused {
		t.Errorf("the cause %v wraps ErrInvalidToken: %v, want %v", got, !refused, refused)
	}
	if ctx.Err() == nil {
		t.Error("got no Err of a context that is done")
	}
}

func wantNoEnd(t testing.TB, ctx context.Context, within time.Duration) {
	t.Helper()
	time.Sleep(within)
	synctest.Wait()
	if ctx.Err() != nil {
		t.Fatalf("the watch ended with %v, want it to go on", context.Cause(ctx))
	}
}

// causeOf returns the cause with which a watch ends for a case of elsewhere.
func causeOf(name string) error {
	for _, what := range []string{"deactivated", "Deactivate", "deleted by other means", "user was deleted"} {
		if strings.Contains(name, what) && !strings.Contains(name, "tokens were deleted") {
			return strategy.ErrUserInactive
		}
	}
	return strategy.ErrSessionRevoked
}

func TestWatchEndsWhenTheTokenIsRevokedElsewhere(t *testing.T) {
	hashed()
	for _, c := range []struct {
		name   string
		here   strategy.Config
		there  strategy.Config
		within time.Duration
	}{
		{"polling", strategy.Config{}, strategy.Config{MaxSessions: 2}, interval},
		{"polling faster", strategy.Config{WatchInterval: time.Second}, strategy.Config{MaxSessions: 2}, time.Second},
		{"following", strategy.Config{Cache: strategy.Cache{MaxStaleness: stale, FollowInterval: every}}, strategy.Config{MaxSessions: 2, PublishRevocations: true}, every + 100*ms},
		{"following without announcements", strategy.Config{Cache: strategy.Cache{MaxStaleness: stale, FollowInterval: every}}, strategy.Config{MaxSessions: 2}, stale},
	} {
		for _, e := range elsewhere {
			t.Run(c.name+", "+e.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					cluster := newCluster(t)
					here, there := cluster.open(t, cluster.users, c.here), cluster.open(t, cluster.users, c.there)
					follow()
					secret, session, err := here.WriteToken(t.Context(), cluster.ann)
					if err != nil {
						t.Fatal(err)
					}
					ctx, stop := here.Watch(t.Context(), secret.Reveal(), session.SessionInfo)
					defer stop()
					wantNoEnd(t, ctx, time.Minute)
					if err := e.end(t, cluster, there, secret.Reveal(), session); err != nil {
						t.Fatal(err)
					}
					wantEnd(t, ctx, causeOf(e.name), 0, c.within)
				})
			})
		}
	}
}

func TestWatchEndsSoonWhenTheProcessRevokesTheToken(t *testing.T) {
	hashed()
	for name, cache := range map[string]strategy.Cache{"without a cache": {}, "with a cache": {MaxStaleness: stale, FollowInterval: every}} {
		for _, e := range elsewhere {
			t.Run(e.name+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					cluster := newCluster(t)
					here := cluster.open(t, cluster.users, strategy.Config{MaxSessions: 2, Cache: cache})
					secret, session, err := here.WriteToken(t.Context(), cluster.ann)
					if err != nil {
						t.Fatal(err)
					}
					ctx, stop := here.Watch(t.Context(), secret.Reveal(), session.SessionInfo)
					defer stop()
					wantNoEnd(t, ctx, time.Minute)
					if err := e.end(t, cluster, here, secret.Reveal(), session); err != nil {
						t.Fatal(err)
					}
					wantEnd(t, ctx, causeOf(e.name), 0, 100*ms)
				})
			})
		}
	}
}

// A token that is revoked between ReadToken and Watch is found in the cache's records.
func TestWatchOfATokenThatWasJustRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		here, there := c.instance(t), c.instance(t)
		follow()
		token, session := c.cached(t, here)
		if err := there.DestroyToken(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		follow()
		ctx, stop := here.Watch(t.Context(), token, session.SessionInfo)
		defer stop()
		wantEnd(t, ctx, strategy.ErrSessionRevoked, 0, 0)
		// A watch of a cached session costs no look-up at first.
		token, session = c.cached(t, here)
		here.log.reads.Store(0)
		ctx, stop = here.Watch(t.Context(), token, session.SessionInfo)
		defer stop()
		wantNoEnd(t, ctx, time.Second)
		if got := here.log.reads.Load(); got != 0 {
			t.Errorf("got %d look-ups for a cached session, want none", got)
		}
	})
}

// Without a cache there are no records of it: the first look-up finds out.
func TestWatchOfATokenThatWasJustRevokedWithoutACache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newWatchRig(t, strategy.Config{})
		secret, session, err := r.WriteToken(t.Context(), r.ann)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.DestroyToken(t.Context(), secret.Reveal()); err != nil {
			t.Fatal(err)
		}
		ctx, stop := r.Watch(t.Context(), secret.Reveal(), session.SessionInfo)
		defer stop()
		wantEnd(t, ctx, strategy.ErrSessionRevoked, 0, interval)
	})
}

func TestOtherRevocationsDoNotEndAWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newWatchRig(t, strategy.Config{})
		_, s, ctx := r.watched(t)
		other, _ := r.login(t)
		err := errors.Join(
			r.DestroyToken(t.Context(), other),
			r.DestroyAll(t.Context(), r.ann.ID, s.ID),
			r.RenameSession(t.Context(), r.ann.ID, s.ID, "laptop"),
			r.UserChanged(t.Context(), r.ann.ID, strategy.RevokedNone),
		)
		if err != nil {
			t.Fatal(err)
		}
		wantNoEnd(t, ctx, time.Minute)
	})
}

func TestWatchEndsAtTheExactDeadline(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  strategy.Config
		opts []strategy.TokenOption
		end  time.Duration // the last valid moment; 0 for none
	}{
		{"Lifetime", strategy.Config{Lifetime: lifetime}, nil, lifetime},
		{"WithLifetime", strategy.Config{Lifetime: lifetime}, []strategy.TokenOption{strategy.WithLifetime(1234567 * ms)}, 1234567 * ms},
		{"a lifetime of less than the interval", strategy.Config{Lifetime: 10 * ms}, nil, 10 * ms},
		{"IdleTimeout", strategy.Config{Lifetime: lifetime, IdleTimeout: 7777777 * time.Microsecond}, nil, 7777 * ms},
		{"a long IdleTimeout", strategy.Config{Lifetime: lifetime, IdleTimeout: 2 * lifetime}, nil, lifetime},
		{"a scoped token is never idle", strategy.Config{IdleTimeout: time.Minute}, []strategy.TokenOption{strategy.WithScopes("read")}, 0},
		{"no end", strategy.Config{}, nil, 0},
	} {
		for name, cache := range map[string]strategy.Cache{"without a cache": {}, "with a cache": caching} {
			t.Run(c.name+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c.cfg.Cache = cache
					r := newWatchRig(t, c.cfg)
					_, _, ctx := r.watched(t, c.opts...)
					if c.end == 0 {
						wantNoEnd(t, ctx, 2*time.Hour)
						return
					}
					wantEnd(t, ctx, strategy.ErrSessionExpired, c.end+ms, c.end+ms)
				})
			})
		}
	}
}

func TestUseOfASessionKeepsItsWatch(t *testing.T) {
	for name, cache := range map[string]strategy.Cache{"without a cache": {}, "with a cache": caching} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newWatchRig(t, strategy.Config{IdleTimeout: time.Minute, TouchInterval: time.Second, Cache: cache})
				token, _, ctx := r.watched(t)
				for i := range 20 { // by this process and by the other one
					wantNoEnd(t, ctx, 59*time.Second)
					by := []*strategy.Database[user, uuid.UUID]{r.Database, r.other}[i%2]
					if _, err := by.ReadToken(t.Context(), token); err != nil {
						t.Fatal(err)
					}
				}
				wantEnd(t, ctx, strategy.ErrSessionExpired, time.Minute+ms, time.Minute+ms)
			})
		})
	}
}

func TestFailingStoreIsNoLogOut(t *testing.T) {
	for name, fail := range map[string]func(context.Context) error{
		"fails": func(context.Context) error { return errDown },
		"hangs": hang,
		"fails with a verdict about something else": func(context.Context) error { return fmt.Errorf("ask a service: %w", strategy.ErrInvalidToken) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newWatchRig(t, strategy.Config{})
				_, _, ctx := r.watched(t)
				for range 3 { // outages that end in time
					wantNoEnd(t, ctx, time.Minute)
					r.slow.breaks(fail)
					wantNoEnd(t, ctx, grace-2*interval-ms)
					r.slow.repaired()
				}
				wantNoEnd(t, ctx, time.Minute)
				r.events.take()
				r.slow.breaks(fail)
				wantEnd(t, ctx, strategy.ErrSessionUnverified, grace-interval, grace)
				if got := r.events.take(); len(got) != 1 || got[0].Kind != event.StoreFailed {
					t.Errorf("got the events %v, want one %s for the outage", got, event.StoreFailed)
				}
				// A new watch begins anew.
				r.slow.repaired()
				_, _, ctx = r.watched(t)
				wantNoEnd(t, ctx, time.Minute)
			})
		})
	}
}

func TestRevocationDuringAnOutageEndsTheWatchAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newWatchRig(t, strategy.Config{})
		token, _, ctx := r.watched(t)
		r.slow.breaks(func(context.Context) error { return errDown })
		wantNoEnd(t, ctx, 20*time.Second)
		if err := r.other.DestroyToken(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		wantNoEnd(t, ctx, 20*time.Second)
		r.slow.repaired()
		wantEnd(t, ctx, strategy.ErrSessionRevoked, 0, interval)
	})
}

func TestFailingUserSourceIsNoLogOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		users := &fakeUsers{Users: c.users, byID: func(context.Context, uuid.UUID) (user, error) { return user{}, errDown }}
		here := c.open(t, users, strategy.Config{WatchInterval: time.Second, WatchGrace: 10 * time.Second})
		secret, session, err := here.WriteToken(t.Context(), c.ann)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := here.Watch(t.Context(), secret.Reveal(), session.SessionInfo)
		defer stop()
		wantEnd(t, ctx, strategy.ErrSessionUnverified, 10*time.Second, 10*time.Second)
	})
}

func TestExpiryHoldsWhileTheStoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newWatchRig(t, strategy.Config{Lifetime: 30 * time.Second, IdleTimeout: 20 * time.Second})
		_, _, ctx := r.watched(t)
		r.slow.breaks(hang)
		wantEnd(t, ctx, strategy.ErrSessionExpired, 30*time.Second+ms, 30*time.Second+ms)
	})
}

func TestWatchersOfOneTokenShareItsLookUps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newWatchRig(t, strategy.Config{})
		token, s := r.login(t)
		var all []context.Context
		for range 100 {
			ctx, stop := r.Watch(t.Context(), token, s)
			defer stop()
			all = append(all, ctx)
		}
		r.slow.reads.Store(0)
		wantNoEnd(t, all[0], 10*time.Minute)
		if got := r.slow.reads.Load(); got < 120 || got > 160 {
			t.Errorf("got %d look-ups in 10 minutes, want one in each interval of %v, up to 25 %% sooner", got, interval)
		}
		if err := r.other.DestroyToken(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		time.Sleep(interval)
		synctest.Wait()
		for _, ctx := range all {
			if got := context.Cause(ctx); !errors.Is(got, strategy.ErrSessionRevoked) {
				t.Fatalf("got the cause %v, want %v", got, strategy.ErrSessionRevoked)
			}
		}
	})
}

func TestLookUpsOfManySessionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const sessions = 1000
		r := newWatchRig(t, strategy.Config{})
		r.slow.takes = 5 * ms
		var all []context.Context
		for range sessions {
			_, _, ctx := r.watched(t)
			all = append(all, ctx)
		}
		r.slow.reads.Store(0)
		wantNoEnd(t, all[0], time.Minute)
		if got := r.slow.reads.Load(); got < 11*sessions || got > 17*sessions {
			t.Errorf("got %d look-ups of %d sessions in a minute, want one of each in an interval of %v, up to 25 %% sooner", got, sessions, interval)
		}
		// A change of their user wakes all of them.
		if err := r.users.Update(t.Context(), r.ann.ID, func(u *user) { u.Active = false }); err != nil {
			t.Fatal(err)
		}
		if err := r.UserChanged(t.Context(), r.ann.ID, strategy.RevokedNone); err != nil {
			t.Fatal(err)
		}
		for _, ctx := range all {
			wantEnd(t, ctx, strategy.ErrUserInactive, 0, time.Second)
		}
		if got := r.slow.most.Load(); got > 16 {
			t.Errorf("got %d look-ups at once, want at most 16", got)
		}
	})
}

func TestRepeatedChangesDoNotMultiplyLookUps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newWatchRig(t, strategy.Config{})
		_, _, ctx := r.watched(t)
		r.slow.reads.Store(0)
		for range 1000 {
			if err := r.UserChanged(t.Context(), r.ann.ID, strategy.RevokedNone); err != nil {
				t.Fatal(err)
			}
			wantNoEnd(t, ctx, ms)
		}
		if got := r.slow.reads.Load(); got > 11 {
			t.Errorf("got %d look-ups for 1000 changes in a second, want at most one in 100 milliseconds", got)
		}
	})
}

// wantNoLookUps checks that no token is watched.
func wantNoLookUps(t *testing.T, r *watchRig) {
	t.Helper()
	synctest.Wait()
	r.slow.reads.Store(0)
	time.Sleep(time.Hour)
	if got := r.slow.reads.Load(); got != 0 {
		t.Errorf("got %d look-ups after the last watch, want none", got)
	}
	if got := r.Watched(); got != 0 {
		t.Errorf("got %d watched tokens after the last watch, want none", got)
	}
}

func TestWatchEndsWithItsCaller(t *testing.T) {
	for name, end := range map[string]func(stop, cancel func()){
		"stop":                      func(stop, _ func()) { stop() },
		"stop twice":                func(stop, _ func()) { stop(); stop() },
		"the parent context":        func(_, cancel func()) { cancel() },
		"the parent and then stop":  func(stop, cancel func()) { cancel(); stop() },
		"stop and then the parent":  func(stop, cancel func()) { stop(); cancel() },
		"stop by several at a time": func(stop, _ func()) { go stop(); go stop() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newWatchRig(t, strategy.Config{})
				token, s := r.login(t)
				parent, cancel := context.WithCancel(t.Context())
				defer cancel()
				ctx, stop := r.Watch(parent, token, s)
				stays, stopLast := r.Watch(t.Context(), token, s)
				end(stop, cancel)
				synctest.Wait()
				if got := context.Cause(ctx); !errors.Is(got, context.Canceled) || errors.Is(got, strategy.ErrInvalidToken) {
					t.Errorf("got the cause %v, want %v", got, context.Canceled)
				}
				wantNoEnd(t, stays, time.Minute) // another watch of the token
				stopLast()
				wantNoLookUps(t, r)
				// A watch during a check ends it.
				r.slow.breaks(hang)
				_, stop = r.Watch(t.Context(), token, s)
				time.Sleep(interval + time.Second)
				stop()
				r.slow.repaired()
				wantNoLookUps(t, r)
			})
		})
	}
}

func TestValuesOfTheParentAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newWatchRig(t, strategy.Config{})
		token, s := r.login(t)
		ctx, stop := r.Watch(event.ContextWithClientIP(t.Context(), "192.0.2.1"), token, s)
		defer stop()
		if got := event.ClientIP(ctx); got != "192.0.2.1" {
			t.Errorf("got the client IP %q, want that of the parent", got)
		}
	})
}

func TestCloseEndsWatches(t *testing.T) {
	for name, cache := range map[string]strategy.Cache{"without a cache": {}, "with a cache": caching} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newWatchRig(t, strategy.Config{Cache: cache})
				token, s, ctx := r.watched(t)
				wantNoEnd(t, ctx, time.Minute)
				r.Close()
				wantEnd(t, ctx, strategy.ErrClosed, 0, 0)
				ctx, stop := r.Watch(t.Context(), token, s)
				wantEnd(t, ctx, strategy.ErrClosed, 0, 0)
				stop()
				wantNoLookUps(t, r)
			})
		})
	}
}

func TestWatchOfAnInvalidArgumentHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newWatchRig(t, strategy.Config{})
		token, s := r.login(t)
		ctx, stop := r.Watch(t.Context(), "malformed", s)
		wantEnd(t, ctx, strategy.ErrSessionRevoked, 0, 0)
		stop()
		for _, s := range []strategy.SessionInfo{{}, {ID: s.ID, UserID: "ann"}, {UserID: s.UserID}} {
			ctx, stop := r.Watch(t.Context(), token, s)
			if got := context.Cause(ctx); got == nil || !strings.Contains(got.Error(), "SessionInfo") || errors.Is(got, strategy.ErrInvalidToken) {
				t.Errorf("got the cause %v, want one that names the SessionInfo", got)
			}
			stop()
		}
		wantNoLookUps(t, r)
	})
}

func TestWatchDurationsAreChecked(t *testing.T) {
	for name, cfg := range map[string]strategy.Config{
		"WatchInterval": {WatchInterval: -time.Second},
		"WatchInterval is 1ms, want at least 10ms": {WatchInterval: time.Millisecond},
		"WatchGrace": {WatchGrace: -time.Second},
		"WatchGrace is 1s, want at least WatchInterval, 5s":     {WatchGrace: time.Second},
		"WatchGrace is 30s, want at least WatchInterval, 1m0s":  {WatchGrace: 30 * time.Second, Cache: strategy.Cache{MaxStaleness: time.Minute}},
		"WatchGrace is 500ms, want at least WatchInterval, 1s:": {WatchGrace: 500 * time.Millisecond, Cache: strategy.Cache{MaxStaleness: time.Millisecond}},
	} {
		_, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), memstore.NewUsers[user](), cfg)
		if err == nil || !strings.Contains(err.Error(), "Config."+name) {
			t.Errorf("got the error %v, want one with %q", err, name)
		}
	}
}

// A legacy token is never cached, and another program revokes it without a word. It cannot be
// idle before its first stored use.
func TestWatchOfALegacyToken(t *testing.T) {
	for name, cache := range map[string]strategy.Cache{"without a cache": {}, "with a cache": caching} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				store := &legacyTokens{Tokens: c.tokens}
				db, err := strategy.NewDatabase(store, c.users, strategy.Config{Lifetime: lifetime, IdleTimeout: time.Minute, Cache: cache, WatchInterval: interval})
				if err != nil {
					t.Fatal(err)
				}
				defer db.Close()
				watch := func() (string, context.Context, context.CancelFunc) {
					secret := "old-" + uuid.NewString()
					old := row{ID: uuid.Must(uuid.NewV7()), Digest: sha256Of(secret), UserID: c.ann.ID, CreatedAt: time.Now().UTC(), Legacy: true}
					if err := store.Insert(t.Context(), old); err != nil {
						t.Fatal(err)
					}
					ctx, stop := db.Watch(t.Context(), secret, strategy.SessionInfo{ID: old.ID, UserID: old.UserID, CreatedAt: old.CreatedAt, ExpiresAt: old.CreatedAt.Add(lifetime)})
					return secret, ctx, stop
				}
				_, ctx, stop := watch()
				defer stop()
				wantEnd(t, ctx, strategy.ErrSessionExpired, lifetime+ms, lifetime+ms)
				if most := int(lifetime/interval)*4/3 + 2; store.reads > most {
					t.Errorf("got %d look-ups in %v, want at most %d", store.reads, lifetime, most)
				}
				secret, ctx, stop := watch()
				defer stop()
				wantNoEnd(t, ctx, 10*time.Minute)
				if _, err := c.tokens.Delete(t.Context(), sha256Of(secret)); err != nil { // by the former system
					t.Fatal(err)
				}
				wantEnd(t, ctx, strategy.ErrSessionRevoked, 0, interval)
			})
		})
	}
}
