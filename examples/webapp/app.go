package main

import (
	"context"
	"embed"
	"errors"
	"html/template"
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

const (
	// lifetime is how long those stay signed in who ask for it, and briefly how
	// long the others do.
	lifetime = 30 * 24 * time.Hour
	briefly  = 12 * time.Hour
	// fresh is how long ago the password may have been given to change it.
	fresh = 10 * time.Minute
)

// Member is the application's user: an account, and fields of its own.
type Member struct {
	account.User[uuid.UUID] `bson:",inline"`
	Name                    string `bson:"name"`
}

type app struct {
	tokens   *mongostore.Tokens[uuid.UUID]
	attempts *mongostore.Attempts
	accounts *account.Manager[Member, uuid.UUID]
	sessions *strategy.Database[Member, uuid.UUID]
	auth     *ginauth.Auth[Member]
}

// options are what a deployment may want otherwise. The zero value is right.
type options struct {
	cookie         ginauth.Cookie
	trustedOrigins []string
	cheapHashes    bool // for tests
}

// newApp puts the pieces together, and makes the indexes.
func newApp(ctx context.Context, db *mongo.Database, opts options) (*app, error) {
	events := strategy.LogEvents(nil)

	users, err := mongostore.NewUsers[Member](db, mongostore.UsersConfig{})
	if err != nil {
		return nil, err
	}
	// The server in the process has no TTL indexes: hence the intervals.
	tokens, err := mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{Lifetime: lifetime, PurgeInterval: time.Minute, OnEvent: events})
	if err != nil {
		return nil, err
	}
	attempts, err := mongostore.NewAttempts(db, mongostore.AttemptsConfig{PurgeInterval: time.Minute, OnEvent: events})
	if err != nil {
		return nil, err
	}
	limiter, err := account.NewLimiter(attempts, account.LimiterConfig{OnEvent: events})
	if err != nil {
		return nil, err
	}
	passwords := account.Config{Limiter: limiter, OnEvent: events}
	if opts.cheapHashes {
		passwords.Argon2, passwords.InsecureArgon2 = account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, true
	}
	accounts, err := account.NewManager(users, uuid.New, passwords)
	if err != nil {
		return nil, err
	}
	sessions, err := strategy.NewDatabase(tokens, users, strategy.Config{
		Lifetime:      lifetime,
		IdleTimeout:   7 * 24 * time.Hour,
		TouchInterval: time.Minute, // "last used" on the page of sessions is as exact as this
		OnEvent:       events,
	})
	if err != nil {
		return nil, err
	}
	auth, err := ginauth.New(sessions, accounts, ginauth.Config{
		Transports:     []ginauth.Transport{opts.cookie},
		BriefLifetime:  briefly,
		TrustedOrigins: opts.trustedOrigins,
		OnUnauthorized: onUnauthorized,
		OnEvent:        events,
	})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(users.EnsureIndexes(ctx), tokens.EnsureIndexes(ctx), attempts.EnsureIndexes(ctx)); err != nil {
		return nil, err
	}
	return &app{tokens, attempts, accounts, sessions, auth}, nil
}

// Close ends what newApp started.
func (a *app) Close() {
	a.tokens.Close()
	a.attempts.Close()
}

//go:embed templates static
var files embed.FS

func (a *app) handler() (http.Handler, error) {
	pages, err := template.New("").Funcs(template.FuncMap{"moment": moment}).ParseFS(files, "templates/*.html")
	if err != nil {
		return nil, err
	}
	r := gin.New()
	r.Use(gin.Recovery(), secure)
	_ = r.SetTrustedProxies(nil) // or yours: they say where clients are
	r.SetHTMLTemplate(pages)
	r.HandleMethodNotAllowed = true
	r.NoRoute(a.notFound)
	r.NoMethod(func(c *gin.Context) {
		a.problem(c, http.StatusMethodNotAllowed, "That does not work", "This address does not take such a request.")
	})
	for _, name := range []string{"style.css", "icon.svg"} {
		r.GET("/"+name, static(name))
	}

	r.GET("/", a.auth.OptionalUser(), a.home)
	r.GET("/login", a.showLogin)
	r.POST("/login", a.login)
	r.POST("/logout", a.logout)

	members := r.Group("/", a.auth.RequireUser())
	members.GET("/members", a.members)
	members.GET("/sessions", a.listSessions)
	members.POST("/sessions/:id/end", a.endSession)
	members.POST("/logout-all", a.logoutAll)
	members.GET("/confirm", a.showConfirm)
	members.POST("/confirm", a.confirm)

	justNow := r.Group("/", a.auth.RequireUser(ginauth.Fresh(fresh)))
	justNow.GET("/password", a.showPassword)
	justNow.POST("/password", a.changePassword)
	return r, nil
}

// secure sets the headers of every answer, and bounds the bodies of requests.
func secure(c *gin.Context) {
	h := c.Writer.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	// no-referrer would turn the Origin of the site's own forms into null, and the
	// protection against other origins needs it where there is no Sec-Fetch-Site.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if c.Request.TLS != nil {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, 16<<10)
}

// static serves one of the embedded files.
func static(name string) gin.HandlerFunc {
	return func(c *gin.Context) {
		c.Header("Cache-Control", "max-age=300")
		c.FileFromFS("static/"+name, http.FS(files))
	}
}

const demoPassword = "correct horse battery staple"

var demoAccounts = []Member{
	{User: account.User[uuid.UUID]{Email: "member@example.com", Active: true}, Name: "Mona Member"},
	{User: account.User[uuid.UUID]{Email: "friend@example.com", Active: true}, Name: "Frank Friend"},
}

func (a *app) addDemoAccounts(ctx context.Context) error {
	for _, demo := range demoAccounts {
		if _, err := a.accounts.Create(ctx, demo, demoPassword); err != nil && !errors.Is(err, account.ErrEmailTaken) {
			return err
		}
	}
	return nil
}
