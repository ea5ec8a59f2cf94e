package strategy_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/strategy"
)

// fakeJoined reads a token and its user at once, from the fakes and by their hooks.
type fakeJoined struct {
	*fakeUsers
	tokens *fakeTokens
	// byToken replaces that.
	byToken func(context.Context, string, time.Time) (row, user, error)
}

func (s *fakeJoined) ByToken(ctx context.Context, digest string, createdAfter time.Time) (r row, u user, err error) {
	if s.byToken != nil {
		return s.byToken(ctx, digest, createdAfter)
	}
	if r, err = s.tokens.ByToken(ctx, digest, createdAfter); err == nil {
		u, err = s.fakeUsers.ByID(ctx, r.UserID)
	}
	return r, u, err
}

// withJoined gives every new harness a source that reads both at once.
var withJoined bool

// source is the Database's user source.
func (h *harness) source() strategy.UserSource[user, uuid.UUID] {
	if withJoined {
		return h.joined
	}
	return h.users
}

// joining gives the harnesses of a test a source that reads both at once.
func joining(t *testing.T) {
	withJoined = true
	t.Cleanup(func() { withJoined = false })
}

// What is read in two calls or in one, it means the same.
func TestAJoinedSourceChangesNothingElse(t *testing.T) {
	joining(t)
	for name, test := range map[string]func(*testing.T){
		"ATokenIsIssuedReadAndDestroyed":                 TestATokenIsIssuedReadAndDestroyed,
		"ReadTokenReturnsTheUserOfTheMoment":             TestReadTokenReturnsTheUserOfTheMoment,
		"ATokenLivesToTheMillisecond":                    TestATokenLivesToTheMillisecond,
		"WithoutALifetimeTokensDoNotExpire":              TestWithoutALifetimeTokensDoNotExpire,
		"AFailureIsNoLogOutAndNoLogIn":                   TestAFailureIsNoLogOutAndNoLogIn,
		"WrappedSentinelsAreUnderstood":                  TestWrappedSentinelsAreUnderstood,
		"AMalformedTokenCostsNoIO":                       TestAMalformedTokenCostsNoIO,
		"Events":                                         TestEvents,
		"ErrorsDoNotShowTheToken":                        TestErrorsDoNotShowTheToken,
		"OnceDestroyTokenHasReturnedNoReadSucceeds":      TestOnceDestroyTokenHasReturnedNoReadSucceeds,
		"EveryLimitHoldsToTheMillisecond":                TestEveryLimitHoldsToTheMillisecond,
		"ATokenWithScopesIsNeverIdle":                    TestATokenWithScopesIsNeverIdle,
		"GivingTheCredentialsAgainRevivesNoSession":      TestGivingTheCredentialsAgainRevivesNoSessionThatHasEnded,
		"TouchIntervals":                                 TestTouchIntervals,
		"ARefusedTokenIsNotTouched":                      TestARefusedTokenIsNotTouched,
		"ALoginBesideAChange":                            TestALoginBesideAChange,
		"AChangeEndsTheLoginsThatHaveNotSeenIt":          TestAChangeEndsTheLoginsThatHaveNotSeenIt,
		"ARotationKeepsWhatWasSeen":                      TestARotationKeepsWhatWasSeen,
		"ActivatingAnAccountAgainRevivesNothing":         TestActivatingAnAccountAgainRevivesNothing,
		"RotateTokenGivesASessionANewSecret":             TestRotateTokenGivesASessionANewSecret,
		"RotateTokenRefusesWhatReadTokenRefuses":         TestRotateTokenRefusesWhatReadTokenRefuses,
		"OfManyWhoRotateATokenAtOnceOneWins":             TestOfManyWhoRotateATokenAtOnceOneWins,
		"OnceASessionIsDestroyedNothingRevivesIt":        TestOnceASessionIsDestroyedNoRotationOrTouchRevivesIt,
		"FailuresOfSessionManagement":                    TestFailuresOfSessionManagement,
		"EventsOfTheLifeOfASession":                      TestEventsOfTheLifeOfASession,
		"AHitAsksNoStore":                                TestAHitAsksNoStore,
		"ATokenReadWithoutItsUserIsReadAgainWithThem":    TestATokenReadWithoutItsUserIsReadAgainWithThem,
		"AReadWithoutTheUserIsNotJoinedByOneWithThem":    TestAReadWithoutTheUserIsNotJoinedByOneWithThem,
		"LimitsOfCachedSessionsHoldToTheMillisecond":     TestLimitsOfCachedSessionsHoldToTheMillisecond,
		"WhatEndsHereIsSeenByTheNextRead":                TestWhatEndsHereIsSeenByTheNextRead,
		"AReadInFlightRevivesNothing":                    TestAReadInFlightRevivesNothing,
		"OnceASessionHasEndedNoReadFromTheCacheSucceeds": TestOnceASessionHasEndedNoReadFromTheCacheSucceeds,
		"ManyMissesAtOnceAreOneRead":                     TestManyMissesAtOnceAreOneRead,
		"DenialsOfOneReadAreAnEventEach":                 TestDenialsOfOneReadAreAnEventEach,
		"WhoJoinsAReadIsCheckedByTheirOwnClock":          TestWhoJoinsAReadIsCheckedByTheirOwnClock,
		"FailuresAreNotCached":                           TestFailuresAreNotCached,
		"EntriesAreReadAgainAfterMaxStaleness":           TestEntriesAreReadAgainAfterMaxStaleness,
	} {
		t.Run(name, test)
	}
}

