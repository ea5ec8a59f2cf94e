package faults_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/integration/internal/wireproxy"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

func TestTwentyInstancesStartAtOnce(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T, *mongo.Database){
		"on an empty database": func(*testing.T, *mongo.Database) {},
		"on a database with a part of the indexes, and another lifetime": func(t *testing.T, db *mongo.Database) {
			tokens, err := mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{Lifetime: 7 * time.Hour, PurgeInterval: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(tokens.Close)
			if err := tokens.EnsureIndexes(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := db.Collection("revocations").Drop(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := db.Collection("access_tokens").Indexes().DropOne(t.Context(), "user_id_1_created_at_-1"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := newDatabase(t)
			prepare(t, db)
			rigs, errs := make([]*rig, 20), make([]error, 20)
			var starting sync.WaitGroup
			for i := range rigs {
				starting.Go(func() {
					// A server that runs one command at a time makes the others wait.
					rigs[i], errs[i] = startRig(t.Context(), db.Name(), rigConfig{
						timeout: 10 * time.Second, sessions: strategy.Config{Lifetime: time.Hour},
					})
				})
			}
			starting.Wait()
			for _, r := range rigs {
				t.Cleanup(r.close)
			}
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			if server.Capabilities.TTL {
				if err := verifyIndexes(t.Context(), rigs[0]); err != nil {
					t.Error(err)
				}
			}
			rigs[0].mustRegister(t, "jo@example.com")
			token := rigs[1].mustLogin(t, "jo@example.com")
			for i, r := range rigs {
				r.want(t, http.StatusOK, token, fmt.Sprintf("on instance %d", i))
			}
			if got := rigs[2].logout(token); got.status != http.StatusNoContent {
				t.Errorf("the log-out: %v, want 204", got)
			}
			for i, r := range rigs {
				r.want(t, http.StatusUnauthorized, token, fmt.Sprintf("after the log-out, on instance %d", i))
			}
		})
	}
}

// Instances are replaced one by one by instances with another lifetime, while clients use
// them. That logs nobody out, and each instance enforces its own lifetime.
func TestRollingChangeOfLifetime(t *testing.T) {
	for name, c := range map[string]struct{ from, to time.Duration }{
		"longer":  {time.Hour, 3 * time.Hour},
		"shorter": {3 * time.Hour, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			db := newDatabase(t)
			var ahead atomic.Int64
			clock := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			start := func(lifetime time.Duration) *rig {
				return newRig(t, db.Name(), rigConfig{sessions: strategy.Config{Lifetime: lifetime, Now: clock}})
			}
			clients := newTraffic([]*rig{start(c.from), start(c.from), start(c.from)}, 4, 20)
			clients.rigs[0].mustRegister(t, clients.emails...)
			stop := clients.background(t.Context(), *seed)
			var before, after *rig
			for i := range 3 {
				time.Sleep(100 * time.Millisecond)
				replacement := start(c.to)
				clients.replace(func(rigs []*rig) { before, rigs[i] = rigs[i], replacement })
				if i < 2 {
					before.close()
				}
				after = replacement
			}
			stop()
			clients.report(t)

			// At an age between the lifetimes, each instance goes by its own.
			tokens := []string{before.mustLogin(t, clients.emails[0]), after.mustLogin(t, clients.emails[0])}
			ahead.Store(int64(2 * time.Hour))
			for i, token := range tokens {
				for r, lifetime := range map[*rig]time.Duration{before: c.from, after: c.to} {
					want := http.StatusOK
					if lifetime < 2*time.Hour {
						want = http.StatusUnauthorized
					}
					r.want(t, want, token, fmt.Sprintf("token %d, on an instance with the lifetime %v", i, lifetime))
				}
			}
			if server.Capabilities.TTL {
				if err := after.mongo.tokens.VerifyIndexes(t.Context()); err != nil {
					t.Errorf("the indexes do not match the instance that started last: %v", err)
				}
				if err := before.mongo.tokens.VerifyIndexes(t.Context()); !errors.Is(err, mongostore.ErrIndexMismatch) {
					t.Errorf("VerifyIndexes for the former lifetime: %v, want ErrIndexMismatch", err)
				}
			}
		})
	}
}

func TestCloseWhileRequestsAreInFlight(t *testing.T) {
	onEachServer(t, testCloseWhileRequestsAreInFlight)
}

func testCloseWhileRequestsAreInFlight(t *testing.T, on backend) {
	database := on.newDatabase(t)
	cached := strategy.Config{Lifetime: time.Hour, IdleTimeout: time.Hour, TouchInterval: time.Millisecond,
		Cache: strategy.Cache{MaxStaleness: 250 * time.Millisecond}}
	rigs := []*rig{newRig(t, database, rigConfig{on: on, sessions: cached}), newRig(t, database, rigConfig{on: on, sessions: cached})}
	clients := newTraffic(rigs, 8, 20)
	rigs[0].mustRegister(t, clients.emails...)
	stop := clients.background(t.Context(), *seed)
	time.Sleep(300 * time.Millisecond)

	// The background work ends. Requests are still served.
	var closing sync.WaitGroup
	for range 3 {
		for _, r := range rigs {
			closing.Go(r.sessions.Close)
			for _, end := range r.background {
				closing.Go(end)
			}
		}
	}
	closing.Wait()
	before := clients.count(doGuarded, http.StatusOK)
	eventuallyTrue(t, recoveryBound, "requests are accepted after Close", func() bool { return clients.count(doGuarded, http.StatusOK) > before+20 })

	// The client of one instance disconnects.
	if err := rigs[1].disconnect(t.Context()); err != nil {
		t.Error(err)
	}
	time.Sleep(500 * time.Millisecond)
	stop()
	clients.report(t)
	t.Log(clients)
	token := rigs[0].mustLogin(t, clients.emails[0])
	rigs[0].want(t, http.StatusOK, token, "on the other instance")
	rigs[1].want(t, http.StatusServiceUnavailable, token, "on the disconnected instance")
	for what, got := range map[string]answer{"log-out": rigs[1].logout(token), "login": rigs[1].login(clients.emails[0])} {
		if got.status != http.StatusServiceUnavailable {
			t.Errorf("a %s on the disconnected instance: %v, want 503", what, got)
		}
	}
}

// failingProxy is a proxy in front of the server that answers some commands with an error
// while it is on.
type failingProxy struct {
	addr     string
	code     int
	name     string
	text     string
	on       atomic.Bool
	commands []string
	refused  atomic.Int64
}

func (p *failingProxy) start(t *testing.T) *failingProxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = listener.Addr().String()
	proxy := wireproxy.Start(listener, options.Client().ApplyURI(server.URI).Hosts[0], p.handle)
	t.Cleanup(proxy.Close)
	return p
}

