package mongostore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/deadline"
)

// OAuthAccountsConfig configures [OAuthAccounts]. The zero value is usable.
type OAuthAccountsConfig struct {
	// Collection is the collection's name. Default "oauth_accounts".
	Collection string

	// Timeout bounds every call whose context has no deadline. Default 3 seconds.
	// EnsureIndexes has 5 minutes instead.
	Timeout time.Duration

	// Registry has the codecs for the ID type. Default [NewRegistry].
	Registry *bson.Registry

	// Now is the clock of events and of deletions. Default [time.Now].
	Now func() time.Time

	// OnEvent receives an event for every document that cannot be read; see
	// strategy.Config.OnEvent. nil means no events.
	OnEvent func(context.Context, event.Event)
}

// OAuthAccounts stores the links of accounts to users of identity providers in a MongoDB
// collection:
//
//	oauth_accounts
//	  _id           ObjectID
//	  issuer        the provider's issuer          unique index {issuer: 1, subject: 1}
//	  subject       the provider's user
//	  user_id       the application's ID type, natively    index {user_id: 1}
//	  email         the address that the provider named; missing if none
//	  created_at    date
//	  unlinking     string and
//	  unlinking_at  date: see Delete; missing otherwise
//
// Make it with [NewOAuthAccounts], call EnsureIndexes (or VerifyIndexes) when the application
// starts, and Close when it ends. Without the unique index, one user of a provider can be linked to
// two accounts. Shard the collection by {issuer: 1, subject: 1}. It is safe for concurrent use.
//
// A document that another program wrote, with a field of another type or without one of the
// fields, is a failure for Find and is left out by ListByUser, each time with an event of the kind
// event.InvalidDocument.
type OAuthAccounts[ID comparable] struct {
	store
}

var _ account.OAuthAccountStore[int64] = (*OAuthAccounts[int64])(nil)

// oauthAccountDoc is a document of the collection, as it is inserted.
type oauthAccountDoc[ID comparable] struct {
	ObjectID  bson.ObjectID `bson:"_id"`
	Issuer    string        `bson:"issuer"`
	Subject   string        `bson:"subject"`
	UserID    ID            `bson:"user_id"`
	Email     string        `bson:"email,omitempty"`
	CreatedAt time.Time     `bson:"created_at"`
}

// NewOAuthAccounts returns a store of links in a database. It does no I/O. It returns an error if a
// field of cfg is invalid, or if BSON cannot represent the ID type.
func NewOAuthAccounts[ID comparable](db *mongo.Database, cfg OAuthAccountsConfig) (*OAuthAccounts[ID], error) {
	o := &OAuthAccounts[ID]{store{timeout: cfg.Timeout, registry: cfg.Registry, now: cfg.Now, onEvent: cfg.OnEvent}}
	if err := o.open(db, "OAuthAccountsConfig", cmp.Or(cfg.Collection, "oauth_accounts")); err != nil {
		return nil, err
	}
	if err := checkID[ID](o.registry, "OAuthAccountsConfig"); err != nil {
		return nil, err
	}
	o.indexed(o.coll, oauthAccountsIndexSpec(), nil)
	o.check = o.checkOAuthAccounts
	return o, nil
}

// Insert implements account.OAuthAccountStore.
func (o *OAuthAccounts[ID]) Insert(ctx context.Context, link account.OAuthAccount[ID]) error {
	doc := oauthAccountDoc[ID]{bson.NewObjectID(), link.Issuer, link.Subject, link.UserID, link.Email, link.CreatedAt}
	return o.write(ctx, "insert the OAuth account", func(ctx context.Context) error {
		_, err := o.coll.InsertOne(ctx, doc)
		if mongo.IsDuplicateKeyError(err) {
			return account.ErrOAuthAccountTaken // the server's error shows the subject
		}
		return err
	})
}

