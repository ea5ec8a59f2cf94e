package account

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"time"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/reported"
	"github.com/latchkey-go/latchkey/strategy"
)

// Config configures a [Manager]. The zero value is safe.
type Config struct {
	// Argon2 are the parameters of new password hashes. Default: see its fields. A hash
	// with other parameters is replaced at the account's next login.
	Argon2 Argon2

	// InsecureArgon2 allows parameters below OWASP's minimum. Default false. It is meant
	// for tests, which would otherwise spend their time hashing.
	InsecureArgon2 bool

	// MaxConcurrentHashes is the number of passwords that are hashed concurrently. Each
	// hash takes Argon2.MemoryKiB of memory and Argon2.Parallelism threads. Up to 32
	// times as many calls wait in a queue. Default: runtime.GOMAXPROCS divided by
	// Argon2.Parallelism, at least 1. More than that hashes no faster, and slows down all
	// other requests.
	//
	// A stored hash of argon2 or scrypt that asks for more than MaxConcurrentHashes times
	// Argon2.MemoryKiB (or 64 MiB, if that is more) is not checked: the login is denied,
	// and the event's reason is event.ReasonUnusableHash.
	MaxConcurrentHashes int

	// MaxHashWait is the longest time that a call waits in the queue. A call that would
	// wait longer, or that finds the queue full, fails with [ErrBusy]. Default 3 seconds.
	MaxHashWait time.Duration

	// Timeout bounds each method of the Manager whose context has no deadline, as a whole.
	// Waiting for earlier attempts and for a turn to hash counts. What must be done although
	// a method has failed may go on behind its return. Default 3 seconds.
	Timeout time.Duration

	// Limiter limits failed logins. The zero value has safe defaults; see its fields.
	Limiter LimiterConfig

	// InsecureNoLimiter disables the limiter. NewManager accepts nil attempts then.
	// Default false. It is meant for applications that limit logins by other means, and
	// cannot be combined with Limiter.
	InsecureNoLimiter bool

	// MinPasswordLength is the minimum number of characters in a new password, at most
	// 64. Default 8 (ASVS 6.2.1). NIST SP 800-63B-4 §3.1.1.2 asks for 15 if the password
	// is the only factor.
	MinPasswordLength int

	// CheckPassword can reject a new password, for example one on a list of breached
	// passwords. It gets the password in Unicode normalization form C. Its error is
	// returned to the caller, wrapped together with [ErrInvalidPassword]; ginauth's Refuse
	// shows its text to the client. nil means no further check.
	CheckPassword func(ctx context.Context, password string) error

	// KeepHashes leaves the hash of a password as it is when its user logs in, although its scheme
	// or its parameters are outdated: while another program that does not know argon2id verifies
	// the passwords too. Passwords that are set get an argon2id hash in any case. Default false:
	// a login replaces an outdated hash.
	KeepHashes bool

	// VerifyHash reports whether a password matches a stored hash of a scheme that is not built
	// in; [Manager.ImportHash] lists those that are. It never gets a hash that begins like a
	// built-in one. If it returns true, the hash is replaced by argon2id of that password, so
	// it must compare the whole password. A password that is not in Unicode normalization form
	// C is tried in that form first, and then as typed.
	//
	// An error wrapping [ErrUnusableHash] means that VerifyHash does not know the hash, or that
	// a check would cost too much: the login is denied, with event.ReasonUnusableHash. It must
	// not show the hash. With any other error the login fails as it does when the store fails.
	//
	// A login calls VerifyHash as one of the MaxConcurrentHashes; it must be safe for
	// concurrent use, and return when ctx ends. ImportHash calls it beside them, with the
	// password "", to learn whether it knows the hash: return false and nil then, before
	// anything is computed. A panic in it reaches the caller of the Manager.
	//
	// nil means that all such hashes are unusable.
	VerifyHash func(ctx context.Context, hash, password string) (bool, error)

	// RegistrationsPerNetwork is how many accounts the clients of a network (IPv4 /24, IPv6
	// /64; ten times as many by an IPv6 /48) may try to register in an hour. The counters are
	// in the store of login attempts. Default 100. There is no limit with InsecureNoLimiter.
	RegistrationsPerNetwork int

	// Mail configures the messages with one-time tokens. The zero value sends none.
	Mail MailConfig

	// Now is the clock. Default [time.Now].
	Now func() time.Time

	// OnEvent is called synchronously with every event; it must be safe for concurrent
	// use. nil means that events are dropped.
	OnEvent func(context.Context, event.Event)
}

