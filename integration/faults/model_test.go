package faults_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"pgregory.net/rapid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/internal/contract"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
	"github.com/latchkey-go/latchkey/strategy/memstore"
)

// The model: what the documentation says, in as few words as possible. Times are
// in whole milliseconds. It calls nothing of the library.

type modelUser struct {
	id              uuid.UUID
	email, password string
	active          bool
	notBefore       time.Time
}

type modelSession struct {
	user  *modelUser
	id    uuid.UUID
	token string
	// The zero time: used means not written down, expires that only the lifetime
	// of all tokens ends it.
	created, used, authenticated, expires time.Time
	seen                                  time.Time // the user's limit as the login saw it
	scopes                                []string
	name                                  string
	ended                                 bool // revoked, replaced or over the limit
}

type model struct {
	lifetime, idle, touch time.Duration
	most                  int
	refuses               bool
	notBefore             time.Time
	users                 []*modelUser
	sessions              []*modelSession // in the order of their logins
}

func newModel(cfg strategy.Config) *model {
	m := &model{
		lifetime: cfg.Lifetime, idle: cfg.IdleTimeout, touch: cfg.TouchInterval,
		most: cfg.MaxSessions, refuses: cfg.WhenFull == strategy.RefuseNew, notBefore: cfg.NotBefore,
	}
	if m.touch == 0 {
		m.touch = m.idle / 10
		if m.idle >= 2*time.Second {
			m.touch = max(m.touch, time.Second)
		}
	}
	return m
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// end is the last moment at which a session can be accepted, however it is used;
// the zero time where there is none.
func (m *model) end(s *modelSession) time.Time {
	end := s.expires
	if m.lifetime > 0 {
		if all := s.created.Add(m.lifetime); end.IsZero() || all.Before(end) {
			end = all
		}
	}
	return end
}

// runs reports whether a session is good by itself, had its user given their
// credentials at a time.
func (m *model) runs(s *modelSession, authenticated, now time.Time) bool {
	end := m.end(s)
	switch {
	case s.ended, !end.IsZero() && now.After(end):
		return false
	case m.idle > 0 && s.scopes == nil && now.Sub(later(s.created, s.used)) > m.idle:
		return false
	}
	return !authenticated.Before(m.notBefore)
}

// admits reports whether a session is good and its user lets it in, had they given
// their credentials at a time and seen a limit.
func (m *model) admits(s *modelSession, authenticated, seen, now time.Time) bool {
	return m.runs(s, authenticated, now) && s.user.active && !s.user.notBefore.After(seen)
}

func (m *model) byToken(token string) *modelSession {
	for _, s := range m.sessions {
		if s.token == token && !s.ended {
			return s
		}
	}
	return nil
}

// newestFirst is the order of lists.
func newestFirst(sessions []*modelSession) []*modelSession {
	slices.Reverse(sessions)
	slices.SortStableFunc(sessions, func(a, b *modelSession) int { return b.created.Compare(a.created) })
	return sessions
}

// list returns what a user sees of their sessions, where their limit is at a time.
func (m *model) list(u *modelUser, notBefore, now time.Time) (sessions []*modelSession) {
	for _, s := range m.sessions {
		if s.user == u && m.runs(s, s.authenticated, now) && !notBefore.After(s.seen) {
			sessions = append(sessions, s)
		}
	}
	return newestFirst(sessions)
}

type modelLogin struct {
	as       modelUser // as the account was when the password was looked at
	at       time.Time // the zero time: now
	lifetime time.Duration
	scopes   []string
	name     string
	replaces []string
}

// login returns the new session, nil where the user has too many.
func (m *model) login(u *modelUser, l modelLogin, now time.Time) *modelSession {
	s := &modelSession{user: u, created: now, scopes: l.scopes, name: l.name}
	if m.most > 0 && !m.refuses && l.scopes == nil {
		// The new one is the newest, also of several in a millisecond.
		for _, other := range m.sessions {
			if other.user == u && !other.ended {
				s.created = later(s.created, other.created.Add(time.Millisecond))
			}
		}
	}
	if l.at.IsZero() {
		l.at = now
	}
	s.authenticated, s.seen = later(l.at, l.as.notBefore), l.as.notBefore
	if l.lifetime > 0 {
		s.expires = s.created.Add(l.lifetime)
	}
	var replaced []*modelSession
	for _, token := range l.replaces {
		if old := m.byToken(token); old != nil {
			replaced = append(replaced, old)
		}
	}
	m.sessions = append(m.sessions, s)
	if m.most > 0 && l.scopes == nil {
		counted := slices.DeleteFunc(m.list(u, l.as.notBefore, now), func(s *modelSession) bool {
			return s.scopes != nil || slices.Contains(replaced, s)
		})
		if len(counted) > m.most {
			if m.refuses {
				s.ended = true
				return nil
			}
			for _, old := range counted[m.most:] {
				old.ended = true
			}
		}
	}
	for _, old := range replaced {
		old.ended = true
	}
	return s
}

// read returns the session of a token, nil where that is refused.
func (m *model) read(token string, withUser bool, now time.Time) *modelSession {
	s := m.byToken(token)
	if s == nil || !m.runs(s, s.authenticated, now) || withUser && !m.admits(s, s.authenticated, s.seen, now) {
		return nil
	}
	if m.touch > 0 && now.Sub(later(s.created, s.used)) >= m.touch {
		s.used = now
	}
	return s
}

// rotate returns the session of a token that is exchanged. at is when the
// credentials were given again, and seen the user's limit then; the zero time where
// they were not.
func (m *model) rotate(token string, at, seen, now time.Time) *modelSession {
	s := m.byToken(token)
	if s == nil {
		return nil
	}
	at, seen = later(s.authenticated, at), later(s.seen, seen)
	if !m.admits(s, at, seen, now) {
		return nil
	}
	if m.touch > 0 {
		s.used = later(s.used, now)
	}
	s.authenticated, s.seen = at, seen
	return s
}

// supersede makes all tokens of a user invalid.
func (m *model) supersede(u *modelUser, now time.Time) {
	u.notBefore = later(now.Add(10*time.Second), u.notBefore.Add(time.Millisecond))
}

// What the model is compared with.

// subject is a strategy.Database, or something that is wrapped around one.
type subject interface {
	strategy.Strategy[contract.Member]
	strategy.TokenReader
	RotateToken(ctx context.Context, token string, opts ...strategy.RotateOption) (strategy.Secret, strategy.Session[contract.Member], error)
	Sessions(ctx context.Context, userID uuid.UUID, page strategy.Page) (strategy.SessionPage, error)
	DestroySession(ctx context.Context, userID, id uuid.UUID) error
	DestroyAll(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) error
	Close()
}

type (
	tokenStore = strategy.Store[uuid.UUID]
	userStore  = account.Store[contract.Member, uuid.UUID]
)

// fakeClock is a clock that is set by hand.
type fakeClock struct {
	mu sync.Mutex
	at time.Time
}

func (c *fakeClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *fakeClock) set(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = at
}

func (c *fakeClock) pass(d time.Duration) { c.set(c.now().Add(d)) }

// ms is the time as the library keeps it.
func (c *fakeClock) ms() time.Time { return c.now().UTC().Truncate(time.Millisecond) }

// modelled is something to compare with the model.
type modelled struct {
	// stores returns stores for a sequence, and what collects rows, if anything.
	stores func() (tokenStore, userStore, func(lifetime time.Duration, now func() time.Time) error)
	cached bool
	// apart is by how much the clock of a second instance is ahead; 0 is none.
	apart time.Duration
	// wrap and now replace something by something that is wrong.
	wrap func(subject, func() time.Time) subject
	now  func(*fakeClock) func() time.Time

	looked            atomic.Int64 // look-ups of tokens
	accepted, cheaply int          // requests that were let in; of those, without a look-up
}

// countingTokens counts the look-ups. It hides what else a store can do.
type countingTokens struct {
	tokenStore
	looked *atomic.Int64
}

func (s countingTokens) ByToken(ctx context.Context, digest string, createdAfter time.Time) (strategy.AccessToken[uuid.UUID], error) {
	s.looked.Add(1)
	return s.tokenStore.ByToken(ctx, digest, createdAfter)
}

// followedTokens can tell what is revoked.
type followedTokens struct {
	countingTokens
	strategy.RevocationLog[uuid.UUID]
}

// joinedUsers are read with their tokens.
type joinedUsers struct {
	userStore
	byToken func(ctx context.Context, digest string, createdAfter time.Time) (row, contract.Member, error)
	looked  *atomic.Int64
}

// joined returns users that are read with their tokens, in one command where both are
// on a server.
func joined(t *rapid.T, tokens tokenStore, users userStore, looked *atomic.Int64) joinedUsers {
	j := joinedUsers{userStore: users, looked: looked}
	onServer, ok := tokens.(*mongostore.Tokens[uuid.UUID])
	if !ok {
		j.byToken = func(ctx context.Context, digest string, createdAfter time.Time) (token row, user contract.Member, err error) {
			if token, err = tokens.ByToken(ctx, digest, createdAfter); err == nil {
				user, err = users.ByID(ctx, token.UserID)
			}
			return token, user, err
		}
		return j
	}
	source, err := mongostore.Join(onServer, users.(*mongostore.Users[contract.Member, uuid.UUID]))
	if err != nil {
		t.Fatal(err)
	}
	j.byToken = source.ByToken
	return j
}

func (s joinedUsers) ByToken(ctx context.Context, digest string, createdAfter time.Time) (row, contract.Member, error) {
	s.looked.Add(1)
	return s.byToken(ctx, digest, createdAfter)
}

// OnUserChange tells of what the users tell of.
func (s joinedUsers) OnUserChange(f func(context.Context, uuid.UUID) error) (stop func()) {
	if told, ok := s.userStore.(strategy.UserNotifier[uuid.UUID]); ok {
		return told.OnUserChange(f)
	}
	return func() {}
}

func inMemory() (tokenStore, userStore, func(time.Duration, func() time.Time) error) {
	return memstore.NewTokens[uuid.UUID](), memstore.NewUsers[contract.Member](), nil
}

// modelDatabase is a database of the test's own.
func modelDatabase(t *testing.T) *mongo.Database {
	t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(server.URI))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = client.Disconnect(ctx)
	})
	return testserver.Database(t, client)
}

