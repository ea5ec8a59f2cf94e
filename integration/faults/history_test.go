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
	"github.com/latchkey-go/latchkey/internal/contract"
	"github.com/latchkey-go/latchkey/strategy"
)

// One session's life, seen by many at once. Its tokens have numbers: the login's
// is 0, and each rotation that succeeds makes the next one.

type lifeKind string

const (
	lifeRead     lifeKind = "read"      // the token and its user
	lifeReadInfo lifeKind = "read info" // the token alone
	lifeRotate   lifeKind = "rotate"
	lifeDestroy  lifeKind = "destroy"
	lifeEnd      lifeKind = "end" // the session by its ID, whatever its token is by now
)

type lifeInput struct {
	kind  lifeKind
	token int
}

type lifeOutput struct {
	ok   bool
	next int // the token of a rotation that succeeded
}

// over is the state of a session that was revoked; else it is the number of the
// token that is good.
const over = -1

var lifeModel = porcupine.Model{
	Init: func() any { return 0 },
	Step: func(state, input, output any) (bool, any) {
		current, in, out := state.(int), input.(lifeInput), output.(lifeOutput)
		switch {
		case in.kind == lifeDestroy: // always a success
			if in.token == current {
				current = over
			}
			return out.ok, current
		case in.kind == lifeEnd:
			return out.ok == (current != over), over
		case out.ok != (in.token == current):
			return false, current
		case in.kind == lifeRotate && out.ok:
			return true, out.next
		}
		return true, current
	},
	DescribeOperation: func(input, output any) string {
		in, out := input.(lifeInput), output.(lifeOutput)
		switch {
		case !out.ok:
			return fmt.Sprintf("%s %d: refused", in.kind, in.token)
		case in.kind == lifeRotate:
			return fmt.Sprintf("rotate %d: %d", in.token, out.next)
		}
		return fmt.Sprintf("%s %d: ok", in.kind, in.token)
	},
}

// life is a session and what was done to it.
type life struct {
	id      uuid.UUID
	user    uuid.UUID
	mu      sync.Mutex
	tokens  []string
	history []porcupine.Operation
	began   time.Time
}

// pick returns one of the tokens, preferably the latest.
func (l *life) pick(r *rand.Rand) (int, string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := len(l.tokens) - 1
	if i > 0 && r.IntN(3) == 0 {
		i = r.IntN(len(l.tokens))
	}
	return i, l.tokens[i]
}

// do does something to the session and writes down what came of it.
func (l *life) do(ctx context.Context, client int, on subject, kind lifeKind, number int, token string) error {
	in, out := lifeInput{kind, number}, lifeOutput{}
	var (
		err  error
		next strategy.Secret
	)
	call := time.Since(l.began)
	switch kind {
	case lifeRead:
		_, err = on.ReadToken(ctx, token)
	case lifeReadInfo:
		_, err = on.ReadTokenInfo(ctx, token)
	case lifeRotate:
		next, _, err = on.RotateToken(ctx, token)
	case lifeDestroy:
		err = on.DestroyToken(ctx, token)
	case lifeEnd:
		err = on.DestroySession(ctx, l.user, l.id)
	}
	end := time.Since(l.began)
	refused := strategy.ErrInvalidToken
	if kind == lifeEnd {
		refused = strategy.ErrSessionNotFound
	}
	if err != nil && !errors.Is(err, refused) {
		return fmt.Errorf("%s: %w", kind, err)
	}
	out.ok = err == nil
	l.mu.Lock()
	defer l.mu.Unlock()
	if out.ok && kind == lifeRotate {
		out.next = len(l.tokens)
		l.tokens = append(l.tokens, next.Reveal())
	}
	l.history = append(l.history, porcupine.Operation{ClientId: client, Input: in, Output: out, Call: call.Nanoseconds(), Return: end.Nanoseconds()})
	return nil
}

