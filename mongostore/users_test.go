package mongostore_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/mongostore"
)

var id = uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057")

func usersIn(t *testing.T, r *rig) *mongostore.Users[member, uuid.UUID] {
	t.Helper()
	users, err := mongostore.NewUsers[member](r.Database, mongostore.UsersConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return users
}

// userDoc is a document of users with a version of any type.
func userDoc(version any) bson.D {
	return bson.D{
		{Key: "_id", Value: bson.Binary{Subtype: bson.TypeBinaryUUID, Data: id[:]}}, {Key: "email", Value: "jo@example.com"},
		{Key: "token_version", Value: version}, {Key: "is_active", Value: true}, {Key: "name", Value: "Jo"},
		{Key: "created_at", Value: bson.DateTime(1_800_000_000_123)},
	}
}

func TestUserVersionsOfEveryNumericType(t *testing.T) {
	var version any
	r := newRig(t, func(command) bson.D { return found(userDoc(version)) })
	users := usersIn(t, r)
	readable := integers(t)
	readable[nil] = 0
	for value, want := range readable {
		version = value
		user, err := users.ByID(t.Context(), id)
		if err != nil {
			t.Errorf("%T %v: %v", value, value, err)
			continue
		}
		if user.TokenVersion() != want {
			t.Errorf("%T %v is read as %d, want %d", value, value, user.TokenVersion(), want)
		}
		if user.ID != id || user.Email != "jo@example.com" || user.Name != "Jo" || !user.Active || !user.CreatedAt.Equal(time.UnixMilli(1_800_000_000_123)) {
			t.Errorf("%T %v: the other fields are read as %+v", value, value, user)
		}
	}
	for want, value := range notIntegers(t) {
		version = value
		for name, read := range map[string]func() (member, error){
			"ByID":    func() (member, error) { return users.ByID(t.Context(), id) },
			"ByEmail": func() (member, error) { return users.ByEmail(t.Context(), "jo@example.com") },
		} {
			user, err := read()
			wantErrorNaming(t, err, "mongostore: find the account: decode the field token_version: "+want)
			if user.ID != uuid.Nil {
				t.Errorf("%s, %T %v: got the user %+v with an error", name, value, value, user)
			}
		}
	}
}

func TestUserWithoutAVersion(t *testing.T) {
	doc := slices.DeleteFunc(userDoc(0), func(e bson.E) bool { return e.Key == "token_version" })
	users := usersIn(t, newRig(t, func(command) bson.D { return found(doc) }))
	if user, err := users.ByID(t.Context(), id); err != nil || user.TokenVersion() != 0 || user.Name != "Jo" {
		t.Errorf("got %+v, %v; want the version 0", user, err)
	}
}

func TestUserIsReadWithOneFindOfOneDocument(t *testing.T) {
	r := newRig(t, func(command) bson.D { return found() })
	if _, err := usersIn(t, r).ByEmail(t.Context(), "jo@example.com"); !errors.Is(err, account.ErrUserNotFound) {
		t.Errorf("got the error %v, want ErrUserNotFound", err)
	}
	sent := r.sent()
	if len(sent) != 1 || sent[0].name != "find" || sent[0].body.Lookup("limit").AsInt64() != 1 || !sent[0].body.Lookup("singleBatch").Boolean() {
		t.Errorf("sent %v, want one find with limit 1 in a single batch", sent)
	}
}

// update is the one update of an update command.
func (c command) update() string {
	if len(c.docs) != 1 {
		return ""
	}
	return extJSON(c.docs[0])
}

// filterOf is the filter of a find.
func filterOf(c command) string { return extJSON(c.body.Lookup("filter").Document()) }

// onlyID is the filter that finds the account whatever its values are.
var onlyID = []string{`{"_id":ID}`}

func extJSON(doc bson.Raw) string {
	b, err := bson.MarshalExtJSON(doc, false, false)
	if err != nil {
		return err.Error()
	}
	return strings.ReplaceAll(string(b), `{"$binary":{"base64":"AYkKXayWd0u8zrMCCZqAVw==","subType":"04"}}`, "ID")
}

const (
	duplicateKey = 11000
	typeMismatch = 14
	cannotInc    = "Cannot apply $inc to a value of non-numeric type string"
)

func TestChangesAreOneConditionalUpdate(t *testing.T) {
	const (
		incPassword      = `{"q":{"_id":ID,"hashed_password":"old"},"u":{"$set":{"hashed_password":"new"},"$inc":{"token_version":1}}}`
		nullPassword     = `{"q":{"_id":ID,"hashed_password":"old","token_version":{"$type":10}},"u":{"$set":{"hashed_password":"new","token_version":1}}}`
		inc              = `{"q":{"_id":ID},"u":{"$inc":{"token_version":1}}}`
		null             = `{"q":{"_id":ID,"token_version":{"$type":10}},"u":{"$set":{"token_version":1}}}`
		otherWithAddress = `{"email":"new@example.com","_id":{"$ne":ID}}`
		address          = `{"q":{"_id":ID,"email":"old@example.com"},"u":{"$set":{"email":"new@example.com"}}}`
	)
	type users = *mongostore.Users[member, uuid.UUID]
	apply := func(change account.Change) func(users) error {
		return func(users users) error { return users.Apply(t.Context(), id, change) }
	}
	oldHash, newHash, none := account.NewPasswordHash("old"), account.NewPasswordHash("new"), account.NewPasswordHash("")
	replace := func(revoke bool) func(users) error {
		return apply(account.Change{IfPassword: &oldHash, Password: &newHash, RevokeTokens: revoke})
	}
	newAddress := apply(account.Change{IfEmail: new("old@example.com"), Email: new("new@example.com")})
	off := false
	for _, c := range []struct {
		name    string
		change  func(users) error
		answers []bson.D // to updates; the last one is repeated
		finds   []string // the filters of finds that find an account
		sent    []string
		err     error  // with errors.Is
		text    string // in the error
	}{
		{
			name:   "a rehash does not change the version",
			change: replace(false), answers: []bson.D{updated(1)},
			sent: []string{`{"q":{"_id":ID,"hashed_password":"old"},"u":{"$set":{"hashed_password":"new"}}}`},
		},
		{
			name:   "a new password adds 1 in the same update",
			change: replace(true), answers: []bson.D{updated(1)}, sent: []string{incPassword},
		},
		{
			name:   "another password is a conflict",
			change: replace(true), answers: []bson.D{updated(0)}, finds: onlyID, sent: []string{incPassword}, err: account.ErrConflict,
		},
		{
			name:   "a condition on an account that is missing",
			change: replace(true), answers: []bson.D{updated(0)}, sent: []string{incPassword}, err: account.ErrUserNotFound,
		},
		{
			name:   "a new address",
			change: newAddress, answers: []bson.D{updated(1)}, sent: []string{address},
		},
		{
			name:   "a new address that another account has",
			change: newAddress, answers: []bson.D{refused(duplicateKey, "no text to rely on")}, finds: []string{otherWithAddress},
			sent: []string{address}, err: account.ErrEmailTaken,
		},
		{
			name:   "a new address that another account has, by the code of FerretDB",
			change: newAddress, answers: []bson.D{refused(1, "constraint failed")}, finds: []string{otherWithAddress},
			sent: []string{address}, err: account.ErrEmailTaken,
		},
		{
			name:   "a new address, and an internal error",
			change: newAddress, answers: []bson.D{refused(1, "disk full")}, sent: []string{address}, text: "mongostore: change the account: ",
		},
		{
			name:   "a new address that another account had for a moment",
			change: newAddress, answers: []bson.D{refused(duplicateKey, "no text to rely on")}, sent: []string{address}, err: account.ErrConflict,
		},
		{
			name:   "a duplicate of another key",
			change: apply(account.Change{Active: &off}), answers: []bson.D{refused(duplicateKey, "only one inactive account")},
			sent: []string{`{"q":{"_id":ID},"u":{"$set":{"is_active":false}}}`}, text: "mongostore: change the account: ",
		},
		{
			name:   "a deadlock, then a new address",
			change: newAddress, answers: []bson.D{refused(16908292, "deadlock detected"), updated(1)}, sent: []string{address, address},
		},
		{
			name: "everything at once",
			change: apply(account.Change{
				IfEmail: new("old@example.com"), IfPassword: &oldHash, IfVersion: new(int64(7)), Email: new("new@example.com"), Password: &newHash,
				Active: &off, Verified: new(true), Superuser: &off, RevokeTokens: true,
			}), answers: []bson.D{updated(1)},
			sent: []string{`{"q":{"_id":ID,"email":"old@example.com","hashed_password":"old","token_version":7},"u":{"$set":{"email":"new@example.com","hashed_password":"new","is_active":false,"is_verified":true,"is_superuser":false},"$inc":{"token_version":1}}}`},
		},
		{
			name:   "no password may be missing or null",
			change: apply(account.Change{IfPassword: &none, Password: &newHash}), answers: []bson.D{updated(1)},
			sent: []string{`{"q":{"_id":ID,"hashed_password":{"$in":["",null]}},"u":{"$set":{"hashed_password":"new"}}}`},
		},
		{
			name:   "the password is removed",
			change: apply(account.Change{Password: &none}), answers: []bson.D{updated(1)},
			sent: []string{`{"q":{"_id":ID},"u":{"$set":{"hashed_password":""}}}`},
		},
		{
			name:   "version 0 may be missing or null",
			change: apply(account.Change{IfVersion: new(int64(0)), Verified: new(true)}), answers: []bson.D{updated(1)},
			sent: []string{`{"q":{"_id":ID,"token_version":{"$in":[0,null]}},"u":{"$set":{"is_verified":true}}}`},
		},
		{
			name:   "version 0 that is null becomes 1",
			change: apply(account.Change{IfVersion: new(int64(0)), RevokeTokens: true}), answers: []bson.D{refused(typeMismatch, cannotInc), updated(1)},
			sent: []string{`{"q":{"_id":ID,"token_version":{"$in":[0,null]}},"u":{"$inc":{"token_version":1}}}`, null},
		},
		{
			name:   "another version is never compared with null",
			change: apply(account.Change{IfVersion: new(int64(7)), RevokeTokens: true}), answers: []bson.D{refused(typeMismatch, cannotInc)},
			sent: []string{`{"q":{"_id":ID,"token_version":7},"u":{"$inc":{"token_version":1}}}`}, text: cannotInc,
		},
		{
			name:   "revoking adds 1",
			change: apply(account.Change{RevokeTokens: true}), answers: []bson.D{updated(1)}, sent: []string{inc},
		},
		{
			name:   "deactivating with revocation is one update",
			change: apply(account.Change{Active: &off, RevokeTokens: true}), answers: []bson.D{updated(1)},
			sent: []string{`{"q":{"_id":ID},"u":{"$set":{"is_active":false},"$inc":{"token_version":1}}}`},
		},
		{
			name:   "a flag alone does not change the version",
			change: apply(account.Change{Active: &off}), answers: []bson.D{updated(1)},
			sent: []string{`{"q":{"_id":ID},"u":{"$set":{"is_active":false}}}`},
		},
		{
			name:   "an unknown user",
			change: apply(account.Change{RevokeTokens: true}), answers: []bson.D{updated(0)}, sent: []string{inc}, err: account.ErrUserNotFound,
		},
		{
			name:   "null becomes 1",
			change: apply(account.Change{RevokeTokens: true}), answers: []bson.D{refused(typeMismatch, cannotInc), updated(1)},
			sent: []string{inc, null},
		},
		{
			name:   "null becomes 1 with the new password",
			change: replace(true), answers: []bson.D{refused(typeMismatch, cannotInc), updated(1)},
			sent: []string{incPassword, nullPassword},
		},
		{
			name:   "null that another update has made a number",
			change: apply(account.Change{RevokeTokens: true}), answers: []bson.D{refused(typeMismatch, cannotInc), updated(0), updated(1)},
			sent: []string{inc, null, inc},
		},
		{
			name:   "null, and another update has replaced the password",
			change: replace(true), answers: []bson.D{refused(typeMismatch, cannotInc), updated(0), updated(0)}, finds: onlyID,
			sent: []string{incPassword, nullPassword, incPassword}, err: account.ErrConflict,
		},
		{
			name:   "a string is an error",
			change: apply(account.Change{RevokeTokens: true}), answers: []bson.D{refused(typeMismatch, cannotInc), updated(0), refused(typeMismatch, cannotInc)},
			sent: []string{inc, null, inc}, text: "mongostore: change the account: the field token_version is not a number: ",
		},
		{
			name:   "a string is an error with a new password",
			change: replace(true), answers: []bson.D{refused(typeMismatch, cannotInc), updated(0), refused(typeMismatch, cannotInc)},
			sent: []string{incPassword, nullPassword, incPassword}, text: "non-numeric type string",
		},
		{
			name:   "a version that cannot be raised further",
			change: apply(account.Change{RevokeTokens: true}), answers: []bson.D{refused(2, "Failed to apply $inc operations to current value")},
			sent: []string{inc}, text: "Failed to apply $inc",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var answered int
			r := newRig(t, func(sent command) bson.D {
				if sent.name == "find" { // after an update that matched nothing
					if slices.Contains(c.finds, filterOf(sent)) {
						return found(userDoc(nil))
					}
					return found()
				}
				answered++
				return c.answers[min(answered, len(c.answers))-1]
			})
			users := usersIn(t, r)
			err := c.change(users)
			switch {
			case c.err != nil && !errors.Is(err, c.err):
				t.Errorf("got the error %v, want %v", err, c.err)
			case c.text != "":
				wantErrorNaming(t, err, c.text)
			case c.err == nil && err != nil:
				t.Errorf("got the error %v", err)
			}
			var sent []string
			for _, command := range r.sent() {
				if command.name == "update" {
					sent = append(sent, command.update())
				}
			}
			if !slices.Equal(sent, c.sent) {
				t.Errorf("sent\n%s\nwant\n%s", strings.Join(sent, "\n"), strings.Join(c.sent, "\n"))
			}
		})
	}
}

