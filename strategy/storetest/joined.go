package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// RunJoined checks a strategy.JoinedSource, each line of its contract on a source
// that open returns with the empty stores that it reads, which [Run] and [RunUsers]
// check. newUser makes users, as for [RunUsers].
func RunJoined[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]](t *testing.T, newUser func(email string) U,
	open func(testing.TB) (strategy.Store[ID], account.Store[U, ID], strategy.JoinedSource[U, ID])) {
	t.Helper()
	for _, c := range joinedChecks[U, ID]() {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			if err := c.run(ctx, openJoined[U, ID, P](t, newUser, open)); err != nil {
				t.Error(err)
			}
		})
	}
}

type joinedCheck[U strategy.User[ID], ID comparable] struct {
	name string
	run  func(context.Context, joinedSource[U, ID]) error
}

func joinedChecks[U strategy.User[ID], ID comparable]() []joinedCheck[U, ID] {
	return []joinedCheck[U, ID]{
		{"the token is as the store returns it, in every field", joinedToken[U, ID]},
		{"the user is as ByID returns them, in every field", joinedUser[U, ID]},
		{"of many tokens and users each comes with its own", joinedMany[U, ID]},
		{"a missing token is ErrTokenNotFound", joinedMissing[U, ID]},
		{"the age limit is exact to the millisecond", joinedAgeLimit[U, ID]},
		{"a token without its user is beside ErrUserNotFound", joinedWithoutUser[U, ID]},
		{"every insert, touch, rotation and delete is seen", joinedSeesTokens[U, ID]},
		{"every change of the user is seen", joinedSeesUsers[U, ID]},
		{"a cancelled context stops it and is no answer", joinedCancelled[U, ID]},
	}
}

// joinedSource is the source under test, and the stores that it reads.
type joinedSource[U strategy.User[ID], ID comparable] struct {
	strategy.JoinedSource[U, ID]
	tokens tokenStore[ID]
	users  userStore[U, ID]
}

func openJoined[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]](t testing.TB, newUser func(email string) U,
	open func(testing.TB) (strategy.Store[ID], account.Store[U, ID], strategy.JoinedSource[U, ID])) joinedSource[U, ID] {
	tokens, users, source := open(t)
	newID := func() ID { return newUser(somebody).UserID() }
	of := func(u *U) *account.User[ID] { return P(u).Account() }
	return joinedSource[U, ID]{source, tokenStore[ID]{tokens, newID}, userStore[U, ID]{users, newUser, of}}
}

// session stores a user and a token of theirs.
func (s joinedSource[U, ID]) session(ctx context.Context, email string) (token strategy.AccessToken[ID], user U, err error) {
	if user, err = s.users.insert(ctx, email); err != nil {
		return token, user, err
	}
	token = s.tokens.full(user.UserID(), instant)
	return token, user, s.tokens.insertAll(ctx, token)
}

// holds says what is wrong where the source does not return exactly this token with
// this user.
func (s joinedSource[U, ID]) holds(ctx context.Context, token strategy.AccessToken[ID], user U) error {
	got, with, err := s.ByToken(ctx, token.Digest, time.Time{})
	if err != nil {
		return fmt.Errorf("ByToken: %w", err)
	}
	return errors.Join(sameToken("ByToken", got, token), s.users.same("ByToken", with, user))
}

// lacks says what is wrong where the source returns something for a token that is
// not there.
func (s joinedSource[U, ID]) lacks(ctx context.Context, digest string, createdAfter time.Time) error {
	got, _, err := s.ByToken(ctx, digest, createdAfter)
	return wantOne("ByToken", got, err, strategy.ErrTokenNotFound, strategy.ErrUserNotFound)
}

// lacksUser says what is wrong where the source does not return exactly this token
// as one without its user.
func (s joinedSource[U, ID]) lacksUser(ctx context.Context, token strategy.AccessToken[ID], createdAfter time.Time) error {
	const op = "ByToken of a token without its user"
	got, _, err := s.ByToken(ctx, token.Digest, createdAfter)
	if err := wantOne(op, got, err, strategy.ErrUserNotFound, strategy.ErrTokenNotFound); err != nil {
		return err
	}
	return sameToken(op, got, token)
}

// wantOne is wantError, with sentinels that the error must not wrap.
func wantOne(op string, got any, err, want error, others ...error) error {
	if err := wantError(op, got, err, want); err != nil {
		return err
	}
	for _, other := range others {
		if errors.Is(err, other) {
			return fmt.Errorf("%s returned the error %q, want one that does not wrap %q", op, err, other)
		}
	}
	return nil
}

