// Package serve runs the examples' HTTP servers.
package serve

import (
	"context"
	"net"
	"net/http"
	"time"
)

// Until serves until ctx is done, and then waits up to 10 seconds for requests in flight.
func Until(ctx context.Context, listener net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, IdleTimeout: time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return server.Shutdown(ctx)
}

// Reachable returns an address to connect to: for a listener on all interfaces the
// loopback address, the only one to which curl and browsers send secure cookies over
// plain HTTP.
func Reachable(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsUnspecified() {
		return addr.String()
	}
	return net.JoinHostPort("127.0.0.1", port)
}
