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
	"slices"
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

// browser is a context of the headless Chromium that all tests share. It has an empty profile
// and JavaScript is disabled.
type browser struct {
	t   *testing.T
	ctx context.Context
}

// void is a browser action without a result.
type void = chromedp.Action[chromedp.Void]

// patience bounds each step of a test.
const patience = 15 * time.Second

// chromium starts Chromium at its first call. TestMain stops it.
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
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.NoSandbox,
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
	)
	ctx, cancelAllocator := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, cancel := chromedp.NewContext(ctx)
	stopChromium = func() {
		_ = chromedp.Cancel(ctx) // waits until the profile is removed
		cancel()
		cancelAllocator()
	}
	return ctx, chromedp.Do(ctx)
}

// newBrowser returns a browser that sends a User-Agent. "" means its own.
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

// reportViolations fails the test if the browser reports a security problem of a page, such
// as a violation of its Content-Security-Policy.
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

// navigate runs actions that load another page, and returns its status.
func (b *browser) navigate(actions ...void) int {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	resp, err := chromedp.RunResponse(ctx, actions...)
	if err != nil {
		b.t.Fatal(err)
	}
	return int(resp.Status)
}

func (b *browser) open(url string) int { b.t.Helper(); return b.navigate(chromedp.Navigate(url)) }

// click clicks the button or link at an XPath, and returns the status of the next page.
func (b *browser) click(xpath string) int {
	b.t.Helper()
	return b.navigate(chromedp.Click(chromedp.Search(xpath)))
}

func (b *browser) clickButton(text string) int {
	b.t.Helper()
	return b.click(fmt.Sprintf(`//main//button[normalize-space()=%q]`, text))
}

func field(name string) chromedp.CSS { return chromedp.CSS(fmt.Sprintf("input[name=%q]", name)) }

// fill types a value into an empty field.
func (b *browser) fill(name, value string) {
	b.t.Helper()
	b.do(chromedp.SendKeys(field(name), value))
}

func (b *browser) text(css chromedp.CSS) string { b.t.Helper(); return get(b, chromedp.Text(css)) }

func (b *browser) value(name string) string { b.t.Helper(); return get(b, chromedp.Value(field(name))) }

func (b *browser) wantURL(url string) {
	b.t.Helper()
	if got := get(b, chromedp.Location()); got != url {
		b.t.Errorf("the browser is at %s, want %s", got, url)
	}
}

// cookies returns all cookies but the device's, which outlives sessions.
func (b *browser) cookies() []*network.Cookie {
	b.t.Helper()
	own := chromedp.FromContext(b.ctx)
	found, err := cdp.Call(b.ctx, own.Browser, storage.GetCookies, storage.GetCookiesParams{BrowserContextID: own.BrowserContextID})
	if err != nil {
		b.t.Fatal(err)
	}
	return slices.DeleteFunc(found.Cookies, func(c *network.Cookie) bool {
		if !strings.HasSuffix(c.Name, "-device") {
			return false
		}
		if c.Name != "__Host-latchkey-device" || !c.HTTPOnly || !c.Secure || c.Session || c.SameSite != network.CookieSameSiteLax {
			b.t.Errorf("the device's cookie is %+v, want a persistent __Host- cookie: HttpOnly, Secure, SameSite=Lax", c)
		}
		return true
	})
}

func (b *browser) login(s *rig) {
	b.t.Helper()
	b.open(s.base + "/login")
	b.fill("email", "member@example.com")
	b.fill("password", demoPassword)
	b.clickButton("Sign in")
	b.wantURL(s.base + "/members")
}

func (b *browser) wantSignedIn(s *rig) {
	b.t.Helper()
	b.open(s.base + "/members")
	b.wantURL(s.base + "/members")
}

func (b *browser) wantSignedOut(s *rig) {
	b.t.Helper()
	b.open(s.base + "/members")
	b.wantURL(s.base + "/login?next=%2Fmembers")
}

