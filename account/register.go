package account

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/event"
)

// Register creates an account for a user who signs up. The account is active, and
// neither verified nor a superuser, whatever the flags of user say. Register sets the ID
// (unless NewManager got no newID), the password hash, the creation time and a token
// version of 0, and normalises the e-mail address. The application's own fields are
// stored as they are. It returns the account as stored.
//
// It returns an error wrapping [ErrInvalidEmail], [ErrInvalidPassword], [ErrEmailTaken],
// [ErrConflict] if the ID is taken, [ErrTooManyAttempts] (a *[TooManyAttemptsError]) beyond
// Config.RegistrationsPerNetwork, or [ErrBusy]. The client IP is that of ctx; see
// event.ContextWithClientIP.
//
// ErrEmailTaken reveals that an account exists. [Manager.RequestRegistration] does not.
func (m *Manager[U, ID]) Register(ctx context.Context, user U, password string) (U, error) {
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	var none U
	user, err := m.signUp(ctx, user, password)
	if err != nil {
		return none, err
	}
	user, err = m.insert(ctx, user)
	if errors.Is(err, ErrEmailTaken) {
		m.emit(ctx, event.Event{Kind: event.RegistrationDenied, Reason: event.ReasonEmailTaken})
	}
	return user, err
}

// RequestRegistration is [Manager.Register] for a sign-up that conceals which addresses have
// an account. It returns before the account is stored: neither its result nor its time tells
// whether the address is taken. A new account gets a message with a token for
// [Manager.Verify]; the user of an account that has the address gets a message that says so.
//
// It returns the errors of Register except ErrEmailTaken, [ErrBusy] also if the queue of
// messages is full, and [ErrNoMailer] if there is no Mailer. A registration that fails behind
// the answer is an event.
func (m *Manager[U, ID]) RequestRegistration(ctx context.Context, user U, password string) error {
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	if m.mail == nil {
		return fmt.Errorf("account: %w", ErrNoMailer)
	}
	user, err := m.signUp(ctx, user, password)
	if err != nil {
		return err
	}
	err = m.queue(ctx, func(ctx context.Context) { m.registerBehind(ctx, user) })
	if err != nil {
		return m.failed(ctx, "queue the registration", err)
	}
	return nil
}

// registerBehind stores a new account behind the answer, and sends the message.
func (m *Manager[U, ID]) registerBehind(ctx context.Context, user U) {
	email := m.of(&user).Email
	stored, err := m.insert(ctx, user)
	taken := errors.Is(err, ErrEmailTaken)
	switch {
	case taken:
		m.emit(ctx, event.Event{Kind: event.RegistrationDenied, Reason: event.ReasonEmailTaken})
	case errors.Is(err, ErrConflict):
		_ = m.failed(ctx, "insert the account", err)
		return
	case err != nil: // reported
		return
	}
	if !m.mailAllowed(ctx, email) {
		m.emit(ctx, event.Event{Kind: event.VerificationRequested, Reason: event.ReasonTooMany})
		return
	}
	if !taken {
		if m.mailToken(ctx, &stored, PurposeVerification, MessageVerification, email, m.cfg.Mail.VerificationLifetime) == nil {
			m.emit(ctx, event.Event{Kind: event.VerificationRequested, UserID: m.of(&stored).ID})
		}
		return
	}
	owner, err := m.store.ByEmail(ctx, email)
	switch {
	case errors.Is(err, ErrUserNotFound): // deleted meanwhile
	case err != nil:
		_ = m.failed(ctx, "look up the account", err)
	case owner.IsActive():
		m.send(ctx, &owner, Message{Kind: MessageEmailTaken, To: email})
	}
}

// signUp returns the account of a user who signs up, as it is to be stored. It takes as long
// for a taken address as for a new one.
func (m *Manager[U, ID]) signUp(ctx context.Context, user U, password string) (U, error) {
	a := m.of(&user)
	a.Active, a.Verified, a.Superuser = true, false, false
	// user may come from a form. Strangers must not choose their ID, which can be that of
	// a deleted account whose tokens are still stored, or their token version.
	a.Version = 0
	if m.newID != nil {
		a.ID = m.newID()
	}
	return m.prepare(user, func() (PasswordHash, error) {
		if err := m.checkNewPassword(ctx, password); err != nil {
			return PasswordHash{}, err
		}
		// Before the password is hashed, which is costly.
		if m.limiter != nil && !m.withinNetwork(ctx, "registration network", m.cfg.RegistrationsPerNetwork) {
			m.emit(ctx, event.Event{Kind: event.RegistrationDenied, Reason: event.ReasonTooMany})
			return PasswordHash{}, fmt.Errorf("account: %w", &TooManyAttemptsError{time.Hour})
		}
		return m.hashChecked(ctx, password)
	})
}

// Create creates an account with the flags and the token version of user, and with its
// ID unless that is zero. It is meant for administrators, imports and seeds; use
// [Manager.Register] for sign-ups. Otherwise it does the same, with the same errors.
func (m *Manager[U, ID]) Create(ctx context.Context, user U, password string) (U, error) {
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	return m.create(ctx, user, func() (PasswordHash, error) { return m.HashPassword(ctx, password) })
}

// CreateWithHash does the same as [Manager.Create], with a password hash instead of a
// password. It is meant for accounts of another system, whose hashes it checks as
// [Manager.ImportHash] does, with the same error.
//
// With the zero PasswordHash the account has no password: its user logs in by other means,
// such as OAuth or a passkey. A login with a password is denied in the same time as with a
// wrong one, until [Manager.SetPassword] sets the first one.
func (m *Manager[U, ID]) CreateWithHash(ctx context.Context, user U, hash PasswordHash) (U, error) {
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	return m.create(ctx, user, func() (PasswordHash, error) {
		if hash.IsZero() {
			return hash, nil
		}
		return m.importHash(ctx, hash.Reveal())
	})
}

