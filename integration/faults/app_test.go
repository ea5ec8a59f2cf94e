package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/internal/contract"
	"github.com/latchkey-go/latchkey/internal/secretscan"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

const (
	memberPassword = "correct horse battery staple"

	// callTimeout bounds each call of a store.
	callTimeout = time.Second
	// hashWait bounds the wait for a turn to hash a password.
	hashWait = time.Second
	// busy is for what a machine with more to do than processors adds.
	busy = 3 * time.Second

	// A guarded request reads the token, then the user.
	guardBound = guardCalls*callTimeout + busy
	// A login reads the account, waits for its turn, inserts the token, and takes it
	// back where that had no answer.
	loginBound = loginCalls*callTimeout + hashWait + busy
	// A log-out reads the token and the user, deletes the one, and publishes that.
	logoutBound = logoutCalls*callTimeout + busy

	guardCalls, loginCalls, logoutCalls = 2, 3, 4

	// recoveryBound is within what time everything works again.
	recoveryBound = 5 * time.Second
)

// application is an instance of one, with a MongoDB client of its own.
type application struct {
	url      string
	http     *http.Client
	mongo    *mongo.Client
	db       *mongo.Database
	pool     poolCount
	tokens   *mongostore.Tokens[uuid.UUID]
	users    *mongostore.Users[contract.Member, uuid.UUID]
	attempts *mongostore.Attempts
	accounts *account.Manager[contract.Member, uuid.UUID]
	sessions *strategy.Database[contract.Member, uuid.UUID]
	panics   atomic.Int64
	closing  sync.Once
	closers  []func()

	// staleness is for how long a token may be accepted after another instance has
	// revoked it: the cache's MaxStaleness.
	staleness time.Duration
}

// appConfig says how an application is. Its zero value is one on the server.
type appConfig struct {
	uri      string        // default: the server's
	way      string        // the address of what stands before the server, if anything does
	timeout  time.Duration // default: callTimeout
	sessions strategy.Config
	// noLimiter is for many logins that fail, or wait, at once: all of them come from
	// one address here.
	noLimiter bool
	// limiter has its counters in the database. Default: one with its own in memory.
	limiter *account.LimiterConfig
	// set brings the indexes into being. Default: EnsureIndexes of all stores.
	set func(context.Context, *application) error
}

func ensureIndexes(ctx context.Context, a *application) error {
	return errors.Join(a.tokens.EnsureIndexes(ctx), a.users.EnsureIndexes(ctx), a.attempts.EnsureIndexes(ctx))
}

func verifyIndexes(ctx context.Context, a *application) error {
	return errors.Join(a.tokens.VerifyIndexes(ctx), a.users.VerifyIndexes(ctx), a.attempts.VerifyIndexes(ctx))
}