func TestBrowserLoginAndLogout(t *testing.T) {
	b, s := newBrowser(t, ""), newRig(t, latchkey.Config{})
	b.open(s.base + "/sessions?after=")
	b.wantURL(s.base + "/login?next=%2Fsessions%3Fafter%3D")

	b.fill("email", "member@example.com")
	b.fill("password", "wrong")
	if status := b.clickButton("Sign in"); status != http.StatusBadRequest {
		t.Errorf("wrong password: got status %d, want 400", status)
	}
	if got := b.text("[role=alert]"); !strings.Contains(got, "incorrect") || b.value("email") != "member@example.com" || b.value("password") != "" {
		t.Errorf("the page shows the error %q and the email address %q", got, b.value("email"))
	}
	if len(b.cookies()) != 0 {
		t.Errorf("got cookies %v after a wrong password, want none", b.cookies())
	}

	b.fill("password", demoPassword)
	if status := b.clickButton("Sign in"); status != http.StatusOK {
		t.Errorf("login: got status %d after the redirect, want 200", status)
	}
	b.wantURL(s.base + "/sessions?after=")
	// With this Referrer-Policy, the site's own forms carry their Origin.
	if got, want := s.lastPost(), (post{"/login", "same-origin", s.base, false, http.StatusSeeOther}); got != want {
		t.Errorf("the server received %+v, want %+v", got, want)
	}
	cookies := b.cookies()
	if len(cookies) != 1 || cookies[0].Name != "__Host-latchkey" || !cookies[0].HTTPOnly || !cookies[0].Secure || !cookies[0].Session || cookies[0].SameSite != network.CookieSameSiteLax {
		t.Errorf("cookies %+v, want one __Host- session cookie: HttpOnly, Secure, SameSite=Lax", cookies)
	}
	// The cookie is not sent to another host name.
	b.open(strings.Replace(s.base, "127.0.0.1", "localhost", 1) + "/members")
	if got := b.text("h1"); got != "Sign in" {
		t.Errorf("the page on the other host name is %q, want the login page", got)
	}

	b.wantSignedIn(s)
	b.click(`//nav//button`)
	b.wantURL(s.base + "/?done=out")
	if got := b.text(".notice"); got != "You are signed out." || len(b.cookies()) != 0 {
		t.Errorf("the page shows %q, and the cookies are %v", got, b.cookies())
	}
	b.wantSignedOut(s)
}

func TestBrowserStaysSignedInOnLocalhost(t *testing.T) {
	b, s := newBrowser(t, ""), newRig(t, latchkey.Config{})
	s.base = strings.Replace(s.base, "127.0.0.1", "localhost", 1)
	b.open(s.base + "/login")
	b.fill("email", "member@example.com")
	b.fill("password", demoPassword)
	b.do(chromedp.Click(field("remember")))
	b.clickButton("Sign in")
	b.wantURL(s.base + "/members")
	if cookies := b.cookies(); len(cookies) != 1 || cookies[0].Session {
		t.Errorf("cookies %+v, want one persistent cookie", cookies)
	}
}

func TestBrowserEndsOtherSessions(t *testing.T) {
	s := newRig(t, latchkey.Config{})
	first := newBrowser(t, "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36")
	second := newBrowser(t, "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:130.0) Gecko/20100101 Firefox/130.0")
	first.login(s)
	second.login(s)

	first.click(`//nav//a[.="Sessions"]`)
	if got := first.text(".sessions"); !strings.Contains(got, "Chrome on Linux this session") || !strings.Contains(got, "Firefox on Windows") {
		t.Errorf("the sessions are %q", got)
	}
	first.click(`//li[contains(., "Firefox on Windows")]//button[.="End session"]`)
	first.wantURL(s.base + "/sessions?done=ended")
	if got := first.text(".sessions"); strings.Contains(got, "Firefox on Windows") {
		t.Errorf("the sessions are %q", got)
	}
	second.wantSignedOut(s)
	first.wantSignedIn(s)

	// Sign out everywhere.
	second.login(s)
	first.click(`//nav//a[.="Sessions"]`)
	first.clickButton("Sign out everywhere")
	first.wantURL(s.base + "/?done=all")
	first.wantSignedOut(s)
	second.wantSignedOut(s)
}

