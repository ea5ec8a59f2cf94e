package mongostore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/strategy"
)

// TokensConfig configures [Tokens]. The zero value is usable: tokens that are
// kept until they are deleted.
type TokensConfig struct {
	// Collection is the collection's name. Default "access_tokens".
	Collection string

	// Revocations is the name of the collection by which processes that have a
	// strategy.Cache learn what others revoke. It is small: its documents go after
	// 10 minutes. Default "revocations".
	Revocations string

	// Lifetime is the Lifetime of the strategy's Config: give both the same.
	// Tokens are removed once they are older than Lifetime and TTLGrace. 0 means
	// that they do not expire: there is no TTL index then.
	Lifetime time.Duration

	// TTLGrace is for how long after its end a token's row is kept. The server
	// compares with its own clock, and must not collect what the application's
	// clock still accepts. Default 5 minutes.
	TTLGrace time.Duration

	// PurgeInterval asks for a substitute where the server has no TTL indexes
	// (FerretDB v1): EnsureIndexes and VerifyIndexes then settle for a plain
	// index and start a goroutine that calls Purge once an interval, until Close.
	// 0 means that such a server is [ErrTTLUnsupported]. Servers with TTL
	// indexes use those either way.
	PurgeInterval time.Duration

	// Timeout bounds every call whose context has no deadline. Default
	// [DefaultTimeout]. EnsureIndexes has 5 minutes instead.
	Timeout time.Duration

	// Registry has the codecs for the ID type. Default [NewRegistry].
	Registry *bson.Registry

	// Now is the clock, for Purge. Default [time.Now].
	Now func() time.Time

	// OnEvent is told of failures of the periodic purge; see
	// strategy.Config.OnEvent. nil means that nobody listens.
	OnEvent func(context.Context, strategy.Event)
}

// Tokens keeps access tokens in a MongoDB collection. Make it with [NewTokens],
// call EnsureIndexes (or VerifyIndexes) when the application starts, and Close
// when it ends. It is safe for concurrent use.
type Tokens[ID comparable] struct {
	coll   *mongo.Collection
	cfg    TokensConfig
	purger *purger

	revocations       *mongo.Collection
	revocationsPurger *purger
}

var (
	_ strategy.Store[int64] = (*Tokens[int64])(nil)
	_ strategy.Retainer     = (*Tokens[int64])(nil)
)

// tokenDoc is a row of the collection. Fields that are not used are missing.
type tokenDoc[ID comparable] struct {
	ID              uuid.UUID `bson:"_id"`
	Token           string    `bson:"token"`
	UserID          ID        `bson:"user_id"`
	CreatedAt       time.Time `bson:"created_at"`
	LastUsedAt      time.Time `bson:"last_used_at,omitempty"`
	AuthenticatedAt time.Time `bson:"authenticated_at,omitempty"`
	SeenNotBefore   time.Time `bson:"seen_not_before,omitempty"`
	ExpiresAt       time.Time `bson:"expires_at,omitempty"`
	Scopes          []string  `bson:"scopes,omitempty"`
	Name            string    `bson:"name,omitempty"`
	UserAgent       string    `bson:"user_agent,omitempty"`
	ClientAddr      string    `bson:"client_addr,omitempty"`
}

// utc keeps the zero time as it is. A client may be set to decode local times.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

