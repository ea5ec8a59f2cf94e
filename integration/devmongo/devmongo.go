package devmongo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/FerretDB/FerretDB/ferretdb"

	"github.com/latchkey-go/latchkey/integration/internal/wireproxy"
)

// Config configures a server. The zero value is a temporary server on a free port.
type Config struct {
	// Listen is the TCP address to listen on. Default: 127.0.0.1:0, a free port of the loopback
	// interface.
	Listen string

	// Dir is the directory of the data. Only one server at a time may use it. It is created if
	// missing, with the mode 0700, and Close keeps it. Default: a temporary directory, which
	// Close removes.
	Dir string

	// PostgreSQL is the URL of a PostgreSQL database for the data, instead of Dir. Only one
	// server at a time may use it. Default: SQLite in Dir.
	PostgreSQL string

	// Logger receives FerretDB's log. Default: the log is discarded.
	Logger *slog.Logger
}

// Server is a running server. It is safe for concurrent use.
type Server struct {
	addr  string
	dir   string
	close func() error
}

// starting serializes calls of ferretdb.New, which writes to a package variable.
var starting sync.Mutex

// Start starts a server, which runs until Close. It accepts connections when Start returns.
func Start(cfg Config) (*Server, error) {
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("devmongo: %w", err) // err names the address
	}
	dir, cleanup, err := dataDir(cfg)
	if err != nil {
		return nil, fmt.Errorf("devmongo: data directory: %w", errors.Join(err, listener.Close()))
	}
	db, err := newFerretDB(cfg, dir)
	if err != nil {
		return nil, fmt.Errorf("devmongo: start: %w", errors.Join(err, listener.Close(), cleanup()))
	}

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- db.Run(ctx) }()

	// MongoDBURI waits until FerretDB listens.
	backend := strings.TrimSuffix(strings.TrimPrefix(db.MongoDBURI(), "mongodb://"), "/")
	front := wireproxy.Start(listener, backend, oneWriteAtATime())
	return &Server{
		addr: listener.Addr().String(),
		dir:  dir,
		close: sync.OnceValue(func() error {
			front.Close()
			cancel()
			if err := errors.Join(<-done, cleanup()); err != nil {
				return fmt.Errorf("devmongo: close: %w", err)
			}
			return nil
		}),
	}, nil
}

// URI returns the connection string for a MongoDB driver.
func (s *Server) URI() string { return "mongodb://" + s.addr + "/" }

// Addr returns the address that the server listens on, host:port.
func (s *Server) Addr() string { return s.addr }

// Dir returns the directory of the data, "" with PostgreSQL.
func (s *Server) Dir() string { return s.dir }

// Close ends the server and the connections of its clients, and removes a temporary directory. It
// is idempotent: further calls return the result of the first.
func (s *Server) Close() error { return s.close() }

func newFerretDB(cfg Config, dir string) (*ferretdb.FerretDB, error) {
	starting.Lock()
	defer starting.Unlock()
	c := &ferretdb.Config{Listener: ferretdb.ListenerConfig{TCP: "127.0.0.1:0"}, Logger: cfg.Logger}
	if cfg.PostgreSQL != "" {
		c.Handler, c.PostgreSQLURL = "postgresql", cfg.PostgreSQL
	} else {
		c.Handler, c.SQLiteURL = "sqlite", (&url.URL{Scheme: "file", Path: dir + "/"}).String()
	}
	return ferretdb.New(c)
}

// oneWriteAtATime serializes writes. MongoDB applies every update of a single document
// atomically. FerretDB v1 reads the document, changes it and writes it back, so that two
// concurrent conditional updates can both succeed.
func oneWriteAtATime() wireproxy.Handler {
	var writing sync.Mutex
	return func(request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
		switch request.Command() {
		case "insert", "update", "delete", "findAndModify", "create", "createIndexes", "dropIndexes", "drop", "dropDatabase":
			writing.Lock()
			defer writing.Unlock()
		}
		return send(request)
	}
}

// dataDir creates a server's data directory. cleanup removes it if it is temporary.
func dataDir(cfg Config) (path string, cleanup func() error, err error) {
	dir := cfg.Dir
	if cfg.PostgreSQL != "" {
		if dir != "" {
			return "", nil, errors.New("Dir and PostgreSQL are both set")
		}
		return "", func() error { return nil }, nil
	}
	if dir == "" {
		dir, err = os.MkdirTemp("", "devmongo-")
		return dir, func() error { return os.RemoveAll(dir) }, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", nil, err
	}
	// FerretDB uses the path as a part of a URI and of a file name pattern.
	if strings.ContainsAny(dir, `%?#*[\`) {
		return "", nil, fmt.Errorf(`%q contains one of %%?#*[\`, dir)
	}
	return dir, func() error { return nil }, os.MkdirAll(dir, 0o700)
}
