package latchkey

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/internal/assembly"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

// Latchkey is login, logout, guards and accounts on one database. Make one with
// [New]. It is safe for concurrent use. Its fields are for reading only.
type Latchkey[U strategy.User[ID], ID comparable] struct {
	// Auth has the routes and guards. It accepts bearer tokens and cookies. Its
	// login answers with a bearer token in JSON.
	Auth *ginauth.Auth[U]
	// Web is Auth with a login that sets a cookie, for browsers. The guards of Auth
	// and Web are the same.
	Web *ginauth.Auth[U]

	// Accounts registers users, checks and changes passwords, sets flags, and deletes
	// accounts.
	Accounts *account.Manager[U, ID]
	// Sessions issues, lists and revokes access tokens.
	Sessions *strategy.Database[U, ID]
	// APITokens issues, lists and revokes the tokens of scripts. It is nil without
	// Config.APITokens.
	APITokens *strategy.Database[U, ID]

	// AuditTrail lists what a user did. It is nil without Config.AuditRetention.
	AuditTrail *mongostore.AuditTrail[ID]

	// Users, Tokens, Attempts and OneTimeTokens are the stores behind Accounts, Sessions,
	// the login limits and the messages. They are nil if the database is not MongoDB.
	Users         *mongostore.Users[U, ID]
	Tokens        *mongostore.Tokens[ID]
	Attempts      *mongostore.Attempts
	OneTimeTokens *mongostore.OneTimeTokens[ID]
	// Legacy is the store behind Sessions, with Tokens in it, if Config.Legacy is set;
	// otherwise nil.
	Legacy *mongostore.LegacyTokens[ID]

	// stores are these, those of APITokens, and AuditTrail, which is closed after all that
	// reports events. A latchkeytest.Kit has none.
	stores []store
	// ping asks the database for an answer. It is nil in a latchkeytest.Kit.
	ping func(context.Context) error

	ready readiness
}

// New returns a Latchkey on a database: New[Member](db, uuid.New, cfg), for a struct
// Member that embeds account.User inline. newID makes the IDs of new accounts:
// uuid.New, bson.NewObjectID or a function of the application's. The other type
// parameters are inferred.
//
// New does no I/O: call EnsureIndexes or VerifyIndexes when the application starts,
// and Close when it ends. Without the indexes, two accounts can have one e-mail address,
// and every request scans the collections. New returns an error that names the field where the
// configuration is wrong, or where Member cannot be stored.
func New[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]](db *mongo.Database, newID func() ID, cfg Config) (_ *Latchkey[U, ID], err error) {
	cfg.fillDefaults()
	if err := cfg.Collections.check(cfg.Legacy.Collection); err != nil {
		return nil, err
	}
	var trail *mongostore.AuditTrail[ID]
	if cfg.AuditRetention != 0 {
		if trail, err = mongostore.NewAuditTrail[ID](db, cfg.auditTrail()); err != nil {
			return nil, fmt.Errorf("latchkey: %w", err)
		}
		defer func() {
			if err != nil {
				trail.Close()
			}
		}()
		cfg.OnEvent = event.Join(cfg.OnEvent, trail.Record)
	}
	users, err := mongostore.NewUsers[U, ID, P](db, cfg.users())
	if err != nil {
		return nil, fmt.Errorf("latchkey: %w", err)
	}
	tokens, err := mongostore.NewTokens[ID](db, cfg.tokens())
	if err != nil {
		return nil, fmt.Errorf("latchkey: %w", err)
	}
	attempts, err := mongostore.NewAttempts(db, cfg.attempts())
	if err != nil {
		return nil, fmt.Errorf("latchkey: %w", err)
	}
	oneTime, err := mongostore.NewOneTimeTokens[ID](db, cfg.oneTimeTokens())
	if err != nil {
		return nil, fmt.Errorf("latchkey: %w", err)
	}
	lk := &Latchkey[U, ID]{
		Users: users, Tokens: tokens, Attempts: attempts, OneTimeTokens: oneTime, AuditTrail: trail,
		stores: []store{users, tokens, attempts, oneTime}, ping: users.Ping,
	}
	stores := assembly.Stores[U, ID]{Users: users, Tokens: tokens, Attempts: attempts, OneTime: oneTime}
	if cfg.Legacy != (mongostore.LegacyConfig{}) {
		if lk.Legacy, err = mongostore.NewLegacyTokens(tokens, cfg.Legacy); err != nil {
			return nil, fmt.Errorf("latchkey: %w", err)
		}
		stores.Tokens = lk.Legacy
	}
	lk.ready.set(cfg)
	if len(cfg.APITokens.Scopes) > 0 {
		apiTokens, err := mongostore.NewTokens[ID](db, cfg.apiTokens())
		if err != nil {
			return nil, fmt.Errorf("latchkey: %w", err)
		}
		stores.APITokens = apiTokens
		lk.stores = append(lk.stores, apiTokens)
	}
	if trail != nil {
		lk.stores = append(lk.stores, trail)
	}
	parts, err := assembly.Connect[U, ID, P](stores, newID, cfg.assembly(), assembly.Plain[U])
	if err != nil {
		return nil, fmt.Errorf("latchkey: %w", err)
	}
	lk.Auth, lk.Web, lk.Accounts, lk.Sessions, lk.APITokens = parts.Auth, parts.Web, parts.Accounts, parts.Sessions, parts.APITokens
	return lk, nil
}

