package mongostore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/strategy"
)

// TokensConfig configures [Tokens]. The zero value is usable: tokens are stored until
// they are deleted.
type TokensConfig struct {
	// Collection is the collection's name. Default "access_tokens".
	Collection string

	// Revocations names the collection through which processes with a strategy.Cache
	// publish revocations to each other. The server removes its documents after 10
	// minutes. Default "revocations".
	Revocations string

	// Lifetime must be the Lifetime of strategy.Config. The server removes a token once
	// it is older than Lifetime plus TTLGrace. 0 means that tokens do not expire, and
	// that there is no TTL index.
	Lifetime time.Duration

	// TTLGrace is how long an expired token is kept. The server removes tokens by its own
	// clock: the grace keeps it from removing tokens that are valid by the application's
	// clock. Default 5 minutes.
	TTLGrace time.Duration

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
	// document that Tokens leaves out because it cannot be read; see
	// strategy.Config.OnEvent. nil means no events.
	OnEvent func(context.Context, event.Event)
}

// Tokens stores access tokens in a MongoDB collection. Make it with [NewTokens], call
// EnsureIndexes (or VerifyIndexes) when the application starts, and Close when it ends.
// It is safe for concurrent use.
//
// A document that another program wrote, with a field of another type or without a required
// field, is no token: it is not found and not listed, each time with an event of the kind
// event.InvalidDocument. Deletes remove it as they remove any other.
type Tokens[ID comparable] struct {
	store
	lifetime, grace time.Duration
	revocations     *mongo.Collection
}

var _ strategy.Store[int64] = (*Tokens[int64])(nil)

// tokenDoc is a row of the collection. Unused fields are missing.
type tokenDoc[ID comparable] struct {
	ID              uuid.UUID `bson:"_id"`
	Token           string    `bson:"token"`
	UserID          ID        `bson:"user_id"`
	CreatedAt       time.Time `bson:"created_at"`
	LastUsedAt      time.Time `bson:"last_used_at,omitempty"`
	AuthenticatedAt time.Time `bson:"authenticated_at,omitempty"`
	TokenVersion    int64     `bson:"token_version,omitempty"`
	ExpiresAt       time.Time `bson:"expires_at,omitempty"`
	Legacy          bool      `bson:"legacy,omitempty"`
	Scopes          []string  `bson:"scopes,omitempty"`
	Name            string    `bson:"name,omitempty"`
	UserAgent       string    `bson:"user_agent,omitempty"`
	ClientIP        string    `bson:"client_ip,omitempty"`
}

func newTokenDoc[ID comparable](t strategy.AccessToken[ID]) tokenDoc[ID] {
	return tokenDoc[ID]{
		ID: t.ID, Token: t.Digest, UserID: t.UserID, CreatedAt: t.CreatedAt,
		LastUsedAt: t.LastUsedAt, AuthenticatedAt: t.AuthenticatedAt, TokenVersion: t.TokenVersion, ExpiresAt: t.ExpiresAt,
		Legacy: t.Legacy, Scopes: t.Scopes, Name: t.Name, UserAgent: t.UserAgent, ClientIP: t.ClientIP,
	}
}

// utc returns t in UTC, as clients can be set to decode local times. It returns the zero
// time unchanged.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

// NewTokens returns a store of tokens in a database. It does no I/O. It returns an error
// if a field of cfg is invalid, or if BSON cannot represent the ID type.
func NewTokens[ID comparable](db *mongo.Database, cfg TokensConfig) (*Tokens[ID], error) {
	t := &Tokens[ID]{
		store: store{
			purgeInterval: cfg.PurgeInterval, timeout: cfg.Timeout, registry: cfg.Registry, now: cfg.Now, onEvent: cfg.OnEvent,
		},
		lifetime: cfg.Lifetime, grace: cmp.Or(cfg.TTLGrace, 5*time.Minute),
	}
	if err := t.open(db, "TokensConfig", cmp.Or(cfg.Collection, "access_tokens")); err != nil {
		return nil, err
	}
	if err := notNegative("TokensConfig", duration{"Lifetime", t.lifetime}, duration{"TTLGrace", t.grace}); err != nil {
		return nil, err
	}
	// The server takes an int32 of seconds.
	if most := math.MaxInt32 * time.Second; t.lifetime > most || t.grace > most-t.lifetime {
		return nil, fmt.Errorf("mongostore: TokensConfig.Lifetime and TTLGrace together exceed %v, the maximum of a TTL index; a Lifetime of 0 means no expiry", most)
	}
	if err := checkID[ID](t.registry, "TokensConfig"); err != nil {
		return nil, err
	}
	t.indexed(t.coll, tokensIndexSpec(t.lifetime, t.grace), t.Purge)
	revocations := cmp.Or(cfg.Revocations, "revocations")
	if err := checkName("TokensConfig.Revocations", revocations); err != nil {
		return nil, err
	}
	t.revocations = collection(db, revocations, t.registry)
	t.indexed(t.revocations, revocationsIndexSpec(), t.purgeRevocations)
	t.check, t.foreign = t.checkTokens, t.checkForeign
	return t, nil
}

