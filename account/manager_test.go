package account_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"github.com/latchkey-go/latchkey/strategy"
	"log/slog"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/bcrypt"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/sameuser"
	"github.com/latchkey-go/latchkey/memstore"
)

// cheap makes hashing take almost no time.
var cheap = account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}

const cheapHash = "$argon2id$v=19$m=64,t=1,p=1$"

func newMember(email string) member {
	return member{User: account.User[uuid.UUID]{Email: email}, Name: "Ann"}
}

// fakeStore is a correct store whose methods can be replaced one by one.
type fakeStore struct {
	*memstore.Users[member, uuid.UUID]
	insert  func(context.Context, member) error
	byID    func(context.Context, uuid.UUID) (member, error)
	byEmail func(context.Context, string) (member, error)
	apply   func(context.Context, uuid.UUID, account.Change) error
	delete  func(context.Context, uuid.UUID) error
	edit    func(context.Context, uuid.UUID, func(*member) error) (member, error)
	list    func(ctx context.Context, prefix, after string, limit int) ([]member, error)
}

func newFakeStore() *fakeStore {
	good := memstore.NewUsers[member]()
	return &fakeStore{good, good.Insert, good.ByID, good.ByEmail, good.Apply, good.Delete, good.Edit, good.List}
}

func (s *fakeStore) Insert(ctx context.Context, m member) error { return s.insert(ctx, m) }
func (s *fakeStore) ByID(ctx context.Context, id uuid.UUID) (member, error) {
	return s.byID(ctx, id)
}
func (s *fakeStore) ByEmail(ctx context.Context, email string) (member, error) {
	return s.byEmail(ctx, email)
}
func (s *fakeStore) Apply(ctx context.Context, id uuid.UUID, change account.Change) error {
	return s.apply(ctx, id, change)
}
func (s *fakeStore) Delete(ctx context.Context, id uuid.UUID) error { return s.delete(ctx, id) }
func (s *fakeStore) Edit(ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error) {
	return s.edit(ctx, id, edit)
}
func (s *fakeStore) List(ctx context.Context, prefix, after string, limit int) ([]member, error) {
	return s.list(ctx, prefix, after, limit)
}

// failAll makes every method fail.
func (s *fakeStore) failAll(err error) {
	s.insert = func(context.Context, member) error { return err }
	s.byID = func(context.Context, uuid.UUID) (member, error) { return member{}, err }
	s.byEmail = func(context.Context, string) (member, error) { return member{}, err }
	s.apply = failingApply(err)
	s.delete = func(context.Context, uuid.UUID) error { return err }
	s.edit = func(context.Context, uuid.UUID, func(*member) error) (member, error) { return member{}, err }
	s.list = func(context.Context, string, string, int) ([]member, error) { return nil, err }
}

func failingApply(err error) func(context.Context, uuid.UUID, account.Change) error {
	return func(context.Context, uuid.UUID, account.Change) error { return err }
}

// rig is a Manager over a fake store.
type rig struct {
	*account.Manager[member, uuid.UUID]
	store *fakeStore

	mu     sync.Mutex
	events []event.Event
}

var now = time.Date(2026, 3, 29, 1, 59, 59, 987654321, time.FixedZone("elsewhere", 3600))

// newRig returns a rig without a limiter; limiter_test.go has rigs with one.
func newRig(t testing.TB, cfg account.Config, sessions ...account.Sessions[uuid.UUID]) *rig {
	t.Helper()
	cfg.InsecureNoLimiter = true
	cfg.Now = func() time.Time { return now }
	return newRigWith(t, nil, cfg, sessions...)
}

// newRigWith returns a rig with a limiter over a store, which can be nil without a limiter.
func newRigWith(t testing.TB, attempts account.AttemptStore, cfg account.Config, sessions ...account.Sessions[uuid.UUID]) *rig {
	t.Helper()
	r := &rig{store: newFakeStore()}
	if cfg.Argon2 == (account.Argon2{}) {
		cfg.Argon2 = cheap
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Hour // under the race detector, hashes of full strength take seconds
	}
	cfg.InsecureArgon2 = true
	cfg.OnEvent = func(_ context.Context, e event.Event) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, e)
	}
	var err error
	if r.Manager, err = account.NewManager(r.store, nil, attempts, uuid.New, cfg, sessions...); err != nil {
		t.Fatalf("NewManager: %v", err)
	}
	return r
}

// takeEvents returns the events since the last call.
func (r *rig) takeEvents() []event.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	events := r.events
	r.events = nil
	return events
}

// register registers ann@example.com with password.
func (r *rig) register(t testing.TB) member {
	t.Helper()
	ann, err := r.Register(t.Context(), newMember("ann@example.com"), password)
	if err != nil {
		t.Fatalf("Register: %v", err)
	}
	r.takeEvents()
	return ann
}

// withHash registers ann@example.com and replaces the stored hash.
func (r *rig) withHash(t testing.TB, hash string) member {
	t.Helper()
	ann := r.register(t)
	ann.HashedPassword = account.NewPasswordHash(hash)
	r.change(t, ann.ID, func(m *member) { m.HashedPassword = ann.HashedPassword })
	return ann
}

func (r *rig) change(t testing.TB, id uuid.UUID, change func(*member)) {
	t.Helper()
	if err := r.store.Update(t.Context(), id, change); err != nil {
		t.Fatalf("Update: %v", err)
	}
}

// stored returns the account as stored.
func (r *rig) stored(t testing.TB, id uuid.UUID) member {
	t.Helper()
	m, err := r.store.Users.ByID(t.Context(), id)
	if err != nil {
		t.Fatalf("ByID: %v", err)
	}
	return m
}

// hash returns the password hash as stored.
func (r *rig) hash(t testing.TB, id uuid.UUID) string {
	t.Helper()
	return r.stored(t, id).HashedPassword.Reveal()
}

// authenticate calls Authenticate and checks its error.
func (r *rig) authenticate(t *testing.T, when, email, password string, want error) member {
	t.Helper()
	got, _, err := r.Authenticate(t.Context(), email, password, "")
	if !errors.Is(err, want) {
		t.Errorf("Authenticate %s: got %v, want %v", when, err, want)
	}
	if err != nil && !reflect.DeepEqual(got, member{}) {
		t.Errorf("Authenticate %s: got the user %+v with the error %v, want none", when, got, err)
	}
	return got
}

func TestRegisteredAccountCanLogIn(t *testing.T) {
	r := newRig(t, account.Config{})
	stranger := newMember(" Ann@Example.COM ")
	stranger.Superuser, stranger.Verified, stranger.HashedPassword = true, true, account.NewPasswordHash("forged")
	stranger.CreatedAt = time.UnixMilli(1)

	got, err := r.Register(t.Context(), stranger, password)
	if err != nil {
		t.Fatalf("Register: %v", err)
	}
	want := member{
		User: account.User[uuid.UUID]{
			ID: got.ID, Email: "ann@example.com", HashedPassword: got.HashedPassword,
			Active: true, CreatedAt: time.Date(2026, 3, 29, 0, 59, 59, 987e6, time.UTC),
		},
		Name: "Ann",
	}
	if !sameuser.Equal(got, want) {
		t.Errorf("Register: got %+v\nwant %+v", got, want)
	}
	if got.ID == uuid.Nil {
		t.Error("Register: got no ID, want one made by newID")
	}
	if !strings.HasPrefix(got.HashedPassword.Reveal(), cheapHash) {
		t.Errorf("the hash begins with %.30q, want the configured parameters, %q", got.HashedPassword.Reveal(), cheapHash)
	}
	if stored, err := r.store.Users.ByID(t.Context(), got.ID); !sameuser.Equal(stored, got) || err != nil {
		t.Errorf("the store holds %+v, %v, want %+v", stored, err, got)
	}
	for _, email := range []string{"ann@example.com", "ann@example.com\t", "\r\n ANN@EXAMPLE.COM", "Ann@Example.COM"} {
		if user := r.authenticate(t, "as "+email, email, password, nil); !sameuser.Equal(user, got) {
			t.Errorf("Authenticate as %q: got %+v, want %+v", email, user, got)
		}
	}
}

func TestCreateKeepsTheFlagsAndTheID(t *testing.T) {
	for _, c := range []struct{ active, verified, superuser bool }{
		{true, true, true}, {true, false, true}, {false, true, false}, {false, false, false},
	} {
		r := newRig(t, account.Config{})
		admin := newMember("admin@example.com")
		admin.ID = uuid.New()
		admin.Active, admin.Verified, admin.Superuser = c.active, c.verified, c.superuser
		got, err := r.Create(t.Context(), admin, password)
		if err != nil {
			t.Fatalf("Create: %v", err)
		}
		if got.ID != admin.ID || got.Active != c.active || got.Verified != c.verified || got.Superuser != c.superuser {
			t.Errorf("Create: got %+v, want the ID %v and the flags %+v", got, admin.ID, c)
		}
		want := account.ErrBadCredentials
		if c.active {
			want = nil
		}
		r.authenticate(t, fmt.Sprintf("with the flags %+v", c), "admin@example.com", password, want)
	}
}

