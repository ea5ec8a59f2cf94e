// Package latchkey gives Gin applications login, logout and route guards, with
// opaque access tokens that live in the application's own MongoDB. A token can be
// revoked at once and expires to the millisecond. The database holds only its digest.
//
// # A complete program
//
// An application's user is a struct that embeds an account:
//
//	type Member struct {
//		account.User[uuid.UUID] `bson:",inline"`
//		Name                    string `bson:"name" json:"name"`
//	}
//
// [New] builds everything on one database. [Latchkey.EnsureIndexes] makes the indexes
// that are missing, and [Latchkey.Close] ends what New started:
//
//	lk, err := latchkey.New[Member](db, uuid.New, latchkey.Config{Lifetime: 12 * time.Hour})
//	if err != nil {
//		log.Fatal(err)
//	}
//	defer lk.Close()
//	if err := lk.EnsureIndexes(ctx); err != nil {
//		log.Fatal(err)
//	}
//
// Routes and guards go onto a Gin router:
//
//	r := gin.New()
//	r.Use(gin.Logger(), ginauth.Recovery(nil))
//	if err := r.SetTrustedProxies(nil); err != nil { // nil, or the addresses of your proxy
//		log.Fatal(err)
//	}
//	lk.Auth.Routes(r.Group("/auth")) // POST /auth/login answers with a token in JSON
//	lk.Web.Routes(r.Group("/web"))   // POST /web/login sets a cookie
//	r.GET("/me", lk.Auth.RequireUser(), func(c *gin.Context) {
//		member, _ := lk.Auth.CurrentUser(c)
//		c.JSON(http.StatusOK, member)
//	})
//
// Accounts are made and changed through [Latchkey.Accounts]:
//
//	member, err := lk.Accounts.Register(ctx, Member{User: account.User[uuid.UUID]{Email: "ann@example.com"}, Name: "Ann"}, password)
//
// # Where to go next
//
//   - Guards, transports and routes: package ginauth.
//   - Sessions, tokens with scopes, idle timeouts, the cache: package strategy.
//   - Accounts, passwords and login limits: package account.
//   - Collections and indexes: package mongostore.
//   - Logs and metrics: package event, contrib/expvarmetrics, contrib/prommetrics,
//     contrib/otel.
//   - Messages through SMTP: contrib/smtpmailer.
//   - Login through Google, GitHub and other identity providers: contrib/oidc.
//   - Tests without a database: package memstore. A store of your own: storetest.
//
// New only connects these packages. An application that needs another combination,
// for example accounts in another database, calls their constructors itself.
package latchkey
