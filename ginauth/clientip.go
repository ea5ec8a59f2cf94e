package ginauth

import (
	"context"
	"net/netip"
	"sync"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/internal/ctxkey"
)

// clientContext carries the client IP of a request, which it resolves when it is
// first asked for: rejected requests skip it.
//
// Call resolve or discard before the handler returns: Gin recycles its contexts.
type clientContext struct {
	context.Context
	mu    sync.Mutex
	from  *gin.Context // nil once resolved or discarded
	ip    string       // as Gin reports it; after the first ask, a valid address or ""
	asked bool
}

// newClientContext returns a context that carries the client IP that ctx already
// knows, or else the one of the request. c may be nil if ctx knows it.
func newClientContext(ctx context.Context, c *gin.Context) clientContext {
	return clientContext{Context: ctx, from: c}
}

// resolve asks Gin for the address. It leaves the parsing for later, because most
// requests never need it.
func (c *clientContext) resolve() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resolveLocked()
}

func (c *clientContext) resolveLocked() {
	if c.from != nil {
		c.ip, c.from = ginClientIP(c.from), nil
	}
}

// discard ends the use of the gin.Context. The client IP is "" unless it was asked for.
func (c *clientContext) discard() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.from = nil
}

// Value implements context.Context.
func (c *clientContext) Value(key any) any {
	if key == (ctxkey.ClientIP{}) {
		return c.clientIP()
	}
	return c.Context.Value(key)
}

// clientIP returns the address, which does not change after the first call.
func (c *clientContext) clientIP() *string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.asked {
		c.asked = true
		if known, ok := c.Context.Value(ctxkey.ClientIP{}).(*string); ok && *known != "" {
			c.ip, c.from = *known, nil
		} else {
			c.resolveLocked()
			c.ip = plainIP(c.ip) // Gin passes a platform's header on as it is
		}
	}
	return &c.ip
}

// plainIP returns an IP address without its port, or "" if s is something else.
func plainIP(s string) string {
	if _, err := netip.ParseAddr(s); err == nil {
		return s
	}
	if withPort, err := netip.ParseAddrPort(s); err == nil {
		return withPort.Addr().String()
	}
	return ""
}
