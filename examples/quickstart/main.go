// Quickstart is a small API on Gin with Latchkey: sign up, verify the address, log in, guard a
// route, log out, reset the password, manage users. It prints its mails. Without -mongodb-uri it runs a MongoDB-compatible server in its own process and adds demo accounts.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/examples/internal/demodb"
	"github.com/latchkey-go/latchkey/examples/internal/serve"
)

func main() { serve.Main("quickstart", run) }

func parseFlags(args []string, stderr io.Writer) (*demodb.Flags, settings, error) {
	var s settings
	f := demodb.NewFlags("quickstart", "127.0.0.1:8080", stderr)
	f.DurationVar(&s.lifetime, "lifetime", time.Hour, "how long an access token is valid; 0 means until it is revoked")
	f.DurationVar(&s.remember, "remember", 0, "how long it is valid if the login sends remember=true, longer than -lifetime; 0 means that logins cannot ask for it")
	f.DurationVar(&s.idleTimeout, "idle-timeout", 0, "how long a session may be idle; 0 means no limit")
	f.DurationVar(&s.timeout, "timeout", 0, "how long a login, a log-out or a guard may wait for the database and for hashing; 0 means 3s")
	f.IntVar(&s.maxSessions, "max-sessions", 0, "how many sessions a user may have; a login beyond that ends the oldest; 0 means no limit")
	f.DurationVar(&s.cacheStaleness, "cache-staleness", 0, "the longest a cached session is used before it is read again, up to 1m; 0 means no cache")
	f.IntVar(&s.loginLimit, "login-limit", 5, "how many wrong passwords for one account are accepted without a delay, from unknown devices and from each known device, 1 to 26; 0 means no limit on logins, registrations and mails")
	f.IntVar(&s.maxHashes, "max-hashes", 0, "how many passwords are hashed at once, each with 64 MiB and 4 threads; 0 means one for every 4 processors, at least 1")
	if err := f.Parse(args); err != nil {
		return nil, s, err
	}
	if r := s.remember; r != 0 && (s.lifetime == 0 || r <= s.lifetime) {
		return nil, s, fmt.Errorf("-remember is %v, want longer than -lifetime, %v (0 means no expiry)", r, s.lifetime)
	}
	return f, s, nil
}

// run serves until ctx is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f, s, err := parseFlags(args, stderr)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", f.Addr)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	db, disconnect, err := f.Connect(stdout)
	if err != nil {
		return err
	}
	defer disconnect()
	app, err := newApp(ctx, db, s, &outbox{print: stdout})
	if err != nil {
		return err
	}
	defer app.Close()
	if f.Demo {
		if err := app.addDemoAccounts(ctx); err != nil {
			return err
		}
	}

	gin.SetMode(gin.ReleaseMode)
	handler, err := app.handler(f.MongoURI == "")
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "listening on http://%s\n", listener.Addr())
	if f.Demo {
		fmt.Fprint(stdout, curlLines("http://"+serve.Reachable(listener.Addr())))
	} else {
		fmt.Fprintln(stdout, "Log in with an account of that database, or add demo accounts with -demo-accounts.")
	}
	return serve.Until(ctx, listener, handler)
}

func curlLines(base string) string {
	return fmt.Sprintf(`
Try it, in another shell:

  # log in and keep the token
  TOKEN=$(curl -s %[1]s/auth/login -d username=member@example.com --data-urlencode 'password=%[2]s' | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
  # call a guarded route
  curl -iw '\n' %[1]s/me -H "Authorization: Bearer $TOKEN"
  # log out; the same token is rejected afterwards
  curl -iw '\n' -X POST %[1]s/auth/logout -H "Authorization: Bearer $TOKEN"
  curl -iw '\n' %[1]s/me -H "Authorization: Bearer $TOKEN"

  # the same with a cookie, and the login in JSON
  curl -iw '\n' %[1]s/auth/cookie/login -c jar.txt -H 'Content-Type: application/json' -d '{"username":"admin@example.com","password":"%[2]s"}'
  curl -iw '\n' %[1]s/superuser -b jar.txt
  # list the sessions, and enter the password again: /fresh requires a login in the last minute
  curl -sw '\n' %[1]s/auth/cookie/sessions -b jar.txt
  curl -iw '\n' %[1]s/auth/cookie/reauthenticate -b jar.txt -c jar.txt --data-urlencode 'password=%[2]s'
  curl -iw '\n' %[1]s/fresh -b jar.txt
  curl -iw '\n' -X POST %[1]s/auth/cookie/logout -b jar.txt -c jar.txt

  # sign up, ask for a mail, and verify the address with its token, which this shell prints too
  curl -iw '\n' %[1]s/auth/register -H 'Content-Type: application/json' -d '{"email":"new@example.com","password":"%[2]s","name":"Nina New"}'
  curl -iw '\n' %[1]s/auth/request-verify-token -H 'Content-Type: application/json' -d '{"email":"new@example.com"}'
  TOKEN=$(curl -s %[1]s/outbox | sed 's/^[^}]*"token":"\([^"]*\)".*/\1/')
  curl -iw '\n' %[1]s/auth/verify -H 'Content-Type: application/json' -d "{\"token\":\"$TOKEN\"}"
  # a forgotten password: the reset ends all sessions
  curl -iw '\n' %[1]s/auth/forgot-password -H 'Content-Type: application/json' -d '{"email":"new@example.com"}'
  TOKEN=$(curl -s %[1]s/outbox | sed 's/^[^}]*"token":"\([^"]*\)".*/\1/')
  curl -iw '\n' %[1]s/auth/reset-password -H 'Content-Type: application/json' -d "{\"token\":\"$TOKEN\",\"password\":\"%[2]s 2\"}"

  # a token for a script, which is shown once; /me/script names its scope, /me does not
  TOKEN=$(curl -s %[1]s/auth/login -d username=member@example.com --data-urlencode 'password=%[2]s' | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
  SCRIPT=$(curl -s %[1]s/auth/tokens -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{"name":"nightly","scopes":["me:read"]}' | sed 's/.*"token":"\([^"]*\)".*/\1/')
  curl -iw '\n' %[1]s/me/script -H "Authorization: Bearer $SCRIPT"
  curl -iw '\n' %[1]s/me -H "Authorization: Bearer $SCRIPT"

Accounts, all with the password "%[2]s":
  member@example.com    verified@example.com    admin@example.com (superuser)    inactive@example.com
`, base, demoPassword)
}