// modelTokens returns the store of tokens in a database, with its indexes but for
// TTL: the clock of the model is no server's.
func modelTokens(t *testing.T, db *mongo.Database) *mongostore.Tokens[uuid.UUID] {
	t.Helper()
	tokens, err := mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{PurgeInterval: time.Hour})
	if err == nil {
		err = tokens.EnsureIndexes(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tokens.Close)
	return tokens
}

func modelUsers(t *testing.T, db *mongo.Database) *mongostore.Users[contract.Member, uuid.UUID] {
	t.Helper()
	users, err := mongostore.NewUsers[contract.Member](db, mongostore.UsersConfig{})
	if err == nil {
		err = users.EnsureIndexes(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return users
}

// onServer returns stores on the suite's server. All sequences share them: every
// one has its own users.
func onServer(t *testing.T) func() (tokenStore, userStore, func(time.Duration, func() time.Time) error) {
	t.Helper()
	db := modelDatabase(t)
	tokens, users := modelTokens(t, db), modelUsers(t, db)
	purge := func(lifetime time.Duration, now func() time.Time) error {
		old, err := mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{Lifetime: lifetime, TTLGrace: time.Millisecond, Now: now})
		if err != nil {
			return err
		}
		_, err = old.Purge(context.Background())
		return err
	}
	return func() (tokenStore, userStore, func(time.Duration, func() time.Time) error) {
		return tokens, users, purge
	}
}

// instance is one of an application's.
type instance struct {
	clock    *fakeClock
	subject  subject
	accounts *account.Manager[contract.Member, uuid.UUID]
}

// machine does the same to the model and to what is compared with it.
type machine struct {
	*model
	*instance // the one that has its turn
	instances []*instance
	purge     func() error
	of        *modelled

	issued  []string  // all tokens of all times
	pending []pending // logins whose password was looked at
	n       int
}

type pending struct {
	user *modelUser
	as   modelUser
	real contract.Member
	at   time.Time
}

const modelPassword = "correct horse battery"

func drawConfig(t *rapid.T, start time.Time) strategy.Config {
	cfg := strategy.Config{
		Lifetime:    drawFrom(t, []time.Duration{0, 20 * time.Second, time.Hour}, "Lifetime"),
		IdleTimeout: drawFrom(t, []time.Duration{0, time.Second, 30 * time.Second}, "IdleTimeout"),
		MaxSessions: drawFrom(t, []int{0, 1, 2, 3}, "MaxSessions"),
		NotBefore:   drawFrom(t, []time.Time{{}, {}, start.Add(-time.Hour), start.Add(3 * time.Second)}, "NotBefore"),
	}
	if cfg.MaxSessions > 0 {
		cfg.WhenFull = drawFrom(t, []strategy.WhenFull{strategy.EvictOldest, strategy.RefuseNew}, "WhenFull")
	}
	intervals := []time.Duration{0, 700 * time.Millisecond}
	if cfg.IdleTimeout == 0 {
		intervals = []time.Duration{0, 5 * time.Second}
	}
	cfg.TouchInterval = drawFrom(t, intervals, "TouchInterval")
	return cfg
}

func newMachine(t *rapid.T, of *modelled) *machine {
	start := time.Now().UTC().Truncate(time.Second)
	m := &machine{of: of}
	cfg := drawConfig(t, start)
	if of.apart > 0 {
		cfg.MaxSessions, cfg.WhenFull = 0, 0 // which sessions go first depends on the clocks
	}
	m.model = newModel(cfg)
	tokens, users, purge := of.stores()
	if purge != nil { // by the clock that is behind: what has ended by it has ended by all
		m.purge = func() error { return purge(cfg.Lifetime, m.instances[0].clock.now) }
	}
	counting := countingTokens{tokens, &of.looked}
	store := tokenStore(counting)
	if of.cached {
		cfg.Cache.MaxStaleness = drawFrom(t, []time.Duration{time.Second, time.Minute}, "MaxStaleness")
		if log, ok := tokens.(strategy.RevocationLog[uuid.UUID]); ok && rapid.Bool().Draw(t, "follows") {
			store, cfg.Cache.FollowInterval = followedTokens{counting, log}, 20*time.Millisecond
		}
	}
	if rapid.Bool().Draw(t, "joined") {
		users = joined(t, tokens, users, &of.looked)
	}
	for _, ahead := range []time.Duration{0, of.apart} {
		if len(m.instances) == 0 || ahead > 0 {
			m.instances = append(m.instances, newInstance(t, of, store, users, cfg, start.Add(ahead)))
		}
	}
	m.instance = m.instances[0]
	m.register(t)
	m.register(t)
	t.Cleanup(func() { // leaves room for the next sequence
		for _, u := range m.users {
			_, _ = tokens.DeleteByUser(context.Background(), u.id)
		}
	})
	return m
}

func newInstance(t *rapid.T, of *modelled, tokens tokenStore, users userStore, cfg strategy.Config, start time.Time) *instance {
	i := &instance{clock: &fakeClock{at: start}}
	cfg.Now = i.clock.now
	if of.now != nil {
		cfg.Now = of.now(i.clock)
	}
	sessions, err := strategy.NewDatabase(tokens, strategy.UserSource[contract.Member, uuid.UUID](users), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sessions.Close)
	i.subject = sessions
	if of.wrap != nil {
		i.subject = of.wrap(sessions, i.clock.now)
	}
	i.accounts, err = account.NewManager(users, uuid.New, account.Config{
		Argon2: account.Argon2{MemoryKiB: 8, Iterations: 1, Parallelism: 1}, InsecureArgon2: true,
		InsecureNoLimiter: true, Now: i.clock.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// outcome names the errors that callers tell apart.
func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	for _, known := range []error{
		strategy.ErrInvalidToken, strategy.ErrSessionNotFound, strategy.ErrTooManySessions, strategy.ErrInvalidOption, strategy.ErrUserInactive,
		strategy.ErrInvalidCursor, account.ErrBadCredentials, account.ErrEmailTaken, account.ErrConflict, account.ErrUserNotFound,
	} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "failure: " + err.Error()
}

// agree compares an outcome with the model's; nil means success.
func agree(t *rapid.T, doing string, got, want error) {
	t.Helper()
	if outcome(got) != outcome(want) {
		t.Fatalf("%s: %s, the model says %s", doing, outcome(got), outcome(want))
	}
}

// refusedIf returns an error where a condition holds.
func refusedIf(refused bool, with error) error {
	if refused {
		return with
	}
	return nil
}

// describe is what can be seen of a session.
func describe(s strategy.SessionInfo) string {
	return fmt.Sprintf("%s of %v created %s used %s authenticated %s expires %s scopes %v name %q",
		s.ID, s.UserID, stamp(s.CreatedAt), stamp(s.LastUsedAt), stamp(s.AuthenticatedAt), stamp(s.ExpiresAt), s.Scopes, s.Name)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Format("15:04:05.000000 MST")
}

func (m *model) describe(s *modelSession) string {
	info := strategy.SessionInfo{
		ID: s.id, UserID: s.user.id, CreatedAt: s.created, LastUsedAt: s.used, ExpiresAt: m.end(s), Scopes: s.scopes, Name: s.name,
	}
	if s.scopes == nil {
		info.AuthenticatedAt = s.authenticated
	}
	return describe(info)
}

func (m *machine) same(t *rapid.T, doing string, got strategy.SessionInfo, want *modelSession) {
	t.Helper()
	if got, want := describe(got), m.describe(want); got != want {
		t.Fatalf("%s: %s\nthe model says %s", doing, got, want)
	}
}

func (m *machine) sameUser(t *rapid.T, doing string, got contract.Member, want *modelUser) {
	t.Helper()
	if got.ID != want.id || got.Active != want.active || !got.NotBefore.Equal(want.notBefore) {
		t.Fatalf("%s: the user is active %v, not before %s; the model says active %v, not before %s",
			doing, got.Active, stamp(got.NotBefore), want.active, stamp(want.notBefore))
	}
}

// uniform draws one of n numbers, each as often as the others; rapid's own
// generators prefer small ones.
func uniform(n int) *rapid.Generator[int] {
	return rapid.Custom(func(t *rapid.T) (i int) {
		for range 12 {
			i <<= 1
			if rapid.Bool().Draw(t, "bit") {
				i++
			}
		}
		return i % n
	})
}

// drawFrom draws by the place in a list: what rapid prints must hold no secret.
func drawFrom[T any](t *rapid.T, list []T, label string) T {
	return list[uniform(len(list)).Draw(t, label)]
}

func (m *machine) drawUser(t *rapid.T) *modelUser { return drawFrom(t, m.users, "user") }

// drawToken prefers those that can be good. Where there is none yet, it makes one.
func (m *machine) drawToken(t *rapid.T) string {
	for len(m.issued) == 0 {
		m.activate(t)
		m.login(t)
	}
	var current []string
	for _, s := range m.sessions {
		if !s.ended {
			current = append(current, s.token)
		}
	}
	if len(current) > 0 && uniform(4).Draw(t, "kind") > 0 {
		return drawFrom(t, current, "live token")
	}
	return drawFrom(t, m.issued, "token")
}

func (m *machine) drawSession(t *rapid.T) *modelSession {
	var known []*modelSession
	for _, s := range m.sessions {
		if s.id != uuid.Nil {
			known = append(known, s)
		}
	}
	if len(known) == 0 {
		m.drawToken(t)
		return m.drawSession(t)
	}
	// The last ones are those that live.
	known = known[max(0, len(known)-6):]
	return drawFrom(t, known, "session")
}

func (m *machine) register(t *rapid.T) {
	u := &modelUser{email: fmt.Sprintf("%s@example.com", uuid.New()), password: modelPassword, active: true}
	user, err := m.accounts.Register(t.Context(), contract.Member{User: account.User[uuid.UUID]{Email: u.email}}, u.password)
	agree(t, "register", err, nil)
	u.id = user.ID
	m.users = append(m.users, u)
}

func (m *machine) registerThird(t *rapid.T) {
	if len(m.users) < 3 {
		m.register(t)
	}
}

func (m *machine) registerAgain(t *rapid.T) {
	u := m.drawUser(t)
	_, err := m.accounts.Register(t.Context(), contract.Member{User: account.User[uuid.UUID]{Email: strings.ToUpper(u.email)}}, u.password)
	agree(t, "register an address again", err, account.ErrEmailTaken)
}

// authenticate looks at a password.
func (m *machine) authenticate(t *rapid.T) (pending, bool) {
	u := m.drawUser(t)
	at := m.clock.now()
	user, err := m.accounts.Authenticate(t.Context(), u.email, u.password)
	agree(t, "authenticate", err, refusedIf(!u.active, account.ErrBadCredentials))
	if err == nil {
		m.sameUser(t, "authenticate", user, u)
	}
	return pending{u, *u, user, at}, err == nil
}

func (m *machine) wrongLogin(t *rapid.T) {
	u := m.drawUser(t)
	_, err := m.accounts.Authenticate(t.Context(), u.email, u.password+"?")
	agree(t, "authenticate with a wrong password", err, account.ErrBadCredentials)
}

func (m *machine) login(t *rapid.T) {
	if p, ok := m.authenticate(t); ok {
		m.issue(t, p)
	}
}

// beginLogin and finishLogin are a login during which something else happens.
func (m *machine) beginLogin(t *rapid.T) {
	if p, ok := m.authenticate(t); ok {
		m.pending = append(m.pending, p)
	}
}

func (m *machine) finishLogin(t *rapid.T) {
	if len(m.pending) == 0 {
		m.beginLogin(t)
		return
	}
	i := uniform(len(m.pending)).Draw(t, "login")
	p := m.pending[i]
	m.pending = slices.Delete(m.pending, i, i+1)
	m.issue(t, p)
}

func (m *machine) issue(t *rapid.T, p pending) {
	l := modelLogin{as: p.as}
	var opts []strategy.TokenOption
	if rapid.Bool().Draw(t, "dated") {
		l.at = p.at.Truncate(time.Millisecond)
		opts = append(opts, strategy.WithAuthenticatedAt(p.at))
	}
	if d := drawFrom(t, []time.Duration{0, 0, time.Millisecond, 5 * time.Second, 20 * time.Second}, "WithLifetime"); d > 0 {
		l.lifetime = d
		opts = append(opts, strategy.WithLifetime(d))
	}
	if uniform(5).Draw(t, "scoped") == 0 {
		l.scopes = []string{"read", "write"}
		opts = append(opts, strategy.WithScopes("read", "write"))
	}
	if m.n++; rapid.Bool().Draw(t, "named") {
		l.name = fmt.Sprintf("session %d", m.n)
		opts = append(opts, strategy.WithName(l.name))
	}
	if len(m.issued) > 0 && uniform(3).Draw(t, "replaces") == 0 {
		l.replaces = []string{m.drawToken(t), "no token"}
		opts = append(opts, strategy.Replacing(l.replaces...))
	}
	want := m.model.login(p.user, l, m.clock.ms())
	secret, session, err := m.subject.WriteToken(t.Context(), p.real, opts...)
	agree(t, "log in", err, refusedIf(want == nil, strategy.ErrTooManySessions))
	if want == nil {
		return
	}
	want.id, want.token = session.ID, secret.Reveal()
	m.issued = append(m.issued, want.token)
	m.same(t, "log in", session.SessionInfo, want)
}

func (m *machine) read(t *rapid.T) {
	token := m.drawToken(t)
	want := m.model.read(token, true, m.clock.ms())
	before := m.of.looked.Load()
	got, err := m.subject.ReadToken(t.Context(), token)
	agree(t, "read", err, refusedIf(want == nil, strategy.ErrInvalidToken))
	if want != nil {
		if m.of.accepted++; m.of.looked.Load() == before {
			m.of.cheaply++
		}
		m.same(t, "read", got.SessionInfo, want)
		m.sameUser(t, "read", got.User, want.user)
	}
}

func (m *machine) readInfo(t *rapid.T) {
	token := m.drawToken(t)
	want := m.model.read(token, false, m.clock.ms())
	got, err := m.subject.ReadTokenInfo(t.Context(), token)
	agree(t, "read the token alone", err, refusedIf(want == nil, strategy.ErrInvalidToken))
	if want != nil {
		m.same(t, "read the token alone", got, want)
	}
}

func (m *machine) readUnknown(t *rapid.T) {
	format, err := strategy.NewTokenFormat("")
	if err != nil {
		t.Fatal(err)
	}
	secret, _ := format.New()
	_, err = m.subject.ReadToken(t.Context(), secret.Reveal())
	agree(t, "read a token that was never issued", err, strategy.ErrInvalidToken)
}

func (m *machine) rotate(t *rapid.T) {
	token := m.drawToken(t)
	m.exchange(t, token, m.model.rotate(token, time.Time{}, time.Time{}, m.clock.ms()))
}

// reauthenticate rotates a token after the password was asked for again, perhaps
// some time ago.
func (m *machine) reauthenticate(t *rapid.T) {
	token := m.drawToken(t)
	u := m.drawUser(t)
	if s := m.byToken(token); s != nil {
		u = s.user // another is another test
	}
	at := m.clock.now().Add(-drawFrom(t, []time.Duration{0, 0, time.Millisecond, time.Second}, "ago"))
	user, err := m.accounts.Reauthenticate(t.Context(), contract.Member{User: account.User[uuid.UUID]{ID: u.id}}, u.password)
	agree(t, "reauthenticate", err, refusedIf(!u.active, account.ErrBadCredentials))
	if err == nil {
		want := m.model.rotate(token, later(at.Truncate(time.Millisecond), u.notBefore), u.notBefore, m.clock.ms())
		m.exchange(t, token, want, strategy.Reauthenticated(user, at))
	}
}

func (m *machine) exchange(t *rapid.T, token string, want *modelSession, opts ...strategy.RotateOption) {
	secret, session, err := m.subject.RotateToken(t.Context(), token, opts...)
	agree(t, "rotate", err, refusedIf(want == nil, strategy.ErrInvalidToken))
	if want == nil {
		return
	}
	want.token = secret.Reveal()
	m.issued = append(m.issued, want.token)
	m.same(t, "rotate", session.SessionInfo, want)
	m.sameUser(t, "rotate", session.User, want.user)
}

func (m *machine) destroyToken(t *rapid.T) {
	token := m.drawToken(t)
	if s := m.byToken(token); s != nil {
		s.ended = true
	}
	agree(t, "destroy a token", m.subject.DestroyToken(t.Context(), token), nil)
}

func (m *machine) destroySession(t *rapid.T) {
	s, u := m.drawSession(t), m.drawUser(t)
	err := m.subject.DestroySession(t.Context(), u.id, s.id)
	switch {
	case s.user != u || s.ended:
		agree(t, "destroy a session", err, strategy.ErrSessionNotFound)
	case m.runs(s, s.authenticated, m.clock.ms()):
		agree(t, "destroy a session", err, nil)
	case !errors.Is(err, strategy.ErrSessionNotFound): // whether its row is still there is nobody's business
		agree(t, "destroy a session that is over", err, nil)
	}
	if s.user == u {
		s.ended = true
	}
}

func (m *machine) destroyAll(t *rapid.T) {
	u := m.drawUser(t)
	var except []uuid.UUID
	for _, s := range m.sessions {
		if s.user != u || s.ended {
			continue
		}
		if rapid.Bool().Draw(t, "keep") {
			except = append(except, s.id)
		} else {
			s.ended = true
		}
	}
	agree(t, "destroy all", m.subject.DestroyAll(t.Context(), u.id, except...), nil)
}

func (m *machine) changePassword(t *rapid.T) {
	u := m.drawUser(t)
	m.n++
	next := fmt.Sprintf("%s %d", modelPassword, m.n)
	current := u.password
	wrong := uniform(4).Draw(t, "wrong") == 0
	if wrong {
		current += "?"
	}
	refused := wrong || !u.active
	user, err := m.accounts.ChangePassword(t.Context(), u.id, current, next)
	agree(t, "change the password", err, refusedIf(refused, account.ErrBadCredentials))
	if refused {
		return
	}
	u.password = next
	m.supersede(u, m.clock.ms())
	m.sameUser(t, "change the password", user, u)
	// The session in which this was done can be kept.
	if sessions := m.list(u, time.Time{}, m.clock.ms()); len(sessions) > 0 && rapid.Bool().Draw(t, "renew") {
		token := sessions[0].token
		want := m.model.rotate(token, u.notBefore, u.notBefore, m.clock.ms())
		m.exchange(t, token, want, strategy.Reauthenticated(user, m.clock.now()))
	}
}

func (m *machine) deactivate(t *rapid.T) {
	u := m.drawUser(t)
	agree(t, "deactivate", m.accounts.Deactivate(t.Context(), u.id), nil)
	u.active = false
	m.supersede(u, m.clock.ms())
}

func (m *machine) activate(t *rapid.T) {
	u := m.drawUser(t)
	agree(t, "activate", m.accounts.Activate(t.Context(), u.id), nil)
	u.active = true
}

func (m *machine) revokeTokens(t *rapid.T) {
	u := m.drawUser(t)
	agree(t, "revoke all tokens", m.accounts.RevokeTokens(t.Context(), u.id), nil)
	m.supersede(u, m.clock.ms())
}

func (m *machine) passTime(t *rapid.T) {
	d := drawFrom(t, []time.Duration{
		time.Microsecond, 999 * time.Microsecond, time.Millisecond, 7 * time.Millisecond, 300 * time.Millisecond, time.Second,
		5 * time.Second, 10*time.Second - time.Millisecond, 10 * time.Second, 31 * time.Second, 2 * time.Hour,
	}, "for")
	m.pass(d)
}

// pass lets time pass for all instances.
func (m *machine) pass(d time.Duration) {
	for _, i := range m.instances {
		i.clock.pass(d)
	}
}

// passToALimit goes to the millisecond before, at or after something ends.
func (m *machine) passToALimit(t *rapid.T) {
	s := m.drawSession(t)
	used := later(s.created, s.used)
	limits := map[string]time.Time{
		"end": m.end(s), "idle": used.Add(m.idle), "touch": used.Add(m.touch), "the user's limit": s.user.notBefore, "the limit of all": m.notBefore,
	}
	limit := drawFrom(t, slices.Sorted(maps.Keys(limits)), "limit")
	beside := drawFrom(t, []time.Duration{-time.Millisecond, 0, time.Millisecond - 1, time.Millisecond}, "beside")
	at := limits[limit].Add(beside)
	if d := at.Sub(m.clock.now()); d > 0 {
		m.pass(d)
	}
}

// pages reads a user's sessions page by page.
func (m *machine) pages(t *rapid.T) {
	u := m.drawUser(t)
	page := strategy.Page{Limit: 1 + uniform(3).Draw(t, "limit")}
	var all []strategy.SessionInfo
	for {
		got, err := m.subject.Sessions(t.Context(), u.id, page)
		agree(t, "list a page", err, nil)
		all = append(all, got.Sessions...)
		if page.After = got.Next; page.After == "" {
			break
		}
	}
	m.sameList(t, u, all)
}

func (m *machine) sameList(t *rapid.T, u *modelUser, got []strategy.SessionInfo) {
	t.Helper()
	var seen, said []string
	for _, s := range got {
		seen = append(seen, describe(s))
	}
	for _, s := range m.list(u, u.notBefore, m.clock.ms()) {
		said = append(said, m.describe(s))
	}
	if !slices.Equal(seen, said) {
		t.Fatalf("the sessions are\n%s\nthe model says\n%s", strings.Join(seen, "\n"), strings.Join(said, "\n"))
	}
}

func (m *machine) collect(t *rapid.T) {
	if m.purge != nil {
		agree(t, "purge", m.purge(), nil)
	}
}

// check compares all lists.
func (m *machine) check(t *rapid.T) {
	for _, u := range m.users {
		page, err := m.subject.Sessions(t.Context(), u.id, strategy.Page{Limit: 200})
		agree(t, "list", err, nil)
		m.sameList(t, u, page.Sessions)
	}
}

// step does one thing.
func (m *machine) step(t *rapid.T) {
	var names []string
	actions := make(map[string]func(*rapid.T))
	for _, a := range []struct {
		often int
		name  string
		do    func(*rapid.T)
	}{
		{1, "register a third", m.registerThird},
		{1, "register again", m.registerAgain},
		{6, "log in", m.login},
		{2, "begin to log in", m.beginLogin},
		{2, "finish to log in", m.finishLogin},
		{1, "log in wrongly", m.wrongLogin},
		{12, "read", m.read},
		{2, "read the token alone", m.readInfo},
		{1, "read an unknown token", m.readUnknown},
		{3, "rotate", m.rotate},
		{3, "reauthenticate", m.reauthenticate},
		{1, "destroy a token", m.destroyToken},
		{1, "destroy a session", m.destroySession},
		{1, "destroy all", m.destroyAll},
		{1, "change the password", m.changePassword},
		{1, "deactivate", m.deactivate},
		{3, "activate", m.activate},
		{1, "revoke all", m.revokeTokens},
		{4, "pass time", m.passTime},
		{4, "pass to a limit", m.passToALimit},
		{2, "list by pages", m.pages},
		{1, "purge", m.collect},
	} {
		actions[a.name] = a.do
		names = append(names, slices.Repeat([]string{a.name}, a.often)...)
	}
	if len(m.instances) > 1 {
		m.instance = drawFrom(t, m.instances, "instance")
	}
	actions[drawFrom(t, names, "step")](t)
}

// agrees checks sequences of about so many steps.
func (of *modelled) agrees(t rapid.TB) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t, of)
		t.Repeat(map[string]func(*rapid.T){"": m.check, "step": m.step})
	})
}

