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

// lateTouch is a store in which the first touch of a round lands after the
// log-out: the order that brings sessions back in stores that get it wrong.
type lateTouch struct {
	strategy.Store[uuid.UUID]
	touch func(ctx context.Context, digest string, at time.Time) error
	round atomic.Pointer[touchRound]
}

type touchRound struct {
	taken    atomic.Bool
	touching chan struct{} // closed when the first touch is on its way
	ended    chan struct{} // closed after the log-out
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

// raceLogout logs in and out, once a round, while requests of the same session
// touch it, rotate its token and authenticate again. It returns an error as soon
// as a request was accepted, or a row was left, after the log-out was
// acknowledged.
func raceLogout(t *testing.T, db *mongo.Database, store *lateTouch, rounds int) error {
	// A clock that goes on with every look, so that every request is due for a touch.
	start, ticks := time.Now(), atomic.Int64{}
	now := func() time.Time { return start.Add(time.Duration(ticks.Add(1)) * time.Millisecond) }
	cfg := strategy.Config{Lifetime: time.Hour, IdleTimeout: time.Hour, TouchInterval: time.Millisecond, Now: now}
	a := newAppOn(t, db, store, cfg)
	for round := range rounds {
		r := store.newRound()
		first := a.login()
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
		wg.Go(func() { a.call(http.MethodGet, "/me", first) })
		select {
		case <-r.touching: // with what it has read before the log-out
		case <-time.After(10 * time.Second):
			return fmt.Errorf("round %d: no touch", round)
		}
		wg.Go(func() { a.call(http.MethodGet, "/me", newest()) })
		for _, opts := range [][]strategy.RotateOption{nil, {strategy.Reauthenticated(a.member, now())}} {
			wg.Go(func() {
				secret, _, err := a.sessions.RotateToken(context.Background(), newest(), opts...)
				if err == nil {
					mu.Lock()
					tokens = append(tokens, secret.Reveal())
					mu.Unlock()
				} else if !errors.Is(err, strategy.ErrInvalidToken) {
					t.Errorf("rotate: %v", err)
				}
			})
		}
		// A token that was rotated away is a 401: the client logs out with the one
		// that it has by then.
		for status := 0; status != http.StatusNoContent; {
			status = a.call(http.MethodPost, "/auth/logout", newest())
			if status != http.StatusNoContent && status != http.StatusUnauthorized {
				close(r.ended)
				wg.Wait()
				return fmt.Errorf("round %d: the log-out answered %d", round, status)
			}
		}
		close(r.ended)
		wg.Wait()
		for i, token := range tokens {
			if status := a.call(http.MethodGet, "/me", token); status != http.StatusUnauthorized {
				return fmt.Errorf("round %d: after the log-out, token %d of %d was answered with %d", round, i, len(tokens), status)
			}
		}
		if n, err := db.Collection("access_tokens").CountDocuments(t.Context(), bson.D{}); err != nil || n != 0 {
			return fmt.Errorf("round %d: after the log-out there are %d rows (error %v), want none", round, n, err)
		}
	}
	return nil
}

func TestALoggedOutSessionNeverComesBack(t *testing.T) {
	db := database(t)
	tokens := newTokens[uuid.UUID](t, db, mongostore.TokensConfig{})
	if err := raceLogout(t, db, &lateTouch{Store: tokens, touch: tokens.Touch}, 200); err != nil {
		t.Error(err)
	}
}

// The test above can fail: it does for a store whose touch saves what it has read.
func TestALoggedOutSessionComesBackWhereATouchIsAnUpsert(t *testing.T) {
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
		t.Error("200 rounds found nothing wrong with an upsert")
	} else {
		t.Log("found:", err)
	}
}

