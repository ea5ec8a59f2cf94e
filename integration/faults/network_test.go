package faults_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/rs/zerolog"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"

	"github.com/latchkey-go/latchkey/strategy"
)

// network is a way to the server that can be made to fail.
type network struct {
	tb    testing.TB
	rng   *rand.Rand
	proxy *toxiproxy.Proxy
	stop  func() // ends what goes on while a fault lasts
}

func newNetwork(tb testing.TB, rng *rand.Rand) *network {
	tb.Helper()
	n := &network{tb: tb, rng: rng}
	n.lay("127.0.0.1:0")
	return n
}

// renew cuts all connections, and leaves nothing of the faults so far. Links of
// toxiproxy v2.5.0 can keep stubs of toxics that were removed while they closed, and
// then the next toxic panics.
func (n *network) renew() {
	n.tb.Helper()
	n.proxy.Stop()
	n.lay(n.proxy.Listen)
}

func (n *network) lay(listen string) {
	n.tb.Helper()
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	n.proxy = toxiproxy.NewProxy(api, "database", listen, options.Client().ApplyURI(server.URI).Hosts[0])
	n.up()
}

func (n *network) up() {
	n.tb.Helper()
	if err := n.proxy.Start(); err != nil {
		n.tb.Fatal(err)
	}
}

func (n *network) add(toxic string, args ...any) {
	n.tb.Helper()
	if _, err := n.proxy.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(toxic, args...))); err != nil {
		n.tb.Fatal(err)
	}
}

// clear ends every fault.
func (n *network) clear() {
	if n.stop != nil {
		n.stop()
		n.stop = nil
	}
	n.proxy.Toxics.ResetToxics(context.Background())
}

// again does something once an interval until the fault ends.
func (n *network) again(interval time.Duration, do func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() {
		for ctx.Err() == nil {
			do()
			select {
			case <-ctx.Done():
			case <-time.After(interval):
			}
		}
	})
	n.stop = func() {
		cancel()
		ended.Wait()
	}
}

// stall holds what is sent until the fault ends; then it arrives.
type stall struct{}

func (*stall) Pipe(stub *toxics.ToxicStub) { <-stub.Interrupt }

// blackHole swallows what is sent. Unlike toxiproxy's timeout, it does not close the
// connection in the end either: neither side is ever told.
type blackHole struct{}

func (*blackHole) Pipe(stub *toxics.ToxicStub) {
	for {
		select {
		case <-stub.Interrupt:
			return
		case chunk := <-stub.Input:
			if chunk == nil {
				stub.Close()
				return
			}
		}
	}
}

func init() {
	toxics.Register("stall", new(stall))
	toxics.Register("black_hole", new(blackHole))
}

// fault is a way in which a network fails.
type fault struct {
	name  string
	begin func(*network)
	// dark faults let nothing through. The others let something.
	dark bool
	// lasts is 0 for a while.
	lasts time.Duration
}

var faults = []fault{
	{"connections are cut", func(n *network) {
		n.again(700*time.Millisecond, func() {
			n.proxy.Stop()
			n.up()
		})
	}, false, 0},
	{"connections are refused", func(n *network) {
		n.proxy.Stop()
		n.stop = n.up
	}, true, 0},
	{"everything stalls", func(n *network) {
		n.add(`{"type": "stall", "stream": "upstream"}`)
		n.add(`{"type": "stall", "stream": "downstream"}`)
	}, true, guardBound + time.Second}, // for what would hang to be seen to
	{"latency with jitter", func(n *network) {
		n.add(`{"type": "latency", "stream": "upstream", "attributes": {"latency": 60, "jitter": 60}}`)
		n.add(`{"type": "latency", "stream": "downstream", "attributes": {"latency": 60, "jitter": 60}}`)
	}, false, 0},
	{"answers come too late", func(n *network) {
		n.add(`{"type": "latency", "stream": "downstream", "attributes": {"latency": %d}}`, 2*callTimeout.Milliseconds())
	}, true, 0},
	{"connections break off and close slowly", func(n *network) {
		n.add(`{"type": "limit_data", "stream": "downstream", "attributes": {"bytes": %d}}`, 2000+n.rng.IntN(4000))
		n.add(`{"type": "slow_close", "stream": "downstream", "attributes": {"delay": 400}}`)
	}, false, 0},
	{"connections are reset in the middle of an answer", func(n *network) {
		n.add(`{"type": "limit_data", "stream": "downstream", "attributes": {"bytes": %d}}`, 2000+n.rng.IntN(4000))
		// Of no toxicity: it is there for what its presence does to the sockets, which
		// then send a reset when they are closed.
		n.add(`{"type": "reset_peer", "stream": "downstream", "toxicity": 0}`)
	}, false, 0},
	{"half open: requests are lost", func(n *network) {
		n.add(`{"type": "black_hole", "stream": "upstream"}`)
	}, true, 0},
	{"half open: answers are lost", func(n *network) {
		n.add(`{"type": "black_hole", "stream": "downstream"}`)
	}, true, 0},
}

