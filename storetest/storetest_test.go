package storetest_test

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/latchkey-go/latchkey/storetest"
)

// broken is one fault of a store, and the check that must fail because of it.
type broken[S any] struct {
	fault   string
	check   string
	breakIt func(S)
}

// mustCatch proves that a suite works: a store without a fault passes every check, each fault
// fails its check, and each check catches a fault. newStore returns a store without a fault;
// suite is the suite under test for the stores that open returns.
//
// Each suite runs in a synctest bubble, where time passes only while all goroutines wait. A
// broken store can thus pause between two steps until all concurrent calls have reached that
// point.
func mustCatch[S any](t *testing.T, newStore func(testing.TB) S, suite func(open func(testing.TB) S) storetest.Suite, faults []broken[S]) {
	t.Helper()
	unused := make(map[string]bool)
	synctest.Test(t, func(t *testing.T) {
		for name, err := range suite(newStore).Results(t) {
			unused[name] = true
			if err != nil {
				t.Errorf("store without a fault: check %q: got %v, want nil", name, err)
			}
		}
	})
	for _, f := range faults {
		t.Run(f.fault, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				results := suite(func(t testing.TB) S {
					s := newStore(t)
					f.breakIt(s)
					return s
				}).Results(t)
				switch err, ok := results[f.check]; {
				case !ok:
					t.Errorf("there is no check %q", f.check)
				case err == nil:
					t.Errorf("check %q: got nil, want an error", f.check)
				}
				for name, err := range results {
					if err != nil {
						t.Logf("caught by %q: %v", name, err)
						delete(unused, name)
					}
				}
			})
		})
	}
	for name := range unused {
		t.Errorf("the check %q catches no fault", name)
	}
}

// pause lets all concurrent calls reach a point like this one.
func pause() { time.Sleep(time.Millisecond) }

// unless returns err, or nil if err wraps ignored.
func unless(err, ignored error) error {
	if errors.Is(err, ignored) {
		return nil
	}
	return err
}

// passes runs a test in an example and reports whether it passes. It hides the test's output,
// which would be taken for the example's.
func passes(test func(*testing.T)) bool {
	stdout := os.Stdout
	defer func() { os.Stdout = stdout }()
	hidden, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	defer hidden.Close()
	os.Stdout = hidden
	matchAll := func(_, _ string) (bool, error) { return true, nil }
	return testing.RunTests(matchAll, []testing.InternalTest{{Name: "TestStore", F: test}})
}
