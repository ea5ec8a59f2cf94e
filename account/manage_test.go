package account_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/sameuser"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

func TestSetPassword(t *testing.T) {
	const set = "a better password"
	for _, c := range []struct {
		name   string
		change func(*member)
		next   string
		want   error
	}{
		{"an account with another password", nil, set, nil},
		{"the same password again", nil, password, nil},
		{"the first password of an account", func(m *member) { m.HashedPassword = account.PasswordHash{} }, set, nil},
		{"an account whose hash cannot be verified", func(m *member) { m.HashedPassword = account.NewPasswordHash("garbage") }, set, nil},
		{"an inactive account", func(m *member) { m.Active = false }, set, nil},
		{"a weak password", nil, "weak", account.ErrInvalidPassword},
		{"no password", nil, "", account.ErrInvalidPassword},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, account.Config{})
			ann := r.register(t)
			if c.change != nil {
				r.change(t, ann.ID, c.change)
			}
			before := r.stored(t, ann.ID)
			got, err := r.SetPassword(t.Context(), ann.ID, c.next)
			after := r.stored(t, ann.ID)
			if c.want != nil {
				if !errors.Is(err, c.want) || !sameuser.Equal(got, member{}) || !sameuser.Equal(after, before) {
					t.Errorf("got %+v, %v and stored %+v, want only %v", got, err, after, c.want)
				}
				return
			}
			want := before
			want.HashedPassword, want.Version = after.HashedPassword, 1
			if err != nil || !sameuser.Equal(got, want) || !sameuser.Equal(after, want) {
				t.Errorf("got %+v, %v\nstored %+v\nwant %+v", got, err, after, want)
			}
			if got := kinds(r.takeEvents()); !reflect.DeepEqual(got, []event.Kind{event.PasswordChanged}) {
				t.Errorf("got the events %v, want one change of the password", got)
			}
			r.change(t, ann.ID, func(m *member) { m.Active = true })
			r.authenticate(t, "with the new password", ann.Email, c.next, nil)
			if c.next != password {
				r.authenticate(t, "with the old password", ann.Email, password, account.ErrBadCredentials)
			}
		})
	}

	r := newRig(t, account.Config{Argon2: counted})
	var err error
	if n := hashes(func() { _, err = r.SetPassword(t.Context(), uuid.New(), set) }); n != 0 || !errors.Is(err, account.ErrUserNotFound) {
		t.Errorf("an unknown account: got %v after %d hashes, want ErrUserNotFound after none", err, n)
	}
	ann := r.register(t)
	r.store.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
		return errors.Join(r.store.Users.Delete(ctx, id), r.store.Users.Apply(ctx, id, change))
	}
	if got, err := r.SetPassword(t.Context(), ann.ID, set); !errors.Is(err, account.ErrUserNotFound) || !sameuser.Equal(got, member{}) {
		t.Errorf("an account that is deleted meanwhile: got %+v, %v, want only ErrUserNotFound", got, err)
	}
}

// An administrator's password wins over a change by the user that read the old one.
func TestSetPasswordMakesAChangeInFlightAConflict(t *testing.T) {
	r := newRig(t, account.Config{})
	ann := r.register(t)
	const set = "the administrator's"
	r.store.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
		r.store.apply = r.store.Users.Apply
		if _, err := r.SetPassword(ctx, id, set); err != nil {
			t.Errorf("SetPassword: %v", err)
		}
		return r.store.Users.Apply(ctx, id, change)
	}
	if _, err := r.ChangePassword(t.Context(), ann.ID, password, "the user's own"); !errors.Is(err, account.ErrConflict) {
		t.Errorf("ChangePassword: got %v, want ErrConflict", err)
	}
	r.authenticate(t, "with the administrator's password", ann.Email, set, nil)
}

func TestDeletionDuringAPasswordChangeIsAConflict(t *testing.T) {
	r := newRig(t, account.Config{})
	ann := r.register(t)
	r.store.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
		if err := r.Delete(ctx, id); err != nil {
			t.Errorf("Delete: %v", err)
		}
		return r.store.Users.Apply(ctx, id, change)
	}
	if _, err := r.ChangePassword(t.Context(), ann.ID, password, "a better password"); !errors.Is(err, account.ErrConflict) {
		t.Errorf("got %v, want ErrConflict", err)
	}
}

