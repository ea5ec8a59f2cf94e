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
	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/integration/internal/wireproxy"
	"github.com/latchkey-go/latchkey/internal/contract"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

const (
	// revocations is the name of the collection that instances follow.
	revocations = "revocations"
	// tolerance is how much later than an interval a revocation may be seen.
	tolerance = 250 * time.Millisecond
)

// node is one of several instances of an application: all it shares is the database.
type node struct {
	tokens   *followedTokens
	sessions *strategy.Database[contract.Member, uuid.UUID]
	accounts *account.Manager[contract.Member, uuid.UUID]
	sent     *recorder
	events   events
}

// newNode returns an instance on a client that records its commands in sent. A
// timeout of 0 is the default.
func newNode(t testing.TB, db *mongo.Database, sent *recorder, timeout time.Duration, cfg strategy.Config) *node {
	t.Helper()
	i := &node{sent: sent}
	i.tokens = &followedTokens{Tokens: newTokens[uuid.UUID](t, db, mongostore.TokensConfig{Lifetime: time.Hour, Timeout: timeout})}
	users := newUsers[contract.Member](t, db)
	var err error
	i.accounts, err = account.NewManager(users, uuid.New, account.Config{
		Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true, Now: cfg.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Lifetime, cfg.OnEvent = time.Hour, i.events.add
	if i.sessions, err = strategy.NewDatabase(i.tokens, users, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.sessions.Close)
	return i
}

// join returns an instance with a client of its own.
func join(t testing.TB, db *mongo.Database, cfg strategy.Config) *node {
	t.Helper()
	client, sent := connect(t)
	return newNode(t, client.Database(db.Name()), sent, 0, cfg)
}

func cached(maxStaleness, interval time.Duration) strategy.Config {
	return strategy.Config{Cache: strategy.Cache{MaxStaleness: maxStaleness, FollowInterval: interval}}
}

// events are what happened in an instance.
type events struct {
	mu  sync.Mutex
	all []strategy.Event
}

func (e *events) add(_ context.Context, event strategy.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
}

func (e *events) count(kind strategy.EventKind) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, event := range e.all {
		if event.Kind == kind {
			n++
		}
	}
	return n
}

// followedTokens is a store that notes when its log was followed: on a machine that
// is busy the follower too comes late, and that is no fault of what it does.
type followedTokens struct {
	*mongostore.Tokens[uuid.UUID]
	reads atomic.Int64
	mu    sync.Mutex
	polls []poll // that succeeded
}

type poll struct{ began, ended time.Time }

func (s *followedTokens) ByToken(ctx context.Context, digest string, createdAfter time.Time) (strategy.AccessToken[uuid.UUID], error) {
	s.reads.Add(1)
	return s.Tokens.ByToken(ctx, digest, createdAfter)
}

func (s *followedTokens) FollowRevocations() strategy.RevocationFollower[uuid.UUID] {
	return follower{s, s.Tokens.FollowRevocations()}
}

type follower struct {
	s *followedTokens
	strategy.RevocationFollower[uuid.UUID]
}

func (f follower) Next(ctx context.Context) ([]strategy.Revocation[uuid.UUID], error) {
	p := poll{began: time.Now()}
	found, err := f.RevocationFollower.Next(ctx)
	p.ended = time.Now()
	if err == nil {
		f.s.mu.Lock()
		defer f.s.mu.Unlock()
		f.s.polls = append(f.s.polls, p)
	}
	return found, err
}

func (s *followedTokens) all() []poll {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.polls)
}

// following waits until an instance has asked for revocations from now on, and
// knows what was published before.
func (i *node) following(t testing.TB) {
	t.Helper()
	asked := time.Now()
	eventually(t, 20*time.Second, "the revocations are followed", func() bool {
		polls := i.tokens.all()
		// The one before the last: of the last the instance may not have made use yet.
		return len(polls) > 1 && polls[len(polls)-2].began.After(asked)
	})
}

