package latchkey

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/gin-gonic/gin"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/internal/assembly"
	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

// Config configures a [Latchkey]. The zero value is usable: tokens that are valid
// until they are revoked, by bearer header and by cookie. For details of a field, see the
// package that it names.
type Config struct {
	// Lifetime is how long a token is valid after the login, to the millisecond.
	// Default 0: until it is revoked. NIST SP 800-63B-4 §2.2.3 recommends at most 24
	// hours at AAL2.
	Lifetime time.Duration

	// IdleTimeout ends a session that was not used for longer. Default 0: never.
	IdleTimeout time.Duration

	// BriefLifetime is the lifetime of a login that does not ask to be remembered,
	// shorter than Lifetime; see ginauth.Config. Default 0: Lifetime for all.
	BriefLifetime time.Duration

	// MaxSessions is how many sessions a user may have; a login beyond that ends the
	// oldest. Default 0: any number.
	MaxSessions int

	// RequireVerified rejects logins of users who are not verified. Default false.
	RequireVerified bool

	// Cookie is the cookie of browsers. Default: "__Host-latchkey"; see
	// ginauth.Cookie.
	Cookie ginauth.Cookie

	// Bearer is the Authorization header. Default: the realm "latchkey"; see
	// ginauth.Bearer.
	Bearer ginauth.Bearer

	// TrustedOrigins are other origins (scheme://host[:port]) whose pages may send
	// unsafe requests and open WebSockets with the cookie. Default none; see ginauth.Config.
	TrustedOrigins []string

	// OnRefusal writes the body of every refusal, or redirects, for example a 401 to the
	// login page. Default: the contract's JSON; see ginauth.Config.
	OnRefusal func(c *gin.Context, refusal *ginauth.Refusal)

	// Cache keeps sessions in memory, so that most requests need no database.
	// Default none; see strategy.Cache.
	Cache strategy.Cache

	// Limiter bounds how often passwords can be guessed. The counters are in the database,
	// shared by all instances. Default: on, with the limits that
	// account.LimiterConfig names.
	Limiter account.LimiterConfig

	// InsecureNoLimiter turns the Limiter off. Default false.
	InsecureNoLimiter bool

	// RegistrationsPerNetwork is how many accounts the clients of a network may try to
	// register in an hour. Default 100; see account.Config.
	RegistrationsPerNetwork int

	// MinPasswordLength is the least number of characters in a new password. Default
	// 8.
	MinPasswordLength int

	// CheckPassword may reject a new password; see account.Config. Default: no
	// further check.
	CheckPassword func(ctx context.Context, password string) error

	// KeepHashes leaves an outdated password hash as it is at a login; see account.Config.
	// Default false.
	KeepHashes bool

	// VerifyHash verifies stored hashes of a scheme that is not built in; see account.Config.
	// Default: they are unusable.
	VerifyHash func(ctx context.Context, hash, password string) (bool, error)

	// Argon2 are the parameters of new password hashes. Default: 64 MiB, 3 passes, 4
	// lanes.
	Argon2 account.Argon2

	// InsecureArgon2 allows weaker Argon2 parameters, for tests. Default false.
	InsecureArgon2 bool

	// MaxConcurrentHashes is how many passwords are hashed at once. Default: as many
	// as have a processor for each of their threads; see account.Config.
	MaxConcurrentHashes int

	// MaxHashWait is how long a login waits for its turn to hash. Default 3 seconds.
	MaxHashWait time.Duration

	// AccountRoutes configures the routes by which users sign up, and see and change their
	// accounts. Default: see ginauth.AccountsConfig.
	AccountRoutes ginauth.AccountsConfig

	// Mail sends messages that verify addresses, reset passwords and change addresses.
	// Default: none are sent; see account.MailConfig.
	Mail account.MailConfig

	// APITokens are the tokens that users make for their scripts. Default: none.
	APITokens APITokens

	// AuditRetention keeps an audit trail in the database; see mongostore.AuditTrail. It is
	// how long each event is kept, at least 1 second. Default 0: there is no audit trail.
	AuditRetention time.Duration

	// TouchInterval is how often a session's last use is stored, at most. Default a
	// tenth of IdleTimeout; see strategy.Config.
	TouchInterval time.Duration

	// NotBefore invalidates every token whose user logged in earlier, for everybody
	// at once. Default: the zero time, no limit.
	NotBefore time.Time

	// TokenPrefix begins every token. Default "lk_".
	TokenPrefix string

	// PublishRevocations tells other processes, which have a Cache, what this one
	// revokes. A Cache implies it. Default false.
	PublishRevocations bool

	// WatchInterval is how often the session of a request that stays open is looked up, and
	// WatchGrace is how long such a request outlives a failure of the database. Default 5
	// seconds and 1 minute; see strategy.Config and ginauth's Watch.
	WatchInterval, WatchGrace time.Duration

	// BodyTimeout bounds how long a request's body may take. Default 10 seconds; see
	// ginauth.Config.
	BodyTimeout time.Duration

	// OmitUserAgent and OmitClientIP keep the user agent and the client IP out of
	// stored sessions. Default false.
	OmitUserAgent, OmitClientIP bool

	// Collections are the names of the collections.
	Collections Collections

	// UserFields are the names that the account's fields have in the users' collection, for a
	// collection that another program has made. Default: those of account.User; see
	// mongostore.Fields.
	UserFields mongostore.Fields

	// AnyCase finds accounts whose address another program has stored in another spelling.
	// Default false; see mongostore.UsersConfig.
	AnyCase bool

	// Legacy accepts the tokens of a fastapi-users application that runs beside, or did before.
	// Without a Collection, the default, none are accepted; see mongostore.LegacyConfig, and
	// sqlstore.LegacyConfig for SQL.
	Legacy mongostore.LegacyConfig

	// TTLGrace is how long the row of an expired token is kept, because the server's
	// clock may differ. Default 5 minutes.
	TTLGrace time.Duration

	// PurgeInterval is how often this process deletes expired rows, on a server without
	// TTL indexes. Default 1 minute. Servers with TTL indexes delete them themselves.
	PurgeInterval time.Duration

	// Timeout bounds each login, log-out and guard as a whole, each method of Accounts
	// whose context has no deadline, and every other database call whose context has no
	// deadline. Default 3 seconds.
	Timeout time.Duration

	// Registry has the BSON codecs of the user and ID types. Default
	// mongostore.NewRegistry.
	Registry *bson.Registry

	// Now is the clock. Default [time.Now].
	Now func() time.Time

	// OnEvent receives every outcome: logins, denials, revocations, failures. It is
	// called synchronously, from many goroutines, and must be quick. Default
	// event.Log(nil), which logs through [log/slog.Default]. To discard events, set a
	// function that does nothing.
	OnEvent func(context.Context, event.Event)
}