// A login that replaces an outdated hash while the account is deleted must neither bring it
// back nor report a failure of the store.
func TestRehashOfADeletedAccountIsNoFailure(t *testing.T) {
	r := newRig(t, account.Config{})
	ann := r.withHash(t, phc(64, 1, 1, salt, keyOf(password, salt, 16)))
	r.store.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
		return errors.Join(r.store.Users.Delete(ctx, id), r.store.Users.Apply(ctx, id, change))
	}
	r.authenticate(t, "while the account is deleted", ann.Email, password, nil)
	if got := kinds(r.takeEvents()); !reflect.DeepEqual(got, []event.Kind{event.LoginSucceeded}) {
		t.Errorf("got the events %v, want only the login", got)
	}
	if _, err := r.store.Users.ByID(t.Context(), ann.ID); !errors.Is(err, account.ErrUserNotFound) {
		t.Errorf("ByID: got %v, want ErrUserNotFound", err)
	}
}

func TestUpdateChangesOnlyTheFlagsGiven(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags account.Update
		want  func(*member)
	}{
		{"none", account.Update{}, func(*member) {}},
		{"verified", account.Update{Verified: new(true)}, func(m *member) { m.Verified = true }},
		{"superuser", account.Update{Superuser: new(true)}, func(m *member) { m.Superuser = true }},
		{"inactive", account.Update{Active: new(false)}, func(m *member) { m.Active, m.Version = false, m.Version+1 }},
		{"all", account.Update{Active: new(false), Verified: new(true), Superuser: new(true)},
			func(m *member) { m.Active, m.Verified, m.Superuser, m.Version = false, true, true, m.Version+1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, account.Config{})
			ann := r.register(t)
			r.change(t, ann.ID, func(m *member) { m.Version = 41 })
			want := r.stored(t, ann.ID)
			c.want(&want)
			if _, err := r.Update(t.Context(), ann.ID, c.flags); err != nil {
				t.Fatal(err)
			}
			if got := r.stored(t, ann.ID); !sameuser.Equal(got, want) {
				t.Errorf("stored %+v, want %+v", got, want)
			}
			reason := event.Reason("")
			if !want.Active {
				reason = event.ReasonUserInactive
			}
			if got := r.takeEvents(); len(got) != 1 || got[0].Kind != event.AccountChanged || got[0].Reason != reason || got[0].UserID != ann.ID {
				t.Errorf("got the events %+v, want one change with the reason %q", got, reason)
			}
		})
	}
}

func TestDeletedAccountIsGone(t *testing.T) {
	r := newRig(t, account.Config{})
	ann := r.register(t)
	bob, err := r.Register(t.Context(), newMember("bob@example.com"), password)
	if err != nil {
		t.Fatal(err)
	}
	r.takeEvents()
	if err := r.Delete(t.Context(), ann.ID); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	if got := r.takeEvents(); len(got) != 1 || got[0].Kind != event.AccountDeleted || got[0].UserID != ann.ID {
		t.Errorf("got the events %+v, want one account.deleted", got)
	}
	if _, err := r.store.Users.ByID(t.Context(), ann.ID); !errors.Is(err, account.ErrUserNotFound) {
		t.Errorf("ByID: got %v, want ErrUserNotFound", err)
	}
	r.authenticate(t, "on a deleted account", ann.Email, password, account.ErrBadCredentials)
	r.authenticate(t, "on another account", bob.Email, password, nil)
	r.takeEvents()
	if err := r.Delete(t.Context(), ann.ID); !errors.Is(err, account.ErrUserNotFound) {
		t.Errorf("Delete again: got %v, want ErrUserNotFound", err)
	}
	if got := r.takeEvents(); len(got) != 0 {
		t.Errorf("Delete again: got the events %+v, want none", got)
	}
	if again := r.register(t); again.ID == ann.ID {
		t.Error("an account with the freed address has the ID of the deleted one")
	}
}

