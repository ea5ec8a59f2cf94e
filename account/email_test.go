package account_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/latchkey-go/latchkey/account"
)

func TestNormalizeEmail(t *testing.T) {
	local, domain := strings.Repeat("a", 64), strings.Repeat("b", 60)
	longest := local + "@" + domain + "." + domain + "." + domain + ".abcdef" // 254 bytes
	for _, c := range []struct {
		name, email, want string // want "" for ErrInvalidEmail
	}{
		{"a plain address stays", "ann@example.com", "ann@example.com"},
		{"case is lowered, also in the local part", "Ann.B@Example.COM", "ann.b@example.com"},
		{"surrounding white space is cut", " \t\r\n ann@example.com \u00a0\u2003", "ann@example.com"},
		{"tags and dots are kept", "a.nn+news@example.com", "a.nn+news@example.com"},
		{"apostrophes are kept", "O'Neill@example.com", "o'neill@example.com"},
		{"non-ASCII is kept and lowered", "Älter@BÜCHER.example", "älter@bücher.example"},
		{"a host without a dot is accepted", "root@localhost", "root@localhost"},
		{"254 bytes fit", longest, longest},
		{"255 bytes do not", "a" + longest, ""},
		{"white space does not count", strings.Repeat(" ", 500) + "ann@example.com" + strings.Repeat(" ", 200), "ann@example.com"},
		{"a megabyte is rejected", strings.Repeat("a", 1<<20) + "@example.com", ""},
		{"a megabyte of spaces is rejected", strings.Repeat(" ", 1<<20) + "ann@example.com", ""},
		{"the empty string is rejected", "", ""},
		{"white space alone is rejected", " \t", ""},
		{"no @", "ann.example.com", ""},
		{"no local part", "@example.com", ""},
		{"no domain", "ann@", ""},
		{"two @", "ann@bob@example.com", ""},
		{"a display name", "Ann <ann@example.com>", ""},
		{"angle brackets", "<ann@example.com>", ""},
		{"a comment", "ann@example.com (Ann)", ""},
		{"a quoted local part", `"ann b"@example.com`, ""},
		{"a list", "ann@example.com, bob@example.com", ""},
		{"a space inside", "ann b@example.com", ""},
		{"a header smuggled in", "ann@example.com\r\nBcc: bob@example.com", ""},
		{"a NUL", "ann\x00@example.com", ""},
		{"invalid UTF-8", "ann\xff@example.com", ""},
		{"an operator", `{"$ne": null}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := account.NormalizeEmail(c.email)
			if got != c.want || (err == nil) != (c.want != "") {
				t.Errorf("NormalizeEmail(%.60q): got %q, %v, want %q", c.email, got, err, c.want)
			}
			if err != nil && !errors.Is(err, account.ErrInvalidEmail) {
				t.Errorf("NormalizeEmail(%.60q): got the error %v, want ErrInvalidEmail", c.email, err)
			}
		})
	}
}

func FuzzNormalizeEmail(f *testing.F) {
	for _, s := range []string{
		"ann@example.com", " Ann@Example.COM\t", "Ann <ann@example.com>", `"a b"@example.com`, "a@[127.0.0.1]", "İ@K.example",
		"ann@example.com (Ann)", "=?utf-8?q?a?= <a@b>", "group: a@b;", "\u2003ann@example.com\u0085", "ǅ@ẞ.example", "", "\xff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, email string) {
		norm, err := account.NormalizeEmail(email)
		if err != nil {
			if norm != "" || !errors.Is(err, account.ErrInvalidEmail) {
				t.Errorf("NormalizeEmail(%q): got %q, %v, want \"\", ErrInvalidEmail", email, norm, err)
			}
			return
		}
		if again, err := account.NormalizeEmail(norm); again != norm || err != nil {
			t.Errorf("NormalizeEmail(%q) twice: got %q, %v, want %q", email, again, err, norm)
		}
		if norm != strings.TrimSpace(norm) || norm != strings.ToLower(norm) {
			t.Errorf("NormalizeEmail(%q): got %q, want lower case without surrounding white space", email, norm)
		}
		if len(norm) > 254 || !utf8.ValidString(norm) || !strings.Contains(norm, "@") || strings.ContainsAny(norm, "\r\n\x00") {
			t.Errorf("NormalizeEmail(%q): got %q, which is not an address", email, norm)
		}
		if padded, err := account.NormalizeEmail("\t" + norm + " "); padded != norm || err != nil {
			t.Errorf("NormalizeEmail(%q) with white space: got %q, %v, want %q", norm, padded, err, norm)
		}
	})
}
