// Webapp is a small website with Latchkey: pages made on the server, forms, one
// cookie, and no JavaScript. Without -mongodb-uri it runs a MongoDB-compatible
// server in its own process and makes accounts to try it with.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/gin-gonic/gin"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/examples/internal/serve"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/integration/devmongo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	gin.SetMode(gin.ReleaseMode)
	// An interrupt during the start is not a failure.
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "webapp:", err)
		os.Exit(1)
	}
}

type settings struct {
	addr         string
	mongoURI     string
	database     string
	demo         bool
	insecureHTTP bool
}

func parseFlags(args []string, stderr io.Writer) (settings, error) {
	var s settings
	fs := flag.NewFlagSet("webapp", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&s.addr, "addr", "127.0.0.1:8081", "address to listen on")
	fs.StringVar(&s.mongoURI, "mongodb-uri", os.Getenv("MONGODB_URI"), "MongoDB to use; empty runs one in this process, with demo accounts (default $MONGODB_URI)")
	fs.StringVar(&s.database, "db", "latchkey_webapp", "name of the database")
	fs.BoolVar(&s.demo, "demo-accounts", false, "make the demo accounts in a MongoDB of yours too; their password is public")
	fs.BoolVar(&s.insecureHTTP, "insecure-http", false, "for development: a cookie without Secure, for plain HTTP from another machine, or for a browser that rejects Secure cookies from localhost")
	if err := fs.Parse(args); err != nil {
		return s, err
	}
	if fs.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	return s, nil
}

// run serves until ctx is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := parseFlags(args, stderr)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", s.addr)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	if s.mongoURI == "" {
		s.demo = true
		server, err := devmongo.Start(devmongo.Config{})
		if err != nil {
			return err
		}
		defer func() { _ = server.Close() }()
		s.mongoURI = server.URI()
	}
	client, err := mongo.Connect(options.Client().ApplyURI(s.mongoURI))
	if err != nil {
		return err
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }()

	var cfg latchkey.Config
	if s.insecureHTTP {
		cfg.Cookie = ginauth.Cookie{Name: "latchkey", InsecureHTTP: true}
	}
	app, err := newApp(ctx, client.Database(s.database), cfg)
	if err != nil {
		return err
	}
	defer app.Close()
	if s.demo {
		if err := app.addDemoAccounts(ctx); err != nil {
			return err
		}
	}
	handler, err := app.handler()
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "open http://%s in a browser\n", serve.Reachable(listener.Addr()))
	if s.demo {
		fmt.Fprintf(stdout, "Accounts, all with the password %q:\n", demoPassword)
		for _, demo := range demoAccounts {
			fmt.Fprintf(stdout, "  %s\n", demo.Email)
		}
	} else {
		fmt.Fprintln(stdout, "Sign in with an account of that database; -demo-accounts makes some to try it with.")
	}
	return serve.Until(ctx, listener, handler)
}
