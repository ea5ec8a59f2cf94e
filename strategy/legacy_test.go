package strategy_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// legacyTokens is a LegacyStore that keeps the legacy tokens among the others.
type legacyTokens struct {
	*memstore.Tokens[uuid.UUID]
	reads  int
	failed error // of the deletes
}

var _ strategy.LegacyStore[uuid.UUID] = (*legacyTokens)(nil)

func (s *legacyTokens) Legacy(token string) bool { return strings.HasPrefix(token, "old-") }

func (s *legacyTokens) ByLegacyToken(ctx context.Context, secret string) (row, error) {
	s.reads++
	return s.ByToken(ctx, token.DigestOf(secret))
}

func (s *legacyTokens) RotateLegacyToken(ctx context.Context, secret string, to strategy.Rotation) (row, error) {
	old, err := s.Delete(ctx, token.DigestOf(secret))
	if err != nil {
		return old, err
	}
	old.Legacy, old.Digest, old.TokenVersion = false, to.Digest, to.TokenVersion
	return old, s.Insert(ctx, old)
}

func (s *legacyTokens) DeleteLegacyToken(ctx context.Context, secret string) (row, error) {
	return s.Delete(ctx, token.DigestOf(secret))
}

func (s *legacyTokens) DeleteByUser(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) (int64, error) {
	if s.failed != nil {
		return 0, s.failed
	}
	return s.Tokens.DeleteByUser(ctx, userID, except...)
}

// legacyRig is a rig whose store accepts legacy tokens.
type legacyRig struct {
	*rig
	store *legacyTokens
}

func newLegacyRig(t *testing.T, cfg strategy.Config) legacyRig {
	t.Helper()
	r := legacyRig{newRig(t, strategy.Config{}), &legacyTokens{Tokens: memstore.NewTokens[uuid.UUID]()}}
	cfg.Now, cfg.OnEvent = func() time.Time { return r.now }, r.events.record
	var err error
	if r.Database, err = strategy.NewDatabase(r.store, r.users, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Database.Close)
	return r
}

