package storetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/strategy"
)

// Run checks a strategy.Store. Each subtest calls open, which must return an empty store.
// newID makes user IDs: each call must return another one. It must be safe for concurrent
// use.
func Run[ID comparable](t *testing.T, newID func() ID, open func(testing.TB) strategy.Store[ID]) {
	t.Helper()
	tokenSuite(newID, open).run(t)
}

func tokenSuite[ID comparable](newID func() ID, open func(testing.TB) strategy.Store[ID]) suite[tokenStore[ID]] {
	return suite[tokenStore[ID]]{
		open: func(t testing.TB) tokenStore[ID] { return tokenStore[ID]{open(t), newID} },
		checks: []check[tokenStore[ID]]{
			{"every field is returned as it was stored", roundTrip[ID]},
			{"tokens are independent", independentTokens[ID]},
			{"a missing token is ErrTokenNotFound", missing[ID]},
			{"a taken digest is ErrDuplicateToken and changes nothing", duplicateDigest[ID]},
			{"a taken session ID is ErrDuplicateToken and changes nothing", duplicateID[ID]},
			{"one of many concurrent inserts of a digest succeeds", duplicateRace[ID]},
			{"a token is found however old it is", anyAge[ID]},
			{"the retention is not negative and does not change", retention[ID]},
			{"a delete returns the token once", deleteTwice[ID]},
			{"one of many concurrent deletes of a token succeeds", deleteRace[ID]},
			{"a deleted token stays deleted while other tokens are used", noResurrection[ID]},
			{"a deleted token stays deleted under concurrent reads", noResurrectionRace[ID]},
			{"tokens share no memory with the caller", notShared[ID]},
			{"a touch sets the last use and nothing else", touch[ID]},
			{"a touch never lowers the last use", touchForwards[ID]},
			{"a touch of a missing token is no error and creates none", touchMissing[ID]},
			{"a deleted token stays deleted under concurrent touches", touchRace[ID]},
			{"a rotation changes the digest and nothing else", rotate[ID]},
			{"a rotation raises the times that it is given and never lowers them", rotateTimes[ID]},
			{"a rotation raises the token version and never lowers it", rotateVersion[ID]},
			{"a rotation of a missing token is ErrTokenNotFound and creates none", rotateMissing[ID]},
			{"one of many concurrent rotations of a token succeeds", rotateRace[ID]},
			{"a deleted token stays deleted under concurrent rotations", rotateDeleteRace[ID]},
			{"a deleted session stays deleted under concurrent rotations", rotateDeleteSessionRace[ID]},
			{"a list has exactly the user's tokens, newest first", listed[ID]},
			{"the pages of a list have no gap and no repeat", pages[ID]},
			{"a session is deleted by its ID, also after a rotation", deleteSession[ID]},
			{"another user's session is ErrTokenNotFound and stays", deleteSessionOfAnother[ID]},
			{"one of many concurrent deletes of a session succeeds", deleteSessionRace[ID]},
			{"all sessions of a user are deleted except those given", deleteByUser[ID]},
			{"the store is safe for concurrent use", concurrentUse[ID]},
			{"a cancelled context stops every method", cancelled[ID]},
		},
	}
}

// tokenStore is the store under test.
type tokenStore[ID comparable] struct {
	strategy.Store[ID]
	newID func() ID
}

// instant is when most tokens of the checks were created.
var instant = time.Date(2026, 3, 29, 1, 59, 59, 987e6, time.UTC)

// token returns a new user's token without optional fields.
func (s tokenStore[ID]) token(at time.Time) strategy.AccessToken[ID] {
	return strategy.AccessToken[ID]{ID: uuid.Must(uuid.NewV7()), Digest: newDigest(), UserID: s.newID(), CreatedAt: at}
}

// full returns a token with all optional fields set.
func (s tokenStore[ID]) full(userID ID, at time.Time) strategy.AccessToken[ID] {
	token := s.token(at)
	token.UserID = userID
	token.LastUsedAt = at.Add(time.Minute + 7*time.Millisecond)
	token.AuthenticatedAt = at.Add(time.Second + time.Millisecond)
	token.TokenVersion = 7
	token.ExpiresAt = at.Add(time.Hour + 999*time.Millisecond)
	token.Scopes = []string{"deploy:write", "a", "deploy:read"}
	token.Name, token.UserAgent, token.ClientIP = "Änne's 🔑", "Mozilla/5.0 (X11)", "2001:db8::1"
	return token
}

