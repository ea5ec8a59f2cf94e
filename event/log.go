package event

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// In every window, burst lines are written for each kind of event that clients can cause at
// will.
const (
	burst  = 100
	window = time.Minute
)

// Log returns a function for the OnEvent fields that writes each event as one line to a
// logger: failures at level ERROR, everything else at level INFO, including failures that
// are cancelled requests. If logger is nil, it uses [slog.Default] at the time of the event.
// The function is safe for concurrent use.
//
// Clients cannot flood the log: at most 100 denials or failures of each kind are written per
// minute. After that minute, a line at level WARN says how many more there were, by reason;
// it is written before the next event of any kind. Minutes are real time, whatever the
// clocks of the packages say. Use one function for all OnEvent fields, so that they share
// the count.
func Log(logger *slog.Logger) func(context.Context, Event) {
	q := &quota{kinds: make(map[Kind]*tally)}
	return func(ctx context.Context, e Event) {
		l := logger
		if l == nil {
			l = slog.Default()
		}
		write, ended := q.take(e)
		for _, t := range ended {
			t.log(ctx, l)
		}
		if write {
			logEvent(ctx, l, e)
		}
	}
}

func logEvent(ctx context.Context, l *slog.Logger, e Event) {
	level := slog.LevelInfo
	attrs := make([]slog.Attr, 0, 6)
	if e.UserID != nil {
		attrs = append(attrs, slog.Any("user_id", e.UserID))
	}
	if e.SessionID != uuid.Nil {
		attrs = append(attrs, slog.String("session_id", e.SessionID.String()))
	}
	if e.ClientIP != "" {
		attrs = append(attrs, slog.String("client_ip", e.ClientIP))
	}
	if e.Reason != "" {
		attrs = append(attrs, slog.String("reason", string(e.Reason)))
	}
	if e.Count != 0 {
		attrs = append(attrs, slog.Int64("count", e.Count))
	}
	if e.Err != nil {
		if !errors.Is(e.Err, context.Canceled) {
			level = slog.LevelError
		}
		attrs = append(attrs, slog.String("error", e.Err.Error()))
	}
	l.LogAttrs(ctx, level, string(e.Kind), attrs...)
}

// quota limits the lines of each kind of event.
type quota struct {
	mu    sync.Mutex
	kinds map[Kind]*tally
}

// tally counts the events of a kind in a window.
type tally struct {
	kind       Kind
	since      time.Time
	n          int
	suppressed map[Reason]int
}

// take reports whether an event may be written. It also returns the tallies of windows that
// have ended and in which events were suppressed.
func (q *quota) take(e Event) (write bool, ended []tally) {
	// Not e.Time: the clocks of the packages can differ, be set back, or stand still.
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	for kind, t := range q.kinds {
		if now.Sub(t.since) < window {
			continue
		}
		if len(t.suppressed) > 0 {
			ended = append(ended, *t)
		}
		delete(q.kinds, kind)
	}
	if !limited(e) {
		return true, ended
	}
	t := q.kinds[e.Kind]
	if t == nil {
		t = &tally{kind: e.Kind, since: now}
		q.kinds[e.Kind] = t
	}
	if t.n++; t.n <= burst {
		return true, ended
	}
	if t.suppressed == nil {
		t.suppressed = make(map[Reason]int)
	}
	t.suppressed[e.Reason]++
	return false, ended
}

// limited reports whether anonymous clients can cause any number of such events.
func limited(e Event) bool {
	switch e.Kind {
	case TokenDenied, LoginDenied, AccessDenied, Overloaded, OneTimeTokenDenied, OAuthLinkDenied, VerificationRequested, PasswordResetRequested:
		return true
	}
	return e.Err != nil
}

// log writes how many events were suppressed, by reason.
func (t tally) log(ctx context.Context, l *slog.Logger) {
	total := 0
	var reasons []any
	for _, reason := range slices.Sorted(maps.Keys(t.suppressed)) {
		total += t.suppressed[reason]
		if reason != "" {
			reasons = append(reasons, slog.Int(string(reason), t.suppressed[reason]))
		}
	}
	attrs := []slog.Attr{slog.Int("suppressed", total), slog.Time("since", t.since)}
	if reasons != nil {
		attrs = append(attrs, slog.Group("reasons", reasons...))
	}
	l.LogAttrs(ctx, slog.LevelWarn, string(t.kind), attrs...)
}
