package storetest_test

import (
	"bytes"
	"cmp"
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
	touch   func(context.Context, string, time.Time) error
	rotate  func(context.Context, string, strategy.Rotation) (token, error)
	byUser  func(context.Context, uuid.UUID, strategy.Position, int) ([]token, error)

	deleteSession func(context.Context, uuid.UUID, uuid.UUID) (token, error)
	deleteByUser  func(context.Context, uuid.UUID, ...uuid.UUID) (int64, error)
}

func newTokens() *tokens {
	good := memstore.NewTokens[uuid.UUID]()
	return &tokens{
		good, good.Insert, good.ByToken, good.Delete, good.Touch, good.Rotate, good.ByUser, good.DeleteSession, good.DeleteByUser,
	}
}

func (s *tokens) Insert(ctx context.Context, t token) error { return s.insert(ctx, t) }
func (s *tokens) ByToken(ctx context.Context, digest string, createdAfter time.Time) (token, error) {
	return s.byToken(ctx, digest, createdAfter)
}
func (s *tokens) Delete(ctx context.Context, digest string) (token, error) {
	return s.delete(ctx, digest)
}

func (s *tokens) Touch(ctx context.Context, digest string, at time.Time) error {
	return s.touch(ctx, digest, at)
}
func (s *tokens) Rotate(ctx context.Context, digest string, to strategy.Rotation) (token, error) {
	return s.rotate(ctx, digest, to)
}
func (s *tokens) ByUser(ctx context.Context, userID uuid.UUID, after strategy.Position, limit int) ([]token, error) {
	return s.byUser(ctx, userID, after, limit)
}
func (s *tokens) DeleteSession(ctx context.Context, userID, id uuid.UUID) (token, error) {
	return s.deleteSession(ctx, userID, id)
}
func (s *tokens) DeleteByUser(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) (int64, error) {
	return s.deleteByUser(ctx, userID, except...)
}

// change changes a token that is there, in two steps.
func (s *tokens) change(ctx context.Context, digest string, f func(*token)) error {
	t, err := s.Tokens.Delete(ctx, digest)
	if err != nil {
		return err
	}
	f(&t)
	return s.Tokens.Insert(ctx, t)
}

// touching makes a store do something else to a token that it touches.
func touching(f func(t *token, at time.Time)) func(*tokens) {
	return func(s *tokens) {
		var mu sync.Mutex
		s.touch = func(ctx context.Context, digest string, at time.Time) error {
			mu.Lock()
			defer mu.Unlock()
			err := s.change(ctx, digest, func(t *token) { f(t, at) })
			return unless(err, strategy.ErrTokenNotFound)
		}
	}
}

// rotating makes a store make another rotation than it was given.
func rotating(f func(*strategy.Rotation)) func(*tokens) {
	return func(s *tokens) {
		s.rotate = func(ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			f(&to)
			return s.Tokens.Rotate(ctx, digest, to)
		}
	}
}

// losing makes a store lose something in a rotation.
func losing(f func(*token)) func(*tokens) {
	return func(s *tokens) {
		var mu sync.Mutex
		s.rotate = func(ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			mu.Lock()
			defer mu.Unlock()
			t, err := s.Tokens.Rotate(ctx, digest, to)
			if err == nil {
				err = s.change(ctx, to.Digest, f)
				f(&t)
			}
			return t, unless(err, strategy.ErrTokenNotFound)
		}
	}
}

// listing makes a store change the list of all tokens of a user before it takes
// a page of it.
func listing(f func(all []token, after strategy.Position, limit int) []token) func(*tokens) {
	return func(s *tokens) {
		s.byUser = func(ctx context.Context, userID uuid.UUID, after strategy.Position, limit int) ([]token, error) {
			list, err := s.Tokens.ByUser(ctx, userID, strategy.Position{}, 1000)
			return f(list, after, limit), err
		}
	}
}

// rotatingTo makes a store rotate in another way.
func rotatingTo(f func(s *tokens, ctx context.Context, digest string, to strategy.Rotation) (token, error)) func(*tokens) {
	return func(s *tokens) {
		s.rotate = func(ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			return f(s, ctx, digest, to)
		}
	}
}

