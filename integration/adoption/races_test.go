package adoption_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/internal/fastapiusers"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

func TestRevokedTokenIsNeverConverted(t *testing.T) {
	adapters(t, revokeRace[uuid.UUID], revokeRace[bson.ObjectID])
}

// A token is revoked while it is used for the first time, and while all are converted.
func revokeRace[ID comparable](t *testing.T, r *rig[ID]) {
	r.enter(convert)
	id := r.user("ann@example.com")
	revoke := []func(ctx context.Context, token string) error{
		r.Sessions.DestroyToken,
		func(ctx context.Context, _ string) error { return r.Sessions.DestroyAll(ctx, id) },
		func(ctx context.Context, _ string) error {
			_, err := r.Accounts.SetPassword(ctx, id, password)
			return err
		},
	}
	for round := range 200 {
		token := r.login(id)
		var wg sync.WaitGroup
		var failed [4]error
		start := make(chan struct{})
		for i, do := range []func() error{
			func() error { _, err := r.Sessions.ReadToken(t.Context(), token); return err },
			func() error { _, err := r.Sessions.ReadToken(t.Context(), token); return err },
			func() error {
				_, err := r.Legacy.ConvertAll(t.Context(), mongostore.ConvertConfig{})
				return err
			},
			func() error { return revoke[round%len(revoke)](t.Context(), token) },
		} {
			wg.Go(func() {
				<-start
				if err := do(); err != nil && !errors.Is(err, strategy.ErrInvalidToken) {
					failed[i] = err
				}
			})
		}
		close(start)
		wg.Wait()
		r.ok(errors.Join(failed[:]...))
		r.check(fmt.Sprint("round ", round), token, false, false)
		if t.Failed() {
			return
		}
	}
}

func TestConcurrentRotationsOfALegacyTokenHaveOneWinner(t *testing.T) {
	adapters(t, rotationRace[uuid.UUID], rotationRace[bson.ObjectID])
}

