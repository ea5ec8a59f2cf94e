package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress returns a function that shows how far a long task has come, and one that ends it:
// a bar on a terminal, and otherwise a line every 10 seconds.
func progress(w io.Writer, task string) (show func(done, total int64), end func()) {
	if isTerminal(w) {
		return bar(w, task)
	}
	return lines(w, task, time.Now), func() {}
}

func isTerminal(x any) bool {
	f, ok := x.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func bar(w io.Writer, task string) (show func(done, total int64), end func()) {
	b := progressbar.NewOptions64(-1, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(task),
		progressbar.OptionShowCount(), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	_ = b.RenderBlank()
	show = func(done, total int64) {
		if total > 0 && total != b.GetMax64() {
			b.ChangeMax64(total)
		}
		_ = b.Set64(done)
	}
	return show, func() { _ = b.Clear() }
}

func lines(w io.Writer, task string, now func() time.Time) func(done, total int64) {
	const every = 10 * time.Second
	last := now()
	return func(done, total int64) {
		if t := now(); t.Sub(last) >= every {
			last = t
			fmt.Fprintf(w, "%s: %d of %d\n", task, done, total)
		}
	}
}
