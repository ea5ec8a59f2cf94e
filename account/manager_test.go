package account_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/bcrypt"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/memstore"
)

// cheap makes hashing cost next to nothing.
var cheap = account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}

const cheapHash = "$argon2id$v=19$m=64,t=1,p=1$"

func newMember(email string) member {
	return member{User: account.User[uuid.UUID]{Email: email}, Name: "Ann"}
}

// fakeStore is a good store whose methods can be replaced one by one.
type fakeStore struct {
	*memstore.Users[member, uuid.UUID]
	insert          func(context.Context, member) error
	byID            func(context.Context, uuid.UUID) (member, error)
	byEmail         func(context.Context, string) (member, error)
	replacePassword func(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, notBefore time.Time) error
	apply           func(context.Context, uuid.UUID, account.Change) error
}

func newFakeStore() *fakeStore {
	good := memstore.NewUsers[member]()
	return &fakeStore{good, good.Insert, good.ByID, good.ByEmail, good.ReplacePassword, good.Apply}
}

func (s *fakeStore) Insert(ctx context.Context, m member) error { return s.insert(ctx, m) }
func (s *fakeStore) ByID(ctx context.Context, id uuid.UUID) (member, error) {
	return s.byID(ctx, id)
}
func (s *fakeStore) ByEmail(ctx context.Context, email string) (member, error) {
	return s.byEmail(ctx, email)
}
func (s *fakeStore) ReplacePassword(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, notBefore time.Time) error {
	return s.replacePassword(ctx, id, old, new, notBefore)
}
func (s *fakeStore) Apply(ctx context.Context, id uuid.UUID, change account.Change) error {
	return s.apply(ctx, id, change)
}

// breakDown makes every method fail.
func (s *fakeStore) breakDown(err error) {
	s.insert = func(context.Context, member) error { return err }
	s.byID = func(context.Context, uuid.UUID) (member, error) { return member{}, err }
	s.byEmail = func(context.Context, string) (member, error) { return member{}, err }
	s.replacePassword = failingReplace(err)
	s.apply = func(context.Context, uuid.UUID, account.Change) error { return err }
}

func failingReplace(err error) func(context.Context, uuid.UUID, account.PasswordHash, account.PasswordHash, time.Time) error {
	return func(context.Context, uuid.UUID, account.PasswordHash, account.PasswordHash, time.Time) error {
		return err
	}
}

// harness is a Manager over a fake store.
type harness struct {
	*account.Manager[member, uuid.UUID]
	store *fakeStore

	mu     sync.Mutex
	events []event.Event
}

var now = time.Date(2026, 3, 29, 1, 59, 59, 987654321, time.FixedZone("elsewhere", 3600))

// cutOff is far enough after now for logins that looked the account up before a
// change to be older.
var cutOff = time.Date(2026, 3, 29, 1, 0, 9, 987e6, time.UTC)

func newHarness(t testing.TB, cfg account.Config) *harness {
	t.Helper()
	h := &harness{store: newFakeStore()}
	if cfg.Argon2 == (account.Argon2{}) {
		cfg.Argon2 = cheap
	}
	cfg.InsecureArgon2 = true
	cfg.InsecureNoLimiter = cfg.Limiter == nil // limiter_test.go has its tests
	cfg.Now = func() time.Time { return now }
	cfg.OnEvent = func(_ context.Context, e event.Event) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.events = append(h.events, e)
	}
	var err error
	if h.Manager, err = account.NewManager(h.store, uuid.New, cfg); err != nil {
		t.Fatalf("NewManager: %v", err)
	}
	return h
}

// take returns the events since the last call.
func (h *harness) take() []event.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	events := h.events
	h.events = nil
	return events
}

// register registers ann@example.com with password.
func (h *harness) register(t testing.TB) member {
	t.Helper()
	ann, err := h.Register(t.Context(), newMember("ann@example.com"), password)
	if err != nil {
		t.Fatalf("Register: %v", err)
	}
	h.take()
	return ann
}

// holding registers ann@example.com and puts a hash in the place of hers.
func (h *harness) holding(t testing.TB, hash string) member {
	t.Helper()
	ann := h.register(t)
	ann.HashedPassword = account.PasswordHash(hash)
	h.change(t, ann.ID, func(m *member) { m.HashedPassword = ann.HashedPassword })
	return ann
}

func (h *harness) change(t testing.TB, id uuid.UUID, change func(*member)) {
	t.Helper()
	if err := h.store.Update(t.Context(), id, change); err != nil {
		t.Fatalf("Update: %v", err)
	}
}

// stored returns the account that the store holds.
func (h *harness) stored(t testing.TB, id uuid.UUID) member {
	t.Helper()
	m, err := h.store.Users.ByID(t.Context(), id)
	if err != nil {
		t.Fatalf("ByID: %v", err)
	}
	return m
}

// hash returns the hash that the store holds.
func (h *harness) hash(t testing.TB, id uuid.UUID) string {
	t.Helper()
	return string(h.stored(t, id).HashedPassword)
}

// logsIn says how Authenticate answers.
func (h *harness) logsIn(t *testing.T, when, email, password string, want error) member {
	t.Helper()
	got, err := h.Authenticate(t.Context(), email, password)
	if !errors.Is(err, want) {
		t.Errorf("Authenticate %s: got %v, want %v", when, err, want)
	}
	if err != nil && !reflect.DeepEqual(got, member{}) {
		t.Errorf("Authenticate %s: got the user %+v beside the error %v, want none", when, got, err)
	}
	return got
}

