package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/account"
)

// outbox is an account.Mailer that sends nothing: it prints the messages and keeps the newest.
type outbox struct {
	print io.Writer

	mu       sync.Mutex
	messages []mail // oldest first
}

// mail is a message in the outbox.
type mail struct {
	Kind  account.MessageKind `json:"kind"`
	To    string              `json:"to"`
	Token string              `json:"token"`
}

const maxOutbox = 1000

// Send implements account.Mailer.
func (o *outbox) Send(_ context.Context, m account.Message) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.messages = append(o.messages, mail{m.Kind, m.To, m.Token.Reveal()})
	if extra := len(o.messages) - maxOutbox; extra > 0 {
		o.messages = slices.Delete(o.messages, 0, extra)
	}
	_, err := fmt.Fprintf(o.print, "mail to %s: %s %s\n", m.To, m.Kind, m.Token.Reveal())
	return err
}

// show lists the messages, newest first.
func (o *outbox) show(c *gin.Context) {
	o.mu.Lock()
	newest := slices.Clone(o.messages)
	o.mu.Unlock()
	slices.Reverse(newest)
	if newest == nil {
		newest = []mail{} // not null
	}
	c.Header("Cache-Control", "no-store")
	c.JSON(http.StatusOK, newest)
}
