package main_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/integration/devmongo"
)

// The program in docs/accounts.md compiles, because it is the program of this package. It is
// the README's program and at most 25 lines, beside the words of the mails.
func TestDocumentShowsThisProgram(t *testing.T) {
	read := func(name string) string {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	program := read("main.go")
	if !strings.Contains(read("../../docs/accounts.md"), "```go\n"+program+"```\n") {
		t.Error("docs/accounts.md does not contain examples/accounts/main.go unchanged")
	}
	counts := make(map[string]int)
	for line := range strings.Lines(read("../minimal/main.go")) {
		counts[line]++
	}
	before, rest, _ := strings.Cut(program, "// mails are the words")
	_, after, found := strings.Cut(rest, "\n}\n")
	if !found {
		t.Fatal("main.go has no words of the mails")
	}
	added := 0
	for line := range strings.Lines(before + after) {
		if counts[line]--; counts[line] < 0 && strings.TrimSpace(line) != "" {
			added++
		}
	}
	if added > 25 {
		t.Errorf("the program has %d lines more than the README's, want at most 25", added)
	}
	t.Logf("%d lines more than the README's program", added)
}

// From the sign-up to the login with a new password. The mails go to a sendmail that keeps them.
func TestProgramRuns(t *testing.T) {
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("there is no sh for a sendmail")
	}
	db, err := devmongo.Start(devmongo.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	dir := t.TempDir()
	program, mails := filepath.Join(dir, "accounts"), filepath.Join(dir, "mails")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// One write for each mail, and a line at its end.
	sendmail := "#!" + shell + "\nmail=$(cat)\nprintf '%s\\n--\\n' \"$mail\" >> '" + mails + "'\n"
	if err := os.WriteFile(filepath.Join(dir, "sendmail"), []byte(sendmail), 0o700); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "MONGODB_URI="+db.URI(), "PORT="+port, "GIN_MODE=debug", "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && !strings.Contains(lines.Text(), "Listening and serving") {
	}
	go func() { _, _ = io.Copy(io.Discard, stdout) }() // until the program ends

	client := &http.Client{Timeout: 10 * time.Second}
	post := func(route, contentType, body string, want int) {
		t.Helper()
		resp, err := client.Post("http://127.0.0.1:"+port+"/auth/"+route, contentType, strings.NewReader(body))
		for range 50 { // Gin prints that line just before it listens
			if err == nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
			resp, err = client.Post("http://127.0.0.1:"+port+"/auth/"+route, contentType, strings.NewReader(body))
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Fatalf("POST %s answered %d, want %d", route, resp.StatusCode, want)
		}
	}
	// mail waits for the n-th mail and returns what follows the # of its link.
	mail := func(n int, subject string) string {
		t.Helper()
		for range 500 {
			content, _ := os.ReadFile(mails)
			if all := strings.Split(string(content), "\n--\n"); len(all) > n {
				if got := all[n-1]; !strings.HasPrefix(got, "To: ann@example.com\nSubject: "+subject+"\n\n") {
					t.Fatalf("mail %d is not the one with the subject %q", n, subject)
				}
				if _, token, ok := strings.Cut(all[n-1], "#"); ok {
					return strings.TrimSpace(token)
				}
				return ""
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Fatalf("there is no mail %d", n)
		return ""
	}
	const json, form = "application/json", "application/x-www-form-urlencoded"
	post("register", json, `{"email":"ann@example.com","password":"correct horse battery","name":"Ann"}`, http.StatusCreated)
	post("request-verify-token", json, `{"email":"ann@example.com"}`, http.StatusAccepted)
	post("verify", json, `{"token":"`+mail(1, "Confirm your address")+`"}`, http.StatusOK)
	post("forgot-password", json, `{"email":"ann@example.com"}`, http.StatusAccepted)
	post("reset-password", json, `{"token":"`+mail(2, "Choose a new password")+`","password":"staple horse battery"}`, http.StatusOK)
	post("login", form, "username=ann@example.com&password=correct+horse+battery", http.StatusBadRequest)
	post("login", form, "username=ann@example.com&password=staple+horse+battery", http.StatusOK)
	mail(3, "Your password was changed")
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
