package ginauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/internal/secretscan"
	"github.com/latchkey-go/latchkey/internal/token"
)

// deviceOf returns the device token in the answer to a login, or "".
func deviceOf(t testing.TB, w *httptest.ResponseRecorder) (device string) {
	t.Helper()
	for _, cookie := range w.Result().Cookies() {
		if strings.HasSuffix(cookie.Name, "-device") {
			device = cookie.Value
		}
	}
	var body struct {
		DeviceToken string `json:"device_token"`
	}
	if w.Body.Len() > 0 && json.Unmarshal(w.Body.Bytes(), &body) == nil && body.DeviceToken != "" {
		if device != "" {
			t.Error("the device token is in a cookie and in JSON")
		}
		device = body.DeviceToken
	}
	if _, ok := token.Device.Digest(device); device != "" && !ok {
		t.Errorf("got the device token %q, want one of the format lkd_", device)
	}
	secretscan.Record(device)
	return device
}

// deviceLogin logs in by POST /login with a device token, by the way of a transport.
func deviceLogin(h http.Handler, transport ginauth.Transport, username, password, device string, options ...option) *httptest.ResponseRecorder {
	form := url.Values{"username": {username}, "password": {password}}
	if transport == (ginauth.Cookie{}) {
		options = append(options, header("Cookie", "__Host-latchkey-device="+device))
	} else {
		form.Set("device_token", device)
	}
	return post(h, "/login", form.Encode(), options...)
}

func fromIP(ip string) option {
	return func(r *http.Request) { r.RemoteAddr = ip + ":1234" }
}

func TestDeviceCookie(t *testing.T) {
	h := newRig(t)
	e := engine(h.auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Cookie{}}}))
	w := logIn(e)
	wantCode(t, "login", w, http.StatusNoContent)
	set := w.Header().Values("Set-Cookie")
	if len(set) != 2 {
		t.Fatalf("got Set-Cookie %q, want the session's and the device's", set)
	}
	device := cookieValue(t, set[1], "__Host-latchkey-device")
	if want := "__Host-latchkey-device=" + device + "; Path=/; Max-Age=7776000; HttpOnly; Secure; SameSite=Lax"; set[1] != want || deviceOf(t, w) != device {
		t.Errorf("got Set-Cookie %q, want %q", set[1], want)
	}
	// A log-out keeps it, and so does the end of a session.
	session := cookieValue(t, set[0], "__Host-latchkey")
	w = post(e, "/logout", "", inCookie(session), header("Cookie", "__Host-latchkey-device="+device))
	wantCode(t, "log-out", w, http.StatusNoContent)
	if got := deviceOf(t, w); got != "" || strings.Contains(fmt.Sprint(w.Header()["Set-Cookie"]), "device") {
		t.Errorf("the log-out sent %q, want nothing about the device", w.Header()["Set-Cookie"])
	}
	// It is no credential.
	wantCode(t, "the device token for a session", request(e, "GET", "/me", inCookie(device)), http.StatusUnauthorized)
	// The next login presents it, and renews the cookie.
	w = deviceLogin(e, ginauth.Cookie{}, "ann@example.com", password, device)
	wantCode(t, "login with the cookie", w, http.StatusNoContent)
	if got := deviceOf(t, w); got != device {
		t.Errorf("got the device token %q, want the same again", got)
	}
	// A failed login leaves it alone.
	w = deviceLogin(e, ginauth.Cookie{}, "ann@example.com", "wrong", device)
	wantCode(t, "a wrong password", w, http.StatusBadRequest)
	wantSetCookie(t, "a wrong password", w, false)
	// Its attributes are the session cookie's.
	other := engine(newRig(t).auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Cookie{
		Name: "app", Path: "/app", Domain: "example.org", SameSite: http.SameSiteStrictMode, InsecureHTTP: true,
	}}}))
	set = logIn(other).Header().Values("Set-Cookie")
	if want := "; Path=/app; Domain=example.org; Max-Age=7776000; HttpOnly; SameSite=Strict"; len(set) != 2 || !strings.HasPrefix(set[1], "app-device=lkd_") || !strings.HasSuffix(set[1], want) {
		t.Errorf("got Set-Cookie %q, want app-device with %q", set, want)
	}
}

