package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

// Member is the application's user: an account, and fields of its own.
type Member struct {
	account.User[uuid.UUID] `bson:",inline"`
	Name                    string `bson:"name" json:"name"`
}

type app struct {
	sessions *strategy.Database[Member, uuid.UUID]
	attempts *mongostore.Attempts
	tokens   *mongostore.Tokens[uuid.UUID]
	accounts *account.Manager[Member, uuid.UUID]
	// Two Auths over one strategy: they differ in how a login is answered. Both
	// take a token either way.
	bearer, cookie *ginauth.Auth[Member]
}

// sessionSettings are the flags that say how sessions live.
type sessionSettings struct {
	lifetime, remember, idleTimeout time.Duration
	maxSessions                     int
	cacheStaleness                  time.Duration
}

// loginSettings are the flags that bound what logins cost.
type loginSettings struct{ limit, maxHashes int }

// newApp puts the pieces together, and makes the indexes.
func newApp(ctx context.Context, db *mongo.Database, s sessionSettings, l loginSettings) (*app, error) {
	// With -remember, that is the longest that a token can live, and -lifetime is
	// what those get who do not ask for it.
	lifetime, brief := s.lifetime, time.Duration(0)
	if s.remember > 0 {
		lifetime, brief = s.remember, s.lifetime
	}
	events := strategy.LogEvents(nil)

	users, err := mongostore.NewUsers[Member](db, mongostore.UsersConfig{})
	if err != nil {
		return nil, err
	}
	tokens, err := mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{
		Lifetime: lifetime,
		// The server in the process has no TTL indexes.
		PurgeInterval: time.Minute,
		OnEvent:       events,
	})
	if err != nil {
		return nil, err
	}
	attempts, err := mongostore.NewAttempts(db, mongostore.AttemptsConfig{PurgeInterval: time.Minute, OnEvent: events})
	if err != nil {
		return nil, err
	}
	limiter, err := l.limiter(attempts, events)
	if err != nil {
		return nil, err
	}
	accounts, err := account.NewManager(users, uuid.New, account.Config{
		Limiter:             limiter,
		InsecureNoLimiter:   limiter == nil,
		MaxConcurrentHashes: l.maxHashes,
		OnEvent:             events,
	})
	if err != nil {
		return nil, err
	}
	sessions, err := strategy.NewDatabase(tokens, users, strategy.Config{
		Lifetime:    lifetime,
		IdleTimeout: s.idleTimeout,
		MaxSessions: s.maxSessions,
		Cache:       strategy.Cache{MaxStaleness: s.cacheStaleness}, // 0: none
		OnEvent:     events,
	})
	if err != nil {
		return nil, err
	}
	bearer, err := ginauth.New(sessions, accounts, ginauth.Config{
		Transports:    []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}},
		BriefLifetime: brief,
		OnEvent:       events,
	})
	if err != nil {
		return nil, err
	}
	cookie, err := ginauth.New(sessions, accounts, ginauth.Config{
		Transports:    []ginauth.Transport{ginauth.Cookie{}, ginauth.Bearer{}},
		BriefLifetime: brief,
		OnEvent:       events,
	})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(users.EnsureIndexes(ctx), tokens.EnsureIndexes(ctx), attempts.EnsureIndexes(ctx)); err != nil {
		return nil, err
	}
	return &app{sessions, attempts, tokens, accounts, bearer, cookie}, nil
}

// limiter returns the limiter of login attempts, whose counters all instances
// share; nil for none.
func (l loginSettings) limiter(attempts account.AttemptStore, events func(context.Context, strategy.Event)) (*account.Limiter, error) {
	if l.limit == 0 {
		return nil, nil
	}
	return account.NewLimiter(attempts, account.LimiterConfig{
		Pair:    account.Limit{Failures: l.limit},
		OnEvent: events,
	})
}

// Close ends what newApp started.
func (a *app) Close() {
	a.sessions.Close()
	a.tokens.Close()
	a.attempts.Close()
}

func (a *app) handler() (http.Handler, error) {
	r := gin.New()
	r.Use(gin.Recovery())
	_ = r.SetTrustedProxies(nil)

	a.bearer.Routes(r.Group("/auth"))
	a.cookie.Routes(r.Group("/auth/cookie"))
	if err := a.bearer.Introspection(r.Group("/auth"), ginauth.Superuser); err != nil {
		return nil, err
	}

	r.GET("/me", a.bearer.RequireUser(), a.whoAmI)
	r.GET("/verified", a.bearer.RequireUser(ginauth.Verified), a.whoAmI)
	r.GET("/superuser", a.bearer.RequireUser(ginauth.Superuser), a.whoAmI)
	r.GET("/fresh", a.bearer.RequireUser(ginauth.Fresh(time.Minute)), a.whoAmI)
	r.GET("/optional", a.bearer.OptionalUser(), a.whoAmI)
	return r, nil
}

func (a *app) whoAmI(c *gin.Context) {
	user, ok := a.bearer.CurrentUser(c)
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

// addDemoAccounts makes the accounts that the quick start talks of.
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
		_, err := a.accounts.Create(ctx, Member{
			User: account.User[uuid.UUID]{Email: demo.email, Active: demo.active, Verified: demo.verified, Superuser: demo.superuser},
			Name: demo.name,
		}, demoPassword)
		if err != nil && !errors.Is(err, account.ErrEmailTaken) {
			return err
		}
	}
	return nil
}
