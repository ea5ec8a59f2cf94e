package storetest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
	"github.com/latchkey-go/latchkey/strategy/memstore"
	"github.com/latchkey-go/latchkey/strategy/storetest"
)

// byToken is a JoinedSource's ByToken.
type byToken func(ctx context.Context, digest string, createdAfter time.Time) (token, member, error)

// joined is a good source, but for the methods that a test replaces.
type joined struct {
	tokens  *memstore.Tokens[uuid.UUID]
	users   *memstore.Users[member, uuid.UUID]
	byToken byToken
	byID    func(context.Context, uuid.UUID) (member, error)
}

func newJoined() *joined {
	s := &joined{tokens: memstore.NewTokens[uuid.UUID](), users: memstore.NewUsers[member]()}
	s.byID = s.users.ByID
	s.byToken = func(ctx context.Context, digest string, createdAfter time.Time) (t token, m member, err error) {
		if t, err = s.tokens.ByToken(ctx, digest, createdAfter); err == nil {
			m, err = s.users.ByID(ctx, t.UserID)
		}
		return t, m, err
	}
	return s
}

func (s *joined) ByID(ctx context.Context, id uuid.UUID) (member, error) { return s.byID(ctx, id) }
func (s *joined) ByToken(ctx context.Context, digest string, createdAfter time.Time) (token, member, error) {
	return s.byToken(ctx, digest, createdAfter)
}

// joining makes a source do something else than a good one.
func joining(f func(s *joined, good byToken) byToken) func(*joined) {
	return func(s *joined) { s.byToken = f(s, s.byToken) }
}

// answering makes a source change what it answers.
func answering(f func(t *token, m *member, err *error)) func(*joined) {
	return joining(func(_ *joined, good byToken) byToken {
		return func(ctx context.Context, digest string, createdAfter time.Time) (token, member, error) {
			t, m, err := good(ctx, digest, createdAfter)
			f(&t, &m, &err)
			return t, m, err
		}
	})
}

// found makes a source change what it finds.
func found(f func(t *token, m *member)) func(*joined) {
	return answering(func(t *token, m *member, err *error) {
		if *err == nil {
			f(t, m)
		}
	})
}

// mistaking makes a source answer another error in the place of one.
func mistaking(one, another error) func(*joined) {
	return answering(func(_ *token, _ *member, err *error) {
		if errors.Is(*err, one) {
			*err = another
		}
	})
}

// keeping makes a source keep what it has answered, of what is worth it, by digests.
func keeping(worth func(err error) bool) func(*joined) {
	type answer struct {
		token  token
		member member
		err    error
	}
	return joining(func(_ *joined, good byToken) byToken {
		var mu sync.Mutex
		kept := make(map[string]answer)
		return func(ctx context.Context, digest string, createdAfter time.Time) (token, member, error) {
			if !createdAfter.IsZero() || ctx.Err() != nil { // what is kept is not to blame for that
				return good(ctx, digest, createdAfter)
			}
			mu.Lock()
			defer mu.Unlock()
			a, ok := kept[digest]
			if !ok {
				if a.token, a.member, a.err = good(ctx, digest, createdAfter); worth(a.err) {
					kept[digest] = a
				}
			}
			return a.token, a.member, a.err
		}
	})
}

