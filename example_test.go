package latchkey_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey"
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

// The program of the README, up to the point where it listens.
func Example() {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
	check(err)
	lk, err := latchkey.New[Member](client.Database("app"), uuid.New, latchkey.Config{Lifetime: 12 * time.Hour})
	check(err)
	defer lk.Close()
	// When the application starts: check(lk.EnsureIndexes(ctx))

	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	lk.Auth.Routes(r.Group("/auth"))
	r.GET("/me", lk.Auth.RequireUser(), func(c *gin.Context) {
		member, _ := lk.Auth.CurrentUser(c)
		c.JSON(http.StatusOK, member)
	})
	for _, route := range r.Routes() {
		fmt.Println(route.Method, route.Path)
	}
	// Unordered output:
	// POST /auth/login
	// POST /auth/logout
	// GET /auth/sessions
	// DELETE /auth/sessions/:id
	// POST /auth/logout-all
	// POST /auth/reauthenticate
	// GET /me
}

// Bearer tokens and cookies, sessions that users are asked to remember, and a cache.
// The login limits are shared by all instances through MongoDB without further ado.
func ExampleNew_bearerAndCookie() {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
	check(err)
	lk, err := latchkey.New[Member](client.Database("app"), uuid.New, latchkey.Config{
		Lifetime:      30 * 24 * time.Hour,
		BriefLifetime: 12 * time.Hour,
		IdleTimeout:   24 * time.Hour,
		Cache:         strategy.Cache{MaxStaleness: 30 * time.Second},
	})
	check(err)
	defer lk.Close()

	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	lk.Auth.Routes(r.Group("/auth")) // for programs: a token in JSON
	lk.Web.Routes(r.Group("/web"))   // for browsers: a cookie
	r.GET("/admin", lk.Auth.RequireUser(ginauth.Superuser), func(c *gin.Context) { c.Status(http.StatusNoContent) })
	fmt.Println(lk.Sessions.Lifetime())
	// Output: 720h0m0s
}

// Customer has IDs of another type.
type Customer struct {
	account.User[bson.ObjectID] `bson:",inline"`
	Tier                        string `bson:"tier"`
}

// New infers the ID type from the function that makes new IDs.
func ExampleNew_objectID() {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
	check(err)
	lk, err := latchkey.New[Customer](client.Database("shop"), bson.NewObjectID, latchkey.Config{
		Collections: latchkey.Collections{Users: "customers"},
	})
	check(err)
	defer lk.Close()
	fmt.Printf("%T\n", lk.Users)
	// Output: *mongostore.Users[github.com/latchkey-go/latchkey_test.Customer,go.mongodb.org/mongo-driver/v2/bson.ObjectID]
}

// A configuration mistake is an error that names the field.
func ExampleNew_error() {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
	check(err)
	_, err = latchkey.New[Member](client.Database("app"), uuid.New, latchkey.Config{Lifetime: -time.Hour})
	fmt.Println(err)
	// Output: latchkey: mongostore: TokensConfig.Lifetime is negative: -1h0m0s
}

// An application whose database user may not manage indexes checks them instead.
func ExampleLatchkey_VerifyIndexes() {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=20"))
	check(err)
	lk, err := latchkey.New[Member](client.Database("app"), uuid.New, latchkey.Config{})
	check(err)
	defer lk.Close()
	switch err := lk.VerifyIndexes(context.Background()); {
	case err == nil:
		fmt.Println("ready")
	case errors.Is(err, mongostore.ErrIndexMismatch):
		fmt.Println("ask the database administrator:", err)
	default:
		fmt.Println("no server")
	}
	// Output: no server
}

// Kubernetes asks whether an instance is ready.
func ExampleLatchkey_Ping() {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=20"))
	check(err)
	lk, err := latchkey.New[Member](client.Database("app"), uuid.New, latchkey.Config{})
	check(err)
	defer lk.Close()

	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.GET("/readyz", func(c *gin.Context) {
		if err := lk.Ping(c.Request.Context()); err != nil {
			_ = c.AbortWithError(http.StatusServiceUnavailable, err) // gin.Logger writes it
		}
	})
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	fmt.Println(w.Code)
	// Output: 503
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
