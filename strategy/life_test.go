package strategy_test

import (
	"context"
	"errors"
	"fmt"
	"math"
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
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/secretscan"
	"github.com/latchkey-go/latchkey/strategy"
)

// issuedAt is the initial time of a rig, in UTC and whole milliseconds.
var issuedAt = time.Date(2026, 3, 29, 0, 59, 59, 987e6, time.UTC)

const ms = time.Millisecond

// another returns a rig over the same stores, like a second instance of the application, or
// the same instance after a restart.
func (r *rig) another(t testing.TB, cfg strategy.Config) *rig {
	t.Helper()
	o := &rig{tokens: r.tokens, users: r.users, now: r.now, ann: r.ann}
	cfg.Now = func() time.Time { return o.now }
	cfg.OnEvent = o.events.record
	var err error
	if o.Database, err = strategy.NewDatabase(o.tokens, o.users, cfg); err != nil {
		t.Fatalf("NewDatabase: %v", err)
	}
	return o
}

// revoke raises Ann's token version.
func (r *rig) revoke(t testing.TB) {
	t.Helper()
	if err := r.users.Apply(t.Context(), r.ann.ID, account.Change{RevokeTokens: true}); err != nil {
		t.Fatalf("Apply: %v", err)
	}
	r.reload(t)
}

// setVersion sets Ann's token version in the store. r.ann keeps the one that it has.
func (r *rig) setVersion(t testing.TB, version int64) {
	t.Helper()
	if err := r.users.Update(t.Context(), r.ann.ID, func(u *user) { u.Version = version }); err != nil {
		t.Fatalf("Update: %v", err)
	}
}

// reload reads Ann again, as a login does.
func (r *rig) reload(t testing.TB) {
	t.Helper()
	var err error
	if r.ann, err = r.users.Users.ByID(t.Context(), r.ann.ID); err != nil {
		t.Fatalf("ByID: %v", err)
	}
}

// rotates rotates a token and returns the new one.
func (r *rig) rotates(t testing.TB, token string, opts ...strategy.RotateOption) string {
	t.Helper()
	secret, _, err := r.RotateToken(t.Context(), token, opts...)
	if err != nil {
		t.Fatalf("RotateToken: %v", err)
	}
	secretscan.Record(secret.Reveal())
	r.secrets = append(r.secrets, secret.Reveal(), sha256Of(secret.Reveal()))
	return secret.Reveal()
}

