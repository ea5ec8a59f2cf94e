package mongostore

import (
	"context"
	"fmt"
	"regexp"
	"sync/atomic"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/internal/spellings"
)

// ignoreCase is the collation by which fastapi-users' adapters look addresses up too.
var ignoreCase = &options.Collation{Locale: "en", Strength: 2}

// anyCase finds addresses in any spelling; see UsersConfig.AnyCase.
type anyCase struct {
	noCollation atomic.Bool // the server has none
}

// findAnyCase finds the account whose address has this normal form.
func (u *Users[U, ID]) findAnyCase(ctx context.Context, email string) (user U, err error) {
	ctx, cancel := u.bounded(ctx)
	defer cancel()
	var none U
	docs, err := u.spellings(ctx, email)
	if err != nil {
		return none, fmt.Errorf("mongostore: find the account: %w", err)
	}
	switch found := theOne(docs, u.fields.Email, email); {
	case len(docs) == 0:
		return none, fmt.Errorf("mongostore: %w", account.ErrUserNotFound)
	case found == nil:
		cause := fmt.Errorf("%d accounts have this address in different spellings", len(docs))
		for _, doc := range docs {
			u.invalid(ctx, doc, nil, cause)
		}
		return none, fmt.Errorf("mongostore: %w", account.ErrUserNotFound)
	default:
		user, err := u.decodeDocument(found)
		if err != nil {
			u.invalid(ctx, found, nil, err)
			return none, fmt.Errorf("mongostore: find the account: %w", err)
		}
		return user, nil
	}
}

// theOne returns the only document, or the one that has exactly this address, or nil.
func theOne(docs []bson.Raw, field, email string) bson.Raw {
	if len(docs) == 1 {
		return docs[0]
	}
	for _, doc := range docs {
		if doc.Lookup(field).StringValue() == email {
			return doc
		}
	}
	return nil
}

// spellings returns the documents whose address has a normal form.
func (u *Users[U, ID]) spellings(ctx context.Context, email string) ([]bson.Raw, error) {
	var candidates []bson.Raw
	var err error
	if !u.anyCase.noCollation.Load() {
		filter := bson.D{{Key: u.fields.Email, Value: bson.D{{Key: "$in", Value: spellings.Variants(email)}}}}
		candidates, err = documents(ctx, u.coll, filter, options.Find().SetCollation(ignoreCase))
		if isUnsupported(err) {
			u.anyCase.noCollation.Store(true)
		}
	}
	if u.anyCase.noCollation.Load() {
		var any bson.A
		for _, v := range spellings.Variants(email) {
			any = append(any, bson.D{{Key: u.fields.Email, Value: bson.Regex{Pattern: "^" + regexp.QuoteMeta(v) + "$", Options: "i"}}})
		}
		candidates, err = documents(ctx, u.coll, bson.D{{Key: "$or", Value: any}}, options.Find())
	}
	if err != nil {
		return nil, err
	}
	var docs []bson.Raw
	for _, doc := range candidates { // servers compare more loosely
		stored, ok := doc.Lookup(u.fields.Email).StringValueOK()
		if normal, err := account.NormalizeEmail(stored); ok && (stored == email || err == nil && normal == email) {
			docs = append(docs, doc)
		}
	}
	return docs, nil
}

// documents returns the documents that a filter matches.
func documents(ctx context.Context, coll *mongo.Collection, filter any, opts *options.FindOptionsBuilder) (docs []bson.Raw, err error) {
	cur, err := coll.Find(ctx, filter, opts)
	if err != nil {
		return nil, err
	}
	defer func() { _ = cur.Close(ctx) }()
	for cur.Next(ctx) {
		docs = append(docs, append(bson.Raw(nil), cur.Current...))
	}
	return docs, cur.Err()
}

// taken returns ErrEmailTaken if another account than self has an address in another spelling.
// The unique index is the guarantee for the same spelling; accounts in other spellings are
// older, so there is no race with them.
func (u *Users[U, ID]) taken(ctx context.Context, self *ID, email string) error {
	if u.anyCase == nil {
		return nil
	}
	docs, err := u.spellings(ctx, email)
	if err != nil {
		return fmt.Errorf("mongostore: find the account: %w", err)
	}
	for _, doc := range docs {
		var id ID
		if self == nil || parseID(doc.Lookup(u.fields.ID), u.registry, &id) != nil || id != *self {
			return fmt.Errorf("mongostore: %w", account.ErrEmailTaken)
		}
	}
	return nil
}
