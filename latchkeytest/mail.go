package latchkeytest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/latchkey-go/latchkey/account"
)

// Mail has the messages that users got. Its methods first wait until the messages that were
// requested before are sent. It is safe for concurrent use.
type Mail struct {
	// Link returns the link in a message, for LastLink. Set it to what the application's Mailer does.
	// Default: the link of contrib/smtpmailer at https://example.com, such as
	// https://example.com/verify#token=….
	Link func(m account.Message) string

	next account.Mailer // the application's, or nil
	wait func()

	mu       sync.Mutex
	messages []account.Message
}

func (m *Mail) send(ctx context.Context, msg account.Message) error {
	if m.next != nil {
		if err := m.next.Send(ctx, msg); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.messages = append(m.messages, msg)
	return nil
}

// All returns all messages, oldest first.
func (m *Mail) All() []account.Message {
	m.wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.messages)
}

// Last returns the last message to an address. If there is none, the test ends.
func (m *Mail) Last(t testing.TB, to string) account.Message {
	t.Helper()
	return m.last(t, to, "message", func(account.Message) bool { return true })
}

// LastLink returns the link in the last message to an address that has a link. If there is none, the
// test ends.
func (m *Mail) LastLink(t testing.TB, to string) string {
	t.Helper()
	msg := m.last(t, to, "message with a link", func(msg account.Message) bool { return msg.Token.Reveal() != "" })
	if m.Link != nil {
		return m.Link(msg)
	}
	page := "verify"
	if msg.Kind == account.MessagePasswordReset {
		page = "reset-password"
	}
	return "https://example.com/" + page + "#token=" + msg.Token.Reveal()
}

func (m *Mail) last(t testing.TB, to, what string, ok func(account.Message) bool) account.Message {
	t.Helper()
	if normal, err := account.NormalizeEmail(to); err == nil {
		to = normal
	}
	var others strings.Builder
	for _, msg := range slices.Backward(m.All()) {
		if msg.To == to && ok(msg) {
			return msg
		}
		fmt.Fprintf(&others, "\n\t%s to %s", msg.Kind, msg.To)
	}
	if others.Len() == 0 {
		others.WriteString(" none")
	}
	t.Fatalf("latchkeytest: %s got no %s; the messages, newest first:%s", to, what, &others)
	return account.Message{}
}