// create stores a new account with the password hash that makeHash returns.
func (m *Manager[U, ID]) create(ctx context.Context, user U, makeHash func() (PasswordHash, error)) (U, error) {
	user, err := m.prepare(user, makeHash)
	if err != nil {
		var none U
		return none, err
	}
	return m.insert(ctx, user)
}

// prepare returns an account as it is to be stored, with the password hash that makeHash
// returns.
func (m *Manager[U, ID]) prepare(user U, makeHash func() (PasswordHash, error)) (U, error) {
	var none U
	a := m.of(&user)
	email, err := NormalizeEmail(a.Email)
	if err != nil {
		return none, fmt.Errorf("account: %w", err)
	}
	var zero ID
	if a.ID == zero && m.newID != nil {
		a.ID = m.newID()
	}
	if a.ID == zero {
		return none, errors.New("account: the user has no ID, and NewManager got no newID")
	}
	hash, err := makeHash()
	if err != nil {
		return none, err
	}
	a.Email, a.HashedPassword, a.CreatedAt = email, hash, m.now()
	return user, nil
}

// insert stores a new account.
func (m *Manager[U, ID]) insert(ctx context.Context, user U) (U, error) {
	var none U
	switch err := m.store.Insert(ctx, user); {
	case errors.Is(err, ErrEmailTaken), errors.Is(err, ErrConflict):
		return none, fmt.Errorf("account: %w", err)
	case err != nil:
		return none, m.failed(ctx, "insert the account", err)
	}
	m.emit(ctx, event.Event{Kind: event.AccountRegistered, UserID: m.of(&user).ID})
	return user, nil
}

// ValidatePassword returns an error wrapping [ErrInvalidPassword] if the Manager would reject a
// new password.
func (m *Manager[U, ID]) ValidatePassword(ctx context.Context, password string) error {
	return m.checkNewPassword(ctx, password)
}

// HashPassword checks a new password and returns its hash, for a store or a program that
// writes accounts by other means. It returns an error wrapping [ErrInvalidPassword] if the
// password is rejected, or [ErrBusy].
func (m *Manager[U, ID]) HashPassword(ctx context.Context, password string) (PasswordHash, error) {
	if err := m.checkNewPassword(ctx, password); err != nil {
		return PasswordHash{}, err
	}
	return m.hashChecked(ctx, password)
}

// hashChecked is HashPassword for a password that was checked.
func (m *Manager[U, ID]) hashChecked(ctx context.Context, password string) (PasswordHash, error) {
	hash, err := m.hash(ctx, password)
	if err != nil {
		return PasswordHash{}, m.failed(ctx, "hash the password", err)
	}
	return hash, nil
}

// ImportHash returns a password hash of another system if a login can verify it. Otherwise it
// returns an error wrapping [ErrUnusableHash] that says why, or the error of Config.VerifyHash.
// It does not compute a hash. These are the schemes and their forms:
//
//   - argon2id and argon2i: $argon2id$v=19$m=…,t=…,p=…$salt$key
//   - bcrypt: $2a$, $2b$ and $2y$
//   - bcrypt_sha256 of passlib: $bcrypt-sha256$v=2,t=2b,r=…$salt$key, $bcrypt-sha256$2b,…$salt$key
//   - scrypt: $scrypt$ln=…,r=…,p=…$salt$key
//   - PBKDF2 with SHA-1, SHA-256 and SHA-512: $pbkdf2$, $pbkdf2-sha256$ and $pbkdf2-sha512$,
//     followed by rounds$salt$key (passlib) or i=rounds$salt$key (PHC)
//   - Django's: argon2$…, bcrypt$…, bcrypt_sha256$…, scrypt$…, pbkdf2_sha1$… and pbkdf2_sha256$…
//   - any other that Config.VerifyHash knows
//
// A hash must not cost too much. At most, argon2 may take 1,048,576 KiB times passes, scrypt
// 524,288 KiB times p, both no more memory than Config.MaxConcurrentHashes says, bcrypt the cost
// 16, and PBKDF2 8,000,000 rounds. A key must have 16 to 128 bytes.
//
// A hash of another scheme or with other parameters than those of the Config is replaced at the
// account's next login.
func (m *Manager[U, ID]) ImportHash(hash string) (PasswordHash, error) {
	ctx, cancel := m.bounded(context.Background())
	defer cancel()
	return m.importHash(ctx, hash)
}

func (m *Manager[U, ID]) importHash(ctx context.Context, hash string) (PasswordHash, error) {
	_, err := m.hasher.parse(hash)
	if m.cfg.VerifyHash != nil && errors.Is(err, errUnknownScheme) {
		var ok bool
		if ok, err = m.cfg.VerifyHash(ctx, hash, ""); ok && err == nil {
			err = unusable("the empty password matches it")
		}
	}
	if err != nil {
		return PasswordHash{}, fmt.Errorf("account: %w", err)
	}
	return NewPasswordHash(hash), nil
}

func (m *Manager[U, ID]) checkNewPassword(ctx context.Context, password string) error {
	password = canonical(password)
	if err := checkNewPassword(password, m.cfg.MinPasswordLength); err != nil {
		return fmt.Errorf("account: %w", err)
	}
	if m.cfg.CheckPassword != nil {
		if err := m.cfg.CheckPassword(ctx, password); err != nil {
			return fmt.Errorf("account: %w: %w", ErrInvalidPassword, err)
		}
	}
	return nil
}
