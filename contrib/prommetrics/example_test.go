package prommetrics_test

import (
	"context"
	"log"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/latchkey-go/latchkey/contrib/prommetrics"
	"github.com/latchkey-go/latchkey/event"
)

func Example() {
	reg := prometheus.NewRegistry()
	count, err := prommetrics.New(reg)
	if err != nil {
		log.Fatal(err)
	}
	onEvent := event.Join(count, event.Log(nil)) // for latchkey.Config.OnEvent
	onEvent(context.Background(), event.Event{Kind: event.LoginDenied, Reason: event.ReasonWrongPassword})

	http.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
}
