package contract

import (
	"bytes"
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

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/internal/sameuser"
	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

const (
	password      = "correct-horse-battery"
	wrongPassword = "wrong-horse-battery"
	newPassword   = "another-horse-battery"
)

// rig is an application behind a listener, and a client that sends it requests.
type rig struct {
	environment
	t        *testing.T
	server   *httptest.Server
	url      string
	client   *http.Client
	clock    *clock
	db       *database
	accounts *account.Manager[Member, uuid.UUID]
	sessions *strategy.Database[Member, uuid.UUID]
	settings settings
	// bytesRead counts the bytes that the server has read from each connection: an
	// *atomic.Int64 by the client's address. The server can go on reading after it has
	// answered.
	bytesRead sync.Map
	// mails are the messages that were sent. notices are those that tell of a change.
	mails, notices chan account.Message
	// uploads are the temporary files of uploads that handlers have seen.
	uploads uploads
}

// settings are the settings of a rig that a check can change.
type settings struct {
	strategy strategy.Config
	plugin   ginauth.Config
	// attempts replaces the backend's store of attempts.
	attempts account.AttemptStore
	limiter  account.LimiterConfig
	// ownCheck is the application's check on the route /checked.
	ownCheck func(context.Context, strategy.Session[Member]) (bool, error)
	// mail changes the messages. registrations is the limit on registrations.
	mail          account.MailConfig
	registrations int
	// trustedProxies are Gin's trusted proxies.
	trustedProxies []string
}

func neverExpires(s *settings)    { s.strategy.Lifetime = 0 }
func requireVerified(s *settings) { s.plugin.RequireVerified = true }

func withTransports(ts ...ginauth.Transport) func(*settings) {
	return func(s *settings) { s.plugin.Transports = ts }
}

// withStrategy changes the configuration of the strategy.
func withStrategy(change func(*strategy.Config)) func(*settings) {
	return func(s *settings) { change(&s.strategy) }
}

// withPlugin changes the configuration of the plugin.
func withPlugin(change func(*ginauth.Config)) func(*settings) {
	return func(s *settings) { change(&s.plugin) }
}

// ownCheck sets the result of the application's own check.
func ownCheck(pass bool, err error) func(*settings) {
	return func(s *settings) {
		s.ownCheck = func(context.Context, strategy.Session[Member]) (bool, error) { return pass, err }
	}
}

// rig starts an application with the transport of the environment.
func (env environment) rig(t *testing.T, options ...func(*settings)) *rig {
	t.Helper()
	set := settings{
		strategy: strategy.Config{Lifetime: lifetime},
		plugin:   ginauth.Config{Transports: []ginauth.Transport{env.transport}},
		attempts: env.backend.Attempts,
	}
	ownCheck(true, nil)(&set)
	for _, option := range options {
		option(&set)
	}
	r := &rig{
		environment: env, t: t, clock: newClock(), db: newDatabase(), settings: set,
		mails: make(chan account.Message, 100), notices: make(chan account.Message, 100),
	}
	set.strategy.Now, set.plugin.Now = r.clock.now, r.clock.now
	set.strategy.OnEvent, set.plugin.OnEvent = env.events.listen, env.events.listen
	if set.attempts == nil {
		attempts, err := memstore.NewAttempts(0)
		if err != nil {
			t.Fatal(err)
		}
		set.attempts = attempts
	}

	users := userStore{env.backend.Users, r.db}
	var err error
	r.sessions, err = strategy.NewDatabase(tokenStore{env.backend.Tokens, r.db}, users, set.strategy)
	if err != nil {
		t.Fatal(err)
	}
	// Without the sessions, which would delete the rows of revoked tokens: the contract shows
	// that the token versions alone make them invalid.
	var oneTime account.OneTimeTokenStore[uuid.UUID] = memstore.NewOneTimeTokens[uuid.UUID]()
	if env.backend.OneTime != nil {
		oneTime = env.backend.OneTime
	}
	set.mail.Mailer = account.MailerFunc(r.keepMail)
	r.accounts, err = account.NewManager(users, oneTime, set.attempts, uuid.New, account.Config{
		Argon2:         account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1},
		InsecureArgon2: true,
		Limiter:        set.limiter,
		Mail:           set.mail,

		RegistrationsPerNetwork: set.registrations,

		Now:     r.clock.now,
		OnEvent: env.events.listen,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.accounts.Close)
	auth, err := ginauth.New(r.sessions, r.accounts, set.plugin)
	if err != nil {
		t.Fatal(err)
	}
	if auth, err = ginauth.WithAccounts(auth, r.accounts); err != nil {
		t.Fatal(err)
	}
	r.server = httptest.NewUnstartedServer(r.routes(auth))
	r.server.Listener = countingListener{r.server.Listener, &r.bytesRead}
	r.server.Config.ErrorLog = log.New(panicLog{t}, "", 0)
	r.server.Start()
	t.Cleanup(r.server.Close)
	r.url, r.client = r.server.URL, r.server.Client()
	if env.backend.Watch != nil {
		r.client.Transport = env.backend.Watch(t, auth, r.client.Transport)
	}
	r.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return r
}

// panicLog is the server's error log. A panic in the log fails the test.
type panicLog struct{ t *testing.T }

func (l panicLog) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("panic")) {
		l.t.Errorf("the server: %s", line)
	}
	return len(line), nil
}

