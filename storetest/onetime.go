package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/account"
)

// RunOneTimeTokens checks an account.OneTimeTokenStore. Each subtest calls open, which must
// return an empty store. newID makes user IDs, as for [Run].
//
// Nearly all tokens of the checks expire in a hundred years or later, so that a server with a
// clock of its own does not remove them.
func RunOneTimeTokens[ID comparable](t *testing.T, newID func() ID, open func(testing.TB) account.OneTimeTokenStore[ID]) {
	t.Helper()
	oneTimeSuite(newID, open).run(t)
}

func oneTimeSuite[ID comparable](newID func() ID, open func(testing.TB) account.OneTimeTokenStore[ID]) suite[oneTimeStore[ID]] {
	return suite[oneTimeStore[ID]]{
		open: func(ctx context.Context, t testing.TB) oneTimeStore[ID] { return oneTimeStore[ID]{open(t), ctx, newID} },
		checks: []check[oneTimeStore[ID]]{
			{"every field is returned as it was stored", oneTimeRoundTrip[ID]},
			{"a missing token is ErrOneTimeTokenNotFound", oneTimeMissing[ID]},
			{"a token is found and taken for its own purpose only", oneTimePurpose[ID]},
			{"a token can be found many times before it is taken", oneTimeFindKeeps[ID]},
			{"taking a token returns it once", oneTimeTakeTwice[ID]},
			{"one of many concurrent calls of Take succeeds", oneTimeTakeRace[ID]},
			{"a removed token stays removed while other tokens are used", oneTimeNoResurrection[ID]},
			{"a removed token stays removed under concurrent reads and inserts", oneTimeNoResurrectionRace[ID]},
			{"a token that has just expired is found and taken", oneTimeExpired[ID]},
			{"a taken digest is an error and changes nothing", oneTimeDuplicate[ID]},
			{"an insert keeps the newest tokens of the user and purpose", oneTimeKeepsNewest[ID]},
			{"an insert removes no token of another user or purpose", oneTimeKeepsOthers[ID]},
			{"tokens that were created far ahead of a new one count as the oldest", oneTimeAhead[ID]},
			{"concurrent inserts leave the newest tokens", oneTimeInsertRace[ID]},
			{"all tokens of a user and purpose are deleted, or of a user", oneTimeDeleteByUser[ID]},
			{"a cancelled context stops every method", oneTimeCancelled[ID]},
		},
	}
}

// oneTimeStore is the store under test.
type oneTimeStore[ID comparable] struct {
	account.OneTimeTokenStore[ID]
	ctx   context.Context
	newID func() ID
}

// purposes are the purposes of tokens; stores must accept others too.
var purposes = []account.Purpose{account.PurposeVerification, account.PurposePasswordReset, account.PurposeEmailChange, "Another purpose"}

// enough is a limit that no check reaches by accident.
const enough = 100

// token returns a user's token that was created at a time and expires an hour later.
func (s oneTimeStore[ID]) token(userID ID, purpose account.Purpose, at time.Time) account.OneTimeToken[ID] {
	return account.OneTimeToken[ID]{
		Digest: newDigest(), Purpose: purpose, UserID: userID, SentTo: "new@example.com", Email: ann,
		TokenVersion: 7, CreatedAt: at, ExpiresAt: at.Add(time.Hour + time.Millisecond),
	}
}

// some returns a token of a new user.
func (s oneTimeStore[ID]) some() account.OneTimeToken[ID] {
	return s.token(s.newID(), account.PurposePasswordReset, future)
}

// insert stores tokens, with room for all of them.
func (s oneTimeStore[ID]) insert(tokens ...account.OneTimeToken[ID]) {
	for _, token := range tokens {
		s.insertKeeping(enough, token)
	}
}

func (s oneTimeStore[ID]) insertKeeping(keep int, token account.OneTimeToken[ID]) {
	must("Insert", s.Insert(s.ctx, token, keep))
}

// take takes a token that exists.
func (s oneTimeStore[ID]) take(token account.OneTimeToken[ID]) {
	got, err := s.Take(s.ctx, token.Purpose, token.Digest)
	must("Take", err)
	sameOneTime("Take", got, token)
}

