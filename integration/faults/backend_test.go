package faults_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// backend is a database server under test.
type backend interface {
	// address is its host and port, for a proxy.
	address() string
	// newDatabase makes an empty database, drops it at the end of the test, and returns its
	// name.
	newDatabase(testing.TB) string
	// connect opens a client of a database, and sets the rig's connected.
	connect(ctx context.Context, r *rig, database string, cfg rigConfig) error
	// inspect checks that nothing in the rig's database is half written.
	inspect(t *testing.T, r *rig)
	// deleteTokens deletes all tokens in the rig's database.
	deleteTokens(t *testing.T, r *rig)
	// stores returns stores in a new database, for tests with other clocks than the server's.
	stores(t *testing.T) storeSet
}

// crasher is a server that a test owns.
type crasher interface {
	backend
	// crash kills the server, or on some rounds a part of it, starts it again after a pause,
	// and waits until it accepts connections.
	crash(round int, down time.Duration) error
}

// connected is a client of a database and the stores in it.
type connected struct {
	tokens interface {
		strategy.Store[uuid.UUID]
		strategy.RevocationLog[uuid.UUID]
	}
	users    account.Store[member, uuid.UUID]
	attempts account.AttemptStore
	// background ends the work of the stores in the background.
	background []func()
	// connections counts the client's connections: those that are open, and those in use.
	connections func() (open, out int64)
	// disconnect ends the client.
	disconnect func(context.Context) error
}

// backends are the servers that tests run on, by the names of their tests. A test is skipped
// if there is no such server.
var backends = []struct {
	name  string
	start func(testing.TB) backend
}{
	{"MongoDB", onMongoDB},
	{"PostgreSQL", onPostgreSQL},
	{"MySQL", onMySQL},
	{"SQLite", onSQLite},
}

// onEachServer runs a test on each server, and not on SQLite, which is none.
func onEachServer(t *testing.T, test func(t *testing.T, on backend)) {
	for _, b := range backends {
		if b.name != "SQLite" {
			t.Run(b.name, func(t *testing.T) { test(t, b.start(t)) })
		}
	}
}