func TestTakenAddressIsRejected(t *testing.T) {
	r := newRig(t, account.Config{})
	ann := r.register(t)
	for _, email := range []string{"ann@example.com", " ANN@Example.com\n"} {
		got, err := r.Register(t.Context(), newMember(email), "another password")
		if !errors.Is(err, account.ErrEmailTaken) || !reflect.DeepEqual(got, member{}) {
			t.Errorf("Register of %q: got %+v, %v, want no user, ErrEmailTaken", email, got, err)
		}
	}
	r.authenticate(t, "with the second password", "ann@example.com", "another password", account.ErrBadCredentials)
	if got := r.authenticate(t, "with the first password", "ann@example.com", password, nil); got.ID != ann.ID {
		t.Errorf("Authenticate: got the account %v, want the first account, %v", got.ID, ann.ID)
	}
}

func TestAccountWithoutAnIDIsRejected(t *testing.T) {
	users := memstore.NewUsers[member]()
	m, err := account.NewManager(users, nil, newAttempts(t), nil, account.Config{Argon2: cheap, InsecureArgon2: true})
	if err != nil {
		t.Fatalf("NewManager without newID: %v", err)
	}
	if got, err := m.Register(t.Context(), newMember("ann@example.com"), password); err == nil {
		t.Errorf("Register without an ID: got %+v, want an error", got)
	}
	ann := newMember("ann@example.com")
	ann.ID = uuid.New()
	if got, err := m.Register(t.Context(), ann, password); got.ID != ann.ID || err != nil {
		t.Errorf("Register with an ID: got %v, %v, want %v", got.ID, err, ann.ID)
	}
	bob := newMember("bob@example.com")
	bob.ID = ann.ID
	if got, err := m.Register(t.Context(), bob, password); !errors.Is(err, account.ErrConflict) {
		t.Errorf("Register with a taken ID: got %+v, %v, want ErrConflict", got, err)
	}
}

func TestNewPasswordRules(t *testing.T) {
	breached := errors.New("on a list of breached passwords")
	for _, c := range []struct {
		name, password string
		min            int
		want           error
	}{
		{"8 characters are enough", "12345678", 0, nil},
		{"7 characters are too few", "1234567", 0, account.ErrInvalidPassword},
		{"an empty password is too short", "", 0, account.ErrInvalidPassword},
		{"characters count, not bytes", "пароль12", 0, nil},
		{"7 characters in 14 bytes are too few", "паролии", 0, account.ErrInvalidPassword},
		{"spaces count, also at both ends", "  1234  ", 0, nil},
		{"a minimum of 15 rejects 14", strings.Repeat("x", 14), 15, account.ErrInvalidPassword},
		{"a minimum of 15 accepts 15", strings.Repeat("x", 15), 15, nil},
		{"a minimum of 1 accepts 1", "x", 1, nil},
		{"a minimum of 1 rejects the empty password", "", 1, account.ErrInvalidPassword},
		{"64 characters of four bytes fit", strings.Repeat("🔑", 64), 0, nil},
		{"1024 bytes fit", strings.Repeat("x", 1024), 0, nil},
		{"1025 bytes do not", strings.Repeat("x", 1025), 0, account.ErrInvalidPassword},
		{"ten megabytes do not", strings.Repeat("x", 10<<20), 0, account.ErrInvalidPassword},
		{"invalid UTF-8 is rejected", "12345678\xff", 0, account.ErrInvalidPassword},
		{"NUL counts as a character", "1234\x005678", 0, nil},
		{"CheckPassword rejects", "correct horse", 0, breached},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, account.Config{MinPasswordLength: c.min, CheckPassword: func(_ context.Context, password string) error {
				if password == "correct horse" {
					return breached
				}
				return nil
			}})
			check := func(op string, err error) {
				t.Helper()
				if !errors.Is(err, c.want) || c.want != nil && !errors.Is(err, account.ErrInvalidPassword) {
					t.Errorf("%s: got %v, want %v", op, err, c.want)
				}
			}
			_, err := r.Register(t.Context(), newMember("ann@example.com"), c.password)
			check("Register", err)
			if err == nil {
				r.authenticate(t, "with the new password", "ann@example.com", c.password, nil)
				// The whole password counts: no truncation, not even at a NUL.
				last := c.password[:len(c.password)-1]
				r.authenticate(t, "without its last byte", "ann@example.com", last, account.ErrBadCredentials)
				r.authenticate(t, "with another last byte", "ann@example.com", last+"!", account.ErrBadCredentials)
			}

			bob, err := r.Create(t.Context(), newMember("bob@example.com"), "long enough for all")
			if err != nil {
				t.Fatalf("Create: %v", err)
			}
			r.change(t, bob.ID, func(m *member) { m.Active = true })
			_, err = r.ChangePassword(t.Context(), bob.ID, "long enough for all", c.password)
			check("ChangePassword", err)
			if c.want != nil {
				_, err = r.SetPassword(t.Context(), bob.ID, c.password)
				check("SetPassword", err)
			}
			hash, err := r.HashPassword(t.Context(), c.password)
			check("HashPassword", err)
			if (hash.IsZero()) != (err != nil) {
				t.Errorf("HashPassword: got a hash: %v, with the error %v", !hash.IsZero(), err)
			}
			if c.want != nil {
				r.authenticate(t, "after the new password was rejected", "bob@example.com", "long enough for all", nil)
			}
		})
	}
}

func TestInvalidAddressIsRejected(t *testing.T) {
	r := newRig(t, account.Config{})
	for _, email := range []string{"", "ann", "Ann <ann@example.com>", "ann@example.com\x00"} {
		if got, err := r.Register(t.Context(), newMember(email), password); !errors.Is(err, account.ErrInvalidEmail) {
			t.Errorf("Register of %q: got %+v, %v, want ErrInvalidEmail", email, got, err)
		}
	}
}

// counted has parameters that make hashes the largest allocations by far.
var counted = account.Argon2{MemoryKiB: 8 << 10, Iterations: 1, Parallelism: 1}

// hashes returns the number of argon2 hashes with the parameters counted that a call
// computes. Each hash allocates its memory once, and the runtime counts allocated bytes
// exactly. So hashes counts the work itself, without a hook that code could bypass.
func hashes(call func()) int {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	call()
	runtime.ReadMemStats(&after)
	return int(math.Round(float64(after.TotalAlloc-before.TotalAlloc) / float64(counted.MemoryKiB<<10)))
}

// Neither the error nor the time of a login may reveal whether an account exists.
func TestAllDenialsLookTheSame(t *testing.T) {
	r := newRig(t, account.Config{Argon2: counted})
	r.register(t)
	for email, change := range map[string]func(*member){
		"inactive@example.com":     func(m *member) { m.Active = false },
		"passwordless@example.com": func(m *member) { m.HashedPassword = account.PasswordHash{} },
		"unusable@example.com":     func(m *member) { m.HashedPassword = account.NewPasswordHash("garbage") },
	} {
		m, err := r.Register(t.Context(), newMember(email), password)
		if err != nil {
			t.Fatalf("Register: %v", err)
		}
		r.change(t, m.ID, change)
	}
	long := strings.Repeat("x", 1025)
	for _, c := range []struct {
		name, email, password string
		hashes                int
		reason                event.Reason
	}{
		{"a wrong password", "ann@example.com", "wrong", 1, event.ReasonWrongPassword},
		{"an unknown address", "bob@example.com", password, 1, event.ReasonUnknownUser},
		{"a malformed address", "not an address", password, 1, event.ReasonUnknownUser},
		{"an empty address", "", password, 1, event.ReasonUnknownUser},
		{"an inactive account, the right password", "inactive@example.com", password, 1, event.ReasonUserInactive},
		{"an inactive account, a wrong password", "inactive@example.com", "wrong", 1, event.ReasonWrongPassword},
		{"an account without a password", "passwordless@example.com", password, 1, event.ReasonNoPassword},
		{"an account with a broken hash", "unusable@example.com", password, 1, event.ReasonUnusableHash},
		// No account has such a password, so rejecting it at once reveals nothing.
		{"an empty password", "ann@example.com", "", 0, event.ReasonWrongPassword},
		{"an empty password, unknown address", "bob@example.com", "", 0, event.ReasonWrongPassword},
		{"an empty password, account without a password", "passwordless@example.com", "", 0, event.ReasonWrongPassword},
		{"a password over 1024 bytes", "ann@example.com", long, 0, event.ReasonWrongPassword},
		{"a password over 1024 bytes, unknown address", "bob@example.com", long, 0, event.ReasonWrongPassword},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.takeEvents()
			var user member
			var err error
			if got := hashes(func() { user, _, err = r.Authenticate(t.Context(), c.email, c.password, "") }); got != c.hashes {
				t.Errorf("it took the work of %d hashes, want %d", got, c.hashes)
			}
			if !errors.Is(err, account.ErrBadCredentials) || err.Error() != "account: bad credentials" {
				t.Errorf("got the error %v, want \"account: bad credentials\" for all", err)
			}
			if !reflect.DeepEqual(user, member{}) {
				t.Errorf("got the user %+v with an error, want none", user)
			}
			if got := r.takeEvents(); len(got) != 1 || got[0].Reason != c.reason {
				t.Errorf("got the events %+v, want one with the reason %s", got, c.reason)
			}
		})
	}
	if got := hashes(func() { r.authenticate(t, "", "ann@example.com", password, nil) }); got != 1 {
		t.Errorf("a login took the work of %d hashes, want 1", got)
	}
}

