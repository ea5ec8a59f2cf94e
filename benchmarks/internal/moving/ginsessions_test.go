package moving

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/cookie"
	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/latchkeytest"
)

func ginSessionsBefore(r *gin.Engine, store sessions.Store, notes gin.HandlerFunc) {
	r.Use(sessions.Sessions("session", store))
	r.POST("/login", func(c *gin.Context) {
		session := sessions.Default(c)
		session.Set("user", c.PostForm("user")) // after a check of the password
		if err := session.Save(); err != nil {
			c.AbortWithStatus(http.StatusInternalServerError)
			return
		}
		c.Status(http.StatusNoContent)
	})
	r.GET("/notes", func(c *gin.Context) {
		if sessions.Default(c).Get("user") == nil {
			c.AbortWithStatus(http.StatusUnauthorized)
		}
	}, notes)
}

func ginSessionsAfter(r *gin.Engine, store sessions.Store, lk *Latchkey, notes gin.HandlerFunc) {
	lk.Web.Routes(r.Group("/auth")) // POST /auth/login, POST /auth/logout …
	read := func(c *gin.Context) (uuid.UUID, bool) {
		id, err := uuid.Parse(fmt.Sprint(sessions.Default(c).Get("user")))
		return id, err == nil
	}
	end := func(c *gin.Context) {
		session := sessions.Default(c)
		session.Clear()
		session.Options(sessions.Options{Path: "/", MaxAge: -1})
		_ = session.Save()
	}
	old := sessions.Sessions("session", store)
	// At the end of the move: r.GET("/notes", lk.Web.RequireUser(), notes)
	r.GET("/notes", lk.Web.OptionalUser(), old, afterLatchkey(lk, read, end), notes)
}

func TestFromGinSessions(t *testing.T) {
	kit := latchkeytest.New[Member](t, uuid.New, latchkey.Config{})
	store := cookie.NewStore([]byte("a key of the application, 32 bytes"))
	before, after := gin.New(), gin.New()
	ginSessionsBefore(before, store, func(*gin.Context) {})
	ginSessionsAfter(after, store, kit.Latchkey, notes(kit.Latchkey))
	after.GET("/fresh", kit.Web.RequireUser(ginauth.Fresh(1e18)), func(*gin.Context) {})
	cookieMoves(t, kit, before, after, 200) // the data are in the cookie: nothing can end it
}
