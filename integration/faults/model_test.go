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
	"pgregory.net/rapid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// The model is what the documentation says, in few words. Times are in whole
// milliseconds. It does not call the library, except for the types of its configuration
// and of what it is compared with.

type modelUser struct {
	id              uuid.UUID
	email, password string
	active          bool
	version         int64
}

type modelSession struct {
	user  *modelUser
	id    uuid.UUID
	token string
	// used is zero if no use is stored. expires is zero if only Config.Lifetime ends the
	// session.
	created, used, authenticated, expires time.Time
	version                               int64 // the user's version that the login saw
	scopes                                []string
	name                                  string
	ended                                 bool // revoked, replaced or over the limit
}

type model struct {
	lifetime, idle, touch time.Duration
	most                  int
	notBefore             time.Time
	users                 []*modelUser
	sessions              []*modelSession // in the order of their logins
}

func newModel(cfg strategy.Config) *model {
	m := &model{
		lifetime: cfg.Lifetime, idle: cfg.IdleTimeout, touch: cfg.TouchInterval,
		most: cfg.MaxSessions, notBefore: cfg.NotBefore,
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

// end is the last moment at which a session can be valid, however it is used; zero if
// there is none.
func (m *model) end(s *modelSession) time.Time {
	end := s.expires
	if m.lifetime > 0 {
		if byLifetime := s.created.Add(m.lifetime); end.IsZero() || byLifetime.Before(end) {
			end = byLifetime
		}
	}
	return end
}

// live reports whether a session has not ended, without looking at its user, if its
// user authenticated at a time.
func (m *model) live(s *modelSession, authenticated, now time.Time) bool {
	end := m.end(s)
	switch {
	case s.ended, !end.IsZero() && now.After(end):
		return false
	case m.idle > 0 && s.scopes == nil && now.Sub(later(s.created, s.used)) > m.idle:
		return false
	}
	return !authenticated.Before(m.notBefore)
}

// valid reports whether a session is live and its user allows it, if its user
// authenticated at a time and that saw a version.
func (m *model) valid(s *modelSession, authenticated time.Time, version int64, now time.Time) bool {
	return m.live(s, authenticated, now) && s.user.active && s.user.version == version
}

func (m *model) byToken(token string) *modelSession {
	for _, s := range m.sessions {
		if s.token == token && !s.ended {
			return s
		}
	}
	return nil
}

// liveOf returns the live sessions of a user with any version, newest first.
func (m *model) liveOf(u *modelUser, now time.Time) (sessions []*modelSession) {
	for _, s := range m.sessions {
		if s.user == u && m.live(s, s.authenticated, now) {
			sessions = append(sessions, s)
		}
	}
	slices.Reverse(sessions)
	slices.SortStableFunc(sessions, func(a, b *modelSession) int { return b.created.Compare(a.created) })
	return sessions
}

// list returns the live sessions of a user with one version, newest first.
func (m *model) list(u *modelUser, version int64, now time.Time) []*modelSession {
	return slices.DeleteFunc(m.liveOf(u, now), func(s *modelSession) bool { return s.version != version })
}

type modelLogin struct {
	as       modelUser // the account when the password was checked
	at       time.Time // zero: now
	lifetime time.Duration
	scopes   []string
	name     string
	replaces []string
}

// login returns the new session.
func (m *model) login(u *modelUser, l modelLogin, now time.Time) *modelSession {
	s := &modelSession{user: u, created: now, version: l.as.version, scopes: l.scopes, name: l.name}
	if m.most > 0 && l.scopes == nil {
		// The new session is the newest, also of several in one millisecond.
		for _, other := range m.sessions {
			if other.user == u && !other.ended {
				s.created = later(s.created, other.created.Add(time.Millisecond))
			}
		}
	}
	if s.authenticated = l.at; l.at.IsZero() {
		s.authenticated = now
	}
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
		counted := slices.DeleteFunc(m.list(u, l.as.version, now), func(s *modelSession) bool {
			return s.scopes != nil || slices.Contains(replaced, s)
		})
		if len(counted) > m.most {
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

// read returns the session of a token, or nil if the token is refused.
func (m *model) read(token string, now time.Time) *modelSession {
	s := m.byToken(token)
	if s == nil || !m.valid(s, s.authenticated, s.version, now) {
		return nil
	}
	if m.touch > 0 && now.Sub(later(s.created, s.used)) >= m.touch {
		s.used = now
	}
	return s
}

// rotate returns the session of a token that is rotated, or nil if the token is refused. at
// is the time of a reauthentication, and version the user's version that it saw; both are
// zero without one.
func (m *model) rotate(token string, at time.Time, version int64, now time.Time) *modelSession {
	s := m.byToken(token)
	if s == nil {
		return nil
	}
	if at.IsZero() {
		at = s.authenticated
	}
	version = max(s.version, version)
	if !m.valid(s, at, version, now) {
		return nil
	}
	if m.touch > 0 {
		s.used = later(s.used, now)
	}
	s.authenticated, s.version = at, version
	return s
}

// What the model is compared with.

// subject is a strategy.Database, or a wrapper around one.
type subject interface {
	WriteToken(ctx context.Context, user member, opts ...strategy.TokenOption) (strategy.Secret, strategy.Session[member], error)
	ReadToken(ctx context.Context, token string) (*strategy.Session[member], error)
	RotateToken(ctx context.Context, token string, opts ...strategy.RotateOption) (strategy.Secret, strategy.Session[member], error)
	DestroyToken(ctx context.Context, token string) error
	Sessions(ctx context.Context, userID uuid.UUID, page strategy.Page) (strategy.SessionPage, error)
	DestroySession(ctx context.Context, userID, id uuid.UUID) error
	DestroyAll(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) error
	Close()
}

type (
	tokenStore = strategy.Store[uuid.UUID]
	userStore  = account.Store[member, uuid.UUID]
	row        = strategy.AccessToken[uuid.UUID]
)

// storeSet is the stores of an application.
type storeSet struct {
	tokens tokenStore
	users  userStore
	// purge deletes the rows of expired tokens. nil if the stores keep them.
	purge func(lifetime time.Duration, now func() time.Time) error
}

// fakeClock is a clock that tests set.
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

func (c *fakeClock) advance(d time.Duration) { c.set(c.now().Add(d)) }

// ms is the time as the library stores it.
func (c *fakeClock) ms() time.Time { return c.now().UTC().Truncate(time.Millisecond) }

// comparison is an implementation to compare with the model.
type comparison struct {
	// stores returns the stores for a sequence.
	stores func() storeSet
	cached bool
	// untold means that the caches are not told of changes to users.
	untold bool
	// apart is how far the clock of a second instance is ahead; 0 means one instance.
	apart time.Duration
	// wrap and now replace the subject and its clock by broken ones.
	wrap func(subject, func() time.Time) subject
	now  func(*fakeClock) func() time.Time

	lookups             atomic.Int64 // look-ups of tokens
	accepted, fromCache int          // accepted requests; of those, without a look-up
}

// countingTokens counts the look-ups of tokens. It hides the optional interfaces of the
// store.
type countingTokens struct {
	tokenStore
	lookups *atomic.Int64
}

func (s countingTokens) ByToken(ctx context.Context, digest string) (row, error) {
	s.lookups.Add(1)
	return s.tokenStore.ByToken(ctx, digest)
}

// publishingTokens is countingTokens with a RevocationLog.
type publishingTokens struct {
	countingTokens
	strategy.RevocationLog[uuid.UUID]
}

func inMemory() storeSet {
	return storeSet{tokens: memstore.NewTokens[uuid.UUID](), users: memstore.NewUsers[member]()}
}

// onServer returns stores on a server. All sequences share them; each has its own users.
func onServer(t *testing.T, on backend) func() storeSet {
	t.Helper()
	set := on.stores(t)
	return func() storeSet { return set }
}

// instance is an instance of an application.
type instance struct {
	clock    *fakeClock
	subject  subject
	accounts *account.Manager[member, uuid.UUID]
}

// machine takes the same random steps on the model and on the implementation, and compares
// them.
type machine struct {
	*model
	*instance // the instance that takes the step
	instances []*instance
	purge     func() error
	of        *comparison

	issued  []string  // all tokens, in the order of their issue
	pending []pending // logins in flight
	n       int
}

// pending is a login whose password was checked.
type pending struct {
	user   *modelUser
	as     modelUser // the model's account at the check
	actual member    // the account that the check returned
	at     time.Time
}

const modelPassword = "correct horse battery"

func drawConfig(t *rapid.T, start time.Time) strategy.Config {
	cfg := strategy.Config{
		Lifetime:    drawFrom(t, []time.Duration{0, 20 * time.Second, time.Hour}, "Lifetime"),
		IdleTimeout: drawFrom(t, []time.Duration{0, time.Second, 30 * time.Second}, "IdleTimeout"),
		MaxSessions: drawFrom(t, []int{0, 1, 2, 3}, "MaxSessions"),
		NotBefore:   drawFrom(t, []time.Time{{}, {}, start.Add(-time.Hour), start.Add(3 * time.Second)}, "NotBefore"),
	}
	intervals := []time.Duration{0, 700 * time.Millisecond}
	if cfg.IdleTimeout == 0 {
		intervals = []time.Duration{0, 5 * time.Second}
	}
	cfg.TouchInterval = drawFrom(t, intervals, "TouchInterval")
	return cfg
}

func newMachine(t *rapid.T, of *comparison) *machine {
	start := time.Now().UTC().Truncate(time.Second)
	m := &machine{of: of}
	cfg := drawConfig(t, start)
	if of.apart > 0 {
		cfg.MaxSessions = 0 // the clocks decide which session is the oldest
	}
	m.model = newModel(cfg)
	set := of.stores()
	if set.purge != nil { // by the slow clock: a token that it finds expired is expired on every instance
		m.purge = func() error { return set.purge(cfg.Lifetime, m.instances[0].clock.now) }
	}
	counting := countingTokens{set.tokens, &of.lookups}
	store := tokenStore(counting)
	if of.cached {
		cfg.Cache.MaxStaleness = drawFrom(t, []time.Duration{time.Second, time.Minute}, "MaxStaleness")
		if log, ok := set.tokens.(strategy.RevocationLog[uuid.UUID]); ok && rapid.Bool().Draw(t, "follows") {
			store, cfg.Cache.FollowInterval = publishingTokens{counting, log}, 20*time.Millisecond
		}
	}
	told := new(caches)
	for _, ahead := range []time.Duration{0, of.apart} {
		if len(m.instances) == 0 || ahead > 0 {
			m.instances = append(m.instances, newInstance(t, of, store, set.users, told, cfg, start.Add(ahead)))
		}
	}
	m.instance = m.instances[0]
	m.register(t)
	m.register(t)
	t.Cleanup(func() { // the sequences share the server
		for _, u := range m.users {
			_, _ = set.tokens.DeleteByUser(context.Background(), u.id)
		}
	})
	return m
}

func newInstance(t *rapid.T, of *comparison, tokens tokenStore, users userStore, told *caches, cfg strategy.Config, start time.Time) *instance {
	i := &instance{clock: &fakeClock{at: start}}
	cfg.Now = i.clock.now
	if of.now != nil {
		cfg.Now = of.now(i.clock)
	}
	sessions, err := strategy.NewDatabase(tokens, strategy.UserSource[member, uuid.UUID](users), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sessions.Close)
	if !of.untold {
		*told = append(*told, sessions)
	}
	i.subject = sessions
	if of.wrap != nil {
		i.subject = of.wrap(sessions, i.clock.now)
	}
	i.accounts, err = account.NewManager(users, nil, nil, uuid.New, account.Config{
		Argon2: account.Argon2{MemoryKiB: 8, Iterations: 1, Parallelism: 1}, InsecureArgon2: true,
		InsecureNoLimiter: true, Now: i.clock.now,
	}, told)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// outcome names the errors that callers distinguish.
func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	for _, known := range []error{
		strategy.ErrInvalidToken, strategy.ErrSessionNotFound, strategy.ErrInvalidOption, strategy.ErrUserInactive,
		strategy.ErrInvalidCursor, account.ErrBadCredentials, account.ErrEmailTaken, account.ErrConflict, account.ErrUserNotFound,
	} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "failure: " + err.Error()
}

// agree compares an outcome with the model's. nil means success.
func agree(t *rapid.T, doing string, got, want error) {
	t.Helper()
	if outcome(got) != outcome(want) {
		t.Fatalf("%s: %s, the model says %s", doing, outcome(got), outcome(want))
	}
}

// refusedIf returns err if refused is set.
func refusedIf(refused bool, err error) error {
	if refused {
		return err
	}
	return nil
}

// describe returns all that is visible of a session.
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

func (m *machine) sameSession(t *rapid.T, doing string, got strategy.SessionInfo, want *modelSession) {
	t.Helper()
	if got, want := describe(got), m.describe(want); got != want {
		t.Fatalf("%s: %s\nthe model says %s", doing, got, want)
	}
}

func (m *machine) sameUser(t *rapid.T, doing string, got member, want *modelUser) {
	t.Helper()
	if got.ID != want.id || got.Active != want.active || got.Version != want.version {
		t.Fatalf("%s: the user is active %v with version %d, the model says active %v with version %d",
			doing, got.Active, got.Version, want.active, want.version)
	}
}

// uniform draws a number below n, each with the same probability. The generators of rapid
// prefer small numbers.
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

// drawFrom draws an element by its index, because rapid prints what it draws, and an
// element can be a secret.
func drawFrom[T any](t *rapid.T, list []T, label string) T {
	return list[uniform(len(list)).Draw(t, label)]
}

func (m *machine) drawUser(t *rapid.T) *modelUser { return drawFrom(t, m.users, "user") }

// drawToken prefers tokens that can be valid. It logs in if there is no token yet.
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
	if len(m.sessions) == 0 {
		m.drawToken(t)
	}
	// The latest sessions are the ones that can be live.
	return drawFrom(t, m.sessions[max(0, len(m.sessions)-6):], "session")
}

// The steps.

func (m *machine) register(t *rapid.T) {
	u := &modelUser{email: fmt.Sprintf("%s@example.com", uuid.New()), password: modelPassword, active: true}
	user, err := m.accounts.Register(t.Context(), newMember(u.email), u.password)
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
	_, err := m.accounts.Register(t.Context(), newMember(strings.ToUpper(u.email)), u.password)
	agree(t, "register an address again", err, account.ErrEmailTaken)
}

// authenticate checks a password, and reports whether the login can go on.
func (m *machine) authenticate(t *rapid.T) (pending, bool) {
	u := m.drawUser(t)
	at := m.clock.now()
	user, _, err := m.accounts.Authenticate(t.Context(), u.email, u.password, "")
	agree(t, "authenticate", err, refusedIf(!u.active, account.ErrBadCredentials))
	if err == nil {
		m.sameUser(t, "authenticate", user, u)
	}
	return pending{u, *u, user, at}, err == nil
}

func (m *machine) wrongLogin(t *rapid.T) {
	u := m.drawUser(t)
	_, _, err := m.accounts.Authenticate(t.Context(), u.email, u.password+"?", "")
	agree(t, "authenticate with a wrong password", err, account.ErrBadCredentials)
}

func (m *machine) login(t *rapid.T) {
	if p, ok := m.authenticate(t); ok {
		m.issue(t, p)
	}
}

// beginLogin and finishLogin are a login with other steps in between.
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
	if rapid.Bool().Draw(t, "WithAuthenticatedAt") {
		l.at = p.at.Truncate(time.Millisecond)
		opts = append(opts, strategy.WithAuthenticatedAt(p.at))
	}
	if d := drawFrom(t, []time.Duration{0, 0, time.Millisecond, 5 * time.Second, 20 * time.Second}, "WithLifetime"); d > 0 {
		l.lifetime = d
		opts = append(opts, strategy.WithLifetime(d))
	}
	if uniform(5).Draw(t, "WithScopes") == 0 {
		l.scopes = []string{"read", "write"}
		opts = append(opts, strategy.WithScopes("read", "write"))
	}
	if m.n++; rapid.Bool().Draw(t, "WithName") {
		l.name = fmt.Sprintf("session %d", m.n)
		opts = append(opts, strategy.WithName(l.name))
	}
	if len(m.issued) > 0 && uniform(3).Draw(t, "WithReplaced") == 0 {
		l.replaces = []string{m.drawToken(t), "malformed"}
		opts = append(opts, strategy.WithReplaced(l.replaces...))
	}
	want := m.model.login(p.user, l, m.clock.ms())
	secret, session, err := m.subject.WriteToken(t.Context(), p.actual, opts...)
	agree(t, "log in", err, nil)
	want.id, want.token = session.ID, secret.Reveal()
	m.issued = append(m.issued, want.token)
	m.sameSession(t, "log in", session.SessionInfo, want)
}

func (m *machine) read(t *rapid.T) {
	token := m.drawToken(t)
	want := m.model.read(token, m.clock.ms())
	before := m.of.lookups.Load()
	got, err := m.subject.ReadToken(t.Context(), token)
	agree(t, "read", err, refusedIf(want == nil, strategy.ErrInvalidToken))
	if want != nil {
		if m.of.accepted++; m.of.lookups.Load() == before {
			m.of.fromCache++
		}
		m.sameSession(t, "read", got.SessionInfo, want)
		m.sameUser(t, "read", got.User, want.user)
	}
}

func (m *machine) readUnknown(t *rapid.T) {
	unknown, _ := token.Default.New()
	_, err := m.subject.ReadToken(t.Context(), unknown)
	agree(t, "read an unknown token", err, strategy.ErrInvalidToken)
}

func (m *machine) rotate(t *rapid.T) {
	token := m.drawToken(t)
	m.exchange(t, token, m.model.rotate(token, time.Time{}, 0, m.clock.ms()))
}

// reauthenticate rotates a token after a check of the password, which may be some time
// ago.
func (m *machine) reauthenticate(t *rapid.T) {
	token := m.drawToken(t)
	u := m.drawUser(t)
	if s := m.byToken(token); s != nil {
		u = s.user // RotateToken requires the session's user
	}
	at := m.clock.now().Add(-drawFrom(t, []time.Duration{0, 0, time.Millisecond, time.Second}, "ago"))
	user, err := m.accounts.Reauthenticate(t.Context(), member{User: account.User[uuid.UUID]{ID: u.id}}, u.password)
	agree(t, "reauthenticate", err, refusedIf(!u.active, account.ErrBadCredentials))
	if err == nil {
		want := m.model.rotate(token, at.Truncate(time.Millisecond), u.version, m.clock.ms())
		m.exchange(t, token, want, strategy.WithReauthentication(user, at))
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
	m.sameSession(t, "rotate", session.SessionInfo, want)
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
	case m.live(s, s.authenticated, m.clock.ms()):
		agree(t, "destroy a session", err, nil)
	case !errors.Is(err, strategy.ErrSessionNotFound): // a purge may have deleted the row
		agree(t, "destroy an expired session", err, nil)
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
	u.version++
	m.sameUser(t, "change the password", user, u)
	// The session that changed the password can be kept.
	if sessions := m.liveOf(u, m.clock.ms()); len(sessions) > 0 && rapid.Bool().Draw(t, "renew") {
		token := sessions[0].token
		want := m.model.rotate(token, m.clock.ms(), u.version, m.clock.ms())
		m.exchange(t, token, want, strategy.WithReauthentication(user, m.clock.now()))
	}
}

func (m *machine) deactivate(t *rapid.T) {
	u := m.drawUser(t)
	agree(t, "deactivate", m.accounts.Deactivate(t.Context(), u.id), nil)
	u.active = false
	u.version++
}

func (m *machine) activate(t *rapid.T) {
	u := m.drawUser(t)
	agree(t, "activate", m.accounts.Activate(t.Context(), u.id), nil)
	u.active = true
}

func (m *machine) revokeTokens(t *rapid.T) {
	u := m.drawUser(t)
	agree(t, "revoke all tokens", m.accounts.RevokeTokens(t.Context(), u.id), nil)
	u.version++
}

func (m *machine) advanceClocks(t *rapid.T) {
	m.advance(drawFrom(t, []time.Duration{
		time.Microsecond, 999 * time.Microsecond, time.Millisecond, 7 * time.Millisecond, 300 * time.Millisecond, time.Second,
		5 * time.Second, 10 * time.Second, 31 * time.Second, 2 * time.Hour,
	}, "by"))
}

// advance moves the clocks of all instances.
func (m *machine) advance(d time.Duration) {
	for _, i := range m.instances {
		i.clock.advance(d)
	}
}

// advanceToALimit moves the clocks to the millisecond before, at or after a limit.
func (m *machine) advanceToALimit(t *rapid.T) {
	s := m.drawSession(t)
	used := later(s.created, s.used)
	limits := map[string]time.Time{
		"end": m.end(s), "idle timeout": used.Add(m.idle), "touch interval": used.Add(m.touch), "NotBefore": m.notBefore,
	}
	limit := drawFrom(t, slices.Sorted(maps.Keys(limits)), "limit")
	offset := drawFrom(t, []time.Duration{-time.Millisecond, 0, time.Millisecond - 1, time.Millisecond}, "offset")
	at := limits[limit].Add(offset)
	if d := at.Sub(m.clock.now()); d > 0 {
		m.advance(d)
	}
}

// pages lists a user's sessions page by page.
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
	var actual, expected []string
	for _, s := range got {
		actual = append(actual, describe(s))
	}
	for _, s := range m.list(u, u.version, m.clock.ms()) {
		expected = append(expected, m.describe(s))
	}
	if !slices.Equal(actual, expected) {
		t.Fatalf("the sessions are\n%s\nthe model says\n%s", strings.Join(actual, "\n"), strings.Join(expected, "\n"))
	}
}

func (m *machine) purgeExpired(t *rapid.T) {
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

// step takes a random step on a random instance.
func (m *machine) step(t *rapid.T) {
	var names []string
	actions := make(map[string]func(*rapid.T))
	for _, a := range []struct {
		weight int
		name   string
		do     func(*rapid.T)
	}{
		{1, "register a third", m.registerThird},
		{1, "register again", m.registerAgain},
		{6, "log in", m.login},
		{2, "begin a login", m.beginLogin},
		{2, "finish a login", m.finishLogin},
		{1, "wrong password", m.wrongLogin},
		{12, "read", m.read},
		{1, "read an unknown token", m.readUnknown},
		{3, "rotate", m.rotate},
		{3, "reauthenticate", m.reauthenticate},
		{1, "destroy a token", m.destroyToken},
		{1, "destroy a session", m.destroySession},
		{1, "destroy all", m.destroyAll},
		{1, "change the password", m.changePassword},
		{1, "deactivate", m.deactivate},
		{3, "activate", m.activate},
		{1, "revoke all tokens", m.revokeTokens},
		{4, "advance the clocks", m.advanceClocks},
		{4, "advance to a limit", m.advanceToALimit},
		{2, "list by pages", m.pages},
		{1, "purge", m.purgeExpired},
	} {
		actions[a.name] = a.do
		names = append(names, slices.Repeat([]string{a.name}, a.weight)...)
	}
	if len(m.instances) > 1 {
		m.instance = drawFrom(t, m.instances, "instance")
	}
	actions[drawFrom(t, names, "step")](t)
}

// run compares random sequences of steps.
func (of *comparison) run(t rapid.TB) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t, of)
		t.Repeat(map[string]func(*rapid.T){"": m.check, "step": m.step})
	})
}

