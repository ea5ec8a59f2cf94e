// Package ctxkey defines the context keys that packages share, so that ginauth can put a
// session and the client IP, determined on demand, into a context with a single allocation.
package ctxkey

// Session is the key of a *strategy.Session[U].
type Session[U any] struct{}

// ClientIP is the key of a *string, the client IP; "" if it is unknown.
type ClientIP struct{}