func (s tokenStore[ID]) insertAll(ctx context.Context, tokens ...strategy.AccessToken[ID]) error {
	for _, token := range tokens {
		if err := s.Insert(ctx, token); err != nil {
			return fmt.Errorf("Insert: %w", err)
		}
	}
	return nil
}

// insert stores a new user's token without optional fields.
func (s tokenStore[ID]) insert(ctx context.Context, at time.Time) (strategy.AccessToken[ID], error) {
	token := s.token(at)
	if err := s.Insert(ctx, token); err != nil {
		return token, fmt.Errorf("Insert: %w", err)
	}
	return token, nil
}

// holds returns an error unless the store finds exactly this token.
func (s tokenStore[ID]) holds(ctx context.Context, want strategy.AccessToken[ID]) error {
	got, err := s.ByToken(ctx, want.Digest)
	if err != nil {
		return fmt.Errorf("ByToken: %w", err)
	}
	return sameToken("ByToken", got, want)
}

// lacks returns an error unless the store reports the token as missing.
func (s tokenStore[ID]) lacks(ctx context.Context, digest string) error {
	got, err := s.ByToken(ctx, digest)
	return wantError("ByToken", got, err, strategy.ErrTokenNotFound)
}

func sameToken[ID comparable](op string, got, want strategy.AccessToken[ID]) error {
	switch {
	case got.ID != want.ID:
		return fmt.Errorf("%s: ID is %v, want %v", op, got.ID, want.ID)
	case got.Digest != want.Digest:
		return fmt.Errorf("%s: Digest is %q, want %q", op, got.Digest, want.Digest)
	case got.TokenVersion != want.TokenVersion:
		return fmt.Errorf("%s: TokenVersion is %d, want %d", op, got.TokenVersion, want.TokenVersion)
	case got.UserID != want.UserID:
		return fmt.Errorf("%s: UserID is %v, want %v", op, got.UserID, want.UserID)
	case (got.Scopes == nil) != (want.Scopes == nil) || !slices.Equal(got.Scopes, want.Scopes):
		return fmt.Errorf("%s: Scopes is %#v, want %#v", op, got.Scopes, want.Scopes)
	case got.Name != want.Name:
		return fmt.Errorf("%s: Name is %q, want %q", op, got.Name, want.Name)
	case got.UserAgent != want.UserAgent:
		return fmt.Errorf("%s: UserAgent is %q, want %q", op, got.UserAgent, want.UserAgent)
	case got.ClientIP != want.ClientIP:
		return fmt.Errorf("%s: ClientIP is %q, want %q", op, got.ClientIP, want.ClientIP)
	}
	for _, at := range []struct {
		field     string
		got, want time.Time
	}{
		{"CreatedAt", got.CreatedAt, want.CreatedAt},
		{"LastUsedAt", got.LastUsedAt, want.LastUsedAt},
		{"AuthenticatedAt", got.AuthenticatedAt, want.AuthenticatedAt},
		{"ExpiresAt", got.ExpiresAt, want.ExpiresAt},
	} {
		switch {
		case !at.got.Equal(at.want):
			return fmt.Errorf("%s: %s is %v, want %v", op, at.field, at.got, at.want)
		case at.got.Location() != time.UTC:
			return fmt.Errorf("%s: %s is in %v, want UTC", op, at.field, at.got.Location())
		}
	}
	return nil
}

// variety returns a user's tokens, which differ in the fields that are set.
func (s tokenStore[ID]) variety(userID ID) []strategy.AccessToken[ID] {
	var tokens []strategy.AccessToken[ID]
	for _, at := range []time.Time{
		instant,
		instant.Truncate(time.Second),
		time.UnixMilli(0).UTC(),
		time.UnixMilli(-1).UTC(),
		time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC),
	} {
		token := s.token(at)
		token.UserID = userID
		tokens = append(tokens, token)
	}
	// Each field is optional on its own.
	for _, alter := range []func(*strategy.AccessToken[ID]){
		func(*strategy.AccessToken[ID]) {},
		func(t *strategy.AccessToken[ID]) { t.LastUsedAt = time.Time{} },
		func(t *strategy.AccessToken[ID]) { t.AuthenticatedAt = time.Time{} },
		func(t *strategy.AccessToken[ID]) { t.TokenVersion = 0 },
		func(t *strategy.AccessToken[ID]) { t.TokenVersion = 1 },
		func(t *strategy.AccessToken[ID]) { t.TokenVersion = math.MaxInt32 + 1 },
		func(t *strategy.AccessToken[ID]) { t.TokenVersion = 1<<53 + 1 }, // no float64 has this value
		func(t *strategy.AccessToken[ID]) { t.TokenVersion = math.MaxInt64 },
		func(t *strategy.AccessToken[ID]) { t.ExpiresAt = time.Time{} },
		func(t *strategy.AccessToken[ID]) { t.Scopes = nil },
		func(t *strategy.AccessToken[ID]) { t.Name = "" },
		func(t *strategy.AccessToken[ID]) { t.UserAgent = "" },
		func(t *strategy.AccessToken[ID]) { t.ClientIP = "" },
	} {
		token := s.full(userID, instant)
		alter(&token)
		tokens = append(tokens, token)
	}
	return tokens
}

