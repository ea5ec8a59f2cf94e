// Package lab runs the database (or its stub) and the candidates' servers for a measurement.
// Each is a separate process, so that no two share a garbage collector.
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

// URIVariable is the environment variable with the URI of the database to measure on.
const URIVariable = "LATCHKEY_TEST_MONGODB_URI"

// Lab is a database with the candidates' data.
type Lab struct {
	// Data are the users and tokens.
	Data candidate.Data
	// Stub is set if wirestub stands in for a database.
	Stub bool
	// Server is the server's name and version.
	Server string

	stub *process
}

// HasServer reports whether the environment names a database.
func HasServer() bool { return os.Getenv(URIVariable) != "" }

// Open inserts users and tokens into a new database on the server that [URIVariable] names.
// Without one, or with forceStub, it starts a stub.
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
		return nil, fmt.Errorf("lab: insert users and tokens: %w", err)
	}
	if l.Stub {
		l.Server = "wirestub"
	} else if l.Server, err = candidate.ServerVersion(ctx, data); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Close drops the database, or stops the stub.
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
	// Addr is its address.
	Addr string
	// Sessions are the headers that authenticate the users; see candidate.Site.
	Sessions []candidate.Header

	process *process
}

// siteConfig configures a site process.
type siteConfig struct {
	Candidate string
	Data      candidate.Data
}

// Serve starts a candidate's server. uri is the database's URI through a delay; "" means
// the direct one.
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

// Close stops the server.
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
