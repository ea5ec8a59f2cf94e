package storetest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/strategy"
)

// Issue issues a legacy token as the former system does, and returns it.
type Issue[ID comparable] func(ctx context.Context, userID ID, createdAt time.Time) (token string, err error)

// RunLegacy checks what a strategy.LegacyStore does with legacy tokens; check the rest of it with
// [Run]. Each subtest calls open, which must return an empty store and a function that issues
// legacy tokens in it. newID makes user IDs, as for Run.
func RunLegacy[ID comparable](t *testing.T, newID func() ID, open func(testing.TB) (strategy.LegacyStore[ID], Issue[ID])) {
	t.Helper()
	legacySuite(newID, open).run(t)
}

func legacySuite[ID comparable](newID func() ID, open func(testing.TB) (strategy.LegacyStore[ID], Issue[ID])) suite[legacyStore[ID]] {
	return suite[legacyStore[ID]]{
		open: func(ctx context.Context, t testing.TB) legacyStore[ID] {
			store, issue := open(t)
			return legacyStore[ID]{store, ctx, issue, newID}
		},
		checks: []check[legacyStore[ID]]{
			{"the format of legacy tokens is not that of other tokens", legacyFormat[ID]},
			{"a legacy token is found as it was issued", legacyFound[ID]},
			{"an unknown legacy token is not found", legacyUnknown[ID]},
			{"a user's legacy tokens are listed among the others", legacyListed[ID]},
			{"a legacy token that was deleted is gone", legacyDeleted[ID]},
			{"the sessions of a user end except those that are kept", legacyDeletedByUser[ID]},
			{"a rotation makes a legacy session one of Latchkey's", legacyRotated[ID]},
			{"one of several concurrent rotations of a legacy token succeeds", legacyRotationRace[ID]},
			{"a deleted legacy token does not come back", legacyDeleteRace[ID]},
			{"a cancelled context stops calls for legacy tokens", legacyCancelled[ID]},
		},
	}
}

// legacyStore is the store under test.
type legacyStore[ID comparable] struct {
	strategy.LegacyStore[ID]
	ctx   context.Context
	issue Issue[ID]
	newID func() ID
}

var legacyStart = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// issued issues a legacy token some time after legacyStart.
func (s legacyStore[ID]) issued(user ID, after time.Duration) string {
	secret, err := s.issue(s.ctx, user, legacyStart.Add(after))
	must("issue a legacy token", err)
	return secret
}

// found returns the row of a legacy token.
func (s legacyStore[ID]) found(secret string) strategy.AccessToken[ID] {
	row, err := s.ByLegacyToken(s.ctx, secret)
	must("ByLegacyToken", err)
	return row
}

// gone fails if a legacy token is found, or listed for its user.
func (s legacyStore[ID]) gone(secret string, row strategy.AccessToken[ID]) {
	found, err := s.ByLegacyToken(s.ctx, secret)
	wantError("ByLegacyToken", found, err, strategy.ErrTokenNotFound)
	for _, id := range s.listed(row.UserID) {
		if id == row.ID {
			fail("ByUser returned a session that has ended")
		}
	}
}

// listed returns the IDs of a user's sessions, which it reads two at a time.
func (s legacyStore[ID]) listed(user ID) (ids []uuid.UUID) {
	for after := (strategy.Position{}); ; {
		const limit = 2
		rows, err := s.ByUser(s.ctx, user, after, limit)
		must("ByUser", err)
		for _, row := range rows {
			ids = append(ids, row.ID)
			after = strategy.Position{CreatedAt: row.CreatedAt, ID: row.ID}
		}
		if len(rows) < limit {
			return ids
		}
		if len(ids) > 1000 {
			fail("the pages of ByUser do not end")
		}
	}
}

// own inserts a token of Latchkey's.
func (s legacyStore[ID]) own(user ID, after time.Duration) strategy.AccessToken[ID] {
	row := strategy.AccessToken[ID]{ID: uuid.Must(uuid.NewV7()), Digest: newDigest(), UserID: user, CreatedAt: legacyStart.Add(after)}
	must("Insert", s.Insert(s.ctx, row))
	return row
}

func legacyFormat[ID comparable](s legacyStore[ID]) {
	if secret := s.issued(s.newID(), 0); !s.Legacy(secret) {
		fail("Legacy returned false for a legacy token")
	}
	own, _ := token.Default.New()
	for _, other := range []string{"", own, "x"} {
		if s.Legacy(other) {
			fail("Legacy returned true for a string of %d characters that is no legacy token", len(other))
		}
	}
}

