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
	KindURI       = "uri"       // the server at LATCHKEY_TEST_MONGODB_URI
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

// readyTimeout bounds the wait until a started server answers, including a replica set's election.
const readyTimeout = 60 * time.Second

// ErrCannotStop is returned by Stop and Restart for a server that this process did not start.
var ErrCannotStop = errors.New("not started by this process")

// Server is a server to test against. Its methods are not safe for concurrent use.
type Server struct {
	URI          string // may hold credentials: print String instead
	Kind         string // KindURI, KindContainer or KindDevmongo
	Description  string // the server's address and origin
	Capabilities Capabilities

	ttlWait time.Duration
	backend backend
}

// backend controls one kind of server.
type backend interface {
	stop(context.Context) error  // keeps the data; no error if stopped already
	start(context.Context) error // after stop, at the same address
	close(context.Context) error // ends the server and deletes its data
}

// Start picks a server as the package comment describes, waits until it answers, and probes its
// capabilities.
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

// examine waits until the server answers, and probes its capabilities.
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

// ping connects once. Without a server it fails after two seconds.
func ping(ctx context.Context, uri string) error {
	client, err := mongo.Connect(options.Client().ApplyURI(uri).SetServerSelectionTimeout(2 * time.Second))
	if err != nil {
		return err
	}
	err = client.Ping(ctx, readpref.Primary())
	return errors.Join(err, client.Disconnect(context.WithoutCancel(ctx)))
}

// String returns one line with the server's description, version and capabilities, without
// credentials.
func (s *Server) String() string {
	return fmt.Sprintf("%s, %s", s.Description, s.Capabilities)
}

// TTLWait is how long a test should wait until an expired document is deleted: 10 seconds if this
// package configured the TTL monitor, else 150 seconds, more than two of its usual rounds.
func (s *Server) TTLWait() time.Duration { return s.ttlWait }

// Close ends the server if this process started it.
func (s *Server) Close(ctx context.Context) error {
	if err := s.backend.close(ctx); err != nil {
		return fmt.Errorf("testserver: close: %w", err)
	}
	return nil
}

// Stop stops the server, and keeps its data and address for Restart. It returns when the server
// has ended. Connected clients can delay the end of a devmongo by three seconds.
func (s *Server) Stop(ctx context.Context) error {
	if err := s.backend.stop(ctx); err != nil {
		return fmt.Errorf("testserver: stop: %w", err)
	}
	return nil
}

// Restart stops the server if it runs, and starts it again at the same address with the same
// data. It returns when the server answers.
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

// Devmongo returns the server inside this process, nil for the other kinds. Restart makes a new
// one.
func (s *Server) Devmongo() *devmongo.Server {
	if b, ok := s.backend.(*inProcess); ok {
		return b.server
	}
	return nil
}

// usualTTLWait is the TTLWait of a server whose TTL monitor runs once a minute.
const usualTTLWait = 150 * time.Second

// foreign is the backend of a server that this process did not start.
type foreign struct{}

func (foreign) stop(context.Context) error  { return ErrCannotStop }
func (foreign) start(context.Context) error { return ErrCannotStop }
func (foreign) close(context.Context) error { return nil }

func fromURI(uri string) (*Server, error) {
	opts := options.Client().ApplyURI(uri)
	if opts.Validate() != nil {
		// The driver's error may quote the URI with its password.
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

// inProcess is the backend of a devmongo. It has a directory of its own, because devmongo would
// remove a temporary one at a stop.
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

// startInProcess starts a devmongo. noContainer says why there is no container.
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
