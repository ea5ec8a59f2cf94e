package latchkeytest_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/strategy"
)

func init() { gin.SetMode(gin.TestMode) }

// Member is the user type of an application.
type Member struct {
	account.User[uuid.UUID] `bson:",inline"`
	Name                    string `bson:"name" json:"name"`
}

// Router is what an application tests: it takes what latchkey.New returns.
func Router(lk *latchkey.Latchkey[Member, uuid.UUID]) http.Handler {
	r := gin.New()
	lk.Auth.Routes(r.Group("/auth"))
	lk.Web.Routes(r.Group("/web"))
	accounts := lk.Auth.WithHooks(ginauth.Hooks[Member]{
		Register: func(_ context.Context, m *Member, body *ginauth.Body) error {
			body.Require("name", &m.Name)
			return nil
		},
	})
	accounts.RegisterRoutes(r.Group("/auth"))
	accounts.VerifyRoutes(r.Group("/auth"))
	accounts.ResetPasswordRoutes(r.Group("/auth"))
	accounts.UserRoutes(r.Group("/users"))
	hello := func(c *gin.Context) {
		m, ok := lk.Auth.CurrentUser(c)
		if !ok {
			c.String(http.StatusOK, "hello, visitor")
			return
		}
		c.String(http.StatusOK, "hello, "+m.Name)
	}
	r.GET("/", lk.Auth.OptionalUser(), hello)
	r.GET("/hello", lk.Auth.RequireUser(), hello)
	r.POST("/hello", lk.Auth.RequireUser(), hello)
	r.GET("/verified", lk.Auth.RequireUser(ginauth.Verified), hello)
	r.GET("/admin", lk.Auth.RequireUser(ginauth.Superuser), hello)
	r.GET("/fresh", lk.Auth.RequireUser(ginauth.Fresh(10*time.Minute)), hello)
	r.GET("/script", lk.Auth.RequireUser(ginauth.Scopes("hello:read")), hello)
	r.GET("/everything", lk.Auth.RequireUser(ginauth.Verified, ginauth.Superuser, ginauth.Fresh(0), ginauth.Scopes("hello:read"), lk.Auth.CheckUser(isNamed)), hello)
	return r
}

func isNamed(_ context.Context, s strategy.Session[Member]) (bool, error) {
	return s.User.Name != "" && s.UserID == any(s.User.ID), nil
}

// fake is the testing.TB of a test that can fail. Its failures end the goroutine, as a test's do.
type fake struct {
	testing.TB // nil: the kit uses no other method
	ctx        context.Context
	failed     bool
	log        strings.Builder
	cleanups   []func()
}

func (f *fake) Helper()                  {}
func (f *fake) Failed() bool             { return f.failed }
func (f *fake) Context() context.Context { return f.ctx }
func (f *fake) Cleanup(do func())        { f.cleanups = append(f.cleanups, do) }
func (f *fake) Logf(format string, args ...any) {
	fmt.Fprintf(&f.log, format+"\n", args...)
}
func (f *fake) Errorf(format string, args ...any) { f.failed = true; f.Logf(format, args...) }
func (f *fake) Fatalf(format string, args ...any) { f.Errorf(format, args...); runtime.Goexit() }
func (f *fake) Fatal(args ...any)                 { f.Fatalf("%s", fmt.Sprint(args...)) }

// run runs a test, and returns whether it failed and what it logged.
func run(test func(t testing.TB)) (failed bool, log string) {
	ctx, cancel := context.WithCancel(context.Background())
	f := &fake{ctx: ctx}
	done := make(chan struct{})
	go func() {
		defer close(done)
		test(f)
	}()
	<-done
	cancel()
	for i := range f.cleanups {
		f.cleanups[len(f.cleanups)-1-i]()
	}
	return f.failed, f.log.String()
}

// example runs the test of an example. In a test of yours, t is its *testing.T.
func example(test func(t testing.TB)) {
	if failed, log := run(test); failed {
		fmt.Println("the test failed:", log)
	}
}
