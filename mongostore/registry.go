package mongostore

import (
	"fmt"
	"reflect"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
)

var uuidType = reflect.TypeFor[uuid.UUID]()

// defaultRegistry is the default of the Registry fields.
var defaultRegistry = NewRegistry()

// NewRegistry returns the driver's default BSON registry with a codec for uuid.UUID as
// binary subtype 4, BSON's UUID. (The driver alone writes a UUID as bytes of subtype 0.)
// An application whose user type needs other codecs adds them before it puts the registry
// into a Config.
func NewRegistry() *bson.Registry {
	reg := bson.NewRegistry()
	reg.RegisterTypeEncoder(uuidType, bson.ValueEncoderFunc(encodeUUID))
	reg.RegisterTypeDecoder(uuidType, bson.ValueDecoderFunc(decodeUUID))
	return reg
}

func encodeUUID(_ bson.EncodeContext, w bson.ValueWriter, v reflect.Value) error {
	id, ok := v.Interface().(uuid.UUID)
	if !ok {
		return bson.ValueEncoderError{Name: "encodeUUID", Types: []reflect.Type{uuidType}, Received: v}
	}
	return w.WriteBinaryWithSubtype(id[:], bson.TypeBinaryUUID)
}

func decodeUUID(_ bson.DecodeContext, r bson.ValueReader, v reflect.Value) error {
	if !v.CanSet() || v.Type() != uuidType {
		return bson.ValueDecoderError{Name: "decodeUUID", Types: []reflect.Type{uuidType}, Received: v}
	}
	if r.Type() != bson.TypeBinary {
		return fmt.Errorf("cannot decode %v into a UUID", r.Type())
	}
	b, subtype, err := r.ReadBinary()
	if err != nil {
		return err
	}
	if subtype != bson.TypeBinaryUUID || len(b) != len(uuid.UUID{}) {
		return fmt.Errorf("cannot decode binary of subtype %d and %d bytes into a UUID", subtype, len(b))
	}
	v.Set(reflect.ValueOf(uuid.UUID(b)))
	return nil
}

// collection returns a handle with the concerns that Latchkey needs, instead of the
// client's defaults.
func collection(db *mongo.Database, name string, reg *bson.Registry) *mongo.Collection {
	return db.Collection(name, options.Collection().
		SetWriteConcern(writeconcern.Majority()).
		SetReadPreference(readpref.Primary()).
		SetReadConcern(readconcern.Local()). // on a sharded cluster, "available" can return deleted documents
		SetRegistry(reg))
}
