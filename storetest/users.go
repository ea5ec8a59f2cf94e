package storetest

import (
	"context"
	"fmt"
	"math"
	"reflect"
	"testing"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// RunUsers checks an account.Store. Each subtest calls open, which must return an empty store.
//
// newUser makes users to store. It must be safe for concurrent use. Each user must have
//
//   - an ID of its own and the given e-mail address,
//   - a value in every other field of account.User and of the application's type,
//   - times in UTC and whole milliseconds,
//
// and must be equal by [reflect.DeepEqual] to what the store returns for it, the password
// hash aside.
func RunUsers[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]](t *testing.T, newUser func(email string) U, open func(testing.TB) account.Store[U, ID]) {
	t.Helper()
	userSuite[U, ID, P](newUser, open).run(t)
}

func userSuite[U any, ID comparable, P account.Embeds[U, ID]](newUser func(email string) U, open func(testing.TB) account.Store[U, ID]) suite[userStore[U, ID]] {
	return suite[userStore[U, ID]]{
		open: func(ctx context.Context, t testing.TB) userStore[U, ID] {
			return userStore[U, ID]{open(t), ctx, newUser, func(u *U) *account.User[ID] { return P(u).Account() }}
		},
		checks: []check[userStore[U, ID]]{
			{"every field is returned as it was stored", userRoundTrip[U, ID]},
			{"a missing account is ErrUserNotFound", userMissing[U, ID]},
			{"a taken address is ErrEmailTaken and changes nothing", emailTaken[U, ID]},
			{"a taken ID is ErrConflict and changes nothing", userIDTaken[U, ID]},
			{"one of many concurrent inserts of an address succeeds", emailRace[U, ID]},
			{"replacing a password changes nothing else", replacePassword[U, ID]},
			{"replacing a password that has changed is ErrConflict", replaceConflict[U, ID]},
			{"one of many concurrent replacements of a password succeeds", replaceRace[U, ID]},
			{"replacing a password adds 1 to the token version if it revokes", replaceRevokes[U, ID]},
			{"a new password and its token version become visible together", replaceAtomic[U, ID]},
			{"a change is made and changes nothing else", apply[U, ID]},
			{"revoking adds exactly 1 to the token version", applyRevokes[U, ID]},
			{"an inactive account and its token version become visible together", applyAtomic[U, ID]},
			{"a change to a missing account is ErrUserNotFound and creates none", applyMissing[U, ID]},
			{"concurrent changes do not undo each other", applyRace[U, ID]},
			{"concurrent revocations add up", revokeRace[U, ID]},
			{"a cancelled context stops every method", userCancelled[U, ID]},
		},
	}
}

// userStore is the store under test.
type userStore[U any, ID comparable] struct {
	account.Store[U, ID]
	ctx     context.Context
	newUser func(email string) U
	of      func(*U) *account.User[ID]
}

const ann = "ann@example.com"

var newHash = account.NewPasswordHash("new")

// insert stores a new user.
func (s userStore[U, ID]) insert(email string) U {
	user := s.newUser(email)
	must("Insert", s.Insert(s.ctx, user))
	return user
}

// insertVersion stores a new, active user with a token version.
func (s userStore[U, ID]) insertVersion(email string, version int64) U {
	user := s.newUser(email)
	s.of(&user).Active, s.of(&user).Version = true, version
	must("Insert", s.Insert(s.ctx, user))
	return user
}

// number returns an address for each number.
func number(n int64) string { return fmt.Sprintf("user%d@example.com", n) }

// holds fails unless the store finds exactly these users, by ID and by address.
func (s userStore[U, ID]) holds(users ...U) {
	for _, want := range users {
		byID, err := s.ByID(s.ctx, s.of(&want).ID)
		must("ByID", err)
		s.same("ByID", byID, want)
		byEmail, err := s.ByEmail(s.ctx, s.of(&want).Email)
		must("ByEmail", err)
		s.same("ByEmail", byEmail, want)
	}
}

