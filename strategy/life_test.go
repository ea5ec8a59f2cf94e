package strategy_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/internal/secretscan"
	"github.com/latchkey-go/latchkey/strategy"
	"github.com/latchkey-go/latchkey/strategy/memstore"
)

// issuedAt is when a harness issues its first token: its clock, in UTC and whole
// milliseconds.
var issuedAt = time.Date(2026, 3, 29, 0, 59, 59, 987e6, time.UTC)

const ms = time.Millisecond

// another returns a Database over the same stores, as a second instance of the
// application or the same one after a restart would have it.
func (h *harness) another(t testing.TB, cfg strategy.Config) *harness {
	t.Helper()
	o := &harness{tokens: h.tokens, users: h.users, joined: h.joined, now: h.now, ann: h.ann}
	cfg.Now = func() time.Time { return o.now }
	cfg.OnEvent = o.events.record
	var err error
	if o.Database, err = strategy.NewDatabase(o.tokens, o.source(), cfg); err != nil {
		t.Fatalf("NewDatabase: %v", err)
	}
	return o
}

// notBefore makes Ann's older tokens invalid.
func (h *harness) notBefore(t testing.TB, at time.Time) {
	t.Helper()
	if err := h.users.Apply(t.Context(), h.ann.ID, account.Change{NotBefore: at}); err != nil {
		t.Fatalf("Apply: %v", err)
	}
	h.reload(t)
}

// olderVersion makes the row of a token as a version without SeenNotBefore wrote it.
func (h *harness) olderVersion(t testing.TB, token string) {
	t.Helper()
	row, err := h.tokens.store.Delete(t.Context(), sha256Of(token))
	row.SeenNotBefore = time.Time{}
	if err == nil {
		err = h.tokens.store.Insert(t.Context(), row)
	}
	if err != nil {
		t.Fatalf("rewrite the row: %v", err)
	}
}

// reload makes h.ann what the store holds, as a login does.
func (h *harness) reload(t testing.TB) {
	t.Helper()
	var err error
	if h.ann, err = h.users.Users.ByID(t.Context(), h.ann.ID); err != nil {
		t.Fatalf("ByID: %v", err)
	}
}

// rotates gives a token a new secret.
func (h *harness) rotates(t testing.TB, token string, opts ...strategy.RotateOption) string {
	t.Helper()
	secret, _, err := h.RotateToken(t.Context(), token, opts...)
	if err != nil {
		t.Fatalf("RotateToken: %v", err)
	}
	secretscan.Record(secret.Reveal())
	h.secrets = append(h.secrets, secret.Reveal(), sha256Of(secret.Reveal()))
	return secret.Reveal()
}

