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

// signUps are the accounts that clients registered, or tried to.
type signUps struct {
	mu        sync.Mutex
	n         int
	confirmed []string
	unsure    []string // without an answer: they may be there
}

func (s *signUps) register(ctx context.Context, a *application, _ *rand.Rand) {
	s.mu.Lock()
	s.n++
	name := fmt.Sprintf("signup%d@example.com", s.n)
	s.mu.Unlock()
	err := a.register(ctx, name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.confirmed = append(s.confirmed, name)
	} else {
		s.unsure = append(s.unsure, name)
	}
}

// check wants every account to be there, or not, as a whole, and forgets them.
func (s *signUps) check(t *testing.T, a *application) (confirmed, unsure int) {
	t.Helper()
	for _, name := range s.confirmed {
		if got := a.login(name); got.status != http.StatusOK {
			t.Errorf("%s was registered, and the login answers %v", name, got)
		}
	}
	for _, name := range s.unsure {
		switch got := a.login(name); got.status {
		case http.StatusOK:
		case http.StatusBadRequest: // it is not there, and so it can be had
			if err := a.register(t.Context(), name); errors.Is(err, account.ErrEmailTaken) {
				t.Errorf("%s cannot log in, and its address is taken: half an account", name)
			} else if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		default:
			t.Errorf("the login of %s: %v", name, got)
		}
	}
	confirmed, unsure = len(s.confirmed), len(s.unsure)
	s.confirmed, s.unsure = nil, nil
	return confirmed, unsure
}

// TestServer kills the server under load, and starts it again on what it has left.
// It is a devmongo of the test's own, whatever the suite runs against.
func TestServer(t *testing.T) {
	rng := rand.New(rand.NewPCG(*seed, 2))
	p, err := startProcess("127.0.0.1:0", filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.kill() })
	var apps []*application
	for _, cache := range []strategy.Cache{{}, {MaxStaleness: 500 * time.Millisecond}} {
		apps = append(apps, newAppOn(t, "killed", appConfig{
			uri: p.uri(), sessions: strategy.Config{Lifetime: 24 * time.Hour, Cache: cache},
			noLimiter: true, // the logins of accounts that are not there fail
		}))
	}
	clients, accounts := newTraffic(apps, 8, 60), &signUps{}
	apps[0].mustRegister(t, clients.names...)
	clients.during = accounts.register

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
		took, err := clients.works(recoveryBound)
		stop()
		if err != nil {
			t.Error(err)
			break
		}
		before := clients.size()
		confirmed, unsure := accounts.check(t, apps[0])
		wholeDocuments(t, apps[0])
		clients.settle()
		clients.report(t)
		t.Logf("round %d: everything worked again after %v; %d tokens, %d accounts and %d without an answer were checked",
			round, took.Round(time.Millisecond), before, confirmed, unsure)
		// What the checks have left would slow a server down that scans.
		if _, err := apps[0].db.Collection("access_tokens").DeleteMany(t.Context(), bson.D{}); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(clients)
}

// wholeDocuments checks that nothing was half written.
func wholeDocuments(t *testing.T, a *application) {
	t.Helper()
	for collection, fields := range map[string]map[string]bson.Type{
		"users": {"_id": bson.TypeBinary, "email": bson.TypeString, "hashed_password": bson.TypeString,
			"is_active": bson.TypeBoolean, "created_at": bson.TypeDateTime},
		"access_tokens": {"_id": bson.TypeBinary, "token": bson.TypeString, "user_id": bson.TypeBinary, "created_at": bson.TypeDateTime},
		"revocations":   {"_id": bson.TypeBinary, "at": bson.TypeDateTime},
	} {
		cur, err := a.db.Collection(collection).Find(t.Context(), bson.D{})
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
					t.Errorf("%s has a document whose %s is of the type %v, want %v: %v", collection, field, got, want, doc)
				}
			}
		}
	}
}
