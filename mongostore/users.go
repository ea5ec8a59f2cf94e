package mongostore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/strategy"
)

// UsersConfig configures [Users]. The zero value is usable.
type UsersConfig struct {
	// Collection is the collection's name. Default "users".
	Collection string

	// Fields are the names of the account's fields in the documents. Default: those of
	// account.User.
	Fields Fields

	// AnyCase finds accounts whose address is stored in another spelling than
	// account.NormalizeEmail's, such as John@Example.com: for a collection that another program
	// has filled, until NormalizeUsers has mended it. Every look-up then compares without
	// regard to case, by an index with a collation, which EnsureIndexes makes; a server without
	// collations reads all addresses. Of several accounts whose addresses have the same normal
	// form, only the one that is stored in this form is found, or none. List compares addresses
	// as they are stored. Default false.
	AnyCase bool

	// Timeout bounds every call whose context has no deadline. Default 3 seconds.
	// EnsureIndexes has 5 minutes instead.
	Timeout time.Duration

	// Registry has the codecs for the user type. Make it with [NewRegistry], which has that
	// for password hashes, and add others. Default [NewRegistry].
	Registry *bson.Registry

	// Now is the clock of events. Default [time.Now].
	Now func() time.Time

	// OnEvent receives an event for every account that cannot be read; see
	// strategy.Config.OnEvent. nil means no events.
	OnEvent func(context.Context, event.Event)
}

// Users stores accounts in a MongoDB collection, as documents of the application's user
// struct U. Make it with [NewUsers], and call EnsureIndexes (or VerifyIndexes) when the
// application starts. It is safe for concurrent use.
type Users[U strategy.User[ID], ID comparable] struct {
	store
	of      func(*U) *account.User[ID]
	fields  userFields
	anyCase *anyCase // nil without UsersConfig.AnyCase
}

// NewUsers returns a store of accounts in a database. Call NewUsers[Member](db, cfg) for a
// struct Member that embeds account.User inline; the other type parameters are inferred.
// It does no I/O. It returns an error if a field of cfg is invalid, if the account's
// fields are not at the top level of Member's documents, or if a field of Member hides
// one of them.
func NewUsers[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]](db *mongo.Database, cfg UsersConfig) (*Users[U, ID], error) {
	u := &Users[U, ID]{
		store: store{timeout: cfg.Timeout, registry: cfg.Registry, now: cfg.Now, onEvent: cfg.OnEvent},
		of:    func(u *U) *account.User[ID] { return P(u).Account() },
	}
	if err := u.open(db, "UsersConfig", cmp.Or(cfg.Collection, "users")); err != nil {
		return nil, err
	}
	if err := checkID[ID](u.registry, "UsersConfig"); err != nil {
		return nil, err
	}
	if err := checkUser(u.registry, u.of); err != nil {
		return nil, err
	}
	var err error
	if u.fields, err = newUserFields[U, ID](cfg.Fields); err != nil {
		return nil, err
	}
	if cfg.AnyCase {
		u.anyCase = &anyCase{}
	}
	u.indexed(u.coll, usersIndexSpec(u.fields.Fields, cfg.AnyCase), nil)
	u.check = u.checkAccounts
	return u, nil
}

// Insert implements account.Store.
func (u *Users[U, ID]) Insert(ctx context.Context, user U) error {
	ctx, cancel := u.bounded(ctx)
	defer cancel()
	email := u.of(&user).Email
	if err := u.taken(ctx, nil, email); err != nil {
		return err
	}
	var doc any = user
	if u.fields.renamed {
		raw, err := encode(u.registry, user)
		if err == nil {
			doc, err = u.fields.document(raw)
		}
		if err != nil {
			return fmt.Errorf("mongostore: encode the account: %w", err)
		}
	}
	err := retryDeadlock(ctx, func() error {
		_, err := u.coll.InsertOne(ctx, doc)
		return err
	})
	switch {
	case mongo.IsDuplicateKeyError(err):
		return u.duplicate(ctx, "insert the account", bson.D{{Key: u.fields.Email, Value: email}}, err)
	case err != nil:
		return fmt.Errorf("mongostore: insert the account: %w", err)
	}
	return nil
}

// duplicate returns the error of a write that failed with cause. That is ErrEmailTaken if an
// account has the address, which other matches. Otherwise it is ErrConflict if another unique
// key is a duplicate: the ID, or a key of the application. It looks for the address, as servers
// report duplicates in different ways.
func (u *Users[U, ID]) duplicate(ctx context.Context, doing string, other bson.D, cause error) error {
	switch taken, err := exists(ctx, u.coll, other); {
	case err != nil:
		return fmt.Errorf("mongostore: find the account: %w", err)
	case taken:
		return fmt.Errorf("mongostore: %w", account.ErrEmailTaken)
	case mongo.IsDuplicateKeyError(cause):
		return fmt.Errorf("mongostore: %w: %w", account.ErrConflict, cause)
	}
	return fmt.Errorf("mongostore: %s: %w", doing, cause)
}

