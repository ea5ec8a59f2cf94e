package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey"
)

// rig is the program, which runs until the test ends.
type rig struct {
	t       *testing.T
	base    string
	dataDir string
	stop    func() error
}

func newRig(t *testing.T, args ...string) *rig {
	t.Helper()
	t.Setenv("MONGODB_URI", "")
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, append([]string{"-addr", "127.0.0.1:0", "-timeout", "1m"}, args...), w, io.Discard) // hashing is slow with the race detector
		_ = w.CloseWithError(io.EOF)
		done <- err
	}()
	q := &rig{t: t}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if dir, ok := strings.CutPrefix(lines.Text(), "MongoDB-compatible server in this process, data in "); ok {
			q.dataDir = dir
		}
		if base, ok := strings.CutPrefix(lines.Text(), "listening on "); ok {
			q.base = base
			break
		}
	}
	if q.base == "" {
		t.Fatalf("the program did not print its address: %v", <-done)
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	stopped := false
	q.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() { _ = q.stop() })
	return q
}

func (q *rig) do(method, path, contentType, body string, auth func(*http.Request)) (*http.Response, string) {
	q.t.Helper()
	req, err := http.NewRequest(method, q.base+path, strings.NewReader(body))
	if err != nil {
		q.t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if auth != nil {
		auth(req)
	}
	resp, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		q.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		q.t.Fatal(err)
	}
	return resp, string(text)
}

func bearer(token string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
}

func (q *rig) want(status int, method, path string, auth func(*http.Request)) string {
	q.t.Helper()
	resp, body := q.do(method, path, "", "", auth)
	if resp.StatusCode != status {
		q.t.Errorf("%s %s answered %d %s, want %d", method, path, resp.StatusCode, body, status)
	}
	return body
}

func (q *rig) login(email, encoding string) string {
	q.t.Helper()
	contentType, body := "application/x-www-form-urlencoded", url.Values{"username": {email}, "password": {demoPassword}}.Encode()
	if encoding == "JSON" {
		contentType, body = "application/json", `{"username":"`+email+`","password":"`+demoPassword+`"}`
	}
	resp, text := q.do(http.MethodPost, "/auth/login", contentType, body, nil)
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || resp.StatusCode != http.StatusOK {
		q.t.Fatalf("login answered %d %s", resp.StatusCode, text)
	}
	return answer.AccessToken
}

func TestLoginGuardLogout(t *testing.T) {
	q := newRig(t, "-lifetime", "90s")
	var tokens []string
	for _, encoding := range []string{"form", "JSON"} {
		token := q.login("member@example.com", encoding)
		tokens = append(tokens, token)
		if body := q.want(http.StatusOK, http.MethodGet, "/me", bearer(token)); !strings.Contains(body, `"user":"member@example.com"`) {
			t.Errorf("/me answered %s", body)
		}
		q.want(http.StatusNoContent, http.MethodPost, "/auth/logout", bearer(token))
		q.want(http.StatusUnauthorized, http.MethodGet, "/me", bearer(token))
	}

	// No file of the database contains a token or the demo password.
	live := q.login("member@example.com", "form")
	tokens = append(tokens, live, demoPassword)
	q.want(http.StatusOK, http.MethodGet, "/me", bearer(live))
	files, read := 0, 0
	err := filepath.WalkDir(q.dataDir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files, read = files+1, read+len(content)
		for _, token := range tokens {
			if bytes.Contains(content, []byte(token)) {
				t.Errorf("%s contains a secret in plain text", path)
			}
		}
		return nil
	})
	if err != nil || files == 0 || read < 4096 {
		t.Errorf("searched %d files of %d bytes (error %v)", files, read, err)
	}
	if !contains(t, q.dataDir, "member@example.com") {
		t.Error("the search does not find an email address, which must be there")
	}

	if err := q.stop(); err != nil {
		t.Errorf("the program ended with error %v", err)
	}
	if _, err := os.Stat(q.dataDir); !os.IsNotExist(err) {
		t.Errorf("the data directory still exists (error %v)", err)
	}
}

