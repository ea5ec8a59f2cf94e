package storetest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/strategy"
)

// notShared catches stores that keep a caller's slice.
func notShared[ID comparable](s tokenStore[ID]) {
	want := s.full(s.newID(), instant)
	given := want
	given.Scopes = slices.Clone(want.Scopes)
	s.insert(given)
	given.Scopes[0] = "changed"
	in("after the scopes given to Insert were changed", func() { s.holds(want) })
	got, err := s.ByToken(s.ctx, want.Digest)
	must("ByToken", err)
	got.Scopes[0] = "changed"
	list, err := s.ByUser(s.ctx, want.UserID, strategy.Position{}, 10)
	if err != nil || len(list) != 1 {
		fail("ByUser returned %d tokens and the error %v, want 1 and none", len(list), err)
	}
	list[0].Scopes[0] = "changed"
	in("after the scopes of a returned token were changed", func() { s.holds(want) })
}

func touch[ID comparable](s tokenStore[ID]) {
	user := s.newID()
	bare, full, other := s.token(instant), s.full(user, instant), s.full(user, instant)
	s.insert(bare, full, other)
	at := instant.Add(2*time.Hour + 3*time.Millisecond)
	for _, token := range []*strategy.AccessToken[ID]{&bare, &full} {
		s.touch(token.Digest, at)
		token.LastUsedAt = at
		in("after Touch", func() { s.holds(*token) })
	}
	in("after Touch of another token", func() { s.holds(other) })
}

func touchForwards[ID comparable](s tokenStore[ID]) {
	token := s.inserted(instant)
	for _, after := range []time.Duration{5 * time.Second, 4999 * time.Millisecond, 5 * time.Second, -time.Hour, 5001 * time.Millisecond, 0} {
		at := instant.Add(after)
		s.touch(token.Digest, at)
		token.LastUsedAt = latest(token.LastUsedAt, at)
		in(fmt.Sprintf("after Touch with %v", at), func() { s.holds(token) })
	}
	// Of concurrent touches the latest stays, whatever their order.
	for round := range rounds {
		begin := instant.Add(time.Duration(1+round) * time.Hour)
		concurrently(8, func(i int) {
			s.touch(token.Digest, begin.Add(time.Duration((i+3*round)%8)*time.Millisecond))
		})
		token.LastUsedAt = begin.Add(7 * time.Millisecond)
		in("after concurrent touches", func() { s.holds(token) })
	}
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func touchMissing[ID comparable](s tokenStore[ID]) {
	token := s.insertedFull()
	s.delete(token.Digest)
	in("Touch of a missing token", func() {
		for _, digest := range []string{token.Digest, newDigest()} {
			s.touch(digest, instant.Add(time.Hour))
			s.lacks(digest)
		}
		s.lists(token.UserID)
	})
}

func touchRace[ID comparable](s tokenStore[ID]) {
	for round := range rounds {
		token := s.insertedFull()
		concurrently(8, func(i int) {
			if i == 0 {
				s.end(round, token)
				return
			}
			for n := range 4 {
				s.touch(token.Digest, instant.Add(time.Hour+time.Duration(i+8*n)*time.Millisecond))
			}
		})
		in("after touches concurrent with the end of the session", func() {
			s.lacks(token.Digest)
			s.lists(token.UserID)
		})
	}
}

// end ends a session in one of the three ways.
func (s tokenStore[ID]) end(way int, token strategy.AccessToken[ID]) {
	switch way % 3 {
	case 0:
		s.delete(token.Digest)
	case 1:
		_, err := s.DeleteSession(s.ctx, token.UserID, token.ID)
		must("DeleteSession", err)
	default:
		if n, err := s.DeleteByUser(s.ctx, token.UserID); err != nil || n != 1 {
			fail("DeleteByUser returned %d and the error %v, want 1 and none", n, err)
		}
	}
}

// lists fails unless the store lists exactly these tokens of the user, in this order.
func (s tokenStore[ID]) lists(userID ID, want ...strategy.AccessToken[ID]) {
	s.pageIs(userID, strategy.Position{}, len(want)+1, want)
}

// pageIs fails unless a page of the user's list has exactly these tokens.
func (s tokenStore[ID]) pageIs(userID ID, after strategy.Position, limit int, want []strategy.AccessToken[ID]) {
	got, err := s.ByUser(s.ctx, userID, after, limit)
	op := fmt.Sprintf("ByUser after %v, at most %d", after, limit)
	must(op, err)
	if len(got) != len(want) {
		fail("%s returned %d tokens, want %d", op, len(got), len(want))
	}
	for i := range want {
		sameToken(fmt.Sprintf("%s, token %d of %d", op, i+1, len(want)), got[i], want[i])
	}
}

// rotateTo rotates a token. It fails unless the store returns and finds want, and does not
// find the old digest any more.
func (s tokenStore[ID]) rotateTo(old string, to strategy.Rotation, want strategy.AccessToken[ID]) {
	got, err := s.Rotate(s.ctx, old, to)
	must("Rotate", err)
	sameToken("Rotate", got, want)
	in("after Rotate", func() {
		s.holds(want)
		s.lacks(old)
	})
}

// rotated gives a token a new digest.
func (s tokenStore[ID]) rotated(token *strategy.AccessToken[ID]) {
	old := token.Digest
	token.Digest = newDigest()
	s.rotateTo(old, strategy.Rotation{Digest: token.Digest}, *token)
}

func rotate[ID comparable](s tokenStore[ID]) {
	user := s.newID()
	full, bare, other := s.full(user, instant), s.token(instant), s.full(user, instant.Add(-time.Hour))
	s.insert(full, bare, other)
	for range 2 { // a rotated session can be rotated again
		s.rotated(&full)
		s.rotated(&bare)
	}
	s.lists(user, full, other)
}

func rotateTimes[ID comparable](s tokenStore[ID]) {
	for _, token := range []strategy.AccessToken[ID]{s.inserted(instant), s.insertedFull()} {
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
			token.LastUsedAt = latest(token.LastUsedAt, rotation.LastUsedAt)
			if to.authenticated != 0 {
				rotation.AuthenticatedAt = instant.Add(to.authenticated)
				token.AuthenticatedAt = rotation.AuthenticatedAt
			}
			s.rotateTo(old, rotation, token)
		}
	}
}

