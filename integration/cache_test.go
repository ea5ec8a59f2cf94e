package integration_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/integration/internal/wireproxy"
	"github.com/latchkey-go/latchkey/internal/contract"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

const (
	// revocations is the collection that the instances follow.
	revocations = "revocations"
	// tolerance is how much later than the interval a revocation may be seen.
	tolerance = 250 * time.Millisecond
)

// node is one of several instances of an application. They share only the database.
type node struct {
	tokens   *followedTokens
	sessions *strategy.Database[contract.Member, uuid.UUID]
	accounts *account.Manager[contract.Member, uuid.UUID]
	sent     *recorder
	events   events
}

// newNode returns an instance. sent is the recorder of its client. timeout bounds its database
// calls; 0 means the default.
func newNode(t testing.TB, db *mongo.Database, sent *recorder, timeout time.Duration, cfg strategy.Config) *node {
	t.Helper()
	n := &node{sent: sent}
	n.tokens = &followedTokens{Tokens: newTokens[uuid.UUID](t, db, mongostore.TokensConfig{Lifetime: time.Hour, Timeout: timeout})}
	users := newUsers[contract.Member](t, db, mongostore.UsersConfig{})
	cfg.Lifetime, cfg.OnEvent = time.Hour, n.events.add
	var err error
	if n.sessions, err = strategy.NewDatabase(n.tokens, users, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.sessions.Close)
	n.accounts = newManager(t, users, account.Config{Now: cfg.Now}, n.sessions)
	return n
}

// connectNode returns an instance with a client of its own.
func connectNode(t testing.TB, db *mongo.Database, cfg strategy.Config) *node {
	t.Helper()
	client, sent := connect(t)
	return newNode(t, client.Database(db.Name()), sent, 0, cfg)
}

// cached returns a configuration with a cache.
func cached(maxStaleness, interval time.Duration) strategy.Config {
	return strategy.Config{Cache: strategy.Cache{MaxStaleness: maxStaleness, FollowInterval: interval}}
}

// events keeps the events of an instance. It is safe for concurrent use.
type events struct {
	mu   sync.Mutex
	list []event.Event
}

func (l *events) add(_ context.Context, e event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, e)
}

// all returns the events of a kind.
func (l *events) all(kind event.Kind) (found []event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.list {
		if e.Kind == kind {
			found = append(found, e)
		}
	}
	return found
}

func (l *events) count(kind event.Kind) int { return len(l.all(kind)) }

// followedTokens is a store that records when its revocation log was polled, and counts the
// look-ups. On a busy machine polls can be late, which the tests must not count as an error.
type followedTokens struct {
	*mongostore.Tokens[uuid.UUID]
	reads atomic.Int64
	mu    sync.Mutex
	polls []poll
}

// poll is a successful read of the revocation log.
type poll struct{ began, ended time.Time }

func (s *followedTokens) ByToken(ctx context.Context, digest string) (strategy.AccessToken[uuid.UUID], error) {
	s.reads.Add(1)
	return s.Tokens.ByToken(ctx, digest)
}

func (s *followedTokens) FollowRevocations() func(context.Context) ([]strategy.Revocation[uuid.UUID], error) {
	next := s.Tokens.FollowRevocations()
	return func(ctx context.Context) ([]strategy.Revocation[uuid.UUID], error) {
		p := poll{began: time.Now()}
		found, err := next(ctx)
		p.ended = time.Now()
		if err == nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.polls = append(s.polls, p)
		}
		return found, err
	}
}

// all returns the polls so far.
func (s *followedTokens) all() []poll {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.polls)
}

// following waits until the instance has applied all revocations that were published so far.
func (n *node) following(t testing.TB) {
	t.Helper()
	asked := time.Now()
	eventually(t, 20*time.Second, "the instance polls revocations", func() bool {
		polls := n.tokens.all()
		// The result of the last poll may not be applied yet.
		return len(polls) > 1 && polls[len(polls)-2].began.After(asked)
	})
}

// watched is a session that one instance revokes while another one reads it.
type watched struct {
	token string
	id    uuid.UUID
	user  *watchedUser

	ended    atomic.Pointer[time.Time] // when its revocation was acknowledged
	accepted atomic.Pointer[time.Time] // when the last accepted read began
	refused  atomic.Bool
}

