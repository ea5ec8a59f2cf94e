package main

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	devlog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"
	"github.com/latchkey-go/latchkey"
)

// browser is one of its own, with an empty profile: a context of the headless
// Chromium that all tests share. No page runs a script in it.
type browser struct {
	t   *testing.T
	ctx context.Context
}

// void is an action without a result.
type void = chromedp.Action[chromedp.Void]

// patience bounds each step of a test.
const patience = 15 * time.Second

// chromium starts when the first test asks for it, and ends with the last.
var (
	chromium     = sync.OnceValues(startChromium)
	stopChromium = func() {}
)

var errNoChromium = errors.New("no Chromium found")

func startChromium() (context.Context, error) {
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		return nil, errNoChromium
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], // headless, no first run, no networking in the background …
		chromedp.ExecPath(path),
		chromedp.NoSandbox,
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
	)
	ctx, cancelAllocator := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, cancel := chromedp.NewContext(ctx)
	stopChromium = func() {
		_ = chromedp.Cancel(ctx) // waits until its profile is removed
		cancel()
		cancelAllocator()
	}
	return ctx, chromedp.Do(ctx)
}

// newBrowser returns one, which names itself so to servers; "" is what it is.
func newBrowser(t *testing.T, agent string) *browser {
	t.Helper()
	shared, err := chromium()
	if errors.Is(err, errNoChromium) && os.Getenv("LATCHKEY_TEST_REQUIRE_BROWSER") != "1" {
		t.Skip("no Chromium found; LATCHKEY_TEST_REQUIRE_BROWSER=1 makes this a failure")
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := chromedp.NewContext(shared, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	b := &browser{t, ctx}
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	if agent != "" {
		call(b, emulation.SetUserAgentOverride, emulation.SetUserAgentOverrideParams{UserAgent: agent})
	}
	b.reportViolations()
	return b
}

// reportViolations fails the test if the browser has something against a page, for
// example by its Content-Security-Policy.
func (b *browser) reportViolations() {
	b.t.Helper()
	var (
		mu       sync.Mutex
		reported []string
	)
	err := chromedp.Listen(b.ctx, func(event any) {
		if e, ok := event.(*devlog.EventEntryAdded); ok && e.Entry.Source == devlog.EntrySourceSecurity {
			mu.Lock()
			defer mu.Unlock()
			reported = append(reported, e.Entry.Text)
		}
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		if len(reported) > 0 {
			b.t.Errorf("the browser reports: %q", reported)
		}
	})
}

func (b *browser) do(actions ...void) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

func get[T any](b *browser, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	result, err := chromedp.Run(ctx, action)
	if err != nil {
		b.t.Fatal(err)
	}
	return result
}

func call[P, R any](b *browser, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	return get(b, func(ctx context.Context, t *chromedp.Target) (R, error) { return cdp.Call(ctx, t, command, params) })
}

// goes does what leads to another page, and returns the status of that.
func (b *browser) goes(actions ...void) int {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	resp, err := chromedp.RunResponse(ctx, actions...)
	if err != nil {
		b.t.Fatal(err)
	}
	return int(resp.Status)
}

func (b *browser) open(url string) int { b.t.Helper(); return b.goes(chromedp.Navigate(url)) }

// press presses a button or follows a link; xpath names it.
func (b *browser) press(xpath string) int {
	b.t.Helper()
	return b.goes(chromedp.Click(chromedp.Search(xpath)))
}

func (b *browser) button(text string) int {
	b.t.Helper()
	return b.press(fmt.Sprintf(`//main//button[normalize-space()=%q]`, text))
}

func field(name string) chromedp.CSS { return chromedp.CSS(fmt.Sprintf("input[name=%q]", name)) }

// fill types into an empty field.
func (b *browser) fill(name, value string) {
	b.t.Helper()
	b.do(chromedp.SendKeys(field(name), value))
}

func (b *browser) text(css chromedp.CSS) string { b.t.Helper(); return get(b, chromedp.Text(css)) }

func (b *browser) value(name string) string { b.t.Helper(); return get(b, chromedp.Value(field(name))) }

func (b *browser) at(url string) {
	b.t.Helper()
	if got := get(b, chromedp.Location()); got != url {
		b.t.Errorf("the browser is at %s, want %s", got, url)
	}
}

func (b *browser) cookies() []*network.Cookie {
	b.t.Helper()
	own := chromedp.FromContext(b.ctx)
	found, err := cdp.Call(b.ctx, own.Browser, storage.GetCookies, storage.GetCookiesParams{BrowserContextID: own.BrowserContextID})
	if err != nil {
		b.t.Fatal(err)
	}
	return found.Cookies
}

func (b *browser) login(s *site) {
	b.t.Helper()
	b.open(s.base + "/login")
	b.fill("email", "member@example.com")
	b.fill("password", demoPassword)
	b.button("Sign in")
	b.at(s.base + "/members")
}

func (b *browser) signedIn(s *site) {
	b.t.Helper()
	b.open(s.base + "/members")
	b.at(s.base + "/members")
}

func (b *browser) signedOut(s *site) {
	b.t.Helper()
	b.open(s.base + "/members")
	b.at(s.base + "/login?next=%2Fmembers")
}

func TestBrowserLogsInAndOut(t *testing.T) {
	b, s := newBrowser(t, ""), newSite(t, latchkey.Config{})
	b.open(s.base + "/sessions?after=")
	b.at(s.base + "/login?next=%2Fsessions%3Fafter%3D")

	b.fill("email", "member@example.com")
	b.fill("password", "wrong")
	if status := b.button("Sign in"); status != http.StatusBadRequest {
		t.Errorf("a wrong password is answered %d, want 400", status)
	}
	if got := b.text("[role=alert]"); !strings.Contains(got, "not right") || b.value("email") != "member@example.com" || b.value("password") != "" {
		t.Errorf("the page says %q, with the e-mail %q", got, b.value("email"))
	}
	if len(b.cookies()) != 0 {
		t.Errorf("cookies %v after a wrong password", b.cookies())
	}

	b.fill("password", demoPassword)
	if status := b.button("Sign in"); status != http.StatusOK {
		t.Errorf("the login is answered %d, want 200 in the end", status)
	}
	b.at(s.base + "/sessions?after=")
	// The Referrer-Policy leaves the site's own forms their Origin.
	if got, want := s.last(), (post{"/login", "same-origin", s.base, false, http.StatusSeeOther}); got != want {
		t.Errorf("the form came as %+v, want %+v", got, want)
	}
	cookies := b.cookies()
	if len(cookies) != 1 || cookies[0].Name != "__Host-latchkey" || !cookies[0].HTTPOnly || !cookies[0].Secure || !cookies[0].Session || cookies[0].SameSite != network.CookieSameSiteLax {
		t.Errorf("cookies %+v, want one __Host- cookie, HttpOnly, Secure, SameSite=Lax, until the browser closes", cookies)
	}
	// The cookie is bound to its host.
	b.open(strings.Replace(s.base, "127.0.0.1", "localhost", 1) + "/members")
	if got := b.text("h1"); got != "Sign in" {
		t.Errorf("another host's page says %q", got)
	}

	b.signedIn(s)
	b.press(`//nav//button`)
	b.at(s.base + "/?done=out")
	if got := b.text(".notice"); got != "You are signed out." || len(b.cookies()) != 0 {
		t.Errorf("the page says %q, and the cookies are %v", got, b.cookies())
	}
	b.signedOut(s)
}

func TestBrowserOnLocalhost(t *testing.T) {
	b, s := newBrowser(t, ""), newSite(t, latchkey.Config{})
	s.base = strings.Replace(s.base, "127.0.0.1", "localhost", 1)
	b.open(s.base + "/login")
	b.fill("email", "member@example.com")
	b.fill("password", demoPassword)
	b.do(chromedp.Click(field("remember")))
	b.button("Sign in")
	b.at(s.base + "/members")
	if cookies := b.cookies(); len(cookies) != 1 || cookies[0].Session {
		t.Errorf("cookies %+v, want one that is remembered", cookies)
	}
}

func TestBrowserEndsAnothersSession(t *testing.T) {
	s := newSite(t, latchkey.Config{})
	first := newBrowser(t, "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36")
	second := newBrowser(t, "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:130.0) Gecko/20100101 Firefox/130.0")
	first.login(s)
	second.login(s)

	first.press(`//nav//a[.="Sessions"]`)
	if got := first.text(".sessions"); !strings.Contains(got, "Chrome on Linux this one") || !strings.Contains(got, "Firefox on Windows") {
		t.Errorf("the sessions are %q", got)
	}
	first.press(`//li[contains(., "Firefox on Windows")]//button[.="End"]`)
	first.at(s.base + "/sessions?done=ended")
	if got := first.text(".sessions"); strings.Contains(got, "Firefox on Windows") {
		t.Errorf("the sessions are %q", got)
	}
	second.signedOut(s)
	first.signedIn(s)

	// And everywhere.
	second.login(s)
	first.press(`//nav//a[.="Sessions"]`)
	first.button("Sign out everywhere")
	first.at(s.base + "/?done=all")
	first.signedOut(s)
	second.signedOut(s)
}

func TestBrowserChangesThePassword(t *testing.T) {
	s := newSite(t, latchkey.Config{})
	b, other := newBrowser(t, ""), newBrowser(t, "")
	b.login(s)
	other.login(s)
	s.loggedIn(11 * time.Minute)

	b.press(`//nav//a[.="Password"]`)
	b.at(s.base + "/confirm?next=%2Fpassword")
	b.fill("password", "wrong")
	if status := b.button("Confirm"); status != http.StatusBadRequest {
		t.Errorf("a wrong password is answered %d, want 400", status)
	}
	b.fill("password", demoPassword)
	b.button("Confirm")
	b.at(s.base + "/password")

	const newPassword = "a much better password"
	b.fill("current", demoPassword)
	b.fill("new", newPassword)
	b.fill("repeat", newPassword)
	b.button("Change it")
	b.at(s.base + "/members?done=password")
	b.signedIn(s)
	other.signedOut(s)
	other.fill("email", "member@example.com")
	other.fill("password", newPassword)
	other.button("Sign in")
	other.at(s.base + "/members")
}

// attacker is another origin, with a page whose button sends a form anywhere.
func attacker(t *testing.T, host string) (base string) {
	t.Helper()
	page := template.Must(template.New("").Parse(`<!doctype html><main><form method="post" action="{{.}}">
		<input name="email" value="friend@example.com"><input name="password" value="` + demoPassword + `">
		<button>Win a prize</button></form></main>`))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = page.Execute(w, r.URL.Query().Get("to"))
	}))
	t.Cleanup(server.Close)
	return strings.Replace(server.URL, "127.0.0.1", host, 1)
}