// rapidFlags sets flags of rapid that the command line does not.
func rapidFlags(t *testing.T, values map[string]string) {
	t.Helper()
	given := make(map[string]bool)
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for name, value := range values {
		name = "rapid." + name
		if given[name] {
			continue
		}
		// Not by flag.Set: that would make it look given.
		f := flag.Lookup(name)
		before := f.Value.String()
		if err := f.Value.Set(value); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Value.Set(before) })
	}
}

func TestModelAgrees(t *testing.T) {
	for _, c := range []struct {
		name          string
		of            *modelled
		onServer      bool
		checks, steps int
	}{
		{"memory", &modelled{stores: inMemory}, false, 300, 50},
		{"memory with a cache", &modelled{stores: inMemory, cached: true}, false, 300, 50},
		{"memory, clocks 30 seconds apart", &modelled{stores: inMemory, apart: 30 * time.Second}, false, 300, 50},
		{"memory, clocks an hour apart", &modelled{stores: inMemory, apart: time.Hour}, false, 300, 50},
		{"MongoDB", &modelled{}, true, 20, 25},
		{"MongoDB, clocks an hour apart", &modelled{apart: time.Hour}, true, 20, 25},
		{"MongoDB with a cache", &modelled{cached: true}, true, 20, 25},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.onServer {
				c.of.stores = onServer(t)
			}
			rapidFlags(t, map[string]string{"checks": fmt.Sprint(c.checks), "steps": fmt.Sprint(c.steps)})
			for begin := time.Now(); ; {
				c.of.agrees(t)
				if time.Since(begin) >= *soak {
					break
				}
			}
			t.Logf("%d requests were let in, %d of them from the cache", c.of.accepted, c.of.cheaply)
			if c.of.accepted == 0 || !c.of.cached && c.of.cheaply > 0 || c.of.cached && !c.onServer && c.of.cheaply == 0 {
				t.Error("want some, and some from the cache, if there is one")
			}
		})
	}
}