// holds fails unless the store finds exactly these tokens.
func (s oneTimeStore[ID]) holds(tokens ...account.OneTimeToken[ID]) {
	for _, want := range tokens {
		got, err := s.Find(s.ctx, want.Purpose, want.Digest)
		must("Find", err)
		sameOneTime("Find", got, want)
	}
}

// lacks fails unless the store reports the tokens as missing.
func (s oneTimeStore[ID]) lacks(tokens ...account.OneTimeToken[ID]) {
	for _, token := range tokens {
		s.lacksFor(token.Purpose, token.Digest)
	}
}

// lacksFor fails unless Find and Take report a digest as missing for a purpose.
func (s oneTimeStore[ID]) lacksFor(purpose account.Purpose, digest string) {
	got, err := s.Find(s.ctx, purpose, digest)
	wantError("Find", got, err, account.ErrOneTimeTokenNotFound)
	got, err = s.Take(s.ctx, purpose, digest)
	wantError("Take", got, err, account.ErrOneTimeTokenNotFound)
}

// holdsOnly fails unless the store has exactly the given ones of all tokens.
func (s oneTimeStore[ID]) holdsOnly(kept, all []account.OneTimeToken[ID]) {
	for i, token := range all {
		in(fmt.Sprintf("the token that was stored as number %d", i+1), func() {
			if slices.Contains(kept, token) {
				s.holds(token)
			} else {
				s.lacks(token)
			}
		})
	}
}

func sameOneTime[ID comparable](op string, got, want account.OneTimeToken[ID]) {
	for _, f := range []struct {
		name      string
		got, want any
	}{
		{"Digest", got.Digest, want.Digest},
		{"Purpose", got.Purpose, want.Purpose},
		{"UserID", got.UserID, want.UserID},
		{"SentTo", got.SentTo, want.SentTo},
		{"Email", got.Email, want.Email},
		{"TokenVersion", got.TokenVersion, want.TokenVersion},
	} {
		if f.got != f.want {
			fail("%s: %s is %#v, want %#v", op, f.name, f.got, f.want)
		}
	}
	for _, f := range []struct {
		name      string
		got, want time.Time
	}{
		{"CreatedAt", got.CreatedAt, want.CreatedAt},
		{"ExpiresAt", got.ExpiresAt, want.ExpiresAt},
	} {
		switch {
		case !f.got.Equal(f.want):
			fail("%s: %s is %v, want %v", op, f.name, f.got, f.want)
		case f.got.Location() != time.UTC:
			fail("%s: %s is in %v, want UTC", op, f.name, f.got.Location())
		}
	}
}

func oneTimeRoundTrip[ID comparable](s oneTimeStore[ID]) {
	var tokens []account.OneTimeToken[ID]
	for _, purpose := range purposes {
		for _, alter := range []func(*account.OneTimeToken[ID]){
			func(*account.OneTimeToken[ID]) {},
			func(t *account.OneTimeToken[ID]) { t.SentTo = t.Email },
			func(t *account.OneTimeToken[ID]) {
				t.SentTo, t.Email = "Änne@例え.example", "o'hara+$ne@example.com"
			},
			func(t *account.OneTimeToken[ID]) { t.TokenVersion = 0 },
			func(t *account.OneTimeToken[ID]) { t.TokenVersion = math.MaxInt32 + 1 },
			func(t *account.OneTimeToken[ID]) { t.TokenVersion = 1<<53 + 1 }, // no float64 has this value
			func(t *account.OneTimeToken[ID]) { t.TokenVersion = math.MaxInt64 },
			func(t *account.OneTimeToken[ID]) { t.CreatedAt = future.Truncate(time.Second) },
			func(t *account.OneTimeToken[ID]) { t.CreatedAt = time.UnixMilli(-1).UTC() },
			func(t *account.OneTimeToken[ID]) { t.ExpiresAt = future.Truncate(time.Second) },
			func(t *account.OneTimeToken[ID]) { t.ExpiresAt = time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC) },
		} {
			token := s.token(s.newID(), purpose, future)
			alter(&token)
			s.insert(token)
			s.holds(token)
			tokens = append(tokens, token)
		}
	}
	in("after other tokens were stored", func() { s.holds(tokens...) })
	for _, token := range tokens {
		s.take(token)
	}
}

