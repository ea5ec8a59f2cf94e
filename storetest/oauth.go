package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/account"
)

// RunOAuthAccounts checks an account.OAuthAccountStore. Each subtest calls open, which must return
// an empty store. newID makes user IDs, as for [Run].
func RunOAuthAccounts[ID comparable](t *testing.T, newID func() ID, open func(testing.TB) account.OAuthAccountStore[ID]) {
	t.Helper()
	oauthSuite(newID, open).run(t)
}

func oauthSuite[ID comparable](newID func() ID, open func(testing.TB) account.OAuthAccountStore[ID]) suite[oauthStore[ID]] {
	return suite[oauthStore[ID]]{
		open: func(ctx context.Context, t testing.TB) oauthStore[ID] { return oauthStore[ID]{open(t), ctx, newID} },
		checks: []check[oauthStore[ID]]{
			{"every field is returned as it was stored", oauthRoundTrip[ID]},
			{"a missing link is ErrOAuthAccountNotFound", oauthMissing[ID]},
			{"issuer and subject are compared byte by byte", oauthExact[ID]},
			{"a linked issuer and subject are taken for every account", oauthTaken[ID]},
			{"one of many concurrent inserts succeeds", oauthInsertRace[ID]},
			{"the links of an account are listed in order", oauthList[ID]},
			{"a link is deleted once, by its own account only", oauthDelete[ID]},
			{"one of many concurrent deletions succeeds", oauthDeleteRace[ID]},
			{"a deleted link can be made again", oauthAgain[ID]},
			{"the last link to one of the kept issuers stays", oauthLast[ID]},
			{"concurrent deletions leave a link", oauthLastRace[ID]},
			{"a refused deletion does not hinder another one", oauthRefused[ID]},
			{"all links of an account are deleted, and no others", oauthDeleteByUser[ID]},
			{"a cancelled context stops every method", oauthCancelled[ID]},
		},
	}
}

// oauthStore is the store under test.
type oauthStore[ID comparable] struct {
	account.OAuthAccountStore[ID]
	ctx   context.Context
	newID func() ID
}

// The issuers of links.
const issuerA, issuerB, issuerC = "https://a.example.com", "https://b.example.com/tenant", "https://c.example.com"

// link returns a link that was made some milliseconds after a fixed time.
func (s oauthStore[ID]) link(userID ID, issuer, subject string, ms int) account.OAuthAccount[ID] {
	return account.OAuthAccount[ID]{
		Issuer: issuer, Subject: subject, UserID: userID, Email: ann, CreatedAt: past.Add(time.Duration(ms) * time.Millisecond),
	}
}

// past is when links were made.
var past = time.Date(2026, 3, 29, 1, 59, 59, 987e6, time.UTC)

func (s oauthStore[ID]) insert(links ...account.OAuthAccount[ID]) {
	for _, link := range links {
		must("Insert", s.Insert(s.ctx, link))
	}
}

// holds fails unless the store finds exactly these links.
func (s oauthStore[ID]) holds(links ...account.OAuthAccount[ID]) {
	for _, want := range links {
		got, err := s.Find(s.ctx, want.Issuer, want.Subject)
		must("Find", err)
		if got != want {
			fail("Find returned %+v, want %+v", got, want)
		}
	}
}

// lacks fails unless the store has none of the links.
func (s oauthStore[ID]) lacks(links ...account.OAuthAccount[ID]) {
	for _, link := range links {
		got, err := s.Find(s.ctx, link.Issuer, link.Subject)
		wantError("Find", got, err, account.ErrOAuthAccountNotFound)
	}
}

// lists fails unless an account has exactly these links, in this order.
func (s oauthStore[ID]) lists(userID ID, want ...account.OAuthAccount[ID]) {
	got, err := s.ListByUser(s.ctx, userID)
	must("ListByUser", err)
	if !slices.Equal(got, want) {
		fail("ListByUser returned %+v, want %+v", got, want)
	}
}

func (s oauthStore[ID]) remove(link account.OAuthAccount[ID], keep ...string) error {
	return s.Delete(s.ctx, link.UserID, link.Issuer, link.Subject, keep)
}

func oauthRoundTrip[ID comparable](s oauthStore[ID]) {
	link := s.link(s.newID(), issuerB, "auth0|Ünï/../“248289761001” $x.y", 1)
	noEmail := s.link(s.newID(), issuerA, "7", 0)
	noEmail.Email = ""
	s.insert(link, noEmail)
	s.holds(link, noEmail)
	s.lists(link.UserID, link)
	s.lists(noEmail.UserID, noEmail)
}