// objection is a test in which the model is expected to object.
type objection struct {
	rapid.TB
	failed bool
	said   []string
}

func (o *objection) say(s string)              { o.said = append(o.said, s) }
func (o *objection) Name() string              { return o.TB.Name() + "/objection" }
func (o *objection) Helper()                   {}
func (o *objection) Log(args ...any)           { o.say(fmt.Sprint(args...)) }
func (o *objection) Logf(f string, a ...any)   { o.say(fmt.Sprintf(f, a...)) }
func (o *objection) Fail()                     { o.failed = true }
func (o *objection) FailNow()                  { o.Fail(); runtime.Goexit() }
func (o *objection) Failed() bool              { return o.failed }
func (o *objection) Error(args ...any)         { o.Log(args...); o.Fail() }
func (o *objection) Errorf(f string, a ...any) { o.Logf(f, a...); o.Fail() }
func (o *objection) Fatal(args ...any)         { o.Log(args...); o.FailNow() }
func (o *objection) Fatalf(f string, a ...any) { o.Logf(f, a...); o.FailNow() }

// objects returns what the model says against something.
func (of *modelled) objects(t *testing.T) (objects bool, said string) {
	t.Helper()
	o := &objection{TB: t}
	done := make(chan struct{})
	go func() { // which FailNow ends
		defer close(done)
		of.agrees(o)
	}()
	<-done
	for _, line := range o.said {
		if strings.Contains(line, "the model says") {
			line, _, _ = strings.Cut(line, "\nTo reproduce")
			return o.failed, line
		}
	}
	return o.failed, strings.Join(o.said, "\n")
}

