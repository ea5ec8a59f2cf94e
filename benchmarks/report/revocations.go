package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/benchmarks/internal/candidate"
	"github.com/latchkey-go/latchkey/benchmarks/internal/load"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

const (
	// followInterval is how often an instance reads revocations: the default of
	// strategy.Cache.
	followInterval = time.Second
	// followTolerance is how much longer than an interval a session may be accepted after
	// its revocation.
	followTolerance = 250 * time.Millisecond

	revocationConns = 16
	revocationsName = "revocations"
)

// revocations is a measurement of sessions that are revoked on one instance and requested
// from another.
type revocations struct {
	cached, revoked int
	rate            float64         // of the load on the other instance, in requests/s
	refused         []time.Duration // from acknowledgement to refusal, sorted
	commands        float64         // to read revocations, per second
}

func (r *results) measureRevocations(ctx context.Context) error {
	l, err := r.open(ctx, r.settings.users, r.settings.users)
	if err != nil {
		return err
	}
	defer l.Close()
	p, err := newPair(ctx, l.Data)
	if err != nil {
		return err
	}
	defer p.close()
	for _, conns := range []int{0, revocationConns} {
		r.say("revocations across instances, with %d connections of load", conns)
		found, err := p.run(ctx, conns, max(1, r.settings.users/8), 10*r.settings.slot)
		if err != nil {
			return err
		}
		r.revocations = append(r.revocations, found)
	}
	return nil
}

// pair is two instances on one database.
type pair struct {
	revoking, other *instance
	sessions        []*session
	next            int // sessions before this index have been revoked
}

// session is a session that one instance revokes while it is requested from the other.
// Times are nanoseconds since start; 0 means not yet.
type session struct {
	token string
	id    uuid.UUID
	user  uuid.UUID

	revoked  atomic.Int64 // when the revocation was acknowledged
	accepted atomic.Int64 // when the last accepted read began
	refused  atomic.Int64 // when the first refused read began
}

var start = time.Now()

func now() int64 { return int64(time.Since(start)) }

