//go:build !linux

package lab

import "time"

func sleep(d time.Duration) { time.Sleep(d) }
