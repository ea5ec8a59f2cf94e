package storetest_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/storetest"
	"github.com/latchkey-go/latchkey/strategy"
)

type token = strategy.AccessToken[uuid.UUID]

// tokens is a store without a fault, until a test replaces one of its methods.
type tokens struct {
	*memstore.Tokens[uuid.UUID]
	insert  func(context.Context, token) error
	byToken func(context.Context, string) (token, error)
	delete  func(context.Context, string) (token, error)
	touch   func(context.Context, string, time.Time) error
	rotate  func(context.Context, string, strategy.Rotation) (token, error)
	byUser  func(context.Context, uuid.UUID, strategy.Position, int) ([]token, error)

	deleteSession func(context.Context, uuid.UUID, uuid.UUID) (token, error)
	deleteByUser  func(context.Context, uuid.UUID, ...uuid.UUID) (int64, error)
	retention     func() time.Duration
	rename        func(ctx context.Context, userID, id uuid.UUID, name string) error
}

func newTokens(testing.TB) *tokens {
	good := memstore.NewTokens[uuid.UUID]()
	return &tokens{
		good, good.Insert, good.ByToken, good.Delete, good.Touch, good.Rotate, good.ByUser, good.DeleteSession, good.DeleteByUser, good.Retention, good.Rename,
	}
}