func TestLimitsHoldToTheMillisecond(t *testing.T) {
	const day, idle = 24 * time.Hour, time.Hour
	lasting := strategy.Config{Lifetime: day}
	idling := strategy.Config{Lifetime: day, IdleTimeout: idle, TouchInterval: 6 * time.Minute}
	deploy := strategy.WithScopes("deploy:write")
	for _, c := range []struct {
		name string
		cfg  strategy.Config
		opts []strategy.TokenOption
		// to moves time to d after the limit of a token. It returns the rig and the token
		// to continue with.
		to     func(t *testing.T, r *rig, token string, d time.Duration) (*rig, string)
		reason event.Reason
	}{
		{"the lifetime", lasting, nil, at(day), event.ReasonExpired},
		{"the lifetime of a session in use", idling, nil, func(t *testing.T, r *rig, token string, d time.Duration) (*rig, string) {
			for r.now.Before(issuedAt.Add(day - 30*time.Minute)) {
				r.now = r.now.Add(30 * time.Minute)
				r.reads(t, "in use", token, nil)
			}
			r.now = issuedAt.Add(day + d)
			return r, token
		}, event.ReasonExpired},
		{"the lifetime of a session that was rotated", lasting, nil, func(t *testing.T, r *rig, token string, d time.Duration) (*rig, string) {
			r.now = issuedAt.Add(day / 2)
			token = r.rotates(t, token)
			r.now = issuedAt.Add(day + d)
			return r, token
		}, event.ReasonExpired},
		{"the lifetime of a token with scopes", lasting, []strategy.TokenOption{deploy}, at(day), event.ReasonExpired},
		{"a lifetime of its own", lasting, []strategy.TokenOption{strategy.WithLifetime(time.Hour)}, at(time.Hour), event.ReasonExpired},
		{"a lifetime of its own with scopes", lasting, []strategy.TokenOption{deploy, strategy.WithLifetime(time.Hour)}, at(time.Hour), event.ReasonExpired},
		{"a lifetime of its own without Config.Lifetime", strategy.Config{}, []strategy.TokenOption{strategy.WithLifetime(400 * day)}, at(400 * day), event.ReasonExpired},
		{"a lifetime of its own, one millisecond", lasting, []strategy.TokenOption{strategy.WithLifetime(ms)}, at(ms), event.ReasonExpired},
		{"a lifetime of its own, not in whole milliseconds", lasting, []strategy.TokenOption{strategy.WithLifetime(time.Hour + ms - 1)}, at(time.Hour), event.ReasonExpired},
		{"a lifetime of its own, equal to Config.Lifetime", lasting, []strategy.TokenOption{strategy.WithLifetime(day)}, at(day), event.ReasonExpired},
		{"a lifetime of its own of a session in use that was rotated", idling, []strategy.TokenOption{strategy.WithLifetime(time.Hour)},
			func(t *testing.T, r *rig, token string, d time.Duration) (*rig, string) {
				r.now = issuedAt.Add(30 * time.Minute)
				token = r.rotates(t, token, strategy.WithReauthentication(r.ann, r.now))
				r.now = issuedAt.Add(time.Hour + d)
				return r, token
			}, event.ReasonExpired},
		{"the lifetime, shortened after the login", strategy.Config{}, nil, func(t *testing.T, r *rig, token string, d time.Duration) (*rig, string) {
			r = r.another(t, strategy.Config{Lifetime: time.Hour})
			r.now = issuedAt.Add(time.Hour + d)
			return r, token
		}, event.ReasonExpired},

		{"the idle timeout of a session that was never used", idling, nil, at(idle), event.ReasonIdle},
		{"the idle timeout of a session that was used", idling, nil, func(t *testing.T, r *rig, token string, d time.Duration) (*rig, string) {
			r.now = issuedAt.Add(20 * time.Minute)
			r.reads(t, "in use", token, nil)
			r.now = issuedAt.Add(20*time.Minute + idle + d)
			return r, token
		}, event.ReasonIdle},
		{"the idle timeout of a session that was rotated", idling, nil, func(t *testing.T, r *rig, token string, d time.Duration) (*rig, string) {
			r.now = issuedAt.Add(time.Minute)
			token = r.rotates(t, token)
			r.now = issuedAt.Add(time.Minute + idle + d)
			return r, token
		}, event.ReasonIdle},
		{"the idle timeout of a login by a clock that is ahead", idling, []strategy.TokenOption{strategy.WithAuthenticatedAt(issuedAt.Add(time.Minute))}, at(idle), event.ReasonIdle},

		{"Config.NotBefore", lasting, nil, func(t *testing.T, r *rig, token string, d time.Duration) (*rig, string) {
			return r.another(t, strategy.Config{Lifetime: day, NotBefore: issuedAt.Add(d)}), token
		}, event.ReasonSuperseded},
		{"Config.NotBefore, not in whole milliseconds, in another zone", lasting, nil, func(t *testing.T, r *rig, token string, d time.Duration) (*rig, string) {
			at := issuedAt.Add(d - ms + 1).In(time.FixedZone("elsewhere", 7200))
			return r.another(t, strategy.Config{Lifetime: day, NotBefore: at}), token
		}, event.ReasonSuperseded},
		{"Config.NotBefore, by the time of authentication", lasting, []strategy.TokenOption{strategy.WithAuthenticatedAt(issuedAt.Add(-time.Minute))},
			func(t *testing.T, r *rig, token string, d time.Duration) (*rig, string) {
				return r.another(t, strategy.Config{Lifetime: day, NotBefore: issuedAt.Add(-time.Minute + d)}), token
			}, event.ReasonSuperseded},
		{"Config.NotBefore after a reauthentication", lasting, nil, func(t *testing.T, r *rig, token string, d time.Duration) (*rig, string) {
			r.now = issuedAt.Add(time.Hour)
			token = r.rotates(t, token, strategy.WithReauthentication(r.ann, r.now))
			return r.another(t, strategy.Config{Lifetime: day, NotBefore: issuedAt.Add(time.Hour + d)}), token
		}, event.ReasonSuperseded},
		{"Config.NotBefore for a token with scopes", lasting, []strategy.TokenOption{deploy}, func(t *testing.T, r *rig, token string, d time.Duration) (*rig, string) {
			return r.another(t, strategy.Config{Lifetime: day, NotBefore: issuedAt.Add(d)}), token
		}, event.ReasonSuperseded},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, d := range []time.Duration{-ms, 0, ms} {
				r := newRig(t, c.cfg)
				token, _ := r.issue(t, c.opts...)
				r, token = c.to(t, r, token, d)
				before := r.row(t, token)

				// A session is listed if, and only if, its token is accepted.
				page, err := r.Sessions(t.Context(), r.ann.ID, strategy.Page{})
				if want := map[bool]int{true: 1, false: 0}[d <= 0]; err != nil || len(page.Sessions) != want {
					t.Errorf("%v from the limit: got %d sessions, %v, want %d", d, len(page.Sessions), err, want)
				}
				r.events.take()
				if d <= 0 {
					r.reads(t, d.String()+" from the limit", token, nil)
					continue
				}
				r.reads(t, "beyond the limit", token, strategy.ErrInvalidToken)
				if got := r.events.take(); len(got) != 1 || got[0].Reason != c.reason {
					t.Errorf("beyond the limit: got the events %+v, want one with the reason %s", got, c.reason)
				}
				if _, _, err := r.RotateToken(t.Context(), token); !errors.Is(err, strategy.ErrInvalidToken) {
					t.Errorf("RotateToken beyond the limit: got %v, want ErrInvalidToken", err)
				}
				if got := r.row(t, token); !reflect.DeepEqual(got, before) {
					t.Errorf("the row after the refusal: got %+v, want %+v untouched", got, before)
				}
			}
		})
	}
}

// at moves time to d after an age of the token.
func at(limit time.Duration) func(*testing.T, *rig, string, time.Duration) (*rig, string) {
	return func(_ *testing.T, r *rig, token string, d time.Duration) (*rig, string) {
		r.now = issuedAt.Add(limit + d)
		return r, token
	}
}

func TestTokenWithScopesIsNeverIdle(t *testing.T) {
	r := newRig(t, strategy.Config{IdleTimeout: time.Hour})
	token, _ := r.issue(t, strategy.WithScopes("deploy:write"))
	r.now = r.now.AddDate(1, 0, 0)
	r.reads(t, "after a year", token, nil)
	if got, want := r.row(t, token).LastUsedAt, r.now.UTC().Truncate(ms); !got.Equal(want) {
		t.Errorf("LastUsedAt: got %v, want %v", got, want)
	}
}

// Users whose session has ended must log in; giving the password again does not bring it back.
func TestReauthenticationDoesNotReviveAnEndedSession(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  strategy.Config
		opts []strategy.TokenOption
	}{
		{"the lifetime", strategy.Config{Lifetime: time.Hour}, nil},
		{"the idle timeout", strategy.Config{IdleTimeout: time.Hour}, nil},
		{"a lifetime of its own", strategy.Config{}, []strategy.TokenOption{strategy.WithLifetime(time.Hour)}},
	} {
		r := newRig(t, c.cfg)
		token, _ := r.issue(t, c.opts...)
		r.now = r.now.Add(time.Hour + ms)
		if _, _, err := r.RotateToken(t.Context(), token, strategy.WithReauthentication(r.ann, r.now)); !errors.Is(err, strategy.ErrInvalidToken) {
			t.Errorf("after %s: got %v, want ErrInvalidToken", c.name, err)
		}
	}
}