// watched is a session that one instance ends while another is asked for it.
type watched struct {
	token string
	id    uuid.UUID
	user  *watchedUser

	ended    atomic.Pointer[time.Time] // when its end was acknowledged
	accepted atomic.Pointer[time.Time] // when the last read began that was accepted
	refused  atomic.Bool
}

type watchedUser struct {
	contract.Member
	sessions []*watched
}

func (u *watchedUser) ended() {
	now := time.Now()
	for _, w := range u.sessions {
		w.ended.Store(&now)
	}
}

// population makes users, with a number of sessions each.
func (i *node) population(t testing.TB, users, each int) (all []*watchedUser) {
	t.Helper()
	var mu sync.Mutex
	share(t, users, func(n int) error {
		member, err := i.accounts.Register(t.Context(), contract.Member{User: account.User[uuid.UUID]{Email: fmt.Sprintf("%s@example.com", uuid.New())}}, password)
		if err != nil {
			return err
		}
		u := &watchedUser{Member: member}
		for range each {
			secret, session, err := i.sessions.WriteToken(t.Context(), member)
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

func sessionsOf(users []*watchedUser) (all []*watched) {
	for _, u := range users {
		all = append(all, u.sessions...)
	}
	return all
}

// share calls f for 0 to n-1, several at a time.
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

// fill has an instance read sessions, so that they are in its cache.
func (i *node) fill(t testing.TB, sessions []*watched) {
	t.Helper()
	eventually(t, 20*time.Second, "the revocations are followed", func() bool { return len(i.tokens.all()) > 0 })
	share(t, len(sessions), func(n int) error {
		_, err := i.sessions.ReadToken(t.Context(), sessions[n].token)
		return err
	})
}

// read asks for a session, and notes the answer.
func (i *node) read(w *watched) error {
	began := time.Now()
	_, err := i.sessions.ReadToken(context.Background(), w.token)
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

// load is readers that ask an instance for sessions, all the time.
type load struct {
	stop  context.CancelFunc
	group sync.WaitGroup
	reads atomic.Int64
	mu    sync.Mutex
	err   error // the last one
}

func (i *node) load(readers int, sessions []*watched) *load {
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
					// What was refused is not cached: that would be a load on the database.
					// Now and then, because it must stay so.
					if w.refused.Load() && rand.IntN(1000) > 0 {
						continue
					}
					l.reads.Add(1)
					if err := i.read(w); err != nil {
						l.mu.Lock()
						l.err = err
						l.mu.Unlock()
					}
				}
				time.Sleep(time.Millisecond) // the instances and the server have to run too
			}
		})
	}
	return l
}

func (l *load) end() error {
	l.stop()
	l.group.Wait()
	return l.err
}

// The ways in which one session ends, and all of a user.
var (
	sessionEnds = []struct {
		name, field string // of the document that tells others
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

// endings returns what ends the sessions of users in all ways, in random order:
// half of the users as a whole, the others one session after the other.
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

// spread carries out endings, evenly over a time.
func spread(t testing.TB, over time.Duration, all []func() error) {
	t.Helper()
	start := time.Now()
	share(t, len(all), func(n int) error {
		time.Sleep(time.Until(start.Add(over * time.Duration(n) / time.Duration(len(all)))))
		return all[n]()
	})
}

// allRefused waits until what has ended was refused.
func allRefused(t testing.TB, atMost time.Duration, sessions []*watched) {
	t.Helper()
	eventually(t, atMost, "all that has ended is refused", func() bool {
		return !slices.ContainsFunc(sessions, func(w *watched) bool { return w.ended.Load() != nil && !w.refused.Load() })
	})
}

// sweep checks every session once more.
func (i *node) sweep(t testing.TB, sessions []*watched) {
	t.Helper()
	share(t, len(sessions), func(n int) error {
		var want error
		if sessions[n].ended.Load() != nil {
			want = strategy.ErrInvalidToken
		}
		if _, err := i.sessions.ReadToken(t.Context(), sessions[n].token); !errors.Is(err, want) {
			return fmt.Errorf("in the end the other instance answers %v, want %v", err, want)
		}
		return nil
	})
}

// delays returns how long after its end each session was still accepted, the
// shortest first.
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

func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)-1)*p/100].Round(time.Millisecond)
}

