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

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/contrib/oidc"
	"github.com/latchkey-go/latchkey/ginauth"
)

const (
	lifetime      = 30 * 24 * time.Hour // of a session whose login asked to stay signed in
	briefLifetime = 12 * time.Hour      // of other sessions
	freshness     = 10 * time.Minute    // how recent a login must be to change the password
	scopeRead     = "account:read"      // of API tokens
)

// Member is the application's user: an account with additional fields.
type Member struct {
	account.User[uuid.UUID] `bson:",inline"`
	Name                    string `bson:"name"`
}

type app struct {
	*latchkey.Latchkey[Member, uuid.UUID]

	// Of login through identity providers, see addProviders.
	logins    *oidc.Logins[Member, uuid.UUID] // nil without a provider
	providers []oidc.Provider
}

// newApp builds Latchkey on a database and makes its indexes. cfg has the settings that
// depend on the deployment or test.
func newApp(ctx context.Context, db *mongo.Database, cfg latchkey.Config) (*app, error) {
	cfg.Lifetime, cfg.BriefLifetime = lifetime, briefLifetime
	cfg.IdleTimeout = 7 * 24 * time.Hour
	cfg.TouchInterval = time.Minute // the precision of "Last used" on the sessions page
	cfg.OnRefusal = onRefusal
	cfg.APITokens = latchkey.APITokens{Scopes: []string{scopeRead}, Lifetime: 90 * 24 * time.Hour}
	lk, err := latchkey.New[Member](db, uuid.New, cfg)
	if err != nil {
		return nil, err
	}
	if err := lk.EnsureIndexes(ctx); err != nil {
		lk.Close()
		return nil, err
	}
	return &app{Latchkey: lk}, nil
}

//go:embed templates static
var files embed.FS

func (a *app) handler() (http.Handler, error) {
	pages, err := template.New("").Funcs(template.FuncMap{"time": formatTime, "browser": browserName}).ParseFS(files, "templates/*.html")
	if err != nil {
		return nil, err
	}
	r := gin.New()
	r.Use(ginauth.Recovery(nil), a.secure)
	if err := r.SetTrustedProxies(nil); err != nil { // or your proxy's addresses
		return nil, err
	}
	r.SetHTMLTemplate(pages)
	r.HandleMethodNotAllowed = true
	r.NoRoute(a.notFound)
	r.NoMethod(func(c *gin.Context) {
		a.problem(c, http.StatusMethodNotAllowed, "Not allowed", "This page does not accept this kind of request.")
	})
	for _, name := range []string{"style.css", "icon.svg"} {
		r.GET("/"+name, static(name))
	}

	r.GET("/", a.Web.OptionalUser(), a.home)
	r.GET("/login", a.showLogin)
	r.POST("/login", a.login)
	r.POST("/logout", a.logout)

	visitors := r.Group("/", a.sameOrigin)
	visitors.GET("/signup", a.showSignUp)
	visitors.POST("/signup", a.signUp)
	visitors.GET("/verify", a.showVerify) // changes nothing: programs follow links in mails
	visitors.POST("/verify", a.verify)
	visitors.GET("/forgot", a.showForgot)
	visitors.POST("/forgot", a.forgot)
	visitors.GET("/reset", a.showReset)
	visitors.POST("/reset", a.reset)

	members := r.Group("/", a.Web.RequireUser())
	members.GET("/account", a.showAccount)
	members.POST("/account/name", a.changeName)
	members.POST("/account/verify", a.sendVerification)
	members.GET("/tokens", a.listTokens)
	members.POST("/tokens/:id/revoke", a.revokeToken)
	members.GET("/members", a.members)
	members.GET("/sessions", a.listSessions)
	members.POST("/sessions/:id/end", a.endSession)
	members.POST("/logout-all", a.logoutAll)
	members.GET("/confirm", a.showConfirm)
	members.POST("/confirm", a.confirm)

	fresh := r.Group("/", a.Web.RequireUser(ginauth.Fresh(freshness)))
	fresh.GET("/password", a.showPassword)
	fresh.POST("/password", a.changePassword)
	fresh.GET("/account/email", a.showEmail)
	fresh.POST("/account/email", a.changeEmail)
	fresh.GET("/account/delete", a.showDelete)
	fresh.POST("/account/delete", a.deleteAccount)
	fresh.POST("/tokens", a.createToken)

	if a.logins != nil {
		a.logins.Routes(r.Group("/auth"))
		a.logins.AssociateRoutes(r.Group("/auth/associate"))
		fresh.GET("/account/providers", a.showProviders)
		fresh.POST("/account/providers", a.changeProviders)
	}

	// For scripts: a login or an API token.
	r.GET("/api/account", a.Web.RequireUser(ginauth.Scopes(scopeRead)), a.accountJSON)
	return r, nil
}

// secure sets the security headers of every answer and limits request bodies.
func (a *app) secure(c *gin.Context) {
	h := c.Writer.Header()
	forms := "'self'"
	for _, p := range a.providers {
		forms += " " + p.Issuer // the form that links an account is redirected there
	}
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action "+forms+"; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	// Not no-referrer: with it, browsers send "Origin: null" with the site's own forms. The
	// CSRF protection needs the origin if a browser does not send Sec-Fetch-Site.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if c.Request.TLS != nil {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, 16<<10)
}

// static serves an embedded file.
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

// addDemoAccounts adds the demo accounts, if missing.
func (a *app) addDemoAccounts(ctx context.Context) error {
	for _, demo := range demoAccounts {
		if _, err := a.Accounts.Create(ctx, demo, demoPassword); err != nil && !errors.Is(err, account.ErrEmailTaken) {
			return err
		}
	}
	return nil
}
