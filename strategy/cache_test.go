package strategy_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
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
	"github.com/latchkey-go/latchkey/strategy"
	"github.com/latchkey-go/latchkey/strategy/memstore"
)

// stale is the MaxStaleness of most tests.
const stale = 10 * time.Second

var caching = strategy.Cache{MaxStaleness: stale}

// cachingHarness is a harness that counts what is read from its stores, and can
// hold a read that has read.
type cachingHarness struct {
	*harness
	tokenReads, userReads atomic.Int64
	tokenRead, userRead   atomic.Pointer[func(context.Context) error]
	// behind is Ann as she was changed without anybody being told.
	behind atomic.Pointer[user]
}

func newCaching(t testing.TB, cfg strategy.Config) *cachingHarness {
	t.Helper()
	h := &cachingHarness{harness: newHarness(t, cfg)}
	if err := h.users.Update(t.Context(), h.ann.ID, func(u *user) { u.HashedPassword = hashed() }); err != nil {
		t.Fatalf("Update: %v", err)
	}
	h.reload(t)
	h.tokens.byToken = func(ctx context.Context, digest string, createdAfter time.Time) (row, error) {
		h.tokenReads.Add(1)
		r, err := h.tokens.store.ByToken(ctx, digest, createdAfter)
		return r, errors.Join(err, passed(ctx, &h.tokenRead))
	}
	h.users.byID = func(ctx context.Context, id uuid.UUID) (user, error) {
		h.userReads.Add(1)
		u, err := h.users.Users.ByID(ctx, id)
		if changed := h.behind.Load(); changed != nil && err == nil {
			u = *changed
		}
		return u, errors.Join(err, passed(ctx, &h.userRead))
	}
	t.Cleanup(h.Close)
	return h
}

func passed(ctx context.Context, hook *atomic.Pointer[func(context.Context) error]) error {
	if f := hook.Load(); f != nil {
		return (*f)(ctx)
	}
	return nil
}

// hold holds the next read, and no other, where it has read and not yet returned.
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

// cost says how many tokens and users were read since the last call.
func (h *cachingHarness) cost(t testing.TB, what string, tokens, users int64) {
	t.Helper()
	if gotTokens, gotUsers := h.tokenReads.Swap(0), h.userReads.Swap(0); gotTokens != tokens || gotUsers != users {
		t.Errorf("%s: read %d tokens and %d users, want %d and %d", what, gotTokens, gotUsers, tokens, users)
	}
}

// cached issues a token and puts it into the cache.
func (h *cachingHarness) cached(t *testing.T, opts ...strategy.TokenOption) (string, row) {
	t.Helper()
	token, issued := h.issue(t, opts...)
	h.tokenReads.Store(0)
	h.userReads.Store(0)
	h.reads(t, "at first", token, nil)
	h.cost(t, "a miss", 1, 1)
	h.reads(t, "again", token, nil)
	h.cost(t, "a hit", 0, 0)
	return token, issued
}

// read is a read in another goroutine.
func (h *cachingHarness) read(ctx context.Context, token string) <-chan error {
	result := make(chan error, 1)
	go func() {
		_, err := h.ReadToken(ctx, token)
		result <- err
	}()
	return result
}

