package integration_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/mongostore"
)

// These tests wait for the server's TTL monitor, which runs by the server's clock.

func TestServerDeletesExpiredTokens(t *testing.T) {
	testserver.Require(t, server.Capabilities.TTL, "ttl")
	t.Parallel()
	tokens := newTokens[uuid.UUID](t, database(t), mongostore.TokensConfig{Lifetime: time.Hour, TTLGrace: time.Second})
	expired := insertAged(t, tokens, time.Now().Add(-2*time.Hour))
	live := insertAged(t, tokens, time.Now())
	eventually(t, server.TTLWait(), "the expired token is deleted", func() bool { return !exists(t, tokens, expired) })
	if !exists(t, tokens, live) {
		t.Error("the live token was deleted")
	}
}

func TestServerDeletesExpiredOneTimeTokens(t *testing.T) {
	testserver.Require(t, server.Capabilities.TTL, "ttl")
	t.Parallel()
	db := database(t)
	tokens := newOneTimeTokens[uuid.UUID](t, db, mongostore.OneTimeTokensConfig{})
	now := time.Now()
	expired, live := addOneTime(t, tokens, now.Add(-time.Hour)), addOneTime(t, tokens, now.Add(time.Hour))
	eventually(t, server.TTLWait(), "the expired token is deleted", func() bool { return !storedOneTime(t, db, expired) })
	if !storedOneTime(t, db, live) {
		t.Error("the live token was deleted")
	}
}

func TestServerDeletesExpiredAttempts(t *testing.T) {
	testserver.Require(t, server.Capabilities.TTL, "ttl")
	t.Parallel()
	db := database(t)
	attempts := newAttempts(t, db, mongostore.AttemptsConfig{})
	now := time.Now()
	expired := addExpiring(t, attempts, now.Add(-time.Hour))
	live := addExpiring(t, attempts, now.Add(time.Hour))
	eventually(t, server.TTLWait(), "the expired counter is deleted", func() bool { return !stored(t, db, expired) })
	if !stored(t, db, live) {
		t.Error("the live counter was deleted")
	}
}
