package storetest_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/storetest"
	"github.com/latchkey-go/latchkey/strategy"
)

// User IDs can be of any comparable type; newID must make another one each time.
func ExampleRun() {
	var lastID atomic.Int64
	newID := func() int64 { return lastID.Add(1) }
	TestTokens := func(t *testing.T) {
		storetest.Run(t, newID, func(testing.TB) strategy.Store[int64] {
			return memstore.NewTokens[int64]()
		})
	}
	fmt.Println("passes:", passes(TestTokens))
	// Output: passes: true
}

// The users have a value in every field, so that the suite notices a field that the store
// loses.
func ExampleRunUsers() {
	type Member struct {
		account.User[uuid.UUID]
		Company string
	}
	newMember := func(email string) Member {
		return Member{
			User: account.User[uuid.UUID]{
				ID:             uuid.New(),
				Email:          email,
				HashedPassword: account.NewPasswordHash("a hash"),
				Active:         true,
				Verified:       true,
				Superuser:      true,
				CreatedAt:      time.Now().UTC().Truncate(time.Millisecond),
				Version:        1,
			},
			Company: "Acme",
		}
	}
	TestUsers := func(t *testing.T) {
		storetest.RunUsers(t, newMember, func(testing.TB) account.Store[Member, uuid.UUID] {
			return memstore.NewUsers[Member]()
		})
	}
	fmt.Println("passes:", passes(TestUsers))
	// Output: passes: true
}

func ExampleRunAttempts() {
	TestAttempts := func(t *testing.T) {
		storetest.RunAttempts(t, func(t testing.TB) account.AttemptStore {
			attempts, err := memstore.NewAttempts(0)
			if err != nil {
				t.Fatal(err)
			}
			return attempts
		})
	}
	fmt.Println("passes:", passes(TestAttempts))
	// Output: passes: true
}

func ExampleRunOneTimeTokens() {
	TestOneTimeTokens := func(t *testing.T) {
		storetest.RunOneTimeTokens(t, uuid.New, func(testing.TB) account.OneTimeTokenStore[uuid.UUID] {
			return memstore.NewOneTimeTokens[uuid.UUID]()
		})
	}
	fmt.Println("passes:", passes(TestOneTimeTokens))
	// Output: passes: true
}

func ExampleRunRevocations() {
	TestRevocations := func(t *testing.T) {
		storetest.RunRevocations(t, uuid.New, func(testing.TB) strategy.RevocationLog[uuid.UUID] {
			return memstore.NewTokens[uuid.UUID]()
		})
	}
	fmt.Println("passes:", passes(TestRevocations))
	// Output: passes: true
}

func ExampleRunOAuthAccounts() {
	TestOAuthAccounts := func(t *testing.T) {
		storetest.RunOAuthAccounts(t, uuid.New, func(testing.TB) account.OAuthAccountStore[uuid.UUID] {
			return memstore.NewOAuthAccounts[uuid.UUID]()
		})
	}
	fmt.Println("passes:", passes(TestOAuthAccounts))
	// Output: passes: true
}