// A cancelled request must not cost a hash: an attacker can cancel cheaply. Known and
// unknown addresses must not differ in that either.
func TestCancelledCallDoesNotHash(t *testing.T) {
	r := newRig(t, account.Config{Argon2: counted})
	ann := r.register(t)
	// These methods ignore the cancellation; the Manager must not.
	good := r.store.Users
	r.store.byEmail = func(ctx context.Context, email string) (member, error) {
		return good.ByEmail(context.WithoutCancel(ctx), email)
	}
	r.store.byID = func(ctx context.Context, id uuid.UUID) (member, error) {
		return good.ByID(context.WithoutCancel(ctx), id)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range map[string]func() error{
		"Authenticate":                       func() error { _, _, err := r.Authenticate(cancelled, "ann@example.com", password, ""); return err },
		"Authenticate with a wrong password": func() error { _, _, err := r.Authenticate(cancelled, "ann@example.com", "wrong", ""); return err },
		"Authenticate of an unknown address": func() error { _, _, err := r.Authenticate(cancelled, "bob@example.com", password, ""); return err },
		"Register":                           func() error { _, err := r.Register(cancelled, newMember("bob@example.com"), password); return err },
		"ChangePassword":                     func() error { _, err := r.ChangePassword(cancelled, ann.ID, password, "another password"); return err },
		"SetPassword":                        func() error { _, err := r.SetPassword(cancelled, ann.ID, "another password"); return err },
		"HashPassword":                       func() error { _, err := r.HashPassword(cancelled, "another password"); return err },
		"Reauthenticate":                     func() error { _, err := r.Reauthenticate(cancelled, ann, password); return err },
		"Reauthenticate, wrong password":     func() error { _, err := r.Reauthenticate(cancelled, ann, "wrong"); return err },
	} {
		var err error
		if got := hashes(func() { err = call() }); got != 0 {
			t.Errorf("%s: it took the work of %d hashes, want 0", name, got)
		}
		if !errors.Is(err, context.Canceled) || errors.Is(err, account.ErrBadCredentials) {
			t.Errorf("%s: got %v, want context.Canceled", name, err)
		}
	}
}

func TestHugePasswordIsNotHashed(t *testing.T) {
	r := newRig(t, account.Config{Argon2: counted})
	ann := r.register(t)
	huge := strings.Repeat("x", account.MaxPasswordBytes+1)
	for name, call := range map[string]func() error{
		"Authenticate":                   func() error { _, _, err := r.Authenticate(t.Context(), ann.Email, huge, ""); return err },
		"Register":                       func() error { _, err := r.Register(t.Context(), newMember("bob@example.com"), huge); return err },
		"ChangePassword from a huge one": func() error { _, err := r.ChangePassword(t.Context(), ann.ID, huge, "another password"); return err },
		"SetPassword":                    func() error { _, err := r.SetPassword(t.Context(), ann.ID, huge); return err },
		"HashPassword":                   func() error { _, err := r.HashPassword(t.Context(), huge); return err },
		"Reauthenticate":                 func() error { _, err := r.Reauthenticate(t.Context(), ann, huge); return err },
	} {
		var err error
		if got := hashes(func() { err = call() }); got != 0 || err == nil {
			t.Errorf("%s: it took the work of %d hashes and returned %v, want 0 and an error", name, got, err)
		}
	}
}

func TestOutdatedHashIsReplacedAtLogin(t *testing.T) {
	for _, c := range []struct {
		name, password, hash string
		argon2               account.Argon2
		replaced             bool
	}{
		{"argon2id with other parameters", password, fastapiArgon2, cheap, true},
		{"argon2id with the configured parameters", password, fastapiArgon2, account.Argon2{MemoryKiB: 65536, Iterations: 3, Parallelism: 4}, false},
		{"argon2id with a shorter salt", "password", phc(64, 1, 1, salt[:8], keyOf("password", salt[:8], 32)), cheap, true},
		{"argon2id with a shorter key", "password", phc(64, 1, 1, salt, keyOf("password", salt, 16)), cheap, true},
		{"bcrypt $2b$", password, fastapiBcrypt, cheap, true},
		{"bcrypt $2a$", "U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", cheap, true},
		{"bcrypt $2y$", "U*U", "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", cheap, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, account.Config{Argon2: c.argon2})
			ann := r.withHash(t, c.hash)

			r.authenticate(t, "with a wrong password", ann.Email, c.password+"x", account.ErrBadCredentials)
			if got := r.hash(t, ann.ID); got != c.hash {
				t.Errorf("after a wrong password the store holds %q, want %q", got, c.hash)
			}
			r.takeEvents()

			user := r.authenticate(t, "with the right password", ann.Email, c.password, nil)
			got := r.hash(t, ann.ID)
			prefix := fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$", c.argon2.MemoryKiB, c.argon2.Iterations, c.argon2.Parallelism)
			if (got != c.hash) != c.replaced || !strings.HasPrefix(got, prefix) {
				t.Errorf("the store holds %q, want it replaced: %v, with the parameters %q", got, c.replaced, prefix)
			}
			if user.HashedPassword.Reveal() != got {
				t.Errorf("the user has the hash %q, want the stored one, %q", user.HashedPassword.Reveal(), got)
			}
			want := []event.Kind{event.LoginSucceeded}
			if c.replaced {
				want = []event.Kind{event.PasswordRehashed, event.LoginSucceeded}
			}
			if got := kinds(r.takeEvents()); !reflect.DeepEqual(got, want) {
				t.Errorf("events: got %v, want %v", got, want)
			}

			r.authenticate(t, "again", ann.Email, c.password, nil)
			r.authenticate(t, "with a wrong password, again", ann.Email, c.password+"x", account.ErrBadCredentials)
			if again := r.hash(t, ann.ID); again != got {
				t.Errorf("the second login replaced the hash %q by %q, want it kept", got, again)
			}
		})
	}
}

