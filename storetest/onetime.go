package storetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/account"
)

// RunOneTimeTokens checks an account.OneTimeTokenStore. Each subtest calls open, which must
// return an empty store. newID must return a new user ID with each call.
//
// The checks' times are a hundred years ahead, so that a server with a clock of its own does
// not remove tokens that have not expired by the checks' times.
func RunOneTimeTokens[ID comparable](t *testing.T, newID func() ID, open func(testing.TB) account.OneTimeTokenStore[ID]) {
	t.Helper()
	oneTimeSuite(newID, open).run(t)
}

func oneTimeSuite[ID comparable](newID func() ID, open func(testing.TB) account.OneTimeTokenStore[ID]) suite[oneTimeStore[ID]] {
	return suite[oneTimeStore[ID]]{
		open: func(ctx context.Context, t testing.TB) oneTimeStore[ID] { return oneTimeStore[ID]{open(t), ctx, newID} },
		checks: []check[oneTimeStore[ID]]{
			{"a token is found as it was inserted", oneTimeRoundTrip[ID]},
			{"a missing token is ErrOneTimeTokenNotFound", oneTimeMissing[ID]},
			{"a token is of one purpose only", oneTimePurpose[ID]},
			{"finding keeps the token", oneTimeFind[ID]},
			{"taking returns the token and deletes it", oneTimeTake[ID]},
			{"one of many concurrent takes succeeds", oneTimeRace[ID]},
			{"inserting deletes the oldest of the user and purpose", oneTimeKeep[ID]},
			{"concurrent inserts leave no more than they keep", oneTimeKeepRace[ID]},
			{"deleting by user deletes one purpose or all", oneTimeDelete[ID]},
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

// token returns a new token of a user, issued a number of milliseconds after future.
func (s oneTimeStore[ID]) token(userID ID, purpose account.Purpose, after int) account.OneTimeToken[ID] {
	at := future.Add(time.Duration(after) * time.Millisecond)
	return account.OneTimeToken[ID]{
		Digest: newDigest(), Purpose: purpose, UserID: userID,
		SentTo: "new@bücher.example", Email: "ann@example.com", TokenVersion: 1<<40 + 1,
		CreatedAt: at, ExpiresAt: at.Add(time.Hour + time.Millisecond),
	}
}

// inserted stores new tokens of a user, each a millisecond newer than the one before.
func (s oneTimeStore[ID]) inserted(userID ID, purpose account.Purpose, n int) []account.OneTimeToken[ID] {
	tokens := make([]account.OneTimeToken[ID], n)
	for i := range tokens {
		tokens[i] = s.token(userID, purpose, i)
		must("Insert", s.Insert(s.ctx, tokens[i], n))
	}
	return tokens
}

// holds fails unless the store finds exactly these tokens.
func (s oneTimeStore[ID]) holds(tokens ...account.OneTimeToken[ID]) {
	for _, want := range tokens {
		got, err := s.Find(s.ctx, want.Purpose, want.Digest)
		must("Find", err)
		sameOneTime("Find", got, want)
	}
}

// lacks fails if the store finds one of these tokens.
func (s oneTimeStore[ID]) lacks(tokens ...account.OneTimeToken[ID]) {
	for _, t := range tokens {
		got, err := s.Find(s.ctx, t.Purpose, t.Digest)
		wantError("Find of a missing token", got, err, account.ErrOneTimeTokenNotFound)
		got, err = s.Take(s.ctx, t.Purpose, t.Digest)
		wantError("Take of a missing token", got, err, account.ErrOneTimeTokenNotFound)
	}
}

func sameOneTime[ID comparable](op string, got, want account.OneTimeToken[ID]) {
	for name, at := range map[string][2]time.Time{"CreatedAt": {got.CreatedAt, want.CreatedAt}, "ExpiresAt": {got.ExpiresAt, want.ExpiresAt}} {
		if !at[0].Equal(at[1]) || at[0].Location() != time.UTC {
			fail("%s: %s is %v, want %v", op, name, at[0], at[1])
		}
	}
	got.CreatedAt, got.ExpiresAt = want.CreatedAt, want.ExpiresAt
	if got != want {
		fail("%s returned\n%+v, want\n%+v", op, got, want)
	}
}

func oneTimeRoundTrip[ID comparable](s oneTimeStore[ID]) {
	first := s.token(s.newID(), account.PurposeEmailChange, 0)
	second := s.token(s.newID(), account.PurposeVerification, 1)
	second.TokenVersion, second.SentTo = 0, second.Email
	expired := s.token(s.newID(), account.PurposePasswordReset, 2)
	expired.ExpiresAt = expired.CreatedAt
	for _, token := range []account.OneTimeToken[ID]{first, second, expired} {
		must("Insert", s.Insert(s.ctx, token, 3))
	}
	s.holds(first, second, expired)
}

func oneTimeMissing[ID comparable](s oneTimeStore[ID]) {
	kept := s.inserted(s.newID(), account.PurposeVerification, 1)
	s.lacks(s.token(s.newID(), account.PurposeVerification, 0))
	s.holds(kept...)
}

func oneTimePurpose[ID comparable](s oneTimeStore[ID]) {
	token := s.inserted(s.newID(), account.PurposeVerification, 1)[0]
	for _, purpose := range []account.Purpose{account.PurposePasswordReset, account.PurposeEmailChange, ""} {
		other := token
		other.Purpose = purpose
		in(fmt.Sprintf("for the purpose %q", purpose), func() { s.lacks(other) })
	}
	s.holds(token)
}

func oneTimeFind[ID comparable](s oneTimeStore[ID]) {
	token := s.inserted(s.newID(), account.PurposeVerification, 1)[0]
	for range 3 {
		s.holds(token)
	}
}

func oneTimeTake[ID comparable](s oneTimeStore[ID]) {
	user := s.newID()
	tokens := s.inserted(user, account.PurposePasswordReset, 2)
	others := append(s.inserted(user, account.PurposeVerification, 1), s.inserted(s.newID(), account.PurposePasswordReset, 1)...)
	got, err := s.Take(s.ctx, tokens[0].Purpose, tokens[0].Digest)
	must("Take", err)
	sameOneTime("Take", got, tokens[0])
	s.lacks(tokens[0])
	s.holds(tokens[1])
	s.holds(others...)
}

func oneTimeRace[ID comparable](s oneTimeStore[ID]) {
	for range rounds {
		token := s.inserted(s.newID(), account.PurposePasswordReset, 1)[0]
		oneWins("Take", 8, account.ErrOneTimeTokenNotFound, func(int) error {
			_, err := s.Take(s.ctx, token.Purpose, token.Digest)
			return err
		})
		s.lacks(token)
	}
}

func oneTimeKeep[ID comparable](s oneTimeStore[ID]) {
	user := s.newID()
	others := append(s.inserted(user, account.PurposeVerification, 4), s.inserted(s.newID(), account.PurposePasswordReset, 4)...)
	tokens := s.inserted(user, account.PurposePasswordReset, 4)
	next := s.token(user, account.PurposePasswordReset, 4)
	must("Insert", s.Insert(s.ctx, next, 3))
	s.lacks(tokens[:2]...)
	s.holds(append(tokens[2:], next)...)
	// By its time, a token can be the oldest at once.
	old := s.token(user, account.PurposePasswordReset, -1)
	must("Insert", s.Insert(s.ctx, old, 3))
	s.lacks(old)
	s.holds(append(tokens[2:], next)...)
	s.holds(others...)
}

func oneTimeKeepRace[ID comparable](s oneTimeStore[ID]) {
	for range rounds {
		user := s.newID()
		tokens := make([]account.OneTimeToken[ID], 8)
		for i := range tokens {
			tokens[i] = s.token(user, account.PurposePasswordReset, i)
		}
		concurrently(len(tokens), func(i int) { must("Insert", s.Insert(s.ctx, tokens[i], 3)) })
		s.lacks(tokens[:5]...)
		s.holds(tokens[5:]...)
	}
}

func oneTimeDelete[ID comparable](s oneTimeStore[ID]) {
	user := s.newID()
	others := s.inserted(s.newID(), account.PurposeVerification, 2)
	verification := s.inserted(user, account.PurposeVerification, 2)
	reset := s.inserted(user, account.PurposePasswordReset, 2)
	must("DeleteByUser", s.DeleteByUser(s.ctx, user, account.PurposeVerification))
	s.lacks(verification...)
	s.holds(reset...)
	change := s.inserted(user, account.PurposeEmailChange, 1)
	must("DeleteByUser", s.DeleteByUser(s.ctx, user, ""))
	s.lacks(append(reset, change...)...)
	s.holds(others...)
	must("DeleteByUser of a user without tokens", s.DeleteByUser(s.ctx, user, ""))
}

func oneTimeCancelled[ID comparable](s oneTimeStore[ID]) {
	kept := s.inserted(s.newID(), account.PurposeVerification, 1)[0]
	ctx := cancelled(s.ctx)
	lost := s.token(kept.UserID, kept.Purpose, 1)
	insert := s.Insert(ctx, lost, 3)
	_, find := s.Find(ctx, kept.Purpose, kept.Digest)
	_, take := s.Take(ctx, kept.Purpose, kept.Digest)
	wantErrors(context.Canceled, map[string]error{
		"Insert": insert, "Find": find, "Take": take, "DeleteByUser": s.DeleteByUser(ctx, kept.UserID, ""),
	})
	s.holds(kept)
	s.lacks(lost)
}
