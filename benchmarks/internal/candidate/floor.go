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

// floorSession is the least work that looks up the session with the driver.
func floorSession() Candidate {
	return Candidate{
		Name: "by hand, one FindOne", Module: "go.mongodb.org/mongo-driver/v2", Work: Session,
		Reads: "Latchkey's token row, by its digest", Revocable: "yes", Deactivated: "no",
		Notes: "written with the driver; no check of the token's format, no events, no scopes, no distinction of errors, no timeout on database calls",
		build: func(_ context.Context, db *DB) (*Site, error) {
			r := engine()
			r.GET(Path, floorGuard(db), func(c *gin.Context) { answerID(c, c.MustGet("user").(uuid.UUID).String()) })
			return &Site{Handler: r, Sessions: bearers(db.Tokens)}, nil
		},
	}
}

// floorUser is floorSession plus the look-up of the user.
func floorUser() Candidate {
	return Candidate{
		Name: "by hand, two FindOnes", Module: "go.mongodb.org/mongo-driver/v2", Work: User,
		Reads: "Latchkey's token row, by its digest; the user, by ID", Revocable: "yes", Deactivated: "yes",
		Notes: "the same, and the user must be active",
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

// floorGuard is a guard that sets "user" to the ID of the token's user.
func floorGuard(db *DB) gin.HandlerFunc {
	tokens := db.driver2.Collection("access_tokens")
	return func(c *gin.Context) {
		token, ok := strings.CutPrefix(c.GetHeader("Authorization"), "Bearer ")
		if !ok {
			c.AbortWithStatus(http.StatusUnauthorized)
			return
		}
		digest := sha256.Sum256([]byte(token))
		filter := bson.D{{Key: "token", Value: base64.RawURLEncoding.EncodeToString(digest[:])}}
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
