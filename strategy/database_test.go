package strategy_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/internal/secretscan"
	"github.com/latchkey-go/latchkey/strategy"
	"github.com/latchkey-go/latchkey/strategy/memstore"
)

type (
	user  = account.User[uuid.UUID]
	row   = strategy.AccessToken[uuid.UUID]
	store = strategy.Store[uuid.UUID]
)

var _ strategy.Strategy[user] = (*strategy.Database[user, uuid.UUID])(nil)

// fakeTokens is a store that counts its calls, and whose methods can be replaced
// one by one.
type fakeTokens struct {
	store
	insert  func(context.Context, row) error
	byToken func(context.Context, string, time.Time) (row, error)
	delete  func(context.Context, string) (row, error)
	touch   func(context.Context, string, time.Time) error
	rotate  func(context.Context, string, strategy.Rotation) (row, error)
	byUser  func(context.Context, uuid.UUID, strategy.Position, int) ([]row, error)

	deleteSession func(context.Context, uuid.UUID, uuid.UUID) (row, error)
	deleteByUser  func(context.Context, uuid.UUID, ...uuid.UUID) (int64, error)

	calls atomic.Int64
}

func (s *fakeTokens) Insert(ctx context.Context, token row) error {
	s.calls.Add(1)
	if s.insert != nil {
		return s.insert(ctx, token)
	}
	return s.store.Insert(ctx, token)
}

func (s *fakeTokens) ByToken(ctx context.Context, digest string, createdAfter time.Time) (row, error) {
	s.calls.Add(1)
	if s.byToken != nil {
		return s.byToken(ctx, digest, createdAfter)
	}
	return s.store.ByToken(ctx, digest, createdAfter)
}

func (s *fakeTokens) Delete(ctx context.Context, digest string) (row, error) {
	s.calls.Add(1)
	if s.delete != nil {
		return s.delete(ctx, digest)
	}
	return s.store.Delete(ctx, digest)
}

func (s *fakeTokens) Touch(ctx context.Context, digest string, at time.Time) error {
	s.calls.Add(1)
	if s.touch != nil {
		return s.touch(ctx, digest, at)
	}
	return s.store.Touch(ctx, digest, at)
}

func (s *fakeTokens) Rotate(ctx context.Context, digest string, to strategy.Rotation) (row, error) {
	s.calls.Add(1)
	if s.rotate != nil {
		return s.rotate(ctx, digest, to)
	}
	return s.store.Rotate(ctx, digest, to)
}

func (s *fakeTokens) ByUser(ctx context.Context, userID uuid.UUID, after strategy.Position, limit int) ([]row, error) {
	s.calls.Add(1)
	if s.byUser != nil {
		return s.byUser(ctx, userID, after, limit)
	}
	return s.store.ByUser(ctx, userID, after, limit)
}

func (s *fakeTokens) DeleteSession(ctx context.Context, userID, id uuid.UUID) (row, error) {
	s.calls.Add(1)
	if s.deleteSession != nil {
		return s.deleteSession(ctx, userID, id)
	}
	return s.store.DeleteSession(ctx, userID, id)
}

func (s *fakeTokens) DeleteByUser(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) (int64, error) {
	s.calls.Add(1)
	if s.deleteByUser != nil {
		return s.deleteByUser(ctx, userID, except...)
	}
	return s.store.DeleteByUser(ctx, userID, except...)
}

// fakeUsers is a user source that can be replaced.
type fakeUsers struct {
	*memstore.Users[user, uuid.UUID]
	byID func(context.Context, uuid.UUID) (user, error)
}

func (s *fakeUsers) ByID(ctx context.Context, id uuid.UUID) (user, error) {
	if s.byID != nil {
		return s.byID(ctx, id)
	}
	return s.Users.ByID(ctx, id)
}

// harness is a Database over fakes, with one user.
type harness struct {
	*strategy.Database[user, uuid.UUID]
	tokens *fakeTokens
	users  *fakeUsers
	joined *fakeJoined // what the Database has for its users where withJoined is set
	events recorder
	now    time.Time
	ann    user

	secrets []string // the tokens issued, and their digests
}

