package latchkeyotel_test

import (
	"context"
	"fmt"
	"log"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	latchkeyotel "github.com/latchkey-go/latchkey/contrib/otel"
	"github.com/latchkey-go/latchkey/event"
)

func Example() {
	reader := metric.NewManualReader() // an application has an exporter
	meters := metric.NewMeterProvider(metric.WithReader(reader))
	count, err := latchkeyotel.New(meters) // nil for the global provider
	if err != nil {
		log.Fatal(err)
	}
	onEvent := event.Join(count, event.Log(nil)) // for latchkey.Config.OnEvent
	onEvent(context.Background(), event.Event{Kind: event.LoginDenied, Reason: event.ReasonWrongPassword})

	var got metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &got); err != nil {
		log.Fatal(err)
	}
	for _, m := range got.ScopeMetrics[0].Metrics {
		fmt.Println(m.Name, m.Data.(metricdata.Sum[int64]).DataPoints[0].Value)
	}
	// Output: latchkey.events 1
}
