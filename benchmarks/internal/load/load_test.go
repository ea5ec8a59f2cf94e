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
		{"of none", nil, 50, 0},
		{"of one", []time.Duration{7}, 99, 7},
		{"the middle of two is the first", []time.Duration{1, 2}, 50, 1},
		{"p50", hundred, 50, 50},
		{"p95", hundred, 95, 95},
		{"p99", hundred, 99, 99},
		{"between two ranks, the higher", hundred, 98.5, 99},
		{"the least", hundred, 0, 1},
		{"the most", hundred, 100, 100},
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
		{"of none", nil, 0},
		{"of one", []float64{3}, 3},
		{"of two", []float64{3, 4}, 3.5},
		{"of three in any order", []float64{9, 1, 5}, 5},
		{"of four", []float64{9, 1, 5, 6}, 5.5},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := load.Median(c.values); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestRun(t *testing.T) {
	var requests, others atomic.Int64
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.Header.Get("X-User") == "2" {
			others.Add(1)
		}
		_, _ = fmt.Fprint(w, "hello")
	}))
	defer site.Close()

	addr := strings.TrimPrefix(site.URL, "http://")
	result, err := load.Run(addr, requestsOf("1", "2"), load.Options{Conns: 3, Warmup: 20 * time.Millisecond, Duration: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	measured := int64(len(result.Latencies))
	if measured == 0 || measured >= requests.Load() {
		t.Errorf("%d of %d requests were measured; those of the warm-up should not be", measured, requests.Load())
	}
	if others.Load() == 0 {
		t.Error("only the first request was sent")
	}
	for i := range result.Latencies[1:] {
		if result.Latencies[i] > result.Latencies[i+1] {
			t.Fatal("the latencies are not sorted")
		}
	}
	// A request on each connection can be sent before the end and answered after it, or the like at the beginning.
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

func TestRunMeasuresASlowServer(t *testing.T) {
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(30 * time.Millisecond)
		_, _ = fmt.Fprint(w, "hello")
	}))
	defer site.Close()
	opts := load.Options{Conns: 2, Warmup: time.Millisecond, Duration: time.Millisecond}
	result, err := load.Run(strings.TrimPrefix(site.URL, "http://"), requestsOf("1"), opts)
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Latencies) != 2 || result.Latencies[0] < 30*time.Millisecond {
		t.Errorf("got %v", result.Latencies)
	}
}

func TestRunReportsOtherAnswers(t *testing.T) {
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	defer site.Close()
	_, err := load.Run(strings.TrimPrefix(site.URL, "http://"), requestsOf("1"), load.Options{Conns: 1, Duration: time.Second})
	if err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("got %v", err)
	}
}
