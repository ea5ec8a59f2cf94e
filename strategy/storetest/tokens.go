package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/strategy"
)

// timeout bounds every check: a store that hangs fails.
const timeout = 60 * time.Second

// Run checks a strategy.Store: a subtest for each line of its contract, each on
// a store that open returns empty. newID makes user IDs, another with every
// call; it must be safe for concurrent use.
func Run[ID comparable](t *testing.T, newID func() ID, open func(testing.TB) strategy.Store[ID]) {
	t.Helper()
	for _, c := range tokenChecks[ID]() {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			if err := c.run(ctx, tokenStore[ID]{open(t), newID}); err != nil {
				t.Error(err)
			}
		})
	}
}

type tokenCheck[ID comparable] struct {
	name string
	run  func(context.Context, tokenStore[ID]) error
}

func tokenChecks[ID comparable]() []tokenCheck[ID] {
	return []tokenCheck[ID]{
		{"every field comes back as it was stored", roundTrip[ID]},
		{"tokens do not mix", separate[ID]},
		{"a missing token is ErrTokenNotFound", missing[ID]},
		{"a taken digest is ErrDuplicateToken and changes nothing", duplicateDigest[ID]},
		{"a taken session ID is ErrDuplicateToken and changes nothing", duplicateID[ID]},
		{"one of many that insert the same digest at once succeeds", duplicateRace[ID]},
		{"the age limit is exact to the millisecond", ageLimit[ID]},
		{"the zero time is no age limit", noAgeLimit[ID]},
		{"delete returns the token once and is idempotent", deleteTwice[ID]},
		{"one of many that delete a token at once gets it", deleteRace[ID]},
		{"a deleted token stays away while its neighbours are used", noResurrection[ID]},
		{"a deleted token stays away under concurrent reads", noResurrectionRace[ID]},
		{"what a caller does to a token changes nothing", notShared[ID]},
		{"a touch sets the last use and nothing else", touch[ID]},
		{"a touch never goes backwards", touchForwards[ID]},
		{"a touch of a missing token is no error and makes none", touchMissing[ID]},
		{"a deleted token stays away under concurrent touches", touchRace[ID]},
		{"a rotation changes the digest and nothing else", rotate[ID]},
		{"a rotation sets the times that it is given, never backwards", rotateTimes[ID]},
		{"a rotation of a missing token is ErrTokenNotFound and makes none", rotateMissing[ID]},
		{"one of many that rotate a token at once succeeds", rotateRace[ID]},
		{"a deleted token stays away under concurrent rotations", rotateDeleteRace[ID]},
		{"a deleted session stays away under concurrent rotations", rotateDeleteSessionRace[ID]},
		{"a user's tokens are listed newest first, and no others", listed[ID]},
		{"the pages of a list have no gap and no repeat", pages[ID]},
		{"a session is deleted by its ID, whatever its digest", deleteSession[ID]},
		{"another user's session is ErrTokenNotFound and stays", deleteSessionOfAnother[ID]},
		{"one of many that delete a session at once gets it", deleteSessionRace[ID]},
		{"all sessions of a user are deleted but the exceptions", deleteByUser[ID]},
		{"many goroutines at once", manyGoroutines[ID]},
		{"a cancelled context stops every method", cancelled[ID]},
	}
}

// tokenStore is the store under test.
type tokenStore[ID comparable] struct {
	strategy.Store[ID]
	newID func() ID
}

var (
	format, _ = strategy.NewTokenFormat("")
	instant   = time.Date(2026, 3, 29, 1, 59, 59, 987e6, time.UTC)
)

func (s tokenStore[ID]) token(at time.Time) strategy.AccessToken[ID] {
	_, digest := format.New()
	return strategy.AccessToken[ID]{ID: uuid.Must(uuid.NewV7()), Digest: digest, UserID: s.newID(), CreatedAt: at}
}

// full returns a token of a user with all its optional fields set.
func (s tokenStore[ID]) full(userID ID, at time.Time) strategy.AccessToken[ID] {
	token := s.token(at)
	token.UserID = userID
	token.LastUsedAt = at.Add(time.Minute + 7*time.Millisecond)
	token.AuthenticatedAt = at.Add(time.Second + time.Millisecond)
	token.SeenNotBefore = at.Add(-time.Hour + 3*time.Millisecond)
	token.ExpiresAt = at.Add(time.Hour + 999*time.Millisecond)
	token.Scopes = []string{"deploy:write", "a", "deploy:read"}
	token.Name, token.UserAgent, token.ClientAddr = "Änne's 🔑", "Mozilla/5.0 (X11)", "2001:db8::1"
	return token
}

// insertAll stores tokens.
func (s tokenStore[ID]) insertAll(ctx context.Context, tokens ...strategy.AccessToken[ID]) error {
	for _, token := range tokens {
		if err := s.Insert(ctx, token); err != nil {
			return fmt.Errorf("Insert: %w", err)
		}
	}
	return nil
}

