package account_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/memstore"
)

func TestSemaphoreBoundsHashesAndQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		semaphore := account.NewSemaphore(2, 3, time.Second)
		var running, most, ran, busy atomic.Int64
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				err := semaphore.Run(t.Context(), func() {
					most.Store(max(most.Load(), running.Add(1)))
					time.Sleep(100 * time.Millisecond) // a hash, by the clock of the synctest bubble
					running.Add(-1)
					ran.Add(1)
				})
				if errors.Is(err, account.ErrBusy) {
					busy.Add(1)
				} else if err != nil {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if most.Load() != 2 || ran.Load() != 5 || busy.Load() != 95 {
			t.Errorf("%d ran concurrently, %d in all, %d were rejected; want 2, 5 and 95", most.Load(), ran.Load(), busy.Load())
		}
		// All slots are free again.
		if err := semaphore.Run(t.Context(), func() {}); err != nil {
			t.Errorf("afterwards: got %v", err)
		}
	})
}

func TestSemaphoreBoundsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		semaphore := account.NewSemaphore(1, 3, time.Second)
		go func() { _ = semaphore.Run(t.Context(), func() { time.Sleep(time.Minute) }) }()
		synctest.Wait()

		start := time.Now()
		err := semaphore.Run(t.Context(), func() { t.Error("f ran without a slot") })
		if took := time.Since(start); !errors.Is(err, account.ErrBusy) || took != time.Second {
			t.Errorf("got %v after %v, want ErrBusy after 1 s", err, took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := semaphore.Run(ctx, func() { t.Error("f ran without a slot") }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a cancelled call: got %v, want its context's error", err)
		}
		time.Sleep(time.Minute)
		if err := semaphore.Run(t.Context(), func() {}); err != nil {
			t.Errorf("afterwards: got %v", err)
		}
	})
}

// A flood of logins fails with ErrBusy for known and unknown accounts alike.
func TestFloodOfLoginsFailsAlike(t *testing.T) {
	users := memstore.NewUsers[member]()
	var mu sync.Mutex
	kinds := map[event.Kind]int{}
	m, err := account.NewManager(users, nil, newAttempts(t), uuid.New, account.Config{
		Argon2:              account.Argon2{MemoryKiB: 8192, Iterations: 1, Parallelism: 1},
		InsecureArgon2:      true,
		MaxConcurrentHashes: 1,
		MaxHashWait:         time.Nanosecond,
		OnEvent: func(_ context.Context, e event.Event) {
			mu.Lock()
			defer mu.Unlock()
			kinds[e.Kind]++
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	// An account for each login: attempts on one account take turns.
	for i := range 100 {
		if _, err := m.Register(t.Context(), newMember(fmt.Sprintf("known%d@example.com", i)), password); err != nil {
			t.Fatal(err)
		}
	}
	var busy [2]atomic.Int64
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			email := fmt.Sprintf("%s%d@example.com", []string{"known", "unknown"}[i%2], i/2)
			_, _, err := m.Authenticate(t.Context(), email, password, "")
			switch {
			case errors.Is(err, account.ErrBusy):
				busy[i%2].Add(1)
			case i%2 == 0 && err != nil, i%2 == 1 && !errors.Is(err, account.ErrBadCredentials):
				t.Errorf("%s: got %v", email, err)
			}
		})
	}
	wg.Wait()
	if busy[0].Load() == 0 || busy[1].Load() == 0 {
		t.Errorf("rejected: %d logins of a known and %d of an unknown account; want some of each", busy[0].Load(), busy[1].Load())
	}
	if got := int64(kinds[event.Overloaded]); got != busy[0].Load()+busy[1].Load() {
		t.Errorf("got %d events login.overloaded, want %d", got, busy[0].Load()+busy[1].Load())
	}
	if kinds[event.StoreFailed] != 0 {
		t.Errorf("got %d events store.failed, want none", kinds[event.StoreFailed])
	}
}

// Under load, an account without a password must not wait twice, and so fail more often than
// others.
func TestAccountWithoutPasswordTakesOneTurn(t *testing.T) {
	for name, hash := range map[string]string{"no password": "", "an unusable hash": "garbage", "a hash that is too costly": phc(1<<20, 1, 1, salt, key), "another password": phc(64, 1, 1, salt, key)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, account.Config{MaxConcurrentHashes: 1, MaxHashWait: time.Second})
				ann := r.withHash(t, hash)
				release, got := make(chan struct{}), make(chan error)
				hold := func() { _ = r.RunHash(context.Background(), func() { <-release }) }
				go hold()
				synctest.Wait()
				go func() {
					_, _, err := r.Authenticate(context.Background(), ann.Email, "wrong", "")
					got <- err
				}()
				synctest.Wait()
				go hold() // behind the login
				synctest.Wait()
				release <- struct{}{}
				if err := <-got; !errors.Is(err, account.ErrBadCredentials) {
					t.Errorf("got %v, want ErrBadCredentials", err)
				}
				close(release)
			})
		})
	}
}