func TestTouchIntervals(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  strategy.Config
		want time.Duration // 0 means never
	}{
		{"a tenth of the idle timeout", strategy.Config{IdleTimeout: time.Hour}, 6 * time.Minute},
		{"at least a second", strategy.Config{IdleTimeout: 2 * time.Second}, time.Second},
		{"less than a second for an idle timeout of less than two", strategy.Config{IdleTimeout: time.Second}, 100 * ms},
		{"as configured", strategy.Config{IdleTimeout: time.Hour, TouchInterval: 17 * ms}, 17 * ms},
		{"never without an idle timeout", strategy.Config{}, 0},
		{"as configured without an idle timeout", strategy.Config{TouchInterval: time.Minute}, time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.cfg)
			writes := r.countTouches()
			token, issued := r.issue(t)
			if !issued.LastUsedAt.IsZero() {
				t.Errorf("LastUsedAt when issued: got %v, want none", issued.LastUsedAt)
			}
			if c.want == 0 {
				r.now = r.now.AddDate(1, 0, 0)
				r.reads(t, "after a year", token, nil)
				if got := writes.Load(); got != 0 {
					t.Errorf("got %d touches, want none", got)
				}
				return
			}
			used := issuedAt
			for range 3 {
				r.now = used.Add(c.want - ms)
				r.reads(t, "within the interval", token, nil)
				if got := r.row(t, token).LastUsedAt; got.After(used) {
					t.Errorf("within the interval: got LastUsedAt %v, want what it was, %v", got, used)
				}
				r.now = used.Add(c.want)
				session, err := r.ReadToken(t.Context(), token)
				if err != nil || !session.LastUsedAt.Equal(r.now) {
					t.Fatalf("after the interval: got %v, %v, want a session that was used at %v", session, err, r.now)
				}
				if got := r.row(t, token).LastUsedAt; !got.Equal(r.now) {
					t.Errorf("after the interval: got LastUsedAt %v, want %v", got, r.now)
				}
				used = r.now
			}
			if got := writes.Load(); got != 3 {
				t.Errorf("got %d touches, want 3", got)
			}
		})
	}
}

// countTouches counts the calls of Touch.
func (r *rig) countTouches() *atomic.Int64 {
	var n atomic.Int64
	r.tokens.touch = func(ctx context.Context, digest string, at time.Time) error {
		n.Add(1)
		return r.tokens.store.Touch(ctx, digest, at)
	}
	return &n
}

