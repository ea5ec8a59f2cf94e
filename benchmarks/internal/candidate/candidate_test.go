package candidate_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/benchmarks/internal/candidate"
	"github.com/latchkey-go/latchkey/benchmarks/wirestub"
)

func seed(t *testing.T, users, tokens int) candidate.Data {
	t.Helper()
	server, err := wirestub.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	data, err := candidate.Seed(t.Context(), candidate.Data{URI: server.URI(), Database: "test"}, users, tokens)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func get(site *candidate.Site, session candidate.Header) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	site.Handler.ServeHTTP(w, candidate.Request(session))
	return w
}

// spoilt is a session that nobody has.
func spoilt(session candidate.Header) candidate.Header {
	last := session.Value[len(session.Value)-5:]
	session.Value = strings.TrimSuffix(session.Value, last) + strings.Repeat("A", len(last))
	return session
}

func TestCandidates(t *testing.T) {
	data := seed(t, 10, 30)
	commands := map[candidate.Work]int64{candidate.Session: 1, candidate.User: 2}
	for _, c := range candidate.All() {
		t.Run(c.Name, func(t *testing.T) {
			var n atomic.Int64
			db, err := candidate.Open(t.Context(), data, func() { n.Add(1) })
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = db.Close(t.Context()) }()
			site, err := c.Build(t.Context(), db)
			if err != nil {
				t.Fatal(err)
			}
			guarded(t, c, site, data)

			want := commands[c.Work]
			if strings.HasPrefix(c.Reads, "nothing") {
				want = 0
			}
			// The cache is not used before revocations are followed, which it asks for meanwhile.
			got, deadline := int64(-1), time.Now().Add(10*time.Second)
			for got != want && time.Now().Before(deadline) {
				n.Store(0)
				get(site, site.Sessions[0])
				got = n.Load()
			}
			if got != want {
				t.Errorf("a request took %d commands, want %d", got, want)
			}
		})
	}
}

func TestInMemory(t *testing.T) {
	data := seed(t, 10, 10)
	db, err := candidate.Open(t.Context(), data, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close(t.Context()) }()
	for _, c := range candidate.InMemory() {
		t.Run(c.Name, func(t *testing.T) {
			site, err := c.Build(t.Context(), db)
			if err != nil {
				t.Fatal(err)
			}
			guarded(t, c, site, data)
		})
	}
}

// guarded checks that a site lets in whom it must, as who they are, and nobody else.
func guarded(t *testing.T, c candidate.Candidate, site *candidate.Site, data candidate.Data) {
	t.Helper()
	if len(site.Sessions) != len(data.UserIDs) {
		t.Fatalf("%d sessions, want %d", len(site.Sessions), len(data.UserIDs))
	}
	for i, session := range site.Sessions {
		w := get(site, session)
		if c.Refuses {
			if w.Code != http.StatusUnauthorized {
				t.Fatalf("user %d: status %d", i, w.Code)
			}
			continue
		}
		if w.Code != http.StatusOK {
			t.Fatalf("user %d: status %d", i, w.Code)
		}
		if c.Work != candidate.NoGuard && !strings.Contains(w.Body.String(), data.UserIDs[i].String()) {
			t.Errorf("user %d: the answer is %s", i, w.Body)
		}
	}
	want := http.StatusUnauthorized
	if c.Work == candidate.NoGuard {
		want = http.StatusOK
	}
	for name, session := range map[string]candidate.Header{"no session": {}, "a session that nobody has": spoilt(site.Sessions[0])} {
		if w := get(site, session); w.Code != want {
			t.Errorf("%s: status %d, want %d", name, w.Code, want)
		}
	}
}

func TestSeedWantsATokenForEachUser(t *testing.T) {
	if _, err := candidate.Seed(t.Context(), candidate.Data{}, 2, 1); err == nil {
		t.Error("no error")
	}
}

func TestByName(t *testing.T) {
	for _, c := range append(candidate.All(), candidate.InMemory()...) {
		if got, err := candidate.ByName(c.Name); err != nil || got.Name != c.Name {
			t.Errorf("%s: got %q, %v", c.Name, got.Name, err)
		}
	}
	if _, err := candidate.ByName("nobody"); err == nil {
		t.Error("nobody: no error")
	}
}