// checkID returns an error unless IDs can be written and read back unchanged, and UUIDs
// are written with BSON's subtype for UUIDs. config names the Config in errors.
func checkID[ID comparable](reg *bson.Registry, config string) error {
	in := tokenDoc[ID]{ID: uuid.Max}
	raw, err := encode(reg, in)
	if err != nil {
		return fmt.Errorf("mongostore: the ID type %T cannot be stored: %w", in.UserID, err)
	}
	if subtype, _, ok := raw.Lookup("_id").BinaryOK(); !ok || subtype != bson.TypeBinaryUUID {
		return fmt.Errorf("mongostore: %s.Registry does not write UUIDs with the binary subtype 4: make it with NewRegistry", config)
	}
	var out tokenDoc[ID]
	dec := bson.NewDecoder(bson.NewDocumentReader(bytes.NewReader(raw)))
	dec.SetRegistry(reg)
	if err := dec.Decode(&out); err != nil || out.UserID != in.UserID || out.ID != in.ID {
		return fmt.Errorf("mongostore: the ID type %T does not survive BSON: %v", in.UserID, err)
	}
	return nil
}

func encode(reg *bson.Registry, v any) (bson.Raw, error) {
	var buf bytes.Buffer
	enc := bson.NewEncoder(bson.NewDocumentWriter(&buf))
	enc.SetRegistry(reg)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// Retention implements strategy.Store. It returns TokensConfig.Lifetime.
func (t *Tokens[ID]) Retention() time.Duration { return t.lifetime }

// Insert implements strategy.Store.
func (t *Tokens[ID]) Insert(ctx context.Context, token strategy.AccessToken[ID]) error {
	doc := newTokenDoc(token)
	return t.write(ctx, "insert the token", func(ctx context.Context) error {
		_, err := t.coll.InsertOne(ctx, doc)
		if mongo.IsDuplicateKeyError(err) {
			return strategy.ErrDuplicateToken
		}
		return err
	})
}

// ByToken implements strategy.Store.
func (t *Tokens[ID]) ByToken(ctx context.Context, digest string) (strategy.AccessToken[ID], error) {
	ctx, cancel := t.bounded(ctx)
	defer cancel()
	doc, err := one(t.coll.FindOne(ctx, tokenFilter(digest)))
	if err != nil {
		return strategy.AccessToken[ID]{}, fmt.Errorf("mongostore: find the token: %w", err)
	}
	return t.valid(ctx, doc)
}

// Touch implements strategy.Store.
func (t *Tokens[ID]) Touch(ctx context.Context, digest string, at time.Time) error {
	return t.write(ctx, "touch the token", func(ctx context.Context) error {
		_, err := t.coll.UpdateOne(ctx, tokenFilter(digest), bson.D{{Key: "$max", Value: bson.D{{Key: "last_used_at", Value: at}}}})
		return err
	})
}

// Rename implements strategy.Store.
func (t *Tokens[ID]) Rename(ctx context.Context, userID ID, id uuid.UUID, name string) error {
	ctx, cancel := t.bounded(ctx)
	defer cancel()
	session := bson.D{{Key: "_id", Value: id}, {Key: "user_id", Value: userID}}
	update := bson.D{{Key: "$set", Value: bson.D{{Key: "name", Value: name}}}}
	if name == "" {
		update = bson.D{{Key: "$unset", Value: bson.D{{Key: "name", Value: ""}}}}
	}
	matched, err := t.updateOne(ctx, session, update)
	if err == nil && !matched {
		err = strategy.ErrTokenNotFound
	}
	return wrap("rename the session", err)
}

// Rotate implements strategy.Store. On a collection that is sharded by token it needs
// retryable writes, the driver's default.
func (t *Tokens[ID]) Rotate(ctx context.Context, digest string, to strategy.Rotation) (strategy.AccessToken[ID], error) {
	return t.rotateRow(ctx, tokenFilter(digest), rotationUpdate(to))
}

// rotateRow applies an update to the row that a filter matches, and returns the changed row.
func (t *Tokens[ID]) rotateRow(ctx context.Context, filter any, update bson.D) (strategy.AccessToken[ID], error) {
	opts := options.FindOneAndUpdate().SetReturnDocument(options.After)
	doc, err := t.findAndModify(ctx, "rotate the token", filter, func(ctx context.Context, filter any) *mongo.SingleResult {
		return t.coll.FindOneAndUpdate(ctx, filter, update, opts)
	})
	if err != nil {
		return strategy.AccessToken[ID]{}, err
	}
	return t.valid(ctx, doc)
}

// rotationUpdate returns the update that carries out a rotation.
func rotationUpdate(to strategy.Rotation) bson.D {
	set := bson.D{{Key: "token", Value: to.Digest}}
	if !to.AuthenticatedAt.IsZero() {
		set = append(set, bson.E{Key: "authenticated_at", Value: to.AuthenticatedAt})
	}
	var raise bson.D
	if !to.LastUsedAt.IsZero() {
		raise = append(raise, bson.E{Key: "last_used_at", Value: to.LastUsedAt})
	}
	if to.TokenVersion > 0 {
		raise = append(raise, bson.E{Key: "token_version", Value: to.TokenVersion})
	}
	update := bson.D{{Key: "$set", Value: set}}
	if raise != nil {
		update = append(update, bson.E{Key: "$max", Value: raise})
	}
	return update
}

// ByUser implements strategy.Store.
func (t *Tokens[ID]) ByUser(ctx context.Context, userID ID, after strategy.Position, limit int) ([]strategy.AccessToken[ID], error) {
	ctx, cancel := t.bounded(ctx)
	defer cancel()
	filter := bson.D{{Key: "user_id", Value: userID}}
	if (after != strategy.Position{}) {
		filter = append(filter, olderThan(after.CreatedAt, bson.D{{Key: "$lt", Value: after.ID}}))
	}
	tokens, err := newest(ctx, &t.store, userID, filter, limit, func(doc bson.Raw) (strategy.AccessToken[ID], error) {
		return parseToken[ID](doc, t.registry)
	})
	return tokens, wrap("list the tokens", err)
}

// olderThan returns the condition that a row is older than a time, or as old and its _id meets
// a condition.
func olderThan(at time.Time, id bson.D) bson.E {
	return bson.E{Key: "$or", Value: bson.A{
		bson.D{{Key: "created_at", Value: bson.D{{Key: "$lt", Value: at}}}},
		bson.D{{Key: "created_at", Value: at}, {Key: "_id", Value: id}},
	}}
}

// newest returns the newest rows of a user that a filter matches, and reports those that parse
// cannot read.
func newest[ID comparable](ctx context.Context, s *store, userID ID, filter bson.D, limit int, parse func(bson.Raw) (strategy.AccessToken[ID], error)) ([]strategy.AccessToken[ID], error) {
	for ask := limit; ; ask *= 2 {
		tokens, invalid, err := list(ctx, s.coll, filter, ask, parse)
		if err != nil {
			return nil, err
		}
		// Invalid documents took places, so ask for more.
		if len(tokens) < limit && len(tokens)+len(invalid) == ask {
			continue
		}
		for _, i := range invalid {
			s.invalid(ctx, i.doc, userID, i.cause)
		}
		return tokens[:min(limit, len(tokens))], nil
	}
}

// invalidDocument is a document that cannot be read.
type invalidDocument struct {
	doc   bson.Raw
	cause error
}

// list reads at most limit rows, newest first, and separates the invalid ones.
func list[ID comparable](ctx context.Context, coll *mongo.Collection, filter bson.D, limit int, parse func(bson.Raw) (strategy.AccessToken[ID], error)) (tokens []strategy.AccessToken[ID], invalid []invalidDocument, err error) {
	newestFirst := bson.D{{Key: "created_at", Value: -1}, {Key: "_id", Value: -1}}
	cur, err := coll.Find(ctx, filter, options.Find().SetSort(newestFirst).SetLimit(int64(limit)))
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = cur.Close(ctx) }()
	for cur.Next(ctx) {
		token, err := parse(cur.Current)
		if err != nil {
			invalid = append(invalid, invalidDocument{slices.Clone(cur.Current), err})
			continue
		}
		tokens = append(tokens, token)
	}
	return tokens, invalid, cur.Err()
}