// APITokens are the tokens that users make for their scripts: a second strategy, with a
// collection and a policy of its own. The zero value has none.
type APITokens struct {
	// Scopes are the scopes that a user can give to a token. Without any there are no API
	// tokens.
	Scopes []string

	// Lifetime is the longest lifetime of a token, which is also the default. Default 0: until
	// it is revoked.
	Lifetime time.Duration

	// SurvivePasswordChange lets tokens go on after their user's password was changed. Default
	// false; see strategy.Config.
	SurvivePasswordChange bool

	// MaxPerUser is how many valid tokens a user can have. Default 50, at most 200.
	MaxPerUser int

	// Prefix begins every token. Default "lkp_".
	Prefix string
}

// Collections are the names of the collections. An empty name means its default.
type Collections struct {
	Users         string // default "users"
	AccessTokens  string // default "access_tokens"
	LoginAttempts string // default "login_attempts"
	Revocations   string // default "revocations"
	OneTimeTokens string // default "one_time_tokens"
	APITokens     string // default "api_tokens"
	Audit         string // default "audit"

	// OAuthAccounts and Leases are tables of sqlstore.New; on MongoDB they have no effect.
	OAuthAccounts string // default "oauth_accounts"
	Leases        string // default "leases"
}

// check returns an error if two collections have one name.
func (c Collections) check(legacy string) error {
	fields := map[string]string{}
	for _, f := range []struct{ field, name, byDefault string }{
		{"Users", c.Users, "users"}, {"AccessTokens", c.AccessTokens, "access_tokens"},
		{"LoginAttempts", c.LoginAttempts, "login_attempts"}, {"Revocations", c.Revocations, "revocations"},
		{"OneTimeTokens", c.OneTimeTokens, "one_time_tokens"}, {"APITokens", c.APITokens, "api_tokens"},
		{"Audit", c.Audit, "audit"},
	} {
		name := cmp.Or(f.name, f.byDefault)
		if other := fields[name]; other != "" {
			return fmt.Errorf("latchkey: Config.Collections.%s and %s are both %q: each needs a collection of its own", other, f.field, name)
		}
		fields[name] = f.field
	}
	if other := fields[legacy]; other != "" && legacy != "" {
		return fmt.Errorf("latchkey: Config.Legacy.Collection and Collections.%s are both %q: give Latchkey's collection another name, because fastapi-users would take its digests for tokens", other, legacy)
	}
	return nil
}

// fillDefaults sets the defaults that the packages below do not have. All others are
// theirs.
func (c *Config) fillDefaults() {
	if c.OnEvent == nil {
		c.OnEvent = event.Log(nil)
	}
	if c.PurgeInterval == 0 {
		c.PurgeInterval = time.Minute
	}
}

func (c *Config) users() mongostore.UsersConfig {
	return mongostore.UsersConfig{Collection: c.Collections.Users, Fields: c.UserFields, AnyCase: c.AnyCase, Timeout: c.Timeout, Registry: c.Registry, Now: c.Now, OnEvent: c.OnEvent}
}

