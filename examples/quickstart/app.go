package main

import (
	"context"
	"errors"
	"math"
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

// Member is the application's user: an account with additional fields.
type Member struct {
	account.User[uuid.UUID] `bson:",inline"`
	Name                    string `bson:"name" json:"name"`
}

type app struct {
	*latchkey.Latchkey[Member, uuid.UUID]
	outbox *outbox
}

// settings are the values of the flags that configure Latchkey.
type settings struct {
	lifetime, remember, idleTimeout, timeout time.Duration
	maxSessions                              int
	cacheStaleness                           time.Duration
	loginLimit, maxHashes                    int
}

// newApp builds Latchkey on a database and makes its indexes. Messages go to the outbox.
func newApp(ctx context.Context, db *mongo.Database, s settings, out *outbox) (*app, error) {
	cfg := latchkey.Config{
		Lifetime:    s.lifetime,
		IdleTimeout: s.idleTimeout,
		Timeout:     s.timeout,
		MaxSessions: s.maxSessions,
		Cache:       strategy.Cache{MaxStaleness: s.cacheStaleness},
		Limiter: account.LimiterConfig{
			Account: account.Limit{Failures: s.loginLimit},
			Device:  account.Limit{Failures: s.loginLimit},
		},
		InsecureNoLimiter:   s.loginLimit == 0,
		MaxConcurrentHashes: s.maxHashes,
		Mail:                account.MailConfig{Mailer: out},
		APITokens:           latchkey.APITokens{Scopes: []string{"me:read"}, Lifetime: 90 * 24 * time.Hour},
	}
	if s.loginLimit == 0 { // no limits at all, for load tests
		cfg.Mail.PerAddress, cfg.Mail.PerNetwork = math.MaxInt32, math.MaxInt32
	}
	if s.remember > 0 {
		cfg.Lifetime, cfg.BriefLifetime = s.remember, s.lifetime
	}
	lk, err := latchkey.New[Member](db, uuid.New, cfg)
	if err != nil {
		return nil, err
	}
	if err := lk.EnsureIndexes(ctx); err != nil {
		lk.Close()
		return nil, err
	}
	return &app{lk, out}, nil
}

// handler returns the routes. showOutbox adds GET /outbox, which shows everybody the tokens of
// all messages: for a demo only.
func (a *app) handler(showOutbox bool) (http.Handler, error) {
	r := gin.New()
	r.Use(ginauth.Recovery(nil))
	if err := r.SetTrustedProxies(nil); err != nil {
		return nil, err
	}

	a.Auth.Routes(r.Group("/auth"))       // logins answer with a bearer token
	a.Web.Routes(r.Group("/auth/cookie")) // logins set a cookie
	if err := a.Auth.Introspection(r.Group("/auth"), ginauth.Superuser); err != nil {
		return nil, err
	}

	accounts := a.Auth.WithHooks(ginauth.Hooks[Member]{Register: decode, Patch: decode, View: view})
	accounts.RegisterRoutes(r.Group("/auth"))
	accounts.VerifyRoutes(r.Group("/auth"))
	accounts.ResetPasswordRoutes(r.Group("/auth"))
	accounts.UserRoutes(r.Group("/users"))
	accounts.APITokenRoutes(r.Group("/auth/tokens"))
	if showOutbox {
		r.GET("/outbox", a.outbox.show)
	}

	r.GET("/me", a.Auth.RequireUser(), a.whoAmI)
	r.GET("/me/script", a.Auth.RequireUser(ginauth.Scopes("me:read")), a.whoAmI) // also with an API token
	r.GET("/verified", a.Auth.RequireUser(ginauth.Verified), a.whoAmI)
	r.GET("/superuser", a.Auth.RequireUser(ginauth.Superuser), a.whoAmI)
	r.GET("/fresh", a.Auth.RequireUser(ginauth.Fresh(time.Minute)), a.whoAmI)
	r.GET("/optional", a.Auth.OptionalUser(), a.whoAmI)
	return r, nil
}

// decode sets the fields of a Member that clients may set.
func decode(_ context.Context, m *Member, body *ginauth.Body) error {
	if body.Decode("name", &m.Name) && len(m.Name) > 100 {
		body.Invalid("name", "string_too_long", "Input should have at most 100 bytes")
	}
	return nil
}

// view returns the fields of a Member that clients see.
func view(m Member) map[string]any { return map[string]any{"name": m.Name} }

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

// addDemoAccounts adds the accounts that curlLines names, if missing.
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
