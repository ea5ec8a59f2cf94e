package memstore_test

import (
	"testing"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/storetest"
	"github.com/latchkey-go/latchkey/strategy"
)

func TestRevocationsSatisfyTheContract(t *testing.T) {
	t.Run("uuid", func(t *testing.T) { storetest.RunRevocations(t, uuid.New, openLog[uuid.UUID]) })
	t.Run("object ID", func(t *testing.T) { storetest.RunRevocations(t, bson.NewObjectID, openLog[bson.ObjectID]) })
	t.Run("string", func(t *testing.T) { storetest.RunRevocations(t, nextString, openLog[string]) })
	t.Run("int64", func(t *testing.T) { storetest.RunRevocations(t, nextInt, openLog[int64]) })
}

func openLog[ID comparable](testing.TB) strategy.RevocationLog[ID] { return memstore.NewTokens[ID]() }

// A follower that missed a revocation fails, and does not skip it.
func TestFollowerThatMissedRevocationsFails(t *testing.T) {
	log := memstore.NewTokens[int64]()
	behind, inTime := log.FollowRevocations(), log.FollowRevocations()
	const kept = 1 << 16
	for n := range int64(kept + 1) {
		if err := log.PublishRevocation(t.Context(), strategy.Revocation[int64]{UserID: n + 1}); err != nil {
			t.Fatalf("PublishRevocation: %v", err)
		}
		if n == kept/2 {
			if got, err := inTime(t.Context()); len(got) != kept/2+1 || err != nil {
				t.Errorf("a follower in time: got %d, %v, want %d", len(got), err, kept/2+1)
			}
		}
	}
	if got, err := inTime(t.Context()); len(got) != kept/2 || err != nil {
		t.Errorf("a follower in time: got %d, %v, want %d", len(got), err, kept/2)
	}
	for range 2 {
		if got, err := behind(t.Context()); got != nil || err == nil {
			t.Errorf("a follower too late: got %d, %v, want an error", len(got), err)
		}
	}
}