func TestEveryLimitHoldsToTheMillisecond(t *testing.T) {
	const day, idle = 24 * time.Hour, time.Hour
	lasting := strategy.Config{Lifetime: day}
	idling := strategy.Config{Lifetime: day, IdleTimeout: idle, TouchInterval: 6 * time.Minute}
	deploy := strategy.WithScopes("deploy:write")
	for _, c := range []struct {
		name string
		cfg  strategy.Config
		opts []strategy.TokenOption
		// to brings a token to its limit and d beyond. It returns the harness and
		// the token to go on with.
		to     func(t *testing.T, h *harness, token string, d time.Duration) (*harness, string)
		reason strategy.Reason
	}{
		{"the lifetime", lasting, nil, at(day), strategy.ReasonUnknown},
		{"the lifetime of a session in use", idling, nil, func(t *testing.T, h *harness, token string, d time.Duration) (*harness, string) {
			for h.now.Before(issuedAt.Add(day - 30*time.Minute)) {
				h.now = h.now.Add(30 * time.Minute)
				h.reads(t, "in use", token, nil)
			}
			h.now = issuedAt.Add(day + d)
			return h, token
		}, strategy.ReasonUnknown},
		{"the lifetime of a session that was rotated", lasting, nil, func(t *testing.T, h *harness, token string, d time.Duration) (*harness, string) {
			h.now = issuedAt.Add(day / 2)
			token = h.rotates(t, token)
			h.now = issuedAt.Add(day + d)
			return h, token
		}, strategy.ReasonUnknown},
		{"the lifetime of a token with scopes", lasting, []strategy.TokenOption{deploy}, at(day), strategy.ReasonUnknown},
		{"the lifetime in a store that does not look at it", lasting, nil, func(t *testing.T, h *harness, token string, d time.Duration) (*harness, string) {
			h.tokens.byToken = func(ctx context.Context, digest string, _ time.Time) (row, error) {
				return h.tokens.store.ByToken(ctx, digest, time.Time{})
			}
			h.now = issuedAt.Add(day + d)
			return h, token
		}, strategy.ReasonExpired},

		{"a lifetime of its own", lasting, []strategy.TokenOption{strategy.WithLifetime(time.Hour)}, at(time.Hour), strategy.ReasonExpired},
		{"a lifetime of its own with scopes", lasting, []strategy.TokenOption{deploy, strategy.WithLifetime(time.Hour)}, at(time.Hour), strategy.ReasonExpired},
		{"a lifetime of its own where all others live for ever", strategy.Config{}, []strategy.TokenOption{strategy.WithLifetime(400 * day)}, at(400 * day), strategy.ReasonExpired},
		{"a lifetime of its own of a millisecond", lasting, []strategy.TokenOption{strategy.WithLifetime(ms)}, at(ms), strategy.ReasonExpired},
		{"a lifetime of its own with a remainder", lasting, []strategy.TokenOption{strategy.WithLifetime(time.Hour + ms - 1)}, at(time.Hour), strategy.ReasonExpired},
		{"a lifetime of its own that is the longest", lasting, []strategy.TokenOption{strategy.WithLifetime(day)}, at(day), strategy.ReasonUnknown},
		{"a lifetime of its own of a session in use that was rotated", idling, []strategy.TokenOption{strategy.WithLifetime(time.Hour)},
			func(t *testing.T, h *harness, token string, d time.Duration) (*harness, string) {
				h.now = issuedAt.Add(30 * time.Minute)
				token = h.rotates(t, token, strategy.Reauthenticated(h.ann, h.now))
				h.now = issuedAt.Add(time.Hour + d)
				return h, token
			}, strategy.ReasonExpired},
		{"the lifetime, made shorter since", strategy.Config{}, nil, func(t *testing.T, h *harness, token string, d time.Duration) (*harness, string) {
			h = h.another(t, strategy.Config{Lifetime: time.Hour})
			h.now = issuedAt.Add(time.Hour + d)
			return h, token
		}, strategy.ReasonUnknown},

		{"the idle timeout of a session that was never used", idling, nil, at(idle), strategy.ReasonIdle},
		{"the idle timeout of a session that was used", idling, nil, func(t *testing.T, h *harness, token string, d time.Duration) (*harness, string) {
			h.now = issuedAt.Add(20 * time.Minute)
			h.reads(t, "in use", token, nil)
			h.now = issuedAt.Add(20*time.Minute + idle + d)
			return h, token
		}, strategy.ReasonIdle},
		{"the idle timeout of a session that was rotated", idling, nil, func(t *testing.T, h *harness, token string, d time.Duration) (*harness, string) {
			h.now = issuedAt.Add(time.Minute)
			token = h.rotates(t, token)
			h.now = issuedAt.Add(time.Minute + idle + d)
			return h, token
		}, strategy.ReasonIdle},
		{"the idle timeout of a login by a clock that is ahead", idling, []strategy.TokenOption{strategy.WithAuthenticatedAt(issuedAt.Add(time.Minute))}, at(idle), strategy.ReasonIdle},

		{"the user's not-before, of a row of an older version", lasting, nil, func(t *testing.T, h *harness, token string, d time.Duration) (*harness, string) {
			h.olderVersion(t, token)
			h.notBefore(t, issuedAt.Add(d))
			return h, token
		}, strategy.ReasonSuperseded},
		{"the user's not-before, of a row of an older version, with a remainder", lasting, nil, func(t *testing.T, h *harness, token string, d time.Duration) (*harness, string) {
			h.olderVersion(t, token)
			h.notBefore(t, issuedAt.Add(d-ms+1))
			return h, token
		}, strategy.ReasonSuperseded},
		{"the user's not-before, of a row of an older version, later", lasting, nil, func(t *testing.T, h *harness, token string, d time.Duration) (*harness, string) {
			h.now = issuedAt.Add(time.Hour)
			h.olderVersion(t, token)
			h.notBefore(t, issuedAt.Add(d))
			return h, token
		}, strategy.ReasonSuperseded},
		{"the user's not-before, of a row of an older version, for a token with scopes", lasting, []strategy.TokenOption{deploy}, func(t *testing.T, h *harness, token string, d time.Duration) (*harness, string) {
			h.olderVersion(t, token)
			h.notBefore(t, issuedAt.Add(d))
			return h, token
		}, strategy.ReasonSuperseded},
		{"the user's not-before, of a row of an older version, by the time of the credentials", lasting, []strategy.TokenOption{strategy.WithAuthenticatedAt(issuedAt.Add(-time.Minute))},
			func(t *testing.T, h *harness, token string, d time.Duration) (*harness, string) {
				h.olderVersion(t, token)
				h.notBefore(t, issuedAt.Add(-time.Minute+d))
				return h, token
			}, strategy.ReasonSuperseded},
		{"the user's not-before, of a row of an older version, after a rotation", lasting, nil, func(t *testing.T, h *harness, token string, d time.Duration) (*harness, string) {
			h.now = issuedAt.Add(time.Hour)
			token = h.rotates(t, token)
			h.olderVersion(t, token)
			h.notBefore(t, issuedAt.Add(d))
			return h, token
		}, strategy.ReasonSuperseded},
		{"the user's not-before, of a row of an older version, after the credentials were given again", lasting, nil, func(t *testing.T, h *harness, token string, d time.Duration) (*harness, string) {
			h.now = issuedAt.Add(time.Hour)
			token = h.rotates(t, token, strategy.Reauthenticated(h.ann, h.now))
			h.olderVersion(t, token)
			h.notBefore(t, issuedAt.Add(time.Hour+d))
			return h, token
		}, strategy.ReasonSuperseded},

		{"the configured not-before", lasting, nil, func(t *testing.T, h *harness, token string, d time.Duration) (*harness, string) {
			return h.another(t, strategy.Config{Lifetime: day, NotBefore: issuedAt.Add(d)}), token
		}, strategy.ReasonSuperseded},
		{"the configured not-before with a remainder, in another zone", lasting, nil, func(t *testing.T, h *harness, token string, d time.Duration) (*harness, string) {
			at := issuedAt.Add(d - ms + 1).In(time.FixedZone("elsewhere", 7200))
			return h.another(t, strategy.Config{Lifetime: day, NotBefore: at}), token
		}, strategy.ReasonSuperseded},
		{"the configured not-before, by the time of the credentials", lasting, []strategy.TokenOption{strategy.WithAuthenticatedAt(issuedAt.Add(-time.Minute))},
			func(t *testing.T, h *harness, token string, d time.Duration) (*harness, string) {
				return h.another(t, strategy.Config{Lifetime: day, NotBefore: issuedAt.Add(-time.Minute + d)}), token
			}, strategy.ReasonSuperseded},
		{"the configured not-before after the credentials were given again", lasting, nil, func(t *testing.T, h *harness, token string, d time.Duration) (*harness, string) {
			h.now = issuedAt.Add(time.Hour)
			token = h.rotates(t, token, strategy.Reauthenticated(h.ann, h.now))
			return h.another(t, strategy.Config{Lifetime: day, NotBefore: issuedAt.Add(time.Hour + d)}), token
		}, strategy.ReasonSuperseded},
		{"the configured not-before for a token with scopes", lasting, []strategy.TokenOption{deploy}, func(t *testing.T, h *harness, token string, d time.Duration) (*harness, string) {
			return h.another(t, strategy.Config{Lifetime: day, NotBefore: issuedAt.Add(d)}), token
		}, strategy.ReasonSuperseded},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, d := range []time.Duration{-ms, 0, ms} {
				h := newHarness(t, c.cfg)
				token, _ := h.issue(t, c.opts...)
				h, token = c.to(t, h, token, d)
				before := h.row(t, token)

				// A list has the session if, and only if, its token is accepted.
				page, err := h.Sessions(t.Context(), h.ann.ID, strategy.Page{})
				if want := map[bool]int{true: 1, false: 0}[d <= 0]; err != nil || len(page.Sessions) != want {
					t.Errorf("%v from the limit: got %d sessions, %v, want %d", d, len(page.Sessions), err, want)
				}
				h.events.take()
				if d <= 0 {
					h.reads(t, d.String()+" from the limit", token, nil)
					continue
				}
				h.reads(t, "beyond the limit", token, strategy.ErrInvalidToken)
				if got := h.events.take(); len(got) != 1 || got[0].Reason != c.reason {
					t.Errorf("beyond the limit: got the events %+v, want one with the reason %s", got, c.reason)
				}
				if _, _, err := h.RotateToken(t.Context(), token); !errors.Is(err, strategy.ErrInvalidToken) {
					t.Errorf("RotateToken beyond the limit: got %v, want ErrInvalidToken", err)
				}
				if got := h.row(t, token); !reflect.DeepEqual(got, before) {
					t.Errorf("the row after the refusal: got %+v, want %+v untouched", got, before)
				}
			}
		})
	}
}