func legacyFound[ID comparable](s legacyStore[ID]) {
	user := s.newID()
	secret := s.issued(user, time.Millisecond)
	s.issued(user, 0)
	s.issued(s.newID(), time.Millisecond)
	first := s.found(secret)
	switch {
	case !first.Legacy:
		fail("ByLegacyToken returned a row that is not Legacy")
	case first.UserID != user:
		fail("ByLegacyToken returned the user %v, want %v", first.UserID, user)
	case !first.CreatedAt.Equal(legacyStart.Add(time.Millisecond)):
		fail("ByLegacyToken returned the creation time %v, want %v", first.CreatedAt, legacyStart.Add(time.Millisecond))
	case first.Digest != token.DigestOf(secret):
		fail("ByLegacyToken returned a digest that is not that of the token")
	case first.ID == uuid.Nil || first.Scopes != nil:
		fail("ByLegacyToken returned a row without an ID, or with scopes")
	}
	if again := s.found(secret); again.ID != first.ID {
		fail("ByLegacyToken returned the ID %v, and then %v", first.ID, again.ID)
	}
}

func legacyUnknown[ID comparable](s legacyStore[ID]) {
	secret := s.issued(s.newID(), 0)
	row := s.found(secret)
	_, err := s.DeleteLegacyToken(s.ctx, secret)
	must("DeleteLegacyToken", err)
	_, found := s.ByLegacyToken(s.ctx, secret)
	_, rotated := s.RotateLegacyToken(s.ctx, secret, strategy.Rotation{Digest: newDigest()})
	_, deleted := s.DeleteLegacyToken(s.ctx, secret)
	_, ended := s.DeleteSession(s.ctx, row.UserID, row.ID)
	wantErrors(strategy.ErrTokenNotFound, map[string]error{
		"ByLegacyToken": found, "RotateLegacyToken": rotated, "DeleteLegacyToken": deleted, "DeleteSession": ended,
	})
}

func legacyListed[ID comparable](s legacyStore[ID]) {
	user := s.newID()
	s.issued(s.newID(), 0)
	var want []uuid.UUID
	for i := range 6 { // two of the same time each
		at := time.Duration(i/2) * time.Second
		want = append(want, s.found(s.issued(user, at)).ID, s.own(user, at+time.Millisecond).ID)
	}
	rows, err := s.ByUser(s.ctx, user, strategy.Position{}, 100)
	must("ByUser", err)
	for i := 1; i < len(rows); i++ {
		if rows[i].CreatedAt.After(rows[i-1].CreatedAt) {
			fail("ByUser returned a newer row after an older one")
		}
	}
	got := s.listed(user)
	for _, id := range want {
		if n := count(got, id); n != 1 {
			fail("the pages of ByUser have a session %d times, want once", n)
		}
	}
	if len(got) != len(want) || len(rows) != len(want) {
		fail("ByUser returned %d sessions on one page and %d on several, want %d", len(rows), len(got), len(want))
	}
}

func count(ids []uuid.UUID, id uuid.UUID) (n int) {
	for _, other := range ids {
		if other == id {
			n++
		}
	}
	return n
}

func legacyDeleted[ID comparable](s legacyStore[ID]) {
	user := s.newID()
	for _, how := range []string{"by its token", "by its session ID"} {
		for _, used := range []bool{false, true} {
			in("a token deleted "+how, func() {
				spared := s.issued(user, 0)
				secret := s.issued(user, time.Second)
				row := strategy.AccessToken[ID]{UserID: user}
				if rows, err := s.ByUser(s.ctx, user, strategy.Position{}, 1); err == nil && len(rows) == 1 {
					row = rows[0]
				}
				if used {
					row = s.found(secret)
				}
				var deleted strategy.AccessToken[ID]
				var err error
				if how == "by its token" {
					deleted, err = s.DeleteLegacyToken(s.ctx, secret)
				} else {
					_, err = s.DeleteSession(s.ctx, s.newID(), row.ID)
					wantError("DeleteSession of another user", nil, err, strategy.ErrTokenNotFound)
					deleted, err = s.DeleteSession(s.ctx, user, row.ID)
				}
				must("the delete", err)
				if deleted.UserID != user || deleted.ID != row.ID {
					fail("the delete returned the session %v of %v, want %v of %v", deleted.ID, deleted.UserID, row.ID, user)
				}
				s.gone(secret, row)
				s.found(spared)
				_, err = s.DeleteLegacyToken(s.ctx, spared)
				must("DeleteLegacyToken", err)
			})
		}
	}
}