func rotationRace[ID comparable](t *testing.T, r *rig[ID]) {
	for _, s := range []stage{beside, convert} {
		r.enter(s)
		id := r.user(string(s) + "@example.com")
		for range 20 {
			token := r.login(id)
			var wg sync.WaitGroup
			var won atomic.Int32
			for range 4 {
				wg.Go(func() {
					secret, _, err := r.Sessions.RotateToken(t.Context(), token)
					switch {
					case err == nil:
						won.Add(1)
						if !r.accepts(secret.Reveal()) {
							t.Error("the token of the winner is refused")
						}
					case !errors.Is(err, strategy.ErrInvalidToken):
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := won.Load(); n != 1 {
				t.Fatalf("%s: %d rotations have succeeded, want 1", s, n)
			}
			r.check("after the rotations", token, false, false)
		}
		if ids := r.sessions(id); len(ids) != 20 {
			t.Errorf("%s: %d sessions, want 20", s, len(ids))
		}
	}
}

// writersTime is how long the two writers work.
func writersTime(t *testing.T) time.Duration {
	s := os.Getenv("LATCHKEY_TEST_ADOPTION_TIME")
	if s == "" {
		return 5 * time.Second
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTwoWritersGiveNoWrongAnswer(t *testing.T) {
	adapters(t, twoWriters[uuid.UUID], twoWriters[bson.ObjectID])
}

// twoWriters logs in and out on both sides. Each worker has a user of its own, so that it knows
// which of its tokens are valid at any time.
func twoWriters[ID comparable](t *testing.T, r *rig[ID]) {
	r.enter(beside, func(cfg *latchkey.Config) { cfg.Now = time.Now })
	r.python.Now = time.Now
	end := time.Now().Add(writersTime(t))
	var wg sync.WaitGroup
	var answers, wrong atomic.Int64
	for worker := range 4 {
		email := fmt.Sprintf("worker%d@example.com", worker)
		id := r.user(email)
		wg.Go(func() {
			ctx := t.Context()
			rnd := rand.New(rand.NewPCG(1, uint64(worker)))
			legacy := make(map[string]bool) // the tokens of fastapi-users: whether they are valid
			own := make(map[string]bool)
			fail := func(err error) bool {
				if err != nil {
					t.Error(err)
				}
				return err != nil
			}
			pick := func(tokens map[string]bool) string {
				for token := range tokens { // in random order
					return token
				}
				return ""
			}
			all := func(tokens map[string]bool) {
				for token := range tokens {
					tokens[token] = false
				}
			}
			for time.Now().Before(end) && !t.Failed() {
				var err error
				switch rnd.IntN(10) {
				case 0, 1:
					var token string
					if token, err = r.python.Login(ctx, id); err == nil {
						legacy[token] = true
					}
				case 2, 3:
					var user member[ID]
					var secret strategy.Secret
					if user, _, err = r.Accounts.Authenticate(ctx, email, password, ""); err == nil {
						if secret, _, err = r.Sessions.WriteToken(ctx, user); err == nil {
							own[secret.Reveal()] = true
						}
					}
				case 4:
					token := pick(legacy)
					if err = r.python.Logout(ctx, token); token != "" {
						legacy[token] = false
					}
				case 5:
					if token := pick(legacy); token != "" {
						err = r.Sessions.DestroyToken(ctx, token)
						legacy[token] = false
					}
				case 6:
					if token := pick(own); token != "" {
						err = r.Sessions.DestroyToken(ctx, token)
						own[token] = false
					}
				case 7:
					err = r.python.Patch(ctx, id)
				case 8:
					if token := pick(legacy); legacy[token] {
						var secret strategy.Secret
						secret, _, err = r.Sessions.RotateToken(ctx, token)
						legacy[token], own[secret.Reveal()] = false, err == nil
					}
				case 9:
					if rnd.IntN(4) == 0 {
						_, err = r.Accounts.SetPassword(ctx, id, password)
						all(legacy)
						all(own)
					}
				}
				if fail(err) {
					return
				}
				for _, tokens := range []map[string]bool{legacy, own} {
					token := pick(tokens)
					if token == "" {
						continue
					}
					valid := tokens[token]
					there, err := r.python.Accepts(ctx, token)
					if fail(err) {
						return
					}
					_, err = r.Sessions.ReadToken(ctx, token)
					if err != nil && !errors.Is(err, strategy.ErrInvalidToken) && fail(err) {
						return
					}
					answers.Add(2)
					if wantThere := valid && len(token) == 43; there != wantThere || (err == nil) != valid {
						wrong.Add(1)
						t.Errorf("fastapi-users accepts: %v, want %v; Latchkey accepts: %v, want %v", there, wantThere, err == nil, valid)
					}
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d answers, %d wrong", answers.Load(), wrong.Load())
	if answers.Load() == 0 {
		t.Error("no answers")
	}
}

// With these variables, the test program converts the tokens of a database, instead of running
// tests.
const (
	envConvertURI      = "LATCHKEY_TEST_CONVERT_URI"
	envConvertDatabase = "LATCHKEY_TEST_CONVERT_DATABASE"
)

// convertMain is the main function of a process that converts. It writes a line when it begins.
func convertMain() error {
	client, err := mongo.Connect(options.Client().ApplyURI(os.Getenv(envConvertURI)))
	if err != nil {
		return err
	}
	db := client.Database(os.Getenv(envConvertDatabase))
	cfg := config(convert, "id", "users", "access_tokens")
	lk, err := latchkey.New[member[uuid.UUID]](db, uuid.New, cfg)
	if err != nil {
		return err
	}
	if err := client.Ping(context.Background(), nil); err != nil {
		return err
	}
	fmt.Println("begin")
	_, err = lk.Legacy.ConvertAll(context.Background(), mongostore.ConvertConfig{})
	return err
}

// The process that converts is killed in the middle, again and again. Tokens are revoked
// between.
func TestKilledConversionLosesNoToken(t *testing.T) {
	r := &rig[uuid.UUID]{newID: uuid.New}
	r.start(t)
	r.python = fastapiusers.Motor(r.db, lifetime, r.clock)
	r.indexes()
	r.enter(convert)
	program, err := os.Executable()
	r.ok(err)
	users := size(t, usersVariable, 100)
	sample, err := r.python.Fill(t.Context(), users, 2*users, oldHash)
	r.ok(err)
	rnd := rand.New(rand.NewPCG(1, 2))
	own := r.db.Collection(ownTokens)
	longest, wanted, middle := 200*time.Millisecond, 5, 0
	for try := 1; middle < wanted; try++ {
		if try > 100 {
			t.Fatalf("%d processes were killed in the middle of a conversion, want %d", middle, wanted)
		}
		ended := r.convertAndKill(program, time.Duration(rnd.Int64N(int64(longest))))
		unconfirmed, rows := r.count(own, bson.D{{Key: "token_version", Value: bson.D{{Key: "$lt", Value: 0}}}}), r.count(own, bson.D{})
		switch {
		case ended: // too late
			longest = longest*3/4 + 1
			_, err := r.Legacy.UndoConversion(t.Context())
			r.ok(err)
		case rows == 0: // too early
			longest = longest * 5 / 4
		case unconfirmed > 0:
			middle++
		}
		for range 5 { // some are revoked between and never come back
			x := &sample.Tokens[rnd.IntN(len(sample.Tokens))]
			r.ok(r.Sessions.DestroyToken(t.Context(), x.Token))
			x.Kind, x.Valid = "revoked", false
		}
	}
	_, err = r.Legacy.ConvertAll(t.Context(), mongostore.ConvertConfig{})
	r.ok(err)
	valid := int64(0)
	for _, x := range sample.Tokens {
		if got := r.accepts(x.Token); got != x.Valid {
			t.Errorf("a token %s: accepted %v, want %v", x.Kind, got, x.Valid)
		}
		if x.Valid {
			valid++
		}
	}
	digests := make(map[string]bool)
	for _, doc := range r.documents(r.db.Collection(ownTokens)) {
		var row struct {
			Token string `bson:"token"`
		}
		r.ok(bson.UnmarshalExtJSON([]byte(doc), false, &row))
		if digests[row.Token] {
			t.Error("a token was converted twice")
		}
		digests[row.Token] = true
	}
	if int64(len(digests)) < valid {
		t.Errorf("%d tokens were converted, want at least the %d valid ones", len(digests), valid)
	}
	t.Logf("%d rows, %d of valid tokens", len(digests), valid)
}

// convertAndKill starts a process that converts, and kills it some time after it began. It
// reports whether the process ended before that.
func (r *rig[ID]) convertAndKill(program string, after time.Duration) (ended bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, program)
	command.Env = append(os.Environ(), envConvertURI+"="+server.URI, envConvertDatabase+"="+r.db.Name())
	command.Stderr = os.Stderr
	out, err := command.StdoutPipe()
	r.ok(err)
	r.ok(command.Start())
	var kill *time.Timer
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if kill == nil { // the process has connected
			kill = time.AfterFunc(after, func() { _ = command.Process.Kill() })
			defer kill.Stop()
		}
	}
	return command.Wait() == nil
}
