package main

import (
	"context"
	"errors"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Member is your user: an account, and whatever else you keep.
type Member struct {
	account.User[uuid.UUID] `bson:",inline"`
	Name                    string `bson:"name" json:"name"`
}

func main() {
	ctx, lifetime := context.Background(), 12*time.Hour
	client := must(mongo.Connect(options.Client().ApplyURI(os.Getenv("MONGODB_URI"))))
	db := client.Database("app")

	users := must(mongostore.NewUsers[Member](db, mongostore.UsersConfig{}))
	tokens := must(mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{Lifetime: lifetime, PurgeInterval: time.Minute}))
	if err := errors.Join(users.EnsureIndexes(ctx), tokens.EnsureIndexes(ctx)); err != nil {
		log.Fatal(err)
	}
	accounts := must(account.NewManager(users, uuid.New, account.Config{}))
	sessions := must(strategy.NewDatabase(tokens, users, strategy.Config{Lifetime: lifetime, OnEvent: strategy.LogEvents(nil)}))
	auth := must(ginauth.New(sessions, accounts, ginauth.Config{}))

	r := gin.Default()
	_ = r.SetTrustedProxies(nil)  // or yours: they say where clients are
	auth.Routes(r.Group("/auth")) // POST /auth/login, POST /auth/logout, GET /auth/sessions …
	r.GET("/me", auth.RequireUser(), func(c *gin.Context) {
		user, _ := auth.CurrentUser(c)
		c.JSON(http.StatusOK, user)
	})
	log.Fatal(r.Run())
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