func TestBrowserChangesThePassword(t *testing.T) {
	s := newRig(t, latchkey.Config{})
	b, other := newBrowser(t, ""), newBrowser(t, "")
	b.login(s)
	other.login(s)
	s.ageLogins(11 * time.Minute)

	b.click(`//nav//a[.="Password"]`)
	b.wantURL(s.base + "/confirm?next=%2Fpassword")
	b.fill("password", "wrong")
	if status := b.clickButton("Confirm"); status != http.StatusBadRequest {
		t.Errorf("wrong password: got status %d, want 400", status)
	}
	b.fill("password", demoPassword)
	b.clickButton("Confirm")
	b.wantURL(s.base + "/password")

	const newPassword = "a much better password"
	b.fill("current", demoPassword)
	b.fill("new", newPassword)
	b.fill("repeat", newPassword)
	b.clickButton("Change password")
	b.wantURL(s.base + "/members?done=password")
	b.wantSignedIn(s)
	other.wantSignedOut(s)
	other.fill("email", "member@example.com")
	other.fill("password", newPassword)
	other.clickButton("Sign in")
	other.wantURL(s.base + "/members")
}

// attacker starts a server of another origin. Its page has a button that sends a form to any
// URL.
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

// attack sends a form from another origin to a page of the site, and returns what the server
// received.
func (b *browser) attack(from string, s *rig, path string) post {
	b.t.Helper()
	b.open(from + "/?to=" + s.base + path)
	b.clickButton("Win a prize")
	return s.lastPost()
}

func TestBrowserFormsOfOtherOriginsAreRejected(t *testing.T) {
	sameSite, otherSite := attacker(t, "127.0.0.1"), attacker(t, "localhost") // same site, other site

	t.Run("another port", func(t *testing.T) {
		// Another port is the same site: SameSite does not help, only the CSRF protection.
		b, s := newBrowser(t, ""), newRig(t, latchkey.Config{})
		b.login(s)
		for _, path := range []string{"/logout-all", "/logout", "/password"} {
			if got, want := b.attack(sameSite, s, path), (post{path, "same-site", sameSite, true, http.StatusForbidden}); got != want {
				t.Errorf("the server received %+v, want %+v", got, want)
			}
			b.wantSignedIn(s)
		}
	})
	t.Run("another site", func(t *testing.T) {
		b, s := newBrowser(t, ""), newRig(t, latchkey.Config{})
		b.login(s)
		// The browser does not send the cookie, and the server redirects to the login page.
		if got, want := b.attack(otherSite, s, "/logout-all"), (post{"/logout-all", "cross-site", otherSite, false, http.StatusSeeOther}); got != want {
			t.Errorf("the server received %+v, want %+v", got, want)
		}
		b.wantURL(s.base + "/login")
		b.wantSignedIn(s)
	})
	t.Run("another site, without SameSite", func(t *testing.T) {
		b, s := newBrowser(t, ""), sameSiteNone(t, sameSite)
		b.login(s)
		if got, want := b.attack(otherSite, s, "/logout-all"), (post{"/logout-all", "cross-site", otherSite, true, http.StatusForbidden}); got != want {
			t.Errorf("the server received %+v, want %+v", got, want)
		}
		b.wantSignedIn(s)
	})
	t.Run("a trusted site, without SameSite", func(t *testing.T) {
		b, s := newBrowser(t, ""), sameSiteNone(t, otherSite)
		b.login(s)
		if got, want := b.attack(otherSite, s, "/logout-all"), (post{"/logout-all", "cross-site", otherSite, true, http.StatusSeeOther}); got != want {
			t.Errorf("the server received %+v, want %+v", got, want)
		}
		b.wantURL(s.base + "/?done=all")
		b.wantSignedOut(s)
	})
	t.Run("a login", func(t *testing.T) {
		s := newRig(t, latchkey.Config{})
		for from, site := range map[string]string{sameSite: "same-site", otherSite: "cross-site"} {
			b := newBrowser(t, "")
			if got, want := b.attack(from, s, "/login"), (post{"/login", site, from, false, http.StatusForbidden}); got != want {
				t.Errorf("the server received %+v, want %+v", got, want)
			}
			if len(b.cookies()) != 0 {
				t.Errorf("got cookies %v, want none", b.cookies())
			}
			b.wantSignedOut(s)
		}
	})
}