func (p *failingProxy) handle(request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
	if !p.on.Load() || !slices.Contains(p.commands, request.Command()) {
		return send(request)
	}
	p.refused.Add(1)
	return wireproxy.Instead(bson.D{{Key: "ok", Value: 0.0}, {Key: "code", Value: p.code}, {Key: "codeName", Value: p.name}, {Key: "errmsg", Value: p.text}}, request, send)
}

var (
	readCommands  = []string{"find", "aggregate", "count"}
	writeCommands = []string{"insert", "update", "delete", "findAndModify"}
	indexCommands = []string{"createIndexes", "dropIndexes", "collMod", "create", "drop"}
)

func TestDatabaseUserWithoutIndexPrivileges(t *testing.T) {
	db := newDatabase(t)
	proxy := (&failingProxy{code: 13, name: "Unauthorized", text: "not authorized on app to execute command", commands: indexCommands}).start(t)
	proxy.on.Store(true)
	cfg := rigConfig{way: proxy.addr, sessions: strategy.Config{Lifetime: time.Hour}}
	unauthorized := func(err error) bool {
		var answered mongo.ServerError
		return errors.As(err, &answered) && answered.HasErrorCode(13) && strings.Contains(err.Error(), "not authorized")
	}

	r, err := startRig(t.Context(), db.Name(), cfg)
	r.close()
	if !unauthorized(err) || !strings.Contains(err.Error(), "mongostore: ensure indexes: create the index token_1") {
		t.Errorf("EnsureIndexes: %v, want the server's error and the failed step", err)
	}
	cfg.indexes = verifyIndexes
	r, err = startRig(t.Context(), db.Name(), cfg)
	r.close()
	if !errors.Is(err, mongostore.ErrIndexMismatch) || !strings.Contains(err.Error(), "access_tokens lacks token_1") {
		t.Errorf("VerifyIndexes without indexes: %v, want ErrIndexMismatch that names a missing index", err)
	}

	// Another database user makes the indexes.
	newRig(t, db.Name(), rigConfig{sessions: cfg.sessions})
	if r, err = startRig(t.Context(), db.Name(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	r.mustRegister(t, "jo@example.com")
	token := r.mustLogin(t, "jo@example.com")
	r.want(t, http.StatusOK, token, "with verified indexes")
	if got := r.logout(token); got.status != http.StatusNoContent {
		t.Errorf("the log-out: %v, want 204", got)
	}
	r.want(t, http.StatusUnauthorized, token, "after the log-out")
	if server.Capabilities.TTL { // without TTL indexes, EnsureIndexes tries to make one each time
		if err := ensureIndexes(t.Context(), r); err != nil {
			t.Errorf("EnsureIndexes with all indexes: %v", err)
		}
	}

	proxy.commands = append(proxy.commands, "listIndexes")
	if err := verifyIndexes(t.Context(), r); !unauthorized(err) || !strings.Contains(err.Error(), "list indexes") {
		t.Errorf("VerifyIndexes without the privilege to list indexes: %v, want the server's error and the failed step", err)
	}
}

// The proxy gives the answers of a read-only server.
func TestReadOnlyServer(t *testing.T) {
	for _, c := range []struct {
		name     string
		proxy    *failingProxy
		readable bool
	}{
		{"a database user without write privileges", &failingProxy{code: 13, name: "Unauthorized", text: "not authorized on app to execute command", commands: writeCommands}, true},
		{"a secondary", &failingProxy{code: 10107, name: "NotWritablePrimary", text: "not primary", commands: writeCommands}, true},
		{"a secondary that rejects reads", &failingProxy{code: 13435, name: "NotPrimaryNoSecondaryOk", text: "not primary and secondaryOk=false", commands: slices.Concat(readCommands, writeCommands)}, false},
		{"a recovering node", &failingProxy{code: 13436, name: "NotPrimaryOrSecondary", text: "node is not in primary or recovering state", commands: slices.Concat(readCommands, writeCommands)}, false},
		{"a node that shuts down", &failingProxy{code: 11600, name: "InterruptedAtShutdown", text: "interrupted at shutdown", commands: slices.Concat(readCommands, writeCommands)}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // the driver waits for the server to recover
			db := newDatabase(t)
			proxy := c.proxy.start(t)
			r := newRig(t, db.Name(), rigConfig{
				way: proxy.addr,
				// After such an error the driver uses the server again when a heartbeat
				// succeeded. A server whose state changed answers the pending heartbeat at
				// once; this one does not, as its state does not change.
				heartbeat: 500 * time.Millisecond,
				sessions: strategy.Config{
					Lifetime: time.Hour, IdleTimeout: time.Hour, TouchInterval: time.Millisecond, // every request writes
				},
			})
			clients := newTraffic([]*rig{r}, 4, 8)
			r.mustRegister(t, clients.emails...)
			token := r.mustLogin(t, clients.emails[0])
			stop := clients.background(t.Context(), *seed)
			proxy.on.Store(true)
			if c.readable {
				eventuallyTrue(t, recoveryBound, "a guarded request is accepted", func() bool { return r.guarded(token).status == http.StatusOK })
			} else {
				r.want(t, http.StatusServiceUnavailable, token, "a guarded request")
			}
			for what, got := range map[string]answer{"login": r.login(clients.emails[0]), "log-out": r.logout(token)} {
				if got.status != http.StatusServiceUnavailable {
					t.Errorf("a %s: %v, want 503", what, got)
				}
			}
			if proxy.refused.Load() == 0 {
				t.Error("the proxy refused no command")
			}
			proxy.on.Store(false)
			if _, err := clients.awaitRecovery(recoveryBound); err != nil {
				t.Error(err)
			}
			stop()
			clients.settle()
			clients.report(t)
			r.want(t, http.StatusOK, token, "in the end")
		})
	}
}
