// Package token makes and checks tokens:
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
package token

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

const (
	secretBytes    = 32 // from crypto/rand
	secretLength   = 43 // in base62 digits
	checksumLength = 6  // in base62 digits of a CRC-32

	// Digits is the number of characters after the prefix.
	Digits = secretLength + checksumLength
	// MaxPrefix is the length of the longest prefix.
	MaxPrefix = 24

	// The digits in the order of [big.Int.Text].
	base62 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// Format is the format of the tokens with a prefix. It is immutable and safe for concurrent
// use. No token is well-formed for the zero value.
type Format struct {
	prefix string
}

var (
	// Default is the format of access tokens with the default prefix.
	Default = Format{"lk_"}
	// OneTime is the format of one-time tokens, which are sent by e-mail.
	OneTime = Format{"lko_"}
	// Device is the format of device tokens.
	Device = Format{"lkd_"}
	// API is the format of API tokens with the default prefix.
	API = Format{"lkp_"}
)

// Prefix returns the prefix.
func (f Format) Prefix() string { return f.prefix }

// NewFormat returns the format with a prefix; "" means that of Default. A prefix has 2 to 24
// characters of a-z, 0-9 and _, begins with a letter and ends with _.
func NewFormat(prefix string) (Format, error) {
	switch {
	case prefix == "":
		return Default, nil
	case len(prefix) < 2 || len(prefix) > MaxPrefix:
		return Format{}, fmt.Errorf("prefix %q: want 2 to %d characters", prefix, MaxPrefix)
	case prefix[0] < 'a' || prefix[0] > 'z':
		return Format{}, fmt.Errorf("prefix %q: want a letter a-z first", prefix)
	case !strings.HasSuffix(prefix, "_"):
		return Format{}, fmt.Errorf("prefix %q: want _ at its end", prefix)
	case strings.Trim(prefix, "abcdefghijklmnopqrstuvwxyz0123456789_") != "":
		return Format{}, fmt.Errorf("prefix %q: want only a-z, 0-9 and _", prefix)
	}
	return Format{prefix}, nil
}

// New returns a new token with 256 bits of crypto/rand, and its digest.
func (f Format) New() (token, digest string) {
	var b [secretBytes]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand crashes the program instead
	digits := new(big.Int).SetBytes(b[:]).Text(62)
	body := f.prefix + strings.Repeat("0", secretLength-len(digits)) + digits
	sum := checksum(body)
	token = body + string(sum[:])
	return token, keyOf(token).Digest()
}

// Digest returns the digest that a store holds for a token: its SHA-256 in base64url without
// padding, 43 characters. ok is false if the token is not well-formed.
func (f Format) Digest(token string) (digest string, ok bool) {
	if !f.WellFormed(token) {
		return "", false
	}
	return keyOf(token).Digest(), true
}

// DigestOf returns the digest of a token of any format.
func DigestOf(token string) string { return Key(sha256.Sum256([]byte(token))).Digest() }

// Key is the SHA-256 of a token.
type Key [sha256.Size]byte

// Key returns the key of a string that has the prefix and the length of a token. It does not
// check the rest; see WellFormed.
func (f Format) Key(token string) (key Key, ok bool) {
	if !f.fits(token) {
		return Key{}, false
	}
	return keyOf(token), true
}

// Digest returns the digest of the token.
func (k Key) Digest() string {
	var text [(8*len(k) + 5) / 6]byte
	base64.RawURLEncoding.Encode(text[:], k[:])
	return string(text[:])
}

func (f Format) fits(token string) bool {
	return f.prefix != "" && len(token) == len(f.prefix)+Digits && strings.HasPrefix(token, f.prefix)
}

// WellFormed reports whether a string is a token of this format.
func (f Format) WellFormed(token string) bool {
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

// Redact returns "…redacted", after the prefix if the string is a token of any prefix. In a
// string of another kind, the characters before an underscore may be secret.
func Redact(token string) string {
	prefix := token[:max(0, len(token)-Digits)]
	if f, err := NewFormat(prefix); err != nil || !f.WellFormed(token) {
		prefix = ""
	}
	return prefix + "…redacted"
}

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
func keyOf(token string) Key {
	var in [MaxPrefix + Digits]byte
	return sha256.Sum256(in[:copy(in[:], token)])
}

// ValidScope reports whether a string is a scope: one or more printable ASCII characters
// other than space, double quote and backslash (RFC 6749 §3.3).
func ValidScope(scope string) bool {
	for i := range len(scope) {
		if c := scope[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return scope != ""
}
