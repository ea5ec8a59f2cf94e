package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"github.com/mileusna/useragent"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/contrib/oidc"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/strategy"
)

// view is the data of a template.
type view struct {
	Title  string
	User   *Member // nil for a visitor
	Notice string  // confirms the last action
	Error  string  // what is wrong with the form or the request

	Providers []oidc.Provider // at which users can sign in
	Links     []oidc.Link     // of the account

	// For forms.
	Next, Email string
	Remember    bool

	Name, Token string // Token is a one-time token, or a new API token

	// For the page of API tokens.
	Tokens []strategy.SessionInfo

	// For the sessions page.
	Sessions []sessionItem
	After    string // the cursor of this page; empty on the first
	Older    string // the cursor of the next page; empty on the last
}

type sessionItem struct {
	strategy.SessionInfo
	Current bool
}

// notices are the texts of view.Notice. A redirect names one by its key: a link must not be
// able to show any other text on a page.
var notices = map[string]string{
	"password": "Your password was changed, and all other sessions were ended.",
	"ended":    "The session was ended.",
	"out":      "You are signed out.",
	"all":      "You are signed out everywhere.",
	"signup":   "Please check your mail: we have sent you a message.",
	"verified": "Your email address is confirmed.",
	"forgot":   "If the address has an account, we have sent a message to it. Please check your mail.",
	"reset":    "Your password was changed. Please sign in with the new one.",
	"name":     "Your name was changed.",
	"sent":     "We have sent you a message. Please check your mail.",
	"email":    "We have sent a message to the new address. It changes when you confirm it there.",
	"deleted":  "Your account was deleted.",
	"revoked":  "The token was revoked.",
	"unlinked": "You cannot sign in with that account any more.",
	"exists":   "An account has that email address already. Sign in to it, and link it on your account's page.",
	"provider": "Signing in with that account did not work. Please try again.",
}

// page renders a page.
func (a *app) page(c *gin.Context, status int, template string, v view) {
	if user, ok := a.Web.CurrentUser(c); ok {
		v.User = &user
	}
	v.Notice, v.Providers = notices[c.Query("done")], a.providers
	c.HTML(status, template, v)
}

// problem renders a page with an error.
func (a *app) problem(c *gin.Context, status int, title, text string) {
	a.page(c, status, "problem.html", view{Title: title, Error: text})
}

func (a *app) notFound(c *gin.Context) {
	a.problem(c, http.StatusNotFound, "Page not found", "This page does not exist.")
}

// unavailable answers after a database failure, which never signs a user out.
func (a *app) unavailable(c *gin.Context) {
	c.Header("Retry-After", "1")
	a.problem(c, http.StatusServiceUnavailable, "Temporarily unavailable", "Something went wrong on our side. Please try again in a moment.")
}

func (a *app) crossOrigin(c *gin.Context) {
	a.problem(c, http.StatusForbidden, "Request blocked", "This form was sent from another website. Nothing was changed.")
}

var crossOriginProtection = http.NewCrossOriginProtection()

// sameOrigin rejects forms that another website sends. The guards of Latchkey do so only for
// requests with a session.
func (a *app) sameOrigin(c *gin.Context) {
	if crossOriginProtection.Check(c.Request) != nil {
		a.crossOrigin(c)
		c.Abort()
	}
}

// onRefusal redirects to the login page, or to the page that asks for the password again. Both
// lead back to the requested page.
func onRefusal(c *gin.Context, refusal *ginauth.Refusal) {
	to := "/login"
	switch {
	case refusal.Status == http.StatusBadRequest && strings.HasPrefix(c.FullPath(), "/auth/"):
		to += "?done=provider"
		if refusal.Code == oidc.CodeUserExists {
			to = "/login?done=exists"
		}
	case refusal.Status != http.StatusUnauthorized, strings.HasPrefix(c.FullPath(), "/api/"): // scripts follow no redirect to a page
		refusal.WriteJSON(c.Writer)
		return
	case errors.Is(refusal, ginauth.ErrNotFresh):
		// The form and its target have the same path, so a POST leads back to the form.
		to = "/confirm?next=" + url.QueryEscape(c.Request.URL.RequestURI())
	case c.Request.Method == http.MethodGet || c.Request.Method == http.MethodHead:
		to += "?next=" + url.QueryEscape(c.Request.URL.RequestURI())
	}
	c.Redirect(http.StatusSeeOther, to)
}