// hashed is the hash of password.
var hashed = sync.OnceValue(func() account.PasswordHash {
	m, err := account.NewManager(memstore.NewUsers[user](), uuid.New, account.Config{
		Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true,
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

// ending is a way in which a token ends through an instance that may have it cached.
type ending struct {
	name string
	end  func(t *testing.T, h *cachingHarness, token string, r row) error
}

// The endings want MaxSessions to be 2.
var endings = []ending{
	{"DestroyToken", func(t *testing.T, h *cachingHarness, token string, _ row) error {
		return h.DestroyToken(t.Context(), token)
	}},
	{"DestroySession", func(t *testing.T, h *cachingHarness, _ string, r row) error {
		return h.DestroySession(t.Context(), h.ann.ID, r.ID)
	}},
	{"DestroyAll", func(t *testing.T, h *cachingHarness, _ string, _ row) error {
		return h.DestroyAll(t.Context(), h.ann.ID)
	}},
	{"DestroyAll but another", func(t *testing.T, h *cachingHarness, _ string, _ row) error {
		_, other, err := h.WriteToken(t.Context(), h.ann)
		return errors.Join(err, h.DestroyAll(t.Context(), h.ann.ID, other.ID))
	}},
	{"UserSessions.Destroy", func(t *testing.T, h *cachingHarness, _ string, r row) error {
		return h.Of(h.ann).Destroy(t.Context(), r.ID)
	}},
	{"RotateToken", func(t *testing.T, h *cachingHarness, token string, _ row) error {
		_, _, err := h.RotateToken(t.Context(), token)
		return err
	}},
	{"eviction by MaxSessions", func(t *testing.T, h *cachingHarness, _ string, _ row) error {
		_, _, first := h.WriteToken(t.Context(), h.ann)
		_, _, second := h.WriteToken(t.Context(), h.ann)
		return errors.Join(first, second)
	}},
	{"Replacing", func(t *testing.T, h *cachingHarness, token string, _ row) error {
		_, _, err := h.WriteToken(t.Context(), h.ann, strategy.Replacing(token))
		return err
	}},
	{"ReplacePassword with a not-before", func(t *testing.T, h *cachingHarness, _ string, r row) error {
		return h.users.ReplacePassword(t.Context(), h.ann.ID, h.ann.HashedPassword, "new", r.CreatedAt.Add(ms))
	}},
	{"Apply of inactive", func(t *testing.T, h *cachingHarness, _ string, _ row) error {
		return h.users.Apply(t.Context(), h.ann.ID, account.Change{Active: new(bool)})
	}},
	{"Apply of a not-before", func(t *testing.T, h *cachingHarness, _ string, r row) error {
		return h.users.Apply(t.Context(), h.ann.ID, account.Change{NotBefore: r.CreatedAt.Add(ms)})
	}},
	{"Update of the user", func(t *testing.T, h *cachingHarness, _ string, _ row) error {
		return h.users.Update(t.Context(), h.ann.ID, func(u *user) { u.Active = false })
	}},
	{"Delete of the user", func(t *testing.T, h *cachingHarness, _ string, _ row) error {
		return h.users.Delete(t.Context(), h.ann.ID)
	}},
	{"Manager.ChangePassword", func(t *testing.T, h *cachingHarness, _ string, _ row) error {
		_, err := h.manager(t).ChangePassword(t.Context(), h.ann.ID, password, changed)
		return err
	}},
	{"Manager.Deactivate", func(t *testing.T, h *cachingHarness, _ string, _ row) error {
		return h.manager(t).Deactivate(t.Context(), h.ann.ID)
	}},
	{"Manager.RevokeTokens", func(t *testing.T, h *cachingHarness, _ string, _ row) error {
		return h.manager(t).RevokeTokens(t.Context(), h.ann.ID)
	}},
	{"ForgetUser after a change of the user by hand", func(t *testing.T, h *cachingHarness, _ string, _ row) error {
		inactive := h.ann
		inactive.Active = false
		h.behind.Store(&inactive)
		return h.ForgetUser(t.Context(), h.ann.ID)
	}},
	{"ForgetUser after their tokens were deleted by hand", func(t *testing.T, h *cachingHarness, _ string, _ row) error {
		_, err := h.tokens.store.DeleteByUser(t.Context(), h.ann.ID)
		return errors.Join(err, h.ForgetUser(t.Context(), h.ann.ID))
	}},
}

func TestTheZeroCacheIsNone(t *testing.T) {
	h := newCaching(t, strategy.Config{Lifetime: lifetime})
	token, _ := h.issue(t)
	for range 3 {
		h.reads(t, "", token, nil)
		h.cost(t, "without a cache", 1, 1)
	}
	if err := h.ForgetUser(t.Context(), h.ann.ID); err != nil {
		t.Errorf("ForgetUser: %v", err)
	}
	h.Close()
	h.reads(t, "after Close", token, nil)
}

func TestAHitAsksNoStore(t *testing.T) {
	h := newCaching(t, strategy.Config{Lifetime: lifetime, Cache: caching})
	token, _ := h.cached(t, strategy.WithName("laptop"), strategy.WithScopes("a", "b"), strategy.WithLifetime(time.Minute))
	other, _ := h.issue(t)
	uncached := newCaching(t, strategy.Config{Lifetime: lifetime})
	uncached.harness = h.another(t, strategy.Config{Lifetime: lifetime})
	want, err := uncached.ReadToken(t.Context(), token)
	if err != nil {
		t.Fatalf("ReadToken without the cache: %v", err)
	}
	h.cost(t, "a read without the cache", 1, 1)

	calls := h.tokens.calls.Load()
	for range 100 {
		if got, err := h.ReadToken(t.Context(), token); !reflect.DeepEqual(got, want) || err != nil {
			t.Fatalf("ReadToken: got %+v, %v\nwant %+v", got, err, want)
		}
		if got, err := h.ReadTokenInfo(t.Context(), token); !reflect.DeepEqual(got, want.SessionInfo) || err != nil {
			t.Fatalf("ReadTokenInfo: got %+v, %v\nwant %+v", got, err, want.SessionInfo)
		}
	}
	h.cost(t, "200 hits", 0, 0)
	if got := h.tokens.calls.Load() - calls; got != 0 {
		t.Errorf("the store was called %d times, want 0", got)
	}
	h.reads(t, "of the user's other token", other, nil)
	h.cost(t, "the first read of the other token", 1, 1)
}

func TestATokenReadWithoutItsUserIsReadAgainWithThem(t *testing.T) {
	h := newCaching(t, strategy.Config{Cache: caching})
	token, issued := h.issue(t)
	info := func(when string) {
		t.Helper()
		if got, err := h.ReadTokenInfo(t.Context(), token); got.ID != issued.ID || err != nil {
			t.Errorf("ReadTokenInfo %s: got %+v, %v, want the session", when, got, err)
		}
	}
	info("at first")
	h.cost(t, "the token alone", 1, 0)
	info("again")
	h.cost(t, "the token alone, again", 0, 0)
	if got, err := h.ReadToken(t.Context(), token); got.User != h.ann || err != nil {
		t.Errorf("ReadToken: got %+v, %v, want Ann", got, err)
	}
	h.cost(t, "the token with its user", 1, 1)
	info("after ReadToken")
	h.reads(t, "again", token, nil)
	h.cost(t, "both, again", 0, 0)
}

// A reading of the token alone is none of its user, also where it is under way.
func TestAReadWithoutTheUserIsNotJoinedByOneWithThem(t *testing.T) {
	hashed()
	synctest.Test(t, func(t *testing.T) {
		h := newCaching(t, strategy.Config{Cache: caching})
		token, _ := h.issue(t)
		release := hold(&h.tokenRead)
		alone := make(chan error, 1)
		go func() {
			_, err := h.ReadTokenInfo(t.Context(), token)
			alone <- err
		}()
		synctest.Wait()
		if got, err := h.ReadToken(t.Context(), token); got.User != h.ann || err != nil {
			t.Errorf("ReadToken: got %+v, %v, want Ann", got, err)
		}
		release()
		if err := <-alone; err != nil {
			t.Errorf("ReadTokenInfo: %v", err)
		}
	})
}

func TestLimitsOfCachedSessionsHoldToTheMillisecond(t *testing.T) {
	const idle = time.Hour
	for _, c := range []struct {
		name   string
		cfg    strategy.Config
		opts   []strategy.TokenOption
		limit  time.Duration
		reason strategy.Reason
	}{
		{"the lifetime", strategy.Config{Lifetime: time.Hour}, nil, time.Hour, strategy.ReasonUnknown},
		{"the lifetime of a token with scopes", strategy.Config{Lifetime: time.Hour}, []strategy.TokenOption{strategy.WithScopes("a")}, time.Hour, strategy.ReasonUnknown},
		{"a lifetime of its own", strategy.Config{Lifetime: 24 * time.Hour}, []strategy.TokenOption{strategy.WithLifetime(time.Hour)}, time.Hour, strategy.ReasonExpired},
		{"a lifetime of its own where others live for ever", strategy.Config{}, []strategy.TokenOption{strategy.WithLifetime(time.Minute)}, time.Minute, strategy.ReasonExpired},
		{"the idle timeout", strategy.Config{IdleTimeout: idle, TouchInterval: idle - ms}, nil, idle, strategy.ReasonIdle},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, withUser := range []bool{true, false} {
				for _, d := range []time.Duration{-ms, -1, 0, 1, ms - 1, ms, time.Second} {
					c.cfg.Cache = caching
					h := newCaching(t, c.cfg)
					h.now = issuedAt // whole milliseconds: the last of them counts to its end
					token, _ := h.issue(t, c.opts...)
					read := func() error {
						if withUser {
							_, err := h.ReadToken(t.Context(), token)
							return err
						}
						_, err := h.ReadTokenInfo(t.Context(), token)
						return err
					}
					h.now = issuedAt.Add(c.limit - stale/2)
					if err := read(); err != nil {
						t.Fatalf("before the limit: %v", err)
					}
					h.tokenReads.Store(0)
					h.events.take()
					h.now = issuedAt.Add(c.limit + d)
					err := read()
					if d < ms {
						if reads := h.tokenReads.Load(); err != nil || reads != 0 {
							t.Errorf("%v from the limit: got %v after %d reads, want a hit", d, err, reads)
						}
						continue
					}
					if !errors.Is(err, strategy.ErrInvalidToken) {
						t.Errorf("%v beyond the limit: got %v, want ErrInvalidToken", d, err)
					}
					if got := h.events.take(); len(got) != 1 || got[0].Kind != strategy.EventTokenDenied || got[0].Reason != c.reason {
						t.Errorf("%v beyond the limit: got the events %+v, want one with the reason %s", d, got, c.reason)
					}
				}
			}
		})
	}
}

func TestTheConfiguredNotBeforeHoldsWithTheCache(t *testing.T) {
	for _, d := range []time.Duration{-ms, 0, 1, ms} {
		h := newCaching(t, strategy.Config{})
		token, _ := h.issue(t)
		h.harness = h.another(t, strategy.Config{Cache: caching, NotBefore: issuedAt.Add(d)})
		var want error
		if d > 0 {
			want = strategy.ErrInvalidToken
		}
		for range 3 {
			h.reads(t, fmt.Sprintf("with a not-before %v from its login", d), token, want)
		}
		h.Close()
	}
}

func TestWhatEndsHereIsSeenByTheNextRead(t *testing.T) {
	for _, e := range endings {
		t.Run(e.name, func(t *testing.T) {
			h := newCaching(t, strategy.Config{Lifetime: lifetime, MaxSessions: 2, Cache: caching})
			token, issued := h.cached(t)
			if err := e.end(t, h, token, issued); err != nil {
				t.Fatalf("got %v, want nil", err)
			}
			h.reads(t, "after it", token, strategy.ErrInvalidToken)
			h.reads(t, "again", token, strategy.ErrInvalidToken)
		})
	}
}

// A read that has read when a session ends must not bring it back.
func TestAReadInFlightRevivesNothing(t *testing.T) {
	hashed()
	for _, e := range endings {
		for _, at := range []string{"token", "user"} {
			t.Run(e.name+", with the "+at+" read", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newCaching(t, strategy.Config{Lifetime: lifetime, MaxSessions: 2, Cache: caching})
					token, issued := h.issue(t)
					release := hold(map[string]*atomic.Pointer[func(context.Context) error]{"token": &h.tokenRead, "user": &h.userRead}[at])
					before := h.read(t.Context(), token)
					synctest.Wait()
					if err := e.end(t, h, token, issued); err != nil {
						t.Fatalf("got %v, want nil", err)
					}
					after := h.read(t.Context(), token)
					synctest.Wait() // it has its answer, or waits for that of the other
					release()
					if err := <-before; err != nil && !errors.Is(err, strategy.ErrInvalidToken) {
						t.Errorf("the read under way: got %v, want nil or ErrInvalidToken", err)
					}
					if err := <-after; !errors.Is(err, strategy.ErrInvalidToken) {
						t.Errorf("a read that began afterwards: got %v, want ErrInvalidToken", err)
					}
					for range 2 {
						h.reads(t, "when all is over", token, strategy.ErrInvalidToken)
					}
				})
			})
		}
	}
}

