package follow_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/latchkey-go/latchkey/internal/follow"
)

// log is a log of revocations, whose keys and revocations are words.
type log struct {
	rows  []follow.Row[string, string]
	reads []string // how far before the latest row each call began to read, or "last"
	err   error
}

func (l *log) add(word string, at time.Time) {
	l.rows = append(l.rows, follow.Row[string, string]{Key: word, At: at, Revocation: word})
}

func (l *log) read(from time.Time, last bool) ([]follow.Row[string, string], error) {
	if l.err != nil {
		return nil, l.err
	}
	var rows []follow.Row[string, string]
	for _, r := range l.rows {
		if !r.At.Before(from) {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b follow.Row[string, string]) int { return a.At.Compare(b.At) })
	if last {
		l.reads = append(l.reads, "last")
		return rows[max(0, len(rows)-1):], nil
	}
	ago := "all"
	if len(rows) > 0 && from.Unix() > 0 {
		ago = rows[len(rows)-1].At.Sub(from).String()
	}
	l.reads = append(l.reads, ago)
	return rows, nil
}

// next calls Next and compares.
func next(t *testing.T, f *follow.Follower[string, string], l *log, want ...string) {
	t.Helper()
	if got, err := f.Next(l.read); err != nil || !slices.Equal(got, want) {
		t.Errorf("Next returned %q and the error %v, want %q", got, err, want)
	}
}

func TestFollowerReturnsEachRevocationOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l log
		f := follow.New[string, string](time.Now)
		l.add("old", time.Now().Add(-time.Minute))
		l.add("latest", time.Now())
		next(t, f, &l, "latest") // the cache is still empty
		next(t, f, &l)
		time.Sleep(time.Second)
		l.add("new", time.Now())
		l.add("slow", time.Now().Add(-9*time.Second)) // became visible late
		next(t, f, &l, "slow", "new")
		next(t, f, &l)
		time.Sleep(20 * time.Second)
		l.add("after a pause", time.Now())
		next(t, f, &l, "after a pause")
		next(t, f, &l)
	})
}

func TestFollowerStartsInAnEmptyLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l log
		f := follow.New[string, string](time.Now)
		next(t, f, &l)
		l.add("first", time.Now().Add(-30*time.Minute)) // the server's clock is behind
		next(t, f, &l, "first")
		l.add("second", time.Now().Add(-30*time.Minute))
		next(t, f, &l, "second")
	})
}

func TestFollowerReadsOldRevocationsAgainOnlyWhileWritesCanBeLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l log
		f := follow.New[string, string](time.Now)
		l.add("first", time.Now())
		next(t, f, &l, "first")
		for range 4 {
			next(t, f, &l)
			time.Sleep(4 * time.Second)
		}
		if want := []string{"last", "10s", "6s", "2s", "0s"}; !slices.Equal(l.reads, want) {
			t.Errorf("the calls read from %q before the latest revocation, want %q", l.reads, want)
		}
	})
}

func TestFollowerGoesOnWhenTheServersClockIsSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l log
		f := follow.New[string, string](time.Now)
		l.add("ahead", time.Now().Add(50*time.Minute))
		next(t, f, &l, "ahead")
		time.Sleep(time.Minute)
		l.add("right again", time.Now())
		next(t, f, &l, "right again")
	})
}

func TestFollowerDoesNotTrustATimeFarInTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l log
		f := follow.New[string, string](time.Now)
		next(t, f, &l)
		l.add("a wrong year", time.Now().AddDate(100, 0, 0))
		next(t, f, &l, "a wrong year")
		time.Sleep(time.Minute)
		l.add("now", time.Now())
		next(t, f, &l, "now")
		next(t, f, &l)
	})
}

func TestFollowerReportsUnreadableRowsOnceAndLosesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l log
		f := follow.New[string, string](time.Now)
		broken := errors.New("it is broken")
		l.rows = append(l.rows, follow.Row[string, string]{Key: "at the beginning", At: time.Now(), Err: broken})
		next(t, f, &l)
		l.add("before", time.Now())
		l.rows = append(l.rows, follow.Row[string, string]{Key: "later", At: time.Now(), Err: broken})
		l.add("behind", time.Now())
		if got, err := f.Next(l.read); !errors.Is(err, broken) || len(got) > 0 {
			t.Errorf("Next returned %q and the error %v, want the row's error", got, err)
		}
		next(t, f, &l, "before", "behind")
		l.err = errors.New("the database does not answer")
		if got, err := f.Next(l.read); !errors.Is(err, l.err) || len(got) > 0 {
			t.Errorf("Next returned %q and the error %v, want that of read", got, err)
		}
		l.err = nil
		l.add("after the failure", time.Now())
		next(t, f, &l, "after the failure")
	})
}

func Example() {
	rows := []follow.Row[int, string]{{Key: 1, At: time.Now(), Revocation: "the session of Ann"}}
	follower := follow.New[int, string](time.Now)
	for range 2 {
		revocations, err := follower.Next(func(time.Time, bool) ([]follow.Row[int, string], error) { return rows, nil })
		fmt.Println(revocations, err)
	}
	// Output:
	// [the session of Ann] <nil>
	// [] <nil>
}
