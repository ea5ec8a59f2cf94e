package faults_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/mongostore"
)

// mongoServer is the URI of a MongoDB server.
type mongoServer string

func onMongoDB(testing.TB) backend { return mongoServer(server.URI) }

func (s mongoServer) address() string { return options.Client().ApplyURI(string(s)).Hosts[0] }

func (s mongoServer) newDatabase(tb testing.TB) string {
	tb.Helper()
	return s.database(tb).Name()
}

func (s mongoServer) database(tb testing.TB) *mongo.Database {
	tb.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(string(s)))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = client.Disconnect(ctx)
	})
	if err := client.Ping(tb.Context(), nil); err != nil { // starts the client's goroutines
		tb.Fatal(err)
	}
	return testserver.Database(tb, client)
}

// newDatabase returns a new database on the suite's server, and drops it at the end of
// the test.
func newDatabase(tb testing.TB) *mongo.Database {
	tb.Helper()
	return mongoServer(server.URI).database(tb)
}

// mongoParts is what a rig has on MongoDB only.
type mongoParts struct {
	client   *mongo.Client
	db       *mongo.Database
	pool     poolCount
	polls    atomic.Int64 // reads of the revocations by the follower of a cache
	tokens   *mongostore.Tokens[uuid.UUID]
	users    *mongostore.Users[member, uuid.UUID]
	attempts *mongostore.Attempts
}

func ensureIndexes(ctx context.Context, r *rig) error {
	return errors.Join(r.mongo.tokens.EnsureIndexes(ctx), r.mongo.users.EnsureIndexes(ctx), r.mongo.attempts.EnsureIndexes(ctx))
}

func verifyIndexes(ctx context.Context, r *rig) error {
	return errors.Join(r.mongo.tokens.VerifyIndexes(ctx), r.mongo.users.VerifyIndexes(ctx), r.mongo.attempts.VerifyIndexes(ctx))
}

func (s mongoServer) connect(ctx context.Context, r *rig, database string, cfg rigConfig) (err error) {
	if cfg.indexes == nil {
		cfg.indexes = ensureIndexes
	}
	m := &mongoParts{}
	// The driver opens at most two connections at a time. Without this timeout, one whose
	// packets are lost occupies its place for 30 seconds, long after the network recovered.
	opts := options.Client().ApplyURI(string(s)).SetPoolMonitor(m.pool.monitor()).SetConnectTimeout(callTimeout).
		SetMonitor(&driver.CommandMonitor{Started: m.commandStarted})
	if cfg.way != "" {
		opts.SetHosts([]string{cfg.way}).SetDirect(true)
	}
	if cfg.heartbeat > 0 {
		opts.SetHeartbeatInterval(cfg.heartbeat)
	}
	if m.client, err = mongo.Connect(opts); err != nil {
		return err
	}
	r.mongo = m
	r.disconnect = m.client.Disconnect
	r.connections = func() (open, out int64) { return m.pool.open.Load(), m.pool.out.Load() }
	r.closers = append(r.closers, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = m.client.Disconnect(ctx)
	})
	m.db = m.client.Database(database)
	if m.tokens, err = mongostore.NewTokens[uuid.UUID](m.db, mongostore.TokensConfig{
		Lifetime: cfg.sessions.Lifetime, Timeout: cfg.timeout, PurgeInterval: time.Minute, Now: cfg.sessions.Now,
	}); err != nil {
		return err
	}
	r.closers = append(r.closers, m.tokens.Close)
	if m.users, err = mongostore.NewUsers[member](m.db, mongostore.UsersConfig{Timeout: cfg.timeout}); err != nil {
		return err
	}
	if m.attempts, err = mongostore.NewAttempts(m.db, mongostore.AttemptsConfig{Timeout: cfg.timeout, PurgeInterval: time.Minute}); err != nil {
		return err
	}
	r.closers = append(r.closers, m.attempts.Close)
	r.tokens, r.users, r.attempts = m.tokens, m.users, m.attempts
	r.background = []func(){m.tokens.Close, m.attempts.Close}
	return cfg.indexes(ctx, r)
}

