package ginauth

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/internal/ctxkey"
	"github.com/latchkey-go/latchkey/strategy"
)

// identity is what a guard found out about a request. It is also the request's context
// from then on: identity and context share one allocation.
type identity[U User] struct {
	client  clientContext
	cfg     *settings
	session *strategy.Session[U] // read-only, see Strategy.ReadToken; nil if not identified
	by      transport            // by which the tokens came
	tokens  *tokens              // a pointer, see Format
	reading *bound               // the context in which a guard finds out; ended by discard
}

// tokens are the tokens of a request.
type tokens struct {
	sent  carried // by the transport
	valid string  // the session's token; after a rotation, the new one
}

// identityKey is the context key of the identities of one configuration. Another
// configuration may not accept the transport.
type identityKey struct{ cfg *settings }

// newIdentity returns an identity without a session. c may be nil if ctx knows the client
// IP. The caller must call discard.
func (a *Auth[U]) newIdentity(ctx context.Context, c *gin.Context) *identity[U] {
	var parts struct { // share one allocation
		id      identity[U]
		tokens  tokens
		reading bound
	}
	id := &parts.id
	id.client, id.cfg, id.tokens, id.reading = newClientContext(ctx, c), a.cfg, &parts.tokens, &parts.reading
	id.reading.Context, id.reading.timeout = &id.client, a.cfg.Timeout
	return id
}

// attach makes the identity the context of the request.
func (id *identity[U]) attach(r *http.Request) {
	id.client.resolve() // handlers may use the context when Gin has recycled c
	setContext(r, id)
}

// discard ends the reading and the use of the gin.Context, also after attach. Rejected requests
// skip resolving the client IP, which takes longer than rejecting a malformed token.
func (id *identity[U]) discard() {
	id.client.discard()
	id.reading.end()
}

// identity returns what a guard found out about the request, or nil. An application can
// use the context of one request for another, for example in a batch. Therefore an identity
// applies only to requests that carry the same tokens, by the same transport.
func (a *Auth[U]) identity(r *http.Request) *identity[U] {
	known, _ := r.Context().Value(identityKey{a.cfg}).(*identity[U])
	if known == nil {
		return nil
	}
	if sent, err := known.by.carried(r, a.cfg.wellFormed); err != nil || sent != known.tokens.sent {
		return nil
	}
	return known
}

// String returns no token. It is part of what the contexts derived from this one print.
func (id *identity[U]) String() string { return "ginauth.identity" }

// Format implements fmt.Formatter, so that no verb shows the tokens. In an unexported field
// of another struct, such as http.Request, fmt does not call it, and some verbs look behind
// one pointer. Therefore the tokens are behind a second one.
func (id *identity[U]) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, id.String()) }

// info returns what is known of the session.
func (id *identity[U]) info() strategy.SessionInfo {
	if id.session == nil {
		return strategy.SessionInfo{}
	}
	return id.session.SessionInfo
}

// Deadline, Done and Err implement context.Context.
func (id *identity[U]) Deadline() (time.Time, bool) { return id.client.Deadline() }
func (id *identity[U]) Done() <-chan struct{}       { return id.client.Done() }
func (id *identity[U]) Err() error                  { return id.client.Err() }

// Value implements context.Context.
func (id *identity[U]) Value(key any) any {
	if own := id.own(key); own != nil {
		return own
	}
	return id.client.Value(key)
}

// own returns the value of a key that the guard adds to the request, or nil.
func (id *identity[U]) own(key any) any {
	if id.session != nil {
		switch key {
		case identityKey{id.cfg}:
			return id
		case ctxkey.Session[U]{}:
			return id.session
		}
	}
	return nil
}