func (l *life) String() string {
	slices.SortFunc(l.history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var b strings.Builder
	for _, o := range l.history {
		fmt.Fprintf(&b, "%12d to %12d  client %d  %s\n", o.Call, o.Return, o.ClientId, lifeModel.DescribeOperation(o.Input, o.Output))
	}
	return b.String()
}

// lives is something whose histories are looked at.
type lives struct {
	user contract.Member
	// on are the instances. Clients share them out among themselves.
	on []subject
	// pause is how long clients wait at most between one thing and the next.
	pause time.Duration
	// each is how many things a client does.
	each int
}

// live runs one session's life with some clients.
func (ls lives) live(ctx context.Context, clients int) (*life, error) {
	secret, session, err := ls.on[0].WriteToken(ctx, ls.user)
	if err != nil {
		return nil, err
	}
	l := &life{id: session.ID, user: ls.user.ID, tokens: []string{secret.Reveal()}, began: time.Now()}
	var (
		wg     sync.WaitGroup
		failed atomic.Pointer[error]
		start  = make(chan struct{})
	)
	for client := range clients {
		r := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
		wg.Go(func() {
			<-start
			for range ls.each {
				number, token := l.pick(r)
				kind := lifeRead
				switch n := r.IntN(60); {
				case n == 0:
					kind = lifeDestroy
				case n == 1:
					kind = lifeEnd
				case n < 12:
					kind = lifeRotate
				case n < 25:
					kind = lifeReadInfo
				}
				if err := l.do(ctx, client, ls.on[client%len(ls.on)], kind, number, token); err != nil {
					failed.Store(&err)
					return
				}
				if ls.pause > 0 {
					time.Sleep(time.Duration(r.Int64N(int64(ls.pause))))
				}
			}
		})
	}
	close(start)
	wg.Wait()
	// Whatever came last is seen by whoever asks afterwards.
	for i, token := range l.tokens {
		if err := l.do(ctx, clients, ls.on[clients%len(ls.on)], lifeRead, i, token); err != nil {
			return nil, err
		}
	}
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	return l, nil
}

// linearizable says what is wrong with a history; "" where nothing is.
func linearizable(history []porcupine.Operation) string {
	switch porcupine.CheckOperationsTimeout(lifeModel, history, time.Minute) {
	case porcupine.Illegal:
		return "not linearizable"
	case porcupine.Unknown:
		return "too much to check"
	}
	return ""
}

// regular says what is wrong with a history in which reads may be out of date, but
// writes may not. What was done on one instance must be seen by every read there
// that begins after it has returned. What was done on another must be seen from
// the time on that seen gives. A read may refuse nothing that is certainly good.
// worst is for how long something was accepted at most, after it had ended.
func (l *life) regular(instances int, seen func(at time.Time) time.Time) (wrong string, worst time.Duration) {
	var writes []porcupine.Operation
	at := func(ns int64) time.Time { return l.began.Add(time.Duration(ns)) }
	for _, read := range l.history {
		in, out := read.Input.(lifeInput), read.Output.(lifeOutput)
		if in.kind != lifeRead && in.kind != lifeReadInfo {
			writes = append(writes, read)
			continue
		}
		good := in.token == 0 // certainly so when the read began
		ended := false        // perhaps so when the read ended
		for _, other := range l.history {
			did, came := other.Input.(lifeInput), other.Output.(lifeOutput)
			if did.kind == lifeRotate && came.ok && came.next == in.token && other.Return < read.Call {
				good = true
			}
			ends := did.kind == lifeEnd || did.kind == lifeDestroy && did.token == in.token ||
				did.kind == lifeRotate && came.ok && did.token == in.token
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
				until = seen(until)
			}
			if at(read.Call).After(until) {
				return fmt.Sprintf("%s at %d, although it had ended by %d", lifeModel.DescribeOperation(read.Input, read.Output), read.Call, other.Return), worst
			}
		}
		if !out.ok && good && !ended {
			return fmt.Sprintf("%s at %d, although it was good", lifeModel.DescribeOperation(read.Input, read.Output), read.Call), worst
		}
	}
	return linearizable(writes), worst
}

// first runs histories until something is wrong with one.
func (ls lives) first(t *testing.T, histories, clients int, wrong func(*life) string) (found string) {
	t.Helper()
	for range histories {
		l, err := ls.live(t.Context(), clients)
		if err != nil {
			t.Fatal(err)
		}
		if found := wrong(l); found != "" {
			return found + ":\n" + l.String()
		}
	}
	return ""
}

func strictly(l *life) string { return linearizable(l.history) }

// quickClock goes on by a millisecond with every look, so that every request is due
// for a touch.
func quickClock() func() time.Time {
	start, ticks := time.Now(), atomic.Int64{}
	return func() time.Time { return start.Add(time.Duration(ticks.Add(1)) * time.Millisecond) }
}