// startApp starts an application on a database. It must be closed also after an error.
func startApp(ctx context.Context, database string, cfg appConfig) (a *application, err error) {
	a = &application{staleness: cfg.sessions.Cache.MaxStaleness}
	if cfg.uri == "" {
		cfg.uri = server.URI
	}
	if cfg.timeout == 0 {
		cfg.timeout = callTimeout
	}
	if cfg.set == nil {
		cfg.set = ensureIndexes
	}
	// A connection that never comes about, and is never told so, holds one of the two
	// places in which the driver makes new ones: by default for 30 s, long after the
	// network is well again.
	opts := options.Client().ApplyURI(cfg.uri).SetPoolMonitor(a.pool.monitor()).SetConnectTimeout(callTimeout)
	if cfg.way != "" {
		opts.SetHosts([]string{cfg.way}).SetDirect(true)
	}
	if a.mongo, err = mongo.Connect(opts); err != nil {
		return a, err
	}
	a.closers = append(a.closers, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = a.mongo.Disconnect(ctx)
	})
	a.db = a.mongo.Database(database)
	if a.tokens, err = mongostore.NewTokens[uuid.UUID](a.db, mongostore.TokensConfig{
		Lifetime: cfg.sessions.Lifetime, Timeout: cfg.timeout, PurgeInterval: time.Minute, Now: cfg.sessions.Now,
	}); err != nil {
		return a, err
	}
	a.closers = append(a.closers, a.tokens.Close)
	if a.users, err = mongostore.NewUsers[contract.Member](a.db, mongostore.UsersConfig{Timeout: cfg.timeout}); err != nil {
		return a, err
	}
	if a.attempts, err = mongostore.NewAttempts(a.db, mongostore.AttemptsConfig{Timeout: cfg.timeout, PurgeInterval: time.Minute}); err != nil {
		return a, err
	}
	a.closers = append(a.closers, a.attempts.Close)
	if err := cfg.set(ctx, a); err != nil {
		return a, err
	}
	var limiter *account.Limiter
	if cfg.limiter != nil {
		if limiter, err = account.NewLimiter(a.attempts, *cfg.limiter); err != nil {
			return a, err
		}
	}
	if a.accounts, err = account.NewManager(a.users, uuid.New, account.Config{
		Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true,
		MaxHashWait: hashWait, Limiter: limiter, InsecureNoLimiter: cfg.noLimiter, Now: cfg.sessions.Now,
	}); err != nil {
		return a, err
	}
	cfg.sessions.PublishRevocations = true
	if a.sessions, err = strategy.NewDatabase(a.tokens, a.users, cfg.sessions); err != nil {
		return a, err
	}
	a.closers = append(a.closers, a.sessions.Close)
	return a, a.serve(cfg)
}

func (a *application) serve(cfg appConfig) error {
	auth, err := ginauth.New(a.sessions, a.accounts, ginauth.Config{Now: cfg.sessions.Now})
	if err != nil {
		return err
	}
	r := gin.New()
	r.Use(func(c *gin.Context) {
		defer func() {
			if p := recover(); p != nil {
				a.panics.Add(1)
				fmt.Printf("PANIC: %v\n", p)
				c.AbortWithStatus(http.StatusInternalServerError)
			}
		}()
		c.Next()
	})
	auth.Routes(r.Group("/auth"))
	r.GET("/me", auth.RequireUser(), func(c *gin.Context) { c.Status(http.StatusOK) })
	listener := httptest.NewServer(r)
	a.url = listener.URL
	a.http = &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 128},
		Timeout:   30 * time.Second, // what hangs is found by the bounds
	}
	a.closers = append(a.closers, func() {
		a.http.CloseIdleConnections()
		listener.Close()
	})
	return nil
}

// close ends the application, last things first.
func (a *application) close() {
	a.closing.Do(func() {
		for i := len(a.closers) - 1; i >= 0; i-- {
			a.closers[i]()
		}
	})
}

