// Package ttlproxy gives a server that has no TTL indexes and no $lookup the look of one that has: it stands before it,
// takes expireAfterSeconds out of createIndexes, shows it in listIndexes, lets collMod change it, and deletes what has
// expired once a second; and it answers the aggregate that reads a token with its user from two finds. So the suites'
// parts that a real MongoDB would run run without one too.
package ttlproxy

import (
	"context"
	"net"
	"slices"
	"strings"
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
	ttl map[place]map[string]index // by the indexes' names
}

// place is a collection.
type place struct{ db, coll string }

type index struct {
	field   string
	seconds int64
}

// Start serves a listener, which it takes over, with a server's address behind it.
func Start(listener net.Listener, backend string) (*Proxy, error) {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://" + backend).SetDirect(true))
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &Proxy{client: client, stop: stop, ttl: make(map[place]map[string]index)}
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

// monitor is the TTL monitor.
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
			place
			index
		}
		var jobs []job
		for at, indexes := range p.ttl {
			for _, x := range indexes {
				jobs = append(jobs, job{at, x})
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
	case "aggregate", "createIndexes", "listIndexes", "collMod", "dropIndexes", "drop", "dropDatabase":
		if err := bson.Unmarshal(request.Body(), &command); err != nil {
			return nil, err
		}
	default:
		return send(request)
	}
	db, _ := get(command, "$db").(string)
	coll, _ := get(command, name).(string)
	at := place{db, coll}
	switch name {
	case "aggregate":
		return join(coll, command, request, send)
	case "createIndexes":
		return p.create(at, command, request, send)
	case "listIndexes":
		return p.list(at, request, send)
	case "collMod":
		return p.change(at, command, request, send)
	}
	reply, err := send(request)
	if err == nil && get(document(reply), "ok") == 1.0 {
		p.forget(name, at, command)
	}
	return reply, err
}

// create makes a plain index of a TTL one, and remembers the difference.
func (p *Proxy) create(at place, command bson.D, request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
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
		if old, ok := p.ttl[at][name]; ok && old.seconds != seconds {
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
			if p.ttl[at] == nil {
				p.ttl[at] = make(map[string]index)
			}
			p.ttl[at][name] = x
		}
	}
	return reply, err
}

// list adds expireAfterSeconds to what the server says.
func (p *Proxy) list(at place, request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
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
		if x, ok := p.ttl[at][name]; ok {
			batch[i] = append(spec, bson.E{Key: "expireAfterSeconds", Value: int32(x.seconds)})
		}
	}
	return reply.WithBody(doc)
}

// change is collMod of an index's expireAfterSeconds. As DocumentDB, and other than MongoDB since 5.1, it makes no TTL
// index of a plain one.
func (p *Proxy) change(at place, command bson.D, request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	spec, _ := get(command, "index").(bson.D)
	name, _ := get(spec, "name").(string)
	x, ok := p.ttl[at][name]
	if !ok {
		return p.refuse(72, "InvalidOptions", "no expireAfterSeconds field to update", request, send)
	}
	x.seconds = number(get(spec, "expireAfterSeconds"))
	p.ttl[at][name] = x
	return wireproxy.Instead(bson.D{{Key: "ok", Value: 1.0}}, request, send)
}

func (p *Proxy) forget(command string, at place, doc bson.D) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch command {
	case "dropIndexes":
		name, _ := get(doc, "index").(string)
		delete(p.ttl[at], name)
	case "drop":
		delete(p.ttl, at)
	case "dropDatabase":
		for other := range p.ttl {
			if other.db == at.db {
				delete(p.ttl, other)
			}
		}
	}
}

// join answers an aggregate of $match and $lookup by equality from a find of each. It passes on any other.
func join(coll string, command bson.D, request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
	pipeline, _ := get(command, "pipeline").(bson.A)
	if coll == "" || len(pipeline) != 2 {
		return send(request)
	}
	match, first := stage(pipeline[0], "$match")
	lookup, second := stage(pipeline[1], "$lookup")
	from, _ := get(lookup, "from").(string)
	local, _ := get(lookup, "localField").(string)
	foreign, _ := get(lookup, "foreignField").(string)
	as, _ := get(lookup, "as").(string)
	if !first || !second || len(lookup) != 4 || from == "" || local == "" || foreign == "" || as == "" || strings.Contains(local+as, ".") {
		return send(request)
	}
	find := func(coll string, filter bson.D) (reply wireproxy.Message, answer bson.D, found bson.A, err error) {
		body := bson.D{{Key: "find", Value: coll}, {Key: "filter", Value: filter}, {Key: "batchSize", Value: int32(1 << 20)}, {Key: "singleBatch", Value: true}}
		for _, e := range command { // the session, the time limit and the like
			if e.Key != "aggregate" && e.Key != "pipeline" && e.Key != "cursor" {
				body = append(body, e)
			}
		}
		changed, err := request.WithBody(body)
		if err != nil {
			return nil, nil, nil, err
		}
		if reply, err = send(changed); err != nil {
			return nil, nil, nil, err
		}
		answer = document(reply)
		cursor, _ := get(answer, "cursor").(bson.D)
		found, _ = get(cursor, "firstBatch").(bson.A)
		return reply, answer, found, nil
	}
	reply, answer, found, err := find(coll, match)
	if err != nil || get(answer, "ok") != 1.0 {
		return reply, err
	}
	for i := range found {
		doc, _ := found[i].(bson.D)
		refused, theirs, joined, err := find(from, bson.D{{Key: foreign, Value: bson.D{{Key: "$eq", Value: get(doc, local)}}}})
		if err != nil || get(theirs, "ok") != 1.0 {
			return refused, err
		}
		doc = slices.DeleteFunc(doc, func(e bson.E) bool { return e.Key == as })
		found[i] = append(doc, bson.E{Key: as, Value: joined})
	}
	return reply.WithBody(answer)
}

// stage is what a stage of a pipeline says, if it is of this name.
func stage(v any, name string) (bson.D, bool) {
	s, _ := v.(bson.D)
	if len(s) != 1 || s[0].Key != name {
		return nil, false
	}
	spec, ok := s[0].Value.(bson.D)
	return spec, ok
}

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
