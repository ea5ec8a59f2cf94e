package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/internal/token"
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
		open: func(ctx context.Context, t testing.TB) tokenStore[ID] { return tokenStore[ID]{open(t), ctx, newID} },
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
			{"a session is renamed, and nothing else of it changes", rename[ID]},
			{"renaming a missing or another user's session is ErrTokenNotFound and changes nothing", renameMissing[ID]},
			{"a deleted token stays deleted under concurrent renames", renameRace[ID]},
			{"a rotation changes the digest and nothing else", rotate[ID]},
			{"a rotation raises the last use, and sets the time of the authentication", rotateTimes[ID]},
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
			{"a cancelled context stops every method", tokenCancelled[ID]},
		},
	}
}

// tokenStore is the store under test.
type tokenStore[ID comparable] struct {
	strategy.Store[ID]
	ctx   context.Context
	newID func() ID
}

// instant is when most tokens of the checks were created.
var instant = time.Date(2026, 3, 29, 1, 59, 59, 987e6, time.UTC)

// newDigest returns the digest of a new token.
func newDigest() string {
	_, digest := token.Default.New()
	return digest
}

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

func (s tokenStore[ID]) insert(tokens ...strategy.AccessToken[ID]) {
	for _, token := range tokens {
		must("Insert", s.Insert(s.ctx, token))
	}
}

// inserted stores a new user's token without optional fields.
func (s tokenStore[ID]) inserted(at time.Time) strategy.AccessToken[ID] {
	token := s.token(at)
	s.insert(token)
	return token
}

// insertedFull stores a new user's token with all optional fields set.
func (s tokenStore[ID]) insertedFull() strategy.AccessToken[ID] {
	token := s.full(s.newID(), instant)
	s.insert(token)
	return token
}

// delete deletes a token that exists.
func (s tokenStore[ID]) delete(digest string) {
	_, err := s.Delete(s.ctx, digest)
	must("Delete", err)
}

func (s tokenStore[ID]) touch(digest string, at time.Time) {
	must("Touch", s.Touch(s.ctx, digest, at))
}

// holds fails unless the store finds exactly these tokens.
func (s tokenStore[ID]) holds(tokens ...strategy.AccessToken[ID]) {
	for _, want := range tokens {
		got, err := s.ByToken(s.ctx, want.Digest)
		must("ByToken", err)
		sameToken("ByToken", got, want)
	}
}

// lacks fails unless the store reports the tokens as missing.
func (s tokenStore[ID]) lacks(digests ...string) {
	for _, digest := range digests {
		got, err := s.ByToken(s.ctx, digest)
		wantError("ByToken", got, err, strategy.ErrTokenNotFound)
	}
}

// finds reports whether the store finds a token.
func (s tokenStore[ID]) finds(digest string) bool { return try(func() { s.lacks(digest) }) != nil }

