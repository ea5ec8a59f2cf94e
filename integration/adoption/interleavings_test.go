package adoption_test

import (
	"context"
	"sync"
	"testing"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/internal/fastapiusers"
)

// hooks are called around the first command of a name that an instance sends to a collection.
type hooks struct {
	command, coll string
	before, after func()
}

// hooked returns another instance of Latchkey, with a client of its own.
func (r *rig[ID]) hooked(s stage, h hooks) *latchkey.Latchkey[member[ID], ID] {
	r.t.Helper()
	var mu sync.Mutex
	var request int64
	first := func(e *event.CommandStartedEvent) bool {
		mu.Lock()
		defer mu.Unlock()
		name, ok := e.Command.Lookup(h.command).StringValueOK()
		if !ok || name != h.coll || request != 0 {
			return false
		}
		request = e.RequestID
		return true
	}
	monitor := &event.CommandMonitor{
		Started: func(_ context.Context, e *event.CommandStartedEvent) {
			if first(e) && h.before != nil {
				h.before()
			}
		},
		Succeeded: func(_ context.Context, e *event.CommandSucceededEvent) {
			mu.Lock()
			after := e.RequestID == request && h.after != nil
			mu.Unlock()
			if after {
				h.after()
			}
		},
	}
	return r.monitored(s, monitor)
}

// monitored returns another instance of Latchkey, with a client of its own.
func (r *rig[ID]) monitored(s stage, monitor *event.CommandMonitor) *latchkey.Latchkey[member[ID], ID] {
	r.t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(server.URI).SetMonitor(monitor))
	r.ok(err)
	r.t.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	cfg := config(s, r.python.UserID, r.python.Users.Name(), r.python.Tokens.Name())
	cfg.Now = r.clock
	lk, err := latchkey.New[member[ID]](client.Database(r.db.Name()), r.newID, cfg)
	r.ok(err)
	r.t.Cleanup(lk.Close)
	return lk
}

func TestNewCopyOfARevokedTokenIsNotConfirmed(t *testing.T) {
	adapters(t, confirmRace[uuid.UUID], confirmRace[bson.ObjectID])
}

// One instance reads the legacy row. Before it inserts the copy, another one has copied the row and
// read it again, and the token is revoked. Then the other one confirms what is there.
func confirmRace[ID comparable](t *testing.T, r *rig[ID]) {
	r.enter(convert)
	token := r.login(r.user("ann@example.com"))
	revoked, inserted, confirmed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	other := r.hooked(convert, hooks{command: "update", coll: ownTokens, before: func() {
		if err := r.Sessions.DestroyToken(context.Background(), token); err != nil {
			t.Error(err)
		}
		close(revoked)
		<-inserted
	}})
	one := r.hooked(convert, hooks{command: "insert", coll: ownTokens, before: func() {
		go func() {
			defer close(confirmed)
			_, _ = other.Sessions.ReadToken(context.Background(), token)
		}()
		<-revoked
	}, after: func() {
		close(inserted)
		<-confirmed
	}})
	if _, err := one.Sessions.ReadToken(t.Context(), token); err == nil {
		t.Error("the token was accepted after it was revoked")
	}
	r.check("afterwards", token, false, false)
}

func TestKilledRotationLeavesNoCopyThatOutlivesALogout(t *testing.T) {
	adapters(t, killedRotation[uuid.UUID], killedRotation[bson.ObjectID])
}

// An instance beside fastapi-users ends while it rotates a token. Its client logs out over there.
func killedRotation[ID comparable](t *testing.T, r *rig[ID]) {
	r.enter(beside)
	token := r.login(r.user("ann@example.com"))
	kill := func(token string) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		killed := r.hooked(beside, hooks{command: "findAndModify", coll: r.python.Tokens.Name(), before: cancel})
		if _, _, err := killed.Sessions.RotateToken(ctx, token); err == nil {
			t.Fatal("the rotation was not killed")
		}
	}
	kill(token)
	r.check("after the killed rotation", token, true, true)
	r.ok(r.python.Logout(t.Context(), token))
	r.check("after the log-out", token, false, false)
	r.enter(convert)
	r.check("after the log-out, in the next stage", token, false, false)
	// What a killed rotation has left does not disturb the next one, in either stage.
	for _, st := range []stage{beside, convert} {
		r.enter(beside)
		token = r.login(r.user(string(st) + "@example.com"))
		kill(token)
		r.enter(st)
		r.check("before the next rotation", token, true, true)
		secret, _, err := r.Sessions.RotateToken(t.Context(), token)
		r.ok(err)
		r.check("the legacy token", token, false, false)
		if !r.accepts(secret.Reveal()) {
			t.Error("the token of the rotation is refused")
		}
	}
}

func TestLogoutsWithMadeUpTokensAreBounded(t *testing.T) {
	adapters(t, madeUp[uuid.UUID], madeUp[bson.ObjectID])
}

func madeUp[ID comparable](t *testing.T, r *rig[ID]) {
	r.enter(beside)
	var mu sync.Mutex
	running, most := 0, 0
	change := func(name string, by int) {
		if name != "findAndModify" {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		running += by
		most = max(most, running)
	}
	lk := r.monitored(beside, &event.CommandMonitor{
		Started:   func(_ context.Context, e *event.CommandStartedEvent) { change(e.CommandName, 1) },
		Succeeded: func(_ context.Context, e *event.CommandSucceededEvent) { change(e.CommandName, -1) },
		Failed:    func(_ context.Context, e *event.CommandFailedEvent) { change(e.CommandName, -1) },
	})
	var wg sync.WaitGroup
	for range 150 {
		wg.Go(func() { _ = lk.Sessions.DestroyToken(t.Context(), fastapiusers.NewToken()) })
	}
	wg.Wait()
	if most == 0 || most > 32 {
		t.Errorf("%d deletes ran at a time, want at most 32", most)
	}
}
