package integration_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/internal/secretscan"
	"github.com/latchkey-go/latchkey/mongostore"
)

// appProcess is an application in another process.
type appProcess struct {
	url     string
	command *exec.Cmd
}

var appListens = regexp.MustCompile(`listening on (http://\S+)`)

// startAppProcess starts an application and waits until it listens.
func startAppProcess(t *testing.T, program string, args ...string) *appProcess {
	t.Helper()
	p := &appProcess{command: exec.Command(program, args...)}
	p.command.Stderr = os.Stderr
	out, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	late := time.AfterFunc(time.Minute, p.kill)
	defer late.Stop()
	line, err := bufio.NewReader(out).ReadString('\n')
	match := appListens.FindStringSubmatch(line)
	if match == nil {
		t.Fatalf("the application printed %q (%v)", line, err)
	}
	p.url = match[1]
	return p
}

// kill kills the process with SIGKILL.
func (p *appProcess) kill() {
	_ = p.command.Process.Kill()
	_ = p.command.Wait()
}

var appClient = &http.Client{Timeout: 30 * time.Second}

// ask sends a request. It returns the status of the answer, 0 without an answer, and the token of
// a login.
func (p *appProcess) ask(method, path, token string, form url.Values) (status int, issued string) {
	req, err := http.NewRequest(method, p.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, ""
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := appClient.Do(req)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = resp.Body.Close() }()
	var body struct {
		AccessToken string `json:"access_token"`
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, ""
	}
	_ = json.Unmarshal(text, &body) // most answers have no JSON
	if body.AccessToken != "" {
		secretscan.Record(body.AccessToken)
	}
	return resp.StatusCode, body.AccessToken
}

func (p *appProcess) login(name string) (status int, token string) {
	return p.ask(http.MethodPost, "/auth/login", "", url.Values{"username": {name}, "password": {password}})
}

func (p *appProcess) logout(token string) int {
	status, _ := p.ask(http.MethodPost, "/auth/logout", token, nil)
	return status
}

func (p *appProcess) me(token string) int {
	status, _ := p.ask(http.MethodGet, "/me", token, nil)
	return status
}

// Two processes of an application share a database in a container. One is killed while both serve
// clients.
func TestKilledProcessLosesNoAcknowledgedLoginOrLogout(t *testing.T) {
	if server.Kind != testserver.KindContainer {
		const required = "LATCHKEY_TEST_REQUIRE_CONTAINER"
		if v := os.Getenv(required); v != "" && v != "0" {
			t.Fatalf("no container, which %s requires", required)
		}
		t.Skipf("no container (%s=1 makes this a failure)", required)
	}
	program := filepath.Join(t.TempDir(), "testapp")
	if out, err := exec.Command("go", "build", "-o", program, "./internal/testapp").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, cache := range map[string]time.Duration{"without a cache": 0, "with a cache": 30 * time.Second} {
		t.Run(name, func(t *testing.T) { testTwoProcesses(t, program, cache) })
	}
}

func testTwoProcesses(t *testing.T, program string, cache time.Duration) {
	const clients = 8
	db := database(t)
	users := newUsers[account.User[uuid.UUID]](t, db, mongostore.UsersConfig{})
	accounts := newManager(t, users, account.Config{})
	names := make([]string, clients)
	for i := range names {
		names[i] = fmt.Sprintf("client%d@example.com", i)
		if _, err := accounts.Register(t.Context(), account.User[uuid.UUID]{Email: names[i]}, password); err != nil {
			t.Fatal(err)
		}
	}
	start := func(listen string) *appProcess {
		return startAppProcess(t, program, "-uri", server.URI, "-db", db.Name(), "-cache", cache.String(), "-listen", listen)
	}
	a, b := start("127.0.0.1:0"), start("127.0.0.1:0")

	// refusedOn checks that a process refuses a token that was logged out on the other one: at
	// once without a cache, else after the next poll of the revocations, which is 1 s later at
	// most.
	refusedOn := func(p *appProcess, token string) {
		t.Helper()
		within, begin := time.Duration(0), time.Now()
		if cache > 0 {
			within = 1250*time.Millisecond + time.Second // the machine may be busy
		}
		for p.me(token) != http.StatusUnauthorized {
			if time.Since(begin) > within {
				t.Errorf("a token is accepted %v after its logout on the other process", time.Since(begin))
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Logf("refused on the other process %v after the logout", time.Since(begin).Round(time.Millisecond))
	}
	status, token := a.login(names[0])
	if status != http.StatusOK || b.me(token) != http.StatusOK {
		t.Fatalf("the login answers %d, or the other process refuses the token", status)
	}
	if status := a.logout(token); status != http.StatusNoContent {
		t.Errorf("the logout answers %d", status)
	}
	refusedOn(b, token)

	// Clients log in and out on both processes while one is killed.
	var (
		mu          sync.Mutex
		live, ended []string        // tokens of acknowledged logins and logouts
		answers     = map[int]int{} // to logouts, by status
		stop        = make(chan struct{})
		busy        sync.WaitGroup
	)
	for i, name := range names {
		busy.Go(func() {
			for n := i; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				on, other := a, b
				if n%2 == 0 {
					on, other = b, a
				}
				status, token := on.login(name)
				if status != http.StatusOK {
					if on == b {
						t.Errorf("a login on the running process answers %d", status)
					}
					time.Sleep(10 * time.Millisecond)
					continue
				}
				if got := b.me(token); got != http.StatusOK {
					t.Errorf("the running process answers %d to a new token", got)
				}
				if n%3 == 0 {
					mu.Lock()
					live = append(live, token)
					mu.Unlock()
					continue
				}
				status = other.logout(token)
				mu.Lock()
				if status == http.StatusNoContent {
					ended = append(ended, token)
				} else if other == b {
					t.Errorf("a logout on the running process answers %d", status)
				}
				answers[status]++
				mu.Unlock()
			}
		})
	}
	time.Sleep(500 * time.Millisecond)
	a.kill()
	time.Sleep(500 * time.Millisecond)
	close(stop)
	busy.Wait()
	t.Logf("%d logins and %d logouts were acknowledged; answers to logouts: %v", len(live)+len(ended), len(ended), answers)
	if len(live) == 0 || len(ended) == 0 {
		t.Error("no logins or no logouts were acknowledged")
	}
	check := func(p *appProcess, when string) {
		t.Helper()
		for _, token := range live {
			if got := p.me(token); got != http.StatusOK {
				t.Errorf("%s: the token of an acknowledged login is answered with %d", when, got)
			}
		}
		for _, token := range ended {
			if got := p.me(token); got != http.StatusUnauthorized {
				t.Errorf("%s: the token of an acknowledged logout is answered with %d", when, got)
			}
		}
	}
	if cache > 0 {
		time.Sleep(2250 * time.Millisecond) // longer than the interval of the polls
	}
	check(b, "on the running process")
	a = start(strings.TrimPrefix(a.url, "http://"))
	check(a, "on the restarted process")
	for _, token := range live {
		if status := a.logout(token); status != http.StatusNoContent {
			t.Errorf("a logout at the end answers %d", status)
		}
	}
	if len(live) > 0 {
		refusedOn(b, live[len(live)-1])
	}
}
