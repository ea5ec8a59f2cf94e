package storetest_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/storetest"
)

type oneTime = account.OneTimeToken[uuid.UUID]

// oneTimes is a store without a fault, until a test replaces one of its methods.
type oneTimes struct {
	*memstore.OneTimeTokens[uuid.UUID]
	insert       func(ctx context.Context, token oneTime, keep int) error
	find, take   func(ctx context.Context, purpose account.Purpose, digest string) (oneTime, error)
	deleteByUser func(ctx context.Context, userID uuid.UUID, purpose account.Purpose) error
}

func newOneTimes(testing.TB) *oneTimes {
	good := memstore.NewOneTimeTokens[uuid.UUID]()
	return &oneTimes{good, good.Insert, good.Find, good.Take, good.DeleteByUser}
}

func (s *oneTimes) Insert(ctx context.Context, token oneTime, keep int) error {
	return s.insert(ctx, token, keep)
}
func (s *oneTimes) Find(ctx context.Context, purpose account.Purpose, digest string) (oneTime, error) {
	return s.find(ctx, purpose, digest)
}
func (s *oneTimes) Take(ctx context.Context, purpose account.Purpose, digest string) (oneTime, error) {
	return s.take(ctx, purpose, digest)
}
func (s *oneTimes) DeleteByUser(ctx context.Context, userID uuid.UUID, purpose account.Purpose) error {
	return s.deleteByUser(ctx, userID, purpose)
}

// finding makes Find change the tokens that it returns.
func finding(change func(*oneTime)) func(*oneTimes) {
	return func(s *oneTimes) {
		s.find = func(ctx context.Context, purpose account.Purpose, digest string) (oneTime, error) {
			t, err := s.OneTimeTokens.Find(ctx, purpose, digest)
			if err == nil {
				change(&t)
			}
			return t, err
		}
	}
}

// anyPurpose looks a digest up under each purpose.
func anyPurpose(find func(context.Context, account.Purpose, string) (oneTime, error)) func(context.Context, account.Purpose, string) (oneTime, error) {
	return func(ctx context.Context, _ account.Purpose, digest string) (t oneTime, err error) {
		for _, purpose := range []account.Purpose{account.PurposeVerification, account.PurposePasswordReset, account.PurposeEmailChange} {
			if t, err = find(ctx, purpose, digest); err == nil {
				break
			}
		}
		return t, err
	}
}

