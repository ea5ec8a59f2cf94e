package faults_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// A history is the concurrent calls on one session. Its tokens are numbered: the login's
// is 0, and each successful rotation makes the next one.

type callKind string

const (
	callRead           callKind = "read"
	callRotate         callKind = "rotate"
	callDestroyToken   callKind = "destroy token"
	callDestroySession callKind = "destroy session"
)

type callInput struct {
	kind  callKind
	token int
}

type callOutput struct {
	ok   bool
	next int // the token of a successful rotation
}

// revoked is the state of a revoked session. The state of any other session is the number
// of its valid token.
const revoked = -1

var sessionModel = porcupine.Model{
	Init: func() any { return 0 },
	Step: func(state, input, output any) (bool, any) {
		current, in, out := state.(int), input.(callInput), output.(callOutput)
		switch {
		case in.kind == callDestroyToken: // always succeeds
			if in.token == current {
				current = revoked
			}
			return out.ok, current
		case in.kind == callDestroySession:
			return out.ok == (current != revoked), revoked
		case out.ok != (in.token == current):
			return false, current
		case in.kind == callRotate && out.ok:
			return true, out.next
		}
		return true, current
	},
	DescribeOperation: func(input, output any) string {
		in, out := input.(callInput), output.(callOutput)
		switch {
		case !out.ok:
			return fmt.Sprintf("%s %d: refused", in.kind, in.token)
		case in.kind == callRotate:
			return fmt.Sprintf("rotate %d: %d", in.token, out.next)
		}
		return fmt.Sprintf("%s %d: ok", in.kind, in.token)
	},
}

// history is a session and the calls on it.
type history struct {
	id     uuid.UUID
	user   uuid.UUID
	mu     sync.Mutex
	tokens []string
	calls  []porcupine.Operation
	began  time.Time
}

// pick returns one of the tokens, most often the latest.
func (h *history) pick(r *rand.Rand) (int, string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := len(h.tokens) - 1
	if i > 0 && r.IntN(3) == 0 {
		i = r.IntN(len(h.tokens))
	}
	return i, h.tokens[i]
}

// call makes a call and records it with its result.
func (h *history) call(ctx context.Context, client int, on subject, kind callKind, number int, token string) error {
	in, out := callInput{kind, number}, callOutput{}
	var (
		err  error
		next strategy.Secret
	)
	begin := time.Since(h.began)
	switch kind {
	case callRead:
		_, err = on.ReadToken(ctx, token)
	case callRotate:
		next, _, err = on.RotateToken(ctx, token)
	case callDestroyToken:
		err = on.DestroyToken(ctx, token)
	case callDestroySession:
		err = on.DestroySession(ctx, h.user, h.id)
	}
	end := time.Since(h.began)
	refused := strategy.ErrInvalidToken
	if kind == callDestroySession {
		refused = strategy.ErrSessionNotFound
	}
	if err != nil && !errors.Is(err, refused) {
		return fmt.Errorf("%s: %w", kind, err)
	}
	out.ok = err == nil
	h.mu.Lock()
	defer h.mu.Unlock()
	if out.ok && kind == callRotate {
		out.next = len(h.tokens)
		h.tokens = append(h.tokens, next.Reveal())
	}
	h.calls = append(h.calls, porcupine.Operation{ClientId: client, Input: in, Output: out, Call: begin.Nanoseconds(), Return: end.Nanoseconds()})
	return nil
}

