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

// roleVariable tells a process that it was started for a role.
const roleVariable = "LATCHKEY_BENCH_ROLE"

// role is what a child process does: it reports once that it is ready, and goes on until ctx ends.
type role func(ctx context.Context, config json.RawMessage, ready func(any) error) error

var roles = map[string]role{"stub": runStub, "site": runSite, "delay": runDelay}

// Main must be the first thing that a program does, and each TestMain: in a process that was started for a role it
// plays that, and does not return.
func Main() {
	name := os.Getenv(roleVariable)
	if name == "" {
		return
	}
	if err := play(name); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func play(name string) error {
	run := roles[name]
	if run == nil {
		return errors.New("no such role")
	}
	in := json.NewDecoder(os.Stdin)
	var config json.RawMessage
	if err := in.Decode(&config); err != nil {
		return err
	}
	// The parent's end, however it comes, ends this process too.
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return run(ctx, config, json.NewEncoder(os.Stdout).Encode)
}

// process is a child.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

// start starts this program again, for a role, and waits until it is ready.
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
	// A child that hangs is ended, and what waits for it here goes on.
	hung := time.AfterFunc(2*time.Minute, func() { _ = p.cmd.Process.Kill() })
	defer hung.Stop()
	if err = json.NewEncoder(p.stdin).Encode(config); err == nil {
		err = json.NewDecoder(stdout).Decode(ready)
	}
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("lab: start a %s: %w", name, err)
	}
	return p, nil
}

// stop ends the child, and waits for it.
func (p *process) stop() {
	_ = p.stdin.Close()
	hung := time.AfterFunc(5*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer hung.Stop()
	_ = p.cmd.Wait()
}
