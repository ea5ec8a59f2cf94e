package account

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"github.com/alexedwards/argon2id"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/scrypt"
)

// A stored hash determines the cost of its check. A hash outside these bounds is an attack
// or an accident. The most costly check takes a few seconds of one processor.
const (
	argon2MinKiB    = 8       // RFC 9106 §3.1
	maxMemoryPasses = 1 << 20 // of argon2, KiB times passes: 1 GiB once, 64 MiB 16 times
	maxBcryptCost   = 16
	maxScryptKiB    = 1 << 19 // memory times p: 512 MiB once, 64 MiB 8 times
	maxScryptFactor = 64      // of r and of p
	maxPBKDF2Rounds = 8_000_000

	minKeyBytes, maxKeyBytes = 16, 128

	// bcrypt ignores the rest of a longer password.
	bcryptBytes = 72
)

// stored is a stored hash that a password can be compared with.
type stored struct {
	compare func(password string) (bool, error)
	current bool // it is what hasher.hash makes
	partial bool // compare looks only at the first bcryptBytes of a password
}

// errUnknownScheme is what parse returns for a hash that Config.VerifyHash can know.
var errUnknownScheme = fmt.Errorf("%w: it has none of the known schemes (argon2id, argon2i, bcrypt, bcrypt_sha256, scrypt, PBKDF2)", ErrUnusableHash)

// parse returns how to compare a password with a hash. It returns an error wrapping
// ErrUnusableHash if the hash is malformed, costs too much or is of an unknown scheme.
func (h *hasher) parse(hash string) (stored, error) {
	if hash == "" {
		return stored{}, unusable("it is empty")
	}
	name, rest, ok := strings.Cut(strings.TrimPrefix(hash, "$"), "$")
	if hash[0] != '$' {
		name += "$" // Django's forms begin with the name
	}
	if !ok {
		name = ""
	}
	switch name {
	case "argon2id", "argon2i":
		return h.parseArgon2(hash)
	case "2a", "2b", "2y":
		return parseBcrypt(hash, nil)
	case "bcrypt-sha256":
		return parsePasslibBcrypt(rest)
	case "scrypt":
		return h.parseScrypt(rest)
	case "pbkdf2":
		return parsePBKDF2(rest, sha1.New)
	case "pbkdf2-sha256":
		return parsePBKDF2(rest, sha256.New)
	case "pbkdf2-sha512":
		return parsePBKDF2(rest, sha512.New)

	// Django's forms.
	case "argon2$":
		s, err := h.parseArgon2("$" + rest)
		s.current = false
		return s, err
	case "bcrypt$":
		return parseBcrypt(rest, nil)
	case "bcrypt_sha256$":
		return parseBcrypt(rest, func(password string) string {
			sum := sha256.Sum256([]byte(password))
			return hex.EncodeToString(sum[:])
		})
	case "scrypt$":
		return h.parseDjangoScrypt(rest)
	case "pbkdf2_sha1$":
		return parseDjangoPBKDF2(rest, sha1.New)
	case "pbkdf2_sha256$":
		return parseDjangoPBKDF2(rest, sha256.New)
	}
	return stored{}, errUnknownScheme
}

// unusable returns an error wrapping ErrUnusableHash. Its text must not show the hash.
func unusable(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnusableHash, fmt.Sprintf(format, args...))
}

