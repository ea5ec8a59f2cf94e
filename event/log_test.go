package event_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/latchkey-go/latchkey/event"
)

// perMinute is the documented number of lines of a kind that Log writes per minute.
const perMinute = 100

// lines is a log with one line per event.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// take returns the lines since the last call.
func (l *lines) take(t *testing.T) []line {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var got []line
	for text := range bytes.Lines(l.text.Bytes()) {
		var one line
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&one); err != nil {
			t.Fatalf("got the line %q: %v", text, err)
		}
		got = append(got, one)
	}
	l.text.Reset()
	return got
}

// line has all the fields that a line may have.
type line struct {
	Time       time.Time      `json:"time"`
	Level      string         `json:"level"`
	Msg        string         `json:"msg"`
	UserID     any            `json:"user_id"`
	SessionID  string         `json:"session_id"`
	ClientIP   string         `json:"client_ip"`
	Reason     string         `json:"reason"`
	Error      string         `json:"error"`
	Suppressed int            `json:"suppressed"`
	Since      time.Time      `json:"since"`
	Reasons    map[string]int `json:"reasons"`
}

// summaries returns the lines that summarise suppressed events.
func summaries(got []line) []line {
	return slices.DeleteFunc(slices.Clone(got), func(l line) bool { return l.Suppressed == 0 })
}

// logging returns a function of Log and what it writes.
func logging() (func(event.Event), *lines) {
	written := new(lines)
	log := event.Log(slog.New(slog.NewJSONHandler(written, nil)))
	return func(e event.Event) { log(context.Background(), e) }, written
}

func times(n int, log func(event.Event), e event.Event) {
	for range n {
		log(e)
	}
}

var junk = event.Event{Kind: event.TokenDenied, Reason: event.ReasonMalformed, ClientIP: "192.0.2.7"}

func TestFloodOfDenialsDoesNotFloodTheLog(t *testing.T) {
	for name, next := range map[string]event.Event{
		"the same":        junk,
		"another kind":    {Kind: event.AccessDenied, Reason: event.ReasonNoCredentials},
		"a success":       {Kind: event.LoginSucceeded, UserID: "ann"},
		"a failure":       {Kind: event.StoreFailed, Err: errors.New("down")},
		"an unknown kind": {Kind: "own.kind"},
	} {
		t.Run("then "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, written := logging()
				began := time.Now()
				const sent = 100_000
				for i := range sent {
					e := junk
					if i%4 == 3 {
						e.Reason = event.ReasonUnknown
					}
					log(e)
					time.Sleep(59 * time.Second / sent)
				}
				got := written.take(t)
				if len(got) != perMinute || len(summaries(got)) != 0 {
					t.Fatalf("got %d lines in the first minute, %d of them summaries; want %d and none", len(got), len(summaries(got)), perMinute)
				}
				for _, l := range got {
					if l.Level != "INFO" || l.Msg != "token.denied" || l.ClientIP != "192.0.2.7" {
						t.Errorf("got the line %+v", l)
					}
				}
				time.Sleep(time.Minute - time.Since(began))
				log(next)
				got = written.take(t)
				if len(got) != 2 {
					t.Fatalf("got %d lines after the minute, want the summary and the event: %+v", len(got), got)
				}
				sum := got[0]
				sum.Time = time.Time{}
				want := line{
					Level: "WARN", Msg: "token.denied", Suppressed: sent - perMinute, Since: began,
					Reasons: map[string]int{"malformed": 75_000 - 75, "unknown": 25_000 - 25},
				}
				if !sum.Since.Equal(began) {
					t.Errorf("got the summary since %v, want %v", sum.Since, began)
				}
				if sum.Since = began; !reflect.DeepEqual(sum, want) {
					t.Errorf("got the summary\n%+v, want\n%+v", sum, want)
				}
				if got[1].Msg != string(next.Kind) || got[1].Suppressed != 0 {
					t.Errorf("got %+v after the summary, want the event", got[1])
				}

				// The summary is written once, and the next minute has its own limit.
				times(2*perMinute, log, junk)
				got = written.take(t)
				fresh := perMinute
				if next.Kind == junk.Kind {
					fresh-- // next is one of them
				}
				if len(got) != fresh {
					t.Errorf("got %d lines in the next minute, want %d", len(got), fresh)
				}
			})
		})
	}
}

func TestNoSummaryWithoutSuppressedEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, written := logging()
		for range 3 {
			times(perMinute, log, junk)
			time.Sleep(time.Minute)
		}
		if got := written.take(t); len(got) != 3*perMinute || len(summaries(got)) != 0 {
			t.Errorf("got %d lines, %d of them summaries; want %d and none", len(got), len(summaries(got)), 3*perMinute)
		}
	})
}

func TestEventsThatClientsCannotCauseAreAlwaysWritten(t *testing.T) {
	log, written := logging()
	times(10*perMinute, log, junk)
	written.take(t)
	for _, kind := range []event.Kind{
		event.TokenIssued, event.TokenRevoked, event.TokensRevoked, event.TokenRotated,
		event.LoginSucceeded, event.Reauthenticated,
		event.AccountRegistered, event.AccountChanged, event.AccountDeleted, event.PasswordChanged, event.PasswordRehashed,
		"own.kind",
	} {
		times(3*perMinute, log, event.Event{Kind: kind, Reason: event.ReasonReplaced})
		if got := written.take(t); len(got) != 3*perMinute {
			t.Errorf("%s: got %d lines, want all %d", kind, len(got), 3*perMinute)
		}
	}
}

func TestEachKindHasItsOwnLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, written := logging()
		down := errors.New("down")
		limited := []event.Event{
			{Kind: event.TokenDenied, Reason: event.ReasonUnknown},
			{Kind: event.LoginDenied, Reason: event.ReasonWrongPassword},
			{Kind: event.AccessDenied, Reason: event.ReasonForbidden},
			{Kind: event.Overloaded, Err: down},
			{Kind: event.StoreFailed, Err: down},
			{Kind: event.LimiterFailed, Err: down},
			{Kind: event.TouchFailed, Err: context.Canceled},
			{Kind: event.PasswordRehashed, Err: down},
			{Kind: "own.kind", Err: down},
		}
		want := map[string]int{}
		for i, e := range limited {
			times(perMinute+i+1, log, e)
			if got := written.take(t); len(got) != perMinute {
				t.Errorf("%s: got %d lines, want %d", e.Kind, len(got), perMinute)
			}
			want[string(e.Kind)] = i + 1
		}
		// The summary of events without a reason has no reasons.
		time.Sleep(time.Minute)
		log(event.Event{Kind: event.TokenIssued})
		got := map[string]int{}
		for _, sum := range summaries(written.take(t)) {
			got[sum.Msg] = sum.Suppressed
			denial := strings.HasSuffix(sum.Msg, ".denied")
			if sum.Level != "WARN" || denial != (sum.Reasons != nil) {
				t.Errorf("got the summary %+v", sum)
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("got the summaries %v, want %v", got, want)
		}
	})
}

// A clock that is set back, or that differs between packages, neither silences the log nor
// lifts the limit.
func TestLimitIgnoresTheTimesOfEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, written := logging()
		e := junk
		for i := range 10 * perMinute {
			e.Time = time.Now().Add(time.Duration(i%3-1) * 24 * time.Hour)
			log(e)
		}
		if got := written.take(t); len(got) != perMinute || len(summaries(got)) != 0 {
			t.Errorf("got %d lines of events of different clocks, %d of them summaries; want %d and none", len(got), len(summaries(got)), perMinute)
		}
		time.Sleep(time.Minute)
		e.Time = time.Unix(0, 0)
		log(e)
		got := written.take(t)
		if sums := summaries(got); len(got) != 2 || len(sums) != 1 || sums[0].Suppressed != 9*perMinute {
			t.Errorf("got %+v after the clock was set back, want a summary of %d and the event", got, 9*perMinute)
		}
	})
}

func TestLimitCountsExactlyUnderConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, written := logging()
		const goroutines, each = 16, 2000
		reasons := []event.Reason{event.ReasonMalformed, event.ReasonUnknown, event.ReasonExpired}
		var wg sync.WaitGroup
		for g := range goroutines {
			wg.Go(func() {
				for i := range each {
					log(event.Event{Kind: event.TokenDenied, Reason: reasons[(g+i)%len(reasons)]})
					if i%100 == 99 {
						time.Sleep(10 * time.Second)
					}
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Minute)
		log(event.Event{Kind: event.TokenIssued})

		sent, counted := map[string]int{}, map[string]int{}
		for g := range goroutines {
			for i := range each {
				sent[string(reasons[(g+i)%len(reasons)])]++
			}
		}
		for _, l := range written.take(t) {
			switch total := 0; {
			case l.Suppressed > 0:
				for reason, n := range l.Reasons {
					counted[reason] += n
					total += n
				}
				if total != l.Suppressed {
					t.Errorf("got the summary %+v, whose reasons add up to %d", l, total)
				}
			case l.Msg == "token.denied":
				counted[l.Reason]++
			}
		}
		if !maps.Equal(counted, sent) {
			t.Errorf("got %v written and suppressed, want the %v sent", counted, sent)
		}
	})
}

func TestJoinCallsListenersInOrder(t *testing.T) {
	var told []string
	listener := func(name string) func(context.Context, event.Event) {
		return func(_ context.Context, e event.Event) { told = append(told, name+" "+string(e.Kind)) }
	}
	listeners := []func(context.Context, event.Event){nil, listener("a"), nil, listener("b"), listener("a"), nil}
	join := event.Join(listeners...)
	listeners[1] = nil // the caller's own slice
	join(t.Context(), event.Event{Kind: event.TokenIssued})
	if want := []string{"a token.issued", "b token.issued", "a token.issued"}; !slices.Equal(told, want) {
		t.Errorf("got %q, want %q", told, want)
	}
	event.Join()(t.Context(), event.Event{})
	event.Join(nil, nil)(t.Context(), event.Event{})
}

// A suppressed event must be cheap, because there are many.
func BenchmarkLogSuppressed(b *testing.B) {
	log := event.Log(slog.New(slog.NewJSONHandler(io.Discard, nil)))
	ctx := context.Background()
	for range perMinute + 1 {
		log(ctx, junk)
	}
	b.ReportAllocs()
	for b.Loop() {
		log(ctx, junk)
	}
}

func BenchmarkLogWritten(b *testing.B) {
	log := event.Log(slog.New(slog.NewJSONHandler(io.Discard, nil)))
	ctx := context.Background()
	e := event.Event{Kind: event.LoginSucceeded, UserID: int64(7), ClientIP: "192.0.2.7"}
	b.ReportAllocs()
	for b.Loop() {
		log(ctx, e)
	}
}
