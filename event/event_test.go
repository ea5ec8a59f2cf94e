package event_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/latchkey-go/latchkey/event"
)

func TestLogWritesOneLinePerEvent(t *testing.T) {
	user, session := uuid.New(), uuid.New()
	down := errors.New("database is down")
	for _, c := range []struct {
		name  string
		event event.Event
		want  map[string]any
	}{
		{
			"a success",
			event.Event{Kind: event.TokenIssued, Time: time.Now(), UserID: user, SessionID: session},
			map[string]any{"level": "INFO", "msg": "token.issued", "user_id": user.String(), "session_id": session.String()},
		},
		{
			"a denial without a user",
			event.Event{Kind: event.TokenDenied, Reason: event.ReasonUnknown},
			map[string]any{"level": "INFO", "msg": "token.denied", "reason": "unknown"},
		},
		{
			"a user whose ID is a number",
			event.Event{Kind: event.LoginSucceeded, UserID: int64(7)},
			map[string]any{"level": "INFO", "msg": "login.succeeded", "user_id": 7.0},
		},
		{
			"a failure",
			event.Event{Kind: event.StoreFailed, Err: down},
			map[string]any{"level": "ERROR", "msg": "store.failed", "error": "database is down"},
		},
		{
			"a timeout",
			event.Event{Kind: event.StoreFailed, Err: context.DeadlineExceeded},
			map[string]any{"level": "ERROR", "msg": "store.failed", "error": "context deadline exceeded"},
		},
		{
			"a cancelled request",
			event.Event{Kind: event.StoreFailed, Err: fmt.Errorf("look up the token: %w", context.Canceled)},
			map[string]any{"level": "INFO", "msg": "store.failed", "error": "look up the token: context canceled"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			event.Log(slog.New(slog.NewJSONHandler(&b, nil)))(t.Context(), c.event)
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

func TestLogWithoutALoggerUsesTheCurrentDefault(t *testing.T) {
	log := event.Log(nil)
	defer slog.SetDefault(slog.Default())
	var b bytes.Buffer
	slog.SetDefault(slog.New(slog.NewTextHandler(&b, nil)))
	log(t.Context(), event.Event{Kind: event.TokenRevoked})
	if !bytes.Contains(b.Bytes(), []byte("msg=token.revoked")) {
		t.Errorf("got %q, want a line with token.revoked", b.String())
	}
}
