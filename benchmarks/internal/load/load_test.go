package load_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/benchmarks/internal/load"
)

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, c := range []struct {
		name   string
		sorted []time.Duration
		p      float64
		want   time.Duration
	}{
		{"no durations", nil, 50, 0},
		{"one duration", []time.Duration{7}, 99, 7},
		{"p50 of two durations is the lower one", []time.Duration{1, 2}, 50, 1},
		{"p50", hundred, 50, 50},
		{"p95", hundred, 95, 95},
		{"p99", hundred, 99, 99},
		{"between two ranks", hundred, 98.5, 99},
		{"p0", hundred, 0, 1},
		{"p100", hundred, 100, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := load.Percentile(c.sorted, c.p); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		name   string
		values []float64
		want   float64
	}{
		{"no values", nil, 0},
		{"one value", []float64{3}, 3},
		{"two values", []float64{3, 4}, 3.5},
		{"three values, unsorted", []float64{9, 1, 5}, 5},
		{"four values", []float64{9, 1, 5, 6}, 5.5},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := load.Median(c.values); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestRunMeasuresAfterTheWarmup(t *testing.T) {
	var requests, second atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.Header.Get("X-User") == "2" {
			second.Add(1)
		}
		_, _ = fmt.Fprint(w, "hello")
	}))
	defer server.Close()

	addr := strings.TrimPrefix(server.URL, "http://")
	result, err := load.Run(addr, requestsOf("1", "2"), load.Options{Conns: 3, Warmup: 20 * time.Millisecond, Duration: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	measured := int64(len(result.Latencies))
	if measured == 0 || measured >= requests.Load() {
		t.Errorf("%d of %d requests were measured, want those after the warm-up", measured, requests.Load())
	}
	if second.Load() == 0 {
		t.Error("the second request was never sent")
	}
	for i := range result.Latencies[1:] {
		if result.Latencies[i] > result.Latencies[i+1] {
			t.Fatal("the latencies are not sorted")
		}
	}
	// On each connection, one request can cross the start and one the end of the measurement.
	if off := result.Rate*0.05 - float64(measured); off < -3.5 || off > 3.5 {
		t.Errorf("the rate is %v for %d requests in 50 ms", result.Rate, measured)
	}
}

func requestsOf(users ...string) (requests [][]byte) {
	for _, user := range users {
		requests = append(requests, fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: x\r\nX-User: %s\r\n\r\n", user))
	}
	return requests
}

func TestSlowServerIsMeasured(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(30 * time.Millisecond)
		_, _ = fmt.Fprint(w, "hello")
	}))
	defer server.Close()
	opts := load.Options{Conns: 2, Warmup: time.Millisecond, Duration: time.Millisecond}
	result, err := load.Run(strings.TrimPrefix(server.URL, "http://"), requestsOf("1"), opts)
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Latencies) != 2 || result.Latencies[0] < 30*time.Millisecond {
		t.Errorf("got %v", result.Latencies)
	}
}

func TestOtherStatusIsAnError(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	defer server.Close()
	_, err := load.Run(strings.TrimPrefix(server.URL, "http://"), requestsOf("1"), load.Options{Conns: 1, Duration: time.Second})
	if err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("got %v", err)
	}
}