func legacyDeletedByUser[ID comparable](s legacyStore[ID]) {
	user, other := s.newID(), s.newID()
	secrets := []string{s.issued(user, 0), s.issued(user, time.Second), s.issued(user, 2*time.Second)}
	others := s.issued(other, 0)
	own := s.own(user, time.Second)
	first, kept := s.found(secrets[0]), s.found(secrets[1])
	n, err := s.DeleteByUser(s.ctx, user, kept.ID)
	must("DeleteByUser", err)
	if n != 3 {
		fail("DeleteByUser returned %d, want 3", n)
	}
	s.gone(secrets[0], first)
	_, err = s.ByLegacyToken(s.ctx, secrets[2])
	wantError("ByLegacyToken", nil, err, strategy.ErrTokenNotFound)
	_, err = s.ByToken(s.ctx, own.Digest)
	wantError("ByToken", nil, err, strategy.ErrTokenNotFound)
	s.found(secrets[1])
	s.found(others)
	n, err = s.DeleteByUser(s.ctx, user)
	must("DeleteByUser", err)
	if n != 1 {
		fail("DeleteByUser returned %d, want 1", n)
	}
	s.gone(secrets[1], kept)
	s.found(others)
}

func legacyRotated[ID comparable](s legacyStore[ID]) {
	user := s.newID()
	secret := s.issued(user, time.Second)
	before := s.found(secret)
	to := strategy.Rotation{Digest: newDigest(), TokenVersion: 3, AuthenticatedAt: legacyStart.Add(time.Minute)}
	after, err := s.RotateLegacyToken(s.ctx, secret, to)
	must("RotateLegacyToken", err)
	for _, op := range []string{"RotateLegacyToken", "ByToken"} {
		switch {
		case after.Legacy:
			fail("%s returned a row that is still Legacy", op)
		case after.ID != before.ID || after.UserID != user || !after.CreatedAt.Equal(before.CreatedAt) || !after.ExpiresAt.Equal(before.ExpiresAt):
			fail("%s returned %+v, want the session of %+v", op, after, before)
		case after.Digest != to.Digest || after.TokenVersion != to.TokenVersion || !after.AuthenticatedAt.Equal(to.AuthenticatedAt):
			fail("%s returned %+v, want the changes of %+v", op, after, to)
		}
		after, err = s.ByToken(s.ctx, to.Digest)
		must("ByToken", err)
	}
	_, err = s.ByLegacyToken(s.ctx, secret)
	wantError("ByLegacyToken", nil, err, strategy.ErrTokenNotFound)
	if ids := s.listed(user); !slices.Equal(ids, []uuid.UUID{before.ID}) {
		fail("ByUser returned %v, want %v once", ids, before.ID)
	}
}

func legacyRotationRace[ID comparable](s legacyStore[ID]) {
	for range rounds {
		secret := s.issued(s.newID(), 0)
		digests := []string{newDigest(), newDigest(), newDigest(), newDigest()}
		won := oneWins("RotateLegacyToken", len(digests), strategy.ErrTokenNotFound, func(i int) error {
			_, err := s.RotateLegacyToken(s.ctx, secret, strategy.Rotation{Digest: digests[i]})
			return err
		})
		for i, digest := range digests {
			row, err := s.ByToken(s.ctx, digest)
			if i == won {
				must("ByToken of the winner", err)
			} else {
				wantError("ByToken of a loser", row, err, strategy.ErrTokenNotFound)
			}
		}
	}
}

// legacyDeleteRace deletes a token while it is used and rotated.
func legacyDeleteRace[ID comparable](s legacyStore[ID]) {
	user := s.newID()
	for range rounds {
		secret := s.issued(user, 0)
		to := strategy.Rotation{Digest: newDigest()}
		notFound := func(op string, err error) {
			if !errors.Is(err, strategy.ErrTokenNotFound) {
				must(op, err)
			}
		}
		concurrently(5, func(i int) {
			switch i {
			case 0:
				_, err := s.DeleteByUser(s.ctx, user)
				must("DeleteByUser", err)
			case 1:
				_, err := s.RotateLegacyToken(s.ctx, secret, to)
				notFound("RotateLegacyToken", err)
			default:
				_, err := s.ByLegacyToken(s.ctx, secret)
				notFound("ByLegacyToken", err)
			}
		})
		_, err := s.ByLegacyToken(s.ctx, secret)
		wantError("ByLegacyToken", nil, err, strategy.ErrTokenNotFound)
		_, err = s.DeleteByUser(s.ctx, user) // a rotation may have been the last
		must("DeleteByUser", err)
	}
}

func legacyCancelled[ID comparable](s legacyStore[ID]) {
	secret := s.issued(s.newID(), 0)
	ctx := cancelled(s.ctx)
	_, found := s.ByLegacyToken(ctx, secret)
	_, rotated := s.RotateLegacyToken(ctx, secret, strategy.Rotation{Digest: newDigest()})
	_, deleted := s.DeleteLegacyToken(ctx, secret)
	wantErrors(context.Canceled, map[string]error{"ByLegacyToken": found, "RotateLegacyToken": rotated, "DeleteLegacyToken": deleted})
	s.found(secret)
}