// at brings a token to an age.
func at(limit time.Duration) func(*testing.T, *harness, string, time.Duration) (*harness, string) {
	return func(_ *testing.T, h *harness, token string, d time.Duration) (*harness, string) {
		h.now = issuedAt.Add(limit + d)
		return h, token
	}
}

func TestATokenWithScopesIsNeverIdle(t *testing.T) {
	h := newHarness(t, strategy.Config{IdleTimeout: time.Hour})
	token, _ := h.issue(t, strategy.WithScopes("deploy:write"))
	h.now = h.now.AddDate(1, 0, 0)
	h.reads(t, "after a year", token, nil)
	if got, want := h.row(t, token).LastUsedAt, h.now.UTC().Truncate(ms); !got.Equal(want) {
		t.Errorf("LastUsedAt: got %v, want %v: its use is written down all the same", got, want)
	}
}

// Who has lost the session by idleness must log in; giving the password again in
// it is no way back.
func TestGivingTheCredentialsAgainRevivesNoSessionThatHasEnded(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  strategy.Config
		opts []strategy.TokenOption
	}{
		{"the lifetime", strategy.Config{Lifetime: time.Hour}, nil},
		{"the idle timeout", strategy.Config{IdleTimeout: time.Hour}, nil},
		{"a lifetime of its own", strategy.Config{}, []strategy.TokenOption{strategy.WithLifetime(time.Hour)}},
	} {
		h := newHarness(t, c.cfg)
		token, _ := h.issue(t, c.opts...)
		h.now = h.now.Add(time.Hour + ms)
		if _, _, err := h.RotateToken(t.Context(), token, strategy.Reauthenticated(h.ann, h.now)); !errors.Is(err, strategy.ErrInvalidToken) {
			t.Errorf("after %s: got %v, want ErrInvalidToken", c.name, err)
		}
	}
}

func TestTouchIntervals(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  strategy.Config
		want time.Duration // 0 for never
	}{
		{"a tenth of the idle timeout", strategy.Config{IdleTimeout: time.Hour}, 6 * time.Minute},
		{"at least a second", strategy.Config{IdleTimeout: 2 * time.Second}, time.Second},
		{"less for a timeout of less than two", strategy.Config{IdleTimeout: time.Second}, 100 * ms},
		{"as configured", strategy.Config{IdleTimeout: time.Hour, TouchInterval: 17 * ms}, 17 * ms},
		{"without an idle timeout, never", strategy.Config{}, 0},
		{"without an idle timeout, as configured", strategy.Config{TouchInterval: time.Minute}, time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, c.cfg)
			writes := h.countTouches()
			token, issued := h.issue(t)
			if !issued.LastUsedAt.IsZero() {
				t.Errorf("LastUsedAt when issued: got %v, want none", issued.LastUsedAt)
			}
			if c.want == 0 {
				h.now = h.now.AddDate(1, 0, 0)
				h.reads(t, "after a year", token, nil)
				if got := writes.Load(); got != 0 {
					t.Errorf("got %d touches, want none", got)
				}
				return
			}
			used := issuedAt
			for range 3 {
				h.now = used.Add(c.want - ms)
				h.reads(t, "within the interval", token, nil)
				if got := h.row(t, token).LastUsedAt; got.After(used) {
					t.Errorf("within the interval: got LastUsedAt %v, want what it was, %v", got, used)
				}
				h.now = used.Add(c.want)
				session, err := h.ReadToken(t.Context(), token)
				if err != nil || !session.LastUsedAt.Equal(h.now) {
					t.Errorf("after the interval: got %v, %v, want a session that was used at %v", session, err, h.now)
				}
				if got := h.row(t, token).LastUsedAt; !got.Equal(h.now) {
					t.Errorf("after the interval: got LastUsedAt %v, want %v", got, h.now)
				}
				used = h.now
			}
			if got := writes.Load(); got != 3 {
				t.Errorf("got %d touches, want 3", got)
			}
		})
	}
}

// countTouches counts the calls of Touch.
func (h *harness) countTouches() *atomic.Int64 {
	var n atomic.Int64
	h.tokens.touch = func(ctx context.Context, digest string, at time.Time) error {
		n.Add(1)
		return h.tokens.store.Touch(ctx, digest, at)
	}
	return &n
}

func TestTenThousandReadsWithinAnIntervalAreOneWrite(t *testing.T) {
	const n = 10_000
	for _, c := range []struct {
		name    string
		readers int
	}{{"one after the other", 1}, {"from many goroutines", 32}} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, strategy.Config{IdleTimeout: time.Hour, TouchInterval: time.Minute})
			writes := h.countTouches()
			token, issued := h.issue(t)
			// Every reader sees the row as it was before any touch, as requests do
			// that come in together.
			h.tokens.byToken = func(context.Context, string, time.Time) (row, error) { return issued, nil }
			h.now = h.now.Add(2 * time.Minute)
			before := h.tokens.calls.Load()
			var wg sync.WaitGroup
			for range c.readers {
				wg.Go(func() {
					for range n / c.readers {
						if _, err := h.ReadToken(t.Context(), token); err != nil {
							t.Errorf("ReadToken: %v", err)
							return
						}
					}
				})
			}
			wg.Wait()
			if got := writes.Load(); got != 1 {
				t.Errorf("got %d touches, want 1", got)
			}
			reads := int64(n / c.readers * c.readers)
			if got := h.tokens.calls.Load() - before; got != reads+1 {
				t.Errorf("got %d calls of the store, want %d reads and a touch", got, reads)
			}
		})
	}
}

