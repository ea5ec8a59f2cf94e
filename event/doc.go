// Package event describes what happens in Latchkey: logins, denials, revocations, failures.
//
// The other packages call the OnEvent function of their Config with an [Event] for every
// outcome. [Log] returns such a function that logs, and [Join] combines several. The packages
// expvarmetrics and prommetrics in contrib count events, and otel gives them to OpenTelemetry.
//
// An OnEvent function is called synchronously, by the goroutine in which the event happens.
// It must be quick and safe for concurrent use.
//
// Events name the client IP that a context carries; see [ContextWithClientIP].
package event
