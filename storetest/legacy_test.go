package storetest_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	format "github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/storetest"
	"github.com/latchkey-go/latchkey/strategy"
)

// legacy is a store without a fault, until a test replaces a method. It keeps legacy tokens
// among the others, by their digests.
type legacy struct {
	*memstore.Tokens[uuid.UUID]
	is            func(token string) bool
	find          func(ctx context.Context, token string) (token, error)
	rotate        func(ctx context.Context, token string, to strategy.Rotation) (token, error)
	remove        func(ctx context.Context, token string) (token, error)
	byUser        func(ctx context.Context, userID uuid.UUID, after strategy.Position, limit int) ([]token, error)
	deleteSession func(ctx context.Context, userID, id uuid.UUID) (token, error)
	deleteByUser  func(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) (int64, error)
}

const legacyPrefix = "legacy-"

func newLegacy(testing.TB) *legacy {
	s := &legacy{Tokens: memstore.NewTokens[uuid.UUID]()}
	s.is = func(token string) bool { return strings.HasPrefix(token, legacyPrefix) }
	s.find = func(ctx context.Context, secret string) (token, error) {
		return s.Tokens.ByToken(ctx, format.DigestOf(secret))
	}
	s.rotate = func(ctx context.Context, secret string, to strategy.Rotation) (token, error) {
		row, err := s.Tokens.Delete(ctx, format.DigestOf(secret)) // one of several succeeds
		if err != nil {
			return row, err
		}
		row.Legacy, row.Digest, row.TokenVersion = false, to.Digest, to.TokenVersion
		if !to.AuthenticatedAt.IsZero() {
			row.AuthenticatedAt = to.AuthenticatedAt
		}
		return row, s.Tokens.Insert(ctx, row)
	}
	s.remove = func(ctx context.Context, secret string) (token, error) {
		return s.Tokens.Delete(ctx, format.DigestOf(secret))
	}
	s.byUser, s.deleteSession, s.deleteByUser = s.Tokens.ByUser, s.Tokens.DeleteSession, s.Tokens.DeleteByUser
	return s
}

func (s *legacy) Legacy(token string) bool { return s.is(token) }
func (s *legacy) ByLegacyToken(ctx context.Context, secret string) (token, error) {
	return s.find(ctx, secret)
}
func (s *legacy) RotateLegacyToken(ctx context.Context, secret string, to strategy.Rotation) (token, error) {
	return s.rotate(ctx, secret, to)
}
func (s *legacy) DeleteLegacyToken(ctx context.Context, secret string) (token, error) {
	return s.remove(ctx, secret)
}
func (s *legacy) ByUser(ctx context.Context, userID uuid.UUID, after strategy.Position, limit int) ([]token, error) {
	return s.byUser(ctx, userID, after, limit)
}
func (s *legacy) DeleteSession(ctx context.Context, userID, id uuid.UUID) (token, error) {
	return s.deleteSession(ctx, userID, id)
}
func (s *legacy) DeleteByUser(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) (int64, error) {
	return s.deleteByUser(ctx, userID, except...)
}

// issue issues a legacy token.
func (s *legacy) issue(ctx context.Context, userID uuid.UUID, createdAt time.Time) (string, error) {
	secret := legacyPrefix + uuid.NewString()
	return secret, s.Insert(ctx, token{ID: uuid.Must(uuid.NewV7()), Digest: format.DigestOf(secret), UserID: userID, CreatedAt: createdAt, Legacy: true})
}

