package faults_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// registrations are the accounts that clients registered or tried to register.
type registrations struct {
	mu        sync.Mutex
	n         int
	confirmed []string
	unsure    []string // the registration failed: the account may exist
}

func (s *registrations) register(ctx context.Context, r *rig, _ *rand.Rand) {
	s.mu.Lock()
	s.n++
	email := fmt.Sprintf("signup%d@example.com", s.n)
	s.mu.Unlock()
	err := r.register(ctx, email)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.confirmed = append(s.confirmed, email)
	} else {
		s.unsure = append(s.unsure, email)
	}
}

// check checks that each confirmed account exists, and each unsure one exists or can be
// registered. Then it forgets them all.
func (s *registrations) check(t *testing.T, r *rig) (confirmed, unsure int) {
	t.Helper()
	for _, email := range s.confirmed {
		if got := r.login(email); got.status != http.StatusOK {
			t.Errorf("the login of %s after its registration: %v, want 200", email, got)
		}
	}
	for _, email := range s.unsure {
		switch got := r.login(email); got.status {
		case http.StatusOK:
		case http.StatusBadRequest: // there is no such account
			if err := r.register(t.Context(), email); errors.Is(err, account.ErrEmailTaken) {
				t.Errorf("%s cannot log in, but the address is taken: half an account", email)
			} else if err != nil {
				t.Errorf("register %s: %v", email, err)
			}
		default:
			t.Errorf("the login of %s: %v, want 200 or 400", email, got)
		}
	}
	confirmed, unsure = len(s.confirmed), len(s.unsure)
	s.confirmed, s.unsure = nil, nil
	return confirmed, unsure
}

// TestServerKilledUnderLoad kills the server with SIGKILL while clients use it, restarts it
// on the same data, and checks that nothing acknowledged was lost. It uses a server of its
// own, whatever server the suite uses.
func TestServerKilledUnderLoad(t *testing.T) {
	t.Run("MongoDB", func(t *testing.T) { testServerKilledUnderLoad(t, ownMongoDB(t), 3) })
	t.Run("PostgreSQL", func(t *testing.T) { testServerKilledUnderLoad(t, ownPostgreSQL(t), 4) })
}

func testServerKilledUnderLoad(t *testing.T, on crasher, rounds int) {
	rng := rand.New(rand.NewPCG(*seed, 2))
	database := on.newDatabase(t)
	var rigs []*rig
	for _, cache := range []strategy.Cache{{}, {MaxStaleness: 500 * time.Millisecond}} {
		rigs = append(rigs, newRig(t, database, rigConfig{
			on: on, sessions: strategy.Config{Lifetime: 24 * time.Hour, Cache: cache},
			noLimiter: true, // logins of accounts that were not registered fail
		}))
	}
	clients, accounts := newTraffic(rigs, 8, 60), &registrations{}
	rigs[0].mustRegister(t, clients.emails...)
	clients.extra = accounts.register

	begin := time.Now()
	for round := 1; (round <= rounds || time.Since(begin) < *soak) && !t.Failed(); round++ {
		acknowledged := clients.count(doLogout, http.StatusNoContent)
		stop := clients.background(t.Context(), rng.Uint64())
		time.Sleep(time.Duration(300+rng.IntN(600)) * time.Millisecond)
		eventuallyTrue(t, 20*time.Second, "20 log-outs are acknowledged", func() bool {
			return clients.count(doLogout, http.StatusNoContent) >= acknowledged+20
		})
		crashed := time.Now()
		if err := on.crash(round, time.Duration(rng.IntN(600))*time.Millisecond); err != nil {
			stop()
			t.Fatal(err)
		}
		down := time.Since(crashed)
		took, err := clients.awaitRecovery(recoveryBound)
		stop()
		if err != nil {
			t.Error(err)
			break
		}
		before := clients.size()
		confirmed, unsure := accounts.check(t, rigs[0])
		on.inspect(t, rigs[0])
		clients.settle()
		clients.report(t)
		t.Logf("round %d: the server was down for %v, and all was well %v later; checked %d tokens, %d accounts and %d unanswered registrations",
			round, down.Round(time.Millisecond), took.Round(time.Millisecond), before, confirmed, unsure)
		on.deleteTokens(t, rigs[0]) // many would slow down a server without indexes
	}
	t.Log(clients)
}