// oauthFilter matches the link of a user of a provider.
func oauthFilter(issuer, subject string) bson.D {
	return bson.D{{Key: "issuer", Value: issuer}, {Key: "subject", Value: subject}}
}

// Find implements account.OAuthAccountStore.
func (o *OAuthAccounts[ID]) Find(ctx context.Context, issuer, subject string) (account.OAuthAccount[ID], error) {
	ctx, cancel := o.bounded(ctx)
	defer cancel()
	doc, err := one(o.coll.FindOne(ctx, oauthFilter(issuer, subject)))
	switch {
	case err != nil:
		return account.OAuthAccount[ID]{}, wrap("find the OAuth account", err)
	case doc == nil:
		return account.OAuthAccount[ID]{}, fmt.Errorf("mongostore: %w", account.ErrOAuthAccountNotFound)
	}
	link, err := o.read(ctx, doc)
	if err != nil {
		return account.OAuthAccount[ID]{}, wrap("read the OAuth account", err)
	}
	return link, nil
}

// ListByUser implements account.OAuthAccountStore.
func (o *OAuthAccounts[ID]) ListByUser(ctx context.Context, userID ID) ([]account.OAuthAccount[ID], error) {
	ctx, cancel := o.bounded(ctx)
	defer cancel()
	cur, err := o.coll.Find(ctx, bson.D{{Key: "user_id", Value: userID}})
	if err != nil {
		return nil, wrap("list the OAuth accounts", err)
	}
	defer func() { _ = cur.Close(ctx) }()
	var links []account.OAuthAccount[ID]
	for cur.Next(ctx) {
		if link, err := o.read(ctx, cur.Current); err == nil {
			links = append(links, link)
		}
	}
	if err := cur.Err(); err != nil {
		return nil, wrap("list the OAuth accounts", err)
	}
	slices.SortFunc(links, func(a, b account.OAuthAccount[ID]) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.Issuer, b.Issuer), strings.Compare(a.Subject, b.Subject))
	})
	return links, nil
}

const (
	// maxUnlinking bounds a deletion that keeps the last link, whatever the deadline of its
	// context.
	maxUnlinking = 30 * time.Second
	// unlinkingIgnored is the age from which the mark of a deletion is ignored: it was not
	// finished. It is longer than maxUnlinking by the largest difference of two clocks.
	unlinkingIgnored = 5 * time.Minute
)

// Delete implements account.OAuthAccountStore.
//
// With keep, it first marks the link, then looks for another one without a mark, and then deletes
// the link, or removes the mark. Of two concurrent deletions of the last two links, at least one
// sees the mark of the other. A marked link still works.
func (o *OAuthAccounts[ID]) Delete(ctx context.Context, userID ID, issuer, subject string, keep []string) error {
	own := append(oauthFilter(issuer, subject), bson.E{Key: "user_id", Value: userID})
	if len(keep) == 0 {
		doc, err := o.deleteOne(ctx, "delete the OAuth account", own)
		if err == nil && doc == nil {
			err = fmt.Errorf("mongostore: %w", account.ErrOAuthAccountNotFound)
		}
		return err
	}
	ctx, cancel := o.bounded(ctx)
	defer cancel()
	ctx, cancelMark := context.WithTimeout(ctx, maxUnlinking)
	defer cancelMark()
	mark, now := uuid.NewString(), o.now().UTC()
	marked, err := o.updateOne(ctx, own, bson.D{{Key: "$set", Value: bson.D{{Key: "unlinking", Value: mark}, {Key: "unlinking_at", Value: now}}}})
	switch {
	case err != nil:
		return wrap("mark the OAuth account", err)
	case !marked:
		return fmt.Errorf("mongostore: %w", account.ErrOAuthAccountNotFound)
	}
	// A deletion by another mark may have replaced this one: it then decides about the link.
	ours := append(slices.Clone(own), bson.E{Key: "unlinking", Value: mark})
	another, err := exists(ctx, o.coll, bson.D{
		{Key: "user_id", Value: userID}, {Key: "issuer", Value: bson.D{{Key: "$in", Value: keep}}},
		{Key: "unlinking", Value: bson.D{{Key: "$ne", Value: mark}}},
		{Key: "$or", Value: bson.A{
			bson.D{{Key: "unlinking_at", Value: bson.D{{Key: "$exists", Value: false}}}},
			bson.D{{Key: "unlinking_at", Value: bson.D{{Key: "$lt", Value: now.Add(-unlinkingIgnored)}}}},
		}},
	})
	if err != nil || !another {
		free, cancel := deadline.Uncancelled(ctx)
		defer cancel()
		unset := bson.D{{Key: "$unset", Value: bson.D{{Key: "unlinking", Value: ""}, {Key: "unlinking_at", Value: ""}}}}
		if _, failure := o.updateOne(free, ours, unset); err == nil {
			err = failure
		}
		if err != nil {
			return wrap("look for another OAuth account", err)
		}
		return fmt.Errorf("mongostore: %w", account.ErrLastOAuthAccount)
	}
	doc, err := o.deleteOne(ctx, "delete the OAuth account", ours)
	switch {
	case err != nil:
		return err
	case doc != nil:
		return nil
	}
	switch there, err := exists(ctx, o.coll, own); {
	case err != nil:
		return wrap("look for the OAuth account", err)
	case there:
		return fmt.Errorf("mongostore: %w: another deletion is in flight", account.ErrLastOAuthAccount)
	}
	return fmt.Errorf("mongostore: %w", account.ErrOAuthAccountNotFound)
}

