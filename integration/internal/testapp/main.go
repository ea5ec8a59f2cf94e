// Command testapp is an application for tests that want several processes, and to
// end them: login, logout and a guarded route on a database that is there already.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

type member = account.User[uuid.UUID]

func main() {
	uri := flag.String("uri", "", "the server's connection `string`")
	db := flag.String("db", "", "the database's `name`")
	listen := flag.String("listen", "127.0.0.1:0", "`address` to listen on")
	staleness := flag.Duration("cache", 0, "Cache.MaxStaleness; 0 is no cache")
	flag.Parse()
	if err := run(context.Background(), *uri, *db, *listen, *staleness); err != nil {
		fmt.Fprintln(os.Stderr, "testapp:", err)
		os.Exit(1)
	}
}

// run serves until the process is ended.
func run(ctx context.Context, uri, database, listen string, staleness time.Duration) error {
	const lifetime = time.Hour
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		return err
	}
	db := client.Database(database)
	tokens, err := mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{Lifetime: lifetime, PurgeInterval: time.Minute})
	if err != nil {
		return err
	}
	users, err := mongostore.NewUsers[member](db, mongostore.UsersConfig{})
	if err != nil {
		return err
	}
	if err := errors.Join(tokens.EnsureIndexes(ctx), users.EnsureIndexes(ctx)); err != nil {
		return err
	}
	accounts, err := account.NewManager(users, uuid.New, account.Config{
		Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true,
		InsecureNoLimiter: true, // the tests' logins come from one address
	})
	if err != nil {
		return err
	}
	sessions, err := strategy.NewDatabase(tokens, users, strategy.Config{
		Lifetime: lifetime, Cache: strategy.Cache{MaxStaleness: staleness}, PublishRevocations: true,
	})
	if err != nil {
		return err
	}
	auth, err := ginauth.New(sessions, accounts, ginauth.Config{})
	if err != nil {
		return err
	}
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	auth.Routes(r.Group("/auth"))
	r.GET("/me", auth.RequireUser(), func(c *gin.Context) { c.Status(http.StatusOK) })
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Printf("testapp: listening on http://%s\n", listener.Addr())
	server := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	return server.Serve(listener)
}
