package mongostore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/internal/notify"
	"github.com/latchkey-go/latchkey/strategy"
)

// UsersConfig configures [Users]. The zero value is usable.
type UsersConfig struct {
	// Collection is the collection's name. Default "users".
	Collection string

	// Timeout bounds every call whose context has no deadline. Default
	// [DefaultTimeout]. EnsureIndexes has 5 minutes instead.
	Timeout time.Duration

	// Registry has the codecs for the user type. Default [NewRegistry].
	Registry *bson.Registry
}

// Users keeps accounts in a MongoDB collection, as documents of the
// application's user struct U. Make it with [NewUsers], and call EnsureIndexes
// (or VerifyIndexes) when the application starts. It is safe for concurrent use.
type Users[U strategy.User[ID], ID comparable] struct {
	coll    *mongo.Collection
	of      func(*U) *account.User[ID]
	cfg     UsersConfig
	changed notify.Users[ID]
}

// OnUserChange implements strategy.UserNotifier.
func (u *Users[U, ID]) OnUserChange(f func(ctx context.Context, id ID) error) (stop func()) {
	return u.changed.Listen(f)
}

// NewUsers returns the store of accounts in a database: NewUsers[Member](db,
// cfg), for a struct Member that embeds account.User inline. The other type
// parameters are inferred. It does no I/O. It returns an error that names the
// field where the configuration is wrong, or where U does not have the account's
// fields at the top of its document.
func NewUsers[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]](db *mongo.Database, cfg UsersConfig) (*Users[U, ID], error) {
	if db == nil {
		return nil, errors.New("mongostore: db is nil")
	}
	if cfg.Collection == "" {
		cfg.Collection = "users"
	}
	if cfg.Timeout < 0 {
		return nil, fmt.Errorf("mongostore: UsersConfig.Timeout is negative: %v", cfg.Timeout)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Registry == nil {
		cfg.Registry = defaultRegistry
	}
	if err := checkID[ID](cfg.Registry); err != nil {
		return nil, err
	}
	of := func(u *U) *account.User[ID] { return P(u).Account() }
	if err := checkUser(cfg.Registry, of); err != nil {
		return nil, err
	}
	return &Users[U, ID]{coll: collection(db, cfg.Collection, cfg.Registry), of: of, cfg: cfg}, nil
}

// checkUser makes sure that the documents of U have the account's fields where
// the queries look for them. Without bson:",inline" they would be one level
// deeper, and no account would ever be found.
func checkUser[U any, ID comparable](reg *bson.Registry, of func(*U) *account.User[ID]) error {
	var probe U
	of(&probe).Email, of(&probe).HashedPassword = "email", "hash"
	doc, err := encode(reg, probe)
	if err != nil {
		return fmt.Errorf("mongostore: %T cannot be stored: %w", probe, err)
	}
	email, _ := doc.Lookup("email").StringValueOK()
	hash, _ := doc.Lookup("hashed_password").StringValueOK()
	_, err = doc.LookupErr("_id")
	if email != "email" || hash != "hash" || err != nil {
		return fmt.Errorf("mongostore: a document of %T lacks _id, email or hashed_password: embed account.User with the tag `bson:\",inline\"`", probe)
	}
	return nil
}

// Insert implements account.Store.
func (u *Users[U, ID]) Insert(ctx context.Context, user U) error {
	ctx, cancel := bounded(ctx, u.cfg.Timeout)
	defer cancel()
	err := retryDeadlock(ctx, func() error {
		_, err := u.coll.InsertOne(ctx, user)
		return err
	})
	switch {
	case mongo.IsDuplicateKeyError(err):
		return u.taken(ctx, user, err)
	case err != nil:
		return fmt.Errorf("mongostore: insert the account: %w", err)
	}
	return nil
}

// taken tells an address that is taken from another unique key that is: the ID,
// or one of the application's own. Servers do not agree on how an answer says
// so, hence the look-up.
func (u *Users[U, ID]) taken(ctx context.Context, user U, cause error) error {
	switch _, err := u.ByEmail(ctx, u.of(&user).Email); {
	case err == nil:
		return fmt.Errorf("mongostore: %w", account.ErrEmailTaken)
	case errors.Is(err, account.ErrUserNotFound):
		return fmt.Errorf("mongostore: %w: %w", account.ErrConflict, cause)
	default:
		return err
	}
}

// ByID implements account.Store and strategy.UserSource.
func (u *Users[U, ID]) ByID(ctx context.Context, id ID) (U, error) {
	return u.find(ctx, "_id", id)
}

// ByEmail implements account.Store.
func (u *Users[U, ID]) ByEmail(ctx context.Context, email string) (U, error) {
	return u.find(ctx, "email", email)
}

func (u *Users[U, ID]) find(ctx context.Context, key string, value any) (U, error) {
	ctx, cancel := bounded(ctx, u.cfg.Timeout)
	defer cancel()
	var user, none U
	err := u.coll.FindOne(ctx, bson.D{{Key: key, Value: value}}).Decode(&user)
	switch {
	case errors.Is(err, mongo.ErrNoDocuments):
		return none, fmt.Errorf("mongostore: %w", account.ErrUserNotFound)
	case err != nil:
		return none, fmt.Errorf("mongostore: find the account: %w", err)
	}
	return u.inUTC(user), nil
}

func (u *Users[U, ID]) inUTC(user U) U {
	a := u.of(&user)
	a.CreatedAt, a.NotBefore = utc(a.CreatedAt), utc(a.NotBefore)
	return user
}

// ReplacePassword implements account.Store.
func (u *Users[U, ID]) ReplacePassword(ctx context.Context, id ID, old, new account.PasswordHash, notBefore time.Time) error {
	matched, err := u.update(ctx, id,
		bson.D{{Key: "_id", Value: id}, {Key: "hashed_password", Value: string(old)}},
		bson.D{{Key: "hashed_password", Value: string(new)}}, notBefore)
	switch {
	case err != nil:
		return fmt.Errorf("mongostore: replace the password: %w", err)
	case !matched:
		return fmt.Errorf("mongostore: %w", account.ErrConflict)
	}
	return nil
}

// Apply implements account.Store.
func (u *Users[U, ID]) Apply(ctx context.Context, id ID, change account.Change) error {
	var set bson.D
	if change.Active != nil {
		set = append(set, bson.E{Key: "is_active", Value: *change.Active})
	}
	if set == nil && change.NotBefore.IsZero() {
		_, err := u.ByID(ctx, id) // an empty update is an error of its own
		return err
	}
	matched, err := u.update(ctx, id, bson.D{{Key: "_id", Value: id}}, set, change.NotBefore)
	switch {
	case err != nil:
		return fmt.Errorf("mongostore: change the account: %w", err)
	case !matched:
		return fmt.Errorf("mongostore: %w", account.ErrUserNotFound)
	}
	return nil
}

// update sets fields of the account that a filter finds, and moves NotBefore on
// unless the time is zero. It reports whether the filter found one.
func (u *Users[U, ID]) update(ctx context.Context, id ID, filter, set bson.D, notBefore time.Time) (matched bool, err error) {
	matched, err = u.updateOne(ctx, filter, set, notBefore)
	if matched || err != nil { // without an answer, it may have been made
		err = u.changed.Tell(ctx, id, err)
	}
	return matched, err
}

func (u *Users[U, ID]) updateOne(ctx context.Context, filter, set bson.D, notBefore time.Time) (matched bool, err error) {
	ctx, cancel := bounded(ctx, u.cfg.Timeout)
	defer cancel()
	const field = "tokens_not_before"
	for !notBefore.IsZero() {
		earlier := bson.E{Key: "$or", Value: bson.A{
			bson.D{{Key: field, Value: bson.D{{Key: "$lt", Value: notBefore}}}},
			bson.D{{Key: field, Value: nil}}, // or missing
		}}
		matched, err = u.set(ctx, append(slices.Clip(filter), earlier), append(slices.Clip(set), bson.E{Key: field, Value: notBefore}))
		if matched || err != nil {
			return matched, err
		}
		// There is no such account, or it is as late already: a login can have seen that.
		var is struct {
			NotBefore time.Time `bson:"tokens_not_before"`
		}
		err = u.coll.FindOne(ctx, filter, options.FindOne().SetProjection(bson.D{{Key: field, Value: 1}})).Decode(&is)
		switch {
		case errors.Is(err, mongo.ErrNoDocuments):
			return false, nil
		case err != nil:
			return false, err
		}
		if next := is.NotBefore.Add(time.Millisecond); next.After(notBefore) {
			notBefore = next
		}
	}
	return u.set(ctx, filter, set)
}

func (u *Users[U, ID]) set(ctx context.Context, filter, set bson.D) (matched bool, err error) {
	err = retryDeadlock(ctx, func() error {
		res, err := u.coll.UpdateOne(ctx, filter, bson.D{{Key: "$set", Value: set}})
		if err == nil {
			matched = res.MatchedCount > 0
		}
		return err
	})
	return matched, err
}
