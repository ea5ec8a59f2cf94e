package token_test

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"hash/crc32"
	"io"
	"math/big"
	"regexp"
	"strings"
	"testing"

	"github.com/latchkey-go/latchkey/internal/token"
)

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits = "0123456789"
)

func mustFormat(t testing.TB, prefix string) token.Format {
	t.Helper()
	f, err := token.NewFormat(prefix)
	if err != nil {
		t.Fatalf("NewFormat(%q): %v", prefix, err)
	}
	return f
}

// sha256Of returns the digest of a token, computed independently of the package.
func sha256Of(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// seal appends the checksum to the body of a token, in the slow and obvious way.
func seal(body string) string {
	sum := new(big.Int).SetUint64(uint64(crc32.ChecksumIEEE([]byte(body)))).Text(62)
	return body + strings.Repeat("0", 6-len(sum)) + sum
}

var shape = regexp.MustCompile(`^lk_[0-9A-Za-z]{49}$`)

// wellFormed reports, in the slow and obvious way, whether a string is a token of the default
// format.
func wellFormed(s string) bool { return shape.MatchString(s) && seal(s[:len(s)-6]) == s }

func TestNewTokensAreUniqueAndWellFormed(t *testing.T) {
	for _, prefix := range []string{"", "a_", "my_app_", strings.Repeat("x", 23) + "_"} {
		format := mustFormat(t, prefix)
		want := cmp.Or(prefix, "lk_")
		pattern := regexp.MustCompile(`\b` + want + `[0-9A-Za-z]{49}\b`) // for secret scanners; see the docs
		seen := make(map[string]bool)
		for range 1000 {
			token, digest := format.New()
			if len(token) != len(want)+49 || !strings.HasPrefix(token, want) {
				t.Fatalf("prefix %q: got the token %q, want %q and 49 characters", prefix, token, want)
			}
			if seal(token[:len(token)-6]) != token {
				t.Fatalf("prefix %q: the checksum of %q is not its CRC-32", prefix, token)
			}
			if digest != sha256Of(token) || len(digest) != 43 {
				t.Fatalf("prefix %q: got the digest %q of %q, want %q", prefix, digest, token, sha256Of(token))
			}
			if got, ok := format.Digest(token); got != digest || !ok {
				t.Fatalf("prefix %q: Digest(%q): got %q, %v, want %q, true", prefix, token, got, ok, digest)
			}
			for _, text := range []string{token, "token=" + token + "&x=1", `"` + token + `"`, "Bearer " + token + "\n"} {
				if got := pattern.FindString(text); got != token {
					t.Fatalf("prefix %q: the pattern found %q in %q, want %q", prefix, got, text, token)
				}
			}
			if seen[token] {
				t.Fatalf("prefix %q: got the token %q twice", prefix, token)
			}
			seen[token] = true
		}
	}
}

// The vectors were computed with Python (zlib.crc32, hashlib, plain integers). They pin the
// format: a change logs everybody out.
func TestFormatTestVectors(t *testing.T) {
	ascending := make([]byte, 32)
	for i := range ascending {
		ascending[i] = byte(i)
	}
	for _, c := range []struct {
		name, prefix  string
		random        []byte
		token, digest string
	}{
		{
			"zero is padded to the full length", "", make([]byte, 32),
			"lk_00000000000000000000000000000000000000000002Ejti4", "T5euof8EHcz9YY0iT-5Q_Cz9crTXYDvAFLNFDUOF37g",
		},
		{
			"the greatest number fits", "", bytes.Repeat([]byte{0xff}, 32),
			"lk_YHJSKWDa6oz1al1yMhwzwM8llg7hJNUca2J5RoW8xP10ERvb7", "5l4REZyKP3kCm_DY1UfiW82o4RdRMVr2W0z3_XardzE",
		},
		{
			"leading zeros are kept", "", ascending,
			"lk_003AuLtjc7TJLctqJ2Unu3mfAGcxg9lrkrCWgKbidLF45xArz", "Dn26vuJS7PdPwNeQUFzz4K-jLov_TjrQsThQLyqZbqc",
		},
		{
			"the prefix is part of checksum and digest", "my_app_", append(make([]byte, 31), 1),
			"my_app_00000000000000000000000000000000000000000012lTfn9", "yOjglwjpLy3Eq9ebTYlinI5B8jX8Nsxp6ZKeQpKqkPY",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer func(r io.Reader) { rand.Reader = r }(rand.Reader)
			rand.Reader = bytes.NewReader(c.random)
			got, digest := mustFormat(t, c.prefix).New()
			if got != c.token {
				t.Errorf("token: got %q, want %q", got, c.token)
			}
			if digest != c.digest {
				t.Errorf("digest: got %q, want %q", digest, c.digest)
			}
		})
	}
}