func (s *tokens) Insert(ctx context.Context, t token) error { return s.insert(ctx, t) }
func (s *tokens) ByToken(ctx context.Context, digest string) (token, error) {
	return s.byToken(ctx, digest)
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
func (s *tokens) Rename(ctx context.Context, userID, id uuid.UUID, name string) error {
	return s.rename(ctx, userID, id, name)
}
func (s *tokens) Retention() time.Duration { return s.retention() }

// change changes a token in two steps: it deletes it and inserts it again.
func (s *tokens) change(ctx context.Context, digest string, f func(*token)) error {
	t, err := s.Tokens.Delete(ctx, digest)
	if err != nil {
		return err
	}
	f(&t)
	return s.Tokens.Insert(ctx, t)
}

// touching makes Touch change a token by f.
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

// rotating makes Rotate change the rotation before it makes it.
func rotating(f func(*strategy.Rotation)) func(*tokens) {
	return func(s *tokens) {
		s.rotate = func(ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			f(&to)
			return s.Tokens.Rotate(ctx, digest, to)
		}
	}
}

// losing makes Rotate also change the token by f.
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

// listing makes ByUser return f of the list of all the user's tokens.
func listing(f func(all []token, after strategy.Position, limit int) []token) func(*tokens) {
	return func(s *tokens) {
		s.byUser = func(ctx context.Context, userID uuid.UUID, after strategy.Position, limit int) ([]token, error) {
			list, err := s.Tokens.ByUser(ctx, userID, strategy.Position{}, 1000)
			return f(list, after, limit), err
		}
	}
}

// rotatingBy replaces Rotate by f.
func rotatingBy(f func(s *tokens, ctx context.Context, digest string, to strategy.Rotation) (token, error)) func(*tokens) {
	return func(s *tokens) {
		s.rotate = func(ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			return f(s, ctx, digest, to)
		}
	}
}

// upsertingRotation makes Rotate read a token and then write it under the new digest, even if
// it was deleted in between.
func upsertingRotation(s *tokens) {
	var mu sync.Mutex
	rotated := make(map[string]bool)
	s.rotate = func(ctx context.Context, digest string, to strategy.Rotation) (token, error) {
		t, err := s.Tokens.ByToken(ctx, digest)
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
	s.delayDeletes(time.Millisecond / 2)
}

// delayDeletes makes deletes wait, so that they run while other calls are in flight.
func (s *tokens) delayDeletes(d time.Duration) {
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

// delayRotations makes rotations wait, so that they run while deletes are in flight.
func (s *tokens) delayRotations() {
	s.rotate = func(ctx context.Context, digest string, to strategy.Rotation) (token, error) {
		time.Sleep(time.Millisecond / 2)
		return s.Tokens.Rotate(ctx, digest, to)
	}
}

// find returns a user's session by its ID.
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

// page sorts a list and returns its page after a position.
func page(list []token, compare func(a, b strategy.Position) int, after strategy.Position, limit int) []token {
	slices.SortFunc(list, func(a, b token) int { return compare(place(a), place(b)) })
	if after != (strategy.Position{}) {
		list = slices.DeleteFunc(list, func(t token) bool { return compare(place(t), after) <= 0 })
	}
	return list[:min(limit, len(list))]
}

func place(t token) strategy.Position { return strategy.Position{CreatedAt: t.CreatedAt, ID: t.ID} }

// readingToken makes ByToken change the token that it returns.
func readingToken(change func(*token)) func(*tokens) {
	return func(s *tokens) {
		s.byToken = func(ctx context.Context, digest string) (token, error) {
			t, err := s.Tokens.ByToken(ctx, digest)
			if err == nil {
				change(&t)
			}
			return t, err
		}
	}
}

// overwriting makes Insert first delete the tokens that same reports.
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
		roundTrip      = "every field is returned as it was stored"
		independent    = "tokens are independent"
		notFound       = "a missing token is ErrTokenNotFound"
		digestTaken    = "a taken digest is ErrDuplicateToken and changes nothing"
		idTaken        = "a taken session ID is ErrDuplicateToken and changes nothing"
		insertRace     = "one of many concurrent inserts of a digest succeeds"
		anyAge         = "a token is found however old it is"
		retention      = "the retention is not negative and does not change"
		deleteTwice    = "a delete returns the token once"
		deleteRace     = "one of many concurrent deletes of a token succeeds"
		deleted        = "a deleted token stays deleted while other tokens are used"
		deletedReads   = "a deleted token stays deleted under concurrent reads"
		shared         = "tokens share no memory with the caller"
		touch          = "a touch sets the last use and nothing else"
		touchForwards  = "a touch never lowers the last use"
		touchMissing   = "a touch of a missing token is no error and creates none"
		touchRace      = "a deleted token stays deleted under concurrent touches"
		rotate         = "a rotation changes the digest and nothing else"
		rotateTimes    = "a rotation raises the last use, and sets the time of the authentication"
		rotateVersion  = "a rotation raises the token version and never lowers it"
		rotateMissing  = "a rotation of a missing token is ErrTokenNotFound and creates none"
		rotateRace     = "one of many concurrent rotations of a token succeeds"
		rotateDelete   = "a deleted token stays deleted under concurrent rotations"
		rotateEnd      = "a deleted session stays deleted under concurrent rotations"
		list           = "a list has exactly the user's tokens, newest first"
		pages          = "the pages of a list have no gap and no repeat"
		session        = "a session is deleted by its ID, also after a rotation"
		anotherSession = "another user's session is ErrTokenNotFound and stays"
		sessionRace    = "one of many concurrent deletes of a session succeeds"
		byUser         = "all sessions of a user are deleted except those given"
		concurrentUse  = "the store is safe for concurrent use"
		cancelled      = "a cancelled context stops every method"
		rename         = "a session is renamed, and nothing else of it changes"
		renameMissing  = "renaming a missing or another user's session is ErrTokenNotFound and changes nothing"
		renameEnd      = "a deleted token stays deleted under concurrent renames"
	)
	// renamingBy replaces Rename by f, which gets the session as it is stored.
	renamingBy := func(f func(s *tokens, ctx context.Context, t token, name string) error) func(*tokens) {
		return func(s *tokens) {
			s.rename = func(ctx context.Context, userID, id uuid.UUID, name string) error {
				t, err := s.find(ctx, userID, id)
				if err != nil {
					return err
				}
				return f(s, ctx, t, name)
			}
		}
	}
	// rotatingVersion makes Rotate write f of the token versions of the row and of the rotation.
	rotatingVersion := func(f func(row, rotation int64) int64) func(*tokens) {
		return rotatingBy(func(s *tokens, ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			before, err := s.Tokens.ByToken(ctx, digest)
			if err != nil {
				return before, err
			}
			t, err := s.Tokens.Rotate(ctx, digest, to)
			if err == nil {
				t.TokenVersion = f(before.TokenVersion, to.TokenVersion)
				err = s.change(ctx, to.Digest, func(row *token) { row.TokenVersion = t.TokenVersion })
			}
			return t, err
		})
	}
	mustCatch(t, newTokens, func(open func(testing.TB) *tokens) storetest.Suite {
		return storetest.Tokens(uuid.New, func(t testing.TB) strategy.Store[uuid.UUID] { return open(t) })
	}, []broken[*tokens]{
		{"forgets the session ID", roundTrip, readingToken(func(t *token) { t.ID = uuid.Nil })},
		{"forgets the digest", roundTrip, readingToken(func(t *token) { t.Digest = "" })},
		{"forgets the user", roundTrip, readingToken(func(t *token) { t.UserID = uuid.Nil })},
		{"forgets the milliseconds", roundTrip, readingToken(func(t *token) { t.CreatedAt = t.CreatedAt.Truncate(time.Second) })},
		{"returns local time", roundTrip, readingToken(func(t *token) { t.CreatedAt = t.CreatedAt.In(time.FixedZone("here", 7200)) })},
		{"deletes all tokens of the user", independent, func(s *tokens) {
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
		{"holds one token of a user", independent, overwriting(func(a, b token) bool { return a.UserID == b.UserID })},
		{"returns an error of its own for a missing token", notFound, func(s *tokens) {
			s.byToken = func(ctx context.Context, digest string) (token, error) {
				t, err := s.Tokens.ByToken(ctx, digest)
				if errors.Is(err, strategy.ErrTokenNotFound) {
					err = errors.New("no documents in result")
				}
				return t, err
			}
		}},
		{"returns no error for a missing token", notFound, func(s *tokens) {
			s.byToken = func(ctx context.Context, digest string) (token, error) {
				t, err := s.Tokens.ByToken(ctx, digest)
				return t, unless(err, strategy.ErrTokenNotFound)
			}
		}},
		{
			"overwrites a taken digest", digestTaken,
			overwriting(func(a, b token) bool { return a.Digest == b.Digest }),
		},
		{"ignores a taken digest", digestTaken, func(s *tokens) {
			s.insert = func(ctx context.Context, t token) error {
				if _, err := s.Tokens.ByToken(ctx, t.Digest); err == nil {
					return nil
				}
				return s.Tokens.Insert(ctx, t)
			}
		}},
		{
			"overwrites a taken session ID", idTaken,
			overwriting(func(a, b token) bool { return a.ID == b.ID }),
		},
		{"checks whether a digest is taken, then inserts", insertRace, func(s *tokens) {
			var mu sync.Mutex
			s.insert = func(ctx context.Context, t token) error {
				if _, err := s.Tokens.ByToken(ctx, t.Digest); err == nil {
					return strategy.ErrDuplicateToken
				}
				pause()
				mu.Lock()
				defer mu.Unlock()
				_, _ = s.Tokens.Delete(ctx, t.Digest)
				return s.Tokens.Insert(ctx, t)
			}
		}},
		{"hides tokens older than a day", anyAge, func(s *tokens) {
			s.byToken = func(ctx context.Context, digest string) (token, error) {
				t, err := s.Tokens.ByToken(ctx, digest)
				if err == nil && t.CreatedAt.Before(time.Now().AddDate(0, 0, -1)) {
					return token{}, strategy.ErrTokenNotFound
				}
				return t, err
			}
		}},
		{"lists no tokens older than a day", anyAge, listing(func(l []token, after strategy.Position, limit int) []token {
			l = slices.DeleteFunc(l, func(t token) bool { return t.CreatedAt.Before(time.Now().AddDate(0, 0, -1)) })
			return page(l, newestFirst, after, limit)
		})},
		{"has a negative retention", retention, func(s *tokens) {
			s.retention = func() time.Duration { return -1 }
		}},
		{"has a retention that changes", retention, func(s *tokens) {
			var calls atomic.Int64
			s.retention = func() time.Duration { return time.Duration(calls.Add(1)) * time.Hour }
		}},
		{"returns no error for a delete of a missing token", deleteTwice, func(s *tokens) {
			s.delete = func(ctx context.Context, digest string) (token, error) {
				t, err := s.Tokens.Delete(ctx, digest)
				return t, unless(err, strategy.ErrTokenNotFound)
			}
		}},
		{"does not return the deleted token", deleteTwice, func(s *tokens) {
			s.delete = func(ctx context.Context, digest string) (token, error) {
				_, err := s.Tokens.Delete(ctx, digest)
				return token{}, err
			}
		}},
		{"returns a token without deleting it", deleteTwice, func(s *tokens) {
			s.delete = func(ctx context.Context, digest string) (token, error) { return s.Tokens.ByToken(ctx, digest) }
		}},
		{"reads a token, then deletes it", deleteRace, func(s *tokens) {
			s.delete = func(ctx context.Context, digest string) (token, error) {
				t, err := s.Tokens.ByToken(ctx, digest)
				if err == nil {
					pause()
					_, _ = s.Tokens.Delete(ctx, digest)
				}
				return t, err
			}
		}},
		// Session stores do this if they save at the end of a request what the request has loaded.
		{"writes tokens back with later calls", deleted, func(s *tokens) {
			var mu sync.Mutex
			var loaded []token
			save := func(ctx context.Context) {
				for _, t := range loaded {
					_ = s.Tokens.Insert(ctx, t)
				}
			}
			s.byToken = func(ctx context.Context, digest string) (token, error) {
				mu.Lock()
				defer mu.Unlock()
				save(ctx)
				t, err := s.Tokens.ByToken(ctx, digest)
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
		// Stores do this if they set the last use with an upsert.
		{"writes tokens back when it reads them", deletedReads, func(s *tokens) {
			s.byToken = func(ctx context.Context, digest string) (token, error) {
				t, err := s.Tokens.ByToken(ctx, digest)
				if err == nil {
					pause()
					_ = s.Tokens.Insert(ctx, t)
				}
				return t, err
			}
			s.delayDeletes(time.Millisecond / 2)
		}},
		{"has one buffer for all callers", concurrentUse, func(s *tokens) {
			var mu sync.Mutex
			var buffer token
			s.byToken = func(ctx context.Context, digest string) (token, error) {
				t, err := s.Tokens.ByToken(ctx, digest)
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
		{"forgets the last use", roundTrip, readingToken(func(t *token) { t.LastUsedAt = time.Time{} })},
		{"forgets the time of the authentication", roundTrip, readingToken(func(t *token) { t.AuthenticatedAt = time.Time{} })},
		{"forgets the token version", roundTrip, readingToken(func(t *token) { t.TokenVersion = 0 })},
		{"keeps 32 bits of the token version", roundTrip, readingToken(func(t *token) { t.TokenVersion = int64(int32(t.TokenVersion)) })},
		{"keeps the token version as a float", roundTrip, readingToken(func(t *token) { t.TokenVersion = int64(float64(t.TokenVersion)) })},
		{"takes a missing token version for 1", roundTrip, readingToken(func(t *token) { t.TokenVersion = max(1, t.TokenVersion) })},
		{"forgets the expiry", roundTrip, readingToken(func(t *token) { t.ExpiresAt = time.Time{} })},
		{"forgets the scopes", roundTrip, readingToken(func(t *token) { t.Scopes = nil })},
		{"sorts the scopes", roundTrip, readingToken(func(t *token) { slices.Sort(t.Scopes) })},
		{"makes a login a token with no scopes", roundTrip, readingToken(func(t *token) {
			if t.Scopes == nil {
				t.Scopes = []string{}
			}
		})},
		{"forgets the name", roundTrip, readingToken(func(t *token) { t.Name = "" })},
		{"forgets the user agent", roundTrip, readingToken(func(t *token) { t.UserAgent = "" })},
		{"forgets the client IP", roundTrip, readingToken(func(t *token) { t.ClientIP = "" })},
		{"cuts the milliseconds off the expiry", roundTrip, readingToken(func(t *token) { t.ExpiresAt = t.ExpiresAt.Truncate(time.Second) })},
		{"returns the last use in local time", roundTrip, readingToken(func(t *token) { t.LastUsedAt = t.LastUsedAt.In(time.FixedZone("here", 7200)) })},
		{"takes a missing last use for the epoch", roundTrip, readingToken(func(t *token) {
			if t.LastUsedAt.IsZero() {
				t.LastUsedAt = time.UnixMilli(0).UTC()
			}
		})},
		{"takes a missing expiry for the epoch", roundTrip, readingToken(func(t *token) {
			if t.ExpiresAt.IsZero() {
				t.ExpiresAt = time.UnixMilli(0).UTC()
			}
		})},
		{"fills in a missing time of the authentication", roundTrip, readingToken(func(t *token) {
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
			s.byToken = func(ctx context.Context, digest string) (token, error) {
				t, err := s.Tokens.ByToken(ctx, digest)
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
		{"changes the time of creation with a touch", touch, touching(func(t *token, at time.Time) { t.LastUsedAt, t.CreatedAt = at, at })},
		{"loses the scopes with a touch", touch, touching(func(t *token, at time.Time) { t.LastUsedAt, t.Scopes = at, nil })},
		{"loses the expiry with a touch", touch, touching(func(t *token, at time.Time) { t.LastUsedAt, t.ExpiresAt = at, time.Time{} })},
		{"changes the token version with a touch", touch, touching(func(t *token, at time.Time) {
			t.LastUsedAt = at
			t.TokenVersion++
		})},
		{"touches to the second", touch, touching(func(t *token, at time.Time) { t.LastUsedAt = at.Truncate(time.Second) })},
		{"touches all tokens of the user", touch, func(s *tokens) {
			s.touch = func(ctx context.Context, digest string, at time.Time) error {
				t, _ := s.Tokens.ByToken(ctx, digest)
				list, err := s.Tokens.ByUser(ctx, t.UserID, strategy.Position{}, 100)
				for _, t := range list {
					_ = s.Tokens.Touch(ctx, t.Digest, at)
				}
				return err
			}
		}},
		{"lowers the last use", touchForwards, touching(func(t *token, at time.Time) { t.LastUsedAt = at })},
		{"reads the last use, then writes it", touchForwards, func(s *tokens) {
			var mu sync.Mutex
			s.touch = func(ctx context.Context, digest string, at time.Time) error {
				t, err := s.Tokens.ByToken(ctx, digest)
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
				if _, err := s.Tokens.ByToken(ctx, digest); err != nil {
					return err
				}
				return s.Tokens.Touch(ctx, digest, at)
			}
		}},
		{"creates a missing token with a touch", touchMissing, func(s *tokens) {
			s.touch = func(ctx context.Context, digest string, at time.Time) error {
				if err := s.Tokens.Touch(ctx, digest, at); err != nil {
					return err
				}
				return unless(s.Tokens.Insert(ctx, token{ID: uuid.New(), Digest: digest, LastUsedAt: at}), strategy.ErrDuplicateToken)
			}
		}},
		{"touches with an upsert of the token it has read", touchRace, func(s *tokens) {
			s.touch = func(ctx context.Context, digest string, at time.Time) error {
				t, err := s.Tokens.ByToken(ctx, digest)
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
			s.delayDeletes(time.Millisecond / 2)
		}},

		{"finds no token to delete beside a touch", touchRace, func(s *tokens) {
			var touches atomic.Int64
			s.touch = func(ctx context.Context, digest string, at time.Time) error {
				touches.Add(1)
				defer touches.Add(-1)
				pause()
				return s.Tokens.Touch(ctx, digest, at)
			}
			s.delete = func(ctx context.Context, digest string) (token, error) {
				for range 10 {
					if touches.Load() > 0 {
						return token{}, strategy.ErrTokenNotFound
					}
					pause()
				}
				return s.Tokens.Delete(ctx, digest)
			}
		}},

		{"does not rotate", rotate, rotatingBy(func(s *tokens, ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			t, err := s.Tokens.ByToken(ctx, digest)
			t.Digest = to.Digest
			return t, err
		})},
		{"returns the token as it was before the rotation", rotate, rotatingBy(func(s *tokens, ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			t, err := s.Tokens.Rotate(ctx, digest, to)
			if err == nil {
				t.Digest = digest
			}
			return t, err
		})},
		{"finds the old digest after a rotation", rotate, func(s *tokens) {
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
			s.byToken = func(ctx context.Context, digest string) (token, error) {
				mu.Lock()
				defer mu.Unlock()
				for next[digest] != "" {
					digest = next[digest]
				}
				return s.Tokens.ByToken(ctx, digest)
			}
		}},
		{"changes the session ID with a rotation", rotate, losing(func(t *token) { t.ID[15]++ })},
		{"changes the time of creation with a rotation", rotate, losing(func(t *token) { t.CreatedAt = t.CreatedAt.Add(time.Hour) })},
		{"loses the name with a rotation", rotate, losing(func(t *token) { t.Name = "" })},
		{"loses the scopes with a rotation", rotate, losing(func(t *token) { t.Scopes = nil })},
		{"loses the expiry with a rotation", rotate, losing(func(t *token) { t.ExpiresAt = time.Time{} })},
		{"loses the token version with a rotation", rotate, losing(func(t *token) { t.TokenVersion = 0 })},
		{"loses the last use with a rotation", rotate, losing(func(t *token) { t.LastUsedAt = time.Time{} })},
		{"deletes the user's other sessions with a rotation", rotate, rotatingBy(func(s *tokens, ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			t, err := s.Tokens.Rotate(ctx, digest, to)
			if err == nil {
				_, err = s.Tokens.DeleteByUser(ctx, t.UserID, t.ID)
			}
			return t, err
		})},
		{"ignores a rotation's last use", rotateTimes, rotating(func(r *strategy.Rotation) { r.LastUsedAt = time.Time{} })},
		{"ignores a rotation's authentication", rotateTimes, rotating(func(r *strategy.Rotation) { r.AuthenticatedAt = time.Time{} })},
		{"takes a rotation's last use for its authentication", rotateTimes, rotating(func(r *strategy.Rotation) {
			if r.AuthenticatedAt.IsZero() {
				r.AuthenticatedAt = r.LastUsedAt
			}
		})},
		{"keeps a later time of the authentication", rotateTimes, rotatingBy(func(s *tokens, ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			if before, err := s.Tokens.ByToken(ctx, digest); err == nil && !to.AuthenticatedAt.After(before.AuthenticatedAt) {
				to.AuthenticatedAt = time.Time{}
			}
			return s.Tokens.Rotate(ctx, digest, to)
		})},
		{"lowers the last use with a rotation", rotateTimes, rotatingBy(func(s *tokens, ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			t, err := s.Tokens.Rotate(ctx, digest, to)
			if err == nil && !to.LastUsedAt.IsZero() {
				t.LastUsedAt = to.LastUsedAt
				_ = s.change(ctx, to.Digest, func(t *token) { t.LastUsedAt = to.LastUsedAt })
			}
			return t, err
		})},
		{"ignores a rotation's token version", rotateVersion, rotating(func(r *strategy.Rotation) { r.TokenVersion = 0 })},
		{"lowers the token version with a rotation", rotateVersion, rotatingVersion(func(row, rotation int64) int64 {
			return cmp.Or(rotation, row)
		})},
		{"takes a rotation without a token version for version 0", rotateVersion, rotatingVersion(func(row, rotation int64) int64 {
			if rotation == 0 {
				return 0
			}
			return max(row, rotation)
		})},
		{"counts rotations as token versions", rotateVersion, rotatingVersion(func(row, _ int64) int64 { return row + 1 })},
		{"sets a token version only once", rotateVersion, rotatingVersion(func(row, rotation int64) int64 { return cmp.Or(row, rotation) })},
		{"returns no error for a rotation of a missing token", rotateMissing, rotatingBy(func(s *tokens, ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			t, err := s.Tokens.Rotate(ctx, digest, to)
			return t, unless(err, strategy.ErrTokenNotFound)
		})},
		{"creates a missing token with a rotation", rotateMissing, rotatingBy(func(s *tokens, ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			t, err := s.Tokens.Rotate(ctx, digest, to)
			if errors.Is(err, strategy.ErrTokenNotFound) {
				_ = s.Tokens.Insert(ctx, token{ID: uuid.New(), Digest: to.Digest})
			}
			return t, err
		})},
		{"reads a token, then rotates its session", rotateRace, func(s *tokens) {
			var mu sync.Mutex
			s.rotate = func(ctx context.Context, digest string, to strategy.Rotation) (token, error) {
				t, err := s.Tokens.ByToken(ctx, digest)
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
		{"rotates a token with an upsert of the token it has read", rotateDelete, upsertingRotation},
		{"rotates a session with an upsert of the token it has read", rotateEnd, upsertingRotation},

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
		{"begins a page with the token at the position", pages, listing(func(l []token, after strategy.Position, limit int) []token {
			if after != (strategy.Position{}) {
				l = slices.DeleteFunc(l, func(t token) bool { return newestFirst(place(t), after) < 0 })
			}
			return page(l, newestFirst, strategy.Position{}, limit)
		})},
		{"looks for the token at the position", pages, listing(func(l []token, after strategy.Position, limit int) []token {
			if i := slices.IndexFunc(l, func(t token) bool { return t.ID == after.ID }); i >= 0 {
				l = l[i+1:]
			}
			return l[:min(limit, len(l))]
		})},
		{"ignores the limit", pages, listing(func(l []token, after strategy.Position, _ int) []token {
			return page(l, newestFirst, after, len(l))
		})},
		{"fills half of each page", pages, listing(func(l []token, after strategy.Position, limit int) []token {
			return page(l, newestFirst, after, (limit+1)/2)
		})},

		{"renames nothing", rename, renamingBy(func(*tokens, context.Context, token, string) error { return nil })},
		{"keeps the old name instead of none", rename, renamingBy(func(s *tokens, ctx context.Context, t token, name string) error {
			return s.Tokens.Rename(ctx, t.UserID, t.ID, cmp.Or(name, t.Name))
		})},
		{"touches the session it renames", rename, renamingBy(func(s *tokens, ctx context.Context, t token, name string) error {
			_ = s.Tokens.Touch(ctx, t.Digest, t.CreatedAt.Add(24*time.Hour))
			return s.Tokens.Rename(ctx, t.UserID, t.ID, name)
		})},
		{"ignores the user of the session it renames", renameMissing, func(s *tokens) {
			var owners sync.Map
			s.insert = func(ctx context.Context, t token) error {
				owners.Store(t.ID, t.UserID)
				return s.Tokens.Insert(ctx, t)
			}
			s.rename = func(ctx context.Context, _, id uuid.UUID, name string) error {
				owner, _ := owners.LoadOrStore(id, uuid.Nil)
				return s.Tokens.Rename(ctx, owner.(uuid.UUID), id, name)
			}
		}},
		{"returns no error for a missing session that it renames", renameMissing, func(s *tokens) {
			s.rename = func(ctx context.Context, userID, id uuid.UUID, name string) error {
				return unless(s.Tokens.Rename(ctx, userID, id, name), strategy.ErrTokenNotFound)
			}
		}},
		{"reads a session, then writes it with another name", renameEnd, renamingBy(func(s *tokens, ctx context.Context, t token, name string) error {
			pause()
			_, _ = s.Tokens.Delete(ctx, t.Digest)
			t.Name = name
			return unless(s.Tokens.Insert(ctx, t), strategy.ErrDuplicateToken)
		})},
		{"renames despite a cancelled context", cancelled, func(s *tokens) {
			s.rename = func(ctx context.Context, userID, id uuid.UUID, name string) error {
				return s.Tokens.Rename(context.WithoutCancel(ctx), userID, id, name)
			}
		}},
		{"ignores the user of the session it deletes", anotherSession, func(s *tokens) {
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
		{"returns a session without deleting it", session, func(s *tokens) {
			s.deleteSession = func(ctx context.Context, userID, id uuid.UUID) (token, error) { return s.find(ctx, userID, id) }
		}},
		{"does not return the deleted session", session, func(s *tokens) {
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
		{"reads a session, then deletes it", sessionRace, func(s *tokens) {
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
			s.delayRotations()
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
			s.delayRotations()
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
		{"uses only the first exception", byUser, func(s *tokens) {
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) (int64, error) {
				return s.Tokens.DeleteByUser(ctx, userID, except[:min(1, len(except))]...)
			}
		}},
		{"does not count the deleted sessions", byUser, func(s *tokens) {
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) (int64, error) {
				_, err := s.Tokens.DeleteByUser(ctx, userID, except...)
				return 0, err
			}
		}},
		{"deletes the sessions of other users too", byUser, func(s *tokens) {
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
		{"returns an error if there is nothing to delete", byUser, func(s *tokens) {
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) (int64, error) {
				n, err := s.Tokens.DeleteByUser(ctx, userID, except...)
				if err == nil && n == 0 {
					err = strategy.ErrTokenNotFound
				}
				return n, err
			}
		}},

		{"touches despite a cancelled context", cancelled, func(s *tokens) {
			s.touch = func(ctx context.Context, digest string, at time.Time) error {
				return s.Tokens.Touch(context.WithoutCancel(ctx), digest, at)
			}
		}},
		{"rotates despite a cancelled context", cancelled, rotatingBy(func(s *tokens, ctx context.Context, digest string, to strategy.Rotation) (token, error) {
			return s.Tokens.Rotate(context.WithoutCancel(ctx), digest, to)
		})},
		{"lists despite a cancelled context", cancelled, func(s *tokens) {
			s.byUser = func(ctx context.Context, userID uuid.UUID, after strategy.Position, limit int) ([]token, error) {
				return s.Tokens.ByUser(context.WithoutCancel(ctx), userID, after, limit)
			}
		}},
		{"deletes sessions despite a cancelled context", cancelled, func(s *tokens) {
			s.deleteSession = func(ctx context.Context, userID, id uuid.UUID) (token, error) {
				return s.Tokens.DeleteSession(context.WithoutCancel(ctx), userID, id)
			}
		}},
		{"deletes a user's sessions despite a cancelled context", cancelled, func(s *tokens) {
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) (int64, error) {
				return s.Tokens.DeleteByUser(context.WithoutCancel(ctx), userID, except...)
			}
		}},
		{"inserts despite a cancelled context", cancelled, func(s *tokens) {
			s.insert = func(ctx context.Context, t token) error { return s.Tokens.Insert(context.WithoutCancel(ctx), t) }
		}},
		{"reads despite a cancelled context", cancelled, func(s *tokens) {
			s.byToken = func(ctx context.Context, digest string) (token, error) {
				return s.Tokens.ByToken(context.WithoutCancel(ctx), digest)
			}
		}},
		{"deletes despite a cancelled context", cancelled, func(s *tokens) {
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
