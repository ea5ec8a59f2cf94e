package account

import (
	"fmt"
	"net/mail"
	"strings"
	"unicode/utf8"
)

// maxEmail is the length of the longest valid address (RFC 5321 §4.5.3.1.3, without the
// angle brackets).
const maxEmail = 254

// NormalizeEmail returns an e-mail address as it is stored and looked up: in lower case,
// and without surrounding white space. Addresses that differ only in these are one account.
// It returns an error wrapping [ErrInvalidEmail] if email is not a bare address (an
// addr-spec, RFC 5322 §3.4.1).
func NormalizeEmail(email string) (string, error) {
	if len(email) > 4*maxEmail || !utf8.ValidString(email) {
		return "", fmt.Errorf("%w: too long, or not UTF-8", ErrInvalidEmail)
	}
	norm := strings.ToLower(strings.TrimSpace(email))
	if len(norm) > maxEmail {
		return "", fmt.Errorf("%w: longer than %d bytes", ErrInvalidEmail, maxEmail)
	}
	// ParseAddress also accepts "Ann <ann@example.com>", so compare its result with the
	// input.
	addr, err := mail.ParseAddress(norm)
	if err != nil || addr.Address != norm {
		return "", ErrInvalidEmail
	}
	return norm, nil
}
