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

// index describes an index as it is, or as it must be.
type index struct {
	name   string
	keys   bson.D // values are 1 or -1; 0 stands for what is neither
	unique bool
	ttl    int64 // expireAfterSeconds; noTTL for none
	// partial is set where the index does not cover every document alike: it is
	// sparse, partial or has a collation.
	partial bool
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

// wanted are the indexes of a collection.
type wanted struct {
	plain []index // in the order in which they are made
	ttl   index   // with ttl == noTTL: there must be none that expires documents
}

// indexAdmin is what the reconciling needs of a server. An interface, so that
// tests can give every answer that servers give.
type indexAdmin interface {
	list(ctx context.Context) ([]index, error)
	create(ctx context.Context, x index) error
	setTTL(ctx context.Context, name string, seconds int64) error
	drop(ctx context.Context, name string) error
}

// difference is what keeps a collection from having a wanted index.
type difference struct {
	want index
	have *index // nil: missing
	// mendable differences are those that EnsureIndexes mends.
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

// compare says how the indexes that a collection has differ from a wanted one,
// or nil where they do not.
func compare(want index, have []index) *difference {
	var diff *difference
	for _, x := range have {
		switch {
		case x.sameKeys(want):
			if x.unique == want.unique && x.ttl == want.ttl && !x.partial {
				return nil // whatever its name
			}
			// Only expiry can be changed in place. A unique index in the place of
			// a plain one would refuse tokens, a plain one accept duplicates.
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

// compareTTL is compare for the index that collects expired tokens.
func compareTTL(want index, have []index) *difference {
	// A TTL index works alike in either direction.
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

// reconcile makes the indexes as they are wanted. Other instances may be doing
// the same: every answer that another one's progress explains makes it look
// again. It returns ErrTTLUnsupported, with all else in place, where the server
// has no TTL indexes.
func reconcile(ctx context.Context, admin indexAdmin, collection string, want wanted) error {
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

// reconcileOnce looks, and mends what it finds. It is done when it found nothing
// to mend.
func reconcileOnce(ctx context.Context, admin indexAdmin, collection string, want wanted) (done bool, err error) {
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
	// One command each: what is wrong with one must not keep the others away,
	// and FerretDB v1 breaks off where several of one command exist already.
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
			// DocumentDB does not turn a plain index into a TTL one. Nothing but
			// the collecting uses it: make it anew.
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

func anotherMayHaveActed(err error) bool {
	return hasCode(err, codeNamespaceNotFound, codeIndexNotFound, codeNamespaceExists, codeIndexAlreadyExists,
		codeIndexOptionsConflict, codeIndexKeySpecsConflict, codeWriteConflict, codeConflictingOperation,
		codeBackgroundOperation) || isDeadlock(err)
}

// verify reports every difference and changes nothing.
func verify(ctx context.Context, admin indexAdmin, collection string, want wanted) error {
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

// wanted returns the indexes of access_tokens.
func (t *Tokens[ID]) wanted() wanted {
	ttl := index{name: "created_at_1", keys: bson.D{{Key: "created_at", Value: 1}}, ttl: noTTL}
	if t.cfg.Lifetime > 0 {
		ttl.ttl = int64((t.cfg.Lifetime + t.cfg.TTLGrace + time.Second - 1) / time.Second)
	}
	return wanted{
		plain: []index{
			{name: "token_1", keys: bson.D{{Key: "token", Value: 1}}, unique: true, ttl: noTTL},
			{name: "user_id_1_created_at_-1", keys: bson.D{{Key: "user_id", Value: 1}, {Key: "created_at", Value: -1}}, ttl: noTTL},
		},
		ttl: ttl,
	}
}

// withoutTTL is what is wanted on a server that has no TTL indexes.
func (w wanted) withoutTTL() wanted {
	plain := w.ttl
	plain.ttl = noTTL
	return wanted{plain: append(w.plain[:len(w.plain):len(w.plain)], plain), ttl: plain}
}

// EnsureIndexes makes the indexes of access_tokens and revocations, in as far as they are not
// there yet. Call it whenever the application starts: it is idempotent, and safe
// from many instances at once.
//
// A TTL index of another lifetime is set to this one with collMod. Mind that a
// much shorter lifetime makes the server remove all at once what is older. With
// a Lifetime of 0 a TTL index is dropped. An index that cannot be mended so (one
// of the same name with other keys, a token index that is not unique) is an
// error wrapping [ErrIndexMismatch], and stays as it is. A server without TTL
// indexes is [ErrTTLUnsupported], or has its tokens purged by this process; see
// TokensConfig.PurgeInterval.
func (t *Tokens[ID]) EnsureIndexes(ctx context.Context) error {
	return errors.Join(t.purger.ensureIndexes(ctx), t.revocationsPurger.ensureIndexes(ctx))
}

// VerifyIndexes reports what EnsureIndexes would have to do, and does none of
// it: for an application whose database user may not manage indexes. Every index
// that is missing or different is in the error, which wraps [ErrIndexMismatch].
// With TokensConfig.PurgeInterval set, a plain index in the place of the TTL
// index is accepted, and the periodic purge is started.
func (t *Tokens[ID]) VerifyIndexes(ctx context.Context) error {
	return errors.Join(t.purger.verifyIndexes(ctx, t.cfg.Timeout), t.revocationsPurger.verifyIndexes(ctx, t.cfg.Timeout))
}

// revocationsWanted returns the index of revocations, by which followers find what
// is new and the server collects what is old.
func revocationsWanted() wanted {
	return wanted{ttl: index{name: "at_1", keys: bson.D{{Key: "at", Value: 1}}, ttl: int64(revocationsKept / time.Second)}}
}

// usersWanted returns the indexes of users.
func usersWanted() wanted {
	return wanted{
		plain: []index{{name: "email_1", keys: bson.D{{Key: "email", Value: 1}}, unique: true, ttl: noTTL}},
		ttl:   index{ttl: noTTL},
	}
}

// EnsureIndexes makes the unique index of users on email, if it is not there
// yet. It is idempotent, and safe from many instances at once. An index that is
// in its way is an error wrapping [ErrIndexMismatch]; accounts that share an
// address are the server's duplicate key error.
func (u *Users[U, ID]) EnsureIndexes(ctx context.Context) error {
	ctx, cancel := bounded(ctx, indexTimeout)
	defer cancel()
	if err := reconcile(ctx, mongoIndexes{u.coll}, u.coll.Name(), usersWanted()); err != nil {
		return fmt.Errorf("mongostore: ensure indexes: %w", err)
	}
	return nil
}

// VerifyIndexes reports what EnsureIndexes would have to do, as an error
// wrapping [ErrIndexMismatch], and does none of it.
func (u *Users[U, ID]) VerifyIndexes(ctx context.Context) error {
	ctx, cancel := bounded(ctx, u.cfg.Timeout)
	defer cancel()
	if err := verify(ctx, mongoIndexes{u.coll}, u.coll.Name(), usersWanted()); err != nil {
		return fmt.Errorf("mongostore: verify indexes: %w", err)
	}
	return nil
}

// mongoIndexes is indexAdmin over a collection.
type mongoIndexes struct{ coll *mongo.Collection }

func (m mongoIndexes) list(ctx context.Context) ([]index, error) {
	cur, err := m.coll.Indexes().List(ctx)
	if hasCode(err, codeNamespaceNotFound) {
		return nil, nil // no collection yet
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

// parseIndex reads a document of listIndexes. Servers and shells write numbers
// in any of BSON's types.
func parseIndex(doc bson.Raw) index {
	x := index{ttl: noTTL}
	x.name, _ = doc.Lookup("name").StringValueOK()
	x.unique, _ = doc.Lookup("unique").BooleanOK()
	if v := doc.Lookup("expireAfterSeconds"); v.IsNumber() {
		x.ttl = v.AsInt64()
	}
	sparse, _ := doc.Lookup("sparse").BooleanOK()
	x.partial = sparse || !doc.Lookup("partialFilterExpression").IsZero() || !doc.Lookup("collation").IsZero()
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
		opts.SetExpireAfterSeconds(int32(x.ttl)) // NewTokens bounds it
	}
	if _, err := m.coll.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: x.keys, Options: opts}); err != nil {
		return fmt.Errorf("create the index %s: %w", x.name, err)
	}
	return nil
}

// setTTL names the index by its name: by its keys, FerretDB v2 can fail to find
// it.
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