// watchedUser is a user with watched sessions.
type watchedUser struct {
	contract.Member
	sessions []*watched
}

// ended records that all sessions were revoked now.
func (u *watchedUser) ended() {
	now := time.Now()
	for _, w := range u.sessions {
		w.ended.Store(&now)
	}
}

// population creates users with a number of sessions each.
func (n *node) population(t testing.TB, users, each int) (all []*watchedUser) {
	t.Helper()
	var mu sync.Mutex
	share(t, users, func(int) error {
		member, err := n.accounts.Register(t.Context(), contract.Member{User: account.User[uuid.UUID]{Email: fmt.Sprintf("%s@example.com", uuid.New())}}, password)
		if err != nil {
			return err
		}
		u := &watchedUser{Member: member}
		for range each {
			secret, session, err := n.sessions.WriteToken(t.Context(), member)
			if err != nil {
				return err
			}
			u.sessions = append(u.sessions, &watched{token: secret.Reveal(), id: session.ID, user: u})
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, u)
		return nil
	})
	return all
}

// sessionsOf returns the sessions of all users.
func sessionsOf(users []*watchedUser) (all []*watched) {
	for _, u := range users {
		all = append(all, u.sessions...)
	}
	return all
}

// share calls f with 0 to n-1 from four goroutines.
func share(t testing.TB, n int, f func(n int) error) {
	t.Helper()
	var next atomic.Int64
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f(i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// fill reads sessions, so that the instance caches them.
func (n *node) fill(t testing.TB, sessions []*watched) {
	t.Helper()
	eventually(t, 20*time.Second, "the instance polls revocations", func() bool { return len(n.tokens.all()) > 0 })
	share(t, len(sessions), func(i int) error {
		_, err := n.sessions.ReadToken(t.Context(), sessions[i].token)
		return err
	})
}

// read reads a session and records the result. It returns failures other than an invalid token.
func (n *node) read(w *watched) error {
	began := time.Now()
	_, err := n.sessions.ReadToken(context.Background(), w.token)
	switch {
	case err == nil:
		for {
			old := w.accepted.Load()
			if old != nil && !began.After(*old) || w.accepted.CompareAndSwap(old, &began) {
				return nil
			}
		}
	case errors.Is(err, strategy.ErrInvalidToken):
		w.refused.Store(true)
		return nil
	}
	return err
}

// load is a number of goroutines that read the sessions of an instance until end.
type load struct {
	stop  context.CancelFunc
	group sync.WaitGroup
	reads atomic.Int64
	mu    sync.Mutex
	err   error // the last failure
}

// load starts a load.
func (n *node) load(readers int, sessions []*watched) *load {
	ctx, stop := context.WithCancel(context.Background())
	l := &load{stop: stop}
	for r := range readers {
		l.group.Go(func() {
			for at := r * len(sessions) / readers; ctx.Err() == nil; {
				for range sessions {
					if ctx.Err() != nil {
						return
					}
					w := sessions[at%len(sessions)]
					at++
					// Invalid tokens are not cached, so that reading them loads the database.
					// They are read rarely, to check that they stay invalid.
					if w.refused.Load() && rand.IntN(1000) > 0 {
						continue
					}
					l.reads.Add(1)
					if err := n.read(w); err != nil {
						l.mu.Lock()
						l.err = err
						l.mu.Unlock()
					}
				}
				time.Sleep(time.Millisecond) // leaves time for the instances and the server
			}
		})
	}
	return l
}

// end stops the load and returns its last failure.
func (l *load) end() error {
	l.stop()
	l.group.Wait()
	return l.err
}

// The operations that revoke one session, and those that revoke all sessions of a user.
var (
	sessionEnds = []struct {
		name, field string // field is that of the revocation's document
		end         func(ctx context.Context, by *node, w *watched) error
	}{
		{"DestroyToken", "token", func(ctx context.Context, by *node, w *watched) error {
			return by.sessions.DestroyToken(ctx, w.token)
		}},
		{"DestroySession", "session_id", func(ctx context.Context, by *node, w *watched) error {
			return by.sessions.DestroySession(ctx, w.user.ID, w.id)
		}},
		{"RotateToken", "token", func(ctx context.Context, by *node, w *watched) error {
			_, _, err := by.sessions.RotateToken(ctx, w.token)
			return err
		}},
	}
	userEnds = []struct {
		name string
		end  func(ctx context.Context, by *node, u *watchedUser) error
	}{
		{"DestroyAll", func(ctx context.Context, by *node, u *watchedUser) error {
			return by.sessions.DestroyAll(ctx, u.ID)
		}},
		{"Deactivate", func(ctx context.Context, by *node, u *watchedUser) error {
			return by.accounts.Deactivate(ctx, u.ID)
		}},
		{"RevokeTokens", func(ctx context.Context, by *node, u *watchedUser) error {
			return by.accounts.RevokeTokens(ctx, u.ID)
		}},
		{"ChangePassword", func(ctx context.Context, by *node, u *watchedUser) error {
			_, err := by.accounts.ChangePassword(ctx, u.ID, password, password+"!")
			return err
		}},
	}
)

// endings returns calls that revoke the sessions of users by all operations, in random order: of
// every second user all at once, of the others one session at a time.
func endings(ctx context.Context, by *node, users []*watchedUser) (all []func() error) {
	for n, u := range users {
		if n%2 == 0 {
			way := userEnds[n/2%len(userEnds)]
			all = append(all, func() error {
				if err := way.end(ctx, by, u); err != nil {
					return fmt.Errorf("%s: %w", way.name, err)
				}
				u.ended()
				return nil
			})
			continue
		}
		for m, w := range u.sessions {
			way := sessionEnds[(n/2+m)%len(sessionEnds)]
			all = append(all, func() error {
				if err := way.end(ctx, by, w); err != nil {
					return fmt.Errorf("%s: %w", way.name, err)
				}
				now := time.Now()
				w.ended.Store(&now)
				return nil
			})
		}
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// spread makes calls at equal intervals over a period.
func spread(t testing.TB, over time.Duration, all []func() error) {
	t.Helper()
	start := time.Now()
	share(t, len(all), func(n int) error {
		time.Sleep(time.Until(start.Add(over * time.Duration(n) / time.Duration(len(all)))))
		return all[n]()
	})
}

// allRefused waits until every revoked session was refused.
func allRefused(t testing.TB, atMost time.Duration, sessions []*watched) {
	t.Helper()
	eventually(t, atMost, "every revoked session is refused", func() bool {
		return !slices.ContainsFunc(sessions, func(w *watched) bool { return w.ended.Load() != nil && !w.refused.Load() })
	})
}

// sweep checks that the instance accepts exactly the sessions that were not revoked.
func (n *node) sweep(t testing.TB, sessions []*watched) {
	t.Helper()
	share(t, len(sessions), func(i int) error {
		var want error
		if sessions[i].ended.Load() != nil {
			want = strategy.ErrInvalidToken
		}
		if _, err := n.sessions.ReadToken(t.Context(), sessions[i].token); !errors.Is(err, want) {
			return fmt.Errorf("at the end the other instance answers %v, want %v", err, want)
		}
		return nil
	})
}

// delays returns how long each session was accepted after its revocation, in ascending order.
func delays(sessions []*watched) (all []time.Duration) {
	for _, w := range sessions {
		ended, accepted := w.ended.Load(), w.accepted.Load()
		switch {
		case ended == nil:
		case accepted == nil:
			all = append(all, 0)
		default:
			all = append(all, max(0, accepted.Sub(*ended)))
		}
	}
	slices.Sort(all)
	return all
}

// percentile returns the p-th percentile, rounded to milliseconds.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)-1)*p/100].Round(time.Millisecond)
}

// An instance refuses a session that another one revoked as soon as it has polled the
// revocations. It polls once a second, also under load.
func TestCachedSessionRevokedByAnotherInstanceIsRefused(t *testing.T) {
	users, over := 25, 4*time.Second // a server without indexes scans the collection for every look-up
	if server.Capabilities.Explain {
		users, over = 2500, 10*time.Second
	}
	const each, interval = 4, time.Second
	db := database(t)
	cfg := strategy.Config{Cache: strategy.Cache{MaxStaleness: 30 * time.Second}} // with the default interval
	a, b := connectNode(t, db, cfg), connectNode(t, db, cfg)
	all := a.population(t, users, each)
	sessions := sessionsOf(all)
	ending := all[:users*9/10] // the others keep their sessions
	a.fill(t, sessions)
	b.fill(t, sessions)

	began := time.Now()
	from := len(b.tokens.all())
	load := b.load(4, sessions)
	todo := endings(t.Context(), a, ending)
	spread(t, over, todo)
	allRefused(t, 20*time.Second, sessions)
	took := time.Since(began)
	if err := load.end(); err != nil {
		t.Errorf("a read failed: %v", err)
	}
	polls := b.tokens.all()

	found := delays(sessions)
	t.Logf("%d sessions cached on both; %d revoked by %d calls in %v, under %d reads", len(sessions), len(found), len(todo), took.Round(time.Millisecond), load.reads.Load())
	t.Logf("still accepted after the acknowledgement: p50 %v, p99 %v, max %v", percentile(found, 50), percentile(found, 99), percentile(found, 100))
	if len(found) != len(ending)*each {
		t.Errorf("%d sessions were revoked, want %d", len(found), len(ending)*each)
	}
	if most := found[len(found)-1]; most > interval+tolerance {
		complain := t.Logf
		if os.Getenv("LATCHKEY_TEST_STRICT_TIME") == "1" {
			complain = t.Errorf
		}
		complain("a session was accepted %v after its revocation was acknowledged, want at most %v", most, interval+tolerance)
	}
	wantPolls(t, polls[from:], interval)
	for _, w := range sessions {
		wantRefusedInTime(t, w, polls)
	}
	b.sweep(t, sessions)
}

// wantRefusedInTime checks that no accepted read began after the end of the first poll that
// began after the session's revocation.
func wantRefusedInTime(t *testing.T, w *watched, polls []poll) {
	t.Helper()
	ended, accepted := w.ended.Load(), w.accepted.Load()
	if ended == nil || accepted == nil {
		return
	}
	n := slices.IndexFunc(polls, func(p poll) bool { return p.began.After(*ended) })
	if n < 0 {
		return
	}
	if late := accepted.Sub(polls[n].ended); late > tolerance {
		t.Errorf("a session was accepted %v after the instance had polled the revocations", late)
	}
	// The result of a poll is applied before the next poll begins.
	if n+1 < len(polls) && accepted.After(polls[n+1].began) {
		t.Errorf("a session was accepted although the instance had polled the revocations twice")
	}
}

// wantPolls checks that an instance polled once an interval.
func wantPolls(t *testing.T, polls []poll, interval time.Duration) {
	t.Helper()
	if len(polls) < 2 {
		t.Fatalf("polled %d times, want at least 2", len(polls))
	}
	var gaps []time.Duration
	for n := range polls[1:] {
		gaps = append(gaps, polls[n+1].began.Sub(polls[n].began))
	}
	slices.Sort(gaps)
	most := gaps[len(gaps)-1]
	t.Logf("polled %d times, every %v, at most %v apart", len(polls), percentile(gaps, 50), most.Round(time.Millisecond))
	took := polls[len(polls)-1].began.Sub(polls[0].began)
	if n := int(took/interval) + 2; len(polls) > n || len(polls) < n/2 {
		t.Errorf("polled %d times in %v, want once in %v", len(polls), took, interval)
	}
}

// An instance that cannot read revocations stops using its cache within MaxStaleness, emits
// cache.suspended, and reads the database until it can read revocations again.
func TestCacheIsSuspendedWhileRevocationsCannotBeRead(t *testing.T) {
	const maxStaleness = 2 * time.Second
	for name, c := range map[string]struct {
		// instead answers a find of revocations; nil cuts the connection to the server.
		instead func(find wireproxy.Message, repaired <-chan struct{}, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error)
	}{
		"revocations cannot be read": {func(find wireproxy.Message, _ <-chan struct{}, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
			return wireproxy.Instead(bson.D{
				{Key: "ok", Value: 0.0}, {Key: "code", Value: 13}, {Key: "codeName", Value: "Unauthorized"}, {Key: "errmsg", Value: "not authorized"},
			}, find, send)
		}},
		"reading revocations hangs": {func(_ wireproxy.Message, repaired <-chan struct{}, _ func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
			<-repaired
			return nil, errors.New("it hung")
		}},
		"the connection is cut": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var (
				failing    atomic.Bool
				repaired   = make(chan struct{})
				repairOnce sync.Once
			)
			client, conn := connectThrough(t, func(request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
				if failing.Load() && c.instead != nil && request.Command() == "find" && request.Body().Lookup("find").StringValue() == revocations {
					return c.instead(request, repaired, send)
				}
				return send(request)
			})
			// It also runs if the test fails earlier, because the proxy waits for the hanging
			// command.
			repair := func() { repairOnce.Do(func() { failing.Store(false); close(repaired) }) }
			t.Cleanup(repair)
			db := database(t)
			a := connectNode(t, db, cached(maxStaleness, 0))
			b := newNode(t, client.Database(db.Name()), nil, time.Second, cached(maxStaleness, 0))
			users := a.population(t, 9, 2)
			sessions := sessionsOf(users)
			valid := sessions[len(sessions)-1] // its user is not changed
			b.fill(t, sessions)
			// There is one reader only, because without the cache it reads the database.
			load := b.load(1, sessions)

			failing.Store(true)
			if c.instead == nil {
				conn.proxy.Close()
			}
			cut := time.Now()
			spread(t, maxStaleness, endings(t.Context(), a, users[:len(users)-1]))
			eventually(t, 10*time.Second, "the event cache.suspended", func() bool {
				return b.events.count(event.CacheSuspended) > 0
			})
			suspended := time.Since(cut)
			if c.instead != nil {
				allRefused(t, 10*time.Second, sessions)
			}
			for _, w := range sessions {
				ended, accepted := w.ended.Load(), w.accepted.Load()
				if ended != nil && accepted != nil && accepted.Sub(*ended) > maxStaleness {
					t.Errorf("a session was accepted %v after its revocation was acknowledged, want at most %v", accepted.Sub(*ended), maxStaleness)
				}
			}
			found := delays(sessions)
			t.Logf("%d sessions were revoked; suspended after %v; still accepted after the acknowledgement: p50 %v, p99 %v, max %v",
				len(found), suspended.Round(time.Millisecond), percentile(found, 50), percentile(found, 99), percentile(found, 100))
			err := load.end()
			if c.instead != nil {
				if err != nil {
					t.Errorf("a read failed: %v", err)
				}
				before := b.tokens.reads.Load()
				for range 3 {
					if err := b.read(valid); err != nil || valid.refused.Load() {
						t.Fatalf("while revocations cannot be read: refused %v, error %v", valid.refused.Load(), err)
					}
				}
				if n := b.tokens.reads.Load() - before; n != 3 {
					t.Errorf("while revocations cannot be read, 3 reads made %d look-ups, want 3", n)
				}
			} else if err == nil || errors.Is(err, strategy.ErrInvalidToken) {
				t.Errorf("without a connection: got %v, want a failure", err)
			}

			if c.instead == nil {
				conn.start()
			}
			repair()
			eventually(t, 20*time.Second, "the event cache.resumed", func() bool {
				return b.events.count(event.CacheResumed) > 0
			})
			b.following(t)
			if err := b.read(valid); err != nil {
				t.Fatal(err)
			}
			before := b.tokens.reads.Load()
			if err := b.read(valid); err != nil || valid.refused.Load() {
				t.Errorf("after the repair: refused %v, error %v", valid.refused.Load(), err)
			}
			if n := b.tokens.reads.Load() - before; n != 0 {
				t.Errorf("after the repair, a cached session was looked up %d times", n)
			}
			b.sweep(t, sessions)
			if n, m := b.events.count(event.CacheSuspended), b.events.count(event.CacheResumed); n != 1 || m != 1 {
				t.Errorf("%d events cache.suspended and %d cache.resumed, want one of each", n, m)
			}
		})
	}
}

// A cache hit sends no command, and does not make the instance poll more often.
func TestCacheHitsSendNoCommand(t *testing.T) {
	const interval, during, reads = 100 * time.Millisecond, 1500 * time.Millisecond, 10_000
	db := database(t)
	a, b := connectNode(t, db, strategy.Config{PublishRevocations: true}), connectNode(t, db, cached(30*time.Second, interval))
	sessions := sessionsOf(a.population(t, 10, 2))
	if err := a.sessions.DestroyToken(t.Context(), sessions[0].token); err != nil {
		t.Fatal(err)
	}
	sessions = sessions[1:]
	b.following(t)
	b.fill(t, sessions)

	for name, reads := range map[string]int{"quiet": 0, "under load": reads} {
		t.Run(name, func(t *testing.T) {
			b.sent.reset()
			start := time.Now()
			share(t, max(reads, 1), func(n int) error {
				time.Sleep(time.Until(start.Add(during * time.Duration(n) / time.Duration(max(reads, 1)))))
				if reads == 0 {
					time.Sleep(during)
					return nil
				}
				_, err := b.sessions.ReadToken(t.Context(), sessions[n%len(sessions)].token)
				return err
			})
			took := time.Since(start)
			sent := b.sent.all()
			for _, c := range sent {
				at, _ := c.Lookup("filter", "at", "$gte").DateTimeOK()
				if lookup(c, "find") != revocations || at == 0 || lookup(c, "sort.at") != int64(1) {
					t.Errorf("sent %v, want only finds of the latest revocations", c)
				}
			}
			most := int(took/interval) + 2
			t.Logf("%d reads and %d commands in %v", reads, len(sent), took.Round(time.Millisecond))
			if len(sent) == 0 || len(sent) > most {
				t.Errorf("sent %d commands in %v, want 1 to %d", len(sent), took, most)
			}
		})
	}
	t.Run("by an index", func(t *testing.T) {
		testserver.Require(t, server.Capabilities.Explain, "explain")
		b.sent.reset()
		b.following(t)
		c := b.sent.named("find")[0]
		var out bson.Raw
		err := db.RunCommand(t.Context(), bson.D{{Key: "explain", Value: explainable(c)}, {Key: "verbosity", Value: "queryPlanner"}}).Decode(&out)
		if err != nil {
			t.Fatal(err)
		}
		if plan := out.Lookup("queryPlanner", "winningPlan").String(); plan == "" || strings.Contains(plan, "COLLSCAN") {
			t.Errorf("%v scans the collection: %s", c, plan)
		}
	})
}

// Every revocation is published as one small document, with a majority's acknowledgement.
func TestRevocationIsPublishedAsOneSmallDocument(t *testing.T) {
	client, sent := connect(t)
	db := testserver.Database(t, client)
	a := newNode(t, db, sent, 0, strategy.Config{PublishRevocations: true})
	users := a.population(t, 2+len(userEnds), len(sessionEnds))
	check := func(name, field string, end func() error) {
		t.Run(name, func(t *testing.T) {
			if _, err := db.Collection(revocations).DeleteMany(t.Context(), bson.D{}); err != nil {
				t.Fatal(err)
			}
			sent.reset()
			before := time.Now()
			if err := end(); err != nil {
				t.Fatal(err)
			}
			var published []bson.Raw
			for _, c := range sent.named("update") {
				if lookup(c, "update") == revocations {
					published = append(published, c)
				}
			}
			if len(published) != 1 {
				t.Fatalf("%d revocations were published, want 1: %v", len(published), published)
			}
			if c := published[0]; lookup(c, "updates.0.upsert") != true || lookup(c, "updates.0.u.$currentDate.at") != true ||
				lookup(c, "writeConcern.w") != "majority" || lookup(c, "updates.1") != nil {
				t.Errorf("published by %v, want one upsert with the server's date and the write concern majority", c)
			}
			cur, err := db.Collection(revocations).Find(t.Context(), bson.D{})
			if err != nil {
				t.Fatal(err)
			}
			var docs []bson.Raw
			if err := cur.All(t.Context(), &docs); err != nil || len(docs) != 1 {
				t.Fatalf("%d documents, error %v; want 1", len(docs), err)
			}
			doc := docs[0]
			elems, err := doc.Elements()
			if err != nil {
				t.Fatal(err)
			}
			var keys []string
			for _, e := range elems {
				keys = append(keys, e.Key())
			}
			slices.Sort(keys)
			want := []string{"_id", "at", field}
			slices.Sort(want)
			if !slices.Equal(keys, want) {
				t.Errorf("the document has %v, want %v", keys, want)
			}
			if subtype, _, ok := doc.Lookup("_id").BinaryOK(); !ok || subtype != bson.TypeBinaryUUID {
				t.Errorf("_id is %v, want a UUID", doc.Lookup("_id"))
			}
			// The clock of the server may differ a little.
			if at, ok := doc.Lookup("at").TimeOK(); !ok || at.Sub(before).Abs() > time.Minute {
				t.Errorf("at is %v, want the current time", doc.Lookup("at"))
			}
			for _, u := range users {
				for _, w := range u.sessions {
					if strings.Contains(doc.String(), w.token) {
						t.Errorf("the document contains a secret: %v", doc)
					}
				}
			}
		})
	}
	for n, way := range sessionEnds {
		check(way.name, way.field, func() error { return way.end(t.Context(), a, users[0].sessions[n]) })
	}
	for n, way := range userEnds {
		check(way.name, "user_id", func() error { return way.end(t.Context(), a, users[1+n]) })
	}
	check("UserChanged", "user_id", func() error { return a.sessions.UserChanged(t.Context(), users[len(users)-1].ID, strategy.RevokedAll) })
}

// Revocations are ordered by the server's clock. The instances' clocks do not matter.
func TestCacheFollowsInstancesWithOtherClocks(t *testing.T) {
	ahead := func(d time.Duration) func() time.Time { return func() time.Time { return time.Now().Add(d) } }
	for _, c := range []struct {
		name string
		a, b func() time.Time
	}{
		{"the revoking instance is behind", ahead(-30 * time.Second), nil},
		{"the revoking instance is ahead", ahead(30 * time.Second), nil},
		{"the following instance is behind", nil, ahead(-30 * time.Second)},
		{"the following instance is ahead", nil, ahead(30 * time.Second)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const interval = 200 * time.Millisecond
			db := database(t)
			cfgA, cfgB := cached(30*time.Second, interval), cached(30*time.Second, interval)
			cfgA.Now, cfgB.Now = c.a, c.b
			a, b := connectNode(t, db, cfgA), connectNode(t, db, cfgB)
			users := a.population(t, 2*len(userEnds), len(sessionEnds))
			sessions := sessionsOf(users)
			b.fill(t, sessions)
			load := b.load(2, sessions)
			spread(t, 2*interval, endings(t.Context(), a, users))
			allRefused(t, 10*time.Second, sessions)
			if err := load.end(); err != nil {
				t.Errorf("a read failed: %v", err)
			}
			polls := b.tokens.all()
			for _, w := range sessions {
				wantRefusedInTime(t, w, polls)
			}
			b.sweep(t, sessions)
		})
	}
}