func newPair(ctx context.Context, data candidate.Data) (*pair, error) {
	p := &pair{}
	err := func() (err error) {
		if p.revoking, err = newInstance(data); err != nil {
			return err
		}
		if p.other, err = newInstance(data); err != nil {
			return err
		}
		for i, token := range data.Tokens {
			p.sessions = append(p.sessions, &session{token: token, user: data.UserIDs[i]})
		}
		for _, i := range []*instance{p.revoking, p.other} { // an instance caches nothing before it follows
			if err := i.log.waitUntilFollowed(ctx); err != nil {
				return err
			}
			if err := candidate.ForEach(len(p.sessions), func(n int) error {
				found, err := i.sessions.ReadToken(ctx, p.sessions[n].token)
				p.sessions[n].id = found.ID
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	}()
	if err != nil {
		p.close()
		return nil, err
	}
	rand.Shuffle(len(p.sessions), func(i, j int) { p.sessions[i], p.sessions[j] = p.sessions[j], p.sessions[i] })
	return p, nil
}

func (p *pair) close() {
	for _, i := range []*instance{p.revoking, p.other} {
		if i != nil {
			i.close()
		}
	}
}

// run revokes n random sessions on one instance, evenly over a time, and measures when the
// other refuses them. Meanwhile conns connections request the remaining sessions from the
// other instance, as fast as they can.
func (p *pair) run(ctx context.Context, conns, n int, over time.Duration) (found revocations, err error) {
	ending := p.sessions[p.next:min(p.next+n, len(p.sessions))]
	p.next += len(ending)
	found.cached, found.revoked = len(p.sessions), len(ending)
	// Normally all sessions are refused an interval after the last revocation.
	const patience = 10 * followInterval
	var loaded func() error
	if conns > 0 && p.next < len(p.sessions) {
		if loaded, err = p.load(conns, over+followInterval+followTolerance, &found.rate); err != nil {
			return found, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, over+patience)
	defer cancel()
	var group sync.WaitGroup
	var failed error
	began, commands := time.Now(), p.other.commands.Load()
	group.Go(func() {
		if failed = p.revoke(ctx, ending, over); failed != nil {
			cancel()
		}
	})
	watched := p.other.watch(ctx, ending)
	group.Wait()
	if loaded != nil {
		watched = errors.Join(watched, loaded())
	}
	found.commands = float64(p.other.commands.Load()-commands) / time.Since(began).Seconds()
	if err := errors.Join(failed, watched); err != nil {
		return found, err
	}
	for _, s := range ending {
		found.refused = append(found.refused, time.Duration(max(0, max(s.refused.Load(), s.accepted.Load())-s.revoked.Load())))
	}
	slices.Sort(found.refused)
	return found, p.check(ctx)
}

// load puts the other instance under load. wait waits for the end of the load, and then
// rate is set.
func (p *pair) load(conns int, duration time.Duration, rate *float64) (wait func() error, err error) {
	addr, closeServer, err := p.other.serve()
	if err != nil {
		return nil, err
	}
	var requests [][]byte
	for _, s := range p.sessions[p.next:] {
		requests = append(requests, rawRequest(addr, candidate.Header{Name: "Authorization", Value: "Bearer " + s.token}))
	}
	done := make(chan error, 1)
	go func() {
		defer closeServer()
		result, err := load.Run(addr, requests, load.Options{Conns: conns, Duration: duration})
		*rate = result.Rate
		done <- err
	}()
	return func() error { return <-done }, nil
}

// watch reads sessions until all are refused. Several goroutines share them, because each
// refusal takes a look-up in the database and would delay the following reads.
func (i *instance) watch(ctx context.Context, sessions []*session) error {
	const watchers = 16
	var group sync.WaitGroup
	var errs [watchers]error
	for w := range watchers {
		group.Go(func() {
			errs[w] = i.watchSome(ctx, sessions[w*len(sessions)/watchers:(w+1)*len(sessions)/watchers])
		})
	}
	group.Wait()
	return errors.Join(errs[:]...)
}

// watchSome reads sessions in a loop until all are refused.
func (i *instance) watchSome(ctx context.Context, sessions []*session) error {
	for !allRefused(sessions) {
		for _, s := range sessions {
			if s.refused.Load() != 0 {
				continue
			}
			if err := i.read(ctx, s); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("report: not all revoked sessions were refused: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

func allRefused(sessions []*session) bool {
	return !slices.ContainsFunc(sessions, func(s *session) bool { return s.refused.Load() == 0 })
}

// check reports an error unless the other instance refuses the revoked sessions and accepts
// all others.
func (p *pair) check(ctx context.Context) error {
	return candidate.ForEach(len(p.sessions), func(n int) error {
		s := p.sessions[n]
		var want error
		if s.revoked.Load() != 0 {
			want = strategy.ErrInvalidToken
		}
		if _, err := p.other.sessions.ReadToken(ctx, s.token); !errors.Is(err, want) {
			return fmt.Errorf("report: in the end, a session is read with error %v, want %v", err, want)
		}
		return nil
	})
}

// revoke revokes sessions evenly over a time, with all of Latchkey's functions that revoke.
func (p *pair) revoke(ctx context.Context, sessions []*session, over time.Duration) error {
	by := p.revoking
	functions := []func(s *session) error{
		func(s *session) error { return by.sessions.DestroyToken(ctx, s.token) },
		func(s *session) error { return by.sessions.DestroySession(ctx, s.user, s.id) },
		func(s *session) error { _, _, err := by.sessions.RotateToken(ctx, s.token); return err },
		func(s *session) error { return by.sessions.DestroyAll(ctx, s.user) },
		func(s *session) error { return by.accounts.Deactivate(ctx, s.user) },
		func(s *session) error { return by.accounts.RevokeTokens(ctx, s.user) },
	}
	begin := time.Now()
	return candidate.ForEach(len(sessions), func(n int) error {
		time.Sleep(time.Until(begin.Add(over * time.Duration(n) / time.Duration(len(sessions)))))
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := functions[n%len(functions)](sessions[n]); err != nil {
			return fmt.Errorf("report: revoke: %w", err)
		}
		sessions[n].revoked.Store(now())
		return nil
	})
}

// instance is an instance of an application, with its own MongoDB client and cache. It is
// wired by hand, because it replaces the store of tokens by followLog.
type instance struct {
	client   *mongo.Client
	log      *followLog
	sessions *strategy.Database[candidate.Member, uuid.UUID]
	accounts *account.Manager[candidate.Member, uuid.UUID]
	commands atomic.Int64 // sent to read revocations
}

// newInstance returns an instance. After an error it must be closed too, unless it is nil.
func newInstance(data candidate.Data) (*instance, error) {
	i := &instance{}
	opts := options.Client().ApplyURI(data.URI).SetMonitor(&event.CommandMonitor{Started: i.sent})
	var err error
	if i.client, err = mongo.Connect(opts); err != nil {
		return nil, err
	}
	db := i.client.Database(data.Database)
	tokens, err := mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{Lifetime: candidate.Lifetime, Revocations: revocationsName})
	if err != nil {
		return i, err
	}
	users, err := mongostore.NewUsers[candidate.Member](db, mongostore.UsersConfig{})
	if err != nil {
		return i, err
	}
	attempts, err := memstore.NewAttempts(0)
	if err != nil {
		return i, err
	}
	i.log = &followLog{Tokens: tokens}
	i.sessions, err = strategy.NewDatabase(i.log, users, strategy.Config{
		Lifetime: candidate.Lifetime, Cache: strategy.Cache{MaxStaleness: time.Minute, FollowInterval: followInterval},
	})
	if err != nil {
		return i, err
	}
	i.accounts, err = account.NewManager(users, nil, attempts, uuid.New, account.Config{}, i.sessions)
	return i, err
}

func (i *instance) sent(_ context.Context, e *event.CommandStartedEvent) {
	for _, field := range []string{"find", "collection"} { // "collection" is the field of getMore
		if name, _ := e.Command.Lookup(field).StringValueOK(); name == revocationsName {
			i.commands.Add(1)
		}
	}
}

func (i *instance) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if i.sessions != nil {
		i.sessions.Close()
	}
	_ = i.client.Disconnect(ctx)
}

// serve starts a server with a route that the instance guards.
func (i *instance) serve() (addr string, stop func(), err error) {
	auth, err := ginauth.New(i.sessions, i.accounts, ginauth.Config{})
	if err != nil {
		return "", nil, err
	}
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.GET(candidate.Path, auth.RequireUser(), func(c *gin.Context) {
		user, _ := auth.CurrentUser(c)
		c.JSON(http.StatusOK, gin.H{"id": user.ID, "name": user.Name})
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	return listener.Addr().String(), func() { _ = server.Close() }, nil
}

// read reads a session and records when it was accepted or refused.
func (i *instance) read(ctx context.Context, s *session) error {
	began := now()
	_, err := i.sessions.ReadToken(ctx, s.token)
	switch {
	case err == nil:
		for {
			old := s.accepted.Load()
			if old >= began || s.accepted.CompareAndSwap(old, began) {
				return nil
			}
		}
	case errors.Is(err, strategy.ErrInvalidToken):
		s.refused.CompareAndSwap(0, began)
		return nil
	}
	return err
}

// followLog is a store of tokens that records when its revocations are read.
type followLog struct {
	*mongostore.Tokens[uuid.UUID]
	mu    sync.Mutex
	polls []poll
}

// poll is a read of new revocations.
type poll struct{ began, ended int64 }

// FollowRevocations implements strategy.RevocationLog.
func (l *followLog) FollowRevocations() func(context.Context) ([]strategy.Revocation[uuid.UUID], error) {
	next := l.Tokens.FollowRevocations()
	return func(ctx context.Context) ([]strategy.Revocation[uuid.UUID], error) {
		p := poll{began: now()}
		found, err := next(ctx)
		p.ended = now()
		if err == nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.polls = append(l.polls, p)
		}
		return found, err
	}
}

func (l *followLog) all() []poll {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.polls)
}

// waitUntilFollowed waits until the instance has processed its first poll, which is when it
// begins the second.
func (l *followLog) waitUntilFollowed(ctx context.Context) error {
	deadline := time.Now().Add(10 * followInterval)
	for len(l.all()) < 2 {
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return errors.New("report: the instance does not read revocations")
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

func (r *results) acrossInstances(p *page) {
	p.para("## Revocations across instances")
	p.para("Two instances of an application with Latchkey's cache use one database. Both have all sessions in their caches. One instance revokes random sessions, in every way that Latchkey has, evenly over %v. The same sessions are requested from the other instance again and again. \"Refused after\" is the time from the acknowledgement of a revocation until the other instance refuses the session. The limit is the interval at which instances read revocations, %v, plus %v. Under load, %s also request the remaining sessions from the other instance, as fast as they can; the load and both instances are one process. The last column counts the commands that an instance sends to read revocations: one per interval, at any load.",
		10*r.settings.slot, followInterval, followTolerance, connections(revocationConns))
	p.table("", "requests/s", "cached sessions", "revoked", "refused after: p50", "p99", "max", "over the limit", "commands/s for revocations")
	for _, v := range r.revocations {
		name, rate := "without load", "—"
		if v.rate > 0 {
			name, rate = "under load", fmt.Sprintf("%.0f", v.rate)
		}
		p.row(name, rate, fmt.Sprint(v.cached), fmt.Sprint(v.revoked), short(load.Percentile(v.refused, 50)),
			short(load.Percentile(v.refused, 99)), short(load.Percentile(v.refused, 100)), fmt.Sprint(v.late()), fmt.Sprintf("%.2f", v.commands))
	}
	p.line("")
}

// late returns the number of sessions that were refused after the limit.
func (v *revocations) late() (n int) {
	for _, d := range v.refused {
		if d > followInterval+followTolerance {
			n++
		}
	}
	return n
}