func kinds(events []event.Event) (kinds []event.Kind) {
	for _, e := range events {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

func TestInactiveAccountIsNotRehashed(t *testing.T) {
	r := newRig(t, account.Config{})
	old := phc(64, 1, 1, salt, keyOf(password, salt, 16))
	ann := r.withHash(t, old)
	r.change(t, ann.ID, func(m *member) { m.Active = false })
	r.authenticate(t, "while inactive", ann.Email, password, account.ErrBadCredentials)
	if got := r.hash(t, ann.ID); got != old {
		t.Errorf("the store holds %q, want %q unchanged", got, old)
	}
}

// bcrypt compares only 72 bytes. The rest of a longer password can be mistyped, so it must
// not become part of the new hash.
func TestLongBcryptPasswordIsNotRehashed(t *testing.T) {
	long := strings.Repeat("x", 72)
	hash, err := bcrypt.GenerateFromPassword([]byte(long), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, account.Config{})
	ann := r.withHash(t, string(hash))
	r.authenticate(t, "with more than 72 bytes", ann.Email, long+"typo", nil)
	if got := r.hash(t, ann.ID); got != string(hash) {
		t.Error("the hash was replaced")
	}
	r.authenticate(t, "with 72 bytes", ann.Email, long, nil)
	if got := r.hash(t, ann.ID); got == string(hash) {
		t.Error("the hash was not replaced")
	}
}

// A login that rehashes slowly must not restore the old password.
func TestRehashDoesNotUndoAPasswordChange(t *testing.T) {
	r := newRig(t, account.Config{})
	ann := r.withHash(t, phc(64, 1, 1, salt, keyOf(password, salt, 16)))
	const changed = "the new password"
	r.store.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
		r.store.apply = r.store.Users.Apply
		if _, err := r.ChangePassword(ctx, id, password, changed); err != nil {
			t.Errorf("ChangePassword: %v", err)
		}
		r.takeEvents()
		return r.store.Users.Apply(ctx, id, change)
	}
	r.authenticate(t, "while the password changes", ann.Email, password, nil)
	events := r.takeEvents()
	if len(events) != 1 || events[0].Kind != event.LoginSucceeded {
		t.Errorf("got the events %+v, want only the login: the outdated hash is gone", events)
	}
	r.authenticate(t, "with the old password", ann.Email, password, account.ErrBadCredentials)
	r.authenticate(t, "with the new password", ann.Email, changed, nil)
}

func TestLoginSucceedsIfTheRehashFails(t *testing.T) {
	r := newRig(t, account.Config{})
	old := phc(64, 1, 1, salt, keyOf(password, salt, 16))
	ann := r.withHash(t, old)
	down := errors.New("down")
	r.store.apply = failingApply(down)
	if got := r.authenticate(t, "while the store fails", ann.Email, password, nil); got.HashedPassword.Reveal() != old {
		t.Errorf("the user has the hash %q, want the stored one, %q", got.HashedPassword.Reveal(), old)
	}
	events := r.takeEvents()
	want := []event.Kind{event.PasswordRehashed, event.LoginSucceeded}
	if !reflect.DeepEqual(kinds(events), want) || !errors.Is(events[0].Err, down) || events[1].Err != nil {
		t.Errorf("got the events %+v, want %v, the first with the failure", events, want)
	}
}

func TestHostileHashIsDenied(t *testing.T) {
	r := newRig(t, account.Config{})
	ann := r.register(t)
	for name, hash := range hostileHashes {
		r.change(t, ann.ID, func(m *member) { m.HashedPassword = account.NewPasswordHash(hash) })
		r.takeEvents()
		r.authenticate(t, "with the hash: "+name, ann.Email, password, account.ErrBadCredentials)
		want := event.ReasonUnusableHash
		if hash == "" {
			want = event.ReasonNoPassword
		}
		if got := r.takeEvents(); len(got) != 1 || got[0].Reason != want || got[0].UserID != ann.ID {
			t.Errorf("%s: got the events %+v, want one for Ann with the reason %s", name, got, want)
		}
		if _, err := r.ChangePassword(t.Context(), ann.ID, password, "another password"); !errors.Is(err, account.ErrBadCredentials) {
			t.Errorf("%s: ChangePassword: got %v, want ErrBadCredentials", name, err)
		}
	}
}

func TestChangePassword(t *testing.T) {
	const changed = "a better password"
	for _, c := range []struct {
		name          string
		current, next string
		change        func(*member)
		want          error
	}{
		{"the current password is right", password, changed, nil, nil},
		{"the new password is the current one", password, password, nil, nil},
		{"the current password is wrong", "wrong", changed, nil, account.ErrBadCredentials},
		{"the current password is empty", "", changed, nil, account.ErrBadCredentials},
		{"the current password is huge", strings.Repeat("x", 10<<20), changed, nil, account.ErrBadCredentials},
		{"the new password is weak", password, "weak", nil, account.ErrInvalidPassword},
		// The current password is checked first: strangers learn nothing about the rules.
		{"the current is wrong, the new is weak", "wrong", "weak", nil, account.ErrBadCredentials},
		{"the account is inactive", password, changed, func(m *member) { m.Active = false }, account.ErrBadCredentials},
		{"the account has no password", "", changed, func(m *member) { m.HashedPassword = account.PasswordHash{} }, account.ErrBadCredentials},
		{"the hash is outdated", password, changed, func(m *member) {
			m.HashedPassword = account.NewPasswordHash(phc(64, 1, 1, salt, keyOf(password, salt, 16)))
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, account.Config{})
			ann := r.register(t)
			if c.change != nil {
				r.change(t, ann.ID, c.change)
			}
			before := r.hash(t, ann.ID)
			got, err := r.ChangePassword(t.Context(), ann.ID, c.current, c.next)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if c.want != nil {
				if got := r.hash(t, ann.ID); got != before {
					t.Errorf("the store holds %q, want %q unchanged", got, before)
				}
				if version := r.stored(t, ann.ID).Version; version != 0 || !reflect.DeepEqual(got, member{}) {
					t.Errorf("got the user %+v and the token version %d with an error, want none and 0", got, version)
				}
				return
			}
			want := ann
			want.HashedPassword, want.Version = account.NewPasswordHash(r.hash(t, ann.ID)), 1
			if stored := r.stored(t, ann.ID); !sameuser.Equal(got, want) || !sameuser.Equal(stored, want) {
				t.Errorf("got %+v\nstored %+v\nwant %+v", got, stored, want)
			}
			r.authenticate(t, "with the new password", ann.Email, c.next, nil)
			if c.next != c.current {
				r.authenticate(t, "with the old password", ann.Email, c.current, account.ErrBadCredentials)
			}
		})
	}
	r := newRig(t, account.Config{})
	if _, err := r.ChangePassword(t.Context(), uuid.New(), password, changed); !errors.Is(err, account.ErrBadCredentials) {
		t.Errorf("an unknown account: got %v, want ErrBadCredentials", err)
	}
}

// A change of password ends the tokens issued earlier, whatever the version was.
func TestPasswordChangeRaisesTokenVersion(t *testing.T) {
	for _, before := range []int64{0, 1, 41, math.MaxInt32, -1} {
		r := newRig(t, account.Config{})
		ann := r.register(t)
		r.change(t, ann.ID, func(m *member) { m.Version = before })
		got, err := r.ChangePassword(t.Context(), ann.ID, password, "a better password")
		if stored := r.stored(t, ann.ID).Version; err != nil || got.Version != before+1 || stored != before+1 {
			t.Errorf("from version %d: got %d, stored %d, %v, want %d", before, got.Version, stored, err, before+1)
		}
	}
}

// If tokens are revoked while a password is changed, the session of the change ends
// too: the returned version is older than the stored one.
func TestPasswordChangeReturnsTheVersionItReadPlusOne(t *testing.T) {
	r := newRig(t, account.Config{})
	ann := r.register(t)
	r.store.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
		r.store.apply = r.store.Users.Apply
		if err := r.RevokeTokens(ctx, id); err != nil {
			t.Errorf("RevokeTokens: %v", err)
		}
		return r.store.Users.Apply(ctx, id, change)
	}
	got, err := r.ChangePassword(t.Context(), ann.ID, password, "a better password")
	if stored := r.stored(t, ann.ID).Version; err != nil || got.Version != 1 || stored != 2 {
		t.Errorf("got version %d, stored %d, %v, want 1 and 2", got.Version, stored, err)
	}
}

func TestLoginKeepsTokenVersion(t *testing.T) {
	r := newRig(t, account.Config{})
	ann := r.withHash(t, phc(64, 1, 1, salt, keyOf(password, salt, 16)))
	r.change(t, ann.ID, func(m *member) { m.Version = 7 })
	r.authenticate(t, "with an outdated hash", ann.Email, password, nil)
	if got := r.stored(t, ann.ID); got.Version != 7 || got.HashedPassword.Reveal() == ann.HashedPassword.Reveal() {
		t.Errorf("after a rehash: got version %d, rehashed: %v, want 7, true", got.Version, got.HashedPassword.Reveal() != ann.HashedPassword.Reveal())
	}
}

func TestReauthenticate(t *testing.T) {
	for _, c := range []struct {
		name, password string
		change         func(*member)
		want           event.Reason // "" for success
	}{
		{"the right password", password, nil, ""},
		{"a wrong password", "wrong", nil, event.ReasonWrongPassword},
		{"no password", "", nil, event.ReasonWrongPassword},
		{"a password that is too long", strings.Repeat("x", account.MaxPasswordBytes+1), nil, event.ReasonWrongPassword},
		{"an inactive account", password, func(m *member) { m.Active = false }, event.ReasonUserInactive},
		{"an account without a password", password, func(m *member) { m.HashedPassword = account.PasswordHash{} }, event.ReasonNoPassword},
		{"an account whose password was changed", password, func(m *member) {
			m.HashedPassword = account.NewPasswordHash(phc(64, 1, 1, salt, keyOf("changed", salt, 32)))
		}, event.ReasonWrongPassword},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, account.Config{})
			session := r.register(t) // the user as the session has read it
			r.change(t, session.ID, func(m *member) { m.Name = "Anna" })
			if c.change != nil {
				r.change(t, session.ID, c.change)
			}
			before := r.stored(t, session.ID)
			got, err := r.Reauthenticate(t.Context(), session, c.password)
			events := r.takeEvents()
			if c.want == "" {
				if !sameuser.Equal(got, before) || err != nil || len(events) != 1 || events[0].Kind != event.Reauthenticated {
					t.Errorf("got %+v, %v and the events %+v, want the stored account, %+v, and one login.reauthenticated", got, err, events, before)
				}
			} else {
				if !errors.Is(err, account.ErrBadCredentials) || err.Error() != "account: bad credentials" || !reflect.DeepEqual(got, member{}) {
					t.Errorf("got %+v, %v, want only ErrBadCredentials", got, err)
				}
				if len(events) != 1 || events[0].Kind != event.LoginDenied || events[0].Reason != c.want || events[0].UserID != session.ID {
					t.Errorf("got the events %+v, want one login.denied for Ann with the reason %s", events, c.want)
				}
			}
			if after := r.stored(t, session.ID); !sameuser.Equal(after, before) {
				t.Errorf("the store holds %+v, want %+v unchanged", after, before)
			}
		})
	}

	r := newRig(t, account.Config{})
	ann := r.register(t)
	if err := r.store.Delete(t.Context(), ann.ID); err != nil {
		t.Fatal(err)
	}
	got, err := r.Reauthenticate(t.Context(), ann, password)
	if !errors.Is(err, account.ErrBadCredentials) || !reflect.DeepEqual(got, member{}) {
		t.Errorf("a deleted account: got %+v, %v, want only ErrBadCredentials", got, err)
	}

	// Reauthenticate replaces an outdated hash, as a login does.
	r = newRig(t, account.Config{})
	ann = r.withHash(t, phc(64, 1, 1, salt, keyOf(password, salt, 16)))
	got, err = r.Reauthenticate(t.Context(), ann, password)
	if stored := r.stored(t, ann.ID); err != nil || got.HashedPassword.Reveal() == ann.HashedPassword.Reveal() || !sameuser.Equal(got, stored) {
		t.Errorf("with an outdated hash: got %v, rehashed: %v, want true and the stored account", err, got.HashedPassword.Reveal() != ann.HashedPassword.Reveal())
	}
}

