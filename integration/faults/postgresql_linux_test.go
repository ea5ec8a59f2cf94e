package faults_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/sqlstore"
)

// postgreSQL is a PostgreSQL server in a directory of its own, which tests can kill.
type postgreSQL struct {
	sqlServer
	programs, dir string
	port          int
	as            *syscall.Credential // nil: this process's user
	log           *os.File

	mu     sync.Mutex
	server *exec.Cmd
	exited chan struct{}
}

// findPostgreSQL returns the directory of PostgreSQL's programs, version 14 or later: that of
// Debian's packages, which is not in the PATH, or else that of initdb in the PATH.
func findPostgreSQL() (string, error) {
	var found []string
	if path, err := exec.LookPath("initdb"); err == nil {
		found = append(found, path)
	}
	debian, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	found = append(found, debian...)
	if len(found) == 0 {
		return "", errNoPostgreSQL
	}
	return filepath.Dir(found[len(found)-1]), nil
}

// otherUser returns the user postgres, or else nobody, if this process runs as root:
// PostgreSQL refuses to.
func otherUser() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// newPostgreSQL makes a directory with a database and starts a server on it. Call remove at
// the end.
func newPostgreSQL() (p *postgreSQL, err error) {
	p = &postgreSQL{}
	if p.programs, err = findPostgreSQL(); err != nil {
		return nil, err
	}
	if p.as, err = otherUser(); err != nil {
		return nil, err
	}
	if p.dir, err = os.MkdirTemp("", "latchkey-postgresql-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.remove()
		}
	}()
	if p.as != nil {
		if err := os.Chown(p.dir, int(p.as.Uid), int(p.as.Gid)); err != nil {
			return nil, err
		}
	}
	if p.log, err = os.CreateTemp("", "latchkey-postgresql-*.log"); err != nil {
		return nil, err
	}
	initdb := p.command("initdb", "-D", p.data(), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p.port = listener.Addr().(*net.TCPAddr).Port
	if err := listener.Close(); err != nil {
		return nil, err
	}
	p.sqlServer = sqlServer{sqlstore.PostgreSQL, fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", p.port)}
	if err := p.start(); err != nil {
		return nil, err
	}
	return p, p.await(30 * time.Second)
}

func (p *postgreSQL) data() string { return filepath.Join(p.dir, "data") }

func (p *postgreSQL) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(p.programs, name), args...)
	c.Dir = p.dir
	c.SysProcAttr = &syscall.SysProcAttr{Credential: p.as, Pdeathsig: syscall.SIGKILL} // none outlives a test that panics
	return c
}

// start starts the server. It does not wait until the server accepts connections.
func (p *postgreSQL) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server = p.command("postgres", "-D", p.data(), "-p", strconv.Itoa(p.port), "-h", "127.0.0.1", "-k", "",
		"-c", "max_connections=200",
		"-c", "recovery_init_sync_method=syncfs") // the default syncs a thousand files, which takes seconds

	p.server.Stderr = p.log
	if err := p.server.Start(); err != nil {
		return err
	}
	server, exited := p.server, make(chan struct{})
	p.exited = exited
	go func() {
		_ = server.Wait()
		close(exited)
	}()
	return nil
}

// await waits until the server accepts connections.
func (p *postgreSQL) await(within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	for {
		err := p.exec(ctx, "", "SELECT 1")
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("PostgreSQL ended: %w\n%s", err, p.lines())
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL did not start: %w\n%s", err, p.lines())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// lines returns the last lines of the log.
func (p *postgreSQL) lines() string {
	all, _ := os.ReadFile(p.log.Name())
	lines := strings.Split(strings.TrimSpace(string(all)), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// children returns the server's processes other than the first one.
func (p *postgreSQL) children() (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if parent, alive := status(pid); alive && parent == p.server.Process.Pid {
			pids = append(pids, pid)
		}
	}
	return pids
}

// status returns the parent of a process, and whether it is alive.
func status(pid int) (parent int, alive bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // "PID (NAME) STATE PARENT …"; the name can contain spaces
	if err != nil {
		return 0, false
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return parent, err == nil && fields[0] != "Z"
}

// kill ends all processes of the server at once (SIGKILL).
func (p *postgreSQL) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server == nil {
		return
	}
	_ = p.server.Process.Signal(syscall.SIGSTOP) // it starts no others
	children := p.children()
	_ = p.server.Process.Kill()
	for _, pid := range children {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-p.exited
	p.server = nil
	// The next server refuses to start while one of them is there.
	living := func(pid int) bool {
		_, alive := status(pid)
		return alive
	}
	for deadline := time.Now().Add(5 * time.Second); slices.ContainsFunc(children, living) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
}

// killBackend kills a process that serves a connection with SIGKILL. The server then ends all
// other connections and recovers.
func (p *postgreSQL) killBackend() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pid := range p.children() {
		title, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if bytes.Contains(title, []byte("127.0.0.1(")) { // "postgres: USER DATABASE HOST(PORT) STATE"
			return syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return errors.New("PostgreSQL has no connection")
}

// crash implements crasher. On even rounds, one backend is killed.
func (p *postgreSQL) crash(round int, down time.Duration) error {
	if round%2 == 0 {
		if err := p.killBackend(); err != nil {
			return err
		}
	} else {
		p.kill()
		time.Sleep(down)
		if err := p.start(); err != nil {
			return err
		}
	}
	return p.await(30 * time.Second)
}

// remove ends the server and removes its directory.
func (p *postgreSQL) remove() {
	p.kill()
	if p.log != nil {
		_ = p.log.Close()
		_ = os.Remove(p.log.Name())
	}
	_ = os.RemoveAll(p.dir)
}

// suite is the server that tests share.
var suite struct {
	sync.Mutex
	server *postgreSQL
	err    error
}

// suitePostgreSQL returns the server that tests share, and starts it the first time.
func suitePostgreSQL() (*postgreSQL, error) {
	suite.Lock()
	defer suite.Unlock()
	if suite.server == nil && suite.err == nil {
		suite.server, suite.err = newPostgreSQL()
	}
	return suite.server, suite.err
}

func stopSuitePostgreSQL() {
	suite.Lock()
	defer suite.Unlock()
	if suite.server != nil {
		suite.server.remove()
	}
}

// ownPostgreSQL returns a server that only one test uses.
func ownPostgreSQL(tb testing.TB) crasher {
	tb.Helper()
	p, err := newPostgreSQL()
	if err != nil {
		skipPostgreSQL(tb, err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Log(p.lines())
		}
		p.remove()
	})
	return p
}
