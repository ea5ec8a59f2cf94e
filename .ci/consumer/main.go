// Consumer is a program that imports what an application imports. CI builds it
// as a module of its own and looks into its go.sum: nothing of Docker,
// testcontainers or FerretDB may be in there.
package main

import (
	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

type user struct {
	account.User[uuid.UUID] `bson:",inline"`
}

func main() {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
	check(err)
	db := client.Database("consumer")
	users, err := mongostore.NewUsers[user](db, mongostore.UsersConfig{})
	check(err)
	tokens, err := mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{})
	check(err)
	accounts, err := account.NewManager(users, uuid.New, account.Config{})
	check(err)
	sessions, err := strategy.NewDatabase(tokens, users, strategy.Config{})
	check(err)
	auth, err := ginauth.New(sessions, accounts, ginauth.Config{})
	check(err)
	auth.Routes(gin.New())
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
