package ginauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
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

const passphrase = "correct-horse-battery"

// An application with a login, a guarded route and a logout. Package latchkey does this
// wiring on MongoDB.
func Example() {
	users := memstore.NewUsers[Person]()
	attempts, err := memstore.NewAttempts(0)
	if err != nil {
		log.Fatal(err)
	}
	sessions, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), users, strategy.Config{Lifetime: time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	accounts, err := account.NewManager(users, nil, attempts, uuid.New, account.Config{}, sessions)
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
	if _, err := accounts.Register(context.Background(), ann, passphrase); err != nil {
		log.Fatal(err)
	}
	login := send(r, "POST", "/auth/login", "", `{"username": "ann@example.com", "password": "correct-horse-battery"}`)
	token := tokenIn(login)
	fmt.Println("log in:", login.Code)
	me := send(r, "GET", "/me", token, "")
	fmt.Println("me:", me.Code, me.Body)
	fmt.Println("log out:", send(r, "POST", "/auth/logout", token, "").Code)
	fmt.Println("me:", send(r, "GET", "/me", token, "").Code)
	// Output:
	// log in: 200
	// me: 200 ann@example.com of team Blue
	// log out: 204
	// me: 401
}

// Guards take checks. A rejected user gets 403.
func ExampleAuth_RequireUser() {
	app := newApp(ginauth.Config{})
	hello := func(c *gin.Context) { c.Status(http.StatusOK) }
	r := gin.New()
	r.GET("/me", app.auth.RequireUser(), hello)
	r.GET("/articles", app.auth.RequireUser(ginauth.Verified), hello)
	r.GET("/admin", app.auth.RequireUser(ginauth.Superuser), hello)

	ann := app.tokenOf("ann@example.com", func(p *Person) { p.Verified = true })
	for _, path := range []string{"/me", "/articles", "/admin"} {
		fmt.Println(path, send(r, "GET", path, ann, "").Code)
	}
	fmt.Println("without a token:", send(r, "GET", "/me", "", "").Code)
	// Output:
	// /me 200
	// /articles 200
	// /admin 403
	// without a token: 401
}

// A page that greets users by name and serves visitors too.
func ExampleAuth_OptionalUser() {
	app := newApp(ginauth.Config{})
	r := gin.New()
	r.GET("/", app.auth.OptionalUser(), func(c *gin.Context) {
		if person, ok := app.auth.CurrentUser(c); ok {
			c.String(http.StatusOK, "Hello, %s", person.Email)
			return
		}
		c.String(http.StatusOK, "Hello")
	})

	fmt.Println(send(r, "GET", "/", "", "").Body)
	fmt.Println(send(r, "GET", "/", app.tokenOf("ann@example.com"), "").Body)
	// Output:
	// Hello
	// Hello, ann@example.com
}

// A check of the application's own: the route is for one team.
func ExampleAuth_CheckUser() {
	app := newApp(ginauth.Config{})
	blueTeam := app.auth.CheckUser(func(_ context.Context, s strategy.Session[Person]) (bool, error) {
		return s.User.Team == "Blue", nil
	})
	r := gin.New()
	r.GET("/blueprints", app.auth.RequireUser(blueTeam), func(c *gin.Context) { c.Status(http.StatusOK) })

	for _, team := range []string{"Blue", "Red"} {
		token := app.tokenOf(team+"@example.com", func(p *Person) { p.Team = team })
		fmt.Println(team, send(r, "GET", "/blueprints", token, "").Code)
	}
	// Output:
	// Blue 200
	// Red 403
}

