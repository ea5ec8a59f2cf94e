package account

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/strategy"
)

// Config configures a [Manager]. The zero value is safe.
type Config struct {
	// Argon2 are the parameters for new hashes. Default: see its fields. A password whose stored hash has
	// others is rehashed at the next login.
	Argon2 Argon2

	// InsecureArgon2 allows parameters below OWASP's minimum. Default false. It is
	// meant for tests, which would spend their time hashing.
	InsecureArgon2 bool

	// MaxConcurrentHashes is how many passwords are hashed at once: each takes
	// Argon2.MemoryKiB and Argon2.Parallelism threads. Up to 32 times as many may
	// wait for their turn. Default as many as have a processor for each of their
	// threads (runtime.GOMAXPROCS divided by Argon2.Parallelism), and at least 1: more
	// are slower altogether, and every other request waits for them.
	MaxConcurrentHashes int

	// MaxHashWait is how long one waits for its turn. Whoever waits longer, or
	// finds too many waiting, gets [ErrBusy]. Default 3 seconds.
	MaxHashWait time.Duration

	// Limiter limits failed logins. The zero value has safe defaults; see its fields.
	Limiter LimiterConfig

	// InsecureNoLimiter disables the limiter. NewManager accepts nil attempts then.
	// Default false. It is meant for applications that limit logins by other means.
	InsecureNoLimiter bool

	// MinPasswordLength is the least number of characters in a new password.
	// Default 8 (ASVS 6.2.1; NIST SP 800-63B-4 §3.1.1.2 asks for 15 where the
	// password is the only factor).
	MinPasswordLength int

	// CheckPassword may turn a new password down, for example one that is on a
	// list of breached passwords. Its error reaches the caller wrapped together
	// with [ErrInvalidPassword]. nil means no further check.
	CheckPassword func(ctx context.Context, password string) error

	// Now is the clock. Default [time.Now].
	Now func() time.Time

	// OnEvent is called synchronously with everything that happens; see
	// strategy.Config.OnEvent. nil means that nobody listens.
	OnEvent func(context.Context, event.Event)
}

// Manager registers accounts, authenticates their users and changes their
// passwords. Make one with [NewManager]. It is safe for concurrent use.
type Manager[U strategy.User[ID], ID comparable] struct {
	store   Store[U, ID]
	newID   func() ID
	of      func(*U) *User[ID]
	hasher  *hasher
	slots   *slots
	limiter *limiter // nil with InsecureNoLimiter
	cfg     Config

	onTokensRevoked []func(ctx context.Context, id ID)
}

