package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// roleVariable is the environment variable that tells a child process its role.
const roleVariable = "LATCHKEY_BENCH_ROLE"

// role is the work of a child process. It calls ready once, and then runs until ctx is done.
type role func(ctx context.Context, config json.RawMessage, ready func(any) error) error

var roles = map[string]role{"stub": runStub, "site": runSite, "delay": runDelay}

// Main runs the role of a child process, and then exits. In any other process it does
// nothing. Every main and TestMain that uses this package must call it first.
func Main() {
	name := os.Getenv(roleVariable)
	if name == "" {
		return
	}
	if err := runRole(name); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runRole(name string) error {
	run := roles[name]
	if run == nil {
		return errors.New("unknown role")
	}
	in := json.NewDecoder(os.Stdin)
	var config json.RawMessage
	if err := in.Decode(&config); err != nil {
		return err
	}
	// The parent holds the other end of stdin: this process ends when the parent ends.
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return run(ctx, config, json.NewEncoder(os.Stdout).Encode)
}

// process is a child process.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

// start runs this program in a child process with a role, and waits until it is ready.
// ready receives what the child reports.
func start(name string, config, ready any) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(self)}
	p.cmd.Env = append(os.Environ(), roleVariable+"="+name)
	p.cmd.Stderr = os.Stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	// Killing a child that hangs ends the wait below.
	hung := time.AfterFunc(2*time.Minute, func() { _ = p.cmd.Process.Kill() })
	defer hung.Stop()
	if err = json.NewEncoder(p.stdin).Encode(config); err == nil {
		err = json.NewDecoder(stdout).Decode(ready)
	}
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("lab: start the %s process: %w", name, err)
	}
	return p, nil
}

// stop ends the child process and waits for it. It kills a child that hangs.
func (p *process) stop() {
	_ = p.stdin.Close()
	hung := time.AfterFunc(5*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer hung.Stop()
	_ = p.cmd.Wait()
}