func TestATokenAndItsUserAreReadInOneCall(t *testing.T) {
	joining(t)
	type calls struct{ joined, token, user int64 }
	read := func(t *testing.T, h *harness, token string) {
		got, err := h.ReadToken(t.Context(), token)
		if err != nil || got.User != h.ann {
			t.Errorf("ReadToken: got %+v, %v, want Ann", got, err)
		}
	}
	alone := func(t *testing.T, h *harness, token string) {
		if _, err := h.ReadTokenInfo(t.Context(), token); err != nil {
			t.Errorf("ReadTokenInfo: %v", err)
		}
	}
	for _, c := range []struct {
		name  string
		cache strategy.Cache
		do    func(t *testing.T, h *harness, token string)
		want  calls
	}{
		{"ReadToken", strategy.Cache{}, read, calls{joined: 1}},
		{"ReadSession", strategy.Cache{}, func(t *testing.T, h *harness, token string) {
			if s, err := h.ReadSession(t.Context(), token); err != nil || s.User != h.ann {
				t.Errorf("ReadSession: got %+v, %v, want Ann", s, err)
			}
		}, calls{joined: 1}},
		{"ReadTokenInfo", strategy.Cache{}, alone, calls{token: 1}},
		{"RotateToken", strategy.Cache{}, func(t *testing.T, h *harness, token string) {
			fresh, s, err := h.RotateToken(t.Context(), token)
			if err != nil || s.User != h.ann {
				t.Fatalf("RotateToken: got %+v, %v, want Ann", s, err)
			}
			read(t, h, fresh.Reveal())
			h.reads(t, "after the rotation, with the old token", token, strategy.ErrInvalidToken)
		}, calls{joined: 3}},
		{"ReadToken of a token that is not there", strategy.Cache{}, func(t *testing.T, h *harness, token string) {
			if err := h.DestroyToken(t.Context(), token); err != nil {
				t.Fatalf("DestroyToken: %v", err)
			}
			h.reads(t, "of a destroyed token", token, strategy.ErrInvalidToken)
		}, calls{joined: 1}},
		{"ReadToken of a token whose user is gone", strategy.Cache{}, func(t *testing.T, h *harness, token string) {
			if err := h.users.Delete(t.Context(), h.ann.ID); err != nil {
				t.Fatalf("Delete: %v", err)
			}
			h.reads(t, "of a user who is gone", token, strategy.ErrInvalidToken)
		}, calls{joined: 1}},
		{"ReadToken with a cache, twice", caching, func(t *testing.T, h *harness, token string) {
			read(t, h, token)
			read(t, h, token)
			alone(t, h, token) // of which all is known
		}, calls{joined: 1}},
		{"ReadTokenInfo with a cache, then ReadToken", caching, func(t *testing.T, h *harness, token string) {
			alone(t, h, token)
			read(t, h, token)
			read(t, h, token)
		}, calls{joined: 1, token: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, strategy.Config{Lifetime: lifetime, Cache: c.cache})
			token, _ := h.issue(t)
			var joined, tokens, users atomic.Int64
			h.joined.byToken = func(ctx context.Context, digest string, createdAfter time.Time) (r row, u user, err error) {
				joined.Add(1)
				if want := h.now.Add(-lifetime).UTC().Truncate(ms); !createdAfter.Equal(want) {
					t.Errorf("asked for a token from %v on, want %v", createdAfter, want)
				}
				if r, err = h.tokens.store.ByToken(ctx, digest, createdAfter); err == nil {
					u, err = h.users.Users.ByID(ctx, r.UserID)
				}
				return r, u, err
			}
			h.tokens.byToken = func(ctx context.Context, digest string, createdAfter time.Time) (row, error) {
				tokens.Add(1)
				return h.tokens.store.ByToken(ctx, digest, createdAfter)
			}
			h.users.byID = func(ctx context.Context, id uuid.UUID) (user, error) {
				users.Add(1)
				return h.users.Users.ByID(ctx, id)
			}
			c.do(t, h, token)
			if got := (calls{joined.Load(), tokens.Load(), users.Load()}); got != c.want {
				t.Errorf("got the calls %+v, want %+v", got, c.want)
			}
		})
	}
}