func TestDigestRejectsMalformedTokens(t *testing.T) {
	format := mustFormat(t, "")
	token, _ := format.New()
	other, _ := mustFormat(t, "ab_").New()
	body := token[:len(token)-6]

	for name, s := range map[string]string{
		"the empty string":                          "",
		"the prefix alone":                          "lk_",
		"no prefix":                                 token[3:],
		"the prefix in capitals":                    "LK_" + token[3:],
		"another prefix of equal length":            "lx_" + token[3:],
		"another prefix, with a valid checksum":     seal("lx_" + body[3:]),
		"a token of another format":                 other,
		"the prefix twice":                          "lk_" + token,
		"no digits, with a valid checksum":          seal("lk_"),
		"one digit too few, with a valid checksum":  seal(body[:len(body)-1]),
		"one digit too many, with a valid checksum": seal(body + "0"),
		"a NUL, with a valid checksum":              seal(body[:len(body)-1] + "\x00"),
		"a space, with a valid checksum":            seal(body[:len(body)-1] + " "),
		"an underscore, with a valid checksum":      seal(body[:len(body)-1] + "_"),
		"a hyphen, with a valid checksum":           seal(body[:len(body)-1] + "-"),
		"non-ASCII, with a valid checksum":          seal(body[:len(body)-2] + "é"),
		"invalid UTF-8, with a valid checksum":      seal(body[:len(body)-1] + "\xff"),
		"NULs":                                      strings.Repeat("\x00", len(token)),
		"a leading space":                           " " + token,
		"a trailing line feed":                      token + "\n",
		"quotes":                                    `"` + token + `"`,
		"two tokens":                                token + token,
		"the token with its case swapped":           strings.Map(swapCase, token),
		"a checksum beyond any CRC-32":              body + "zzzzzz",
		"10 MB":                                     strings.Repeat("a", 10<<20),
		"10 MB that begin with a token":             token + strings.Repeat("0", 10<<20),
		"10 MB with a valid checksum":               seal("lk_" + strings.Repeat("0", 10<<20)),
	} {
		if got, ok := format.Digest(s); ok || got != "" {
			t.Errorf("%s: got %q, %v, want \"\", false", name, got, ok)
		}
	}

	for i := range token {
		if got, ok := format.Digest(token[:i]); ok {
			t.Errorf("the token cut to %d characters: got %q, want none", i, got)
		}
		for _, c := range []byte(digits + lower + upper + "_-+/=. \x00\t\n\x7f\x80\xff") {
			if c == token[i] {
				continue
			}
			changed := token[:i] + string([]byte{c}) + token[i+1:]
			if got, ok := format.Digest(changed); ok {
				t.Errorf("character %d replaced by %q: got %q, want none", i, c, got)
			}
		}
	}
}

func swapCase(r rune) rune {
	switch {
	case 'a' <= r && r <= 'z':
		return r - 'a' + 'A'
	case 'A' <= r && r <= 'Z':
		return r - 'A' + 'a'
	}
	return r
}

func TestFormatsRejectTokensOfOtherPrefixes(t *testing.T) {
	// b_ and b_b_ overlap, ab_ and ac_ are equally long, and ab_ ends with b_.
	prefixes := []string{"", "b_", "b_b_", "ab_", "ac_"}
	for _, issuer := range prefixes {
		token, _ := mustFormat(t, issuer).New()
		for _, reader := range prefixes {
			if _, ok := mustFormat(t, reader).Digest(token); ok != (issuer == reader) {
				t.Errorf("prefix %q: a token with the prefix %q: got %v", reader, issuer, ok)
			}
		}
	}
}

