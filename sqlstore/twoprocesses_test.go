package sqlstore_test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/sqlstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// maxSessions is the limit of sessions of a user in these tests.
const maxSessions = 5

// dialectOf returns the dialect of a driver's databases.
var dialectOf = map[string]sqlstore.Dialect{"pgx": sqlstore.PostgreSQL, "mysql": sqlstore.MySQL, "sqlite": sqlstore.SQLite}

// newLimited returns a Latchkey with a limit of sessions.
func newLimited(db *sql.DB, dialect sqlstore.Dialect) (*latchkey.Latchkey[appUser, uuid.UUID], error) {
	return sqlstore.New[appUser](db, dialect, uuid.New, cheap(latchkey.Config{
		Lifetime: time.Hour, MaxSessions: maxSessions, InsecureNoLimiter: true, Timeout: time.Minute,
	}))
}

// order asks another process for logins, all at once.
type order struct {
	Email, Password string
	Logins          int
}

// childMain is the main function of another process: for each order, it prepares, says that it is
// ready, waits for a line, and answers with the errors of the logins.
func childMain(from string) error {
	driver, dsn, _ := strings.Cut(from, " ")
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	lk, err := newLimited(db, dialectOf[driver])
	if err != nil {
		return err
	}
	defer lk.Close()
	if err := lk.VerifyIndexes(context.Background()); err != nil {
		return err
	}
	in, out := bufio.NewReader(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return nil // the test has ended
		}
		var o order
		if err := json.Unmarshal(line, &o); err != nil {
			return err
		}
		if err := out.Encode("ready"); err != nil {
			return err
		}
		if _, err := in.ReadBytes('\n'); err != nil {
			return nil
		}
		failures := []string{}
		for _, err := range logIn(lk, o) {
			failures = append(failures, err.Error())
		}
		if err := out.Encode(failures); err != nil {
			return err
		}
	}
}

// logIn logs in concurrently, and returns the errors.
func logIn(lk *latchkey.Latchkey[appUser, uuid.UUID], o order) (failures []error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for range o.Logins {
		wg.Go(func() {
			user, _, err := lk.Accounts.Authenticate(ctx, o.Email, o.Password, "")
			if err == nil {
				_, _, err = lk.Sessions.WriteToken(ctx, user)
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				failures = append(failures, err)
			}
		})
	}
	wg.Wait()
	return failures
}

// child is another process.
type child struct {
	t   *testing.T
	in  io.Writer
	out *json.Decoder
}

func startChild(t *testing.T, from source) *child {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program)
	command.Env = append(os.Environ(), envChild+"="+from.driver+" "+from.dsn)
	command.Stderr = os.Stderr
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // ends it
		late := time.AfterFunc(time.Minute, func() { _ = command.Process.Kill() })
		defer late.Stop()
		if err := command.Wait(); err != nil {
			t.Errorf("the other process: %v", err)
		}
	})
	return &child{t, in, json.NewDecoder(out)}
}

func (c *child) say(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c.in, line+"\n"); err != nil {
		c.t.Fatal(err)
	}
}

func (c *child) hear(into any) {
	c.t.Helper()
	if err := c.out.Decode(into); err != nil {
		c.t.Fatal(err)
	}
}

// 64 logins of one user at once, in two processes, with a limit of 5 sessions.
func TestLoginsInTwoProcessesKeepTheLimitOfSessions(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		from := s.create(t)
		db := openDB(t, from)
		if err := sqlstore.Migrate[uuid.UUID](t.Context(), db, s.dialect, sqlstore.Tables{}); err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(t.Context(), "ALTER TABLE users ADD COLUMN name VARCHAR(100) NOT NULL DEFAULT ''"); err != nil {
			t.Fatal(err)
		}
		lk, err := newLimited(db, s.dialect)
		if err != nil {
			t.Fatal(err)
		}
		defer lk.Close()
		children := []*child{startChild(t, from), startChild(t, from)}
		for i := range 3 {
			o := order{Email: fmt.Sprintf("ann%d@example.com", i), Password: "correct horse battery staple", Logins: 32}
			user, err := lk.Accounts.Create(t.Context(), appUser{User: account.User[uuid.UUID]{Email: o.Email, Active: true}}, o.Password)
			if err != nil {
				t.Fatal(err)
			}
			line, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range children {
				c.say(string(line))
			}
			for _, c := range children {
				var ready string
				c.hear(&ready)
			}
			for _, c := range children {
				c.say("go")
			}
			for _, c := range children {
				var failures []string
				c.hear(&failures)
				if len(failures) > 0 {
					t.Errorf("%d logins failed; the first: %s", len(failures), failures[0])
				}
			}
			sessions, err := lk.Sessions.Sessions(t.Context(), user.ID, strategy.Page{Limit: 100})
			if err != nil {
				t.Fatal(err)
			}
			var rows int
			count := sqlstore.Bind(s.dialect, "SELECT COUNT(*) FROM access_tokens WHERE user_id = ?")
			if err := db.QueryRowContext(t.Context(), count, user.ID.String()).Scan(&rows); err != nil {
				t.Fatal(err)
			}
			if n := len(sessions.Sessions); n != maxSessions || rows != maxSessions {
				t.Errorf("after 64 logins, %d sessions and %d rows remain, want %d", n, rows, maxSessions)
			}
		}
	})
}