// setRapidFlags sets flags of rapid for a test, unless the command line does.
func setRapidFlags(t *testing.T, values map[string]string) {
	t.Helper()
	given := make(map[string]bool)
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for name, value := range values {
		name = "rapid." + name
		if given[name] {
			continue
		}
		// flag.Set would mark the flag as given.
		f := flag.Lookup(name)
		before := f.Value.String()
		if err := f.Value.Set(value); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Value.Set(before) })
	}
}

func TestModelAgreesWithImplementation(t *testing.T) {
	for _, c := range []struct {
		name string
		of   *comparison
	}{
		{"memory", &comparison{}},
		{"memory with a cache", &comparison{cached: true}},
		{"memory, clocks 30 seconds apart", &comparison{apart: 30 * time.Second}},
		{"memory, clocks an hour apart", &comparison{apart: time.Hour}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.of.stores = inMemory
			c.of.agrees(t, 300, 50)
			if c.of.cached && c.of.fromCache == 0 {
				t.Error("no request was accepted from the cache, want some")
			}
		})
	}
	for _, b := range backends {
		for _, c := range []struct {
			name string
			of   *comparison
		}{
			{b.name, &comparison{}},
			{b.name + ", clocks an hour apart", &comparison{apart: time.Hour}},
			{b.name + " with a cache", &comparison{cached: true}},
		} {
			t.Run(c.name, func(t *testing.T) {
				c.of.stores = onServer(t, b.start(t))
				c.of.agrees(t, 20, 25)
			})
		}
	}
}

