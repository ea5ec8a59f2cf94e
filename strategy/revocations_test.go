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

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

type revocation = strategy.Revocation[uuid.UUID]

// every is the FollowInterval of these tests. They run in synctest bubbles, in which time
// passes when all goroutines wait.
const every = 5 * ms

// cluster holds the stores that several instances of an application share.
type cluster struct {
	tokens *memstore.Tokens[uuid.UUID]
	users  *memstore.Users[user, uuid.UUID]
	ann    user
}

func newCluster(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{
		memstore.NewTokens[uuid.UUID](), memstore.NewUsers[user](),
		user{ID: uuid.New(), Email: "ann@example.com", Active: true, HashedPassword: hashed()},
	}
	if err := c.users.Insert(t.Context(), c.ann); err != nil {
		t.Fatalf("Insert: %v", err)
	}
	return c
}

// instance is one instance of the application.
type instance struct {
	*strategy.Database[user, uuid.UUID]
	log    *logStore
	events recorder
}

// instance opens an instance with a cache.
func (c *cluster) instance(t testing.TB) *instance {
	return c.open(t, c.users, strategy.Config{MaxSessions: 2, Cache: strategy.Cache{MaxStaleness: stale, FollowInterval: every}})
}

func (c *cluster) open(t testing.TB, users strategy.UserSource[user, uuid.UUID], cfg strategy.Config) *instance {
	t.Helper()
	i := &instance{log: &logStore{Tokens: c.tokens}}
	cfg.OnEvent = i.events.record
	var err error
	if i.Database, err = strategy.NewDatabase(i.log, users, cfg); err != nil {
		t.Fatalf("NewDatabase: %v", err)
	}
	t.Cleanup(i.Close)
	return i
}

// logStore is a store of tokens whose revocation log can fail.
type logStore struct {
	*memstore.Tokens[uuid.UUID]
	reads, published, followed atomic.Int64
	publish, next              atomic.Pointer[func(context.Context) error] // called first if not nil
	// late makes a follower begin at its first call that succeeds.
	late atomic.Bool
}

func (s *logStore) ByToken(ctx context.Context, digest string) (row, error) {
	s.reads.Add(1)
	return s.Tokens.ByToken(ctx, digest)
}

func (s *logStore) PublishRevocation(ctx context.Context, r revocation) error {
	s.published.Add(1)
	if f := s.publish.Load(); f != nil {
		return (*f)(ctx)
	}
	return s.Tokens.PublishRevocation(ctx, r)
}

func (s *logStore) FollowRevocations() func(context.Context) ([]revocation, error) {
	follow := s.Tokens.FollowRevocations()
	return func(ctx context.Context) ([]revocation, error) {
		s.followed.Add(1)
		if next := s.next.Load(); next != nil {
			if err := (*next)(ctx); err != nil {
				return nil, err
			}
		}
		if s.late.Swap(false) {
			follow = s.Tokens.FollowRevocations()
		}
		return follow(ctx)
	}
}

var errDown = errors.New("down")

// failing makes a method of a logStore fail until repair is called.
func failing(method *atomic.Pointer[func(context.Context) error]) (repair func()) {
	fail := func(context.Context) error { return errDown }
	method.Store(&fail)
	return func() { method.Store(nil) }
}

// follow waits until every instance has read the log.
func follow() {
	time.Sleep(every + 1)
	synctest.Wait()
}

func (i *instance) reads(t *testing.T, when, token string, want error, reads int64) {
	t.Helper()
	i.log.reads.Store(0)
	if _, err := i.ReadToken(t.Context(), token); !errors.Is(err, want) {
		t.Errorf("ReadToken %s: got %v, want %v", when, err, want)
	}
	if got := i.log.reads.Load(); got != reads {
		t.Errorf("ReadToken %s: read the store %d times, want %d", when, got, reads)
	}
}

// cached issues a token and reads it into the caches of instances.
func (c *cluster) cached(t *testing.T, instances ...*instance) (string, strategy.Session[user]) {
	t.Helper()
	secret, session, err := instances[0].WriteToken(t.Context(), c.ann)
	if err != nil {
		t.Fatalf("WriteToken: %v", err)
	}
	for _, i := range instances {
		i.reads(t, "at first", secret.Reveal(), nil, 1)
		i.reads(t, "from the cache", secret.Reveal(), nil, 0)
	}
	return secret.Reveal(), session
}