func TestAnEmptyChangeOnlyReads(t *testing.T) {
	condition := account.Change{IfEmail: new("jo@example.com")}
	for _, c := range []struct {
		name   string
		change account.Change
		finds  []string // the filters that find the account
		sent   []string
		want   error
	}{
		{"no conditions", account.Change{}, onlyID, onlyID, nil},
		{"no conditions, and no account", account.Change{}, nil, onlyID, account.ErrUserNotFound},
		{"a condition that holds", condition, []string{`{"_id":ID,"email":"jo@example.com"}`}, []string{`{"_id":ID,"email":"jo@example.com"}`}, nil},
		{"a condition that does not hold", condition, onlyID, []string{`{"_id":ID,"email":"jo@example.com"}`, `{"_id":ID}`}, account.ErrConflict},
		{"a condition, and no account", condition, nil, []string{`{"_id":ID,"email":"jo@example.com"}`, `{"_id":ID}`}, account.ErrUserNotFound},
	} {
		r := newRig(t, func(sent command) bson.D {
			if slices.Contains(c.finds, filterOf(sent)) {
				return found(userDoc(1))
			}
			return found()
		})
		if err := usersIn(t, r).Apply(t.Context(), id, c.change); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		var sent []string
		for _, command := range r.sent() {
			if command.name != "find" {
				t.Errorf("%s: sent %s, want only finds", c.name, command.name)
				continue
			}
			sent = append(sent, filterOf(command))
		}
		if !slices.Equal(sent, c.sent) {
			t.Errorf("%s: looked for %v, want %v", c.name, sent, c.sent)
		}
	}
}

