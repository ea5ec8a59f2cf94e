package strategy_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/sameuser"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// stale is the MaxStaleness of most tests.
const stale = 10 * time.Second

var caching = strategy.Cache{MaxStaleness: stale}

// cachingRig is a rig that counts the reads from its stores and can delay a read after the
// store has answered.
type cachingRig struct {
	*rig
	tokenReads, userReads atomic.Int64
	tokenRead, userRead   atomic.Pointer[func(context.Context) error]
	// changed is Ann after a change of which the Database was not told; nil means none.
	changed atomic.Pointer[user]
}

func newCaching(t testing.TB, cfg strategy.Config) *cachingRig {
	t.Helper()
	r := &cachingRig{rig: newRig(t, cfg)}
	if err := r.users.Update(t.Context(), r.ann.ID, func(u *user) { u.HashedPassword = hashed() }); err != nil {
		t.Fatalf("Update: %v", err)
	}
	r.reload(t)
	r.tokens.byToken = func(ctx context.Context, digest string) (row, error) {
		r.tokenReads.Add(1)
		stored, err := r.tokens.store.ByToken(ctx, digest)
		return stored, errors.Join(err, call(ctx, &r.tokenRead))
	}
	r.users.byID = func(ctx context.Context, id uuid.UUID) (user, error) {
		r.userReads.Add(1)
		u, err := r.users.Users.ByID(ctx, id)
		if changed := r.changed.Load(); changed != nil && err == nil {
			u = *changed
		}
		return u, errors.Join(err, call(ctx, &r.userRead))
	}
	t.Cleanup(r.Close)
	return r
}

func call(ctx context.Context, hook *atomic.Pointer[func(context.Context) error]) error {
	if f := hook.Load(); f != nil {
		return (*f)(ctx)
	}
	return nil
}