// kinds returns the kinds of events since the last call.
func (i *instance) kinds() (kinds []event.Kind) {
	for _, e := range i.events.take() {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

// elsewhere lists the ways in which another instance can end a session.
var elsewhere = []struct {
	name string
	end  func(t *testing.T, c *cluster, by *instance, token string, s strategy.Session[user]) error
}{
	{"DestroyToken", func(t *testing.T, _ *cluster, by *instance, token string, _ strategy.Session[user]) error {
		return by.DestroyToken(t.Context(), token)
	}},
	{"DestroySession", func(t *testing.T, c *cluster, by *instance, _ string, s strategy.Session[user]) error {
		return by.DestroySession(t.Context(), c.ann.ID, s.ID)
	}},
	{"DestroyAll", func(t *testing.T, c *cluster, by *instance, _ string, _ strategy.Session[user]) error {
		return by.DestroyAll(t.Context(), c.ann.ID)
	}},
	{"DestroyAll except another", func(t *testing.T, c *cluster, by *instance, _ string, _ strategy.Session[user]) error {
		return by.DestroyAll(t.Context(), c.ann.ID, uuid.New())
	}},
	{"RotateToken", func(t *testing.T, _ *cluster, by *instance, token string, _ strategy.Session[user]) error {
		_, _, err := by.RotateToken(t.Context(), token)
		return err
	}},
	{"eviction by MaxSessions", func(t *testing.T, c *cluster, by *instance, _ string, _ strategy.Session[user]) error {
		_, _, first := by.WriteToken(t.Context(), c.ann)
		_, _, second := by.WriteToken(t.Context(), c.ann)
		return errors.Join(first, second)
	}},
	{"WithReplaced", func(t *testing.T, c *cluster, by *instance, token string, _ strategy.Session[user]) error {
		_, _, err := by.WriteToken(t.Context(), c.ann, strategy.WithReplaced(token))
		return err
	}},
	{"Manager.ChangePassword", func(t *testing.T, c *cluster, by *instance, _ string, _ strategy.Session[user]) error {
		_, err := c.manager(t, by).ChangePassword(t.Context(), c.ann.ID, password, changed)
		return err
	}},
	{"Manager.Deactivate", func(t *testing.T, c *cluster, by *instance, _ string, _ strategy.Session[user]) error {
		return c.manager(t, by).Deactivate(t.Context(), c.ann.ID)
	}},
	{"Manager.RevokeTokens", func(t *testing.T, c *cluster, by *instance, _ string, _ strategy.Session[user]) error {
		return c.manager(t, by).RevokeTokens(t.Context(), c.ann.ID)
	}},
	{"UserChanged after the user was deactivated by other means", func(t *testing.T, c *cluster, by *instance, _ string, _ strategy.Session[user]) error {
		err := c.users.Update(t.Context(), c.ann.ID, func(u *user) { u.Active = false })
		return errors.Join(err, by.UserChanged(t.Context(), c.ann.ID, strategy.RevokedNone))
	}},
	{"UserChanged after the user was deleted", func(t *testing.T, c *cluster, by *instance, _ string, _ strategy.Session[user]) error {
		return errors.Join(c.users.Delete(t.Context(), c.ann.ID), by.UserChanged(t.Context(), c.ann.ID, strategy.RevokedNone))
	}},
	{"UserChanged after the tokens were deleted by other means", func(t *testing.T, c *cluster, by *instance, _ string, _ strategy.Session[user]) error {
		_, err := c.tokens.DeleteByUser(t.Context(), c.ann.ID)
		return errors.Join(err, by.UserChanged(t.Context(), c.ann.ID, strategy.RevokedNone))
	}},
}

func (c *cluster) manager(t testing.TB, by *instance) *account.Manager[user, uuid.UUID] {
	t.Helper()
	m, err := account.NewManager(c.users, nil, nil, nil, account.Config{
		InsecureNoLimiter: true, Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true,
	}, by)
	if err != nil {
		t.Fatalf("NewManager: %v", err)
	}
	return m
}

func TestTokenRevokedElsewhereIsSoonRejected(t *testing.T) {
	hashed()
	for _, by := range []struct {
		name string
		cfg  strategy.Config
	}{
		{"an instance with a cache", strategy.Config{MaxSessions: 2, Cache: strategy.Cache{MaxStaleness: stale, FollowInterval: every}}},
		{"an instance that publishes", strategy.Config{MaxSessions: 2, PublishRevocations: true}},
	} {
		for _, e := range elsewhere {
			t.Run(e.name+" by "+by.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newCluster(t)
					here := c.instance(t)
					there := c.open(t, c.users, by.cfg)
					follow()
					token, session := c.cached(t, here)
					published := there.log.published.Load()
					if err := e.end(t, c, there, token, session); err != nil {
						t.Fatalf("got %v, want nil", err)
					}
					if got := there.log.published.Load() - published; got != 1 {
						t.Errorf("published %d revocations, want 1", got)
					}
					follow()
					here.reads(t, "after it was published", token, strategy.ErrInvalidToken, 1)
				})
			})
		}
	}
}