func TestRegisterStoresAnAccountThatCanLogIn(t *testing.T) {
	h := newHarness(t, account.Config{})
	stranger := newMember(" Ann@Example.COM ")
	stranger.Superuser, stranger.Verified, stranger.HashedPassword = true, true, "forged"
	stranger.CreatedAt = time.UnixMilli(1)

	got, err := h.Register(t.Context(), stranger, password)
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
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Register: got %+v\nwant %+v", got, want)
	}
	if got.ID == uuid.Nil {
		t.Error("Register: got no ID, want one of newID's")
	}
	if !strings.HasPrefix(string(got.HashedPassword), cheapHash) {
		t.Errorf("the hash begins %.30q, want today's parameters, %q", string(got.HashedPassword), cheapHash)
	}
	if stored, err := h.store.Users.ByID(t.Context(), got.ID); !reflect.DeepEqual(stored, got) || err != nil {
		t.Errorf("the store holds %+v, %v, want %+v", stored, err, got)
	}
	for _, email := range []string{"ann@example.com", "ann@example.com\t", "\r\n ANN@EXAMPLE.COM", "Ann@Example.COM"} {
		if user := h.logsIn(t, "as "+email, email, password, nil); !reflect.DeepEqual(user, got) {
			t.Errorf("Authenticate as %q: got %+v, want %+v", email, user, got)
		}
	}
}

func TestCreateKeepsTheFlagsAndTheID(t *testing.T) {
	for _, c := range []struct{ active, verified, superuser bool }{
		{true, true, true}, {true, false, true}, {false, true, false}, {false, false, false},
	} {
		h := newHarness(t, account.Config{})
		admin := newMember("admin@example.com")
		admin.ID = uuid.New()
		admin.Active, admin.Verified, admin.Superuser = c.active, c.verified, c.superuser
		got, err := h.Create(t.Context(), admin, password)
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
		h.logsIn(t, fmt.Sprintf("with the flags %+v", c), "admin@example.com", password, want)
	}
}

func TestATakenAddressCannotBeRegistered(t *testing.T) {
	h := newHarness(t, account.Config{})
	ann := h.register(t)
	for _, email := range []string{"ann@example.com", " ANN@Example.com\n"} {
		got, err := h.Register(t.Context(), newMember(email), "another password")
		if !errors.Is(err, account.ErrEmailTaken) || !reflect.DeepEqual(got, member{}) {
			t.Errorf("Register of %q: got %+v, %v, want no user, ErrEmailTaken", email, got, err)
		}
	}
	h.logsIn(t, "with the second password", "ann@example.com", "another password", account.ErrBadCredentials)
	if got := h.logsIn(t, "with the first password", "ann@example.com", password, nil); got.ID != ann.ID {
		t.Errorf("Authenticate: got the account %v, want the first, %v", got.ID, ann.ID)
	}
}

