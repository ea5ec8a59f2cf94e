// Package expvarmetrics counts Latchkey's events in an expvar.Map, which
// /debug/vars shows as one object of numbers:
//
//	"latchkey": {
//	  "login.denied{reason=too_many}": 3,
//	  "login.denied{reason=wrong_password}": 12,
//	  "login.succeeded": 40,
//	  "token.issued": 40
//	}
//
// Every event is in exactly one of them: sums are right. What has not happened yet
// is not there.
//
// It is a package of its own because importing expvar adds /debug/vars, which
// shows the command line too, to http.DefaultServeMux: a program that serves that
// should choose it.
package expvarmetrics

import (
	"errors"
	"expvar"
	"fmt"
	"sync"

	"github.com/latchkey-go/latchkey/strategy"
)

// Counter is a strategy.EventCounter. Make one with [New], and give
// strategy.CountEvents of it to all OnEvent fields. It is safe for concurrent use.
type Counter struct {
	vars *expvar.Map
}

var _ strategy.EventCounter = (*Counter)(nil)

// publishing makes the look and the publishing one: expvar panics where a name is
// taken.
var publishing sync.Mutex

// New publishes a map under a name, for example "latchkey", and returns the
// Counter that counts in it. It returns an error where the name is empty or taken;
// expvar forgets no name as long as the process lives.
func New(name string) (*Counter, error) {
	if name == "" {
		return nil, errors.New("expvarmetrics: the name is empty")
	}
	publishing.Lock()
	defer publishing.Unlock()
	if expvar.Get(name) != nil {
		return nil, fmt.Errorf("expvarmetrics: the name %q is taken", name)
	}
	return &Counter{expvar.NewMap(name)}, nil
}

// CountEvent implements strategy.EventCounter.
func (c *Counter) CountEvent(kind strategy.EventKind, reason strategy.Reason) {
	key := string(kind)
	if reason != "" {
		key += "{reason=" + string(reason) + "}"
	}
	c.vars.Add(key, 1)
}
