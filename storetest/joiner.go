package storetest

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// Joined are the stores of one database that [RunJoiner] checks. Both are empty.
type Joined[U strategy.User[ID], ID comparable] struct {
	Users interface {
		account.Store[U, ID]
		strategy.Joiner[U, ID]
	}
	Tokens strategy.Store[ID]
}

// RunJoiner checks a strategy.Joiner. Each subtest calls open, which must return empty stores that
// can be joined. newUser makes users, as for [RunUsers].
func RunJoiner[U strategy.User[ID], ID comparable](t *testing.T, newUser func(email string) U, open func(testing.TB) Joined[U, ID]) {
	t.Helper()
	joinerSuite(newUser, open).run(t)
}

func joinerSuite[U strategy.User[ID], ID comparable](newUser func(email string) U, open func(testing.TB) Joined[U, ID]) suite[joinedStores[U, ID]] {
	return suite[joinedStores[U, ID]]{
		open: func(ctx context.Context, t testing.TB) joinedStores[U, ID] {
			j := open(t)
			return joinedStores[U, ID]{j, ctx, newUser, j.Users.Join(j.Tokens)}
		},
		checks: []check[joinedStores[U, ID]]{
			{"the row and the user are those of ByToken and ByID", joinSame[U, ID]},
			{"an unknown digest is ErrTokenNotFound", joinUnknown[U, ID]},
			{"every change is seen at once", joinChanges[U, ID]},
			{"without the user, the row and ErrUserNotFound are returned, if the row is still there", joinUserGone[U, ID]},
			{"a cancelled context stops the look-up", joinCancelled[U, ID]},
			{"concurrent look-ups do not mix up users", joinConcurrent[U, ID]},
		},
	}
}

type joinedStores[U strategy.User[ID], ID comparable] struct {
	Joined[U, ID]
	ctx     context.Context
	newUser func(email string) U
	join    func(ctx context.Context, digest string) (strategy.AccessToken[ID], U, error)
}

// login inserts a user with a token, and returns the user's ID.
func (s joinedStores[U, ID]) login(email, digest string) ID {
	if s.join == nil {
		fail("Join returned nil, want a function")
	}
	user := s.newUser(email)
	must("Insert of the user", s.Users.Insert(s.ctx, user))
	must("Insert of the token", s.Tokens.Insert(s.ctx, strategy.AccessToken[ID]{
		ID: uuid.Must(uuid.NewV7()), Digest: digest, UserID: user.UserID(), CreatedAt: past, LastUsedAt: past, TokenVersion: 2,
		Scopes: []string{"read"}, Name: "laptop", UserAgent: "agent", ClientIP: "192.0.2.1",
	}))
	return user.UserID()
}

// same fails unless the join returns what the two look-ups return.
func (s joinedStores[U, ID]) same(digest string) {
	wantRow, err := s.Tokens.ByToken(s.ctx, digest)
	must("ByToken", err)
	wantUser, err := s.Users.ByID(s.ctx, wantRow.UserID)
	must("ByID", err)
	row, user, err := s.join(s.ctx, digest)
	must("the join", err)
	if !reflect.DeepEqual(row, wantRow) || !reflect.DeepEqual(user, wantUser) {
		fail("the join returned %+v and %+v, want %+v and %+v", row, user, wantRow, wantUser)
	}
}

// unknown fails unless the join finds no row.
func (s joinedStores[U, ID]) unknown(digest string) {
	_, _, err := s.join(s.ctx, digest)
	if !errors.Is(err, strategy.ErrTokenNotFound) || errors.Is(err, strategy.ErrUserNotFound) {
		fail("the join returned %v, want an error wrapping ErrTokenNotFound and not ErrUserNotFound", err)
	}
}

func joinSame[U strategy.User[ID], ID comparable](s joinedStores[U, ID]) {
	s.login("bob@example.com", "digest of Bob")
	s.login("ann@example.com", "digest of Ann")
	s.same("digest of Ann")
	s.same("digest of Bob")
}

func joinUnknown[U strategy.User[ID], ID comparable](s joinedStores[U, ID]) {
	s.login("ann@example.com", "digest")
	for _, digest := range []string{"another", "", "Digest"} {
		s.unknown(digest)
	}
}

func joinChanges[U strategy.User[ID], ID comparable](s joinedStores[U, ID]) {
	id := s.login("ann@example.com", "digest")
	s.same("digest")
	inactive := false
	must("Apply", s.Users.Apply(s.ctx, id, account.Change{Active: &inactive, RevokeTokens: true}))
	s.same("digest")
	if _, user, _ := s.join(s.ctx, "digest"); user.IsActive() {
		fail("the join returned an active user after the change")
	}
	_, err := s.Tokens.Rotate(s.ctx, "digest", strategy.Rotation{Digest: "new digest"})
	must("Rotate", err)
	s.unknown("digest")
	s.same("new digest")
	_, err = s.Tokens.Delete(s.ctx, "new digest")
	must("Delete", err)
	s.unknown("new digest")
}

func joinUserGone[U strategy.User[ID], ID comparable](s joinedStores[U, ID]) {
	id := s.login("ann@example.com", "digest")
	must("Delete", s.Users.Delete(s.ctx, id))
	want, err := s.Tokens.ByToken(s.ctx, "digest")
	if errors.Is(err, strategy.ErrTokenNotFound) { // deleted with the user
		s.unknown("digest")
		return
	}
	must("ByToken", err)
	row, _, err := s.join(s.ctx, "digest")
	if !errors.Is(err, strategy.ErrUserNotFound) || errors.Is(err, strategy.ErrTokenNotFound) || !reflect.DeepEqual(row, want) {
		fail("the join returned %+v and %v, want %+v and an error wrapping ErrUserNotFound", row, err, want)
	}
}

func joinCancelled[U strategy.User[ID], ID comparable](s joinedStores[U, ID]) {
	s.login("ann@example.com", "digest")
	for _, digest := range []string{"digest", "another"} {
		_, _, err := s.join(cancelled(s.ctx), digest)
		if !errors.Is(err, context.Canceled) || errors.Is(err, strategy.ErrTokenNotFound) || errors.Is(err, strategy.ErrUserNotFound) {
			fail("the join with a cancelled context returned %v, want an error wrapping context.Canceled", err)
		}
	}
}

func joinConcurrent[U strategy.User[ID], ID comparable](s joinedStores[U, ID]) {
	ids := []ID{s.login("ann@example.com", "digest 0"), s.login("bob@example.com", "digest 1")}
	digests := []string{"digest 0", "digest 1"}
	errs := make([]error, 16)
	concurrently(len(errs), func(i int) {
		errs[i] = try(func() {
			row, user, err := s.join(s.ctx, digests[i%2])
			must("the join", err)
			if row.Digest != digests[i%2] || user.UserID() != ids[i%2] {
				fail("the join returned the row of %q and the user %v, want %q and %v", row.Digest, user.UserID(), digests[i%2], ids[i%2])
			}
		})
	})
	must("concurrent look-ups", errors.Join(errs...))
}