func rotateVersion[ID comparable](s tokenStore[ID]) {
	for _, token := range []strategy.AccessToken[ID]{s.inserted(instant), s.insertedFull()} {
		for _, version := range []int64{0, 1, 0, 9, 9, 8, 10, math.MaxInt32 + 1, 10, math.MaxInt64, 0} {
			old, before := token.Digest, token.TokenVersion
			token.Digest, token.TokenVersion = newDigest(), max(before, version)
			in(fmt.Sprintf("a rotation with version %d of a token with version %d", version, before), func() {
				s.rotateTo(old, strategy.Rotation{Digest: token.Digest, TokenVersion: version}, token)
			})
		}
	}
}

func rotateMissing[ID comparable](s tokenStore[ID]) {
	deleted, now, other := s.insertedFull(), s.insertedFull(), s.insertedFull()
	s.delete(deleted.Digest)
	old := now.Digest
	s.rotated(&now)
	for _, missing := range []string{deleted.Digest, old, newDigest(), ""} {
		to := strategy.Rotation{Digest: newDigest(), LastUsedAt: instant.Add(time.Hour), AuthenticatedAt: instant.Add(time.Hour), TokenVersion: 9}
		got, err := s.Rotate(s.ctx, missing, to)
		wantError("Rotate of a missing token", got, err, strategy.ErrTokenNotFound)
		in("after Rotate of a missing token", func() { s.lacks(missing, to.Digest) })
	}
	s.holds(now, other)
	s.lists(deleted.UserID)
}

func rotateRace[ID comparable](s tokenStore[ID]) {
	for range rounds {
		token := s.insertedFull()
		digests := make([]string, 8)
		for i := range digests {
			digests[i] = newDigest()
		}
		winner := oneWins("Rotate of a token", len(digests), strategy.ErrTokenNotFound, func(i int) error {
			_, err := s.Rotate(s.ctx, token.Digest, strategy.Rotation{Digest: digests[i]})
			s.lacks(token.Digest)
			return err
		})
		token.Digest = digests[winner]
		in("after concurrent rotations", func() {
			s.lacks(slices.Delete(digests, winner, winner+1)...)
			s.holds(token)
			s.lists(token.UserID, token)
		})
	}
}