// The store can have done what it says it could not.
func TestAFailedRevocationIsReadAgain(t *testing.T) {
	down := errors.New("down")
	for _, e := range endings[:8] {
		for _, lost := range []bool{false, true} {
			name := e.name + ", not done"
			if lost {
				name = e.name + ", done and the answer lost"
			}
			t.Run(name, func(t *testing.T) {
				h := newCaching(t, strategy.Config{Lifetime: lifetime, MaxSessions: 2, Cache: caching})
				token, issued := h.cached(t)
				s := h.tokens
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
				if err := e.end(t, h, token, issued); !errors.Is(err, down) {
					t.Fatalf("got %v, want the failure", err)
				}
				h.tokenReads.Store(0)
				if lost {
					h.reads(t, "after it", token, strategy.ErrInvalidToken)
				} else {
					h.reads(t, "after it", token, nil)
				}
				if got := h.tokenReads.Load(); got != 1 {
					t.Errorf("after it: read the token %d times, want 1", got)
				}
			})
		}
	}
}

func TestOnceASessionHasEndedNoReadFromTheCacheSucceeds(t *testing.T) {
	const rounds, readers = 12, 6
	for _, e := range endings {
		t.Run(e.name, func(t *testing.T) {
			for range rounds {
				h := newCaching(t, strategy.Config{Lifetime: lifetime, MaxSessions: 2, Cache: caching})
				// Some reads take their time after they have read.
				var n atomic.Int64
				slow := func(context.Context) error {
					for range n.Add(1) % 5 * 20 {
						runtime.Gosched()
					}
					return nil
				}
				h.tokenRead.Store(&slow)
				h.userRead.Store(&slow)
				token, issued := h.issue(t)
				var ended atomic.Bool
				var late, served atomic.Int64
				var wg sync.WaitGroup
				for i := range readers {
					wg.Go(func() {
						for after := 0; after < 20; {
							done := ended.Load()
							_, err := h.ReadToken(t.Context(), token)
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
							if i == 0 { // makes the others read again
								_ = h.ForgetUser(t.Context(), h.ann.ID)
							}
						}
					})
				}
				for served.Load() < readers {
					runtime.Gosched()
				}
				if err := e.end(t, h, token, issued); err != nil {
					t.Errorf("got %v, want nil", err)
				}
				ended.Store(true)
				wg.Wait()
				if got := late.Load(); got != 0 {
					t.Fatalf("%d reads that began after the end succeeded, want 0", got)
				}
			}
		})
	}
}

