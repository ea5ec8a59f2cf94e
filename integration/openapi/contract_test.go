package openapi_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/internal/contract"
	"github.com/latchkey-go/latchkey/memstore"
)

// raced are refusals that only a request gets whose account changed while it was served, or
// whose ID was taken.
var raced = []string{
	"POST /auth/register: 409 CONFLICT",
	"PATCH /auth/users/me: 404 NOT_FOUND",
	"DELETE /auth/users/me: 404 NOT_FOUND",
	"PATCH /auth/users/{id}: 409 CONFLICT",
	"POST /auth/tokens: 400 LOGIN_BAD_CREDENTIALS",
}

// Every answer is as its description says, and every described refusal occurs.
func TestAnswersFitTheDescription(t *testing.T) {
	gin.SetMode(gin.TestMode)
	c := newChecker()
	t.Run("guards and bodies", func(t *testing.T) { testGuardsAndBodies(t, c) })
	t.Run("database down", func(t *testing.T) { testDown(t, c) })
	t.Run("API tokens", func(t *testing.T) { testAPITokens(t, c) })
	t.Run("too many passwords", func(t *testing.T) { testTooManyPasswords(t, c) })
	t.Run("contract", func(t *testing.T) { testContract(t, c) })
	if t.Failed() {
		return
	}
	var unseen []string
	for refusal := range c.described {
		if !c.seen[refusal] && !slices.Contains(raced, refusal) && !strings.Contains(refusal, " /second/") {
			unseen = append(unseen, refusal)
		}
	}
	slices.Sort(unseen)
	for _, refusal := range unseen {
		t.Errorf("described, but never seen: %s", refusal)
	}
}

// testContract checks every answer of the contract suite.
func testContract(t *testing.T, c *checker) {
	contract.Run(t, func(testing.TB) contract.Backend {
		users := memstore.NewUsers[contract.Member]()
		return contract.Backend{
			Tokens: memstore.NewTokens[uuid.UUID](),
			Users:  users,
			SetFlags: func(ctx context.Context, id uuid.UUID, active, verified, superuser bool) error {
				return users.Update(ctx, id, func(m *contract.Member) {
					m.Active, m.Verified, m.Superuser = active, verified, superuser
				})
			},
			DeleteUser: users.Delete,
			Watch: func(tb testing.TB, auth *ginauth.Auth[contract.Member], next http.RoundTripper) http.RoundTripper {
				return c.watch(tb, auth.OpenAPI(), next)
			},
		}
	})
}
