package candidate

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/mongo/mongodriver"
	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
)

// ginSessions is gin-contrib/sessions with its store for MongoDB's official driver.
func ginSessions() Candidate {
	return Candidate{
		Name: "gin-contrib/sessions", Module: "github.com/gin-contrib/sessions", Work: Session,
		Reads:     "the session, by `_id`",
		Revocable: "yes, but a concurrent request that saves the session restores it (upsert)", Deactivated: "no",
		Notes: "store `mongo/mongodriver` with driver v1; the session holds the user's ID, the user is not loaded; signed cookie; no timeout on database calls",
		build: func(ctx context.Context, db *DB) (*Site, error) {
			old, err := db.Driver1(ctx)
			if err != nil {
				return nil, err
			}
			key := make([]byte, 32)
			_, _ = rand.Read(key) // never fails
			store := mongodriver.NewStore(old.Collection("gin_sessions"), int(Lifetime.Seconds()), true, key)
			r := engine()
			r.Use(sessions.Sessions("session", store))
			r.GET(Path, func(c *gin.Context) {
				id, ok := sessions.Default(c).Get("user").(string)
				if !ok {
					c.AbortWithStatus(http.StatusUnauthorized)
					return
				}
				c.Set("user", id)
			}, func(c *gin.Context) { answerID(c, c.GetString("user")) })
			r.POST("/login/:user", func(c *gin.Context) {
				session := sessions.Default(c)
				session.Set("user", c.Param("user"))
				if err := session.Save(); err != nil {
					c.AbortWithStatus(http.StatusServiceUnavailable)
				}
			})
			cookies, err := logins(r, db)
			return &Site{Handler: r, Sessions: cookies}, err
		},
	}
}

// logins logs in every user at POST /login/{id} and returns their cookies.
func logins(h http.Handler, db *DB) ([]Header, error) { return loginsOf(h, db.UserIDs) }

func loginsOf(h http.Handler, users []uuid.UUID) ([]Header, error) {
	headers := make([]Header, len(users))
	err := ForEach(len(headers), func(i int) error {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/login/"+users[i].String(), nil))
		cookies := w.Result().Cookies()
		if w.Code != http.StatusOK || len(cookies) != 1 {
			return fmt.Errorf("candidate: login answered with status %d and %d cookies", w.Code, len(cookies))
		}
		headers[i] = Header{"Cookie", cookies[0].Name + "=" + cookies[0].Value}
		return nil
	})
	return headers, err
}