// newLives returns a user and instances over the same stores.
func newLives(t *testing.T, tokens tokenStore, users userStore, cfgs ...strategy.Config) lives {
	t.Helper()
	accounts, err := account.NewManager(users, uuid.New, account.Config{
		Argon2: account.Argon2{MemoryKiB: 8, Iterations: 1, Parallelism: 1}, InsecureArgon2: true, InsecureNoLimiter: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	user, err := accounts.Register(t.Context(), contract.Member{User: account.User[uuid.UUID]{Email: uuid.NewString() + "@example.com"}}, modelPassword)
	if err != nil {
		t.Fatal(err)
	}
	ls := lives{user: user, each: 12}
	for _, cfg := range cfgs {
		sessions, err := strategy.NewDatabase(tokens, strategy.UserSource[contract.Member, uuid.UUID](users), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(sessions.Close)
		ls.on = append(ls.on, sessions)
	}
	return ls
}

func touching() strategy.Config {
	return strategy.Config{Lifetime: 24 * time.Hour, IdleTimeout: 12 * time.Hour, TouchInterval: time.Millisecond, Now: quickClock()}
}

func caching(stale, follow time.Duration) strategy.Config {
	return strategy.Config{Lifetime: time.Hour, Cache: strategy.Cache{MaxStaleness: stale, FollowInterval: follow}}
}

func atOnce(at time.Time) time.Time { return at }

// With the cache a history is not quite linearizable: while a rotation or a
// revocation is under way, one request can know of it already, and a later one
// take the token from the cache. From when it has returned, none does.
func TestHistoryOfOneInstance(t *testing.T) {
	atOnceHere := func(l *life) string {
		wrong, _ := l.regular(1, atOnce)
		return wrong
	}
	for _, c := range []struct {
		name      string
		cfg       strategy.Config
		onServer  bool
		histories int
		wrong     func(*life) string
	}{
		{"memory", touching(), false, 500, strictly},
		{"memory with a cache", caching(time.Minute, 0), false, 500, atOnceHere},
		{"MongoDB", touching(), true, 10, strictly},
		{"MongoDB with a cache", caching(time.Minute, 0), true, 10, atOnceHere},
	} {
		t.Run(c.name, func(t *testing.T) {
			tokens, users, _ := inMemory()
			if c.onServer {
				tokens, users, _ = onServer(t)()
			}
			// An instance makes only so much known in a second of what is not there.
			const each = 50
			for i, begin := 0, time.Now(); i < c.histories || time.Since(begin) < *soak; i += each {
				ls := newLives(t, tokens, users, c.cfg)
				if found := ls.first(t, min(each, c.histories), 4, c.wrong); found != "" {
					t.Fatal(found)
				}
			}
		})
	}
}

// toldTokens writes down when each follower began to ask for revocations. By then
// it has acted on all that it was told before.
type toldTokens struct {
	tokenStore
	strategy.RevocationLog[uuid.UUID]
	// spell is how often a follower is answered, and how often not then, in turn; 0
	// means that it always is.
	spell int
	mu    sync.Mutex
	asked [][]time.Time // when each of them asked
}

type toldFollower struct {
	strategy.RevocationFollower[uuid.UUID]
	of *toldTokens
	n  int
}

func (s *toldTokens) FollowRevocations() strategy.RevocationFollower[uuid.UUID] {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, nil)
	return &toldFollower{s.RevocationLog.FollowRevocations(), s, len(s.asked) - 1}
}

func (f *toldFollower) Next(ctx context.Context) ([]strategy.Revocation[uuid.UUID], error) {
	f.of.mu.Lock()
	f.of.asked[f.n] = append(f.of.asked[f.n], time.Now())
	asked := len(f.of.asked[f.n])
	f.of.mu.Unlock()
	if f.of.spell > 0 && asked/f.of.spell%2 == 1 {
		return nil, errors.New("no answer")
	}
	return f.RevocationFollower.Next(ctx)
}

// seen is from when on all followers know of what was published by some time. A
// time that was not reached is in the far future.
func (s *toldTokens) seen(at time.Time) (seen time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, asked := range s.asked {
		i, _ := slices.BinarySearchFunc(asked, at, time.Time.Compare)
		if i+1 >= len(asked) {
			return at.Add(time.Hour)
		}
		seen = later(seen, asked[i+1])
	}
	return seen
}

func TestHistoryOfTwoInstances(t *testing.T) {
	const follow = 10 * time.Millisecond
	for _, c := range []struct {
		name     string
		onServer bool
		stale    time.Duration
		follows  bool
		spell    int
	}{
		{"memory, followed", false, time.Minute, true, 0},
		{"memory, not followed", false, 50 * time.Millisecond, false, 0},
		{"memory, followed at times", false, 50 * time.Millisecond, true, 8},
		{"MongoDB, followed", true, time.Minute, true, 0},
		{"MongoDB, not followed", true, 100 * time.Millisecond, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // they wait most of the time
			tokens, users, _ := inMemory()
			if c.onServer {
				tokens, users, _ = onServer(t)()
			}
			bound := func(at time.Time) time.Time { return at.Add(c.stale) }
			store, cfg := tokenStore(countingTokens{tokens, new(atomic.Int64)}), caching(c.stale, 0)
			if c.follows {
				told := &toldTokens{tokenStore: tokens, RevocationLog: tokens.(strategy.RevocationLog[uuid.UUID]), spell: c.spell}
				store, cfg = told, caching(c.stale, follow)
				if c.spell == 0 {
					bound = told.seen
				}
			}
			ls := newLives(t, store, users, cfg, cfg)
			ls.each, ls.pause = 30, 8*time.Millisecond
			histories := 20
			if c.onServer {
				histories, ls.each = 5, 20
			}
			var worst time.Duration
			wrong := func(l *life) string {
				found, stale := l.regular(len(ls.on), bound)
				worst = max(worst, stale)
				return found
			}
			for begin := time.Now(); ; {
				if found := ls.first(t, histories, 4, wrong); found != "" {
					t.Fatal(found)
				}
				if time.Since(begin) >= *soak {
					break
				}
			}
			t.Logf("tokens were accepted for %v at most after their end", worst)
		})
	}
}

// Stores and caches that are wrong only where several requests meet.

type (
	rotatesInSteps struct{ tokenStore }
	deletesLate    struct{ tokenStore }
	touchesUpsert  struct {
		tokenStore
		mu   *sync.Mutex
		rows map[string]row
	}
)

func (s rotatesInSteps) Rotate(ctx context.Context, digest string, to strategy.Rotation) (row, error) {
	r, err := s.ByToken(ctx, digest, time.Time{})
	if err != nil {
		return r, err
	}
	time.Sleep(20 * time.Microsecond)
	_, _ = s.Delete(ctx, digest)
	r.Digest = to.Digest
	_, _ = s.DeleteSession(ctx, r.UserID, r.ID)
	return r, s.Insert(ctx, r)
}

func (s deletesLate) Delete(ctx context.Context, digest string) (row, error) {
	time.AfterFunc(200*time.Microsecond, func() { _, _ = s.tokenStore.Delete(context.WithoutCancel(ctx), digest) })
	return s.ByToken(ctx, digest, time.Time{})
}

func (s touchesUpsert) ByToken(ctx context.Context, digest string, createdAfter time.Time) (row, error) {
	r, err := s.tokenStore.ByToken(ctx, digest, createdAfter)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.rows[digest] = r
	}
	return r, err
}

