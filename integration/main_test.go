package integration_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/integration/internal/testserver"
)

// server is the MongoDB server under test.
var server *testserver.Server

func TestMain(m *testing.M) {
	gin.SetMode(gin.TestMode)
	if os.Getenv(envChildURI) != "" {
		if err := childMain(); err != nil {
			fmt.Fprintln(os.Stderr, "integration: another process:", err)
			os.Exit(1)
		}
		return
	}
	ctx := context.Background()
	var err error
	if server, err = testserver.Start(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		os.Exit(1)
	}
	fmt.Println(server)
	code := m.Run()
	if programDir != "" {
		_ = os.RemoveAll(programDir)
	}
	if err := server.Close(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		code = 1
	}
	os.Exit(code)
}

// connect returns a client of the server, and a recorder of the commands that it sends.
func connect(tb testing.TB, opts ...*options.ClientOptions) (*mongo.Client, *recorder) {
	tb.Helper()
	return connectTo(tb, server.URI, opts...)
}

// connectTo is connect for a server at another URI.
func connectTo(tb testing.TB, uri string, opts ...*options.ClientOptions) (*mongo.Client, *recorder) {
	tb.Helper()
	sent := &recorder{}
	base := options.Client().ApplyURI(uri).SetMonitor(&event.CommandMonitor{Started: sent.started})
	client, err := mongo.Connect(append([]*options.ClientOptions{base}, opts...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = client.Disconnect(ctx)
	})
	return client, sent
}

// database returns a new database that is dropped when the test ends.
func database(tb testing.TB) *mongo.Database {
	tb.Helper()
	client, _ := connect(tb)
	return testserver.Database(tb, client)
}

// recorder keeps the commands that a client sends. It is safe for concurrent use.
type recorder struct {
	mu       sync.Mutex
	commands []bson.Raw
}

func (r *recorder) started(_ context.Context, e *event.CommandStartedEvent) {
	switch e.CommandName {
	case "hello", "saslStart", "saslContinue", "authenticate": // sent once by every new connection
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commands = append(r.commands, append(bson.Raw(nil), e.Command...))
}

func (r *recorder) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commands = nil
}

func (r *recorder) all() []bson.Raw {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]bson.Raw(nil), r.commands...)
}

// named returns the commands with this name.
func (r *recorder) named(name string) []bson.Raw {
	var out []bson.Raw
	for _, c := range r.all() {
		if elem, err := c.IndexErr(0); err == nil && elem.Key() == name {
			out = append(out, c)
		}
	}
	return out
}