const lifetime = time.Hour

func newHarness(t testing.TB, cfg strategy.Config) *harness {
	t.Helper()
	h := &harness{
		tokens: &fakeTokens{store: memstore.NewTokens[uuid.UUID]()},
		users:  &fakeUsers{Users: memstore.NewUsers[user]()},
		now:    time.Date(2026, 3, 29, 1, 59, 59, 987654321, time.FixedZone("elsewhere", 3600)),
		ann:    user{ID: uuid.New(), Email: "ann@example.com", Active: true},
	}
	h.joined = &fakeJoined{fakeUsers: h.users, tokens: h.tokens}
	if err := h.users.Insert(t.Context(), h.ann); err != nil {
		t.Fatalf("Insert the user: %v", err)
	}
	cfg.Now = func() time.Time { return h.now }
	cfg.OnEvent = h.events.record
	var err error
	if h.Database, err = strategy.NewDatabase(h.tokens, h.source(), cfg); err != nil {
		t.Fatalf("NewDatabase: %v", err)
	}
	return h
}

// issue returns a new token of Ann's and what the store holds for it.
func (h *harness) issue(t testing.TB, opts ...strategy.TokenOption) (token string, issued row) {
	t.Helper()
	secret, _, err := h.WriteToken(t.Context(), h.ann, opts...)
	if err != nil {
		t.Fatalf("WriteToken: %v", err)
	}
	token = secret.Reveal()
	secretscan.Record(token)
	h.secrets = append(h.secrets, token, sha256Of(token))
	return token, h.row(t, token)
}

// row returns what the store holds for a token, of whatever age.
func (h *harness) row(t testing.TB, token string) row {
	t.Helper()
	r, err := h.tokens.store.ByToken(t.Context(), sha256Of(token), time.Time{})
	if err != nil {
		t.Fatalf("the store's row of %q: %v", token, err)
	}
	return r
}

// reads says how ReadToken answers.
func (h *harness) reads(t *testing.T, when, token string, want error) {
	t.Helper()
	session, err := h.ReadToken(t.Context(), token)
	if !errors.Is(err, want) {
		t.Errorf("ReadToken %s: got %v, want %v", when, err, want)
	}
	if err != nil && !reflect.DeepEqual(session, strategy.Session[user]{}) {
		t.Errorf("ReadToken %s: got the session %v beside the error %v, want none", when, session, err)
	}
}

func TestATokenIsIssuedReadAndDestroyed(t *testing.T) {
	h := newHarness(t, strategy.Config{Lifetime: lifetime, TokenPrefix: "my_app_"})
	issuedAt := time.Date(2026, 3, 29, 0, 59, 59, 987e6, time.UTC) // h.now, in UTC and whole milliseconds

	secret, session, err := h.WriteToken(t.Context(), h.ann)
	if err != nil {
		t.Fatalf("WriteToken: %v", err)
	}
	token := secret.Reveal()
	if !strings.HasPrefix(token, "my_app_") {
		t.Errorf("token: got %q, want the prefix my_app_", token)
	}
	want := strategy.Session[user]{User: h.ann, SessionInfo: strategy.SessionInfo{
		ID: session.ID, UserID: h.ann.ID, CreatedAt: issuedAt, AuthenticatedAt: issuedAt, ExpiresAt: issuedAt.Add(lifetime),
	}}
	if !reflect.DeepEqual(session, want) {
		t.Errorf("session: got %+v, want %+v", session, want)
	}
	if session.ID.Version() != 7 {
		t.Errorf("session ID: got version %d, want 7", session.ID.Version())
	}
	wantRow := row{ID: session.ID, Digest: sha256Of(token), UserID: h.ann.ID, CreatedAt: issuedAt, SeenNotBefore: epoch}
	if got, want := h.row(t, token), wantRow; !reflect.DeepEqual(got, want) {
		t.Errorf("row: got %+v, want %+v", got, want)
	}

	if got, err := h.ReadToken(t.Context(), token); !reflect.DeepEqual(got, session) || err != nil {
		t.Errorf("ReadToken: got %+v, %v, want %+v, nil", got, err, session)
	}

	other, _, err := h.WriteToken(t.Context(), h.ann)
	if err != nil {
		t.Fatalf("WriteToken of a second token: %v", err)
	}
	for _, when := range []string{"the first", "the second"} {
		if err := h.DestroyToken(t.Context(), token); err != nil {
			t.Errorf("DestroyToken, %s time: got %v, want nil", when, err)
		}
		h.reads(t, "after DestroyToken", token, strategy.ErrInvalidToken)
	}
	h.reads(t, "of the user's other token", other.Reveal(), nil)
}