func (h *history) String() string {
	slices.SortFunc(h.calls, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var b strings.Builder
	for _, o := range h.calls {
		fmt.Fprintf(&b, "%12d to %12d  client %d  %s\n", o.Call, o.Return, o.ClientId, sessionModel.DescribeOperation(o.Input, o.Output))
	}
	return b.String()
}

// historyRig makes histories on some instances.
type historyRig struct {
	user member
	// on are the instances. Client i uses instance i, modulo their number.
	on []subject
	// pause is the longest pause of a client between two calls.
	pause time.Duration
	// each is the number of calls of a client.
	each int
}

// record makes one history with some clients.
func (r historyRig) record(ctx context.Context, clients int) (*history, error) {
	secret, session, err := r.on[0].WriteToken(ctx, r.user)
	if err != nil {
		return nil, err
	}
	h := &history{id: session.ID, user: r.user.ID, tokens: []string{secret.Reveal()}, began: time.Now()}
	var (
		wg     sync.WaitGroup
		failed atomic.Pointer[error]
		start  = make(chan struct{})
	)
	for client := range clients {
		rng := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
		wg.Go(func() {
			<-start
			for range r.each {
				number, token := h.pick(rng)
				kind := callRead
				switch n := rng.IntN(60); {
				case n == 0:
					kind = callDestroyToken
				case n == 1:
					kind = callDestroySession
				case n < 12:
					kind = callRotate
				}
				if err := h.call(ctx, client, r.on[client%len(r.on)], kind, number, token); err != nil {
					failed.Store(&err)
					return
				}
				if r.pause > 0 {
					time.Sleep(time.Duration(rng.Int64N(int64(r.pause))))
				}
			}
		})
	}
	close(start)
	wg.Wait()
	// One more client reads all tokens, after all other calls.
	for i, token := range h.tokens {
		if err := h.call(ctx, clients, r.on[clients%len(r.on)], callRead, i, token); err != nil {
			return nil, err
		}
	}
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	return h, nil
}

// checkLinearizable returns what is wrong with some calls, or "".
func checkLinearizable(calls []porcupine.Operation) string {
	switch porcupine.CheckOperationsTimeout(sessionModel, calls, time.Minute) {
	case porcupine.Illegal:
		return "not linearizable"
	case porcupine.Unknown:
		return "not checked within a minute"
	}
	return ""
}

// checkRegular returns what is wrong with a history in which reads may be stale, but writes
// may not, or "". A read sees every write on its own instance that returned before the read
// began, and every write on another instance from the time that visible returns. A read
// never refuses a token that is certainly valid. worst is the longest time for which a token
// was accepted after its end.
func (h *history) checkRegular(instances int, visible func(at time.Time) time.Time) (wrong string, worst time.Duration) {
	var writes []porcupine.Operation
	at := func(ns int64) time.Time { return h.began.Add(time.Duration(ns)) }
	for _, read := range h.calls {
		in, out := read.Input.(callInput), read.Output.(callOutput)
		if in.kind != callRead {
			writes = append(writes, read)
			continue
		}
		began := in.token == 0 // the token was certainly issued when the read began
		ended := false         // the token had perhaps ended when the read returned
		for _, other := range h.calls {
			did, result := other.Input.(callInput), other.Output.(callOutput)
			if did.kind == callRotate && result.ok && result.next == in.token && other.Return < read.Call {
				began = true
			}
			ends := did.kind == callDestroySession || did.kind == callDestroyToken && did.token == in.token ||
				did.kind == callRotate && result.ok && did.token == in.token
			if !ends {
				continue
			}
			ended = ended || other.Call <= read.Return
			if !out.ok || read.Call <= other.Return {
				continue
			}
			worst = max(worst, time.Duration(read.Call-other.Return))
			until := at(other.Return)
			if other.ClientId%instances != read.ClientId%instances {
				until = visible(until)
			}
			if at(read.Call).After(until) {
				return fmt.Sprintf("%s at %d, but the token ended by %d", sessionModel.DescribeOperation(read.Input, read.Output), read.Call, other.Return), worst
			}
		}
		if !out.ok && began && !ended {
			return fmt.Sprintf("%s at %d, but the token was valid", sessionModel.DescribeOperation(read.Input, read.Output), read.Call), worst
		}
	}
	return checkLinearizable(writes), worst
}

// search records histories until check finds something wrong with one. It returns that, or
// "".
func (r historyRig) search(t *testing.T, histories, clients int, check func(*history) string) (found string) {
	t.Helper()
	for range histories {
		h, err := r.record(t.Context(), clients)
		if err != nil {
			t.Fatal(err)
		}
		if found := check(h); found != "" {
			return found + ":\n" + h.String()
		}
	}
	return ""
}

func linearizable(h *history) string { return checkLinearizable(h.calls) }

// tickingClock advances by a millisecond with every call, so that every request is due for
// a touch.
func tickingClock() func() time.Time {
	start, ticks := time.Now(), atomic.Int64{}
	return func() time.Time { return start.Add(time.Duration(ticks.Add(1)) * time.Millisecond) }
}

// newHistoryRig returns a rig with a user and an instance for each configuration, over the
// same stores.
func newHistoryRig(t *testing.T, tokens tokenStore, users userStore, cfgs ...strategy.Config) historyRig {
	t.Helper()
	accounts, err := account.NewManager(users, nil, nil, uuid.New, account.Config{
		Argon2: account.Argon2{MemoryKiB: 8, Iterations: 1, Parallelism: 1}, InsecureArgon2: true, InsecureNoLimiter: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	user, err := accounts.Register(t.Context(), newMember(uuid.NewString()+"@example.com"), modelPassword)
	if err != nil {
		t.Fatal(err)
	}
	r := historyRig{user: user, each: 12}
	for _, cfg := range cfgs {
		sessions, err := strategy.NewDatabase(tokens, strategy.UserSource[member, uuid.UUID](users), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(sessions.Close)
		r.on = append(r.on, sessions)
	}
	return r
}

// withTouches configures an instance that touches at every request.
func withTouches() strategy.Config {
	return strategy.Config{Lifetime: 24 * time.Hour, IdleTimeout: 12 * time.Hour, TouchInterval: time.Millisecond, Now: tickingClock()}
}

func withCache(stale, follow time.Duration) strategy.Config {
	return strategy.Config{Lifetime: time.Hour, Cache: strategy.Cache{MaxStaleness: stale, FollowInterval: follow}}
}

func atOnce(at time.Time) time.Time { return at }

// With the cache a history is not quite linearizable: while a write is in flight, one read
// can see it, and a later read can take the token from the cache. After the write returned,
// no read does.
func TestHistoryOfOneInstance(t *testing.T) {
	regular := func(h *history) string {
		wrong, _ := h.checkRegular(1, atOnce)
		return wrong
	}
	type historyTest struct {
		name      string
		cfg       strategy.Config
		on        func(testing.TB) backend // nil: memory
		histories int
		check     func(*history) string
	}
	tests := []historyTest{
		{"memory", withTouches(), nil, 500, linearizable},
		{"memory with a cache", withCache(time.Minute, 0), nil, 500, regular},
	}
	for _, b := range backends {
		tests = append(tests,
			historyTest{b.name, withTouches(), b.start, 10, linearizable},
			historyTest{b.name + " with a cache", withCache(time.Minute, 0), b.start, 10, regular})
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			set := inMemory()
			if c.on != nil {
				set = c.on(t).stores(t)
			}
			// An instance publishes a limited number of revocations of unknown tokens a
			// second, so a new one is made after some histories.
			const each = 50
			for i, begin := 0, time.Now(); i < c.histories || time.Since(begin) < *soak; i += each {
				r := newHistoryRig(t, set.tokens, set.users, c.cfg)
				if found := r.search(t, min(each, c.histories), 4, c.check); found != "" {
					t.Fatal(found)
				}
			}
		})
	}
}

// pollRecorder is a store that records when each follower reads the revocations. By then
// the follower has acted on all that its last read returned.
type pollRecorder struct {
	tokenStore
	strategy.RevocationLog[uuid.UUID]
	// outage is how many reads in a row succeed, and then fail, in turn; 0 means that none
	// fails.
	outage int
	mu     sync.Mutex
	polls  [][]time.Time // by follower
}

func (s *pollRecorder) FollowRevocations() func(context.Context) ([]strategy.Revocation[uuid.UUID], error) {
	next := s.RevocationLog.FollowRevocations()
	s.mu.Lock()
	defer s.mu.Unlock()
	follower := len(s.polls)
	s.polls = append(s.polls, nil)
	return func(ctx context.Context) ([]strategy.Revocation[uuid.UUID], error) {
		s.mu.Lock()
		s.polls[follower] = append(s.polls[follower], time.Now())
		n := len(s.polls[follower])
		s.mu.Unlock()
		if s.outage > 0 && n/s.outage%2 == 1 {
			return nil, errors.New("no answer")
		}
		return next(ctx)
	}
}

// visible returns the time from which all followers have acted on what was published by a
// time. It is in the far future if they have not read again yet.
func (s *pollRecorder) visible(at time.Time) (visible time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, polls := range s.polls {
		i, _ := slices.BinarySearchFunc(polls, at, time.Time.Compare)
		if i+1 >= len(polls) {
			return at.Add(time.Hour)
		}
		visible = later(visible, polls[i+1])
	}
	return visible
}

func TestHistoryOfTwoInstances(t *testing.T) {
	const follow = 10 * time.Millisecond
	type historyTest struct {
		name    string
		on      func(testing.TB) backend // nil: memory
		stale   time.Duration
		follows bool
		outage  int
	}
	tests := []historyTest{
		{"memory, followed", nil, time.Minute, true, 0},
		{"memory, not followed", nil, 50 * time.Millisecond, false, 0},
		{"memory, followed with outages", nil, 50 * time.Millisecond, true, 8},
	}
	for _, b := range backends {
		tests = append(tests,
			historyTest{b.name + ", followed", b.start, time.Minute, true, 0},
			historyTest{b.name + ", not followed", b.start, 100 * time.Millisecond, false, 0})
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // the clients pause most of the time
			set := inMemory()
			if c.on != nil {
				set = c.on(t).stores(t)
			}
			visible := func(at time.Time) time.Time { return at.Add(c.stale) }
			store, cfg := tokenStore(countingTokens{set.tokens, new(atomic.Int64)}), withCache(c.stale, 0)
			if c.follows {
				recorder := &pollRecorder{tokenStore: set.tokens, RevocationLog: set.tokens.(strategy.RevocationLog[uuid.UUID]), outage: c.outage}
				store, cfg = recorder, withCache(c.stale, follow)
				if c.outage == 0 {
					visible = recorder.visible
				}
			}
			r := newHistoryRig(t, store, set.users, cfg, cfg)
			r.each, r.pause = 30, 8*time.Millisecond
			histories := 20
			if c.on != nil {
				histories, r.each = 5, 20
			}
			var worst time.Duration
			check := func(h *history) string {
				wrong, stale := h.checkRegular(len(r.on), visible)
				worst = max(worst, stale)
				return wrong
			}
			for begin := time.Now(); ; {
				if found := r.search(t, histories, 4, check); found != "" {
					t.Fatal(found)
				}
				if time.Since(begin) >= *soak {
					break
				}
			}
			t.Logf("tokens were accepted for at most %v after their end", worst)
		})
	}
}