// rotateWhile rotates a token as 7 concurrent clients would while end runs. Each client
// rotates up to 4 times and stops when the token is gone. It returns every digest that the
// token may have had.
func (s tokenStore[ID]) rotateWhile(token strategy.AccessToken[ID], end func()) (digests []string) {
	digests = []string{token.Digest}
	var mu sync.Mutex
	concurrently(8, func(i int) {
		if i == 0 {
			end()
			return
		}
		for from, n := token.Digest, 0; n < 4; n++ {
			to := newDigest()
			mu.Lock()
			digests = append(digests, to)
			mu.Unlock()
			_, err := s.Rotate(s.ctx, from, strategy.Rotation{Digest: to, LastUsedAt: instant.Add(time.Hour)})
			if errors.Is(err, strategy.ErrTokenNotFound) {
				return
			}
			must("Rotate", err)
			from = to
		}
	})
	return digests
}

func rotateDeleteRace[ID comparable](s tokenStore[ID]) {
	for range rounds {
		token := s.insertedFull()
		want := 1 // a rotation came first, or Delete found the token
		digests := s.rotateWhile(token, func() {
			_, err := s.Delete(s.ctx, token.Digest)
			if err == nil {
				want = 0
			} else if !errors.Is(err, strategy.ErrTokenNotFound) {
				must("Delete", err)
			}
		})
		found := 0
		for _, digest := range digests {
			if s.finds(digest) {
				found++
			}
		}
		if found != want {
			fail("after rotations concurrent with Delete, which deleted the token: %v: %d digests are found, want %d", want == 0, found, want)
		}
	}
}

func rotateDeleteSessionRace[ID comparable](s tokenStore[ID]) {
	for round := range rounds {
		token := s.insertedFull()
		digests := s.rotateWhile(token, func() { s.end(1+round%2, token) })
		in("after rotations concurrent with the end of the session", func() {
			s.lacks(digests...)
			s.lists(token.UserID)
		})
	}
}

// history inserts tokens of one user, some of them created at the same time, between tokens
// of other users. It returns the user's tokens, newest first.
func (s tokenStore[ID]) history() (userID ID, newestFirst []strategy.AccessToken[ID]) {
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
		s.insert(all[i], s.token(all[i].CreatedAt))
	}
	return userID, newestFirst
}

func position[ID comparable](token strategy.AccessToken[ID]) strategy.Position {
	return strategy.Position{CreatedAt: token.CreatedAt, ID: token.ID}
}

func listed[ID comparable](s tokenStore[ID]) {
	user, want := s.history()
	s.lists(user, want...)
	in("of a user without tokens", func() { s.lists(s.newID()) })
	// The list shows the last write.
	s.delete(want[3].Digest)
	s.touch(want[5].Digest, instant.Add(time.Hour))
	want[5].LastUsedAt = instant.Add(time.Hour)
	s.rotated(&want[0])
	s.lists(user, slices.Delete(want, 3, 4)...)
}

func pages[ID comparable](s tokenStore[ID]) {
	user, want := s.history()
	for limit := 1; limit <= len(want)+1; limit++ {
		var after strategy.Position
		for rest := want; ; {
			n := min(limit, len(rest))
			s.pageIs(user, after, limit, rest[:n])
			if n == 0 {
				break
			}
			after, rest = position(rest[n-1]), rest[n:]
		}
	}
	// A position stays valid when its token is deleted.
	s.delete(want[2].Digest)
	in("after a deleted token", func() { s.pageIs(user, position(want[2]), 2, want[3:5]) })
}

func rename[ID comparable](s tokenStore[ID]) {
	token, neighbour := s.insertedFull(), s.inserted(instant)
	for _, name := range []string{"build server", "", "Änne's 🔑"} {
		must("Rename", s.Rename(s.ctx, token.UserID, token.ID, name))
		token.Name = name
		in(fmt.Sprintf("after Rename to %q", name), func() {
			s.holds(token, neighbour)
			s.lists(token.UserID, token)
		})
		s.rotated(&token) // the name belongs to the session
	}
	must("Rename of a session without a name", s.Rename(s.ctx, neighbour.UserID, neighbour.ID, "first"))
	neighbour.Name = "first"
	s.holds(token, neighbour)
}

