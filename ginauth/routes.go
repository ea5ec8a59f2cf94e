package ginauth

import (
	"net/http"
	"slices"

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
	if a.login != nil {
		a.mount(r, http.MethodPost, "/login", a.loginOperation(), a.checkProxy, a.handle(a.handleLogin))
		a.mount(r, http.MethodPost, "/reauthenticate", a.reauthenticateOperation(), a.handle(a.handleReauthenticate))
	}
	a.mount(r, http.MethodPost, "/logout", a.logoutOperation(), a.handleLogout)
	a.mount(r, http.MethodGet, "/sessions", a.sessionsOperation(), a.handle(a.handleSessions))
	a.mount(r, http.MethodDelete, "/sessions/:id", a.endSessionOperation(), a.handle(a.handleEndSession))
	a.mount(r, http.MethodPost, "/logout-all", a.logoutAllOperation(), a.handle(a.handleLogoutAll))
}

// RegisterRoutes adds the route by which users sign up:
//
//	POST register   email, password and the fields of Hooks.Register
//
// It needs [WithAccounts].
func (a *Auth[U]) RegisterRoutes(r gin.IRouter) {
	a.mount(r, http.MethodPost, "/register", a.registerOperation(), a.checkProxy, a.handleAccounts(a.handleRegister))
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
	a.mount(r, http.MethodPost, "/request-verify-token", requestOperation("Ask for a message that verifies the address"), a.checkProxy, a.handleAccounts(a.handleRequestVerification))
	a.mount(r, http.MethodPost, "/verify", a.verifyOperation(), a.handleAccounts(a.handleVerify))
}

// ResetPasswordRoutes adds the routes by which users who forgot their password set a new one:
//
//	POST forgot-password   email
//	POST reset-password    token, password
//
// They need [WithAccounts] and a Mailer.
func (a *Auth[U]) ResetPasswordRoutes(r gin.IRouter) {
	a.mount(r, http.MethodPost, "/forgot-password", requestOperation("Ask for a message that resets the password"), a.checkProxy, a.handleAccounts(a.handleRequestReset))
	a.mount(r, http.MethodPost, "/reset-password", resetPasswordOperation(), a.handleAccounts(a.handleResetPassword))
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
	var user []Check
	if a.cfg.RequireVerified {
		user = append(user, Verified)
	}
	fresh, superuser := append(slices.Clone(user), Fresh(a.cfg.Accounts.MaxAge)), append(slices.Clone(user), Superuser)
	a.mount(r, http.MethodGet, "/me", a.meOperation(user), a.handleAccounts(a.handleMe))
	a.mount(r, http.MethodPatch, "/me", a.patchMeOperation(user), a.handleAccounts(a.handlePatchMe))
	a.mount(r, http.MethodDelete, "/me", a.deleteMeOperation(fresh), a.handleAccounts(a.handleDeleteMe))
	a.mount(r, http.MethodGet, "", a.usersOperation(superuser), a.handleAccounts(a.handleUsers))
	a.mount(r, http.MethodGet, "/:id", a.userOperation(superuser), a.handleAccounts(a.handleUser))
	a.mount(r, http.MethodPatch, "/:id", a.patchUserOperation(superuser), a.handleAccounts(a.handlePatchUser))
	a.mount(r, http.MethodDelete, "/:id", a.deleteUserOperation(superuser), a.handleAccounts(a.handleDeleteUser))
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
	a.mount(r, http.MethodPost, "", a.createAPITokenOperation(), a.handle(a.handleCreateAPIToken))
	a.mount(r, http.MethodGet, "", apiTokensOperation(), a.handle(a.handleAPITokens))
	a.mount(r, http.MethodPatch, "/:id", renameAPITokenOperation(), a.handle(a.handleRenameAPIToken))
	a.mount(r, http.MethodDelete, "/:id", revokeAPITokenOperation(), a.handle(a.handleRevokeAPIToken))
}

// mount adds a route with its description, which [Auth.OpenAPI] returns. It puts the route
// behind the guard that the description asks for. A guard without [Scopes] rejects scoped tokens.
func (a *Auth[U]) mount(r gin.IRouter, method, path string, op *operation, handlers ...gin.HandlerFunc) {
	before := []gin.HandlerFunc{noCache}
	if op.guarded {
		before = append(before, a.RequireUser(op.checks...))
	}
	if op.secured {
		op.refusesTokens(a.cfg, method)
	}
	r.Handle(method, path, append(before, handlers...)...)
	a.cfg.mounted.add(route{method, fullPath(r, path), op})
}

// noStore keeps an answer out of every cache (RFC 6749 §5.1).
func noStore(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
}
