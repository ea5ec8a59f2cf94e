package account

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/alexedwards/argon2id"
	"golang.org/x/crypto/bcrypt"
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

	// A stored hash determines the cost of its check. A hash outside these bounds is an
	// attack or an accident.
	argon2MinKiB    = 8       // RFC 9106 §3.1
	maxMemoryPasses = 1 << 20 // KiB times passes: 1 GiB once, 64 MiB 16 times
	maxBcryptCost   = 16

	// bcrypt ignores the rest of a longer password.
	bcryptBytes = 72
)

// hasher hashes and verifies passwords.
type hasher struct {
	params argon2id.Params
	maxKiB uint64 // the most memory that a stored hash may ask for
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
	passes := memoryPasses(p.MemoryKiB, p.Iterations)
	if p.MemoryKiB < argon2MinKiB || passes > maxMemoryPasses {
		return nil, fmt.Errorf("account: Config.Argon2: %d KiB and %d passes, want at least %d KiB, and at most %d KiB times passes",
			p.MemoryKiB, p.Iterations, argon2MinKiB, maxMemoryPasses)
	}
	weak := p.MemoryKiB < minMemoryKiB || passes < minMemoryPasses
	if weak && !insecure {
		return nil, fmt.Errorf("account: Config.Argon2: %d KiB and %d passes are weaker than OWASP's minimum (7 MiB with 5 passes, 19 MiB with 2 …); Config.InsecureArgon2 allows that in tests",
			p.MemoryKiB, p.Iterations)
	}
	h := &hasher{params: argon2id.Params{
		Memory: p.MemoryKiB, Iterations: p.Iterations, Parallelism: p.Parallelism,
		SaltLength: saltBytes, KeyLength: keyBytes,
	}}
	h.allow(1)
	return h, nil
}

// memoryPasses returns the cost of a hash, in KiB times passes.
func memoryPasses(memoryKiB, iterations uint32) uint64 { return uint64(memoryKiB) * uint64(iterations) }

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
// returns an error wrapping ErrUnusableHash at once if the hash is malformed or too expensive.
func (h *hasher) verify(password string, hash PasswordHash) (ok, outdated bool, err error) {
	s := hash.Reveal()
	params, err := h.parse(s)
	if err != nil {
		return false, false, err
	}
	compare := compareBcrypt
	if isArgon2(s) {
		compare = compareArgon2
	}
	for i, form := range forms(password) {
		if ok, err = compare(form, s); err != nil {
			return false, false, err
		}
		switch {
		case !ok:
		case isArgon2(s):
			return true, i > 0 || params != h.params, nil
		default:
			// bcrypt compares only the beginning of a longer password. The rest can be
			// mistyped, so it must not become part of a new hash.
			return true, len(form) <= bcryptBytes, nil
		}
	}
	return false, false, nil
}

func compareArgon2(password, hash string) (bool, error) {
	ok, err := argon2id.ComparePasswordAndHash(password, hash)
	if err != nil {
		return false, unusable("argon2id")
	}
	return ok, nil
}

func compareBcrypt(password, hash string) (bool, error) {
	switch err := bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)); {
	case err == nil:
		// bcrypt repeats the password and a NUL to fill its key, so that "pw\x00pw"
		// matches the hash of "pw".
		return !strings.Contains(password, "\x00"), nil
	case errors.Is(err, bcrypt.ErrMismatchedHashAndPassword):
		return false, nil
	default:
		return false, unusable("bcrypt")
	}
}

// unusable returns an error wrapping ErrUnusableHash. Its text must not show the hash.
func unusable(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnusableHash, fmt.Sprintf(format, args...))
}

func isArgon2(hash string) bool { return strings.HasPrefix(hash, "$argon2id$") }

// parse returns the parameters of an argon2id hash, and the zero Params for a bcrypt hash. It
// returns an error wrapping ErrUnusableHash if passwords cannot be compared with the hash.
func (h *hasher) parse(hash string) (argon2id.Params, error) {
	switch {
	case hash == "":
		return argon2id.Params{}, unusable("it is empty")
	case isArgon2(hash):
		return h.parseArgon2(hash)
	case strings.HasPrefix(hash, "$2a$"), strings.HasPrefix(hash, "$2b$"), strings.HasPrefix(hash, "$2y$"):
		return argon2id.Params{}, checkBcrypt(hash)
	default:
		return argon2id.Params{}, unusable("it is neither argon2id nor bcrypt ($2a$, $2b$, $2y$)")
	}
}

func (h *hasher) parseArgon2(hash string) (none argon2id.Params, err error) {
	p, salt, key, err := argon2id.DecodeHash(hash)
	// The library ignores what follows a number, such as a parameter that it does not know.
	if err != nil || !strings.HasPrefix(hash, fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$", p.Memory, p.Iterations, p.Parallelism)) {
		return none, unusable("not of the form $argon2id$v=19$m=…,t=…,p=…$salt$key")
	}
	// Nor does it check the parameters: an empty key would match every password, and zero
	// passes or lanes would panic.
	switch {
	case uint64(p.Memory) > h.maxKiB:
		return none, unusable("argon2id with %d KiB of memory, more than Config.MaxConcurrentHashes times Config.Argon2.MemoryKiB, %d", p.Memory, h.maxKiB)
	case p.Memory < argon2MinKiB, p.Iterations < 1, p.Parallelism < 1:
		return none, unusable("argon2id with %d KiB of memory, %d passes and %d lanes, want at least %d, 1 and 1", p.Memory, p.Iterations, p.Parallelism, argon2MinKiB)
	case memoryPasses(p.Memory, p.Iterations) > maxMemoryPasses:
		return none, unusable("argon2id with %d KiB of memory and %d passes, want at most %d KiB times passes", p.Memory, p.Iterations, maxMemoryPasses)
	case len(salt) < 8, len(salt) > 64, len(key) < 16, len(key) > 128:
		return none, unusable("argon2id with a salt of %d bytes and a key of %d, want 8 to 64 and 16 to 128", len(salt), len(key))
	}
	return *p, nil
}

// bcryptEncoding is the base64 of bcrypt.
var bcryptEncoding = base64.NewEncoding("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789").WithPadding(base64.NoPadding)

// checkBcrypt returns an error wrapping ErrUnusableHash if a hash is not of the form
// $2b$cost$, 22 characters of salt and 31 of the key, or costs too much.
func checkBcrypt(hash string) error {
	cost, err := bcrypt.Cost([]byte(hash))
	switch {
	case err != nil || len(hash) != 60:
		return unusable("bcrypt with a wrong cost, or not 60 characters long")
	case cost > maxBcryptCost:
		return unusable("bcrypt of the cost %d, want at most %d", cost, maxBcryptCost)
	}
	_, badSalt := bcryptEncoding.DecodeString(hash[7:29])
	// A key with other bits in its last character would match no password.
	_, badKey := bcryptEncoding.Strict().DecodeString(hash[29:])
	if badSalt != nil || badKey != nil {
		return unusable("bcrypt with a character that does not belong there")
	}
	return nil
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
