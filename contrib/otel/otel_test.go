package latchkeyotel_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/latchkey-go/latchkey/account"
	latchkeyotel "github.com/latchkey-go/latchkey/contrib/otel"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// rig is a listener with all that OpenTelemetry gets.
type rig struct {
	t      *testing.T
	listen func(context.Context, event.Event)
	reader *sdkmetric.ManualReader
	spans  *tracetest.SpanRecorder
	tracer *sdktrace.TracerProvider
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, reader: sdkmetric.NewManualReader(), spans: tracetest.NewSpanRecorder()}
	r.tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r.spans))
	var err error
	if r.listen, err = latchkeyotel.New(sdkmetric.NewMeterProvider(sdkmetric.WithReader(r.reader))); err != nil {
		t.Fatal(err)
	}
	return r
}

// counts returns the values of the counter by the attributes, such as "a=b,c=d".
func (r *rig) counts() map[string]int64 {
	r.t.Helper()
	var got metricdata.ResourceMetrics
	if err := r.reader.Collect(context.Background(), &got); err != nil {
		r.t.Fatal(err)
	}
	counts := make(map[string]int64)
	for _, s := range got.ScopeMetrics {
		for _, m := range s.Metrics {
			sum, ok := m.Data.(metricdata.Sum[int64])
			if !ok || !sum.IsMonotonic || m.Name != "latchkey.events" || m.Unit != "{event}" || m.Description == "" || s.Scope.Name != "github.com/latchkey-go/latchkey/contrib/otel" {
				r.t.Errorf("got the metric %+v of %+v, want the counter latchkey.events", m, s.Scope)
				continue
			}
			for _, p := range sum.DataPoints {
				counts[text(p.Attributes.ToSlice())] = p.Value
			}
		}
	}
	return counts
}

// text returns attributes as "a=b,c=d".
func text(attrs []attribute.KeyValue) string {
	var parts []string
	for _, a := range attrs {
		parts = append(parts, string(a.Key)+"="+a.Value.AsString())
	}
	return strings.Join(parts, ",")
}

// full is an event with everything set.
func full(err error) event.Event {
	return event.Event{
		Kind: event.LoginDenied, Reason: event.ReasonUnusableHash, UserID: "ann", SessionID: uuid.Max, ClientIP: "192.0.2.7", Err: err,
	}
}