func TestReadTokenReturnsTheUserOfTheMoment(t *testing.T) {
	h := newHarness(t, strategy.Config{})
	token, _ := h.issue(t)
	if err := h.users.Update(t.Context(), h.ann.ID, func(u *user) { u.Verified = true }); err != nil {
		t.Fatalf("Update: %v", err)
	}
	if got, err := h.ReadToken(t.Context(), token); !got.User.Verified || err != nil {
		t.Errorf("ReadToken after the user was verified: got %+v, %v, want a verified user", got.User, err)
	}
}

func TestATokenLivesToTheMillisecond(t *testing.T) {
	day := time.Date(2026, 3, 29, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name             string
		lifetime         time.Duration
		issued, accepted time.Time // refused one millisecond after accepted
	}{
		{"whole milliseconds", time.Hour, day, day.Add(time.Hour)},
		{"the clock has a remainder when the token is issued", time.Hour, day.Add(999999), day.Add(time.Hour)},
		{"the clock has a remainder when the token is read", time.Hour, day, day.Add(time.Hour + 999999)},
		{"the clock has remainders that differ", time.Hour, day.Add(1), day.Add(time.Hour + 999999)},
		{"the clock is in another zone by then", time.Hour, day, day.Add(time.Hour).In(time.FixedZone("", 3600))},
		{"one millisecond", time.Millisecond, day, day.Add(time.Millisecond)},
		{"more than a year", 366 * 24 * time.Hour, day, day.AddDate(1, 0, 1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, strategy.Config{Lifetime: c.lifetime})
			h.now = c.issued
			token, issued := h.issue(t)

			h.now = c.accepted
			session, err := h.ReadToken(t.Context(), token)
			if err != nil {
				t.Errorf("at the age of Lifetime: got %v, want nil", err)
			}
			if want := c.accepted.UTC().Truncate(time.Millisecond); !session.ExpiresAt.Equal(want) {
				t.Errorf("ExpiresAt: got %v, want %v", session.ExpiresAt, want)
			}

			h.now = c.accepted.Add(time.Millisecond)
			h.reads(t, "one millisecond later", token, strategy.ErrInvalidToken)
			if got := h.row(t, token); !reflect.DeepEqual(got, issued) {
				t.Errorf("the row after the refusal: got %+v, want %+v untouched", got, issued)
			}

			// The store has no say in it: this one does not look at the age.
			h.tokens.byToken = func(ctx context.Context, digest string, _ time.Time) (row, error) {
				return h.tokens.store.ByToken(ctx, digest, time.Time{})
			}
			h.events.take()
			h.reads(t, "from a store that ignores the age limit", token, strategy.ErrInvalidToken)
			if got := h.events.take(); len(got) != 1 || got[0].Reason != strategy.ReasonExpired {
				t.Errorf("events: got %+v, want one with the reason expired", got)
			}
			h.now = c.accepted
			h.reads(t, "in time from a store that ignores the age limit", token, nil)
		})
	}
}

func TestWithoutALifetimeTokensDoNotExpire(t *testing.T) {
	h := newHarness(t, strategy.Config{})
	token, _ := h.issue(t)
	h.now = h.now.AddDate(500, 0, 0)
	session, err := h.ReadToken(t.Context(), token)
	if err != nil || !session.ExpiresAt.IsZero() {
		t.Errorf("after 500 years: got %+v, %v, want a session that does not expire", session, err)
	}
}

