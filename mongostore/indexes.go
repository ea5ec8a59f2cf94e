package mongostore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// index describes an existing index or one that Latchkey needs.
type index struct {
	name   string
	keys   bson.D // the values are 1, -1, or 0 for any other value
	unique bool
	ttl    int64 // expireAfterSeconds, or noTTL
	// partial means that the index is sparse or partial, or has another collation than
	// anyCase, and so does not cover all documents alike.
	partial bool
	anyCase bool // the index compares without regard to case
}

const noTTL = -1

func (x index) String() string {
	var b strings.Builder
	b.WriteString(x.name + " {")
	for i, k := range x.keys {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s: %v", k.Key, k.Value)
	}
	b.WriteString("}")
	if x.unique {
		b.WriteString(", unique")
	}
	if x.ttl != noTTL {
		fmt.Fprintf(&b, ", expireAfterSeconds: %d", x.ttl)
	}
	if x.partial {
		b.WriteString(", sparse, partial or with a collation")
	}
	if x.anyCase {
		b.WriteString(", with a collation of strength 2")
	}
	return b.String()
}

func (x index) sameKeys(y index) bool {
	if len(x.keys) != len(y.keys) {
		return false
	}
	for i := range x.keys {
		if x.keys[i] != y.keys[i] {
			return false
		}
	}
	return true
}

// indexSpec lists the indexes that a collection needs.
type indexSpec struct {
	plain []index // in the order in which they are made
	ttl   index   // with ttl == noTTL, the collection must have no such TTL index
}

// indexAdmin has the server's commands on the indexes of a collection. It is an
// interface, so that tests can return every answer of a server.
type indexAdmin interface {
	list(ctx context.Context) ([]index, error)
	create(ctx context.Context, x index) error
	setTTL(ctx context.Context, name string, seconds int64) error
	drop(ctx context.Context, name string) error
}

// difference is a difference between the index that a collection needs and the one it has.
type difference struct {
	want index
	have *index // nil means missing
	// mendable means that EnsureIndexes can resolve the difference.
	mendable bool
}

func (d difference) err(collection string) error {
	switch {
	case d.have == nil:
		return fmt.Errorf("%w: %s lacks %v", ErrIndexMismatch, collection, d.want)
	case d.want.ttl == noTTL && d.have.ttl != noTTL:
		return fmt.Errorf("%w: %s has %v, which would remove tokens that do not expire", ErrIndexMismatch, collection, d.have)
	default:
		return fmt.Errorf("%w: %s has %v, want %v", ErrIndexMismatch, collection, d.have, d.want)
	}
}

// compare returns how the existing indexes differ from want, or nil if one equals it.
func compare(want index, have []index) *difference {
	var diff *difference
	for _, x := range have {
		switch {
		case want.anyCase && x.sameKeys(want) && x.anyCase:
			return nil // unique or not
		case x.anyCase != want.anyCase && x.name != want.name: // both can exist
		case x.anyCase != want.anyCase:
			diff = &difference{want, &x, false}
		case x.sameKeys(want):
			if x.unique == want.unique && x.ttl == want.ttl && !x.partial {
				return nil // under any name
			}
			// Servers can change only the expiry in place. A unique index instead of a
			// plain one would refuse tokens; a plain one would accept duplicates.
			diff = &difference{want, &x, x.unique == want.unique && !x.partial}
		case x.name == want.name && diff == nil:
			diff = &difference{want, &x, false}
		}
	}
	if diff == nil {
		return &difference{want: want, mendable: true}
	}
	return diff
}

// compareTTL is compare for the TTL index.
func compareTTL(want index, have []index) *difference {
	// The direction of a TTL index does not matter.
	have = slices.Clone(have)
	for i, x := range have {
		if len(x.keys) == 1 && len(want.keys) == 1 && x.keys[0].Key == want.keys[0].Key && x.ttl != noTTL {
			have[i].keys = want.keys
		}
	}
	if want.ttl != noTTL {
		return compare(want, have)
	}
	for _, x := range have {
		if x.sameKeys(want) && x.ttl != noTTL {
			return &difference{want, &x, true}
		}
	}
	return nil
}

