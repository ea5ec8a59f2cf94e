package mongostore

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/account"
)

// checkUser returns an error unless documents of U have the account's fields where the
// queries expect them. Without bson:",inline" the fields would be one level deeper, and
// no query would find an account.
func checkUser[U any, ID comparable](reg *bson.Registry, of func(*U) *account.User[ID]) error {
	var probe U
	if of(&probe) == nil {
		return fmt.Errorf("mongostore: %T embeds a pointer to account.User: embed account.User itself with the tag `bson:\",inline\"`", probe)
	}
	if err := checkFields(reflect.TypeFor[U](), reflect.TypeFor[account.User[ID]](), nil); err != nil {
		return err
	}
	if !storesHashes(reg) {
		return errors.New("mongostore: UsersConfig.Registry has no codec for account.PasswordHash: make it with NewRegistry")
	}
	of(&probe).Email, of(&probe).HashedPassword, of(&probe).Version = "email", account.NewPasswordHash("hash"), 1
	doc, err := encode(reg, probe)
	if err != nil {
		return fmt.Errorf("mongostore: %T cannot be stored: %w", probe, err)
	}
	email, _ := doc.Lookup("email").StringValueOK()
	hash, _ := doc.Lookup("hashed_password").StringValueOK()
	version, _ := doc.Lookup("token_version").AsInt64OK()
	_, err = doc.LookupErr("_id")
	if email != "email" || hash != "hash" || version != 1 || err != nil {
		return fmt.Errorf("mongostore: a document of %T lacks _id, email, hashed_password or token_version: embed account.User with the tag `bson:\",inline\"`", probe)
	}
	return nil
}

// storesHashes reports whether password hashes are written as strings and read back.
func storesHashes(reg *bson.Registry) bool {
	const field, phc = "hash", "$argon2id$"
	doc, err := encode(reg, bson.D{{Key: field, Value: account.NewPasswordHash(phc)}})
	if err != nil {
		return false
	}
	written, _ := doc.Lookup(field).StringValueOK()
	var read account.PasswordHash
	err = doc.Lookup(field).UnmarshalWithRegistry(reg, &read)
	return written == phc && err == nil && read.Reveal() == phc
}

// checkFields returns an error if another field of the struct user has the Go name or the
// BSON name of a field of the embedded account.User, or a name that stored has. The application would then set its own
// field instead of the account's, or the driver would store only one of the two.
func checkFields(user, account reflect.Type, stored map[string]string) error {
	if user.Kind() != reflect.Struct || user == account {
		return nil
	}
	if embeds(user, account) {
		for f := range user.Fields() {
			if _, hidden := account.FieldByName(f.Name); hidden {
				return fmt.Errorf("mongostore: the field %s of %v hides the account's %s: remove it and use that of the embedded account.User, or rename it", f.Name, user, f.Name)
			}
		}
	}
	taken := make(map[string]string) // Go names by BSON names
	for f := range account.Fields() {
		name, _ := bsonName(f)
		taken[name] = f.Name
	}
	for name := range stored {
		if taken[name] == "" {
			taken[name] = stored[name]
		}
	}
	return checkNames(user, account, taken)
}

// embeds reports whether a struct embeds another, directly or through other structs.
func embeds(outer, inner reflect.Type) bool {
	for f := range outer.Fields() {
		if f.Anonymous && (f.Type == inner || f.Type.Kind() == reflect.Struct && embeds(f.Type, inner)) {
			return true
		}
	}
	return false
}

// checkNames looks for taken BSON names in a struct and in the structs inline in it,
// except the account.
func checkNames(t, account reflect.Type, taken map[string]string) error {
	for f := range t.Fields() {
		name, inline := bsonName(f)
		switch {
		case f.Type == account || !f.IsExported():
		case inline && f.Type.Kind() == reflect.Struct:
			if err := checkNames(f.Type, account, taken); err != nil {
				return err
			}
		case !inline && taken[name] != "":
			return fmt.Errorf("mongostore: the field %s of %v has the BSON name %s, which account.User.%s has: remove it, or give it another name with a bson tag", f.Name, t, name, taken[name])
		}
	}
	return nil
}

// bsonName returns the name of a field in documents, as the driver determines it; "" for
// a field that is not stored.
func bsonName(f reflect.StructField) (name string, inline bool) {
	tag, ok := f.Tag.Lookup("bson")
	if !ok && !strings.Contains(string(f.Tag), ":") {
		tag = string(f.Tag)
	}
	if tag == "-" {
		return "", false
	}
	name, flags, _ := strings.Cut(tag, ",")
	if name == "" {
		name = strings.ToLower(f.Name)
	}
	return name, slices.Contains(strings.Split(flags, ","), "inline")
}