// The types that NewUsers refuses.
type (
	ownID struct {
		account.User[uuid.UUID] `bson:",inline"`
		ID                      uuid.UUID
	}
	ownIDAsKey struct {
		account.User[uuid.UUID] `bson:",inline"`
		ID                      uuid.UUID `bson:"_id"`
	}
	ownKey struct {
		account.User[uuid.UUID] `bson:",inline"`
		Key                     uuid.UUID `bson:"_id,omitempty"`
	}
	ownEmail struct {
		account.User[uuid.UUID] `bson:",inline"`
		Email                   string `bson:"contact"`
	}
	ownAddress struct {
		account.User[uuid.UUID] `bson:",inline"`
		Address                 string `bson:"email"`
	}
	ownVersion struct {
		account.User[uuid.UUID] `bson:",inline"`
		Token_Version           int64
	}
	audit struct {
		Made time.Time `bson:"created_at"`
	}
	ownInline struct {
		account.User[uuid.UUID] `bson:",inline"`
		Audit                   audit `bson:",inline"`
	}
	Base struct {
		account.User[uuid.UUID] `bson:",inline"`
	}
	ownOuter struct {
		Base `bson:",inline"`
		ID   string `bson:"number"`
	}
	pointer struct {
		*account.User[uuid.UUID] `bson:",inline"`
	}
)