// A token that is revoked elsewhere while it is read must not stay cached.
func TestReadInFlightIsNotCachedAfterARevocationElsewhere(t *testing.T) {
	hashed()
	for _, e := range elsewhere {
		t.Run(e.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				held := heldUsers{c.users, make(chan struct{})}
				here := c.open(t, held, strategy.Config{Cache: strategy.Cache{MaxStaleness: stale, FollowInterval: every}})
				there := c.open(t, c.users, strategy.Config{MaxSessions: 2, PublishRevocations: true})
				follow()
				secret, session, err := there.WriteToken(t.Context(), c.ann)
				if err != nil {
					t.Fatal(err)
				}
				token := secret.Reveal()
				read := make(chan error)
				go func() {
					_, err := here.ReadToken(t.Context(), token)
					read <- err
				}()
				synctest.Wait()
				if err := e.end(t, c, there, token, session); err != nil {
					t.Fatalf("got %v, want nil", err)
				}
				follow()
				close(held.released)
				<-read
				here.reads(t, "after it was published", token, strategy.ErrInvalidToken, 1)
			})
		})
	}
}

// heldUsers delays reads after the source has answered.
type heldUsers struct {
	strategy.UserSource[user, uuid.UUID]
	released chan struct{}
}

func (u heldUsers) ByID(ctx context.Context, id uuid.UUID) (user, error) {
	found, err := u.UserSource.ByID(ctx, id)
	<-u.released
	return found, err
}

func TestUnpublishedRevocationTakesEffectWithinMaxStaleness(t *testing.T) {
	hashed()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		here := c.instance(t)
		there := c.open(t, c.users, strategy.Config{})
		follow()
		token, _ := c.cached(t, here)
		read := time.Now()
		if err := errors.Join(there.DestroyToken(t.Context(), token), c.users.Delete(t.Context(), c.ann.ID)); err != nil {
			t.Fatal(err)
		}
		if got := there.log.published.Load(); got != 0 {
			t.Errorf("%d revocations were published, want none without PublishRevocations", got)
		}
		time.Sleep(stale*3/4 - time.Since(read))
		here.reads(t, "after three quarters of MaxStaleness", token, nil, 0)
		time.Sleep(stale + 1 - time.Since(read))
		here.reads(t, "after MaxStaleness", token, strategy.ErrInvalidToken, 1)
	})
}