// contains reports whether a file below dir contains text.
func contains(t *testing.T, dir, text string) (found bool) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		found = found || bytes.Contains(content, []byte(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestSessionRoutes(t *testing.T) {
	q := newRig(t, "-lifetime", "1h", "-remember", "24h", "-idle-timeout", "30m", "-max-sessions", "3")
	const form = "application/x-www-form-urlencoded"
	credentials := url.Values{"username": {"member@example.com"}, "password": {demoPassword}}

	// remember=true gives a longer lifetime.
	for remember, want := range map[string]string{"": `"expires_in":3600`, "true": `"expires_in":86400`} {
		credentials.Set("remember", remember)
		if resp, body := q.do(http.MethodPost, "/auth/login", form, credentials.Encode(), nil); resp.StatusCode != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("login with remember=%s answered %d %s, want %s", remember, resp.StatusCode, body, want)
		}
	}
	// The fourth login ends the oldest session. The list marks the current one.
	first := q.login("member@example.com", "form")
	second := q.login("member@example.com", "JSON")
	third := q.login("member@example.com", "form")
	fourth := q.login("member@example.com", "form")
	q.want(http.StatusUnauthorized, http.MethodGet, "/me", bearer(first))
	var listed struct {
		Sessions []struct {
			ID      string
			Current bool
		}
	}
	if err := json.Unmarshal([]byte(q.want(http.StatusOK, http.MethodGet, "/auth/sessions", bearer(third))), &listed); err != nil {
		t.Fatal(err)
	}
	if len(listed.Sessions) != 3 || !listed.Sessions[1].Current {
		t.Fatalf("listed %+v, want three with the second current", listed.Sessions)
	}
	q.want(http.StatusNoContent, http.MethodDelete, "/auth/sessions/"+listed.Sessions[0].ID, bearer(third))
	q.want(http.StatusUnauthorized, http.MethodGet, "/me", bearer(fourth))

	// Entering the password again gives a new token.
	q.want(http.StatusOK, http.MethodGet, "/fresh", bearer(third))
	resp, body := q.do(http.MethodPost, "/auth/reauthenticate", form, url.Values{"password": {demoPassword}}.Encode(), bearer(third))
	var renewed struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(body), &renewed); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("reauthenticate answered %d %s", resp.StatusCode, body)
	}
	q.want(http.StatusUnauthorized, http.MethodGet, "/me", bearer(third))
	q.want(http.StatusOK, http.MethodGet, "/fresh", bearer(renewed.AccessToken))

	// Only superusers may introspect tokens.
	introspect := func(token string) (int, string) {
		resp, body := q.do(http.MethodPost, "/auth/introspect", form, url.Values{"token": {second}}.Encode(), bearer(token))
		return resp.StatusCode, body
	}
	admin := q.login("admin@example.com", "form")
	if status, body := introspect(admin); status != http.StatusOK || !strings.Contains(body, `"active":true`) {
		t.Errorf("introspection answered %d %s", status, body)
	}
	if status, _ := introspect(renewed.AccessToken); status != http.StatusForbidden {
		t.Errorf("introspection answered a member with %d, want 403", status)
	}

	// logout-all ends all sessions.
	q.want(http.StatusNoContent, http.MethodPost, "/auth/logout-all", bearer(renewed.AccessToken))
	q.want(http.StatusUnauthorized, http.MethodGet, "/me", bearer(second))
	if status, body := introspect(admin); status != http.StatusOK || body != `{"active":false}` {
		t.Errorf("introspection of a revoked token answered %d %s", status, body)
	}
}

func TestDemoAccountsOnAllRoutes(t *testing.T) {
	q := newRig(t)
	for _, c := range []struct {
		email                             string
		me, verified, superuser, optional int
	}{
		{"member@example.com", 200, 403, 403, 200},
		{"verified@example.com", 200, 200, 403, 200},
		{"admin@example.com", 200, 200, 200, 200},
		{"", 401, 401, 401, 200},
	} {
		t.Run(c.email, func(t *testing.T) {
			q := &rig{t: t, base: q.base}
			transports := map[string]func(*http.Request){"": nil}
			if c.email != "" {
				transports = map[string]func(*http.Request){"bearer": bearer(q.login(c.email, "form")), "cookie": q.cookie(c.email)}
			}
			for transport, auth := range transports {
				t.Run(transport, func(t *testing.T) {
					q := &rig{t: t, base: q.base}
					q.want(c.me, http.MethodGet, "/me", auth)
					q.want(c.verified, http.MethodGet, "/verified", auth)
					q.want(c.superuser, http.MethodGet, "/superuser", auth)
					body := q.want(c.optional, http.MethodGet, "/optional", auth)
					want := `"user":"` + c.email + `"`
					if c.email == "" {
						want = `"user":null`
					}
					if !strings.Contains(body, want) {
						t.Errorf("/optional answered %s, want %s", body, want)
					}
				})
			}
		})
	}
	resp, body := q.do(http.MethodPost, "/auth/login", "application/x-www-form-urlencoded",
		url.Values{"username": {"inactive@example.com"}, "password": {demoPassword}}.Encode(), nil)
	if resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, "LOGIN_BAD_CREDENTIALS") {
		t.Errorf("the inactive account's login answered %d %s", resp.StatusCode, body)
	}
}

