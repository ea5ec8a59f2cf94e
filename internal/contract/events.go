package contract

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/latchkey-go/latchkey/internal/secretscan"
	"github.com/latchkey-go/latchkey/strategy"
)

// eventLog keeps all events of a Run as text, in every form in which an
// application is likely to write them down, and what must not be in there.
type eventLog struct {
	mu      sync.Mutex
	text    strings.Builder
	write   []func(context.Context, strategy.Event)
	heard   map[strategy.EventKind]bool
	secrets []string
}

func newEventLog() *eventLog {
	l := &eventLog{heard: make(map[strategy.EventKind]bool), secrets: []string{password, wrongPassword, newPassword}}
	l.write = []func(context.Context, strategy.Event){
		strategy.LogEvents(slog.New(slog.NewTextHandler(&l.text, nil))),
		strategy.LogEvents(slog.New(slog.NewJSONHandler(&l.text, nil))),
		func(_ context.Context, e strategy.Event) { fmt.Fprintf(&l.text, "%+v\n%#v\n", e, e) },
	}
	return l
}

// hear is the OnEvent of every package.
func (l *eventLog) hear(ctx context.Context, e strategy.Event) {
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
	for _, kind := range []strategy.EventKind{
		strategy.EventTokenIssued, strategy.EventTokenRevoked, strategy.EventTokenDenied, strategy.EventStoreFailed,
		strategy.EventLoginSucceeded, strategy.EventLoginDenied, strategy.EventAccessDenied,
		strategy.EventTokensRevoked, strategy.EventTokenRotated, strategy.EventTouchFailed,
		strategy.EventAccountChanged, strategy.EventPasswordChanged,
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
