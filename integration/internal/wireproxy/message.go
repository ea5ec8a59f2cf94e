package wireproxy

import (
	"encoding/binary"
	"fmt"
	"io"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Message is a message of MongoDB's wire protocol: a header of four int32 (length, two IDs,
// opcode), and a body.
type Message []byte

const (
	headerLength = 16
	bodyOffset   = headerLength + 4 + 1 // after an OP_MSG's flags and the kind of its first section
	maxMessage   = 48_000_000           // MongoDB's own limit
	opMsg        = 2013
)

// ReadMessage reads one message.
func ReadMessage(r io.Reader) (Message, error) {
	header := make([]byte, headerLength)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint32(header)
	if length < headerLength || length > maxMessage {
		return nil, fmt.Errorf("wireproxy: invalid message length %d", length)
	}
	m := make(Message, length)
	copy(m, header)
	_, err := io.ReadFull(r, m[headerLength:])
	return m, err
}

func (m Message) isMsg() bool {
	return len(m) > bodyOffset && binary.LittleEndian.Uint32(m[12:]) == opMsg
}

// moreToCome reports whether the sender expects no answer, as to an unacknowledged write.
func (m Message) moreToCome() bool {
	return m.isMsg() && m[headerLength]&2 != 0
}

// Body returns the document in the first section of an OP_MSG: a command with its arguments, or
// an answer. It returns nil for other messages.
func (m Message) Body() bson.Raw {
	if !m.isMsg() || m[bodyOffset-1] != 0 {
		return nil
	}
	if len(m) < bodyOffset+4 {
		return nil
	}
	length := binary.LittleEndian.Uint32(m[bodyOffset:])
	if uint64(length) > uint64(len(m)-bodyOffset) {
		return nil
	}
	return bson.Raw(m[bodyOffset : bodyOffset+int(length)])
}

// Command returns the name of a request's command, or "".
func (m Message) Command() string {
	elem, err := m.Body().IndexErr(0)
	if err != nil {
		return ""
	}
	return elem.Key()
}

// WithBody returns a copy of the message with doc as its only section.
func (m Message) WithBody(doc any) (Message, error) {
	body, err := bson.Marshal(doc)
	if err != nil {
		return nil, err
	}
	out := append(append(Message(nil), m[:bodyOffset]...), body...)
	out[headerLength] &^= 1 // no checksum follows
	binary.LittleEndian.PutUint32(out, uint32(len(out)))
	return out, nil
}

// Instead returns answer as the reply to a request that the server does not see. It sends the
// server a ping, whose reply has the header that the client expects.
func Instead(answer any, request Message, send func(Message) (Message, error)) (Message, error) {
	ping, err := request.WithBody(bson.D{{Key: "ping", Value: 1}, {Key: "$db", Value: "admin"}})
	if err != nil {
		return nil, err
	}
	reply, err := send(ping)
	if err != nil {
		return nil, err
	}
	return reply.WithBody(answer)
}
