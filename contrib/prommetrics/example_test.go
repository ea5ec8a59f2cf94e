package prommetrics_test

import (
	"context"
	"log"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/latchkey-go/latchkey/contrib/prommetrics"
	"github.com/latchkey-go/latchkey/strategy"
)

func Example() {
	reg := prometheus.NewRegistry()
	counter, err := prommetrics.New(reg)
	if err != nil {
		log.Fatal(err)
	}
	// This goes into every OnEvent field.
	onEvent := strategy.JoinEvents(strategy.CountEvents(counter), strategy.LogEvents(nil))
	onEvent(context.Background(), strategy.Event{Kind: strategy.EventLoginDenied, Reason: strategy.ReasonWrongPassword})

	http.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
}
