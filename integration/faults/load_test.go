package faults_test

import (
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/internal/secretscan"
	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/strategy"
)

// TestLoadWithManySessions lets 64 clients use two instances, one of them with a cache. On a
// server with indexes there are 100,000 sessions.
func TestLoadWithManySessions(t *testing.T) {
	const connections = 64
	const storeTimeout = 3 * time.Second // the stores' default
	// A server that cannot explain scans the collection for each look-up.
	sessions, think := 200, 2*time.Second
	if server.Capabilities.Explain {
		sessions, think = 100_000, 0
	}
	if *sessionsWanted > 0 {
		sessions, think = *sessionsWanted, 0
	}
	duration := max(*soak, 6*time.Second)

	db := newDatabase(t)
	var rigs []*rig
	for _, cache := range []strategy.Cache{{}, {MaxStaleness: 2 * time.Second, MaxEntries: 10_000}} {
		rigs = append(rigs, newRig(t, db.Name(), rigConfig{
			timeout:   storeTimeout,
			sessions:  strategy.Config{Lifetime: 24 * time.Hour, Cache: cache},
			noLimiter: true, // the limiter would reject so many concurrent logins from one client IP
		}))
	}
	clients := newTraffic(rigs, connections, sessions)
	clients.think = think
	const more = storeTimeout - callTimeout
	clients.bounds = [requestKinds]time.Duration{guardBound + guardCalls*more, loginBound + loginCalls*more, logoutBound + logoutCalls*more}
	rigs[0].mustRegister(t, clients.emails...)
	begin := time.Now()
	clients.holdings = insertSessions(t, rigs[0], clients.emails, sessions)
	t.Logf("inserted %d sessions in %v", sessions, time.Since(begin).Round(time.Millisecond))

	stop := clients.background(t.Context(), *seed)
	time.Sleep(duration / 3) // caches and pools fill
	before := heapInUse()
	time.Sleep(duration - duration/3)
	grown := heapInUse() - before
	stop()
	const most = 32 << 20
	if grown > most {
		t.Errorf("the heap grew by %d bytes after the first third of the time, want at most %d", grown, most)
	}
	all := clients.all()
	rand.New(rand.NewPCG(*seed, 3)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	clients.agree("in the end", all[:min(len(all), 100)])
	clients.report(t)
	answered, failed := int64(0), int64(0)
	for kind := range requestNames {
		failed += clients.count(kind, http.StatusServiceUnavailable)
		for status := range clients.counts[kind] {
			answered += clients.count(kind, status)
		}
	}
	if failed*100 > answered {
		t.Errorf("%d of %d answers were 503, want at most 1 %%", failed, answered)
	}
	t.Logf("%d answers in %v; the heap grew by %d KiB; %v", answered, duration, grown>>10, clients)
}

// insertSessions inserts rows directly, and returns their tokens.
func insertSessions(t *testing.T, r *rig, emails []string, n int) (holdings []*holding) {
	t.Helper()
	var ids []uuid.UUID
	for _, email := range emails {
		user, err := r.users.ByEmail(t.Context(), email)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, user.ID)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	binary := func(id uuid.UUID) bson.Binary { return bson.Binary{Subtype: bson.TypeBinaryUUID, Data: id[:]} }
	var docs []any
	for i := range n {
		secret, digest := token.Default.New()
		secretscan.Record(secret)
		holdings = append(holdings, &holding{token: secret})
		docs = append(docs, bson.D{
			{Key: "_id", Value: binary(uuid.Must(uuid.NewV7()))}, {Key: "token", Value: digest},
			{Key: "user_id", Value: binary(ids[i%len(ids)])}, {Key: "created_at", Value: now},
		})
		if len(docs) == 1000 || i == n-1 {
			if _, err := r.mongo.db.Collection("access_tokens").InsertMany(t.Context(), docs); err != nil {
				t.Fatal(err)
			}
			docs = nil
		}
	}
	return holdings
}
