// Quickstart is a small Gin application with Latchkey: log in, guard a route,
// log out. Without -mongodb-uri it runs a MongoDB-compatible server in its own
// process and makes accounts to try it with.
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
	"time"

	"github.com/gin-gonic/gin"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/examples/internal/serve"
	"github.com/latchkey-go/latchkey/integration/devmongo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// An interrupt during the start is not a failure.
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

type flags struct {
	addr     string
	mongoURI string
	database string
	demo     bool
	settings
}

func parseFlags(args []string, stderr io.Writer) (flags, error) {
	var s flags
	fs := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&s.addr, "addr", "127.0.0.1:8080", "address to listen on")
	fs.StringVar(&s.mongoURI, "mongodb-uri", os.Getenv("MONGODB_URI"), "MongoDB to use; empty runs one in this process, with demo accounts (default $MONGODB_URI)")
	fs.StringVar(&s.database, "db", "latchkey_quickstart", "name of the database")
	fs.BoolVar(&s.demo, "demo-accounts", false, "make the demo accounts in a MongoDB of yours too; their password is public")
	fs.DurationVar(&s.lifetime, "lifetime", time.Hour, "how long an access token is valid; 0 means until it is revoked")
	fs.DurationVar(&s.remember, "remember", 0, "how long it is valid if the login asks to be remembered; 0 means that logins cannot ask")
	fs.DurationVar(&s.idleTimeout, "idle-timeout", 0, "how long a session may be idle; 0 means no limit")
	fs.IntVar(&s.maxSessions, "max-sessions", 0, "how many sessions a user may have; a login beyond that ends the oldest; 0 means any number")
	fs.DurationVar(&s.cacheStaleness, "cache-staleness", 0, "the longest a cached session is used before it is read again, up to 1m; 0 means no cache")
	fs.IntVar(&s.loginLimit, "login-limit", 5, "how many wrong passwords are free before delays begin, for an account from unknown devices and from each known device (1 to 26); 0 means no limit")
	fs.IntVar(&s.maxHashes, "max-hashes", 0, "how many passwords are hashed at once, each with 64 MiB and 4 threads; 0 means a quarter of the processors, at least 1")
	if err := fs.Parse(args); err != nil {
		return s, err
	}
	if r := s.remember; r != 0 && (s.lifetime == 0 || r <= s.lifetime) {
		return s, fmt.Errorf("-remember is %v, want longer than -lifetime, %v (0 means no expiry)", r, s.lifetime)
	}
	if fs.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	return s, nil
}

// run serves until ctx is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
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
		fmt.Fprintf(stdout, "MongoDB-compatible server in this process, data in %s\n", server.Dir())
	}
	client, err := mongo.Connect(options.Client().ApplyURI(s.mongoURI))
	if err != nil {
		return err
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }()

	app, err := newApp(ctx, client.Database(s.database), s.settings)
	if err != nil {
		return err
	}
	defer app.Close()
	if s.demo {
		if err := app.addDemoAccounts(ctx); err != nil {
			return err
		}
	}

	gin.SetMode(gin.ReleaseMode)
	handler, err := app.handler()
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "listening on http://%s\n", listener.Addr())
	if s.demo {
		fmt.Fprint(stdout, curlLines("http://"+serve.Reachable(listener.Addr())))
	} else {
		fmt.Fprintln(stdout, "Log in with an account of that database; -demo-accounts makes some to try it with.")
	}
	return serve.Until(ctx, listener, handler)
}

func curlLines(base string) string {
	return fmt.Sprintf(`
Try it, in another shell:

  # log in, and keep the token
  TOKEN=$(curl -s %[1]s/auth/login -d username=member@example.com --data-urlencode 'password=%[2]s' | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
  # a guarded route
  curl -iw '\n' %[1]s/me -H "Authorization: Bearer $TOKEN"
  # log out; then the same token is refused
  curl -iw '\n' -X POST %[1]s/auth/logout -H "Authorization: Bearer $TOKEN"
  curl -iw '\n' %[1]s/me -H "Authorization: Bearer $TOKEN"

  # the same with a cookie, and the login in JSON
  curl -iw '\n' %[1]s/auth/cookie/login -c jar.txt -H 'Content-Type: application/json' -d '{"username":"admin@example.com","password":"%[2]s"}'
  curl -iw '\n' %[1]s/superuser -b jar.txt
  # its sessions; then the password again, because /fresh wants a login of the last minute
  curl -sw '\n' %[1]s/auth/cookie/sessions -b jar.txt
  curl -iw '\n' %[1]s/auth/cookie/reauthenticate -b jar.txt -c jar.txt --data-urlencode 'password=%[2]s'
  curl -iw '\n' %[1]s/fresh -b jar.txt
  curl -iw '\n' -X POST %[1]s/auth/cookie/logout -b jar.txt -c jar.txt

Accounts, all with the password "%[2]s":
  member@example.com    verified@example.com    admin@example.com (superuser)    inactive@example.com
`, base, demoPassword)
}
