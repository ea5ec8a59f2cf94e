package mongostore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/onetime"
)

// OneTimeTokensConfig configures [OneTimeTokens]. The zero value is usable.
type OneTimeTokensConfig struct {
	// Collection is the collection's name. Default "one_time_tokens".
	Collection string

	// PurgeInterval is a substitute on servers without TTL indexes (FerretDB v1):
	// EnsureIndexes and VerifyIndexes then accept a plain index, and start a goroutine
	// that calls Purge at this interval until Close. If it is 0, such a server is an
	// error, [ErrTTLUnsupported]. It has no effect on servers with TTL indexes.
	PurgeInterval time.Duration

	// Timeout bounds every call whose context has no deadline. Default 3 seconds.
	// EnsureIndexes has 5 minutes instead.
	Timeout time.Duration

	// Registry has the codecs for the ID type. Default [NewRegistry].
	Registry *bson.Registry

	// Now is the clock of Purge and of events. Default [time.Now].
	Now func() time.Time

	// OnEvent receives an event for every failure of the periodic purge, and for every
	// document that cannot be read; see strategy.Config.OnEvent. nil means no events.
	OnEvent func(context.Context, event.Event)
}

// OneTimeTokens stores the tokens of mails (verification, password reset, change of address)
// in a MongoDB collection:
//
//	one_time_tokens
//	  _id            the token's digest
//	  purpose        string
//	  user_id        the application's ID type, natively   index {user_id: 1, purpose: 1, created_at: -1}
//	  sent_to        the address to which the token was mailed
//	  email          the account's address at that time
//	  token_version  the account's token version at that time; missing means 0
//	  created_at     date
//	  expires_at     date                                  TTL index {expires_at: 1}, 5 minutes later
//
// Make it with [NewOneTimeTokens], call EnsureIndexes (or VerifyIndexes) when the application
// starts, and Close when it ends. Shard the collection by {_id: "hashed"}. It is safe for
// concurrent use.
//
// A document that another program wrote, with a field of another type or without one of the
// fields, is no token: Find and Take do not find it, each time with an event of the kind
// event.InvalidDocument. Take and DeleteByUser remove it. Events and errors show only the
// beginning of a digest.
type OneTimeTokens[ID comparable] struct {
	store
}

var _ account.OneTimeTokenStore[int64] = (*OneTimeTokens[int64])(nil)

// oneTimeTokenDoc is a document of the collection.
type oneTimeTokenDoc[ID comparable] struct {
	Digest       string    `bson:"_id"`
	Purpose      string    `bson:"purpose"`
	UserID       ID        `bson:"user_id"`
	SentTo       string    `bson:"sent_to"`
	Email        string    `bson:"email"`
	TokenVersion int64     `bson:"token_version"`
	CreatedAt    time.Time `bson:"created_at"`
	ExpiresAt    time.Time `bson:"expires_at"`
}

// NewOneTimeTokens returns a store of one-time tokens in a database. It does no I/O. It
// returns an error if a field of cfg is invalid, or if BSON cannot represent the ID type.
func NewOneTimeTokens[ID comparable](db *mongo.Database, cfg OneTimeTokensConfig) (*OneTimeTokens[ID], error) {
	o := &OneTimeTokens[ID]{store{
		purgeInterval: cfg.PurgeInterval, timeout: cfg.Timeout, registry: cfg.Registry, now: cfg.Now, onEvent: cfg.OnEvent,
		digestIDs: true,
	}}
	if err := o.open(db, "OneTimeTokensConfig", cmp.Or(cfg.Collection, "one_time_tokens")); err != nil {
		return nil, err
	}
	if err := checkID[ID](o.registry, "OneTimeTokensConfig"); err != nil {
		return nil, err
	}
	o.indexed(o.coll, oneTimeTokensIndexSpec(), o.Purge)
	o.check = o.checkOneTimeTokens
	return o, nil
}

// Insert implements account.OneTimeTokenStore. It inserts the token, lists the user's tokens
// of its purpose, and deletes those that are too many.
func (o *OneTimeTokens[ID]) Insert(ctx context.Context, token account.OneTimeToken[ID], keep int) error {
	ctx, cancel := o.bounded(ctx)
	defer cancel()
	doc := oneTimeTokenDoc[ID]{
		Digest: token.Digest, Purpose: string(token.Purpose), UserID: token.UserID, SentTo: token.SentTo, Email: token.Email,
		TokenVersion: token.TokenVersion, CreatedAt: token.CreatedAt, ExpiresAt: token.ExpiresAt,
	}
	err := o.write(ctx, "insert the one-time token", func(ctx context.Context) error {
		_, err := o.coll.InsertOne(ctx, doc)
		if mongo.IsDuplicateKeyError(err) {
			return errors.New("the digest is taken") // the server's error shows the digest
		}
		return err
	})
	if err != nil {
		return err
	}
	stored, err := o.list(ctx, token.UserID, token.Purpose)
	if err != nil {
		return wrap("list the user's one-time tokens", err)
	}
	surplus := onetime.Surplus(stored, token.CreatedAt, keep)
	if len(surplus) == 0 {
		return nil
	}
	_, err = o.deleteAll(ctx, "delete the oldest one-time tokens", bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: surplus}}}})
	return err
}

