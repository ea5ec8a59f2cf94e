package sqlstore_test

import (
	"bufio"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/sqlstore"
	"github.com/latchkey-go/latchkey/sqlstore/internal/fastapiusers"
	"github.com/latchkey-go/latchkey/strategy"
)

// These tests move a running fastapi-users application on SQLAlchemy to Latchkey, in the stages
// of docs/from-fastapi-users.md.

const (
	oldLifetime = time.Hour // of fastapi-users
	oldPassword = "correct horse battery"
	oldHash     = "$2a$04$4sMOXd3SPsnBwmSZUvEewefbYSZLKqunc5YArCZtWsUcfaIf2hi5e"
)

// stage says how far the application has moved.
type stage string

const (
	beside  stage = "beside"
	convert stage = "convert"
	done    stage = "done"
)

// move is an application that moves.
type move[ID uuid.UUID | int64] struct {
	t       *testing.T
	db      *sql.DB
	dialect sqlstore.Dialect
	python  *fastapiusers.App[ID]
	newID   func() ID
	now     time.Time
	legacy  *sqlstore.LegacyTokens[ID] // nil in the last stage
	*latchkey.Latchkey[account.User[ID], ID]
}

// moved runs a test on each dialect.
func moved(t *testing.T, test func(*testing.T, *move[uuid.UUID])) {
	eachDialect(t, func(t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB) {
		test(t, newMove(t, dialect, open, uuid.New))
	})
}

// newMove returns an application with the tables of fastapi-users.
func newMove[ID uuid.UUID | int64](t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB, newID func() ID) *move[ID] {
	t.Helper()
	// The adapter's times have whole seconds on MySQL.
	m := &move[ID]{t: t, db: open(t), dialect: dialect, newID: newID, now: time.Now().UTC().Truncate(time.Second)}
	m.python = &fastapiusers.App[ID]{DB: m.db, Dialect: dialect, Lifetime: oldLifetime, Now: m.clock}
	m.ok(m.python.CreateTables(t.Context()))
	users := "`user`"
	if dialect == sqlstore.PostgreSQL {
		users = `"user"`
	}
	execute(t, m.db, // as the page says
		"ALTER TABLE "+users+" ADD COLUMN created_at BIGINT",
		"ALTER TABLE "+users+" ADD COLUMN token_version BIGINT NOT NULL DEFAULT 0")
	return m
}

func (m *move[ID]) clock() time.Time { return m.now }

