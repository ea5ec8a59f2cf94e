package storetest

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/latchkey-go/latchkey/account"
)

// ownFields returns the indexes of the application's own fields that are set in user.
func ownFields[U any](user U) (fields []int) {
	v := reflect.ValueOf(user)
	if v.Kind() != reflect.Struct {
		return nil
	}
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.IsExported() && !f.Anonymous && !v.Field(i).IsZero() {
			fields = append(fields, i)
		}
	}
	return fields
}

// clearField sets a field to its zero value.
func clearField[U any](user *U, field int) { reflect.ValueOf(user).Elem().Field(field).SetZero() }

// edited makes Edit clear a field, and returns the account as the store must hold it then.
func (s userStore[U, ID]) edited(user U, field int) U {
	got, err := s.Edit(s.ctx, s.of(&user).ID, func(u *U) error {
		clearField(u, field)
		return nil
	})
	must("Edit", err)
	clearField(&user, field)
	s.same("Edit", got, user)
	s.holds(user)
	return user
}

func edit[U any, ID comparable](s userStore[U, ID]) {
	user, other := s.insert(ann), s.insert("other@example.com")
	for _, field := range ownFields(user) {
		user = s.edited(user, field)
	}
	// An edit that changes nothing.
	got, err := s.Edit(s.ctx, s.of(&user).ID, func(*U) error { return nil })
	must("Edit of nothing", err)
	s.same("Edit of nothing", got, user)
	s.holds(user, other)
}

func editAccount[U any, ID comparable](s userStore[U, ID]) {
	user, other := s.insert(ann), s.newUser("other@example.com")
	id := s.of(&user).ID
	want := user
	fields := ownFields(user)
	got, err := s.Edit(s.ctx, id, func(u *U) error {
		*s.of(u) = account.User[ID]{
			ID: s.of(&other).ID, Email: "new@example.com", HashedPassword: *hash(1),
			Active: !s.of(u).Active, Verified: !s.of(u).Verified, Superuser: !s.of(u).Superuser,
			CreatedAt: s.of(u).CreatedAt.Add(time.Hour), Version: s.of(u).Version + 1,
		}
		if len(fields) > 0 {
			clearField(u, fields[0])
		}
		return nil
	})
	must("Edit", err)
	if len(fields) > 0 {
		clearField(&want, fields[0])
	}
	s.same("Edit of the account's fields", got, want)
	s.holds(want)
	s.lacksEmail("new@example.com")
	s.lacks(other)
}

func editRefused[U any, ID comparable](s userStore[U, ID]) {
	user := s.insert(ann)
	refused := errors.New("refused")
	_, err := s.Edit(s.ctx, s.of(&user).ID, func(u *U) error {
		for _, field := range ownFields(*u) {
			clearField(u, field)
		}
		return fmt.Errorf("edit: %w", refused)
	})
	wantError("Edit that returns an error", nil, err, refused)
	s.holds(user)
}

func editMissing[U any, ID comparable](s userStore[U, ID]) {
	user, stranger := s.insert(ann), s.newUser("stranger@example.com")
	_, err := s.Edit(s.ctx, s.of(&stranger).ID, func(*U) error { return nil })
	wantError("Edit of a missing account", nil, err, account.ErrUserNotFound)
	s.lacks(stranger)
	s.lacksEmail("stranger@example.com")
	s.holds(user)
}

func editRace[U any, ID comparable](s userStore[U, ID]) {
	for round := range int64(rounds) {
		user := s.insertVersion(number(round), round)
		id, fields := s.of(&user).ID, ownFields(user)
		concurrently(len(fields)+2, func(i int) {
			switch {
			case i < len(fields):
				_, err := s.Edit(s.ctx, id, func(u *U) error {
					clearField(u, fields[i])
					return nil
				})
				must("Edit", err)
			default:
				must("Apply", s.Apply(s.ctx, id, account.Change{RevokeTokens: true, Password: hash(7)}))
			}
		})
		for _, field := range fields {
			clearField(&user, field)
		}
		a := s.of(&user)
		a.Version, a.HashedPassword = a.Version+2, *hash(7)
		in("after concurrent edits and changes", func() { s.holds(user) })
	}
}

func listUsers[U any, ID comparable](s userStore[U, ID]) {
	// In the order of their bytes.
	emails := []string{"a+b@example.com", "a.b@example.com", "ab@example.com", "abc@example.com", "b@example.com", "ä@example.com"}
	users := make(map[string]U)
	for _, i := range []int{3, 0, 5, 1, 4, 2} {
		users[emails[i]] = s.insert(emails[i])
	}
	lists := func(prefix, after string, limit int, want ...string) {
		op := fmt.Sprintf("List of %q after %q, at most %d", prefix, after, limit)
		got, err := s.List(s.ctx, prefix, after, limit)
		must(op, err)
		if len(got) != len(want) {
			fail("%s: got %d accounts, want %v", op, len(got), want)
		}
		for i, email := range want {
			s.same(op, got[i], users[email])
		}
	}
	lists("", "", 10, emails...)
	lists("", "", 2, emails[:2]...)
	lists("", emails[1], 2, emails[2:4]...)
	lists("", emails[5], 2)
	lists("", "aa", 1, emails[2])
	lists("ab", "", 10, emails[2:4]...)
	lists("ab", emails[2], 10, emails[3])
	lists("b", "", 10, emails[4])
	lists("a.", "", 10, emails[1])
	lists("ä", "", 10, emails[5])
	lists("$", "", 10)
	lists("abc@example.com.", "", 10)

	moved := users[emails[0]]
	users["c@example.com"] = s.apply(moved, account.Change{Email: new("c@example.com")})
	gone := users[emails[1]]
	must("Delete", s.Delete(s.ctx, s.of(&gone).ID))
	lists("", "", 10, emails[2], emails[3], emails[4], "c@example.com", emails[5])
}

func noEditedResurrection[U any, ID comparable](s userStore[U, ID]) {
	for round := range int64(rounds) {
		user := s.insert(number(round))
		id, fields := s.of(&user).ID, ownFields(user)
		concurrently(4, func(i int) {
			if i == 0 {
				must("Delete", s.Delete(s.ctx, id))
				return
			}
			_, err := s.Edit(s.ctx, id, func(u *U) error {
				if len(fields) > 0 {
					clearField(u, fields[i%len(fields)])
				}
				return nil
			})
			if !errors.Is(err, account.ErrUserNotFound) {
				must("Edit", err)
			}
		})
		s.lacks(user)
		s.lacksEmail(number(round))
	}
}
