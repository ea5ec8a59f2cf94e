package storetest_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/strategy"
	"github.com/latchkey-go/latchkey/strategy/memstore"
	"github.com/latchkey-go/latchkey/strategy/storetest"
)

type token = strategy.AccessToken[uuid.UUID]

// tokens is a good store, but for the methods that a test replaces.
type tokens struct {
	*memstore.Tokens[uuid.UUID]
	insert  func(context.Context, token) error
	byToken func(context.Context, string, time.Time) (token, error)
	delete  func(context.Context, string) (token, error)
}

func newTokens() *tokens {
	good := memstore.NewTokens[uuid.UUID]()
	return &tokens{good, good.Insert, good.ByToken, good.Delete}
}

func (s *tokens) Insert(ctx context.Context, t token) error { return s.insert(ctx, t) }
func (s *tokens) ByToken(ctx context.Context, digest string, createdAfter time.Time) (token, error) {
	return s.byToken(ctx, digest, createdAfter)
}
func (s *tokens) Delete(ctx context.Context, digest string) (token, error) {
	return s.delete(ctx, digest)
}

// all is no age limit.
var all time.Time

// forgetting makes a store return its tokens changed.
func forgetting(change func(*token)) func(*tokens) {
	return func(s *tokens) {
		s.byToken = func(ctx context.Context, digest string, after time.Time) (token, error) {
			t, err := s.Tokens.ByToken(ctx, digest, after)
			if err == nil {
				change(&t)
			}
			return t, err
		}
	}
}

// limiting makes a store look with another age limit than it was told.
func limiting(change func(time.Time) time.Time) func(*tokens) {
	return func(s *tokens) {
		s.byToken = func(ctx context.Context, digest string, after time.Time) (token, error) {
			return s.Tokens.ByToken(ctx, digest, change(after))
		}
	}
}

// overwriting makes a store insert a token after it has deleted what is in the
// way.
func overwriting(same func(a, b token) bool) func(*tokens) {
	return func(s *tokens) {
		var mu sync.Mutex
		var seen []token
		s.insert = func(ctx context.Context, t token) error {
			mu.Lock()
			defer mu.Unlock()
			for _, old := range seen {
				if same(old, t) {
					_, _ = s.Tokens.Delete(ctx, old.Digest)
				}
			}
			seen = append(seen, t)
			return s.Tokens.Insert(ctx, t)
		}
	}
}