// hold makes the next read, and only that one, wait for release after the store has answered.
func hold(hook *atomic.Pointer[func(context.Context) error]) (release func()) {
	released := make(chan struct{})
	var held atomic.Bool
	f := func(ctx context.Context) error {
		if !held.CompareAndSwap(false, true) {
			return nil
		}
		select {
		case <-released:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	hook.Store(&f)
	return sync.OnceFunc(func() { close(released) })
}

// cost checks how many tokens and users were read since the last call.
func (r *cachingRig) cost(t testing.TB, what string, tokens, users int64) {
	t.Helper()
	if gotTokens, gotUsers := r.tokenReads.Swap(0), r.userReads.Swap(0); gotTokens != tokens || gotUsers != users {
		t.Errorf("%s: read %d tokens and %d users, want %d and %d", what, gotTokens, gotUsers, tokens, users)
	}
}

// cached issues a token and reads it into the cache.
func (r *cachingRig) cached(t *testing.T, opts ...strategy.TokenOption) (string, row) {
	t.Helper()
	token, issued := r.issue(t, opts...)
	r.tokenReads.Store(0)
	r.userReads.Store(0)
	r.reads(t, "at first", token, nil)
	r.cost(t, "a miss", 1, 1)
	r.reads(t, "again", token, nil)
	r.cost(t, "a hit", 0, 0)
	return token, issued
}

// read reads a token in another goroutine.
func (r *cachingRig) read(ctx context.Context, token string) <-chan error {
	result := make(chan error, 1)
	go func() {
		_, err := r.ReadToken(ctx, token)
		result <- err
	}()
	return result
}

// hashed returns a hash of password.
var hashed = sync.OnceValue(func() account.PasswordHash {
	m, err := account.NewManager(memstore.NewUsers[user](), nil, nil, uuid.New, account.Config{
		InsecureNoLimiter: true, Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true,
	})
	if err != nil {
		panic(err)
	}
	u, err := m.Create(context.Background(), user{Email: "x@example.com"}, password)
	if err != nil {
		panic(err)
	}
	return u.HashedPassword
})

// ending is a way to end a session through an instance that may have cached it.
type ending struct {
	name string
	end  func(t *testing.T, r *cachingRig, token string, stored row) error
}

// The endings require that MaxSessions is 2.
var endings = []ending{
	{"DestroyToken", func(t *testing.T, r *cachingRig, token string, _ row) error {
		return r.DestroyToken(t.Context(), token)
	}},
	{"DestroySession", func(t *testing.T, r *cachingRig, _ string, stored row) error {
		return r.DestroySession(t.Context(), r.ann.ID, stored.ID)
	}},
	{"DestroyAll", func(t *testing.T, r *cachingRig, _ string, _ row) error {
		return r.DestroyAll(t.Context(), r.ann.ID)
	}},
	{"DestroyAll except another", func(t *testing.T, r *cachingRig, _ string, _ row) error {
		_, other, err := r.WriteToken(t.Context(), r.ann)
		return errors.Join(err, r.DestroyAll(t.Context(), r.ann.ID, other.ID))
	}},
	{"UserSessions.Destroy", func(t *testing.T, r *cachingRig, _ string, stored row) error {
		return r.Of(r.ann).Destroy(t.Context(), stored.ID)
	}},
	{"RotateToken", func(t *testing.T, r *cachingRig, token string, _ row) error {
		_, _, err := r.RotateToken(t.Context(), token)
		return err
	}},
	{"eviction by MaxSessions", func(t *testing.T, r *cachingRig, _ string, _ row) error {
		_, _, first := r.WriteToken(t.Context(), r.ann)
		_, _, second := r.WriteToken(t.Context(), r.ann)
		return errors.Join(first, second)
	}},
	{"WithReplaced", func(t *testing.T, r *cachingRig, token string, _ row) error {
		_, _, err := r.WriteToken(t.Context(), r.ann, strategy.WithReplaced(token))
		return err
	}},
	{"Manager.ChangePassword", func(t *testing.T, r *cachingRig, _ string, _ row) error {
		_, err := r.manager(t, r).ChangePassword(t.Context(), r.ann.ID, password, changed)
		return err
	}},
	{"Manager.Deactivate", func(t *testing.T, r *cachingRig, _ string, _ row) error {
		return r.manager(t, r).Deactivate(t.Context(), r.ann.ID)
	}},
	{"Manager.SetPassword", func(t *testing.T, r *cachingRig, _ string, _ row) error {
		_, err := r.manager(t, r).SetPassword(t.Context(), r.ann.ID, changed)
		return err
	}},
	{"Manager.Delete", func(t *testing.T, r *cachingRig, _ string, _ row) error {
		return r.manager(t, r).Delete(t.Context(), r.ann.ID)
	}},
	{"Manager.RevokeTokens", func(t *testing.T, r *cachingRig, _ string, _ row) error {
		return r.manager(t, r).RevokeTokens(t.Context(), r.ann.ID)
	}},
	{"UserChanged after the password was changed by other means", func(t *testing.T, r *cachingRig, _ string, _ row) error {
		changed := account.NewPasswordHash("new")
		err := r.users.Apply(t.Context(), r.ann.ID, account.Change{Password: &changed, RevokeTokens: true})
		return errors.Join(err, r.UserChanged(t.Context(), r.ann.ID, strategy.RevokedNone))
	}},
	{"UserChanged after the tokens were revoked by other means", func(t *testing.T, r *cachingRig, _ string, _ row) error {
		err := r.users.Apply(t.Context(), r.ann.ID, account.Change{RevokeTokens: true})
		return errors.Join(err, r.UserChanged(t.Context(), r.ann.ID, strategy.RevokedAll))
	}},
	{"UserChanged after the user was deactivated by other means", func(t *testing.T, r *cachingRig, _ string, _ row) error {
		err := r.users.Update(t.Context(), r.ann.ID, func(u *user) { u.Active = false })
		return errors.Join(err, r.UserChanged(t.Context(), r.ann.ID, strategy.RevokedNone))
	}},
	{"UserChanged after the user was deleted", func(t *testing.T, r *cachingRig, _ string, _ row) error {
		err := r.users.Delete(t.Context(), r.ann.ID)
		return errors.Join(err, r.UserChanged(t.Context(), r.ann.ID, strategy.RevokedNone))
	}},
	{"UserChanged after the tokens were deleted by other means", func(t *testing.T, r *cachingRig, _ string, _ row) error {
		_, err := r.tokens.store.DeleteByUser(t.Context(), r.ann.ID)
		return errors.Join(err, r.UserChanged(t.Context(), r.ann.ID, strategy.RevokedNone))
	}},
}

func TestZeroCacheIsDisabled(t *testing.T) {
	r := newCaching(t, strategy.Config{Lifetime: lifetime})
	token, _ := r.issue(t)
	for range 3 {
		r.reads(t, "", token, nil)
		r.cost(t, "without a cache", 1, 1)
	}
	if err := r.UserChanged(t.Context(), r.ann.ID, strategy.RevokedNone); err != nil {
		t.Errorf("UserChanged: %v", err)
	}
	r.Close()
	r.reads(t, "after Close", token, nil)
}

func TestCacheHitDoesNotCallTheStores(t *testing.T) {
	r := newCaching(t, strategy.Config{Lifetime: lifetime, Cache: caching})
	token, _ := r.cached(t, strategy.WithName("laptop"), strategy.WithScopes("a", "b"), strategy.WithLifetime(time.Minute))
	other, _ := r.issue(t)
	uncached := newCaching(t, strategy.Config{Lifetime: lifetime})
	uncached.rig = r.another(t, strategy.Config{Lifetime: lifetime})
	want, err := uncached.ReadToken(t.Context(), token)
	if err != nil {
		t.Fatalf("ReadToken without the cache: %v", err)
	}
	r.cost(t, "a read without the cache", 1, 1)

	calls := r.tokens.calls.Load()
	for range 100 {
		if got, err := r.ReadToken(t.Context(), token); err != nil || !sameuser.EqualSessions(*got, *want) {
			t.Fatalf("ReadToken: got %+v, %v\nwant %+v", got, err, want)
		}
	}
	r.cost(t, "100 hits", 0, 0)
	if got := r.tokens.calls.Load() - calls; got != 0 {
		t.Errorf("the store was called %d times, want 0", got)
	}
	r.reads(t, "of the user's other token", other, nil)
	r.cost(t, "the first read of the other token", 1, 1)
}

func TestCachedSessionsExpireToTheMillisecond(t *testing.T) {
	const idle = time.Hour
	for _, c := range []struct {
		name   string
		cfg    strategy.Config
		opts   []strategy.TokenOption
		limit  time.Duration
		reason event.Reason
	}{
		{"the lifetime", strategy.Config{Lifetime: time.Hour}, nil, time.Hour, event.ReasonExpired},
		{"the lifetime of a token with scopes", strategy.Config{Lifetime: time.Hour}, []strategy.TokenOption{strategy.WithScopes("a")}, time.Hour, event.ReasonExpired},
		{"a lifetime of its own", strategy.Config{Lifetime: 24 * time.Hour}, []strategy.TokenOption{strategy.WithLifetime(time.Hour)}, time.Hour, event.ReasonExpired},
		{"a lifetime of its own where others live for ever", strategy.Config{}, []strategy.TokenOption{strategy.WithLifetime(time.Minute)}, time.Minute, event.ReasonExpired},
		{"the idle timeout", strategy.Config{IdleTimeout: idle, TouchInterval: idle - ms}, nil, idle, event.ReasonIdle},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, d := range []time.Duration{-ms, -1, 0, 1, ms - 1, ms, time.Second} {
				c.cfg.Cache = caching
				r := newCaching(t, c.cfg)
				r.now = issuedAt // a token is valid to the end of its last millisecond
				token, _ := r.issue(t, c.opts...)
				r.now = issuedAt.Add(c.limit - stale/2)
				r.reads(t, "before the limit", token, nil)
				r.tokenReads.Store(0)
				r.events.take()
				r.now = issuedAt.Add(c.limit + d)
				_, err := r.ReadToken(t.Context(), token)
				if d < ms {
					if reads := r.tokenReads.Load(); err != nil || reads != 0 {
						t.Errorf("%v from the limit: got %v after %d reads, want a hit", d, err, reads)
					}
					continue
				}
				if !errors.Is(err, strategy.ErrInvalidToken) {
					t.Errorf("%v after the limit: got %v, want ErrInvalidToken", d, err)
				}
				if got := r.events.take(); len(got) != 1 || got[0].Kind != event.TokenDenied || got[0].Reason != c.reason {
					t.Errorf("%v after the limit: got the events %+v, want one with the reason %s", d, got, c.reason)
				}
			}
		})
	}
}

