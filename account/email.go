package account

import (
	"fmt"
	"net/mail"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// maxEmail is the length of the longest valid address (RFC 5321 §4.5.3.1.3, without the
// angle brackets).
const maxEmail = 254

// NormalizeEmail returns an e-mail address as it is stored and looked up: without
// surrounding white space, the local part in Unicode NFC and with its case folded, and the
// domain in the ASCII form that DNS uses (IDNA). Addresses with the same normal form are
// one account. A non-ASCII letter never becomes an ASCII one in the local part: an address
// with "ß" or "İ" is another than one with "ss" or "i".
//
// It returns an error wrapping [ErrInvalidEmail] if email is not a bare address (an
// addr-spec, RFC 5322 §3.4.1), or has a character that cannot be seen or that looks like
// ASCII: a control, a zero-width or a full-width character, for example.
func NormalizeEmail(email string) (string, error) {
	if len(email) > 4*maxEmail || !utf8.ValidString(email) {
		return "", fmt.Errorf("%w: too long, or not UTF-8", ErrInvalidEmail)
	}
	email = strings.TrimSpace(email)
	at := strings.LastIndexByte(email, '@')
	if at < 0 {
		return "", ErrInvalidEmail
	}
	local, err := normalizeLocal(email[:at])
	if err != nil {
		return "", err
	}
	domain, err := normalizeDomain(email[at+1:])
	if err != nil {
		return "", err
	}
	email = local + "@" + domain
	if len(email) > maxEmail {
		return "", fmt.Errorf("%w: longer than %d bytes", ErrInvalidEmail, maxEmail)
	}
	// ParseAddress also accepts "Ann <ann@example.com>", so compare its result with the
	// input.
	addr, err := mail.ParseAddress(email)
	if err != nil || addr.Address != email {
		return "", ErrInvalidEmail
	}
	return email, nil
}

func normalizeLocal(local string) (string, error) {
	for _, r := range local {
		if !visible(r) || r >= utf8.RuneSelf && hasASCII(norm.NFKC.String(string(r))) {
			return "", fmt.Errorf("%w: %U is not allowed", ErrInvalidEmail, r)
		}
	}
	// Folding can undo the normal form, and normalising can make a letter that folds.
	for range 4 {
		folded := norm.NFC.String(foldCase(norm.NFC.String(local)))
		if folded == local {
			return local, nil
		}
		local = folded
	}
	return "", fmt.Errorf("%w: it has no normal form", ErrInvalidEmail)
}

// visible reports whether a character can be seen. Letters, marks and symbols can, except
// those that Unicode wants to be ignored (variation selectors, Hangul fillers), and a blank
// Braille cell. Controls, formats (bidirectional, zero-width, soft hyphen), spaces, private
// and unassigned characters cannot.
func visible(r rune) bool {
	return unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S) && r != '\u2800' &&
		!unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

func hasASCII(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < utf8.RuneSelf })
}

// foldCase folds the case of each character, unless that makes a non-ASCII character
// ASCII: it is then lower-cased, or stays as it is.
func foldCase(s string) string {
	fold := func(s string) string { return norm.NFC.String(cases.Fold().String(s)) }
	var b strings.Builder
	for _, r := range s {
		folded, lower := fold(string(r)), string(unicode.ToLower(r))
		if fold(folded) != folded { // cases.Fold swaps the cases of Cherokee
			folded = lower
		}
		switch {
		case r < utf8.RuneSelf || !hasASCII(folded):
			b.WriteString(folded)
		case !hasASCII(lower):
			b.WriteString(lower)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// normalizeDomain returns a domain in ASCII and lower case. It does not apply the rules of
// IDNA to a domain in plain ASCII, which can be an internal name.
func normalizeDomain(domain string) (string, error) {
	for _, r := range domain {
		if !visible(r) {
			return "", fmt.Errorf("%w: %U is not allowed", ErrInvalidEmail, r)
		}
	}
	if lower := strings.ToLower(domain); !hasNonASCII(domain) && !strings.Contains(lower, "xn--") {
		return lower, nil
	}
	ascii, err := idna.Lookup.ToASCII(domain)
	if err != nil {
		return "", fmt.Errorf("%w: the domain: %w", ErrInvalidEmail, err)
	}
	return ascii, nil
}

func hasNonASCII(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}
