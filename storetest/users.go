package storetest

import (
	"context"
	"errors"
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
			{"a change is made and changes nothing else", apply[U, ID]},
			{"a change whose conditions hold is made", conditionsHold[U, ID]},
			{"a change with a condition that does not hold is ErrConflict and changes nothing", conflicts[U, ID]},
			{"one of many concurrent changes with the same condition succeeds", conditionRace[U, ID]},
			{"a new address replaces the old one, which is free then", changeEmail[U, ID]},
			{"a change to a taken address is ErrEmailTaken and changes nothing", changeToTakenEmail[U, ID]},
			{"one of many accounts that take an address concurrently gets it", takeEmailRace[U, ID]},
			{"revoking adds exactly 1 to the token version", applyRevokes[U, ID]},
			{"all parts of a change become visible together", applyAtomic[U, ID]},
			{"a change to a missing account is ErrUserNotFound and creates none", applyMissing[U, ID]},
			{"concurrent changes do not undo each other", applyRace[U, ID]},
			{"concurrent revocations add up", revokeRace[U, ID]},
			{"an edit changes the application's field, and nothing else", edit[U, ID]},
			{"an edit of the account's fields is not stored", editAccount[U, ID]},
			{"an edit that returns an error changes nothing", editRefused[U, ID]},
			{"an edit of a missing account is ErrUserNotFound and creates none", editMissing[U, ID]},
			{"concurrent edits and changes do not undo each other", editRace[U, ID]},
			{"a list has the accounts of a prefix, ordered by address, in pages without gaps", listUsers[U, ID]},
			{"a deleted account is gone, and its address is free", deleteUser[U, ID]},
			{"deleting a missing account is ErrUserNotFound and changes nothing", deleteMissingUser[U, ID]},
			{"one of many concurrent deletes of an account succeeds", deleteUserRace[U, ID]},
			{"a concurrent change does not bring a deleted account back", noUserResurrection[U, ID]},
			{"a concurrent edit does not bring a deleted account back", noEditedResurrection[U, ID]},
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

// hash returns a password hash that differs for each number.
func hash(i int) *account.PasswordHash { return new(account.NewPasswordHash(fmt.Sprint("new ", i))) }

// applied returns the account that a change makes of user.
func (s userStore[U, ID]) applied(user U, c account.Change) U {
	a := s.of(&user)
	set(&a.Email, c.Email)
	set(&a.HashedPassword, c.Password)
	set(&a.Active, c.Active)
	set(&a.Verified, c.Verified)
	set(&a.Superuser, c.Superuser)
	if c.RevokeTokens {
		a.Version++
	}
	return user
}

// set sets a field to a new value, unless that is nil.
func set[T any](field, value *T) {
	if value != nil {
		*field = *value
	}
}

// describe names the fields of a change that are set.
func describe(c account.Change) string {
	text := "Apply of"
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		if f := v.Field(i); !f.IsZero() {
			text += " " + v.Type().Field(i).Name
			if flag, ok := f.Interface().(*bool); ok {
				text += fmt.Sprintf(":%v", *flag)
			}
		}
	}
	return text
}

// apply makes a change, and returns the account as the store must hold it then.
func (s userStore[U, ID]) apply(user U, change account.Change) U {
	must(describe(change), s.Apply(s.ctx, s.of(&user).ID, change))
	user = s.applied(user, change)
	in("after "+describe(change), func() { s.holds(user) })
	return user
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

// startVersions are token versions before a revocation: missing, present, and close to the
// limit of 32 bits.
var startVersions = []int64{0, 1, 41, math.MaxInt32 - 1}

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
			if n%2 == 1 && email != s.of(&after).Email && errors.Is(err, account.ErrUserNotFound) {
				continue // after the change
			}
			must("a concurrent read", err)
			if try(func() { s.same("", got, before) }) != nil && try(func() { s.same("", got, after) }) != nil {
				fail("a concurrent read returned\n%+v, want the account before the change\n%+v, or after it\n%+v", got, before, after)
			}
		}
	})
	s.holds(after)
}

func applyAtomic[U any, ID comparable](s userStore[U, ID]) {
	for round := range int64(rounds) {
		user := s.insertVersion(number(round), round)
		for _, change := range []account.Change{
			{Active: new(false), RevokeTokens: true},
			{IfPassword: &s.of(&user).HashedPassword, Password: hash(0), RevokeTokens: true},
			{Email: new("new" + number(round)), Verified: new(!s.of(&user).Verified), Superuser: new(!s.of(&user).Superuser), Password: hash(1)},
		} {
			after := s.applied(user, change)
			in(describe(change), func() {
				s.becomesVisibleAtOnce(user, after, func() error { return s.Apply(s.ctx, s.of(&user).ID, change) })
			})
			user = after
		}
	}
}

