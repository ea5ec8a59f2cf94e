package oidc_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/contrib/oidc"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/internal/oidctest"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

func init() { gin.SetMode(gin.TestMode) }

// member is the user of an application.
type member struct {
	account.User[uuid.UUID]
	Name string
}

const (
	app      = "https://app.example.com"
	password = "correct-horse-battery"
	cookie   = "__Host-latchkey-oauth"
)

var ann = oidctest.User{Subject: "248289761001", Email: "ann@example.com", EmailVerified: true}

// rig is an application with logins through a provider.
type rig struct {
	*oidc.Logins[member, uuid.UUID]
	idp      *oidctest.Provider
	auth     *ginauth.Auth[member]
	accounts *account.Manager[member, uuid.UUID]
	users    *faultyUsers
	links    *faultyLinks
	engine   *gin.Engine
	resets   chan string // the tokens of resets

	mu     sync.Mutex
	ahead  time.Duration // of the application's clock
	events []event.Event
}

// setup changes a rig before it is made.
type setup struct {
	config  func(*oidc.Config[member])
	auth    ginauth.Config
	bearer  bool // logins are answered with a bearer token
	mail    bool // the accounts have a Mailer
	another *oidctest.Provider
	hook    bool // a hook refuses, which is not described
}

func newRig(t testing.TB, with setup) *rig {
	t.Helper()
	r := &rig{idp: oidctest.New(t, ann), users: &faultyUsers{Users: memstore.NewUsers[member]()}, links: newFaultyLinks()}
	r.idp.Now = r.now
	sessions, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), r.users, strategy.Config{Now: r.now, OnEvent: r.record})
	if err != nil {
		t.Fatal(err)
	}
	accounts := account.Config{
		Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true, InsecureNoLimiter: true, Now: r.now, OnEvent: r.record,
	}
	var oneTime account.OneTimeTokenStore[uuid.UUID]
	if with.mail {
		r.resets, oneTime = make(chan string, 1), memstore.NewOneTimeTokens[uuid.UUID]()
		accounts.Mail.Mailer = account.MailerFunc(func(_ context.Context, m account.Message) error {
			if m.Kind == account.MessagePasswordReset {
				r.resets <- m.Token.Reveal()
			}
			return nil
		})
	}
	if r.accounts, err = account.NewManager(r.users, oneTime, nil, uuid.New, accounts, sessions); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.accounts.Close)
	with.auth.Transports = []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}}
	with.auth.Now, with.auth.OnEvent = r.now, r.record
	if r.auth, err = ginauth.New(sessions, r.accounts, with.auth); err != nil {
		t.Fatal(err)
	}
	if r.auth, err = ginauth.WithAccounts(r.auth, r.accounts); err != nil {
		t.Fatal(err)
	}
	if !with.bearer {
		if r.auth, err = r.auth.AnswerLoginsWith(ginauth.Cookie{}); err != nil {
			t.Fatal(err)
		}
	}
	cfg := oidc.Config[member]{
		Providers: []oidc.Provider{providerOf("idp", r.idp)}, Now: r.now, OnEvent: r.record,
		NewUser: func(_ context.Context, id oidc.Identity) (member, error) { return member{Name: id.Subject}, nil },
	}
	if !with.bearer {
		cfg.RedirectPaths = []string{"/", "/account?tab=1"}
	}
	if with.another != nil {
		cfg.Providers = append(cfg.Providers, providerOf("other", with.another))
	}
	if with.config != nil {
		with.config(&cfg)
	}
	if r.Logins, err = oidc.New(r.auth, r.accounts, r.links, cfg); err != nil {
		t.Fatal(err)
	}
	r.engine = gin.New()
	if !with.hook {
		r.engine.Use(r.described(t))
	}
	r.auth.Routes(r.engine.Group("/auth"))
	r.auth.UserRoutes(r.engine.Group("/users"))
	r.Routes(r.engine.Group("/auth"))
	r.AssociateRoutes(r.engine.Group("/auth/associate"))
	return r
}

