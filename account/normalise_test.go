package account_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
)

// The same password as different keyboards encode it, and others.
const (
	composed   = "\u00c5ngstr\u00f6m caf\u00e9"       // NFC
	decomposed = "A\u030angstro\u0308m cafe\u0301"    // NFD
	mixed      = "\u212bngstro\u0308m caf\u00e9"      // with the ångström sign, which NFC replaces by the letter
	unrelated  = "A\u030angstro\u0308m cafe\u0300"    // another accent
	plain      = "Angstrom cafe"                      // no accents
	compatible = "\u00c5ngstr\u00f6m caf\u00e9\u00b2" // a superscript 2 …
	squashed   = "\u00c5ngstr\u00f6m caf\u00e92"      // … is not the digit 2
)

func TestUnicodeFormsOfAPasswordAreEqual(t *testing.T) {
	typed := map[string]string{"composed": composed, "decomposed": decomposed, "mixed": mixed}
	for setAs, set := range typed {
		for how, choose := range map[string]func(*rig) error{
			"Register": func(r *rig) error {
				_, err := r.Register(t.Context(), newMember("bob@example.com"), set)
				return err
			},
			"ChangePassword": func(r *rig) error {
				bob, err := r.Register(t.Context(), newMember("bob@example.com"), "another password")
				if err == nil {
					_, err = r.ChangePassword(t.Context(), bob.ID, "another password", set)
				}
				return err
			},
		} {
			t.Run(how+" "+setAs, func(t *testing.T) {
				r := newRig(t, account.Config{})
				if err := choose(r); err != nil {
					t.Fatalf("%s: %v", how, err)
				}
				var hash account.PasswordHash
				for typedAs, p := range typed {
					r.takeEvents()
					bob := r.authenticate(t, "typed "+typedAs, "bob@example.com", p, nil)
					if hash.IsZero() {
						hash = bob.HashedPassword
					}
					if bob.HashedPassword.Reveal() != hash.Reveal() || !reflect.DeepEqual(kinds(r.takeEvents()), []event.Kind{event.LoginSucceeded}) {
						t.Errorf("typed %s: the hash was replaced", typedAs)
					}
					if _, err := r.Reauthenticate(t.Context(), bob, p); err != nil {
						t.Errorf("Reauthenticate, typed %s: %v", typedAs, err)
					}
				}
				for _, p := range []string{unrelated, plain, squashed, strings.ToUpper(composed), decomposed + "\u0301", ""} {
					r.authenticate(t, fmt.Sprintf("with %q", p), "bob@example.com", p, account.ErrBadCredentials)
				}
				bob := r.authenticate(t, "", "bob@example.com", composed, nil)
				if _, err := r.ChangePassword(t.Context(), bob.ID, decomposed, mixed); err != nil {
					t.Errorf("ChangePassword, typed decomposed: %v", err)
				}
			})
		}
	}
	r := newRig(t, account.Config{})
	if _, err := r.Register(t.Context(), newMember("bob@example.com"), compatible); err != nil {
		t.Fatalf("Register: %v", err)
	}
	r.authenticate(t, "with a digit for a superscript", "bob@example.com", squashed, account.ErrBadCredentials)
}

