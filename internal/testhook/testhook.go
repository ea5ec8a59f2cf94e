// Package testhook has what latchkeytest can do and applications cannot.
//
// A session in a context admits a request only if three things hold: the value was made by
// [WithSession], whose key no other module can name; [Enable] was called; and the request was made
// in this process, because a context does not travel. Only latchkeytest calls Enable, when the
// program begins, and only in a program that "go test" has built.
package testhook

import (
	"context"
	"time"
)

// enabled is set before main begins, and not changed afterwards.
var enabled bool

// Enable makes guards look for the sessions of [WithSession]. Call it from an init function of
// latchkeytest, if testing.Testing reports true.
func Enable() { enabled = true }

// sessionKey is the context key of a func(now time.Time) *S.
type sessionKey[S any] struct{}

// WithSession returns a context with a session that guards admit. session returns the session for
// a guard whose clock says now.
func WithSession[S any](ctx context.Context, session func(now time.Time) *S) context.Context {
	return context.WithValue(ctx, sessionKey[S]{}, session)
}

// Session returns the session of [WithSession], or nil.
func Session[S any](ctx context.Context, now func() time.Time) *S {
	if !enabled {
		return nil
	}
	session, ok := ctx.Value(sessionKey[S]{}).(func(now time.Time) *S)
	if !ok {
		return nil
	}
	return session(now())
}

// WaitForMail waits until an account.Manager has sent the messages that were queued before.
// Package account sets it.
var WaitForMail func(manager any)
