package candidate

import (
	"context"
	"time"

	"github.com/gin-gonic/gin"
)

// bare is a route without a guard: the cost of Gin and of the answer.
func bare() Candidate {
	return Candidate{
		Name: "bare Gin route", Module: "github.com/gin-gonic/gin", Work: NoGuard,
		Reads: "nothing", Revocable: "—", Deactivated: "—",
		Notes: "admits every request; all other figures include its cost",
		build: func(_ context.Context, db *DB) (*Site, error) {
			r := engine()
			user := member(0, time.Now()) // like the users of the other candidates
			r.GET(Path, func(c *gin.Context) { answerUser(c, user.ID.String(), user.Email, user.Name) })
			return &Site{Handler: r, Sessions: bearers(db.Tokens)}, nil
		},
	}
}

// bearers returns the Authorization headers of tokens.
func bearers(tokens []string) []Header {
	headers := make([]Header, len(tokens))
	for i, token := range tokens {
		headers[i] = Header{"Authorization", "Bearer " + token}
	}
	return headers
}