func TestAnExpiredTokenCanBeDestroyed(t *testing.T) {
	h := newHarness(t, strategy.Config{Lifetime: lifetime})
	token, _ := h.issue(t)
	h.now = h.now.Add(2 * lifetime)
	if err := h.DestroyToken(t.Context(), token); err != nil {
		t.Errorf("DestroyToken: got %v, want nil", err)
	}
	if _, err := h.tokens.store.ByToken(t.Context(), sha256Of(token), time.Time{}); !errors.Is(err, strategy.ErrTokenNotFound) {
		t.Errorf("the row: got %v, want ErrTokenNotFound", err)
	}
}

func TestOnlyAnActiveUserWithAnIDGetsAToken(t *testing.T) {
	h := newHarness(t, strategy.Config{})
	for _, c := range []struct {
		name string
		user user
		want error // nil for any
	}{
		{"an inactive user", user{ID: h.ann.ID}, strategy.ErrUserInactive},
		{"a user without an ID", user{Active: true}, nil},
		{"an inactive user without an ID", user{}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			secret, session, err := h.WriteToken(t.Context(), c.user)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("error: got %v, want %v", err, c.want)
			}
			if secret.Reveal() != "" || !reflect.DeepEqual(session, strategy.Session[user]{}) {
				t.Errorf("got the token %q and the session %+v, want none", secret.Reveal(), session)
			}
		})
	}
	if got := h.tokens.calls.Load(); got != 0 {
		t.Errorf("the store was called %d times, want 0", got)
	}
}

// The one error that logs people out must never come from a failure, and no
// failure may let anybody in.
func TestAFailureIsNoLogOutAndNoLogIn(t *testing.T) {
	for _, cause := range []error{
		errors.New("down"), context.Canceled, context.DeadlineExceeded,
		// Sentinels out of place: they mean nothing where they are not named.
		strategy.ErrDuplicateToken, strategy.ErrUserInactive,
	} {
		h := newHarness(t, strategy.Config{Lifetime: lifetime})
		token, _ := h.issue(t)
		h.events.take()
		check := func(op string, err error) {
			t.Helper()
			if !errors.Is(err, cause) || errors.Is(err, strategy.ErrInvalidToken) {
				t.Errorf("%s with the failure %q: got %v, want it wrapped, and no ErrInvalidToken", op, cause, err)
			}
			events := h.events.take()
			if len(events) != 1 || events[0].Kind != strategy.EventStoreFailed || !errors.Is(events[0].Err, cause) {
				t.Errorf("%s with the failure %q: got the events %+v, want one store.failed with it", op, cause, events)
			}
		}

		h.tokens.insert = func(context.Context, row) error { return cause }
		secret, session, err := h.WriteToken(t.Context(), h.ann)
		check("WriteToken", err)
		if secret.Reveal() != "" || !reflect.DeepEqual(session, strategy.Session[user]{}) {
			t.Errorf("WriteToken: got the token %q and the session %+v beside an error, want none", secret.Reveal(), session)
		}

		h.tokens.delete = func(context.Context, string) (row, error) { return row{}, cause }
		check("DestroyToken", h.DestroyToken(t.Context(), token))

		h.users.byID = func(context.Context, uuid.UUID) (user, error) { return h.ann, cause }
		session, err = h.ReadToken(t.Context(), token)
		check("ReadToken without its users", err)
		if !reflect.DeepEqual(session, strategy.Session[user]{}) {
			t.Errorf("ReadToken without its users: got the session %+v beside an error, want none", session)
		}

		issued := h.row(t, token)
		h.tokens.byToken = func(context.Context, string, time.Time) (row, error) { return issued, cause }
		session, err = h.ReadToken(t.Context(), token)
		check("ReadToken without its tokens", err)
		if !reflect.DeepEqual(session, strategy.Session[user]{}) {
			t.Errorf("ReadToken without its tokens: got the session %+v beside an error, want none", session)
		}

		// When all is well again, so is the token.
		h.tokens.byToken, h.users.byID = nil, nil
		h.reads(t, "after the failure", token, nil)
	}
}

