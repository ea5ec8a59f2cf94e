package devmongo

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
)

// front stands between the clients and FerretDB, and lets one write through at a time. MongoDB applies every
// update of a single document atomically; FerretDB v1 on SQLite reads the document, changes it and writes it back,
// so that of two conditional updates at once both can succeed. Programs rely on the difference.
type front struct {
	listener net.Listener
	backend  string // FerretDB's address

	writing sync.Mutex // held from a write's request to its reply

	mu     sync.Mutex
	conns  map[net.Conn]struct{} // nil once closed
	serves sync.WaitGroup
}

func newFront(listener net.Listener, backend string) *front {
	f := &front{listener: listener, backend: backend, conns: make(map[net.Conn]struct{})}
	f.serves.Go(f.accept)
	return f
}

// close ends all connections and waits for their goroutines.
func (f *front) close() {
	_ = f.listener.Close()
	f.mu.Lock()
	for conn := range f.conns {
		_ = conn.Close()
	}
	f.conns = nil
	f.mu.Unlock()
	f.serves.Wait()
}

// track remembers a connection for close. It reports whether there is still time.
func (f *front) track(conn net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conns == nil {
		return false
	}
	f.conns[conn] = struct{}{}
	return true
}

func (f *front) drop(conn net.Conn) {
	f.mu.Lock()
	delete(f.conns, conn)
	f.mu.Unlock()
	_ = conn.Close()
}

func (f *front) accept() {
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			return // closed
		}
		f.serves.Go(func() { f.serve(conn) })
	}
}

// serve carries a connection's messages to and fro until either side ends it.
func (f *front) serve(client net.Conn) {
	defer f.drop(client)
	server, err := net.Dial("tcp", f.backend)
	if err != nil {
		return
	}
	defer f.drop(server)
	if !f.track(client) || !f.track(server) {
		return
	}
	for {
		request, err := readMessage(client)
		if err != nil {
			return
		}
		if err := f.exchange(client, server, request); err != nil {
			return
		}
	}
}

// exchange passes a request on, and its reply back.
func (f *front) exchange(client, server net.Conn, request message) error {
	if request.writes() {
		f.writing.Lock()
		defer f.writing.Unlock()
	}
	if _, err := server.Write(request); err != nil {
		return err
	}
	for more := !request.moreToCome(); more; {
		reply, err := readMessage(server)
		if err != nil {
			return err
		}
		if _, err := client.Write(reply); err != nil {
			return err
		}
		more = reply.moreToCome()
	}
	return nil
}

// message is a message of MongoDB's wire protocol: a header of four int32 (length, two IDs, opcode), and a body.
type message []byte

const (
	headerLength = 16
	maxMessage   = 48_000_000 // MongoDB's own limit
	opMsg        = 2013
)

func readMessage(r io.Reader) (message, error) {
	header := make([]byte, headerLength)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint32(header)
	if length < headerLength || length > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes", length)
	}
	m := make(message, length)
	copy(m, header)
	_, err := io.ReadFull(r, m[headerLength:])
	return m, err
}

func (m message) isMsg() bool {
	return len(m) >= headerLength+4 && binary.LittleEndian.Uint32(m[12:]) == opMsg
}

// moreToCome reports whether the sender sends on without waiting for an answer: an unacknowledged write, say.
func (m message) moreToCome() bool {
	return m.isMsg() && m[headerLength]&2 != 0
}

// writes reports whether the message is a command that writes: the command's name is the key of the first element
// of the first section, an OP_MSG's body.
func (m message) writes() bool {
	const name = headerLength + 4 + 1 + 4 + 1 // flags, kind of section, length of document, type of element
	if !m.isMsg() || len(m) <= name {
		return false
	}
	command, _, _ := bytes.Cut(m[name:], []byte{0})
	switch string(command) {
	case "insert", "update", "delete", "findAndModify", "create", "createIndexes", "dropIndexes", "drop", "dropDatabase":
		return true
	}
	return false
}