func renameMissing[ID comparable](s tokenStore[ID]) {
	token, own := s.insertedFull(), s.inserted(instant)
	missing := s.token(instant)
	for _, c := range []struct {
		user ID
		id   uuid.UUID
	}{{own.UserID, token.ID}, {s.newID(), token.ID}, {own.UserID, missing.ID}, {missing.UserID, missing.ID}} {
		wantError("Rename of a missing session", nil, s.Rename(s.ctx, c.user, c.id, "new"), strategy.ErrTokenNotFound)
		s.lists(c.user, s.listed(c.user, own)...)
	}
	s.holds(token, own)
	s.lacks(missing.Digest)
}

// listed returns token if it is the user's.
func (s tokenStore[ID]) listed(userID ID, token strategy.AccessToken[ID]) []strategy.AccessToken[ID] {
	if token.UserID == userID {
		return []strategy.AccessToken[ID]{token}
	}
	return nil
}

func renameRace[ID comparable](s tokenStore[ID]) {
	for round := range rounds {
		token := s.insertedFull()
		concurrently(4, func(i int) {
			if i == 0 {
				s.end(round%2, token)
				return
			}
			err := s.Rename(s.ctx, token.UserID, token.ID, fmt.Sprint("name ", i))
			if !errors.Is(err, strategy.ErrTokenNotFound) {
				must("Rename", err)
			}
		})
		in("after renames concurrent with the end of the session", func() {
			s.lacks(token.Digest)
			s.lists(token.UserID)
		})
	}
}

func deleteSession[ID comparable](s tokenStore[ID]) {
	user := s.newID()
	token, neighbour := s.full(user, instant), s.full(user, instant.Add(-time.Second))
	s.insert(token, neighbour)
	first := token.Digest
	s.rotated(&token)
	got, err := s.DeleteSession(s.ctx, user, token.ID)
	must("DeleteSession", err)
	sameToken("DeleteSession", got, token)
	in("after DeleteSession", func() {
		s.lacks(first, token.Digest)
		s.holds(neighbour)
		s.lists(user, neighbour)
	})
	for _, id := range []uuid.UUID{token.ID, uuid.Must(uuid.NewV7()), uuid.Nil} {
		got, err := s.DeleteSession(s.ctx, user, id)
		wantError("DeleteSession of a missing session", got, err, strategy.ErrTokenNotFound)
	}
	s.lists(user, neighbour)
}

func deleteSessionOfAnother[ID comparable](s tokenStore[ID]) {
	token, own := s.insertedFull(), s.inserted(instant)
	for _, user := range []ID{own.UserID, s.newID()} {
		got, err := s.DeleteSession(s.ctx, user, token.ID)
		wantError("DeleteSession of another user's session", got, err, strategy.ErrTokenNotFound)
	}
	in("after DeleteSession of another user's session", func() { s.holds(token, own) })
}

func deleteSessionRace[ID comparable](s tokenStore[ID]) {
	for _, each := range []int{1, 2} { // all deletes are by the ID, or every second one
		token := s.inserted(instant)
		oneWins("DeleteSession and Delete of a session", 8, strategy.ErrTokenNotFound, func(i int) (err error) {
			if i%each == 0 {
				_, err = s.DeleteSession(s.ctx, token.UserID, token.ID)
			} else {
				_, err = s.Delete(s.ctx, token.Digest)
			}
			s.lacks(token.Digest)
			return err
		})
	}
}

func deleteByUser[ID comparable](s tokenStore[ID]) {
	user, other := s.newID(), s.insertedFull()
	var own []strategy.AccessToken[ID]
	for i := range 6 {
		own = append(own, s.full(user, instant.Add(-time.Duration(i)*time.Second)))
	}
	s.insert(own...)
	s.rotated(&own[4])
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
		in(fmt.Sprintf("DeleteByUser with %d exceptions", len(step.except)), func() {
			n, err := s.DeleteByUser(s.ctx, user, step.except...)
			must("DeleteByUser", err)
			if n != step.n {
				fail("it returned %d, want %d", n, step.n)
			}
			s.lists(user, step.left...)
			s.holds(other)
			for _, token := range own {
				kept := slices.ContainsFunc(step.left, func(t strategy.AccessToken[ID]) bool { return t.ID == token.ID })
				if found := s.finds(token.Digest); found != kept {
					fail("a token is found by its digest: %v, want %v", found, kept)
				}
			}
		})
	}
}