// upsertingRotation makes a store read a token and write it under another
// digest, whatever has become of it meanwhile.
func upsertingRotation(s *tokens) {
	var mu sync.Mutex
	rotated := make(map[string]bool)
	s.rotate = func(ctx context.Context, digest string, to strategy.Rotation) (token, error) {
		t, err := s.Tokens.ByToken(ctx, digest, all)
		if err != nil {
			return t, err
		}
		pause()
		mu.Lock()
		defer mu.Unlock()
		if rotated[digest] {
			return token{}, strategy.ErrTokenNotFound
		}
		rotated[digest] = true
		got, err := s.Tokens.Rotate(ctx, digest, to)
		if errors.Is(err, strategy.ErrTokenNotFound) {
			t.Digest = to.Digest
			return t, s.Tokens.Insert(ctx, t)
		}
		return got, err
	}
	s.later(time.Millisecond / 2)
}

// later makes deletes arrive while other calls are under way.
func (s *tokens) later(d time.Duration) {
	s.delete = func(ctx context.Context, digest string) (token, error) {
		time.Sleep(d)
		return s.Tokens.Delete(ctx, digest)
	}
	s.deleteSession = func(ctx context.Context, userID, id uuid.UUID) (token, error) {
		time.Sleep(d)
		return s.Tokens.DeleteSession(ctx, userID, id)
	}
	s.deleteByUser = func(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) (int64, error) {
		time.Sleep(d)
		return s.Tokens.DeleteByUser(ctx, userID, except...)
	}
}

// slowToRotate makes rotations happen while deletes are under way.
func (s *tokens) slowToRotate() {
	s.rotate = func(ctx context.Context, digest string, to strategy.Rotation) (token, error) {
		time.Sleep(time.Millisecond / 2)
		return s.Tokens.Rotate(ctx, digest, to)
	}
}

// find returns a user's session.
func (s *tokens) find(ctx context.Context, userID, id uuid.UUID) (token, error) {
	list, err := s.Tokens.ByUser(ctx, userID, strategy.Position{}, 1000)
	for _, t := range list {
		if t.ID == id {
			return t, err
		}
	}
	return token{}, cmp.Or(err, strategy.ErrTokenNotFound)
}

func newestFirst(a, b strategy.Position) int {
	return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), bytes.Compare(b.ID[:], a.ID[:]))
}

// page is the right page of a list that is in some order.
func page(list []token, compare func(a, b strategy.Position) int, after strategy.Position, limit int) []token {
	slices.SortFunc(list, func(a, b token) int { return compare(place(a), place(b)) })
	if after != (strategy.Position{}) {
		list = slices.DeleteFunc(list, func(t token) bool { return compare(place(t), after) <= 0 })
	}
	return list[:min(limit, len(list))]
}