// reconcile makes the collection's indexes match the spec. Other instances may do the
// same at the same time: after an error that their progress explains, it starts again. On
// a server without TTL indexes it makes all other indexes and returns ErrTTLUnsupported.
func reconcile(ctx context.Context, admin indexAdmin, collection string, want indexSpec) error {
	const attempts = 10
	for attempt := 1; ; attempt++ {
		done, err := reconcileOnce(ctx, admin, collection, want)
		if done || err != nil && !anotherMayHaveActed(err) {
			return err
		}
		if attempt == attempts {
			if err == nil {
				err = fmt.Errorf("%w: the indexes of %s keep changing", ErrIndexMismatch, collection)
			}
			return err
		}
		if err != nil {
			if perr := pause(ctx, time.Duration(attempt)*10*time.Millisecond); perr != nil {
				return errors.Join(err, perr)
			}
		}
	}
}

// reconcileOnce lists the indexes and resolves the differences. It is done if there was
// none.
func reconcileOnce(ctx context.Context, admin indexAdmin, collection string, want indexSpec) (done bool, err error) {
	have, err := admin.list(ctx)
	if err != nil {
		return false, err
	}
	var missing []index
	var conflicts []error
	for _, w := range want.plain {
		switch d := compare(w, have); {
		case d == nil:
		case d.have == nil:
			missing = append(missing, w)
		default:
			conflicts = append(conflicts, d.err(collection))
		}
	}
	ttl := compareTTL(want.ttl, have)
	if ttl != nil && !ttl.mendable {
		conflicts = append(conflicts, ttl.err(collection))
	}
	if len(conflicts) > 0 {
		return true, errors.Join(conflicts...)
	}
	// One command for each index: an error with one must not prevent the others, and
	// FerretDB v1 aborts a command if several of its indexes exist.
	for _, x := range missing {
		if err := admin.create(ctx, x); err != nil {
			return false, err
		}
	}
	switch {
	case ttl == nil:
		return len(missing) == 0, nil
	case ttl.have == nil:
		err = admin.create(ctx, want.ttl)
	case want.ttl.ttl == noTTL:
		err = admin.drop(ctx, ttl.have.name)
	default:
		err = admin.setTTL(ctx, ttl.have.name, want.ttl.ttl)
		if hasCode(err, codeInvalidOptions) {
			// DocumentDB cannot turn a plain index into a TTL index. No query uses this
			// index, so it can be dropped and made again.
			if err = admin.drop(ctx, ttl.have.name); err == nil {
				err = admin.create(ctx, want.ttl)
			}
		}
	}
	if hasCode(err, codeNotImplemented, codeCommandNotFound, codeCommandNotSupported) {
		return true, fmt.Errorf("%w: %w", ErrTTLUnsupported, err)
	}
	return false, err
}

// anotherMayHaveActed reports whether another instance's index commands explain the error.
func anotherMayHaveActed(err error) bool {
	return hasCode(err, codeNamespaceNotFound, codeIndexNotFound, codeNamespaceExists, codeIndexAlreadyExists,
		codeIndexOptionsConflict, codeIndexKeySpecsConflict, codeWriteConflict, codeConflictingOperation,
		codeBackgroundOperation) || isDeadlock(err)
}