func (q *rig) cookie(email string) func(*http.Request) {
	q.t.Helper()
	resp, body := q.do(http.MethodPost, "/auth/cookie/login", "application/x-www-form-urlencoded",
		url.Values{"username": {email}, "password": {demoPassword}}.Encode(), nil)
	if resp.StatusCode != http.StatusNoContent || len(resp.Cookies()) != 2 {
		q.t.Fatalf("cookie login answered %d %s with %d cookies, want the session's and the device's", resp.StatusCode, body, len(resp.Cookies()))
	}
	cookie := resp.Cookies()[0]
	return func(r *http.Request) { r.AddCookie(&http.Cookie{Name: cookie.Name, Value: cookie.Value}) }
}

func TestInvalidFlagsAreErrors(t *testing.T) {
	for _, args := range [][]string{{"-lifetime", "soon"}, {"-lifetime", "-1h"}, {"-remember", "30m"}, {"-lifetime", "0", "-remember", "1h"},
		{"-idle-timeout", "-1s"}, {"-max-sessions", "-1"}, {"-cache-staleness", "-1s"}, {"-cache-staleness", "2m"}, {"-login-limit", "-1"}, {"-login-limit", "27"}, {"-max-hashes", "-1"}, {"extra"}, {"-mongodb-uri", "nonsense"}, {"-addr", "nowhere:-1"}} {
		t.Setenv("MONGODB_URI", "")
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}

func TestTooManyWrongPasswords(t *testing.T) {
	q := newRig(t, "-login-limit", "2", "-max-hashes", "1")
	attempt := func(password string) *http.Response {
		t.Helper()
		resp, _ := q.do(http.MethodPost, "/auth/login", "application/x-www-form-urlencoded",
			url.Values{"username": {"member@example.com"}, "password": {password}}.Encode(), nil)
		return resp
	}
	for i, want := range []int{http.StatusBadRequest, http.StatusBadRequest, http.StatusTooManyRequests} {
		if resp := attempt("wrong"); resp.StatusCode != want {
			t.Fatalf("wrong password %d: got %s, want %d", i+1, resp.Status, want)
		}
	}
	resp := attempt(demoPassword)
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); resp.StatusCode != http.StatusTooManyRequests || err != nil || seconds < 1 || seconds > 60 {
		t.Errorf("the right password: got %s and Retry-After %q, want 429 and up to 60 seconds", resp.Status, resp.Header.Get("Retry-After"))
	}
	q.login("verified@example.com", "form") // another account
}

func TestLogoutAppliesAtOnceWithACache(t *testing.T) {
	q := newRig(t, "-cache-staleness", "1m")
	token := q.login("member@example.com", "form")
	for range 3 {
		q.want(http.StatusOK, http.MethodGet, "/me", bearer(token))
	}
	q.want(http.StatusNoContent, http.MethodPost, "/auth/logout", bearer(token))
	q.want(http.StatusUnauthorized, http.MethodGet, "/me", bearer(token))
}

// json sends a JSON body.
func (q *rig) json(status int, method, path, body string, auth func(*http.Request)) map[string]any {
	q.t.Helper()
	resp, text := q.do(method, path, "application/json", body, auth)
	if resp.StatusCode != status {
		q.t.Fatalf("%s %s answered %d, want %d", method, path, resp.StatusCode, status)
	}
	var members map[string]any
	if text != "" && text != "null" {
		if err := json.Unmarshal([]byte(text), &members); err != nil {
			q.t.Fatalf("%s %s answered no JSON object", method, path)
		}
	}
	return members
}

// mail waits for a mail of a kind to an address in the outbox, and returns the token of the
// newest.
func (q *rig) mail(kind, to string) string {
	q.t.Helper()
	for range 500 {
		_, text := q.do("GET", "/outbox", "", "", nil)
		var mails []mail
		if err := json.Unmarshal([]byte(text), &mails); err != nil {
			q.t.Fatal("the outbox is no list of mails")
		}
		for _, m := range mails {
			if string(m.Kind) == kind && m.To == to {
				return m.Token
			}
		}
		time.Sleep(10 * time.Millisecond) // mails are sent behind the answer
	}
	q.t.Fatalf("no mail of the kind %s", kind)
	return ""
}

