// Package ctxkey has the keys under which a request's context carries what strategy
// and ginauth put there, so that ginauth can make one context, in one allocation,
// of what strategy's constructors would make several of.
package ctxkey

import (
	"context"
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
	addr string
	from Request
	once sync.Once
}

// Request is what a client's address can be found out from.
type Request interface{ ClientAddr() string }

// WithClient returns a context that carries an address.
func WithClient(ctx context.Context, addr string) *Client { return &Client{Context: ctx, addr: addr} }

// ClientOf returns a context that finds the address out when it is first asked for
// it. Call Know or Forget before the request must not be read any more.
func ClientOf(ctx context.Context, from Request) Client { return Client{Context: ctx, from: from} }

// Know finds the address out, unless that is done.
func (c *Client) Know() {
	c.once.Do(func() {
		if c.from != nil {
			c.addr, c.from = c.from.ClientAddr(), nil
		}
	})
}

// Forget leaves the address unknown if nobody has asked for it so far.
func (c *Client) Forget() { c.once.Do(func() { c.from = nil }) }

// Value implements context.Context.
func (c *Client) Value(key any) any {
	if key == (ClientAddr{}) {
		c.Know()
		return &c.addr
	}
	return c.Context.Value(key)
}
