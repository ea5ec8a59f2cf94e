// Package wireproxy stands between MongoDB clients and a server, and lets a program look at and change what passes.
package wireproxy

import (
	"net"
	"sync"
)

// Handler answers a client's request, most often with what send returns: it passes a request on to the server, this
// one or another, and returns the server's reply, nil where the client does not wait for one. Handlers run side by
// side, one for each connection. After an error the connection is closed.
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

// Start serves the connections of a listener, which it takes over, by a server's address, until Close. A nil handler
// changes nothing.
func Start(listener net.Listener, backend string, handle Handler) *Proxy {
	if handle == nil {
		handle = func(request Message, send func(Message) (Message, error)) (Message, error) { return send(request) }
	}
	p := &Proxy{listener: listener, backend: backend, handle: handle, conns: make(map[net.Conn]struct{})}
	p.serves.Go(p.accept)
	return p
}

// Close ends all connections, and waits for their handlers. It is idempotent.
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

// track remembers a connection for Close. It reports whether there is still time.
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

// serve carries a connection's messages to and fro until either side ends it.
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

// exchange passes a request on, and returns the reply if there will be one.
func exchange(server net.Conn, request Message) (Message, error) {
	if _, err := server.Write(request); err != nil || request.moreToCome() {
		return nil, err
	}
	return ReadMessage(server)
}
