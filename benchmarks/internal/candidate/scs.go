package candidate

import (
	"context"
	"net/http"

	"github.com/alexedwards/scs/mongodbstore"
	"github.com/alexedwards/scs/v2"
	"github.com/gin-gonic/gin"
)

// scsSessions is scs with its store for MongoDB.
func scsSessions() Candidate {
	return Candidate{
		Name: "scs", Module: "github.com/alexedwards/scs/v2", Work: Session,
		Reads:     "the session, by `token`",
		Revocable: "yes, but a concurrent request that saves the session restores it (upsert)", Deactivated: "no",
		Notes: "store `mongodbstore` with driver v1; it creates no index on `token`, so that a database scans the collection (the stub does not); the session holds the user's ID, the user is not loaded; tokens are stored in plain text; no timeout on database calls",
		build: func(ctx context.Context, db *DB) (*Site, error) {
			old, err := db.Driver1(ctx)
			if err != nil {
				return nil, err
			}
			sessions := scs.New()
			sessions.Lifetime = Lifetime
			// No clean-up: its goroutine would run until the process ends.
			sessions.Store = mongodbstore.NewWithCleanupInterval(old, 0)
			h := scsApplication(sessions)
			cookies, err := logins(h, db)
			return &Site{Handler: h, Sessions: cookies}, err
		},
	}
}

// scsApplication returns the application of scs on a store.
func scsApplication(sessions *scs.SessionManager) http.Handler {
	r := engine()
	r.GET(Path, func(c *gin.Context) {
		if sessions.GetString(c.Request.Context(), "user") == "" {
			c.AbortWithStatus(http.StatusUnauthorized)
		}
	}, func(c *gin.Context) { answerID(c, sessions.GetString(c.Request.Context(), "user")) })
	r.POST("/login/:user", func(c *gin.Context) {
		if err := sessions.RenewToken(c.Request.Context()); err != nil {
			c.AbortWithStatus(http.StatusServiceUnavailable)
			return
		}
		sessions.Put(c.Request.Context(), "user", c.Param("user"))
		c.Status(http.StatusOK)
		c.Writer.WriteHeaderNow()
	})
	return sessions.LoadAndSave(r)
}
