package mongostore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/strategy"
)

// LegacyConfig configures [LegacyTokens].
type LegacyConfig struct {
	// Collection is the collection in which fastapi-users keeps its tokens: "access_tokens" with
	// its Motor adapter, "AccessToken" with Beanie, unless the application has chosen another
	// name. It must not be that of TokensConfig. Required.
	Collection string

	// Lifetime is the lifetime_seconds of fastapi-users' DatabaseStrategy. A legacy token is
	// accepted for this time and for that of TokensConfig.Lifetime, whichever is shorter. 0
	// means that only the latter counts.
	Lifetime time.Duration

	// Convert copies each legacy token into Latchkey's collection when it is first used. Set it
	// once fastapi-users has been switched off. Default false: its collection is read, and
	// tokens that end are deleted from it; nothing else is changed.
	Convert bool
}

// LegacyTokens is a store of tokens that also accepts those of fastapi-users' database strategy,
// so that an application can move to Latchkey without logging anybody out. Make it with
// [NewLegacyTokens]. It is safe for concurrent use.
//
// It never writes a digest into the collection of fastapi-users, which would accept the digest
// as a token. Listings, limits and revocations count the tokens of both collections. Its indexes
// are made and verified with those of its Tokens.
//
// A legacy token gets its session ID from the ObjectID of its row. It cannot be renamed before
// it is converted.
type LegacyTokens[ID comparable] struct {
	*Tokens[ID]
	old      *store // fastapi-users' collection
	lifetime time.Duration
	convert  bool
	lookups  chan struct{} // a semaphore
}

var _ strategy.LegacyStore[int64] = (*LegacyTokens[int64])(nil)

// maxLegacyLookups is the maximum number of concurrent look-ups and deletes of legacy tokens. Anybody can
// make up tokens of their form, which has no checksum. Such requests wait for each other.
const maxLegacyLookups = 32

// NewLegacyTokens returns a store of the tokens in tokens and in the collection of
// fastapi-users. It does no I/O. It returns an error if a field of cfg is invalid. From then on,
// EnsureIndexes and VerifyIndexes of tokens include the indexes that look-ups in that collection
// need, on token, and on user_id and created_at; they do not disturb fastapi-users.
func NewLegacyTokens[ID comparable](tokens *Tokens[ID], cfg LegacyConfig) (*LegacyTokens[ID], error) {
	if tokens == nil {
		return nil, errors.New("mongostore: tokens is nil")
	}
	if cfg.Collection == "" {
		return nil, errors.New(`mongostore: LegacyConfig.Collection is "", want the name of the collection of fastapi-users' tokens`)
	}
	if err := checkName("LegacyConfig.Collection", cfg.Collection); err != nil {
		return nil, err
	}
	if cfg.Collection == tokens.coll.Name() {
		return nil, fmt.Errorf("mongostore: LegacyConfig.Collection and TokensConfig.Collection are both %q: fastapi-users would accept the digests that Latchkey writes; give Latchkey's collection another name", cfg.Collection)
	}
	if err := notNegative("LegacyConfig", duration{"Lifetime", cfg.Lifetime}); err != nil {
		return nil, err
	}
	old := &store{
		coll:    collection(tokens.coll.Database(), cfg.Collection, tokens.registry),
		timeout: tokens.timeout, registry: tokens.registry, now: tokens.now, onEvent: tokens.onEvent,
	}
	tokens.indexed(old.coll, legacyIndexSpec(), nil)
	return &LegacyTokens[ID]{tokens, old, cfg.Lifetime, cfg.Convert, make(chan struct{}, maxLegacyLookups)}, nil
}

// legacySecret is the length of the tokens of fastapi-users: 32 bytes in base64url.
const legacySecret = 43

