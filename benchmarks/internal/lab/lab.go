// Package lab sets up what is measured: a database or the stub of one, and the candidates' servers. Each is a process
// of its own, so that no two of them share a garbage collector.
package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/latchkey-go/latchkey/benchmarks/internal/candidate"
	"github.com/latchkey-go/latchkey/benchmarks/wirestub"
)

// URIVariable names the server to measure on.
const URIVariable = "LATCHKEY_TEST_MONGODB_URI"

// Lab is a server with the data that candidates work on.
type Lab struct {
	// Data is what the candidates work on.
	Data candidate.Data
	// Stub is set where the server is no database.
	Stub bool
	// Server is what the server says that it is.
	Server string

	stub *process
}

// HasServer reports whether the environment names a server.
func HasServer() bool { return os.Getenv(URIVariable) != "" }

// Open sets up users and tokens in a database of their own, on the server that the environment names, or else on a
// stub. forceStub takes the stub either way.
func Open(ctx context.Context, users, tokens int, forceStub bool) (*Lab, error) {
	uri := os.Getenv(URIVariable)
	l := &Lab{Stub: uri == "" || forceStub}
	if l.Stub {
		var err error
		if l.stub, err = start("stub", struct{}{}, &uri); err != nil {
			return nil, err
		}
	}
	data := candidate.Data{URI: uri, Database: fmt.Sprintf("latchkey_bench_%d_%d", os.Getpid(), time.Now().UnixNano())}
	var err error
	l.Data, err = candidate.Seed(ctx, data, users, tokens)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("lab: insert the data: %w", err)
	}
	if l.Stub {
		l.Server = "wirestub"
	} else if l.Server, err = candidate.ServerVersion(ctx, data); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Close removes the database, and ends the stub.
func (l *Lab) Close() {
	if l.stub != nil {
		l.stub.stop()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if db, err := candidate.Open(ctx, l.Data, nil); err == nil {
		_ = db.Drop(ctx)
		_ = db.Close(ctx)
	}
}

func runStub(ctx context.Context, _ json.RawMessage, ready func(any) error) error {
	server, err := wirestub.Start("")
	if err != nil {
		return err
	}
	defer server.Close()
	if err := ready(server.URI()); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// Site is a candidate's server.
type Site struct {
	// Addr is where it listens.
	Addr string
	// Sessions are as candidate.Site has them.
	Sessions []candidate.Header

	process *process
}

// siteConfig says what a site serves.
type siteConfig struct {
	Candidate string
	Data      candidate.Data
}

// Serve starts a candidate's server. uri is another way to the data's server, through a delay; "" is the straight one.
func (l *Lab) Serve(name, uri string) (*Site, error) {
	config := siteConfig{name, l.Data}
	if uri != "" {
		config.Data.URI = uri
	}
	var site Site
	p, err := start("site", config, &site)
	site.process = p
	return &site, err
}

// Close ends the server.
func (s *Site) Close() { s.process.stop() }

func runSite(ctx context.Context, raw json.RawMessage, ready func(any) error) error {
	var config siteConfig
	if err := json.Unmarshal(raw, &config); err != nil {
		return err
	}
	c, err := candidate.ByName(config.Candidate)
	if err != nil {
		return err
	}
	db, err := candidate.Open(ctx, config.Data, nil)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close(context.WithoutCancel(ctx)) }()
	site, err := c.Build(ctx, db)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: site.Handler, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	defer func() { _ = server.Close() }()
	if err := ready(Site{Addr: listener.Addr().String(), Sessions: site.Sessions}); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}
