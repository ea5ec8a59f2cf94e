// Package kit tests latchkeytest with goleak, which the library's own module does not have.
package kit

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/latchkeytest"
	"github.com/latchkey-go/latchkey/strategy"
)

type member struct {
	account.User[uuid.UUID] `bson:",inline"`
}

// A test with a cache, messages, a server and a client leaves no goroutine.
func TestKitLeavesNoGoroutine(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("test", func(t *testing.T) { // the kit ends with it
		gin.SetMode(gin.TestMode)
		kit := latchkeytest.New[member](t, uuid.New, latchkey.Config{Cache: strategy.Cache{MaxStaleness: 30 * time.Second}})
		r := gin.New()
		kit.Auth.ResetPasswordRoutes(r)
		r.GET("/", kit.Auth.RequireUser(), func(c *gin.Context) { c.Status(http.StatusNoContent) })
		srv := httptest.NewTLSServer(r)
		defer srv.Close()
		ann := kit.NewUser(t, member{})
		client := kit.As(t, ann).Client(srv)
		for range 3 {
			resp, err := client.Get(srv.URL)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusNoContent {
				t.Errorf("got %d, want 204", resp.StatusCode)
			}
		}
		resp, err := client.Post(srv.URL+"/forgot-password", "application/json", strings.NewReader(`{"email":"`+ann.Email+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		// The message may still be queued: the end of the kit waits for it.
	})
}
