package integration_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/integration/internal/wireproxy"
	"github.com/latchkey-go/latchkey/strategy"
)

// proxied is a way to the server that a test can interfere with.
type proxied struct {
	tb     testing.TB
	addr   string
	handle wireproxy.Handler
	proxy  *wireproxy.Proxy
	sent   *recorder // what the client sends
}

// connectThrough returns a client whose messages pass through a proxy.
func connectThrough(tb testing.TB, handle wireproxy.Handler) (*mongo.Client, *proxied) {
	tb.Helper()
	p := &proxied{tb: tb, addr: "127.0.0.1:0", handle: handle}
	p.start()
	tb.Cleanup(func() { p.proxy.Close() }) // after the database was dropped
	var client *mongo.Client
	client, p.sent = connect(tb, options.Client().SetHosts([]string{p.addr}).SetDirect(true))
	return client, p
}

func (p *proxied) start() {
	p.tb.Helper()
	listener, err := net.Listen("tcp", p.addr)
	if err != nil {
		p.tb.Fatal(err)
	}
	p.addr = listener.Addr().String()
	p.proxy = wireproxy.Start(listener, options.Client().ApplyURI(server.URI).Hosts[0], p.handle)
}

// Where no majority acknowledges the delete, a failover can undo it: the log-out
// did not happen, also where the server has done the delete already.
func TestALogoutThatNoMajorityAcknowledgedIsNoSuccess(t *testing.T) {
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
	a := newApp(t, testserver.Database(t, client), 0, strategy.Config{Lifetime: time.Hour})
	token := a.login()

	failing.Store(true)
	a.want(http.StatusServiceUnavailable, http.MethodPost, "/auth/logout", token, "without a majority")
	// The row is gone from this primary, but the client must not take that for the end.
	a.want(http.StatusServiceUnavailable, http.MethodPost, "/auth/logout", token, "again, still without a majority")
	failing.Store(false)
	a.want(http.StatusUnauthorized, http.MethodPost, "/auth/logout", token, "with a majority")
	a.want(http.StatusUnauthorized, http.MethodGet, "/me", token, "in the end")
}

// As TestTheDatabaseStopsAndComesBack, with the network failing instead of the
// server: on any server.
func TestTheConnectionIsCutAndComesBack(t *testing.T) {
	client, way := connectThrough(t, nil)
	const bound = time.Second
	a := newApp(t, testserver.Database(t, client), bound, strategy.Config{Lifetime: time.Hour})
	token := a.login()
	a.want(http.StatusOK, http.MethodGet, "/me", token, "before")

	way.proxy.Close()
	a.wantUnavailable(token, bound)
	way.start()
	a.wantRecovery(token)
}

// wantUnavailable checks that a failing database is answered as one, in time.
func (a *app) wantUnavailable(token string, bound time.Duration) {
	a.t.Helper()
	for _, c := range []struct{ method, path string }{
		{http.MethodGet, "/me"}, {http.MethodPost, "/auth/logout"}, {http.MethodGet, "/me"},
	} {
		start := time.Now()
		a.want(http.StatusServiceUnavailable, c.method, c.path, token, "without a database")
		if took := time.Since(start); took > bound+2*time.Second {
			a.t.Errorf("%s %s took %v, want at most about %v", c.method, c.path, took, bound)
		}
	}
}

// wantRecovery checks that the token works again, and can be logged out.
func (a *app) wantRecovery(token string) {
	a.t.Helper()
	eventually(a.t, 20*time.Second, "the token works again", func() bool {
		status := a.call(http.MethodGet, "/me", token)
		if status == http.StatusUnauthorized {
			a.t.Fatal("the failure was a log-out")
		}
		return status == http.StatusOK
	})
	a.want(http.StatusNoContent, http.MethodPost, "/auth/logout", token, "after")
	a.want(http.StatusUnauthorized, http.MethodGet, "/me", token, "after the log-out")
}

func TestTheDatabaseStopsAndComesBack(t *testing.T) {
	// A server of the test's own: the others need theirs.
	own, err := testserver.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Close(context.Background()) })
	testserver.Require(t, own.Kind != testserver.KindURI, "stop")
	client, _ := connectTo(t, own.URI)
	const bound = time.Second
	a := newApp(t, client.Database("outage"), bound, strategy.Config{Lifetime: time.Hour})
	token := a.login()
	a.want(http.StatusOK, http.MethodGet, "/me", token, "before")

	if err := own.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.wantUnavailable(token, bound)
	if err := own.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.wantRecovery(token)
}

// Sharded on token, servers before 7.1 refuse a findAndModify without it: a
// log-out is by the session's ID, and must get through.
func TestALogoutOnAShardedCollection(t *testing.T) {
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
	a := newApp(t, testserver.Database(t, client), 0, strategy.Config{Lifetime: time.Hour})
	token, other := a.login(), a.login()
	a.want(http.StatusNoContent, http.MethodPost, "/auth/logout", token, "")
	a.want(http.StatusUnauthorized, http.MethodGet, "/me", token, "after the log-out")
	a.want(http.StatusOK, http.MethodGet, "/me", other, "with another session")
	if err := a.sessions.DestroySession(t.Context(), a.member.ID, uuid.New()); !errors.Is(err, strategy.ErrSessionNotFound) {
		t.Errorf("a session that is not there: got %v, want ErrSessionNotFound", err)
	}
	if refused != 2 {
		t.Errorf("%d commands were refused, want 2", refused)
	}
}
