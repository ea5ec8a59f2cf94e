package testserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"
	"github.com/testcontainers/testcontainers-go/wait"
)

const (
	pingTimeout  = 3 * time.Second // a running engine answers in milliseconds
	pullTimeout  = 5 * time.Minute
	startTimeout = 2 * time.Minute

	mongoPort = "27017/tcp"
)

// quiet silences the global logger of testcontainers.
var quiet = sync.OnceFunc(func() { log.SetDefault(log.NewNoopLogger()) })

// engineWith returns a Docker engine that has the image, or an error that says why there is none.
func engineWith(ctx context.Context, image string) (*testcontainers.DockerProvider, error) {
	quiet()
	if err := pingEngine(ctx); err != nil {
		return nil, fmt.Errorf("no Docker engine answers: %w", err)
	}
	docker, err := testcontainers.NewDockerProvider()
	if err != nil {
		return nil, fmt.Errorf("no Docker engine answers: %w", err)
	}
	if err := ensureImage(ctx, docker.Client(), image); err != nil {
		return nil, errors.Join(fmt.Errorf("no image %s: %w", image, err), docker.Close())
	}
	return docker, nil
}

// pingEngine checks that the Docker engine of the environment answers. testcontainers would wait
// for it without a time limit, and cache the first result for the life of the process.
func pingEngine(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	docker, err := client.New(client.FromEnv)
	if err != nil {
		return err
	}
	defer docker.Close()
	_, err = docker.Ping(ctx, client.PingOptions{})
	if os.Getenv(client.EnvOverrideHost) == "" && ctx.Err() == nil {
		return nil // testcontainers tries more sockets than the default one
	}
	return err
}

// ensureImage pulls the image if the engine lacks it. It tries once; testcontainers would retry
// for minutes.
func ensureImage(ctx context.Context, docker client.APIClient, image string) error {
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	if _, err := docker.ImageInspect(ctx, image); err == nil {
		return nil
	}

	var opts client.ImagePullOptions
	if _, auth, err := testcontainers.DockerImageAuth(ctx, image); err == nil { // without an error; else the image is probably public
		if opts.RegistryAuth, err = authconfig.Encode(auth); err != nil {
			return err
		}
	}
	pull, err := docker.ImagePull(ctx, image, opts)
	if err != nil {
		return err
	}
	defer pull.Close()
	return pull.Wait(ctx)
}

// startContainer runs an image that the engine has.
func startContainer(ctx context.Context, docker *testcontainers.DockerProvider, image string) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	host, err := docker.DaemonHost(ctx)
	if err != nil {
		return nil, fmt.Errorf("host of the containers: %w", err)
	}
	reach := &reachable{addrs: []string{net.JoinHostPort("127.0.0.1", port)}}
	binding := network.PortBinding{HostPort: port, HostIP: netip.MustParseAddr("127.0.0.1")}
	if host != "localhost" {
		// Either the engine is on another machine, or this process runs in a container and host
		// is a guess. The guess is wrong if the engine runs in the same container.
		reach.addrs = append(reach.addrs, net.JoinHostPort(host, port))
		binding.HostIP = netip.Addr{} // all interfaces
	}

	ttlWait := usualTTLWait
	opts := []testcontainers.ContainerCustomizer{
		testcontainers.WithExposedPorts(mongoPort),
		// Docker would choose another port after a restart.
		testcontainers.WithHostConfigModifier(func(cfg *container.HostConfig) {
			cfg.PortBindings = network.PortMap{network.MustParsePort(mongoPort): {binding}}
		}),
		testcontainers.WithWaitStrategy(reach),
	}
	if repository(image) == "mongo" {
		ttlWait = 10 * time.Second
		opts = append(opts, testcontainers.WithCmd("mongod", "--setParameter", "ttlMonitorSleepSecs=1", "--bind_ip_all"))
	}

	running, err := testcontainers.Run(ctx, image, opts...)
	if err != nil {
		return nil, fmt.Errorf("container of %s: %w", image, errors.Join(err, testcontainers.TerminateContainer(running)))
	}
	return &Server{
		URI:         containerURI(reach.addr),
		Kind:        KindContainer,
		Description: fmt.Sprintf("a container of %s at %s", image, reach.addr),
		ttlWait:     ttlWait,
		backend:     dockerized{running},
	}, nil
}

// reachable waits until the server answers a ping at one of addrs, and sets addr to it. An open
// port is not enough, because Docker's proxy accepts connections before the server does. A
// command in the container is not possible, because the image need not have a shell.
type reachable struct {
	addrs []string
	addr  string
}

// WaitUntilReady implements wait.Strategy.
func (r *reachable) WaitUntilReady(ctx context.Context, target wait.StrategyTarget) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		var failed []error
		for _, addr := range r.addrs {
			err := ping(ctx, containerURI(addr))
			if err == nil {
				r.addr = addr
				return nil
			}
			failed = append(failed, err)
		}
		state, err := target.State(ctx)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("no answer: %w", errors.Join(failed...))
		case err != nil:
			return err
		case !state.Running:
			return fmt.Errorf("exited with code %d", state.ExitCode)
		}
	}
}

// containerURI connects directly: the names of a replica set's members resolve only in the
// container's network.
func containerURI(addr string) string { return "mongodb://" + addr + "/?directConnection=true" }

// freePort returns a free port. Another process could take it before the container does, but that
// is unlikely.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("free port: %w", err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

// repository returns the last element of an image's repository: "mongo" for
// registry:5000/library/mongo:8@sha256:….
func repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	name, _, _ := strings.Cut(path.Base(image), ":")
	return name
}

// dockerized is the backend of a server in a container.
type dockerized struct {
	*testcontainers.DockerContainer
}

func (b dockerized) stop(ctx context.Context) error  { return b.Stop(ctx, nil) }
func (b dockerized) start(ctx context.Context) error { return b.Start(ctx) }

// close kills the container, because its data are not needed any more.
func (b dockerized) close(ctx context.Context) error {
	return b.Terminate(ctx, testcontainers.StopTimeout(0))
}
