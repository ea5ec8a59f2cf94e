package strategy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/strategy"
)

func TestLogEventsWritesOneLineForEachEvent(t *testing.T) {
	user, session := uuid.New(), uuid.New()
	down := errors.New("database is down")
	for _, c := range []struct {
		name  string
		event strategy.Event
		want  map[string]any
	}{
		{
			"something good",
			strategy.Event{Kind: strategy.EventTokenIssued, Time: time.Now(), UserID: user, SessionID: session},
			map[string]any{"level": "INFO", "msg": "token.issued", "user_id": user.String(), "session_id": session.String()},
		},
		{
			"a denial without a user",
			strategy.Event{Kind: strategy.EventTokenDenied, Reason: strategy.ReasonUnknown},
			map[string]any{"level": "INFO", "msg": "token.denied", "reason": "unknown"},
		},
		{
			"a user whose ID is a number",
			strategy.Event{Kind: strategy.EventLoginSucceeded, UserID: int64(7)},
			map[string]any{"level": "INFO", "msg": "login.succeeded", "user_id": 7.0},
		},
		{
			"a failure",
			strategy.Event{Kind: strategy.EventStoreFailed, Err: down},
			map[string]any{"level": "ERROR", "msg": "store.failed", "error": "database is down"},
		},
		{
			"a timeout",
			strategy.Event{Kind: strategy.EventStoreFailed, Err: context.DeadlineExceeded},
			map[string]any{"level": "ERROR", "msg": "store.failed", "error": "context deadline exceeded"},
		},
		{
			"a client that has gone",
			strategy.Event{Kind: strategy.EventStoreFailed, Err: fmt.Errorf("look up the token: %w", context.Canceled)},
			map[string]any{"level": "INFO", "msg": "store.failed", "error": "look up the token: context canceled"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			strategy.LogEvents(slog.New(slog.NewJSONHandler(&b, nil)))(t.Context(), c.event)
			var got map[string]any
			if err := json.Unmarshal(b.Bytes(), &got); err != nil {
				t.Fatalf("got %q, want one line of JSON: %v", b.String(), err)
			}
			delete(got, "time")
			if !maps.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestLogEventsWithoutALoggerWritesToTheDefaultOfTheMoment(t *testing.T) {
	log := strategy.LogEvents(nil)
	defer slog.SetDefault(slog.Default())
	var b bytes.Buffer
	slog.SetDefault(slog.New(slog.NewTextHandler(&b, nil)))
	log(t.Context(), strategy.Event{Kind: strategy.EventTokenRevoked})
	if !bytes.Contains(b.Bytes(), []byte("msg=token.revoked")) {
		t.Errorf("got %q, want a line with token.revoked", b.String())
	}
}

// recorder keeps the events that it is told.
type recorder struct {
	mu     sync.Mutex
	events []strategy.Event
}

func (r *recorder) record(_ context.Context, e strategy.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// take returns the events since the last call.
func (r *recorder) take() []strategy.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	events := r.events
	r.events = nil
	return events
}