// Stores that are wrong in one thing each.

type (
	keepsRevoked     struct{ tokenStore }
	forgetsExcept    struct{ tokenStore }
	neverTouches     struct{ tokenStore }
	dropsOwnEnd      struct{ tokenStore }
	keepsSeconds     struct{ tokenStore }
	listsOldestFirst struct{ tokenStore }
	listsOne         struct{ tokenStore }
	forgetsLogin     struct{ tokenStore }
	forgetsSeen      struct{ tokenStore }
	forgetsSeenAgain struct{ tokenStore }
	ignoresAge       struct{ tokenStore }
	keepsOldSecrets  struct {
		tokenStore
		next map[string]string
	}
	endsAnybodys struct {
		tokenStore
		owner map[uuid.UUID]uuid.UUID
	}

	forgetsNotBefore struct{ userStore }
	neverDeactivates struct{ userStore }
	keepsPasswords   struct{ userStore }
	tellsNobody      struct{ userStore }
)

type row = strategy.AccessToken[uuid.UUID]

func (s keepsRevoked) Delete(ctx context.Context, digest string) (row, error) {
	return s.ByToken(ctx, digest, time.Time{})
}

func (s forgetsExcept) DeleteByUser(ctx context.Context, id uuid.UUID, _ ...uuid.UUID) (int64, error) {
	return s.tokenStore.DeleteByUser(ctx, id)
}

