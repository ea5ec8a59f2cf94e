package faults_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/internal/secretscan"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// member is the user type of all tests.
type member struct {
	account.User[uuid.UUID] `bson:",inline"`
	Name                    string `bson:"name"`
}

func newMember(email string) member {
	return member{User: account.User[uuid.UUID]{Email: email}, Name: email}
}

const (
	memberPassword = "correct horse battery staple"

	// callTimeout bounds each call of a store.
	callTimeout = time.Second
	// hashWait bounds the wait in the queue for a password hash.
	hashWait = time.Second
	// busy is the additional time that a machine with too few processors needs.
	busy = 3 * time.Second

	// A guarded request reads the token, then the user.
	guardBound = guardCalls*callTimeout + busy
	// A login reads the account, waits in the queue, inserts the token, and deletes it
	// again if the insert was not answered.
	loginBound = loginCalls*callTimeout + hashWait + busy
	// A log-out reads the token and the user, deletes the token, and publishes the
	// revocation.
	logoutBound = logoutCalls*callTimeout + busy

	guardCalls, loginCalls, logoutCalls = 2, 3, 4

	// recoveryBound is the longest time after a fault until everything works again.
	recoveryBound = 5 * time.Second
)

// rig is one instance of an application, with its own MongoDB client. It is assembled
// from the parts, because the counters of its limiter are in memory by default.
type rig struct {
	url  string
	http *http.Client
	connected
	mongo    *mongoParts  // nil on SQL
	sql      *sql.DB      // nil on MongoDB
	unread   atomic.Int64 // events for rows on SQL that cannot be read
	accounts *account.Manager[member, uuid.UUID]
	sessions *strategy.Database[member, uuid.UUID]
	panics   atomic.Int64
	closing  sync.Once
	closers  []func()

	// staleness is how long a token may be accepted after another instance revoked it:
	// the cache's MaxStaleness.
	staleness time.Duration
}

// rigConfig configures a rig. The zero value is an instance on the suite's MongoDB server.
type rigConfig struct {
	on       backend       // default: the suite's MongoDB server
	way      string        // the address of a proxy in front of the server; default none
	timeout  time.Duration // default: callTimeout
	sessions strategy.Config
	// heartbeat is how often MongoDB's driver checks the server. Default: the driver's.
	heartbeat time.Duration
	// noLimiter is for tests with many logins that fail or are in flight: they all come
	// from one client IP.
	noLimiter bool
	// limiter configures a limiter with its counters in the database. Default: one with
	// its counters in memory.
	limiter *account.LimiterConfig
	// indexes makes or checks MongoDB's indexes. Default: ensureIndexes.
	indexes func(context.Context, *rig) error
}

// startRig starts a rig on a database. Close it also after an error.
func startRig(ctx context.Context, database string, cfg rigConfig) (r *rig, err error) {
	r = &rig{staleness: cfg.sessions.Cache.MaxStaleness}
	if cfg.on == nil {
		cfg.on = mongoServer(server.URI)
	}
	if cfg.timeout == 0 {
		cfg.timeout = callTimeout
	}
	if err := cfg.on.connect(ctx, r, database, cfg); err != nil {
		return r, err
	}
	cfg.sessions.PublishRevocations = true
	if r.sessions, err = strategy.NewDatabase(strategy.Store[uuid.UUID](r.tokens), strategy.UserSource[member, uuid.UUID](r.users), cfg.sessions); err != nil {
		return r, err
	}
	r.closers = append(r.closers, r.sessions.Close)
	if r.accounts, err = r.newManager(cfg); err != nil {
		return r, err
	}
	return r, r.serve(cfg)
}

// caches tells the caches of several instances of changes to users. It leaves the rows of
// revoked tokens in place, as the versions alone must make the tokens invalid.
type caches []account.Sessions[uuid.UUID]

func (c *caches) UserChanged(ctx context.Context, id uuid.UUID, _ strategy.Revoked) (err error) {
	for _, sessions := range *c {
		err = errors.Join(err, sessions.UserChanged(ctx, id, strategy.RevokedNone))
	}
	return err
}