// A payment needs a login of the last ten minutes. Entering the password again makes the
// session fresh.
func ExampleFresh() {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	app := newApp(ginauth.Config{Now: func() time.Time { return now }})
	r := gin.New()
	app.auth.Routes(r.Group("/auth"))
	r.POST("/pay", app.auth.RequireUser(ginauth.Fresh(10*time.Minute)), func(c *gin.Context) { c.Status(http.StatusOK) })

	token := app.tokenOf("ann@example.com")
	fmt.Println("at once:", send(r, "POST", "/pay", token, "").Code)

	now = now.Add(11 * time.Minute)
	w := send(r, "POST", "/pay", token, "")
	fmt.Println("later:", w.Code, w.Header().Get("WWW-Authenticate"))

	token = tokenIn(send(r, "POST", "/auth/reauthenticate", token, `{"password": "correct-horse-battery"}`))
	fmt.Println("with the password:", send(r, "POST", "/pay", token, "").Code)
	// Output:
	// at once: 200
	// later: 401 Bearer realm="latchkey", error="insufficient_user_authentication", max_age="600"
	// with the password: 200
}

// A token for a script has scopes. Guards reject it unless Scopes names what it may do.
func ExampleScopes() {
	app := newApp(ginauth.Config{})
	done := func(c *gin.Context) { c.Status(http.StatusOK) }
	r := gin.New()
	r.GET("/me", app.auth.RequireUser(), done)
	r.POST("/deploy", app.auth.RequireUser(ginauth.Scopes("deploy:write")), done)

	login := app.tokenOf("ann@example.com")
	ann, err := app.sessions.ReadToken(context.Background(), login)
	if err != nil {
		log.Fatal(err)
	}
	script, _, err := app.sessions.WriteToken(context.Background(), ann.User, strategy.WithScopes("deploy:write"), strategy.WithName("nightly build"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("script:", send(r, "POST", "/deploy", script.Reveal(), "").Code, send(r, "GET", "/me", script.Reveal(), "").Code)
	fmt.Println("login:", send(r, "POST", "/deploy", login, "").Code, send(r, "GET", "/me", login, "").Code)
	// Output:
	// script: 200 403
	// login: 200 200
}

// A callback of an identity provider logs its user in with a cookie and redirects.
func ExampleAuth_Login() {
	app := newApp(ginauth.Config{Transports: []ginauth.Transport{ginauth.Cookie{}}})
	r := gin.New()
	r.GET("/callback", func(c *gin.Context) {
		// Here the application exchanges the provider's code and finds its user.
		person := Person{User: account.User[uuid.UUID]{ID: uuid.New(), Active: true}}
		if _, err := app.auth.Login(c, person); err != nil {
			app.auth.Refuse(c, err)
			return
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

// The login page of a web application.
func ExampleAuth_LoginWithPassword() {
	app := newApp(ginauth.Config{Transports: []ginauth.Transport{ginauth.Cookie{}}})
	app.tokenOf("ann@example.com") // creates the account
	r := gin.New()
	r.POST("/login", func(c *gin.Context) {
		_, err := app.auth.LoginWithPassword(c, c.PostForm("email"), c.PostForm("password"), c.PostForm("remember") != "")
		switch {
		case err == nil:
			c.Redirect(http.StatusSeeOther, "/home")
		case errors.Is(err, account.ErrBadCredentials):
			c.String(http.StatusUnprocessableEntity, "Wrong address or password.")
		default:
			app.auth.Refuse(c, err)
		}
	})

	for _, password := range []string{"wrong", passphrase} {
		req := httptest.NewRequest("POST", "/login", strings.NewReader("email=ann@example.com&password="+password))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		fmt.Println(w.Code, w.Body, w.Header().Get("Location"), len(w.Result().Cookies()))
	}
	// Output:
	// 422 Wrong address or password.  0
	// 303  /home 2
}

// Changing the password ends every session. Renew keeps the one that changed it.
func ExampleAuth_Renew() {
	app := newApp(ginauth.Config{})
	r := gin.New()
	r.GET("/me", app.auth.RequireUser(), func(c *gin.Context) { c.Status(http.StatusOK) })
	r.POST("/password", app.auth.RequireUser(), func(c *gin.Context) {
		person, _ := app.auth.CurrentUser(c)
		person, err := app.accounts.ChangePassword(c.Request.Context(), person.ID, c.Query("old"), c.Query("new"))
		if err != nil {
			app.auth.Refuse(c, err)
			return
		}
		issued, err := app.auth.Renew(c, person)
		if err != nil {
			app.auth.Refuse(c, err)
			return
		}
		app.auth.Answer(c, issued) // with the new token
	})

	laptop := app.tokenOf("ann@example.com")
	ann, err := app.sessions.ReadToken(context.Background(), laptop)
	if err != nil {
		log.Fatal(err)
	}
	phone, _, err := app.sessions.WriteToken(context.Background(), ann.User)
	if err != nil {
		log.Fatal(err)
	}
	renewed := tokenIn(send(r, "POST", "/password?old="+passphrase+"&new=battery-horse-correct", laptop, ""))
	fmt.Println("new token:", send(r, "GET", "/me", renewed, "").Code)
	fmt.Println("old token:", send(r, "GET", "/me", laptop, "").Code)
	fmt.Println("other session:", send(r, "GET", "/me", phone.Reveal(), "").Code)
	// Output:
	// new token: 200
	// old token: 401
	// other session: 401
}

// One application serves logins of programs, which get a bearer token, and of browsers,
// which get a cookie. Its guards accept both.
func ExampleAuth_AnswerLoginsWith() {
	app := newApp(ginauth.Config{Transports: []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}}})
	web, err := app.auth.AnswerLoginsWith(ginauth.Cookie{})
	if err != nil {
		log.Fatal(err)
	}
	r := gin.New()
	app.auth.Routes(r.Group("/api"))
	web.Routes(r.Group("/web"))
	r.GET("/me", app.auth.RequireUser(), func(c *gin.Context) { c.Status(http.StatusOK) })

	app.tokenOf("ann@example.com") // creates the account
	const form = `{"username": "ann@example.com", "password": "correct-horse-battery"}`
	api := send(r, "POST", "/api/login", "", form)
	fmt.Println("API login:", api.Code, "cookies:", len(api.Result().Cookies()))
	fmt.Println("me:", send(r, "GET", "/me", tokenIn(api), "").Code)

	browser := send(r, "POST", "/web/login", "", form)
	fmt.Println("web login:", browser.Code, "cookies:", len(browser.Result().Cookies()))
	req := httptest.NewRequest("GET", "/me", nil)
	req.AddCookie(browser.Result().Cookies()[0])
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	fmt.Println("me:", w.Code)
	// Output:
	// API login: 200 cookies: 0
	// me: 200
	// web login: 204 cookies: 2
	// me: 200
}

// A web application redirects to its login page where an API answers 401.
func ExampleConfig_onRefusal() {
	app := newApp(ginauth.Config{
		Transports: []ginauth.Transport{ginauth.Cookie{}},
		OnRefusal: func(c *gin.Context, refusal *ginauth.Refusal) {
			switch {
			case errors.Is(refusal, ginauth.ErrNotFresh):
				c.Redirect(http.StatusSeeOther, "/confirm-password")
			case refusal.Status == http.StatusUnauthorized:
				c.Redirect(http.StatusSeeOther, "/login")
			default: // the application's own envelope
				c.JSON(refusal.Status, gin.H{"error": gin.H{"code": refusal.Code, "fields": refusal.Fields}})
			}
		},
	})
	r := gin.New()
	r.GET("/home", app.auth.RequireUser(), func(c *gin.Context) { c.Status(http.StatusOK) })

	w := send(r, "GET", "/home", "", "")
	fmt.Println(w.Code, w.Header().Get("Location"))
	// Output: 303 /login
}

// The application's own fields come and go by hooks, field by field.
func ExampleAuth_WithHooks() {
	app := newApp(ginauth.Config{})
	auth, err := ginauth.WithAccounts(app.auth, app.accounts) // latchkey.New does this
	if err != nil {
		log.Fatal(err)
	}
	decode := func(_ context.Context, p *Person, body *ginauth.Body) error {
		if body.Decode("team", &p.Team) && len(p.Team) > 20 {
			body.Invalid("team", "string_too_long", "Input should have at most 20 bytes")
		}
		return nil
	}
	auth = auth.WithHooks(ginauth.Hooks[Person]{
		Register: decode, Patch: decode,
		View: func(p Person) map[string]any { return map[string]any{"team": p.Team} },
	})
	r := gin.New()
	auth.Routes(r.Group("/auth"))
	auth.RegisterRoutes(r.Group("/auth"))
	auth.UserRoutes(r.Group("/users"))

	user := send(r, "POST", "/auth/register", "", `{"email": "ann@example.com", "password": "correct-horse-battery", "team": "Blue", "is_superuser": true}`)
	fmt.Println(user.Code, strings.Contains(user.Body.String(), `"is_superuser":false,"is_verified":false,"team":"Blue"`))
	login := send(r, "POST", "/auth/login", "", `{"username": "ann@example.com", "password": "correct-horse-battery"}`)
	patched := send(r, "PATCH", "/users/me", tokenIn(login), `{"team": "a name that is far too long"}`)
	fmt.Println(patched.Code, patched.Body)
	// Output:
	// 201 true
	// 422 {"detail":[{"loc":["body","team"],"msg":"Input should have at most 20 bytes","type":"string_too_long"}]}
}

// The guard of a group admits the most, and the guards below it narrow that down: Scopes with
// names admits logins and tokens with these scopes, and no Scopes admits logins alone. A token
// of a script passes no guard that does not name Scopes.
func ExampleAuth_WithAPITokens() {
	app := newApp(ginauth.Config{})
	apiTokens, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), app.users, strategy.Config{
		TokenPrefix: "lkp_", Lifetime: 90 * 24 * time.Hour, SurvivePasswordChange: true,
	}) // latchkey.Config.APITokens does this
	if err != nil {
		log.Fatal(err)
	}
	auth, err := app.auth.WithAPITokens(apiTokens, ginauth.APITokensConfig{Scopes: []string{"reports:read", "reports:write"}})
	if err != nil {
		log.Fatal(err)
	}
	r := gin.New()
	auth.APITokenRoutes(r.Group("/tokens"))
	ok := func(c *gin.Context) { c.Status(http.StatusOK) }
	api := r.Group("/api", auth.RequireUser(ginauth.Scopes())) // logins, and every token of a script
	api.GET("/reports", auth.RequireUser(ginauth.Scopes("reports:read")), ok)
	api.PUT("/reports", auth.RequireUser(ginauth.Scopes("reports:write")), ok)
	api.GET("/billing", auth.RequireUser(), ok) // logins alone

	login := app.tokenOf("ann@example.com")
	created := send(r, "POST", "/tokens", login, `{"name": "nightly report", "scopes": ["reports:read"]}`)
	var script struct{ Token string }
	if err := json.Unmarshal(created.Body.Bytes(), &script); err != nil {
		log.Fatal(err)
	}
	for _, route := range []string{"GET /api/reports", "PUT /api/reports", "GET /api/billing"} {
		method, path, _ := strings.Cut(route, " ")
		fmt.Println(route, "script:", send(r, method, path, script.Token, "").Code, "login:", send(r, method, path, login, "").Code)
	}
	// Output:
	// GET /api/reports script: 200 login: 200
	// PUT /api/reports script: 403 login: 200
	// GET /api/billing script: 403 login: 200
}

// Customer is a user type that does not embed account.User. It is a strategy.User[int64].
type Customer struct {
	Number  int64
	Blocked bool
	Version int64 // raised to end all sessions of the customer
}

func (c Customer) UserID() int64       { return c.Number }
func (c Customer) IsActive() bool      { return !c.Blocked }
func (c Customer) IsVerified() bool    { return true }
func (c Customer) IsSuperuser() bool   { return false }
func (c Customer) TokenVersion() int64 { return c.Version }

// Customers is where the application keeps them. It is a strategy.UserSource.
type Customers map[int64]Customer

func (s Customers) ByID(_ context.Context, number int64) (Customer, error) {
	if customer, ok := s[number]; ok {
		return customer, nil
	}
	return Customer{}, strategy.ErrUserNotFound
}

// An application with a user type of its own, which logs users in by its own means.
func ExampleNew_ownUserType() {
	customers := Customers{7: {Number: 7}}
	sessions, err := strategy.NewDatabase(memstore.NewTokens[int64](), customers, strategy.Config{Lifetime: time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	auth, err := ginauth.New(sessions, nil, ginauth.Config{}) // nil: no login with a password
	if err != nil {
		log.Fatal(err)
	}
	r := gin.New()
	r.POST("/card", func(c *gin.Context) {
		// Here the application verifies the customer's smart card.
		issued, err := auth.Login(c, customers[7])
		if err != nil {
			auth.Refuse(c, err)
			return
		}
		auth.Answer(c, issued)
	})
	r.GET("/me", auth.RequireUser(), func(c *gin.Context) {
		customer, _ := auth.CurrentUser(c)
		c.String(http.StatusOK, "customer %d", customer.Number)
	})

	token := tokenIn(send(r, "POST", "/card", "", ""))
	fmt.Println(send(r, "GET", "/me", token, "").Body)
	customers[7] = Customer{Number: 7, Version: 1}
	fmt.Println("with another version:", send(r, "GET", "/me", token, "").Code)
	// Output:
	// customer 7
	// with another version: 401
}

// Server-sent events that end when their session does.
func ExampleAuth_Watch() {
	app := newApp(ginauth.Config{})
	defer app.sessions.Close()
	r := gin.New()
	app.auth.Routes(r.Group("/auth"))
	subscribed := make(chan bool)
	r.GET("/ticks", app.auth.RequireUser(), func(c *gin.Context) {
		ctx, stop := app.auth.Watch(c)
		defer stop()
		ticker := time.NewTicker(time.Hour)
		defer ticker.Stop()
		close(subscribed)
		for {
			select {
			case at := <-ticker.C:
				c.SSEvent("tick", at)
				c.Writer.Flush()
			case <-ctx.Done():
				// The client connects again, unless its session has ended.
				cause := context.Cause(ctx)
				c.SSEvent("end", gin.H{"log_in": errors.Is(cause, strategy.ErrInvalidToken)})
				fmt.Println("revoked:", errors.Is(cause, strategy.ErrSessionRevoked))
				return
			}
		}
	})

	token := app.tokenOf("ann@example.com")
	stream := make(chan *httptest.ResponseRecorder)
	go func() { stream <- send(r, "GET", "/ticks", token, "") }()
	<-subscribed
	fmt.Println("log out:", send(r, "POST", "/auth/logout", token, "").Code)
	fmt.Print((<-stream).Body)
	// Output:
	// log out: 204
	// revoked: true
	// event:end
	// data:{"log_in":true}
}

// The description of the routes becomes a part of the application's own document.
func ExampleMergeOpenAPI() {
	auth := newApp(ginauth.Config{Transports: []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}}}).auth
	r := gin.New()
	auth.Routes(r.Group("/auth"))
	document := map[string]any{
		"openapi": "3.1.0",
		"info":    map[string]any{"title": "Shop", "version": "2"},
		"paths": map[string]any{"/orders": map[string]any{"get": map[string]any{
			"summary":   "List the orders of the user",
			"security":  []any{map[string]any{"latchkeyBearer": []any{}}, map[string]any{"latchkeyCookie": []any{}}},
			"responses": map[string]any{"200": map[string]any{"description": "The orders."}},
		}}},
	}
	if err := ginauth.MergeOpenAPI(document, auth.OpenAPI()); err != nil {
		log.Fatal(err)
	}
	r.GET("/openapi.json", func(c *gin.Context) { c.JSON(http.StatusOK, document) })

	var served struct {
		Info  struct{ Title string }
		Paths map[string]map[string]struct{ Summary string }
	}
	if err := json.Unmarshal(send(r, "GET", "/openapi.json", "", "").Body.Bytes(), &served); err != nil {
		log.Fatal(err)
	}
	fmt.Println(served.Info.Title)
	for _, path := range slices.Sorted(maps.Keys(served.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(served.Paths[path])) {
			fmt.Println(method, path, "-", served.Paths[path][method].Summary)
		}
	}
	// Output:
	// Shop
	// post /auth/login - Log in with a password
	// post /auth/logout - Log out
	// post /auth/logout-all - End all sessions of the user
	// post /auth/reauthenticate - Enter the password again, for a fresh login
	// get /auth/sessions - List the sessions of the user
	// delete /auth/sessions/{id} - End a session
	// get /orders - List the orders of the user
}

// An application without a document of its own serves the description alone.
func ExampleAuth_OpenAPIHandler() {
	auth := newApp(ginauth.Config{}).auth
	r := gin.New()
	r.GET("/openapi.json", auth.OpenAPIHandler())
	auth.Routes(r.Group("/auth"))

	var served struct {
		OpenAPI string
		Paths   map[string]any
	}
	if err := json.Unmarshal(send(r, "GET", "/openapi.json", "", "").Body.Bytes(), &served); err != nil {
		log.Fatal(err)
	}
	fmt.Println("OpenAPI", served.OpenAPI, "with", len(served.Paths), "paths")
	// Output:
	// OpenAPI 3.1.0 with 6 paths
}

// send sends a request, with a bearer token and a JSON body unless they are empty.
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

// tokenIn returns the token in the answer to a login.
func tokenIn(w *httptest.ResponseRecorder) string {
	var body struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		log.Fatalf("no token in %d %s: %v", w.Code, w.Body, err)
	}
	return body.AccessToken
}

// app is an application in memory.
type app struct {
	users    *memstore.Users[Person, uuid.UUID]
	accounts *account.Manager[Person, uuid.UUID]
	sessions *strategy.Database[Person, uuid.UUID]
	auth     *ginauth.Auth[Person]
}

// newApp does the wiring of the package's example, with one clock.
func newApp(cfg ginauth.Config) *app {
	users := memstore.NewUsers[Person]()
	attempts, err := memstore.NewAttempts(0)
	if err != nil {
		log.Fatal(err)
	}
	a := app{users: users}
	if a.sessions, err = strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), users, strategy.Config{Lifetime: time.Hour, Now: cfg.Now}); err != nil {
		log.Fatal(err)
	}
	if a.accounts, err = account.NewManager(users, nil, attempts, uuid.New, account.Config{
		Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true, // fast examples
		Now: cfg.Now,
	}, a.sessions); err != nil {
		log.Fatal(err)
	}
	if a.auth, err = ginauth.New(a.sessions, a.accounts, cfg); err != nil {
		log.Fatal(err)
	}
	return &a
}

// tokenOf creates an account and returns a token of it.
func (a *app) tokenOf(email string, changes ...func(*Person)) string {
	person := Person{User: account.User[uuid.UUID]{Email: email, Active: true}}
	for _, change := range changes {
		change(&person)
	}
	person, err := a.accounts.Create(context.Background(), person, passphrase)
	if err != nil {
		log.Fatal(err)
	}
	secret, _, err := a.sessions.WriteToken(context.Background(), person)
	if err != nil {
		log.Fatal(err)
	}
	return secret.Reveal()
}