// Goroutines do not get on in the order in which they read the clock.
func TestARequestThatIsLateDoesNotTouchAgain(t *testing.T) {
	h := newHarness(t, strategy.Config{IdleTimeout: time.Hour, TouchInterval: time.Minute})
	writes := h.countTouches()
	token, issued := h.issue(t)
	h.tokens.byToken = func(context.Context, string, time.Time) (row, error) { return issued, nil }
	for _, after := range []time.Duration{time.Minute + 2*ms, time.Minute + ms, time.Minute} {
		h.now = issuedAt.Add(after)
		h.reads(t, "of the row as it was", token, nil)
	}
	if got := writes.Load(); got != 1 {
		t.Errorf("got %d touches, want 1", got)
	}
	// A clock that is put back by more than that begins anew.
	h.now = issuedAt.Add(-time.Hour)
	issued.CreatedAt = h.now.Add(-2 * time.Minute)
	h.reads(t, "after the clock was put back", token, nil)
	if got := writes.Load(); got != 2 {
		t.Errorf("after the clock was put back: got %d touches, want 2", got)
	}
}

func TestSessionsAreTouchedOneByOne(t *testing.T) {
	h := newHarness(t, strategy.Config{IdleTimeout: time.Hour, TouchInterval: time.Minute})
	writes := h.countTouches()
	first, _ := h.issue(t)
	second, _ := h.issue(t)
	other := h.another(t, strategy.Config{IdleTimeout: time.Hour, TouchInterval: time.Minute})
	h.now = h.now.Add(time.Minute)
	other.now = h.now
	for range 3 {
		h.reads(t, "", first, nil)
		other.reads(t, "by another instance, after a touch", first, nil)
	}
	if got := writes.Load(); got != 1 {
		t.Errorf("of one session: got %d touches, want 1", got)
	}
	h.reads(t, "", second, nil)
	if got := writes.Load(); got != 2 {
		t.Errorf("of two sessions: got %d touches, want 2", got)
	}
}

// What is remembered of touches is forgotten when it tells nothing any more.
func TestTouchesDoNotFillTheMemory(t *testing.T) {
	h := newHarness(t, strategy.Config{TouchInterval: time.Minute})
	const each = 10
	for minute := range 20 {
		for range each {
			token, _ := h.issue(t)
			h.now = h.now.Add(time.Minute)
			h.reads(t, "", token, nil)
			h.now = h.now.Add(-time.Minute)
		}
		h.now = h.now.Add(time.Minute)
		if got := h.Touched(); got == 0 || got > 2*each {
			t.Fatalf("after %d minutes with %d sessions each: %d are remembered, want some and at most those of two", minute+1, each, got)
		}
	}
}

// The interval makes a session's idle time shorter by no more than itself, and
// never longer.
func TestIdleTimeIsExactWithinTheInterval(t *testing.T) {
	const idle, interval = time.Hour, 6 * time.Minute
	random := rand.New(rand.NewPCG(3, 4))
	ended, written := 0, 0
	for range 300 {
		h := newHarness(t, strategy.Config{IdleTimeout: idle, TouchInterval: interval})
		writes := h.countTouches()
		token, _ := h.issue(t)
		used := h.now
		for {
			// Short gaps, gaps about the limits, and any.
			gap := [...]time.Duration{
				time.Duration(random.Int64N(int64(interval))),
				idle - interval + time.Duration(random.Int64N(11)-5)*ms,
				idle + time.Duration(random.Int64N(11)-5)*ms,
				time.Duration(random.Int64N(int64(idle + 2*interval))),
			}[random.IntN(8)%4].Truncate(ms)
			h.now = used.Add(gap)
			_, err := h.ReadToken(t.Context(), token)
			switch {
			case err == nil && gap > idle:
				t.Fatalf("accepted after %v without use, want at most %v", gap, idle)
			case err != nil && gap <= idle-interval:
				t.Fatalf("refused after %v without use: %v, want it accepted to %v", gap, err, idle-interval)
			}
			if err != nil {
				ended++
				break
			}
			used = h.now
		}
		most := int64(used.Sub(issuedAt)/interval) + 1
		if got := writes.Load(); got > most {
			t.Errorf("got %d touches within %v, want at most %d", got, used.Sub(issuedAt), most)
		}
		written += int(writes.Load())
	}
	if ended != 300 || written == 0 {
		t.Errorf("%d sessions ended and %d touches were made, want 300 and some", ended, written)
	}
}

func TestAFailedTouchIsAnEventAndTriedAgainLater(t *testing.T) {
	h := newHarness(t, strategy.Config{IdleTimeout: time.Hour, TouchInterval: time.Minute})
	token, issued := h.issue(t)
	down := errors.New("down")
	var tries []time.Time
	h.tokens.touch = func(ctx context.Context, _ string, _ time.Time) error {
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > time.Second {
			t.Errorf("the touch has the deadline %v, %v, want one within a second", deadline, ok)
		}
		tries = append(tries, h.now)
		return down
	}
	begin := h.now.Add(2 * time.Minute)
	h.events.take()
	for after := time.Duration(0); after <= 3*time.Second; after += 100 * ms {
		h.now = begin.Add(after)
		session, err := h.ReadToken(t.Context(), token)
		if err != nil || !session.LastUsedAt.IsZero() {
			t.Errorf("ReadToken while touches fail: got %+v, %v, want a session whose use is not written down", session, err)
		}
	}
	want := []time.Time{begin, begin.Add(time.Second), begin.Add(2 * time.Second), begin.Add(3 * time.Second)}
	if !reflect.DeepEqual(tries, want) {
		t.Errorf("got touches at %v, want one a second, at %v", tries, want)
	}
	events := h.events.take()
	if len(events) != len(want) {
		t.Errorf("got %d events, want %d", len(events), len(want))
	}
	for _, e := range events {
		if e.Kind != strategy.EventTouchFailed || e.UserID != h.ann.ID || e.SessionID != issued.ID || !errors.Is(e.Err, down) {
			t.Errorf("got the event %+v, want token.touch_failed of the session, with the failure", e)
		}
	}

	// A touch that hangs takes its time: the next request does not wait too.
	h.now = begin.Add(time.Minute)
	tries = nil
	h.tokens.touch = func(context.Context, string, time.Time) error {
		tries = append(tries, h.now)
		h.now = h.now.Add(time.Second)
		return context.DeadlineExceeded
	}
	for range 10 {
		h.reads(t, "while touches hang", token, nil)
	}
	if len(tries) != 1 {
		t.Errorf("10 reads waited for %d touches that hang, want 1", len(tries))
	}

	// All is well again.
	writes := h.countTouches()
	h.now = begin.Add(2 * time.Minute)
	for range 3 {
		h.reads(t, "after the failure", token, nil)
	}
	if got := h.row(t, token).LastUsedAt; writes.Load() != 1 || !got.Equal(h.now.UTC().Truncate(ms)) {
		t.Errorf("after the failure: got %d touches and LastUsedAt %v, want 1 and %v", writes.Load(), got, h.now)
	}
}

