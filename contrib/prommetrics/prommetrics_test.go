package prommetrics_test

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/latchkey-go/latchkey/contrib/prommetrics"
	"github.com/latchkey-go/latchkey/event"
)

const metric = "latchkey_events_total"

func newListener(t *testing.T) (func(context.Context, event.Event), *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	count, err := prommetrics.New(reg)
	if err != nil {
		t.Fatal(err)
	}
	return count, reg
}

// labels are those of a series.
type labels struct{ kind, reason string }

// series returns all values.
func series(t *testing.T, reg *prometheus.Registry) map[labels]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != metric {
		t.Fatalf("got %v, %v, want only %s", families, err, metric)
	}
	got := make(map[labels]float64)
	for _, m := range families[0].GetMetric() {
		var l labels
		for _, pair := range m.GetLabel() {
			switch pair.GetName() {
			case "kind":
				l.kind = pair.GetValue()
			case "reason":
				l.reason = pair.GetValue()
			default:
				t.Errorf("got the label %s, want only kind and reason", pair.GetName())
			}
		}
		got[l] = m.GetCounter().GetValue()
	}
	return got
}

func TestEventsAreCountedByKindAndReason(t *testing.T) {
	count, reg := newListener(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				count(t.Context(), event.Event{Kind: event.TokenIssued, UserID: "ann", ClientIP: "192.0.2.7"})
				count(t.Context(), event.Event{Kind: event.TokenDenied, Reason: event.ReasonUnknown})
				count(t.Context(), event.Event{Kind: "own.kind", Reason: "own_reason"})
			}
		})
	}
	wg.Wait()
	counted := []labels{{"token.issued", ""}, {"token.denied", "unknown"}, {"own.kind", "own_reason"}}
	got := series(t, reg)
	for _, l := range counted {
		if _, ok := got[l]; !ok {
			t.Errorf("series %+v is missing", l)
		}
	}
	for l, got := range got {
		want := 0.0
		if slices.Contains(counted, l) {
			want = 800
		}
		if got != want {
			t.Errorf("%+v: got %v, want %v", l, got, want)
		}
	}
}

func TestMetricPassesPrometheusLint(t *testing.T) {
	_, reg := newListener(t)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) != 0 {
		t.Errorf("got %v, %v, want no problems", problems, err)
	}
}

func TestAllSeriesBeginAtZero(t *testing.T) {
	_, reg := newListener(t)
	kinds, reasons := make(map[string]bool), make(map[string]bool)
	for l, value := range series(t, reg) {
		if value != 0 {
			t.Errorf("%+v: got %v, want 0", l, value)
		}
		kinds[l.kind], reasons[l.reason] = true, true
		if strings.HasSuffix(l.kind, ".denied") && l.reason == "" {
			t.Errorf("got %+v, want a reason for every denial", l)
		}
	}
	for _, kind := range constants(t, "Kind") {
		if !kinds[kind] {
			t.Errorf("no series of the kind %s", kind)
		}
	}
	for _, reason := range constants(t, "Reason") {
		if !reasons[reason] {
			t.Errorf("no series of the reason %s", reason)
		}
	}
}

// constants returns the values of the constants of a type in the package event.
func constants(t *testing.T, typeName string) (values []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../event/event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); !ok || id.Name != typeName {
			return true
		}
		for _, value := range spec.Values {
			s, err := strconv.Unquote(value.(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, s)
		}
		return true
	})
	if len(values) == 0 {
		t.Fatalf("found no constants of the type %s", typeName)
	}
	return values
}

func TestRegistrationErrors(t *testing.T) {
	if f, err := prommetrics.New(nil); f != nil || err == nil {
		t.Errorf("no registerer: got a listener: %t, error: %v, want only an error", f != nil, err)
	}
	_, reg := newListener(t)
	f, err := prommetrics.New(reg)
	if taken := (prometheus.AlreadyRegisteredError{}); f != nil || !errors.As(err, &taken) {
		t.Errorf("again: got a listener: %t, error: %v, want only an AlreadyRegisteredError", f != nil, err)
	}
}

func TestALabelTellsTwoApplicationsApart(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	for _, app := range []string{"shop", "admin"} {
		count, err := prommetrics.New(prometheus.WrapRegistererWith(prometheus.Labels{"app": app}, reg))
		if err != nil {
			t.Fatal(err)
		}
		count(t.Context(), event.Event{Kind: event.TokenIssued})
	}
	families, err := reg.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("got %v, %v, want one metric", families, err)
	}
	issued := 0.0
	for _, m := range families[0].GetMetric() {
		issued += m.GetCounter().GetValue()
	}
	if issued != 2 {
		t.Errorf("got %v events of both, want 2", issued)
	}
}

func BenchmarkListener(b *testing.B) {
	count, err := prommetrics.New(prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		count(b.Context(), event.Event{Kind: event.TokenDenied, Reason: event.ReasonMalformed})
	}
}