func TestManyMissesAtOnceAreOneRead(t *testing.T) {
	const n = 200
	hashed()
	for _, c := range []struct {
		name string
		hook func(*cachingHarness) *atomic.Pointer[func(context.Context) error]
	}{
		{"while the token is read", func(h *cachingHarness) *atomic.Pointer[func(context.Context) error] { return &h.tokenRead }},
		{"while the user is read", func(h *cachingHarness) *atomic.Pointer[func(context.Context) error] { return &h.userRead }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newCaching(t, strategy.Config{Lifetime: lifetime, Cache: caching})
				token, issued := h.issue(t)
				release := hold(c.hook(h))
				var wg sync.WaitGroup
				for range n {
					wg.Go(func() {
						if got, err := h.ReadToken(t.Context(), token); got.ID != issued.ID || got.User != h.ann || err != nil {
							t.Errorf("ReadToken: got %+v, %v, want Ann's session", got, err)
						}
					})
				}
				synctest.Wait()
				release()
				wg.Wait()
				h.cost(t, "200 misses", 1, 1)
			})
		})
	}
}

func TestAReaderWhoGivesUpFailsNoOther(t *testing.T) {
	const others = 20
	hashed()
	for _, c := range []struct {
		name   string
		panics bool
	}{{"cancelled", false}, {"panicking", true}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newCaching(t, strategy.Config{Lifetime: lifetime, Cache: caching})
				token, _ := h.issue(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				release := hold(&h.tokenRead)
				if c.panics {
					held, first := *h.tokenRead.Load(), new(atomic.Bool)
					panics := func(ctx context.Context) error {
						mine := first.CompareAndSwap(false, true)
						if err := held(ctx); err != nil || !mine {
							return err
						}
						panic("the driver")
					}
					h.tokenRead.Store(&panics)
				}
				leader := make(chan error, 1)
				go func() {
					defer func() {
						if p := recover(); p != nil {
							leader <- fmt.Errorf("panic: %v", p)
						}
					}()
					_, err := h.ReadToken(ctx, token)
					leader <- err
				}()
				synctest.Wait()
				results := make([]<-chan error, others)
				for i := range results {
					results[i] = h.read(t.Context(), token)
				}
				synctest.Wait()
				if c.panics {
					release()
				} else {
					cancel()
				}
				if err := <-leader; err == nil {
					t.Error("the first reader: got no error, want one")
				}
				for _, result := range results {
					if err := <-result; err != nil {
						t.Errorf("another reader: got %v, want nil", err)
					}
				}
				h.cost(t, "the read that ended and that of the others", 2, 1)
			})
		})
	}
}

func TestWhoWaitsForAnothersReadCanGiveUp(t *testing.T) {
	hashed()
	synctest.Test(t, func(t *testing.T) {
		h := newCaching(t, strategy.Config{Cache: caching})
		token, _ := h.issue(t)
		release := hold(&h.userRead)
		leader := h.read(t.Context(), token)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := <-h.read(ctx, token); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, strategy.ErrInvalidToken) {
			t.Errorf("who waits: got %v, want context.DeadlineExceeded", err)
		}
		release()
		if err := <-leader; err != nil {
			t.Errorf("who reads: got %v, want nil", err)
		}
	})
}