// ByID implements account.Store and strategy.UserSource.
func (u *Users[U, ID]) ByID(ctx context.Context, id ID) (U, error) {
	return u.find(ctx, u.fields.ID, id)
}

// ByEmail implements account.Store.
func (u *Users[U, ID]) ByEmail(ctx context.Context, email string) (U, error) {
	if u.anyCase != nil {
		return u.findAnyCase(ctx, email)
	}
	return u.find(ctx, u.fields.Email, email)
}

// oneBatch limits Find to one document, as FindOne does. Unlike FindOne's result, a cursor
// allows a document to be changed before the client's options and codecs decode it.
var oneBatch = options.Find().SetLimit(-1)

func (u *Users[U, ID]) find(ctx context.Context, key string, value any) (user U, err error) {
	ctx, cancel := u.bounded(ctx)
	defer cancel()
	user, invalid, err := u.read(ctx, key, value)
	if invalid != nil {
		u.invalid(ctx, invalid.doc, nil, invalid.cause)
		err = invalid.cause
	}
	switch {
	case errors.Is(err, account.ErrUserNotFound):
		return user, fmt.Errorf("mongostore: %w", account.ErrUserNotFound)
	case err != nil:
		return user, fmt.Errorf("mongostore: find the account: %w", err)
	}
	return user, nil
}

// read reads the account in which a field has a value. If it cannot decode the document, it
// returns an invalidDocument.
func (u *Users[U, ID]) read(ctx context.Context, key string, value any) (user U, invalid *invalidDocument, err error) {
	var none U
	cur, err := u.coll.Find(ctx, bson.D{{Key: key, Value: value}}, oneBatch)
	if err != nil {
		return none, nil, err
	}
	defer func() { _ = cur.Close(ctx) }()
	if !cur.Next(ctx) {
		if err := cur.Err(); err != nil {
			return none, nil, err
		}
		return none, nil, account.ErrUserNotFound
	}
	if user, err = u.decode(cur); err != nil {
		return none, &invalidDocument{cur.Current, err}, nil
	}
	return user, nil, nil
}

// decode decodes the document at which a cursor is.
func (u *Users[U, ID]) decode(cur *mongo.Cursor) (user U, err error) {
	doc := cur.Current
	defer func() { cur.Current = doc }()
	if cur.Current, err = u.fields.canonical(doc); err == nil {
		err = cur.Decode(&user)
	}
	if err != nil {
		var none U
		return none, err
	}
	a := u.of(&user)
	a.CreatedAt = utc(a.CreatedAt)
	return user, nil
}

// decodeDocument is decode for a document.
func (u *Users[U, ID]) decodeDocument(doc bson.Raw) (user U, err error) {
	cur, err := mongo.NewCursorFromDocuments([]any{doc}, nil, u.registry)
	if err != nil {
		return user, err
	}
	defer func() { _ = cur.Close(context.Background()) }()
	cur.Next(context.Background())
	return u.decode(cur)
}

// Apply implements account.Store.
func (u *Users[U, ID]) Apply(ctx context.Context, id ID, change account.Change) error {
	ctx, cancel := u.bounded(ctx)
	defer cancel()
	filter := u.filterOf(id, change)
	if change.Email != nil {
		err := u.taken(ctx, &id, *change.Email)
		if errors.Is(err, account.ErrEmailTaken) {
			if there, failed := exists(ctx, u.coll, filter); failed == nil && !there {
				err = nil // the update says why
			}
		}
		if err != nil {
			return err
		}
	}
	matched, err := u.update(ctx, id, change)
	switch {
	// FerretDB reports a duplicate of an update as an internal error.
	case change.Email != nil && (mongo.IsDuplicateKeyError(err) || hasCode(err, codeInternalError)):
		other := bson.D{{Key: u.fields.Email, Value: *change.Email}, {Key: u.fields.ID, Value: bson.D{{Key: "$ne", Value: id}}}}
		return u.duplicate(ctx, "change the account", other, err)
	case err != nil:
		return fmt.Errorf("mongostore: change the account: %w", err)
	case matched:
		return nil
	case len(filter) == 1: // no conditions
		return fmt.Errorf("mongostore: %w", account.ErrUserNotFound)
	}
	switch there, err := exists(ctx, u.coll, filter[:1]); {
	case err != nil:
		return fmt.Errorf("mongostore: find the account: %w", err)
	case there:
		return fmt.Errorf("mongostore: %w", account.ErrConflict)
	}
	return fmt.Errorf("mongostore: %w", account.ErrUserNotFound)
}

