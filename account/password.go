package account

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/alexedwards/argon2id"
	"golang.org/x/text/unicode/norm"
)

// MaxPasswordBytes is the maximum length of a password in bytes of UTF-8. It allows more
// than anybody types (ASVS 6.2.9 asks for 64 characters) and bounds the cost of a hostile
// login.
const MaxPasswordBytes = 1024

// Argon2 are the parameters of argon2id. A zero field has its default. The defaults are the
// second recommended option of RFC 9106 §4, which is also fastapi-users' default: 64 MiB,
// 3 passes, 4 lanes.
type Argon2 struct {
	MemoryKiB   uint32 // memory in KiB; default 65536
	Iterations  uint32 // passes over the memory; default 3
	Parallelism uint8  // lanes, each computed by a thread; default 4
}

const (
	saltBytes = 16
	keyBytes  = 32

	// defaultMemoryKiB is also what fastapi-users' hashes take.
	defaultMemoryKiB = 64 << 10

	// OWASP's Password Storage Cheat Sheet lists options of equal strength, from 7 MiB
	// with 5 passes to 46 MiB with 1. These bounds allow all of them.
	minMemoryKiB    = 7168
	minMemoryPasses = 7168 * 5
)

// hasher hashes and verifies passwords.
type hasher struct {
	params argon2id.Params
	maxKiB uint64                                                         // the most memory that a stored hash may ask for
	other  func(ctx context.Context, hash, password string) (bool, error) // Config.VerifyHash
}

// allow makes stored hashes usable that take as much memory as a number of new hashes, or
// as the default of one.
func (h *hasher) allow(hashes int) {
	h.maxKiB = max(uint64(hashes)*uint64(h.params.Memory), defaultMemoryKiB)
}

func newHasher(p Argon2, insecure bool) (*hasher, error) {
	if p.MemoryKiB == 0 {
		p.MemoryKiB = defaultMemoryKiB
	}
	if p.Iterations == 0 {
		p.Iterations = 3
	}
	if p.Parallelism == 0 {
		p.Parallelism = 4
	}
	params := argon2id.Params{
		Memory: p.MemoryKiB, Iterations: p.Iterations, Parallelism: p.Parallelism,
		SaltLength: saltBytes, KeyLength: keyBytes,
	}
	passes := memoryPasses(params)
	if p.MemoryKiB < argon2MinKiB || passes > maxMemoryPasses {
		return nil, fmt.Errorf("account: Config.Argon2: %d KiB and %d passes, want at least %d KiB, and at most %d KiB times passes",
			p.MemoryKiB, p.Iterations, argon2MinKiB, maxMemoryPasses)
	}
	weak := p.MemoryKiB < minMemoryKiB || passes < minMemoryPasses
	if weak && !insecure {
		return nil, fmt.Errorf("account: Config.Argon2: %d KiB and %d passes are weaker than OWASP's minimum (7 MiB with 5 passes, 19 MiB with 2 …); Config.InsecureArgon2 allows that in tests",
			p.MemoryKiB, p.Iterations)
	}
	h := &hasher{params: params}
	h.allow(1)
	return h, nil
}

// plausible reports whether an account can have this password. Rejecting impossible
// passwords at once reveals nothing.
func plausible(password string) bool { return password != "" && len(password) <= MaxPasswordBytes }

// canonical returns the form of a password that is hashed, Unicode NFC: keyboards differ
// in how they compose characters (NIST SP 800-63B-4 §3.1.1.2). A password that is too long
// is returned unchanged.
func canonical(password string) string {
	if len(password) > MaxPasswordBytes {
		return password
	}
	return norm.NFC.String(password)
}

func (h *hasher) hash(password string) (PasswordHash, error) {
	s, err := argon2id.CreateHash(canonical(password), &h.params)
	return NewPasswordHash(s), err
}

// pretend does the same work as verify with a wrong password.
func (h *hasher) pretend(password string) error {
	for range forms(password) {
		if _, err := h.hash(password); err != nil {
			return err
		}
	}
	return nil
}

// forms returns the forms of a password that a stored hash can be of: the canonical one,
// and the password as typed, which fastapi-users hashes.
func forms(password string) []string {
	if c := canonical(password); c != password {
		return []string{c, password}
	}
	return []string{password}
}

// verify reports whether a password matches a hash, and whether the hash is outdated. It
// returns an error wrapping ErrUnusableHash at once if the hash is malformed or too expensive,
// and the errors of Config.VerifyHash for a hash of an unknown scheme.
func (h *hasher) verify(ctx context.Context, password string, hash PasswordHash) (ok, outdated bool, err error) {
	s, err := h.parse(hash.Reveal())
	if h.other != nil && errors.Is(err, errUnknownScheme) {
		s, err = stored{compare: func(form string) (bool, error) { return h.other(ctx, hash.Reveal(), form) }}, nil
	}
	if err != nil {
		return false, false, err
	}
	for i, form := range forms(password) {
		ok, err := s.compare(form)
		switch {
		case err != nil:
			return false, false, err
		case !ok:
		case s.partial:
			// The rest of a longer password can be mistyped, so it must not become part of a
			// new hash.
			return true, len(form) <= bcryptBytes, nil
		default:
			return true, i > 0 || !s.current, nil
		}
	}
	return false, false, nil
}

// checkNewPassword applies the rules for new passwords.
func checkNewPassword(password string, minLength int) error {
	switch {
	case !utf8.ValidString(password):
		return fmt.Errorf("%w: not valid UTF-8", ErrInvalidPassword)
	case len(password) > MaxPasswordBytes:
		return fmt.Errorf("%w: %w: more than %d bytes", ErrInvalidPassword, ErrPasswordTooLong, MaxPasswordBytes)
	case utf8.RuneCountInString(password) < minLength:
		return fmt.Errorf("%w: %w: less than %d characters", ErrInvalidPassword, ErrPasswordTooShort, minLength)
	}
	return nil
}