// The sessions of a deleted account end, and so do those that an interrupted Delete left.
func TestDeleteRemovesTheSessions(t *testing.T) {
	ctx := t.Context()
	users, tokens := memstore.NewUsers[member](), memstore.NewTokens[uuid.UUID]()
	sessions, err := strategy.NewDatabase[member](tokens, users, strategy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	accounts, err := account.NewManager(users, nil, newAttempts(t), uuid.New, account.Config{Argon2: cheap, InsecureArgon2: true}, sessions)
	if err != nil {
		t.Fatal(err)
	}
	rows := func(id uuid.UUID) int {
		rows, err := tokens.ByUser(ctx, id, strategy.Position{}, 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(rows)
	}
	for name, c := range map[string]struct {
		before func(uuid.UUID) error // Delete is called
		want   error
	}{
		"a stored account":                          {func(uuid.UUID) error { return nil }, nil},
		"an account whose deletion was interrupted": {func(id uuid.UUID) error { return users.Delete(ctx, id) }, account.ErrUserNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			ann, err := accounts.Register(ctx, newMember("ann@example.com"), password)
			if err != nil {
				t.Fatal(err)
			}
			token, _, err := sessions.WriteToken(ctx, ann)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.before(ann.ID); err != nil {
				t.Fatal(err)
			}
			if n := rows(ann.ID); n != 1 {
				t.Fatalf("before Delete there are %d rows, want 1", n)
			}
			if err := accounts.Delete(ctx, ann.ID); !errors.Is(err, c.want) {
				t.Errorf("Delete: got %v, want %v", err, c.want)
			}
			if n := rows(ann.ID); n != 0 {
				t.Errorf("after Delete there are %d rows, want 0", n)
			}
			if _, err := sessions.ReadToken(ctx, token.Reveal()); !errors.Is(err, strategy.ErrInvalidToken) {
				t.Errorf("ReadToken: got %v, want ErrInvalidToken", err)
			}
		})
	}
}

func TestErrorsOfSessionsAreReturnedByDelete(t *testing.T) {
	down, broken := errors.New("down"), errors.New("broken")
	r := newRig(t, account.Config{}, sessionsFunc(func(context.Context, uuid.UUID, strategy.Revoked) error { return broken }))
	ann := r.register(t)
	if err := r.Delete(t.Context(), ann.ID); !errors.Is(err, broken) {
		t.Errorf("got %v, want the error of the sessions", err)
	}
	if err := r.Delete(t.Context(), ann.ID); !errors.Is(err, broken) || !errors.Is(err, account.ErrUserNotFound) {
		t.Errorf("a deleted account: got %v, want ErrUserNotFound and the error of the sessions", err)
	}
	r.store.failAll(down)
	if err := r.Delete(t.Context(), ann.ID); !errors.Is(err, broken) || !errors.Is(err, down) {
		t.Errorf("with a store that fails: got %v, want both errors", err)
	}
}

func TestOneOfConcurrentDeletesSucceeds(t *testing.T) {
	r := newRig(t, account.Config{})
	ann := r.register(t)
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = r.Delete(t.Context(), ann.ID) })
	}
	wg.Wait()
	winners := 0
	for _, err := range errs {
		if err == nil {
			winners++
		} else if !errors.Is(err, account.ErrUserNotFound) {
			t.Errorf("got %v, want nil or ErrUserNotFound", err)
		}
	}
	if got := r.takeEvents(); winners != 1 || len(got) != 1 {
		t.Errorf("%d deletes succeeded, and the events are %+v, want 1 of each", winners, got)
	}
}

// usableHashes are hashes of password, as other systems make them.
var usableHashes = map[string]string{
	"argon2-cffi's defaults": fastapiArgon2,
	"bcrypt, $2b$":           fastapiBcrypt,
	"bcrypt, $2a$":           strings.Replace(fastapiBcrypt, "$2b$", "$2a$", 1),
	"bcrypt, $2y$":           strings.Replace(fastapiBcrypt, "$2b$", "$2y$", 1),
	"a small argon2id hash":  phc(64, 1, 1, salt, key),
	"the shortest salt, key": phc(64, 1, 1, salt[:8], keyOf(password, salt[:8], 16)),
}

