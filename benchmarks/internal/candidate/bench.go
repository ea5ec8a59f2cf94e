package candidate

import (
	"context"
	"net/http"
	"testing"
)

// Bench measures a site in this process, without a network in front of it. The requests are those of so many users in
// turn: with one, all that a request needs is in the processor's own memory. Each is a copy of a prepared one: some
// libraries keep things in the request that they are given.
func Bench(b *testing.B, site *Site, users int) {
	b.Helper()
	requests := make([]*http.Request, min(users, len(site.Sessions)))
	// As with net/http, each request has a context that can end: it makes contexts below it cost something.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for i, session := range site.Sessions[:len(requests)] {
		own, cancel := context.WithCancel(ctx)
		defer cancel()
		requests[i] = Request(session).WithContext(own)
	}
	w := &sink{header: make(http.Header)}
	if site.remembers {
		for _, r := range requests {
			clear(w.header)
			r := *r
			site.Handler.ServeHTTP(w, &r)
		}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		clear(w.header)
		w.code = http.StatusOK
		r := *requests[i%len(requests)]
		site.Handler.ServeHTTP(w, &r)
		if w.code != site.code {
			b.Fatalf("answered with status %d", w.code)
		}
	}
}

// Request is a request for the guarded route; a zero session leaves it unauthenticated.
func Request(session Header) *http.Request {
	r, err := http.NewRequest(http.MethodGet, Path, nil)
	if err != nil {
		panic(err) // of constants
	}
	r.RemoteAddr = "192.0.2.1:1234"
	if session.Name != "" {
		r.Header.Set(session.Name, session.Value)
	}
	return r
}

// sink is an http.ResponseWriter to be used again and again.
type sink struct {
	header http.Header
	code   int
}

func (w *sink) Header() http.Header         { return w.header }
func (w *sink) WriteHeader(code int)        { w.code = code }
func (w *sink) Write(p []byte) (int, error) { return len(p), nil }

// WriteString is what net/http's writer has too.
func (w *sink) WriteString(s string) (int, error) { return len(s), nil }