// localPath returns next if it is a path on this site, else the members' page. next comes
// from the URL and must not redirect to another site.
func localPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") ||
		// Browsers read a backslash as a slash and drop control characters.
		strings.ContainsFunc(next, func(r rune) bool { return r <= ' ' || r == '\\' || r == 0x7f }) {
		return "/members"
	}
	return next
}

// passwordError returns the status and the text for a rejected password.
func passwordError(c *gin.Context, err error, wrong string) (int, string) {
	var tooMany *account.TooManyAttemptsError
	switch {
	case errors.As(err, &tooMany):
		wait := max(1, (tooMany.RetryAfter+time.Second-1)/time.Second)
		c.Header("Retry-After", strconv.Itoa(int(wait)))
		return http.StatusTooManyRequests, "Too many attempts. Please try again in " + inWords(wait*time.Second) + "."
	case errors.Is(err, account.ErrBadCredentials):
		return http.StatusBadRequest, wrong
	}
	c.Header("Retry-After", "1")
	return http.StatusServiceUnavailable, "Passwords cannot be checked right now. Please try again in a moment."
}

// inWords formats a waiting time, rounded up.
func inWords(d time.Duration) string {
	switch {
	case d <= 10*time.Second:
		return "a few seconds"
	case d <= time.Minute:
		return fmt.Sprintf("%d seconds", d/time.Second)
	}
	return fmt.Sprintf("%d minutes", (d+time.Minute-1)/time.Minute)
}

// formatTime formats a time for pages.
func formatTime(t time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04 UTC") }

func (a *app) home(c *gin.Context) {
	a.page(c, http.StatusOK, "home.html", view{Title: "Welcome"})
}

func (a *app) members(c *gin.Context) {
	a.page(c, http.StatusOK, "members.html", view{Title: "Members"})
}

func (a *app) showLogin(c *gin.Context) {
	a.page(c, http.StatusOK, "login.html", view{Title: "Sign in", Next: c.Query("next")})
}

func (a *app) login(c *gin.Context) {
	v := view{Title: "Sign in", Next: c.PostForm("next"), Email: c.PostForm("email"), Remember: c.PostForm("remember") != ""}
	_, err := a.Web.LoginWithPassword(c, v.Email, c.PostForm("password"), v.Remember)
	switch {
	case errors.Is(err, ginauth.ErrCrossOrigin):
		a.crossOrigin(c)
	case err != nil:
		var status int
		status, v.Error = passwordError(c, err, "The email address or password is incorrect.")
		a.page(c, status, "login.html", v)
	default:
		c.Redirect(http.StatusSeeOther, localPath(v.Next))
	}
}

func (a *app) logout(c *gin.Context) {
	err := a.Web.Logout(c)
	switch {
	case errors.Is(err, ginauth.ErrCrossOrigin):
		a.crossOrigin(c)
	case err == nil, errors.Is(err, ginauth.ErrNoCredentials), errors.Is(err, strategy.ErrInvalidToken):
		c.Redirect(http.StatusSeeOther, "/?done=out")
	default:
		a.unavailable(c)
	}
}

func (a *app) logoutAll(c *gin.Context) {
	user, _ := a.Web.CurrentUser(c)
	// It completes even if the browser disconnects. The store has a timeout.
	ctx := context.WithoutCancel(c.Request.Context())
	// This also invalidates the tokens of logins in flight.
	if err := a.Accounts.RevokeTokens(ctx, user.ID); err != nil {
		a.unavailable(c)
		return
	}
	// The token is invalid already; this clears the cookie.
	_ = a.Web.Logout(c)
	c.Redirect(http.StatusSeeOther, "/?done=all")
}

func (a *app) listSessions(c *gin.Context) {
	session, _ := a.Web.CurrentSession(c)
	v := view{Title: "Your sessions", After: c.Query("after")}
	found, err := a.Sessions.Sessions(c.Request.Context(), session.User.ID, strategy.Page{Limit: 10, After: v.After})
	switch {
	case errors.Is(err, strategy.ErrInvalidCursor):
		a.notFound(c)
		return
	case err != nil:
		a.unavailable(c)
		return
	}
	for _, s := range found.Sessions {
		v.Sessions = append(v.Sessions, sessionItem{s, s.ID == session.ID})
	}
	v.Older = found.Next
	a.page(c, http.StatusOK, "sessions.html", v)
}

func (a *app) endSession(c *gin.Context) {
	user, _ := a.Web.CurrentUser(c)
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		a.notFound(c)
		return
	}
	// An unknown session has been ended already.
	err = a.Sessions.DestroySession(context.WithoutCancel(c.Request.Context()), user.ID, id)
	if err != nil && !errors.Is(err, strategy.ErrSessionNotFound) {
		a.unavailable(c)
		return
	}
	c.Redirect(http.StatusSeeOther, "/sessions?done=ended")
}