// agrees fails the test if the comparison finds a difference.
func (of *comparison) agrees(t *testing.T, checks, steps int) {
	t.Helper()
	setRapidFlags(t, map[string]string{"checks": fmt.Sprint(checks), "steps": fmt.Sprint(steps)})
	for begin := time.Now(); ; {
		of.run(t)
		if time.Since(begin) >= *soak {
			break
		}
	}
	t.Logf("%d requests were accepted, %d of them from the cache", of.accepted, of.fromCache)
	if of.accepted == 0 || !of.cached && of.fromCache > 0 {
		t.Error("want accepted requests, and none from a cache if there is none")
	}
}

// failureRecorder is a rapid.TB whose failure is the expected result.
type failureRecorder struct {
	rapid.TB
	failed bool
	lines  []string
}

func (o *failureRecorder) record(s string)           { o.lines = append(o.lines, s) }
func (o *failureRecorder) Name() string              { return o.TB.Name() + "/expected failure" }
func (o *failureRecorder) Helper()                   {}
func (o *failureRecorder) Log(args ...any)           { o.record(fmt.Sprint(args...)) }
func (o *failureRecorder) Logf(f string, a ...any)   { o.record(fmt.Sprintf(f, a...)) }
func (o *failureRecorder) Fail()                     { o.failed = true }
func (o *failureRecorder) FailNow()                  { o.Fail(); runtime.Goexit() }
func (o *failureRecorder) Failed() bool              { return o.failed }
func (o *failureRecorder) Error(args ...any)         { o.Log(args...); o.Fail() }
func (o *failureRecorder) Errorf(f string, a ...any) { o.Logf(f, a...); o.Fail() }
func (o *failureRecorder) Fatal(args ...any)         { o.Log(args...); o.FailNow() }
func (o *failureRecorder) Fatalf(f string, a ...any) { o.Logf(f, a...); o.FailNow() }

