package lab

import (
	"syscall"
	"time"
)

// sleep is more precise than time.Sleep, which takes at least a millisecond in an idle
// process.
func sleep(d time.Duration) {
	left := syscall.NsecToTimespec(int64(d))
	for syscall.Nanosleep(&left, &left) == syscall.EINTR {
	}
}