func TestRunOneTimeTokensCatchesBrokenStores(t *testing.T) {
	const (
		roundTrip = "a token is found as it was inserted"
		missing   = "a missing token is ErrOneTimeTokenNotFound"
		purpose   = "a token is of one purpose only"
		find      = "finding keeps the token"
		take      = "taking returns the token and deletes it"
		race      = "one of many concurrent takes succeeds"
		keep      = "inserting deletes the oldest of the user and purpose"
		keepRace  = "concurrent inserts leave no more than they keep"
		byUser    = "deleting by user deletes one purpose or all"
		cancelled = "a cancelled context stops every method"
	)
	background := context.Background()
	mustCatch(t, newOneTimes, func(open func(testing.TB) *oneTimes) storetest.Suite {
		return storetest.OneTimeTokens(uuid.New, func(t testing.TB) account.OneTimeTokenStore[uuid.UUID] { return open(t) })
	}, []broken[*oneTimes]{
		{"loses the address that the token was sent to", roundTrip, finding(func(t *oneTime) { t.SentTo = t.Email })},
		{"loses the account's address", roundTrip, finding(func(t *oneTime) { t.Email = t.SentTo })},
		{"loses the token version", roundTrip, finding(func(t *oneTime) { t.TokenVersion = int64(int32(t.TokenVersion)) })},
		{"loses the milliseconds of the expiry", roundTrip, finding(func(t *oneTime) { t.ExpiresAt = t.ExpiresAt.Truncate(time.Second) })},
		{"returns local times", roundTrip, finding(func(t *oneTime) { t.CreatedAt = t.CreatedAt.In(time.FixedZone("", 3600)) })},
		{"loses the user", roundTrip, finding(func(t *oneTime) { t.UserID = uuid.Nil })},
		{"does not find expired tokens", roundTrip, func(s *oneTimes) {
			s.find = func(ctx context.Context, purpose account.Purpose, digest string) (oneTime, error) {
				t, err := s.OneTimeTokens.Find(ctx, purpose, digest)
				if err == nil && !t.ExpiresAt.After(t.CreatedAt) {
					return oneTime{}, account.ErrOneTimeTokenNotFound
				}
				return t, err
			}
		}},
		{"returns the zero token for a missing one", missing, func(s *oneTimes) {
			s.find = func(ctx context.Context, purpose account.Purpose, digest string) (oneTime, error) {
				t, err := s.OneTimeTokens.Find(ctx, purpose, digest)
				return t, unless(err, account.ErrOneTimeTokenNotFound)
			}
		}},
		{"finds tokens of other purposes", purpose, func(s *oneTimes) { s.find = anyPurpose(s.OneTimeTokens.Find) }},
		{"takes tokens of other purposes", purpose, func(s *oneTimes) { s.take = anyPurpose(s.OneTimeTokens.Take) }},
		{"deletes a token when it finds it", find, func(s *oneTimes) { s.find = s.OneTimeTokens.Take }},
		{"does not delete a token when it takes it", take, func(s *oneTimes) { s.take = s.OneTimeTokens.Find }},
		{"takes in two steps", race, func(s *oneTimes) {
			s.take = func(ctx context.Context, purpose account.Purpose, digest string) (oneTime, error) {
				t, err := s.OneTimeTokens.Find(ctx, purpose, digest)
				if err == nil {
					pause()
					_, err = s.OneTimeTokens.Take(ctx, purpose, digest)
				}
				return t, unless(err, account.ErrOneTimeTokenNotFound)
			}
		}},
		{"keeps one too many", keep, func(s *oneTimes) {
			s.insert = func(ctx context.Context, token oneTime, keep int) error {
				return s.OneTimeTokens.Insert(ctx, token, keep+1)
			}
		}},
		{"keeps one too few", keep, func(s *oneTimes) {
			s.insert = func(ctx context.Context, token oneTime, keep int) error {
				return s.OneTimeTokens.Insert(ctx, token, max(1, keep-1))
			}
		}},
		{"deletes the tokens of other purposes", keep, func(s *oneTimes) {
			s.insert = func(ctx context.Context, token oneTime, keep int) error {
				for _, p := range []account.Purpose{account.PurposeVerification, account.PurposePasswordReset} {
					if p != token.Purpose {
						_ = s.OneTimeTokens.DeleteByUser(ctx, token.UserID, p)
					}
				}
				return s.OneTimeTokens.Insert(ctx, token, keep)
			}
		}},
		{"counts before it inserts", keepRace, func(s *oneTimes) {
			var mu sync.Mutex
			counts := make(map[uuid.UUID]int)
			s.insert = func(ctx context.Context, token oneTime, keep int) error {
				mu.Lock()
				full := counts[token.UserID] >= keep
				mu.Unlock()
				if full {
					return s.OneTimeTokens.Insert(ctx, token, keep)
				}
				pause()
				mu.Lock()
				counts[token.UserID]++
				mu.Unlock()
				return s.OneTimeTokens.Insert(ctx, token, 100)
			}
		}},
		{"ignores the purpose of a delete", byUser, func(s *oneTimes) {
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID, _ account.Purpose) error {
				return s.OneTimeTokens.DeleteByUser(ctx, userID, "")
			}
		}},
		{"takes no purpose for a purpose", byUser, func(s *oneTimes) {
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID, purpose account.Purpose) error {
				if purpose == "" {
					return nil
				}
				return s.OneTimeTokens.DeleteByUser(ctx, userID, purpose)
			}
		}},
		{"inserts in spite of a cancelled context", cancelled, func(s *oneTimes) {
			s.insert = func(_ context.Context, token oneTime, keep int) error {
				return s.OneTimeTokens.Insert(background, token, keep)
			}
		}},
		{"takes in spite of a cancelled context", cancelled, func(s *oneTimes) {
			s.take = func(_ context.Context, purpose account.Purpose, digest string) (oneTime, error) {
				return s.OneTimeTokens.Take(background, purpose, digest)
			}
		}},
	})
}
