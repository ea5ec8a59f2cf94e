package latchkeytest

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/alexedwards/argon2id"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/internal/assembly"
	"github.com/latchkey-go/latchkey/internal/testhook"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// Password is the password of all users of [Kit.NewUser].
const Password = "correct horse battery staple"

// Kit is Latchkey in memory for a test. Make one with [New]. It is safe for concurrent use.
type Kit[U strategy.User[ID], ID comparable] struct {
	// Latchkey is what the application gets in place of the one of latchkey.New. Its fields
	// Users, Tokens, Attempts, OneTimeTokens, Legacy and AuditTrail are nil: the stores are in
	// memory. A handler that lists the AuditTrail therefore needs a fake, see docs/testing.md.
	// EnsureIndexes, VerifyIndexes and Ping return nil.
	*latchkey.Latchkey[U, ID]

	// Mail has the messages that users got.
	Mail *Mail
	// Events has what happened.
	Events *Events

	cookie http.Cookie   // of logins, without a value
	brief  time.Duration // Config.BriefLifetime

	mu    sync.Mutex
	flags map[uuid.UUID]options // of sessions, by their ID
	now   time.Time
	users int // that got an address from NewUser
}

// New returns a Kit for a test, which ends with the test. Its parameters are those of latchkey.New,
// with the test in place of the database: New[Member](t, uuid.New, cfg).
//
// cfg is the configuration of the application. New replaces these settings:
//
//   - Now is the kit's clock, see [Kit.Advance];
//   - Mail.Mailer is [Mail], which passes the messages on to the application's Mailer, if cfg has
//     one;
//   - OnEvent is [Events], which passes the events on to the application's OnEvent;
//   - Argon2 makes passwords cheap to hash;
//   - WatchInterval is 10 ms, so that open answers end soon after Kit.Advance.
//
// What cfg says about MongoDB has no effect. The limits on failed logins, registrations and messages
// hold as in production. If cfg is invalid, the test ends.
//
// New panics in a program that "go test" has not built.
func New[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]](t testing.TB, newID func() ID, cfg latchkey.Config) *Kit[U, ID] {
	check(t)
	t.Helper()
	k := &Kit[U, ID]{
		cookie: http.Cookie{
			Name: cmp.Or(cfg.Cookie.Name, "__Host-latchkey"), Path: cmp.Or(cfg.Cookie.Path, "/"), Domain: cfg.Cookie.Domain,
			Secure: !cfg.Cookie.InsecureHTTP, HttpOnly: true,
		},
		brief: cfg.BriefLifetime,
		flags: make(map[uuid.UUID]options),
		now:   time.Now().UTC().Truncate(time.Millisecond),
	}
	var wait func()
	k.Mail = &Mail{next: cfg.Mail.Mailer, wait: func() { wait() }}
	k.Events = &Events{next: cfg.OnEvent, wait: func() { wait() }}
	cfg.Now, cfg.Mail.Mailer, cfg.OnEvent = k.Now, account.MailerFunc(k.Mail.send), k.Events.record
	cfg.WatchInterval = 10 * time.Millisecond // timers do not see Advance
	cfg.Argon2, cfg.InsecureArgon2 = account.Argon2{MemoryKiB: argon2.Memory, Iterations: argon2.Iterations, Parallelism: argon2.Parallelism}, true

	attempts, err := memstore.NewAttempts(0)
	if err != nil {
		t.Fatalf("latchkeytest: %v", err)
	}
	stores := assembly.Stores[U, ID]{
		Users: memstore.NewUsers[U, ID, P](), Tokens: memstore.NewTokens[ID](), Attempts: attempts, OneTime: memstore.NewOneTimeTokens[ID](),
	}
	if len(cfg.APITokens.Scopes) > 0 {
		stores.APITokens = memstore.NewTokens[ID]()
	}
	parts, err := assembly.Connect[U, ID, P](stores, newID, assembly.Of(cfg), k.flagged)
	if err != nil {
		t.Fatalf("latchkeytest: %v", err)
	}
	wait = func() { testhook.WaitForMail(parts.Accounts) }
	k.Latchkey = &latchkey.Latchkey[U, ID]{
		Auth: parts.Auth, Web: parts.Web, Accounts: parts.Accounts, Sessions: parts.Sessions, APITokens: parts.APITokens,
	}
	t.Cleanup(func() {
		parts.Close()
		if t.Failed() {
			t.Logf("latchkeytest: the events were:%s", list(k.Events.All()))
		}
	})
	return k
}

// argon2 are the parameters of hashes.
var argon2 = argon2id.Params{Memory: 64, Iterations: 1, Parallelism: 1, SaltLength: 16, KeyLength: 32}

// passwordHash returns a hash of Password, which need not meet the application's rules.
var passwordHash = sync.OnceValues(func() (string, error) { return argon2id.CreateHash(Password, &argon2) })

// NewUser stores an account and returns it. It is active, and has the password [Password]. The other
// fields, also the flags Verified and Superuser, are those of user. An account without an address
// gets one at example.com. An account without an ID gets one from New's newID.
func (k *Kit[U, ID]) NewUser(t testing.TB, user U) U {
	check(t)
	t.Helper()
	a := k.Accounts.Account(&user)
	a.Active = true
	if a.Email == "" {
		k.mu.Lock()
		k.users++
		a.Email = fmt.Sprintf("user%d@example.com", k.users)
		k.mu.Unlock()
	}
	hash, err := passwordHash()
	stored := user
	if err == nil {
		stored, err = k.Accounts.CreateWithHash(quiet(), user, account.NewPasswordHash(hash))
	}
	if err != nil {
		t.Fatalf("latchkeytest: NewUser: %s: %v", a.Email, err)
	}
	return stored
}

// Now returns the time of the kit's clock, in UTC. It is the time at which the kit was made, in whole
// milliseconds, and what [Kit.Advance] has added. An application with a clock of its own can use it
// too.
func (k *Kit[U, ID]) Now() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now
}

// Advance moves the kit's clock forward by d: sessions expire, logins are no longer fresh, waits are
// over. A negative d moves it back.
func (k *Kit[U, ID]) Advance(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now = k.now.Add(d)
}

// quietKey is the context key of what the kit does itself. Events does not have it.
type quietKey struct{}

func quiet() context.Context { return context.WithValue(context.Background(), quietKey{}, true) }