// verify reports every difference and changes nothing.
func verify(ctx context.Context, admin indexAdmin, collection string, want indexSpec) error {
	have, err := admin.list(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, w := range want.plain {
		if d := compare(w, have); d != nil {
			errs = append(errs, d.err(collection))
		}
	}
	if d := compareTTL(want.ttl, have); d != nil {
		errs = append(errs, d.err(collection))
	}
	return errors.Join(errs...)
}

// tokensIndexSpec returns the indexes of access_tokens.
func tokensIndexSpec(lifetime, grace time.Duration) indexSpec {
	ttl := index{name: "created_at_1", keys: bson.D{{Key: "created_at", Value: 1}}, ttl: noTTL}
	if lifetime > 0 {
		ttl.ttl = int64((lifetime + grace + time.Second - 1) / time.Second)
	}
	return indexSpec{
		plain: []index{
			{name: "token_1", keys: bson.D{{Key: "token", Value: 1}}, unique: true, ttl: noTTL},
			{name: "user_id_1_created_at_-1", keys: bson.D{{Key: "user_id", Value: 1}, {Key: "created_at", Value: -1}}, ttl: noTTL},
		},
		ttl: ttl,
	}
}

// withoutTTL returns the spec for a server without TTL indexes: a plain index instead.
func (s indexSpec) withoutTTL() indexSpec {
	plain := s.ttl
	plain.ttl = noTTL
	return indexSpec{plain: append(s.plain[:len(s.plain):len(s.plain)], plain), ttl: plain}
}

// revocationsIndexSpec returns the index of revocations. Followers find new revocations
// by it, and the server removes old ones.
func revocationsIndexSpec() indexSpec {
	return indexSpec{ttl: index{name: "at_1", keys: bson.D{{Key: "at", Value: 1}}, ttl: int64(revocationsKept / time.Second)}}
}

// expiryIndex returns the TTL index of documents that have a time of expiry each.
func expiryIndex() index {
	return index{name: "expires_at_1", keys: bson.D{{Key: "expires_at", Value: 1}}, ttl: int64(expiryGrace / time.Second)}
}

// oneTimeTokensIndexSpec returns the indexes of one_time_tokens.
func oneTimeTokensIndexSpec() indexSpec {
	keys := bson.D{{Key: "user_id", Value: 1}, {Key: "purpose", Value: 1}, {Key: "created_at", Value: -1}}
	return indexSpec{
		plain: []index{{name: "user_id_1_purpose_1_created_at_-1", keys: keys, ttl: noTTL}},
		ttl:   expiryIndex(),
	}
}

// auditIndexSpec returns the indexes of audit. Pages of a user's events are read in the order of
// the first.
func auditIndexSpec(retention time.Duration) indexSpec {
	keys := bson.D{{Key: "user_id", Value: 1}, {Key: "at", Value: -1}, {Key: "_id", Value: -1}}
	return indexSpec{
		plain: []index{{name: "user_id_1_at_-1__id_-1", keys: keys, ttl: noTTL}},
		ttl:   index{name: "at_1", keys: bson.D{{Key: "at", Value: 1}}, ttl: int64((retention + time.Second - 1) / time.Second)},
	}
}

// oauthAccountsIndexSpec returns the indexes of oauth_accounts.
func oauthAccountsIndexSpec() indexSpec {
	return indexSpec{
		plain: []index{
			{name: "issuer_1_subject_1", keys: bson.D{{Key: "issuer", Value: 1}, {Key: "subject", Value: 1}}, unique: true, ttl: noTTL},
			{name: "user_id_1", keys: bson.D{{Key: "user_id", Value: 1}}, ttl: noTTL},
		},
		ttl: index{ttl: noTTL},
	}
}

// usersIndexSpec returns the indexes of users.
func usersIndexSpec(f Fields, anyCase bool) indexSpec {
	unique := func(field string) index {
		return index{name: field + "_1", keys: bson.D{{Key: field, Value: 1}}, unique: true, ttl: noTTL}
	}
	spec := indexSpec{plain: []index{unique(f.Email)}, ttl: index{ttl: noTTL}}
	if f.ID != "_id" {
		spec.plain = append(spec.plain, unique(f.ID))
	}
	if anyCase {
		x := index{name: f.Email + "_any_case", keys: bson.D{{Key: f.Email, Value: 1}}, ttl: noTTL, anyCase: true}
		spec.plain = append(spec.plain, x)
	}
	return spec
}

// on returns the spec without what the server of a collection lacks: collations.
func (spec indexSpec) on(ctx context.Context, coll *mongo.Collection) (indexSpec, error) {
	anyCase := func(x index) bool { return x.anyCase }
	if !slices.ContainsFunc(spec.plain, anyCase) {
		return spec, nil
	}
	err := coll.FindOne(ctx, bson.D{{Key: "_id", Value: nil}}, options.FindOne().SetCollation(ignoreCase)).Err()
	switch {
	case isUnsupported(err):
		spec.plain = slices.DeleteFunc(slices.Clone(spec.plain), anyCase)
	case err != nil && !errors.Is(err, mongo.ErrNoDocuments):
		return spec, fmt.Errorf("mongostore: find out whether the server has collations: %w", err)
	}
	return spec, nil
}

// mongoIndexes is the indexAdmin of a collection on a server.
type mongoIndexes struct{ coll *mongo.Collection }

func (m mongoIndexes) list(ctx context.Context) ([]index, error) {
	cur, err := m.coll.Indexes().List(ctx)
	if hasCode(err, codeNamespaceNotFound) {
		return nil, nil // the collection does not exist yet
	}
	if err != nil {
		return nil, fmt.Errorf("list indexes: %w", err)
	}
	defer func() { _ = cur.Close(ctx) }()
	var xs []index
	for cur.Next(ctx) {
		xs = append(xs, parseIndex(cur.Current))
	}
	if err := cur.Err(); err != nil {
		return nil, fmt.Errorf("list indexes: %w", err)
	}
	return xs, nil
}

// parseIndex reads a document of listIndexes. Servers and shells write numbers in any
// BSON type.
func parseIndex(doc bson.Raw) index {
	x := index{ttl: noTTL}
	x.name, _ = doc.Lookup("name").StringValueOK()
	x.unique, _ = doc.Lookup("unique").BooleanOK()
	if v := doc.Lookup("expireAfterSeconds"); v.IsNumber() {
		x.ttl = v.AsInt64()
	}
	sparse, _ := doc.Lookup("sparse").BooleanOK()
	x.partial = sparse || !doc.Lookup("partialFilterExpression").IsZero()
	if collation := doc.Lookup("collation"); !collation.IsZero() {
		strength := doc.Lookup("collation", "strength")
		locale, _ := doc.Lookup("collation", "locale").StringValueOK()
		x.anyCase = strength.IsNumber() && strength.AsInt64() == int64(ignoreCase.Strength) && locale == ignoreCase.Locale
		x.partial = x.partial || !x.anyCase
	}
	if keys, ok := doc.Lookup("key").DocumentOK(); ok {
		elems, _ := keys.Elements()
		for _, e := range elems {
			direction := 0
			if v := e.Value(); v.IsNumber() {
				direction = int(v.AsInt64())
			}
			x.keys = append(x.keys, bson.E{Key: e.Key(), Value: direction})
		}
	}
	return x
}

func (m mongoIndexes) create(ctx context.Context, x index) error {
	opts := options.Index().SetName(x.name)
	if x.unique {
		opts.SetUnique(true)
	}
	if x.ttl != noTTL {
		opts.SetExpireAfterSeconds(int32(x.ttl)) // the constructors check the range
	}
	if x.anyCase {
		opts.SetCollation(ignoreCase)
	}
	_, err := m.coll.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: x.keys, Options: opts})
	switch {
	case mongo.IsDuplicateKeyError(err):
		return fmt.Errorf("create the index %s: several documents of %s have the same %s; change or remove all but one of them: %w", x.name, m.coll.Name(), x.keys[0].Key, err)
	case err != nil:
		return fmt.Errorf("create the index %s: %w", x.name, err)
	}
	return nil
}

// setTTL identifies the index by its name: FerretDB v2 can fail to find it by its keys.
func (m mongoIndexes) setTTL(ctx context.Context, name string, seconds int64) error {
	err := m.coll.Database().RunCommand(ctx, bson.D{
		{Key: "collMod", Value: m.coll.Name()},
		{Key: "index", Value: bson.D{{Key: "name", Value: name}, {Key: "expireAfterSeconds", Value: seconds}}},
	}).Err()
	if err != nil {
		return fmt.Errorf("change the TTL index: %w", err)
	}
	return nil
}

func (m mongoIndexes) drop(ctx context.Context, name string) error {
	if err := m.coll.Indexes().DropOne(ctx, name); err != nil {
		return fmt.Errorf("drop the index %s: %w", name, err)
	}
	return nil
}