func update(flags account.Update) func(*rig, context.Context, uuid.UUID) error {
	return func(r *rig, ctx context.Context, id uuid.UUID) error {
		_, err := r.Update(ctx, id, flags)
		return err
	}
}

func TestStatusChangeIsOneUpdate(t *testing.T) {
	yes, no := true, false
	for _, c := range []struct {
		name string
		do   func(*rig, context.Context, uuid.UUID) error
		want account.Change
	}{
		{"Deactivate", func(r *rig, ctx context.Context, id uuid.UUID) error { return r.Deactivate(ctx, id) }, account.Change{Active: &no, RevokeTokens: true}},
		{"Activate", func(r *rig, ctx context.Context, id uuid.UUID) error { return r.Activate(ctx, id) }, account.Change{Active: &yes}},
		{"RevokeTokens", func(r *rig, ctx context.Context, id uuid.UUID) error { return r.RevokeTokens(ctx, id) }, account.Change{RevokeTokens: true}},
		{"Update of none", update(account.Update{}), account.Change{}},
		{"Update of Verified", update(account.Update{Verified: &yes}), account.Change{Verified: &yes}},
		{"Update of Superuser", update(account.Update{Superuser: &no}), account.Change{Superuser: &no}},
		{"Update of all, active", update(account.Update{Active: &yes, Verified: &no, Superuser: &yes}),
			account.Change{Active: &yes, Verified: &no, Superuser: &yes}},
		{"Update of all, inactive", update(account.Update{Active: &no, Verified: &yes, Superuser: &no}),
			account.Change{Active: &no, Verified: &yes, Superuser: &no, RevokeTokens: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, account.Config{})
			ann := r.register(t)
			var changes []account.Change
			r.store.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				if id != ann.ID {
					t.Errorf("Apply: got the account %v, want %v", id, ann.ID)
				}
				changes = append(changes, change)
				return r.store.Users.Apply(ctx, id, change)
			}
			if err := c.do(r, t.Context(), ann.ID); err != nil {
				t.Fatalf("got %v, want nil", err)
			}
			if want := []account.Change{c.want}; !reflect.DeepEqual(changes, want) {
				t.Errorf("got the changes %+v, want %+v", changes, want)
			}

			r.store.apply = r.store.Users.Apply
			r.takeEvents()
			if err := c.do(r, t.Context(), uuid.New()); !errors.Is(err, account.ErrUserNotFound) {
				t.Errorf("an unknown account: got %v, want ErrUserNotFound", err)
			}
			if got := r.takeEvents(); len(got) != 0 {
				t.Errorf("an unknown account: got the events %+v, want none", got)
			}
		})
	}
}

func TestDeactivatedAccountCannotLogIn(t *testing.T) {
	r := newRig(t, account.Config{})
	ann := r.register(t)
	if err := r.Deactivate(t.Context(), ann.ID); err != nil {
		t.Fatalf("Deactivate: %v", err)
	}
	r.authenticate(t, "while inactive", ann.Email, password, account.ErrBadCredentials)
	if err := r.Activate(t.Context(), ann.ID); err != nil {
		t.Fatalf("Activate: %v", err)
	}
	want := ann
	want.Version = 1 // tokens issued before the deactivation stay invalid
	if got := r.authenticate(t, "when active again", ann.Email, password, nil); !sameuser.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestOneOfConcurrentPasswordChangesSucceeds(t *testing.T) {
	r := newRig(t, account.Config{})
	ann := r.register(t)
	const n = 8
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			_, errs[i] = r.ChangePassword(t.Context(), ann.ID, password, fmt.Sprint("new password ", i))
		})
	}
	wg.Wait()
	winner, winners := 0, 0
	for i, err := range errs {
		switch {
		case err == nil:
			winner = i
			winners++
		// Late calls find that the current password is wrong.
		case !errors.Is(err, account.ErrConflict) && !errors.Is(err, account.ErrBadCredentials):
			t.Errorf("change %d: got %v, want nil, ErrConflict or ErrBadCredentials", i, err)
		}
	}
	if winners != 1 {
		t.Fatalf("%d changes succeeded, want 1: %v", winners, errs)
	}
	r.authenticate(t, "with the winner's password", ann.Email, fmt.Sprint("new password ", winner), nil)
}

func TestOvertakenPasswordChangeIsAConflict(t *testing.T) {
	r := newRig(t, account.Config{})
	ann := r.register(t)
	r.store.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
		r.change(t, id, func(m *member) { m.HashedPassword = account.NewPasswordHash("the other hash") })
		return r.store.Users.Apply(ctx, id, change)
	}
	if _, err := r.ChangePassword(t.Context(), ann.ID, password, "a better password"); !errors.Is(err, account.ErrConflict) {
		t.Errorf("got %v, want ErrConflict", err)
	}
	if got := r.hash(t, ann.ID); got != "the other hash" {
		t.Errorf("the store holds %q, want the other change's hash", got)
	}
}

func TestStoreFailureIsNotADenial(t *testing.T) {
	for _, cause := range []error{errors.New("down"), context.Canceled, context.DeadlineExceeded} {
		r := newRig(t, account.Config{})
		ann := r.register(t)
		check := func(op string, err error) {
			t.Helper()
			if !errors.Is(err, cause) || errors.Is(err, account.ErrBadCredentials) {
				t.Errorf("%s with the failure %q: got %v, want it wrapped, and not ErrBadCredentials", op, cause, err)
			}
			events := r.takeEvents()
			if len(events) != 1 || events[0].Kind != event.StoreFailed || !errors.Is(events[0].Err, cause) {
				t.Errorf("%s with the failure %q: got the events %+v, want one store.failed with it", op, cause, events)
			}
		}
		r.store.apply = failingApply(cause)
		_, err := r.SetPassword(t.Context(), ann.ID, "another password")
		check("SetPassword, in Apply", err)
		got, err := r.ChangePassword(t.Context(), ann.ID, password, "another password")
		check("ChangePassword, in Apply", err)
		if !reflect.DeepEqual(got, member{}) {
			t.Errorf("ChangePassword: got the user %+v with an error, want none", got)
		}
		r.store.failAll(cause)
		_, _, err = r.Authenticate(t.Context(), ann.Email, password, "")
		check("Authenticate", err)
		_, err = r.Register(t.Context(), newMember("bob@example.com"), password)
		check("Register", err)
		_, err = r.ChangePassword(t.Context(), ann.ID, password, "another password")
		check("ChangePassword", err)
		_, err = r.Reauthenticate(t.Context(), ann, password)
		check("Reauthenticate", err)
		_, err = r.SetPassword(t.Context(), ann.ID, "another password")
		check("SetPassword", err)
		_, err = r.CreateWithHash(t.Context(), newMember("bob@example.com"), account.PasswordHash{})
		check("CreateWithHash", err)
		_, err = r.Update(t.Context(), ann.ID, account.Update{})
		check("Update", err)
		check("Delete", r.Delete(t.Context(), ann.ID))
		check("Deactivate", r.Deactivate(t.Context(), ann.ID))
		check("Activate", r.Activate(t.Context(), ann.ID))
		check("RevokeTokens", r.RevokeTokens(t.Context(), ann.ID))
	}
}