// Legacy implements strategy.LegacyStore: 43 characters of base64url are a token of
// fastapi-users.
func (l *LegacyTokens[ID]) Legacy(token string) bool {
	if len(token) != legacySecret {
		return false
	}
	for i := range len(token) {
		c := token[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// ByLegacyToken implements strategy.LegacyStore. At most 32 look-ups run at a time; others wait
// for them.
func (l *LegacyTokens[ID]) ByLegacyToken(ctx context.Context, secret string) (strategy.AccessToken[ID], error) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	if err := l.wait(ctx); err != nil {
		return strategy.AccessToken[ID]{}, err
	}
	defer l.done()
	if !l.convert {
		return l.find(ctx, secret)
	}
	// A copy that is not confirmed has no Legacy.
	copied, err := l.ByToken(ctx, token.DigestOf(secret))
	l.limit(&copied)
	if err == nil && copied.Legacy || err != nil && !errors.Is(err, strategy.ErrTokenNotFound) {
		return copied, err
	}
	row, err := l.find(ctx, secret)
	if err != nil || l.expired(&row) {
		return row, err
	}
	copied, err = l.convertRow(ctx, row)
	if err != nil && !errors.Is(err, strategy.ErrTokenNotFound) {
		// The database can be read but not written. The token is valid all the same.
		l.emit(ctx, event.Event{Kind: event.StoreFailed, UserID: row.UserID, SessionID: row.ID, Err: fmt.Errorf("mongostore: convert a legacy token: %w", err)})
		return row, nil
	}
	if err == nil && !copied.Legacy { // rotating
		return copied, fmt.Errorf("mongostore: %w", strategy.ErrTokenNotFound)
	}
	return copied, err
}

// wait waits until another call for a legacy token that anybody can make may run. It must be
// followed by done unless it returns an error.
func (l *LegacyTokens[ID]) wait(ctx context.Context) error {
	select {
	case l.lookups <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("mongostore: wait for a look-up of legacy tokens: %w", ctx.Err())
	}
}

func (l *LegacyTokens[ID]) done() { <-l.lookups }

// find returns the row of a token in the collection of fastapi-users.
func (l *LegacyTokens[ID]) find(ctx context.Context, secret string) (strategy.AccessToken[ID], error) {
	doc, err := one(l.old.coll.FindOne(ctx, tokenFilter(secret)))
	switch {
	case err != nil:
		return strategy.AccessToken[ID]{}, fmt.Errorf("mongostore: find the legacy token: %w", err)
	case doc == nil:
		return strategy.AccessToken[ID]{}, fmt.Errorf("mongostore: %w", strategy.ErrTokenNotFound)
	}
	row, err := l.parse(doc)
	if err != nil {
		l.old.invalid(ctx, doc, known(row.UserID), err)
		return row, fmt.Errorf("mongostore: %w: %w", strategy.ErrTokenNotFound, err)
	}
	return row, nil
}

// parse reads a row of fastapi-users. It returns an error that names the first field that is
// missing or of another type. It also returns the fields that it could read.
func (l *LegacyTokens[ID]) parse(doc bson.Raw) (row strategy.AccessToken[ID], err error) {
	row.Legacy = true
	for _, field := range []string{"_id", "token", "user_id", "created_at"} {
		v, ok := doc.Lookup(field), true
		var cause error
		switch {
		case v.IsZero() || v.Type == bson.TypeNull:
			cause = errors.New("it is missing")
		case field == "_id":
			var id bson.ObjectID
			id, ok = v.ObjectIDOK()
			row.ID = sessionOf(id)
		case field == "token":
			var secret string
			secret, ok = v.StringValueOK()
			if ok && !l.Legacy(secret) {
				cause = errors.New("it is not 43 characters of base64url")
			}
			row.Digest = token.DigestOf(secret)
		case field == "user_id":
			cause = parseID(v, l.registry, &row.UserID)
		case field == "created_at":
			row.CreatedAt, ok = timeOf(v)
		}
		if e := fieldError(field, v, ok, cause); err == nil {
			err = e
		}
	}
	l.limit(&row)
	return row, err
}

// limit applies fastapi-users' lifetime. A copy can have been made without it.
func (l *LegacyTokens[ID]) limit(row *strategy.AccessToken[ID]) {
	if !row.Legacy || l.lifetime == 0 || row.CreatedAt.IsZero() {
		return
	}
	if end := row.CreatedAt.Add(l.lifetime).Truncate(time.Millisecond); row.ExpiresAt.IsZero() || row.ExpiresAt.After(end) {
		row.ExpiresAt = end
	}
}

// expired reports whether a legacy token is too old to be converted.
func (l *LegacyTokens[ID]) expired(row *strategy.AccessToken[ID]) bool {
	now := l.now()
	return !row.ExpiresAt.IsZero() && row.ExpiresAt.Before(now) ||
		l.Retention() > 0 && row.CreatedAt.Before(now.Add(-l.Retention()))
}

// RotateLegacyToken implements strategy.LegacyStore. It copies the token, deletes its row in
// the collection of fastapi-users, and then rotates the copy.
func (l *LegacyTokens[ID]) RotateLegacyToken(ctx context.Context, secret string, to strategy.Rotation) (strategy.AccessToken[ID], error) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	row, err := l.find(ctx, secret)
	if err == nil {
		update := toRotate
		if l.convert {
			update = confirm
		}
		_, err = l.copyRow(ctx, row, update)
	}
	// An earlier attempt can have deleted the row, and left the copy.
	if err != nil && !errors.Is(err, strategy.ErrTokenNotFound) {
		return row, err
	}
	if _, err := l.old.deleteOne(ctx, "delete the legacy token", tokenFilter(secret)); err != nil {
		return row, err
	}
	copied := bson.D{{Key: "token", Value: token.DigestOf(secret)}, {Key: "$or", Value: bson.A{
		bson.D{{Key: "legacy", Value: true}}, bson.D{{Key: "token_version", Value: rotating}},
	}}}
	update := rotationUpdate(to)
	unset := bson.D{{Key: "legacy", Value: ""}}
	if to.TokenVersion <= 0 {
		unset = append(unset, bson.E{Key: "token_version", Value: ""}) // the mark
	}
	return l.rotateRow(ctx, copied, append(update, bson.E{Key: "$unset", Value: unset}))
}

// DeleteLegacyToken implements strategy.LegacyStore. Like look-ups, at most 32 run at a time:
// anybody can log out with a made-up token.
func (l *LegacyTokens[ID]) DeleteLegacyToken(ctx context.Context, secret string) (strategy.AccessToken[ID], error) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	if err := l.wait(ctx); err != nil {
		return strategy.AccessToken[ID]{}, err
	}
	defer l.done()
	digest := token.DigestOf(secret)
	row, err := l.deleteBoth(ctx, tokenFilter(secret), func() (strategy.AccessToken[ID], error) { return l.Delete(ctx, digest) })
	if err == nil {
		row.Digest = digest
	}
	return row, err
}

