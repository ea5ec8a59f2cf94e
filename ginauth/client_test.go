package ginauth_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/strategy"
)

// Gin recycles its contexts: a context that outlives its request must never return the
// client IP of another request.
func TestClientIPAfterTheRequest(t *testing.T) {
	const first, second = "192.0.2.1", "192.0.2.2"
	var seen context.Context
	check := func(a *ginauth.Auth[member], pass bool) ginauth.Check {
		return a.CheckUser(func(ctx context.Context, _ strategy.Session[member]) (bool, error) {
			if seen == nil {
				seen = ctx
			}
			return pass, nil
		})
	}
	for _, c := range []struct {
		name  string
		guard func(*ginauth.Auth[member]) gin.HandlerFunc
		code  int
		want  string
	}{
		{"admitted", func(a *ginauth.Auth[member]) gin.HandlerFunc { return a.RequireUser(check(a, true)) }, http.StatusNoContent, first},
		{"rejected", func(a *ginauth.Auth[member]) gin.HandlerFunc { return a.RequireUser(check(a, false)) }, http.StatusForbidden, ""},
		{"optional", func(a *ginauth.Auth[member]) gin.HandlerFunc { return a.OptionalUser(check(a, false)) }, http.StatusNoContent, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen = nil
			h := newRig(t)
			token := h.token(t)
			route := silent(c.guard(h.auth(t, ginauth.Config{})))
			for _, addr := range []string{first, second, second} {
				r := httptest.NewRequest(http.MethodGet, "/", nil)
				r.RemoteAddr = addr + ":1234"
				inHeader(token)(r)
				w := httptest.NewRecorder()
				route.ServeHTTP(w, r)
				wantCode(t, addr, w, c.code)
			}
			if got := event.ClientIP(seen); got != c.want {
				t.Errorf("got the client IP %q of the first request, want %q", got, c.want)
			}
		})
	}
}

// embedded is an application's strategy that overrides ReadToken.
type embedded struct {
	*strategy.Database[member, uuid.UUID]
	refuse bool
}

func (e *embedded) ReadToken(ctx context.Context, token string) (*strategy.Session[member], error) {
	if e.refuse {
		return nil, strategy.ErrInvalidToken
	}
	return e.Database.ReadToken(ctx, token)
}

func TestReadTokenCanBeOverridden(t *testing.T) {
	h := newRig(t)
	s := &embedded{Database: h.sessions}
	auth, err := ginauth.New[member](s, nil, ginauth.Config{})
	if err != nil {
		t.Fatal(err)
	}
	route := silent(auth.RequireUser())
	token := inHeader(h.token(t))
	wantCode(t, "admitted", request(route, http.MethodGet, "/", token), http.StatusNoContent)
	s.refuse = true
	wantCode(t, "refused", request(route, http.MethodGet, "/", token), http.StatusUnauthorized)
}

func TestChangedScopesStayInTheirRequest(t *testing.T) {
	h := newRig(t)
	cached, err := strategy.NewDatabase(struct{ strategy.Store[uuid.UUID] }{h.tokens}, h.users, strategy.Config{Cache: strategy.Cache{MaxStaleness: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	defer cached.Close()
	auth, err := ginauth.New[member](cached, nil, ginauth.Config{})
	if err != nil {
		t.Fatal(err)
	}
	secret, _, err := cached.WriteToken(t.Context(), h.ann, strategy.WithScopes("read"))
	if err != nil {
		t.Fatal(err)
	}
	overwrite := auth.CheckUser(func(_ context.Context, s strategy.Session[member]) (bool, error) {
		s.Scopes[0] = "write"
		return true, nil
	})
	r := gin.New()
	r.GET("/", auth.RequireUser(ginauth.Scopes("read"), overwrite), func(c *gin.Context) {
		session, _ := auth.CurrentSession(c)
		session.Scopes[0] = "write"
		session, _ = strategy.SessionFromContext[member](c.Request.Context())
		session.Scopes[0] = "write"
		c.Status(http.StatusNoContent)
	})
	for range 3 {
		wantCode(t, "token with the scope", request(r, http.MethodGet, "/", inHeader(secret.Reveal())), http.StatusNoContent)
	}
}
