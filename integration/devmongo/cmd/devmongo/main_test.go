package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// started matches the only line that the command prints.
var started = regexp.MustCompile(`^devmongo: listening on (mongodb://\S+), data in (.+)\n$`)

func TestRunServesUntilItsContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, stdout := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"-listen", "127.0.0.1:0"}, stdout)
		stdout.Close()
	}()

	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	said := started.FindStringSubmatch(line)
	if said == nil {
		t.Fatalf("printed %q", line)
	}
	uri, dir := said[1], said[2]

	client, err := mongo.Connect(options.Client().ApplyURI(uri).SetServerSelectionTimeout(5 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Ping(ctx, nil); err != nil {
		t.Error(err)
	}
	if err := client.Disconnect(ctx); err != nil {
		t.Error(err)
	}

	cancel()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
	if rest, _ := io.ReadAll(lines); len(rest) > 0 {
		t.Errorf("printed more: %q", rest)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the temporary directory still exists: %v", err)
	}
}

func TestRunKeepsANamedDirectory(t *testing.T) {
	dir := t.TempDir() + "/data"
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // run returns as soon as the server has started
	if err := run(ctx, []string{"-listen", "127.0.0.1:0", "-dir", dir}, io.Discard); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}

func TestRunRejectsInvalidArguments(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()

	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"an unknown flag":   {[]string{"-port", "1"}, "-port"},
		"an address in use": {[]string{"-listen", taken.Addr().String()}, taken.Addr().String()},
	} {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), c.args, io.Discard)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one that names %q", err, c.want)
			}
		})
	}
}
