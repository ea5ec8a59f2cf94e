package ginauth_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// stalling is a database that answers the first calls of an operation, and stalls from then
// on: calls wait until their context ends, or for the bound of a store, 3 seconds, if it has no
// deadline.
type stalling struct {
	latency time.Duration // of the calls that are answered
	mu      sync.Mutex
	answers int // the calls that are answered; negative: all
	calls   int
}

// arm begins an operation whose first calls are answered.
func (s *stalling) arm(answers int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers, s.calls = answers, 0
}

// disarm ends it, and returns the number of its calls.
func (s *stalling) disarm() (calls int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = -1
	return s.calls
}

// call is made by each method of the stores.
func (s *stalling) call(ctx context.Context) error {
	s.mu.Lock()
	s.calls++
	stall := s.answers >= 0 && s.calls > s.answers
	s.mu.Unlock()
	wait := s.latency
	if stall {
		wait = 3 * time.Second
	}
	select {
	case <-ctx.Done():
	case <-time.After(wait): // virtual
	}
	if stall && ctx.Err() == nil {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

type stallingTokens struct {
	*memstore.Tokens[uuid.UUID]
	*stalling
}

type row = strategy.AccessToken[uuid.UUID]

func (s stallingTokens) Insert(ctx context.Context, token row) error {
	if err := s.call(ctx); err != nil {
		_ = s.Tokens.Insert(context.Background(), token) // done, but not answered
		return err
	}
	return s.Tokens.Insert(ctx, token)
}

func (s stallingTokens) ByToken(ctx context.Context, digest string) (row, error) {
	if err := s.call(ctx); err != nil {
		return row{}, err
	}
	return s.Tokens.ByToken(ctx, digest)
}

func (s stallingTokens) Touch(ctx context.Context, digest string, at time.Time) error {
	if err := s.call(ctx); err != nil {
		return err
	}
	return s.Tokens.Touch(ctx, digest, at)
}

func (s stallingTokens) Rotate(ctx context.Context, digest string, to strategy.Rotation) (row, error) {
	if err := s.call(ctx); err != nil {
		return row{}, err
	}
	return s.Tokens.Rotate(ctx, digest, to)
}

func (s stallingTokens) ByUser(ctx context.Context, id uuid.UUID, after strategy.Position, limit int) ([]row, error) {
	if err := s.call(ctx); err != nil {
		return nil, err
	}
	return s.Tokens.ByUser(ctx, id, after, limit)
}

func (s stallingTokens) Delete(ctx context.Context, digest string) (row, error) {
	if err := s.call(ctx); err != nil {
		return row{}, err
	}
	return s.Tokens.Delete(ctx, digest)
}

func (s stallingTokens) DeleteSession(ctx context.Context, user, id uuid.UUID) (row, error) {
	if err := s.call(ctx); err != nil {
		return row{}, err
	}
	return s.Tokens.DeleteSession(ctx, user, id)
}

func (s stallingTokens) DeleteByUser(ctx context.Context, id uuid.UUID, except ...uuid.UUID) (int64, error) {
	if err := s.call(ctx); err != nil {
		return 0, err
	}
	return s.Tokens.DeleteByUser(ctx, id, except...)
}

type stallingUsers struct {
	*memstore.Users[member, uuid.UUID]
	*stalling
}

func (s stallingUsers) ByID(ctx context.Context, id uuid.UUID) (member, error) {
	if err := s.call(ctx); err != nil {
		return member{}, err
	}
	return s.Users.ByID(ctx, id)
}

func (s stallingUsers) ByEmail(ctx context.Context, email string) (member, error) {
	if err := s.call(ctx); err != nil {
		return member{}, err
	}
	return s.Users.ByEmail(ctx, email)
}

type stallingAttempts struct {
	*memstore.Attempts
	*stalling
}

func (s stallingAttempts) Counters(ctx context.Context, now time.Time, keys ...string) ([]account.AttemptCounter, error) {
	if err := s.call(ctx); err != nil {
		return nil, err
	}
	return s.Attempts.Counters(ctx, now, keys...)
}

func (s stallingAttempts) Add(ctx context.Context, key string, now, expires time.Time, postpone bool) (account.AttemptCounter, error) {
	if err := s.call(ctx); err != nil {
		return account.AttemptCounter{}, err
	}
	return s.Attempts.Add(ctx, key, now, expires, postpone)
}

func (s stallingAttempts) Withdraw(ctx context.Context, now time.Time, key string, n int) error {
	if err := s.call(ctx); err != nil {
		return err
	}
	return s.Attempts.Withdraw(ctx, now, key, n)
}

func (s stallingAttempts) Clear(ctx context.Context, key string) error {
	if err := s.call(ctx); err != nil {
		return err
	}
	return s.Attempts.Clear(ctx, key)
}

func (s stallingAttempts) Remember(ctx context.Context, key string, now, expires time.Time) error {
	if err := s.call(ctx); err != nil {
		return err
	}
	return s.Attempts.Remember(ctx, key, now, expires)
}

// newStallingRig is newRig on a database that stalls.
func newStallingRig(t *testing.T) (*rig, *ginauth.Auth[member], *stalling) {
	t.Helper()
	s := &stalling{answers: -1}
	h := &rig{users: memstore.NewUsers[member]()}
	users := stallingUsers{h.users, s}
	attempts, err := memstore.NewAttempts(0)
	if err != nil {
		t.Fatal(err)
	}
	h.sessions, err = strategy.NewDatabase(stallingTokens{memstore.NewTokens[uuid.UUID](), s}, users, strategy.Config{
		Lifetime: time.Hour, IdleTimeout: 30 * time.Minute, TouchInterval: time.Nanosecond, MaxSessions: 3,
	})
	if err != nil {
		t.Fatal(err)
	}
	h.accounts, err = account.NewManager(users, nil, stallingAttempts{attempts, s}, uuid.New, account.Config{
		Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true,
	}, h.sessions)
	if err != nil {
		t.Fatal(err)
	}
	if h.ann, err = h.accounts.Create(t.Context(), member{Email: "ann@example.com", Active: true}, password); err != nil {
		t.Fatal(err)
	}
	return h, h.auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}}}), s
}