// fails reports whether the comparison fails, and with which message.
func (of *comparison) fails(t *testing.T) (failed bool, message string) {
	t.Helper()
	o := &failureRecorder{TB: t}
	done := make(chan struct{})
	go func() { // FailNow ends this goroutine
		defer close(done)
		of.run(o)
	}()
	<-done
	for _, line := range o.lines {
		if strings.Contains(line, "the model says") {
			line, _, _ = strings.Cut(line, "\nTo reproduce")
			return o.failed, line
		}
	}
	return o.failed, strings.Join(o.lines, "\n")
}

// Stores that are broken in one way each.

type (
	keepsRevoked     struct{ tokenStore }
	forgetsExcept    struct{ tokenStore }
	neverTouches     struct{ tokenStore }
	dropsExpiry      struct{ tokenStore }
	keepsSeconds     struct{ tokenStore }
	listsOldestFirst struct{ tokenStore }
	listsOne         struct{ tokenStore }
	dropsVersion     struct{ tokenStore }
	// The next two drop a field of rotations.
	dropsReauthentication struct{ tokenStore }
	dropsRotatedVersion   struct{ tokenStore }
	// storesCurrentVersion stores the version of the insert instead of the login's.
	storesCurrentVersion struct {
		tokenStore
		users userStore
	}
	keepsOldSecrets struct {
		tokenStore
		next map[string]string
	}
	endsSessionsOfOthers struct {
		tokenStore
		owner map[uuid.UUID]uuid.UUID
	}

	keepsVersionOfPasswords struct{ userStore }
	keepsVersion            struct{ userStore }
	neverDeactivates        struct{ userStore }
	keepsPasswords          struct{ userStore }
)

