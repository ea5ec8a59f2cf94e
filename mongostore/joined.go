package mongostore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey/strategy"
)

// JoinedUsers are [Users] that are read together with their tokens, in one command
// ($lookup): a strategy.JoinedSource. Make it with [Join], and give it to
// strategy.NewDatabase in the place of the Users. A guarded request then waits for
// the database once and not twice. It is safe for concurrent use.
//
// A server without $lookup (FerretDB v1), or one that cannot do it on a sharded
// collection of users (MongoDB before 5.1), is noticed at the first request, and
// given two commands from then on.
type JoinedUsers[U strategy.User[ID], ID comparable] struct {
	*Users[U, ID]
	tokens *Tokens[ID]
	coll   *mongo.Collection // of the tokens, with the users' codecs
	lookup bson.Raw          // what $lookup is given
	// apart is set once the server has said that it cannot join.
	apart atomic.Bool
}

// Join returns the users of tokens. Both collections must be in one database of one
// client: another one is an error.
func Join[U strategy.User[ID], ID comparable](tokens *Tokens[ID], users *Users[U, ID]) (*JoinedUsers[U, ID], error) {
	if tokens == nil || users == nil {
		return nil, errors.New("mongostore: Join: tokens or users is nil")
	}
	db := tokens.coll.Database()
	if other := users.coll.Database(); db.Client() != other.Client() || db.Name() != other.Name() {
		return nil, fmt.Errorf("mongostore: Join: the tokens are in the database %q and the users in %q, want both in one, of one client", db.Name(), other.Name())
	}
	lookup, err := encode(defaultRegistry, bson.D{
		{Key: "from", Value: users.coll.Name()}, {Key: "localField", Value: "user_id"},
		{Key: "foreignField", Value: "_id"}, {Key: "as", Value: "user"},
	})
	if err != nil {
		return nil, fmt.Errorf("mongostore: Join: %w", err)
	}
	coll := collection(db, tokens.coll.Name(), users.cfg.Registry)
	return &JoinedUsers[U, ID]{Users: users, tokens: tokens, coll: coll, lookup: lookup}, nil
}

// ByToken implements strategy.JoinedSource.
func (j *JoinedUsers[U, ID]) ByToken(ctx context.Context, digest string, createdAfter time.Time) (token strategy.AccessToken[ID], user U, err error) {
	ctx, cancel := bounded(ctx, j.tokens.cfg.Timeout)
	defer cancel()
	if !j.apart.Load() {
		token, user, err = j.join(ctx, digest, createdAfter)
		if !cannotJoin(err) {
			return token, user, err
		}
		j.apart.Store(true)
	}
	if token, err = j.tokens.ByToken(ctx, digest, createdAfter); err == nil {
		user, err = j.ByID(ctx, token.UserID)
	}
	return token, user, err
}

func (j *JoinedUsers[U, ID]) join(ctx context.Context, digest string, createdAfter time.Time) (token strategy.AccessToken[ID], user U, err error) {
	var none U
	cur, err := j.coll.Aggregate(ctx, joinPipeline(tokenFilter(digest, createdAfter), j.lookup))
	if err != nil {
		return token, none, fmt.Errorf("mongostore: find the token and its user: %w", err)
	}
	defer func() { _ = cur.Close(ctx) }()
	if !cur.Next(ctx) {
		if err := cur.Err(); err != nil {
			return token, none, fmt.Errorf("mongostore: find the token and its user: %w", err)
		}
		return token, none, fmt.Errorf("mongostore: %w", strategy.ErrTokenNotFound)
	}
	var found struct { // beside the row's fields, none of which is called so
		User []U `bson:"user"`
	}
	if token, err = parseToken[ID](cur.Current, j.tokens.cfg.Registry); err != nil {
		return strategy.AccessToken[ID]{}, none, fmt.Errorf("mongostore: find the token: %w", err)
	}
	if err = cur.Decode(&found); err != nil {
		return token, none, fmt.Errorf("mongostore: find the account: %w", err)
	}
	if len(found.User) == 0 {
		return token, none, fmt.Errorf("mongostore: %w", strategy.ErrUserNotFound)
	}
	return token, j.inUTC(found.User[0]), nil
}

// cannotJoin reports whether a server has no $lookup, or none of this collection.
func cannotJoin(err error) bool {
	return hasCode(err, codeNotImplemented, codeUnknownStage, codeCommandNotFound, codeCommandNotSupported, codeLookupSharded)
}
