package strategy_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/strategy"
)

var errLost = errors.New("the answer is lost")

// losing loses the answers of the first calls of a method.
type losing struct {
	answers int  // how many answers are lost
	carried bool // whether the calls without an answer are carried out
}

func (l *losing) lost() bool {
	l.answers--
	return l.answers >= 0
}

func TestRotationWithALostAnswer(t *testing.T) {
	for _, c := range []struct {
		name string
		losing
		want error // nil, errLost or ErrInvalidToken
	}{
		{"it was carried out", losing{1, true}, nil},
		{"it was not carried out", losing{1, false}, nil},
		{"it was carried out, and the second answer is lost too", losing{2, true}, nil},
		{"neither was carried out", losing{2, false}, errLost},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, reauthenticated := range []bool{false, true} {
				r := newRig(t, strategy.Config{Lifetime: lifetime})
				token, issued := r.issue(t)
				l := c.losing
				r.tokens.rotate = func(ctx context.Context, digest string, to strategy.Rotation) (row, error) {
					if !l.lost() {
						return r.tokens.store.Rotate(ctx, digest, to)
					}
					if l.carried {
						_, _ = r.tokens.store.Rotate(ctx, digest, to)
					}
					return row{}, errLost
				}
				r.events.take()
				var opts []strategy.RotateOption
				if reauthenticated {
					opts = append(opts, strategy.WithReauthentication(r.ann, r.now.Add(time.Minute)))
				}
				secret, session, err := r.RotateToken(t.Context(), token, opts...)
				if !errors.Is(err, c.want) {
					t.Fatalf("got %v, want %v", err, c.want)
				}
				kind := event.TokenRotated
				if c.want != nil {
					kind = event.StoreFailed
					r.reads(t, "the old token", token, nil)
				} else {
					r.reads(t, "the old token", token, strategy.ErrInvalidToken)
					r.reads(t, "the new token", secret.Reveal(), nil)
					if session.ID != issued.ID {
						t.Errorf("got the session %v, want %v", session.ID, issued.ID)
					}
					if got := session.AuthenticatedAt.After(issued.CreatedAt); got != reauthenticated {
						t.Errorf("the session counts as a fresh login: %t, want %t", got, reauthenticated)
					}
				}
				if got := r.events.take(); len(got) == 0 || got[0].Kind != kind {
					t.Errorf("got the events %+v, want %s", got, kind)
				}
			}
		})
	}
}

// The session ends while the answer is lost.
func TestRotationWithALostAnswerOfARevokedToken(t *testing.T) {
	r := newRig(t, strategy.Config{Lifetime: lifetime})
	token, issued := r.issue(t)
	r.tokens.rotate = func(ctx context.Context, digest string, to strategy.Rotation) (row, error) {
		r.tokens.rotate = nil
		_, err := r.tokens.store.DeleteSession(ctx, issued.UserID, issued.ID)
		return row{}, errors.Join(errLost, err)
	}
	if _, _, err := r.RotateToken(t.Context(), token); !errors.Is(err, strategy.ErrInvalidToken) {
		t.Errorf("got %v, want ErrInvalidToken", err)
	}
	if rows := r.rows(t); len(rows) != 0 {
		t.Errorf("there are %d rows, want none", len(rows))
	}
}