func TestRunCatchesBrokenStores(t *testing.T) {
	const (
		roundTrip   = "every field comes back as it was stored"
		ageLimit    = "the age limit is exact to the millisecond"
		deleteTwice = "delete returns the token once and is idempotent"
		notFound    = "a missing token is ErrTokenNotFound"
		cancelled   = "a cancelled context stops every method"
	)
	mustCatch(t, func(t *testing.T, breakIt func(*tokens)) map[string]error {
		return storetest.TokenResults(t.Context(), t, uuid.New, func(testing.TB) strategy.Store[uuid.UUID] {
			s := newTokens()
			breakIt(s)
			return s
		})
	}, []broken[*tokens]{
		{"forgets the session ID", roundTrip, forgetting(func(t *token) { t.ID = uuid.Nil })},
		{"forgets the digest", roundTrip, forgetting(func(t *token) { t.Digest = "" })},
		{"forgets the user", roundTrip, forgetting(func(t *token) { t.UserID = uuid.Nil })},
		{"forgets the milliseconds", roundTrip, forgetting(func(t *token) { t.CreatedAt = t.CreatedAt.Truncate(time.Second) })},
		{"returns local time", roundTrip, forgetting(func(t *token) { t.CreatedAt = t.CreatedAt.In(time.FixedZone("here", 7200)) })},
		{"deletes all tokens of the user", "tokens do not mix", func(s *tokens) {
			var mu sync.Mutex
			var inserted []token
			s.insert = func(ctx context.Context, t token) error {
				mu.Lock()
				defer mu.Unlock()
				inserted = append(inserted, t)
				return s.Tokens.Insert(ctx, t)
			}
			s.delete = func(ctx context.Context, digest string) (token, error) {
				mu.Lock()
				defer mu.Unlock()
				gone, err := s.Tokens.Delete(ctx, digest)
				for _, t := range inserted {
					if t.UserID == gone.UserID {
						_, _ = s.Tokens.Delete(ctx, t.Digest)
					}
				}
				return gone, err
			}
		}},
		{"holds one token of a user", "tokens do not mix", overwriting(func(a, b token) bool { return a.UserID == b.UserID })},
		{"returns an error of its own for a missing token", notFound, func(s *tokens) {
			s.byToken = func(ctx context.Context, digest string, after time.Time) (token, error) {
				t, err := s.Tokens.ByToken(ctx, digest, after)
				if errors.Is(err, strategy.ErrTokenNotFound) {
					err = errors.New("no documents in result")
				}
				return t, err
			}
		}},
		{"returns no error for a missing token", notFound, func(s *tokens) {
			s.byToken = func(ctx context.Context, digest string, after time.Time) (token, error) {
				t, err := s.Tokens.ByToken(ctx, digest, after)
				return t, unless(err, strategy.ErrTokenNotFound)
			}
		}},
		{
			"overwrites a taken digest", "a taken digest is ErrDuplicateToken and changes nothing",
			overwriting(func(a, b token) bool { return a.Digest == b.Digest }),
		},
		{"ignores a taken digest", "a taken digest is ErrDuplicateToken and changes nothing", func(s *tokens) {
			s.insert = func(ctx context.Context, t token) error {
				if _, err := s.Tokens.ByToken(ctx, t.Digest, all); err == nil {
					return nil
				}
				return s.Tokens.Insert(ctx, t)
			}
		}},
		{
			"overwrites a taken session ID", "a taken session ID is ErrDuplicateToken and changes nothing",
			overwriting(func(a, b token) bool { return a.ID == b.ID }),
		},
		{"looks whether a digest is taken, then inserts", "one of many that insert the same digest at once succeeds", func(s *tokens) {
			var mu sync.Mutex
			s.insert = func(ctx context.Context, t token) error {
				if _, err := s.Tokens.ByToken(ctx, t.Digest, all); err == nil {
					return strategy.ErrDuplicateToken
				}
				pause()
				mu.Lock()
				defer mu.Unlock()
				_, _ = s.Tokens.Delete(ctx, t.Digest)
				return s.Tokens.Insert(ctx, t)
			}
		}},
		{"ignores the age limit", ageLimit, limiting(func(time.Time) time.Time { return all })},
		{"rounds the age limit down to seconds", ageLimit, limiting(func(at time.Time) time.Time { return at.Truncate(time.Second) })},
		{"rounds the age limit up to seconds", ageLimit, limiting(func(at time.Time) time.Time { return at.Add(time.Second - 1).Truncate(time.Second) })},
		{"takes the age limit for exclusive", ageLimit, limiting(func(at time.Time) time.Time { return at.Add(time.Millisecond) })},
		{"is a millisecond generous", ageLimit, limiting(func(at time.Time) time.Time { return at.Add(-time.Millisecond) })},
		{"drops the age limit's zone", ageLimit, limiting(func(at time.Time) time.Time {
			return time.Date(at.Year(), at.Month(), at.Day(), at.Hour(), at.Minute(), at.Second(), at.Nanosecond(), time.UTC)
		})},
		{"takes the zero time for yesterday", "the zero time is no age limit", limiting(func(at time.Time) time.Time {
			if at.IsZero() {
				return time.Now().AddDate(0, 0, -1)
			}
			return at
		})},
		{"deletes a missing token successfully", deleteTwice, func(s *tokens) {
			s.delete = func(ctx context.Context, digest string) (token, error) {
				t, err := s.Tokens.Delete(ctx, digest)
				return t, unless(err, strategy.ErrTokenNotFound)
			}
		}},
		{"does not return what it deletes", deleteTwice, func(s *tokens) {
			s.delete = func(ctx context.Context, digest string) (token, error) {
				_, err := s.Tokens.Delete(ctx, digest)
				return token{}, err
			}
		}},
		{"says that it deletes, and does not", deleteTwice, func(s *tokens) {
			s.delete = func(ctx context.Context, digest string) (token, error) { return s.Tokens.ByToken(ctx, digest, all) }
		}},
		{"looks for a token, then deletes it", "one of many that delete a token at once gets it", func(s *tokens) {
			s.delete = func(ctx context.Context, digest string) (token, error) {
				t, err := s.Tokens.ByToken(ctx, digest, all)
				if err == nil {
					pause()
					_, _ = s.Tokens.Delete(ctx, digest)
				}
				return t, err
			}
		}},
		// Like a session store that saves what a request has loaded when it ends.
		{"writes back with later calls what it has read", "a deleted token stays away while its neighbours are used", func(s *tokens) {
			var mu sync.Mutex
			var loaded []token
			save := func(ctx context.Context) {
				for _, t := range loaded {
					_ = s.Tokens.Insert(ctx, t)
				}
			}
			s.byToken = func(ctx context.Context, digest string, after time.Time) (token, error) {
				mu.Lock()
				defer mu.Unlock()
				save(ctx)
				t, err := s.Tokens.ByToken(ctx, digest, after)
				if err == nil && !slices.Contains(loaded, t) {
					loaded = append(loaded, t)
				}
				return t, err
			}
			s.insert = func(ctx context.Context, t token) error {
				mu.Lock()
				defer mu.Unlock()
				save(ctx)
				return s.Tokens.Insert(ctx, t)
			}
		}},
		// Like one that touches a "last used" time with an upsert.
		{"writes back at once what it has read", "a deleted token stays away under concurrent reads", func(s *tokens) {
			s.byToken = func(ctx context.Context, digest string, after time.Time) (token, error) {
				t, err := s.Tokens.ByToken(ctx, digest, after)
				if err == nil {
					pause()
					_ = s.Tokens.Insert(ctx, t)
				}
				return t, err
			}
			// The delete arrives while the reads are under way.
			s.delete = func(ctx context.Context, digest string) (token, error) {
				time.Sleep(time.Millisecond / 2)
				return s.Tokens.Delete(ctx, digest)
			}
		}},
		{"has one buffer for all its callers", "many goroutines at once", func(s *tokens) {
			var mu sync.Mutex
			var buffer token
			s.byToken = func(ctx context.Context, digest string, after time.Time) (token, error) {
				t, err := s.Tokens.ByToken(ctx, digest, after)
				if err != nil {
					return t, err
				}
				mu.Lock()
				buffer = t
				mu.Unlock()
				pause()
				mu.Lock()
				defer mu.Unlock()
				return buffer, nil
			}
		}},
		{"inserts in spite of the context", cancelled, func(s *tokens) {
			s.insert = func(ctx context.Context, t token) error { return s.Tokens.Insert(context.WithoutCancel(ctx), t) }
		}},
		{"reads in spite of the context", cancelled, func(s *tokens) {
			s.byToken = func(ctx context.Context, digest string, after time.Time) (token, error) {
				return s.Tokens.ByToken(context.WithoutCancel(ctx), digest, after)
			}
		}},
		{"deletes in spite of the context", cancelled, func(s *tokens) {
			s.delete = func(ctx context.Context, digest string) (token, error) {
				return s.Tokens.Delete(context.WithoutCancel(ctx), digest)
			}
		}},
		{"hides the context's error", cancelled, func(s *tokens) {
			s.insert = func(ctx context.Context, t token) error {
				if ctx.Err() != nil {
					return errors.New("connection pool was cleared")
				}
				return s.Tokens.Insert(ctx, t)
			}
		}},
	})
}
