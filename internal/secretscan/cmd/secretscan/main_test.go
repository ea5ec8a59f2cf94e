package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/latchkey-go/latchkey/internal/token"
)

func TestRun(t *testing.T) {
	secret, digest := token.Default.New()
	file := func(content string) string {
		name := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	clean, withToken, withDigest := file("all is well\n"), file("one\n"+secret+"\n"), file(digest+"\n")
	list := file("some password\n" + digest + "\n")

	for _, c := range []struct {
		name string
		args []string
		fail string // in the error; "" for none
		line string // in the output
	}{
		{"clean", []string{"-secrets", list, clean}, "", "looked for 2 secrets, and for tokens, in 12 bytes of 1 files"},
		{"a token", []string{clean, withToken}, "1 lines hold secrets", withToken + ":2: …redacted\n"},
		{"a digest", []string{"-secrets", list, clean, withDigest}, "1 lines hold secrets", withDigest + ":1: …redacted\n"},
		{"a digest that is not listed", []string{withDigest}, "", ""},
		{"no files", []string{"-secrets", list}, "no files", ""},
		{"an empty file", []string{clean, file("")}, "is empty", ""},
		{"an empty list", []string{"-secrets", file("\n"), clean}, "lists no secrets", ""},
		{"a short secret", []string{"-secrets", file("short\n"), clean}, "secret 1", ""},
		{"a file that is not there", []string{clean + ".not"}, "no such file", ""},
		{"a list that is not there", []string{"-secrets", clean + ".not", clean}, "no such file", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			err := run(c.args, &out)
			if (err == nil) != (c.fail == "") || err != nil && !strings.Contains(err.Error(), c.fail) {
				t.Errorf("got the error %v, want %q", err, c.fail)
			}
			if !strings.Contains(out.String(), c.line) {
				t.Errorf("the output has no %q", c.line)
			}
			if strings.Contains(out.String(), secret) || strings.Contains(out.String(), digest) {
				t.Error("the output holds the secret")
			}
		})
	}
}