func (a *app) showConfirm(c *gin.Context) {
	a.page(c, http.StatusOK, "confirm.html", view{Title: "Confirm your password", Next: c.Query("next")})
}

func (a *app) confirm(c *gin.Context) {
	v := view{Title: "Confirm your password", Next: c.PostForm("next")}
	_, err := a.Web.Reauthenticate(c, c.PostForm("password"))
	switch {
	case errors.Is(err, strategy.ErrInvalidToken): // the session has ended meanwhile
		c.Redirect(http.StatusSeeOther, "/login")
	case err != nil:
		var status int
		status, v.Error = passwordError(c, err, "The password is incorrect.")
		a.page(c, status, "confirm.html", v)
	default:
		c.Redirect(http.StatusSeeOther, localPath(v.Next))
	}
}

func (a *app) showPassword(c *gin.Context) {
	a.page(c, http.StatusOK, "password.html", view{Title: "Change your password"})
}

func (a *app) changePassword(c *gin.Context) {
	reject := func(status int, text string) {
		a.page(c, status, "password.html", view{Title: "Change your password", Error: text})
	}
	if c.PostForm("new") != c.PostForm("repeat") {
		reject(http.StatusBadRequest, "The new passwords do not match.")
		return
	}
	user, _ := a.Web.CurrentUser(c)
	changed, err := a.Accounts.ChangePassword(c.Request.Context(), user.ID, c.PostForm("current"), c.PostForm("new"))
	switch {
	case errors.Is(err, account.ErrInvalidPassword):
		reject(http.StatusBadRequest, "The new password must have at least 8 characters.")
		return
	case errors.Is(err, account.ErrConflict):
		reject(http.StatusConflict, "Your password was just changed in another session.")
		return
	case err != nil:
		reject(passwordError(c, err, "The current password is incorrect."))
		return
	}
	// The change has invalidated every token of the user. This session gets a new one.
	if _, err := a.Web.Renew(c, changed); err != nil {
		a.unavailable(c)
		return
	}
	c.Redirect(http.StatusSeeOther, "/members?done=password")
}

// browserName returns the browser and the system of a User-Agent header, such as "Chrome on
// Linux".
func browserName(userAgent string) string {
	agent := useragent.Parse(userAgent)
	switch {
	case agent.Name == "":
		return "Unknown browser"
	case agent.OS == "":
		return agent.Name
	}
	return agent.Name + " on " + agent.OS
}
