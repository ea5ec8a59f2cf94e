package candidate

import (
	"context"
	"net/http"
	"testing"
)

// Bench measures a site in this process, without a network. The requests cycle through the
// sessions of users: with one user, all data of a request stay in the processor's cache.
// Each request is a copy of a prepared one, because some libraries store values in it.
func Bench(b *testing.B, site *Site, users int) {
	b.Helper()
	requests := make([]*http.Request, min(users, len(site.Sessions)))
	// As in net/http, each request has a context that can be cancelled: deriving a context
	// from it costs more than from context.Background.
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
			b.Fatalf("got status %d, want %d", w.code, site.code)
		}
	}
}

// Request returns a request for the guarded route. With the zero Header it is not
// authenticated.
func Request(session Header) *http.Request {
	r, err := http.NewRequest(http.MethodGet, Path, nil)
	if err != nil {
		panic(err) // cannot happen: the arguments are constants
	}
	r.RemoteAddr = "192.0.2.1:1234"
	if session.Name != "" {
		r.Header.Set(session.Name, session.Value)
	}
	return r
}

// sink is an http.ResponseWriter that discards the body and can be reused.
type sink struct {
	header http.Header
	code   int
}

func (w *sink) Header() http.Header         { return w.header }
func (w *sink) WriteHeader(code int)        { w.code = code }
func (w *sink) Write(p []byte) (int, error) { return len(p), nil }

// WriteString implements io.StringWriter, as net/http's ResponseWriter does.
func (w *sink) WriteString(s string) (int, error) { return len(s), nil }
