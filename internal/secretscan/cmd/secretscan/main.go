// Command secretscan looks for secrets in files: tokens of Latchkey, and what the
// file -secrets lists. It prints the lines that hold some, without them, and fails
// if there are any.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/latchkey-go/latchkey/internal/secretscan"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "secretscan:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("secretscan", flag.ContinueOnError)
	list := flags.String("secrets", "", "`file` with a secret a line, to look for beside tokens")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("no files to look into")
	}
	var secrets []string
	if *list != "" {
		file, err := os.Open(*list)
		if err != nil {
			return err
		}
		secrets, err = secretscan.ReadSecrets(file)
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
		if len(secrets) == 0 {
			return fmt.Errorf("%s lists no secrets", *list)
		}
	}
	scanner, err := secretscan.New(secrets)
	if err != nil {
		return err
	}
	total, bytes := 0, int64(0)
	for _, name := range flags.Args() {
		found, size, err := scan(scanner, name)
		if err != nil {
			return err
		}
		for _, f := range found {
			fmt.Fprintf(stdout, "%s:%d: %s\n", name, f.Line, f.Text)
		}
		total, bytes = total+len(found), bytes+size
	}
	fmt.Fprintf(stdout, "looked for %d secrets, and for tokens, in %d bytes of %d files\n", len(secrets), bytes, flags.NArg())
	if total > 0 {
		return fmt.Errorf("%d lines hold secrets", total)
	}
	return nil
}

func scan(scanner *secretscan.Scanner, name string) (found []secretscan.Finding, size int64, err error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, 0, err
	}
	if info.Size() == 0 {
		return nil, 0, fmt.Errorf("%s is empty: there was nothing to look into", name)
	}
	found, err = scanner.Scan(file)
	return found, info.Size(), err
}
