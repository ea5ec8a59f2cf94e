package latchkeytest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/latchkeytest"
	"github.com/latchkey-go/latchkey/strategy"
)

var scripts = latchkey.Config{APITokens: latchkey.APITokens{Scopes: []string{"hello:read", "hello:write"}}}

func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func wantCode(t testing.TB, what string, w *httptest.ResponseRecorder, want int) {
	t.Helper()
	if w.Code != want {
		t.Errorf("%s: got %d %s, want %d", what, w.Code, w.Body, want)
	}
}

func post(h http.Handler, path, contentType, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", path, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	return serve(h, r)
}

const (
	form = "application/x-www-form-urlencoded"
	json = "application/json"
)

// Each check of ginauth has its option, whatever carries the session.
func TestGuards(t *testing.T) {
	type options []latchkeytest.Option
	for _, c := range []struct {
		name string
		opts options
		// what the routes answer
		hello, verified, admin, fresh, script, everything int
	}{
		{"login", nil, 200, 403, 403, 200, 200, 403},
		{"verified", options{latchkeytest.Verified}, 200, 200, 403, 200, 200, 403},
		{"superuser", options{latchkeytest.Superuser}, 200, 403, 200, 200, 200, 403},
		{"every flag", options{latchkeytest.Verified, latchkeytest.Superuser, nil}, 200, 200, 200, 200, 200, 200},
		{"login of the last moment", options{latchkeytest.LoginAge(10 * time.Minute)}, 200, 403, 403, 200, 200, 403},
		{"old login", options{latchkeytest.LoginAge(10*time.Minute + time.Millisecond)}, 200, 403, 403, 401, 200, 403},
		{"token with the scope", options{latchkeytest.Scopes("hello:read")}, 403, 403, 403, 403, 200, 403},
		{"token with another scope", options{latchkeytest.Scopes("hello:write")}, 403, 403, 403, 403, 403, 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			kit := latchkeytest.New[Member](t, uuid.New, scripts)
			kit.Advance(48 * time.Hour) // the kit's clock is not the machine's
			ann := kit.NewUser(t, Member{Name: "Ann"})
			router := Router(kit.Latchkey)
			srv := httptest.NewTLSServer(router)
			defer srv.Close()
			login := kit.As(t, ann, c.opts...)
			client := login.Client(srv)
			ctx := latchkeytest.ContextAs(t, ann, c.opts...)
			kit.As(t, ann, latchkeytest.Verified, latchkeytest.Superuser) // changes no other login
			for path, want := range map[string]int{
				"/hello": c.hello, "/verified": c.verified, "/admin": c.admin, "/fresh": c.fresh, "/script": c.script, "/everything": c.everything,
			} {
				wantCode(t, "request "+path, serve(router, login.Request("GET", path, nil)), want)
				wantCode(t, "context "+path, serve(router, httptest.NewRequestWithContext(ctx, "GET", path, nil)), want)
				if code, body := get(t, client, srv.URL+path); code != want || want == 200 && body != "hello, Ann" {
					t.Errorf("client %s: got %d %s, want %d", path, code, body, want)
				}
			}
		})
	}
}

func get(t testing.TB, client *http.Client, url string) (code int, body string) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// A session in a context is no credential by itself, and it is that of one user type.
func TestGuardsIgnoreOtherContexts(t *testing.T) {
	kit := latchkeytest.New[Member](t, uuid.New, latchkey.Config{})
	ann := kit.NewUser(t, Member{Name: "Ann"})
	router := Router(kit.Latchkey)
	for name, ctx := range map[string]context.Context{
		"session without the kit": strategy.ContextWithSession(t.Context(), kit.As(t, ann).Session),
		"other user type":         latchkeytest.ContextAs(t, ann.User),
	} {
		wantCode(t, name, serve(router, httptest.NewRequestWithContext(ctx, "GET", "/hello", nil)), 401)
		w := serve(router, httptest.NewRequestWithContext(ctx, "GET", "/", nil))
		if w.Body.String() != "hello, visitor" && name == "other user type" {
			t.Errorf("%s: got %s, want a visitor", name, w.Body)
		}
	}
}

