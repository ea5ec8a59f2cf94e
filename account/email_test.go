package account_test

import (
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/rangetable"

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
		{"non-ASCII is kept and lowered", "Älter@BÜCHER.example", "älter@xn--bcher-kva.example"},
		{"an internal name is accepted", "Ann@Mail_Host", "ann@mail_host"},
		{"an address literal is accepted", "ann@[127.0.0.1]", "ann@[127.0.0.1]"},
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

// Keyboards, browsers and mail programs spell one address in several ways.
func TestSpellingsOfAnAddressAreOneAccount(t *testing.T) {
	for want, spellings := range map[string][]string{
		"caf\u00e9@example.com":          {"caf\u00e9@example.com", "cafe\u0301@example.com", "CAF\u00c9@EXAMPLE.com", "CAFE\u0301@example.com"},
		"\u1ea1\u0301@example.com":       {"a\u0323\u0301@example.com", "a\u0301\u0323@example.com", "\u00e1\u0323@example.com", "A\u0301\u0323@example.com"},
		"ann@xn--bcher-kva.example":      {"ann@b\u00fccher.example", "ann@bu\u0308cher.example", "ann@B\u00dcCHER.EXAMPLE", "ann@xn--bcher-kva.example", "ann@XN--BCHER-KVA.example", "ann@b\u00fccher\u3002example"},
		"ann@example.com":                {"ann@\uff45\uff58ample.com", "ann@ex\uff41mple\uff0ecom"},
		"ann@xn--fa-hia.example":         {"ann@fa\u00df.example", "ann@FA\u00df.example"},
		"stra\u00dfe@example.com":        {"stra\u00dfe@example.com", "STRA\u1e9eE@example.com"},
		"\u03bf\u03b4\u03bf\u03c3@a.gr":  {"\u03bf\u03b4\u03bf\u03c2@a.gr", "\u039f\u0394\u039f\u03a3@a.gr"},
		"\u0130@example.com":             {"\u0130@example.com", "I\u0307@example.com"},
		"\uab70@example.com":             {"\u13a0@example.com", "\uab70@example.com"},
		"\u0e04\u0e33@xn--12c1a.example": {"\u0e04\u0e33@xn--12c1a.example"},
	} {
		for _, spelling := range spellings {
			if got, err := account.NormalizeEmail(spelling); got != want || err != nil {
				t.Errorf("NormalizeEmail(%+q): got %+q, %v, want %+q", spelling, got, err, want)
			}
		}
	}
	r := newRig(t, account.Config{})
	if _, err := r.Register(t.Context(), newMember("Caf\u00e9@b\u00fccher.example"), password); err != nil {
		t.Fatal(err)
	}
	r.authenticate(t, "spelled otherwise", "cafe\u0301@xn--bcher-kva.example", password, nil)
	if _, err := r.Register(t.Context(), newMember("CAFE\u0301@XN--bcher-kva.example"), password); !errors.Is(err, account.ErrEmailTaken) {
		t.Errorf("a second account for the address: got %v, want ErrEmailTaken", err)
	}
}

// An attacker who registers an address that looks like another, or that turns into it, must
// not get its account, or its mail.
func TestAddressesThatCannotBeToldApartAreRejected(t *testing.T) {
	for name, r := range map[string]rune{
		"a soft hyphen": 0xad, "a zero-width space": 0x200b, "a zero-width joiner": 0x200d, "a right-to-left override": 0x202e,
		"a bidirectional isolate": 0x2066, "a byte order mark": 0xfeff, "a word joiner": 0x2060, "a combining grapheme joiner": 0x34f,
		"a Hangul filler": 0x3164, "a half-width Hangul filler": 0xffa0, "a variation selector": 0xfe0f, "a tag": 0xe0061,
		"a blank Braille cell": 0x2800, "a no-break space": 0xa0, "an ideographic space": 0x3000, "a line separator": 0x2028, "a control": 0x85,
		"a Mongolian vowel separator": 0x180e, "a private character": 0xe000, "an unassigned character": 0x378, "a noncharacter": 0xffff,
	} {
		for _, email := range []string{"an" + string(r) + "n@example.com", "ann@exam" + string(r) + "ple.com"} {
			if got, err := account.NormalizeEmail(email); !errors.Is(err, account.ErrInvalidEmail) || got != "" {
				t.Errorf("%s: NormalizeEmail(%+q): got %+q, %v, want ErrInvalidEmail", name, email, got, err)
			}
		}
	}
	for name, local := range map[string]string{
		"the Kelvin sign": "\u212aim", "a full-width letter": "\uff41nn", "a full-width capital": "\uff21nn", "a full-width digit": "ann\uff11",
		"a long s": "\u017fam", "a ligature": "\ufb01n", "a mathematical letter": "\U0001d41ann", "a circled letter": "\u24d0nn",
		"a superscript": "ann\u00b2", "a Greek question mark": "ann\u037e", "a full-width @": "ann\uff20example.org",
	} {
		if got, err := account.NormalizeEmail(local + "@example.com"); !errors.Is(err, account.ErrInvalidEmail) || got != "" {
			t.Errorf("%s: NormalizeEmail(%+q): got %+q, %v, want ErrInvalidEmail", name, local, got, err)
		}
	}
	for _, domain := range []string{"xn--a.example", "xn--.example", "-\u00fc.example", "\u00fc..example", "\u00fc.example.", "\u0301a.example", "a\u05d0.example", "\u00fc_.example"} {
		if got, err := account.NormalizeEmail("ann@" + domain); !errors.Is(err, account.ErrInvalidEmail) || got != "" {
			t.Errorf("NormalizeEmail of the domain %+q: got %+q, %v, want ErrInvalidEmail", domain, got, err)
		}
	}
}

// Every letter, alone as the local part, is one account with its other cases.
func TestNoLetterBecomesASCII(t *testing.T) {
	fold := func(r rune) string {
		got, err := account.NormalizeEmail(string(r) + "@example.com")
		if err != nil {
			return ""
		}
		return strings.TrimSuffix(got, "@example.com")
	}
	for _, table := range []*unicode.RangeTable{unicode.Lu, unicode.Ll, unicode.Lt, unicode.Lm, unicode.Nl} {
		rangetable.Visit(table, func(r rune) {
			got := fold(r)
			if r < 0x80 || got == "" {
				return
			}
			if strings.ContainsFunc(got, func(r rune) bool { return r < 0x80 }) {
				t.Errorf("%U %q becomes %q, which has an ASCII letter", r, r, got)
			}
			for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
				if folded := fold(other); folded != "" && folded != got {
					t.Errorf("%U %q becomes %q, but its other case %q becomes %q", r, r, got, other, folded)
				}
			}
		})
	}
}