// A session's use costs one write an interval, however many requests there are.
func TestTenThousandRequestsAreOneWrite(t *testing.T) {
	client, sent := connect(t)
	issued := time.Now().UTC().Truncate(time.Millisecond)
	now := issued
	a := newApp(t, testserver.Database(t, client), 0, strategy.Config{
		Lifetime: time.Hour, IdleTimeout: 10 * time.Minute, Now: func() time.Time { return now },
	})
	token := a.login()
	now = issued.Add(time.Minute) // the default interval is a tenth of the timeout
	sent.reset()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10_000 / 8 {
				req := httptest.NewRequest(http.MethodGet, "/me", nil)
				req.Header.Set("Authorization", "Bearer "+token)
				w := httptest.NewRecorder()
				a.handler.ServeHTTP(w, req)
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

func TestSixtyFourLoginsAtOnceWithALimitOfFive(t *testing.T) {
	for name, whenFull := range map[string]strategy.WhenFull{"the oldest go": strategy.EvictOldest, "new ones are refused": strategy.RefuseNew} {
		t.Run(name, func(t *testing.T) {
			db := database(t)
			a := newApp(t, db, 30*time.Second, strategy.Config{Lifetime: time.Hour, MaxSessions: 5, WhenFull: whenFull})
			var (
				mu     sync.Mutex
				tokens []string
				wg     sync.WaitGroup
			)
			for range 64 {
				wg.Go(func() {
					secret, _, err := a.sessions.WriteToken(context.Background(), a.member)
					if err == nil {
						mu.Lock()
						tokens = append(tokens, secret.Reveal())
						mu.Unlock()
					} else if whenFull != strategy.RefuseNew || !errors.Is(err, strategy.ErrTooManySessions) {
						t.Errorf("login: %v", err)
					}
				})
			}
			wg.Wait()
			live := 0
			for _, token := range tokens {
				switch _, err := a.sessions.ReadToken(t.Context(), token); {
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
			if live > 5 || rows != int64(live) {
				t.Errorf("%d sessions live in %d rows, want at most 5, and no other rows", live, rows)
			}
			if whenFull == strategy.EvictOldest && live != 5 {
				t.Errorf("%d sessions live, want 5", live)
			}
			if whenFull == strategy.RefuseNew && live != len(tokens) {
				t.Errorf("%d of the %d logins that were let in live", live, len(tokens))
			}
		})
	}
}

// everyCommand does everything once that sends a command.
func everyCommand(t *testing.T, a *app) {
	t.Helper()
	ctx := t.Context()
	token := a.login()
	a.want(http.StatusOK, http.MethodGet, "/me", token, "(and touches)")
	secret, session, err := a.sessions.RotateToken(ctx, token, strategy.Reauthenticated(a.member, time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	page, err := a.sessions.Sessions(ctx, a.member.ID, strategy.Page{Limit: 1})
	if err != nil || len(page.Sessions) != 1 {
		t.Fatalf("listed %d sessions (error %v), want 1", len(page.Sessions), err)
	}
	second := a.login()
	if page, err = a.sessions.Sessions(ctx, a.member.ID, strategy.Page{Limit: 1}); err != nil || page.Next == "" {
		t.Fatalf("next is %q (error %v)", page.Next, err)
	}
	if _, err = a.sessions.Sessions(ctx, a.member.ID, strategy.Page{Limit: 1, After: page.Next}); err != nil {
		t.Fatal(err)
	}
	if err := a.sessions.DestroyToken(ctx, second); err != nil {
		t.Fatal(err)
	}
	if err := a.sessions.DestroySession(ctx, a.member.ID, session.ID); err != nil {
		t.Fatal(err)
	}
	if err := a.sessions.DestroyAll(ctx, a.member.ID, uuid.New()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.sessions.ReadToken(ctx, secret.Reveal()); !errors.Is(err, strategy.ErrInvalidToken) {
		t.Errorf("the session lives on (error %v)", err)
	}
	if _, err := a.accounts.ChangePassword(ctx, a.member.ID, password, password+"!"); err != nil {
		t.Fatal(err)
	}
	if err := a.accounts.RevokeTokens(ctx, a.member.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := a.accounts.Authenticate(ctx, "nobody@example.com", password); !errors.Is(err, account.ErrBadCredentials) {
		t.Errorf("nobody: %v", err)
	}
}

func everyCommandSent(t *testing.T) (*mongo.Database, []bson.Raw) {
	t.Helper()
	client, sent := connect(t)
	db := testserver.Database(t, client)
	start, ticks := time.Now(), atomic.Int64{}
	a := newApp(t, db, 0, strategy.Config{
		Lifetime: time.Hour, IdleTimeout: time.Hour, TouchInterval: time.Millisecond,
		Now: func() time.Time { return start.Add(time.Duration(ticks.Add(1)) * time.Millisecond) },
	})
	sent.reset()
	everyCommand(t, a)
	return db, sent.all()
}

// Sharded on token, a write that lacks it would go to every shard.
func TestWritesOnTheHotPathFilterByToken(t *testing.T) {
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
		t.Errorf("sent %d touches, %d rotations, %d revocations; want some of each", touches, rotations, revocations)
	}
}

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
			t.Errorf("%s reads the whole collection: %v\n%s", name, c, plan)
		}
	}
	if explained < 10 {
		t.Errorf("%d commands were explained, want all", explained)
	}
}

// explainable is a command without what belongs to its session and deadline.
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
