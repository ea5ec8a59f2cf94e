package lab

import (
	"syscall"
	"time"
)

// sleep is more exact than time.Sleep, which in an idle process takes a millisecond at the least.
func sleep(d time.Duration) {
	left := syscall.NsecToTimespec(int64(d))
	for syscall.Nanosleep(&left, &left) == syscall.EINTR {
	}
}
