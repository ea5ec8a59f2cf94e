package oidc_test

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/contrib/oidc"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/internal/oidctest"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// A user logs in through a provider for the first time: a link on a page leads to the provider, and
// the callback to a page of the application.
func Example() {
	type Member = account.User[uuid.UUID]

	// In an application, latchkey.New makes these on a database, and the links are in
	// mongostore.NewOAuthAccounts.
	users := memstore.NewUsers[Member]()
	links := memstore.NewOAuthAccounts[uuid.UUID]()
	sessions, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), users, strategy.Config{})
	if err != nil {
		log.Fatal(err)
	}
	accounts, err := account.NewManager(users, nil, nil, uuid.New, account.Config{InsecureNoLimiter: true}, sessions)
	if err != nil {
		log.Fatal(err)
	}
	auth, err := ginauth.New(sessions, accounts, ginauth.Config{Transports: []ginauth.Transport{ginauth.Cookie{}}})
	if err != nil {
		log.Fatal(err)
	}
	auth, err = ginauth.WithAccounts(auth, accounts)
	if err != nil {
		log.Fatal(err)
	}

	router := gin.New()
	server := httptest.NewTLSServer(router)
	defer server.Close()
	provider := oidctest.New(exampleTB{}, oidctest.User{Subject: "248289761001", Email: "ann@example.com", EmailVerified: true})
	defer provider.Close()

	logins, err := oidc.New(auth, accounts, links, oidc.Config[Member]{
		Providers: []oidc.Provider{{
			Name:         "example",
			Issuer:       provider.Issuer, // such as "https://accounts.google.com"
			ClientID:     oidctest.ClientID,
			ClientSecret: strategy.NewSecret(oidctest.ClientSecret),
			RedirectURL:  server.URL + "/auth/example/callback",
		}},
		RedirectPaths: []string{"/account"},
	})
	if err != nil {
		log.Fatal(err)
	}
	logins.Routes(router.Group("/auth"))
	router.GET("/account", auth.RequireUser(), func(c *gin.Context) {
		user, _ := auth.CurrentUser(c)
		c.JSON(http.StatusOK, gin.H{"email": user.Email, "verified": user.Verified})
	})

	browser := server.Client()
	browser.Jar, _ = cookiejar.New(nil)
	resp, err := browser.Get(server.URL + "/auth/example/authorize?redirect_to=" + url.QueryEscape("/account"))
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	var page struct {
		Email    string
		Verified bool
	}
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Request.URL.Path, page.Email, page.Verified)
	// Output: /account ann@example.com true
}

// exampleTB lets an example start what tests start.
type exampleTB struct{ testing.TB }

func (exampleTB) Helper()        {}
func (exampleTB) Cleanup(func()) {}
