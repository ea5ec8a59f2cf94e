package ginauth_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// Person is the application's user.
type Person struct {
	account.User[uuid.UUID]
	Team string
}

// An application with a login, a guarded route and a logout.
func Example() {
	users := memstore.NewUsers[Person]()
	accounts, err := account.NewManager(users, uuid.New, account.Config{})
	if err != nil {
		log.Fatal(err)
	}
	sessions, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), users, strategy.Config{Lifetime: time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	auth, err := ginauth.New(sessions, accounts, ginauth.Config{})
	if err != nil {
		log.Fatal(err)
	}

	r := gin.New()
	auth.Routes(r.Group("/auth"))
	r.GET("/me", auth.RequireUser(), func(c *gin.Context) {
		person, _ := auth.CurrentUser(c)
		c.String(http.StatusOK, "%s of team %s", person.Email, person.Team)
	})

	ann := Person{User: account.User[uuid.UUID]{Email: "ann@example.com"}, Team: "Blue"}
	if _, err := accounts.Register(context.Background(), ann, "correct-horse-battery"); err != nil {
		log.Fatal(err)
	}
	login := send(r, "POST", "/auth/login", "", `{"username": "ann@example.com", "password": "correct-horse-battery"}`)
	var body struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.Unmarshal(login.Body.Bytes(), &body); err != nil {
		log.Fatal(err)
	}
	fmt.Println("log in:", login.Code, "for", body.ExpiresIn, "seconds")

	me := send(r, "GET", "/me", body.AccessToken, "")
	fmt.Println("me:", me.Code, me.Body)
	fmt.Println("log out:", send(r, "POST", "/auth/logout", body.AccessToken, "").Code)
	fmt.Println("me:", send(r, "GET", "/me", body.AccessToken, "").Code)
	// Output:
	// log in: 200 for 3600 seconds
	// me: 200 ann@example.com of team Blue
	// log out: 204
	// me: 401
}

// A check of the application's own: only people of one team may pass.
func ExampleCheckUser() {
	auth, people := building()
	blueTeam := ginauth.CheckUser(func(_ context.Context, s strategy.Session[Person]) (bool, error) {
		return s.User.Team == "Blue", nil
	})
	r := gin.New()
	r.GET("/blueprints", auth.RequireUser(blueTeam), func(c *gin.Context) { c.Status(http.StatusOK) })

	for _, team := range []string{"Blue", "Red"} {
		fmt.Println(team, send(r, "GET", "/blueprints", people[team], "").Code)
	}
	// Output:
	// Blue 200
	// Red 403
}

// A callback of an identity provider logs its user in with a cookie and goes on
// to the application's first page.
func ExampleAuth_Login() {
	users := memstore.NewUsers[Person]()
	sessions, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), users, strategy.Config{Lifetime: time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	// No passwords, so there is nobody to check them, and no login route.
	auth, err := ginauth.New(sessions, nil, ginauth.Config{Transports: []ginauth.Transport{ginauth.Cookie{}}})
	if err != nil {
		log.Fatal(err)
	}

	r := gin.New()
	r.GET("/callback", func(c *gin.Context) {
		// Here the application exchanges the code and finds its user.
		person := Person{User: account.User[uuid.UUID]{ID: uuid.New(), Active: true}}
		if _, err := auth.Login(c, person); err != nil {
			return // Login has answered
		}
		c.Redirect(http.StatusSeeOther, "/home")
	})

	w := send(r, "GET", "/callback", "", "")
	fmt.Println(w.Code, w.Header().Get("Location"))
	cookie := w.Result().Cookies()[0]
	fmt.Println(cookie.Name, cookie.MaxAge, cookie.HttpOnly, cookie.Secure)
	// Output:
	// 303 /home
	// __Host-latchkey 3600 true true
}

// send makes a request with a token and a JSON body, where there are any.
func send(h http.Handler, method, path, token, body string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

// building returns a plugin, and a token for somebody of each team.
func building() (auth *ginauth.Auth[Person], tokenOf map[string]string) {
	ctx := context.Background()
	users := memstore.NewUsers[Person]()
	sessions, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), users, strategy.Config{})
	if err != nil {
		log.Fatal(err)
	}
	if auth, err = ginauth.New(sessions, nil, ginauth.Config{}); err != nil {
		log.Fatal(err)
	}
	tokenOf = make(map[string]string)
	for _, team := range []string{"Blue", "Red"} {
		person := Person{User: account.User[uuid.UUID]{ID: uuid.New(), Email: team + "@example.com", Active: true}, Team: team}
		if err := users.Insert(ctx, person); err != nil {
			log.Fatal(err)
		}
		secret, _, err := sessions.WriteToken(ctx, person)
		if err != nil {
			log.Fatal(err)
		}
		tokenOf[team] = secret.Reveal()
	}
	return auth, tokenOf
}