func (neverTouches) Touch(context.Context, string, time.Time) error { return nil }

func (s dropsOwnEnd) Insert(ctx context.Context, token row) error {
	token.ExpiresAt = time.Time{}
	return s.tokenStore.Insert(ctx, token)
}

func (s keepsSeconds) Insert(ctx context.Context, token row) error {
	token.CreatedAt = token.CreatedAt.Truncate(time.Second)
	return s.tokenStore.Insert(ctx, token)
}

func (s listsOldestFirst) ByUser(ctx context.Context, id uuid.UUID, after strategy.Position, limit int) ([]row, error) {
	rows, err := s.tokenStore.ByUser(ctx, id, after, limit)
	slices.Reverse(rows)
	return rows, err
}

func (s listsOne) ByUser(ctx context.Context, id uuid.UUID, after strategy.Position, limit int) ([]row, error) {
	return s.tokenStore.ByUser(ctx, id, after, min(limit, 1))
}

func (s forgetsLogin) Rotate(ctx context.Context, digest string, to strategy.Rotation) (row, error) {
	to.AuthenticatedAt = time.Time{}
	return s.tokenStore.Rotate(ctx, digest, to)
}

func (s forgetsSeen) Insert(ctx context.Context, token row) error {
	token.SeenNotBefore = time.Time{}
	return s.tokenStore.Insert(ctx, token)
}

