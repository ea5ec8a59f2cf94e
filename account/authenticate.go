package account

import (
	"context"
	"errors"
	"fmt"

	"github.com/latchkey-go/latchkey/event"
)

// Authenticate returns the active account with this e-mail address and password. Case
// and surrounding white space of the address do not matter. If the stored hash has an
// outdated scheme or parameters, Authenticate replaces it; a failure to do so is an event,
// and the login succeeds.
//
// It returns an error wrapping
//
//   - [ErrBadCredentials] for an unknown address, a wrong password or an inactive account,
//     which all take the same time;
//   - [ErrTooManyAttempts] if the limiter rejects the attempt, without looking at the
//     password; the error is a *[TooManyAttemptsError] that tells how long to wait;
//   - [ErrBusy] if too many passwords are being hashed.
//
// Any other error is a failure of the store.
//
// The limiter counts by account and by the client IP in ctx; see
// event.ContextWithClientIP.
func (m *Manager[U, ID]) Authenticate(ctx context.Context, email, password string) (U, error) {
	var user U
	if !plausible(password) {
		return user, m.denied(ctx, event.ReasonWrongPassword, nil)
	}
	name, err := NormalizeEmail(email)
	if err != nil {
		name = email // no account has it
	}
	err = m.limited(ctx, nil, func() (*attempt, error) { return m.limiter.begin(ctx, name) }, func() (err error) {
		user, err = m.authenticate(ctx, name, password)
		return err
	})
	if err != nil {
		var none U
		return none, err
	}
	m.emit(ctx, event.Event{Kind: event.LoginSucceeded, UserID: user.UserID()})
	return user, nil
}

func (m *Manager[U, ID]) authenticate(ctx context.Context, name, password string) (U, error) {
	user, err := m.store.ByEmail(ctx, name)
	switch {
	case errors.Is(err, ErrUserNotFound):
		// An unknown user must look like a wrong password: the same time, and under load
		// the same ErrBusy.
		if err := m.pretend(ctx, password); err != nil {
			return user, m.failed(ctx, "check the password", err)
		}
		return user, m.denied(ctx, event.ReasonUnknownUser, nil)
	case err != nil:
		return user, m.failed(ctx, "look up the account", err)
	}
	return user, m.verify(ctx, &user, password)
}

// Reauthenticate checks the password of a user who is already logged in, before a
// sensitive change. It returns the account as it is now, or the errors of
// [Manager.Authenticate]. Its attempts have a counter of their own: failed logins do not
// count, so that attackers without a session cannot block it.
func (m *Manager[U, ID]) Reauthenticate(ctx context.Context, user U, password string) (U, error) {
	confirmed, err := m.confirm(ctx, user.UserID(), password)
	if err == nil {
		m.emit(ctx, event.Event{Kind: event.Reauthenticated, UserID: confirmed.UserID()})
	}
	return confirmed, err
}

// confirm returns the active account with this ID and password.
func (m *Manager[U, ID]) confirm(ctx context.Context, id ID, password string) (U, error) {
	var none U
	if !plausible(password) {
		return none, m.denied(ctx, event.ReasonWrongPassword, id)
	}
	user, err := m.store.ByID(ctx, id)
	switch {
	case errors.Is(err, ErrUserNotFound):
		return none, m.denied(ctx, event.ReasonUnknownUser, nil)
	case err != nil:
		return none, m.failed(ctx, "look up the account", err)
	}
	begin := func() (*attempt, error) { return m.limiter.beginWithSession(ctx, m.of(&user).Email) }
	if err := m.limited(ctx, id, begin, func() error { return m.verify(ctx, &user, password) }); err != nil {
		return none, err
	}
	return user, nil
}

// limited calls check if the limiter admits the attempt, and reports the outcome to the
// limiter. id is nil if the account is unknown.
func (m *Manager[U, ID]) limited(ctx context.Context, id any, begin func() (*attempt, error), check func() error) error {
	if m.limiter == nil {
		return check()
	}
	attempt, err := begin()
	switch {
	case errors.Is(err, ErrTooManyAttempts):
		m.emit(ctx, event.Event{Kind: event.LoginDenied, Reason: event.ReasonTooMany, UserID: id})
		return fmt.Errorf("account: %w", err)
	case err != nil:
		return err
	}
	err = errors.New("account: the store panicked") // the outcome if check does not return
	defer func() { attempt.end(ctx, err) }()
	err = check()
	return err
}

// verify is check with its denials and failures reported.
func (m *Manager[U, ID]) verify(ctx context.Context, user *U, password string) error {
	reason, err := m.check(ctx, user, password)
	switch {
	case err != nil:
		return m.failed(ctx, "check the password", err)
	case reason != "":
		return m.denied(ctx, reason, (*user).UserID())
	}
	return nil
}

// check compares the password with the account's hash and returns the reason for a
// denial, or "". It always does the work of one hash. If the hash is outdated, check
// replaces it, in the store and in user.
func (m *Manager[U, ID]) check(ctx context.Context, user *U, password string) (event.Reason, error) {
	var (
		a            = m.of(user)
		ok, outdated bool
		unusable     error
	)
	if err := m.semaphore.run(ctx, func() { ok, outdated, unusable = m.hasher.verify(password, a.HashedPassword) }); err != nil {
		return "", err
	}
	switch {
	case unusable != nil:
		if err := m.pretend(ctx, password); err != nil {
			return "", err
		}
		return event.ReasonUnusableHash, nil
	case !ok:
		return event.ReasonWrongPassword, nil
	case !(*user).IsActive():
		return event.ReasonUserInactive, nil
	}
	if outdated {
		m.rehash(ctx, a, password)
	}
	return "", nil
}

// rehash replaces an outdated hash, in the store and in a.
func (m *Manager[U, ID]) rehash(ctx context.Context, a *User[ID], password string) {
	hash, err := m.hash(ctx, password)
	if err == nil {
		err = m.store.ReplacePassword(ctx, a.ID, a.HashedPassword, hash, false)
	}
	switch {
	case err == nil:
		a.HashedPassword = hash
	case errors.Is(err, ErrConflict):
		return // the password was changed concurrently: the outdated hash is gone
	default:
		err = fmt.Errorf("account: rehash the password: %w", err)
	}
	m.emit(ctx, event.Event{Kind: event.PasswordRehashed, UserID: a.ID, Err: err})
}

// pretend does the work of check without a hash to compare with.
func (m *Manager[U, ID]) pretend(ctx context.Context, password string) (err error) {
	if busy := m.semaphore.run(ctx, func() { err = m.hasher.pretend(password) }); busy != nil {
		return busy
	}
	return err
}

// hash hashes a new password.
func (m *Manager[U, ID]) hash(ctx context.Context, password string) (hash PasswordHash, err error) {
	if busy := m.semaphore.run(ctx, func() { hash, err = m.hasher.hash(password) }); busy != nil {
		return "", busy
	}
	return hash, err
}