func TestCloseStopsFollowingRevocations(t *testing.T) {
	const interval = 50 * time.Millisecond
	db := database(t)
	a, b := connectNode(t, db, cached(10*time.Second, interval)), connectNode(t, db, cached(10*time.Second, interval))
	sessions := sessionsOf(a.population(t, 1, 2))
	b.fill(t, sessions)
	if !following() {
		t.Fatal("no goroutine follows the revocations")
	}
	a.sessions.Close()
	b.sessions.Close()
	b.sessions.Close()
	if following() {
		t.Error("the goroutine that follows outlives Close")
	}
	b.sent.reset()
	if err := a.sessions.DestroyToken(t.Context(), sessions[0].token); err != nil {
		t.Fatal(err)
	}
	b.sweepAfterClose(t, sessions)
	time.Sleep(4 * interval)
	for _, c := range b.sent.all() {
		if lookup(c, "find") == revocations {
			t.Fatal("revocations were polled after Close")
		}
	}
}

// sweepAfterClose checks that the instance works without its cache. The first of the sessions is
// revoked.
func (n *node) sweepAfterClose(t *testing.T, sessions []*watched) {
	t.Helper()
	for i, want := range []error{strategy.ErrInvalidToken, nil} {
		if _, err := n.sessions.ReadToken(t.Context(), sessions[i].token); !errors.Is(err, want) {
			t.Errorf("after Close session %d: got %v, want %v", i, err, want)
		}
	}
}

// following reports whether an instance's goroutine follows the revocations.
func following() bool {
	var stacks strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
	return strings.Contains(stacks.String(), "strategy.(*Database[...]).follow")
}