func TestRunJoinedCatchesBrokenSources(t *testing.T) {
	const (
		sameToken = "the token is as the store returns it, in every field"
		sameUser  = "the user is as ByID returns them, in every field"
		many      = "of many tokens and users each comes with its own"
		missing   = "a missing token is ErrTokenNotFound"
		ageLimit  = "the age limit is exact to the millisecond"
		noUser    = "a token without its user is beside ErrUserNotFound"
		tokensNow = "every insert, touch, rotation and delete is seen"
		usersNow  = "every change of the user is seen"
		cancelled = "a cancelled context stops it and is no answer"
	)
	local := time.FixedZone("here", 7200)
	// limiting makes a source look at the age of tokens in another way.
	limiting := func(f func(time.Time) time.Time) func(*joined) {
		return joining(func(_ *joined, good byToken) byToken {
			return func(ctx context.Context, digest string, createdAfter time.Time) (token, member, error) {
				if !createdAfter.IsZero() {
					createdAfter = f(createdAfter)
				}
				return good(ctx, digest, createdAfter)
			}
		})
	}
	mustCatch(t, func(t *testing.T, breakIt func(*joined)) map[string]error {
		return storetest.JoinedResults(t.Context(), t, newMember, func(testing.TB) (strategy.Store[uuid.UUID], account.Store[member, uuid.UUID], strategy.JoinedSource[member, uuid.UUID]) {
			s := newJoined()
			breakIt(s)
			return s.tokens, s.users, s
		})
	}, []broken[*joined]{
		{"forgets the session's ID", sameToken, found(func(t *token, _ *member) { t.ID = uuid.Nil })},
		{"forgets the last use", sameToken, found(func(t *token, _ *member) { t.LastUsedAt = time.Time{} })},
		{"forgets what the login saw", sameToken, found(func(t *token, _ *member) { t.SeenNotBefore = time.Time{} })},
		{"forgets a token's own end", sameToken, found(func(t *token, _ *member) { t.ExpiresAt = time.Time{} })},
		{"takes no scopes for an empty list", sameToken, found(func(t *token, _ *member) {
			if t.Scopes == nil {
				t.Scopes = []string{}
			}
		})},
		{"takes the epoch for no time", sameToken, found(func(t *token, _ *member) {
			if t.SeenNotBefore.UnixMilli() == 0 {
				t.SeenNotBefore = time.Time{}
			}
		})},
		{"returns tokens in local time", sameToken, found(func(t *token, _ *member) { t.CreatedAt = t.CreatedAt.In(local) })},
		{"takes the user's name for the token's", sameToken, found(func(t *token, m *member) { t.Name = m.Name })},

		{"forgets the application's fields", sameUser, found(func(_ *token, m *member) { m.Roles = nil })},
		{"forgets the password", sameUser, found(func(_ *token, m *member) { m.HashedPassword = "" })},
		{"forgets the user's limit", sameUser, found(func(_ *token, m *member) { m.NotBefore = time.Time{} })},
		{"takes everybody for active", sameUser, found(func(_ *token, m *member) { m.Active = true })},
		{"returns users in local time", sameUser, found(func(_ *token, m *member) { m.CreatedAt = m.CreatedAt.In(local) })},
		{"finds less by ID", sameUser, func(s *joined) {
			s.byID = func(ctx context.Context, id uuid.UUID) (member, error) {
				m, err := s.users.ByID(ctx, id)
				m.Name = ""
				return m, err
			}
		}},

		{"joins the first user to all", many, joining(func(_ *joined, good byToken) byToken {
			var once sync.Once
			var first member
			return func(ctx context.Context, digest string, createdAfter time.Time) (token, member, error) {
				t, m, err := good(ctx, digest, createdAfter)
				if err == nil {
					once.Do(func() { first = m })
					m = first
				}
				return t, m, err
			}
		})},
		{"mixes answers that are under way", many, joining(func(_ *joined, good byToken) byToken {
			var mu sync.Mutex
			var last member
			return func(ctx context.Context, digest string, createdAfter time.Time) (token, member, error) {
				t, m, err := good(ctx, digest, createdAfter)
				if err != nil {
					return t, m, err
				}
				mu.Lock()
				last = m
				mu.Unlock()
				pause()
				mu.Lock()
				defer mu.Unlock()
				return t, last, nil
			}
		})},

		{"finds a zero token where there is none", missing, mistaking(strategy.ErrTokenNotFound, nil)},
		{"takes a missing token for one without its user", missing, mistaking(strategy.ErrTokenNotFound, strategy.ErrUserNotFound)},
		{"takes a missing token for a failure", missing, mistaking(strategy.ErrTokenNotFound, errors.New("no documents"))},
		{"says of a missing token that its user is missing too", missing,
			mistaking(strategy.ErrTokenNotFound, fmt.Errorf("%w, %w", strategy.ErrTokenNotFound, strategy.ErrUserNotFound))},

		{"does not look at the age", ageLimit, limiting(func(time.Time) time.Time { return time.Time{} })},
		{"refuses what is as old as the limit", ageLimit, limiting(func(at time.Time) time.Time { return at.Add(time.Millisecond) })},
		{"lets a millisecond more live", ageLimit, limiting(func(at time.Time) time.Time { return at.Add(-time.Millisecond) })},
		{"takes the limit in seconds", ageLimit, limiting(func(at time.Time) time.Time { return at.Truncate(time.Second) })},
		{"misses the user before it looks at the age", ageLimit, joining(func(s *joined, good byToken) byToken {
			return func(ctx context.Context, digest string, createdAfter time.Time) (token, member, error) {
				if t, m, err := good(ctx, digest, time.Time{}); errors.Is(err, strategy.ErrUserNotFound) {
					return t, m, err
				}
				return good(ctx, digest, createdAfter)
			}
		})},

		{"finds a zero user where there is none", noUser, mistaking(strategy.ErrUserNotFound, nil)},
		{"finds no token without its user", noUser, mistaking(strategy.ErrUserNotFound, strategy.ErrTokenNotFound)},
		{"says that the token is missing too", noUser,
			mistaking(strategy.ErrUserNotFound, fmt.Errorf("%w, %w", strategy.ErrTokenNotFound, strategy.ErrUserNotFound))},
		{"takes a missing user for a failure", noUser, mistaking(strategy.ErrUserNotFound, errors.New("no documents"))},
		{"returns no token beside a missing user", noUser, answering(func(t *token, _ *member, err *error) {
			if *err != nil {
				*t = token{}
			}
		})},
		{"joins anybody to a token without its user", noUser, joining(func(s *joined, good byToken) byToken {
			return func(ctx context.Context, digest string, createdAfter time.Time) (token, member, error) {
				t, m, err := good(ctx, digest, createdAfter)
				if errors.Is(err, strategy.ErrUserNotFound) {
					m, err = s.users.ByEmail(ctx, "somebody@example.com")
				}
				return t, m, err
			}
		})},

		{"keeps what it has found", tokensNow, keeping(func(err error) bool { return err == nil })},
		{"keeps what it has not found", tokensNow, keeping(func(err error) bool { return errors.Is(err, strategy.ErrTokenNotFound) })},

		{"keeps users that it has found", usersNow, joining(func(s *joined, good byToken) byToken {
			var kept sync.Map
			return func(ctx context.Context, digest string, createdAfter time.Time) (token, member, error) {
				t, m, err := good(ctx, digest, createdAfter)
				if err == nil {
					of, _ := kept.LoadOrStore(t.UserID, m)
					m = of.(member)
				}
				return t, m, err
			}
		})},
		{"keeps that there is no user", usersNow, keeping(func(err error) bool { return errors.Is(err, strategy.ErrUserNotFound) })},

		{"reads in spite of the context", cancelled, joining(func(_ *joined, good byToken) byToken {
			return func(ctx context.Context, digest string, createdAfter time.Time) (token, member, error) {
				return good(context.WithoutCancel(ctx), digest, createdAfter)
			}
		})},
		{"hides the context's error", cancelled, mistaking(context.Canceled, errors.New("connection pool was cleared"))},
		{"takes a cancelled context for a missing token", cancelled,
			mistaking(context.Canceled, fmt.Errorf("%w: %w", strategy.ErrTokenNotFound, context.Canceled))},
		{"takes a cancelled context for a missing user", cancelled,
			mistaking(context.Canceled, fmt.Errorf("%w: %w", strategy.ErrUserNotFound, context.Canceled))},
	})
}