func (s keepsRevoked) Delete(ctx context.Context, digest string) (row, error) {
	return s.ByToken(ctx, digest)
}

func (s forgetsExcept) DeleteByUser(ctx context.Context, id uuid.UUID, _ ...uuid.UUID) (int64, error) {
	return s.tokenStore.DeleteByUser(ctx, id)
}

func (neverTouches) Touch(context.Context, string, time.Time) error { return nil }

func (s dropsExpiry) Insert(ctx context.Context, token row) error {
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

func (s dropsVersion) Insert(ctx context.Context, token row) error {
	token.TokenVersion = 0
	return s.tokenStore.Insert(ctx, token)
}

func (s dropsReauthentication) Rotate(ctx context.Context, digest string, to strategy.Rotation) (row, error) {
	to.AuthenticatedAt = time.Time{}
	return s.tokenStore.Rotate(ctx, digest, to)
}

func (s dropsRotatedVersion) Rotate(ctx context.Context, digest string, to strategy.Rotation) (row, error) {
	to.TokenVersion = 0
	return s.tokenStore.Rotate(ctx, digest, to)
}

func (s storesCurrentVersion) Insert(ctx context.Context, token row) error {
	user, err := s.users.ByID(ctx, token.UserID)
	if err != nil {
		return err
	}
	token.TokenVersion = user.Version
	return s.tokenStore.Insert(ctx, token)
}

func (s keepsOldSecrets) Rotate(ctx context.Context, digest string, to strategy.Rotation) (row, error) {
	r, err := s.tokenStore.Rotate(ctx, digest, to)
	if err == nil {
		s.next[digest] = to.Digest
	}
	return r, err
}

func (s keepsOldSecrets) ByToken(ctx context.Context, digest string) (row, error) {
	for s.next[digest] != "" {
		digest = s.next[digest]
	}
	return s.tokenStore.ByToken(ctx, digest)
}

func (s endsSessionsOfOthers) Insert(ctx context.Context, token row) error {
	s.owner[token.ID] = token.UserID
	return s.tokenStore.Insert(ctx, token)
}

func (s endsSessionsOfOthers) DeleteSession(ctx context.Context, _, id uuid.UUID) (row, error) {
	return s.tokenStore.DeleteSession(ctx, s.owner[id], id)
}

func (s keepsVersionOfPasswords) Apply(ctx context.Context, id uuid.UUID, change account.Change) error {
	change.RevokeTokens = change.RevokeTokens && change.Password == nil
	return s.userStore.Apply(ctx, id, change)
}

func (s keepsVersion) Apply(ctx context.Context, id uuid.UUID, change account.Change) error {
	change.RevokeTokens = change.RevokeTokens && change.Password != nil
	return s.userStore.Apply(ctx, id, change)
}

func (s neverDeactivates) Apply(ctx context.Context, id uuid.UUID, change account.Change) error {
	change.Active = nil
	return s.userStore.Apply(ctx, id, change)
}

func (s keepsPasswords) Apply(ctx context.Context, id uuid.UUID, change account.Change) error {
	change.Password = nil
	return s.userStore.Apply(ctx, id, change)
}

// naiveCache caches sessions. Only DestroyToken with the same token, on this instance,
// removes one.
type naiveCache struct {
	subject
	now     func() time.Time
	mu      sync.Mutex
	entries map[string]naiveEntry
}

type naiveEntry struct {
	session *strategy.Session[member]
	until   time.Time
}

func newNaiveCache(s subject, now func() time.Time) subject {
	return &naiveCache{subject: s, now: now, entries: make(map[string]naiveEntry)}
}

func (c *naiveCache) ReadToken(ctx context.Context, token string) (*strategy.Session[member], error) {
	c.mu.Lock()
	e, ok := c.entries[token]
	c.mu.Unlock()
	if ok && c.now().Before(e.until) {
		return e.session, nil
	}
	s, err := c.subject.ReadToken(ctx, token)
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.entries[token] = naiveEntry{s, c.now().Add(100 * time.Millisecond)}
	}
	return s, err
}