// DeleteSession implements strategy.Store.
func (l *LegacyTokens[ID]) DeleteSession(ctx context.Context, userID ID, id uuid.UUID) (strategy.AccessToken[ID], error) {
	oid, legacy := objectOf(id)
	if !legacy {
		return l.Tokens.DeleteSession(ctx, userID, id)
	}
	row, err := l.deleteBoth(ctx, bson.D{{Key: "_id", Value: oid}, {Key: "user_id", Value: userID}}, func() (strategy.AccessToken[ID], error) {
		return l.Tokens.DeleteSession(ctx, userID, id)
	})
	if err == nil {
		row.ID, row.UserID = id, userID
	}
	return row, err
}

// deleteBoth deletes a row of fastapi-users and then its copy; see convertRow on this order. It
// returns what can be read of one of them.
func (l *LegacyTokens[ID]) deleteBoth(ctx context.Context, filter any, deleteCopy func() (strategy.AccessToken[ID], error)) (strategy.AccessToken[ID], error) {
	doc, err := l.old.deleteOne(ctx, "delete the legacy token", filter)
	if err != nil {
		return strategy.AccessToken[ID]{}, err
	}
	row, err := deleteCopy()
	if doc != nil && errors.Is(err, strategy.ErrTokenNotFound) {
		row, _ = l.parse(doc) // an invalid row is gone too
		err = nil
	}
	return row, err
}

// DeleteByUser implements strategy.Store.
func (l *LegacyTokens[ID]) DeleteByUser(ctx context.Context, userID ID, except ...uuid.UUID) (int64, error) {
	user := bson.D{{Key: "user_id", Value: userID}}
	var kept []bson.ObjectID
	for _, id := range except {
		if oid, legacy := objectOf(id); legacy {
			kept = append(kept, oid)
		}
	}
	rows, copies := user, append(slices.Clone(user), isCopy...)
	if len(kept) > 0 {
		rows = append(slices.Clone(user), bson.E{Key: "_id", Value: bson.D{{Key: "$nin", Value: kept}}})
	}
	if len(except) > 0 {
		copies = append(copies, bson.E{Key: "_id", Value: bson.D{{Key: "$nin", Value: except}}})
	}
	n, err := l.old.deleteAll(ctx, "delete the user's legacy tokens", rows)
	if err != nil {
		return n, err
	}
	if _, err := l.deleteAll(ctx, "delete the copies of the user's legacy tokens", copies); err != nil {
		return n, err
	}
	own, err := l.Tokens.DeleteByUser(ctx, userID, except...)
	return n + own, err
}