// Anybody can make up well-formed tokens and log out with them.
func TestRevocationsOfUnknownTokensAreCapped(t *testing.T) {
	hashed()
	synctest.Test(t, func(t *testing.T) {
		const flood, limit = 1_000, 500
		c := newCluster(t)
		here, there := c.instance(t), c.instance(t)
		follow()
		token, _ := c.cached(t, here, there)
		other, _ := c.cached(t, here, there)
		made := make([]string, flood)
		for i := range made {
			secret := newSecret()
			made[i] = secret.Reveal()
		}
		destroyed := func() (n int) {
			t.Helper()
			for _, token := range made {
				err := here.DestroyToken(t.Context(), token)
				if errors.Is(err, strategy.ErrInvalidToken) || errors.Is(err, strategy.ErrTokenNotFound) {
					t.Fatalf("DestroyToken: got %v, want nil or a failure", err)
				}
				if err == nil {
					n++
				}
			}
			return n
		}
		before := here.log.published.Load()
		for range 2 {
			if n := destroyed(); n != limit {
				t.Errorf("%d of %d revocations succeeded, want %d", n, flood, limit)
			}
			if n := here.log.published.Swap(before) - before; n != limit {
				t.Errorf("%d revocations were published in a second, want %d", n, limit)
			}
			time.Sleep(time.Second)
		}
		// Repeated revocations of one token are published once a second.
		for range flood {
			if err := here.DestroyToken(t.Context(), made[0]); err != nil {
				t.Fatalf("repeated DestroyToken of one token: %v", err)
			}
		}
		if n := here.log.published.Swap(before) - before; n != 1 {
			t.Errorf("%d revocations of one token were published in a second, want 1", n)
		}
		// Existing sessions can still be ended during the flood.
		destroyed()
		if err := here.DestroyToken(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		here.reads(t, "after a log-out", token, strategy.ErrInvalidToken, 1)
		time.Sleep(every)
		synctest.Wait()
		there.reads(t, "after a log-out, elsewhere", token, strategy.ErrInvalidToken, 1)
		if _, err := there.ReadToken(t.Context(), other); err != nil {
			t.Errorf("another session: %v", err)
		}
	})
}

func TestCacheIsSuspendedWhenRevocationsCannotBeRead(t *testing.T) {
	hashed()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		here, there := c.instance(t), c.instance(t)
		follow()
		token, _ := c.cached(t, here, there)
		other, _ := c.cached(t, here, there)
		here.events.take()

		followed := time.Now() // the log was read at most every + 1 ago
		repair := failing(&here.log.next)
		for time.Since(followed) < stale-2*every {
			time.Sleep(stale / 4)
			if time.Since(followed) < stale-2*every { // the entry has not expired
				here.reads(t, "while the log fails, before MaxStaleness", token, nil, 0)
			}
		}
		if err := there.DestroyToken(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(followed.Add(stale + 2*every)))
		synctest.Wait()
		for range 3 {
			here.reads(t, "while the log fails, after MaxStaleness", token, nil, 1)
		}
		here.reads(t, "of a token revoked meanwhile", other, strategy.ErrInvalidToken, 1)
		time.Sleep(3 * stale)
		here.reads(t, "later still", token, nil, 1)
		there.reads(t, "by an instance that can read the log, at first", token, nil, 1)
		there.reads(t, "by an instance that can read the log", token, nil, 0)
		want := []event.Kind{event.StoreFailed, event.CacheSuspended, event.TokenDenied}
		if got := here.kinds(); !slices.Equal(got, want) {
			t.Errorf("got the events %v, want %v", got, want)
		}

		repair()
		follow()
		if got, want := here.kinds(), []event.Kind{event.CacheResumed}; !slices.Equal(got, want) {
			t.Errorf("when the log can be read again: got the events %v, want %v", got, want)
		}
		here.reads(t, "when the log can be read again", token, nil, 1)
		here.reads(t, "again", token, nil, 0)

		// A short failure does not suspend the cache.
		repair = failing(&here.log.next)
		time.Sleep(3 * every)
		repair()
		follow()
		if got, want := here.kinds(), []event.Kind{event.StoreFailed}; !slices.Equal(got, want) {
			t.Errorf("after a short failure: got the events %v, want %v", got, want)
		}
		here.reads(t, "after a short failure", token, nil, 0)
	})
}

func TestSuspensionEventsCarryTheError(t *testing.T) {
	hashed()
	synctest.Test(t, func(t *testing.T) {
		here := newCluster(t).instance(t)
		follow()
		failing(&here.log.next)
		time.Sleep(2 * stale)
		synctest.Wait()
		events := here.events.take()
		if len(events) != 2 {
			t.Fatalf("got the events %+v, want two", events)
		}
		for _, e := range events {
			if !errors.Is(e.Err, errDown) || !strings.HasPrefix(e.Err.Error(), "strategy: follow the revocations: ") || e.Time.IsZero() {
				t.Errorf("got the event %+v, want one with the failure", e)
			}
		}
	})
}

// Tokens that were revoked while the log could not be read are refused as soon as it can,
// whether or not the cache was suspended.
func TestRevocationsDuringAnOutageAreSeenAfterIt(t *testing.T) {
	hashed()
	for _, outage := range []time.Duration{2 * every, stale / 2, stale + 2*every, 5 * stale} {
		t.Run(outage.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				here, there := c.instance(t), c.instance(t)
				follow()
				repair := failing(&here.log.next)
				secret, _, err := there.WriteToken(t.Context(), c.ann)
				if err != nil {
					t.Fatal(err)
				}
				for range int(outage / every) {
					if _, err := here.ReadToken(t.Context(), secret.Reveal()); err != nil {
						t.Fatalf("during the outage: %v", err)
					}
					time.Sleep(every)
				}
				if err := there.DestroyToken(t.Context(), secret.Reveal()); err != nil {
					t.Fatal(err)
				}
				repair()
				follow()
				here.reads(t, "after the outage", secret.Reveal(), strategy.ErrInvalidToken, 1)
			})
		})
	}
}

func TestReadyWhileTheRevocationsAreKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		uncached := c.open(t, c.users, strategy.Config{})
		i := &instance{log: &logStore{Tokens: c.tokens}}
		repair := failing(&i.log.next)
		var err error
		cfg := strategy.Config{Cache: strategy.Cache{MaxStaleness: stale, FollowInterval: every}}
		if i.Database, err = strategy.NewDatabase(i.log, c.users, cfg); err != nil {
			t.Fatal(err)
		}
		defer i.Close()
		want := func(when, part string) {
			t.Helper()
			err := i.Ready()
			if part == "" && err != nil || part != "" && (err == nil || !strings.Contains(err.Error(), part)) {
				t.Errorf("%s: got the error %v, want %q", when, err, part)
			}
		}
		want("before the log was read", "have not been read yet")
		repair()
		follow()
		want("after the log was read", "")
		repair = failing(&i.log.next)
		follow()
		want("after a failure", "")
		time.Sleep(stale + every)
		want("after failures for MaxStaleness", "have not been read for "+stale.String()+", Cache.MaxStaleness")
		repair()
		follow()
		want("after the repair", "")
		i.Close()
		want("after Close", "closed")

		uncached.Close()
		if err := uncached.Ready(); err != nil {
			t.Errorf("without a cache: got %v, want nil", err)
		}
	})
}

func TestCacheIsNotUsedBeforeTheLogIsRead(t *testing.T) {
	hashed()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		there := c.instance(t)
		here := &instance{log: &logStore{Tokens: c.tokens}}
		repair := failing(&here.log.next)
		here.log.late.Store(true)
		var err error
		here.Database, err = strategy.NewDatabase(here.log, c.users, strategy.Config{
			Cache: strategy.Cache{MaxStaleness: stale, FollowInterval: every}, OnEvent: here.events.record,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer here.Close()
		secret, _, err := there.WriteToken(t.Context(), c.ann)
		if err != nil {
			t.Fatal(err)
		}
		token := secret.Reveal()
		for range 3 {
			here.reads(t, "before the log is read", token, nil, 1)
			follow()
		}
		if got, want := here.kinds(), []event.Kind{event.StoreFailed, event.CacheSuspended}; !slices.Equal(got, want) {
			t.Errorf("got the events %v, want %v", got, want)
		}

		// The follower begins at its first successful call, so it misses this revocation.
		if err := there.DestroyToken(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		repair()
		follow()
		here.reads(t, "of a token revoked before the log is read", token, strategy.ErrInvalidToken, 1)
		if got, want := here.kinds(), []event.Kind{event.CacheResumed, event.TokenDenied}; !slices.Equal(got, want) {
			t.Errorf("got the events %v, want %v", got, want)
		}
		c.cached(t, here)
	})
}

// An answer of the log is as old as the question.
func TestAgeOfALogReadCountsFromItsStart(t *testing.T) {
	hashed()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		here := c.instance(t)
		follow()
		slow := func(context.Context) error { time.Sleep(stale / 4); return nil }
		here.log.next.Store(&slow)
		asked := time.Now().Truncate(every).Add(every)
		time.Sleep(time.Until(asked.Add(1)))
		synctest.Wait() // the read is in flight
		failing(&here.log.next)
		time.Sleep(time.Until(asked.Add(stale - every)))
		token, _ := c.cached(t, here)
		time.Sleep(time.Until(asked.Add(stale + 1)))
		here.reads(t, "MaxStaleness after the last successful read of the log", token, nil, 1)
	})
}

func TestFailureToPublishARevocationIsAnError(t *testing.T) {
	hashed()
	for _, e := range elsewhere {
		t.Run(e.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				there := c.open(t, c.users, strategy.Config{MaxSessions: 2, PublishRevocations: true})
				secret, session, err := there.WriteToken(t.Context(), c.ann)
				if err != nil {
					t.Fatal(err)
				}
				there.events.take()
				failing(&there.log.publish)
				err = e.end(t, c, there, secret.Reveal(), session)
				if !errors.Is(err, errDown) || errors.Is(err, strategy.ErrInvalidToken) || errors.Is(err, strategy.ErrSessionNotFound) {
					t.Errorf("got %v, want the failure", err)
				}
				failed := 0
				for _, e := range there.events.take() {
					if e.Kind == event.StoreFailed && errors.Is(e.Err, errDown) {
						failed++
					}
				}
				if failed != 1 {
					t.Errorf("got %d events store.failed, want 1", failed)
				}
			})
		})
	}
}