func roundTrip[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	for _, token := range s.variety(s.newID()) {
		token.UserID = s.newID()
		if err := errors.Join(s.insertAll(ctx, token), s.holds(ctx, token)); err != nil {
			return err
		}
	}
	return nil
}

func independentTokens[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	var tokens []strategy.AccessToken[ID]
	for i := range 10 {
		token, err := s.insert(ctx, instant.Add(time.Duration(i)*time.Millisecond))
		if err != nil {
			return err
		}
		tokens = append(tokens, token)
	}
	second := s.token(instant)
	second.UserID = tokens[3].UserID
	if err := s.Insert(ctx, second); err != nil {
		return fmt.Errorf("Insert of a user's second token: %w", err)
	}
	if _, err := s.Delete(ctx, tokens[3].Digest); err != nil {
		return fmt.Errorf("Delete: %w", err)
	}
	for i, token := range append(tokens, second) {
		if i == 3 {
			continue
		}
		if err := s.holds(ctx, token); err != nil {
			return fmt.Errorf("after another token was deleted: %w", err)
		}
	}
	return nil
}

func missing[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	for _, digest := range []string{newDigest(), "", "$ne", `{"$ne": null}`} {
		if err := s.lacks(ctx, digest); err != nil {
			return err
		}
	}
	return nil
}

func duplicateDigest[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	first, err := s.insert(ctx, instant)
	if err != nil {
		return err
	}
	second := s.token(instant.Add(time.Hour))
	second.Digest = first.Digest
	if err := wantError("Insert of a taken digest", nil, s.Insert(ctx, second), strategy.ErrDuplicateToken); err != nil {
		return err
	}
	return s.holds(ctx, first)
}

func duplicateID[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	first, err := s.insert(ctx, instant)
	if err != nil {
		return err
	}
	second := s.token(instant.Add(time.Hour))
	second.ID = first.ID
	if err := wantError("Insert of a taken session ID", nil, s.Insert(ctx, second), strategy.ErrDuplicateToken); err != nil {
		return err
	}
	return errors.Join(s.holds(ctx, first), s.lacks(ctx, second.Digest))
}

func duplicateRace[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	var tokens []strategy.AccessToken[ID]
	digest := newDigest()
	for range 16 {
		token := s.token(instant)
		token.Digest = digest
		tokens = append(tokens, token)
	}
	winner, err := oneWins("Insert of a digest", len(tokens), strategy.ErrDuplicateToken, func(i int) error {
		return s.Insert(ctx, tokens[i])
	})
	if err != nil {
		return err
	}
	return s.holds(ctx, tokens[winner])
}

// anyAge catches stores that hide expired tokens: only strategy.Database decides on expiry.
func anyAge[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	for _, at := range []time.Time{
		instant.AddDate(0, 0, -1),
		instant.AddDate(-10, 0, 0),
		time.UnixMilli(0).UTC(),
		time.UnixMilli(0).UTC().AddDate(-10, 0, 0),
	} {
		token, err := s.insert(ctx, at)
		if err != nil {
			return err
		}
		if err := errors.Join(s.holds(ctx, token), s.lists(ctx, token.UserID, token)); err != nil {
			return fmt.Errorf("a token of %v: %w", at, err)
		}
	}
	return nil
}

func retention[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	want := s.Retention()
	if want < 0 {
		return fmt.Errorf("Retention returned %v, want 0 or more", want)
	}
	token, err := s.insert(ctx, instant)
	if err != nil {
		return err
	}
	if _, err := s.Delete(ctx, token.Digest); err != nil {
		return fmt.Errorf("Delete: %w", err)
	}
	return concurrently(4, func(int) error {
		if got := s.Retention(); got != want {
			return fmt.Errorf("Retention returned %v, and %v before", got, want)
		}
		return nil
	})
}