// countingListener counts the bytes that are read from its connections.
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

// maxAge is the greatest age of a login at the route /fresh.
const maxAge = 10 * time.Minute

// maxUploadMemory is the size from which the application's server stores an upload in a
// temporary file.
const maxUploadMemory = 1 << 10

func (r *rig) routes(auth *ginauth.Auth[Member]) http.Handler {
	engine := gin.New()
	engine.MaxMultipartMemory = maxUploadMemory
	if err := engine.SetTrustedProxies(r.settings.trustedProxies); err != nil {
		r.t.Fatal(err)
	}
	auth.Routes(engine.Group("/auth"))
	accounts := auth.WithHooks(hooks)
	accounts.RegisterRoutes(engine.Group("/auth"))
	accounts.VerifyRoutes(engine.Group("/auth"))
	accounts.ResetPasswordRoutes(engine.Group("/auth"))
	accounts.UserRoutes(engine.Group("/auth/users")) // expectNotStored looks at paths in /auth/
	if err := auth.Introspection(engine.Group("/auth"), ginauth.Superuser); err != nil {
		r.t.Fatal(err)
	}
	user := showUser(auth)
	ownCheck := auth.CheckUser(r.settings.ownCheck)
	engine.GET("/guarded", auth.RequireUser(), user)
	engine.POST("/guarded", auth.RequireUser(), user)
	engine.GET("/verified", auth.RequireUser(ginauth.Verified), user)
	engine.GET("/superuser", auth.RequireUser(ginauth.Superuser), user)
	engine.GET("/checked", auth.RequireUser(ownCheck), user)
	engine.GET("/fresh", auth.RequireUser(ginauth.Fresh(maxAge)), user)
	engine.GET("/deploy", auth.RequireUser(ginauth.Scopes("deploy:write")), user)
	engine.GET("/deploy/fresh", auth.RequireUser(ginauth.Scopes("deploy:write"), ginauth.Fresh(maxAge)), user)
	engine.GET("/release", auth.RequireUser(ginauth.Scopes("deploy:write", "tag:write")), user)
	engine.GET("/any", auth.RequireUser(ginauth.Scopes()), user)
	engine.GET("/optional", auth.OptionalUser(), user)
	engine.GET("/optional/verified", auth.OptionalUser(ginauth.Verified), user)
	engine.GET("/optional/checked", auth.OptionalUser(ownCheck), user)
	engine.GET("/optional/fresh", auth.OptionalUser(ginauth.Fresh(maxAge)), user)
	engine.GET("/optional/deploy", auth.OptionalUser(ginauth.Scopes("deploy:write")), user)
	engine.Group("/nested", auth.RequireUser()).
		Group("/deeper", auth.OptionalUser(), auth.RequireUser(ginauth.Verified)).
		GET("/still", auth.RequireUser(ginauth.Superuser), auth.RequireUser(), user)
	engine.POST("/password", auth.RequireUser(), r.changePassword(auth))
	engine.POST("/upload", auth.RequireUser(), r.uploads.receive)
	engine.POST("/optional/upload", auth.OptionalUser(), r.uploads.receive)
	engine.POST("/nested/upload", auth.OptionalUser(), auth.RequireUser(), auth.RequireUser(ginauth.Fresh(maxAge)), r.uploads.receive)
	if transports := r.settings.plugin.Transports; len(transports) > 1 {
		second, err := auth.AnswerLoginsWith(transports[1])
		if err != nil {
			r.t.Fatal(err)
		}
		second.Routes(engine.Group("/second/auth"))
		engine.GET("/second/guarded", second.RequireUser(), showUser(second))
		engine.GET("/second/mixed", second.RequireUser(), user)
		engine.POST("/second/password", auth.RequireUser(), r.changePassword(second))
	}
	return engine
}