func TestNetwork(t *testing.T) {
	rng := rand.New(rand.NewPCG(*seed, 1))
	var before int64
	if *soak == 0 {
		for i, f := range faults {
			t.Run(f.name, func(t *testing.T) { trouble(t, rng, f) })
			if i == 0 {
				before = heapInUse()
			}
		}
	}
	for i, end := 0, time.Now().Add(*soak); time.Now().Before(end) && !t.Failed(); i++ {
		var several []fault
		for range 1 + rng.IntN(3) {
			several = append(several, faults[rng.IntN(len(faults))])
		}
		t.Run(fmt.Sprintf("%d", i), func(t *testing.T) { trouble(t, rng, several...) })
		if i == 0 {
			before = heapInUse()
		}
	}
	const most = 16 << 20
	if grown := heapInUse() - before; grown > most {
		t.Errorf("after all that, %d bytes more are in use, want at most %d", grown, most)
	} else {
		t.Logf("after all that, %d KiB more are in use", grown>>10)
	}
}

// trouble starts two instances, one of them with a cache, behind one network; lets it
// fail, in one way after another, while clients use both; and wants everything to be
// well afterwards, and nothing to be left behind.
func trouble(t *testing.T, rng *rand.Rand, several ...fault) {
	db := newDatabase(t) // its client lives until the end
	if err := db.Client().Ping(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	quiet := goleak.IgnoreCurrent()
	n := newNetwork(t, rng)
	var apps []*application
	for _, cache := range []strategy.Cache{{}, {MaxStaleness: 250 * time.Millisecond}} {
		apps = append(apps, newAppOn(t, db.Name(), appConfig{
			way: n.proxy.Listen, sessions: strategy.Config{Lifetime: time.Hour, Cache: cache},
		}))
	}
	clients := newTraffic(apps, 8, 24)
	apps[0].mustRegister(t, clients.names...)

	stop := clients.background(t.Context(), rng.Uint64())
	time.Sleep(300 * time.Millisecond)
	for i, f := range several {
		if i > 0 {
			n.renew()
		}
		before := clients.count(doGuarded, http.StatusOK)
		var known []*holding // to the cache, which lets their log-outs begin
		for range 3 {
			if h, _ := clients.login(apps[1], clients.names[0]); h != nil {
				clients.guarded(apps[1], h)
				known = append(known, h)
			}
		}
		f.begin(n)
		end := time.Now().Add(max(1300*time.Millisecond, f.lasts))
		if f.dark {
			clients.dark.Store(time.Now().UnixNano())
		}
		var leaving sync.WaitGroup
		for _, h := range known {
			leaving.Go(func() { clients.logout(apps[1], h) })
		}
		leaving.Wait()
		time.Sleep(time.Until(end))
		clients.dark.Store(0)
		if got := clients.count(doGuarded, http.StatusOK); !f.dark && got == before {
			t.Errorf("%s: no guarded request got through, want some", f.name)
		}
		n.clear()
		took, err := clients.works(recoveryBound)
		if err != nil {
			t.Errorf("%s: %v", f.name, err)
			break
		}
		t.Logf("%s: everything worked again after %v", f.name, took.Round(time.Millisecond))
	}
	stop()
	clients.settle()
	clients.report(t)
	t.Log(clients)

	for _, a := range apps {
		eventuallyTrue(t, recoveryBound, "every connection is given back", func() bool { return a.pool.out.Load() == 0 })
		a.close()
		eventuallyTrue(t, recoveryBound, "every connection is closed", func() bool { return a.pool.open.Load() == 0 })
	}
	n.proxy.Stop()
	// What toxiproxy's own goroutines wait for is not ours.
	eventuallyTrue(t, recoveryBound, "no goroutine is left", func() bool {
		return goleak.Find(quiet, goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
			goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).write"),
			goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run")) == nil
	})
	if err := goleak.Find(quiet); err != nil && t.Failed() {
		t.Log(err)
	}
}
