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
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/secretscan"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

type (
	user  = account.User[uuid.UUID]
	row   = strategy.AccessToken[uuid.UUID]
	store = strategy.Store[uuid.UUID]
)

// fakeTokens is a store that counts its calls. A function that is not nil replaces a method.
type fakeTokens struct {
	store
	insert  func(context.Context, row) error
	byToken func(context.Context, string) (row, error)
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

func (s *fakeTokens) ByToken(ctx context.Context, digest string) (row, error) {
	s.calls.Add(1)
	if s.byToken != nil {
		return s.byToken(ctx, digest)
	}
	return s.store.ByToken(ctx, digest)
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

func (s *fakeTokens) Rename(ctx context.Context, userID, id uuid.UUID, name string) error {
	s.calls.Add(1)
	return s.store.Rename(ctx, userID, id, name)
}

func (s *fakeTokens) DeleteByUser(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) (int64, error) {
	s.calls.Add(1)
	if s.deleteByUser != nil {
		return s.deleteByUser(ctx, userID, except...)
	}
	return s.store.DeleteByUser(ctx, userID, except...)
}

// fakeUsers is a user source. byID replaces ByID if it is not nil.
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

// rig is a Database over fakes with one user, Ann.
type rig struct {
	*strategy.Database[user, uuid.UUID]
	tokens *fakeTokens
	users  *fakeUsers
	events recorder
	now    time.Time
	ann    user

	secrets []string // the issued tokens and their digests
}

const lifetime = time.Hour

func newRig(t testing.TB, cfg strategy.Config) *rig {
	t.Helper()
	r := &rig{
		tokens: &fakeTokens{store: memstore.NewTokens[uuid.UUID]()},
		users:  &fakeUsers{Users: memstore.NewUsers[user]()},
		now:    time.Date(2026, 3, 29, 1, 59, 59, 987654321, time.FixedZone("elsewhere", 3600)),
		ann:    user{ID: uuid.New(), Email: "ann@example.com", Active: true},
	}
	if err := r.users.Insert(t.Context(), r.ann); err != nil {
		t.Fatalf("Insert the user: %v", err)
	}
	cfg.Now = func() time.Time { return r.now }
	cfg.OnEvent = r.events.record
	var err error
	if r.Database, err = strategy.NewDatabase(r.tokens, r.users, cfg); err != nil {
		t.Fatalf("NewDatabase: %v", err)
	}
	return r
}

// issue returns a new token of Ann's and its row.
func (r *rig) issue(t testing.TB, opts ...strategy.TokenOption) (token string, issued row) {
	t.Helper()
	secret, _, err := r.WriteToken(t.Context(), r.ann, opts...)
	if err != nil {
		t.Fatalf("WriteToken: %v", err)
	}
	token = secret.Reveal()
	secretscan.Record(token)
	r.secrets = append(r.secrets, token, sha256Of(token))
	return token, r.row(t, token)
}

// row returns the row of a token, whatever its age.
func (r *rig) row(t testing.TB, token string) row {
	t.Helper()
	stored, err := r.tokens.store.ByToken(t.Context(), sha256Of(token))
	if err != nil {
		t.Fatalf("the row of %q: %v", token, err)
	}
	return stored
}

// reads checks the result of ReadToken.
func (r *rig) reads(t *testing.T, when, token string, want error) {
	t.Helper()
	session, err := r.ReadToken(t.Context(), token)
	if !errors.Is(err, want) {
		t.Errorf("ReadToken %s: got %v, want %v", when, err, want)
	}
	if (session == nil) != (err != nil) {
		t.Errorf("ReadToken %s: got the session %v and the error %v, want one of them", when, session, err)
	}
}

func TestTokenIsIssuedReadAndDestroyed(t *testing.T) {
	r := newRig(t, strategy.Config{Lifetime: lifetime, TokenPrefix: "my_app_"})
	issuedAt := time.Date(2026, 3, 29, 0, 59, 59, 987e6, time.UTC) // r.now, in UTC and whole milliseconds

	secret, session, err := r.WriteToken(t.Context(), r.ann)
	if err != nil {
		t.Fatalf("WriteToken: %v", err)
	}
	token := secret.Reveal()
	if !strings.HasPrefix(token, "my_app_") {
		t.Errorf("token: got %q, want the prefix my_app_", token)
	}
	want := strategy.Session[user]{User: r.ann, SessionInfo: strategy.SessionInfo{
		ID: session.ID, UserID: r.ann.ID, CreatedAt: issuedAt, AuthenticatedAt: issuedAt, ExpiresAt: issuedAt.Add(lifetime),
	}}
	if !reflect.DeepEqual(session, want) {
		t.Errorf("session: got %+v, want %+v", session, want)
	}
	if session.ID.Version() != 7 {
		t.Errorf("session ID: got version %d, want 7", session.ID.Version())
	}
	wantRow := row{ID: session.ID, Digest: sha256Of(token), UserID: r.ann.ID, CreatedAt: issuedAt}
	if got, want := r.row(t, token), wantRow; !reflect.DeepEqual(got, want) {
		t.Errorf("row: got %+v, want %+v", got, want)
	}

	if got, err := r.ReadToken(t.Context(), token); !reflect.DeepEqual(got, &session) || err != nil {
		t.Errorf("ReadToken: got %+v, %v, want %+v, nil", got, err, session)
	}

	other, _, err := r.WriteToken(t.Context(), r.ann)
	if err != nil {
		t.Fatalf("WriteToken of a second token: %v", err)
	}
	for _, when := range []string{"the first", "the second"} {
		if err := r.DestroyToken(t.Context(), token); err != nil {
			t.Errorf("DestroyToken, %s time: got %v, want nil", when, err)
		}
		r.reads(t, "after DestroyToken", token, strategy.ErrInvalidToken)
	}
	r.reads(t, "of the user's other token", other.Reveal(), nil)
}

func TestReadTokenReturnsTheCurrentUser(t *testing.T) {
	r := newRig(t, strategy.Config{})
	token, _ := r.issue(t)
	if err := r.users.Update(t.Context(), r.ann.ID, func(u *user) { u.Verified = true }); err != nil {
		t.Fatalf("Update: %v", err)
	}
	if got, err := r.ReadToken(t.Context(), token); err != nil || !got.User.Verified {
		t.Errorf("ReadToken after the user was verified: got %+v, %v, want a verified user", got, err)
	}
}

func TestTokenExpiresToTheMillisecond(t *testing.T) {
	day := time.Date(2026, 3, 29, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name             string
		lifetime         time.Duration
		issued, accepted time.Time // one millisecond after accepted, the token is refused
	}{
		{"whole milliseconds", time.Hour, day, day.Add(time.Hour)},
		{"the clock is between milliseconds when the token is issued", time.Hour, day.Add(999999), day.Add(time.Hour)},
		{"the clock is between milliseconds when the token is read", time.Hour, day, day.Add(time.Hour + 999999)},
		{"the clock is between milliseconds both times", time.Hour, day.Add(1), day.Add(time.Hour + 999999)},
		{"the clock is in another zone when the token is read", time.Hour, day, day.Add(time.Hour).In(time.FixedZone("", 3600))},
		{"one millisecond", time.Millisecond, day, day.Add(time.Millisecond)},
		{"more than a year", 366 * 24 * time.Hour, day, day.AddDate(1, 0, 1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, strategy.Config{Lifetime: c.lifetime})
			r.now = c.issued
			token, issued := r.issue(t)

			r.now = c.accepted
			session, err := r.ReadToken(t.Context(), token)
			if err != nil {
				t.Fatalf("at the age of Lifetime: got %v, want nil", err)
			}
			if want := c.accepted.UTC().Truncate(time.Millisecond); !session.ExpiresAt.Equal(want) {
				t.Errorf("ExpiresAt: got %v, want %v", session.ExpiresAt, want)
			}

			r.now = c.accepted.Add(time.Millisecond)
			r.events.take()
			r.reads(t, "one millisecond later", token, strategy.ErrInvalidToken)
			if got := r.events.take(); len(got) != 1 || got[0].Reason != event.ReasonExpired {
				t.Errorf("events: got %+v, want one with the reason expired", got)
			}
			if got := r.row(t, token); !reflect.DeepEqual(got, issued) {
				t.Errorf("the row after the refusal: got %+v, want %+v untouched", got, issued)
			}
		})
	}
}

func TestTokensDoNotExpireWithoutALifetime(t *testing.T) {
	r := newRig(t, strategy.Config{})
	token, _ := r.issue(t)
	r.now = r.now.AddDate(500, 0, 0)
	session, err := r.ReadToken(t.Context(), token)
	if err != nil || !session.ExpiresAt.IsZero() {
		t.Errorf("after 500 years: got %+v, %v, want a session that does not expire", session, err)
	}
}

func TestExpiredTokenCanBeDestroyed(t *testing.T) {
	r := newRig(t, strategy.Config{Lifetime: lifetime})
	token, _ := r.issue(t)
	r.now = r.now.Add(2 * lifetime)
	if err := r.DestroyToken(t.Context(), token); err != nil {
		t.Errorf("DestroyToken: got %v, want nil", err)
	}
	if _, err := r.tokens.store.ByToken(t.Context(), sha256Of(token)); !errors.Is(err, strategy.ErrTokenNotFound) {
		t.Errorf("the row: got %v, want ErrTokenNotFound", err)
	}
}

func TestWriteTokenRejectsInactiveUsersAndUsersWithoutAnID(t *testing.T) {
	r := newRig(t, strategy.Config{})
	for _, c := range []struct {
		name string
		user user
		want error // nil for any
	}{
		{"an inactive user", user{ID: r.ann.ID}, strategy.ErrUserInactive},
		{"a user without an ID", user{Active: true}, nil},
		{"an inactive user without an ID", user{}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			secret, session, err := r.WriteToken(t.Context(), c.user)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("error: got %v, want %v", err, c.want)
			}
			if secret.Reveal() != "" || !reflect.DeepEqual(session, strategy.Session[user]{}) {
				t.Errorf("got the token %q and the session %+v, want none", secret.Reveal(), session)
			}
		})
	}
	if got := r.tokens.calls.Load(); got != 0 {
		t.Errorf("the store was called %d times, want 0", got)
	}
}