func apply[U any, ID comparable](s userStore[U, ID]) {
	other := s.insertVersion("other@example.com", 5)
	yes, no := new(true), new(false)
	for _, version := range []int64{0, 41} {
		user := s.insertVersion(number(version), version)
		for _, change := range []account.Change{
			{},
			{Active: no},
			{Active: no},
			{Active: yes},
			{RevokeTokens: true},
			{Active: no, RevokeTokens: true},
			{RevokeTokens: true},
			{Active: yes, RevokeTokens: true},
			{},
			{Verified: no}, {Verified: yes}, {Verified: no},
			{Superuser: no}, {Superuser: yes}, {Superuser: no},
			{Password: hash(1)},
			{Password: hash(2), RevokeTokens: true},
			{Password: new(account.PasswordHash)},
			{Password: hash(3)},
			{Email: new("new" + number(version))},
			{Active: no, Verified: yes, Superuser: yes, Password: hash(4), Email: new(number(version)), RevokeTokens: true},
			{Active: yes, Verified: no, Superuser: no},
		} {
			user = s.apply(user, change)
		}
		s.holds(other)
	}
}

// values are the values of an account as the conditions of a change.
func (s userStore[U, ID]) values(user U) account.Change {
	a := s.of(&user)
	return account.Change{IfEmail: new(a.Email), IfPassword: new(a.HashedPassword), IfVersion: new(a.Version)}
}

func conditionsHold[U any, ID comparable](s userStore[U, ID]) {
	other := s.insertVersion("other@example.com", 5)
	for i, version := range startVersions {
		user := s.insertVersion(number(version), version)
		for round := range 3 {
			all := s.values(user)
			user = s.apply(user, account.Change{IfPassword: all.IfPassword, Password: hash(10*i + round)})
			user = s.apply(user, account.Change{IfVersion: all.IfVersion, RevokeTokens: true})
			user = s.apply(user, account.Change{IfEmail: all.IfEmail, Verified: new(round%2 == 0)})
			all = s.values(user)
			user = s.apply(user, all) // changes nothing
			all.Active, all.RevokeTokens = new(round%2 == 0), true
			user = s.apply(user, all)
			all = s.values(user)
			all.Email, all.Password, all.RevokeTokens = new(fmt.Sprint(round, number(version))), hash(10*i+round+5), true
			user = s.apply(user, all)
		}
		// An account without a password.
		user = s.apply(user, account.Change{IfPassword: s.values(user).IfPassword, Password: new(account.PasswordHash)})
		s.apply(user, account.Change{IfPassword: new(account.PasswordHash), Password: hash(10*i + 9)})
	}
	s.holds(other)
}

func conflicts[U any, ID comparable](s userStore[U, ID]) {
	other := s.insert("other@example.com")
	for _, version := range startVersions {
		user := s.insertVersion(number(version), version)
		for _, without := range []bool{false, true} {
			if without {
				user = s.apply(user, account.Change{Password: new(account.PasswordHash)})
			}
			id, right := s.of(&user).ID, s.values(user)
			wrong := account.Change{IfEmail: new("other@example.com"), IfPassword: hash(0), IfVersion: new(version + 1)}
			for name, c := range map[string]account.Change{
				"IfEmail":                              {IfEmail: wrong.IfEmail},
				"IfPassword":                           {IfPassword: wrong.IfPassword},
				"IfVersion":                            {IfVersion: wrong.IfVersion},
				"IfVersion, lower":                     {IfVersion: new(version - 1)},
				"IfEmail beside values that hold":      {IfEmail: wrong.IfEmail, IfPassword: right.IfPassword, IfVersion: right.IfVersion},
				"IfPassword beside values that hold":   {IfEmail: right.IfEmail, IfPassword: wrong.IfPassword, IfVersion: right.IfVersion},
				"IfVersion beside values that hold":    {IfEmail: right.IfEmail, IfPassword: right.IfPassword, IfVersion: wrong.IfVersion},
				"IfPassword of an account without one": {IfPassword: new(account.PasswordHash)},
			} {
				if without && name == "IfPassword of an account without one" {
					continue
				}
				for _, change := range []account.Change{
					{},
					{RevokeTokens: true},
					{Password: hash(1), RevokeTokens: true},
					{Email: new("new" + number(version)), Active: new(false), Verified: new(false), Superuser: new(false)},
					{Email: new("other@example.com")}, // taken, too
				} {
					change.IfEmail, change.IfPassword, change.IfVersion = c.IfEmail, c.IfPassword, c.IfVersion
					wantError(describe(change)+" with another "+name, nil, s.Apply(s.ctx, id, change), account.ErrConflict)
				}
				in("after a conflict of "+name, func() { s.holds(user, other) })
			}
		}
		s.lacksEmail("new" + number(version))
	}
}

