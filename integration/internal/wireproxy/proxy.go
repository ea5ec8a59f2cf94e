// Package wireproxy is a proxy between MongoDB clients and a server, in which a program can
// inspect and change the messages.
package wireproxy

import (
	"net"
	"sync"
)

// Handler answers a client's request. send passes a request to the server, the same or a changed
// one, and returns the server's reply, or nil if the client expects none. Handlers run
// concurrently, one for each connection. After an error the connection is closed.
type Handler func(request Message, send func(Message) (Message, error)) (Message, error)

// Proxy is a running proxy. It is safe for concurrent use.
type Proxy struct {
	listener net.Listener
	backend  string
	handle   Handler

	mu     sync.Mutex
	conns  map[net.Conn]struct{} // nil once closed
	serves sync.WaitGroup
}

// Start serves the connections of a listener, in front of the server at the address backend,
// until Close. It owns the listener. A nil handler changes nothing.
func Start(listener net.Listener, backend string, handle Handler) *Proxy {
	if handle == nil {
		handle = func(request Message, send func(Message) (Message, error)) (Message, error) { return send(request) }
	}
	p := &Proxy{listener: listener, backend: backend, handle: handle, conns: make(map[net.Conn]struct{})}
	p.serves.Go(p.accept)
	return p
}

// Close ends all connections and waits until their handlers have returned. It is idempotent.
func (p *Proxy) Close() {
	_ = p.listener.Close()
	p.mu.Lock()
	for conn := range p.conns {
		_ = conn.Close()
	}
	p.conns = nil
	p.mu.Unlock()
	p.serves.Wait()
}

// track keeps a connection for Close. It reports false if the proxy is closed already.
func (p *Proxy) track(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		return false
	}
	p.conns[conn] = struct{}{}
	return true
}

func (p *Proxy) drop(conn net.Conn) {
	p.mu.Lock()
	delete(p.conns, conn)
	p.mu.Unlock()
	_ = conn.Close()
}

func (p *Proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.serves.Go(func() { p.serve(conn) })
	}
}

// serve passes the messages of a connection until either side ends it.
func (p *Proxy) serve(client net.Conn) {
	defer p.drop(client)
	server, err := net.Dial("tcp", p.backend)
	if err != nil {
		return
	}
	defer p.drop(server)
	if !p.track(client) || !p.track(server) {
		return
	}
	for {
		request, err := ReadMessage(client)
		if err != nil {
			return
		}
		reply, err := p.handle(request, func(m Message) (Message, error) { return exchange(server, m) })
		if err != nil {
			return
		}
		if reply == nil {
			continue
		}
		if _, err := client.Write(reply); err != nil {
			return
		}
	}
}

// exchange sends a request to the server, and returns the reply if one is expected.
func exchange(server net.Conn, request Message) (Message, error) {
	if _, err := server.Write(request); err != nil || request.moreToCome() {
		return nil, err
	}
	return ReadMessage(server)
}