func joinedToken[U strategy.User[ID], ID comparable](ctx context.Context, s joinedSource[U, ID]) error {
	user, err := s.users.insert(ctx, somebody)
	if err != nil {
		return err
	}
	tokens := s.tokens.variety(user.UserID())
	if err := s.tokens.insertAll(ctx, tokens...); err != nil {
		return err
	}
	for _, token := range tokens {
		if err := s.holds(ctx, token, user); err != nil {
			return err
		}
	}
	return nil
}

func joinedUser[U strategy.User[ID], ID comparable](ctx context.Context, s joinedSource[U, ID]) error {
	for _, user := range s.users.variety() {
		token := s.tokens.token(instant)
		token.UserID = user.UserID()
		if err := errors.Join(s.users.Insert(ctx, user), s.tokens.Insert(ctx, token)); err != nil {
			return fmt.Errorf("Insert: %w", err)
		}
		if err := s.holds(ctx, token, user); err != nil {
			return err
		}
		// It stands in the place of the users.
		byID, err := s.ByID(ctx, user.UserID())
		if err != nil {
			return fmt.Errorf("ByID: %w", err)
		}
		if err := s.users.same("ByID", byID, user); err != nil {
			return err
		}
	}
	return nil
}

func joinedMany[U strategy.User[ID], ID comparable](ctx context.Context, s joinedSource[U, ID]) error {
	type session struct {
		token strategy.AccessToken[ID]
		user  U
	}
	var all []session
	for i := range 8 {
		token, user, err := s.session(ctx, fmt.Sprintf("somebody%d@example.com", i))
		if err != nil {
			return err
		}
		second := s.tokens.token(instant)
		second.UserID = token.UserID
		if err := s.tokens.insertAll(ctx, second); err != nil {
			return err
		}
		all = append(all, session{token, user}, session{second, user})
	}
	for _, one := range all {
		if err := s.holds(ctx, one.token, one.user); err != nil {
			return err
		}
	}
	return atOnce(len(all), func(i int) error {
		for range rounds {
			if err := s.holds(ctx, all[i].token, all[i].user); err != nil {
				return fmt.Errorf("of many at once: %w", err)
			}
		}
		return nil
	})
}

func joinedMissing[U strategy.User[ID], ID comparable](ctx context.Context, s joinedSource[U, ID]) error {
	if _, _, err := s.session(ctx, somebody); err != nil {
		return err
	}
	for _, digest := range []string{digest(), "", "$ne", `{"$ne": null}`} {
		if err := s.lacks(ctx, digest, time.Time{}); err != nil {
			return err
		}
	}
	return nil
}

func joinedAgeLimit[U strategy.User[ID], ID comparable](ctx context.Context, s joinedSource[U, ID]) error {
	token, user, err := s.session(ctx, somebody)
	if err != nil {
		return err
	}
	alone := s.tokens.token(instant) // its user was never there
	if err := s.tokens.insertAll(ctx, alone); err != nil {
		return err
	}
	for _, c := range ageLimits {
		when := fmt.Sprintf("created at %v, with the limit %v", instant, c.createdAfter)
		if !c.found {
			if err := errors.Join(s.lacks(ctx, token.Digest, c.createdAfter), s.lacks(ctx, alone.Digest, c.createdAfter)); err != nil {
				return fmt.Errorf("%s: %w", when, err)
			}
			continue
		}
		got, with, err := s.ByToken(ctx, token.Digest, c.createdAfter)
		if err != nil {
			return fmt.Errorf("%s: ByToken: %w", when, err)
		}
		if err := errors.Join(sameToken("ByToken", got, token), s.users.same("ByToken", with, user), s.lacksUser(ctx, alone, c.createdAfter)); err != nil {
			return fmt.Errorf("%s: %w", when, err)
		}
	}
	return nil
}

func joinedWithoutUser[U strategy.User[ID], ID comparable](ctx context.Context, s joinedSource[U, ID]) error {
	if _, _, err := s.session(ctx, somebody); err != nil { // whose user is another
		return err
	}
	tokens := s.tokens.variety(s.tokens.newID())
	if err := s.tokens.insertAll(ctx, tokens...); err != nil {
		return err
	}
	for _, token := range tokens {
		if err := s.lacksUser(ctx, token, time.Time{}); err != nil {
			return err
		}
	}
	return nil
}