func TestAnIntervalShorterThanTheRetryIsKept(t *testing.T) {
	h := newHarness(t, strategy.Config{TouchInterval: 10 * ms})
	token, _ := h.issue(t)
	tries := 0
	h.tokens.touch = func(context.Context, string, time.Time) error { tries++; return errors.New("down") }
	for range 100 {
		h.now = h.now.Add(ms)
		h.reads(t, "", token, nil)
	}
	if tries != 10 {
		t.Errorf("100 reads within 100 ms tried %d touches, want one each 10 ms", tries)
	}
}

func TestARefusedTokenIsNotTouched(t *testing.T) {
	h := newHarness(t, strategy.Config{IdleTimeout: time.Hour})
	writes := h.countTouches()
	token, _ := h.issue(t)
	h.notBefore(t, issuedAt.Add(ms))
	h.now = h.now.Add(30 * time.Minute)
	h.reads(t, "after a log-out everywhere", token, strategy.ErrInvalidToken)
	if got := writes.Load(); got != 0 {
		t.Errorf("got %d touches, want none", got)
	}
}

func TestInvalidOptionsIssueNothing(t *testing.T) {
	for _, c := range []struct {
		name     string
		lifetime time.Duration
		opt      strategy.TokenOption
		ok       bool
	}{
		{"a lifetime of 0", time.Hour, strategy.WithLifetime(0), false},
		{"a negative lifetime", time.Hour, strategy.WithLifetime(-time.Second), false},
		{"a lifetime below a millisecond", time.Hour, strategy.WithLifetime(ms - 1), false},
		{"a lifetime of a millisecond", time.Hour, strategy.WithLifetime(ms), true},
		{"a lifetime as long as all others", time.Hour, strategy.WithLifetime(time.Hour), true},
		{"a lifetime just longer", time.Hour, strategy.WithLifetime(time.Hour + 1), false},
		{"a lifetime of 0 where tokens do not expire", 0, strategy.WithLifetime(0), false},
		{"any lifetime where tokens do not expire", 0, strategy.WithLifetime(1<<63 - 1), true},
		{"no scopes", 0, strategy.WithScopes(), false},
		{"no scopes, in a slice", 0, strategy.WithScopes([]string{}...), false},
		{"an empty scope", 0, strategy.WithScopes(""), false},
		{"an empty scope among others", 0, strategy.WithScopes("a", "", "b"), false},
		{"two scopes in one", 0, strategy.WithScopes("a b"), false},
		{"a quote in a scope", 0, strategy.WithScopes(`a"b`), false},
		{"a backslash in a scope", 0, strategy.WithScopes(`a\b`), false},
		{"a line break in a scope", 0, strategy.WithScopes("a\r\nb"), false},
		{"a scope that is not ASCII", 0, strategy.WithScopes("ä"), false},
		{"DEL in a scope", 0, strategy.WithScopes("a\x7f"), false},
		{"the ends of the alphabet", 0, strategy.WithScopes("!", "#", "[", "]", "~", "https://example.com/scope"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, strategy.Config{Lifetime: c.lifetime})
			secret, session, err := h.WriteToken(t.Context(), h.ann, c.opt)
			if c.ok {
				if err != nil {
					t.Errorf("got %v, want a token", err)
				}
				return
			}
			if !errors.Is(err, strategy.ErrInvalidOption) || secret.Reveal() != "" || !reflect.DeepEqual(session, strategy.Session[user]{}) {
				t.Errorf("got %q, %+v, %v, want ErrInvalidOption alone", secret.Reveal(), session, err)
			}
			if got := h.tokens.calls.Load(); got != 0 {
				t.Errorf("the store was called %d times, want 0", got)
			}
		})
	}
}

func TestASessionKnowsWhatItWasTold(t *testing.T) {
	h := newHarness(t, strategy.Config{Lifetime: 24 * time.Hour, TouchInterval: time.Minute})
	scopes := []string{"deploy:write", "deploy:read"}
	secret, session, err := h.WriteToken(t.Context(), h.ann, strategy.WithName("ci"), strategy.WithScopes(scopes...),
		strategy.WithLifetime(time.Hour), strategy.WithUserAgent("curl/8"), strategy.WithClientAddr("2001:db8::1"))
	if err != nil {
		t.Fatalf("WriteToken: %v", err)
	}
	want := strategy.SessionInfo{
		ID: session.ID, UserID: h.ann.ID, CreatedAt: issuedAt, ExpiresAt: issuedAt.Add(time.Hour),
		Scopes: []string{"deploy:write", "deploy:read"}, Name: "ci", UserAgent: "curl/8", ClientAddr: "2001:db8::1",
	}
	scopes[0] = "everything" // the caller's to change
	same := func(op string, got strategy.SessionInfo, err error) {
		t.Helper()
		if !reflect.DeepEqual(got, want) || err != nil {
			t.Errorf("%s: got %+v, %v\nwant %+v", op, got, err, want)
		}
	}
	same("WriteToken", session.SessionInfo, nil)
	read, err := h.ReadToken(t.Context(), secret.Reveal())
	same("ReadToken", read.SessionInfo, err)
	page, err := h.Sessions(t.Context(), h.ann.ID, strategy.Page{})
	if len(page.Sessions) != 1 {
		t.Fatalf("Sessions: got %d, %v, want 1", len(page.Sessions), err)
	}
	same("Sessions", page.Sessions[0], err)
	h.now = h.now.Add(time.Minute)
	want.LastUsedAt = issuedAt.Add(time.Minute)
	read, err = h.ReadToken(t.Context(), secret.Reveal())
	same("ReadToken after the interval", read.SessionInfo, err)

	if !want.Scoped() || !want.HasScopes() || !want.HasScopes("deploy:read", "deploy:write") || want.HasScopes("deploy:read", "admin") || want.HasScopes("deploy") {
		t.Error("HasScopes of a token with scopes: want those that it has, and no others")
	}
	if login := (strategy.SessionInfo{}); login.Scoped() || !login.HasScopes("deploy:read", "admin") {
		t.Error("HasScopes of a login: want all")
	}
	if none := (strategy.SessionInfo{Scopes: []string{}}); !none.Scoped() || none.HasScopes("a") {
		t.Error("HasScopes of a token whose scopes were lost: want none")
	}
}

