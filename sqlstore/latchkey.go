package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/assembly"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

// New returns what latchkey.New returns, on a SQL database: New[Member](db, sqlstore.PostgreSQL,
// uuid.New, cfg), for a struct Member that embeds account.User. newID makes the IDs of new
// accounts: uuid.New, [NewInt64ID] or a function of the application's. The other type parameters
// are inferred.
//
// cfg is that of latchkey.New, with these differences:
//
//   - Collections are the names of the tables, UserFields those of the columns of the account;
//   - EnsureIndexes also makes the tables, by [Migrate], and VerifyIndexes is [VerifySchema]. An
//     error wraps [ErrSchemaMismatch]. Both start the purge: one instance at a time deletes expired
//     rows every PurgeInterval;
//   - TTLGrace is how long the purge keeps the row of an expired token;
//   - Legacy.Collection is the table of fastapi-users' tokens; see [LegacyConfig] and [LegacyTokensOf];
//   - AuditRetention and Registry must be the zero value.
//
// The fields Users, Tokens, Attempts, OneTimeTokens, Legacy and AuditTrail of the Latchkey are nil:
// they are stores on MongoDB. AuditUsers returns an error.
//
// New does no I/O: call EnsureIndexes or VerifyIndexes when the application starts, and Close,
// before the database is closed, when it ends. It returns an error that names the field where the
// configuration is wrong, or where Member cannot be stored.
func New[U strategy.User[ID], ID UserID, P account.Embeds[U, ID]](db *sql.DB, dialect Dialect, newID func() ID, cfg latchkey.Config) (*latchkey.Latchkey[U, ID], error) {
	if err := checkConfig(cfg); err != nil {
		return nil, err
	}
	if cfg.OnEvent == nil {
		cfg.OnEvent = event.Log(nil)
	}
	d, stores, err := newDatabase[U, ID, P](db, dialect, cfg)
	if err != nil {
		return nil, err
	}
	parts, err := assembly.Connect[U, ID, P](stores, newID, assembly.Of(cfg), assembly.Plain[U])
	if err != nil {
		return nil, fmt.Errorf("sqlstore: %w", err)
	}
	lk := &latchkey.Latchkey[U, ID]{
		Auth: parts.Auth, Web: parts.Web, Accounts: parts.Accounts, Sessions: parts.Sessions, APITokens: parts.APITokens,
	}
	assembly.Attach(lk, d, cfg)
	return lk, nil
}

// NewInt64ID returns a random ID between 1 and 2^53 - 1, which JavaScript can represent too. Of a
// million such IDs, two are the same with a probability of 0.006 %; the account is then refused with
// account.ErrConflict. A database that also numbers rows itself, for example by AUTO_INCREMENT on
// MySQL, continues after the highest ID.
func NewInt64ID() int64 { return 1 + rand.Int64N(1<<53-1) }

// checkConfig returns an error for a setting that only a Latchkey on MongoDB can have.
func checkConfig(cfg latchkey.Config) error {
	switch {
	case cfg.Registry != nil:
		return errors.New("sqlstore: Config.Registry is set, but it is for MongoDB: remove it; a field is stored in SQL as its driver.Valuer says")
	case cfg.AuditRetention != 0:
		return fmt.Errorf("sqlstore: Config.AuditRetention is %v, but the audit trail needs MongoDB: set it to 0, and store the events of OnEvent", cfg.AuditRetention)
	case cfg.PurgeInterval < 0:
		return fmt.Errorf("sqlstore: Config.PurgeInterval is %v: it must not be negative; 0 means 1 minute", cfg.PurgeInterval)
	}
	return nil
}

// database is the stores of a Latchkey together.
type database[ID UserID] struct {
	store
	checkUsers func(context.Context) error // whether the columns of the application's user exist
	legacy     *LegacyTokens[ID]           // nil if no legacy tokens are accepted
	purger     *Purger
}

