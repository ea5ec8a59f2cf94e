package storetest_test

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/storetest"
)

type oneTimeToken = account.OneTimeToken[uuid.UUID]

// byDigest is the type of Find and Take.
type byDigest = func(context.Context, account.Purpose, string) (oneTimeToken, error)

// oneTimeTokens is a store without a fault, until a test replaces one of its methods.
type oneTimeTokens struct {
	*memstore.OneTimeTokens[uuid.UUID]
	insert       func(context.Context, oneTimeToken, int) error
	find, take   byDigest
	deleteByUser func(context.Context, uuid.UUID, account.Purpose) error

	mu       sync.Mutex
	inserted map[string]oneTimeToken // all that were ever inserted, if a fault uses them
}

func newOneTimeTokens(testing.TB) *oneTimeTokens {
	good := memstore.NewOneTimeTokens[uuid.UUID]()
	return &oneTimeTokens{
		OneTimeTokens: good,
		insert:        good.Insert, find: good.Find, take: good.Take, deleteByUser: good.DeleteByUser,
		inserted: make(map[string]oneTimeToken),
	}
}

func (s *oneTimeTokens) Insert(ctx context.Context, t oneTimeToken, keep int) error {
	return s.insert(ctx, t, keep)
}
func (s *oneTimeTokens) Find(ctx context.Context, purpose account.Purpose, digest string) (oneTimeToken, error) {
	return s.find(ctx, purpose, digest)
}
func (s *oneTimeTokens) Take(ctx context.Context, purpose account.Purpose, digest string) (oneTimeToken, error) {
	return s.take(ctx, purpose, digest)
}
func (s *oneTimeTokens) DeleteByUser(ctx context.Context, userID uuid.UUID, purpose account.Purpose) error {
	return s.deleteByUser(ctx, userID, purpose)
}

// storing makes Insert change the token that it stores.
func storing(change func(*oneTimeToken)) func(*oneTimeTokens) {
	return func(s *oneTimeTokens) {
		s.insert = func(ctx context.Context, t oneTimeToken, keep int) error {
			change(&t)
			return s.OneTimeTokens.Insert(ctx, t, keep)
		}
	}
}

// reading makes Find and Take change the token that they return.
func reading(change func(*oneTimeToken)) func(*oneTimeTokens) {
	return func(s *oneTimeTokens) {
		changed := func(good byDigest) byDigest {
			return func(ctx context.Context, purpose account.Purpose, digest string) (oneTimeToken, error) {
				t, err := good(ctx, purpose, digest)
				if err == nil {
					change(&t)
				}
				return t, err
			}
		}
		s.find, s.take = changed(s.OneTimeTokens.Find), changed(s.OneTimeTokens.Take)
	}
}

// remembers keeps what Insert was given, so that a fault can look at more than the contract
// allows.
func (s *oneTimeTokens) remembers() {
	good := s.insert
	s.insert = func(ctx context.Context, t oneTimeToken, keep int) error {
		s.mu.Lock()
		s.inserted[t.Digest] = t
		s.mu.Unlock()
		return good(ctx, t, keep)
	}
}

// all returns the stored tokens that match, oldest first.
func (s *oneTimeTokens) all(ctx context.Context, match func(oneTimeToken) bool) []oneTimeToken {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []oneTimeToken
	for _, t := range s.inserted {
		if _, err := s.OneTimeTokens.Find(ctx, t.Purpose, t.Digest); err == nil && match(t) {
			found = append(found, t)
		}
	}
	slices.SortFunc(found, oldestFirst)
	return found
}

func oldestFirst(a, b oneTimeToken) int {
	return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.Digest, b.Digest))
}

// sameKind matches tokens of the same user and purpose.
func sameKind(t oneTimeToken) func(oneTimeToken) bool {
	return func(other oneTimeToken) bool { return other.UserID == t.UserID && other.Purpose == t.Purpose }
}