// attach connects a Latchkey to a database that is not MongoDB.
func (lk *Latchkey[U, ID]) attach(db assembly.Database, cfg Config) {
	lk.stores, lk.ping = []store{db}, db.Ping
	lk.ready.set(cfg)
}

func init() {
	assembly.Attach = func(lk any, db assembly.Database, cfg any) {
		lk.(interface {
			attach(assembly.Database, Config)
		}).attach(db, cfg.(Config))
	}
}

// EnsureIndexes makes the indexes of all collections, if missing. Call it whenever
// the application starts: it is idempotent, and safe from many instances at once. It
// sets a TTL index of another lifetime to [Config.Lifetime]; a much shorter lifetime
// lets the server delete many rows at once.
//
// It returns an error wrapping mongostore.ErrIndexMismatch for an index that it cannot
// mend. On a server without TTL indexes it starts the purge; see
// [Config.PurgeInterval]. Without a deadline in ctx it waits at most 10 seconds for a
// server, and 5 minutes for the indexes of each collection.
//
// On SQL it makes the tables too; see sqlstore.New.
func (lk *Latchkey[U, ID]) EnsureIndexes(ctx context.Context) error {
	return wrap(lk.inTurn(func(s store) error { return s.EnsureIndexes(ctx) }))
}

// VerifyIndexes reports what EnsureIndexes would do, as an error wrapping
// mongostore.ErrIndexMismatch, and changes nothing: for an application whose database
// user may not manage indexes.
func (lk *Latchkey[U, ID]) VerifyIndexes(ctx context.Context) error {
	return wrap(lk.inTurn(func(s store) error { return s.VerifyIndexes(ctx) }))
}

// store is a store on MongoDB, or all stores on a database of another kind.
type store interface {
	EnsureIndexes(ctx context.Context) error
	VerifyIndexes(ctx context.Context) error
	CheckIndexes(ctx context.Context) error
	Close()
}

// inTurn calls do with each store in turn, and reports all index problems together. It
// stops at any other failure: without a server, each store would wait for one.
func (lk *Latchkey[U, ID]) inTurn(do func(store) error) error {
	var problems []error
	for _, s := range lk.stores {
		err := do(s)
		if err != nil {
			problems = append(problems, err)
		}
		if err != nil && !errors.Is(err, mongostore.ErrIndexMismatch) {
			break
		}
	}
	return errors.Join(problems...)
}

// wrap returns an error of this package, or nil for nil.
func wrap(err error) error {
	if err != nil {
		return fmt.Errorf("latchkey: %w", err)
	}
	return nil
}

// AuditUsers reads all documents of the users' collection, and reports those that cannot log
// in as they are; see mongostore.Audit. It changes nothing. Mend addresses with
// Users.NormalizeUsers. It returns an error if the database is not MongoDB.
func (lk *Latchkey[U, ID]) AuditUsers(ctx context.Context) (mongostore.Audit, error) {
	if lk.Users == nil {
		return mongostore.Audit{}, errors.New("latchkey: AuditUsers needs accounts in MongoDB")
	}
	return lk.Users.AuditUsers(ctx, mongostore.AuditConfig{CheckHash: func(hash string) error {
		_, err := lk.Accounts.ImportHash(hash)
		return err
	}})
}

// Close ends the background work that New, EnsureIndexes and VerifyIndexes started,
// and waits until it has ended; for queued messages it waits as long as Config.Mail.Drain
// says, and for the audit trail at most 5 seconds. It is idempotent. Disconnect the MongoDB
// client after Close.
func (lk *Latchkey[U, ID]) Close() {
	lk.ready.closed.Store(true)
	lk.Accounts.Close()
	lk.Sessions.Close()
	if lk.APITokens != nil {
		lk.APITokens.Close()
	}
	for _, s := range lk.stores {
		s.Close()
	}
}
