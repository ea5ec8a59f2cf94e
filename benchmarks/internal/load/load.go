// Package load puts an HTTP server under closed-loop load and measures latencies and rates.
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

// Options configure a load.
type Options struct {
	// Conns is the number of connections. Each has one request in flight.
	Conns int
	// Warmup is how long the load runs before the measurement, Duration how long the
	// measurement takes.
	Warmup, Duration time.Duration
	// Pause is the time between an answer and the connection's next request. 0 means the
	// highest load.
	Pause time.Duration
}

// Result is a measurement.
type Result struct {
	// Latencies are the latencies of the requests sent during the measurement, sorted: at
	// least one for each connection.
	Latencies []time.Duration
	// Rate is the number of requests answered during the measurement, per second.
	Rate float64
}

// Run sends the requests to an address in a cycle, over persistent connections. An answer
// with another status than 200 is an error.
//
// Run writes the requests unchanged and parses as little of the answers as it needs:
// net/http's client would use more processor time than most of the measured servers.
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

// Sweep sends every request once, over 16 connections.
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

// loop runs the load of one connection. Its first request is requests[next].
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

// readAnswer reads an answer, which must have status 200 and a Content-Length.
func readAnswer(r *bufio.Reader) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
		return fmt.Errorf("load: unexpected answer %q", line)
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
		return errors.New("load: the answer has no Content-Length")
	}
	_, err = io.CopyN(io.Discard, r, int64(length))
	return err
}
