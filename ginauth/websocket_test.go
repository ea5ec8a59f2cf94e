package ginauth_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"golang.org/x/net/websocket"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
)

// echo answers a WebSocket handshake from any origin and sends every message back.
func echo(c *gin.Context) {
	websocket.Server{Handler: func(ws *websocket.Conn) {
		var message string
		for websocket.Message.Receive(ws, &message) == nil {
			_ = websocket.Message.Send(ws, message)
		}
	}}.ServeHTTP(c.Writer, c.Request)
}

// dial opens a WebSocket, sends a message and expects it back. It returns the error of the
// handshake.
func dial(t *testing.T, server *httptest.Server, path, origin string, sent http.Header) error {
	t.Helper()
	cfg, err := websocket.NewConfig(strings.Replace(server.URL, "http", "ws", 1)+path, origin)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Header = sent
	ws, err := cfg.DialContext(t.Context())
	if err != nil {
		return err
	}
	defer func() { _ = ws.Close() }()
	var got string
	if err := errors.Join(websocket.Message.Send(ws, "hello"), websocket.Message.Receive(ws, &got)); err != nil || got != "hello" {
		t.Errorf("%s from %s: got the message %q and the error %v", path, origin, got, err)
	}
	return nil
}

// A handshake is a GET. Browsers send its origin, but some send no Sec-Fetch-Site.
func TestWebSocketHandshakeMustComeFromATrustedOrigin(t *testing.T) {
	h := newRig(t)
	const app, evil = "https://app.example.com", "https://evil.example"
	heard := make(chan event.Reason, 1)
	auth := h.auth(t, ginauth.Config{
		Transports:     []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}},
		TrustedOrigins: []string{app},
		OnEvent:        func(_ context.Context, e event.Event) { heard <- e.Reason },
	})
	r := gin.New()
	r.GET("/socket", auth.RequireUser(), echo)
	r.GET("/any", auth.RequireUser(ginauth.InsecureAnyWebSocketOrigin), echo)
	server := httptest.NewServer(r)
	defer server.Close()
	token := h.token(t)
	bearer := http.Header{"Authorization": {"Bearer " + token}}
	cookie := http.Header{"Cookie": {"__Host-latchkey=" + token}}
	for _, c := range []struct {
		what, path, origin string
		sent               http.Header
		opens              bool
	}{
		{"cookie, own origin", "/socket", server.URL, cookie, true},
		{"cookie, trusted origin", "/socket", app, cookie, true},
		{"cookie, another origin", "/socket", evil, cookie, false},
		{"cookie, another port of the own host", "/socket", "http://127.0.0.1:1", cookie, false},
		{"cookie, another port of a trusted origin", "/socket", app + ":8443", cookie, false},
		{"bearer, another origin", "/socket", evil, bearer, true},
		{"cookie, another origin, check is off", "/any", evil, cookie, true},
	} {
		err := dial(t, server, c.path, c.origin, c.sent)
		if (err == nil) != c.opens {
			t.Errorf("%s: got the error %v, want the WebSocket to open: %v", c.what, err, c.opens)
		}
		if c.opens {
			continue
		}
		if got := <-heard; got != event.ReasonCrossOrigin {
			t.Errorf("%s: got an event with the reason %q, want %q", c.what, got, event.ReasonCrossOrigin)
		}
	}
}

func TestWebSocketHandshakesAreRecognised(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, onlyCookie)
	r := engine(auth)
	r.GET("/any", auth.RequireUser(ginauth.InsecureAnyWebSocketOrigin), welcome)
	r.POST("/any", auth.RequireUser(ginauth.InsecureAnyWebSocketOrigin), welcome)
	r.GET("/stacked", auth.RequireUser(), auth.RequireUser(ginauth.InsecureAnyWebSocketOrigin), welcome)
	token := inCookie(h.token(t))
	upgrade := func(values ...string) option {
		return func(r *http.Request) { r.Header["Upgrade"] = values }
	}
	for _, c := range []struct {
		what, method, path string
		sent               []option
		want               int
	}{
		{"lower case", "GET", "/me", []option{upgrade("websocket"), fromAnotherSite}, 403},
		{"upper case", "GET", "/me", []option{upgrade("WebSocket"), fromAnotherSite}, 403},
		{"in a list", "GET", "/me", []option{upgrade("h2c, websocket"), fromAnotherSite}, 403},
		{"with a version", "GET", "/me", []option{upgrade("websocket/13"), fromAnotherSite}, 403},
		{"in a second header", "GET", "/me", []option{upgrade("h2c", "websocket"), fromAnotherSite}, 403},
		{"Origin alone", "GET", "/me", []option{upgrade("websocket"), header("Origin", "https://evil.example")}, 403},
		{"opaque origin", "GET", "/me", []option{upgrade("websocket"), header("Origin", "null")}, 403},
		{"own origin alone", "GET", "/me", []option{upgrade("websocket"), header("Origin", "https://example.com")}, 200},
		{"no browser", "GET", "/me", []option{upgrade("websocket")}, 200},
		{"another protocol", "GET", "/me", []option{upgrade("h2c"), fromAnotherSite}, 200},
		{"no handshake", "GET", "/me", []option{fromAnotherSite}, 200},
		{"check is off", "GET", "/any", []option{upgrade("websocket"), fromAnotherSite}, 200},
		{"check is off, unsafe method", "POST", "/any", []option{fromAnotherSite}, 403},
		{"check is off in one of two guards", "GET", "/stacked", []option{upgrade("websocket"), fromAnotherSite}, 403},
	} {
		wantCode(t, c.what, request(r, c.method, c.path, append(c.sent, token)...), c.want)
	}
	w := request(r, "GET", "/me", upgrade("websocket"), token)
	wantVary(t, "handshake", w, "Cookie", "Origin", "Sec-Fetch-Site")
}
