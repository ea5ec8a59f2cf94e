package faults_test

import (
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/internal/secretscan"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

// TestLoad has 64 clients read, log in and log out on two instances, one of them with
// a cache, beside very many sessions where the server has indexes for that.
func TestLoad(t *testing.T) {
	const connections = 64
	// A server that scans (none of those explains) has its hands full with this.
	sessions, think := 200, 2*time.Second
	if server.Capabilities.Explain {
		sessions, think = 100_000, 0
	}
	if *sessionsWanted > 0 {
		sessions, think = *sessionsWanted, 0
	}
	duration := max(*soak, 6*time.Second)

	db := newDatabase(t)
	var apps []*application
	for _, cache := range []strategy.Cache{{}, {MaxStaleness: 2 * time.Second, MaxEntries: 10_000}} {
		apps = append(apps, newAppOn(t, db.Name(), appConfig{
			timeout:   mongostore.DefaultTimeout,
			sessions:  strategy.Config{Lifetime: 24 * time.Hour, Cache: cache},
			noLimiter: true, // 64 clients of one address would be too many at once, when they are slow
		}))
	}
	clients := newTraffic(apps, connections, sessions)
	clients.think = think
	const more = mongostore.DefaultTimeout - callTimeout
	clients.bounds = [3]time.Duration{guardBound + guardCalls*more, loginBound + loginCalls*more, logoutBound + logoutCalls*more}
	apps[0].mustRegister(t, clients.names...)
	begin := time.Now()
	clients.holdings = insertSessions(t, apps[0], clients.names, sessions)
	t.Logf("%d sessions were there after %v", sessions, time.Since(begin).Round(time.Millisecond))

	stop := clients.background(t.Context(), *seed)
	time.Sleep(duration / 3) // caches and pools fill
	before := heapInUse()
	time.Sleep(duration - duration/3)
	grown := heapInUse() - before
	stop()
	const most = 32 << 20
	if grown > most {
		t.Errorf("%d bytes more are in use than after a third of the time, want at most %d", grown, most)
	}
	all := clients.all()
	rand.New(rand.NewPCG(*seed, 3)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	clients.agree("in the end", all[:min(len(all), 100)])
	clients.report(t)
	answered, failed := int64(0), int64(0)
	for what := range doing {
		failed += clients.count(what, http.StatusServiceUnavailable)
		for status := range clients.counts[what] {
			answered += clients.count(what, status)
		}
	}
	if failed*100 > answered {
		t.Errorf("%d of %d answers were 503, want hardly any", failed, answered)
	}
	t.Logf("%d answers in %v; %d KiB more in use than after a third of it; %v", answered, duration, grown>>10, clients)
}

// insertSessions makes sessions past the library, many at once.
func insertSessions(t *testing.T, a *application, names []string, n int) (holdings []*holding) {
	t.Helper()
	format, err := strategy.NewTokenFormat("")
	if err != nil {
		t.Fatal(err)
	}
	var ids []uuid.UUID
	for _, name := range names {
		user, err := a.users.ByEmail(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, user.ID)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	binary := func(id uuid.UUID) bson.Binary { return bson.Binary{Subtype: bson.TypeBinaryUUID, Data: id[:]} }
	var docs []any
	for i := range n {
		secret, digest := format.New()
		secretscan.Record(secret.Reveal())
		holdings = append(holdings, &holding{token: secret.Reveal()})
		docs = append(docs, bson.D{
			{Key: "_id", Value: binary(uuid.Must(uuid.NewV7()))}, {Key: "token", Value: digest},
			{Key: "user_id", Value: binary(ids[i%len(ids)])}, {Key: "created_at", Value: now},
		})
		if len(docs) == 1000 || i == n-1 {
			if _, err := a.db.Collection("access_tokens").InsertMany(t.Context(), docs); err != nil {
				t.Fatal(err)
			}
			docs = nil
		}
	}
	return holdings
}
