// Bunapp is a board of notes on Gin, Bun and Latchkey. goose makes the tables, first Latchkey's and
// then the application's. Without -dsn the database is a SQLite file.
package main

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"time"

	"github.com/gin-gonic/gin"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx
	"github.com/pressly/goose/v3"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	_ "modernc.org/sqlite" // the driver sqlite

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/examples/internal/serve"
	"github.com/latchkey-go/latchkey/sqlstore"
)

func main() { serve.Main("bunapp", run) }

// run serves until ctx is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("bunapp", flag.ContinueOnError)
	flags.SetOutput(stderr)
	addr := flags.String("addr", "127.0.0.1:8083", "address to listen on")
	dsn := flags.String("dsn", "", "data source of a PostgreSQL database, postgres://…; empty means SQLite")
	file := flags.String("file", "bunapp.db", "file of the SQLite database")
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
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := migrate(ctx, db.DB, dialect); err != nil {
		return fmt.Errorf("migrate the database %s: %w", cmp.Or(*dsn, *file), err)
	}
	app, err := newApp(ctx, db, dialect, latchkey.Config{Lifetime: 12 * time.Hour, Timeout: *timeout})
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
func open(dsn, file string) (*bun.DB, sqlstore.Dialect, error) {
	if dsn != "" {
		pool, err := sql.Open("pgx", dsn)
		if err != nil {
			return nil, 0, err
		}
		return bun.NewDB(pool, pgdialect.New()), sqlstore.PostgreSQL, nil
	}
	// Wait up to 5 seconds for a lock, delete what belongs to a deleted user, and lock at the
	// beginning of a transaction.
	pragmas := "?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=foreign_keys(1)&_txlock=immediate"
	pool, err := sql.Open("sqlite", "file:"+file+pragmas)
	if err != nil {
		return nil, 0, err
	}
	return bun.NewDB(pool, sqlitedialect.New()), sqlstore.SQLite, nil
}

//go:embed migrations
var migrations embed.FS

// migrate makes the tables. Latchkey's files and the application's have a table of versions each.
func migrate(ctx context.Context, db *sql.DB, dialect sqlstore.Dialect) error {
	latchkeys, err := sqlstore.Schema(dialect)
	if err != nil {
		return err
	}
	ours, err := fs.Sub(migrations, "migrations/"+dialect.String())
	if err != nil {
		return err
	}
	gooseDialect := goose.DialectSQLite3
	if dialect == sqlstore.PostgreSQL {
		gooseDialect = goose.DialectPostgres
	}
	for _, of := range []struct {
		files    fs.FS
		versions string
	}{{latchkeys, "latchkey_versions"}, {ours, "versions"}} {
		provider, err := goose.NewProvider(gooseDialect, db, of.files, goose.WithTableName(of.versions))
		if err != nil {
			return err
		}
		if _, err := provider.Up(ctx); err != nil {
			return err
		}
	}
	return nil
}

const curlLines = `
Try it, in another shell:

  curl -iw '\n' %[1]s/auth/register -H 'Content-Type: application/json' -d '{"email":"ann@example.com","password":"correct horse battery staple","name":"Ann"}'
  TOKEN=$(curl -s %[1]s/auth/login -d username=ann@example.com --data-urlencode 'password=correct horse battery staple' | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
  curl -iw '\n' %[1]s/notes -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{"text":"hello"}'
  curl -iw '\n' %[1]s/notes
  # delete the account, and with it its notes; its token is rejected afterwards
  curl -iw '\n' -X DELETE %[1]s/account -H "Authorization: Bearer $TOKEN"
  curl -iw '\n' %[1]s/auth/sessions -H "Authorization: Bearer $TOKEN"
`
