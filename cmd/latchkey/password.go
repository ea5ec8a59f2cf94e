package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// readPassword reads a new password: twice and without echo from a terminal, or else the first
// line of stdin.
func readPassword(ctx context.Context, stdin io.Reader, stderr io.Writer) (string, error) {
	if !isTerminal(stdin) {
		fmt.Fprintln(stderr, "latchkey: reading the password from stdin")
		line, err := within(ctx, func() (string, error) { return firstLine(stdin) })
		if err == nil && line == "" {
			err = usageError("no password: write it to stdin, followed by a line break")
		}
		return line, err
	}
	fd := int(stdin.(*os.File).Fd())
	first, err := ask(ctx, fd, stderr, "Password: ")
	if err != nil {
		return "", err
	}
	again, err := ask(ctx, fd, stderr, "The password again: ")
	if err == nil && first != again {
		err = errors.New("the passwords are not the same")
	}
	return first, err
}

func firstLine(stdin io.Reader) (string, error) {
	const most = 8 << 10
	line, err := bufio.NewReader(io.LimitReader(stdin, most)).ReadString('\n')
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return strings.TrimRight(line, "\r\n"), err
}

// ask reads a line from a terminal without echo.
func ask(ctx context.Context, fd int, stderr io.Writer, prompt string) (string, error) {
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	fmt.Fprint(stderr, prompt)
	defer fmt.Fprintln(stderr)
	line, err := within(ctx, func() (string, error) {
		line, err := term.ReadPassword(fd)
		return string(line), err
	})
	if ctx.Err() != nil { // the read goes on until the process ends
		_ = term.Restore(fd, before)
	}
	return line, err
}

// within calls read, but does not wait for it any longer when ctx ends.
func within(ctx context.Context, read func() (string, error)) (string, error) {
	type answer struct {
		line string
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		line, err := read()
		answers <- answer{line, err}
	}()
	select {
	case got := <-answers:
		if got.err != nil {
			return "", fmt.Errorf("read the password: %w", got.err)
		}
		return got.line, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
