package openapi_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/internal/contract"
	"github.com/latchkey-go/latchkey/memstore"
)

// Every answer of the contract suite is as its description says.
func TestAnswersFitTheDescription(t *testing.T) {
	c := newChecker()
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
	if t.Failed() {
		return
	}
	var unseen []string
	for refusal := range c.described {
		if !c.seen[refusal] && !strings.Contains(refusal, " /second/") {
			unseen = append(unseen, refusal)
		}
	}
	slices.Sort(unseen)
	for _, refusal := range unseen {
		t.Errorf("described, but never seen: %s", refusal)
	}
}