func TestSessionIsTouchedOncePerInterval(t *testing.T) {
	const n = 10_000
	for _, c := range []struct {
		name    string
		readers int
	}{{"one after the other", 1}, {"from many goroutines", 32}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, strategy.Config{IdleTimeout: time.Hour, TouchInterval: time.Minute})
			writes := r.countTouches()
			token, issued := r.issue(t)
			// All readers see the row before the first touch, as concurrent requests do.
			r.tokens.byToken = func(context.Context, string) (row, error) { return issued, nil }
			r.now = r.now.Add(2 * time.Minute)
			before := r.tokens.calls.Load()
			var wg sync.WaitGroup
			for range c.readers {
				wg.Go(func() {
					for range n / c.readers {
						if _, err := r.ReadToken(t.Context(), token); err != nil {
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
			if got := r.tokens.calls.Load() - before; got != reads+1 {
				t.Errorf("got %d calls of the store, want %d reads and a touch", got, reads)
			}
		})
	}
}

// Goroutines can touch in another order than they read the clock.
func TestRequestWithAnEarlierTimeDoesNotTouchAgain(t *testing.T) {
	r := newRig(t, strategy.Config{IdleTimeout: time.Hour, TouchInterval: time.Minute})
	writes := r.countTouches()
	token, issued := r.issue(t)
	r.tokens.byToken = func(context.Context, string) (row, error) { return issued, nil }
	for _, after := range []time.Duration{time.Minute + 2*ms, time.Minute + ms, time.Minute} {
		r.now = issuedAt.Add(after)
		r.reads(t, "of the old row", token, nil)
	}
	if got := writes.Load(); got != 1 {
		t.Errorf("got %d touches, want 1", got)
	}
	// A clock that is set back by more than the interval touches again.
	r.now = issuedAt.Add(-time.Hour)
	issued.CreatedAt = r.now.Add(-2 * time.Minute)
	r.reads(t, "after the clock was set back", token, nil)
	if got := writes.Load(); got != 2 {
		t.Errorf("after the clock was set back: got %d touches, want 2", got)
	}
}

func TestEachSessionIsTouched(t *testing.T) {
	r := newRig(t, strategy.Config{IdleTimeout: time.Hour, TouchInterval: time.Minute})
	writes := r.countTouches()
	first, _ := r.issue(t)
	second, _ := r.issue(t)
	other := r.another(t, strategy.Config{IdleTimeout: time.Hour, TouchInterval: time.Minute})
	r.now = r.now.Add(time.Minute)
	other.now = r.now
	for range 3 {
		r.reads(t, "", first, nil)
		other.reads(t, "by another instance, after a touch", first, nil)
	}
	if got := writes.Load(); got != 1 {
		t.Errorf("of one session: got %d touches, want 1", got)
	}
	r.reads(t, "", second, nil)
	if got := writes.Load(); got != 2 {
		t.Errorf("of two sessions: got %d touches, want 2", got)
	}
}

// Touches older than the interval need not be remembered.
func TestTouchesAreForgotten(t *testing.T) {
	r := newRig(t, strategy.Config{TouchInterval: time.Minute})
	const each = 10
	for minute := range 20 {
		for range each {
			token, _ := r.issue(t)
			r.now = r.now.Add(time.Minute)
			r.reads(t, "", token, nil)
			r.now = r.now.Add(-time.Minute)
		}
		r.now = r.now.Add(time.Minute)
		if got := r.Touched(); got == 0 || got > 2*each {
			t.Fatalf("after %d minutes with %d sessions each: %d touches are remembered, want some, and at most those of two minutes", minute+1, each, got)
		}
	}
}

// TouchInterval shortens the idle timeout by at most itself, and never extends it.
func TestIdleTimeIsExactWithinTheInterval(t *testing.T) {
	const idle, interval = time.Hour, 6 * time.Minute
	random := rand.New(rand.NewPCG(3, 4))
	ended, written := 0, 0
	for range 300 {
		r := newRig(t, strategy.Config{IdleTimeout: idle, TouchInterval: interval})
		writes := r.countTouches()
		token, _ := r.issue(t)
		used := r.now
		for {
			// Short gaps, gaps around the limits, and any gaps.
			gap := [...]time.Duration{
				time.Duration(random.Int64N(int64(interval))),
				idle - interval + time.Duration(random.Int64N(11)-5)*ms,
				idle + time.Duration(random.Int64N(11)-5)*ms,
				time.Duration(random.Int64N(int64(idle + 2*interval))),
			}[random.IntN(8)%4].Truncate(ms)
			r.now = used.Add(gap)
			_, err := r.ReadToken(t.Context(), token)
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
			used = r.now
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

func TestFailedTouchIsAnEventAndRetriedLater(t *testing.T) {
	r := newRig(t, strategy.Config{IdleTimeout: time.Hour, TouchInterval: time.Minute})
	token, issued := r.issue(t)
	down := errors.New("down")
	var tries []time.Time
	r.tokens.touch = func(ctx context.Context, _ string, _ time.Time) error {
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > time.Second {
			t.Errorf("the touch has the deadline %v, %v, want one within a second", deadline, ok)
		}
		tries = append(tries, r.now)
		return down
	}
	begin := r.now.Add(2 * time.Minute)
	r.events.take()
	for after := time.Duration(0); after <= 3*time.Second; after += 100 * ms {
		r.now = begin.Add(after)
		session, err := r.ReadToken(t.Context(), token)
		if err != nil || !session.LastUsedAt.IsZero() {
			t.Errorf("ReadToken while touches fail: got %+v, %v, want a session without LastUsedAt", session, err)
		}
	}
	want := []time.Time{begin, begin.Add(time.Second), begin.Add(2 * time.Second), begin.Add(3 * time.Second)}
	if !reflect.DeepEqual(tries, want) {
		t.Errorf("got touches at %v, want one a second, at %v", tries, want)
	}
	events := r.events.take()
	if len(events) != len(want) {
		t.Errorf("got %d events, want %d", len(events), len(want))
	}
	for _, e := range events {
		if e.Kind != event.TouchFailed || e.UserID != r.ann.ID || e.SessionID != issued.ID || !errors.Is(e.Err, down) {
			t.Errorf("got the event %+v, want token.touch_failed of the session, with the failure", e)
		}
	}

	// After a touch that hung, the next requests do not wait too.
	r.now = begin.Add(time.Minute)
	tries = nil
	r.tokens.touch = func(context.Context, string, time.Time) error {
		tries = append(tries, r.now)
		r.now = r.now.Add(time.Second)
		return context.DeadlineExceeded
	}
	for range 10 {
		r.reads(t, "while touches hang", token, nil)
	}
	if len(tries) != 1 {
		t.Errorf("10 reads waited for %d touches that hang, want 1", len(tries))
	}

	// The store works again.
	writes := r.countTouches()
	r.now = begin.Add(2 * time.Minute)
	for range 3 {
		r.reads(t, "after the failure", token, nil)
	}
	if got := r.row(t, token).LastUsedAt; writes.Load() != 1 || !got.Equal(r.now.UTC().Truncate(ms)) {
		t.Errorf("after the failure: got %d touches and LastUsedAt %v, want 1 and %v", writes.Load(), got, r.now)
	}
}

func TestTouchRetryIsNoLongerThanTheInterval(t *testing.T) {
	r := newRig(t, strategy.Config{TouchInterval: 10 * ms})
	token, _ := r.issue(t)
	tries := 0
	r.tokens.touch = func(context.Context, string, time.Time) error { tries++; return errors.New("down") }
	for range 100 {
		r.now = r.now.Add(ms)
		r.reads(t, "", token, nil)
	}
	if tries != 10 {
		t.Errorf("100 reads within 100 ms tried %d touches, want one each 10 ms", tries)
	}
}

func TestRefusedTokenIsNotTouched(t *testing.T) {
	r := newRig(t, strategy.Config{IdleTimeout: time.Hour})
	writes := r.countTouches()
	token, _ := r.issue(t)
	r.revoke(t)
	r.now = r.now.Add(30 * time.Minute)
	r.reads(t, "after RevokeTokens", token, strategy.ErrInvalidToken)
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
		{"a lifetime equal to Config.Lifetime", time.Hour, strategy.WithLifetime(time.Hour), true},
		{"a lifetime just longer than Config.Lifetime", time.Hour, strategy.WithLifetime(time.Hour + 1), false},
		{"a lifetime of 0 without Config.Lifetime", 0, strategy.WithLifetime(0), false},
		{"any lifetime without Config.Lifetime", 0, strategy.WithLifetime(1<<63 - 1), true},
		{"no scopes", 0, strategy.WithScopes(), false},
		{"an empty slice of scopes", 0, strategy.WithScopes([]string{}...), false},
		{"an empty scope", 0, strategy.WithScopes(""), false},
		{"an empty scope among others", 0, strategy.WithScopes("a", "", "b"), false},
		{"two scopes in one", 0, strategy.WithScopes("a b"), false},
		{"a quote in a scope", 0, strategy.WithScopes(`a"b`), false},
		{"a backslash in a scope", 0, strategy.WithScopes(`a\b`), false},
		{"a line break in a scope", 0, strategy.WithScopes("a\r\nb"), false},
		{"a scope that is not ASCII", 0, strategy.WithScopes("ä"), false},
		{"DEL in a scope", 0, strategy.WithScopes("a\x7f"), false},
		{"the first and last characters of each range", 0, strategy.WithScopes("!", "#", "[", "]", "~", "https://example.com/scope"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, strategy.Config{Lifetime: c.lifetime})
			secret, session, err := r.WriteToken(t.Context(), r.ann, c.opt)
			if c.ok {
				if err != nil {
					t.Errorf("got %v, want a token", err)
				}
				return
			}
			if !errors.Is(err, strategy.ErrInvalidOption) || secret.Reveal() != "" || !reflect.DeepEqual(session, strategy.Session[user]{}) {
				t.Errorf("got %q, %+v, %v, want ErrInvalidOption alone", secret.Reveal(), session, err)
			}
			if got := r.tokens.calls.Load(); got != 0 {
				t.Errorf("the store was called %d times, want 0", got)
			}
		})
	}
}

func TestSessionKeepsItsOptions(t *testing.T) {
	r := newRig(t, strategy.Config{Lifetime: 24 * time.Hour, TouchInterval: time.Minute})
	scopes := []string{"deploy:write", "deploy:read"}
	secret, session, err := r.WriteToken(t.Context(), r.ann, strategy.WithName("ci"), strategy.WithScopes(scopes...),
		strategy.WithLifetime(time.Hour), strategy.WithUserAgent("curl/8"), strategy.WithClientIP("2001:db8::1"))
	if err != nil {
		t.Fatalf("WriteToken: %v", err)
	}
	want := strategy.SessionInfo{
		ID: session.ID, UserID: r.ann.ID, CreatedAt: issuedAt, ExpiresAt: issuedAt.Add(time.Hour),
		Scopes: []string{"deploy:write", "deploy:read"}, Name: "ci", UserAgent: "curl/8", ClientIP: "2001:db8::1",
	}
	scopes[0] = "everything" // the token must have a copy
	same := func(op string, got strategy.SessionInfo, err error) {
		t.Helper()
		if !reflect.DeepEqual(got, want) || err != nil {
			t.Errorf("%s: got %+v, %v\nwant %+v", op, got, err, want)
		}
	}
	readAs := func(op string) {
		t.Helper()
		read, err := r.ReadToken(t.Context(), secret.Reveal())
		if err != nil {
			t.Fatalf("%s: %v", op, err)
		}
		same(op, read.SessionInfo, nil)
	}
	same("WriteToken", session.SessionInfo, nil)
	readAs("ReadToken")
	page, err := r.Sessions(t.Context(), r.ann.ID, strategy.Page{})
	if len(page.Sessions) != 1 {
		t.Fatalf("Sessions: got %d, %v, want 1", len(page.Sessions), err)
	}
	same("Sessions", page.Sessions[0], err)
	r.now = r.now.Add(time.Minute)
	want.LastUsedAt = issuedAt.Add(time.Minute)
	readAs("ReadToken after the interval")

	if !want.Scoped() || !want.HasScopes() || !want.HasScopes("deploy:read", "deploy:write") || want.HasScopes("deploy:read", "admin") || want.HasScopes("deploy") {
		t.Error("HasScopes of a token with scopes: want its scopes and no others")
	}
	if login := (strategy.SessionInfo{}); login.Scoped() || !login.HasScopes("deploy:read", "admin") {
		t.Error("HasScopes of a login: want every scope")
	}
	if none := (strategy.SessionInfo{Scopes: []string{}}); !none.Scoped() || none.HasScopes("a") {
		t.Error("HasScopes of a token with an empty list of scopes: want no scope")
	}
}

func TestSessionTextsAreTruncated(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"a short text stays", strings.Repeat("x", 100), strings.Repeat("x", 100)},
		{"a long text is cut", strings.Repeat("x", 101), strings.Repeat("x", 100)},
		{"a character that ends at the limit stays", strings.Repeat("x", 98) + "é!", strings.Repeat("x", 98) + "é"},
		{"a character across the limit is removed", strings.Repeat("x", 99) + "é", strings.Repeat("x", 99)},
		{"a character of four bytes across the limit is removed", strings.Repeat("x", 97) + "🔑", strings.Repeat("x", 97)},
		{"invalid UTF-8 is replaced", "a\xff\xfeb", "a�b"},
		{"a NUL is replaced", "a\x00b", "a�b"},
		{"invalid UTF-8 is replaced before it is cut", strings.Repeat("x", 99) + "\xff", strings.Repeat("x", 99)},
		{"the empty string stays", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, strategy.Config{})
			_, session, err := r.WriteToken(t.Context(), r.ann, strategy.WithName(c.in))
			if session.Name != c.want || err != nil {
				t.Errorf("got %q, %v, want %q", session.Name, err, c.want)
			}
		})
	}
	r := newRig(t, strategy.Config{})
	long := strings.Repeat("€", 1<<20)
	_, session, err := r.WriteToken(t.Context(), r.ann, strategy.WithName(long), strategy.WithUserAgent(long), strategy.WithClientIP(long))
	if err != nil {
		t.Fatalf("WriteToken: %v", err)
	}
	for name, c := range map[string]struct {
		got  string
		want int
	}{"Name": {session.Name, 99}, "UserAgent": {session.UserAgent, 255}, "ClientIP": {session.ClientIP, 63}} {
		if len(c.got) != c.want || !utf8.ValidString(c.got) {
			t.Errorf("%s: got %d bytes, valid UTF-8: %v, want %d", name, len(c.got), utf8.ValidString(c.got), c.want)
		}
	}
}