// fastapi-users does not normalise passwords before it hashes them.
func TestHashOfAPasswordAsTypedIsReplaced(t *testing.T) {
	bcrypted := func(p string) string {
		hash, err := bcrypt.GenerateFromPassword([]byte(p), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		return string(hash)
	}
	// A hash with the configured parameters, which is outdated only because of the form.
	current := func(p string) string { return phc(64, 1, 1, salt, keyOf(p, salt, 32)) }
	for name, hash := range map[string]func(string) string{
		"argon2id": func(p string) string { return phc(64, 1, 1, salt, keyOf(p, salt, 16)) },
		"argon2id with the configured parameters": current,
		"bcrypt": bcrypted,
	} {
		for typedAs, typed := range map[string]string{"decomposed": decomposed, "mixed": mixed} {
			t.Run(name+", "+typedAs, func(t *testing.T) {
				r := newRig(t, account.Config{})
				old := hash(typed)
				ann := r.withHash(t, old)
				for _, p := range []string{unrelated, typed + "x", plain, composed} {
					r.authenticate(t, fmt.Sprintf("with %+q", p), ann.Email, p, account.ErrBadCredentials)
				}
				if got := r.hash(t, ann.ID); got != old {
					t.Fatalf("after wrong passwords the store holds %q, want %q", got, old)
				}
				r.takeEvents()
				got := r.authenticate(t, "as typed", ann.Email, typed, nil)
				if want := []event.Kind{event.PasswordRehashed, event.LoginSucceeded}; !reflect.DeepEqual(kinds(r.takeEvents()), want) {
					t.Errorf("got other events, want %v", want)
				}
				fresh := r.hash(t, ann.ID)
				if fresh == old || !strings.HasPrefix(fresh, cheapHash) || got.HashedPassword.Reveal() != fresh {
					t.Errorf("the store holds %q and the user %q, want the same new hash with the configured parameters", fresh, got.HashedPassword.Reveal())
				}
				for _, p := range []string{composed, decomposed, mixed} {
					r.authenticate(t, fmt.Sprintf("afterwards with %+q", p), ann.Email, p, nil)
				}
				r.authenticate(t, "afterwards with another password", ann.Email, unrelated, account.ErrBadCredentials)
				if again := r.hash(t, ann.ID); again != fresh {
					t.Errorf("the hash was replaced again: %q, want %q", again, fresh)
				}
			})
		}
	}
	// A hash of the composed form is up to date.
	r := newRig(t, account.Config{})
	ann := r.withHash(t, current(composed))
	for _, p := range []string{composed, decomposed, mixed} {
		r.authenticate(t, fmt.Sprintf("with %+q", p), ann.Email, p, nil)
	}
	if got := r.hash(t, ann.ID); got != ann.HashedPassword.Reveal() {
		t.Errorf("the store holds %q, want %q unchanged", got, ann.HashedPassword.Reveal())
	}
	// Reauthenticate replaces the hash, as a login does.
	r = newRig(t, account.Config{})
	ann = r.withHash(t, current(decomposed))
	if got, err := r.Reauthenticate(t.Context(), ann, decomposed); err != nil || got.HashedPassword.Reveal() == ann.HashedPassword.Reveal() {
		t.Errorf("Reauthenticate: got %v, rehashed %v, want nil, true", err, got.HashedPassword.Reveal() != ann.HashedPassword.Reveal())
	}
}

// bcrypt compares only 72 bytes, in any form. The rest can be mistyped, so it must not become
// part of the new hash.
func TestLongDecomposedBcryptPasswordIsNotRehashed(t *testing.T) {
	long := strings.Repeat("e\u0301", 24) // 72 bytes, 48 when composed
	hash, err := bcrypt.GenerateFromPassword([]byte(long), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, account.Config{})
	ann := r.withHash(t, string(hash))
	r.authenticate(t, "with more than 72 bytes", ann.Email, long+"typo", nil)
	if got := r.hash(t, ann.ID); got != string(hash) {
		t.Error("the hash was replaced by one of the mistyped password")
	}
	r.authenticate(t, "with 72 bytes", ann.Email, long, nil)
	if got := r.hash(t, ann.ID); got == string(hash) {
		t.Error("the hash was not replaced")
	}
	r.authenticate(t, "afterwards, mistyped", ann.Email, long+"typo", account.ErrBadCredentials)
}

// A password that has two forms costs two hashes, whether or not the account exists.
func TestAllDenialsOfDecomposedPasswordsLookTheSame(t *testing.T) {
	r := newRig(t, account.Config{Argon2: counted})
	r.register(t)
	for email, change := range map[string]func(*member){
		"passwordless@example.com": func(m *member) { m.HashedPassword = account.PasswordHash{} },
		"unusable@example.com":     func(m *member) { m.HashedPassword = account.NewPasswordHash("garbage") },
		"inactive@example.com":     func(m *member) { m.Active = false },
	} {
		m, err := r.Register(t.Context(), newMember(email), password)
		if err != nil {
			t.Fatalf("Register: %v", err)
		}
		r.change(t, m.ID, change)
	}
	for typedAs, want := range map[string]int{composed: 1, plain: 1, decomposed: 2, mixed: 2} {
		for _, email := range []string{"ann@example.com", "bob@example.com", "not an address", "passwordless@example.com", "unusable@example.com", "inactive@example.com"} {
			if got := hashes(func() { r.authenticate(t, "", email, typedAs, account.ErrBadCredentials) }); got != want {
				t.Errorf("%s, %+q: it took the work of %d hashes, want %d", email, typedAs, got, want)
			}
		}
	}
}

func TestPasswordLengthIsThatOfTheComposedForm(t *testing.T) {
	for _, c := range []struct {
		name, password string
		want           error
	}{
		{"8 characters, typed as 16", strings.Repeat("e\u0301", 8), nil},
		{"7 characters, typed as 14", strings.Repeat("e\u0301", 7), account.ErrInvalidPassword},
		{"7 characters, typed as 7", strings.Repeat("\u00e9", 7), account.ErrInvalidPassword},
		{"1024 bytes, composed", strings.Repeat("\u00e9", 512), nil},
		{"1024 bytes, decomposed", strings.Repeat("e\u0301", 341) + "x", nil},
		{"1026 bytes, composed", strings.Repeat("\u00e9", 513), account.ErrInvalidPassword},
		// Its composed form has 686 bytes, but a login with the password as typed is
		// rejected.
		{"1029 bytes, decomposed", strings.Repeat("e\u0301", 343), account.ErrInvalidPassword},
		{"1025 bytes", strings.Repeat("x", 1025), account.ErrInvalidPassword},
		// NFC decomposes this letter.
		{"1023 bytes, 2046 when composed", strings.Repeat("\u0958", 341), account.ErrInvalidPassword},
		{"510 bytes, 1020 when composed", strings.Repeat("\u0958", 170), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, account.Config{})
			_, err := r.Register(t.Context(), newMember("bob@example.com"), c.password)
			if !errors.Is(err, c.want) {
				t.Errorf("Register: got %v, want %v", err, c.want)
			}
			ann := r.register(t)
			if _, err := r.ChangePassword(t.Context(), ann.ID, password, c.password); !errors.Is(err, c.want) {
				t.Errorf("ChangePassword: got %v, want %v", err, c.want)
			}
			if err == nil {
				r.authenticate(t, "as typed", "bob@example.com", c.password, nil)
				r.authenticate(t, "as typed", ann.Email, c.password, nil)
			}
		})
	}
}