// parseArgon2 parses the PHC string of argon2id or argon2i.
func (h *hasher) parseArgon2(hash string) (stored, error) {
	f := strings.SplitN(hash, "$", 7)
	bad := unusable("not of the form $argon2id$v=19$m=…,t=…,p=…$salt$key, or the same with argon2i")
	if len(f) != 6 || f[1] != "argon2id" && f[1] != "argon2i" || f[2] != "v=19" {
		return stored{}, bad
	}
	n, ok := parameters(f[3], "m=", "t=", "p=")
	salt, okSalt := decode(base64.RawStdEncoding, f[4])
	key, okKey := decode(base64.RawStdEncoding, f[5])
	if !ok || !okSalt || !okKey || n[2] > 255 {
		return stored{}, bad
	}
	p := argon2id.Params{
		Memory: n[0], Iterations: n[1], Parallelism: uint8(n[2]),
		SaltLength: uint32(len(salt)), KeyLength: uint32(len(key)),
	}
	// An empty key would match every password, and zero passes or lanes would panic.
	switch {
	case uint64(p.Memory) > h.maxKiB:
		return stored{}, unusable("argon2 with %d KiB of memory, more than Config.MaxConcurrentHashes times Config.Argon2.MemoryKiB, %d", p.Memory, h.maxKiB)
	case p.Memory < argon2MinKiB, p.Iterations < 1, p.Parallelism < 1:
		return stored{}, unusable("argon2 with %d KiB of memory, %d passes and %d lanes, want at least %d, 1 and 1", p.Memory, p.Iterations, p.Parallelism, argon2MinKiB)
	case memoryPasses(p) > maxMemoryPasses:
		return stored{}, unusable("argon2 with %d KiB of memory, %d passes and %d lanes, want at most %d KiB times passes", p.Memory, p.Iterations, p.Parallelism, maxMemoryPasses)
	case len(salt) < 8, len(salt) > 64:
		return stored{}, unusable("argon2 with a salt of %d bytes, want 8 to 64", len(salt))
	}
	derive, current := argon2.IDKey, p == h.params
	if f[1] == "argon2i" {
		derive, current = argon2.Key, false
	}
	s, err := derived(key, func(password string) ([]byte, error) {
		return derive([]byte(password), salt, p.Iterations, p.Memory, p.Parallelism, p.KeyLength), nil
	})
	s.current = current
	return s, err
}

// memoryPasses returns the cost of argon2, in KiB times passes. Argon2 takes at least 8 KiB
// for each lane.
func memoryPasses(p argon2id.Params) uint64 {
	return max(uint64(p.Memory), 8*uint64(p.Parallelism)) * uint64(p.Iterations)
}

// bcryptEncoding is the base64 of bcrypt.
var bcryptEncoding = base64.NewEncoding("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789").WithPadding(base64.NoPadding)