// Of a token that has ended and whose user is gone, the first is the reason.
func TestAnEndedTokenWithoutItsUserHasEnded(t *testing.T) {
	for _, joined := range []bool{false, true} {
		for _, c := range []struct {
			reason strategy.Reason
			cfg    strategy.Config
			later  time.Duration
		}{
			{strategy.ReasonExpired, strategy.Config{Lifetime: lifetime}, lifetime + ms},
			{strategy.ReasonIdle, strategy.Config{IdleTimeout: lifetime}, lifetime + ms},
			{strategy.ReasonSuperseded, strategy.Config{NotBefore: issuedAt.Add(time.Minute)}, 0},
			{strategy.ReasonUserGone, strategy.Config{Lifetime: lifetime}, lifetime - ms},
		} {
			for _, cache := range []strategy.Cache{{}, caching} {
				name := string(c.reason)
				if joined {
					name += ", read at once"
				}
				if cache != (strategy.Cache{}) {
					name += ", with a cache"
				}
				t.Run(name, func(t *testing.T) {
					if joined {
						joining(t)
					}
					c.cfg.Cache = cache
					h := newHarness(t, c.cfg)
					t.Cleanup(h.Close)
					token, issued := h.issue(t)
					// The store does not look at the age: it has not collected the row either.
					h.tokens.byToken = func(ctx context.Context, digest string, _ time.Time) (row, error) {
						return h.tokens.store.ByToken(ctx, digest, time.Time{})
					}
					if err := h.users.Delete(t.Context(), h.ann.ID); err != nil {
						t.Fatalf("Delete: %v", err)
					}
					h.now = h.now.Add(c.later)
					h.events.take()
					h.reads(t, "", token, strategy.ErrInvalidToken)
					got := h.events.take()
					if len(got) != 1 || got[0].Reason != c.reason || got[0].SessionID != issued.ID || got[0].UserID != h.ann.ID {
						t.Errorf("events: got %+v, want one of Ann's session with the reason %s", got, c.reason)
					}
				})
			}
		}
	}
}

// Whatever a joined source returns beside an error lets nobody in, also where the
// error is one that its contract does not know of.
func TestWhatAJoinedSourceReturnsBesideAnErrorIsNotUsed(t *testing.T) {
	joining(t)
	for _, c := range []struct {
		name   string
		err    error
		denied strategy.Reason // "" for a failure
	}{
		{"a failure", errors.New("down"), ""},
		{"a timeout", context.DeadlineExceeded, ""},
		{"no token", strategy.ErrTokenNotFound, strategy.ReasonUnknown},
		{"no user", strategy.ErrUserNotFound, strategy.ReasonUserGone},
		{"neither token nor user", errors.Join(strategy.ErrTokenNotFound, strategy.ErrUserNotFound), strategy.ReasonUserGone},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, strategy.Config{Lifetime: lifetime})
			token, issued := h.issue(t)
			h.joined.byToken = func(context.Context, string, time.Time) (row, user, error) { return issued, h.ann, c.err }
			h.events.take()
			want, kind := strategy.ErrInvalidToken, strategy.EventTokenDenied
			if c.denied == "" {
				want, kind = c.err, strategy.EventStoreFailed
			}
			for doing, do := range map[string]func() error{
				"ReadToken": func() error { _, err := h.ReadToken(t.Context(), token); return err },
				"RotateToken": func() error {
					secret, _, err := h.RotateToken(t.Context(), token)
					if secret.Reveal() != "" {
						t.Error("RotateToken: got a secret beside an error")
					}
					return err
				},
			} {
				if err := do(); !errors.Is(err, want) || c.denied == "" && errors.Is(err, strategy.ErrInvalidToken) {
					t.Errorf("%s: got %v, want %v", doing, err, want)
				}
				if got := h.events.take(); len(got) != 1 || got[0].Kind != kind || got[0].Reason != c.denied {
					t.Errorf("%s: got the events %+v, want one %s with the reason %q", doing, got, kind, c.denied)
				}
			}
		})
	}
}