// insert stores a new token.
func (s tokenStore[ID]) insert(ctx context.Context, at time.Time) (strategy.AccessToken[ID], error) {
	token := s.token(at)
	if err := s.Insert(ctx, token); err != nil {
		return token, fmt.Errorf("Insert: %w", err)
	}
	return token, nil
}

// holds says what is wrong where the store does not return exactly this token.
func (s tokenStore[ID]) holds(ctx context.Context, want strategy.AccessToken[ID]) error {
	got, err := s.ByToken(ctx, want.Digest, time.Time{})
	if err != nil {
		return fmt.Errorf("ByToken: %w", err)
	}
	return sameToken("ByToken", got, want)
}

func (s tokenStore[ID]) lacks(ctx context.Context, digest string) error {
	got, err := s.ByToken(ctx, digest, time.Time{})
	return wantError("ByToken", got, err, strategy.ErrTokenNotFound)
}

func sameToken[ID comparable](op string, got, want strategy.AccessToken[ID]) error {
	switch {
	case got.ID != want.ID:
		return fmt.Errorf("%s: ID is %v, want %v", op, got.ID, want.ID)
	case got.Digest != want.Digest:
		return fmt.Errorf("%s: Digest is %q, want %q", op, got.Digest, want.Digest)
	case got.UserID != want.UserID:
		return fmt.Errorf("%s: UserID is %v, want %v", op, got.UserID, want.UserID)
	case (got.Scopes == nil) != (want.Scopes == nil) || !slices.Equal(got.Scopes, want.Scopes):
		return fmt.Errorf("%s: Scopes is %#v, want %#v", op, got.Scopes, want.Scopes)
	case got.Name != want.Name:
		return fmt.Errorf("%s: Name is %q, want %q", op, got.Name, want.Name)
	case got.UserAgent != want.UserAgent:
		return fmt.Errorf("%s: UserAgent is %q, want %q", op, got.UserAgent, want.UserAgent)
	case got.ClientAddr != want.ClientAddr:
		return fmt.Errorf("%s: ClientAddr is %q, want %q", op, got.ClientAddr, want.ClientAddr)
	}
	for _, at := range []struct {
		field     string
		got, want time.Time
	}{
		{"CreatedAt", got.CreatedAt, want.CreatedAt},
		{"LastUsedAt", got.LastUsedAt, want.LastUsedAt},
		{"AuthenticatedAt", got.AuthenticatedAt, want.AuthenticatedAt},
		{"SeenNotBefore", got.SeenNotBefore, want.SeenNotBefore},
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

func wantError(op string, got any, err, want error) error {
	if err == nil {
		return fmt.Errorf("%s returned %+v, want an error wrapping %q", op, got, want)
	}
	if !errors.Is(err, want) {
		return fmt.Errorf("%s returned the error %q, want one wrapping %q", op, err, want)
	}
	return nil
}

// variety returns tokens of a user that differ in which of their fields are set.
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
	// Fields are optional one by one.
	for _, unset := range []func(*strategy.AccessToken[ID]){
		func(*strategy.AccessToken[ID]) {},
		func(t *strategy.AccessToken[ID]) { t.LastUsedAt = time.Time{} },
		func(t *strategy.AccessToken[ID]) { t.AuthenticatedAt = time.Time{} },
		func(t *strategy.AccessToken[ID]) { t.SeenNotBefore = time.Time{} },
		func(t *strategy.AccessToken[ID]) { t.SeenNotBefore = time.UnixMilli(0).UTC() }, // which is not the zero time
		func(t *strategy.AccessToken[ID]) { t.ExpiresAt = time.Time{} },
		func(t *strategy.AccessToken[ID]) { t.Scopes = nil },
		func(t *strategy.AccessToken[ID]) { t.Name = "" },
		func(t *strategy.AccessToken[ID]) { t.UserAgent = "" },
		func(t *strategy.AccessToken[ID]) { t.ClientAddr = "" },
	} {
		token := s.full(userID, instant)
		unset(&token)
		tokens = append(tokens, token)
	}
	return tokens
}

func roundTrip[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	for _, token := range s.variety(s.newID()) {
		token.UserID = s.newID() // another for each
		if err := s.insertAll(ctx, token); err != nil {
			return err
		}
		if err := s.holds(ctx, token); err != nil {
			return err
		}
	}
	return nil
}

func separate[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	var tokens []strategy.AccessToken[ID]
	for i := range 10 {
		token, err := s.insert(ctx, instant.Add(time.Duration(i)*time.Millisecond))
		if err != nil {
			return err
		}
		tokens = append(tokens, token)
	}
	// Two sessions of one user are two rows, and end one by one.
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
	for _, digest := range []string{s.token(instant).Digest, "", "$ne", `{"$ne": null}`} {
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
	digest := s.token(instant).Digest
	var mu sync.Mutex
	var stored []strategy.AccessToken[ID]
	err := atOnce(16, func(int) error {
		token := s.token(instant)
		token.Digest = digest
		err := s.Insert(ctx, token)
		if errors.Is(err, strategy.ErrDuplicateToken) {
			return nil
		}
		if err == nil {
			mu.Lock()
			stored = append(stored, token)
			mu.Unlock()
		}
		return err
	})
	if err != nil {
		return err
	}
	if len(stored) != 1 {
		return fmt.Errorf("%d inserts of one digest succeeded, want 1", len(stored))
	}
	return s.holds(ctx, stored[0])
}

// ageLimits are limits with which a token of the instant is found, or not.
var ageLimits = []struct {
	createdAfter time.Time
	found        bool
}{
	{instant.Add(-time.Hour), true},
	{instant.Add(-time.Millisecond), true},
	{instant, true},
	{instant.In(time.FixedZone("elsewhere", 5*3600)), true},
	{instant.Add(time.Millisecond), false},
	{instant.Add(time.Hour), false},
}

func ageLimit[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	token, err := s.insert(ctx, instant)
	if err != nil {
		return err
	}
	for _, c := range ageLimits {
		got, err := s.ByToken(ctx, token.Digest, c.createdAfter)
		op := fmt.Sprintf("ByToken of a token created at %v with the limit %v", token.CreatedAt, c.createdAfter)
		if !c.found {
			if err := wantError(op, got, err, strategy.ErrTokenNotFound); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
		if err := sameToken(op, got, token); err != nil {
			return err
		}
	}
	return nil
}

func noAgeLimit[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	token, err := s.insert(ctx, time.UnixMilli(0).UTC())
	if err != nil {
		return err
	}
	return s.holds(ctx, token)
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
	var deleted atomic.Int64
	err = atOnce(8, func(int) error {
		_, err := s.Delete(ctx, token.Digest)
		switch {
		case err == nil:
			deleted.Add(1)
		case !errors.Is(err, strategy.ErrTokenNotFound):
			return err
		}
		return s.lacks(ctx, token.Digest)
	})
	if err != nil {
		return err
	}
	if n := deleted.Load(); n != 1 {
		return fmt.Errorf("%d deletes of one token succeeded, want 1", n)
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
	for range 10 {
		token, err := s.insert(ctx, instant)
		if err != nil {
			return err
		}
		err = atOnce(8, func(i int) error {
			if i == 0 {
				_, err := s.Delete(ctx, token.Digest)
				return err
			}
			if _, err := s.ByToken(ctx, token.Digest, time.Time{}); err != nil && !errors.Is(err, strategy.ErrTokenNotFound) {
				return err
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := s.lacks(ctx, token.Digest); err != nil {
			return fmt.Errorf("after reads that ran beside Delete: %w", err)
		}
	}
	return nil
}

func manyGoroutines[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	return atOnce(32, func(i int) error {
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
	gone, cancel := context.WithCancel(ctx)
	cancel()
	late := s.token(instant)
	if err := wantError("Insert", nil, s.Insert(gone, late), context.Canceled); err != nil {
		return err
	}
	got, err := s.ByToken(gone, token.Digest, time.Time{})
	if err := wantError("ByToken", got, err, context.Canceled); err != nil {
		return err
	}
	got, err = s.Delete(gone, token.Digest)
	if err := wantError("Delete", got, err, context.Canceled); err != nil {
		return err
	}
	if err := wantError("Touch", nil, s.Touch(gone, token.Digest, instant.Add(time.Hour)), context.Canceled); err != nil {
		return err
	}
	got, err = s.Rotate(gone, token.Digest, strategy.Rotation{Digest: late.Digest})
	if err := wantError("Rotate", got, err, context.Canceled); err != nil {
		return err
	}
	list, err := s.ByUser(gone, token.UserID, strategy.Position{}, 10)
	if err := wantError("ByUser", list, err, context.Canceled); err != nil {
		return err
	}
	got, err = s.DeleteSession(gone, token.UserID, token.ID)
	if err := wantError("DeleteSession", got, err, context.Canceled); err != nil {
		return err
	}
	n, err := s.DeleteByUser(gone, token.UserID)
	if err := wantError("DeleteByUser", n, err, context.Canceled); err != nil {
		return err
	}
	return errors.Join(s.holds(ctx, token), s.lacks(ctx, late.Digest))
}

// atOnce runs n calls that begin together and joins their errors.
func atOnce(n int, call func(i int) error) error {
	begin := make(chan struct{})
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-begin
			errs[i] = call(i)
		})
	}
	close(begin)
	wg.Wait()
	return errors.Join(errs...)
}