func TestNotBeforeHoldsWithACache(t *testing.T) {
	for _, d := range []time.Duration{-ms, 0, 1, ms} {
		r := newCaching(t, strategy.Config{})
		token, _ := r.issue(t)
		r.rig = r.another(t, strategy.Config{Cache: caching, NotBefore: issuedAt.Add(d)})
		var want error
		if d > 0 {
			want = strategy.ErrInvalidToken
		}
		for range 3 {
			r.reads(t, fmt.Sprintf("with NotBefore %v after the login", d), token, want)
		}
		r.Close()
	}
}

func TestRevokedTokenIsNotReadFromTheCache(t *testing.T) {
	for _, e := range endings {
		t.Run(e.name, func(t *testing.T) {
			r := newCaching(t, strategy.Config{Lifetime: lifetime, MaxSessions: 2, Cache: caching})
			token, issued := r.cached(t)
			if err := e.end(t, r, token, issued); err != nil {
				t.Fatalf("got %v, want nil", err)
			}
			r.reads(t, "after the end", token, strategy.ErrInvalidToken)
			r.reads(t, "again", token, strategy.ErrInvalidToken)
		})
	}
}

// A read whose store answered before a session ended must not bring the session back.
func TestReadInFlightDoesNotReviveARevokedToken(t *testing.T) {
	hashed()
	for _, e := range endings {
		for _, at := range []string{"token", "user"} {
			t.Run(e.name+", with the "+at+" read", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newCaching(t, strategy.Config{Lifetime: lifetime, MaxSessions: 2, Cache: caching})
					token, issued := r.issue(t)
					release := hold(map[string]*atomic.Pointer[func(context.Context) error]{"token": &r.tokenRead, "user": &r.userRead}[at])
					before := r.read(t.Context(), token)
					synctest.Wait()
					if err := e.end(t, r, token, issued); err != nil {
						t.Fatalf("got %v, want nil", err)
					}
					after := r.read(t.Context(), token)
					synctest.Wait() // it has returned, or waits for the other read
					release()
					if err := <-before; err != nil && !errors.Is(err, strategy.ErrInvalidToken) {
						t.Errorf("the read in flight: got %v, want nil or ErrInvalidToken", err)
					}
					if err := <-after; !errors.Is(err, strategy.ErrInvalidToken) {
						t.Errorf("a read that began afterwards: got %v, want ErrInvalidToken", err)
					}
					for range 2 {
						r.reads(t, "after both", token, strategy.ErrInvalidToken)
					}
				})
			})
		}
	}
}

// A store that returns an error may have carried the revocation out.
func TestTokenIsReadAgainAfterAFailedRevocation(t *testing.T) {
	down := errors.New("down")
	for _, e := range endings[:8] {
		for _, lost := range []bool{false, true} {
			name := e.name + ", not carried out"
			if lost {
				name = e.name + ", carried out and the answer lost"
			}
			t.Run(name, func(t *testing.T) {
				r := newCaching(t, strategy.Config{Lifetime: lifetime, MaxSessions: 2, Cache: caching})
				token, issued := r.cached(t)
				s := r.tokens
				s.delete = func(ctx context.Context, digest string) (row, error) {
					if lost {
						_, _ = s.store.Delete(ctx, digest)
					}
					return row{}, down
				}
				s.deleteSession = func(ctx context.Context, userID, id uuid.UUID) (row, error) {
					if lost {
						_, _ = s.store.DeleteSession(ctx, userID, id)
					}
					return row{}, down
				}
				s.deleteByUser = func(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) (int64, error) {
					if lost {
						_, _ = s.store.DeleteByUser(ctx, userID, except...)
					}
					return 0, down
				}
				s.rotate = func(ctx context.Context, digest string, to strategy.Rotation) (row, error) {
					if lost {
						_, _ = s.store.Rotate(ctx, digest, to)
					}
					return row{}, down
				}
				want := down
				if lost && e.name == "RotateToken" { // it finds the new digest
					want = nil
				}
				if err := e.end(t, r, token, issued); !errors.Is(err, want) {
					t.Fatalf("got %v, want %v", err, want)
				}
				r.tokenReads.Store(0)
				if lost {
					r.reads(t, "after the failure", token, strategy.ErrInvalidToken)
				} else {
					r.reads(t, "after the failure", token, nil)
				}
				if got := r.tokenReads.Load(); got != 1 {
					t.Errorf("after the failure: read the token %d times, want 1", got)
				}
			})
		}
	}
}

