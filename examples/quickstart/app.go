package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/strategy"
)

// Member is the application's user: an account, and fields of its own.
type Member struct {
	account.User[uuid.UUID] `bson:",inline"`
	Name                    string `bson:"name" json:"name"`
}

type app struct {
	*latchkey.Latchkey[Member, uuid.UUID]
}

// settings are the flags that change how sessions live and what logins cost.
type settings struct {
	lifetime, remember, idleTimeout time.Duration
	maxSessions                     int
	cacheStaleness                  time.Duration
	loginLimit, maxHashes           int
}

// newApp builds Latchkey on a database, and makes its indexes.
func newApp(ctx context.Context, db *mongo.Database, o settings) (*app, error) {
	cfg := latchkey.Config{
		Lifetime:    o.lifetime,
		IdleTimeout: o.idleTimeout,
		MaxSessions: o.maxSessions,
		Cache:       strategy.Cache{MaxStaleness: o.cacheStaleness},
		Limiter: account.LimiterConfig{
			Account: account.Limit{Failures: o.loginLimit},
			Device:  account.Limit{Failures: o.loginLimit},
		},
		InsecureNoLimiter:   o.loginLimit == 0,
		MaxConcurrentHashes: o.maxHashes,
	}
	if o.remember > 0 { // the lifetime of a login that asks to be remembered
		cfg.Lifetime, cfg.BriefLifetime = o.remember, o.lifetime
	}
	lk, err := latchkey.New[Member](db, uuid.New, cfg)
	if err != nil {
		return nil, err
	}
	if err := lk.EnsureIndexes(ctx); err != nil {
		lk.Close()
		return nil, err
	}
	return &app{lk}, nil
}

func (a *app) handler() (http.Handler, error) {
	r := gin.New()
	r.Use(gin.Recovery())
	if err := r.SetTrustedProxies(nil); err != nil {
		return nil, err
	}

	a.Auth.Routes(r.Group("/auth"))       // logins answer with a bearer token
	a.Web.Routes(r.Group("/auth/cookie")) // logins set a cookie
	if err := a.Auth.Introspection(r.Group("/auth"), ginauth.Superuser); err != nil {
		return nil, err
	}

	r.GET("/me", a.Auth.RequireUser(), a.whoAmI)
	r.GET("/verified", a.Auth.RequireUser(ginauth.Verified), a.whoAmI)
	r.GET("/superuser", a.Auth.RequireUser(ginauth.Superuser), a.whoAmI)
	r.GET("/fresh", a.Auth.RequireUser(ginauth.Fresh(time.Minute)), a.whoAmI)
	r.GET("/optional", a.Auth.OptionalUser(), a.whoAmI)
	return r, nil
}

func (a *app) whoAmI(c *gin.Context) {
	user, ok := a.Auth.CurrentUser(c)
	if !ok {
		c.JSON(http.StatusOK, gin.H{"user": nil})
		return
	}
	c.JSON(http.StatusOK, gin.H{
		"user":      user.Email,
		"name":      user.Name,
		"verified":  user.Verified,
		"superuser": user.Superuser,
	})
}

const demoPassword = "correct horse battery staple"

// addDemoAccounts makes the accounts that curlLines names.
func (a *app) addDemoAccounts(ctx context.Context) error {
	for _, demo := range []struct {
		email, name                 string
		active, verified, superuser bool
	}{
		{"member@example.com", "Mona Member", true, false, false},
		{"verified@example.com", "Vera Verified", true, true, false},
		{"admin@example.com", "Ada Admin", true, true, true},
		{"inactive@example.com", "Ian Inactive", false, false, false},
	} {
		_, err := a.Accounts.Create(ctx, Member{
			User: account.User[uuid.UUID]{Email: demo.email, Active: demo.active, Verified: demo.verified, Superuser: demo.superuser},
			Name: demo.name,
		}, demoPassword)
		if err != nil && !errors.Is(err, account.ErrEmailTaken) {
			return err
		}
	}
	return nil
}
