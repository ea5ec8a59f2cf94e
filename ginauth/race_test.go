package ginauth_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// raceRig is a server on which every request touches its session: the clock advances by a
// millisecond whenever it is read.
type raceRig struct {
	*rig
	t      *testing.T
	url    string
	client *http.Client
	tokens strategy.Store[uuid.UUID]
	db     *strategy.Database[member, uuid.UUID]
}

func newRaceRig(t *testing.T, tokens strategy.Store[uuid.UUID]) *raceRig {
	t.Helper()
	var ticks atomic.Int64
	now := func() time.Time { return noon.Add(time.Duration(ticks.Add(1)) * time.Millisecond) }
	tr := &raceRig{rig: newRig(t), t: t, tokens: tokens}
	var err error
	tr.db, err = strategy.NewDatabase(tokens, tr.users, strategy.Config{
		Lifetime: 1000 * time.Hour, IdleTimeout: 500 * time.Hour, TouchInterval: time.Millisecond, Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	auth, err := ginauth.New(tr.db, tr.accounts, ginauth.Config{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	r := engine(auth)
	r.POST("/rotate", auth.RequireUser(), func(c *gin.Context) {
		secret, _, err := tr.db.RotateToken(c.Request.Context(), strings.TrimPrefix(c.GetHeader("Authorization"), "Bearer "))
		if err != nil {
			c.Status(http.StatusUnauthorized)
			return
		}
		c.JSON(http.StatusOK, gin.H{"access_token": secret.Reveal()})
	})
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	tr.url, tr.client = server.URL, server.Client()
	return tr
}

// send sends a request with a token, and returns the status and the new token of the
// answer, if it has one.
func (tr *raceRig) send(method, path, form, token string) (code int, next string) {
	req, err := http.NewRequest(method, tr.url+path, strings.NewReader(form))
	if err != nil {
		tr.t.Error(err)
		return 0, ""
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := tr.client.Do(req)
	if err != nil {
		tr.t.Error(err)
		return 0, ""
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		tr.t.Error(err)
	}
	var body struct {
		AccessToken string `json:"access_token"`
	}
	_ = json.Unmarshal(content, &body) // a text answer has no token
	return resp.StatusCode, body.AccessToken
}

// purse holds all tokens that a session has had.
type purse struct {
	mu     sync.Mutex
	tokens []string
}

func (p *purse) add(token string) {
	if token == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tokens = append(p.tokens, token)
}

func (p *purse) latest() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tokens[len(p.tokens)-1]
}

// race logs a session out while other clients use it. It returns how many requests that
// began after the answer to the log-out were accepted, and how many rows of the user are
// left.
func (tr *raceRig) race() (accepted, left int) {
	secret, _, err := tr.db.WriteToken(tr.t.Context(), tr.ann)
	if err != nil {
		tr.t.Fatal(err)
	}
	p := &purse{tokens: []string{secret.Reveal()}}
	var answered atomic.Bool
	var late atomic.Int64
	var started, clients sync.WaitGroup
	for _, how := range []struct{ method, path, form string }{
		{"GET", "/me", ""}, {"GET", "/me", ""}, {"POST", "/rotate", ""}, {"POST", "/reauthenticate", "password=" + password},
	} {
		started.Add(1)
		clients.Go(func() {
			once := sync.OnceFunc(started.Done)
			for {
				after := answered.Load()
				code, next := tr.send(how.method, how.path, how.form, p.latest())
				p.add(next)
				switch {
				case code == http.StatusOK && after:
					late.Add(1)
				case code != http.StatusOK && code != http.StatusUnauthorized:
					tr.t.Errorf("%s %s: got %d, want 200 or 401", how.method, how.path, code)
				}
				once()
				if after {
					return
				}
			}
		})
	}
	started.Wait()
	// 401 means that the token has just been rotated.
	for code := 0; code != http.StatusNoContent; {
		if code, _ = tr.send("POST", "/logout", "", p.latest()); code != http.StatusNoContent && code != http.StatusUnauthorized {
			tr.t.Errorf("log out: got %d, want 204 or 401", code)
			break
		}
	}
	answered.Store(true)
	clients.Wait()
	for _, token := range p.tokens {
		if code, _ := tr.send("GET", "/me", "", token); code == http.StatusOK {
			late.Add(1)
		}
	}
	rows, err := tr.tokens.ByUser(tr.t.Context(), tr.ann.ID, strategy.Position{}, 100)
	if err != nil {
		tr.t.Fatal(err)
	}
	return int(late.Load()), len(rows)
}

const rounds = 200

func TestLoggedOutSessionStaysOut(t *testing.T) {
	tr := newRaceRig(t, memstore.NewTokens[uuid.UUID]())
	for round := range rounds {
		if accepted, left := tr.race(); accepted != 0 || left != 0 {
			t.Fatalf("round %d: after the log-out, got %d requests accepted and %d rows left, want none", round, accepted, left)
		}
	}
}

// upsertingTokens inserts a token again when it is touched, even if it was deleted: the
// mistake that the race must detect.
type upsertingTokens struct {
	*memstore.Tokens[uuid.UUID]
	seen sync.Map // digest to token
}

func (s *upsertingTokens) ByToken(ctx context.Context, digest string) (strategy.AccessToken[uuid.UUID], error) {
	token, err := s.Tokens.ByToken(ctx, digest)
	if err == nil {
		s.seen.Store(digest, token)
	}
	return token, err
}

func (s *upsertingTokens) Touch(ctx context.Context, digest string, at time.Time) error {
	runtime.Gosched()
	if token, ok := s.seen.Load(digest); ok {
		_ = s.Insert(ctx, token.(strategy.AccessToken[uuid.UUID])) // fails while the row exists
	}
	return s.Tokens.Touch(ctx, digest, at)
}

func TestRaceDetectsAnUpsert(t *testing.T) {
	tr := newRaceRig(t, &upsertingTokens{Tokens: memstore.NewTokens[uuid.UUID]()})
	for range rounds {
		if accepted, left := tr.race(); accepted != 0 || left != 0 {
			return
		}
	}
	t.Errorf("got no session back in %d rounds, want one at least", rounds)
}
