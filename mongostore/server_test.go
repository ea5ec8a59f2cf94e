package mongostore_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// command is a command that a server received. Its document sequences are in docs.
type command struct {
	name string
	body bson.Raw
	docs []bson.Raw
}

// rig is a database whose server answers each command with what a test returns for it.
type rig struct {
	*mongo.Database
	hanging atomic.Bool // pings get no answer
	done    chan struct{}

	mu       sync.Mutex
	commands []command
}

// newRig starts a server. answer is called for every command except those of the driver
// itself; "ok" is added to its documents, unless it comes first.
func newRig(t *testing.T, answer func(command) bson.D) *rig {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{done: make(chan struct{})}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { r.serve(conn, answer) })
		}
	})
	// With a server API version, the driver speaks OP_MSG from the first message on.
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://" + listener.Addr().String()).
		SetServerAPIOptions(options.ServerAPI(options.ServerAPIVersion1)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(r.done)
		_ = client.Disconnect(context.Background())
		_ = listener.Close()
		conns.Wait()
	})
	r.Database = client.Database("app")
	return r
}

// sent returns the commands received since the last call.
func (r *rig) sent() []command {
	r.mu.Lock()
	defer r.mu.Unlock()
	commands := r.commands
	r.commands = nil
	return commands
}

func (r *rig) serve(conn net.Conn, answer func(command) bson.D) {
	defer func() { _ = conn.Close() }()
	for {
		header := make([]byte, 16)
		if _, err := io.ReadFull(conn, header); err != nil {
			return
		}
		message := make([]byte, binary.LittleEndian.Uint32(header)-16)
		if _, err := io.ReadFull(conn, message); err != nil {
			return
		}
		c := parseCommand(message)
		if c.name == "ping" && r.hanging.Load() {
			<-r.done
			return
		}
		var reply bson.D
		switch c.name {
		case "hello", "endSessions", "ping":
			reply = bson.D{
				{Key: "helloOk", Value: true}, {Key: "isWritablePrimary", Value: true},
				{Key: "minWireVersion", Value: 0}, {Key: "maxWireVersion", Value: 21},
				{Key: "maxBsonObjectSize", Value: 16 << 20}, {Key: "maxMessageSizeBytes", Value: 48 << 20}, {Key: "maxWriteBatchSize", Value: 100_000},
			}
		default:
			r.mu.Lock()
			r.commands = append(r.commands, c)
			r.mu.Unlock()
			reply = answer(c)
		}
		if len(reply) == 0 || reply[0].Key != "ok" {
			reply = append(reply, bson.E{Key: "ok", Value: 1})
		}
		doc, err := bson.Marshal(reply)
		if err != nil {
			return
		}
		out := make([]byte, 16, 16+5+len(doc))
		out = append(out, 0, 0, 0, 0, 0) // flags, and the kind of the section: a body
		out = append(out, doc...)
		binary.LittleEndian.PutUint32(out, uint32(len(out)))
		copy(out[8:], header[4:8])                    // responseTo is the request's ID
		binary.LittleEndian.PutUint32(out[12:], 2013) // OP_MSG
		if _, err := conn.Write(out); err != nil {
			return
		}
	}
}

// parseCommand reads the flags and the sections of an OP_MSG.
func parseCommand(message []byte) (c command) {
	for rest := message[4:]; len(rest) > 0; {
		kind, size := rest[0], binary.LittleEndian.Uint32(rest[1:])
		section := rest[1 : 1+size]
		rest = rest[1+size:]
		if kind == 0 {
			c.body = section
			elem, _ := c.body.IndexErr(0)
			c.name = elem.Key()
			continue
		}
		docs := section[4:] // after the size, the name of the sequence
		for docs[0] != 0 {
			docs = docs[1:]
		}
		for docs = docs[1:]; len(docs) > 0; {
			size := binary.LittleEndian.Uint32(docs)
			c.docs = append(c.docs, bson.Raw(docs[:size]))
			docs = docs[size:]
		}
	}
	return c
}

// found answers a find.
func found(docs ...any) bson.D {
	return bson.D{{Key: "cursor", Value: bson.D{{Key: "firstBatch", Value: append(bson.A{}, docs...)}, {Key: "id", Value: int64(0)}, {Key: "ns", Value: "app.c"}}}}
}

// updated answers an update that matched n documents.
func updated(n int) bson.D { return bson.D{{Key: "n", Value: n}, {Key: "nModified", Value: n}} }

// refused answers an update with an error of one write.
func refused(code int32, message string) bson.D {
	return bson.D{{Key: "n", Value: 0}, {Key: "nModified", Value: 0}, {Key: "writeErrors", Value: bson.A{
		bson.D{{Key: "index", Value: 0}, {Key: "code", Value: code}, {Key: "errmsg", Value: message}},
	}}}
}