// showUser answers with the user's address, or with "anonymous" if there is no user. It
// answers 500 if the functions that return the user or the session disagree.
func showUser(auth *ginauth.Auth[Member]) gin.HandlerFunc {
	return func(c *gin.Context) {
		user, ok := auth.CurrentUser(c)
		session, hasSession := auth.CurrentSession(c)
		ctx := c.Request.Context()
		userInContext, hasUserInContext := strategy.UserFromContext[Member](ctx)
		sessionInContext, hasSessionInContext := strategy.SessionFromContext[Member](ctx)
		switch {
		case hasSession != ok || hasUserInContext != ok || hasSessionInContext != ok,
			!sameuser.Equal(session.User, user), !sameuser.Equal(userInContext, user),
			!sameuser.Equal(sessionInContext.User, user), !reflect.DeepEqual(sessionInContext.SessionInfo, session.SessionInfo):
			c.String(http.StatusInternalServerError, "CurrentUser %+v, CurrentSession %+v, UserFromContext %+v, SessionFromContext %+v",
				user, session, userInContext, sessionInContext)
		case !ok:
			c.String(http.StatusOK, "anonymous")
		case session.ID == uuid.Nil || session.CreatedAt.IsZero():
			c.String(http.StatusInternalServerError, "the session %+v has no ID or time", session)
		default:
			c.String(http.StatusOK, "%s", user.Email)
		}
	}
}

// changePassword returns the application's handler that changes the password and keeps the
// current session.
func (r *rig) changePassword(auth *ginauth.Auth[Member]) gin.HandlerFunc {
	return func(c *gin.Context) {
		user, _ := auth.CurrentUser(c)
		user, err := r.accounts.ChangePassword(c.Request.Context(), user.ID, c.PostForm("current"), c.PostForm("new"))
		if err != nil {
			c.String(http.StatusBadRequest, "%v", err)
			return
		}
		r.events.keepSecret(user.HashedPassword.Reveal())
		issued, err := auth.Renew(c, user)
		if err != nil {
			auth.Refuse(c, err)
			return
		}
		auth.Answer(c, issued)
	}
}

// flags are the flags of a user.
type flags struct{ active, verified, superuser bool }

var active = flags{active: true}

// user creates an account with the password of the suite.
func (r *rig) user(f flags) Member {
	r.t.Helper()
	user, err := r.accounts.Create(r.t.Context(), Member{
		User: account.User[uuid.UUID]{
			Email:  "ann." + uuid.NewString() + "@example.com",
			Active: f.active, Verified: f.verified, Superuser: f.superuser,
		},
		Name: "Ann",
	}, password)
	if err != nil {
		r.t.Fatalf("create a user: %v", err)
	}
	r.events.keepSecret(user.HashedPassword.Reveal())
	return user
}

func (r *rig) setFlags(user Member, f flags) {
	r.t.Helper()
	if err := r.backend.SetFlags(r.t.Context(), user.ID, f.active, f.verified, f.superuser); err != nil {
		r.t.Fatalf("set a user's flags: %v", err)
	}
}

func (r *rig) deleteUser(user Member) {
	r.t.Helper()
	if err := r.backend.DeleteUser(r.t.Context(), user.ID); err != nil {
		r.t.Fatalf("delete a user: %v", err)
	}
}

// login logs a user in at the login route and returns the token.
func (r *rig) login(user Member) string {
	r.t.Helper()
	return r.issuedToken(r.tryLogin(user))
}

// tryLogin sends the user's right password to the login route.
func (r *rig) tryLogin(user Member, options ...option) reply {
	r.t.Helper()
	return r.loginWith(user.Email, password, options...)
}

