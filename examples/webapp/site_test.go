package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	mongooptions "go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/integration/devmongo"
)

var mongoURI string

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	slog.SetDefault(slog.New(slog.DiscardHandler))
	server, err := devmongo.Start(devmongo.Config{})
	if err != nil {
		log.Fatal(err)
	}
	mongoURI = server.URI()
	code := m.Run()
	stopChromium()
	_ = server.Close()
	os.Exit(code)
}

// rig is the application on its own database.
type rig struct {
	t      *testing.T
	base   string
	server *httptest.Server
	client *mongo.Client
	db     *mongo.Database
	app    *app
	mails  chan account.Message

	mu    sync.Mutex
	posts []post
}

// post is a form as the server received it, and the status of the answer.
type post struct {
	path, fetchSite, origin string
	cookie                  bool
	status                  int
}

var databases int

func newRig(t *testing.T, cfg latchkey.Config) *rig {
	return startRig(t, cfg, (*httptest.Server).Start)
}

// newTLSRig is for clients of net/http, which send secure cookies only over TLS.
func newTLSRig(t *testing.T) *rig {
	return startRig(t, latchkey.Config{}, (*httptest.Server).StartTLS)
}

// startRig starts a rig. Each of with is called before the application makes its routes.
func startRig(t *testing.T, cfg latchkey.Config, start func(*httptest.Server), with ...func(*rig)) *rig {
	t.Helper()
	client, err := mongo.Connect(mongooptions.Client().ApplyURI(mongoURI))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	databases++
	s := &rig{t: t, client: client, db: client.Database(fmt.Sprintf("webapp_%d", databases))}
	s.mails = make(chan account.Message, 10)
	cfg.Mail.Mailer = account.MailerFunc(func(_ context.Context, m account.Message) error { s.mails <- m; return nil })
	cfg.Argon2, cfg.InsecureArgon2 = account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, true
	if s.app, err = newApp(t.Context(), s.db, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.app.Close)
	if err := s.app.addDemoAccounts(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.server = httptest.NewUnstartedServer(nil)
	s.base = "http://" + s.server.Listener.Addr().String()
	for _, f := range with {
		f(s)
	}
	handler, err := s.app.handler()
	if err != nil {
		t.Fatal(err)
	}
	s.server.Config.Handler = s.recordPosts(handler)
	start(s.server)
	t.Cleanup(s.server.Close)
	s.base = s.server.URL
	return s
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// recordPosts records the forms that h receives.
func (s *rig) recordPosts(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sw := &statusWriter{w, http.StatusOK}
		h.ServeHTTP(sw, r)
		if r.Method == http.MethodPost {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.posts = append(s.posts, post{r.URL.Path, r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin"), len(r.CookiesNamed("__Host-latchkey")) > 0, sw.status})
		}
	})
}

// lastPost returns the latest form that the server answered.
func (s *rig) lastPost() post {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.posts) == 0 {
		return post{}
	}
	return s.posts[len(s.posts)-1]
}

// ageLogins sets the time of all logins to some time ago.
func (s *rig) ageLogins(ago time.Duration) {
	s.t.Helper()
	_, err := s.db.Collection("access_tokens").UpdateMany(s.t.Context(), bson.D{},
		bson.D{{Key: "$set", Value: bson.D{{Key: "authenticated_at", Value: time.Now().Add(-ago)}}}})
	if err != nil {
		s.t.Fatal(err)
	}
}

// visitor is an HTTP client that keeps cookies and does not follow redirects.
type visitor struct {
	t      *testing.T
	base   string
	agent  string
	client *http.Client
}

func (s *rig) visitor() *visitor {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &visitor{s.t, s.base, "visitor", &http.Client{
		Transport:     s.server.Client().Transport,
		Jar:           jar,
		Timeout:       10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

type answer struct {
	status   int
	header   http.Header
	location string
	body     string
	cookies  []*http.Cookie
}

func (v *visitor) do(method, path string, form url.Values, header ...string) answer {
	v.t.Helper()
	req, err := http.NewRequest(method, v.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header.Set("User-Agent", v.agent)
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := v.client.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, resp.Header.Get("Location"), string(body), resp.Cookies()}
}

func (v *visitor) get(path string) answer { v.t.Helper(); return v.do(http.MethodGet, path, nil) }

func (v *visitor) post(path string, fields ...string) answer {
	v.t.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	return v.do(http.MethodPost, path, form)
}

func (v *visitor) login() *visitor {
	v.t.Helper()
	v.wantRedirect(v.post("/login", "email", "member@example.com", "password", demoPassword), "/members")
	return v
}

var token = regexp.MustCompile(`\blk[a-z]?_[\w-]+`)

// redact replaces the tokens of a page, which must not be in the log of a failed test.
func redact(page string) string { return token.ReplaceAllString(page, "(a token)") }

func (v *visitor) wantRedirect(a answer, to string) {
	v.t.Helper()
	if a.status != http.StatusSeeOther || a.location != to {
		v.t.Errorf("got status %d and Location %q, want 303 and %q\n%s", a.status, a.location, to, redact(a.body))
	}
}

func (v *visitor) wantAnswer(a answer, status int, texts ...string) {
	v.t.Helper()
	if a.status != status {
		v.t.Errorf("got status %d, want %d\n%s", a.status, status, redact(a.body))
	}
	for _, text := range texts {
		if !strings.Contains(a.body, text) {
			v.t.Errorf("the answer does not contain %q\n%s", redact(text), redact(a.body))
		}
	}
}

func TestSecurityHeaders(t *testing.T) {
	s := newTLSRig(t)
	guest, member := s.visitor(), s.visitor().login()
	wants := map[string]string{
		"Content-Security-Policy":    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
		"X-Content-Type-Options":     "nosniff",
		"Referrer-Policy":            "same-origin",
		"Cross-Origin-Opener-Policy": "same-origin",
		"Cache-Control":              "no-store",
		"Strict-Transport-Security":  "max-age=31536000",
	}
	for _, c := range []struct {
		v      *visitor
		path   string
		status int
	}{
		{guest, "/", 200}, {guest, "/login", 200}, {guest, "/members", 303}, {guest, "/password", 303}, {guest, "/nowhere", 404}, {guest, "/logout", 405},
		{member, "/", 200}, {member, "/members", 200}, {member, "/sessions", 200}, {member, "/password", 200}, {member, "/confirm", 200},
	} {
		got := c.v.get(c.path)
		if got.status != c.status {
			t.Errorf("GET %s answered %d, want %d", c.path, got.status, c.status)
		}
		for name, want := range wants {
			if got.header.Get(name) != want {
				t.Errorf("GET %s: %s is %q, want %q", c.path, name, got.header.Get(name), want)
			}
		}
		if kind := got.header.Get("Content-Type"); kind != "text/html; charset=utf-8" {
			t.Errorf("GET %s: Content-Type is %q", c.path, kind)
		}
		for _, never := range []string{"<script", "<style", " style=", " onclick=", "javascript:"} {
			if strings.Contains(got.body, never) {
				t.Errorf("GET %s contains %q, which the policy forbids", c.path, never)
			}
		}
	}
	for path, want := range map[string]string{"/style.css": "text/css; charset=utf-8", "/icon.svg": "image/svg+xml"} {
		if got := guest.get(path); got.status != 200 || got.header.Get("Content-Type") != want || got.header.Get("Cache-Control") != "max-age=300" {
			t.Errorf("GET %s answered %d with %q", path, got.status, got.header)
		}
	}
	plain := newRig(t, latchkey.Config{}).visitor()
	if got := plain.get("/").header.Get("Strict-Transport-Security"); got != "" {
		t.Errorf("Strict-Transport-Security over plain HTTP is %q", got)
	}
}

func TestLogin(t *testing.T) {
	s := newTLSRig(t)
	v := s.visitor()

	wrong := v.post("/login", "email", "member@example.com", "password", "wrong", "next", "/sessions", "remember", "true")
	v.wantAnswer(wrong, http.StatusBadRequest, `role="alert"`, "The email address or password is incorrect.", `value="member@example.com"`, `value="/sessions"`, " checked", `aria-describedby="error"`)
	unknown := v.post("/login", "email", "nobody@example.com", "password", "wrong", "next", "/sessions", "remember", "true")
	if got, want := strings.Replace(unknown.body, "nobody@", "member@", 1), wrong.body; got != want || unknown.status != wrong.status {
		t.Errorf("the answer to an unknown user differs:\n%s\nwant\n%s", got, want)
	}
	hostile := v.post("/login", "email", `"><script>alert(1)</script>`, "password", "wrong", "next", `"><b>`)
	if strings.Contains(hostile.body, "<script") || strings.Contains(hostile.body, "<b>") {
		t.Errorf("the form fields are not escaped:\n%s", hostile.body)
	}

	for _, c := range []struct {
		next, remember, to string
		maxAge             int
	}{
		{"", "", "/members", 0},
		{"/sessions?after=x", "true", "/sessions?after=x", 30 * 24 * 60 * 60},
		{"//evil.example/", "", "/members", 0},
		{"https://evil.example/", "", "/members", 0},
	} {
		got := s.visitor().post("/login", "email", " Member@Example.com ", "password", demoPassword, "next", c.next, "remember", c.remember)
		v.wantRedirect(got, c.to)
		if len(got.cookies) != 2 || got.cookies[0].MaxAge != c.maxAge || got.cookies[1].Name != "__Host-latchkey-device" {
			t.Errorf("remember %q: cookies %v, want the session's with Max-Age %d and the device's", c.remember, got.cookies, c.maxAge)
		}
	}
	if got := s.visitor().post("/login"); got.status != http.StatusBadRequest {
		t.Errorf("empty form: got status %d, want 400", got.status)
	}
	huge := s.visitor().post("/login", "email", "member@example.com", "password", demoPassword, "next", strings.Repeat("x", 20<<10))
	v.wantAnswer(huge, http.StatusBadRequest)
}

func TestGuardsRedirectToLoginAndConfirm(t *testing.T) {
	s := newTLSRig(t)
	guest, member := s.visitor(), s.visitor().login()
	guest.wantRedirect(guest.get("/sessions?after=a&b=c"), "/login?next=%2Fsessions%3Fafter%3Da%26b%3Dc")
	guest.wantRedirect(guest.post("/logout-all"), "/login")
	guest.wantAnswer(guest.get("/login?next=/sessions"), http.StatusOK, `name="next" type="hidden" value="/sessions"`)

	member.wantAnswer(member.get("/password"), http.StatusOK)
	s.ageLogins(11 * time.Minute)
	member.wantAnswer(member.get("/members"), http.StatusOK)
	member.wantRedirect(member.get("/password"), "/confirm?next=%2Fpassword")
	member.wantRedirect(member.post("/password", "current", demoPassword, "new", "a new password", "repeat", "a new password"), "/confirm?next=%2Fpassword")
	member.wantAnswer(member.get("/confirm?next=/password"), http.StatusOK, `value="/password"`, "member@example.com")
	member.wantAnswer(member.post("/confirm", "password", "wrong", "next", "/password"), http.StatusBadRequest, `role="alert"`, `value="/password"`)
	member.wantRedirect(member.post("/confirm", "password", demoPassword, "next", "/password"), "/password")
	member.wantAnswer(member.get("/password"), http.StatusOK)
	member.wantRedirect(member.post("/confirm", "password", demoPassword, "next", "https://evil.example"), "/members")
}

func TestTooManyWrongPasswords(t *testing.T) {
	s := newTLSRig(t)
	v := s.visitor()
	for range 10 {
		v.wantAnswer(v.post("/login", "email", "friend@example.com", "password", "wrong"), http.StatusBadRequest)
	}
	got := v.post("/login", "email", "friend@example.com", "password", demoPassword)
	v.wantAnswer(got, http.StatusTooManyRequests, "Too many attempts", `value="friend@example.com"`)
	if seconds := got.header.Get("Retry-After"); seconds != "60" && seconds != "59" {
		t.Errorf("Retry-After is %q, want 60", seconds)
	}
	// Other users are not affected.
	member := s.visitor().login()
	for range 5 {
		member.wantAnswer(member.post("/confirm", "password", "wrong"), http.StatusBadRequest)
	}
	member.wantAnswer(member.post("/confirm", "password", demoPassword), http.StatusTooManyRequests, "Too many attempts")
	member.wantAnswer(member.post("/password", "current", demoPassword, "new", "a new password", "repeat", "a new password"), http.StatusTooManyRequests)
}

func TestInWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Second: "a few seconds", 30 * time.Second: "30 seconds", time.Minute: "60 seconds", 61 * time.Second: "2 minutes", time.Hour: "60 minutes",
	} {
		if got := inWords(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

func TestDatabaseFailureDoesNotSignOut(t *testing.T) {
	s := newTLSRig(t)
	member, guest := s.visitor().login(), s.visitor()
	if err := s.client.Disconnect(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, got := range []answer{
		guest.post("/login", "email", "member@example.com", "password", demoPassword),
		member.post("/logout"), member.get("/members"), member.post("/logout-all"),
	} {
		if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") != "1" || len(got.cookies) > 0 {
			t.Errorf("got status %d, Retry-After %q and cookies %v, want 503, 1 and none", got.status, got.header.Get("Retry-After"), got.cookies)
		}
	}
	guest.wantAnswer(guest.get("/"), http.StatusOK, "Sign in")
	guest.wantAnswer(guest.post("/login", "email", "member@example.com", "password", demoPassword), http.StatusServiceUnavailable, `role="alert"`, "member@example.com")
	member.wantAnswer(member.post("/logout"), http.StatusServiceUnavailable, "Please try again in a moment")
}

var endForm = regexp.MustCompile(`action="(/sessions/[^"]+/end)"`)

func TestSessionsPage(t *testing.T) {
	s := newTLSRig(t)
	here := s.visitor()
	here.agent = "Here/1.0 (X11; Linux x86_64)"
	here.login()
	there := s.visitor()
	there.agent = `<script>alert/1.0 (X11; Linux x86_64)`
	there.login()

	page := here.get("/sessions")
	here.wantAnswer(page, http.StatusOK, "Here on Linux <span class=\"badge\">this session</span>", "&lt;script&gt;alert on Linux", "127.0.0.1")
	if strings.Contains(page.body, "<script") {
		t.Errorf("the user agent is not escaped:\n%s", page.body)
	}
	ends := endForm.FindAllStringSubmatch(page.body, -1)
	if len(ends) != 1 {
		t.Fatalf("%d sessions have an End button, want only the other one\n%s", len(ends), page.body)
	}
	end := ends[0][1]

	// A user cannot end the session of another user, nor learn whether it exists.
	stranger := s.visitor()
	stranger.wantRedirect(stranger.post("/login", "email", "friend@example.com", "password", demoPassword), "/members")
	stranger.wantRedirect(stranger.post(end), "/sessions?done=ended")
	there.wantAnswer(there.get("/members"), http.StatusOK)

	here.wantRedirect(here.post(end), "/sessions?done=ended")
	here.wantAnswer(here.get("/sessions?done=ended"), http.StatusOK, "The session was ended.")
	there.wantRedirect(there.get("/members"), "/login?next=%2Fmembers")
	here.wantRedirect(here.post(end), "/sessions?done=ended")
	here.wantAnswer(here.post("/sessions/no-session/end"), http.StatusNotFound)
	here.wantAnswer(here.get("/sessions?done=<b>"), http.StatusOK)

	// A page has ten sessions.
	for range 11 {
		s.visitor().login()
	}
	page = here.get("/sessions")
	older := regexp.MustCompile(`href="(/sessions\?after=[^"]+)"`).FindStringSubmatch(page.body)
	if n := strings.Count(page.body, "<dt>Signed in</dt>"); n != 10 || older == nil {
		t.Fatalf("the first page has %d sessions and the link %q", n, older)
	}
	page = here.get(older[1])
	if n := strings.Count(page.body, "<dt>Signed in</dt>"); n != 2 || !strings.Contains(page.body, "this session") || !strings.Contains(page.body, "Newest") || strings.Contains(page.body, "Older") {
		t.Errorf("the second page has %d sessions, want 2\n%s", n, page.body)
	}
	here.wantAnswer(here.get("/sessions?after=nonsense"), http.StatusNotFound)
}

func TestLogoutHereAndEverywhere(t *testing.T) {
	s := newTLSRig(t)
	v := s.visitor().login()
	got := v.post("/logout")
	v.wantRedirect(got, "/?done=out")
	if len(got.cookies) != 1 || got.cookies[0].MaxAge >= 0 {
		t.Errorf("cookies %v, want the cookie cleared", got.cookies)
	}
	v.wantAnswer(v.get("/?done=out"), http.StatusOK, "You are signed out.")
	v.wantRedirect(v.post("/logout"), "/?done=out")

	first, second := s.visitor().login(), s.visitor().login()
	got = first.post("/logout-all")
	first.wantRedirect(got, "/?done=all")
	if len(got.cookies) != 1 || got.cookies[0].MaxAge >= 0 {
		t.Errorf("cookies %v, want the cookie cleared", got.cookies)
	}
	for _, v := range []*visitor{first, second} {
		v.wantRedirect(v.get("/members"), "/login?next=%2Fmembers")
	}
	first.login()
}

func TestPasswordChangeEndsOtherSessions(t *testing.T) {
	s := newTLSRig(t)
	v, other := s.visitor().login(), s.visitor().login()
	const newPassword = "a much better password"
	v.wantAnswer(v.post("/password", "current", demoPassword, "new", newPassword, "repeat", "another"), http.StatusBadRequest, "do not match")
	v.wantAnswer(v.post("/password", "current", "wrong", "new", newPassword, "repeat", newPassword), http.StatusBadRequest, "The current password is incorrect.")
	v.wantAnswer(v.post("/password", "current", demoPassword, "new", "short", "repeat", "short"), http.StatusBadRequest, "at least 8")
	other.wantAnswer(other.get("/members"), http.StatusOK)

	v.wantRedirect(v.post("/password", "current", demoPassword, "new", newPassword, "repeat", newPassword), "/members?done=password")
	v.wantAnswer(v.get("/members?done=password"), http.StatusOK, "Your password was changed")
	v.wantAnswer(v.get("/password"), http.StatusOK)
	other.wantRedirect(other.get("/members"), "/login?next=%2Fmembers")
	other.wantAnswer(other.post("/login", "email", "member@example.com", "password", demoPassword), http.StatusBadRequest)
	other.wantRedirect(other.post("/login", "email", "member@example.com", "password", newPassword), "/members")
}

func TestCrossOriginFormsAreRejected(t *testing.T) {
	s := newTLSRig(t)
	v := s.visitor().login()
	for _, header := range [][]string{
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"},
	} {
		for path, want := range map[string]string{
			"/login": "This form was sent from another website", "/logout": "This form was sent from another website",
			"/logout-all": "CROSS_ORIGIN_REQUEST", "/password": "CROSS_ORIGIN_REQUEST", "/confirm": "CROSS_ORIGIN_REQUEST",
		} {
			got := v.do(http.MethodPost, path, url.Values{"email": {"friend@example.com"}, "password": {demoPassword}}, header...)
			v.wantAnswer(got, http.StatusForbidden, want)
			if len(got.cookies) > 0 {
				t.Errorf("%s with %s: got cookies %v, want none", path, header, got.cookies)
			}
		}
	}
	v.wantAnswer(v.get("/members"), http.StatusOK, "member@example.com")
}

var nexts = []struct{ next, want string }{
	{"/", "/"},
	{"/sessions", "/sessions"},
	{"/sessions?after=x&b=%20c#d", "/sessions?after=x&b=%20c#d"},
	{"/a:b", "/a:b"},
	{"/?u=https://good.example//", "/?u=https://good.example//"},
	{"", "/members"},
	{"sessions", "/members"},
	{"?x", "/members"},
	{"//evil.example", "/members"},
	{"///evil.example", "/members"},
	{"/\\evil.example", "/members"},
	{"\\\\evil.example", "/members"},
	{"/a\\b", "/members"},
	{"/\t/evil.example", "/members"},
	{"/\n/evil.example", "/members"},
	{"/\x00/evil.example", "/members"},
	{" //evil.example", "/members"},
	{"https://evil.example/", "/members"},
	{"https:evil.example", "/members"},
	{"javascript:alert(1)", "/members"},
	{"JavaScript://%0aalert(1)", "/members"},
	{"/%zz", "/members"},
}

func TestLocalPath(t *testing.T) {
	for _, c := range nexts {
		if got := localPath(c.next); got != c.want {
			t.Errorf("localPath(%q) is %q, want %q", c.next, got, c.want)
		}
	}
}

// likeBrowsers changes a URL as browsers do before they parse it (WHATWG URL): they remove
// tabs and newlines, and read a backslash as a slash.
var likeBrowsers = strings.NewReplacer("\t", "", "\n", "", "\r", "", "\\", "/")

func FuzzLocalPath(f *testing.F) {
	for _, c := range nexts {
		f.Add(c.next)
	}
	base := &url.URL{Scheme: "https", Host: "site.example", Path: "/login"}
	f.Fuzz(func(t *testing.T, next string) {
		got := localPath(next)
		if got != next && got != "/members" {
			t.Fatalf("%q became %q", next, got)
		}
		w := httptest.NewRecorder()
		http.Redirect(w, httptest.NewRequest(http.MethodPost, "/login", nil), got, http.StatusSeeOther)
		// Both the path and the header that net/http makes of it.
		for _, location := range []string{got, w.Header().Get("Location")} {
			seen := likeBrowsers.Replace(strings.TrimFunc(location, func(r rune) bool { return r <= ' ' }))
			if seen != location || !strings.HasPrefix(seen, "/") || strings.HasPrefix(seen, "//") {
				t.Fatalf("%q leads to %q", next, location)
			}
			to, err := base.Parse(location)
			if err != nil || to.Scheme != base.Scheme || to.Host != base.Host || to.User != nil {
				t.Fatalf("%q leads to %v (error %v)", next, to, err)
			}
		}
	})
}

func TestProgramServesUntilCancelled(t *testing.T) {
	t.Setenv("MONGODB_URI", "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, []string{"-addr", "127.0.0.1:0", "-insecure-http"}, w, io.Discard)
		_ = w.CloseWithError(io.EOF)
		done <- err
	}()
	var base string
	lines := bufio.NewScanner(r)
	for base == "" && lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "open "); ok {
			base = strings.TrimSuffix(rest, " in a browser")
		}
	}
	if base == "" {
		t.Fatalf("the program did not print its address: %v", <-done)
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()

	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	v := &visitor{t, base, "visitor", &http.Client{Jar: jar, Timeout: 10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	v.wantAnswer(v.login().get("/members"), http.StatusOK, "Mona Member")

	cancel()
	if err := <-done; err != nil {
		t.Errorf("the program ended with error %v", err)
	}
}

func TestInvalidFlagsAreErrors(t *testing.T) {
	t.Setenv("MONGODB_URI", "")
	for _, args := range [][]string{{"extra"}, {"-nonsense"}, {"-mongodb-uri", "nonsense"}, {"-addr", "nowhere:-1"}} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}

// sameSiteNone returns a rig whose cookie browsers send with requests of other sites too.
func sameSiteNone(t *testing.T, trusted ...string) *rig {
	t.Helper()
	return newRig(t, latchkey.Config{Cookie: ginauth.Cookie{SameSite: http.SameSiteNoneMode}, TrustedOrigins: trusted})
}
