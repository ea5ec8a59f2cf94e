package integration_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

// lateTouch is a store that delays the first touch of a round until after the logout. In this
// order a wrong store brings the session back.
type lateTouch struct {
	strategy.Store[uuid.UUID]
	touch func(ctx context.Context, digest string, at time.Time) error
	round atomic.Pointer[touchRound]
}

type touchRound struct {
	taken    atomic.Bool
	touching chan struct{} // closed when the first touch begins
	ended    chan struct{} // closed after the logout
}

func (s *lateTouch) newRound() *touchRound {
	r := &touchRound{touching: make(chan struct{}), ended: make(chan struct{})}
	s.round.Store(r)
	return r
}

func (s *lateTouch) Touch(ctx context.Context, digest string, at time.Time) error {
	if r := s.round.Load(); r.taken.CompareAndSwap(false, true) {
		close(r.touching)
		<-r.ended
	}
	return s.touch(ctx, digest, at)
}

// raceLogout logs in and out once a round, while concurrent requests of the same session touch
// it, rotate its token and reauthenticate. It returns an error if, after the acknowledged logout,
// a request is accepted or a row exists.
func raceLogout(t *testing.T, db *mongo.Database, store *lateTouch, rounds int) error {
	// The clock advances with every reading, so that every request is due for a touch.
	start, ticks := time.Now(), atomic.Int64{}
	now := func() time.Time { return start.Add(time.Duration(ticks.Add(1)) * time.Millisecond) }
	cfg := strategy.Config{Lifetime: time.Hour, IdleTimeout: time.Hour, TouchInterval: time.Millisecond, Now: now}
	r := newRigOn(t, db, 0, store, cfg)
	for n := range rounds {
		round := store.newRound()
		first := r.login()
		var (
			mu     sync.Mutex
			tokens = []string{first}
			wg     sync.WaitGroup
		)
		newest := func() string {
			mu.Lock()
			defer mu.Unlock()
			return tokens[len(tokens)-1]
		}
		wg.Go(func() { r.call(http.MethodGet, "/me", first) })
		select {
		case <-round.touching: // the request has read the row
		case <-time.After(10 * time.Second):
			return fmt.Errorf("round %d: no touch", n)
		}
		wg.Go(func() { r.call(http.MethodGet, "/me", newest()) })
		for _, opts := range [][]strategy.RotateOption{nil, {strategy.WithReauthentication(r.member, now())}} {
			wg.Go(func() {
				secret, _, err := r.sessions.RotateToken(context.Background(), newest(), opts...)
				if err == nil {
					mu.Lock()
					tokens = append(tokens, secret.Reveal())
					mu.Unlock()
				} else if !errors.Is(err, strategy.ErrInvalidToken) {
					t.Errorf("rotate: %v", err)
				}
			})
		}
		// A rotated token is a 401. The client tries again with its newest token.
		for status := 0; status != http.StatusNoContent; {
			status = r.call(http.MethodPost, "/auth/logout", newest())
			if status != http.StatusNoContent && status != http.StatusUnauthorized {
				close(round.ended)
				wg.Wait()
				return fmt.Errorf("round %d: the logout answered %d", n, status)
			}
		}
		close(round.ended)
		wg.Wait()
		for i, token := range tokens {
			if status := r.call(http.MethodGet, "/me", token); status != http.StatusUnauthorized {
				return fmt.Errorf("round %d: after the logout, token %d of %d was answered with %d", n, i, len(tokens), status)
			}
		}
		if rows, err := db.Collection("access_tokens").CountDocuments(t.Context(), bson.D{}); err != nil || rows != 0 {
			return fmt.Errorf("round %d: after the logout there are %d rows (error %v), want none", n, rows, err)
		}
	}
	return nil
}

func TestLoggedOutSessionNeverComesBack(t *testing.T) {
	db := database(t)
	tokens := newTokens[uuid.UUID](t, db, mongostore.TokensConfig{})
	if err := raceLogout(t, db, &lateTouch{Store: tokens, touch: tokens.Touch}, 200); err != nil {
		t.Error(err)
	}
}

