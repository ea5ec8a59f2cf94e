package ginauth_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// The flood is 500 concurrent logins, each to another account and from another network, so
// that only the bound on hashing limits them.
const (
	floodLogins = 500
	floodHashes = 2 // MaxConcurrentHashes
	floodHash   = 64 << 20

	// floodBound is the most memory that the flood may take. Each hash in flight takes
	// 64 MiB. The garbage collector starts at twice the live heap, most of it finished
	// hashes, and each slot can start another hash while it runs: three times what the
	// slots hold. 64 MiB are for the connections, goroutines and buffers of the server
	// and of the 500 clients, which run in this process too.
	floodBound = 3*floodHashes*floodHash + 64<<20
)

// highWater samples the memory of objects and stacks. stop returns the peak.
func highWater() (stop func() uint64) {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	var most uint64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			metrics.Read(samples)
			most = max(most, samples[0].Value.Uint64()+samples[1].Value.Uint64())
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	}()
	return func() uint64 {
		close(done)
		<-ended
		return most
	}
}

func TestLoginFloodTakesBoundedMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	users := memstore.NewUsers[member]()
	attempts, err := memstore.NewAttempts(0)
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), users, strategy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	accounts, err := account.NewManager(users, nil, attempts, uuid.New, account.Config{MaxConcurrentHashes: floodHashes, Timeout: time.Minute}, sessions)
	if err != nil {
		t.Fatal(err)
	}
	// On a slow machine, a hash takes seconds.
	auth, err := ginauth.New(sessions, accounts, ginauth.Config{Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	ann, err := accounts.Create(t.Context(), member{Email: "ann@example.com", Active: true}, password)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(ann.HashedPassword.Reveal(), "$argon2id$v=19$m=65536,") {
		t.Fatalf("got the hash %s, want one that takes %d bytes", ann.HashedPassword, floodHash)
	}
	secret, _, err := sessions.WriteToken(t.Context(), ann)
	if err != nil {
		t.Fatal(err)
	}
	for i := range floodLogins {
		other := member{ID: uuid.New(), Email: floodName(i), HashedPassword: ann.HashedPassword, Active: true}
		if err := users.Insert(t.Context(), other); err != nil {
			t.Fatal(err)
		}
	}
	r := engine(auth)
	if err := r.SetTrustedProxies([]string{"127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)

	runtime.GC()
	peak := highWater()
	var (
		logins, guard sync.WaitGroup
		over          = make(chan struct{})
		took          []time.Duration
		mu            sync.Mutex
		answers       = make(map[int]int)
	)
	guard.Go(func() {
		for {
			start := time.Now()
			resp := roundTrip(t, server, "GET", "/me", "", inHeader(secret.Reveal()))
			took = append(took, time.Since(start))
			if resp.StatusCode != http.StatusOK {
				t.Errorf("got %s from the guarded route during the flood, want 200", resp.Status)
			}
			select {
			case <-over:
				return
			default:
			}
		}
	})
	start := time.Now()
	for i := range floodLogins {
		logins.Go(func() {
			form := url.Values{"username": {floodName(i)}, "password": {password}}.Encode()
			network := fmt.Sprintf("10.%d.%d.1", i/250, i%250)
			resp := roundTrip(t, server, "POST", "/login", form, header("X-Forwarded-For", network))
			if resp.StatusCode != http.StatusOK && (resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "1") {
				t.Errorf("got %s with Retry-After %q, want 200, or 503 with a second", resp.Status, resp.Header.Get("Retry-After"))
			}
			mu.Lock()
			defer mu.Unlock()
			answers[resp.StatusCode]++
		})
	}
	logins.Wait()
	flood := time.Since(start)
	close(over)
	guard.Wait()
	most := peak()

	slices.Sort(took)
	t.Logf("%d logins in %v, answered %v; at most %d MiB, of %d; %d guarded requests, in %v by the median and %v at most",
		floodLogins, flood.Round(time.Millisecond), answers, most>>20, floodBound>>20, len(took), took[len(took)/2], took[len(took)-1])
	if most > floodBound {
		t.Errorf("got %d bytes of objects and stacks at the peak, want at most %d", most, floodBound)
	}
	if answers[http.StatusOK] == 0 || answers[http.StatusServiceUnavailable] == 0 {
		t.Errorf("got the answers %v, want some logins to succeed and some to be refused", answers)
	}
}

func floodName(i int) string { return fmt.Sprintf("user%d@example.com", i) }

// roundTrip sends a request to a server and drains the answer's body.
func roundTrip(t *testing.T, server *httptest.Server, method, path, form string, options ...option) *http.Response {
	req, err := http.NewRequest(method, server.URL+path, strings.NewReader(form))
	if err != nil {
		t.Error(err)
		return &http.Response{}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, option := range options {
		option(req)
	}
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Error(err)
		return &http.Response{}
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp
}