// joinedSeesTokens reads after every step: of what a source has kept, some is old.
func joinedSeesTokens[U strategy.User[ID], ID comparable](ctx context.Context, s joinedSource[U, ID]) error {
	user, err := s.users.insert(ctx, somebody)
	if err != nil {
		return err
	}
	id := user.UserID()
	return atOnce(6, func(i int) error {
		token := s.tokens.token(instant)
		token.UserID = id
		if err := s.lacks(ctx, token.Digest, time.Time{}); err != nil {
			return err
		}
		if err := s.tokens.insertAll(ctx, token); err != nil {
			return err
		}
		if err := s.holds(ctx, token, user); err != nil {
			return fmt.Errorf("after Insert: %w", err)
		}
		token.LastUsedAt = instant.Add(time.Hour)
		if err := s.tokens.Touch(ctx, token.Digest, token.LastUsedAt); err != nil {
			return fmt.Errorf("Touch: %w", err)
		}
		if err := s.holds(ctx, token, user); err != nil {
			return fmt.Errorf("after Touch: %w", err)
		}
		old := token.Digest
		token.Digest = digest()
		if _, err := s.tokens.Rotate(ctx, old, strategy.Rotation{Digest: token.Digest}); err != nil {
			return fmt.Errorf("Rotate: %w", err)
		}
		if err := errors.Join(s.lacks(ctx, old, time.Time{}), s.holds(ctx, token, user)); err != nil {
			return fmt.Errorf("after Rotate: %w", err)
		}
		end := func() (strategy.AccessToken[ID], error) { return s.tokens.Delete(ctx, token.Digest) }
		if i%2 == 0 {
			end = func() (strategy.AccessToken[ID], error) { return s.tokens.DeleteSession(ctx, id, token.ID) }
		}
		if _, err := end(); err != nil {
			return fmt.Errorf("Delete or DeleteSession: %w", err)
		}
		if err := s.lacks(ctx, token.Digest, time.Time{}); err != nil {
			return fmt.Errorf("after Delete or DeleteSession: %w", err)
		}
		return nil
	})
}

func joinedSeesUsers[U strategy.User[ID], ID comparable](ctx context.Context, s joinedSource[U, ID]) error {
	user := s.users.newUser(somebody)
	a := s.users.of(&user)
	a.Active, a.NotBefore = true, time.Time{}
	token := s.tokens.full(a.ID, instant)
	if err := s.tokens.insertAll(ctx, token); err != nil {
		return err
	}
	if err := s.lacksUser(ctx, token, time.Time{}); err != nil {
		return err
	}
	yes, no := true, false
	applied := func(change account.Change) func() error {
		return func() error { return s.users.Apply(ctx, a.ID, change) }
	}
	for _, c := range []struct {
		name   string
		change func() error
		made   func() // what is then of the user
	}{
		{"Insert", func() error { return s.users.Insert(ctx, user) }, func() {}},
		{"Apply of inactive", applied(account.Change{Active: &no}), func() { a.Active = false }},
		{"Apply of active", applied(account.Change{Active: &yes}), func() { a.Active = true }},
		{"Apply of a not-before", applied(account.Change{NotBefore: instant}), func() { a.NotBefore = instant }},
		{"ReplacePassword", func() error {
			return s.users.ReplacePassword(ctx, a.ID, a.HashedPassword, "new", instant.Add(time.Hour))
		}, func() { a.HashedPassword, a.NotBefore = "new", instant.Add(time.Hour) }},
	} {
		if err := c.change(); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		c.made()
		if err := s.holds(ctx, token, user); err != nil {
			return fmt.Errorf("after %s: %w", c.name, err)
		}
	}
	return nil
}

func joinedCancelled[U strategy.User[ID], ID comparable](ctx context.Context, s joinedSource[U, ID]) error {
	token, user, err := s.session(ctx, somebody)
	if err != nil {
		return err
	}
	alone := s.tokens.token(instant)
	if err := s.tokens.insertAll(ctx, alone); err != nil {
		return err
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	for _, digest := range []string{token.Digest, alone.Digest, digest()} {
		got, _, err := s.ByToken(gone, digest, time.Time{})
		if err := wantOne("ByToken", got, err, context.Canceled, strategy.ErrTokenNotFound, strategy.ErrUserNotFound); err != nil {
			return err
		}
	}
	return s.holds(ctx, token, user)
}