// This shows that the test above can fail: with a touch that is an upsert, it does.
func TestLoggedOutSessionComesBackIfATouchIsAnUpsert(t *testing.T) {
	db := database(t)
	tokens := newTokens[uuid.UUID](t, db, mongostore.TokensConfig{})
	coll := db.Collection("access_tokens")
	user := uuid.New()
	upsert := func(ctx context.Context, digest string, at time.Time) error {
		_, err := coll.UpdateOne(ctx, bson.D{{Key: "token", Value: digest}}, bson.D{
			{Key: "$max", Value: bson.D{{Key: "last_used_at", Value: at}}},
			{Key: "$setOnInsert", Value: bson.D{{Key: "_id", Value: id4(uuid.New())}, {Key: "user_id", Value: id4(user)}, {Key: "created_at", Value: at}}},
		}, options.UpdateOne().SetUpsert(true))
		return err
	}
	if err := raceLogout(t, db, &lateTouch{Store: tokens, touch: upsert}, 200); err == nil {
		t.Error("200 rounds found no error with an upsert")
	} else {
		t.Log("found:", err)
	}
}

func TestManyRequestsCauseOneTouch(t *testing.T) {
	client, sent := connect(t)
	issued := time.Now().UTC().Truncate(time.Millisecond)
	now := issued
	r := newRig(t, testserver.Database(t, client), 0, strategy.Config{
		Lifetime: time.Hour, IdleTimeout: 10 * time.Minute, Now: func() time.Time { return now },
	})
	token := r.login()
	now = issued.Add(time.Minute) // later than the default TouchInterval, a tenth of IdleTimeout
	sent.reset()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 250 {
				req := httptest.NewRequest(http.MethodGet, "/me", nil)
				req.Header.Set("Authorization", "Bearer "+token)
				w := httptest.NewRecorder()
				r.handler.ServeHTTP(w, req)
				if w.Code != http.StatusOK {
					t.Errorf("answered %d", w.Code)
					return
				}
			}
		})
	}
	wg.Wait()
	writes := map[string]int{}
	for _, c := range sent.all() {
		if name := c.Index(0).Key(); name != "find" {
			writes[name]++
		}
	}
	if len(writes) != 1 || writes["update"] != 1 {
		t.Errorf("besides finds, %v were sent, want one update", writes)
	}
}

