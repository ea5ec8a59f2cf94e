package expvarmetrics_test

import (
	"encoding/json"
	"expvar"
	"maps"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/latchkey-go/latchkey/expvarmetrics"
	"github.com/latchkey-go/latchkey/strategy"
)

// shown returns what /debug/vars shows under a name.
func shown(t *testing.T, name string) map[string]int64 {
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

// A name is taken for as long as the process lives: with -count, each run needs
// another.
var runs atomic.Int64

func unusedName(t *testing.T) string {
	return t.Name() + string(rune('a'+runs.Add(1)))
}

func TestEveryEventIsInOneNumber(t *testing.T) {
	name := unusedName(t)
	counter, err := expvarmetrics.New(name)
	if err != nil {
		t.Fatal(err)
	}
	if got := shown(t, name); len(got) != 0 {
		t.Errorf("got %v before the first event, want none", got)
	}
	count := strategy.CountEvents(counter)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				count(t.Context(), strategy.Event{Kind: strategy.EventTokenIssued, UserID: "ann"})
				count(t.Context(), strategy.Event{Kind: strategy.EventTokenDenied, Reason: strategy.ReasonMalformed})
				count(t.Context(), strategy.Event{Kind: strategy.EventTokenDenied, Reason: strategy.ReasonUnknown})
				count(t.Context(), strategy.Event{Kind: strategy.EventTokenDenied, Reason: strategy.ReasonUnknown})
			}
		})
	}
	wg.Wait()
	want := map[string]int64{"token.issued": 800, "token.denied{reason=malformed}": 800, "token.denied{reason=unknown}": 1600}
	if got := shown(t, name); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestANameThatCannotBeHadIsAnError(t *testing.T) {
	if c, err := expvarmetrics.New(""); c != nil || err == nil {
		t.Errorf(`New(""): got %v, %v, want an error alone`, c, err)
	}
	if c, err := expvarmetrics.New("memstats"); c != nil || err == nil {
		t.Errorf("a name of expvar itself: got %v, %v, want an error alone", c, err)
	}
	name := unusedName(t)
	var wg sync.WaitGroup
	var got atomic.Int64
	for range 8 {
		wg.Go(func() {
			if c, err := expvarmetrics.New(name); (c == nil) != (err != nil) {
				t.Errorf("got %v, %v, want one of them", c, err)
			} else if err == nil {
				got.Add(1)
			}
		})
	}
	wg.Wait()
	if got.Load() != 1 {
		t.Errorf("%d of 8 at once got the name, want one", got.Load())
	}
}
