package ginauth_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"golang.org/x/net/websocket"

	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// longPoll answers when the watch of its request ends: with 204 if the request ended first, else
// by Refuse.
func longPoll(auth *ginauth.Auth[member], causes chan<- error) gin.HandlerFunc {
	return func(c *gin.Context) {
		ctx, stop := auth.Watch(c)
		defer stop()
		<-ctx.Done()
		cause := context.Cause(ctx)
		causes <- cause
		if c.Request.Context().Err() != nil {
			c.Status(http.StatusNoContent)
			return
		}
		auth.Refuse(c, cause)
	}
}

// Every way in which a session ends, each in a bubble of virtual time.
func TestWatchEndsWithTheSession(t *testing.T) {
	const lifetime, idle = time.Hour, 30 * time.Minute
	for _, c := range []struct {
		name   string
		end    func(*rig, *ginauth.Auth[member], string, strategy.SessionInfo) error // nil: time passes
		idle   time.Duration
		cause  error
		code   int
		within time.Duration
	}{
		{"log-out", func(h *rig, auth *ginauth.Auth[member], token string, _ strategy.SessionInfo) error {
			if w := request(engine(auth), "POST", "/logout", inHeader(token)); w.Code != http.StatusNoContent {
				return errors.New(w.Body.String())
			}
			return nil
		}, 0, strategy.ErrSessionRevoked, http.StatusUnauthorized, 100 * time.Millisecond},
		{"the session is ended in the list", func(h *rig, _ *ginauth.Auth[member], _ string, s strategy.SessionInfo) error {
			return h.sessions.DestroySession(context.Background(), h.ann.ID, s.ID)
		}, 0, strategy.ErrSessionRevoked, http.StatusUnauthorized, 100 * time.Millisecond},
		{"the user is deactivated", func(h *rig, _ *ginauth.Auth[member], _ string, _ strategy.SessionInfo) error {
			return h.accounts.Deactivate(context.Background(), h.ann.ID)
		}, 0, strategy.ErrUserInactive, http.StatusUnauthorized, 100 * time.Millisecond},
		{"the user is deactivated by hand", func(h *rig, _ *ginauth.Auth[member], _ string, _ strategy.SessionInfo) error {
			return h.users.Update(context.Background(), h.ann.ID, func(m *member) { m.Active = false })
		}, 0, strategy.ErrUserInactive, http.StatusUnauthorized, 5 * time.Second},
		{"the token is rotated", func(h *rig, auth *ginauth.Auth[member], token string, _ strategy.SessionInfo) error {
			_, _, err := h.sessions.RotateToken(context.Background(), token)
			return err
		}, 0, strategy.ErrSessionRevoked, http.StatusUnauthorized, 100 * time.Millisecond},
		{"the database is closed", func(h *rig, _ *ginauth.Auth[member], _ string, _ strategy.SessionInfo) error {
			h.sessions.Close()
			return nil
		}, 0, strategy.ErrClosed, http.StatusServiceUnavailable, 0},
		{"the lifetime is over", nil, 0, strategy.ErrSessionExpired, http.StatusUnauthorized, lifetime + time.Millisecond},
		{"the session is idle", nil, idle, strategy.ErrSessionExpired, http.StatusUnauthorized, idle + time.Millisecond},
	} {
		for name, sent := range map[string]func(string) option{"bearer": inHeader, "cookie": inCookie} {
			t.Run(c.name+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newRig(t)
					var err error
					h.sessions, err = strategy.NewDatabase(h.tokens, h.users, strategy.Config{Lifetime: lifetime, IdleTimeout: c.idle})
					if err != nil {
						t.Fatal(err)
					}
					defer h.sessions.Close()
					attempts, err := memstore.NewAttempts(0)
					if err != nil {
						t.Fatal(err)
					}
					if h.accounts, err = newManager(h, attempts); err != nil {
						t.Fatal(err)
					}
					auth := h.auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}}})
					secret, session, err := h.sessions.WriteToken(t.Context(), h.ann)
					if err != nil {
						t.Fatal(err)
					}
					causes, answer := make(chan error, 1), make(chan *httptest.ResponseRecorder)
					r := gin.New()
					r.GET("/", auth.RequireUser(), longPoll(auth, causes))
					began := time.Now()
					go func() { answer <- request(r, "GET", "/", sent(secret.Reveal())) }()
					synctest.Wait()
					if c.end != nil {
						if err := c.end(h, auth, secret.Reveal(), session.SessionInfo); err != nil {
							t.Fatal(err)
						}
					}
					w := <-answer
					if took := time.Since(began); took > c.within || c.end == nil && took != c.within {
						t.Errorf("the watch ended after %v, want %v", took, c.within)
					}
					if cause := <-causes; !errors.Is(cause, c.cause) {
						t.Errorf("got the cause %v, want %v", cause, c.cause)
					}
					wantCode(t, "refused", w, c.code)
				})
			})
		}
	}
}

func TestWatchEndsWithTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRig(t)
		auth := h.auth(t, ginauth.Config{})
		causes := make(chan error, 1)
		r := gin.New()
		r.GET("/", auth.RequireUser(), longPoll(auth, causes))
		ctx, cancel := context.WithCancel(t.Context())
		token := h.token(t)
		go request(r, "GET", "/", inHeader(token), func(req *http.Request) { *req = *req.WithContext(ctx) })
		synctest.Wait()
		cancel()
		if cause := <-causes; cause != context.Canceled {
			t.Errorf("got the cause %v, want %v", cause, context.Canceled)
		}
	})
}

func TestWatchWithoutAUserHasEnded(t *testing.T) {
	h := newRig(t)
	auth, other := h.auth(t, ginauth.Config{}), h.auth(t, ginauth.Config{})
	for what, guards := range map[string][]gin.HandlerFunc{
		"no guard":                    nil,
		"no user behind OptionalUser": {auth.OptionalUser(auth.CheckUser(nobody))},
		"the guard of another Auth":   {other.RequireUser()},
	} {
		causes := make(chan error, 1)
		r := gin.New()
		r.GET("/", append(guards, longPoll(auth, causes))...)
		wantCode(t, what, request(r, "GET", "/", inHeader(h.token(t))), http.StatusServiceUnavailable)
		if cause := <-causes; cause == nil || !strings.Contains(cause.Error(), "Watch needs a guard") {
			t.Errorf("%s: got the cause %v, want one that says what is missing", what, cause)
		}
	}
}

func nobody(context.Context, strategy.Session[member]) (bool, error) { return false, nil }

// Watch asks the strategy of the token.
func TestWatchOfAnAPIToken(t *testing.T) {
	h := newRig(t)
	scripts, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), h.users, strategy.Config{TokenPrefix: "lkp_"})
	if err != nil {
		t.Fatal(err)
	}
	defer scripts.Close()
	auth, err := h.auth(t, ginauth.Config{}).WithAPITokens(scripts, ginauth.APITokensConfig{Scopes: []string{"read"}})
	if err != nil {
		t.Fatal(err)
	}
	secret, session, err := scripts.WriteToken(t.Context(), h.ann, strategy.WithScopes("read"))
	if err != nil {
		t.Fatal(err)
	}
	causes := make(chan error, 1)
	r := gin.New()
	r.GET("/", auth.RequireUser(ginauth.Scopes("read")), func(*gin.Context) {
		time.AfterFunc(10*time.Millisecond, func() { _ = scripts.DestroySession(context.Background(), h.ann.ID, session.ID) })
	}, longPoll(auth, causes))
	wantCode(t, "revoked", request(r, "GET", "/", inHeader(secret.Reveal())), http.StatusUnauthorized)
	if cause := <-causes; !errors.Is(cause, strategy.ErrSessionRevoked) {
		t.Errorf("got the cause %v, want %v", cause, strategy.ErrSessionRevoked)
	}
}

// Streams and WebSockets over a connection, with a log-out in another request.
func TestLogoutEndsOpenAnswers(t *testing.T) {
	h := newRig(t)
	defer h.sessions.Close()
	auth := h.auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Cookie{}}, BodyTimeout: time.Second})
	r := engine(auth)
	r.GET("/events", auth.RequireUser(), func(c *gin.Context) {
		ctx, stop := auth.Watch(c)
		defer stop()
		c.SSEvent("message", "hello")
		c.Writer.Flush()
		<-ctx.Done()
		c.SSEvent("end", "bye")
	})
	r.GET("/socket", auth.RequireUser(), func(c *gin.Context) {
		websocket.Server{Handler: func(ws *websocket.Conn) {
			ctx, stop := auth.Watch(c)
			defer stop()
			defer context.AfterFunc(ctx, func() { _ = ws.Close() })() // unblocks the read
			_ = websocket.Message.Send(ws, "hello")
			var message string
			for websocket.Message.Receive(ws, &message) == nil {
			}
		}}.ServeHTTP(c.Writer, c.Request)
	})
	server := httptest.NewServer(r)
	defer server.Close()
	token := h.token(t)
	sent := http.Header{"Cookie": {"__Host-latchkey=" + token}}

	req, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = sent
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	stream := bufio.NewReader(resp.Body)
	if line, err := stream.ReadString('\n'); err != nil || line != "event:message\n" {
		t.Fatalf("got the line %q and the error %v, want the first event", line, err)
	}
	cfg, err := websocket.NewConfig(strings.Replace(server.URL, "http", "ws", 1)+"/socket", server.URL)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Header = sent
	ws, err := cfg.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.Close() }()
	var message string
	if err := websocket.Message.Receive(ws, &message); err != nil {
		t.Fatal(err)
	}

	wantCode(t, "log out", request(r, "POST", "/logout", inCookie(token)), http.StatusNoContent)
	rest, err := io.ReadAll(stream) // returns when the handler does
	if err != nil || !strings.Contains(string(rest), "event:end\ndata:bye") {
		t.Errorf("got the rest %q of the stream and the error %v, want its last event", rest, err)
	}
	if err := websocket.Message.Receive(ws, &message); err == nil {
		t.Errorf("got the message %q, want the WebSocket to be closed", message)
	}
}