func FuzzNormalizeEmail(f *testing.F) {
	for _, s := range []string{
		"ann@example.com", " Ann@Example.COM\t", "Ann <ann@example.com>", `"a b"@example.com`, "a@[127.0.0.1]", "İ@K.example",
		"ann@example.com (Ann)", "=?utf-8?q?a?= <a@b>", "group: a@b;", "\u2003ann@example.com\u0085", "ǅ@ẞ.example", "", "\xff",
		"cafe\u0301@bu\u0308cher.example", "\u0345\u03b1@x", "\u1e9e\u0307@xn--bcher-kva.example", "I\u0323\u0307@x", "\u1fb3\u0301@x", "\u13a0@x",
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
		ascii := func(r rune) rune {
			if r < 0x80 {
				return r
			}
			return -1
		}
		if norm != strings.TrimSpace(norm) || strings.ContainsFunc(norm, func(r rune) bool { return 'A' <= r && r <= 'Z' }) {
			t.Errorf("NormalizeEmail(%q): got %q, want lower case without surrounding white space", email, norm)
		}
		at := strings.LastIndexByte(norm, '@')
		if domain := norm[at+1:]; strings.Map(ascii, domain) != domain {
			t.Errorf("NormalizeEmail(%q): got the domain %q, want ASCII", email, domain)
		}
		if len(norm) > 254 || !utf8.ValidString(norm) || !strings.Contains(norm, "@") || strings.ContainsAny(norm, "\r\n\x00") {
			t.Errorf("NormalizeEmail(%q): got %q, which is not an address", email, norm)
		}
		if padded, err := account.NormalizeEmail("\t" + norm + " "); padded != norm || err != nil {
			t.Errorf("NormalizeEmail(%q) with white space: got %q, %v, want %q", norm, padded, err, norm)
		}
	})
}
