package contract

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/memstore"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/strategy"
)

const (
	password      = "correct-horse-battery"
	wrongPassword = "wrong-horse-battery"
	newPassword   = "another-horse-battery"
)

// app is an application that listens, and the test that talks to it.
type app struct {
	world
	t      *testing.T
	url    string
	client *http.Client
	clock  *clock
	db     *database
	users  *account.Manager[Member, uuid.UUID]
	tokens *strategy.Database[Member, uuid.UUID]
	set    settings
	// read counts what the application has read from each connection, in bytes: an
	// *atomic.Int64 by the client's address. It can go on after the answer.
	read sync.Map
}

// settings are what a check may want otherwise.
type settings struct {
	tokens strategy.Config
	plugin ginauth.Config
	// attempts are the counters of the limiter of logins, in the place of the
	// backend's, and limit is how it is configured then.
	attempts account.AttemptStore
	limit    account.LimiterConfig
	// ownCheck is the application's check on the route /checked.
	ownCheck func(context.Context, strategy.Session[Member]) (bool, error)
	// trustedProxies are Gin's.
	trustedProxies []string
}

func neverExpires(s *settings)    { s.tokens.Lifetime = 0 }
func requireVerified(s *settings) { s.plugin.RequireVerified = true }

func transports(ts ...ginauth.Transport) func(*settings) {
	return func(s *settings) { s.plugin.Transports = ts }
}

// tokens changes the configuration of the strategy.
func tokens(change func(*strategy.Config)) func(*settings) {
	return func(s *settings) { change(&s.tokens) }
}

// plugin changes the configuration of the plugin.
func plugin(change func(*ginauth.Config)) func(*settings) {
	return func(s *settings) { change(&s.plugin) }
}

// ownCheck lets users pass, or not, or fails to find out.
func ownCheck(pass bool, err error) func(*settings) {
	return func(s *settings) {
		s.ownCheck = func(context.Context, strategy.Session[Member]) (bool, error) { return pass, err }
	}
}

// app starts an application with the world's transport.
func (w world) app(t *testing.T, options ...func(*settings)) *app {
	t.Helper()
	set := settings{
		tokens: strategy.Config{Lifetime: lifetime},
		plugin: ginauth.Config{Transports: []ginauth.Transport{w.transport}},
	}
	ownCheck(true, nil)(&set)
	for _, option := range options {
		option(&set)
	}
	a := &app{world: w, t: t, clock: newClock(), db: newDatabase(), set: set}
	set.tokens.Now, set.plugin.Now = a.clock.now, a.clock.now
	set.tokens.OnEvent, set.plugin.OnEvent = w.events.hear, w.events.hear
	tokens := tokenStore{w.backend.Tokens, a.db}
	users := userStore{w.backend.Users, a.db}

	var err error
	a.users, err = account.NewManager(users, a.attempts(), uuid.New, account.Config{
		Argon2:         account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1},
		InsecureArgon2: true,
		Limiter:        set.limit,
		Now:            a.clock.now,
		OnEvent:        w.events.hear,
	})
	if err != nil {
		t.Fatal(err)
	}
	source := strategy.UserSource[Member, uuid.UUID](users)
	a.tokens, err = strategy.NewDatabase(tokens, source, set.tokens)
	if err != nil {
		t.Fatal(err)
	}
	auth, err := ginauth.New(a.tokens, a.users, set.plugin)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(a.routes(auth))
	server.Listener = countingListener{server.Listener, &a.read}
	server.Config.ErrorLog = log.New(serverLog{t}, "", 0)
	server.Start()
	t.Cleanup(server.Close)
	a.url, a.client = server.URL, server.Client()
	a.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return a
}

func (a *app) attempts() account.AttemptStore {
	attempts := a.backend.Attempts
	if a.set.attempts != nil {
		attempts = a.set.attempts
	}
	if attempts == nil {
		attempts, _ = memstore.NewAttempts(0)
	}
	return attempts
}

// serverLog is what the server itself has to say: it tells of panics there.
type serverLog struct{ t *testing.T }

func (l serverLog) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("panic")) {
		l.t.Errorf("the server: %s", line)
	}
	return len(line), nil
}

// countingListener counts what is read from its connections.
type countingListener struct {
	net.Listener
	read *sync.Map
}

func (l countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	n := new(atomic.Int64)
	l.read.Store(conn.RemoteAddr().String(), n)
	return countingConn{conn.(*net.TCPConn), n}, nil
}

type countingConn struct {
	*net.TCPConn
	read *atomic.Int64
}