func (s forgetsSeenAgain) Rotate(ctx context.Context, digest string, to strategy.Rotation) (row, error) {
	to.SeenNotBefore = time.Time{}
	return s.tokenStore.Rotate(ctx, digest, to)
}

func (s ignoresAge) ByToken(ctx context.Context, digest string, _ time.Time) (row, error) {
	return s.tokenStore.ByToken(ctx, digest, time.Time{})
}

func (s keepsOldSecrets) Rotate(ctx context.Context, digest string, to strategy.Rotation) (row, error) {
	r, err := s.tokenStore.Rotate(ctx, digest, to)
	if err == nil {
		s.next[digest] = to.Digest
	}
	return r, err
}

func (s keepsOldSecrets) ByToken(ctx context.Context, digest string, createdAfter time.Time) (row, error) {
	for s.next[digest] != "" {
		digest = s.next[digest]
	}
	return s.tokenStore.ByToken(ctx, digest, createdAfter)
}

func (s endsAnybodys) Insert(ctx context.Context, token row) error {
	s.owner[token.ID] = token.UserID
	return s.tokenStore.Insert(ctx, token)
}

func (s endsAnybodys) DeleteSession(ctx context.Context, _, id uuid.UUID) (row, error) {
	return s.tokenStore.DeleteSession(ctx, s.owner[id], id)
}