// Only a hash that a login can verify is accepted.
func TestImportHash(t *testing.T) {
	r := newRig(t, account.Config{Argon2: counted})
	for name, hash := range usableHashes {
		var got account.PasswordHash
		var err error
		if n := hashes(func() { got, err = r.ImportHash(hash) }); n != 0 || err != nil || got.Reveal() != hash {
			t.Errorf("%s: got the same hash: %v, %v, after %d hashes, want true, nil and none", name, got.Reveal() == hash, err, n)
		}
		if ok, _, err := account.Verify(password, hash); !ok || err != nil {
			t.Errorf("%s: a login gets %v, %v, want true", name, ok, err)
		}
	}
	refused := map[string]string{"plain text": "plain text!", "of the bcrypt variant of PHP before 5.3.7": strings.Replace(fastapiBcrypt, "$2b$", "$2x$", 1)}
	for name, hash := range hostileHashes {
		refused[name] = hash
	}
	for name, hash := range refused {
		got, err := r.ImportHash(hash)
		if !got.IsZero() || !errors.Is(err, account.ErrUnusableHash) {
			t.Errorf("%s: got a hash: %v, %v, want none and ErrUnusableHash", name, !got.IsZero(), err)
			continue
		}
		why := strings.TrimPrefix(err.Error(), "account: unusable password hash: ")
		if why == err.Error() || why == "" || len(hash) > 20 && strings.Contains(why, hash) {
			t.Errorf("%s: got the error %q, want one that says why and does not show the hash", name, err)
		}
		created, err := r.CreateWithHash(t.Context(), newMember("eve@example.com"), account.NewPasswordHash(hash))
		if hash != "" && (!errors.Is(err, account.ErrUnusableHash) || !sameuser.Equal(created, member{})) {
			t.Errorf("%s: CreateWithHash: got %+v, %v, want only ErrUnusableHash", name, created, err)
		}
	}
}

func TestHashPasswordMakesAHashThatCanBeImported(t *testing.T) {
	r := newRig(t, account.Config{})
	hash, err := r.HashPassword(t.Context(), password)
	if err != nil || !strings.HasPrefix(hash.Reveal(), cheapHash) {
		t.Fatalf("HashPassword: got a hash that begins with %.30q, %v, want the parameters %q", hash.Reveal(), err, cheapHash)
	}
	ann := newMember("ann@example.com")
	ann.Active = true
	if _, err := r.CreateWithHash(t.Context(), ann, hash); err != nil {
		t.Fatalf("CreateWithHash: %v", err)
	}
	r.authenticate(t, "with the password", ann.Email, password, nil)
	r.authenticate(t, "with another password", ann.Email, password+"x", account.ErrBadCredentials)
}

func TestImportedAccountsCanLogIn(t *testing.T) {
	for name, hash := range usableHashes {
		r := newRig(t, account.Config{})
		imported := newMember(" Ann@Example.com ")
		imported.ID, imported.Active, imported.Superuser, imported.Version = uuid.New(), true, true, 7
		got, err := r.CreateWithHash(t.Context(), imported, account.NewPasswordHash(hash))
		if err != nil {
			t.Errorf("%s: CreateWithHash: %v", name, err)
			continue
		}
		want := imported
		want.Email, want.HashedPassword, want.CreatedAt = "ann@example.com", account.NewPasswordHash(hash), got.CreatedAt
		if stored := r.stored(t, got.ID); !sameuser.Equal(got, want) || !sameuser.Equal(stored, want) {
			t.Errorf("%s: got %+v\nstored %+v\nwant %+v", name, got, stored, want)
		}
		r.authenticate(t, "with the imported hash: "+name, "ann@example.com", password, nil)
		_, err = r.CreateWithHash(t.Context(), newMember("ann@example.com"), account.NewPasswordHash(hash))
		if !errors.Is(err, account.ErrEmailTaken) {
			t.Errorf("%s: a taken address: got %v, want ErrEmailTaken", name, err)
		}
	}
}

