package latchkeytest_test

import (
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/latchkeytest"
)

// A table test of handlers with their guards. In a test of yours, t is its *testing.T, and Router is
// your function that makes the routes.
func Example() {
	example(func(t testing.TB) {
		kit := latchkeytest.New[Member](t, uuid.New, latchkey.Config{})
		router := Router(kit.Latchkey)
		ann := kit.NewUser(t, Member{Name: "Ann"})
		for _, c := range []struct {
			name, path string
			login      *latchkeytest.Login[Member]
			want       int
		}{
			{"any user", "/hello", kit.As(t, ann), 200},
			{"old login", "/fresh", kit.As(t, ann, latchkeytest.LoginAge(time.Hour)), 401},
			{"no superuser", "/admin", kit.As(t, ann), 403},
			{"superuser", "/admin", kit.As(t, ann, latchkeytest.Superuser), 200},
			{"script", "/script", kit.As(t, ann, latchkeytest.Scopes("hello:read")), 200},
		} {
			w := httptest.NewRecorder()
			router.ServeHTTP(w, c.login.Request("GET", c.path, nil))
			if w.Code != c.want {
				t.Errorf("%s: got %d, want %d", c.name, w.Code, c.want)
			}
			fmt.Println(c.name, w.Code)
		}
	})

	// Output:
	// any user 200
	// old login 401
	// no superuser 403
	// superuser 200
	// script 200
}

// From the registration to the log-out, as a browser does it. Nobody waits for the mail.
func Example_endToEnd() {
	example(func(t testing.TB) {
		kit := latchkeytest.New[Member](t, uuid.New, latchkey.Config{RequireVerified: true})
		srv := httptest.NewTLSServer(Router(kit.Latchkey))
		defer srv.Close()
		browser := srv.Client()
		browser.Jar, _ = cookiejar.New(nil)
		step := func(what string, resp *http.Response, err error) {
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			fmt.Println(what, resp.StatusCode)
		}
		postJSON := func(path, body string) {
			resp, err := browser.Post(srv.URL+path, "application/json", strings.NewReader(body))
			step(path, resp, err)
		}
		login := url.Values{"username": {"ann@example.com"}, "password": {"a good password"}}

		postJSON("/auth/register", `{"email": "ann@example.com", "password": "a good password", "name": "Ann"}`)
		resp, err := browser.PostForm(srv.URL+"/web/login", login)
		step("login before the verification", resp, err)

		postJSON("/auth/request-verify-token", `{"email": "ann@example.com"}`)
		_, token, _ := strings.Cut(kit.Mail.LastLink(t, "ann@example.com"), "#token=")
		postJSON("/auth/verify", `{"token": "`+token+`"}`)

		resp, err = browser.PostForm(srv.URL+"/web/login", login)
		step("login", resp, err)
		resp, err = browser.Get(srv.URL + "/hello")
		step("hello", resp, err)
		resp, err = browser.Post(srv.URL+"/web/logout", "", nil)
		step("log-out", resp, err)
		resp, err = browser.Get(srv.URL + "/hello")
		step("hello", resp, err)

		kit.Events.Want(t, event.AccountRegistered, event.LoginDenied, event.AccountVerified, event.LoginSucceeded, event.TokenRevoked)
	})

	// Output:
	// /auth/register 201
	// login before the verification 400
	// /auth/request-verify-token 202
	// /auth/verify 200
	// login 204
	// hello 200
	// log-out 204
	// hello 401
}

// Sessions expire without a wait.
func ExampleKit_Advance() {
	example(func(t testing.TB) {
		kit := latchkeytest.New[Member](t, uuid.New, latchkey.Config{Lifetime: 12 * time.Hour})
		router := Router(kit.Latchkey)
		login := kit.As(t, kit.NewUser(t, Member{Name: "Ann"}))
		for _, pass := range []time.Duration{12 * time.Hour, time.Millisecond} {
			kit.Advance(pass)
			w := httptest.NewRecorder()
			router.ServeHTTP(w, login.Request("GET", "/hello", nil))
			fmt.Println(w.Code)
		}
		denied := kit.Events.Want(t, event.TokenDenied)
		fmt.Println(denied.Reason)
	})

	// Output:
	// 200
	// 401
	// expired
}

// A client has the cookie of a login. For a browser that a test drives, take it from Jar.
func ExampleLogin_Client() {
	example(func(t testing.TB) {
		kit := latchkeytest.New[Member](t, uuid.New, latchkey.Config{})
		srv := httptest.NewServer(Router(kit.Latchkey))
		defer srv.Close()
		client := kit.As(t, kit.NewUser(t, Member{Name: "Ann"})).Client(srv)
		resp, err := client.Get(srv.URL + "/hello")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		fmt.Println(resp.StatusCode)
	})

	// Output:
	// 200
}

// No account, no token and no store: guards admit the context, and so does code that asks it.
func ExampleContextAs() {
	example(func(t testing.TB) {
		router := Router(latchkeytest.New[Member](t, uuid.New, latchkey.Config{}).Latchkey) // or that of latchkey.New
		ctx := latchkeytest.ContextAs(t, Member{Name: "Ann"}, latchkeytest.Verified)
		w := httptest.NewRecorder()
		router.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/verified", nil))
		fmt.Println(w.Code, w.Body)
	})

	// Output:
	// 200 hello, Ann
}
