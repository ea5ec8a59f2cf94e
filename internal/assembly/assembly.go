// Package assembly connects the packages as latchkey.New promises, on stores of any kind: for
// latchkey.New on MongoDB, for sqlstore on SQL, and for latchkeytest in memory.
package assembly

import (
	"context"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/strategy"
)

// Config has the configurations of the packages.
type Config struct {
	Sessions  strategy.Config
	Accounts  account.Config
	Auth      ginauth.Config
	Cookie    ginauth.Cookie
	API       strategy.Config // of the API tokens
	APITokens ginauth.APITokensConfig
}

// Of returns what a latchkey.Config says. Package latchkey sets it.
var Of func(latchkeyConfig any) Config

// Database is what the methods of a latchkey.Latchkey need of a database. The comments of the
// methods of the same names are those of latchkey.Latchkey and of package mongostore.
type Database interface {
	Ping(ctx context.Context) error
	EnsureIndexes(ctx context.Context) error
	VerifyIndexes(ctx context.Context) error
	CheckIndexes(ctx context.Context) error // VerifyIndexes, and starts no background work
	Close()
}

// Attach gives a new latchkey.Latchkey, which has the Parts in its fields, its database and its
// latchkey.Config. Package latchkey sets it.
var Attach func(latchkey any, db Database, latchkeyConfig any)

// Stores are the stores.
type Stores[U any, ID comparable] struct {
	Users     account.Store[U, ID]
	Tokens    strategy.Store[ID]
	APITokens strategy.Store[ID] // nil: no API tokens
	Attempts  account.AttemptStore
	OneTime   account.OneTimeTokenStore[ID]
}

// Parts are what latchkey.Latchkey has.
type Parts[U strategy.User[ID], ID comparable] struct {
	Auth, Web *ginauth.Auth[U]
	Accounts  *account.Manager[U, ID]
	Sessions  *strategy.Database[U, ID]
	APITokens *strategy.Database[U, ID] // nil without
}

// Connect returns the parts on the stores. Close them at the end. Guards read tokens by what through
// returns. An error names the field.
func Connect[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]](s Stores[U, ID], newID func() ID, cfg Config, through func(ginauth.Strategy[U]) ginauth.Strategy[U]) (p Parts[U, ID], err error) {
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	if p.Sessions, err = strategy.NewDatabase(s.Tokens, s.Users, cfg.Sessions); err != nil {
		return p, err
	}
	told := []account.Sessions[ID]{p.Sessions}
	if s.APITokens != nil {
		if p.APITokens, err = strategy.NewDatabase(s.APITokens, s.Users, cfg.API); err != nil {
			return p, err
		}
		told = append(told, p.APITokens)
	}
	if p.Accounts, err = account.NewManager[U, ID, P](s.Users, s.OneTime, s.Attempts, newID, cfg.Accounts, told...); err != nil {
		return p, err
	}
	if p.Auth, err = ginauth.New(through(p.Sessions), p.Accounts, cfg.Auth); err != nil {
		return p, err
	}
	if p.Auth, err = ginauth.WithAccounts(p.Auth, p.Accounts); err != nil {
		return p, err
	}
	if p.APITokens != nil {
		if p.Auth, err = p.Auth.WithAPITokens(through(p.APITokens), cfg.APITokens); err != nil {
			return p, err
		}
	}
	p.Web, err = p.Auth.AnswerLoginsWith(cfg.Cookie)
	return p, err
}

// Plain returns the strategy itself, for Connect.
func Plain[U any](s ginauth.Strategy[U]) ginauth.Strategy[U] { return s }

// Close ends the background work, and waits until it has ended.
func (p Parts[U, ID]) Close() {
	if p.Accounts != nil {
		p.Accounts.Close()
	}
	if p.Sessions != nil {
		p.Sessions.Close()
	}
	if p.APITokens != nil {
		p.APITokens.Close()
	}
}