func conditionRace[U any, ID comparable](s userStore[U, ID]) {
	for round := range int64(rounds) {
		user := s.insertVersion(number(round), round)
		id, is := s.of(&user).ID, s.values(user)
		change := func(i int) account.Change {
			switch round % 3 {
			case 0:
				return account.Change{IfPassword: is.IfPassword, Password: hash(i), RevokeTokens: i%2 == 0}
			case 1:
				return account.Change{IfVersion: is.IfVersion, Password: hash(i), RevokeTokens: true}
			default:
				return account.Change{IfEmail: is.IfEmail, Email: new(fmt.Sprint("new", i, number(round))), Verified: new(i%2 == 0)}
			}
		}
		winner := oneWins(describe(change(0)), 8, account.ErrConflict, func(i int) error {
			return s.Apply(s.ctx, id, change(i))
		})
		s.holds(s.applied(user, change(winner)))
	}
}

func changeEmail[U any, ID comparable](s userStore[U, ID]) {
	user, other := s.insert(ann), s.insert("other@example.com")
	user = s.apply(user, account.Change{Email: new(ann)}) // its own
	user = s.apply(user, account.Change{Email: new("new@example.com")})
	s.lacksEmail(ann)
	second := s.insert(ann)
	s.holds(user, other, second)
	other = s.apply(other, account.Change{Email: new("älter.o'neill+tag@bücher.example")})
	second = s.apply(second, account.Change{Email: new("other@example.com")})
	user = s.apply(user, account.Change{Email: new(ann)})
	s.holds(user, other, second)
	s.lacksEmail("new@example.com")
}

func changeToTakenEmail[U any, ID comparable](s userStore[U, ID]) {
	user, other := s.insert(ann), s.insert("other@example.com")
	for _, change := range []account.Change{
		{},
		{IfEmail: new(ann), Verified: new(false)},
		{Password: hash(0), Active: new(false), Superuser: new(false), RevokeTokens: true},
	} {
		change.Email = new("other@example.com")
		wantError(describe(change)+", which is taken", nil, s.Apply(s.ctx, s.of(&user).ID, change), account.ErrEmailTaken)
		s.holds(user, other)
	}
}

func takeEmailRace[U any, ID comparable](s userStore[U, ID]) {
	for round := range int64(rounds / 2) {
		var users []U
		for i := range int64(8) {
			users = append(users, s.insert(number(100*round+i)))
		}
		change := account.Change{Email: new("new" + number(round)), RevokeTokens: round%2 == 0}
		winner := oneWins("Apply of one address", len(users), account.ErrEmailTaken, func(i int) error {
			return s.Apply(s.ctx, s.of(&users[i]).ID, change)
		})
		users[winner] = s.applied(users[winner], change)
		s.holds(users...)
	}
}

func applyRevokes[U any, ID comparable](s userStore[U, ID]) {
	for _, version := range startVersions {
		in(fmt.Sprintf("from version %d", version), func() {
			user := s.insertVersion(number(version), version)
			for i, revoke := range []bool{true, true, true, false, true} {
				user = s.apply(user, account.Change{RevokeTokens: revoke})
				user = s.apply(user, account.Change{IfPassword: &s.of(&user).HashedPassword, Password: hash(i), RevokeTokens: revoke})
			}
		})
	}
}

func applyMissing[U any, ID comparable](s userStore[U, ID]) {
	user, stranger := s.insert(ann), s.newUser("stranger@example.com")
	all := s.values(stranger)
	all.Email, all.Password, all.RevokeTokens = new("stranger@example.com"), hash(0), true
	for _, change := range []account.Change{
		{Active: new(true), RevokeTokens: true},
		{Active: new(true)},
		{RevokeTokens: true},
		{Password: hash(0)},
		{Email: new("stranger@example.com")},
		{Email: new(ann)},
		s.values(stranger),
		all,
		{},
	} {
		wantError(describe(change)+" to a missing account", nil, s.Apply(s.ctx, s.of(&stranger).ID, change), account.ErrUserNotFound)
		s.lacks(stranger)
		s.lacksEmail("stranger@example.com")
	}
	s.holds(user)
}