// Each request that is denied is an event of its own, with its client.
func TestDenialsOfOneReadAreAnEventEach(t *testing.T) {
	hashed()
	for _, c := range []struct {
		name   string
		spoil  func(t *testing.T, h *cachingHarness, token string)
		hook   func(h *cachingHarness) *atomic.Pointer[func(context.Context) error]
		reason strategy.Reason
	}{
		{"an unknown token", func(t *testing.T, h *cachingHarness, token string) {
			if err := h.DestroyToken(t.Context(), token); err != nil {
				t.Fatal(err)
			}
		}, func(h *cachingHarness) *atomic.Pointer[func(context.Context) error] { return &h.tokenRead }, strategy.ReasonUnknown},
		{"an inactive user", func(t *testing.T, h *cachingHarness, _ string) {
			if err := h.users.Update(t.Context(), h.ann.ID, func(u *user) { u.Active = false }); err != nil {
				t.Fatal(err)
			}
		}, func(h *cachingHarness) *atomic.Pointer[func(context.Context) error] { return &h.userRead }, strategy.ReasonUserInactive},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newCaching(t, strategy.Config{Lifetime: lifetime, Cache: caching})
				token, issued := h.issue(t)
				c.spoil(t, h, token)
				h.events.take()
				release := hold(c.hook(h))
				want := []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}
				var results []<-chan error
				for _, addr := range want {
					results = append(results, h.read(strategy.ContextWithClientAddr(t.Context(), addr), token))
				}
				synctest.Wait()
				release()
				for _, result := range results {
					if err := <-result; !errors.Is(err, strategy.ErrInvalidToken) {
						t.Errorf("got %v, want ErrInvalidToken", err)
					}
				}
				h.tokenReads.Add(-1)
				if got := h.tokenReads.Load(); got != 0 {
					t.Errorf("read the token %d more times than once", got)
				}
				var addrs []string
				for _, e := range h.events.take() {
					addrs = append(addrs, e.ClientAddr)
					found := c.reason != strategy.ReasonUnknown
					if e.Kind != strategy.EventTokenDenied || e.Reason != c.reason || found != (e.SessionID == issued.ID) || found != (e.UserID == h.ann.ID) {
						t.Errorf("got the event %+v, want token.denied with the reason %s", e, c.reason)
					}
				}
				if slices.Sort(addrs); !slices.Equal(addrs, want) {
					t.Errorf("got events of %v, want one of each of %v", addrs, want)
				}
			})
		})
	}
}

// What is good by now is not denied for what a read found before.
func TestAReadFromBeforeIsNotJoinedByWhoIsGoodSince(t *testing.T) {
	hashed()
	synctest.Test(t, func(t *testing.T) {
		h := newCaching(t, strategy.Config{Lifetime: lifetime, Cache: caching})
		token, _ := h.issue(t)
		if err := h.users.Update(t.Context(), h.ann.ID, func(u *user) { u.Active = false }); err != nil {
			t.Fatal(err)
		}
		release := hold(&h.userRead)
		before := h.read(t.Context(), token)
		synctest.Wait()
		if err := h.manager(t).Activate(t.Context(), h.ann.ID); err != nil {
			t.Fatalf("Activate: %v", err)
		}
		after := h.read(t.Context(), token)
		synctest.Wait()
		release()
		if err := <-before; !errors.Is(err, strategy.ErrInvalidToken) {
			t.Errorf("the read from before: got %v, want ErrInvalidToken", err)
		}
		if err := <-after; err != nil {
			t.Errorf("a read that began after the account was activated: got %v, want nil", err)
		}
		h.reads(t, "again", token, nil)
	})
}