// LATCHKEY_TEST_SCREENSHOTS=dir saves screenshots of all pages.
func TestPagesFitAPhone(t *testing.T) {
	screenshots := os.Getenv("LATCHKEY_TEST_SCREENSHOTS")
	s := newRig(t, latchkey.Config{})
	b := newBrowser(t, "")
	other := newBrowser(t, "AnAgentWithoutASpace/"+strings.Repeat("1234567890", 12))
	other.login(s)

	check := func(name string) {
		t.Helper()
		b.do(chromedp.EmulateViewport(390, 844, chromedp.EmulateMobile))
		if width := get(b, chromedp.Evaluate[int](`document.documentElement.scrollWidth`)); width > 390 {
			t.Errorf("%s is %d pixels wide on a screen of 390", name, width)
		}
		if screenshots != "" {
			b.screenshot(filepath.Join(screenshots, name+"-390.png"))
			b.do(chromedp.EmulateViewport(1280, 800))
			b.screenshot(filepath.Join(screenshots, name+"-1280.png"))
			for _, scheme := range []string{"dark", "light"} {
				call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
				if scheme == "dark" {
					b.screenshot(filepath.Join(screenshots, name+"-dark.png"))
				}
			}
		}
	}

	b.open(s.base + "/")
	check("home")
	b.open(s.base + "/login")
	check("login")
	// The Content-Security-Policy allows the style sheet and the icon.
	if got := get(b, chromedp.Evaluate[string](`getComputedStyle(document.querySelector('.card')).borderTopLeftRadius`)); got != "12px" {
		t.Errorf("the style sheet does not apply: the radius is %q", got)
	}
	if width := get(b, chromedp.Evaluate[int](`document.querySelector('.brand img').naturalWidth`)); width == 0 {
		t.Error("the icon was not loaded")
	}
	b.fill("email", "member@example.com")
	b.fill("password", "wrong")
	b.clickButton("Sign in")
	check("login-wrong")
	b.login(s)
	check("members")
	b.open(s.base + "/sessions")
	check("sessions")
	b.open(s.base + "/password")
	check("password")
	b.open(s.base + "/confirm?next=/password")
	check("confirm")
	for _, page := range []string{"account", "account/email", "account/delete", "tokens"} {
		b.open(s.base + "/" + page)
		check(strings.ReplaceAll(page, "/", "-"))
	}
	b.fill("name", strings.Repeat("long", 20))
	b.clickButton("Make a token")
	check("tokens-new")
	for _, page := range []string{"signup", "forgot", "reset?token=x", "verify?token=x"} {
		b.open(s.base + "/" + page)
		name, _, _ := strings.Cut(page, "?")
		check(name)
	}
	b.open(s.base + "/nowhere")
	check("not-found")
	b.open(s.base + "/members?done=password")
	check("notice")
}

func (b *browser) screenshot(path string) {
	b.t.Helper()
	if err := os.WriteFile(path, get(b, chromedp.FullScreenshot(100)), 0o600); err != nil {
		b.t.Fatal(err)
	}
}
