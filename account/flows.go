package account

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/deadline"
	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/strategy"
)

// maxOneTimeTokens is how many valid one-time tokens a user can have for one purpose. The
// oldest go first.
const maxOneTimeTokens = 3

// RequestVerification sends a message with a token for [Manager.Verify] to the account with
// this address, if there is one, it is active and not verified. It returns before it has
// looked: neither its result nor its time tells whether there is an account. Requests beyond
// the limits of [MailConfig] are dropped with an event.
//
// It returns an error wrapping [ErrInvalidEmail], or [ErrNoMailer] if there is no Mailer.
func (m *Manager[U, ID]) RequestVerification(ctx context.Context, email string) error {
	return m.request(ctx, email, event.VerificationRequested, func(ctx context.Context, user *U) (event.Reason, error) {
		if m.of(user).Verified {
			return event.ReasonUserVerified, nil
		}
		return "", m.mailToken(ctx, user, PurposeVerification, MessageVerification, m.of(user).Email, m.cfg.Mail.VerificationLifetime)
	})
}

// RequestPasswordReset sends a message with a token for [Manager.ResetPassword] to the
// account with this address, if there is one and it is active. An account without a password
// gets its first one this way. Otherwise it is like [Manager.RequestVerification].
func (m *Manager[U, ID]) RequestPasswordReset(ctx context.Context, email string) error {
	return m.request(ctx, email, event.PasswordResetRequested, func(ctx context.Context, user *U) (event.Reason, error) {
		return "", m.mailToken(ctx, user, PurposePasswordReset, MessagePasswordReset, m.of(user).Email, m.cfg.Mail.ResetLifetime)
	})
}

// request looks an account up and calls do with it if it is active, all behind the answer.
func (m *Manager[U, ID]) request(ctx context.Context, email string, kind event.Kind, do func(context.Context, *U) (event.Reason, error)) error {
	name, err := NormalizeEmail(email)
	if err != nil {
		return fmt.Errorf("account: %w", err)
	}
	return m.later(ctx, func(ctx context.Context) {
		if !m.mailAllowed(ctx, name) {
			m.emit(ctx, event.Event{Kind: kind, Reason: event.ReasonTooMany})
			return
		}
		user, err := m.store.ByEmail(ctx, name)
		switch {
		case errors.Is(err, ErrUserNotFound):
			m.emit(ctx, event.Event{Kind: kind, Reason: event.ReasonUnknownUser})
			return
		case err != nil:
			_ = m.failed(ctx, "look up the account", err)
			return
		}
		id := m.of(&user).ID
		if !user.IsActive() {
			m.emit(ctx, event.Event{Kind: kind, UserID: id, Reason: event.ReasonUserInactive})
			return
		}
		switch reason, err := do(ctx, &user); {
		case err != nil: // reported
		default:
			m.emit(ctx, event.Event{Kind: kind, UserID: id, Reason: reason})
		}
	})
}

// mailToken issues a one-time token and sends it. An error has been reported.
func (m *Manager[U, ID]) mailToken(ctx context.Context, user *U, purpose Purpose, kind MessageKind, to string, lifetime time.Duration) error {
	secret, expires, err := m.issue(ctx, user, purpose, to, lifetime)
	if err != nil {
		return err
	}
	m.send(ctx, user, Message{Kind: kind, To: to, Token: secret, ExpiresAt: expires})
	return nil
}

// issue stores a new one-time token.
func (m *Manager[U, ID]) issue(ctx context.Context, user *U, purpose Purpose, to string, lifetime time.Duration) (strategy.Secret, time.Time, error) {
	a := m.of(user)
	secret, digest := token.OneTime.New()
	now := m.now()
	row := OneTimeToken[ID]{
		Digest: digest, Purpose: purpose, UserID: a.ID, SentTo: to, Email: a.Email, TokenVersion: a.Version,
		CreatedAt: now, ExpiresAt: now.Add(lifetime).Truncate(time.Millisecond),
	}
	if err := m.oneTime.Insert(ctx, row, maxOneTimeTokens); err != nil {
		return strategy.Secret{}, time.Time{}, m.failed(ctx, "store the one-time token", err)
	}
	return strategy.NewSecret(secret), row.ExpiresAt, nil
}

// badToken returns ErrBadOneTimeToken and reports why. A digest is never part of it.
func (m *Manager[U, ID]) badToken(ctx context.Context, id any, reason event.Reason) error {
	m.emit(ctx, event.Event{Kind: event.OneTimeTokenDenied, UserID: id, Reason: reason})
	return fmt.Errorf("account: %w", ErrBadOneTimeToken)
}

