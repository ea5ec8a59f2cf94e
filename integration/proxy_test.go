package integration_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/integration/internal/wireproxy"
	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/strategy"
)

// connection is a proxy between a client and the server under test.
type connection struct {
	tb     testing.TB
	addr   string
	handle wireproxy.Handler
	proxy  *wireproxy.Proxy
	sent   *recorder // the client's commands
}

// connectThrough returns a client whose messages pass through a proxy with the handler.
func connectThrough(tb testing.TB, handle wireproxy.Handler) (*mongo.Client, *connection) {
	tb.Helper()
	p := &connection{tb: tb, addr: "127.0.0.1:0", handle: handle}
	p.start()
	tb.Cleanup(func() { p.proxy.Close() }) // runs after the database is dropped
	var client *mongo.Client
	client, p.sent = connect(tb, options.Client().SetHosts([]string{p.addr}).SetDirect(true))
	return client, p
}

// start starts the proxy, after Close at the same address.
func (p *connection) start() {
	p.tb.Helper()
	listener, err := net.Listen("tcp", p.addr)
	if err != nil {
		p.tb.Fatal(err)
	}
	p.addr = listener.Addr().String()
	p.proxy = wireproxy.Start(listener, options.Client().ApplyURI(server.URI).Hosts[0], p.handle)
}

// A failover can undo a delete that no majority acknowledged. The logout must not succeed then,
// even if the primary has deleted the row.
func TestLogoutWithoutAMajorityFails(t *testing.T) {
	var failing atomic.Bool
	client, _ := connectThrough(t, func(request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
		reply, err := send(request)
		if err != nil || !failing.Load() || request.Command() != "findAndModify" {
			return reply, err
		}
		var doc bson.D
		if err := bson.Unmarshal(reply.Body(), &doc); err != nil {
			return nil, err
		}
		return reply.WithBody(append(doc, bson.E{Key: "writeConcernError", Value: bson.D{
			{Key: "code", Value: 64}, {Key: "codeName", Value: "WriteConcernTimeout"}, {Key: "errmsg", Value: "waiting for replication timed out"},
		}}))
	})
	r := newRig(t, testserver.Database(t, client), 0, strategy.Config{Lifetime: time.Hour})
	token := r.login()

	failing.Store(true)
	r.want(http.StatusServiceUnavailable, http.MethodPost, "/auth/logout", token, "without a majority")
	// The primary has no row any more, but the client must not believe that the session has ended.
	r.want(http.StatusServiceUnavailable, http.MethodPost, "/auth/logout", token, "again without a majority")
	failing.Store(false)
	r.want(http.StatusUnauthorized, http.MethodPost, "/auth/logout", token, "with a majority")
	r.want(http.StatusUnauthorized, http.MethodGet, "/me", token, "at the end")
}

// This is TestGuardRecoversFromADatabaseOutage for servers that a test cannot stop.
func TestGuardRecoversFromALostConnection(t *testing.T) {
	client, conn := connectThrough(t, nil)
	const bound = time.Second
	r := newRig(t, testserver.Database(t, client), bound, strategy.Config{Lifetime: time.Hour})
	token := r.login()
	r.want(http.StatusOK, http.MethodGet, "/me", token, "before")

	conn.proxy.Close()
	r.wantUnavailable(token, bound)
	conn.start()
	r.wantRecovery(token)
}

// wantUnavailable checks that the answers without a database are 503 within the time bound.
func (r *rig) wantUnavailable(token string, bound time.Duration) {
	r.t.Helper()
	for _, c := range []struct{ method, path string }{
		{http.MethodGet, "/me"}, {http.MethodPost, "/auth/logout"}, {http.MethodGet, "/me"},
	} {
		start := time.Now()
		r.want(http.StatusServiceUnavailable, c.method, c.path, token, "without a database")
		if took := time.Since(start); took > bound+2*time.Second {
			r.t.Errorf("%s %s took %v, want at most about %v", c.method, c.path, took, bound)
		}
	}
}