// Stores that are broken only under concurrent calls.

type (
	rotatesInSteps struct{ tokenStore }
	deletesLate    struct{ tokenStore }
	touchUpserts   struct {
		tokenStore
		mu   *sync.Mutex
		rows map[string]row
	}
)

func (s rotatesInSteps) Rotate(ctx context.Context, digest string, to strategy.Rotation) (row, error) {
	r, err := s.ByToken(ctx, digest)
	if err != nil {
		return r, err
	}
	time.Sleep(20 * time.Microsecond) // lets another call come in between
	_, _ = s.Delete(ctx, digest)
	r.Digest = to.Digest
	_, _ = s.DeleteSession(ctx, r.UserID, r.ID)
	return r, s.Insert(ctx, r)
}

func (s deletesLate) Delete(ctx context.Context, digest string) (row, error) {
	time.AfterFunc(200*time.Microsecond, func() { _, _ = s.tokenStore.Delete(context.WithoutCancel(ctx), digest) })
	return s.ByToken(ctx, digest)
}

func (s touchUpserts) ByToken(ctx context.Context, digest string) (row, error) {
	r, err := s.tokenStore.ByToken(ctx, digest)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.rows[digest] = r
	}
	return r, err
}

func (s touchUpserts) Touch(ctx context.Context, digest string, at time.Time) error {
	s.mu.Lock()
	r := s.rows[digest]
	s.mu.Unlock()
	r.LastUsedAt = at
	if err := s.Insert(ctx, r); !errors.Is(err, strategy.ErrDuplicateToken) {
		return err
	}
	return s.tokenStore.Touch(ctx, digest, at)
}