func TestEventsAreCounted(t *testing.T) {
	r := newRig(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				r.listen(t.Context(), event.Event{Kind: event.TokenIssued, UserID: "ann", SessionID: uuid.Max, ClientIP: "192.0.2.7"})
				r.listen(t.Context(), event.Event{Kind: event.TokenDenied, Reason: event.ReasonUnknown})
				r.listen(t.Context(), full(errors.New("ann's hash")))
			}
		})
	}
	wg.Wait()
	want := map[string]int64{
		"latchkey.event.kind=token.issued":                                                                    800,
		"latchkey.event.kind=token.denied,latchkey.event.reason=unknown":                                      800,
		"error.type=*errors.errorString,latchkey.event.kind=login.denied,latchkey.event.reason=unusable_hash": 800,
	}
	if got := r.counts(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestEventsAreAddedToTheSpanOfTheirContext(t *testing.T) {
	r := newRig(t)
	ctx, span := r.tracer.Tracer("test").Start(t.Context(), "POST /auth/login")
	r.listen(ctx, full(fmt.Errorf("hash of ann: %w", context.DeadlineExceeded)))
	r.listen(ctx, event.Event{Kind: event.TokenIssued, UserID: "ann"})
	span.End()
	r.listen(ctx, event.Event{Kind: event.MailSent}) // behind the answer
	r.listen(t.Context(), event.Event{Kind: event.CacheResumed})

	ended := r.spans.Ended()
	if len(ended) != 1 || len(ended[0].Events()) != 2 {
		t.Fatalf("got the spans %v, want one with two events", ended)
	}
	var got []string
	for _, e := range ended[0].Events() {
		got = append(got, e.Name+" "+text(e.Attributes))
	}
	want := []string{"latchkey.login.denied latchkey.event.reason=unusable_hash,error.type=timeout", "latchkey.token.issued "}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if status := ended[0].Status(); status.Code != codes.Unset || len(ended[0].Attributes()) != 0 {
		t.Errorf("got the status %v and the attributes %v, want the span unchanged", status, ended[0].Attributes())
	}
	if n := len(r.counts()); n != 4 {
		t.Errorf("got %d series, want 4: events without a recorded span are counted too", n)
	}
}

// Latchkey's packages pass the context of the request on.
func TestSpanOfARequestGetsItsEvents(t *testing.T) {
	r := newRig(t)
	tokens, users := memstore.NewTokens[uuid.UUID](), memstore.NewUsers[account.User[uuid.UUID]]()
	sessions, err := strategy.NewDatabase(tokens, users, strategy.Config{OnEvent: r.listen})
	if err != nil {
		t.Fatal(err)
	}
	defer sessions.Close()
	ctx, span := r.tracer.Tracer("test").Start(t.Context(), "GET /me")
	if _, err := sessions.ReadToken(ctx, "no token"); !errors.Is(err, strategy.ErrInvalidToken) {
		t.Errorf("got the error %v, want %v", err, strategy.ErrInvalidToken)
	}
	span.End()
	events := r.spans.Ended()[0].Events()
	if len(events) != 1 || events[0].Name != "latchkey.token.denied" || text(events[0].Attributes) != "latchkey.event.reason=malformed" {
		t.Errorf("got the events %v, want one latchkey.token.denied", events)
	}
}

// lateError is a timeout of the network.
type lateError struct{}

func (lateError) Error() string { return "the address of a user" }
func (lateError) Timeout() bool { return true }

func TestErrorTypesAreFew(t *testing.T) {
	for want, err := range map[string]error{
		"canceled":            fmt.Errorf("a: %w", context.Canceled),
		"timeout":             fmt.Errorf("a: %w", lateError{}),
		"*net.OpError":        fmt.Errorf("a: %w", &net.OpError{Op: "dial"}),
		"*net.AddrError":      fmt.Errorf("%w: %w", errors.New("a sentinel"), fmt.Errorf("b: %w", &net.AddrError{})),
		"*errors.errorString": errors.Join(errors.New("a"), errors.New("b")),
	} {
		r := newRig(t)
		r.listen(t.Context(), event.Event{Kind: event.StoreFailed, Err: err})
		if got := r.counts(); got["error.type="+want+",latchkey.event.kind=store.failed"] != 1 {
			t.Errorf("got %v, want the type %s", got, want)
		}
	}
}

// Semantic conventions: lower case, dots between namespaces, underscores between words.
func TestNamesFollowTheConventions(t *testing.T) {
	source, err := os.ReadFile("../../event/event.go")
	if err != nil {
		t.Fatal(err)
	}
	kinds := regexp.MustCompile(`Kind\s+= "([^"]*)"|Kind = "([^"]*)"`).FindAllStringSubmatch(string(source), -1)
	if len(kinds) < 20 {
		t.Fatalf("found %d kinds", len(kinds))
	}
	conventional := regexp.MustCompile(`^[a-z]+(_[a-z]+)*(\.[a-z]+(_[a-z]+)*)+$`)
	for _, k := range kinds {
		if name := "latchkey." + k[1] + k[2]; !conventional.MatchString(name) {
			t.Errorf("the name %s does not follow the conventions", name)
		}
	}
}

// failingMeters make no counter.
type failingMeters struct{ noop.MeterProvider }

func (failingMeters) Meter(string, ...metric.MeterOption) metric.Meter { return failingMeter{} }

type failingMeter struct{ noop.Meter }

func (failingMeter) Int64Counter(string, ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return nil, errors.New("no counter")
}

func TestCounterErrorIsReturned(t *testing.T) {
	f, err := latchkeyotel.New(failingMeters{})
	if f != nil || err == nil || !strings.Contains(err.Error(), "latchkeyotel: make the counter latchkey.events: no counter") {
		t.Errorf("got a listener: %t, error: %v, want only an error", f != nil, err)
	}
}

func TestMailerMakesASpanOfEachMessage(t *testing.T) {
	r := newRig(t)
	var inner trace.SpanContext
	failure := errors.New("550 no such user: ann@example.com")
	next := account.MailerFunc(func(ctx context.Context, m account.Message) error {
		inner = trace.SpanContextFromContext(ctx)
		if m.Kind == account.MessagePasswordReset {
			return failure
		}
		return nil
	})
	mailer := latchkeyotel.Mailer(next, r.tracer)
	ctx, request := r.tracer.Tracer("test").Start(t.Context(), "POST /auth/forgot-password")
	request.End()
	message := account.Message{Kind: account.MessageVerification, To: "ann@example.com", Token: strategy.NewSecret("a secret"), ClientIP: "192.0.2.7"}
	if err := mailer.Send(ctx, message); err != nil {
		t.Fatal(err)
	}
	message.Kind = account.MessagePasswordReset
	if err := mailer.Send(ctx, message); !errors.Is(err, failure) {
		t.Errorf("got the error %v, want that of the Mailer", err)
	}
	ended := r.spans.Ended()[1:]
	if len(ended) != 2 {
		t.Fatalf("got %d spans, want 2", len(ended))
	}
	for i, want := range []struct {
		attrs  string
		status codes.Code
	}{
		{"latchkey.message.kind=verification", codes.Unset},
		{"latchkey.message.kind=password_reset,error.type=*errors.errorString", codes.Error},
	} {
		s := ended[i]
		if s.Name() != "latchkey.mail.send" || text(s.Attributes()) != want.attrs || s.Status().Code != want.status || s.Status().Description != "" || len(s.Events()) != 0 {
			t.Errorf("got the span %s with %s and %v, want %+v", s.Name(), text(s.Attributes()), s.Status(), want)
		}
		if s.Parent().SpanID() != request.SpanContext().SpanID() || s.SpanKind() != trace.SpanKindClient {
			t.Errorf("got the parent %v and the kind %v, want the request and client", s.Parent().SpanID(), s.SpanKind())
		}
	}
	if inner.SpanID() != ended[1].SpanContext().SpanID() {
		t.Error("the Mailer did not get the span in its context")
	}
	if latchkeyotel.Mailer(nil, r.tracer) != nil {
		t.Error("got a Mailer for nil")
	}
}

func TestGlobalProvidersCanBeSetLater(t *testing.T) {
	listen, err := latchkeyotel.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	mailer := latchkeyotel.Mailer(account.MailerFunc(func(context.Context, account.Message) error { return nil }), nil)
	r := newRig(t)
	r.reader = sdkmetric.NewManualReader()
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(r.reader)))
	otel.SetTracerProvider(r.tracer)
	listen(t.Context(), event.Event{Kind: event.TokenIssued})
	if err := mailer.Send(t.Context(), account.Message{}); err != nil {
		t.Fatal(err)
	}
	if got := r.counts(); got["latchkey.event.kind=token.issued"] != 1 {
		t.Errorf("got %v, want one event", got)
	}
	if n := len(r.spans.Ended()); n != 1 {
		t.Errorf("got %d spans, want 1", n)
	}
}

func BenchmarkListener(b *testing.B) {
	listen, err := latchkeyotel.New(sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		listen(b.Context(), event.Event{Kind: event.TokenDenied, Reason: event.ReasonMalformed})
	}
}
