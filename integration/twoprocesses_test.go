package integration_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
)

// With these variables, the test program is an instance of the application that takes its
// orders from stdin, instead of running tests.
const (
	envChildURI      = "LATCHKEY_TEST_CHILD_URI"
	envChildDatabase = "LATCHKEY_TEST_CHILD_DATABASE"
)

// order is what an instance is asked to do. A second line, "go", tells it when.
type order struct {
	Token, New string // the password reset
	Email, Old string // the login, if Email is set
}

// outcome is what came of it.
type outcome struct {
	Won     bool   // the reset succeeded
	Session string // the access token, if the login succeeded
	Failure string // an error that is not expected
}

// childMain is the main function of an instance.
func childMain() error {
	client, err := mongo.Connect(options.Client().ApplyURI(os.Getenv(envChildURI)))
	if err != nil {
		return err
	}
	defer func() { _ = client.Disconnect(context.Background()) }()
	lk, err := latchkey.New[facadeUser](client.Database(os.Getenv(envChildDatabase)), uuid.New, latchkey.Config{
		Lifetime: time.Hour, InsecureNoLimiter: true, PurgeInterval: time.Hour,
		Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true,
		Mail:    account.MailConfig{Mailer: make(outbox)}, // it gets notices only
		OnEvent: func(context.Context, event.Event) {},
	})
	if err != nil {
		return err
	}
	defer lk.Close()
	ctx := context.Background()
	if err := client.Ping(ctx, nil); err != nil {
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
		if err := out.Encode(obey(ctx, lk, o)); err != nil {
			return err
		}
	}
}

// obey resets the password, and logs in with the old one at the same time.
func obey(ctx context.Context, lk *latchkey.Latchkey[facadeUser, uuid.UUID], o order) (out outcome) {
	var wg sync.WaitGroup
	if o.Email != "" {
		wg.Go(func() {
			user, _, err := lk.Accounts.Authenticate(ctx, o.Email, o.Old, "")
			if err != nil {
				return // the reset was faster
			}
			if secret, _, err := lk.Sessions.WriteToken(ctx, user); err == nil {
				out.Session = secret.Reveal()
			}
		})
	}
	_, err := lk.Accounts.ResetPassword(ctx, o.Token, o.New)
	wg.Wait()
	out.Won = err == nil
	if err != nil && !errors.Is(err, account.ErrBadOneTimeToken) {
		out.Failure = err.Error()
	}
	return out
}

// child is an instance in another process.
type child struct {
	t   *testing.T
	in  io.Writer
	out *json.Decoder
}

func startChild(t *testing.T, database string) *child {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program)
	command.Env = append(os.Environ(), envChildURI+"="+server.URI, envChildDatabase+"="+database)
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

func (c *child) say(line []byte) {
	c.t.Helper()
	if _, err := c.in.Write(append(line, '\n')); err != nil {
		c.t.Fatal(err)
	}
}

func (c *child) hear(into any) {
	c.t.Helper()
	if err := c.out.Decode(into); err != nil {
		c.t.Fatal(err)
	}
}

// Two processes use one token at the same time: one wins. A login with the old password that is
// under way does not outlive the reset.
func TestResetsByTwoProcessesHaveOneWinner(t *testing.T) {
	mails := make(outbox, 10)
	db := database(t)
	f := newFacade(t, db, latchkey.Config{
		Lifetime: time.Hour, InsecureNoLimiter: true, Mail: account.MailConfig{Mailer: mails, PerAddress: 1000, PerNetwork: 1000},
	})
	f.register("ann@example.com")
	children := []*child{startChild(t, db.Name()), startChild(t, db.Name())}
	current := password
	var wins [2]int
	logins := 0
	for i := range 200 {
		if err := f.Accounts.RequestPasswordReset(t.Context(), "ann@example.com"); err != nil {
			t.Fatal(err)
		}
		secret := (<-mails).Token.Reveal()
		var next [2]string
		for j, c := range children {
			next[j] = fmt.Sprintf("new password %d of process %d", i, j)
			o := order{Token: secret, New: next[j]}
			if i%2 == j {
				o.Email, o.Old = "ann@example.com", current
			}
			line, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			c.say(line)
		}
		for _, c := range children {
			var ready string
			c.hear(&ready)
		}
		for _, c := range children {
			c.say([]byte("go"))
		}
		winner := -1
		var session string
		for j, c := range children {
			var got outcome
			c.hear(&got)
			switch {
			case got.Failure != "":
				t.Fatal(got.Failure)
			case got.Won && winner >= 0:
				t.Fatal("both resets succeeded")
			case got.Won:
				winner = j
			}
			if got.Session != "" {
				session = got.Session
			}
		}
		if winner < 0 {
			t.Fatal("no reset succeeded")
		}
		wins[winner]++
		current = next[winner]
		if _, _, err := f.Accounts.Authenticate(t.Context(), "ann@example.com", current, ""); err != nil {
			t.Fatalf("log in with the winner's password: %v", err)
		}
		if _, _, err := f.Accounts.Authenticate(t.Context(), "ann@example.com", next[1-winner], ""); !errors.Is(err, account.ErrBadCredentials) {
			t.Fatalf("log in with the other password: got %v, want ErrBadCredentials", err)
		}
		if session != "" {
			logins++
			if _, err := f.Sessions.ReadToken(t.Context(), session); err == nil {
				t.Fatal("a session of the old password outlives the reset")
			}
		}
	}
	t.Logf("wins of the processes: %v; logins with the old password that succeeded: %d", wins, logins)
}
