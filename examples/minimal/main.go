package main

import (
	"context"
	"log"
	"os"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Member is your user: an account, and the fields that you add.
type Member struct {
	account.User[uuid.UUID] `bson:",inline"`
	Name                    string `bson:"name" json:"name"`
}

func main() {
	client, err := mongo.Connect(options.Client().ApplyURI(os.Getenv("MONGODB_URI")))
	check(err)
	lk, err := latchkey.New[Member](client.Database("app"), uuid.New, latchkey.Config{Lifetime: 12 * time.Hour})
	check(err)
	check(lk.EnsureIndexes(context.Background()))
	r := gin.New()
	r.Use(gin.Logger(), ginauth.Recovery(nil))
	check(r.SetTrustedProxies(nil))  // behind a proxy: its addresses
	lk.Auth.Routes(r.Group("/auth")) // POST /auth/login, POST /auth/logout, GET /auth/sessions …
	r.GET("/me", lk.Auth.RequireUser(), func(c *gin.Context) {
		member, _ := lk.Auth.CurrentUser(c)
		c.JSON(200, member)
	})
	check(r.Run())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