// trimming makes Insert store the token and then remove those that surplus returns of the
// tokens that match, oldest first.
func trimming(match func(t oneTimeToken) func(oneTimeToken) bool, surplus func(oldestFirst []oneTimeToken, t oneTimeToken, keep int) []oneTimeToken) func(*oneTimeTokens) {
	return func(s *oneTimeTokens) {
		s.insert = func(ctx context.Context, t oneTimeToken, keep int) error {
			if err := s.OneTimeTokens.Insert(ctx, t, 1000); err != nil {
				return err
			}
			for _, old := range surplus(s.all(ctx, match(t)), t, keep) {
				if _, err := s.OneTimeTokens.Take(ctx, old.Purpose, old.Digest); unless(err, account.ErrOneTimeTokenNotFound) != nil {
					return err
				}
			}
			return nil
		}
		s.remembers()
	}
}

// beyond returns the oldest tokens, so that keep remain.
func beyond(tokens []oneTimeToken, keep int) []oneTimeToken {
	return tokens[:max(0, len(tokens)-keep)]
}

func TestRunOneTimeTokensCatchesBrokenStores(t *testing.T) {
	const (
		roundTrip    = "every field is returned as it was stored"
		missing      = "a missing token is ErrOneTimeTokenNotFound"
		purposes     = "a token is found and taken for its own purpose only"
		findKeeps    = "a token can be found many times before it is taken"
		takeTwice    = "taking a token returns it once"
		takeRace     = "one of many concurrent calls of Take succeeds"
		stays        = "a removed token stays removed while other tokens are used"
		staysRace    = "a removed token stays removed under concurrent reads and inserts"
		expired      = "a token that has just expired is found and taken"
		duplicate    = "a taken digest is an error and changes nothing"
		keepsNewest  = "an insert keeps the newest tokens of the user and purpose"
		keepsOthers  = "an insert removes no token of another user or purpose"
		ahead        = "tokens that were created far ahead of a new one count as the oldest"
		insertRace   = "concurrent inserts leave the newest tokens"
		deleteByUser = "all tokens of a user and purpose are deleted, or of a user"
		cancelled    = "a cancelled context stops every method"
	)
	here := time.FixedZone("here", 7200)
	mustCatch(t, newOneTimeTokens, func(open func(testing.TB) *oneTimeTokens) storetest.Suite {
		return storetest.OneTimeTokens(uuid.New, func(t testing.TB) account.OneTimeTokenStore[uuid.UUID] { return open(t) })
	}, []broken[*oneTimeTokens]{
		{"forgets the milliseconds of the creation", roundTrip, storing(func(t *oneTimeToken) { t.CreatedAt = t.CreatedAt.Truncate(time.Second) })},
		{"forgets the milliseconds of the expiry", roundTrip, storing(func(t *oneTimeToken) { t.ExpiresAt = t.ExpiresAt.Truncate(time.Second) })},
		{"returns the creation in local time", roundTrip, reading(func(t *oneTimeToken) { t.CreatedAt = t.CreatedAt.In(here) })},
		{"returns the expiry in local time", roundTrip, reading(func(t *oneTimeToken) { t.ExpiresAt = t.ExpiresAt.In(here) })},
		{"reads the expiry in another zone", roundTrip, reading(func(t *oneTimeToken) { t.ExpiresAt = t.ExpiresAt.Add(2 * time.Hour) })},
		{"stores the token version as a float", roundTrip, storing(func(t *oneTimeToken) { t.TokenVersion = int64(float64(t.TokenVersion)) })},
		{"stores the token version in 32 bits", roundTrip, storing(func(t *oneTimeToken) { t.TokenVersion = int64(int32(t.TokenVersion)) })},
		{"begins token versions at 1", roundTrip, storing(func(t *oneTimeToken) { t.TokenVersion = max(1, t.TokenVersion) })},
		{"stores one address only", roundTrip, storing(func(t *oneTimeToken) { t.Email = t.SentTo })},
		{"confuses the addresses", roundTrip, storing(func(t *oneTimeToken) { t.Email, t.SentTo = t.SentTo, t.Email })},
		{"stores addresses in lower case", roundTrip, storing(func(t *oneTimeToken) { t.SentTo = strings.ToLower(t.SentTo) })},
		{"loses the user", roundTrip, reading(func(t *oneTimeToken) { t.UserID = uuid.Nil })},
		{"stores the purpose in lower case", roundTrip, storing(func(t *oneTimeToken) { t.Purpose = account.Purpose(strings.ToLower(string(t.Purpose))) })},
		{"has one token only", roundTrip, func(s *oneTimeTokens) {
			s.insert = func(ctx context.Context, t oneTimeToken, keep int) error {
				s.mu.Lock()
				defer s.mu.Unlock()
				for _, old := range s.inserted {
					_, _ = s.OneTimeTokens.Take(ctx, old.Purpose, old.Digest)
				}
				s.inserted = map[string]oneTimeToken{t.Digest: t}
				return s.OneTimeTokens.Insert(ctx, t, keep)
			}
		}},

		{"finds an empty token instead of none", missing, func(s *oneTimeTokens) {
			s.find = func(ctx context.Context, purpose account.Purpose, digest string) (oneTimeToken, error) {
				t, err := s.OneTimeTokens.Find(ctx, purpose, digest)
				return t, unless(err, account.ErrOneTimeTokenNotFound)
			}
		}},
		{"takes an empty token instead of none", missing, func(s *oneTimeTokens) {
			s.take = func(ctx context.Context, purpose account.Purpose, digest string) (oneTimeToken, error) {
				t, err := s.OneTimeTokens.Take(ctx, purpose, digest)
				return t, unless(err, account.ErrOneTimeTokenNotFound)
			}
		}},
		{"has an error of its own for a missing token", missing, func(s *oneTimeTokens) {
			s.take = func(ctx context.Context, purpose account.Purpose, digest string) (oneTimeToken, error) {
				t, err := s.OneTimeTokens.Take(ctx, purpose, digest)
				if errors.Is(err, account.ErrOneTimeTokenNotFound) {
					err = errors.New("no rows")
				}
				return t, err
			}
		}},
		{"ignores the case of digests", missing, func(s *oneTimeTokens) {
			s.remembers()
			s.find = func(ctx context.Context, purpose account.Purpose, digest string) (oneTimeToken, error) {
				for _, t := range s.all(ctx, func(t oneTimeToken) bool { return strings.EqualFold(t.Digest, digest) }) {
					digest = t.Digest
				}
				return s.OneTimeTokens.Find(ctx, purpose, digest)
			}
		}},

		{"finds tokens of any purpose", purposes, func(s *oneTimeTokens) { s.remembers(); s.find = s.anyPurpose(s.OneTimeTokens.Find) }},
		{"takes tokens of any purpose", purposes, func(s *oneTimeTokens) { s.remembers(); s.take = s.anyPurpose(s.OneTimeTokens.Take) }},
		{"removes a token of another purpose that it does not return", purposes, func(s *oneTimeTokens) {
			s.remembers()
			any := s.anyPurpose(s.OneTimeTokens.Take)
			s.take = func(ctx context.Context, purpose account.Purpose, digest string) (oneTimeToken, error) {
				t, err := any(ctx, purpose, digest)
				if err == nil && t.Purpose != purpose {
					return oneTimeToken{}, account.ErrOneTimeTokenNotFound
				}
				return t, err
			}
		}},
		{"takes an empty purpose for every purpose", purposes, func(s *oneTimeTokens) {
			s.remembers()
			any := s.anyPurpose(s.OneTimeTokens.Find)
			s.find = func(ctx context.Context, purpose account.Purpose, digest string) (oneTimeToken, error) {
				if purpose == "" {
					return any(ctx, purpose, digest)
				}
				return s.OneTimeTokens.Find(ctx, purpose, digest)
			}
		}},

		{"removes a token when it finds it", findKeeps, func(s *oneTimeTokens) { s.find = s.OneTimeTokens.Take }},
		{"does not remove a token that it takes", takeTwice, func(s *oneTimeTokens) { s.take = s.OneTimeTokens.Find }},
		{"returns an empty token when it takes one", takeTwice, func(s *oneTimeTokens) {
			s.take = func(ctx context.Context, purpose account.Purpose, digest string) (oneTimeToken, error) {
				_, err := s.OneTimeTokens.Take(ctx, purpose, digest)
				return oneTimeToken{}, err
			}
		}},
		{"removes every token when it takes one", takeTwice, func(s *oneTimeTokens) {
			s.remembers()
			s.take = func(ctx context.Context, purpose account.Purpose, digest string) (oneTimeToken, error) {
				t, err := s.OneTimeTokens.Take(ctx, purpose, digest)
				if err == nil {
					for _, other := range s.all(ctx, func(oneTimeToken) bool { return true }) {
						_, _ = s.OneTimeTokens.Take(ctx, other.Purpose, other.Digest)
					}
				}
				return t, err
			}
		}},
		{"finds and removes in two steps", takeRace, func(s *oneTimeTokens) {
			s.take = func(ctx context.Context, purpose account.Purpose, digest string) (oneTimeToken, error) {
				t, err := s.OneTimeTokens.Find(ctx, purpose, digest)
				if err != nil {
					return t, err
				}
				pause()
				_, err = s.OneTimeTokens.Take(ctx, purpose, digest)
				return t, unless(err, account.ErrOneTimeTokenNotFound)
			}
		}},
		{"fails where another call was faster", takeRace, func(s *oneTimeTokens) {
			s.take = func(ctx context.Context, purpose account.Purpose, digest string) (oneTimeToken, error) {
				t, err := s.OneTimeTokens.Find(ctx, purpose, digest)
				if err != nil {
					return t, err
				}
				pause()
				if t, err = s.OneTimeTokens.Take(ctx, purpose, digest); err != nil {
					err = errors.New("write conflict")
				}
				return t, err
			}
		}},

		{"writes all of the user's tokens back with a new one", stays, func(s *oneTimeTokens) {
			s.insert = func(ctx context.Context, t oneTimeToken, keep int) error {
				s.mu.Lock()
				before := slices.Collect(maps.Values(s.inserted))
				s.mu.Unlock()
				for _, old := range before {
					if sameKind(t)(old) && keep > 1 && old.Digest != t.Digest {
						_ = s.OneTimeTokens.Insert(ctx, old, keep)
					}
				}
				return s.OneTimeTokens.Insert(ctx, t, keep)
			}
			s.remembers()
		}},
		{"writes back what it has found", staysRace, func(s *oneTimeTokens) {
			s.find = func(ctx context.Context, purpose account.Purpose, digest string) (oneTimeToken, error) {
				t, err := s.OneTimeTokens.Find(ctx, purpose, digest)
				if err == nil {
					pause()
					_, _ = s.OneTimeTokens.Take(ctx, purpose, digest)
					_ = s.OneTimeTokens.Insert(ctx, t, 1000)
				}
				return t, err
			}
			s.take = func(ctx context.Context, purpose account.Purpose, digest string) (oneTimeToken, error) {
				time.Sleep(time.Millisecond / 2)
				return s.OneTimeTokens.Take(ctx, purpose, digest)
			}
		}},

		{"does not find expired tokens", expired, func(s *oneTimeTokens) { s.find = unexpired(s.OneTimeTokens.Find, s.OneTimeTokens.Find) }},
		{"does not take expired tokens", expired, func(s *oneTimeTokens) { s.take = unexpired(s.OneTimeTokens.Find, s.OneTimeTokens.Take) }},
		{"does not store expired tokens", expired, func(s *oneTimeTokens) {
			s.insert = func(ctx context.Context, t oneTimeToken, keep int) error {
				if !t.ExpiresAt.After(time.Now()) {
					return ctx.Err()
				}
				return s.OneTimeTokens.Insert(ctx, t, keep)
			}
		}},

		{"overwrites a token with the same digest", duplicate, func(s *oneTimeTokens) {
			s.insert = func(ctx context.Context, t oneTimeToken, keep int) error {
				s.mu.Lock()
				old := s.inserted[t.Digest]
				s.mu.Unlock()
				_, _ = s.OneTimeTokens.Take(ctx, old.Purpose, old.Digest)
				return s.OneTimeTokens.Insert(ctx, t, keep)
			}
			good := s.insert
			s.insert = func(ctx context.Context, t oneTimeToken, keep int) error {
				err := good(ctx, t, keep)
				s.mu.Lock()
				defer s.mu.Unlock()
				s.inserted[t.Digest] = t
				return err
			}
		}},
		{"ignores a token with a taken digest", duplicate, func(s *oneTimeTokens) {
			s.insert = func(ctx context.Context, t oneTimeToken, keep int) error {
				s.mu.Lock()
				_, taken := s.inserted[t.Digest]
				s.inserted[t.Digest] = t
				s.mu.Unlock()
				if taken {
					return ctx.Err()
				}
				return s.OneTimeTokens.Insert(ctx, t, keep)
			}
		}},
		{"removes the oldest tokens although the digest is taken", duplicate, func(s *oneTimeTokens) {
			s.insert = func(ctx context.Context, t oneTimeToken, keep int) error {
				err := s.OneTimeTokens.Insert(ctx, t, keep)
				if err != nil && ctx.Err() == nil {
					for _, old := range beyond(s.all(ctx, sameKind(t)), keep) {
						_, _ = s.OneTimeTokens.Take(ctx, old.Purpose, old.Digest)
					}
				}
				return err
			}
			s.remembers()
		}},

		{"keeps one too many", keepsNewest, func(s *oneTimeTokens) {
			s.insert = func(ctx context.Context, t oneTimeToken, keep int) error {
				return s.OneTimeTokens.Insert(ctx, t, keep+1)
			}
		}},
		{"keeps one too few", keepsNewest, func(s *oneTimeTokens) {
			s.insert = func(ctx context.Context, t oneTimeToken, keep int) error {
				return s.OneTimeTokens.Insert(ctx, t, max(1, keep-1))
			}
		}},
		{"keeps all", keepsNewest, func(s *oneTimeTokens) {
			s.insert = func(ctx context.Context, t oneTimeToken, _ int) error { return s.OneTimeTokens.Insert(ctx, t, 1000) }
		}},
		{"keeps the oldest", keepsNewest, trimming(sameKind, func(tokens []oneTimeToken, _ oneTimeToken, keep int) []oneTimeToken {
			return tokens[min(keep, len(tokens)):]
		})},
		{"keeps those that expire last", keepsNewest, trimming(sameKind, func(tokens []oneTimeToken, _ oneTimeToken, keep int) []oneTimeToken {
			slices.SortStableFunc(tokens, func(a, b oneTimeToken) int { return a.ExpiresAt.Compare(b.ExpiresAt) })
			return beyond(tokens, keep)
		})},
		{"orders tokens of one time in another way", keepsNewest, trimming(sameKind, func(tokens []oneTimeToken, _ oneTimeToken, keep int) []oneTimeToken {
			slices.SortFunc(tokens, func(a, b oneTimeToken) int {
				return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(b.Digest, a.Digest))
			})
			return beyond(tokens, keep)
		})},
		{"always keeps the new token", keepsNewest, trimming(sameKind, func(tokens []oneTimeToken, t oneTimeToken, keep int) []oneTimeToken {
			others := slices.DeleteFunc(tokens, func(other oneTimeToken) bool { return other.Digest == t.Digest })
			return beyond(others, keep-1)
		})},
		{"removes one token at most", keepsNewest, trimming(sameKind, func(tokens []oneTimeToken, _ oneTimeToken, keep int) []oneTimeToken {
			old := beyond(tokens, keep)
			return old[:min(1, len(old))]
		})},

		{"limits all tokens of a purpose", keepsOthers, trimming(
			func(t oneTimeToken) func(oneTimeToken) bool {
				return func(other oneTimeToken) bool { return other.Purpose == t.Purpose }
			},
			func(tokens []oneTimeToken, _ oneTimeToken, keep int) []oneTimeToken { return beyond(tokens, keep) })},
		{"limits all tokens of a user", keepsOthers, trimming(
			func(t oneTimeToken) func(oneTimeToken) bool {
				return func(other oneTimeToken) bool { return other.UserID == t.UserID }
			},
			func(tokens []oneTimeToken, _ oneTimeToken, keep int) []oneTimeToken { return beyond(tokens, keep) })},

		{"believes every clock", ahead, trimming(sameKind, func(tokens []oneTimeToken, _ oneTimeToken, keep int) []oneTimeToken {
			return beyond(tokens, keep)
		})},
		{"believes no clock but that of the new token", ahead, trimming(sameKind, func(tokens []oneTimeToken, t oneTimeToken, keep int) []oneTimeToken {
			slices.SortStableFunc(tokens, func(a, b oneTimeToken) int {
				// Those that are ahead come first.
				return -cmp.Compare(max(0, a.CreatedAt.Sub(t.CreatedAt)), max(0, b.CreatedAt.Sub(t.CreatedAt)))
			})
			return beyond(tokens, keep)
		})},
		{"removes all tokens from the future", ahead, trimming(sameKind, func(tokens []oneTimeToken, t oneTimeToken, keep int) []oneTimeToken {
			var old []oneTimeToken
			for _, other := range tokens {
				if other.CreatedAt.Sub(t.CreatedAt) > 10*time.Second {
					old = append(old, other)
				}
			}
			return append(old, beyond(tokens[:len(tokens)-len(old)], keep)...)
		})},

		{"counts before it inserts", insertRace, func(s *oneTimeTokens) {
			s.insert = func(ctx context.Context, t oneTimeToken, keep int) error {
				before := s.all(ctx, sameKind(t))
				pause()
				for _, old := range beyond(before, keep-1) {
					if oldestFirst(old, t) < 0 {
						_, _ = s.OneTimeTokens.Take(ctx, old.Purpose, old.Digest)
					}
				}
				return s.OneTimeTokens.Insert(ctx, t, 1000)
			}
			s.remembers()
		}},
		{"removes every older token that it sees", insertRace, func(s *oneTimeTokens) {
			s.insert = func(ctx context.Context, t oneTimeToken, keep int) error {
				err := s.OneTimeTokens.Insert(ctx, t, 1000)
				n := len(s.all(ctx, sameKind(t)))
				pause()
				// It removes as many as were too many, though others removed some meanwhile.
				now := s.all(ctx, sameKind(t))
				for _, old := range now[:min(len(now), max(0, n-keep))] {
					_, _ = s.OneTimeTokens.Take(ctx, old.Purpose, old.Digest)
				}
				return err
			}
			s.remembers()
		}},

		{"deletes the tokens of every purpose", deleteByUser, func(s *oneTimeTokens) {
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID, _ account.Purpose) error {
				return s.OneTimeTokens.DeleteByUser(ctx, userID, "")
			}
		}},
		{"deletes no tokens without a purpose", deleteByUser, func(s *oneTimeTokens) {
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID, purpose account.Purpose) error {
				return s.OneTimeTokens.DeleteByUser(ctx, userID, cmp.Or(purpose, "none"))
			}
		}},
		{"deletes the tokens of the known purposes only", deleteByUser, func(s *oneTimeTokens) {
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID, purpose account.Purpose) error {
				if purpose != "" {
					return s.OneTimeTokens.DeleteByUser(ctx, userID, purpose)
				}
				return errors.Join(
					s.OneTimeTokens.DeleteByUser(ctx, userID, account.PurposeVerification),
					s.OneTimeTokens.DeleteByUser(ctx, userID, account.PurposePasswordReset),
					s.OneTimeTokens.DeleteByUser(ctx, userID, account.PurposeEmailChange))
			}
		}},
		{"deletes the tokens of every user", deleteByUser, func(s *oneTimeTokens) {
			s.remembers()
			s.deleteByUser = func(ctx context.Context, _ uuid.UUID, purpose account.Purpose) error {
				for _, t := range s.all(ctx, func(t oneTimeToken) bool { return purpose == "" || t.Purpose == purpose }) {
					_, _ = s.OneTimeTokens.Take(ctx, t.Purpose, t.Digest)
				}
				return ctx.Err()
			}
		}},
		{"deletes one token at a time", deleteByUser, func(s *oneTimeTokens) {
			s.remembers()
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID, purpose account.Purpose) error {
				for _, t := range s.all(ctx, sameKind(oneTimeToken{UserID: userID, Purpose: purpose})) {
					_, err := s.OneTimeTokens.Take(ctx, t.Purpose, t.Digest)
					return err
				}
				return ctx.Err()
			}
		}},
		{"fails if there is nothing to delete", deleteByUser, func(s *oneTimeTokens) {
			s.remembers()
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID, purpose account.Purpose) error {
				if len(s.all(ctx, func(t oneTimeToken) bool { return t.UserID == userID })) == 0 {
					return account.ErrOneTimeTokenNotFound
				}
				return s.OneTimeTokens.DeleteByUser(ctx, userID, purpose)
			}
		}},

		{"inserts despite a cancelled context", cancelled, func(s *oneTimeTokens) {
			s.insert = func(ctx context.Context, t oneTimeToken, keep int) error {
				return s.OneTimeTokens.Insert(context.WithoutCancel(ctx), t, keep)
			}
		}},
		{"inserts, and then notices that the context is cancelled", cancelled, func(s *oneTimeTokens) {
			s.insert = func(ctx context.Context, t oneTimeToken, keep int) error {
				return cmp.Or(s.OneTimeTokens.Insert(context.WithoutCancel(ctx), t, keep), ctx.Err())
			}
		}},
		{"finds despite a cancelled context", cancelled, func(s *oneTimeTokens) {
			s.find = func(ctx context.Context, purpose account.Purpose, digest string) (oneTimeToken, error) {
				return s.OneTimeTokens.Find(context.WithoutCancel(ctx), purpose, digest)
			}
		}},
		{"takes despite a cancelled context", cancelled, func(s *oneTimeTokens) {
			s.take = func(ctx context.Context, purpose account.Purpose, digest string) (oneTimeToken, error) {
				return s.OneTimeTokens.Take(context.WithoutCancel(ctx), purpose, digest)
			}
		}},
		{"deletes despite a cancelled context", cancelled, func(s *oneTimeTokens) {
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID, purpose account.Purpose) error {
				return s.OneTimeTokens.DeleteByUser(context.WithoutCancel(ctx), userID, purpose)
			}
		}},
		{"hides the context's error", cancelled, func(s *oneTimeTokens) {
			s.take = func(ctx context.Context, purpose account.Purpose, digest string) (oneTimeToken, error) {
				if ctx.Err() != nil {
					return oneTimeToken{}, errors.New("connection pool was cleared")
				}
				return s.OneTimeTokens.Take(ctx, purpose, digest)
			}
		}},
	})
}

// anyPurpose makes a method of the good store ignore the purpose.
func (s *oneTimeTokens) anyPurpose(good byDigest) byDigest {
	return func(ctx context.Context, purpose account.Purpose, digest string) (oneTimeToken, error) {
		s.mu.Lock()
		t, ok := s.inserted[digest]
		s.mu.Unlock()
		if ok {
			purpose = t.Purpose
		}
		return good(ctx, purpose, digest)
	}
}

// unexpired makes a method of the good store hide expired tokens.
func unexpired(find, good byDigest) byDigest {
	return func(ctx context.Context, purpose account.Purpose, digest string) (oneTimeToken, error) {
		if t, err := find(ctx, purpose, digest); err == nil && !t.ExpiresAt.After(time.Now()) {
			return oneTimeToken{}, account.ErrOneTimeTokenNotFound
		}
		return good(ctx, purpose, digest)
	}
}
