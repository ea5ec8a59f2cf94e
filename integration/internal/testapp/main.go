// Command testapp is an application for tests that need several processes and kill
// them: login, logout and a guarded route on an existing database.
package main

import (
	"context"
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

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/strategy"
)

type member = account.User[uuid.UUID]

func main() {
	uri := flag.String("uri", "", "the server's connection `string`")
	db := flag.String("db", "", "the database's `name`")
	listen := flag.String("listen", "127.0.0.1:0", "`address` to listen on")
	staleness := flag.Duration("cache", 0, "Cache.MaxStaleness; 0 means no cache")
	flag.Parse()
	if err := run(context.Background(), *uri, *db, *listen, *staleness); err != nil {
		fmt.Fprintln(os.Stderr, "testapp:", err)
		os.Exit(1)
	}
}

// run serves until the process is killed.
func run(ctx context.Context, uri, database, listen string, staleness time.Duration) error {
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		return err
	}
	lk, err := latchkey.New[member](client.Database(database), uuid.New, latchkey.Config{
		Lifetime: time.Hour, PurgeInterval: time.Minute,
		Cache: strategy.Cache{MaxStaleness: staleness}, PublishRevocations: true,
		Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true,
		InsecureNoLimiter: true, // the tests log in many times from one IP
		OnEvent:           func(context.Context, event.Event) {},
	})
	if err != nil {
		return err
	}
	if err := lk.EnsureIndexes(ctx); err != nil {
		return err
	}
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	lk.Auth.Routes(r.Group("/auth"))
	r.GET("/me", lk.Auth.RequireUser(), func(c *gin.Context) { c.Status(http.StatusOK) })
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Printf("testapp: listening on http://%s\n", listener.Addr())
	server := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	return server.Serve(listener)
}
