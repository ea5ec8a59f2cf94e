package ginauth_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/ginauth"
)

// BenchmarkGuard measures a request through Gin with the tokens in memory.
// BenchmarkGuardFloor is Gin's share of it.
func BenchmarkGuard(b *testing.B) {
	h := newRig(b)
	token := h.token(b)
	auth := h.auth(b, ginauth.Config{Transports: []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}}})
	route := silent(auth.RequireUser())
	for _, c := range []struct {
		name    string
		options []option
		want    int
	}{
		{"bearer", []option{inHeader(token)}, http.StatusNoContent},
		{"cookie", []option{inCookie(token)}, http.StatusNoContent},
		{"malformed", []option{inHeader(token[:len(token)-1] + "-")}, http.StatusUnauthorized},
		{"no_credentials", nil, http.StatusUnauthorized},
	} {
		b.Run(c.name, func(b *testing.B) { serve(b, route, c.want, c.options...) })
	}
}

// BenchmarkGuardFloor is the same route without a guard.
func BenchmarkGuardFloor(b *testing.B) {
	serve(b, silent(), http.StatusNoContent, inHeader(newRig(b).token(b)))
}

// silent serves a route that answers 204.
func silent(guards ...gin.HandlerFunc) *gin.Engine {
	r := gin.New()
	r.GET("/", append(guards, func(c *gin.Context) { c.Status(http.StatusNoContent) })...)
	return r
}

func serve(b *testing.B, h http.Handler, want int, options ...option) {
	b.Helper()
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	for _, option := range options {
		option(req)
	}
	w := &sink{header: make(http.Header)}
	b.ReportAllocs()
	var sent http.Request
	for b.Loop() {
		clear(w.header)
		sent = *req // a guard changes the request
		h.ServeHTTP(w, &sent)
	}
	if w.code != want {
		b.Fatalf("got %d, want %d", w.code, want)
	}
}

// sink is a reusable http.ResponseWriter.
type sink struct {
	header http.Header
	code   int
}

func (w *sink) Header() http.Header         { return w.header }
func (w *sink) WriteHeader(code int)        { w.code = code }
func (w *sink) Write(p []byte) (int, error) { return len(p), nil }

// WriteString implements io.StringWriter, as the writer of net/http does.
func (w *sink) WriteString(s string) (int, error) { return len(s), nil }