func TestWrappedSentinelsAreUnderstood(t *testing.T) {
	h := newHarness(t, strategy.Config{})
	token, _ := h.issue(t)
	h.users.byID = func(context.Context, uuid.UUID) (user, error) {
		return user{}, fmt.Errorf("users: %w", strategy.ErrUserNotFound)
	}
	h.reads(t, "with a wrapped ErrUserNotFound", token, strategy.ErrInvalidToken)
	gone := fmt.Errorf("tokens: %w", strategy.ErrTokenNotFound)
	h.tokens.byToken = func(context.Context, string, time.Time) (row, error) { return row{}, gone }
	h.reads(t, "with a wrapped ErrTokenNotFound", token, strategy.ErrInvalidToken)
	h.tokens.delete = func(context.Context, string) (row, error) { return row{}, gone }
	if err := h.DestroyToken(t.Context(), token); err != nil {
		t.Errorf("DestroyToken with a wrapped ErrTokenNotFound: got %v, want nil", err)
	}
}

func TestAMalformedTokenCostsNoIO(t *testing.T) {
	h := newHarness(t, strategy.Config{Lifetime: lifetime})
	token, _ := h.issue(t)
	before := h.tokens.calls.Load()
	h.users.byID = func(context.Context, uuid.UUID) (user, error) {
		t.Error("the user source was asked")
		return user{}, strategy.ErrUserNotFound
	}
	alphabet := lower + upper + digits + "_\x00 é"
	random := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		// Half of them differ from a good token in one place, half are of any length.
		malformed := []byte(token)
		if random.IntN(2) == 0 {
			malformed = malformed[:random.IntN(len(malformed))]
		} else {
			malformed[random.IntN(len(malformed))] ^= byte(1 + random.IntN(255))
		}
		malformed = append(malformed, alphabet[random.IntN(len(alphabet))])[:random.IntN(2)+len(malformed)]
		if wellFormed(string(malformed)) {
			continue // the cut character came back
		}
		if _, err := h.ReadToken(t.Context(), string(malformed)); !errors.Is(err, strategy.ErrInvalidToken) {
			t.Fatalf("ReadToken(%q): got %v, want ErrInvalidToken", malformed, err)
		}
		if err := h.DestroyToken(t.Context(), string(malformed)); err != nil {
			t.Fatalf("DestroyToken(%q): got %v, want nil", malformed, err)
		}
	}
	if got := h.tokens.calls.Load() - before; got != 0 {
		t.Errorf("the store was called %d times, want 0", got)
	}
}

func TestConfigErrorsNameTheField(t *testing.T) {
	retaining := func(d time.Duration) store {
		return retainer{memstore.NewTokens[uuid.UUID](), d}
	}
	tokens, users := store(memstore.NewTokens[uuid.UUID]()), memstore.NewUsers[user]()
	for _, c := range []struct {
		name   string
		tokens store
		users  strategy.UserSource[user, uuid.UUID]
		cfg    strategy.Config
		want   string // part of the error; "" for none
	}{
		{"the zero Config is good", tokens, users, strategy.Config{}, ""},
		{"no tokens", nil, users, strategy.Config{}, "tokens"},
		{"no users", tokens, nil, strategy.Config{}, "users"},
		{"a negative lifetime", tokens, users, strategy.Config{Lifetime: -1}, "Config.Lifetime"},
		{"a negative idle timeout", tokens, users, strategy.Config{IdleTimeout: -1}, "Config.IdleTimeout"},
		{"a negative touch interval", tokens, users, strategy.Config{TouchInterval: -1}, "Config.TouchInterval"},
		{"a touch interval as long as the idle timeout", tokens, users, strategy.Config{IdleTimeout: time.Minute, TouchInterval: time.Minute}, "Config.TouchInterval"},
		{"a touch interval just shorter", tokens, users, strategy.Config{IdleTimeout: time.Minute, TouchInterval: time.Minute - 1}, ""},
		{"a short idle timeout with a short interval", tokens, users, strategy.Config{IdleTimeout: time.Second, TouchInterval: time.Millisecond}, ""},
		{"a touch interval without an idle timeout", tokens, users, strategy.Config{TouchInterval: time.Hour}, ""},
		{"a negative number of sessions", tokens, users, strategy.Config{MaxSessions: -1}, "Config.MaxSessions"},
		{"an unknown choice when full", tokens, users, strategy.Config{WhenFull: 2}, "Config.WhenFull"},
		{"a bad prefix", tokens, users, strategy.Config{TokenPrefix: "Bad"}, "Config.TokenPrefix"},
		{"a store that keeps tokens for less than their lifetime", retaining(time.Hour - 1), users, strategy.Config{Lifetime: time.Hour}, "Config.Lifetime"},
		{"a store that does not keep tokens that do not expire", retaining(time.Hour), users, strategy.Config{}, "Config.Lifetime"},
		{"a store that keeps tokens for their lifetime", retaining(time.Hour), users, strategy.Config{Lifetime: time.Hour}, ""},
		{"a store that keeps tokens for longer", retaining(time.Hour + 1), users, strategy.Config{Lifetime: time.Hour}, ""},
		{"a store that keeps tokens for ever", retaining(0), users, strategy.Config{Lifetime: time.Hour}, ""},
		{"a store that keeps tokens for ever, as they live", retaining(0), users, strategy.Config{}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			db, err := strategy.NewDatabase(c.tokens, c.users, c.cfg)
			if c.want == "" {
				if db == nil || err != nil {
					t.Errorf("got %v, %v, want a Database", db, err)
				}
			} else if db != nil || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v, want an error that names %s", db, err, c.want)
			}
		})
	}
}