func TestNoAccountWithoutAnID(t *testing.T) {
	users := memstore.NewUsers[member]()
	m, err := account.NewManager(users, nil, account.Config{Argon2: cheap, InsecureArgon2: true})
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

func TestNewPasswords(t *testing.T) {
	breached := errors.New("on a list of breached passwords")
	for _, c := range []struct {
		name, password string
		min            int
		want           error
	}{
		{"8 characters are enough", "12345678", 0, nil},
		{"7 are not", "1234567", 0, account.ErrInvalidPassword},
		{"none is not", "", 0, account.ErrInvalidPassword},
		{"characters count, not bytes", "пароль12", 0, nil},
		{"7 characters in 14 bytes are too few", "паролии", 0, account.ErrInvalidPassword},
		{"blanks are characters, also at the ends", "  1234  ", 0, nil},
		{"a minimum of 15 refuses 14", strings.Repeat("x", 14), 15, account.ErrInvalidPassword},
		{"a minimum of 15 takes 15", strings.Repeat("x", 15), 15, nil},
		{"a minimum of 1 takes 1", "x", 1, nil},
		{"a minimum of 1 does not take none", "", 1, account.ErrInvalidPassword},
		{"64 characters of four bytes fit", strings.Repeat("🔑", 64), 0, nil},
		{"1024 bytes fit", strings.Repeat("x", 1024), 0, nil},
		{"1025 bytes do not", strings.Repeat("x", 1025), 0, account.ErrInvalidPassword},
		{"ten megabytes do not", strings.Repeat("x", 10<<20), 0, account.ErrInvalidPassword},
		{"invalid UTF-8 is refused", "12345678\xff", 0, account.ErrInvalidPassword},
		{"NUL is a character like others", "1234\x005678", 0, nil},
		{"the application's check refuses", "correct horse", 0, breached},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, account.Config{MinPasswordLength: c.min, CheckPassword: func(_ context.Context, password string) error {
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
			_, err := h.Register(t.Context(), newMember("ann@example.com"), c.password)
			check("Register", err)
			if err == nil {
				h.logsIn(t, "with the new password", "ann@example.com", c.password, nil)
				// Nothing is cut off or ignored: not an end, not what follows a NUL.
				last := c.password[:len(c.password)-1]
				h.logsIn(t, "without its last byte", "ann@example.com", last, account.ErrBadCredentials)
				h.logsIn(t, "with another last byte", "ann@example.com", last+"!", account.ErrBadCredentials)
			}

			bob, err := h.Create(t.Context(), newMember("bob@example.com"), "long enough for all")
			if err != nil {
				t.Fatalf("Create: %v", err)
			}
			h.change(t, bob.ID, func(m *member) { m.Active = true })
			_, err = h.ChangePassword(t.Context(), bob.ID, "long enough for all", c.password)
			check("ChangePassword", err)
			if c.want != nil {
				h.logsIn(t, "after the new password was refused", "bob@example.com", "long enough for all", nil)
			}
		})
	}
}

func TestABadAddressCannotBeRegistered(t *testing.T) {
	h := newHarness(t, account.Config{})
	for _, email := range []string{"", "ann", "Ann <ann@example.com>", "ann@example.com\x00"} {
		if got, err := h.Register(t.Context(), newMember(email), password); !errors.Is(err, account.ErrInvalidEmail) {
			t.Errorf("Register of %q: got %+v, %v, want ErrInvalidEmail", email, got, err)
		}
	}
}

// counted has parameters whose memory tells hashes from everything else.
var counted = account.Argon2{MemoryKiB: 8 << 10, Iterations: 1, Parallelism: 1}

// hashes returns how many argon2 hashes of these parameters a call computes.
// Each allocates its memory once, and the runtime keeps exact accounts: this
// counts the work itself, with no hook that it could bypass.
func hashes(call func()) int {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	call()
	runtime.ReadMemStats(&after)
	return int(math.Round(float64(after.TotalAlloc-before.TotalAlloc) / float64(counted.MemoryKiB<<10)))
}

// Whoever tries to log in must not learn who has an account: not from the
// answer, and not from the time that it takes.
func TestAllDenialsLookTheSame(t *testing.T) {
	h := newHarness(t, account.Config{Argon2: counted})
	h.register(t)
	for email, change := range map[string]func(*member){
		"inactive@example.com":     func(m *member) { m.Active = false },
		"passwordless@example.com": func(m *member) { m.HashedPassword = "" },
		"unusable@example.com":     func(m *member) { m.HashedPassword = "garbage" },
	} {
		m, err := h.Register(t.Context(), newMember(email), password)
		if err != nil {
			t.Fatalf("Register: %v", err)
		}
		h.change(t, m.ID, change)
	}
	long := strings.Repeat("x", 1025)
	for _, c := range []struct {
		name, email, password string
		hashes                int
		reason                event.Reason
	}{
		{"a wrong password", "ann@example.com", "wrong", 1, event.ReasonWrongPassword},
		{"an unknown address", "bob@example.com", password, 1, event.ReasonUnknownUser},
		{"no address", "not an address", password, 1, event.ReasonUnknownUser},
		{"an empty address", "", password, 1, event.ReasonUnknownUser},
		{"an inactive account, the right password", "inactive@example.com", password, 1, event.ReasonUserInactive},
		{"an inactive account, a wrong password", "inactive@example.com", "wrong", 1, event.ReasonWrongPassword},
		{"an account without a password", "passwordless@example.com", password, 1, event.ReasonUnusableHash},
		{"an account with a broken hash", "unusable@example.com", password, 1, event.ReasonUnusableHash},
		// No account has such passwords, so there is nothing to hide.
		{"an empty password", "ann@example.com", "", 0, event.ReasonWrongPassword},
		{"an empty password, unknown address", "bob@example.com", "", 0, event.ReasonWrongPassword},
		{"an empty password, none set", "passwordless@example.com", "", 0, event.ReasonWrongPassword},
		{"a password beyond the bound", "ann@example.com", long, 0, event.ReasonWrongPassword},
		{"a password beyond the bound, unknown address", "bob@example.com", long, 0, event.ReasonWrongPassword},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.take()
			var user member
			var err error
			if got := hashes(func() { user, err = h.Authenticate(t.Context(), c.email, c.password) }); got != c.hashes {
				t.Errorf("it took the work of %d hashes, want %d", got, c.hashes)
			}
			if !errors.Is(err, account.ErrBadCredentials) || err.Error() != "account: bad credentials" {
				t.Errorf("got the error %v, want the same for all, ErrBadCredentials", err)
			}
			if !reflect.DeepEqual(user, member{}) {
				t.Errorf("got the user %+v beside an error, want none", user)
			}
			if got := h.take(); len(got) != 1 || got[0].Reason != c.reason {
				t.Errorf("got the events %+v, want one with the reason %s", got, c.reason)
			}
		})
	}
	if got := hashes(func() { h.logsIn(t, "", "ann@example.com", password, nil) }); got != 1 {
		t.Errorf("a login took the work of %d hashes, want 1", got)
	}
}

