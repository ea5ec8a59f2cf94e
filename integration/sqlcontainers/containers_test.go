package sqlcontainers_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"
)

// TestSqlstoreOnContainers runs the tests of sqlstore on each image that the engine has. The
// variables LATCHKEY_TEST_POSTGRESQL_IMAGE and LATCHKEY_TEST_MYSQL_IMAGE name others. It pulls no
// image: fetch it before.
func TestSqlstoreOnContainers(t *testing.T) {
	for name, server := range map[string]struct {
		image, port, dsn string
		env              map[string]string
	}{
		"PostgreSQL": {
			image: cmp.Or(os.Getenv("LATCHKEY_TEST_POSTGRESQL_IMAGE"), "postgres:17"), port: "5432/tcp",
			dsn: "postgres://postgres:latchkey@%s/postgres?sslmode=disable", env: map[string]string{"POSTGRES_PASSWORD": "latchkey"},
		},
		"MySQL": {
			image: cmp.Or(os.Getenv("LATCHKEY_TEST_MYSQL_IMAGE"), "mysql:8"), port: "3306/tcp",
			dsn: "mysql://root:latchkey@tcp(%s)/", env: map[string]string{"MYSQL_ROOT_PASSWORD": "latchkey"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if err := has(ctx, server.image); err != nil {
				t.Skipf("no Docker engine with the image %s: %v", server.image, err)
			}
			running, err := testcontainers.Run(ctx, server.image, testcontainers.WithEnv(server.env), testcontainers.WithExposedPorts(server.port),
				testcontainers.WithWaitStrategyAndDeadline(3*time.Minute, wait.ForListeningPort(server.port)))
			testcontainers.CleanupContainer(t, running)
			if err != nil {
				t.Fatal(err)
			}
			address, err := running.PortEndpoint(ctx, server.port, "")
			if err != nil {
				t.Fatal(err)
			}
			test := exec.CommandContext(ctx, "go", "test", "-count=1", "-timeout", "20m", ".")
			test.Dir = "../../sqlstore"
			test.Env = append(os.Environ(), "LATCHKEY_TEST_REQUIRE_SQL=1", "LATCHKEY_TEST_SQL_DSN="+fmt.Sprintf(server.dsn, address))
			if output, err := test.CombinedOutput(); err != nil {
				t.Errorf("the tests of sqlstore on %s: %v\n%s", server.image, err, output)
			}
		})
	}
}

// has returns an error if no Docker engine answers within seconds, or if it does not have the image.
func has(ctx context.Context, image string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	docker, err := client.New(client.FromEnv)
	if err != nil {
		return err
	}
	defer func() { _ = docker.Close() }()
	_, err = docker.ImageInspect(ctx, image)
	return err
}