// manager returns an account.Manager over the users of a rig, with its clock. Without
// sessions it leaves the rows of revoked tokens in place.
func (r *rig) manager(t testing.TB, sessions ...account.Sessions[uuid.UUID]) *account.Manager[user, uuid.UUID] {
	t.Helper()
	m, err := account.NewManager(r.users.Users, nil, nil, nil, account.Config{
		InsecureNoLimiter: true, Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true,
		Now: func() time.Time { return r.now },
	}, sessions...)
	if err != nil {
		t.Fatalf("NewManager: %v", err)
	}
	return m
}

const (
	password = "correct horse battery"
	changed  = "staple correct horse"
)

// withPassword registers Ann again, with a password.
func (r *rig) withPassword(t testing.TB) *account.Manager[user, uuid.UUID] {
	t.Helper()
	m := r.manager(t)
	if err := r.users.Delete(t.Context(), r.ann.ID); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.ann, err = m.Register(t.Context(), r.ann, password); err != nil {
		t.Fatalf("Register: %v", err)
	}
	return m
}

// A login reads the account, checks the password, which takes time, and writes the token. If
// the account changes at any time after it was read, the token must not be valid.
func TestLoginDuringAChange(t *testing.T) {
	for _, c := range []struct {
		name string
		// Times after the start of the login: of the read of the account, of its change (by
		// the clock that makes it), and of the write of the token.
		read, change, write time.Duration
		want                error
	}{
		{"the change comes while the password is checked", 0, 50 * ms, 100 * ms, strategy.ErrInvalidToken},
		{"the change comes in the millisecond in which the login begins", 0, 0, 100 * ms, strategy.ErrInvalidToken},
		{"the change comes after the token was written", 0, 200 * ms, 100 * ms, strategy.ErrInvalidToken},
		{"the change comes in the millisecond in which the token is written", 0, 100 * ms, 100 * ms, strategy.ErrInvalidToken},
		{"everything happens in one millisecond", 0, 0, 0, strategy.ErrInvalidToken},
		{"the change began before the login and was written after the account was read", 0, -50 * ms, 100 * ms, strategy.ErrInvalidToken},
		{"the change comes meanwhile, by a clock that is seconds behind", 0, -5 * time.Second, 100 * ms, strategy.ErrInvalidToken},
		{"the change comes meanwhile, by a clock that is an hour behind", 0, -time.Hour, 100 * ms, strategy.ErrInvalidToken},
		{"the change came before the account was read", 20 * ms, 10 * ms, 100 * ms, nil},
		{"the change came a millisecond before the login", 0, -ms, 100 * ms, nil},
		{"the change came before, in the same millisecond", 1, 0, 1, nil},
		{"the change came before, by a clock that is an hour ahead", ms, time.Hour, 100 * ms, nil},
		{"the change came before, by a clock that is an hour behind", ms, -time.Hour, 100 * ms, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, strategy.Config{Lifetime: 24 * time.Hour})
			m := r.manager(t)
			begin := r.now
			change := func() {
				now := r.now
				r.now = begin.Add(c.change)
				if err := m.RevokeTokens(t.Context(), r.ann.ID); err != nil {
					t.Fatalf("RevokeTokens: %v", err)
				}
				r.now = now
			}
			if c.want == nil {
				change()
			}
			r.now = begin.Add(c.read)
			r.reload(t)
			if c.want != nil && c.change <= c.write {
				change()
			}
			r.now = begin.Add(c.write)
			token, _ := r.issue(t, strategy.WithAuthenticatedAt(begin))
			if c.want != nil && c.change > c.write {
				r.reads(t, "before the change", token, nil)
				change()
			}
			r.now = begin.Add(max(c.write, c.change) + ms)
			if c.want == nil {
				r.now = begin.Add(c.write)
			}
			r.reads(t, "after the login", token, c.want)
			// The next change ends the session, whatever the clock.
			for _, d := range []time.Duration{max(c.write, c.change) + ms, -time.Hour} {
				r.now = begin.Add(max(c.write, c.change))
				r.reload(t)
				token, _ := r.issue(t)
				r.reads(t, "of the next login", token, nil)
				r.now = begin.Add(d)
				if err := m.RevokeTokens(t.Context(), r.ann.ID); err != nil {
					t.Fatalf("RevokeTokens: %v", err)
				}
				r.reads(t, "after the next change", token, strategy.ErrInvalidToken)
			}
			r.reads(t, "at the end", token, strategy.ErrInvalidToken)
		})
	}
}