// newAppOn starts an application on a database, for the length of a test.
func newAppOn(tb testing.TB, database string, cfg appConfig) *application {
	tb.Helper()
	a, err := startApp(tb.Context(), database, cfg)
	tb.Cleanup(func() {
		a.close()
		if n := a.panics.Load(); n > 0 {
			tb.Errorf("%d panics", n)
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// newDatabase is a database of the test's own on the server, dropped at its end.
func newDatabase(tb testing.TB) *mongo.Database {
	tb.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(server.URI))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = client.Disconnect(ctx)
	})
	return testserver.Database(tb, client)
}

// register makes an account, and returns its name.
func (a *application) register(ctx context.Context, name string) error {
	_, err := a.accounts.Register(ctx, contract.Member{User: account.User[uuid.UUID]{Email: name}, Name: name}, memberPassword)
	return err
}

func (a *application) mustRegister(tb testing.TB, names ...string) {
	tb.Helper()
	for _, name := range names {
		if err := a.register(tb.Context(), name); err != nil {
			tb.Fatal(err)
		}
	}
}

// answer is what became of a request.
type answer struct {
	status int // 0: none came
	err    error
	token  string // of a login
	began  time.Time
	took   time.Duration
}

func (a answer) String() string {
	if a.status == 0 {
		return fmt.Sprintf("no answer after %v (%v)", a.took, a.err)
	}
	return fmt.Sprintf("%d after %v", a.status, a.took)
}

func (a *application) do(req *http.Request, err error) (got answer) {
	got.began = time.Now()
	defer func() { got.took = time.Since(got.began) }()
	if err != nil {
		got.err = err
		return got
	}
	resp, err := a.http.Do(req)
	if err != nil {
		got.err = err
		return got
	}
	defer func() { _ = resp.Body.Close() }()
	var body struct {
		AccessToken string `json:"access_token"`
	}
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode == http.StatusOK && len(text) > 0 {
		err = json.Unmarshal(text, &body)
	}
	if err == nil && resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "" {
		err = errors.New("a 503 without Retry-After")
	}
	if err != nil {
		got.err = err
		return got
	}
	got.status, got.token = resp.StatusCode, body.AccessToken
	return got
}

// guarded asks for what only users may see.
func (a *application) guarded(token string) answer { return a.ask(http.MethodGet, "/me", token) }
func (a *application) logout(token string) answer {
	return a.ask(http.MethodPost, "/auth/logout", token)
}

func (a *application) ask(method, path, token string) answer {
	req, err := http.NewRequest(method, a.url+path, nil)
	if err == nil {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return a.do(req, err)
}

func (a *application) login(name string) answer { return a.loginWith(name, memberPassword) }

func (a *application) loginWith(name, password string) answer {
	form := url.Values{"username": {name}, "password": {password}}
	req, err := http.NewRequest(http.MethodPost, a.url+"/auth/login", strings.NewReader(form.Encode()))
	if err == nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	got := a.do(req, err)
	if got.token != "" {
		secretscan.Record(got.token)
	}
	return got
}

// mustLogin logs in where nothing is amiss.
func (a *application) mustLogin(tb testing.TB, name string) (token string) {
	tb.Helper()
	got := a.login(name)
	if got.status != http.StatusOK {
		tb.Fatalf("the login of %s: %v", name, got)
	}
	return got.token
}

// want checks the status of a guarded request.
func (a *application) want(tb testing.TB, status int, token, when string) {
	tb.Helper()
	if got := a.guarded(token); got.status != status {
		tb.Errorf("%s: got %v, want %d", when, got, status)
	}
}

// poolCount counts the connections of a client.
type poolCount struct{ open, out atomic.Int64 }

func (p *poolCount) monitor() *event.PoolMonitor {
	return &event.PoolMonitor{Event: func(e *event.PoolEvent) {
		switch e.Type {
		case event.ConnectionCreated:
			p.open.Add(1)
		case event.ConnectionClosed:
			p.open.Add(-1)
		case event.ConnectionCheckedOut:
			p.out.Add(1)
		case event.ConnectionCheckedIn:
			p.out.Add(-1)
		}
	}}
}

// The states of a token as its client knows them. They only go forward.
const (
	held    int32 = iota // a login was answered with it
	leaving              // a log-out was begun
	gone                 // a log-out was acknowledged, or the token was refused since
)

// holding is a token that a client has.
type holding struct {
	token  string
	state  atomic.Int32
	goneAt atomic.Int64 // UnixNano, set before the state
	asked  atomic.Int64 // how many log-outs were begun
}

func (h *holding) end(at time.Time) {
	if h.goneAt.CompareAndSwap(0, at.UnixNano()) {
		h.state.Store(gone)
	}
}

// traffic is what clients do to instances of an application, and what they know.
type traffic struct {
	names []string // of the accounts: each client has its own
	// most is how many tokens are held at once, about.
	most int
	// bounds are within what time answers must come.
	bounds [3]time.Duration
	// think is how long clients wait between two things, at most.
	think time.Duration
	// during is something else that clients do now and then. nil: nothing.
	during func(ctx context.Context, a *application, rng *rand.Rand)

	moving sync.RWMutex // held, for reading, by whoever talks to apps
	apps   []*application

	mu       sync.Mutex
	holdings []*holding
	ended    []*holding // the latest
	mistakes []string
	mistaken int

	// dark is since when nothing gets through to the database, UnixNano; 0: it does.
	dark   atomic.Int64
	counts [3][600]atomic.Int64
	times  [3]*histogram
}

// What clients do.
const (
	doGuarded = iota
	doLogin
	doLogout
)

var doing = [3]string{"guarded requests", "logins", "log-outs"}

func newTraffic(apps []*application, clients, most int) *traffic {
	t := &traffic{apps: apps, most: most, bounds: [3]time.Duration{guardBound, loginBound, logoutBound}}
	for i := range t.times {
		t.times[i] = &histogram{}
	}
	for i := range clients {
		t.names = append(t.names, fmt.Sprintf("member%d@example.com", i))
	}
	return t
}

func (t *traffic) mistake(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mistaken++; t.mistaken <= 10 {
		t.mistakes = append(t.mistakes, fmt.Sprintf(format, args...))
	}
}

// report fails the test where an answer was wrong.
func (t *traffic) report(tb testing.TB) {
	tb.Helper()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.mistakes {
		tb.Error(m)
	}
	if t.mistaken > len(t.mistakes) {
		tb.Errorf("… and %d more", t.mistaken-len(t.mistakes))
	}
	for _, a := range t.apps {
		if n := a.panics.Load(); n > 0 {
			tb.Errorf("%d panics", n)
		}
	}
}

// String sums up what was asked and answered.
func (t *traffic) String() string {
	var b strings.Builder
	for what, name := range doing {
		fmt.Fprintf(&b, "%s:", name)
		for status := range t.counts[what] {
			if n := t.counts[what][status].Load(); n > 0 {
				fmt.Fprintf(&b, " %d×%d", n, status)
			}
		}
		fmt.Fprintf(&b, " (p50 %v, p99 %v); ", t.times[what].quantile(0.5), t.times[what].quantile(0.99))
	}
	return strings.TrimSuffix(b.String(), "; ")
}

func (t *traffic) count(what, status int) int64 { return t.counts[what][status].Load() }

// tally counts an answer, and says whether it came and came in time.
func (t *traffic) tally(what int, got answer) bool {
	t.times[what].add(got.took)
	if got.took > t.bounds[what] {
		t.mistake("%s: %v, want an answer within %v", doing[what], got, t.bounds[what])
	}
	if got.status == 0 {
		t.mistake("%s: %v", doing[what], got)
		return false
	}
	t.counts[what][got.status].Add(1)
	return true
}

// guarded makes a guarded request and checks the answer.
func (t *traffic) guarded(a *application, h *holding) answer {
	dark, goneAt := t.dark.Load(), h.goneAt.Load()
	got := a.guarded(h.token)
	if !t.tally(doGuarded, got) {
		return got
	}
	after := func(since int64) bool { return since != 0 && got.began.UnixNano()-since > int64(a.staleness) }
	switch got.status {
	case http.StatusOK:
		if after(goneAt) {
			t.mistake("a token was accepted %v after its log-out was acknowledged", time.Duration(got.began.UnixNano()-goneAt))
		}
		if after(dark) && t.dark.Load() == dark {
			t.mistake("a token was accepted although the database could not be asked for %v", time.Duration(got.began.UnixNano()-dark))
		}
	case http.StatusUnauthorized:
		if h.state.Load() == held {
			t.mistake("a token was refused that nobody has logged out: %v", got)
		}
		h.end(time.Now()) // whatever its log-out was answered with
	case http.StatusServiceUnavailable:
	default:
		t.mistake("a guarded request: %v", got)
	}
	return got
}

// impossible reports what was acknowledged that began, and ended, in the dark.
func (t *traffic) impossible(dark int64, what string) {
	if dark != 0 && t.dark.Load() == dark {
		t.mistake("%s was acknowledged although the database could not be asked", what)
	}
}

// login logs in and remembers the token.
func (t *traffic) login(a *application, name string) (*holding, answer) {
	dark := t.dark.Load()
	got := a.login(name)
	if !t.tally(doLogin, got) {
		return nil, got
	}
	switch got.status {
	case http.StatusOK:
		t.impossible(dark, "a login")
		h := &holding{token: got.token}
		t.mu.Lock()
		t.holdings = append(t.holdings, h)
		t.mu.Unlock()
		return h, got
	case http.StatusServiceUnavailable:
	default:
		t.mistake("a login: %v", got)
	}
	return nil, got
}

// logout logs out and checks the answer.
func (t *traffic) logout(a *application, h *holding) answer {
	h.asked.Add(1)
	h.state.CompareAndSwap(held, leaving)
	dark, goneAt := t.dark.Load(), h.goneAt.Load()
	got := a.logout(h.token)
	if !t.tally(doLogout, got) {
		return got
	}
	switch got.status {
	case http.StatusNoContent:
		t.impossible(dark, "a log-out")
		if goneAt != 0 && got.began.UnixNano()-goneAt > int64(a.staleness) {
			t.mistake("a token was logged out although that was acknowledged before")
		}
		h.end(time.Now())
	case http.StatusUnauthorized:
		if h.asked.Load() == 1 {
			t.mistake("a log-out was refused although there was none before: %v", got)
		}
		h.end(time.Now())
	case http.StatusServiceUnavailable:
	default:
		t.mistake("a log-out: %v", got)
	}
	return got
}

// pick returns a token of those that are held, or are perhaps; nil where there is
// none, and now and then one of those that are gone.
func (t *traffic) pick(rng *rand.Rand) *holding {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.holdings) > 0 && (len(t.ended) == 0 || rng.IntN(8) > 0) {
		i := rng.IntN(len(t.holdings))
		h := t.holdings[i]
		if h.state.Load() != gone {
			return h
		}
		t.holdings[i] = t.holdings[len(t.holdings)-1]
		t.holdings = t.holdings[:len(t.holdings)-1]
		const remembered = 64
		if t.ended = append(t.ended, h); len(t.ended) > remembered {
			t.ended = t.ended[1:]
		}
	}
	if len(t.ended) == 0 {
		return nil
	}
	return t.ended[rng.IntN(len(t.ended))]
}

func (t *traffic) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.holdings)
}

