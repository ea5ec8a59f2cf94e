package lab_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/benchmarks/internal/candidate"
	"github.com/latchkey-go/latchkey/benchmarks/internal/lab"
)

func TestMain(m *testing.M) {
	lab.Main()
	// With the race detector, each child process would otherwise take a second to exit.
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0")
	os.Exit(m.Run())
}

func TestURIThroughAProxy(t *testing.T) {
	for _, c := range []struct{ name, uri, backend, want string }{
		{"of the stub", "mongodb://127.0.0.1:5000/?directConnection=true", "127.0.0.1:5000", "mongodb://proxy:1/?directConnection=true"},
		{"with a host only", "mongodb://db", "db:27017", "mongodb://proxy:1/?directConnection=true"},
		{"with a path", "mongodb://db:5/admin", "db:5", "mongodb://proxy:1/admin?directConnection=true"},
		{"with credentials and options", "mongodb://me:p%40ss@db/?replicaSet=rs0", "db:27017", "mongodb://me:p%40ss@proxy:1/?replicaSet=rs0&directConnection=true"},
		{"with several servers", "mongodb://a,b", "", ""},
		{"of a cluster", "mongodb+srv://a", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			backend, through, err := lab.Rewrite(c.uri)
			if c.want == "" {
				if err == nil {
					t.Error("no error")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := through("proxy:1"); backend != c.backend || got != c.want {
				t.Errorf("got backend %s and URI %s, want %s and %s", backend, got, c.backend, c.want)
			}
		})
	}
}

func TestDelayLengthensRoundTrips(t *testing.T) {
	l, err := lab.Open(t.Context(), 1, 1, true)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const delay = 30 * time.Millisecond
	proxy, err := l.Delay(delay)
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	data := l.Data
	data.URI = proxy.URI
	db, err := candidate.Open(t.Context(), data, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close(t.Context()) }()
	start := time.Now()
	if version, err := candidate.ServerVersion(t.Context(), data); err != nil || !strings.Contains(version, "wirestub") {
		t.Errorf("the server is %q (error %v), want wirestub", version, err)
	}
	// Three round trips: hello, ping and buildInfo.
	if took := time.Since(start); took < 3*delay {
		t.Errorf("three round trips took %v, want at least %v", took, 3*delay)
	}
}

func TestServeStartsACandidate(t *testing.T) {
	l, err := lab.Open(t.Context(), 2, 2, true)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Serve("unknown", ""); err == nil {
		t.Error("no error for an unknown candidate")
	}
	site, err := l.Serve("Latchkey, token and user", "")
	if err != nil {
		t.Fatal(err)
	}
	site.Close()
}
