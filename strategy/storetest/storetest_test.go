package storetest_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// broken is a good store with one fault: whatever it fails, it fails because of
// the fault.
type broken[S any] struct {
	fault   string
	caught  string // the check that must fail
	breakIt func(S)
}

// mustCatch fails where a store without a fault fails a check, where a broken
// one passes the check that is there for its fault, and where a check catches
// none of them. results runs all checks on stores with a fault.
//
// The checks run in a bubble, where time passes when all goroutines wait: a
// fault that needs several calls under way pauses there, and is certain.
func mustCatch[S any](t *testing.T, results func(t *testing.T, breakIt func(S)) map[string]error, stores []broken[S]) {
	t.Helper()
	idle := make(map[string]bool)
	synctest.Test(t, func(t *testing.T) {
		for name, err := range results(t, func(S) {}) {
			idle[name] = true
			if err != nil {
				t.Errorf("a good store: %s: got %v, want nil", name, err)
			}
		}
	})
	for _, s := range stores {
		t.Run(s.fault, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := results(t, s.breakIt)
				if err, ok := got[s.caught]; !ok || err == nil {
					t.Errorf("the check %q: got %v (there is one: %v), want a failure", s.caught, err, ok)
				}
				for name, err := range got {
					if err != nil {
						t.Logf("caught by %q: %v", name, err)
						delete(idle, name)
					}
				}
			})
		})
	}
	for name := range idle {
		t.Errorf("the check %q catches no broken store", name)
	}
}

// pause lets every call that is under way come to a point like this one.
func pause() { time.Sleep(time.Millisecond) }

// unless returns err, but nil for one error.
func unless(err, ignored error) error {
	if errors.Is(err, ignored) {
		return nil
	}
	return err
}
