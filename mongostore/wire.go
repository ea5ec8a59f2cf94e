package mongostore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/strategy"
)

// The look-up of a token is what every guarded request waits for. Its filter is
// written, and its answer read, without the driver's reflection.

// tokenFilter is {token: digest, created_at: {$gte: createdAfter}}, without the
// second where the time is zero.
func tokenFilter(digest string, createdAfter time.Time) bson.Raw {
	b := make([]byte, 4, 128) // the length comes last
	b = append(b, byte(bson.TypeString))
	b = append(b, "token\x00"...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(digest)+1))
	b = append(b, digest...)
	b = append(b, 0)
	if !createdAfter.IsZero() {
		b = append(b, byte(bson.TypeEmbeddedDocument))
		b = append(b, "created_at\x00"...)
		b = binary.LittleEndian.AppendUint32(b, 4+1+5+8+1)
		b = append(b, byte(bson.TypeDateTime))
		b = append(b, "$gte\x00"...)
		b = binary.LittleEndian.AppendUint64(b, uint64(createdAfter.UnixMilli()))
		b = append(b, 0)
	}
	b = append(b, 0)
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

// pipeline is one in BSON already.
type pipeline []byte

// MarshalBSONValue implements bson.ValueMarshaler.
func (p pipeline) MarshalBSONValue() (typ byte, data []byte, err error) {
	return byte(bson.TypeArray), p, nil
}

// joinPipeline is [{$match: filter}, {$lookup: lookup}].
func joinPipeline(filter, lookup bson.Raw) pipeline {
	b := make([]byte, 4, 64+len(filter)+len(lookup)) // the length comes last
	for i, stage := range [...]struct {
		name string
		spec bson.Raw
	}{{"$match", filter}, {"$lookup", lookup}} {
		b = append(b, byte(bson.TypeEmbeddedDocument), '0'+byte(i), 0)
		b = binary.LittleEndian.AppendUint32(b, uint32(4+1+len(stage.name)+1+len(stage.spec)+1))
		b = append(b, byte(bson.TypeEmbeddedDocument))
		b = append(b, stage.name...)
		b = append(b, 0)
		b = append(b, stage.spec...)
		b = append(b, 0)
	}
	b = append(b, 0)
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

// parseToken reads a row of the collection. One that has no age is none of ours:
// without a lifetime it would never end.
func parseToken[ID comparable](doc bson.Raw, reg *bson.Registry) (t strategy.AccessToken[ID], err error) {
	elems, err := doc.Elements()
	if err != nil {
		return t, err
	}
	for _, e := range elems {
		key, v, ok := e.Key(), e.Value(), true
		if v.Type == bson.TypeNull {
			continue // as good as missing
		}
		switch key {
		case "_id":
			t.ID, ok = uuidOf(v)
		case "token":
			t.Digest, ok = v.StringValueOK()
		case "user_id":
			if err := parseID(v, reg, &t.UserID); err != nil {
				return t, fmt.Errorf("decode the field user_id: %w", err)
			}
		case "created_at":
			t.CreatedAt, ok = timeOf(v)
		case "last_used_at":
			t.LastUsedAt, ok = timeOf(v)
		case "authenticated_at":
			t.AuthenticatedAt, ok = timeOf(v)
		case "seen_not_before":
			t.SeenNotBefore, ok = timeOf(v)
		case "expires_at":
			t.ExpiresAt, ok = timeOf(v)
		case "scopes":
			t.Scopes, ok = stringsOf(v)
		case "name":
			t.Name, ok = v.StringValueOK()
		case "user_agent":
			t.UserAgent, ok = v.StringValueOK()
		case "client_addr":
			t.ClientAddr, ok = v.StringValueOK()
		}
		if !ok {
			return t, fmt.Errorf("decode the field %s: it is of the type %v", key, v.Type)
		}
	}
	if t.CreatedAt.IsZero() {
		return t, errors.New("decode the field created_at: it is missing")
	}
	return t, nil
}

func uuidOf(v bson.RawValue) (uuid.UUID, bool) {
	subtype, b, ok := v.BinaryOK()
	if !ok || subtype != bson.TypeBinaryUUID || len(b) != len(uuid.UUID{}) {
		return uuid.Nil, false
	}
	return uuid.UUID(b), true
}

func timeOf(v bson.RawValue) (time.Time, bool) {
	ms, ok := v.DateTimeOK()
	return time.UnixMilli(ms).UTC(), ok
}

// stringsOf keeps an empty list apart from none.
func stringsOf(v bson.RawValue) ([]string, bool) {
	a, ok := v.ArrayOK()
	if !ok {
		return nil, false
	}
	values, err := a.Values()
	if err != nil {
		return nil, false
	}
	out := make([]string, len(values))
	for i, v := range values {
		if out[i], ok = v.StringValueOK(); !ok {
			return nil, false
		}
	}
	return out, true
}

// parseID reads an application's ID: the usual types as they are written by
// NewRegistry, all else by the registry.
func parseID[ID comparable](v bson.RawValue, reg *bson.Registry, id *ID) error {
	if reg == defaultRegistry {
		ok := false
		switch id := any(id).(type) {
		case *uuid.UUID:
			*id, ok = uuidOf(v)
		case *bson.ObjectID:
			*id, ok = v.ObjectIDOK()
		case *string:
			*id, ok = v.StringValueOK()
		case *int64:
			*id, ok = v.Int64OK()
		}
		if ok {
			return nil
		}
	}
	return v.UnmarshalWithRegistry(reg, id)
}