// When nobody waits for the answer, a hash would be work for an attacker who
// hangs up. Known and unknown addresses must not differ in this either.
func TestACancelledContextDoesNotHash(t *testing.T) {
	h := newHarness(t, account.Config{Argon2: counted})
	ann := h.register(t)
	// A store that does not notice: the Manager must.
	good := h.store.Users
	h.store.byEmail = func(ctx context.Context, email string) (member, error) {
		return good.ByEmail(context.WithoutCancel(ctx), email)
	}
	h.store.byID = func(ctx context.Context, id uuid.UUID) (member, error) {
		return good.ByID(context.WithoutCancel(ctx), id)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range map[string]func() error{
		"Authenticate":                       func() error { _, err := h.Authenticate(gone, "ann@example.com", password); return err },
		"Authenticate with a wrong password": func() error { _, err := h.Authenticate(gone, "ann@example.com", "wrong"); return err },
		"Authenticate of nobody":             func() error { _, err := h.Authenticate(gone, "bob@example.com", password); return err },
		"Register":                           func() error { _, err := h.Register(gone, newMember("bob@example.com"), password); return err },
		"ChangePassword":                     func() error { _, err := h.ChangePassword(gone, ann.ID, password, "another password"); return err },
		"Reauthenticate":                     func() error { _, err := h.Reauthenticate(gone, ann, password); return err },
		"Reauthenticate, wrong password":     func() error { _, err := h.Reauthenticate(gone, ann, "wrong"); return err },
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

func TestAHugePasswordIsNotHashed(t *testing.T) {
	h := newHarness(t, account.Config{Argon2: counted})
	ann := h.register(t)
	huge := strings.Repeat("x", account.MaxPasswordBytes+1)
	for name, call := range map[string]func() error{
		"Authenticate":                   func() error { _, err := h.Authenticate(t.Context(), ann.Email, huge); return err },
		"Register":                       func() error { _, err := h.Register(t.Context(), newMember("bob@example.com"), huge); return err },
		"ChangePassword from a huge one": func() error { _, err := h.ChangePassword(t.Context(), ann.ID, huge, "another password"); return err },
		"Reauthenticate":                 func() error { _, err := h.Reauthenticate(t.Context(), ann, huge); return err },
	} {
		var err error
		if got := hashes(func() { err = call() }); got != 0 || err == nil {
			t.Errorf("%s: it took the work of %d hashes and returned %v, want 0 and an error", name, got, err)
		}
	}
}

func TestHashesOfFastAPIUsersAreReplacedAtLogin(t *testing.T) {
	for _, c := range []struct {
		name, password, hash string
		today                account.Argon2
		replaced             bool
	}{
		{"argon2id with other parameters", password, fastapiArgon2, cheap, true},
		{"argon2id with today's parameters", password, fastapiArgon2, account.Argon2{MemoryKiB: 65536, Iterations: 3, Parallelism: 4}, false},
		{"argon2id with a shorter salt", "password", phc(64, 1, 1, salt[:8], keyOf("password", salt[:8], 32)), cheap, true},
		{"argon2id with a shorter key", "password", phc(64, 1, 1, salt, keyOf("password", salt, 16)), cheap, true},
		{"bcrypt $2b$", password, fastapiBcrypt, cheap, true},
		{"bcrypt $2a$", "U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", cheap, true},
		{"bcrypt $2y$", "U*U", "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", cheap, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, account.Config{Argon2: c.today})
			ann := h.holding(t, c.hash)

			h.logsIn(t, "with a wrong password", ann.Email, c.password+"x", account.ErrBadCredentials)
			if got := h.hash(t, ann.ID); got != c.hash {
				t.Errorf("after a wrong password the store holds %q, want %q", got, c.hash)
			}
			h.take()

			user := h.logsIn(t, "with the right password", ann.Email, c.password, nil)
			got := h.hash(t, ann.ID)
			today := fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$", c.today.MemoryKiB, c.today.Iterations, c.today.Parallelism)
			if (got != c.hash) != c.replaced || !strings.HasPrefix(got, today) {
				t.Errorf("the store holds %q, want it replaced: %v, and today's parameters: %q", got, c.replaced, today)
			}
			if string(user.HashedPassword) != got {
				t.Errorf("the user carries %q, want what the store holds, %q", string(user.HashedPassword), got)
			}
			want := []event.Kind{event.LoginSucceeded}
			if c.replaced {
				want = []event.Kind{event.PasswordRehashed, event.LoginSucceeded}
			}
			if got := kinds(h.take()); !reflect.DeepEqual(got, want) {
				t.Errorf("events: got %v, want %v", got, want)
			}

			h.logsIn(t, "again", ann.Email, c.password, nil)
			h.logsIn(t, "with a wrong password, again", ann.Email, c.password+"x", account.ErrBadCredentials)
			if again := h.hash(t, ann.ID); again != got {
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

func TestAnInactiveAccountIsNotRehashed(t *testing.T) {
	h := newHarness(t, account.Config{})
	old := phc(64, 1, 1, salt, keyOf(password, salt, 16))
	ann := h.holding(t, old)
	h.change(t, ann.ID, func(m *member) { m.Active = false })
	h.logsIn(t, "while inactive", ann.Email, password, account.ErrBadCredentials)
	if got := h.hash(t, ann.ID); got != old {
		t.Errorf("the store holds %q, want %q untouched", got, old)
	}
}

// bcrypt looks at 72 bytes. What was typed behind them may be wrong, and must not
// become the password.
func TestALongPasswordThatBcryptKnowsInPartIsNotRehashed(t *testing.T) {
	long := strings.Repeat("x", 72)
	hash, err := bcrypt.GenerateFromPassword([]byte(long), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	h := newHarness(t, account.Config{})
	ann := h.holding(t, string(hash))
	h.logsIn(t, "with more than bcrypt reads", ann.Email, long+"typo", nil)
	if got := h.hash(t, ann.ID); got != string(hash) {
		t.Error("the hash was replaced")
	}
	h.logsIn(t, "with all that bcrypt reads", ann.Email, long, nil)
	if got := h.hash(t, ann.ID); got == string(hash) {
		t.Error("the hash was not replaced")
	}
}

// A login that is slow to rehash must not bring the old password back.
func TestARehashDoesNotUndoAPasswordChange(t *testing.T) {
	h := newHarness(t, account.Config{})
	ann := h.holding(t, phc(64, 1, 1, salt, keyOf(password, salt, 16)))
	const changed = "changed meanwhile"
	h.store.replacePassword = func(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, notBefore time.Time) error {
		h.store.replacePassword = h.store.Users.ReplacePassword
		if _, err := h.ChangePassword(ctx, id, password, changed); err != nil {
			t.Errorf("ChangePassword: %v", err)
		}
		h.take()
		return h.store.Users.ReplacePassword(ctx, id, old, new, notBefore)
	}
	h.logsIn(t, "while the password changes", ann.Email, password, nil)
	events := h.take()
	if len(events) != 1 || events[0].Kind != event.LoginSucceeded {
		t.Errorf("events: got %+v, want the login alone: nothing is outdated any more", events)
	}
	h.logsIn(t, "with the old password", ann.Email, password, account.ErrBadCredentials)
	h.logsIn(t, "with the new password", ann.Email, changed, nil)
}

func TestALoginGoesOnWhereTheRehashIsNotStored(t *testing.T) {
	h := newHarness(t, account.Config{})
	old := phc(64, 1, 1, salt, keyOf(password, salt, 16))
	ann := h.holding(t, old)
	down := errors.New("down")
	h.store.replacePassword = failingReplace(down)
	if got := h.logsIn(t, "while the store fails", ann.Email, password, nil); string(got.HashedPassword) != old {
		t.Errorf("the user carries %q, want what the store holds, %q", string(got.HashedPassword), old)
	}
	events := h.take()
	want := []event.Kind{event.PasswordRehashed, event.LoginSucceeded}
	if !reflect.DeepEqual(kinds(events), want) || !errors.Is(events[0].Err, down) || events[1].Err != nil {
		t.Errorf("events: got %+v, want %v, the first with the failure", events, want)
	}
}

func TestAHostileHashIsADenial(t *testing.T) {
	h := newHarness(t, account.Config{})
	ann := h.register(t)
	for name, hash := range hostileHashes {
		h.change(t, ann.ID, func(m *member) { m.HashedPassword = account.PasswordHash(hash) })
		h.take()
		h.logsIn(t, "with the hash: "+name, ann.Email, password, account.ErrBadCredentials)
		if got := h.take(); len(got) != 1 || got[0].Reason != event.ReasonUnusableHash || got[0].UserID != ann.ID {
			t.Errorf("%s: got the events %+v, want one of Ann's with the reason unusable_hash", name, got)
		}
		if _, err := h.ChangePassword(t.Context(), ann.ID, password, "another password"); !errors.Is(err, account.ErrBadCredentials) {
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
		// What is wrong with the new one is said only to whoever knows the current.
		{"the current is wrong, the new is weak", "wrong", "weak", nil, account.ErrBadCredentials},
		{"the account is inactive", password, changed, func(m *member) { m.Active = false }, account.ErrBadCredentials},
		{"the account has no password", "", changed, func(m *member) { m.HashedPassword = "" }, account.ErrBadCredentials},
		{"the hash is outdated", password, changed, func(m *member) {
			m.HashedPassword = account.PasswordHash(phc(64, 1, 1, salt, keyOf(password, salt, 16)))
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, account.Config{})
			ann := h.register(t)
			if c.change != nil {
				h.change(t, ann.ID, c.change)
			}
			before := h.hash(t, ann.ID)
			got, err := h.ChangePassword(t.Context(), ann.ID, c.current, c.next)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if c.want != nil {
				if got := h.hash(t, ann.ID); got != before {
					t.Errorf("the store holds %q, want %q untouched", got, before)
				}
				if at := h.stored(t, ann.ID).NotBefore; !at.IsZero() || !reflect.DeepEqual(got, member{}) {
					t.Errorf("got the user %+v and a not-before of %v beside an error, want none", got, at)
				}
				return
			}
			want := ann
			want.HashedPassword, want.NotBefore = account.PasswordHash(h.hash(t, ann.ID)), cutOff
			if stored := h.stored(t, ann.ID); !reflect.DeepEqual(got, want) || !reflect.DeepEqual(stored, want) {
				t.Errorf("got %+v\nstored %+v\nwant %+v", got, stored, want)
			}
			h.logsIn(t, "with the new password", ann.Email, c.next, nil)
			if c.next != c.current {
				h.logsIn(t, "with the old password", ann.Email, c.current, account.ErrBadCredentials)
			}
		})
	}
	h := newHarness(t, account.Config{})
	if _, err := h.ChangePassword(t.Context(), uuid.New(), password, changed); !errors.Is(err, account.ErrBadCredentials) {
		t.Errorf("without an account: got %v, want ErrBadCredentials", err)
	}
}

// Whatever clock wrote it, a change must end the tokens that were good before.
func TestAChangeOfPasswordMovesNotBeforeOn(t *testing.T) {
	for _, c := range []struct {
		name         string
		before, want time.Time
	}{
		{"there was none", time.Time{}, cutOff},
		{"it was long ago", cutOff.AddDate(-1, 0, 0), cutOff},
		{"it was a millisecond earlier", cutOff.Add(-time.Millisecond), cutOff},
		{"it was the same", cutOff, cutOff.Add(time.Millisecond)},
		{"a clock that is ahead wrote it", cutOff.Add(time.Hour), cutOff.Add(time.Hour + time.Millisecond)},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, account.Config{})
			ann := h.register(t)
			h.change(t, ann.ID, func(m *member) { m.NotBefore = c.before })
			got, err := h.ChangePassword(t.Context(), ann.ID, password, "a better password")
			if err != nil || !got.NotBefore.Equal(c.want) || !h.stored(t, ann.ID).NotBefore.Equal(c.want) {
				t.Errorf("got %v, stored %v, %v, want %v", got.NotBefore, h.stored(t, ann.ID).NotBefore, err, c.want)
			}
		})
	}
}

func TestALoginMovesNotBeforeNowhere(t *testing.T) {
	h := newHarness(t, account.Config{})
	ann := h.holding(t, phc(64, 1, 1, salt, keyOf(password, salt, 16)))
	h.logsIn(t, "with an outdated hash", ann.Email, password, nil)
	if got := h.stored(t, ann.ID); !got.NotBefore.IsZero() || got.HashedPassword == ann.HashedPassword {
		t.Errorf("after a rehash: got the not-before %v, rehashed: %v, want none, true", got.NotBefore, got.HashedPassword != ann.HashedPassword)
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
		{"an account without a password", password, func(m *member) { m.HashedPassword = "" }, event.ReasonUnusableHash},
		{"an account with another password by now", password, func(m *member) {
			m.HashedPassword = account.PasswordHash(phc(64, 1, 1, salt, keyOf("changed", salt, 32)))
		}, event.ReasonWrongPassword},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, account.Config{})
			session := h.register(t) // as the session's user was read
			h.change(t, session.ID, func(m *member) { m.Name = "Anna" })
			if c.change != nil {
				h.change(t, session.ID, c.change)
			}
			before := h.stored(t, session.ID)
			got, err := h.Reauthenticate(t.Context(), session, c.password)
			events := h.take()
			if c.want == "" {
				if !reflect.DeepEqual(got, before) || err != nil || len(events) != 1 || events[0].Kind != event.Reauthenticated {
					t.Errorf("got %+v, %v and the events %+v, want the account as it is now, %+v, and that it was", got, err, events, before)
				}
			} else {
				if !errors.Is(err, account.ErrBadCredentials) || err.Error() != "account: bad credentials" || !reflect.DeepEqual(got, member{}) {
					t.Errorf("got %+v, %v, want ErrBadCredentials alone", got, err)
				}
				if len(events) != 1 || events[0].Kind != event.LoginDenied || events[0].Reason != c.want || events[0].UserID != session.ID {
					t.Errorf("got the events %+v, want one login.denied of Ann's with the reason %s", events, c.want)
				}
			}
			if after := h.stored(t, session.ID); !reflect.DeepEqual(after, before) {
				t.Errorf("the store holds %+v, want %+v untouched", after, before)
			}
		})
	}

	h := newHarness(t, account.Config{})
	ann := h.register(t)
	if err := h.store.Delete(t.Context(), ann.ID); err != nil {
		t.Fatal(err)
	}
	got, err := h.Reauthenticate(t.Context(), ann, password)
	if !errors.Is(err, account.ErrBadCredentials) || !reflect.DeepEqual(got, member{}) {
		t.Errorf("of a deleted account: got %+v, %v, want ErrBadCredentials alone", got, err)
	}

	// An outdated hash is replaced here too.
	h = newHarness(t, account.Config{})
	ann = h.holding(t, phc(64, 1, 1, salt, keyOf(password, salt, 16)))
	got, err = h.Reauthenticate(t.Context(), ann, password)
	if stored := h.stored(t, ann.ID); err != nil || got.HashedPassword == ann.HashedPassword || !reflect.DeepEqual(got, stored) {
		t.Errorf("with an outdated hash: got %v, rehashed: %v, want what the store holds", err, got.HashedPassword != ann.HashedPassword)
	}
}

func TestChangesToAnAccountAreOneUpdate(t *testing.T) {
	yes, no := true, false
	for _, c := range []struct {
		name string
		do   func(*harness, context.Context, uuid.UUID) error
		want account.Change
	}{
		{"Deactivate", func(h *harness, ctx context.Context, id uuid.UUID) error { return h.Deactivate(ctx, id) }, account.Change{Active: &no, NotBefore: cutOff}},
		{"Activate", func(h *harness, ctx context.Context, id uuid.UUID) error { return h.Activate(ctx, id) }, account.Change{Active: &yes}},
		{"RevokeTokens", func(h *harness, ctx context.Context, id uuid.UUID) error { return h.RevokeTokens(ctx, id) }, account.Change{NotBefore: cutOff}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, account.Config{})
			ann := h.register(t)
			var changes []account.Change
			h.store.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				if id != ann.ID {
					t.Errorf("Apply: got the account %v, want %v", id, ann.ID)
				}
				changes = append(changes, change)
				return h.store.Users.Apply(ctx, id, change)
			}
			if err := c.do(h, t.Context(), ann.ID); err != nil {
				t.Fatalf("got %v, want nil", err)
			}
			if want := []account.Change{c.want}; !reflect.DeepEqual(changes, want) {
				t.Errorf("got the changes %+v, want %+v", changes, want)
			}

			h.store.apply = h.store.Users.Apply
			h.take()
			if err := c.do(h, t.Context(), uuid.New()); !errors.Is(err, account.ErrUserNotFound) {
				t.Errorf("without an account: got %v, want ErrUserNotFound", err)
			}
			if got := h.take(); len(got) != 0 {
				t.Errorf("without an account: got the events %+v, want none", got)
			}
		})
	}
}

