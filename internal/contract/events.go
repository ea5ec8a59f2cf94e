package contract

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/secretscan"
)

// eventLog keeps all events of a Run as text, in every form in which an
// application is likely to write them down, and what must not be in there.
type eventLog struct {
	mu      sync.Mutex
	text    strings.Builder
	write   []func(context.Context, event.Event)
	heard   map[event.Kind]bool
	secrets []string
}

func newEventLog() *eventLog {
	l := &eventLog{heard: make(map[event.Kind]bool), secrets: []string{password, wrongPassword, newPassword}}
	l.write = []func(context.Context, event.Event){
		event.Log(slog.New(slog.NewTextHandler(&l.text, nil))),
		event.Log(slog.New(slog.NewJSONHandler(&l.text, nil))),
		func(_ context.Context, e event.Event) { fmt.Fprintf(&l.text, "%+v\n%#v\n", e, e) },
	}
	return l
}

// hear is the OnEvent of every package.
func (l *eventLog) hear(ctx context.Context, e event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard[e.Kind] = true
	for _, write := range l.write {
		write(ctx, e)
	}
}

// hide adds to what must not be in the events.
func (l *eventLog) hide(secret string) {
	secretscan.Record(secret, password, wrongPassword, newPassword)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.secrets = append(l.secrets, secret)
}

func (l *eventLog) holdNoSecret(t *testing.T) {
	if len(l.heard) == 0 {
		t.Skip("no other check ran, so there were no events")
	}
	for _, kind := range []event.Kind{
		event.TokenIssued, event.TokenRevoked, event.TokenDenied, event.StoreFailed,
		event.LoginSucceeded, event.LoginDenied, event.AccessDenied,
		event.TokensRevoked, event.TokenRotated, event.TouchFailed,
		event.AccountChanged, event.PasswordChanged,
	} {
		if !l.heard[kind] {
			t.Errorf("got no event %q in the whole suite, want some", kind)
		}
	}
	text := l.text.String()
	for _, secret := range l.secrets {
		if _, after, found := strings.Cut(text, secret); found {
			line, _, _ := strings.Cut(after, "\n")
			t.Errorf("got an event with the secret %q in it, before %q", secret, line)
		}
	}
}
