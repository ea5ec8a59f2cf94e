package ginauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// withAccounts returns an Auth with the routes of accounts, and an engine that serves them.
func (h *rig) withAccounts(t *testing.T, cfg ginauth.Config, hooks ginauth.Hooks[member]) *gin.Engine {
	t.Helper()
	auth, err := ginauth.WithAccounts(h.auth(t, cfg), h.accounts)
	must(t, err)
	return accountEngine(auth.WithHooks(hooks))
}

func accountEngine(auth *ginauth.Auth[member]) *gin.Engine {
	r := gin.New()
	auth.RegisterRoutes(r)
	auth.VerifyRoutes(r)
	auth.ResetPasswordRoutes(r)
	auth.UserRoutes(r.Group("/users"))
	return r
}

const signUp = `{"email":"new@example.com","password":"a good long password"}`

// A mistake in the wiring is an event that names the remedy, and 503.
func TestAccountRoutesThatCannotWork(t *testing.T) {
	var heard []event.Event
	cfg := ginauth.Config{OnEvent: func(_ context.Context, e event.Event) { heard = append(heard, e) }}
	h := newRig(t)
	login := h.token(t)
	without, noMailer := accountEngine(h.auth(t, cfg)), h.withAccounts(t, cfg, ginauth.Hooks[member]{})
	concealed := cfg
	concealed.Accounts.ConcealTaken = true
	strange := h.withAccounts(t, cfg, ginauth.Hooks[member]{View: func(member) map[string]any { return map[string]any{"x": math.NaN()} }})
	failing := h.withAccounts(t, cfg, ginauth.Hooks[member]{Patch: func(context.Context, *member, *ginauth.Body) error { return errDown }})
	for _, c := range []struct {
		name         string
		r            *gin.Engine
		method, path string
		content      string
		remedy       string
	}{
		{"no WithAccounts", without, "POST", "/register", signUp, "WithAccounts"},
		{"no WithAccounts", without, "GET", "/users/me", "", "WithAccounts"},
		{"no Mailer", noMailer, "POST", "/request-verify-token", `{"email":"a@example.com"}`, "Mailer"},
		{"no Mailer", noMailer, "POST", "/forgot-password", `{"email":"a@example.com"}`, "Mailer"},
		{"no Mailer", noMailer, "PATCH", "/users/me", `{"email":"a@example.com"}`, "Mailer"},
		{"no Mailer", h.withAccounts(t, concealed, ginauth.Hooks[member]{}), "POST", "/register", signUp, "Mailer"},
		{"a view that is no JSON", strange, "GET", "/users/me", "", "View"},
		{"a hook that fails", failing, "PATCH", "/users/me", `{}`, errDown.Error()},
	} {
		heard = nil
		w := request(c.r, c.method, c.path, inHeader(login), body(c.content))
		wantCode(t, c.name+" "+c.path, w, 503)
		if len(heard) != 1 || heard[0].Kind != event.StoreFailed || !strings.Contains(heard[0].Err.Error(), c.remedy) {
			t.Errorf("%s %s: got the events %v, want one that names %s", c.name, c.path, heard, c.remedy)
		}
	}
	if _, err := ginauth.WithAccounts(h.auth(t, cfg), (*account.Manager[member, uuid.UUID])(nil)); err == nil {
		t.Error("a nil Manager: got no error")
	}
}

// A hook's error is answered as Refuse answers it.
func TestErrorsOfHooksAreAnswered(t *testing.T) {
	h := newRig(t)
	r := h.withAccounts(t, ginauth.Config{}, ginauth.Hooks[member]{
		Register: func(context.Context, *member, *ginauth.Body) error {
			return errors.Join(account.ErrTooManyAttempts, &account.TooManyAttemptsError{})
		},
	})
	wantCode(t, "register", request(r, "POST", "/register", body(signUp)), 429)
}

