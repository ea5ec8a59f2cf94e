package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/strategy"
)

// console is an account.Mailer that prints mails instead of sending them. A real website sends
// them, for example with contrib/smtpmailer.
type console struct {
	out  io.Writer
	base string // of the website, such as "https://www.example.com"
}

// Send implements account.Mailer.
func (m console) Send(_ context.Context, msg account.Message) error {
	_, err := fmt.Fprintf(m.out, "\nmail to %s: %s\n%s\n", msg.To, msg.Kind, mailText(m.base, msg))
	return err
}

// mailText returns the words of a mail. Its link leads to a page with a button.
func mailText(base string, msg account.Message) string {
	query := "?token=" + url.QueryEscape(msg.Token.Reveal())
	switch msg.Kind {
	case account.MessageVerification, account.MessageEmailChange:
		return "Please confirm this address: " + base + "/verify" + query
	case account.MessagePasswordReset:
		return "Set a new password: " + base + "/reset" + query
	case account.MessageEmailChanging:
		return "Somebody who is signed in to your account asked to change its address. If it was not you, set a new password: " + base + "/forgot"
	case account.MessageEmailTaken:
		return "You have an account already. If you forgot the password: " + base + "/forgot"
	case account.MessagePasswordChanged:
		return "Your account has a new password. If it was not you, set another one: " + base + "/forgot"
	case account.MessageEmailChanged:
		return "Your account has another email address now. If it was not you, please contact us."
	}
	return "Something about your account has changed."
}

// requestContext knows the client IP, by which requests for mails and accounts are limited.
func requestContext(c *gin.Context) context.Context {
	return event.ContextWithClientIP(c.Request.Context(), c.ClientIP())
}

// formError returns the status and the text for what Accounts refuses.
func formError(c *gin.Context, err error) (int, string) {
	switch {
	case errors.Is(err, account.ErrInvalidEmail):
		return http.StatusBadRequest, "This is not an email address."
	case errors.Is(err, account.ErrEmailTaken):
		return http.StatusBadRequest, "This address cannot be used."
	case errors.Is(err, account.ErrInvalidPassword):
		return http.StatusBadRequest, "The password must have at least 8 characters."
	}
	return passwordError(c, err, "")
}

// rejectForm shows a form again, with what Accounts refuses.
func (a *app) rejectForm(c *gin.Context, template string, v view, err error) {
	var status int
	status, v.Error = formError(c, err)
	a.page(c, status, template, v)
}

// validName returns a name without spaces around it, and what is wrong with it.
func validName(name string) (string, string) {
	name = strings.TrimSpace(name)
	if name == "" || utf8.RuneCountInString(name) > 100 {
		return name, "Please enter a name of at most 100 characters."
	}
	return name, ""
}

func (a *app) showSignUp(c *gin.Context) {
	a.page(c, http.StatusOK, "signup.html", view{Title: "Create an account"})
}

// signUp tells nobody who has an account: the rest is in the mail.
func (a *app) signUp(c *gin.Context) {
	v := view{Title: "Create an account", Email: c.PostForm("email")}
	if v.Name, v.Error = validName(c.PostForm("name")); v.Error != "" {
		a.page(c, http.StatusBadRequest, "signup.html", v)
		return
	}
	member := Member{User: account.User[uuid.UUID]{Email: v.Email}, Name: v.Name}
	if err := a.Accounts.RequestRegistration(requestContext(c), member, c.PostForm("password")); err != nil {
		a.rejectForm(c, "signup.html", v, err)
		return
	}
	c.Redirect(http.StatusSeeOther, "/?done=signup")
}

func (a *app) showVerify(c *gin.Context) {
	a.page(c, http.StatusOK, "verify.html", view{Title: "Confirm your address", Token: c.Query("token")})
}

func (a *app) verify(c *gin.Context) {
	_, err := a.Accounts.Verify(requestContext(c), c.PostForm("token"))
	switch {
	case err == nil, errors.Is(err, account.ErrAlreadyVerified):
		c.Redirect(http.StatusSeeOther, "/login?done=verified")
	case errors.Is(err, account.ErrBadOneTimeToken):
		a.problem(c, http.StatusBadRequest, "The link is out of date", "It was used already, or it is too old. Sign in and ask for another message on your account's page.")
	case errors.Is(err, account.ErrEmailTaken):
		a.problem(c, http.StatusBadRequest, "The address cannot be used", "Another account has this address by now.")
	default:
		a.unavailable(c)
	}
}

func (a *app) showForgot(c *gin.Context) {
	a.page(c, http.StatusOK, "forgot.html", view{Title: "Forgotten password"})
}

func (a *app) forgot(c *gin.Context) {
	v := view{Title: "Forgotten password", Email: c.PostForm("email")}
	if err := a.Accounts.RequestPasswordReset(requestContext(c), v.Email); err != nil {
		a.rejectForm(c, "forgot.html", v, err)
		return
	}
	c.Redirect(http.StatusSeeOther, "/login?done=forgot")
}

func (a *app) showReset(c *gin.Context) {
	a.page(c, http.StatusOK, "reset.html", view{Title: "Set a new password", Token: c.Query("token")})
}