func TestSessionLimitHoldsForConcurrentLogins(t *testing.T) {
	const logins, limit = 64, 5
	db := database(t)
	r := newRig(t, db, 30*time.Second, strategy.Config{Lifetime: time.Hour, MaxSessions: limit})
	var (
		mu     sync.Mutex
		tokens []string
		wg     sync.WaitGroup
	)
	for range logins {
		wg.Go(func() {
			secret, _, err := r.sessions.WriteToken(context.Background(), r.member)
			if err != nil {
				t.Errorf("login: %v", err)
				return
			}
			mu.Lock()
			tokens = append(tokens, secret.Reveal())
			mu.Unlock()
		})
	}
	wg.Wait()
	live := 0
	for _, token := range tokens {
		switch _, err := r.sessions.ReadToken(t.Context(), token); {
		case err == nil:
			live++
		case !errors.Is(err, strategy.ErrInvalidToken):
			t.Errorf("read: %v", err)
		}
	}
	rows, err := db.Collection("access_tokens").CountDocuments(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	if live != limit || rows != limit {
		t.Errorf("%d sessions are valid and %d rows exist, want %d of both", live, rows, limit)
	}
}

// everyCommand calls every operation that sends a command.
func everyCommand(t *testing.T, r *rig) {
	t.Helper()
	ctx := t.Context()
	token := r.login()
	r.want(http.StatusOK, http.MethodGet, "/me", token, "with a touch")
	secret, session, err := r.sessions.RotateToken(ctx, token, strategy.WithReauthentication(r.member, time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	page, err := r.sessions.Sessions(ctx, r.member.ID, strategy.Page{Limit: 1})
	if err != nil || len(page.Sessions) != 1 {
		t.Fatalf("listed %d sessions (error %v), want 1", len(page.Sessions), err)
	}
	second := r.login()
	if page, err = r.sessions.Sessions(ctx, r.member.ID, strategy.Page{Limit: 1}); err != nil || page.Next == "" {
		t.Fatalf("next is %q (error %v)", page.Next, err)
	}
	if _, err = r.sessions.Sessions(ctx, r.member.ID, strategy.Page{Limit: 1, After: page.Next}); err != nil {
		t.Fatal(err)
	}
	if err := r.sessions.DestroyToken(ctx, second); err != nil {
		t.Fatal(err)
	}
	if err := r.sessions.DestroySession(ctx, r.member.ID, session.ID); err != nil {
		t.Fatal(err)
	}
	if err := r.sessions.DestroyAll(ctx, r.member.ID, uuid.New()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.sessions.ReadToken(ctx, secret.Reveal()); !errors.Is(err, strategy.ErrInvalidToken) {
		t.Errorf("the session is still valid (error %v)", err)
	}
	if _, err := r.accounts.ChangePassword(ctx, r.member.ID, password, password+"!"); err != nil {
		t.Fatal(err)
	}
	if err := r.accounts.RevokeTokens(ctx, r.member.ID); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.accounts.Authenticate(ctx, "nobody@example.com", password, ""); !errors.Is(err, account.ErrBadCredentials) {
		t.Errorf("unknown user: got the error %v, want ErrBadCredentials", err)
	}
}

// everyCommandSent returns every command of an application, and the database of the application.
func everyCommandSent(t *testing.T) (*mongo.Database, []bson.Raw) {
	t.Helper()
	client, sent := connect(t)
	db := testserver.Database(t, client)
	start, ticks := time.Now(), atomic.Int64{}
	r := newRig(t, db, 0, strategy.Config{
		Lifetime: time.Hour, IdleTimeout: time.Hour, TouchInterval: time.Millisecond,
		Now: func() time.Time { return start.Add(time.Duration(ticks.Add(1)) * time.Millisecond) },
	})
	sent.reset()
	everyCommand(t, r)
	return db, sent.all()
}

// In a collection that is sharded on token, a write without the token goes to every shard.
func TestFrequentWritesFilterByToken(t *testing.T) {
	_, sent := everyCommandSent(t)
	var touches, rotations, revocations int
	for _, c := range sent {
		switch {
		case lookup(c, "update") == "access_tokens":
			touches++
			if lookup(c, "updates.0.q.token") == nil || lookup(c, "updates.0.upsert") == true {
				t.Errorf("an update without a token in its filter, or an upsert: %v", c)
			}
		case lookup(c, "findAndModify") == "access_tokens" && lookup(c, "remove") != true:
			rotations++
			if lookup(c, "query.token") == nil || lookup(c, "upsert") == true {
				t.Errorf("a rotation without a token in its filter, or an upsert: %v", c)
			}
		case lookup(c, "findAndModify") == "access_tokens" && lookup(c, "query._id") == nil && !hasKey(c, "query", "_id"):
			revocations++
			if lookup(c, "query.token") == nil {
				t.Errorf("a revocation without a token in its filter: %v", c)
			}
		}
	}
	if touches == 0 || rotations == 0 || revocations == 0 {
		t.Errorf("sent %d touches, %d rotations and %d revocations, want at least one of each", touches, rotations, revocations)
	}
}

// hasKey reports whether the document has a field.
func hasKey(doc bson.Raw, path ...string) bool {
	_, err := doc.LookupErr(path...)
	return err == nil
}

func TestEveryQueryUsesAnIndex(t *testing.T) {
	testserver.Require(t, server.Capabilities.Explain, "explain")
	db, sent := everyCommandSent(t)
	explained := 0
	for _, c := range sent {
		name := c.Index(0).Key()
		switch name {
		case "find", "update", "delete", "findAndModify":
		default:
			continue
		}
		var out bson.Raw
		err := db.RunCommand(t.Context(), bson.D{{Key: "explain", Value: explainable(c)}, {Key: "verbosity", Value: "queryPlanner"}}).Decode(&out)
		if err != nil {
			t.Fatalf("explain %v: %v", c, err)
		}
		explained++
		plan := out.Lookup("queryPlanner", "winningPlan").String()
		if plan == "" || strings.Contains(plan, "COLLSCAN") {
			t.Errorf("%s scans the collection: %v\n%s", name, c, plan)
		}
	}
	if explained < 10 {
		t.Errorf("%d commands were explained, want at least 10", explained)
	}
}

// explainable returns a command without the fields that explain refuses.
func explainable(c bson.Raw) bson.D {
	var out bson.D
	elems, _ := c.Elements()
	for _, e := range elems {
		switch e.Key() {
		case "lsid", "txnNumber", "$db", "$clusterTime", "$readPreference", "maxTimeMS", "writeConcern":
		default:
			out = append(out, bson.E{Key: e.Key(), Value: e.Value()})
		}
	}
	return out
}