// lacks fails unless the store reports the user's ID as missing.
func (s userStore[U, ID]) lacks(user U) {
	got, err := s.ByID(s.ctx, s.of(&user).ID)
	wantError("ByID of a missing account", got, err, account.ErrUserNotFound)
}

// lacksEmail fails unless the store reports an address as missing.
func (s userStore[U, ID]) lacksEmail(email string) {
	got, err := s.ByEmail(s.ctx, email)
	wantError("ByEmail of a missing account", got, err, account.ErrUserNotFound)
}

func (s userStore[U, ID]) same(op string, got, want U) {
	if s.of(&got).HashedPassword.Reveal() != s.of(&want).HashedPassword.Reveal() {
		fail("%s: HashedPassword is not the one that was stored", op)
	}
	// Without the hashes, which DeepEqual cannot compare.
	s.of(&got).HashedPassword, s.of(&want).HashedPassword = account.PasswordHash{}, account.PasswordHash{}
	if got, want := s.of(&got).Version, s.of(&want).Version; got != want {
		fail("%s: Version is %d, want %d", op, got, want)
	}
	if !reflect.DeepEqual(got, want) {
		fail("%s returned\n%+v, want\n%+v", op, got, want)
	}
}

// replace replaces a user's password, in the store and in user.
func (s userStore[U, ID]) replace(user *U, hash account.PasswordHash, revoke bool) {
	a := s.of(user)
	must("ReplacePassword", s.ReplacePassword(s.ctx, a.ID, a.HashedPassword, hash, revoke))
	a.HashedPassword = hash
	if revoke {
		a.Version++
	}
}

// conflicts fails unless replacing a password that the user does not have is a conflict.
func (s userStore[U, ID]) conflicts(user U) {
	wantError("ReplacePassword of a hash that is not the account's", nil,
		s.ReplacePassword(s.ctx, s.of(&user).ID, account.NewPasswordHash("another"), newHash, true), account.ErrConflict)
}

func userRoundTrip[U any, ID comparable](s userStore[U, ID]) {
	users := []U{s.newUser(ann), s.newUser("älter.o'neill+tag@bücher.example"), s.newUser("opposite@example.com")}
	a := s.of(&users[2])
	a.Active, a.Verified, a.Superuser, a.HashedPassword = !a.Active, !a.Verified, !a.Superuser, account.PasswordHash{}
	for _, version := range []int64{0, 1, math.MaxInt32 + 1, 1<<53 + 1, math.MaxInt64} {
		user := s.newUser(number(version))
		s.of(&user).Version = version
		users = append(users, user)
	}
	for _, user := range users {
		must("Insert", s.Insert(s.ctx, user))
	}
	s.holds(users...)
}

func userMissing[U any, ID comparable](s userStore[U, ID]) {
	s.insert(ann)
	stranger := s.newUser("stranger@example.com")
	s.lacks(stranger)
	s.lacksEmail(s.of(&stranger).Email)
}

func emailTaken[U any, ID comparable](s userStore[U, ID]) {
	first, second := s.insert(ann), s.newUser(ann)
	wantError("Insert of a taken address", nil, s.Insert(s.ctx, second), account.ErrEmailTaken)
	s.holds(first)
	s.lacks(second)
}

func userIDTaken[U any, ID comparable](s userStore[U, ID]) {
	first, second := s.insert(ann), s.newUser("second@example.com")
	s.of(&second).ID = s.of(&first).ID
	wantError("Insert of a taken ID", nil, s.Insert(s.ctx, second), account.ErrConflict)
	s.holds(first)
	s.lacksEmail("second@example.com")
}

func emailRace[U any, ID comparable](s userStore[U, ID]) {
	var users []U
	for range 16 {
		users = append(users, s.newUser(ann))
	}
	winner := oneWins("Insert of an address", len(users), account.ErrEmailTaken, func(i int) error {
		return s.Insert(s.ctx, users[i])
	})
	s.holds(users[winner])
}

func replacePassword[U any, ID comparable](s userStore[U, ID]) {
	user, other := s.insert(ann), s.insert("other@example.com")
	s.replace(&user, newHash, false)
	s.holds(user, other)
}

