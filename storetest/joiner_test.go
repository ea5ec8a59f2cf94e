package storetest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/storetest"
	"github.com/latchkey-go/latchkey/strategy"
)

type (
	joinUser   = account.User[uuid.UUID]
	joinToken  = strategy.AccessToken[uuid.UUID]
	joinFunc   = func(ctx context.Context, digest string) (joinToken, joinUser, error)
	joinedPair = storetest.Joined[joinUser, uuid.UUID]
)

// joiner is a Joiner on stores in memory, with a fault that a test gives it.
type joiner struct {
	*memstore.Users[joinUser, uuid.UUID]
	broken func(tokens strategy.Store[uuid.UUID], good joinFunc) joinFunc
}

func (j joiner) Join(tokens strategy.Store[uuid.UUID]) joinFunc {
	good := func(ctx context.Context, digest string) (joinToken, joinUser, error) {
		row, err := tokens.ByToken(ctx, digest)
		if err != nil {
			return row, joinUser{}, err
		}
		user, err := j.ByID(ctx, row.UserID)
		return row, user, err
	}
	return j.broken(tokens, good)
}

func openJoined(broken func(strategy.Store[uuid.UUID], joinFunc) joinFunc) func(testing.TB) joinedPair {
	return func(testing.TB) joinedPair {
		return joinedPair{Users: joiner{memstore.NewUsers[joinUser, uuid.UUID](), broken}, Tokens: memstore.NewTokens[uuid.UUID]()}
	}
}

func newJoinUser(email string) joinUser {
	return joinUser{ID: uuid.New(), Email: email, Active: true}
}

func TestJoinerWithoutAFaultPasses(t *testing.T) {
	storetest.RunJoiner(t, newJoinUser, openJoined(func(_ strategy.Store[uuid.UUID], good joinFunc) joinFunc { return good }))
}

func TestBrokenJoinersFail(t *testing.T) {
	changed := func(change func(*joinToken, *joinUser, *error)) func(strategy.Store[uuid.UUID], joinFunc) joinFunc {
		return func(_ strategy.Store[uuid.UUID], good joinFunc) joinFunc {
			return func(ctx context.Context, digest string) (joinToken, joinUser, error) {
				row, user, err := good(ctx, digest)
				change(&row, &user, &err)
				return row, user, err
			}
		}
	}
	const (
		same, unknown, changes = "the row and the user are those of ByToken and ByID", "an unknown digest is ErrTokenNotFound", "every change is seen at once"
		gone                   = "without the user, the row and ErrUserNotFound are returned, if the row is still there"
		cancels, mixed         = "a cancelled context stops the look-up", "concurrent look-ups do not mix up users"
	)
	for name, test := range map[string]struct {
		broken func(strategy.Store[uuid.UUID], joinFunc) joinFunc
		check  string // that must find the fault
	}{
		"no function":            {func(strategy.Store[uuid.UUID], joinFunc) joinFunc { return nil }, same},
		"a row without its name": {changed(func(row *joinToken, _ *joinUser, _ *error) { row.Name = "" }), same},
		"a user without a flag":  {changed(func(_ *joinToken, user *joinUser, _ *error) { user.Active = false }), same},
		"no error for an unknown digest": {changed(func(_ *joinToken, _ *joinUser, err *error) {
			if errors.Is(*err, strategy.ErrTokenNotFound) {
				*err = nil
			}
		}), unknown},
		"an unknown digest is an unknown user": {changed(func(_ *joinToken, _ *joinUser, err *error) {
			if errors.Is(*err, strategy.ErrTokenNotFound) {
				*err = strategy.ErrUserNotFound
			}
		}), unknown},
		"an old answer": {func(_ strategy.Store[uuid.UUID], good joinFunc) joinFunc {
			var mu sync.Mutex
			old := make(map[string]func() (joinToken, joinUser, error))
			return func(ctx context.Context, digest string) (joinToken, joinUser, error) {
				mu.Lock()
				defer mu.Unlock()
				if old[digest] == nil {
					row, user, err := good(ctx, digest)
					old[digest] = func() (joinToken, joinUser, error) { return row, user, err }
				}
				return old[digest]()
			}
		}, changes},
		"an inner join": {changed(func(_ *joinToken, _ *joinUser, err *error) {
			if errors.Is(*err, strategy.ErrUserNotFound) {
				*err = strategy.ErrTokenNotFound
			}
		}), gone},
		"no row with ErrUserNotFound": {changed(func(row *joinToken, _ *joinUser, err *error) {
			if errors.Is(*err, strategy.ErrUserNotFound) {
				*row = joinToken{}
			}
		}), gone},
		"deaf to cancellation": {func(_ strategy.Store[uuid.UUID], good joinFunc) joinFunc {
			return func(ctx context.Context, digest string) (joinToken, joinUser, error) {
				return good(context.WithoutCancel(ctx), digest)
			}
		}, cancels},
		"a cancelled look-up finds nothing": {changed(func(_ *joinToken, _ *joinUser, err *error) {
			if errors.Is(*err, context.Canceled) {
				*err = fmt.Errorf("%w: %w", strategy.ErrTokenNotFound, *err)
			}
		}), cancels},
		"always the same user": {func(_ strategy.Store[uuid.UUID], good joinFunc) joinFunc {
			return func(ctx context.Context, digest string) (joinToken, joinUser, error) {
				row, _, err := good(ctx, digest)
				_, user, _ := good(ctx, "digest 0")
				return row, user, err
			}
		}, mixed},
	} {
		t.Run(name, func(t *testing.T) {
			if storetest.Joiners(newJoinUser, openJoined(test.broken)).Results(t)[test.check] == nil {
				t.Errorf("the check %q passed", test.check)
			}
		})
	}
}