// run has all clients at work until the context ends, and waits for their last answers.
func (t *traffic) run(ctx context.Context, seed uint64) {
	var clients sync.WaitGroup
	for i, name := range t.names {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		clients.Go(func() {
			for ctx.Err() == nil {
				t.step(ctx, rng, name)
				if t.think > 0 {
					time.Sleep(time.Duration(rng.Int64N(int64(t.think))))
				}
			}
		})
	}
	clients.Wait()
}

// step is one thing that a client does.
func (t *traffic) step(ctx context.Context, rng *rand.Rand, name string) {
	t.moving.RLock()
	defer t.moving.RUnlock()
	a := t.apps[rng.IntN(len(t.apps))]
	if t.during != nil && rng.IntN(20) == 0 {
		t.during(ctx, a, rng)
		return
	}
	switch n := rng.IntN(100); {
	case n < 14 && t.size() < t.most:
		if h, _ := t.login(a, name); h != nil {
			t.guarded(t.apps[rng.IntN(len(t.apps))], h)
		}
	case n >= 14 && n < 28 && t.size() > t.most/2:
		if h := t.pick(rng); h != nil {
			t.logout(a, h)
		}
	default:
		if h := t.pick(rng); h != nil {
			t.guarded(a, h)
			return
		}
		t.login(a, name)
	}
}

