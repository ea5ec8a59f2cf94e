package ginauth

import (
	"net/http"

	"github.com/gin-gonic/gin"
)

// Routes adds the package's routes to a router, or to a group whose path is their
// prefix:
//
//	POST   login            if New was given an Authenticator
//	POST   logout
//	GET    sessions         a page of the user's sessions
//	DELETE sessions/{id}
//	POST   logout-all
//	POST   reauthenticate   if New was given an Authenticator
func (a *Auth[U]) Routes(r gin.IRouter) {
	guard := a.RequireUser() // rejects scoped tokens
	if a.login != nil {
		r.POST("/login", noCache, a.checkProxy, a.handle(a.handleLogin))
		r.POST("/reauthenticate", noCache, guard, a.handle(a.handleReauthenticate))
	}
	r.POST("/logout", noCache, a.handleLogout)
	r.GET("/sessions", noCache, guard, a.handle(a.handleSessions))
	r.DELETE("/sessions/:id", noCache, guard, a.handle(a.handleEndSession))
	r.POST("/logout-all", noCache, guard, a.handle(a.handleLogoutAll))
}

// noStore keeps an answer out of every cache (RFC 6749 §5.1).
func noStore(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
}