// list returns the user's tokens of a purpose. It leaves out documents without a digest or a
// date, which would have no place in the order.
func (o *OneTimeTokens[ID]) list(ctx context.Context, userID ID, purpose account.Purpose) (tokens []onetime.Token, err error) {
	filter := bson.D{{Key: "user_id", Value: userID}, {Key: "purpose", Value: string(purpose)}}
	cur, err := o.coll.Find(ctx, filter, options.Find().SetProjection(bson.D{{Key: "created_at", Value: 1}}))
	if err != nil {
		return nil, err
	}
	defer func() { _ = cur.Close(ctx) }()
	for cur.Next(ctx) {
		digest, isString := cur.Current.Lookup("_id").StringValueOK()
		createdAt, isDate := timeOf(cur.Current.Lookup("created_at"))
		if isString && isDate {
			tokens = append(tokens, onetime.Token{Digest: digest, CreatedAt: createdAt})
		}
	}
	return tokens, cur.Err()
}

// oneTimeTokenFilter matches the token with a digest and a purpose.
func oneTimeTokenFilter(purpose account.Purpose, digest string) bson.D {
	return bson.D{{Key: "_id", Value: digest}, {Key: "purpose", Value: string(purpose)}}
}

// Find implements account.OneTimeTokenStore.
func (o *OneTimeTokens[ID]) Find(ctx context.Context, purpose account.Purpose, digest string) (account.OneTimeToken[ID], error) {
	ctx, cancel := o.bounded(ctx)
	defer cancel()
	doc, err := one(o.coll.FindOne(ctx, oneTimeTokenFilter(purpose, digest)))
	if err != nil {
		return account.OneTimeToken[ID]{}, wrap("find the one-time token", err)
	}
	return o.valid(ctx, doc)
}

// Take implements account.OneTimeTokenStore.
func (o *OneTimeTokens[ID]) Take(ctx context.Context, purpose account.Purpose, digest string) (account.OneTimeToken[ID], error) {
	doc, err := o.deleteOne(ctx, "take the one-time token", oneTimeTokenFilter(purpose, digest))
	if err != nil {
		return account.OneTimeToken[ID]{}, err
	}
	return o.valid(ctx, doc)
}

// DeleteByUser implements account.OneTimeTokenStore.
func (o *OneTimeTokens[ID]) DeleteByUser(ctx context.Context, userID ID, purpose account.Purpose) error {
	filter := bson.D{{Key: "user_id", Value: userID}}
	if purpose != "" {
		filter = append(filter, bson.E{Key: "purpose", Value: string(purpose)})
	}
	_, err := o.deleteAll(ctx, "delete the user's one-time tokens", filter)
	return err
}

// valid returns the token of a document. It returns an error wrapping
// ErrOneTimeTokenNotFound if the document is nil or invalid.
func (o *OneTimeTokens[ID]) valid(ctx context.Context, doc bson.Raw) (account.OneTimeToken[ID], error) {
	if doc == nil {
		return account.OneTimeToken[ID]{}, fmt.Errorf("mongostore: %w", account.ErrOneTimeTokenNotFound)
	}
	token, err := parseOneTimeToken[ID](doc, o.registry)
	if err != nil {
		o.invalid(ctx, doc, known(token.UserID), err)
		return account.OneTimeToken[ID]{}, fmt.Errorf("mongostore: %w: %w", account.ErrOneTimeTokenNotFound, err)
	}
	return token, nil
}

// parseOneTimeToken reads a document of one_time_tokens. It returns an error that names the
// first field of another type, or a field that is missing. It also returns the fields that it
// could read.
func parseOneTimeToken[ID comparable](doc bson.Raw, reg *bson.Registry) (t account.OneTimeToken[ID], err error) {
	elems, err := doc.Elements()
	if err != nil {
		return t, err
	}
	for _, e := range elems {
		key, v, ok := e.Key(), e.Value(), true
		if v.Type == bson.TypeNull {
			continue // equivalent to a missing field
		}
		var cause error
		switch key {
		case "_id":
			t.Digest, ok = v.StringValueOK()
		case "purpose":
			var purpose string
			purpose, ok = v.StringValueOK()
			t.Purpose = account.Purpose(purpose)
		case "user_id":
			cause = parseID(v, reg, &t.UserID)
		case "sent_to":
			t.SentTo, ok = v.StringValueOK()
		case "email":
			t.Email, ok = v.StringValueOK()
		case "token_version":
			t.TokenVersion, cause = integerOf(v)
		case "created_at":
			t.CreatedAt, ok = timeOf(v)
		case "expires_at":
			t.ExpiresAt, ok = timeOf(v)
		}
		if err == nil {
			err = fieldError(key, v, ok, cause)
		}
	}
	var noUser ID
	for _, f := range []struct {
		name    string
		missing bool
	}{
		{"_id", t.Digest == ""},
		{"purpose", t.Purpose == ""},
		{"user_id", t.UserID == noUser},
		{"sent_to", t.SentTo == ""},
		{"email", t.Email == ""},
		{"created_at", t.CreatedAt.IsZero()},
		{"expires_at", t.ExpiresAt.IsZero()},
	} {
		if f.missing && err == nil {
			err = fmt.Errorf("decode the field %s: it is missing", f.name)
		}
	}
	return t, err
}

// checkOneTimeTokens looks for invalid tokens by the indexes.
func (o *OneTimeTokens[ID]) checkOneTimeTokens(ctx context.Context) {
	o.checkDocuments(ctx, slices.Concat(ends("_id"), ends("user_id"), ends("expires_at")), func(doc bson.Raw) error {
		_, err := parseOneTimeToken[ID](doc, o.registry)
		return err
	})
}

// Purge removes the tokens that a TTL index would remove, those that expired more than 5
// minutes ago. It returns their number.
func (o *OneTimeTokens[ID]) Purge(ctx context.Context) (int64, error) { return o.purgeExpired(ctx) }
