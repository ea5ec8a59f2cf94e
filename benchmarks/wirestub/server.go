package wirestub

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/FerretDB/wire"
	"github.com/FerretDB/wire/wirebson"
)

// Server is a running stub. It is safe for concurrent use.
type Server struct {
	listener net.Listener
	data     store
	commands atomic.Int64

	mu     sync.Mutex
	conns  map[net.Conn]struct{} // nil once closed
	serves sync.WaitGroup
}

// Start starts a stub that listens on an address until Close. "" means a free port of
// 127.0.0.1.
func Start(addr string) (*Server, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("wirestub: %w", err)
	}
	s := &Server{listener: listener, data: store{databases: make(map[string]map[string]*collection), cursors: make(map[int64][]wirebson.RawDocument)}, conns: make(map[net.Conn]struct{})}
	s.serves.Go(s.accept)
	return s, nil
}

// URI returns the connection string.
func (s *Server) URI() string {
	return "mongodb://" + s.listener.Addr().String() + "/?directConnection=true"
}

// Commands returns the number of commands answered so far, without handshakes and pings.
func (s *Server) Commands() int64 { return s.commands.Load() }

// Close closes the listener and all connections, and waits for their goroutines. It is
// idempotent.
func (s *Server) Close() {
	_ = s.listener.Close()
	s.mu.Lock()
	for conn := range s.conns {
		_ = conn.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.serves.Wait()
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return // closed
		}
		s.mu.Lock()
		closed := s.conns == nil
		if !closed {
			s.conns[conn] = struct{}{}
			s.serves.Go(func() { s.serve(conn) })
		}
		s.mu.Unlock()
		if closed {
			_ = conn.Close()
		}
	}
}

// serve answers the messages of a connection until either side closes it.
func (s *Server) serve(conn net.Conn) {
	defer func() {
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
		_ = conn.Close()
	}()
	r, w := bufio.NewReader(conn), bufio.NewWriter(conn)
	for {
		header, body, err := wire.ReadMessage(r)
		if err != nil {
			return
		}
		if err := s.reply(w, header, body); err != nil {
			return
		}
		if err := w.Flush(); err != nil {
			return
		}
	}
}

func (s *Server) reply(w *bufio.Writer, header *wire.MsgHeader, body wire.MsgBody) error {
	var answer wire.MsgBody
	out := wire.MsgHeader{RequestID: header.RequestID, ResponseTo: header.RequestID, OpCode: wire.OpCodeMsg}
	switch m := body.(type) {
	case *wire.OpMsg:
		doc, err := s.answer(m).Encode()
		if err != nil {
			return err
		}
		if m.Flags.FlagSet(wire.OpMsgMoreToCome) {
			return nil // the client does not wait for an answer
		}
		if answer, err = wire.NewOpMsg(doc); err != nil {
			return err
		}
		const flagsAndKind = 4 + 1
		out.MessageLength = int32(wire.MsgHeaderLen + flagsAndKind + len(doc))
	case *wire.OpQuery: // a driver's first hello
		doc, err := hello().Encode()
		if err != nil {
			return err
		}
		if answer, err = wire.NewOpReply(doc); err != nil {
			return err
		}
		const fixed = 20
		out.OpCode, out.MessageLength = wire.OpCodeReply, int32(wire.MsgHeaderLen+fixed+len(doc))
	default:
		return fmt.Errorf("wirestub: unexpected message %T", body)
	}
	return wire.WriteMessage(w, &out, answer)
}

// command is a request: its document, and the document sequences sent with it.
type command struct {
	spec *wirebson.Document
	name string
	seqs []wire.OpMsgSection
}

// docs returns a field's list of documents, which may be a document sequence.
func (c command) docs(field string) ([]wirebson.RawDocument, error) {
	for i := range c.seqs {
		if c.seqs[i].Identifier == field {
			return c.seqs[i].Documents(), nil
		}
	}
	return documents(c.spec.Get(field))
}

// target returns the database and the collection that a command names.
func (c command) target() (db, coll string) {
	db, _ = c.spec.Get("$db").(string)
	coll, _ = c.spec.Get(c.name).(string)
	return db, coll
}

func (s *Server) answer(m *wire.OpMsg) *wirebson.Document {
	spec, err := m.RawSection0().Decode()
	if err != nil {
		return errorReply(&failure{codeFailedToParse, err.Error()})
	}
	c := command{spec: spec, name: spec.Command()}
	for _, section := range m.Sections() {
		if section.Kind == 1 {
			c.seqs = append(c.seqs, section)
		}
	}
	switch c.name {
	case "hello", "isMaster", "ismaster":
		return hello()
	case "ping", "endSessions", "killCursors":
		return wirebson.MustDocument("ok", 1.0)
	}
	s.commands.Add(1)
	doc, err := s.data.run(c)
	if err != nil {
		return errorReply(err)
	}
	return doc
}

// hello describes a standalone server with the wire version of MongoDB 7.
func hello() *wirebson.Document {
	return wirebson.MustDocument(
		"helloOk", true,
		"ismaster", true,
		"isWritablePrimary", true,
		"maxBsonObjectSize", int32(16<<20),
		"maxMessageSizeBytes", int32(wire.MaxMsgLen),
		"maxWriteBatchSize", int32(100_000),
		"localTime", time.Now(),
		"logicalSessionTimeoutMinutes", int32(30),
		"minWireVersion", int32(0),
		"maxWireVersion", int32(21),
		"readOnly", false,
		"ok", 1.0,
	)
}

// failure is an error with MongoDB's error code.
type failure struct {
	code    int32
	message string
}

func (f *failure) Error() string { return f.message }

func notImplemented(what string) error {
	return &failure{codeNotImplemented, what + " is not implemented"}
}

const (
	codeBadValue         = 2
	codeFailedToParse    = 9
	codeTypeMismatch     = 14
	codeNamespaceMissing = 26
	codeCommandNotFound  = 59
	codeNotImplemented   = 238
	codeCursorNotFound   = 43
	codeDuplicateKey     = 11000
)

func errorReply(err error) *wirebson.Document {
	var f *failure
	if !errors.As(err, &f) {
		f = &failure{codeBadValue, err.Error()}
	}
	return wirebson.MustDocument("ok", 0.0, "errmsg", "wirestub: "+f.message, "code", f.code)
}
