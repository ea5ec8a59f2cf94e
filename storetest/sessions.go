package storetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/strategy"
)

// newDigest returns the digest of a new token.
func newDigest() string {
	_, digest := token.Default.New()
	return digest
}

// notShared catches stores that keep a caller's slice.
func notShared[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	want := s.full(s.newID(), instant)
	given := want
	given.Scopes = slices.Clone(want.Scopes)
	if err := s.insertAll(ctx, given); err != nil {
		return err
	}
	given.Scopes[0] = "changed"
	if err := s.holds(ctx, want); err != nil {
		return fmt.Errorf("after the scopes given to Insert were changed: %w", err)
	}
	got, err := s.ByToken(ctx, want.Digest)
	if err != nil {
		return fmt.Errorf("ByToken: %w", err)
	}
	got.Scopes[0] = "changed"
	list, err := s.ByUser(ctx, want.UserID, strategy.Position{}, 10)
	if err != nil || len(list) != 1 {
		return fmt.Errorf("ByUser returned %d tokens and the error %v, want 1 and none", len(list), err)
	}
	list[0].Scopes[0] = "changed"
	if err := s.holds(ctx, want); err != nil {
		return fmt.Errorf("after the scopes of a returned token were changed: %w", err)
	}
	return nil
}

func touch[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	user := s.newID()
	bare, full, other := s.token(instant), s.full(user, instant), s.full(user, instant)
	if err := s.insertAll(ctx, bare, full, other); err != nil {
		return err
	}
	at := instant.Add(2*time.Hour + 3*time.Millisecond)
	for _, token := range []*strategy.AccessToken[ID]{&bare, &full} {
		if err := s.Touch(ctx, token.Digest, at); err != nil {
			return fmt.Errorf("Touch: %w", err)
		}
		token.LastUsedAt = at
		if err := s.holds(ctx, *token); err != nil {
			return fmt.Errorf("after Touch: %w", err)
		}
	}
	if err := s.holds(ctx, other); err != nil {
		return fmt.Errorf("after Touch of another token: %w", err)
	}
	return nil
}

func touchForwards[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	token := s.token(instant)
	if err := s.insertAll(ctx, token); err != nil {
		return err
	}
	for _, after := range []time.Duration{5 * time.Second, 4999 * time.Millisecond, 5 * time.Second, -time.Hour, 5001 * time.Millisecond, 0} {
		at := instant.Add(after)
		if err := s.Touch(ctx, token.Digest, at); err != nil {
			return fmt.Errorf("Touch: %w", err)
		}
		if at.After(token.LastUsedAt) {
			token.LastUsedAt = at
		}
		if err := s.holds(ctx, token); err != nil {
			return fmt.Errorf("after Touch with %v: %w", at, err)
		}
	}
	// Of concurrent touches the latest stays, whatever their order.
	for round := range rounds {
		begin := instant.Add(time.Duration(1+round) * time.Hour)
		err := concurrently(8, func(i int) error {
			return s.Touch(ctx, token.Digest, begin.Add(time.Duration((i+3*round)%8)*time.Millisecond))
		})
		if err != nil {
			return fmt.Errorf("Touch: %w", err)
		}
		token.LastUsedAt = begin.Add(7 * time.Millisecond)
		if err := s.holds(ctx, token); err != nil {
			return fmt.Errorf("after concurrent touches: %w", err)
		}
	}
	return nil
}

func touchMissing[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	token := s.full(s.newID(), instant)
	if err := s.insertAll(ctx, token); err != nil {
		return err
	}
	if _, err := s.Delete(ctx, token.Digest); err != nil {
		return fmt.Errorf("Delete: %w", err)
	}
	for _, digest := range []string{token.Digest, newDigest()} {
		if err := s.Touch(ctx, digest, instant.Add(time.Hour)); err != nil {
			return fmt.Errorf("Touch of a missing token returned the error %q, want none", err)
		}
		if err := s.lacks(ctx, digest); err != nil {
			return fmt.Errorf("after Touch of a missing token: %w", err)
		}
	}
	return s.lists(ctx, token.UserID)
}