func (r *rig) newManager(cfg rigConfig) (*account.Manager[member, uuid.UUID], error) {
	accounts := account.Config{
		Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true,
		MaxHashWait: hashWait, InsecureNoLimiter: cfg.noLimiter, Now: cfg.sessions.Now,
	}
	if cfg.limiter != nil {
		accounts.Limiter = *cfg.limiter
		return account.NewManager(r.users, nil, r.attempts, uuid.New, accounts, r.sessions)
	}
	attempts, err := memstore.NewAttempts(0)
	if err != nil {
		return nil, err
	}
	return account.NewManager(r.users, nil, attempts, uuid.New, accounts, r.sessions)
}

func (r *rig) serve(cfg rigConfig) error {
	auth, err := ginauth.New(r.sessions, r.accounts, ginauth.Config{Timeout: 3 * cfg.timeout, Now: cfg.sessions.Now})
	if err != nil {
		return err
	}
	router := gin.New()
	router.Use(func(c *gin.Context) {
		defer func() {
			if p := recover(); p != nil {
				r.panics.Add(1)
				fmt.Printf("PANIC: %v\n", p)
				c.AbortWithStatus(http.StatusInternalServerError)
			}
		}()
		c.Next()
	})
	auth.Routes(router.Group("/auth"))
	router.GET("/me", auth.RequireUser(), func(c *gin.Context) { c.Status(http.StatusOK) })
	listener := httptest.NewServer(router)
	r.url = listener.URL
	r.http = &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 128},
		Timeout:   30 * time.Second, // longer than the bounds, which report slow answers
	}
	r.closers = append(r.closers, func() {
		r.http.CloseIdleConnections()
		listener.Close()
	})
	return nil
}

// close ends the rig, in the reverse order of its start. It is idempotent.
func (r *rig) close() {
	r.closing.Do(func() {
		for i := len(r.closers) - 1; i >= 0; i-- {
			r.closers[i]()
		}
	})
}

// newRig starts a rig on a database, and closes it at the end of the test.
func newRig(tb testing.TB, database string, cfg rigConfig) *rig {
	tb.Helper()
	r, err := startRig(tb.Context(), database, cfg)
	tb.Cleanup(func() {
		r.close()
		if n := r.panics.Load(); n > 0 {
			tb.Errorf("%d panics", n)
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func (r *rig) register(ctx context.Context, email string) error {
	_, err := r.accounts.Register(ctx, newMember(email), memberPassword)
	return err
}

func (r *rig) mustRegister(tb testing.TB, emails ...string) {
	tb.Helper()
	for _, email := range emails {
		if err := r.register(tb.Context(), email); err != nil {
			tb.Fatal(err)
		}
	}
}

// answer is the result of a request.
type answer struct {
	status int // 0: no answer
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

func (r *rig) do(req *http.Request, err error) (got answer) {
	got.began = time.Now()
	defer func() { got.took = time.Since(got.began) }()
	if err != nil {
		got.err = err
		return got
	}
	resp, err := r.http.Do(req)
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

// guarded requests the route that only users may use.
func (r *rig) guarded(token string) answer { return r.send(http.MethodGet, "/me", token) }

func (r *rig) logout(token string) answer { return r.send(http.MethodPost, "/auth/logout", token) }

func (r *rig) send(method, path, token string) answer {
	req, err := http.NewRequest(method, r.url+path, nil)
	if err == nil {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return r.do(req, err)
}

func (r *rig) login(email string) answer { return r.loginWith(email, memberPassword) }

func (r *rig) loginWith(email, password string) answer {
	form := url.Values{"username": {email}, "password": {password}}
	req, err := http.NewRequest(http.MethodPost, r.url+"/auth/login", strings.NewReader(form.Encode()))
	if err == nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	got := r.do(req, err)
	if got.token != "" {
		secretscan.Record(got.token)
	}
	return got
}

// mustLogin logs in and returns the token.
func (r *rig) mustLogin(tb testing.TB, email string) (token string) {
	tb.Helper()
	got := r.login(email)
	if got.status != http.StatusOK {
		tb.Fatalf("the login of %s: %v, want 200", email, got)
	}
	return got.token
}

// want checks the status of a guarded request.
func (r *rig) want(tb testing.TB, status int, token, when string) {
	tb.Helper()
	if got := r.guarded(token); got.status != status {
		tb.Errorf("%s: got %v, want %d", when, got, status)
	}
}

// heapInUse is the size of the heap after a garbage collection.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // for memory that finalizers released
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