func TestRowKeepsTheTokenVersionOfTheLogin(t *testing.T) {
	for _, version := range []int64{0, 1, 7, math.MaxInt64} {
		r := newRig(t, strategy.Config{})
		r.setVersion(t, version)
		r.reload(t)
		token, row := r.issue(t)
		if row.TokenVersion != version {
			t.Errorf("the row has the version %d, want %d", row.TokenVersion, version)
		}
		r.reads(t, "at once", token, nil)
	}
}

// A store returns version 0 for a row without a version, and for a user without one.
func TestRowWithoutAVersionIsOfVersionZero(t *testing.T) {
	r := newRig(t, strategy.Config{})
	secret := newSecret()
	without := row{ID: uuid.New(), Digest: sha256Of(secret.Reveal()), UserID: r.ann.ID, CreatedAt: issuedAt}
	if err := r.tokens.store.Insert(t.Context(), without); err != nil {
		t.Fatal(err)
	}
	r.reads(t, "of a user without a version", secret.Reveal(), nil)
	r.revoke(t)
	r.reads(t, "after a change", secret.Reveal(), strategy.ErrInvalidToken)
}

// A token is valid only while its row has the user's version: a smaller version is refused,
// and a greater one too (after the users were restored from a backup, say). Clocks do not
// matter.
func TestTokenIsValidOnlyAtTheUsersVersion(t *testing.T) {
	const day = 24 * time.Hour
	for _, seen := range []int64{0, 1, 41, math.MaxInt64 - 1} {
		for _, ahead := range []time.Duration{0, -day, day} {
			for name, opts := range map[string][]strategy.TokenOption{
				"a login":                                nil,
				"a token with scopes":                    {strategy.WithScopes("deploy:write")},
				"a login with an earlier password check": {strategy.WithAuthenticatedAt(issuedAt.Add(ahead - time.Minute))},
			} {
				r := newRig(t, strategy.Config{})
				r.setVersion(t, seen)
				r.reload(t)
				r.now = issuedAt.Add(ahead)
				token, _ := r.issue(t, opts...)
				for _, c := range []struct {
					version int64
					want    error
				}{
					{seen, nil},
					{seen + 1, strategy.ErrInvalidToken},
					{seen - 1, strategy.ErrInvalidToken},
					{math.MaxInt64, strategy.ErrInvalidToken},
					{seen, nil},
				} {
					r.setVersion(t, c.version)
					r.events.take()
					r.reads(t, fmt.Sprintf("of %s of version %d, %v ahead, with the user at version %d", name, seen, ahead, c.version), token, c.want)
					if got := r.events.take(); c.want != nil && (len(got) != 1 || got[0].Reason != event.ReasonSuperseded) {
						t.Errorf("got the events %+v, want one with the reason %s", got, event.ReasonSuperseded)
					}
					page, err := r.Sessions(t.Context(), r.ann.ID, strategy.Page{})
					if listed := len(page.Sessions) == 1; err != nil || listed != (c.want == nil) {
						t.Errorf("listed: %v, %v, want %v", listed, err, c.want == nil)
					}
				}
			}
		}
	}
}