// attack sends a form to a page of the site, and returns how it came there.
func (b *browser) attack(from string, s *site, path string) post {
	b.t.Helper()
	b.open(from + "/?to=" + s.base + path)
	b.button("Win a prize")
	return s.last()
}

func TestBrowserSendsFormsOfOtherOrigins(t *testing.T) {
	samePlace, elsewhere := attacker(t, "127.0.0.1"), attacker(t, "localhost")

	t.Run("another port", func(t *testing.T) {
		// The same site to SameSite: only the protection stands in the way.
		b, s := newBrowser(t, ""), newSite(t, latchkey.Config{})
		b.login(s)
		for _, path := range []string{"/logout-all", "/logout", "/password"} {
			if got, want := b.attack(samePlace, s, path), (post{path, "same-site", samePlace, true, http.StatusForbidden}); got != want {
				t.Errorf("came as %+v, want %+v", got, want)
			}
			b.signedIn(s)
		}
	})
	t.Run("another site", func(t *testing.T) {
		b, s := newBrowser(t, ""), newSite(t, latchkey.Config{})
		b.login(s)
		// Without the cookie it is a stranger's, who is shown the login page.
		if got, want := b.attack(elsewhere, s, "/logout-all"), (post{"/logout-all", "cross-site", elsewhere, false, http.StatusSeeOther}); got != want {
			t.Errorf("came as %+v, want %+v", got, want)
		}
		b.at(s.base + "/login")
		b.signedIn(s)
	})
	t.Run("another site, without SameSite", func(t *testing.T) {
		b, s := newBrowser(t, ""), sameSiteNone(t, samePlace)
		b.login(s)
		if got, want := b.attack(elsewhere, s, "/logout-all"), (post{"/logout-all", "cross-site", elsewhere, true, http.StatusForbidden}); got != want {
			t.Errorf("came as %+v, want %+v", got, want)
		}
		b.signedIn(s)
	})
	t.Run("a trusted site, without SameSite", func(t *testing.T) {
		b, s := newBrowser(t, ""), sameSiteNone(t, elsewhere)
		b.login(s)
		if got, want := b.attack(elsewhere, s, "/logout-all"), (post{"/logout-all", "cross-site", elsewhere, true, http.StatusSeeOther}); got != want {
			t.Errorf("came as %+v, want %+v", got, want)
		}
		b.at(s.base + "/?done=all")
		b.signedOut(s)
	})
	t.Run("a login", func(t *testing.T) {
		s := newSite(t, latchkey.Config{})
		for from, site := range map[string]string{samePlace: "same-site", elsewhere: "cross-site"} {
			b := newBrowser(t, "")
			if got, want := b.attack(from, s, "/login"), (post{"/login", site, from, false, http.StatusForbidden}); got != want {
				t.Errorf("came as %+v, want %+v", got, want)
			}
			if len(b.cookies()) != 0 {
				t.Errorf("it brought the cookies %v", b.cookies())
			}
			b.signedOut(s)
		}
	})
}