// ByUser implements strategy.Store.
func (l *LegacyTokens[ID]) ByUser(ctx context.Context, userID ID, after strategy.Position, limit int) ([]strategy.AccessToken[ID], error) {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	own, err := l.ownByUser(ctx, userID, after, limit)
	if err != nil {
		return nil, err
	}
	filter := bson.D{{Key: "user_id", Value: userID}}
	if (after != strategy.Position{}) {
		oid, op := beforeSession(after.ID)
		filter = append(filter, olderThan(after.CreatedAt, bson.D{{Key: op, Value: oid}}))
	}
	legacy, err := newest(ctx, l.old, userID, filter, limit, l.parse)
	if err != nil {
		return nil, wrap("list the legacy tokens", err)
	}
	// Own rows come first, so that a copy takes the place of its legacy row.
	all := append(own, legacy...)
	slices.SortStableFunc(all, func(a, b strategy.AccessToken[ID]) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), bytes.Compare(b.ID[:], a.ID[:]))
	})
	all = slices.CompactFunc(all, func(a, b strategy.AccessToken[ID]) bool { return a.ID == b.ID })
	return all[:min(limit, len(all))], nil
}

// ownByUser is Tokens.ByUser without copies that are not confirmed, and before conversion
// without copies at all: fastapi-users can have revoked their tokens.
func (l *LegacyTokens[ID]) ownByUser(ctx context.Context, userID ID, after strategy.Position, limit int) (own []strategy.AccessToken[ID], err error) {
	for {
		rows, err := l.Tokens.ByUser(ctx, userID, after, limit)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			if after = (strategy.Position{CreatedAt: row.CreatedAt, ID: row.ID}); row.TokenVersion >= 0 && (l.convert || !row.Legacy) {
				l.limit(&row)
				own = append(own, row)
			}
		}
		if len(rows) < limit || len(own) >= limit {
			return own[:min(limit, len(own))], nil
		}
	}
}

// A session ID of a legacy token is a UUIDv7 made of its ObjectID: the seconds in the place of
// the milliseconds, then the other 64 bits, then legacyMark. It keeps the order of ObjectIDs.
const legacyMark = 0x155

func sessionOf(oid bson.ObjectID) (id uuid.UUID) {
	rest := binary.BigEndian.Uint64(oid[4:])
	ms := uint64(binary.BigEndian.Uint32(oid[:4])) * 1000
	binary.BigEndian.PutUint64(id[:8], ms<<16|7<<12|rest>>52)
	binary.BigEndian.PutUint64(id[8:], 2<<62|rest<<12>>2|legacyMark)
	return id
}

// split returns what sessionOf has put together.
func split(id uuid.UUID) (ms, rest, mark uint64) {
	hi, lo := binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
	return hi >> 16, hi<<52 | lo<<2>>12, lo & (1<<10 - 1)
}

func objectID(seconds, rest uint64) (oid bson.ObjectID) {
	binary.BigEndian.PutUint32(oid[:4], uint32(min(seconds, math.MaxUint32)))
	binary.BigEndian.PutUint64(oid[4:], rest)
	return oid
}

// objectOf returns the ObjectID that sessionOf made a session ID from. It reports whether the ID can be
// that of a legacy token.
func objectOf(id uuid.UUID) (bson.ObjectID, bool) {
	ms, rest, _ := split(id)
	oid := objectID(ms/1000, rest)
	return oid, sessionOf(oid) == id
}

// beforeSession returns a condition on ObjectIDs, $lt or $lte: those whose session IDs are less
// than id.
func beforeSession(id uuid.UUID) (bson.ObjectID, string) {
	ms, rest, mark := split(id)
	switch {
	case ms%1000 > 0:
		return objectID(ms/1000, math.MaxUint64), "$lte"
	case mark > legacyMark:
		return objectID(ms/1000, rest), "$lte"
	}
	return objectID(ms/1000, rest), "$lt"
}