// What one instance revokes, in whatever way, another refuses as soon as it has
// asked, which it does once a second, however busy it is.
func TestCacheRefusesWhatAnotherInstanceRevoked(t *testing.T) {
	users, over := 25, 4*time.Second // without indexes, every look-up reads the whole collection
	if server.Capabilities.Explain {
		users, over = 2500, 10*time.Second
	}
	const each, interval = 4, time.Second
	db := database(t)
	cfg := strategy.Config{Cache: strategy.Cache{MaxStaleness: 30 * time.Second}} // and the default interval
	a, b := join(t, db, cfg), join(t, db, cfg)
	all := a.population(t, users, each)
	sessions := sessionsOf(all)
	ending := all[:users*9/10] // the others stay
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
		t.Errorf("a read could not be answered: %v", err)
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
		complain("a session was accepted %v after its end was acknowledged, want at most %v", most, interval+tolerance)
	}
	wantPolls(t, polls[from:], interval)
	for _, w := range sessions {
		wantRefusedInTime(t, w, polls)
	}
	b.sweep(t, sessions)
}

// wantRefusedInTime checks that no read was accepted that began after the end of the
// first poll that began after the session's end.
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
		t.Errorf("a session was accepted %v after the instance had asked for revocations, want none", late)
	}
	// What a poll has found is made use of before the next one begins.
	if n+1 < len(polls) && accepted.After(polls[n+1].began) {
		t.Errorf("a session was accepted although the instance had asked for revocations, and again")
	}
}

// wantPolls checks that an instance asks once an interval.
func wantPolls(t *testing.T, polls []poll, interval time.Duration) {
	t.Helper()
	if len(polls) < 2 {
		t.Fatalf("asked %d times", len(polls))
	}
	var gaps []time.Duration
	for n := range polls[1:] {
		gaps = append(gaps, polls[n+1].began.Sub(polls[n].began))
	}
	slices.Sort(gaps)
	most := gaps[len(gaps)-1]
	t.Logf("asked %d times, every %v, at most %v apart", len(polls), percentile(gaps, 50), most.Round(time.Millisecond))
	took := polls[len(polls)-1].began.Sub(polls[0].began)
	if n := int(took/interval) + 2; len(polls) > n || len(polls) < n/2 {
		t.Errorf("asked %d times in %v, want once in %v", len(polls), took, interval)
	}
}