func (a *app) reset(c *gin.Context) {
	v := view{Title: "Set a new password", Token: c.PostForm("token")}
	_, err := a.Accounts.ResetPassword(requestContext(c), v.Token, c.PostForm("password"))
	switch {
	case err == nil:
		c.Redirect(http.StatusSeeOther, "/login?done=reset")
	case errors.Is(err, account.ErrBadOneTimeToken):
		a.problem(c, http.StatusBadRequest, "The link is out of date", "It was used already, or it is too old. Ask for another message on the page for a forgotten password.")
	default:
		a.rejectForm(c, "reset.html", v, err)
	}
}

func (a *app) showAccount(c *gin.Context) {
	user, _ := a.Web.CurrentUser(c)
	a.page(c, http.StatusOK, "account.html", view{Title: "Your account", Name: user.Name})
}

func (a *app) changeName(c *gin.Context) {
	v := view{Title: "Your account"}
	if v.Name, v.Error = validName(c.PostForm("name")); v.Error != "" {
		a.page(c, http.StatusBadRequest, "account.html", v)
		return
	}
	user, _ := a.Web.CurrentUser(c)
	_, err := a.Accounts.Edit(c.Request.Context(), user.ID, func(m *Member) error { m.Name = v.Name; return nil })
	if err != nil {
		a.unavailable(c)
		return
	}
	c.Redirect(http.StatusSeeOther, "/account?done=name")
}

func (a *app) sendVerification(c *gin.Context) {
	user, _ := a.Web.CurrentUser(c)
	if err := a.Accounts.RequestVerification(requestContext(c), user.Email); err != nil {
		a.unavailable(c)
		return
	}
	c.Redirect(http.StatusSeeOther, "/account?done=sent")
}

func (a *app) showEmail(c *gin.Context) {
	a.page(c, http.StatusOK, "email.html", view{Title: "Change your address"})
}

func (a *app) changeEmail(c *gin.Context) {
	v := view{Title: "Change your address", Email: c.PostForm("email")}
	user, _ := a.Web.CurrentUser(c)
	if err := a.Accounts.RequestEmailChange(requestContext(c), user, v.Email); err != nil {
		a.rejectForm(c, "email.html", v, err)
		return
	}
	c.Redirect(http.StatusSeeOther, "/account?done=email")
}

func (a *app) showDelete(c *gin.Context) {
	a.page(c, http.StatusOK, "delete.html", view{Title: "Delete your account"})
}

func (a *app) deleteAccount(c *gin.Context) {
	if c.PostForm("sure") == "" {
		a.page(c, http.StatusBadRequest, "delete.html", view{Title: "Delete your account", Error: "Please tick the box if you are sure."})
		return
	}
	user, _ := a.Web.CurrentUser(c)
	if err := a.Accounts.Delete(context.WithoutCancel(c.Request.Context()), user.ID); err != nil && !errors.Is(err, account.ErrUserNotFound) {
		a.unavailable(c)
		return
	}
	_ = a.Web.Logout(c) // clears the cookie: the session has ended already
	c.Redirect(http.StatusSeeOther, "/?done=deleted")
}

func (a *app) listTokens(c *gin.Context) { a.tokens(c, http.StatusOK, view{}) }

// tokens renders the page of API tokens.
func (a *app) tokens(c *gin.Context, status int, v view) {
	user, _ := a.Web.CurrentUser(c)
	found, err := a.APITokens.Sessions(c.Request.Context(), user.ID, strategy.Page{Limit: 50})
	if err != nil {
		a.unavailable(c)
		return
	}
	v.Title, v.Tokens = "Your API tokens", found.Sessions
	a.page(c, status, "tokens.html", v)
}

// createToken shows the new token once: it is not stored.
func (a *app) createToken(c *gin.Context) {
	var v view
	if v.Name, v.Error = validName(c.PostForm("name")); v.Error != "" {
		a.tokens(c, http.StatusBadRequest, v)
		return
	}
	user, _ := a.Web.CurrentUser(c)
	secret, _, err := a.APITokens.WriteToken(c.Request.Context(), user, strategy.WithName(v.Name), strategy.WithScopes(scopeRead))
	if err != nil {
		a.unavailable(c)
		return
	}
	a.tokens(c, http.StatusOK, view{Token: secret.Reveal()})
}

func (a *app) revokeToken(c *gin.Context) {
	user, _ := a.Web.CurrentUser(c)
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		a.notFound(c)
		return
	}
	err = a.APITokens.DestroySession(context.WithoutCancel(c.Request.Context()), user.ID, id)
	if err != nil && !errors.Is(err, strategy.ErrSessionNotFound) { // an unknown token has been revoked already
		a.unavailable(c)
		return
	}
	c.Redirect(http.StatusSeeOther, "/tokens?done=revoked")
}

func (a *app) accountJSON(c *gin.Context) {
	user, _ := a.Web.CurrentUser(c)
	c.JSON(http.StatusOK, gin.H{"email": user.Email, "name": user.Name})
}