// An account without a password is created in one call. A password login looks like one with a
// wrong password, in its error, its time and its event, whose reason is for the application.
func TestAccountWithoutAPassword(t *testing.T) {
	r := newLimitedRig(t, account.LimiterConfig{}).rig
	bob := newMember("bob@example.com")
	bob.Active = true
	var err error
	if n := hashes(func() { bob, err = r.CreateWithHash(t.Context(), bob, account.PasswordHash{}) }); n != 0 || err != nil {
		t.Fatalf("CreateWithHash: got %v after %d hashes, want nil and none", err, n)
	}
	if stored := r.stored(t, bob.ID); !stored.HashedPassword.IsZero() || !sameuser.Equal(stored, bob) {
		t.Errorf("stored %+v, want %+v without a password", stored, bob)
	}
	if _, err := r.Create(t.Context(), newMember("eve@example.com"), ""); !errors.Is(err, account.ErrInvalidPassword) {
		t.Errorf("Create with an empty password: got %v, want ErrInvalidPassword", err)
	}
	attempt := func(email string) (string, event.Event) {
		r.takeEvents()
		_, _, err := r.Authenticate(from(home), email, "a guess", "")
		events := r.takeEvents()
		if len(events) != 1 {
			t.Fatalf("%s: got the events %+v, want one", email, events)
		}
		return fmt.Sprint(err), events[0]
	}
	// The limiter counts both alike, too.
	for range 12 {
		known, wrong := attempt(annsAddress)
		none, without := attempt(bob.Email)
		if none != known {
			t.Errorf("got the error %q, want %q, as with a wrong password", none, known)
		}
		if wrong.Reason == event.ReasonWrongPassword {
			if without.Reason != event.ReasonNoPassword {
				t.Errorf("got the reason %s, want no_password", without.Reason)
			}
			without.Reason = wrong.Reason
		}
		if without.UserID != nil && without.UserID != bob.ID {
			t.Errorf("got an event of the user %v, want %v", without.UserID, bob.ID)
		}
		without.UserID = wrong.UserID
		if fmt.Sprintf("%+v", without) != fmt.Sprintf("%+v", wrong) {
			t.Errorf("got the event %+v, want %+v, as with a wrong password", without, wrong)
		}
	}
}

// What else belongs to an account is deleted after it, also if an earlier call stopped there.
func TestDeleteCallsOnDelete(t *testing.T) {
	r := newRig(t, account.Config{})
	ann := r.register(t)
	down := errors.New("down")
	var calls []uuid.UUID
	failure := down
	r.OnDelete(func(ctx context.Context, id uuid.UUID) error {
		if _, err := r.store.Users.ByID(ctx, id); !errors.Is(err, account.ErrUserNotFound) {
			t.Errorf("the account is there when the function is called: %v", err)
		}
		calls = append(calls, id)
		return failure
	})
	if err := r.Delete(t.Context(), ann.ID); !errors.Is(err, down) {
		t.Errorf("got %v, want the error of the function", err)
	}
	failure = nil
	if err := r.Delete(t.Context(), ann.ID); !errors.Is(err, account.ErrUserNotFound) || errors.Is(err, down) {
		t.Errorf("the second time: got %v, want ErrUserNotFound", err)
	}
	if want := []uuid.UUID{ann.ID, ann.ID}; !reflect.DeepEqual(calls, want) {
		t.Errorf("called for %v, want %v", calls, want)
	}
	r.store.failAll(down)
	if err := r.Delete(t.Context(), ann.ID); !errors.Is(err, down) || len(calls) != 2 {
		t.Errorf("with a store that fails: got %v and %d calls, want its error and no further call", err, len(calls))
	}
}

func TestByEmail(t *testing.T) {
	r := newRig(t, account.Config{})
	ann := r.register(t)
	if got, err := r.ByEmail(t.Context(), " ANN@example.com"); err != nil || !sameuser.Equal(got, r.stored(t, ann.ID)) {
		t.Errorf("in another spelling: got %+v, %v, want the account", got, err)
	}
	for email, want := range map[string]error{"bob@example.com": account.ErrUserNotFound, "ann": account.ErrInvalidEmail} {
		if got, err := r.ByEmail(t.Context(), email); !errors.Is(err, want) || !sameuser.Equal(got, member{}) {
			t.Errorf("%s: got %+v, %v, want only %v", email, got, err, want)
		}
	}
	if got := r.takeEvents(); len(got) != 0 {
		t.Errorf("got the events %+v, want none of the look-ups", got)
	}
	down := errors.New("down")
	r.store.failAll(down)
	if got, err := r.ByEmail(t.Context(), ann.Email); !errors.Is(err, down) || !sameuser.Equal(got, member{}) {
		t.Errorf("with a store that fails: got %+v, %v, want only its error", got, err)
	}
}

func TestNewIDIsThatOfTheApplication(t *testing.T) {
	r := newRig(t, account.Config{})
	if a, b := r.NewID(), r.NewID(); a == uuid.Nil || a == b {
		t.Errorf("got %v and %v, want two new IDs", a, b)
	}
	without, err := account.NewManager(memstore.NewUsers[member](), nil, nil, nil, account.Config{InsecureNoLimiter: true})
	if err != nil {
		t.Fatal(err)
	}
	if id := without.NewID(); id != uuid.Nil {
		t.Errorf("without newID: got %v, want the zero ID", id)
	}
}
