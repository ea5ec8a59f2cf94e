package ginauth

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/strategy"
)

// Reauthenticator is an optional capability of an [Authenticator]: it checks the
// password of a user who is logged in already. account.Manager has it. With it,
// Routes has POST reauthenticate.
type Reauthenticator[U any] interface {
	// Reauthenticate returns the user as they are now, or the errors of
	// [Authenticator].
	Reauthenticate(ctx context.Context, user U, password string) (U, error)
}

// sessionRoutes adds the routes by which users see and end their sessions.
func (a *Auth[U]) sessionRoutes(r gin.IRouter) {
	guard := a.RequireUser() // takes no token with scopes
	r.GET("/sessions", noStore, guard, a.handleSessions)
	r.DELETE("/sessions/:id", noStore, guard, a.handleEndSession)
	r.POST("/logout-all", noStore, guard, a.handleLogoutAll)
	if _, ok := a.login.(Reauthenticator[U]); ok {
		r.POST("/reauthenticate", noStore, guard, a.handleReauthenticate)
	}
}

// sessionJSON is a session as its user sees it: no token, no digest.
type sessionJSON struct {
	ID              uuid.UUID  `json:"id"`
	Current         bool       `json:"current"`
	CreatedAt       time.Time  `json:"created_at"`
	LastUsedAt      *time.Time `json:"last_used_at"`
	AuthenticatedAt *time.Time `json:"authenticated_at"`
	ExpiresAt       *time.Time `json:"expires_at"`
	Name            string     `json:"name,omitempty"`
	UserAgent       string     `json:"user_agent,omitempty"`
	ClientAddr      string     `json:"client_addr,omitempty"`
	Scopes          []string   `json:"scopes,omitempty"`
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (a *Auth[U]) handleSessions(c *gin.Context) {
	page := strategy.Page{After: c.Query("after")}
	if limit := c.Query("limit"); limit != "" {
		var err error
		if page.Limit, err = strconv.Atoi(limit); err != nil || page.Limit < 1 {
			a.refuse(c, fieldErrors{{Loc: []string{"query", "limit"}, Msg: "Input should be a positive integer", Type: "int_parsing"}})
			return
		}
	}
	current := a.identity(c).session
	found, err := a.manager.Of(current.User).List(c.Request.Context(), page)
	switch {
	case errors.Is(err, strategy.ErrInvalidCursor):
		a.refuse(c, fieldErrors{{Loc: []string{"query", "after"}, Msg: "Input should be the next of a page", Type: "value_error"}})
		return
	case err != nil:
		a.refuse(c, errUnavailable)
		return
	}
	sessions := make([]sessionJSON, len(found.Sessions))
	for i, s := range found.Sessions {
		sessions[i] = sessionJSON{
			ID: s.ID, Current: s.ID == current.ID, CreatedAt: s.CreatedAt, LastUsedAt: orNull(s.LastUsedAt),
			AuthenticatedAt: orNull(s.AuthenticatedAt), ExpiresAt: orNull(s.ExpiresAt),
			Name: s.Name, UserAgent: s.UserAgent, ClientAddr: s.ClientAddr, Scopes: s.Scopes,
		}
	}
	body := gin.H{"sessions": sessions}
	if found.Next != "" {
		body["next"] = found.Next
	}
	c.JSON(http.StatusOK, body)
}

func (a *Auth[U]) handleEndSession(c *gin.Context) {
	current := a.identity(c)
	id, ok := parseSessionID(c.Param("id"))
	if !ok {
		a.refuse(c, strategy.ErrSessionNotFound)
		return
	}
	ctx := context.WithoutCancel(c.Request.Context())
	if err := a.manager.Of(current.session.User).Destroy(ctx, id); err != nil {
		a.refuse(c, expected(err, strategy.ErrSessionNotFound))
		return
	}
	if id == current.session.ID {
		current.by.transport.clear(c)
	}
	c.Status(http.StatusNoContent)
}

// parseSessionID takes the one spelling that we hand out; uuid.Parse takes more.
func parseSessionID(s string) (uuid.UUID, bool) {
	id, err := uuid.Parse(s)
	return id, err == nil && strings.EqualFold(id.String(), s)
}

// handleLogoutAll ends all sessions of the user; with keep_current, all but this
// one.
func (a *Auth[U]) handleLogoutAll(c *gin.Context) {
	f, err := a.readOptionalForm(c)
	if err != nil {
		a.refuse(c, err)
		return
	}
	keep := f.flag("keep_current")
	if err := f.done(); err != nil {
		a.refuse(c, err)
		return
	}
	current := a.identity(c)
	var except []uuid.UUID
	if keep {
		except = append(except, current.session.ID)
	}
	ctx := context.WithoutCancel(c.Request.Context())
	if err := a.manager.Of(current.session.User).DestroyAll(ctx, except...); err != nil {
		a.refuse(c, errUnavailable)
		return
	}
	if !keep {
		current.by.transport.clear(c)
	}
	c.Status(http.StatusNoContent)
}

// handleReauthenticate makes the session a fresh login, with a new token.
func (a *Auth[U]) handleReauthenticate(c *gin.Context) {
	f, err := a.readForm(c)
	if err != nil {
		a.refuse(c, err)
		return
	}
	password := f.required("password")
	if err := f.done(); err != nil {
		a.refuse(c, err)
		return
	}
	if err := a.Reauthenticate(c, password); err != nil {
		a.refuse(c, err)
	}
}

// Reauthenticate does what the reauthenticate route does, but leaves the answer to
// a refusal to the caller: for an application's own page, behind a guard of this
// Auth. On success it has answered as the login route does; with a cookie, the
// handler may go on to redirect.
//
// The error wraps account.ErrBadCredentials, account.ErrTooManyAttempts (it is a
// *account.TooManyAttemptsError then) or strategy.ErrInvalidToken; any other is a
// failure, to be answered with 503.
func (a *Auth[U]) Reauthenticate(c *gin.Context, password string) error {
	login, ok := a.login.(Reauthenticator[U])
	current := a.identity(c)
	if !ok || current == nil {
		return errors.New("ginauth: Reauthenticate wants a guard of this Auth before it, and an Authenticator that is a Reauthenticator")
	}
	at := a.cfg.Now()
	user, err := login.Reauthenticate(c.Request.Context(), current.session.User, password)
	if err != nil {
		return passwordRefused(err)
	}
	return a.renew(c, user, at)
}

// Renew gives the session of a guarded request a new token, ends all others of
// the user, and answers with the token as the login route does; with a cookie the
// handler may go on to redirect. Call it after the user has changed their
// password, with the user that this returned: the change has made all tokens
// invalid, so the session is kept as a fresh login, and the rows of the others
// are only cleaned up. After an error, Renew has answered with it (401, 503), and
// the handler should return.
func (a *Auth[U]) Renew(c *gin.Context, user U) error {
	if err := a.renew(c, user, a.cfg.Now()); err != nil {
		a.refuse(c, err)
		return cause(err)
	}
	// The strategy reports a failure; the tokens are dead all the same.
	ctx := context.WithoutCancel(c.Request.Context())
	_ = a.manager.Of(user).DestroyAll(ctx, a.identity(c).session.ID)
	return nil
}

// renew gives the session a new token, and answers with it unless there is an
// error.
func (a *Auth[U]) renew(c *gin.Context, user U, at time.Time) error {
	noStore(c)
	current := a.identity(c)
	if current == nil || a.manager == nil {
		return errors.New("ginauth: Renew wants a guard of this Auth before it, and a strategy that rotates tokens")
	}
	// The old token is dead as soon as the database has done this: see it through.
	ctx := context.WithoutCancel(c.Request.Context())
	secret, session, err := a.manager.RotateToken(ctx, current.by.token, strategy.Reauthenticated(user, at))
	if err != nil {
		return expected(err, strategy.ErrInvalidToken)
	}
	next := a.visitor(c) // what reads the old one beside this request is not disturbed
	next.session, next.hasUser, next.by = &session, true, credential{secret.Reveal(), current.by.transport}
	next.enter(c)
	a.deliver(c, next.by.transport, secret, session, a.cfg.Now())
	return nil
}

// Introspection adds POST introspect (RFC 7662) to a router or a group of routes,
// behind a guard with these checks: for a gateway or another service that has a
// token and wants to know what it is worth. It counts as a use of the token. It
// returns an error where no check is [Superuser] or one of [CheckUser], since all
// others let ordinary users look into every token, and if the strategy does not
// know its users' IDs (see strategy.SessionManager).
func (a *Auth[U]) Introspection(r gin.IRouter, checks ...Check[U]) error {
	if !slices.ContainsFunc(checks, restricts[U]) {
		return errors.New("ginauth: Introspection wants a check that keeps ordinary users away: Superuser, or one of CheckUser")
	}
	if a.manager == nil {
		return errors.New("ginauth: Introspection wants a strategy that is a strategy.SessionManager")
	}
	r.POST("/introspect", noStore, a.RequireUser(checks...), a.handleIntrospect)
	return nil
}

func (a *Auth[U]) handleIntrospect(c *gin.Context) {
	f, err := a.readForm(c)
	if err != nil {
		a.refuse(c, err)
		return
	}
	token := f.required("token")
	if err := f.done(); err != nil {
		a.refuse(c, err)
		return
	}
	s, err := a.strategy.ReadToken(c.Request.Context(), token)
	switch {
	case errors.Is(err, strategy.ErrInvalidToken):
		// Nothing more (RFC 7662 §2.2).
		c.JSON(http.StatusOK, gin.H{"active": false})
		return
	case err != nil:
		a.refuse(c, errUnavailable)
		return
	}
	body := gin.H{"active": true, "sub": a.manager.Of(s.User).Subject(), "iat": s.CreatedAt.Unix()}
	if !s.ExpiresAt.IsZero() {
		body["exp"] = s.ExpiresAt.Unix()
	}
	if s.Scoped() {
		body["scope"] = strings.Join(s.Scopes, " ")
	}
	c.JSON(http.StatusOK, body)
}