func TestConcurrentReadsFromTheCacheFailOnceASessionHasEnded(t *testing.T) {
	const rounds, readers = 12, 6
	for _, e := range endings {
		t.Run(e.name, func(t *testing.T) {
			for range rounds {
				r := newCaching(t, strategy.Config{Lifetime: lifetime, MaxSessions: 2, Cache: caching})
				// Some reads are slow to return.
				var n atomic.Int64
				slow := func(context.Context) error {
					for range n.Add(1) % 5 * 20 {
						runtime.Gosched()
					}
					return nil
				}
				r.tokenRead.Store(&slow)
				r.userRead.Store(&slow)
				token, issued := r.issue(t)
				var ended atomic.Bool
				var late, served atomic.Int64
				var wg sync.WaitGroup
				for i := range readers {
					wg.Go(func() {
						for after := 0; after < 20; {
							done := ended.Load()
							_, err := r.ReadToken(t.Context(), token)
							switch {
							case err != nil && !errors.Is(err, strategy.ErrInvalidToken):
								t.Errorf("ReadToken: got %v, want nil or ErrInvalidToken", err)
							case err == nil && done:
								late.Add(1)
							case err == nil:
								served.Add(1)
							}
							if done {
								after++
							}
							if i == 0 { // make the others read again
								_ = r.UserChanged(t.Context(), r.ann.ID, strategy.RevokedNone)
							}
						}
					})
				}
				for served.Load() < readers {
					runtime.Gosched()
				}
				if err := e.end(t, r, token, issued); err != nil {
					t.Errorf("got %v, want nil", err)
				}
				ended.Store(true)
				wg.Wait()
				if got := late.Load(); got != 0 {
					t.Fatalf("%d reads succeeded that began after the end, want 0", got)
				}
			}
		})
	}
}

func TestConcurrentCacheMissesShareARead(t *testing.T) {
	const n = 200
	hashed()
	for _, c := range []struct {
		name string
		hook func(*cachingRig) *atomic.Pointer[func(context.Context) error]
	}{
		{"while the token is read", func(r *cachingRig) *atomic.Pointer[func(context.Context) error] { return &r.tokenRead }},
		{"while the user is read", func(r *cachingRig) *atomic.Pointer[func(context.Context) error] { return &r.userRead }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newCaching(t, strategy.Config{Lifetime: lifetime, Cache: caching})
				token, issued := r.issue(t)
				release := hold(c.hook(r))
				var wg sync.WaitGroup
				for range n {
					wg.Go(func() {
						if got, err := r.ReadToken(t.Context(), token); err != nil || got.ID != issued.ID || !sameuser.Equal(got.User, r.ann) {
							t.Errorf("ReadToken: got %+v, %v, want Ann's session", got, err)
						}
					})
				}
				synctest.Wait()
				release()
				wg.Wait()
				r.cost(t, "200 misses", 1, 1)
			})
		})
	}
}

func TestCancelledReadDoesNotFailOtherRequests(t *testing.T) {
	const others = 20
	hashed()
	for _, c := range []struct {
		name   string
		panics bool
	}{{"cancelled", false}, {"panicking", true}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newCaching(t, strategy.Config{Lifetime: lifetime, Cache: caching})
				token, _ := r.issue(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				release := hold(&r.tokenRead)
				if c.panics {
					held, first := *r.tokenRead.Load(), new(atomic.Bool)
					panics := func(ctx context.Context) error {
						mine := first.CompareAndSwap(false, true)
						if err := held(ctx); err != nil || !mine {
							return err
						}
						panic("the driver")
					}
					r.tokenRead.Store(&panics)
				}
				leader := make(chan error, 1)
				go func() {
					defer func() {
						if p := recover(); p != nil {
							leader <- fmt.Errorf("panic: %v", p)
						}
					}()
					_, err := r.ReadToken(ctx, token)
					leader <- err
				}()
				synctest.Wait()
				results := make([]<-chan error, others)
				for i := range results {
					results[i] = r.read(t.Context(), token)
				}
				synctest.Wait()
				if c.panics {
					release()
				} else {
					cancel()
				}
				if err := <-leader; err == nil {
					t.Error("the first request: got no error, want one")
				}
				for _, result := range results {
					if err := <-result; err != nil {
						t.Errorf("another request: got %v, want nil", err)
					}
				}
				r.cost(t, "the failed read and the shared one", 2, 1)
			})
		})
	}
}

func TestRequestThatWaitsForASharedReadCanBeCancelled(t *testing.T) {
	hashed()
	synctest.Test(t, func(t *testing.T) {
		r := newCaching(t, strategy.Config{Cache: caching})
		token, _ := r.issue(t)
		release := hold(&r.userRead)
		leader := r.read(t.Context(), token)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := <-r.read(ctx, token); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, strategy.ErrInvalidToken) {
			t.Errorf("the waiting request: got %v, want context.DeadlineExceeded", err)
		}
		release()
		if err := <-leader; err != nil {
			t.Errorf("the reading request: got %v, want nil", err)
		}
	})
}

// Each denied request is an event of its own, with its own client IP.
func TestEachDeniedRequestOfASharedReadIsAnEvent(t *testing.T) {
	hashed()
	for _, c := range []struct {
		name   string
		spoil  func(t *testing.T, r *cachingRig, token string)
		hook   func(r *cachingRig) *atomic.Pointer[func(context.Context) error]
		reason event.Reason
	}{
		{"an unknown token", func(t *testing.T, r *cachingRig, token string) {
			if err := r.DestroyToken(t.Context(), token); err != nil {
				t.Fatal(err)
			}
		}, func(r *cachingRig) *atomic.Pointer[func(context.Context) error] { return &r.tokenRead }, event.ReasonUnknown},
		{"an inactive user", func(t *testing.T, r *cachingRig, _ string) {
			if err := r.users.Update(t.Context(), r.ann.ID, func(u *user) { u.Active = false }); err != nil {
				t.Fatal(err)
			}
		}, func(r *cachingRig) *atomic.Pointer[func(context.Context) error] { return &r.userRead }, event.ReasonUserInactive},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newCaching(t, strategy.Config{Lifetime: lifetime, Cache: caching})
				token, issued := r.issue(t)
				c.spoil(t, r, token)
				r.events.take()
				release := hold(c.hook(r))
				want := []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}
				var results []<-chan error
				for _, ip := range want {
					results = append(results, r.read(event.ContextWithClientIP(t.Context(), ip), token))
				}
				synctest.Wait()
				release()
				for _, result := range results {
					if err := <-result; !errors.Is(err, strategy.ErrInvalidToken) {
						t.Errorf("got %v, want ErrInvalidToken", err)
					}
				}
				r.tokenReads.Add(-1)
				if got := r.tokenReads.Load(); got != 0 {
					t.Errorf("read the token %d times more than once", got)
				}
				var ips []string
				for _, e := range r.events.take() {
					ips = append(ips, e.ClientIP)
					found := c.reason != event.ReasonUnknown
					if e.Kind != event.TokenDenied || e.Reason != c.reason || found != (e.SessionID == issued.ID) || found != (e.UserID == r.ann.ID) {
						t.Errorf("got the event %+v, want token.denied with the reason %s", e, c.reason)
					}
				}
				if slices.Sort(ips); !slices.Equal(ips, want) {
					t.Errorf("got events of %v, want one of each of %v", ips, want)
				}
			})
		})
	}
}

