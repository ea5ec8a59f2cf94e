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

// eventLog is the text of all events of a Run, in each format in which an application may log
// them, and the secrets that the text must not contain.
type eventLog struct {
	mu      sync.Mutex
	text    strings.Builder
	write   []func(context.Context, event.Event)
	kinds   map[event.Kind]bool
	secrets []string
}

func newEventLog() *eventLog {
	l := &eventLog{kinds: make(map[event.Kind]bool), secrets: []string{password, wrongPassword, newPassword}}
	l.write = []func(context.Context, event.Event){
		event.Log(slog.New(slog.NewTextHandler(&l.text, nil))),
		event.Log(slog.New(slog.NewJSONHandler(&l.text, nil))),
		func(_ context.Context, e event.Event) { fmt.Fprintf(&l.text, "%+v\n%#v\n", e, e) },
	}
	return l
}

// listen is the OnEvent of every package.
func (l *eventLog) listen(ctx context.Context, e event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kinds[e.Kind] = true
	for _, write := range l.write {
		write(ctx, e)
	}
}

// keepSecret adds a secret that no event may contain.
func (l *eventLog) keepSecret(secret string) {
	secretscan.Record(secret, password, wrongPassword, newPassword)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.secrets = append(l.secrets, secret)
}

func (l *eventLog) expectNoSecret(t *testing.T) {
	if len(l.kinds) == 0 {
		t.Skip("no other check ran, so there are no events")
	}
	for _, kind := range []event.Kind{
		event.TokenIssued, event.TokenRevoked, event.TokenDenied, event.StoreFailed,
		event.LoginSucceeded, event.LoginDenied, event.AccessDenied,
		event.TokensRevoked, event.TokenRotated, event.TouchFailed,
		event.AccountChanged, event.PasswordChanged,
	} {
		if !l.kinds[kind] {
			t.Errorf("got no event %q in the whole suite, want at least one", kind)
		}
	}
	text := l.text.String()
	for _, secret := range l.secrets {
		if _, after, found := strings.Cut(text, secret); found {
			line, _, _ := strings.Cut(after, "\n")
			t.Errorf("got an event with the secret %q, before %q", secret, line)
		}
	}
}
