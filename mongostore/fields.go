package mongostore

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/account"
)

// Fields are the names that the fields of account.User have in the documents of a collection.
// An empty name means the default.
type Fields struct {
	// ID is the field of the account's ID. Default "_id", on SQL "id". On MongoDB, with another
	// name, the server makes the _id of new documents, and the application's user does not have
	// it.
	ID string
	// Email is the field of the address. Default "email".
	Email string
	// HashedPassword is the field of the password hash. Default "hashed_password".
	HashedPassword string
	// Active is the field of the flag. Default "is_active". A document without it, or with
	// null, is an active account.
	Active string
	// Verified and Superuser are the fields of the flags. Defaults "is_verified" and
	// "is_superuser". A document without one, or with null, has the value false.
	Verified, Superuser string
	// CreatedAt is the field of the creation time. Default "created_at". A document without
	// it, or with null, has the zero time.
	CreatedAt string
	// TokenVersion is the field of the token version. Default "token_version". A document
	// without it, or with null, has the version 0.
	TokenVersion string
}

// userFields maps the fields of account.User to those of a collection.
type userFields struct {
	Fields
	stored  map[string]string // names in the collection by names of account.User
	read    map[string]string // the reverse
	renamed bool
}

// newUserFields fills in the defaults. It returns an error if the names are no use, or if a
// field of the application's user type has one of them.
func newUserFields[U any, ID comparable](f Fields) (userFields, error) {
	u := userFields{Fields: f, stored: make(map[string]string), read: make(map[string]string)}
	for _, x := range []struct {
		setting   string
		name      *string
		byDefault string
	}{
		{"ID", &u.ID, "_id"}, {"Email", &u.Email, "email"}, {"HashedPassword", &u.HashedPassword, "hashed_password"},
		{"Active", &u.Active, "is_active"}, {"Verified", &u.Verified, "is_verified"}, {"Superuser", &u.Superuser, "is_superuser"},
		{"CreatedAt", &u.CreatedAt, "created_at"}, {"TokenVersion", &u.TokenVersion, versionField},
	} {
		if *x.name == "" {
			*x.name = x.byDefault
		}
		name := *x.name
		switch {
		case strings.HasPrefix(name, "$") || strings.ContainsAny(name, ".\x00"):
			return u, fmt.Errorf("mongostore: UsersConfig.Fields.%s is %q: want the name of a top-level field", x.setting, name)
		case name == "_id" && x.setting != "ID":
			return u, fmt.Errorf("mongostore: UsersConfig.Fields.%s is _id, which is the document's ID", x.setting)
		case u.read[name] != "":
			return u, fmt.Errorf("mongostore: UsersConfig.Fields.%s is %q, which another field has", x.setting, name)
		}
		u.stored[x.byDefault], u.read[name] = name, x.byDefault
		u.renamed = u.renamed || name != x.byDefault
	}
	if !u.renamed {
		return u, nil
	}
	return u, checkFields(reflect.TypeFor[U](), reflect.TypeFor[account.User[ID]](), u.read)
}

// canonical returns a document of users as account.User is decoded from it: with its names, a
// token version as integerOf reads it, and is_active. It returns doc itself, and allocates
// nothing, if there is nothing to change.
func (u *userFields) canonical(doc bson.Raw) (bson.Raw, error) {
	active, version := doc.Lookup(u.Active), doc.Lookup(u.TokenVersion)
	ready := !u.renamed && active.Type != 0 && active.Type != bson.TypeNull
	var number int64
	switch version.Type {
	case 0, bson.TypeInt64, bson.TypeInt32, bson.TypeNull:
		if ready {
			return doc, nil
		}
		number, _ = version.AsInt64OK()
	default: // the driver decodes true as 1, and refuses decimal128
		var err error
		if number, err = integerOf(version); err != nil {
			return nil, fmt.Errorf("decode the field %s: %w", u.TokenVersion, err)
		}
	}
	elems, err := doc.Elements()
	if err != nil {
		return nil, err
	}
	b := make([]byte, 4, len(doc)+64) // the length comes last
	for _, e := range elems {
		name := e.Key()
		field, known := u.read[name]
		switch {
		case !known && u.stored[name] != "": // another field that has the name of the account's
		case !known:
			b = append(b, e...)
		case field == versionField:
			b = append(b, byte(bson.TypeInt64))
			b = append(b, field+"\x00"...)
			b = binary.LittleEndian.AppendUint64(b, uint64(number))
		case field == "is_active" && e.Value().Type == bson.TypeNull: // below
		default:
			b = append(b, e[0])
			b = append(b, field+"\x00"...)
			b = append(b, e[1+len(name)+1:]...)
		}
	}
	if active.Type == 0 || active.Type == bson.TypeNull {
		b = append(b, byte(bson.TypeBoolean))
		b = append(b, "is_active\x00\x01"...)
	}
	b = append(b, 0)
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b, nil
}

// document returns a document of account.User with the names of the collection.
func (u *userFields) document(doc bson.Raw) (bson.Raw, error) {
	elems, err := doc.Elements()
	if err != nil {
		return nil, err
	}
	b := make([]byte, 4, len(doc)+64)
	for _, e := range elems {
		name := e.Key()
		stored, known := u.stored[name]
		if !known {
			if u.read[name] != "" { // of an inline map
				return nil, fmt.Errorf("the field %s is the account's", name)
			}
			stored = name
		}
		b = append(b, e[0])
		b = append(b, stored+"\x00"...)
		b = append(b, e[1+len(name)+1:]...)
	}
	b = append(b, 0)
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b, nil
}
