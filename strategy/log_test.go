package strategy_test

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

	"github.com/latchkey-go/latchkey/strategy"
)

// perMinute is how many lines of a kind LogEvents writes, as it documents.
const perMinute = 100

// lines is a log, one line an event.
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

// line is all that a line may have.
type line struct {
	Time       time.Time      `json:"time"`
	Level      string         `json:"level"`
	Msg        string         `json:"msg"`
	UserID     any            `json:"user_id"`
	SessionID  string         `json:"session_id"`
	ClientAddr string         `json:"client_addr"`
	Reason     string         `json:"reason"`
	Error      string         `json:"error"`
	Suppressed int            `json:"suppressed"`
	Since      time.Time      `json:"since"`
	Reasons    map[string]int `json:"reasons"`
}

// summaries are the lines that sum others up.
func summaries(got []line) []line {
	return slices.DeleteFunc(slices.Clone(got), func(l line) bool { return l.Suppressed == 0 })
}

// logging returns LogEvents and what it writes.
func logging() (func(strategy.Event), *lines) {
	written := new(lines)
	log := strategy.LogEvents(slog.New(slog.NewJSONHandler(written, nil)))
	return func(e strategy.Event) { log(context.Background(), e) }, written
}

func times(n int, log func(strategy.Event), e strategy.Event) {
	for range n {
		log(e)
	}
}

var junk = strategy.Event{Kind: strategy.EventTokenDenied, Reason: strategy.ReasonMalformed, ClientAddr: "192.0.2.7"}

func TestAFloodOfDenialsIsNoFloodOfLines(t *testing.T) {
	for name, next := range map[string]strategy.Event{
		"the same":      junk,
		"another kind":  {Kind: strategy.EventAccessDenied, Reason: strategy.ReasonNoCredentials},
		"a success":     {Kind: strategy.EventLoginSucceeded, UserID: "ann"},
		"a failure":     {Kind: strategy.EventStoreFailed, Err: errors.New("down")},
		"of no package": {Kind: "own.kind"},
	} {
		t.Run("and then "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, written := logging()
				began := time.Now()
				const sent = 100_000
				for i := range sent {
					e := junk
					if i%4 == 3 {
						e.Reason = strategy.ReasonUnknown
					}
					log(e)
					time.Sleep(59 * time.Second / sent)
				}
				got := written.take(t)
				if len(got) != perMinute || len(summaries(got)) != 0 {
					t.Fatalf("got %d lines in the first minute, %d of them sums; want %d and none", len(got), len(summaries(got)), perMinute)
				}
				for _, l := range got {
					if l.Level != "INFO" || l.Msg != "token.denied" || l.ClientAddr != "192.0.2.7" {
						t.Errorf("got the line %+v", l)
					}
				}
				time.Sleep(time.Minute - time.Since(began))
				log(next)
				got = written.take(t)
				if len(got) != 2 {
					t.Fatalf("got %d lines after the minute, want the sum and the event: %+v", len(got), got)
				}
				sum := got[0]
				sum.Time = time.Time{}
				want := line{
					Level: "WARN", Msg: "token.denied", Suppressed: sent - perMinute, Since: began,
					Reasons: map[string]int{"malformed": 75_000 - 75, "unknown": 25_000 - 25},
				}
				if !sum.Since.Equal(began) {
					t.Errorf("got the sum since %v, want %v", sum.Since, began)
				}
				if sum.Since = began; !reflect.DeepEqual(sum, want) {
					t.Errorf("got the sum\n%+v, want\n%+v", sum, want)
				}
				if got[1].Msg != string(next.Kind) || got[1].Suppressed != 0 {
					t.Errorf("got %+v behind the sum, want the event", got[1])
				}

				// The sum comes once, and the next minute has lines of its own.
				times(2*perMinute, log, junk)
				got = written.take(t)
				fresh := perMinute
				if next.Kind == junk.Kind {
					fresh-- // it is one of them
				}
				if len(got) != fresh {
					t.Errorf("got %d lines in the next minute, want %d", len(got), fresh)
				}
			})
		})
	}
}

func TestNoSumOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, written := logging()
		for range 3 {
			times(perMinute, log, junk)
			time.Sleep(time.Minute)
		}
		if got := written.take(t); len(got) != 3*perMinute || len(summaries(got)) != 0 {
			t.Errorf("got %d lines, %d of them sums; want %d and none", len(got), len(summaries(got)), 3*perMinute)
		}
	})
}

func TestWhatStrangersCannotCauseIsAlwaysWritten(t *testing.T) {
	log, written := logging()
	times(10*perMinute, log, junk)
	written.take(t)
	for _, kind := range []strategy.EventKind{
		strategy.EventTokenIssued, strategy.EventTokenRevoked, strategy.EventTokensRevoked, strategy.EventTokenRotated,
		strategy.EventLoginSucceeded, strategy.EventReauthenticated,
		strategy.EventAccountRegistered, strategy.EventAccountChanged, strategy.EventPasswordChanged, strategy.EventPasswordRehashed,
		"own.kind",
	} {
		times(3*perMinute, log, strategy.Event{Kind: kind, Reason: strategy.ReasonReplaced})
		if got := written.take(t); len(got) != 3*perMinute {
			t.Errorf("%s: got %d lines, want all %d", kind, len(got), 3*perMinute)
		}
	}
}