// Who joins a read that is under way has limits of their own.
func TestWhoJoinsAReadIsCheckedByTheirOwnClock(t *testing.T) {
	hashed()
	for _, c := range []struct {
		name   string
		cfg    strategy.Config
		opts   []strategy.TokenOption
		first  time.Duration // when the one begins, after the token was issued
		second time.Duration // when the other joins
		spoil  func(ctx context.Context, h *cachingHarness, token string) error
	}{
		{"the lifetime ends", strategy.Config{Lifetime: lifetime}, nil, lifetime, lifetime + ms, nil},
		{"its own lifetime ends", strategy.Config{}, []strategy.TokenOption{strategy.WithLifetime(lifetime)}, lifetime, lifetime + ms, nil},
		{"the idle time ends", strategy.Config{IdleTimeout: time.Hour, TouchInterval: time.Hour - ms}, nil, time.Hour - 2*ms, time.Hour + ms, nil},
		{"the read takes longer than MaxStaleness", strategy.Config{}, nil, time.Minute, time.Minute + stale + 1, func(ctx context.Context, h *cachingHarness, token string) error {
			_, err := h.tokens.store.Delete(ctx, sha256Of(token))
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.cfg.Cache = caching
				h := newCaching(t, c.cfg)
				h.now = issuedAt
				token, _ := h.issue(t, c.opts...)
				h.now = issuedAt.Add(c.first)
				release := hold(&h.userRead)
				first := h.read(t.Context(), token)
				synctest.Wait()
				h.now = issuedAt.Add(c.second)
				if c.spoil != nil {
					if err := c.spoil(t.Context(), h, token); err != nil {
						t.Fatal(err)
					}
				}
				second := h.read(t.Context(), token)
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

// Where the database is slower than MaxStaleness, requests still share its answers:
// reading one after the other they would wait for ever.
func TestASlowDatabaseMakesNoQueue(t *testing.T) {
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
		tokens.byToken = func(ctx context.Context, digest string, after time.Time) (row, error) {
			time.Sleep(time.Second)
			return tokens.store.ByToken(ctx, digest, after)
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
			t.Errorf("%d reads took %v, want at most the time of a few", n, took)
		}
	})
}

func TestFailuresAreNotCached(t *testing.T) {
	down := errors.New("down")
	fails := func(context.Context) error { return down }
	h := newCaching(t, strategy.Config{Lifetime: lifetime, Cache: caching})
	token, _ := h.issue(t)
	for range 2 {
		h.tokenRead.Store((*func(context.Context) error)(&fails))
		h.reads(t, "without the tokens", token, down)
		h.cost(t, "without the tokens", 1, 0)
	}
	h.tokenRead.Store(nil)
	for range 2 {
		h.userRead.Store((*func(context.Context) error)(&fails))
		h.reads(t, "without the users", token, down)
		h.cost(t, "without the users", 1, 1)
	}
	h.userRead.Store(nil)
	h.reads(t, "after the failures", token, nil)
	h.cost(t, "after the failures", 1, 1)
	h.reads(t, "again", token, nil)
	h.cost(t, "again", 0, 0)
}

func TestDenialsAreNotCached(t *testing.T) {
	for _, c := range []struct {
		name        string
		spoil, mend func(t *testing.T, h *cachingHarness, r row)
		users       int64
	}{
		{"an unknown token", func(t *testing.T, h *cachingHarness, r row) {
			if _, err := h.tokens.store.Delete(t.Context(), r.Digest); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, h *cachingHarness, r row) {
			if err := h.tokens.store.Insert(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}, 0},
		{"an idle session that another instance touches", func(_ *testing.T, h *cachingHarness, _ row) { h.now = h.now.Add(time.Hour + ms) }, func(t *testing.T, h *cachingHarness, r row) {
			if err := h.tokens.store.Touch(t.Context(), r.Digest, issuedAt.Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}, 0},
		{"an inactive user", func(_ *testing.T, h *cachingHarness, _ row) {
			h.behind.Store(&user{ID: h.ann.ID})
		}, func(_ *testing.T, h *cachingHarness, _ row) { h.behind.Store(nil) }, 1},
		{"a superseded login", func(_ *testing.T, h *cachingHarness, r row) {
			h.behind.Store(&user{ID: h.ann.ID, Active: true, NotBefore: r.CreatedAt.Add(ms)})
		}, func(_ *testing.T, h *cachingHarness, _ row) { h.behind.Store(nil) }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newCaching(t, strategy.Config{IdleTimeout: time.Hour, Cache: caching})
			token, issued := h.issue(t)
			c.spoil(t, h, issued)
			for range 3 {
				h.reads(t, "while it is not good", token, strategy.ErrInvalidToken)
				h.cost(t, "while it is not good", 1, c.users)
			}
			if n, _ := h.Cached(); n != 0 {
				t.Errorf("%d entries are cached, want none", n)
			}
			c.mend(t, h, issued)
			h.reads(t, "since it is good", token, nil)
		})
	}
}

// What nobody told the cache of is seen after MaxStaleness.
func TestEntriesAreReadAgainAfterMaxStaleness(t *testing.T) {
	hour := time.Hour
	for _, c := range []struct {
		name   string
		behind func(t *testing.T, h *cachingHarness, r row)
	}{
		{"a token that was deleted", func(t *testing.T, h *cachingHarness, r row) {
			if _, err := h.tokens.store.Delete(t.Context(), r.Digest); err != nil {
				t.Fatal(err)
			}
		}},
		{"a user who was deactivated", func(_ *testing.T, h *cachingHarness, _ row) { h.behind.Store(&user{ID: h.ann.ID}) }},
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
			{"by a clock that was set back by a second", -time.Second, true},
			{"by a clock that was set back by MaxStaleness and a nanosecond", -stale - 1, false},
			{"by a clock that was set back by an hour", -hour, false},
		} {
			t.Run(c.name+", "+clock.name, func(t *testing.T) {
				h := newCaching(t, strategy.Config{Lifetime: 48 * hour, Cache: caching})
				token, issued := h.cached(t)
				c.behind(t, h, issued)
				h.now = h.now.Add(clock.to)
				want := strategy.ErrInvalidToken
				if clock.used {
					want = nil
				}
				h.reads(t, clock.name, token, want)
				h.reads(t, clock.name+", again", token, want)
			})
		}
	}
}

// What was read at once is not read again at once: else each start of a busy
// application would come back to the database once in MaxStaleness.
func TestEntriesAreNotAllReadAgainAtOnce(t *testing.T) {
	h := newCaching(t, strategy.Config{Cache: caching})
	tokens := make([]string, 200)
	for i := range tokens {
		tokens[i], _ = h.cached(t)
	}
	at := h.now
	h.tokenReads.Store(0)
	for _, c := range []struct {
		after       time.Duration
		least, most int64 // of them were read again by then
	}{
		{stale * 3 / 4, 0, 0},
		{stale * 7 / 8, 50, 150},
		{stale + 1, 200, 200},
	} {
		h.now = at.Add(c.after)
		for _, token := range tokens {
			if _, err := h.ReadToken(t.Context(), token); err != nil {
				t.Fatal(err)
			}
		}
		if got := h.tokenReads.Load(); got < c.least || got > c.most {
			t.Errorf("after %v: %d of %d were read again, want %d to %d", c.after, got, len(tokens), c.least, c.most)
		}
	}
}

// clockAfter is what a clock says that goes on for some time, of which the monotonic
// reading takes only part: the machine was suspended, or the wall clock set.
func clockAfter(t *testing.T, from time.Time, wall, monotonic time.Duration) time.Time {
	t.Helper()
	at := from.Add(wall)
	(*struct {
		wall uint64
		ext  int64
		loc  *time.Location
	})(unsafe.Pointer(&at)).ext += int64(monotonic - wall)
	if at.Sub(from) != monotonic || at.Round(0).Sub(from) != wall {
		t.Fatal("time.Time is made in another way than it was")
	}
	return at
}

func TestEntriesAreFreshByBothClocks(t *testing.T) {
	for _, c := range []struct {
		name            string
		wall, monotonic time.Duration
		used            bool
	}{
		{"both went on", stale * 3 / 4, stale * 3 / 4, true},
		{"the machine was suspended", time.Hour, time.Second, false},
		{"the wall clock was set back", time.Second - time.Hour, time.Second, false},
		{"the wall clock was set back by as much as has passed", 0, time.Hour, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newCaching(t, strategy.Config{Cache: caching})
			h.now = time.Now()
			token, _ := h.cached(t)
			h.now = clockAfter(t, h.now, c.wall, c.monotonic)
			h.reads(t, "", token, nil)
			if used := h.tokenReads.Load() == 0; used != c.used {
				t.Errorf("the entry was used: %v, want %v", used, c.used)
			}
		})
	}
}

func TestAnEntryThatAnotherInstanceTouchedIsNotIdle(t *testing.T) {
	cfg := strategy.Config{IdleTimeout: 30 * time.Second, TouchInterval: 20 * time.Second}
	other := newHarness(t, cfg)
	cfg.Cache.MaxStaleness = time.Minute
	h := newCaching(t, strategy.Config{})
	h.harness = other.another(t, cfg)
	begin := h.now
	token, _ := h.issue(t)
	h.reads(t, "at first", token, nil)

	other.now = begin.Add(20 * time.Second)
	other.reads(t, "by the other", token, nil)
	for _, after := range []time.Duration{30 * time.Second, 30*time.Second + ms, 50 * time.Second} {
		h.now = begin.Add(after)
		if after > 30*time.Second {
			h.users.byID = nil
		}
		session, err := h.ReadToken(t.Context(), token)
		if err != nil {
			t.Fatalf("%v after the login: got %v, want nil", after, err)
		}
		if got := h.row(t, token).LastUsedAt; !session.LastUsedAt.Equal(got) {
			t.Errorf("%v after the login: got LastUsedAt %v, want the row's, %v", after, session.LastUsedAt, got)
		}
	}
	h.now = h.now.Add(30*time.Second + ms)
	h.reads(t, "when nobody has used it for too long", token, strategy.ErrInvalidToken)
}

func TestTouchesFromTheCacheAreOneWriteAnInterval(t *testing.T) {
	const interval, step = 5 * time.Second, 100 * ms
	for _, idle := range []time.Duration{0, 8 * time.Second} {
		t.Run(fmt.Sprintf("with an idle timeout of %v", idle), func(t *testing.T) {
			h := newCaching(t, strategy.Config{IdleTimeout: idle, TouchInterval: interval, Cache: strategy.Cache{MaxStaleness: time.Minute}})
			writes := h.countTouches()
			token, _ := h.issue(t)
			begin, steps := h.now, 0
			for h.now = begin; h.now.Sub(begin) <= 45*time.Second; h.now = h.now.Add(step) {
				session, err := h.ReadToken(t.Context(), token)
				if err != nil {
					t.Fatalf("ReadToken after %v: %v", h.now.Sub(begin), err)
				}
				if want := h.row(t, token).LastUsedAt; !session.LastUsedAt.Equal(want) || session.LastUsedAt.Location() != time.UTC && !want.IsZero() {
					t.Fatalf("after %v: got LastUsedAt %v, want the row's, %v", h.now.Sub(begin), session.LastUsedAt, want)
				}
				steps++
			}
			h.cost(t, fmt.Sprintf("%d reads", steps), 1, 1)
			if got, want := writes.Load(), int64(45*time.Second/interval); got != want {
				t.Errorf("got %d touches, want %d", got, want)
			}
		})
	}
}

func TestAFailedTouchFromTheCacheIsNoUse(t *testing.T) {
	h := newCaching(t, strategy.Config{IdleTimeout: time.Minute, TouchInterval: 5 * time.Second, Cache: strategy.Cache{MaxStaleness: time.Minute}})
	token, _ := h.cached(t)
	down := errors.New("down")
	h.tokens.touch = func(context.Context, string, time.Time) error { return down }
	h.now = h.now.Add(time.Minute)
	if got, err := h.ReadToken(t.Context(), token); err != nil || !got.LastUsedAt.IsZero() {
		t.Errorf("got LastUsedAt %v, %v, want none", got.LastUsedAt, err)
	}
	h.now = h.now.Add(ms)
	h.reads(t, "after the idle timeout", token, strategy.ErrInvalidToken)
}

// A handler that changes its session must not change those of other requests.
func TestScopesAreOfOneRequest(t *testing.T) {
	hashed()
	synctest.Test(t, func(t *testing.T) {
		h := newCaching(t, strategy.Config{Cache: caching})
		token, _ := h.issue(t, strategy.WithScopes("read", "write"))
		read := func() []string {
			got, err := h.ReadToken(t.Context(), token)
			if err != nil {
				t.Errorf("ReadToken: %v", err)
			}
			info, err := h.ReadTokenInfo(t.Context(), token)
			if err != nil {
				t.Errorf("ReadTokenInfo: %v", err)
			}
			scopes := slices.Concat(got.Scopes, info.Scopes)
			for _, mine := range [][]string{got.Scopes, info.Scopes} {
				mine[0] = "admin"
			}
			return scopes
		}
		want := []string{"read", "write", "read", "write"}
		release := hold(&h.tokenRead)
		results := make(chan []string, 3)
		for range cap(results) {
			go func() { results <- read() }()
		}
		synctest.Wait()
		release()
		for range cap(results) {
			if got := <-results; !slices.Equal(got, want) {
				t.Errorf("of one read: got %q, want %q", got, want)
			}
		}
		if got := read(); !slices.Equal(got, want) {
			t.Errorf("from the cache: got %q, want %q", got, want)
		}
		h.reads(t, "", token, nil)

		login, _ := h.issue(t)
		for range 2 {
			if got, err := h.ReadToken(t.Context(), login); got.Scopes != nil || err != nil {
				t.Errorf("a login: got the scopes %#v, %v, want nil", got.Scopes, err)
			}
		}
	})
}

func TestTheCacheIsBounded(t *testing.T) {
	const most = 100
	h := newCaching(t, strategy.Config{Cache: strategy.Cache{MaxStaleness: time.Minute, MaxEntries: most}})
	var tokens []string
	for range 10 * most {
		token, _ := h.issue(t)
		tokens = append(tokens, token)
		h.reads(t, "", token, nil)
	}
	if n, limit := h.Cached(); n == 0 || n > most || limit != most {
		t.Errorf("%d entries are cached, of at most %d, want some, and at most %d", n, limit, most)
	}
	for _, token := range tokens {
		h.reads(t, "cached or not", token, nil)
	}
	h = newCaching(t, strategy.Config{Cache: caching})
	if _, limit := h.Cached(); limit != 100_000 {
		t.Errorf("by default at most %d entries are cached, want 100000", limit)
	}
}

func TestAfterCloseTheCacheIsNotUsed(t *testing.T) {
	h := newCaching(t, strategy.Config{Lifetime: lifetime, Cache: caching})
	token, _ := h.cached(t)
	var readers sync.WaitGroup
	var closed atomic.Bool
	for range 4 {
		readers.Go(func() {
			for done := false; !done; {
				done = closed.Load()
				if _, err := h.ReadToken(t.Context(), token); err != nil {
					t.Errorf("ReadToken: %v", err)
				}
			}
		})
	}
	for range 3 {
		readers.Go(h.Close)
	}
	h.Close()
	closed.Store(true)
	readers.Wait()
	h.cost(t, "", h.tokenReads.Load(), h.userReads.Load())
	// Nobody tells of changes to users any more: what was cached may not be used.
	for range 2 {
		h.reads(t, "after Close", token, nil)
		h.cost(t, "after Close", 1, 1)
	}
	if err := h.users.Update(t.Context(), h.ann.ID, func(u *user) { u.Active = false }); err != nil {
		t.Fatal(err)
	}
	h.reads(t, "of a user who was deactivated after Close", token, strategy.ErrInvalidToken)
}

func TestCacheConfigErrorsNameTheField(t *testing.T) {
	const field = "Config.Cache."
	for _, c := range []struct {
		name  string
		cache strategy.Cache
		want  string // "" for none
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
	withUser := func(ctx context.Context, token string) error { _, err := db.ReadToken(ctx, token); return err }
	run("hit", token, withUser)
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
	run("token only", token, func(ctx context.Context, token string) error { _, err := db.ReadTokenInfo(ctx, token); return err })
	run("miss", token, func(ctx context.Context, token string) error {
		_ = db.ForgetUser(ctx, ann.ID)
		_, err := db.ReadToken(ctx, token)
		return err
	})
	run("malformed", token[:51], withUser)
}

// named is an application's user.
type named struct {
	account.User[uuid.UUID]
	Name string
}

// BenchmarkCacheEntry measures what the cache takes of the heap: users and rows
// come from stores that keep none of it, as from a database.
func BenchmarkCacheEntry(b *testing.B) {
	const n = 100_000
	format := mustFormat(b, "")
	tokens := make([]string, n)
	for i := range tokens {
		secret, _ := format.New()
		tokens[i] = secret.Reveal()
	}
	made := &fakeTokens{byToken: func(_ context.Context, digest string, _ time.Time) (row, error) {
		return row{
			ID: uuid.Must(uuid.NewV7()), Digest: strings.Clone(digest), UserID: uuid.New(), CreatedAt: time.Now(),
			UserAgent: strings.Clone("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"), ClientAddr: strings.Clone("203.0.113.195"),
		}, nil
	}}
	users := namedSource(func(_ context.Context, id uuid.UUID) (named, error) {
		return named{account.User[uuid.UUID]{
			ID: id, Email: strings.Clone("somebody.or.other@example.com"), Active: true, Verified: true, CreatedAt: time.Now(),
			HashedPassword: account.PasswordHash(strings.Repeat("$", 97)),
		}, strings.Clone("Somebody Or Other")}, nil
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
