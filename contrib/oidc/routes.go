package oidc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/strategy"
)

// Routes adds the routes of logins to a router, for each provider:
//
//	GET {provider}/authorize   200 {"authorization_url"} and the state cookie; ?scopes=, ?fresh=true
//	GET {provider}/callback    as a login
//
// With authorize?redirect_to=PATH, for a link on a page, authorize redirects to the provider and the
// callback to the path, which must be in Config.RedirectPaths. Pages of other sites cannot begin a
// login so.
//
// ?fresh=true asks a provider of OpenID Connect to authenticate the user again, for routes behind
// ginauth.Fresh. A login counts from when the provider authenticated the user, if the provider
// tells (auth_time).
func (o *Logins[U, ID]) Routes(r gin.IRouter) {
	for _, p := range o.providers {
		g := r.Group("/"+p.Name, private)
		o.mounted.mount(g, "/authorize", o.authorize(login), func(c *gin.Context) { o.handleAuthorize(c, p, login) })
		o.mounted.mount(g, "/callback", o.callback(login), func(c *gin.Context) { o.handleCallback(c, p, login) })
	}
}

// AssociateRoutes adds the routes by which users who are logged in link their account:
//
//	GET    {provider}/authorize   200 {"authorization_url"}; ?redirect_to=PATH for the callback; with a fresh login
//	GET    {provider}/callback    200 user, or a redirect
//	GET    ""                     {"links": [{"id", "provider", "email", "created_at"}]}
//	DELETE {id}                   204; with a fresh login
//
// The first two are there for the providers that have an AssociateURL. A login is fresh for
// Config.MaxAge. A page without JavaScript calls [Logins.LinkURL] in a handler of POST.
func (o *Logins[U, ID]) AssociateRoutes(r gin.IRouter) {
	checks := []ginauth.Check{}
	if o.auth.RequiresVerified() {
		checks = append(checks, ginauth.Verified)
	}
	user := o.auth.RequireUser(checks...)
	fresh := o.auth.RequireUser(append(checks, ginauth.Fresh(o.cfg.MaxAge))...)
	for _, p := range o.providers {
		if p.AssociateURL == "" {
			continue
		}
		g := r.Group("/"+p.Name, private)
		o.mounted.mount(g, "/authorize", o.authorize(link), fresh, func(c *gin.Context) { o.handleAuthorize(c, p, link) })
		o.mounted.mount(g, "/callback", o.callback(link), user, func(c *gin.Context) { o.handleCallback(c, p, link) })
	}
	o.mounted.mount(r, "", listing(), private, user, o.handleLinks)
	o.mounted.mount(r, "/:id", unlinking(), private, fresh, o.handleUnlink)
}

// private keeps an answer out of caches (RFC 6749 §5.1), and the URL of a callback, which has the
// code, out of the Referer header.
func private(c *gin.Context) {
	h := c.Writer.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
	h.Set("Referrer-Policy", "no-referrer")
}

// Begin is how a flow begins.
type Begin struct {
	// RedirectPath is where the callback redirects; it must be in Config.RedirectPaths. Default
	// "": the callback answers.
	RedirectPath string
	// Scopes are further ones to ask for, of Provider.OptionalScopes.
	Scopes []string
	// Fresh asks a provider of OpenID Connect to authenticate the user again.
	Fresh bool
}

// LoginURL begins a login: it sets the state cookie and returns where the browser has to go. It
// writes no status and no body. [ginauth.Auth.Refuse] answers its errors.
//
// Call it for requests of the application's own pages only: in a handler of POST, or after a check
// of the Sec-Fetch-Site header.
func (o *Logins[U, ID]) LoginURL(c *gin.Context, provider string, begin Begin) (string, error) {
	p, err := o.provider(provider)
	if err != nil {
		return "", err
	}
	return o.begin(c, p, login, begin)
}

// LinkURL is [Logins.LoginURL] to link the account of the user who is logged in. It must be behind
// a guard with ginauth.Fresh, in a handler of POST: a page of another site could otherwise link the
// account to its own user of the provider.
func (o *Logins[U, ID]) LinkURL(c *gin.Context, provider string, begin Begin) (string, error) {
	p, err := o.provider(provider)
	if err != nil {
		return "", err
	}
	if p.AssociateURL == "" {
		return "", fmt.Errorf("oidc: the provider %q has no AssociateURL", provider)
	}
	return o.begin(c, p, link, begin)
}

// Links returns the links of the user who is logged in, oldest first. It must be behind a guard.
func (o *Logins[U, ID]) Links(c *gin.Context) ([]Link, error) {
	user, err := o.current(c)
	if err != nil {
		return nil, err
	}
	ctx, cancel := o.bounded(c.Request.Context())
	defer cancel()
	links, _, err := o.linksOf(ctx, user.UserID())
	return links, err
}

