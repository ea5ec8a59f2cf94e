package moving

import (
	"net/http"
	"testing"

	"github.com/alexedwards/scs/v2"
	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/latchkeytest"
)

func scsBefore(r *gin.Engine, sessions *scs.SessionManager, notes gin.HandlerFunc) http.Handler {
	r.POST("/login", func(c *gin.Context) {
		if err := sessions.RenewToken(c.Request.Context()); err != nil {
			c.AbortWithStatus(http.StatusInternalServerError)
			return
		}
		sessions.Put(c.Request.Context(), "user", c.PostForm("user")) // after a check of the password
		c.Status(http.StatusNoContent)
		c.Writer.WriteHeaderNow()
	})
	r.GET("/notes", func(c *gin.Context) {
		if !sessions.Exists(c.Request.Context(), "user") {
			c.AbortWithStatus(http.StatusUnauthorized)
		}
	}, notes)
	return sessions.LoadAndSave(r)
}

func scsAfter(r *gin.Engine, sessions *scs.SessionManager, lk *Latchkey, notes gin.HandlerFunc) http.Handler {
	lk.Web.Routes(r.Group("/auth")) // POST /auth/login, POST /auth/logout …
	read := func(c *gin.Context) (uuid.UUID, bool) {
		id, err := uuid.Parse(sessions.GetString(c.Request.Context(), "user"))
		return id, err == nil
	}
	end := func(c *gin.Context) { _ = sessions.Destroy(c.Request.Context()) }
	// At the end of the move: r.GET("/notes", lk.Web.RequireUser(), notes), and return r
	r.GET("/notes", lk.Web.OptionalUser(), afterLatchkey(lk, read, end), notes)
	return sessions.LoadAndSave(r)
}

func TestFromSCS(t *testing.T) {
	kit := latchkeytest.New[Member](t, uuid.New, latchkey.Config{})
	sessions := scs.New()
	before := scsBefore(gin.New(), sessions, func(*gin.Context) {})
	r := gin.New()
	after := scsAfter(r, sessions, kit.Latchkey, notes(kit.Latchkey))
	r.GET("/fresh", kit.Web.RequireUser(ginauth.Fresh(1e18)), func(*gin.Context) {})
	cookieMoves(t, kit, before, after, 401)
}
