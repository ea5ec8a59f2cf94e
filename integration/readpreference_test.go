package integration_test

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/integration/internal/wireproxy"
	"github.com/latchkey-go/latchkey/strategy"
)

// replicaSet shows the server under test as a replica set of a primary and a secondary, and
// keeps the commands that the secondary gets.
type replicaSet struct {
	primary, secondary string

	mu     sync.Mutex
	strays []string
}

func newReplicaSet(t *testing.T) *replicaSet {
	t.Helper()
	var listeners [2]net.Listener
	for i := range listeners {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners[i] = listener
	}
	rs := &replicaSet{primary: listeners[0].Addr().String(), secondary: listeners[1].Addr().String()}
	for _, listener := range listeners {
		proxy := wireproxy.Start(listener, options.Client().ApplyURI(server.URI).Hosts[0], rs.member(listener.Addr().String()))
		t.Cleanup(proxy.Close)
	}
	return rs
}

// member returns the handler of the member with an address.
func (rs *replicaSet) member(addr string) wireproxy.Handler {
	return func(request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
		switch command := request.Command(); command {
		case "hello", "isMaster", "ismaster", "":
			return rs.hello(addr, request, send)
		case "ping", "saslStart", "saslContinue", "endSessions", "killCursors":
		default:
			if addr == rs.secondary {
				rs.mu.Lock()
				rs.strays = append(rs.strays, command)
				rs.mu.Unlock()
			}
		}
		return send(request)
	}
}

// hello changes the server's answer to a member's.
func (rs *replicaSet) hello(addr string, request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
	reply, err := send(request)
	if err != nil || reply.Body() == nil {
		return reply, err
	}
	var doc bson.D
	if err := bson.Unmarshal(reply.Body(), &doc); err != nil {
		return nil, err
	}
	doc = slices.DeleteFunc(doc, func(e bson.E) bool {
		return slices.Contains([]string{"ismaster", "isWritablePrimary", "secondary", "setName", "setVersion", "electionId", "hosts", "primary", "me", "topologyVersion", "msg"}, e.Key)
	})
	return reply.WithBody(append(doc,
		bson.E{Key: "isWritablePrimary", Value: addr == rs.primary}, bson.E{Key: "secondary", Value: addr == rs.secondary},
		bson.E{Key: "setName", Value: "rs"}, bson.E{Key: "setVersion", Value: 1}, bson.E{Key: "me", Value: addr},
		bson.E{Key: "hosts", Value: bson.A{rs.primary, rs.secondary}}, bson.E{Key: "primary", Value: rs.primary},
	))
}

// A secondary can be behind, and still have a token that was revoked.
func TestSecondaryIsNeverAsked(t *testing.T) {
	rs := newReplicaSet(t)
	client, _ := connect(t, options.Client().SetHosts([]string{rs.primary, rs.secondary}).SetDirect(false).SetReplicaSet("rs").
		SetServerAPIOptions(options.ServerAPI(options.ServerAPIVersion1)).SetReadPreference(readpref.Secondary()))

	// The client's own reads go to the secondary.
	db := testserver.Database(t, client)
	if _, err := db.Collection("other").CountDocuments(t.Context(), bson.D{}); err != nil {
		t.Fatal(err)
	}
	if len(rs.strays) == 0 {
		t.Fatal("the client did not read from the secondary")
	}
	rs.strays = nil

	f := newFacade(t, db, latchkey.Config{Lifetime: time.Hour, IdleTimeout: time.Hour, MaxSessions: 2, Cache: strategy.Cache{MaxStaleness: 2 * time.Second}})
	if err := f.VerifyIndexes(t.Context()); err != nil {
		t.Logf("VerifyIndexes: %v", err) // on a server without TTL indexes
	}
	user := f.register("ann@example.org")
	for range 3 { // more than MaxSessions
		if w := f.call(http.MethodPost, "/auth/login", url.Values{"username": {user.Email}, "password": {password}}); w.Code != http.StatusOK {
			t.Fatalf("login: got %d: %s", w.Code, w.Body)
		}
	}
	token := f.login(user.Email)
	for _, path := range []string{"/me", "/auth/sessions"} {
		if w := f.call(http.MethodGet, path, nil, token); w.Code != http.StatusOK {
			t.Errorf("%s: got %d: %s", path, w.Code, w.Body)
		}
	}
	if w := f.call(http.MethodPost, "/password", url.Values{"new": {"another password"}}, token); w.Code != http.StatusOK {
		t.Errorf("new password: got %d: %s", w.Code, w.Body)
	}
	if w := f.call(http.MethodPost, "/auth/logout", nil, token); w.Code == http.StatusServiceUnavailable {
		t.Errorf("logout: got %d: %s", w.Code, w.Body)
	}
	f.Close() // the follower of the revocations has ended

	rs.mu.Lock()
	defer rs.mu.Unlock()
	if len(rs.strays) > 0 {
		t.Errorf("the secondary got %v, want nothing", rs.strays)
	}
}