// The types that NewUsers accepts.
type (
	otherNames struct {
		account.User[uuid.UUID] `bson:",inline"`
		Number                  string
		Skipped                 string `bson:"-"`
		Audit                   audit  // in a document of its own
	}
	throughBase struct {
		Base   `bson:",inline"`
		Number string
	}
)

func TestOwnFieldsThatHideTheAccountsAreRefused(t *testing.T) {
	db := database(t)
	newUsers := map[string]func() error{
		"the field ID of mongostore_test.ownID hides the account's ID: remove it": func() error {
			_, err := mongostore.NewUsers[ownID](db, mongostore.UsersConfig{})
			return err
		},
		"the field ID of mongostore_test.ownIDAsKey hides the account's ID: remove it": func() error {
			_, err := mongostore.NewUsers[ownIDAsKey](db, mongostore.UsersConfig{})
			return err
		},
		"the field Key of mongostore_test.ownKey has the BSON name _id, which account.User.ID has: remove it": func() error {
			_, err := mongostore.NewUsers[ownKey](db, mongostore.UsersConfig{})
			return err
		},
		"the field Email of mongostore_test.ownEmail hides the account's Email": func() error {
			_, err := mongostore.NewUsers[ownEmail](db, mongostore.UsersConfig{})
			return err
		},
		"the field Address of mongostore_test.ownAddress has the BSON name email, which account.User.Email has": func() error {
			_, err := mongostore.NewUsers[ownAddress](db, mongostore.UsersConfig{})
			return err
		},
		"the field Token_Version of mongostore_test.ownVersion has the BSON name token_version, which account.User.Version has": func() error {
			_, err := mongostore.NewUsers[ownVersion](db, mongostore.UsersConfig{})
			return err
		},
		"the field Made of mongostore_test.audit has the BSON name created_at, which account.User.CreatedAt has": func() error {
			_, err := mongostore.NewUsers[ownInline](db, mongostore.UsersConfig{})
			return err
		},
		"the field ID of mongostore_test.ownOuter hides the account's ID": func() error {
			_, err := mongostore.NewUsers[ownOuter](db, mongostore.UsersConfig{})
			return err
		},
		"embeds a pointer to account.User": func() error {
			_, err := mongostore.NewUsers[pointer](db, mongostore.UsersConfig{})
			return err
		},
	}
	for want, f := range newUsers {
		wantErrorNaming(t, f(), want)
	}
}

func TestOtherOwnFieldsAreAccepted(t *testing.T) {
	db := database(t)
	if _, err := mongostore.NewUsers[otherNames](db, mongostore.UsersConfig{}); err != nil {
		t.Error(err)
	}
	if _, err := mongostore.NewUsers[throughBase](db, mongostore.UsersConfig{}); err != nil {
		t.Error(err)
	}
	if _, err := mongostore.NewUsers[account.User[uuid.UUID]](db, mongostore.UsersConfig{}); err != nil {
		t.Error(err)
	}
}
