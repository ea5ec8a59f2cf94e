// Package ttlproxy emulates TTL indexes for a server that has none. It is a proxy in front of the
// server: it removes expireAfterSeconds from createIndexes, adds it to the answer of listIndexes,
// lets collMod change it, and deletes expired documents once a second. With it, the tests that
// need TTL indexes run without a MongoDB.
package ttlproxy

import (
	"context"
	"net"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/integration/internal/wireproxy"
)

// Proxy is a running proxy.
type Proxy struct {
	wire   *wireproxy.Proxy
	client *mongo.Client
	stop   context.CancelFunc
	ended  sync.WaitGroup

	mu  sync.Mutex
	ttl map[namespace]map[string]index // by the name of the index
}

// namespace is a collection of a database.
type namespace struct{ db, coll string }

// index is a TTL index.
type index struct {
	field   string
	seconds int64
}

// Start serves the connections of a listener, in front of the server at the address backend. It
// owns the listener.
func Start(listener net.Listener, backend string) (*Proxy, error) {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://" + backend).SetDirect(true))
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &Proxy{client: client, stop: stop, ttl: make(map[namespace]map[string]index)}
	p.wire = wireproxy.Start(listener, backend, p.handle)
	p.ended.Go(func() { p.monitor(ctx) })
	return p, nil
}

// Close ends the proxy and its monitor.
func (p *Proxy) Close() {
	p.stop()
	p.ended.Wait()
	p.wire.Close()
	_ = p.client.Disconnect(context.Background())
}

// monitor deletes expired documents once a second, until ctx ends.
func (p *Proxy) monitor(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.mu.Lock()
		type job struct {
			namespace
			index
		}
		var jobs []job
		for ns, indexes := range p.ttl {
			for _, x := range indexes {
				jobs = append(jobs, job{ns, x})
			}
		}
		p.mu.Unlock()
		for _, j := range jobs {
			old := time.Now().Add(-time.Duration(j.seconds) * time.Second)
			_, _ = p.client.Database(j.db).Collection(j.coll).DeleteMany(ctx, bson.D{{Key: j.field, Value: bson.D{{Key: "$lt", Value: old}}}})
		}
	}
}

func (p *Proxy) handle(request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
	var command bson.D
	name := request.Command()
	switch name {
	case "createIndexes", "listIndexes", "collMod", "dropIndexes", "drop", "dropDatabase":
		if err := bson.Unmarshal(request.Body(), &command); err != nil {
			return nil, err
		}
	default:
		return send(request)
	}
	db, _ := get(command, "$db").(string)
	coll, _ := get(command, name).(string)
	ns := namespace{db, coll}
	switch name {
	case "createIndexes":
		return p.create(ns, command, request, send)
	case "listIndexes":
		return p.list(ns, request, send)
	case "collMod":
		return p.change(ns, command, request, send)
	}
	reply, err := send(request)
	if err == nil && get(document(reply), "ok") == 1.0 {
		p.forget(name, ns, command)
	}
	return reply, err
}

// create creates plain indexes instead of TTL indexes, and keeps their expireAfterSeconds.
func (p *Proxy) create(ns namespace, command bson.D, request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	made := make(map[string]index)
	specs, _ := get(command, "indexes").(bson.A)
	for i, spec := range specs {
		spec, _ := spec.(bson.D)
		name, _ := get(spec, "name").(string)
		keys, _ := get(spec, "key").(bson.D)
		var plain bson.D
		seconds := int64(-1)
		for _, e := range spec {
			if e.Key == "expireAfterSeconds" {
				seconds = number(e.Value)
				continue
			}
			plain = append(plain, e)
		}
		if old, ok := p.ttl[ns][name]; ok && old.seconds != seconds {
			return p.refuse(85, "IndexOptionsConflict", "an index with other options exists", request, send)
		}
		if seconds >= 0 {
			made[name] = index{keys[0].Key, seconds}
		}
		specs[i] = plain
	}
	changed, err := request.WithBody(command)
	if err != nil {
		return nil, err
	}
	reply, err := send(changed)
	if err == nil && get(document(reply), "ok") == 1.0 {
		for name, x := range made {
			if p.ttl[ns] == nil {
				p.ttl[ns] = make(map[string]index)
			}
			p.ttl[ns][name] = x
		}
	}
	return reply, err
}

// list adds expireAfterSeconds to the server's answer.
func (p *Proxy) list(ns namespace, request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	reply, err := send(request)
	if err != nil {
		return nil, err
	}
	doc := document(reply)
	cursor, _ := get(doc, "cursor").(bson.D)
	batch, _ := get(cursor, "firstBatch").(bson.A)
	for i, spec := range batch {
		spec, _ := spec.(bson.D)
		name, _ := get(spec, "name").(string)
		if x, ok := p.ttl[ns][name]; ok {
			batch[i] = append(spec, bson.E{Key: "expireAfterSeconds", Value: int32(x.seconds)})
		}
	}
	return reply.WithBody(doc)
}

// change answers collMod of an index's expireAfterSeconds. Like DocumentDB, and unlike MongoDB
// since 5.1, it refuses to turn a plain index into a TTL index.
func (p *Proxy) change(ns namespace, command bson.D, request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	spec, _ := get(command, "index").(bson.D)
	name, _ := get(spec, "name").(string)
	x, ok := p.ttl[ns][name]
	if !ok {
		return p.refuse(72, "InvalidOptions", "no expireAfterSeconds field to update", request, send)
	}
	x.seconds = number(get(spec, "expireAfterSeconds"))
	p.ttl[ns][name] = x
	return wireproxy.Instead(bson.D{{Key: "ok", Value: 1.0}}, request, send)
}

// forget removes the TTL indexes that a command dropped.
func (p *Proxy) forget(command string, ns namespace, doc bson.D) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch command {
	case "dropIndexes":
		name, _ := get(doc, "index").(string)
		delete(p.ttl[ns], name)
	case "drop":
		delete(p.ttl, ns)
	case "dropDatabase":
		for other := range p.ttl {
			if other.db == ns.db {
				delete(p.ttl, other)
			}
		}
	}
}

// refuse answers a request with an error.
func (p *Proxy) refuse(code int32, name, text string, request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
	return wireproxy.Instead(bson.D{{Key: "ok", Value: 0.0}, {Key: "errmsg", Value: text}, {Key: "code", Value: code}, {Key: "codeName", Value: name}}, request, send)
}

func document(m wireproxy.Message) (doc bson.D) {
	_ = bson.Unmarshal(m.Body(), &doc)
	return doc
}

func get(doc bson.D, key string) any {
	for _, e := range doc {
		if e.Key == key {
			return e.Value
		}
	}
	return nil
}

// number returns a BSON number, -1 for other values.
func number(v any) int64 {
	switch n := v.(type) {
	case int32:
		return int64(n)
	case int64:
		return n
	case float64:
		return int64(n)
	}
	return -1
}