func TestHistoryChecksDetectBrokenStores(t *testing.T) {
	naive := func(r historyRig) historyRig {
		for i, s := range r.on {
			r.on[i] = newNaiveCache(s, time.Now)
		}
		return r
	}
	unchanged := func(r historyRig) historyRig { return r }
	for _, c := range []struct {
		name   string
		tokens func(tokenStore) tokenStore // nil: correct, without a RevocationLog
		wrap   func(historyRig) historyRig
		check  func(*history) string
		pause  time.Duration
		two    bool
	}{
		{"a rotation in steps", func(s tokenStore) tokenStore { return rotatesInSteps{s} }, unchanged, linearizable, 0, false},
		{"a late delete", func(s tokenStore) tokenStore { return deletesLate{s} }, unchanged, linearizable, 0, false},
		{"a touch with upsert", func(s tokenStore) tokenStore {
			return touchUpserts{s, new(sync.Mutex), make(map[string]row)}
		}, unchanged, linearizable, 0, false},
		{"a naive cache, as linearizable", nil, naive, linearizable, 0, false},
		{"a naive cache, as regular", nil, naive, func(h *history) string {
			wrong, _ := h.checkRegular(1, atOnce)
			return wrong
		}, 0, false},
		{"two naive caches, as regular within 30 ms", nil, naive, func(h *history) string {
			wrong, _ := h.checkRegular(2, func(at time.Time) time.Time { return at.Add(30 * time.Millisecond) })
			return wrong
		}, 8 * time.Millisecond, true},
		{"two caches, as linearizable", nil, unchanged, linearizable, time.Millisecond, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			set := inMemory()
			if c.tokens != nil {
				set.tokens = c.tokens(set.tokens)
			} else {
				set.tokens = countingTokens{set.tokens, new(atomic.Int64)}
			}
			cfgs := []strategy.Config{withTouches()}
			if c.two {
				cfgs = []strategy.Config{withCache(time.Minute, 0), withCache(time.Minute, 0)}
			}
			r := c.wrap(newHistoryRig(t, set.tokens, set.users, cfgs...))
			r.pause = c.pause
			if c.two {
				r.each = 30
			}
			found := r.search(t, 2000, 4, c.check)
			if found == "" {
				t.Fatal("nothing was found")
			}
			t.Log(strings.SplitN(found, "\n", 2)[0])
		})
	}
}