// Manager registers accounts, authenticates their users, changes their passwords and
// status, and deletes them. Make one with [NewManager]. It is safe for concurrent use.
type Manager[U strategy.User[ID], ID comparable] struct {
	store     Store[U, ID]
	oneTime   OneTimeTokenStore[ID] // can be nil without a Mailer
	attempts  AttemptStore          // can be nil, see NewManager
	mail      *mailQueue            // nil without a Mailer
	newID     func() ID
	of        func(*U) *User[ID]
	hasher    *hasher
	semaphore *semaphore // for hashing
	limiter   *limiter   // nil with InsecureNoLimiter
	cfg       Config
	sessions  []Sessions[ID]
	onDelete  []func(context.Context, ID) error
	onClaim   []func(context.Context, ID) error
}

// NewManager returns a Manager of the accounts in store.
//
// oneTime keeps the one-time tokens of [Manager.RequestVerification] and its kin. It can be
// nil without a Config.Mail.Mailer. With one, call Close when the application ends.
//
// attempts keeps the counters of failed logins: mongostore.NewAttempts, which all
// instances of an application share, or memstore.NewAttempts for a single process. It
// can be nil only with Config.InsecureNoLimiter.
//
// newID makes the IDs of new accounts: uuid.New, bson.NewObjectID or the application's
// own function. If it is nil, users must have an ID before they are registered.
//
// sessions are told of every change that can end the sessions of an account: pass the
// strategy.Database. Without it, changes still take effect at the next request if the
// Database has no cache, and within its MaxStaleness if it has one.
//
// All type parameters are inferred. NewManager returns an error that names the field if
// the configuration is invalid.
func NewManager[U strategy.User[ID], ID comparable, P Embeds[U, ID]](store Store[U, ID], oneTime OneTimeTokenStore[ID], attempts AttemptStore, newID func() ID, cfg Config, sessions ...Sessions[ID]) (*Manager[U, ID], error) {
	if store == nil {
		return nil, errors.New("account: store is nil")
	}
	if slices.Contains(sessions, nil) {
		return nil, errors.New("account: sessions has a nil")
	}
	if err := checkOwnID[U, ID](); err != nil {
		return nil, err
	}
	if cfg.MinPasswordLength < 0 || cfg.MinPasswordLength > 64 {
		return nil, fmt.Errorf("account: Config.MinPasswordLength is %d, want 0 (for 8) to 64", cfg.MinPasswordLength)
	}
	if cfg.MinPasswordLength == 0 {
		cfg.MinPasswordLength = 8
	}
	if cfg.RegistrationsPerNetwork < 0 {
		return nil, fmt.Errorf("account: Config.RegistrationsPerNetwork is negative: %d", cfg.RegistrationsPerNetwork)
	}
	if cfg.RegistrationsPerNetwork == 0 {
		cfg.RegistrationsPerNetwork = 100
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
	if cfg.Timeout < 0 {
		return nil, fmt.Errorf("account: Config.Timeout is negative: %v", cfg.Timeout)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 3 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Mail.Mailer != nil && oneTime == nil {
		return nil, errors.New("account: Config.Mail.Mailer is set, but oneTime is nil: pass mongostore.NewOneTimeTokens")
	}
	if err := cfg.Mail.fillDefaults(); err != nil {
		return nil, err
	}
	hasher, err := newHasher(cfg.Argon2, cfg.InsecureArgon2)
	if err != nil {
		return nil, err
	}
	if cfg.MaxConcurrentHashes == 0 {
		cfg.MaxConcurrentHashes = max(1, runtime.GOMAXPROCS(0)/int(hasher.params.Parallelism))
	}
	hasher.allow(cfg.MaxConcurrentHashes)
	hasher.other = cfg.VerifyHash
	limiter, err := cfg.limiter(attempts)
	if err != nil {
		return nil, err
	}
	const queuePerHash = 32
	m := &Manager[U, ID]{
		store:     store,
		oneTime:   oneTime,
		attempts:  attempts,
		newID:     newID,
		of:        func(u *U) *User[ID] { return P(u).Account() },
		hasher:    hasher,
		semaphore: newSemaphore(cfg.MaxConcurrentHashes, queuePerHash*cfg.MaxConcurrentHashes, cfg.MaxHashWait),
		limiter:   limiter,
		cfg:       cfg,
		sessions:  slices.Clone(sessions),
	}
	if cfg.Mail.Mailer != nil {
		m.mail = newMailQueue(cfg.Mail.Workers, cfg.Mail.Queue, cfg.Mail.Timeout)
	}
	return m, nil
}

// checkOwnID returns an error if U embeds User and has an ID field of its own. That field
// would hide the account's: setting it would have no effect.
func checkOwnID[U any, ID comparable]() error {
	t := reflect.TypeFor[U]()
	if t.Kind() != reflect.Struct {
		return nil
	}
	for _, f := range reflect.VisibleFields(t) {
		if !f.Anonymous || f.Type != reflect.TypeFor[User[ID]]() {
			continue
		}
		id, _ := f.Type.FieldByName("ID")
		if visible, ok := t.FieldByName("ID"); !ok || !slices.Equal(visible.Index, append(slices.Clone(f.Index), id.Index...)) {
			return fmt.Errorf("account: %v has an ID field of its own, which hides the ID of the embedded account.User: remove or rename it", t)
		}
	}
	return nil
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

// OnDelete adds a function that [Manager.Delete] calls when an account is gone, to delete what
// else belongs to it: rows of the application, or an [OAuthAccountStore]'s DeleteByUser. Delete
// returns its error, and calls it again when it is repeated; the function must be idempotent,
// safe for concurrent use and bounded in time. Call OnDelete before the Manager is used.
func (m *Manager[U, ID]) OnDelete(f func(ctx context.Context, id ID) error) {
	m.onDelete = append(m.onDelete, f)
}

// OnClaim adds a function that [Manager.ResetPassword] calls for an account that is not verified,
// just before and just after it ends the sessions, to remove the other ways in: the user who
// made the account may not own its address, whose owner takes it over by the reset. An error of the
// function is a failure of the reset. The function must be idempotent, safe for concurrent use and
// bounded in time. Call OnClaim before the Manager is used.
func (m *Manager[U, ID]) OnClaim(f func(ctx context.Context, id ID) error) {
	m.onClaim = append(m.onClaim, f)
}

// NewID returns an ID for a new account, from the function that NewManager got; the zero ID
// without one. It is for programs that must know the ID before they call [Manager.Create].
func (m *Manager[U, ID]) NewID() (id ID) {
	if m.newID != nil {
		id = m.newID()
	}
	return id
}

// Account returns the account inside an application's user.
func (m *Manager[U, ID]) Account(user *U) *User[ID] { return m.of(user) }

func (m *Manager[U, ID]) now() time.Time { return m.cfg.Now().UTC().Truncate(time.Millisecond) }

// denied reports a denied login and returns ErrBadCredentials. id is nil if the account
// is unknown. cause is part of the event, and can be nil.
func (m *Manager[U, ID]) denied(ctx context.Context, reason event.Reason, id any, cause error) error {
	m.emit(ctx, event.Event{Kind: event.LoginDenied, Reason: reason, UserID: id, Err: cause})
	return fmt.Errorf("account: %w", ErrBadCredentials)
}

// failed reports a failure and returns it wrapped.
func (m *Manager[U, ID]) failed(ctx context.Context, doing string, err error) error {
	err = fmt.Errorf("account: %s: %w", doing, err)
	switch {
	case errors.Is(err, ErrBusy):
		m.emit(ctx, event.Event{Kind: event.Overloaded, Err: err})
	case !abandoned(ctx):
		m.emit(ctx, event.Event{Kind: event.StoreFailed, Err: err})
	}
	return reported.Mark(err)
}

// abandoned reports whether the caller of an operation has gone. An error is then no
// failure of the store. A deadline that has passed can be one, and so can the end of the queue
// behind the answers, for which nobody waits: only an event tells what was not done.
func abandoned(ctx context.Context) bool {
	return errors.Is(ctx.Err(), context.Canceled) && !errors.Is(context.Cause(ctx), errMailClosed)
}

func (m *Manager[U, ID]) emit(ctx context.Context, e event.Event) {
	if m.cfg.OnEvent == nil {
		return
	}
	e.Time, e.ClientIP = m.now(), event.ClientIP(ctx)
	m.cfg.OnEvent(ctx, e)
}
