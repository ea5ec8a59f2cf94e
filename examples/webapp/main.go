// Webapp is a small website with Latchkey: pages made on the server, forms, one cookie, and no
// JavaScript. Without -mongodb-uri it runs a MongoDB-compatible server in its own process and
// adds demo accounts. It prints its mails.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/contrib/oidc"
	"github.com/latchkey-go/latchkey/examples/internal/demodb"
	"github.com/latchkey-go/latchkey/examples/internal/serve"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/strategy"
)

func main() {
	gin.SetMode(gin.ReleaseMode)
	serve.Main("webapp", run)
}

// run serves until ctx is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := demodb.NewFlags("webapp", "127.0.0.1:8081", stderr)
	insecureHTTP := f.Bool("insecure-http", false, "for development: a cookie without Secure, for plain HTTP from another machine, or for a browser that rejects Secure cookies from localhost")
	issuer := f.String("oidc-issuer", "", "lets users sign in through this OpenID Connect provider; the client secret is in the environment variable OIDC_CLIENT_SECRET")
	clientID := f.String("oidc-client-id", "", "what the provider calls this website")
	if err := f.Parse(args); err != nil {
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

	// A real website sends its mails; this one prints them.
	cfg := latchkey.Config{Mail: account.MailConfig{Mailer: console{stdout, "http://" + serve.Reachable(listener.Addr())}}}
	if *insecureHTTP {
		cfg.Cookie = ginauth.Cookie{Name: "latchkey", InsecureHTTP: true}
	}
	app, err := newApp(ctx, db, cfg)
	if err != nil {
		return err
	}
	defer app.Close()
	if f.Demo {
		if err := app.addDemoAccounts(ctx); err != nil {
			return err
		}
	}
	if *issuer != "" {
		base := "http://" + serve.Reachable(listener.Addr()) // what is registered with the provider
		if err := app.addProviders(ctx, db, oidc.Provider{
			Name: "provider", Issuer: *issuer, ClientID: *clientID, ClientSecret: strategy.NewSecret(os.Getenv("OIDC_CLIENT_SECRET")), Scopes: []string{"email", "profile"},
			RedirectURL: base + "/auth/provider/callback", AssociateURL: base + "/auth/associate/provider/callback",
		}); err != nil {
			return err
		}
	}
	handler, err := app.handler()
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "open http://%s in a browser\n", serve.Reachable(listener.Addr()))
	if f.Demo {
		fmt.Fprintf(stdout, "Accounts, all with the password %q:\n", demoPassword)
		for _, demo := range demoAccounts {
			fmt.Fprintf(stdout, "  %s\n", demo.Email)
		}
	} else {
		fmt.Fprintln(stdout, "Sign in with an account of that database, or add demo accounts with -demo-accounts.")
	}
	return serve.Until(ctx, listener, handler)
}