func TestCheckPasswordGetsTheComposedForm(t *testing.T) {
	var seen []string
	r := newRig(t, account.Config{CheckPassword: func(_ context.Context, p string) error {
		seen = append(seen, p)
		return nil
	}})
	if _, err := r.Register(t.Context(), newMember("bob@example.com"), decomposed); err != nil {
		t.Fatalf("Register: %v", err)
	}
	if want := []string{composed}; !reflect.DeepEqual(seen, want) {
		t.Errorf("CheckPassword got %+q, want %+q", seen, want)
	}
}

// A too long password is rejected without a call of either store.
func TestTooLongPasswordIsRejectedAtOnce(t *testing.T) {
	for _, c := range []struct {
		name, password string
		rejected       bool
	}{
		{"1025 bytes", strings.Repeat("x", 1025), true},
		{"1025 bytes, decomposed", strings.Repeat("e\u0301", 341) + "xx", true},
		{"ten megabytes, decomposed", strings.Repeat("e\u0301", 10<<20/3), true},
		{"1024 bytes", strings.Repeat("x", 1024), false},
		{"1024 bytes, decomposed", strings.Repeat("e\u0301", 341) + "x", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newLimitedRig(t, account.LimiterConfig{})
			if !c.rejected {
				if _, err := r.Register(t.Context(), newMember("bob@example.com"), c.password); err != nil {
					t.Fatalf("Register: %v", err)
				}
				r.expect(t, "a login", home, "bob@example.com", c.password, in)
				return
			}
			called := errors.New("the store was called")
			r.store.failAll(called)
			r.expect(t, "a login", home, annsAddress, c.password, denied)
			if _, err := r.Reauthenticate(from(home), r.ann, c.password); outcome(err) != denied {
				t.Errorf("Reauthenticate: got %v, want ErrBadCredentials", err)
			}
			if _, err := r.ChangePassword(from(home), r.ann.ID, c.password, password); outcome(err) != denied {
				t.Errorf("ChangePassword: got %v, want ErrBadCredentials", err)
			}
			if _, err := r.Register(t.Context(), newMember("bob@example.com"), c.password); !errors.Is(err, account.ErrInvalidPassword) {
				t.Errorf("Register: got %v, want ErrInvalidPassword", err)
			}
			if calls := r.attempts.since(nil); len(calls) != 0 {
				t.Errorf("the store of attempts got %v, want nothing", calls)
			}
		})
	}
}

// Normalisation keeps the bytes of an old password that is not valid UTF-8. New passwords
// must be valid.
func TestInvalidUTF8InAPasswordIsKept(t *testing.T) {
	const odd = "passw\xffrd e\u0301"
	r := newRig(t, account.Config{})
	ann := r.withHash(t, phc(64, 1, 1, salt, keyOf(odd, salt, 32)))
	r.authenticate(t, "with other bytes", ann.Email, strings.ReplaceAll(odd, "\xff", "\ufffd"), account.ErrBadCredentials)
	r.authenticate(t, "as typed", ann.Email, odd, nil)
	r.authenticate(t, "again", ann.Email, odd, nil)
}