func replaceConflict[U any, ID comparable](s userStore[U, ID]) {
	user, stranger := s.insert(ann), s.newUser("stranger@example.com")
	s.conflicts(user)
	s.conflicts(stranger)
	s.holds(user)
	s.lacks(stranger)
}

func replaceRace[U any, ID comparable](s userStore[U, ID]) {
	user := s.insert(ann)
	a := s.of(&user)
	id, old := a.ID, a.HashedPassword
	hash := func(i int) account.PasswordHash { return account.NewPasswordHash(fmt.Sprint("new ", i)) }
	winner := oneWins("ReplacePassword", 8, account.ErrConflict, func(i int) error {
		return s.ReplacePassword(s.ctx, id, old, hash(i), i%2 == 0)
	})
	a.HashedPassword = hash(winner)
	if winner%2 == 0 {
		a.Version++
	}
	s.holds(user)
}

// startVersions are token versions before a revocation: missing, present, and close to the
// limit of 32 bits.
var startVersions = []int64{0, 1, 41, math.MaxInt32 - 1}

func replaceRevokes[U any, ID comparable](s userStore[U, ID]) {
	other := s.insertVersion("other@example.com", 5)
	for _, version := range startVersions {
		user := s.insertVersion(number(version), version)
		for i, revoke := range []bool{false, true, true, false, true} {
			s.replace(&user, account.NewPasswordHash(fmt.Sprint("new ", i)), revoke)
			in(fmt.Sprintf("after ReplacePassword that revokes: %v", revoke), func() { s.holds(user) })
		}
		s.conflicts(user)
		in("after a conflict", func() { s.holds(user, other) })
	}
}

// becomesVisibleAtOnce makes a change to an account while other goroutines read it. Each read
// must return the account before or after the change, never with a part of it.
func (s userStore[U, ID]) becomesVisibleAtOnce(before, after U, change func() error) {
	id, email := s.of(&before).ID, s.of(&before).Email
	concurrently(5, func(i int) {
		if i == 0 {
			must("the change", change())
			return
		}
		for n := range 8 {
			var got U
			var err error
			if n%2 == 0 {
				got, err = s.ByID(s.ctx, id)
			} else {
				got, err = s.ByEmail(s.ctx, email)
			}
			must("a concurrent read", err)
			if try(func() { s.same("", got, before) }) != nil && try(func() { s.same("", got, after) }) != nil {
				fail("a concurrent read returned\n%+v, want the account before the change\n%+v, or after it\n%+v", got, before, after)
			}
		}
	})
	s.holds(after)
}

func replaceAtomic[U any, ID comparable](s userStore[U, ID]) {
	for round := range int64(rounds) {
		before := s.insertVersion(number(round), round)
		after := before
		a := s.of(&after)
		old := a.HashedPassword
		a.HashedPassword = newHash
		a.Version++
		s.becomesVisibleAtOnce(before, after, func() error {
			return s.ReplacePassword(s.ctx, a.ID, old, newHash, true)
		})
	}
}

func applyAtomic[U any, ID comparable](s userStore[U, ID]) {
	for round := range int64(rounds) {
		before := s.insertVersion(number(round), round)
		after, no := before, false
		a := s.of(&after)
		a.Active = false
		a.Version++
		s.becomesVisibleAtOnce(before, after, func() error {
			return s.Apply(s.ctx, a.ID, account.Change{Active: &no, RevokeTokens: true})
		})
	}
}

// applyAll makes changes one after the other. After each, the account must have the change,
// and nothing else may be different.
func (s userStore[U, ID]) applyAll(user U, changes ...account.Change) {
	a := s.of(&user)
	for _, change := range changes {
		op := fmt.Sprintf("Apply of RevokeTokens: %v", change.RevokeTokens)
		if change.Active != nil {
			a.Active = *change.Active
			op = fmt.Sprintf("%s, Active: %v", op, a.Active)
		}
		if change.RevokeTokens {
			a.Version++
		}
		must(op, s.Apply(s.ctx, a.ID, change))
		in("after "+op, func() { s.holds(user) })
	}
}

