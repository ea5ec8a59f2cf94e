package devmongo_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"

	"github.com/latchkey-go/latchkey/integration/devmongo"
)

func start(t *testing.T, cfg devmongo.Config) *devmongo.Server {
	t.Helper()
	server, err := devmongo.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, server) })
	return server
}

func stop(t *testing.T, server *devmongo.Server) {
	t.Helper()
	if err := server.Close(); err != nil {
		t.Error(err)
	}
}

// use runs f with a client of the server, and disconnects the client.
func use(t *testing.T, server *devmongo.Server, f func(context.Context, *mongo.Collection)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	client, err := mongo.Connect(options.Client().ApplyURI(server.URI()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := client.Disconnect(ctx); err != nil {
			t.Error(err)
		}
	}()
	f(ctx, client.Database("test").Collection("things"))
}

func insert(t *testing.T, server *devmongo.Server, id, name string) {
	t.Helper()
	use(t, server, func(ctx context.Context, things *mongo.Collection) {
		if _, err := things.InsertOne(ctx, bson.M{"_id": id, "name": name}); err != nil {
			t.Fatal(err)
		}
	})
}

// find returns the name of a document, "" if it does not exist.
func find(t *testing.T, server *devmongo.Server, id string) (name string) {
	t.Helper()
	use(t, server, func(ctx context.Context, things *mongo.Collection) {
		var thing struct{ Name string }
		err := things.FindOne(ctx, bson.M{"_id": id}).Decode(&thing)
		if err != nil && !errors.Is(err, mongo.ErrNoDocuments) {
			t.Fatal(err)
		}
		name = thing.Name
	})
	return name
}

func TestInsertedDocumentIsFound(t *testing.T) {
	server := start(t, devmongo.Config{})
	if want := "mongodb://" + server.Addr() + "/"; server.URI() != want {
		t.Errorf("URI %q, want %q", server.URI(), want)
	}
	insert(t, server, "1", "one")
	if got := find(t, server, "1"); got != "one" {
		t.Errorf("found %q", got)
	}
}

func TestDataAndAddressSurviveARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "created", "by devmongo")
	first := start(t, devmongo.Config{Dir: dir})
	if first.Dir() != dir {
		t.Errorf("Dir %q, want %q", first.Dir(), dir)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v", info, err)
	}
	insert(t, first, "1", "one")
	stop(t, first)

	second := start(t, devmongo.Config{Dir: dir, Listen: first.Addr()})
	if second.URI() != first.URI() {
		t.Errorf("URI %q, was %q", second.URI(), first.URI())
	}
	if got := find(t, second, "1"); got != "one" {
		t.Errorf("found %q after the restart", got)
	}
}

func TestCloseRemovesTheTemporaryDirectory(t *testing.T) {
	server := start(t, devmongo.Config{})
	insert(t, server, "1", "one")
	if files, err := os.ReadDir(server.Dir()); err != nil || len(files) == 0 {
		t.Errorf("files of the data: %v, %v", files, err)
	}
	stop(t, server)
	if _, err := os.Stat(server.Dir()); !os.IsNotExist(err) {
		t.Errorf("the temporary directory still exists: %v", err)
	}
}

func TestServersDoNotShareData(t *testing.T) {
	a, b := start(t, devmongo.Config{}), start(t, devmongo.Config{})
	insert(t, a, "1", "one")
	if got := find(t, b, "1"); got != "" {
		t.Errorf("found %q in the other server", got)
	}
	if got := find(t, a, "1"); got != "one" {
		t.Errorf("found %q", got)
	}
}

func TestServersCanStartConcurrently(t *testing.T) {
	for range 4 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			server := start(t, devmongo.Config{})
			insert(t, server, "1", "one")
		})
	}
}

func TestCloseIsIdempotent(t *testing.T) {
	server := start(t, devmongo.Config{})
	stop(t, server)
	stop(t, server)
	if conn, err := net.Dial("tcp", server.Addr()); err == nil {
		conn.Close()
		t.Error("a closed server accepts connections")
	}
}

func TestCloseDoesNotWaitForConnectedClients(t *testing.T) {
	server := start(t, devmongo.Config{})
	use(t, server, func(ctx context.Context, things *mongo.Collection) {
		if err := things.Database().Client().Ping(ctx, nil); err != nil {
			t.Fatal(err)
		}
		stop(t, server)
	})
}

func TestAddressInUseIsAnErrorThatNamesIt(t *testing.T) {
	taken := start(t, devmongo.Config{})
	_, err := devmongo.Start(devmongo.Config{Listen: taken.Addr()})
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), taken.Addr()) {
		t.Errorf("error %v, want one that names %s", err, taken.Addr())
	}
}

func TestUnusableDirectoryIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(t.TempDir(), "100%41")} {
		server, err := devmongo.Start(devmongo.Config{Dir: dir})
		if err == nil {
			stop(t, server)
			t.Errorf("started in %s", dir)
		}
	}
}

func TestLoggerReceivesFerretDBsLog(t *testing.T) {
	var log bytes.Buffer
	server := start(t, devmongo.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	stop(t, server)
	if !strings.Contains(log.String(), "Listening on TCP") {
		t.Errorf("FerretDB's log is %q", &log)
	}
}

func TestCloseLeavesNoGoroutine(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	server := start(t, devmongo.Config{})
	insert(t, server, "1", "one")
	find(t, server, "1")
	stop(t, server)
}

func TestOneOfConcurrentConditionalUpdatesSucceeds(t *testing.T) {
	server := start(t, devmongo.Config{})
	use(t, server, func(ctx context.Context, things *mongo.Collection) {
		for round := range 10 {
			if _, err := things.InsertOne(ctx, bson.M{"_id": round, "owner": ""}); err != nil {
				t.Fatal(err)
			}
			var won atomic.Int64
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					filter, update := bson.M{"_id": round, "owner": ""}, bson.M{"$set": bson.M{"owner": i + 1}}
					if i%2 == 0 {
						res, err := things.UpdateOne(ctx, filter, update)
						if err != nil {
							t.Error(err)
						} else {
							won.Add(res.ModifiedCount)
						}
					} else if err := things.FindOneAndUpdate(ctx, filter, update).Err(); err == nil {
						won.Add(1)
					} else if !errors.Is(err, mongo.ErrNoDocuments) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := won.Load(); n != 1 {
				t.Errorf("round %d: %d updates succeeded, want 1", round, n)
			}
		}
	})
}