// filterOf returns a filter for the account with an ID that meets the conditions of a change.
func (u *Users[U, ID]) filterOf(id ID, c account.Change) bson.D {
	filter := bson.D{{Key: u.fields.ID, Value: id}}
	if c.IfEmail != nil {
		filter = append(filter, has(u.fields.Email, *c.IfEmail))
	}
	if c.IfPassword != nil {
		filter = append(filter, has(u.fields.HashedPassword, c.IfPassword.Reveal()))
	}
	if c.IfVersion != nil {
		filter = append(filter, has(u.fields.TokenVersion, *c.IfVersion))
	}
	return filter
}

// has matches documents in which a field has a value. A field that is missing or null is read
// as the zero value, so it has that.
func has[T comparable](field string, value T) bson.E {
	var zero T
	if value == zero {
		return bson.E{Key: field, Value: bson.D{{Key: "$in", Value: bson.A{zero, nil}}}}
	}
	return bson.E{Key: field, Value: value}
}

// setOf returns the new values of a change.
func (u *Users[U, ID]) setOf(c account.Change) (set bson.D) {
	if c.Email != nil {
		set = append(set, bson.E{Key: u.fields.Email, Value: *c.Email})
	}
	if c.Password != nil {
		set = append(set, bson.E{Key: u.fields.HashedPassword, Value: c.Password.Reveal()})
	}
	for _, flag := range []struct {
		field string
		value *bool
	}{{u.fields.Active, c.Active}, {u.fields.Verified, c.Verified}, {u.fields.Superuser, c.Superuser}} {
		if flag.value != nil {
			set = append(set, bson.E{Key: flag.field, Value: *flag.value})
		}
	}
	return set
}

const versionField = "token_version"

// update makes a change in one update. It reports whether an account met the conditions.
func (u *Users[U, ID]) update(ctx context.Context, id ID, change account.Change) (matched bool, err error) {
	filter, set := u.filterOf(id, change), u.setOf(change)
	versionField := u.fields.TokenVersion
	var update bson.D
	if len(set) > 0 {
		update = append(update, bson.E{Key: "$set", Value: set})
	}
	switch {
	case change.RevokeTokens:
		update = append(update, bson.E{Key: "$inc", Value: bson.D{{Key: versionField, Value: int64(1)}}})
	case len(set) > 0:
		return u.updateOne(ctx, filter, update)
	default:
		return exists(ctx, u.coll, filter) // servers refuse an empty update
	}
	matched, err = u.updateOne(ctx, filter, update)
	if !hasCode(err, codeTypeMismatch) || change.IfVersion != nil && *change.IfVersion != 0 {
		return matched, err
	}
	// $inc refuses null, which counts as 0.
	change.IfVersion = nil
	isNull := bson.E{Key: versionField, Value: bson.D{{Key: "$type", Value: int32(bson.TypeNull)}}}
	matched, err = u.updateOne(ctx, append(u.filterOf(id, change), isNull),
		bson.D{{Key: "$set", Value: append(set[:len(set):len(set)], bson.E{Key: versionField, Value: int64(1)})}})
	if matched || err != nil {
		return matched, err
	}
	// It is not null, unless another update has just made it a number.
	matched, err = u.updateOne(ctx, filter, update)
	if hasCode(err, codeTypeMismatch) {
		err = fmt.Errorf("the field %s is not a number: %w", versionField, err)
	}
	return matched, err
}

// Edit implements account.Store: it sets the top-level fields of the document that edit
// changed.
func (u *Users[U, ID]) Edit(ctx context.Context, id ID, edit func(*U) error) (U, error) {
	ctx, cancel := u.bounded(ctx)
	defer cancel()
	var none U
	user, err := u.find(ctx, u.fields.ID, id)
	if err != nil {
		return none, err
	}
	before, err := encode(u.registry, user)
	if err != nil {
		return none, fmt.Errorf("mongostore: encode the account: %w", err)
	}
	own := *u.of(&user)
	if err := edit(&user); err != nil {
		return none, err
	}
	*u.of(&user) = own
	after, err := encode(u.registry, user)
	if err != nil {
		return none, fmt.Errorf("mongostore: encode the account: %w", err)
	}
	update, err := u.fields.edits(before, after)
	if err != nil {
		return none, fmt.Errorf("mongostore: edit the account: %w", err)
	}
	if len(update) == 0 {
		return user, nil
	}
	matched, err := u.updateOne(ctx, bson.D{{Key: u.fields.ID, Value: id}}, update)
	switch {
	case err != nil:
		return none, fmt.Errorf("mongostore: edit the account: %w", err)
	case !matched:
		return none, fmt.Errorf("mongostore: %w", account.ErrUserNotFound)
	}
	return user, nil
}