func deleteTwice[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	token, err := s.insert(ctx, instant)
	if err != nil {
		return err
	}
	got, err := s.Delete(ctx, token.Digest)
	if err != nil {
		return fmt.Errorf("Delete: %w", err)
	}
	if err := sameToken("Delete", got, token); err != nil {
		return err
	}
	if err := s.lacks(ctx, token.Digest); err != nil {
		return fmt.Errorf("after Delete: %w", err)
	}
	got, err = s.Delete(ctx, token.Digest)
	if err := wantError("the second Delete", got, err, strategy.ErrTokenNotFound); err != nil {
		return err
	}
	return s.lacks(ctx, token.Digest)
}

func deleteRace[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	token, err := s.insert(ctx, instant)
	if err != nil {
		return err
	}
	_, err = oneWins("Delete of a token", 8, strategy.ErrTokenNotFound, func(int) error {
		_, err := s.Delete(ctx, token.Digest)
		return cmp.Or(s.lacks(ctx, token.Digest), err)
	})
	if err != nil {
		return err
	}
	return s.lacks(ctx, token.Digest)
}

// noResurrection catches stores that write back what they have read.
func noResurrection[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	token, err := s.insert(ctx, instant)
	if err != nil {
		return err
	}
	other, err := s.insert(ctx, instant)
	if err != nil {
		return err
	}
	if err := s.holds(ctx, token); err != nil {
		return err
	}
	if _, err := s.Delete(ctx, token.Digest); err != nil {
		return fmt.Errorf("Delete: %w", err)
	}
	if _, err := s.insert(ctx, instant); err != nil {
		return err
	}
	if err := s.holds(ctx, other); err != nil {
		return err
	}
	if _, err := s.Delete(ctx, other.Digest); err != nil {
		return fmt.Errorf("Delete: %w", err)
	}
	return errors.Join(s.lacks(ctx, token.Digest), s.lacks(ctx, other.Digest))
}

func noResurrectionRace[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	for range rounds {
		token, err := s.insert(ctx, instant)
		if err != nil {
			return err
		}
		err = concurrently(8, func(i int) error {
			if i == 0 {
				_, err := s.Delete(ctx, token.Digest)
				return err
			}
			if _, err := s.ByToken(ctx, token.Digest); err != nil && !errors.Is(err, strategy.ErrTokenNotFound) {
				return err
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := s.lacks(ctx, token.Digest); err != nil {
			return fmt.Errorf("after reads concurrent with Delete: %w", err)
		}
	}
	return nil
}

func concurrentUse[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	return concurrently(32, func(i int) error {
		token, err := s.insert(ctx, instant.Add(time.Duration(i)*time.Second))
		if err != nil {
			return err
		}
		if err := s.holds(ctx, token); err != nil {
			return err
		}
		if i%2 == 0 {
			return nil
		}
		if _, err := s.Delete(ctx, token.Digest); err != nil {
			return fmt.Errorf("Delete: %w", err)
		}
		return s.lacks(ctx, token.Digest)
	})
}

func cancelled[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	token, err := s.insert(ctx, instant)
	if err != nil {
		return err
	}
	dead := cancelledContext(ctx)
	late := s.token(instant)
	_, byToken := s.ByToken(dead, token.Digest)
	_, byUser := s.ByUser(dead, token.UserID, strategy.Position{}, 10)
	_, rotate := s.Rotate(dead, token.Digest, strategy.Rotation{Digest: late.Digest})
	_, remove := s.Delete(dead, token.Digest)
	_, removeSession := s.DeleteSession(dead, token.UserID, token.ID)
	_, removeByUser := s.DeleteByUser(dead, token.UserID)
	for op, err := range map[string]error{
		"Insert":        s.Insert(dead, late),
		"ByToken":       byToken,
		"Touch":         s.Touch(dead, token.Digest, instant.Add(time.Hour)),
		"Rotate":        rotate,
		"ByUser":        byUser,
		"Delete":        remove,
		"DeleteSession": removeSession,
		"DeleteByUser":  removeByUser,
	} {
		if err := wantError(op, nil, err, context.Canceled); err != nil {
			return err
		}
	}
	return errors.Join(s.holds(ctx, token), s.lacks(ctx, late.Digest))
}
