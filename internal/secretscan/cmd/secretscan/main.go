// Command secretscan searches files for secrets: tokens of Latchkey, and the secrets in the file
// that -secrets names. It prints every line that contains a secret, with the secret redacted, and
// fails if there is one.
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
	list := flags.String("secrets", "", "`file` with one secret per line, to search for besides tokens")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("no files to search")
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
	fmt.Fprintf(stdout, "searched %d bytes in %d files for %d secrets and for tokens\n", bytes, flags.NArg(), len(secrets))
	if total > 0 {
		return fmt.Errorf("%d lines contain secrets", total)
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
		return nil, 0, fmt.Errorf("%s is empty", name)
	}
	found, err = scanner.Scan(file)
	return found, info.Size(), err
}
