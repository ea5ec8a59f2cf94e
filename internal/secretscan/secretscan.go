// Package secretscan finds secrets in the output of programs and tests: every
// well-formed token of Latchkey, whatever its prefix, and every secret that a test
// has recorded with [Record].
package secretscan

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/latchkey-go/latchkey/internal/token"
)

// Variable is the environment variable with the name of the file that [Record]
// appends to.
const Variable = "LATCHKEY_TEST_SECRETS"

// Record appends secrets that a test issued (tokens, digests, passwords, password
// hashes) to the file that [Variable] names, one a line; it does nothing where
// that is not set. Several processes can do so at once. It panics where it fails:
// a secret that is not recorded is not looked for.
func Record(secrets ...string) {
	name := os.Getenv(Variable)
	if name == "" {
		return
	}
	var text strings.Builder
	for _, secret := range secrets {
		if strings.ContainsAny(secret, "\r\n") {
			panic("secretscan: a secret of several lines")
		}
		text.WriteString(secret + "\n")
	}
	file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		// In one write, which O_APPEND keeps together.
		_, err = file.WriteString(text.String())
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		panic("secretscan: " + err.Error())
	}
}

const (
	// tailLength is by how many of its last bytes a secret is looked up. The first
	// ones are alike in many.
	tailLength = 8
)

type tail [tailLength]byte

// Scanner finds secrets in text. Make one with [New]. It is safe for concurrent
// use.
type Scanner struct {
	byTail map[tail][]string
}

// New returns a Scanner of tokens and of secrets of at least 8 bytes, each also as
// it is written in a URL, in JSON and by %q. Of a token, its digest is a secret too.
func New(secrets []string) (*Scanner, error) {
	s := &Scanner{byTail: make(map[tail][]string)}
	for i, secret := range secrets {
		if len(secret) < tailLength {
			return nil, fmt.Errorf("secretscan: secret %d has %d bytes, want at least %d", i+1, len(secret), tailLength)
		}
		s.add(secret)
		if at := len(secret) - token.Digits - 1; at > 0 {
			if from, digest, ok := findToken(secret, at); ok && from == 0 {
				s.add(digest)
			}
		}
	}
	return s, nil
}

func (s *Scanner) add(secret string) {
	quoted := strconv.Quote(secret)
	inJSON, _ := json.Marshal(secret) // no error: it is a string
	for _, written := range []string{
		secret, url.QueryEscape(secret), url.PathEscape(secret), quoted[1 : len(quoted)-1], string(inJSON[1 : len(inJSON)-1]),
	} {
		at := tail([]byte(written[len(written)-tailLength:]))
		if !slices.Contains(s.byTail[at], written) {
			s.byTail[at] = append(s.byTail[at], written)
		}
	}
}

// ReadSecrets reads what [Record] wrote. Empty lines are left out.
func ReadSecrets(r io.Reader) ([]string, error) {
	secrets := make(map[string]bool)
	var order []string
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if secret := lines.Text(); secret != "" && !secrets[secret] {
			secrets[secret] = true
			order = append(order, secret)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("secretscan: read the secrets: %w", err)
	}
	return order, nil
}

// Finding is a line with a secret in it.
type Finding struct {
	// Line is its number, from 1.
	Line int
	// Text is the line with "…redacted" in the place of every secret.
	Text string
}

// Scan returns the lines of a text that hold secrets.
func (s *Scanner) Scan(r io.Reader) ([]Finding, error) {
	var found []Finding
	lines := bufio.NewReader(r)
	for n := 1; ; n++ {
		line, err := lines.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		if text, ok := s.redact(line); ok {
			found = append(found, Finding{n, text})
		}
		switch {
		case errors.Is(err, io.EOF):
			return found, nil
		case err != nil:
			return found, fmt.Errorf("secretscan: line %d: %w", n, err)
		}
	}
}

// redact returns a line without its secrets, and whether there were any.
func (s *Scanner) redact(line string) (string, bool) {
	secret := make([]bool, len(line)) // which bytes are of one
	found := false
	mark := func(from, to int) {
		found = true
		for i := from; i < to; i++ {
			secret[i] = true
		}
	}
	for end := tailLength; end <= len(line); end++ {
		for _, written := range s.byTail[tail([]byte(line[end-tailLength:end]))] {
			if strings.HasSuffix(line[:end], written) {
				mark(end-len(written), end)
			}
		}
	}
	for i := range len(line) {
		if from, _, ok := findToken(line, i); ok {
			mark(from, i+1+token.Digits)
		}
	}
	if !found {
		return line, false
	}
	var text strings.Builder
	for i := range len(line) {
		switch {
		case !secret[i]:
			text.WriteByte(line[i])
		case i == 0 || !secret[i-1]:
			text.WriteString("…redacted")
		}
	}
	return text.String(), true
}

// findToken reports whether there is a token whose prefix ends at i, where it begins,
// and its digest. What stands around it does not matter: it may be glued to another word.
func findToken(line string, i int) (from int, digest string, ok bool) {
	end := i + 1 + token.Digits
	if line[i] != '_' || end > len(line) || strings.ContainsFunc(line[i+1:end], notDigit) {
		return 0, "", false
	}
	for from := max(0, i+1-token.MaxPrefix); from < i; from++ {
		format, err := token.NewFormat(line[from : i+1])
		if err != nil {
			continue
		}
		if digest, ok := format.Digest(line[from:end]); ok {
			return from, digest, true
		}
	}
	return 0, "", false
}

func notDigit(r rune) bool {
	return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
}