func (c *naiveCache) DestroyToken(ctx context.Context, token string) error {
	c.mu.Lock()
	delete(c.entries, token)
	c.mu.Unlock()
	return c.subject.DestroyToken(ctx, token)
}

func TestModelDetectsBrokenImplementations(t *testing.T) {
	tokens := func(broken func(tokenStore) tokenStore) *comparison {
		return &comparison{stores: func() storeSet {
			set := inMemory()
			set.tokens = broken(set.tokens)
			return set
		}}
	}
	users := func(broken func(userStore) userStore) *comparison {
		return &comparison{stores: func() storeSet {
			set := inMemory()
			set.users = broken(set.users)
			return set
		}}
	}
	clock := func(off time.Duration) *comparison {
		return &comparison{stores: inMemory, now: func(c *fakeClock) func() time.Time {
			return func() time.Time { return c.now().Add(off) }
		}}
	}
	currentVersion := &comparison{stores: func() storeSet {
		set := inMemory()
		set.tokens = storesCurrentVersion{set.tokens, set.users}
		return set
	}}
	apart := tokens(func(s tokenStore) tokenStore { return dropsVersion{s} })
	apart.apart = time.Hour
	setRapidFlags(t, map[string]string{"checks": "300", "steps": "50", "nofailfile": "true", "shrinktime": "0s"})
	for name, of := range map[string]*comparison{
		"deletes do nothing":                        tokens(func(s tokenStore) tokenStore { return keepsRevoked{s} }),
		"exceptions are ignored":                    tokens(func(s tokenStore) tokenStore { return forgetsExcept{s} }),
		"touches are not stored":                    tokens(func(s tokenStore) tokenStore { return neverTouches{s} }),
		"a token's own expiry is not stored":        tokens(func(s tokenStore) tokenStore { return dropsExpiry{s} }),
		"times are stored in seconds":               tokens(func(s tokenStore) tokenStore { return keepsSeconds{s} }),
		"sessions are listed oldest first":          tokens(func(s tokenStore) tokenStore { return listsOldestFirst{s} }),
		"one session is listed":                     tokens(func(s tokenStore) tokenStore { return listsOne{s} }),
		"a reauthentication is not stored":          tokens(func(s tokenStore) tokenStore { return dropsReauthentication{s} }),
		"the version of a login is not stored":      tokens(func(s tokenStore) tokenStore { return dropsVersion{s} }),
		"the version is not stored, clocks apart":   apart,
		"the version is read again at the insert":   currentVersion,
		"the version of a renewal is not stored":    tokens(func(s tokenStore) tokenStore { return dropsRotatedVersion{s} }),
		"rotated tokens stay valid":                 tokens(func(s tokenStore) tokenStore { return keepsOldSecrets{s, map[string]string{}} }),
		"sessions of other users are ended":         tokens(func(s tokenStore) tokenStore { return endsSessionsOfOthers{s, map[uuid.UUID]uuid.UUID{}} }),
		"a new password does not raise the version": users(func(u userStore) userStore { return keepsVersionOfPasswords{u} }),
		"a revocation does not raise the version":   users(func(u userStore) userStore { return keepsVersion{u} }),
		"users are not deactivated":                 users(func(u userStore) userStore { return neverDeactivates{u} }),
		"passwords are not replaced":                users(func(u userStore) userStore { return keepsPasswords{u} }),
		"a cache is not told of changes to users":   {stores: inMemory, cached: true, untold: true},
		"a naive cache":                             {stores: inMemory, wrap: newNaiveCache},
		"a clock 1 ms ahead":                        clock(time.Millisecond),
		"a clock 1 ms behind":                       clock(-time.Millisecond),
	} {
		t.Run(name, func(t *testing.T) {
			failed, message := of.fails(t)
			if !failed {
				t.Errorf("the model found no difference:\n%s", message)
			}
			t.Log(message)
		})
	}
}
