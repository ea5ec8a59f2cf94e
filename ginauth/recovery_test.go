package ginauth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/strategy"
)

// recovered serves a handler behind Recovery and a guard, at a route with a path value.
func recovered(t testing.TB, handler gin.HandlerFunc) (h *rig, r *gin.Engine, log *bytes.Buffer) {
	t.Helper()
	h, r, log = newRig(t), gin.New(), new(bytes.Buffer)
	auth := h.auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}}})
	r.Use(ginauth.Recovery(slog.New(slog.NewJSONHandler(log, nil))))
	r.POST("/things/:secret", auth.RequireUser(), handler)
	return h, r, log
}

// entry decodes the only entry of a log.
func entry(t *testing.T, log *bytes.Buffer) map[string]any {
	t.Helper()
	var e map[string]any
	if err := json.Unmarshal(log.Bytes(), &e); err != nil {
		t.Fatalf("got the log %s, want one entry: %v", log, err)
	}
	return e
}

func brokenPipe() error {
	return &net.OpError{Op: "write", Net: "tcp", Err: os.NewSyscallError("write", syscall.EPIPE)}
}

func TestRecoveryLogsNoCredentials(t *testing.T) {
	mode := gin.Mode()
	gin.SetMode(gin.DebugMode)
	defer gin.SetMode(mode)
	gin.DefaultWriter = io.Discard
	defer func() { gin.DefaultWriter = os.Stdout }()

	type carrier struct{ *http.Request }
	for what, value := range map[string]func(c *gin.Context) any{
		"text":            func(*gin.Context) any { return "no such thing" },
		"error":           func(*gin.Context) any { return errDown },
		"broken pipe":     func(*gin.Context) any { return brokenPipe() },
		"reset":           func(*gin.Context) any { return fmt.Errorf("write: %w", syscall.ECONNRESET) },
		"number":          func(*gin.Context) any { return 42 },
		"gin.Context":     func(c *gin.Context) any { return c },
		"request":         func(c *gin.Context) any { return c.Request },
		"header":          func(c *gin.Context) any { return c.Request.Header },
		"struct":          func(c *gin.Context) any { return carrier{c.Request} },
		"URL":             func(c *gin.Context) any { return c.Request.URL },
		"request context": func(c *gin.Context) any { return c.Request.Context() },
		"slice":           func(c *gin.Context) any { return c.Request.Cookies() },
	} {
		h, r, log := recovered(t, func(c *gin.Context) { panic(value(c)) })
		bearer, cookie := h.token(t), h.token(t)
		w := request(r, "POST", "/things/path-secret?q=query-secret", inHeader(bearer), inCookie(cookie), header("X-Api-Key", "key-secret"))
		wantCode(t, what, w, http.StatusInternalServerError)
		for _, secret := range []string{bearer, cookie, "path-secret", "query-secret", "key-secret"} {
			if strings.Contains(log.String(), secret) {
				t.Errorf("%s: got the log %s, want %q not in it", what, log, secret)
			}
		}
		if e := entry(t, log); e["method"] != "POST" || e["route"] != "/things/:secret" || e["panic"] == "" {
			t.Errorf("%s: got the log %v, want the panic, the method and the route", what, e)
		}
	}
}

func TestRecoveryLogsThePanic(t *testing.T) {
	for what, c := range map[string]struct {
		value any
		panic string
		level string
		stack bool
	}{
		"text":        {"no such thing", "no such thing", "ERROR", true},
		"error":       {fmt.Errorf("find: %w", errDown), "find: " + errDown.Error(), "ERROR", true},
		"number":      {42, "42", "ERROR", true},
		"struct":      {struct{ A int }{1}, "a value of type struct { A int }", "ERROR", true},
		"secret":      {strategy.NewSecret("x"), "a value of type strategy.Secret", "ERROR", true},
		"broken pipe": {brokenPipe(), "write tcp: write: broken pipe", "WARN", false},
	} {
		h, r, log := recovered(t, func(*gin.Context) { panic(c.value) })
		request(r, "POST", "/things/1", inHeader(h.token(t)))
		e := entry(t, log)
		if e["panic"] != c.panic || e["level"] != c.level {
			t.Errorf("%s: got the panic %q at level %v, want %q at %s", what, e["panic"], e["level"], c.panic, c.level)
		}
		if stack, _ := e["stack"].(string); strings.Contains(stack, "recovery_test.go") != c.stack {
			t.Errorf("%s: got the stack %q, want it there: %v", what, stack, c.stack)
		}
	}
}

