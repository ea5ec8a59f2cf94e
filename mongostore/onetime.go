package mongostore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
)

// OneTimeTokensConfig configures [OneTimeTokens]. The zero value is usable.
type OneTimeTokensConfig struct {
	// Collection is the collection's name. Default "one_time_tokens".
	Collection string

	// PurgeInterval is a substitute on servers without TTL indexes; see
	// AttemptsConfig.PurgeInterval.
	PurgeInterval time.Duration

	// Timeout bounds every call whose context has no deadline. Default 3 seconds.
	// EnsureIndexes has 5 minutes instead.
	Timeout time.Duration

	// Registry has the codec for the ID type. Default [NewRegistry].
	Registry *bson.Registry

	// Now is the clock of Purge. Default [time.Now].
	Now func() time.Time

	// OnEvent receives an event for every document that cannot be read, and for every failure
	// of the periodic purge; see strategy.Config.OnEvent. nil means no events.
	OnEvent func(context.Context, event.Event)
}

// oneTimeGrace is how long an expired token is kept: the server removes tokens by its own
// clock.
const oneTimeGrace = 5 * time.Minute

// OneTimeTokens stores one-time tokens in a MongoDB collection:
//
//	one_time_tokens
//	  _id            the token's digest
//	  purpose        "verification", "password_reset" or "email_change"
//	  user_id        the application's ID type, natively   index {user_id: 1, purpose: 1, created_at: -1}
//	  sent_to        the address to which it was sent
//	  email          the account's address when it was issued
//	  token_version  the account's token version when it was issued
//	  created_at     date
//	  expires_at     date                                  TTL index {expires_at: 1}, 5 minutes later
//
// Make it with [NewOneTimeTokens], call EnsureIndexes (or VerifyIndexes) when the application
// starts, and Close when it ends. Shard the collection by {_id: "hashed"}. It is safe for
// concurrent use.
type OneTimeTokens[ID comparable] struct {
	store
}

var _ account.OneTimeTokenStore[int64] = (*OneTimeTokens[int64])(nil)

// oneTimeDoc is a document of the collection.
type oneTimeDoc[ID comparable] struct {
	Digest       string          `bson:"_id"`
	Purpose      account.Purpose `bson:"purpose"`
	UserID       ID              `bson:"user_id"`
	SentTo       string          `bson:"sent_to"`
	Email        string          `bson:"email"`
	TokenVersion int64           `bson:"token_version"`
	CreatedAt    time.Time       `bson:"created_at"`
	ExpiresAt    time.Time       `bson:"expires_at"`
}

// NewOneTimeTokens returns a store of one-time tokens in a database. It does no I/O. It returns
// an error if a field of cfg is invalid, or if BSON cannot represent the ID type.
func NewOneTimeTokens[ID comparable](db *mongo.Database, cfg OneTimeTokensConfig) (*OneTimeTokens[ID], error) {
	o := &OneTimeTokens[ID]{store{
		purgeInterval: cfg.PurgeInterval, timeout: cfg.Timeout, registry: cfg.Registry, now: cfg.Now, onEvent: cfg.OnEvent,
	}}
	if err := o.open(db, "OneTimeTokensConfig", cmp.Or(cfg.Collection, "one_time_tokens")); err != nil {
		return nil, err
	}
	if err := checkID[ID](o.registry, "OneTimeTokensConfig"); err != nil {
		return nil, err
	}
	o.indexed(o.coll, indexSpec{
		plain: []index{{
			name: "user_id_1_purpose_1_created_at_-1",
			keys: bson.D{{Key: "user_id", Value: 1}, {Key: "purpose", Value: 1}, {Key: "created_at", Value: -1}}, ttl: noTTL,
		}},
		ttl: index{name: "expires_at_1", keys: bson.D{{Key: "expires_at", Value: 1}}, ttl: int64(oneTimeGrace / time.Second)},
	}, o.Purge)
	return o, nil
}

// Insert implements account.OneTimeTokenStore.
func (o *OneTimeTokens[ID]) Insert(ctx context.Context, token account.OneTimeToken[ID], keep int) error {
	ctx, cancel := o.bounded(ctx)
	defer cancel()
	err := retryDeadlock(ctx, func() error {
		_, err := o.coll.InsertOne(ctx, oneTimeDoc[ID](token))
		return err
	})
	if err != nil {
		return wrap("insert the one-time token", err)
	}
	return wrap("delete old one-time tokens", o.evict(ctx, token, keep))
}