// The context is enough for code that asks it, and for an Auth whose database does not answer.
func TestContextNeedsNoKit(t *testing.T) {
	ctx := latchkeytest.ContextAs(t, Member{Name: "Ann"}, latchkeytest.Scopes("hello:read"))
	session, ok := strategy.SessionFromContext[Member](ctx)
	if !ok || session.User.Name != "Ann" || !session.User.Active || !session.HasScopes("hello:read") || session.HasScopes("hello:write") {
		t.Errorf("got %+v, %v, want Ann with a scope", session, ok)
	}
	sessions, err := strategy.NewDatabase(brokenTokens{}, brokenUsers{}, strategy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	auth, err := ginauth.New(sessions, nil, ginauth.Config{})
	if err != nil {
		t.Fatal(err)
	}
	r := gin.New()
	r.GET("/watch", auth.RequireUser(), func(c *gin.Context) {
		watched, stop := auth.Watch(c)
		defer stop()
		if watched.Err() != nil {
			auth.Refuse(c, context.Cause(watched))
		}
	})
	r.GET("/optional", auth.OptionalUser(), auth.RequireUser(ginauth.Fresh(0)), func(c *gin.Context) { c.Status(http.StatusNoContent) })
	auth.Routes(r)
	ctx = latchkeytest.ContextAs(t, Member{Name: "Ann"})
	request := func(method, path string) *httptest.ResponseRecorder {
		return serve(r, httptest.NewRequestWithContext(ctx, method, path, nil))
	}
	wantCode(t, "stacked guards", request("GET", "/optional"), 204)
	wantCode(t, "long-lived connection", request("GET", "/watch"), 200)
	wantCode(t, "sessions, which the store lists", request("GET", "/sessions"), 503)
}

var errBroken = errors.New("the database does not answer")

type brokenUsers struct{}

func (brokenUsers) ByID(context.Context, uuid.UUID) (Member, error) { return Member{}, errBroken }

type brokenTokens struct{ strategy.Store[uuid.UUID] }

func (brokenTokens) Retention() time.Duration { return 0 }

// An open answer ends soon after Advance, and not only with the application's WatchInterval.
func TestAdvanceEndsOpenAnswers(t *testing.T) {
	kit := latchkeytest.New[Member](t, uuid.New, latchkey.Config{Lifetime: time.Hour, WatchInterval: time.Hour})
	open := make(chan struct{})
	cause := make(chan error, 1)
	r := gin.New()
	r.GET("/watch", kit.Auth.RequireUser(), func(c *gin.Context) {
		watched, stop := kit.Auth.Watch(c)
		defer stop()
		close(open)
		<-watched.Done()
		cause <- context.Cause(watched)
	})
	login := kit.As(t, kit.NewUser(t, Member{Name: "Ann"}))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go serve(r, login.Request("GET", "/watch", nil).WithContext(ctx))
	<-open
	kit.Advance(time.Hour + time.Millisecond)
	if err := <-cause; !errors.Is(err, strategy.ErrSessionExpired) {
		t.Errorf("the open answer ended with %v, want %v", err, strategy.ErrSessionExpired)
	}
}

// The routes that need the token of a session have none in a context of ContextAs.
func TestContextHasNoToken(t *testing.T) {
	kit := latchkeytest.New[Member](t, uuid.New, latchkey.Config{})
	ann := kit.NewUser(t, Member{Name: "Ann"})
	login := kit.As(t, ann)
	router := Router(kit.Latchkey)
	request := func(method, path, contentType, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(latchkeytest.ContextAs(t, ann), method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		return serve(router, r)
	}
	wantCode(t, "log-out", request("POST", "/auth/logout", form, ""), 204)
	wantCode(t, "reauthenticate", request("POST", "/auth/reauthenticate", form, "password="+strings.ReplaceAll(latchkeytest.Password, " ", "+")), 401)
	wantCode(t, "own account", request("GET", "/users/me", "", ""), 200)
	wantCode(t, "a login of the user", serve(router, login.Request("GET", "/hello", nil)), 200)
}

// The log-out of a client, a request and a jar is that of the application.
func TestLoginsEnd(t *testing.T) {
	kit := latchkeytest.New[Member](t, uuid.New, latchkey.Config{Lifetime: time.Hour, IdleTimeout: 20 * time.Minute})
	ann := kit.NewUser(t, Member{Name: "Ann"})
	router := Router(kit.Latchkey)
	srv := httptest.NewTLSServer(router)
	defer srv.Close()

	client, request := kit.As(t, ann).Client(srv), kit.As(t, ann)
	resp, err := client.Post(srv.URL+"/web/logout", "", nil)
	if err != nil || resp.StatusCode != 204 {
		t.Fatalf("log-out of the client: got %v, %v", resp, err)
	}
	_ = resp.Body.Close()
	if code, _ := get(t, client, srv.URL+"/hello"); code != 401 {
		t.Errorf("client after its log-out: got %d, want 401", code)
	}
	wantCode(t, "another session", serve(router, request.Request("GET", "/hello", nil)), 200)
	wantCode(t, "log-out", serve(router, request.Request("POST", "/auth/logout", nil)), 204)
	wantCode(t, "after the log-out", serve(router, request.Request("GET", "/hello", nil)), 401)

	idle, used := kit.As(t, ann), kit.As(t, ann)
	for range 3 {
		kit.Advance(20 * time.Minute)
		wantCode(t, "session in use", serve(router, used.Request("GET", "/hello", nil)), 200)
	}
	wantCode(t, "idle session", serve(router, idle.Request("GET", "/hello", nil)), 401)
	kit.Advance(time.Millisecond)
	wantCode(t, "session older than its lifetime", serve(router, used.Request("GET", "/hello", nil)), 401)

	last := kit.As(t, ann)
	if err := kit.Accounts.Deactivate(t.Context(), ann.ID); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "deactivated user", serve(router, last.Request("GET", "/hello", nil)), 401)
}

// The kit has the application's settings.
func TestConfigIsInEffect(t *testing.T) {
	var events []event.Kind
	kit := latchkeytest.New[Member](t, uuid.New, latchkey.Config{
		Cookie: ginauth.Cookie{Name: "app", InsecureHTTP: true}, RequireVerified: true, TokenPrefix: "app_",
		APITokens: latchkey.APITokens{Scopes: []string{"hello:read"}, Prefix: "script_"}, MinPasswordLength: 60,
		OnEvent:   func(_ context.Context, e event.Event) { events = append(events, e.Kind) },
		OnRefusal: func(c *gin.Context, r *ginauth.Refusal) { c.String(r.Status, "our own page") },
	})
	ann := kit.NewUser(t, Member{Name: "Ann", User: account.User[uuid.UUID]{Email: "Ann@Example.com"}})
	if ann.Email != "ann@example.com" || ann.Verified || !ann.Active {
		t.Errorf("got the account %+v", ann)
	}
	if token := kit.As(t, ann).Token.Reveal(); !strings.HasPrefix(token, "app_") {
		t.Error("the access token has another prefix")
	}
	if token := kit.As(t, ann, latchkeytest.Scopes("hello:read")).Token.Reveal(); !strings.HasPrefix(token, "script_") {
		t.Error("the API token has another prefix")
	}
	router := Router(kit.Latchkey)
	login := "username=ann%40example.com&password=" + strings.ReplaceAll(latchkeytest.Password, " ", "+")
	wantCode(t, "login of a user who is not verified", post(router, "/auth/login", form, login), 400)
	verified := kit.As(t, ann, latchkeytest.Verified)
	wantCode(t, "login of a user who is not verified", post(router, "/auth/login", form, login), 400) // only As's login is
	if _, err := kit.Accounts.Update(t.Context(), ann.ID, account.Update{Verified: new(true)}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "login of a verified user", post(router, "/auth/login", form, login), 200)
	if w := serve(router, httptest.NewRequest("GET", "/hello", nil)); w.Code != 401 || w.Body.String() != "our own page" {
		t.Errorf("got %d %s, want the application's page", w.Code, w.Body)
	}
	srv := httptest.NewServer(router) // the cookie is not Secure
	defer srv.Close()
	if code, body := get(t, verified.Client(srv), srv.URL+"/verified"); code != 200 {
		t.Errorf("plain HTTP: got %d %s, want 200", code, body)
	}
	if len(events) == 0 || events[0] != event.AccountRegistered {
		t.Errorf("the application's listener got %v, want all events", events)
	}
	if err := errors.Join(kit.EnsureIndexes(t.Context()), kit.VerifyIndexes(t.Context()), kit.Ping(t.Context())); err != nil {
		t.Errorf("readiness: %v", err)
	}
	kit.Close() // as an application does at its end
}

func TestIDsOfTheApplication(t *testing.T) {
	type customer struct{ account.User[bson.ObjectID] }
	objects := latchkeytest.New[customer](t, bson.NewObjectID, latchkey.Config{})
	objects.As(t, objects.NewUser(t, customer{}))

	type row struct{ account.User[int64] }
	var next int64
	numbers := latchkeytest.New[row](t, func() int64 { next++; return next }, latchkey.Config{})
	first, second := numbers.NewUser(t, row{}), numbers.NewUser(t, row{})
	if first.ID != 1 || second.ID != 2 || first.Email == second.Email {
		t.Errorf("got %v and %v", first, second)
	}
	if got := numbers.As(t, second).Session; got.UserID != any(int64(2)) || got.User.ID != 2 {
		t.Errorf("got the session %+v", got.SessionInfo)
	}
	names := latchkeytest.New[account.User[string]](t, nil, latchkey.Config{})
	ann := names.NewUser(t, account.User[string]{ID: "ann"})
	names.As(t, ann)
}

func TestMail(t *testing.T) {
	var forwarded []account.Message
	failing := false
	kit := latchkeytest.New[Member](t, uuid.New, latchkey.Config{Mail: account.MailConfig{
		Workers: 1,
		Mailer: account.MailerFunc(func(_ context.Context, m account.Message) error {
			if failing {
				return errBroken
			}
			forwarded = append(forwarded, m)
			return nil
		}),
	}})
	router := Router(kit.Latchkey)
	ann := kit.NewUser(t, Member{Name: "Ann", User: account.User[uuid.UUID]{Email: "ann@example.com"}})
	if all := kit.Mail.All(); len(all) != 0 {
		t.Errorf("got the messages %v, want none", all)
	}
	ask := func(path string) {
		t.Helper()
		wantCode(t, path, post(router, path, json, `{"email":"ann@example.com"}`), 202)
	}
	token := func(page string) string {
		t.Helper()
		link := kit.Mail.LastLink(t, "Ann@EXAMPLE.com")
		token, ok := strings.CutPrefix(link, "https://example.com/"+page+"#token=")
		if !ok {
			t.Fatalf("the link does not lead to the page %s", page)
		}
		return token
	}
	ask("/auth/request-verify-token")
	wantCode(t, "verify", post(router, "/auth/verify", json, `{"token":"`+token("verify")+`"}`), 200)
	ask("/auth/forgot-password")
	wantCode(t, "reset", post(router, "/auth/reset-password", json, `{"token":"`+token("reset-password")+`","password":"battery staple"}`), 200)
	if got := kit.Mail.Last(t, "ann@example.com"); got.Kind != account.MessagePasswordChanged || got.User.(Member).ID != ann.ID {
		t.Errorf("got the last message %v, want the notice of the new password", got.Kind)
	}
	kit.Mail.Link = func(m account.Message) string { return "app://" + string(m.Kind) + "/" + m.Token.Reveal() }
	if link := kit.Mail.LastLink(t, "ann@example.com"); !strings.HasPrefix(link, "app://password_reset/lko_") {
		t.Error("the link is not that of Link")
	}
	failing = true
	ask("/auth/forgot-password")
	kit.Events.Want(t, event.MailFailed)
	if got := len(kit.Mail.All()); got != 3 || len(forwarded) != 3 {
		t.Errorf("got %d messages and %d of the application's Mailer, want the 3 that were sent", got, len(forwarded))
	}
}

func TestEvents(t *testing.T) {
	kit := latchkeytest.New[Member](t, uuid.New, latchkey.Config{})
	ann := kit.NewUser(t, Member{Name: "Ann"})
	router := Router(kit.Latchkey)
	login := kit.As(t, ann)
	kit.Events.None(t) // of NewUser and As

	wantCode(t, "wrong password", post(router, "/auth/login", form, "username="+ann.Email+"&password=wrong"), 400)
	if e := kit.Events.Want(t, event.LoginDenied); e.Reason != event.ReasonWrongPassword || e.UserID != any(ann.ID) || !e.Time.Equal(kit.Now()) {
		t.Errorf("got the event %+v", e)
	}
	wantCode(t, "forbidden", serve(router, login.Request("GET", "/admin", nil)), 403)
	wantCode(t, "no token", serve(router, httptest.NewRequest("GET", "/hello", nil)), 401)
	if e := kit.Events.Want(t, event.LoginDenied, event.AccessDenied); e.Reason != event.ReasonNoCredentials {
		t.Errorf("got the event %+v, want the last one", e)
	}
	kit.Events.Want(t, event.AccessDenied, event.AccessDenied)
	kit.Events.None(t, event.TokenIssued, event.LoginSucceeded)
	if got := len(kit.Events.All()); got != 3 {
		t.Errorf("got %d events, want 3", got)
	}
	kit.Events.Clear()
	kit.Events.None(t)
}

// A broken use ends the test, and says what to do.
func TestBrokenUses(t *testing.T) {
	type kit = latchkeytest.Kit[Member, uuid.UUID]
	use := func(cfg latchkey.Config, do func(t testing.TB, k *kit, ann Member)) func(testing.TB) {
		return func(t testing.TB) {
			k := latchkeytest.New[Member](t, uuid.New, cfg)
			do(t, k, k.NewUser(t, Member{Name: "Ann", User: account.User[uuid.UUID]{Email: "ann@example.com"}}))
		}
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	for _, c := range []struct {
		name string
		test func(testing.TB)
		want string // of the log
	}{
		{"invalid configuration", use(latchkey.Config{Lifetime: -1}, nil), "Config.Lifetime is negative"},
		{"API tokens with the prefix of sessions", use(latchkey.Config{APITokens: latchkey.APITokens{Scopes: []string{"a"}, Prefix: "lk_"}}, nil), "TokenPrefix"},
		{"user without an account", use(latchkey.Config{}, func(t testing.TB, k *kit, _ Member) {
			k.As(t, Member{Name: "Bob"})
		}), "NewUser"},
		{"user of another kit", use(latchkey.Config{}, func(t testing.TB, k *kit, _ Member) {
			k.As(t, latchkeytest.New[Member](t, uuid.New, latchkey.Config{}).NewUser(t, Member{}))
		}), "NewUser"},
		{"deleted user", use(latchkey.Config{}, func(t testing.TB, k *kit, ann Member) {
			if err := k.Accounts.Delete(t.Context(), ann.ID); err == nil {
				k.As(t, ann)
			}
		}), "NewUser"},
		{"inactive user", use(latchkey.Config{}, func(t testing.TB, k *kit, ann Member) {
			if err := k.Accounts.Deactivate(t.Context(), ann.ID); err == nil {
				k.As(t, ann)
			}
		}), "not active"},
		{"address twice", use(latchkey.Config{}, func(t testing.TB, k *kit, ann Member) {
			k.NewUser(t, Member{User: account.User[uuid.UUID]{Email: "ANN@example.com"}})
		}), "ANN@example.com"},
		{"no address", use(latchkey.Config{}, func(t testing.TB, k *kit, ann Member) {
			k.NewUser(t, Member{User: account.User[uuid.UUID]{Email: "ann"}})
		}), "address"},
		{"no scope", use(latchkey.Config{}, func(t testing.TB, k *kit, ann Member) {
			k.As(t, ann, latchkeytest.Scopes())
		}), "at least one scope"},
		{"cookie over plain HTTP", use(latchkey.Config{}, func(t testing.TB, k *kit, ann Member) {
			k.As(t, ann).Client(plain)
			k.As(t, ann).Jar("http://app.example.com")
		}), "http://app.example.com: use an https URL"},
		{"cookie of another domain", use(latchkey.Config{Cookie: ginauth.Cookie{Name: "app", Domain: "example.com"}}, func(t testing.TB, k *kit, ann Member) {
			k.As(t, ann).Jar("https://example.com")
			k.As(t, ann).Jar("https://example.org")
		}), "https://example.org"},
		{"no URL", use(latchkey.Config{}, func(t testing.TB, k *kit, ann Member) {
			k.As(t, ann).Jar("https://%")
		}), "invalid URL"},
		{"jar of an API token", use(scripts, func(t testing.TB, k *kit, ann Member) {
			k.As(t, ann, latchkeytest.Scopes("hello:read")).Jar("https://example.com")
		}), "use Request or Client"},
		{"server that was not started", use(latchkey.Config{}, func(t testing.TB, k *kit, ann Member) {
			k.As(t, ann).Client(httptest.NewUnstartedServer(nil))
		}), "not started"},
		{"no message", use(latchkey.Config{}, func(t testing.TB, k *kit, ann Member) {
			k.Mail.Last(t, "ann@example.com")
		}), "ann@example.com got no message; the messages, newest first: none"},
		{"message without a link", use(latchkey.Config{}, func(t testing.TB, k *kit, ann Member) {
			if _, err := k.Accounts.SetPassword(t.Context(), ann.ID, "a new password"); err == nil {
				k.Mail.LastLink(t, "ann@example.com")
			}
		}), "password_changed to ann@example.com"},
		{"events in another order", use(latchkey.Config{}, func(t testing.TB, k *kit, ann Member) {
			if _, err := k.Accounts.SetPassword(t.Context(), ann.ID, "a new password"); err == nil {
				k.Events.Want(t, event.MailSent, event.PasswordChanged)
			}
		}), `want the events ["mail.sent" "account.password_changed"]`},
		{"no event", use(latchkey.Config{}, func(t testing.TB, k *kit, ann Member) {
			k.Events.Want(t, event.TokenIssued)
		}), "got: none"},
		{"unwanted event", use(latchkey.Config{}, func(t testing.TB, k *kit, ann Member) {
			if err := k.Accounts.Deactivate(t.Context(), ann.ID); err == nil {
				k.Events.None(t, event.TokenIssued)
				k.Events.None(t, event.AccountChanged)
			}
		}), "want no event account.changed"},
		{"failed test shows its events", use(latchkey.Config{}, func(t testing.TB, k *kit, ann Member) {
			if _, err := k.Accounts.Update(t.Context(), ann.ID, account.Update{Verified: new(true)}); err == nil {
				t.Errorf("a failure of the application's test")
			}
		}), "the events were:\n\taccount.changed user="},
	} {
		t.Run(c.name, func(t *testing.T) {
			failed, log := run(c.test)
			if !failed || !strings.Contains(log, c.want) {
				t.Errorf("got failed: %v, %q, want a failure with %q", failed, log, c.want)
			}
		})
	}
	if failed, log := run(use(latchkey.Config{}, func(testing.TB, *kit, Member) {})); failed || log != "" {
		t.Errorf("proper use: got failed: %v, %q", failed, log)
	}
}

func TestNilTestIsRefused(t *testing.T) {
	for name, do := range map[string]func(){
		"New":       func() { latchkeytest.New[Member](nil, uuid.New, latchkey.Config{}) },
		"ContextAs": func() { latchkeytest.ContextAs(nil, Member{}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s(nil) did not panic", name)
				}
			}()
			do()
		}()
	}
}

// A program that "go build" has built gets nothing from the kit, and its guards do not look for a
// session of the kit, even if the program has the value.
func TestKitWorksOnlyInTests(t *testing.T) {
	program := filepath.Join(t.TempDir(), "outside")
	if out, err := exec.Command("go", "build", "-o", program, "./testdata/outside").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(program).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, function := range []string{"New", "ContextAs", "NewUser", "As"} {
		if !bytes.Contains(out, []byte(function+": latchkeytest: it works only in programs that")) {
			t.Errorf("%s is not refused", function)
		}
	}
	if !bytes.Contains(out, []byte("guard: 401")) {
		t.Error("the guard admitted the context")
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

// The kit ends with its test: a goroutine that is left in the bubble fails the test.
func TestNoGoroutineIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kit := latchkeytest.New[Member](t, uuid.New, latchkey.Config{Cache: strategy.Cache{MaxStaleness: 30 * time.Second}})
		ann := kit.NewUser(t, Member{Name: "Ann"})
		router := Router(kit.Latchkey)
		login := kit.As(t, ann)
		wantCode(t, "cached session", serve(router, login.Request("GET", "/hello", nil)), 200)
		wantCode(t, "cached session", serve(router, login.Request("GET", "/hello", nil)), 200)
		wantCode(t, "message", post(router, "/auth/request-verify-token", json, `{"email":"`+ann.Email+`"}`), 202)
		if kit.Mail.LastLink(t, ann.Email) == "" {
			t.Error("got no link")
		}
		if err := kit.Accounts.RevokeTokens(t.Context(), ann.ID); err != nil {
			t.Fatal(err)
		}
		wantCode(t, "revoked session", serve(router, login.Request("GET", "/hello", nil)), 401)
	})
}

// Subtests can share a kit and run in parallel.
func TestConcurrentUse(t *testing.T) {
	kit := latchkeytest.New[Member](t, uuid.New, latchkey.Config{})
	router := Router(kit.Latchkey)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			user := kit.NewUser(t, Member{Name: "Ann"})
			login := kit.As(t, user, latchkeytest.Verified)
			for range 20 {
				kit.Advance(time.Millisecond)
				wantCode(t, "request", serve(router, login.Request("GET", "/verified", nil)), 200)
			}
			wantCode(t, "message", post(router, "/auth/forgot-password", json, `{"email":"`+user.Email+`"}`), 202)
			kit.Mail.LastLink(t, user.Email)
			kit.Events.Want(t, event.PasswordResetRequested)
		})
	}
	wg.Wait()
}