// wantRecovery checks that the token is valid again and can be logged out.
func (r *rig) wantRecovery(token string) {
	r.t.Helper()
	eventually(r.t, 20*time.Second, "the token is valid again", func() bool {
		status := r.call(http.MethodGet, "/me", token)
		if status == http.StatusUnauthorized {
			r.t.Fatal("the database failure logged the user out")
		}
		return status == http.StatusOK
	})
	r.want(http.StatusNoContent, http.MethodPost, "/auth/logout", token, "after")
	r.want(http.StatusUnauthorized, http.MethodGet, "/me", token, "after the logout")
}

func TestGuardRecoversFromADatabaseOutage(t *testing.T) {
	// The test stops its own server, because the other tests need theirs.
	own, err := testserver.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Close(context.Background()) })
	testserver.Require(t, own.Kind != testserver.KindURI, "stop")
	client, _ := connectTo(t, own.URI)
	const bound = time.Second
	r := newRig(t, client.Database("outage"), bound, strategy.Config{Lifetime: time.Hour})
	token := r.login()
	r.want(http.StatusOK, http.MethodGet, "/me", token, "before")

	if err := own.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wantUnavailable(token, bound)
	if err := own.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wantRecovery(token)
}

// In a collection that is sharded on token, servers before 7.1 refuse a findAndModify without the
// token. A logout deletes by the session's ID and must succeed there too.
func TestLogoutSucceedsOnAShardedCollection(t *testing.T) {
	refused := 0
	client, _ := connectThrough(t, func(request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
		if request.Command() != "findAndModify" || hasKey(request.Body(), "query", "token") {
			return send(request)
		}
		refused++
		return wireproxy.Instead(bson.D{
			{Key: "ok", Value: 0.0}, {Key: "code", Value: 61}, {Key: "codeName", Value: "ShardKeyNotFound"},
			{Key: "errmsg", Value: "Query for sharded findAndModify must contain the shard key"},
		}, request, send)
	})
	r := newRig(t, testserver.Database(t, client), 0, strategy.Config{Lifetime: time.Hour})
	token, other := r.login(), r.login()
	r.want(http.StatusNoContent, http.MethodPost, "/auth/logout", token, "")
	r.want(http.StatusUnauthorized, http.MethodGet, "/me", token, "after the logout")
	r.want(http.StatusOK, http.MethodGet, "/me", other, "with another session")
	if err := r.sessions.DestroySession(t.Context(), r.member.ID, uuid.New()); !errors.Is(err, strategy.ErrSessionNotFound) {
		t.Errorf("unknown session: got %v, want ErrSessionNotFound", err)
	}
	if refused != 2 {
		t.Errorf("%d commands were refused, want 2", refused)
	}
}

// With the age in the filter, servers choose the index on created_at.
func TestTokenIsLookedUpByItsDigestAlone(t *testing.T) {
	var (
		mu      sync.Mutex
		filters []bson.Raw
	)
	client, _ := connectThrough(t, func(request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
		if body := request.Body(); request.Command() == "find" && lookup(body, "find") == "access_tokens" {
			mu.Lock()
			filters = append(filters, slices.Clone(body.Lookup("filter").Document()))
			mu.Unlock()
		}
		return send(request)
	})
	r := newRig(t, testserver.Database(t, client), 0, strategy.Config{Lifetime: time.Hour, IdleTimeout: time.Minute, NotBefore: time.Now().Add(-time.Hour)})
	secret := r.login()
	digest, ok := token.Default.Digest(secret)
	if !ok {
		t.Fatalf("%q is not a token", secret)
	}
	mu.Lock()
	filters = nil
	mu.Unlock()
	r.want(http.StatusOK, http.MethodGet, "/me", secret, "")
	mu.Lock()
	defer mu.Unlock()
	want, err := bson.Marshal(bson.D{{Key: "token", Value: digest}})
	if err != nil {
		t.Fatal(err)
	}
	if len(filters) != 1 || !bytes.Equal(filters[0], want) {
		t.Errorf("the filters of the look-up are %v, want only %v", filters, bson.Raw(want))
	}
}
