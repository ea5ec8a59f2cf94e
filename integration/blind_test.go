package integration_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/integration/internal/wireproxy"
	"github.com/latchkey-go/latchkey/internal/contract"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/storetest"
	"github.com/latchkey-go/latchkey/strategy"
)

// blindServer is a proxy that answers writes as DocumentDB does beside an update of the same
// document by another command: that they matched nothing, while the document is there. It
// does so for every second delete, findAndModify and update of an account.
type blindServer struct {
	writes atomic.Int64
	// always makes every such write match nothing.
	always atomic.Bool
	missed atomic.Int64
}

func (s *blindServer) handle(request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
	var answer bson.D
	switch name := request.Command(); {
	case name == "findAndModify":
		answer = bson.D{{Key: "value", Value: nil}, {Key: "lastErrorObject", Value: bson.D{{Key: "n", Value: 0}, {Key: "updatedExisting", Value: false}}}}
	case name == "delete":
		answer = bson.D{{Key: "n", Value: 0}}
	case name == "update" && lookup(request.Body(), "update") == "users":
		answer = bson.D{{Key: "n", Value: 0}, {Key: "nModified", Value: 0}}
	}
	if answer == nil || s.writes.Add(1)%2 == 0 && !s.always.Load() {
		return send(request)
	}
	s.missed.Add(1)
	return wireproxy.Instead(append(answer, bson.E{Key: "ok", Value: 1.0}), request, send)
}

// blindDatabase returns a new database behind a blindServer.
func blindDatabase(tb testing.TB) (*mongo.Database, *blindServer) {
	tb.Helper()
	s := new(blindServer)
	client, _ := connectThrough(tb, s.handle)
	return testserver.Database(tb, client), s
}

func TestStoresKeepTheContractOnAServerThatMissesDocuments(t *testing.T) {
	t.Run("Tokens", func(t *testing.T) {
		storetest.Run(t, uuid.New, func(tb testing.TB) strategy.Store[uuid.UUID] {
			db, _ := blindDatabase(tb)
			return newTokens[uuid.UUID](tb, db, mongostore.TokensConfig{})
		})
	})
	t.Run("OneTimeTokens", func(t *testing.T) {
		storetest.RunOneTimeTokens(t, uuid.New, func(tb testing.TB) account.OneTimeTokenStore[uuid.UUID] {
			db, _ := blindDatabase(tb)
			return newOneTimeTokens[uuid.UUID](tb, db, mongostore.OneTimeTokensConfig{})
		})
	})
	t.Run("Users", func(t *testing.T) {
		storetest.RunUsers(t, newPerson(uuid.New), func(tb testing.TB) account.Store[person[uuid.UUID], uuid.UUID] {
			db, _ := blindDatabase(tb)
			return newUsers[person[uuid.UUID], uuid.UUID](tb, db, mongostore.UsersConfig{})
		})
	})
}

func TestContractOnAServerThatMissesDocuments(t *testing.T) {
	contract.Run(t, func(tb testing.TB) contract.Backend {
		db, _ := blindDatabase(tb)
		client, _ := connect(tb)
		return newBackendOf(tb, db, client.Database(db.Name()))
	})
}

func TestLoggedOutSessionNeverComesBackOnAServerThatMissesDocuments(t *testing.T) {
	db, server := blindDatabase(t)
	tokens := newTokens[uuid.UUID](t, db, mongostore.TokensConfig{})
	if err := raceLogout(t, db, &lateTouch{Store: tokens, touch: tokens.Touch}, 30); err != nil {
		t.Error(err)
	}
	if n := server.missed.Load(); n < 30 {
		t.Errorf("%d writes missed their document, want at least 30", n)
	}
}

// A log-out on a server that never deletes is no success.
func TestLogoutFailsIfTheServerNeverDeletes(t *testing.T) {
	db, server := blindDatabase(t)
	r := newRig(t, db, 0, strategy.Config{Lifetime: time.Hour, MaxSessions: 1})
	token := r.login()
	session, err := r.sessions.ReadToken(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	server.always.Store(true)
	for _, c := range []struct{ method, path string }{
		{http.MethodPost, "/auth/logout"},
		{http.MethodPost, "/auth/logout-all"},
		{http.MethodDelete, "/auth/sessions/" + session.ID.String()},
	} {
		r.want(http.StatusServiceUnavailable, c.method, c.path, token, "on a server that never deletes")
	}
	if err := r.sessions.DestroyToken(t.Context(), token); err == nil {
		t.Error("DestroyToken succeeded on a server that never deletes")
	}
	if _, status := r.tryLogin(); status != http.StatusServiceUnavailable {
		t.Errorf("a login beyond MaxSessions answered %d, want 503", status)
	}
	if err := r.accounts.Deactivate(t.Context(), r.member.ID); err == nil {
		t.Error("Deactivate succeeded on a server that never updates")
	}
	r.want(http.StatusOK, http.MethodGet, "/me", token, "after the failures")
	server.always.Store(false)
	r.want(http.StatusNoContent, http.MethodPost, "/auth/logout", token, "on a server that deletes")
	r.want(http.StatusUnauthorized, http.MethodGet, "/me", token, "after the log-out")
}
