package testserver_test

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/integration/devmongo"
	"github.com/latchkey-go/latchkey/integration/internal/testserver"
)

// localImage is devmongo as an image: see its Dockerfile.
const localImage = "latchkey-devmongo:local"

// containerRequired is what the caller asked for, before the tests set the variable for their own ends.
var containerRequired = os.Getenv("LATCHKEY_TEST_REQUIRE_CONTAINER") == "1"

func TestMain(m *testing.M) {
	// testcontainers reads it once. These tests end their containers themselves, and need no image to do it for them.
	os.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
	os.Exit(m.Run())
}

// setenv sets the variables of the package, and unsets those that env does not name.
func setenv(t *testing.T, env map[string]string) {
	t.Helper()
	for _, name := range []string{
		"LATCHKEY_TEST_MONGODB_URI", "LATCHKEY_TEST_IMAGE", "LATCHKEY_TEST_REQUIRE_CONTAINER", "LATCHKEY_TEST_REQUIRE",
	} {
		t.Setenv(name, env[name])
	}
	if host, ok := env["DOCKER_HOST"]; ok {
		t.Setenv("DOCKER_HOST", host)
	}
}

// noDocker is an engine that is not there.
func noDocker(env map[string]string) map[string]string {
	env["DOCKER_HOST"] = "tcp://127.0.0.1:1"
	return env
}

func start(t *testing.T) *testserver.Server {
	t.Helper()
	server, err := testserver.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Log(server)
	return server
}

