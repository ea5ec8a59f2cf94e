// Consumer-sql is a program that imports what an application on PostgreSQL imports. CI builds it as
// a module of its own and reads its go.sum, which must not name Docker, testcontainers or FerretDB.
// It names the drivers of the other databases, which sqlstore's tests need; they are not linked.
package main

import (
	"database/sql"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/sqlstore"
)

type user struct {
	account.User[uuid.UUID]
}

func main() {
	db, err := sql.Open("pgx", "postgres://127.0.0.1/consumer")
	check(err)
	lk, err := sqlstore.New[user](db, sqlstore.PostgreSQL, uuid.New, latchkey.Config{})
	check(err)
	defer lk.Close()
	lk.Auth.Routes(gin.New())
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