func (m *move[ID]) ok(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// configOf is the configuration of a stage.
func configOf(s stage) latchkey.Config {
	cfg := cheap(latchkey.Config{
		Lifetime: 2 * oldLifetime, InsecureNoLimiter: true, PurgeInterval: time.Hour, AnyCase: true,
		Cookie:      ginauth.Cookie{Name: "fastapiusersauth"},
		Collections: latchkey.Collections{Users: "user"},
		Timeout:     20 * time.Second, // of a busy machine
	})
	if s != done {
		cfg.KeepHashes = s == beside
		cfg.Legacy = mongostore.LegacyConfig{Collection: "accesstoken", Lifetime: oldLifetime, Convert: s == convert}
	}
	return cfg
}

// enter starts Latchkey in a stage.
func (m *move[ID]) enter(s stage, change ...func(*latchkey.Config)) {
	m.t.Helper()
	cfg := configOf(s)
	cfg.Now = m.clock
	for _, c := range change {
		c(&cfg)
	}
	var err error
	m.Latchkey, err = sqlstore.New[account.User[ID]](m.db, m.dialect, m.newID, cfg)
	m.ok(err)
	m.t.Cleanup(m.Close)
	m.ok(m.EnsureIndexes(m.t.Context()))
	if m.legacy = nil; s != done {
		m.legacy, err = sqlstore.LegacyTokensOf[ID](m.db, m.dialect, cfg)
		m.ok(err)
	}
}

// accepts reports whether Latchkey accepts a token.
func (m *move[ID]) accepts(token string) bool {
	m.t.Helper()
	_, err := m.Sessions.ReadToken(m.t.Context(), token)
	if err != nil && !errors.Is(err, strategy.ErrInvalidToken) {
		m.t.Fatal(err)
	}
	return err == nil
}

// check compares what both sides say about a token with what they must.
func (m *move[ID]) check(what, token string, python, latchkey bool) {
	m.t.Helper()
	got, err := m.python.Accepts(m.t.Context(), token)
	m.ok(err)
	if got != python {
		m.t.Errorf("%s: fastapi-users accepts the token: %v, want %v", what, got, python)
	}
	if got := m.accepts(token); got != latchkey {
		m.t.Errorf("%s: Latchkey accepts the token: %v, want %v", what, got, latchkey)
	}
}

// user makes an account on the other side.
func (m *move[ID]) user(email string) ID {
	m.t.Helper()
	id, err := m.python.User(m.t.Context(), email, oldHash, true)
	m.ok(err)
	return id
}

// login logs a user in on the other side.
func (m *move[ID]) login(id ID) string {
	m.t.Helper()
	m.now = m.now.Add(time.Second) // an order of the sessions
	token, err := m.python.Login(m.t.Context(), id)
	m.ok(err)
	return token
}

// loginHere logs a user in with Latchkey.
func (m *move[ID]) loginHere(email string) string {
	m.t.Helper()
	m.now = m.now.Add(time.Second)
	user, _, err := m.Accounts.Authenticate(m.t.Context(), email, oldPassword, "")
	m.ok(err)
	secret, _, err := m.Sessions.WriteToken(m.t.Context(), user)
	m.ok(err)
	return secret.Reveal()
}

func (m *move[ID]) setPassword(id ID) {
	m.t.Helper()
	_, err := m.Accounts.SetPassword(m.t.Context(), id, oldPassword)
	m.ok(err)
}

func (m *move[ID]) sessions(id ID) (ids []uuid.UUID) {
	m.t.Helper()
	for page := (strategy.Page{Limit: 2}); ; {
		got, err := m.Sessions.Sessions(m.t.Context(), id, page)
		m.ok(err)
		for _, s := range got.Sessions {
			ids = append(ids, s.ID)
		}
		if page.After = got.Next; got.Next == "" {
			return ids
		}
		if len(ids) > 1000 {
			m.t.Fatal("the pages of sessions do not end")
		}
	}
}

// count returns the number of rows of a table, or of its rows that meet a condition.
func (m *move[ID]) count(table string) (n int) {
	m.t.Helper()
	m.ok(m.db.QueryRowContext(m.t.Context(), "SELECT COUNT(*) FROM "+table).Scan(&n))
	return n
}

// sampled is a token of a sample, and whether it must be accepted.
type sampled struct {
	kind, token string
	valid       bool
}

// fill writes users and two tokens for each, with dirt of each kind.
func (m *move[ID]) fill(users int) (sample []sampled) {
	m.t.Helper()
	var ids []ID
	inactive := make(map[int]bool)
	for i := range users {
		email := fmt.Sprintf("user%d@example.com", i)
		if i%10 == 1 {
			email = fmt.Sprintf("User.%d@example.com", i)
		}
		inactive[i] = i%10 == 4
		id, err := m.python.User(m.t.Context(), email, oldHash, !inactive[i])
		m.ok(err)
		ids = append(ids, id)
	}
	var rows []fastapiusers.Row[ID]
	for i := range 2 * users {
		u := i % users
		x := sampled{"valid", fastapiusers.NewToken(), true}
		age := time.Duration(i) * (oldLifetime - time.Minute) / time.Duration(2*users)
		row := fastapiusers.Row[ID]{Token: x.token, CreatedAt: m.now.Add(-age), UserID: ids[u]}
		switch {
		case i%20 == 10:
			x.kind, x.valid = "just expired", false
			row.CreatedAt = m.now.Add(-oldLifetime - time.Second)
		case i%20 == 11:
			x.kind, x.valid = "expired long ago", false
			row.CreatedAt = m.now.Add(-100 * 24 * time.Hour)
		case i%20 == 12:
			x.kind = "in its last second"
			row.CreatedAt = m.now.Add(-oldLifetime)
		case i%20 == 13:
			x.kind, x.valid = "too short", false
			x.token = x.token[:42]
			row.Token = x.token
		}
		if inactive[u] {
			x.kind, x.valid = "of an inactive user", false
		}
		rows, sample = append(rows, row), append(sample, x)
	}
	m.ok(m.python.InsertAll(m.t.Context(), rows))
	return sample
}

func TestEveryLiveTokenIsAcceptedInEveryStage(t *testing.T) {
	moved(t, func(t *testing.T, m *move[uuid.UUID]) { everyToken(t, m, 200) })
}

func TestEveryLiveTokenIsAcceptedInEveryStageWithIntegerIDs(t *testing.T) {
	eachDialect(t, func(t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB) {
		everyToken(t, newMove(t, dialect, open, newInt), 40)
	})
}

func everyToken[ID uuid.UUID | int64](t *testing.T, m *move[ID], users int) {
	sample := m.fill(users)
	orphans := 0
	if m.dialect == sqlstore.SQLite { // on which Python does not enforce foreign keys
		orphans = 3
		m.orphans(orphans, &sample)
	}
	all := func(what string, legacy bool) {
		t.Helper()
		var wg sync.WaitGroup
		var wrong atomic.Int64
		for part := range slices.Chunk(sample, (len(sample)+7)/8) {
			wg.Go(func() {
				for _, x := range part {
					_, err := m.Sessions.ReadToken(t.Context(), x.token)
					want := x.valid && legacy
					if (err == nil) == want && (err == nil || errors.Is(err, strategy.ErrInvalidToken)) {
						continue
					}
					if wrong.Add(1) <= 10 {
						t.Errorf("%s: a token %s: got %v, accepted it must be: %v", what, x.kind, err, want)
					}
				}
			})
		}
		wg.Wait()
	}
	before := m.dump()
	m.enter(beside)
	all("beside", true)
	if after := m.dump(); !slices.Equal(before, after) {
		t.Error("reading tokens has changed rows of fastapi-users")
	}
	if n := m.count("access_tokens"); n != 0 {
		t.Errorf("beside: %d rows in Latchkey's table, want none", n)
	}

	m.enter(convert)
	for _, x := range sample[:len(sample)/2] { // on first use
		if got := m.accepts(x.token); got != x.valid {
			t.Errorf("convert: a token %s: accepted %v, want %v", x.kind, got, x.valid)
		}
	}
	dry, err := m.legacy.ConvertAll(t.Context(), sqlstore.ConvertConfig{DryRun: true})
	m.ok(err)
	var seen int64
	got, err := m.legacy.ConvertAll(t.Context(), sqlstore.ConvertConfig{Progress: func(done, total int64) { seen = done }})
	m.ok(err)
	if total := got.Converted + got.Already + got.Expired + got.Orphaned + got.Unreadable; total != int64(len(sample)) || seen != total ||
		got.Converted == 0 || got.Already == 0 || got.Expired == 0 || got.Unreadable == 0 || got.Orphaned != int64(orphans) {
		t.Errorf("ConvertAll: got %+v and progress %d for %d tokens", got, seen, len(sample))
	}
	if dry.Converted != got.Converted+got.Orphaned || dry.Already != got.Already {
		t.Errorf("the dry run: got %+v before %+v", dry, got)
	}
	again, err := m.legacy.ConvertAll(t.Context(), sqlstore.ConvertConfig{})
	m.ok(err)
	if again.Converted != 0 || again.Already != got.Converted+got.Already {
		t.Errorf("the second ConvertAll: got %+v after %+v", again, got)
	}
	if n := m.count("access_tokens"); int64(n) != again.Already {
		t.Errorf("convert: %d rows in Latchkey's table, want %d", n, again.Already)
	}
	all("convert", true)

	n, err := m.legacy.UndoConversion(t.Context())
	m.ok(err)
	if n != again.Already {
		t.Errorf("UndoConversion: got %d, want %d", n, again.Already)
	}
	m.enter(beside)
	all("back beside", true)
	if after := m.dump(); !slices.Equal(before, after) {
		t.Error("a conversion that was undone has changed rows of fastapi-users")
	}

	m.enter(done)
	all("done", false)
}

// orphans adds tokens of users that do not exist.
func (m *move[ID]) orphans(n int, sample *[]sampled) {
	m.t.Helper()
	conn, err := m.db.Conn(m.t.Context())
	m.ok(err)
	defer func() { _ = conn.Close() }()
	for range n {
		x := sampled{"of a deleted user", fastapiusers.NewToken(), false}
		var id any = int64(1e9)
		if u, ok := any(m.newID()).(uuid.UUID); ok {
			id = u.String()
		}
		for _, s := range []struct {
			query string
			args  []any
		}{
			{"PRAGMA foreign_keys = OFF", nil},
			{"INSERT INTO accesstoken VALUES (?, ?, ?)", []any{x.token, m.now.Format("2006-01-02 15:04:05.000000"), id}},
			{"PRAGMA foreign_keys = ON", nil},
		} {
			_, err := conn.ExecContext(m.t.Context(), s.query, s.args...)
			m.ok(err)
		}
		*sample = append(*sample, x)
	}
}

// dump returns the rows of fastapi-users as text.
func (m *move[ID]) dump() (all []string) {
	m.t.Helper()
	users := map[sqlstore.Dialect]string{sqlstore.PostgreSQL: `"user"`}[m.dialect]
	for _, table := range []string{cmp.Or(users, "user"), "accesstoken"} {
		rows, err := m.db.QueryContext(m.t.Context(), "SELECT * FROM "+table)
		m.ok(err)
		columns, err := rows.Columns()
		m.ok(err)
		for rows.Next() {
			values, into := make([]any, len(columns)), make([]any, len(columns))
			for i := range values {
				into[i] = &values[i]
			}
			m.ok(rows.Scan(into...))
			all = append(all, fmt.Sprintf("%s %s", table, values))
		}
		m.ok(errors.Join(rows.Err(), rows.Close()))
	}
	slices.Sort(all)
	return all
}

func TestSessionsOfBothSidesAreListedLimitedAndRevoked(t *testing.T) {
	moved(t, func(t *testing.T, m *move[uuid.UUID]) {
		spared := m.login(m.user("spared@example.com"))
		for _, s := range []stage{beside, convert} {
			m.enter(s)
			email := fmt.Sprintf("Ann.%s@example.com", s)
			id := m.user(email)
			old1, old2 := m.login(id), m.login(id)
			own1 := m.loginHere("ann." + string(s) + "@EXAMPLE.com")
			old3 := m.login(id)
			first, err := m.Sessions.ReadToken(t.Context(), old1) // stage convert: it is copied
			m.ok(err)
			ids := m.sessions(id)
			if len(ids) != 4 || ids[3] != first.ID {
				t.Fatalf("got the sessions %v, want 4 with %v last", ids, first.ID)
			}
			// A log-out by token, and the end of a session by its ID.
			m.ok(m.Sessions.DestroyToken(t.Context(), old1))
			m.check("after a log-out", old1, false, false)
			m.ok(m.Sessions.DestroySession(t.Context(), id, ids[2]))
			m.check("after the end of a session", old2, false, false)
			if err := m.Sessions.DestroySession(t.Context(), id, ids[2]); !errors.Is(err, strategy.ErrSessionNotFound) {
				t.Errorf("the end of a session that has ended: got %v, want ErrSessionNotFound", err)
			}
			m.check("another session", old3, true, true)
			m.ok(m.Sessions.DestroyAll(t.Context(), id, ids[0]))
			m.check("all but one ended: the one", old3, true, true)
			m.check("all but one ended: another", own1, false, false)
			// A log-out on the other side counts in either stage: it deletes the row.
			m.ok(m.python.Logout(t.Context(), old3))
			m.check("after a log-out there", old3, false, false)
			if ids := m.sessions(id); len(ids) != 0 {
				t.Errorf("got the sessions %v, want none", ids)
			}
			old4 := m.login(id)
			m.ok(m.Sessions.DestroyAll(t.Context(), id))
			m.check("after the end of all", old4, false, false)

			// A password change revokes what both sides have issued.
			old5, own2 := m.login(id), m.loginHere(email)
			m.setPassword(id)
			own3 := m.loginHere(email)
			m.ok(m.python.Patch(t.Context(), id, true))
			m.check("after a password change", old5, false, false)
			m.check("after a password change", own2, false, false)
			m.check("logged in after the password change", own3, false, true)
			m.ok(m.Accounts.Deactivate(t.Context(), id))
			m.check("after deactivation", own3, false, false)
			if n := m.count("accesstoken") + m.count("access_tokens"); n != 1 {
				t.Errorf("%s: %d rows remain, want only that of another user", s, n)
			}

			// The deletion of a user on the other side takes all sessions along.
			gone := m.user("gone." + string(s) + "@example.com")
			old6, own4 := m.login(gone), m.loginHere("gone."+string(s)+"@example.com")
			m.check("before the user is deleted", old6, true, true)
			m.ok(m.python.Delete(t.Context(), gone))
			m.check("after the user is deleted", old6, false, false)
			m.check("after the user is deleted", own4, false, false)
			if n := m.count("accesstoken") + m.count("access_tokens"); n != 1 {
				t.Errorf("%s: %d rows remain, want only that of another user", s, n)
			}
			m.check("another user", spared, true, true)
			_, err = m.legacy.UndoConversion(t.Context())
			m.ok(err)
		}
	})
}

func TestLimitOfSessionsCountsBothSides(t *testing.T) {
	moved(t, func(t *testing.T, m *move[uuid.UUID]) {
		m.enter(beside, func(cfg *latchkey.Config) { cfg.MaxSessions = 2 })
		id := m.user("ann@example.com")
		old1, old2 := m.login(id), m.login(id)
		own := m.loginHere("ann@example.com")
		m.check("the oldest session", old1, false, false)
		m.check("a newer session", old2, true, true)
		m.check("the new session", own, false, true)
	})
}

func TestRotationGivesALegacySessionATokenOfLatchkey(t *testing.T) {
	moved(t, func(t *testing.T, m *move[uuid.UUID]) {
		for _, s := range []stage{beside, convert} {
			m.enter(s)
			id := m.user(string(s) + "@example.com")
			m.setPassword(id) // its token version must survive the last stage
			old := m.login(id)
			before, err := m.Sessions.ReadToken(t.Context(), old)
			m.ok(err)
			secret, after, err := m.Sessions.RotateToken(t.Context(), old)
			m.ok(err)
			if after.ID != before.ID || !after.CreatedAt.Equal(before.CreatedAt) || !after.ExpiresAt.Equal(before.ExpiresAt) {
				t.Errorf("got the session %+v, want that of %+v", after.SessionInfo, before.SessionInfo)
			}
			m.check("the old token", old, false, false)
			m.check("the new token", secret.Reveal(), false, true)
			if _, _, err := m.Sessions.RotateToken(t.Context(), old); !errors.Is(err, strategy.ErrInvalidToken) {
				t.Errorf("a second rotation of the old token: got %v, want ErrInvalidToken", err)
			}
			if ids := m.sessions(id); len(ids) != 1 {
				t.Errorf("got the sessions %v, want one", ids)
			}
			n, err := m.legacy.UndoConversion(t.Context())
			m.ok(err)
			if n != 0 {
				t.Errorf("UndoConversion has deleted %d sessions, want none", n)
			}
			m.enter(done)
			m.check("the new token at the end", secret.Reveal(), false, true)
			now := m.now
			m.now = before.ExpiresAt.Add(time.Millisecond)
			m.check("the new token after the lifetime of the old one", secret.Reveal(), false, false)
			m.now = now
		}
	})
}

func TestLegacyTokensExpireByTheShorterLifetime(t *testing.T) {
	moved(t, func(t *testing.T, m *move[uuid.UUID]) {
		id := m.user("ann@example.com")
		start := m.now
		for _, s := range []stage{beside, convert} {
			for _, own := range []time.Duration{oldLifetime / 2, 2 * oldLifetime, 0} {
				m.now = start
				token := m.login(id)
				end := m.now.Add(oldLifetime)
				if own > 0 && own < oldLifetime {
					end = m.now.Add(own)
				}
				m.enter(s, func(cfg *latchkey.Config) { cfg.Lifetime = own })
				if !m.accepts(token) {
					t.Fatalf("%s: a new token is refused", s)
				}
				if m.now = end; !m.accepts(token) {
					t.Errorf("%s, Lifetime %v: the token is refused in its last millisecond", s, own)
				}
				if m.now = end.Add(time.Millisecond); m.accepts(token) {
					t.Errorf("%s, Lifetime %v: the token is accepted after its last millisecond", s, own)
				}
			}
		}
	})
}

func TestCopiesOfAnEarlierConversionDoNotCount(t *testing.T) {
	moved(t, func(t *testing.T, m *move[uuid.UUID]) {
		m.enter(convert, func(cfg *latchkey.Config) { cfg.Legacy.Lifetime = 0 }) // a mistake
		id := m.user("ann@example.com")
		token := m.login(id)
		m.check("converted", token, true, true)
		m.login(m.user("another@example.com"))
		m.enter(beside) // without an undo, another mistake
		m.check("back beside", token, true, true)
		m.ok(m.python.Logout(t.Context(), token))
		for _, s := range []stage{beside, convert} {
			m.enter(s)
			m.check("after a log-out there", token, false, false)
			if ids := m.sessions(id); len(ids) != 0 {
				t.Errorf("%s: %d sessions are listed, want none", s, len(ids))
			}
		}
		// A lifetime that is set later counts.
		m.enter(convert, func(cfg *latchkey.Config) { cfg.Legacy.Lifetime = 0 })
		token = m.login(id)
		m.check("converted", token, true, true)
		m.enter(convert)
		m.now = m.now.Add(oldLifetime + time.Second)
		m.check("after fastapi-users' lifetime", token, false, false)
		if ids := m.sessions(id); len(ids) != 0 {
			t.Errorf("%d sessions are listed, want none", len(ids))
		}
	})
}

func TestPasswordHashesAreLeftAloneBeside(t *testing.T) {
	moved(t, func(t *testing.T, m *move[uuid.UUID]) {
		m.user("Ann@example.com")
		m.enter(beside)
		m.loginHere("ann@example.com")
		if !strings.Contains(strings.Join(m.dump(), "\n"), oldHash) {
			t.Error("beside: the hash was replaced, so that a Python application may not know it")
		}
		m.enter(convert)
		m.loginHere("ann@example.com")
		if strings.Contains(strings.Join(m.dump(), "\n"), oldHash) {
			t.Error("convert: the hash was not replaced")
		}
	})
}

func TestTwoWritersGiveNoWrongAnswer(t *testing.T) { moved(t, twoWriters) }

// twoWriters logs in and out on both sides. Each worker has a user of its own, so that it knows
// which of its tokens are valid at any time.
func twoWriters(t *testing.T, m *move[uuid.UUID]) {
	m.enter(beside, func(cfg *latchkey.Config) { cfg.Now = time.Now })
	m.python.Now = time.Now
	var wg sync.WaitGroup
	var answers atomic.Int64
	for worker := range 4 {
		email := fmt.Sprintf("worker%d@example.com", worker)
		id := m.user(email)
		wg.Go(func() {
			ctx := t.Context()
			rnd := rand.New(rand.NewPCG(1, uint64(worker)))
			legacy := make(map[string]bool) // the tokens of fastapi-users: whether they are valid
			own := make(map[string]bool)
			pick := func(tokens map[string]bool) string {
				for token := range tokens { // in random order
					return token
				}
				return ""
			}
			for range 60 {
				if t.Failed() {
					return
				}
				var err error
				switch token := pick(legacy); rnd.IntN(10) {
				case 0, 1:
					if token, err = m.python.Login(ctx, id); err == nil {
						legacy[token] = true
					}
				case 2, 3:
					var user account.User[uuid.UUID]
					var secret strategy.Secret
					if user, _, err = m.Accounts.Authenticate(ctx, email, oldPassword, ""); err == nil {
						if secret, _, err = m.Sessions.WriteToken(ctx, user); err == nil {
							own[secret.Reveal()] = true
						}
					}
				case 4:
					if token != "" {
						err = m.python.Logout(ctx, token)
						legacy[token] = false
					}
				case 5:
					if token != "" {
						err = m.Sessions.DestroyToken(ctx, token)
						legacy[token] = false
					}
				case 6:
					if token := pick(own); token != "" {
						err = m.Sessions.DestroyToken(ctx, token)
						own[token] = false
					}
				case 7:
					err = m.python.Patch(ctx, id, rnd.IntN(2) == 0)
				case 8:
					if legacy[token] {
						var secret strategy.Secret
						secret, _, err = m.Sessions.RotateToken(ctx, token)
						legacy[token], own[secret.Reveal()] = false, err == nil
					}
				case 9:
					if rnd.IntN(4) == 0 {
						_, err = m.Accounts.SetPassword(ctx, id, oldPassword)
						for _, tokens := range []map[string]bool{legacy, own} {
							for token := range tokens {
								tokens[token] = false
							}
						}
					}
				}
				if err != nil {
					t.Error(err)
					return
				}
				for _, tokens := range []map[string]bool{legacy, own} {
					token := pick(tokens)
					if token == "" {
						continue
					}
					valid := tokens[token]
					there, err := m.python.Accepts(ctx, token)
					if err != nil {
						t.Error(err)
						return
					}
					_, err = m.Sessions.ReadToken(ctx, token)
					if err != nil && !errors.Is(err, strategy.ErrInvalidToken) {
						t.Error(err)
						return
					}
					answers.Add(2)
					if wantThere := valid && len(token) == 43; there != wantThere || (err == nil) != valid {
						t.Errorf("fastapi-users accepts: %v, want %v; Latchkey accepts: %v, want %v", there, wantThere, err == nil, valid)
					}
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d answers", answers.Load())
}

// A token is revoked while it is used, converted and rotated, by each side and in each way.
func TestRevokedTokenIsNotRevivedByAConversion(t *testing.T) {
	moved(t, func(t *testing.T, m *move[uuid.UUID]) {
		m.enter(convert)
		id := m.user("ann@example.com")
		ctx := t.Context()
		for round := range 24 {
			token := m.login(id)
			session := m.sessions(id)[0]
			var wg sync.WaitGroup
			begin := make(chan struct{})
			concurrently := func(do func() error) {
				wg.Go(func() {
					<-begin
					if err := do(); err != nil && !errors.Is(err, strategy.ErrInvalidToken) && !errors.Is(err, strategy.ErrTokenNotFound) && !errors.Is(err, strategy.ErrSessionNotFound) {
						t.Error(err)
					}
				})
			}
			concurrently(func() error {
				switch round % 4 {
				case 0:
					return m.python.Logout(ctx, token)
				case 1:
					return m.Sessions.DestroyToken(ctx, token)
				case 2:
					return m.Sessions.DestroySession(ctx, id, session)
				default:
					return m.Sessions.DestroyAll(ctx, id)
				}
			})
			for range 2 {
				concurrently(func() error {
					_, err := m.legacy.ByLegacyToken(ctx, token)
					return err
				})
			}
			concurrently(func() error {
				_, err := m.legacy.ConvertAll(ctx, sqlstore.ConvertConfig{})
				return err
			})
			if round%4 > 1 { // the end of a session ends it under every token
				concurrently(func() error {
					_, _, err := m.Sessions.RotateToken(ctx, token)
					return err
				})
			}
			close(begin)
			wg.Wait()
			m.check(fmt.Sprintf("round %d", round), token, false, false)
			if ids := m.sessions(id); slices.Contains(ids, session) {
				t.Errorf("round %d: the session that ended is listed", round)
			}
		}
	})
}

func TestLogoutsWithMadeUpTokensAreAnswered(t *testing.T) {
	moved(t, func(t *testing.T, m *move[uuid.UUID]) {
		m.enter(convert)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if err := m.Sessions.DestroyToken(t.Context(), fastapiusers.NewToken()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

// With these variables, TestConvertProcess converts the tokens of a database.
const (
	envConvertDSN     = "LATCHKEY_TEST_CONVERT_DSN"
	envConvertDialect = "LATCHKEY_TEST_CONVERT_DIALECT"
)

// TestConvertProcess is the process that TestKilledConversionLosesNoToken kills.
func TestConvertProcess(t *testing.T) {
	dsn := os.Getenv(envConvertDSN)
	if dsn == "" {
		t.Skip("the tests that need it start it")
	}
	dialect := map[string]sqlstore.Dialect{"sqlite": sqlstore.SQLite, "postgresql": sqlstore.PostgreSQL, "mysql": sqlstore.MySQL}[os.Getenv(envConvertDialect)]
	db, err := sql.Open(map[sqlstore.Dialect]string{sqlstore.SQLite: "sqlite", sqlstore.PostgreSQL: "pgx", sqlstore.MySQL: "mysql"}[dialect], dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	legacy, err := sqlstore.LegacyTokensOf[uuid.UUID](db, dialect, configOf(convert))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	fmt.Println("begin")
	if _, err := legacy.ConvertAll(t.Context(), sqlstore.ConvertConfig{}); err != nil {
		t.Fatal(err)
	}
}

// The process that converts is killed in the middle, again and again. Tokens are revoked
// between.
func TestKilledConversionLosesNoToken(t *testing.T) {
	moved(t, func(t *testing.T, m *move[uuid.UUID]) {
		m.enter(convert)
		sample := m.fill(40)
		owner := m.user("owner@example.com")
		var rows []fastapiusers.Row[uuid.UUID]
		for range 2500 {
			x := sampled{"valid", fastapiusers.NewToken(), true}
			rows, sample = append(rows, fastapiusers.Row[uuid.UUID]{Token: x.token, CreatedAt: m.now, UserID: owner}), append(sample, x)
		}
		m.ok(m.python.InsertAll(t.Context(), rows))
		rnd := rand.New(rand.NewPCG(1, 2))
		longest, wanted, middle := 100*time.Millisecond, 2, 0
		for try := 1; middle < wanted; try++ {
			if try > 60 {
				t.Fatalf("%d processes were killed in the middle of a conversion, want %d", middle, wanted)
			}
			ended := m.convertAndKill(time.Duration(rnd.Int64N(int64(longest))))
			switch rows := m.count("access_tokens"); {
			case ended: // too late
				longest = longest*3/4 + 1
				_, err := m.legacy.UndoConversion(t.Context())
				m.ok(err)
			case rows == 0: // too early
				longest = longest * 5 / 4
			default:
				middle++
			}
			for range 5 { // some are revoked between and never come back
				x := &sample[rnd.IntN(len(sample))]
				m.ok(m.Sessions.DestroyToken(t.Context(), x.token))
				x.kind, x.valid = "revoked", false
			}
		}
		_, err := m.legacy.ConvertAll(t.Context(), sqlstore.ConvertConfig{})
		m.ok(err)
		valid := 0
		for i, x := range sample {
			if x.valid {
				valid++
			}
			if i < 80 || !x.valid || i%10 == 0 {
				if got := m.accepts(x.token); got != x.valid {
					t.Errorf("a token %s: accepted %v, want %v", x.kind, got, x.valid)
				}
			}
		}
		// The columns id and token are unique, so no token is there twice. Those of inactive users are
		// there too.
		copies := m.count("access_tokens WHERE legacy")
		if copies < valid {
			t.Errorf("%d tokens were converted, want at least the %d valid ones", copies, valid)
		}
		t.Logf("%d copies, %d valid tokens", copies, valid)
	})
}

// convertAndKill starts a process that converts, and kills it some time after it began. It
// reports whether the process ended before that.
func (m *move[ID]) convertAndKill(after time.Duration) (ended bool) {
	m.t.Helper()
	program, err := os.Executable()
	m.ok(err)
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, program, "-test.run=^TestConvertProcess$", "-test.v")
	command.Env = append(os.Environ(), envConvertDSN+"="+m.dsn(), envConvertDialect+"="+m.dialect.String())
	command.Stderr = os.Stderr
	out, err := command.StdoutPipe()
	m.ok(err)
	m.ok(command.Start())
	var kill *time.Timer
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if kill == nil && lines.Text() == "begin" { // the process has connected
			kill = time.AfterFunc(after, func() { _ = command.Process.Kill() })
			defer kill.Stop()
		}
	}
	return command.Wait() == nil
}

// dsn returns the data source name of the test's database.
func (m *move[ID]) dsn() (dsn string) {
	m.t.Helper()
	query := map[sqlstore.Dialect]string{
		sqlstore.PostgreSQL: "SELECT current_schema()", sqlstore.MySQL: "SELECT DATABASE()", sqlstore.SQLite: "SELECT file FROM pragma_database_list WHERE name = 'main'",
	}[m.dialect]
	var name string
	m.ok(m.db.QueryRowContext(m.t.Context(), query).Scan(&name))
	if m.dialect == sqlstore.SQLite {
		return "file:" + name + "?_pragma=busy_timeout(5000)&_pragma=foreign_keys(1)"
	}
	for _, s := range servers(m.t) {
		switch {
		case s.dialect != m.dialect:
		case s.dialect == sqlstore.MySQL:
			cfg, err := mysql.ParseDSN(s.dsn)
			m.ok(err)
			cfg.DBName = name
			return cfg.FormatDSN()
		default:
			u, err := url.Parse(s.dsn)
			m.ok(err)
			q := u.Query()
			q.Set("search_path", name)
			u.RawQuery = q.Encode()
			return u.String()
		}
	}
	m.t.Fatal("no server")
	return ""
}