func TestADeactivatedAccountLogsInOnlyAfterItIsActivated(t *testing.T) {
	h := newHarness(t, account.Config{})
	ann := h.register(t)
	if err := h.Deactivate(t.Context(), ann.ID); err != nil {
		t.Fatalf("Deactivate: %v", err)
	}
	h.logsIn(t, "while inactive", ann.Email, password, account.ErrBadCredentials)
	if err := h.Activate(t.Context(), ann.ID); err != nil {
		t.Fatalf("Activate: %v", err)
	}
	want := ann
	want.NotBefore = cutOff // stays: what was issued before remains invalid
	if got := h.logsIn(t, "when active again", ann.Email, password, nil); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestOfManyPasswordChangesAtOnceOneSucceeds(t *testing.T) {
	h := newHarness(t, account.Config{})
	ann := h.register(t)
	const n = 8
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			_, errs[i] = h.ChangePassword(t.Context(), ann.ID, password, fmt.Sprint("new password ", i))
		})
	}
	wg.Wait()
	winner, winners := 0, 0
	for i, err := range errs {
		switch {
		case err == nil:
			winner = i
			winners++
		// The late find the current password wrong already.
		case !errors.Is(err, account.ErrConflict) && !errors.Is(err, account.ErrBadCredentials):
			t.Errorf("change %d: got %v, want nil, ErrConflict or ErrBadCredentials", i, err)
		}
	}
	if winners != 1 {
		t.Fatalf("%d changes succeeded, want 1: %v", winners, errs)
	}
	h.logsIn(t, "with the winner's password", ann.Email, fmt.Sprint("new password ", winner), nil)
}

