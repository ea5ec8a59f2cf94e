package storetest_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/storetest"
	"github.com/latchkey-go/latchkey/strategy"
)

// CountingTokens is an application's own token store: it counts the reads of another store.
type CountingTokens struct {
	strategy.Store[uuid.UUID]
	reads atomic.Int64
}

func (s *CountingTokens) ByToken(ctx context.Context, digest string) (strategy.AccessToken[uuid.UUID], error) {
	s.reads.Add(1)
	return s.Store.ByToken(ctx, digest)
}

// In your own package, TestCountingTokens is an ordinary test function. The example runs it
// with a helper, passes.
func Example() {
	TestCountingTokens := func(t *testing.T) {
		storetest.Run(t, uuid.New, func(testing.TB) strategy.Store[uuid.UUID] {
			return &CountingTokens{Store: memstore.NewTokens[uuid.UUID]()}
		})
	}
	fmt.Println("passes:", passes(TestCountingTokens))
	// Output: passes: true
}
