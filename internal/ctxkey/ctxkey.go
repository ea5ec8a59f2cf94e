// Package ctxkey has the keys under which a request's context carries what strategy
// and ginauth put there, so that ginauth can make one context, in one allocation,
// of what strategy's constructors would make several of.
package ctxkey

import (
	"context"
	"net/netip"
	"sync"
)

// Session is the key of a *strategy.Session[U].
type Session[U any] struct{}

// SessionInfo is the key of a *strategy.SessionInfo.
type SessionInfo struct{}

// ClientAddr is the key of the *string that Client carries.
type ClientAddr struct{}

// Client is a context that carries the address of a client.
type Client struct {
	context.Context
	mu    sync.Mutex
	from  Request // nil once it was asked, or must not be
	addr  string  // what it said; once somebody has asked, the address, or ""
	asked bool
}

// Request is what a client's address can be found out from. A *gin.Context is one.
type Request interface {
	// ClientIP returns the address, and perhaps something that is none: what a header
	// says, as it is.
	ClientIP() string
}

// WithClient returns a context that carries an address.
func WithClient(ctx context.Context, addr string) *Client {
	return &Client{Context: ctx, addr: addr, asked: true}
}

// ClientOf returns a context that carries the address that ctx knows already, or that
// of the request. It finds it out when it is first asked for it: call Know or Forget
// before the request must not be read any more.
func ClientOf(ctx context.Context, from Request) Client { return Client{Context: ctx, from: from} }

// Know asks the request, unless that is done. It is quick: most requests are asked
// nothing more.
func (c *Client) Know() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.know()
}

func (c *Client) know() {
	if c.from != nil {
		c.addr, c.from = c.from.ClientIP(), nil
	}
}

// Forget leaves the request alone from here on.
func (c *Client) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.from = nil
}

// Value implements context.Context.
func (c *Client) Value(key any) any {
	if key == (ClientAddr{}) {
		return c.ask()
	}
	return c.Context.Value(key)
}

// ask returns the address. It does not change after that.
func (c *Client) ask() *string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.asked {
		c.asked = true
		if known, ok := c.Context.Value(ClientAddr{}).(*string); ok && *known != "" {
			c.addr, c.from = *known, nil
		} else if c.know(); !valid(c.addr) {
			c.addr = ""
		}
	}
	return &c.addr
}

func valid(addr string) bool {
	_, err := netip.ParseAddr(addr)
	return err == nil
}
