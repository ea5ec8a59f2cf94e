package main_test

import (
	"bufio"
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

// The program in the README compiles, because it is the program of this package.
func TestREADMEShowsThisProgram(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "```go\n"+string(program)+"```\n") {
		t.Error("README.md does not contain examples/minimal/main.go unchanged")
	}
	if n := strings.Count(string(program), "\n"); n > 45 {
		t.Errorf("the program has %d lines, want at most 45", n)
	}
}

func TestProgramRuns(t *testing.T) {
	db, err := devmongo.Start(devmongo.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	program := filepath.Join(t.TempDir(), "minimal")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	port := freePort(t)
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "MONGODB_URI="+db.URI(), "PORT="+port, "GIN_MODE=debug")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for lines := bufio.NewScanner(stdout); lines.Scan() && !strings.Contains(lines.Text(), "Listening and serving"); {
	}

	base := "http://127.0.0.1:" + port
	client := &http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get(base + "/me")
	for range 50 { // Gin prints that line just before it listens
		if err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
		resp, err = client.Get(base + "/me")
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("GET /me answered %d, want 401", resp.StatusCode)
	}
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
