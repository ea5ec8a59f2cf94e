package adoption_test

import (
	"errors"
	"runtime"
	"testing"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/internal/fastapiusers"
	"github.com/latchkey-go/latchkey/mongostore"
)

// The audit and the normalization need the memory of a batch, however many users there are.
func TestManyUsersAreAuditedAndNormalizedInBatches(t *testing.T) {
	const mostMemory = 64 << 20
	users := size(t, "LATCHKEY_TEST_ADOPTION_AUDIT", 1000)
	r := &rig[uuid.UUID]{newID: uuid.New}
	r.start(t)
	r.python = fastapiusers.Motor(r.db, lifetime, r.clock)
	r.indexes()
	_, err := r.python.Fill(t.Context(), users, 0, oldHash)
	r.ok(err)
	r.enter(beside)
	var start, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&start)
	peak, batches, read := uint64(0), 0, int64(0)
	progress := func(done, _ int64) {
		if batches++; batches%10 == 1 {
			runtime.GC()
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapAlloc-min(now.HeapAlloc, start.HeapAlloc))
		}
		read = done
	}
	check := func(hash string) error {
		if hash != oldHash {
			return errors.New("unexpected hash")
		}
		return nil
	}
	audit, err := r.Users.AuditUsers(t.Context(), mongostore.AuditConfig{CheckHash: check, Progress: progress})
	r.ok(err)
	odd := int64(users+98) / 100 // one in a hundred, from the second on
	if audit.Accounts != int64(users) || read != int64(users) || audit.NotNormal.Count != odd || audit.Collisions.Count+audit.Unreadable.Count+audit.UnusableHashes.Count != 0 {
		t.Errorf("got %+v, want %d accounts and %d addresses not in normal form", audit, users, odd)
	}
	normalized, err := r.Users.NormalizeUsers(t.Context(), mongostore.NormalizeConfig{KeepAs: "email_as_typed", Progress: progress})
	r.ok(err)
	if normalized.Changed != odd || normalized.Collisions.Count != 0 {
		t.Errorf("got %+v, want %d changes", normalized, odd)
	}
	audit, err = r.Users.AuditUsers(t.Context(), mongostore.AuditConfig{Progress: progress})
	r.ok(err)
	if audit.NotNormal.Count != 0 {
		t.Errorf("%d addresses are still not in normal form", audit.NotNormal.Count)
	}
	t.Logf("%d users in %d batches, at most %d KiB of memory", users, batches, peak>>10)
	if peak > mostMemory {
		t.Errorf("%d bytes of memory, want at most %d", peak, mostMemory)
	}
}
