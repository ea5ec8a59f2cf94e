// Package ctxkey defines the context key that strategy and ginauth share. With it, ginauth
// can put a session into a context with a single allocation.
package ctxkey

// Session is the key of a *strategy.Session[U].
type Session[U any] struct{}
