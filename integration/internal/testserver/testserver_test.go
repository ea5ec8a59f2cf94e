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

// localImage is an image of devmongo; see its Dockerfile.
const localImage = "latchkey-devmongo:local"

// containerRequired is LATCHKEY_TEST_REQUIRE_CONTAINER as the caller set it, before the tests
// change it.
var containerRequired = os.Getenv("LATCHKEY_TEST_REQUIRE_CONTAINER") == "1"

func TestMain(m *testing.M) {
	// testcontainers reads the variable once. These tests end their containers themselves.
	os.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
	os.Exit(m.Run())
}

// setenv sets the variables that the package reads to their values in env, and empties the others.
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

// noDocker adds the address of a Docker engine that does not exist.
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

func TestURIWinsOverDocker(t *testing.T) {
	foreign, err := devmongo.Start(devmongo.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { foreign.Close() })
	setenv(t, noDocker(map[string]string{
		"LATCHKEY_TEST_MONGODB_URI":       "mongodb://" + foreign.Addr() + "/?appName=s3cret",
		"LATCHKEY_TEST_REQUIRE_CONTAINER": "1",
	}))

	server := start(t)
	if server.Kind != testserver.KindURI || server.Devmongo() != nil {
		t.Errorf("kind %q, devmongo %v", server.Kind, server.Devmongo())
	}
	if got := server.String(); !strings.Contains(got, foreign.Addr()) || strings.Contains(got, "s3cret") {
		t.Errorf("String() is %q, want the address but not the rest of the URI", got)
	}
	for name, f := range map[string]func(context.Context) error{"Stop": server.Stop, "Restart": server.Restart} {
		if err := f(t.Context()); !errors.Is(err, testserver.ErrCannotStop) {
			t.Errorf("%s: %v, want ErrCannotStop", name, err)
		}
	}
	if err := server.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := connect(t, foreign.URI()).Ping(t.Context(), nil); err != nil {
		t.Errorf("Close ended a server that this process did not start: %v", err)
	}
}

func TestInvalidURIIsAnErrorWithoutThePassword(t *testing.T) {
	for _, uri := range []string{"mongodb://me:s3cret%zz@127.0.0.1/", "mongodb://me:x@s3cret:no-port/", "me:s3cret@host"} {
		setenv(t, map[string]string{"LATCHKEY_TEST_MONGODB_URI": uri})
		_, err := testserver.Start(t.Context())
		if err == nil || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "%zz") {
			t.Errorf("error %v", err)
		}
	}
}

func TestUnreachableURIIsAnErrorThatNamesTheAddress(t *testing.T) {
	setenv(t, map[string]string{"LATCHKEY_TEST_MONGODB_URI": "mongodb://me:s3cret@127.0.0.1:1/"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := testserver.Start(ctx)
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("error %v, want one that names the address and not the password", err)
	}
}

func TestDevmongoIsUsedWithoutDocker(t *testing.T) {
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
		t.Errorf("the data directory still exists: %v", err)
	}
}

func TestDevmongoIsUsedIfTheDockerEngineHangs(t *testing.T) {
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

func TestRequiredContainerIsAnErrorWithoutDocker(t *testing.T) {
	setenv(t, noDocker(map[string]string{"LATCHKEY_TEST_REQUIRE_CONTAINER": "1"}))
	_, err := testserver.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "LATCHKEY_TEST_REQUIRE_CONTAINER") {
		t.Errorf("error %v, want one that names the variable", err)
	}
}

// Without a Docker engine this passes too, for another reason.
func TestDevmongoIsUsedWithoutTheImage(t *testing.T) {
	const missing = "latchkey-no-such-image:none"
	setenv(t, map[string]string{"LATCHKEY_TEST_IMAGE": missing})
	if server := start(t); server.Kind != testserver.KindDevmongo {
		t.Errorf("kind %q", server.Kind)
	}

	setenv(t, map[string]string{"LATCHKEY_TEST_IMAGE": missing, "LATCHKEY_TEST_REQUIRE_CONTAINER": "1"})
	if _, err := testserver.Start(t.Context()); err == nil {
		t.Error("no error without the image of a required container")
	}
}

func TestContainerIsStartedAndRestarted(t *testing.T) {
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

func TestDevmongoRestarts(t *testing.T) {
	setenv(t, noDocker(map[string]string{}))
	server := start(t)
	before := server.Devmongo()
	checkRestart(t, server)
	if server.Devmongo() == before {
		t.Error("Devmongo returns the stopped server")
	}
}

// checkRestart stops and restarts the server while a client is connected.
func checkRestart(t *testing.T, server *testserver.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := connect(t, server.URI)
	docs := testserver.Database(t, client).Collection("docs")
	if _, err := docs.InsertOne(ctx, bson.M{"_id": 1}); err != nil {
		t.Fatal(err)
	}

	for range 2 { // stopping a stopped server is no error
		if err := server.Stop(ctx); err != nil {
			t.Fatal(err)
		}
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := client.Ping(short, nil); err == nil {
		t.Error("a stopped server answers")
	}
	if err := server.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if n, err := docs.CountDocuments(ctx, bson.M{"_id": 1}); n != 1 || err != nil {
		t.Errorf("after the restart: %d documents, %v", n, err)
	}
	if err := server.Restart(ctx); err != nil { // while it runs
		t.Fatal(err)
	}
	if n, err := docs.CountDocuments(ctx, bson.M{"_id": 1}); n != 1 || err != nil {
		t.Errorf("after the second restart: %d documents, %v", n, err)
	}
}

// checkFerretDB checks the capabilities that the probe found, and that the probe left no database
// behind.
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
		t.Errorf("TTLWait is %v, want more than two rounds of the TTL monitor", server.TTLWait())
	}
	t.Run("the probe's database", func(t *testing.T) { // a subtest, to disconnect before the server is closed
		names, err := connect(t, server.URI).ListDatabaseNames(t.Context(), bson.M{})
		if len(names) > 0 || err != nil {
			t.Errorf("the probe left %v, %v", names, err)
		}
	})
}