// Delete implements strategy.Store.
func (t *Tokens[ID]) Delete(ctx context.Context, digest string) (strategy.AccessToken[ID], error) {
	token, err := t.delete(ctx, "delete the token", tokenFilter(digest))
	if err == nil {
		token.Digest = digest
	}
	return token, err
}

// DeleteSession implements strategy.Store.
func (t *Tokens[ID]) DeleteSession(ctx context.Context, userID ID, id uuid.UUID) (strategy.AccessToken[ID], error) {
	session := bson.D{{Key: "_id", Value: id}, {Key: "user_id", Value: userID}}
	token, err := t.delete(ctx, "delete the session", session)
	if hasCode(err, codeShardKeyNotFound) {
		token, err = t.deleteSharded(ctx, session)
	}
	if err == nil {
		token.ID, token.UserID = id, userID
	}
	return token, err
}

// deleteSharded deletes a session of a sharded collection, on servers that require the
// shard key, token, in the filter. It starts again if a rotation changes the token
// between the find and the delete.
func (t *Tokens[ID]) deleteSharded(ctx context.Context, session bson.D) (strategy.AccessToken[ID], error) {
	ctx, cancel := t.bounded(ctx)
	defer cancel()
	const most = 5
	for try := 1; ; try++ {
		doc, err := one(t.coll.FindOne(ctx, session))
		switch {
		case err != nil:
			return strategy.AccessToken[ID]{}, fmt.Errorf("mongostore: find the session: %w", err)
		case doc == nil:
			return strategy.AccessToken[ID]{}, fmt.Errorf("mongostore: %w", strategy.ErrTokenNotFound)
		case try > most:
			return strategy.AccessToken[ID]{}, fmt.Errorf("mongostore: delete the session: its token changed %d times meanwhile", most)
		}
		var digest any // null also stands for a missing field
		if v := doc.Lookup("token"); !v.IsZero() {
			digest = v
		}
		token, err := t.delete(ctx, "delete the session", append(bson.D{{Key: "token", Value: digest}}, session...))
		if !errors.Is(err, strategy.ErrTokenNotFound) {
			return token, err
		}
	}
}

