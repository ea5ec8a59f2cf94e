// Package ctxkey has the keys under which a request's context carries what strategy
// and ginauth put there, so that ginauth can make one context, in one allocation,
// of what strategy's constructors would make several of.
package ctxkey

import "context"

// Session is the key of a *strategy.Session[U].
type Session[U any] struct{}

// SessionInfo is the key of a *strategy.SessionInfo.
type SessionInfo struct{}

// ClientAddr is the key of the *string that Client carries.
type ClientAddr struct{}

// Client is a context that carries the address of a client.
type Client struct {
	context.Context
	Addr string
}

// Value implements context.Context.
func (c *Client) Value(key any) any {
	if key == (ClientAddr{}) {
		return &c.Addr
	}
	return c.Context.Value(key)
}