func oneTimeMissing[ID comparable](s oneTimeStore[ID]) {
	token := s.some()
	s.insert(token)
	for _, digest := range []string{newDigest(), "", "$ne", `{"$ne": null}`, token.Digest[:42], strings.ToLower(token.Digest)} {
		s.lacksFor(token.Purpose, digest)
	}
	s.holds(token)
}

func oneTimePurpose[ID comparable](s oneTimeStore[ID]) {
	for _, purpose := range purposes {
		token := s.token(s.newID(), purpose, future)
		s.insert(token)
		for _, other := range append([]account.Purpose{"", "unknown"}, purposes...) {
			if other == purpose {
				continue
			}
			in(fmt.Sprintf("a token for %q, asked for %q", purpose, other), func() {
				s.lacksFor(other, token.Digest)
				s.holds(token)
			})
		}
		s.take(token)
	}
}

func oneTimeFindKeeps[ID comparable](s oneTimeStore[ID]) {
	token := s.some()
	s.insert(token)
	concurrently(4, func(int) {
		s.holds(token)
		s.holds(token)
	})
	s.take(token)
}

func oneTimeTakeTwice[ID comparable](s oneTimeStore[ID]) {
	token, other := s.some(), s.some()
	s.insert(token, other)
	s.take(token)
	in("after Take", func() { s.lacks(token) })
	s.holds(other)
}

func oneTimeTakeRace[ID comparable](s oneTimeStore[ID]) {
	for range rounds {
		token := s.some()
		s.insert(token)
		oneWins("Take of a token", 8, account.ErrOneTimeTokenNotFound, func(int) error {
			got, err := s.Take(s.ctx, token.Purpose, token.Digest)
			if err == nil {
				sameOneTime("Take", got, token)
			}
			return err
		})
		s.lacks(token)
	}
}

// oneTimeNoResurrection catches stores that write back what they have read.
func oneTimeNoResurrection[ID comparable](s oneTimeStore[ID]) {
	userID := s.newID()
	token := func() account.OneTimeToken[ID] { return s.token(userID, account.PurposeVerification, future) }
	taken, replaced, deleted, other := token(), token(), token(), token()
	s.insert(taken)
	s.holds(taken)
	s.take(taken)
	s.insert(replaced)
	s.holds(replaced)
	deleted.CreatedAt = future.Add(time.Second)
	s.insertKeeping(1, deleted)
	s.holds(deleted)
	must("DeleteByUser", s.DeleteByUser(s.ctx, userID, ""))
	s.insert(other)
	s.holds(other)
	s.lacks(taken, replaced, deleted)
	s.holds(other)
}

func oneTimeNoResurrectionRace[ID comparable](s oneTimeStore[ID]) {
	for range rounds {
		token := s.some()
		s.insert(token)
		concurrently(8, func(i int) {
			switch {
			case i == 0:
				s.take(token)
			case i%2 == 0:
				s.insert(s.token(token.UserID, token.Purpose, future.Add(time.Duration(i)*time.Millisecond)))
			default:
				if _, err := s.Find(s.ctx, token.Purpose, token.Digest); !errors.Is(err, account.ErrOneTimeTokenNotFound) {
					must("Find", err)
				}
			}
		})
		in("after calls concurrent with Take", func() { s.lacks(token) })
	}
}

// oneTimeExpired catches stores that judge the expiry by a clock of their own.
func oneTimeExpired[ID comparable](s oneTimeStore[ID]) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	for _, ago := range []time.Duration{0, time.Millisecond, time.Minute} {
		token := s.some()
		token.CreatedAt, token.ExpiresAt = now.Add(-time.Hour), now.Add(-ago)
		in(fmt.Sprintf("a token that expired %v ago", ago), func() {
			s.insert(token)
			s.holds(token)
			s.take(token)
		})
	}
}