// A rotation takes over the token version of the user who gave the credentials again. It
// never lowers a row's version, and it accepts no version but the account's.
func TestRotationAndTokenVersions(t *testing.T) {
	const plain, refused = -1, -2
	for _, c := range []struct {
		name string
		// The versions of the row, of the user who gave the credentials again (or plain),
		// and of the account by now.
		row, again, now int64
		want            int64 // the row's version after the rotation, or refused
	}{
		{"plain", 1, plain, 1, 1},
		{"plain, without a version", 0, plain, 0, 0},
		{"plain, after a change", 0, plain, 1, refused},
		{"plain, of a row ahead of the account", 3, plain, 2, refused},
		{"with the account as it is", 1, 2, 2, 2},
		{"with the account as it is, of a row without a version", 0, 2, 2, 2},
		{"with an account that was read before the login", 2, 1, 2, 2},
		{"with the account as it was before a change", 0, 1, 2, refused},
		{"with an account ahead of the stored one", 1, 3, 2, refused},
		{"with the account as it is, of a row ahead of it", 3, 2, 2, refused},
	} {
		for _, ahead := range []time.Duration{0, time.Hour, -time.Hour} {
			t.Run(fmt.Sprintf("%s, %v ahead", c.name, ahead), func(t *testing.T) {
				r := newRig(t, strategy.Config{})
				at := func(version int64) user {
					u := r.ann
					u.Version = version
					return u
				}
				secret, _, err := r.WriteToken(t.Context(), at(c.row))
				if err != nil {
					t.Fatal(err)
				}
				r.setVersion(t, c.now)
				var opts []strategy.RotateOption
				if c.again != plain {
					opts = append(opts, strategy.WithReauthentication(at(c.again), r.now.Add(ahead)))
				}
				rotated, _, err := r.RotateToken(t.Context(), secret.Reveal(), opts...)
				if c.want == refused {
					if !errors.Is(err, strategy.ErrInvalidToken) || rotated.Reveal() != "" {
						t.Errorf("got %q, %v, want ErrInvalidToken alone", rotated.Reveal(), err)
					}
					return
				}
				if err != nil {
					t.Fatalf("got %v, want nil", err)
				}
				if got := r.row(t, rotated.Reveal()).TokenVersion; got != c.want {
					t.Errorf("the row has the version %d, want %d", got, c.want)
				}
				r.reads(t, "afterwards", rotated.Reveal(), nil)
			})
		}
	}
}

// A login on an instance whose clock is ahead must not make the session look fresh, or stale,
// for ever: the latest check of the credentials counts.
func TestReauthenticationReplacesATimeThatIsAhead(t *testing.T) {
	r := newRig(t, strategy.Config{})
	secret, _, err := r.WriteToken(t.Context(), r.ann, strategy.WithAuthenticatedAt(r.now.Add(time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	_, session, err := r.RotateToken(t.Context(), secret.Reveal(), strategy.WithReauthentication(r.ann, r.now))
	if err != nil {
		t.Fatal(err)
	}
	if !session.AuthenticatedAt.Equal(r.now.Truncate(time.Millisecond)) {
		t.Errorf("got a session authenticated at %v, want %v", session.AuthenticatedAt, r.now)
	}
}

// A rotation in flight does not carry a session across a change.
func TestChangeDuringARotationEndsTheSession(t *testing.T) {
	for name, again := range map[string]bool{"plain": false, "with reauthentication": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, strategy.Config{})
			token, _ := r.issue(t)
			var opts []strategy.RotateOption
			if again {
				opts = append(opts, strategy.WithReauthentication(r.ann, r.now))
			}
			r.tokens.rotate = func(ctx context.Context, digest string, to strategy.Rotation) (row, error) {
				r.revoke(t)
				return r.tokens.store.Rotate(ctx, digest, to)
			}
			token = r.rotates(t, token, opts...)
			r.reads(t, "after the change", token, strategy.ErrInvalidToken)
		})
	}
}

