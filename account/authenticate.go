package account

import (
	"context"
	"errors"
	"fmt"

	"github.com/latchkey-go/latchkey/event"
)

// Authenticate returns the active account with this e-mail address and password, and a
// device token. The case of the address and white space around it do not matter; see
// [NormalizeEmail]. If the stored hash has an outdated scheme or parameters, Authenticate
// replaces it; a failure to do so is an event, and the login succeeds.
//
// device is the device token that an earlier login on the account returned to this client,
// or "". With a valid one, failed attempts of others do not limit this one; see
// [LimiterConfig]. Any other value is as good as none. Authenticate returns the client's
// device token: device if it is valid for the account, else a new one, or "" if there is
// no limiter or its store failed. A device token is no credential, but belongs to the
// client alone, like a password.
//
// It returns an error wrapping
//
//   - [ErrBadCredentials] for an unknown address, a wrong password, an account without a
//     password or an inactive account, which all take the same time;
//   - [ErrTooManyAttempts] if the limiter rejects the attempt, without looking at the
//     password; the error is a *[TooManyAttemptsError] that tells how long to wait;
//   - [ErrBusy] if too many passwords are being hashed, or too many attempts on the
//     account are in flight.
//
// Any other error is a failure of the store.
//
// The limiter counts by device, or by account and client IP in ctx; see
// event.ContextWithClientIP.
func (m *Manager[U, ID]) Authenticate(ctx context.Context, email, password, device string) (U, string, error) {
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	var user, none U
	if !plausible(password) {
		return none, "", m.denied(ctx, event.ReasonWrongPassword, nil, nil)
	}
	name, err := NormalizeEmail(email)
	if err != nil {
		name = email // no account has it
	}
	token := ""
	check := func() (err error) {
		user, err = m.authenticate(ctx, name, password)
		return err
	}
	err = m.limited(ctx, nil, check, func(check func() error) (err error) {
		token, err = m.limiter.login(ctx, name, device, check)
		return err
	})
	if err != nil {
		return none, "", err
	}
	m.emit(ctx, event.Event{Kind: event.LoginSucceeded, UserID: user.UserID()})
	return user, token, nil
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
		return user, m.denied(ctx, event.ReasonUnknownUser, nil, nil)
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
	ctx, cancel := m.bounded(ctx)
	defer cancel()
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
		return none, m.denied(ctx, event.ReasonWrongPassword, id, nil)
	}
	user, err := m.store.ByID(ctx, id)
	switch {
	case errors.Is(err, ErrUserNotFound):
		return none, m.denied(ctx, event.ReasonUnknownUser, nil, nil)
	case err != nil:
		return none, m.failed(ctx, "look up the account", err)
	}
	check := func() error { return m.verify(ctx, &user, password) }
	if err := m.limited(ctx, id, check, func(check func() error) error {
		return m.limiter.loginWithSession(ctx, m.of(&user).Email, check)
	}); err != nil {
		return none, err
	}
	return user, nil
}

// limited calls check by way of limit, a method of the limiter, and reports an attempt that
// the limiter rejects. id is nil if the account is unknown.
func (m *Manager[U, ID]) limited(ctx context.Context, id any, check func() error, limit func(check func() error) error) error {
	if m.limiter == nil {
		return check()
	}
	checked := false
	err := limit(func() error {
		checked = true
		return check()
	})
	switch {
	case err == nil || checked:
		return err // check has reported it
	case errors.Is(err, ErrTooManyAttempts):
		m.emit(ctx, event.Event{Kind: event.LoginDenied, Reason: event.ReasonTooMany, UserID: id})
	case errors.Is(err, ErrBusy):
		return m.failed(ctx, "wait for attempts in flight", err)
	}
	return fmt.Errorf("account: %w", err)
}

// verify is check with its denials and failures reported.
func (m *Manager[U, ID]) verify(ctx context.Context, user *U, password string) error {
	reason, err := m.check(ctx, user, password)
	switch {
	case reason != "":
		return m.denied(ctx, reason, (*user).UserID(), err)
	case err != nil:
		return m.failed(ctx, "check the password", err)
	}
	return nil
}

// check compares the password with the account's hash and returns the reason for a
// denial, or "". It always does the work of one hash, in one turn. If the hash is
// outdated, check replaces it, in the store and in user. The error is a failure, or with
// event.ReasonUnusableHash what is wrong with the hash.
func (m *Manager[U, ID]) check(ctx context.Context, user *U, password string) (event.Reason, error) {
	var (
		a                = m.of(user)
		ok, outdated     bool
		unusable, failed error
	)
	err := m.semaphore.run(ctx, func() {
		ok, outdated, failed = m.hasher.verify(ctx, password, a.HashedPassword)
		if errors.Is(failed, ErrUnusableHash) {
			unusable, failed = failed, m.hasher.pretend(password)
		}
	})
	switch {
	case err != nil || failed != nil:
		return "", errors.Join(err, failed)
	case a.HashedPassword.IsZero():
		return event.ReasonNoPassword, nil
	case unusable != nil:
		return event.ReasonUnusableHash, fmt.Errorf("account: %w", unusable)
	case !ok:
		return event.ReasonWrongPassword, nil
	case !(*user).IsActive():
		return event.ReasonUserInactive, nil
	}
	if outdated && !m.cfg.KeepHashes {
		m.rehash(ctx, a, password)
	}
	return "", nil
}

// rehash replaces an outdated hash, in the store and in a.
func (m *Manager[U, ID]) rehash(ctx context.Context, a *User[ID], password string) {
	hash, err := m.hash(ctx, password)
	if err == nil {
		err = m.store.Apply(ctx, a.ID, Change{IfPassword: &a.HashedPassword, Password: &hash})
	}
	switch {
	case err == nil:
		a.HashedPassword = hash
	case errors.Is(err, ErrConflict), errors.Is(err, ErrUserNotFound):
		return // the password was changed or the account deleted: the outdated hash is gone
	case abandoned(ctx):
		return // the next login replaces the hash
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
		return PasswordHash{}, busy
	}
	return hash, err
}