// A request must not be denied because of a read that began before a change made its token
// valid again.
func TestRequestDoesNotJoinAReadFromBeforeAChange(t *testing.T) {
	hashed()
	synctest.Test(t, func(t *testing.T) {
		r := newCaching(t, strategy.Config{Lifetime: lifetime, Cache: caching})
		token, _ := r.issue(t)
		if err := r.users.Update(t.Context(), r.ann.ID, func(u *user) { u.Active = false }); err != nil {
			t.Fatal(err)
		}
		release := hold(&r.userRead)
		before := r.read(t.Context(), token)
		synctest.Wait()
		if err := r.manager(t, r).Activate(t.Context(), r.ann.ID); err != nil {
			t.Fatalf("Activate: %v", err)
		}
		after := r.read(t.Context(), token)
		synctest.Wait()
		release()
		if err := <-before; !errors.Is(err, strategy.ErrInvalidToken) {
			t.Errorf("the earlier read: got %v, want ErrInvalidToken", err)
		}
		if err := <-after; err != nil {
			t.Errorf("a read that began after the account was activated: got %v, want nil", err)
		}
		r.reads(t, "again", token, nil)
	})
}

// The lifetimes are checked for each request that joins a read.
func TestRequestThatJoinsAReadIsCheckedByItsOwnTime(t *testing.T) {
	hashed()
	for _, c := range []struct {
		name   string
		cfg    strategy.Config
		opts   []strategy.TokenOption
		first  time.Duration // when the read begins, after the token was issued
		second time.Duration // when the other request joins it
		spoil  func(ctx context.Context, r *cachingRig, token string) error
	}{
		{"the lifetime ends", strategy.Config{Lifetime: lifetime}, nil, lifetime, lifetime + ms, nil},
		{"its own lifetime ends", strategy.Config{}, []strategy.TokenOption{strategy.WithLifetime(lifetime)}, lifetime, lifetime + ms, nil},
		{"the idle time ends", strategy.Config{IdleTimeout: time.Hour, TouchInterval: time.Hour - ms}, nil, time.Hour - 2*ms, time.Hour + ms, nil},
		{"the read takes longer than MaxStaleness", strategy.Config{}, nil, time.Minute, time.Minute + stale + 1, func(ctx context.Context, r *cachingRig, token string) error {
			_, err := r.tokens.store.Delete(ctx, sha256Of(token))
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.cfg.Cache = caching
				r := newCaching(t, c.cfg)
				r.now = issuedAt
				token, _ := r.issue(t, c.opts...)
				r.now = issuedAt.Add(c.first)
				release := hold(&r.userRead)
				first := r.read(t.Context(), token)
				synctest.Wait()
				r.now = issuedAt.Add(c.second)
				if c.spoil != nil {
					if err := c.spoil(t.Context(), r, token); err != nil {
						t.Fatal(err)
					}
				}
				second := r.read(t.Context(), token)
				synctest.Wait()
				release()
				if err := <-first; err != nil {
					t.Errorf("the first read: got %v, want nil", err)
				}
				if err := <-second; !errors.Is(err, strategy.ErrInvalidToken) {
					t.Errorf("the second read: got %v, want ErrInvalidToken", err)
				}
			})
		})
	}
}

// If the database is slower than MaxStaleness, requests must still share reads. One read after
// the other, they would queue without end.
func TestRequestsShareReadsOfASlowDatabase(t *testing.T) {
	const n = 100
	hashed()
	synctest.Test(t, func(t *testing.T) {
		users := memstore.NewUsers[user]()
		ann := user{ID: uuid.New(), Email: "ann@example.com", Active: true}
		tokens := &fakeTokens{store: memstore.NewTokens[uuid.UUID]()}
		db, err := strategy.NewDatabase(tokens, users, strategy.Config{Cache: strategy.Cache{MaxStaleness: 100 * ms}})
		if err := errors.Join(err, users.Insert(t.Context(), ann)); err != nil {
			t.Fatal(err)
		}
		secret, _, err := db.WriteToken(t.Context(), ann)
		if err != nil {
			t.Fatal(err)
		}
		tokens.byToken = func(ctx context.Context, digest string) (row, error) {
			time.Sleep(time.Second)
			return tokens.store.ByToken(ctx, digest)
		}
		began := time.Now()
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 5 * ms)
				if _, err := db.ReadToken(t.Context(), secret.Reveal()); err != nil {
					t.Errorf("ReadToken: %v", err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%d reads took %v, want at most the time of three", n, took)
		}
	})
}

func TestFailuresAreNotCached(t *testing.T) {
	down := errors.New("down")
	fails := func(context.Context) error { return down }
	r := newCaching(t, strategy.Config{Lifetime: lifetime, Cache: caching})
	token, _ := r.issue(t)
	for range 2 {
		r.tokenRead.Store((*func(context.Context) error)(&fails))
		r.reads(t, "with a failing store", token, down)
		r.cost(t, "with a failing store", 1, 0)
	}
	r.tokenRead.Store(nil)
	for range 2 {
		r.userRead.Store((*func(context.Context) error)(&fails))
		r.reads(t, "with a failing user source", token, down)
		r.cost(t, "with a failing user source", 1, 1)
	}
	r.userRead.Store(nil)
	r.reads(t, "after the failures", token, nil)
	r.cost(t, "after the failures", 1, 1)
	r.reads(t, "again", token, nil)
	r.cost(t, "again", 0, 0)
}