func (c countingConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

// maxAge is how fresh a login has to be at the route /fresh.
const maxAge = 10 * time.Minute

func (a *app) routes(auth *ginauth.Auth[Member]) http.Handler {
	set := a.set
	r := gin.New()
	if err := r.SetTrustedProxies(set.trustedProxies); err != nil {
		a.t.Fatal(err)
	}
	auth.Routes(r.Group("/auth"))
	if err := auth.Introspection(r.Group("/auth"), ginauth.Superuser); err != nil {
		a.t.Fatal(err)
	}
	who := whoIsThere(auth)
	r.GET("/fresh", auth.RequireUser(ginauth.Fresh(maxAge)), who)
	r.GET("/optional/fresh", auth.OptionalUser(ginauth.Fresh(maxAge)), who)
	r.GET("/deploy", auth.RequireUser(ginauth.Scopes("deploy:write")), who)
	r.GET("/release", auth.RequireUser(ginauth.Scopes("deploy:write", "tag:write")), who)
	r.GET("/any", auth.RequireUser(ginauth.Scopes()), who)
	r.GET("/deploy/fresh", auth.RequireUser(ginauth.Scopes("deploy:write"), ginauth.Fresh(maxAge)), who)
	r.GET("/optional/deploy", auth.OptionalUser(ginauth.Scopes("deploy:write")), who)
	r.POST("/password", auth.RequireUser(), a.changePassword(auth))
	r.GET("/guarded", auth.RequireUser(), who)
	r.POST("/guarded", auth.RequireUser(), who)
	r.GET("/verified", auth.RequireUser(ginauth.Verified), who)
	r.GET("/superuser", auth.RequireUser(ginauth.Superuser), who)
	r.GET("/checked", auth.RequireUser(ginauth.CheckUser(set.ownCheck)), who)
	r.GET("/optional", auth.OptionalUser(), who)
	r.GET("/optional/verified", auth.OptionalUser(ginauth.Verified), who)
	r.GET("/optional/checked", auth.OptionalUser(ginauth.CheckUser(set.ownCheck)), who)
	r.Group("/nested", auth.RequireUser()).
		Group("/deeper", auth.OptionalUser(), auth.RequireUser(ginauth.Verified)).
		GET("/still", auth.RequireUser(ginauth.Superuser), auth.RequireUser(), who)
	return r
}

// whoIsThere answers with the user's address, with "a visitor" where there is
// none, and with 500 where the ways to learn it disagree.
func whoIsThere(auth *ginauth.Auth[Member]) gin.HandlerFunc {
	return func(c *gin.Context) {
		user, ok := auth.CurrentUser(c)
		session, hasSession := auth.CurrentSession(c)
		below, hasBelow := strategy.UserFromContext[Member](c.Request.Context())
		belowSession, hasBelowSession := strategy.SessionFromContext[Member](c.Request.Context())
		switch {
		case hasSession != ok || hasBelow != ok || hasBelowSession != ok,
			session.User != user || below != user || !reflect.DeepEqual(belowSession, session):
			c.String(http.StatusInternalServerError, "CurrentUser %+v, CurrentSession %+v, UserFromContext %+v, SessionFromContext %+v",
				user, session, below, belowSession)
		case !ok:
			c.String(http.StatusOK, "a visitor")
		case session.ID == uuid.Nil || session.CreatedAt.IsZero():
			c.String(http.StatusInternalServerError, "the session %+v has no ID or time", session)
		default:
			c.String(http.StatusOK, "%s", user.Email)
		}
	}
}

// changePassword is the application's route: the session in which the password
// was changed is kept.
func (a *app) changePassword(auth *ginauth.Auth[Member]) gin.HandlerFunc {
	return func(c *gin.Context) {
		user, _ := auth.CurrentUser(c)
		user, err := a.users.ChangePassword(c.Request.Context(), user.ID, c.PostForm("current"), c.PostForm("new"))
		if err != nil {
			c.String(http.StatusBadRequest, "%v", err)
			return
		}
		a.events.hide(string(user.HashedPassword))
		issued, err := auth.Renew(c, user)
		if err != nil {
			auth.Refuse(c, err)
			return
		}
		auth.Answer(c, issued)
	}
}

// flags of a new user.
type flags struct{ active, verified, superuser bool }

var active = flags{active: true}

// user creates an account with the password of the suite.
func (a *app) user(f flags) Member {
	a.t.Helper()
	user, err := a.users.Create(a.t.Context(), Member{
		User: account.User[uuid.UUID]{
			Email:  "ann." + uuid.NewString() + "@example.com",
			Active: f.active, Verified: f.verified, Superuser: f.superuser,
		},
		Name: "Ann",
	}, password)
	if err != nil {
		a.t.Fatalf("create a user: %v", err)
	}
	a.events.hide(string(user.HashedPassword))
	return user
}

func (a *app) setFlags(user Member, f flags) {
	a.t.Helper()
	if err := a.backend.SetFlags(a.t.Context(), user.ID, f.active, f.verified, f.superuser); err != nil {
		a.t.Fatalf("set a user's flags: %v", err)
	}
}

func (a *app) deleteUser(user Member) {
	a.t.Helper()
	if err := a.backend.DeleteUser(a.t.Context(), user.ID); err != nil {
		a.t.Fatalf("delete a user: %v", err)
	}
}

// login logs a user in through the login route and returns the token.
func (a *app) login(user Member) string {
	a.t.Helper()
	got := a.post("/auth/login", asForm("username", user.Email, "password", password))
	return a.deliveredToken(got)
}

// deliveredToken returns the token in the answer to a login that did not ask to
// be remembered.
func (a *app) deliveredToken(got reply) string {
	a.t.Helper()
	deliver := a.delivered
	if a.set.plugin.BriefLifetime > 0 {
		deliver = a.deliveredBriefly
	}
	token := deliver(a.t, got, cmp.Or(a.set.plugin.BriefLifetime, a.set.tokens.Lifetime))
	a.hide(token)
	return token
}

// loggedIn returns a new active user and a token of theirs.
func (a *app) loggedIn() (Member, string) {
	a.t.Helper()
	user := a.user(active)
	return user, a.login(user)
}

var format, _ = strategy.NewTokenFormat("")

// unknownToken returns a well-formed token that was never issued.
func (a *app) unknownToken() string {
	secret, _ := format.New()
	a.hide(secret.Reveal())
	return secret.Reveal()
}

// hide keeps a token, and its digest, from appearing in any event.
func (a *app) hide(token string) {
	a.events.hide(token)
	if digest, err := format.Digest(token); err == nil {
		a.events.hide(digest)
	}
}

// badToken is a token that no guard may accept, and how it came to be.
type badToken struct {
	name string
	make func(*app) string
}

var malformed = badToken{"malformed token", func(*app) string { return "lk_malformed" }}

var badTokens = []badToken{
	malformed,
	{"token with a wrong checksum", func(a *app) string {
		token := a.unknownToken()
		return token[:len(token)-1] + string(token[len(token)-1]^1)
	}},
	{"unknown token", (*app).unknownToken},
	{"revoked token", func(a *app) string {
		_, token := a.loggedIn()
		a.expect("log out", a.post("/auth/logout", nothing, a.carry(token)), a.loggedOut())
		return token
	}},
	{"expired token", func(a *app) string {
		_, token := a.loggedIn()
		a.clock.advance(lifetime + time.Millisecond)
		return token
	}},
	{"ended session's token", func(a *app) string {
		user, token := a.loggedIn()
		a.expect("end all sessions", a.post("/auth/logout-all", nothing, a.carry(a.login(user))), a.loggedOut())
		return token
	}},
	{"rotated token", func(a *app) string {
		_, token := a.loggedIn()
		a.reauthenticated(token, lifetime)
		return token
	}},
	{"token from before a change of the password", func(a *app) string {
		user, token := a.loggedIn()
		a.clock.advance(time.Millisecond)
		a.changedPassword(user)
		return token
	}},
	{"token of a user who is gone", func(a *app) string {
		user, token := a.loggedIn()
		a.deleteUser(user)
		return token
	}},
	{"token of an inactive user", func(a *app) string {
		user, token := a.loggedIn()
		a.setFlags(user, flags{active: false, verified: true, superuser: true})
		return token
	}},
}

// clock is the time of an application. It stands still until it is advanced.
type clock struct{ unixMilli atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.unixMilli.Store(time.Now().UnixMilli())
	return c
}

func (c *clock) now() time.Time          { return time.UnixMilli(c.unixMilli.Load()) }
func (c *clock) set(t time.Time)         { c.unixMilli.Store(t.UnixMilli()) }
func (c *clock) advance(d time.Duration) { c.unixMilli.Add(d.Milliseconds()) }

// The ways in which a database fails.
var failures = []struct {
	name string
	err  error
}{
	{"fails", errors.New("the database is down")},
	{"times out", context.DeadlineExceeded},
}
