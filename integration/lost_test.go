package integration_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/integration/internal/wireproxy"
	"github.com/latchkey-go/latchkey/strategy"
)

// lossyRig is a rig behind a proxy that loses the answers to the next commands of one name.
type lossyRig struct {
	*rig
	log  events
	left atomic.Int64
	// unsent says that the commands do not reach the server either.
	unsent atomic.Bool
	lost   atomic.Int64
}

func newLossyRig(t *testing.T, command string, cfg strategy.Config) *lossyRig {
	t.Helper()
	r := new(lossyRig)
	_, conn := connectThrough(t, func(request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
		if request.Command() != command || r.left.Add(-1) < 0 {
			return send(request)
		}
		r.lost.Add(1)
		if !r.unsent.Load() {
			if _, err := send(request); err != nil {
				return nil, err
			}
		}
		return nil, errors.New("lost") // closes the connection
	})
	// The driver must not repeat the command itself.
	client, _ := connect(t, options.Client().SetHosts([]string{conn.addr}).SetDirect(true).SetRetryWrites(false))
	cfg.OnEvent = r.log.add
	r.rig = newRig(t, testserver.Database(t, client), 0, cfg)
	return r
}

// lose makes the proxy lose the next n answers.
func (r *lossyRig) lose(n int64, unsent bool) {
	r.unsent.Store(unsent)
	r.left.Store(n)
	r.lost.Store(0)
}

func TestRotationWithALostAnswerKeepsTheSession(t *testing.T) {
	r := newLossyRig(t, "findAndModify", strategy.Config{Lifetime: time.Hour})
	for _, unsent := range []bool{false, true} {
		old := r.login()
		r.log.list = nil
		r.lose(1, unsent)
		secret, _, err := r.sessions.RotateToken(t.Context(), old, strategy.WithReauthentication(r.member, time.Now()))
		if err != nil {
			t.Fatalf("without an answer to the rotation: %v", err)
		}
		if n := r.lost.Load(); n != 1 {
			t.Errorf("%d answers were lost, want 1", n)
		}
		r.want(http.StatusOK, http.MethodGet, "/me", secret.Reveal(), "with the new token")
		r.want(http.StatusUnauthorized, http.MethodGet, "/me", old, "with the old token")
		if failed := r.log.count(event.StoreFailed); failed > 0 {
			t.Errorf("%d events store.failed, want none", failed)
		}
	}
	// Without any answer, the client must not believe anything.
	old := r.login()
	r.lose(100, true)
	if _, _, err := r.sessions.RotateToken(t.Context(), old); err == nil || errors.Is(err, strategy.ErrInvalidToken) {
		t.Errorf("without any answer: got %v, want a failure", err)
	}
	r.lose(0, false)
	r.want(http.StatusOK, http.MethodGet, "/me", old, "after a rotation that was not carried out")
}

func TestLoginWithALostAnswerToTheDeleteOfTheOldSession(t *testing.T) {
	r := newLossyRig(t, "findAndModify", strategy.Config{Lifetime: time.Hour, MaxSessions: 1})
	for _, unsent := range []bool{false, true} {
		for _, replaced := range []bool{false, true} {
			old := r.login()
			var opts []strategy.TokenOption
			if replaced {
				opts = append(opts, strategy.WithReplaced(old))
			}
			r.log.list = nil
			r.lose(1, unsent)
			secret, _, err := r.sessions.WriteToken(t.Context(), r.member, opts...)
			if err != nil {
				t.Fatalf("without an answer to the delete: %v", err)
			}
			if n := r.lost.Load(); n != 1 {
				t.Errorf("%d answers were lost, want 1", n)
			}
			r.want(http.StatusOK, http.MethodGet, "/me", secret.Reveal(), "with the new token")
			r.want(http.StatusUnauthorized, http.MethodGet, "/me", old, "with the old token")
			if failed := r.log.count(event.StoreFailed); failed > 0 {
				t.Errorf("%d events store.failed, want none", failed)
			}
		}
	}
	// The new session is taken back if the old one cannot be ended.
	old := r.login()
	r.lose(2, true)
	if _, _, err := r.sessions.WriteToken(t.Context(), r.member); err == nil {
		t.Error("a login that could not end the old session succeeded")
	}
	r.want(http.StatusOK, http.MethodGet, "/me", old, "after a login that failed")
	if ids := r.listed(old); len(ids) != 1 {
		t.Errorf("listed %d sessions, want 1", len(ids))
	}
}

// The client of a login goes away while the database inserts the session.
func TestAbandonedLoginsAreNoFailures(t *testing.T) {
	const logins = 12
	inserting, release := make(chan struct{}), make(chan struct{})
	var holding atomic.Bool
	client, _ := connectThrough(t, func(request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
		if request.Command() == "insert" && holding.Load() {
			inserting <- struct{}{}
			<-release
		}
		return send(request)
	})
	log := new(events)
	db := testserver.Database(t, client)
	r := newRig(t, db, 0, strategy.Config{Lifetime: time.Hour, OnEvent: log.add})
	holding.Store(true)
	form := url.Values{"username": {memberEmail}, "password": {password}}.Encode()
	for range logins {
		ctx, abandon := context.WithCancel(t.Context())
		answered := make(chan int)
		go func() { // without a client, which would not wait for the answer
			req := httptest.NewRequestWithContext(ctx, http.MethodPost, "/auth/login", strings.NewReader(form))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			w := httptest.NewRecorder()
			r.handler.ServeHTTP(w, req)
			answered <- w.Code
		}()
		<-inserting
		abandon()
		if status := <-answered; status != http.StatusServiceUnavailable {
			t.Errorf("an abandoned login was answered with %d, want 503", status)
		}
	}
	holding.Store(false)
	close(release)
	if failed := log.all(event.StoreFailed); len(failed) > 0 {
		t.Errorf("%d events store.failed after %d abandoned logins, want none; the first: %v", len(failed), logins, failed[0].Err)
	}
}