// DeleteByUser implements account.OAuthAccountStore.
func (o *OAuthAccounts[ID]) DeleteByUser(ctx context.Context, userID ID) error {
	_, err := o.deleteAll(ctx, "delete the user's OAuth accounts", bson.D{{Key: "user_id", Value: userID}})
	return err
}

// read reads a document, and reports one that is invalid.
func (o *OAuthAccounts[ID]) read(ctx context.Context, doc bson.Raw) (account.OAuthAccount[ID], error) {
	link, err := parseOAuthAccount[ID](doc, o.registry)
	if err != nil {
		o.invalid(ctx, doc, known(link.UserID), err)
	}
	return link, err
}

// parseOAuthAccount reads a document of oauth_accounts. It returns an error that names the first
// field of another type, or a field that is missing. It also returns the fields that it could read.
func parseOAuthAccount[ID comparable](doc bson.Raw, reg *bson.Registry) (link account.OAuthAccount[ID], err error) {
	elems, err := doc.Elements()
	if err != nil {
		return link, err
	}
	for _, e := range elems {
		key, v, ok := e.Key(), e.Value(), true
		if v.Type == bson.TypeNull {
			continue // equivalent to a missing field
		}
		var cause error
		switch key {
		case "issuer":
			link.Issuer, ok = v.StringValueOK()
		case "subject":
			link.Subject, ok = v.StringValueOK()
		case "user_id":
			cause = parseID(v, reg, &link.UserID)
		case "email":
			link.Email, ok = v.StringValueOK()
		case "created_at":
			link.CreatedAt, ok = timeOf(v)
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
		{"issuer", link.Issuer == ""}, {"subject", link.Subject == ""}, {"user_id", link.UserID == noUser}, {"created_at", link.CreatedAt.IsZero()},
	} {
		if f.missing && err == nil {
			err = errors.New("decode the field " + f.name + ": it is missing")
		}
	}
	return link, err
}

// checkOAuthAccounts looks for invalid documents by the indexes.
func (o *OAuthAccounts[ID]) checkOAuthAccounts(ctx context.Context) {
	queries := append(ends("_id"), ends("user_id")...)
	queries = append(queries, ends("issuer")...)
	o.checkDocuments(ctx, queries, func(doc bson.Raw) error {
		_, err := parseOAuthAccount[ID](doc, o.registry)
		return err
	})
}