func TestUnpublishedRevocationIsPublishedByARetry(t *testing.T) {
	hashed()
	for _, e := range elsewhere[:4] {
		t.Run(e.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				here := c.instance(t)
				there := c.open(t, c.users, strategy.Config{PublishRevocations: true})
				follow()
				token, session := c.cached(t, here)
				repair := failing(&there.log.publish)
				if err := e.end(t, c, there, token, session); !errors.Is(err, errDown) {
					t.Fatalf("got %v, want the failure", err)
				}
				follow()
				here.reads(t, "after the failure", token, nil, 0)
				// The row was deleted by the first try.
				if err := e.end(t, c, there, token, session); !errors.Is(err, errDown) {
					t.Errorf("the next try while it still fails: got %v, want the failure", err)
				}
				repair()
				if err := e.end(t, c, there, token, session); err != nil && !errors.Is(err, strategy.ErrSessionNotFound) {
					t.Errorf("the next try: got %v, want nil or ErrSessionNotFound", err)
				}
				follow()
				here.reads(t, "after it was published", token, strategy.ErrInvalidToken, 1)
			})
		})
	}
}

// Another user's attempt to end the session by its ID, in the same second, changes nothing.
func TestOwnersRetryIsPublishedDespiteAnotherUsersAttempt(t *testing.T) {
	hashed()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		here := c.instance(t)
		there := c.open(t, c.users, strategy.Config{PublishRevocations: true})
		follow()
		token, session := c.cached(t, here)
		stranger := uuid.New()
		if err := there.DestroySession(t.Context(), stranger, session.ID); !errors.Is(err, strategy.ErrSessionNotFound) {
			t.Fatalf("another user's attempt: got %v, want ErrSessionNotFound", err)
		}
		follow()
		here.reads(t, "after another user's attempt", token, nil, 1)
		repair := failing(&there.log.publish)
		if err := there.DestroySession(t.Context(), c.ann.ID, session.ID); !errors.Is(err, errDown) {
			t.Fatalf("the owner's log-out: got %v, want the failure to publish", err)
		}
		repair()
		follow()
		here.reads(t, "before it is published", token, nil, 0)
		if err := there.DestroySession(t.Context(), c.ann.ID, session.ID); !errors.Is(err, strategy.ErrSessionNotFound) {
			t.Errorf("the owner's next try: got %v, want ErrSessionNotFound", err)
		}
		follow()
		here.reads(t, "after it was published", token, strategy.ErrInvalidToken, 1)
	})
}

// A flood of one user's attempts to end unknown sessions does not make others' fail.
func TestFloodOfUnknownSessionsIsCappedForEachUser(t *testing.T) {
	hashed()
	synctest.Test(t, func(t *testing.T) {
		const flood, limit = 200, 50
		c := newCluster(t)
		there := c.open(t, c.users, strategy.Config{PublishRevocations: true})
		attempts := func(user uuid.UUID) (published int) {
			before := there.log.published.Load()
			for range flood {
				err := there.DestroySession(t.Context(), user, uuid.New())
				if err == nil {
					t.Fatal("an unknown session was ended")
				}
			}
			return int(there.log.published.Load() - before)
		}
		for _, who := range []string{"one user", "another"} {
			if n := attempts(uuid.New()); n != limit {
				t.Errorf("%s: %d revocations were published in a second, want %d", who, n, limit)
			}
		}
		secret := newSecret()
		if err := there.DestroyToken(t.Context(), secret.Reveal()); err != nil {
			t.Errorf("a log-out with an unknown token: got %v, want nil", err)
		}
	})
}

// A revocation is published even if the client has disconnected after the delete.
func TestRevocationIsPublishedAfterTheClientHasGone(t *testing.T) {
	hashed()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		here := c.instance(t)
		ctx, cancel := context.WithCancel(t.Context())
		disconnecting := &fakeTokens{store: c.tokens, delete: func(ctx context.Context, digest string) (row, error) {
			defer cancel()
			return c.tokens.Delete(ctx, digest)
		}}
		there, err := strategy.NewDatabase(struct {
			*fakeTokens
			strategy.RevocationLog[uuid.UUID]
		}{disconnecting, c.tokens}, c.users, strategy.Config{PublishRevocations: true})
		if err != nil {
			t.Fatal(err)
		}
		defer there.Close()
		follow()
		token, _ := c.cached(t, here)
		if err := there.DestroyToken(ctx, token); err != nil {
			t.Errorf("DestroyToken: got %v, want nil", err)
		}
		follow()
		here.reads(t, "after it was published", token, strategy.ErrInvalidToken, 1)
	})
}