func TestEachKindOfDenialAndFailureHasItsOwnLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, written := logging()
		down := errors.New("down")
		limited := []strategy.Event{
			{Kind: strategy.EventTokenDenied, Reason: strategy.ReasonUnknown},
			{Kind: strategy.EventLoginDenied, Reason: strategy.ReasonWrongPassword},
			{Kind: strategy.EventAccessDenied, Reason: strategy.ReasonForbidden},
			{Kind: strategy.EventOverloaded, Err: down},
			{Kind: strategy.EventStoreFailed, Err: down},
			{Kind: strategy.EventLimiterFailed, Err: down},
			{Kind: strategy.EventTouchFailed, Err: context.Canceled},
			{Kind: strategy.EventPasswordRehashed, Err: down},
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
		// What has no reason has no reasons in its sum.
		time.Sleep(time.Minute)
		log(strategy.Event{Kind: strategy.EventTokenIssued})
		got := map[string]int{}
		for _, sum := range summaries(written.take(t)) {
			got[sum.Msg] = sum.Suppressed
			denial := strings.HasSuffix(sum.Msg, ".denied")
			if sum.Level != "WARN" || denial != (sum.Reasons != nil) {
				t.Errorf("got the sum %+v", sum)
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("got the sums %v, want %v", got, want)
		}
	})
}

// A clock that is set back, or that differs between the packages, neither silences
// the log nor opens it.
func TestTheLimitDoesNotGoByTheEventsClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, written := logging()
		e := junk
		for i := range 10 * perMinute {
			e.Time = time.Now().Add(time.Duration(i%3-1) * 24 * time.Hour)
			log(e)
		}
		if got := written.take(t); len(got) != perMinute || len(summaries(got)) != 0 {
			t.Errorf("got %d lines of events of different clocks, %d of them sums; want %d and none", len(got), len(summaries(got)), perMinute)
		}
		time.Sleep(time.Minute)
		e.Time = time.Unix(0, 0)
		log(e)
		got := written.take(t)
		if sums := summaries(got); len(got) != 2 || len(sums) != 1 || sums[0].Suppressed != 9*perMinute {
			t.Errorf("got %+v after the clock was set back, want a sum of %d and the event", got, 9*perMinute)
		}
	})
}

func TestTheLimitCountsExactlyFromManyGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, written := logging()
		const goroutines, each = 16, 2000
		reasons := []strategy.Reason{strategy.ReasonMalformed, strategy.ReasonUnknown, strategy.ReasonExpired}
		var wg sync.WaitGroup
		for g := range goroutines {
			wg.Go(func() {
				for i := range each {
					log(strategy.Event{Kind: strategy.EventTokenDenied, Reason: reasons[(g+i)%len(reasons)]})
					if i%100 == 99 {
						time.Sleep(10 * time.Second)
					}
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Minute)
		log(strategy.Event{Kind: strategy.EventTokenIssued})

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
					t.Errorf("got the sum %+v, whose reasons add up to %d", l, total)
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

func TestJoinEventsTellsAllInTurn(t *testing.T) {
	var told []string
	listener := func(name string) func(context.Context, strategy.Event) {
		return func(_ context.Context, e strategy.Event) { told = append(told, name+" "+string(e.Kind)) }
	}
	listeners := []func(context.Context, strategy.Event){nil, listener("a"), nil, listener("b"), listener("a"), nil}
	join := strategy.JoinEvents(listeners...)
	listeners[1] = nil // the caller's own slice
	join(t.Context(), strategy.Event{Kind: strategy.EventTokenIssued})
	if want := []string{"a token.issued", "b token.issued", "a token.issued"}; !slices.Equal(told, want) {
		t.Errorf("got %q, want %q", told, want)
	}
	strategy.JoinEvents()(t.Context(), strategy.Event{})
	strategy.JoinEvents(nil, nil)(t.Context(), strategy.Event{})
}

// counts is an EventCounter.
type counts map[string]int

func (c counts) CountEvent(kind strategy.EventKind, reason strategy.Reason) {
	c[string(kind)+" "+string(reason)]++
}

func TestCountEventsCountsEveryEvent(t *testing.T) {
	got := counts{}
	count := strategy.CountEvents(got)
	for range 2 * perMinute { // there is no limit here
		count(t.Context(), junk)
	}
	count(t.Context(), strategy.Event{Kind: strategy.EventTokenIssued, UserID: "ann"})
	count(t.Context(), strategy.Event{Kind: strategy.EventStoreFailed, Err: errors.New("down")})
	if want := (counts{"token.denied malformed": 2 * perMinute, "token.issued ": 1, "store.failed ": 1}); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A suppressed event must cost next to nothing: there are many.
func BenchmarkLogEventsSuppressed(b *testing.B) {
	log := strategy.LogEvents(slog.New(slog.NewJSONHandler(io.Discard, nil)))
	ctx := context.Background()
	for range perMinute + 1 {
		log(ctx, junk)
	}
	b.ReportAllocs()
	for b.Loop() {
		log(ctx, junk)
	}
}

func BenchmarkLogEventsWritten(b *testing.B) {
	log := strategy.LogEvents(slog.New(slog.NewJSONHandler(io.Discard, nil)))
	ctx := context.Background()
	e := strategy.Event{Kind: strategy.EventLoginSucceeded, UserID: int64(7), ClientAddr: "192.0.2.7"}
	b.ReportAllocs()
	for b.Loop() {
		log(ctx, e)
	}
}
