package faults_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

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
// on the same data, and checks that nothing acknowledged was lost. It uses its own
// devmongo, whatever server the suite uses.
func TestServerKilledUnderLoad(t *testing.T) {
	rng := rand.New(rand.NewPCG(*seed, 2))
	p, err := startProcess("127.0.0.1:0", filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.kill() })
	var rigs []*rig
	for _, cache := range []strategy.Cache{{}, {MaxStaleness: 500 * time.Millisecond}} {
		rigs = append(rigs, newRig(t, "killed", rigConfig{
			uri: p.uri(), sessions: strategy.Config{Lifetime: 24 * time.Hour, Cache: cache},
			noLimiter: true, // logins of accounts that were not registered fail
		}))
	}
	clients, accounts := newTraffic(rigs, 8, 60), &registrations{}
	rigs[0].mustRegister(t, clients.emails...)
	clients.extra = accounts.register

	begin := time.Now()
	for round := 1; (round <= 3 || time.Since(begin) < *soak) && !t.Failed(); round++ {
		stop := clients.background(t.Context(), rng.Uint64())
		time.Sleep(time.Duration(300+rng.IntN(600)) * time.Millisecond)
		p.kill()
		time.Sleep(time.Duration(rng.IntN(600)) * time.Millisecond)
		if p, err = startProcess(p.addr, p.dir); err != nil {
			stop()
			t.Fatal(err)
		}
		took, err := clients.awaitRecovery(recoveryBound)
		stop()
		if err != nil {
			t.Error(err)
			break
		}
		before := clients.size()
		confirmed, unsure := accounts.check(t, rigs[0])
		checkDocuments(t, rigs[0])
		clients.settle()
		clients.report(t)
		t.Logf("round %d: recovered after %v; checked %d tokens, %d accounts and %d unanswered registrations",
			round, took.Round(time.Millisecond), before, confirmed, unsure)
		// Many rows would slow down a server without indexes.
		if _, err := rigs[0].db.Collection("access_tokens").DeleteMany(t.Context(), bson.D{}); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(clients)
}

// checkDocuments checks that every document has its required fields: that none was half
// written.
func checkDocuments(t *testing.T, r *rig) {
	t.Helper()
	for collection, fields := range map[string]map[string]bson.Type{
		"users": {"_id": bson.TypeBinary, "email": bson.TypeString, "hashed_password": bson.TypeString,
			"is_active": bson.TypeBoolean, "created_at": bson.TypeDateTime},
		"access_tokens": {"_id": bson.TypeBinary, "token": bson.TypeString, "user_id": bson.TypeBinary, "created_at": bson.TypeDateTime},
		"revocations":   {"_id": bson.TypeBinary, "at": bson.TypeDateTime},
	} {
		cur, err := r.db.Collection(collection).Find(t.Context(), bson.D{})
		if err != nil {
			t.Fatal(err)
		}
		var docs []bson.Raw
		if err := cur.All(t.Context(), &docs); err != nil {
			t.Fatal(err)
		}
		for _, doc := range docs {
			for field, want := range fields {
				if got := doc.Lookup(field).Type; got != want {
					t.Errorf("%s has a document with a %s of type %v, want %v: %v", collection, field, got, want, doc)
				}
			}
		}
	}
}