func TestAccountFromSignUpToDeletion(t *testing.T) {
	q := newRig(t)
	const address, password = "nina@example.com", "a good long password"
	user := q.json(201, "POST", "/auth/register", `{"email":"Nina@Example.com","password":"`+demoPassword+`","name":"Nina","is_superuser":true}`, nil)
	if user["email"] != address || user["name"] != "Nina" || user["is_superuser"] != false || user["is_verified"] != false {
		t.Errorf("register answered %v", user)
	}
	q.json(400, "POST", "/auth/register", `{"email":"`+address+`","password":"`+password+`"}`, nil)

	q.json(202, "POST", "/auth/request-verify-token", `{"email":"`+address+`"}`, nil)
	verification := q.mail("verification", address)
	q.json(200, "POST", "/auth/verify", `{"token":"`+verification+`"}`, nil)
	q.json(400, "POST", "/auth/verify", `{"token":"`+verification+`"}`, nil)

	session := bearer(q.login(address, "JSON"))
	q.want(200, "GET", "/verified", session)
	if got := q.json(200, "PATCH", "/users/me", `{"name":"Nora","is_superuser":true}`, session); got["name"] != "Nora" || got["is_superuser"] != false {
		t.Errorf("PATCH answered %v", got)
	}
	const newAddress = "nora@example.com"
	if got := q.json(200, "PATCH", "/users/me", `{"email":"`+newAddress+`"}`, session); got["email"] != address || got["pending_email"] != newAddress {
		t.Errorf("PATCH answered %v", got)
	}
	if got := q.json(200, "POST", "/auth/verify", `{"token":"`+q.mail("email_change", newAddress)+`"}`, nil); got["email"] != newAddress {
		t.Errorf("verify answered %v", got)
	}

	q.json(202, "POST", "/auth/forgot-password", `{"email":"`+newAddress+`"}`, nil)
	reset := q.mail("password_reset", newAddress)
	q.json(200, "POST", "/auth/reset-password", `{"token":"`+reset+`","password":"`+demoPassword+`"}`, nil)
	q.want(401, "GET", "/me", session)

	admin := bearer(q.login("admin@example.com", "JSON"))
	id, _ := user["id"].(string)
	q.json(403, "GET", "/users/"+id, "", bearer(q.login(newAddress, "JSON")))
	q.json(200, "PATCH", "/users/"+id, `{"is_superuser":true}`, admin)
	if got := q.json(200, "GET", "/users?email=NORA", "", admin); len(got["users"].([]any)) != 1 {
		t.Errorf("the list has %d users, want 1", len(got["users"].([]any)))
	}
	session = bearer(q.login(newAddress, "JSON"))
	made := q.json(201, "POST", "/auth/tokens", `{"name":"script","scopes":["me:read"]}`, session)
	script, _ := made["token"].(string)
	q.want(200, "GET", "/me/script", bearer(script))
	q.want(403, "GET", "/me", bearer(script))
	q.json(204, "DELETE", "/users/me", "", session)
	q.want(401, "GET", "/me/script", bearer(script))
	q.want(401, "GET", "/me", session)
	q.json(404, "GET", "/users/"+id, "", admin)
}

// The outbox has tokens, so it is for a demo only.
func TestOutboxIsNotServedWithARealDatabase(t *testing.T) {
	a := &app{outbox: &outbox{print: io.Discard}}
	if a.Latchkey = newLatchkey(t); a.Latchkey == nil {
		t.FailNow()
	}
	for _, c := range []struct {
		show bool
		want int
	}{{true, 200}, {false, 404}} {
		h, err := a.handler(c.show)
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/outbox", nil))
		if w.Code != c.want {
			t.Errorf("with showOutbox %v, GET /outbox answered %d, want %d", c.show, w.Code, c.want)
		}
	}
}

// newLatchkey returns a Latchkey that has not connected to its database.
func newLatchkey(t *testing.T) *latchkey.Latchkey[Member, uuid.UUID] {
	t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	lk, err := latchkey.New[Member](client.Database("unused"), uuid.New, latchkey.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lk.Close)
	return lk
}
