package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"time"
)

// flood measures a guarded route, first without other requests, then while a number of
// clients log in continuously. A client that is answered with 503 waits a second.
func flood(ctx context.Context, w io.Writer, app *app, clients int, length time.Duration) error {
	const member = "member@example.com"
	if err := app.create(ctx, member, true); err != nil {
		return err
	}
	token, err := app.token(ctx, member)
	if err != nil {
		return err
	}
	if _, _, err := probe(ctx, app, token, length/10); err != nil { // to warm up
		return err
	}
	runtime.GC()
	quiet, quietHeap, err := probe(ctx, app, token, length)
	if err != nil {
		return err
	}

	flooding, stop := context.WithCancel(ctx)
	defer stop()
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		answered = make(map[int]int)
		logins   []float64 // milliseconds of the logins whose password was checked
	)
	for i := range clients {
		wg.Go(func() {
			email := fmt.Sprintf("nobody.%06d@example.com", i)
			for flooding.Err() == nil {
				got, err := app.login(flooding, email, wrongPassword)
				if err != nil {
					continue // the flood has ended
				}
				mu.Lock()
				answered[got.status]++
				if got.status == http.StatusBadRequest {
					logins = append(logins, got.took)
				}
				mu.Unlock()
				if got.status != http.StatusBadRequest {
					select {
					case <-flooding.Done():
					case <-time.After(time.Second):
					}
				}
			}
		})
	}
	flooded, floodedHeap, err := probe(ctx, app, token, length)
	stop()
	wg.Wait()
	if err != nil {
		return err
	}

	fmt.Fprintln(w, row("guarded route, ms", "requests", "median", "p95", "p99", "max", "peak heap, MiB"))
	fmt.Fprintln(w, "|---|--:|--:|--:|--:|--:|--:|")
	for _, line := range []struct {
		name string
		took []float64
		heap uint64
	}{{"no other requests", quiet, quietHeap}, {fmt.Sprintf("%d clients logging in", clients), flooded, floodedHeap}} {
		q := func(q float64) float64 { return quantile(line.took, q) }
		fmt.Fprintln(w, row(line.name, len(line.took), q(0.5), q(0.95), q(0.99), q(1), line.heap>>20))
	}
	fmt.Fprintf(w, "\nAnswers to logins in %v of the flood, by status: %v.", length, answered)
	if len(logins) > 0 {
		slices.Sort(logins)
		fmt.Fprintf(w, " A login whose password was checked took %s ms (median), at most %s ms.", milliseconds(quantile(logins, 0.5)), milliseconds(quantile(logins, 1)))
	}
	fmt.Fprintf(w, "\nThe clients run in the same process, on the same %d processors.\n", runtime.GOMAXPROCS(0))
	return nil
}

// probe requests the guarded route every 5 ms. It returns the sorted times in milliseconds,
// and the peak size of the heap.
func probe(ctx context.Context, app *app, token string, length time.Duration) (took []float64, heap uint64, err error) {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	pause := time.NewTicker(5 * time.Millisecond)
	defer pause.Stop()
	for end := time.Now().Add(length); time.Now().Before(end); {
		got, err := app.guarded(ctx, token)
		if err != nil {
			return nil, 0, err
		}
		if got.status != http.StatusNoContent {
			return nil, 0, fmt.Errorf("the guarded route answered %d", got.status)
		}
		took = append(took, got.took)
		metrics.Read(sample)
		heap = max(heap, sample[0].Value.Uint64())
		select {
		case <-pause.C:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
	slices.Sort(took)
	return took, heap, nil
}
