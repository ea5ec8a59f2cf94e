package strategy

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

const (
	// logBurst is how many lines of a kind that strangers can cause are written in
	// a logWindow.
	logBurst  = 100
	logWindow = time.Minute
)

// LogEvents returns a function for the OnEvent fields that writes events to a
// logger: failures as errors, all else as information (also what failed because
// the client had gone). A nil logger means [slog.Default] at the time of the
// event. It is safe for concurrent use.
//
// A flood of bad requests is no flood of lines: of each kind of denial or failure
// at most 100 a minute are written. How many more there were, and for which
// reasons, is one line, a warning, before the first event of any kind after that
// minute. The minute is one of real time, whatever the clocks of the packages say.
// Use one function for all OnEvent fields, so that they share the count.
func LogEvents(logger *slog.Logger) func(context.Context, Event) {
	quota := &logQuota{kinds: make(map[EventKind]*logTally)}
	return func(ctx context.Context, e Event) {
		l := logger
		if l == nil {
			l = slog.Default()
		}
		write, over := quota.spend(e)
		for _, o := range over {
			o.log(ctx, l)
		}
		if write {
			logEvent(ctx, l, e)
		}
	}
}

func logEvent(ctx context.Context, l *slog.Logger, e Event) {
	level := slog.LevelInfo
	attrs := make([]slog.Attr, 0, 5)
	if e.UserID != nil {
		attrs = append(attrs, slog.Any("user_id", e.UserID))
	}
	if e.SessionID != uuid.Nil {
		attrs = append(attrs, slog.String("session_id", e.SessionID.String()))
	}
	if e.ClientAddr != "" {
		attrs = append(attrs, slog.String("client_addr", e.ClientAddr))
	}
	if e.Reason != "" {
		attrs = append(attrs, slog.String("reason", string(e.Reason)))
	}
	if e.Err != nil {
		if !errors.Is(e.Err, context.Canceled) {
			level = slog.LevelError
		}
		attrs = append(attrs, slog.String("error", e.Err.Error()))
	}
	l.LogAttrs(ctx, level, string(e.Kind), attrs...)
}

// logQuota bounds the lines of each kind.
type logQuota struct {
	mu    sync.Mutex
	kinds map[EventKind]*logTally
}

// logTally is what there was of a kind in a window.
type logTally struct {
	kind       EventKind
	since      time.Time
	n          int
	suppressed map[Reason]int
}

// spend reports whether an event is to be written, and which windows are over in
// which something was not.
func (q *logQuota) spend(e Event) (write bool, over []logTally) {
	// Not the event's time: the clocks of its sources can differ, be set back, or
	// stand still.
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	for kind, t := range q.kinds {
		if now.Sub(t.since) < logWindow {
			continue
		}
		if len(t.suppressed) > 0 {
			over = append(over, *t)
		}
		delete(q.kinds, kind)
	}
	if !provoked(e) {
		return true, over
	}
	t := q.kinds[e.Kind]
	if t == nil {
		t = &logTally{kind: e.Kind, since: now}
		q.kinds[e.Kind] = t
	}
	if t.n++; t.n <= logBurst {
		return true, over
	}
	if t.suppressed == nil {
		t.suppressed = make(map[Reason]int)
	}
	t.suppressed[e.Reason]++
	return false, over
}

// provoked reports whether strangers can cause any number of such events.
func provoked(e Event) bool {
	switch e.Kind {
	case EventTokenDenied, EventLoginDenied, EventAccessDenied, EventOverloaded:
		return true
	}
	return e.Err != nil
}

func (t logTally) log(ctx context.Context, l *slog.Logger) {
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