// Every page fits a phone. LATCHKEY_TEST_SCREENSHOTS=dir keeps pictures of them.
func TestBrowserFitsAPhone(t *testing.T) {
	pictures := os.Getenv("LATCHKEY_TEST_SCREENSHOTS")
	s := newSite(t, latchkey.Config{})
	b := newBrowser(t, "")
	other := newBrowser(t, "AnAgentWithoutASpace/"+strings.Repeat("1234567890", 12))
	other.login(s)

	look := func(name string) {
		t.Helper()
		b.do(chromedp.EmulateViewport(390, 844, chromedp.EmulateMobile))
		if width := get(b, chromedp.Evaluate[int](`document.documentElement.scrollWidth`)); width > 390 {
			t.Errorf("%s is %d pixels wide on a phone of 390", name, width)
		}
		if pictures != "" {
			b.picture(filepath.Join(pictures, name+"-390.png"))
			b.do(chromedp.EmulateViewport(1280, 800))
			b.picture(filepath.Join(pictures, name+"-1280.png"))
			for _, scheme := range []string{"dark", "light"} {
				call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
				if scheme == "dark" {
					b.picture(filepath.Join(pictures, name+"-dark.png"))
				}
			}
		}
	}

	b.open(s.base + "/")
	look("home")
	b.open(s.base + "/login")
	look("login")
	// The policy lets the style sheet and the picture in.
	if got := get(b, chromedp.Evaluate[string](`getComputedStyle(document.querySelector('.card')).borderTopLeftRadius`)); got != "12px" {
		t.Errorf("the style sheet does not apply: the radius is %q", got)
	}
	if width := get(b, chromedp.Evaluate[int](`document.querySelector('.brand img').naturalWidth`)); width == 0 {
		t.Error("the picture was not loaded")
	}
	b.fill("email", "member@example.com")
	b.fill("password", "wrong")
	b.button("Sign in")
	look("login-wrong")
	b.login(s)
	look("members")
	b.open(s.base + "/sessions")
	look("sessions")
	b.open(s.base + "/password")
	look("password")
	b.open(s.base + "/confirm?next=/password")
	look("confirm")
	b.open(s.base + "/nowhere")
	look("not-found")
	b.open(s.base + "/members?done=password")
	look("notice")
}

func (b *browser) picture(path string) {
	b.t.Helper()
	if err := os.WriteFile(path, get(b, chromedp.FullScreenshot(100)), 0o600); err != nil {
		b.t.Fatal(err)
	}
}
