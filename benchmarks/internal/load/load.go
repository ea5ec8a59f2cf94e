// Package load puts a closed-loop load on an HTTP server, and sums up what it took.
package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Options say how much load there is.
type Options struct {
	// Conns is the number of connections. Each has one request under way.
	Conns int
	// Warmup is how long the load runs before it is measured, and Duration for how long it is.
	Warmup, Duration time.Duration
	// Pause is how long a connection rests between an answer and its next request. 0 is a load as high as it gets.
	Pause time.Duration
}

// Result is what was measured.
type Result struct {
	// Latencies are those of all requests that were sent while it was measured, the shortest first: of one for each
	// connection at the least.
	Latencies []time.Duration
	// Rate is the number of requests a second that were answered meanwhile.
	Rate float64
}

// Run sends requests to an address, in turn, over connections that it keeps. An answer other than 200 is an error.
//
// The requests are sent as they are, and the answers are read no further than needed: net/http's client would take more
// of the processor than most servers that are measured.
func Run(addr string, requests [][]byte, opts Options) (Result, error) {
	if opts.Conns < 1 || len(requests) == 0 {
		return Result{}, errors.New("load: no connections or no requests")
	}
	begin := time.Now()
	from := begin.Add(opts.Warmup)
	until := from.Add(opts.Duration)
	var group sync.WaitGroup
	latencies := make([][]time.Duration, opts.Conns)
	answered := make([]int, opts.Conns)
	errs := make([]error, opts.Conns)
	for i := range opts.Conns {
		group.Go(func() {
			latencies[i], answered[i], errs[i] = loop(addr, requests, i*len(requests)/opts.Conns, from, until, opts.Pause)
		})
	}
	group.Wait()
	all := slices.Concat(latencies...)
	slices.Sort(all)
	n := 0
	for _, a := range answered {
		n += a
	}
	return Result{all, float64(n) / opts.Duration.Seconds()}, errors.Join(errs...)
}

// Sweep sends every request once, over a few connections.
func Sweep(addr string, requests [][]byte) error {
	const conns = 16
	var group sync.WaitGroup
	errs := make([]error, conns)
	for i := range conns {
		group.Go(func() { errs[i] = sweep(addr, requests[i*len(requests)/conns:(i+1)*len(requests)/conns]) })
	}
	group.Wait()
	return errors.Join(errs...)
}

func sweep(addr string, requests [][]byte) error {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	r := bufio.NewReader(conn)
	for _, request := range requests {
		if _, err := conn.Write(request); err != nil {
			return err
		}
		if err := readAnswer(r); err != nil {
			return err
		}
	}
	return nil
}

// loop is one connection's load, beginning with one of the requests.
func loop(addr string, requests [][]byte, next int, from, until time.Time, pause time.Duration) (latencies []time.Duration, answered int, err error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(until.Add(10 * time.Second)); err != nil {
		return nil, 0, err
	}
	r := bufio.NewReader(conn)
	for ; ; next++ {
		start := time.Now()
		if start.After(until) && latencies != nil {
			return latencies, answered, nil
		}
		if _, err := conn.Write(requests[next%len(requests)]); err != nil {
			return nil, 0, err
		}
		if err := readAnswer(r); err != nil {
			return nil, 0, err
		}
		end := time.Now()
		if start.After(from) {
			latencies = append(latencies, end.Sub(start))
		}
		if end.After(from) && !end.After(until) {
			answered++
		}
		if pause > 0 {
			time.Sleep(pause)
		}
	}
}

// readAnswer reads an answer of status 200 with a Content-Length.
func readAnswer(r *bufio.Reader) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
		return fmt.Errorf("load: answered with %q", line)
	}
	length := -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return errors.New("load: an answer without Content-Length")
	}
	_, err = io.CopyN(io.Discard, r, int64(length))
	return err
}