type retainer struct {
	store
	kept time.Duration
}

func (r retainer) Retention() time.Duration { return r.kept }

func TestTheDefaultClockIsTheSystems(t *testing.T) {
	users := memstore.NewUsers[user]()
	db, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), users, strategy.Config{})
	if err != nil {
		t.Fatalf("NewDatabase: %v", err)
	}
	before := time.Now().Truncate(time.Millisecond)
	_, session, err := db.WriteToken(t.Context(), user{ID: uuid.New(), Active: true})
	if err != nil || session.CreatedAt.Before(before) || session.CreatedAt.After(time.Now()) {
		t.Errorf("CreatedAt: got %v, %v, want the present, from %v", session.CreatedAt, err, before)
	}
}

// Every outcome is an event, and none carries a token or its digest.
func TestEvents(t *testing.T) {
	down := errors.New("down")
	unknown, _ := mustFormat(t, "").New()
	for _, c := range []struct {
		name string
		do   func(t *testing.T, h *harness, token string)
		want []strategy.Event // UserID and SessionID stand for "set to Ann's"; Time is checked apart
	}{
		{
			"issue", func(t *testing.T, h *harness, _ string) { h.issue(t) },
			[]strategy.Event{{Kind: strategy.EventTokenIssued, UserID: true, SessionID: set}},
		},
		{
			"issue fails", func(t *testing.T, h *harness, _ string) {
				h.tokens.insert = func(context.Context, row) error { return down }
				_, _, _ = h.WriteToken(t.Context(), h.ann)
			},
			[]strategy.Event{{Kind: strategy.EventStoreFailed, Err: down}},
		},
		{
			"read a good token", func(t *testing.T, h *harness, token string) { h.reads(t, "", token, nil) },
			nil,
		},
		{
			"read a malformed token", func(t *testing.T, h *harness, token string) {
				h.reads(t, "", token+"x", strategy.ErrInvalidToken)
			},
			[]strategy.Event{{Kind: strategy.EventTokenDenied, Reason: strategy.ReasonMalformed}},
		},
		{
			"read a token that was never issued", func(t *testing.T, h *harness, token string) {
				h.reads(t, "", unknown.Reveal(), strategy.ErrInvalidToken)
			},
			[]strategy.Event{{Kind: strategy.EventTokenDenied, Reason: strategy.ReasonUnknown}},
		},
		{
			"read an expired token", func(t *testing.T, h *harness, token string) {
				expired := h.row(t, token)
				h.tokens.byToken = func(context.Context, string, time.Time) (row, error) { return expired, nil }
				h.now = h.now.Add(lifetime + time.Millisecond)
				h.reads(t, "", token, strategy.ErrInvalidToken)
			},
			[]strategy.Event{{Kind: strategy.EventTokenDenied, Reason: strategy.ReasonExpired, UserID: true, SessionID: set}},
		},
		{
			"read the token of a deleted user", func(t *testing.T, h *harness, token string) {
				if err := h.users.Delete(t.Context(), h.ann.ID); err != nil {
					t.Fatal(err)
				}
				h.reads(t, "", token, strategy.ErrInvalidToken)
			},
			[]strategy.Event{{Kind: strategy.EventTokenDenied, Reason: strategy.ReasonUserGone, UserID: true, SessionID: set}},
		},
		{
			"read the token of an inactive user", func(t *testing.T, h *harness, token string) {
				if err := h.users.Update(t.Context(), h.ann.ID, func(u *user) { u.Active = false }); err != nil {
					t.Fatal(err)
				}
				h.reads(t, "", token, strategy.ErrInvalidToken)
			},
			[]strategy.Event{{Kind: strategy.EventTokenDenied, Reason: strategy.ReasonUserInactive, UserID: true, SessionID: set}},
		},
		{
			"read fails at the tokens", func(t *testing.T, h *harness, token string) {
				h.tokens.byToken = func(context.Context, string, time.Time) (row, error) { return row{}, down }
				h.reads(t, "", token, down)
			},
			[]strategy.Event{{Kind: strategy.EventStoreFailed, Err: down}},
		},
		{
			"read fails at the users", func(t *testing.T, h *harness, token string) {
				h.users.byID = func(context.Context, uuid.UUID) (user, error) { return user{}, down }
				h.reads(t, "", token, down)
			},
			[]strategy.Event{{Kind: strategy.EventStoreFailed, Err: down}},
		},
		{
			"revoke twice, then read", func(t *testing.T, h *harness, token string) {
				_ = h.DestroyToken(t.Context(), token)
				_ = h.DestroyToken(t.Context(), token)
				h.reads(t, "", token, strategy.ErrInvalidToken)
			},
			[]strategy.Event{
				{Kind: strategy.EventTokenRevoked, UserID: true, SessionID: set},
				{Kind: strategy.EventTokenDenied, Reason: strategy.ReasonUnknown},
			},
		},
		{
			"revoke a malformed token", func(t *testing.T, h *harness, token string) { _ = h.DestroyToken(t.Context(), token+"x") },
			nil,
		},
		{
			"revoke fails", func(t *testing.T, h *harness, token string) {
				h.tokens.delete = func(context.Context, string) (row, error) { return row{}, down }
				_ = h.DestroyToken(t.Context(), token)
			},
			[]strategy.Event{{Kind: strategy.EventStoreFailed, Err: down}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, strategy.Config{Lifetime: lifetime})
			token, issued := h.issue(t)
			h.events.take()
			c.do(t, h, token)
			got := h.events.take()

			var shown strings.Builder
			log := strategy.LogEvents(slog.New(slog.NewJSONHandler(&shown, nil)))
			for i := range got {
				fmt.Fprintf(&shown, "%+v\n", got[i])
				log(t.Context(), got[i])
				if want := h.now.UTC().Truncate(time.Millisecond); !got[i].Time.Equal(want) {
					t.Errorf("event %d: got the time %v, want the clock's %v", i, got[i].Time, want)
				}
				if got[i].UserID == h.ann.ID {
					got[i].UserID = true
				}
				if got[i].SessionID == issued.ID || got[i].Kind == strategy.EventTokenIssued && got[i].SessionID != uuid.Nil {
					got[i].SessionID = set
				}
				if errors.Is(got[i].Err, down) {
					got[i].Err = down
				}
				got[i].Time = time.Time{}
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v\nwant %+v", got, c.want)
			}
			for _, secret := range append(h.secrets, unknown.Reveal(), sha256Of(unknown.Reveal())) {
				if strings.Contains(shown.String(), strings.TrimPrefix(secret, "lk_")) {
					t.Errorf("the events show %q:\n%s", secret, shown.String())
				}
			}
		})
	}
}