// redeemable returns the row and the account of a one-time token that is good for one of some
// purposes: not expired, and issued for the account's present address. It does not use the
// token.
func (m *Manager[U, ID]) redeemable(ctx context.Context, secret string, purposes ...Purpose) (row OneTimeToken[ID], user U, err error) {
	if m.oneTime == nil {
		return row, user, fmt.Errorf("account: %w", ErrNoMailer)
	}
	digest, ok := token.OneTime.Digest(secret)
	if !ok {
		return row, user, m.badToken(ctx, nil, event.ReasonMalformed)
	}
	for _, purpose := range purposes {
		row, err = m.oneTime.Find(ctx, purpose, digest)
		if !errors.Is(err, ErrOneTimeTokenNotFound) {
			break
		}
	}
	switch {
	case errors.Is(err, ErrOneTimeTokenNotFound):
		return row, user, m.badToken(ctx, nil, event.ReasonUnknown)
	case err != nil:
		return row, user, m.failed(ctx, "look up the one-time token", err)
	case m.now().After(row.ExpiresAt):
		return row, user, m.badToken(ctx, row.UserID, event.ReasonExpired)
	}
	user, err = m.store.ByID(ctx, row.UserID)
	switch {
	case errors.Is(err, ErrUserNotFound):
		return row, user, m.badToken(ctx, row.UserID, event.ReasonUserGone)
	case err != nil:
		return row, user, m.failed(ctx, "look up the account", err)
	case !user.IsActive():
		return row, user, m.badToken(ctx, row.UserID, event.ReasonUserInactive)
	case m.of(&user).Email != row.Email,
		row.Purpose != PurposeVerification && m.of(&user).Version != row.TokenVersion:
		return row, user, m.badToken(ctx, row.UserID, event.ReasonSuperseded)
	}
	return row, user, nil
}

// redeem uses a token and makes its change to the account, on the condition that the account
// is as it was when the token was issued. One of several concurrent calls succeeds. If the
// store fails, the token is good again. user is the account as it was read.
func (m *Manager[U, ID]) redeem(ctx context.Context, row OneTimeToken[ID], user U, change Change, done event.Event) error {
	if _, err := m.oneTime.Take(ctx, row.Purpose, row.Digest); err != nil {
		if errors.Is(err, ErrOneTimeTokenNotFound) {
			return m.badToken(ctx, row.UserID, event.ReasonUnknown)
		}
		return m.failed(ctx, "use the one-time token", err)
	}
	change.IfEmail = &row.Email
	if row.Purpose != PurposeVerification {
		change.IfVersion = &row.TokenVersion
	}
	done.UserID = row.UserID
	err := m.store.Apply(ctx, row.UserID, change)
	switch {
	case err == nil:
		m.notify(ctx, user, change)
	case errors.Is(err, ErrConflict), errors.Is(err, ErrUserNotFound):
		return m.badToken(ctx, row.UserID, event.ReasonSuperseded)
	case errors.Is(err, ErrEmailTaken):
		return fmt.Errorf("account: %w", err)
	}
	revoked := revokedBy(change)
	if change.Password != nil && !m.of(&user).Verified {
		revoked = strategy.RevokedAll // also tokens that survive a new password, see claim
	}
	if err = m.changed(ctx, row.UserID, revoked, "change the account", err, done); err != nil {
		// The change may have been made. Its conditions keep the token from being used again.
		m.restore(ctx, row)
		return err
	}
	// A failure leaves tokens that are good until they expire, for an account that is verified,
	// or that the conditions keep from being used.
	if revoked == strategy.RevokedNone { // otherwise changed has deleted them
		if err := m.oneTime.DeleteByUser(ctx, row.UserID, row.Purpose); err != nil {
			_ = m.failed(ctx, "delete the one-time tokens", err)
		}
	}
	return nil
}

// restore puts a token back that was taken, but may not have been used.
func (m *Manager[U, ID]) restore(ctx context.Context, row OneTimeToken[ID]) {
	finish(ctx, func(ctx context.Context) {
		if err := m.oneTime.Insert(ctx, row, maxOneTimeTokens); err != nil {
			_ = m.failed(ctx, "restore the one-time token", err)
		}
	})
}

