// Package ctxkey defines the context keys that strategy and ginauth share. With them, ginauth
// can put a session into a context with a single allocation.
package ctxkey

// Session is the key of a *strategy.Session[U].
type Session[U any] struct{}

// SessionInfo is the key of a *strategy.SessionInfo.
type SessionInfo struct{}