// An instance that can follow no longer accepts nothing for longer than
// MaxStaleness, says so, and reads the database until it can.
func TestCacheThatCannotFollowIsNotUsed(t *testing.T) {
	const maxStaleness = 2 * time.Second
	for name, c := range map[string]struct {
		// instead answers a find of revocations; nil is no way to the server at all.
		instead func(find wireproxy.Message, mended <-chan struct{}, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error)
	}{
		"revocations cannot be read": {func(find wireproxy.Message, _ <-chan struct{}, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
			return wireproxy.Instead(bson.D{
				{Key: "ok", Value: 0.0}, {Key: "code", Value: 13}, {Key: "codeName", Value: "Unauthorized"}, {Key: "errmsg", Value: "not authorized"},
			}, find, send)
		}},
		"reading revocations hangs": {func(_ wireproxy.Message, mended <-chan struct{}, _ func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
			<-mended
			return nil, errors.New("it hung")
		}},
		"the connection is cut": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var (
				failing  atomic.Bool
				mended   = make(chan struct{})
				mendOnce sync.Once
			)
			client, way := connectThrough(t, func(request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
				if failing.Load() && c.instead != nil && request.Command() == "find" && request.Body().Lookup("find").StringValue() == revocations {
					return c.instead(request, mended, send)
				}
				return send(request)
			})
			// Also where the test fails before: the proxy waits for what hangs.
			mend := func() { mendOnce.Do(func() { failing.Store(false); close(mended) }) }
			t.Cleanup(mend)
			db := database(t)
			a := join(t, db, cached(maxStaleness, 0))
			b := newNode(t, client.Database(db.Name()), nil, time.Second, cached(maxStaleness, 0))
			users := a.population(t, 9, 2)
			sessions := sessionsOf(users)
			good := sessions[len(sessions)-1] // its user stays
			b.fill(t, sessions)
			// One reader: without its cache, the instance puts it on the database.
			load := b.load(1, sessions)

			failing.Store(true)
			if c.instead == nil {
				way.proxy.Close()
			}
			cut := time.Now()
			spread(t, maxStaleness, endings(t.Context(), a, users[:len(users)-1]))
			eventually(t, 10*time.Second, "the instance says that its cache is suspended", func() bool {
				return b.events.count(strategy.EventCacheSuspended) > 0
			})
			suspended := time.Since(cut)
			if c.instead != nil {
				allRefused(t, 10*time.Second, sessions)
			}
			for _, w := range sessions { // also of the last poll before the cut, which may have seen nothing
				ended, accepted := w.ended.Load(), w.accepted.Load()
				if ended != nil && accepted != nil && accepted.Sub(*ended) > maxStaleness {
					t.Errorf("a session was accepted %v after its end was acknowledged, want at most %v", accepted.Sub(*ended), maxStaleness)
				}
			}
			found := delays(sessions)
			t.Logf("%d sessions were revoked; suspended after %v; still accepted after the acknowledgement: p50 %v, p99 %v, max %v",
				len(found), suspended.Round(time.Millisecond), percentile(found, 50), percentile(found, 99), percentile(found, 100))
			err := load.end()
			if c.instead != nil {
				if err != nil {
					t.Errorf("a read could not be answered: %v", err)
				}
				before := b.tokens.reads.Load()
				for range 3 {
					if err := b.read(good); err != nil || good.refused.Load() {
						t.Fatalf("while it cannot follow: refused %v, error %v", good.refused.Load(), err)
					}
				}
				if n := b.tokens.reads.Load() - before; n != 3 {
					t.Errorf("while it cannot follow, 3 reads looked %d tokens up, want 3", n)
				}
			} else if err == nil || errors.Is(err, strategy.ErrInvalidToken) {
				t.Errorf("without a connection: got %v, want a failure", err)
			}

			if c.instead == nil {
				way.start()
			}
			mend()
			eventually(t, 20*time.Second, "the instance says that its cache is used again", func() bool {
				return b.events.count(strategy.EventCacheResumed) > 0
			})
			b.following(t)
			if err := b.read(good); err != nil {
				t.Fatal(err)
			}
			before := b.tokens.reads.Load()
			if err := b.read(good); err != nil || good.refused.Load() {
				t.Errorf("after the mending: refused %v, error %v", good.refused.Load(), err)
			}
			if n := b.tokens.reads.Load() - before; n != 0 {
				t.Errorf("after the mending, a cached session was looked up %d times", n)
			}
			b.sweep(t, sessions)
			if n, m := b.events.count(strategy.EventCacheSuspended), b.events.count(strategy.EventCacheResumed); n != 1 || m != 1 {
				t.Errorf("%d events of suspension and %d of its end, want one of each", n, m)
			}
		})
	}
}

// Hits cause no command, and the follower's do not grow with them.
func TestCacheHitsCauseNoCommand(t *testing.T) {
	const interval, during, reads = 100 * time.Millisecond, 1500 * time.Millisecond, 10_000
	db := database(t)
	a, b := join(t, db, strategy.Config{PublishRevocations: true}), join(t, db, cached(30*time.Second, interval))
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
					t.Errorf("sent %v, want only what asks for the latest revocations", c)
				}
			}
			most := int(took/interval) + 2
			t.Logf("%d reads and %d commands in %v", reads, len(sent), took.Round(time.Millisecond))
			if len(sent) == 0 || len(sent) > most {
				t.Errorf("sent %d commands in %v, want some, and at most %d", len(sent), took, most)
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
			t.Errorf("%v reads the whole collection: %s", c, plan)
		}
	})
}