// The first rotation takes effect only after the second one was asked for.
func TestRotationThatIsCarriedOutLate(t *testing.T) {
	r := newRig(t, strategy.Config{Lifetime: lifetime})
	token, _ := r.issue(t)
	calls := 0
	r.tokens.rotate = func(ctx context.Context, digest string, to strategy.Rotation) (row, error) {
		if calls++; calls == 1 {
			return row{}, errLost
		}
		_, _ = r.tokens.store.Rotate(ctx, digest, to) // the first one
		return r.tokens.store.Rotate(ctx, digest, to)
	}
	secret, _, err := r.RotateToken(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	r.reads(t, "the new token", secret.Reveal(), nil)
	if calls != 2 {
		t.Errorf("rotated %d times, want 2", calls)
	}
}

// A login that replaces or evicts a session.
func TestLoginWithALostAnswerOfADelete(t *testing.T) {
	for _, c := range []struct {
		name string
		losing
		fails bool
	}{
		{"it was carried out", losing{1, true}, false},
		{"it was not carried out", losing{1, false}, false},
		{"it was carried out, and the second answer is lost too", losing{2, true}, true},
		{"neither was carried out", losing{2, false}, true},
	} {
		for _, way := range []string{"replaced", "evicted"} {
			t.Run(way+", "+c.name, func(t *testing.T) {
				r := newRig(t, strategy.Config{Lifetime: lifetime, MaxSessions: 1})
				token, issued := r.issue(t)
				l := c.losing
				r.tokens.deleteSession = func(ctx context.Context, userID, id uuid.UUID) (row, error) {
					if !l.lost() {
						return r.tokens.store.DeleteSession(ctx, userID, id)
					}
					if l.carried {
						_, _ = r.tokens.store.DeleteSession(ctx, userID, id)
					}
					return row{}, errLost
				}
				var opts []strategy.TokenOption
				if way == "replaced" {
					opts = append(opts, strategy.WithReplaced(token))
				}
				r.events.take()
				secret, _, err := r.WriteToken(t.Context(), r.ann, opts...)
				if c.fails {
					if !errors.Is(err, errLost) {
						t.Errorf("got %v, want the failure", err)
					}
					want := 1
					if c.carried {
						want = 0
					}
					if rows := r.rows(t); len(rows) != want || want == 1 && rows[0].ID != issued.ID {
						t.Errorf("there are the rows %+v, want no new one", rows)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if kinds := r.kinds(); !slices.Equal(kinds, []event.Kind{event.TokenRevoked, event.TokenIssued}) {
					t.Errorf("got the events %v, want the revocation and the login", kinds)
				}
				r.reads(t, "the new token", secret.Reveal(), nil)
				r.reads(t, "the old token", token, strategy.ErrInvalidToken)
			})
		}
	}
}

// kinds returns the kinds of the events since the last call.
func (r *rig) kinds() (kinds []event.Kind) {
	for _, e := range r.events.take() {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

// An operation ends with its context's deadline, also if the store hangs. What has to be taken
// back is taken back behind the answer.
func TestOperationsEndAtTheDeadlineOfTheirContext(t *testing.T) {
	const bound = 3 * time.Second
	for _, c := range []struct {
		name string
		call func(ctx context.Context, r *rig, token string) error
		// hang replaces a method of the store by one that does its work and does not answer.
		hang func(r *rig, stuck func(context.Context) error)
		rows int // after the store answers again
	}{
		{"a login without an answer to the insert", func(ctx context.Context, r *rig, _ string) error {
			_, _, err := r.WriteToken(ctx, r.ann)
			return err
		}, func(r *rig, stuck func(context.Context) error) {
			r.tokens.insert = func(ctx context.Context, token row) error {
				_ = r.tokens.store.Insert(ctx, token)
				return stuck(ctx)
			}
		}, 1},
		{"a login without an answer to the delete", func(ctx context.Context, r *rig, token string) error {
			_, _, err := r.WriteToken(ctx, r.ann, strategy.WithReplaced(token))
			return err
		}, func(r *rig, stuck func(context.Context) error) {
			r.tokens.deleteSession = func(ctx context.Context, userID, id uuid.UUID) (row, error) { return row{}, stuck(ctx) }
		}, 1},
		{"a rotation", func(ctx context.Context, r *rig, token string) error {
			_, _, err := r.RotateToken(ctx, token)
			return err
		}, func(r *rig, stuck func(context.Context) error) {
			r.tokens.rotate = func(ctx context.Context, _ string, _ strategy.Rotation) (row, error) { return row{}, stuck(ctx) }
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, strategy.Config{Lifetime: lifetime})
				token, _ := r.issue(t)
				c.hang(r, func(ctx context.Context) error {
					<-ctx.Done()
					return ctx.Err()
				})
				ctx, cancel := context.WithTimeout(t.Context(), bound)
				defer cancel()
				began := time.Now()
				if err := c.call(ctx, r, token); err == nil {
					t.Error("got no error")
				}
				if took := time.Since(began); took > bound {
					t.Errorf("took %v, want at most %v", took, bound)
				}
				r.Close() // waits
				if rows := r.rows(t); len(rows) != c.rows {
					t.Errorf("there are %d rows, want %d", len(rows), c.rows)
				}
			})
		})
	}
}

// The other processes learn of a revocation even if the operation's time was over first.
func TestRevocationIsPublishedBehindTheAnswer(t *testing.T) {
	hashed()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		here := c.instance(t)
		there := c.open(t, c.users, strategy.Config{PublishRevocations: true})
		follow()
		token, _ := c.cached(t, here)
		var once sync.Once
		hangOnce := func(ctx context.Context) (err error) {
			once.Do(func() {
				<-ctx.Done()
				err = ctx.Err()
			})
			if err == nil {
				there.log.publish.Store(nil)
				err = there.log.PublishRevocation(ctx, revocation{Digest: sha256Of(token)})
			}
			return err
		}
		there.log.publish.Store(&hangOnce)
		ctx, cancel := context.WithTimeout(t.Context(), 1)
		defer cancel()
		if err := there.DestroyToken(ctx, token); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want DeadlineExceeded", err)
		}
		there.Close() // waits
		follow()
		here.reads(t, "after it was published", token, strategy.ErrInvalidToken, 1)
	})
}