func TestPublishRevocationsRequiresARevocationLog(t *testing.T) {
	plain := store(struct{ store }{memstore.NewTokens[uuid.UUID]()})
	users := memstore.NewUsers[user]()
	for _, c := range []struct {
		name   string
		tokens store
		cfg    strategy.Config
		want   string
	}{
		{"PublishRevocations with a log", memstore.NewTokens[uuid.UUID](), strategy.Config{PublishRevocations: true}, ""},
		{"PublishRevocations without a log", plain, strategy.Config{PublishRevocations: true}, "Config.PublishRevocations"},
		{"PublishRevocations and a cache without a log", plain, strategy.Config{PublishRevocations: true, Cache: caching}, "Config.PublishRevocations"},
		{"a cache without a log", plain, strategy.Config{Cache: caching}, ""},
	} {
		db, err := strategy.NewDatabase(c.tokens, users, c.cfg)
		switch {
		case c.want == "" && (db == nil || err != nil):
			t.Errorf("%s: got %v, %v, want a Database", c.name, db, err)
		case c.want != "" && (db != nil || err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, %v, want an error that names %s", c.name, db, err, c.want)
		}
		if db != nil {
			db.Close()
		}
	}
}

func TestLogIsReadOncePerInterval(t *testing.T) {
	hashed()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		for _, cfg := range []struct {
			cache strategy.Cache
			every time.Duration
		}{
			{strategy.Cache{MaxStaleness: time.Minute}, time.Second},
			{strategy.Cache{MaxStaleness: 4 * time.Second}, time.Second},
			{strategy.Cache{MaxStaleness: time.Second}, time.Second / 4},
			{strategy.Cache{MaxStaleness: time.Minute, FollowInterval: 30 * time.Second}, 30 * time.Second},
		} {
			i := c.open(t, c.users, strategy.Config{Cache: cfg.cache})
			synctest.Wait()
			if got := i.log.followed.Swap(0); got != 1 {
				t.Errorf("%+v: read the log %d times at first, want 1", cfg.cache, got)
			}
			for range 1000 {
				if _, err := i.ReadToken(t.Context(), "no token"); !errors.Is(err, strategy.ErrInvalidToken) {
					t.Fatal(err)
				}
			}
			time.Sleep(10*cfg.every + 1)
			synctest.Wait()
			if got := i.log.followed.Load(); got != 10 {
				t.Errorf("%+v: read the log %d times in 10 times %v, want 10", cfg.cache, got, cfg.every)
			}
			i.Close()
		}
	})
}

// following counts the goroutines that follow a log.
func following() int {
	buf := make([]byte, 1<<22)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), "]).follow(")
}

func TestCloseStopsFollowing(t *testing.T) {
	if got := following(); got != 0 {
		t.Fatalf("%d goroutines follow, want none: an earlier test has not closed its Database", got)
	}
	c := newCluster(t)
	// A read that hangs is stopped too.
	hangs := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for name, next := range map[string]*func(context.Context) error{"waiting": nil, "reading": &hangs} {
		i := c.instance(t)
		i.log.next.Store(next)
		for i.log.followed.Load() < 3 && (next == nil || i.log.followed.Load() < 1) {
			runtime.Gosched()
		}
		if got := following(); got != 1 {
			t.Errorf("%s: %d goroutines follow, want 1", name, got)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				i.Close()
				if got := i.log.followed.Load(); got != i.log.followed.Load() {
					t.Errorf("%s: read the log after Close", name)
				}
			})
		}
		wg.Wait()
		i.Close()
		if got := following(); got != 0 {
			t.Errorf("%s: %d goroutines follow after Close, want none", name, got)
		}
		if got := i.kinds(); len(got) != 0 {
			t.Errorf("%s: got the events %v, want none", name, got)
		}
	}
}

func TestCloseWaitsForAReadInFlight(t *testing.T) {
	hashed()
	synctest.Test(t, func(t *testing.T) {
		i := newCluster(t).instance(t)
		var ended atomic.Bool
		slow := func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Second)
			ended.Store(true)
			return ctx.Err()
		}
		i.log.next.Store(&slow)
		follow()
		for range 2 {
			go i.Close()
		}
		i.Close()
		if !ended.Load() {
			t.Error("Close returned while the log was being read")
		}
	})
}

// A log that hangs counts as failing.
func TestHangingLogSuspendsTheCache(t *testing.T) {
	hashed()
	synctest.Test(t, func(t *testing.T) {
		i := newCluster(t).instance(t)
		follow()
		hangs := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		i.log.next.Store(&hangs)
		time.Sleep(2 * stale)
		synctest.Wait()
		if got, want := i.kinds(), []event.Kind{event.StoreFailed, event.CacheSuspended}; !slices.Equal(got, want) {
			t.Errorf("got the events %v, want %v", got, want)
		}
		i.log.next.Store(nil)
		time.Sleep(stale)
		synctest.Wait()
		if got, want := i.kinds(), []event.Kind{event.CacheResumed}; !slices.Equal(got, want) {
			t.Errorf("when the log answers again: got the events %v, want %v", got, want)
		}
	})
}