func TestRevokeTokensEndsEverySession(t *testing.T) {
	r := newRig(t, strategy.Config{})
	m := r.manager(t)
	var tokens []string
	for range 3 {
		token, _ := r.issue(t)
		scoped, _ := r.issue(t, strategy.WithScopes("deploy:write"))
		tokens = append(tokens, token, scoped)
		r.now = r.now.Add(300 * time.Microsecond)
	}
	before := r.tokens.calls.Load()
	if err := m.RevokeTokens(t.Context(), r.ann.ID); err != nil {
		t.Fatalf("RevokeTokens: %v", err)
	}
	if got := r.tokens.calls.Load() - before; got != 0 {
		t.Errorf("RevokeTokens called the store of tokens %d times, want 0", got)
	}
	for _, token := range tokens {
		r.reads(t, "after RevokeTokens", token, strategy.ErrInvalidToken)
	}
	// A login at once afterwards stays valid.
	r.reload(t)
	token, _ := r.issue(t)
	r.reads(t, "after the next login", token, nil)
}

func TestChangeOfPasswordKeepsOnlyTheReauthenticatedSession(t *testing.T) {
	for _, c := range []struct {
		name  string
		ahead time.Duration // of the clock of the instance that changes the password
	}{{"clocks agree", 0}, {"by a clock that is ahead", time.Hour}, {"by a clock that is behind", -time.Hour}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, strategy.Config{Lifetime: 24 * time.Hour})
			m := r.withPassword(t)
			own, issued := r.issue(t)
			other, otherRow := r.issue(t)
			script, _ := r.issue(t, strategy.WithScopes("deploy:write"))

			at := r.now.Add(time.Second)
			r.now = at.Add(c.ahead)
			ann, err := m.ChangePassword(t.Context(), r.ann.ID, password, changed)
			if err != nil {
				t.Fatalf("ChangePassword: %v", err)
			}
			r.now = at
			// A plain rotation does not save a session.
			for _, token := range []string{own, other, script} {
				r.reads(t, "after the change", token, strategy.ErrInvalidToken)
				if _, _, err := r.RotateToken(t.Context(), token); !errors.Is(err, strategy.ErrInvalidToken) {
					t.Errorf("RotateToken after the change: got %v, want ErrInvalidToken", err)
				}
			}
			// Nor does a rotation with the account as it was before the change.
			if _, _, err := r.RotateToken(t.Context(), own, strategy.WithReauthentication(r.ann, at)); !errors.Is(err, strategy.ErrInvalidToken) {
				t.Errorf("RotateToken with an older authentication: got %v, want ErrInvalidToken", err)
			}

			secret, session, err := r.RotateToken(t.Context(), own, strategy.WithReauthentication(ann, at))
			if err != nil {
				t.Fatalf("RotateToken: %v", err)
			}
			if session.ID != issued.ID || !session.AuthenticatedAt.Equal(at.UTC().Truncate(ms)) || !session.ExpiresAt.Equal(issuedAt.Add(24*time.Hour)) {
				t.Errorf("got the session %+v, want %v, authenticated at the change, and with its old end", session, issued.ID)
			}
			r.reads(t, "of the reissued session", secret.Reveal(), nil)
			r.reads(t, "of its old token", own, strategy.ErrInvalidToken)
			r.reads(t, "of another session", other, strategy.ErrInvalidToken)
			if got := r.row(t, other); !reflect.DeepEqual(got, otherRow) {
				t.Errorf("the row of another session: got %+v, want %+v", got, otherRow)
			}
			// A plain rotation keeps the token version.
			r.reads(t, "after a rotation", r.rotates(t, secret.Reveal()), nil)
		})
	}
}

// A token that is expired, idle or superseded is reported as such, even if its user is gone.
func TestReasonOfAnEndedTokenWithoutItsUser(t *testing.T) {
	for _, c := range []struct {
		reason event.Reason
		cfg    strategy.Config
		later  time.Duration
	}{
		{event.ReasonExpired, strategy.Config{Lifetime: lifetime}, lifetime + ms},
		{event.ReasonIdle, strategy.Config{IdleTimeout: lifetime}, lifetime + ms},
		{event.ReasonSuperseded, strategy.Config{NotBefore: issuedAt.Add(time.Minute)}, 0},
		{event.ReasonUserGone, strategy.Config{Lifetime: lifetime}, lifetime - ms},
	} {
		for name, cache := range map[string]strategy.Cache{"without a cache": {}, "with a cache": caching} {
			t.Run(string(c.reason)+", "+name, func(t *testing.T) {
				c.cfg.Cache = cache
				r := newRig(t, c.cfg)
				t.Cleanup(r.Close)
				token, issued := r.issue(t)
				if err := r.users.Delete(t.Context(), r.ann.ID); err != nil {
					t.Fatalf("Delete: %v", err)
				}
				r.now = r.now.Add(c.later)
				r.events.take()
				r.reads(t, "", token, strategy.ErrInvalidToken)
				got := r.events.take()
				if len(got) != 1 || got[0].Reason != c.reason || got[0].SessionID != issued.ID || got[0].UserID != r.ann.ID {
					t.Errorf("events: got %+v, want one of Ann's session with the reason %s", got, c.reason)
				}
			})
		}
	}
}

func TestReactivatedAccountHasNoOldSessions(t *testing.T) {
	r := newRig(t, strategy.Config{})
	m := r.manager(t)
	token, _ := r.issue(t)
	if err := m.Deactivate(t.Context(), r.ann.ID); err != nil {
		t.Fatalf("Deactivate: %v", err)
	}
	r.reads(t, "while inactive", token, strategy.ErrInvalidToken)
	if err := m.Activate(t.Context(), r.ann.ID); err != nil {
		t.Fatalf("Activate: %v", err)
	}
	r.reads(t, "after the reactivation", token, strategy.ErrInvalidToken)
	r.reload(t)
	token, _ = r.issue(t)
	r.reads(t, "after the next login", token, nil)
}