// evict deletes the tokens of a user and purpose beyond the keep newest. Only their digests are
// read, so that documents of another shape go too.
func (o *OneTimeTokens[ID]) evict(ctx context.Context, token account.OneTimeToken[ID], keep int) error {
	own := bson.D{{Key: "user_id", Value: token.UserID}, {Key: "purpose", Value: string(token.Purpose)}}
	cur, err := o.coll.Find(ctx, own, options.Find().SetSkip(int64(keep)).
		SetSort(bson.D{{Key: "created_at", Value: -1}, {Key: "_id", Value: 1}}).
		SetProjection(bson.D{{Key: "_id", Value: 1}}))
	if err != nil {
		return err
	}
	var old []struct {
		ID bson.RawValue `bson:"_id"`
	}
	if err := cur.All(ctx, &old); err != nil {
		return err
	}
	for _, doc := range old {
		if err := o.remove(ctx, bson.D{{Key: "_id", Value: doc.ID}}); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes the documents that a filter matches.
func (o *OneTimeTokens[ID]) remove(ctx context.Context, filter bson.D) error {
	return untilGone(ctx, o.coll, filter, func() (done bool, err error) {
		_, err = o.coll.DeleteMany(ctx, filter)
		return false, err
	})
}

// Find implements account.OneTimeTokenStore.
func (o *OneTimeTokens[ID]) Find(ctx context.Context, purpose account.Purpose, digest string) (account.OneTimeToken[ID], error) {
	ctx, cancel := o.bounded(ctx)
	defer cancel()
	doc, err := one(o.coll.FindOne(ctx, oneTimeFilter(purpose, digest)))
	return o.token(ctx, "find the one-time token", doc, err)
}

// Take implements account.OneTimeTokenStore.
func (o *OneTimeTokens[ID]) Take(ctx context.Context, purpose account.Purpose, digest string) (account.OneTimeToken[ID], error) {
	ctx, cancel := o.bounded(ctx)
	defer cancel()
	filter := oneTimeFilter(purpose, digest)
	// The sort is for DocumentDB 0.106; see Tokens.delete.
	opts := options.FindOneAndDelete().SetSort(bson.D{{Key: "_id", Value: 1}})
	var doc bson.Raw
	err := untilGone(ctx, o.coll, filter, func() (done bool, err error) {
		doc, err = one(o.coll.FindOneAndDelete(ctx, filter, opts))
		return doc != nil, err
	})
	return o.token(ctx, "take the one-time token", doc, err)
}

func oneTimeFilter(purpose account.Purpose, digest string) bson.D {
	return bson.D{{Key: "_id", Value: digest}, {Key: "purpose", Value: string(purpose)}}
}

// token returns the token of a document; nil means that there is none. A document that another
// program wrote is no token.
func (o *OneTimeTokens[ID]) token(ctx context.Context, doing string, doc bson.Raw, err error) (token account.OneTimeToken[ID], _ error) {
	switch {
	case err != nil:
		return token, wrap(doing, err)
	case doc == nil:
		return token, fmt.Errorf("mongostore: %w", account.ErrOneTimeTokenNotFound)
	}
	var d oneTimeDoc[ID]
	var none ID
	decoder := bson.NewDecoder(bson.NewDocumentReader(bytes.NewReader(doc)))
	decoder.SetRegistry(o.registry)
	err = decoder.Decode(&d)
	if err == nil && (d.UserID == none || d.ExpiresAt.IsZero() || d.Email == "") {
		err = errors.New("user_id, email or expires_at is missing")
	}
	if err != nil {
		o.invalid(ctx, doc, nil, err)
		return token, fmt.Errorf("mongostore: %w: %w", account.ErrOneTimeTokenNotFound, err)
	}
	d.CreatedAt, d.ExpiresAt = utc(d.CreatedAt), utc(d.ExpiresAt)
	return account.OneTimeToken[ID](d), nil
}

// DeleteByUser implements account.OneTimeTokenStore.
func (o *OneTimeTokens[ID]) DeleteByUser(ctx context.Context, userID ID, purpose account.Purpose) error {
	ctx, cancel := o.bounded(ctx)
	defer cancel()
	filter := bson.D{{Key: "user_id", Value: userID}}
	if purpose != "" {
		filter = append(filter, bson.E{Key: "purpose", Value: string(purpose)})
	}
	return wrap("delete the user's one-time tokens", o.remove(ctx, filter))
}

// Purge removes the tokens that a TTL index would remove, those that expired more than 5 minutes
// ago. It returns their number.
func (o *OneTimeTokens[ID]) Purge(ctx context.Context) (int64, error) {
	expired := o.now().Add(-oneTimeGrace)
	return o.purge(ctx, o.coll, bson.D{{Key: "expires_at", Value: bson.D{{Key: "$lt", Value: expired}}}})
}