func TestWhatASessionIsToldIsBounded(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"what fits stays", strings.Repeat("x", 100), strings.Repeat("x", 100)},
		{"what does not is cut", strings.Repeat("x", 101), strings.Repeat("x", 100)},
		{"a character at the boundary that fits stays", strings.Repeat("x", 98) + "é!", strings.Repeat("x", 98) + "é"},
		{"a character across the boundary goes", strings.Repeat("x", 99) + "é", strings.Repeat("x", 99)},
		{"one of four bytes too", strings.Repeat("x", 97) + "🔑", strings.Repeat("x", 97)},
		{"invalid UTF-8 is replaced", "a\xff\xfeb", "a�b"},
		{"invalid UTF-8 is replaced before it is cut", strings.Repeat("x", 99) + "\xff", strings.Repeat("x", 99)},
		{"the empty string stays", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, strategy.Config{})
			_, session, err := h.WriteToken(t.Context(), h.ann, strategy.WithName(c.in))
			if session.Name != c.want || err != nil {
				t.Errorf("got %q, %v, want %q", session.Name, err, c.want)
			}
		})
	}
	h := newHarness(t, strategy.Config{})
	long := strings.Repeat("€", 1<<20)
	_, session, err := h.WriteToken(t.Context(), h.ann, strategy.WithName(long), strategy.WithUserAgent(long), strategy.WithClientAddr(long))
	if err != nil {
		t.Fatalf("WriteToken: %v", err)
	}
	for name, c := range map[string]struct {
		got  string
		want int
	}{"Name": {session.Name, 99}, "UserAgent": {session.UserAgent, 255}, "ClientAddr": {session.ClientAddr, 63}} {
		if len(c.got) != c.want || !utf8.ValidString(c.got) {
			t.Errorf("%s: got %d bytes, valid UTF-8: %v, want %d", name, len(c.got), utf8.ValidString(c.got), c.want)
		}
	}
}

// manager is of the accounts in a harness, with its clock.
func (h *harness) manager(t testing.TB) *account.Manager[user, uuid.UUID] {
	t.Helper()
	m, err := account.NewManager(h.users.Users, nil, account.Config{
		Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true,
		Now: func() time.Time { return h.now },
	})
	if err != nil {
		t.Fatalf("NewManager: %v", err)
	}
	return m
}

const (
	password = "correct horse battery"
	changed  = "staple correct horse"
)

// withPassword gives Ann a password.
func (h *harness) withPassword(t testing.TB) *account.Manager[user, uuid.UUID] {
	t.Helper()
	m := h.manager(t)
	if err := h.users.Delete(t.Context(), h.ann.ID); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.ann, err = m.Register(t.Context(), h.ann, password); err != nil {
		t.Fatalf("Register: %v", err)
	}
	return m
}

// A login reads the account, takes its time over the password, and writes the
// token. Whatever falls in between, the credentials of before a change are of no
// use after it.
func TestALoginBesideAChange(t *testing.T) {
	for _, c := range []struct {
		name string
		// The times, from the beginning of the login: when the account was read,
		// when it changed, when the token was written.
		read, change, write time.Duration
		want                error
	}{
		{"the password changes while it is checked", 0, 50 * ms, 100 * ms, strategy.ErrInvalidToken},
		{"it changes in the millisecond in which the login begins", 0, 0, 100 * ms, strategy.ErrInvalidToken},
		{"it changes after the token was written", 0, 200 * ms, 100 * ms, strategy.ErrInvalidToken},
		{"it changes in the millisecond in which the token is written", 0, 100 * ms, 100 * ms, strategy.ErrInvalidToken},
		{"all happens in one millisecond", 0, 0, 0, strategy.ErrInvalidToken},
		{"the change began before the login, and was written after the account was read", 0, -50 * ms, 100 * ms, strategy.ErrInvalidToken},
		{"it was changed meanwhile by a clock that is some seconds behind", 0, -5 * time.Second, 100 * ms, strategy.ErrInvalidToken},
		{"it was changed meanwhile by a clock that is an hour behind", 0, -time.Hour, 100 * ms, strategy.ErrInvalidToken},
		{"it has changed before the account was read", 20 * ms, 10 * ms, 100 * ms, nil},
		{"it has changed just before", 0, -ms, 100 * ms, nil},
		{"it has changed in the same millisecond, before", 1, 0, 1, nil},
		{"it was changed by a clock that is an hour ahead", ms, time.Hour, 100 * ms, nil},
		{"it was changed by a clock that is an hour behind", ms, -time.Hour, 100 * ms, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, strategy.Config{Lifetime: 24 * time.Hour})
			m := h.manager(t)
			begin := h.now
			change := func() {
				now := h.now
				h.now = begin.Add(c.change)
				if err := m.RevokeTokens(t.Context(), h.ann.ID); err != nil {
					t.Fatalf("RevokeTokens: %v", err)
				}
				h.now = now
			}
			if c.want == nil {
				change()
			}
			h.now = begin.Add(c.read)
			h.reload(t)
			if c.want != nil && c.change <= c.write {
				change()
			}
			h.now = begin.Add(c.write)
			token, _ := h.issue(t, strategy.WithAuthenticatedAt(begin))
			if c.want != nil && c.change > c.write {
				h.reads(t, "before the change", token, nil)
				change()
			}
			h.now = begin.Add(max(c.write, c.change) + ms)
			if c.want == nil {
				h.now = begin.Add(c.write)
			}
			h.reads(t, "after all that", token, c.want)
			// The next change ends it, by whatever clock.
			for _, d := range []time.Duration{max(c.write, c.change) + ms, -time.Hour} {
				h.now = begin.Add(max(c.write, c.change))
				h.reload(t)
				token, _ := h.issue(t)
				h.reads(t, "of a login after that", token, nil)
				h.now = begin.Add(d)
				if err := m.RevokeTokens(t.Context(), h.ann.ID); err != nil {
					t.Fatalf("RevokeTokens: %v", err)
				}
				h.reads(t, "after the next change", token, strategy.ErrInvalidToken)
			}
			h.reads(t, "at the end", token, strategy.ErrInvalidToken)
		})
	}
}