// A client that goes away is no failure of the database. A deadline that passes is one.
func TestAbandonedCallsAreNoStoreFailures(t *testing.T) {
	for _, c := range []struct {
		name    string
		cause   error
		deadend func(context.Context) (context.Context, context.CancelFunc)
		want    int // events
	}{
		{"the client goes away", context.Canceled, context.WithCancel, 0},
		{"the deadline passes", context.DeadlineExceeded, func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithDeadline(ctx, time.Unix(0, 0))
		}, 1},
		{"the store fails", errors.New("down"), func(ctx context.Context) (context.Context, context.CancelFunc) {
			return ctx, func() {}
		}, 1},
	} {
		for _, limited := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, with a limiter %v", c.name, limited), func(t *testing.T) {
				r := newRig(t, account.Config{})
				if limited {
					r = newLimitedRig(t, account.LimiterConfig{}).rig
				}
				ann := member{}
				if limited {
					ann, _, _ = r.Authenticate(t.Context(), "ann@example.com", password, "")
				} else {
					ann = r.register(t)
				}
				for range 12 {
					for name, call := range map[string]func(context.Context) error{
						"Authenticate":   func(ctx context.Context) error { _, _, err := r.Authenticate(ctx, ann.Email, password, ""); return err },
						"Reauthenticate": func(ctx context.Context) error { _, err := r.Reauthenticate(ctx, ann, password); return err },
						"Register": func(ctx context.Context) error {
							_, err := r.Register(ctx, newMember("bob@example.com"), password)
							return err
						},
						"ChangePassword": func(ctx context.Context) error {
							_, err := r.ChangePassword(ctx, ann.ID, password, "another password")
							return err
						},
						"SetPassword": func(ctx context.Context) error {
							_, err := r.SetPassword(ctx, ann.ID, "another password")
							return err
						},
						"Delete":     func(ctx context.Context) error { return r.Delete(ctx, ann.ID) },
						"Deactivate": func(ctx context.Context) error { return r.Deactivate(ctx, ann.ID) },
						"Update": func(ctx context.Context) error {
							_, err := r.Update(ctx, ann.ID, account.Update{Verified: new(true)})
							return err
						},
						"Edit": func(ctx context.Context) error {
							_, err := r.Edit(ctx, ann.ID, func(*member) error { return nil })
							return err
						},
						"ByID":         func(ctx context.Context) error { _, err := r.ByID(ctx, ann.ID); return err },
						"List":         func(ctx context.Context) error { _, err := r.List(ctx, account.Query{}); return err },
						"Activate":     func(ctx context.Context) error { return r.Activate(ctx, ann.ID) },
						"RevokeTokens": func(ctx context.Context) error { return r.RevokeTokens(ctx, ann.ID) },
					} {
						ctx, cancel := c.deadend(t.Context())
						gone := func() error { cancel(); return c.cause }
						r.store.insert = func(context.Context, member) error { return gone() }
						r.store.byID = func(context.Context, uuid.UUID) (member, error) { return member{}, gone() }
						r.store.byEmail = func(context.Context, string) (member, error) { return member{}, gone() }
						r.store.apply = func(context.Context, uuid.UUID, account.Change) error { return gone() }
						r.store.delete = func(context.Context, uuid.UUID) error { return gone() }
						r.store.edit = func(context.Context, uuid.UUID, func(*member) error) (member, error) { return member{}, gone() }
						r.store.list = func(context.Context, string, string, int) ([]member, error) { return nil, gone() }
						r.takeEvents()
						err := call(ctx)
						got := 0
						for _, e := range r.takeEvents() {
							if e.Kind == event.StoreFailed || e.Kind == event.LimiterFailed || e.Kind == event.Overloaded {
								got++
							}
						}
						// With the deadline over, the limiter's store fails too.
						if err == nil || got < c.want || c.want == 0 && got != 0 {
							t.Errorf("%s: got %v and %d events of a failure, want an error and %d", name, err, got, c.want)
						}
						cancel()
					}
				}
			})
		}
	}
}

// Nor is it a failure of the limiter's store, or of a rehash.
func TestAbandonedLoginIsNoFailureOfTheLimiter(t *testing.T) {
	for _, call := range []string{"Counters", "Add"} {
		r := newLimitedRig(t, account.LimiterConfig{})
		r.takeEvents()
		ctx, cancel := context.WithCancel(from(home))
		r.attempts.since(func(_ context.Context, c string, _ int) error {
			if c == call {
				cancel()
				return context.Canceled
			}
			return nil
		})
		if _, _, err := r.Authenticate(ctx, annsAddress, password, ""); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want context.Canceled", call, err)
		}
		r.attempts.since(nil)
		if got := r.takeEvents(); got != nil {
			t.Errorf("%s: got the events %+v, want none", call, got)
		}
		if left := r.attempts.left(t); left != nil {
			t.Errorf("%s: the counters are at %v, want none", call, left)
		}
	}
	r := newRig(t, account.Config{})
	ann := r.withHash(t, phc(64, 1, 1, salt, keyOf(password, salt, 16)))
	ctx, cancel := context.WithCancel(t.Context())
	r.store.apply = func(context.Context, uuid.UUID, account.Change) error {
		cancel()
		return context.Canceled
	}
	if _, _, err := r.Authenticate(ctx, ann.Email, password, ""); err != nil {
		t.Errorf("a login whose rehash is abandoned: got %v, want nil", err)
	}
	if got := kinds(r.takeEvents()); !slices.Equal(got, []event.Kind{event.LoginSucceeded}) {
		t.Errorf("got the events %v, want only the login", got)
	}
}

func TestConfigErrorsNameTheField(t *testing.T) {
	users := account.Store[member, uuid.UUID](memstore.NewUsers[member]())
	attempts := account.AttemptStore(newAttempts(t))
	for _, c := range []struct {
		name     string
		store    account.Store[member, uuid.UUID]
		attempts account.AttemptStore
		cfg      account.Config
		want     string // part of the error; "" for none
	}{
		{"the zero Config", users, attempts, account.Config{}, ""},
		{"no store", nil, attempts, account.Config{}, "store"},
		{"no attempts", users, nil, account.Config{}, "memstore.NewAttempts"},
		{"no attempts, and no limiter", users, nil, account.Config{InsecureNoLimiter: true}, ""},
		{"attempts, and no limiter", users, attempts, account.Config{InsecureNoLimiter: true}, ""},
		{"limits, but no limiter", users, nil, account.Config{InsecureNoLimiter: true, Limiter: account.LimiterConfig{FailClosed: true}}, "Config.InsecureNoLimiter"},
		{"a negative minimum", users, attempts, account.Config{MinPasswordLength: -1}, "Config.MinPasswordLength"},
		{"a minimum of 65", users, attempts, account.Config{MinPasswordLength: 65}, "Config.MinPasswordLength"},
		{"a minimum of 64", users, attempts, account.Config{MinPasswordLength: 64}, ""},
		{"weak hashing", users, attempts, account.Config{Argon2: cheap}, "Config.Argon2"},
		{"negative concurrent hashes", users, attempts, account.Config{MaxConcurrentHashes: -1}, "Config.MaxConcurrentHashes"},
		{"a negative timeout", users, attempts, account.Config{Timeout: -1}, "Config.Timeout"},
		{"a negative limit on registrations", users, attempts, account.Config{RegistrationsPerNetwork: -1}, "Config.RegistrationsPerNetwork"},
		{"a negative wait for a hash", users, attempts, account.Config{MaxHashWait: -1}, "Config.MaxHashWait"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := account.NewManager(c.store, nil, c.attempts, uuid.New, c.cfg)
			if c.want == "" {
				if m == nil || err != nil {
					t.Errorf("got %v, %v, want a Manager", m, err)
				}
			} else if m != nil || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v, want an error that names %s", m, err, c.want)
			}
		})
	}
}

func TestNilSessionsAreAnError(t *testing.T) {
	m, err := account.NewManager(memstore.NewUsers[member](), nil, newAttempts(t), uuid.New, account.Config{}, nil)
	if m != nil || err == nil || !strings.Contains(err.Error(), "sessions") {
		t.Errorf("got %v, %v, want an error that names sessions", m, err)
	}
}