func oneTimeDuplicate[ID comparable](s oneTimeStore[ID]) {
	first := s.some()
	older, newer := s.token(first.UserID, first.Purpose, future.Add(-time.Second)), s.token(first.UserID, first.Purpose, future.Add(time.Second))
	s.insert(first, older, newer)
	for name, second := range map[string]account.OneTimeToken[ID]{
		"the same token":              first,
		"a token of another user":     s.token(s.newID(), first.Purpose, future),
		"a token of another purpose":  s.token(first.UserID, account.PurposeEmailChange, future),
		"a newer token of the user's": s.token(first.UserID, first.Purpose, future.Add(time.Minute)),
	} {
		second.Digest = first.Digest
		in(name, func() {
			if s.Insert(s.ctx, second, 1) == nil {
				fail("Insert of a taken digest returned nil, want an error")
			}
			s.holds(first, older, newer)
			if second.Purpose != first.Purpose {
				s.lacks(second)
			}
		})
	}
}

// newest returns the n newest tokens.
func newest[ID comparable](n int, tokens []account.OneTimeToken[ID]) []account.OneTimeToken[ID] {
	sorted := slices.SortedFunc(slices.Values(tokens), func(a, b account.OneTimeToken[ID]) int {
		if c := b.CreatedAt.Compare(a.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(b.Digest, a.Digest)
	})
	return sorted[:min(n, len(sorted))]
}

func oneTimeKeepsNewest[ID comparable](s oneTimeStore[ID]) {
	for _, c := range []struct {
		name string
		at   []time.Duration // creation times, in the order of the inserts
	}{
		{"in the order of their times", []time.Duration{0, 1, 2, 3, 4, 5, 6}},
		{"in another order", []time.Duration{3, 6, 1, 5, 0, 2, 4}},
		{"newest first", []time.Duration{6, 5, 4, 3, 2, 1, 0}},
		{"at the same time", make([]time.Duration, 7)},
	} {
		for _, keep := range []int{1, 3} {
			userID := s.newID()
			var all []account.OneTimeToken[ID]
			for _, at := range c.at {
				token := s.token(userID, account.PurposeVerification, future.Add(at*time.Millisecond))
				// The limit is about the creation; the last ones expire first.
				token.ExpiresAt = future.Add(time.Hour - at*time.Second)
				s.insertKeeping(keep, token)
				all = append(all, token)
				in(fmt.Sprintf("tokens %s, keeping %d, after insert %d", c.name, keep, len(all)), func() {
					s.holdsOnly(newest(keep, all), all)
				})
			}
		}
	}
	// A lower limit removes all that are too many, not only one.
	userID := s.newID()
	var all []account.OneTimeToken[ID]
	for i := range 6 {
		all = append(all, s.token(userID, account.PurposeVerification, future.Add(time.Duration(i)*time.Second)))
	}
	s.insert(all[:5]...)
	s.holds(all[:5]...)
	s.insertKeeping(2, all[5])
	in("after a lower limit", func() { s.holdsOnly(all[4:], all) })
}

func oneTimeKeepsOthers[ID comparable](s oneTimeStore[ID]) {
	var others []account.OneTimeToken[ID]
	one, another := s.newID(), s.newID()
	for _, purpose := range purposes {
		for i := range 3 {
			at := future.Add(time.Duration(i-10) * time.Second)
			others = append(others, s.token(another, purpose, at))
			if purpose != account.PurposeVerification {
				others = append(others, s.token(one, purpose, at))
			}
		}
	}
	s.insert(others...)
	for i := range 4 {
		s.insertKeeping(1, s.token(one, account.PurposeVerification, future.Add(time.Duration(i)*time.Second)))
	}
	s.holds(others...)
}

func oneTimeAhead[ID comparable](s oneTimeStore[ID]) {
	const skew = 10 * time.Second // what the contract takes for ahead
	for _, c := range []struct {
		name  string
		ahead time.Duration
		stays bool // the new token, which is older by ahead
	}{
		{"10 s ahead", skew, false},
		{"more than 10 s ahead", skew + time.Millisecond, true},
		{"years ahead", 100_000 * time.Hour, true},
	} {
		in(c.name, func() {
			userID := s.newID()
			var ahead []account.OneTimeToken[ID]
			for range 3 {
				ahead = append(ahead, s.token(userID, account.PurposePasswordReset, future.Add(c.ahead)))
			}
			s.insert(ahead...)
			token := s.token(userID, account.PurposePasswordReset, future)
			s.insertKeeping(3, token)
			if !c.stays {
				s.holdsOnly(ahead, append(ahead, token))
				return
			}
			s.holds(token)
			if n := s.count(ahead); n != 2 {
				fail("%d of 3 tokens from the future remain, want 2", n)
			}
			second, third := token, token
			second.Digest, third.Digest = newDigest(), newDigest()
			s.insertKeeping(3, second)
			s.holds(token, second)
			s.insertKeeping(3, third)
			s.holdsOnly([]account.OneTimeToken[ID]{token, second, third}, append(ahead, token, second, third))
		})
	}
}

// count returns how many of the tokens the store has.
func (s oneTimeStore[ID]) count(tokens []account.OneTimeToken[ID]) (n int) {
	for _, token := range tokens {
		if _, err := s.Find(s.ctx, token.Purpose, token.Digest); !errors.Is(err, account.ErrOneTimeTokenNotFound) {
			must("Find", err)
			n++
		}
	}
	return n
}

func oneTimeInsertRace[ID comparable](s oneTimeStore[ID]) {
	for round := range rounds {
		keep := 1 + round%3
		userID := s.newID()
		var all []account.OneTimeToken[ID]
		for i := range 8 {
			all = append(all, s.token(userID, account.PurposeVerification, future.Add(time.Duration(i/2)*time.Millisecond)))
		}
		concurrently(len(all), func(i int) { s.insertKeeping(keep, all[i]) })
		in(fmt.Sprintf("after %d concurrent inserts, keeping %d", len(all), keep), func() { s.holdsOnly(newest(keep, all), all) })
	}
}

func oneTimeDeleteByUser[ID comparable](s oneTimeStore[ID]) {
	one, another := s.newID(), s.newID()
	must("DeleteByUser of a user without tokens", s.DeleteByUser(s.ctx, one, purposes[0]))
	must("DeleteByUser of a user without tokens", s.DeleteByUser(s.ctx, one, ""))
	var first, rest, others []account.OneTimeToken[ID]
	for _, purpose := range purposes {
		for i := range 3 {
			at := future.Add(time.Duration(i) * time.Second)
			if purpose == purposes[0] {
				first = append(first, s.token(one, purpose, at))
			} else {
				rest = append(rest, s.token(one, purpose, at))
			}
			others = append(others, s.token(another, purpose, at))
		}
	}
	s.insert(slices.Concat(first, rest, others)...)
	must("DeleteByUser", s.DeleteByUser(s.ctx, one, "unknown"))
	s.holds(slices.Concat(first, rest, others)...)
	must("DeleteByUser", s.DeleteByUser(s.ctx, one, purposes[0]))
	in("after the tokens of a purpose were deleted", func() {
		s.lacks(first...)
		s.holds(slices.Concat(rest, others)...)
	})
	must("DeleteByUser", s.DeleteByUser(s.ctx, one, ""))
	in("after all tokens were deleted", func() {
		s.lacks(rest...)
		s.holds(others...)
	})
}

func oneTimeCancelled[ID comparable](s oneTimeStore[ID]) {
	token := s.some()
	late := s.token(token.UserID, token.Purpose, future.Add(time.Second))
	s.insert(token)
	dead := cancelled(s.ctx)
	_, find := s.Find(dead, token.Purpose, token.Digest)
	_, take := s.Take(dead, token.Purpose, token.Digest)
	wantErrors(context.Canceled, map[string]error{
		"Insert":       s.Insert(dead, late, 1),
		"Find":         find,
		"Take":         take,
		"DeleteByUser": s.DeleteByUser(dead, token.UserID, ""),
	})
	s.holds(token)
	s.lacks(late)
}