func TestDeviceTokenInJSON(t *testing.T) {
	h := newRig(t)
	e := engine(h.auth(t, ginauth.Config{}))
	w := logIn(e)
	device := deviceOf(t, w)
	if wantSetCookie(t, "login", w, false); device == "" {
		t.Fatalf("got %s, want a device_token", w.Body)
	}
	// It is sent when it is new, and the client need not send it.
	for _, presented := range []string{device, "", "nonsense"} {
		w := deviceLogin(e, ginauth.Bearer{}, "ann@example.com", password, presented)
		wantCode(t, "login", w, http.StatusOK)
		if got := deviceOf(t, w); (got == "") != (presented == device) || got == device {
			t.Errorf("with the device token %q: got %q, want a new one unless it was valid", presented, got)
		}
	}
	// The cookie is the cookie transport's.
	w = post(e, "/login", "username=ann@example.com&password="+password, header("Cookie", "__Host-latchkey-device="+device))
	if got := deviceOf(t, w); got == "" {
		t.Error("a bearer login took the device token from a cookie")
	}
	for _, body := range []string{`"device_token": 7`, `"device_token": ["x"]`} {
		r := httptest.NewRequest("POST", "/login", strings.NewReader(`{"username": "ann@example.com", "password": "`+password+`", `+body+`}`))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		if wantCode(t, body, w, http.StatusUnprocessableEntity); !strings.Contains(w.Body.String(), `["body","device_token"]`) {
			t.Errorf("%s: got %s, want the field named", body, w.Body)
		}
	}
	wantCode(t, "twice", post(e, "/login", "username=ann@example.com&password="+password+"&device_token=a&device_token=b"), http.StatusUnprocessableEntity)
}

// Attackers elsewhere use up the account's limit. The user logs in with the device token, also
// on the application's own page.
func TestAttackersCannotLockOutAKnownDevice(t *testing.T) {
	for name, transport := range transportsByName {
		t.Run(name, func(t *testing.T) {
			h := newRig(t)
			auth := h.auth(t, ginauth.Config{Transports: []ginauth.Transport{transport}})
			e := engine(auth)
			e.POST("/page", func(c *gin.Context) {
				if _, err := auth.LoginWithPassword(c, c.PostForm("name"), c.PostForm("secret"), false); err != nil {
					auth.Refuse(c, err)
				}
			})
			device := deviceOf(t, logIn(e))
			for i := range 10 {
				w := deviceLogin(e, transport, "ann@example.com", "wrong", "", fromIP(fmt.Sprintf("203.0.%d.1", i)))
				wantCode(t, "an attacker", w, http.StatusBadRequest)
			}
			w := deviceLogin(e, transport, "ann@example.com", password, "")
			wantCode(t, "Ann on a new device", w, http.StatusTooManyRequests)
			if w.Header().Get("Retry-After") != "60" {
				t.Errorf("got Retry-After %q, want 60", w.Header().Get("Retry-After"))
			}
			w = deviceLogin(e, transport, "ann@example.com", password, device, fromIP("198.51.100.1"))
			if w.Code >= 300 {
				t.Errorf("Ann on her device: got %d %s, want a login", w.Code, w.Body)
			}
			if transport == (ginauth.Cookie{}) {
				w := post(e, "/page", "name=ann@example.com&secret="+password, header("Cookie", "__Host-latchkey-device="+device))
				if wantCode(t, "Ann on the page", w, http.StatusOK); deviceOf(t, w) != device {
					t.Error("the page did not renew the device cookie")
				}
				wantCode(t, "Ann on the page, without the cookie", post(e, "/page", "name=ann@example.com&secret="+password), http.StatusTooManyRequests)
			}
			// Five mistakes on the device are free, then it must wait itself.
			for range 5 {
				wantCode(t, "a mistake", deviceLogin(e, transport, "ann@example.com", "wrong", device), http.StatusBadRequest)
			}
			w = deviceLogin(e, transport, "ann@example.com", password, device)
			if wantCode(t, "after five mistakes", w, http.StatusTooManyRequests); w.Header().Get("Retry-After") != "30" {
				t.Errorf("got Retry-After %q, want 30", w.Header().Get("Retry-After"))
			}
		})
	}
}