func apply[U any, ID comparable](s userStore[U, ID]) {
	other := s.insertVersion("other@example.com", 5)
	yes, no := true, false
	for _, version := range []int64{0, 41} {
		s.applyAll(s.insertVersion(number(version), version),
			account.Change{},
			account.Change{Active: &no},
			account.Change{Active: &no},
			account.Change{Active: &yes},
			account.Change{RevokeTokens: true},
			account.Change{Active: &no, RevokeTokens: true},
			account.Change{RevokeTokens: true},
			account.Change{Active: &yes, RevokeTokens: true},
			account.Change{},
		)
		s.holds(other)
	}
}

func applyRevokes[U any, ID comparable](s userStore[U, ID]) {
	for _, version := range startVersions {
		revoke := account.Change{RevokeTokens: true}
		in(fmt.Sprintf("from version %d", version), func() {
			s.applyAll(s.insertVersion(number(version), version), revoke, revoke, revoke, account.Change{}, revoke)
		})
	}
}

func applyMissing[U any, ID comparable](s userStore[U, ID]) {
	user, stranger, yes := s.insert(ann), s.newUser("stranger@example.com"), true
	for _, change := range []account.Change{{Active: &yes, RevokeTokens: true}, {Active: &yes}, {RevokeTokens: true}, {}} {
		wantError("Apply to a missing account", nil, s.Apply(s.ctx, s.of(&stranger).ID, change), account.ErrUserNotFound)
		s.lacks(stranger)
	}
	s.holds(user)
}

func applyRace[U any, ID comparable](s userStore[U, ID]) {
	for round := range int64(rounds) {
		user := s.insertVersion(number(round), round)
		a := s.of(&user)
		id, old, no := a.ID, a.HashedPassword, false
		concurrently(6, func(i int) {
			switch i {
			case 0:
				must("Apply", s.Apply(s.ctx, id, account.Change{Active: &no}))
			case 1:
				must("ReplacePassword", s.ReplacePassword(s.ctx, id, old, newHash, true))
			default:
				must("Apply", s.Apply(s.ctx, id, account.Change{RevokeTokens: true}))
			}
		})
		a.Active, a.HashedPassword = false, newHash
		a.Version += 5
		in("after concurrent changes", func() { s.holds(user) })
	}
}

func revokeRace[U any, ID comparable](s userStore[U, ID]) {
	const revocations = 8
	for round := range int64(rounds) {
		user := s.insertVersion(number(round), round)
		a := s.of(&user)
		id, old, rehashed := a.ID, a.HashedPassword, account.NewPasswordHash("rehashed")
		concurrently(revocations+1, func(i int) {
			if i == 0 { // a rehash, which revokes nothing
				must("ReplacePassword", s.ReplacePassword(s.ctx, id, old, rehashed, false))
			} else {
				must("Apply", s.Apply(s.ctx, id, account.Change{RevokeTokens: true}))
			}
		})
		a.HashedPassword = rehashed
		a.Version += revocations
		in(fmt.Sprintf("after %d concurrent revocations", revocations), func() { s.holds(user) })
	}
}

func userCancelled[U any, ID comparable](s userStore[U, ID]) {
	user := s.insert(ann)
	dead := cancelled(s.ctx)
	a := s.of(&user)
	_, byID := s.ByID(dead, a.ID)
	_, byEmail := s.ByEmail(dead, a.Email)
	wantErrors(context.Canceled, map[string]error{
		"ByID":            byID,
		"ByEmail":         byEmail,
		"Insert":          s.Insert(dead, s.newUser("late@example.com")),
		"ReplacePassword": s.ReplacePassword(dead, a.ID, a.HashedPassword, newHash, true),
		"Apply":           s.Apply(dead, a.ID, account.Change{RevokeTokens: true}),
	})
	s.holds(user)
	s.lacksEmail("late@example.com")
}