// plainUser is a user that knows no time before which tokens are invalid.
type plainUser struct{ id int64 }

func (u plainUser) UserID() int64   { return u.id }
func (plainUser) IsActive() bool    { return true }
func (plainUser) IsVerified() bool  { return true }
func (plainUser) IsSuperuser() bool { return false }

// ByID makes it its own source.
func (u plainUser) ByID(context.Context, int64) (plainUser, error) { return u, nil }

var epoch = time.UnixMilli(0).UTC()

func TestARowKeepsWhatTheLoginSaw(t *testing.T) {
	for _, c := range []struct {
		name     string
		at, want time.Time
	}{
		{"no not-before", time.Time{}, epoch},
		{"a not-before", issuedAt.Add(-time.Hour), issuedAt.Add(-time.Hour)},
		{"a not-before with a remainder, in another zone", issuedAt.Add(1 - ms).In(time.FixedZone("elsewhere", 7200)), issuedAt},
		{"a not-before by a clock that is ahead", issuedAt.Add(time.Hour), issuedAt.Add(time.Hour)},
		{"a not-before of long ago", epoch.Add(-time.Hour), epoch},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, strategy.Config{})
			h.ann.NotBefore = c.at
			if err := h.users.Update(t.Context(), h.ann.ID, func(u *user) { u.NotBefore = c.at }); err != nil {
				t.Fatal(err)
			}
			token, row := h.issue(t)
			if !row.SeenNotBefore.Equal(c.want) || row.SeenNotBefore.Location() != time.UTC {
				t.Errorf("the row has %v, want %v", row.SeenNotBefore, c.want)
			}
			h.reads(t, "at once", token, nil)
		})
	}
	t.Run("a user that knows none", func(t *testing.T) {
		tokens, bob := memstore.NewTokens[int64](), plainUser{1}
		d, err := strategy.NewDatabase(tokens, bob, strategy.Config{})
		if err != nil {
			t.Fatal(err)
		}
		secret, _, err := d.WriteToken(t.Context(), bob)
		if err != nil {
			t.Fatal(err)
		}
		rotated, _, err := d.RotateToken(t.Context(), secret.Reveal(), strategy.Reauthenticated(bob, issuedAt))
		if err != nil {
			t.Fatal(err)
		}
		row, err := tokens.ByToken(t.Context(), sha256Of(rotated.Reveal()), time.Time{})
		if err != nil || !row.SeenNotBefore.IsZero() {
			t.Errorf("the row has %v (error %v), want none", row.SeenNotBefore, err)
		}
	})
}

// A login is ordered by what it saw of the user: clocks differ.
func TestAChangeEndsTheLoginsThatHaveNotSeenIt(t *testing.T) {
	for _, seen := range []time.Time{{}, issuedAt.Add(-time.Hour), issuedAt.Add(24 * time.Hour)} {
		for _, ahead := range []time.Duration{0, -24 * time.Hour, 24 * time.Hour} {
			for _, opts := range [][]strategy.TokenOption{nil, {strategy.WithScopes("deploy:write")}} {
				h := newHarness(t, strategy.Config{})
				set := func(at time.Time) {
					t.Helper()
					if err := h.users.Update(t.Context(), h.ann.ID, func(u *user) { u.NotBefore = at }); err != nil {
						t.Fatal(err)
					}
				}
				set(seen)
				h.reload(t)
				h.now = issuedAt.Add(ahead)
				token, row := h.issue(t, opts...)
				for _, c := range []struct {
					to   time.Time
					want error
				}{
					{seen, nil},
					{row.SeenNotBefore.Add(-time.Minute), nil},
					{row.SeenNotBefore.Add(1), strategy.ErrInvalidToken},
					{row.SeenNotBefore.Add(ms), strategy.ErrInvalidToken},
					{time.Time{}, nil},
				} {
					set(c.to)
					h.events.take()
					h.reads(t, fmt.Sprintf("of a login %v ahead that saw %v, the user's not-before %v", ahead, seen, c.to), token, c.want)
					if got := h.events.take(); c.want != nil && (len(got) != 1 || got[0].Reason != strategy.ReasonSuperseded) {
						t.Errorf("got the events %+v, want one with the reason %s", got, strategy.ReasonSuperseded)
					}
					page, err := h.Sessions(t.Context(), h.ann.ID, strategy.Page{})
					if listed := len(page.Sessions) == 1; err != nil || listed != (c.want == nil) {
						t.Errorf("listed: %v, %v, want %v", listed, err, c.want == nil)
					}
				}
			}
		}
	}
}