// An Auth for each transport, over one configuration, gives device tokens by its own way.
func TestDeviceTokenFollowsTheAnsweringTransport(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}}})
	web, err := auth.AnswerLoginsWith(ginauth.Cookie{})
	if err != nil {
		t.Fatal(err)
	}
	wantSetCookie(t, "bearer", logIn(engine(auth)), false)
	w := logIn(engine(web))
	if wantSetCookie(t, "cookie", w, true); w.Body.Len() != 0 {
		t.Errorf("the web login answered %s, want no body", w.Body)
	}
}

func TestDeviceTokenIsInNoEventAndNoError(t *testing.T) {
	h := newRig(t)
	var seen strings.Builder
	listen := func(_ context.Context, e event.Event) { fmt.Fprintf(&seen, "%+v %v\n", e, e.Err) }
	accounts, err := account.NewManager(h.users, nil, brokenAttempts{}, uuid.New, account.Config{
		Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true, OnEvent: listen,
	})
	if err != nil {
		t.Fatal(err)
	}
	auth, err := ginauth.New(h.sessions, accounts, ginauth.Config{OnEvent: listen})
	if err != nil {
		t.Fatal(err)
	}
	e := engine(auth)
	secret, digest := token.Device.New()
	for _, p := range []string{password, "wrong"} {
		w := deviceLogin(e, ginauth.Bearer{}, "ann@example.com", p, secret)
		fmt.Fprintln(&seen, w.Header(), w.Body)
	}
	if !strings.Contains(seen.String(), string(event.LimiterFailed)) || strings.Contains(seen.String(), secret) || strings.Contains(seen.String(), digest) {
		t.Errorf("got %s, want a failure of the limiter, without the device token", &seen)
	}
	issued := struct{ ginauth.Issued[member] }{}
	e.POST("/in", func(c *gin.Context) {
		issued.Issued, err = h.auth(t, ginauth.Config{}).LoginWithPassword(c, "ann@example.com", password, false)
	})
	wantCode(t, "login", post(e, "/in", ""), http.StatusOK)
	if out := fmt.Sprintf("%v %+v %#v", issued, issued, issued); err != nil || secretIn(out) {
		t.Errorf("got %v and %s, want no device token", err, out)
	}
}

// secretIn reports whether a text has a whole device token.
func secretIn(text string) bool {
	for i := range text {
		if end := i + len("lkd_") + 49; strings.HasPrefix(text[i:], "lkd_") && end <= len(text) {
			if _, ok := token.Device.Digest(text[i:end]); ok {
				return true
			}
		}
	}
	return false
}

// brokenAttempts is an account.AttemptStore that always fails.
type brokenAttempts struct{}

var errAttempts = errors.New("the attempts cannot be read")

func (brokenAttempts) Counters(context.Context, time.Time, ...string) ([]account.AttemptCounter, error) {
	return nil, errAttempts
}
func (brokenAttempts) Add(context.Context, string, time.Time, time.Time, bool) (account.AttemptCounter, error) {
	return account.AttemptCounter{}, errAttempts
}
func (brokenAttempts) Withdraw(context.Context, time.Time, string, int) error { return errAttempts }
func (brokenAttempts) Clear(context.Context, string) error                    { return errAttempts }
func (brokenAttempts) Remember(context.Context, string, time.Time, time.Time) error {
	return errAttempts
}