func newDatabase[U strategy.User[ID], ID UserID, P account.Embeds[U, ID]](db *sql.DB, dialect Dialect, cfg latchkey.Config) (*database[ID], assembly.Stores[U, ID], error) {
	var none assembly.Stores[U, ID]
	tables := TablesOf(cfg)
	s, err := newStore(db, dialect, "Config", tables, cfg.Timeout, cfg.Now, cfg.OnEvent)
	if err != nil {
		return nil, none, err
	}
	users, err := NewUsers[U, ID, P](db, dialect, UsersConfig{Tables: tables, AnyCase: cfg.AnyCase, Timeout: cfg.Timeout, Now: cfg.Now, OnEvent: cfg.OnEvent})
	if err != nil {
		return nil, none, err
	}
	tokensConfig := tokensConfigOf(cfg)
	tokens, err := NewTokens[ID](db, dialect, tokensConfig)
	if err != nil {
		return nil, none, err
	}
	attempts, err := NewAttempts(db, dialect, AttemptsConfig{Tables: tables, Timeout: cfg.Timeout, Now: cfg.Now})
	if err != nil {
		return nil, none, err
	}
	oneTime, err := NewOneTimeTokens[ID](db, dialect, OneTimeTokensConfig{Tables: tables, Timeout: cfg.Timeout, Now: cfg.Now, OnEvent: cfg.OnEvent})
	if err != nil {
		return nil, none, err
	}
	var legacy *LegacyTokens[ID]
	purged := []purgeable{tokens, attempts, oneTime}
	stores := assembly.Stores[U, ID]{Users: users, Tokens: tokens, Attempts: attempts, OneTime: oneTime}
	if cfg.Legacy != (mongostore.LegacyConfig{}) {
		if legacy, err = NewLegacyTokens(tokens, legacyConfigOf(cfg)); err != nil {
			return nil, none, err
		}
		stores.Tokens = legacy
	}
	if len(cfg.APITokens.Scopes) > 0 {
		tokensConfig.Lifetime = cfg.APITokens.Lifetime
		apiTokens, err := NewAPITokens[ID](db, dialect, tokensConfig)
		if err != nil {
			return nil, none, err
		}
		stores.APITokens = apiTokens
		purged = append(purged, apiTokens)
	}
	purger, err := NewPurger(db, dialect, PurgerConfig{Tables: tables, Interval: cfg.PurgeInterval, Timeout: cfg.Timeout, Now: cfg.Now, OnEvent: cfg.OnEvent}, purged...)
	if err != nil {
		return nil, none, err
	}
	return &database[ID]{s, users.checkColumns, legacy, purger}, stores, nil
}

// LegacyTokensOf returns the store of legacy tokens that New makes from cfg, for
// [LegacyTokens.ConvertAll] and [LegacyTokens.UndoConversion].
func LegacyTokensOf[ID UserID](db *sql.DB, dialect Dialect, cfg latchkey.Config) (*LegacyTokens[ID], error) {
	tokens, err := NewTokens[ID](db, dialect, tokensConfigOf(cfg))
	if err != nil {
		return nil, err
	}
	return NewLegacyTokens(tokens, legacyConfigOf(cfg))
}

func legacyConfigOf(cfg latchkey.Config) LegacyConfig {
	return LegacyConfig{Table: cfg.Legacy.Collection, Lifetime: cfg.Legacy.Lifetime, Convert: cfg.Legacy.Convert}
}

func tokensConfigOf(cfg latchkey.Config) TokensConfig {
	return TokensConfig{
		Tables: TablesOf(cfg), Lifetime: cfg.Lifetime, Grace: cfg.TTLGrace, Timeout: cfg.Timeout, Now: cfg.Now, OnEvent: cfg.OnEvent,
	}
}

// TablesOf returns the tables of [New] with a configuration, for [SchemaSQL] and [Migrate].
func TablesOf(cfg latchkey.Config) Tables {
	c := cfg.Collections
	return Tables{
		AccessTokens: c.AccessTokens, APITokens: c.APITokens, Revocations: c.Revocations, Users: c.Users,
		LoginAttempts: c.LoginAttempts, OneTimeTokens: c.OneTimeTokens, OAuthAccounts: c.OAuthAccounts, Leases: c.Leases, UserColumns: Columns(cfg.UserFields),
	}
}

// Ping implements assembly.Database.
func (d *database[ID]) Ping(ctx context.Context) error {
	ctx, cancel := bounded(ctx, d.timeout)
	defer cancel()
	return wrap("ping the database", ended(ctx, d.db.PingContext(ctx)))
}

// EnsureIndexes implements assembly.Database.
func (d *database[ID]) EnsureIndexes(ctx context.Context) error {
	if err := Migrate[ID](ctx, d.db, d.dialect, d.tables); err != nil {
		return err
	}
	if d.legacy != nil {
		if err := d.legacy.Migrate(ctx); err != nil {
			return err
		}
	}
	return d.VerifyIndexes(ctx)
}

// VerifyIndexes implements assembly.Database.
func (d *database[ID]) VerifyIndexes(ctx context.Context) error {
	err := d.CheckIndexes(ctx)
	if err == nil {
		d.purger.Start()
	}
	return err
}

// CheckIndexes implements assembly.Database.
func (d *database[ID]) CheckIndexes(ctx context.Context) error {
	err := VerifySchema[ID](ctx, d.db, d.dialect, d.tables)
	if err != nil && !errors.Is(err, ErrSchemaMismatch) {
		return err
	}
	err = errors.Join(err, d.checkUsers(ctx))
	if d.legacy != nil {
		err = errors.Join(err, d.legacy.VerifySchema(ctx))
	}
	return err
}

// Close implements assembly.Database.
func (d *database[ID]) Close() { d.purger.Close() }