// Whoever gives the credentials again has seen what the account was then, and no
// more: not even by a clock that is far ahead.
func TestARotationKeepsWhatWasSeen(t *testing.T) {
	for _, c := range []struct {
		name string
		// What the row and the user who gave the credentials again saw, and what the
		// account has by now, by their distance from the epoch; -1 is a row of an
		// older version, and nobody.
		row, again, now time.Duration
		want            time.Duration // -2: refused
	}{
		{"a plain one", time.Hour, -1, time.Hour, time.Hour},
		{"a plain one of an older version's row", -1, -1, time.Hour, -1},
		{"with the account as it is", time.Hour, 2 * time.Hour, 2 * time.Hour, 2 * time.Hour},
		{"with the account as it is, of an older version's row", -1, 2 * time.Hour, 2 * time.Hour, 2 * time.Hour},
		{"without a not-before, of an older version's row", -1, 0, 0, 0},
		{"with an account that was read before the login", time.Hour, 0, time.Hour, time.Hour},
		{"with the account as it was before a change", 0, time.Hour, time.Hour + ms, -2},
		{"the same, of an older version's row", -1, time.Hour, time.Hour + ms, -2},
		{"a plain one after a change", 0, -1, ms, -2},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, strategy.Config{})
			account := func(since time.Duration) user {
				u := h.ann
				if since > 0 {
					u.NotBefore = epoch.Add(since)
				}
				return u
			}
			secret, _, err := h.WriteToken(t.Context(), account(max(c.row, 0)))
			if err != nil {
				t.Fatal(err)
			}
			token := secret.Reveal()
			if c.row < 0 {
				h.olderVersion(t, token)
			}
			if err := h.users.Update(t.Context(), h.ann.ID, func(u *user) { u.NotBefore = account(c.now).NotBefore }); err != nil {
				t.Fatal(err)
			}
			var opts []strategy.RotateOption
			if c.again >= 0 {
				opts = append(opts, strategy.Reauthenticated(account(c.again), h.now.Add(time.Hour)))
			}
			rotated, _, err := h.RotateToken(t.Context(), token, opts...)
			if refused := errors.Is(err, strategy.ErrInvalidToken); refused != (c.want == -2) || err != nil && !refused {
				t.Fatalf("got %v, want a refusal: %v", err, c.want == -2)
			}
			if err != nil {
				return
			}
			var want time.Time
			if c.want >= 0 {
				want = epoch.Add(c.want)
			}
			if got := h.row(t, rotated.Reveal()).SeenNotBefore; !got.Equal(want) {
				t.Errorf("the row has %v, want %v", got, want)
			}
			h.reads(t, "afterwards", rotated.Reveal(), nil)
		})
	}
}

func TestALogOutEverywhereEndsAllThatWasIssued(t *testing.T) {
	h := newHarness(t, strategy.Config{})
	m := h.manager(t)
	var tokens []string
	for range 3 {
		token, _ := h.issue(t)
		scoped, _ := h.issue(t, strategy.WithScopes("deploy:write"))
		tokens = append(tokens, token, scoped)
		h.now = h.now.Add(300 * time.Microsecond)
	}
	before := h.tokens.calls.Load()
	if err := m.RevokeTokens(t.Context(), h.ann.ID); err != nil {
		t.Fatalf("RevokeTokens: %v", err)
	}
	if got := h.tokens.calls.Load() - before; got != 0 {
		t.Errorf("it took %d calls of the store of tokens, want none", got)
	}
	for _, token := range tokens {
		h.reads(t, "after a log-out everywhere", token, strategy.ErrInvalidToken)
	}
	// Who logs in again, at once, stays.
	h.reload(t)
	token, _ := h.issue(t)
	h.reads(t, "after another login", token, nil)
}

func TestAChangeOfPasswordKeepsTheSessionThatIsReissued(t *testing.T) {
	for _, c := range []struct {
		name  string
		ahead time.Duration // by how much the clock of the last change was ahead
	}{{"clocks agree", 0}, {"the account was changed by a clock that is ahead", time.Hour}} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, strategy.Config{Lifetime: 24 * time.Hour})
			m := h.withPassword(t)
			if c.ahead > 0 {
				h.notBefore(t, h.now.Add(c.ahead))
			}
			own, issued := h.issue(t)
			other, otherRow := h.issue(t)
			script, _ := h.issue(t, strategy.WithScopes("deploy:write"))

			at := h.now
			h.now = h.now.Add(time.Second)
			ann, err := m.ChangePassword(t.Context(), h.ann.ID, password, changed)
			if err != nil {
				t.Fatalf("ChangePassword: %v", err)
			}
			// A plain rotation saves nothing.
			for _, token := range []string{own, other, script} {
				h.reads(t, "after the change", token, strategy.ErrInvalidToken)
				if _, _, err := h.RotateToken(t.Context(), token); !errors.Is(err, strategy.ErrInvalidToken) {
					t.Errorf("RotateToken after the change: got %v, want ErrInvalidToken", err)
				}
			}
			// Nor does a password that was given before the change, with the account as
			// it was then.
			if _, _, err := h.RotateToken(t.Context(), own, strategy.Reauthenticated(h.ann, at)); !errors.Is(err, strategy.ErrInvalidToken) {
				t.Errorf("RotateToken with an older authentication: got %v, want ErrInvalidToken", err)
			}

			secret, session, err := h.RotateToken(t.Context(), own, strategy.Reauthenticated(ann, at))
			if err != nil {
				t.Fatalf("RotateToken: %v", err)
			}
			if session.ID != issued.ID || session.AuthenticatedAt.Before(ann.NotBefore) || !session.ExpiresAt.Equal(issuedAt.Add(24*time.Hour)) {
				t.Errorf("got the session %+v, want %v, authenticated at the change, and with its old end", session, issued.ID)
			}
			h.reads(t, "of the reissued session", secret.Reveal(), nil)
			h.reads(t, "of its old token", own, strategy.ErrInvalidToken)
			h.reads(t, "of another session", other, strategy.ErrInvalidToken)
			if got := h.row(t, other); !reflect.DeepEqual(got, otherRow) {
				t.Errorf("the row of another session: got %+v, want %+v", got, otherRow)
			}
			// A rotation keeps what a rotation brought.
			h.reads(t, "after a rotation", h.rotates(t, secret.Reveal()), nil)
		})
	}
}

func TestActivatingAnAccountAgainRevivesNothing(t *testing.T) {
	h := newHarness(t, strategy.Config{})
	m := h.manager(t)
	token, _ := h.issue(t)
	if err := m.Deactivate(t.Context(), h.ann.ID); err != nil {
		t.Fatalf("Deactivate: %v", err)
	}
	h.reads(t, "while inactive", token, strategy.ErrInvalidToken)
	if err := m.Activate(t.Context(), h.ann.ID); err != nil {
		t.Fatalf("Activate: %v", err)
	}
	h.reads(t, "after it was activated again", token, strategy.ErrInvalidToken)
	h.reload(t)
	token, _ = h.issue(t)
	h.reads(t, "after another login", token, nil)
}