// A client that goes away is no failure of the store. A deadline that passes is one.
func TestClientThatGoesAwayIsNoFailure(t *testing.T) {
	for _, c := range []struct {
		name string
		call func(ctx context.Context, r *rig, token string, issued row) error
	}{
		{"WriteToken", func(ctx context.Context, r *rig, _ string, _ row) error {
			_, _, err := r.WriteToken(ctx, r.ann)
			return err
		}},
		{"WriteToken with WithReplaced", func(ctx context.Context, r *rig, token string, _ row) error {
			_, _, err := r.WriteToken(ctx, r.ann, strategy.WithReplaced(token))
			return err
		}},
		{"ReadToken", func(ctx context.Context, r *rig, token string, _ row) error {
			_, err := r.ReadToken(ctx, token)
			return err
		}},
		{"RotateToken", func(ctx context.Context, r *rig, token string, _ row) error {
			_, _, err := r.RotateToken(ctx, token)
			return err
		}},
		{"DestroyToken", func(ctx context.Context, r *rig, token string, _ row) error { return r.DestroyToken(ctx, token) }},
		{"DestroySession", func(ctx context.Context, r *rig, _ string, issued row) error {
			return r.DestroySession(ctx, issued.UserID, issued.ID)
		}},
		{"DestroyAll", func(ctx context.Context, r *rig, _ string, _ row) error { return r.DestroyAll(ctx, r.ann.ID) }},
		{"Sessions", func(ctx context.Context, r *rig, _ string, _ row) error {
			_, err := r.Sessions(ctx, r.ann.ID, strategy.Page{})
			return err
		}},
	} {
		for _, cause := range []error{context.Canceled, context.DeadlineExceeded} {
			for _, cached := range []bool{false, true} {
				cfg := strategy.Config{Lifetime: lifetime, MaxSessions: 3}
				if cached {
					cfg.Cache = strategy.Cache{MaxStaleness: time.Minute}
				}
				r := newRig(t, cfg)
				token, issued := r.issue(t)
				ctx, cancel := context.WithCancel(t.Context())
				if cause == context.DeadlineExceeded {
					ctx, cancel = context.WithDeadline(t.Context(), time.Now().Add(-time.Hour))
				}
				cancel()
				r.events.take()
				if err := c.call(ctx, r, token, issued); !errors.Is(err, cause) {
					t.Errorf("%s: got %v, want %v", c.name, err, cause)
				}
				r.Close()
				events := r.events.take()
				if failed := len(events) > 0; failed != (cause == context.DeadlineExceeded) {
					t.Errorf("%s, %v: got the events %+v", c.name, cause, events)
				}
				r.reads(t, c.name+" of a client that has gone", token, nil)
			}
		}
	}
}

func TestClientThatGoesAwayIsNoFailedTouch(t *testing.T) {
	r := newRig(t, strategy.Config{Lifetime: lifetime, IdleTimeout: time.Hour, TouchInterval: time.Minute})
	token, _ := r.issue(t)
	for _, cause := range []error{context.Canceled, errLost} {
		r.now = r.now.Add(time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		r.tokens.touch = func(ctx context.Context, _ string, _ time.Time) error {
			if cause == errLost {
				return errLost
			}
			cancel()
			return ctx.Err()
		}
		r.events.take()
		if _, err := r.ReadToken(ctx, token); err != nil {
			t.Errorf("%v: got %v, want nil", cause, err)
		}
		cancel()
		if kinds := r.kinds(); slices.Contains(kinds, event.TouchFailed) != (cause == errLost) {
			t.Errorf("%v: got the events %v", cause, kinds)
		}
	}
}