// providerOf returns the configuration for a provider.
func providerOf(name string, idp *oidctest.Provider) oidc.Provider {
	return oidc.Provider{
		Name: name, Issuer: idp.Issuer, ClientID: oidctest.ClientID, ClientSecret: strategy.NewSecret(oidctest.ClientSecret),
		RedirectURL: app + "/auth/" + name + "/callback", AssociateURL: app + "/auth/associate/" + name + "/callback",
	}
}

func (r *rig) now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Add(r.ahead)
}

func (r *rig) sleep(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ahead += d
}

func (r *rig) record(_ context.Context, e event.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// heard returns the kinds and reasons of the events since the last call.
func (r *rig) heard() (kinds []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		kinds = append(kinds, strings.TrimSpace(string(e.Kind)+" "+string(e.Reason)))
	}
	r.events = nil
	return kinds
}

// wantEvents fails unless these events were heard, in this order, besides those of sessions.
func (r *rig) wantEvents(t *testing.T, want ...string) {
	t.Helper()
	got := slices.DeleteFunc(r.heard(), func(kind string) bool { return strings.HasPrefix(kind, "token") })
	if !slices.Equal(got, want) {
		t.Errorf("got the events %q, want %q", got, want)
	}
}

// register makes an account with a password.
func (r *rig) register(t *testing.T, email string, change func(*member)) member {
	t.Helper()
	user := member{User: account.User[uuid.UUID]{Email: email, Active: true, Verified: true}}
	if change != nil {
		change(&user)
	}
	user, err := r.accounts.Create(t.Context(), user, password)
	if err != nil {
		t.Fatal(err)
	}
	r.heard()
	return user
}

// browser keeps cookies.
type browser struct {
	t       *testing.T
	r       *rig
	cookies map[string]string
	bearer  string
	header  http.Header
}

func (r *rig) browser(t *testing.T) *browser {
	return &browser{t: t, r: r, cookies: make(map[string]string), header: make(http.Header)}
}

// do sends a request to the application.
func (b *browser) do(method, target string, body ...string) *httptest.ResponseRecorder {
	b.t.Helper()
	req := httptest.NewRequest(method, target, strings.NewReader(strings.Join(body, "")))
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for name, value := range b.cookies {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	for name, values := range b.header {
		req.Header[name] = values
	}
	if b.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+b.bearer)
	}
	w := httptest.NewRecorder()
	b.r.engine.ServeHTTP(w, req)
	for _, c := range w.Result().Cookies() {
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		} else {
			b.cookies[c.Name] = c.Value
		}
	}
	return w
}

func (b *browser) get(target string) *httptest.ResponseRecorder {
	b.t.Helper()
	return b.do("GET", target)
}

// logIn logs in with the password.
func (b *browser) logIn(email string) {
	b.t.Helper()
	w := b.do("POST", "/auth/login", url.Values{"username": {email}, "password": {password}}.Encode())
	if w.Code != 204 {
		b.t.Fatalf("log in: got %d %s, want 204", w.Code, w.Body)
	}
	b.r.heard()
}