func TestDenialsAreNotCached(t *testing.T) {
	for _, c := range []struct {
		name                string
		invalidate, restore func(t *testing.T, r *cachingRig, stored row)
		users               int64
	}{
		{"an unknown token", func(t *testing.T, r *cachingRig, stored row) {
			if _, err := r.tokens.store.Delete(t.Context(), stored.Digest); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, r *cachingRig, stored row) {
			if err := r.tokens.store.Insert(t.Context(), stored); err != nil {
				t.Fatal(err)
			}
		}, 0},
		{"an idle session that another instance touches", func(_ *testing.T, r *cachingRig, _ row) { r.now = r.now.Add(time.Hour + ms) }, func(t *testing.T, r *cachingRig, stored row) {
			if err := r.tokens.store.Touch(t.Context(), stored.Digest, issuedAt.Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}, 0},
		{"an inactive user", func(_ *testing.T, r *cachingRig, _ row) {
			r.changed.Store(&user{ID: r.ann.ID})
		}, func(_ *testing.T, r *cachingRig, _ row) { r.changed.Store(nil) }, 1},
		{"a superseded login", func(_ *testing.T, r *cachingRig, _ row) {
			r.changed.Store(&user{ID: r.ann.ID, Active: true, Version: r.ann.Version + 1})
		}, func(_ *testing.T, r *cachingRig, _ row) { r.changed.Store(nil) }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newCaching(t, strategy.Config{IdleTimeout: time.Hour, Cache: caching})
			token, issued := r.issue(t)
			c.invalidate(t, r, issued)
			for range 3 {
				r.reads(t, "while it is invalid", token, strategy.ErrInvalidToken)
				r.cost(t, "while it is invalid", 1, c.users)
			}
			if n, _ := r.Cached(); n != 0 {
				t.Errorf("%d entries are cached, want none", n)
			}
			c.restore(t, r, issued)
			r.reads(t, "when it is valid again", token, nil)
		})
	}
}

// Changes of which the cache is not notified take effect after MaxStaleness.
func TestCacheEntriesExpireAfterMaxStaleness(t *testing.T) {
	hour := time.Hour
	for _, c := range []struct {
		name   string
		change func(t *testing.T, r *cachingRig, stored row)
	}{
		{"a token that was deleted", func(t *testing.T, r *cachingRig, stored row) {
			if _, err := r.tokens.store.Delete(t.Context(), stored.Digest); err != nil {
				t.Fatal(err)
			}
		}},
		{"a user who was deactivated", func(_ *testing.T, r *cachingRig, _ row) { r.changed.Store(&user{ID: r.ann.ID}) }},
		{"a user whose token version was raised", func(_ *testing.T, r *cachingRig, _ row) {
			r.changed.Store(&user{ID: r.ann.ID, Active: true, Version: r.ann.Version + 1})
		}},
	} {
		for _, clock := range []struct {
			name string
			to   time.Duration
			used bool
		}{
			{"at once", 0, true},
			{"after three quarters of MaxStaleness", stale * 3 / 4, true},
			{"after MaxStaleness and a nanosecond", stale + 1, false},
			{"a day later", 24 * hour, false},
			{"with a clock set back by a second", -time.Second, true},
			{"with a clock set back by MaxStaleness and a nanosecond", -stale - 1, false},
			{"with a clock set back by an hour", -hour, false},
		} {
			t.Run(c.name+", "+clock.name, func(t *testing.T) {
				r := newCaching(t, strategy.Config{Lifetime: 48 * hour, Cache: caching})
				token, issued := r.cached(t)
				c.change(t, r, issued)
				r.now = r.now.Add(clock.to)
				want := strategy.ErrInvalidToken
				if clock.used {
					want = nil
				}
				r.reads(t, clock.name, token, want)
				r.reads(t, clock.name+", again", token, want)
			})
		}
	}
}

// Sessions that were read together must not be read again together. Otherwise the load of a
// start would hit the database again every MaxStaleness.
func TestCacheEntriesDoNotExpireTogether(t *testing.T) {
	r := newCaching(t, strategy.Config{Cache: caching})
	tokens := make([]string, 200)
	for i := range tokens {
		tokens[i], _ = r.cached(t)
	}
	at := r.now
	r.tokenReads.Store(0)
	for _, c := range []struct {
		after       time.Duration
		least, most int64 // sessions that were read again by then
	}{
		{stale * 3 / 4, 0, 0},
		{stale * 7 / 8, 50, 150},
		{stale + 1, 200, 200},
	} {
		r.now = at.Add(c.after)
		for _, token := range tokens {
			if _, err := r.ReadToken(t.Context(), token); err != nil {
				t.Fatal(err)
			}
		}
		if got := r.tokenReads.Load(); got < c.least || got > c.most {
			t.Errorf("after %v: %d of %d were read again, want %d to %d", c.after, got, len(tokens), c.least, c.most)
		}
	}
}

// clockAfter returns a time whose wall clock and monotonic clock have advanced by different
// amounts, as after the machine was suspended or the wall clock was set.
func clockAfter(t *testing.T, from time.Time, wall, monotonic time.Duration) time.Time {
	t.Helper()
	at := from.Add(wall)
	(*struct {
		wall uint64
		ext  int64
		loc  *time.Location
	})(unsafe.Pointer(&at)).ext += int64(monotonic - wall)
	if at.Sub(from) != monotonic || at.Round(0).Sub(from) != wall {
		t.Fatal("the layout of time.Time has changed")
	}
	return at
}