func sameToken[ID comparable](op string, got, want strategy.AccessToken[ID]) {
	for _, f := range []struct {
		name      string
		got, want any
	}{
		{"ID", got.ID, want.ID},
		{"Digest", got.Digest, want.Digest},
		{"TokenVersion", got.TokenVersion, want.TokenVersion},
		{"UserID", got.UserID, want.UserID},
		{"Scopes", got.Scopes, want.Scopes}, // nil is not an empty list
		{"Name", got.Name, want.Name},
		{"UserAgent", got.UserAgent, want.UserAgent},
		{"ClientIP", got.ClientIP, want.ClientIP},
	} {
		if !reflect.DeepEqual(f.got, f.want) {
			fail("%s: %s is %#v, want %#v", op, f.name, f.got, f.want)
		}
	}
	for _, f := range []struct {
		name      string
		got, want time.Time
	}{
		{"CreatedAt", got.CreatedAt, want.CreatedAt},
		{"LastUsedAt", got.LastUsedAt, want.LastUsedAt},
		{"AuthenticatedAt", got.AuthenticatedAt, want.AuthenticatedAt},
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

func roundTrip[ID comparable](s tokenStore[ID]) {
	for _, token := range s.variety(s.newID()) {
		token.UserID = s.newID()
		s.insert(token)
		s.holds(token)
	}
}

func independentTokens[ID comparable](s tokenStore[ID]) {
	var tokens []strategy.AccessToken[ID]
	for i := range 10 {
		tokens = append(tokens, s.inserted(instant.Add(time.Duration(i)*time.Millisecond)))
	}
	second := s.token(instant)
	second.UserID = tokens[3].UserID
	in("a user's second token", func() { s.insert(second) })
	s.delete(tokens[3].Digest)
	in("after another token was deleted", func() { s.holds(append(slices.Delete(tokens, 3, 4), second)...) })
}

func missing[ID comparable](s tokenStore[ID]) { s.lacks(newDigest(), "", "$ne", `{"$ne": null}`) }

func duplicateDigest[ID comparable](s tokenStore[ID]) {
	first, second := s.inserted(instant), s.token(instant.Add(time.Hour))
	second.Digest = first.Digest
	wantError("Insert of a taken digest", nil, s.Insert(s.ctx, second), strategy.ErrDuplicateToken)
	s.holds(first)
}

func duplicateID[ID comparable](s tokenStore[ID]) {
	first, second := s.inserted(instant), s.token(instant.Add(time.Hour))
	second.ID = first.ID
	wantError("Insert of a taken session ID", nil, s.Insert(s.ctx, second), strategy.ErrDuplicateToken)
	s.holds(first)
	s.lacks(second.Digest)
}

func duplicateRace[ID comparable](s tokenStore[ID]) {
	var tokens []strategy.AccessToken[ID]
	digest := newDigest()
	for range 16 {
		token := s.token(instant)
		token.Digest = digest
		tokens = append(tokens, token)
	}
	winner := oneWins("Insert of a digest", len(tokens), strategy.ErrDuplicateToken, func(i int) error {
		return s.Insert(s.ctx, tokens[i])
	})
	s.holds(tokens[winner])
}

// anyAge catches stores that hide expired tokens: only strategy.Database decides on expiry.
func anyAge[ID comparable](s tokenStore[ID]) {
	for _, at := range []time.Time{
		instant.AddDate(0, 0, -1),
		instant.AddDate(-10, 0, 0),
		time.UnixMilli(0).UTC(),
		time.UnixMilli(0).UTC().AddDate(-10, 0, 0),
	} {
		in(fmt.Sprintf("a token of %v", at), func() {
			token := s.inserted(at)
			s.holds(token)
			s.lists(token.UserID, token)
		})
	}
}

func retention[ID comparable](s tokenStore[ID]) {
	want := s.Retention()
	if want < 0 {
		fail("Retention returned %v, want 0 or more", want)
	}
	s.delete(s.inserted(instant).Digest)
	concurrently(4, func(int) {
		if got := s.Retention(); got != want {
			fail("Retention returned %v, and %v before", got, want)
		}
	})
}

func deleteTwice[ID comparable](s tokenStore[ID]) {
	token := s.inserted(instant)
	got, err := s.Delete(s.ctx, token.Digest)
	must("Delete", err)
	sameToken("Delete", got, token)
	in("after Delete", func() { s.lacks(token.Digest) })
	got, err = s.Delete(s.ctx, token.Digest)
	wantError("the second Delete", got, err, strategy.ErrTokenNotFound)
	s.lacks(token.Digest)
}

func deleteRace[ID comparable](s tokenStore[ID]) {
	token := s.inserted(instant)
	oneWins("Delete of a token", 8, strategy.ErrTokenNotFound, func(int) error {
		_, err := s.Delete(s.ctx, token.Digest)
		s.lacks(token.Digest)
		return err
	})
	s.lacks(token.Digest)
}

// noResurrection catches stores that write back what they have read.
func noResurrection[ID comparable](s tokenStore[ID]) {
	token, other := s.inserted(instant), s.inserted(instant)
	s.holds(token)
	s.delete(token.Digest)
	s.inserted(instant)
	s.holds(other)
	s.delete(other.Digest)
	s.lacks(token.Digest, other.Digest)
}

func noResurrectionRace[ID comparable](s tokenStore[ID]) {
	for range rounds {
		token := s.inserted(instant)
		concurrently(8, func(i int) {
			if i == 0 {
				s.delete(token.Digest)
			} else if _, err := s.ByToken(s.ctx, token.Digest); !errors.Is(err, strategy.ErrTokenNotFound) {
				must("ByToken", err)
			}
		})
		in("after reads concurrent with Delete", func() { s.lacks(token.Digest) })
	}
}

func concurrentUse[ID comparable](s tokenStore[ID]) {
	concurrently(32, func(i int) {
		token := s.inserted(instant.Add(time.Duration(i) * time.Second))
		s.holds(token)
		if i%2 == 1 {
			s.delete(token.Digest)
			s.lacks(token.Digest)
		}
	})
}

func tokenCancelled[ID comparable](s tokenStore[ID]) {
	token, late := s.inserted(instant), s.token(instant)
	dead := cancelled(s.ctx)
	_, byToken := s.ByToken(dead, token.Digest)
	_, byUser := s.ByUser(dead, token.UserID, strategy.Position{}, 10)
	_, rotate := s.Rotate(dead, token.Digest, strategy.Rotation{Digest: late.Digest})
	_, remove := s.Delete(dead, token.Digest)
	_, removeSession := s.DeleteSession(dead, token.UserID, token.ID)
	_, removeByUser := s.DeleteByUser(dead, token.UserID)
	wantErrors(context.Canceled, map[string]error{
		"Insert":        s.Insert(dead, late),
		"ByToken":       byToken,
		"Touch":         s.Touch(dead, token.Digest, instant.Add(time.Hour)),
		"Rename":        s.Rename(dead, token.UserID, token.ID, "new"),
		"Rotate":        rotate,
		"ByUser":        byUser,
		"Delete":        remove,
		"DeleteSession": removeSession,
		"DeleteByUser":  removeByUser,
	})
	s.holds(token)
	s.lacks(late.Digest)
}