func place(t token) strategy.Position { return strategy.Position{CreatedAt: t.CreatedAt, ID: t.ID} }

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

		shared        = "what a caller does to a token changes nothing"
		touch         = "a touch sets the last use and nothing else"
		touchForwards = "a touch never goes backwards"
		touchMissing  = "a touch of a missing token is no error and makes none"
		touchRace     = "a deleted token stays away under concurrent touches"
		rotate        = "a rotation changes the digest and nothing else"
		rotateTimes   = "a rotation sets the times that it is given, never backwards"
		rotateMissing = "a rotation of a missing token is ErrTokenNotFound and makes none"
		rotateOnce    = "one of many that rotate a token at once succeeds"
		rotateDelete  = "a deleted token stays away under concurrent rotations"
		rotateEnd     = "a deleted session stays away under concurrent rotations"
		list          = "a user's tokens are listed newest first, and no others"
		pages         = "the pages of a list have no gap and no repeat"
		session       = "a session is deleted by its ID, whatever its digest"
		another       = "another user's session is ErrTokenNotFound and stays"
		sessionOnce   = "one of many that delete a session at once gets it"
		byUser        = "all sessions of a user are deleted but the exceptions"
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
				if err == nil && !slices.ContainsFunc(loaded, func(l token) bool { return l.ID == t.ID }) {
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
		{"forgets the last use", roundTrip, forgetting(func(t *token) { t.LastUsedAt = time.Time{} })},
		{"forgets the time of authentication", roundTrip, forgetting(func(t *token) { t.AuthenticatedAt = time.Time{} })},
		{"forgets what the login saw", roundTrip, forgetting(func(t *token) { t.SeenNotBefore = time.Time{} })},
		{"takes the epoch for nothing seen", roundTrip, forgetting(func(t *token) {
			if t.SeenNotBefore.Equal(time.UnixMilli(0)) {
				t.SeenNotBefore = time.Time{}
			}
		})},
		{"takes nothing seen for the epoch", roundTrip, forgetting(func(t *token) {
			if t.SeenNotBefore.IsZero() {
				t.SeenNotBefore = time.UnixMilli(0).UTC()
			}
		})},
		{"forgets the end", roundTrip, forgetting(func(t *token) { t.ExpiresAt = time.Time{} })},
		{"forgets the scopes", roundTrip, forgetting(func(t *token) { t.Scopes = nil })},
		{"sorts the scopes", roundTrip, forgetting(func(t *token) { slices.Sort(t.Scopes) })},
		{"makes a login a token without scopes", roundTrip, forgetting(func(t *token) {
			if t.Scopes == nil {
				t.Scopes = []string{}
			}
		})},
		{"forgets the name", roundTrip, forgetting(func(t *token) { t.Name = "" })},
		{"forgets the user agent", roundTrip, forgetting(func(t *token) { t.UserAgent = "" })},
		{"forgets the client's address", roundTrip, forgetting(func(t *token) { t.ClientAddr = "" })},
		{"cuts the milliseconds off the end", roundTrip, forgetting(func(t *token) { t.ExpiresAt = t.ExpiresAt.Truncate(time.Second) })},
		{"returns the last use in local time", roundTrip, forgetting(func(t *token) { t.LastUsedAt = t.LastUsedAt.In(time.FixedZone("here", 7200)) })},
		{"takes no last use for the epoch", roundTrip, forgetting(func(t *token) {
			if t.LastUsedAt.IsZero() {
				t.LastUsedAt = time.UnixMilli(0).UTC()
			}
		})},
		{"takes no end for the epoch", roundTrip, forgetting(func(t *token) {
			if t.ExpiresAt.IsZero() {
				t.ExpiresAt = time.UnixMilli(0).UTC()
			}
		})},
		{"fills in the time of authentication", roundTrip, forgetting(func(t *token) {
			if t.AuthenticatedAt.IsZero() {
				t.AuthenticatedAt = t.CreatedAt
			}
		})},
		{"keeps the caller's scopes", shared, func(s *tokens) {
			var mu sync.Mutex
			given := make(map[string][]string)
			s.insert = func(ctx context.Context, t token) error {
				mu.Lock()
				defer mu.Unlock()
				given[t.Digest] = t.Scopes
				return s.Tokens.Insert(ctx, t)
			}
			s.byToken = func(ctx context.Context, digest string, after time.Time) (token, error) {
				t, err := s.Tokens.ByToken(ctx, digest, after)
				mu.Lock()
				defer mu.Unlock()
				if scopes, ok := given[digest]; ok && err == nil {
					t.Scopes = slices.Clone(scopes)
				}
				return t, err
			}
		}},

		{"does not touch", touch, func(s *tokens) {
			s.touch = func(ctx context.Context, _ string, _ time.Time) error { return ctx.Err() }
		}},
		{"touches another field", touch, touching(func(t *token, at time.Time) { t.LastUsedAt, t.AuthenticatedAt = at, at })},
		{"begins the session anew with a touch", touch, touching(func(t *token, at time.Time) { t.LastUsedAt, t.CreatedAt = at, at })},
		{"loses the scopes with a touch", touch, touching(func(t *token, at time.Time) { t.LastUsedAt, t.Scopes = at, nil })},
		{"loses the end with a touch", touch, touching(func(t *token, at time.Time) { t.LastUsedAt, t.ExpiresAt = at, time.Time{} })},
		{"touches to the second", touch, touching(func(t *token, at time.Time) { t.LastUsedAt = at.Truncate(time.Second) })},
		{"touches all tokens of the user", touch, func(s *tokens) {
			s.touch = func(ctx context.Context, digest string, at time.Time) error {
				t, _ := s.Tokens.ByToken(ctx, digest, all)
				list, err := s.Tokens.ByUser(ctx, t.UserID, strategy.Position{}, 100)
				for _, t := range list {
					_ = s.Tokens.Touch(ctx, t.Digest, at)
				}
				return err
			}
		}},
		{"touches backwards", touchForwards, touching(func(t *token, at time.Time) { t.LastUsedAt = at })},
		{"looks at the last use, then touches", touchForwards, func(s *tokens) {
			var mu sync.Mutex
			s.touch = func(ctx context.Context, digest string, at time.Time) error {
				t, err := s.Tokens.ByToken(ctx, digest, all)
				if err != nil || !at.After(t.LastUsedAt) {
					return unless(err, strategy.ErrTokenNotFound)
				}
				pause()
				mu.Lock()
				defer mu.Unlock()
				return unless(s.change(ctx, digest, func(t *token) { t.LastUsedAt = at }), strategy.ErrTokenNotFound)
			}
		}},
		{"returns an error for a touch of a missing token", touchMissing, func(s *tokens) {
			s.touch = func(ctx context.Context, digest string, at time.Time) error {
				if _, err := s.Tokens.ByToken(ctx, digest, all); err != nil {
					return err
				}
				return s.Tokens.Touch(ctx, digest, at)
			}
		}},
		{"makes a token that it touches", touchMissing, func(s *tokens) {
			s.touch = func(ctx context.Context, digest string, at time.Time) error {
				if err := s.Tokens.Touch(ctx, digest, at); err != nil {
					return err
				}
				return unless(s.Tokens.Insert(ctx, token{ID: uuid.New(), Digest: digest, LastUsedAt: at}), strategy.ErrDuplicateToken)
			}
		}},
		{"touches with an upsert of what it has read", touchRace, func(s *tokens) {
			s.touch = func(ctx context.Context, digest string, at time.Time) error {
				t, err := s.Tokens.ByToken(ctx, digest, all)
				if err != nil {
					return unless(err, strategy.ErrTokenNotFound)
				}
				pause()
				if err := s.Tokens.Touch(ctx, digest, at); err != nil {
					return err
				}
				t.LastUsedAt = at
				return unless(s.Tokens.Insert(ctx, t), strategy.ErrDuplicateToken)
			}
			s.later(time.Millisecond / 2)
		}},

		{"does not rotate", rotate, rotatingTo(func(s *tokens, ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			t, err := s.Tokens.ByToken(ctx, digest, all)
			t.Digest = to.Digest
			return t, err
		})},
		{"returns a token as it was before the rotation", rotate, rotatingTo(func(s *tokens, ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			t, err := s.Tokens.Rotate(ctx, digest, to)
			if err == nil {
				t.Digest = digest
			}
			return t, err
		})},
		{"keeps the old digest alive", rotate, func(s *tokens) {
			var mu sync.Mutex
			next := make(map[string]string)
			s.rotate = func(ctx context.Context, digest string, to strategy.Rotation) (token, error) {
				t, err := s.Tokens.Rotate(ctx, digest, to)
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					next[digest] = to.Digest
				}
				return t, err
			}
			s.byToken = func(ctx context.Context, digest string, after time.Time) (token, error) {
				mu.Lock()
				defer mu.Unlock()
				for next[digest] != "" {
					digest = next[digest]
				}
				return s.Tokens.ByToken(ctx, digest, after)
			}
		}},
		{"gives a rotated session another ID", rotate, losing(func(t *token) { t.ID[15]++ })},
		{"begins the session anew with a rotation", rotate, losing(func(t *token) { t.CreatedAt = t.CreatedAt.Add(time.Hour) })},
		{"loses the name in a rotation", rotate, losing(func(t *token) { t.Name = "" })},
		{"loses the scopes in a rotation", rotate, losing(func(t *token) { t.Scopes = nil })},
		{"loses the end in a rotation", rotate, losing(func(t *token) { t.ExpiresAt = time.Time{} })},
		{"loses what the login saw in a rotation", rotate, losing(func(t *token) { t.SeenNotBefore = time.Time{} })},
		{"loses the last use in a rotation", rotate, losing(func(t *token) { t.LastUsedAt = time.Time{} })},
		{"ends the user's other sessions with a rotation", rotate, rotatingTo(func(s *tokens, ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			t, err := s.Tokens.Rotate(ctx, digest, to)
			if err == nil {
				_, err = s.Tokens.DeleteByUser(ctx, t.UserID, t.ID)
			}
			return t, err
		})},
		{"ignores a rotation's last use", rotateTimes, rotating(func(r *strategy.Rotation) { r.LastUsedAt = time.Time{} })},
		{"ignores a rotation's authentication", rotateTimes, rotating(func(r *strategy.Rotation) { r.AuthenticatedAt = time.Time{} })},
		{"ignores what a rotation saw", rotateTimes, rotating(func(r *strategy.Rotation) { r.SeenNotBefore = time.Time{} })},
		{"takes an authentication for what it saw", rotateTimes, rotating(func(r *strategy.Rotation) {
			if r.SeenNotBefore.IsZero() {
				r.SeenNotBefore = r.AuthenticatedAt
			}
		})},
		{"ignores a rotation that saw no not-before", rotateTimes, rotating(func(r *strategy.Rotation) {
			if r.SeenNotBefore.Equal(time.UnixMilli(0)) {
				r.SeenNotBefore = time.Time{}
			}
		})},
		{"takes a rotation for an authentication", rotateTimes, rotating(func(r *strategy.Rotation) {
			if r.AuthenticatedAt.IsZero() {
				r.AuthenticatedAt = r.LastUsedAt
			}
		})},
		{"sets times back in a rotation", rotateTimes, rotatingTo(func(s *tokens, ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			t, err := s.Tokens.Rotate(ctx, digest, to)
			if err == nil && !to.AuthenticatedAt.IsZero() {
				t.AuthenticatedAt = to.AuthenticatedAt
				_ = s.change(ctx, to.Digest, func(t *token) { t.AuthenticatedAt = to.AuthenticatedAt })
			}
			return t, err
		})},
		{"sets what was seen back in a rotation", rotateTimes, rotatingTo(func(s *tokens, ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			t, err := s.Tokens.Rotate(ctx, digest, to)
			if err == nil && !to.SeenNotBefore.IsZero() {
				t.SeenNotBefore = to.SeenNotBefore
				_ = s.change(ctx, to.Digest, func(t *token) { t.SeenNotBefore = to.SeenNotBefore })
			}
			return t, err
		})},
		{"returns no error for a rotation of a missing token", rotateMissing, rotatingTo(func(s *tokens, ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			t, err := s.Tokens.Rotate(ctx, digest, to)
			return t, unless(err, strategy.ErrTokenNotFound)
		})},
		{"makes a token that it rotates", rotateMissing, rotatingTo(func(s *tokens, ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			t, err := s.Tokens.Rotate(ctx, digest, to)
			if errors.Is(err, strategy.ErrTokenNotFound) {
				_ = s.Tokens.Insert(ctx, token{ID: uuid.New(), Digest: to.Digest})
			}
			return t, err
		})},
		{"looks for a token, then rotates its session", rotateOnce, func(s *tokens) {
			var mu sync.Mutex
			s.rotate = func(ctx context.Context, digest string, to strategy.Rotation) (token, error) {
				t, err := s.Tokens.ByToken(ctx, digest, all)
				if err != nil {
					return t, err
				}
				pause()
				mu.Lock()
				defer mu.Unlock()
				now, err := s.Tokens.DeleteSession(ctx, t.UserID, t.ID)
				if err != nil {
					return now, err
				}
				_ = s.Tokens.Insert(ctx, now)
				return s.Tokens.Rotate(ctx, now.Digest, to)
			}
		}},
		{"rotates a token with an upsert of what it has read", rotateDelete, upsertingRotation},
		{"rotates a session with an upsert of what it has read", rotateEnd, upsertingRotation},

		{"lists the oldest first", list, listing(func(l []token, after strategy.Position, limit int) []token {
			return page(l, func(a, b strategy.Position) int { return newestFirst(b, a) }, after, limit)
		})},
		{"does not sort", list, listing(func(l []token, after strategy.Position, limit int) []token {
			return page(l, func(a, b strategy.Position) int { return bytes.Compare(a.ID[8:], b.ID[8:]) }, after, limit)
		})},
		{"sorts by ID alone", list, listing(func(l []token, after strategy.Position, limit int) []token {
			return page(l, func(a, b strategy.Position) int { return bytes.Compare(b.ID[:], a.ID[:]) }, after, limit)
		})},
		{"lists ties by the lowest ID", list, listing(func(l []token, after strategy.Position, limit int) []token {
			return page(l, func(a, b strategy.Position) int {
				return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), bytes.Compare(a.ID[:], b.ID[:]))
			}, after, limit)
		})},
		{"lists the tokens of all users", list, func(s *tokens) {
			var mu sync.Mutex
			users := make(map[uuid.UUID]bool)
			s.insert = func(ctx context.Context, t token) error {
				mu.Lock()
				defer mu.Unlock()
				users[t.UserID] = true
				return s.Tokens.Insert(ctx, t)
			}
			s.byUser = func(ctx context.Context, _ uuid.UUID, after strategy.Position, limit int) ([]token, error) {
				mu.Lock()
				defer mu.Unlock()
				var everything []token
				for id := range users {
					list, err := s.Tokens.ByUser(ctx, id, strategy.Position{}, 1000)
					if err != nil {
						return nil, err
					}
					everything = append(everything, list...)
				}
				return page(everything, newestFirst, after, limit), nil
			}
		}},
		{"returns an error for a user without tokens", list, func(s *tokens) {
			s.byUser = func(ctx context.Context, userID uuid.UUID, after strategy.Position, limit int) ([]token, error) {
				l, err := s.Tokens.ByUser(ctx, userID, after, limit)
				if err == nil && len(l) == 0 {
					err = strategy.ErrTokenNotFound
				}
				return l, err
			}
		}},
		{"lists tokens without their optional fields", list, listing(func(l []token, after strategy.Position, limit int) []token {
			for i := range l {
				l[i].Name = ""
			}
			return page(l, newestFirst, after, limit)
		})},
		{"ignores the position", pages, listing(func(l []token, _ strategy.Position, limit int) []token {
			return page(l, newestFirst, strategy.Position{}, limit)
		})},
		{"ignores the ID in a position", pages, listing(func(l []token, after strategy.Position, limit int) []token {
			if after != (strategy.Position{}) {
				l = slices.DeleteFunc(l, func(t token) bool { return !t.CreatedAt.Before(after.CreatedAt) })
			}
			return page(l, newestFirst, strategy.Position{}, limit)
		})},
		{"begins a page with the token of the position", pages, listing(func(l []token, after strategy.Position, limit int) []token {
			if after != (strategy.Position{}) {
				l = slices.DeleteFunc(l, func(t token) bool { return newestFirst(place(t), after) < 0 })
			}
			return page(l, newestFirst, strategy.Position{}, limit)
		})},
		{"looks for the token of the position", pages, listing(func(l []token, after strategy.Position, limit int) []token {
			if i := slices.IndexFunc(l, func(t token) bool { return t.ID == after.ID }); i >= 0 {
				l = l[i+1:]
			}
			return l[:min(limit, len(l))]
		})},
		{"ignores the limit", pages, listing(func(l []token, after strategy.Position, _ int) []token {
			return page(l, newestFirst, after, len(l))
		})},
		{"fills its pages by half", pages, listing(func(l []token, after strategy.Position, limit int) []token {
			return page(l, newestFirst, after, (limit+1)/2)
		})},

		{"ignores whose session it deletes", another, func(s *tokens) {
			var mu sync.Mutex
			owners := make(map[uuid.UUID]uuid.UUID)
			s.insert = func(ctx context.Context, t token) error {
				mu.Lock()
				defer mu.Unlock()
				owners[t.ID] = t.UserID
				return s.Tokens.Insert(ctx, t)
			}
			s.deleteSession = func(ctx context.Context, _, id uuid.UUID) (token, error) {
				mu.Lock()
				defer mu.Unlock()
				return s.Tokens.DeleteSession(ctx, owners[id], id)
			}
		}},
		{"returns no error for a missing session", session, func(s *tokens) {
			s.deleteSession = func(ctx context.Context, userID, id uuid.UUID) (token, error) {
				t, err := s.Tokens.DeleteSession(ctx, userID, id)
				return t, unless(err, strategy.ErrTokenNotFound)
			}
		}},
		{"says that it deletes a session, and does not", session, func(s *tokens) {
			s.deleteSession = func(ctx context.Context, userID, id uuid.UUID) (token, error) { return s.find(ctx, userID, id) }
		}},
		{"does not return the session that it deletes", session, func(s *tokens) {
			s.deleteSession = func(ctx context.Context, userID, id uuid.UUID) (token, error) {
				_, err := s.Tokens.DeleteSession(ctx, userID, id)
				return token{}, err
			}
		}},
		{"deletes a session by its first digest", session, func(s *tokens) {
			var mu sync.Mutex
			first := make(map[uuid.UUID]string)
			s.insert = func(ctx context.Context, t token) error {
				mu.Lock()
				defer mu.Unlock()
				first[t.ID] = t.Digest
				return s.Tokens.Insert(ctx, t)
			}
			s.deleteSession = func(ctx context.Context, userID, id uuid.UUID) (token, error) {
				mu.Lock()
				defer mu.Unlock()
				return s.Tokens.Delete(ctx, first[id])
			}
		}},
		{"looks for a session, then deletes it", sessionOnce, func(s *tokens) {
			s.deleteSession = func(ctx context.Context, userID, id uuid.UUID) (token, error) {
				t, err := s.find(ctx, userID, id)
				if err == nil {
					pause()
					_, _ = s.Tokens.DeleteSession(ctx, userID, id)
				}
				return t, err
			}
		}},
		{"reads a session, then deletes it by its digest", rotateEnd, func(s *tokens) {
			s.slowToRotate()
			s.deleteSession = func(ctx context.Context, userID, id uuid.UUID) (token, error) {
				t, err := s.find(ctx, userID, id)
				if err != nil {
					return t, err
				}
				pause()
				_, _ = s.Tokens.Delete(ctx, t.Digest)
				return t, nil
			}
		}},
		{"lists a user's tokens, then deletes them by their digests", rotateEnd, func(s *tokens) {
			s.slowToRotate()
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) (n int64, err error) {
				l, err := s.Tokens.ByUser(ctx, userID, strategy.Position{}, 1000)
				pause()
				for _, t := range l {
					if !slices.Contains(except, t.ID) {
						_, _ = s.Tokens.Delete(ctx, t.Digest)
						n++
					}
				}
				return n, err
			}
		}},
		{"ignores the exceptions", byUser, func(s *tokens) {
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID, _ ...uuid.UUID) (int64, error) {
				return s.Tokens.DeleteByUser(ctx, userID)
			}
		}},
		{"knows one exception only", byUser, func(s *tokens) {
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) (int64, error) {
				return s.Tokens.DeleteByUser(ctx, userID, except[:min(1, len(except))]...)
			}
		}},
		{"does not count", byUser, func(s *tokens) {
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) (int64, error) {
				_, err := s.Tokens.DeleteByUser(ctx, userID, except...)
				return 0, err
			}
		}},
		{"deletes the sessions of others", byUser, func(s *tokens) {
			var mu sync.Mutex
			users := make(map[uuid.UUID]bool)
			s.insert = func(ctx context.Context, t token) error {
				mu.Lock()
				defer mu.Unlock()
				users[t.UserID] = true
				return s.Tokens.Insert(ctx, t)
			}
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) (int64, error) {
				mu.Lock()
				defer mu.Unlock()
				n, err := s.Tokens.DeleteByUser(ctx, userID, except...)
				for other := range users {
					_, _ = s.Tokens.DeleteByUser(ctx, other, append(except, uuid.Nil)...)
				}
				return n, err
			}
		}},
		{"returns an error where there is nothing to delete", byUser, func(s *tokens) {
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) (int64, error) {
				n, err := s.Tokens.DeleteByUser(ctx, userID, except...)
				if err == nil && n == 0 {
					err = strategy.ErrTokenNotFound
				}
				return n, err
			}
		}},

		{"touches in spite of the context", cancelled, func(s *tokens) {
			s.touch = func(ctx context.Context, digest string, at time.Time) error {
				return s.Tokens.Touch(context.WithoutCancel(ctx), digest, at)
			}
		}},
		{"rotates in spite of the context", cancelled, rotatingTo(func(s *tokens, ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			return s.Tokens.Rotate(context.WithoutCancel(ctx), digest, to)
		})},
		{"lists in spite of the context", cancelled, func(s *tokens) {
			s.byUser = func(ctx context.Context, userID uuid.UUID, after strategy.Position, limit int) ([]token, error) {
				return s.Tokens.ByUser(context.WithoutCancel(ctx), userID, after, limit)
			}
		}},
		{"deletes sessions in spite of the context", cancelled, func(s *tokens) {
			s.deleteSession = func(ctx context.Context, userID, id uuid.UUID) (token, error) {
				return s.Tokens.DeleteSession(context.WithoutCancel(ctx), userID, id)
			}
		}},
		{"deletes all of a user's in spite of the context", cancelled, func(s *tokens) {
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) (int64, error) {
				return s.Tokens.DeleteByUser(context.WithoutCancel(ctx), userID, except...)
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
