package ginauth_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// printed is everything that formatters, loggers and encoders make of a value.
func printed(v any) map[string]string {
	out := make(map[string]string)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%c", "%08.3f"} {
		out[verb] = fmt.Sprintf(verb, v)
	}
	encoded, err := json.Marshal(v)
	out["JSON"] = fmt.Sprint(string(encoded), err)
	var text, object bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("request", "value", v)
	slog.New(slog.NewJSONHandler(&object, nil)).Info("request", "value", v)
	out["slog text"], out["slog JSON"] = text.String(), object.String()
	return out
}

// notes collects values, and the contexts with which others call it.
type notes struct {
	mu     sync.Mutex
	values map[string]any
}

func (n *notes) add(name string, v any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.values[name] = v
}

// addContext adds a context, and what applications derive from it.
func (n *notes) addContext(name string, ctx context.Context) {
	cancelled, cancel := context.WithTimeout(ctx, time.Hour)
	cancel()
	n.add(name, ctx)
	n.add(name+", in a slice", []any{ctx, []context.Context{ctx}})
	n.add(name+", in a struct", struct{ Context context.Context }{ctx})
	n.add(name+", in an unexported field", struct{ ctx context.Context }{ctx})
	n.add(name+", in a map", map[string]context.Context{"ctx": ctx})
	n.add(name+", with a value", context.WithValue(ctx, contextKey{}, "value"))
	n.add(name+", as a value", context.WithValue(context.Background(), contextKey{}, ctx))
	n.add(name+", with a timeout", cancelled)
	n.add(name+", without cancel", context.WithoutCancel(ctx))
	n.add(name+", in an error", fmt.Errorf("request: %v", ctx))
}

type contextKey struct{}

// addRequest adds a request without the headers in which the client sent the token.
func (n *notes) addRequest(name string, c *gin.Context) {
	n.addContext("the context "+name, c.Request.Context())
	r := c.Request.WithContext(c.Request.Context())
	r.Header = nil
	n.add("the request "+name, r)
	n.add("the request by value "+name, *r)
	copied := c.Copy()
	copied.Request = r
	n.add("the gin.Context "+name, copied)
}

// wantNone checks that no value shows one of the secrets when it is printed.
func (n *notes) wantNone(t *testing.T, secrets map[string]string) {
	t.Helper()
	for name, v := range n.values {
		for sink, out := range printed(v) {
			for what, secret := range secrets {
				secret = secret[strings.LastIndexByte(secret, '_')+1:]
				for _, form := range []string{secret, hex.EncodeToString([]byte(secret)), strings.ToUpper(hex.EncodeToString([]byte(secret)))} {
					if strings.Contains(out, form) {
						t.Errorf("%s of %s shows %s: %s", sink, name, what, out)
					}
				}
			}
		}
	}
}

// notingTokens notes the contexts of its calls.
type notingTokens struct {
	*memstore.Tokens[uuid.UUID]
	notes *notes
}

func (s notingTokens) ByToken(ctx context.Context, digest string) (strategy.AccessToken[uuid.UUID], error) {
	s.notes.addContext("the store's context", ctx)
	return s.Tokens.ByToken(ctx, digest)
}

func (s notingTokens) Rotate(ctx context.Context, digest string, r strategy.Rotation) (strategy.AccessToken[uuid.UUID], error) {
	s.notes.addContext("the store's context of a rotation", ctx)
	return s.Tokens.Rotate(ctx, digest, r)
}

// Whatever a handler, a check, a listener or a store prints of a guarded request: the guard
// adds no token to it.
func TestGuardedRequestShowsNoToken(t *testing.T) {
	for name, transport := range transportsByName {
		t.Run(name, func(t *testing.T) {
			h := newRig(t)
			n := &notes{values: make(map[string]any)}
			var err error
			if h.sessions, err = strategy.NewDatabase(notingTokens{h.tokens.Tokens, n}, h.users, strategy.Config{}); err != nil {
				t.Fatal(err)
			}
			auth := h.auth(t, ginauth.Config{
				Transports: []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}},
				OnEvent: func(ctx context.Context, e event.Event) {
					n.addContext("a listener's context", ctx)
					n.add("an event", e)
				},
			})
			second := h.auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}}})
			noting := auth.CheckUser(func(ctx context.Context, s strategy.Session[member]) (bool, error) {
				n.addContext("a check's context", ctx)
				n.add("a check's session", s)
				return true, nil
			})
			n.add("the Auth", auth)
			n.add("the strategy", h.sessions)
			n.add("the accounts", h.accounts)
			secrets := map[string]string{"the token": h.token(t), "the hash": h.ann.HashedPassword.Reveal()}
			issue := func(name string, issued ginauth.Issued[member], err error) {
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				secrets["the token of "+name] = issued.Token.Reveal()
				n.add("what was issued by "+name, issued)
				n.add("a pointer to what was issued by "+name, &issued)
			}
			r := guarded(auth.RequireUser(noting), second.RequireUser(), func(c *gin.Context) {
				n.addRequest("behind the guard", c)
				session, _ := auth.CurrentSession(c)
				n.add("the session", session)
				issued, err := auth.Reauthenticate(c, password)
				issue("Reauthenticate", issued, err)
				n.addRequest("after Reauthenticate", c)
				issued, err = auth.Renew(c, h.ann)
				issue("Renew", issued, err)
				n.addRequest("after Renew", c)
				issued, err = auth.LoginWithPassword(c, h.ann.Email, password, false)
				issue("LoginWithPassword", issued, err)
				w := httptest.NewRecorder()
				inner, _ := gin.CreateTestContext(w)
				auth.Answer(inner, issued)
				var body struct {
					Device string `json:"device_token"`
				}
				if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body.Device == "" {
					t.Errorf("the login's answer is %s, %v, want a device token", w.Body, err)
				}
				secrets["the device token"] = body.Device
				n.addRequest("after a login", c)
			}, auth.RequireUser(noting, ginauth.Fresh(time.Hour)))
			wantCode(t, "request", request(r, "GET", "/", by(transport, secrets["the token"])), http.StatusOK)

			n.add("the options of a login", []strategy.TokenOption{strategy.WithReplaced(secrets["the token"])})
			wantCode(t, "request with a revoked token", request(r, "GET", "/", by(transport, secrets["the token"])), http.StatusUnauthorized)
			n.wantNone(t, secrets)
		})
	}
}

// A context that is derived from a guarded request's still says from what.
func TestGuardedContextPrintsItsName(t *testing.T) {
	h := newRig(t)
	r := guarded(h.auth(t, ginauth.Config{}).RequireUser(), func(c *gin.Context) {
		if got, want := fmt.Sprint(context.WithoutCancel(c.Request.Context())), "ginauth.identity.WithoutCancel"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	wantCode(t, "request", request(r, "GET", "/", inHeader(h.token(t))), http.StatusOK)
}
