package latchkey

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
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
	// the login limits and the messages.
	Users         *mongostore.Users[U, ID]
	Tokens        *mongostore.Tokens[ID]
	Attempts      *mongostore.Attempts
	OneTimeTokens *mongostore.OneTimeTokens[ID]
	// Legacy is the store behind Sessions, with Tokens in it, if Config.Legacy is set;
	// otherwise nil.
	Legacy *mongostore.LegacyTokens[ID]

	apiTokens *mongostore.Tokens[ID] // nil without Config.APITokens

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
	var store strategy.Store[ID] = tokens
	var legacy *mongostore.LegacyTokens[ID]
	if cfg.Legacy != (mongostore.LegacyConfig{}) {
		if legacy, err = mongostore.NewLegacyTokens(tokens, cfg.Legacy); err != nil {
			return nil, fmt.Errorf("latchkey: %w", err)
		}
		store = legacy
	}
	sessions, err := strategy.NewDatabase(store, users, cfg.sessions())
	if err != nil {
		return nil, fmt.Errorf("latchkey: %w", err)
	}
	lk := &Latchkey[U, ID]{
		Sessions: sessions, Users: users, Tokens: tokens, Attempts: attempts, OneTimeTokens: oneTime, Legacy: legacy, AuditTrail: trail,
	}
	lk.ready.set(cfg)
	told := []account.Sessions[ID]{sessions}
	if len(cfg.APITokens.Scopes) > 0 {
		if err = lk.addAPITokens(db, cfg); err == nil {
			told = append(told, lk.APITokens)
		}
	}
	if err == nil {
		lk.Accounts, err = account.NewManager[U, ID, P](users, oneTime, attempts, newID, cfg.accounts(), told...)
	}
	if err == nil {
		lk.Auth, err = ginauth.New(sessions, lk.Accounts, cfg.ginauth())
	}
	if err == nil {
		lk.Auth, err = ginauth.WithAccounts(lk.Auth, lk.Accounts)
	}
	if err == nil && lk.APITokens != nil {
		lk.Auth, err = lk.Auth.WithAPITokens(lk.APITokens, ginauth.APITokensConfig{Scopes: cfg.APITokens.Scopes, MaxPerUser: cfg.APITokens.MaxPerUser})
	}
	if err == nil {
		lk.Web, err = lk.Auth.AnswerLoginsWith(cfg.Cookie)
	}
	if err != nil {
		if lk.Accounts != nil {
			lk.Accounts.Close()
		}
		sessions.Close()
		if lk.APITokens != nil {
			lk.APITokens.Close()
		}
		return nil, fmt.Errorf("latchkey: %w", err)
	}
	return lk, nil
}

// addAPITokens adds the second strategy.
func (lk *Latchkey[U, ID]) addAPITokens(db *mongo.Database, cfg Config) (err error) {
	if lk.apiTokens, err = mongostore.NewTokens[ID](db, cfg.apiTokens()); err != nil {
		return err
	}
	lk.APITokens, err = strategy.NewDatabase(lk.apiTokens, lk.Users, cfg.apiStrategy())
	return err
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
func (lk *Latchkey[U, ID]) EnsureIndexes(ctx context.Context) error {
	return wrap(lk.inTurn(func(s indexed) error { return s.EnsureIndexes(ctx) }))
}

// VerifyIndexes reports what EnsureIndexes would do, as an error wrapping
// mongostore.ErrIndexMismatch, and changes nothing: for an application whose database
// user may not manage indexes.
func (lk *Latchkey[U, ID]) VerifyIndexes(ctx context.Context) error {
	return wrap(lk.inTurn(func(s indexed) error { return s.VerifyIndexes(ctx) }))
}

// indexed is a store with indexes.
type indexed interface {
	EnsureIndexes(ctx context.Context) error
	VerifyIndexes(ctx context.Context) error
	CheckIndexes(ctx context.Context) error
}

// inTurn calls do with each store in turn, and reports all index problems together. It
// stops at any other failure: without a server, each store would wait for one.
func (lk *Latchkey[U, ID]) inTurn(do func(indexed) error) error {
	stores := []indexed{lk.Users, lk.Tokens, lk.Attempts, lk.OneTimeTokens}
	if lk.apiTokens != nil {
		stores = append(stores, lk.apiTokens)
	}
	if lk.AuditTrail != nil {
		stores = append(stores, lk.AuditTrail)
	}
	var problems []error
	for _, s := range stores {
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
// Users.NormalizeUsers.
func (lk *Latchkey[U, ID]) AuditUsers(ctx context.Context) (mongostore.Audit, error) {
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
	lk.Tokens.Close()
	lk.Attempts.Close()
	lk.OneTimeTokens.Close()
	if lk.APITokens != nil {
		lk.APITokens.Close()
		lk.apiTokens.Close()
	}
	if lk.AuditTrail != nil {
		lk.AuditTrail.Close() // after all that reports events
	}
}
