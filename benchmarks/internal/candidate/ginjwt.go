package candidate

import (
	"context"
	"crypto/rand"

	jwt "github.com/appleboy/gin-jwt/v3"
	"github.com/gin-gonic/gin"
	jwtclaims "github.com/golang-jwt/jwt/v5"
)

// ginJWT checks a signature and uses no database.
func ginJWT() Candidate {
	return Candidate{
		Name: "gin-jwt", Module: "github.com/appleboy/gin-jwt/v3", Work: Signature,
		Reads: "nothing", Revocable: "no: valid until it expires", Deactivated: "no",
		Notes: "HS256; the user's ID is a claim",
		build: func(ctx context.Context, db *DB) (*Site, error) {
			key := make([]byte, 32)
			_, _ = rand.Read(key) // never fails
			const idClaim = "sub"
			auth, err := jwt.New(&jwt.GinJWTMiddleware{
				Realm: "benchmarks", SigningAlgorithm: "HS256", Key: key, Timeout: Lifetime, IdentityKey: idClaim,
				PayloadFunc: func(data any) jwtclaims.MapClaims { return jwtclaims.MapClaims{idClaim: data} },
			})
			if err != nil {
				return nil, err
			}
			r := engine()
			r.GET(Path, auth.MiddlewareFunc(), func(c *gin.Context) { answerID(c, c.GetString(idClaim)) })
			tokens := make([]string, len(db.UserIDs))
			for i, id := range db.UserIDs {
				token, err := auth.TokenGenerator(ctx, id.String())
				if err != nil {
					return nil, err
				}
				tokens[i] = token.AccessToken
			}
			return &Site{Handler: r, Sessions: bearers(tokens)}, nil
		},
	}
}