// stallingRoutes are the routes of a rig whose database stalls, and handlers with the methods
// of an Auth.
func stallingRoutes(t *testing.T, h *rig, auth *ginauth.Auth[member], s *stalling) *gin.Engine {
	t.Helper()
	web, err := auth.AnswerLoginsWith(ginauth.Cookie{})
	if err != nil {
		t.Fatal(err)
	}
	r := gin.New()
	auth.Routes(r.Group("/api"))
	web.Routes(r.Group("/web"))
	check := auth.CheckUser(func(ctx context.Context, session strategy.Session[member]) (bool, error) {
		own, ok := strategy.SessionFromContext[member](ctx)
		return ok && own.ID == session.ID, s.call(ctx)
	})
	if err := auth.Introspection(r, check); err != nil {
		t.Fatal(err)
	}
	unbounded := func(c *gin.Context) {
		if at, ok := c.Request.Context().Deadline(); ok || c.Request.Context().Err() != nil {
			t.Errorf("the handler's context ends at %v (%v), want no deadline", at, c.Request.Context().Err())
		}
		c.Status(http.StatusOK)
	}
	r.GET("/me", auth.RequireUser(), auth.RequireUser(ginauth.Fresh(time.Hour)), unbounded)
	r.GET("/optional", auth.OptionalUser(), unbounded)
	r.GET("/check", auth.RequireUser(check), unbounded)
	// method serves a method of an Auth, which does its part of the operation alone.
	method := func(call func(*gin.Context) (ginauth.Issued[member], error)) gin.HandlerFunc {
		return func(c *gin.Context) {
			issued, err := call(c)
			if err != nil {
				auth.Refuse(c, err)
				return
			}
			auth.Answer(c, issued)
		}
	}
	r.POST("/login", method(func(c *gin.Context) (ginauth.Issued[member], error) {
		return web.LoginWithPassword(c, "ann@example.com", password, false)
	}))
	r.POST("/callback", method(func(c *gin.Context) (ginauth.Issued[member], error) { return web.LoginCrossOrigin(c, h.ann) }))
	r.POST("/signup", method(func(c *gin.Context) (ginauth.Issued[member], error) { return web.Login(c, h.ann) }))
	return r
}

// With the database away, nobody waits longer than Config.Timeout, by default 3 seconds,
// however many calls an operation makes.
func TestOneTimeBoundHoldsForAWholeOperation(t *testing.T) {
	form := "username=ann@example.com&password=" + password
	for _, c := range []struct{ name, method, path, body string }{
		{"a guard", "GET", "/me", ""},
		{"an optional guard", "GET", "/optional", ""},
		{"a guard with a check of the application", "GET", "/check", ""},
		{"login", "POST", "/api/login", form},
		{"login for a cookie", "POST", "/web/login", form},
		{"LoginWithPassword", "POST", "/login", ""},
		{"Login", "POST", "/signup", ""},
		{"LoginCrossOrigin", "POST", "/callback", ""},
		{"logout", "POST", "/api/logout", ""},
		{"logout everywhere", "POST", "/api/logout-all", ""},
		{"the list of sessions", "GET", "/api/sessions", ""},
		{"the end of a session", "DELETE", "/api/sessions/" + uuid.NewString(), ""},
		{"reauthentication", "POST", "/api/reauthenticate", "password=" + password},
		{"introspection", "POST", "/introspect", "token=TOKEN"},
	} {
		for _, latency := range []time.Duration{0, 400 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s, %v a call", c.name, latency), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h, auth, s := newStallingRig(t)
					r := stallingRoutes(t, h, auth, s)
					s.latency = latency
					failed := 0
					for answers := 0; ; answers++ {
						token := h.token(t)
						req := httptest.NewRequest(c.method, c.path, strings.NewReader(strings.ReplaceAll(c.body, "TOKEN", token)))
						req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
						req.Header.Set("Authorization", "Bearer "+token)
						w := httptest.NewRecorder()
						s.arm(answers)
						began := time.Now()
						r.ServeHTTP(w, req)
						took := time.Since(began)
						t.Log(answers, took, w.Code)
						if took > 3*time.Second {
							t.Errorf("stalling after %d calls: the answer took %v, want at most 3s", answers, took)
						}
						switch {
						case w.Code == http.StatusServiceUnavailable:
							failed++
						case w.Code >= 400 && w.Code != http.StatusNotFound: // 404: there is no such session
							t.Errorf("stalling after %d calls: got %d %s, want a success or 503", answers, w.Code, w.Body)
						}
						calls := s.disarm()
						time.Sleep(time.Minute) // virtual: what goes on behind the answer ends
						if calls <= answers {
							break
						}
					}
					if failed == 0 {
						t.Error("no answer was 503")
					}
				})
			})
		}
	}
}
