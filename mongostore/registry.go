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

	"github.com/latchkey-go/latchkey/account"
)

var (
	uuidType   = reflect.TypeFor[uuid.UUID]()
	hashType   = reflect.TypeFor[account.PasswordHash]()
	stringType = reflect.TypeFor[string]()
)

// defaultRegistry is the default of the Registry fields.
var defaultRegistry = NewRegistry()

// NewRegistry returns the driver's default BSON registry with codecs for
//
//   - uuid.UUID, as binary subtype 4, BSON's UUID (the driver alone writes it as bytes of
//     subtype 0);
//   - account.PasswordHash, as a string with the hash in the clear (the driver alone returns
//     an error). null is no password.
//
// An application whose user type needs other codecs adds them before it puts the registry
// into a Config. Use the registry for the database, not to log or show users.
func NewRegistry() *bson.Registry {
	reg := bson.NewRegistry()
	reg.RegisterTypeEncoder(uuidType, bson.ValueEncoderFunc(encodeUUID))
	reg.RegisterTypeDecoder(uuidType, bson.ValueDecoderFunc(decodeUUID))
	reg.RegisterTypeEncoder(hashType, bson.ValueEncoderFunc(encodeHash))
	reg.RegisterTypeDecoder(hashType, bson.ValueDecoderFunc(decodeHash))
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

func encodeHash(_ bson.EncodeContext, w bson.ValueWriter, v reflect.Value) error {
	hash, ok := v.Interface().(account.PasswordHash)
	if !ok {
		return bson.ValueEncoderError{Name: "encodeHash", Types: []reflect.Type{hashType}, Received: v}
	}
	return w.WriteString(hash.Reveal())
}

// decodeHash reads what the driver reads as a string.
func decodeHash(dc bson.DecodeContext, r bson.ValueReader, v reflect.Value) error {
	if !v.CanSet() || v.Type() != hashType {
		return bson.ValueDecoderError{Name: "decodeHash", Types: []reflect.Type{hashType}, Received: v}
	}
	decoder, err := dc.LookupDecoder(stringType)
	if err != nil {
		return err
	}
	var phc string
	if err := decoder.DecodeValue(dc, r, reflect.ValueOf(&phc).Elem()); err != nil {
		return err
	}
	v.Set(reflect.ValueOf(account.NewPasswordHash(phc)))
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
