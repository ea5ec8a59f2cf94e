// Consumer is a program that imports what an application imports. CI builds it as a
// module of its own and reads its go.sum, which must not name Docker,
// testcontainers, FerretDB or a driver of a SQL database.
package main

import (
	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
)

type user struct {
	account.User[uuid.UUID] `bson:",inline"`
}

func main() {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
	check(err)
	lk, err := latchkey.New[user](client.Database("consumer"), uuid.New, latchkey.Config{})
	check(err)
	defer lk.Close()
	lk.Auth.Routes(gin.New())
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
