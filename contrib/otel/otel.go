// Package latchkeyotel gives OpenTelemetry what happens in Latchkey: a metric of all events,
// events on the spans of requests, and spans of messages. It is in the directory contrib/otel;
// its name differs, so that it can be imported beside go.opentelemetry.io/otel:
//
//	import latchkeyotel "github.com/latchkey-go/latchkey/contrib/otel"
//
// # Metric
//
//	latchkey.events          counter, unit {event}
//	  latchkey.event.kind    such as "login.denied"; see the package event
//	  latchkey.event.reason  such as "wrong_password"; absent if the event has none
//	  error.type             absent if the event has no error
//
// The attributes name no user, no session and no address, so there are only a few dozen
// series. A Prometheus exporter calls the metric latchkey_events_total.
//
// # Events on spans
//
// If the context of an event has a span that is recorded, the event is added to it under the
// name "latchkey." and its kind, with the attributes latchkey.event.reason and error.type. The
// span is that of the request if a middleware such as otelgin starts one before Latchkey's
// routes and guards. Latchkey does not set the status of a span: the middleware does, by the
// status of the answer.
//
// # Spans
//
// [Mailer] makes a span of each message, which is sent behind the answer. There are none of
// store calls: OpenTelemetry's instrumentation of the MongoDB driver, otelmongo, makes a span
// of each command, in the trace of its request, and knows more about it:
//
//	client, err := mongo.Connect(options.Client().ApplyURI(uri).SetMonitor(otelmongo.NewMonitor()))
//
// Leave otelmongo's attribute with the command disabled, its default: commands have digests of
// tokens and hashes of passwords.
//
// # Privacy
//
// Nothing has a token, a user, a session, an address or the text of an error. Logs have all
// but tokens; see event.Log.
//
// It is a module of its own, so that other applications do not inherit OpenTelemetry.
package latchkeyotel

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
)

// The names of the instrumentation scope and of the attributes.
const (
	scope       = "github.com/latchkey-go/latchkey/contrib/otel"
	kindKey     = attribute.Key("latchkey.event.kind")
	reasonKey   = attribute.Key("latchkey.event.reason")
	messageKey  = attribute.Key("latchkey.message.kind")
	errorType   = attribute.Key("error.type")
	eventPrefix = "latchkey."
)

// New returns a function for the OnEvent field of a Config. It counts every event and adds
// it to the span of its context. The function is safe for concurrent use; one serves all
// OnEvent fields. To log events too, use [event.Join].
//
// If meters is nil, New takes the global MeterProvider (otel.GetMeterProvider), which the
// application can also set later. It returns an error if the provider cannot make the counter.
func New(meters metric.MeterProvider) (func(context.Context, event.Event), error) {
	if meters == nil {
		meters = otel.GetMeterProvider()
	}
	events, err := meters.Meter(scope).Int64Counter("latchkey.events",
		metric.WithUnit("{event}"),
		metric.WithDescription("Events of Latchkey, such as logins, issued and revoked tokens, denials and failures."))
	if err != nil {
		return nil, fmt.Errorf("latchkeyotel: make the counter latchkey.events: %w", err)
	}
	return func(ctx context.Context, e event.Event) {
		attrs := make([]attribute.KeyValue, 0, 3)
		attrs = append(attrs, kindKey.String(string(e.Kind)))
		if e.Reason != "" {
			attrs = append(attrs, reasonKey.String(string(e.Reason)))
		}
		if e.Err != nil {
			attrs = append(attrs, errorType.String(typeOf(e.Err)))
		}
		if span := trace.SpanFromContext(ctx); span.IsRecording() {
			// The name says the kind.
			span.AddEvent(eventPrefix+string(e.Kind), trace.WithAttributes(slices.Clone(attrs[1:])...))
		}
		events.Add(ctx, 1, metric.WithAttributeSet(attribute.NewSet(attrs...)))
	}, nil
}

// typeOf returns a name of few that classifies an error: "timeout", "canceled", or the type of
// the innermost error, such as "*net.OpError".
func typeOf(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	}
	for {
		switch wrapped := err.(type) {
		case interface{ Unwrap() error }:
			inner := wrapped.Unwrap()
			if inner == nil {
				return fmt.Sprintf("%T", err)
			}
			err = inner
		case interface{ Unwrap() []error }:
			inner := wrapped.Unwrap()
			if len(inner) == 0 {
				return fmt.Sprintf("%T", err)
			}
			err = inner[len(inner)-1] // after a sentinel, its cause
		default:
			return fmt.Sprintf("%T", err)
		}
	}
}

// Mailer returns a Mailer that calls next in a span "latchkey.mail.send", with the attribute
// latchkey.message.kind, and error.type and the status Error if next fails. The span belongs to
// the trace of the request that caused the message; the message is sent behind the answer, so
// it can end later than the request's span. It has no address and no token.
//
// If tracers is nil, Mailer takes the global TracerProvider (otel.GetTracerProvider), which the
// application can also set later. Mailer returns nil for nil, so that a Config without a Mailer
// stays one.
func Mailer(next account.Mailer, tracers trace.TracerProvider) account.Mailer {
	if next == nil {
		return nil
	}
	if tracers == nil {
		tracers = otel.GetTracerProvider()
	}
	tracer := tracers.Tracer(scope)
	return account.MailerFunc(func(ctx context.Context, m account.Message) error {
		ctx, span := tracer.Start(ctx, "latchkey.mail.send",
			trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(messageKey.String(string(m.Kind))))
		defer span.End()
		err := next.Send(ctx, m)
		if err != nil {
			span.SetAttributes(errorType.String(typeOf(err)))
			span.SetStatus(codes.Error, "")
		}
		return err
	})
}