func connect(t *testing.T, uri string) *mongo.Client {
	t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(uri).SetServerSelectionTimeout(5 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Disconnect(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return client
}

func TestTheURIWins(t *testing.T) {
	theirs, err := devmongo.Start(devmongo.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	setenv(t, noDocker(map[string]string{
		"LATCHKEY_TEST_MONGODB_URI":       "mongodb://" + theirs.Addr() + "/?appName=s3cret",
		"LATCHKEY_TEST_REQUIRE_CONTAINER": "1",
	}))

	server := start(t)
	if server.Kind != testserver.KindURI || server.Devmongo() != nil {
		t.Errorf("kind %q, devmongo %v", server.Kind, server.Devmongo())
	}
	if got := server.String(); !strings.Contains(got, theirs.Addr()) || strings.Contains(got, "s3cret") {
		t.Errorf("String %q, want the address and no more of the URI", got)
	}
	for name, f := range map[string]func(context.Context) error{"Stop": server.Stop, "Restart": server.Restart} {
		if err := f(t.Context()); !errors.Is(err, testserver.ErrCannotStop) {
			t.Errorf("%s: %v, want ErrCannotStop", name, err)
		}
	}
	if err := server.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := connect(t, theirs.URI()).Ping(t.Context(), nil); err != nil {
		t.Errorf("Close ended a server of somebody else: %v", err)
	}
}

func TestABadURIIsAnErrorWithoutThePassword(t *testing.T) {
	for _, uri := range []string{"mongodb://me:s3cret%zz@127.0.0.1/", "mongodb://me:x@s3cret:no-port/", "me:s3cret@host"} {
		setenv(t, map[string]string{"LATCHKEY_TEST_MONGODB_URI": uri})
		_, err := testserver.Start(t.Context())
		if err == nil || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "%zz") {
			t.Errorf("error %v", err)
		}
	}
}

func TestNoServerAtTheURI(t *testing.T) {
	setenv(t, map[string]string{"LATCHKEY_TEST_MONGODB_URI": "mongodb://me:s3cret@127.0.0.1:1/"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := testserver.Start(ctx)
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("error %v, want one that names the address and not the password", err)
	}
}

func TestWithoutDocker(t *testing.T) {
	setenv(t, noDocker(map[string]string{}))
	began := time.Now()
	server := start(t)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	if server.Kind != testserver.KindDevmongo || server.Devmongo() == nil {
		t.Fatalf("kind %q, devmongo %v", server.Kind, server.Devmongo())
	}
	checkFerretDB(t, server)
	if !strings.Contains(server.String(), "no Docker engine answers") || strings.Contains(server.String(), "\n") {
		t.Errorf("String %q, want one line with the reason", server)
	}

	dir := server.Devmongo().Dir()
	if err := server.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the data is still there: %v", err)
	}
}

// An engine that accepts and never answers must not hang the suite either.
func TestWithAnEngineThatHangs(t *testing.T) {
	hung, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hung.Close()
	setenv(t, map[string]string{"DOCKER_HOST": "tcp://" + hung.Addr().String()})
	began := time.Now()
	server := start(t)
	if took := time.Since(began); server.Kind != testserver.KindDevmongo || took > 5*time.Second {
		t.Errorf("kind %q after %v", server.Kind, took)
	}
}

func TestARequiredContainerIsAnErrorWithoutDocker(t *testing.T) {
	setenv(t, noDocker(map[string]string{"LATCHKEY_TEST_REQUIRE_CONTAINER": "1"}))
	_, err := testserver.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "LATCHKEY_TEST_REQUIRE_CONTAINER") {
		t.Errorf("error %v, want one that names the variable", err)
	}
}

// It holds without an engine too, only for another reason.
func TestAMissingImageCountsAsNoDocker(t *testing.T) {
	const missing = "latchkey-no-such-image:none"
	setenv(t, map[string]string{"LATCHKEY_TEST_IMAGE": missing})
	if server := start(t); server.Kind != testserver.KindDevmongo {
		t.Errorf("kind %q", server.Kind)
	}

	setenv(t, map[string]string{"LATCHKEY_TEST_IMAGE": missing, "LATCHKEY_TEST_REQUIRE_CONTAINER": "1"})
	if _, err := testserver.Start(t.Context()); err == nil {
		t.Error("no error, though a container is required")
	}
}

func TestContainer(t *testing.T) {
	setenv(t, map[string]string{"LATCHKEY_TEST_IMAGE": localImage, "LATCHKEY_TEST_REQUIRE_CONTAINER": "1"})
	if err := testserver.FindImage(t.Context(), localImage); err != nil {
		if containerRequired {
			t.Fatal(err)
		}
		t.Skipf("%v (LATCHKEY_TEST_REQUIRE_CONTAINER=1 makes this a failure)", err)
	}
	server := start(t)
	if server.Kind != testserver.KindContainer || server.Devmongo() != nil {
		t.Errorf("kind %q, devmongo %v", server.Kind, server.Devmongo())
	}
	checkFerretDB(t, server)
	checkRestart(t, server)
}

func TestRestartInProcess(t *testing.T) {
	setenv(t, noDocker(map[string]string{}))
	server := start(t)
	before := server.Devmongo()
	checkRestart(t, server)
	if server.Devmongo() == before {
		t.Error("Devmongo is still the stopped server")
	}
}

// checkRestart stops the server under a client, and starts it again.
func checkRestart(t *testing.T, server *testserver.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := connect(t, server.URI)
	docs := testserver.Database(t, client).Collection("docs")
	if _, err := docs.InsertOne(ctx, bson.M{"_id": 1}); err != nil {
		t.Fatal(err)
	}

	for range 2 { // stopping what is stopped is fine
		if err := server.Stop(ctx); err != nil {
			t.Fatal(err)
		}
	}
	gone, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := client.Ping(gone, nil); err == nil {
		t.Error("a stopped server answers")
	}
	if err := server.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if n, err := docs.CountDocuments(ctx, bson.M{"_id": 1}); n != 1 || err != nil {
		t.Errorf("after the restart: %d documents, %v", n, err)
	}
	if err := server.Restart(ctx); err != nil { // a running one
		t.Fatal(err)
	}
	if n, err := docs.CountDocuments(ctx, bson.M{"_id": 1}); n != 1 || err != nil {
		t.Errorf("after the second restart: %d documents, %v", n, err)
	}
}

// checkFerretDB compares what the probe found with what FerretDB v1 is known to do, and looks for its traces.
func checkFerretDB(t *testing.T, server *testserver.Server) {
	t.Helper()
	got := server.Capabilities
	if !strings.Contains(got.Version, "FerretDB") {
		t.Errorf("version %q does not name FerretDB", got.Version)
	}
	got.Version = ""
	if want := (testserver.Capabilities{}); got != want {
		t.Errorf("capabilities %v, want %v", got, want)
	}
	if server.TTLWait() < 2*time.Minute {
		t.Errorf("TTLWait %v is for a monitor in a hurry", server.TTLWait())
	}
	t.Run("traces", func(t *testing.T) { // a test of its own, to disconnect before the server is closed
		names, err := connect(t, server.URI).ListDatabaseNames(t.Context(), bson.M{})
		if len(names) > 0 || err != nil {
			t.Errorf("the probe left %v, %v", names, err)
		}
	})
}