func oauthMissing[ID comparable](s oauthStore[ID]) {
	s.lacks(s.link(s.newID(), issuerA, "1", 0))
	link := s.link(s.newID(), issuerA, "1", 0)
	s.insert(link)
	s.lacks(s.link(link.UserID, issuerA, "2", 0), s.link(link.UserID, issuerB, "1", 0))
	wantError("Delete", nil, s.remove(s.link(link.UserID, issuerB, "1", 0)), account.ErrOAuthAccountNotFound)
	wantError("Delete", nil, s.remove(s.link(link.UserID, issuerB, "1", 0), issuerA), account.ErrOAuthAccountNotFound)
	s.lists(s.newID())
}

func oauthExact[ID comparable](s oauthStore[ID]) {
	var links []account.OAuthAccount[ID]
	for i, key := range [][2]string{
		{issuerA, "Ann"}, {issuerA, "ann"}, {issuerA, "ann "}, {issuerA, "äńn"}, {issuerA, "a\u0308ńn"}, {issuerA + "/", "ann"}, {"https://A.example.com", "ann"},
	} {
		links = append(links, s.link(s.newID(), key[0], key[1], i))
	}
	s.insert(links...)
	s.holds(links...)
}

func oauthTaken[ID comparable](s oauthStore[ID]) {
	link := s.link(s.newID(), issuerA, "1", 0)
	s.insert(link)
	for name, userID := range map[string]ID{"the same account": link.UserID, "another account": s.newID()} {
		in(name, func() {
			other := s.link(userID, issuerA, "1", 5)
			other.Email = "other@example.com"
			wantError("Insert", nil, s.Insert(s.ctx, other), account.ErrOAuthAccountTaken)
			s.holds(link)
			s.lists(link.UserID, link)
		})
	}
	other := s.link(s.newID(), issuerB, "1", 0)
	s.insert(other)
	s.holds(link, other)
}

func oauthInsertRace[ID comparable](s oauthStore[ID]) {
	for round := range rounds {
		var links []account.OAuthAccount[ID]
		for range 8 {
			links = append(links, s.link(s.newID(), issuerA, fmt.Sprint(round), 0))
		}
		winner := oneWins("Insert", len(links), account.ErrOAuthAccountTaken, func(i int) error { return s.Insert(s.ctx, links[i]) })
		s.holds(links[winner])
		for i, link := range links {
			if i != winner {
				s.lists(link.UserID)
			}
		}
	}
}

func oauthList[ID comparable](s oauthStore[ID]) {
	userID := s.newID()
	want := []account.OAuthAccount[ID]{
		s.link(userID, issuerB, "9", 0), s.link(userID, issuerA, "1", 1), s.link(userID, issuerA, "B", 1), s.link(userID, issuerA, "a", 1),
		s.link(userID, issuerB, "0", 1), s.link(userID, issuerA, "0", 2),
	}
	for _, i := range []int{3, 5, 0, 4, 2, 1} {
		s.insert(want[i], s.link(s.newID(), issuerC, fmt.Sprint(i), i))
	}
	s.lists(userID, want...)
}

func oauthDelete[ID comparable](s oauthStore[ID]) {
	link, other := s.link(s.newID(), issuerA, "1", 0), s.link(s.newID(), issuerA, "2", 0)
	second := s.link(link.UserID, issuerB, "1", 1)
	s.insert(link, other, second)
	foreign := link
	foreign.UserID = other.UserID
	wantError("Delete for another account", nil, s.remove(foreign), account.ErrOAuthAccountNotFound)
	wantError("Delete for another account", nil, s.remove(foreign, issuerA), account.ErrOAuthAccountNotFound)
	s.holds(link, other, second)
	must("Delete", s.remove(link))
	s.lacks(link)
	s.holds(other, second)
	s.lists(link.UserID, second)
	wantError("the second Delete", nil, s.remove(link), account.ErrOAuthAccountNotFound)
	must("Delete of the last link", s.remove(second))
	s.lists(link.UserID)
}

func oauthDeleteRace[ID comparable](s oauthStore[ID]) {
	for round := range rounds {
		link := s.link(s.newID(), issuerA, fmt.Sprint(round), 0)
		s.insert(link)
		oneWins("Delete", 8, account.ErrOAuthAccountNotFound, func(int) error { return s.remove(link) })
		s.lacks(link)
	}
}

func oauthAgain[ID comparable](s oauthStore[ID]) {
	link := s.link(s.newID(), issuerA, "1", 0)
	for _, keep := range [][]string{nil, {issuerB}} {
		s.insert(link)
		if keep != nil {
			s.insert(s.link(link.UserID, issuerB, "1", 0))
		}
		must("Delete", s.remove(link, keep...))
		again := s.link(s.newID(), issuerA, "1", 3)
		s.insert(again)
		s.holds(again)
		must("Delete", s.remove(again))
	}
}