// Unlink removes a link of the user who is logged in, by its ID. It must be behind a guard with
// ginauth.Fresh. The error is a *ginauth.CodeError if there is no such link, or if it is the last
// way in; any other error is a failure. [ginauth.Auth.Refuse] answers both.
func (o *Logins[U, ID]) Unlink(c *gin.Context, id string) error {
	user, err := o.current(c)
	if err != nil {
		return err
	}
	ctx, cancel := o.bounded(c.Request.Context())
	defer cancel()
	return o.unlink(ctx, user.UserID(), id)
}

func (o *Logins[U, ID]) current(c *gin.Context) (U, error) {
	user, ok := o.auth.CurrentUser(c)
	if !ok {
		return user, errors.New("oidc: the handler needs a guard before it")
	}
	return user, nil
}

// userText returns a text for the ID of the user who links; "" for a login.
func (o *Logins[U, ID]) userText(c *gin.Context, f flow) (string, error) {
	if f == login {
		return "", nil
	}
	user, err := o.current(c)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%T %v", user.UserID(), user.UserID()), nil
}

func (o *Logins[U, ID]) begin(c *gin.Context, p *provider, f flow, begin Begin) (string, error) {
	if begin.RedirectPath != "" && !slices.Contains(o.cfg.RedirectPaths, begin.RedirectPath) {
		return "", rejected(CodeInvalidRedirect, nil)
	}
	scopes := slices.Clone(p.Scopes)
	for _, scope := range begin.Scopes {
		switch {
		case slices.Contains(scopes, scope):
		case slices.Contains(p.OptionalScopes, scope):
			scopes = append(scopes, scope)
		default:
			return "", rejected(CodeInvalidScope, nil)
		}
	}
	user, err := o.userText(c, f)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), o.cfg.ProviderTimeout)
	defer cancel()
	m, err := p.metadata(ctx)
	if err != nil {
		return "", err
	}
	s := newState(f, p.Name, begin.RedirectPath, o.now())
	if f == link {
		s.user = s.userDigest(user)
	}
	private(c)
	setCookie(c.Writer, s.cookie(), int(stateLifetime/time.Second))
	return p.url(m, s, scopes, begin.Fresh), nil
}

func (o *Logins[U, ID]) handleAuthorize(c *gin.Context, p *provider, f flow) {
	q := c.Request.URL.Query()
	begin := Begin{RedirectPath: q.Get("redirect_to"), Scopes: q["scopes"], Fresh: q.Get("fresh") == "true"}
	navigates := f == login && q.Has("redirect_to")
	if navigates && foreign(c.Request) {
		o.refuse(c, o.denied(o.context(c), f, nil, event.ReasonCrossOrigin, ginauth.ErrCrossOrigin))
		return
	}
	to, err := o.begin(c, p, f, begin)
	switch {
	case err != nil:
		o.refuse(c, err)
	case navigates:
		c.Redirect(http.StatusSeeOther, to)
	default:
		c.PureJSON(http.StatusOK, gin.H{"authorization_url": to})
	}
}

// foreign reports whether a page of another origin made the browser send a request. A page that
// reads the answer of authorize needs no such check: other pages cannot read it, so they do not
// know where to send the browser.
func foreign(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return site != "" && site != "same-origin" && site != "none"
}

// context returns the request's context with the client IP.
func (o *Logins[U, ID]) context(c *gin.Context) context.Context {
	ctx := c.Request.Context()
	if event.ClientIP(ctx) == "" {
		ctx = event.ContextWithClientIP(ctx, c.ClientIP())
	}
	return ctx
}

func (o *Logins[U, ID]) refuse(c *gin.Context, err error) { o.auth.Refuse(c, err) }

func (o *Logins[U, ID]) handleCallback(c *gin.Context, p *provider, f flow) {
	at := o.now()
	s, id, authenticated, err := o.answered(c, p, f)
	if err != nil {
		o.refuse(c, err)
		return
	}
	if !authenticated.IsZero() && authenticated.Before(at) {
		at = authenticated
	}
	ctx, cancel := o.bounded(o.context(c))
	defer cancel()
	if f == link {
		o.finishLink(ctx, c, s, id)
		return
	}
	user, err := o.user(ctx, p, id)
	if err == nil && o.auth.RequiresVerified() && !user.IsVerified() {
		err = o.denied(ctx, f, user.UserID(), event.ReasonUserUnverified, ginauth.ErrNotVerified)
	}
	if err != nil {
		o.refuse(c, err)
		return
	}
	issued, err := o.auth.Login(c, user, strategy.WithAuthenticatedAt(at))
	switch {
	case err != nil:
		o.refuse(c, err)
	case s.redirect != "":
		c.Redirect(http.StatusSeeOther, s.redirect)
	default:
		o.auth.Answer(c, issued)
	}
}