// A failure must not return ErrInvalidToken, which logs users out, and must not grant access.
func TestStoreFailureGrantsNothingAndIsNotALogOut(t *testing.T) {
	for _, cause := range []error{
		errors.New("down"), context.Canceled, context.DeadlineExceeded,
		// Sentinel errors that the contract of the method does not name.
		strategy.ErrDuplicateToken, strategy.ErrUserInactive,
	} {
		r := newRig(t, strategy.Config{Lifetime: lifetime})
		token, _ := r.issue(t)
		r.events.take()
		check := func(op string, err error) {
			t.Helper()
			if !errors.Is(err, cause) || errors.Is(err, strategy.ErrInvalidToken) {
				t.Errorf("%s with the failure %q: got %v, want it wrapped, and no ErrInvalidToken", op, cause, err)
			}
			events := r.events.take()
			if len(events) != 1 || events[0].Kind != event.StoreFailed || !errors.Is(events[0].Err, cause) {
				t.Errorf("%s with the failure %q: got the events %+v, want one store.failed with it", op, cause, events)
			}
		}

		r.tokens.insert = func(context.Context, row) error { return cause }
		secret, session, err := r.WriteToken(t.Context(), r.ann)
		check("WriteToken", err)
		if secret.Reveal() != "" || !reflect.DeepEqual(session, strategy.Session[user]{}) {
			t.Errorf("WriteToken: got the token %q and the session %+v beside an error, want none", secret.Reveal(), session)
		}

		r.tokens.delete = func(context.Context, string) (row, error) { return row{}, cause }
		check("DestroyToken", r.DestroyToken(t.Context(), token))

		r.users.byID = func(context.Context, uuid.UUID) (user, error) { return r.ann, cause }
		read, err := r.ReadToken(t.Context(), token)
		check("ReadToken without its users", err)
		if read != nil {
			t.Errorf("ReadToken without its users: got the session %+v beside an error, want none", read)
		}

		issued := r.row(t, token)
		r.tokens.byToken = func(context.Context, string) (row, error) { return issued, cause }
		read, err = r.ReadToken(t.Context(), token)
		check("ReadToken without its tokens", err)
		if read != nil {
			t.Errorf("ReadToken without its tokens: got the session %+v beside an error, want none", read)
		}

		// The token is still valid.
		r.tokens.byToken, r.users.byID = nil, nil
		r.reads(t, "after the failure", token, nil)
	}
}

