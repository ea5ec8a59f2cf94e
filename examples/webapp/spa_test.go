package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/gin-contrib/cors"
	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"golang.org/x/net/websocket"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// api is an API for a single-page application on another origin, as docs/http.md describes it:
// CORS before the guards, and the application's origin in TrustedOrigins.
func api(t *testing.T, app string) http.Handler {
	t.Helper()
	users := memstore.NewUsers[Member]()
	attempts, err := memstore.NewAttempts(0)
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), users, strategy.Config{Lifetime: lifetime})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sessions.Close)
	accounts, err := account.NewManager(users, nil, attempts, uuid.New, account.Config{
		Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true,
	}, sessions)
	if err != nil {
		t.Fatal(err)
	}
	for _, demo := range demoAccounts {
		if _, err := accounts.Create(t.Context(), demo, demoPassword); err != nil {
			t.Fatal(err)
		}
	}
	auth, err := ginauth.New(sessions, accounts, ginauth.Config{
		Transports:     []ginauth.Transport{ginauth.Cookie{}},
		TrustedOrigins: []string{app},
	})
	if err != nil {
		t.Fatal(err)
	}

	me := func(c *gin.Context) {
		member, _ := auth.CurrentUser(c)
		c.String(http.StatusOK, "%s", member.Email)
	}
	socket := func(c *gin.Context) {
		websocket.Server{Handler: func(ws *websocket.Conn) { _ = websocket.Message.Send(ws, "hello") }}.ServeHTTP(c.Writer, c.Request)
	}
	r := gin.New()
	// Without CORS: only Latchkey looks at the origin.
	bare := r.Group("/bare", auth.RequireUser())
	bare.GET("/me", me)
	bare.POST("/notes", me)
	bare.GET("/socket", socket)

	r.Use(cors.New(cors.Config{ // before the guards
		AllowOrigins:     []string{app},
		AllowMethods:     []string{"GET", "POST", "PATCH", "DELETE"},
		AllowHeaders:     []string{"Content-Type"},
		AllowCredentials: true,
		MaxAge:           time.Hour,
	}))
	auth.Routes(r.Group("/auth"))
	guarded := r.Group("/", auth.RequireUser())
	guarded.GET("/me", me)
	guarded.POST("/notes", me)
	guarded.GET("/socket", socket)
	guarded.GET("/events", func(c *gin.Context) {
		ctx, stop := auth.Watch(c)
		defer stop()
		c.SSEvent("message", "hello")
		c.Writer.Flush()
		<-ctx.Done()
	})
	return r
}

// host serves a handler on a loopback port, and returns its origin on a host name. Browsers
// resolve the names below localhost to the loopback address, and take them for secure.
func host(t *testing.T, name string, h http.Handler) (origin string) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return "http://" + name + ":" + port
}

// page is the empty page of a single-page application.
var page = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprint(w, "<!DOCTYPE html><title>app</title><link rel=icon href=data:,>")
})

// openPage opens a page whose scripts may call the API at base.
func openPage(t *testing.T, origin, base string) *browser {
	t.Helper()
	b := newBrowser(t, "")
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: false})
	b.open(origin)
	b.script(fmt.Sprintf("globalThis.base = %q", base), "")
	return b
}

// script evaluates a JavaScript expression in the page, awaits it if it is a promise, and checks
// its result.
func (b *browser) script(expression, want string) {
	b.t.Helper()
	got := get(b, chromedp.Evaluate[string](fmt.Sprintf("Promise.resolve((%s))", expression), chromedp.EvalAwaitPromise))
	if want != "" && got != want {
		b.t.Errorf("%s: got %q, want %q", expression, got, want)
	}
}

// fetches requests a path of the API as a single-page application does, with the cookie, and
// checks the status and the body that the script can read.
func (b *browser) fetches(method, path, body, want string) {
	b.t.Helper()
	init := fmt.Sprintf("{method: %q, credentials: 'include'", method)
	if body != "" {
		init += fmt.Sprintf(", headers: {'Content-Type': 'application/json'}, body: %q", body)
	}
	b.script(fmt.Sprintf("fetch(base + %q, %s}).then(async r => `${r.status} ${await r.text()}`.trim(), () => 'blocked')", path, init), want)
}

