package candidate

import (
	"context"
	"time"

	"github.com/gin-gonic/gin"
)

// bare is a route without a guard: what Gin and the answer take.
func bare() Candidate {
	return Candidate{
		Name: "bare Gin route", Module: "github.com/gin-gonic/gin", Work: NoGuard,
		Reads: "nothing", Revocable: "—", Deactivated: "—",
		Notes: "lets everybody in; it is what the others' figures have in common",
		build: func(_ context.Context, db *DB) (*Site, error) {
			r := engine()
			user := member(0, time.Now()) // as those that the others find
			r.GET(Path, func(c *gin.Context) { answerUser(c, user.ID.String(), user.Email, user.Name) })
			return &Site{Handler: r, Sessions: bearers(db.Tokens)}, nil
		},
	}
}

// bearers are the headers that present tokens.
func bearers(tokens []string) []Header {
	headers := make([]Header, len(tokens))
	for i, token := range tokens {
		headers[i] = Header{"Authorization", "Bearer " + token}
	}
	return headers
}