// parseBcrypt parses $2b$cost$, 22 characters of salt and 31 of the key. bcrypt gets what
// prepare makes of a password; nil means the password itself.
func parseBcrypt(hash string, prepare func(string) string) (stored, error) {
	if p := hash[:min(4, len(hash))]; p != "$2a$" && p != "$2b$" && p != "$2y$" {
		return stored{}, unusable("bcrypt of an unknown version")
	}
	cost, err := bcrypt.Cost([]byte(hash))
	switch {
	case err != nil || len(hash) != 60 || hash[4:6] != fmt.Sprintf("%02d", cost):
		return stored{}, unusable("bcrypt with a wrong cost, or not 60 characters long")
	case cost > maxBcryptCost:
		return stored{}, unusable("bcrypt of the cost %d, want at most %d", cost, maxBcryptCost)
	}
	_, badSalt := bcryptEncoding.DecodeString(hash[7:29])
	// A key with other bits in its last character would match no password.
	_, okKey := decode(bcryptEncoding, hash[29:])
	if badSalt != nil || !okKey || strings.ContainsAny(hash, "\r\n") {
		return stored{}, unusable("bcrypt with a character that does not belong there")
	}
	return stored{partial: prepare == nil, compare: func(password string) (bool, error) {
		if prepare != nil {
			password = prepare(password)
		}
		return compareBcrypt(password, hash)
	}}, nil
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

// parsePasslibBcrypt parses what follows $bcrypt-sha256$ in the two versions of passlib:
// "2b,12$salt$key" is bcrypt of the password's SHA-256, and "v=2,t=2b,r=12$salt$key" of its
// HMAC-SHA-256 with the salt, both in base64.
func parsePasslibBcrypt(rest string) (stored, error) {
	f := strings.SplitN(rest, "$", 4)
	bad := unusable("not of the form $bcrypt-sha256$v=2,t=2b,r=…$salt$key or $bcrypt-sha256$2b,…$salt$key")
	if len(f) != 3 || len(f[1]) != 22 || len(f[2]) != 31 {
		return stored{}, bad
	}
	digest := func(password string) []byte {
		mac := hmac.New(sha256.New, []byte(f[1]))
		mac.Write([]byte(password))
		return mac.Sum(nil)
	}
	version, cost, ok := strings.Cut(strings.TrimPrefix(f[0], "v=2,t="), ",r=")
	if !strings.HasPrefix(f[0], "v=2,t=") {
		version, cost, ok = strings.Cut(f[0], ",")
		digest = func(password string) []byte {
			sum := sha256.Sum256([]byte(password))
			return sum[:]
		}
	}
	n, okCost := number(cost)
	if !ok || !okCost || n > 99 || version != "2a" && version != "2b" {
		return stored{}, bad
	}
	return parseBcrypt(fmt.Sprintf("$%s$%02d$%s%s", version, n, f[1], f[2]), func(password string) string {
		return base64.StdEncoding.EncodeToString(digest(password))
	})
}

// parseScrypt parses what follows $scrypt$ in a PHC string: "ln=…,r=…,p=…$salt$key".
func (h *hasher) parseScrypt(rest string) (stored, error) {
	f := strings.SplitN(rest, "$", 4)
	bad := unusable("not of the form $scrypt$ln=…,r=…,p=…$salt$key")
	if len(f) != 3 {
		return stored{}, bad
	}
	n, ok := parameters(f[0], "ln=", "r=", "p=")
	salt, okSalt := decode(base64.RawStdEncoding, f[1])
	key, okKey := decode(base64.RawStdEncoding, f[2])
	if !ok || !okSalt || !okKey || n[0] > 31 {
		return stored{}, bad
	}
	return h.scrypt(1<<n[0], n[1], n[2], salt, key)
}

// parseDjangoScrypt parses what follows scrypt$ in Django's form: "N$salt$r$p$key".
func (h *hasher) parseDjangoScrypt(rest string) (stored, error) {
	f := strings.SplitN(rest, "$", 6)
	bad := unusable("not of the form scrypt$N$salt$r$p$key")
	if len(f) != 5 {
		return stored{}, bad
	}
	n, okN := number(f[0])
	r, okR := number(f[2])
	p, okP := number(f[3])
	key, okKey := decode(base64.StdEncoding, f[4])
	if !okN || !okR || !okP || !okKey {
		return stored{}, bad
	}
	return h.scrypt(uint64(n), r, p, []byte(f[1]), key)
}

func (h *hasher) scrypt(n uint64, r, p uint32, salt, key []byte) (stored, error) {
	if n < 2 || n&(n-1) != 0 || r < 1 || r > maxScryptFactor || p < 1 || p > maxScryptFactor {
		return stored{}, unusable("scrypt with N=%d, r=%d and p=%d, want a power of 2, and 1 to %d each", n, r, p, maxScryptFactor)
	}
	memory := n * uint64(r) / 8 // 128 bytes each
	switch {
	case memory > h.maxKiB:
		return stored{}, unusable("scrypt with %d KiB of memory, more than Config.MaxConcurrentHashes times Config.Argon2.MemoryKiB, %d", memory, h.maxKiB)
	case memory*uint64(p) > maxScryptKiB:
		return stored{}, unusable("scrypt with %d KiB of memory and p=%d, want at most %d KiB times p", memory, p, maxScryptKiB)
	}
	if err := checkSalt(salt); err != nil {
		return stored{}, err
	}
	return derived(key, withoutNUL(func(password string) ([]byte, error) {
		return scrypt.Key([]byte(password), salt, int(n), int(r), int(p), len(key))
	}))
}

// passlibEncoding is the base64 of passlib's PBKDF2.
var passlibEncoding = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789./").WithPadding(base64.NoPadding)

// parsePBKDF2 parses what follows the name of the scheme in passlib's form,
// "rounds$salt$key" with a base64 of its own, or in a PHC string, "i=rounds$salt$key" or
// "i=rounds,l=length$salt$key".
func parsePBKDF2(rest string, sum func() hash.Hash) (stored, error) {
	f := strings.SplitN(rest, "$", 4)
	bad := unusable("not of the form $pbkdf2-sha256$rounds$salt$key or $pbkdf2-sha256$i=rounds$salt$key")
	if len(f) != 3 {
		return stored{}, bad
	}
	encoding := passlibEncoding
	rounds, length, okLength := f[0], uint32(0), true
	if i, phc := strings.CutPrefix(f[0], "i="); phc {
		encoding = base64.RawStdEncoding
		var l string
		var given bool
		if rounds, l, given = strings.Cut(i, ",l="); given {
			length, okLength = number(l)
			okLength = okLength && length != 0
		}
	}
	n, ok := number(rounds)
	salt, okSalt := decode(encoding, f[1])
	key, okKey := decode(encoding, f[2])
	if !ok || !okLength || !okSalt || !okKey || length != 0 && int(length) != len(key) {
		return stored{}, bad
	}
	return pbkdf2Hash(n, salt, key, sum)
}

// parseDjangoPBKDF2 parses what follows the name of the scheme in Django's form:
// "rounds$salt$key".
func parseDjangoPBKDF2(rest string, sum func() hash.Hash) (stored, error) {
	f := strings.SplitN(rest, "$", 4)
	bad := unusable("not of the form pbkdf2_sha256$rounds$salt$key")
	if len(f) != 3 {
		return stored{}, bad
	}
	n, ok := number(f[0])
	key, okKey := decode(base64.StdEncoding, f[2])
	if !ok || !okKey {
		return stored{}, bad
	}
	return pbkdf2Hash(n, []byte(f[1]), key, sum)
}

func pbkdf2Hash(rounds uint32, salt, key []byte, sum func() hash.Hash) (stored, error) {
	size := sum().Size()
	blocks := uint64(len(key)+size-1) / uint64(size) // each takes all rounds
	if rounds < 1 || uint64(rounds)*blocks > maxPBKDF2Rounds {
		return stored{}, unusable("PBKDF2 of %d rounds for each of %d blocks, want 1 to %d together", rounds, blocks, maxPBKDF2Rounds)
	}
	if err := checkSalt(salt); err != nil {
		return stored{}, err
	}
	return derived(key, withoutNUL(func(password string) ([]byte, error) {
		return pbkdf2.Key(sum, password, salt, int(rounds), len(key))
	}))
}

// checkSalt checks the salt of PBKDF2, with which scrypt begins.
func checkSalt(salt []byte) error {
	if len(salt) < 1 || len(salt) > maxKeyBytes {
		return unusable("a salt of %d bytes, want 1 to %d", len(salt), maxKeyBytes)
	}
	return nil
}

// withoutNUL returns derive for schemes that use a password as the key of an HMAC. HMAC fills
// its key with NULs, so that "pw\x00" would match the hash of "pw".
func withoutNUL(derive func(password string) ([]byte, error)) func(password string) ([]byte, error) {
	return func(password string) ([]byte, error) {
		key, err := derive(password)
		if strings.HasSuffix(password, "\x00") {
			return nil, err
		}
		return key, err
	}
}

// derived returns a stored hash that compares key with what derive makes of a password.
func derived(key []byte, derive func(password string) ([]byte, error)) (stored, error) {
	if len(key) < minKeyBytes || len(key) > maxKeyBytes {
		return stored{}, unusable("a key of %d bytes, want %d to %d", len(key), minKeyBytes, maxKeyBytes)
	}
	return stored{compare: func(password string) (bool, error) {
		got, err := derive(password)
		if err != nil {
			return false, unusable("%v", err)
		}
		return subtle.ConstantTimeCompare(got, key) == 1, nil
	}}, nil
}

// parameters parses a list such as "m=64,t=1,p=1" with exactly these names.
func parameters(list string, names ...string) ([]uint32, bool) {
	parts := strings.SplitN(list, ",", len(names)+1)
	if len(parts) != len(names) {
		return nil, false
	}
	var values []uint32
	for i, part := range parts {
		digits, named := strings.CutPrefix(part, names[i])
		n, ok := number(digits)
		if !named || !ok {
			return nil, false
		}
		values = append(values, n)
	}
	return values, true
}

// number parses a decimal number without a sign or leading zeros.
func number(digits string) (uint32, bool) {
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint32(n), err == nil && strconv.FormatUint(n, 10) == digits
}

// decode is strict: no line breaks, and no other bits in the last character.
func decode(encoding *base64.Encoding, s string) ([]byte, bool) {
	b, err := encoding.Strict().DecodeString(s)
	return b, err == nil && !strings.ContainsAny(s, "\r\n")
}
