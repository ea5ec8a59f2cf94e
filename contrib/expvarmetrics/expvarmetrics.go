// Package expvarmetrics counts Latchkey's events in an expvar.Map, which /debug/vars
// shows as one object:
//
//	"latchkey": {
//	  "login.denied{reason=too_many}": 3,
//	  "login.denied{reason=wrong_password}": 12,
//	  "login.succeeded": 40,
//	  "token.issued": 40
//	}
//
// Every event counts in exactly one number, so sums are right. A number appears with
// its first event.
//
// Importing expvar adds /debug/vars to http.DefaultServeMux, which also shows the
// command line. That is why this is a package of its own: an application that serves
// DefaultServeMux should choose it.
package expvarmetrics

import (
	"context"
	"errors"
	"expvar"
	"fmt"
	"sync"

	"github.com/latchkey-go/latchkey/event"
)

// publishing makes the check for the name and its publication one step, because
// expvar panics where a name is taken.
var publishing sync.Mutex

// New publishes a map under a name, for example "latchkey", and returns a function
// for the OnEvent field of a Config, which counts every event in the map. The function
// is safe for concurrent use; one serves all OnEvent fields. To log events too, use
// [event.Join].
//
// New returns an error where the name is empty or taken. expvar keeps a name for as
// long as the process lives.
func New(name string) (func(context.Context, event.Event), error) {
	if name == "" {
		return nil, errors.New("expvarmetrics: the name is empty")
	}
	publishing.Lock()
	defer publishing.Unlock()
	if expvar.Get(name) != nil {
		return nil, fmt.Errorf("expvarmetrics: the name %q is taken", name)
	}
	counts := expvar.NewMap(name)
	return func(_ context.Context, e event.Event) {
		key := string(e.Kind)
		if e.Reason != "" {
			key += "{reason=" + string(e.Reason) + "}"
		}
		counts.Add(key, 1)
	}, nil
}
