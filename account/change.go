package account

import (
	"context"
	"errors"
	"fmt"

	"github.com/latchkey-go/latchkey/event"
)

// ChangePassword replaces the password of an active account if current is right, and
// returns the account as it is then. The same update raises the account's token version,
// which invalidates all tokens issued earlier, also that of the session in which the
// password was changed. To keep that session, give it a new token (ginauth's Renew).
//
// It returns an error wrapping
//
//   - [ErrBadCredentials] if current is wrong, or there is no such active account;
//   - [ErrTooManyAttempts] and [ErrBusy], as [Manager.Reauthenticate] does;
//   - [ErrInvalidPassword] if the new password is rejected;
//   - [ErrConflict] if the password was changed concurrently.
func (m *Manager[U, ID]) ChangePassword(ctx context.Context, id ID, current, new string) (U, error) {
	var none U
	user, err := m.confirm(ctx, id, current)
	if err != nil {
		return none, err
	}
	if err := m.checkNewPassword(ctx, new); err != nil {
		return none, err
	}
	hash, err := m.hash(ctx, new)
	if err != nil {
		return none, m.failed(ctx, "hash the password", err)
	}
	a := m.of(&user)
	err = m.store.ReplacePassword(ctx, id, a.HashedPassword, hash, true)
	err = m.changed(ctx, id, true, "store the password", err, event.Event{Kind: event.PasswordChanged, UserID: id})
	if err != nil {
		return none, err
	}
	a.HashedPassword = hash
	// The version that was read, plus 1: if the tokens were revoked in between, the
	// stored version is greater, and Renew does not keep the session.
	a.Version++
	return user, nil
}

// Deactivate makes an account inactive and revokes all its tokens, in one update. The
// tokens stay invalid if the account is activated again. It returns an error wrapping
// [ErrUserNotFound] if there is no such account.
func (m *Manager[U, ID]) Deactivate(ctx context.Context, id ID) error {
	active := false
	return m.apply(ctx, id, Change{Active: &active, RevokeTokens: true}, event.ReasonUserInactive)
}

// Activate makes an account active again. It returns an error wrapping [ErrUserNotFound]
// if there is no such account.
func (m *Manager[U, ID]) Activate(ctx context.Context, id ID) error {
	active := true
	return m.apply(ctx, id, Change{Active: &active}, "")
}

// RevokeTokens logs an account out everywhere, in one update: it raises the token
// version, which invalidates all tokens issued earlier. It returns an error wrapping
// [ErrUserNotFound] if there is no such account.
func (m *Manager[U, ID]) RevokeTokens(ctx context.Context, id ID) error {
	return m.apply(ctx, id, Change{RevokeTokens: true}, "")
}

func (m *Manager[U, ID]) apply(ctx context.Context, id ID, change Change, reason event.Reason) error {
	err := m.store.Apply(ctx, id, change)
	return m.changed(ctx, id, change.RevokeTokens, "change the account", err, event.Event{Kind: event.AccountChanged, UserID: id, Reason: reason})
}

// changed reports a change that the store was asked to make, or why it failed, and tells the
// sessions. err is the store's result; if it is a failure, the change may have been made.
func (m *Manager[U, ID]) changed(ctx context.Context, id ID, revoked bool, doing string, err error, done event.Event) error {
	switch {
	case errors.Is(err, ErrConflict), errors.Is(err, ErrUserNotFound):
		return fmt.Errorf("account: %w", err)
	case err != nil:
		err, revoked = m.failed(ctx, doing, err), false
	default:
		m.emit(ctx, done)
	}
	// Even if the client has gone: the sessions of another process may have to be ended.
	ctx = context.WithoutCancel(ctx)
	for _, s := range m.sessions {
		if failure := s.UserChanged(ctx, id, revoked); failure != nil {
			err = errors.Join(err, fmt.Errorf("account: tell the sessions of the change: %w", failure))
		}
	}
	return err
}
