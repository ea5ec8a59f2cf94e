package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey/contrib/oidc"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/mongostore"
)

// addProviders lets users sign in through identity providers. Call it before handler.
func (a *app) addProviders(ctx context.Context, db *mongo.Database, providers ...oidc.Provider) error {
	links, err := mongostore.NewOAuthAccounts[uuid.UUID](db, mongostore.OAuthAccountsConfig{})
	if err != nil {
		return err
	}
	if err := links.EnsureIndexes(ctx); err != nil {
		return err
	}
	a.logins, err = oidc.New(a.Web, a.Accounts, links, oidc.Config[Member]{
		Providers: providers, RedirectPaths: []string{"/members", "/account/providers"}, NewUser: newMember,
		MaxAge: freshness, OnEvent: event.Log(nil),
	})
	a.providers = providers
	return err
}

// newMember returns the member of a new account.
func newMember(_ context.Context, id oidc.Identity) (Member, error) {
	var claims struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(id.Claims, &claims); err != nil {
		return Member{}, err
	}
	name, problem := validName(claims.Name)
	if problem != "" {
		name = "New member"
	}
	return Member{Name: name}, nil
}

func (a *app) showProviders(c *gin.Context) { a.providersPage(c, http.StatusOK, "") }

func (a *app) providersPage(c *gin.Context, status int, problem string) {
	links, err := a.logins.Links(c)
	if err != nil {
		a.unavailable(c)
		return
	}
	a.page(c, status, "providers.html", view{Title: "Other ways to sign in", Links: links, Error: problem})
}

// changeProviders removes a link, or sends the browser to a provider to make one. The guard rejects
// forms of other sites.
func (a *app) changeProviders(c *gin.Context) {
	if name := c.PostForm("link"); name != "" {
		to, err := a.logins.LinkURL(c, name, oidc.Begin{RedirectPath: "/account/providers"})
		if err != nil {
			a.unavailable(c)
			return
		}
		c.Redirect(http.StatusSeeOther, to)
		return
	}
	err := a.logins.Unlink(c, c.PostForm("unlink"))
	rejected, ok := errors.AsType[*ginauth.CodeError](err)
	switch {
	case err == nil, ok && rejected.Code != oidc.CodeLastLogin: // gone already
		c.Redirect(http.StatusSeeOther, "/account/providers?done=unlinked")
	case ok:
		a.providersPage(c, http.StatusBadRequest, "This is the only way to sign in to your account. Set a password first.")
	default:
		a.unavailable(c)
	}
}