// set stands for Ann's session in the expected events.
var set = uuid.Max

// Nothing that the Database says may hold the token: its errors end in logs.
func TestErrorsDoNotShowTheToken(t *testing.T) {
	h := newHarness(t, strategy.Config{Lifetime: lifetime})
	token, issued := h.issue(t)
	var errs []error
	read := func(token string) { _, err := h.ReadToken(t.Context(), token); errs = append(errs, err) }
	read(token + "x")
	read(token[:51])
	h.users.byID = func(context.Context, uuid.UUID) (user, error) { return user{}, errors.New("down") }
	read(token)
	h.tokens.byToken = func(context.Context, string, time.Time) (row, error) { return row{}, errors.New("down") }
	read(token)
	h.tokens.byToken = nil
	h.now = h.now.Add(2 * lifetime)
	read(token)
	h.tokens.delete = func(context.Context, string) (row, error) { return row{}, errors.New("down") }
	errs = append(errs, h.DestroyToken(t.Context(), token))
	for _, err := range errs {
		if err == nil {
			t.Error("got no error, want one")
		} else if out := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(out, token[3:51]) || strings.Contains(out, issued.Digest) {
			t.Errorf("the error shows the token: %s", out)
		}
	}
}

func TestOnceDestroyTokenHasReturnedNoReadSucceeds(t *testing.T) {
	h := newHarness(t, strategy.Config{Lifetime: lifetime})
	for range 50 {
		token, _ := h.issue(t)
		var destroyed atomic.Bool
		var late atomic.Int64 // reads that began after DestroyToken had returned
		var readers sync.WaitGroup
		for range 8 {
			readers.Go(func() {
				for done := false; !done; {
					done = destroyed.Load()
					_, err := h.ReadToken(t.Context(), token)
					switch {
					case err != nil && !errors.Is(err, strategy.ErrInvalidToken):
						t.Errorf("ReadToken: got %v, want nil or ErrInvalidToken", err)
					case err == nil && done:
						late.Add(1)
					}
				}
			})
		}
		if err := h.DestroyToken(t.Context(), token); err != nil {
			t.Errorf("DestroyToken: %v", err)
		}
		destroyed.Store(true)
		readers.Wait()
		if got := late.Load(); got != 0 {
			t.Fatalf("%d reads succeeded after DestroyToken had returned, want 0", got)
		}
	}
}