func TestCacheEntriesExpireByBothClocks(t *testing.T) {
	for _, c := range []struct {
		name            string
		wall, monotonic time.Duration
		used            bool
	}{
		{"both advanced", stale * 3 / 4, stale * 3 / 4, true},
		{"the machine was suspended", time.Hour, time.Second, false},
		{"the wall clock was set back", time.Second - time.Hour, time.Second, false},
		{"the wall clock was set back by the time that has passed", 0, time.Hour, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newCaching(t, strategy.Config{Cache: caching})
			r.now = time.Now()
			token, _ := r.cached(t)
			r.now = clockAfter(t, r.now, c.wall, c.monotonic)
			r.reads(t, "", token, nil)
			if used := r.tokenReads.Load() == 0; used != c.used {
				t.Errorf("the entry was used: %v, want %v", used, c.used)
			}
		})
	}
}

func TestCachedSessionInUseElsewhereIsNotIdle(t *testing.T) {
	cfg := strategy.Config{IdleTimeout: 30 * time.Second, TouchInterval: 20 * time.Second}
	other := newRig(t, cfg)
	cfg.Cache.MaxStaleness = time.Minute
	r := newCaching(t, strategy.Config{})
	r.rig = other.another(t, cfg)
	begin := r.now
	token, _ := r.issue(t)
	r.reads(t, "at first", token, nil)

	other.now = begin.Add(20 * time.Second)
	other.reads(t, "by the other instance", token, nil)
	for _, after := range []time.Duration{30 * time.Second, 30*time.Second + ms, 50 * time.Second} {
		r.now = begin.Add(after)
		if after > 30*time.Second {
			r.users.byID = nil
		}
		session, err := r.ReadToken(t.Context(), token)
		if err != nil {
			t.Fatalf("%v after the login: got %v, want nil", after, err)
		}
		if got := r.row(t, token).LastUsedAt; !session.LastUsedAt.Equal(got) {
			t.Errorf("%v after the login: got LastUsedAt %v, want the row's, %v", after, session.LastUsedAt, got)
		}
	}
	r.now = r.now.Add(30*time.Second + ms)
	r.reads(t, "after the idle timeout", token, strategy.ErrInvalidToken)
}

func TestCachedSessionIsTouchedOncePerInterval(t *testing.T) {
	const interval, step = 5 * time.Second, 100 * ms
	for _, idle := range []time.Duration{0, 8 * time.Second} {
		t.Run(fmt.Sprintf("with an idle timeout of %v", idle), func(t *testing.T) {
			r := newCaching(t, strategy.Config{IdleTimeout: idle, TouchInterval: interval, Cache: strategy.Cache{MaxStaleness: time.Minute}})
			writes := r.countTouches()
			token, _ := r.issue(t)
			begin, steps := r.now, 0
			for r.now = begin; r.now.Sub(begin) <= 45*time.Second; r.now = r.now.Add(step) {
				session, err := r.ReadToken(t.Context(), token)
				if err != nil {
					t.Fatalf("ReadToken after %v: %v", r.now.Sub(begin), err)
				}
				if want := r.row(t, token).LastUsedAt; !session.LastUsedAt.Equal(want) || session.LastUsedAt.Location() != time.UTC && !want.IsZero() {
					t.Fatalf("after %v: got LastUsedAt %v, want the row's, %v", r.now.Sub(begin), session.LastUsedAt, want)
				}
				steps++
			}
			r.cost(t, fmt.Sprintf("%d reads", steps), 1, 1)
			if got, want := writes.Load(), int64(45*time.Second/interval); got != want {
				t.Errorf("got %d touches, want %d", got, want)
			}
		})
	}
}

func TestFailedTouchOfACachedSessionDoesNotCount(t *testing.T) {
	r := newCaching(t, strategy.Config{IdleTimeout: time.Minute, TouchInterval: 5 * time.Second, Cache: strategy.Cache{MaxStaleness: time.Minute}})
	token, _ := r.cached(t)
	down := errors.New("down")
	r.tokens.touch = func(context.Context, string, time.Time) error { return down }
	r.now = r.now.Add(time.Minute)
	if got, err := r.ReadToken(t.Context(), token); err != nil || !got.LastUsedAt.IsZero() {
		t.Errorf("got LastUsedAt %v, %v, want none", got.LastUsedAt, err)
	}
	r.now = r.now.Add(ms)
	r.reads(t, "after the idle timeout", token, strategy.ErrInvalidToken)
}

func TestCacheIsBounded(t *testing.T) {
	const most = 100
	r := newCaching(t, strategy.Config{Cache: strategy.Cache{MaxStaleness: time.Minute, MaxEntries: most}})
	var tokens []string
	for range 10 * most {
		token, _ := r.issue(t)
		tokens = append(tokens, token)
		r.reads(t, "", token, nil)
	}
	if n, limit := r.Cached(); n == 0 || n > most || limit != most {
		t.Errorf("%d entries are cached, of at most %d, want some, and at most %d", n, limit, most)
	}
	for _, token := range tokens {
		r.reads(t, "cached or not", token, nil)
	}
	r = newCaching(t, strategy.Config{Cache: caching})
	if _, limit := r.Cached(); limit != 100_000 {
		t.Errorf("by default at most %d entries are cached, want 100000", limit)
	}
}

func TestCacheIsNotUsedAfterClose(t *testing.T) {
	r := newCaching(t, strategy.Config{Lifetime: lifetime, Cache: caching})
	token, _ := r.cached(t)
	var readers sync.WaitGroup
	var closed atomic.Bool
	for range 4 {
		readers.Go(func() {
			for done := false; !done; {
				done = closed.Load()
				if _, err := r.ReadToken(t.Context(), token); err != nil {
					t.Errorf("ReadToken: %v", err)
				}
			}
		})
	}
	for range 3 {
		readers.Go(r.Close)
	}
	r.Close()
	closed.Store(true)
	readers.Wait()
	r.cost(t, "", r.tokenReads.Load(), r.userReads.Load())
	// After Close, changes of other processes are no longer seen, so cached sessions must not
	// be used.
	for range 2 {
		r.reads(t, "after Close", token, nil)
		r.cost(t, "after Close", 1, 1)
	}
	if err := r.users.Update(t.Context(), r.ann.ID, func(u *user) { u.Active = false }); err != nil {
		t.Fatal(err)
	}
	r.reads(t, "of a user who was deactivated after Close", token, strategy.ErrInvalidToken)
}

