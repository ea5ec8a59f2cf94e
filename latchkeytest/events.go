package latchkeytest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/event"
)

// Events has what happened, except what NewUser and As did. An event is there when the call that
// caused it has returned; for those of messages, its methods wait. It is safe for concurrent use, but
// do not call it from the application's OnEvent or Mailer.
type Events struct {
	next func(context.Context, event.Event) // the application's, or nil
	wait func()

	mu     sync.Mutex
	events []event.Event
}

func (e *Events) record(ctx context.Context, what event.Event) {
	if ctx.Value(quietKey{}) == nil {
		e.mu.Lock()
		e.events = append(e.events, what)
		e.mu.Unlock()
	}
	if e.next != nil {
		e.next(ctx, what)
	}
}

// All returns the events since the last [Events.Clear], oldest first.
func (e *Events) All() []event.Event {
	e.wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.events)
}

// Clear forgets the events.
func (e *Events) Clear() {
	e.wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.events = nil
}

// Want ends the test unless events of these kinds have happened in this order since the last
// [Events.Clear]. There can be others between them. It returns the last event of the last kind:
//
//	denied := kit.Events.Want(t, event.LoginDenied)
//	if denied.Reason != event.ReasonWrongPassword { …
func (e *Events) Want(t testing.TB, kind event.Kind, then ...event.Kind) event.Event {
	t.Helper()
	kinds := append([]event.Kind{kind}, then...)
	all := e.All()
	var last event.Event
	left := len(kinds)
	for _, what := range slices.Backward(all) {
		if left > 0 && what.Kind == kinds[left-1] {
			if left == len(kinds) {
				last = what
			}
			left--
		}
	}
	if left > 0 {
		t.Fatalf("latchkeytest: want the events %q in this order, got:%s", kinds, list(all))
	}
	return last
}

// None fails the test if an event of one of these kinds has happened since the last [Events.Clear];
// without kinds, if any event has.
func (e *Events) None(t testing.TB, kinds ...event.Kind) {
	t.Helper()
	all := e.All()
	for _, what := range all {
		if len(kinds) == 0 || slices.Contains(kinds, what.Kind) {
			t.Errorf("latchkeytest: want no event %s, got:%s", what.Kind, list(all))
			return
		}
	}
}

// list returns the events, one a line.
func list(events []event.Event) string {
	if len(events) == 0 {
		return " none"
	}
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "\n\t%s", e.Kind)
		if e.Reason != "" {
			fmt.Fprintf(&b, " reason=%s", e.Reason)
		}
		if e.UserID != nil {
			fmt.Fprintf(&b, " user=%v", e.UserID)
		}
		if e.SessionID != uuid.Nil {
			fmt.Fprintf(&b, " session=%v", e.SessionID)
		}
		if e.Err != nil {
			fmt.Fprintf(&b, " err=%q", e.Err.Error())
		}
	}
	return b.String()
}
