package moving

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	jwt "github.com/appleboy/gin-jwt/v3"
	"github.com/gin-gonic/gin"
	claims "github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/latchkeytest"
	"github.com/latchkey-go/latchkey/strategy"
)

func ginJWTBefore(r *gin.Engine, auth *jwt.GinJWTMiddleware, notes gin.HandlerFunc) {
	r.POST("/auth/login", auth.LoginHandler) // 200 with access_token, token_type, expires_in, refresh_token
	r.POST("/auth/refresh", auth.RefreshHandler)
	r.POST("/auth/logout", auth.LogoutHandler)
	r.GET("/notes", auth.MiddlewareFunc(), notes)
}

func ginJWTAfter(r *gin.Engine, old *jwt.GinJWTMiddleware, lk *Latchkey, notes gin.HandlerFunc) {
	lk.Auth.Routes(r.Group("/auth")) // POST /auth/login answers 200 with access_token, token_type, expires_in
	member := func(c *gin.Context, id any) (Member, error) {
		parsed, err := uuid.Parse(fmt.Sprint(id))
		if err != nil {
			return Member{}, ginauth.ErrNoCredentials
		}
		m, err := lk.Accounts.ByID(c.Request.Context(), parsed)
		if errors.Is(err, account.ErrUserNotFound) || err == nil && !m.Active {
			err = ginauth.ErrNoCredentials
		}
		return m, err
	}
	// An old refresh token, once, for a token of Latchkey. No new refresh token: there is none.
	r.POST("/auth/refresh", func(c *gin.Context) {
		token := c.PostForm("refresh_token")
		id, err := old.RefreshTokenStore.Get(c.Request.Context(), token)
		if err == nil {
			err = old.RefreshTokenStore.Delete(c.Request.Context(), token)
		}
		if err != nil {
			lk.Auth.Refuse(c, ginauth.ErrNoCredentials)
			return
		}
		m, err := member(c, id)
		if err != nil {
			lk.Auth.Refuse(c, err)
			return
		}
		issued, err := lk.Auth.Login(c, m, strategy.WithAuthenticatedAt(time.Unix(1, 0)))
		if err != nil {
			lk.Auth.Refuse(c, err)
			return
		}
		lk.Auth.Answer(c, issued)
	})
	// Until the last old access token has expired, an hour by default, guards accept both.
	either := func(c *gin.Context) {
		if _, ok := lk.Auth.CurrentUser(c); ok {
			return
		}
		jwtClaims, err := old.GetClaimsFromJWT(c)
		if err != nil {
			lk.Auth.Refuse(c, ginauth.ErrNoCredentials)
			return
		}
		m, err := member(c, jwtClaims[old.IdentityKey])
		if err != nil {
			lk.Auth.Refuse(c, err)
			return
		}
		session := strategy.Session[Member]{User: m, SessionInfo: strategy.SessionInfo{UserID: m.ID}}
		c.Request = c.Request.WithContext(strategy.ContextWithSession(c.Request.Context(), session))
	}
	// At the end of the move: r.GET("/notes", lk.Auth.RequireUser(), notes)
	r.GET("/notes", lk.Auth.OptionalUser(), either, notes)
}

func TestFromGinJWT(t *testing.T) {
	kit := latchkeytest.New[Member](t, uuid.New, latchkey.Config{})
	ann := kit.NewUser(t, Member{Name: "Ann"})
	auth, err := jwt.New(&jwt.GinJWTMiddleware{
		Key: []byte("a key of the application, 32 bytes"), IdentityKey: "id",
		Authenticator: func(c *gin.Context) (any, error) { return c.PostForm("username"), nil },
		PayloadFunc:   func(data any) claims.MapClaims { return claims.MapClaims{"id": data} },
	})
	if err != nil {
		t.Fatal(err)
	}
	before, after := gin.New(), gin.New()
	ginJWTBefore(before, auth, func(*gin.Context) {})
	ginJWTAfter(after, auth, kit.Latchkey, notes(kit.Latchkey))

	send := func(h http.Handler, method, path, body, token string, want int) map[string]any {
		t.Helper()
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s %s: got %d, want %d", method, path, w.Code, want)
		}
		members := make(map[string]any)
		_ = json.Unmarshal(w.Body.Bytes(), &members)
		return members
	}
	login := send(before, "POST", "/auth/login", "username="+ann.ID.String(), "", 200)
	access, refresh := fmt.Sprint(login["access_token"]), fmt.Sprint(login["refresh_token"])
	send(before, "GET", "/notes", "", access, 200)

	send(after, "GET", "/notes", "", "", 401)
	send(after, "GET", "/notes", "", access+"x", 401)
	kit.Events.Clear()
	send(after, "GET", "/notes", "", access, 200)
	if e := kit.Events.Want(t, event.TokenDenied); e.Reason != event.ReasonMalformed {
		t.Errorf("got the event %+v", e)
	}
	answer := send(after, "POST", "/auth/refresh", "refresh_token="+refresh, "", 200)
	send(after, "POST", "/auth/refresh", "refresh_token="+refresh, "", 401)
	token := fmt.Sprint(answer["access_token"])
	if !strings.HasPrefix(token, "lk_") || answer["token_type"] != "bearer" || answer["refresh_token"] != nil {
		t.Error("the answer is not that of Latchkey's login")
	}
	send(after, "GET", "/notes", "", token, 200)
	send(after, "POST", "/auth/logout", "", token, 204)
	send(after, "GET", "/notes", "", token, 401)

	send(before, "POST", "/auth/logout", "", access, 200)
	send(before, "GET", "/notes", "", access, 200) // the old library does not end it
	if err := kit.Accounts.Deactivate(t.Context(), ann.ID); err != nil {
		t.Fatal(err)
	}
	send(after, "GET", "/notes", "", access, 401)
	send(before, "GET", "/notes", "", access, 200)
}