// edits returns the update that makes the application's fields of a document those of another.
func (u *userFields) edits(before, after bson.Raw) (bson.D, error) {
	old, err := byName(before)
	if err != nil {
		return nil, err
	}
	fields, err := after.Elements()
	if err != nil {
		return nil, err
	}
	var set, unset bson.D
	for _, f := range fields {
		name := f.Key()
		was, ok := old[name]
		delete(old, name)
		if ok && sameValue(was, f.Value()) {
			continue
		}
		if err := u.checkEdited(name); err != nil {
			return nil, err
		}
		set = append(set, bson.E{Key: name, Value: f.Value()})
	}
	for _, name := range slices.Sorted(maps.Keys(old)) {
		if err := u.checkEdited(name); err != nil {
			return nil, err
		}
		unset = append(unset, bson.E{Key: name, Value: ""})
	}
	var update bson.D
	if len(set) > 0 {
		update = append(update, bson.E{Key: "$set", Value: set})
	}
	if len(unset) > 0 {
		update = append(update, bson.E{Key: "$unset", Value: unset})
	}
	return update, nil
}

// checkEdited returns an error if an update of the field with a name would not change the
// application's field. Only an inline map can have such names.
func (u *userFields) checkEdited(name string) error {
	switch {
	case u.read[name] != "":
		return fmt.Errorf("the field %s is the account's", name)
	case strings.HasPrefix(name, "$") || strings.Contains(name, "."):
		return fmt.Errorf("the name of the field %s has a dollar or a dot, which an update takes for a path", name)
	}
	return nil
}

// sameValue reports whether two values are the same. The order of the fields in a document does
// not count: the driver writes maps in another order each time, and an edit that wrote back
// maps that it did not change would undo concurrent edits of them.
func sameValue(a, b bson.RawValue) bool {
	if a.Equal(b) {
		return true
	}
	if a.Type != b.Type || a.Type != bson.TypeEmbeddedDocument && a.Type != bson.TypeArray || len(a.Value) != len(b.Value) {
		return false
	}
	rest, err := byName(bson.Raw(a.Value))
	if err != nil {
		return false
	}
	fields, err := bson.Raw(b.Value).Elements()
	if err != nil {
		return false
	}
	for _, f := range fields {
		was, ok := rest[f.Key()]
		if !ok || !sameValue(was, f.Value()) {
			return false
		}
		delete(rest, f.Key())
	}
	return len(rest) == 0
}

// byName returns the values of a document by the names of the fields.
func byName(doc bson.Raw) (map[string]bson.RawValue, error) {
	fields, err := doc.Elements()
	if err != nil {
		return nil, err
	}
	values := make(map[string]bson.RawValue, len(fields))
	for _, f := range fields {
		values[f.Key()] = f.Value()
	}
	return values, nil
}

// List implements account.Store. It leaves out documents that cannot be read, with an event for
// each.
func (u *Users[U, ID]) List(ctx context.Context, prefix, after string, limit int) ([]U, error) {
	ctx, cancel := u.bounded(ctx)
	defer cancel()
	bounds := bson.D{{Key: "$gt", Value: after}}
	if prefix != "" {
		bounds = append(bounds, bson.E{Key: "$gte", Value: prefix}, bson.E{Key: "$lt", Value: prefix + string(utf8.MaxRune)})
	}
	byEmail := options.Find().SetSort(bson.D{{Key: u.fields.Email, Value: 1}}).SetBatchSize(int32(min(limit, math.MaxInt32)))
	cur, err := u.coll.Find(ctx, bson.D{{Key: u.fields.Email, Value: bounds}}, byEmail)
	if err != nil {
		return nil, fmt.Errorf("mongostore: list the accounts: %w", err)
	}
	defer func() { _ = cur.Close(ctx) }()
	var users []U
	for len(users) < limit && cur.Next(ctx) {
		user, err := u.decode(cur)
		if err != nil {
			u.invalid(ctx, cur.Current, nil, err)
			continue
		}
		users = append(users, user)
	}
	if err := cur.Err(); err != nil {
		return nil, fmt.Errorf("mongostore: list the accounts: %w", err)
	}
	return users, nil
}

// Delete implements account.Store.
func (u *Users[U, ID]) Delete(ctx context.Context, id ID) error {
	ctx, cancel := u.bounded(ctx)
	defer cancel()
	filter, deleted := bson.D{{Key: u.fields.ID, Value: id}}, false
	err := untilGone(ctx, u.coll, filter, func() (done bool, err error) {
		res, err := u.coll.DeleteOne(ctx, filter)
		if err == nil {
			deleted = res.DeletedCount > 0
		}
		return deleted, err
	})
	switch {
	case err != nil:
		return fmt.Errorf("mongostore: delete the account: %w", err)
	case !deleted:
		return fmt.Errorf("mongostore: %w", account.ErrUserNotFound)
	}
	return nil
}