func (c *Config) tokens() mongostore.TokensConfig {
	return mongostore.TokensConfig{
		Collection: c.Collections.AccessTokens, Revocations: c.Collections.Revocations,
		Lifetime: c.Lifetime, TTLGrace: c.TTLGrace, PurgeInterval: c.PurgeInterval,
		Timeout: c.Timeout, Registry: c.Registry, Now: c.Now, OnEvent: c.OnEvent,
	}
}

// apiTokens and apiStrategy are those of API tokens. They have no cache: a script can wait for
// the database, and its token is gone from all processes at once.
func (c *Config) apiTokens() mongostore.TokensConfig {
	cfg := c.tokens()
	cfg.Collection, cfg.Lifetime = cmp.Or(c.Collections.APITokens, "api_tokens"), c.APITokens.Lifetime
	return cfg
}

func (c *Config) apiStrategy() strategy.Config {
	return strategy.Config{
		Lifetime: c.APITokens.Lifetime, SurvivePasswordChange: c.APITokens.SurvivePasswordChange,
		TokenPrefix: cmp.Or(c.APITokens.Prefix, token.API.Prefix()), NotBefore: c.NotBefore,
		WatchInterval: c.WatchInterval, WatchGrace: c.WatchGrace, Now: c.Now, OnEvent: c.OnEvent,
	}
}

func (c *Config) attempts() mongostore.AttemptsConfig {
	return mongostore.AttemptsConfig{
		Collection: c.Collections.LoginAttempts, PurgeInterval: c.PurgeInterval,
		Timeout: c.Timeout, Now: c.Now, OnEvent: c.OnEvent,
	}
}

func (c *Config) oneTimeTokens() mongostore.OneTimeTokensConfig {
	return mongostore.OneTimeTokensConfig{
		Collection: c.Collections.OneTimeTokens, PurgeInterval: c.PurgeInterval,
		Timeout: c.Timeout, Registry: c.Registry, Now: c.Now, OnEvent: c.OnEvent,
	}
}

func (c *Config) auditTrail() mongostore.AuditTrailConfig {
	return mongostore.AuditTrailConfig{
		Collection: c.Collections.Audit, Retention: c.AuditRetention, PurgeInterval: c.PurgeInterval,
		Timeout: c.Timeout, Registry: c.Registry, Now: c.Now, OnEvent: c.OnEvent,
	}
}

func (c *Config) accounts() account.Config {
	return account.Config{
		Argon2: c.Argon2, InsecureArgon2: c.InsecureArgon2,
		MaxConcurrentHashes: c.MaxConcurrentHashes, MaxHashWait: c.MaxHashWait, Timeout: c.Timeout,
		Limiter: c.Limiter, InsecureNoLimiter: c.InsecureNoLimiter,
		RegistrationsPerNetwork: c.RegistrationsPerNetwork,
		MinPasswordLength:       c.MinPasswordLength, CheckPassword: c.CheckPassword, KeepHashes: c.KeepHashes, VerifyHash: c.VerifyHash, Mail: c.Mail,
		Now: c.Now, OnEvent: c.OnEvent,
	}
}

func (c *Config) sessions() strategy.Config {
	return strategy.Config{
		Lifetime: c.Lifetime, IdleTimeout: c.IdleTimeout, TouchInterval: c.TouchInterval,
		MaxSessions: c.MaxSessions, NotBefore: c.NotBefore, TokenPrefix: c.TokenPrefix,
		Cache: c.Cache, PublishRevocations: c.PublishRevocations, WatchInterval: c.WatchInterval, WatchGrace: c.WatchGrace,
		Now: c.Now, OnEvent: c.OnEvent,
	}
}

func (c *Config) ginauth() ginauth.Config {
	return ginauth.Config{
		Transports:      []ginauth.Transport{c.Bearer, c.Cookie},
		RequireVerified: c.RequireVerified, BriefLifetime: c.BriefLifetime,
		TrustedOrigins: c.TrustedOrigins, OnRefusal: c.OnRefusal, Accounts: c.AccountRoutes, BodyTimeout: c.BodyTimeout,
		OmitUserAgent: c.OmitUserAgent, OmitClientIP: c.OmitClientIP, Timeout: c.Timeout,
		Now: c.Now, OnEvent: c.OnEvent,
	}
}

// assembly returns the configurations of the packages that are not stores.
func (c *Config) assembly() assembly.Config {
	return assembly.Config{
		Sessions: c.sessions(), Accounts: c.accounts(), Auth: c.ginauth(), Cookie: c.Cookie,
		API: c.apiStrategy(), APITokens: ginauth.APITokensConfig{Scopes: c.APITokens.Scopes, MaxPerUser: c.APITokens.MaxPerUser},
	}
}

func init() {
	assembly.Of = func(cfg any) assembly.Config {
		c := cfg.(Config)
		return c.assembly()
	}
}