func TestEvents(t *testing.T) {
	r := newRig(t, account.Config{})
	ctx := t.Context()
	const second, third = "the second password", "the third password"
	ann, err := r.Register(ctx, newMember("ann@example.com"), password)
	if err != nil {
		t.Fatalf("Register: %v", err)
	}
	_, _ = r.Register(ctx, newMember("ann@example.com"), password)
	_, _ = r.Register(ctx, newMember("not an address"), password)
	_, _, _ = r.Authenticate(ctx, "ann@example.com", password, "")
	_, _, _ = r.Authenticate(ctx, "ann@example.com", second, "")
	_, _, _ = r.Authenticate(ctx, "bob@example.com", second, "")
	_, _ = r.ChangePassword(ctx, ann.ID, second, third)
	_, _ = r.ChangePassword(ctx, ann.ID, password, "weak")
	_, _ = r.ChangePassword(ctx, ann.ID, password, second)
	old := account.NewPasswordHash(phc(64, 1, 1, salt, keyOf(second, salt, 16)))
	r.change(t, ann.ID, func(m *member) { m.HashedPassword = old })
	_, _, _ = r.Authenticate(ctx, "ann@example.com", second, "")
	r.change(t, ann.ID, func(m *member) { m.Active = false })
	_, _, _ = r.Authenticate(ctx, "ann@example.com", second, "")
	_, _ = r.Reauthenticate(ctx, ann, second)
	_ = r.Activate(ctx, ann.ID)
	_, _ = r.Reauthenticate(ctx, ann, second)
	_, _ = r.Reauthenticate(ctx, ann, password)
	_, _ = r.Reauthenticate(ctx, newMember("bob@example.com"), second)
	_ = r.RevokeTokens(ctx, ann.ID)
	_ = r.Deactivate(ctx, ann.ID)
	_ = r.Deactivate(ctx, uuid.New())
	_ = r.Activate(ctx, uuid.New())
	_ = r.RevokeTokens(ctx, uuid.New())
	_, _ = r.SetPassword(ctx, uuid.New(), third)
	_, _ = r.SetPassword(ctx, ann.ID, "weak")
	_, _ = r.SetPassword(ctx, ann.ID, third)
	_, _ = r.Update(ctx, ann.ID, account.Update{Verified: new(true)})
	bob, err := r.CreateWithHash(ctx, newMember("bob@example.com"), account.PasswordHash{})
	if err != nil {
		t.Fatalf("CreateWithHash: %v", err)
	}
	_, _ = r.CreateWithHash(ctx, newMember("eve@example.com"), account.NewPasswordHash("plain text!"))
	_, _, _ = r.Authenticate(ctx, "bob@example.com", second, "")
	_ = r.Delete(ctx, bob.ID)
	_ = r.Delete(ctx, bob.ID)
	down := errors.New("down")
	r.store.failAll(down)
	_, _, _ = r.Authenticate(ctx, "ann@example.com", second, "")

	want := []event.Event{
		{Kind: event.AccountRegistered, UserID: ann.ID},
		{Kind: event.RegistrationDenied, Reason: event.ReasonEmailTaken},
		{Kind: event.LoginSucceeded, UserID: ann.ID},
		{Kind: event.LoginDenied, UserID: ann.ID, Reason: event.ReasonWrongPassword},
		{Kind: event.LoginDenied, Reason: event.ReasonUnknownUser},
		{Kind: event.LoginDenied, UserID: ann.ID, Reason: event.ReasonWrongPassword},
		{Kind: event.PasswordChanged, UserID: ann.ID},
		{Kind: event.PasswordRehashed, UserID: ann.ID},
		{Kind: event.LoginSucceeded, UserID: ann.ID},
		{Kind: event.LoginDenied, UserID: ann.ID, Reason: event.ReasonUserInactive},
		{Kind: event.LoginDenied, UserID: ann.ID, Reason: event.ReasonUserInactive},
		{Kind: event.AccountChanged, UserID: ann.ID},
		{Kind: event.Reauthenticated, UserID: ann.ID},
		{Kind: event.LoginDenied, UserID: ann.ID, Reason: event.ReasonWrongPassword},
		{Kind: event.LoginDenied, Reason: event.ReasonUnknownUser},
		{Kind: event.AccountChanged, UserID: ann.ID},
		{Kind: event.AccountChanged, UserID: ann.ID, Reason: event.ReasonUserInactive},
		{Kind: event.PasswordChanged, UserID: ann.ID},
		{Kind: event.AccountChanged, UserID: ann.ID},
		{Kind: event.AccountRegistered, UserID: bob.ID},
		{Kind: event.LoginDenied, UserID: bob.ID, Reason: event.ReasonNoPassword},
		{Kind: event.AccountDeleted, UserID: bob.ID},
		{Kind: event.StoreFailed, Err: down},
	}
	got := r.takeEvents()
	var shown strings.Builder
	log := event.Log(slog.New(slog.NewJSONHandler(&shown, nil)))
	for i := range got {
		fmt.Fprintf(&shown, "%+v\n", got[i])
		log(ctx, got[i])
		if !got[i].Time.Equal(now.Truncate(time.Millisecond)) {
			t.Errorf("event %d: got the time %v, want the clock's %v", i, got[i].Time, now)
		}
		got[i].Time = time.Time{}
		if errors.Is(got[i].Err, down) {
			got[i].Err = down
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, secret := range []string{password, second, third, "weak", "$argon2id$", ann.HashedPassword.Reveal()} {
		if strings.Contains(shown.String(), secret) {
			t.Errorf("the events show %q:\n%s", secret, shown.String())
		}
	}
}

// BenchmarkAuthenticate measures logins with the default parameters.
func BenchmarkAuthenticate(b *testing.B) {
	m, err := account.NewManager(memstore.NewUsers[member](), nil, newAttempts(b), uuid.New, account.Config{})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := m.Register(b.Context(), newMember("ann@example.com"), password); err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct{ name, email, password string }{
		{"right password", "ann@example.com", password},
		{"wrong password", "ann@example.com", "wrong"},
		{"unknown address", "bob@example.com", password},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _, _ = m.Authenticate(b.Context(), c.email, c.password, "")
			}
		})
	}
}

// The form of a sign-up must not choose the ID, which can be that of a deleted
// account, or the token version.
func TestRegisterResetsIDAndVersion(t *testing.T) {
	r := newRig(t, account.Config{})
	stranger := newMember("eve@example.com")
	stranger.ID, stranger.Version = uuid.New(), 41
	got, err := r.Register(t.Context(), stranger, password)
	if err != nil || got.ID == stranger.ID || got.ID == uuid.Nil || got.Version != 0 {
		t.Errorf("got the ID %v (sent %v) and version %d, %v; want a new ID and 0", got.ID, stranger.ID, got.Version, err)
	}
	imported := member{User: account.User[uuid.UUID]{ID: stranger.ID, Email: "import@example.com", Version: 41}}
	created, err := r.Create(t.Context(), imported, password)
	if err != nil || created.ID != stranger.ID || created.Version != 41 {
		t.Errorf("Create: got the ID %v and version %d, %v, want %v and 41", created.ID, created.Version, err, stranger.ID)
	}
}

func TestRevocationRaisesTokenVersion(t *testing.T) {
	for name, revoke := range map[string]func(*rig, uuid.UUID) error{
		"RevokeTokens": func(r *rig, id uuid.UUID) error { return r.RevokeTokens(t.Context(), id) },
		"Deactivate":   func(r *rig, id uuid.UUID) error { return r.Deactivate(t.Context(), id) },
		"SetPassword":  func(r *rig, id uuid.UUID) error { _, err := r.SetPassword(t.Context(), id, password); return err },
	} {
		r := newRig(t, account.Config{})
		ann := r.register(t)
		for want := int64(1); want <= 3; want++ {
			if err := revoke(r, ann.ID); err != nil || r.stored(t, ann.ID).Version != want {
				t.Errorf("%s: stored version %d, %v, want %d", name, r.stored(t, ann.ID).Version, err, want)
			}
		}
		if err := r.Activate(t.Context(), ann.ID); err != nil || r.stored(t, ann.ID).Version != 3 {
			t.Errorf("Activate: stored version %d, %v, want 3", r.stored(t, ann.ID).Version, err)
		}
	}
}

// sessionsFunc is an account.Sessions.
type sessionsFunc func(ctx context.Context, id uuid.UUID, revoked strategy.Revoked) error

func (f sessionsFunc) UserChanged(ctx context.Context, id uuid.UUID, revoked strategy.Revoked) error {
	return f(ctx, id, revoked)
}

// makeChange are calls of a Manager, by their names in tests.
var makeChange = map[string]func(context.Context, *rig, uuid.UUID) error{
	"ChangePassword": func(ctx context.Context, r *rig, id uuid.UUID) error {
		_, err := r.ChangePassword(ctx, id, password, "a better password")
		return err
	},
	"a wrong password": func(ctx context.Context, r *rig, id uuid.UUID) error {
		_, err := r.ChangePassword(ctx, id, "wrong", "a better password")
		return err
	},
	"a weak password": func(ctx context.Context, r *rig, id uuid.UUID) error {
		_, err := r.ChangePassword(ctx, id, password, "weak")
		return err
	},
	"a login": func(ctx context.Context, r *rig, _ uuid.UUID) error {
		_, _, err := r.Authenticate(ctx, "ann@example.com", password, "")
		return err
	},
	"SetPassword": func(ctx context.Context, r *rig, id uuid.UUID) error {
		_, err := r.SetPassword(ctx, id, "a better password")
		return err
	},
	"a weak password by an administrator": func(ctx context.Context, r *rig, id uuid.UUID) error {
		_, err := r.SetPassword(ctx, id, "weak")
		return err
	},
	"Update": func(ctx context.Context, r *rig, id uuid.UUID) error {
		_, err := r.Update(ctx, id, account.Update{Verified: new(true), Superuser: new(false)})
		return err
	},
	"Update that deactivates": func(ctx context.Context, r *rig, id uuid.UUID) error {
		_, err := r.Update(ctx, id, account.Update{Active: new(false)})
		return err
	},
	"Update of the password": func(ctx context.Context, r *rig, id uuid.UUID) error {
		_, err := r.Update(ctx, id, account.Update{Password: new("a better password"), Email: new("new@example.com")})
		return err
	},
	"Update of the password that deactivates": func(ctx context.Context, r *rig, id uuid.UUID) error {
		_, err := r.Update(ctx, id, account.Update{Password: new("a better password"), Active: new(false)})
		return err
	},
	"Update of the address": func(ctx context.Context, r *rig, id uuid.UUID) error {
		_, err := r.Update(ctx, id, account.Update{Email: new("new@example.com")})
		return err
	},
	"Update with a weak password": func(ctx context.Context, r *rig, id uuid.UUID) error {
		_, err := r.Update(ctx, id, account.Update{Password: new("weak"), Active: new(false)})
		return err
	},
	"Update with a condition that does not hold": func(ctx context.Context, r *rig, id uuid.UUID) error {
		_, err := r.Update(ctx, id, account.Update{Active: new(false), IfVersion: new(int64(9))})
		return err
	},
	"Edit": func(ctx context.Context, r *rig, id uuid.UUID) error {
		_, err := r.Edit(ctx, id, func(m *member) error { m.Name = "Anna"; return nil })
		return err
	},
	"a refused Edit": func(ctx context.Context, r *rig, id uuid.UUID) error {
		_, err := r.Edit(ctx, id, func(*member) error { return errors.New("refused") })
		return err
	},
	"Delete":       func(ctx context.Context, r *rig, id uuid.UUID) error { return r.Delete(ctx, id) },
	"Deactivate":   func(ctx context.Context, r *rig, id uuid.UUID) error { return r.Deactivate(ctx, id) },
	"RevokeTokens": func(ctx context.Context, r *rig, id uuid.UUID) error { return r.RevokeTokens(ctx, id) },
	"Activate":     func(ctx context.Context, r *rig, id uuid.UUID) error { return r.Activate(ctx, id) },
}

