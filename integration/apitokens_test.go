package integration_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/strategy"
)

// API tokens have a collection, a lifetime and a policy of their own.
func TestAPITokensOfTheFacade(t *testing.T) {
	for _, survive := range []bool{false, true} {
		db := database(t)
		f := newFacade(t, db, latchkey.Config{
			Lifetime:  time.Hour,
			APITokens: latchkey.APITokens{Scopes: []string{"read"}, Lifetime: 90 * 24 * time.Hour, SurvivePasswordChange: survive},
		})
		r := gin.New()
		r.GET("/read", f.Auth.RequireUser(ginauth.Scopes("read")), func(c *gin.Context) { c.Status(http.StatusOK) })
		r.GET("/web", f.Web.RequireUser(ginauth.Scopes("read")), func(c *gin.Context) { c.Status(http.StatusOK) })
		ann, err := f.Accounts.Register(t.Context(), facadeUser{User: account.User[uuid.UUID]{Email: "ann@example.com"}}, "a good long password")
		if err != nil {
			t.Fatal(err)
		}
		issue := func() string {
			secret, _, err := f.APITokens.WriteToken(t.Context(), ann, strategy.WithScopes("read"), strategy.WithName("script"))
			if err != nil {
				t.Fatal(err)
			}
			return secret.Reveal()
		}
		want := func(what, token string, code int) {
			t.Helper()
			for _, path := range []string{"/read", "/web"} {
				req := httptest.NewRequest(http.MethodGet, path, nil)
				req.Header.Set("Authorization", "Bearer "+token)
				w := httptest.NewRecorder()
				r.ServeHTTP(w, req)
				if w.Code != code {
					t.Errorf("survive %v: %s: GET %s answered %d, want %d", survive, what, path, w.Code, code)
				}
			}
		}
		token := issue()
		want("a new token", token, 200)
		for name, n := range map[string]int64{"api_tokens": 1, "access_tokens": 0} {
			if got, err := db.Collection(name).CountDocuments(t.Context(), bson.D{}); err != nil || got != n {
				t.Errorf("%s has %d documents, %v, want %d", name, got, err, n)
			}
		}
		if ann, err = f.Accounts.ChangePassword(t.Context(), ann.ID, "a good long password", "another good password"); err != nil {
			t.Fatal(err)
		}
		want("after a change of password", token, map[bool]int{false: 401, true: 200}[survive])
		token = issue()
		if err := f.Accounts.RevokeTokens(t.Context(), ann.ID); err != nil {
			t.Fatal(err)
		}
		want("after RevokeTokens", token, 401)
		if ann, err = f.Accounts.ByID(t.Context(), ann.ID); err != nil {
			t.Fatal(err)
		}
		token = issue()
		if err := f.Accounts.Delete(t.Context(), ann.ID); err != nil {
			t.Fatal(err)
		}
		want("after the deletion", token, 401)
		if n, err := db.Collection("api_tokens").CountDocuments(t.Context(), bson.D{}); err != nil || n != 0 {
			t.Errorf("api_tokens has %d documents, %v, want none", n, err)
		}
		if err := f.VerifyIndexes(t.Context()); err != nil {
			t.Errorf("VerifyIndexes: %v", err)
		}
	}
}
