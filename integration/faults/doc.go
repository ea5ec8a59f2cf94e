// Package faults puts the whole of Latchkey, an application behind a listener with
// a MongoDB server behind it, into trouble: networks that fail, servers that die,
// load, instances that come and go, and documents that are none of ours. What every
// client was told is written down, and every later answer must agree with it: a
// token that was issued is good until a log-out was begun, a log-out that was
// acknowledged is final, and a database that fails is a 503 in time, never a 401.
//
// It runs against any server that the integration suite can use (see there). Where
// that would be devmongo in the process, it is devmongo in a process of its own: so
// what is counted of goroutines and memory is the application's. The tests that kill
// their server use a devmongo of their own in any case.
//
//	go test ./integration/faults                                             # the short form, about a minute
//	go test ./integration/faults -run TestNetwork -v -soak=30m -timeout=1h   # as long as you like: TestNetwork, TestServer, TestLoad
//	go test ./integration/faults -run TestLoad -v -sessions=100000           # that many sessions, on any server that does not scan
//
// A run prints its seed; -seed repeats the choices of one.
package faults
