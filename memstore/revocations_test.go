package memstore_test

import (
	"context"
	"errors"
	"slices"
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

func TestUsersNotifyOfChanges(t *testing.T) {
	t.Run("uuid", func(t *testing.T) {
		storetest.RunUserNotifier(t,
			func(email string) member[uuid.UUID] { return newMember(uuid.New(), email) },
			func(testing.TB) storetest.NotifyingStore[member[uuid.UUID], uuid.UUID] {
				return memstore.NewUsers[member[uuid.UUID]]()
			})
	})
	t.Run("int64", func(t *testing.T) {
		storetest.RunUserNotifier(t,
			func(email string) member[int64] { return newMember(nextInt(), email) },
			func(testing.TB) storetest.NotifyingStore[member[int64], int64] {
				return memstore.NewUsers[member[int64]]()
			})
	})
}

func TestUpdateAndDeleteCallListeners(t *testing.T) {
	users := memstore.NewUsers[member[int64]]()
	ann := newMember(nextInt(), "ann@example.com")
	if err := users.Insert(t.Context(), ann); err != nil {
		t.Fatalf("Insert: %v", err)
	}
	down := errors.New("down")
	var told []int64
	stop := users.OnUserChange(func(_ context.Context, id int64) error { told = append(told, id); return down })
	if err := users.Update(t.Context(), ann.ID, func(m *member[int64]) { m.Active = false }); !errors.Is(err, down) {
		t.Errorf("Update: got %v, want the listener's error", err)
	}
	if err := users.Delete(t.Context(), ann.ID); !errors.Is(err, down) {
		t.Errorf("Delete: got %v, want the listener's error", err)
	}
	if want := []int64{ann.ID, ann.ID}; !slices.Equal(told, want) {
		t.Errorf("the listener was called for %v, want %v", told, want)
	}
	stop()
	if err := users.Delete(t.Context(), ann.ID); err != nil {
		t.Errorf("Delete without a listener: got %v, want nil", err)
	}
}

// A listener can finish its work although the request of the change was cancelled.
func TestListenersAreNotCancelledWithTheRequest(t *testing.T) {
	users := memstore.NewUsers[member[int64]]()
	ann := newMember(nextInt(), "ann@example.com")
	if err := users.Insert(t.Context(), ann); err != nil {
		t.Fatalf("Insert: %v", err)
	}
	defer users.OnUserChange(func(ctx context.Context, _ int64) error { return ctx.Err() })()
	ctx, cancel := context.WithCancel(t.Context())
	if err := users.Update(ctx, ann.ID, func(*member[int64]) { cancel() }); err != nil {
		t.Errorf("Update: got %v, want nil", err)
	}
}

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
			if got, err := inTime.Next(t.Context()); len(got) != kept/2+1 || err != nil {
				t.Errorf("Next in time: got %d, %v, want %d", len(got), err, kept/2+1)
			}
		}
	}
	if got, err := inTime.Next(t.Context()); len(got) != kept/2 || err != nil {
		t.Errorf("Next in time: got %d, %v, want %d", len(got), err, kept/2)
	}
	for range 2 {
		if got, err := behind.Next(t.Context()); got != nil || err == nil {
			t.Errorf("Next too late: got %d, %v, want an error", len(got), err)
		}
	}
}
