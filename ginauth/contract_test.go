package ginauth_test

import (
	"context"
	"testing"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/internal/contract"
	"github.com/latchkey-go/latchkey/memstore"
)

func TestContract(t *testing.T) {
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
		}
	})
}