// Verify proves that an e-mail address is the user's, and returns the account. With a token of
// [Manager.RequestVerification] it marks the account verified; with one of
// [Manager.RequestEmailChange] it also gives the account the new address. Sessions go on.
//
// It returns an error wrapping [ErrBadOneTimeToken] if the token is malformed, unknown, used or
// expired, or if the account is gone, inactive or has another address by now, or, for a new
// address, another token version; [ErrAlreadyVerified] if there is nothing to do; or
// [ErrEmailTaken] if another account got the new address meanwhile.
func (m *Manager[U, ID]) Verify(ctx context.Context, secret string) (U, error) {
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	var none U
	row, user, err := m.redeemable(ctx, secret, PurposeVerification, PurposeEmailChange)
	if err != nil {
		return none, err
	}
	a := m.of(&user)
	change, done := Change{Verified: new(true)}, event.Event{Kind: event.AccountVerified}
	switch {
	case row.Purpose == PurposeEmailChange:
		change.Email, done.Kind = &row.SentTo, event.EmailChanged
	case a.Verified:
		return none, fmt.Errorf("account: %w", ErrAlreadyVerified)
	}
	if err := m.redeem(ctx, row, user, change, done); err != nil {
		return none, err
	}
	a.Email, a.Verified = row.SentTo, true
	return user, nil
}

// ResetPassword sets the password of the account that a token of
// [Manager.RequestPasswordReset] was sent to. The same update ends all sessions. It does not
// log in (ASVS 6.4.1). If the account is not verified, it also calls what [Manager.OnClaim] names.
//
// It returns an error wrapping [ErrBadOneTimeToken] as [Manager.Verify] does, and also if the
// password was changed or the tokens were revoked since the request; [ErrInvalidPassword], and
// then the token stays good; or [ErrBusy].
func (m *Manager[U, ID]) ResetPassword(ctx context.Context, secret, password string) (U, error) {
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	var none U
	row, user, err := m.redeemable(ctx, secret, PurposePasswordReset)
	if err != nil {
		return none, err
	}
	hash, err := m.HashPassword(ctx, password)
	if err != nil {
		return none, err
	}
	a := m.of(&user)
	// Before: no later login may come by a way that another than the owner of the address made. If
	// that fails, the token stays good.
	if err := m.claim(ctx, a); err != nil {
		return none, err
	}
	err = m.redeem(ctx, row, user, Change{Password: &hash, RevokeTokens: true}, event.Event{Kind: event.PasswordReset})
	if err != nil {
		return none, err
	}
	// After: a session that the reset has ended may have made one meanwhile. If that fails, the user
	// asks for another reset.
	if err := m.claim(ctx, a); err != nil {
		return none, err
	}
	a.HashedPassword = hash
	a.Version++
	return user, nil
}

// claim calls the functions of OnClaim for an account that is not verified.
func (m *Manager[U, ID]) claim(ctx context.Context, a *User[ID]) (err error) {
	if a.Verified || len(m.onClaim) == 0 {
		return nil
	}
	free, cancel := deadline.Uncancelled(ctx)
	defer cancel()
	for _, f := range m.onClaim {
		if failure := f(free, a.ID); failure != nil {
			err = errors.Join(err, m.failed(ctx, "remove the other ways in to the account", failure))
		}
	}
	return err
}

// RequestEmailChange sends a message with a token for [Manager.Verify] to a new address of an
// account, and a notice to the present one. The address does not change yet. Call it only after
// a fresh login or a check of the password (ASVS 7.5.1). user is the account as it was read
// when its user was authenticated: the token is no good if the tokens of the account were
// revoked since.
//
// It returns an error wrapping [ErrInvalidEmail], [ErrEmailTaken] (also if the address is the
// account's own), or [ErrNoMailer] if there is no Mailer.
func (m *Manager[U, ID]) RequestEmailChange(ctx context.Context, user U, email string) error {
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	if m.mail == nil {
		return fmt.Errorf("account: %w", ErrNoMailer)
	}
	to, err := NormalizeEmail(email)
	if err != nil {
		return fmt.Errorf("account: %w", err)
	}
	switch _, err := m.store.ByEmail(ctx, to); {
	case err == nil:
		return fmt.Errorf("account: %w", ErrEmailTaken)
	case !errors.Is(err, ErrUserNotFound):
		return m.failed(ctx, "look up the address", err)
	}
	return m.later(ctx, func(ctx context.Context) {
		id := m.of(&user).ID
		if !m.mailAllowed(ctx, to) {
			m.emit(ctx, event.Event{Kind: event.EmailChangeRequested, UserID: id, Reason: event.ReasonTooMany})
			return
		}
		m.send(ctx, &user, Message{Kind: MessageEmailChanging, To: m.of(&user).Email})
		if m.mailToken(ctx, &user, PurposeEmailChange, MessageEmailChange, to, m.cfg.Mail.VerificationLifetime) == nil {
			m.emit(ctx, event.Event{Kind: event.EmailChangeRequested, UserID: id})
		}
	})
}
