package ginauth

import (
	"net/http"
	"reflect"
	"time"
	"unsafe"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/internal/ctxkey"
	"github.com/latchkey-go/latchkey/strategy"
)

// identity is what a guard found out about a request. It is the context of the
// request from there on: in one allocation with that of the strategy's calls, and
// with the request that has it.
type identity[U User] struct {
	client  ctxkey.Client
	request http.Request
	auth    *Auth[U]
	header  unsafe.Pointer       // that the token was read from
	session *strategy.Session[U] // of all requests with this token: see strategy.SessionReader
	hasUser bool                 // else the session has none
	by      credential
}

// credential is a token and the way by which it came.
type credential struct {
	token     string
	transport transport
}

type identityKey struct{}

// visitor returns an identity of nobody yet, with the request's context. It must
// enter or leave.
func (a *Auth[U]) visitor(c *gin.Context) *identity[U] {
	return &identity[U]{client: ctxkey.ClientOf(c.Request.Context(), c), auth: a, header: headerOf(c.Request)}
}

// enter makes the identity that of the request.
func (id *identity[U]) enter(c *gin.Context) {
	id.client.Know() // for handlers, and what they start: Gin uses c again
	id.request = *c.Request.WithContext(id)
	c.Request = &id.request
}

// leave ends an identity that did not enter. Most that are turned away are not
// asked for their address, which takes longer than to see that a token is none.
func (id *identity[U]) leave() { id.client.Forget() }

// identity returns what a guard of this Auth found out, or nil. Another Auth may
// take other transports. A context can be handed to another request by the
// application, which then has headers of its own, and perhaps another token.
func (a *Auth[U]) identity(c *gin.Context) *identity[U] {
	known, _ := c.Request.Context().Value(identityKey{}).(*identity[U])
	if known == nil || known.auth != a || known.header != headerOf(c.Request) {
		return nil
	}
	return known
}

// info returns what is known of the session, which may be nothing.
func (id *identity[U]) info() strategy.SessionInfo {
	if id.session == nil {
		return strategy.SessionInfo{}
	}
	return id.session.SessionInfo
}

// headerOf tells the headers of requests apart. The copy of a request that
// WithContext makes shares them.
func headerOf(r *http.Request) unsafe.Pointer { return reflect.ValueOf(r.Header).UnsafePointer() }

// Deadline, Done and Err implement context.Context.
func (id *identity[U]) Deadline() (time.Time, bool) { return id.client.Deadline() }
func (id *identity[U]) Done() <-chan struct{}       { return id.client.Done() }
func (id *identity[U]) Err() error                  { return id.client.Err() }

// Value implements context.Context.
func (id *identity[U]) Value(key any) any {
	switch key {
	case identityKey{}:
		return id
	case ctxkey.SessionInfo{}:
		if id.session != nil {
			return &id.session.SessionInfo
		}
	case ctxkey.Session[U]{}:
		if id.hasUser {
			return id.session
		}
	}
	return id.client.Value(key)
}