func TestBody(t *testing.T) {
	type inner struct{ A []int }
	var got struct {
		Text   string
		Number int
		Flag   bool
		Inner  inner
		Left   string
	}
	got.Left, got.Number = "left", 7
	h := newRig(t)
	r := h.withAccounts(t, ginauth.Config{}, ginauth.Hooks[member]{Register: func(_ context.Context, _ *member, b *ginauth.Body) error {
		for name, want := range map[string]bool{"text": true, "missing": false, "none": false} {
			if b.Has(name) != want {
				t.Errorf("Has(%s) is not %v", name, want)
			}
		}
		if !b.Decode("text", &got.Text) || b.Decode("missing", &got.Left) || b.Decode("none", &got.Left) || b.Decode("flag", &got.Number) ||
			b.Decode("half", &got.Inner) || b.Decode("big", &got.Number) || !b.Require("yes", &got.Flag) || b.Require("absent", &got.Left) {
			t.Error("Decode or Require reports the wrong thing")
		}
		b.Invalid("text", "too_odd", "Odd")
		b.Invalid("text", "too_long", "Long")
		return nil
	}})
	w := request(r, "POST", "/register", body(`{"email":"new@example.com","password":"a good long password","text":"x","none":null,"flag":true,"yes":true,"half":{"A":[1,"x"]},"big":1e30}`))
	wantCode(t, "register", w, 422)
	if got.Text != "x" || got.Left != "left" || got.Number != 7 || !got.Flag || got.Inner.A != nil {
		t.Errorf("got %+v", got)
	}
	var detail struct{ Detail []ginauth.FieldError }
	must(t, json.Unmarshal(w.Body.Bytes(), &detail))
	var kinds []string
	for _, e := range detail.Detail {
		kinds = append(kinds, e.Loc[1]+" "+e.Type)
	}
	if want := "flag int_type, half int_type, big int_type, absent missing, text too_odd"; strings.Join(kinds, ", ") != want {
		t.Errorf("got the errors %v, want %s", kinds, want)
	}
}

// userOf is a user with IDs of a type.
type userOf[ID comparable] struct {
	account.User[ID]
}

type opaque struct{ a, b int }

func TestIDsInPaths(t *testing.T) {
	objectID, id := bson.NewObjectID(), uuid.New()
	testIDs(t, "ann", map[string]bool{"ann": true, "bob": false, "ANN": false})
	testIDs(t, int64(-7), map[string]bool{"-7": true, "7": false, "-07": false, "x": false, "99999999999999999999": false, "0": false})
	testIDs(t, uint32(7), map[string]bool{"7": true, "-7": false, "+7": false, "07": false, "4294967303": false})
	testIDs(t, objectID, map[string]bool{objectID.Hex(): true, strings.ToUpper(objectID.Hex()): true, "x": false, objectID.Hex() + "0": false})
	testIDs(t, id, map[string]bool{id.String(): true, "urn:uuid:" + id.String(): false, uuid.Nil.String(): false})
	users := memstore.NewUsers[userOf[opaque]]()
	attempts, err := memstore.NewAttempts(0)
	must(t, err)
	m, err := account.NewManager(users, nil, attempts, func() opaque { return opaque{1, 2} }, account.Config{})
	must(t, err)
	sessions, err := strategy.NewDatabase(memstore.NewTokens[opaque](), users, strategy.Config{})
	must(t, err)
	auth, err := ginauth.New(sessions, m, ginauth.Config{})
	must(t, err)
	if _, err := ginauth.WithAccounts(auth, m); err == nil || !strings.Contains(err.Error(), "UnmarshalText") {
		t.Errorf("an ID that has no text: got %v, want an error that names UnmarshalText", err)
	}
}

// testIDs serves an account with an ID, and asks for it by paths.
func testIDs[ID comparable](t *testing.T, id ID, paths map[string]bool) {
	t.Helper()
	users := memstore.NewUsers[userOf[ID]]()
	attempts, err := memstore.NewAttempts(0)
	must(t, err)
	m, err := account.NewManager(users, nil, attempts, nil, account.Config{})
	must(t, err)
	admin, err := m.CreateWithHash(t.Context(), userOf[ID]{account.User[ID]{ID: id, Email: "ann@example.com", Active: true, Superuser: true}}, account.PasswordHash{})
	must(t, err)
	sessions, err := strategy.NewDatabase(memstore.NewTokens[ID](), users, strategy.Config{})
	must(t, err)
	auth, err := ginauth.New(sessions, m, ginauth.Config{})
	must(t, err)
	auth, err = ginauth.WithAccounts(auth, m)
	must(t, err)
	secret, _, err := sessions.WriteToken(t.Context(), admin)
	must(t, err)
	r := gin.New()
	auth.UserRoutes(r.Group("/users"))
	for path, found := range paths {
		want := 404
		if found {
			want = 200
		}
		wantCode(t, path, request(r, "GET", "/users/"+path, inHeader(secret.Reveal())), want)
	}
}

