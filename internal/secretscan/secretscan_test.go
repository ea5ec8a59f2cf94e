package secretscan_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/latchkey-go/latchkey/internal/secretscan"
	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/strategy"
)

// issue returns a new token and its digest.
func issue(t *testing.T, prefix string) (issued, digest string) {
	t.Helper()
	format, err := token.NewFormat(prefix)
	if err != nil {
		t.Fatal(err)
	}
	return format.New()
}

func newScanner(t *testing.T, secrets ...string) *secretscan.Scanner {
	t.Helper()
	s, err := secretscan.New(secrets)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const (
	password = `p"ss wörd&<>`
	hash     = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$aGFzaGhhc2hoYXNo"
)

func TestScan(t *testing.T) {
	token, digest := issue(t, "")
	own, ownDigest := issue(t, "my_app2_")
	longest, _ := issue(t, strings.Repeat("a", 23)+"_")
	inJSON, err := json.Marshal(password)
	if err != nil {
		t.Fatal(err)
	}
	broken := token[:len(token)-1] + "0"
	if broken == token {
		broken = token[:len(token)-1] + "1"
	}
	scanner := newScanner(t, digest, password, hash, own)

	for _, c := range []struct{ name, text, want string }{
		{"a token", "token " + token + " was issued", "token …redacted was issued"},
		{"a token alone", token, "…redacted"},
		{"a token of another prefix", "<" + own + ">", "<…redacted>"},
		{"a token of the longest prefix", longest, "…redacted"},
		{"a token behind a name", "session_token_is_" + token, "session_token_is_…redacted"},
		{"a token glued to words", "TOKEN" + token + "abc_1", "TOKEN…redactedabc_1"},
		{"two tokens", token + own + " " + token, "…redacted …redacted"},
		{"a cookie", "Set-Cookie: __Host-latchkey=" + token + "; Path=/", "Set-Cookie: __Host-latchkey=…redacted; Path=/"},
		{"a digest", "token: " + digest, "token: …redacted"},
		{"the digest of a token", "token: " + ownDigest, "token: …redacted"},
		{"a password", "password=" + password, "password=…redacted"},
		{"a password in JSON", fmt.Sprintf(`{"password":%s}`, inJSON), `{"password":"…redacted"}`},
		{"a password by %q", fmt.Sprintf("%q", password), `"…redacted"`},
		{"a password in a form", url.Values{"password": {password}}.Encode(), "password=…redacted"},
		{"a password in a path", "/" + url.PathEscape(password), "/…redacted"},
		{"a password hash", "user " + hash + ".", "user …redacted."},
		{"a password hash in a form", url.Values{"hash": {hash}}.Encode(), "hash=…redacted"},

		{"nothing", "", ""},
		{"a token with a wrong checksum", broken, ""},
		{"a token without its last digit", token[:len(token)-1], ""},
		{"a token without its prefix", token[len("lk_"):], ""},
		{"a prefix alone", "lk_", ""},
		{"a redacted token", fmt.Sprint(strategy.NewSecret(token)), ""},
		{"a digest of no secret", strings.Repeat("A", 43), ""},
		{"the tail of a digest", digest[1:], ""},
		{"a beginning of a hash", "$argon2id$v=19$m=64,t=1,p=1$", ""},
		{"random digits behind an underscore", "a_" + strings.Repeat("x", 49), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, err := scanner.Scan(strings.NewReader("first\n" + c.text + "\r\nlast"))
			if err != nil {
				t.Fatal(err)
			}
			var want []secretscan.Finding
			if c.want != "" {
				want = []secretscan.Finding{{Line: 2, Text: c.want}}
			}
			// Not what was found: that would be the leak.
			if !reflect.DeepEqual(found, want) {
				t.Errorf("found %d lines, want %d as %q", len(found), len(want), c.want)
			}
		})
	}
}

func TestTheLastLineAndLongOnes(t *testing.T) {
	token, _ := issue(t, "")
	filler := strings.Repeat("a_b ", 1<<18)
	found, err := newScanner(t).Scan(strings.NewReader(filler + token + filler + "\n\n" + token))
	if err != nil || len(found) != 2 || found[0].Line != 1 || found[1].Line != 3 || strings.Contains(found[0].Text, token) {
		t.Errorf("found %d lines, %v, want the first and the third, redacted", len(found), err)
	}
}

func TestATextThatCannotBeReadIsAnError(t *testing.T) {
	broken := errors.New("broken")
	if _, err := newScanner(t).Scan(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("got %v, want the error of the reader", err)
	}
}

func TestASecretThatIsTooShortToLookForIsAnError(t *testing.T) {
	if _, err := secretscan.New([]string{"long enough", "short"}); err == nil || !strings.Contains(err.Error(), "secret 2") || strings.Contains(err.Error(), "short") {
		t.Errorf("got %v, want an error with its number and without it", err)
	}
}

func TestRecordFromSeveralProcesses(t *testing.T) {
	const processes, each = 4, 200
	if process := os.Getenv("SECRETSCAN_TEST_PROCESS"); process != "" {
		for i := range each {
			secretscan.Record(fmt.Sprintf("secret %s %d a", process, i), fmt.Sprintf("secret %s %d b", process, i))
		}
		return
	}
	name := filepath.Join(t.TempDir(), "secrets")
	var wg sync.WaitGroup
	for process := range processes {
		wg.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run=^TestRecordFromSeveralProcesses$")
			cmd.Env = append(os.Environ(), secretscan.Variable+"="+name, fmt.Sprint("SECRETSCAN_TEST_PROCESS=", process))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	wg.Wait()
	t.Setenv(secretscan.Variable, name)
	secretscan.Record("", "secret 0 0 a") // nothing new
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	got, err := secretscan.ReadSecrets(file)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for process := range processes {
		for i := range each {
			want = append(want, fmt.Sprintf("secret %d %d a", process, i), fmt.Sprintf("secret %d %d b", process, i))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %d secrets, want the %d recorded", len(got), len(want))
	}
}

func TestRecordWithoutAFileDoesNothing(t *testing.T) {
	t.Setenv(secretscan.Variable, "")
	secretscan.Record("a secret")
}

func TestRecordPanicsWhereItFails(t *testing.T) {
	for name, c := range map[string]struct{ file, secret string }{
		"no such directory":       {filepath.Join(t.TempDir(), "no", "secrets"), "a secret"},
		"a secret of two lines":   {filepath.Join(t.TempDir(), "secrets"), "a\nsecret"},
		"a carriage return in it": {filepath.Join(t.TempDir(), "secrets"), "a\rsecret"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(secretscan.Variable, c.file)
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			secretscan.Record(c.secret)
		})
	}
}

func BenchmarkScan(b *testing.B) {
	var secrets []string
	for range 10_000 {
		text, digest := token.Default.New()
		secrets = append(secrets, text, digest)
	}
	scanner, err := secretscan.New(secrets)
	if err != nil {
		b.Fatal(err)
	}
	text := strings.Repeat("=== RUN   TestContract/bearer/login/a_session_token_of_a_user_who_is_gone\n", 10_000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if found, err := scanner.Scan(strings.NewReader(text)); err != nil || len(found) != 0 {
			b.Fatal(len(found), err)
		}
	}
}
