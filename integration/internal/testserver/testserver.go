package testserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"

	"github.com/latchkey-go/latchkey/integration/devmongo"
)

// The kinds of server.
const (
	KindURI       = "uri"       // not ours: the one at LATCHKEY_TEST_MONGODB_URI
	KindContainer = "container" // a Docker container
	KindDevmongo  = "devmongo"  // inside this process
)

// The environment variables that Start and Require read.
const (
	envURI              = "LATCHKEY_TEST_MONGODB_URI"
	envImage            = "LATCHKEY_TEST_IMAGE"
	envRequireContainer = "LATCHKEY_TEST_REQUIRE_CONTAINER"
	envRequire          = "LATCHKEY_TEST_REQUIRE"
)

// readyTimeout bounds the wait for a started server to answer, a replica set's election included.
const readyTimeout = 60 * time.Second

// ErrCannotStop is the error of Stop and Restart for a server that this process did not start.
var ErrCannotStop = errors.New("not started by this process")

// Server is a server to test against. Its methods are for one goroutine at a time.
type Server struct {
	URI          string // may hold credentials: print String instead
	Kind         string // KindURI, KindContainer or KindDevmongo
	Description  string // where the server is, and what it was made of
	Capabilities Capabilities

	ttlWait time.Duration
	backend backend
}

// backend is what the kinds of server do differently.
type backend interface {
	stop(context.Context) error  // keeps the data; no error if stopped already
	start(context.Context) error // after stop, at the same address
	close(context.Context) error // ends the server and leaves nothing behind
}

// Start picks a server as the package's comment says, waits until it answers, and probes what it can do.
func Start(ctx context.Context) (*Server, error) {
	s, err := pick(ctx)
	if err != nil {
		return nil, fmt.Errorf("testserver: %w", err)
	}
	s.Capabilities, err = s.examine(ctx)
	if err != nil {
		return nil, fmt.Errorf("testserver: %s: %w", s.Description, errors.Join(err, s.Close(context.WithoutCancel(ctx))))
	}
	return s, nil
}

func pick(ctx context.Context) (*Server, error) {
	if uri := os.Getenv(envURI); uri != "" {
		return fromURI(uri)
	}
	image := os.Getenv(envImage)
	if image == "" {
		image = "mongo:8"
	}
	docker, err := engineWith(ctx, image)
	if err == nil {
		defer docker.Close()
		return startContainer(ctx, docker, image)
	}
	if required := os.Getenv(envRequireContainer); required != "" && required != "0" {
		return nil, fmt.Errorf("%s is set: %w", envRequireContainer, err)
	}
	return startInProcess(err)
}

// examine waits for the server and asks it what it can do.
func (s *Server) examine(ctx context.Context) (found Capabilities, err error) {
	if err := await(ctx, s.URI); err != nil {
		return found, err
	}
	client, err := mongo.Connect(options.Client().ApplyURI(s.URI))
	if err != nil {
		return found, err
	}
	found, err = probe(ctx, client)
	return found, errors.Join(err, client.Disconnect(context.WithoutCancel(ctx)))
}

// await waits until the server answers.
func await(ctx context.Context, uri string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		err := ping(ctx, uri)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("no answer: %w", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// ping asks once, for two seconds at most if nobody is there.
func ping(ctx context.Context, uri string) error {
	client, err := mongo.Connect(options.Client().ApplyURI(uri).SetServerSelectionTimeout(2 * time.Second))
	if err != nil {
		return err
	}
	err = client.Ping(ctx, readpref.Primary())
	return errors.Join(err, client.Disconnect(context.WithoutCancel(ctx)))
}

// String is one line to print: which server, its version, what it can do. It holds no credentials.
func (s *Server) String() string {
	return fmt.Sprintf("%s, %s", s.Description, s.Capabilities)
}

// TTLWait is how long a test waits for an expired document to be collected: seconds where this package set the pace
// of the TTL monitor, else two of its usual minutes and some.
func (s *Server) TTLWait() time.Duration { return s.ttlWait }

// Close ends the server if this package started it.
func (s *Server) Close(ctx context.Context) error {
	if err := s.backend.close(ctx); err != nil {
		return fmt.Errorf("testserver: close: %w", err)
	}
	return nil
}

// Stop stops the server, keeping its data and its address for Restart. It waits for the server's end: clients that
// stay connected to a devmongo can take three seconds of it.
func (s *Server) Stop(ctx context.Context) error {
	if err := s.backend.stop(ctx); err != nil {
		return fmt.Errorf("testserver: stop: %w", err)
	}
	return nil
}

// Restart stops the server, if it runs, and starts it again at the same address with the same data. It answers when
// Restart returns.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	if err := s.backend.start(ctx); err != nil {
		return fmt.Errorf("testserver: restart: %w", err)
	}
	if err := await(ctx, s.URI); err != nil {
		return fmt.Errorf("testserver: restart: %w", err)
	}
	return nil
}

// Devmongo is the server inside this process, nil for the other kinds. Restart makes a new one.
func (s *Server) Devmongo() *devmongo.Server {
	if b, ok := s.backend.(*inProcess); ok {
		return b.server
	}
	return nil
}

// The usual TTL monitor sleeps a minute between turns.
const usualTTLWait = 150 * time.Second

// foreign is a server that somebody else runs.
type foreign struct{}

func (foreign) stop(context.Context) error  { return ErrCannotStop }
func (foreign) start(context.Context) error { return ErrCannotStop }
func (foreign) close(context.Context) error { return nil }

func fromURI(uri string) (*Server, error) {
	opts := options.Client().ApplyURI(uri)
	if opts.Validate() != nil {
		// The driver's error may quote the URI, and that may hold a password.
		return nil, errors.New(envURI + " is not a valid connection string")
	}
	return &Server{
		URI:         uri,
		Kind:        KindURI,
		Description: "the server at " + strings.Join(opts.Hosts, ","),
		ttlWait:     usualTTLWait,
		backend:     foreign{},
	}, nil
}

// inProcess is a devmongo. Its directory is named, not devmongo's temporary one, to outlive a stop.
type inProcess struct {
	server *devmongo.Server
	dir    string
}

func (b *inProcess) stop(context.Context) error { return b.server.Close() }

func (b *inProcess) start(context.Context) (err error) {
	server, err := devmongo.Start(devmongo.Config{Listen: b.server.Addr(), Dir: b.dir})
	if err == nil {
		b.server = server
	}
	return err
}

func (b *inProcess) close(context.Context) error {
	return errors.Join(b.server.Close(), os.RemoveAll(b.dir))
}

// startInProcess starts a devmongo, for want of a container.
func startInProcess(noContainer error) (*Server, error) {
	dir, err := os.MkdirTemp("", "latchkey-test-")
	if err != nil {
		return nil, err
	}
	server, err := devmongo.Start(devmongo.Config{Dir: dir})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	why := strings.ReplaceAll(noContainer.Error(), "\n", "; ")
	return &Server{
		URI:         server.URI(),
		Kind:        KindDevmongo,
		Description: fmt.Sprintf("devmongo in this process at %s (no container: %s)", server.Addr(), why),
		ttlWait:     usualTTLWait,
		backend:     &inProcess{server, dir},
	}, nil
}
