package faults_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/integration/internal/testserver"
)

var (
	soak           = flag.Duration("soak", 0, "how long the network, server, load, model and history tests repeat; 0 is the short form")
	sessionsWanted = flag.Int("sessions", 0, "number of live sessions in TestLoad, whose clients then do not pause; 0 is 100,000 on a server with indexes, else 200 and pauses")
	seed           = flag.Uint64("seed", 0, "seed of the random choices; 0 is a new one in each run")
)

var (
	// server is the MongoDB server under test.
	server *testserver.Server
	// devmongoCommand is the path of the devmongo program.
	devmongoCommand string
)

func TestMain(m *testing.M) {
	flag.Parse()
	gin.SetMode(gin.TestMode)
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if *seed == 0 {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		*seed = binary.LittleEndian.Uint64(b[:])
	}
	fmt.Printf("-seed=%d\n", *seed)
	dir, err := os.MkdirTemp("", "latchkey-faults-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	devmongoCommand = filepath.Join(dir, "devmongo")
	build := exec.Command("go", "build", "-o", devmongoCommand, "../devmongo/cmd/devmongo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build devmongo: %w\n%s", err, out)
	}

	ctx := context.Background()
	if server, err = testserver.Start(ctx); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, server.Close(ctx)) }()
	if server.Kind == testserver.KindDevmongo {
		own, err := startProcess("127.0.0.1:0", filepath.Join(dir, "data"))
		if err != nil {
			return 0, err
		}
		defer own.kill()
		if err := server.Close(ctx); err != nil {
			return 0, err
		}
		if err := os.Setenv("LATCHKEY_TEST_MONGODB_URI", own.uri()); err != nil {
			return 0, err
		}
		if server, err = testserver.Start(ctx); err != nil {
			return 0, err
		}
		fmt.Println("no container: a devmongo process instead")
	}
	fmt.Println(server)
	defer stopSuitePostgreSQL()
	return m.Run(), nil
}

// process is a devmongo process, which tests can kill.
type process struct {
	addr, dir string
	command   *exec.Cmd
}

var listening = regexp.MustCompile(`listening on mongodb://([^/]+)/`)

// startProcess starts devmongo on an address, with its data in a directory, and waits
// until it listens.
func startProcess(addr, dir string) (*process, error) {
	p := &process{dir: dir, command: exec.Command(devmongoCommand, "-listen", addr, "-dir", dir)}
	p.command.Stderr = os.Stderr
	out, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	timeout := time.AfterFunc(30*time.Second, p.kill)
	defer timeout.Stop()
	line, err := bufio.NewReader(out).ReadString('\n')
	found := listening.FindStringSubmatch(line)
	if found == nil {
		p.kill()
		return nil, fmt.Errorf("start devmongo: it printed %q: %w", line, err)
	}
	p.addr = found[1]
	return p, nil
}

func (p *process) uri() string { return "mongodb://" + p.addr + "/?directConnection=true" }

// kill ends the process at once (SIGKILL).
func (p *process) kill() {
	_ = p.command.Process.Kill()
	_ = p.command.Wait()
}
