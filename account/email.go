package account

import (
	"fmt"
	"net/mail"
	"strings"
	"unicode/utf8"
)

// maxEmail is the longest address that mail can be sent to (RFC 5321 §4.5.3.1.3
// less the angle brackets).
const maxEmail = 254

// NormalizeEmail returns the form in which an address is stored and looked up:
// without blanks around it and in lower case. Two spellings that differ in
// nothing else are one account. It returns an error wrapping [ErrInvalidEmail]
// for what is not a bare address (RFC 5322 addr-spec).
func NormalizeEmail(email string) (string, error) {
	if len(email) > 4*maxEmail || !utf8.ValidString(email) {
		return "", fmt.Errorf("%w: too long, or not UTF-8", ErrInvalidEmail)
	}
	norm := strings.ToLower(strings.TrimSpace(email))
	if len(norm) > maxEmail {
		return "", fmt.Errorf("%w: longer than %d bytes", ErrInvalidEmail, maxEmail)
	}
	// ParseAddress takes more than an address ("Ann <ann@example.com>"): what it
	// found must be all there was.
	addr, err := mail.ParseAddress(norm)
	if err != nil || addr.Address != norm {
		return "", ErrInvalidEmail
	}
	return norm, nil
}