// inspect checks that every document has its required fields.
func (mongoServer) inspect(t *testing.T, r *rig) {
	t.Helper()
	for collection, fields := range map[string]map[string]bson.Type{
		"users": {"_id": bson.TypeBinary, "email": bson.TypeString, "hashed_password": bson.TypeString,
			"is_active": bson.TypeBoolean, "created_at": bson.TypeDateTime},
		"access_tokens": {"_id": bson.TypeBinary, "token": bson.TypeString, "user_id": bson.TypeBinary, "created_at": bson.TypeDateTime},
		"revocations":   {"_id": bson.TypeBinary, "at": bson.TypeDateTime},
	} {
		cur, err := r.mongo.db.Collection(collection).Find(t.Context(), bson.D{})
		if err != nil {
			t.Fatal(err)
		}
		var docs []bson.Raw
		if err := cur.All(t.Context(), &docs); err != nil {
			t.Fatal(err)
		}
		for _, doc := range docs {
			for field, want := range fields {
				if got := doc.Lookup(field).Type; got != want {
					t.Errorf("%s has a document with a %s of type %v, want %v: %v", collection, field, got, want, doc)
				}
			}
		}
	}
}

func (mongoServer) deleteTokens(t *testing.T, r *rig) {
	t.Helper()
	if _, err := r.mongo.db.Collection("access_tokens").DeleteMany(t.Context(), bson.D{}); err != nil {
		t.Fatal(err)
	}
}

// poolCount counts the connections of a client: those that are open, and those that are
// checked out.
type poolCount struct{ open, out atomic.Int64 }

func (p *poolCount) monitor() *driver.PoolMonitor {
	return &driver.PoolMonitor{Event: func(e *driver.PoolEvent) {
		switch e.Type {
		case driver.ConnectionCreated:
			p.open.Add(1)
		case driver.ConnectionClosed:
			p.open.Add(-1)
		case driver.ConnectionCheckedOut:
			p.out.Add(1)
		case driver.ConnectionCheckedIn:
			p.out.Add(-1)
		}
	}}
}

func (m *mongoParts) commandStarted(_ context.Context, e *driver.CommandStartedEvent) {
	if collection, _ := e.Command.Lookup("find").StringValueOK(); collection == "revocations" {
		m.polls.Add(1)
	}
}

// modelTokens returns the store of tokens in a database. It makes no TTL index, because
// the server does not know the fake clock.
func modelTokens(t *testing.T, db *mongo.Database) *mongostore.Tokens[uuid.UUID] {
	t.Helper()
	tokens, err := mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{PurgeInterval: time.Hour})
	if err == nil {
		err = tokens.EnsureIndexes(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tokens.Close)
	return tokens
}

func modelUsers(t *testing.T, db *mongo.Database) *mongostore.Users[member, uuid.UUID] {
	t.Helper()
	users, err := mongostore.NewUsers[member](db, mongostore.UsersConfig{})
	if err == nil {
		err = users.EnsureIndexes(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return users
}

func (s mongoServer) stores(t *testing.T) storeSet {
	t.Helper()
	db := s.database(t)
	set := storeSet{tokens: modelTokens(t, db), users: modelUsers(t, db)}
	set.purge = func(lifetime time.Duration, now func() time.Time) error {
		tokens, err := mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{Lifetime: lifetime, TTLGrace: time.Millisecond, Now: now})
		if err != nil {
			return err
		}
		_, err = tokens.Purge(context.Background())
		return err
	}
	return set
}

// mongoProcess is a devmongo process as a crasher.
type mongoProcess struct {
	mongoServer
	*process
}

func ownMongoDB(t *testing.T) crasher {
	t.Helper()
	p, err := startProcess("127.0.0.1:0", filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	m := &mongoProcess{mongoServer(p.uri()), p}
	t.Cleanup(func() { m.kill() })
	return m
}

func (m *mongoProcess) crash(_ int, down time.Duration) error {
	m.kill()
	time.Sleep(down)
	p, err := startProcess(m.addr, m.dir)
	if err == nil {
		m.process = p
	}
	return err
}
