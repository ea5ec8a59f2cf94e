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
	"go.uber.org/goleak"

	"github.com/latchkey-go/latchkey/strategy"
)

// network is a proxy in front of the server that can fail.
type network struct {
	tb    testing.TB
	to    string // the server's address
	rng   *rand.Rand
	proxy *toxiproxy.Proxy
	stop  func() // ends the current fault, or nil
}

func newNetwork(tb testing.TB, to string, rng *rand.Rand) *network {
	tb.Helper()
	n := &network{tb: tb, to: to, rng: rng}
	n.open("127.0.0.1:0")
	return n
}

// renew cuts all connections and replaces the proxy. In toxiproxy v2.5.0, a link that closes
// while a toxic is removed can keep the toxic's stub, and the next toxic then panics.
func (n *network) renew() {
	n.tb.Helper()
	n.proxy.Stop()
	n.open(n.proxy.Listen)
}

func (n *network) open(listen string) {
	n.tb.Helper()
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	n.proxy = toxiproxy.NewProxy(api, "database", listen, n.to)
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

// repeat calls do once an interval until the fault ends.
func (n *network) repeat(interval time.Duration, do func()) {
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

// stall holds all data until the fault ends, and then delivers it.
type stall struct{}

func (*stall) Pipe(stub *toxics.ToxicStub) { <-stub.Interrupt }

// blackHole drops all data. Unlike toxiproxy's timeout, it does not close the connection in
// the end, so neither side notices.
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

// fault is a failure of a network.
type fault struct {
	name  string
	begin func(*network)
	// dark is set if nothing gets through. Else some requests do.
	dark bool
	// atLeast is the minimum duration. Default 1.3 seconds.
	atLeast time.Duration
}

var faults = []fault{
	{"connections are cut", func(n *network) {
		n.repeat(700*time.Millisecond, func() {
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
	}, true, guardBound + time.Second}, // long enough to notice a request that hangs
	{"latency with jitter", func(n *network) {
		n.add(`{"type": "latency", "stream": "upstream", "attributes": {"latency": 60, "jitter": 60}}`)
		n.add(`{"type": "latency", "stream": "downstream", "attributes": {"latency": 60, "jitter": 60}}`)
	}, false, 0},
	{"answers come too late", func(n *network) {
		n.add(`{"type": "latency", "stream": "downstream", "attributes": {"latency": %d}}`, 2*callTimeout.Milliseconds())
	}, true, 0},
	{"connections break and close slowly", func(n *network) {
		n.add(`{"type": "limit_data", "stream": "downstream", "attributes": {"bytes": %d}}`, 2000+n.rng.IntN(4000))
		n.add(`{"type": "slow_close", "stream": "downstream", "attributes": {"delay": 400}}`)
	}, false, 0},
	{"connections are reset in the middle of an answer", func(n *network) {
		n.add(`{"type": "limit_data", "stream": "downstream", "attributes": {"bytes": %d}}`, 2000+n.rng.IntN(4000))
		// With a toxicity of 0 it affects no data, but the sockets send a reset when they
		// close.
		n.add(`{"type": "reset_peer", "stream": "downstream", "toxicity": 0}`)
	}, false, 0},
	{"half open: requests are lost", func(n *network) {
		n.add(`{"type": "black_hole", "stream": "upstream"}`)
	}, true, 0},
	{"half open: answers are lost", func(n *network) {
		n.add(`{"type": "black_hole", "stream": "downstream"}`)
	}, true, 0},
}

func TestNetworkFaults(t *testing.T) { onEachServer(t, testNetworkFaults) }

func testNetworkFaults(t *testing.T, on backend) {
	rng := rand.New(rand.NewPCG(*seed, 1))
	var before int64
	if *soak == 0 {
		for i, f := range faults {
			t.Run(f.name, func(t *testing.T) { runFaults(t, on, rng, f) })
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
		t.Run(fmt.Sprintf("round %d", i), func(t *testing.T) { runFaults(t, on, rng, several...) })
		if i == 0 {
			before = heapInUse()
		}
	}
	const most = 16 << 20
	if grown := heapInUse() - before; grown > most {
		t.Errorf("the heap grew by %d bytes, want at most %d", grown, most)
	} else {
		t.Logf("the heap grew by %d KiB", grown>>10)
	}
}

// runFaults starts two instances, one of them with a cache, behind one network. The network
// has one fault after another while clients use both instances. Afterwards everything must
// work, and no connection or goroutine may be left.
func runFaults(t *testing.T, on backend, rng *rand.Rand, several ...fault) {
	database := on.newDatabase(t) // before IgnoreCurrent: its client lives until the end
	before := goleak.IgnoreCurrent()
	n := newNetwork(t, on.address(), rng)
	var rigs []*rig
	for _, cache := range []strategy.Cache{{}, {MaxStaleness: 250 * time.Millisecond}} {
		rigs = append(rigs, newRig(t, database, rigConfig{
			on: on, way: n.proxy.Listen, sessions: strategy.Config{Lifetime: time.Hour, Cache: cache},
		}))
	}
	clients := newTraffic(rigs, 8, 24)
	rigs[0].mustRegister(t, clients.emails...)

	stop := clients.background(t.Context(), rng.Uint64())
	time.Sleep(300 * time.Millisecond)
	for i, f := range several {
		if i > 0 {
			n.renew()
		}
		accepted := clients.count(doGuarded, http.StatusOK)
		var cached []*holding // their log-outs begin without the database
		for range 3 {
			if h, _ := clients.login(rigs[1], clients.emails[0]); h != nil {
				clients.guarded(rigs[1], h)
				cached = append(cached, h)
			}
		}
		f.begin(n)
		end := time.Now().Add(max(1300*time.Millisecond, f.atLeast))
		if f.dark {
			clients.dark.Store(time.Now().UnixNano())
		}
		var logouts sync.WaitGroup
		for _, h := range cached {
			logouts.Go(func() { clients.logout(rigs[1], h) })
		}
		logouts.Wait()
		time.Sleep(time.Until(end))
		clients.dark.Store(0)
		if got := clients.count(doGuarded, http.StatusOK); !f.dark && got == accepted {
			t.Errorf("%s: no guarded request was accepted, want some", f.name)
		}
		n.clear()
		took, err := clients.awaitRecovery(recoveryBound)
		if err != nil {
			t.Errorf("%s: %v", f.name, err)
			break
		}
		t.Logf("%s: recovered after %v", f.name, took.Round(time.Millisecond))
	}
	stop()
	clients.settle()
	clients.report(t)
	t.Log(clients)

	for _, r := range rigs {
		eventuallyTrue(t, recoveryBound, "every connection is checked in", func() bool {
			_, out := r.connections()
			return out == 0
		})
		r.close()
		eventuallyTrue(t, recoveryBound, "every connection is closed", func() bool {
			open, _ := r.connections()
			return open == 0
		})
	}
	n.proxy.Stop()
	// Goroutines of toxiproxy can outlive the proxy.
	eventuallyTrue(t, recoveryBound, "no goroutine is left", func() bool {
		return goleak.Find(before, goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
			goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).write"),
			goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run")) == nil
	})
	if err := goleak.Find(before); err != nil && t.Failed() {
		t.Log(err)
	}
}