func TestALostPasswordChangeIsAConflict(t *testing.T) {
	h := newHarness(t, account.Config{})
	ann := h.register(t)
	h.store.replacePassword = func(ctx context.Context, id uuid.UUID, old, new account.PasswordHash, notBefore time.Time) error {
		h.change(t, id, func(m *member) { m.HashedPassword = "somebody else's" })
		return h.store.Users.ReplacePassword(ctx, id, old, new, notBefore)
	}
	if _, err := h.ChangePassword(t.Context(), ann.ID, password, "a better password"); !errors.Is(err, account.ErrConflict) {
		t.Errorf("got %v, want ErrConflict", err)
	}
	if got := h.hash(t, ann.ID); got != "somebody else's" {
		t.Errorf("the store holds %q, want what somebody else wrote", got)
	}
}

func TestAStoreFailureIsNoDenial(t *testing.T) {
	for _, cause := range []error{errors.New("down"), context.Canceled, context.DeadlineExceeded} {
		h := newHarness(t, account.Config{})
		ann := h.register(t)
		check := func(op string, err error) {
			t.Helper()
			if !errors.Is(err, cause) || errors.Is(err, account.ErrBadCredentials) {
				t.Errorf("%s with the failure %q: got %v, want it wrapped, and no ErrBadCredentials", op, cause, err)
			}
			events := h.take()
			if len(events) != 1 || events[0].Kind != event.StoreFailed || !errors.Is(events[0].Err, cause) {
				t.Errorf("%s with the failure %q: got the events %+v, want one store.failed with it", op, cause, events)
			}
		}
		h.store.replacePassword = failingReplace(cause)
		got, err := h.ChangePassword(t.Context(), ann.ID, password, "another password")
		check("ChangePassword, at its end", err)
		if !reflect.DeepEqual(got, member{}) {
			t.Errorf("ChangePassword: got the user %+v beside an error, want none", got)
		}
		h.store.breakDown(cause)
		_, err = h.Authenticate(t.Context(), ann.Email, password)
		check("Authenticate", err)
		_, err = h.Register(t.Context(), newMember("bob@example.com"), password)
		check("Register", err)
		_, err = h.ChangePassword(t.Context(), ann.ID, password, "another password")
		check("ChangePassword", err)
		_, err = h.Reauthenticate(t.Context(), ann, password)
		check("Reauthenticate", err)
		check("Deactivate", h.Deactivate(t.Context(), ann.ID))
		check("Activate", h.Activate(t.Context(), ann.ID))
		check("RevokeTokens", h.RevokeTokens(t.Context(), ann.ID))
	}
}