func (s touchesUpsert) Touch(ctx context.Context, digest string, at time.Time) error {
	s.mu.Lock()
	r := s.rows[digest]
	s.mu.Unlock()
	r.LastUsedAt = at
	if err := s.Insert(ctx, r); !errors.Is(err, strategy.ErrDuplicateToken) {
		return err
	}
	return s.tokenStore.Touch(ctx, digest, at)
}

func TestHistoryCheckersObject(t *testing.T) {
	naive := func(ls lives) lives {
		for i, s := range ls.on {
			ls.on[i] = newCachesNaively(s, time.Now)
		}
		return ls
	}
	asItIs := func(ls lives) lives { return ls }
	for _, c := range []struct {
		name   string
		tokens func(tokenStore) tokenStore
		wrap   func(lives) lives
		wrong  func(*life) string
		pause  time.Duration
		two    bool
	}{
		{"a rotation in steps", func(s tokenStore) tokenStore { return rotatesInSteps{s} }, asItIs, strictly, 0, false},
		{"a delete that comes late", func(s tokenStore) tokenStore { return deletesLate{s} }, asItIs, strictly, 0, false},
		{"a touch that is an upsert", func(s tokenStore) tokenStore {
			return touchesUpsert{s, new(sync.Mutex), make(map[string]row)}
		}, asItIs, strictly, 0, false},
		{"a naive cache", nil, naive, strictly, 0, false},
		{"a naive cache, by the bound", nil, naive, func(l *life) string {
			wrong, _ := l.regular(1, atOnce)
			return wrong
		}, 0, false},
		{"two naive caches, by a bound", nil, naive, func(l *life) string {
			wrong, _ := l.regular(2, func(at time.Time) time.Time { return at.Add(30 * time.Millisecond) })
			return wrong
		}, 8 * time.Millisecond, true},
		{"two caches, as if they were one", nil, asItIs, strictly, time.Millisecond, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			tokens, users, _ := inMemory()
			if c.tokens != nil {
				tokens = c.tokens(tokens)
			} else {
				tokens = countingTokens{tokens, new(atomic.Int64)}
			}
			cfgs := []strategy.Config{touching()}
			if c.two {
				cfgs = []strategy.Config{caching(time.Minute, 0), caching(time.Minute, 0)}
			}
			ls := c.wrap(newLives(t, tokens, users, cfgs...))
			ls.pause = c.pause
			if c.two {
				ls.each = 30
			}
			found := ls.first(t, 2000, 4, c.wrong)
			if found == "" {
				t.Fatal("nothing was found")
			}
			t.Log(strings.SplitN(found, "\n", 2)[0])
		})
	}
}
