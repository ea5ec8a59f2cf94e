// Package faults tests Latchkey under faults: failing networks, killed servers, load,
// instances that start and stop, clocks that differ, and documents that Latchkey did not
// write. Clients use an application over HTTP with a MongoDB server behind it. They record
// every answer and check each later one against it:
//
//   - a token is valid from its login until a log-out begins;
//   - an acknowledged log-out is final;
//   - a failing database is a 503 in time, never a 401.
//
// Other tests compare random sequences of calls with a model, and check that concurrent
// histories of calls are linearizable.
//
// The tests use the same server as package integration. In place of devmongo in this
// process, they start a devmongo process, so that the counted goroutines and memory are
// the application's. Tests that kill their server always use their own devmongo.
//
// The short form takes a few minutes. -soak repeats the network, server, load, model and
// history tests for as long as it says. -sessions sets the number of sessions of the load
// test; the server needs indexes for many.
//
//	go test ./integration/faults
//	go test ./integration/faults -run TestNetwork -v -soak=30m -timeout=1h
//	go test ./integration/faults -run TestLoad -v -sessions=100000
//
// A run prints its seed; -seed repeats the random choices of a run.
package faults