func (s forgetsNotBefore) ReplacePassword(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, _ time.Time) error {
	return s.userStore.ReplacePassword(ctx, id, old, new, time.Time{})
}

func (s neverDeactivates) Apply(ctx context.Context, id uuid.UUID, change account.Change) error {
	change.Active = nil
	return s.userStore.Apply(ctx, id, change)
}

func (s keepsPasswords) ReplacePassword(ctx context.Context, id uuid.UUID, _, _ account.PasswordHash, notBefore time.Time) error {
	return s.Apply(ctx, id, account.Change{NotBefore: notBefore})
}

// cachesNaively keeps what it has read, and forgets it only where this instance is
// asked to destroy that very token.
type cachesNaively struct {
	subject
	now  func() time.Time
	mu   sync.Mutex
	kept map[string]keptSession
}

type keptSession struct {
	strategy.Session[contract.Member]
	until time.Time
}

func newCachesNaively(s subject, now func() time.Time) subject {
	return &cachesNaively{subject: s, now: now, kept: make(map[string]keptSession)}
}

func (c *cachesNaively) ReadToken(ctx context.Context, token string) (strategy.Session[contract.Member], error) {
	c.mu.Lock()
	kept, ok := c.kept[token]
	c.mu.Unlock()
	if ok && c.now().Before(kept.until) {
		return kept.Session, nil
	}
	s, err := c.subject.ReadToken(ctx, token)
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.kept[token] = keptSession{s, c.now().Add(100 * time.Millisecond)}
	}
	return s, err
}

func (c *cachesNaively) DestroyToken(ctx context.Context, token string) error {
	c.mu.Lock()
	delete(c.kept, token)
	c.mu.Unlock()
	return c.subject.DestroyToken(ctx, token)
}

func TestModelObjects(t *testing.T) {
	with := func(tokens func(tokenStore) tokenStore, users func(userStore) userStore) *modelled {
		return &modelled{stores: func() (tokenStore, userStore, func(time.Duration, func() time.Time) error) {
			t, u, purge := inMemory()
			if tokens != nil {
				t = tokens(t)
			}
			if users != nil {
				u = users(u)
			}
			return t, u, purge
		}}
	}
	clock := func(off time.Duration) *modelled {
		return &modelled{stores: inMemory, now: func(c *fakeClock) func() time.Time {
			return func() time.Time { return c.now().Add(off) }
		}}
	}
	forgetful := with(func(s tokenStore) tokenStore { return forgetsSeen{s} }, nil)
	forgetful.apart = time.Hour
	uninformed := with(nil, func(u userStore) userStore { return tellsNobody{u} })
	uninformed.cached = true
	rapidFlags(t, map[string]string{"checks": "300", "steps": "50", "nofailfile": "true", "shrinktime": "0s"})
	for name, of := range map[string]*modelled{
		"a delete that does nothing":                      with(func(s tokenStore) tokenStore { return keepsRevoked{s} }, nil),
		"exceptions are forgotten":                        with(func(s tokenStore) tokenStore { return forgetsExcept{s} }, nil),
		"touches are not kept":                            with(func(s tokenStore) tokenStore { return neverTouches{s} }, nil),
		"a token's own end is not kept":                   with(func(s tokenStore) tokenStore { return dropsOwnEnd{s} }, nil),
		"times are in seconds":                            with(func(s tokenStore) tokenStore { return keepsSeconds{s} }, nil),
		"oldest first":                                    with(func(s tokenStore) tokenStore { return listsOldestFirst{s} }, nil),
		"one row is listed":                               with(func(s tokenStore) tokenStore { return listsOne{s} }, nil),
		"a new login is not written":                      with(func(s tokenStore) tokenStore { return forgetsLogin{s} }, nil),
		"what a login saw is not kept":                    forgetful,
		"what it saw when it was given again is not kept": with(func(s tokenStore) tokenStore { return forgetsSeenAgain{s} }, nil),
		"a rotated token goes on":                         with(func(s tokenStore) tokenStore { return keepsOldSecrets{s, map[string]string{}} }, nil),
		"sessions of others are ended":                    with(func(s tokenStore) tokenStore { return endsAnybodys{s, map[uuid.UUID]uuid.UUID{}} }, nil),
		"a new password ends no session":                  with(nil, func(u userStore) userStore { return forgetsNotBefore{u} }),
		"nobody is deactivated":                           with(nil, func(u userStore) userStore { return neverDeactivates{u} }),
		"the password stays":                              with(nil, func(u userStore) userStore { return keepsPasswords{u} }),
		"a cache that is not told":                        uninformed,
		"a cache that is naive":                           {stores: inMemory, wrap: newCachesNaively},
		"a clock 1 ms ahead":                              clock(time.Millisecond),
		"a clock 1 ms behind":                             clock(-time.Millisecond),
	} {
		t.Run(name, func(t *testing.T) {
			objects, said := of.objects(t)
			if !objects {
				t.Errorf("the model found nothing:\n%s", said)
			}
			t.Log(said)
		})
	}
}

// A store decides nothing: one that does not look at the age of tokens lets nobody
// in, because the strategy looks again.
func TestModelAgreesWithAStoreThatIgnoresAge(t *testing.T) {
	rapidFlags(t, map[string]string{"checks": "50"})
	of := &modelled{stores: func() (tokenStore, userStore, func(time.Duration, func() time.Time) error) {
		tokens, users, _ := inMemory()
		return ignoresAge{tokens}, users, nil
	}}
	of.agrees(t)
}