func TestDatabaseWorksAfterClose(t *testing.T) {
	hashed()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		there := c.instance(t)
		here := c.open(t, c.users, strategy.Config{Cache: strategy.Cache{MaxStaleness: stale, FollowInterval: every}})
		follow()
		token, _ := c.cached(t, here, there)
		other, _ := c.cached(t, here, there)
		here.Close()
		for range 2 {
			here.reads(t, "after Close", token, nil, 1)
		}
		// Its revocations are still published.
		if err := here.DestroyToken(t.Context(), token); err != nil {
			t.Errorf("DestroyToken after Close: %v", err)
		}
		follow()
		there.reads(t, "of a token revoked after Close", token, strategy.ErrInvalidToken, 1)
		if err := c.manager(t, here).Deactivate(t.Context(), c.ann.ID); err != nil {
			t.Errorf("Deactivate after Close: %v", err)
		}
		here.reads(t, "of a user who was deactivated after Close", other, strategy.ErrInvalidToken, 1)
		follow()
		there.reads(t, "of a user who was deactivated after Close", other, strategy.ErrInvalidToken, 1)
	})
}

// Concurrent changes of users, reads, revocations and Close, for the race detector.
func TestCloseDuringReadsChangesAndRevocations(t *testing.T) {
	c := newCluster(t)
	for range 5 {
		here := c.open(t, c.users, strategy.Config{Cache: strategy.Cache{MaxStaleness: stale, FollowInterval: ms}})
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for n := range 4 {
			secret, session, err := here.WriteToken(t.Context(), c.ann)
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				<-begin
				for i := range 50 {
					if _, err := here.ReadToken(t.Context(), secret.Reveal()); err != nil {
						t.Errorf("ReadToken: %v", err)
					}
					if i == 10*n {
						here.Close()
					}
					if err := here.UserChanged(t.Context(), c.ann.ID, strategy.RevokedNone); err != nil {
						t.Errorf("UserChanged: %v", err)
					}
				}
				if err := here.DestroySession(t.Context(), c.ann.ID, session.ID); err != nil {
					t.Errorf("DestroySession: %v", err)
				}
				if _, err := here.ReadToken(t.Context(), secret.Reveal()); !errors.Is(err, strategy.ErrInvalidToken) {
					t.Errorf("ReadToken after DestroySession: got %v, want ErrInvalidToken", err)
				}
			})
		}
		close(begin)
		wg.Wait()
	}
}

// Every published revocation is seen, of any number of users.
func TestManyConcurrentRevocationsElsewhereAreSeen(t *testing.T) {
	const users = 300
	hashed()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		here, there := c.instance(t), c.open(t, c.users, strategy.Config{PublishRevocations: true})
		follow()
		var all []user
		var tokens []string
		for n := range users {
			u := user{ID: uuid.New(), Email: fmt.Sprintf("user%d@example.com", n), Active: true}
			if err := c.users.Insert(t.Context(), u); err != nil {
				t.Fatal(err)
			}
			secret, _, err := there.WriteToken(t.Context(), u)
			if err != nil {
				t.Fatal(err)
			}
			all, tokens = append(all, u), append(tokens, secret.Reveal())
			here.reads(t, "at first", secret.Reveal(), nil, 1)
		}
		var wg sync.WaitGroup
		for n, u := range all[:users/2] {
			wg.Go(func() {
				var err error
				if n%2 == 0 {
					err = there.DestroyToken(t.Context(), tokens[n])
				} else {
					err = there.DestroyAll(t.Context(), u.ID)
				}
				if err != nil {
					t.Errorf("revoke: %v", err)
				}
			})
		}
		wg.Wait()
		follow()
		here.log.reads.Store(0)
		for n, token := range tokens {
			var want error
			if n < users/2 {
				want = strategy.ErrInvalidToken
			}
			if _, err := here.ReadToken(t.Context(), token); !errors.Is(err, want) {
				t.Errorf("ReadToken of user %d: got %v, want %v", n, err, want)
			}
		}
		// Stripes are shared by a few unrelated sessions, not by many.
		if got := here.log.reads.Load(); got < users/2 || got > users/2+users/10 {
			t.Errorf("read the store %d times, want about %d: other sessions stay cached", got, users/2)
		}
	})
}