func TestZeroFormatRejectsEverything(t *testing.T) {
	var format token.Format
	good, _ := mustFormat(t, "").New()
	own, _ := format.New()
	for _, s := range []string{"", good, own, seal(strings.Repeat("0", 43))} {
		if _, ok := format.Digest(s); ok {
			t.Errorf("Digest(%q): got true, want false", s)
		}
	}
}

func TestPrefixes(t *testing.T) {
	for _, c := range []struct {
		name, prefix string
		ok           bool
	}{
		{"the empty prefix means the default", "", true},
		{"two characters are enough", "a_", true},
		{"digits and underscores may follow", "a1_b2__", true},
		{"24 characters fit", strings.Repeat("a", 23) + "_", true},
		{"25 characters do not", strings.Repeat("a", 24) + "_", false},
		{"one character is too short", "_", false},
		{"a lone letter is too short", "a", false},
		{"the last character must be an underscore", "lk", false},
		{"the first character must not be an underscore", "_a_", false},
		{"the first character must not be a digit", "1a_", false},
		{"capitals are refused", "Lk_", false},
		{"capitals inside are refused", "lK_", false},
		{"hyphens are refused", "l-k_", false},
		{"spaces are refused", "l k_", false},
		{"non-ASCII is refused", "schlüssel_", false},
		{"regular expressions are refused", "a.*_", false},
		{"NUL is refused", "a\x00_", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := token.NewFormat(c.prefix)
			if got := err == nil; got != c.ok {
				t.Errorf("NewFormat(%q): got %v, want accepted: %v", c.prefix, err, c.ok)
			}
		})
	}
}

// Tokens come from unauthenticated clients.
func FuzzDigest(f *testing.F) {
	format := mustFormat(f, "")
	token, _ := format.New()
	for _, s := range []string{
		"", "lk_", token, token[:51], token + "0", "lk_" + token, strings.ToLower(token), token[:46] + "000000",
		"lk_00000000000000000000000000000000000000000002Ejti4", strings.Repeat("\x00", 52), "lk_" + strings.Repeat("é", 24) + "0",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		// Sealing the fuzzer's string gets it past the checksum.
		for _, s := range []string{s, seal(s), seal("lk_" + s)} {
			want := ""
			if wellFormed(s) {
				want = sha256Of(s)
			}
			digest, ok := format.Digest(s)
			if digest != want || ok != (want != "") || ok != format.WellFormed(s) {
				t.Errorf("Digest(%q): got %q, %v, want %q", s, digest, ok, want)
			}
			// Cached tokens are looked up by their key before their checksum is checked.
			if key, fits := format.Key(s); ok && (!fits || key.Digest() != want) {
				t.Errorf("Key(%q): got the digest %q, %v, want %q", s, key.Digest(), fits, want)
			}
		}
	})
}

func BenchmarkNew(b *testing.B) {
	format := mustFormat(b, "")
	b.ReportAllocs()
	for b.Loop() {
		format.New()
	}
}

func BenchmarkDigest(b *testing.B) {
	format := mustFormat(b, "")
	good, _ := format.New()
	for _, c := range []struct{ name, token string }{
		{"valid", good},
		{"bad checksum", good[:46] + "000000"},
		{"bad length", good[:51]},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = format.Digest(c.token)
			}
		})
	}
}

func TestRedactShowsThePrefixOfTokensOnly(t *testing.T) {
	own, _ := mustFormat(t, "my_app_").New()
	usual, _ := token.Default.New()
	for _, c := range []struct{ name, in, want string }{
		{"the default prefix", usual, "lk_…redacted"},
		{"a prefix of several words", own, "my_app_…redacted"},
		{"the empty string", "", "…redacted"},
		// In a token of another kind (a JWT, say), the characters before an underscore may
		// be secret.
		{"a token of another kind", "eyJhbGciOi.JIUzI1NiJ9.c2VjcmV0_x", "…redacted"},
		{"a token with a bad checksum", "secret_" + strings.Repeat("0", 49), "…redacted"},
	} {
		if got := token.Redact(c.in); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestScopes(t *testing.T) {
	for scope, want := range map[string]bool{
		"deploy:read": true, "!": true, "~": true, "": false, "a b": false, `a"b`: false, `a\b`: false, "a\x7f": false, "é": false,
	} {
		if got := token.ValidScope(scope); got != want {
			t.Errorf("ValidScope(%q): got %v, want %v", scope, got, want)
		}
	}
}