func (o *Logins[U, ID]) finishLink(ctx context.Context, c *gin.Context, s state, id Identity) {
	user, err := o.current(c)
	if err == nil {
		err = o.associate(ctx, user, id)
	}
	switch {
	case err != nil:
		o.refuse(c, err)
	case s.redirect != "":
		c.Redirect(http.StatusSeeOther, s.redirect)
	default:
		o.auth.AnswerUser(c, user)
	}
}

// answered checks a callback and redeems its code. It returns who the user of the provider is.
func (o *Logins[U, ID]) answered(c *gin.Context, p *provider, f flow) (s state, id Identity, authenticated time.Time, err error) {
	ctx := o.context(c)
	var userID any
	if user, ok := o.auth.CurrentUser(c); ok && f == link {
		userID = user.UserID()
	}
	deny := func(why event.Reason, code string, cause error) error {
		return o.denied(ctx, f, userID, why, rejected(code, cause))
	}
	q := c.Request.URL.Query()
	param, _ := single(q, "state")
	if !wellFormed(param) {
		return s, id, authenticated, deny(event.ReasonOAuthState, CodeBadToken, nil)
	}
	// Until the state is known to be that of the cookie, another site may have sent the browser:
	// the cookie stays.
	s, ok := readCookie(c.Request)
	if !ok || !same(s.param(), param) {
		return s, id, authenticated, deny(event.ReasonOAuthState, CodeInvalidState, nil)
	}
	ctx, cancel := context.WithTimeout(ctx, o.cfg.ProviderTimeout)
	defer cancel()
	m, err := p.metadata(ctx)
	if err != nil {
		return s, id, authenticated, err // the client can try again
	}
	setCookie(c.Writer, "", -1)
	user, err := o.userText(c, f)
	if err != nil {
		return s, id, authenticated, err
	}
	iss, hasIss := single(q, "iss")
	switch {
	case o.now().Unix() >= s.expires:
		return s, id, authenticated, deny(event.ReasonOAuthState, CodeExpired, nil)
	case s.provider != p.Name, s.flow != f, f == link && !same(s.user, s.userDigest(user)):
		return s, id, authenticated, deny(event.ReasonOAuthState, CodeInvalidState, nil)
	case (q.Has("iss") || m.issRequired) && (!hasIss || iss != p.Issuer): // RFC 9207 §2.4
		return s, id, authenticated, deny(event.ReasonOAuthState, CodeInvalidState, nil)
	case s.redirect != "" && !slices.Contains(o.cfg.RedirectPaths, s.redirect):
		return s, id, authenticated, deny(event.ReasonOAuthState, CodeInvalidRedirect, nil)
	case q.Has("error"):
		return s, id, authenticated, deny(event.ReasonOAuthProvider, providerCode(q.Get("error")), nil)
	}
	code, ok := single(q, "code")
	if !ok || code == "" {
		return s, id, authenticated, deny(event.ReasonOAuthToken, CodeBadToken, nil)
	}
	id, authenticated, err = p.exchange(ctx, m, s, code)
	switch {
	case errors.Is(err, errExpired):
		err = deny(event.ReasonOAuthToken, CodeExpired, err)
	case errors.Is(err, errRejected):
		err = deny(event.ReasonOAuthToken, CodeBadToken, err)
	case err != nil:
		err = failed("ask "+p.Name, err)
	}
	return s, id, authenticated, err
}

// single returns the value of a parameter that is given once.
func single(q url.Values, name string) (string, bool) {
	if values := q[name]; len(values) == 1 {
		return values[0], true
	}
	return "", false
}

// providerCode returns the code for an error of a provider: itself if it is registered (RFC 6749
// §4.1.2.1, OpenID Connect Core §3.1.2.6).
func providerCode(code string) string {
	switch code {
	case "invalid_request", "unauthorized_client", "access_denied", "unsupported_response_type", "invalid_scope", "server_error", "temporarily_unavailable",
		"interaction_required", "login_required", "account_selection_required", "consent_required":
		return code
	}
	return CodeProvider
}

func (o *Logins[U, ID]) handleLinks(c *gin.Context) {
	links, err := o.Links(c)
	if err != nil {
		o.refuse(c, err)
		return
	}
	c.PureJSON(http.StatusOK, gin.H{"links": links})
}

func (o *Logins[U, ID]) handleUnlink(c *gin.Context) {
	if err := o.Unlink(c, c.Param("id")); err != nil {
		o.refuse(c, err)
		return
	}
	c.Writer.WriteHeader(http.StatusNoContent)
}