// NewManager returns a Manager of the accounts in a store. newID makes the IDs
// of new accounts: uuid.New, bson.NewObjectID or the application's own; nil
// means that accounts are registered with their ID set. All type parameters are
// inferred. It returns an error that names the field where the configuration is
// wrong.
func NewManager[U strategy.User[ID], ID comparable, P Embeds[U, ID]](store Store[U, ID], attempts AttemptStore, newID func() ID, cfg Config) (*Manager[U, ID], error) {
	if store == nil {
		return nil, errors.New("account: store is nil")
	}
	if cfg.MinPasswordLength < 0 || cfg.MinPasswordLength > 64 {
		return nil, fmt.Errorf("account: Config.MinPasswordLength is %d, want 0 (for 8) to 64", cfg.MinPasswordLength)
	}
	if cfg.MinPasswordLength == 0 {
		cfg.MinPasswordLength = 8
	}
	if cfg.MaxConcurrentHashes < 0 {
		return nil, fmt.Errorf("account: Config.MaxConcurrentHashes is negative: %d", cfg.MaxConcurrentHashes)
	}
	if cfg.MaxHashWait < 0 {
		return nil, fmt.Errorf("account: Config.MaxHashWait is negative: %v", cfg.MaxHashWait)
	}
	if cfg.MaxHashWait == 0 {
		cfg.MaxHashWait = 3 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	h, err := newHasher(cfg.Argon2, cfg.InsecureArgon2)
	if err != nil {
		return nil, err
	}
	if cfg.MaxConcurrentHashes == 0 {
		cfg.MaxConcurrentHashes = max(1, runtime.GOMAXPROCS(0)/int(h.params.Parallelism))
	}
	limiter, err := cfg.limiter(attempts)
	if err != nil {
		return nil, err
	}
	of := func(u *U) *User[ID] { return P(u).Account() }
	const queue = 32 // for each that runs
	s := newSlots(cfg.MaxConcurrentHashes, queue*cfg.MaxConcurrentHashes, cfg.MaxHashWait)
	return &Manager[U, ID]{store: store, newID: newID, of: of, hasher: h, slots: s, limiter: limiter, cfg: cfg}, nil
}

// limiter returns the limiter that cfg asks for, or nil with InsecureNoLimiter.
func (cfg Config) limiter(attempts AttemptStore) (*limiter, error) {
	switch {
	case cfg.InsecureNoLimiter && cfg.Limiter != LimiterConfig{}:
		return nil, errors.New("account: Config.InsecureNoLimiter and Config.Limiter are both set")
	case cfg.InsecureNoLimiter:
		return nil, nil
	case attempts == nil:
		return nil, errors.New("account: attempts is nil: pass mongostore.NewAttempts, or memstore.NewAttempts for a single process")
	}
	return newLimiter(attempts, cfg.Limiter, cfg.Now, cfg.OnEvent)
}

// OnTokensRevoked registers f. The Manager calls it after each change that invalidated
// an account's tokens ([Manager.ChangePassword], [Manager.Deactivate],
// [Manager.RevokeTokens]), and also when the store failed to answer, because the change
// may have been made. It does not call it after [ErrUserNotFound] or [ErrConflict].
//
// The context has the values of the request's, but is not cancelled with it. f can
// delete the tokens' rows: a clean-up, as the tokens are invalid already.
//
// OnTokensRevoked must not be called concurrently with the other methods.
func (m *Manager[U, ID]) OnTokensRevoked(f func(ctx context.Context, id ID)) {
	m.onTokensRevoked = append(m.onTokensRevoked, f)
}

func (m *Manager[U, ID]) tokensRevoked(ctx context.Context, id ID) {
	ctx = context.WithoutCancel(ctx)
	for _, f := range m.onTokensRevoked {
		f(ctx, id)
	}
}

// Register creates the account of somebody who signs up: active, not verified,
// no superuser, whatever the flags of user say. The user's Email is normalised;
// the ID, the password hash and the creation time are set; the application's own
// fields are stored as they are. It returns the account as stored.
//
// It returns an error wrapping [ErrInvalidEmail], [ErrInvalidPassword],
// [ErrEmailTaken], or [ErrConflict] where the ID is taken. Telling a stranger that
// an address is taken tells them who has an account: answer a public sign-up form
// the same way in both cases, and write the rest in an e-mail.
func (m *Manager[U, ID]) Register(ctx context.Context, user U, password string) (U, error) {
	a := m.of(&user)
	a.Active, a.Verified, a.Superuser = true, false, false
	// Neither are these a stranger's to choose: an ID can be that of an account
	// that was deleted, and whose tokens are still there.
	a.Version = 0
	if m.newID != nil {
		a.ID = m.newID()
	}
	return m.Create(ctx, user, password)
}

// Create creates an account with the flags, the Version and, unless it is zero,
// the ID that user carries. It is for administrators, imports and seeds;
// [Manager.Register] is for strangers. All else is as there.
func (m *Manager[U, ID]) Create(ctx context.Context, user U, password string) (U, error) {
	var nobody U
	a := m.of(&user)
	email, err := NormalizeEmail(a.Email)
	if err != nil {
		return nobody, fmt.Errorf("account: %w", err)
	}
	if err := m.checkNewPassword(ctx, password); err != nil {
		return nobody, err
	}
	var noID ID
	if a.ID == noID && m.newID != nil {
		a.ID = m.newID()
	}
	if a.ID == noID {
		return nobody, errors.New("account: the user has no ID, and NewManager was given no function that makes one")
	}
	hash, err := m.hash(ctx, password)
	if err != nil {
		return nobody, m.failed(ctx, "hash the password", err)
	}
	a.Email, a.HashedPassword, a.CreatedAt = email, hash, m.now()
	if err := m.store.Insert(ctx, user); err != nil {
		return nobody, m.unless(ctx, "insert the account", err, ErrEmailTaken, ErrConflict)
	}
	m.emit(ctx, event.Event{Kind: event.AccountRegistered, UserID: a.ID})
	return user, nil
}

// Authenticate returns the active account with this e-mail address and password.
// Case and surrounding blanks of the address do not matter. It returns an error
// wrapping [ErrBadCredentials] for an unknown address, a wrong password or an
// inactive account, after the same work; [ErrTooManyAttempts], with the time to
// wait, before any; [ErrBusy] under a flood. Any other error is a failure of the
// store. A hash that is not of today's scheme and parameters is replaced; a
// failure to do so is an event, and the login goes on.
//
// The limiter counts by the client's address in ctx; see
// event.ContextWithClientIP.
func (m *Manager[U, ID]) Authenticate(ctx context.Context, email, password string) (U, error) {
	var user U
	if !plausible(password) {
		return user, m.denied(ctx, event.ReasonWrongPassword, nil)
	}
	name, err := NormalizeEmail(email)
	if err != nil {
		name = email // which no account has
	}
	err = m.limited(ctx, nil, func() (*attempt, error) { return m.limiter.begin(ctx, name) }, func() (err error) {
		user, err = m.authenticate(ctx, name, password)
		return err
	})
	if err != nil {
		var nobody U
		return nobody, err
	}
	m.emit(ctx, event.Event{Kind: event.LoginSucceeded, UserID: user.UserID()})
	return user, nil
}

func (m *Manager[U, ID]) authenticate(ctx context.Context, name, password string) (U, error) {
	user, err := m.store.ByEmail(ctx, name)
	switch {
	case errors.Is(err, ErrUserNotFound):
		// The work of a check, and its failures: so neither the time of the
		// answer nor its kind tells whether there was anything to check.
		if err := m.pretend(ctx, password); err != nil {
			return user, m.failed(ctx, "check the password", err)
		}
		return user, m.denied(ctx, event.ReasonUnknownUser, nil)
	case err != nil:
		return user, m.failed(ctx, "look up the account", err)
	}
	return user, m.verdict(ctx, &user, password)
}

// verdict is check with its refusals and failures reported.
func (m *Manager[U, ID]) verdict(ctx context.Context, user *U, password string) error {
	reason, err := m.check(ctx, user, password)
	switch {
	case err != nil:
		return m.failed(ctx, "check the password", err)
	case reason != "":
		return m.denied(ctx, reason, (*user).UserID())
	}
	return nil
}

// limited looks at a password, if the limiter lets it, and tells the limiter how
// that went. id is the account's where it is known.
func (m *Manager[U, ID]) limited(ctx context.Context, id any, begin func() (*attempt, error), look func() error) error {
	if m.limiter == nil {
		return look()
	}
	attempt, err := begin()
	switch {
	case errors.Is(err, ErrTooManyAttempts):
		m.emit(ctx, event.Event{Kind: event.LoginDenied, Reason: event.ReasonTooMany, UserID: id})
		return fmt.Errorf("account: %w", err)
	case err != nil:
		return err
	}
	err = errors.New("account: the store panicked")
	defer func() { attempt.end(ctx, err) }()
	err = look()
	return err
}

// Reauthenticate checks the password of a user who is logged in already, before
// something that asks for it again. It returns the account as it is now, or the
// errors of [Manager.Authenticate]. Its attempts are limited apart from logins:
// what others try does not count.
func (m *Manager[U, ID]) Reauthenticate(ctx context.Context, user U, password string) (U, error) {
	confirmed, err := m.confirm(ctx, user.UserID(), password)
	if err == nil {
		m.emit(ctx, event.Event{Kind: event.Reauthenticated, UserID: confirmed.UserID()})
	}
	return confirmed, err
}

// confirm returns the active account with this ID and password.
func (m *Manager[U, ID]) confirm(ctx context.Context, id ID, password string) (U, error) {
	var nobody U
	if !plausible(password) {
		return nobody, m.denied(ctx, event.ReasonWrongPassword, id)
	}
	user, err := m.store.ByID(ctx, id)
	switch {
	case errors.Is(err, ErrUserNotFound):
		return nobody, m.denied(ctx, event.ReasonUnknownUser, nil)
	case err != nil:
		return nobody, m.failed(ctx, "look up the account", err)
	}
	begin := func() (*attempt, error) { return m.limiter.beginWithin(ctx, m.of(&user).Email) }
	if err := m.limited(ctx, id, begin, func() error { return m.verdict(ctx, &user, password) }); err != nil {
		return nobody, err
	}
	return user, nil
}

// ChangePassword replaces the password of an account whose user knows the
// current one, and returns the account as it is then. In the same update it makes
// all tokens invalid that were issued before: see [User].NotBefore. To keep the
// session in which the change was made, give it a new token (ginauth's Renew);
// to clean up, delete the other rows (strategy.Database.DestroyAll).
//
// It returns an error wrapping [ErrBadCredentials] where the current password is
// wrong or there is no such active account, [ErrTooManyAttempts] as
// [Manager.Reauthenticate] does, [ErrInvalidPassword] where the new one is refused, [ErrConflict] where the password was changed by somebody else
// at the same time.
func (m *Manager[U, ID]) ChangePassword(ctx context.Context, id ID, current, new string) (U, error) {
	var nobody U
	user, err := m.confirm(ctx, id, current)
	if err != nil {
		return nobody, err
	}
	if err := m.checkNewPassword(ctx, new); err != nil {
		return nobody, err
	}
	hash, err := m.hash(ctx, new)
	if err != nil {
		return nobody, m.failed(ctx, "hash the password", err)
	}
	a := m.of(&user)
	err = m.store.ReplacePassword(ctx, id, a.HashedPassword, hash, true)
	if !errors.Is(err, ErrConflict) {
		defer m.tokensRevoked(ctx, id)
	}
	if err != nil {
		return nobody, m.unless(ctx, "store the password", err, ErrConflict)
	}
	// If another change came in between, the store's version is greater by now, and
	// Renew does not keep the session: the other change ended it.
	a.HashedPassword = hash
	a.Version++
	m.emit(ctx, event.Event{Kind: event.PasswordChanged, UserID: id})
	return user, nil
}

// Deactivate makes an account inactive, and all its tokens invalid in the same
// update: they stay so if it is activated again. It returns an error wrapping
// [ErrUserNotFound].
func (m *Manager[U, ID]) Deactivate(ctx context.Context, id ID) error {
	active := false
	return m.apply(ctx, id, Change{Active: &active, RevokeTokens: true}, event.ReasonUserInactive)
}

// Activate makes an account active again. It returns an error wrapping
// [ErrUserNotFound].
func (m *Manager[U, ID]) Activate(ctx context.Context, id ID) error {
	active := true
	return m.apply(ctx, id, Change{Active: &active}, "")
}

// RevokeTokens logs an account out everywhere, in one write: all its tokens are
// invalid from then on. It returns an error wrapping [ErrUserNotFound].
func (m *Manager[U, ID]) RevokeTokens(ctx context.Context, id ID) error {
	return m.apply(ctx, id, Change{RevokeTokens: true}, "")
}

func (m *Manager[U, ID]) apply(ctx context.Context, id ID, change Change, reason event.Reason) error {
	err := m.store.Apply(ctx, id, change)
	if change.RevokeTokens && !errors.Is(err, ErrUserNotFound) {
		defer m.tokensRevoked(ctx, id)
	}
	if err != nil {
		return m.unless(ctx, "change the account", err, ErrUserNotFound)
	}
	m.emit(ctx, event.Event{Kind: event.AccountChanged, UserID: id, Reason: reason})
	return nil
}

// unless returns an error of the store, and reports it as a failure unless it is
// one of its answers.
func (m *Manager[U, ID]) unless(ctx context.Context, doing string, err error, answers ...error) error {
	for _, answer := range answers {
		if errors.Is(err, answer) {
			return fmt.Errorf("account: %w", err)
		}
	}
	return m.failed(ctx, doing, err)
}

// check compares a password with an account's hash and returns why the user may
// not in, or "". It does the work of one hash in any case. Where the hash is
// outdated it is replaced, in the store and in user.
func (m *Manager[U, ID]) check(ctx context.Context, user *U, password string) (event.Reason, error) {
	var (
		a            = m.of(user)
		ok, outdated bool
		unusable     error
	)
	if err := m.slots.run(ctx, func() { ok, outdated, unusable = m.hasher.verify(password, a.HashedPassword) }); err != nil {
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

func (m *Manager[U, ID]) rehash(ctx context.Context, a *User[ID], password string) {
	hash, err := m.hash(ctx, password)
	if err == nil {
		err = m.store.ReplacePassword(ctx, a.ID, a.HashedPassword, hash, false)
	}
	switch {
	case err == nil:
		a.HashedPassword = hash
	case errors.Is(err, ErrConflict):
		return // the password was changed just now: nothing is outdated any more
	default:
		err = fmt.Errorf("account: rehash the password: %w", err)
	}
	m.emit(ctx, event.Event{Kind: event.PasswordRehashed, UserID: a.ID, Err: err})
}

// pretend does the work of a check where there is nothing to check.
func (m *Manager[U, ID]) pretend(ctx context.Context, password string) (err error) {
	if busy := m.slots.run(ctx, func() { err = m.hasher.pretend(password) }); busy != nil {
		return busy
	}
	return err
}

// hash hashes a password when it is its turn.
func (m *Manager[U, ID]) hash(ctx context.Context, password string) (PasswordHash, error) {
	var (
		hash   PasswordHash
		failed error
	)
	if err := m.slots.run(ctx, func() { hash, failed = m.hasher.hash(password) }); err != nil {
		return "", err
	}
	return hash, failed
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

func (m *Manager[U, ID]) now() time.Time { return m.cfg.Now().UTC().Truncate(time.Millisecond) }

func (m *Manager[U, ID]) denied(ctx context.Context, reason event.Reason, id any) error {
	m.emit(ctx, event.Event{Kind: event.LoginDenied, Reason: reason, UserID: id})
	return fmt.Errorf("account: %w", ErrBadCredentials)
}

func (m *Manager[U, ID]) failed(ctx context.Context, doing string, err error) error {
	err = fmt.Errorf("account: %s: %w", doing, err)
	kind := event.StoreFailed
	if errors.Is(err, ErrBusy) {
		kind = event.Overloaded
	}
	m.emit(ctx, event.Event{Kind: kind, Err: err})
	return err
}

func (m *Manager[U, ID]) emit(ctx context.Context, e event.Event) {
	if m.cfg.OnEvent == nil {
		return
	}
	e.Time, e.ClientIP = m.now(), event.ClientIP(ctx)
	m.cfg.OnEvent(ctx, e)
}