func oauthLast[ID comparable](s oauthStore[ID]) {
	userID := s.newID()
	a, b, c := s.link(userID, issuerA, "1", 0), s.link(userID, issuerB, "1", 1), s.link(userID, issuerC, "1", 2)
	stranger := s.link(s.newID(), issuerA, "stranger", 0)
	s.insert(a, stranger)
	wantError("Delete of the only link", nil, s.remove(a, issuerA), account.ErrLastOAuthAccount)
	wantError("Delete of the only link", nil, s.remove(a, issuerA, issuerB), account.ErrLastOAuthAccount)
	s.holds(a)
	s.insert(b, c)
	wantError("Delete while the others are of other issuers", nil, s.remove(a, issuerA, "https://d.example.com"), account.ErrLastOAuthAccount)
	s.lists(userID, a, b, c)
	must("Delete with another link to keep", s.remove(a, issuerA, issuerB))
	s.lists(userID, b, c)
	wantError("Delete of the last one to keep", nil, s.remove(b, issuerA, issuerB), account.ErrLastOAuthAccount)
	must("Delete of a link to no kept issuer", s.remove(c, issuerA, issuerB))
	s.lists(userID, b)
	twin := s.link(userID, issuerB, "2", 3)
	s.insert(twin)
	must("Delete with a second link to the same issuer", s.remove(b, issuerB))
	s.lists(userID, twin)
	s.holds(stranger)
}

func oauthLastRace[ID comparable](s oauthStore[ID]) {
	for round := range rounds {
		userID := s.newID()
		links := []account.OAuthAccount[ID]{
			s.link(userID, issuerA, fmt.Sprint(round), 0), s.link(userID, issuerB, fmt.Sprint(round), 1), s.link(userID, issuerB, fmt.Sprint(round, "b"), 2),
		}[:2+round%2]
		s.insert(links...)
		// Several calls for each link: of two for one link, a late one must not undo what holds
		// the other back.
		concurrently(3*len(links), func(i int) {
			err := s.remove(links[i%len(links)], issuerA, issuerB)
			if !errors.Is(err, account.ErrLastOAuthAccount) && !errors.Is(err, account.ErrOAuthAccountNotFound) {
				must("Delete", err)
			}
		})
		left, err := s.ListByUser(s.ctx, userID)
		must("ListByUser", err)
		if len(left) == 0 {
			fail("concurrent calls of Delete removed all %d links", len(links))
		}
	}
}

func oauthRefused[ID comparable](s oauthStore[ID]) {
	userID := s.newID()
	a, b := s.link(userID, issuerA, "1", 0), s.link(userID, issuerB, "1", 1)
	s.insert(a)
	wantError("Delete of the only link", nil, s.remove(a, issuerA, issuerB), account.ErrLastOAuthAccount)
	s.holds(a)
	s.insert(b)
	must("Delete of another link", s.remove(b, issuerA, issuerB)) // a is there to stay
	s.lists(userID, a)
}

func oauthDeleteByUser[ID comparable](s oauthStore[ID]) {
	one, another := s.newID(), s.newID()
	must("DeleteByUser of an account without links", s.DeleteByUser(s.ctx, one))
	a, b, other := s.link(one, issuerA, "1", 0), s.link(one, issuerB, "1", 0), s.link(another, issuerA, "2", 0)
	s.insert(a, b, other)
	must("DeleteByUser", s.DeleteByUser(s.ctx, one))
	s.lacks(a, b)
	s.lists(one)
	s.holds(other)
}

func oauthCancelled[ID comparable](s oauthStore[ID]) {
	link := s.link(s.newID(), issuerA, "1", 0)
	second, late := s.link(link.UserID, issuerB, "1", 0), s.link(link.UserID, issuerA, "2", 0)
	s.insert(link, second)
	dead := cancelled(s.ctx)
	_, find := s.Find(dead, link.Issuer, link.Subject)
	_, list := s.ListByUser(dead, link.UserID)
	wantErrors(context.Canceled, map[string]error{
		"Insert":            s.Insert(dead, late),
		"Find":              find,
		"ListByUser":        list,
		"Delete":            s.Delete(dead, link.UserID, link.Issuer, link.Subject, nil),
		"Delete that keeps": s.Delete(dead, link.UserID, link.Issuer, link.Subject, []string{issuerB}),
		"DeleteByUser":      s.DeleteByUser(dead, link.UserID),
	})
	s.holds(link, second)
	s.lacks(late)
}
