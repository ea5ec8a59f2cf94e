package account_test

import (
	"testing"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy/storetest"
)

func TestMemoryAttemptsKeepTheContract(t *testing.T) {
	storetest.RunAttempts(t, func(tb testing.TB) account.AttemptStore {
		attempts, err := account.NewMemoryAttempts(100)
		if err != nil {
			tb.Fatal(err)
		}
		return attempts
	})
}
