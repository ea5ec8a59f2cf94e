package candidate

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// floorSession is the least that a look-up of the session can take with the driver.
func floorSession() Candidate {
	return Candidate{
		Name: "by hand, one FindOne", Module: "go.mongodb.org/mongo-driver/v2", Work: Session,
		Reads: "Latchkey's token row, by its digest", Revocable: "yes", Deactivated: "no",
		Notes: "written with the driver: no check of the token's form, no events, no scopes, no distinction of errors, no time limit for a call",
		build: func(_ context.Context, db *DB) (*Site, error) {
			r := engine()
			r.GET(Path, floorGuard(db), func(c *gin.Context) { answerID(c, c.MustGet("user").(uuid.UUID).String()) })
			return &Site{Handler: r, Sessions: bearers(db.Tokens)}, nil
		},
	}
}

// floorUser is the same with the user.
func floorUser() Candidate {
	return Candidate{
		Name: "by hand, two FindOnes", Module: "go.mongodb.org/mongo-driver/v2", Work: User,
		Reads: "Latchkey's token row, by its digest; the user, by ID", Revocable: "yes", Deactivated: "yes",
		Notes: "the same with the user, and whether they are active",
		build: func(_ context.Context, db *DB) (*Site, error) {
			users := db.driver2.Collection("users")
			r := engine()
			r.GET(Path, floorGuard(db), func(c *gin.Context) {
				id := c.MustGet("user").(uuid.UUID)
				var user struct {
					Email  string `bson:"email"`
					Name   string `bson:"name"`
					Active bool   `bson:"is_active"`
				}
				filter := bson.D{{Key: "_id", Value: bson.Binary{Subtype: bson.TypeBinaryUUID, Data: id[:]}}}
				if err := users.FindOne(c.Request.Context(), filter).Decode(&user); err != nil || !user.Active {
					c.AbortWithStatus(http.StatusUnauthorized)
					return
				}
				answerUser(c, id.String(), user.Email, user.Name)
			})
			return &Site{Handler: r, Sessions: bearers(db.Tokens)}, nil
		},
	}
}

// floorFilter asks for the row of a request's token; it is not ok where there is no token.
func floorFilter(c *gin.Context) (filter bson.D, ok bool) {
	token, ok := strings.CutPrefix(c.GetHeader("Authorization"), "Bearer ")
	if !ok {
		return nil, false
	}
	digest := sha256.Sum256([]byte(token))
	return bson.D{{Key: "token", Value: base64.RawURLEncoding.EncodeToString(digest[:])}}, true
}

// floorGuard sets the ID of the token's user.
func floorGuard(db *DB) gin.HandlerFunc {
	tokens := db.driver2.Collection("access_tokens")
	return func(c *gin.Context) {
		filter, ok := floorFilter(c)
		if !ok {
			c.AbortWithStatus(http.StatusUnauthorized)
			return
		}
		var row struct {
			UserID    bson.Binary `bson:"user_id"`
			CreatedAt time.Time   `bson:"created_at"`
		}
		err := tokens.FindOne(c.Request.Context(), filter).Decode(&row)
		if err != nil || time.Since(row.CreatedAt) > Lifetime || len(row.UserID.Data) != len(uuid.UUID{}) {
			c.AbortWithStatus(http.StatusUnauthorized)
			return
		}
		c.Set("user", uuid.UUID(row.UserID.Data))
	}
}
