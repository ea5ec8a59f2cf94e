package expvarmetrics_test

import (
	"encoding/json"
	"expvar"
	"maps"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/latchkey-go/latchkey/contrib/expvarmetrics"
	"github.com/latchkey-go/latchkey/event"
)

// debugVars returns what /debug/vars shows under a name.
func debugVars(t *testing.T, name string) map[string]int64 {
	t.Helper()
	w := httptest.NewRecorder()
	expvar.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/debug/vars", nil))
	vars := make(map[string]json.RawMessage)
	if err := json.Unmarshal(w.Body.Bytes(), &vars); err != nil {
		t.Fatal(err)
	}
	var got map[string]int64
	if err := json.Unmarshal(vars[name], &got); err != nil {
		t.Fatalf("%s: got %s: %v", name, vars[name], err)
	}
	return got
}

// A name stays taken for as long as the process lives, so each run of -count needs
// another one.
var runs atomic.Int64

func unusedName(t *testing.T) string {
	return t.Name() + string(rune('a'+runs.Add(1)))
}

func TestEventsAreCountedByKindAndReason(t *testing.T) {
	name := unusedName(t)
	count, err := expvarmetrics.New(name)
	if err != nil {
		t.Fatal(err)
	}
	if got := debugVars(t, name); len(got) != 0 {
		t.Errorf("got %v before the first event, want none", got)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				count(t.Context(), event.Event{Kind: event.TokenIssued, UserID: "ann"})
				count(t.Context(), event.Event{Kind: event.TokenDenied, Reason: event.ReasonMalformed})
				count(t.Context(), event.Event{Kind: event.TokenDenied, Reason: event.ReasonUnknown})
				count(t.Context(), event.Event{Kind: event.TokenDenied, Reason: event.ReasonUnknown})
			}
		})
	}
	wg.Wait()
	want := map[string]int64{"token.issued": 800, "token.denied{reason=malformed}": 800, "token.denied{reason=unknown}": 1600}
	if got := debugVars(t, name); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestEmptyOrTakenNameIsAnError(t *testing.T) {
	if f, err := expvarmetrics.New(""); f != nil || err == nil {
		t.Errorf(`New(""): got a listener: %t, error: %v, want only an error`, f != nil, err)
	}
	if f, err := expvarmetrics.New("memstats"); f != nil || err == nil {
		t.Errorf("a name of expvar itself: got a listener: %t, error: %v, want only an error", f != nil, err)
	}
	name := unusedName(t)
	var wg sync.WaitGroup
	var got atomic.Int64
	for range 8 {
		wg.Go(func() {
			if f, err := expvarmetrics.New(name); (f == nil) != (err != nil) {
				t.Errorf("got a listener: %t, error: %v, want one of them", f != nil, err)
			} else if err == nil {
				got.Add(1)
			}
		})
	}
	wg.Wait()
	if got.Load() != 1 {
		t.Errorf("%d of 8 concurrent calls got the name, want 1", got.Load())
	}
}