func TestConfigErrorsNameTheField(t *testing.T) {
	users := account.Store[member, uuid.UUID](memstore.NewUsers[member]())
	for _, c := range []struct {
		name  string
		store account.Store[member, uuid.UUID]
		cfg   account.Config
		want  string // part of the error; "" for none
	}{
		{"the zero Config is good", users, account.Config{}, ""},
		{"no store", nil, account.Config{}, "store"},
		{"a negative minimum", users, account.Config{MinPasswordLength: -1}, "Config.MinPasswordLength"},
		{"a minimum beyond 64", users, account.Config{MinPasswordLength: 65}, "Config.MinPasswordLength"},
		{"a minimum of 64", users, account.Config{MinPasswordLength: 64}, ""},
		{"weak hashing", users, account.Config{Argon2: cheap}, "Config.Argon2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := account.NewManager(c.store, uuid.New, c.cfg)
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

func TestEvents(t *testing.T) {
	h := newHarness(t, account.Config{})
	ctx := t.Context()
	const second, third = "the second password", "the third password"
	ann, err := h.Register(ctx, newMember("ann@example.com"), password)
	if err != nil {
		t.Fatalf("Register: %v", err)
	}
	_, _ = h.Register(ctx, newMember("ann@example.com"), password)
	_, _ = h.Register(ctx, newMember("not an address"), password)
	_, _ = h.Authenticate(ctx, "ann@example.com", password)
	_, _ = h.Authenticate(ctx, "ann@example.com", second)
	_, _ = h.Authenticate(ctx, "bob@example.com", second)
	_, _ = h.ChangePassword(ctx, ann.ID, second, third)
	_, _ = h.ChangePassword(ctx, ann.ID, password, "weak")
	_, _ = h.ChangePassword(ctx, ann.ID, password, second)
	old := account.PasswordHash(phc(64, 1, 1, salt, keyOf(second, salt, 16)))
	h.change(t, ann.ID, func(m *member) { m.HashedPassword = old })
	_, _ = h.Authenticate(ctx, "ann@example.com", second)
	h.change(t, ann.ID, func(m *member) { m.Active = false })
	_, _ = h.Authenticate(ctx, "ann@example.com", second)
	_, _ = h.Reauthenticate(ctx, ann, second)
	_ = h.Activate(ctx, ann.ID)
	_, _ = h.Reauthenticate(ctx, ann, second)
	_, _ = h.Reauthenticate(ctx, ann, password)
	_, _ = h.Reauthenticate(ctx, newMember("bob@example.com"), second)
	_ = h.RevokeTokens(ctx, ann.ID)
	_ = h.Deactivate(ctx, ann.ID)
	_ = h.Deactivate(ctx, uuid.New())
	_ = h.Activate(ctx, uuid.New())
	_ = h.RevokeTokens(ctx, uuid.New())
	down := errors.New("down")
	h.store.breakDown(down)
	_, _ = h.Authenticate(ctx, "ann@example.com", second)

	want := []event.Event{
		{Kind: event.AccountRegistered, UserID: ann.ID},
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
		{Kind: event.StoreFailed, Err: down},
	}
	got := h.take()
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
	for _, secret := range []string{password, second, third, "weak", "$argon2id$", string(ann.HashedPassword)} {
		if strings.Contains(shown.String(), secret) {
			t.Errorf("the events show %q:\n%s", secret, shown.String())
		}
	}
}

// What a login costs with the default parameters, whoever it is that tries.
func BenchmarkAuthenticate(b *testing.B) {
	m, err := account.NewManager(memstore.NewUsers[member](), uuid.New, account.Config{})
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
				_, _ = m.Authenticate(b.Context(), c.email, c.password)
			}
		})
	}
}