// Every end is told to others by one small document, which a majority has.
func TestCacheRevocationsAreOneSmallDocumentEach(t *testing.T) {
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
			var told []bson.Raw
			for _, c := range sent.named("update") {
				if lookup(c, "update") == revocations {
					told = append(told, c)
				}
			}
			if len(told) != 1 {
				t.Fatalf("%d revocations were published, want 1: %v", len(told), told)
			}
			if c := told[0]; lookup(c, "updates.0.upsert") != true || lookup(c, "updates.0.u.$currentDate.at") != true ||
				lookup(c, "writeConcern.w") != "majority" || lookup(c, "updates.1") != nil {
				t.Errorf("published by %v, want one upsert, dated by the server, acknowledged by a majority", c)
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
			// The server may be another machine, with another clock, but not far off.
			if at, ok := doc.Lookup("at").TimeOK(); !ok || at.Sub(before).Abs() > time.Minute {
				t.Errorf("at is %v, want the time", doc.Lookup("at"))
			}
			for _, u := range users {
				for _, w := range u.sessions {
					if strings.Contains(doc.String(), w.token) {
						t.Errorf("the document has a token: %v", doc)
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
	check("ForgetUser", "user_id", func() error { return a.sessions.ForgetUser(t.Context(), users[len(users)-1].ID) })
}

// The application's clocks do not matter: the server's orders what was revoked.
func TestCacheFollowsInstancesWithOtherClocks(t *testing.T) {
	ahead := func(d time.Duration) func() time.Time { return func() time.Time { return time.Now().Add(d) } }
	for _, c := range []struct {
		name string
		a, b func() time.Time
	}{
		{"the one that revokes is behind", ahead(-30 * time.Second), nil},
		{"the one that revokes is ahead", ahead(30 * time.Second), nil},
		{"the one that follows is behind", nil, ahead(-30 * time.Second)},
		{"the one that follows is ahead", nil, ahead(30 * time.Second)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const interval = 200 * time.Millisecond
			db := database(t)
			cfgA, cfgB := cached(30*time.Second, interval), cached(30*time.Second, interval)
			cfgA.Now, cfgB.Now = c.a, c.b
			a, b := join(t, db, cfgA), join(t, db, cfgB)
			users := a.population(t, 2*len(userEnds), len(sessionEnds))
			sessions := sessionsOf(users)
			b.fill(t, sessions)
			load := b.load(2, sessions)
			spread(t, 2*interval, endings(t.Context(), a, users))
			allRefused(t, 10*time.Second, sessions)
			if err := load.end(); err != nil {
				t.Errorf("a read could not be answered: %v", err)
			}
			polls := b.tokens.all()
			for _, w := range sessions {
				wantRefusedInTime(t, w, polls)
			}
			b.sweep(t, sessions)
		})
	}
}

func TestCacheCloseEndsTheFollowing(t *testing.T) {
	const interval = 50 * time.Millisecond
	db := database(t)
	a, b := join(t, db, cached(10*time.Second, interval)), join(t, db, cached(10*time.Second, interval))
	sessions := sessionsOf(a.population(t, 1, 2))
	b.fill(t, sessions)
	if !following() {
		t.Fatal("nobody follows the revocations")
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
			t.Fatal("revocations were asked for after Close")
		}
	}
}

// sweepAfterClose checks that the instance goes on, without its cache.
func (i *node) sweepAfterClose(t *testing.T, sessions []*watched) {
	t.Helper()
	for n, want := range []error{strategy.ErrInvalidToken, nil} {
		if _, err := i.sessions.ReadToken(t.Context(), sessions[n].token); !errors.Is(err, want) {
			t.Errorf("after Close session %d is answered with %v, want %v", n, err, want)
		}
	}
}

func following() bool {
	var stacks strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
	return strings.Contains(stacks.String(), "strategy.(*Database[...]).follow")
}
