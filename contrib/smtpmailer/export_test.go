package smtpmailer

import "time"

// SetIdleTimeout changes how long idle connections are kept, and returns a function that undoes it.
func SetIdleTimeout(d time.Duration) func() {
	old := idleTimeout
	idleTimeout = d
	return func() { idleTimeout = old }
}