func TestRunLegacyCatchesBrokenStores(t *testing.T) {
	const (
		formats    = "the format of legacy tokens is not that of other tokens"
		found      = "a legacy token is found as it was issued"
		unknown    = "an unknown legacy token is not found"
		listed     = "a user's legacy tokens are listed among the others"
		deleted    = "a legacy token that was deleted is gone"
		byUser     = "the sessions of a user end except those that are kept"
		rotated    = "a rotation makes a legacy session one of Latchkey's"
		race       = "one of several concurrent rotations of a legacy token succeeds"
		deleteRace = "a deleted legacy token does not come back"
		cancelled  = "a cancelled context stops calls for legacy tokens"
	)
	// finding changes the row that ByLegacyToken returns.
	finding := func(change func(*token)) func(*legacy) {
		return func(s *legacy) {
			good := s.find
			s.find = func(ctx context.Context, secret string) (token, error) {
				row, err := good(ctx, secret)
				change(&row)
				return row, err
			}
		}
	}
	// rotating changes the row before a rotation stores it.
	rotating := func(change func(*token)) func(*legacy) {
		return func(s *legacy) {
			good := s.rotate
			s.rotate = func(ctx context.Context, secret string, to strategy.Rotation) (token, error) {
				row, err := good(ctx, secret, to)
				if err != nil {
					return row, err
				}
				_, _ = s.Tokens.Delete(ctx, to.Digest)
				change(&row)
				return row, s.Insert(ctx, row)
			}
		}
	}
	mustCatch(t, newLegacy, func(open func(testing.TB) *legacy) storetest.Suite {
		return storetest.Legacy(uuid.New, func(t testing.TB) (strategy.LegacyStore[uuid.UUID], storetest.Issue[uuid.UUID]) {
			s := open(t)
			return s, s.issue
		})
	}, []broken[*legacy]{
		{"takes every string for a legacy token", formats, func(s *legacy) { s.is = func(string) bool { return true } }},
		{"takes no string for a legacy token", formats, func(s *legacy) { s.is = func(string) bool { return false } }},
		{"returns rows that are not legacy", found, finding(func(row *token) { row.Legacy = false })},
		{"returns rows of another user", found, finding(func(row *token) { row.UserID = uuid.Max })},
		{"rounds the creation time", found, finding(func(row *token) { row.CreatedAt = row.CreatedAt.Truncate(time.Second) })},
		{"returns the token as its digest", found, finding(func(row *token) { row.Digest = "secret" })},
		{"makes a new session ID for each read", found, finding(func(row *token) { row.ID = uuid.New() })},
		{"finds any token", unknown, func(s *legacy) {
			s.find = func(context.Context, string) (token, error) { return token{Legacy: true}, nil }
		}},
		{"deletes unknown tokens with success", unknown, func(s *legacy) {
			s.remove = func(ctx context.Context, secret string) (token, error) {
				row, _ := s.Tokens.Delete(ctx, format.DigestOf(secret))
				return row, ctx.Err()
			}
		}},
		{"lists no legacy tokens", listed, func(s *legacy) {
			s.byUser = func(ctx context.Context, userID uuid.UUID, after strategy.Position, limit int) ([]token, error) {
				rows, err := s.Tokens.ByUser(ctx, userID, after, 1000)
				rows = slices.DeleteFunc(rows, func(row token) bool { return row.Legacy })
				return rows[:min(limit, len(rows))], err
			}
		}},
		{"lists legacy tokens on every page", listed, func(s *legacy) {
			s.byUser = func(ctx context.Context, userID uuid.UUID, after strategy.Position, limit int) ([]token, error) {
				rows, err := s.Tokens.ByUser(ctx, userID, after, limit)
				if all, _ := s.Tokens.ByUser(ctx, userID, strategy.Position{}, 1); len(rows) < limit {
					rows = append(rows, all...)
				}
				return rows, err
			}
		}},
		{"keeps the row of a deleted token", deleted, func(s *legacy) {
			s.remove = func(ctx context.Context, secret string) (token, error) {
				return s.Tokens.ByToken(ctx, format.DigestOf(secret))
			}
		}},
		{"ends no legacy session by its ID", deleted, func(s *legacy) {
			s.deleteSession = func(ctx context.Context, userID, id uuid.UUID) (token, error) {
				return token{}, strategy.ErrTokenNotFound
			}
		}},
		{"ends sessions of other users", deleted, func(s *legacy) {
			owners := make(map[uuid.UUID]uuid.UUID)
			s.byUser = func(ctx context.Context, userID uuid.UUID, after strategy.Position, limit int) ([]token, error) {
				rows, err := s.Tokens.ByUser(ctx, userID, after, limit)
				for _, row := range rows {
					owners[row.ID] = row.UserID
				}
				return rows, err
			}
			s.deleteSession = func(ctx context.Context, _, id uuid.UUID) (token, error) {
				return s.Tokens.DeleteSession(ctx, owners[id], id)
			}
		}},
		{"ends the kept sessions too", byUser, func(s *legacy) {
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID, _ ...uuid.UUID) (int64, error) {
				return s.Tokens.DeleteByUser(ctx, userID)
			}
		}},
		{"leaves legacy sessions", byUser, func(s *legacy) {
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) (int64, error) {
				rows, _ := s.Tokens.ByUser(ctx, userID, strategy.Position{}, 1000)
				for _, row := range rows {
					if row.Legacy {
						except = append(except, row.ID)
					}
				}
				return s.Tokens.DeleteByUser(ctx, userID, except...)
			}
		}},
		{"leaves a rotated session legacy", rotated, rotating(func(row *token) { row.Legacy = true })},
		{"gives a rotated session another ID", rotated, rotating(func(row *token) { row.ID = uuid.New() })},
		{"renews a rotated session", rotated, rotating(func(row *token) { row.CreatedAt = row.CreatedAt.Add(time.Hour) })},
		{"drops the token version of a rotation", rotated, rotating(func(row *token) { row.TokenVersion = 0 })},
		{"rotates a token twice", race, func(s *legacy) {
			s.rotate = func(ctx context.Context, secret string, to strategy.Rotation) (token, error) {
				row, err := s.Tokens.ByToken(ctx, format.DigestOf(secret))
				if err != nil {
					return row, err
				}
				pause()
				_, _ = s.Tokens.Delete(ctx, row.Digest)
				row.Legacy, row.Digest, row.TokenVersion, row.AuthenticatedAt = false, to.Digest, to.TokenVersion, to.AuthenticatedAt
				row.ID = uuid.New()
				return row, s.Insert(ctx, row)
			}
		}},
		{"converts a token that was deleted meanwhile", deleteRace, func(s *legacy) {
			s.find = func(ctx context.Context, secret string) (token, error) {
				row, err := s.Tokens.ByToken(ctx, format.DigestOf(secret))
				if err != nil {
					return row, err
				}
				pause()
				if _, err := s.Tokens.ByToken(ctx, row.Digest); err != nil {
					_ = s.Insert(ctx, row)
				}
				return row, nil
			}
		}},
		{"works despite a cancelled context", cancelled, func(s *legacy) {
			find := s.find
			s.find = func(ctx context.Context, secret string) (token, error) {
				return find(context.WithoutCancel(ctx), secret)
			}
		}},
	})
}