// No body makes a route of accounts panic, or change what it must not.
func FuzzAccountBodies(f *testing.F) {
	for _, content := range []string{signUp, `{"email":{"$ne":null}}`, `{"name":"x","is_superuser":true}`, `{"email":"a@b","email":"c@d"}`, `[[[[`, `{"password":null}`, "\xff", `{"id":1e400}`} {
		f.Add(content)
	}
	h := newRig(f)
	auth, err := ginauth.WithAccounts(h.auth(f, ginauth.Config{}), h.accounts)
	if err != nil {
		f.Fatal(err)
	}
	r := accountEngine(auth.WithHooks(ginauth.Hooks[member]{Patch: func(_ context.Context, m *member, b *ginauth.Body) error {
		b.Decode("is_superuser", &m.Superuser)
		b.Decode("id", &m.ID)
		return nil
	}}))
	secret, _, err := h.sessions.WriteToken(context.Background(), h.ann)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, content string) {
		for _, path := range []string{"/register", "/verify", "/reset-password", "/forgot-password"} {
			if w := request(r, "POST", path, body(content)); w.Code >= 500 && w.Code != 503 {
				t.Fatalf("POST %s: got %d", path, w.Code)
			}
		}
		if strings.Contains(content, "password") {
			return // it may end the session
		}
		w := request(r, "PATCH", "/users/me", inHeader(secret.Reveal()), body(content))
		if user, err := h.users.ByID(t.Context(), h.ann.ID); err != nil || user.Superuser || user.Email != h.ann.Email {
			t.Fatalf("PATCH answered %d; stored %+v, %v", w.Code, user, err)
		}
	})
}

// Whatever the mail server does, the routes answer the same at once, the queue is bounded, and
// Close ends within its bound. Time is virtual.
func TestRoutesDoNotWaitForTheMailServer(t *testing.T) {
	for name, send := range map[string]func(ctx context.Context) error{
		"up":       func(context.Context) error { return nil },
		"refusing": func(context.Context) error { return errDown },
		"hanging":  func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"broken":   func(context.Context) error { panic("broken") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const queue, requests = 100, 1000
				h := newRig(t)
				attempts, err := memstore.NewAttempts(0)
				must(t, err)
				var failed atomic.Int64
				h.accounts, err = account.NewManager(h.users, memstore.NewOneTimeTokens[uuid.UUID](), attempts, uuid.New, account.Config{
					Mail: account.MailConfig{
						Mailer: account.MailerFunc(func(ctx context.Context, _ account.Message) error { return send(ctx) }),
						Queue:  queue, Drain: 10 * time.Second, PerAddress: 2 * requests, PerNetwork: 2 * requests,
					},
					OnEvent: func(_ context.Context, e event.Event) {
						if e.Kind == event.MailFailed {
							failed.Add(1)
						}
					},
				}, h.sessions)
				must(t, err)
				auth, err := ginauth.WithAccounts(h.auth(t, ginauth.Config{}), h.accounts)
				must(t, err)
				r := accountEngine(auth)
				begin := time.Now()
				for i := range requests {
					path := []string{"/request-verify-token", "/forgot-password"}[i%2]
					if w := request(r, "POST", path, body(`{"email":"ann@example.com"}`)); w.Code != 202 || w.Body.String() != "null" {
						t.Fatalf("%s answered %d %s, want 202 null", path, w.Code, w.Body)
					}
				}
				if took := time.Since(begin); took > 0 {
					t.Errorf("the requests waited for %v, want 0", took)
				}
				begin = time.Now()
				h.accounts.Close()
				if took := time.Since(begin); took > 11*time.Second {
					t.Errorf("Close took %v, want at most Drain", took)
				}
				switch n := failed.Load(); {
				case name == "up" && n > requests-queue, name != "up" && n != requests:
					t.Errorf("got %d events of messages that were not sent", n)
				}
			})
		})
	}
}