func TestOfManyWhoDestroyATokenAtOnceOneIsTold(t *testing.T) {
	h := newHarness(t, strategy.Config{})
	token, issued := h.issue(t)
	h.events.take()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if err := h.DestroyToken(t.Context(), token); err != nil {
				t.Errorf("DestroyToken: got %v, want nil", err)
			}
		})
	}
	wg.Wait()
	if got := h.events.take(); len(got) != 1 || got[0].Kind != strategy.EventTokenRevoked || got[0].SessionID != issued.ID {
		t.Errorf("events: got %+v, want one token.revoked of %v", got, issued.ID)
	}
}

// A flood of bad tokens must not become work for the garbage collector.
func TestRefusingAMalformedTokenAllocatesNothing(t *testing.T) {
	db, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), memstore.NewUsers[user](), strategy.Config{Lifetime: lifetime})
	if err != nil {
		t.Fatalf("NewDatabase: %v", err)
	}
	bad := "lk_" + strings.Repeat("0", 49)
	ctx := t.Context()
	if got := testing.AllocsPerRun(100, func() { _, _ = db.ReadToken(ctx, bad) }); got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}

func BenchmarkReadToken(b *testing.B) {
	users := memstore.NewUsers[user]()
	ann := user{ID: uuid.New(), Active: true}
	db, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), users, strategy.Config{Lifetime: lifetime})
	if err := errors.Join(err, users.Insert(b.Context(), ann)); err != nil {
		b.Fatal(err)
	}
	good, _, err := db.WriteToken(b.Context(), ann)
	if err != nil {
		b.Fatal(err)
	}
	unknown, _ := mustFormat(b, "").New()
	for _, c := range []struct{ name, token string }{
		{"good", good.Reveal()},
		{"malformed", good.Reveal()[:51]},
		{"unknown", unknown.Reveal()},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			ctx := b.Context()
			for b.Loop() {
				_, _ = db.ReadToken(ctx, c.token)
			}
		})
	}
}