// move changes the instances, when nobody waits for an answer of one.
func (t *traffic) move(change func(apps []*application)) {
	t.moving.Lock()
	defer t.moving.Unlock()
	change(t.apps)
}

// background has all clients at work until the returned function is called.
func (t *traffic) background(ctx context.Context, seed uint64) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var ended sync.WaitGroup
	ended.Go(func() { t.run(ctx, seed) })
	return func() {
		cancel()
		ended.Wait()
	}
}

// works waits until every instance logs in, lets in and logs out again, and returns
// how long that took.
func (t *traffic) works(within time.Duration) (time.Duration, error) {
	begin := time.Now()
	for _, a := range t.apps {
		for {
			var got answer
			h, in := t.login(a, t.names[0])
			if got = in; h != nil {
				if got = t.guarded(a, h); got.status == http.StatusOK {
					if got = t.logout(a, h); got.status == http.StatusNoContent {
						break
					}
				}
			}
			if took := time.Since(begin); took > within {
				return took, fmt.Errorf("nothing works after %v: the last answer was %v", took, got)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return time.Since(begin), nil
}

// settle checks, with everything in order, that every instance agrees with what the
// clients know of every token; then it logs them all out and looks again.
func (t *traffic) settle() {
	all := t.all()
	t.agree("in the end", all)
	for i, h := range all {
		for deadline := time.Now().Add(2 * busy); h.state.Load() != gone; {
			if t.logout(t.apps[i%len(t.apps)], h); time.Now().After(deadline) {
				t.mistake("a token cannot be logged out")
				break
			}
		}
	}
	t.agree("after all log-outs", all)
	t.mu.Lock()
	t.holdings, t.ended = nil, nil
	t.mu.Unlock()
}

func (t *traffic) all() []*holding {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append(append([]*holding(nil), t.holdings...), t.ended...)
}

// agree checks that every instance agrees with what the clients know of tokens, when
// caches have had their time.
func (t *traffic) agree(when string, tokens []*holding) {
	for _, a := range t.apps {
		time.Sleep(a.staleness)
	}
	for _, h := range tokens {
		for _, a := range t.apps {
			want := map[int32]int{held: http.StatusOK, gone: http.StatusUnauthorized}[h.state.Load()]
			got := t.guarded(a, h)
			for deadline := time.Now().Add(busy); got.status == http.StatusServiceUnavailable && time.Now().Before(deadline); {
				got = t.guarded(a, h) // a busy machine
			}
			if want != 0 && got.status != want || got.status == http.StatusServiceUnavailable {
				t.mistake("%s: a token is answered with %v, want %d (0 is either)", when, got, want)
			}
		}
	}
}

// histogram counts durations by their size, a fifth apart, in little memory.
type histogram struct{ of [128]atomic.Int64 }

const histogramBase = 10 * time.Microsecond

func (h *histogram) add(d time.Duration) {
	i := 0
	for limit := histogramBase; d > limit && i < len(h.of)-1; i++ {
		limit += limit / 5
	}
	h.of[i].Add(1)
}

// quantile returns the upper end of the bucket that it falls into.
func (h *histogram) quantile(q float64) time.Duration {
	var all int64
	for i := range h.of {
		all += h.of[i].Load()
	}
	limit, seen := histogramBase, int64(0)
	for i := range h.of {
		if seen += h.of[i].Load(); all > 0 && float64(seen) >= q*float64(all) {
			break
		}
		limit += limit / 5
	}
	return limit.Round(10 * time.Microsecond)
}

// heapInUse is what is left in memory after everything was collected.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // for what finalizers have let go of
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// eventuallyTrue polls a condition until it holds.
func eventuallyTrue(tb testing.TB, within time.Duration, what string, cond func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(within); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Errorf("not within %v: %s", within, what)
			return
		}
	}
}