func applyRace[U any, ID comparable](s userStore[U, ID]) {
	for round := range int64(rounds) {
		user := s.insertVersion(number(round), round)
		id := s.of(&user).ID
		changes := []account.Change{
			{Active: new(false)},
			{IfPassword: s.values(user).IfPassword, Password: hash(0), RevokeTokens: true},
			{IfEmail: s.values(user).IfEmail, Verified: new(!s.of(&user).Verified)},
			{Superuser: new(!s.of(&user).Superuser)},
			{RevokeTokens: true},
			{RevokeTokens: true},
			{RevokeTokens: true},
		}
		concurrently(len(changes), func(i int) { must(describe(changes[i]), s.Apply(s.ctx, id, changes[i])) })
		for _, change := range changes {
			user = s.applied(user, change)
		}
		in("after concurrent changes", func() { s.holds(user) })
	}
}

func revokeRace[U any, ID comparable](s userStore[U, ID]) {
	const revocations = 8
	for round := range int64(rounds) {
		user := s.insertVersion(number(round), round)
		a := s.of(&user)
		id, rehash := a.ID, account.Change{IfPassword: new(a.HashedPassword), Password: hash(0)}
		concurrently(revocations+1, func(i int) {
			if i == 0 { // revokes nothing
				must(describe(rehash), s.Apply(s.ctx, id, rehash))
			} else {
				must("Apply", s.Apply(s.ctx, id, account.Change{RevokeTokens: true}))
			}
		})
		a.HashedPassword = *rehash.Password
		a.Version += revocations
		in(fmt.Sprintf("after %d concurrent revocations", revocations), func() { s.holds(user) })
	}
}

func deleteUser[U any, ID comparable](s userStore[U, ID]) {
	user, other := s.insert(ann), s.insert("other@example.com")
	must("Delete", s.Delete(s.ctx, s.of(&user).ID))
	s.lacks(user)
	s.lacksEmail(ann)
	s.holds(other)
	other = s.apply(other, account.Change{Email: new(ann)})
	s.holds(other)
	// The ID is free, too.
	s.of(&user).Email = "again@example.com"
	must("Insert of a deleted ID", s.Insert(s.ctx, user))
	s.holds(user, other)
}

func deleteMissingUser[U any, ID comparable](s userStore[U, ID]) {
	user, stranger := s.insert(ann), s.newUser("stranger@example.com")
	wantError("Delete of a missing account", nil, s.Delete(s.ctx, s.of(&stranger).ID), account.ErrUserNotFound)
	s.holds(user)
	must("Delete", s.Delete(s.ctx, s.of(&user).ID))
	second := s.insert(ann)
	wantError("the second Delete", nil, s.Delete(s.ctx, s.of(&user).ID), account.ErrUserNotFound)
	s.holds(second)
}

func deleteUserRace[U any, ID comparable](s userStore[U, ID]) {
	for round := range int64(rounds) {
		user := s.insert(number(round))
		oneWins("Delete of an account", 8, account.ErrUserNotFound, func(int) error {
			err := s.Delete(s.ctx, s.of(&user).ID)
			s.lacks(user)
			return err
		})
		s.lacks(user)
	}
}

// noUserResurrection catches stores that write back what they have read.
func noUserResurrection[U any, ID comparable](s userStore[U, ID]) {
	for round := range int64(rounds) {
		user := s.insertVersion(number(round), round)
		id := s.of(&user).ID
		concurrently(6, func(i int) {
			if i == 0 {
				must("Delete", s.Delete(s.ctx, id))
				return
			}
			change := account.Change{Active: new(false), Password: hash(i), RevokeTokens: true}
			if i%2 == 0 {
				change = account.Change{Email: new(fmt.Sprint("new", i, number(round)))}
			}
			if err := s.Apply(s.ctx, id, change); !errors.Is(err, account.ErrUserNotFound) {
				must(describe(change), err)
			}
		})
		s.lacks(user)
		s.lacksEmail(number(round))
		for i := range 6 {
			s.lacksEmail(fmt.Sprint("new", i, number(round)))
		}
	}
}

func userCancelled[U any, ID comparable](s userStore[U, ID]) {
	user := s.insert(ann)
	dead := cancelled(s.ctx)
	a := s.of(&user)
	_, byID := s.ByID(dead, a.ID)
	_, byEmail := s.ByEmail(dead, a.Email)
	_, edited := s.Edit(dead, a.ID, func(*U) error { return nil })
	_, listed := s.List(dead, "", "", 10)
	wantErrors(context.Canceled, map[string]error{
		"Edit":           edited,
		"List":           listed,
		"ByID":           byID,
		"ByEmail":        byEmail,
		"Insert":         s.Insert(dead, s.newUser("late@example.com")),
		"Apply":          s.Apply(dead, a.ID, account.Change{RevokeTokens: true}),
		"an empty Apply": s.Apply(dead, a.ID, account.Change{}),
		"Delete":         s.Delete(dead, a.ID),
	})
	s.holds(user)
	s.lacksEmail("late@example.com")
}
