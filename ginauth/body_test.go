package ginauth_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/ginauth"
)

const (
	formType = "application/x-www-form-urlencoded"
	jsonType = "application/json"
)

// sendBody sends a body of a type. chunked leaves out its length.
func sendBody(h http.Handler, path, contentType, body string, chunked bool, options ...option) *httptest.ResponseRecorder {
	req := httptest.NewRequest("POST", path, strings.NewReader(body))
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if chunked {
		req.ContentLength = -1
	}
	for _, option := range options {
		option(req)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func TestByteOrderMarkIsAccepted(t *testing.T) {
	r := engine(newRig(t).auth(t, ginauth.Config{}))
	const json = `{"username": "ann@example.com", "password": "` + password + `"}`
	const form = "username=ann@example.com&password=" + password
	part := func(name, value string) string {
		return "--x\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value + "\r\n"
	}
	multipart := part("username", "ann@example.com") + part("password", password) + "--x--\r\n"
	for what, c := range map[string]struct {
		contentType, body string
		code              int
	}{
		"JSON":           {jsonType, "\ufeff" + json, 200},
		"form":           {formType, "\ufeff" + form, 200},
		"multipart":      {"multipart/form-data; boundary=x", "\ufeff" + multipart, 200},
		"two marks":      {jsonType, "\ufeff\ufeff" + json, 422},
		"mark of UTF-16": {jsonType, "\xff\xfe" + json, 422},
		"mark alone":     {jsonType, "\ufeff", 422},
		"mark at end":    {jsonType, json + "\ufeff", 422},
	} {
		wantCode(t, what, sendBody(r, "/login", c.contentType, c.body, false), c.code)
	}
}

func TestEncodedBodyIs415(t *testing.T) {
	h := newRig(t)
	r := engine(h.auth(t, ginauth.Config{}))
	const form = "username=ann@example.com&password=" + password
	for encoding, code := range map[string]int{
		"gzip": 415, "GZIP": 415, "br": 415, "deflate, identity": 415, "x": 415, "identity": 200, "Identity": 200, "": 200, " , ": 200,
	} {
		w := sendBody(r, "/login", formType, form, false, header("Content-Encoding", encoding))
		wantCode(t, encoding, w, code)
		if got := w.Header().Get("Accept-Encoding"); (got == "identity") != (code == 415) {
			t.Errorf("%s: got Accept-Encoding %q with %d", encoding, got, code)
		}
	}
	w := sendBody(r, "/login", formType, form, false, header("Content-Encoding", "identity"), header("Content-Encoding", "gzip"))
	wantCode(t, "two headers", w, http.StatusUnsupportedMediaType)
	for _, path := range []string{"/reauthenticate", "/logout-all"} {
		w := sendBody(r, path, formType, "password="+password, true, header("Content-Encoding", "gzip"), inHeader(h.token(t)))
		wantCode(t, path, w, http.StatusUnsupportedMediaType)
	}
}

func TestLogoutAllWithoutFields(t *testing.T) {
	h := newRig(t)
	r := engine(h.auth(t, ginauth.Config{}))
	for what, c := range map[string]struct {
		contentType, body string
		code              int
	}{
		"empty":                   {"", "", 204},
		"empty form":              {formType, "", 204},
		"empty JSON":              {jsonType, "", 204},
		"empty of another type":   {"text/plain", "", 204},
		"byte order mark":         {jsonType, "\ufeff", 204},
		"null":                    {jsonType, "null", 204},
		"null and blanks":         {jsonType, " null\n", 204},
		"object":                  {jsonType, "{}", 204},
		"null field":              {jsonType, `{"keep_current": null}`, 204},
		"null of another type":    {"text/plain", "null", 415},
		"null without a type":     {"", "null", 415},
		"two nulls":               {jsonType, "null null", 422},
		"array":                   {jsonType, "[]", 422},
		"blanks":                  {jsonType, " ", 422},
		"null in a form: a field": {formType, "null", 204},
	} {
		for _, chunked := range []bool{true, false} {
			token := h.token(t)
			w := sendBody(r, "/logout-all", c.contentType, c.body, chunked, inHeader(token))
			wantCode(t, fmt.Sprintf("%s, chunked: %v", what, chunked), w, c.code)
			h.wantLive(t, what, c.code != http.StatusNoContent, token)
		}
	}
}

// Without a bound, net/http waits for the body before it answers.
func TestUnsentBodyIsBounded(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{BodyTimeout: 50 * time.Millisecond})
	r := engine(auth)
	r.GET("/optional", auth.OptionalUser(), welcome)
	server := httptest.NewServer(r)
	defer server.Close()
	for _, c := range []struct {
		request string
		code    int
	}{
		{"GET /me", 200}, {"GET /sessions", 200}, {"DELETE /sessions/x", 404}, {"GET /optional", 200},
		{"POST /logout-all", 408}, {"POST /login", 408}, {"POST /logout", 204},
	} {
		for _, length := range []string{"Content-Length: 5", "Transfer-Encoding: chunked"} {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Type: %s\r\n%s\r\n\r\n", c.request, h.token(t), formType, length)
			resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: strings.Fields(c.request)[0]})
			if err != nil {
				t.Errorf("%s, %s: got the error %v, want an answer", c.request, length, err)
			} else if resp.Body.Close(); resp.StatusCode != c.code {
				t.Errorf("%s, %s: got %d, want %d", c.request, length, resp.StatusCode, c.code)
			}
			_ = conn.Close()
		}
	}
}

// A handler that reads the body of a GET request after all may then take its time.
func TestBoundEndsWithTheBody(t *testing.T) {
	auth := newRig(t).auth(t, ginauth.Config{BodyTimeout: time.Hour})
	r := gin.New()
	r.Any("/", auth.OptionalUser(), func(c *gin.Context) {
		if c.Query("read") != "" {
			if body, err := c.GetRawData(); err != nil || string(body) != "hello" {
				t.Errorf("got the body %q and the error %v, want hello", body, err)
			}
		}
	})
	r.Any("/required", auth.RequireUser(), welcome)
	for what, c := range map[string]struct {
		method, path, body string
		set                []bool // deadlines: set or removed
	}{
		"GET, unread":    {"GET", "/", "hello", []bool{true}},
		"HEAD, unread":   {"HEAD", "/", "hello", []bool{true}},
		"GET, read":      {"GET", "/?read=1", "hello", []bool{true, false}},
		"GET, no body":   {"GET", "/", "", nil},
		"POST, read":     {"POST", "/?read=1", "hello", nil},
		"POST, unread":   {"POST", "/", "hello", nil},
		"POST, rejected": {"POST", "/required", "hello", []bool{true}},
	} {
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		r.ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		var set []bool
		for _, at := range w.set {
			set = append(set, !at.IsZero())
		}
		if fmt.Sprint(set) != fmt.Sprint(c.set) {
			t.Errorf("%s: got deadlines set or removed: %v, want %v", what, set, c.set)
		}
	}
}