// opensSocket opens a WebSocket and checks the first message, or "refused".
func (b *browser) opensSocket(path, want string) {
	b.t.Helper()
	b.script(fmt.Sprintf(`new Promise(done => {
		const ws = new WebSocket(base.replace('http', 'ws') + %q)
		ws.onmessage = e => done(e.data)
		ws.onerror = () => done('refused')
	})`, path), want)
}

const login = `{"username": "member@example.com", "password": "` + demoPassword + `"}`

func TestSinglePageApplicationOnAnotherSubdomain(t *testing.T) {
	app := host(t, "app.example.localhost", page)
	base := host(t, "api.example.localhost", api(t, app))
	b := openPage(t, app, base)
	b.fetches("GET", "/me", "", `401 {"detail":"Unauthorized"}`) // the script can read a refusal
	b.fetches("POST", "/auth/login", login, "204")               // after a preflight request
	b.fetches("GET", "/me", "", "200 member@example.com")
	b.fetches("POST", "/notes", `{"text": "hello"}`, "200 member@example.com")
	b.opensSocket("/socket", "hello")
	b.opensSocket("/bare/socket", "hello")

	// A stream ends at the log-out. The browser connects again, is refused, and gives up.
	b.script(`new Promise(done => {
		globalThis.stream = new EventSource(base + '/events', {withCredentials: true})
		stream.onmessage = e => done(e.data)
	})`, "hello")
	b.script(`globalThis.ended = new Promise(done => {
		stream.onerror = () => { if (stream.readyState === EventSource.CLOSED) done('closed') }
	}), 'listening'`, "listening") // the comma operator: it does not wait
	b.fetches("POST", "/auth/logout", "", "204")
	b.script("ended", "closed")
	b.fetches("GET", "/me", "", `401 {"detail":"Unauthorized"}`)
}

// The cookie is sent with the requests of other subdomains too, because they are of the same
// site. Neither their scripts nor their WebSockets get anything with it.
func TestPagesOfOtherSubdomainsAreKeptOut(t *testing.T) {
	app := host(t, "app.example.localhost", page)
	base := host(t, "api.example.localhost", api(t, app))
	b := openPage(t, app, base)
	b.fetches("POST", "/auth/login", login, "204")
	b.fetches("GET", "/me", "", "200 member@example.com")

	b.open(host(t, "evil.example.localhost", page))
	b.script(fmt.Sprintf("globalThis.base = %q", base), "")
	for _, prefix := range []string{"", "/bare"} {
		b.fetches("GET", prefix+"/me", "", "blocked")
		b.fetches("POST", prefix+"/notes", "", "blocked")
		b.opensSocket(prefix+"/socket", "refused")
	}
	b.fetches("POST", "/auth/logout", "", "blocked")

	b.open(app)
	b.script(fmt.Sprintf("globalThis.base = %q", base), "")
	b.fetches("GET", "/me", "", "200 member@example.com") // still logged in
}

// Caches must tell the origins and the users apart.
func TestAnswersOfAnAPIWithCORSVary(t *testing.T) {
	const app = "https://app.example.com"
	h := api(t, app)
	req := httptest.NewRequestWithContext(context.Background(), "POST", "/auth/login", strings.NewReader(login))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Origin", app)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	session := w.Header().Get("Set-Cookie")
	cookie, err := http.ParseSetCookie(session)
	if err != nil {
		t.Fatalf("log in: got %d: %v", w.Code, err)
	}
	req = httptest.NewRequestWithContext(context.Background(), "POST", "/notes", nil)
	req.AddCookie(&http.Cookie{Name: cookie.Name, Value: cookie.Value})
	req.Header.Set("Origin", app)
	w = httptest.NewRecorder()
	h.ServeHTTP(w, req)
	if got := strings.Join(w.Header().Values("Vary"), ", "); w.Code != http.StatusOK || got != "Origin, Cookie, Sec-Fetch-Site" {
		t.Errorf("got %d and Vary %q, want 200 and the header of CORS with that of the guard", w.Code, got)
	}
	if got := w.Header().Get("Cache-Control"); got != "private, no-store" {
		t.Errorf("got Cache-Control %q, want private, no-store", got)
	}
}