// loginWith sends a name and a password to the login route.
func (r *rig) loginWith(username, password string, options ...option) reply {
	r.t.Helper()
	return r.post("/auth/login", asForm("username", username, "password", password), options...)
}

// tryReauthenticate sends a password to the route of reauthentication.
func (r *rig) tryReauthenticate(password string, options ...option) reply {
	r.t.Helper()
	return r.post("/auth/reauthenticate", asForm("password", password), options...)
}

// tryChangePassword changes the password at the application's route.
func (r *rig) tryChangePassword(options ...option) reply {
	r.t.Helper()
	return r.post("/password", asForm("current", password, "new", newPassword), options...)
}

// issuedToken checks the answer to a login without remember and returns the token.
func (r *rig) issuedToken(got reply) string {
	r.t.Helper()
	if brief := r.settings.plugin.BriefLifetime; brief > 0 {
		token := r.checkBriefLogin(r.t, got, brief)
		r.keepSecret(token)
		return token
	}
	return r.tokenIn(got, r.settings.strategy.Lifetime)
}

// tokenIn checks an answer that issues a token with this remaining lifetime, 0 for one that
// never expires, and returns the token.
func (r *rig) tokenIn(got reply, remaining time.Duration) string {
	r.t.Helper()
	token := r.checkLogin(r.t, got, remaining)
	r.keepSecret(token)
	return token
}

// loggedIn returns a new active user and the token of a login.
func (r *rig) loggedIn() (Member, string) {
	r.t.Helper()
	user := r.user(active)
	return user, r.login(user)
}

var format = token.Default

// unknownToken returns a well-formed token that was never issued.
func (r *rig) unknownToken() string {
	unknown, _ := format.New()
	r.keepSecret(unknown)
	return unknown
}

// keepSecret adds a token and its digest to the secrets that no event may contain.
func (r *rig) keepSecret(token string) {
	r.events.keepSecret(token)
	if digest, ok := format.Digest(token); ok {
		r.events.keepSecret(digest)
	}
}

// badToken makes a token that every guard must reject.
type badToken struct {
	name string
	make func(*rig) string
}

var malformed = badToken{"malformed token", func(*rig) string { return "lk_malformed" }}

var badTokens = []badToken{
	malformed,
	{"token with a wrong checksum", func(r *rig) string {
		token := r.unknownToken()
		return token[:len(token)-1] + string(token[len(token)-1]^1)
	}},
	{"unknown token", (*rig).unknownToken},
	{"revoked token", func(r *rig) string {
		_, token := r.loggedIn()
		r.expect("log out", r.post("/auth/logout", nothing, r.withToken(token)), r.loggedOut())
		return token
	}},
	{"expired token", func(r *rig) string {
		_, token := r.loggedIn()
		r.clock.advance(lifetime + time.Millisecond)
		return token
	}},
	{"token of an ended session", func(r *rig) string {
		user, token := r.loggedIn()
		r.expect("end all sessions", r.post("/auth/logout-all", nothing, r.withToken(r.login(user))), r.loggedOut())
		return token
	}},
	{"rotated token", func(r *rig) string {
		_, token := r.loggedIn()
		r.reauthenticated(token, lifetime)
		return token
	}},
	{"token issued before a change of the password", func(r *rig) string {
		user, token := r.loggedIn()
		r.clock.advance(time.Millisecond)
		r.changedPassword(user)
		return token
	}},
	{"token of a deleted user", func(r *rig) string {
		user, token := r.loggedIn()
		r.deleteUser(user)
		return token
	}},
	{"token of an inactive user", func(r *rig) string {
		user, token := r.loggedIn()
		r.setFlags(user, flags{active: false, verified: true, superuser: true})
		return token
	}},
}

// clock is the clock of a rig. Its time changes only when a check advances or sets it.
type clock struct{ unixMilli atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.unixMilli.Store(time.Now().UnixMilli())
	return c
}

func (c *clock) now() time.Time          { return time.UnixMilli(c.unixMilli.Load()) }
func (c *clock) set(t time.Time)         { c.unixMilli.Store(t.UnixMilli()) }
func (c *clock) advance(d time.Duration) { c.unixMilli.Add(d.Milliseconds()) }

// failures are the errors of a failing database.
var failures = []struct {
	name string
	err  error
}{
	{"fails", errors.New("the database is down")},
	{"times out", context.DeadlineExceeded},
}
