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

// RegisterRoutes adds the route by which users sign up:
//
//	POST register   email, password and the fields of Hooks.Register
//
// It needs [WithAccounts].
func (a *Auth[U]) RegisterRoutes(r gin.IRouter) {
	r.POST("/register", noCache, a.checkProxy, a.handleAccounts(a.handleRegister))
}

// VerifyRoutes adds the routes by which users prove that an e-mail address is theirs, that of
// a new account or a new one:
//
//	POST request-verify-token   email
//	POST verify                 token
//
// They need [WithAccounts] and a Mailer. The link in a message should open a page of the
// application with a button that posts the token: programs follow links in mails.
func (a *Auth[U]) VerifyRoutes(r gin.IRouter) {
	r.POST("/request-verify-token", noCache, a.checkProxy, a.handleAccounts(a.handleRequestVerification))
	r.POST("/verify", noCache, a.handleAccounts(a.handleVerify))
}

// ResetPasswordRoutes adds the routes by which users who forgot their password set a new one:
//
//	POST forgot-password   email
//	POST reset-password    token, password
//
// They need [WithAccounts] and a Mailer.
func (a *Auth[U]) ResetPasswordRoutes(r gin.IRouter) {
	r.POST("/forgot-password", noCache, a.checkProxy, a.handleAccounts(a.handleRequestReset))
	r.POST("/reset-password", noCache, a.handleAccounts(a.handleResetPassword))
}

// UserRoutes adds the routes by which users see and change their account, and superusers all
// accounts:
//
//	GET    me       the user
//	PATCH  me       password and email with a fresh login or current_password, and the fields of Hooks.Patch
//	DELETE me       with a fresh login
//	GET    ""       for superusers: a page of the users, by ?email=, ?limit= and ?after=
//	GET    {id}     for superusers
//	PATCH  {id}     for superusers: flags, email, password, and the fields of Hooks.Patch
//	DELETE {id}     for superusers
//
// They need [WithAccounts]. A new password ends all sessions except the one that set it, which
// gets a new token: in its cookie, or as access_token in the answer. A new address has to be
// proved first, see [Auth.VerifyRoutes]; until then it is the answer's pending_email.
func (a *Auth[U]) UserRoutes(r gin.IRouter) {
	checks := []Check{}
	if a.cfg.RequireVerified {
		checks = append(checks, Verified)
	}
	user, superuser := a.RequireUser(checks...), a.RequireUser(append(checks, Superuser)...)
	fresh := a.RequireUser(append(checks, Fresh(a.cfg.Accounts.MaxAge))...)
	r.GET("/me", noCache, user, a.handleAccounts(a.handleMe))
	r.PATCH("/me", noCache, user, a.handleAccounts(a.handlePatchMe))
	r.DELETE("/me", noCache, fresh, a.handleAccounts(a.handleDeleteMe))
	r.GET("", noCache, superuser, a.handleAccounts(a.handleUsers))
	r.GET("/:id", noCache, superuser, a.handleAccounts(a.handleUser))
	r.PATCH("/:id", noCache, superuser, a.handleAccounts(a.handlePatchUser))
	r.DELETE("/:id", noCache, superuser, a.handleAccounts(a.handleDeleteUser))
}

// APITokenRoutes adds the routes by which users manage the tokens of their scripts:
//
//	POST   ""     name, scopes, expires_in (seconds): 201 with the token, which is shown once; with a fresh login
//	GET    ""     a page of the user's tokens, by ?limit= and ?after=
//	PATCH  {id}   name
//	DELETE {id}
//
// Only logins can use them, not the tokens themselves. A login is fresh for
// Config.Accounts.MaxAge. Without [Auth.WithAPITokens], APITokenRoutes adds nothing.
func (a *Auth[U]) APITokenRoutes(r gin.IRouter) {
	if a.api == nil {
		return
	}
	guard := a.RequireUser() // rejects scoped tokens
	r.POST("", noCache, a.RequireUser(Fresh(a.cfg.Accounts.MaxAge)), a.handle(a.handleCreateAPIToken))
	r.GET("", noCache, guard, a.handle(a.handleAPITokens))
	r.PATCH("/:id", noCache, guard, a.handle(a.handleRenameAPIToken))
	r.DELETE("/:id", noCache, guard, a.handle(a.handleRevokeAPIToken))
}

// noStore keeps an answer out of every cache (RFC 6749 §5.1).
func noStore(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
}