// begin calls authorize and returns where the browser has to go.
func (b *browser) begin(target string) string {
	b.t.Helper()
	w := b.get(target)
	var body struct {
		URL string `json:"authorization_url"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &body); w.Code != 200 || err != nil || body.URL == "" {
		b.t.Fatalf("%s: got %d %s, want 200 and authorization_url", target, w.Code, w.Body)
	}
	return body.URL
}

// visit sends the browser to the provider, and returns the path of the callback.
func visit(t *testing.T, to string) string {
	t.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(t.Context(), "GET", to, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	callback, ok := strings.CutPrefix(resp.Header.Get("Location"), app)
	if resp.StatusCode != http.StatusSeeOther || !ok {
		t.Fatalf("the provider answered %d to %q, want a redirect to the application", resp.StatusCode, resp.Header.Get("Location"))
	}
	return callback
}

// through goes to the provider and back, and returns the callback's answer.
func (b *browser) through(target string) *httptest.ResponseRecorder {
	b.t.Helper()
	return b.get(visit(b.t, b.begin(target)))
}

// me returns the user whom the browser is logged in as; the zero one for none.
func (b *browser) me() (user member) {
	b.t.Helper()
	w := b.get("/users/me")
	switch w.Code {
	case 401:
	case 200:
		if err := json.Unmarshal(w.Body.Bytes(), &user); err != nil {
			b.t.Fatal(err)
		}
	default:
		b.t.Fatalf("GET me: got %d %s", w.Code, w.Body)
	}
	return user
}

// want fails unless an answer has a status and, if it is a refusal, a detail.
func want(t *testing.T, w *httptest.ResponseRecorder, code int, detail string) {
	t.Helper()
	var body struct {
		Detail string `json:"detail"`
	}
	_ = json.Unmarshal(w.Body.Bytes(), &body)
	if w.Code != code || body.Detail != detail {
		t.Errorf("got %d %s, want %d %s", w.Code, w.Body, code, detail)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("got Cache-Control %q, want no-store", got)
	}
}

var errDown = errors.New("the database is down")

// faultyUsers fails while down is set.
type faultyUsers struct {
	*memstore.Users[member, uuid.UUID]
	insert func(context.Context, member) error
	down   error
}

func (s *faultyUsers) Insert(ctx context.Context, user member) error {
	if s.insert != nil {
		return s.insert(ctx, user)
	}
	return s.Users.Insert(ctx, user)
}

func (s *faultyUsers) ByID(ctx context.Context, id uuid.UUID) (member, error) {
	if s.down != nil {
		return member{}, s.down
	}
	return s.Users.ByID(ctx, id)
}

func (s *faultyUsers) ByEmail(ctx context.Context, email string) (member, error) {
	if s.down != nil {
		return member{}, s.down
	}
	return s.Users.ByEmail(ctx, email)
}

// faultyLinks is a store whose methods tests replace.
type faultyLinks struct {
	*memstore.OAuthAccounts[uuid.UUID]
	insert func(context.Context, account.OAuthAccount[uuid.UUID]) error
	find   func(ctx context.Context, issuer, subject string) (account.OAuthAccount[uuid.UUID], error)
	list   func(context.Context, uuid.UUID) ([]account.OAuthAccount[uuid.UUID], error)
	remove func(ctx context.Context, userID uuid.UUID, issuer, subject string, keep []string) error
}

func newFaultyLinks() *faultyLinks {
	good := memstore.NewOAuthAccounts[uuid.UUID]()
	return &faultyLinks{good, good.Insert, good.Find, good.ListByUser, good.Delete}
}

func (s *faultyLinks) Insert(ctx context.Context, link account.OAuthAccount[uuid.UUID]) error {
	return s.insert(ctx, link)
}
func (s *faultyLinks) Find(ctx context.Context, issuer, subject string) (account.OAuthAccount[uuid.UUID], error) {
	return s.find(ctx, issuer, subject)
}
func (s *faultyLinks) ListByUser(ctx context.Context, userID uuid.UUID) ([]account.OAuthAccount[uuid.UUID], error) {
	return s.list(ctx, userID)
}
func (s *faultyLinks) Delete(ctx context.Context, userID uuid.UUID, issuer, subject string, keep []string) error {
	return s.remove(ctx, userID, issuer, subject, keep)
}

// linked returns the subjects that an account is linked to.
func (r *rig) linked(t *testing.T, userID uuid.UUID) (subjects []string) {
	t.Helper()
	links, err := r.links.OAuthAccounts.ListByUser(t.Context(), userID)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		subjects = append(subjects, l.Subject)
	}
	return subjects
}
