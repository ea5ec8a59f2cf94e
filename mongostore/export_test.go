package mongostore

import (
	"context"
	"github.com/google/uuid"
	"github.com/latchkey-go/latchkey/account"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// FakeServer executes the commands on indexes as a MongoDB server does, and returns the
// errors that a test injects. It is not safe for concurrent use.
type FakeServer struct {
	indexes []index
	// Fault is called with the name of every command. If it returns an error, the command
	// fails with it.
	Fault func(command string) error
	// Commands lists the commands received, except listIndexes.
	Commands []string
}

// Existing adds an index of keys {field: 1}.
func (f *FakeServer) Existing(name, field string, unique bool, ttl int64) *FakeServer {
	f.indexes = append(f.indexes, index{name: name, keys: bson.D{{Key: field, Value: 1}}, unique: unique, ttl: ttl})
	return f
}

// NoTTL is the ttl of an index without expiry.
const NoTTL = noTTL

// Indexes describes the collection's indexes.
func (f *FakeServer) Indexes() []string {
	var out []string
	for _, x := range f.indexes {
		out = append(out, x.String())
	}
	slices.Sort(out)
	return out
}

func (f *FakeServer) fault(command string) error {
	if command != "listIndexes" {
		f.Commands = append(f.Commands, command)
	}
	if f.Fault == nil {
		return nil
	}
	return f.Fault(command)
}

func (f *FakeServer) list(context.Context) ([]index, error) {
	return slices.Clone(f.indexes), f.fault("listIndexes")
}

func (f *FakeServer) create(_ context.Context, x index) error {
	if err := f.fault("createIndexes " + x.name); err != nil {
		return err
	}
	for _, old := range f.indexes {
		if old.name == x.name && !old.sameKeys(x) {
			return ServerError(codeIndexKeySpecsConflict)
		}
		if old.sameKeys(x) {
			return ServerError(codeIndexOptionsConflict)
		}
	}
	f.indexes = append(f.indexes, x)
	return nil
}

func (f *FakeServer) setTTL(_ context.Context, name string, seconds int64) error {
	if err := f.fault("collMod " + name); err != nil {
		return err
	}
	for i := range f.indexes {
		if f.indexes[i].name == name {
			f.indexes[i].ttl = seconds
			return nil
		}
	}
	return ServerError(codeIndexNotFound)
}

func (f *FakeServer) drop(_ context.Context, name string) error {
	if err := f.fault("dropIndexes " + name); err != nil {
		return err
	}
	f.indexes = slices.DeleteFunc(f.indexes, func(x index) bool { return x.name == name })
	return nil
}

// ServerError returns a server's answer with an error code.
func ServerError(code int32) error { return mongo.CommandError{Code: code, Message: "fake"} }

// Ensure runs EnsureIndexes on the fake server.
func (f *FakeServer) Ensure(ctx context.Context, lifetime, grace time.Duration) error {
	return reconcile(ctx, f, "access_tokens", tokensIndexSpec(lifetime, grace))
}

// Verify runs VerifyIndexes on the fake server.
func (f *FakeServer) Verify(ctx context.Context, lifetime, grace time.Duration) error {
	return verify(ctx, f, "access_tokens", tokensIndexSpec(lifetime, grace))
}

// CanonicalReader returns how documents are read by the fields of a collection.
func CanonicalReader(f Fields) func(bson.Raw) (bson.Raw, error) {
	fields, err := newUserFields[account.User[uuid.UUID], uuid.UUID](f)
	if err != nil {
		panic(err)
	}
	return fields.canonical
}

// CanonicalBy reads one document.
func CanonicalBy(f Fields, doc bson.Raw) (bson.Raw, error) { return CanonicalReader(f)(doc) }

// Edits returns the update that an edit of a document makes, by the fields of a collection.
func Edits(f Fields, before, after bson.Raw) (bson.D, error) {
	fields, err := newUserFields[account.User[uuid.UUID], uuid.UUID](f)
	if err != nil {
		return nil, err
	}
	return fields.edits(before, after)
}

// The unexported functions that tests call.
var (
	TokenFilter = tokenFilter
	IntegerOf   = integerOf
	Canonical   = CanonicalReader(Fields{})
	Ping        = ping
)

// SessionOf, ObjectOf and BeforeSession convert between session IDs and ObjectIDs.
var (
	SessionOf     = sessionOf
	ObjectOf      = objectOf
	BeforeSession = beforeSession
)