func TestWrappedSentinelErrorsAreRecognized(t *testing.T) {
	r := newRig(t, strategy.Config{})
	token, _ := r.issue(t)
	r.users.byID = func(context.Context, uuid.UUID) (user, error) {
		return user{}, fmt.Errorf("users: %w", strategy.ErrUserNotFound)
	}
	r.reads(t, "with a wrapped ErrUserNotFound", token, strategy.ErrInvalidToken)
	gone := fmt.Errorf("tokens: %w", strategy.ErrTokenNotFound)
	r.tokens.byToken = func(context.Context, string) (row, error) { return row{}, gone }
	r.reads(t, "with a wrapped ErrTokenNotFound", token, strategy.ErrInvalidToken)
	r.tokens.delete = func(context.Context, string) (row, error) { return row{}, gone }
	if err := r.DestroyToken(t.Context(), token); err != nil {
		t.Errorf("DestroyToken with a wrapped ErrTokenNotFound: got %v, want nil", err)
	}
}

func TestMalformedTokenCausesNoIO(t *testing.T) {
	r := newRig(t, strategy.Config{Lifetime: lifetime})
	token, _ := r.issue(t)
	before := r.tokens.calls.Load()
	r.users.byID = func(context.Context, uuid.UUID) (user, error) {
		t.Error("the user source was asked")
		return user{}, strategy.ErrUserNotFound
	}
	const alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_\x00 é"
	random := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		// Half differ from a valid token in one character, half have any length.
		malformed := []byte(token)
		if random.IntN(2) == 0 {
			malformed = malformed[:random.IntN(len(malformed))]
		} else {
			malformed[random.IntN(len(malformed))] ^= byte(1 + random.IntN(255))
		}
		malformed = append(malformed, alphabet[random.IntN(len(alphabet))])[:random.IntN(2)+len(malformed)]
		if string(malformed) == token {
			continue
		}
		if _, err := r.ReadToken(t.Context(), string(malformed)); !errors.Is(err, strategy.ErrInvalidToken) {
			t.Fatalf("ReadToken(%q): got %v, want ErrInvalidToken", malformed, err)
		}
		if err := r.DestroyToken(t.Context(), string(malformed)); err != nil {
			t.Fatalf("DestroyToken(%q): got %v, want nil", malformed, err)
		}
	}
	if got := r.tokens.calls.Load() - before; got != 0 {
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
		want   string // part of the error; "" means no error
	}{
		{"the zero Config", tokens, users, strategy.Config{}, ""},
		{"tokens is nil", nil, users, strategy.Config{}, "tokens"},
		{"users is nil", tokens, nil, strategy.Config{}, "users"},
		{"a negative lifetime", tokens, users, strategy.Config{Lifetime: -1}, "Config.Lifetime"},
		{"a negative idle timeout", tokens, users, strategy.Config{IdleTimeout: -1}, "Config.IdleTimeout"},
		{"a negative touch interval", tokens, users, strategy.Config{TouchInterval: -1}, "Config.TouchInterval"},
		{"a touch interval as long as the idle timeout", tokens, users, strategy.Config{IdleTimeout: time.Minute, TouchInterval: time.Minute}, "Config.TouchInterval"},
		{"a touch interval just shorter", tokens, users, strategy.Config{IdleTimeout: time.Minute, TouchInterval: time.Minute - 1}, ""},
		{"a short idle timeout with a short interval", tokens, users, strategy.Config{IdleTimeout: time.Second, TouchInterval: time.Millisecond}, ""},
		{"a touch interval without an idle timeout", tokens, users, strategy.Config{TouchInterval: time.Hour}, ""},
		{"a negative number of sessions", tokens, users, strategy.Config{MaxSessions: -1}, "Config.MaxSessions"},
		{"a bad prefix", tokens, users, strategy.Config{TokenPrefix: "Bad"}, "Config.TokenPrefix"},
		{"a retention shorter than the lifetime", retaining(time.Hour - 1), users, strategy.Config{Lifetime: time.Hour}, "Config.Lifetime"},
		{"a retention without a lifetime", retaining(time.Hour), users, strategy.Config{}, "Config.Lifetime"},
		{"a retention equal to the lifetime", retaining(time.Hour), users, strategy.Config{Lifetime: time.Hour}, ""},
		{"a retention longer than the lifetime", retaining(time.Hour + 1), users, strategy.Config{Lifetime: time.Hour}, ""},
		{"no retention, with a lifetime", retaining(0), users, strategy.Config{Lifetime: time.Hour}, ""},
		{"no retention, without a lifetime", retaining(0), users, strategy.Config{}, ""},
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

func (s retainer) Retention() time.Duration { return s.kept }

func TestDefaultClockIsTheSystemClock(t *testing.T) {
	users := memstore.NewUsers[user]()
	db, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), users, strategy.Config{})
	if err != nil {
		t.Fatalf("NewDatabase: %v", err)
	}
	before := time.Now().Truncate(time.Millisecond)
	_, session, err := db.WriteToken(t.Context(), user{ID: uuid.New(), Active: true})
	if err != nil || session.CreatedAt.Before(before) || session.CreatedAt.After(time.Now()) {
		t.Errorf("CreatedAt: got %v, %v, want the current time, %v or later", session.CreatedAt, err, before)
	}
}