func TestCacheConfigErrorsNameTheField(t *testing.T) {
	const field = "Config.Cache."
	for _, c := range []struct {
		name  string
		cache strategy.Cache
		want  string // part of the error; "" means no error
	}{
		{"MaxStaleness alone", strategy.Cache{MaxStaleness: time.Second}, ""},
		{"the least MaxStaleness", strategy.Cache{MaxStaleness: ms}, ""},
		{"the greatest MaxStaleness", strategy.Cache{MaxStaleness: time.Minute}, ""},
		{"everything", strategy.Cache{MaxStaleness: time.Minute, MaxEntries: 1, FollowInterval: 30 * time.Second}, ""},
		{"no MaxStaleness, but MaxEntries", strategy.Cache{MaxEntries: 1}, field + "MaxStaleness"},
		{"no MaxStaleness, but FollowInterval", strategy.Cache{FollowInterval: time.Second}, field + "MaxStaleness"},
		{"a negative MaxStaleness", strategy.Cache{MaxStaleness: -1}, field + "MaxStaleness"},
		{"a MaxStaleness of less than a millisecond", strategy.Cache{MaxStaleness: 1}, field + "MaxStaleness"},
		{"a MaxStaleness of more than a minute", strategy.Cache{MaxStaleness: time.Minute + 1}, field + "MaxStaleness"},
		{"negative MaxEntries", strategy.Cache{MaxStaleness: time.Second, MaxEntries: -1}, field + "MaxEntries"},
		{"a negative FollowInterval", strategy.Cache{MaxStaleness: time.Second, FollowInterval: -1}, field + "FollowInterval"},
		{"a FollowInterval of more than half of MaxStaleness", strategy.Cache{MaxStaleness: time.Second, FollowInterval: 500*ms + 1}, field + "FollowInterval"},
	} {
		t.Run(c.name, func(t *testing.T) {
			db, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), memstore.NewUsers[user](), strategy.Config{Cache: c.cache})
			if c.want == "" {
				if db == nil || err != nil {
					t.Fatalf("got %v, %v, want a Database", db, err)
				}
				db.Close()
			} else if db != nil || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v, want an error that names %s", db, err, c.want)
			}
		})
	}
}

func BenchmarkCache(b *testing.B) {
	users := memstore.NewUsers[user]()
	ann := user{ID: uuid.New(), Active: true}
	tokens := memstore.NewTokens[uuid.UUID]()
	db, err := strategy.NewDatabase(store(struct{ store }{tokens}), users, strategy.Config{Lifetime: lifetime, Cache: strategy.Cache{MaxStaleness: time.Minute}})
	if err := errors.Join(err, users.Insert(b.Context(), ann)); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(db.Close)
	secret, _, err := db.WriteToken(b.Context(), ann)
	if err != nil {
		b.Fatal(err)
	}
	token := secret.Reveal()
	run := func(name string, token string, read func(ctx context.Context, token string) error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			ctx := b.Context()
			for b.Loop() {
				if err := read(ctx, token); (err != nil) != (name == "malformed") {
					b.Fatal(err)
				}
			}
		})
	}
	read := func(ctx context.Context, token string) error { _, err := db.ReadToken(ctx, token); return err }
	run("hit", token, read)
	b.Run("hit parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for ctx := b.Context(); pb.Next(); {
				if _, err := db.ReadToken(ctx, token); err != nil {
					b.Error(err)
				}
			}
		})
	})
	run("miss", token, func(ctx context.Context, token string) error {
		_ = db.UserChanged(ctx, ann.ID, strategy.RevokedNone)
		_, err := db.ReadToken(ctx, token)
		return err
	})
	run("malformed", token[:51], read)
}

// named is the user type of an application.
type named struct {
	account.User[uuid.UUID]
	Name string
}

// BenchmarkCacheEntry measures the heap that an entry takes. Rows and users come from stores
// that do not retain them, as from a database.
func BenchmarkCacheEntry(b *testing.B) {
	const n = 100_000
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = newSecret().Reveal()
	}
	made := &fakeTokens{store: memstore.NewTokens[uuid.UUID](), byToken: func(_ context.Context, digest string) (row, error) {
		return row{
			ID: uuid.Must(uuid.NewV7()), Digest: strings.Clone(digest), UserID: uuid.New(), CreatedAt: time.Now(),
			UserAgent: strings.Clone("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"), ClientIP: strings.Clone("203.0.113.195"),
		}, nil
	}}
	users := namedSource(func(_ context.Context, id uuid.UUID) (named, error) {
		return named{account.User[uuid.UUID]{
			ID: id, Email: strings.Clone("ann.of.green.gables@example.com"), Active: true, Verified: true, CreatedAt: time.Now(),
			HashedPassword: account.NewPasswordHash(strings.Repeat("$", 97)),
		}, strings.Clone("Ann Of Green Gables")}, nil
	})
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var bytes, entries uint64
	for b.Loop() {
		before := heap()
		db, err := strategy.NewDatabase(made, users, strategy.Config{Lifetime: lifetime, Cache: strategy.Cache{MaxStaleness: time.Minute, MaxEntries: n}})
		if err != nil {
			b.Fatal(err)
		}
		for _, token := range tokens {
			if _, err := db.ReadToken(b.Context(), token); err != nil {
				b.Fatal(err)
			}
		}
		cached, _ := db.Cached()
		bytes += heap() - before
		entries += uint64(cached)
		db.Close()
		runtime.KeepAlive(db)
	}
	b.ReportMetric(float64(bytes)/float64(entries), "B/entry")
}

type namedSource func(context.Context, uuid.UUID) (named, error)

func (f namedSource) ByID(ctx context.Context, id uuid.UUID) (named, error) { return f(ctx, id) }