type contextKey struct{}

// All sessions are told after each change that can end an account's sessions, also if the
// request was cancelled, and also if the store failed, as the change may have been made.
func TestSessionsAreToldOfEachChange(t *testing.T) {
	down := errors.New("down")
	const nothing, changed, revoked, byPassword = "nothing", "none", "all", "by password"
	for _, c := range []struct {
		call    string
		failure error // of the store's update
		known   bool  // the account exists
		want    string
	}{
		{"ChangePassword", nil, true, byPassword},
		{"Deactivate", nil, true, revoked},
		{"RevokeTokens", nil, true, revoked},
		{"Activate", nil, true, changed},
		{"SetPassword", nil, true, byPassword},
		{"Update", nil, true, changed},
		{"Update of the address", nil, true, changed},
		{"Update of the password", nil, true, byPassword},
		{"Update that deactivates", nil, true, revoked},
		{"Update of the password that deactivates", nil, true, revoked},
		{"Update with a weak password", nil, true, nothing},
		{"Update with a condition that does not hold", nil, true, nothing},
		{"Edit", nil, true, changed},
		{"a refused Edit", nil, true, nothing},
		{"Delete", nil, true, revoked},

		{"ChangePassword", down, true, changed},
		{"Deactivate", down, true, changed},
		{"RevokeTokens", down, true, changed},
		{"Activate", down, true, changed},
		{"Deactivate", context.Canceled, true, changed},
		{"SetPassword", down, true, changed},
		{"Update", down, true, changed},
		{"Update of the password", down, true, changed},
		{"Update that deactivates", context.Canceled, true, changed},
		{"Edit", down, true, changed},
		{"Edit", context.Canceled, true, changed},
		{"Delete", down, true, changed},
		{"Delete", context.Canceled, true, changed},

		{"ChangePassword", fmt.Errorf("update: %w", account.ErrConflict), true, nothing},
		{"ChangePassword", nil, false, nothing},
		{"Deactivate", nil, false, nothing},
		{"RevokeTokens", nil, false, nothing},
		{"Activate", nil, false, nothing},
		{"SetPassword", nil, false, nothing},
		{"Update", nil, false, nothing},
		{"Update of the password", nil, false, nothing},
		{"Edit", nil, false, nothing},
		// An earlier Delete can have left rows behind.
		{"Delete", nil, false, revoked},
		{"a weak password by an administrator", nil, true, nothing},
		{"a wrong password", nil, true, nothing},
		{"a weak password", nil, true, nothing},
		{"a login", nil, true, nothing},
	} {
		t.Run(fmt.Sprintf("%s, failure %v, known %v", c.call, c.failure, c.known), func(t *testing.T) {
			var got []string
			var of uuid.UUID
			var updated bool
			record := sessionsFunc(func(ctx context.Context, id uuid.UUID, revoked strategy.Revoked) error {
				if !updated || ctx.Err() != nil || ctx.Value(contextKey{}) != "a value" {
					t.Errorf("called with the update made: %v, context error: %v, value: %v, want true, nil and the request's",
						updated, ctx.Err(), ctx.Value(contextKey{}))
				}
				if id != of {
					t.Errorf("told of another account")
				}
				got = append(got, revoked.String())
				return nil
			})
			r := newRig(t, account.Config{}, record, record)
			ann := r.withHash(t, phc(64, 1, 1, salt, keyOf(password, salt, 16))) // outdated
			id := ann.ID
			if !c.known {
				id = uuid.New()
			}
			of = id
			ctx, cancel := context.WithCancel(context.WithValue(t.Context(), contextKey{}, "a value"))
			defer cancel()
			good := r.store.Users
			r.store.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				if change.Password != nil && !change.RevokeTokens { // a rehash
					return good.Apply(ctx, id, change)
				}
				defer cancel()
				updated = true
				return cmp.Or(c.failure, good.Apply(ctx, id, change))
			}
			r.store.delete = func(ctx context.Context, id uuid.UUID) error {
				defer cancel()
				updated = true
				return cmp.Or(c.failure, good.Delete(ctx, id))
			}
			r.store.edit = func(ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error) {
				defer cancel()
				updated = true
				m, err := good.Edit(ctx, id, edit)
				return m, cmp.Or(c.failure, err)
			}
			err := makeChange[c.call](ctx, r, id)
			if c.failure != nil && !errors.Is(err, c.failure) {
				t.Errorf("got %v, want %v", err, c.failure)
			}
			var want []string
			if c.want != nothing {
				want = []string{c.want, c.want}
			}
			if !slices.Equal(got, want) {
				t.Errorf("told %v, want %v", got, want)
			}
		})
	}
}

// The errors of all sessions are returned, beside that of the store. The change was made.
func TestErrorsOfSessionsAreReturned(t *testing.T) {
	down, first, second := errors.New("down"), errors.New("first"), errors.New("second")
	failing := func(err error) account.Sessions[uuid.UUID] {
		return sessionsFunc(func(context.Context, uuid.UUID, strategy.Revoked) error { return err })
	}
	for _, call := range []string{"ChangePassword", "SetPassword", "Deactivate", "RevokeTokens", "Activate"} {
		t.Run(call, func(t *testing.T) {
			r := newRig(t, account.Config{}, failing(first), failing(nil), failing(second))
			ann := r.register(t)
			err := makeChange[call](t.Context(), r, ann.ID)
			if !errors.Is(err, first) || !errors.Is(err, second) {
				t.Errorf("got %v, want the errors of both sessions", err)
			}
			now := r.stored(t, ann.ID)
			if revokes := call != "Activate"; (now.Version == 1) != revokes || now.Active != (call != "Deactivate") {
				t.Errorf("stored version %d, active %v: the change was not made", now.Version, now.Active)
			}
			r.store.failAll(down)
			r.store.byID = r.store.Users.ByID
			if call == "ChangePassword" {
				_, err = r.ChangePassword(t.Context(), ann.ID, "a better password", "another password")
			} else {
				err = makeChange[call](t.Context(), r, ann.ID)
			}
			if !errors.Is(err, down) || !errors.Is(err, first) || !errors.Is(err, second) {
				t.Errorf("with a store that fails: got %v, want three errors", err)
			}
		})
	}
}

// Each change is acknowledged only after the sessions were told of it.
func TestSessionsAreToldOfConcurrentChanges(t *testing.T) {
	var calls sync.Map // IDs to *atomic.Int64
	r := newRig(t, account.Config{}, sessionsFunc(func(_ context.Context, id uuid.UUID, _ strategy.Revoked) error {
		n, _ := calls.LoadOrStore(id, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
		return nil
	}))
	var wg sync.WaitGroup
	for i := range 6 {
		ann, err := r.Register(t.Context(), newMember(fmt.Sprintf("ann%d@example.com", i)), password)
		if err != nil {
			t.Fatalf("Register: %v", err)
		}
		wg.Go(func() {
			for want := int64(1); want <= 4; want++ {
				if err := r.RevokeTokens(t.Context(), ann.ID); err != nil {
					t.Errorf("RevokeTokens: %v", err)
				}
				if n, ok := calls.Load(ann.ID); !ok || n.(*atomic.Int64).Load() != want {
					t.Errorf("change %d was acknowledged before the sessions were told", want)
				}
			}
		})
	}
	wg.Wait()
}

// newAttempts returns an empty store of attempts.
func newAttempts(t testing.TB) *memstore.Attempts {
	t.Helper()
	attempts, err := memstore.NewAttempts(0)
	if err != nil {
		t.Fatalf("NewAttempts: %v", err)
	}
	return attempts
}