// DeleteByUser implements strategy.Store.
func (t *Tokens[ID]) DeleteByUser(ctx context.Context, userID ID, except ...uuid.UUID) (int64, error) {
	filter := bson.D{{Key: "user_id", Value: userID}}
	if len(except) > 0 {
		filter = append(filter, bson.E{Key: "_id", Value: bson.D{{Key: "$nin", Value: except}}})
	}
	return t.deleteAll(ctx, "delete the user's tokens", filter)
}

// delete deletes a row. It returns what can be read of it.
func (t *Tokens[ID]) delete(ctx context.Context, doing string, filter any) (token strategy.AccessToken[ID], err error) {
	doc, err := t.deleteOne(ctx, doing, filter)
	switch {
	case err != nil:
		return token, err
	case doc == nil:
		return token, fmt.Errorf("mongostore: %w", strategy.ErrTokenNotFound)
	}
	token, _ = parseToken[ID](doc, t.registry) // an invalid row is gone too
	return token, nil
}

// valid returns the token of a row. It returns an error wrapping ErrTokenNotFound if the row
// is nil or invalid.
func (t *Tokens[ID]) valid(ctx context.Context, doc bson.Raw) (strategy.AccessToken[ID], error) {
	if doc == nil {
		return strategy.AccessToken[ID]{}, fmt.Errorf("mongostore: %w", strategy.ErrTokenNotFound)
	}
	token, err := parseToken[ID](doc, t.registry)
	if err != nil {
		t.invalid(ctx, doc, known(token.UserID), err)
		return strategy.AccessToken[ID]{}, fmt.Errorf("mongostore: %w: %w", strategy.ErrTokenNotFound, err)
	}
	return token, nil
}

// Purge removes the tokens that a TTL index would remove, those older than Lifetime plus
// TTLGrace, and those whose own expiry was longer ago than TTLGrace. It returns their
// number. It scans the whole collection if Lifetime is 0, as there is no index then.
func (t *Tokens[ID]) Purge(ctx context.Context) (int64, error) {
	ended := t.now().Add(-t.grace)
	filter := bson.A{bson.D{{Key: "expires_at", Value: bson.D{{Key: "$lt", Value: ended}}}}}
	if t.lifetime > 0 {
		filter = append(filter, bson.D{{Key: "created_at", Value: bson.D{{Key: "$lt", Value: ended.Add(-t.lifetime)}}}})
	}
	return t.purge(ctx, t.coll, bson.D{{Key: "$or", Value: filter}})
}