func touchRace[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	for round := range rounds {
		token := s.full(s.newID(), instant)
		if err := s.insertAll(ctx, token); err != nil {
			return err
		}
		err := concurrently(8, func(i int) error {
			if i == 0 {
				return s.end(ctx, round, token)
			}
			for n := range 4 {
				if err := s.Touch(ctx, token.Digest, instant.Add(time.Hour+time.Duration(i+8*n)*time.Millisecond)); err != nil {
					return fmt.Errorf("Touch: %w", err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := errors.Join(s.lacks(ctx, token.Digest), s.lists(ctx, token.UserID)); err != nil {
			return fmt.Errorf("after touches concurrent with the end of the session: %w", err)
		}
	}
	return nil
}

// end ends a session in one of the three ways.
func (s tokenStore[ID]) end(ctx context.Context, way int, token strategy.AccessToken[ID]) error {
	switch way % 3 {
	case 0:
		if _, err := s.Delete(ctx, token.Digest); err != nil {
			return fmt.Errorf("Delete: %w", err)
		}
	case 1:
		if _, err := s.DeleteSession(ctx, token.UserID, token.ID); err != nil {
			return fmt.Errorf("DeleteSession: %w", err)
		}
	default:
		if n, err := s.DeleteByUser(ctx, token.UserID); err != nil || n != 1 {
			return fmt.Errorf("DeleteByUser returned %d and the error %v, want 1 and none", n, err)
		}
	}
	return nil
}

// lists returns an error unless the store lists exactly these tokens of the user, in this
// order.
func (s tokenStore[ID]) lists(ctx context.Context, userID ID, want ...strategy.AccessToken[ID]) error {
	got, err := s.ByUser(ctx, userID, strategy.Position{}, len(want)+1)
	if err != nil {
		return fmt.Errorf("ByUser: %w", err)
	}
	return sameTokens("ByUser", got, want)
}

func sameTokens[ID comparable](op string, got, want []strategy.AccessToken[ID]) error {
	if len(got) != len(want) {
		return fmt.Errorf("%s returned %d tokens, want %d", op, len(got), len(want))
	}
	for i := range want {
		if err := sameToken(fmt.Sprintf("%s, token %d of %d", op, i+1, len(want)), got[i], want[i]); err != nil {
			return err
		}
	}
	return nil
}

// rotateTo rotates a token. It returns an error unless the store returns and finds want, and
// does not find the old digest any more.
func (s tokenStore[ID]) rotateTo(ctx context.Context, old string, to strategy.Rotation, want strategy.AccessToken[ID]) error {
	got, err := s.Rotate(ctx, old, to)
	if err != nil {
		return fmt.Errorf("Rotate: %w", err)
	}
	if err := sameToken("Rotate", got, want); err != nil {
		return err
	}
	if err := errors.Join(s.holds(ctx, want), s.lacks(ctx, old)); err != nil {
		return fmt.Errorf("after Rotate: %w", err)
	}
	return nil
}

func rotate[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	user := s.newID()
	full, bare, other := s.full(user, instant), s.token(instant), s.full(user, instant.Add(-time.Hour))
	if err := s.insertAll(ctx, full, bare, other); err != nil {
		return err
	}
	for range 2 { // a rotated session can be rotated again
		for _, token := range []*strategy.AccessToken[ID]{&full, &bare} {
			old := token.Digest
			token.Digest = newDigest()
			if err := s.rotateTo(ctx, old, strategy.Rotation{Digest: token.Digest}, *token); err != nil {
				return err
			}
		}
	}
	return s.lists(ctx, user, full, other)
}

func rotateTimes[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	for _, token := range []strategy.AccessToken[ID]{s.token(instant), s.full(s.newID(), instant)} {
		if err := s.insertAll(ctx, token); err != nil {
			return err
		}
		// Times are given by their distance from instant; 0 is the zero time.
		for _, to := range []struct{ used, authenticated time.Duration }{
			{2 * time.Hour, 0},
			{0, 3 * time.Hour},
			{time.Hour, time.Hour},
			{4*time.Hour + time.Millisecond, 5*time.Hour + time.Millisecond},
			{4 * time.Hour, 6 * time.Hour},
			{0, 0},
		} {
			old := token.Digest
			token.Digest = newDigest()
			rotation := strategy.Rotation{Digest: token.Digest}
			if to.used != 0 {
				rotation.LastUsedAt = instant.Add(to.used)
			}
			if to.authenticated != 0 {
				rotation.AuthenticatedAt = instant.Add(to.authenticated)
			}
			if rotation.LastUsedAt.After(token.LastUsedAt) {
				token.LastUsedAt = rotation.LastUsedAt
			}
			if rotation.AuthenticatedAt.After(token.AuthenticatedAt) {
				token.AuthenticatedAt = rotation.AuthenticatedAt
			}
			if err := s.rotateTo(ctx, old, rotation, token); err != nil {
				return err
			}
		}
	}
	return nil
}

func rotateVersion[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	for _, token := range []strategy.AccessToken[ID]{s.token(instant), s.full(s.newID(), instant)} {
		if err := s.insertAll(ctx, token); err != nil {
			return err
		}
		for _, version := range []int64{0, 1, 0, 9, 9, 8, 10, math.MaxInt32 + 1, 10, math.MaxInt64, 0} {
			old := token.Digest
			token.Digest = newDigest()
			before := token.TokenVersion
			token.TokenVersion = max(before, version)
			if err := s.rotateTo(ctx, old, strategy.Rotation{Digest: token.Digest, TokenVersion: version}, token); err != nil {
				return fmt.Errorf("a rotation with version %d of a token with version %d: %w", version, before, err)
			}
		}
	}
	return nil
}

func rotateMissing[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	deleted, old, other := s.full(s.newID(), instant), s.full(s.newID(), instant), s.full(s.newID(), instant)
	if err := s.insertAll(ctx, deleted, old, other); err != nil {
		return err
	}
	if _, err := s.Delete(ctx, deleted.Digest); err != nil {
		return fmt.Errorf("Delete: %w", err)
	}
	now := old
	now.Digest = newDigest()
	if err := s.rotateTo(ctx, old.Digest, strategy.Rotation{Digest: now.Digest}, now); err != nil {
		return err
	}
	for _, missing := range []string{deleted.Digest, old.Digest, newDigest(), ""} {
		to := strategy.Rotation{Digest: newDigest(), LastUsedAt: instant.Add(time.Hour), AuthenticatedAt: instant.Add(time.Hour), TokenVersion: 9}
		got, err := s.Rotate(ctx, missing, to)
		if err := wantError("Rotate of a missing token", got, err, strategy.ErrTokenNotFound); err != nil {
			return err
		}
		if err := errors.Join(s.lacks(ctx, missing), s.lacks(ctx, to.Digest)); err != nil {
			return fmt.Errorf("after Rotate of a missing token: %w", err)
		}
	}
	return errors.Join(s.holds(ctx, now), s.holds(ctx, other), s.lists(ctx, deleted.UserID))
}

func rotateRace[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	for range rounds {
		token := s.full(s.newID(), instant)
		if err := s.insertAll(ctx, token); err != nil {
			return err
		}
		digests := make([]string, 8)
		for i := range digests {
			digests[i] = newDigest()
		}
		winner, err := oneWins("Rotate of a token", len(digests), strategy.ErrTokenNotFound, func(i int) error {
			_, err := s.Rotate(ctx, token.Digest, strategy.Rotation{Digest: digests[i]})
			return cmp.Or(s.lacks(ctx, token.Digest), err)
		})
		if err != nil {
			return err
		}
		for i, digest := range digests {
			if i == winner {
				continue
			}
			if err := s.lacks(ctx, digest); err != nil {
				return fmt.Errorf("the digest of a rotation that failed: %w", err)
			}
		}
		token.Digest = digests[winner]
		if err := errors.Join(s.holds(ctx, token), s.lists(ctx, token.UserID, token)); err != nil {
			return fmt.Errorf("after concurrent rotations: %w", err)
		}
	}
	return nil
}

// rotateWhile rotates a token as 7 concurrent clients would while end runs. Each client
// rotates up to 4 times and stops when the token is gone. It returns every digest that the
// token may have had.
func (s tokenStore[ID]) rotateWhile(ctx context.Context, token strategy.AccessToken[ID], end func() error) (digests []string, err error) {
	var mu sync.Mutex
	err = concurrently(8, func(i int) error {
		if i == 0 {
			return end()
		}
		for from, n := token.Digest, 0; n < 4; n++ {
			to := newDigest()
			mu.Lock()
			digests = append(digests, to)
			mu.Unlock()
			_, err := s.Rotate(ctx, from, strategy.Rotation{Digest: to, LastUsedAt: instant.Add(time.Hour)})
			if errors.Is(err, strategy.ErrTokenNotFound) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("Rotate: %w", err)
			}
			from = to
		}
		return nil
	})
	return append(digests, token.Digest), err
}

func rotateDeleteRace[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	for range rounds {
		token := s.full(s.newID(), instant)
		if err := s.insertAll(ctx, token); err != nil {
			return err
		}
		deleted := false
		digests, err := s.rotateWhile(ctx, token, func() error {
			_, err := s.Delete(ctx, token.Digest)
			deleted = err == nil
			if err != nil && !errors.Is(err, strategy.ErrTokenNotFound) {
				return fmt.Errorf("Delete: %w", err)
			}
			return nil
		})
		if err != nil {
			return err
		}
		found := 0
		for _, digest := range digests {
			if s.lacks(ctx, digest) != nil {
				found++
			}
		}
		// Either Delete found the token, or a rotation came first.
		want := 1
		if deleted {
			want = 0
		}
		if found != want {
			return fmt.Errorf("after rotations concurrent with Delete, which deleted the token: %v: %d digests are found, want %d", deleted, found, want)
		}
	}
	return nil
}

func rotateDeleteSessionRace[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	for round := range rounds {
		token := s.full(s.newID(), instant)
		if err := s.insertAll(ctx, token); err != nil {
			return err
		}
		digests, err := s.rotateWhile(ctx, token, func() error { return s.end(ctx, 1+round%2, token) })
		if err != nil {
			return err
		}
		for _, digest := range digests {
			if err := s.lacks(ctx, digest); err != nil {
				return fmt.Errorf("after rotations concurrent with the end of the session: %w", err)
			}
		}
		if err := s.lists(ctx, token.UserID); err != nil {
			return fmt.Errorf("after rotations concurrent with the end of the session: %w", err)
		}
	}
	return nil
}

// history inserts tokens of one user, some of them created at the same time, between tokens
// of other users. It returns the user's tokens, newest first.
func (s tokenStore[ID]) history(ctx context.Context) (userID ID, newestFirst []strategy.AccessToken[ID], err error) {
	userID = s.newID()
	var all []strategy.AccessToken[ID]
	for i, at := range []time.Duration{4, 3, 3, 3, 3, 2, 1, 1} {
		token := s.token(instant.Add(at * time.Millisecond))
		token.UserID = userID
		// IDs order only tokens of the same time, so they are not in the order of creation.
		token.ID = uuid.UUID{6: 0x70, 8: 0x80, 14: byte(i * 37), 15: byte(200 - i)}
		token.ID[0] = byte(200 - 50*(i%4))
		if i == 2 {
			full := s.full(userID, token.CreatedAt)
			full.ID = token.ID
			token = full
		}
		all = append(all, token)
	}
	// The tokens 1 to 4 have the same time, and the first bytes 150, 100, 50, 200.
	newestFirst = []strategy.AccessToken[ID]{all[0], all[4], all[1], all[2], all[3], all[5], all[6], all[7]}
	for _, i := range []int{3, 7, 0, 4, 2, 6, 1, 5} {
		other := s.token(all[i].CreatedAt)
		if err := s.insertAll(ctx, all[i], other); err != nil {
			return userID, nil, err
		}
	}
	return userID, newestFirst, nil
}

func position[ID comparable](token strategy.AccessToken[ID]) strategy.Position {
	return strategy.Position{CreatedAt: token.CreatedAt, ID: token.ID}
}

func listed[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	user, want, err := s.history(ctx)
	if err != nil {
		return err
	}
	if err := s.lists(ctx, user, want...); err != nil {
		return err
	}
	if err := s.lists(ctx, s.newID()); err != nil {
		return fmt.Errorf("of a user without tokens: %w", err)
	}
	// The list shows the last write.
	if _, err := s.Delete(ctx, want[3].Digest); err != nil {
		return fmt.Errorf("Delete: %w", err)
	}
	if err := s.Touch(ctx, want[5].Digest, instant.Add(time.Hour)); err != nil {
		return fmt.Errorf("Touch: %w", err)
	}
	want[5].LastUsedAt = instant.Add(time.Hour)
	old := want[0].Digest
	want[0].Digest = newDigest()
	if err := s.rotateTo(ctx, old, strategy.Rotation{Digest: want[0].Digest}, want[0]); err != nil {
		return err
	}
	return s.lists(ctx, user, slices.Delete(want, 3, 4)...)
}

func pages[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	user, want, err := s.history(ctx)
	if err != nil {
		return err
	}
	for limit := 1; limit <= len(want)+1; limit++ {
		var after strategy.Position
		for rest := want; ; {
			got, err := s.ByUser(ctx, user, after, limit)
			if err != nil {
				return fmt.Errorf("ByUser: %w", err)
			}
			n := min(limit, len(rest))
			if err := sameTokens(fmt.Sprintf("ByUser after %v, at most %d", after, limit), got, rest[:n]); err != nil {
				return err
			}
			if n == 0 {
				break
			}
			after, rest = position(rest[n-1]), rest[n:]
		}
	}
	// A position stays valid when its token is deleted.
	if _, err := s.Delete(ctx, want[2].Digest); err != nil {
		return fmt.Errorf("Delete: %w", err)
	}
	got, err := s.ByUser(ctx, user, position(want[2]), 2)
	if err != nil {
		return fmt.Errorf("ByUser: %w", err)
	}
	return sameTokens("ByUser after a deleted token", got, want[3:5])
}

func deleteSession[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	user := s.newID()
	token, neighbour := s.full(user, instant), s.full(user, instant.Add(-time.Second))
	if err := s.insertAll(ctx, token, neighbour); err != nil {
		return err
	}
	first := token.Digest
	token.Digest = newDigest()
	if err := s.rotateTo(ctx, first, strategy.Rotation{Digest: token.Digest}, token); err != nil {
		return err
	}
	got, err := s.DeleteSession(ctx, user, token.ID)
	if err != nil {
		return fmt.Errorf("DeleteSession: %w", err)
	}
	if err := sameToken("DeleteSession", got, token); err != nil {
		return err
	}
	if err := errors.Join(s.lacks(ctx, first), s.lacks(ctx, token.Digest), s.holds(ctx, neighbour), s.lists(ctx, user, neighbour)); err != nil {
		return fmt.Errorf("after DeleteSession: %w", err)
	}
	for _, id := range []uuid.UUID{token.ID, uuid.Must(uuid.NewV7()), uuid.Nil} {
		got, err := s.DeleteSession(ctx, user, id)
		if err := wantError("DeleteSession of a missing session", got, err, strategy.ErrTokenNotFound); err != nil {
			return err
		}
	}
	return s.lists(ctx, user, neighbour)
}

func deleteSessionOfAnother[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	token, own := s.full(s.newID(), instant), s.token(instant)
	if err := s.insertAll(ctx, token, own); err != nil {
		return err
	}
	for _, user := range []ID{own.UserID, s.newID()} {
		got, err := s.DeleteSession(ctx, user, token.ID)
		if err := wantError("DeleteSession of another user's session", got, err, strategy.ErrTokenNotFound); err != nil {
			return err
		}
	}
	if err := errors.Join(s.holds(ctx, token), s.holds(ctx, own)); err != nil {
		return fmt.Errorf("after DeleteSession of another user's session: %w", err)
	}
	return nil
}

func deleteSessionRace[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	for _, each := range []int{1, 2} { // all deletes are by the ID, or every second one
		token, err := s.insert(ctx, instant)
		if err != nil {
			return err
		}
		_, err = oneWins("DeleteSession and Delete of a session", 8, strategy.ErrTokenNotFound, func(i int) error {
			var err error
			if i%each == 0 {
				_, err = s.DeleteSession(ctx, token.UserID, token.ID)
			} else {
				_, err = s.Delete(ctx, token.Digest)
			}
			return cmp.Or(s.lacks(ctx, token.Digest), err)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func deleteByUser[ID comparable](ctx context.Context, s tokenStore[ID]) error {
	user := s.newID()
	other := s.full(s.newID(), instant)
	var own []strategy.AccessToken[ID]
	for i := range 6 {
		own = append(own, s.full(user, instant.Add(-time.Duration(i)*time.Second)))
	}
	if err := s.insertAll(ctx, append(own, other)...); err != nil {
		return err
	}
	old := own[4].Digest
	own[4].Digest = newDigest()
	if err := s.rotateTo(ctx, old, strategy.Rotation{Digest: own[4].Digest}, own[4]); err != nil {
		return err
	}
	for _, step := range []struct {
		except []uuid.UUID
		n      int64
		left   []strategy.AccessToken[ID]
	}{
		{[]uuid.UUID{own[1].ID, own[4].ID, own[5].ID, other.ID, uuid.Must(uuid.NewV7())}, 3, []strategy.AccessToken[ID]{own[1], own[4], own[5]}},
		{[]uuid.UUID{own[1].ID, own[4].ID, own[5].ID}, 0, []strategy.AccessToken[ID]{own[1], own[4], own[5]}},
		{[]uuid.UUID{own[4].ID}, 2, []strategy.AccessToken[ID]{own[4]}},
		{nil, 1, nil},
		{nil, 0, nil},
	} {
		n, err := s.DeleteByUser(ctx, user, step.except...)
		op := fmt.Sprintf("DeleteByUser with %d exceptions", len(step.except))
		if err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
		if n != step.n {
			return fmt.Errorf("%s returned %d, want %d", op, n, step.n)
		}
		if err := errors.Join(s.lists(ctx, user, step.left...), s.holds(ctx, other)); err != nil {
			return fmt.Errorf("after %s: %w", op, err)
		}
		for _, token := range own {
			kept := slices.ContainsFunc(step.left, func(t strategy.AccessToken[ID]) bool { return t.ID == token.ID })
			if found := s.lacks(ctx, token.Digest) != nil; found != kept {
				return fmt.Errorf("after %s: a token is found by its digest: %v, want %v", op, found, kept)
			}
		}
	}
	return nil
}
