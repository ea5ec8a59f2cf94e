package memstore_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/storetest"
)

func newAttempts(tb testing.TB, most int) *memstore.Attempts {
	tb.Helper()
	attempts, err := memstore.NewAttempts(most)
	if err != nil {
		tb.Fatalf("NewAttempts: %v", err)
	}
	return attempts
}

func TestAttemptsSatisfyTheContract(t *testing.T) {
	storetest.RunAttempts(t, func(tb testing.TB) account.AttemptStore { return newAttempts(tb, 100) })
}

func TestNewAttemptsRejectsANegativeMaximum(t *testing.T) {
	if got, err := memstore.NewAttempts(-1); got != nil || err == nil || !strings.Contains(err.Error(), "-1") {
		t.Errorf("got %v, %v, want an error that names the number", got, err)
	}
}

// A flood of made-up names must not make the limiter forget an account under attack, or the
// known devices of an account.
func TestFullStoreEvictsCountersWithFewFailures(t *testing.T) {
	const most, failures = 50, 10
	attempts := newAttempts(t, most)
	now := time.Date(2026, 3, 29, 0, 0, 0, 0, time.UTC)
	expires := now.Add(time.Hour)
	add := func(key string) {
		t.Helper()
		if _, err := attempts.Add(t.Context(), key, now, expires, true); err != nil {
			t.Fatalf("Add: %v", err)
		}
	}
	for range failures {
		add("attacked")
	}
	if err := attempts.Remember(t.Context(), "known", now, expires); err != nil {
		t.Fatalf("Remember: %v", err)
	}
	var names []string
	for n := range 20 * most {
		names = append(names, fmt.Sprint("made up ", n))
		add(names[n])
	}
	found, err := attempts.Counters(t.Context(), now, append(names, "attacked", "known")...)
	if err != nil {
		t.Fatalf("Counters: %v", err)
	}
	kept := 0
	for _, c := range found {
		if !c.Last.IsZero() {
			kept++
		}
	}
	attacked, known := found[len(names)], found[len(names)+1]
	if kept != most || attacked.Failures != failures || known.Last.IsZero() {
		t.Errorf("kept %d counters, %d failures and the device: %v, want %d, %d and true",
			kept, attacked.Failures, !known.Last.IsZero(), most, failures)
	}
}