// Every outcome is an event, and no event contains a token or its digest.
func TestEvents(t *testing.T) {
	down := errors.New("down")
	unknown := newSecret()
	for _, c := range []struct {
		name string
		do   func(t *testing.T, r *rig, token string)
		want []event.Event // UserID true and SessionID set stand for Ann's; Time is checked separately
	}{
		{
			"issue", func(t *testing.T, r *rig, _ string) { r.issue(t) },
			[]event.Event{{Kind: event.TokenIssued, UserID: true, SessionID: set}},
		},
		{
			"issue fails", func(t *testing.T, r *rig, _ string) {
				r.tokens.insert = func(context.Context, row) error { return down }
				_, _, _ = r.WriteToken(t.Context(), r.ann)
			},
			[]event.Event{{Kind: event.StoreFailed, Err: down}},
		},
		{
			"read a valid token", func(t *testing.T, r *rig, token string) { r.reads(t, "", token, nil) },
			nil,
		},
		{
			"read a malformed token", func(t *testing.T, r *rig, token string) {
				r.reads(t, "", token+"x", strategy.ErrInvalidToken)
			},
			[]event.Event{{Kind: event.TokenDenied, Reason: event.ReasonMalformed}},
		},
		{
			"read an unknown token", func(t *testing.T, r *rig, token string) {
				r.reads(t, "", unknown.Reveal(), strategy.ErrInvalidToken)
			},
			[]event.Event{{Kind: event.TokenDenied, Reason: event.ReasonUnknown}},
		},
		{
			"read an expired token", func(t *testing.T, r *rig, token string) {
				r.now = r.now.Add(lifetime + time.Millisecond)
				r.reads(t, "", token, strategy.ErrInvalidToken)
			},
			[]event.Event{{Kind: event.TokenDenied, Reason: event.ReasonExpired, UserID: true, SessionID: set}},
		},
		{
			"read the token of a deleted user", func(t *testing.T, r *rig, token string) {
				if err := r.users.Delete(t.Context(), r.ann.ID); err != nil {
					t.Fatal(err)
				}
				r.reads(t, "", token, strategy.ErrInvalidToken)
			},
			[]event.Event{{Kind: event.TokenDenied, Reason: event.ReasonUserGone, UserID: true, SessionID: set}},
		},
		{
			"read the token of an inactive user", func(t *testing.T, r *rig, token string) {
				if err := r.users.Update(t.Context(), r.ann.ID, func(u *user) { u.Active = false }); err != nil {
					t.Fatal(err)
				}
				r.reads(t, "", token, strategy.ErrInvalidToken)
			},
			[]event.Event{{Kind: event.TokenDenied, Reason: event.ReasonUserInactive, UserID: true, SessionID: set}},
		},
		{
			"read fails in the store", func(t *testing.T, r *rig, token string) {
				r.tokens.byToken = func(context.Context, string) (row, error) { return row{}, down }
				r.reads(t, "", token, down)
			},
			[]event.Event{{Kind: event.StoreFailed, Err: down}},
		},
		{
			"read fails in the user source", func(t *testing.T, r *rig, token string) {
				r.users.byID = func(context.Context, uuid.UUID) (user, error) { return user{}, down }
				r.reads(t, "", token, down)
			},
			[]event.Event{{Kind: event.StoreFailed, Err: down}},
		},
		{
			"revoke twice, then read", func(t *testing.T, r *rig, token string) {
				_ = r.DestroyToken(t.Context(), token)
				_ = r.DestroyToken(t.Context(), token)
				r.reads(t, "", token, strategy.ErrInvalidToken)
			},
			[]event.Event{
				{Kind: event.TokenRevoked, UserID: true, SessionID: set},
				{Kind: event.TokenDenied, Reason: event.ReasonUnknown},
			},
		},
		{
			"revoke a malformed token", func(t *testing.T, r *rig, token string) { _ = r.DestroyToken(t.Context(), token+"x") },
			nil,
		},
		{
			"revoke fails", func(t *testing.T, r *rig, token string) {
				r.tokens.delete = func(context.Context, string) (row, error) { return row{}, down }
				_ = r.DestroyToken(t.Context(), token)
			},
			[]event.Event{{Kind: event.StoreFailed, Err: down}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, strategy.Config{Lifetime: lifetime})
			token, issued := r.issue(t)
			r.events.take()
			c.do(t, r, token)
			got := r.events.take()

			var shown strings.Builder
			log := event.Log(slog.New(slog.NewJSONHandler(&shown, nil)))
			for i := range got {
				fmt.Fprintf(&shown, "%+v\n", got[i])
				log(t.Context(), got[i])
				if want := r.now.UTC().Truncate(time.Millisecond); !got[i].Time.Equal(want) {
					t.Errorf("event %d: got the time %v, want the clock's %v", i, got[i].Time, want)
				}
				if got[i].UserID == r.ann.ID {
					got[i].UserID = true
				}
				if got[i].SessionID == issued.ID || got[i].Kind == event.TokenIssued && got[i].SessionID != uuid.Nil {
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
			for _, secret := range append(r.secrets, unknown.Reveal(), sha256Of(unknown.Reveal())) {
				if strings.Contains(shown.String(), strings.TrimPrefix(secret, "lk_")) {
					t.Errorf("the events show %q:\n%s", secret, shown.String())
				}
			}
		})
	}
}

// set stands for Ann's session in the expected events.
var set = uuid.Max

// Errors end up in logs, so they must not contain the token.
func TestErrorsDoNotShowTheToken(t *testing.T) {
	r := newRig(t, strategy.Config{Lifetime: lifetime})
	token, issued := r.issue(t)
	var errs []error
	read := func(token string) { _, err := r.ReadToken(t.Context(), token); errs = append(errs, err) }
	read(token + "x")
	read(token[:51])
	r.users.byID = func(context.Context, uuid.UUID) (user, error) { return user{}, errors.New("down") }
	read(token)
	r.tokens.byToken = func(context.Context, string) (row, error) { return row{}, errors.New("down") }
	read(token)
	r.tokens.byToken = nil
	r.now = r.now.Add(2 * lifetime)
	read(token)
	r.tokens.delete = func(context.Context, string) (row, error) { return row{}, errors.New("down") }
	errs = append(errs, r.DestroyToken(t.Context(), token))
	for _, err := range errs {
		if err == nil {
			t.Error("got no error, want one")
		} else if out := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(out, token[3:51]) || strings.Contains(out, issued.Digest) {
			t.Errorf("the error shows the token: %s", out)
		}
	}
}

func TestNoReadSucceedsAfterDestroyToken(t *testing.T) {
	r := newRig(t, strategy.Config{Lifetime: lifetime})
	for range 50 {
		token, _ := r.issue(t)
		var destroyed atomic.Bool
		var late atomic.Int64 // successful reads that began after DestroyToken had returned
		var readers sync.WaitGroup
		for range 8 {
			readers.Go(func() {
				for done := false; !done; {
					done = destroyed.Load()
					_, err := r.ReadToken(t.Context(), token)
					switch {
					case err != nil && !errors.Is(err, strategy.ErrInvalidToken):
						t.Errorf("ReadToken: got %v, want nil or ErrInvalidToken", err)
					case err == nil && done:
						late.Add(1)
					}
				}
			})
		}
		if err := r.DestroyToken(t.Context(), token); err != nil {
			t.Errorf("DestroyToken: %v", err)
		}
		destroyed.Store(true)
		readers.Wait()
		if got := late.Load(); got != 0 {
			t.Fatalf("%d reads succeeded after DestroyToken had returned, want 0", got)
		}
	}
}

func TestConcurrentDestroyTokenIsOneEvent(t *testing.T) {
	r := newRig(t, strategy.Config{})
	token, issued := r.issue(t)
	r.events.take()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if err := r.DestroyToken(t.Context(), token); err != nil {
				t.Errorf("DestroyToken: got %v, want nil", err)
			}
		})
	}
	wg.Wait()
	if got := r.events.take(); len(got) != 1 || got[0].Kind != event.TokenRevoked || got[0].SessionID != issued.ID {
		t.Errorf("events: got %+v, want one token.revoked of %v", got, issued.ID)
	}
}

// A flood of malformed tokens must not make work for the garbage collector.
func TestMalformedTokenCausesNoAllocation(t *testing.T) {
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
	unknown := newSecret()
	for _, c := range []struct{ name, token string }{
		{"valid", good.Reveal()},
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