// NewTokens returns the store of tokens in a database. It does no I/O. It
// returns an error that names the field where the configuration is wrong, or
// where the ID type cannot be kept in BSON.
func NewTokens[ID comparable](db *mongo.Database, cfg TokensConfig) (*Tokens[ID], error) {
	if db == nil {
		return nil, errors.New("mongostore: db is nil")
	}
	if cfg.Collection == "" {
		cfg.Collection = "access_tokens"
	}
	if cfg.Revocations == "" {
		cfg.Revocations = "revocations"
	}
	if cfg.TTLGrace == 0 {
		cfg.TTLGrace = 5 * time.Minute
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	for _, f := range []struct {
		name  string
		value time.Duration
	}{{"Lifetime", cfg.Lifetime}, {"TTLGrace", cfg.TTLGrace}, {"PurgeInterval", cfg.PurgeInterval}, {"Timeout", cfg.Timeout}} {
		if f.value < 0 {
			return nil, fmt.Errorf("mongostore: TokensConfig.%s is negative: %v", f.name, f.value)
		}
	}
	// The server takes an int32 of seconds.
	if most := math.MaxInt32 * time.Second; cfg.Lifetime > most || cfg.TTLGrace > most-cfg.Lifetime {
		return nil, fmt.Errorf("mongostore: TokensConfig.Lifetime and TTLGrace are together over %v, the most that a TTL index can keep; Lifetime 0 means no expiry", most)
	}
	if cfg.Registry == nil {
		cfg.Registry = defaultRegistry
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := checkID[ID](cfg.Registry); err != nil {
		return nil, err
	}
	t := &Tokens[ID]{coll: collection(db, cfg.Collection, cfg.Registry), cfg: cfg}
	t.purger = newPurger(t.coll, t.wanted(), cfg.PurgeInterval, t.Purge, cfg.Now, cfg.OnEvent)
	t.revocations = collection(db, cfg.Revocations, cfg.Registry)
	t.revocationsPurger = newPurger(t.revocations, revocationsWanted(), cfg.PurgeInterval, t.purgeRevocations, cfg.Now, cfg.OnEvent)
	return t, nil
}

// checkID makes sure that IDs, and UUIDs as UUIDs, survive BSON.
func checkID[ID comparable](reg *bson.Registry) error {
	in := tokenDoc[ID]{ID: uuid.Max}
	raw, err := encode(reg, in)
	if err != nil {
		return fmt.Errorf("mongostore: the ID type %T cannot be stored: %w", in.UserID, err)
	}
	if subtype, _, ok := raw.Lookup("_id").BinaryOK(); !ok || subtype != bson.TypeBinaryUUID {
		return errors.New("mongostore: TokensConfig.Registry does not write UUIDs as such: make it with NewRegistry")
	}
	var out tokenDoc[ID]
	dec := bson.NewDecoder(bson.NewDocumentReader(bytes.NewReader(raw)))
	dec.SetRegistry(reg)
	if err := dec.Decode(&out); err != nil || out.UserID != in.UserID || out.ID != in.ID {
		return fmt.Errorf("mongostore: the ID type %T does not come back from BSON as it was: %v", in.UserID, err)
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

// Retention implements strategy.Retainer: it is TokensConfig.Lifetime.
func (t *Tokens[ID]) Retention() time.Duration { return t.cfg.Lifetime }

// Insert implements strategy.Store.
func (t *Tokens[ID]) Insert(ctx context.Context, token strategy.AccessToken[ID]) error {
	ctx, cancel := bounded(ctx, t.cfg.Timeout)
	defer cancel()
	doc := tokenDoc[ID]{
		ID: token.ID, Token: token.Digest, UserID: token.UserID, CreatedAt: token.CreatedAt,
		LastUsedAt: token.LastUsedAt, AuthenticatedAt: token.AuthenticatedAt, SeenNotBefore: token.SeenNotBefore, ExpiresAt: token.ExpiresAt,
		Scopes: token.Scopes, Name: token.Name, UserAgent: token.UserAgent, ClientAddr: token.ClientAddr,
	}
	err := retryDeadlock(ctx, func() error {
		_, err := t.coll.InsertOne(ctx, doc)
		return err
	})
	switch {
	case mongo.IsDuplicateKeyError(err):
		return fmt.Errorf("mongostore: %w", strategy.ErrDuplicateToken)
	case err != nil:
		return fmt.Errorf("mongostore: insert the token: %w", err)
	}
	return nil
}

// ByToken implements strategy.Store.
func (t *Tokens[ID]) ByToken(ctx context.Context, digest string, createdAfter time.Time) (strategy.AccessToken[ID], error) {
	ctx, cancel := bounded(ctx, t.cfg.Timeout)
	defer cancel()
	return t.decode(t.coll.FindOne(ctx, tokenFilter(digest, createdAfter)), "find the token")
}

// Touch implements strategy.Store.
func (t *Tokens[ID]) Touch(ctx context.Context, digest string, at time.Time) error {
	ctx, cancel := bounded(ctx, t.cfg.Timeout)
	defer cancel()
	err := retryDeadlock(ctx, func() error {
		_, err := t.coll.UpdateOne(ctx, byToken(digest), bson.D{{Key: "$max", Value: bson.D{{Key: "last_used_at", Value: at}}}})
		return err
	})
	if err != nil {
		return fmt.Errorf("mongostore: touch the token: %w", err)
	}
	return nil
}

// Rotate implements strategy.Store. On a collection that is sharded on token it
// needs retryable writes, the driver's default.
func (t *Tokens[ID]) Rotate(ctx context.Context, digest string, to strategy.Rotation) (strategy.AccessToken[ID], error) {
	update := bson.D{{Key: "$set", Value: bson.D{{Key: "token", Value: to.Digest}}}}
	var later bson.D
	if !to.LastUsedAt.IsZero() {
		later = append(later, bson.E{Key: "last_used_at", Value: to.LastUsedAt})
	}
	if !to.AuthenticatedAt.IsZero() {
		later = append(later, bson.E{Key: "authenticated_at", Value: to.AuthenticatedAt})
	}
	if !to.SeenNotBefore.IsZero() {
		later = append(later, bson.E{Key: "seen_not_before", Value: to.SeenNotBefore})
	}
	if later != nil {
		update = append(update, bson.E{Key: "$max", Value: later})
	}
	return t.findAndModify(ctx, "rotate the token", func(ctx context.Context) *mongo.SingleResult {
		return t.coll.FindOneAndUpdate(ctx, byToken(digest), update, options.FindOneAndUpdate().SetReturnDocument(options.After))
	})
}

// ByUser implements strategy.Store.
func (t *Tokens[ID]) ByUser(ctx context.Context, userID ID, after strategy.Position, limit int) ([]strategy.AccessToken[ID], error) {
	ctx, cancel := bounded(ctx, t.cfg.Timeout)
	defer cancel()
	filter := bson.D{{Key: "user_id", Value: userID}}
	if (after != strategy.Position{}) {
		filter = append(filter, bson.E{Key: "$or", Value: bson.A{
			bson.D{{Key: "created_at", Value: bson.D{{Key: "$lt", Value: after.CreatedAt}}}},
			bson.D{{Key: "created_at", Value: after.CreatedAt}, {Key: "_id", Value: bson.D{{Key: "$lt", Value: after.ID}}}},
		}})
	}
	newestFirst := bson.D{{Key: "created_at", Value: -1}, {Key: "_id", Value: -1}}
	cur, err := t.coll.Find(ctx, filter, options.Find().SetSort(newestFirst).SetLimit(int64(limit)))
	if err != nil {
		return nil, fmt.Errorf("mongostore: list the tokens: %w", err)
	}
	defer func() { _ = cur.Close(ctx) }()
	var tokens []strategy.AccessToken[ID]
	for cur.Next(ctx) {
		token, err := parseToken[ID](cur.Current, t.cfg.Registry)
		if err != nil {
			return nil, fmt.Errorf("mongostore: list the tokens: %w", err)
		}
		tokens = append(tokens, token)
	}
	if err := cur.Err(); err != nil {
		return nil, fmt.Errorf("mongostore: list the tokens: %w", err)
	}
	return tokens, nil
}

// Delete implements strategy.Store.
func (t *Tokens[ID]) Delete(ctx context.Context, digest string) (strategy.AccessToken[ID], error) {
	return t.findAndModify(ctx, "delete the token", func(ctx context.Context) *mongo.SingleResult {
		return t.coll.FindOneAndDelete(ctx, byToken(digest))
	})
}

// DeleteSession implements strategy.Store.
func (t *Tokens[ID]) DeleteSession(ctx context.Context, userID ID, id uuid.UUID) (strategy.AccessToken[ID], error) {
	session := bson.D{{Key: "_id", Value: id}, {Key: "user_id", Value: userID}}
	token, err := t.findAndModify(ctx, "delete the session", func(ctx context.Context) *mongo.SingleResult {
		return t.coll.FindOneAndDelete(ctx, session)
	})
	if hasCode(err, codeShardKeyNotFound) {
		return t.deleteSharded(ctx, session)
	}
	return token, err
}

// deleteSharded deletes a session of a sharded collection, on servers that want
// the shard key, token, in the filter. A rotation changes it: then it looks again.
func (t *Tokens[ID]) deleteSharded(ctx context.Context, session bson.D) (strategy.AccessToken[ID], error) {
	ctx, cancel := bounded(ctx, t.cfg.Timeout)
	defer cancel()
	for {
		token, err := t.decode(t.coll.FindOne(ctx, session), "find the session")
		if err != nil {
			return token, err
		}
		filter := append(byToken(token.Digest), session...)
		token, err = t.findAndModify(ctx, "delete the session", func(ctx context.Context) *mongo.SingleResult {
			return t.coll.FindOneAndDelete(ctx, filter)
		})
		if !errors.Is(err, strategy.ErrTokenNotFound) {
			return token, err
		}
	}
}

// DeleteByUser implements strategy.Store.
func (t *Tokens[ID]) DeleteByUser(ctx context.Context, userID ID, except ...uuid.UUID) (int64, error) {
	ctx, cancel := bounded(ctx, t.cfg.Timeout)
	defer cancel()
	filter := bson.D{{Key: "user_id", Value: userID}}
	if len(except) > 0 {
		filter = append(filter, bson.E{Key: "_id", Value: bson.D{{Key: "$nin", Value: except}}})
	}
	var n int64
	err := retryDeadlock(ctx, func() error {
		res, err := t.coll.DeleteMany(ctx, filter)
		if err == nil {
			n = res.DeletedCount
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("mongostore: delete the user's tokens: %w", err)
	}
	return n, nil
}

func byToken(digest string) bson.D { return bson.D{{Key: "token", Value: digest}} }

// findAndModify runs a command that changes one row and returns it.
func (t *Tokens[ID]) findAndModify(ctx context.Context, doing string, run func(context.Context) *mongo.SingleResult) (strategy.AccessToken[ID], error) {
	ctx, cancel := bounded(ctx, t.cfg.Timeout)
	defer cancel()
	var token strategy.AccessToken[ID]
	err := retryDeadlock(ctx, func() (err error) {
		token, err = t.decode(run(ctx), doing)
		return err
	})
	return token, err
}

func (t *Tokens[ID]) decode(found *mongo.SingleResult, doing string) (token strategy.AccessToken[ID], err error) {
	doc, err := found.Raw()
	if err == nil {
		token, err = parseToken[ID](doc, t.cfg.Registry)
	}
	switch {
	case errors.Is(err, mongo.ErrNoDocuments):
		return strategy.AccessToken[ID]{}, fmt.Errorf("mongostore: %w", strategy.ErrTokenNotFound)
	case err != nil:
		return strategy.AccessToken[ID]{}, fmt.Errorf("mongostore: %s: %w", doing, err)
	}
	return token, nil
}

// Purge removes the tokens that a TTL index would remove, those older than
// Lifetime and TTLGrace, and those whose own end was longer ago than TTLGrace. It
// returns their number. With a Lifetime of 0 there is no index for it: it then
// reads the whole collection.
func (t *Tokens[ID]) Purge(ctx context.Context) (int64, error) {
	ctx, cancel := bounded(ctx, t.cfg.Timeout)
	defer cancel()
	ended := t.cfg.Now().Add(-t.cfg.TTLGrace)
	filter := bson.A{bson.D{{Key: "expires_at", Value: bson.D{{Key: "$lt", Value: ended}}}}}
	if t.cfg.Lifetime > 0 {
		filter = append(filter, bson.D{{Key: "created_at", Value: bson.D{{Key: "$lt", Value: ended.Add(-t.cfg.Lifetime)}}}})
	}
	res, err := t.coll.DeleteMany(ctx, bson.D{{Key: "$or", Value: filter}})
	if err != nil {
		return 0, fmt.Errorf("mongostore: purge tokens: %w", err)
	}
	return res.DeletedCount, nil
}

// Close ends the periodic purge, if there is one, and waits until it has ended.
// It is idempotent. The store itself goes on working; the MongoDB client is the
// application's to close.
func (t *Tokens[ID]) Close() {
	t.purger.close()
	t.revocationsPurger.close()
}