// What a stranger's form is bound to must not choose an ID, which can be that of
// an account that was deleted, or a NotBefore.
func TestRegisterLetsNobodyChooseTheirID(t *testing.T) {
	h := newHarness(t, account.Config{})
	stranger := newMember("eve@example.com")
	stranger.ID, stranger.NotBefore = uuid.New(), time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
	got, err := h.Register(t.Context(), stranger, password)
	if err != nil || got.ID == stranger.ID || got.ID == uuid.Nil || !got.NotBefore.IsZero() {
		t.Errorf("got the ID %v (sent %v) and a not-before of %v, %v; want a new ID and none", got.ID, stranger.ID, got.NotBefore, err)
	}
	created, err := h.Create(t.Context(), member{User: account.User[uuid.UUID]{ID: stranger.ID, Email: "import@example.com"}}, password)
	if err != nil || created.ID != stranger.ID {
		t.Errorf("Create: got the ID %v, %v, want the one given, %v", created.ID, err, stranger.ID)
	}
}

// Logins were dated by a clock that is ahead: they must go all the same.
func TestRevokingMovesNotBeforeOnWhateverClockWroteIt(t *testing.T) {
	ahead := cutOff.Add(time.Hour)
	for name, revoke := range map[string]func(*harness, uuid.UUID) error{
		"RevokeTokens": func(h *harness, id uuid.UUID) error { return h.RevokeTokens(t.Context(), id) },
		"Deactivate":   func(h *harness, id uuid.UUID) error { return h.Deactivate(t.Context(), id) },
	} {
		h := newHarness(t, account.Config{})
		ann := h.register(t)
		h.change(t, ann.ID, func(m *member) { m.NotBefore = ahead })
		if err := revoke(h, ann.ID); err != nil || !h.stored(t, ann.ID).NotBefore.After(ahead) {
			t.Errorf("%s: stored %v, %v, want later than %v", name, h.stored(t, ann.ID).NotBefore, err, ahead)
		}
	}
}
