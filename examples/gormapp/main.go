// Gormapp is an API for notes on Gin, GORM and Latchkey. GORM makes the table of users and has
// a model of it; Latchkey keeps its tables in the same database. Without -dsn that is a SQLite file.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/glebarez/sqlite"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/examples/internal/serve"
	"github.com/latchkey-go/latchkey/sqlstore"
)

func main() { serve.Main("gormapp", run) }

// run serves until ctx is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("gormapp", flag.ContinueOnError)
	flags.SetOutput(stderr)
	addr := flags.String("addr", "127.0.0.1:8082", "address to listen on")
	dsn := flags.String("dsn", "", "data source of a PostgreSQL database, postgres://…; empty means SQLite")
	file := flags.String("file", "gormapp.db", "file of the SQLite database")
	timeout := flags.Duration("timeout", 0, "how long a request may wait for the database and for hashing; 0 means 3s")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()

	db, dialect, err := open(*dsn, *file)
	if err != nil {
		return err
	}
	pool, err := db.DB()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	app, err := newApp(ctx, db, pool, dialect, latchkey.Config{Lifetime: 12 * time.Hour, Timeout: *timeout})
	if err != nil {
		return err
	}
	defer app.Close() // before the database is closed

	gin.SetMode(gin.ReleaseMode)
	handler, err := app.handler()
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "listening on http://%s\n", listener.Addr())
	fmt.Fprintf(stdout, curlLines, "http://"+serve.Reachable(listener.Addr()))
	return serve.Until(ctx, listener, handler)
}

// open opens the database of the flags.
func open(dsn, file string) (*gorm.DB, sqlstore.Dialect, error) {
	dialector, dialect := postgres.Open(dsn), sqlstore.PostgreSQL
	if dsn == "" {
		// Wait up to 5 seconds for a lock, delete the tokens of a deleted user, and lock at the
		// beginning of a transaction.
		pragmas := "?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=foreign_keys(1)&_txlock=immediate"
		dialector, dialect = sqlite.Open("file:"+file+pragmas), sqlstore.SQLite
	}
	db, err := gorm.Open(dialector, &gorm.Config{})
	if err != nil {
		return nil, 0, fmt.Errorf("open the database %s: %w", cmp.Or(dsn, file), err)
	}
	return db, dialect, nil
}

const curlLines = `
Try it, in another shell:

  curl -iw '\n' %[1]s/auth/register -H 'Content-Type: application/json' -d '{"email":"ann@example.com","password":"correct horse battery staple","name":"Ann"}'
  TOKEN=$(curl -s %[1]s/auth/login -d username=ann@example.com --data-urlencode 'password=correct horse battery staple' | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
  curl -iw '\n' %[1]s/notes -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{"text":"buy milk"}'
  curl -iw '\n' %[1]s/notes -H "Authorization: Bearer $TOKEN"
  # delete the account; its token is rejected afterwards
  curl -iw '\n' -X DELETE %[1]s/account -H "Authorization: Bearer $TOKEN"
  curl -iw '\n' %[1]s/notes -H "Authorization: Bearer $TOKEN"
`
