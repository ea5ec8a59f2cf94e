package lab

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"time"
)

// delayConfig configures a delay process.
type delayConfig struct {
	Backend string
	Delay   time.Duration
}

// Delay is a proxy that lengthens each round trip to the database.
type Delay struct {
	// URI is the database's URI through the proxy.
	URI string

	process *process
}

// Delay starts a proxy in front of the database.
func (l *Lab) Delay(d time.Duration) (*Delay, error) {
	backend, through, err := rewrite(l.Data.URI)
	if err != nil {
		return nil, err
	}
	var addr string
	p, err := start("delay", delayConfig{backend, d}, &addr)
	if err != nil {
		return nil, err
	}
	return &Delay{through(addr), p}, nil
}

// rewrite returns the address of a URI's only server, and a function that replaces it.
func rewrite(uri string) (backend string, through func(addr string) string, err error) {
	rest, ok := strings.CutPrefix(uri, "mongodb://")
	if !ok {
		return "", nil, errors.New("lab: a delay needs a mongodb:// URI")
	}
	end := len(rest)
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		end = i
	}
	begin := strings.LastIndex(rest[:end], "@") + 1
	backend = rest[begin:end]
	if strings.Contains(backend, ",") {
		return "", nil, errors.New("lab: a delay needs a URI with one server")
	}
	if _, _, err := net.SplitHostPort(backend); err != nil {
		backend = net.JoinHostPort(backend, "27017")
	}
	before, after := "mongodb://"+rest[:begin], rest[end:]
	if !strings.Contains(after, "directConnection=") {
		// Otherwise the driver of a replica set would connect to its members, around the proxy.
		switch {
		case strings.Contains(after, "?"):
			after += "&"
		case after == "":
			after = "/?"
		default:
			after += "?"
		}
		after += "directConnection=true"
	}
	return backend, func(addr string) string { return before + addr + after }, nil
}

// Close stops the proxy.
func (d *Delay) Close() { d.process.stop() }

func runDelay(ctx context.Context, raw json.RawMessage, ready func(any) error) error {
	var config delayConfig
	if err := json.Unmarshal(raw, &config); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		_ = listener.Close()
	}()
	if err := ready(listener.Addr().String()); err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return nil // the listener is closed
		}
		go relay(conn, config)
	}
}

// relay forwards a connection. It delays each request by the whole delay, and answers not at
// all: MongoDB's drivers wait for the answer before they send the next request, so the round
// trip takes as long as if both were delayed by half.
func relay(client net.Conn, config delayConfig) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", config.Backend)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	go func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		if config.Delay > 0 {
			sleep(config.Delay)
		}
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
	}
}