func TestRecoveryAnswers500(t *testing.T) {
	h, r, _ := recovered(t, func(c *gin.Context) {
		c.Header("Content-Encoding", "gzip")
		c.Header("Content-Length", "1000")
		c.Header("Cache-Control", "max-age=60")
		c.Status(http.StatusCreated)
		panic("too late")
	})
	ran := false
	r.POST("/more", func(*gin.Context) { panic("first") }, func(*gin.Context) { ran = true })
	w := request(r, "POST", "/things/1", inHeader(h.token(t)))
	wantCode(t, "panic", w, http.StatusInternalServerError)
	if got, want := w.Body.String(), `{"detail":"INTERNAL_SERVER_ERROR"}`; got != want {
		t.Errorf("got the body %s, want %s", got, want)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json; charset=utf-8", "Content-Encoding": "", "Content-Length": "", "Cache-Control": "no-store",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("got %s %q, want %q", name, got, want)
		}
	}
	wantCode(t, "panic before another handler", request(r, "POST", "/more"), http.StatusInternalServerError)
	if ran {
		t.Error("the handler after the panic ran")
	}
}

func TestRecoveryLeavesABegunAnswer(t *testing.T) {
	h, r, log := recovered(t, func(c *gin.Context) {
		c.String(http.StatusCreated, "half of ")
		panic("the rest is missing")
	})
	w := request(r, "POST", "/things/1", inHeader(h.token(t)))
	wantCode(t, "panic", w, http.StatusCreated)
	if got := w.Body.String(); got != "half of " {
		t.Errorf("got the body %s, want what the handler wrote", got)
	}
	if e := entry(t, log); e["panic"] != "the rest is missing" {
		t.Errorf("got the log %v, want the panic", e)
	}
}

func TestRecoveryLetsAbortHandlerPass(t *testing.T) {
	for what, value := range map[string]error{
		"plain": http.ErrAbortHandler, "wrapped": fmt.Errorf("proxy: %w", http.ErrAbortHandler),
	} {
		h, r, log := recovered(t, func(*gin.Context) { panic(value) })
		server := httptest.NewServer(r)
		req, err := http.NewRequest("POST", server.URL+"/things/1", nil)
		if err != nil {
			t.Fatal(err)
		}
		inHeader(h.token(t))(req)
		resp, err := server.Client().Do(req)
		if err == nil {
			_ = resp.Body.Close()
			t.Errorf("%s: got the answer %s, want the connection closed", what, resp.Status)
		}
		server.Close()
		if log.Len() > 0 {
			t.Errorf("%s: got the log %s, want none", what, log)
		}
	}
}

func TestRecoveryUsesTheDefaultLogger(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	defer slog.SetDefault(before)
	r := gin.New()
	r.Use(ginauth.Recovery(nil))
	r.GET("/", func(*gin.Context) { panic(errors.New("no such thing")) })
	slog.SetDefault(slog.New(slog.NewJSONHandler(&log, nil))) // later than Recovery
	wantCode(t, "panic", request(r, "GET", "/"), http.StatusInternalServerError)
	if e := entry(t, &log); e["panic"] != "no such thing" || e["route"] != "/" {
		t.Errorf("got the log %v, want the panic", e)
	}
}

// A panic in a check or in the strategy must not leave the client IP of a later request in a
// context that outlives this one.
func TestPanickingCheckLeavesNoClientIP(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{})
	var seen context.Context
	check := auth.CheckUser(func(ctx context.Context, _ strategy.Session[member]) (bool, error) {
		if seen == nil {
			seen = ctx
			panic("the check is broken")
		}
		return true, nil
	})
	r := gin.New()
	r.Use(ginauth.Recovery(slog.New(slog.DiscardHandler)))
	r.GET("/", auth.RequireUser(check), welcome)
	from := func(addr string) option { return func(r *http.Request) { r.RemoteAddr = addr + ":1234" } }
	token := inHeader(h.token(t))
	wantCode(t, "panic", request(r, "GET", "/", token, from("192.0.2.1")), http.StatusInternalServerError)
	wantCode(t, "next", request(r, "GET", "/", token, from("192.0.2.2")), http.StatusOK)
	if got := event.ClientIP(seen); got == "192.0.2.2" {
		t.Errorf("got the client IP %s of another request", got)
	}
}