// legacy issues a legacy token of Ann's.
func (r legacyRig) legacy(t *testing.T) string {
	t.Helper()
	secret := "old-" + uuid.NewString()
	err := r.store.Insert(t.Context(), row{
		ID: uuid.Must(uuid.NewV7()), Digest: token.DigestOf(secret), UserID: r.ann.ID, CreatedAt: r.now.UTC().Truncate(time.Millisecond), Legacy: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// version sets the token version of Ann.
func (r legacyRig) version(v int64) {
	r.users.byID = func(context.Context, uuid.UUID) (user, error) {
		ann := r.ann
		ann.Version = v
		return ann, nil
	}
}

func (r legacyRig) wantInvalid(t *testing.T, what, secret string) {
	t.Helper()
	if _, err := r.ReadToken(t.Context(), secret); !errors.Is(err, strategy.ErrInvalidToken) {
		t.Errorf("%s: got %v, want ErrInvalidToken", what, err)
	}
}

func TestLegacyTokenIsReadFromTheStoreEveryTime(t *testing.T) {
	r := newLegacyRig(t, strategy.Config{Lifetime: lifetime, Cache: strategy.Cache{MaxStaleness: time.Minute}})
	secret := r.legacy(t)
	if !r.WellFormed(secret) || r.WellFormed("new-"+secret) {
		t.Error("WellFormed: want true for a legacy token and false for another string")
	}
	for range 3 {
		if s, err := r.ReadToken(t.Context(), secret); err != nil || s.User.ID != r.ann.ID {
			t.Fatalf("got %v, %v, want a session of Ann's", s, err)
		}
	}
	if r.store.reads != 3 {
		t.Errorf("got %d reads, want 3: another program can revoke the token without a word", r.store.reads)
	}
	if _, err := r.store.Delete(t.Context(), token.DigestOf(secret)); err != nil {
		t.Fatal(err)
	}
	r.wantInvalid(t, "revoked by another program", secret)
	reads := r.store.reads
	r.wantInvalid(t, "a malformed token", "older-"+secret)
	if r.store.reads != reads {
		t.Error("a malformed token was looked up")
	}
}

func TestTokenVersionDoesNotMatterToLegacyTokens(t *testing.T) {
	r := newLegacyRig(t, strategy.Config{})
	secret := r.legacy(t)
	own, _, err := r.WriteToken(t.Context(), r.ann)
	if err != nil {
		t.Fatal(err)
	}
	r.version(3)
	if _, err := r.ReadToken(t.Context(), secret); err != nil {
		t.Errorf("a legacy token of a user with another version: got %v, want none", err)
	}
	r.wantInvalid(t, "a token of an earlier version", own.Reveal())
	rotated, _, err := r.RotateToken(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	r.version(4)
	r.wantInvalid(t, "a rotated legacy token after the version was raised", rotated.Reveal())
	r.wantInvalid(t, "the legacy token after its rotation", secret)
	// The former system drops the version of a user whom it updates.
	r.version(0)
	if _, err := r.ReadToken(t.Context(), rotated.Reveal()); err != nil {
		t.Errorf("a token of a user whose version was dropped: got %v, want none", err)
	}
}

func TestRevocationOfLegacyTokensMustSucceed(t *testing.T) {
	r := newLegacyRig(t, strategy.Config{})
	secret := r.legacy(t)
	r.store.failed = errors.New("no answer")
	if err := r.UserChanged(t.Context(), r.ann.ID, strategy.RevokedByPassword); !errors.Is(err, r.store.failed) {
		t.Errorf("UserChanged: got %v, want the failure of the delete: no version revokes a legacy token", err)
	}
	r.store.failed = nil
	if err := r.UserChanged(t.Context(), r.ann.ID, strategy.RevokedByPassword); err != nil {
		t.Error(err)
	}
	r.wantInvalid(t, "after a new password", secret)
}

func TestLogoutEverywhereEndsTheLegacySessionThatAsksForIt(t *testing.T) {
	r := newLegacyRig(t, strategy.Config{})
	secret := r.legacy(t)
	s, err := r.ReadToken(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	ctx := strategy.ContextWithSession(t.Context(), *s)
	if err := r.UserChanged(ctx, r.ann.ID, strategy.RevokedByPassword); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadToken(t.Context(), secret); err != nil {
		t.Errorf("after a new password, before Renew: got %v, want none", err)
	}
	if err := r.UserChanged(ctx, r.ann.ID, strategy.RevokedAll); err != nil {
		t.Fatal(err)
	}
	r.wantInvalid(t, "logged out everywhere", secret)
}

func TestLegacyTokenOfTheLastYearHasAnExpiryThatJSONCanRepresent(t *testing.T) {
	r := newLegacyRig(t, strategy.Config{})
	secret := r.legacy(t)
	row, err := r.store.Delete(t.Context(), token.DigestOf(secret))
	if err != nil {
		t.Fatal(err)
	}
	row.ExpiresAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := r.store.Insert(t.Context(), row); err != nil {
		t.Fatal(err)
	}
	s, err := r.ReadToken(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := json.Marshal(s.ExpiresAt); err != nil {
		t.Error(err)
	}
}

func TestLoginEndsTheLegacySessionThatItReplaces(t *testing.T) {
	r := newLegacyRig(t, strategy.Config{})
	secret := r.legacy(t)
	if _, _, err := r.WriteToken(t.Context(), r.ann, strategy.WithReplaced(secret)); err != nil {
		t.Fatal(err)
	}
	r.wantInvalid(t, "replaced", secret)
	secret = r.legacy(t)
	r.events.take()
	if err := r.DestroyToken(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	if events := r.events.take(); len(events) != 1 || events[0].Kind != event.TokenRevoked || events[0].UserID != r.ann.ID {
		t.Errorf("got the events %v, want one revocation of Ann's", events)
	}
	r.wantInvalid(t, "logged out", secret)
}

func TestIdleTimeoutOfLegacyTokensBeginsWithTheFirstStoredUse(t *testing.T) {
	r := newLegacyRig(t, strategy.Config{IdleTimeout: time.Minute, TouchInterval: time.Second})
	secret := r.legacy(t)
	r.now = r.now.Add(time.Hour)
	if _, err := r.ReadToken(t.Context(), secret); err != nil {
		t.Fatalf("a token whose last use is unknown: got %v, want none", err)
	}
	r.now = r.now.Add(time.Minute + time.Millisecond)
	r.wantInvalid(t, "idle since its first use here", secret)
}

func TestTokensOfScriptsAreNeverLegacy(t *testing.T) {
	store := &legacyTokens{Tokens: memstore.NewTokens[uuid.UUID]()}
	_, err := strategy.NewDatabase(store, memstore.NewUsers[user](), strategy.Config{SurvivePasswordChange: true})
	if err == nil || !strings.Contains(err.Error(), "Config.SurvivePasswordChange") {
		t.Errorf("got %v, want an error that names SurvivePasswordChange", err)
	}
}
