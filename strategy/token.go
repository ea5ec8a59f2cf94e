package strategy

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"math/big"
	"strings"
	"unsafe"
)

// DefaultTokenPrefix is the default of [Config.TokenPrefix].
const DefaultTokenPrefix = "lk_"

const (
	secretBytes    = 32 // from crypto/rand
	secretLength   = 43 // in base62 digits
	checksumLength = 6  // in base62 digits of a CRC-32
	maxPrefix      = 24

	// The digits in the order of [big.Int.Text].
	base62 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// TokenFormat makes and checks tokens:
//
//	lk_ + 32 random bytes in base62 (43 characters) + CRC-32 of the preceding in base62 (6 characters)
//
// The digits are 0-9, a-z, A-Z in this order, most significant first, padded with 0. The
// prefix lets secret scanners find leaked tokens. The checksum distinguishes a token from a
// random string without a look-up. Only a string of the right prefix, length, alphabet and
// checksum is well-formed.
//
// Stores hold the SHA-256 digest of the whole token. A later format with other rules will
// have another shape, so that tokens of both stay valid.
//
// A TokenFormat is immutable and safe for concurrent use. Make one with [NewTokenFormat]; no
// token is well-formed for the zero value.
type TokenFormat struct {
	prefix string
}

// NewTokenFormat returns the format with a prefix; "" means [DefaultTokenPrefix]. A prefix
// has 2 to 24 characters of a-z, 0-9 and _, begins with a letter and ends with _.
func NewTokenFormat(prefix string) (TokenFormat, error) {
	if prefix == "" {
		prefix = DefaultTokenPrefix
	}
	switch {
	case len(prefix) < 2 || len(prefix) > maxPrefix:
		return TokenFormat{}, fmt.Errorf("prefix %q: want 2 to %d characters", prefix, maxPrefix)
	case prefix[0] < 'a' || prefix[0] > 'z':
		return TokenFormat{}, fmt.Errorf("prefix %q: want a letter a-z first", prefix)
	case !strings.HasSuffix(prefix, "_"):
		return TokenFormat{}, fmt.Errorf("prefix %q: want _ at its end", prefix)
	case strings.Trim(prefix, "abcdefghijklmnopqrstuvwxyz0123456789_") != "":
		return TokenFormat{}, fmt.Errorf("prefix %q: want only a-z, 0-9 and _", prefix)
	}
	return TokenFormat{prefix}, nil
}

// Pattern returns a regular expression (RE2, and most other dialects) that finds tokens of
// this format in text, for secret scanners.
func (f TokenFormat) Pattern() string {
	return fmt.Sprintf(`\b%s[0-9A-Za-z]{%d}\b`, f.prefix, secretLength+checksumLength)
}

// New returns a new token with 256 bits of crypto/rand, and its digest.
func (f TokenFormat) New() (secret Secret, digest string) {
	var b [secretBytes]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand crashes the program instead
	digits := new(big.Int).SetBytes(b[:]).Text(62)

	token := make([]byte, 0, len(f.prefix)+secretLength+checksumLength)
	token = append(token, f.prefix...)
	token = append(token, strings.Repeat("0", secretLength-len(digits))...)
	token = append(token, digits...)
	sum := checksum(string(token))
	token = append(token, sum[:]...)
	return NewSecret(string(token)), keyOf(string(token)).digest()
}

// Digest returns the digest that a store holds for a token: its SHA-256 in base64url without
// padding, 43 characters. It returns an error wrapping [ErrInvalidToken] if the token is not
// well-formed.
func (f TokenFormat) Digest(token string) (string, error) {
	key, err := f.key(token)
	if err != nil {
		return "", err
	}
	return key.digest(), nil
}

// tokenKey is the SHA-256 of a token.
type tokenKey [sha256.Size]byte

// key returns the key of a well-formed token.
func (f TokenFormat) key(token string) (tokenKey, error) {
	if !f.wellFormed(token) {
		return tokenKey{}, denyMalformed
	}
	return keyOf(token), nil
}

func (k tokenKey) digest() string {
	var text [(8*len(k) + 5) / 6]byte
	base64.RawURLEncoding.Encode(text[:], k[:])
	return string(text[:])
}

// fits reports whether a string has the prefix and the length of a token.
func (f TokenFormat) fits(token string) bool {
	return f.prefix != "" && len(token) == len(f.prefix)+secretLength+checksumLength && strings.HasPrefix(token, f.prefix)
}

func (f TokenFormat) wellFormed(token string) bool {
	if !f.fits(token) {
		return false
	}
	body := token[:len(token)-checksumLength]
	for i := len(f.prefix); i < len(body); i++ {
		c := body[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	sum := checksum(body)
	return token[len(body):] == string(sum[:])
}

// WellFormed reports, without I/O, whether a string has the format of the tokens.
func (d *Database[U, ID]) WellFormed(token string) bool { return d.format.wellFormed(token) }

// checksum is the CRC-32 (IEEE) of s in base62.
func checksum(s string) (sum [checksumLength]byte) {
	// Without unsafe, every request would allocate a copy. ChecksumIEEE only reads.
	crc := crc32.ChecksumIEEE(unsafe.Slice(unsafe.StringData(s), len(s)))
	for i := checksumLength - 1; i >= 0; i-- {
		sum[i] = base62[crc%62]
		crc /= 62
	}
	return sum
}

// keyOf copies the token to the stack, because converting it to a slice would allocate. A
// token that fits a format is no longer than in.
func keyOf(token string) tokenKey {
	var in [maxPrefix + secretLength + checksumLength]byte
	return sha256.Sum256(in[:copy(in[:], token)])
}
