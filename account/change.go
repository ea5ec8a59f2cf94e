package account

import (
	"context"
	"errors"
	"fmt"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/deadline"
	"github.com/latchkey-go/latchkey/strategy"
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
//   - [ErrConflict] if the password was changed or the account deleted concurrently.
func (m *Manager[U, ID]) ChangePassword(ctx context.Context, id ID, current, new string) (U, error) {
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	var none U
	user, err := m.confirm(ctx, id, current)
	if err != nil {
		return none, err
	}
	hash, err := m.HashPassword(ctx, new)
	if err != nil {
		return none, err
	}
	user, err = m.replacePassword(ctx, user, Change{IfPassword: &m.of(&user).HashedPassword, Password: &hash})
	if errors.Is(err, ErrUserNotFound) {
		err = fmt.Errorf("account: %w", ErrConflict)
	}
	return user, err
}

// SetPassword sets the password of an account, active or not, without asking for the current
// one, and returns the account as it is then. It is meant for administrators, and for the first
// password of an account without one; [Manager.ChangePassword] is for users. The same update
// raises the account's token version, which invalidates all tokens issued earlier, as
// ChangePassword does.
//
// It returns an error wrapping [ErrUserNotFound] if there is no such account,
// [ErrInvalidPassword] if the password is rejected, or [ErrBusy].
func (m *Manager[U, ID]) SetPassword(ctx context.Context, id ID, password string) (U, error) {
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	var none U
	user, err := m.ByID(ctx, id)
	if err != nil {
		return none, err
	}
	hash, err := m.HashPassword(ctx, password)
	if err != nil {
		return none, err
	}
	return m.replacePassword(ctx, user, Change{Password: &hash})
}

// replacePassword makes a change with a new password, revokes the account's tokens in the same
// update, and returns the account as it is then. user is the account as it was read.
func (m *Manager[U, ID]) replacePassword(ctx context.Context, user U, change Change) (U, error) {
	var none U
	a := m.of(&user)
	change.RevokeTokens = true
	err := m.store.Apply(ctx, a.ID, change)
	if err == nil {
		m.notify(ctx, user, change)
	}
	err = m.changed(ctx, a.ID, strategy.RevokedByPassword, "store the password", err, event.Event{Kind: event.PasswordChanged, UserID: a.ID})
	if err != nil {
		return none, err
	}
	a.HashedPassword = *change.Password
	// The version that was read, plus 1: if the tokens were revoked in between, the
	// stored version is greater, and Renew does not keep the session.
	a.Version++
	return user, nil
}

// Update names the new values of an account. The caller has checked that the user may set them.
// A nil field leaves the value as it is:
//
//	account.Update{Verified: new(true)}
type Update struct {
	Active    *bool // false also revokes all tokens of the account
	Verified  *bool
	Superuser *bool

	// Email is a new address. It is not verified then, unless Verified says so.
	Email *string

	// Password is a new password. It also revokes all tokens of the account.
	Password *string

	// IfVersion is a condition: the account's token version, as it was read when the user
	// was authenticated. If the account has another one, the change is not made. Without it,
	// the session of an attacker can still change what the user has just taken back.
	IfVersion *int64
}

// Update makes all changes to an account in one update, and returns the account as it is then.
// Guards use the new values from the next request on. Tokens that the change revokes stay
// invalid if the account is made active again.
//
// It returns an error wrapping [ErrUserNotFound] if there is no such account, [ErrInvalidEmail],
// [ErrEmailTaken], [ErrInvalidPassword], [ErrBusy], or [ErrConflict] if the condition does not
// hold.
func (m *Manager[U, ID]) Update(ctx context.Context, id ID, update Update) (U, error) {
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	var none U
	change := Change{IfVersion: update.IfVersion, Active: update.Active, Verified: update.Verified, Superuser: update.Superuser}
	events := []event.Event{{Kind: event.AccountChanged, UserID: id}}
	if update.Email != nil {
		email, err := NormalizeEmail(*update.Email)
		if err != nil {
			return none, fmt.Errorf("account: %w", err)
		}
		change.Email = &email
		if change.Verified == nil {
			change.Verified = new(false)
		}
		events = append(events, event.Event{Kind: event.EmailChanged, UserID: id})
	}
	if update.Password != nil {
		hash, err := m.HashPassword(ctx, *update.Password)
		if err != nil {
			return none, err
		}
		change.Password, change.RevokeTokens = &hash, true
		events = append(events, event.Event{Kind: event.PasswordChanged, UserID: id})
	}
	if update.Active != nil && !*update.Active {
		change.RevokeTokens, events[0].Reason = true, event.ReasonUserInactive
	}
	if len(events) > 1 && update.Active == nil && update.Verified == nil && update.Superuser == nil {
		events = events[1:] // no flag was set
	}
	var before U // for the messages that tell of the change
	if m.mail != nil && (change.Password != nil || change.Email != nil) {
		var err error
		if before, err = m.ByID(ctx, id); err != nil {
			return none, err
		}
	}
	err := m.store.Apply(ctx, id, change)
	if err == nil {
		m.notify(ctx, before, change)
	}
	if err := m.changed(ctx, id, revokedBy(change), "change the account", err, events...); err != nil {
		return none, err
	}
	user, err := m.ByID(ctx, id)
	if a := m.of(&user); err == nil && change.RevokeTokens && update.IfVersion != nil {
		a.Version = *update.IfVersion + 1 // not a later one, whose change Renew must not outlive
	}
	return user, err
}

// Deactivate makes an account inactive and revokes all its tokens, which stay invalid if the
// account is made active again. It returns an error wrapping [ErrUserNotFound] if there is no
// such account.
func (m *Manager[U, ID]) Deactivate(ctx context.Context, id ID) error {
	return m.apply(ctx, id, Change{Active: new(false), RevokeTokens: true}, event.ReasonUserInactive)
}

// Activate makes an account active again. It returns an error wrapping [ErrUserNotFound] if
// there is no such account.
func (m *Manager[U, ID]) Activate(ctx context.Context, id ID) error {
	return m.apply(ctx, id, Change{Active: new(true)}, "")
}

// RevokeTokens logs an account out everywhere, in one update: it raises the token
// version, which invalidates all tokens issued earlier. It returns an error wrapping
// [ErrUserNotFound] if there is no such account.
func (m *Manager[U, ID]) RevokeTokens(ctx context.Context, id ID) error {
	return m.apply(ctx, id, Change{RevokeTokens: true}, "")
}

// Delete deletes an account, which ends its sessions: all its tokens are invalid from the next
// request on, and their rows are deleted. Its address is free for a new account.
//
// It returns an error wrapping [ErrUserNotFound] if there is no such account. If it returns
// another error, the account may be deleted: call it again to delete also what is left of the
// account's sessions and one-time tokens, and what [Manager.OnDelete] names.
func (m *Manager[U, ID]) Delete(ctx context.Context, id ID) error {
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	err := m.store.Delete(ctx, id)
	gone, revoked := err == nil || errors.Is(err, ErrUserNotFound), strategy.RevokedNone
	if gone {
		revoked = strategy.RevokedAll
	}
	switch {
	case err == nil:
		m.emit(ctx, event.Event{Kind: event.AccountDeleted, UserID: id})
	case gone:
		err = fmt.Errorf("account: %w", err)
	default:
		err = m.failed(ctx, "delete the account", err)
	}
	// Everything else that belongs to the account is deleted after it, also if it is gone
	// already: an earlier call may have stopped here.
	free, cancel := deadline.Uncancelled(ctx)
	defer cancel()
	if gone && m.oneTime != nil {
		if failure := m.oneTime.DeleteByUser(free, id, ""); failure != nil {
			err = errors.Join(err, m.failed(ctx, "delete the one-time tokens", failure))
		}
	}
	if gone {
		for _, f := range m.onDelete {
			if failure := f(free, id); failure != nil {
				err = errors.Join(err, m.failed(ctx, "delete what belongs to the account", failure))
			}
		}
	}
	return errors.Join(err, m.tell(ctx, id, revoked))
}

// revokedBy returns which tokens a change invalidates.
func revokedBy(change Change) strategy.Revoked {
	switch {
	case !change.RevokeTokens:
		return strategy.RevokedNone
	case change.Password != nil && (change.Active == nil || *change.Active):
		return strategy.RevokedByPassword
	}
	return strategy.RevokedAll
}

func (m *Manager[U, ID]) apply(ctx context.Context, id ID, change Change, reason event.Reason) error {
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	err := m.store.Apply(ctx, id, change)
	return m.changed(ctx, id, revokedBy(change), "change the account", err, event.Event{Kind: event.AccountChanged, UserID: id, Reason: reason})
}

// changed reports a change that the store was asked to make, or why it failed, and tells the
// sessions. err is the store's result; if it is a failure, the change may have been made.
func (m *Manager[U, ID]) changed(ctx context.Context, id ID, revoked strategy.Revoked, doing string, err error, done ...event.Event) error {
	switch {
	case errors.Is(err, ErrConflict), errors.Is(err, ErrUserNotFound), errors.Is(err, ErrEmailTaken):
		return fmt.Errorf("account: %w", err)
	case err != nil:
		err, revoked = m.failed(ctx, doing, err), strategy.RevokedNone
	default:
		for _, e := range done {
			m.emit(ctx, e)
		}
	}
	if revoked != strategy.RevokedNone {
		m.dropOneTimeTokens(ctx, id)
	}
	return errors.Join(err, m.tell(ctx, id, revoked))
}

// dropOneTimeTokens deletes the one-time tokens of an account that its new token version has
// invalidated: another program that updates the account may drop the version. It is a clean-up
// otherwise, so a failure is an event.
func (m *Manager[U, ID]) dropOneTimeTokens(ctx context.Context, id ID) {
	if m.oneTime == nil {
		return
	}
	ctx, cancel := deadline.Uncancelled(ctx)
	defer cancel()
	for _, purpose := range []Purpose{PurposePasswordReset, PurposeEmailChange} {
		if err := m.oneTime.DeleteByUser(ctx, id, purpose); err != nil {
			_ = m.failed(ctx, "delete the one-time tokens", err)
			return
		}
	}
}

// tell tells the sessions of a change to an account, also if the client has gone: the sessions
// of another process may have to be ended.
func (m *Manager[U, ID]) tell(ctx context.Context, id ID, revoked strategy.Revoked) (err error) {
	ctx, cancel := deadline.Uncancelled(ctx)
	defer cancel()
	for _, s := range m.sessions {
		if failure := s.UserChanged(ctx, id, revoked); failure != nil {
			err = errors.Join(err, fmt.Errorf("account: tell the sessions of the change: %w", failure))
		}
	}
	return err
}
